/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/pool.h"

#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/edge/clock.h"
#include "lib/edge/control.h"
#include "lib/edge/keys.h"
#include "lib/edge/log.h"
#include "lib/edge/scram.h"
#include "workers/deletion.h"

#define S_IDLE_MS          50    /* between looks at the pool */
#define S_CLEAN_MS         30000 /* between looks for what was left half-made */
#define S_RETRY_MS         500   /* after an error */
#define S_DELETE_MS        100   /* between looks for tenants to delete */
#define S_DELETE_RETRY_MS  1000  /* after an error */
#define S_CHECKPOINT_EVERY 10    /* databases: about 3,000 files */
#define S_SQL_BYTES_MAX    512
#define S_RANDOM_BYTES     16
#define S_CONNECTIONS_MAX  "3" /* per role: the owner, its successor, one to spare */

struct dkt_pool {
    dkt_env_t *env;
    pthread_t threads[DKT_POOL_MAKERS];
    uint32_t thread_count;
    atomic_uint unsynced; /* databases made since the last checkpoint of ours */
};

/* `name` is generated, or read back from a column with a check on its form. */
static dkt_status_t s_exec(PGconn *conn, const char *before, const char *name, const char *after,
                           dkt_err_t *err)
{
    char sql[S_SQL_BYTES_MAX];
    int len = snprintf(sql, sizeof sql, "%s \"%s\" %s", before, name, after);
    assert(len > 0 && len < (int)sizeof sql);
    return dkt_control_exec(conn, sql, 0, NULL, err);
}

/* The password goes to the server as its SCRAM verifier, so that no log ever sees it. */
static dkt_status_t s_make_role(PGconn *conn, const dkt_env_t *env, const char *name,
                                dkt_err_t *err)
{
    char password[DKT_ROLE_PASSWORD_BYTES], verifier[DKT_SCRAM_VERIFIER_BYTES];
    char after[S_SQL_BYTES_MAX];
    uint8_t salt[DKT_SCRAM_SALT_BYTES];
    randombytes_buf(salt, sizeof salt);
    dkt_keys_role_password(env->master, name, password);
    dkt_scram_verifier(password, salt, verifier);
    sodium_memzero(password, sizeof password);
    snprintf(after, sizeof after,
             "login connection limit " S_CONNECTIONS_MAX " password '%s'"
             " in role " DKT_CONTROL_TENANT_ROLE,
             verifier);
    return s_exec(conn, "create role", name, after, err);
}

/* Everybody may connect to a new database: nobody gets in before that is taken back. */
static dkt_status_t s_make(PGconn *conn, const dkt_env_t *env, const char *name, dkt_err_t *err)
{
    dkt_status_t status = s_make_role(conn, env, name, err);
    if (status == DKT_OK) {
        status = s_exec(conn, "create database", name,
                        "template " DKT_CONTROL_TEMPLATE " allow_connections false", err);
    }
    if (status == DKT_OK) {
        status = s_exec(conn, "revoke all on database", name, "from public", err);
    }
    if (status == DKT_OK) {
        char grant[S_SQL_BYTES_MAX];
        snprintf(grant, sizeof grant, "to \"%s\"", name);
        status = s_exec(conn, "grant connect on database", name, grant, err);
    }
    if (status == DKT_OK) {
        status = s_exec(conn, "alter database", name, "allow_connections true", err);
    }
    if (status == DKT_OK) {
        const char *params[] = {name};
        status = dkt_control_exec(conn, "update pool set state = 'ready' where database = $1", 1,
                                  params, err);
    }
    return status;
}

dkt_status_t dkt_pool_fill_one(PGconn *conn, const dkt_env_t *env, uint32_t ready_min, bool *made,
                               dkt_err_t *err)
{
    uint8_t random[S_RANDOM_BYTES];
    char name[DKT_DATABASE_BYTES_MAX] = "t_", wanted[16];
    randombytes_buf(random, sizeof random);
    sodium_bin2hex(name + 2, sizeof name - 2, random, sizeof random);
    snprintf(wanted, sizeof wanted, "%u", ready_min);
    const char *params[] = {name, wanted};
    *made = false;
    PGresult *result = dkt_control_run(conn,
                                       "insert into pool (database, cluster, state)"
                                       " select $1, 'local', 'making'"
                                       " where (select count(*) from pool) < $2::integer"
                                       " returning database",
                                       2, params, err);
    if (!result) {
        return err->status;
    }
    bool wanted_one = PQntuples(result) == 1;
    PQclear(result);
    if (!wanted_one) {
        return DKT_OK;
    }
    dkt_status_t status = s_make(conn, env, name, err);
    *made = status == DKT_OK;
    return status;
}

dkt_status_t dkt_pool_clean(PGconn *conn, dkt_err_t *err)
{
    PGresult *result = dkt_control_run(conn,
                                       "select database from pool where state = 'making'"
                                       " and since < clock_timestamp () - interval '1 minute'",
                                       0, NULL, err);
    if (!result) {
        return err->status;
    }
    dkt_status_t status = DKT_OK;
    for (int i = 0; i < PQntuples(result) && status == DKT_OK; i++) {
        const char *params[] = {PQgetvalue(result, i, 0)};
        status = s_exec(conn, "drop database if exists", params[0], "with (force)", err);
        if (status == DKT_OK) {
            status = s_exec(conn, "drop role if exists", params[0], "", err);
        }
        if (status == DKT_OK) {
            status = dkt_control_exec(conn, "delete from pool where database = $1", 1, params, err);
        }
    }
    PQclear(result);
    return status;
}

/* -- threads -- */

static PGconn *s_connect(const dkt_env_t *env, dkt_err_t *err)
{
    PGconn *conn = dkt_control_connect(env->uri, NULL, "pool", err);
    if (conn && dkt_control_exec(conn, "set statement_timeout = '30s'; set lock_timeout = '10s'", 0,
                                 NULL, err) != DKT_OK) {
        PQfinish(conn);
        conn = NULL;
    }
    return conn;
}

bool dkt_pool_long(const dkt_env_t *env, PGconn *conn, const char *sql)
{
    if (PQsendQuery(conn, sql) != 1) {
        return false;
    }
    while (PQisBusy(conn)) {
        struct pollfd item = {.fd = PQsocket(conn), .events = POLLIN};
        if (atomic_load(&env->stopping) ||
            (poll(&item, 1, S_IDLE_MS) > 0 && PQconsumeInput(conn) != 1)) {
            return false;
        }
    }
    bool good = true;
    for (PGresult *result; (result = PQgetResult(conn));) {
        good = good && PQresultStatus(result) == PGRES_COMMAND_OK;
        PQclear(result);
    }
    return good;
}

/* Databases are dropped where they are made: it takes as long, and nobody waits for this thread. */
static void s_delete(const dkt_env_t *env, PGconn *conn, int64_t *delete_mono_ms)
{
    dkt_err_t err;
    uint32_t moved = 0;
    if (dkt_clock_mono_ms() < *delete_mono_ms) {
        return;
    }
    dkt_status_t status = dkt_deletion_work(conn, env, &moved, &err);
    if (status != DKT_OK) {
        dkt_log(DKT_LOG_WARN, "deletion: %s", err.text);
    }
    int wait_ms = status == DKT_OK ? S_DELETE_MS : S_DELETE_RETRY_MS;
    *delete_mono_ms = moved > 0 ? 0 : dkt_clock_mono_ms() + wait_ms;
}

/* One look at the pool; returns how long to wait before the next. */
static int s_look(dkt_pool_t *self, PGconn *conn, int64_t *clean_mono_ms, dkt_err_t *err)
{
    const dkt_env_t *env = self->env;
    bool made = false;
    if (dkt_clock_mono_ms() >= *clean_mono_ms) {
        *clean_mono_ms = dkt_clock_mono_ms() + S_CLEAN_MS;
        if (dkt_pool_clean(conn, err) != DKT_OK) {
            dkt_log(DKT_LOG_WARN, "pool: %s", err->text);
        }
    }
    if (dkt_pool_fill_one(conn, env, DKT_POOL_READY_MIN, &made, err) != DKT_OK) {
        dkt_log(DKT_LOG_WARN, "pool: %s", err->text);
        return S_RETRY_MS;
    }
    /* New databases are some 300 dirty files each. They are written in batches, so that
     * PostgreSQL's shutdown has little left to sync; but not one by one: a checkpoint costs every
     * tenant's tail tens of milliseconds, and its writes full images of their pages again. */
    if (made && atomic_fetch_add(&self->unsynced, 1) + 1 == S_CHECKPOINT_EVERY) {
        atomic_store(&self->unsynced, 0);
        if (!dkt_pool_long(env, conn, "checkpoint")) {
            dkt_log(DKT_LOG_INFO, "pool: the checkpoint after new databases was not awaited");
        }
    }
    return made ? 0 : S_IDLE_MS;
}

static void *s_run(void *argument)
{
    dkt_pool_t *self = argument;
    dkt_env_t *env = self->env;
    PGconn *conn = NULL;
    int64_t clean_mono_ms = 0, delete_mono_ms = 0;
    while (!atomic_load(&env->stopping)) {
        dkt_err_t err;
        int wait_ms = S_IDLE_MS;
        bool leader = atomic_load(&env->leader);
        if (conn && (!leader || PQstatus(conn) != CONNECTION_OK)) {
            PQfinish(conn);
            conn = NULL;
        }
        if (leader && !conn) {
            conn = s_connect(env, &err);
            wait_ms = S_RETRY_MS;
        }
        if (conn) {
            s_delete(env, conn, &delete_mono_ms);
            wait_ms = s_look(self, conn, &clean_mono_ms, &err);
        }
        (void)poll(NULL, 0, wait_ms);
    }
    PQfinish(conn);
    return NULL;
}

dkt_pool_t *dkt_pool_new(dkt_env_t *env)
{
    dkt_pool_t *self = calloc(1, sizeof *self);
    if (!self) {
        return NULL;
    }
    self->env = env;
    while (self->thread_count < DKT_POOL_MAKERS &&
           pthread_create(&self->threads[self->thread_count], NULL, s_run, self) == 0) {
        self->thread_count++;
    }
    if (self->thread_count < DKT_POOL_MAKERS) {
        atomic_store(&env->stopping, true);
        dkt_pool_destroy(&self);
    }
    return self;
}

void dkt_pool_destroy(dkt_pool_t **self_p)
{
    dkt_pool_t *self = *self_p;
    if (!self) {
        return;
    }
    *self_p = NULL;
    assert(atomic_load(&self->env->stopping));
    for (uint32_t i = 0; i < self->thread_count; i++) {
        pthread_join(self->threads[i], NULL);
    }
    free(self);
}
