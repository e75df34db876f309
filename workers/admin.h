/* SPDX-License-Identifier: Apache-2.0
 *
 * docket.admin.<verb>: what operators ask of workers over NATS. Handlers run on the bus's thread:
 * they answer from memory and hand over, and wait for no actor and no database.
 *
 *   drain   {"node": ..}  the worker hands its tenants over and ends, as on SIGTERM; whoever
 *                         supervises it decides whether it starts again
 *   pause   {"node": ..}  it hands its tenants over and stays, without a share. One that is alone
 *                         keeps what it has: somebody must
 *   resume  {"node": ..}  it takes a share again
 *   tenants, tenant, table  what this worker's replica of tenant context says; any one answers
 *
 * The named worker answers; every worker hears. What is wrong with a request, or names a worker
 * that there is not, is answered by the directory's leader, so that there is one answer to each.
 */
#ifndef DKT_WORKERS_ADMIN_H
#define DKT_WORKERS_ADMIN_H

#include "workers/mail.h"

typedef struct dkt_admin dkt_admin_t;

/* The services docket-worker and, while this worker leads, docket-directory, on env->bus. NULL
 * without memory. */
dkt_admin_t *dkt_admin_new(dkt_env_t *env);
/* After the bus was destroyed. May be NULL. */
void dkt_admin_destroy(dkt_admin_t **self_p);

/* The workers that the directory sees alive, by name. Of the directory's thread. */
void dkt_admin_nodes(dkt_nodes_t *nodes, uint32_t count,
                     const char names[][DKT_NODE_NAME_BYTES_MAX]);

#endif
