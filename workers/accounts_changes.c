/* SPDX-License-Identifier: Apache-2.0
 *
 * A tenant's owner writes what it changed into the tenant's own table `changes`, in the transaction
 * of the change. From there it is carried to the control database here: any time later, by any
 * worker, as often as it is tried. The row `tenants` remembers the last one, in the transaction
 * that writes the audit log, so each is in there exactly once, whatever failed in between.
 */
#include <stdlib.h>

#include "lib/edge/control.h"
#include "workers/accounts_internal.h"
#include "workers/mail.h"

#define S_ROWS_MAX   "100" /* in one read; a resize is rare */
#define S_ROWS_COUNT 100
#define S_NUMBER_MAX 24

typedef struct {
    char database[DKT_DATABASE_BYTES_MAX];
    char seq[S_NUMBER_MAX];
} s_place_t;

static dkt_status_t s_find(PGconn *conn, const char *client, s_place_t *place, dkt_err_t *err)
{
    PGresult *result = dkt_control_run(conn,
                                       "select database, changes_seq from tenants"
                                       " where client_id = $1"
                                       "   and state in ('active', 'deleting')",
                                       1, &client, err);
    if (!result) {
        return err->status;
    }
    bool found = PQntuples(result) == 1;
    if (found) {
        snprintf(place->database, sizeof place->database, "%s", PQgetvalue(result, 0, 0));
        snprintf(place->seq, sizeof place->seq, "%s", PQgetvalue(result, 0, 1));
    }
    PQclear(result);
    return found ? DKT_OK : dkt_fail(err, DKT_NOT_FOUND, NULL, "no such tenant");
}

/* Somebody else may have carried the same row: then nothing happens. */
static dkt_status_t s_carry_row(PGconn *conn, const char *client, const PGresult *rows, int i,
                                dkt_err_t *err)
{
    const char *params[] = {client, PQgetvalue(rows, i, 0), PQgetvalue(rows, i, 1),
                            PQgetvalue(rows, i, 2), PQgetvalue(rows, i, 3)};
    return dkt_control_exec(
        conn,
        "with done as (update tenants set changes_seq = $2::bigint, revision = revision + 1,"
        "   settings = case $4 when 'set_tenant' then $5::jsonb else settings end"
        "   where client_id = $1 and state in ('active', 'deleting')"
        "     and changes_seq < $2::bigint returning client_id, settings, revision, state)"
        " select case when $4 = 'set_tenant' and state = 'active'"
        "   then feed_append (to_jsonb (done) - 'state') end,"
        "   audit_append (case $4 when 'set_tenant' then 'internal' else 'tenant' end, $4,"
        "     client_id, jsonb_build_object ('change', $2::bigint, 'at', $3::text)"
        "       || case $4 when 'set_tenant' then to_jsonb (done) - '{client_id,state}'::text[] "
        "else '{}' end)"
        "   from done",
        5, params, err);
}

dkt_status_t dkt_accounts_carry(PGconn *conn, const char *uri, const dkt_client_t *client,
                                dkt_err_t *err)
{
    dkt_id_text_t text;
    s_place_t place;
    dkt_client_text(client, &text);
    dkt_status_t status = s_find(conn, text.text, &place, err);
    if (status != DKT_OK) {
        return status;
    }
    PGconn *tenant = dkt_control_connect(uri, place.database, "changes", err);
    if (!tenant) {
        return err->status;
    }
    int count = S_ROWS_COUNT;
    while (status == DKT_OK && count == S_ROWS_COUNT) {
        const char *params[] = {place.seq};
        PGresult *rows =
            dkt_control_run(tenant,
                            "select seq, to_char (at at time zone 'UTC',"
                            " 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), action, detail from changes"
                            " where seq > $1::bigint order by seq limit " S_ROWS_MAX,
                            1, params, err);
        count = rows ? PQntuples(rows) : 0;
        status = rows ? DKT_OK : err->status;
        for (int i = 0; i < count && status == DKT_OK; i++) {
            status = s_carry_row(conn, text.text, rows, i, err);
        }
        if (count > 0) {
            snprintf(place.seq, sizeof place.seq, "%s", PQgetvalue(rows, count - 1, 0));
        }
        PQclear(rows);
    }
    PQfinish(tenant);
    return status;
}
