/* SPDX-License-Identifier: Apache-2.0
 *
 * A tenant core and steps of its schema: when a step goes out, what waits for it, and that no
 * failure of a step is one of the tenant.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/support_tenant.h"

static void s_ask(bench_t *bench, int32_t version)
{
    bench_step(bench, &(dkt_tenant_event_t){.kind = DKT_TEV_MIGRATE, .schema_version = version});
    bench_flush(bench);
}

static void test_tenant_migrate_runs_between_two_groups(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    uint32_t first = bench_create(bench, "gold", bench_new_id(bench, 1));
    bench_flush(bench);
    uint32_t second = bench_create(bench, "gold", bench_new_id(bench, 2)); /* gathers */
    s_ask(bench, 2);
    uint32_t third = bench_create(bench, "gold", bench_new_id(bench, 3)); /* is not decided yet */
    (void)bench_batch(bench, DKT_BATCH_COMMIT);
    bench_ok(bench);
    bench_expect(bench, first, "created");
    assert_int_equal(bench_batch(bench, DKT_BATCH_COMMIT)->commit.insert_count, 1);
    bench_ok(bench);
    bench_expect(bench, second, "created");
    const dkt_batch_t *step = bench_batch(bench, DKT_BATCH_MIGRATE);
    assert_int_equal(step->migrate_target, 2);
    assert_int_equal(step->epoch, 1);
    assert_int_equal(bench->batch_count, 1);
    assert_false(bench_answered(bench, third));
    bench->migrate.schema_version = 2;
    bench_ok(bench);
    assert_int_equal(bench->migrated_count, 1);
    assert_int_equal(bench->migrated.outcome, DKT_MIGRATE_RAN);
    assert_int_equal(bench->migrated.version, 2);
    assert_int_equal(bench_batch(bench, DKT_BATCH_COMMIT)->commit.insert_count, 1);
    bench_ok(bench);
    bench_expect(bench, third, "created");
    bench_destroy(&bench);
}

static void test_tenant_migrate_failure_is_told_and_the_tenant_serves(void **state)
{
    (void)state;
    static const struct {
        const char *sqlstate;
        dkt_migrate_outcome_t outcome;
    } rows[] = {
        {"55P03", DKT_MIGRATE_LATER},  /* lock_timeout */
        {"57014", DKT_MIGRATE_LATER},  /* statement_timeout */
        {"40P01", DKT_MIGRATE_LATER},  /* deadlock */
        {"42P01", DKT_MIGRATE_FAILED}, /* no such table */
        {"DK004", DKT_MIGRATE_FAILED}, /* no such step */
    };
    bench_t *bench = bench_serving(1);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        bench->migrate.schema_version = 1;
        snprintf(bench->migrate.sqlstate, sizeof bench->migrate.sqlstate, "%s", rows[i].sqlstate);
        s_ask(bench, 2);
        bench_ok(bench);
        assert_int_equal(bench->migrated.outcome, rows[i].outcome);
        assert_int_equal(bench->migrated.version, 1);
        uint32_t msgid = bench_create(bench, "gold", bench_new_id(bench, (uint8_t)i));
        bench_settle(bench);
        bench_expect(bench, msgid, "created");
    }
    assert_int_equal(bench->migrated_count, sizeof rows / sizeof rows[0]);
    bench_destroy(&bench);
}

static void test_tenant_migrate_asked_twice_is_one_step(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    s_ask(bench, 2);
    s_ask(bench, 2);
    assert_int_equal(bench->batch_count, 1);
    assert_false(dkt_tenant_idle(bench->core, bench->mono_ms));
    bench->migrate.schema_version = 2;
    bench_ok(bench);
    assert_int_equal(bench->batch_count, 0);
    assert_int_equal(bench->migrated_count, 1);
    assert_true(dkt_tenant_idle(bench->core, bench->mono_ms));
    bench_destroy(&bench);
}

static void test_tenant_migrate_stale_owner_ends(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    s_ask(bench, 2);
    bench_fail(bench, DKT_STORE_REFUSED, "DK001");
    assert_int_equal(dkt_tenant_state(bench->core), DKT_TENANT_ENDED);
    assert_true(dkt_tenant_end(bench->core)->stale);
    assert_int_equal(bench->migrated_count, 0);
    bench_destroy(&bench);
}

static void test_tenant_migrate_is_awaited_by_a_drain(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    s_ask(bench, 2);
    bench_kind(bench, DKT_TEV_DRAIN);
    bench_flush(bench);
    (void)bench_batch(bench, DKT_BATCH_MIGRATE);
    assert_int_equal(dkt_tenant_state(bench->core), DKT_TENANT_DRAINING);
    bench_ok(bench);
    bench_settle(bench);
    assert_int_equal(dkt_tenant_state(bench->core), DKT_TENANT_ENDED);
    assert_true(dkt_tenant_end(bench->core)->clean);
    bench_destroy(&bench);
}

/* While it was being activated: before anything that waited is decided. */
static void test_tenant_migrate_asked_early_comes_first(void **state)
{
    (void)state;
    bench_t *bench = bench_new(1);
    bench_kind(bench, DKT_TEV_CONNECTED);
    bench_step(bench, &(dkt_tenant_event_t){.kind = DKT_TEV_MIGRATE, .schema_version = 2});
    uint32_t msgid = bench_create(bench, "gold", bench_old_id(1));
    bench_ok(bench); /* lock */
    bench_ok(bench); /* take */
    bench_ok(bench); /* load */
    (void)bench_batch(bench, DKT_BATCH_MIGRATE);
    assert_int_equal(bench->batch_count, 1);
    bench->migrate.schema_version = 2;
    bench_ok(bench);
    bench_settle(bench);
    bench_expect(bench, msgid, "created");
    bench_destroy(&bench);
}

static void test_tenant_migrate_newer_schema_is_refused_before_it_is_taken(void **state)
{
    (void)state;
    for (int32_t reader = DKT_SCHEMA_TENANT_READS; reader <= DKT_SCHEMA_TENANT_READS + 1;
         reader++) {
        bench_t *bench = bench_new(1);
        bench->lock.schema_version = DKT_SCHEMA_TENANT_READS + 5;
        bench->lock.min_reader = reader;
        bench_kind(bench, DKT_TEV_CONNECTED);
        bench_ok(bench);
        if (reader <= DKT_SCHEMA_TENANT_READS) {
            (void)bench_batch(bench, DKT_BATCH_TAKE);
        } else {
            assert_int_equal(dkt_tenant_state(bench->core), DKT_TENANT_ENDED);
            assert_int_equal(bench->batch_count, 0);
            assert_non_null(strstr(dkt_tenant_end(bench->core)->text, "a newer docket"));
        }
        bench_destroy(&bench);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tenant_migrate_runs_between_two_groups),
        cmocka_unit_test(test_tenant_migrate_failure_is_told_and_the_tenant_serves),
        cmocka_unit_test(test_tenant_migrate_asked_twice_is_one_step),
        cmocka_unit_test(test_tenant_migrate_stale_owner_ends),
        cmocka_unit_test(test_tenant_migrate_is_awaited_by_a_drain),
        cmocka_unit_test(test_tenant_migrate_asked_early_comes_first),
        cmocka_unit_test(test_tenant_migrate_newer_schema_is_refused_before_it_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
