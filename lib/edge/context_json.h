/* SPDX-License-Identifier: Apache-2.0
 *
 * Tenant context as operators read it: the answers of docket.admin.tenants, tenant and table, from
 * a replica's memory. The caller holds whatever lock the replica has.
 */
#ifndef DKT_EDGE_CONTEXT_JSON_H
#define DKT_EDGE_CONTEXT_JSON_H

#include <jansson.h>

#include "lib/core/context.h"
#include "lib/edge/srv.h"

/* {"cursor": client_id, "limit": 1 .. DKT_LIST_MAX}, both optional -> {tenants, count, cursor};
 * cursor is null behind the last page. */
void dkt_context_answer_tenants(const dkt_context_t *context, json_t *params,
                                dkt_srv_reply_t *reply);
/* {"client_id": ..} -> everything that the replica knows of it, and who owns it. */
void dkt_context_answer_tenant(const dkt_context_t *context, json_t *params,
                               dkt_srv_reply_t *reply);
/* Which worker incarnation owns how many vshards, and how new that is. */
void dkt_context_answer_table(const dkt_context_t *context, json_t *params, dkt_srv_reply_t *reply);

#endif
