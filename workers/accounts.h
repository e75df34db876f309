/* SPDX-License-Identifier: Apache-2.0
 *
 * The accounts actor: a thread with a session on the control database that runs what changes or
 * lists tenants. It blocks as it must; nobody's tickets wait for it.
 *   takes  ACCOUNT TENANT SETTINGS STOP
 *   gives  ANSWER and CONTEXT, to the node loop
 * create_account waits here for a ready database, within its budget. While this worker's directory
 * leads, it also finishes accounts that somebody left half-made.
 */
#ifndef DKT_WORKERS_ACCOUNTS_H
#define DKT_WORKERS_ACCOUNTS_H

#include "workers/mail.h"

typedef struct dkt_accounts dkt_accounts_t;

/* NULL: no thread. `env` outlives it; env->stopping is set before the end. */
dkt_accounts_t *dkt_accounts_new(dkt_env_t *env);
void dkt_accounts_destroy(dkt_accounts_t **self_p);

#endif
