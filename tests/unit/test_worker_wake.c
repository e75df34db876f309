/* SPDX-License-Identifier: Apache-2.0
 *
 * The table wake as the directory's thread keeps it: marks by lookups, ends, rows of what was
 * gained, and tenants without a row. The node loop is this test.
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

#include "workers/directory.h"

#define S_WAIT_MS 10000
#define S_TENANTS 3
#define S_FAR_MS  INT64_C(9000000000000)

static support_control_t s_control;
static dkt_env_t s_env;
static dkt_directory_t *s_directory;
static PGconn *s_conn;
static dkt_client_t s_clients[S_TENANTS];

static int s_setup(void **state)
{
    (void)state;
    support_control_start(&s_control);
    support_env_init(&s_env, &s_control, "node-a");
    s_conn = support_control_connect(&s_control);
    for (int i = 0; i < S_TENANTS; i++) {
        uint8_t random[7] = {(uint8_t)i};
        dkt_id_text_t text;
        char sql[512];
        s_clients[i] = dkt_client_make(&s_env.id_keys, random);
        dkt_client_text(&s_clients[i], &text);
        snprintf(sql, sizeof sql,
                 "insert into tenants (client_id, request_id, name, email, sub_domain, resolvers,"
                 " cluster, database, state, settings) values ('%s', gen_random_uuid (), 'n',"
                 " 'e%d', 'domain-%d', 1, 'local', 't_0000000000000000000000000000000%d',"
                 " 'active', '{}')",
                 text.text, i, i, i);
        support_pg_exec(s_conn, sql);
    }
    s_directory = dkt_directory_new(&s_env);
    free(support_env_wait(&s_env, DKT_MAIL_BROKERS, S_WAIT_MS));
    return 0;
}

static int s_teardown(void **state)
{
    (void)state;
    dkt_directory_destroy(&s_directory);
    PQfinish(s_conn);
    support_env_fini(&s_env);
    support_control_stop(&s_control);
    return 0;
}

static void s_post_lookup(int client)
{
    dkt_lookup_mail_t *lookup = dkt_mail_alloc(sizeof *lookup);
    lookup->client = s_clients[client];
    dkt_mail_post(s_env.directory_box, &lookup->mail, DKT_MAIL_LOOKUP);
}

/* Waits for the answer of one lookup: what was posted before it has been written then. */
static void s_wait_found(void)
{
    dkt_lookup_mail_t *found =
        (dkt_lookup_mail_t *)support_env_wait(&s_env, DKT_MAIL_FOUND, S_WAIT_MS);
    assert_non_null(found);
    assert_int_equal(found->status, DKT_OK);
    assert_true(found->marked);
    free(found);
}

static void s_look_up(int client)
{
    s_post_lookup(client);
    s_wait_found();
}

static void s_post_settle(int client, int64_t due_ms)
{
    dkt_settle_mail_t *settle = dkt_mail_alloc(sizeof *settle);
    settle->client = s_clients[client];
    settle->due_ms = due_ms;
    dkt_mail_post(s_env.directory_box, &settle->mail, DKT_MAIL_SETTLE);
}

static int64_t s_due_ms(int client)
{
    dkt_id_text_t text;
    char sql[256];
    dkt_client_text(&s_clients[client], &text);
    snprintf(sql, sizeof sql,
             "select coalesce ((select due_ms from wake where client_id = '%s'), -1)", text.text);
    return support_pg_int(s_conn, sql);
}

static void test_worker_wake_marks_and_settles(void **state)
{
    (void)state;
    assert_int_equal(s_due_ms(0), -1);
    s_look_up(0);
    assert_int_equal(s_due_ms(0), 0);
    s_post_settle(0, 4711);
    s_look_up(2);
    assert_int_equal(s_due_ms(0), 4711);
    s_look_up(0);
    assert_int_equal(s_due_ms(0), 0);
    s_post_settle(0, 4711); /* two ends in one batch: the later one counts */
    s_post_settle(0, INT64_MAX);
    s_post_settle(2, INT64_MAX);
    s_look_up(1);
    assert_int_equal(s_due_ms(0), -1);
    assert_int_equal(s_due_ms(2), -1);
}

/* The successor has marked it already: what its predecessor writes late changes nothing. */
static void test_worker_wake_a_late_end_cannot_undo_a_mark(void **state)
{
    (void)state;
    s_look_up(0);
    support_pg_exec(s_conn, "update wake set owner = gen_random_uuid ()");
    s_post_settle(0, S_FAR_MS);
    s_look_up(2);
    assert_int_equal(s_due_ms(0), 0);
    s_look_up(0);
    s_post_settle(0, INT64_MAX);
    s_post_lookup(0); /* in one batch with the end before it: active again */
    s_post_lookup(0);
    s_wait_found();
    s_wait_found();
    assert_int_equal(s_due_ms(0), 0);
}

/* Waits for ROWS of that kind; returns the count and the first row. */
static uint32_t s_rows(bool probe, const uint8_t vshards[DKT_VSHARDS / 8], dkt_wake_row_t *first)
{
    dkt_wake_mail_t *wake = dkt_mail_alloc(sizeof *wake);
    wake->probe = probe;
    if (vshards) {
        memcpy(wake->vshards, vshards, sizeof wake->vshards);
    }
    dkt_mail_post(s_env.directory_box, &wake->mail, DKT_MAIL_WAKE);
    dkt_rows_mail_t *rows = (dkt_rows_mail_t *)support_env_wait(&s_env, DKT_MAIL_ROWS, S_WAIT_MS);
    assert_non_null(rows);
    assert_int_equal(rows->probe, probe);
    uint32_t count = rows->count;
    if (count > 0) {
        *first = rows->rows[0];
    }
    free(rows);
    return count;
}

static void test_worker_wake_reads_what_was_gained_and_who_is_unmarked(void **state)
{
    (void)state;
    dkt_wake_row_t row;
    uint8_t vshards[DKT_VSHARDS / 8] = {0};
    support_pg_exec(s_conn, "delete from wake");
    s_look_up(0);
    s_look_up(1);
    s_post_settle(1, S_FAR_MS);
    uint16_t vshard = dkt_client_vshard(&s_clients[1]);
    vshards[vshard / 8] = (uint8_t)(1u << vshard % 8);
    assert_int_equal(s_rows(false, vshards, &row), 1);
    assert_true(dkt_client_equal(&row.client, &s_clients[1]));
    assert_true(row.due_ms == S_FAR_MS);
    memset(vshards, 0xff, sizeof vshards);
    assert_int_equal(s_rows(false, vshards, &row), 2);
    assert_true(dkt_client_equal(&row.client, &s_clients[0])); /* zeros first */
    assert_int_equal(row.due_ms, 0);
    /* One has no row, one a row that is far away. */
    assert_int_equal(s_rows(true, NULL, &row), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worker_wake_marks_and_settles),
        cmocka_unit_test(test_worker_wake_a_late_end_cannot_undo_a_mark),
        cmocka_unit_test(test_worker_wake_reads_what_was_gained_and_who_is_unmarked),
    };
    return cmocka_run_group_tests(tests, s_setup, s_teardown);
}
