/* SPDX-License-Identifier: Apache-2.0
 *
 * Walks a real ledger and the naive model side by side: each call does one operation on both,
 * checks the answer against the model, applies what the ledger did to the model, and compares the
 * two whole states. A difference fails the running test and says which seed, sequence and step.
 */
#ifndef DKT_TESTS_SUPPORT_FOLLOW_H
#define DKT_TESTS_SUPPORT_FOLLOW_H

#include "lib/core/ledger.h"
#include "support_model.h"

typedef struct {
    uint64_t admitted, rebooked, refused, limited, too_many, held, changes, earliest, matchings;
} follow_tally_t;

typedef struct {
    dkt_ledger_t *ledger;
    model_t model;
    uint32_t next_minute;    /* the next minute to tick */
    bool reloaded;           /* the ledger may not know which minutes are dispatched */
    uint64_t seed, sequence; /* told on failure */
    uint32_t step;
    const char *op;
    follow_tally_t tally;
} follow_t;

void follow_open(follow_t *self, const dkt_settings_t *settings, int64_t now_ms);
void follow_close(follow_t *self);

/* Prints where and why, and fails the test. */
void follow_fail(const follow_t *self, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4), noreturn));

#define FOLLOW_CHECK(self, condition, ...)                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            follow_fail(self, __LINE__, #condition ": " __VA_ARGS__);                              \
        }                                                                                          \
    } while (0)

/* dkt_ledger_check, and every promise, hold and count the same in both. */
void follow_compare(follow_t *self);

/* One operation on both at the model's time. */
dkt_verdict_t follow_admit(follow_t *self, uint8_t class_index, uint64_t ticket);
dkt_verdict_t follow_hold(follow_t *self, uint8_t class_index, uint32_t ttl_ms, uint64_t nonce);
void follow_allocate(follow_t *self, uint64_t nonce, int64_t expires_ms, uint64_t ticket);
void follow_allocate_lost(follow_t *self, uint8_t class_index, uint32_t minute, uint64_t ticket);
void follow_release(follow_t *self, uint64_t nonce);
void follow_cancel(follow_t *self, uint64_t ticket);
void follow_resolve(follow_t *self, uint64_t ticket);

/* -- what happens over time and to the whole (support_follow_time.c) -----------------------------
 */

/* Lets time pass to `target_ms`, each minute ticked in its turn `late_ms` after it closes. */
void follow_pass(follow_t *self, int64_t target_ms, int64_t late_ms);

/* One tick of the newest closed minute, whatever was missed before. */
void follow_tick(follow_t *self, uint32_t minute);

/* The same state, in another order, in a fresh ledger. */
dkt_ledger_t *follow_clone(follow_t *self, uint64_t order);

/* Replaces the ledger by a clone, as after a crash: settles what was missed meanwhile. */
void follow_reload(follow_t *self, uint64_t order);

void follow_resize(follow_t *self, const dkt_settings_t *settings);

/* earliest_ms against the model, or by stepping a clone of the ledger itself. */
void follow_earliest(follow_t *self, uint8_t class_index);

void follow_due(follow_t *self);

#endif
