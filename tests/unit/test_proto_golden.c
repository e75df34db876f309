/* SPDX-License-Identifier: Apache-2.0
 *
 * The golden messages of schemas/messages: our writers give exactly these bytes, our readers give
 * exactly these values. tests/e2e/test_golden.py does the same with another msgpack library.
 */
#include "lib/core/proto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <glob.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/support_message.h"

#define S_BYTES_MAX    DKT_FRAME_BYTES_MAX
#define S_FILES        18
#define S_REQUESTS_MIN 25
#define S_ANSWERS_MIN  40

typedef struct {
    uint8_t data[S_BYTES_MAX];
    uint32_t len;
} s_bytes_t;

typedef void s_entry_fn(const json_t *entry, const json_t *message, const s_bytes_t *golden);

static void s_from_hex(const char *hex, s_bytes_t *out)
{
    out->len = (uint32_t)message_from_hex(hex, out->data, sizeof out->data);
}

static const char *s_text(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static int64_t s_int(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static bool s_true(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

/* Calls `each` for every entry of that kind in every file, and returns how many there were. */
static unsigned s_each(const char *kind, s_entry_fn *each)
{
    glob_t found;
    assert_int_equal(glob(DKT_SOURCE_DIR "/schemas/messages/*.json", 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, S_FILES);
    unsigned count = 0;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        json_t *document = json_load_file(found.gl_pathv[i], JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(document);
        size_t at;
        json_t *entry;
        json_array_foreach(json_object_get(document, kind), at, entry)
        {
            static s_bytes_t golden;
            s_from_hex(s_text(entry, "hex"), &golden);
            each(entry, json_object_get(entry, "message"), &golden);
            count++;
        }
        json_decref(document);
    }
    globfree(&found);
    return count;
}

static void s_assert_written(const dkt_w_t *w, const s_bytes_t *golden)
{
    assert_false(w->failed);
    assert_int_equal(w->len, golden->len);
    assert_memory_equal(w->data, golden->data, golden->len);
}

static bool s_has_real(const json_t *value)
{
    const char *key;
    json_t *item;
    size_t at;
    if (json_is_real(value)) {
        return true;
    }
    json_object_foreach((json_t *)value, key, item)
    {
        if (s_has_real(item)) {
            return true;
        }
    }
    json_array_foreach(value, at, item)
    {
        if (s_has_real(item)) {
            return true;
        }
    }
    return false;
}

static void s_check_generic(const json_t *message, const s_bytes_t *golden)
{
    static uint8_t out[S_BYTES_MAX];
    dkt_w_t w = dkt_w_init(out, sizeof out);
    if (!s_has_real(message)) { /* we never write floats */
        message_write(&w, message);
        s_assert_written(&w, golden);
    }
    assert_true(dkt_msgpack_check(golden->data, golden->len));
    for (uint32_t len = 0; len < golden->len; len++) {
        assert_false(dkt_msgpack_check(golden->data, len));
    }
}

static dkt_ticket_state_t s_state(const char *name)
{
    static const char *const names[] = {"open", "dispatched", "resolved", "cancelled"};
    int at = 0;
    while (strcmp(names[at], name) != 0) {
        at++;
    }
    return (dkt_ticket_state_t)at;
}

/* -- requests ---------------------------------------------------------------------------------- */

static void s_check_value(dkt_view_t view, const json_t *params, dkt_param_t param)
{
    const json_t *value = json_object_get(params, dkt_param_key(param));
    if (json_is_string(value)) {
        assert_int_equal(view.len, json_string_length(value));
        assert_memory_equal(view.data, json_string_value(value), view.len);
    }
}

static void s_check_number(uint64_t number, const json_t *params, dkt_param_t param)
{
    const json_t *value = json_object_get(params, dkt_param_key(param));
    if (json_is_integer(value)) {
        assert_true(number == (uint64_t)json_integer_value(value));
    }
}

static void s_check_named(const dkt_named_u16_t *named, unsigned count, const json_t *map)
{
    assert_int_equal(count, json_object_size(map));
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(named[i].value, s_int(map, named[i].name));
    }
}

/* Every value is in the field of its name. */
static void s_check_fields(const dkt_request_t *r, const json_t *params)
{
    s_check_value(r->token, params, DKT_PARAM_TOKEN);
    s_check_value(r->traceparent, params, DKT_PARAM_TRACEPARENT);
    s_check_value(r->client_id, params, DKT_PARAM_CLIENT_ID);
    s_check_value(r->ticket_type, params, DKT_PARAM_TICKET_TYPE);
    s_check_value(r->ticket_id, params, DKT_PARAM_TICKET_ID);
    s_check_value(r->slot_id, params, DKT_PARAM_SLOT_ID);
    s_check_value(r->subject, params, DKT_PARAM_SUBJECT);
    s_check_value(r->cursor, params, DKT_PARAM_CURSOR);
    s_check_value(r->name, params, DKT_PARAM_NAME);
    s_check_value(r->email, params, DKT_PARAM_EMAIL);
    s_check_value(r->password, params, DKT_PARAM_PASSWORD);
    s_check_value(r->new_password, params, DKT_PARAM_NEW_PASSWORD);
    s_check_number(r->budget_ms, params, DKT_PARAM_BUDGET_MS);
    s_check_number(r->hold_ms, params, DKT_PARAM_HOLD_MS);
    s_check_number(r->limit, params, DKT_PARAM_LIMIT);
    s_check_number(r->resolvers, params, DKT_PARAM_RESOLVERS);
    assert_int_equal(r->rebooking, s_true(params, "rebooking"));
    assert_int_equal(r->suspended, s_true(params, "suspended"));
    s_check_named(r->classes, r->class_count, json_object_get(params, "classes"));
    s_check_named(r->limits, r->limit_count, json_object_get(params, "limits"));
    const char *state = s_text(params, "state");
    assert_int_equal(r->state, state ? (int)s_state(state) : -1);
    const char *payload = s_text(json_object_get(params, "payload"), "$bin");
    if (payload) {
        static s_bytes_t bin;
        s_from_hex(payload, &bin);
        assert_int_equal(r->payload.len, bin.len);
        assert_memory_equal(r->payload.data, bin.data, bin.len);
    }
}

static void s_check_request(const json_t *entry, const json_t *message, const s_bytes_t *golden)
{
    s_check_generic(message, golden);
    dkt_request_t request;
    dkt_err_t err;
    assert_int_equal(dkt_request_decode(golden->data, golden->len, &request, &err), DKT_OK);
    assert_int_equal(request.argument.status, DKT_OK);
    assert_int_equal(request.msgid, json_integer_value(json_array_get(message, 1)));
    assert_string_equal(dkt_method_row(request.method)->name,
                        json_string_value(json_array_get(message, 2)));
    const json_t *params = json_array_get(json_array_get(message, 3), 0);
    uint32_t accepted = dkt_method_row(request.method)->required |
                        dkt_method_row(request.method)->optional | DKT_PARAM_BIT(TOKEN) |
                        DKT_PARAM_BIT(REQUEST_ID) | DKT_PARAM_BIT(BUDGET_MS) |
                        DKT_PARAM_BIT(TRACEPARENT);
    for (unsigned i = 0; i < DKT_PARAM_COUNT; i++) {
        const json_t *value = json_object_get(params, dkt_param_key((dkt_param_t)i));
        bool given = value && !json_is_null(value) && (accepted >> i & 1);
        assert_int_equal(request.present >> i & 1, given);
    }
    s_check_fields(&request, params);
    if (json_is_false(json_object_get(entry, "canonical"))) {
        return;
    }
    static uint8_t out[S_BYTES_MAX];
    dkt_w_t w = dkt_w_init(out, sizeof out);
    dkt_request_encode(&w, &request);
    s_assert_written(&w, golden);
}

static void test_proto_golden_requests(void **state)
{
    (void)state;
    assert_in_range(s_each("requests", s_check_request), S_REQUESTS_MIN, 1000);
}

/* -- answers ----------------------------------------------------------------------------------- */

static void s_check_text(dkt_view_t view, const char *text)
{
    assert_int_equal(view.data != NULL, text != NULL);
    if (text) {
        assert_int_equal(view.len, strlen(text));
        assert_memory_equal(view.data, text, view.len);
    }
}

static void s_check_decoded(const json_t *message, const s_bytes_t *golden)
{
    dkt_answer_t a;
    dkt_err_t err;
    assert_int_equal(dkt_answer_decode(golden->data, golden->len, &a, &err), DKT_OK);
    const json_t *error = json_array_get(message, 2);
    const json_t *result = json_array_get(message, 3);
    const char *code = s_text(error, "code");
    assert_int_equal(a.msgid, json_integer_value(json_array_get(message, 1)));
    assert_string_equal(dkt_status_code(a.status), code ? code : "ok");
    s_check_text(a.message, s_text(error, "message"));
    s_check_text(a.field, s_text(error, "field"));
    assert_int_equal(a.retry_after_ms, s_int(error, "retry_after_ms"));
    assert_int_equal(a.result.data != NULL, json_is_object(result));
    s_check_text(a.status_text, s_text(result, "status"));
    s_check_text(a.ticket_id, s_text(result, "ticket_id"));
    s_check_text(a.slot_id, s_text(result, "slot_id"));
    s_check_text(a.client_id, s_text(result, "client_id"));
    s_check_text(a.sub_domain, s_text(result, "sub_domain"));
    s_check_text(a.token, s_text(result, "token"));
    s_check_text(a.reason, s_text(result, "reason"));
    s_check_text(a.node, s_text(result, "node"));
    s_check_text(a.version, s_text(result, "version"));
    assert_true(a.slot_start_ms == s_int(result, "slot_start_ms"));
    assert_true(a.deadline_ms == s_int(result, "deadline_ms"));
    assert_true(a.hold_expires_ms == s_int(result, "hold_expires_ms"));
    assert_true(a.earliest_ms == s_int(result, "earliest_ms"));
    assert_true(a.expires_ms == s_int(result, "expires_ms"));
    assert_int_equal(a.replayed, s_true(result, "replayed"));
    assert_int_equal(a.met, s_true(result, "met"));
}

static void s_write_error(dkt_w_t *w, uint32_t msgid, const json_t *error)
{
    const char *code = s_text(error, "code");
    dkt_err_t err;
    dkt_fail(&err, dkt_status_of_code(code, (uint32_t)strlen(code)), s_text(error, "field"), "%s",
             s_text(error, "message"));
    err.retry_after_ms = (uint32_t)s_int(error, "retry_after_ms");
    dkt_answer_error(w, msgid, &err);
}

static void s_write_refused(dkt_w_t *w, uint32_t msgid, const json_t *result)
{
    dkt_answer_refused_t refused = {.reason = s_text(result, "reason"),
                                    .has_earliest = json_object_get(result, "earliest_ms"),
                                    .earliest_ms = s_int(result, "earliest_ms"),
                                    .replayed = s_true(result, "replayed")};
    size_t at;
    json_t *item;
    json_array_foreach(json_object_get(result, "alternatives"), at, item)
    {
        refused.alternatives[refused.alternative_count++] = (dkt_alternative_t){
            s_text(item, "ticket_type"), s_int(item, "slot_start_ms"), s_int(item, "deadline_ms")};
    }
    dkt_answer_refused(w, msgid, &refused);
}

static void s_write_ticket(dkt_w_t *w, uint32_t msgid, const json_t *result)
{
    const json_t *ticket = json_object_get(result, "ticket");
    const char *subject = s_text(ticket, "subject");
    const char *payload = s_text(json_object_get(ticket, "payload"), "$bin");
    static s_bytes_t bin;
    s_from_hex(payload ? payload : "", &bin);
    dkt_answer_ticket_t t = {
        .ticket_id = s_text(ticket, "ticket_id"),
        .ticket_type = s_text(ticket, "ticket_type"),
        .state = s_state(s_text(ticket, "state")),
        .slot_start_ms = s_int(ticket, "slot_start_ms"),
        .deadline_ms = s_int(ticket, "deadline_ms"),
        .created_ms = s_int(ticket, "created_ms"),
        .breached = s_true(ticket, "breached"),
        .at_risk = s_true(ticket, "at_risk"),
        .subject = {(const uint8_t *)subject, subject ? (uint32_t)strlen(subject) : 0},
        .payload = {payload ? bin.data : NULL, bin.len},
        .dispatched_ms = s_int(ticket, "dispatched_ms"),
        .resolved_ms = s_int(ticket, "resolved_ms"),
        .cancelled_ms = s_int(ticket, "cancelled_ms")};
    dkt_answer_begin(w, msgid, 2);
    dkt_w_cstr(w, "status");
    dkt_w_cstr(w, "ok");
    dkt_w_cstr(w, "ticket");
    dkt_answer_ticket_map(w, &t);
}

/* The writer of this shape, if there is one. */
static bool s_write_shape(dkt_w_t *w, uint32_t msgid, const json_t *error, const json_t *result)
{
    if (json_is_object(error)) {
        s_write_error(w, msgid, error);
        return true;
    }
    const char *status = s_text(result, "status");
    if (json_object_size(result) == 1) {
        dkt_answer_status(w, msgid, status);
        return true;
    }
    if (strcmp(status, "created") == 0 && s_text(result, "ticket_id")) {
        dkt_answer_created_t created = {s_text(result, "ticket_id"), s_text(result, "slot_id"),
                                        s_int(result, "slot_start_ms"),
                                        s_int(result, "deadline_ms"), s_true(result, "replayed")};
        dkt_answer_created(w, msgid, &created);
        return true;
    }
    if (strcmp(status, "refused") == 0 && s_text(result, "reason")) {
        s_write_refused(w, msgid, result);
        return true;
    }
    if (strcmp(status, "held") == 0) {
        dkt_answer_held_t held = {s_text(result, "slot_id"), s_int(result, "slot_start_ms"),
                                  s_int(result, "hold_expires_ms")};
        dkt_answer_held(w, msgid, &held);
        return true;
    }
    if (json_object_get(result, "ticket")) {
        s_write_ticket(w, msgid, result);
        return true;
    }
    return false;
}

static unsigned s_shaped;

static void s_check_answer(const json_t *entry, const json_t *message, const s_bytes_t *golden)
{
    (void)entry;
    s_check_generic(message, golden);
    s_check_decoded(message, golden);
    static uint8_t out[S_BYTES_MAX];
    dkt_w_t w = dkt_w_init(out, sizeof out);
    uint32_t msgid = (uint32_t)json_integer_value(json_array_get(message, 1));
    if (s_write_shape(&w, msgid, json_array_get(message, 2), json_array_get(message, 3))) {
        s_assert_written(&w, golden);
        s_shaped++;
    }
}

static void test_proto_golden_answers(void **state)
{
    (void)state;
    s_shaped = 0;
    assert_in_range(s_each("answers", s_check_answer), S_ANSWERS_MIN, 1000);
    assert_in_range(s_shaped, 30, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_proto_golden_requests),
        cmocka_unit_test(test_proto_golden_answers),
    };
    return cmocka_run_group_tests_name("proto_golden", tests, NULL, NULL);
}
