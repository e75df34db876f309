/* SPDX-License-Identifier: Apache-2.0
 *
 * The slot ledger, case by case: dispatch, missed minutes, breaches, resize, questions.
 */
#include "tests/unit/ledger_world.h"

/* -- time at work --------------------------------------------------------------------------------
 */

static void test_ledger_tick_dispatches_and_pulls_forward_by_deadline(void **state)
{
    (void)state;
    s_world_t world;
    s_open(&world, s_small(2, 3, 6, 9), s_at(0, 0));
    assert_int_equal(s_admit(&world, BRONZE), 1); /* 1 */
    assert_int_equal(s_admit(&world, BRONZE), 1); /* 2 */
    assert_int_equal(s_admit(&world, BRONZE), 2); /* 3 */
    assert_int_equal(s_admit(&world, GOLD), 2);   /* 4 */
    assert_true(dkt_ledger_cancel(world.ledger, world.now_ms, 1));
    s_tick(&world, s_at(1, -DKT_COMMIT_BUDGET_MS), 1);
    assert_int_equal(world.change_count, 0); /* still open to booking */
    s_tick(&world, s_at(1, -DKT_COMMIT_BUDGET_MS + 1), 1);
    assert_int_equal(world.change_count, 2);
    assert_int_equal(world.changes[0].promise.ticket, 4);
    assert_int_equal(world.changes[0].from.minute, S_BASE + 2);
    assert_int_equal(world.changes[0].promise.place.minute, S_BASE + 1);
    assert_int_equal(world.changes[1].promise.ticket, 2);
    assert_int_equal(world.changes[1].kind, DKT_CHANGE_DISPATCHED);
    s_tick(&world, world.now_ms, 1);
    assert_int_equal(world.change_count, 0);
    assert_false(dkt_ledger_cancel(world.ledger, world.now_ms, 4));
    assert_true(dkt_ledger_resolve(world.ledger, world.now_ms, 4));
    assert_false(dkt_ledger_resolve(world.ledger, world.now_ms, 4));
    assert_int_equal(s_admit(&world, GOLD), 2);
    s_close(&world);
}

static void test_ledger_late_dispatch_counts_inside_its_minute(void **state)
{
    (void)state;
    s_world_t world;
    s_open(&world, s_small(1, 3, 6, 9), s_at(0, 0));
    assert_int_equal(s_admit(&world, GOLD), 1);
    s_tick(&world, s_at(1, 59999), 1);
    assert_int_equal(world.change_count, 1);
    assert_int_equal(world.changes[0].kind, DKT_CHANGE_DISPATCHED);
    assert_int_equal(world.changes[0].promise.place.minute, S_BASE + 1);
    s_close(&world);
}

static void test_ledger_missed_minute_is_settled_by_a_living_owner(void **state)
{
    (void)state;
    s_world_t world;
    s_open(&world, s_small(1, 3, 6, 9), s_at(0, 0));
    assert_int_equal(s_admit(&world, GOLD), 1);   /* 1: must end by 3 */
    assert_int_equal(s_admit(&world, BRONZE), 2); /* 2 */
    s_tick(&world, s_at(2, -2000), 1);            /* minute 1 is still running */
    assert_int_equal(world.changes[0].promise.ticket, 1);
    s_close(&world);

    s_open(&world, s_small(1, 4, 6, 9), s_at(0, 0));
    assert_int_equal(s_admit(&world, GOLD), 1);   /* 1: may stand until 3 */
    assert_int_equal(s_admit(&world, BRONZE), 2); /* 2 */
    assert_int_equal(s_admit(&world, BRONZE), 3); /* 3 */
    s_tick(&world, s_at(2, 0), 2);
    assert_int_equal(s_minute_of(&world, 1), 3); /* bronze made room, then 2 was dispatched */
    assert_int_equal(s_minute_of(&world, 2), 2);
    assert_int_equal(s_minute_of(&world, 3), 4);
    s_close(&world);
}

static void test_ledger_load_settles_missed_minutes_and_flags_the_rest(void **state)
{
    (void)state;
    s_world_t world;
    dkt_err_t err;
    s_open(&world, s_small(1, 4, 6, 9), s_at(10, 0));
    static const struct {
        int64_t deadline;
        uint32_t minute;
        uint8_t class_index;
    } rows[] = {{9, 5, GOLD}, {12, 8, GOLD}, {12, 9, SILVER}, {14, 12, BRONZE}};
    for (unsigned i = 0; i < 4; i++) {
        dkt_promise_t promise = {.ticket = i + 1,
                                 .deadline_ms = s_at(rows[i].deadline, 0),
                                 .place = {S_BASE + rows[i].minute, 0},
                                 .class_index = rows[i].class_index,
                                 .state = DKT_TICKET_OPEN};
        assert_int_equal(dkt_ledger_load_ticket(world.ledger, &promise, &err), DKT_OK);
        promise.ticket = 50 + i;
        if (rows[i].minute >= 10) {
            assert_int_equal(dkt_ledger_load_ticket(world.ledger, &promise, &err),
                             DKT_INVALID_ARGUMENT);
        }
    }
    dkt_ledger_load_done(world.ledger, s_at(10, 0), s_note, &world);
    s_recount(&world);
    assert_int_equal(s_minute_of(&world, 2), 11); /* the only one that can be kept */
    assert_int_equal(s_minute_of(&world, 4), 12);
    assert_int_equal(s_minute_of(&world, 1), 13); /* earliest deadline first */
    assert_int_equal(s_minute_of(&world, 3), 14);
    assert_int_equal(world.change_count, 4);
    assert_int_equal(world.changes[0].kind, DKT_CHANGE_MOVED);
    assert_int_equal(world.changes[1].kind, DKT_CHANGE_AT_RISK);
    assert_true(world.changes[1].promise.at_risk);
    assert_int_equal(world.changes[2].kind, DKT_CHANGE_AT_RISK);
    assert_int_equal(world.changes[3].kind, DKT_CHANGE_BREACHED);
    assert_int_equal(world.changes[3].promise.ticket, 1);
    s_close(&world);
}

static void test_ledger_breach_is_flagged_after_the_deadline(void **state)
{
    (void)state;
    s_world_t world;
    s_open(&world, s_small(1, 3, 6, 9), s_at(0, 0));
    assert_int_equal(s_admit(&world, GOLD), 1);
    assert_true(dkt_ledger_due_ms(world.ledger) <= s_at(1, -DKT_COMMIT_BUDGET_MS + 1));
    s_tick(&world, s_at(1, 0), 1);
    assert_true(dkt_ledger_due_ms(world.ledger) == s_at(3, 1));
    s_tick(&world, s_at(3, 0), 3);
    assert_int_equal(world.change_count, 0);
    s_tick(&world, s_at(3, 1), 3);
    assert_int_equal(world.change_count, 1);
    assert_int_equal(world.changes[0].kind, DKT_CHANGE_BREACHED);
    assert_int_equal(s_minute_of(&world, 1), -1);
    assert_true(dkt_ledger_due_ms(world.ledger) == INT64_MAX);
    s_close(&world);
}

/* -- resize --------------------------------------------------------------------------------------
 */

static void test_ledger_resize_keeps_every_promise_or_names_blockers(void **state)
{
    (void)state;
    s_world_t world;
    uint64_t blockers[2] = {0};
    uint32_t blocker_count;
    s_open(&world, s_small(2, 3, 6, 9), s_at(0, 0));
    for (int i = 0; i < 4; i++) {
        assert_int_equal(s_admit(&world, GOLD), 1 + i / 2);
    }
    dkt_settings_t settings = s_small(1, 3, 6, 9);
    assert_int_equal(dkt_ledger_resize(&world.ledger, world.now_ms, &settings, s_note, &world,
                                       blockers, 2, &blocker_count),
                     DKT_CONFLICT);
    assert_int_equal(blocker_count, 2);
    assert_int_equal(dkt_ledger_settings(world.ledger)->resolvers, 2);
    s_recount(&world);
    assert_true(dkt_ledger_cancel(world.ledger, world.now_ms, blockers[0]));
    assert_true(dkt_ledger_cancel(world.ledger, world.now_ms, blockers[1]));
    assert_int_equal(dkt_ledger_resize(&world.ledger, world.now_ms, &settings, s_note, &world,
                                       blockers, 2, &blocker_count),
                     DKT_OK);
    s_recount(&world);
    assert_int_equal(dkt_ledger_settings(world.ledger)->resolvers, 1);
    assert_int_equal(s_admit(&world, GOLD), -DKT_VERDICT_NO_SLOT);
    settings.resolvers = 2;
    assert_int_equal(dkt_ledger_resize(&world.ledger, world.now_ms, &settings, s_note, &world,
                                       blockers, 2, &blocker_count),
                     DKT_OK);
    assert_int_equal(s_admit(&world, GOLD), 1);
    s_close(&world);
}

static void test_ledger_resize_keeps_deadlines_of_classes_that_change(void **state)
{
    (void)state;
    s_world_t world;
    uint32_t blocker_count;
    dkt_promise_t promise;
    s_open(&world, s_small(1, 3, 6, 200), s_at(0, 0));
    for (int i = 1; i < 200; i++) {
        assert_int_equal(s_admit(&world, BRONZE), i);
    }
    dkt_settings_t settings = s_small(1, 3, 6, 9);
    settings.class_count = 2;
    assert_int_equal(dkt_ledger_resize(&world.ledger, world.now_ms, &settings, s_note, &world, NULL,
                                       0, &blocker_count),
                     DKT_OK);
    s_recount(&world);
    assert_true(dkt_ledger_find(world.ledger, 199, &promise));
    assert_int_equal(promise.class_index, DKT_CLASS_GONE);
    assert_true(promise.deadline_ms == s_at(200, 0));
    assert_int_equal(promise.place.minute, S_BASE + 199);
    s_close(&world);
}

/* -- questions -----------------------------------------------------------------------------------
 */

static void test_ledger_earliest_is_when_an_arrival_would_fit(void **state)
{
    (void)state;
    s_world_t world;
    int64_t earliest_ms;
    s_open(&world, s_small(1, 3, 6, 9), s_at(0, 1));
    s_tick(&world, s_at(0, 1), 0);
    while (s_admit(&world, SILVER) > 0) {
    }
    assert_int_equal(s_admit(&world, GOLD), -DKT_VERDICT_NO_SLOT);
    assert_true(dkt_ledger_earliest(world.ledger, world.now_ms, GOLD, &earliest_ms));
    assert_true(earliest_ms == s_at(4, 0)); /* 1..5 are full; from 4 on, 6 is within 3 minutes */
    assert_true(dkt_ledger_earliest(world.ledger, world.now_ms, SILVER, &earliest_ms));
    assert_true(earliest_ms == s_at(1, 0));
    for (earliest_ms = s_at(0, 0); earliest_ms < s_at(4, 0);) {
        earliest_ms += DKT_MINUTE_MS;
        s_tick(&world, earliest_ms, (int)(earliest_ms / DKT_MINUTE_MS - S_BASE));
        assert_int_equal(s_admit(&world, GOLD) > 0, earliest_ms == s_at(4, 0));
    }
    s_close(&world);
}

static void test_ledger_memory_is_lean(void **state)
{
    (void)state;
    dkt_settings_t settings;
    dkt_settings_default(&settings, 1);
    assert_true(dkt_ledger_bytes(&settings) <= 48 * 1024);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ledger_tick_dispatches_and_pulls_forward_by_deadline),
        cmocka_unit_test(test_ledger_late_dispatch_counts_inside_its_minute),
        cmocka_unit_test(test_ledger_missed_minute_is_settled_by_a_living_owner),
        cmocka_unit_test(test_ledger_load_settles_missed_minutes_and_flags_the_rest),
        cmocka_unit_test(test_ledger_breach_is_flagged_after_the_deadline),
        cmocka_unit_test(test_ledger_resize_keeps_every_promise_or_names_blockers),
        cmocka_unit_test(test_ledger_resize_keeps_deadlines_of_classes_that_change),
        cmocka_unit_test(test_ledger_earliest_is_when_an_arrival_would_fit),
        cmocka_unit_test(test_ledger_memory_is_lean),
    };
    return cmocka_run_group_tests_name("ledger_time", tests, NULL, NULL);
}
