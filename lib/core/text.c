/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/text.h"

#include <assert.h>

#define S_BASE           10
#define S_PAIRS          100
#define S_YEAR_DIGITS    4
#define S_SECONDS_OF_DAY 86400
/* The calendar in steps: a leap day is the last one of four years, not of a hundred, again of four
 * hundred, when years begin in March. */
#define S_DAYS_OF_YEAR  365
#define S_DAYS_OF_4     1461
#define S_DAYS_OF_100   36524
#define S_DAYS_OF_400   146097
#define S_DAYS_TO_EPOCH 719468 /* from 0000-03-01 to 1970-01-01 */
#define S_MONTHS        12
#define S_MARCH         3

/* Days of the year before the month; March is the first. */
static const uint16_t s_days_before[S_MONTHS] = {0,   31,  61,  92,  122, 153,
                                                 184, 214, 245, 275, 306, 337};

static const char s_pairs[] = "0001020304050607080910111213141516171819"
                              "2021222324252627282930313233343536373839"
                              "4041424344454647484950515253545556575859"
                              "6061626364656667686970717273747576777879"
                              "8081828384858687888990919293949596979899";

char *dkt_text_uint(char *at, uint64_t value)
{
    char digits[DKT_TEXT_UINT_CHARS_MAX];
    char *first = digits + sizeof digits;
    while (value >= S_PAIRS) {
        first -= 2;
        memcpy(first, s_pairs + 2 * (value % S_PAIRS), 2);
        value /= S_PAIRS;
    }
    if (value >= S_BASE) {
        first -= 2;
        memcpy(first, s_pairs + 2 * value, 2);
    } else {
        *--first = (char)('0' + value);
    }
    return dkt_text_put(at, first, (size_t)(digits + sizeof digits - first));
}

char *dkt_text_hex(char *at, uint64_t value)
{
    unsigned shift = 0;
    while (shift < 60 && value >> shift >= 16) {
        shift += 4;
    }
    for (int left = (int)shift; left >= 0; left -= 4) {
        *at++ = "0123456789abcdef"[value >> left & 15];
    }
    return at;
}

char *dkt_text_padded(char *at, uint64_t value, unsigned digits)
{
    for (unsigned i = digits; i > 0; i--) {
        at[i - 1] = (char)('0' + value % S_BASE);
        value /= S_BASE;
    }
    assert(value == 0);
    return at + digits;
}

static uint64_t s_least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static char *s_put_date(char *at, uint64_t days)
{
    days += S_DAYS_TO_EPOCH;
    uint64_t year = days / S_DAYS_OF_400 * 400, day = days % S_DAYS_OF_400;
    /* The fourth of four centuries, and of four years, is the one with a day more. */
    uint64_t centuries = s_least(day / S_DAYS_OF_100, 3);
    day -= centuries * S_DAYS_OF_100;
    uint64_t fours = day / S_DAYS_OF_4;
    day -= fours * S_DAYS_OF_4;
    uint64_t ones = s_least(day / S_DAYS_OF_YEAR, 3);
    day -= ones * S_DAYS_OF_YEAR;
    unsigned month = S_MONTHS - 1;
    while (day < s_days_before[month]) {
        month--;
    }
    day -= s_days_before[month];
    month += S_MARCH;
    year += centuries * 100 + fours * 4 + ones + (month > S_MONTHS);
    month -= month > S_MONTHS ? S_MONTHS : 0; /* January and February, of the next year */
    at = year < 10000 ? dkt_text_padded(at, year, S_YEAR_DIGITS) : dkt_text_uint(at, year);
    *at++ = '-';
    at = dkt_text_put(at, s_pairs + 2 * month, 2);
    *at++ = '-';
    return dkt_text_put(at, s_pairs + 2 * (day + 1), 2);
}

char *dkt_text_utc(char *at, int64_t seconds)
{
    assert(seconds >= 0);
    uint64_t second = (uint64_t)seconds % S_SECONDS_OF_DAY;
    at = s_put_date(at, (uint64_t)seconds / S_SECONDS_OF_DAY);
    *at++ = 'T';
    at = dkt_text_put(at, s_pairs + 2 * (second / 3600), 2);
    *at++ = ':';
    at = dkt_text_put(at, s_pairs + 2 * (second / 60 % 60), 2);
    *at++ = ':';
    return dkt_text_put(at, s_pairs + 2 * (second % 60), 2);
}
