/* SPDX-License-Identifier: Apache-2.0
 *
 * The slot ledger, case by case. Time starts at minute 0 of the tests (`s_at (0, 0)`), the ledger
 * is recounted after every operation.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "lib/core/ledger.h"

#define S_BASE    28000000u /* minute 0 of the tests */
#define S_CHANGES 64
#define GOLD      0
#define SILVER    1
#define BRONZE    2

typedef struct {
    dkt_ledger_t *ledger;
    int64_t now_ms;
    uint64_t next; /* ticket or nonce */
    dkt_place_t place;
    int64_t deadline_ms; /* or when the hold expires */
    dkt_moves_t moves;
    dkt_change_t changes[S_CHANGES];
    unsigned change_count;
} s_world_t;

static int64_t s_at(int64_t minute, int64_t ms)
{
    return ((int64_t)S_BASE + minute) * DKT_MINUTE_MS + ms;
}

/* Three classes of few minutes keep the cases small. */
static dkt_settings_t s_small(uint16_t resolvers, uint16_t gold, uint16_t silver, uint16_t bronze)
{
    dkt_settings_t settings;
    dkt_settings_default(&settings, resolvers);
    settings.classes[GOLD].level_minutes = gold;
    settings.classes[SILVER].level_minutes = silver;
    settings.classes[BRONZE].level_minutes = bronze;
    return settings;
}

static void s_open(s_world_t *world, dkt_settings_t settings, int64_t now_ms)
{
    dkt_err_t err;
    memset(world, 0, sizeof *world);
    assert_int_equal(dkt_settings_check(&settings, &err), DKT_OK);
    world->ledger = dkt_ledger_new(&settings, now_ms);
    assert_non_null(world->ledger);
    world->now_ms = now_ms;
    world->next = 1;
}

static void s_close(s_world_t *world)
{
    dkt_ledger_destroy(&world->ledger);
    assert_null(world->ledger);
}

static void s_recount(const s_world_t *world)
{
    dkt_err_t err = {0};
    if (!dkt_ledger_check(world->ledger, &err)) {
        fail_msg("%s", err.text);
    }
}

static void s_note(void *ctx, const dkt_change_t *change)
{
    s_world_t *world = ctx;
    assert_true(world->change_count < S_CHANGES);
    world->changes[world->change_count++] = *change;
}

/* The slot's minute of the tests, or minus the verdict. */
static int s_admit(s_world_t *world, uint8_t class_index)
{
    dkt_verdict_t verdict = dkt_ledger_admit(world->ledger, world->now_ms, class_index, world->next,
                                             &world->place, &world->deadline_ms, &world->moves);
    s_recount(world);
    if (verdict != DKT_VERDICT_YES) {
        return -(int)verdict;
    }
    world->next++;
    return (int)(world->place.minute - S_BASE);
}

static int s_hold(s_world_t *world, uint8_t class_index, uint32_t ttl_ms)
{
    dkt_verdict_t verdict =
        dkt_ledger_hold(world->ledger, world->now_ms, class_index, ttl_ms, world->next,
                        &world->place, &world->deadline_ms, &world->moves);
    s_recount(world);
    if (verdict != DKT_VERDICT_YES) {
        return -(int)verdict;
    }
    world->next++;
    return (int)(world->place.minute - S_BASE);
}

static void s_tick(s_world_t *world, int64_t now_ms, int minute)
{
    world->now_ms = now_ms;
    world->change_count = 0;
    dkt_ledger_tick(world->ledger, now_ms, S_BASE + (uint32_t)minute, s_note, world);
    s_recount(world);
}

static int s_minute_of(const s_world_t *world, uint64_t ticket)
{
    dkt_promise_t promise;
    return dkt_ledger_find(world->ledger, ticket, &promise) ? (int)(promise.place.minute - S_BASE)
                                                            : -1;
}

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
    return cmocka_run_group_tests_name("ledger", tests, NULL, NULL);
}
