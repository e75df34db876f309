/* SPDX-License-Identifier: Apache-2.0
 *
 * A binary heap by due time over entries that are found by their vshard: 20,000 accounts on 4,096
 * vshards make about five entries to look through.
 */
#include "lib/core/wake.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/core/grow.h"

#define S_NO_PLACE UINT32_MAX

static dkt_wake_entry_t *s_find(dkt_wake_t *self, const dkt_client_t *client)
{
    dkt_wake_entry_t *entry;
    LIST_FOREACH(entry, &self->buckets[dkt_client_vshard(client)], bucket)
    {
        if (dkt_client_equal(&entry->client, client)) {
            return entry;
        }
    }
    return NULL;
}

/* -- heap -- */

static void s_set(dkt_wake_t *self, uint32_t place, dkt_wake_entry_t *entry)
{
    self->heap[place] = entry;
    entry->place = place;
}

static void s_sift_up(dkt_wake_t *self, uint32_t place, dkt_wake_entry_t *entry)
{
    while (place > 0 && self->heap[(place - 1) / 2]->due_ms > entry->due_ms) {
        s_set(self, place, self->heap[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    s_set(self, place, entry);
}

static void s_sift_down(dkt_wake_t *self, uint32_t place, dkt_wake_entry_t *entry)
{
    for (;;) {
        uint32_t child = 2 * place + 1;
        if (child + 1 < self->heap_count &&
            self->heap[child + 1]->due_ms < self->heap[child]->due_ms) {
            child++;
        }
        if (child >= self->heap_count || self->heap[child]->due_ms >= entry->due_ms) {
            break;
        }
        s_set(self, place, self->heap[child]);
        place = child;
    }
    s_set(self, place, entry);
}

static void s_take_out(dkt_wake_t *self, uint32_t place)
{
    dkt_wake_entry_t *last = self->heap[--self->heap_count];
    if (place == self->heap_count) {
        return;
    }
    if (place > 0 && self->heap[(place - 1) / 2]->due_ms > last->due_ms) {
        s_sift_up(self, place, last);
    } else {
        s_sift_down(self, place, last);
    }
}

/* -- entries -- */

static void s_leave(dkt_wake_t *self, dkt_wake_entry_t *entry)
{
    if (entry->place == S_NO_PLACE) {
        TAILQ_REMOVE(&self->probes, entry, probe);
        self->probe_count--;
    } else {
        s_take_out(self, entry->place);
    }
}

static void s_remove(dkt_wake_t *self, dkt_wake_entry_t *entry)
{
    s_leave(self, entry);
    LIST_REMOVE(entry, bucket);
    free(entry);
}

static dkt_wake_entry_t *s_make(dkt_wake_t *self, const dkt_client_t *client)
{
    dkt_wake_entry_t *entry = calloc(1, sizeof *entry);
    if (entry) {
        entry->client = *client;
        LIST_INSERT_HEAD(&self->buckets[dkt_client_vshard(client)], entry, bucket);
    }
    return entry;
}

static bool s_due(dkt_wake_t *self, const dkt_wake_event_t *event)
{
    if (!dkt_grow((void **)&self->heap, &self->heap_max, self->heap_count + 1,
                  sizeof *self->heap)) {
        return false;
    }
    dkt_wake_entry_t *entry = s_find(self, &event->client);
    if (entry && entry->place != S_NO_PLACE && entry->due_ms <= event->due_ms) {
        return true;
    }
    if (entry) {
        s_leave(self, entry);
    } else if (!(entry = s_make(self, &event->client))) {
        return false;
    }
    entry->due_ms = event->due_ms;
    s_sift_up(self, self->heap_count++, entry);
    return true;
}

static bool s_probe(dkt_wake_t *self, const dkt_wake_event_t *event)
{
    dkt_wake_entry_t *entry = s_find(self, &event->client);
    if (entry) {
        return true; /* asked for already, or its row says when */
    }
    if (!(entry = s_make(self, &event->client))) {
        return false;
    }
    entry->place = S_NO_PLACE;
    TAILQ_INSERT_TAIL(&self->probes, entry, probe);
    self->probe_count++;
    return true;
}

static void s_lost(dkt_wake_t *self, uint16_t vshard)
{
    dkt_wake_entry_t *entry;
    while ((entry = LIST_FIRST(&self->buckets[vshard]))) {
        s_remove(self, entry);
    }
}

bool dkt_wake_step(dkt_wake_t *self, int64_t now_ms, const dkt_wake_event_t *event)
{
    dkt_wake_entry_t *entry;
    switch (event->kind) {
    case DKT_WAKE_DUE:
        return s_due(self, event);
    case DKT_WAKE_PROBE:
        return s_probe(self, event);
    case DKT_WAKE_ACTIVE:
        if ((entry = s_find(self, &event->client))) {
            s_remove(self, entry);
        }
        break;
    case DKT_WAKE_LOST:
        s_lost(self, event->vshard);
        break;
    case DKT_WAKE_PAUSE:
        self->paused_until_ms = now_ms + DKT_WAKE_PAUSE_MS;
        break;
    }
    return true;
}

bool dkt_wake_next(dkt_wake_t *self, int64_t now_ms, uint32_t starting, uint32_t probing,
                   dkt_client_t *client, bool *is_probe)
{
    if (now_ms < self->paused_until_ms || starting >= DKT_WAKE_AHEAD_MAX) {
        return false;
    }
    dkt_wake_entry_t *entry = NULL;
    if (self->heap_count > 0 && self->heap[0]->due_ms <= now_ms + DKT_WAKE_EARLY_MS) {
        entry = self->heap[0];
    } else if (probing < DKT_PROBES_MAX) {
        entry = TAILQ_FIRST(&self->probes);
    }
    if (!entry) {
        return false;
    }
    *client = entry->client;
    *is_probe = entry->place == S_NO_PLACE;
    s_remove(self, entry);
    return true;
}

dkt_wake_end_t dkt_wake_after_end(bool clean, bool served)
{
    if (!served) {
        return DKT_WAKE_END_KEEP; /* also a clean one: it was drained before it had loaded */
    }
    return clean ? DKT_WAKE_END_SETTLE : DKT_WAKE_END_WANTED;
}

uint32_t dkt_wake_count(const dkt_wake_t *self)
{
    return self->heap_count + self->probe_count;
}

void dkt_wake_init(dkt_wake_t *self)
{
    *self = (dkt_wake_t){0};
    TAILQ_INIT(&self->probes);
}

void dkt_wake_fini(dkt_wake_t *self)
{
    for (uint16_t v = 0; v < DKT_VSHARDS; v++) {
        s_lost(self, v);
    }
    assert(dkt_wake_count(self) == 0);
    free(self->heap);
    self->heap = NULL;
    self->heap_max = 0;
}
