/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/saga.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/edge/control.h"
#include "lib/edge/log.h"

#define S_NAME_BYTES_MAX   (4 * DKT_NAME_CHARS_MAX + 1)
#define S_SLUG_CHARS_MAX   40
#define S_SUFFIX_CHARS     6
#define S_TRIES_MAX        4 /* a sub-domain or request_id that somebody took in between */
#define S_FINISH_AFTER     "5 seconds"
#define S_UNIQUE_VIOLATION "23505"
#define S_NUMBER_BYTES     16

typedef struct {
    char client_id[DKT_ID_CHARS_MAX + 1], database[DKT_DATABASE_BYTES_MAX];
    char name[S_NAME_BYTES_MAX], email[DKT_EMAIL_BYTES_MAX + 1];
    char sub_domain[DKT_DOMAIN_BYTES_MAX], password[DKT_HASH_TEXT_BYTES];
    char resolvers[S_NUMBER_BYTES];
    bool active, deleting;
} s_row_t;

#define S_ROW_COLUMNS                                                                              \
    "client_id, database, name, email, sub_domain, coalesce (password, ''), resolvers,"            \
    " state = 'active', state = 'deleting'"

static void s_copy_row(const PGresult *result, int i, s_row_t *row)
{
    snprintf(row->client_id, sizeof row->client_id, "%s", PQgetvalue(result, i, 0));
    snprintf(row->database, sizeof row->database, "%s", PQgetvalue(result, i, 1));
    snprintf(row->name, sizeof row->name, "%s", PQgetvalue(result, i, 2));
    snprintf(row->email, sizeof row->email, "%s", PQgetvalue(result, i, 3));
    snprintf(row->sub_domain, sizeof row->sub_domain, "%s", PQgetvalue(result, i, 4));
    snprintf(row->password, sizeof row->password, "%s", PQgetvalue(result, i, 5));
    snprintf(row->resolvers, sizeof row->resolvers, "%s", PQgetvalue(result, i, 6));
    row->active = PQgetvalue(result, i, 7)[0] == 't';
    row->deleting = PQgetvalue(result, i, 8)[0] == 't';
}

void dkt_saga_slug(dkt_view_t name, uint32_t random, char out[DKT_DOMAIN_BYTES_MAX])
{
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";
    size_t len = 0;
    for (uint32_t i = 0; i < name.len && len < S_SLUG_CHARS_MAX; i++) {
        uint8_t c = name.data[i];
        if (c >= 'A' && c <= 'Z') {
            c = (uint8_t)(c - 'A' + 'a');
        }
        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
            out[len++] = (char)c;
        } else if (len > 0 && out[len - 1] != '-') {
            out[len++] = '-';
        }
    }
    while (len > 0 && out[len - 1] == '-') {
        len--;
    }
    if (len > 0) {
        out[len++] = '-';
    }
    for (int i = 0; i < S_SUFFIX_CHARS; i++) {
        out[len++] = alphabet[random & 31];
        random >>= 5;
    }
    out[len] = '\0';
}

/* -- steps -- */

/* Step 2. The settings are touched only by the insert that made the account: later they are the
 * owner's. */
static dkt_status_t s_write_account(const dkt_env_t *env, const s_row_t *row, dkt_err_t *err)
{
    PGconn *conn = dkt_control_connect(env->uri, row->database, "account", err);
    if (!conn) {
        return err->status;
    }
    const char *params[] = {row->name, row->email, row->sub_domain, row->password, row->resolvers};
    dkt_status_t status =
        dkt_control_exec(conn,
                         "with made as (insert into account (name, email, sub_domain, password)"
                         "   values ($1, $2, $3, $4) on conflict (one) do nothing returning one)"
                         " update settings set resolvers = $5::smallint from made",
                         5, params, err);
    PQfinish(conn);
    return status;
}

/* Step 3, with the feed and the audit log in the same transaction. Once more: changes nothing. */
static dkt_status_t s_activate(PGconn *conn, const s_row_t *row, dkt_err_t *err)
{
    const char *params[] = {row->client_id};
    return dkt_control_exec(
        conn,
        "with done as (update tenants set state = 'active', password = null"
        "   where client_id = $1 and state = 'claimed' returning *)"
        " select feed_append (jsonb_build_object ('client_id', client_id, 'state', 'active',"
        "          'database', database, 'cluster', cluster, 'sub_domain', sub_domain)),"
        "        audit_append ('public', 'create_account', client_id,"
        "          jsonb_build_object ('database', database, 'sub_domain', sub_domain))"
        "   from done",
        1, params, err);
}

static dkt_status_t s_finish(PGconn *conn, const dkt_env_t *env, const s_row_t *row, dkt_err_t *err)
{
    if (row->active) {
        return DKT_OK;
    }
    dkt_status_t status = s_write_account(env, row, err);
    return status == DKT_OK ? s_activate(conn, row, err) : status;
}

/* -- create -- */

static dkt_status_t s_read_row(PGconn *conn, const char *where, const char *param, s_row_t *row,
                               bool *found, dkt_err_t *err)
{
    char sql[256];
    snprintf(sql, sizeof sql, "select " S_ROW_COLUMNS " from tenants where %s", where);
    PGresult *result = dkt_control_run(conn, sql, 1, &param, err);
    if (!result) {
        return err->status;
    }
    *found = PQntuples(result) > 0;
    if (*found) {
        s_copy_row(result, 0, row);
    }
    PQclear(result);
    return DKT_OK;
}

/* Which of the compared parameters differs from those of the first request. */
static const char *s_differs(const s_row_t *first, const s_row_t *again)
{
    if (strcmp(first->name, again->name) != 0) {
        return "name";
    }
    if (strcmp(first->email, again->email) != 0) {
        return "email";
    }
    return strcmp(first->resolvers, again->resolvers) != 0 ? "resolvers" : NULL;
}

/* One transaction: the row and its database, or neither. NOT_FOUND: somebody was faster with the
 * request_id, the email or the sub-domain; look again. */
static dkt_status_t s_claim(PGconn *conn, const char *request_id, const s_row_t *row,
                            s_row_t *claimed, dkt_err_t *err)
{
    char capacity[S_NUMBER_BYTES];
    snprintf(capacity, sizeof capacity, "%d", DKT_ACCOUNTS_MAX);
    const char *params[] = {row->client_id,  request_id,     row->name,     row->email,
                            row->sub_domain, row->resolvers, row->password, capacity};
    PGresult *result = dkt_control_run(
        conn,
        "with one as (select database from pool where state = 'ready'"
        "     and (select count(*) from tenants) < $8::integer"
        "     limit 1 for update skip locked),"
        " taken as (delete from pool p using one where p.database = one.database"
        "           returning p.database, p.cluster)"
        " insert into tenants (client_id, request_id, name, email, sub_domain, resolvers, password,"
        "                      cluster, database, state, settings)"
        " select $1, $2::uuid, $3, $4, $5, $6::integer, $7, cluster, database, 'claimed',"
        "        jsonb_build_object ('resolvers', $6::integer, 'rebooking', true,"
        "          'classes', jsonb_build_object ('gold', 120, 'silver', 240, 'bronze', 480),"
        "          'limits', '{}'::jsonb)"
        "   from taken returning " S_ROW_COLUMNS,
        8, params, err);
    if (!result) {
        return dkt_control_is_state(err, S_UNIQUE_VIOLATION) ? DKT_NOT_FOUND : err->status;
    }
    bool claimed_one = PQntuples(result) == 1;
    if (claimed_one) {
        s_copy_row(result, 0, claimed);
    }
    PQclear(result);
    return claimed_one ? DKT_OK
                       : dkt_fail(err, DKT_OVERLOADED, NULL, "no tenant database is ready");
}

/* A request_id is good for one account, also when that one is gone. Looked up after `tenants`: a
 * deletion moves it from there in one transaction. */
static dkt_status_t s_check_tombstone(PGconn *conn, const char *request_id, dkt_err_t *err)
{
    PGresult *result = dkt_control_run(conn, "select 1 from tombstones where request_id = $1::uuid",
                                       1, &request_id, err);
    if (!result) {
        return err->status;
    }
    bool found = PQntuples(result) > 0;
    PQclear(result);
    return found ? dkt_fail(err, DKT_CONFLICT, "request_id", "its account was deleted") : DKT_OK;
}

static dkt_status_t s_create_once(PGconn *conn, const char *request_id, const s_row_t *wanted,
                                  s_row_t *row, bool *replayed, dkt_err_t *err)
{
    bool found = false;
    dkt_status_t status = s_read_row(conn, "request_id = $1::uuid", request_id, row, &found, err);
    if (status != DKT_OK) {
        return status;
    }
    *replayed = found;
    if (found) {
        if (row->deleting) { /* it may still be refused: soon this is a replay, or a conflict */
            return dkt_fail(err, DKT_UNAVAILABLE, NULL, "its account is being deleted");
        }
        const char *field = s_differs(row, wanted);
        return field ? dkt_fail(err, DKT_CONFLICT, field, NULL) : DKT_OK;
    }
    status = s_check_tombstone(conn, request_id, err);
    if (status != DKT_OK) {
        return status;
    }
    s_row_t other;
    status = s_read_row(conn, "lower (email) = lower ($1)", wanted->email, &other, &found, err);
    if (status == DKT_OK && found) {
        return dkt_fail(err, DKT_ALREADY_EXISTS, "email", "there is an account with this email");
    }
    if (status != DKT_OK) {
        return status;
    }
    return s_claim(conn, request_id, wanted, row, err);
}

static void s_copy_view(dkt_view_t view, char *out, size_t size)
{
    size_t len = view.len < size - 1 ? view.len : size - 1;
    if (len > 0) {
        memcpy(out, view.data, len);
    }
    out[len] = '\0';
}

/* The random part of the ids is new in each try. */
static void s_fill_wanted(const dkt_env_t *env, const dkt_saga_request_t *request, s_row_t *wanted)
{
    uint8_t random[7];
    dkt_id_text_t client_id;
    randombytes_buf(random, sizeof random);
    dkt_client_t client = dkt_client_make(&env->id_keys, random);
    dkt_client_text(&client, &client_id);
    memset(wanted, 0, sizeof *wanted);
    snprintf(wanted->client_id, sizeof wanted->client_id, "%s", client_id.text);
    s_copy_view(request->name, wanted->name, sizeof wanted->name);
    s_copy_view(request->email, wanted->email, sizeof wanted->email);
    dkt_saga_slug(request->name, randombytes_random(), wanted->sub_domain);
    snprintf(wanted->password, sizeof wanted->password, "%s", request->password);
    snprintf(wanted->resolvers, sizeof wanted->resolvers, "%u", request->resolvers);
}

dkt_status_t dkt_saga_create(PGconn *conn, const dkt_env_t *env, const dkt_saga_request_t *request,
                             dkt_saga_account_t *account, dkt_err_t *err)
{
    char request_id[37];
    dkt_uuid_text(&request->request_id, request_id);
    s_row_t wanted, row;
    bool replayed = false;
    dkt_status_t status = DKT_NOT_FOUND;
    for (int i = 0; i < S_TRIES_MAX && status == DKT_NOT_FOUND; i++) {
        s_fill_wanted(env, request, &wanted);
        status = s_create_once(conn, request_id, &wanted, &row, &replayed, err);
    }
    if (status == DKT_NOT_FOUND) {
        return dkt_fail(err, DKT_UNAVAILABLE, NULL, NULL);
    }
    if (status == DKT_OK) {
        status = s_finish(conn, env, &row, err);
    }
    if (status == DKT_OK) {
        snprintf(account->client_id.text, sizeof account->client_id.text, "%s", row.client_id);
        snprintf(account->sub_domain, sizeof account->sub_domain, "%s", row.sub_domain);
        account->replayed = replayed;
    }
    sodium_memzero(&wanted, sizeof wanted);
    sodium_memzero(&row, sizeof row);
    return status;
}

dkt_status_t dkt_saga_finish_all(PGconn *conn, const dkt_env_t *env, uint32_t *count,
                                 dkt_err_t *err)
{
    *count = 0;
    PGresult *result = dkt_control_run(conn,
                                       "select " S_ROW_COLUMNS " from tenants"
                                       " where state = 'claimed' and created_at <"
                                       " clock_timestamp () - interval '" S_FINISH_AFTER "'"
                                       " order by created_at limit 20",
                                       0, NULL, err);
    if (!result) {
        return err->status;
    }
    /* One that cannot be finished, because its database is gone, does not keep the others waiting.
     */
    dkt_status_t status = DKT_OK;
    for (int i = 0; i < PQntuples(result) && PQstatus(conn) == CONNECTION_OK; i++) {
        s_row_t row;
        s_copy_row(result, i, &row);
        dkt_status_t finished = s_finish(conn, env, &row, err);
        *count += finished == DKT_OK ? 1 : 0;
        status = finished == DKT_OK ? status : finished;
        sodium_memzero(&row, sizeof row);
    }
    PQclear(result);
    return status;
}
