/* SPDX-License-Identifier: Apache-2.0
 *
 * The directory's decisions, and the activation gate: rows of what was seen and what must follow.
 */
#include "lib/core/directory.h"
#include "lib/core/gate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static dkt_incarnation_t s_who(uint8_t name)
{
    dkt_incarnation_t who = {{0}};
    who.bytes[0] = name;
    return who;
}

static dkt_worker_seen_t s_seen(uint8_t name, uint64_t beat, bool lock_held)
{
    return (dkt_worker_seen_t){.incarnation = s_who(name), .beat = beat, .lock_held = lock_held};
}

/* Polls every 100 ms until `until_ms`; worker 1 beats always, worker 2 as told. Returns the end. */
static int64_t s_watch_for(dkt_watch_t *watch, int64_t at_ms, int64_t until_ms, bool beats,
                           bool lock_held)
{
    static uint64_t beat = 1, still = 1;
    for (; at_ms < until_ms; at_ms += 100) {
        still += beats ? 1 : 0;
        dkt_worker_seen_t seen[] = {s_seen(1, ++beat, true), s_seen(2, still, lock_held)};
        dkt_watch_poll(watch, at_ms, seen, 2);
    }
    return at_ms;
}

static bool s_dead(const dkt_watch_t *watch, uint8_t name)
{
    dkt_incarnation_t who = s_who(name);
    return dkt_watch_find(watch, &who)->dead;
}

static void test_directory_lock_gone_is_dead_at_once(void **state)
{
    (void)state;
    dkt_watch_t watch;
    dkt_watch_reset(&watch);
    int64_t at_ms = s_watch_for(&watch, 1000, 3000, true, true);
    assert_false(s_dead(&watch, 2));
    s_watch_for(&watch, at_ms, at_ms + 100, true, false);
    assert_true(s_dead(&watch, 2));
    assert_false(s_dead(&watch, 1));
}

static void test_directory_silence_is_hung_after_750_ms(void **state)
{
    (void)state;
    dkt_watch_t watch;
    dkt_watch_reset(&watch);
    int64_t at_ms = s_watch_for(&watch, 1000, 3000, true, true);
    at_ms = s_watch_for(&watch, at_ms, at_ms + 700, false, true);
    assert_false(s_dead(&watch, 2));
    at_ms = s_watch_for(&watch, at_ms, at_ms + 200, false, true);
    assert_true(s_dead(&watch, 2));
    /* One that beats again is alive again. */
    s_watch_for(&watch, at_ms, at_ms + 100, true, true);
    assert_false(s_dead(&watch, 2));
}

static void test_directory_nobody_is_dead_in_the_first_second(void **state)
{
    (void)state;
    dkt_watch_t watch;
    dkt_watch_reset(&watch);
    int64_t at_ms = s_watch_for(&watch, 1000, 2000, false, false);
    assert_false(s_dead(&watch, 2));
    s_watch_for(&watch, at_ms, at_ms + 300, false, false);
    assert_true(s_dead(&watch, 2));
}

/* A leader that was stopped for a minute saw one poll before and one after: that is no minute. */
static void test_directory_time_without_polls_counts_for_little(void **state)
{
    (void)state;
    dkt_watch_t watch;
    dkt_watch_reset(&watch);
    int64_t at_ms = s_watch_for(&watch, 1000, 3000, true, true);
    s_watch_for(&watch, at_ms + 60000, at_ms + 60100, false, true);
    assert_false(s_dead(&watch, 2));
}

static void test_directory_members_are_alive_and_stay(void **state)
{
    (void)state;
    dkt_watch_t watch;
    dkt_watch_reset(&watch);
    dkt_worker_seen_t seen[] = {s_seen(3, 1, true), s_seen(1, 1, true), s_seen(2, 1, true),
                                s_seen(4, 1, true)};
    seen[2].leaving = true;
    seen[3].marked_dead = true;
    dkt_watch_poll(&watch, 1000, seen, 4);
    dkt_incarnation_t members[DKT_MEMBERS_MAX];
    assert_int_equal(dkt_watch_members(&watch, members), 2);
    assert_int_equal(members[0].bytes[0], 1);
    assert_int_equal(members[1].bytes[0], 3);
    static dkt_table_t table;
    dkt_table_assign(&table, members, 2);
    assert_true(dkt_table_members_equal(&table, members, 2));
    assert_false(dkt_table_members_equal(&table, members, 1));
    dkt_incarnation_t gone = s_who(2);
    assert_int_equal(dkt_table_member(&table, &gone), -1);
    /* A row that disappears is forgotten. */
    dkt_watch_poll(&watch, 1100, seen, 1);
    assert_int_equal(watch.count, 1);
}

static void test_directory_may_end_a_holder(void **state)
{
    (void)state;
    static const struct {
        const char *why;
        uint8_t holder; /* 1 is ourselves */
        bool known, listed, dead, runs;
        int64_t held_ms, gained_ms;
        bool may;
    } rows[] = {
        {"an operator's session", 9, false, false, false, false, 60000, 60000, false},
        {"declared dead", 2, true, true, true, false, 0, 0, true},
        {"long gone", 2, true, false, false, false, 0, 0, true},
        {"alive, just asked", 2, true, true, false, false, 0, 60000, false},
        {"alive, the table is new", 2, true, true, false, false, 5000, 1999, false},
        {"alive, 2 s on both", 2, true, true, false, false, 2000, 2000, true},
        {"an older one of ours", 1, true, true, false, false, 0, 0, true},
        {"our own actor", 1, true, true, false, true, 60000, 60000, false},
    };
    dkt_incarnation_t self = s_who(1);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dkt_holder_t holder = {.holder = s_who(rows[i].holder),
                               .holder_known = rows[i].known,
                               .holder_listed = rows[i].listed,
                               .holder_dead = rows[i].dead,
                               .self_runs_it = rows[i].runs,
                               .held_for_ms = rows[i].held_ms,
                               .gained_ago_ms = rows[i].gained_ms};
        if (dkt_holder_may_end(&self, &holder) != rows[i].may) {
            fail_msg("%s", rows[i].why);
        }
    }
}

static void test_directory_gate_bounds_activations(void **state)
{
    (void)state;
    dkt_gate_t gate = {0};
    for (int i = 0; i < DKT_ACTIVATIONS_FAILED_MAX; i++) {
        assert_true(dkt_gate_enter(&gate, true));
    }
    assert_false(dkt_gate_enter(&gate, true));
    for (int i = DKT_ACTIVATIONS_FAILED_MAX; i < DKT_ACTIVATIONS_MAX; i++) {
        assert_true(dkt_gate_enter(&gate, false));
    }
    assert_false(dkt_gate_enter(&gate, false));
    dkt_gate_leave(&gate, true);
    assert_true(dkt_gate_enter(&gate, true));
    dkt_gate_leave(&gate, false);
    assert_true(dkt_gate_enter(&gate, false));
}

static void test_directory_backoff_is_jittered_and_bounded(void **state)
{
    (void)state;
    assert_int_equal(dkt_backoff_ms(1, 50, 2000, 0), 1);
    assert_int_equal(dkt_backoff_ms(1, 50, 2000, UINT32_MAX), 50);
    assert_int_equal(dkt_backoff_ms(3, 50, 2000, UINT32_MAX), 200);
    assert_int_equal(dkt_backoff_ms(3, 50, 2000, UINT32_MAX / 2), 100);
    assert_int_equal(dkt_backoff_ms(UINT32_MAX, 50, 2000, UINT32_MAX), 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_directory_lock_gone_is_dead_at_once),
        cmocka_unit_test(test_directory_silence_is_hung_after_750_ms),
        cmocka_unit_test(test_directory_nobody_is_dead_in_the_first_second),
        cmocka_unit_test(test_directory_time_without_polls_counts_for_little),
        cmocka_unit_test(test_directory_members_are_alive_and_stay),
        cmocka_unit_test(test_directory_may_end_a_holder),
        cmocka_unit_test(test_directory_gate_bounds_activations),
        cmocka_unit_test(test_directory_backoff_is_jittered_and_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
