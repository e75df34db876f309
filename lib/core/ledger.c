/* SPDX-License-Identifier: Apache-2.0
 *
 * The ledger's block of memory, its records and its lists.
 */
#include "lib/core/ledger.h"

#include <stdlib.h>
#include <string.h>

#include "lib/core/ledger_impl.h"

static uint32_t s_power_of_two(uint32_t least)
{
    uint32_t power = 64;
    while (power < least) {
        power *= 2;
    }
    return power;
}

static uint32_t s_horizon(const dkt_settings_t *settings)
{
    return settings->classes[settings->class_count - 1].level_minutes;
}

/* Open tickets and holds stand in the horizon; a dispatched one stays at most a horizon longer. */
static dkt_li_shape_t s_shape(const dkt_settings_t *settings, uint32_t horizon, uint32_t extra)
{
    dkt_li_shape_t shape = {
        .ring = s_power_of_two(horizon + DKT_LI_RING_SPARE),
        .records_max = 2 * settings->resolvers * (horizon + 2) + extra,
        .resolvers = settings->resolvers,
        .limited = dkt_li_limited(settings),
    };
    shape.heads = s_power_of_two(shape.records_max / 2);
    shape.lists = shape.ring + DKT_LI_LIST_HOLDS + DKT_LI_HOLD_LISTS;
    shape.bitmaps = shape.limited ? 1 + DKT_CLASSES_MAX : 1;
    return shape;
}

/* Lays the arrays out from `arena`, widest elements first; returns their bytes. */
static size_t s_lay_out(dkt_ledger_t *self, char *arena)
{
    const dkt_li_shape_t *shape = &self->shape;
    char *at = arena;
    self->open_minutes = (uint64_t *)(void *)at;
    at += (size_t)shape->bitmaps * shape->ring / 8;
    self->records = (dkt_li_record_t *)(void *)at;
    at += sizeof(dkt_li_record_t) * shape->records_max;
    self->heads = (uint32_t *)(void *)at;
    at += sizeof(uint32_t) * shape->heads;
    self->lists = (uint32_t *)(void *)at;
    at += sizeof(uint32_t) * shape->lists;
    self->lanes = (uint32_t *)(void *)at;
    at += sizeof(uint32_t) * shape->ring * shape->resolvers;
    self->minutes = (dkt_li_minute_t *)(void *)at;
    at += sizeof(dkt_li_minute_t) * shape->ring;
    self->parents = NULL;
    self->queue = NULL;
    self->used = NULL;
    if (shape->limited) {
        self->parents = (uint32_t *)(void *)at;
        at += sizeof(uint32_t) * shape->records_max;
        self->queue = (uint32_t *)(void *)at;
        at += sizeof(uint32_t) * shape->records_max;
        self->used = (uint16_t *)(void *)at;
        at += sizeof(uint16_t) * shape->ring * DKT_CLASSES_MAX;
    }
    return (size_t)(at - arena);
}

static size_t s_arena_bytes(const dkt_li_shape_t *shape)
{
    dkt_ledger_t sizes = {.shape = *shape};
    return s_lay_out(&sizes, NULL);
}

/* Makes an empty ledger of the arena. */
static void s_clear(dkt_ledger_t *self)
{
    const dkt_li_shape_t *shape = &self->shape;
    for (uint32_t i = 0; i < shape->heads; i++) {
        self->heads[i] = DKT_LI_NONE;
    }
    for (uint32_t i = 0; i < shape->lists; i++) {
        self->lists[i] = DKT_LI_NONE;
    }
    self->unused = DKT_LI_NONE;
    self->fresh = 0;
    for (size_t i = 0; i < (size_t)shape->ring * shape->resolvers; i++) {
        self->lanes[i] = DKT_LI_LANE_FREE;
    }
    if (self->used) {
        memset(self->used, 0, sizeof(uint16_t) * shape->ring * DKT_CLASSES_MAX);
    }
    if (self->parents) {
        memset(self->parents, 0xff, sizeof(uint32_t) * shape->records_max);
    }
    dkt_li_relink_lanes(self);
}

/* Rebuilds free lists, latest deadlines and bitmaps from the lanes' cells. */
void dkt_li_relink_lanes(dkt_ledger_t *self)
{
    for (uint32_t minute = self->base; minute != self->base + self->shape.ring; minute++) {
        dkt_li_minute_t *meta = dkt_li_minute(self, minute);
        meta->free_lane = DKT_LI_LANE_END;
        meta->free_count = 0;
        meta->top = DKT_LI_TOP_UNKNOWN;
        for (uint32_t lane = self->shape.resolvers; lane-- > 0;) {
            uint32_t *cell = dkt_li_lane(self, minute, lane);
            if (*cell & DKT_LI_LANE_FREE) {
                *cell = DKT_LI_LANE_FREE | meta->free_lane;
                meta->free_lane = (uint16_t)lane;
                meta->free_count++;
            }
        }
        if (meta->free_count == self->shape.resolvers) {
            meta->top = DKT_LI_NONE;
        }
        dkt_li_refresh(self, minute);
    }
}

dkt_ledger_t *dkt_li_new(const dkt_settings_t *settings, uint32_t horizon, uint32_t extra,
                         int64_t now_ms)
{
    if (horizon < s_horizon(settings)) {
        horizon = s_horizon(settings);
    }
    dkt_li_shape_t shape = s_shape(settings, horizon, extra);
    dkt_ledger_t *self = malloc(sizeof *self + s_arena_bytes(&shape));
    if (!self) {
        return NULL;
    }
    memset(self, 0, sizeof *self);
    self->settings = *settings;
    self->shape = shape;
    self->loading = true;
    self->now_ms = now_ms;
    self->hold_due_ms = INT64_MAX;
    self->version = 1;
    self->base = dkt_li_minute_of(now_ms);
    self->flag_minute = self->base;
    self->arena = self + 1;
    s_lay_out(self, self->arena);
    s_clear(self);
    return self;
}

dkt_ledger_t *dkt_ledger_new(const dkt_settings_t *settings, int64_t now_ms)
{
    return dkt_li_new(settings, 0, 0, now_ms);
}

size_t dkt_ledger_bytes(const dkt_settings_t *settings)
{
    dkt_li_shape_t shape = s_shape(settings, s_horizon(settings), 0);
    return sizeof(dkt_ledger_t) + s_arena_bytes(&shape);
}

void dkt_ledger_destroy(dkt_ledger_t **self_p)
{
    dkt_ledger_t *self = *self_p;
    if (!self) {
        return;
    }
    if (self->arena_owned) {
        free(self->arena);
    }
    free(self);
    *self_p = NULL;
}

dkt_ledger_t *dkt_li_clone(const dkt_ledger_t *self)
{
    size_t bytes = s_arena_bytes(&self->shape);
    dkt_ledger_t *copy = malloc(sizeof *copy + bytes);
    if (!copy) {
        return NULL;
    }
    *copy = *self;
    copy->arena = copy + 1;
    copy->arena_owned = false;
    s_lay_out(copy, copy->arena);
    memcpy(copy->arena, self->arena, bytes);
    return copy;
}

/* Only while loading: what the database holds may go beyond what today's settings can produce
 * (tickets of a class that is gone, or dispatched by more resolvers). Indexes stay as they are. */
bool dkt_li_grow(dkt_ledger_t *self, uint32_t ring, uint32_t records_max)
{
    assert(self->loading);
    dkt_ledger_t old = *self;
    dkt_li_shape_t shape = self->shape;
    shape.ring = s_power_of_two(ring > shape.ring ? ring : shape.ring);
    shape.records_max = records_max > shape.records_max ? records_max : shape.records_max;
    shape.heads = s_power_of_two(shape.records_max / 2);
    shape.lists = shape.ring + DKT_LI_LIST_HOLDS + DKT_LI_HOLD_LISTS;
    void *arena = malloc(s_arena_bytes(&shape));
    if (!arena) {
        return false;
    }
    self->shape = shape;
    s_lay_out(self, arena);
    s_clear(self);
    self->counts = old.counts;
    for (uint32_t i = 0; i < old.fresh; i++) {
        const dkt_li_record_t *record = &old.records[i];
        if (!record->flags) {
            continue;
        }
        uint32_t index = dkt_li_insert(self, record->key);
        dkt_li_record_t *copy = &self->records[index];
        uint32_t chain = copy->chain;
        *copy = *record;
        copy->chain = chain;
        if (record->flags & DKT_LI_ADRIFT) {
            dkt_li_link(self, dkt_li_list(self, DKT_LI_LIST_ADRIFT), index);
        } else if (record->flags & DKT_LI_HOLD) {
            dkt_li_link_hold(self, index);
        } else {
            dkt_li_link_deadline(self, index);
        }
        if (record->minute >= old.base && record->minute - old.base < old.shape.ring &&
            record->lane < old.shape.resolvers &&
            *dkt_li_lane(&old, record->minute, record->lane) == i) {
            *dkt_li_lane(self, record->minute, record->lane) = index;
        }
    }
    if (self->used) {
        for (uint32_t minute = old.base; minute != old.base + old.shape.ring; minute++) {
            memcpy(dkt_li_used(self, minute), dkt_li_used(&old, minute),
                   sizeof(uint16_t) * DKT_CLASSES_MAX);
        }
    }
    dkt_li_relink_lanes(self);
    if (old.arena_owned) {
        free(old.arena);
    }
    self->arena = arena;
    self->arena_owned = true;
    return true;
}

/* -- records -------------------------------------------------------------------------------------
 */

/* Ticket numbers are a sequence, so their low bits spread them perfectly and keep neighbours in one
 * cache line; the upper half matters for nonces. */
static uint32_t *s_head(const dkt_ledger_t *self, uint64_t key)
{
    return &self->heads[(uint32_t)(key ^ (key >> 32)) & (self->shape.heads - 1)];
}

uint32_t dkt_li_lookup(const dkt_ledger_t *self, uint64_t key)
{
    uint32_t index = *s_head(self, key);
    while (index != DKT_LI_NONE && self->records[index].key != key) {
        index = self->records[index].chain;
    }
    return index;
}

/* Records that are free again lie anywhere in some megabytes, and each says which is the next one.
 * So it also says which is the third (`next`), for two are not enough to hide a miss: asked for
 * now, it is here when its turn comes. A record may lie in two cache lines. */
static void s_fetch_ahead(const dkt_ledger_t *self, uint32_t index)
{
    if (index != DKT_LI_NONE) {
        const char *record = (const char *)&self->records[index];
        __builtin_prefetch(record, 1);
        __builtin_prefetch(record + sizeof(dkt_li_record_t) - 1, 1);
    }
}

/* The record behind this one in the chain of the free. */
static uint32_t s_behind(const dkt_ledger_t *self, uint32_t index)
{
    return index == DKT_LI_NONE ? DKT_LI_NONE : self->records[index].chain;
}

uint32_t dkt_li_insert(dkt_ledger_t *self, uint64_t key)
{
    uint32_t index = self->unused;
    if (index != DKT_LI_NONE) {
        self->unused = self->records[index].chain;
        s_fetch_ahead(self, self->records[index].next);
    } else {
        index = self->fresh++;
        assert(index < self->shape.records_max && "more promises than lanes");
        self->records[index].flags = 0;
    }
    dkt_li_record_t *record = &self->records[index];
    uint32_t *head = s_head(self, key);
    record->key = key;
    record->chain = *head;
    *head = index;
    return index;
}

static void s_unchain(dkt_ledger_t *self, uint32_t index)
{
    uint32_t *link = s_head(self, self->records[index].key);
    if (*link == index) {
        *link = self->records[index].chain;
        return;
    }
    uint32_t before = *link;
    while (self->records[before].chain != index) {
        before = self->records[before].chain;
        assert(before != DKT_LI_NONE);
    }
    self->records[before].chain = self->records[index].chain;
}

void dkt_li_rekey(dkt_ledger_t *self, uint32_t index, uint64_t key)
{
    s_unchain(self, index);
    uint32_t *head = s_head(self, key);
    self->records[index].key = key;
    self->records[index].chain = *head;
    *head = index;
}

void dkt_li_drop(dkt_ledger_t *self, uint32_t index)
{
    dkt_li_unlink(self, index);
    s_unchain(self, index);
    self->records[index].flags = 0;
    self->records[index].chain = self->unused;
    self->records[index].next = s_behind(self, s_behind(self, self->unused));
    self->unused = index;
}

/* -- lists ---------------------------------------------------------------------------------------
 */

void dkt_li_link(dkt_ledger_t *self, uint32_t list, uint32_t index)
{
    dkt_li_record_t *record = &self->records[index];
    record->next = self->lists[list];
    record->prev = DKT_LI_HEAD | list;
    if (record->next != DKT_LI_NONE) {
        self->records[record->next].prev = index;
    }
    self->lists[list] = index;
}

void dkt_li_unlink(dkt_ledger_t *self, uint32_t index)
{
    dkt_li_record_t *record = &self->records[index];
    if (record->prev & DKT_LI_HEAD) {
        self->lists[record->prev & ~DKT_LI_HEAD] = record->next;
    } else {
        self->records[record->prev].next = record->next;
    }
    if (record->next != DKT_LI_NONE) {
        self->records[record->next].prev = record->prev;
    }
}

void dkt_li_link_deadline(dkt_ledger_t *self, uint32_t index)
{
    dkt_li_record_t *record = &self->records[index];
    uint32_t minute = dkt_li_minute_of(record->deadline_ms);
    if (record->flags & DKT_LI_BREACHED) {
        dkt_li_link(self, dkt_li_list(self, DKT_LI_LIST_LATE), index);
        return;
    }
    if (minute < self->flag_minute) {
        minute = self->flag_minute; /* it is flagged with the next ones */
    }
    dkt_li_link(self, dkt_li_deadline_list(self, minute), index);
}

static bool s_before(const dkt_li_record_t *a, const dkt_li_record_t *b, bool by_class)
{
    if (by_class && a->class_index != b->class_index) {
        return a->class_index < b->class_index;
    }
    if (a->deadline_ms != b->deadline_ms) {
        return a->deadline_ms < b->deadline_ms;
    }
    return a->key < b->key;
}

static uint32_t s_merge(dkt_ledger_t *self, uint32_t a, uint32_t b, bool by_class)
{
    uint32_t first = DKT_LI_NONE;
    uint32_t *tail = &first;
    uint32_t last = DKT_LI_NONE;
    while (a != DKT_LI_NONE || b != DKT_LI_NONE) {
        uint32_t *from = &a;
        if (a == DKT_LI_NONE ||
            (b != DKT_LI_NONE && s_before(&self->records[b], &self->records[a], by_class))) {
            from = &b;
        }
        uint32_t index = *from;
        *from = self->records[index].next;
        if (last == DKT_LI_NONE) {
            *tail = index;
        } else {
            self->records[last].next = index;
        }
        last = index;
    }
    if (last != DKT_LI_NONE) {
        self->records[last].next = DKT_LI_NONE;
    }
    return first;
}

/* Merge sort, bottom up: runs[i] is a sorted run of 2^i records. */
void dkt_li_sort(dkt_ledger_t *self, uint32_t list, bool by_class)
{
    uint32_t runs[32];
    unsigned run_count = 0;
    uint32_t index = self->lists[list];
    while (index != DKT_LI_NONE) {
        uint32_t next = self->records[index].next;
        self->records[index].next = DKT_LI_NONE;
        uint32_t run = index;
        unsigned i = 0;
        while (i < run_count && runs[i] != DKT_LI_NONE) {
            run = s_merge(self, runs[i], run, by_class);
            runs[i] = DKT_LI_NONE;
            i++;
        }
        if (i == run_count) {
            run_count++;
        }
        runs[i] = run;
        index = next;
    }
    uint32_t sorted = DKT_LI_NONE;
    for (unsigned i = 0; i < run_count; i++) {
        sorted = s_merge(self, runs[i], sorted, by_class);
    }
    self->lists[list] = sorted;
    uint32_t prev = DKT_LI_HEAD | list;
    for (index = sorted; index != DKT_LI_NONE; index = self->records[index].next) {
        self->records[index].prev = prev;
        prev = index;
    }
}
