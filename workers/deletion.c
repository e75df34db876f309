/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/deletion.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <sodium.h>

#include "lib/core/receipt.h"
#include "lib/edge/control.h"
#include "lib/edge/keys.h"
#include "lib/edge/log.h"
#include "workers/accounts_internal.h"
#include "workers/pool.h"

#define S_LISTED_MAX  "16" /* deletions of one look */
#define S_EVICT_TRIES 50
#define S_EVICT_MS    10
#define S_LONG_TIMEOUT                                                                             \
    "set statement_timeout = '10min'"                   /* to count all rows, to drop a database   \
                                                         */
#define S_POOL_TIMEOUT  "set statement_timeout = '30s'" /* what the makers' sessions have */
#define S_INVALID       "-2" /* datconnlimit of a half-dropped database */
#define S_SQL_BYTES_MAX 256
#define S_UTC(time)     "to_char (" time " at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"

typedef struct {
    char client_id[DKT_ID_CHARS_MAX + 1], database[DKT_DATABASE_BYTES_MAX];
    bool fenced;
} s_row_t;

/* -- draining -- */

/* May the session that holds the owner's lock be ended? Rule 11, with the moment of the deletion in
 * the place of a new table: its worker is dead, or had its time. */
static dkt_status_t s_may_evict(PGconn *conn, const s_row_t *row, const char *holder, bool *may,
                                dkt_err_t *err)
{
    char held_ms[16];
    snprintf(held_ms, sizeof held_ms, "%d", DKT_LOCK_HELD_MS);
    const char *params[] = {row->client_id, holder, held_ms};
    PGresult *result = dkt_control_run(
        conn,
        "select $2 like 'docket/%' and (not exists (select from workers w where w.dead_at is null"
        "    and replace (w.incarnation::text, '-', '') = right ($2, 32))"
        "  or d.asked_at < clock_timestamp () - $3::integer * interval '1 ms')"
        " from deletions d where d.client_id = $1",
        3, params, err);
    if (!result) {
        return err->status;
    }
    *may = PQntuples(result) == 1 && PQgetvalue(result, 0, 0)[0] == 't';
    PQclear(result);
    return DKT_OK;
}

static dkt_status_t s_try_lock(PGconn *tenant, bool *locked, char holder[64], dkt_err_t *err)
{
    PGresult *result = dkt_control_run(
        tenant, "select locked, coalesce (holder, '') from docket_lock ()", 0, NULL, err);
    if (!result) {
        return err->status;
    }
    *locked = PQgetvalue(result, 0, 0)[0] == 't';
    snprintf(holder, 64, "%s", PQgetvalue(result, 0, 1));
    PQclear(result);
    return DKT_OK;
}

/* The owner's lock on this session; `locked` false: its holder has still time to end by itself. */
static dkt_status_t s_lock(PGconn *conn, PGconn *tenant, const s_row_t *row, bool *locked,
                           dkt_err_t *err)
{
    char holder[64];
    bool may = false;
    dkt_status_t status = s_try_lock(tenant, locked, holder, err);
    if (status == DKT_OK && !*locked && holder[0]) {
        status = s_may_evict(conn, row, holder, &may, err);
    }
    if (status != DKT_OK || *locked || !may) {
        return status;
    }
    dkt_log(DKT_LOG_WARN, "%s is deleted: ending the session of %s", row->client_id, holder);
    const char *params[] = {holder};
    status = dkt_control_exec(tenant, "select docket_evict ($1)", 1, params, err);
    for (int i = 0; i < S_EVICT_TRIES && status == DKT_OK && !*locked; i++) {
        (void)poll(NULL, 0, S_EVICT_MS);
        status = s_try_lock(tenant, locked, holder, err);
    }
    return status;
}

/* Everything that goes with the database, as JSON; nobody else can write while we have the lock. */
static dkt_status_t s_count(PGconn *tenant, char **counts, dkt_err_t *err)
{
    PGresult *result =
        dkt_control_run(tenant,
                        "select jsonb_build_object ('open_tickets', (select count (*) from tickets"
                        "    where state = 0 or (state = 1 and not breached)),"
                        "  'rows', jsonb_build_object ('tickets', (select count (*) from tickets),"
                        "    'journal', (select count (*) from journal),"
                        "    'changes', (select count (*) from changes),"
                        "    'revoked_tokens', (select count (*) from revoked_tokens),"
                        "    'classes', (select count (*) from classes),"
                        "    'settings', (select count (*) from settings),"
                        "    'account', (select count (*) from account)))",
                        0, NULL, err);
    if (!result) {
        return err->status;
    }
    *counts = strdup(PQgetvalue(result, 0, 0));
    PQclear(result);
    return *counts ? DKT_OK : dkt_fail(err, DKT_UNAVAILABLE, NULL, "no memory");
}

/* The row goes back to active iff there are promises and nobody said they may be broken. */
static dkt_status_t s_refuse(PGconn *conn, const s_row_t *row, const char *counts, bool *refused,
                             dkt_err_t *err)
{
    const char *params[] = {row->client_id, counts};
    PGresult *result = dkt_control_run(
        conn,
        "with no as (update deletions set phase = 'refused', counts = $2::jsonb"
        "   where client_id = $1 and phase = 'draining' and not open_allowed"
        "     and ($2::jsonb ->> 'open_tickets')::bigint > 0 returning client_id, actor),"
        " back as (update tenants t set state = 'active', revision = revision + 1 from no"
        "   where t.client_id = no.client_id"
        "   returning t.client_id, t.state, t.database, t.cluster, t.sub_domain, t.suspended,"
        "     t.settings, t.revision, no.actor)"
        " select feed_append (to_jsonb (back) - 'actor'),"
        "   audit_append (back.actor, 'delete_refused', back.client_id,"
        "                 jsonb_build_object ('open_tickets', $2::jsonb -> 'open_tickets'))"
        "   from back",
        2, params, err);
    if (!result) {
        return err->status;
    }
    *refused = PQntuples(result) == 1;
    PQclear(result);
    return DKT_OK;
}

/* The database is given to an owner that never comes: no table version is newer, so every takeover
 * is refused, also that of a worker which does not know yet. */
static dkt_status_t s_fence(PGconn *conn, PGconn *tenant, const s_row_t *row, const char *counts,
                            dkt_err_t *err)
{
    dkt_status_t status =
        dkt_control_exec(tenant,
                         "update owner set epoch = epoch + 1, table_epoch = 9223372036854775807,"
                         " node = '', incarnation = '', since = clock_timestamp ()",
                         0, NULL, err);
    const char *params[] = {row->client_id, counts};
    return status == DKT_OK
               ? dkt_control_exec(conn,
                                  "update deletions set phase = 'fenced', counts = $2::jsonb"
                                  " where client_id = $1 and phase = 'draining'",
                                  2, params, err)
               : status;
}

static dkt_status_t s_drain_on(PGconn *conn, PGconn *tenant, const s_row_t *row, bool *moved,
                               dkt_err_t *err)
{
    bool locked = false, refused = false;
    char *counts = NULL;
    dkt_status_t status = dkt_control_exec(tenant, S_LONG_TIMEOUT, 0, NULL, err);
    if (status == DKT_OK) {
        status = s_lock(conn, tenant, row, &locked, err);
    }
    if (status != DKT_OK || !locked) {
        return status;
    }
    status = s_count(tenant, &counts, err);
    if (status == DKT_OK) {
        status = s_refuse(conn, row, counts, &refused, err);
    }
    if (status == DKT_OK && !refused) {
        status = s_fence(conn, tenant, row, counts, err);
    }
    *moved = status == DKT_OK;
    free(counts);
    return status;
}

static dkt_status_t s_drain(PGconn *conn, const dkt_env_t *env, const s_row_t *row, bool *moved,
                            dkt_err_t *err)
{
    PGconn *tenant = dkt_control_connect(env->uri, row->database, "deletion", err);
    if (!tenant) {
        return err->status;
    }
    dkt_status_t status = s_drain_on(conn, tenant, row, moved, err);
    PQfinish(tenant);
    return status;
}

/* -- fenced -- */

/* `open`: it can be connected to. Not so after a DROP DATABASE that was interrupted: the server
 * then keeps it as invalid, good for nothing but another DROP. */
static dkt_status_t s_find_database(PGconn *conn, const char *database, bool *open, dkt_err_t *err)
{
    PGresult *result = dkt_control_run(
        conn, "select 1 from pg_database where datname = $1 and datconnlimit <> " S_INVALID, 1,
        &database, err);
    if (!result) {
        return err->status;
    }
    *open = PQntuples(result) > 0;
    PQclear(result);
    return DKT_OK;
}

/* A DROP DATABASE waits for a checkpoint, and that for all the dirty files of the cluster. */
static dkt_status_t s_drop_database(PGconn *conn, const dkt_env_t *env, const char *database,
                                    dkt_err_t *err)
{
    char sql[S_SQL_BYTES_MAX];
    snprintf(sql, sizeof sql, "drop database if exists \"%s\" with (force)", database);
    dkt_status_t status = dkt_control_exec(conn, S_LONG_TIMEOUT, 0, NULL, err);
    if (status == DKT_OK && !dkt_pool_long(env, conn, sql)) {
        status = dkt_fail(err, DKT_UNAVAILABLE, NULL, "%s is not dropped yet: %.100s", database,
                          PQerrorMessage(conn));
    }
    return status == DKT_OK ? dkt_control_exec(conn, S_POOL_TIMEOUT, 0, NULL, err) : status;
}

/* What the audit log does not have yet would go with the database. The name is of a column that
 * checks its form. */
static dkt_status_t s_drop(PGconn *conn, const dkt_env_t *env, const s_row_t *row, dkt_err_t *err)
{
    char sql[S_SQL_BYTES_MAX];
    bool open = false;
    dkt_client_t client;
    dkt_status_t status = s_find_database(conn, row->database, &open, err);
    if (status == DKT_OK && open &&
        dkt_client_parse(row->client_id, (uint32_t)strlen(row->client_id), &client)) {
        status = dkt_accounts_carry(conn, env->uri, &client, err);
    }
    if (status == DKT_OK) {
        status = s_drop_database(conn, env, row->database, err);
    }
    if (status == DKT_OK) {
        snprintf(sql, sizeof sql, "drop role if exists \"%s\"", row->database);
        status = dkt_control_exec(conn, sql, 0, NULL, err);
    }
    return status;
}

/* Writes the audit row and takes the tenant's row away; what the receipt says comes back. */
static PGresult *s_take_away(PGconn *conn, const s_row_t *row, dkt_err_t *err)
{
    const char *params[] = {row->client_id};
    return dkt_control_run(
        conn,
        "with d as materialized (select d.*, t.database, t.request_id,"
        "     (select count (*) from wake w where w.client_id = d.client_id) as wakes"
        "   from deletions d join tenants t using (client_id)"
        "   where d.client_id = $1 and d.phase = 'fenced' and t.state = 'deleting'"
        "     and (not d.export_wanted or d.manifest is not null) for update of d, t),"
        " said as (insert into audit (actor, action, client_id, detail)"
        "   select actor, 'delete_tenant', client_id, counts || jsonb_build_object ("
        "     'database', database, 'manifest', manifest) from d returning seq, hash, at),"
        " gone as (delete from tenants t using d where t.client_id = d.client_id"
        "   returning t.client_id),"
        " told as (select feed_append (jsonb_build_object ('client_id', client_id,"
        "     'state', 'deleted')) as seq from gone)"
        " select d.request_id, said.at, " S_UTC(
            "said.at") ","
                       "   floor (extract (epoch from said.at) * 1000)::bigint, d.actor, "
                       "d.database,"
                       "   d.counts || jsonb_build_object ('rows', d.counts -> 'rows'"
                       "     || jsonb_build_object ('wake', d.wakes)), coalesce (d.manifest, ''),"
                       "   said.seq, encode (said.hash, 'hex'), " S_UTC(
                           "d.asked_at") ", told.seq"
                                         "   from d, said, told",
        1, params, err);
}
enum {
    S_REQUEST,
    S_AT,
    S_AT_TEXT,
    S_AT_MS,
    S_ACTOR,
    S_DATABASE,
    S_COUNTS,
    S_MANIFEST,
    S_SEQ,
    S_HASH,
    S_ASKED
};

/* The signed text, the caller's; NULL if there is no memory or a count is no JSON. */
static char *s_receipt(const s_row_t *row, const PGresult *taken, const uint8_t *secret)
{
    char signer[2 * crypto_sign_PUBLICKEYBYTES + 1];
    sodium_bin2hex(signer, sizeof signer, secret + crypto_sign_SEEDBYTES,
                   crypto_sign_PUBLICKEYBYTES);
    json_t *counts = json_loads(PQgetvalue(taken, 0, S_COUNTS), 0, NULL);
    const char *manifest = PQgetvalue(taken, 0, S_MANIFEST);
    json_t *receipt =
        json_pack("{s:s, s:s, s:s, s:I, s:s, s:s, s:s, s:O, s:O, s:s?, s:{s:I, s:s}, s:s}",
                  "format", DKT_RECEIPT_FORMAT, "client_id", row->client_id, "deleted_at",
                  PQgetvalue(taken, 0, S_AT_TEXT), "deleted_ms",
                  (json_int_t)strtoll(PQgetvalue(taken, 0, S_AT_MS), NULL, 10), "asked_at",
                  PQgetvalue(taken, 0, S_ASKED), "actor", PQgetvalue(taken, 0, S_ACTOR), "database",
                  PQgetvalue(taken, 0, S_DATABASE), "rows", json_object_get(counts, "rows"),
                  "open_tickets", json_object_get(counts, "open_tickets"), "export_manifest_sha256",
                  manifest[0] ? manifest : NULL, "audit", "seq",
                  (json_int_t)strtoll(PQgetvalue(taken, 0, S_SEQ), NULL, 10), "hash",
                  PQgetvalue(taken, 0, S_HASH), "signer", signer);
    char *text = receipt ? dkt_receipt_sign(receipt, secret) : NULL;
    json_decref(receipt);
    json_decref(counts);
    return text;
}

static dkt_status_t s_bury_in(PGconn *conn, const s_row_t *row, const uint8_t *secret,
                              dkt_err_t *err)
{
    PGresult *taken = s_take_away(conn, row, err);
    if (!taken) {
        return err->status;
    }
    dkt_status_t status = DKT_OK;
    if (PQntuples(taken) == 1) { /* otherwise somebody else has done it */
        char *receipt = s_receipt(row, taken, secret);
        const char *params[] = {row->client_id, PQgetvalue(taken, 0, S_REQUEST),
                                PQgetvalue(taken, 0, S_AT), receipt};
        status = receipt ? dkt_control_exec(conn,
                                            "insert into tombstones (client_id, request_id,"
                                            " deleted_at, receipt) values ($1, $2, $3, $4)",
                                            4, params, err)
                         : dkt_fail(err, DKT_INTERNAL, NULL, "a receipt cannot be written");
        free(receipt);
    }
    PQclear(taken);
    return status;
}

/* Row, audit, feed and tombstone: all or nothing. */
static dkt_status_t s_bury(PGconn *conn, const dkt_env_t *env, const s_row_t *row, dkt_err_t *err)
{
    uint8_t secret[DKT_RECEIPT_SECRET_BYTES];
    dkt_err_t ignored;
    dkt_status_t status = dkt_keys_receipt(env->keys, secret, err);
    if (status == DKT_OK) {
        status = dkt_control_exec(conn, "begin", 0, NULL, err);
    }
    if (status == DKT_OK) {
        status = s_bury_in(conn, row, secret, err);
        dkt_status_t ended = dkt_control_exec(conn, status == DKT_OK ? "commit" : "rollback", 0,
                                              NULL, status == DKT_OK ? err : &ignored);
        status = status == DKT_OK ? ended : status;
    }
    sodium_memzero(secret, sizeof secret);
    return status;
}

/* -- one look -- */

static dkt_status_t s_step(PGconn *conn, const dkt_env_t *env, const s_row_t *row, bool *moved,
                           dkt_err_t *err)
{
    if (!row->fenced) {
        return s_drain(conn, env, row, moved, err);
    }
    dkt_status_t status = s_drop(conn, env, row, err);
    if (status == DKT_OK) {
        status = s_bury(conn, env, row, err);
    }
    if (status == DKT_OK) {
        dkt_log(DKT_LOG_INFO, "%s is deleted", row->client_id);
    }
    *moved = status == DKT_OK;
    return status;
}

/* One maker at a time works on a tenant; should it die, its session's end frees the lock. */
static dkt_status_t s_step_alone(PGconn *conn, const dkt_env_t *env, const s_row_t *row,
                                 bool *moved, dkt_err_t *err)
{
    const char *params[] = {row->client_id};
    PGresult *result =
        dkt_control_run(conn, "select pg_try_advisory_lock (7411, hashtext ($1))", 1, params, err);
    if (!result) {
        return err->status;
    }
    bool locked = PQgetvalue(result, 0, 0)[0] == 't';
    PQclear(result);
    if (!locked) {
        return DKT_OK;
    }
    dkt_err_t unlock;
    dkt_status_t status = s_step(conn, env, row, moved, err);
    if (dkt_control_exec(conn, "select pg_advisory_unlock (7411, hashtext ($1))", 1, params,
                         &unlock) != DKT_OK &&
        status == DKT_OK) {
        *err = unlock;
        status = unlock.status;
    }
    return status;
}

dkt_status_t dkt_deletion_work(PGconn *conn, const dkt_env_t *env, uint32_t *moved, dkt_err_t *err)
{
    *moved = 0;
    PGresult *result = dkt_control_run(
        conn,
        "select d.client_id, t.database, d.phase = 'fenced' from deletions d"
        " join tenants t using (client_id) where t.state = 'deleting' and (d.phase = 'draining'"
        "   or (d.phase = 'fenced' and (not d.export_wanted or d.manifest is not null)))"
        " order by d.asked_at limit " S_LISTED_MAX,
        0, NULL, err);
    if (!result) {
        return err->status;
    }
    dkt_status_t status = DKT_OK;
    for (int i = 0; i < PQntuples(result) && PQstatus(conn) == CONNECTION_OK; i++) {
        s_row_t row = {.fenced = PQgetvalue(result, i, 2)[0] == 't'};
        snprintf(row.client_id, sizeof row.client_id, "%s", PQgetvalue(result, i, 0));
        snprintf(row.database, sizeof row.database, "%s", PQgetvalue(result, i, 1));
        bool one_moved = false;
        dkt_err_t own;
        dkt_status_t one = s_step_alone(conn, env, &row, &one_moved, &own);
        *moved += one_moved ? 1 : 0;
        if (one != DKT_OK) {
            *err = own;
            status = one;
        }
    }
    PQclear(result);
    return status;
}
