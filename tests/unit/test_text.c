/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers and times as text, each beside what libc writes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lib/core/text.h"
#include "support_random.h"

#define T_RANDOMS 20000

static uint64_t s_random_state = 1;

static void s_check(const char *end, const char *text, const char *expected)
{
    assert_int_equal(end - text, strlen(expected));
    assert_memory_equal(text, expected, strlen(expected));
}

static void s_check_number(uint64_t value)
{
    char text[DKT_TEXT_UINT_CHARS_MAX], expected[32];
    snprintf(expected, sizeof expected, "%" PRIu64, value);
    s_check(dkt_text_uint(text, value), text, expected);
    snprintf(expected, sizeof expected, "%" PRIx64, value);
    s_check(dkt_text_hex(text, value), text, expected);
    snprintf(expected, sizeof expected, "%03" PRIu64, value % 1000);
    s_check(dkt_text_padded(text, value % 1000, 3), text, expected);
}

static void test_text_numbers_are_as_printf_writes_them(void **state)
{
    (void)state;
    for (uint64_t power = 1, i = 0; i < 20; i++, power *= 10) {
        s_check_number(power - 1);
        s_check_number(power);
    }
    for (int i = 0; i < 64; i++) {
        s_check_number(UINT64_MAX >> i);
        s_check_number((UINT64_MAX >> i) + 1);
    }
    for (int i = 0; i < T_RANDOMS; i++) {
        s_check_number(random_of_any_size(&s_random_state));
    }
}

static void test_text_times(void **state)
{
    (void)state;
    static const struct {
        int64_t seconds;
        const char *expected;
    } rows[] = {
        {0, "1970-01-01T00:00:00"},
        {951782399, "2000-02-28T23:59:59"},
        {951782400, "2000-02-29T00:00:00"},
        {1795344563, "2026-11-22T10:49:23"},
        {4107542400, "2100-03-01T00:00:00"},
        {253402300799, "9999-12-31T23:59:59"},
        {253402300800, "10000-01-01T00:00:00"},
        {INT64_MAX / 1000, "292278994-08-17T07:12:55"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[DKT_TEXT_UTC_CHARS_MAX];
        s_check(dkt_text_utc(text, rows[i].seconds), text, rows[i].expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_numbers_are_as_printf_writes_them),
        cmocka_unit_test(test_text_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
