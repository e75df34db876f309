/* SPDX-License-Identifier: Apache-2.0
 *
 * The naive model: linear search everywhere, so that every line can be read against page 3.
 */
#include "support_model.h"

#include <assert.h>
#include <string.h>

void model_init(model_t *self, const dkt_settings_t *settings, int64_t now_ms)
{
    self->settings = *settings;
    self->now_ms = now_ms;
    self->promise_count = 0;
    self->hold_count = 0;
}

void model_advance(model_t *self, int64_t now_ms)
{
    if (now_ms > self->now_ms) {
        self->now_ms = now_ms;
    }
    for (uint32_t i = self->hold_count; i-- > 0;) {
        if (self->now_ms >= self->holds[i].expires_ms) {
            self->holds[i] = self->holds[--self->hold_count];
        }
    }
}

/* -- the arrays ----------------------------------------------------------------------------------
 */

model_promise_t *model_find(model_t *self, uint64_t ticket)
{
    for (uint32_t i = 0; i < self->promise_count; i++) {
        if (self->promises[i].promise.ticket == ticket) {
            return &self->promises[i];
        }
    }
    return NULL;
}

model_hold_t *model_find_hold(model_t *self, uint64_t nonce)
{
    for (uint32_t i = 0; i < self->hold_count; i++) {
        if (self->holds[i].nonce == nonce) {
            return &self->holds[i];
        }
    }
    return NULL;
}

void model_add(model_t *self, uint64_t ticket, uint8_t class_index, int64_t deadline_ms,
               dkt_place_t place)
{
    assert(self->promise_count < MODEL_PROMISES_MAX);
    model_promise_t *added = &self->promises[self->promise_count++];
    memset(added, 0, sizeof *added);
    added->promise.ticket = ticket;
    added->promise.class_index = class_index;
    added->promise.deadline_ms = deadline_ms;
    added->promise.place = place;
    added->promise.state = DKT_TICKET_OPEN;
}

void model_add_hold(model_t *self, uint64_t nonce, uint8_t class_index, int64_t expires_ms,
                    dkt_place_t place)
{
    assert(self->hold_count < MODEL_HOLDS_MAX);
    self->holds[self->hold_count++] = (model_hold_t){
        .nonce = nonce, .class_index = class_index, .expires_ms = expires_ms, .place = place};
}

void model_remove(model_t *self, uint64_t ticket)
{
    model_promise_t *found = model_find(self, ticket);
    if (found) {
        *found = self->promises[--self->promise_count];
    }
}

void model_remove_hold(model_t *self, uint64_t nonce)
{
    model_hold_t *found = model_find_hold(self, nonce);
    if (found) {
        *found = self->holds[--self->hold_count];
    }
}

/* -- time ----------------------------------------------------------------------------------------
 */

int64_t model_start_ms(uint32_t minute)
{
    return (int64_t)minute * DKT_MINUTE_MS;
}

uint32_t model_first_open(int64_t now_ms)
{
    int64_t minute = now_ms / DKT_MINUTE_MS;
    while (model_start_ms((uint32_t)minute) < now_ms + DKT_COMMIT_BUDGET_MS) {
        minute++;
    }
    return (uint32_t)minute;
}

uint32_t model_last_minute(int64_t deadline_ms)
{
    return (uint32_t)(deadline_ms / DKT_MINUTE_MS) - 1;
}

int64_t model_level_ms(const model_t *self, uint8_t class_index)
{
    return (int64_t)self->settings.classes[class_index].level_minutes * DKT_MINUTE_MS;
}

model_window_t model_window(const model_t *self, uint8_t class_index)
{
    return (model_window_t){
        .first = model_first_open(self->now_ms),
        .last = model_last_minute(self->now_ms + model_level_ms(self, class_index))};
}

/* -- lanes and limits ----------------------------------------------------------------------------
 */

uint32_t model_used(const model_t *self, uint32_t minute)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < self->promise_count; i++) {
        used += self->promises[i].promise.place.minute == minute;
    }
    for (uint32_t i = 0; i < self->hold_count; i++) {
        used += self->holds[i].place.minute == minute;
    }
    return used;
}

static bool s_same_place(dkt_place_t a, dkt_place_t b)
{
    return a.minute == b.minute && a.lane == b.lane;
}

bool model_lane_free(const model_t *self, dkt_place_t place)
{
    for (uint32_t i = 0; i < self->promise_count; i++) {
        if (s_same_place(self->promises[i].promise.place, place)) {
            return false;
        }
    }
    for (uint32_t i = 0; i < self->hold_count; i++) {
        if (s_same_place(self->holds[i].place, place)) {
            return false;
        }
    }
    return place.lane < self->settings.resolvers;
}

bool model_has_limits(const model_t *self)
{
    for (uint8_t i = 0; i < self->settings.class_count; i++) {
        if (self->settings.classes[i].limit_permille != DKT_PERMILLE) {
            return true;
        }
    }
    return false;
}

/* S_i (m) of page 3; a class without a limit of its own has that of the class before it. */
static uint64_t s_share_sum(const dkt_settings_t *settings, uint8_t class_index, uint64_t minute)
{
    uint64_t sum = minute * settings->resolvers;
    uint64_t before = DKT_PERMILLE;
    for (uint8_t i = 0; i <= class_index; i++) {
        uint64_t share = settings->classes[i].limit_permille;
        if (share < DKT_PERMILLE) {
            sum = before == 0 ? 0 : sum * share / before;
            before = share;
        }
    }
    return sum;
}

uint32_t model_limit_lanes(const dkt_settings_t *settings, uint8_t class_index, uint32_t minute)
{
    return (uint32_t)(s_share_sum(settings, class_index, (uint64_t)minute + 1) -
                      s_share_sum(settings, class_index, minute));
}

/* Bookings in `minute` of this class and all less urgent ones (a class that is gone counts with
 * none). */
static uint32_t s_nested(const model_t *self, uint32_t minute, uint8_t class_index)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < self->promise_count; i++) {
        const dkt_promise_t *promise = &self->promises[i].promise;
        count += promise->place.minute == minute && promise->class_index != DKT_CLASS_GONE &&
                 promise->class_index >= class_index;
    }
    for (uint32_t i = 0; i < self->hold_count; i++) {
        const model_hold_t *hold = &self->holds[i];
        count += hold->place.minute == minute && hold->class_index != DKT_CLASS_GONE &&
                 hold->class_index >= class_index;
    }
    return count;
}

bool model_fits(const model_t *self, uint32_t minute, uint8_t class_index,
                const dkt_promise_t *leaving)
{
    if (class_index == DKT_CLASS_GONE || !model_has_limits(self)) {
        return true;
    }
    for (uint8_t i = 0; i <= class_index; i++) {
        uint32_t count = s_nested(self, minute, i) + 1;
        if (leaving && leaving->class_index != DKT_CLASS_GONE && leaving->class_index >= i) {
            count--;
        }
        if (count > model_limit_lanes(&self->settings, i, minute)) {
            return false;
        }
    }
    return true;
}

bool model_bookable(const model_t *self, uint32_t minute, uint8_t class_index)
{
    return model_used(self, minute) < self->settings.resolvers &&
           model_fits(self, minute, class_index, NULL);
}

bool model_first_bookable(const model_t *self, model_window_t window, uint8_t class_index,
                          uint32_t *minute)
{
    for (uint32_t m = window.first; m <= window.last; m++) {
        if (model_bookable(self, m, class_index)) {
            *minute = m;
            return true;
        }
    }
    return false;
}

bool model_last_bookable(const model_t *self, model_window_t window, uint8_t class_index,
                         uint32_t *minute)
{
    bool found = false;
    for (uint32_t m = window.first; m <= window.last; m++) {
        if (model_bookable(self, m, class_index)) {
            *minute = m;
            found = true;
        }
    }
    return found;
}

/* -- the shortest chain --------------------------------------------------------------------------
 */

bool model_movable(const model_t *self, const dkt_promise_t *promise)
{
    return promise->state == DKT_TICKET_OPEN &&
           promise->place.minute <= model_last_minute(promise->deadline_ms) &&
           promise->place.minute >= model_first_open(self->now_ms);
}

typedef struct {
    uint32_t count;
    uint32_t queue[MODEL_PROMISES_MAX];
    uint32_t moves[MODEL_PROMISES_MAX]; /* by index of the promise; 0: not reached */
} s_search_t;

/* Everyone whom a promise of this class and deadline could push out of the window joins the queue.
 */
static void s_search_push(const model_t *self, s_search_t *search, model_window_t window,
                          uint8_t class_index, int64_t deadline_ms, uint32_t moves)
{
    bool strict = model_has_limits(self);
    for (uint32_t i = 0; i < self->promise_count; i++) {
        const dkt_promise_t *promise = &self->promises[i].promise;
        if (search->moves[i] == 0 && promise->place.minute >= window.first &&
            promise->place.minute <= window.last && model_movable(self, promise) &&
            (!strict || promise->deadline_ms > deadline_ms) &&
            model_fits(self, promise->place.minute, class_index, promise)) {
            search->moves[i] = moves;
            search->queue[search->count++] = i;
        }
    }
}

uint32_t model_chain(const model_t *self, model_window_t window, uint8_t class_index,
                     int64_t deadline_ms)
{
    uint32_t minute;
    if (model_first_bookable(self, window, class_index, &minute)) {
        return 0;
    }
    static s_search_t search;
    search.count = 0;
    memset(search.moves, 0, sizeof search.moves[0] * self->promise_count);
    s_search_push(self, &search, window, class_index, deadline_ms, 1);
    for (uint32_t at = 0; at < search.count; at++) {
        const dkt_promise_t *pushed = &self->promises[search.queue[at]].promise;
        model_window_t later = {.first = pushed->place.minute + 1,
                                .last = model_last_minute(pushed->deadline_ms)};
        uint32_t moves = search.moves[search.queue[at]];
        if (model_first_bookable(self, later, pushed->class_index, &minute)) {
            return moves;
        }
        s_search_push(self, &search, later, pushed->class_index, pushed->deadline_ms, moves + 1);
    }
    return MODEL_NO_CHAIN;
}

/* -- matching and earliest deadline first --------------------------------------------------------
 */

void model_wants(const model_t *self, uint32_t first_minute, uint16_t resolvers,
                 model_wants_t *wants)
{
    wants->first_minute = first_minute;
    wants->count = 0;
    for (uint32_t i = 0; i < MODEL_MINUTES_MAX; i++) {
        wants->lanes[i] = resolvers;
    }
    for (uint32_t i = 0; i < self->promise_count; i++) {
        const dkt_promise_t *promise = &self->promises[i].promise;
        uint32_t offset = promise->place.minute - first_minute;
        if (model_movable(self, promise)) {
            model_wants_add(wants, promise->deadline_ms);
        } else if (promise->place.minute >= first_minute && wants->lanes[offset] > 0) {
            wants->lanes[offset]--;
        }
    }
    for (uint32_t i = 0; i < self->hold_count; i++) {
        uint32_t offset = self->holds[i].place.minute - first_minute;
        if (self->holds[i].place.minute >= first_minute && wants->lanes[offset] > 0) {
            wants->lanes[offset]--;
        }
    }
}

void model_wants_add(model_wants_t *wants, int64_t deadline_ms)
{
    assert(wants->count < MODEL_PROMISES_MAX);
    wants->deadlines_ms[wants->count++] = deadline_ms;
}

typedef struct {
    const model_wants_t *wants;
    bool seen[MODEL_MINUTES_MAX];
    uint32_t taken[MODEL_MINUTES_MAX];
    uint32_t minute_of[MODEL_PROMISES_MAX]; /* offset + 1; 0: none yet */
} s_matching_t;

/* An augmenting path for one want: a minute with a lane left, or one that somebody can leave. */
static bool s_augment(s_matching_t *matching, uint32_t want)
{
    const model_wants_t *wants = matching->wants;
    uint32_t last = model_last_minute(wants->deadlines_ms[want]);
    for (uint32_t i = 0; i < MODEL_MINUTES_MAX && wants->first_minute + i <= last; i++) {
        if (matching->seen[i] || wants->lanes[i] == 0) {
            continue;
        }
        matching->seen[i] = true;
        if (matching->taken[i] < wants->lanes[i]) {
            matching->taken[i]++;
            matching->minute_of[want] = i + 1;
            return true;
        }
        for (uint32_t other = 0; other < wants->count; other++) {
            if (matching->minute_of[other] == i + 1 && s_augment(matching, other)) {
                matching->minute_of[want] = i + 1;
                return true;
            }
        }
    }
    return false;
}

bool model_feasible_matching(const model_wants_t *wants)
{
    static s_matching_t matching;
    memset(matching.taken, 0, sizeof matching.taken);
    memset(matching.minute_of, 0, sizeof matching.minute_of[0] * wants->count);
    matching.wants = wants;
    for (uint32_t want = 0; want < wants->count; want++) {
        memset(matching.seen, 0, sizeof matching.seen);
        if (!s_augment(&matching, want)) {
            return false;
        }
    }
    return true;
}

bool model_feasible_edf(const model_wants_t *wants)
{
    static bool served[MODEL_PROMISES_MAX];
    memset(served, 0, sizeof served[0] * wants->count);
    uint32_t left = wants->count;
    for (uint32_t i = 0; i < MODEL_MINUTES_MAX && left > 0; i++) {
        for (uint16_t lane = 0; lane < wants->lanes[i] && left > 0; lane++) {
            uint32_t next = wants->count;
            for (uint32_t want = 0; want < wants->count; want++) {
                if (!served[want] && (next == wants->count ||
                                      wants->deadlines_ms[want] < wants->deadlines_ms[next])) {
                    next = want;
                }
            }
            if (model_start_ms(wants->first_minute + i + 1) > wants->deadlines_ms[next]) {
                return false;
            }
            served[next] = true;
            left--;
        }
    }
    return left == 0;
}

/* -- stepping time -------------------------------------------------------------------------------
 */

static bool s_earliest_open(const model_t *self, uint32_t after_minute, uint32_t *index)
{
    bool found = false;
    for (uint32_t i = 0; i < self->promise_count; i++) {
        const dkt_promise_t *promise = &self->promises[i].promise;
        if (promise->state == DKT_TICKET_OPEN && promise->place.minute > after_minute &&
            (!found || promise->deadline_ms < self->promises[*index].promise.deadline_ms)) {
            *index = i;
            found = true;
        }
    }
    return found;
}

void model_dispatch(model_t *self, uint32_t minute)
{
    uint32_t used = model_used(self, minute);
    for (uint32_t i = self->promise_count; i-- > 0;) {
        const dkt_promise_t *promise = &self->promises[i].promise;
        if (promise->state == DKT_TICKET_OPEN && promise->place.minute == minute) {
            self->promises[i] = self->promises[--self->promise_count];
        }
    }
    uint32_t index = 0;
    for (; used < self->settings.resolvers && s_earliest_open(self, minute, &index); used++) {
        self->promises[index] = self->promises[--self->promise_count];
    }
}

bool model_earliest(model_t *self, uint8_t class_index, uint32_t undispatched, int64_t *earliest_ms)
{
    static model_wants_t wants;
    uint32_t minute = (uint32_t)((self->now_ms + DKT_MINUTE_MS - 1) / DKT_MINUTE_MS);
    for (; undispatched < minute; undispatched++) {
        model_dispatch(self, undispatched);
    }
    for (uint32_t steps = 0; steps < MODEL_MINUTES_MAX / 2; steps++, minute++) {
        if (minute >= undispatched) {
            model_dispatch(self, minute);
        }
        /* Not model_advance: the holds are taken for good. */
        self->now_ms = model_start_ms(minute);
        model_wants(self, model_first_open(self->now_ms), self->settings.resolvers, &wants);
        model_wants_add(&wants, self->now_ms + model_level_ms(self, class_index));
        if (model_feasible_edf(&wants)) {
            *earliest_ms = self->now_ms;
            return true;
        }
    }
    return false;
}

uint32_t model_available(const model_t *self, uint8_t class_index)
{
    static model_wants_t wants;
    model_wants(self, model_first_open(self->now_ms), self->settings.resolvers, &wants);
    uint32_t count = 0;
    for (;; count++) {
        model_wants_add(&wants, self->now_ms + model_level_ms(self, class_index));
        if (!model_feasible_edf(&wants)) {
            return count;
        }
    }
}
