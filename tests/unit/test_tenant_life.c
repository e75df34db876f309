/* SPDX-License-Identifier: Apache-2.0
 *
 * A tenant core between activation and end: tickets, lists, failing groups, fences, draining.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lib/core/group.h"
#include "tests/unit/support_tenant.h"

/* A ticket that is durable; returns its number. */
#define S_HALF_MEMORY_MS (DKT_REFUSAL_MEMORY_MS / 2)

static uint64_t s_created(bench_t *bench, const char *type, uint8_t n)
{
    uint32_t msgid = bench_create(bench, type, bench_new_id(bench, n));
    bench_settle(bench);
    bench_expect(bench, msgid, "created");
    return bench_number(bench, msgid);
}

static dkt_ticket_row_t s_row(uint64_t number, dkt_ticket_state_t ticket_state)
{
    return (dkt_ticket_row_t){.number = number,
                              .request_id = bench_old_id((uint8_t)number),
                              .class_name = bench_view("gold"),
                              .place = {.minute = BENCH_DB_MS / 60000 + 5},
                              .has_lane = ticket_state != DKT_TICKET_CANCELLED,
                              .deadline_ms = BENCH_DB_MS + 7200000,
                              .state = ticket_state,
                              .created_ms = BENCH_DB_MS};
}

static bool s_ended(const bench_t *bench)
{
    return dkt_tenant_state(bench->core) == DKT_TENANT_ENDED;
}

/* -- tickets -- */

static void test_tenant_cancels_again_with_the_same_answer(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    uint64_t number = s_created(bench, "gold", 1);
    uint32_t one = bench_ticket(bench, DKT_METHOD_CANCEL_TICKET, number);
    uint32_t two = bench_ticket(bench, DKT_METHOD_CANCEL_TICKET, number);
    bench_flush(bench);
    assert_false(bench_answered(bench, two)); /* no sooner than the cancel is durable */
    const dkt_commit_t *commit = &bench_batch(bench, DKT_BATCH_COMMIT)->commit;
    assert_int_equal(commit->free_count, 1);
    assert_int_equal(bench_events(commit, DKT_EVENT_CANCELLED), 1);
    bench_ok(bench);
    bench_expect(bench, one, "cancelled");
    bench_expect(bench, two, "cancelled");
    bench_destroy(&bench);
}

/* Found: "conflict" left before the cancel it spoke of was durable. */
static void test_tenant_refuses_to_resolve_only_a_durable_cancel(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    uint64_t number = s_created(bench, "gold", 1);
    uint32_t cancel = bench_ticket(bench, DKT_METHOD_CANCEL_TICKET, number);
    uint32_t resolve = bench_ticket(bench, DKT_METHOD_RESOLVE_TICKET, number);
    bench_flush(bench);
    dkt_ticket_row_t row = s_row(number, DKT_TICKET_OPEN);
    assert_int_equal(bench->batches[1].kind, DKT_BATCH_READ);
    dkt_batch_t commit = bench->batches[0];
    bench->batches[0] = bench->batches[1]; /* let the look-up overtake, as an older READ would */
    bench->batches[1] = commit;
    bench_rows(bench, &row, 1, 0);
    assert_false(bench_answered(bench, resolve));
    bench_ok(bench);
    bench_expect(bench, cancel, "cancelled");
    bench_expect_error(bench, resolve, DKT_CONFLICT, "ticket_id");
    bench_destroy(&bench);
}

/* Found: between a deadline and the tick that flags it (up to 1.2 s later) a resolved or cancelled
 * ticket was breached in its row, and no event told. */
static void s_late(dkt_method_t method)
{
    bench_t *bench = bench_new(1);
    dkt_ticket_row_t row = s_row(1, DKT_TICKET_OPEN);
    row.at_risk = true;
    row.deadline_ms = BENCH_DB_MS + 5000;
    bench->loaded.tickets = &row;
    bench->loaded.ticket_count = 1;
    bench_activate(bench);
    bench_settle(bench);
    bench->mono_ms += 5001;
    bench->db_ms += 5001;
    uint32_t msgid = bench_ticket(bench, method, 1);
    bench_flush(bench);
    const dkt_commit_t *commit = &bench_batch(bench, DKT_BATCH_COMMIT)->commit;
    assert_int_equal(bench_events(commit, DKT_EVENT_BREACHED), 1);
    assert_int_equal(commit->free_count, 1);
    assert_true(commit->frees[0].breached);
    assert_int_equal(commit->update_count, 0);
    bench_ok(bench);
    bench_expect(bench, msgid, method == DKT_METHOD_CANCEL_TICKET ? "cancelled" : "resolved");
    assert_false(bench_answer(bench, msgid)->met);
    bench_destroy(&bench);
}

static void test_tenant_tells_the_breach_of_a_ticket_that_ends_late(void **state)
{
    (void)state;
    s_late(DKT_METHOD_RESOLVE_TICKET);
    s_late(DKT_METHOD_CANCEL_TICKET);
}

static void test_tenant_dispatches_and_then_it_is_too_late(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    uint64_t number = s_created(bench, "gold", 1);
    bench_advance(bench, 60000);
    const dkt_commit_t *commit = &bench_batch(bench, DKT_BATCH_COMMIT)->commit;
    assert_int_equal(bench_events(commit, DKT_EVENT_DISPATCHED), 1);
    assert_int_equal(commit->not_after_ms, INT64_MAX);
    uint32_t cancel = bench_ticket(bench, DKT_METHOD_CANCEL_TICKET, number);
    assert_false(bench_answered(bench, cancel));
    bench_ok(bench);
    bench_expect(bench, cancel, "too_late");
    uint32_t resolve = bench_ticket(bench, DKT_METHOD_RESOLVE_TICKET, number);
    bench_settle(bench);
    assert_true(bench_answer(bench, resolve)->met);
    bench_destroy(&bench);
}

/* An owner whose lock vanished must not say "too_late" about a ticket of its successor. */
static void test_tenant_ends_when_the_database_has_an_open_ticket_it_lacks(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    uint32_t cancel = bench_ticket(bench, DKT_METHOD_CANCEL_TICKET, 9);
    bench_flush(bench);
    dkt_ticket_row_t row = s_row(9, DKT_TICKET_OPEN);
    bench_rows(bench, &row, 1, 0);
    bench_expect_error(bench, cancel, DKT_UNAVAILABLE, NULL);
    assert_true(s_ended(bench));
    bench_destroy(&bench);
}

static void test_tenant_finds_each_row_of_a_large_read(void **state)
{
    (void)state;
    enum { COUNT = 300 };
    bench_t *bench = bench_serving(1);
    static dkt_ticket_row_t rows[COUNT];
    uint32_t first = bench->msgid + 1;
    for (uint32_t i = 0; i < COUNT; i++) {
        rows[COUNT - 1 - i] = s_row(i + 1, i % 2 ? DKT_TICKET_CANCELLED : DKT_TICKET_RESOLVED);
        (void)bench_ticket(bench, DKT_METHOD_CANCEL_TICKET, i + 1);
    }
    uint32_t unknown = bench_ticket(bench, DKT_METHOD_CANCEL_TICKET, COUNT + 1);
    bench_flush(bench);
    bench_rows(bench, rows, COUNT, 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        bench_expect(bench, first + i, i % 2 ? "cancelled" : "too_late");
    }
    bench_expect_error(bench, unknown, DKT_NOT_FOUND, NULL);
    bench_destroy(&bench);
}

/* -- lists -- */

static uint32_t s_list(bench_t *bench, uint32_t limit)
{
    dkt_request_t request = {.method = DKT_METHOD_LIST_TICKETS,
                             .present = DKT_PARAM_BIT(LIMIT),
                             .limit = limit,
                             .state = -1};
    uint32_t msgid = bench_send(bench, &request);
    bench_flush(bench);
    return msgid;
}

static bool s_has_cursor(const bench_t *bench, uint32_t msgid)
{
    dkt_view_t result = bench_answer(bench, msgid)->result;
    return memmem(result.data, result.len,
                  "\xa6"
                  "cursor",
                  7) != NULL;
}

/* Found: a list that ended exactly at its limit promised more. */
static void test_tenant_gives_a_cursor_only_if_there_is_more(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    dkt_ticket_row_t rows[3];
    for (uint64_t i = 0; i < 3; i++) {
        rows[i] = s_row(i + 1, DKT_TICKET_RESOLVED);
    }
    uint32_t exact = s_list(bench, 2);
    assert_int_equal(bench_batch(bench, DKT_BATCH_READ)->read.list_limit, 3);
    bench_rows(bench, rows, 2, 2);
    assert_false(s_has_cursor(bench, exact));
    uint32_t more = s_list(bench, 2);
    bench_rows(bench, rows, 3, 3);
    assert_true(s_has_cursor(bench, more));
    uint32_t none = s_list(bench, 2);
    bench_rows(bench, rows, 0, 0);
    assert_false(s_has_cursor(bench, none));
    bench_destroy(&bench);
}

/* -- groups that fail -- */

static void test_tenant_ends_with_suspects_when_a_group_is_refused(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    dkt_uuid_t id = bench_new_id(bench, 1);
    uint32_t sent = bench_create(bench, "gold", id);
    uint32_t joined = bench_create(bench, "gold", id);
    bench_flush(bench);
    uint32_t gathered = bench_create(bench, "gold", bench_new_id(bench, 2));
    bench_fail(bench, DKT_STORE_REFUSED, "23505");
    assert_true(s_ended(bench));
    bench_expect_error(bench, sent, DKT_UNAVAILABLE, NULL);
    assert_int_equal(bench->works[joined].fate, BENCH_GIVEN_BACK);
    assert_int_equal(bench->works[gathered].fate, BENCH_GIVEN_BACK);
    const dkt_tenant_end_t *end = dkt_tenant_end(bench->core);
    assert_int_equal(end->suspect_count, 1);
    assert_memory_equal(&end->suspects[0], &id, sizeof id);
    bench_destroy(&bench);
}

/* Found: a stale epoch, or a group that came too late, was blamed on the one request in it. */
static void test_tenant_blames_a_lone_suspect_only_for_its_data(void **state)
{
    (void)state;
    const struct {
        const char *sqlstate;
        dkt_store_outcome_t outcome;
        dkt_status_t status;
        uint32_t suspects;
    } cases[] = {
        {"23514", DKT_STORE_REFUSED, DKT_INTERNAL, 0},
        {"DK001", DKT_STORE_REFUSED, DKT_UNAVAILABLE, 0},
        {"DK002", DKT_STORE_REFUSED, DKT_UNAVAILABLE, 0},
        {"53100", DKT_STORE_REFUSED, DKT_UNAVAILABLE, 0},
        {"57014", DKT_STORE_REFUSED, DKT_UNAVAILABLE, 0},
        {"", DKT_STORE_UNKNOWN, DKT_UNAVAILABLE, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bench_t *bench = bench_serving(1);
        dkt_uuid_t id = bench_new_id(bench, 1);
        bench->suspect = true;
        uint32_t suspect = bench_create(bench, "gold", id);
        bench->suspect = false;
        uint32_t other = bench_create(bench, "gold", bench_new_id(bench, 2));
        bench_flush(bench);
        bench_ok(bench); /* the look-up */
        assert_int_equal(bench_batch(bench, DKT_BATCH_COMMIT)->commit.insert_count, 1);
        bench_fail(bench, cases[i].outcome, cases[i].sqlstate);
        bench_expect_error(bench, suspect, cases[i].status, NULL);
        assert_int_equal(bench->works[other].fate, BENCH_GIVEN_BACK);
        assert_int_equal(dkt_tenant_end(bench->core)->suspect_count, cases[i].suspects);
        assert_int_equal(dkt_tenant_end(bench->core)->stale, i == 1);
        bench_destroy(&bench);
    }
}

/* -- the fence -- */

static void test_tenant_fences_a_refusal_with_a_guard(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    (void)bench_new_id(bench, 0);
    bench->mono_ms += 10000;
    bench->db_ms += 10000;
    uint32_t hold = bench_hold(bench, "gold");
    assert_false(bench_answered(bench, hold));
    bench_flush(bench);
    (void)bench_batch(bench, DKT_BATCH_GUARD);
    bench_ok(bench);
    bench_expect(bench, hold, "held");
    bench->mono_ms += DKT_FENCE_FRESH_MS - 1;
    bench_expect(bench, bench_hold(bench, "gold"), "held");
    bench->mono_ms += 1;
    uint32_t stale = bench_hold(bench, "gold");
    assert_false(bench_answered(bench, stale));
    bench_destroy(&bench);
    /* what was fenced is given back, never said */
}

/* Found: with a database that answers, but slowly, fenced answers stayed for ever. */
static void test_tenant_lets_no_fenced_answer_outlive_its_budget(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    (void)bench_new_id(bench, 0);
    bench->mono_ms += 10000;
    bench->db_ms += 10000;
    uint32_t hold = bench_hold(bench, "gold");
    bench_flush(bench);
    assert_true(dkt_tenant_due_mono_ms(bench->core) < bench->mono_ms + 100);
    for (int i = 0; i < 10; i++) {
        bench_advance(bench, 600);
        if (bench->batch_count > 0) {
            bench_ok(bench); /* each guard took too long to prove anything */
        }
    }
    bench_expect_error(bench, hold, DKT_DEADLINE_EXCEEDED, NULL);
    bench_destroy(&bench);
}

static void test_tenant_ends_when_the_databases_clock_steps_ahead(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    uint32_t one = bench_create(bench, "gold", bench_new_id(bench, 1));
    bench_flush(bench);
    bench->db_ms += 5000;
    bench_ok(bench);
    bench_expect(bench, one, "created");
    assert_true(s_ended(bench));
    bench_destroy(&bench);
}

/* -- draining -- */

static void test_tenant_drains_what_is_under_way(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    uint32_t held = bench_hold(bench, "gold");
    bench_expect(bench, held, "held");
    uint32_t sent = bench_create(bench, "gold", bench_new_id(bench, 1));
    uint32_t looked = bench_create(bench, "gold", bench_old_id(2));
    uint32_t login = bench_login(bench, "long enough");
    bench_flush(bench);
    uint32_t gathered = bench_create(bench, "gold", bench_new_id(bench, 3));
    uint32_t waiting = bench_create(bench, "gold", bench_old_id(4)); /* not yet looked up */
    bench->suspect = true;
    uint32_t solo = bench_create(bench, "gold", bench_new_id(bench, 5));
    bench->suspect = false;
    bench_kind(bench, DKT_TEV_DRAIN);
    uint32_t late = bench_create(bench, "gold", bench_new_id(bench, 6));
    assert_int_equal(bench->works[waiting].fate, BENCH_GIVEN_BACK);
    assert_int_equal(bench->works[solo].fate, BENCH_GIVEN_BACK);
    assert_int_equal(bench->works[late].fate, BENCH_GIVEN_BACK);
    bench_settle(bench);
    bench_expect(bench, sent, "created");
    bench_expect(bench, looked, "created");
    bench_expect(bench, gathered, "created");
    assert_false(s_ended(bench)); /* the password is still being checked */
    bench_hashed(bench, true, "");
    bench_expect(bench, login, "ok");
    const dkt_commit_t *commit = &bench_batch(bench, DKT_BATCH_COMMIT)->commit;
    assert_int_equal(commit->handoff.len, 13 + 23);
    bench_ok(bench);
    assert_true(s_ended(bench));
    assert_true(dkt_tenant_end(bench->core)->clean);
    bench_destroy(&bench);
}

static void test_tenant_takes_over_the_holds_of_a_handoff(void **state)
{
    (void)state;
    bench_t *old = bench_serving(1);
    uint32_t held = bench_hold(old, "gold");
    char slot[DKT_ID_CHARS_MAX + 1];
    const dkt_answer_t *answer = bench_answer(old, held);
    snprintf(slot, sizeof slot, "%.*s", (int)answer->slot_id.len,
             (const char *)answer->slot_id.data);
    bench_kind(old, DKT_TEV_DRAIN);
    bench_flush(old);
    uint8_t body[64];
    dkt_view_t handoff = bench_batch(old, DKT_BATCH_COMMIT)->commit.handoff;
    assert_in_range(handoff.len, 1, sizeof body);
    memcpy(body, handoff.data, handoff.len);
    bench_t *next = bench_new(1);
    next->taken.epoch = 2;
    next->taken.handoff = (dkt_view_t){.data = body, .len = handoff.len};
    bench_activate(next);
    dkt_tenant_counts_t counts;
    dkt_tenant_counts(next->core, &counts);
    assert_int_equal(counts.held, 1);
    uint32_t created = bench_slot(next, DKT_METHOD_ALLOCATE_SLOT, "gold", bench_old_id(1), slot);
    bench_settle(next);
    bench_expect(next, created, "created");
    bench_ok(old);
    bench_destroy(&old);
    bench_destroy(&next);
}

/* One resolver, full: the retry of what the predecessor refused hears the same `earliest_ms`, also
 * when the slot is free by now; what was not refused is decided. */
static void test_tenant_repeats_the_refusals_of_a_handoff(void **state)
{
    (void)state;
    bench_t *old = bench_serving(1);
    for (uint32_t i = 0; i < 120; i++) {
        bench_create(old, "gold", bench_new_id(old, (uint8_t)i));
    }
    bench_settle(old);
    dkt_uuid_t id = bench_old_id(200);
    uint32_t refused = bench_create(old, "gold", id);
    bench_settle(old);
    bench_expect(old, refused, "refused");
    int64_t earliest_ms = bench_answer(old, refused)->earliest_ms;
    bench_advance(old, S_HALF_MEMORY_MS); /* the successor's clock is behind by that */
    bench_settle(old);
    bench_kind(old, DKT_TEV_DRAIN);
    bench_flush(old);
    static uint8_t body[4096];
    dkt_view_t handoff = bench_batch(old, DKT_BATCH_COMMIT)->commit.handoff;
    assert_in_range(handoff.len, 13 + 59, sizeof body);
    memcpy(body, handoff.data, handoff.len);
    bench_t *next = bench_new(1);
    next->taken.epoch = 2;
    next->taken.handoff = (dkt_view_t){.data = body, .len = handoff.len};
    bench_activate(next);
    uint32_t again = bench_create(next, "gold", id);
    bench_settle(next);
    bench_expect(next, again, "refused");
    assert_true(bench_answer(next, again)->replayed);
    assert_int_equal(bench_answer(next, again)->earliest_ms, earliest_ms);
    uint32_t other = bench_create(next, "gold", bench_new_id(next, 201));
    bench_settle(next);
    bench_expect(next, other, "created");
    bench_advance(next, S_HALF_MEMORY_MS + 1);
    again = bench_create(next, "gold", id);
    bench_settle(next);
    bench_expect(next, again, "created"); /* it is remembered as long as before, not longer */
    bench_ok(old);
    bench_destroy(&old);
    bench_destroy(&next);
}

static void test_tenant_gives_back_what_waited_for_an_activation_that_failed(void **state)
{
    (void)state;
    bench_t *bench = bench_new(1);
    uint32_t waiting = bench_create(bench, "gold", bench_old_id(1));
    bench_kind(bench, DKT_TEV_CONNECTED);
    bench_fail(bench, DKT_STORE_LOST, "");
    assert_int_equal(bench->works[waiting].fate, BENCH_GIVEN_BACK);
    assert_true(s_ended(bench));
    bench_destroy(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tenant_cancels_again_with_the_same_answer),
        cmocka_unit_test(test_tenant_refuses_to_resolve_only_a_durable_cancel),
        cmocka_unit_test(test_tenant_tells_the_breach_of_a_ticket_that_ends_late),
        cmocka_unit_test(test_tenant_dispatches_and_then_it_is_too_late),
        cmocka_unit_test(test_tenant_ends_when_the_database_has_an_open_ticket_it_lacks),
        cmocka_unit_test(test_tenant_finds_each_row_of_a_large_read),
        cmocka_unit_test(test_tenant_gives_a_cursor_only_if_there_is_more),
        cmocka_unit_test(test_tenant_ends_with_suspects_when_a_group_is_refused),
        cmocka_unit_test(test_tenant_blames_a_lone_suspect_only_for_its_data),
        cmocka_unit_test(test_tenant_fences_a_refusal_with_a_guard),
        cmocka_unit_test(test_tenant_lets_no_fenced_answer_outlive_its_budget),
        cmocka_unit_test(test_tenant_ends_when_the_databases_clock_steps_ahead),
        cmocka_unit_test(test_tenant_drains_what_is_under_way),
        cmocka_unit_test(test_tenant_takes_over_the_holds_of_a_handoff),
        cmocka_unit_test(test_tenant_repeats_the_refusals_of_a_handoff),
        cmocka_unit_test(test_tenant_gives_back_what_waited_for_an_activation_that_failed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
