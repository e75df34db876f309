/* SPDX-License-Identifier: Apache-2.0
 *
 * Loading a ledger from what the database holds. Rows are another's bytes: they are checked, never
 * asserted.
 */
#include "lib/core/ledger_impl.h"

/* Makes room for a record whose place or deadline is `minute` at the latest. */
static bool s_make_room(dkt_ledger_t *self, uint32_t minute)
{
    uint32_t ring = self->shape.ring;
    if (minute >= self->base && minute - self->base + DKT_LI_RING_SPARE > ring) {
        ring = minute - self->base + DKT_LI_RING_SPARE;
    }
    /* What is dispatched after loading needs records too. */
    uint32_t records_max = self->shape.records_max;
    uint32_t live = self->counts.open + self->counts.dispatched + self->counts.held;
    if (ring > self->shape.ring || live >= records_max / 2) {
        records_max = 2 * self->shape.resolvers * ring + 2 * live;
        records_max = records_max > self->shape.records_max ? records_max : self->shape.records_max;
    }
    if (ring == self->shape.ring && records_max == self->shape.records_max) {
        return true;
    }
    return dkt_li_grow(self, ring, records_max);
}

static dkt_status_t s_damaged(dkt_err_t *err, uint64_t number, const char *why)
{
    return dkt_fail(err, DKT_INVALID_ARGUMENT, NULL, "promise %llu %s", (unsigned long long)number,
                    why);
}

/* Is the lane within R and free? Checked for minutes that are not over. */
static const char *s_place_fault(const dkt_ledger_t *self, dkt_place_t place)
{
    if (place.lane >= self->shape.resolvers) {
        return "stands on a lane beyond the resolvers";
    }
    if (place.minute >= self->base &&
        !(*dkt_li_lane(self, place.minute, place.lane) & DKT_LI_LANE_FREE)) {
        return "stands on a lane that is taken";
    }
    return NULL;
}

void dkt_ledger_load_dispatched(dkt_ledger_t *self, uint32_t minute)
{
    assert(self->loading);
    if (minute >= self->dispatched_end) {
        self->dispatched_end = minute + 1;
    }
}

dkt_status_t dkt_ledger_load_ticket(dkt_ledger_t *self, const dkt_promise_t *promise,
                                    dkt_err_t *err)
{
    assert(self->loading);
    bool open = promise->state == DKT_TICKET_OPEN;
    uint32_t deadline_minute = dkt_li_minute_of(promise->deadline_ms);
    uint32_t furthest =
        promise->place.minute > deadline_minute ? promise->place.minute : deadline_minute;
    if ((!open && promise->state != DKT_TICKET_DISPATCHED) || !promise->ticket ||
        promise->ticket & DKT_LI_HOLD_KEY || promise->deadline_ms < 0 ||
        (promise->class_index != DKT_CLASS_GONE &&
         promise->class_index >= self->settings.class_count) ||
        (furthest > self->base && furthest - self->base > 2 * DKT_LEVEL_MAX_MINUTES)) {
        return s_damaged(err, promise->ticket, "is not a live ticket");
    }
    if (dkt_li_lookup(self, promise->ticket) != DKT_LI_NONE) {
        return s_damaged(err, promise->ticket, "is given twice");
    }
    if (!s_make_room(self, furthest)) {
        return dkt_fail(err, DKT_INTERNAL, NULL, "no memory for the ledger");
    }
    const char *fault = open ? s_place_fault(self, promise->place) : NULL;
    if (fault) {
        return s_damaged(err, promise->ticket, fault);
    }
    uint32_t index = dkt_li_insert(self, promise->ticket);
    dkt_li_record_t *record = &self->records[index];
    record->minute = promise->place.minute;
    record->lane = promise->place.lane;
    record->deadline_ms = promise->deadline_ms;
    record->class_index = promise->class_index;
    record->flags = open ? DKT_LI_OPEN : DKT_LI_DISPATCHED;
    if (promise->at_risk) {
        record->flags |= DKT_LI_AT_RISK;
    }
    if (open && record->minute < self->base) {
        record->flags |= DKT_LI_ADRIFT;
        dkt_li_link(self, dkt_li_list(self, DKT_LI_LIST_ADRIFT), index);
    } else {
        dkt_li_link_deadline(self, index);
    }
    if (open && record->minute >= self->base) {
        dkt_li_take_lane(self, index, record->minute, record->lane);
    }
    if (!open && record->minute >= self->dispatched_end) {
        self->dispatched_end = record->minute + 1;
    }
    self->counts.open += open ? 1 : 0;
    self->counts.dispatched += open ? 0 : 1;
    return DKT_OK;
}

dkt_status_t dkt_ledger_load_hold(dkt_ledger_t *self, uint64_t nonce, uint8_t class_index,
                                  dkt_place_t place, int64_t expires_ms, dkt_err_t *err)
{
    assert(self->loading);
    if (expires_ms <= self->now_ms) {
        return DKT_OK; /* it expired on the way */
    }
    if (!nonce || nonce & DKT_LI_HOLD_KEY || place.minute < self->base ||
        place.minute - self->base > 2 * DKT_LEVEL_MAX_MINUTES ||
        expires_ms - self->now_ms > DKT_HOLD_MAX_MS ||
        expires_ms > (int64_t)place.minute * DKT_MINUTE_MS - DKT_COMMIT_BUDGET_MS ||
        (class_index != DKT_CLASS_GONE && class_index >= self->settings.class_count)) {
        return s_damaged(err, nonce, "is not a live hold");
    }
    if (!s_make_room(self, place.minute)) {
        return dkt_fail(err, DKT_INTERNAL, NULL, "no memory for the ledger");
    }
    const char *fault = dkt_li_lookup(self, nonce | DKT_LI_HOLD_KEY) != DKT_LI_NONE
                            ? "is given twice"
                            : s_place_fault(self, place);
    if (fault) {
        return s_damaged(err, nonce, fault);
    }
    uint32_t index = dkt_li_insert(self, nonce | DKT_LI_HOLD_KEY);
    dkt_li_record_t *record = &self->records[index];
    record->class_index = class_index;
    record->flags = DKT_LI_HOLD;
    record->deadline_ms = expires_ms;
    self->counts.held++;
    dkt_li_link_hold(self, index);
    dkt_li_take_lane(self, index, place.minute, place.lane);
    return DKT_OK;
}

void dkt_ledger_load_done(dkt_ledger_t *self, int64_t now_ms, dkt_change_fn *fn, void *ctx)
{
    assert(self->loading);
    dkt_li_relink_lanes(self);
    self->loading = false;
    self->version++;
    dkt_li_advance(self, now_ms);
    dkt_li_settle_missed(self, fn, ctx);
}
