/* SPDX-License-Identifier: Apache-2.0
 *
 * The producer library against a broker that misbehaves on purpose. The fake is a ROUTER that the
 * test itself serves between polls, in one thread: each test writes down what it answers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <zmq.h>

#include "lib/core/proto.h"
#include "lib/docket.h"

#define S_REQUESTS_MAX 600
#define S_ANSWER_BYTES 512
#define S_ROUNDS_MAX   3000 /* of serve and poll: a bound on every wait */
#define S_POLL_MS      5

typedef struct {
    uint32_t msgid;
    uint8_t request_id[16];
    char method[32], token[16];
} s_request_t;

/* One fake broker and one producer of it. */
typedef struct {
    void *zmq, *router;
    char endpoint[64];
    dkt_producer_t *producer;
    uint8_t identity[64];
    size_t identity_len;
    s_request_t requests[S_REQUESTS_MAX]; /* all ever received */
    size_t request_count, messages;
} s_rig_t;

typedef struct {
    int calls;
    dkt_status_t status;
    bool silence, replayed;
    uint32_t attempts;
    char state[32], ticket_id[65], message[160];
} s_seen_t;

static void s_note(void *ctx, const dkt_reply_t *reply)
{
    s_seen_t *seen = ctx;
    seen->calls++;
    seen->status = reply->status;
    seen->silence = reply->silence;
    seen->replayed = reply->replayed;
    seen->attempts = reply->attempts;
    dkt_text_copy(reply->state, seen->state, sizeof seen->state);
    dkt_text_copy(reply->ticket_id, seen->ticket_id, sizeof seen->ticket_id);
    dkt_text_copy(reply->message, seen->message, sizeof seen->message);
}

/* -- the fake broker -------------------------------------------------------------------------- */

static void s_bind(s_rig_t *rig)
{
    int zero = 0;
    size_t len = sizeof rig->endpoint;
    rig->router = zmq_socket(rig->zmq, ZMQ_ROUTER);
    zmq_setsockopt(rig->router, ZMQ_LINGER, &zero, sizeof zero);
    /* Garbage must not cost the answer behind it. */
    zmq_setsockopt(rig->router, ZMQ_SNDHWM, &zero, sizeof zero);
    assert_int_equal(zmq_bind(rig->router, "tcp://127.0.0.1:*"), 0);
    assert_int_equal(zmq_getsockopt(rig->router, ZMQ_LAST_ENDPOINT, rig->endpoint, &len), 0);
}

static void s_open(s_rig_t *rig, dkt_producer_options_t options)
{
    dkt_err_t err;
    memset(rig, 0, sizeof *rig);
    rig->zmq = zmq_ctx_new();
    s_bind(rig);
    options.endpoint = rig->endpoint;
    rig->producer = dkt_producer_new(&options, &err);
    assert_non_null(rig->producer);
}

static void s_close(s_rig_t *rig)
{
    dkt_producer_destroy(&rig->producer);
    assert_null(rig->producer);
    if (rig->router) {
        zmq_close(rig->router);
    }
    zmq_ctx_term(rig->zmq);
}

static void s_take_request(s_rig_t *rig, const uint8_t *bytes, size_t len)
{
    dkt_err_t err;
    dkt_request_t request;
    assert_int_equal(dkt_request_decode(bytes, len, &request, &err), DKT_OK);
    assert_true(rig->request_count < S_REQUESTS_MAX);
    s_request_t *to = &rig->requests[rig->request_count++];
    to->msgid = request.msgid;
    memcpy(to->request_id, request.request_id.bytes, sizeof to->request_id);
    snprintf(to->method, sizeof to->method, "%s", dkt_method_row(request.method)->name);
    snprintf(to->token, sizeof to->token, "%.*s", (int)request.token.len,
             request.token.data ? (const char *)request.token.data : "");
}

/* Takes all messages that are there. */
static void s_receive(s_rig_t *rig)
{
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    for (int index = 0; rig->router && zmq_msg_recv(&frame, rig->router, ZMQ_DONTWAIT) >= 0;) {
        if (index == 0) {
            rig->identity_len = zmq_msg_size(&frame);
            memcpy(rig->identity, zmq_msg_data(&frame), rig->identity_len);
            rig->messages++;
        } else if (index == 1) {
            assert_int_equal(zmq_msg_size(&frame), 0);
        } else {
            s_take_request(rig, zmq_msg_data(&frame), zmq_msg_size(&frame));
        }
        index = zmq_msg_more(&frame) ? index + 1 : 0;
    }
    zmq_msg_close(&frame);
}

static void s_send_raw(s_rig_t *rig, const void *bytes, size_t len, bool delimiter)
{
    zmq_send(rig->router, rig->identity, rig->identity_len, ZMQ_SNDMORE);
    if (delimiter) {
        zmq_send(rig->router, "", 0, ZMQ_SNDMORE);
    }
    zmq_send(rig->router, bytes, len, 0);
}

static void s_answer_created(s_rig_t *rig, uint32_t msgid, const char *ticket_id)
{
    uint8_t bytes[S_ANSWER_BYTES];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_answer_created_t answer = {
        .ticket_id = ticket_id, .slot_id = "sl_1", .slot_start_ms = 60000, .deadline_ms = 120000};
    dkt_answer_created(&w, msgid, &answer);
    assert_false(w.failed);
    s_send_raw(rig, bytes, w.len, true);
}

static void s_answer_error(s_rig_t *rig, uint32_t msgid, dkt_status_t status, uint32_t retry_ms)
{
    uint8_t bytes[S_ANSWER_BYTES];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_err_t err;
    (void)dkt_fail(&err, status, NULL, NULL);
    err.retry_after_ms = retry_ms;
    dkt_answer_error(&w, msgid, &err);
    assert_false(w.failed);
    s_send_raw(rig, bytes, w.len, true);
}

/* Polls the producer and takes requests until there are `count`. */
static void s_until_requests(s_rig_t *rig, size_t count)
{
    for (int i = 0; i < S_ROUNDS_MAX && rig->request_count < count; i++) {
        dkt_producer_poll(rig->producer, S_POLL_MS);
        s_receive(rig);
    }
    assert_int_equal(rig->request_count, count);
}

static void s_until_done(s_rig_t *rig)
{
    for (int i = 0; i < S_ROUNDS_MAX && dkt_producer_open(rig->producer) > 0; i++) {
        dkt_producer_poll(rig->producer, S_POLL_MS);
        s_receive(rig);
    }
    assert_int_equal(dkt_producer_open(rig->producer), 0);
}

static void s_submit(s_rig_t *rig, s_seen_t *seen)
{
    dkt_arg_t args[] = {dkt_arg_text("client_id", "cl_AAAAAAAAAAAAAAAA"),
                        dkt_arg_text("ticket_type", "gold")};
    memset(seen, 0, sizeof *seen);
    assert_int_equal(
        dkt_producer_submit(rig->producer, "create_ticket", args, 2, NULL, s_note, seen), DKT_OK);
}

/* With a first call that has arrived. */
static void s_open_and_ask(s_rig_t *rig, dkt_producer_options_t options, s_seen_t *seen)
{
    s_open(rig, options);
    s_submit(rig, seen);
    s_until_requests(rig, 1);
}

static void s_assert_same_request(const s_rig_t *rig, size_t a, size_t b)
{
    assert_memory_equal(rig->requests[a].request_id, rig->requests[b].request_id, 16);
    assert_int_not_equal(rig->requests[a].msgid, rig->requests[b].msgid);
}

/* -- tests ------------------------------------------------------------------------------------ */

static void test_client_answer_reaches_its_callback(void **state)
{
    s_rig_t rig;
    s_seen_t seen;
    (void)state;
    s_open_and_ask(&rig, (dkt_producer_options_t){.token = "secret"}, &seen);
    assert_string_equal(rig.requests[0].method, "create_ticket");
    assert_string_equal(rig.requests[0].token, "secret");
    assert_true(rig.requests[0].msgid >= 1);
    s_answer_created(&rig, rig.requests[0].msgid, "tk_1");
    s_until_done(&rig);
    assert_int_equal(seen.calls, 1);
    assert_int_equal(seen.status, DKT_OK);
    assert_string_equal(seen.state, "created");
    assert_string_equal(seen.ticket_id, "tk_1");
    assert_int_equal(seen.attempts, 1);
    s_close(&rig);
}

static void test_client_batches_and_takes_answers_in_any_order(void **state)
{
    enum { N = 300 };
    static s_rig_t rig;
    static s_seen_t seen[N];
    char id[32];
    (void)state;
    s_open_and_ask(&rig, (dkt_producer_options_t){0}, &seen[0]);
    for (size_t i = 1; i < N; i++) {
        s_submit(&rig, &seen[i]);
    }
    zmq_pollitem_t item = {rig.router, 0, ZMQ_POLLIN, 0};
    while (rig.request_count < 257 && zmq_poll(&item, 1, S_ROUNDS_MAX * S_POLL_MS) > 0) {
        s_receive(&rig);
    }
    assert_int_equal(rig.request_count, 257); /* a full message leaves without a poll */
    s_until_requests(&rig, N);
    assert_int_equal(rig.messages, 3);
    for (size_t i = N; i-- > 0;) {
        snprintf(id, sizeof id, "tk_%zu", i);
        s_answer_created(&rig, rig.requests[i].msgid, id);
    }
    s_until_done(&rig);
    for (size_t i = 0; i < N; i++) {
        snprintf(id, sizeof id, "tk_%zu", i);
        assert_int_equal(seen[i].calls, 1);
        assert_string_equal(seen[i].ticket_id, id);
    }
    s_close(&rig);
}

static void test_client_unavailable_is_retried_with_the_same_request_id(void **state)
{
    s_rig_t rig;
    s_seen_t seen;
    (void)state;
    s_open_and_ask(&rig, (dkt_producer_options_t){0}, &seen);
    s_answer_error(&rig, rig.requests[0].msgid, DKT_UNAVAILABLE, 0);
    s_until_requests(&rig, 2);
    s_assert_same_request(&rig, 0, 1);
    s_answer_error(&rig, rig.requests[1].msgid, DKT_OVERLOADED, 1);
    s_until_requests(&rig, 3);
    s_assert_same_request(&rig, 0, 2);
    assert_int_equal(seen.calls, 0);
    s_answer_created(&rig, rig.requests[2].msgid, "tk_9");
    s_until_done(&rig);
    assert_int_equal(seen.calls, 1);
    assert_int_equal(seen.attempts, 3);
    assert_string_equal(seen.ticket_id, "tk_9");
    s_close(&rig);
}

static void test_client_waits_as_long_as_the_answer_asks(void **state)
{
    s_rig_t rig;
    s_seen_t seen;
    (void)state;
    s_open_and_ask(&rig, (dkt_producer_options_t){.total_ms = 5000}, &seen);
    s_answer_error(&rig, rig.requests[0].msgid, DKT_OVERLOADED, 200);
    for (int i = 0; i < 10; i++) { /* 50 of the 200 ms */
        dkt_producer_poll(rig.producer, S_POLL_MS);
        s_receive(&rig);
    }
    assert_int_equal(rig.request_count, 1);
    s_until_requests(&rig, 2);
    s_answer_created(&rig, rig.requests[1].msgid, "tk_1");
    s_until_done(&rig);
    s_close(&rig);
}

static void test_client_pause_beyond_the_total_time_ends_with_the_error(void **state)
{
    s_rig_t rig;
    s_seen_t seen;
    (void)state;
    s_open_and_ask(&rig, (dkt_producer_options_t){.total_ms = 1000}, &seen);
    s_answer_error(&rig, rig.requests[0].msgid, DKT_RATE_LIMITED, 60000);
    s_until_done(&rig);
    assert_int_equal(seen.status, DKT_RATE_LIMITED);
    assert_false(seen.silence);
    s_close(&rig);
}

static void test_client_final_error_is_not_retried(void **state)
{
    s_rig_t rig;
    s_seen_t seen;
    (void)state;
    s_open_and_ask(&rig, (dkt_producer_options_t){0}, &seen);
    s_answer_error(&rig, rig.requests[0].msgid, DKT_CONFLICT, 0);
    s_until_done(&rig);
    assert_int_equal(seen.status, DKT_CONFLICT);
    assert_int_equal(rig.request_count, 1);
    s_close(&rig);
}

static void test_client_internal_error_is_retried_a_few_times_only(void **state)
{
    s_rig_t rig;
    s_seen_t seen;
    (void)state;
    s_open(&rig, (dkt_producer_options_t){0});
    s_submit(&rig, &seen);
    for (size_t i = 0; i < DKT_PRODUCER_INTERNAL_MAX; i++) {
        s_until_requests(&rig, i + 1);
        s_answer_error(&rig, rig.requests[i].msgid, DKT_INTERNAL, 1);
    }
    s_until_done(&rig);
    assert_int_equal(seen.status, DKT_INTERNAL);
    assert_int_equal(seen.attempts, DKT_PRODUCER_INTERNAL_MAX);
    s_close(&rig);
}

static void test_client_silence_is_retried_and_late_answers_count(void **state)
{
    s_rig_t rig;
    s_seen_t seen;
    (void)state;
    s_open(&rig, (dkt_producer_options_t){.attempt_ms = 50, .total_ms = 5000});
    s_submit(&rig, &seen);
    s_until_requests(&rig, 2);
    s_assert_same_request(&rig, 0, 1);
    /* A late error of the first attempt says nothing about the second. */
    s_answer_error(&rig, rig.requests[0].msgid, DKT_UNAVAILABLE, 0);
    s_answer_created(&rig, rig.requests[0].msgid, "tk_1");
    s_answer_created(&rig, rig.requests[1].msgid, "tk_1");
    s_until_done(&rig);
    assert_int_equal(seen.calls, 1);
    assert_string_equal(seen.ticket_id, "tk_1");
    for (int i = 0; i < S_ROUNDS_MAX && dkt_producer_counts(rig.producer).strays < 2; i++) {
        dkt_producer_poll(rig.producer, S_POLL_MS);
    }
    assert_int_equal(dkt_producer_counts(rig.producer).strays, 2);
    assert_int_equal(seen.calls, 1);
    s_close(&rig);
}

static void test_client_answer_of_an_ended_call_never_reaches_the_next(void **state)
{
    s_rig_t rig;
    s_seen_t first, second;
    (void)state;
    s_open(&rig, (dkt_producer_options_t){.in_flight_max = 1});
    s_submit(&rig, &first);
    s_until_requests(&rig, 1);
    s_answer_created(&rig, rig.requests[0].msgid, "tk_1");
    s_until_done(&rig);
    s_submit(&rig, &second); /* the same slot */
    s_until_requests(&rig, 2);
    s_answer_created(&rig, rig.requests[0].msgid, "tk_1");
    for (int i = 0; i < S_ROUNDS_MAX && dkt_producer_counts(rig.producer).strays < 1; i++) {
        dkt_producer_poll(rig.producer, S_POLL_MS);
    }
    assert_int_equal(second.calls, 0);
    s_answer_created(&rig, rig.requests[1].msgid, "tk_2");
    s_until_done(&rig);
    assert_string_equal(second.ticket_id, "tk_2");
    s_close(&rig);
}

static void test_client_silence_ends_in_time(void **state)
{
    s_rig_t rig;
    s_seen_t seen;
    (void)state;
    s_open(&rig, (dkt_producer_options_t){.attempt_ms = 40, .total_ms = 150});
    s_submit(&rig, &seen);
    s_until_done(&rig);
    assert_int_equal(seen.calls, 1);
    assert_true(seen.silence);
    assert_int_equal(seen.status, DKT_UNAVAILABLE);
    assert_true(seen.attempts >= 2);
    s_close(&rig);
}

static void test_client_without_a_broker_says_so(void **state)
{
    dkt_err_t err;
    dkt_reply_t reply;
    dkt_producer_options_t options = {.endpoint = "tcp://127.0.0.1:1", .total_ms = 100};
    dkt_producer_t *producer = dkt_producer_new(&options, &err);
    (void)state;
    assert_non_null(producer);
    assert_int_equal(dkt_producer_call(producer, "ping", NULL, 0, NULL, &reply), DKT_UNAVAILABLE);
    assert_true(reply.silence);
    assert_int_equal(reply.attempts, 0);
    assert_true(reply.message.len > 0);
    dkt_producer_destroy(&producer);
}

static void test_client_broker_that_comes_back_gets_the_call(void **state)
{
    s_rig_t rig;
    s_seen_t seen;
    char endpoint[64];
    (void)state;
    s_open_and_ask(&rig, (dkt_producer_options_t){.attempt_ms = 200, .total_ms = 20000}, &seen);
    memcpy(endpoint, rig.endpoint, sizeof endpoint);
    zmq_close(rig.router);
    rig.router = zmq_socket(rig.zmq, ZMQ_ROUTER);
    for (int i = 0; i < S_ROUNDS_MAX && zmq_bind(rig.router, endpoint) != 0; i++) {
        dkt_producer_poll(rig.producer, S_POLL_MS); /* the old one closes in the background */
    }
    int zero = 0;
    zmq_setsockopt(rig.router, ZMQ_LINGER, &zero, sizeof zero);
    s_until_requests(&rig, 2);
    s_assert_same_request(&rig, 0, 1);
    s_answer_created(&rig, rig.requests[1].msgid, "tk_1");
    s_until_done(&rig);
    assert_string_equal(seen.ticket_id, "tk_1");
    s_close(&rig);
}

static void test_client_garbage_is_counted_and_harmless(void **state)
{
    static const char *const garbage[] = {"",
                                          "\xc1",
                                          "\x93\x01\x01\xc0",
                                          "hello",
                                          "\x94\x01\xce\xff\xff\xff\xff\xc0\x80",
                                          "\xdd\xff\xff\xff\xff",
                                          "\x94\x01\x01\xa1x\xc0"};
    s_rig_t rig;
    s_seen_t seen;
    (void)state;
    s_open_and_ask(&rig, (dkt_producer_options_t){0}, &seen);
    for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++) {
        s_send_raw(&rig, garbage[i], strlen(garbage[i]), true);
        s_send_raw(&rig, garbage[i], strlen(garbage[i]), false);
    }
    s_answer_created(&rig, rig.requests[0].msgid, "tk_1");
    s_until_done(&rig);
    assert_string_equal(seen.ticket_id, "tk_1");
    assert_true(dkt_producer_counts(rig.producer).garbage >= 6);
    s_close(&rig);
}

static void test_client_random_bytes_never_crash(void **state)
{
    uint8_t bytes[64], good[S_ANSWER_BYTES];
    uint64_t random = 2463534242;
    s_rig_t rig;
    s_seen_t seen;
    (void)state;
    s_open_and_ask(&rig, (dkt_producer_options_t){0}, &seen);
    dkt_w_t w = dkt_w_init(good, sizeof good);
    dkt_answer_status(&w, rig.requests[0].msgid + 1, "ok"); /* of no open call */
    for (int i = 0; i < 2000; i++) {
        size_t len = w.len < sizeof bytes ? w.len : sizeof bytes;
        memcpy(bytes, good, len);
        for (int k = 0; k < 3; k++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            bytes[7 + random % (len - 7)] = (uint8_t)(random >> 32);
        }
        s_send_raw(&rig, bytes, len - random % 4, true);
        if (i % 100 == 0) {
            dkt_producer_poll(rig.producer, 0);
        }
    }
    s_answer_created(&rig, rig.requests[0].msgid, "tk_1");
    s_until_done(&rig);
    assert_string_equal(seen.ticket_id, "tk_1");
    s_close(&rig);
}

static void test_client_full_table_is_overloaded(void **state)
{
    s_rig_t rig;
    s_seen_t seen[3];
    dkt_arg_t args[] = {dkt_arg_text("client_id", "cl_AAAAAAAAAAAAAAAA")};
    (void)state;
    s_open(&rig, (dkt_producer_options_t){.in_flight_max = 2});
    s_submit(&rig, &seen[0]);
    s_submit(&rig, &seen[1]);
    assert_int_equal(dkt_producer_submit(rig.producer, "login", args, 1, NULL, s_note, &seen[2]),
                     DKT_OVERLOADED);
    assert_int_equal(dkt_producer_open(rig.producer), 2);
    s_close(&rig); /* open calls end without their callbacks */
    assert_int_equal(seen[0].calls, 0);
}

static void test_client_frame_above_the_limit_is_refused(void **state)
{
    static char large[DKT_FRAME_BYTES_MAX + 1];
    s_rig_t rig;
    s_seen_t seen;
    (void)state;
    s_open(&rig, (dkt_producer_options_t){0});
    dkt_arg_t args[] = {dkt_arg_bytes("payload", large, sizeof large)};
    assert_int_equal(
        dkt_producer_submit(rig.producer, "create_ticket", args, 1, NULL, s_note, &seen),
        DKT_INVALID_ARGUMENT);
    assert_int_equal(dkt_producer_open(rig.producer), 0);
    s_close(&rig);
}

/* A callback that asks again at once. */
typedef struct {
    s_rig_t *rig;
    s_seen_t *next;
} s_chain_t;

static void s_ask_next(void *ctx, const dkt_reply_t *reply)
{
    s_chain_t *chain = ctx;
    assert_int_equal(reply->status, DKT_OK);
    s_submit(chain->rig, chain->next);
}

static void test_client_callback_may_submit(void **state)
{
    s_rig_t rig;
    s_seen_t seen;
    s_chain_t chain = {&rig, &seen};
    dkt_arg_t args[] = {dkt_arg_text("client_id", "cl_AAAAAAAAAAAAAAAA"),
                        dkt_arg_text("ticket_type", "gold")};
    (void)state;
    s_open(&rig, (dkt_producer_options_t){.in_flight_max = 1});
    assert_int_equal(
        dkt_producer_submit(rig.producer, "create_ticket", args, 2, NULL, s_ask_next, &chain),
        DKT_OK);
    s_until_requests(&rig, 1);
    s_answer_created(&rig, rig.requests[0].msgid, "tk_1");
    s_until_requests(&rig, 2);
    s_answer_created(&rig, rig.requests[1].msgid, "tk_2");
    s_until_done(&rig);
    assert_string_equal(seen.ticket_id, "tk_2");
    s_close(&rig);
}

static void test_client_wrong_options_are_told(void **state)
{
    dkt_err_t err;
    dkt_producer_options_t bad_address = {.endpoint = "nonsense"};
    dkt_producer_options_t bad_keys = {.endpoint = "tcp://127.0.0.1:1", .server_public_key = "x"};
    (void)state;
    assert_null(dkt_producer_new(&bad_address, &err));
    assert_string_equal(err.field, "endpoint");
    assert_null(dkt_producer_new(&bad_keys, &err));
    assert_string_equal(err.field, "keys");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_client_answer_reaches_its_callback),
        cmocka_unit_test(test_client_batches_and_takes_answers_in_any_order),
        cmocka_unit_test(test_client_unavailable_is_retried_with_the_same_request_id),
        cmocka_unit_test(test_client_waits_as_long_as_the_answer_asks),
        cmocka_unit_test(test_client_pause_beyond_the_total_time_ends_with_the_error),
        cmocka_unit_test(test_client_final_error_is_not_retried),
        cmocka_unit_test(test_client_internal_error_is_retried_a_few_times_only),
        cmocka_unit_test(test_client_silence_is_retried_and_late_answers_count),
        cmocka_unit_test(test_client_answer_of_an_ended_call_never_reaches_the_next),
        cmocka_unit_test(test_client_silence_ends_in_time),
        cmocka_unit_test(test_client_without_a_broker_says_so),
        cmocka_unit_test(test_client_broker_that_comes_back_gets_the_call),
        cmocka_unit_test(test_client_garbage_is_counted_and_harmless),
        cmocka_unit_test(test_client_random_bytes_never_crash),
        cmocka_unit_test(test_client_full_table_is_overloaded),
        cmocka_unit_test(test_client_frame_above_the_limit_is_refused),
        cmocka_unit_test(test_client_callback_may_submit),
        cmocka_unit_test(test_client_wrong_options_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
