/* SPDX-License-Identifier: Apache-2.0
 *
 * See frame.h: the request frames of the producer library.
 */
#include "lib/client/frame.h"

#include <assert.h>
#include <sys/random.h>
#include <time.h>

#include "lib/core/ids.h"
#include "lib/core/proto.h"

#define S_HEAD_BYTES    7 /* 0x94 0x00 0xce msgid */
#define S_MSGID_OFFSET  3
#define S_FIXED_BYTES   96 /* head, array, map, request_id, budget_ms with their keys */
#define S_VALUE_BYTES   16 /* type and length of a key and of a value */
#define S_REQUEST_BYTES 16

static const dkt_method_row_t *s_method_find(const char *name)
{
    for (int i = 0; i < DKT_METHOD_COUNT; i++) {
        const dkt_method_row_t *row = dkt_method_row((dkt_method_t)i);
        if (strcmp(row->name, name) == 0) {
            return row;
        }
    }
    return NULL;
}

/* Which of the parameters that we add are among the caller's. */
typedef struct {
    bool request_id, token, budget_ms;
} s_given_t;

static s_given_t s_given(const dkt_frame_call_t *call)
{
    s_given_t given = {false, false, false};
    for (size_t i = 0; i < call->arg_count; i++) {
        const char *key = call->args[i].key;
        given.request_id |= key[0] == 'r' && strcmp(key, "request_id") == 0;
        given.token |= key[0] == 't' && strcmp(key, "token") == 0;
        given.budget_ms |= key[0] == 'b' && strcmp(key, "budget_ms") == 0;
    }
    return given;
}

static size_t s_counts_bytes(const dkt_arg_t *arg)
{
    const dkt_count_t *counts = arg->data;
    size_t bytes = 0;
    for (size_t i = 0; i < arg->len; i++) {
        bytes += S_VALUE_BYTES + strlen(counts[i].name);
    }
    return bytes;
}

size_t dkt_frame_bytes(const dkt_frame_call_t *call)
{
    size_t bytes = S_FIXED_BYTES + strlen(call->method);
    bytes += call->token ? S_VALUE_BYTES + strlen(call->token) : 0;
    for (size_t i = 0; i < call->arg_count; i++) {
        const dkt_arg_t *arg = &call->args[i];
        bytes += S_VALUE_BYTES + strlen(arg->key);
        bytes += arg->kind == DKT_ARG_COUNTS ? s_counts_bytes(arg) : arg->len;
    }
    return bytes;
}

static void s_write_counts(dkt_w_t *w, const dkt_arg_t *arg)
{
    const dkt_count_t *counts = arg->data;
    dkt_w_map(w, (uint32_t)arg->len);
    for (size_t i = 0; i < arg->len; i++) {
        dkt_w_cstr(w, counts[i].name);
        dkt_w_int(w, counts[i].value);
    }
}

static void s_write_arg(dkt_w_t *w, const dkt_arg_t *arg)
{
    dkt_w_cstr(w, arg->key);
    switch (arg->kind) {
    case DKT_ARG_TEXT:
        dkt_w_str(w, arg->data, arg->len);
        return;
    case DKT_ARG_BYTES:
        dkt_w_bin(w, arg->data, arg->len);
        return;
    case DKT_ARG_INT:
        dkt_w_int(w, arg->number);
        return;
    case DKT_ARG_BOOL:
        dkt_w_bool(w, arg->number != 0);
        return;
    case DKT_ARG_COUNTS:
        s_write_counts(w, arg);
        return;
    }
    assert(!"a kind of argument");
}

static void s_make_id(dkt_frame_random_t *random, uint8_t out[S_REQUEST_BYTES])
{
    struct timespec now;
    if (random->left == 0) {
        ssize_t got = getrandom(random->bytes, sizeof random->bytes, 0);
        assert(got == (ssize_t)sizeof random->bytes);
        (void)got;
        random->left = DKT_FRAME_IDS_MAX;
    }
    clock_gettime(CLOCK_REALTIME_COARSE, &now); /* to some milliseconds, which is enough to grow */
    dkt_uuid_t uuid = dkt_uuid_v7((int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000,
                                  random->bytes[--random->left]);
    memcpy(out, uuid.bytes, sizeof uuid.bytes);
}

size_t dkt_frame_encode(const dkt_frame_call_t *call, uint8_t *out, size_t max)
{
    static const uint8_t head[S_HEAD_BYTES] = {0x94, 0x00, 0xce};
    const dkt_method_row_t *row = s_method_find(call->method);
    s_given_t given = s_given(call);
    bool id = !given.request_id && (call->request_id || (row && row->request_id));
    bool token = call->token && (!row || row->token) && !given.token;
    bool budget = !given.budget_ms;
    if (max < S_HEAD_BYTES) {
        return 0;
    }
    memcpy(out, head, sizeof head);
    dkt_w_t w = dkt_w_init(out + S_HEAD_BYTES, max - S_HEAD_BYTES);
    dkt_w_cstr(&w, call->method);
    dkt_w_array(&w, 1);
    dkt_w_map(&w, (uint32_t)call->arg_count + id + token + budget);
    if (id) {
        uint8_t made[S_REQUEST_BYTES];
        if (!call->request_id) {
            s_make_id(call->random, made);
        }
        dkt_w_cstr(&w, "request_id");
        dkt_w_bin(&w, call->request_id ? call->request_id : made, S_REQUEST_BYTES);
    }
    if (token) {
        dkt_w_cstr(&w, "token");
        dkt_w_cstr(&w, call->token);
    }
    if (budget) {
        dkt_w_cstr(&w, "budget_ms");
        dkt_w_uint(&w, call->budget_ms);
    }
    for (size_t i = 0; i < call->arg_count; i++) {
        s_write_arg(&w, &call->args[i]);
    }
    return w.failed ? 0 : S_HEAD_BYTES + w.len;
}

void dkt_frame_set_msgid(uint8_t *frame, uint32_t msgid)
{
    for (int i = 0; i < 4; i++) {
        frame[S_MSGID_OFFSET + i] = (uint8_t)(msgid >> (24 - 8 * i));
    }
}

void dkt_producer_request_id(uint8_t out[16])
{
    dkt_frame_random_t random = {.left = 0};
    s_make_id(&random, out);
}
