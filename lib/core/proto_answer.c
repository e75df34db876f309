/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading answers: for producers and tests. Unknown keys are ignored, so that an older client reads
 * a newer server's answers.
 */
#include "lib/core/proto.h"

#include <string.h>

#include "lib/core/proto_mp.h"

#define S_ANSWER_ELEMENTS 4
#define S_ANSWER_TYPE     1
#define S_VALUE_DEPTH     2 /* containers around a value of the result's or the error's map */

typedef bool s_read_fn(const dkt_mp_token_t *token, void *field);

typedef struct {
    const char *key;
    uint16_t head; /* DKT_MP_HEAD */
    uint16_t key_len;
    s_read_fn *read;
    size_t offset; /* in dkt_answer_t */
} s_field_t;

static bool s_read_view(const dkt_mp_token_t *token, void *field)
{
    if (token->kind != DKT_MP_STR) {
        return false;
    }
    *(dkt_view_t *)field = token->view;
    return true;
}

static bool s_read_time(const dkt_mp_token_t *token, void *field)
{
    if (token->kind != DKT_MP_UINT || token->number > INT64_MAX) {
        return false;
    }
    *(int64_t *)field = (int64_t)token->number;
    return true;
}

static bool s_read_u32(const dkt_mp_token_t *token, void *field)
{
    if (token->kind != DKT_MP_UINT || token->number > UINT32_MAX) {
        return false;
    }
    *(uint32_t *)field = (uint32_t)token->number;
    return true;
}

static bool s_read_bool(const dkt_mp_token_t *token, void *field)
{
    if (token->kind != DKT_MP_TRUE && token->kind != DKT_MP_FALSE) {
        return false;
    }
    *(bool *)field = token->kind == DKT_MP_TRUE;
    return true;
}

static bool s_read_code(const dkt_mp_token_t *token, void *field)
{
    if (token->kind != DKT_MP_STR) {
        return false;
    }
    dkt_status_t status = dkt_status_of_code((const char *)token->view.data, token->view.len);
    *(dkt_status_t *)field = status == DKT_OK ? DKT_INTERNAL : status;
    return true;
}

#define ROW(key, reader, field)                                                                    \
    {                                                                                              \
        key, DKT_MP_HEAD(sizeof(key) - 1, (key)[0]), sizeof(key) - 1, s_read_##reader,             \
            offsetof(dkt_answer_t, field)                                                          \
    }

static const s_field_t s_result_fields[] = {
    ROW("status", view, status_text),
    ROW("ticket_id", view, ticket_id),
    ROW("slot_id", view, slot_id),
    ROW("slot_start_ms", time, slot_start_ms),
    ROW("deadline_ms", time, deadline_ms),
    ROW("replayed", bool, replayed),
    ROW("reason", view, reason),
    ROW("earliest_ms", time, earliest_ms),
    ROW("hold_expires_ms", time, hold_expires_ms),
    ROW("client_id", view, client_id),
    ROW("sub_domain", view, sub_domain),
    ROW("token", view, token),
    ROW("expires_ms", time, expires_ms),
    ROW("met", bool, met),
    ROW("node", view, node),
    ROW("version", view, version),
    {0},
};

_Static_assert(sizeof s_result_fields / sizeof s_result_fields[0] <= 32,
               "a set of them is 32 bits");

static const s_field_t s_error_fields[] = {
    ROW("code", code, status),
    ROW("message", view, message),
    ROW("retry_after_ms", u32, retry_after_ms),
    ROW("field", view, field),
    {0},
};

/* The row of a key, the one behind the table if it is none of ours. */
static const s_field_t *s_find(const s_field_t *field, dkt_view_t key)
{
    uint16_t head = dkt_mp_head(key);
    while (field->key &&
           (field->head != head || memcmp(field->key, key.data, field->key_len) != 0)) {
        field++;
    }
    return field;
}

/* Checks and reads in one pass, as requests are read (proto_request.c). */
static bool s_read_pairs(dkt_mp_t *mp, uint32_t pairs, const s_field_t *fields, dkt_answer_t *out)
{
    dkt_mp_strangers_t strangers;
    strangers.count = 0;
    uint32_t seen = 0;
    if (pairs > DKT_MAP_KEYS_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < pairs; i++) {
        dkt_view_t key;
        dkt_mp_token_t value;
        dkt_mp_t rest;
        if (!dkt_mp_next_key(mp, &key)) {
            return false;
        }
        const s_field_t *field = s_find(fields, key);
        uint32_t bit = field->key ? UINT32_C(1) << (field - fields) : 0;
        bool first = bit ? (seen & bit) == 0 : dkt_mp_take_stranger(&strangers, key);
        seen |= bit;
        if (!first || !dkt_mp_take_value(mp, S_VALUE_DEPTH, &value, &rest) ||
            (bit && value.kind != DKT_MP_NIL &&
             !field->read(&value, (char *)out + field->offset))) {
            return false;
        }
    }
    return true;
}

/* Error a map and result nil: the code is what an error must have. */
static bool s_read_error(dkt_mp_t *mp, uint32_t pairs, dkt_answer_t *out)
{
    dkt_mp_token_t result;
    return s_read_pairs(mp, pairs, s_error_fields, out) && out->status != DKT_OK &&
           dkt_mp_next(mp, &result) && result.kind == DKT_MP_NIL;
}

static bool s_read_result(dkt_mp_t *mp, dkt_answer_t *out)
{
    const uint8_t *begin = mp->at;
    dkt_mp_token_t result;
    if (!dkt_mp_next(mp, &result) || result.kind != DKT_MP_MAP ||
        !s_read_pairs(mp, result.count, s_result_fields, out)) {
        return false;
    }
    out->result = (dkt_view_t){.data = begin, .len = (uint32_t)(mp->at - begin)};
    return true;
}

static bool s_read_answer(const uint8_t *bytes, size_t len, dkt_answer_t *out)
{
    dkt_mp_t cursor = {.at = bytes, .end = bytes + len};
    dkt_mp_t *mp = &cursor;
    dkt_mp_token_t token;
    if (!dkt_mp_next(mp, &token) || token.kind != DKT_MP_ARRAY ||
        token.count != S_ANSWER_ELEMENTS || !dkt_mp_next(mp, &token) || token.kind != DKT_MP_UINT ||
        token.number != S_ANSWER_TYPE || !dkt_mp_next(mp, &token) || token.kind != DKT_MP_UINT ||
        token.number > UINT32_MAX) {
        return false;
    }
    out->msgid = (uint32_t)token.number;
    if (!dkt_mp_next(mp, &token)) {
        return false;
    }
    bool read = token.kind == DKT_MP_MAP ? s_read_error(mp, token.count, out)
                                         : token.kind == DKT_MP_NIL && s_read_result(mp, out);
    return read && mp->at == mp->end;
}

dkt_status_t dkt_answer_decode(const uint8_t *bytes, size_t len, dkt_answer_t *out, dkt_err_t *err)
{
    memset(out, 0, sizeof *out);
    if (!s_read_answer(bytes, len, out)) {
        return dkt_fail(err, DKT_MALFORMED, NULL,
                        "an answer is msgpack [1, msgid, error, result], depth at most 4");
    }
    return DKT_OK;
}
