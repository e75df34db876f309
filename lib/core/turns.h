/* SPDX-License-Identifier: Apache-2.0
 *
 * Turns: how many of a worker's tenants may write something at a time for which no request waits -
 * dispatches, breached flags, what is dropped for its age. A thousand of them fall due in the same
 * two seconds, and a database that commits them all at once lets every request queue behind them.
 *
 *             +------------ ask, a place is free ------------+
 *             |                                              v
 *   state   AWAY --- ask ---> WAITING --- next, in order --> HAS
 *             ^                  |                            |
 *             +- leave; ask after DKT_TURN_WAIT_MS -+- leave -+
 *
 * Requests never ask, so whatever happens here can not delay one. Nobody waits for longer than
 * DKT_TURN_WAIT_MS: then he goes without a place. So tenants whose databases hang and keep all
 * places cost the others that much of a time that is theirs to spend, and no lease, no clock of
 * the database and no measured latency is needed to take a place back.
 *
 * Pure: time is an argument. The caller keeps the lock, and calls next after every leave.
 */
#ifndef DKT_CORE_TURNS_H
#define DKT_CORE_TURNS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "lib/core/limits.h"
#include "lib/core/status.h"

typedef enum { DKT_TURN_AWAY, DKT_TURN_WAITING, DKT_TURN_HAS } dkt_turn_state_t;

/* One tenant's; zeroed is AWAY. It stays where it is until it has left. */
typedef struct dkt_turn {
    TAILQ_ENTRY(dkt_turn) queue; /* WAITING */
    dkt_turn_state_t state;
    int64_t asked_mono_ms; /* WAITING: since when */
} dkt_turn_t;

typedef struct {
    uint32_t taken;               /* places, <= DKT_TURNS_MAX */
    TAILQ_HEAD(, dkt_turn) queue; /* oldest first; empty unless all places are taken */
} dkt_turns_t;

void dkt_turns_init(dkt_turns_t *self);

/* True: go now, and leave when it is done. False: it waits; asking again is well, and needed at
 * dkt_turn_due_mono_ms. */
DKT_CHECKED bool dkt_turns_ask(dkt_turns_t *self, dkt_turn_t *turn, int64_t mono_ms);
/* Gives up a place or a wait; well at any time. */
void dkt_turns_leave(dkt_turns_t *self, dkt_turn_t *turn);
/* Whoever has a place from now on and must be told; NULL: nobody. */
dkt_turn_t *dkt_turns_next(dkt_turns_t *self);

/* When it may go whatever the others do; INT64_MAX: it does not wait. */
int64_t dkt_turn_due_mono_ms(const dkt_turn_t *turn);

#endif
