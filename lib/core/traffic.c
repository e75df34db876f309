/* SPDX-License-Identifier: Apache-2.0
 *
 * See traffic.h.
 */
#include "lib/core/traffic.h"

#include <assert.h>
#include <string.h>

#include "lib/core/proto_mp.h"

#define S_ANSWER_ELEMENTS 4
#define S_ANSWER_TYPE     1
#define S_FIX_MASK        0xf0
#define S_BEGIN_BYTES_MIN 24 /* the longest beginning up to "refused", with a msgid of 5 bytes */

const char *dkt_ending_name(uint32_t ending)
{
    return ending == DKT_ENDING_REFUSED ? "refused" : dkt_status_code((dkt_status_t)ending);
}

const char *dkt_traffic_method_name(uint32_t method)
{
    return method < DKT_METHOD_COUNT ? dkt_method_row((dkt_method_t)method)->name : "none";
}

static bool s_is(dkt_view_t view, const char *text)
{
    return view.len == strlen(text) && memcmp(view.data, text, view.len) == 0;
}

static const char s_refused[] = "\xa6status\xa7refused"; /* as the first pair of a map */

/* Where an answer goes on behind its msgid, which our writer makes as short as it can; 0: that is
 * not how this one begins. */
static size_t s_behind_msgid(const uint8_t *bytes, size_t len)
{
    static const uint8_t behind[] = {4, 5, 7}; /* one of 8, 16, 32 bits */
    if (len < S_BEGIN_BYTES_MIN || bytes[0] != (DKT_MP_FIXARRAY | S_ANSWER_ELEMENTS) ||
        bytes[1] != S_ANSWER_TYPE) {
        return 0;
    }
    unsigned wide = (unsigned)bytes[2] - DKT_MP_UINT8;
    return bytes[2] < DKT_MP_FIXMAP ? 3 : wide < sizeof behind ? behind[wide] : 0;
}

/* [1, msgid, error, result]: a map here is the error, whose first key is its code; nil says that a
 * result comes, whose first key is its status, if it has one. */
uint32_t dkt_ending_of(const uint8_t *bytes, size_t len)
{
    /* Nearly every answer is a small map that begins with its status: seen in one look. */
    size_t at = s_behind_msgid(bytes, len);
    if (at > 0 && bytes[at] == DKT_MP_NIL_BYTE && (bytes[at + 1] & S_FIX_MASK) == DKT_MP_FIXMAP) {
        return memcmp(bytes + at + 2, s_refused, sizeof s_refused - 1) == 0 ? DKT_ENDING_REFUSED
                                                                            : DKT_OK;
    }
    dkt_mp_t mp = {.at = bytes, .end = bytes + len};
    dkt_mp_token_t token, key, value;
    if (!dkt_mp_next(&mp, &token) || token.kind != DKT_MP_ARRAY ||
        token.count != S_ANSWER_ELEMENTS || !dkt_mp_next(&mp, &token) ||
        !dkt_mp_next(&mp, &token) || !dkt_mp_next(&mp, &token)) {
        return DKT_INTERNAL;
    }
    bool error = token.kind == DKT_MP_MAP;
    if ((!error && (token.kind != DKT_MP_NIL || !dkt_mp_next(&mp, &token))) ||
        token.kind != DKT_MP_MAP) {
        return DKT_INTERNAL;
    }
    bool named = token.count > 0 && dkt_mp_next(&mp, &key) && key.kind == DKT_MP_STR &&
                 dkt_mp_next(&mp, &value) && value.kind == DKT_MP_STR;
    if (error) {
        return named && s_is(key.view, "code")
                   ? (uint32_t)dkt_status_of_code((const char *)value.view.data, value.view.len)
                   : DKT_INTERNAL;
    }
    return named && s_is(key.view, "status") && s_is(value.view, "refused") ? DKT_ENDING_REFUSED
                                                                            : DKT_OK;
}

void dkt_traffic_count(dkt_traffic_t *self, uint32_t method, uint32_t ending)
{
    assert(ending < DKT_ENDINGS);
    self->requests[method < DKT_METHOD_COUNT ? method : DKT_METHOD_COUNT][ending]++;
}
