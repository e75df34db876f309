/* SPDX-License-Identifier: Apache-2.0
 *
 * What strangers' bytes reach first: the pre-check, the request decoder and the answer decoder.
 * Properties, beside "no sanitizer report":
 *   - a request without a wrong parameter survives encode and decode unchanged, and encoding is
 *     stable;
 *   - what the pre-check lets through, msgpack-c takes as one whole value; what the pre-check
 *     refuses is never decoded, and of what it lets through a request is whatever has the shape of
 *     one: the decoders check in one pass of their own, which is held against the other one here.
 * Linked with libFuzzer by preset "fuzz", with fuzz_replay.c everywhere else.
 */
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/core/proto.h"
#include "tests/fuzz/fuzz_request.h"

/* Ends the process in a way that libFuzzer and ctest both see. */
static void s_require(bool holds, const char *property)
{
    if (!holds) {
        fprintf(stderr, "broken: %s\n", property);
        abort();
    }
}

static bool s_view_equal(dkt_view_t a, dkt_view_t b)
{
    return (a.data == NULL) == (b.data == NULL) && a.len == b.len &&
           (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static bool s_table_equal(const dkt_named_u16_t *a, const dkt_named_u16_t *b, uint8_t count)
{
    uint8_t i = 0;
    while (i < count && strcmp(a[i].name, b[i].name) == 0 && a[i].value == b[i].value) {
        i++;
    }
    return i == count;
}

static bool s_request_equal(const dkt_request_t *a, const dkt_request_t *b)
{
    return a->msgid == b->msgid && a->method == b->method && a->present == b->present &&
           s_view_equal(a->token, b->token) && s_view_equal(a->traceparent, b->traceparent) &&
           s_view_equal(a->client_id, b->client_id) &&
           s_view_equal(a->ticket_type, b->ticket_type) &&
           s_view_equal(a->ticket_id, b->ticket_id) && s_view_equal(a->slot_id, b->slot_id) &&
           s_view_equal(a->subject, b->subject) && s_view_equal(a->payload, b->payload) &&
           s_view_equal(a->cursor, b->cursor) && s_view_equal(a->name, b->name) &&
           s_view_equal(a->email, b->email) && s_view_equal(a->password, b->password) &&
           s_view_equal(a->new_password, b->new_password) &&
           memcmp(&a->request_id, &b->request_id, sizeof a->request_id) == 0 &&
           a->budget_ms == b->budget_ms && a->hold_ms == b->hold_ms && a->limit == b->limit &&
           a->resolvers == b->resolvers && a->state == b->state && a->rebooking == b->rebooking &&
           a->suspended == b->suspended && a->class_count == b->class_count &&
           a->limit_count == b->limit_count &&
           s_table_equal(a->classes, b->classes, a->class_count) &&
           s_table_equal(a->limits, b->limits, a->limit_count);
}

/* [type, msgid, .., ..] as msgpack-c sees it. */
static bool s_is_envelope(const msgpack_object *object, uint64_t type)
{
    if (object->type != MSGPACK_OBJECT_ARRAY || object->via.array.size != 4) {
        return false;
    }
    const msgpack_object *elements = object->via.array.ptr;
    return elements[0].type == MSGPACK_OBJECT_POSITIVE_INTEGER && elements[0].via.u64 == type &&
           elements[1].type == MSGPACK_OBJECT_POSITIVE_INTEGER && elements[1].via.u64 <= UINT32_MAX;
}

static bool s_is_request(const msgpack_object *object)
{
    if (!s_is_envelope(object, 0)) {
        return false;
    }
    const msgpack_object *elements = object->via.array.ptr;
    return elements[2].type == MSGPACK_OBJECT_STR && elements[3].type == MSGPACK_OBJECT_ARRAY &&
           elements[3].via.array.size == 1 &&
           elements[3].via.array.ptr[0].type == MSGPACK_OBJECT_MAP;
}

static void s_check_against_msgpack_c(const uint8_t *bytes, size_t len)
{
    dkt_request_t request;
    dkt_err_t err;
    msgpack_unpacked value;
    msgpack_unpacked_init(&value);
    size_t off = 0;
    msgpack_unpack_return got = msgpack_unpack_next(&value, (const char *)bytes, len, &off);
    s_require(got == MSGPACK_UNPACK_SUCCESS && off == len, "checked bytes are one whole value");
    bool taken = dkt_request_decode(bytes, len, &request, &err) != DKT_MALFORMED;
    s_require(taken == s_is_request(&value.data), "checked bytes of a request's shape are one");
    msgpack_unpacked_destroy(&value);
}

static void s_check_round_trip(const dkt_request_t *request)
{
    static uint8_t first[DKT_FRAME_BYTES_MAX], second[DKT_FRAME_BYTES_MAX];
    dkt_w_t w = dkt_w_init(first, sizeof first);
    dkt_request_encode(&w, request);
    s_require(!w.failed, "what was decoded fits a frame again");
    dkt_request_t again;
    dkt_err_t err;
    dkt_status_t status = dkt_request_decode(first, w.len, &again, &err);
    s_require(status == DKT_OK && again.argument.status == DKT_OK, "encoded requests are well");
    s_require(s_request_equal(request, &again), "encode and decode change nothing");
    dkt_digest_t a = dkt_request_digest(request);
    dkt_digest_t b = dkt_request_digest(&again);
    s_require(!dkt_digest_differs(&a, &b), "digests do not depend on the encoding");
    dkt_w_t w2 = dkt_w_init(second, sizeof second);
    dkt_request_encode(&w2, &again);
    s_require(w2.len == w.len && memcmp(first, second, w.len) == 0, "encoding is stable");
}

static void s_check_request(const uint8_t *bytes, size_t len, bool checked)
{
    dkt_request_t request;
    dkt_err_t err;
    dkt_status_t status = dkt_request_decode(bytes, len, &request, &err);
    s_require(checked || status == DKT_MALFORMED, "what fails the check is malformed");
    s_require(status == DKT_OK || err.status == status, "a failure says what it is");
    if (status != DKT_OK) {
        return;
    }
    s_require(request.argument.status == DKT_OK || request.argument.field[0],
              "a wrong parameter is named");
    if (request.argument.status == DKT_OK) {
        s_check_round_trip(&request);
    }
}

static void s_check_answer(const uint8_t *bytes, size_t len, bool checked)
{
    dkt_answer_t answer;
    dkt_err_t err;
    dkt_status_t status = dkt_answer_decode(bytes, len, &answer, &err);
    s_require(checked || status == DKT_MALFORMED, "what fails the check is malformed");
    if (status == DKT_OK) {
        bool inside =
            !answer.result.data ||
            (answer.result.data >= bytes && answer.result.data + answer.result.len <= bytes + len);
        s_require(inside, "the result is inside the frame");
        s_require((answer.status == DKT_OK) == (answer.result.data != NULL),
                  "an answer is a result or an error");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    bool checked = dkt_msgpack_check(bytes, len);
    if (checked && len <= DKT_FRAME_BYTES_MAX) {
        s_check_against_msgpack_c(bytes, len);
    }
    s_check_request(bytes, len, checked);
    s_check_answer(bytes, len, checked);
    return 0;
}
