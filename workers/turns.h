/* SPDX-License-Identifier: Apache-2.0
 *
 * The turns of lib/core/turns.h among a worker's actors, which are threads. An actor that waits
 * sleeps in its poll like any other; the one that leaves wakes the next through its mailbox.
 */
#ifndef DKT_WORKERS_TURNS_H
#define DKT_WORKERS_TURNS_H

#include <pthread.h>

#include "lib/core/turns.h"
#include "lib/edge/mailbox.h"

/* What all actors share; every field under the lock. */
typedef struct {
    pthread_mutex_t lock; /* for a few loads and stores, and a wake-up */
    dkt_turns_t turns;
} dkt_worker_turns_t;

/* One actor's. Its own thread alone calls ask and leave. */
typedef struct {
    dkt_turn_t turn;    /* first member; under the lock, but for a look at a state of AWAY */
    dkt_mailbox_t *box; /* outlives the last leave */
} dkt_actor_turn_t;

void dkt_worker_turns_init(dkt_worker_turns_t *self);
void dkt_worker_turns_fini(dkt_worker_turns_t *self);

/* False: `due_mono_ms` says when to ask again, unless the mailbox wakes the actor before. */
DKT_CHECKED bool dkt_worker_turns_ask(dkt_worker_turns_t *self, dkt_actor_turn_t *mine,
                                      int64_t mono_ms, int64_t *due_mono_ms);
void dkt_worker_turns_leave(dkt_worker_turns_t *self, dkt_actor_turn_t *mine);

#endif
