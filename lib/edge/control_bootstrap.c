/* SPDX-License-Identifier: Apache-2.0
 *
 * Making the control database, the tenants' template and their group role. Each step looks first
 * and then acts, under one advisory lock, so that it can be repeated after a crash anywhere.
 */
#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/edge/control.h"
#include "lib/edge/keys.h"
#include "lib/edge/schema.h"
#include "lib/edge/upgrade.h"

#define S_SQL_BYTES_MAX  512
#define S_NAME_CHARS_MAX 63 /* PostgreSQL cuts longer names */

#define S_MARK "docket tenant schema " /* and the number of its newest step */

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

/* The template's version, from its comment: nobody can connect to it. 0: it is not there, or was
 * left half-made. */
static dkt_status_t s_template_version(PGconn *conn, int *version, dkt_err_t *err)
{
    PGresult *result = dkt_control_run(conn,
                                       "select substring (shobj_description (oid, 'pg_database')"
                                       "   from '" S_MARK "(\\d+)')"
                                       " from pg_database where datname = '" DKT_CONTROL_TEMPLATE
                                       "' and datistemplate and not datallowconn",
                                       0, NULL, err);
    if (!result) {
        return err->status;
    }
    *version = PQntuples(result) > 0 ? atoi(PQgetvalue(result, 0, 0)) : 0;
    PQclear(result);
    return DKT_OK;
}

static dkt_status_t s_close_template(PGconn *conn, int version, dkt_err_t *err)
{
    char sql[S_SQL_BYTES_MAX];
    dkt_status_t status = s_exec_name(conn,
                                      "alter database %I with allow_connections false"
                                      " is_template true",
                                      DKT_CONTROL_TEMPLATE, err);
    snprintf(sql, sizeof sql, "comment on database " DKT_CONTROL_TEMPLATE " is '" S_MARK "%d'",
             version);
    return status == DKT_OK ? dkt_control_exec(conn, sql, 0, NULL, err) : status;
}

/* The template is opened only when it lacks a step: while anybody is connected to it, or may be,
 * CREATE DATABASE waits for seconds and then fails. Its comment says which step it has. */
static dkt_status_t s_make_template(PGconn *conn, const char *uri, const dkt_steps_t *steps,
                                    int contracted, dkt_err_t *err)
{
    int version = 0;
    dkt_status_t status = s_template_version(conn, &version, err);
    if (status != DKT_OK ||
        (version > 0 && dkt_steps_target(steps, version, contracted) <= version)) {
        return status;
    }
    status = s_make_database(conn, DKT_CONTROL_TEMPLATE, err);
    if (status == DKT_OK) {
        status = s_exec_name(conn, "alter database %I allow_connections true", DKT_CONTROL_TEMPLATE,
                             err);
    }
    if (status == DKT_OK) {
        status = dkt_upgrade_apply(uri, DKT_CONTROL_TEMPLATE, steps, contracted, &version, err);
    }
    if (status != DKT_OK) {
        dkt_err_t again;
        (void)s_exec_name(conn, "alter database %I allow_connections false", DKT_CONTROL_TEMPLATE,
                          &again);
        return status;
    }
    return s_close_template(conn, version, err);
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

/* A fleet that begins has no older code: contract steps are loose from the start. */
static dkt_status_t s_make_schemas(PGconn *conn, const char *uri, const char *database,
                                   bool contract, dkt_err_t *err)
{
    int version = 0, contracted = 0;
    bool old = false;
    dkt_steps_t *control_steps = dkt_steps_load(DKT_SCHEMA_CONTROL, err);
    dkt_steps_t *tenant_steps = control_steps ? dkt_steps_load(DKT_SCHEMA_TENANT, err) : NULL;
    dkt_status_t status = tenant_steps
                              ? s_exists(conn, "select 1 from pg_database where datname = $1",
                                         DKT_CONTROL_TEMPLATE, &old, err)
                              : err->status;
    if (status == DKT_OK) {
        status =
            dkt_upgrade_apply(uri, database, control_steps, contract ? INT_MAX : 0, &version, err);
    }
    PGconn *control = status == DKT_OK ? dkt_control_connect(uri, NULL, "bootstrap", err) : NULL;
    status = status == DKT_OK && !control ? err->status : status;
    if (status == DKT_OK && (contract || !old)) {
        status = dkt_upgrade_raise_floor(control, tenant_steps, err);
    }
    if (status == DKT_OK) {
        status = dkt_upgrade_contracted(control, &contracted, err);
    }
    if (status == DKT_OK) {
        status = s_make_template(conn, uri, tenant_steps, contracted, err);
    }
    PQfinish(control);
    dkt_steps_destroy(&tenant_steps);
    dkt_steps_destroy(&control_steps);
    return status;
}

/* One at a time, whoever starts or upgrades the fleet. */
static dkt_status_t s_enter(PGconn *conn, dkt_err_t *err)
{
    return dkt_control_exec(conn, S_LONGER "; select pg_advisory_lock (7410, 0)", 0, NULL, err);
}

static dkt_status_t s_make_all(PGconn *conn, const char *uri, const char *database, dkt_err_t *err)
{
    dkt_status_t status = s_enter(conn, err);
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
        status = s_make_schemas(conn, uri, database, false, err);
    }
    if (status == DKT_OK) {
        status = s_register_cluster(conn, uri, err);
    }
    return status;
}

dkt_status_t dkt_control_upgrade(const char *uri, bool contract, dkt_err_t *err)
{
    char database[S_NAME_CHARS_MAX + 1];
    dkt_status_t status = s_database_of(uri, database, err);
    if (status != DKT_OK) {
        return status;
    }
    PGconn *conn = dkt_control_connect(uri, "postgres", "upgrade", err);
    if (!conn) {
        return err->status;
    }
    status = s_enter(conn, err);
    if (status == DKT_OK) {
        status = s_make_schemas(conn, uri, database, contract, err);
    }
    PQfinish(conn);
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
