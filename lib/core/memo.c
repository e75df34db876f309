/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/memo.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "lib/core/grow.h"

#define BUCKETS_MIN       64
#define UUID_VERSION_BYTE 6
#define UUID_V7           7

void dkt_memo_init(dkt_memo_t *self)
{
    memset(self, 0, sizeof *self);
    self->free_head = DKT_MEMO_NONE;
    self->oldest = DKT_MEMO_NONE;
    self->newest = DKT_MEMO_NONE;
    self->complete_after_ms = INT64_MAX;
}

void dkt_memo_fini(dkt_memo_t *self)
{
    for (uint32_t i = 0; i < self->count; i++) {
        assert(!self->entries[i].joiners);
        free(self->entries[i].refusal);
    }
    free(self->entries);
    free(self->links);
    free(self->buckets);
    dkt_memo_init(self);
}

/* Ids are the clients' choice: mix all bits, so that a regular pattern makes no long chain. */
static uint32_t s_hash(const dkt_uuid_t *id)
{
    return (uint32_t)dkt_view_digest((dkt_view_t){.data = id->bytes, .len = DKT_UUID_BYTES});
}

static uint32_t *s_bucket(const dkt_memo_t *self, uint32_t hash)
{
    return &self->buckets[hash & (self->bucket_count - 1)];
}

/* What its bucket, which must be here already, names first. */
static void s_fetch_chain(const dkt_memo_t *self, uint32_t hash)
{
    uint32_t number = *s_bucket(self, hash);
    if (number != DKT_MEMO_NONE) {
        __builtin_prefetch(&self->links[number]);
    }
}

void dkt_memo_fetch(const dkt_memo_t *self, const dkt_uuid_t *id, bool soon)
{
    if (!self->buckets) {
        return;
    }
    uint32_t hash = s_hash(id);
    if (soon) {
        s_fetch_chain(self, hash);
    } else {
        __builtin_prefetch(s_bucket(self, hash));
    }
}

uint32_t dkt_memo_find(const dkt_memo_t *self, const dkt_uuid_t *id)
{
    if (!self->buckets) {
        return DKT_MEMO_NONE;
    }
    uint32_t hash = s_hash(id);
    uint32_t number = *s_bucket(self, hash);
    while (number != DKT_MEMO_NONE &&
           (self->links[number].hash != hash ||
            memcmp(self->entries[number].id.bytes, id->bytes, DKT_UUID_BYTES) != 0)) {
        number = self->links[number].chain;
    }
    return number;
}

dkt_memo_entry_t *dkt_memo_entry(dkt_memo_t *self, uint32_t number)
{
    assert(number < self->count && self->entries[number].state != DKT_MEMO_FREE);
    return &self->entries[number];
}

static void s_link_bucket(dkt_memo_t *self, uint32_t number)
{
    uint32_t *bucket = s_bucket(self, self->links[number].hash);
    self->links[number].chain = *bucket;
    *bucket = number;
}

static bool s_grow_buckets(dkt_memo_t *self)
{
    if (self->buckets && self->count < self->bucket_count) {
        return true;
    }
    uint32_t count = self->bucket_count ? self->bucket_count * 2 : BUCKETS_MIN;
    uint32_t *buckets = malloc(count * sizeof *buckets);
    if (!buckets) {
        return false;
    }
    free(self->buckets);
    self->buckets = buckets;
    self->bucket_count = count;
    for (uint32_t i = 0; i < count; i++) {
        buckets[i] = DKT_MEMO_NONE;
    }
    for (uint32_t i = 0; i < self->count; i++) {
        if (self->entries[i].state != DKT_MEMO_FREE) {
            s_link_bucket(self, i);
        }
    }
    return true;
}

static void s_unsettle(dkt_memo_t *self, dkt_memo_entry_t *entry)
{
    if (entry->older != DKT_MEMO_NONE) {
        self->entries[entry->older].newer = entry->newer;
    } else {
        self->oldest = entry->newer;
    }
    if (entry->newer != DKT_MEMO_NONE) {
        self->entries[entry->newer].older = entry->older;
    } else {
        self->newest = entry->older;
    }
    self->settled--;
}

static int64_t s_v7_ms(const dkt_uuid_t *id)
{
    int64_t ms = 0;
    for (int i = 0; i < UUID_VERSION_BYTE; i++) {
        ms = (ms << 8) | id->bytes[i];
    }
    return ms;
}

static bool s_is_v7(const dkt_uuid_t *id)
{
    return id->bytes[UUID_VERSION_BYTE] >> 4 == UUID_V7;
}

/* The next one to be evicted, and the two after it, were last used tens of thousands of requests
 * ago: what their end will touch is asked for now, each what the next step needs, and here when it
 * comes. */
static void s_fetch_oldest(const dkt_memo_t *self)
{
    if (self->oldest == DKT_MEMO_NONE) {
        return;
    }
    const dkt_memo_entry_t *entry = &self->entries[self->oldest];
    __builtin_prefetch(entry->refusal);
    s_fetch_chain(self, self->links[self->oldest].hash);
    if (entry->newer == DKT_MEMO_NONE) {
        return;
    }
    __builtin_prefetch(s_bucket(self, self->links[entry->newer].hash));
    uint32_t third = self->entries[entry->newer].newer;
    if (third != DKT_MEMO_NONE) {
        __builtin_prefetch(&self->entries[third]);
        __builtin_prefetch(&self->links[third]);
    }
}

/* From now on ids up to the evicted one's time are looked up again. */
static void s_evict(dkt_memo_t *self)
{
    const dkt_memo_entry_t *entry = &self->entries[self->oldest];
    if (entry->state == DKT_MEMO_DONE && s_is_v7(&entry->id)) {
        int64_t ms = s_v7_ms(&entry->id);
        if (ms > self->complete_after_ms) {
            self->complete_after_ms = ms;
        }
    }
    dkt_memo_remove(self, self->oldest);
    s_fetch_oldest(self);
}

static void s_settle(dkt_memo_t *self, uint32_t number)
{
    dkt_memo_entry_t *entry = &self->entries[number];
    entry->older = self->newest;
    entry->newer = DKT_MEMO_NONE;
    if (self->newest != DKT_MEMO_NONE) {
        self->entries[self->newest].newer = number;
    } else {
        self->oldest = number;
    }
    self->newest = number;
    self->settled++;
    while (self->settled > DKT_REQUEST_MEMORY_MAX) {
        s_evict(self);
    }
}

uint32_t dkt_memo_add(dkt_memo_t *self, const dkt_uuid_t *id, const dkt_memo_digest_t *digest,
                      dkt_memo_state_t state)
{
    assert(state == DKT_MEMO_LOOKING || state == DKT_MEMO_PENDING);
    uint32_t number = self->free_head;
    if (number == DKT_MEMO_NONE) {
        if (!s_grow_buckets(self) ||
            !dkt_grow((void **)&self->links, &self->link_max, self->count + 1,
                      sizeof *self->links) ||
            !dkt_grow((void **)&self->entries, &self->max, self->count + 1,
                      sizeof *self->entries)) {
            return DKT_MEMO_NONE;
        }
        number = self->count++;
    } else {
        self->free_head = self->entries[number].newer;
    }
    self->entries[number] =
        (dkt_memo_entry_t){.id = *id, .digest = *digest, .state = (uint8_t)state};
    self->links[number].hash = s_hash(id);
    s_link_bucket(self, number);
    return number;
}

void dkt_memo_remove(dkt_memo_t *self, uint32_t number)
{
    dkt_memo_entry_t *entry = dkt_memo_entry(self, number);
    assert(!entry->joiners);
    if (entry->state == DKT_MEMO_DONE || entry->state == DKT_MEMO_REFUSED) {
        s_unsettle(self, entry);
    }
    uint32_t *link = s_bucket(self, self->links[number].hash);
    while (*link != number) {
        link = &self->links[*link].chain;
    }
    *link = self->links[number].chain;
    free(entry->refusal);
    *entry = (dkt_memo_entry_t){.state = DKT_MEMO_FREE, .newer = self->free_head};
    self->free_head = number;
}

void dkt_memo_done(dkt_memo_t *self, uint32_t number)
{
    dkt_memo_entry_t *entry = dkt_memo_entry(self, number);
    assert(entry->state == DKT_MEMO_PENDING && !entry->joiners);
    entry->state = DKT_MEMO_DONE;
    s_settle(self, number);
}

void dkt_memo_refused(dkt_memo_t *self, uint32_t number, const dkt_memo_refusal_t *refusal)
{
    dkt_memo_entry_t *entry = dkt_memo_entry(self, number);
    assert(!entry->joiners && !entry->refusal);
    size_t bytes = offsetof(dkt_memo_refusal_t, alternatives) +
                   refusal->alternative_count * sizeof refusal->alternatives[0];
    entry->refusal = malloc(bytes);
    if (!entry->refusal) {
        dkt_memo_remove(self, number);
        return;
    }
    memcpy(entry->refusal, refusal, bytes);
    entry->state = DKT_MEMO_REFUSED;
    s_settle(self, number);
}

void dkt_memo_forget_refusals(dkt_memo_t *self)
{
    uint32_t number = self->oldest;
    while (number != DKT_MEMO_NONE) {
        uint32_t next = self->entries[number].newer;
        if (self->entries[number].state == DKT_MEMO_REFUSED) {
            dkt_memo_remove(self, number);
        }
        number = next;
    }
}

void dkt_memo_activated(dkt_memo_t *self, int64_t now_ms, bool pristine)
{
    self->complete_after_ms = pristine ? 0 : now_ms + DKT_MEMO_SKEW_MS;
}

bool dkt_memo_new_id(const dkt_memo_t *self, const dkt_uuid_t *id, int64_t now_ms)
{
    if (!s_is_v7(id)) {
        return false;
    }
    int64_t ms = s_v7_ms(id);
    return ms > self->complete_after_ms && ms <= now_ms + DKT_MEMO_SKEW_MS;
}

const char *dkt_memo_differs(const dkt_memo_digest_t *a, const dkt_memo_digest_t *b)
{
    return a->method != b->method             ? "method"
           : a->ticket_type != b->ticket_type ? "ticket_type"
           : a->subject != b->subject         ? "subject"
           : a->payload != b->payload         ? "payload"
           : a->slot != b->slot               ? "slot_id"
                                              : NULL;
}
