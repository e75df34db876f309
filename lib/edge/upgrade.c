/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/upgrade.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/edge/clock.h"
#include "lib/edge/control.h"

#define S_NUMBER_BYTES 16
#define S_LOOK_MS      100
/* Making a database takes this long at most, or it has failed: the pool's own time-out. */
#define S_MAKING_MAX_MS 30000
/* Nobody works in these databases: a step may take its time. */
#define S_LONGER                                                                                   \
    "set statement_timeout = '30s'; set lock_timeout = '10s';"                                     \
    " set idle_in_transaction_session_timeout = '60s'"

static dkt_status_t s_begin(PGconn *conn, dkt_err_t *err)
{
    return dkt_control_exec(conn, "begin", 0, NULL, err);
}

static dkt_status_t s_commit(PGconn *conn, dkt_err_t *err)
{
    return dkt_control_exec(conn, "commit", 0, NULL, err);
}

/* The first value of the first row as a number; 0 without a row, or for a null. */
static dkt_status_t s_number(PGconn *conn, const char *sql, int *number, dkt_err_t *err)
{
    PGresult *result = dkt_control_run(conn, sql, 0, NULL, err);
    if (!result) {
        return err->status;
    }
    *number = PQntuples(result) > 0 ? atoi(PQgetvalue(result, 0, 0)) : 0;
    PQclear(result);
    return DKT_OK;
}

static dkt_status_t s_has_table(PGconn *conn, const char *name, bool *found, dkt_err_t *err)
{
    PGresult *result =
        dkt_control_run(conn, "select 1 where to_regclass ($1) is not null", 1, &name, err);
    if (!result) {
        return err->status;
    }
    *found = PQntuples(result) > 0;
    PQclear(result);
    return DKT_OK;
}

/* The newest step the database has; 0 if it is empty. */
static dkt_status_t s_version(PGconn *conn, int *version, dkt_err_t *err)
{
    bool found = false;
    *version = 0;
    dkt_status_t status = s_has_table(conn, "public.schema_version", &found, err);
    return status == DKT_OK && found
               ? s_number(conn, "select max (version) from schema_version", version, err)
               : status;
}

/* -- databases without an owner -- */

/* The first step makes the table that all are entered in, and enters itself. */
static dkt_status_t s_apply_step(PGconn *conn, const dkt_step_t *step, dkt_err_t *err)
{
    char number[S_NUMBER_BYTES], reader[S_NUMBER_BYTES];
    snprintf(number, sizeof number, "%d", step->number);
    snprintf(reader, sizeof reader, "%d", step->min_reader);
    const char *params[] = {number, reader};
    dkt_status_t status = s_begin(conn, err);
    if (status == DKT_OK) {
        status = dkt_control_exec(conn, step->sql, 0, NULL, err);
    }
    if (status == DKT_OK) {
        status = dkt_control_exec(conn,
                                  "insert into schema_version (version, min_reader)"
                                  " values ($1, $2) on conflict (version) do nothing",
                                  2, params, err);
    }
    if (status == DKT_OK) {
        status = s_commit(conn, err);
    }
    if (status != DKT_OK) {
        dkt_err_t why = *err;
        return dkt_fail(err, why.status, NULL, "%s: %s", step->name, why.text);
    }
    return DKT_OK;
}

static dkt_status_t s_apply_steps(PGconn *conn, const dkt_steps_t *steps, int contracted,
                                  int *version, dkt_err_t *err)
{
    dkt_status_t status = dkt_control_exec(conn, S_LONGER, 0, NULL, err);
    if (status == DKT_OK) {
        status = s_version(conn, version, err);
    }
    int target = status == DKT_OK ? dkt_steps_target(steps, *version, contracted) : 0;
    for (int i = 0; status == DKT_OK && i < steps->count; i++) {
        const dkt_step_t *step = &steps->steps[i];
        if (step->number > *version && step->number <= target) {
            status = s_apply_step(conn, step, err);
            *version = status == DKT_OK ? step->number : *version;
        }
    }
    return status;
}

dkt_status_t dkt_upgrade_apply(const char *uri, const char *database, const dkt_steps_t *steps,
                               int contracted, int *version, dkt_err_t *err)
{
    PGconn *conn = dkt_control_connect(uri, database, "upgrade", err);
    if (!conn) {
        return err->status;
    }
    dkt_status_t status = s_apply_steps(conn, steps, contracted, version, err);
    PQfinish(conn);
    return status;
}

dkt_status_t dkt_upgrade_contracted(PGconn *control, int *contracted, dkt_err_t *err)
{
    bool found = false;
    *contracted = 0;
    dkt_status_t status = s_has_table(control, "public.schema_floor", &found, err);
    return status == DKT_OK && found
               ? s_number(control, "select contracted from schema_floor", contracted, err)
               : status;
}

dkt_status_t dkt_upgrade_raise_floor(PGconn *control, const dkt_steps_t *steps, dkt_err_t *err)
{
    int contracted = 0, reads = 0;
    for (int i = 0; i < steps->count; i++) {
        const dkt_step_t *step = &steps->steps[i];
        if (step->contract) {
            contracted = step->number;
            reads = step->min_reader > reads ? step->min_reader : reads;
        }
    }
    char number[S_NUMBER_BYTES], reader[S_NUMBER_BYTES];
    snprintf(number, sizeof number, "%d", contracted);
    snprintf(reader, sizeof reader, "%d", reads);
    const char *params[] = {number, reader};
    return dkt_control_exec(control,
                            "update schema_floor set contracted = greatest (contracted, $1),"
                            " reads = greatest (reads, $2)",
                            2, params, err);
}

/* -- the pool -- */

static dkt_status_t s_wait_for_making(PGconn *control, dkt_err_t *err)
{
    int64_t until_mono_ms = dkt_clock_mono_ms() + S_MAKING_MAX_MS;
    int count = 1;
    char begun[64];
    PGresult *result = dkt_control_run(control, "select clock_timestamp ()", 0, NULL, err);
    if (!result) {
        return err->status;
    }
    snprintf(begun, sizeof begun, "%s", PQgetvalue(result, 0, 0));
    PQclear(result);
    while (count > 0 && dkt_clock_mono_ms() < until_mono_ms) {
        const char *params[] = {begun};
        result = dkt_control_run(control,
                                 "select 1 from pool where state = 'making' and since <="
                                 " $1::timestamptz"
                                 " and since > clock_timestamp () - interval '30 s'",
                                 1, params, err);
        if (!result) {
            return err->status;
        }
        count = PQntuples(result);
        PQclear(result);
        (void)poll(NULL, 0, count > 0 ? S_LOOK_MS : 0);
    }
    return DKT_OK;
}

/* Whoever wants a database skips one whose row is locked. */
static dkt_status_t s_apply_pooled(PGconn *control, const char *uri, const char *database,
                                   const dkt_steps_t *steps, int contracted, dkt_err_t *err)
{
    int version = 0;
    dkt_status_t status = s_begin(control, err);
    if (status != DKT_OK) {
        return status;
    }
    PGresult *result = dkt_control_run(control,
                                       "select 1 from pool where database = $1 and state = 'ready'"
                                       " for update skip locked",
                                       1, &database, err);
    status = result ? DKT_OK : err->status;
    if (result && PQntuples(result) == 1) {
        status = dkt_upgrade_apply(uri, database, steps, contracted, &version, err);
    }
    PQclear(result);
    return status == DKT_OK ? s_commit(control, err) : status;
}

static dkt_status_t s_apply_pool(PGconn *control, const char *uri, const dkt_steps_t *steps,
                                 int contracted, dkt_err_t *err)
{
    PGresult *result = dkt_control_run(
        control, "select database from pool where state = 'ready' order by database", 0, NULL, err);
    if (!result) {
        return err->status;
    }
    dkt_status_t status = DKT_OK;
    for (int i = 0; i < PQntuples(result) && status == DKT_OK; i++) {
        status = s_apply_pooled(control, uri, PQgetvalue(result, i, 0), steps, contracted, err);
    }
    PQclear(result);
    return status;
}

dkt_status_t dkt_upgrade_pool(PGconn *control, const char *uri, const dkt_steps_t *steps,
                              int target, dkt_err_t *err)
{
    int pooled = 0, contracted = 0;
    char number[S_NUMBER_BYTES];
    dkt_status_t status = s_number(control, "select pooled from schema_floor", &pooled, err);
    if (status != DKT_OK || pooled >= target) {
        return status; /* what was made since is a copy of a template that has them all */
    }
    status = dkt_control_exec(control, S_LONGER, 0, NULL, err);
    if (status == DKT_OK) {
        status = s_wait_for_making(control, err);
    }
    if (status == DKT_OK) {
        status = dkt_upgrade_contracted(control, &contracted, err);
    }
    if (status == DKT_OK) {
        status = s_apply_pool(control, uri, steps, contracted, err);
    }
    snprintf(number, sizeof number, "%d", target);
    const char *params[] = {number};
    return status == DKT_OK
               ? dkt_control_exec(control, "update schema_floor set pooled = $1", 1, params, err)
               : status;
}

/* -- tenants -- */

static dkt_status_t s_place_step(PGconn *conn, const dkt_step_t *step, dkt_err_t *err)
{
    char number[S_NUMBER_BYTES], reader[S_NUMBER_BYTES];
    snprintf(number, sizeof number, "%d", step->number);
    snprintf(reader, sizeof reader, "%d", step->min_reader);
    const char *params[] = {number, reader, step->name, step->sql};
    return dkt_control_exec(conn,
                            "insert into migrations (version, min_reader, name, sql)"
                            " values ($1, $2, $3, $4) on conflict (version) do update"
                            " set min_reader = excluded.min_reader, name = excluded.name,"
                            " sql = excluded.sql",
                            4, params, err);
}

/* Nothing here waits for the tenant's work: it touches none of its tables. */
static dkt_status_t s_place(PGconn *conn, const dkt_steps_t *steps, int version, int target,
                            dkt_err_t *err)
{
    dkt_status_t status = s_begin(conn, err);
    for (int i = 0; status == DKT_OK && i < dkt_schema_upgrade_count; i++) {
        status = dkt_control_exec(conn, dkt_schema_upgrade[i].sql, 0, NULL, err);
    }
    for (int i = 0; status == DKT_OK && i < steps->count; i++) {
        const dkt_step_t *step = &steps->steps[i];
        if (step->number > version && step->number <= target) {
            status = s_place_step(conn, step, err);
        }
    }
    return status == DKT_OK ? s_commit(conn, err) : status;
}

dkt_status_t dkt_upgrade_place(const char *uri, const char *database, const dkt_steps_t *steps,
                               int target, int *version, dkt_err_t *err)
{
    PGconn *conn = dkt_control_connect(uri, database, "upgrade", err);
    if (!conn) {
        return err->status;
    }
    dkt_status_t status = s_version(conn, version, err);
    if (status == DKT_OK && *version == 0) {
        status = dkt_fail(err, DKT_INTERNAL, NULL, "%s has no schema at all", database);
    }
    if (status == DKT_OK && *version < target) {
        status = s_place(conn, steps, *version, target, err);
    }
    PQfinish(conn);
    return status;
}
