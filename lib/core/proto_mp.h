/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading msgpack one token at a time, without allocation and without recursion: the head of a
 * value, and for text, bytes and numbers the value itself. Both the pre-check and the decoders
 * stand on it, so there are no two readers that could understand the same bytes differently.
 */
#ifndef DKT_CORE_PROTO_MP_H
#define DKT_CORE_PROTO_MP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/core/proto.h"

typedef enum {
    DKT_MP_INVALID, /* 0xc1 and every ext type; the contract has neither */
    DKT_MP_NIL,
    DKT_MP_FALSE,
    DKT_MP_TRUE,
    DKT_MP_UINT, /* an integer >= 0, whatever its encoding */
    DKT_MP_NEGATIVE,
    DKT_MP_FLOAT,
    DKT_MP_STR,
    DKT_MP_BIN,
    DKT_MP_ARRAY,
    DKT_MP_MAP,
} dkt_mp_kind_t;

typedef struct {
    dkt_mp_kind_t kind;
    uint32_t count;  /* elements of an array, pairs of a map */
    uint64_t number; /* UINT; NEGATIVE: two's complement */
    dkt_view_t view; /* STR and BIN; `data` is never NULL */
} dkt_mp_token_t;

typedef struct {
    const uint8_t *at, *end;
} dkt_mp_t;

/* The next token, false at the end of the bytes, for an invalid lead byte, or where a length or
 * count says more than the bytes that are left. */
DKT_CHECKED bool dkt_mp_next(dkt_mp_t *mp, dkt_mp_token_t *token);

/* Steps over the rest of a value whose first token was read, for bytes that passed
 * dkt_msgpack_check. */
void dkt_mp_skip(dkt_mp_t *mp, const dkt_mp_token_t *token);

/* Valid UTF-8 without U+0000? */
DKT_CHECKED bool dkt_utf8_check(const uint8_t *bytes, size_t len);

/* Characters (code points) of valid UTF-8. */
uint32_t dkt_utf8_chars(dkt_view_t text);

#endif
