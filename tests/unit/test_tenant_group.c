/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tenant core is made of: groups (net effects), the memory of request ids, revoked tokens,
 * works.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/core/group.h"
#include "lib/core/memo.h"
#include "lib/core/revoked.h"
#include "lib/core/tenant.h"

#define NOW_MS INT64_C(1790000000000)

/* -- groups -- */

static dkt_ticket_row_t s_row(uint64_t number, uint32_t minute)
{
    return (dkt_ticket_row_t){
        .number = number, .place = {.minute = minute}, .has_lane = true, .state = DKT_TICKET_OPEN};
}

static void s_seal(dkt_group_t *group, dkt_commit_t *commit)
{
    assert_true(dkt_group_seal(group, 1, NOW_MS, commit));
}

static void test_group_insert_and_cancel_is_one_cancelled_row(void **state)
{
    (void)state;
    dkt_group_t group;
    dkt_commit_t commit;
    dkt_group_init(&group);
    dkt_ticket_row_t row = s_row(5, 100);
    assert_true(dkt_group_insert(&group, &row));
    assert_true(dkt_group_free(&group, 5, DKT_TICKET_CANCELLED, NOW_MS, false));
    s_seal(&group, &commit);
    assert_int_equal(commit.insert_count, 1);
    assert_int_equal(commit.free_count, 0);
    assert_int_equal(commit.inserts[0].state, DKT_TICKET_CANCELLED);
    assert_int_equal(commit.inserts[0].cancelled_ms, NOW_MS);
    assert_false(commit.inserts[0].has_lane);
    dkt_group_fini(&group);
}

static void test_group_insert_and_move_is_one_row_in_the_last_place(void **state)
{
    (void)state;
    dkt_group_t group;
    dkt_commit_t commit;
    dkt_group_init(&group);
    dkt_ticket_row_t row = s_row(5, 100);
    assert_true(dkt_group_insert(&group, &row));
    assert_true(dkt_group_place(&group, 5, (dkt_place_t){.minute = 107, .lane = 2}, true));
    s_seal(&group, &commit);
    assert_int_equal(commit.insert_count, 1);
    assert_int_equal(commit.park_count, 0);
    assert_int_equal(commit.inserts[0].place.minute, 107);
    assert_int_equal(commit.inserts[0].place.lane, 2);
    dkt_group_fini(&group);
}

static void test_group_move_and_dispatch_is_a_place_and_an_update(void **state)
{
    (void)state;
    dkt_group_t group;
    dkt_commit_t commit;
    dkt_group_init(&group);
    assert_true(dkt_group_place(&group, 5, (dkt_place_t){.minute = 107}, true));
    assert_true(dkt_group_place(&group, 5, (dkt_place_t){.minute = 99}, false));
    dkt_update_row_t update = {
        .number = 5, .state = DKT_TICKET_DISPATCHED, .dispatched_ms = NOW_MS};
    assert_true(dkt_group_update(&group, &update));
    s_seal(&group, &commit);
    assert_int_equal(commit.park_count, 1);
    assert_int_equal(commit.places[0].place.minute, 99);
    assert_int_equal(commit.update_count, 1);
    assert_int_equal(commit.updates[0].dispatched_ms, NOW_MS);
    assert_int_equal(commit.not_after_ms, INT64_C(107) * 60000); /* only bookings are watched */
    dkt_group_fini(&group);
}

static void test_group_move_and_cancel_is_only_a_free_row(void **state)
{
    (void)state;
    dkt_group_t group;
    dkt_commit_t commit;
    dkt_group_init(&group);
    assert_true(dkt_group_place(&group, 5, (dkt_place_t){.minute = 107}, true));
    dkt_update_row_t breached = {.number = 5, .state = DKT_TICKET_OPEN, .breached = true};
    assert_true(dkt_group_update(&group, &breached));
    assert_true(dkt_group_free(&group, 5, DKT_TICKET_RESOLVED, NOW_MS, true));
    s_seal(&group, &commit);
    assert_int_equal(commit.park_count + commit.update_count + commit.insert_count, 0);
    assert_int_equal(commit.free_count, 1);
    assert_int_equal(commit.frees[0].at_ms, NOW_MS);
    assert_true(commit.frees[0].breached);
    dkt_group_fini(&group);
}

static void test_group_swap_parks_and_places_both(void **state)
{
    (void)state;
    dkt_group_t group;
    dkt_commit_t commit;
    dkt_group_init(&group);
    assert_true(dkt_group_place(&group, 1, (dkt_place_t){.minute = 20}, true));
    assert_true(dkt_group_place(&group, 2, (dkt_place_t){.minute = 10}, true));
    s_seal(&group, &commit);
    assert_int_equal(commit.park_count, 2);
    assert_int_equal(commit.not_after_ms, INT64_C(10) * 60000);
    dkt_group_fini(&group);
}

static void test_group_finds_each_of_many_effects_and_forgets_them(void **state)
{
    (void)state;
    enum { COUNT = 3000 };
    dkt_group_t group;
    dkt_group_init(&group);
    for (uint64_t i = 1; i <= COUNT; i++) {
        dkt_ticket_row_t row = s_row(i * 1024, (uint32_t)i);
        row.hold_nonce = i << 32;
        assert_true(dkt_group_insert(&group, &row));
    }
    for (uint64_t i = 1; i <= COUNT; i++) {
        assert_int_equal(dkt_group_find(&group, i * 1024)->row.place.minute, i);
    }
    assert_int_equal(dkt_group_find_nonce(&group, UINT64_C(7) << 32)->row.number, 7 * 1024);
    assert_null(dkt_group_find(&group, 5));
    assert_false(dkt_group_empty(&group));
    dkt_group_reset(&group);
    assert_true(dkt_group_empty(&group));
    assert_null(dkt_group_find(&group, 1024));
    assert_int_equal(group.not_after_ms, INT64_MAX);
    dkt_group_fini(&group);
}

static void test_group_without_events_has_no_journal_row(void **state)
{
    (void)state;
    dkt_group_t group;
    dkt_commit_t commit;
    dkt_group_init(&group);
    group.has_revoked = true;
    assert_false(dkt_group_readonly(&group));
    assert_true(dkt_group_seal(&group, 9, NOW_MS, &commit));
    assert_int_equal(commit.journal_seq, 0);
    const dkt_view_t none = {.data = NULL};
    assert_true(dkt_group_event(&group, DKT_EVENT_CREATED, 1, NOW_MS, 1, NOW_MS, "gold", none));
    assert_true(dkt_group_seal(&group, 9, NOW_MS, &commit));
    assert_int_equal(commit.journal_seq, 9);
    dkt_group_fini(&group);
}

/* -- the memory of request ids -- */

static dkt_uuid_t s_id(int64_t ms, uint32_t n)
{
    uint8_t random[10] = {0};
    memcpy(random + 6, &n, sizeof n);
    return dkt_uuid_v7(ms, random);
}

static const dkt_memo_digest_t s_digest = {.method = 1, .ticket_type = 2};

static uint32_t s_done(dkt_memo_t *memo, dkt_uuid_t id, uint64_t ticket)
{
    uint32_t number = dkt_memo_add(memo, &id, &s_digest, DKT_MEMO_PENDING);
    assert_int_not_equal(number, DKT_MEMO_NONE);
    dkt_memo_entry(memo, number)->ticket = ticket;
    dkt_memo_done(memo, number);
    return number;
}

static void test_memo_new_ids_are_young_but_not_of_the_future(void **state)
{
    (void)state;
    dkt_memo_t memo;
    dkt_memo_init(&memo);
    dkt_uuid_t id = s_id(NOW_MS + DKT_MEMO_SKEW_MS + 1, 1);
    assert_false(dkt_memo_new_id(&memo, &id, NOW_MS + DKT_MEMO_SKEW_MS)); /* not activated */
    dkt_memo_activated(&memo, NOW_MS, false);
    assert_true(dkt_memo_new_id(&memo, &id, NOW_MS + 1));
    assert_false(dkt_memo_new_id(&memo, &id, NOW_MS));
    id = s_id(NOW_MS + DKT_MEMO_SKEW_MS, 1);
    assert_false(dkt_memo_new_id(&memo, &id, NOW_MS + DKT_MEMO_SKEW_MS));
    dkt_uuid_t random = {.bytes = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x40}};
    assert_false(dkt_memo_new_id(&memo, &random, INT64_MAX - DKT_MEMO_SKEW_MS));
    dkt_memo_activated(&memo, NOW_MS, true); /* no id was ever stored */
    assert_true(dkt_memo_new_id(&memo, &id, NOW_MS));
    assert_false(dkt_memo_new_id(&memo, &random, NOW_MS));
    dkt_memo_fini(&memo);
}

static void test_memo_evicts_the_oldest_and_looks_its_like_up_again(void **state)
{
    (void)state;
    dkt_memo_t memo;
    dkt_memo_init(&memo);
    dkt_memo_activated(&memo, NOW_MS, false);
    const int64_t from_ms = NOW_MS + DKT_MEMO_SKEW_MS + 1;
    dkt_uuid_t open_id = s_id(from_ms, 999999);
    uint32_t open = dkt_memo_add(&memo, &open_id, &s_digest, DKT_MEMO_PENDING);
    for (uint32_t i = 0; i < DKT_REQUEST_MEMORY_MAX + 10; i++) {
        s_done(&memo, s_id(from_ms + i, i), i + 1);
    }
    dkt_uuid_t gone = s_id(from_ms + 9, 9), kept = s_id(from_ms + 10, 10);
    assert_int_equal(dkt_memo_find(&memo, &gone), DKT_MEMO_NONE);
    assert_int_equal(dkt_memo_entry(&memo, dkt_memo_find(&memo, &kept))->ticket, 11);
    assert_int_equal(dkt_memo_find(&memo, &open_id), open); /* what is in flight stays */
    assert_int_equal(memo.settled, DKT_REQUEST_MEMORY_MAX);
    dkt_uuid_t like = s_id(from_ms + 9, 77777), younger = s_id(from_ms + 10, 77777);
    assert_false(dkt_memo_new_id(&memo, &like, from_ms + DKT_REQUEST_MEMORY_MAX));
    assert_true(dkt_memo_new_id(&memo, &younger, from_ms + DKT_REQUEST_MEMORY_MAX));
    dkt_memo_fini(&memo);
}

static void test_memo_forgets_refusals_and_keeps_the_rest(void **state)
{
    (void)state;
    dkt_memo_t memo;
    dkt_memo_init(&memo);
    const dkt_memo_refusal_t refusal = {.verdict = DKT_VERDICT_NO_SLOT};
    for (uint32_t i = 0; i < 100; i++) {
        dkt_uuid_t id = s_id(NOW_MS, i);
        if (i % 2) {
            s_done(&memo, id, i);
        } else {
            dkt_memo_refused(&memo, dkt_memo_add(&memo, &id, &s_digest, DKT_MEMO_LOOKING),
                             &refusal);
        }
    }
    dkt_memo_forget_refusals(&memo);
    assert_int_equal(memo.settled, 50);
    for (uint32_t i = 0; i < 100; i++) {
        dkt_uuid_t id = s_id(NOW_MS, i);
        assert_int_equal(dkt_memo_find(&memo, &id) != DKT_MEMO_NONE, i % 2);
    }
    assert_int_equal(memo.count, 100);
    (void)s_done(&memo, s_id(NOW_MS + 1, 1), 1); /* freed entries are used again */
    assert_int_equal(memo.count, 100);
    dkt_memo_fini(&memo);
}

static void test_memo_names_the_first_field_that_differs(void **state)
{
    (void)state;
    const dkt_memo_digest_t base = {1, 2, 3, 4, 5};
    const struct {
        dkt_memo_digest_t other;
        const char *field;
    } cases[] = {{{9, 9, 3, 4, 5}, "method"},
                 {{1, 9, 9, 4, 5}, "ticket_type"},
                 {{1, 2, 9, 9, 5}, "subject"},
                 {{1, 2, 3, 9, 9}, "payload"},
                 {{1, 2, 3, 4, 9}, "slot_id"}};
    assert_null(dkt_memo_differs(&base, &base));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_string_equal(dkt_memo_differs(&base, &cases[i].other), cases[i].field);
    }
}

/* -- revoked tokens -- */

static void test_revoked_drops_only_what_has_expired(void **state)
{
    (void)state;
    enum { COUNT = 1000, TTL_MS = 900000 };
    dkt_revoked_set_t set = {0};
    uint8_t id[DKT_TOKEN_ID_BYTES] = {0};
    assert_false(dkt_revoked_has(&set, id));
    for (uint32_t i = 1; i <= COUNT; i++) {
        memcpy(id + 4, &i, sizeof i); /* the hashed bytes are all the same: one long chain */
        int64_t now_ms = NOW_MS + (int64_t)i * 10000;
        assert_true(dkt_revoked_add(&set, id, now_ms + TTL_MS, now_ms));
        assert_true(dkt_revoked_add(&set, id, now_ms + TTL_MS, now_ms));
        assert_true(dkt_revoked_has(&set, id));
    }
    assert_in_range(set.max, 1, 1024); /* 90 of them live at a time */
    for (uint32_t i = COUNT - TTL_MS / 10000 + 1; i <= COUNT; i++) {
        memcpy(id + 4, &i, sizeof i);
        assert_true(dkt_revoked_has(&set, id));
    }
    uint32_t other = COUNT + 1;
    memcpy(id + 4, &other, sizeof other);
    assert_false(dkt_revoked_has(&set, id));
    assert_true(dkt_revoked_add(&set, id, NOW_MS, NOW_MS + 1)); /* expired: nothing to remember */
    assert_false(dkt_revoked_has(&set, id));
    dkt_revoked_fini(&set);
}

/* -- works -- */

#define FRAME_MAX 512

static dkt_work_t *s_work(const dkt_request_t *request)
{
    dkt_work_t *work = calloc(1, sizeof *work + FRAME_MAX);
    assert_non_null(work);
    dkt_w_t w = dkt_w_init(work->body, FRAME_MAX);
    dkt_request_encode(&w, request);
    assert_false(w.failed);
    work->len = (uint32_t)w.len;
    return work;
}

/* Decodes it, keeps that, and spoils the body where no view points: what comes back was kept. */
static bool s_keeps(const dkt_request_t *request, dkt_request_t *back)
{
    dkt_request_t decoded;
    dkt_err_t err;
    dkt_work_t *work = s_work(request);
    assert_int_equal(dkt_request_decode(work->body, work->len, &decoded, &err), DKT_OK);
    dkt_work_keep(work, &decoded);
    work->body[0] = 0xc1;
    memset(back, 0xff, sizeof *back);
    bool kept = dkt_work_decode(work, back, &err) == DKT_OK;
    if (kept) {
        assert_memory_equal(back, &decoded, DKT_REQUEST_HEAD_BYTES);
        assert_int_equal(back->argument.status, DKT_OK);
        assert_string_equal(back->argument.field, "");
        assert_true(!back->subject.data || back->subject.data > work->body);
    }
    free(work);
    return kept;
}

static void test_work_keeps_what_was_decoded(void **state)
{
    (void)state;
    static const char client[] = "cl_1", type[] = "gold";
    dkt_request_t back,
        request = {.method = DKT_METHOD_CREATE_TICKET,
                   .msgid = 7,
                   .present = DKT_PARAM_BIT(CLIENT_ID) | DKT_PARAM_BIT(TICKET_TYPE) |
                              DKT_PARAM_BIT(REQUEST_ID),
                   .client_id = {(const uint8_t *)client, 4},
                   .ticket_type = {(const uint8_t *)type, 4},
                   .request_id = {{1, 2, 3}}};
    assert_true(s_keeps(&request, &back));
    assert_int_equal(back.msgid, 7);
    request.present &= ~DKT_PARAM_BIT(TICKET_TYPE); /* something is wrong: it must be told */
    assert_false(s_keeps(&request, &back));
    dkt_request_t settings = {.method = DKT_METHOD_SET_TENANT,
                              .present = DKT_PARAM_BIT(CLIENT_ID) | DKT_PARAM_BIT(RESOLVERS),
                              .client_id = {(const uint8_t *)client, 4},
                              .resolvers = 3};
    assert_true(s_keeps(&settings, &back));
    settings.present |= DKT_PARAM_BIT(LIMITS); /* the tables are not in the head, even empty */
    assert_false(s_keeps(&settings, &back));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_group_insert_and_cancel_is_one_cancelled_row),
        cmocka_unit_test(test_group_insert_and_move_is_one_row_in_the_last_place),
        cmocka_unit_test(test_group_move_and_dispatch_is_a_place_and_an_update),
        cmocka_unit_test(test_group_move_and_cancel_is_only_a_free_row),
        cmocka_unit_test(test_group_swap_parks_and_places_both),
        cmocka_unit_test(test_group_finds_each_of_many_effects_and_forgets_them),
        cmocka_unit_test(test_group_without_events_has_no_journal_row),
        cmocka_unit_test(test_memo_new_ids_are_young_but_not_of_the_future),
        cmocka_unit_test(test_memo_evicts_the_oldest_and_looks_its_like_up_again),
        cmocka_unit_test(test_memo_forgets_refusals_and_keeps_the_rest),
        cmocka_unit_test(test_memo_names_the_first_field_that_differs),
        cmocka_unit_test(test_revoked_drops_only_what_has_expired),
        cmocka_unit_test(test_work_keeps_what_was_decoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
