/* SPDX-License-Identifier: Apache-2.0
 *
 * The log-linear histogram against a sorted list.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/core/histogram.h"

#define S_SAMPLES 20000

static dkt_histogram_t s_histogram;

static int s_empty(void **state)
{
    (void)state;
    memset(&s_histogram, 0, sizeof s_histogram);
    return 0;
}

static void test_histogram_empty_is_zero(void **state)
{
    (void)state;
    assert_int_equal(dkt_histogram_at(&s_histogram, 5000), 0);
}

static void test_histogram_small_values_are_exact(void **state)
{
    (void)state;
    for (uint64_t us = 1; us <= 100; us++) {
        dkt_histogram_add(&s_histogram, us);
    }
    assert_int_equal(dkt_histogram_at(&s_histogram, 5000), 50);
    assert_int_equal(dkt_histogram_at(&s_histogram, 9900), 99);
    assert_int_equal(dkt_histogram_at(&s_histogram, 10000), 100);
    assert_int_equal(dkt_histogram_at(&s_histogram, 0), 1);
    assert_int_equal(s_histogram.sum_us, 5050);
}

static int s_compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static void test_histogram_percentile_within_two_percent(void **state)
{
    static uint64_t values[S_SAMPLES];
    static const uint32_t at[] = {100, 5000, 9000, 9900, 9990, 10000};
    uint64_t random = 88172645463325252ULL;
    (void)state;
    for (size_t i = 0; i < S_SAMPLES; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        values[i] = random >> (30 + random % 32); /* over many powers of two */
        dkt_histogram_add(&s_histogram, values[i]);
    }
    qsort(values, S_SAMPLES, sizeof values[0], s_compare);
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
        uint64_t truth = values[(uint64_t)S_SAMPLES * at[i] / 10000 - 1];
        uint64_t told = dkt_histogram_at(&s_histogram, at[i]);
        assert_true(told >= truth);
        assert_true(told <= truth + truth / 60);
    }
}

static void test_histogram_cells_are_contiguous(void **state)
{
    (void)state;
    for (int shift = 0; shift < DKT_HISTOGRAM_OCTAVES; shift++) {
        for (int64_t off = -1; off <= 1; off++) {
            uint64_t us = (UINT64_C(1) << shift) + (uint64_t)off;
            memset(&s_histogram, 0, sizeof s_histogram);
            dkt_histogram_add(&s_histogram, us);
            assert_int_equal(dkt_histogram_at(&s_histogram, 10000), us);
        }
    }
}

static void test_histogram_huge_values_are_capped(void **state)
{
    (void)state;
    dkt_histogram_add(&s_histogram, UINT64_MAX);
    assert_int_equal(dkt_histogram_at(&s_histogram, 10000),
                     (UINT64_C(1) << DKT_HISTOGRAM_OCTAVES) - 1);
}

static void test_histogram_merge_adds(void **state)
{
    static dkt_histogram_t other;
    (void)state;
    memset(&other, 0, sizeof other);
    dkt_histogram_add(&s_histogram, 10);
    dkt_histogram_add(&other, 1000);
    dkt_histogram_add(&other, 1000);
    dkt_histogram_merge(&s_histogram, &other);
    assert_int_equal(s_histogram.count, 3);
    assert_int_equal(s_histogram.max_us, 1000);
    assert_int_equal(dkt_histogram_at(&s_histogram, 3000), 10);
    assert_true(dkt_histogram_at(&s_histogram, 5000) >= 1000);
}

static void test_histogram_since_is_the_difference(void **state)
{
    static dkt_histogram_t before, since;
    (void)state;
    dkt_histogram_add(&s_histogram, 70000);
    before = s_histogram;
    dkt_histogram_add(&s_histogram, 10);
    dkt_histogram_add(&s_histogram, 500);
    dkt_histogram_since(&since, &s_histogram, &before);
    assert_int_equal(since.count, 2);
    assert_int_equal(since.sum_us, 510);
    assert_int_equal(dkt_histogram_at(&since, 5000), 10);
    assert_true(since.max_us >= 500 && since.max_us < 510);
    dkt_histogram_since(&since, &s_histogram, &s_histogram);
    assert_int_equal(since.count, 0);
    assert_int_equal(dkt_histogram_at(&since, 9900), 0);
}

static void test_histogram_of_cells_alone(void **state)
{
    (void)state;
    s_histogram.cells[dkt_histogram_cell(7)] = 2;
    s_histogram.cells[dkt_histogram_cell(1000)] = 1;
    dkt_histogram_derive(&s_histogram);
    assert_int_equal(s_histogram.count, 3);
    assert_int_equal(dkt_histogram_at(&s_histogram, 5000), 7);
    assert_true(s_histogram.max_us >= 1000 && s_histogram.max_us <= 1016);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_histogram_empty_is_zero, s_empty),
        cmocka_unit_test_setup(test_histogram_small_values_are_exact, s_empty),
        cmocka_unit_test_setup(test_histogram_percentile_within_two_percent, s_empty),
        cmocka_unit_test_setup(test_histogram_cells_are_contiguous, s_empty),
        cmocka_unit_test_setup(test_histogram_huge_values_are_capped, s_empty),
        cmocka_unit_test_setup(test_histogram_merge_adds, s_empty),
        cmocka_unit_test_setup(test_histogram_since_is_the_difference, s_empty),
        cmocka_unit_test_setup(test_histogram_of_cells_alone, s_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
