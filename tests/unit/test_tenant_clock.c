/* SPDX-License-Identifier: Apache-2.0
 *
 * Tenant time: from the database, carried on by the monotonic clock, never back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/core/tenant_clock.h"

#define DB_MS INT64_C(1790000000000)

static dkt_tenant_clock_t s_started(int64_t db_ms, int64_t journal_ms, int64_t mono_ms)
{
    dkt_tenant_clock_t clock;
    assert_int_equal(dkt_tenant_clock_start(&clock, db_ms, journal_ms, mono_ms), DKT_OK);
    return clock;
}

static void test_tenant_clock_starts_at_the_later_of_database_and_journal(void **state)
{
    (void)state;
    dkt_tenant_clock_t clock = s_started(DB_MS, DB_MS - 5, 100);
    assert_int_equal(dkt_tenant_clock_now(&clock, 100), DB_MS);
    clock = s_started(DB_MS, DB_MS + 5000, 100);
    assert_int_equal(dkt_tenant_clock_now(&clock, 107), DB_MS + 5007);
}

static void test_tenant_clock_stays_closed_far_behind_the_journal(void **state)
{
    (void)state;
    dkt_tenant_clock_t clock;
    assert_int_equal(dkt_tenant_clock_start(&clock, DB_MS, DB_MS + DKT_CLOCK_BEHIND_MAX_MS, 0),
                     DKT_OK);
    assert_int_equal(dkt_tenant_clock_start(&clock, DB_MS, DB_MS + DKT_CLOCK_BEHIND_MAX_MS + 1, 0),
                     DKT_CONFLICT);
}

static void test_tenant_clock_slews_one_millisecond_a_second(void **state)
{
    (void)state;
    dkt_tenant_clock_t clock = s_started(DB_MS, 0, 0);
    assert_true(dkt_tenant_clock_read(&clock, DB_MS + 3, 0, 0));
    assert_int_equal(dkt_tenant_clock_now(&clock, 999), DB_MS + 999);
    assert_int_equal(dkt_tenant_clock_now(&clock, 1000), DB_MS + 1001);
    assert_int_equal(dkt_tenant_clock_now(&clock, 60000), DB_MS + 60003);
}

/* Found: a busy tenant reads the clock at every group, and each reading dropped what had been let
 * in of the current millisecond, so that it never caught up with its database. */
static void test_tenant_clock_slews_under_frequent_readings(void **state)
{
    (void)state;
    dkt_tenant_clock_t clock = s_started(DB_MS, 0, 0);
    for (int64_t mono_ms = 0; mono_ms <= 20000; mono_ms += 2) {
        assert_true(dkt_tenant_clock_read(&clock, DB_MS + mono_ms + 10, mono_ms, mono_ms));
    }
    assert_in_range(dkt_tenant_clock_now(&clock, 20000), DB_MS + 20009, DB_MS + 20010);
}

static void test_tenant_clock_never_goes_back(void **state)
{
    (void)state;
    dkt_tenant_clock_t clock = s_started(DB_MS, 0, 0);
    int64_t before_ms = 0;
    for (int64_t mono_ms = 0; mono_ms < 10000; mono_ms += 7) {
        int64_t behind_ms = mono_ms % 3 == 0 ? 1500 : 90000;
        assert_true(dkt_tenant_clock_read(&clock, DB_MS + mono_ms - behind_ms, mono_ms, mono_ms));
        int64_t now_ms = dkt_tenant_clock_now(&clock, mono_ms);
        assert_true(now_ms >= before_ms);
        before_ms = now_ms;
    }
    assert_true(before_ms < DB_MS + 10000 - 5);
}

static void test_tenant_clock_far_behind_goes_on_as_it_is(void **state)
{
    (void)state;
    dkt_tenant_clock_t clock = s_started(DB_MS, 0, 0);
    assert_true(dkt_tenant_clock_read(&clock, DB_MS - DKT_CLOCK_SLEW_MAX_MS - 1, 0, 0));
    assert_int_equal(dkt_tenant_clock_now(&clock, 5000), DB_MS + 5000);
}

static void test_tenant_clock_far_ahead_is_told(void **state)
{
    (void)state;
    dkt_tenant_clock_t clock = s_started(DB_MS, 0, 0);
    assert_true(dkt_tenant_clock_read(&clock, DB_MS + DKT_CLOCK_SLEW_MAX_MS, 0, 0));
    assert_false(dkt_tenant_clock_read(&clock, DB_MS + DKT_CLOCK_SLEW_MAX_MS + 1, 0, 0));
}

static void test_tenant_clock_takes_a_slow_answer_for_what_it_is(void **state)
{
    (void)state;
    dkt_tenant_clock_t clock = s_started(DB_MS, 0, 0);
    /* Read somewhere in these 800 ms: no difference is proved. */
    assert_true(dkt_tenant_clock_read(&clock, DB_MS + 100, 0, 800));
    assert_int_equal(dkt_tenant_clock_now(&clock, 5000), DB_MS + 5000);
    /* Another reading in between does not make the next one look late. */
    assert_true(dkt_tenant_clock_read(&clock, DB_MS + 5000, 5000, 5000));
    assert_true(dkt_tenant_clock_read(&clock, DB_MS + 4300, 4300, 5000));
    assert_int_equal(dkt_tenant_clock_now(&clock, 9000), DB_MS + 9000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tenant_clock_starts_at_the_later_of_database_and_journal),
        cmocka_unit_test(test_tenant_clock_stays_closed_far_behind_the_journal),
        cmocka_unit_test(test_tenant_clock_slews_one_millisecond_a_second),
        cmocka_unit_test(test_tenant_clock_slews_under_frequent_readings),
        cmocka_unit_test(test_tenant_clock_never_goes_back),
        cmocka_unit_test(test_tenant_clock_far_behind_goes_on_as_it_is),
        cmocka_unit_test(test_tenant_clock_far_ahead_is_told),
        cmocka_unit_test(test_tenant_clock_takes_a_slow_answer_for_what_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
