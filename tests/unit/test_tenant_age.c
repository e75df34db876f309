/* SPDX-License-Identifier: Apache-2.0
 *
 * When the owner drops what is old: in small steps, at quiet moments, never between a look-up and
 * what it decides, and never to the cost of a promise.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "lib/core/revoked.h"
#include "tests/unit/support_tenant.h"

#define DAY_MS  INT64_C(86400000)
#define SOON_MS 200

static bench_t *s_aging(bool at_once)
{
    dkt_age_config_t age = dkt_age_config(DKT_AGE_ROUND_MS);
    age.at_once = at_once;
    bench_t *bench = bench_new_aging(1, &age);
    bench_activate(bench);
    return bench;
}

/* One whose first round is due soon, long before the minute closes. */
static bench_t *s_soon(void)
{
    dkt_age_config_t age = dkt_age_config(DKT_AGE_ROUND_MS);
    age.first_ms = SOON_MS / 2;
    bench_t *bench = bench_new_aging(1, &age);
    bench_activate(bench);
    return bench;
}

/* New to a tenant that never had a ticket. */
static dkt_uuid_t s_id(const bench_t *bench, uint8_t n)
{
    const uint8_t random[10] = {n};
    return dkt_uuid_v7(bench->db_ms, random);
}

static void s_first_due(bench_t *bench)
{
    bench_advance(bench, 2 * DKT_AGE_FIRST_MS);
}

static const dkt_age_step_t *s_age(bench_t *bench, dkt_age_kind_t kind)
{
    const dkt_batch_t *batch = bench_batch(bench, DKT_BATCH_AGE);
    assert_int_equal(batch->age.kind, kind);
    assert_int_equal(batch->epoch, bench->taken.epoch);
    assert_int_equal(batch->age.keep, 1);
    return &batch->age;
}

static void test_tenant_age_a_round_walks_through_the_kinds(void **state)
{
    (void)state;
    bench_t *bench = s_aging(false);
    bench_advance(bench, DKT_AGE_FIRST_MS - 1);
    assert_int_equal(bench->batch_count, 0);
    bench_advance(bench, DKT_AGE_FIRST_MS + 1);
    const dkt_age_step_t *step = s_age(bench, DKT_AGE_REQUEST_IDS);
    assert_int_equal(step->before_ms, bench->db_ms - 2 * DAY_MS);
    assert_int_equal(step->after, 0);
    assert_int_equal(step->limit, DKT_AGE_STEP_IDS);
    bench_aged(bench, 100, 417, true, 0);
    assert_int_equal(bench->batch_count, 0); /* others have their turn first */
    bench_advance(bench, DKT_AGE_PAUSE_MS);
    assert_int_equal(s_age(bench, DKT_AGE_REQUEST_IDS)->after, 417);
    bench_aged(bench, 3, 420, false, 0);
    bench_advance(bench, DKT_AGE_PAUSE_MS);
    step = s_age(bench, DKT_AGE_TICKETS);
    assert_int_equal(step->after, 0);
    assert_int_equal(step->before_ms, bench->db_ms);
    bench_aged(bench, 0, 0, false, 0); /* nothing found: on at once */
    step = s_age(bench, DKT_AGE_JOURNAL);
    assert_int_equal(step->before_ms, bench->db_ms - 7 * DAY_MS);
    assert_int_equal(step->unpublished_before_ms, bench->db_ms - 30 * DAY_MS);
    bench_aged(bench, 0, 0, false, 0);
    (void)s_age(bench, DKT_AGE_REST);
    bench_aged(bench, 0, 0, false, 0);
    assert_int_equal(bench->batch_count, 0);
    bench_advance(bench, DKT_AGE_ROUND_MS - 1);
    assert_int_equal(bench->batch_count, 0);
    bench_advance(bench, 1);
    (void)s_age(bench, DKT_AGE_REQUEST_IDS);
    bench_destroy(&bench);
}

static void test_tenant_age_a_round_ends(void **state)
{
    (void)state;
    bench_t *bench = s_aging(true);
    bench_flush(bench);
    for (uint32_t i = 1; i <= DKT_AGE_STEPS_MAX; i++) {
        (void)s_age(bench, DKT_AGE_REQUEST_IDS);
        bench_aged(bench, 100, 100 * i, true, 0);
        bench_advance(bench, DKT_AGE_PAUSE_MS);
    }
    assert_int_equal(s_age(bench, DKT_AGE_TICKETS)->after, 0);
    bench_destroy(&bench);
}

static void test_tenant_age_waits_for_a_quiet_moment(void **state)
{
    (void)state;
    bench_t *bench = s_soon();
    uint32_t created = bench_create(bench, "gold", s_id(bench, 1));
    bench_flush(bench);
    (void)bench_batch(bench, DKT_BATCH_COMMIT);
    bench_advance(bench, SOON_MS + DKT_AGE_PATIENCE_MS);
    /* long overdue by now: behind the group in flight, which is all there is */
    assert_int_equal(bench->batch_count, 2);
    assert_int_equal(bench->batches[1].kind, DKT_BATCH_AGE);
    /* and a group does not wait for it longer than it takes */
    bench_ok(bench);
    bench_expect(bench, created, "created");
    bench_create(bench, "gold", s_id(bench, 2));
    bench_flush(bench);
    assert_int_equal(bench->batches[1].kind, DKT_BATCH_COMMIT);
    bench_destroy(&bench);
}

static void test_tenant_age_a_short_wait_is_no_hurry(void **state)
{
    (void)state;
    bench_t *bench = s_soon();
    bench_create(bench, "gold", s_id(bench, 1));
    bench_flush(bench);
    assert_int_equal(bench->batch_count, 1);
    (void)bench_batch(bench, DKT_BATCH_COMMIT);
    bench_advance(bench, SOON_MS);
    assert_int_equal(bench->batch_count, 1);
    bench_ok(bench);
    (void)s_age(bench, DKT_AGE_REQUEST_IDS);
    bench_destroy(&bench);
}

/* What was looked up is decided and sent before anything is dropped: else a group could change a
 * row that is gone. */
static void test_tenant_age_never_between_a_lookup_and_its_decision(void **state)
{
    (void)state;
    bench_t *bench = s_soon();
    const uint8_t gold[] = "gold";
    dkt_ticket_row_t row = {.number = 7,
                            .class_name = {gold, 4},
                            .state = DKT_TICKET_DISPATCHED,
                            .breached = true,
                            .created_ms = bench->db_ms - 500 * DAY_MS,
                            .dispatched_ms = bench->db_ms - 500 * DAY_MS + 1,
                            .deadline_ms = bench->db_ms - 499 * DAY_MS};
    bench_create(bench, "gold", s_id(bench, 1));
    bench_flush(bench); /* COMMIT */
    uint32_t resolve = bench_ticket(bench, DKT_METHOD_RESOLVE_TICKET, 7);
    bench_flush(bench); /* READ */
    bench_advance(bench, SOON_MS + DKT_AGE_PATIENCE_MS);
    assert_int_equal(bench->batch_count, 2);
    bench_ok(bench); /* the COMMIT: the READ is still open */
    assert_int_equal(bench->batch_count, 1);
    bench_rows(bench, &row, 1, 0);
    /* decided, and on its way first */
    assert_int_equal(bench_batch(bench, DKT_BATCH_COMMIT)->commit.update_count, 1);
    assert_int_equal(bench->batch_count, 2);
    assert_int_equal(bench->batches[1].kind, DKT_BATCH_AGE);
    bench_ok(bench);
    bench_expect(bench, resolve, "resolved");
    bench_destroy(&bench);
}

static void test_tenant_age_pressed_it_goes_before_the_next_lookup(void **state)
{
    (void)state;
    bench_t *bench = s_soon();
    bench_ticket(bench, DKT_METHOD_GET_TICKET, 7);
    bench_flush(bench);
    (void)bench_batch(bench, DKT_BATCH_READ);
    uint32_t second = bench_ticket(bench, DKT_METHOD_GET_TICKET, 8);
    bench_advance(bench, SOON_MS + DKT_AGE_PATIENCE_MS);
    assert_int_equal(bench->batch_count, 1);
    bench_rows(bench, NULL, 0, 0);
    assert_int_equal(bench->batch_count, 2);
    (void)s_age(bench, DKT_AGE_REQUEST_IDS);
    assert_int_equal(bench->batches[1].kind, DKT_BATCH_READ);
    bench_aged(bench, 0, 0, false, 0);
    bench_rows(bench, NULL, 0, 0);
    assert_true(bench_answered(bench, second));
    bench_destroy(&bench);
}

static void test_tenant_age_a_probe_stays_for_one_round(void **state)
{
    (void)state;
    bench_t *bench = s_aging(true);
    assert_false(dkt_tenant_idle(bench->core, bench->mono_ms));
    bench_flush(bench);
    bench_aged(bench, 100, 100, true, 0);
    assert_false(dkt_tenant_idle(bench->core, bench->mono_ms));
    bench_advance(bench, DKT_AGE_PAUSE_MS);
    for (int i = 0; i < DKT_AGE_COUNT; i++) {
        assert_false(dkt_tenant_idle(bench->core, bench->mono_ms));
        bench_aged(bench, 0, 0, false, 0);
    }
    assert_true(dkt_tenant_idle(bench->core, bench->mono_ms));
    bench_advance(bench, DKT_AGE_ROUND_MS); /* the next one keeps nobody awake */
    (void)s_age(bench, DKT_AGE_REQUEST_IDS);
    assert_true(dkt_tenant_idle(bench->core, bench->mono_ms));
    bench_kind(bench, DKT_TEV_DRAIN);
    bench_flush(bench);
    bench_aged(bench, 100, 100, true, 0);
    bench_settle(bench);
    assert_int_equal(dkt_tenant_state(bench->core), DKT_TENANT_ENDED);
    assert_true(dkt_tenant_end(bench->core)->clean);
    bench_destroy(&bench);
    bench = s_aging(false);
    assert_true(dkt_tenant_idle(bench->core, bench->mono_ms));
    bench_destroy(&bench);
}

static void test_tenant_age_a_replaced_owner_ends(void **state)
{
    (void)state;
    bench_t *bench = s_aging(true);
    bench_flush(bench);
    bench_fail(bench, DKT_STORE_REFUSED, "DK001");
    assert_int_equal(dkt_tenant_state(bench->core), DKT_TENANT_ENDED);
    assert_true(dkt_tenant_end(bench->core)->stale);
    bench_destroy(&bench);
}

/* A step's success is durable only soon: it must not let an answer go that wants proof. */
static void test_tenant_age_proves_nothing(void **state)
{
    (void)state;
    bench_t *bench = s_aging(false);
    s_first_due(bench);
    (void)s_age(bench, DKT_AGE_REQUEST_IDS);
    uint32_t asked = bench_simple(bench, DKT_METHOD_AVAILABILITY);
    bench_flush(bench);
    bench_aged(bench, 0, 0, false, 0);
    assert_false(bench_answered(bench, asked));
    (void)bench_batch(bench, DKT_BATCH_GUARD);
    bench_ok(bench);
    assert_true(bench_answered(bench, asked));
    bench_destroy(&bench);
}

static void test_tenant_age_lost_events_are_told_once(void **state)
{
    (void)state;
    bench_t *bench = s_aging(true);
    bench_flush(bench);
    bench_aged(bench, 0, 0, false, 0);
    bench_aged(bench, 0, 0, false, 0);
    assert_int_equal(bench->error_count, 0);
    (void)s_age(bench, DKT_AGE_JOURNAL);
    bench_aged(bench, 250, 250, true, 17);
    assert_int_equal(bench->error_count, 1);
    bench_advance(bench, DKT_AGE_PAUSE_MS);
    bench_aged(bench, 250, 500, true, 250);
    assert_int_equal(bench->error_count, 1);
    bench_destroy(&bench);
}

/* 48 h are over while the owner lives: its memory says done, the row is gone. */
static void test_tenant_age_a_dropped_request_id_is_decided_anew(void **state)
{
    (void)state;
    bench_t *bench = s_aging(false);
    dkt_uuid_t id = s_id(bench, 1);
    uint32_t first = bench_create(bench, "gold", id);
    bench_flush(bench);
    bench_settle(bench);
    uint32_t cancel = bench_ticket(bench, DKT_METHOD_CANCEL_TICKET, bench_number(bench, first));
    bench_flush(bench);
    bench_settle(bench);
    bench_expect(bench, cancel, "cancelled");
    uint32_t again = bench_create(bench, "gold", id);
    uint32_t twice = bench_create(bench, "gold", id);
    bench_flush(bench);
    bench_rows(bench, NULL, 0, 0);
    bench_settle(bench);
    bench_expect(bench, again, "created");
    assert_int_equal(bench_number(bench, again), bench_number(bench, first) + 1);
    assert_int_equal(bench_number(bench, twice), bench_number(bench, again));
    bench_destroy(&bench);
}

static void test_tenant_age_dead_tokens_stay_dead_until_they_expire(void **state)
{
    (void)state;
    dkt_revoked_set_t set = {.slots = NULL};
    uint8_t token_id[DKT_TOKEN_ID_BYTES] = {0};
    enum { TOKENS = 200 };
    for (uint8_t i = 0; i < TOKENS; i++) {
        token_id[0] = i;
        assert_true(dkt_revoked_add(&set, token_id, 1000 + i, 1));
    }
    dkt_revoked_forget(&set, 1100);
    assert_int_equal(set.count, TOKENS - 101);
    for (uint8_t i = 0; i < TOKENS; i++) {
        token_id[0] = i;
        assert_int_equal(dkt_revoked_has(&set, token_id), i > 100);
    }
    dkt_revoked_forget(&set, 9999);
    assert_int_equal(set.count, 0);
    dkt_revoked_fini(&set);
    dkt_revoked_forget(&set, 1);

    /* what the set has forgotten is refused as expired, whatever the broker's clock says */
    bench_t *bench = bench_serving(1);
    bench->origin = DKT_AUDIENCE_PUBLIC;
    bench->token_issued_ms = bench->db_ms;
    bench->token_ttl_ms = -1;
    uint32_t asked = bench_simple(bench, DKT_METHOD_AVAILABILITY);
    bench_settle(bench);
    bench_expect_error(bench, asked, DKT_UNAUTHENTICATED, NULL);
    bench_destroy(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tenant_age_a_round_walks_through_the_kinds),
        cmocka_unit_test(test_tenant_age_a_round_ends),
        cmocka_unit_test(test_tenant_age_waits_for_a_quiet_moment),
        cmocka_unit_test(test_tenant_age_a_short_wait_is_no_hurry),
        cmocka_unit_test(test_tenant_age_never_between_a_lookup_and_its_decision),
        cmocka_unit_test(test_tenant_age_pressed_it_goes_before_the_next_lookup),
        cmocka_unit_test(test_tenant_age_a_probe_stays_for_one_round),
        cmocka_unit_test(test_tenant_age_a_replaced_owner_ends),
        cmocka_unit_test(test_tenant_age_proves_nothing),
        cmocka_unit_test(test_tenant_age_lost_events_are_told_once),
        cmocka_unit_test(test_tenant_age_a_dropped_request_id_is_decided_anew),
        cmocka_unit_test(test_tenant_age_dead_tokens_stay_dead_until_they_expire),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
