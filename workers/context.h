/* SPDX-License-Identifier: Apache-2.0
 *
 * Tenant context in a worker: a thread with its own session on the control database that keeps
 * env->replica, and, in the worker whose directory leads, tells everybody else (rule 8).
 *
 *   news on docket.ctx.> --mailbox--> step --> env->replica, for the node loop, directory, accounts
 *   control database -- one snapshot in pages, when in doubt --^
 *   leading: control database's feed, 20 times a second --> step, and the stream DOCKET_CTX
 *
 * Whatever it waits for, the directory's heartbeat does not.
 */
#ifndef DKT_WORKERS_CONTEXT_H
#define DKT_WORKERS_CONTEXT_H

#include "workers/mail.h"

typedef struct dkt_context_thread dkt_context_thread_t;

/* env->replica is set, and env->bus if there is NATS. NULL: no memory, or no thread. */
dkt_context_thread_t *dkt_context_thread_new(dkt_env_t *env);
/* Ends the thread; on the bus its handler may still run. May be NULL. */
void dkt_context_thread_stop(dkt_context_thread_t *self);
/* After the bus was destroyed. */
void dkt_context_thread_destroy(dkt_context_thread_t **self_p);

#endif
