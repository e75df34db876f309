/* SPDX-License-Identifier: Apache-2.0
 *
 * The slot ledger, case by case: settings, the query, holds, rebooking, limits.
 */
#include "tests/unit/ledger_world.h"

/* -- settings ------------------------------------------------------------------------------------
 */

static void test_ledger_settings_are_checked_and_sorted(void **state)
{
    (void)state;
    dkt_err_t err;
    dkt_settings_t settings = s_small(3, 480, 120, 240);
    assert_int_equal(dkt_settings_check(&settings, &err), DKT_OK);
    assert_string_equal(settings.classes[0].name, "silver");
    assert_int_equal(dkt_settings_class(&settings, "gold", 4), 2);
    assert_int_equal(dkt_settings_class(&settings, "golden", 6), -1);

    settings.resolvers = 0;
    assert_int_equal(dkt_settings_check(&settings, &err), DKT_INVALID_ARGUMENT);
    assert_string_equal(err.field, "resolvers");
    settings = s_small(1, 1, 120, 240);
    assert_int_equal(dkt_settings_check(&settings, &err), DKT_INVALID_ARGUMENT);
    assert_string_equal(err.field, "classes");
    settings = s_small(1, 120, 240, 480);
    settings.classes[SILVER].limit_permille = 300;
    settings.classes[BRONZE].limit_permille = 600;
    assert_int_equal(dkt_settings_check(&settings, &err), DKT_INVALID_ARGUMENT);
    assert_string_equal(err.field, "limits");
}

/* -- the query -----------------------------------------------------------------------------------
 */

static void test_ledger_idle_tenant_admits_119_239_479(void **state)
{
    (void)state;
    static const struct {
        int64_t ms;
        uint16_t resolvers;
        uint8_t class_index;
        unsigned admitted;
    } cases[] = {
        {0, 1, GOLD, 119},     {0, 1, SILVER, 239},   {0, 1, BRONZE, 479},
        {57999, 1, GOLD, 119}, {58000, 1, GOLD, 119}, {58001, 1, GOLD, 118},
        {59999, 1, GOLD, 118}, {30000, 3, GOLD, 357}, {58001, 1, BRONZE, 478},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        s_world_t world;
        dkt_settings_t settings;
        dkt_settings_default(&settings, cases[i].resolvers);
        s_open(&world, settings, s_at(0, cases[i].ms));
        uint32_t first;
        assert_int_equal(
            dkt_ledger_available(world.ledger, world.now_ms, cases[i].class_index, &first),
            cases[i].admitted);
        unsigned admitted = 0;
        while (s_admit(&world, cases[i].class_index) > 0) {
            assert_int_equal(world.moves.count, 0);
            admitted++;
        }
        assert_int_equal(admitted, cases[i].admitted);
        assert_int_equal(
            dkt_ledger_available(world.ledger, world.now_ms, cases[i].class_index, &first), 0);
        s_close(&world);
    }
}

static void test_ledger_takes_the_earliest_minute_and_time_never_goes_back(void **state)
{
    (void)state;
    s_world_t world;
    s_open(&world, s_small(1, 5, 10, 20), s_at(0, 58000));
    assert_int_equal(s_admit(&world, BRONZE), 1);
    world.now_ms = s_at(0, 58001);
    assert_int_equal(s_admit(&world, BRONZE), 2);
    world.now_ms = s_at(-3, 0);
    assert_int_equal(s_admit(&world, GOLD), 3);
    assert_true(world.deadline_ms == s_at(5, 58001));
    s_close(&world);
}

static void test_ledger_cancel_frees_the_slot(void **state)
{
    (void)state;
    s_world_t world;
    s_open(&world, s_small(1, 3, 10, 20), s_at(0, 0));
    assert_int_equal(s_admit(&world, GOLD), 1);
    assert_int_equal(s_admit(&world, GOLD), 2);
    assert_int_equal(s_admit(&world, GOLD), -DKT_VERDICT_NO_SLOT);
    assert_true(dkt_ledger_cancel(world.ledger, world.now_ms, 1));
    assert_false(dkt_ledger_cancel(world.ledger, world.now_ms, 1));
    assert_int_equal(s_admit(&world, GOLD), 1);
    assert_true(dkt_ledger_resolve(world.ledger, world.now_ms, 2));
    assert_int_equal(s_admit(&world, GOLD), 2);
    s_close(&world);
}

/* -- holds ---------------------------------------------------------------------------------------
 */

static void test_ledger_hold_takes_a_slot_that_outlasts_it(void **state)
{
    (void)state;
    s_world_t world;
    s_open(&world, s_small(1, 4, 10, 20), s_at(0, 0));
    assert_int_equal(s_hold(&world, GOLD, 58000), 1);
    assert_true(world.deadline_ms == s_at(0, 58000));
    assert_int_equal(s_hold(&world, GOLD, 58000), 2);
    assert_int_equal(s_hold(&world, BRONZE, 58001), 3);
    assert_int_equal(s_admit(&world, GOLD), -DKT_VERDICT_NO_SLOT);
    s_close(&world);

    /* No slot outlasts it: the last free one, and it expires when that closes. */
    s_open(&world, s_small(1, 4, 10, 20), s_at(0, 0));
    assert_int_equal(s_hold(&world, GOLD, 300000), 3);
    assert_true(world.deadline_ms == s_at(3, -DKT_COMMIT_BUDGET_MS));
    s_close(&world);

    /* A second before its slot closes it would be worth nothing. */
    s_open(&world, s_small(1, 2, 10, 20), s_at(0, 57001));
    assert_int_equal(s_hold(&world, GOLD, 5000), -DKT_VERDICT_NO_SLOT);
    assert_int_equal(s_admit(&world, GOLD), 1);
    s_close(&world);
}

static void test_ledger_hold_resolves_once(void **state)
{
    (void)state;
    s_world_t world;
    dkt_place_t place;
    int64_t deadline_ms;
    s_open(&world, s_small(1, 4, 10, 20), s_at(0, 0));
    assert_int_equal(s_hold(&world, GOLD, 30000), 1);
    int64_t expires_ms = world.deadline_ms;
    int64_t later_ms = s_at(0, 29999);
    assert_int_equal(
        dkt_ledger_allocate(world.ledger, later_ms, 1, expires_ms, 77, &place, &deadline_ms),
        DKT_ALLOCATE_CREATED);
    s_recount(&world);
    assert_true(deadline_ms == s_at(4, 29999));
    assert_int_equal(place.minute, S_BASE + 1);
    assert_int_equal(
        dkt_ledger_allocate(world.ledger, later_ms, 1, expires_ms, 78, &place, &deadline_ms),
        DKT_ALLOCATE_GONE);
    assert_false(dkt_ledger_release(world.ledger, later_ms, 1));

    world.now_ms = later_ms;
    world.next = 2;
    assert_int_equal(s_hold(&world, GOLD, 20000), 2);
    assert_true(dkt_ledger_release(world.ledger, later_ms, 2));
    s_recount(&world);
    assert_int_equal(
        dkt_ledger_allocate(world.ledger, later_ms, 2, world.deadline_ms, 78, &place, &deadline_ms),
        DKT_ALLOCATE_GONE);
    s_close(&world);
}

static void test_ledger_hold_expires_with_any_operation(void **state)
{
    (void)state;
    s_world_t world;
    dkt_place_t place;
    int64_t deadline_ms;
    dkt_ledger_counts_t counts;
    s_open(&world, s_small(1, 2, 10, 20), s_at(0, 0));
    assert_int_equal(s_hold(&world, GOLD, 10000), 1);
    assert_true(dkt_ledger_due_ms(world.ledger) == s_at(0, 10000));
    world.now_ms = s_at(0, 9999);
    assert_int_equal(s_admit(&world, GOLD), -DKT_VERDICT_NO_SLOT);
    world.now_ms = s_at(0, 10000);
    assert_int_equal(
        dkt_ledger_allocate(world.ledger, world.now_ms, 1, s_at(0, 10000), 9, &place, &deadline_ms),
        DKT_ALLOCATE_EXPIRED);
    dkt_ledger_counts(world.ledger, &counts);
    assert_int_equal(counts.held, 0);
    assert_true(dkt_ledger_due_ms(world.ledger) == INT64_MAX);
    assert_int_equal(s_admit(&world, GOLD), 1);
    s_close(&world);
}

static void test_ledger_lost_hold_needs_its_slot_free(void **state)
{
    (void)state;
    s_world_t world;
    dkt_place_t place;
    int64_t deadline_ms;
    s_open(&world, s_small(1, 4, 10, 20), s_at(0, 0));
    assert_true(dkt_ledger_allocate_lost(world.ledger, world.now_ms, GOLD, S_BASE + 2, 1, &place,
                                         &deadline_ms));
    s_recount(&world);
    assert_int_equal(place.minute, S_BASE + 2);
    assert_false(dkt_ledger_allocate_lost(world.ledger, world.now_ms, GOLD, S_BASE + 2, 2, &place,
                                          &deadline_ms));
    assert_false(dkt_ledger_allocate_lost(world.ledger, world.now_ms, GOLD, S_BASE, 2, &place,
                                          &deadline_ms));
    assert_false(dkt_ledger_allocate_lost(world.ledger, world.now_ms, GOLD, S_BASE + 4, 2, &place,
                                          &deadline_ms));
    s_close(&world);
}

/* -- rebooking -----------------------------------------------------------------------------------
 */

static void test_ledger_rebooking_moves_later_deadlines_later(void **state)
{
    (void)state;
    s_world_t world;
    s_open(&world, s_small(1, 3, 5, 8), s_at(0, 0));
    assert_int_equal(s_admit(&world, SILVER), 1); /* ticket 1, may stand until 4 */
    assert_int_equal(s_admit(&world, BRONZE), 2); /* ticket 2, until 7 */
    assert_int_equal(s_admit(&world, GOLD), 2);   /* ticket 3: bronze makes room */
    assert_int_equal(world.moves.count, 1);
    assert_int_equal(world.moves.moves[0].ticket, 2);
    assert_int_equal(world.moves.moves[0].to.minute, S_BASE + 3);
    assert_int_equal(s_admit(&world, GOLD), 1); /* ticket 4: now silver does */
    assert_int_equal(s_minute_of(&world, 1), 4);
    assert_int_equal(s_admit(&world, GOLD), -DKT_VERDICT_NO_SLOT);
    s_close(&world);
}

static void test_ledger_rebooking_makes_chains(void **state)
{
    (void)state;
    s_world_t world;
    s_open(&world, s_small(1, 2, 4, 6), s_at(0, 0));
    assert_int_equal(s_admit(&world, SILVER), 1);
    assert_int_equal(s_admit(&world, BRONZE), 2);
    assert_int_equal(s_admit(&world, BRONZE), 3);
    assert_int_equal(s_admit(&world, GOLD), 1);
    assert_int_equal(world.moves.count, 2);
    assert_int_equal(world.moves.moves[0].ticket, 2); /* the last of the chain goes first */
    assert_int_equal(world.moves.moves[0].to.minute, S_BASE + 4);
    assert_int_equal(world.moves.moves[1].ticket, 1);
    assert_int_equal(world.moves.moves[1].to.minute, S_BASE + 2);
    s_close(&world);
}

static void test_ledger_rebooking_can_be_off_and_never_moves_holds(void **state)
{
    (void)state;
    s_world_t world;
    dkt_settings_t settings = s_small(1, 2, 4, 6);
    settings.rebooking = false;
    s_open(&world, settings, s_at(0, 0));
    assert_int_equal(s_admit(&world, BRONZE), 1);
    assert_int_equal(s_admit(&world, GOLD), -DKT_VERDICT_NO_SLOT);
    s_close(&world);
    s_open(&world, s_small(1, 2, 4, 6), s_at(0, 0));
    assert_int_equal(s_hold(&world, BRONZE, 1000), 1);
    assert_int_equal(s_admit(&world, GOLD), -DKT_VERDICT_NO_SLOT);
    s_close(&world);
}

/* Tickets a minute apart, each in the last minute before the next one's: the chain is as long as
 * the deadlines are many. */
static void test_ledger_refuses_chains_of_more_than_16_moves(void **state)
{
    (void)state;
    for (unsigned length = DKT_MOVES_MAX; length <= DKT_MOVES_MAX + 1; length++) {
        s_world_t world;
        dkt_err_t err;
        s_open(&world, s_small(1, 2, 40, 60), s_at(0, 0));
        for (unsigned i = 1; i <= length; i++) {
            dkt_promise_t promise = {.ticket = i,
                                     .deadline_ms = s_at(i + 2, 0),
                                     .place = {S_BASE + i, 0},
                                     .class_index = SILVER,
                                     .state = DKT_TICKET_OPEN};
            assert_int_equal(dkt_ledger_load_ticket(world.ledger, &promise, &err), DKT_OK);
        }
        dkt_ledger_load_done(world.ledger, world.now_ms, s_note, &world);
        assert_int_equal(world.change_count, 0);
        world.next = 100;
        assert_int_equal(s_admit(&world, GOLD),
                         length <= DKT_MOVES_MAX ? 1 : -DKT_VERDICT_TOO_MANY_MOVES);
        s_close(&world);
    }
}

static void test_ledger_limits_protect_the_urgent(void **state)
{
    (void)state;
    s_world_t world;
    dkt_settings_t settings = s_small(10, 2, 4, 6);
    settings.classes[SILVER].limit_permille = 600;
    settings.classes[BRONZE].limit_permille = 300;
    s_open(&world, settings, s_at(0, 0));
    int in_first = 0;
    int minute;
    while ((minute = s_admit(&world, BRONZE)) > 0) {
        in_first += minute == 1;
    }
    assert_int_equal(minute, -DKT_VERDICT_LIMIT);
    assert_int_equal(in_first, 3);
    in_first = 0;
    while ((minute = s_admit(&world, SILVER)) > 0) {
        in_first += minute == 1;
    }
    assert_int_equal(minute, -DKT_VERDICT_LIMIT);
    assert_int_equal(in_first, 3); /* 6 of 10, nested */
    in_first = 0;
    while ((minute = s_admit(&world, GOLD)) > 0) {
        in_first++;
    }
    assert_int_equal(in_first, 4);
    s_close(&world);
}

static void test_ledger_limits_spread_over_minutes_of_one_resolver(void **state)
{
    (void)state;
    s_world_t world;
    dkt_settings_t settings = s_small(1, 11, 12, 13);
    settings.classes[GOLD].limit_permille = 300;
    settings.classes[SILVER].limit_permille = 300;
    settings.classes[BRONZE].limit_permille = 300;
    s_open(&world, settings, s_at(0, 0));
    unsigned admitted = 0;
    while (s_admit(&world, GOLD) > 0) {
        admitted++;
    }
    assert_int_equal(admitted, 3); /* 3 of 10 minutes */
    s_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ledger_settings_are_checked_and_sorted),
        cmocka_unit_test(test_ledger_idle_tenant_admits_119_239_479),
        cmocka_unit_test(test_ledger_takes_the_earliest_minute_and_time_never_goes_back),
        cmocka_unit_test(test_ledger_cancel_frees_the_slot),
        cmocka_unit_test(test_ledger_hold_takes_a_slot_that_outlasts_it),
        cmocka_unit_test(test_ledger_hold_resolves_once),
        cmocka_unit_test(test_ledger_hold_expires_with_any_operation),
        cmocka_unit_test(test_ledger_lost_hold_needs_its_slot_free),
        cmocka_unit_test(test_ledger_rebooking_moves_later_deadlines_later),
        cmocka_unit_test(test_ledger_rebooking_makes_chains),
        cmocka_unit_test(test_ledger_rebooking_can_be_off_and_never_moves_holds),
        cmocka_unit_test(test_ledger_refuses_chains_of_more_than_16_moves),
        cmocka_unit_test(test_ledger_limits_protect_the_urgent),
        cmocka_unit_test(test_ledger_limits_spread_over_minutes_of_one_resolver),
    };
    return cmocka_run_group_tests_name("ledger", tests, NULL, NULL);
}
