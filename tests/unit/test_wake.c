/* SPDX-License-Identifier: Apache-2.0
 *
 * Whom to activate when nobody asks: order, the 10 s, the places, and a comparison with a plain
 * list over thousands of random events.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/core/wake.h"

#define S_NOW        INT64_C(1700000000000)
#define S_CLIENTS    60
#define S_OPERATIONS 20000

static dkt_wake_t s_wake;

static dkt_client_t s_client(uint32_t number)
{
    dkt_client_t client = {{0}};
    memcpy(client.bytes, &number, sizeof number);
    return client;
}

static void s_due(uint32_t number, int64_t due_ms)
{
    assert_true(dkt_wake_step(
        &s_wake, S_NOW,
        &(dkt_wake_event_t){.kind = DKT_WAKE_DUE, .client = s_client(number), .due_ms = due_ms}));
}

static void s_event(dkt_wake_event_kind_t kind, uint32_t number)
{
    dkt_client_t client = s_client(number);
    assert_true(dkt_wake_step(
        &s_wake, S_NOW,
        &(dkt_wake_event_t){.kind = kind, .client = client, .vshard = dkt_client_vshard(&client)}));
}

/* The number of the next one, -1 for nobody; `probe` is what it must be. */
static int s_next(int64_t now_ms, bool probe)
{
    dkt_client_t client;
    bool is_probe = false;
    uint32_t number;
    if (!dkt_wake_next(&s_wake, now_ms, 0, 0, &client, &is_probe)) {
        return -1;
    }
    assert_int_equal(is_probe, probe);
    memcpy(&number, client.bytes, sizeof number);
    return (int)number;
}

static int s_setup(void **state)
{
    (void)state;
    dkt_wake_init(&s_wake);
    return 0;
}

static int s_teardown(void **state)
{
    (void)state;
    dkt_wake_fini(&s_wake);
    return 0;
}

static void test_wake_is_early_and_in_order(void **state)
{
    (void)state;
    s_due(1, S_NOW + 60000);
    s_due(2, S_NOW + 30000);
    s_due(3, 0);
    assert_int_equal(s_next(S_NOW, false), 3);
    assert_int_equal(s_next(S_NOW, false), -1);
    assert_int_equal(s_next(S_NOW + 30000 - DKT_WAKE_EARLY_MS - 1, false), -1);
    assert_int_equal(s_next(S_NOW + 30000 - DKT_WAKE_EARLY_MS, false), 2);
    assert_int_equal(s_next(S_NOW + 60000, false), 1);
    assert_int_equal(dkt_wake_count(&s_wake), 0);
}

static void test_wake_keeps_the_earlier_row(void **state)
{
    (void)state;
    s_due(1, S_NOW + 60000);
    s_due(1, S_NOW + 30000);
    s_due(1, S_NOW + 90000);
    assert_int_equal(dkt_wake_count(&s_wake), 1);
    assert_int_equal(s_next(S_NOW + 20000, false), 1);
    assert_int_equal(s_next(S_NOW + 900000, false), -1);
}

static void test_wake_forgets_active_and_lost_ones(void **state)
{
    (void)state;
    s_due(1, 0);
    s_due(2, 0);
    s_event(DKT_WAKE_PROBE, 3);
    s_event(DKT_WAKE_ACTIVE, 1);
    s_event(DKT_WAKE_LOST, 2);
    s_event(DKT_WAKE_LOST, 3);
    s_event(DKT_WAKE_ACTIVE, 4);
    assert_int_equal(s_next(S_NOW, false), -1);
    assert_int_equal(dkt_wake_count(&s_wake), 0);
}

static void test_wake_probes_behind_what_is_due(void **state)
{
    (void)state;
    dkt_client_t client;
    bool is_probe = false;
    s_event(DKT_WAKE_PROBE, 1);
    s_event(DKT_WAKE_PROBE, 2);
    s_event(DKT_WAKE_PROBE, 2);
    s_due(3, 0);
    s_due(4, S_NOW + 60000);
    s_event(DKT_WAKE_PROBE, 4); /* has a row: no probe */
    assert_int_equal(dkt_wake_count(&s_wake), 4);
    assert_int_equal(s_next(S_NOW, false), 3);
    assert_false(dkt_wake_next(&s_wake, S_NOW, 0, DKT_PROBES_MAX, &client, &is_probe));
    assert_int_equal(s_next(S_NOW, true), 1);
    s_due(2, S_NOW + 60000); /* a row came: no probe any more */
    assert_int_equal(s_next(S_NOW, true), -1);
}

static void test_wake_leaves_places_to_requests_and_pauses(void **state)
{
    (void)state;
    dkt_client_t client;
    bool is_probe = false;
    s_due(1, 0);
    assert_false(dkt_wake_next(&s_wake, S_NOW, DKT_WAKE_AHEAD_MAX, 0, &client, &is_probe));
    s_event(DKT_WAKE_PAUSE, 0);
    assert_int_equal(s_next(S_NOW + DKT_WAKE_PAUSE_MS - 1, false), -1);
    assert_int_equal(s_next(S_NOW + DKT_WAKE_PAUSE_MS, false), 1);
}

/* One that was drained before it had loaded has nothing due that it knew of: that must not be
 * taken for nothing at all. */
static void test_wake_only_who_served_knows_what_is_due(void **state)
{
    (void)state;
    assert_int_equal(dkt_wake_after_end(true, true), DKT_WAKE_END_SETTLE);
    assert_int_equal(dkt_wake_after_end(false, true), DKT_WAKE_END_WANTED);
    assert_int_equal(dkt_wake_after_end(true, false), DKT_WAKE_END_KEEP);
    assert_int_equal(dkt_wake_after_end(false, false), DKT_WAKE_END_KEEP);
}

/* -- against a plain list -- */

static int64_t s_model[S_CLIENTS]; /* INT64_MAX: none, -1: probe */

static void s_check_next(int64_t now_ms)
{
    int64_t least_ms = INT64_MAX;
    bool any_probe = false;
    for (int i = 0; i < S_CLIENTS; i++) {
        any_probe = any_probe || s_model[i] == -1;
        least_ms = s_model[i] >= 0 && s_model[i] < least_ms ? s_model[i] : least_ms;
    }
    bool due = least_ms != INT64_MAX && least_ms <= now_ms + DKT_WAKE_EARLY_MS;
    int number = s_next(now_ms, !due);
    if (number < 0) {
        assert_false(due || any_probe);
        return;
    }
    assert_true(s_model[number] == (due ? least_ms : -1));
    s_model[number] = INT64_MAX;
}

static void test_wake_agrees_with_a_plain_list(void **state)
{
    (void)state;
    uint32_t random = 1;
    for (int i = 0; i < S_CLIENTS; i++) {
        s_model[i] = INT64_MAX;
    }
    for (int i = 0; i < S_OPERATIONS; i++) {
        random = random * 1664525u + 1013904223u;
        uint32_t number = (random >> 8) % S_CLIENTS, what = (random >> 24) % 8;
        int64_t due_ms = (random >> 28) % 3 == 0 ? 0 : S_NOW + (random >> 4) % 100000;
        if (what < 4) {
            s_due(number, due_ms);
            if (s_model[number] == -1 || due_ms < s_model[number]) {
                s_model[number] = due_ms;
            }
        } else if (what == 4) {
            s_event(DKT_WAKE_PROBE, number);
            s_model[number] = s_model[number] == INT64_MAX ? -1 : s_model[number];
        } else if (what == 5) {
            s_event(DKT_WAKE_ACTIVE, number);
            s_model[number] = INT64_MAX;
        } else {
            s_check_next(S_NOW + random % 100000);
        }
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, s_setup, s_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_wake_is_early_and_in_order),
        TEST(test_wake_keeps_the_earlier_row),
        TEST(test_wake_forgets_active_and_lost_ones),
        TEST(test_wake_probes_behind_what_is_due),
        TEST(test_wake_leaves_places_to_requests_and_pauses),
        TEST(test_wake_only_who_served_knows_what_is_due),
        TEST(test_wake_agrees_with_a_plain_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
