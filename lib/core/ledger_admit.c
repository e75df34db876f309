/* SPDX-License-Identifier: Apache-2.0
 *
 * Admission: hold, allocate, admit, release; and the end of a promise: cancel, resolve.
 */
#include "lib/core/ledger_impl.h"

#define S_HOLD_LEAD_MS                                                                             \
    1000 /* a hold close to its slot still gets this long, if it asked for it                      \
          */
#define S_SECOND_MS 1000

/* -- time ----------------------------------------------------------------------------------------
 */

static uint32_t s_hold_list(const dkt_ledger_t *self, int64_t expires_ms)
{
    uint32_t number = (uint32_t)(expires_ms / DKT_LI_HOLD_LIST_MS) & (DKT_LI_HOLD_LISTS - 1);
    return dkt_li_list(self, DKT_LI_LIST_HOLDS + number);
}

void dkt_li_link_hold(dkt_ledger_t *self, uint32_t index)
{
    int64_t expires_ms = self->records[index].deadline_ms;
    dkt_li_link(self, s_hold_list(self, expires_ms), index);
    if (expires_ms < self->hold_due_ms) {
        self->hold_due_ms = expires_ms;
    }
}

/* Looks for the next expiry, from the list of the one that is gone. */
static void s_find_hold_due(dkt_ledger_t *self, int64_t from_ms)
{
    self->hold_due_ms = INT64_MAX;
    if (self->counts.held == 0) {
        return;
    }
    for (uint32_t i = 0; i < DKT_LI_HOLD_LISTS; i++) {
        uint32_t index = self->lists[s_hold_list(self, from_ms + (int64_t)i * DKT_LI_HOLD_LIST_MS)];
        for (; index != DKT_LI_NONE; index = self->records[index].next) {
            int64_t expires_ms = self->records[index].deadline_ms;
            if (expires_ms < self->hold_due_ms) {
                self->hold_due_ms = expires_ms;
            }
        }
        if (self->hold_due_ms != INT64_MAX) {
            return;
        }
    }
    assert(!"a hold is counted, but in no list");
}

void dkt_li_hold_gone(dkt_ledger_t *self, int64_t expires_ms)
{
    assert(self->counts.held > 0);
    self->counts.held--;
    if (expires_ms == self->hold_due_ms || self->counts.held == 0) {
        s_find_hold_due(self, expires_ms);
    }
}

static void s_free_hold(dkt_ledger_t *self, uint32_t index)
{
    int64_t expires_ms = self->records[index].deadline_ms;
    dkt_li_leave(self, index);
    dkt_li_drop(self, index);
    dkt_li_hold_gone(self, expires_ms);
}

static void s_expire(dkt_ledger_t *self)
{
    while (self->hold_due_ms <= self->now_ms) {
        uint32_t next;
        for (uint32_t index = self->lists[s_hold_list(self, self->hold_due_ms)];
             index != DKT_LI_NONE; index = next) {
            next = self->records[index].next;
            if (self->records[index].deadline_ms <= self->now_ms) {
                dkt_li_leave(self, index);
                dkt_li_drop(self, index);
                self->counts.held--;
            }
        }
        s_find_hold_due(self, self->hold_due_ms);
    }
}

/* Minutes that ended without a promise in them need no tick. */
static void s_pass_minutes(dkt_ledger_t *self)
{
    uint32_t minute = dkt_li_minute_of(self->now_ms);
    while (self->base < minute &&
           dkt_li_minute(self, self->base)->free_count == self->shape.resolvers) {
        if (self->counts.open + self->counts.held == 0 && minute - self->base > self->shape.ring) {
            self->base = minute - self->shape.ring;
            self->version++;
            for (uint32_t i = 0; i < self->shape.ring; i++) {
                dkt_li_refresh(self, self->base + i);
            }
        }
        dkt_li_recycle(self);
    }
}

void dkt_li_advance(dkt_ledger_t *self, int64_t now_ms)
{
    assert(!self->loading || self->counts.open + self->counts.dispatched + self->counts.held == 0);
    self->loading = false;
    if (now_ms > self->now_ms) {
        self->now_ms = now_ms;
    }
    if (self->hold_due_ms <= self->now_ms) {
        s_expire(self);
    }
    if ((int64_t)(self->base + 1) * DKT_MINUTE_MS <= self->now_ms) {
        s_pass_minutes(self);
    }
}

/* -- verdicts ------------------------------------------------------------------------------------
 */

/* Where a newcomer of that class fits in [first, last]. A refusal is remembered until something
 * changes or time opens or closes a minute. */
static dkt_verdict_t s_decide(dkt_ledger_t *self, uint8_t class_index, uint32_t first,
                              uint32_t last, uint32_t *minute, dkt_li_route_t *route)
{
    dkt_li_refusal_t *refusal = &self->refusals[class_index];
    if (refusal->version == self->version && refusal->first == first && refusal->last == last) {
        return refusal->verdict;
    }
    int64_t deadline_ms = self->now_ms + dkt_li_level_ms(self, class_index);
    dkt_verdict_t verdict =
        dkt_li_locate(self, class_index, first, last, deadline_ms, minute, route);
    if (verdict != DKT_VERDICT_YES) {
        *refusal = (dkt_li_refusal_t){self->version, first, last, verdict};
    }
    return verdict;
}

static uint32_t s_last(const dkt_ledger_t *self, uint8_t class_index)
{
    return dkt_li_last(self->now_ms + dkt_li_level_ms(self, class_index));
}

/* Puts a new record of `flags` where the verdict said. */
static uint32_t s_book(dkt_ledger_t *self, uint64_t key, uint8_t class_index, uint8_t flags,
                       int64_t deadline_ms, uint32_t minute)
{
    assert(dkt_li_lookup(self, key) == DKT_LI_NONE);
    uint32_t index = dkt_li_insert(self, key);
    dkt_li_record_t *record = &self->records[index];
    record->class_index = class_index;
    record->flags = flags;
    record->deadline_ms = deadline_ms;
    dkt_li_take(self, index, minute);
    return index;
}

static void s_book_ticket(dkt_ledger_t *self, uint64_t ticket, uint8_t class_index, uint32_t minute,
                          dkt_place_t *place, int64_t *deadline_ms)
{
    *deadline_ms = self->now_ms + dkt_li_level_ms(self, class_index);
    assert((int64_t)(minute + 1) * DKT_MINUTE_MS <= *deadline_ms);
    uint32_t index = s_book(self, ticket, class_index, DKT_LI_OPEN, *deadline_ms, minute);
    dkt_li_link_deadline(self, index);
    self->counts.open++;
    *place = (dkt_place_t){minute, self->records[index].lane};
}

dkt_verdict_t dkt_ledger_admit(dkt_ledger_t *self, int64_t now_ms, uint8_t class_index,
                               uint64_t ticket, dkt_place_t *place, int64_t *deadline_ms,
                               dkt_moves_t *moves)
{
    dkt_li_advance(self, now_ms);
    moves->count = 0;
    uint32_t chain[DKT_MOVES_MAX];
    dkt_li_route_t route = {.max = DKT_MOVES_MAX, .chain = chain};
    uint32_t minute;
    dkt_verdict_t verdict =
        s_decide(self, class_index, dkt_li_first(self->now_ms, DKT_COMMIT_BUDGET_MS),
                 s_last(self, class_index), &minute, &route);
    if (verdict != DKT_VERDICT_YES) {
        return verdict;
    }
    if (route.count > 0) {
        minute = dkt_li_follow(self, &route, moves, NULL, NULL);
    }
    s_book_ticket(self, ticket, class_index, minute, place, deadline_ms);
    return DKT_VERDICT_YES;
}

/* A hold wants a slot that outlasts it; failing that, the last one there is. */
static dkt_verdict_t s_decide_hold(dkt_ledger_t *self, uint8_t class_index, uint32_t ttl_ms,
                                   uint32_t *minute, dkt_li_route_t *route)
{
    int64_t lead_ms = ttl_ms < S_HOLD_LEAD_MS ? ttl_ms : S_HOLD_LEAD_MS;
    uint32_t first = dkt_li_first(self->now_ms, DKT_COMMIT_BUDGET_MS + lead_ms);
    uint32_t outlasting = dkt_li_first(self->now_ms, DKT_COMMIT_BUDGET_MS + (int64_t)ttl_ms);
    uint32_t last = s_last(self, class_index);
    if (outlasting <= last) {
        *minute = dkt_li_find(self, class_index, outlasting, last);
        if (*minute != DKT_LI_NONE) {
            return DKT_VERDICT_YES;
        }
    }
    *minute = dkt_li_find_back(self, class_index, first, last);
    if (*minute != DKT_LI_NONE) {
        return DKT_VERDICT_YES;
    }
    dkt_verdict_t verdict = s_decide(self, class_index, first, last, minute, route);
    if (verdict != DKT_VERDICT_YES || outlasting > last) {
        return verdict;
    }
    uint32_t chain[DKT_MOVES_MAX];
    dkt_li_route_t longer = {.max = DKT_MOVES_MAX, .chain = chain};
    uint32_t other;
    int64_t deadline_ms = self->now_ms + dkt_li_level_ms(self, class_index);
    if (dkt_li_locate(self, class_index, outlasting, last, deadline_ms, &other, &longer) ==
            DKT_VERDICT_YES &&
        longer.count == route->count) {
        for (uint32_t i = 0; i < longer.count; i++) {
            route->chain[i] = chain[i];
        }
        route->free_minute = longer.free_minute;
    }
    return DKT_VERDICT_YES;
}

dkt_verdict_t dkt_ledger_hold(dkt_ledger_t *self, int64_t now_ms, uint8_t class_index,
                              uint32_t ttl_ms, uint64_t nonce, dkt_place_t *place,
                              int64_t *expires_ms, dkt_moves_t *moves)
{
    dkt_li_advance(self, now_ms);
    assert(ttl_ms > 0 && ttl_ms <= DKT_HOLD_MAX_MS);
    moves->count = 0;
    uint32_t chain[DKT_MOVES_MAX];
    dkt_li_route_t route = {.max = DKT_MOVES_MAX, .chain = chain};
    uint32_t minute;
    dkt_verdict_t verdict = s_decide_hold(self, class_index, ttl_ms, &minute, &route);
    if (verdict != DKT_VERDICT_YES) {
        return verdict;
    }
    if (route.count > 0) {
        minute = dkt_li_follow(self, &route, moves, NULL, NULL);
    }
    *expires_ms = self->now_ms + ttl_ms;
    int64_t closes_ms = (int64_t)minute * DKT_MINUTE_MS - DKT_COMMIT_BUDGET_MS;
    if (closes_ms < *expires_ms) {
        *expires_ms = closes_ms;
    }
    assert(*expires_ms > self->now_ms);
    uint32_t index =
        s_book(self, nonce | DKT_LI_HOLD_KEY, class_index, DKT_LI_HOLD, *expires_ms, minute);
    self->counts.held++;
    dkt_li_link_hold(self, index);
    *place = (dkt_place_t){minute, self->records[index].lane};
    return DKT_VERDICT_YES;
}

dkt_allocate_t dkt_ledger_allocate(dkt_ledger_t *self, int64_t now_ms, uint64_t nonce,
                                   int64_t expires_ms, uint64_t ticket, dkt_place_t *place,
                                   int64_t *deadline_ms)
{
    dkt_li_advance(self, now_ms);
    if (self->now_ms >= expires_ms) {
        return DKT_ALLOCATE_EXPIRED;
    }
    uint32_t index = dkt_li_lookup(self, nonce | DKT_LI_HOLD_KEY);
    if (index == DKT_LI_NONE) {
        return DKT_ALLOCATE_GONE;
    }
    dkt_li_record_t *record = &self->records[index];
    int64_t level_ms =
        record->class_index == DKT_CLASS_GONE ? 0 : dkt_li_level_ms(self, record->class_index);
    if ((int64_t)(record->minute + 1) * DKT_MINUTE_MS > self->now_ms + level_ms) {
        s_free_hold(self, index); /* the class was shortened or removed meanwhile */
        return DKT_ALLOCATE_GONE;
    }
    int64_t held_until_ms = record->deadline_ms;
    assert(dkt_li_lookup(self, ticket) == DKT_LI_NONE);
    dkt_li_unlink(self, index);
    dkt_li_hold_gone(self, held_until_ms);
    dkt_li_rekey(self, index, ticket);
    record->flags = DKT_LI_OPEN;
    record->deadline_ms = self->now_ms + level_ms;
    dkt_li_link_deadline(self, index);
    dkt_li_became_open(self, index);
    self->counts.open++;
    *place = (dkt_place_t){record->minute, record->lane};
    *deadline_ms = record->deadline_ms;
    return DKT_ALLOCATE_CREATED;
}

bool dkt_ledger_allocate_lost(dkt_ledger_t *self, int64_t now_ms, uint8_t class_index,
                              uint32_t minute, uint64_t ticket, dkt_place_t *place,
                              int64_t *deadline_ms)
{
    dkt_li_advance(self, now_ms);
    if (class_index >= self->settings.class_count || minute > s_last(self, class_index) ||
        minute < dkt_li_first(self->now_ms, DKT_COMMIT_BUDGET_MS) ||
        dkt_li_find(self, DKT_CLASS_GONE, minute, minute) == DKT_LI_NONE) {
        return false;
    }
    s_book_ticket(self, ticket, class_index, minute, place, deadline_ms);
    return true;
}

bool dkt_ledger_release(dkt_ledger_t *self, int64_t now_ms, uint64_t nonce)
{
    dkt_li_advance(self, now_ms);
    uint32_t index = dkt_li_lookup(self, nonce | DKT_LI_HOLD_KEY);
    if (index == DKT_LI_NONE) {
        return false;
    }
    s_free_hold(self, index);
    return true;
}

/* -- the life of a promise -----------------------------------------------------------------------
 */

static void s_end(dkt_ledger_t *self, uint32_t index)
{
    if (self->records[index].flags & DKT_LI_OPEN) {
        dkt_li_leave(self, index);
        self->counts.open--;
    } else {
        self->counts.dispatched--;
    }
    dkt_li_drop(self, index);
}

bool dkt_ledger_cancel(dkt_ledger_t *self, int64_t now_ms, uint64_t ticket)
{
    dkt_li_advance(self, now_ms);
    uint32_t index = dkt_li_lookup(self, ticket);
    if (index == DKT_LI_NONE || !(self->records[index].flags & DKT_LI_OPEN)) {
        return false;
    }
    s_end(self, index);
    return true;
}

bool dkt_ledger_resolve(dkt_ledger_t *self, int64_t now_ms, uint64_t ticket)
{
    dkt_li_advance(self, now_ms);
    uint32_t index = dkt_li_lookup(self, ticket);
    if (index == DKT_LI_NONE) {
        return false;
    }
    s_end(self, index);
    return true;
}

bool dkt_ledger_find(const dkt_ledger_t *self, uint64_t ticket, dkt_promise_t *promise)
{
    uint32_t index = dkt_li_lookup(self, ticket);
    if (index == DKT_LI_NONE) {
        return false;
    }
    dkt_li_promise(self, index, promise);
    return true;
}

dkt_verdict_t dkt_ledger_probe(dkt_ledger_t *self, int64_t now_ms, uint8_t class_index,
                               uint32_t *minute)
{
    dkt_li_advance(self, now_ms);
    uint32_t chain[DKT_MOVES_MAX];
    dkt_li_route_t route = {.max = DKT_MOVES_MAX, .chain = chain};
    dkt_verdict_t verdict =
        s_decide(self, class_index, dkt_li_first(self->now_ms, DKT_COMMIT_BUDGET_MS),
                 s_last(self, class_index), minute, &route);
    if (verdict == DKT_VERDICT_YES && route.count > 0) {
        *minute = self->records[chain[0]].minute;
    }
    return verdict;
}
