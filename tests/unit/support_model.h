/* SPDX-License-Identifier: Apache-2.0
 *
 * A naive model of the slot ledger: two plain arrays (promises, holds) and linear search, written
 * from page 3 alone and sharing no idea with the real one. It never decides which of several equal
 * moves is made: it says what must be true, and follows what the ledger did.
 *
 *      promises[]  ticket, class, deadline, (minute, lane), state
 *      holds[]     nonce, class, (minute, lane), expiry
 *
 * Feasibility is asked in three unrelated ways: a breadth-first search for the shortest chain of
 * moves, bipartite matching (augmenting paths), and a sweep by earliest deadline first.
 */
#ifndef DKT_TESTS_SUPPORT_MODEL_H
#define DKT_TESTS_SUPPORT_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/core/ledger.h"

#define MODEL_PROMISES_MAX 1024 /* live promises of one model; a test's horizon * R stays below */
#define MODEL_HOLDS_MAX    512
#define MODEL_MINUTES_MAX  256        /* the longest horizon a model can sweep */
#define MODEL_NO_CHAIN     UINT32_MAX /* no chain of moves frees a slot */

typedef struct {
    dkt_promise_t promise;
    bool breached;
} model_promise_t;

typedef struct {
    uint64_t nonce;
    int64_t expires_ms;
    dkt_place_t place;
    uint8_t class_index;
} model_hold_t;

typedef struct {
    dkt_settings_t settings;
    int64_t now_ms;
    uint32_t promise_count, hold_count;
    model_promise_t promises[MODEL_PROMISES_MAX];
    model_hold_t holds[MODEL_HOLDS_MAX];
} model_t;

/* Minutes first .. last, empty when first > last. */
typedef struct {
    uint32_t first, last;
} model_window_t;

void model_init(model_t *self, const dkt_settings_t *settings, int64_t now_ms);

/* Time goes on (never back); holds that are over disappear. */
void model_advance(model_t *self, int64_t now_ms);

/* -- the arrays ----------------------------------------------------------------------------------
 */
model_promise_t *model_find(model_t *self, uint64_t ticket);
model_hold_t *model_find_hold(model_t *self, uint64_t nonce);
void model_add(model_t *self, uint64_t ticket, uint8_t class_index, int64_t deadline_ms,
               dkt_place_t place);
void model_add_hold(model_t *self, uint64_t nonce, uint8_t class_index, int64_t expires_ms,
                    dkt_place_t place);
void model_remove(model_t *self, uint64_t ticket);
void model_remove_hold(model_t *self, uint64_t nonce);

/* -- time ----------------------------------------------------------------------------------------
 */
int64_t model_start_ms(uint32_t minute);
uint32_t model_first_open(int64_t now_ms);       /* first minute still open to booking */
uint32_t model_last_minute(int64_t deadline_ms); /* last minute that ends by the deadline */
int64_t model_level_ms(const model_t *self, uint8_t class_index);
model_window_t model_window(const model_t *self, uint8_t class_index); /* eligible now */

/* -- lanes and limits ----------------------------------------------------------------------------
 */
uint32_t model_used(const model_t *self, uint32_t minute); /* lanes booked, held or dispatched */
bool model_lane_free(const model_t *self, dkt_place_t place);
bool model_has_limits(const model_t *self);

/* Lanes of `minute` that this class and all less urgent ones may book (page 3, policy 3). */
uint32_t model_limit_lanes(const dkt_settings_t *settings, uint8_t class_index, uint32_t minute);

/* May one more of this class be booked in `minute`, after `leaving` (may be NULL) has left it? */
bool model_fits(const model_t *self, uint32_t minute, uint8_t class_index,
                const dkt_promise_t *leaving);

/* A lane is free in `minute` and the limits let this class have it. */
bool model_bookable(const model_t *self, uint32_t minute, uint8_t class_index);

/* First (last) bookable minute of the window; false if there is none. */
bool model_first_bookable(const model_t *self, model_window_t window, uint8_t class_index,
                          uint32_t *minute);
bool model_last_bookable(const model_t *self, model_window_t window, uint8_t class_index,
                         uint32_t *minute);

/* -- feasibility ---------------------------------------------------------------------------------
 */

/* Number of moves of the shortest chain that frees a slot of the window for a promise of this class
 * and deadline; 0: one is free as it is; MODEL_NO_CHAIN. With limits only tickets of strictly later
 * deadlines are moved, without any may be. */
uint32_t model_chain(const model_t *self, model_window_t window, uint8_t class_index,
                     int64_t deadline_ms);

/* May this ticket be moved at all: open, in time where it stands, its minute open to booking? */
bool model_movable(const model_t *self, const dkt_promise_t *promise);

/* A set of deadlines that wants minutes of its own, on top of what cannot move. */
typedef struct {
    uint32_t first_minute; /* first minute that may be used */
    uint32_t count;
    int64_t deadlines_ms[MODEL_PROMISES_MAX];
    uint16_t lanes[MODEL_MINUTES_MAX]; /* free lanes of first_minute + i */
} model_wants_t;

/* The movable tickets and the lanes that nothing fixed occupies, from `first_minute` on. */
void model_wants(const model_t *self, uint32_t first_minute, uint16_t resolvers,
                 model_wants_t *wants);
void model_wants_add(model_wants_t *wants, int64_t deadline_ms);

/* Can every deadline have a minute? Two independent answers, which must agree. */
bool model_feasible_matching(const model_wants_t *wants);
bool model_feasible_edf(const model_wants_t *wants);

/* -- stepping time -------------------------------------------------------------------------------
 */

/* Minute `minute` begins: its open tickets are gone, and lanes still free take the open tickets
 * with the earliest deadlines, which are gone too. */
void model_dispatch(model_t *self, uint32_t minute);

/* The start of the first minute whose arrival of this class fits if only time passes, holds taken
 * for good; minutes before `undispatched` are dispatched already. Consumes the model (call it on a
 * copy). False: it never fits. */
bool model_earliest(model_t *self, uint8_t class_index, uint32_t undispatched,
                    int64_t *earliest_ms);

/* How many of this class fit in a row; without limits, by matching. */
uint32_t model_available(const model_t *self, uint8_t class_index);

#endif
