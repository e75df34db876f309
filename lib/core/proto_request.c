/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests: frame to struct and back. Nothing is allocated; what a request may contain is in the
 * tables of proto.h and proto_params.c.
 */
#include "lib/core/proto.h"

#include <string.h>

#include "lib/core/proto_mp.h"
#include "lib/core/proto_params.h"

#define S_REQUEST_ELEMENTS 4 /* [0, msgid, method, [params]] */
#define S_REQUEST_TYPE     0
#define S_PARAMS_DEPTH     3 /* containers around a value of the params map */

_Static_assert(S_PARAMS_DEPTH < DKT_MSGPACK_DEPTH_MAX, "a value may be a map of numbers");

static inline bool s_next_is(dkt_mp_t *mp, dkt_mp_kind_t kind, dkt_mp_token_t *token)
{
    return dkt_mp_next(mp, token) && token->kind == kind;
}

/* The msgid of anything that begins like a request, so that even its rejection finds its way. */
static uint32_t s_peek_msgid(const uint8_t *bytes, size_t len)
{
    if (len == 0) {
        return 0;
    }
    dkt_mp_t mp = {.at = bytes, .end = bytes + len};
    dkt_mp_token_t array, type, msgid;
    bool found = s_next_is(&mp, DKT_MP_ARRAY, &array) && array.count >= 2 &&
                 s_next_is(&mp, DKT_MP_UINT, &type) && type.number == S_REQUEST_TYPE &&
                 s_next_is(&mp, DKT_MP_UINT, &msgid) && msgid.number <= UINT32_MAX;
    return found ? (uint32_t)msgid.number : 0;
}

/* Reads up to the pairs of the params map. */
static bool s_read_envelope(dkt_mp_t *mp, uint32_t *msgid, dkt_view_t *method, uint32_t *pairs)
{
    dkt_mp_token_t token;
    if (!s_next_is(mp, DKT_MP_ARRAY, &token) || token.count != S_REQUEST_ELEMENTS ||
        !s_next_is(mp, DKT_MP_UINT, &token) || token.number != S_REQUEST_TYPE ||
        !s_next_is(mp, DKT_MP_UINT, &token) || token.number > UINT32_MAX) {
        return false;
    }
    *msgid = (uint32_t)token.number;
    if (!dkt_mp_next_key(mp, method) || !s_next_is(mp, DKT_MP_ARRAY, &token) || token.count != 1 ||
        !s_next_is(mp, DKT_MP_MAP, &token)) {
        return false;
    }
    *pairs = token.count;
    return token.count <= DKT_MAP_KEYS_MAX;
}

static const struct {
    const char *name;
    uint32_t len;
} s_names[DKT_METHOD_COUNT] = {
#define X(name, wire, ...) {wire, sizeof(wire) - 1},
    DKT_METHOD_MAP(X)
#undef X
};

/* DKT_METHOD_COUNT if there is none of that name. */
static dkt_method_t s_find_method(dkt_view_t name)
{
    unsigned i = 0;
    while (i < DKT_METHOD_COUNT &&
           (s_names[i].len != name.len || memcmp(s_names[i].name, name.data, name.len) != 0)) {
        i++;
    }
    return (dkt_method_t)i;
}

/* -- the params map: checked and read in one pass ---------------------------------------------- */

/* Collects the values of accepted parameters and says which are there. Everything that
 * dkt_msgpack_check asks for is asked for here, as the bytes are read: false if one of them is not
 * as it must be. */
static bool s_collect(dkt_mp_t *mp, uint32_t pairs, uint32_t accepted,
                      dkt_param_value_t values[DKT_PARAM_COUNT], uint32_t *given)
{
    dkt_mp_strangers_t strangers;
    strangers.count = 0;
    uint32_t seen = 0;
    *given = 0;
    for (uint32_t i = 0; i < pairs; i++) {
        dkt_view_t key;
        dkt_param_value_t ignored;
        if (!dkt_mp_next_key(mp, &key)) {
            return false;
        }
        dkt_param_t param = dkt_param_find(key);
        uint32_t bit = param < DKT_PARAM_COUNT ? UINT32_C(1) << param : 0;
        bool first = bit ? (seen & bit) == 0 : dkt_mp_take_stranger(&strangers, key);
        seen |= bit;
        dkt_param_value_t *value = accepted & bit ? &values[param] : &ignored;
        if (!first || !dkt_mp_take_value(mp, S_PARAMS_DEPTH, &value->token, &value->rest)) {
            return false;
        }
        if (value != &ignored && value->token.kind != DKT_MP_NIL) {
            *given |= bit;
        }
    }
    return true;
}

/* Every parameter is read, in the table's order, even behind a wrong one: the checks that come
 * before invalid_argument need them. A token that cannot be one is as good as none. */
static void s_read_params(const dkt_param_value_t values[DKT_PARAM_COUNT], uint32_t given,
                          uint32_t required, dkt_request_t *out)
{
    for (uint32_t left = given | required; left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctz(left);
        uint32_t bit = UINT32_C(1) << i;
        bool quiet = out->argument.status != DKT_OK || i == DKT_PARAM_TOKEN;
        dkt_err_t *err = quiet ? NULL : &out->argument;
        if (given & bit) {
            dkt_param_read((dkt_param_t)i, &values[i], out, err);
        } else {
            const char *key = dkt_param_key((dkt_param_t)i);
            dkt_fail(err, DKT_INVALID_ARGUMENT, key, "%s is required", key);
        }
    }
}

static dkt_status_t s_malformed(dkt_err_t *err)
{
    return dkt_fail(err, DKT_MALFORMED, NULL,
                    "a request is msgpack [0, msgid, method, [params]], depth at most 4");
}

static void s_clear(dkt_request_t *out)
{
    /* Not the two tables, which are read as far as their counts say, nor an error's text. */
    memset(out, 0, offsetof(dkt_request_t, classes));
    out->argument.status = DKT_OK;
    out->argument.retry_after_ms = 0;
    out->argument.field[0] = out->argument.text[0] = '\0';
    out->method = DKT_METHOD_COUNT;
    dkt_params_default(out);
}

/* The whole frame in one pass. Only `msgid` and `method` of `out` are written, and only if all of
 * it is well-formed. */
static bool s_read(const uint8_t *bytes, size_t len, dkt_param_value_t values[DKT_PARAM_COUNT],
                   uint32_t *given, dkt_request_t *out)
{
    dkt_mp_t mp = {.at = bytes, .end = bytes + len};
    dkt_view_t name;
    uint32_t msgid, pairs;
    if (len == 0 || len > DKT_FRAME_BYTES_MAX || !s_read_envelope(&mp, &msgid, &name, &pairs)) {
        return false;
    }
    dkt_method_t method = s_find_method(name);
    bool known = method != DKT_METHOD_COUNT;
    if (!known && !dkt_utf8_check(name.data, name.len)) {
        return false;
    }
    if (!s_collect(&mp, pairs, known ? dkt_params_accepted(method) : 0, values, given) ||
        mp.at != mp.end) {
        return false;
    }
    out->msgid = msgid;
    out->method = method;
    return true;
}

dkt_status_t dkt_request_decode(const uint8_t *bytes, size_t len, dkt_request_t *out,
                                dkt_err_t *err)
{
    dkt_param_value_t values[DKT_PARAM_COUNT];
    uint32_t given;
    s_clear(out);
    if (!s_read(bytes, len, values, &given, out)) {
        out->msgid = s_peek_msgid(bytes, len);
        return s_malformed(err);
    }
    if (out->method == DKT_METHOD_COUNT) {
        return dkt_fail(err, DKT_UNKNOWN_METHOD, NULL, NULL);
    }
    const dkt_method_row_t *row = dkt_method_row(out->method);
    uint32_t required = row->required | (row->request_id ? DKT_PARAM_BIT(REQUEST_ID) : 0);
    s_read_params(values, given, required, out);
    return DKT_OK;
}

void dkt_request_encode(dkt_w_t *w, const dkt_request_t *request)
{
    uint32_t pairs = 0;
    for (unsigned i = 0; i < DKT_PARAM_COUNT; i++) {
        pairs += request->present >> i & 1;
    }
    dkt_w_array(w, S_REQUEST_ELEMENTS);
    dkt_w_uint(w, S_REQUEST_TYPE);
    dkt_w_uint(w, request->msgid);
    dkt_w_cstr(w, dkt_method_row(request->method)->name);
    dkt_w_array(w, 1);
    dkt_w_map(w, pairs);
    for (unsigned i = 0; i < DKT_PARAM_COUNT; i++) {
        if (request->present >> i & 1) {
            dkt_w_cstr(w, dkt_param_key((dkt_param_t)i));
            dkt_param_write(w, (dkt_param_t)i, request);
        }
    }
}
