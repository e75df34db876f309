/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers and times as text, for what is written once per ticket: no format to read, no locale, no
 * time zone. Each function writes at a place that has room, without a NUL, and returns the end.
 */
#ifndef DKT_CORE_TEXT_H
#define DKT_CORE_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define DKT_TEXT_UINT_CHARS_MAX 20
#define DKT_TEXT_HEX_CHARS_MAX  16
/* "292278994-08-17T07:12:55": the year has as many digits as it needs, four at least. */
#define DKT_TEXT_UTC_CHARS_MAX 24

static inline char *dkt_text_put(char *at, const char *text, size_t len)
{
    memcpy(at, text, len);
    return at + len;
}

/* A text that the compiler knows is copied in a few stores. */
#define DKT_TEXT_PUT(at, literal) dkt_text_put((at), "" literal, sizeof(literal) - 1)

char *dkt_text_uint(char *at, uint64_t value);
/* As "%x". */
char *dkt_text_hex(char *at, uint64_t value);
/* `digits` of them, with zeros in front; value < 10 ^ digits. */
char *dkt_text_padded(char *at, uint64_t value, unsigned digits);
/* "2026-11-22T10:49:23" of seconds since 1970, UTC; 0 to INT64_MAX / 1000. A calendar's work: keep
 * the text while the second is the same. */
char *dkt_text_utc(char *at, int64_t seconds);

#endif
