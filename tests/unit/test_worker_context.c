/* SPDX-License-Identifier: Apache-2.0
 *
 * A worker's replica of tenant context on a real control database, without NATS: it follows by
 * pulling, and as the leader's by the feed; while the database is gone it is what lookups go by.
 */
#include "support_control.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/edge/clock.h"
#include "workers/context.h"
#include "workers/directory.h"

#define S_WAIT_MS 10000
#define S_STEP_US 5000
#define S_TENANTS 5

static support_control_t s_control;

typedef struct {
    dkt_env_t env;
    dkt_directory_t *directory;
    dkt_context_thread_t *context;
    PGconn *conn;
} t_worker_t;

static int s_setup(void **state)
{
    (void)state;
    support_control_start(&s_control);
    return 0;
}

static int s_teardown(void **state)
{
    (void)state;
    support_control_stop(&s_control);
    return 0;
}

static dkt_client_t s_client(const dkt_env_t *env, uint8_t number)
{
    uint8_t random[7] = {'t', 'e', 'n', 'a', 'n', 't', number};
    return dkt_client_make(&env->id_keys, random);
}

/* With its row in the feed, as everybody who changes a tenant writes one. */
static void s_change(t_worker_t *self, uint8_t number, const char *change)
{
    char sql[1024];
    dkt_id_text_t id;
    dkt_client_t client = s_client(&self->env, number);
    dkt_client_text(&client, &id);
    snprintf(sql, sizeof sql,
             "with done as (%s client_id = '%s' returning client_id)"
             " select feed_append (to_jsonb (done)) from done",
             change, id.text);
    support_pg_exec(self->conn, sql);
}

static void s_insert(t_worker_t *self, uint8_t number, const char *state)
{
    char sql[1024];
    dkt_id_text_t id;
    dkt_client_t client = s_client(&self->env, number);
    dkt_client_text(&client, &id);
    snprintf(sql, sizeof sql,
             "insert into tenants (client_id, request_id, name, email, sub_domain, resolvers,"
             " cluster, database, state, settings) values ('%s', gen_random_uuid (), 'Acme %u',"
             " 'it%u@acme.example', 'acme-%u', 2, 'local', 't_%032u', '%s',"
             " '{\"resolvers\": 2, \"rebooking\": true, \"classes\": {\"gold\": 120},"
             " \"limits\": {}}')",
             id.text, number, number, number, number, state);
    support_pg_exec(self->conn, sql);
    s_change(self, number, "update tenants set revision = revision + 1 where");
}

static void s_start(t_worker_t *self, bool directory)
{
    memset(self, 0, sizeof *self);
    support_env_init(&self->env, &s_control, "node-a");
    self->env.replica = dkt_replica_new();
    self->conn = support_control_connect(&s_control);
    support_pg_exec(self->conn, "delete from tenants");
    for (uint8_t i = 0; i < S_TENANTS; i++) {
        s_insert(self, i, "active");
    }
    s_insert(self, S_TENANTS, "claimed");
    self->directory = directory ? dkt_directory_new(&self->env) : NULL;
    self->context = dkt_context_thread_new(&self->env);
    assert_non_null(self->context);
}

static void s_stop(t_worker_t *self)
{
    atomic_store(&self->env.stopping, true);
    dkt_context_thread_stop(self->context);
    dkt_context_thread_destroy(&self->context);
    dkt_directory_destroy(&self->directory);
    dkt_replica_destroy(&self->env.replica);
    PQfinish(self->conn);
    support_env_fini(&self->env);
}

static dkt_context_info_t s_info(t_worker_t *self)
{
    dkt_context_info_t info;
    dkt_replica_info(self->env.replica, &info);
    return info;
}

/* Until the replica is where the database is, with so many tenants; true if it came to that. */
static bool s_wait_equal(t_worker_t *self, uint32_t records)
{
    uint64_t seq = (uint64_t)support_pg_int(self->conn, "select seq from feed_head");
    int64_t until_mono_ms = dkt_clock_mono_ms() + S_WAIT_MS;
    while (dkt_clock_mono_ms() < until_mono_ms) {
        dkt_context_info_t info = s_info(self);
        if (info.version.seq >= seq && info.records == records &&
            info.state == DKT_CONTEXT_CURRENT) {
            return true;
        }
        usleep(S_STEP_US);
    }
    return false;
}

static void test_worker_context_pulls_what_is_active(void **state)
{
    (void)state;
    t_worker_t worker;
    dkt_context_record_t record;
    s_start(&worker, false);
    assert_true(s_wait_equal(&worker, S_TENANTS));
    dkt_client_t client = s_client(&worker.env, 3);
    assert_true(dkt_replica_find(worker.env.replica, &client, &record));
    assert_string_equal(record.email, "it3@acme.example");
    assert_string_equal(record.host, "127.0.0.1");
    assert_int_equal(record.port, support_pg_port(s_control.pg));
    assert_int_equal(record.settings.classes[0].level_minutes, 120);
    assert_int_equal(record.settings.classes[0].limit_permille, DKT_PERMILLE);
    client = s_client(&worker.env, S_TENANTS); /* claimed only */
    assert_false(dkt_replica_find(worker.env.replica, &client, &record));
    /* Nobody leads and there is no NATS: a second's silence, and it looks. */
    s_change(&worker, 3, "update tenants set suspended = true where");
    s_change(&worker, 1, "delete from tenants where");
    assert_true(s_wait_equal(&worker, S_TENANTS - 1));
    client = s_client(&worker.env, 3);
    assert_true(dkt_replica_find(worker.env.replica, &client, &record) && record.suspended);
    s_stop(&worker);
}

static void test_worker_context_leader_follows_the_feed(void **state)
{
    (void)state;
    t_worker_t worker;
    s_start(&worker, true);
    assert_true(s_wait_equal(&worker, S_TENANTS));
    int64_t until_mono_ms = dkt_clock_mono_ms() + S_WAIT_MS;
    while (dkt_context_table_bytes(dkt_replica_lock(worker.env.replica)).len == 0) {
        dkt_replica_unlock(worker.env.replica);
        assert_true(dkt_clock_mono_ms() < until_mono_ms);
        usleep(S_STEP_US);
    }
    dkt_replica_unlock(worker.env.replica);
    assert_true(s_wait_equal(&worker, S_TENANTS));
    dkt_context_info_t before = s_info(&worker);
    s_change(&worker, 0, "update tenants set suspended = true where");
    s_change(&worker, 0, "update tenants set suspended = false where");
    s_change(&worker, 2, "delete from tenants where");
    assert_true(s_wait_equal(&worker, S_TENANTS - 1));
    dkt_context_info_t after = s_info(&worker);
    assert_true(after.changes > before.changes);
    assert_int_equal(after.swaps, before.swaps); /* change by change, not the whole */
    /* Old rows go. What was not read by then is only to be had as a whole. */
    support_pg_exec(worker.conn, "begin");
    s_insert(&worker, 9, "active");
    support_pg_exec(worker.conn, "delete from feed; commit");
    assert_true(s_wait_equal(&worker, S_TENANTS));
    assert_int_equal(s_info(&worker).swaps, before.swaps + 1);
    s_stop(&worker);
}

static void s_look_up(t_worker_t *self, uint8_t number, dkt_lookup_mail_t *out)
{
    dkt_lookup_mail_t *lookup = dkt_mail_alloc(sizeof *lookup);
    lookup->client = s_client(&self->env, number);
    dkt_mail_post(self->env.directory_box, &lookup->mail, DKT_MAIL_LOOKUP);
    dkt_lookup_mail_t *found =
        (dkt_lookup_mail_t *)support_env_wait(&self->env, DKT_MAIL_FOUND, S_WAIT_MS);
    assert_non_null(found);
    *out = *found;
    free(found);
}

static void s_allow(bool allow)
{
    PGconn *conn = support_pg_connect(s_control.pg, "postgres", NULL);
    support_pg_exec(conn, allow ? "alter database docket_control allow_connections true"
                                : "alter database docket_control allow_connections false");
    if (!allow) {
        support_pg_exec(conn, "select pg_terminate_backend (pid) from pg_stat_activity"
                              " where datname = 'docket_control'");
    }
    PQfinish(conn);
}

static void test_worker_context_answers_lookups_without_the_control_database(void **state)
{
    (void)state;
    t_worker_t worker;
    dkt_lookup_mail_t found;
    s_start(&worker, true);
    assert_true(s_wait_equal(&worker, S_TENANTS));
    s_look_up(&worker, 4, &found);
    assert_true(found.status == DKT_OK && found.marked);
    dkt_home_t home = found.home;
    s_allow(false);
    s_look_up(&worker, 4, &found);
    assert_int_equal(found.status, DKT_OK);
    assert_false(found.marked);
    assert_memory_equal(&found.home, &home, sizeof home);
    s_look_up(&worker, S_TENANTS + 1, &found); /* absence is no answer */
    assert_int_equal(found.status, DKT_UNAVAILABLE);
    s_allow(true);
    int64_t until_mono_ms = dkt_clock_mono_ms() + S_WAIT_MS;
    while (!atomic_load(&worker.env.control_up)) {
        assert_true(dkt_clock_mono_ms() < until_mono_ms);
        usleep(S_STEP_US);
    }
    s_look_up(&worker, 4, &found);
    assert_true(found.status == DKT_OK && found.marked);
    s_look_up(&worker, S_TENANTS + 1, &found);
    assert_int_equal(found.status, DKT_NOT_FOUND);
    PQfinish(worker.conn); /* it was ended, too */
    worker.conn = support_control_connect(&s_control);
    assert_true(s_wait_equal(&worker, S_TENANTS));
    s_stop(&worker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worker_context_pulls_what_is_active),
        cmocka_unit_test(test_worker_context_leader_follows_the_feed),
        cmocka_unit_test(test_worker_context_answers_lookups_without_the_control_database),
    };
    return cmocka_run_group_tests(tests, s_setup, s_teardown);
}
