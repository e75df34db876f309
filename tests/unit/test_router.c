/* SPDX-License-Identifier: Apache-2.0
 *
 * What the broker itself answers: the contract's order of errors, forms that are no request, ping,
 * quotas and bounds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "support_router.h"

#define PUBLIC   DKT_AUDIENCE_PUBLIC
#define INTERNAL DKT_AUDIENCE_INTERNAL
#define S_PEER   3

static rig_t *s_rig;
static const dkt_view_t s_empty = {(const uint8_t *)"", 0};

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

/* -- the order of errors: each row has the faults of several ranks, the first must win -----------
 */

enum {
    NO_TOKEN = 1,
    BAD_TOKEN = 2,
    OTHER_TOKEN = 4,
    NO_CLIENT = 8,
    BAD_CLIENT = 16,
    OTHER_CLIENT = 32,
    NO_TYPE = 64,
    BAD_TICKET = 128,
    OTHER_TICKET = 256,
    BAD_SLOT = 512,
    NO_REQUEST_ID = 1024,
    EXPIRED = 2048,
};

static void s_drop(dkt_request_t *request, uint32_t bit)
{
    request->present &= ~bit;
}

static dkt_request_t s_faulty(dkt_method_t method, int faults)
{
    static dkt_id_text_t other;
    dkt_request_t request = rig_request(s_rig, method, 77);
    dkt_ticket_text(&s_rig->ring, &s_rig->clients[1], 1, &other);
    if (faults & NO_TOKEN) {
        s_drop(&request, DKT_PARAM_BIT(TOKEN));
    }
    if (faults & BAD_TOKEN) {
        request.token = rig_text("v4.public.rubbish");
    }
    if (faults & OTHER_TOKEN) {
        request.token = rig_text(s_rig->tokens[1]);
    }
    if (faults & NO_CLIENT) {
        s_drop(&request, DKT_PARAM_BIT(CLIENT_ID));
    }
    if (faults & BAD_CLIENT) {
        request.client_id = rig_text("cl_no");
    }
    if (faults & OTHER_CLIENT) {
        request.client_id = rig_text(s_rig->client_ids[1]);
    }
    if (faults & NO_TYPE) {
        s_drop(&request, DKT_PARAM_BIT(TICKET_TYPE));
    }
    if (faults & NO_REQUEST_ID) {
        s_drop(&request, DKT_PARAM_BIT(REQUEST_ID));
    }
    if (faults & BAD_TICKET) {
        request.ticket_id = rig_text("tk_rubbish");
    }
    if (faults & OTHER_TICKET) {
        request.ticket_id = rig_text(other.text);
    }
    if (faults & BAD_SLOT) {
        request.slot_id = rig_text("sl_rubbish");
    }
    s_rig->now.unix_ms += faults & EXPIRED ? 1000000 : 0;
    return request;
}

static void test_router_errors_come_in_the_contracts_order(void **state)
{
    (void)state;
    static const struct {
        dkt_audience_t side;
        dkt_method_t method;
        int faults;
        dkt_status_t want; /* OK: it goes to the worker */
        const char *field;
    } rows[] = {
        {PUBLIC, DKT_METHOD_CREATE_TICKET, 0, DKT_OK, ""},
        {PUBLIC, DKT_METHOD_VALIDATE_ETA, BAD_CLIENT | NO_TYPE, DKT_PERMISSION_DENIED, ""},
        {PUBLIC, DKT_METHOD_LIST_TENANTS, 0, DKT_PERMISSION_DENIED, ""},
        {PUBLIC, DKT_METHOD_CREATE_TICKET, NO_TOKEN | OTHER_CLIENT | NO_TYPE, DKT_UNAUTHENTICATED,
         "token"},
        {PUBLIC, DKT_METHOD_CREATE_TICKET, BAD_TOKEN | OTHER_CLIENT, DKT_UNAUTHENTICATED, "token"},
        {PUBLIC, DKT_METHOD_CREATE_TICKET, OTHER_CLIENT | NO_TYPE, DKT_PERMISSION_DENIED,
         "client_id"},
        {PUBLIC, DKT_METHOD_CREATE_TICKET, BAD_CLIENT | NO_TYPE, DKT_PERMISSION_DENIED,
         "client_id"},
        {PUBLIC, DKT_METHOD_CREATE_TICKET, OTHER_TOKEN, DKT_PERMISSION_DENIED, "client_id"},
        {PUBLIC, DKT_METHOD_CREATE_TICKET, NO_CLIENT, DKT_INVALID_ARGUMENT, "client_id"},
        {PUBLIC, DKT_METHOD_CREATE_TICKET, NO_TYPE, DKT_INVALID_ARGUMENT, "ticket_type"},
        {PUBLIC, DKT_METHOD_CREATE_TICKET, NO_REQUEST_ID, DKT_INVALID_ARGUMENT, "request_id"},
        {PUBLIC, DKT_METHOD_GET_TICKET, 0, DKT_OK, ""},
        {PUBLIC, DKT_METHOD_GET_TICKET, BAD_TICKET, DKT_NOT_FOUND, "ticket_id"},
        {PUBLIC, DKT_METHOD_GET_TICKET, OTHER_TICKET, DKT_NOT_FOUND, "ticket_id"},
        {PUBLIC, DKT_METHOD_GET_TICKET, BAD_TICKET | BAD_TOKEN, DKT_UNAUTHENTICATED, "token"},
        {PUBLIC, DKT_METHOD_LOGIN, 0, DKT_OK, ""},
        {PUBLIC, DKT_METHOD_LOGIN, BAD_CLIENT, DKT_UNAUTHENTICATED, ""},
        {PUBLIC, DKT_METHOD_LOGIN, NO_CLIENT, DKT_INVALID_ARGUMENT, "client_id"},
        {PUBLIC, DKT_METHOD_CREATE_ACCOUNT, 0, DKT_OK, ""},
        {PUBLIC, DKT_METHOD_CREATE_ACCOUNT, NO_REQUEST_ID, DKT_INVALID_ARGUMENT, "request_id"},
        {INTERNAL, DKT_METHOD_CREATE_TICKET, NO_TOKEN, DKT_OK, ""},
        {INTERNAL, DKT_METHOD_CREATE_TICKET, BAD_TOKEN, DKT_OK, ""},
        {INTERNAL, DKT_METHOD_CREATE_TICKET, OTHER_TOKEN, DKT_OK, ""},
        {INTERNAL, DKT_METHOD_CREATE_TICKET, BAD_CLIENT, DKT_NOT_FOUND, "client_id"},
        {INTERNAL, DKT_METHOD_CREATE_TICKET, BAD_CLIENT | NO_TYPE, DKT_INVALID_ARGUMENT,
         "ticket_type"},
        {INTERNAL, DKT_METHOD_GET_TICKET, OTHER_TICKET, DKT_OK, ""},
        {INTERNAL, DKT_METHOD_GET_TICKET, BAD_TICKET, DKT_NOT_FOUND, "ticket_id"},
        {INTERNAL, DKT_METHOD_RELEASE_SLOT, 0, DKT_OK, ""},
        {INTERNAL, DKT_METHOD_RELEASE_SLOT, BAD_SLOT, DKT_NOT_FOUND, "slot_id"},
        {INTERNAL, DKT_METHOD_ALLOCATE_SLOT, 0, DKT_OK, ""},
        {INTERNAL, DKT_METHOD_ALLOCATE_SLOT, BAD_SLOT, DKT_NOT_FOUND, "slot_id"},
        {INTERNAL, DKT_METHOD_LIST_TENANTS, 0, DKT_OK, ""},
        {PUBLIC, DKT_METHOD_CREATE_TICKET, EXPIRED, DKT_UNAUTHENTICATED, "token"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint32_t answers = s_rig->answer_count, requests = s_rig->request_count;
        dkt_request_t request = s_faulty(rows[i].method, rows[i].faults);
        rig_send(s_rig, rows[i].side, S_PEER, &request);
        if (rows[i].want == DKT_OK) {
            if (s_rig->request_count != requests + 1 || s_rig->answer_count != answers) {
                fail_msg("row %zu: was not sent to the worker", i);
            }
            rig_answer(s_rig, 1, rig_last_request(s_rig), "ok");
            continue;
        }
        const rig_answer_t *got = rig_last_answer(s_rig);
        if (s_rig->answer_count != answers + 1 || got->status != rows[i].want ||
            strcmp(got->field, rows[i].field) != 0 || got->msgid != 77) {
            fail_msg("row %zu: got %s field '%s'", i, dkt_status_code(got->status), got->field);
        }
    }
    assert_int_equal(rig_counts(s_rig).open, 0);
    assert_int_equal(rig_counts(s_rig).connections, 0);
}

static void test_router_sends_what_the_token_says(void **state)
{
    (void)state;
    dkt_request_t request = rig_request(s_rig, DKT_METHOD_CREATE_TICKET, 9);
    rig_send(s_rig, PUBLIC, S_PEER, &request);
    const dkt_link_request_t *sent = &rig_last_request(s_rig)->request;
    assert_int_equal(sent->token_expires_ms - sent->token_issued_ms, 900000);
    assert_int_equal(sent->token_id[1], 1);
    assert_int_equal(sent->origin, PUBLIC);
    assert_int_equal(sent->method, DKT_METHOD_CREATE_TICKET);
    assert_int_equal(sent->budget_left_ms, 5000);
    assert_int_equal(sent->vshard, dkt_client_vshard(&s_rig->clients[0]));
    rig_send(s_rig, INTERNAL, S_PEER, &request);
    sent = &rig_last_request(s_rig)->request;
    assert_int_equal(sent->origin, INTERNAL);
    assert_int_equal(sent->token_id[1], 0);
    assert_int_equal(sent->token_expires_ms, 0);
}

static void test_router_token_is_verified_once(void **state)
{
    (void)state;
    dkt_request_t request = rig_request(s_rig, DKT_METHOD_CREATE_TICKET, 9);
    for (int i = 0; i < 10; i++) {
        rig_send(s_rig, PUBLIC, S_PEER, &request);
    }
    assert_int_equal(rig_counts(s_rig).token_verified, 1);
    request.token = rig_text("v4.public.rubbish");
    for (int i = 0; i < 10; i++) {
        rig_send(s_rig, PUBLIC, S_PEER, &request);
    }
    assert_int_equal(rig_counts(s_rig).token_verified, 2);
    assert_int_equal(rig_last_answer(s_rig)->status, DKT_UNAUTHENTICATED);
}

/* What is remembered of the last request is of use for its like only. */
static void test_router_tells_tokens_and_clients_apart(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 8; i++) {
        unsigned tenant = i % 3 % 2;
        dkt_request_t request = rig_request(s_rig, DKT_METHOD_CREATE_TICKET, 10 + i);
        request.token = rig_text(s_rig->tokens[tenant]);
        request.client_id = rig_text(s_rig->client_ids[tenant]);
        rig_send(s_rig, i % 2 ? INTERNAL : PUBLIC, S_PEER, &request);
        const dkt_link_request_t *sent = &rig_last_request(s_rig)->request;
        assert_int_equal(rig_last_request(s_rig)->msgid, 10 + i);
        assert_int_equal(sent->vshard, dkt_client_vshard(&s_rig->clients[tenant]));
        char spoilt[DKT_TOKEN_BYTES_MAX];
        strcpy(spoilt, s_rig->tokens[tenant]);
        spoilt[strlen(spoilt) - 2] ^= 1;
        request.token = rig_text(spoilt);
        rig_send(s_rig, PUBLIC, S_PEER, &request);
        assert_int_equal(rig_last_answer(s_rig)->status, DKT_UNAUTHENTICATED);
        request.token = rig_text(s_rig->tokens[tenant]);
        request.client_id = rig_text(s_rig->client_ids[!tenant]);
        rig_send(s_rig, PUBLIC, S_PEER, &request);
        assert_int_equal(rig_last_answer(s_rig)->status, DKT_PERMISSION_DENIED);
    }
    s_rig->public_key.public_key[0] ^= 1; /* what was good is so no more */
    rig_table(s_rig, 9, (const uint8_t[]){1}, 1);
    dkt_request_t request = rig_request(s_rig, DKT_METHOD_CREATE_TICKET, 30);
    rig_send(s_rig, PUBLIC, S_PEER, &request);
    assert_int_equal(rig_last_answer(s_rig)->status, DKT_UNAUTHENTICATED);
}

static void test_router_ping_is_answered_here(void **state)
{
    (void)state;
    dkt_request_t request = rig_request(s_rig, DKT_METHOD_PING, 5);
    rig_send(s_rig, PUBLIC, S_PEER, &request);
    assert_int_equal(s_rig->request_count, 0);
    assert_int_equal(rig_last_answer(s_rig)->status, DKT_OK);
    assert_string_equal(rig_last_answer(s_rig)->text, "ok");
    assert_int_equal(rig_last_answer(s_rig)->msgid, 5);
}

/* -- what is no request --------------------------------------------------------------------------
 */

static void test_router_malformed_frames_get_one_answer_each(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        uint8_t bytes[16];
        uint32_t len;
        uint32_t msgid;
    } rows[] = {
        {"nothing", {0}, 0, 0},
        {"not msgpack", {0xc1}, 1, 0},
        {"cut", {0x94, 0x00, 0x05, 0xa4, 'p'}, 5, 5},
        {"notification", {0x93, 0x02, 0xa4, 'p', 'i', 'n', 'g', 0x90}, 8, 0},
        {"a response", {0x94, 0x01, 0x05, 0xc0, 0x80}, 5, 0},
        {"params no array", {0x94, 0x00, 0x05, 0xa4, 'p', 'i', 'n', 'g', 0x80}, 9, 5},
        {"method no text", {0x94, 0x00, 0x06, 0x01, 0x91, 0x80}, 6, 6},
    };
    dkt_request_t ping = rig_request(s_rig, DKT_METHOD_PING, 99);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint32_t before = s_rig->answer_count;
        dkt_view_t frames[3] = {s_empty, {rows[i].bytes, rows[i].len}, rig_encode(s_rig, 0, &ping)};
        rig_send_raw(s_rig, PUBLIC, S_PEER, frames, 3);
        assert_int_equal(s_rig->answer_count, before + 2);
        const rig_answer_t *got = &s_rig->answers[before];
        if (got->status != DKT_MALFORMED || (got->msgid != rows[i].msgid && got->msgid != 0)) {
            fail_msg("%s: %s for %u", rows[i].what, dkt_status_code(got->status), got->msgid);
        }
        assert_int_equal(s_rig->answers[before + 1].status, DKT_OK);
    }
}

static void test_router_malformed_messages_get_one_answer(void **state)
{
    (void)state;
    dkt_request_t ping = rig_request(s_rig, DKT_METHOD_PING, 99);
    dkt_view_t frames[DKT_FRAMES_PER_MESSAGE_MAX + 2];
    for (uint32_t i = 0; i < sizeof frames / sizeof *frames; i++) {
        frames[i] = i == 0 ? s_empty : rig_encode(s_rig, 0, &ping);
    }
    static const struct {
        uint32_t first, count, msgid;
    } rows[] = {
        {0, 0, 0},                              /* nothing at all */
        {0, 1, 0},                              /* the delimiter alone */
        {1, 1, 99},                             /* no delimiter */
        {1, 3, 0},                              /* no delimiter, several */
        {0, DKT_FRAMES_PER_MESSAGE_MAX + 2, 0}, /* one too many */
        {0, 100000, 0},                         /* many too many: the shell kept the first */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint32_t before = s_rig->answer_count;
        rig_send_raw(s_rig, PUBLIC, S_PEER, frames + rows[i].first, rows[i].count);
        assert_int_equal(s_rig->answer_count, before + 1);
        assert_int_equal(rig_last_answer(s_rig)->status, DKT_MALFORMED);
        assert_int_equal(rig_last_answer(s_rig)->msgid, rows[i].msgid);
    }
    uint32_t before = s_rig->answer_count;
    rig_send_raw(s_rig, PUBLIC, S_PEER, frames, DKT_FRAMES_PER_MESSAGE_MAX + 1);
    assert_int_equal(s_rig->answer_count, before + DKT_FRAMES_PER_MESSAGE_MAX);
    assert_int_equal(rig_last_answer(s_rig)->status, DKT_OK);
    assert_int_equal(s_rig->largest_group, DKT_FRAMES_PER_MESSAGE_MAX);
}

static void test_router_unknown_method(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0x94, 0x00, 0x07, 0xa3, 'n', 'o', 'p', 0x91, 0x80};
    dkt_view_t frames[2] = {s_empty, {bytes, sizeof bytes}};
    rig_send_raw(s_rig, PUBLIC, S_PEER, frames, 2);
    assert_int_equal(rig_last_answer(s_rig)->status, DKT_UNKNOWN_METHOD);
    assert_int_equal(rig_last_answer(s_rig)->msgid, 7);
}

/* -- quotas and bounds ---------------------------------------------------------------------------
 */

static dkt_status_t s_try(dkt_method_t method, dkt_audience_t side)
{
    dkt_request_t request = rig_request(s_rig, method, 1);
    uint32_t answers = s_rig->answer_count;
    rig_send(s_rig, side, S_PEER, &request);
    if (s_rig->answer_count > answers) {
        return rig_last_answer(s_rig)->status;
    }
    rig_answer(s_rig, 1, rig_last_request(s_rig), "ok");
    return DKT_OK;
}

static void test_router_quota_of_accounts_is_per_source(void **state)
{
    (void)state;
    for (int i = 0; i < DKT_AUTH_BURST; i++) {
        assert_int_equal(s_try(i % 2 ? DKT_METHOD_LOGIN : DKT_METHOD_CREATE_ACCOUNT, PUBLIC),
                         DKT_OK);
    }
    assert_int_equal(s_try(DKT_METHOD_LOGIN, PUBLIC), DKT_RATE_LIMITED);
    assert_int_equal(s_try(DKT_METHOD_LOGIN, INTERNAL), DKT_RATE_LIMITED);
    assert_int_equal(rig_last_answer(s_rig)->retry_after_ms, 1000 / DKT_AUTH_RATE_PER_S);
    assert_int_equal(s_try(DKT_METHOD_GET_TICKET, PUBLIC), DKT_OK);
    s_rig->source = "10.0.0.2";
    assert_int_equal(s_try(DKT_METHOD_LOGIN, PUBLIC), DKT_OK);
    s_rig->source = "10.0.0.1";
    s_rig->now.mono_ms += 1000;
    for (int i = 0; i < DKT_AUTH_RATE_PER_S; i++) {
        assert_int_equal(s_try(DKT_METHOD_LOGIN, PUBLIC), DKT_OK);
    }
    assert_int_equal(s_try(DKT_METHOD_LOGIN, PUBLIC), DKT_RATE_LIMITED);
    assert_int_equal(rig_counts(s_rig).limited, 3);
}

static void test_router_connection_is_overloaded_above_its_share(void **state)
{
    (void)state;
    dkt_request_t request = rig_request(s_rig, DKT_METHOD_GET_TICKET, 1);
    for (uint32_t i = 0; i < DKT_OPEN_PER_CONNECTION_MAX; i++) {
        rig_send(s_rig, PUBLIC, S_PEER, &request);
    }
    assert_int_equal(s_rig->answer_count, 0);
    rig_send(s_rig, PUBLIC, S_PEER, &request);
    assert_int_equal(rig_last_answer(s_rig)->status, DKT_OVERLOADED);
    assert_true(rig_last_answer(s_rig)->retry_after_ms > 0);
    rig_send(s_rig, PUBLIC, S_PEER + 1, &request);
    assert_int_equal(s_rig->answer_count, 1);
    rig_answer(s_rig, 1, &s_rig->requests[0], "ok");
    rig_send(s_rig, PUBLIC, S_PEER, &request);
    assert_int_equal(s_rig->answer_count, 2);
    assert_int_equal(rig_last_answer(s_rig)->status, DKT_OK);
}

static void test_router_is_overloaded_above_its_bounds(void **state)
{
    (void)state;
    dkt_request_t request = rig_request(s_rig, DKT_METHOD_GET_TICKET, 1);
    size_t len = rig_encode(s_rig, 0, &request).len;
    static const uint32_t counts[] = {10, 100};
    const size_t bytes[] = {1000000, 10 * len};
    for (size_t row = 0; row < 2; row++) {
        rig_t *rig = rig_new(counts[row], bytes[row]);
        rig_one_worker(rig);
        for (int i = 0; i < 10; i++) {
            rig_send(rig, PUBLIC, S_PEER, &request);
        }
        assert_int_equal(rig->answer_count, 0);
        rig_send(rig, PUBLIC, S_PEER + 1, &request);
        assert_int_equal(rig_last_answer(rig)->status, DKT_OVERLOADED);
        rig_answer(rig, 1, rig_last_request(rig), "ok");
        rig_send(rig, PUBLIC, S_PEER + 1, &request);
        assert_int_equal(rig_last_answer(rig)->status, DKT_OK);
        assert_int_equal(rig_counts(rig).open, 10);
        rig_destroy(&rig);
    }
}

/* -- before the first table ----------------------------------------------------------------------
 */

static void test_router_waits_for_the_keys(void **state)
{
    (void)state;
    rig_t *rig = rig_new(0, 0);
    dkt_request_t good = rig_request(rig, DKT_METHOD_CREATE_TICKET, 1);
    dkt_request_t bad = rig_request(rig, DKT_METHOD_CREATE_TICKET, 2);
    bad.token = rig_text("v4.public.rubbish");
    rig_send(rig, PUBLIC, S_PEER, &good);
    rig_send(rig, PUBLIC, S_PEER, &bad);
    assert_int_equal(rig->answer_count, 0);
    assert_int_equal(rig_counts(rig).waiting, 2);
    rig_one_worker(rig);
    assert_int_equal(rig->request_count, 1);
    assert_int_equal(rig_last_request(rig)->msgid, 1);
    assert_int_equal(rig_last_request(rig)->request.vshard, dkt_client_vshard(&rig->clients[0]));
    assert_int_equal(rig->answer_count, 1);
    assert_int_equal(rig_last_answer(rig)->status, DKT_UNAUTHENTICATED);
    rig_destroy(&rig);
}

static void test_router_without_a_table_is_unavailable(void **state)
{
    (void)state;
    rig_t *rig = rig_new(0, 0);
    dkt_request_t request = rig_request(rig, DKT_METHOD_CREATE_TICKET, 1);
    request.budget_ms = 300;
    rig_send(rig, PUBLIC, S_PEER, &request);
    rig_pass(rig, 280, NULL, 0);
    assert_int_equal(rig->answer_count, 0);
    rig_pass(rig, 60, NULL, 0);
    assert_int_equal(rig_last_answer(rig)->status, DKT_UNAVAILABLE);
    assert_true(rig_last_answer(rig)->retry_after_ms > 0);
    assert_int_equal(rig_counts(rig).connections, 0);
    rig_destroy(&rig);
}

#define T(name) cmocka_unit_test_setup_teardown(name, s_setup, s_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_router_errors_come_in_the_contracts_order),
        T(test_router_sends_what_the_token_says),
        T(test_router_token_is_verified_once),
        T(test_router_tells_tokens_and_clients_apart),
        T(test_router_ping_is_answered_here),
        T(test_router_malformed_frames_get_one_answer_each),
        T(test_router_malformed_messages_get_one_answer),
        T(test_router_unknown_method),
        T(test_router_quota_of_accounts_is_per_source),
        T(test_router_connection_is_overloaded_above_its_share),
        T(test_router_is_overloaded_above_its_bounds),
        T(test_router_waits_for_the_keys),
        T(test_router_without_a_table_is_unavailable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
