/* SPDX-License-Identifier: Apache-2.0
 *
 * What a planned handoff passes on: the live holds, in one row. Body: version 1, then per hold
 * nonce 8, class 1, minute 4, lane 2, expires_ms 8, little-endian. It is written even without
 * holds, because it tells the successor that no hold of this epoch is lost. Procedure for a change:
 * a new version byte; an unknown one is ignored, and holds of that epoch then count as lost in a
 * crash.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/core/grow.h"
#include "lib/core/plant.h"
#include "lib/core/tenant_impl.h"

#define VERSION      1
#define HEADER_BYTES 1
#define HOLD_BYTES   23

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

void dkt_tenant_handoff_take(dkt_tenant_t *self, dkt_view_t body)
{
    if (!body.data || body.len < HEADER_BYTES || body.data[0] != VERSION ||
        (body.len - HEADER_BYTES) % HOLD_BYTES != 0) {
        return;
    }
    self->handoff = malloc(body.len);
    if (self->handoff) {
        memcpy(self->handoff, body.data, body.len);
        self->handoff_len = body.len;
        self->handoff_used = true;
    }
}

void dkt_tenant_handoff_load(dkt_tenant_t *self)
{
    if (!self->handoff) {
        return;
    }
    const uint8_t *at = self->handoff + HEADER_BYTES;
    for (uint32_t done = HEADER_BYTES; done < self->handoff_len; done += HOLD_BYTES) {
        uint64_t nonce = s_get(&at, 8);
        uint8_t class_index = (uint8_t)s_get(&at, 1);
        dkt_place_t place = {.minute = (uint32_t)s_get(&at, 4)};
        place.lane = (uint16_t)s_get(&at, 2);
        int64_t expires_ms = (int64_t)s_get(&at, 8);
        dkt_err_t err = {0};
        if (expires_ms > self->now_ms && dkt_ledger_load_hold(self->ledger, nonce, class_index,
                                                              place, expires_ms, &err) != DKT_OK) {
            /* A hold may be lost (rule 4), a promise may not: the tickets stand, the hold goes. */
            self->port.log(self->port.ctx, DKT_LOG_WARN, err.text);
        }
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
}

void dkt_tenant_handoff_write(dkt_tenant_t *self)
{
    dkt_group_t *group = self->gathering;
    if (!dkt_grow((void **)&group->handoff, &group->handoff_max, HEADER_BYTES, 1)) {
        return;
    }
    group->handoff[0] = VERSION;
    group->handoff_len = HEADER_BYTES;
    if (!DKT_PLANTED(HANDOFF_EMPTY)) {
        dkt_ledger_holds(self->ledger, s_write_hold, group);
    }
}
