/* SPDX-License-Identifier: Apache-2.0
 *
 * The libpq store against a real PostgreSQL: every way to fail, and what each says.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_pgstore.h"

static void test_pgstore_guard_refuses_a_stale_epoch(void **state)
{
    (void)state;
    st_own(&st_one);
    dkt_batch_t guard = {.kind = DKT_BATCH_GUARD, .epoch = st_one.epoch};
    assert_int_equal(st_run(&st_one, &guard)->result.outcome, DKT_STORE_OK);
    assert_true(st_one.seen[0].result.db_ms > INT64_C(1600000000000));
    support_pg_exec(st_admin, "update owner set epoch = epoch + 1");
    dkt_ticket_row_t row = st_ticket(1, 1, 0);
    dkt_batch_t batch = st_commit(&st_one);
    batch.commit.insert_count = 1;
    batch.commit.inserts = &row;
    st_run(&st_one, &batch);
    st_failed(&st_one, DKT_STORE_REFUSED, "DK001");
    assert_int_equal(st_int("select count(*) from tickets"), 0);
}

static void test_pgstore_guard_refuses_a_group_that_is_late(void **state)
{
    (void)state;
    st_own(&st_one);
    dkt_ticket_row_t row = st_ticket(1, 1, 0);
    dkt_batch_t batch = st_commit(&st_one);
    batch.commit.not_after_ms = st_int("select docket_ms(now())") + 60000;
    batch.commit.insert_count = 1;
    batch.commit.inserts = &row;
    assert_int_equal(st_run(&st_one, &batch)->result.outcome, DKT_STORE_OK);
    batch.commit.not_after_ms -= 60001;
    row = st_ticket(2, 2, 0);
    st_run(&st_one, &batch);
    st_failed(&st_one, DKT_STORE_REFUSED, "DK002");
    assert_int_equal(st_int("select count(*) from tickets"), 1);
}

/* Commits of which one step cannot work: nothing of them may be written. */
typedef struct {
    const char *what, *sqlstate;
    dkt_free_row_t free;
    dkt_place_row_t place;
    dkt_ticket_row_t insert;
    dkt_update_row_t update;
} s_bad_t;

static void s_refuse(const s_bad_t *bad)
{
    st_own(&st_one);
    st_insert(&st_one, 3);
    support_pg_exec(st_admin, "update tickets set state = 2, resolved_at = now() where id = 3");
    dkt_ticket_row_t inserts[] = {st_ticket(20, 20, 0), bad->insert};
    dkt_batch_t batch = st_commit(&st_one);
    batch.commit.free_count = bad->free.number ? 1 : 0;
    batch.commit.frees = &bad->free;
    batch.commit.park_count = bad->place.number ? 1 : 0;
    batch.commit.places = &bad->place;
    batch.commit.insert_count = bad->insert.number ? 2 : 1;
    batch.commit.inserts = inserts;
    batch.commit.update_count = bad->update.number ? 1 : 0;
    batch.commit.updates = &bad->update;
    batch.commit.journal_seq = 1;
    st_run(&st_one, &batch);
    if (st_one.seen[0].result.outcome != DKT_STORE_REFUSED) {
        fprintf(stderr, "%s was not refused\n", bad->what);
    }
    st_failed(&st_one, DKT_STORE_REFUSED, bad->sqlstate);
    assert_int_equal(st_int("select count(*) * 10 + sum(state) from tickets"), 32);
    assert_int_equal(st_int("select count(*) from journal"), 0);
}

static void test_pgstore_commit_refuses_and_writes_nothing(void **state)
{
    dkt_ticket_row_t same_request = st_ticket(21, 21, 0), late = st_ticket(21, 120, 0);
    same_request.request_id = st_ticket(1, 0, 0).request_id;
    const s_bad_t rows[] = {
        {.what = "a lane twice", .sqlstate = "23505", .insert = st_ticket(21, 2, 0)},
        {.what = "a request twice", .sqlstate = "23505", .insert = same_request},
        {.what = "a late slot", .sqlstate = "23514", .insert = late},
        {.what = "a cancel of nothing",
         .sqlstate = "DK003",
         .free = {.number = 90, .state = DKT_TICKET_CANCELLED, .at_ms = 1}},
        {.what = "a cancel of what is resolved",
         .sqlstate = "DK003",
         .free = {.number = 3, .state = DKT_TICKET_CANCELLED, .at_ms = 1}},
        {.what = "a move of nothing", .sqlstate = "DK003", .place = {90, {ST_BASE_MINUTE, 0}}},
        {.what = "a move onto another", .sqlstate = "23505", .place = {1, {ST_BASE_MINUTE + 2, 0}}},
        {.what = "an update of nothing",
         .sqlstate = "DK003",
         .update = {.number = 90, .state = DKT_TICKET_RESOLVED, .resolved_ms = 1}},
        {.what = "a way back",
         .sqlstate = "DK003",
         .update = {.number = 3, .state = DKT_TICKET_OPEN}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s_refuse(&rows[i]);
        st_clean(state);
    }
}

/* An error of the commit itself, after the last statement. */
static void test_pgstore_commit_refused_at_its_end(void **state)
{
    (void)state;
    support_pg_exec(st_admin,
                    "create function late() returns trigger language plpgsql as $$ begin raise "
                    "exception 'too late' using errcode = 'XX123'; end $$;"
                    "create constraint trigger late after insert on journal deferrable initially "
                    "deferred for each row execute function late()");
    st_own(&st_one);
    dkt_batch_t batch = st_commit(&st_one);
    batch.commit.journal_seq = 1;
    st_run(&st_one, &batch);
    support_pg_exec(st_admin, "drop trigger late on journal; drop function late");
    st_failed(&st_one, DKT_STORE_REFUSED, "XX123");
    assert_int_equal(st_int("select count(*) from journal"), 0);
}

/* After a failure: what writes and was sent is unknown, the rest is lost, each exactly once. */
static void test_pgstore_failure_settles_all_open_batches(void **state)
{
    (void)state;
    st_own(&st_one);
    support_pg_exec(st_admin, "begin; select 1 from owner for update"); /* the guard waits */
    dkt_ticket_row_t row = st_ticket(1, 1, 0);
    dkt_batch_t batch = st_commit(&st_one);
    batch.commit.insert_count = 1;
    batch.commit.inserts = &row;
    dkt_batch_t read = {.kind = DKT_BATCH_READ, .read = {.list_limit = 1, .list_state = -1}};
    st_one.count = 0;
    dkt_pgstore_submit(st_one.store, &batch);
    dkt_pgstore_submit(st_one.store, &read);
    dkt_pgstore_submit(st_one.store, &batch);
    PGconn *killer = support_pg_connect(st_pg, "t_one", NULL);
    support_pg_int(killer, "select count(pg_terminate_backend(pid)) from pg_stat_activity where "
                           "application_name like 'docket/%'");
    PQfinish(killer);
    st_wait(&st_one, 3);
    support_pg_exec(st_admin, "rollback");
    assert_int_equal(st_one.seen[0].result.outcome, DKT_STORE_UNKNOWN);
    assert_string_equal(st_one.seen[0].result.sqlstate, "57P01");
    assert_int_equal(st_one.seen[1].result.outcome, DKT_STORE_LOST);
    assert_int_equal(st_one.seen[2].result.outcome, DKT_STORE_LOST);
    st_wait_state(&st_one, DKT_PGSTORE_LOST);
    /* a batch that comes later is answered too */
    st_run(&st_one, &batch);
    st_failed(&st_one, DKT_STORE_LOST, "57P01");
    assert_int_equal(st_int("select count(*) from tickets"), 0);
}

static void test_pgstore_commit_without_answer_is_unknown(void **state)
{
    (void)state;
    st_own(&st_one);
    support_pg_exec(st_admin, "begin; select 1 from owner for update");
    dkt_batch_t batch = st_commit(&st_one);
    st_one.count = 0;
    dkt_pgstore_submit(st_one.store, &batch);
    st_turn(&st_one, DKT_COMMIT_TIMEOUT_MS - 100);
    assert_int_equal(st_one.count, 0);
    st_turn(&st_one, DKT_COMMIT_TIMEOUT_MS + 1);
    support_pg_exec(st_admin, "rollback");
    assert_int_equal(st_one.count, 1);
    st_failed(&st_one, DKT_STORE_UNKNOWN, "");
}

/* A commit wait that is cancelled from outside succeeds, with a WARNING only. */
static void test_pgstore_commit_with_a_warning_is_unknown(void **state)
{
    (void)state;
    st_own(&st_one);
    support_pg_exec(st_admin, "alter system set synchronous_standby_names = 'nobody'");
    support_pg_exec(st_admin, "select pg_reload_conf()");
    dkt_batch_t batch = st_commit(&st_one);
    int64_t end_ms = st_now_ms() + ST_WAIT_MS;
    uint32_t commits = 0;
    do { /* the setting takes effect some time after the reload */
        batch.commit.journal_seq = ++commits;
        st_one.count = 0;
        dkt_pgstore_submit(st_one.store, &batch);
        while (st_one.count == 0) {
            assert_true(st_now_ms() < end_ms);
            support_pg_int(st_admin, "select count(pg_cancel_backend(pid)) from pg_stat_activity "
                                     "where wait_event = 'SyncRep'");
            st_turn(&st_one, 0);
        }
    } while (st_one.seen[0].result.outcome == DKT_STORE_OK);
    support_pg_exec(st_admin, "alter system reset synchronous_standby_names");
    support_pg_exec(st_admin, "select pg_reload_conf()");
    assert_int_equal(st_one.seen[0].result.outcome, DKT_STORE_UNKNOWN);
    assert_non_null(strstr(st_one.seen[0].result.text, "canceling wait for synchronous"));
    st_wait_state(&st_one, DKT_PGSTORE_LOST);
    assert_int_equal(st_int("select count(*) from journal"), commits); /* it did happen, here */
}

static void test_pgstore_lock_is_one_owners_until_evicted(void **state)
{
    (void)state;
    st_own(&st_one);
    st_open_as(&st_two, "t_one", "ffeeddccbbaa99887766554433221100");
    st_wait_state(&st_two, DKT_PGSTORE_READY);
    const dkt_batch_t lock = {.kind = DKT_BATCH_LOCK};
    const st_seen_t *seen = st_run(&st_two, &lock);
    assert_int_equal(seen->result.outcome, DKT_STORE_OK);
    assert_false(seen->result.locked);
    const char *evict = "select docket_evict('docket/a-node-with-a-rather-lo/" ST_INCARNATION "')";
    /* not by another name, not a younger one */
    PGconn *younger = support_pg_connect(st_pg, "t_one", "t_one");
    assert_int_equal(support_pg_int(younger, "select docket_evict('docket/somebody/else')"), 0);
    assert_int_equal(st_int(evict), 0);
    assert_false(st_run(&st_two, &lock)->result.locked);
    assert_int_equal(support_pg_int(younger, evict), 1);
    PQfinish(younger);
    st_lock(&st_two);
    st_wait_state(&st_one, DKT_PGSTORE_LOST);
    assert_non_null(strstr(st_one.text, "terminating connection"));
    assert_true(st_take(&st_two, 1, 1).taken);
}

static void test_pgstore_connect_fails_with_a_reason(void **state)
{
    (void)state;
    st_open_as(&st_one, "t_none", ST_INCARNATION);
    const dkt_batch_t lock = {.kind = DKT_BATCH_LOCK};
    dkt_pgstore_submit(st_one.store, &lock);
    st_wait(&st_one, 1);
    st_failed(&st_one, DKT_STORE_LOST, "");
    assert_non_null(strstr(st_one.text, "t_none"));
    dkt_pgstore_destroy(&st_one.store);
    /* a server that never answers */
    st_open_as(&st_one, "t_one", ST_INCARNATION);
    dkt_pgstore_ready(st_one.store, st_now_ms() + DKT_STORE_CONNECT_MS + 1);
    assert_int_equal(st_one.state, DKT_PGSTORE_LOST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_pgstore_guard_refuses_a_stale_epoch, st_clean),
        cmocka_unit_test_teardown(test_pgstore_guard_refuses_a_group_that_is_late, st_clean),
        cmocka_unit_test_teardown(test_pgstore_commit_refuses_and_writes_nothing, st_clean),
        cmocka_unit_test_teardown(test_pgstore_commit_refused_at_its_end, st_clean),
        cmocka_unit_test_teardown(test_pgstore_failure_settles_all_open_batches, st_clean),
        cmocka_unit_test_teardown(test_pgstore_commit_without_answer_is_unknown, st_clean),
        cmocka_unit_test_teardown(test_pgstore_commit_with_a_warning_is_unknown, st_clean),
        cmocka_unit_test_teardown(test_pgstore_lock_is_one_owners_until_evicted, st_clean),
        cmocka_unit_test_teardown(test_pgstore_connect_fails_with_a_reason, st_clean),
    };
    return cmocka_run_group_tests(tests, st_start, st_stop);
}
