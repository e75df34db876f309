/* SPDX-License-Identifier: Apache-2.0
 *
 * The password hasher: one thread, argon2id, a bounded queue. It exists so that 28 ms of hashing
 * never stand in the way of a tenant (rule 15).
 *   takes  HASH   dkt_hash_mail_t
 *   gives  HASHED the same message, to the node loop
 */
#ifndef DKT_WORKERS_HASHER_H
#define DKT_WORKERS_HASHER_H

#include "workers/mail.h"

typedef struct dkt_hasher dkt_hasher_t;

/* NULL: no thread. `env` outlives it. */
dkt_hasher_t *dkt_hasher_new(dkt_env_t *env);
/* Waits for the job in hand; what is queued behind it is dropped. */
void dkt_hasher_destroy(dkt_hasher_t **self_p);

/* Takes the message; false: the queue is full, the message stays the caller's. Thread-safe. */
DKT_CHECKED bool dkt_hasher_submit(dkt_env_t *env, dkt_hash_mail_t *hash);

/* Runs one job in place; for the thread, and for tests. */
void dkt_hasher_run(dkt_hash_job_t *job);

#endif
