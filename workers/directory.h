/* SPDX-License-Identifier: Apache-2.0
 *
 * The directory of a worker: a thread with its own session on the control database. It keeps this
 * incarnation alive there, watches the others, hands new tables and brokers to the node loop, looks
 * tenants up, and leads if it holds the leader's lock (rules 8 to 11).
 *   takes  LOOKUP HOLDER REFRESH LEAVE WAKE SETTLE STOP
 *   gives  FOUND TABLE BROKERS ROWS, to the node loop
 * The first BROKERS says that this worker is registered. While the control database is gone nothing
 * moves: lookups answer UNAVAILABLE and the last table stays in force.
 */
#ifndef DKT_WORKERS_DIRECTORY_H
#define DKT_WORKERS_DIRECTORY_H

#include "workers/mail.h"

typedef struct dkt_directory dkt_directory_t;

/* NULL: no thread. `env` outlives it. */
dkt_directory_t *dkt_directory_new(dkt_env_t *env);
/* Removes this incarnation from the control database, if that can be reached. */
void dkt_directory_destroy(dkt_directory_t **self_p);

#endif
