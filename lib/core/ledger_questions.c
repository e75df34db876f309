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
    for (uint32_t i = 0; i < DKT_LI_HOLD_LISTS; i++) {
        uint32_t index = self->lists[dkt_li_list(self, DKT_LI_LIST_HOLDS + i)];
        for (; index != DKT_LI_NONE; index = self->records[index].next) {
            const dkt_li_record_t *record = &self->records[index];
            fn(ctx, record->key & ~DKT_LI_HOLD_KEY, record->class_index,
               (dkt_place_t){record->minute, record->lane}, record->deadline_ms);
        }
    }
}

/* -- earliest ------------------------------------------------------------------------------------
 */

/* What the sweep needs to know of each minute of the window. It lies on the stack of the tenant's
 * thread, so every tenant pays for it: 2,048 covers any ring, and lanes fit 16 bits. */
#define S_WINDOW_MAX 2048
_Static_assert(DKT_LEVEL_MAX_MINUTES + DKT_LI_RING_SPARE <= S_WINDOW_MAX, "any ring fits");
_Static_assert(DKT_RESOLVERS_MAX <= UINT16_MAX, "a minute's lanes fit");

typedef struct {
    uint16_t lanes[S_WINDOW_MAX];    /* not held, nor taken by a promise that cannot move */
    uint16_t standing[S_WINDOW_MAX]; /* movable tickets not dispatched yet */
    uint32_t due[S_WINDOW_MAX];      /* of them, those that must be done by this minute */
    uint32_t list;                   /* where the sweep's pulling has come to */
    uint32_t next;
} s_sweep_t;

/* By when it must be done: its last minute, or where it stands if it is late there already. */
static uint32_t s_due_by(const dkt_ledger_t *self, const dkt_li_record_t *record)
{
    uint32_t last = dkt_li_last(record->deadline_ms);
    uint32_t by = (last > record->minute ? last : record->minute) - self->base;
    return by < self->shape.ring ? by : self->shape.ring - 1;
}

static void s_sweep_init(dkt_ledger_t *self, s_sweep_t *sweep)
{
    uint32_t ring = self->shape.ring;
    memset(sweep->standing, 0, sizeof sweep->standing[0] * ring);
    memset(sweep->due, 0, sizeof sweep->due[0] * ring);
    for (uint32_t i = 0; i < ring; i++) {
        sweep->lanes[i] = (uint16_t)self->shape.resolvers;
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
            sweep->due[s_due_by(self, record)]++;
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
    uint32_t by = s_due_by(self, record);
    assert(sweep->standing[place] > 0 && sweep->due[by] > 0);
    sweep->standing[place]--;
    sweep->due[by]--;
}

/* Dispatches minute base + `position` in the sweep, with pull-forward. */
static void s_sweep_dispatch(dkt_ledger_t *self, s_sweep_t *sweep, uint32_t position)
{
    uint32_t wanted = (uint32_t)(sweep->lanes[position] - sweep->standing[position]);
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

/* Does an arrival fit when the minutes before base + `first` are dispatched, the last of them
 * having just begun? */
static bool s_sweep_fits(const dkt_ledger_t *self, const s_sweep_t *sweep, uint32_t first,
                         uint32_t level_minutes)
{
    uint32_t ring = self->shape.ring;
    uint32_t end = first + level_minutes - 1; /* the first minute that is too late */
    if (end > ring) {
        return true;
    }
    if (!self->settings.rebooking) {
        for (uint32_t i = first; i < end; i++) {
            if (sweep->standing[i] < sweep->lanes[i]) {
                return true;
            }
        }
        return false;
    }
    uint64_t lanes = 0;
    uint64_t due = 0;
    for (uint32_t i = first; i < ring; i++) {
        lanes += sweep->lanes[i];
        due += sweep->due[i];
        if (i + 1 >= end && due >= lanes) {
            return false;
        }
    }
    return true;
}

/* Start of the first minute, from minute `from` on, whose arrival fits. The whole window being
 * dispatched, nothing stands in the way: there always is one. */
DKT_LARGE_FRAME static int64_t s_sweep(dkt_ledger_t *self, uint8_t class_index, uint32_t from)
{
    s_sweep_t sweep = {.next = DKT_LI_NONE};
    s_sweep_init(self, &sweep);
    uint32_t level_minutes = self->settings.classes[class_index].level_minutes;
    uint32_t first = 0; /* minutes dispatched */
    while (first < self->shape.ring &&
           (self->base + first <= from || !s_sweep_fits(self, &sweep, first, level_minutes))) {
        s_sweep_dispatch(self, &sweep, first);
        first++;
    }
    for (uint32_t i = 0; i < self->fresh; i++) {
        self->records[i].flags &= (uint8_t)~DKT_LI_MARK;
    }
    uint32_t minute = self->base + first - 1;
    return (int64_t)(minute > from ? minute : from) * DKT_MINUTE_MS;
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
        cache->earliest_ms = s_sweep(self, class_index, from);
    }
    *earliest_ms = cache->earliest_ms;
    return true;
}

/* -- available -----------------------------------------------------------------------------------
 */

/* Are the free lanes of the class's window all that it can get, because no limit takes one away and
 * no ticket that stands there could leave it? Then they need no trial, only counting. */
static bool s_only_free_lanes(dkt_ledger_t *self, uint8_t class_index, uint32_t *free_lanes)
{
    uint32_t first = dkt_li_first(self->now_ms, DKT_COMMIT_BUDGET_MS);
    uint32_t last = dkt_li_last(self->now_ms + dkt_li_level_ms(self, class_index));
    *free_lanes = 0;
    if (self->shape.limited) {
        return false;
    }
    for (uint32_t minute = first; minute <= last; minute++) {
        *free_lanes += dkt_li_minute(self, minute)->free_count;
        uint32_t top = self->settings.rebooking ? dkt_li_top(self, minute) : DKT_LI_NONE;
        if (top != DKT_LI_NONE && dkt_li_last(self->records[top].deadline_ms) > last) {
            return false;
        }
    }
    return true;
}

/* Holds and what is not open stand still: their lanes are gone. Counts the others by when they are
 * due. */
static void s_count_minute(const dkt_ledger_t *self, uint32_t minute, uint32_t first,
                           int32_t *lanes, int32_t spare[S_WINDOW_MAX])
{
    uint32_t end = self->shape.ring - 1;
    *lanes += (int32_t)self->shape.resolvers;
    if (dkt_li_minute(self, minute)->free_count == self->shape.resolvers) {
        return;
    }
    const uint32_t *cells = dkt_li_lane(self, minute, 0);
    for (uint32_t lane = 0; lane < self->shape.resolvers; lane++) {
        if (cells[lane] & DKT_LI_LANE_FREE) {
            continue;
        }
        const dkt_li_record_t *record = &self->records[cells[lane]];
        if (!(record->flags & DKT_LI_OPEN)) {
            --*lanes;
            continue;
        }
        uint32_t last = dkt_li_last(record->deadline_ms);
        uint32_t by = (last > minute ? last : minute) - first;
        spare[by < end ? by : end]++;
    }
}

/* With rebooking and no limits a verdict is yes iff a schedule exists, and one exists iff at every
 * minute the lanes so far are enough for what must be done by then (Hall). So as many more fit as
 * the tightest minute from the end of their window on has to spare. One pass answers for all
 * classes; it is kept until something changes. */
DKT_LARGE_FRAME static void s_count_available(dkt_ledger_t *self, uint32_t first)
{
    int32_t spare[S_WINDOW_MAX]; /* what is due at each minute, then what is left of its lanes */
    assert(first >= self->base);
    uint32_t count = dkt_li_window_end(self) - first + 1;
    int32_t lanes = 0, must = 0;
    assert(count <= S_WINDOW_MAX);
    memset(spare, 0, sizeof spare[0] * self->shape.ring);
    for (uint32_t i = 0; i < count; i++) {
        /* A ticket is due no earlier than where it stands, so what is due here is complete. */
        s_count_minute(self, first + i, first, &lanes, spare);
        must += spare[i];
        spare[i] = lanes - must;
    }
    for (uint32_t i = count - 1; i-- > 0;) {
        spare[i] = spare[i] < spare[i + 1] ? spare[i] : spare[i + 1];
    }
    for (uint8_t i = 0; i < self->settings.class_count; i++) {
        uint32_t last = dkt_li_last(self->now_ms + dkt_li_level_ms(self, i));
        uint32_t at = last < first ? 0 : last - first;
        int32_t room = spare[at < count ? at : count - 1];
        self->available[i] = (dkt_li_available_t){.version = self->version,
                                                  .first = first,
                                                  .last = last,
                                                  .count = room > 0 ? (uint32_t)room : 0};
    }
}

/* With limits it matters who leaves which minute: they are admitted one after another. */
static uint32_t s_try_available(dkt_ledger_t *self, uint8_t class_index)
{
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

uint32_t dkt_ledger_available(dkt_ledger_t *self, int64_t now_ms, uint8_t class_index,
                              uint32_t *first_minute)
{
    if (dkt_ledger_probe(self, now_ms, class_index, first_minute) != DKT_VERDICT_YES) {
        return 0;
    }
    uint32_t first = dkt_li_first(self->now_ms, DKT_COMMIT_BUDGET_MS);
    uint32_t last = dkt_li_last(self->now_ms + dkt_li_level_ms(self, class_index));
    dkt_li_available_t *cache = &self->available[class_index];
    if (cache->version == self->version && cache->first == first && cache->last == last) {
        return cache->count;
    }
    uint32_t count;
    if (!s_only_free_lanes(self, class_index, &count)) {
        if (!self->shape.limited) {
            s_count_available(self, first);
            return cache->count;
        }
        count = s_try_available(self, class_index);
    }
    *cache = (dkt_li_available_t){self->version, first, last, count};
    return count;
}
