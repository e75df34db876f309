/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/proto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/support_message.h"

#define S_LIST_TICKETS 1000

static uint8_t s_bytes[2 * DKT_LIST_BYTES_MAX];

static dkt_status_t s_decode(const char *json, dkt_answer_t *out)
{
    dkt_err_t err;
    dkt_w_t w = dkt_w_init(s_bytes, sizeof s_bytes);
    message_write_text(&w, json);
    assert_false(w.failed);
    return dkt_answer_decode(s_bytes, w.len, out, &err);
}

static void test_proto_answer_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        dkt_status_t decoded;
        dkt_status_t status;
    } rows[] = {
        {"[1, 5, null, {}]", DKT_OK, DKT_OK},
        {"[1, 5, null, {\"status\": \"ok\", \"new key\": [{\"a\": 1}], \"met\": null}]", DKT_OK,
         DKT_OK},
        {"[1, 5, {\"code\": \"overloaded\", \"message\": \"m\", \"more\": 1}, null]", DKT_OK,
         DKT_OVERLOADED},
        {"[1, 5, {\"code\": \"of a newer server\"}, null]", DKT_OK, DKT_INTERNAL},
        {"[1, 5, {\"code\": \"ok\"}, null]", DKT_OK, DKT_INTERNAL},
        {"[1, 5, {\"message\": \"no code\"}, null]", DKT_MALFORMED, DKT_OK},
        {"[1, 5, {\"code\": 7}, null]", DKT_MALFORMED, DKT_OK},
        {"[1, 5, {\"code\": \"internal\"}, {}]", DKT_MALFORMED, DKT_OK},
        {"[1, 5, null, null]", DKT_MALFORMED, DKT_OK},
        {"[1, 5, null, []]", DKT_MALFORMED, DKT_OK},
        {"[1, 5, \"error\", null]", DKT_MALFORMED, DKT_OK},
        {"[1, 5, null]", DKT_MALFORMED, DKT_OK},
        {"[0, 5, null, {}]", DKT_MALFORMED, DKT_OK},
        {"[1, 4294967296, null, {}]", DKT_MALFORMED, DKT_OK},
        {"[1, 5, null, {\"status\": 1}]", DKT_MALFORMED, DKT_OK},
        {"[1, 5, null, {\"deadline_ms\": -1}]", DKT_MALFORMED, DKT_OK},
        {"[1, 5, null, {\"replayed\": 1}]", DKT_MALFORMED, DKT_OK},
        {"[1, 5, {\"code\": \"internal\", \"retry_after_ms\": 4294967296}, null]", DKT_MALFORMED,
         DKT_OK},
        {"{}", DKT_MALFORMED, DKT_OK},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dkt_answer_t a;
        dkt_status_t decoded = s_decode(rows[i].json, &a);
        if (decoded != rows[i].decoded || (decoded == DKT_OK && a.status != rows[i].status)) {
            fail_msg("%s: %s", rows[i].json, dkt_status_code(decoded));
        }
    }
}

/* The result is the map's own bytes: msgpack-c can go on from there. */
static void test_proto_answer_result_is_the_whole_map(void **state)
{
    (void)state;
    dkt_answer_t a;
    assert_int_equal(s_decode("[1, 5, null, {\"tickets\": [{\"ticket_id\": \"inner\"}]}]", &a),
                     DKT_OK);
    assert_null(a.ticket_id.data); /* not a key of the result itself */
    assert_int_equal(a.result.data[0], 0x81);
    assert_true(dkt_msgpack_check(a.result.data, a.result.len));
}

/* A sentence that was cut within a character still leaves as text. */
static void test_proto_answer_error_sentence_is_text(void **state)
{
    (void)state;
    dkt_err_t err;
    char quoted[2 * DKT_ERR_TEXT_BYTES_MAX + 1];
    for (size_t i = 0; i < sizeof quoted - 1; i += 2) {
        memcpy(quoted + i, "\xc3\xa9", 2);
    }
    quoted[sizeof quoted - 1] = '\0';
    assert_int_equal(dkt_fail(&err, DKT_CONFLICT, NULL, "%s", quoted), DKT_CONFLICT);
    dkt_w_t w = dkt_w_init(s_bytes, sizeof s_bytes);
    dkt_answer_error(&w, 3, &err);
    dkt_answer_t a;
    assert_int_equal(dkt_answer_decode(s_bytes, w.len, &a, &err), DKT_OK);
    assert_int_equal(a.message.len, DKT_ERR_TEXT_BYTES_MAX - 2);
}

/* A full page of list_tickets passes the reader's check, and the map has what it says. */
static void test_proto_answer_page_of_tickets(void **state)
{
    (void)state;
    dkt_w_t w = dkt_w_init(s_bytes, sizeof s_bytes);
    dkt_answer_begin(&w, 5, 2);
    dkt_w_cstr(&w, "status");
    dkt_w_cstr(&w, "ok");
    dkt_w_cstr(&w, "tickets");
    dkt_w_array(&w, S_LIST_TICKETS);
    for (unsigned i = 0; i < S_LIST_TICKETS; i++) {
        dkt_answer_ticket_t ticket = {.ticket_id = "tk_x",
                                      .ticket_type = "gold",
                                      .state = (dkt_ticket_state_t)(i % DKT_TICKET_STATE_COUNT),
                                      .slot_start_ms = 1 + i,
                                      .dispatched_ms = i % 2,
                                      .resolved_ms = i % 3,
                                      .cancelled_ms = i % 5};
        dkt_answer_ticket_map(&w, &ticket);
    }
    dkt_answer_t a;
    dkt_err_t err;
    assert_false(w.failed);
    assert_int_equal(dkt_answer_decode(s_bytes, w.len, &a, &err), DKT_OK);
}

/* -- writer ------------------------------------------------------------------------------------ */

static void test_proto_answer_writer_takes_the_smallest_encoding(void **state)
{
    (void)state;
    static const struct {
        int64_t value;
        size_t bytes;
    } rows[] = {{0, 1},
                {127, 1},
                {128, 2},
                {255, 2},
                {256, 3},
                {65535, 3},
                {65536, 5},
                {UINT32_MAX, 5},
                {1LL << 32, 9},
                {INT64_MAX, 9},
                {-1, 1},
                {-32, 1},
                {-33, 2},
                {-128, 2},
                {-129, 3},
                {-32768, 3},
                {-32769, 5},
                {INT32_MIN, 5},
                {-(1LL << 31) - 1, 9}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dkt_w_t w = dkt_w_init(s_bytes, sizeof s_bytes);
        dkt_w_int(&w, rows[i].value);
        assert_int_equal(w.len, rows[i].bytes);
        assert_true(dkt_msgpack_check(s_bytes, w.len));
    }
}

static void test_proto_answer_writer_failure_is_sticky(void **state)
{
    (void)state;
    dkt_w_t w = dkt_w_init(s_bytes, 4);
    dkt_w_cstr(&w, "too long");
    assert_true(w.failed);
    size_t len = w.len;
    dkt_w_nil(&w);
    assert_true(w.failed);
    assert_int_equal(w.len, len);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_proto_answer_shapes),
        cmocka_unit_test(test_proto_answer_result_is_the_whole_map),
        cmocka_unit_test(test_proto_answer_error_sentence_is_text),
        cmocka_unit_test(test_proto_answer_page_of_tickets),
        cmocka_unit_test(test_proto_answer_writer_takes_the_smallest_encoding),
        cmocka_unit_test(test_proto_answer_writer_failure_is_sticky),
    };
    return cmocka_run_group_tests_name("proto_answer", tests, NULL, NULL);
}
