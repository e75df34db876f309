/* SPDX-License-Identifier: Apache-2.0
 *
 * Where requests go while workers come, go, fall silent and are replaced.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "support_router.h"

#define INTERNAL DKT_AUDIENCE_INTERNAL
#define S_PEER   3

static rig_t *s_rig;
static const uint8_t s_one[] = {1}, s_two[] = {2}, s_both[] = {1, 2};

static int s_setup(void **state)
{
    (void)state;
    s_rig = rig_new(0, 0);
    rig_hello(s_rig, 1, 1);
    rig_hello(s_rig, 2, 2);
    rig_table(s_rig, 1, s_one, 1);
    return 0;
}

static int s_teardown(void **state)
{
    (void)state;
    rig_destroy(&s_rig);
    return 0;
}

static void s_send(uint32_t msgid, uint32_t budget_ms)
{
    dkt_request_t request = rig_request(s_rig, DKT_METHOD_CREATE_TICKET, msgid);
    request.budget_ms = budget_ms;
    rig_send(s_rig, INTERNAL, S_PEER, &request);
}

static void s_assert_answered(uint32_t answers, uint32_t msgid, dkt_status_t status)
{
    assert_int_equal(s_rig->answer_count, answers);
    assert_int_equal(rig_last_answer(s_rig)->msgid, msgid);
    assert_int_equal(rig_last_answer(s_rig)->status, status);
}

static void test_router_hello_is_welcomed(void **state)
{
    (void)state;
    assert_int_equal(s_rig->welcomes, 2);
    assert_int_equal(rig_counts(s_rig).workers, 2);
}

static void test_router_passes_an_answer_on(void **state)
{
    (void)state;
    s_send(1, 5000);
    assert_int_equal(rig_last_request(s_rig)->worker, 1);
    assert_int_equal(rig_last_request(s_rig)->table.version, 1);
    rig_answer(s_rig, 1, rig_last_request(s_rig), "created");
    s_assert_answered(1, 1, DKT_OK);
    assert_string_equal(rig_last_answer(s_rig)->text, "created");
    rig_answer(s_rig, 1, rig_last_request(s_rig), "created");
    assert_int_equal(s_rig->answer_count, 1);
    assert_int_equal(rig_counts(s_rig).late_dropped, 1);
}

static void test_router_new_owner_gets_it_and_the_old_ones_answer_is_dropped(void **state)
{
    (void)state;
    s_send(1, 5000);
    rig_request_t first = *rig_last_request(s_rig);
    rig_pass(s_rig, 1000, s_both, 2);
    rig_table(s_rig, 2, s_two, 1);
    assert_int_equal(s_rig->request_count, 2);
    assert_int_equal(rig_last_request(s_rig)->worker, 2);
    assert_in_range(rig_last_request(s_rig)->request.budget_left_ms, 3900, 4000);
    rig_answer(s_rig, 1, &first, "refused");
    assert_int_equal(s_rig->answer_count, 0);
    assert_int_equal(rig_counts(s_rig).stale_dropped, 1);
    rig_answer(s_rig, 2, rig_last_request(s_rig), "created");
    s_assert_answered(1, 1, DKT_OK);
    assert_string_equal(rig_last_answer(s_rig)->text, "created");
    assert_int_equal(rig_counts(s_rig).resent, 1);
}

static void test_router_older_table_changes_nothing(void **state)
{
    (void)state;
    rig_table(s_rig, 5, s_two, 1);
    rig_table(s_rig, 4, s_one, 1);
    rig_table(s_rig, 5, s_one, 1);
    s_send(1, 5000);
    assert_int_equal(rig_last_request(s_rig)->worker, 2);
    assert_int_equal(dkt_router_table(s_rig->router).version, 5);
}

static void test_router_stays_with_an_owner_that_a_new_table_keeps(void **state)
{
    (void)state;
    s_send(1, 5000);
    rig_table(s_rig, 2, s_one, 1);
    assert_int_equal(s_rig->request_count, 1);
    rig_answer(s_rig, 1, rig_last_request(s_rig), "created");
    s_assert_answered(1, 1, DKT_OK);
}

/* "Nothing has happened" from the new owner is no knowledge of what the old one did. */
static void test_router_doubt_stays_doubt(void **state)
{
    (void)state;
    static const struct {
        dkt_status_t said, want;
    } rows[] = {
        {DKT_DEADLINE_EXCEEDED, DKT_UNAVAILABLE},
        {DKT_OVERLOADED, DKT_UNAVAILABLE},
        {DKT_CONFLICT, DKT_CONFLICT},
        {DKT_UNAVAILABLE, DKT_UNAVAILABLE},
    };
    for (uint32_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        rig_table(s_rig, 2 + 2 * i, s_one, 1);
        s_send(i, 5000);
        rig_table(s_rig, 3 + 2 * i, s_two, 1);
        rig_answer_error(s_rig, 2, rig_last_request(s_rig), rows[i].said);
        s_assert_answered(i + 1, i, rows[i].want);
    }
    s_send(100, 5000);
    rig_answer_error(s_rig, 2, rig_last_request(s_rig), DKT_DEADLINE_EXCEEDED);
    assert_int_equal(rig_last_answer(s_rig)->status, DKT_DEADLINE_EXCEEDED);
}

/* A request that kills whoever gets it must not go round the whole fleet. */
static void test_router_request_that_loses_every_owner_is_given_up(void **state)
{
    (void)state;
    s_send(1, 60000);
    for (uint64_t i = 0; i < DKT_BROKER_LOSSES_MAX; i++) {
        rig_table(s_rig, 2 + i, i % 2 ? s_one : s_two, 1);
        assert_int_equal(s_rig->request_count, 2 + i);
    }
    rig_table(s_rig, 10, DKT_BROKER_LOSSES_MAX % 2 ? s_one : s_two, 1);
    s_assert_answered(1, 1, DKT_UNAVAILABLE);
    assert_int_equal(s_rig->request_count, 1 + DKT_BROKER_LOSSES_MAX);
}

static void test_router_moved_with_a_newer_table_waits_for_it(void **state)
{
    (void)state;
    s_send(1, 5000);
    rig_moved(s_rig, 1, rig_last_request(s_rig), 2);
    rig_pass(s_rig, 100, s_both, 2);
    assert_int_equal(s_rig->request_count, 1);
    rig_table(s_rig, 2, s_two, 1);
    assert_int_equal(s_rig->request_count, 2);
    assert_int_equal(rig_last_request(s_rig)->worker, 2);
    /* It was given back undecided, so the new owner's word is all there is. */
    rig_answer_error(s_rig, 2, rig_last_request(s_rig), DKT_OVERLOADED);
    s_assert_answered(1, 1, DKT_OVERLOADED);
}

static void test_router_moved_with_the_same_table_is_tried_again(void **state)
{
    (void)state;
    s_send(1, 500);
    rig_moved(s_rig, 1, rig_last_request(s_rig), 1);
    assert_int_equal(s_rig->request_count, 1);
    rig_pass(s_rig, 2 * DKT_BROKER_RETRY_MS, s_both, 2);
    assert_int_equal(s_rig->request_count, 2);
    assert_int_equal(rig_last_request(s_rig)->worker, 1);
    for (int i = 0; i < 50 && s_rig->answer_count == 0; i++) {
        rig_moved(s_rig, 1, rig_last_request(s_rig), 1);
        rig_pass(s_rig, 32, s_both, 2);
    }
    s_assert_answered(1, 1, DKT_UNAVAILABLE);
    assert_true(s_rig->request_count < 500 / DKT_BROKER_RETRY_MS + 2);
}

static void test_router_silent_owner_gets_nothing_new(void **state)
{
    (void)state;
    rig_pass(s_rig, DKT_LINK_SILENCE_MS + 100, s_two, 1);
    s_send(1, 5000);
    assert_int_equal(s_rig->request_count, 0);
    rig_hello(s_rig, 1, 1);
    assert_int_equal(s_rig->request_count, 1);
    rig_answer(s_rig, 1, rig_last_request(s_rig), "created");
    s_assert_answered(1, 1, DKT_OK);
}

static void test_router_no_owner_waits_within_its_budget(void **state)
{
    (void)state;
    rig_table(s_rig, 2, (const uint8_t[]){9}, 1);
    s_send(1, 5000);
    s_send(2, 1000);
    rig_pass(s_rig, 1100, s_both, 2);
    s_assert_answered(1, 2, DKT_UNAVAILABLE);
    assert_int_equal(s_rig->request_count, 0);
    rig_hello(s_rig, 9, 9);
    assert_int_equal(s_rig->request_count, 1);
    assert_int_equal(rig_last_request(s_rig)->worker, 9);
}

static void test_router_live_owner_may_answer_late(void **state)
{
    (void)state;
    s_send(1, 1000);
    s_send(2, 1000);
    rig_request_t first = s_rig->requests[0];
    rig_pass(s_rig, 1500, s_both, 2);
    assert_int_equal(s_rig->answer_count, 0);
    rig_answer(s_rig, 1, &first, "created");
    s_assert_answered(1, 1, DKT_OK);
    rig_pass(s_rig, DKT_BROKER_GRACE_MS, s_both, 2);
    s_assert_answered(2, 2, DKT_UNAVAILABLE);
}

static void test_router_dead_owner_gets_no_grace(void **state)
{
    (void)state;
    s_send(1, 2000);
    rig_pass(s_rig, 2050, s_two, 1);
    s_assert_answered(1, 1, DKT_UNAVAILABLE);
}

static void test_router_unreachable_worker_waits_for_its_return(void **state)
{
    (void)state;
    s_rig->worker_takes[1] = DKT_SENT_GONE;
    s_send(1, 5000);
    assert_int_equal(rig_counts(s_rig).waiting, 1);
    rig_hello(s_rig, 1, 5); /* the same incarnation on a new connection */
    assert_int_equal(s_rig->request_count, 1);
    assert_int_equal(rig_last_request(s_rig)->worker, 5);
}

static void test_router_new_connection_of_a_worker_gets_everything_again(void **state)
{
    (void)state;
    s_send(1, 5000);
    s_send(2, 5000);
    rig_hello(s_rig, 1, 5);
    assert_int_equal(s_rig->request_count, 4);
    assert_int_equal(rig_last_request(s_rig)->worker, 5);
    rig_answer(s_rig, 1, &s_rig->requests[0], "created");
    rig_answer(s_rig, 1, &s_rig->requests[2], "created");
    assert_int_equal(s_rig->answer_count, 1);
}

static void test_router_full_worker_gets_it_later(void **state)
{
    (void)state;
    s_rig->worker_takes[1] = DKT_SENT_FULL;
    s_send(1, 5000);
    assert_int_equal(s_rig->request_count, 0);
    s_rig->worker_takes[1] = DKT_SENT_OK;
    rig_pass(s_rig, 16, NULL, 0);
    assert_int_equal(s_rig->request_count, 1);
}

static void test_router_any_method_goes_to_a_live_worker(void **state)
{
    (void)state;
    rig_table(s_rig, 2, s_both, 2);
    rig_pass(s_rig, DKT_LINK_SILENCE_MS + 100, s_two, 1);
    for (uint32_t i = 0; i < 20; i++) {
        dkt_request_t request = rig_request(s_rig, DKT_METHOD_LIST_TENANTS, i);
        rig_send(s_rig, INTERNAL, S_PEER, &request);
        assert_int_equal(rig_last_request(s_rig)->worker, 2);
    }
    rig_hello(s_rig, 1, 1);
    uint32_t to_one = 0;
    for (uint32_t i = 0; i < 100; i++) {
        dkt_request_t request = rig_request(s_rig, DKT_METHOD_LIST_TENANTS, i);
        rig_send(s_rig, INTERNAL, S_PEER, &request);
        to_one += rig_last_request(s_rig)->worker == 1;
    }
    assert_in_range(to_one, 40, 60);
}

static void test_router_create_account_again_goes_to_the_same_worker(void **state)
{
    (void)state;
    rig_table(s_rig, 2, s_both, 2);
    for (uint32_t i = 0; i < 20; i++) {
        dkt_request_t request = rig_request(s_rig, DKT_METHOD_CREATE_ACCOUNT, i);
        rig_send(s_rig, INTERNAL, S_PEER, &request);
        uint8_t worker = rig_last_request(s_rig)->worker;
        rig_send(s_rig, INTERNAL, S_PEER, &request);
        assert_int_equal(rig_last_request(s_rig)->worker, worker);
    }
}

static void test_router_requests_of_a_round_are_batched(void **state)
{
    (void)state;
    dkt_address_t from = rig_address(S_PEER);
    dkt_request_t request = rig_request(s_rig, DKT_METHOD_CREATE_TICKET, 1);
    dkt_view_t frames[2] = {{(const uint8_t *)"", 0}, rig_encode(s_rig, 0, &request)};
    uint32_t before = s_rig->worker_messages;
    for (uint32_t i = 0; i < 4000; i++) {
        dkt_router_client(s_rig->router, s_rig->now, INTERNAL, &from, frames, 2);
    }
    dkt_router_flush(s_rig->router, s_rig->now);
    assert_int_equal(s_rig->request_count, 4000);
    size_t bytes = DKT_LINK_HEADER_BYTES + 4000 * (size_t)(52 + frames[1].len);
    assert_int_equal(s_rig->worker_messages - before, bytes / DKT_LINK_BYTES_MAX + 1);
    assert_true(s_rig->largest_batch <= DKT_LINK_BYTES_MAX);
}

static void test_router_forgets_workers_of_no_table(void **state)
{
    (void)state;
    for (uint8_t i = 0; i < 100; i++) {
        rig_pass(s_rig, DKT_BROKER_FORGET_MS / 50, s_one, 1);
        rig_hello(s_rig, (uint8_t)(100 + i), 7);
    }
    assert_in_range(rig_counts(s_rig).workers, 40, 60);
}

static void test_router_rubbish_of_a_worker_is_counted(void **state)
{
    (void)state;
    dkt_address_t from = rig_address(1);
    uint8_t bytes[128] = {1, 3, 1};
    for (size_t len = 0; len < sizeof bytes; len++) {
        dkt_router_worker(s_rig->router, s_rig->now, &from, bytes, len);
    }
    bytes[1] = DKT_LINK_WELCOME;
    dkt_router_worker(s_rig->router, s_rig->now, &from, bytes, sizeof bytes);
    dkt_router_flush(s_rig->router, s_rig->now);
    /* From byte 40 on it is a message of answers from nobody. */
    assert_int_equal(rig_counts(s_rig).link_malformed, DKT_LINK_HEADER_BYTES + 1);
    s_send(1, 5000);
    assert_int_equal(s_rig->request_count, 1);
}

static void test_router_abort_answers_everything(void **state)
{
    (void)state;
    s_send(1, 5000);
    rig_pass(s_rig, DKT_LINK_SILENCE_MS + 100, NULL, 0);
    s_send(2, 5000);
    dkt_router_abort(s_rig->router, s_rig->now);
    s_assert_answered(2, 2, DKT_UNAVAILABLE);
    assert_int_equal(rig_counts(s_rig).open, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, s_setup, s_teardown)

/* Tenant context is asked of one worker after the other, as long as they live. */
static void test_router_asks_workers_in_turn(void **state)
{
    (void)state;
    uint8_t bytes[DKT_LINK_HEADER_BYTES];
    dkt_incarnation_t own = {{9}};
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_link_begin(&w, DKT_LINK_WELCOME, (dkt_table_version_t){0, 0}, &own);
    dkt_link_finish(&w, 0);
    s_rig->worker_takes[1] = DKT_SENT_GONE;
    uint32_t taken = 0;
    for (int i = 0; i < 4; i++) {
        taken += dkt_router_ask(s_rig->router, s_rig->now, bytes, w.len) ? 1 : 0;
    }
    assert_int_equal(taken, 2); /* those that were the second worker's turn */
    s_rig->worker_takes[1] = DKT_SENT_OK;
    assert_true(dkt_router_ask(s_rig->router, s_rig->now, bytes, w.len));
    rig_pass(s_rig, DKT_LINK_SILENCE_MS + 100, s_one, 0);
    assert_false(dkt_router_ask(s_rig->router, s_rig->now, bytes, w.len));
}

/* However a table comes, only a newer one counts. */
static void test_router_takes_an_offered_table_if_it_is_newer(void **state)
{
    (void)state;
    static dkt_table_t table;
    table.version = (dkt_table_version_t){1, 2};
    table.member_count = 1;
    table.members[0] = rig_incarnation(2);
    table.key_count = 1;
    table.keys[0] = s_rig->public_key;
    s_rig->worker_takes[1] = DKT_SENT_FULL;
    s_send(1, 1000); /* waits for the first worker to take more */
    dkt_router_offer_table(s_rig->router, s_rig->now, &table);
    dkt_router_flush(s_rig->router, s_rig->now);
    assert_int_equal(dkt_router_table(s_rig->router).version, 2);
    assert_int_equal(rig_last_request(s_rig)->worker, 2);
    table.version.version = 1;
    table.members[0] = rig_incarnation(1);
    dkt_router_offer_table(s_rig->router, s_rig->now, &table);
    assert_int_equal(dkt_router_table(s_rig->router).version, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_router_asks_workers_in_turn),
        T(test_router_takes_an_offered_table_if_it_is_newer),
        T(test_router_hello_is_welcomed),
        T(test_router_passes_an_answer_on),
        T(test_router_new_owner_gets_it_and_the_old_ones_answer_is_dropped),
        T(test_router_older_table_changes_nothing),
        T(test_router_stays_with_an_owner_that_a_new_table_keeps),
        T(test_router_doubt_stays_doubt),
        T(test_router_request_that_loses_every_owner_is_given_up),
        T(test_router_moved_with_a_newer_table_waits_for_it),
        T(test_router_moved_with_the_same_table_is_tried_again),
        T(test_router_silent_owner_gets_nothing_new),
        T(test_router_no_owner_waits_within_its_budget),
        T(test_router_live_owner_may_answer_late),
        T(test_router_dead_owner_gets_no_grace),
        T(test_router_unreachable_worker_waits_for_its_return),
        T(test_router_new_connection_of_a_worker_gets_everything_again),
        T(test_router_full_worker_gets_it_later),
        T(test_router_any_method_goes_to_a_live_worker),
        T(test_router_create_account_again_goes_to_the_same_worker),
        T(test_router_requests_of_a_round_are_batched),
        T(test_router_forgets_workers_of_no_table),
        T(test_router_rubbish_of_a_worker_is_counted),
        T(test_router_abort_answers_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
