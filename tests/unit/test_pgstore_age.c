/* SPDX-License-Identifier: Apache-2.0
 *
 * What is old goes from a real PostgreSQL, step by step: what a step takes, what it must leave, and
 * how long one takes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_pgstore.h"

#define S_DAY_MS        INT64_C(86400000)
#define S_MANY          20000
#define S_BYTES         256
#define S_LONG_AGO_DAYS 9000 /* before ST_BASE_MS: in the past of every clock */

/* Tickets 1 .. n, the first of them made `days` before ST_BASE_MS, one a second, and as many
 * journal rows: resolved, if their number is not told otherwise. */
static void s_make(int n, int days)
{
    char sql[1024];
    snprintf(sql, sizeof sql,
             "insert into tickets (id, request_id, slot_start, lane, deadline, created_at, "
             "dispatched_at, resolved_at, state, breached, at_risk, class, subject, payload) "
             "select i, gen_random_uuid(), date_bin('1 minute', made + interval '1 minute', "
             "'epoch'), i %% 60, made + interval '120 minutes', made, made, made, 2, false, false, "
             "'gold', 'a subject', decode(repeat('00ff', 50), 'hex') from "
             "(select i, timestamptz '2046-01-19 18:40:00Z' - interval '%d days' + "
             "i * interval '1 s' as made from generate_series(1, %d) i) s",
             days, n);
    support_pg_exec(st_admin, sql);
    snprintf(sql, sizeof sql,
             "insert into journal select i, 1, timestamptz '2046-01-19 18:40:00Z' - "
             "interval '%d days' + i * interval '1 s', decode(repeat('00ff', 50), 'hex') "
             "from generate_series(1, %d) i",
             days, n);
    support_pg_exec(st_admin, sql);
}

static dkt_batch_t s_step(dkt_age_kind_t kind, int64_t before_ms)
{
    return (dkt_batch_t){
        .kind = DKT_BATCH_AGE,
        .epoch = st_one.epoch,
        .age = {.kind = kind,
                .before_ms = before_ms,
                .unpublished_before_ms = before_ms - 30 * S_DAY_MS,
                .limit = kind == DKT_AGE_REQUEST_IDS ? DKT_AGE_STEP_IDS : DKT_AGE_STEP_ROWS,
                .keep = 1}};
}

/* All steps of one kind; returns how many rows went. */
static uint64_t s_drop(dkt_age_kind_t kind, int64_t before_ms)
{
    static const char *const names[] = {"request ids", "tickets", "journal rows", "the rest"};
    dkt_batch_t batch = s_step(kind, before_ms);
    uint64_t dropped = 0;
    double begin_us = st_backend_us();
    int steps = 0;
    for (;;) {
        const dkt_store_result_t *result = &st_run(&st_one, &batch)->result;
        assert_int_equal(result->outcome, DKT_STORE_OK);
        assert_true(result->db_ms > 0);
        dropped += result->aged_count;
        steps++;
        if (!result->aged_more) {
            break;
        }
        assert_true(kind == DKT_AGE_REST || result->aged_to > batch.age.after);
        batch.age.after = result->aged_to;
    }
    if (steps > 10) {
        printf("%llu %s in %d steps: %.2f ms of the server's processor a step\n",
               (unsigned long long)dropped, names[kind], steps,
               (st_backend_us() - begin_us) / 1e3 / steps);
    }
    return dropped;
}

static void test_pgstore_age_drops_request_ids_by_time_alone(void **state)
{
    (void)state;
    st_own(&st_one);
    s_make(1000, 3);
    support_pg_exec(st_admin, "update tickets set state = 1, resolved_at = null where id = 7;"
                              "update tickets set request_id = null where id <= 5");
    int64_t before_ms = ST_BASE_MS - 3 * S_DAY_MS + 600500;
    assert_int_equal(s_drop(DKT_AGE_REQUEST_IDS, before_ms), 595);
    assert_int_equal(st_int("select count(*) from tickets where request_id is null"), 600);
    assert_int_equal(st_int("select min(id) from tickets where request_id is not null"), 601);
    assert_int_equal(s_drop(DKT_AGE_REQUEST_IDS, before_ms), 0);
    assert_int_equal(s_drop(DKT_AGE_REQUEST_IDS, before_ms + 200000), 200);
    /* gaps in the numbers do not hide what is left behind them */
    support_pg_exec(st_admin, "delete from tickets where id between 400 and 890");
    assert_int_equal(s_drop(DKT_AGE_REQUEST_IDS, ST_BASE_MS), 110);
    assert_int_equal(st_int("select count(*) from tickets where request_id is not null"), 0);
    support_pg_exec(st_admin, "truncate tickets");
    assert_int_equal(s_drop(DKT_AGE_REQUEST_IDS, ST_BASE_MS), 0);
}

static void test_pgstore_age_drops_tickets_that_are_over(void **state)
{
    (void)state;
    st_own(&st_one);
    s_make(1000, 10);
    support_pg_exec(st_admin,
                    "update settings set retention_days = 3;"
                    "update tickets set state = 0, resolved_at = null, dispatched_at = null "
                    "where id in (1, 300);"
                    "update tickets set state = 1, resolved_at = null where id in (2, 301);"
                    "update tickets set state = 1, resolved_at = null, breached = true "
                    "where id in (3, 302);"
                    "update tickets set state = 3, lane = null, resolved_at = null, "
                    "dispatched_at = null, cancelled_at = created_at where id in (4, 303)");
    assert_int_equal(s_drop(DKT_AGE_TICKETS, ST_BASE_MS - 8 * S_DAY_MS), 0);
    int64_t before_ms = ST_BASE_MS - 7 * S_DAY_MS + 600500;
    assert_int_equal(s_drop(DKT_AGE_TICKETS, before_ms), 596);
    char left[S_BYTES];
    support_pg_text(st_admin,
                    "select string_agg(id::text, ' ' order by id) from tickets where id < 603",
                    left, sizeof left);
    assert_string_equal(left, "1 2 300 301 601 602");
    /* what is in the way does not end a round, and the newest stays whatever its age */
    assert_int_equal(s_drop(DKT_AGE_TICKETS, ST_BASE_MS), 399);
    support_pg_text(st_admin, "select string_agg(id::text, ' ' order by id) from tickets", left,
                    sizeof left);
    assert_string_equal(left, "1 2 300 301 1000");
    support_pg_exec(st_admin, "update settings set retention_days = 400");
}

static void test_pgstore_age_drops_journal_rows_that_were_published(void **state)
{
    (void)state;
    st_own(&st_one);
    s_make(1000, 40);
    support_pg_exec(st_admin, "update relay set acked_seq = 600");
    int64_t base_ms = ST_BASE_MS - 40 * S_DAY_MS;
    assert_int_equal(s_drop(DKT_AGE_JOURNAL, base_ms + 300500), 300);
    assert_int_equal(s_drop(DKT_AGE_JOURNAL, base_ms + 5 * S_DAY_MS), 300);
    assert_int_equal(st_int("select min(seq) from journal"), 601);
    /* not published for so long that they are given up */
    dkt_batch_t batch = s_step(DKT_AGE_JOURNAL, base_ms + 30 * S_DAY_MS + 700500);
    const dkt_store_result_t *result = &st_run(&st_one, &batch)->result;
    assert_int_equal(result->aged_count, 100);
    assert_int_equal(result->aged_unpublished_count, 100);
    support_pg_exec(st_admin, "update relay set acked_seq = 1000");
    assert_int_equal(s_drop(DKT_AGE_JOURNAL, ST_BASE_MS), 299);
    assert_int_equal(st_int("select seq from journal"), 1000);
    support_pg_exec(st_admin, "update relay set acked_seq = 0");
}

static void test_pgstore_age_drops_dead_tokens_and_an_old_handoff(void **state)
{
    (void)state;
    st_own(&st_one);
    support_pg_exec(st_admin, "insert into revoked_tokens select decode(md5(i::text), 'hex'), "
                              "timestamptz '2046-01-19 18:40:00Z' + (i - 600) * interval '1 s' "
                              "from generate_series(1, 1000) i;"
                              "insert into handoff (epoch, body) values (0, 'x')");
    assert_int_equal(s_drop(DKT_AGE_REST, ST_BASE_MS), 600);
    assert_int_equal(st_int("select count(*) from revoked_tokens"),
                     401); /* one to the millisecond */
    assert_int_equal(st_int("select count(*) from handoff"), 0);
    support_pg_exec(st_admin, "insert into handoff (epoch, body) values (1, 'x')");
    assert_int_equal(s_drop(DKT_AGE_REST, ST_BASE_MS), 0); /* our own, for the successor */
}

/* The open tickets that the next owner would load, and a list of them shows, are these. */
static void s_expect_open(uint32_t count, const uint64_t *numbers)
{
    const dkt_batch_t batches[] = {
        {.kind = DKT_BATCH_LOAD},
        {.kind = DKT_BATCH_READ, .read = {.list_limit = 10, .list_state = DKT_TICKET_OPEN}}};
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
        const st_seen_t *seen = st_run(&st_one, &batches[i]);
        assert_int_equal(seen->result.outcome, DKT_STORE_OK);
        assert_int_equal(seen->result.ticket_count, count);
        for (uint32_t k = 0; k < count; k++) {
            assert_int_equal(seen->tickets[k].number, numbers[k]);
            assert_int_equal(seen->tickets[k].state, DKT_TICKET_OPEN);
        }
    }
}

static void s_expect_served(const char *until)
{
    char text[S_BYTES];
    support_pg_text(st_admin,
                    "select to_char(until at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') from served",
                    text, sizeof text);
    assert_string_equal(text, until);
}

#define S_OPEN "update tickets set state = 0, dispatched_at = null, resolved_at = null where id "

/* The loads look only at what stands behind `served`; that moves over all but open tickets. */
static void test_pgstore_age_keeps_open_tickets_in_sight(void **state)
{
    (void)state;
    st_own(&st_one);
    s_make(S_MANY, 3); /* from 18:40 to 00:13 */
    support_pg_exec(st_admin, S_OPEN "in (12000, 19990)");
    assert_int_equal(s_drop(DKT_AGE_REST, ST_BASE_MS), 0);
    s_expect_served("2046-01-16 22:01:00"); /* where 12000 stands, however often it is asked */
    assert_int_equal(s_drop(DKT_AGE_REST, ST_BASE_MS), 0);
    s_expect_served("2046-01-16 22:01:00");
    s_expect_open(2, (const uint64_t[]){12000, 19990});
    support_pg_exec(st_admin, "update tickets set state = 3, cancelled_at = now(), lane = null "
                              "where id = 12000");
    assert_int_equal(s_drop(DKT_AGE_REST, ST_BASE_MS), 0);
    s_expect_served("2046-01-16 23:13:20"); /* an hour before the newest journal row */
    s_expect_open(1, (const uint64_t[]){19990});
    /* nothing is known of the time without a journal row, and it never goes back */
    support_pg_exec(st_admin, "delete from journal");
    assert_int_equal(s_drop(DKT_AGE_REST, ST_BASE_MS), 0);
    s_expect_served("2046-01-16 23:13:20");
}

static void test_pgstore_age_is_the_owners(void **state)
{
    (void)state;
    st_own(&st_one);
    s_make(10, 40);
    dkt_batch_t batch = s_step(DKT_AGE_JOURNAL, ST_BASE_MS);
    batch.epoch++;
    st_run(&st_one, &batch);
    st_failed(&st_one, DKT_STORE_REFUSED, "DK001");
    assert_int_equal(st_int("select count(*) from journal"), 10);
}

/* What the next owner's activation costs the server, before any vacuum. */
static void s_activate(const char *when)
{
    const dkt_batch_t load = {.kind = DKT_BATCH_LOAD};
    double begin_us = st_backend_us();
    assert_true(st_take(&st_one, 1, 1).taken);
    assert_int_equal(st_run(&st_one, &load)->result.outcome, DKT_STORE_OK);
    printf("take and load %s: %.2f ms of the server's processor\n", when,
           (st_backend_us() - begin_us) / 1e3);
}

/* A figure, and that it all goes. */
static void test_pgstore_age_of_many(void **state)
{
    (void)state;
    st_own(&st_one);
    s_make(S_MANY, S_LONG_AGO_DAYS);
    support_pg_exec(st_admin, "update relay set acked_seq = 1000000; analyze");
    s_activate("the first time"); /* with its plans */
    s_activate("with all of them");
    assert_int_equal(s_drop(DKT_AGE_REQUEST_IDS, ST_BASE_MS), S_MANY);
    assert_int_equal(s_drop(DKT_AGE_TICKETS, ST_BASE_MS), S_MANY - 1);
    assert_int_equal(s_drop(DKT_AGE_JOURNAL, ST_BASE_MS), S_MANY - 1);
    support_pg_exec(st_admin, "update tickets set state = 3, lane = null, resolved_at = null, "
                              "dispatched_at = null, cancelled_at = created_at");
    s_activate("without them, the last one cancelled");
    support_pg_exec(st_admin, "update relay set acked_seq = 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_pgstore_age_drops_request_ids_by_time_alone, st_clean),
        cmocka_unit_test_teardown(test_pgstore_age_drops_tickets_that_are_over, st_clean),
        cmocka_unit_test_teardown(test_pgstore_age_drops_journal_rows_that_were_published,
                                  st_clean),
        cmocka_unit_test_teardown(test_pgstore_age_drops_dead_tokens_and_an_old_handoff, st_clean),
        cmocka_unit_test_teardown(test_pgstore_age_keeps_open_tickets_in_sight, st_clean),
        cmocka_unit_test_teardown(test_pgstore_age_is_the_owners, st_clean),
        cmocka_unit_test_teardown(test_pgstore_age_of_many, st_clean),
    };
    return cmocka_run_group_tests(tests, st_start, st_stop);
}
