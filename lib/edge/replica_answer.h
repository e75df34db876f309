/* SPDX-License-Identifier: Apache-2.0
 *
 * What operators may ask of any process that has a replica of tenant context: docket.admin.tenants,
 * tenant and table, answered from its memory. Each function is a handler (dkt_srv_fn) whose `ctx`
 * is a dkt_replica_t.
 */
#ifndef DKT_EDGE_REPLICA_ANSWER_H
#define DKT_EDGE_REPLICA_ANSWER_H

#include "lib/edge/replica.h"
#include "lib/edge/srv.h"

/* {"cursor": client_id, "limit": 1 .. DKT_LIST_MAX}, both optional -> {tenants, count, cursor};
 * cursor is null behind the last page. */
void dkt_replica_answer_tenants(void *replica, json_t *params, dkt_srv_reply_t *reply);
/* {"client_id": ..} -> everything that the replica knows of it, and who owns it. */
void dkt_replica_answer_tenant(void *replica, json_t *params, dkt_srv_reply_t *reply);
/* Which worker incarnation owns how many vshards, and how new that is. */
void dkt_replica_answer_table(void *replica, json_t *params, dkt_srv_reply_t *reply);

/* docket_ctx_lag and docket_ctx_resync_total into the metrics of docket.stats. */
void dkt_replica_metrics(dkt_replica_t *replica, json_t *metrics);

/* Their rows of a service's table. `prefix`_tenants and so on are the handlers. */
#define DKT_REPLICA_ENDPOINTS(prefix)                                                              \
    {"tenants", "docket.admin.tenants",                                                            \
     "a page of the tenants: {\"cursor\": client_id, \"limit\": count}", false, prefix##_tenants}, \
        {"tenant", "docket.admin.tenant", "one tenant: {\"client_id\": id}", false,                \
         prefix##_tenant},                                                                         \
    {                                                                                              \
        "table", "docket.admin.table", "which worker owns how many vshards", false, prefix##_table \
    }

#endif
