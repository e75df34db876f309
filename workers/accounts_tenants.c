/* SPDX-License-Identifier: Apache-2.0
 *
 * The tenant context in the control database: reading it for get_tenant and list_tenants, changing
 * it with a row in the feed and one in the audit log.
 */
#include "workers/accounts_internal.h"

#include <stdio.h>

#include "lib/edge/control.h"
#include "workers/context_row.h"

#define S_LIMIT_BYTES 16

#define S_SELECT                                                                                   \
    "select" DKT_CONTEXT_COLUMNS " from tenants t join clusters c on c.name = t.cluster"           \
    " where t.state = 'active' and t.client_id "

/* -- reading -- */

dkt_status_t dkt_accounts_get(PGconn *conn, const dkt_request_t *request, dkt_w_t *w,
                              dkt_err_t *err)
{
    char client[DKT_ID_CHARS_MAX + 1];
    snprintf(client, sizeof client, "%.*s", (int)request->client_id.len,
             (const char *)request->client_id.data);
    const char *params[] = {client};
    dkt_context_record_t record;
    PGresult *result = dkt_control_run(conn, S_SELECT "= $1", 1, params, err);
    if (!result) {
        return err->status;
    }
    bool found = PQntuples(result) == 1 && dkt_context_read_row(result, 0, 0, &record);
    if (found) {
        dkt_accounts_write_tenant(w, request->msgid, &record);
    }
    PQclear(result);
    return found ? DKT_OK : dkt_fail(err, DKT_NOT_FOUND, NULL, NULL);
}

static bool s_at(const void *ctx, uint32_t index, dkt_context_record_t *record)
{
    return dkt_context_read_row(ctx, (int)index, 0, record);
}

dkt_status_t dkt_accounts_list(PGconn *conn, const dkt_request_t *request, dkt_w_t *w,
                               dkt_err_t *err)
{
    char after[DKT_ID_CHARS_MAX + 1], limit[S_LIMIT_BYTES];
    dkt_accounts_after(request, after);
    snprintf(limit, sizeof limit, "%u", request->limit + 1); /* one more tells that there is more */
    const char *params[] = {after, limit};
    PGresult *result = dkt_control_run(conn, S_SELECT "> $1 order by t.client_id limit $2::integer",
                                       2, params, err);
    if (!result) {
        return err->status;
    }
    dkt_accounts_rows_t rows = {.at = s_at, .ctx = result, .count = (uint32_t)PQntuples(result)};
    dkt_accounts_write_page(w, request, &rows);
    PQclear(result);
    return DKT_OK;
}

/* -- changes -- */

/* Twice the same changes nothing, and says so nowhere. */
dkt_status_t dkt_accounts_suspend(PGconn *conn, const dkt_client_t *client, bool suspended,
                                  dkt_err_t *err)
{
    dkt_id_text_t text;
    dkt_client_text(client, &text);
    const char *params[] = {text.text, suspended ? "true" : "false"};
    PGresult *result = dkt_control_run(
        conn,
        "with one as materialized (select client_id, suspended from tenants"
        "   where client_id = $1 and state = 'active' for update),"
        " done as (update tenants t set suspended = $2::boolean, revision = revision + 1"
        "   from one where t.client_id = one.client_id and one.suspended <> $2::boolean"
        "   returning t.client_id, t.suspended, t.revision),"
        " told as (select feed_append (to_jsonb (done)),"
        "          audit_append ('internal', 'set_tenant', client_id, to_jsonb (done)) from done)"
        " select (select count (*) from told) from one",
        2, params, err);
    if (!result) {
        return err->status;
    }
    bool found = PQntuples(result) == 1;
    PQclear(result);
    return found ? DKT_OK : dkt_fail(err, DKT_NOT_FOUND, NULL, NULL);
}
