/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/proto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/support_message.h"

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

/* As s_begin, for a params map that follows as one value. */
static void s_begin_params(s_frame_t *frame, const char *method)
{
    s_begin(frame, method, 0)->len--;
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

/* -- parameters -------------------------------------------------------------------------------- */

#define RID    "\"request_id\": {\"$bin\": \"0190a5d31c2b7def8123456789abcdef\"}"
#define CID    "\"client_id\": \"cl_BwECAwQFBgf9MQDy\""
#define ACC    RID ", \"name\": \"Acme\", \"email\": \"a@b\""
#define TICKET RID ", " CID ", \"ticket_type\": \"gold\""

/* What a method says of its parameters: the field at fault, or NULL. */
typedef struct {
    const char *method;
    const char *params;
    const char *field;
} s_param_case_t;

static const s_param_case_t s_param_cases[] = {
    {"create_account", "{" ACC ", \"password\": \"0123456789\"}", NULL},
    {"create_account", "{}", "request_id"},
    {"create_account", "{" RID "}", "name"},
    {"create_account", "{" RID ", \"name\": \"\"}", "name"},
    {"create_account", "{" RID ", \"name\": {\"$bin\": \"41\"}}", "name"},
    {"create_account", "{" RID ", \"name\": {\"$repeat\": [\"\u00e9\", 100]}}", "email"},
    {"create_account", "{" RID ", \"name\": {\"$repeat\": [\"\u00e9\", 101]}}", "name"},
    {"create_account", "{" ACC ", \"password\": {\"$repeat\": [\"\u00e9\", 9]}}", "password"},
    {"create_account", "{" ACC ", \"password\": {\"$repeat\": [\"\u00e9\", 128]}}", NULL},
    {"create_account", "{" ACC ", \"password\": {\"$repeat\": [\"\u00e9\", 129]}}", "password"},
    {"create_account", "{" ACC ", \"password\": \"0123456789\", \"resolvers\": 64}", NULL},
    {"create_account", "{" ACC ", \"password\": \"0123456789\", \"resolvers\": 65}", "resolvers"},
    {"create_account", "{" ACC ", \"password\": \"0123456789\", \"resolvers\": 0}", "resolvers"},
    {"create_account", "{" ACC ", \"password\": \"0123456789\", \"resolvers\": -1}", "resolvers"},
    {"create_account", "{" ACC ", \"password\": \"0123456789\", \"resolvers\": \"1\"}",
     "resolvers"},
    {"create_account", "{" ACC ", \"password\": \"0123456789\", \"resolvers\": null}", NULL},
    {"login", "{" CID "}", "password"},
    {"login", "{" CID ", \"password\": \"\"}", NULL},
    {"login", "{" CID ", \"password\": {\"$repeat\": [\"x\", 9000]}}", NULL},
    {"login", "{" CID ", \"password\": 5}", "password"},
    {"login", "{\"password\": 5}", "client_id"},
    {"login", "{\"client_id\": \"\", \"password\": \"x\"}", "client_id"},
    {"login", "{\"client_id\": {\"$repeat\": [\"x\", 64]}, \"password\": \"x\"}", NULL},
    {"login", "{\"client_id\": {\"$repeat\": [\"x\", 65]}, \"password\": \"x\"}", "client_id"},
    {"change_password", "{" CID ", \"password\": \"x\", \"new_password\": \"short\"}",
     "new_password"},
    {"change_password", "{" CID ", \"password\": \"x\", \"new_password\": \"long enough\"}", NULL},
    {"create_ticket", "{" TICKET "}", NULL},
    {"create_ticket", "{" TICKET ", \"token\": 7}", NULL},
    {"create_ticket", "{" TICKET ", \"budget_ms\": 0}", "budget_ms"},
    {"create_ticket", "{" TICKET ", \"budget_ms\": 1}", NULL},
    {"create_ticket", "{" TICKET ", \"budget_ms\": 60001}", "budget_ms"},
    {"create_ticket", "{" TICKET ", \"budget_ms\": 4294967297}", "budget_ms"},
    {"create_ticket", "{" TICKET ", \"traceparent\": {\"$repeat\": [\"x\", 65]}}", "traceparent"},
    {"create_ticket", "{" TICKET ", \"subject\": {\"$repeat\": [\"\u00e9\", 100]}}", NULL},
    {"create_ticket", "{" TICKET ", \"subject\": {\"$repeat\": [\"\u00e9\", 101]}}", "subject"},
    {"create_ticket", "{" TICKET ", \"subject\": false}", "subject"},
    {"create_ticket", "{" TICKET ", \"payload\": \"text\"}", "payload"},
    {"create_ticket", "{" TICKET ", \"slot_id\": 5, \"limit\": \"not looked at\"}", NULL},
    {"create_ticket", "{" CID ", \"ticket_type\": \"gold\"}", "request_id"},
    {"create_ticket", "{" CID ", \"ticket_type\": \"gold\", \"request_id\": \"x\"}", "request_id"},
    {"create_ticket", "{\"request_id\": {\"$bin\": \"00\"}}", "request_id"},
    {"create_ticket", "{" RID ", " CID ", \"ticket_type\": \"\"}", "ticket_type"},
    {"create_ticket", "{" RID ", " CID ", \"ticket_type\": {\"$repeat\": [\"x\", 31]}}", NULL},
    {"create_ticket", "{" RID ", " CID ", \"ticket_type\": {\"$repeat\": [\"x\", 32]}}",
     "ticket_type"},
    {"create_ticket", "{\"subject\": 1, \"client_id\": 1, \"budget_ms\": -1}", "request_id"},
    {"create_ticket", "{" RID ", \"subject\": 1, \"budget_ms\": -1}", "budget_ms"},
    {"get_ticket", "{}", "ticket_id"},
    {"get_ticket", "{\"ticket_id\": \"anything\", \"request_id\": 1}", "request_id"},
    {"release_slot", "{\"slot_id\": null}", "slot_id"},
    {"list_tickets", "{" CID ", \"state\": \"cancelled\", \"limit\": 1, \"cursor\": \"c\"}", NULL},
    {"list_tickets", "{" CID ", \"state\": \"Open\"}", "state"},
    {"list_tickets", "{" CID ", \"state\": 0}", "state"},
    {"list_tickets", "{" CID ", \"limit\": 0}", "limit"},
    {"list_tickets", "{" CID ", \"limit\": 1001}", "limit"},
    {"list_tickets", "{" CID ", \"cursor\": {\"$repeat\": [\"x\", 65]}}", "cursor"},
    {"validate_eta", "{" CID ", \"ticket_type\": \"gold\", \"hold_ms\": 999}", "hold_ms"},
    {"validate_eta", "{" CID ", \"ticket_type\": \"gold\", \"hold_ms\": 1000}", NULL},
    {"validate_eta", "{" CID ", \"ticket_type\": \"gold\", \"hold_ms\": 300001}", "hold_ms"},
    {"set_tenant", "{" CID "}", NULL},
    {"set_tenant", "{" CID ", \"resolvers\": 4096}", NULL},
    {"set_tenant", "{" CID ", \"resolvers\": 4097}", "resolvers"},
    {"set_tenant", "{" CID ", \"classes\": {}}", "classes"},
    {"set_tenant", "{" CID ", \"classes\": {\"a\": 2, \"b\": 1440}}", NULL},
    {"set_tenant", "{" CID ", \"classes\": {\"a\": 1}}", "classes"},
    {"set_tenant", "{" CID ", \"classes\": {\"a\": 1441}}", "classes"},
    {"set_tenant", "{" CID ", \"classes\": {\"a\": null}}", "classes"},
    {"set_tenant", "{" CID ", \"classes\": {\"\": 5}}", "classes"},
    {"set_tenant", "{" CID ", \"classes\": [120]}", "classes"},
    {"set_tenant", "{" CID ", \"classes\": {\"$pairs\": 9}}", "classes"},
    {"set_tenant", "{" CID ", \"limits\": {\"a\": 0, \"b\": 1000}}", NULL},
    {"set_tenant", "{" CID ", \"limits\": {\"a\": 1001}}", "limits"},
    {"set_tenant", "{" CID ", \"limits\": {}}", NULL},
    {"set_tenant", "{" CID ", \"rebooking\": 1}", "rebooking"},
    {"set_tenant", "{" CID ", \"suspended\": \"true\"}", "suspended"},
    {"ping", "{\"token\": {\"$repeat\": [\"x\", 1100]}}", NULL},
    {"ping", "{\"name\": 5, \"more\": {\"$pairs\": 60}}", NULL},
};

static void test_proto_request_parameters(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof s_param_cases / sizeof s_param_cases[0]; i++) {
        const s_param_case_t *row = &s_param_cases[i];
        static s_frame_t frame;
        s_begin_params(&frame, row->method);
        message_write_text(&frame.w, row->params);
        dkt_request_t r;
        assert_int_equal(s_decode(&frame, &r), DKT_OK);
        dkt_status_t expected = row->field ? DKT_INVALID_ARGUMENT : DKT_OK;
        if (r.argument.status != expected ||
            strcmp(r.argument.field, row->field ? row->field : "")) {
            fail_msg("%s %s: got \"%s\" %s", row->method, row->params, r.argument.field,
                     r.argument.text);
        }
        assert_true(!row->field || strstr(r.argument.text, row->field) == r.argument.text);
    }
}

static void test_proto_request_email_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *email;
        bool taken;
    } rows[] = {
        {"a@b", true},
        {"first.last+tag@sub.example.com", true},
        {"j\u00f6rg@b\u00fccher.example", true},
        {"", false},
        {"@", false},
        {"a@", false},
        {"@b", false},
        {"a", false},
        {"a@b@c", false},
        {"a b@c", false},
        {"a@b c", false},
        {"a@b\\n", false},
        {"a@.b", false},
        {"a@b.", false},
        {"a@b..c", false},
        {"a\\u007f@b", false},
        {"0123456789012345678901234567890123456789012345678901234567890123@b", true},
        {"01234567890123456789012345678901234567890123456789012345678901234@b", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        static s_frame_t frame;
        char params[512];
        snprintf(params, sizeof params,
                 "{" RID ", \"name\": \"n\", \"password\": \"0123456789\", \"email\": \"%s\"}",
                 rows[i].email);
        s_begin_params(&frame, "create_account");
        message_write_text(&frame.w, params);
        dkt_request_t r;
        assert_int_equal(s_decode(&frame, &r), DKT_OK);
        if ((r.argument.status == DKT_OK) != rows[i].taken) {
            fail_msg("email %s: %s", rows[i].email, r.argument.text);
        }
    }
}

/* A password that was never set by anybody must get the answer of a wrong one. */
static void test_proto_request_long_login_password_is_read_as_the_empty_one(void **state)
{
    (void)state;
    static s_frame_t frame;
    dkt_request_t r;
    s_begin_params(&frame, "login");
    message_write_text(&frame.w, "{" CID ", \"password\": {\"$repeat\": [\"x\", 512]}}");
    assert_int_equal(s_decode(&frame, &r), DKT_OK);
    assert_int_equal(r.password.len, DKT_PASSWORD_BYTES_MAX);
    s_begin_params(&frame, "login");
    message_write_text(&frame.w, "{" CID ", \"password\": {\"$repeat\": [\"x\", 513]}}");
    assert_int_equal(s_decode(&frame, &r), DKT_OK);
    assert_int_equal(r.argument.status, DKT_OK);
    assert_non_null(r.password.data);
    assert_int_equal(r.password.len, 0);
}

/* What comes before invalid_argument still needs the parameters that are well. */
static void test_proto_request_reads_on_behind_a_wrong_parameter(void **state)
{
    (void)state;
    static s_frame_t frame;
    dkt_request_t r;
    s_begin_params(&frame, "create_ticket");
    message_write_text(&frame.w, "{\"token\": \"t\", \"request_id\": 1, \"subject\": 5, "
                                 "\"ticket_type\": \"gold\", " CID "}");
    assert_int_equal(s_decode(&frame, &r), DKT_OK);
    assert_string_equal(r.argument.field, "request_id");
    s_assert_view(r.token, "t");
    s_assert_view(r.client_id, "cl_BwECAwQFBgf9MQDy");
    s_assert_view(r.ticket_type, "gold");
    assert_null(r.subject.data);
    assert_int_equal(r.present,
                     DKT_PARAM_BIT(TOKEN) | DKT_PARAM_BIT(CLIENT_ID) | DKT_PARAM_BIT(TICKET_TYPE));
}

static void test_proto_request_payload_bounds(void **state)
{
    (void)state;
    static s_frame_t frame;
    static uint8_t payload[DKT_PAYLOAD_BYTES_MAX + 1];
    for (size_t len = DKT_PAYLOAD_BYTES_MAX; len <= sizeof payload; len++) {
        dkt_w_t *w = s_begin(&frame, "create_ticket", 4);
        dkt_w_cstr(w, "request_id");
        dkt_w_bin(w, payload, DKT_UUID_BYTES);
        s_put(w, "client_id", "c");
        s_put(w, "ticket_type", "gold");
        dkt_w_cstr(w, "payload");
        dkt_w_bin(w, payload, len);
        dkt_request_t r;
        assert_int_equal(s_decode(&frame, &r), DKT_OK);
        assert_string_equal(r.argument.field, len > DKT_PAYLOAD_BYTES_MAX ? "payload" : "");
    }
}

/* -- envelopes --------------------------------------------------------------------------------- */

typedef struct {
    const char *why;
    const char *json;
    dkt_status_t status;
    uint32_t msgid;
} s_envelope_case_t;

static const s_envelope_case_t s_envelope_cases[] = {
    {"well", "[0, 9, \"ping\", [{}]]", DKT_OK, 9},
    {"greatest msgid", "[0, 4294967295, \"ping\", [{}]]", DKT_OK, 4294967295},
    {"msgid of 33 bits", "[0, 4294967296, \"ping\", [{}]]", DKT_MALFORMED, 0},
    {"negative msgid", "[0, -1, \"ping\", [{}]]", DKT_MALFORMED, 0},
    {"msgid is text", "[0, \"9\", \"ping\", [{}]]", DKT_MALFORMED, 0},
    {"notification", "[2, \"ping\", [{}]]", DKT_MALFORMED, 0},
    {"response", "[1, 9, null, {}]", DKT_MALFORMED, 0},
    {"three elements", "[0, 9, \"ping\"]", DKT_MALFORMED, 9},
    {"five elements", "[0, 9, \"ping\", [{}], 1]", DKT_MALFORMED, 9},
    {"method is bin", "[0, 9, {\"$bin\": \"70\"}, [{}]]", DKT_MALFORMED, 9},
    {"params is a map", "[0, 9, \"ping\", {}]", DKT_MALFORMED, 9},
    {"no params", "[0, 9, \"ping\", []]", DKT_MALFORMED, 9},
    {"two params", "[0, 9, \"ping\", [{}, {}]]", DKT_MALFORMED, 9},
    {"params is nil", "[0, 9, \"ping\", [null]]", DKT_MALFORMED, 9},
    {"too deep", "[0, 9, \"ping\", [{\"a\": {\"b\": []}}]]", DKT_MALFORMED, 9},
    {"too many keys", "[0, 9, \"ping\", [{\"$pairs\": 129}]]", DKT_MALFORMED, 9},
    {"unknown method", "[0, 9, \"pong\", [{}]]", DKT_UNKNOWN_METHOD, 9},
    {"unknown method of a wrong request", "[0, 9, \"pong\", []]", DKT_MALFORMED, 9},
    {"empty method", "[0, 9, \"\", [{}]]", DKT_UNKNOWN_METHOD, 9},
    {"prefix of a method", "[0, 9, \"pin\", [{}]]", DKT_UNKNOWN_METHOD, 9},
    {"a map", "{}", DKT_MALFORMED, 0},
    {"nil", "null", DKT_MALFORMED, 0},
};

static void test_proto_request_envelopes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof s_envelope_cases / sizeof s_envelope_cases[0]; i++) {
        const s_envelope_case_t *row = &s_envelope_cases[i];
        static s_frame_t frame;
        frame.w = dkt_w_init(frame.bytes, sizeof frame.bytes);
        message_write_text(&frame.w, row->json);
        dkt_request_t r;
        dkt_err_t err = {.status = DKT_OK};
        dkt_status_t status = dkt_request_decode(frame.bytes, frame.w.len, &r, &err);
        if (status != row->status || r.msgid != row->msgid || err.status != status) {
            fail_msg("%s: %s, msgid %u", row->why, dkt_status_code(status), r.msgid);
        }
    }
}

static void test_proto_request_frame_bounds(void **state)
{
    (void)state;
    static s_frame_t frame;
    dkt_request_t r;
    dkt_err_t err;
    assert_int_equal(dkt_request_decode(NULL, 0, &r, &err), DKT_MALFORMED);
    for (size_t more = 0; more < 2; more++) {
        dkt_w_t *w = s_begin(&frame, "ping", 1);
        dkt_w_cstr(w, "x");
        static uint8_t filler[DKT_FRAME_BYTES_MAX];
        dkt_w_bin(w, filler, DKT_FRAME_BYTES_MAX - w->len - 3 + more); /* bin16: 3 bytes of head */
        assert_int_equal(w->len, DKT_FRAME_BYTES_MAX + more);
        assert_int_equal(s_decode(&frame, &r), more ? DKT_MALFORMED : DKT_OK);
        assert_int_equal(r.msgid, 77);
    }
}

/* -- digests ----------------------------------------------------------------------------------- */

static dkt_digest_t s_digest(const char *method, const char *params)
{
    static s_frame_t frame;
    dkt_request_t r;
    s_begin_params(&frame, method);
    message_write_text(&frame.w, params);
    assert_int_equal(s_decode(&frame, &r), DKT_OK);
    assert_int_equal(r.argument.status, DKT_OK);
    return dkt_request_digest(&r);
}

static void test_proto_request_digest_names_the_field(void **state)
{
    (void)state;
    static const struct {
        const char *params;
        const char *field;
    } rows[] = {
        {"{" TICKET "}", NULL},
        {"{" TICKET ", \"subject\": null, \"payload\": null}", NULL},
        {"{" TICKET ", \"token\": \"t\", \"budget_ms\": 7, \"traceparent\": \"p\"}", NULL},
        {"{" TICKET ", \"subject\": \"\"}", "subject"},
        {"{" TICKET ", \"payload\": {\"$bin\": \"\"}}", "payload"},
        {"{" RID ", " CID ", \"ticket_type\": \"silver\", \"subject\": \"s\"}", "ticket_type"},
    };
    dkt_digest_t first = s_digest("create_ticket", rows[0].params);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dkt_digest_t other = s_digest("create_ticket", rows[i].params);
        const char *field = dkt_digest_differs(&first, &other);
        assert_string_equal(field ? field : "none", rows[i].field ? rows[i].field : "none");
    }
    dkt_digest_t a = s_digest("allocate_slot", "{" TICKET ", \"slot_id\": \"sl_a\"}");
    dkt_digest_t b = s_digest("allocate_slot", "{" TICKET ", \"slot_id\": \"sl_b\"}");
    assert_string_equal(dkt_digest_differs(&a, &b), "slot_id");
    assert_string_equal(dkt_digest_differs(&a, &first), "method");
    assert_true(dkt_view_digest((dkt_view_t){0}) == 0);
}

/* A buffer of every size: nothing is written behind it, and only the last one is enough. */
static void test_proto_request_encode_fits_or_fails(void **state)
{
    (void)state;
    static s_frame_t frame;
    dkt_request_t r;
    s_begin_params(&frame, "set_tenant");
    message_write_text(&frame.w, "{" CID ", \"resolvers\": 300, \"classes\": {\"gold\": 120}, "
                                 "\"limits\": {\"gold\": 1000}, \"suspended\": true}");
    assert_int_equal(s_decode(&frame, &r), DKT_OK);
    for (size_t max = 0; max <= frame.w.len; max++) {
        uint8_t out[512];
        memset(out, 0xee, sizeof out);
        dkt_w_t w = dkt_w_init(out, max);
        dkt_request_encode(&w, &r);
        assert_int_equal(w.failed, max < frame.w.len);
        assert_true(w.len <= max);
        assert_int_equal(out[max], 0xee);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_proto_request_create_ticket),
        cmocka_unit_test(test_proto_request_defaults),
        cmocka_unit_test(test_proto_request_parameters),
        cmocka_unit_test(test_proto_request_email_shapes),
        cmocka_unit_test(test_proto_request_long_login_password_is_read_as_the_empty_one),
        cmocka_unit_test(test_proto_request_reads_on_behind_a_wrong_parameter),
        cmocka_unit_test(test_proto_request_payload_bounds),
        cmocka_unit_test(test_proto_request_envelopes),
        cmocka_unit_test(test_proto_request_frame_bounds),
        cmocka_unit_test(test_proto_request_digest_names_the_field),
        cmocka_unit_test(test_proto_request_encode_fits_or_fails),
    };
    return cmocka_run_group_tests_name("proto_request", tests, NULL, NULL);
}
