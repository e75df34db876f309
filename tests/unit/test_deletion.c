/* SPDX-License-Identifier: Apache-2.0
 *
 * The deletion of a tenant on a real PostgreSQL, step by step, with what may happen between any two
 * of them; and the way of a tenant's changes into the audit log.
 */
#include "workers/deletion.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <poll.h>
#include <sodium.h>

#include "lib/core/receipt.h"
#include "lib/edge/keys.h"
#include "support_control.h"
#include "workers/accounts_internal.h"
#include "workers/pool.h"
#include "workers/saga.h"

#define S_LOOKS_MAX 200
#define S_LOOK_MS   20

static support_control_t s_control;
static dkt_env_t s_env;
static PGconn *s_conn;
/* The tenant of a test. */
static dkt_saga_request_t s_request;
static dkt_saga_account_t s_account;
static char s_database[64];

static int s_setup(void **state)
{
    (void)state;
    support_control_start(&s_control);
    support_env_init(&s_env, &s_control, "test");
    s_conn = support_control_connect(&s_control);
    return 0;
}

static int s_teardown(void **state)
{
    (void)state;
    PQfinish(s_conn);
    support_env_fini(&s_env);
    support_control_stop(&s_control);
    return 0;
}

/* One tenant, and nobody else. */
static int s_make_tenant(void **state)
{
    (void)state;
    dkt_err_t err;
    bool made = false;
    static const char name[] = "Acme", email[] = "acme@example.com";
    support_pg_exec(s_conn, "delete from tenants");
    assert_int_equal(dkt_pool_fill_one(s_conn, &s_env, 1, &made, &err), DKT_OK);
    s_request =
        (dkt_saga_request_t){.name = {.data = (const uint8_t *)name, .len = sizeof name - 1},
                             .email = {.data = (const uint8_t *)email, .len = sizeof email - 1},
                             .resolvers = 5,
                             .password = "$argon2id$v=19$test"};
    randombytes_buf(&s_request.request_id, sizeof s_request.request_id);
    assert_int_equal(dkt_saga_create(s_conn, &s_env, &s_request, &s_account, &err), DKT_OK);
    support_pg_text(s_conn, "select database from tenants", s_database, sizeof s_database);
    return 0;
}

static PGconn *s_tenant(void)
{
    return support_pg_connect(s_control.pg, s_database, NULL);
}

static void s_add_ticket(void)
{
    PGconn *conn = s_tenant();
    support_pg_exec(conn, "insert into tickets (id, slot_start, deadline, created_at, lane, state,"
                          " breached, at_risk, class) select 1, m, m + interval '2 h', m, 0, 0,"
                          " false, false, 'gold' from date_bin ('1 minute', now (), 'epoch') m");
    PQfinish(conn);
}

static void s_ask(bool open_allowed, bool export_wanted)
{
    char sql[512];
    snprintf(sql, sizeof sql,
             "update tenants set state = 'deleting'; insert into deletions (client_id, phase,"
             " actor, open_allowed, export_wanted) select client_id, 'draining', 'operator:me',"
             " %s, %s from tenants",
             open_allowed ? "true" : "false", export_wanted ? "true" : "false");
    support_pg_exec(s_conn, sql);
}

/* One look; returns how many deletions moved. */
static uint32_t s_look(void)
{
    dkt_err_t err;
    uint32_t moved = 0;
    assert_int_equal(dkt_deletion_work(s_conn, &s_env, &moved, &err), DKT_OK);
    return moved;
}

static bool s_phase_is(const char *phase)
{
    char now[32];
    support_pg_text(s_conn, "select phase from deletions", now, sizeof now);
    return strcmp(now, phase) == 0;
}

static int64_t s_databases(void)
{
    char sql[256];
    snprintf(sql, sizeof sql,
             "select (select count (*) from pg_database where datname = '%s')"
             " + (select count (*) from pg_roles where rolname = '%s')",
             s_database, s_database);
    return support_pg_int(s_conn, sql);
}

static void s_check_buried(void)
{
    dkt_err_t err;
    uint8_t secret[DKT_RECEIPT_SECRET_BYTES];
    char receipt[4096];
    assert_int_equal(s_databases(), 0);
    assert_int_equal(support_pg_int(s_conn, "select count (*) from tenants"), 0);
    assert_int_equal(support_pg_int(s_conn, "select count (*) from deletions"), 0);
    char sql[256];
    snprintf(sql, sizeof sql, "select receipt from tombstones where client_id = '%s'",
             s_account.client_id.text);
    support_pg_text(s_conn, sql, receipt, sizeof receipt);
    assert_int_equal(dkt_keys_receipt(s_control.keys, secret, &err), DKT_OK);
    json_t *good =
        dkt_receipt_verify(receipt, strlen(receipt), secret + crypto_sign_SEEDBYTES, &err);
    assert_non_null(good);
    json_decref(good);
    assert_int_equal(support_pg_int(s_conn, "select coalesce (audit_broken (), 0)"), 0);
}
/* How many rows of `owner` a worker with that table version could take over. */
static int64_t s_takeovers(PGconn *tenant, const char *version)
{
    char sql[160];
    snprintf(sql, sizeof sql,
             "select count (*) from owner where (table_epoch, table_version) <= (%s)", version);
    return support_pg_int(tenant, sql);
}

static void test_deletion_goes_from_draining_to_a_tombstone(void **state)
{
    (void)state;
    dkt_err_t err;
    s_ask(false, false);
    assert_int_equal(s_look(), 1);
    assert_true(s_phase_is("fenced"));
    assert_int_equal(s_look(), 1);
    s_check_buried();
    assert_int_equal(s_look(), 0);
    assert_int_equal(dkt_saga_create(s_conn, &s_env, &s_request, &s_account, &err), DKT_CONFLICT);
    assert_string_equal(err.field, "request_id");
}

static void test_deletion_is_refused_for_open_promises(void **state)
{
    (void)state;
    s_add_ticket();
    s_ask(false, false);
    assert_int_equal(s_look(), 1);
    assert_true(s_phase_is("refused"));
    assert_int_equal(support_pg_int(s_conn, "select count (*) from tenants where state = 'active'"),
                     1);
    assert_int_equal(support_pg_int(s_conn, "select (counts ->> 'open_tickets')::int"
                                            " from deletions"),
                     1);
    assert_int_equal(s_look(), 0);
    /* It is served again: nothing was fenced. */
    PGconn *tenant = s_tenant();
    assert_int_equal(s_takeovers(tenant, "1, 1"), 1);
    PQfinish(tenant);
}

static void test_deletion_breaks_promises_only_when_told(void **state)
{
    (void)state;
    s_add_ticket();
    s_ask(true, false);
    assert_int_equal(s_look() + s_look(), 2);
    s_check_buried();
}

static void test_deletion_fence_keeps_every_owner_out(void **state)
{
    (void)state;
    s_ask(false, true);
    assert_int_equal(s_look(), 1);
    PGconn *tenant = s_tenant();
    assert_int_equal(s_takeovers(tenant, "9223372036854775806, 9223372036854775807"), 0);
    PQfinish(tenant);
    assert_int_equal(s_look(), 0); /* waits for the export */
    assert_int_equal(s_databases(), 2);
    support_pg_exec(s_conn, "update deletions set manifest = repeat ('ab', 32)");
    assert_int_equal(s_look(), 1);
    s_check_buried();
}

/* What was dropped before a crash is dropped; the rest follows. */
static void test_deletion_goes_on_after_a_crash_behind_the_drop(void **state)
{
    (void)state;
    char sql[128];
    s_ask(false, false);
    assert_int_equal(s_look(), 1);
    snprintf(sql, sizeof sql, "drop database \"%s\" with (force)", s_database);
    support_pg_exec(s_conn, sql);
    assert_int_equal(s_look(), 1);
    s_check_buried();
}

/* The server keeps a database whose DROP was interrupted, and lets nobody in. */
static void test_deletion_goes_on_after_a_crash_in_the_drop(void **state)
{
    (void)state;
    char sql[128];
    s_ask(false, false);
    assert_int_equal(s_look(), 1);
    snprintf(sql, sizeof sql, "update pg_database set datconnlimit = -2 where datname = '%s'",
             s_database);
    support_pg_exec(s_conn, sql);
    assert_int_equal(s_look(), 1);
    s_check_buried();
}

/* A session that holds the owner's lock under the name of this incarnation. */
static PGconn *s_hold(const char *incarnation)
{
    char sql[256];
    PGconn *conn = s_tenant();
    snprintf(sql, sizeof sql, "set application_name = 'docket/n/%s'; select docket_lock ()",
             incarnation);
    support_pg_exec(conn, sql);
    return conn;
}

static void test_deletion_waits_for_a_live_owner_and_ends_a_dead_one(void **state)
{
    (void)state;
    PGconn *holder = s_hold("0123456789abcdef0123456789abcdef");
    support_pg_exec(s_conn, "insert into workers (incarnation, node, lock_key) values"
                            " ('01234567-89ab-cdef-0123-456789abcdef', 'n', 1)");
    s_ask(false, false);
    assert_int_equal(s_look(), 0);
    assert_true(s_phase_is("draining"));
    support_pg_exec(s_conn, "update workers set dead_at = now ()");
    assert_int_equal(s_look(), 1);
    assert_true(s_phase_is("fenced"));
    assert_int_equal(s_look(), 1);
    s_check_buried();
    PQfinish(holder);
    support_pg_exec(s_conn, "delete from workers");
}

static void test_deletion_gives_a_hung_owner_its_time(void **state)
{
    (void)state;
    PGconn *holder = s_hold("0123456789abcdef0123456789abcdef");
    support_pg_exec(s_conn, "insert into workers (incarnation, node, lock_key) values"
                            " ('01234567-89ab-cdef-0123-456789abcdef', 'n', 1)");
    s_ask(false, false);
    int looks = 0;
    while (s_look() == 0 && looks++ < S_LOOKS_MAX) {
        (void)poll(NULL, 0, S_LOOK_MS);
    }
    assert_true(looks < S_LOOKS_MAX);
    assert_int_equal(support_pg_int(s_conn, "select (clock_timestamp () - asked_at"
                                            " >= interval '2 s')::int from deletions"),
                     1);
    PQfinish(holder);
    support_pg_exec(s_conn, "delete from workers");
}

/* An operator's session is nobody's to end. */
static void test_deletion_waits_for_a_stranger(void **state)
{
    (void)state;
    PGconn *holder = s_tenant();
    support_pg_exec(holder, "set application_name = 'psql'; select docket_lock ()");
    s_ask(false, false);
    support_pg_exec(s_conn, "update deletions set asked_at = now () - interval '1 hour'");
    assert_int_equal(s_look(), 0);
    PQfinish(holder);
    int looks = 0; /* the server notices the end of a session a moment later */
    while (s_look() == 0 && looks++ < S_LOOKS_MAX) {
        (void)poll(NULL, 0, S_LOOK_MS);
    }
    assert_true(s_phase_is("fenced"));
}

/* -- changes -- */

static int64_t s_audited(const char *action)
{
    char sql[256];
    snprintf(sql, sizeof sql,
             "select count (*) from audit where action = '%s' and client_id = '%s'", action,
             s_account.client_id.text);
    return support_pg_int(s_conn, sql);
}

static dkt_status_t s_carry(void)
{
    dkt_err_t err;
    dkt_client_t client;
    assert_true(dkt_client_parse(s_account.client_id.text,
                                 (uint32_t)strlen(s_account.client_id.text), &client));
    return dkt_accounts_carry(s_conn, s_env.uri, &client, &err);
}

static void test_changes_are_carried_each_once_and_in_order(void **state)
{
    (void)state;
    PGconn *tenant = s_tenant();
    for (int i = 0; i < 150; i++) { /* more than one read's worth */
        support_pg_exec(tenant, "select docket_settings (7::smallint, true, '{gold}', '{120}',"
                                " '{500}')");
    }
    support_pg_exec(tenant, "select docket_change ('change_password', '{}');"
                            " select docket_settings (9::smallint, true, '{gold}', '{120}',"
                            " '{1000}')");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(s_carry(), DKT_OK);
        assert_int_equal(s_audited("set_tenant"), 151);
        assert_int_equal(s_audited("change_password"), 1);
    }
    char settings[256];
    support_pg_text(s_conn, "select settings from tenants", settings, sizeof settings);
    assert_string_equal(settings, "{\"limits\": {}, \"classes\": {\"gold\": 120},"
                                  " \"rebooking\": true, \"resolvers\": 9}");
    PQfinish(tenant);
}

static void test_changes_that_were_late_are_audited_before_the_end(void **state)
{
    (void)state;
    PGconn *tenant = s_tenant();
    support_pg_exec(tenant, "select docket_change ('change_password', '{}')");
    PQfinish(tenant);
    s_ask(false, false);
    assert_int_equal(s_look() + s_look(), 2);
    s_check_buried();
    assert_int_equal(s_audited("change_password"), 1);
    assert_int_equal(s_carry(), DKT_NOT_FOUND);
}

static void test_changes_are_kept_for_a_thousand(void **state)
{
    (void)state;
    PGconn *tenant = s_tenant();
    support_pg_exec(tenant, "select docket_change ('change_password', '{}')"
                            " from generate_series (1, 1100)");
    assert_int_equal(support_pg_int(tenant, "select count (*) from changes"), 1000);
    assert_int_equal(support_pg_int(tenant, "select max (seq) from changes"), 1100);
    PQfinish(tenant);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_deletion_goes_from_draining_to_a_tombstone, s_make_tenant),
        cmocka_unit_test_setup(test_deletion_is_refused_for_open_promises, s_make_tenant),
        cmocka_unit_test_setup(test_deletion_breaks_promises_only_when_told, s_make_tenant),
        cmocka_unit_test_setup(test_deletion_fence_keeps_every_owner_out, s_make_tenant),
        cmocka_unit_test_setup(test_deletion_goes_on_after_a_crash_behind_the_drop, s_make_tenant),
        cmocka_unit_test_setup(test_deletion_goes_on_after_a_crash_in_the_drop, s_make_tenant),
        cmocka_unit_test_setup(test_deletion_waits_for_a_live_owner_and_ends_a_dead_one,
                               s_make_tenant),
        cmocka_unit_test_setup(test_deletion_gives_a_hung_owner_its_time, s_make_tenant),
        cmocka_unit_test_setup(test_deletion_waits_for_a_stranger, s_make_tenant),
        cmocka_unit_test_setup(test_changes_are_carried_each_once_and_in_order, s_make_tenant),
        cmocka_unit_test_setup(test_changes_that_were_late_are_audited_before_the_end,
                               s_make_tenant),
        cmocka_unit_test_setup(test_changes_are_kept_for_a_thousand, s_make_tenant),
    };
    return cmocka_run_group_tests(tests, s_setup, s_teardown);
}
