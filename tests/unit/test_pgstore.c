/* SPDX-License-Identifier: Apache-2.0
 *
 * The libpq store against a real PostgreSQL: every kind of batch.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_pgstore.h"

static void test_pgstore_commit_writes_every_kind_in_one_group(void **state)
{
    (void)state;
    st_own(&st_one);
    st_insert(&st_one, 6);
    /* 1 cancelled and 7 inserted in its place, 2 and 3 swapped, 4 resolved before its minute, 5
     * dispatched, 6 moved past its deadline and flagged, 8 born and cancelled in the group */
    dkt_free_row_t frees[] = {
        {.number = 1, .state = DKT_TICKET_CANCELLED, .at_ms = ST_BASE_MS + 11},
        {.number = 4, .state = DKT_TICKET_RESOLVED, .at_ms = ST_BASE_MS + 12, .breached = true}};
    dkt_place_row_t places[] = {
        {2, {ST_BASE_MINUTE + 3, 0}}, {3, {ST_BASE_MINUTE + 2, 0}}, {6, {ST_BASE_MINUTE + 200, 4}}};
    dkt_ticket_row_t inserts[] = {st_ticket(7, 1, 0), st_ticket(8, 1, 0)};
    static const uint8_t payload[] = {0, 1, 255};
    inserts[0].hold_nonce = 77;
    inserts[0].payload = (dkt_view_t){payload, sizeof payload};
    inserts[1].state = DKT_TICKET_CANCELLED;
    inserts[1].cancelled_ms = ST_BASE_MS + 13;
    inserts[1].has_lane = false;
    dkt_update_row_t updates[] = {
        {.number = 5, .state = DKT_TICKET_DISPATCHED, .dispatched_ms = ST_BASE_MS + 14},
        {.number = 6, .state = DKT_TICKET_OPEN, .at_risk = true}};
    dkt_batch_t batch = st_commit(&st_one);
    batch.commit.free_count = 2;
    batch.commit.frees = frees;
    batch.commit.park_count = 3;
    batch.commit.places = places;
    batch.commit.insert_count = 2;
    batch.commit.inserts = inserts;
    batch.commit.update_count = 2;
    batch.commit.updates = updates;
    batch.commit.journal_seq = 9;
    batch.commit.journal_at_ms = ST_BASE_MS + 15;
    batch.commit.journal_events = (dkt_view_t){payload, sizeof payload};
    const st_seen_t *seen = st_run(&st_one, &batch);
    assert_int_equal(seen->result.outcome, DKT_STORE_OK);
    assert_true(seen->result.db_ms > ST_BASE_MS / 2);
    char all[1024];
    support_pg_text(
        st_admin,
        "select string_agg(concat_ws(',', id, state, (extract(epoch from slot_start) / "
        "60)::bigint - 40000000, coalesce(lane, -1), breached::int + 2 * at_risk::int, "
        "(extract(epoch from coalesce(dispatched_at, resolved_at, cancelled_at)) * 1000)::bigint "
        "- 2400000000000, hold_nonce, encode(payload, 'hex')), ' ' order by id) from tickets",
        all, sizeof all);
    assert_string_equal(all, "1,3,1,-1,0,11 2,0,3,0,0 3,0,2,0,0 4,2,4,-1,1,12 5,1,5,0,0,14 "
                             "6,0,200,4,2 7,0,1,0,0,77,0001ff 8,3,1,-1,0,13");
    support_pg_text(st_admin,
                    "select concat_ws(',', seq, epoch, docket_ms(at) - 2400000000000, "
                    "encode(events, 'hex')) from journal",
                    all, sizeof all);
    assert_string_equal(all, "9,1,15,0001ff");
}

static void test_pgstore_take_continues_the_numbers(void **state)
{
    (void)state;
    st_own(&st_one);
    assert_int_equal(st_one.epoch, 1);
    st_insert(&st_one, 3);
    dkt_batch_t batch = st_commit(&st_one);
    batch.commit.journal_seq = 5;
    batch.commit.journal_at_ms = ST_BASE_MS;
    batch.commit.handoff = (dkt_view_t){(const uint8_t *)"holds", 5};
    assert_int_equal(st_run(&st_one, &batch)->result.outcome, DKT_STORE_OK);
    dkt_pgstore_destroy(&st_one.store);

    st_open(&st_two);
    st_lock(&st_two);
    dkt_store_result_t result = st_take(&st_two, 1, 1);
    assert_true(result.taken);
    assert_int_equal(result.epoch, 2);
    assert_int_equal(result.last_journal_seq, 5);
    assert_int_equal(result.last_journal_ms, ST_BASE_MS);
    assert_int_equal(result.last_ticket, 3);
    assert_string_equal(st_two.seen[0].handoff, "holds");
    /* the handoff is for the next epoch only */
    assert_true(st_take(&st_two, 1, 1).taken);
    assert_null(st_two.seen[0].result.handoff.data);
    char owner[128];
    support_pg_text(st_admin,
                    "select concat_ws(',', table_epoch, table_version, incarnation) from owner",
                    owner, sizeof owner);
    assert_string_equal(owner, "1,1," ST_INCARNATION);
}

static void test_pgstore_take_refuses_an_older_table(void **state)
{
    (void)state;
    static const struct {
        uint64_t epoch, version;
        bool taken;
    } rows[] = {{2, 5, true}, {2, 4, false}, {1, 9, false}, {2, 5, true}, {3, 1, true}};
    st_open(&st_one);
    st_lock(&st_one);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        dkt_store_result_t result = st_take(&st_one, rows[i].epoch, rows[i].version);
        assert_int_equal(result.outcome, DKT_STORE_OK);
        assert_int_equal(result.taken, rows[i].taken);
    }
    assert_int_equal(st_int("select epoch from owner"), 3);
}

static void test_pgstore_load_returns_what_lives(void **state)
{
    (void)state;
    st_own(&st_one);
    support_pg_exec(st_admin, "insert into account (name, email, sub_domain, password, "
                              "tokens_valid_from) values ('Acme', 'a@b', 'acme', 'argon', "
                              "'2020-01-01Z');"
                              "insert into revoked_tokens values (decode(repeat('ab', 16), 'hex'), "
                              "'2040-01-01Z'), (decode(repeat('cd', 16), 'hex'), '2020-01-01Z')");
    st_insert(&st_one, 5);
    support_pg_exec(st_admin,
                    "update tickets set state = 1, dispatched_at = now() where id in (1, 2);"
                    "update tickets set breached = true where id in (2, 3);"
                    "update tickets set state = 3, cancelled_at = now(), lane = null where id = 5");
    const dkt_batch_t batch = {.kind = DKT_BATCH_LOAD};
    const st_seen_t *seen = st_run(&st_one, &batch);
    assert_int_equal(seen->result.outcome, DKT_STORE_OK);
    assert_int_equal(seen->result.ticket_count, 3); /* 1 dispatched, 3 and 4 open */
    uint64_t sum = 0;
    for (uint32_t i = 0; i < 3; i++) {
        const dkt_ticket_row_t *row = &seen->tickets[i];
        sum += row->number;
        assert_int_equal(row->place.minute, ST_BASE_MINUTE + (int64_t)row->number);
        assert_true(row->has_lane);
        assert_int_equal(row->deadline_ms - row->created_ms, ST_GOLD_MINUTES * DKT_MINUTE_MS);
        assert_string_equal(seen->class_name[i], "gold");
        assert_int_equal(row->state, row->number == 1 ? DKT_TICKET_DISPATCHED : DKT_TICKET_OPEN);
        assert_int_equal(row->breached, row->number == 3);
    }
    assert_int_equal(sum, 8);
    assert_string_equal(seen->sub_domain, "acme");
    assert_string_equal(seen->password, "argon");
    assert_int_equal(seen->result.tokens_valid_from_ms, INT64_C(1577836800000));
    assert_int_equal(seen->result.revoked_count, 1);
    assert_int_equal(seen->revoked.token_id[15], 0xab);
    assert_int_equal(seen->revoked.expires_ms, INT64_C(2208988800000));
    assert_int_equal(seen->settings.resolvers, 1);
    assert_true(seen->settings.rebooking);
    assert_int_equal(seen->settings.class_count, 3);
    assert_string_equal(seen->settings.classes[0].name, "gold");
    assert_int_equal(seen->settings.classes[2].level_minutes, 480);
    assert_int_equal(seen->settings.classes[2].limit_permille, 1000);
}

static void test_pgstore_commit_changes_settings_and_account(void **state)
{
    (void)state;
    st_own(&st_one);
    support_pg_exec(st_admin, "insert into account (name, email, sub_domain, password) values "
                              "('Acme', 'a@b', 'acme', 'old')");
    dkt_settings_t settings = {.resolvers = 4096,
                               .rebooking = false,
                               .class_count = 2,
                               .classes = {{"gold", 2, 1000}, {"slow", 1440, 0}}};
    uint8_t token_id[DKT_TOKEN_ID_BYTES] = {1};
    dkt_batch_t batch = st_commit(&st_one);
    batch.commit.settings = &settings;
    batch.commit.account_password = "new";
    batch.commit.tokens_valid_from_ms = ST_BASE_MS;
    batch.commit.revoke_token_id = token_id;
    batch.commit.revoke_expires_ms = ST_BASE_MS + 7;
    assert_int_equal(st_run(&st_one, &batch)->result.outcome, DKT_STORE_OK);
    assert_int_equal(st_run(&st_one, &batch)->result.outcome, DKT_STORE_OK); /* revoked already */
    const dkt_batch_t load = {.kind = DKT_BATCH_LOAD};
    const st_seen_t *seen = st_run(&st_one, &load);
    assert_memory_equal(&seen->settings, &settings, sizeof settings);
    assert_string_equal(seen->password, "new");
    assert_int_equal(seen->result.tokens_valid_from_ms, ST_BASE_MS);
    assert_int_equal(seen->revoked.expires_ms, ST_BASE_MS + 7);
}

static void test_pgstore_read_finds_by_every_key(void **state)
{
    (void)state;
    st_own(&st_one);
    st_insert(&st_one, 4);
    support_pg_exec(st_admin, "update tickets set hold_nonce = 33, payload = 'x' where id = 3");
    dkt_uuid_t ids[] = {st_ticket(1, 0, 0).request_id, st_ticket(99, 0, 0).request_id};
    uint64_t numbers[] = {2, 98}, nonces[] = {33, 97};
    dkt_batch_t batch = {.kind = DKT_BATCH_READ,
                         .read = {.request_id_count = 2,
                                  .request_ids = ids,
                                  .number_count = 2,
                                  .numbers = numbers,
                                  .nonce_count = 2,
                                  .nonces = nonces,
                                  .list_limit = 10,
                                  .list_state = -1,
                                  .list_after = 2}};
    const st_seen_t *seen = st_run(&st_one, &batch);
    assert_int_equal(seen->result.outcome, DKT_STORE_OK);
    assert_int_equal(seen->result.ticket_count, 5);
    assert_int_equal(seen->result.listed_count, 2);
    static const uint64_t expected[] = {1, 2, 3, 3, 4};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(seen->tickets[i].number, expected[i]);
        assert_string_equal(seen->subject[i], "a subject");
        assert_int_equal(seen->has_payload[i], i == 2); /* a list has none */
    }
    assert_memory_equal(&seen->tickets[0].request_id, &ids[0], sizeof ids[0]);
    assert_int_equal(seen->tickets[2].hold_nonce, 33);
}

static void test_pgstore_read_pages_a_list_by_state(void **state)
{
    (void)state;
    st_own(&st_one);
    st_insert(&st_one, 9);
    support_pg_exec(st_admin, "update tickets set state = 1, dispatched_at = now(), breached = "
                              "id % 4 = 0 where id % 2 = 0");
    dkt_batch_t batch = {.kind = DKT_BATCH_READ,
                         .read = {.list_limit = 3, .list_state = DKT_TICKET_DISPATCHED}};
    static const struct {
        dkt_ticket_state_t state;
        uint64_t after;
        uint32_t count;
        uint64_t numbers[3];
    } rows[] = {{DKT_TICKET_DISPATCHED, 0, 3, {2, 4, 6}}, {DKT_TICKET_DISPATCHED, 6, 1, {8}},
                {DKT_TICKET_DISPATCHED, 8, 0, {0}},       {DKT_TICKET_OPEN, 0, 3, {1, 3, 5}},
                {DKT_TICKET_OPEN, 5, 2, {7, 9}},          {DKT_TICKET_OPEN, 9, 0, {0}},
                {DKT_TICKET_RESOLVED, 0, 0, {0}},         {DKT_TICKET_CANCELLED, 0, 0, {0}}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        batch.read.list_state = (int)rows[i].state;
        batch.read.list_after = rows[i].after;
        const st_seen_t *seen = st_run(&st_one, &batch);
        assert_int_equal(seen->result.listed_count, rows[i].count);
        assert_int_equal(seen->result.ticket_count, rows[i].count);
        for (uint32_t k = 0; k < rows[i].count; k++) {
            assert_int_equal(seen->tickets[k].number, rows[i].numbers[k]);
        }
    }
}

static void test_pgstore_runs_queued_batches_in_order(void **state)
{
    (void)state;
    st_own(&st_one);
    dkt_ticket_row_t row[3] = {st_ticket(1, 1, 0), st_ticket(2, 2, 0), st_ticket(3, 3, 0)};
    st_one.count = 0;
    for (uint32_t i = 0; i < 3; i++) {
        uint64_t number = i + 1;
        dkt_batch_t batch = st_commit(&st_one);
        batch.commit.insert_count = 1;
        batch.commit.inserts = &row[i];
        dkt_pgstore_submit(st_one.store, &batch);
        dkt_batch_t read = {.kind = DKT_BATCH_READ,
                            .read = {.number_count = 1, .numbers = &number}};
        dkt_pgstore_submit(st_one.store, &read);
        number = 999; /* borrowed for the call only */
    }
    st_wait(&st_one, 6);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(st_one.seen[2 * i].result.kind, DKT_BATCH_COMMIT);
        assert_int_equal(st_one.seen[2 * i].result.outcome, DKT_STORE_OK);
        assert_int_equal(st_one.seen[2 * i + 1].result.kind, DKT_BATCH_READ);
        assert_int_equal(st_one.seen[2 * i + 1].result.ticket_count, 1);
        assert_int_equal(st_one.seen[2 * i + 1].tickets[0].number, i + 1);
    }
}

/* A group larger than the socket's buffers: flushing in pieces. */
static void test_pgstore_commit_of_a_large_group(void **state)
{
    (void)state;
    enum { S_MANY = 1024, S_PAYLOAD = 8192 };
    st_own(&st_one);
    dkt_ticket_row_t *rows = calloc(S_MANY, sizeof *rows);
    uint8_t *payload = calloc(1, S_PAYLOAD);
    for (uint32_t i = 0; i < S_MANY; i++) {
        rows[i] = st_ticket(i + 1, 1, (uint16_t)i);
        rows[i].payload = (dkt_view_t){payload, S_PAYLOAD};
    }
    dkt_batch_t batch = st_commit(&st_one);
    batch.commit.insert_count = S_MANY;
    batch.commit.inserts = rows;
    assert_int_equal(st_run(&st_one, &batch)->result.outcome, DKT_STORE_OK);
    assert_int_equal(st_int("select sum(octet_length(payload)) from tickets"), S_MANY * S_PAYLOAD);
    free(payload);
    free(rows);
}

static void s_journal(uint64_t seq)
{
    dkt_batch_t batch = st_commit(&st_one);
    batch.commit.journal_seq = seq;
    batch.commit.journal_at_ms = ST_BASE_MS;
    batch.commit.journal_events = (dkt_view_t){(const uint8_t *)"\x90", 1};
    assert_int_equal(st_run(&st_one, &batch)->result.outcome, DKT_STORE_OK);
}

static const dkt_store_result_t *s_relay_read(dkt_relay_read_t read)
{
    const dkt_batch_t batch = {.kind = DKT_BATCH_RELAY_READ, .relay_read = read};
    const dkt_store_result_t *result = &st_run(&st_one, &batch)->result;
    assert_int_equal(result->outcome, DKT_STORE_OK);
    return result;
}

static void test_pgstore_relay_reads_after_its_mark(void **state)
{
    (void)state;
    st_own(&st_one);
    for (uint64_t seq = 1; seq <= 3; seq++) {
        s_journal(seq);
    }
    const dkt_relay_read_t kept = {.from_kept = true, .limit = 2};
    const dkt_store_result_t *result = s_relay_read(kept);
    assert_int_equal(result->relay.stream_created_ms, 0);
    assert_int_equal(result->journal_count, 2);
    dkt_batch_t mark = {
        .kind = DKT_BATCH_RELAY_MARK, .epoch = st_one.epoch, .relay_mark = {2, ST_BASE_MS + 7, 99}};
    assert_int_equal(st_run(&st_one, &mark)->result.outcome, DKT_STORE_OK);
    result = s_relay_read(kept);
    assert_int_equal(result->relay.acked_seq, 2);
    assert_int_equal(result->relay.stream_created_ms, ST_BASE_MS + 7);
    assert_int_equal(result->relay.stream_seq, 99);
    assert_int_equal(result->journal_count, 1);
    assert_int_equal(s_relay_read((dkt_relay_read_t){.after_seq = 0, .limit = 64})->journal_count,
                     3);
    mark.epoch--; /* an owner that was replaced */
    mark.relay_mark.acked_seq = 3;
    assert_int_equal(st_run(&st_one, &mark)->result.outcome, DKT_STORE_OK);
    assert_int_equal(st_int("select acked_seq from relay"), 2);
    support_pg_exec(st_admin, "update relay set acked_seq = 0, stream_created = null, "
                              "stream_seq = 0");
}

/* Dispatches ticket `number`; what that cost the backend. */
static double s_dispatch_us(uint64_t number)
{
    dkt_update_row_t update = {
        .number = number, .state = DKT_TICKET_DISPATCHED, .dispatched_ms = ST_BASE_MS};
    dkt_batch_t batch = st_commit(&st_one);
    batch.commit.update_count = 1;
    batch.commit.updates = &update;
    double begin_us = st_backend_us();
    assert_int_equal(st_run(&st_one, &batch)->result.outcome, DKT_STORE_OK);
    return st_backend_us() - begin_us;
}

/* It changes nothing, is guarded, and the first dispatch after it costs less than without. */
static void test_pgstore_rehearse_changes_nothing(void **state)
{
    (void)state;
    st_own(&st_one);
    st_insert(&st_one, 2);
    double cold_us = s_dispatch_us(1);
    dkt_pgstore_destroy(&st_one.store);

    st_own(&st_one);
    dkt_ticket_row_t row = st_ticket(3, 3, 0); /* what every group needs is warm either way */
    dkt_batch_t batch = st_commit(&st_one);
    batch.commit.insert_count = 1;
    batch.commit.inserts = &row;
    assert_int_equal(st_run(&st_one, &batch)->result.outcome, DKT_STORE_OK);
    dkt_batch_t rehearse = {.kind = DKT_BATCH_REHEARSE, .epoch = st_one.epoch};
    const dkt_store_result_t *result = &st_run(&st_one, &rehearse)->result;
    assert_int_equal(result->outcome, DKT_STORE_OK);
    assert_true(result->db_ms > 0);
    assert_int_equal(st_int("select count(*) from tickets where state = 0"), 2);
    double warm_us = s_dispatch_us(2);
    printf("the first dispatch: %.0f us of the backend cold, %.0f rehearsed\n", cold_us, warm_us);
    if (cold_us > 0) {
        assert_true(warm_us < cold_us);
    }
    rehearse.epoch--;
    (void)st_run(&st_one, &rehearse);
    st_failed(&st_one, DKT_STORE_REFUSED, "DK001");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_pgstore_commit_writes_every_kind_in_one_group, st_clean),
        cmocka_unit_test_teardown(test_pgstore_take_continues_the_numbers, st_clean),
        cmocka_unit_test_teardown(test_pgstore_take_refuses_an_older_table, st_clean),
        cmocka_unit_test_teardown(test_pgstore_load_returns_what_lives, st_clean),
        cmocka_unit_test_teardown(test_pgstore_commit_changes_settings_and_account, st_clean),
        cmocka_unit_test_teardown(test_pgstore_read_finds_by_every_key, st_clean),
        cmocka_unit_test_teardown(test_pgstore_read_pages_a_list_by_state, st_clean),
        cmocka_unit_test_teardown(test_pgstore_runs_queued_batches_in_order, st_clean),
        cmocka_unit_test_teardown(test_pgstore_commit_of_a_large_group, st_clean),
        cmocka_unit_test_teardown(test_pgstore_relay_reads_after_its_mark, st_clean),
        cmocka_unit_test_teardown(test_pgstore_rehearse_changes_nothing, st_clean),
    };
    return cmocka_run_group_tests(tests, st_start, st_stop);
}
