/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/text.h"

#include <assert.h>
#include <time.h>

#define S_BASE         10
#define S_PAIRS        100
#define S_YEAR_DIGITS  4
#define S_YEARS_PADDED 10000
#define S_YEAR_ZERO    1900 /* of struct tm */

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

static char *s_put_pair(char *at, int value)
{
    return dkt_text_put(at, s_pairs + 2 * value, 2);
}

char *dkt_text_utc(char *at, int64_t seconds)
{
    assert(seconds >= 0 && seconds <= INT64_MAX / 1000);
    struct tm utc;
    const time_t clock = (time_t)seconds;
    gmtime_r(&clock, &utc);
    const uint64_t year = (uint64_t)(utc.tm_year + S_YEAR_ZERO);
    at = year < S_YEARS_PADDED ? dkt_text_padded(at, year, S_YEAR_DIGITS) : dkt_text_uint(at, year);
    *at++ = '-';
    at = s_put_pair(at, utc.tm_mon + 1);
    *at++ = '-';
    at = s_put_pair(at, utc.tm_mday);
    *at++ = 'T';
    at = s_put_pair(at, utc.tm_hour);
    *at++ = ':';
    at = s_put_pair(at, utc.tm_min);
    *at++ = ':';
    return s_put_pair(at, utc.tm_sec);
}
