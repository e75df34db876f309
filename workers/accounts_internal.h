/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the accounts actor (accounts.c) and its reading and changing of the tenant context
 * (accounts_tenants.c).
 */
#ifndef DKT_WORKERS_ACCOUNTS_INTERNAL_H
#define DKT_WORKERS_ACCOUNTS_INTERNAL_H

#include <libpq-fe.h>

#include "lib/core/proto.h"
#include "lib/edge/replica.h"
#include "workers/accounts.h"

/* -- accounts_answer.c -- */

/* Records in the order of their client ids; `at` is false where there is none. */
typedef struct {
    bool (*at)(const void *ctx, uint32_t index, dkt_context_record_t *record);
    const void *ctx;
    uint32_t count;
} dkt_accounts_rows_t;

/* The whole answer of get_tenant. */
void dkt_accounts_write_tenant(dkt_w_t *w, uint32_t msgid, const dkt_context_record_t *record);
/* The whole answer of list_tenants: as many as the limit and a page allow, and a cursor if there is
 * more. */
void dkt_accounts_write_page(dkt_w_t *w, const dkt_request_t *request,
                             const dkt_accounts_rows_t *rows);
/* The client id behind which a page begins; "": the first. */
void dkt_accounts_after(const dkt_request_t *request, char after[DKT_ID_CHARS_MAX + 1]);

/* -- accounts_tenants.c: out of the control database -- */

/* These write the whole answer, or return why they cannot. */
DKT_CHECKED dkt_status_t dkt_accounts_get(PGconn *conn, const dkt_request_t *request, dkt_w_t *w,
                                          dkt_err_t *err);
DKT_CHECKED dkt_status_t dkt_accounts_list(PGconn *conn, const dkt_request_t *request, dkt_w_t *w,
                                           dkt_err_t *err);

/* -- accounts_replica.c -- */

/* The same out of the replica. False: that does not know. */
bool dkt_accounts_get_known(dkt_replica_t *replica, const dkt_client_t *client, uint32_t msgid,
                            dkt_w_t *w);
bool dkt_accounts_list_known(dkt_replica_t *replica, const dkt_request_t *request, dkt_w_t *w);

/* Directory, feed and audit in one transaction. */
DKT_CHECKED dkt_status_t dkt_accounts_suspend(PGconn *conn, const dkt_client_t *client,
                                              bool suspended, dkt_err_t *err);
/* -- accounts_changes.c -- */

/* Carries what a tenant's table `changes` has and the control database lacks into the audit log,
 * and settings into the copy for lists and the feed, in order and each once. NOT_FOUND: there is
 * no such tenant (any more). */
DKT_CHECKED dkt_status_t dkt_accounts_carry(PGconn *conn, const char *uri,
                                            const dkt_client_t *client, dkt_err_t *err);

#endif
