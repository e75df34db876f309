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
#include <time.h>

#include <cmocka.h>

#include "lib/core/text.h"

#define T_DAY     86400
#define T_RANDOMS 20000

static uint64_t s_random_state = 1;

/* xorshift; of every size. */
static uint64_t s_random(void)
{
    s_random_state ^= s_random_state << 13;
    s_random_state ^= s_random_state >> 7;
    s_random_state ^= s_random_state << 17;
    return s_random_state >> (s_random_state & 63);
}

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
        s_check_number(s_random());
    }
}

static void s_check_time(int64_t seconds)
{
    char text[DKT_TEXT_UTC_CHARS_MAX], expected[64];
    struct tm utc;
    time_t time = (time_t)seconds;
    assert_non_null(gmtime_r(&time, &utc));
    snprintf(expected, sizeof expected, "%04lld-%02d-%02dT%02d:%02d:%02d", utc.tm_year + 1900LL,
             utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec);
    s_check(dkt_text_utc(text, seconds), text, expected);
}

/* Every day of the calendar's 400 years and of the year 10000 at its first and last second. */
static void test_text_times_are_as_gmtime_reads_them(void **state)
{
    (void)state;
    for (int64_t day = 0; day < 150000; day++) {
        s_check_time(day * T_DAY);
        s_check_time(day * T_DAY + T_DAY - 1);
        s_check_time((day + 2932000) * T_DAY + (int64_t)(s_random() % T_DAY));
    }
    /* gmtime ends where the year does not fit an int. */
    const uint64_t last = (uint64_t)INT32_MAX * 365 * T_DAY;
    for (int i = 0; i < T_RANDOMS; i++) {
        s_check_time((int64_t)(s_random() % last));
    }
    s_check_time(INT64_MAX / 1000);
}

static void test_text_longest_time_has_room(void **state)
{
    (void)state;
    char text[DKT_TEXT_UTC_CHARS_MAX];
    s_check(dkt_text_utc(text, INT64_MAX), text, "292277026596-12-04T15:30:07");
    assert_int_equal(strlen("292277026596-12-04T15:30:07"), DKT_TEXT_UTC_CHARS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_numbers_are_as_printf_writes_them),
        cmocka_unit_test(test_text_times_are_as_gmtime_reads_them),
        cmocka_unit_test(test_text_longest_time_has_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
