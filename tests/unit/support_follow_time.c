/* SPDX-License-Identifier: Apache-2.0
 *
 * Ledger and model side by side: ticks, missed minutes, reloading, resizing, earliest_ms.
 */
#include "support_follow.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CHANGES_MAX  (MODEL_PROMISES_MAX * 3)
#define BLOCKERS_MAX 8

typedef struct {
    uint32_t count;
    dkt_change_t rows[CHANGES_MAX];
} s_changes_t;

static s_changes_t s_changes;

static void s_record(void *ctx, const dkt_change_t *change)
{
    s_changes_t *changes = ctx;
    assert_true(changes->count < CHANGES_MAX);
    changes->rows[changes->count++] = *change;
}

/* -- changes -------------------------------------------------------------------------------------
 */

/* One change, checked alone and done in the model; lanes are compared when all are done. */
static void s_follow_change(follow_t *self, const dkt_change_t *change)
{
    const dkt_promise_t *after = &change->promise;
    model_promise_t *found = model_find(&self->model, after->ticket);
    unsigned long long ticket = after->ticket;
    FOLLOW_CHECK(self, found != NULL, "ticket %llu", ticket);
    FOLLOW_CHECK(self, found->promise.deadline_ms == after->deadline_ms, "ticket %llu", ticket);
    FOLLOW_CHECK(self, found->promise.place.minute == change->from.minute, "ticket %llu", ticket);
    FOLLOW_CHECK(self, found->promise.class_index == after->class_index, "ticket %llu", ticket);
    bool moves = change->kind == DKT_CHANGE_MOVED || change->kind == DKT_CHANGE_AT_RISK;
    if (moves) {
        FOLLOW_CHECK(self, found->promise.state == DKT_TICKET_OPEN, "ticket %llu", ticket);
        FOLLOW_CHECK(self,
                     after->place.minute >= self->next_minute ||
                         after->place.minute >= model_first_open(self->model.now_ms),
                     "ticket %llu to a closed minute %u", ticket, after->place.minute);
        bool kept = after->place.minute <= model_last_minute(after->deadline_ms);
        FOLLOW_CHECK(self, kept || after->at_risk, "ticket %llu moved past its deadline", ticket);
        FOLLOW_CHECK(
            self, after->at_risk == (change->kind == DKT_CHANGE_AT_RISK || found->promise.at_risk),
            "ticket %llu", ticket);
    }
    if (change->kind == DKT_CHANGE_BREACHED) {
        FOLLOW_CHECK(self, after->deadline_ms < self->model.now_ms, "ticket %llu", ticket);
        FOLLOW_CHECK(self, !found->breached, "ticket %llu twice", ticket);
        found->breached = true;
    }
    found->promise.place = after->place;
    found->promise.state = after->state;
    found->promise.at_risk = after->at_risk;
    if (found->breached && found->promise.state == DKT_TICKET_DISPATCHED) {
        model_remove(&self->model, after->ticket);
    }
    self->tally.changes++;
}

static void s_follow_changes(follow_t *self)
{
    for (uint32_t i = 0; i < s_changes.count; i++) {
        s_follow_change(self, &s_changes.rows[i]);
    }
    model_t *model = &self->model;
    for (uint32_t i = 0; i < model->promise_count; i++) {
        const dkt_promise_t *promise = &model->promises[i].promise;
        if (promise->state == DKT_TICKET_OPEN) {
            FOLLOW_CHECK(self,
                         model_used(model, promise->place.minute) <= model->settings.resolvers,
                         "minute %u", promise->place.minute);
        }
    }
}

/* -- missed minutes ------------------------------------------------------------------------------
 */

static model_t s_before;

static bool s_is_missed(const model_t *model, const dkt_promise_t *promise)
{
    return promise->state == DKT_TICKET_OPEN &&
           model_start_ms(promise->place.minute + 1) <= model->now_ms;
}

static int s_by_urgency(const void *left, const void *right)
{
    const dkt_promise_t *a = left, *b = right;
    if (a->class_index != b->class_index) {
        return a->class_index < b->class_index ? -1 : 1;
    }
    return a->deadline_ms < b->deadline_ms ? -1 : a->deadline_ms > b->deadline_ms;
}

/* How many of each class page 3 keeps of those in s_before whose minute was missed: by urgency,
 * then deadline, each if it still fits. */
static uint32_t s_expect_at_risk(uint32_t at_risk[DKT_CLASS_GONE + 1], uint32_t first_minute)
{
    static model_wants_t wants;
    static dkt_promise_t missed[MODEL_PROMISES_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < s_before.promise_count; i++) {
        if (s_is_missed(&s_before, &s_before.promises[i].promise)) {
            missed[count++] = s_before.promises[i].promise;
        }
    }
    qsort(missed, count, sizeof missed[0], s_by_urgency);
    model_wants(&s_before, first_minute, s_before.settings.resolvers, &wants);
    for (uint32_t i = 0; i < count; i++) {
        model_wants_add(&wants, missed[i].deadline_ms);
        if (!model_feasible_edf(&wants)) {
            wants.count--;
            at_risk[missed[i].class_index]++;
        }
    }
    return count;
}

/* What was missed before `s_before` has been settled: all have a place, the right ones in time. */
static void s_check_settled(follow_t *self, uint32_t first_minute)
{
    uint32_t want[DKT_CLASS_GONE + 1] = {0}, got[DKT_CLASS_GONE + 1] = {0};
    s_expect_at_risk(want, first_minute);
    for (uint32_t i = 0; i < s_changes.count; i++) {
        const dkt_change_t *change = &s_changes.rows[i];
        got[change->promise.class_index] += change->kind == DKT_CHANGE_AT_RISK;
    }
    for (uint32_t i = 0; i <= DKT_CLASS_GONE; i++) {
        FOLLOW_CHECK(self, want[i] == got[i], "class %u: %u at risk, model %u", i, got[i], want[i]);
    }
    for (uint32_t i = 0; i < self->model.promise_count; i++) {
        const dkt_promise_t *promise = &self->model.promises[i].promise;
        FOLLOW_CHECK(self, !s_is_missed(&self->model, promise), "ticket %llu",
                     (unsigned long long)promise->ticket);
    }
}

/* -- tick ----------------------------------------------------------------------------------------
 */

/* No resolver gets two tickets of one minute, also where another owner has dispatched it before. */
static void s_check_pulled(follow_t *self, uint32_t minute, uint32_t pulled)
{
    uint32_t used = model_used(&s_before, minute), resolvers = s_before.settings.resolvers;
    FOLLOW_CHECK(self, pulled == 0 || used + pulled <= resolvers,
                 "%u pulled into minute %u, %u of %u lanes used", pulled, minute, used, resolvers);
}

static void s_check_dispatched(follow_t *self, uint32_t minute)
{
    const model_t *model = &self->model;
    int64_t last_ms = 0, pulled_ms = 0;
    uint32_t pulled = 0;
    for (uint32_t i = 0; i < s_changes.count; i++) {
        const dkt_change_t *change = &s_changes.rows[i];
        if (change->kind != DKT_CHANGE_DISPATCHED) {
            continue;
        }
        FOLLOW_CHECK(self, change->promise.place.minute == minute, "%u",
                     change->promise.place.minute);
        FOLLOW_CHECK(self, change->promise.state == DKT_TICKET_DISPATCHED, "%u",
                     change->promise.state);
        FOLLOW_CHECK(self, change->promise.deadline_ms >= last_ms, "order of dispatch");
        last_ms = change->promise.deadline_ms;
        if (change->from.minute != minute) {
            pulled++;
            pulled_ms = last_ms > pulled_ms ? last_ms : pulled_ms;
        }
    }
    s_check_pulled(self, minute, pulled);
    uint32_t open = 0;
    for (uint32_t i = 0; i < model->promise_count; i++) {
        const model_promise_t *left = &model->promises[i];
        unsigned long long ticket = left->promise.ticket;
        if (left->promise.state == DKT_TICKET_OPEN) {
            open++;
            FOLLOW_CHECK(self, left->promise.place.minute > minute, "ticket %llu", ticket);
            FOLLOW_CHECK(self, left->promise.deadline_ms >= pulled_ms, "ticket %llu", ticket);
        }
        FOLLOW_CHECK(self, left->promise.deadline_ms >= model->now_ms || left->breached,
                     "ticket %llu not reported", ticket);
    }
    FOLLOW_CHECK(self,
                 open == 0 || self->reloaded ||
                     model_used(model, minute) + s_changes.count >= model->settings.resolvers,
                 "%u wait and a resolver idles", open);
}

void follow_tick(follow_t *self, uint32_t minute)
{
    s_before = self->model;
    s_changes.count = 0;
    dkt_ledger_tick(self->ledger, self->model.now_ms, minute, s_record, &s_changes);
    self->next_minute = minute;
    s_follow_changes(self);
    s_check_settled(self, model_first_open(self->model.now_ms));
    s_check_dispatched(self, minute);
    self->next_minute = minute + 1;
    self->reloaded = false;
    s_changes.count = 0;
    dkt_ledger_tick(self->ledger, self->model.now_ms, minute, s_record, &s_changes);
    FOLLOW_CHECK(self, s_changes.count == 0, "a second tick of the minute did %u", s_changes.count);
}

void follow_pass(follow_t *self, int64_t target_ms, int64_t late_ms)
{
    for (;;) {
        int64_t tick_ms = model_start_ms(self->next_minute) - DKT_COMMIT_BUDGET_MS + 1 + late_ms;
        if (tick_ms < self->model.now_ms) {
            tick_ms = self->model.now_ms;
        }
        if (tick_ms > target_ms || model_first_open(tick_ms) <= self->next_minute) {
            break;
        }
        model_advance(&self->model, tick_ms);
        follow_tick(self, self->next_minute);
        follow_compare(self);
    }
    model_advance(&self->model, target_ms);
}

/* -- loading -------------------------------------------------------------------------------------
 */

dkt_ledger_t *follow_clone(follow_t *self, uint64_t order)
{
    model_t *model = &self->model;
    dkt_ledger_t *clone = dkt_ledger_new(&model->settings, model->now_ms);
    dkt_err_t err = {0};
    FOLLOW_CHECK(self, clone != NULL, "no memory");
    for (uint32_t i = 0; i < model->promise_count; i++) {
        uint32_t at = (uint32_t)((order + i) % model->promise_count);
        dkt_status_t status = dkt_ledger_load_ticket(clone, &model->promises[at].promise, &err);
        FOLLOW_CHECK(self, status == DKT_OK, "%s", err.text);
    }
    for (uint32_t i = 0; i < model->hold_count; i++) {
        const model_hold_t *hold = &model->holds[i];
        dkt_status_t status = dkt_ledger_load_hold(clone, hold->nonce, hold->class_index,
                                                   hold->place, hold->expires_ms, &err);
        FOLLOW_CHECK(self, status == DKT_OK, "%s", err.text);
    }
    return clone;
}

/* What a new owner can know: a minute is dispatched if a ticket of it is. */
static uint32_t s_first_undispatched(const model_t *model)
{
    uint32_t minute = (uint32_t)(model->now_ms / DKT_MINUTE_MS);
    for (uint32_t i = 0; i < model->promise_count; i++) {
        const dkt_promise_t *promise = &model->promises[i].promise;
        if (promise->state == DKT_TICKET_DISPATCHED && promise->place.minute >= minute) {
            minute = promise->place.minute + 1;
        }
    }
    return minute;
}

void follow_reload(follow_t *self, uint64_t order)
{
    dkt_ledger_t *fresh = follow_clone(self, order);
    dkt_ledger_destroy(&self->ledger);
    self->ledger = fresh;
    for (uint32_t i = 0; i < self->model.promise_count; i++) {
        self->model.promises[i].breached = false; /* not loaded: open ones are reported again */
    }
    s_before = self->model;
    s_changes.count = 0;
    dkt_ledger_load_done(fresh, self->model.now_ms, s_record, &s_changes);
    uint32_t current = (uint32_t)(self->model.now_ms / DKT_MINUTE_MS);
    self->next_minute = s_first_undispatched(&self->model);
    s_follow_changes(self);
    s_check_settled(self, model_first_open(self->model.now_ms));
    self->reloaded = true;
    /* The new owner ticks the current minute again: it does not know who dispatched it. */
    follow_compare(self);
    follow_tick(self, current);
    uint32_t undispatched = s_first_undispatched(&self->model);
    self->next_minute = undispatched > current ? undispatched : current + 1;
}

/* -- resize --------------------------------------------------------------------------------------
 */

/* Page 3: more resolvers at once, fewer where every promise still has a minute. */
static bool s_resize_possible(const follow_t *self, const dkt_settings_t *settings)
{
    static model_wants_t wants;
    const model_t *model = &self->model;
    if (settings->resolvers >= model->settings.resolvers) {
        return true;
    }
    for (uint32_t i = 0; i < model->hold_count; i++) {
        uint32_t held = 0;
        for (uint32_t j = 0; j < model->hold_count; j++) {
            held += model->holds[j].place.minute == model->holds[i].place.minute;
        }
        if (held > settings->resolvers) {
            return false;
        }
    }
    model_wants(model, model_first_open(model->now_ms), settings->resolvers, &wants);
    return model_feasible_edf(&wants);
}

/* Holds stay in their minutes, but may stand in another lane of fewer. */
static void s_follow_hold(void *ctx, uint64_t nonce, uint8_t class_index, dkt_place_t place,
                          int64_t expires_ms)
{
    follow_t *self = ctx;
    model_hold_t *hold = model_find_hold(&self->model, nonce);
    FOLLOW_CHECK(self, hold && hold->place.minute == place.minute, "hold %llu",
                 (unsigned long long)nonce);
    FOLLOW_CHECK(self,
                 hold->expires_ms == expires_ms && place.lane < self->model.settings.resolvers,
                 "hold %llu", (unsigned long long)nonce);
    FOLLOW_CHECK(self, hold->class_index == class_index, "hold %llu", (unsigned long long)nonce);
    hold->place = place;
}

/* Some tickets stand in a minute that is closed, but not dispatched: the model does not say what a
 * smaller R does to them. */
static bool s_is_settled(const model_t *model)
{
    for (uint32_t i = 0; i < model->promise_count; i++) {
        const dkt_promise_t *promise = &model->promises[i].promise;
        if (promise->state == DKT_TICKET_OPEN && !model_movable(model, promise)) {
            return false;
        }
    }
    return true;
}

/* The class of that name now; one that the settings no longer have is gone for good. */
static uint8_t s_renamed(const dkt_settings_t *old, const dkt_settings_t *settings,
                         uint8_t class_index)
{
    for (uint8_t i = 0; class_index != DKT_CLASS_GONE && i < settings->class_count; i++) {
        if (strcmp(settings->classes[i].name, old->classes[class_index].name) == 0) {
            return i;
        }
    }
    return DKT_CLASS_GONE;
}

static void s_rename_classes(model_t *model, const dkt_settings_t *settings)
{
    for (uint32_t i = 0; i < model->promise_count; i++) {
        dkt_promise_t *promise = &model->promises[i].promise;
        promise->class_index = s_renamed(&model->settings, settings, promise->class_index);
    }
    for (uint32_t i = 0; i < model->hold_count; i++) {
        model->holds[i].class_index =
            s_renamed(&model->settings, settings, model->holds[i].class_index);
    }
}

void follow_resize(follow_t *self, const dkt_settings_t *settings)
{
    uint64_t blockers[BLOCKERS_MAX];
    uint32_t blocker_count = 0;
    bool want = s_resize_possible(self, settings);
    s_changes.count = 0;
    dkt_status_t status = dkt_ledger_resize(&self->ledger, self->model.now_ms, settings, s_record,
                                            &s_changes, blockers, BLOCKERS_MAX, &blocker_count);
    FOLLOW_CHECK(self, status == (want ? DKT_OK : DKT_CONFLICT) || !s_is_settled(&self->model),
                 "%s, resolvers %u -> %u", dkt_status_code(status), self->model.settings.resolvers,
                 settings->resolvers);
    if (status != DKT_OK) {
        FOLLOW_CHECK(self, s_changes.count == 0, "%u", s_changes.count);
        FOLLOW_CHECK(self, blocker_count > 0 || self->model.hold_count > 0,
                     "nobody stands in the way");
        for (uint32_t i = 0; i < blocker_count && i < BLOCKERS_MAX; i++) {
            FOLLOW_CHECK(self, model_find(&self->model, blockers[i]) != NULL, "blocker %u", i);
        }
        return;
    }
    s_rename_classes(&self->model, settings);
    self->model.settings = *settings;
    dkt_ledger_holds(self->ledger, s_follow_hold, self);
    s_follow_changes(self);
}

/* -- questions -----------------------------------------------------------------------------------
 */

/* Steps a clone of the ledger: at each minute's start, after its dispatch, would it be a yes? Not
 * `*exact` if on the way only the length of a chain stood in the way. */
static bool s_step_clone(follow_t *self, uint8_t class_index, int64_t *earliest_ms, bool *exact)
{
    model_t *model = &self->model;
    dkt_ledger_t *clone = follow_clone(self, 0);
    s_changes.count = 0;
    dkt_ledger_load_done(clone, model->now_ms, s_record, &s_changes);
    uint32_t minute = (uint32_t)((model->now_ms + DKT_MINUTE_MS - 1) / DKT_MINUTE_MS);
    for (uint32_t late = self->next_minute; late < minute; late++) {
        dkt_ledger_tick(clone, model->now_ms, late, s_record, &s_changes);
    }
    uint32_t steps = 2u * model->settings.classes[model->settings.class_count - 1].level_minutes;
    bool found = false;
    for (uint32_t i = 0; i < steps && !found; i++, minute++) {
        uint32_t unused;
        int64_t now_ms = model_start_ms(minute);
        s_changes.count = 0;
        if (minute >= self->next_minute) {
            dkt_ledger_tick(clone, now_ms, minute, s_record, &s_changes);
        }
        dkt_verdict_t verdict = dkt_ledger_probe(clone, now_ms, class_index, &unused);
        found = verdict == DKT_VERDICT_YES;
        *exact = *exact && verdict != DKT_VERDICT_TOO_MANY_MOVES;
        *earliest_ms = now_ms;
    }
    dkt_ledger_destroy(&clone);
    return found;
}

void follow_earliest(follow_t *self, uint8_t class_index)
{
    static model_t copy;
    int64_t got_ms = 0, again_ms = 0, want_ms = 0;
    model_t *model = &self->model;
    bool limits = model_has_limits(model);
    bool got = dkt_ledger_earliest(self->ledger, model->now_ms, class_index, &got_ms);
    bool again = dkt_ledger_earliest(self->ledger, model->now_ms, class_index, &again_ms);
    FOLLOW_CHECK(self, got == again && got_ms == again_ms, "another answer the second time");
    for (uint32_t i = 0; i < model->promise_count; i++) {
        const dkt_promise_t *promise = &model->promises[i].promise;
        if (promise->at_risk || (promise->state == DKT_TICKET_OPEN &&
                                 promise->place.minute < model_first_open(model->now_ms))) {
            return;
        }
    }
    if (!limits && model->settings.rebooking) {
        copy = *model;
        bool want = model_earliest(&copy, class_index, self->next_minute, &want_ms);
        FOLLOW_CHECK(self, got == want, "%d, model %d", got, want);
        FOLLOW_CHECK(self, got_ms == want_ms, "%lld, model %lld", (long long)got_ms,
                     (long long)want_ms);
        self->tally.earliest++;
    }
    bool exact = !limits;
    if (model->hold_count == 0 && s_step_clone(self, class_index, &want_ms, &exact)) {
        FOLLOW_CHECK(self, got, "it fits at %lld", (long long)want_ms);
        FOLLOW_CHECK(self, got_ms <= want_ms, "%lld, it fits at %lld", (long long)got_ms,
                     (long long)want_ms);
        FOLLOW_CHECK(self, got_ms == want_ms || !exact, "%lld, but only at %lld", (long long)got_ms,
                     (long long)want_ms);
        self->tally.earliest++;
    }
}

void follow_due(follow_t *self)
{
    const model_t *model = &self->model;
    int64_t want_ms = INT64_MAX;
    int64_t close_ms = model_start_ms(self->next_minute) - DKT_COMMIT_BUDGET_MS;
    for (uint32_t i = 0; i < model->promise_count; i++) {
        const model_promise_t *row = &model->promises[i];
        int64_t due_ms = row->promise.deadline_ms;
        if (row->promise.state == DKT_TICKET_OPEN && (row->breached || close_ms < due_ms)) {
            due_ms = close_ms;
        }
        want_ms = due_ms < want_ms ? due_ms : want_ms;
    }
    for (uint32_t i = 0; i < model->hold_count; i++) {
        int64_t due_ms = model->holds[i].expires_ms;
        want_ms = due_ms < want_ms ? due_ms : want_ms;
    }
    int64_t got_ms = dkt_ledger_due_ms(self->ledger);
    if (want_ms == INT64_MAX) {
        FOLLOW_CHECK(self, got_ms == INT64_MAX, "%lld, nothing is due", (long long)got_ms);
        return;
    }
    FOLLOW_CHECK(self, got_ms <= want_ms + 1, "%lld, something is due at %lld", (long long)got_ms,
                 (long long)want_ms);
    FOLLOW_CHECK(self, self->reloaded || got_ms >= want_ms - 1, "%lld, nothing is due before %lld",
                 (long long)got_ms, (long long)want_ms);
}
