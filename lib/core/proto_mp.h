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

#define DKT_MP_FIXMAP      0x80
#define DKT_MP_FIXARRAY    0x90
#define DKT_MP_FIXSTR      0xa0
#define DKT_MP_NIL_BYTE    0xc0
#define DKT_MP_UINT8       0xcc
#define DKT_MP_UINT64      0xcf
#define DKT_MP_LEADS       0xc0
#define DKT_MP_FIXSTR_MASK 0xe0
#define DKT_MP_NEGFIX      0xe0

static inline size_t dkt_mp_left(const dkt_mp_t *mp)
{
    return (size_t)(mp->end - mp->at);
}

static inline bool dkt_mp_take_view(dkt_mp_t *mp, uint64_t len, dkt_mp_kind_t kind,
                                    dkt_mp_token_t *token)
{
    if (len > dkt_mp_left(mp)) {
        return false;
    }
    token->kind = kind;
    token->view = (dkt_view_t){.data = mp->at, .len = (uint32_t)len};
    mp->at += len;
    return true;
}

/* Every element takes a byte at least, so a count above the bytes left is a lie. */
static inline bool dkt_mp_take_count(dkt_mp_t *mp, uint64_t count, dkt_mp_kind_t kind,
                                     dkt_mp_token_t *token)
{
    size_t most = kind == DKT_MP_MAP ? dkt_mp_left(mp) / 2 : dkt_mp_left(mp);
    if (count > most) {
        return false;
    }
    token->kind = kind;
    token->count = (uint32_t)count;
    return true;
}

/* The rest of a token whose first byte is DKT_MP_LEADS or above. */
DKT_CHECKED bool dkt_mp_wide(dkt_mp_t *mp, uint8_t first, dkt_mp_token_t *token);

/* The next token, false at the end of the bytes, for an invalid lead byte, or where a length or
 * count says more than the bytes that are left. Here, because every request is read twice. */
DKT_CHECKED static inline bool dkt_mp_next(dkt_mp_t *mp, dkt_mp_token_t *token)
{
    token->kind = DKT_MP_INVALID;
    token->count = 0;
    token->view.data = NULL;
    if (mp->at == mp->end) {
        return false;
    }
    uint8_t first = *mp->at++;
    if (first < DKT_MP_FIXMAP) {
        token->kind = DKT_MP_UINT;
        token->number = first;
        return true;
    }
    if (first < DKT_MP_FIXARRAY) {
        return dkt_mp_take_count(mp, first & 0x0f, DKT_MP_MAP, token);
    }
    if (first < DKT_MP_FIXSTR) {
        return dkt_mp_take_count(mp, first & 0x0f, DKT_MP_ARRAY, token);
    }
    if (first < DKT_MP_LEADS) {
        return dkt_mp_take_view(mp, first & 0x1f, DKT_MP_STR, token);
    }
    return dkt_mp_wide(mp, first, token);
}

/* The next token if it is text, as keys are: nearly all of them are short. */
DKT_CHECKED static inline bool dkt_mp_next_key(dkt_mp_t *mp, dkt_view_t *key)
{
    dkt_mp_token_t token;
    if (mp->at < mp->end && (*mp->at & DKT_MP_FIXSTR_MASK) == DKT_MP_FIXSTR) {
        uint32_t len = *mp->at & (uint8_t)~DKT_MP_FIXSTR_MASK;
        mp->at++;
        if (len > dkt_mp_left(mp)) {
            return false;
        }
        *key = (dkt_view_t){.data = mp->at, .len = len};
        mp->at += len;
        return true;
    }
    if (!dkt_mp_next(mp, &token) || token.kind != DKT_MP_STR) {
        return false;
    }
    *key = token.view;
    return true;
}

/* The pre-check of one value, whatever is behind it: as dkt_msgpack_check (proto.h), inside
 * `around` containers that are open already. The cursor ends behind the value. */
DKT_CHECKED DKT_LARGE_FRAME bool dkt_mp_check_value(dkt_mp_t *mp, unsigned around);

/* Valid UTF-8 without U+0000? */
DKT_CHECKED bool dkt_utf8_check(const uint8_t *bytes, size_t len);

/* The same for decoders that check while they read: the next value up to its end, its first token,
 * and in `rest` where a container's content begins. */
DKT_CHECKED static inline bool dkt_mp_take_value(dkt_mp_t *mp, unsigned around,
                                                 dkt_mp_token_t *token, dkt_mp_t *rest)
{
    dkt_mp_t begin = *mp;
    if (!dkt_mp_next(mp, token)) {
        return false;
    }
    *rest = *mp;
    if (token->kind == DKT_MP_STR) {
        return dkt_utf8_check(token->view.data, token->view.len);
    }
    if (token->kind == DKT_MP_ARRAY || token->kind == DKT_MP_MAP) {
        *mp = begin;
        return dkt_mp_check_value(mp, around);
    }
    return true;
}

/* Length and first byte of a key: nearly all keys of a table differ in them. 0: of an empty or a
 * long key, which no table has. */
#define DKT_MP_HEAD(len, first) ((uint16_t)((len) | (unsigned)(first) << 8))
static inline uint16_t dkt_mp_head(dkt_view_t key)
{
    return key.len > 0 && key.len <= UINT8_MAX ? DKT_MP_HEAD(key.len, key.data[0]) : 0;
}

/* Keys of one map that its reader does not know: they are ignored, but stand there once. At most
 * DKT_MAP_KEYS_MAX, so that comparing each with all costs a hostile frame's reader microseconds. */
typedef struct {
    uint32_t count;
    dkt_view_t keys[DKT_MAP_KEYS_MAX];
} dkt_mp_strangers_t;

/* False: it is no text, or was there before. */
DKT_CHECKED bool dkt_mp_take_stranger(dkt_mp_strangers_t *strangers, dkt_view_t key);

/* Characters (code points) of valid UTF-8. */
uint32_t dkt_utf8_chars(dkt_view_t text);

#endif
