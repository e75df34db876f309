/* SPDX-License-Identifier: Apache-2.0
 *
 * What a planned handoff passes on, in one row: the live holds, and the newest of the refusals that
 * are still remembered. Little-endian:
 *
 *   version 3 | hold count 4 | written_ms 8 | holds | refusals up to the end
 *   hold      nonce 8 | class 1 | minute 4 | lane 2 | expires_ms 8
 *   refusal   request_id 16 | method 4 | ticket_type 4 | subject 4 | payload 4 | slot 8 | verdict 1
 *             | has earliest 1 | earliest_ms 8 | until_ms 8 | alternatives 1, each: class 1 |
 *             minute 4 | deadline_ms 8
 *
 * It is written even without holds, because it tells the successor that no hold of this epoch is
 * lost, and what time it was: what has expired for one owner is not alive for the next. Procedure
 * for a change: a new version byte; an unknown one is ignored, and holds of that epoch then count
 * as lost in a crash.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/core/grow.h"
#include "lib/core/plant.h"
#include "lib/core/tenant_impl.h"

#define VERSION           3
#define COUNT_END         5
#define HEADER_BYTES      13
#define HOLD_BYTES        23
#define REFUSAL_BYTES     59u
#define ALTERNATIVE_BYTES 13u

static uint8_t *s_put(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
    return at + bytes;
}

static uint64_t s_get(const uint8_t **at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) {
        value |= (uint64_t)(*at)[i] << (8 * i);
    }
    *at += bytes;
    return value;
}

static uint32_t s_hold_count(const uint8_t *body)
{
    const uint8_t *at = body + 1;
    return (uint32_t)s_get(&at, 4);
}

void dkt_tenant_handoff_take(dkt_tenant_t *self, dkt_view_t body)
{
    if (!body.data || body.len < HEADER_BYTES || body.data[0] != VERSION ||
        s_hold_count(body.data) > (body.len - HEADER_BYTES) / HOLD_BYTES) {
        return;
    }
    self->handoff = malloc(body.len);
    if (self->handoff) {
        memcpy(self->handoff, body.data, body.len);
        self->handoff_len = body.len;
        self->handoff_used = true;
    }
}

int64_t dkt_tenant_handoff_written_ms(const dkt_tenant_t *self)
{
    if (!self->handoff) {
        return 0;
    }
    const uint8_t *at = self->handoff + COUNT_END;
    return (int64_t)s_get(&at, 8);
}

static void s_load_hold(dkt_tenant_t *self, const uint8_t **at)
{
    uint64_t nonce = s_get(at, 8);
    uint8_t class_index = (uint8_t)s_get(at, 1);
    dkt_place_t place = {.minute = (uint32_t)s_get(at, 4)};
    place.lane = (uint16_t)s_get(at, 2);
    int64_t expires_ms = (int64_t)s_get(at, 8);
    dkt_err_t err = {0};
    if (expires_ms > self->now_ms &&
        dkt_ledger_load_hold(self->ledger, nonce, class_index, place, expires_ms, &err) != DKT_OK) {
        /* A hold may be lost (rule 4), a promise may not: the tickets stand, the hold goes. */
        self->port.log(self->port.ctx, DKT_LOG_WARN, err.text);
    }
}

/* False: this is no refusal of ours; it and what follows is left. */
static bool s_load_refusal(dkt_tenant_t *self, const uint8_t **at, const uint8_t *end)
{
    if ((size_t)(end - *at) < REFUSAL_BYTES) {
        return false;
    }
    dkt_uuid_t id;
    memcpy(id.bytes, *at, sizeof id.bytes);
    *at += sizeof id.bytes;
    dkt_memo_digest_t digest = {.method = (uint32_t)s_get(at, 4)};
    digest.ticket_type = (uint32_t)s_get(at, 4);
    digest.subject = (uint32_t)s_get(at, 4);
    digest.payload = (uint32_t)s_get(at, 4);
    digest.slot = s_get(at, 8);
    dkt_memo_refusal_t refusal = {.verdict = (uint8_t)s_get(at, 1)};
    refusal.has_earliest = s_get(at, 1) != 0;
    refusal.earliest_ms = (int64_t)s_get(at, 8);
    int64_t left_ms = (int64_t)s_get(at, 8) - self->now_ms;
    refusal.alternative_count = (uint8_t)s_get(at, 1);
    uint8_t class_count = dkt_ledger_settings(self->ledger)->class_count;
    if (refusal.verdict == DKT_VERDICT_YES || refusal.verdict >= DKT_VERDICT_COUNT ||
        refusal.alternative_count > class_count ||
        (size_t)(end - *at) < refusal.alternative_count * ALTERNATIVE_BYTES) {
        return false;
    }
    for (uint8_t i = 0; i < refusal.alternative_count; i++) {
        refusal.alternatives[i].class_index = (uint8_t)s_get(at, 1);
        refusal.alternatives[i].minute = (uint32_t)s_get(at, 4);
        refusal.alternatives[i].deadline_ms = (int64_t)s_get(at, 8);
        if (refusal.alternatives[i].class_index >= class_count) {
            return false;
        }
    }
    if (left_ms > 0 && dkt_memo_find(&self->memo, &id) == DKT_MEMO_NONE) {
        refusal.until_mono_ms =
            self->mono_ms + (left_ms < DKT_REFUSAL_MEMORY_MS ? left_ms : DKT_REFUSAL_MEMORY_MS);
        uint32_t memo = dkt_memo_add(&self->memo, &id, &digest, DKT_MEMO_LOOKING);
        if (memo != DKT_MEMO_NONE) {
            dkt_memo_refused(&self->memo, memo, &refusal);
        }
    }
    return true;
}

void dkt_tenant_handoff_load(dkt_tenant_t *self)
{
    if (!self->handoff) {
        return;
    }
    const uint8_t *at = self->handoff + HEADER_BYTES, *end = self->handoff + self->handoff_len;
    for (uint32_t left = s_hold_count(self->handoff); left > 0; left--) {
        s_load_hold(self, &at);
    }
    while (at < end && s_load_refusal(self, &at, end)) {
    }
    free(self->handoff);
    self->handoff = NULL;
    self->handoff_len = 0;
}

/* Without memory for all of them the body ends where it is, and the caller drops it: a hold that is
 * not passed on would count as released. */
static void s_write_hold(void *ctx, uint64_t nonce, uint8_t class_index, dkt_place_t place,
                         int64_t expires_ms)
{
    dkt_group_t *group = ctx;
    if (group->handoff_len == 0 || !dkt_grow((void **)&group->handoff, &group->handoff_max,
                                             group->handoff_len + HOLD_BYTES, 1)) {
        group->handoff_len = 0;
        return;
    }
    uint8_t *at = group->handoff + group->handoff_len;
    at = s_put(at, nonce, 8);
    at = s_put(at, class_index, 1);
    at = s_put(at, place.minute, 4);
    at = s_put(at, place.lane, 2);
    at = s_put(at, (uint64_t)expires_ms, 8);
    assert(at == group->handoff + group->handoff_len + HOLD_BYTES);
    group->handoff_len += HOLD_BYTES;
    s_put(group->handoff + 1, s_hold_count(group->handoff) + 1, 4);
}

/* False: no memory; refusals are remembered as well as they can be. */
static bool s_write_refusal(const dkt_tenant_t *self, dkt_group_t *group,
                            const dkt_memo_entry_t *entry)
{
    const dkt_memo_refusal_t *refusal = entry->refusal;
    uint32_t bytes = REFUSAL_BYTES + refusal->alternative_count * ALTERNATIVE_BYTES;
    if (!dkt_grow((void **)&group->handoff, &group->handoff_max, group->handoff_len + bytes, 1)) {
        return false;
    }
    uint8_t *at = group->handoff + group->handoff_len;
    memcpy(at, entry->id.bytes, sizeof entry->id.bytes);
    at = s_put(at + sizeof entry->id.bytes, entry->digest.method, 4);
    at = s_put(at, entry->digest.ticket_type, 4);
    at = s_put(at, entry->digest.subject, 4);
    at = s_put(at, entry->digest.payload, 4);
    at = s_put(at, entry->digest.slot, 8);
    at = s_put(at, refusal->verdict, 1);
    at = s_put(at, refusal->has_earliest, 1);
    at = s_put(at, (uint64_t)refusal->earliest_ms, 8);
    at = s_put(at, (uint64_t)(self->now_ms + refusal->until_mono_ms - self->mono_ms), 8);
    at = s_put(at, refusal->alternative_count, 1);
    for (uint8_t i = 0; i < refusal->alternative_count; i++) {
        at = s_put(at, refusal->alternatives[i].class_index, 1);
        at = s_put(at, refusal->alternatives[i].minute, 4);
        at = s_put(at, (uint64_t)refusal->alternatives[i].deadline_ms, 8);
    }
    assert(at == group->handoff + group->handoff_len + bytes);
    group->handoff_len += bytes;
    return true;
}

static void s_write_refusals(dkt_tenant_t *self, dkt_group_t *group)
{
    uint32_t number = self->memo.newest;
    for (uint32_t written = 0; number != DKT_MEMO_NONE && written < DKT_HANDOFF_REFUSALS_MAX;) {
        const dkt_memo_entry_t *entry = dkt_memo_entry(&self->memo, number);
        if (entry->state == DKT_MEMO_REFUSED && entry->refusal->until_mono_ms > self->mono_ms) {
            if (!s_write_refusal(self, group, entry)) {
                return;
            }
            written++;
        }
        number = entry->older;
    }
}

void dkt_tenant_handoff_write(dkt_tenant_t *self)
{
    dkt_group_t *group = self->gathering;
    if (!dkt_grow((void **)&group->handoff, &group->handoff_max, HEADER_BYTES, 1)) {
        return;
    }
    memset(group->handoff, 0, HEADER_BYTES);
    group->handoff[0] = VERSION;
    s_put(group->handoff + COUNT_END, (uint64_t)self->now_ms, 8);
    group->handoff_len = HEADER_BYTES;
    if (!DKT_PLANTED(HANDOFF_EMPTY)) {
        dkt_ledger_holds(self->ledger, s_write_hold, group);
    }
    if (group->handoff_len > 0) {
        s_write_refusals(self, group);
    }
}
