/* SPDX-License-Identifier: Apache-2.0
 *
 * Clients that do not read, leave, or are too many; and answers in groups.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "support_random.h"
#include "support_router.h"

#define INTERNAL DKT_AUDIENCE_INTERNAL
#define S_PEER   3

static rig_t *s_rig;

static int s_setup(void **state)
{
    (void)state;
    s_rig = rig_new(0, 0);
    rig_one_worker(s_rig);
    return 0;
}

static int s_teardown(void **state)
{
    (void)state;
    rig_destroy(&s_rig);
    return 0;
}

static void s_send(uint8_t peer, uint32_t msgid)
{
    dkt_request_t request = rig_request(s_rig, DKT_METHOD_GET_TICKET, msgid);
    rig_send(s_rig, INTERNAL, peer, &request);
}

static void s_ping(uint8_t peer, uint32_t msgid)
{
    dkt_request_t request = rig_request(s_rig, DKT_METHOD_PING, msgid);
    rig_send(s_rig, INTERNAL, peer, &request);
}

static void test_router_answers_of_a_round_are_grouped(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 600; i++) {
        s_send((uint8_t)(S_PEER + i % 2), i);
    }
    static uint8_t bytes[DKT_LINK_BYTES_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_incarnation_t sender = rig_incarnation(1);
    dkt_link_begin(&w, DKT_LINK_ANSWERS, (dkt_table_version_t){1, 1}, &sender);
    for (uint32_t i = 0; i < 600; i++) {
        uint8_t body[64];
        dkt_w_t answer = dkt_w_init(body, sizeof body);
        dkt_answer_status(&answer, s_rig->requests[i].msgid, "ok");
        dkt_link_put_answer(&w, &(dkt_link_answer_t){s_rig->requests[i].request.seq,
                                                     DKT_OUTCOME_ANSWER,
                                                     {body, (uint32_t)answer.len}});
    }
    dkt_link_finish(&w, 600);
    dkt_address_t from = rig_address(1);
    dkt_router_worker(s_rig->router, s_rig->now, &from, w.data, w.len);
    assert_int_equal(s_rig->answer_count, 0);
    dkt_router_flush(s_rig->router, s_rig->now);
    assert_int_equal(s_rig->answer_count, 600);
    assert_int_equal(s_rig->client_messages, 4); /* 256 + 44 for each of the two */
    assert_int_equal(s_rig->largest_group, DKT_FRAMES_PER_MESSAGE_MAX);
    for (uint32_t i = 0; i < 600; i++) {
        assert_int_equal(s_rig->answers[i].peer, S_PEER + s_rig->answers[i].msgid % 2);
    }
    assert_int_equal(rig_counts(s_rig).connections, 0);
}

/* More answers in one round than a round has room for. */
static void test_router_round_that_is_full_is_flushed(void **state)
{
    (void)state;
    dkt_request_t request = rig_request(s_rig, DKT_METHOD_PING, 1);
    dkt_view_t frames[DKT_FRAMES_PER_MESSAGE_MAX + 1];
    for (uint32_t i = 0; i <= DKT_FRAMES_PER_MESSAGE_MAX; i++) {
        request.msgid = i;
        frames[i] = i ? rig_encode(s_rig, i, &request) : (dkt_view_t){(const uint8_t *)"", 0};
    }
    dkt_address_t from = rig_address(S_PEER);
    for (int i = 0; i < 40; i++) {
        dkt_router_client(s_rig->router, s_rig->now, INTERNAL, &from, frames,
                          DKT_FRAMES_PER_MESSAGE_MAX + 1);
    }
    dkt_router_flush(s_rig->router, s_rig->now);
    assert_int_equal(s_rig->answer_count, 40 * DKT_FRAMES_PER_MESSAGE_MAX);
    for (uint32_t i = 0; i < s_rig->answer_count; i++) {
        assert_int_equal(s_rig->answers[i].msgid, 1 + i % DKT_FRAMES_PER_MESSAGE_MAX);
    }
}

/* A message of `count` requests of the two tenants, `turn` of one and then `turn` of the other. */
static void s_ask_by_turns(uint32_t count, uint32_t turn)
{
    dkt_view_t frames[DKT_FRAMES_PER_MESSAGE_MAX + 1] = {{(const uint8_t *)"", 0}};
    for (uint32_t i = 1; i <= count; i++) {
        dkt_request_t request = rig_request(s_rig, DKT_METHOD_AVAILABILITY, i);
        uint32_t tenant = (i - 1) / turn % 2;
        request.client_id = rig_text(s_rig->client_ids[tenant]);
        request.token = rig_text(s_rig->tokens[tenant]);
        frames[i] = rig_encode(s_rig, i, &request);
    }
    dkt_address_t from = rig_address(S_PEER);
    dkt_router_client(s_rig->router, s_rig->now, DKT_AUDIENCE_PUBLIC, &from, frames, count + 1);
}

/* So many of one tenant in a row go on before the rest of a round is read; others never do. */
static void test_router_tells_when_one_tenant_has_enough_for_a_round(void **state)
{
    (void)state;
    s_ask_by_turns(DKT_TENANT_CHUNK - 1, DKT_TENANT_CHUNK);
    assert_false(dkt_router_has_chunk(s_rig->router));
    s_ask_by_turns(1, 1); /* the same tenant again */
    assert_true(dkt_router_has_chunk(s_rig->router));
    assert_int_equal(s_rig->request_count, 0);
    dkt_router_flush(s_rig->router, s_rig->now);
    assert_int_equal(s_rig->request_count, DKT_TENANT_CHUNK);
    assert_false(dkt_router_has_chunk(s_rig->router));
    for (int i = 0; i < 4; i++) {
        s_ask_by_turns(DKT_TENANT_CHUNK, DKT_TENANT_CHUNK / 2);
        assert_false(dkt_router_has_chunk(s_rig->router));
    }
}

static void test_router_keeps_what_a_client_does_not_read(void **state)
{
    (void)state;
    s_rig->client_takes[S_PEER] = DKT_SENT_FULL;
    for (uint32_t i = 0; i < DKT_UNREAD_ANSWERS_MAX + 10; i++) {
        s_ping(S_PEER, i);
    }
    s_ping(S_PEER + 1, 7);
    assert_int_equal(s_rig->answer_count, 1); /* the other one is not held up */
    assert_int_equal(rig_counts(s_rig).unread, DKT_UNREAD_ANSWERS_MAX);
    assert_int_equal(rig_counts(s_rig).unread_dropped, 10);
    s_rig->client_takes[S_PEER] = DKT_SENT_OK;
    rig_pass(s_rig, 16, NULL, 0);
    assert_int_equal(s_rig->answer_count, 1 + DKT_UNREAD_ANSWERS_MAX);
    for (uint32_t i = 0; i < DKT_UNREAD_ANSWERS_MAX; i++) {
        assert_int_equal(s_rig->answers[1 + i].msgid, i); /* the oldest are kept, in order */
    }
    assert_int_equal(rig_counts(s_rig).unread, 0);
    assert_int_equal(rig_counts(s_rig).unread_bytes, 0);
    assert_int_equal(rig_counts(s_rig).connections, 0);
}

static void test_router_new_answers_go_behind_unread_ones(void **state)
{
    (void)state;
    s_rig->client_takes[S_PEER] = DKT_SENT_FULL;
    s_ping(S_PEER, 1);
    s_ping(S_PEER, 2);
    s_rig->client_takes[S_PEER] = DKT_SENT_OK;
    s_ping(S_PEER, 3);
    assert_int_equal(s_rig->answer_count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(s_rig->answers[i].msgid, i + 1);
    }
}

static void test_router_gives_up_a_client_that_never_reads(void **state)
{
    (void)state;
    s_rig->client_takes[S_PEER] = DKT_SENT_FULL;
    s_ping(S_PEER, 1);
    rig_pass(s_rig, DKT_BUDGET_MAX_MS - 100, NULL, 0);
    assert_int_equal(rig_counts(s_rig).unread, 1);
    rig_pass(s_rig, 200, NULL, 0);
    assert_int_equal(rig_counts(s_rig).unread, 0);
    assert_int_equal(rig_counts(s_rig).unread_dropped, 1);
    assert_int_equal(rig_counts(s_rig).connections, 0);
}

static void test_router_forgets_a_client_that_left(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        s_send(S_PEER, i);
    }
    assert_int_equal(rig_counts(s_rig).open, 3);
    s_rig->client_takes[S_PEER] = DKT_SENT_GONE;
    rig_answer(s_rig, 1, &s_rig->requests[0], "ok");
    assert_int_equal(rig_counts(s_rig).open, 0);
    assert_int_equal(rig_counts(s_rig).pending_bytes, 0);
    assert_int_equal(rig_counts(s_rig).connections, 0);
    rig_answer(s_rig, 1, &s_rig->requests[1], "ok");
    assert_int_equal(rig_counts(s_rig).late_dropped, 2);
    assert_int_equal(s_rig->answer_count, 0);
}

static void test_router_forgets_a_client_that_left_with_unread_answers(void **state)
{
    (void)state;
    s_rig->client_takes[S_PEER] = DKT_SENT_FULL;
    s_ping(S_PEER, 1);
    s_send(S_PEER, 2);
    s_rig->client_takes[S_PEER] = DKT_SENT_GONE;
    rig_pass(s_rig, 16, NULL, 0);
    assert_int_equal(rig_counts(s_rig).unread, 0);
    assert_int_equal(rig_counts(s_rig).open, 0);
    assert_int_equal(rig_counts(s_rig).connections, 0);
}

/* The same routing id on the two endpoints is two clients. */
static void test_router_endpoints_do_not_share_connections(void **state)
{
    (void)state;
    dkt_request_t request = rig_request(s_rig, DKT_METHOD_GET_TICKET, 1);
    rig_send(s_rig, INTERNAL, S_PEER, &request);
    rig_send(s_rig, DKT_AUDIENCE_PUBLIC, S_PEER, &request);
    assert_int_equal(rig_counts(s_rig).connections, 2);
    rig_answer(s_rig, 1, &s_rig->requests[0], "ok");
    assert_int_equal(rig_last_answer(s_rig)->side, INTERNAL);
    rig_answer(s_rig, 1, &s_rig->requests[1], "ok");
    assert_int_equal(rig_last_answer(s_rig)->side, DKT_AUDIENCE_PUBLIC);
}

static void test_router_too_many_connections_are_told_so(void **state)
{
    (void)state;
    dkt_request_t request = rig_request(s_rig, DKT_METHOD_GET_TICKET, 1);
    dkt_view_t frames[2] = {{(const uint8_t *)"", 0}, rig_encode(s_rig, 0, &request)};
    uint32_t most = DKT_BROKER_VSHARD_MAX; /* all of one tenant */
    for (uint32_t i = 0; i < DKT_BROKER_CONNECTIONS_MAX; i++) {
        dkt_address_t from = {.len = 5, .bytes = {S_PEER, (uint8_t)i, (uint8_t)(i >> 8), 9}};
        s_rig->client_takes[S_PEER] = i < most ? DKT_SENT_OK : DKT_SENT_FULL;
        dkt_router_client(s_rig->router, s_rig->now, INTERNAL, &from, frames, 2);
        dkt_router_flush(s_rig->router, s_rig->now);
    }
    assert_int_equal(s_rig->answer_count, 0);
    assert_int_equal(rig_counts(s_rig).overloaded, DKT_BROKER_CONNECTIONS_MAX - most);
    assert_int_equal(rig_counts(s_rig).connections, DKT_BROKER_CONNECTIONS_MAX);
    s_send(S_PEER + 1, 5);
    assert_int_equal(s_rig->answer_count, 1);
    assert_int_equal(rig_last_answer(s_rig)->msgid, 5);
    assert_int_equal(rig_last_answer(s_rig)->status, DKT_OVERLOADED);
    s_rig->client_takes[S_PEER] = DKT_SENT_OK;
    rig_pass(s_rig, 16, NULL, 0);
    s_ping(S_PEER + 1, 6);
    assert_int_equal(rig_last_answer(s_rig)->status, DKT_OK);
}

/* -- everything at once, by chance ----------------------------------------------------------------
 */

static uint64_t s_seed;

static void s_random_answer(void)
{
    if (s_rig->request_count == 0) {
        return;
    }
    const rig_request_t *request = &s_rig->requests[random_below(&s_seed, s_rig->request_count)];
    uint8_t worker = (uint8_t)(1 + random_below(&s_seed, 3));
    if (random_below(&s_seed, 4) == 0) {
        rig_moved(s_rig, worker, request, random_below(&s_seed, 20));
    } else {
        rig_answer(s_rig, worker, request, "ok");
    }
}

static void s_random_step(uint64_t *version)
{
    static const uint8_t workers[][2] = {{1, 2}, {2, 3}, {3, 1}};
    switch (random_below(&s_seed, 8)) {
    case 0:
        rig_table(s_rig, ++*version, workers[random_below(&s_seed, 3)],
                  (uint16_t)(1 + random_below(&s_seed, 2)));
        break;
    case 1:
        rig_hello(s_rig, (uint8_t)(1 + random_below(&s_seed, 3)),
                  (uint8_t)(1 + random_below(&s_seed, 3)));
        break;
    case 2:
        s_rig->client_takes[S_PEER + random_below(&s_seed, 3)] =
            (dkt_sent_t)random_below(&s_seed, 3);
        break;
    case 3:
        s_rig->worker_takes[1 + random_below(&s_seed, 2)] = (dkt_sent_t)random_below(&s_seed, 3);
        break;
    case 4:
        rig_pass(s_rig, random_below(&s_seed, 400), NULL, 0);
        break;
    case 5:
        s_random_answer();
        break;
    default:
        s_send((uint8_t)(S_PEER + random_below(&s_seed, 3)), random_below(&s_seed, 1000));
    }
}

/* Whatever happens, in the end nothing is open, kept or counted, and peer 6, who always reads, got
 * one answer for each of its requests. */
static void test_router_settles_after_anything(void **state)
{
    (void)state;
    for (s_seed = 1; s_seed < 40; s_seed++) {
        uint64_t seed = s_seed, version = 1;
        uint32_t asked = 0, got = 0;
        for (uint32_t i = 0; i < 300; i++) {
            s_random_step(&version);
            s_send(6, 100000 + asked++);
        }
        for (uint32_t i = 0; i < RIG_PEERS_MAX; i++) {
            s_rig->client_takes[i] = s_rig->worker_takes[i] = DKT_SENT_OK;
        }
        rig_pass(s_rig, 5000 + DKT_BROKER_GRACE_MS + 100, NULL, 0);
        for (uint32_t i = 0; i < s_rig->answer_count; i++) {
            got += s_rig->answers[i].peer == 6;
        }
        dkt_router_counts_t counts = rig_counts(s_rig);
        if (got != asked || counts.open || counts.connections || counts.pending_bytes ||
            counts.waiting || counts.unread) {
            fail_msg("seed %llu: %u of %u answered, %u open, %u connections",
                     (unsigned long long)seed, got, asked, counts.open, counts.connections);
        }
        s_teardown(NULL);
        s_setup(NULL);
        s_seed = seed;
    }
}

#define T(name) cmocka_unit_test_setup_teardown(name, s_setup, s_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_router_answers_of_a_round_are_grouped),
        T(test_router_round_that_is_full_is_flushed),
        T(test_router_tells_when_one_tenant_has_enough_for_a_round),
        T(test_router_keeps_what_a_client_does_not_read),
        T(test_router_new_answers_go_behind_unread_ones),
        T(test_router_gives_up_a_client_that_never_reads),
        T(test_router_forgets_a_client_that_left),
        T(test_router_forgets_a_client_that_left_with_unread_answers),
        T(test_router_endpoints_do_not_share_connections),
        T(test_router_too_many_connections_are_told_so),
        T(test_router_settles_after_anything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
