/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/proto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define S_FRAME_MAX (2 * DKT_FRAME_BYTES_MAX)

typedef struct {
    uint8_t bytes[S_FRAME_MAX];
    dkt_w_t w;
} s_frame_t;

static dkt_w_t *s_begin(s_frame_t *frame, const char *method, uint32_t pairs)
{
    frame->w = dkt_w_init(frame->bytes, sizeof frame->bytes);
    dkt_w_array(&frame->w, 4);
    dkt_w_uint(&frame->w, 0);
    dkt_w_uint(&frame->w, 77);
    dkt_w_cstr(&frame->w, method);
    dkt_w_array(&frame->w, 1);
    dkt_w_map(&frame->w, pairs);
    return &frame->w;
}

static void s_put(dkt_w_t *w, const char *key, const char *value)
{
    dkt_w_cstr(w, key);
    dkt_w_cstr(w, value);
}

static void s_put_uint(dkt_w_t *w, const char *key, uint64_t value)
{
    dkt_w_cstr(w, key);
    dkt_w_uint(w, value);
}

static dkt_status_t s_decode(const s_frame_t *frame, dkt_request_t *out)
{
    dkt_err_t err;
    assert_false(frame->w.failed);
    return dkt_request_decode(frame->bytes, frame->w.len, out, &err);
}

static void s_assert_view(dkt_view_t view, const char *text)
{
    assert_non_null(view.data);
    assert_int_equal(view.len, strlen(text));
    assert_memory_equal(view.data, text, view.len);
}

static void test_proto_request_create_ticket(void **state)
{
    (void)state;
    s_frame_t frame;
    dkt_w_t *w = s_begin(&frame, "create_ticket", 8);
    s_put(w, "unknown", "ignored");
    s_put(w, "client_id", "cl_BwECAwQFBgf9MQDy");
    s_put(w, "request_id", "0190A5D3-1c2b-7def-8123-456789abcdef");
    s_put(w, "ticket_type", "gold");
    s_put(w, "subject", "");
    s_put_uint(w, "budget_ms", 60000);
    dkt_w_cstr(w, "payload");
    dkt_w_bin(w, (const uint8_t *)"\0\xff", 2);
    dkt_w_cstr(w, "token");
    dkt_w_nil(w);
    dkt_request_t r;
    assert_int_equal(s_decode(&frame, &r), DKT_OK);
    assert_int_equal(r.argument.status, DKT_OK);
    assert_int_equal(r.msgid, 77);
    assert_int_equal(r.method, DKT_METHOD_CREATE_TICKET);
    s_assert_view(r.client_id, "cl_BwECAwQFBgf9MQDy");
    s_assert_view(r.ticket_type, "gold");
    s_assert_view(r.subject, "");
    assert_int_equal(r.payload.len, 2);
    assert_null(r.token.data);
    assert_int_equal(r.budget_ms, 60000);
    assert_int_equal(r.request_id.bytes[15], 0xef);
    assert_int_equal(r.present, DKT_PARAM_BIT(CLIENT_ID) | DKT_PARAM_BIT(REQUEST_ID) |
                                    DKT_PARAM_BIT(TICKET_TYPE) | DKT_PARAM_BIT(SUBJECT) |
                                    DKT_PARAM_BIT(BUDGET_MS) | DKT_PARAM_BIT(PAYLOAD));
}

static void test_proto_request_defaults(void **state)
{
    (void)state;
    s_frame_t frame;
    s_begin(&frame, "ping", 0);
    dkt_request_t r;
    assert_int_equal(s_decode(&frame, &r), DKT_OK);
    assert_int_equal(r.argument.status, DKT_OK);
    assert_int_equal(r.present, 0);
    assert_int_equal(r.budget_ms, 5000);
    assert_int_equal(r.hold_ms, 30000);
    assert_int_equal(r.limit, 100);
    assert_int_equal(r.resolvers, 1);
    assert_int_equal(r.state, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_proto_request_create_ticket),
        cmocka_unit_test(test_proto_request_defaults),
    };
    return cmocka_run_group_tests_name("proto_request", tests, NULL, NULL);
}
