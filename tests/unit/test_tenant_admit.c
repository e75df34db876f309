/* SPDX-License-Identifier: Apache-2.0
 *
 * Admission through the tenant core: one request_id one ticket, the order of the checks, holds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lib/core/group.h"
#include "tests/unit/support_tenant.h"

static void test_tenant_answers_created_only_after_the_commit(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    uint32_t one = bench_create(bench, "gold", bench_new_id(bench, 1));
    assert_false(bench_answered(bench, one));
    bench_flush(bench);
    const dkt_commit_t *commit = &bench_batch(bench, DKT_BATCH_COMMIT)->commit;
    assert_int_equal(commit->insert_count, 1);
    assert_int_equal(bench_events(commit, DKT_EVENT_CREATED), 1);
    assert_int_equal(commit->not_after_ms, (int64_t)commit->inserts[0].place.minute * 60000);
    assert_false(bench_answered(bench, one));
    bench_ok(bench);
    bench_expect(bench, one, "created");
    assert_false(bench_answer(bench, one)->replayed);
    bench_destroy(&bench);
}

static void test_tenant_sends_the_next_group_only_after_the_first(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    uint32_t one = bench_create(bench, "gold", bench_new_id(bench, 1));
    bench_flush(bench);
    uint32_t two = bench_create(bench, "gold", bench_new_id(bench, 2));
    bench_flush(bench);
    assert_int_equal(bench->batch_count, 1);
    bench_ok(bench);
    bench_expect(bench, one, "created");
    assert_false(bench_answered(bench, two));
    assert_int_equal(bench_batch(bench, DKT_BATCH_COMMIT)->commit.journal_seq, 2);
    bench_ok(bench);
    bench_expect(bench, two, "created");
    bench_destroy(&bench);
}

static void test_tenant_looks_up_an_old_request_id_first(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    uint32_t one = bench_create(bench, "gold", bench_old_id(1));
    uint32_t two = bench_create(bench, "gold", bench_old_id(1));
    bench_flush(bench);
    assert_int_equal(bench_batch(bench, DKT_BATCH_READ)->read.request_id_count, 1);
    bench_ok(bench);
    bench_ok(bench);
    bench_expect(bench, one, "created");
    assert_int_equal(bench_number(bench, one), bench_number(bench, two));
    assert_true(bench_answer(bench, two)->replayed);
    bench_destroy(&bench);
}

/* A row as create_ticket leaves it. */
static dkt_ticket_row_t s_row(uint64_t number, dkt_uuid_t id, dkt_ticket_state_t ticket_state)
{
    return (dkt_ticket_row_t){.number = number,
                              .request_id = id,
                              .class_name = bench_view("gold"),
                              .place = {.minute = BENCH_DB_MS / 60000 + 5},
                              .has_lane = ticket_state != DKT_TICKET_CANCELLED,
                              .deadline_ms = BENCH_DB_MS + 7200000,
                              .state = ticket_state,
                              .created_ms = BENCH_DB_MS};
}

static void test_tenant_replays_what_the_database_knows(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    uint32_t same = bench_create(bench, "gold", bench_old_id(1));
    uint32_t joined = bench_create(bench, "gold", bench_old_id(1));
    uint32_t other = bench_create(bench, "silver", bench_old_id(2));
    bench_flush(bench);
    dkt_ticket_row_t rows[] = {s_row(7, bench_old_id(1), DKT_TICKET_CANCELLED),
                               s_row(8, bench_old_id(2), DKT_TICKET_CANCELLED)};
    bench_rows(bench, rows, 2, 0);
    assert_int_equal(bench_number(bench, same), 7);
    assert_true(bench_answer(bench, same)->replayed);
    bench_expect_error(bench, other, DKT_CONFLICT, "ticket_type");
    bench_rows(bench, rows, 1, 0);
    assert_int_equal(bench_number(bench, joined), 7);
    bench_destroy(&bench);
}

static void test_tenant_names_the_field_of_a_conflict(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    dkt_uuid_t id = bench_new_id(bench, 1);
    dkt_request_t asked = {.method = DKT_METHOD_CREATE_TICKET,
                           .ticket_type = bench_view("gold"),
                           .request_id = id,
                           .subject = bench_view("a"),
                           .payload = bench_view("b"),
                           .present = DKT_PARAM_BIT(SUBJECT) | DKT_PARAM_BIT(PAYLOAD)};
    dkt_request_t first = asked;
    uint32_t created = bench_send(bench, &first);
    bench_settle(bench);
    bench_expect(bench, created, "created");
    dkt_request_t type = asked, subject = asked, payload = asked, none = asked, same = asked;
    type.ticket_type = bench_view("silver");
    subject.subject = bench_view("x");
    payload.payload = bench_view("x");
    none.present = DKT_PARAM_BIT(PAYLOAD);
    bench_expect_error(bench, bench_send(bench, &type), DKT_CONFLICT, "ticket_type");
    bench_expect_error(bench, bench_send(bench, &subject), DKT_CONFLICT, "subject");
    bench_expect_error(bench, bench_send(bench, &payload), DKT_CONFLICT, "payload");
    bench_expect_error(bench, bench_send(bench, &none), DKT_CONFLICT, "subject");
    same.present |= DKT_PARAM_BIT(BUDGET_MS) | DKT_PARAM_BIT(TRACEPARENT);
    same.budget_ms = 777;
    same.traceparent = bench_view("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    assert_true(bench_answer(bench, bench_send(bench, &same))->replayed);
    bench_destroy(&bench);
}

static void test_tenant_knows_a_request_id_before_it_judges_the_class(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    dkt_uuid_t id = bench_new_id(bench, 1);
    uint32_t one = bench_create(bench, "gold", id);
    bench_settle(bench);
    bench_expect(bench, one, "created");
    bench_step(bench, &(dkt_tenant_event_t){.kind = DKT_TEV_SUSPEND, .flag = true});
    assert_true(bench_answer(bench, bench_create(bench, "gold", id))->replayed);
    bench_expect_error(bench, bench_create(bench, "brass", id), DKT_CONFLICT, "ticket_type");
    bench_expect_error(bench, bench_create(bench, "brass", bench_new_id(bench, 2)),
                       DKT_INVALID_ARGUMENT, "ticket_type");
    bench_expect_error(bench, bench_create(bench, "gold", bench_new_id(bench, 3)), DKT_SUSPENDED,
                       NULL);
    bench_destroy(&bench);
}

/* Found: a suspended tenant, or a wrong class, heard "taken" or "suspended" instead. */
static void test_tenant_checks_an_allocation_in_the_contracts_order(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    uint32_t held = bench_hold(bench, "gold");
    uint32_t ticket = bench_create(bench, "gold", bench_new_id(bench, 1));
    bench_settle(bench);
    char own[DKT_ID_CHARS_MAX + 1], derived[DKT_ID_CHARS_MAX + 1];
    const dkt_answer_t *answer = bench_answer(bench, held);
    snprintf(own, sizeof own, "%.*s", (int)answer->slot_id.len, (const char *)answer->slot_id.data);
    answer = bench_answer(bench, ticket);
    snprintf(derived, sizeof derived, "%.*s", (int)answer->slot_id.len,
             (const char *)answer->slot_id.data);
    bench_step(bench, &(dkt_tenant_event_t){.kind = DKT_TEV_SUSPEND, .flag = true});
    uint8_t n = 2;
    bench_expect_error(
        bench, bench_slot(bench, DKT_METHOD_ALLOCATE_SLOT, "silver", bench_new_id(bench, n++), own),
        DKT_INVALID_ARGUMENT, "ticket_type");
    bench_expect_error(
        bench,
        bench_slot(bench, DKT_METHOD_ALLOCATE_SLOT, "brass", bench_new_id(bench, n++), derived),
        DKT_INVALID_ARGUMENT, "ticket_type");
    bench_expect_error(
        bench,
        bench_slot(bench, DKT_METHOD_ALLOCATE_SLOT, "gold", bench_new_id(bench, n++), derived),
        DKT_SUSPENDED, NULL);
    bench_expect_error(
        bench, bench_slot(bench, DKT_METHOD_ALLOCATE_SLOT, "gold", bench_new_id(bench, n++), own),
        DKT_SUSPENDED, NULL);
    bench_step(bench, &(dkt_tenant_event_t){.kind = DKT_TEV_SUSPEND, .flag = false});
    bench_expect(
        bench,
        bench_slot(bench, DKT_METHOD_ALLOCATE_SLOT, "gold", bench_new_id(bench, n++), derived),
        "taken");
    uint32_t allocated =
        bench_slot(bench, DKT_METHOD_ALLOCATE_SLOT, "gold", bench_new_id(bench, n++), own);
    bench_settle(bench);
    bench_expect(bench, allocated, "created");
    uint32_t again =
        bench_slot(bench, DKT_METHOD_ALLOCATE_SLOT, "gold", bench_new_id(bench, n), own);
    bench_flush(bench);
    dkt_slot_ref_t slot;
    assert_true(dkt_slot_parse(&bench->ring, own, (uint32_t)strlen(own), &slot));
    dkt_ticket_row_t row = s_row(bench_number(bench, allocated), bench_old_id(9), DKT_TICKET_OPEN);
    row.hold_nonce = slot.nonce;
    bench_rows(bench, &row, 1, 0);
    bench_expect(bench, again, "taken");
    bench_destroy(&bench);
}

/* Found: the assert behind it ended the process. Retention takes request ids away after 48 h, and
 * this memory may be older. */
static void test_tenant_survives_a_request_id_that_retention_took_away(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    dkt_uuid_t id = bench_new_id(bench, 1);
    uint32_t created = bench_create(bench, "gold", id);
    bench_settle(bench);
    uint32_t cancelled =
        bench_ticket(bench, DKT_METHOD_CANCEL_TICKET, bench_number(bench, created));
    bench_settle(bench);
    bench_expect(bench, cancelled, "cancelled");
    uint32_t again = bench_create(bench, "gold", id);
    bench_flush(bench);
    bench_rows(bench, NULL, 0, 0);
    bench_settle(bench);
    assert_int_not_equal(bench_number(bench, again), bench_number(bench, created));
    bench_destroy(&bench);
}

static void test_tenant_remembers_a_refusal_for_a_minute(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    for (uint8_t i = 0; i < 119; i++) {
        (void)bench_create(bench, "gold", bench_new_id(bench, i));
    }
    bench_settle(bench);
    dkt_uuid_t id = bench_new_id(bench, 200);
    uint32_t refused = bench_create(bench, "gold", id);
    bench_expect(bench, refused, "refused");
    assert_true(bench_answer(bench, refused)->earliest_ms > bench->db_ms);
    assert_true(bench_answer(bench, bench_create(bench, "gold", id))->replayed);
    bench_expect_error(bench, bench_create(bench, "silver", id), DKT_CONFLICT, "ticket_type");
    for (int i = 0; i < 65; i++) {
        bench_advance(bench, 1000);
        bench_settle(bench);
    }
    uint32_t later = bench_create(bench, "gold", id);
    bench_settle(bench);
    bench_expect(bench, later, "created");
    bench_destroy(&bench);
}

static void test_tenant_drops_what_is_past_its_budget_before_it_is_sent(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    uint32_t one = bench_create(bench, "gold", bench_new_id(bench, 1));
    bench_flush(bench);
    uint32_t looked = bench_create(bench, "gold", bench_old_id(2));
    bench_flush(bench);
    bench->mono_ms += bench->budget_ms;
    bench->db_ms += bench->budget_ms;
    bench_ok(bench); /* late, but it was sent: the real answer */
    bench_expect(bench, one, "created");
    bench_ok(bench);
    bench_expect_error(bench, looked, DKT_DEADLINE_EXCEEDED, NULL);
    assert_int_equal(bench->batch_count, 0);
    bench_destroy(&bench);
}

static void test_tenant_grants_a_lost_hold_but_not_a_released_one(void **state)
{
    (void)state;
    bench_t *bench = bench_new(1);
    bench->taken.epoch = 5;
    bench_activate(bench);
    dkt_slot_ref_t lost = {.client = bench->client,
                           .minute = (uint32_t)(BENCH_DB_MS / 60000) + 3,
                           .expires_ms = BENCH_DB_MS + 60000,
                           .nonce = UINT64_C(4) << 32 | 1};
    dkt_id_text_t text;
    dkt_slot_text(&bench->ring, &lost, &text);
    uint32_t held = bench_hold(bench, "gold");
    char own[DKT_ID_CHARS_MAX + 1];
    const dkt_answer_t *answer = bench_answer(bench, held);
    snprintf(own, sizeof own, "%.*s", (int)answer->slot_id.len, (const char *)answer->slot_id.data);
    uint32_t released = bench_slot(bench, DKT_METHOD_RELEASE_SLOT, "gold", bench_old_id(0), own);
    bench_expect(bench, released, "released");
    uint32_t gone =
        bench_slot(bench, DKT_METHOD_ALLOCATE_SLOT, "gold", bench_new_id(bench, 1), own);
    uint32_t granted =
        bench_slot(bench, DKT_METHOD_ALLOCATE_SLOT, "gold", bench_new_id(bench, 2), text.text);
    bench_settle(bench);
    bench_expect(bench, gone, "released");
    bench_expect(bench, granted, "created");
    assert_int_equal(bench_answer(bench, granted)->slot_start_ms, (int64_t)lost.minute * 60000);
    bench_destroy(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tenant_answers_created_only_after_the_commit),
        cmocka_unit_test(test_tenant_sends_the_next_group_only_after_the_first),
        cmocka_unit_test(test_tenant_looks_up_an_old_request_id_first),
        cmocka_unit_test(test_tenant_replays_what_the_database_knows),
        cmocka_unit_test(test_tenant_names_the_field_of_a_conflict),
        cmocka_unit_test(test_tenant_knows_a_request_id_before_it_judges_the_class),
        cmocka_unit_test(test_tenant_checks_an_allocation_in_the_contracts_order),
        cmocka_unit_test(test_tenant_survives_a_request_id_that_retention_took_away),
        cmocka_unit_test(test_tenant_remembers_a_refusal_for_a_minute),
        cmocka_unit_test(test_tenant_drops_what_is_past_its_budget_before_it_is_sent),
        cmocka_unit_test(test_tenant_grants_a_lost_hold_but_not_a_released_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
