/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the thread (context.c), what it reads from the control database (context_read.c) and
 * what it says as the leader's voice (context_say.c).
 */
#ifndef DKT_WORKERS_CONTEXT_INTERNAL_H
#define DKT_WORKERS_CONTEXT_INTERNAL_H

#include <libpq-fe.h>
#include <nats/nats.h>
#include <pthread.h>

#include "workers/context.h"

struct dkt_context_thread {
    dkt_env_t *env;
    pthread_t thread;
    dkt_mailbox_t *box; /* news and STOP; a bounded loss is a gap */
    PGconn *conn;       /* NULL while there is no session */
    uint32_t connect_failures;
    int64_t connect_mono_ms; /* not before */
    int64_t tail_mono_ms;    /* the leader's next look */
    /* as the leader's voice */
    bool say_all;            /* the stream may lack anything */
    uint64_t epoch;          /* of the replica, at the last look */
    uint64_t swaps, hash;    /* and how often it was replaced, and its hash */
    uint64_t connects;       /* of the bus */
    int64_t recheck_mono_ms; /* the next comparison of the replica with the database */
    int64_t head_mono_ms;    /* the next head */
    int64_t check_mono_ms;   /* the next look at the stream */
    jsCtx *js;               /* of the bus; NULL: not yet */
    int64_t failed_mono_ms;  /* when a failure was logged last */
};

/* Into the replica. A table that is new goes nowhere from here: the directory has read it. */
void dkt_context_thread_tell(dkt_context_thread_t *self, const dkt_context_news_t *news);

/* -- context_read.c -- */

/* A session, if one can be had now. */
DKT_CHECKED dkt_status_t dkt_context_session(dkt_context_thread_t *self, dkt_err_t *err);
void dkt_context_close(dkt_context_thread_t *self);

/* The whole state, or that nothing has changed (not with `whole`): one snapshot, in pages. Ends
 * with SAME, END or FAILED in the replica. */
DKT_CHECKED dkt_status_t dkt_context_pull(dkt_context_thread_t *self, bool whole, dkt_err_t *err);

/* What the feed has that the replica has not, each change into the replica and then to `said`. Sets
 * `leads`: the guard is this worker's. */
typedef void(dkt_context_said_fn)(dkt_context_thread_t *self, const dkt_context_news_t *news);
DKT_CHECKED dkt_status_t dkt_context_tail(dkt_context_thread_t *self, dkt_context_said_fn *said,
                                          bool *leads, dkt_err_t *err);

/* -- context_say.c -- */

/* A change that was just taken. */
void dkt_context_say(dkt_context_thread_t *self, const dkt_context_news_t *news);
/* What is due: everything if the stream may lack something, and the head. */
void dkt_context_say_due(dkt_context_thread_t *self);
void dkt_context_say_fini(dkt_context_thread_t *self);

#endif
