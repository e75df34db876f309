/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests counted as they ended: what an answer's first bytes say, and that the router counts
 * every answer once, with the time from receipt to answer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "support_router.h"

#define S_PEER 3

/* -- the ending of an answer -- */

static void test_traffic_ending_is_read_from_every_shape(void **state)
{
    uint8_t bytes[512];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    (void)state;
    dkt_answer_status(&w, 7, "cancelled");
    assert_int_equal(dkt_ending_of(bytes, w.len), DKT_OK);
    w.len = 0;
    dkt_answer_created_t created = {.ticket_id = "tk_1", .slot_id = "sl_1"};
    dkt_answer_created(&w, UINT32_MAX, &created);
    assert_int_equal(dkt_ending_of(bytes, w.len), DKT_OK);
    w.len = 0;
    dkt_answer_refused_t refused = {.reason = "no_slot"};
    dkt_answer_refused(&w, 7, &refused);
    assert_int_equal(dkt_ending_of(bytes, w.len), DKT_ENDING_REFUSED);
    w.len = 0;
    dkt_answer_begin(&w, 7, 0); /* a result without any key */
    assert_int_equal(dkt_ending_of(bytes, w.len), DKT_OK);
    for (int status = DKT_OK + 1; status < DKT_STATUS_COUNT; status++) {
        dkt_err_t err;
        (void)dkt_fail(&err, (dkt_status_t)status, "token", NULL);
        w.len = 0;
        dkt_answer_error(&w, 7, &err);
        assert_int_equal(dkt_ending_of(bytes, w.len), status);
        assert_string_equal(dkt_ending_name((uint32_t)status),
                            dkt_status_code((dkt_status_t)status));
    }
    assert_string_equal(dkt_ending_name(DKT_ENDING_REFUSED), "refused");
}

/* The short way for our writer's own answers says what the long one says, which is taken for a
 * msgid in a longer form than it needs. */
static void test_traffic_ending_of_a_short_answer_is_that_of_a_long_one(void **state)
{
    static const uint32_t msgids[] = {0, 127, 128, 255, 256, 65535, 65536, UINT32_MAX};
    static const char *const statuses[] = {"refused", "refuse", "refuser", "reFused", "ok", ""};
    (void)state;
    for (size_t i = 0; i < sizeof msgids / sizeof msgids[0]; i++) {
        for (size_t s = 0; s < sizeof statuses / sizeof statuses[0]; s++) {
            static const uint8_t head[] = {0x94, 1, 0xcf, 0, 0, 0, 0, 0, 0, 0, 7};
            uint8_t bytes[64], longer[64];
            dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
            dkt_answer_begin(&w, msgids[i], 2);
            size_t begin = w.len - 2; /* at its nil */
            dkt_w_cstr(&w, "status");
            dkt_w_cstr(&w, statuses[s]);
            dkt_w_cstr(&w, "text");
            dkt_w_cstr(&w, "a longer one");
            memcpy(longer, head, sizeof head);
            memcpy(longer + sizeof head, bytes + begin, w.len - begin);
            assert_int_equal(dkt_ending_of(bytes, w.len),
                             dkt_ending_of(longer, sizeof head + w.len - begin));
            assert_int_equal(dkt_ending_of(bytes, w.len), s == 0 ? DKT_ENDING_REFUSED : DKT_OK);
        }
    }
}

static void test_traffic_ending_of_rubbish_is_internal(void **state)
{
    uint8_t bytes[512];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_answer_refused_t refused = {.reason = "no_slot"};
    (void)state;
    dkt_answer_refused(&w, 7, &refused);
    for (size_t len = 0; len < 4; len++) { /* cut before its map begins */
        assert_int_equal(dkt_ending_of(bytes, len), DKT_INTERNAL);
    }
    assert_int_equal(dkt_ending_of((const uint8_t *)"\xff\xff\xff", 3), DKT_INTERNAL);
}

/* -- the router -- */

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

static uint64_t s_count(uint32_t method, uint32_t ending)
{
    return dkt_router_traffic(s_rig->router)->requests[method][ending];
}

static uint64_t s_total(void)
{
    uint64_t total = 0;
    for (uint32_t method = 0; method < DKT_TRAFFIC_METHODS; method++) {
        for (uint32_t ending = 0; ending < DKT_ENDINGS; ending++) {
            total += s_count(method, ending);
        }
    }
    return total;
}

static void test_traffic_router_counts_an_answer_and_its_time(void **state)
{
    const dkt_histogram_t *latency = &dkt_router_traffic(s_rig->router)->latency_us;
    dkt_request_t request = rig_request(s_rig, DKT_METHOD_GET_TICKET, 77);
    (void)state;
    s_rig->now.mono_us = 1000;
    rig_send(s_rig, DKT_AUDIENCE_PUBLIC, S_PEER, &request);
    assert_int_equal(s_total(), 0); /* nothing has ended yet */
    s_rig->now.mono_us = 1040;
    rig_answer(s_rig, 1, rig_last_request(s_rig), "ok");
    assert_int_equal(s_count(DKT_METHOD_GET_TICKET, DKT_OK), 1);
    assert_int_equal(s_total(), 1);
    assert_int_equal(latency->count, 1);
    assert_int_equal(latency->sum_us, 40);
}

static void test_traffic_router_counts_its_own_answers(void **state)
{
    static const dkt_view_t empty = {(const uint8_t *)"", 0}, rubbish = {(const uint8_t *)"x", 1};
    dkt_request_t request = rig_request(s_rig, DKT_METHOD_PING, 77);
    (void)state;
    rig_send(s_rig, DKT_AUDIENCE_PUBLIC, S_PEER, &request);
    assert_int_equal(s_count(DKT_METHOD_PING, DKT_OK), 1);
    request = rig_request(s_rig, DKT_METHOD_CREATE_TICKET, 78);
    request.present &= ~DKT_PARAM_BIT(TOKEN);
    rig_send(s_rig, DKT_AUDIENCE_PUBLIC, S_PEER, &request);
    assert_int_equal(s_count(DKT_METHOD_CREATE_TICKET, DKT_UNAUTHENTICATED), 1);
    rig_send_raw(s_rig, DKT_AUDIENCE_PUBLIC, S_PEER, (dkt_view_t[]){empty, rubbish}, 2);
    rig_send_raw(s_rig, DKT_AUDIENCE_PUBLIC, S_PEER, &empty, 1); /* no request in it */
    assert_int_equal(s_count(DKT_METHOD_COUNT, DKT_MALFORMED), 2);
    assert_int_equal(s_total(), 4);
    assert_int_equal(dkt_router_traffic(s_rig->router)->latency_us.count, 0);
}

static void test_traffic_router_counts_silence(void **state)
{
    static const uint8_t beating[] = {1};
    dkt_request_t request = rig_request(s_rig, DKT_METHOD_GET_TICKET, 77);
    (void)state;
    rig_send(s_rig, DKT_AUDIENCE_PUBLIC, S_PEER, &request);
    rig_pass(s_rig, DKT_BUDGET_DEFAULT_MS + DKT_BROKER_GRACE_MS + 100, beating, 1);
    assert_int_equal(s_count(DKT_METHOD_GET_TICKET, DKT_UNAVAILABLE), 1);
    assert_int_equal(s_total(), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_traffic_ending_is_read_from_every_shape),
        cmocka_unit_test(test_traffic_ending_of_a_short_answer_is_that_of_a_long_one),
        cmocka_unit_test(test_traffic_ending_of_rubbish_is_internal),
        cmocka_unit_test_setup_teardown(test_traffic_router_counts_an_answer_and_its_time, s_setup,
                                        s_teardown),
        cmocka_unit_test_setup_teardown(test_traffic_router_counts_its_own_answers, s_setup,
                                        s_teardown),
        cmocka_unit_test_setup_teardown(test_traffic_router_counts_silence, s_setup, s_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
