/* SPDX-License-Identifier: Apache-2.0
 *
 * What a tenant writes unasked may be put off for a while; as soon as a request, a look-up or an
 * operator stands behind it, it may not. And the rehearsal of the first dispatch.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/support_tenant.h"

/* Its ticket stands in the coming minute, whose dispatch is decided and not sent. */
static bench_t *s_dispatching(uint64_t *number)
{
    bench_t *bench = bench_serving(1);
    uint32_t created = bench_create(bench, "gold", bench_new_id(bench, 1));
    assert_false(dkt_tenant_background(bench->core)); /* somebody waits for this one */
    bench_flush(bench);
    bench_ok(bench);
    *number = bench_number(bench, created);
    assert_false(dkt_tenant_background(bench->core));
    bench->mono_ms += DKT_MINUTE_MS;
    bench->db_ms += DKT_MINUTE_MS;
    bench_kind(bench, DKT_TEV_TICK);
    assert_int_equal(bench->batch_count, 0);
    assert_true(dkt_tenant_background(bench->core));
    return bench;
}

static void test_tenant_dispatch_may_be_put_off(void **state)
{
    (void)state;
    uint64_t number;
    bench_t *bench = s_dispatching(&number);
    bench->mono_ms += DKT_TURN_WAIT_MS;
    bench_kind(bench, DKT_TEV_TICK);
    assert_int_equal(bench->batch_count, 0);
    assert_true(dkt_tenant_background(bench->core));
    bench_flush(bench);
    assert_int_equal(bench_batch(bench, DKT_BATCH_COMMIT)->commit.update_count, 1);
    assert_false(dkt_tenant_background(bench->core)); /* it is on its way */
    bench_settle(bench);
    bench_destroy(&bench);
}

static void test_tenant_request_takes_a_dispatch_along(void **state)
{
    (void)state;
    uint64_t number;
    bench_t *bench = s_dispatching(&number);
    uint32_t cancelled = bench_ticket(bench, DKT_METHOD_CANCEL_TICKET, number);
    assert_false(dkt_tenant_background(bench->core));
    bench_flush(bench);
    assert_int_equal(bench_batch(bench, DKT_BATCH_COMMIT)->commit.update_count, 1);
    bench_settle(bench);
    bench_expect(bench, cancelled, "too_late");
    bench_destroy(&bench);
}

static void test_tenant_nobody_waits_behind_what_is_put_off(void **state)
{
    (void)state;
    uint64_t number;
    bench_t *bench = s_dispatching(&number);
    uint32_t listed = bench_simple(bench, DKT_METHOD_LIST_TICKETS); /* a look into the database */
    assert_false(dkt_tenant_background(bench->core));
    bench_flush(bench);
    bench_settle(bench);
    assert_true(bench_answered(bench, listed));
    bench_destroy(&bench);

    bench = s_dispatching(&number);
    bench_step(bench, &(dkt_tenant_event_t){.kind = DKT_TEV_MIGRATE, .schema_version = 2});
    assert_false(dkt_tenant_background(bench->core)); /* the step of the schema waits for quiet */
    bench_flush(bench);
    bench_settle(bench);
    bench_destroy(&bench);

    bench = s_dispatching(&number);
    bench_kind(bench, DKT_TEV_DRAIN);
    assert_false(dkt_tenant_background(bench->core)); /* the successor waits */
    bench_flush(bench);
    bench_settle(bench);
    assert_int_equal(dkt_tenant_state(bench->core), DKT_TENANT_ENDED);
    bench_destroy(&bench);
}

/* -- rehearsal -- */

/* A tenant with one open ticket that will rehearse; the minute begins in 40 s. */
static bench_t *s_rehearsing(void)
{
    bench_t *bench = bench_new_rehearsing(1);
    bench_activate(bench);
    bench_flush(bench);
    assert_int_equal(dkt_tenant_due_mono_ms(bench->core), INT64_MAX); /* nothing to dispatch */
    (void)bench_create(bench, "gold", bench_new_id(bench, 1));
    bench_flush(bench);
    bench_ok(bench);
    bench_advance(bench, 1); /* the minute that has begun is passed over */
    return bench;
}

static void test_tenant_rehearses_once_before_its_first_dispatch(void **state)
{
    (void)state;
    bench_t *bench = s_rehearsing();
    int64_t wait_ms = dkt_tenant_due_mono_ms(bench->core) - bench->mono_ms;
    assert_in_range(wait_ms, 1, 38000);
    bench->mono_ms += wait_ms;
    bench->db_ms += wait_ms;
    bench_kind(bench, DKT_TEV_TICK);
    assert_true(dkt_tenant_background(bench->core)); /* it takes its turn */
    bench_flush(bench);
    (void)bench_batch(bench, DKT_BATCH_REHEARSE);
    bench_ok(bench);
    assert_int_equal(bench->batch_count, 0);
    bench_advance(bench, 60000);
    assert_int_equal(bench_batch(bench, DKT_BATCH_COMMIT)->commit.update_count, 1);
    bench_settle(bench);
    bench_destroy(&bench);
}

static void test_tenant_needs_no_rehearsal_after_a_dispatch(void **state)
{
    (void)state;
    bench_t *bench = s_rehearsing();
    bench_advance(bench, 60000); /* nobody gave it a turn before */
    assert_int_equal(bench_batch(bench, DKT_BATCH_COMMIT)->commit.update_count, 1);
    bench_ok(bench);
    assert_int_equal(bench->batch_count, 0);
    bench_destroy(&bench);
}

static void test_tenant_rehearsal_stands_behind_requests(void **state)
{
    (void)state;
    bench_t *bench = s_rehearsing();
    int64_t wait_ms = dkt_tenant_due_mono_ms(bench->core) - bench->mono_ms;
    uint32_t created = bench_create(bench, "gold", bench_new_id(bench, 2));
    bench_flush(bench);
    bench_advance(bench, wait_ms);
    assert_int_equal(bench->batch_count, 1);
    (void)bench_batch(bench, DKT_BATCH_COMMIT);
    bench_ok(bench);
    bench_expect(bench, created, "created");
    (void)bench_batch(bench, DKT_BATCH_REHEARSE);
    bench_settle(bench);
    bench_destroy(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tenant_dispatch_may_be_put_off),
        cmocka_unit_test(test_tenant_request_takes_a_dispatch_along),
        cmocka_unit_test(test_tenant_nobody_waits_behind_what_is_put_off),
        cmocka_unit_test(test_tenant_rehearses_once_before_its_first_dispatch),
        cmocka_unit_test(test_tenant_needs_no_rehearsal_after_a_dispatch),
        cmocka_unit_test(test_tenant_rehearsal_stands_behind_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
