/* SPDX-License-Identifier: Apache-2.0
 *
 * Directories of several workers on one control database: who leads, who has a share, what a lookup
 * finds, and what happens when a worker leaves, loses its session, or the database goes away.
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

#include "lib/core/directory.h"
#include "lib/edge/clock.h"
#include "lib/edge/control.h"
#include "workers/directory.h"
#include "workers/hasher.h"

#define S_WAIT_MS     10000
#define S_AGE_WAIT_MS 15000
#define S_AGE_LOOK_US 50000

static support_control_t s_control;

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

/* Waits until a table has exactly these members; true if it came. */
static bool s_wait_members(dkt_env_t *env, const dkt_incarnation_t *members, uint16_t count)
{
    int64_t until_mono_ms = dkt_clock_mono_ms() + S_WAIT_MS;
    while (dkt_clock_mono_ms() < until_mono_ms) {
        dkt_table_mail_t *mail =
            (dkt_table_mail_t *)support_env_wait(env, DKT_MAIL_TABLE, S_WAIT_MS);
        bool equal = mail && dkt_table_members_equal(&mail->table, members, count);
        free(mail);
        if (equal) {
            return true;
        }
    }
    return false;
}

static void test_worker_directory_spreads_over_those_alive(void **state)
{
    (void)state;
    dkt_env_t envs[2];
    dkt_directory_t *directories[2];
    dkt_incarnation_t members[2];
    for (int i = 0; i < 2; i++) {
        support_env_init(&envs[i], &s_control, i == 0 ? "node-a" : "node-b");
        members[i] = envs[i].incarnation;
        directories[i] = dkt_directory_new(&envs[i]);
        assert_true(s_wait_members(&envs[0], members, (uint16_t)(i + 1)));
    }
    assert_true(s_wait_members(&envs[1], members, 2));
    assert_true(atomic_load(&envs[0].leader));
    assert_false(atomic_load(&envs[1].leader));
    /* One asks to leave: it keeps its session but gets no share. */
    dkt_mail_post_kind(envs[1].directory_box, DKT_MAIL_LEAVE);
    assert_true(s_wait_members(&envs[0], members, 1));
    assert_true(s_wait_members(&envs[1], members, 1));
    dkt_directory_destroy(&directories[1]);
    dkt_directory_destroy(&directories[0]);
    PGconn *conn = support_control_connect(&s_control);
    assert_int_equal(support_pg_int(conn, "select count(*) from workers"), 0);
    PQfinish(conn);
    support_env_fini(&envs[0]);
    support_env_fini(&envs[1]);
}

/* A worker whose process is gone leaves a row without a lock: dead, and its share moves. */
static void test_worker_directory_without_a_lock_is_dead(void **state)
{
    (void)state;
    dkt_env_t env;
    support_env_init(&env, &s_control, "node-a");
    PGconn *conn = support_control_connect(&s_control);
    support_pg_exec(conn, "insert into workers (incarnation, node, lock_key)"
                          " values ('11111111-1111-1111-1111-111111111111', 'ghost', 4711)");
    support_pg_exec(conn, "select pg_advisory_lock (4711)");
    dkt_directory_t *directory = dkt_directory_new(&env);
    dkt_incarnation_t members[2] = {env.incarnation};
    memset(members[1].bytes, 0x11, sizeof members[1].bytes);
    assert_true(s_wait_members(&env, members, 2));
    support_pg_exec(conn, "select pg_advisory_unlock (4711)");
    assert_true(s_wait_members(&env, members, 1));
    assert_int_equal(support_pg_int(conn, "select count(*) from workers where node = 'ghost'"
                                          " and dead_at is not null"),
                     1);
    /* Its beat stands still, so the lock alone does not revive it; a beat and the lock do. */
    support_pg_exec(conn, "select pg_advisory_lock (4711)");
    support_pg_exec(conn, "insert into worker_beats values"
                          " ('11111111-1111-1111-1111-111111111111', 5)");
    assert_true(s_wait_members(&env, members, 2));
    assert_true(s_wait_members(&env, members, 1)); /* and silent again: hung */
    dkt_directory_destroy(&directory);
    support_pg_exec(conn, "delete from workers; delete from worker_beats");
    PQfinish(conn);
    support_env_fini(&env);
}

/* What nobody needs any more goes by itself; what somebody may need stays. */
static void test_worker_directory_drops_what_is_old(void **state)
{
    (void)state;
    dkt_env_t env;
    support_env_init(&env, &s_control, "node-a");
    PGconn *conn = support_control_connect(&s_control);
    /* 100 dead since minutes, 3 since two days; of those one still holds its lock */
    support_pg_exec(conn,
                    "insert into workers (incarnation, node, lock_key, dead_at) select "
                    "gen_random_uuid (), 'ghost', 9000 + i, clock_timestamp () - i * interval "
                    "'1 s' from generate_series (1, 100) i;"
                    "insert into workers (incarnation, node, lock_key, dead_at) select "
                    "gen_random_uuid (), 'old', 8000 + i, clock_timestamp () - interval '2 days' "
                    "from generate_series (1, 3) i;"
                    "insert into worker_beats select incarnation, 1 from workers;"
                    "select pg_advisory_lock (8002);"
                    "delete from feed;"
                    "insert into feed (seq, epoch, at, body) select i, 0, clock_timestamp () - "
                    "interval '1 day' * (case when i <= 1500 then 8 else 6 end), '{}' "
                    "from generate_series (1, 12000) i;"
                    "update feed_head set seq = 12000");
    dkt_directory_t *directory = dkt_directory_new(&env);
    assert_true(s_wait_members(&env, &env.incarnation, 1));
    int64_t until_mono_ms = dkt_clock_mono_ms() + S_AGE_WAIT_MS;
    while (support_pg_int(conn, "select count(*) from feed") > 10002 ||
           support_pg_int(conn, "select count(*) from workers") > 66) {
        assert_true(dkt_clock_mono_ms() < until_mono_ms);
        usleep(S_AGE_LOOK_US);
    }
    /* and a row or two for the tables that were made meanwhile */
    assert_in_range(support_pg_int(conn, "select count(*) from feed"), 10000, 10002);
    assert_in_range(support_pg_int(conn, "select min(seq) from feed"), 2001, 2003);
    assert_int_equal(support_pg_int(conn, "select lock_key from workers where node = 'old'"), 8002);
    assert_int_equal(support_pg_int(conn, "select max(lock_key) from workers where node = 'ghost'"),
                     9064);
    assert_int_equal(support_pg_int(conn, "select count(*) from worker_beats"), 66);
    /* the head stays whatever its age */
    dkt_directory_destroy(&directory);
    support_pg_exec(conn, "update feed set at = clock_timestamp () - interval '8 days'");
    directory = dkt_directory_new(&env);
    while (support_pg_int(conn, "select count(*) from feed") > 1) {
        assert_true(dkt_clock_mono_ms() < until_mono_ms);
        usleep(S_AGE_LOOK_US);
    }
    assert_int_equal(support_pg_int(conn, "select count(*) from feed join feed_head using (seq)"),
                     1);
    dkt_directory_destroy(&directory);
    support_pg_exec(conn, "delete from workers; delete from worker_beats; truncate feed;"
                          "update feed_head set seq = 0; select pg_advisory_unlock_all ()");
    PQfinish(conn);
    support_env_fini(&env);
}

static void s_look_up(dkt_env_t *env, const dkt_client_t *client, dkt_lookup_mail_t *out)
{
    dkt_lookup_mail_t *lookup = dkt_mail_alloc(sizeof *lookup);
    lookup->client = *client;
    dkt_mail_post(env->directory_box, &lookup->mail, DKT_MAIL_LOOKUP);
    dkt_lookup_mail_t *found =
        (dkt_lookup_mail_t *)support_env_wait(env, DKT_MAIL_FOUND, S_WAIT_MS);
    assert_non_null(found);
    *out = *found;
    free(found);
}

static void test_worker_directory_looks_tenants_up(void **state)
{
    (void)state;
    dkt_env_t env;
    dkt_lookup_mail_t found;
    support_env_init(&env, &s_control, "node-a");
    dkt_directory_t *directory = dkt_directory_new(&env);
    free(support_env_wait(&env, DKT_MAIL_BROKERS, S_WAIT_MS));
    dkt_client_t client = dkt_client_make(&env.id_keys, (const uint8_t *)"1234567");
    s_look_up(&env, &client, &found);
    assert_int_equal(found.status, DKT_NOT_FOUND);
    PGconn *conn = support_control_connect(&s_control);
    dkt_id_text_t text;
    char sql[512];
    dkt_client_text(&client, &text);
    snprintf(sql, sizeof sql,
             "insert into tenants (client_id, request_id, name, email, sub_domain, resolvers,"
             " cluster, database, state, settings, suspended) values ('%s', gen_random_uuid (),"
             " 'n', 'e', 'sub', 1, 'local', 't_0123456789abcdef0123456789abcdef', 'active', '{}',"
             " true)",
             text.text);
    support_pg_exec(conn, sql);
    s_look_up(&env, &client, &found);
    assert_int_equal(found.status, DKT_OK);
    assert_string_equal(found.home.database, "t_0123456789abcdef0123456789abcdef");
    assert_string_equal(found.home.host, "127.0.0.1");
    assert_string_equal(found.home.sub_domain, "sub");
    assert_true(found.home.suspended);
    PQfinish(conn);
    dkt_directory_destroy(&directory);
    support_env_fini(&env);
}

/* The session of a lock that nobody alive owns is ended, one of a living worker is not. */
static void test_worker_directory_ends_dead_holders_only(void **state)
{
    (void)state;
    dkt_env_t env;
    support_env_init(&env, &s_control, "node-a");
    dkt_directory_t *directory = dkt_directory_new(&env);
    free(support_env_wait(&env, DKT_MAIL_BROKERS, S_WAIT_MS));
    support_pg_tenant(s_control.pg, "t_holder");
    PGconn *conn = support_control_connect(&s_control);
    support_pg_exec(conn, "insert into workers (incarnation, node, lock_key)"
                          " values ('22222222-2222-2222-2222-222222222222', 'other', 4712)");
    support_pg_exec(conn, "select pg_advisory_lock (4712)");
    PGconn *alive = support_pg_connect(s_control.pg, "t_holder", NULL);
    support_pg_exec(alive, "set application_name ="
                           " 'docket/other/22222222222222222222222222222222'");
    support_pg_exec(alive, "select pg_advisory_lock (110429572130164)");
    dkt_mail_post_kind(env.directory_box, DKT_MAIL_REFRESH);
    for (int i = 0; i < 2; i++) {
        dkt_holder_mail_t *ask = dkt_mail_alloc(sizeof *ask);
        snprintf(ask->database, sizeof ask->database, "t_holder");
        ask->asked_mono_ms = dkt_clock_mono_ms();
        ask->held_since_mono_ms = ask->asked_mono_ms;
        ask->gained_mono_ms = ask->asked_mono_ms - 60000;
        dkt_mail_post(env.directory_box, &ask->mail, DKT_MAIL_HOLDER);
        dkt_lookup_mail_t found; /* answered behind the question */
        dkt_client_t client = dkt_client_make(&env.id_keys, (const uint8_t *)"7654321");
        s_look_up(&env, &client, &found);
        if (i == 0) {
            assert_int_equal(support_pg_int(alive, "select 1"), 1);
            support_pg_exec(alive, "set application_name ="
                                   " 'docket/gone/33333333333333333333333333333333'");
        }
    }
    PGresult *result = PQexec(alive, "select 1");
    assert_int_not_equal(PQresultStatus(result), PGRES_TUPLES_OK);
    PQclear(result);
    PQfinish(alive);
    support_pg_exec(conn, "delete from workers");
    PQfinish(conn);
    dkt_directory_destroy(&directory);
    support_env_fini(&env);
}

static void test_worker_directory_comes_back_after_losing_its_session(void **state)
{
    (void)state;
    dkt_env_t env;
    support_env_init(&env, &s_control, "node-a");
    dkt_directory_t *directory = dkt_directory_new(&env);
    dkt_incarnation_t self = env.incarnation;
    assert_true(s_wait_members(&env, &self, 1));
    PGconn *conn = support_control_connect(&s_control);
    int64_t epoch = support_pg_int(conn, "select epoch from leader");
    support_pg_exec(conn, "select pg_terminate_backend (pid) from pg_stat_activity"
                          " where application_name = 'docket/node-a/directory'");
    int64_t until_mono_ms = dkt_clock_mono_ms() + S_WAIT_MS;
    while (support_pg_int(conn, "select epoch from leader") <= epoch) {
        assert_true(dkt_clock_mono_ms() < until_mono_ms);
    }
    assert_int_equal(support_pg_int(conn, "select count(*) from workers where dead_at is null"), 1);
    PQfinish(conn);
    dkt_directory_destroy(&directory);
    support_env_fini(&env);
}

/* A leader that hangs (its session is there, its beat is not) is deposed by who sees it. */
static void test_worker_directory_deposes_a_leader_that_hangs(void **state)
{
    (void)state;
    dkt_env_t env;
    support_env_init(&env, &s_control, "node-a");
    PGconn *hung = support_control_connect(&s_control);
    support_pg_exec(hung, "insert into workers (incarnation, node, lock_key)"
                          " values ('44444444-4444-4444-4444-444444444444', 'hung', 4714);"
                          "insert into worker_beats values"
                          " ('44444444-4444-4444-4444-444444444444', 1);"
                          "update leader set epoch = epoch + 1,"
                          " incarnation = '44444444-4444-4444-4444-444444444444';"
                          "select pg_advisory_lock (4714); select pg_advisory_lock (7410, 2)");
    dkt_directory_t *directory = dkt_directory_new(&env);
    dkt_incarnation_t self = env.incarnation;
    assert_true(s_wait_members(&env, &self, 1));
    assert_true(atomic_load(&env.leader));
    PGresult *result = PQexec(hung, "select 1");
    assert_int_not_equal(PQresultStatus(result), PGRES_TUPLES_OK);
    PQclear(result);
    PQfinish(hung);
    dkt_directory_destroy(&directory);
    support_env_fini(&env);
}

/* -- hasher -- */

static dkt_hash_mail_t *s_job(dkt_hash_kind_t kind, const char *password, const char *hash)
{
    dkt_hash_mail_t *mail = dkt_mail_alloc(sizeof *mail);
    mail->job.kind = kind;
    mail->job.password_len = (uint32_t)strlen(password);
    memcpy(mail->job.password, password, strlen(password));
    snprintf(mail->job.hash, sizeof mail->job.hash, "%s", hash);
    return mail;
}

static dkt_hash_job_t s_hash(dkt_env_t *env, dkt_hash_kind_t kind, const char *password,
                             const char *hash)
{
    assert_true(dkt_hasher_submit(env, s_job(kind, password, hash)));
    dkt_hash_mail_t *mail = (dkt_hash_mail_t *)support_env_wait(env, DKT_MAIL_HASHED, S_WAIT_MS);
    assert_non_null(mail);
    dkt_hash_job_t job = mail->job;
    free(mail);
    return job;
}

static void test_worker_hasher_creates_and_verifies(void **state)
{
    (void)state;
    dkt_env_t env;
    support_env_init(&env, &s_control, "node-a");
    dkt_hasher_t *hasher = dkt_hasher_new(&env);
    dkt_hash_job_t made = s_hash(&env, DKT_HASH_CREATE, "correct horse", "");
    assert_true(made.ok);
    assert_int_equal(strncmp(made.hash, "$argon2id$v=19$m=19456,t=2,p=1$", 31), 0);
    assert_int_equal(made.password[0], 0); /* wiped */
    assert_true(s_hash(&env, DKT_HASH_VERIFY, "correct horse", made.hash).ok);
    assert_false(s_hash(&env, DKT_HASH_VERIFY, "battery staple", made.hash).ok);
    assert_false(s_hash(&env, DKT_HASH_VERIFY, "correct horse", "no hash").ok);
    dkt_hasher_destroy(&hasher);
    support_env_fini(&env);
}

static void test_worker_hasher_queue_is_bounded(void **state)
{
    (void)state;
    dkt_env_t env;
    support_env_init(&env, &s_control, "node-a");
    for (int i = 0; i < DKT_HASH_QUEUE_MAX; i++) {
        assert_true(dkt_hasher_submit(&env, s_job(DKT_HASH_VERIFY, "x", "y")));
    }
    dkt_hash_mail_t *more = s_job(DKT_HASH_VERIFY, "x", "y");
    assert_false(dkt_hasher_submit(&env, more));
    dkt_hasher_t *hasher = dkt_hasher_new(&env);
    free(support_env_wait(&env, DKT_MAIL_HASHED, S_WAIT_MS));
    assert_true(dkt_hasher_submit(&env, more));
    dkt_hasher_destroy(&hasher);
    support_env_fini(&env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worker_directory_spreads_over_those_alive),
        cmocka_unit_test(test_worker_directory_without_a_lock_is_dead),
        cmocka_unit_test(test_worker_directory_drops_what_is_old),
        cmocka_unit_test(test_worker_directory_looks_tenants_up),
        cmocka_unit_test(test_worker_directory_ends_dead_holders_only),
        cmocka_unit_test(test_worker_directory_comes_back_after_losing_its_session),
        cmocka_unit_test(test_worker_directory_deposes_a_leader_that_hangs),
        cmocka_unit_test(test_worker_hasher_creates_and_verifies),
        cmocka_unit_test(test_worker_hasher_queue_is_bounded),
    };
    return cmocka_run_group_tests(tests, s_setup, s_teardown);
}
