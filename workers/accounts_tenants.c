/* SPDX-License-Identifier: Apache-2.0
 *
 * The tenant context in the control database: reading it for get_tenant and list_tenants, changing
 * it with a row in the feed and one in the audit log.
 */
#include "workers/accounts_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "lib/edge/control.h"

#define S_ROW_BYTES_MAX 4096 /* a tenant in an answer: name 400, email 254, 8 classes twice */
#define S_PAIRS                                                                                    \
    10 /* of a tenant in a list; classes and limits come with get_tenant only,                     \
          because an answer is at most 4 levels deep */
#define S_LIMIT_BYTES 16

#define S_COLUMNS                                                                                  \
    "client_id, name, email, sub_domain, cluster, suspended, revision,"                            \
    " floor (extract (epoch from created_at) * 1000)::bigint, settings"
enum { S_CLIENT, S_NAME, S_EMAIL, S_DOMAIN, S_CLUSTER, S_SUSPENDED, S_REVISION, S_CREATED, S_SET };

static void s_put_text(dkt_w_t *w, const char *key, const char *text)
{
    dkt_w_cstr(w, key);
    dkt_w_cstr(w, text);
}

/* {name: number} */
static void s_put_numbers(dkt_w_t *w, const char *key, const json_t *object)
{
    const char *name;
    json_t *value;
    dkt_w_cstr(w, key);
    dkt_w_map(w, (uint32_t)json_object_size(object));
    json_object_foreach((json_t *)object, name, value)
    {
        dkt_w_cstr(w, name);
        dkt_w_int(w, json_integer_value(value));
    }
}

/* S_PAIRS pairs. */
static void s_put_tenant(dkt_w_t *w, const PGresult *result, int row, const json_t *settings)
{
    s_put_text(w, "client_id", PQgetvalue(result, row, S_CLIENT));
    s_put_text(w, "name", PQgetvalue(result, row, S_NAME));
    s_put_text(w, "email", PQgetvalue(result, row, S_EMAIL));
    s_put_text(w, "sub_domain", PQgetvalue(result, row, S_DOMAIN));
    s_put_text(w, "cluster", PQgetvalue(result, row, S_CLUSTER));
    dkt_w_cstr(w, "suspended");
    dkt_w_bool(w, PQgetvalue(result, row, S_SUSPENDED)[0] == 't');
    dkt_w_cstr(w, "revision");
    dkt_w_int(w, strtoll(PQgetvalue(result, row, S_REVISION), NULL, 10));
    dkt_w_cstr(w, "created_ms");
    dkt_w_int(w, strtoll(PQgetvalue(result, row, S_CREATED), NULL, 10));
    dkt_w_cstr(w, "resolvers");
    dkt_w_int(w, json_integer_value(json_object_get(settings, "resolvers")));
    dkt_w_cstr(w, "rebooking");
    dkt_w_bool(w, json_is_true(json_object_get(settings, "rebooking")));
}

static void s_put_listed(dkt_w_t *w, const PGresult *result, int row)
{
    json_t *settings = json_loads(PQgetvalue(result, row, S_SET), 0, NULL);
    dkt_w_map(w, S_PAIRS);
    s_put_tenant(w, result, row, settings);
    json_decref(settings);
}

static void s_copy_id(dkt_view_t view, char out[DKT_ID_CHARS_MAX + 1])
{
    uint32_t len = view.len < DKT_ID_CHARS_MAX ? view.len : DKT_ID_CHARS_MAX;
    if (len > 0) {
        memcpy(out, view.data, len);
    }
    out[len] = '\0';
}

dkt_status_t dkt_accounts_get(PGconn *conn, const dkt_request_t *request, dkt_w_t *w,
                              dkt_err_t *err)
{
    char client[DKT_ID_CHARS_MAX + 1];
    s_copy_id(request->client_id, client);
    const char *params[] = {client};
    PGresult *result = dkt_control_run(
        conn, "select " S_COLUMNS " from tenants where client_id = $1 and state = 'active'", 1,
        params, err);
    if (!result) {
        return err->status;
    }
    bool found = PQntuples(result) == 1;
    if (found) {
        json_t *settings = json_loads(PQgetvalue(result, 0, S_SET), 0, NULL);
        dkt_answer_begin(w, request->msgid, S_PAIRS + 3);
        s_put_text(w, "status", "ok");
        s_put_tenant(w, result, 0, settings);
        s_put_numbers(w, "classes", json_object_get(settings, "classes"));
        s_put_numbers(w, "limits", json_object_get(settings, "limits"));
        json_decref(settings);
    }
    PQclear(result);
    return found ? DKT_OK : dkt_fail(err, DKT_NOT_FOUND, NULL, NULL);
}

/* How many rows fit a page, found by writing them into nowhere but a scratch buffer. */
static int s_page_rows(const PGresult *result, int limit)
{
    size_t bytes = 0;
    int rows = 0;
    while (rows < limit && rows < PQntuples(result)) {
        uint8_t scratch[S_ROW_BYTES_MAX];
        dkt_w_t w = dkt_w_init(scratch, sizeof scratch);
        s_put_listed(&w, result, rows);
        assert(!w.failed);
        bytes += w.len;
        if (bytes > DKT_LIST_BYTES_MAX - S_ROW_BYTES_MAX) {
            break;
        }
        rows++;
    }
    return rows;
}

dkt_status_t dkt_accounts_list(PGconn *conn, const dkt_request_t *request, dkt_w_t *w,
                               dkt_err_t *err)
{
    char after[DKT_ID_CHARS_MAX + 1], limit[S_LIMIT_BYTES];
    s_copy_id(request->cursor, after);
    snprintf(limit, sizeof limit, "%u", request->limit + 1);
    const char *params[] = {after, limit};
    PGresult *result = dkt_control_run(conn,
                                       "select " S_COLUMNS " from tenants where state = 'active'"
                                       " and client_id > $1 order by client_id"
                                       " limit $2::integer",
                                       2, params, err);
    if (!result) {
        return err->status;
    }
    int rows = s_page_rows(result, (int)request->limit);
    bool more = rows < PQntuples(result);
    dkt_answer_begin(w, request->msgid, more ? 3 : 2);
    s_put_text(w, "status", "ok");
    dkt_w_cstr(w, "tenants");
    dkt_w_array(w, (uint32_t)rows);
    for (int i = 0; i < rows; i++) {
        s_put_listed(w, result, i);
    }
    if (more) {
        s_put_text(w, "cursor", rows > 0 ? PQgetvalue(result, rows - 1, S_CLIENT) : after);
    }
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
