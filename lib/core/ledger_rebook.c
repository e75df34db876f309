/* SPDX-License-Identifier: Apache-2.0
 *
 * Rebooking: a shortest chain of moves that makes room for a newcomer.
 *
 *      newcomer ──▶ minute of chain[0] ──▶ minute of chain[1] ──▶ ... ──▶ free_minute
 *
 * Every minute of a chain is later than the one before it, and so is every deadline.
 */
#include "lib/core/ledger_impl.h"

/* Without limits. The reach is the last minute that the newcomer, or somebody who could make room
 * for it, may take. The ticket of latest deadline within the reach extends it furthest, so one
 * ticket a level is enough; and if it extends nothing, all tickets within the reach must stay
 * there: the minutes are full for good (Hall's condition), no schedule exists. */
bool dkt_li_route(dkt_ledger_t *self, uint32_t first, uint32_t last, dkt_li_route_t *route)
{
    uint32_t reach = last < dkt_li_window_end(self) ? last : dkt_li_window_end(self);
    uint32_t best = DKT_LI_NONE;
    route->count = 0;
    for (uint32_t minute = first;;) {
        for (; minute <= reach; minute++) {
            uint32_t top = dkt_li_top(self, minute);
            if (top != DKT_LI_NONE &&
                (best == DKT_LI_NONE ||
                 self->records[top].deadline_ms > self->records[best].deadline_ms)) {
                best = top;
            }
        }
        uint32_t furthest = best == DKT_LI_NONE ? 0 : dkt_li_last(self->records[best].deadline_ms);
        if (furthest > dkt_li_window_end(self)) {
            furthest = dkt_li_window_end(self);
        }
        if (furthest <= reach) {
            return false;
        }
        if (route->count < route->max) {
            route->chain[route->count] = best;
        }
        route->count++;
        route->free_minute = dkt_li_find(self, DKT_CLASS_GONE, reach + 1, furthest);
        if (route->free_minute != DKT_LI_NONE) {
            return true;
        }
        reach = furthest;
    }
}

/* -- with limits ---------------------------------------------------------------------------------
 */

/* Who asks for room: a ticket already reached by the search, or the newcomer. */
typedef struct {
    uint32_t index;  /* DKT_LI_NONE: the newcomer */
    uint32_t minute; /* it may go to minutes after this one */
    uint32_t last;
    int64_t deadline_ms;
    uint8_t class_index;
} s_asker_t;

/* Appends the tickets not reached yet that could make room for the asker. */
static void s_ask(dkt_ledger_t *self, const s_asker_t *asker, uint32_t *queued)
{
    for (uint32_t minute = asker->minute + 1; minute <= asker->last; minute++) {
        uint32_t top = dkt_li_top(self, minute);
        if (top == DKT_LI_NONE || self->records[top].deadline_ms <= asker->deadline_ms) {
            continue;
        }
        for (uint32_t lane = 0; lane < self->shape.resolvers; lane++) {
            uint32_t index = *dkt_li_lane(self, minute, lane);
            if (index & DKT_LI_LANE_FREE) {
                continue;
            }
            const dkt_li_record_t *record = &self->records[index];
            if (record->flags & DKT_LI_OPEN && record->deadline_ms > asker->deadline_ms &&
                self->parents[index] == DKT_LI_NONE &&
                dkt_li_limits_allow(self, minute, asker->class_index, record->class_index)) {
                self->parents[index] = asker->index == DKT_LI_NONE ? index : asker->index;
                self->queue[(*queued)++] = index;
            }
        }
    }
}

/* The chain that ends with `index`, from the parents; the newcomer's helper is its own parent. */
static void s_trace(dkt_ledger_t *self, uint32_t index, dkt_li_route_t *route)
{
    route->count = 1;
    for (uint32_t i = index; self->parents[i] != i; i = self->parents[i]) {
        route->count++;
    }
    uint32_t position = route->count;
    for (uint32_t i = index; position-- > 0; i = self->parents[i]) {
        if (position < route->max) {
            route->chain[position] = i;
        }
    }
}

/* Breadth first over tickets: with limits it matters who leaves which minute, so the shortcut of
 * dkt_li_route does not hold. */
bool dkt_li_route_limited(dkt_ledger_t *self, uint8_t class_index, uint32_t first, uint32_t last,
                          int64_t deadline_ms, dkt_li_route_t *route)
{
    uint32_t end = dkt_li_window_end(self);
    s_asker_t asker = {DKT_LI_NONE, first - 1, last < end ? last : end, deadline_ms, class_index};
    uint32_t queued = 0;
    bool found = false;
    route->count = 0;
    s_ask(self, &asker, &queued);
    for (uint32_t i = 0; i < queued; i++) {
        uint32_t index = self->queue[i];
        const dkt_li_record_t *record = &self->records[index];
        uint32_t furthest = dkt_li_last(record->deadline_ms);
        if (furthest <= record->minute) {
            continue;
        }
        route->free_minute = dkt_li_find(self, record->class_index, record->minute + 1, furthest);
        if (route->free_minute != DKT_LI_NONE) {
            s_trace(self, index, route);
            found = true;
            break;
        }
        asker = (s_asker_t){index, record->minute, furthest < end ? furthest : end,
                            record->deadline_ms, record->class_index};
        s_ask(self, &asker, &queued);
    }
    for (uint32_t i = 0; i < queued; i++) {
        self->parents[self->queue[i]] = DKT_LI_NONE;
    }
    return found;
}

/* -- verdict and moves ---------------------------------------------------------------------------
 */

dkt_verdict_t dkt_li_locate(dkt_ledger_t *self, uint8_t class_index, uint32_t first, uint32_t last,
                            int64_t deadline_ms, uint32_t *minute, dkt_li_route_t *route)
{
    route->count = 0;
    *minute = dkt_li_find(self, class_index, first, last);
    if (*minute != DKT_LI_NONE) {
        return DKT_VERDICT_YES;
    }
    bool lane_free = dkt_li_find(self, DKT_CLASS_GONE, first, last) != DKT_LI_NONE;
    if (!self->settings.rebooking) {
        return lane_free ? DKT_VERDICT_LIMIT : DKT_VERDICT_NO_SLOT;
    }
    bool by_lanes = lane_free || dkt_li_route(self, first, last, route);
    if (!by_lanes) {
        return DKT_VERDICT_NO_SLOT;
    }
    if (self->shape.limited &&
        !dkt_li_route_limited(self, class_index, first, last, deadline_ms, route)) {
        return DKT_VERDICT_LIMIT;
    }
    return route->count <= route->max ? DKT_VERDICT_YES : DKT_VERDICT_TOO_MANY_MOVES;
}

/* From the last one on, so that each finds its new lane free. */
uint32_t dkt_li_follow(dkt_ledger_t *self, const dkt_li_route_t *route, dkt_moves_t *moves,
                       dkt_change_fn *fn, void *ctx)
{
    assert(route->count > 0 && route->count <= route->max);
    uint32_t target = route->free_minute;
    for (uint32_t i = route->count; i-- > 0;) {
        uint32_t index = route->chain[i];
        const dkt_li_record_t *record = &self->records[index];
        dkt_place_t from = {record->minute, record->lane};
        assert(target > from.minute && target <= dkt_li_last(record->deadline_ms));
        dkt_li_leave(self, index);
        dkt_li_take(self, index, target);
        self->counts.moves_total++;
        if (moves) {
            assert(moves->count < DKT_MOVES_MAX);
            moves->moves[moves->count++] =
                (dkt_move_t){record->key, from, {record->minute, record->lane}};
        }
        if (fn) {
            dkt_li_report(self, index, DKT_CHANGE_MOVED, from, fn, ctx);
        }
        target = from.minute;
    }
    return target;
}
