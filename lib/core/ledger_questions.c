/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions to a ledger: earliest, available, counts.
 */
#include "lib/core/ledger_impl.h"

#include <string.h>

const dkt_settings_t *dkt_ledger_settings(const dkt_ledger_t *self)
{
    return &self->settings;
}

void dkt_ledger_counts(const dkt_ledger_t *self, dkt_ledger_counts_t *counts)
{
    *counts = self->counts;
}

void dkt_ledger_holds(const dkt_ledger_t *self, dkt_hold_fn *fn, void *ctx)
{
    for (uint32_t second = 0; second < DKT_LI_HOLD_SECONDS; second++) {
        uint32_t index = self->lists[dkt_li_list(self, DKT_LI_LIST_HOLDS + second)];
        for (; index != DKT_LI_NONE; index = self->records[index].next) {
            const dkt_li_record_t *record = &self->records[index];
            fn(ctx, record->key & ~DKT_LI_HOLD_KEY, record->class_index,
               (dkt_place_t){record->minute, record->lane}, record->deadline_ms);
        }
    }
}

/* -- earliest ------------------------------------------------------------------------------------
 */

/* What the sweep needs to know of each minute of the window. 4,096 covers any ring. */
#define S_WINDOW_MAX 4096

typedef struct {
    uint32_t lanes[S_WINDOW_MAX];    /* not held, nor taken by a promise that cannot move */
    uint32_t standing[S_WINDOW_MAX]; /* movable tickets not dispatched yet */
    uint32_t due[S_WINDOW_MAX];      /* of them, those that must be done by this minute */
    uint32_t list;                   /* where the sweep's pulling has come to */
    uint32_t next;
} s_sweep_t;

static bool s_is_movable(const dkt_ledger_t *self, const dkt_li_record_t *record)
{
    (void)self;
    return dkt_li_last(record->deadline_ms) >= record->minute;
}

static void s_sweep_init(dkt_ledger_t *self, s_sweep_t *sweep)
{
    uint32_t ring = self->shape.ring;
    memset(sweep->standing, 0, sizeof sweep->standing[0] * ring);
    memset(sweep->due, 0, sizeof sweep->due[0] * ring);
    for (uint32_t i = 0; i < ring; i++) {
        sweep->lanes[i] = self->shape.resolvers;
        if (dkt_li_minute(self, self->base + i)->free_count == self->shape.resolvers) {
            continue;
        }
        for (uint32_t lane = 0; lane < self->shape.resolvers; lane++) {
            uint32_t index = *dkt_li_lane(self, self->base + i, lane);
            if (index & DKT_LI_LANE_FREE) {
                continue;
            }
            const dkt_li_record_t *record = &self->records[index];
            if (record->flags & DKT_LI_HOLD) {
                sweep->lanes[i]--;
                continue;
            }
            sweep->standing[i]++;
            uint32_t last = dkt_li_last(record->deadline_ms);
            uint32_t by = s_is_movable(self, record) ? last - self->base : i;
            sweep->due[by < ring ? by : ring - 1]++;
        }
    }
}

/* The next ticket to be pulled forward that stands after minute base + `position`. */
static uint32_t s_sweep_next(dkt_ledger_t *self, s_sweep_t *sweep, uint32_t position)
{
    while (true) {
        while (sweep->next == DKT_LI_NONE) {
            if (sweep->list > self->shape.ring) {
                return DKT_LI_NONE;
            }
            uint32_t list = sweep->list == 0
                                ? dkt_li_list(self, DKT_LI_LIST_LATE)
                                : dkt_li_deadline_list(self, self->flag_minute + sweep->list - 1);
            dkt_li_sort(self, list, false);
            sweep->next = self->lists[list];
            sweep->list++;
        }
        uint32_t index = sweep->next;
        const dkt_li_record_t *record = &self->records[index];
        sweep->next = record->next;
        if (record->flags & DKT_LI_OPEN && record->minute - self->base > position) {
            return index;
        }
    }
}

static void s_sweep_remove(dkt_ledger_t *self, s_sweep_t *sweep, const dkt_li_record_t *record)
{
    uint32_t place = record->minute - self->base;
    uint32_t last = dkt_li_last(record->deadline_ms);
    uint32_t by = s_is_movable(self, record) ? last - self->base : place;
    by = by < self->shape.ring ? by : self->shape.ring - 1;
    assert(sweep->standing[place] > 0 && sweep->due[by] > 0);
    sweep->standing[place]--;
    sweep->due[by]--;
}

/* Dispatches minute base + `position` in the sweep, with pull-forward. */
static void s_sweep_dispatch(dkt_ledger_t *self, s_sweep_t *sweep, uint32_t position)
{
    uint32_t wanted = sweep->lanes[position] - sweep->standing[position];
    for (uint32_t lane = 0; lane < self->shape.resolvers; lane++) {
        uint32_t index = *dkt_li_lane(self, self->base + position, lane);
        if (!(index & DKT_LI_LANE_FREE) && self->records[index].flags & DKT_LI_OPEN &&
            !(self->records[index].flags & DKT_LI_MARK)) {
            s_sweep_remove(self, sweep, &self->records[index]);
        }
    }
    for (; wanted > 0; wanted--) {
        uint32_t index = s_sweep_next(self, sweep, position);
        if (index == DKT_LI_NONE) {
            return;
        }
        self->records[index].flags |= DKT_LI_MARK;
        s_sweep_remove(self, sweep, &self->records[index]);
    }
}

/* Does an arrival at a minute's start fit, that minute being dispatched? `first` is the position of
 * the minute after it. */
static bool s_sweep_fits(const dkt_ledger_t *self, const s_sweep_t *sweep, uint32_t first,
                         uint32_t level_minutes)
{
    uint32_t ring = self->shape.ring;
    uint32_t last = first + level_minutes - 2;
    if (last >= ring) {
        return true;
    }
    if (!self->settings.rebooking) {
        for (uint32_t i = first; i <= last; i++) {
            if (sweep->standing[i] < sweep->lanes[i]) {
                return true;
            }
        }
        return false;
    }
    uint64_t lanes = 0;
    uint64_t due = 0;
    for (uint32_t i = 0; i < ring; i++) {
        lanes += i >= first ? sweep->lanes[i] : 0;
        due += sweep->due[i];
        if (i >= last && due >= lanes) {
            return false;
        }
    }
    return true;
}

static bool s_sweep(dkt_ledger_t *self, uint8_t class_index, uint32_t from, int64_t *earliest_ms)
{
    s_sweep_t sweep = {.next = DKT_LI_NONE};
    s_sweep_init(self, &sweep);
    uint32_t level_minutes = self->settings.classes[class_index].level_minutes;
    uint32_t minute = from;
    /* In its last seconds the minute before may have dispatched the one that is about to start. */
    bool fits = from < self->base && s_sweep_fits(self, &sweep, 0, level_minutes);
    for (uint32_t position = 0; !fits && position < self->shape.ring; position++) {
        s_sweep_dispatch(self, &sweep, position);
        minute = self->base + position;
        fits = minute >= from && s_sweep_fits(self, &sweep, position + 1, level_minutes);
    }
    for (uint32_t i = 0; i < self->shape.records_max; i++) {
        self->records[i].flags &= (uint8_t)~DKT_LI_MARK;
    }
    *earliest_ms = (int64_t)minute * DKT_MINUTE_MS;
    return fits;
}

bool dkt_ledger_earliest(dkt_ledger_t *self, int64_t now_ms, uint8_t class_index,
                         int64_t *earliest_ms)
{
    dkt_li_advance(self, now_ms);
    assert(class_index < self->settings.class_count);
    for (uint32_t i = 0; i <= class_index; i++) {
        if (self->settings.classes[i].limit_permille == 0) {
            return false;
        }
    }
    uint32_t from = dkt_li_minute_of(self->now_ms + DKT_MINUTE_MS - 1);
    dkt_li_earliest_t *cache = &self->earliest[class_index];
    if (cache->version != self->version || cache->from != from) {
        cache->version = self->version;
        cache->from = from;
        cache->fits = s_sweep(self, class_index, from, &cache->earliest_ms);
    }
    *earliest_ms = cache->earliest_ms;
    return cache->fits;
}

/* -- available -----------------------------------------------------------------------------------
 */

uint32_t dkt_ledger_available(dkt_ledger_t *self, int64_t now_ms, uint8_t class_index,
                              uint32_t *first_minute)
{
    if (dkt_ledger_probe(self, now_ms, class_index, first_minute) != DKT_VERDICT_YES) {
        return 0;
    }
    dkt_ledger_t *trial = dkt_li_clone(self);
    if (!trial) {
        return 1; /* true as far as it goes */
    }
    uint32_t admitted = 0;
    uint64_t ticket = DKT_LI_HOLD_KEY - 1; /* far above any ticket number */
    dkt_place_t place;
    int64_t deadline_ms;
    dkt_moves_t moves;
    while (dkt_ledger_admit(trial, self->now_ms, class_index, ticket, &place, &deadline_ms,
                            &moves) == DKT_VERDICT_YES) {
        ticket--;
        admitted++;
    }
    dkt_ledger_destroy(&trial);
    return admitted;
}
