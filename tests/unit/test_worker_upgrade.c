/* SPDX-License-Identifier: Apache-2.0
 *
 * A directory and the schemas: with a control database of the version before, with one that is too
 * new, and as the messenger between the table upgrades and the owners.
 */
#include "support_control.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/edge/clock.h"
#include "lib/edge/control.h"
#include "workers/directory.h"

#define S_WAIT_MS   10000
#define S_REFUSE_MS 700 /* several tries */
#define S_LOOK_MS   20

static support_control_t s_control;
static PGconn *s_conn;
static dkt_env_t s_env;
static dkt_directory_t *s_directory;

static int s_setup(void **state)
{
    (void)state;
    support_control_start(&s_control);
    s_conn = support_control_connect(&s_control);
    return 0;
}

static int s_teardown(void **state)
{
    (void)state;
    PQfinish(s_conn);
    support_control_stop(&s_control);
    return 0;
}

static int s_begin(void **state)
{
    (void)state;
    support_env_init(&s_env, &s_control, "node-a");
    return 0;
}

static int s_end(void **state)
{
    (void)state;
    dkt_directory_destroy(&s_directory);
    support_env_fini(&s_env);
    return 0;
}

static bool s_becomes_within(const char *sql, int64_t wanted, int wait_ms)
{
    int64_t until_mono_ms = dkt_clock_mono_ms() + wait_ms;
    while (support_pg_int(s_conn, sql) != wanted) {
        if (dkt_clock_mono_ms() >= until_mono_ms) {
            return false;
        }
        free(support_env_wait(&s_env, DKT_MAIL_STOP, S_LOOK_MS));
    }
    return true;
}

static bool s_becomes(const char *sql, int64_t wanted)
{
    return s_becomes_within(sql, wanted, S_WAIT_MS);
}

static bool s_registers(int wait_ms)
{
    return s_becomes_within("select count (*) from workers", 1, wait_ms);
}

static void test_worker_upgrade_control_database_of_the_version_before(void **state)
{
    (void)state;
    dkt_err_t err;
    support_pg_exec(s_conn, "drop table upgrades, schema_floor;"
                            "alter table workers drop column reads, drop column control_reads;"
                            "delete from schema_version where version > 1");
    s_directory = dkt_directory_new(&s_env);
    assert_true(s_registers(S_WAIT_MS));
    /* It is upgraded under a session that lives. */
    assert_int_equal(dkt_control_upgrade(s_control.uri, false, &err), DKT_OK);
    assert_true(s_becomes("select max (reads) from workers", DKT_SCHEMA_TENANT_READS));
    assert_true(s_becomes("select max (control_reads) from workers", DKT_SCHEMA_CONTROL_READS));
}

static void test_worker_upgrade_code_that_is_too_old_stays_out(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"update schema_floor set reads = 99", "update schema_floor set reads = 1"},
        {"update schema_version set min_reader = 99 where version = 1",
         "update schema_version set min_reader = 1 where version = 1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        support_pg_exec(s_conn, rows[i][0]);
        s_directory = dkt_directory_new(&s_env);
        assert_false(s_registers(S_REFUSE_MS));
        support_pg_exec(s_conn, rows[i][1]);
        assert_true(s_registers(S_WAIT_MS));
        dkt_directory_destroy(&s_directory);
    }
}

/* A tenant that exists only here. */
static dkt_client_t s_tenant(void)
{
    const uint8_t random[7] = {1, 2, 3, 4, 5, 6, 7};
    dkt_client_t client = dkt_client_make(&s_env.id_keys, random);
    dkt_id_text_t text;
    char sql[512];
    dkt_client_text(&client, &text);
    snprintf(sql, sizeof sql,
             "insert into tenants (client_id, request_id, name, email, sub_domain, resolvers,"
             " cluster, database, state, settings) values ('%s', gen_random_uuid (), 'x', 'x@x',"
             " 'some-x', 1, 'local', 't_%032d', 'active', '{}')",
             text.text, 0);
    support_pg_exec(s_conn, sql);
    support_pg_exec(s_conn, "insert into upgrades (client_id, version, target, state)"
                            " select client_id, 1, 2, 'asked' from tenants");
    return client;
}

static void s_tell(const dkt_client_t *client, int32_t version, bool broke, bool failed,
                   const char *text)
{
    dkt_migrated_mail_t *mail = dkt_mail_alloc(sizeof *mail);
    mail->client = *client;
    mail->target = 2;
    mail->version = version;
    mail->broke = broke;
    mail->failed = failed;
    snprintf(mail->text, sizeof mail->text, "%s", text);
    dkt_mail_post(s_env.directory_box, &mail->mail, DKT_MAIL_MIGRATED);
}

static void test_worker_upgrade_asks_until_it_is_told(void **state)
{
    (void)state;
    dkt_client_t client = s_tenant();
    s_directory = dkt_directory_new(&s_env);
    for (int i = 0; i < 2; i++) { /* as long as nobody answers */
        dkt_upgrades_mail_t *mail =
            (dkt_upgrades_mail_t *)support_env_wait(&s_env, DKT_MAIL_UPGRADES, S_WAIT_MS);
        assert_non_null(mail);
        assert_int_equal(mail->count, 1);
        assert_true(dkt_client_equal(&mail->rows[0].client, &client));
        assert_int_equal(mail->rows[0].target, 2);
        free(mail);
    }
    /* later: its reason is there, and it stays asked */
    s_tell(&client, 1, false, false, "a lock");
    assert_true(s_becomes("select count (*) from upgrades where error = 'a lock'"
                          " and state = 'asked' and version = 1",
                          1));
    /* owners that end while they run it: a few are chance */
    for (int i = 0; i < DKT_UPGRADE_BREAKS; i++) {
        assert_int_equal(support_pg_int(s_conn, "select count (*) from upgrades"
                                                " where state = 'failed'"),
                         0);
        s_tell(&client, 0, true, false, "it broke");
        assert_true(s_becomes("select broken from upgrades", i + 1));
    }
    assert_true(s_becomes("select count (*) from upgrades where state = 'failed'", 1));
    /* refused, then done; what comes later is about something else */
    support_pg_exec(s_conn, "update upgrades set state = 'asked', broken = 0");
    s_tell(&client, 1, false, true, "no such table");
    assert_true(s_becomes("select count (*) from upgrades where state = 'failed'"
                          " and error = 'no such table'",
                          1));
    support_pg_exec(s_conn, "update upgrades set state = 'asked'");
    s_tell(&client, 2, false, false, "");
    assert_true(s_becomes("select count (*) from upgrades where state = 'done'"
                          " and version = 2 and error is null",
                          1));
    s_tell(&client, 1, false, true, "late");
    assert_true(s_becomes("select count (*) from upgrades where state = 'done'", 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_worker_upgrade_control_database_of_the_version_before,
                                        s_begin, s_end),
        cmocka_unit_test_setup_teardown(test_worker_upgrade_code_that_is_too_old_stays_out, s_begin,
                                        s_end),
        cmocka_unit_test_setup_teardown(test_worker_upgrade_asks_until_it_is_told, s_begin, s_end),
    };
    return cmocka_run_group_tests(tests, s_setup, s_teardown);
}
