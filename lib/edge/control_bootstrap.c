/* SPDX-License-Identifier: Apache-2.0
 *
 * Making the control database, the tenants' template and their group role. Each step looks first
 * and then acts, under one advisory lock, so that it can be repeated after a crash anywhere.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/edge/control.h"
#include "lib/edge/keys.h"
#include "lib/edge/schema.h"

#define S_SQL_BYTES_MAX  512
#define S_NAME_CHARS_MAX 63 /* PostgreSQL cuts longer names */

/* CREATE DATABASE copies a template: 0.1 s on a quiet machine, seconds on a busy one. */
#define S_LONGER "set statement_timeout = '30s'; set lock_timeout = '10s'"

static dkt_status_t s_exec_name(PGconn *conn, const char *format, const char *name, dkt_err_t *err)
{
    char sql[S_SQL_BYTES_MAX];
    const char *at = strstr(format, "%I");
    assert(at);
    int len = snprintf(sql, sizeof sql, "%.*s\"%s\"%s", (int)(at - format), format, name, at + 2);
    assert(len > 0 && len < (int)sizeof sql);
    return dkt_control_exec(conn, sql, 0, NULL, err);
}

/* Names are put into statements: only those that need no quoting pass. */
static dkt_status_t s_check_name(const char *name, dkt_err_t *err)
{
    size_t len = strlen(name);
    if (len == 0 || len > S_NAME_CHARS_MAX ||
        strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != len) {
        return dkt_fail(err, DKT_INVALID_ARGUMENT, "join",
                        "the control database's name must be of a-z, 0-9 and _");
    }
    return DKT_OK;
}

static dkt_status_t s_database_of(const char *uri, char out[S_NAME_CHARS_MAX + 1], dkt_err_t *err)
{
    PQconninfoOption *options = PQconninfoParse(uri, NULL);
    if (!options) {
        return dkt_fail(err, DKT_INVALID_ARGUMENT, "join", "not a PostgreSQL URI");
    }
    out[0] = '\0';
    for (PQconninfoOption *option = options; option->keyword; option++) {
        if (strcmp(option->keyword, "dbname") == 0 && option->val) {
            snprintf(out, S_NAME_CHARS_MAX + 1, "%s", option->val);
        }
    }
    PQconninfoFree(options);
    return s_check_name(out, err);
}

/* Does the query give a row? */
static dkt_status_t s_exists(PGconn *conn, const char *sql, const char *param, bool *found,
                             dkt_err_t *err)
{
    PGresult *result = dkt_control_run(conn, sql, 1, &param, err);
    if (!result) {
        return err->status;
    }
    *found = PQntuples(result) > 0;
    PQclear(result);
    return DKT_OK;
}

static dkt_status_t s_make_database(PGconn *conn, const char *name, dkt_err_t *err)
{
    bool found = false;
    dkt_status_t status =
        s_exists(conn, "select 1 from pg_database where datname = $1", name, &found, err);
    if (status == DKT_OK && !found) {
        status = s_exec_name(conn,
                             "create database %I template template0 encoding 'UTF8'"
                             " lc_collate 'C.UTF-8' lc_ctype 'C.UTF-8'",
                             name, err);
    }
    if (status == DKT_OK) {
        status = s_exec_name(conn, "revoke all on database %I from public", name, err);
    }
    return status;
}

/* A step enters its own number into schema_version, so it is all or nothing. */
static dkt_status_t s_apply_step(PGconn *conn, const dkt_schema_step_t *step, dkt_err_t *err)
{
    dkt_status_t status = dkt_control_exec(conn, "begin", 0, NULL, err);
    if (status == DKT_OK) {
        status = dkt_control_exec(conn, step->sql, 0, NULL, err);
    }
    if (status == DKT_OK) {
        status = dkt_control_exec(conn, "commit", 0, NULL, err);
    }
    if (status != DKT_OK) {
        dkt_err_t why = *err;
        return dkt_fail(err, why.status, NULL, "%s: %s", step->name, why.text);
    }
    return DKT_OK;
}

/* The newest step the database has; 0 if it is empty. */
static dkt_status_t s_version(PGconn *conn, int *version, dkt_err_t *err)
{
    bool found = false;
    *version = 0;
    dkt_status_t status = s_exists(conn, "select 1 where to_regclass ($1) is not null",
                                   "public.schema_version", &found, err);
    if (status != DKT_OK || !found) {
        return status;
    }
    PGresult *result = dkt_control_run(
        conn, "select coalesce (max (version), 0) from schema_version", 0, NULL, err);
    if (!result) {
        return err->status;
    }
    *version = atoi(PQgetvalue(result, 0, 0));
    PQclear(result);
    return DKT_OK;
}

static dkt_status_t s_apply_steps(PGconn *conn, const dkt_schema_step_t *steps, int count,
                                  dkt_err_t *err)
{
    int version = 0;
    dkt_status_t status = dkt_control_exec(conn, S_LONGER, 0, NULL, err);
    if (status == DKT_OK) {
        status = s_version(conn, &version, err);
    }
    for (int i = 0; status == DKT_OK && i < count; i++) {
        if (steps[i].number > version) {
            status = s_apply_step(conn, &steps[i], err);
        }
    }
    return status;
}

static dkt_status_t s_apply_in(const char *uri, const char *database,
                               const dkt_schema_step_t *steps, int count, dkt_err_t *err)
{
    PGconn *conn = dkt_control_connect(uri, database, "bootstrap", err);
    if (!conn) {
        return err->status;
    }
    dkt_status_t status = s_apply_steps(conn, steps, count, err);
    PQfinish(conn);
    return status;
}

/* The template is opened only when it lacks a step: while anybody is connected to it, or may be,
 * CREATE DATABASE waits for seconds and then fails. Its comment says which step it has. */
static dkt_status_t s_make_template(PGconn *conn, const char *uri, dkt_err_t *err)
{
    char mark[64];
    int newest =
        dkt_schema_tenant_count > 0 ? dkt_schema_tenant[dkt_schema_tenant_count - 1].number : 0;
    snprintf(mark, sizeof mark, "docket tenant schema %d", newest);
    bool done = false;
    dkt_status_t status =
        s_exists(conn,
                 "select 1 from pg_database where datname = '" DKT_CONTROL_TEMPLATE
                 "' and datistemplate and not datallowconn"
                 " and shobj_description (oid, 'pg_database') = $1",
                 mark, &done, err);
    if (status != DKT_OK || done) {
        return status;
    }
    status = s_make_database(conn, DKT_CONTROL_TEMPLATE, err);
    if (status == DKT_OK) {
        status = s_exec_name(conn, "alter database %I allow_connections true", DKT_CONTROL_TEMPLATE,
                             err);
    }
    if (status == DKT_OK) {
        status =
            s_apply_in(uri, DKT_CONTROL_TEMPLATE, dkt_schema_tenant, dkt_schema_tenant_count, err);
    }
    if (status == DKT_OK) {
        status = s_exec_name(conn,
                             "alter database %I with allow_connections false"
                             " is_template true",
                             DKT_CONTROL_TEMPLATE, err);
    }
    if (status == DKT_OK) {
        char sql[S_SQL_BYTES_MAX];
        snprintf(sql, sizeof sql, "comment on database " DKT_CONTROL_TEMPLATE " is '%s'", mark);
        status = dkt_control_exec(conn, sql, 0, NULL, err);
    }
    return status;
}

static dkt_status_t s_make_role(PGconn *conn, dkt_err_t *err)
{
    bool found = false;
    dkt_status_t status = s_exists(conn, "select 1 from pg_roles where rolname = $1",
                                   DKT_CONTROL_TENANT_ROLE, &found, err);
    if (status == DKT_OK && !found) {
        status = s_exec_name(conn, "create role %I nologin", DKT_CONTROL_TENANT_ROLE, err);
    }
    return status;
}

static dkt_status_t s_register_cluster(PGconn *admin, const char *uri, dkt_err_t *err)
{
    PGconn *conn = dkt_control_connect(uri, NULL, "bootstrap", err);
    if (!conn) {
        return err->status;
    }
    const char *params[] = {dkt_control_host(admin), dkt_control_port(admin)};
    dkt_status_t status =
        dkt_control_exec(conn,
                         "with done as (insert into clusters (name, host, port)"
                         "   values ('local', $1, $2::integer)"
                         "   on conflict (name) do update set host = $1, port = $2::integer"
                         "   where (clusters.host, clusters.port) is distinct from"
                         "         ($1, $2::integer) returning name)"
                         " select feed_append (jsonb_build_object ('cluster', name)) from done",
                         2, params, err);
    PQfinish(conn);
    return status;
}

static dkt_status_t s_make_all(PGconn *conn, const char *uri, const char *database, dkt_err_t *err)
{
    dkt_status_t status =
        dkt_control_exec(conn, S_LONGER "; select pg_advisory_lock (7410, 0)", 0, NULL, err);
    if (status == DKT_OK) {
        status = dkt_control_exec(conn,
                                  "revoke all on database postgres from public;"
                                  "revoke all on database template1 from public",
                                  0, NULL, err);
    }
    if (status == DKT_OK) {
        status = s_make_role(conn, err);
    }
    if (status == DKT_OK) {
        status = s_make_database(conn, database, err);
    }
    if (status == DKT_OK) {
        status = s_apply_in(uri, database, dkt_schema_control, dkt_schema_control_count, err);
    }
    if (status == DKT_OK) {
        status = s_make_template(conn, uri, err);
    }
    if (status == DKT_OK) {
        status = s_register_cluster(conn, uri, err);
    }
    return status;
}

dkt_status_t dkt_control_bootstrap(const char *admin_uri, const char *keys_folder, dkt_err_t *err)
{
    dkt_err_t own;
    err = err ? err : &own;
    char database[S_NAME_CHARS_MAX + 1];
    uint8_t master[DKT_KEY_BYTES];
    dkt_status_t status = s_database_of(admin_uri, database, err);
    if (status == DKT_OK) {
        status = dkt_keys_master(keys_folder, master, err);
        sodium_memzero(master, sizeof master);
    }
    if (status != DKT_OK) {
        return status;
    }
    PGconn *conn = dkt_control_connect(admin_uri, "postgres", "bootstrap", err);
    if (!conn) {
        return err->status;
    }
    status = s_make_all(conn, admin_uri, database, err);
    PQfinish(conn);
    return status;
}
