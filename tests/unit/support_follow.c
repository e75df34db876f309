/* SPDX-License-Identifier: Apache-2.0
 *
 * Ledger and model side by side: admission, holds and the life of a promise.
 */
#include "support_follow.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void follow_open(follow_t *self, const dkt_settings_t *settings, int64_t now_ms)
{
    model_init(&self->model, settings, now_ms);
    self->ledger = dkt_ledger_new(settings, now_ms);
    self->next_minute = (uint32_t)(now_ms / DKT_MINUTE_MS);
    self->reloaded = false;
    FOLLOW_CHECK(self, self->ledger != NULL, "no memory");
    dkt_ledger_load_done(self->ledger, now_ms, NULL, NULL);
}

void follow_close(follow_t *self)
{
    dkt_ledger_destroy(&self->ledger);
}

void follow_fail(const follow_t *self, int line, const char *format, ...)
{
    const dkt_settings_t *settings = &self->model.settings;
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    print_error("ledger and model differ, seed %llu sequence %llu step %u (%s), line %d:\n  %s\n",
                (unsigned long long)self->seed, (unsigned long long)self->sequence, self->step,
                self->op, line, text);
    print_error("  now %lld, resolvers %u, rebooking %d, classes", (long long)self->model.now_ms,
                settings->resolvers, settings->rebooking);
    for (uint8_t i = 0; i < settings->class_count; i++) {
        print_error(" %u min/%u", settings->classes[i].level_minutes,
                    settings->classes[i].limit_permille);
    }
    for (uint32_t i = 0; i < self->model.promise_count; i++) {
        const dkt_promise_t *promise = &self->model.promises[i].promise;
        print_error("\n  %s %llu class %u in %u.%u, deadline %lld%s",
                    dkt_ticket_state_name((dkt_ticket_state_t)promise->state),
                    (unsigned long long)promise->ticket, promise->class_index,
                    promise->place.minute, promise->place.lane, (long long)promise->deadline_ms,
                    promise->at_risk ? " at risk" : "");
    }
    for (uint32_t i = 0; i < self->model.hold_count; i++) {
        const model_hold_t *hold = &self->model.holds[i];
        print_error("\n  hold %llu class %u in %u.%u, expires %lld",
                    (unsigned long long)hold->nonce, hold->class_index, hold->place.minute,
                    hold->place.lane, (long long)hold->expires_ms);
    }
    print_error("\n  again: DKT_TEST_SEED=%llu DKT_TEST_SEQUENCES=%llu\n",
                (unsigned long long)self->seed, (unsigned long long)self->sequence + 1);
    fail();
    abort(); /* not reached: fail leaves the test */
}

/* -- the whole state -----------------------------------------------------------------------------
 */

static void s_compare_hold(void *ctx, uint64_t nonce, uint8_t class_index, dkt_place_t place,
                           int64_t expires_ms)
{
    follow_t *self = ctx;
    const model_hold_t *hold = model_find_hold(&self->model, nonce);
    FOLLOW_CHECK(self, hold != NULL, "hold %llu is over", (unsigned long long)nonce);
    FOLLOW_CHECK(self, hold->class_index == class_index, "class %u", class_index);
    FOLLOW_CHECK(self, hold->expires_ms == expires_ms, "expiry %lld", (long long)expires_ms);
    FOLLOW_CHECK(self, hold->place.minute == place.minute && hold->place.lane == place.lane,
                 "hold %llu moved", (unsigned long long)nonce);
}

void follow_compare(follow_t *self)
{
    dkt_err_t err = {0};
    dkt_ledger_counts_t counts;
    uint32_t open = 0, unused;
    /* A question brings the ledger to the model's time: what has expired goes. */
    dkt_verdict_t verdict = dkt_ledger_probe(self->ledger, self->model.now_ms, 0, &unused);
    FOLLOW_CHECK(self, verdict < DKT_VERDICT_COUNT, "%d", (int)verdict);
    FOLLOW_CHECK(self, dkt_ledger_check(self->ledger, &err), "%s", err.text);
    for (uint32_t i = 0; i < self->model.promise_count; i++) {
        const dkt_promise_t *want = &self->model.promises[i].promise;
        unsigned long long ticket = want->ticket;
        dkt_promise_t got;
        FOLLOW_CHECK(self, dkt_ledger_find(self->ledger, want->ticket, &got), "%llu", ticket);
        FOLLOW_CHECK(self, got.deadline_ms == want->deadline_ms, "ticket %llu", ticket);
        FOLLOW_CHECK(self, got.place.minute == want->place.minute, "ticket %llu %u want %u", ticket,
                     got.place.minute, want->place.minute);
        FOLLOW_CHECK(self, got.place.lane == want->place.lane, "ticket %llu", ticket);
        FOLLOW_CHECK(self, got.class_index == want->class_index, "ticket %llu", ticket);
        FOLLOW_CHECK(self, got.state == want->state, "ticket %llu", ticket);
        FOLLOW_CHECK(self, got.at_risk == want->at_risk, "ticket %llu", ticket);
        open += want->state == DKT_TICKET_OPEN;
    }
    dkt_ledger_counts(self->ledger, &counts);
    FOLLOW_CHECK(self, counts.open == open, "%u, model %u", counts.open, open);
    FOLLOW_CHECK(self, counts.dispatched == self->model.promise_count - open, "%u, model %u",
                 counts.dispatched, self->model.promise_count - open);
    FOLLOW_CHECK(self, counts.held == self->model.hold_count, "%u, model %u", counts.held,
                 self->model.hold_count);
    dkt_ledger_holds(self->ledger, s_compare_hold, self);
    follow_due(self);
}

/* -- admission -----------------------------------------------------------------------------------
 */

/* A chain may end only where page 3 lets it: later, in time, on a free lane, within the limits. */
static void s_follow_moves(follow_t *self, const dkt_moves_t *moves)
{
    model_t *model = &self->model;
    FOLLOW_CHECK(self, moves->count <= DKT_MOVES_MAX, "%u", moves->count);
    FOLLOW_CHECK(self, moves->count == 0 || model->settings.rebooking, "rebooking is off");
    for (uint32_t i = 0; i < moves->count; i++) {
        const dkt_move_t *move = &moves->moves[i];
        model_promise_t *moved = model_find(model, move->ticket);
        FOLLOW_CHECK(self, moved != NULL, "ticket %llu", (unsigned long long)move->ticket);
        dkt_promise_t *promise = &moved->promise;
        FOLLOW_CHECK(self, model_movable(model, promise), "state %u", promise->state);
        FOLLOW_CHECK(self, promise->place.minute == move->from.minute, "move %u", i);
        FOLLOW_CHECK(self, promise->place.lane == move->from.lane, "move %u", i);
        FOLLOW_CHECK(self, move->to.minute > move->from.minute, "move %u goes earlier", i);
        FOLLOW_CHECK(self, move->to.minute <= model_last_minute(promise->deadline_ms),
                     "move %u breaks a promise", i);
        promise->place = (dkt_place_t){0};
    }
    for (uint32_t i = 0; i < moves->count; i++) {
        const dkt_move_t *move = &moves->moves[i];
        dkt_promise_t *promise = &model_find(model, move->ticket)->promise;
        FOLLOW_CHECK(self, model_lane_free(model, move->to), "move %u", i);
        FOLLOW_CHECK(self, model_fits(model, move->to.minute, promise->class_index, NULL),
                     "move %u exceeds a limit", i);
        promise->place = move->to;
    }
}

/* What page 3 says about an admission into this window that no free slot could satisfy. */
static void s_check_rebooking(follow_t *self, dkt_verdict_t verdict, model_window_t window,
                              uint8_t class_index, uint32_t move_count)
{
    static model_wants_t wants;
    model_t *model = &self->model;
    int64_t deadline_ms = model->now_ms + model_level_ms(model, class_index);
    uint32_t chain = model_chain(model, window, class_index, deadline_ms);
    bool limits = model_has_limits(model);
    FOLLOW_CHECK(self, chain > DKT_MOVES_MAX || verdict == DKT_VERDICT_YES,
                 "refused (%s), a chain of %u moves exists", dkt_verdict_name(verdict), chain);
    if (verdict == DKT_VERDICT_YES) {
        FOLLOW_CHECK(self, move_count > 0, "no lane was free");
        FOLLOW_CHECK(self, chain == MODEL_NO_CHAIN || move_count <= chain, "%u moves, %u do",
                     move_count, chain);
        FOLLOW_CHECK(self, limits || move_count == chain, "%u moves, model %u", move_count, chain);
        self->tally.rebooked++;
    }
    FOLLOW_CHECK(self, limits || verdict != DKT_VERDICT_LIMIT, "there are no limits");
    FOLLOW_CHECK(self, limits || (verdict == DKT_VERDICT_NO_SLOT) == (chain == MODEL_NO_CHAIN),
                 "%s", dkt_verdict_name(verdict));
    if (window.first == model_first_open(model->now_ms)) {
        model_wants(model, window.first, model->settings.resolvers, &wants);
        model_wants_add(&wants, deadline_ms);
        bool matching = model_feasible_matching(&wants);
        FOLLOW_CHECK(self, matching == (verdict != DKT_VERDICT_NO_SLOT),
                     "verdict %s, matching says %d", dkt_verdict_name(verdict), matching);
        FOLLOW_CHECK(self, matching == model_feasible_edf(&wants), "matching says %d", matching);
        self->tally.matchings++;
    }
}

/* Why a refusal without rebooking: a lane is free and only a limit keeps it, or none is. */
static void s_check_plain(follow_t *self, dkt_verdict_t verdict, model_window_t window)
{
    bool lane = false;
    for (uint32_t minute = window.first; minute <= window.last; minute++) {
        lane = lane || model_used(&self->model, minute) < self->model.settings.resolvers;
    }
    FOLLOW_CHECK(self, verdict == (lane ? DKT_VERDICT_LIMIT : DKT_VERDICT_NO_SLOT), "%s, lane %d",
                 dkt_verdict_name(verdict), lane);
}

/* An answer for which no free slot was there: right, and the moves done in the model. */
static void s_follow_no_free(follow_t *self, dkt_verdict_t verdict, model_window_t window,
                             uint8_t class_index, const dkt_moves_t *moves)
{
    if (self->model.settings.rebooking) {
        s_check_rebooking(self, verdict, window, class_index, moves->count);
    } else {
        s_check_plain(self, verdict, window);
    }
    self->tally.refused += verdict == DKT_VERDICT_NO_SLOT;
    self->tally.limited += verdict == DKT_VERDICT_LIMIT;
    self->tally.too_many += verdict == DKT_VERDICT_TOO_MANY_MOVES;
    if (verdict == DKT_VERDICT_YES) {
        s_follow_moves(self, moves);
    }
}

static void s_check_place(follow_t *self, model_window_t window, uint8_t class_index,
                          dkt_place_t place)
{
    FOLLOW_CHECK(self, place.minute >= window.first && place.minute <= window.last, "minute %u",
                 place.minute);
    FOLLOW_CHECK(self, model_lane_free(&self->model, place), "minute %u lane %u", place.minute,
                 place.lane);
    FOLLOW_CHECK(self, model_fits(&self->model, place.minute, class_index, NULL), "minute %u",
                 place.minute);
}

dkt_verdict_t follow_admit(follow_t *self, uint8_t class_index, uint64_t ticket)
{
    model_t *model = &self->model;
    model_window_t window = model_window(model, class_index);
    uint32_t minute = 0, probed_minute = 0;
    bool direct = model_first_bookable(model, window, class_index, &minute);
    dkt_place_t place = {0};
    int64_t deadline_ms = 0;
    dkt_moves_t moves = {0};
    dkt_verdict_t probed =
        dkt_ledger_probe(self->ledger, model->now_ms, class_index, &probed_minute);
    dkt_verdict_t verdict = dkt_ledger_admit(self->ledger, model->now_ms, class_index, ticket,
                                             &place, &deadline_ms, &moves);
    FOLLOW_CHECK(self, probed == verdict, "probed %s, admitted %s", dkt_verdict_name(probed),
                 dkt_verdict_name(verdict));
    if (direct) {
        FOLLOW_CHECK(self, verdict == DKT_VERDICT_YES, "%s", dkt_verdict_name(verdict));
        FOLLOW_CHECK(self, moves.count == 0, "%u", moves.count);
        FOLLOW_CHECK(self, place.minute == minute, "%u, model %u", place.minute, minute);
    } else {
        s_follow_no_free(self, verdict, window, class_index, &moves);
    }
    if (verdict == DKT_VERDICT_YES) {
        FOLLOW_CHECK(self, place.minute == probed_minute, "%u", place.minute);
        FOLLOW_CHECK(self, deadline_ms == model->now_ms + model_level_ms(model, class_index),
                     "%lld", (long long)deadline_ms);
        s_check_place(self, window, class_index, place);
        model_add(model, ticket, class_index, deadline_ms, place);
        self->tally.admitted++;
    }
    return verdict;
}

dkt_verdict_t follow_hold(follow_t *self, uint8_t class_index, uint32_t ttl_ms, uint64_t nonce)
{
    model_t *model = &self->model;
    uint32_t short_ms = ttl_ms < 1000 ? ttl_ms : 1000;
    model_window_t whole = model_window(model, class_index), rest = whole;
    whole.first = model_first_open(model->now_ms + ttl_ms);
    rest.first = model_first_open(model->now_ms + short_ms);
    uint32_t minute = 0;
    bool direct = model_first_bookable(model, whole, class_index, &minute) ||
                  model_last_bookable(model, rest, class_index, &minute);
    dkt_place_t place = {0};
    int64_t expires_ms = 0;
    dkt_moves_t moves = {0};
    dkt_verdict_t verdict = dkt_ledger_hold(self->ledger, model->now_ms, class_index, ttl_ms, nonce,
                                            &place, &expires_ms, &moves);
    if (direct) {
        FOLLOW_CHECK(self, verdict == DKT_VERDICT_YES, "%s", dkt_verdict_name(verdict));
        FOLLOW_CHECK(self, moves.count == 0, "%u", moves.count);
        FOLLOW_CHECK(self, place.minute == minute, "%u, model %u", place.minute, minute);
    } else {
        s_follow_no_free(self, verdict, rest, class_index, &moves);
    }
    if (verdict == DKT_VERDICT_YES) {
        int64_t latest_ms = model_start_ms(place.minute) - DKT_COMMIT_BUDGET_MS;
        int64_t wish_ms = model->now_ms + ttl_ms;
        FOLLOW_CHECK(self, expires_ms == (wish_ms < latest_ms ? wish_ms : latest_ms), "%lld",
                     (long long)expires_ms);
        s_check_place(self, rest, class_index, place);
        model_add_hold(model, nonce, class_index, expires_ms, place);
        self->tally.held++;
    }
    return verdict;
}

void follow_allocate(follow_t *self, uint64_t nonce, int64_t expires_ms, uint64_t ticket)
{
    model_t *model = &self->model;
    const model_hold_t *hold = model_find_hold(model, nonce);
    dkt_place_t place = {0};
    int64_t deadline_ms = 0;
    dkt_allocate_t answer = dkt_ledger_allocate(self->ledger, model->now_ms, nonce, expires_ms,
                                                ticket, &place, &deadline_ms);
    if (!hold) {
        FOLLOW_CHECK(self, answer != DKT_ALLOCATE_CREATED, "nonce %llu", (unsigned long long)nonce);
        FOLLOW_CHECK(self, answer == DKT_ALLOCATE_GONE || model->now_ms >= expires_ms, "%d",
                     (int)answer);
        return;
    }
    /* Settings may have shortened or removed its class meanwhile: the hold is given up. */
    int64_t level_ms =
        hold->class_index == DKT_CLASS_GONE ? 0 : model_level_ms(model, hold->class_index);
    if (model_start_ms(hold->place.minute + 1) > model->now_ms + level_ms) {
        FOLLOW_CHECK(self, answer == DKT_ALLOCATE_GONE, "%d", (int)answer);
        model_remove_hold(model, nonce);
        return;
    }
    FOLLOW_CHECK(self, answer == DKT_ALLOCATE_CREATED, "%d", (int)answer);
    FOLLOW_CHECK(self, place.minute == hold->place.minute && place.lane == hold->place.lane,
                 "minute %u", place.minute);
    FOLLOW_CHECK(self, deadline_ms == model->now_ms + model_level_ms(model, hold->class_index),
                 "%lld", (long long)deadline_ms);
    uint8_t class_index = hold->class_index;
    model_remove_hold(model, nonce);
    model_add(model, ticket, class_index, deadline_ms, place);
}

void follow_allocate_lost(follow_t *self, uint8_t class_index, uint32_t minute, uint64_t ticket)
{
    model_t *model = &self->model;
    model_window_t window = model_window(model, class_index);
    dkt_place_t place = {0};
    int64_t deadline_ms = 0;
    bool want = minute >= window.first && minute <= window.last &&
                model_used(model, minute) < model->settings.resolvers;
    bool got = dkt_ledger_allocate_lost(self->ledger, model->now_ms, class_index, minute, ticket,
                                        &place, &deadline_ms);
    FOLLOW_CHECK(self, got == want, "minute %u, window %u .. %u, %u used", minute, window.first,
                 window.last, model_used(model, minute));
    if (got) {
        FOLLOW_CHECK(self, place.minute == minute, "%u", place.minute);
        FOLLOW_CHECK(self, model_lane_free(model, place), "lane %u", place.lane);
        FOLLOW_CHECK(self, deadline_ms == model->now_ms + model_level_ms(model, class_index),
                     "%lld", (long long)deadline_ms);
        model_add(model, ticket, class_index, deadline_ms, place);
    }
}

/* -- the life of a promise -----------------------------------------------------------------------
 */

void follow_release(follow_t *self, uint64_t nonce)
{
    bool want = model_find_hold(&self->model, nonce) != NULL;
    bool got = dkt_ledger_release(self->ledger, self->model.now_ms, nonce);
    FOLLOW_CHECK(self, got == want, "nonce %llu", (unsigned long long)nonce);
    model_remove_hold(&self->model, nonce);
}

void follow_cancel(follow_t *self, uint64_t ticket)
{
    const model_promise_t *found = model_find(&self->model, ticket);
    bool want = found && found->promise.state == DKT_TICKET_OPEN;
    bool got = dkt_ledger_cancel(self->ledger, self->model.now_ms, ticket);
    FOLLOW_CHECK(self, got == want, "ticket %llu", (unsigned long long)ticket);
    if (got) {
        model_remove(&self->model, ticket);
    }
}

void follow_resolve(follow_t *self, uint64_t ticket)
{
    bool want = model_find(&self->model, ticket) != NULL;
    bool got = dkt_ledger_resolve(self->ledger, self->model.now_ms, ticket);
    FOLLOW_CHECK(self, got == want, "ticket %llu", (unsigned long long)ticket);
    model_remove(&self->model, ticket);
}
