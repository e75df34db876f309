/* SPDX-License-Identifier: Apache-2.0
 *
 * A real broker process: both endpoints through real sockets, with a fake worker that echoes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <poll.h>
#include <signal.h>
#include <zmq.h>
#include <cmocka.h>

#include "brokers/broker.h"
#include "lib/edge/clock.h"
#include "support_broker.h"

#define S_NOTHING_MS 400 /* long enough to see that nothing comes */

static fleet_t s_fleet;

static int s_start(void **state)
{
    (void)state;
    fleet_start(&s_fleet, false);
    fleet_start_worker(&s_fleet);
    return fleet_is_ready(&s_fleet, FLEET_WAIT_MS) ? 0 : -1;
}

static int s_stop(void **state)
{
    (void)state;
    return fleet_stop(&s_fleet);
}

static void test_broker_answers_a_dealer(void **state)
{
    (void)state;
    void *client = fleet_client(&s_fleet, ZMQ_DEALER, s_fleet.public_address);
    dkt_answer_t answer;
    assert_true(fleet_ask(&s_fleet, client, DKT_METHOD_PING, FLEET_WAIT_MS, &answer));
    assert_int_equal(answer.status, DKT_OK);
    assert_memory_equal(answer.node.data, "broker-0", answer.node.len);
    assert_true(fleet_ask(&s_fleet, client, DKT_METHOD_CREATE_TICKET, FLEET_WAIT_MS, &answer));
    assert_int_equal(answer.status, DKT_OK);
    assert_int_equal(answer.msgid, 1);
    assert_true(fleet_ask(&s_fleet, client, DKT_METHOD_LIST_TENANTS, FLEET_WAIT_MS, &answer));
    assert_int_equal(answer.status, DKT_PERMISSION_DENIED);
    zmq_close(client);
}

static void test_broker_answers_a_req(void **state)
{
    (void)state;
    void *client = fleet_client(&s_fleet, ZMQ_REQ, s_fleet.public_address);
    for (uint32_t i = 1; i <= 20; i++) {
        uint8_t bytes[2048];
        dkt_view_t frame =
            fleet_request(&s_fleet, DKT_METHOD_CREATE_TICKET, i, bytes, sizeof bytes);
        assert_int_equal(zmq_send(client, frame.data, frame.len, 0), frame.len);
        int len = zmq_recv(client, bytes, sizeof bytes, 0);
        assert_true(len > 0);
        dkt_answer_t answer;
        dkt_err_t err;
        assert_int_equal(dkt_answer_decode(bytes, (size_t)len, &answer, &err), DKT_OK);
        assert_int_equal(answer.msgid, i);
        assert_int_equal(answer.status, DKT_OK);
    }
    zmq_close(client);
}

/* Every request gets exactly one answer, however they are grouped. */
static void test_broker_answers_every_one_of_many(void **state)
{
    (void)state;
    enum { MANY = 4000 };
    static uint8_t seen[MANY + 1];
    static dkt_answer_t answers[DKT_FRAMES_PER_MESSAGE_MAX];
    memset(seen, 0, sizeof seen);
    void *client = fleet_client(&s_fleet, ZMQ_DEALER, s_fleet.public_address);
    for (uint32_t msgid = 1; msgid <= MANY;) {
        uint32_t frames = 1 + msgid % 100;
        zmq_send(client, "", 0, ZMQ_SNDMORE);
        for (uint32_t i = 1; i <= frames && msgid <= MANY; i++, msgid++) {
            uint8_t bytes[2048];
            dkt_view_t frame =
                fleet_request(&s_fleet, DKT_METHOD_CREATE_TICKET, msgid, bytes, sizeof bytes);
            bool last = i == frames || msgid == MANY;
            zmq_send(client, frame.data, frame.len, last ? 0 : ZMQ_SNDMORE);
        }
    }
    for (uint32_t got = 0; got < MANY;) {
        uint32_t count = fleet_receive(client, FLEET_WAIT_MS, answers, DKT_FRAMES_PER_MESSAGE_MAX);
        assert_true(count > 0);
        for (uint32_t i = 0; i < count; i++) {
            assert_int_equal(answers[i].status, DKT_OK);
            assert_in_range(answers[i].msgid, 1, MANY);
            assert_int_equal(seen[answers[i].msgid]++, 0);
        }
        got += count;
    }
    assert_int_equal(fleet_receive(client, 50, answers, 1), 0);
    zmq_close(client);
}

static void test_broker_malformed_hurts_nobody_else(void **state)
{
    (void)state;
    static dkt_answer_t answers[DKT_FRAMES_PER_MESSAGE_MAX];
    void *client = fleet_client(&s_fleet, ZMQ_DEALER, s_fleet.public_address);
    zmq_send(client, "\xc1", 1, 0); /* no delimiter */
    assert_int_equal(fleet_receive(client, FLEET_WAIT_MS, answers, 2), 1);
    assert_int_equal(answers[0].status, DKT_MALFORMED);
    zmq_send(client, "", 0, 0); /* no request */
    assert_int_equal(fleet_receive(client, FLEET_WAIT_MS, answers, 2), 1);
    assert_int_equal(answers[0].status, DKT_MALFORMED);
    zmq_send(client, "", 0, ZMQ_SNDMORE); /* 1000 requests in one message */
    for (int i = 0; i < 1000; i++) {
        zmq_send(client, "\x90", 1, i < 999 ? ZMQ_SNDMORE : 0);
    }
    assert_int_equal(fleet_receive(client, FLEET_WAIT_MS, answers, 2), 1);
    assert_int_equal(answers[0].status, DKT_MALFORMED);
    assert_int_equal(answers[0].msgid, 0);
    dkt_answer_t answer;
    assert_true(fleet_ask(&s_fleet, client, DKT_METHOD_PING, FLEET_WAIT_MS, &answer));
    assert_int_equal(answer.status, DKT_OK);
    zmq_close(client);
}

/* libzmq closes the connection of a frame above 16 KiB; the DEALER connects again by itself. */
static void test_broker_oversize_frame_closes_only_its_connection(void **state)
{
    (void)state;
    void *client = fleet_client(&s_fleet, ZMQ_DEALER, s_fleet.public_address);
    void *other = fleet_client(&s_fleet, ZMQ_DEALER, s_fleet.public_address);
    static uint8_t large[DKT_FRAME_BYTES_MAX + 1];
    dkt_answer_t answer;
    zmq_send(client, "", 0, ZMQ_SNDMORE);
    zmq_send(client, large, sizeof large, 0);
    assert_true(fleet_ask(&s_fleet, other, DKT_METHOD_PING, FLEET_WAIT_MS, &answer));
    assert_int_equal(fleet_receive(client, S_NOTHING_MS, &answer, 1), 0);
    assert_true(fleet_ask(&s_fleet, client, DKT_METHOD_PING, FLEET_WAIT_MS, &answer));
    zmq_close(client);
    zmq_close(other);
}

/* Peers that send more than is read, read nothing, and vanish. */
static void test_broker_survives_a_flood_that_leaves(void **state)
{
    (void)state;
    enum { PEERS = 50, FLOOD_MS = 1500, AFTER_MS = 1000 };
    static const char junk[8000];
    void *peers[PEERS];
    for (int i = 0; i < PEERS; i++) {
        peers[i] = fleet_client(&s_fleet, ZMQ_DEALER, s_fleet.public_address);
        int hwm = 200, one = 1;
        zmq_setsockopt(peers[i], ZMQ_SNDHWM, &hwm, sizeof hwm);
        zmq_setsockopt(peers[i], ZMQ_RCVHWM, &one, sizeof one);
        zmq_connect(peers[i], s_fleet.public_address);
    }
    int64_t until_ms = dkt_clock_mono_ms() + FLOOD_MS;
    for (int i = 0; dkt_clock_mono_ms() < until_ms; i = (i + 1) % PEERS) {
        for (int k = 0; k < 20 && zmq_send(peers[i], "", 0, ZMQ_SNDMORE | ZMQ_DONTWAIT) == 0; k++) {
            for (int j = 0; j < 8; j++) {
                zmq_send(peers[i], junk, i % 2 ? sizeof junk : 20, j < 7 ? ZMQ_SNDMORE : 0);
            }
        }
    }
    for (int i = 0; i < PEERS; i++) {
        zmq_close(peers[i]);
    }
    void *client = fleet_client(&s_fleet, ZMQ_DEALER, s_fleet.public_address);
    until_ms = dkt_clock_mono_ms() + AFTER_MS;
    while (dkt_clock_mono_ms() < until_ms) {
        dkt_answer_t answer;
        assert_true(fleet_ask(&s_fleet, client, DKT_METHOD_PING, FLEET_WAIT_MS, &answer));
    }
    zmq_close(client);
}

static void test_broker_rate_limits_login(void **state)
{
    (void)state;
    static dkt_answer_t answers[DKT_FRAMES_PER_MESSAGE_MAX];
    void *client = fleet_client(&s_fleet, ZMQ_DEALER, s_fleet.public_address);
    uint32_t limited = 0, got = 0, sent = 2 * DKT_AUTH_BURST;
    int64_t began_ms = dkt_clock_mono_ms();
    for (uint32_t i = 1; i <= sent; i++) {
        fleet_send(&s_fleet, client, DKT_METHOD_LOGIN, i);
    }
    while (got < sent) {
        uint32_t count = fleet_receive(client, FLEET_WAIT_MS, answers, DKT_FRAMES_PER_MESSAGE_MAX);
        assert_true(count > 0);
        for (uint32_t i = 0; i < count; i++, got++) {
            limited += answers[i].status == DKT_RATE_LIMITED && answers[i].retry_after_ms > 0;
        }
    }
    /* Above the burst, so many a second are let in. */
    int64_t elapsed_ms = dkt_clock_mono_ms() - began_ms;
    assert_true(limited <= DKT_AUTH_BURST);
    assert_true(limited + 1 + DKT_AUTH_RATE_PER_S * elapsed_ms / 1000 >= DKT_AUTH_BURST);
    zmq_close(client);
}

/* -- the internal endpoint ------------------------------------------------------------------- */

static dkt_curve_key_t s_key(const char *file)
{
    dkt_curve_key_t key;
    dkt_err_t err;
    assert_int_equal(dkt_keys_curve(s_fleet.folder, file, &key, &err), DKT_OK);
    return key;
}

static void test_broker_internal_serves_a_listed_key(void **state)
{
    (void)state;
    dkt_curve_key_t server = s_key("internal.pub"), mine = s_key("internal-client.key");
    void *client = fleet_curve_client(&s_fleet, s_fleet.internal_address, server.public_key, &mine);
    dkt_answer_t answer;
    assert_true(fleet_ask(&s_fleet, client, DKT_METHOD_LIST_TENANTS, FLEET_WAIT_MS, &answer));
    assert_int_equal(answer.status, DKT_OK);
    assert_true(fleet_ask(&s_fleet, client, DKT_METHOD_VALIDATE_ETA, FLEET_WAIT_MS, &answer));
    assert_int_equal(answer.status, DKT_OK);
    zmq_close(client);
}

static void test_broker_internal_answers_nobody_else(void **state)
{
    (void)state;
    dkt_curve_key_t server = s_key("internal.pub"), mine = s_key("internal-client.key");
    dkt_curve_key_t unlisted, wrong_server;
    zmq_curve_keypair(unlisted.public_key, unlisted.secret_key);
    zmq_curve_keypair(wrong_server.public_key, wrong_server.secret_key);
    void *clients[] = {
        fleet_curve_client(&s_fleet, s_fleet.internal_address, server.public_key, &unlisted),
        fleet_curve_client(&s_fleet, s_fleet.internal_address, wrong_server.public_key, &mine),
        fleet_client(&s_fleet, ZMQ_DEALER, s_fleet.internal_address),
    };
    for (size_t i = 0; i < sizeof clients / sizeof *clients; i++) {
        fleet_send(&s_fleet, clients[i], DKT_METHOD_PING, 1);
    }
    for (size_t i = 0; i < sizeof clients / sizeof *clients; i++) {
        dkt_answer_t answer;
        assert_int_equal(fleet_receive(clients[i], S_NOTHING_MS, &answer, 1), 0);
        zmq_close(clients[i]);
    }
}

/* -- life and death -------------------------------------------------------------------------- */

static void test_broker_is_ready_only_with_a_table(void **state)
{
    (void)state;
    fleet_start(&s_fleet, true);
    assert_false(fleet_is_ready(&s_fleet, S_NOTHING_MS));
    void *client = fleet_client(&s_fleet, ZMQ_DEALER, s_fleet.internal_address);
    fleet_send(&s_fleet, client, DKT_METHOD_CREATE_TICKET, 1);
    dkt_answer_t answer;
    assert_int_equal(fleet_receive(client, S_NOTHING_MS, &answer, 1), 0);
    fleet_start_worker(&s_fleet);
    assert_true(fleet_is_ready(&s_fleet, FLEET_WAIT_MS));
    assert_int_equal(fleet_receive(client, FLEET_WAIT_MS, &answer, 1), 1);
    assert_int_equal(answer.status, DKT_OK);
    zmq_close(client);
    assert_int_equal(fleet_stop(&s_fleet), 0);
}

static void test_broker_ends_with_an_answer_for_everything(void **state)
{
    (void)state;
    fleet_start(&s_fleet, true);
    fleet_start_worker(&s_fleet);
    assert_true(fleet_is_ready(&s_fleet, FLEET_WAIT_MS));
    atomic_store(&s_fleet.worker_mute, true);
    void *client = fleet_client(&s_fleet, ZMQ_DEALER, s_fleet.public_address);
    fleet_send(&s_fleet, client, DKT_METHOD_CREATE_TICKET, 42);
    int64_t until_ms = dkt_clock_mono_ms() + FLEET_WAIT_MS;
    while (atomic_load(&s_fleet.worker_requests) == 0 && dkt_clock_mono_ms() < until_ms) {
        poll(NULL, 0, 2);
    }
    int64_t before_ms = dkt_clock_mono_ms();
    kill(s_fleet.pid, SIGTERM);
    dkt_answer_t answer;
    assert_int_equal(fleet_receive(client, FLEET_WAIT_MS, &answer, 1), 1);
    assert_int_equal(answer.status, DKT_UNAVAILABLE);
    assert_int_equal(answer.msgid, 42);
    assert_in_range(dkt_clock_mono_ms() - before_ms, 900, 3000);
    zmq_close(client);
    assert_int_equal(fleet_stop(&s_fleet), 0);
}

static void test_broker_wrong_use_is_refused(void **state)
{
    (void)state;
    char *few[] = {"broker", "--public", "tcp://127.0.0.1:1", NULL};
    char *unknown[] = {"broker", "--colour", NULL};
    char *help[] = {"broker", "--help", NULL};
    assert_int_equal(dkt_broker_main(3, few), 2);
    assert_int_equal(dkt_broker_main(2, unknown), 2);
    assert_int_equal(dkt_broker_main(2, help), 0);
}

int main(void)
{
    const struct CMUnitTest running[] = {
        cmocka_unit_test(test_broker_answers_a_dealer),
        cmocka_unit_test(test_broker_answers_a_req),
        cmocka_unit_test(test_broker_answers_every_one_of_many),
        cmocka_unit_test(test_broker_malformed_hurts_nobody_else),
        cmocka_unit_test(test_broker_oversize_frame_closes_only_its_connection),
        cmocka_unit_test(test_broker_survives_a_flood_that_leaves),
        cmocka_unit_test(test_broker_rate_limits_login),
        cmocka_unit_test(test_broker_internal_serves_a_listed_key),
        cmocka_unit_test(test_broker_internal_answers_nobody_else),
    };
    const struct CMUnitTest alone[] = {
        cmocka_unit_test(test_broker_is_ready_only_with_a_table),
        cmocka_unit_test(test_broker_ends_with_an_answer_for_everything),
        cmocka_unit_test(test_broker_wrong_use_is_refused),
    };
    int failed = cmocka_run_group_tests_name("running", running, s_start, s_stop);
    return failed + cmocka_run_group_tests_name("alone", alone, NULL, NULL);
}
