/* SPDX-License-Identifier: Apache-2.0
 *
 * Time at work: loading, missed minutes, dispatch with pull-forward, breaches, and when to come
 * again.
 */
#include "lib/core/ledger_impl.h"

void dkt_li_promise(const dkt_ledger_t *self, uint32_t index, dkt_promise_t *promise)
{
    const dkt_li_record_t *record = &self->records[index];
    *promise = (dkt_promise_t){
        .ticket = record->key,
        .deadline_ms = record->deadline_ms,
        .place = {record->minute, record->lane},
        .class_index = record->class_index,
        .state = record->flags & DKT_LI_OPEN ? DKT_TICKET_OPEN : DKT_TICKET_DISPATCHED,
        .at_risk = (record->flags & DKT_LI_AT_RISK) != 0,
    };
}

void dkt_li_report(const dkt_ledger_t *self, uint32_t index, dkt_change_kind_t kind,
                   dkt_place_t from, dkt_change_fn *fn, void *ctx)
{
    if (fn) {
        dkt_change_t change = {.kind = kind, .from = from};
        dkt_li_promise(self, index, &change.promise);
        fn(ctx, &change);
    }
}

static dkt_place_t s_place_of(const dkt_ledger_t *self, uint32_t index)
{
    return (dkt_place_t){self->records[index].minute, self->records[index].lane};
}

/* -- missed minutes ------------------------------------------------------------------------------
 */

bool dkt_li_place(dkt_ledger_t *self, uint32_t index, dkt_change_fn *fn, void *ctx)
{
    uint32_t first = dkt_li_first(self->now_ms, DKT_COMMIT_BUDGET_MS);
    uint32_t last = dkt_li_last(self->records[index].deadline_ms);
    if (last < first) {
        return false;
    }
    uint32_t minute = dkt_li_find(self, DKT_CLASS_GONE, first, last);
    if (minute == DKT_LI_NONE) {
        uint32_t chain[DKT_LI_CHAIN_MAX];
        dkt_li_route_t route = {.max = DKT_LI_CHAIN_MAX, .chain = chain};
        if (!dkt_li_route(self, first, last, &route) || route.count > route.max) {
            return false;
        }
        minute = dkt_li_follow(self, &route, NULL, fn, ctx);
    }
    dkt_li_take(self, index, minute);
    return true;
}

/* An adrift ticket stands again. */
static void s_anchor(dkt_ledger_t *self, uint32_t index)
{
    dkt_li_unlink(self, index);
    self->records[index].flags &= (uint8_t)~DKT_LI_ADRIFT;
    dkt_li_link_deadline(self, index);
}

/* Re-places the adrift tickets: by class urgency, then deadline, each is kept if it still fits with
 * those kept so far; the rest take the lanes left over, earliest deadline first. */
static void s_settle(dkt_ledger_t *self, dkt_change_fn *fn, void *ctx)
{
    uint32_t adrift = dkt_li_list(self, DKT_LI_LIST_ADRIFT);
    dkt_li_sort(self, adrift, true);
    uint32_t next;
    for (uint32_t index = self->lists[adrift]; index != DKT_LI_NONE; index = next) {
        next = self->records[index].next;
        dkt_place_t from = s_place_of(self, index);
        if (dkt_li_place(self, index, fn, ctx)) {
            s_anchor(self, index);
            dkt_li_report(self, index, DKT_CHANGE_MOVED, from, fn, ctx);
        }
    }
    dkt_li_sort(self, adrift, false);
    uint32_t first = dkt_li_first(self->now_ms, DKT_COMMIT_BUDGET_MS);
    for (uint32_t index = self->lists[adrift]; index != DKT_LI_NONE; index = next) {
        next = self->records[index].next;
        dkt_place_t from = s_place_of(self, index);
        uint32_t minute = dkt_li_find(self, DKT_CLASS_GONE, first, dkt_li_window_end(self));
        assert(minute != DKT_LI_NONE && "the window has a lane for every promise");
        self->records[index].flags |= DKT_LI_AT_RISK;
        dkt_li_take(self, index, minute);
        s_anchor(self, index);
        dkt_li_report(self, index, DKT_CHANGE_AT_RISK, from, fn, ctx);
    }
}

/* Takes the tickets of minutes that ended undispatched out of their lanes. A minute that the owner
 * before has dispatched is over too: its resolvers have their work. */
static void s_set_adrift(dkt_ledger_t *self)
{
    uint32_t minute = dkt_li_minute_of(self->now_ms);
    if (self->dispatched_end > minute &&
        self->dispatched_end <= dkt_li_first(self->now_ms, DKT_COMMIT_BUDGET_MS)) {
        minute = self->dispatched_end;
    }
    while (self->base < minute) {
        for (uint32_t lane = 0; lane < self->shape.resolvers; lane++) {
            uint32_t index = *dkt_li_lane(self, self->base, lane);
            if (index & DKT_LI_LANE_FREE) {
                continue;
            }
            assert(self->records[index].flags & DKT_LI_OPEN);
            dkt_li_leave(self, index);
            dkt_li_unlink(self, index);
            self->records[index].flags |= DKT_LI_ADRIFT;
            dkt_li_link(self, dkt_li_list(self, DKT_LI_LIST_ADRIFT), index);
        }
        dkt_li_recycle(self);
        dkt_li_advance(self, self->now_ms);
    }
}

/* -- breaches ------------------------------------------------------------------------------------
 */

/* `met` counts a decision at the deadline itself, so a deadline has passed 1 ms later. */
static void s_flag(dkt_ledger_t *self, dkt_change_fn *fn, void *ctx)
{
    uint32_t batch = dkt_li_list(self, DKT_LI_LIST_BATCH);
    uint32_t now_minute = dkt_li_minute_of(self->now_ms);
    for (uint32_t i = 0; i < self->shape.ring && self->flag_minute + i <= now_minute; i++) {
        uint32_t list = dkt_li_deadline_list(self, self->flag_minute + i);
        uint32_t next;
        for (uint32_t index = self->lists[list]; index != DKT_LI_NONE; index = next) {
            next = self->records[index].next;
            if (self->records[index].deadline_ms < self->now_ms) {
                dkt_li_unlink(self, index);
                dkt_li_link(self, batch, index);
            }
        }
    }
    if (now_minute > self->flag_minute) {
        self->flag_minute = now_minute;
    }
    dkt_li_sort(self, batch, false);
    while (self->lists[batch] != DKT_LI_NONE) {
        uint32_t index = self->lists[batch];
        dkt_li_record_t *record = &self->records[index];
        record->flags |= DKT_LI_BREACHED;
        dkt_li_report(self, index, DKT_CHANGE_BREACHED, s_place_of(self, index), fn, ctx);
        if (record->flags & DKT_LI_OPEN) {
            dkt_li_unlink(self, index);
            dkt_li_link_deadline(self, index);
        } else {
            self->counts.dispatched--;
            dkt_li_drop(self, index);
        }
    }
}

/* -- dispatch ------------------------------------------------------------------------------------
 */

/* Moves up to `wanted` open tickets of later minutes, earliest deadlines first, to the batch. */
static uint32_t s_collect_pulled(dkt_ledger_t *self, uint32_t list, uint32_t latest,
                                 uint32_t wanted)
{
    uint32_t batch = dkt_li_list(self, DKT_LI_LIST_BATCH);
    uint32_t taken = 0;
    if (self->lists[list] == DKT_LI_NONE) {
        return 0;
    }
    dkt_li_sort(self, list, false);
    uint32_t next;
    for (uint32_t index = self->lists[list]; index != DKT_LI_NONE && taken < wanted; index = next) {
        next = self->records[index].next;
        const dkt_li_record_t *record = &self->records[index];
        if (record->flags & DKT_LI_OPEN && dkt_li_minute_of(record->deadline_ms) <= latest) {
            dkt_li_unlink(self, index);
            dkt_li_link(self, batch, index);
            taken++;
        }
    }
    return taken;
}

/* Fills the batch with the tickets standing in the base minute and those pulled forward. */
static void s_collect(dkt_ledger_t *self, bool pull)
{
    uint32_t batch = dkt_li_list(self, DKT_LI_LIST_BATCH);
    for (uint32_t lane = 0; lane < self->shape.resolvers; lane++) {
        uint32_t index = *dkt_li_lane(self, self->base, lane);
        if (!(index & DKT_LI_LANE_FREE)) {
            assert(self->records[index].flags & DKT_LI_OPEN);
            dkt_li_unlink(self, index);
            dkt_li_link(self, batch, index);
        }
    }
    uint32_t wanted = dkt_li_minute(self, self->base)->free_count;
    uint32_t standing = self->shape.resolvers - wanted;
    if (!pull || self->counts.open == standing) {
        return;
    }
    wanted -= s_collect_pulled(self, dkt_li_list(self, DKT_LI_LIST_LATE), UINT32_MAX, wanted);
    for (uint32_t i = 0; i < self->shape.ring && wanted > 0; i++) {
        uint32_t minute = self->flag_minute + i;
        wanted -= s_collect_pulled(self, dkt_li_deadline_list(self, minute), minute, wanted);
    }
}

/* Dispatches the base minute, in the order of deadlines, and goes on to the next. */
static void s_dispatch(dkt_ledger_t *self, bool pull, dkt_change_fn *fn, void *ctx)
{
    uint32_t batch = dkt_li_list(self, DKT_LI_LIST_BATCH);
    s_collect(self, pull);
    dkt_li_sort(self, batch, false);
    for (uint32_t index = self->lists[batch]; index != DKT_LI_NONE;
         index = self->records[index].next) {
        dkt_place_t from = s_place_of(self, index);
        if (from.minute != self->base) {
            dkt_li_leave(self, index);
            dkt_li_take(self, index, self->base);
        }
        self->records[index].flags &= (uint8_t)~DKT_LI_OPEN;
        self->records[index].flags |= DKT_LI_DISPATCHED;
        dkt_li_report(self, index, DKT_CHANGE_DISPATCHED, from, fn, ctx);
    }
    while (self->lists[batch] != DKT_LI_NONE) {
        uint32_t index = self->lists[batch];
        dkt_li_leave(self, index);
        self->counts.open--;
        if (self->records[index].flags & DKT_LI_BREACHED) {
            dkt_li_drop(self, index); /* reported before: nothing is left to watch */
        } else {
            dkt_li_unlink(self, index);
            dkt_li_link_deadline(self, index);
            self->counts.dispatched++;
        }
    }
    dkt_li_recycle(self);
}

void dkt_li_settle_missed(dkt_ledger_t *self, dkt_change_fn *fn, void *ctx)
{
    s_set_adrift(self);
    if (self->lists[dkt_li_list(self, DKT_LI_LIST_ADRIFT)] != DKT_LI_NONE) {
        s_settle(self, fn, ctx);
    }
    s_flag(self, fn, ctx);
}

void dkt_ledger_tick(dkt_ledger_t *self, int64_t now_ms, uint32_t minute, dkt_change_fn *fn,
                     void *ctx)
{
    dkt_li_advance(self, now_ms);
    dkt_li_settle_missed(self, fn, ctx);
    while (self->base <= minute &&
           self->now_ms > (int64_t)self->base * DKT_MINUTE_MS - DKT_COMMIT_BUDGET_MS) {
        s_dispatch(self, self->base == minute, fn, ctx);
    }
}

int64_t dkt_ledger_due_ms(const dkt_ledger_t *self)
{
    int64_t due_ms = self->counts.held > 0 ? self->hold_due_ms : INT64_MAX;
    if (self->counts.open > 0) {
        /* A minute is closed, and so may be dispatched, 1 ms after its start less the budget. */
        int64_t dispatch_ms = (int64_t)self->base * DKT_MINUTE_MS - DKT_COMMIT_BUDGET_MS + 1;
        due_ms = dispatch_ms < due_ms ? dispatch_ms : due_ms;
    }
    if (self->counts.open + self->counts.dispatched == 0) {
        return due_ms;
    }
    for (uint32_t i = 0; i < self->shape.ring; i++) {
        uint32_t minute = self->flag_minute + i;
        if (i > 0 && (int64_t)minute * DKT_MINUTE_MS >= due_ms) {
            break;
        }
        uint32_t index = self->lists[dkt_li_deadline_list(self, minute)];
        bool found = index != DKT_LI_NONE;
        for (; index != DKT_LI_NONE; index = self->records[index].next) {
            int64_t flag_ms = self->records[index].deadline_ms + 1;
            due_ms = flag_ms < due_ms ? flag_ms : due_ms;
        }
        if (found) {
            break;
        }
    }
    return due_ms;
}
