/* SPDX-License-Identifier: Apache-2.0
 *
 * The libpq store against a real PostgreSQL: every kind of batch, every way to fail.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "lib/edge/pgstore.h"
#include "support_pg.h"

#define S_INCARNATION  "00112233445566778899aabbccddeeff"
#define S_RESULTS_MAX  16
#define S_TICKETS_MAX  16
#define S_WAIT_MS      10000
#define S_POLL_MS      50
#define S_BYTES_MAX    64
#define S_BASE_MINUTE  INT64_C(40000000) /* 2046: far from every clock */
#define S_BASE_MS      (S_BASE_MINUTE * DKT_MINUTE_MS)
#define S_GOLD_MINUTES 120

/* What a callback saw, copied: views die with it. */
typedef struct {
    dkt_store_result_t result;
    dkt_ticket_row_t tickets[S_TICKETS_MAX];
    char class_name[S_TICKETS_MAX][S_BYTES_MAX];
    char subject[S_TICKETS_MAX][S_BYTES_MAX];
    bool has_payload[S_TICKETS_MAX];
    char handoff[S_BYTES_MAX];
    char sub_domain[S_BYTES_MAX], password[S_BYTES_MAX];
    dkt_settings_t settings;
    dkt_revoked_t revoked;
} s_seen_t;

typedef struct {
    dkt_pgstore_t *store;
    uint32_t count;
    s_seen_t seen[S_RESULTS_MAX];
    dkt_pgstore_state_t state;
    char text[DKT_ERR_TEXT_BYTES_MAX];
    uint64_t epoch;
} s_client_t;

static support_pg_t *s_pg;
static PGconn *s_admin; /* superuser in the tenant's database */
static s_client_t s_one, s_two;

static int64_t s_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void s_copy_text(char *out, dkt_view_t view)
{
    assert_true(view.len < S_BYTES_MAX);
    memcpy(out, view.data ? (const char *)view.data : "", view.len);
    out[view.len] = '\0';
}

static void s_on_result(void *ctx, const dkt_store_result_t *result)
{
    s_client_t *client = ctx;
    assert_true(client->count < S_RESULTS_MAX);
    s_seen_t *seen = &client->seen[client->count++];
    memset(seen, 0, sizeof *seen);
    seen->result = *result;
    assert_true(result->ticket_count <= S_TICKETS_MAX);
    for (uint32_t i = 0; i < result->ticket_count; i++) {
        seen->tickets[i] = result->tickets[i];
        s_copy_text(seen->class_name[i], result->tickets[i].class_name);
        s_copy_text(seen->subject[i], result->tickets[i].subject);
        seen->has_payload[i] = result->tickets[i].payload.data != NULL;
    }
    s_copy_text(seen->handoff, result->handoff);
    s_copy_text(seen->sub_domain, result->sub_domain);
    s_copy_text(seen->password, result->account_password);
    if (result->settings) {
        seen->settings = *result->settings;
    }
    if (result->revoked_count > 0) {
        seen->revoked = result->revoked[0];
    }
}

static void s_on_state(void *ctx, dkt_pgstore_state_t state, const char *text)
{
    s_client_t *client = ctx;
    client->state = state;
    snprintf(client->text, sizeof client->text, "%s", text);
}

/* One turn of the loop that owns the store; `skew_ms` pretends that much more time has passed. */
static void s_turn(s_client_t *client, int64_t skew_ms)
{
    struct pollfd socket = {.fd = dkt_pgstore_fd(client->store),
                            .events = dkt_pgstore_events(client->store)};
    int64_t due_ms = dkt_pgstore_due_mono_ms(client->store);
    int64_t left_ms = due_ms == INT64_MAX ? S_POLL_MS : due_ms - s_now_ms() - skew_ms;
    left_ms = left_ms < 0 ? 0 : left_ms > S_POLL_MS ? S_POLL_MS : left_ms;
    poll(&socket, 1, (int)left_ms);
    dkt_pgstore_ready(client->store, s_now_ms() + skew_ms);
}

static void s_wait_state(s_client_t *client, dkt_pgstore_state_t state)
{
    int64_t end_ms = s_now_ms() + S_WAIT_MS;
    while (client->state != state) {
        assert_true(s_now_ms() < end_ms);
        s_turn(client, 0);
    }
}

/* Waits for results until there are `count` in all; returns the last of them. */
static const s_seen_t *s_wait(s_client_t *client, uint32_t count)
{
    int64_t end_ms = s_now_ms() + S_WAIT_MS;
    while (client->count < count) {
        assert_true(s_now_ms() < end_ms);
        s_turn(client, 0);
    }
    assert_int_equal(client->count, count);
    return &client->seen[count - 1];
}

static const s_seen_t *s_run(s_client_t *client, const dkt_batch_t *batch)
{
    client->count = 0;
    dkt_pgstore_submit(client->store, batch);
    return s_wait(client, 1);
}

static void s_open_as(s_client_t *client, const char *dbname, const char *incarnation)
{
    char port[8];
    snprintf(port, sizeof port, "%u", support_pg_port(s_pg));
    dkt_pgstore_config_t config = {.host = "127.0.0.1",
                                   .port = port,
                                   .dbname = dbname,
                                   .user = "t_one",
                                   .node = "a-node-with-a-rather-long-name",
                                   .incarnation = incarnation};
    memset(client, 0, sizeof *client);
    client->store = dkt_pgstore_new(&config, s_on_result, s_on_state, client);
    assert_non_null(client->store);
}

static void s_open(s_client_t *client)
{
    s_open_as(client, "t_one", S_INCARNATION);
    s_wait_state(client, DKT_PGSTORE_READY);
}

/* The lock, which the last test's backend may still be giving back. */
static void s_lock(s_client_t *client)
{
    int64_t end_ms = s_now_ms() + S_WAIT_MS;
    const dkt_batch_t batch = {.kind = DKT_BATCH_LOCK};
    while (!s_run(client, &batch)->result.locked) {
        assert_int_equal(client->seen[0].result.outcome, DKT_STORE_OK);
        assert_true(s_now_ms() < end_ms);
    }
}

static dkt_store_result_t s_take(s_client_t *client, uint64_t epoch, uint64_t version)
{
    dkt_batch_t batch = {.kind = DKT_BATCH_TAKE, .table = {epoch, version}};
    dkt_store_result_t result = s_run(client, &batch)->result;
    client->epoch = result.epoch;
    return result;
}

/* Connected, locked, taken. */
static void s_own(s_client_t *client)
{
    s_open(client);
    s_lock(client);
    assert_true(s_take(client, 1, 1).taken);
}

static dkt_batch_t s_commit(const s_client_t *client)
{
    return (dkt_batch_t){
        .kind = DKT_BATCH_COMMIT, .epoch = client->epoch, .commit = {.not_after_ms = INT64_MAX}};
}

static dkt_ticket_row_t s_ticket(uint64_t number, uint32_t minute, uint16_t lane)
{
    dkt_ticket_row_t row = {
        .number = number,
        .class_name = {(const uint8_t *)"gold", 4},
        .place = {.minute = (uint32_t)(S_BASE_MINUTE + minute), .lane = lane},
        .has_lane = true,
        .created_ms = S_BASE_MS + (int64_t)number,
        .deadline_ms = S_BASE_MS + (int64_t)number + S_GOLD_MINUTES * DKT_MINUTE_MS,
        .state = DKT_TICKET_OPEN,
        .subject = {(const uint8_t *)"a subject", 9},
    };
    memcpy(row.request_id.bytes, &number, sizeof number);
    return row;
}

/* Commits plain open tickets 1 .. count, one a minute on lane 0. */
static void s_insert(s_client_t *client, uint32_t count)
{
    dkt_ticket_row_t rows[S_TICKETS_MAX];
    assert_true(count <= S_TICKETS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        rows[i] = s_ticket(i + 1, i + 1, 0);
    }
    dkt_batch_t batch = s_commit(client);
    batch.commit.insert_count = count;
    batch.commit.inserts = rows;
    assert_int_equal(s_run(client, &batch)->result.outcome, DKT_STORE_OK);
}

static int64_t s_int(const char *sql)
{
    return support_pg_int(s_admin, sql);
}

/* The outcome of the last batch; and after a failure the store must be over. */
static void s_failed(s_client_t *client, dkt_store_outcome_t outcome, const char *sqlstate)
{
    const dkt_store_result_t *result = &client->seen[client->count - 1].result;
    assert_int_equal(result->outcome, outcome);
    assert_string_equal(result->sqlstate, sqlstate);
    assert_true(result->text[0] != '\0');
    s_wait_state(client, DKT_PGSTORE_LOST);
    assert_int_equal(dkt_pgstore_fd(client->store), -1);
}

/* -- fixtures -------------------------------------------------------------------------------------
 */

static int s_start(void **state)
{
    (void)state;
    s_pg = support_pg_start(false);
    support_pg_tenant(s_pg, "t_one");
    s_admin = support_pg_connect(s_pg, "t_one", NULL);
    return 0;
}

static int s_stop(void **state)
{
    (void)state;
    PQfinish(s_admin);
    support_pg_stop(&s_pg);
    return 0;
}

static int s_clean(void **state)
{
    (void)state;
    dkt_pgstore_destroy(&s_one.store);
    dkt_pgstore_destroy(&s_two.store);
    support_pg_exec(s_admin,
                    "truncate tickets, journal, handoff, account, revoked_tokens;"
                    "update owner set epoch = 0, table_epoch = 0, table_version = 0, node = '',"
                    "incarnation = '';"
                    "select docket_settings(1::int2, true, array['gold', 'silver', 'bronze'], "
                    "array[120, 240, 480]::int2[], array[1000, 1000, 1000]::int2[])");
    return 0;
}

/* -- tests: what works ----------------------------------------------------------------------------
 */

static void test_pgstore_commit_writes_every_kind_in_one_group(void **state)
{
    (void)state;
    s_own(&s_one);
    s_insert(&s_one, 6);
    /* 1 cancelled and 7 inserted in its place, 2 and 3 swapped, 4 resolved before its minute, 5
     * dispatched, 6 moved past its deadline and flagged, 8 born and cancelled in the group */
    dkt_free_row_t frees[] = {
        {.number = 1, .state = DKT_TICKET_CANCELLED, .at_ms = S_BASE_MS + 11},
        {.number = 4, .state = DKT_TICKET_RESOLVED, .at_ms = S_BASE_MS + 12, .breached = true}};
    dkt_place_row_t places[] = {
        {2, {S_BASE_MINUTE + 3, 0}}, {3, {S_BASE_MINUTE + 2, 0}}, {6, {S_BASE_MINUTE + 200, 4}}};
    dkt_ticket_row_t inserts[] = {s_ticket(7, 1, 0), s_ticket(8, 1, 0)};
    static const uint8_t payload[] = {0, 1, 255};
    inserts[0].hold_nonce = 77;
    inserts[0].payload = (dkt_view_t){payload, sizeof payload};
    inserts[1].state = DKT_TICKET_CANCELLED;
    inserts[1].cancelled_ms = S_BASE_MS + 13;
    inserts[1].has_lane = false;
    dkt_update_row_t updates[] = {
        {.number = 5, .state = DKT_TICKET_DISPATCHED, .dispatched_ms = S_BASE_MS + 14},
        {.number = 6, .state = DKT_TICKET_OPEN, .at_risk = true}};
    dkt_batch_t batch = s_commit(&s_one);
    batch.commit.free_count = 2;
    batch.commit.frees = frees;
    batch.commit.park_count = 3;
    batch.commit.places = places;
    batch.commit.insert_count = 2;
    batch.commit.inserts = inserts;
    batch.commit.update_count = 2;
    batch.commit.updates = updates;
    batch.commit.journal_seq = 9;
    batch.commit.journal_at_ms = S_BASE_MS + 15;
    batch.commit.journal_events = (dkt_view_t){payload, sizeof payload};
    const s_seen_t *seen = s_run(&s_one, &batch);
    assert_int_equal(seen->result.outcome, DKT_STORE_OK);
    assert_true(seen->result.db_ms > S_BASE_MS / 2);
    char all[1024];
    support_pg_text(
        s_admin,
        "select string_agg(concat_ws(',', id, state, (extract(epoch from slot_start) / "
        "60)::bigint - 40000000, coalesce(lane, -1), breached::int + 2 * at_risk::int, "
        "(extract(epoch from coalesce(dispatched_at, resolved_at, cancelled_at)) * 1000)::bigint "
        "- 2400000000000, hold_nonce, encode(payload, 'hex')), ' ' order by id) from tickets",
        all, sizeof all);
    assert_string_equal(all, "1,3,1,-1,0,11 2,0,3,0,0 3,0,2,0,0 4,2,4,-1,1,12 5,1,5,0,0,14 "
                             "6,0,200,4,2 7,0,1,0,0,77,0001ff 8,3,1,-1,0,13");
    support_pg_text(s_admin,
                    "select concat_ws(',', seq, epoch, docket_ms(at) - 2400000000000, "
                    "encode(events, 'hex')) from journal",
                    all, sizeof all);
    assert_string_equal(all, "9,1,15,0001ff");
}

static void test_pgstore_take_continues_the_numbers(void **state)
{
    (void)state;
    s_own(&s_one);
    assert_int_equal(s_one.epoch, 1);
    s_insert(&s_one, 3);
    dkt_batch_t batch = s_commit(&s_one);
    batch.commit.journal_seq = 5;
    batch.commit.journal_at_ms = S_BASE_MS;
    batch.commit.handoff = (dkt_view_t){(const uint8_t *)"holds", 5};
    assert_int_equal(s_run(&s_one, &batch)->result.outcome, DKT_STORE_OK);
    dkt_pgstore_destroy(&s_one.store);

    s_open(&s_two);
    s_lock(&s_two);
    dkt_store_result_t result = s_take(&s_two, 1, 1);
    assert_true(result.taken);
    assert_int_equal(result.epoch, 2);
    assert_int_equal(result.last_journal_seq, 5);
    assert_int_equal(result.last_journal_ms, S_BASE_MS);
    assert_int_equal(result.last_ticket, 3);
    assert_string_equal(s_two.seen[0].handoff, "holds");
    /* the handoff is for the next epoch only */
    assert_true(s_take(&s_two, 1, 1).taken);
    assert_null(s_two.seen[0].result.handoff.data);
    char owner[128];
    support_pg_text(s_admin,
                    "select concat_ws(',', table_epoch, table_version, incarnation) from owner",
                    owner, sizeof owner);
    assert_string_equal(owner, "1,1," S_INCARNATION);
}

static void test_pgstore_take_refuses_an_older_table(void **state)
{
    (void)state;
    static const struct {
        uint64_t epoch, version;
        bool taken;
    } rows[] = {{2, 5, true}, {2, 4, false}, {1, 9, false}, {2, 5, true}, {3, 1, true}};
    s_open(&s_one);
    s_lock(&s_one);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        dkt_store_result_t result = s_take(&s_one, rows[i].epoch, rows[i].version);
        assert_int_equal(result.outcome, DKT_STORE_OK);
        assert_int_equal(result.taken, rows[i].taken);
    }
    assert_int_equal(s_int("select epoch from owner"), 3);
}

static void test_pgstore_load_returns_what_lives(void **state)
{
    (void)state;
    s_own(&s_one);
    support_pg_exec(s_admin, "insert into account (name, email, sub_domain, password, "
                             "tokens_valid_from) values ('Acme', 'a@b', 'acme', 'argon', "
                             "'2020-01-01Z');"
                             "insert into revoked_tokens values (decode(repeat('ab', 16), 'hex'), "
                             "'2040-01-01Z'), (decode(repeat('cd', 16), 'hex'), '2020-01-01Z')");
    s_insert(&s_one, 5);
    support_pg_exec(s_admin,
                    "update tickets set state = 1, dispatched_at = now() where id in (1, 2);"
                    "update tickets set breached = true where id in (2, 3);"
                    "update tickets set state = 3, cancelled_at = now(), lane = null where id = 5");
    const dkt_batch_t batch = {.kind = DKT_BATCH_LOAD};
    const s_seen_t *seen = s_run(&s_one, &batch);
    assert_int_equal(seen->result.outcome, DKT_STORE_OK);
    assert_int_equal(seen->result.ticket_count, 3); /* 1 dispatched, 3 and 4 open */
    uint64_t sum = 0;
    for (uint32_t i = 0; i < 3; i++) {
        const dkt_ticket_row_t *row = &seen->tickets[i];
        sum += row->number;
        assert_int_equal(row->place.minute, S_BASE_MINUTE + (int64_t)row->number);
        assert_true(row->has_lane);
        assert_int_equal(row->deadline_ms - row->created_ms, S_GOLD_MINUTES * DKT_MINUTE_MS);
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
    s_own(&s_one);
    support_pg_exec(s_admin, "insert into account (name, email, sub_domain, password) values "
                             "('Acme', 'a@b', 'acme', 'old')");
    dkt_settings_t settings = {.resolvers = 4096,
                               .rebooking = false,
                               .class_count = 2,
                               .classes = {{"gold", 2, 1000}, {"slow", 1440, 0}}};
    uint8_t token_id[DKT_TOKEN_ID_BYTES] = {1};
    dkt_batch_t batch = s_commit(&s_one);
    batch.commit.settings = &settings;
    batch.commit.account_password = "new";
    batch.commit.tokens_valid_from_ms = S_BASE_MS;
    batch.commit.revoke_token_id = token_id;
    batch.commit.revoke_expires_ms = S_BASE_MS + 7;
    assert_int_equal(s_run(&s_one, &batch)->result.outcome, DKT_STORE_OK);
    assert_int_equal(s_run(&s_one, &batch)->result.outcome, DKT_STORE_OK); /* revoked already */
    const dkt_batch_t load = {.kind = DKT_BATCH_LOAD};
    const s_seen_t *seen = s_run(&s_one, &load);
    assert_memory_equal(&seen->settings, &settings, sizeof settings);
    assert_string_equal(seen->password, "new");
    assert_int_equal(seen->result.tokens_valid_from_ms, S_BASE_MS);
    assert_int_equal(seen->revoked.expires_ms, S_BASE_MS + 7);
}

static void test_pgstore_read_finds_by_every_key(void **state)
{
    (void)state;
    s_own(&s_one);
    s_insert(&s_one, 4);
    support_pg_exec(s_admin, "update tickets set hold_nonce = 33, payload = 'x' where id = 3");
    dkt_uuid_t ids[] = {s_ticket(1, 0, 0).request_id, s_ticket(99, 0, 0).request_id};
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
    const s_seen_t *seen = s_run(&s_one, &batch);
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
    s_own(&s_one);
    s_insert(&s_one, 9);
    support_pg_exec(s_admin, "update tickets set state = 1, dispatched_at = now(), breached = "
                             "id % 4 = 0 where id % 2 = 0");
    dkt_batch_t batch = {.kind = DKT_BATCH_READ,
                         .read = {.list_limit = 3, .list_state = DKT_TICKET_DISPATCHED}};
    static const struct {
        uint64_t after;
        uint32_t count;
        uint64_t numbers[3];
    } rows[] = {{0, 3, {2, 4, 6}}, {6, 1, {8}}, {8, 0, {0}}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        batch.read.list_after = rows[i].after;
        const s_seen_t *seen = s_run(&s_one, &batch);
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
    s_own(&s_one);
    dkt_ticket_row_t row[3] = {s_ticket(1, 1, 0), s_ticket(2, 2, 0), s_ticket(3, 3, 0)};
    s_one.count = 0;
    for (uint32_t i = 0; i < 3; i++) {
        uint64_t number = i + 1;
        dkt_batch_t batch = s_commit(&s_one);
        batch.commit.insert_count = 1;
        batch.commit.inserts = &row[i];
        dkt_pgstore_submit(s_one.store, &batch);
        dkt_batch_t read = {.kind = DKT_BATCH_READ,
                            .read = {.number_count = 1, .numbers = &number}};
        dkt_pgstore_submit(s_one.store, &read);
        number = 999; /* borrowed for the call only */
    }
    s_wait(&s_one, 6);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(s_one.seen[2 * i].result.kind, DKT_BATCH_COMMIT);
        assert_int_equal(s_one.seen[2 * i].result.outcome, DKT_STORE_OK);
        assert_int_equal(s_one.seen[2 * i + 1].result.kind, DKT_BATCH_READ);
        assert_int_equal(s_one.seen[2 * i + 1].result.ticket_count, 1);
        assert_int_equal(s_one.seen[2 * i + 1].tickets[0].number, i + 1);
    }
}

/* A group larger than the socket's buffers: flushing in pieces. */
static void test_pgstore_commit_of_a_large_group(void **state)
{
    (void)state;
    enum { S_MANY = 1024, S_PAYLOAD = 8192 };
    s_own(&s_one);
    dkt_ticket_row_t *rows = calloc(S_MANY, sizeof *rows);
    uint8_t *payload = calloc(1, S_PAYLOAD);
    for (uint32_t i = 0; i < S_MANY; i++) {
        rows[i] = s_ticket(i + 1, 1, (uint16_t)i);
        rows[i].payload = (dkt_view_t){payload, S_PAYLOAD};
    }
    dkt_batch_t batch = s_commit(&s_one);
    batch.commit.insert_count = S_MANY;
    batch.commit.inserts = rows;
    assert_int_equal(s_run(&s_one, &batch)->result.outcome, DKT_STORE_OK);
    assert_int_equal(s_int("select sum(octet_length(payload)) from tickets"), S_MANY * S_PAYLOAD);
    free(payload);
    free(rows);
}

/* -- tests: what fails ----------------------------------------------------------------------------
 */

static void test_pgstore_guard_refuses_a_stale_epoch(void **state)
{
    (void)state;
    s_own(&s_one);
    dkt_batch_t guard = {.kind = DKT_BATCH_GUARD, .epoch = s_one.epoch};
    assert_int_equal(s_run(&s_one, &guard)->result.outcome, DKT_STORE_OK);
    assert_true(s_one.seen[0].result.db_ms > INT64_C(1600000000000));
    support_pg_exec(s_admin, "update owner set epoch = epoch + 1");
    dkt_ticket_row_t row = s_ticket(1, 1, 0);
    dkt_batch_t batch = s_commit(&s_one);
    batch.commit.insert_count = 1;
    batch.commit.inserts = &row;
    s_run(&s_one, &batch);
    s_failed(&s_one, DKT_STORE_REFUSED, "DK001");
    assert_int_equal(s_int("select count(*) from tickets"), 0);
}

static void test_pgstore_guard_refuses_a_group_that_is_late(void **state)
{
    (void)state;
    s_own(&s_one);
    dkt_ticket_row_t row = s_ticket(1, 1, 0);
    dkt_batch_t batch = s_commit(&s_one);
    batch.commit.not_after_ms = s_int("select docket_ms(now())") + 60000;
    batch.commit.insert_count = 1;
    batch.commit.inserts = &row;
    assert_int_equal(s_run(&s_one, &batch)->result.outcome, DKT_STORE_OK);
    batch.commit.not_after_ms -= 60001;
    row = s_ticket(2, 2, 0);
    s_run(&s_one, &batch);
    s_failed(&s_one, DKT_STORE_REFUSED, "DK002");
    assert_int_equal(s_int("select count(*) from tickets"), 1);
}

/* Commits of which one step cannot work: nothing of them may be written. */
typedef struct {
    const char *what, *sqlstate;
    dkt_free_row_t free;
    dkt_place_row_t place;
    dkt_ticket_row_t insert;
    dkt_update_row_t update;
} s_bad_t;

static void s_refuse(const s_bad_t *bad)
{
    s_own(&s_one);
    s_insert(&s_one, 3);
    support_pg_exec(s_admin, "update tickets set state = 2, resolved_at = now() where id = 3");
    dkt_ticket_row_t inserts[] = {s_ticket(20, 20, 0), bad->insert};
    dkt_batch_t batch = s_commit(&s_one);
    batch.commit.free_count = bad->free.number ? 1 : 0;
    batch.commit.frees = &bad->free;
    batch.commit.park_count = bad->place.number ? 1 : 0;
    batch.commit.places = &bad->place;
    batch.commit.insert_count = bad->insert.number ? 2 : 1;
    batch.commit.inserts = inserts;
    batch.commit.update_count = bad->update.number ? 1 : 0;
    batch.commit.updates = &bad->update;
    batch.commit.journal_seq = 1;
    s_run(&s_one, &batch);
    if (s_one.seen[0].result.outcome != DKT_STORE_REFUSED) {
        fprintf(stderr, "%s was not refused\n", bad->what);
    }
    s_failed(&s_one, DKT_STORE_REFUSED, bad->sqlstate);
    assert_int_equal(s_int("select count(*) * 10 + sum(state) from tickets"), 32);
    assert_int_equal(s_int("select count(*) from journal"), 0);
}

static void test_pgstore_commit_refuses_and_writes_nothing(void **state)
{
    dkt_ticket_row_t same_request = s_ticket(21, 21, 0), late = s_ticket(21, 120, 0);
    same_request.request_id = s_ticket(1, 0, 0).request_id;
    const s_bad_t rows[] = {
        {.what = "a lane twice", .sqlstate = "23505", .insert = s_ticket(21, 2, 0)},
        {.what = "a request twice", .sqlstate = "23505", .insert = same_request},
        {.what = "a late slot", .sqlstate = "23514", .insert = late},
        {.what = "a cancel of nothing",
         .sqlstate = "DK003",
         .free = {.number = 90, .state = DKT_TICKET_CANCELLED, .at_ms = 1}},
        {.what = "a cancel of what is resolved",
         .sqlstate = "DK003",
         .free = {.number = 3, .state = DKT_TICKET_CANCELLED, .at_ms = 1}},
        {.what = "a move of nothing", .sqlstate = "DK003", .place = {90, {S_BASE_MINUTE, 0}}},
        {.what = "a move onto another", .sqlstate = "23505", .place = {1, {S_BASE_MINUTE + 2, 0}}},
        {.what = "an update of nothing",
         .sqlstate = "DK003",
         .update = {.number = 90, .state = DKT_TICKET_RESOLVED, .resolved_ms = 1}},
        {.what = "a way back",
         .sqlstate = "DK003",
         .update = {.number = 3, .state = DKT_TICKET_OPEN}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s_refuse(&rows[i]);
        s_clean(state);
    }
}

/* An error of the commit itself, after the last statement. */
static void test_pgstore_commit_refused_at_its_end(void **state)
{
    (void)state;
    support_pg_exec(s_admin,
                    "create function late() returns trigger language plpgsql as $$ begin raise "
                    "exception 'too late' using errcode = 'XX123'; end $$;"
                    "create constraint trigger late after insert on journal deferrable initially "
                    "deferred for each row execute function late()");
    s_own(&s_one);
    dkt_batch_t batch = s_commit(&s_one);
    batch.commit.journal_seq = 1;
    s_run(&s_one, &batch);
    support_pg_exec(s_admin, "drop trigger late on journal; drop function late");
    s_failed(&s_one, DKT_STORE_REFUSED, "XX123");
    assert_int_equal(s_int("select count(*) from journal"), 0);
}

/* After a failure: what writes and was sent is unknown, the rest is lost, each exactly once. */
static void test_pgstore_failure_settles_all_open_batches(void **state)
{
    (void)state;
    s_own(&s_one);
    support_pg_exec(s_admin, "begin; select 1 from owner for update"); /* the guard waits */
    dkt_ticket_row_t row = s_ticket(1, 1, 0);
    dkt_batch_t batch = s_commit(&s_one);
    batch.commit.insert_count = 1;
    batch.commit.inserts = &row;
    dkt_batch_t read = {.kind = DKT_BATCH_READ, .read = {.list_limit = 1, .list_state = -1}};
    s_one.count = 0;
    dkt_pgstore_submit(s_one.store, &batch);
    dkt_pgstore_submit(s_one.store, &read);
    dkt_pgstore_submit(s_one.store, &batch);
    PGconn *killer = support_pg_connect(s_pg, "t_one", NULL);
    support_pg_int(killer, "select count(pg_terminate_backend(pid)) from pg_stat_activity where "
                           "application_name like 'docket/%'");
    PQfinish(killer);
    s_wait(&s_one, 3);
    support_pg_exec(s_admin, "rollback");
    assert_int_equal(s_one.seen[0].result.outcome, DKT_STORE_UNKNOWN);
    assert_string_equal(s_one.seen[0].result.sqlstate, "57P01");
    assert_int_equal(s_one.seen[1].result.outcome, DKT_STORE_LOST);
    assert_int_equal(s_one.seen[2].result.outcome, DKT_STORE_LOST);
    s_wait_state(&s_one, DKT_PGSTORE_LOST);
    /* a batch that comes later is answered too */
    s_run(&s_one, &batch);
    s_failed(&s_one, DKT_STORE_LOST, "57P01");
    assert_int_equal(s_int("select count(*) from tickets"), 0);
}

static void test_pgstore_commit_without_answer_is_unknown(void **state)
{
    (void)state;
    s_own(&s_one);
    support_pg_exec(s_admin, "begin; select 1 from owner for update");
    dkt_batch_t batch = s_commit(&s_one);
    s_one.count = 0;
    dkt_pgstore_submit(s_one.store, &batch);
    s_turn(&s_one, DKT_COMMIT_TIMEOUT_MS - 100);
    assert_int_equal(s_one.count, 0);
    s_turn(&s_one, DKT_COMMIT_TIMEOUT_MS + 1);
    support_pg_exec(s_admin, "rollback");
    assert_int_equal(s_one.count, 1);
    s_failed(&s_one, DKT_STORE_UNKNOWN, "");
}

/* A commit wait that is cancelled from outside succeeds, with a WARNING only. */
static void test_pgstore_commit_with_a_warning_is_unknown(void **state)
{
    (void)state;
    s_own(&s_one);
    support_pg_exec(s_admin, "alter system set synchronous_standby_names = 'nobody'");
    support_pg_exec(s_admin, "select pg_reload_conf()");
    dkt_batch_t batch = s_commit(&s_one);
    int64_t end_ms = s_now_ms() + S_WAIT_MS;
    uint32_t commits = 0;
    do { /* the setting takes effect some time after the reload */
        batch.commit.journal_seq = ++commits;
        s_one.count = 0;
        dkt_pgstore_submit(s_one.store, &batch);
        while (s_one.count == 0) {
            assert_true(s_now_ms() < end_ms);
            support_pg_int(s_admin, "select count(pg_cancel_backend(pid)) from pg_stat_activity "
                                    "where wait_event = 'SyncRep'");
            s_turn(&s_one, 0);
        }
    } while (s_one.seen[0].result.outcome == DKT_STORE_OK);
    support_pg_exec(s_admin, "alter system reset synchronous_standby_names");
    support_pg_exec(s_admin, "select pg_reload_conf()");
    assert_int_equal(s_one.seen[0].result.outcome, DKT_STORE_UNKNOWN);
    assert_non_null(strstr(s_one.seen[0].result.text, "canceling wait for synchronous"));
    s_wait_state(&s_one, DKT_PGSTORE_LOST);
    assert_int_equal(s_int("select count(*) from journal"), commits); /* it did happen, here */
}

static void test_pgstore_lock_is_one_owners_until_evicted(void **state)
{
    (void)state;
    s_own(&s_one);
    s_open_as(&s_two, "t_one", "ffeeddccbbaa99887766554433221100");
    s_wait_state(&s_two, DKT_PGSTORE_READY);
    const dkt_batch_t lock = {.kind = DKT_BATCH_LOCK};
    const s_seen_t *seen = s_run(&s_two, &lock);
    assert_int_equal(seen->result.outcome, DKT_STORE_OK);
    assert_false(seen->result.locked);
    assert_string_equal(seen->result.text, "docket/a-node-with-a-rather-lo/" S_INCARNATION);
    char holder[DKT_ERR_TEXT_BYTES_MAX];
    snprintf(holder, sizeof holder, "%s", seen->result.text);
    /* not by another name, not a younger one */
    dkt_pgstore_evict(s_two.store, "docket/somebody/else");
    assert_false(s_run(&s_two, &lock)->result.locked);
    dkt_pgstore_evict(s_one.store, holder);
    dkt_batch_t guard = {.kind = DKT_BATCH_GUARD, .epoch = s_one.epoch};
    assert_int_equal(s_run(&s_one, &guard)->result.outcome, DKT_STORE_OK);
    dkt_pgstore_evict(s_two.store, holder);
    s_lock(&s_two);
    s_wait_state(&s_one, DKT_PGSTORE_LOST);
    assert_non_null(strstr(s_one.text, "terminating connection"));
    assert_true(s_take(&s_two, 1, 1).taken);
}

static void test_pgstore_connect_fails_with_a_reason(void **state)
{
    (void)state;
    s_open_as(&s_one, "t_none", S_INCARNATION);
    const dkt_batch_t lock = {.kind = DKT_BATCH_LOCK};
    dkt_pgstore_submit(s_one.store, &lock);
    s_wait(&s_one, 1);
    s_failed(&s_one, DKT_STORE_LOST, "");
    assert_non_null(strstr(s_one.text, "t_none"));
    dkt_pgstore_destroy(&s_one.store);
    /* a server that never answers */
    s_open_as(&s_one, "t_one", S_INCARNATION);
    dkt_pgstore_ready(s_one.store, s_now_ms() + DKT_STORE_CONNECT_MS + 1);
    assert_int_equal(s_one.state, DKT_PGSTORE_LOST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_pgstore_commit_writes_every_kind_in_one_group, s_clean),
        cmocka_unit_test_teardown(test_pgstore_take_continues_the_numbers, s_clean),
        cmocka_unit_test_teardown(test_pgstore_take_refuses_an_older_table, s_clean),
        cmocka_unit_test_teardown(test_pgstore_load_returns_what_lives, s_clean),
        cmocka_unit_test_teardown(test_pgstore_commit_changes_settings_and_account, s_clean),
        cmocka_unit_test_teardown(test_pgstore_read_finds_by_every_key, s_clean),
        cmocka_unit_test_teardown(test_pgstore_read_pages_a_list_by_state, s_clean),
        cmocka_unit_test_teardown(test_pgstore_runs_queued_batches_in_order, s_clean),
        cmocka_unit_test_teardown(test_pgstore_commit_of_a_large_group, s_clean),
        cmocka_unit_test_teardown(test_pgstore_guard_refuses_a_stale_epoch, s_clean),
        cmocka_unit_test_teardown(test_pgstore_guard_refuses_a_group_that_is_late, s_clean),
        cmocka_unit_test_teardown(test_pgstore_commit_refuses_and_writes_nothing, s_clean),
        cmocka_unit_test_teardown(test_pgstore_commit_refused_at_its_end, s_clean),
        cmocka_unit_test_teardown(test_pgstore_failure_settles_all_open_batches, s_clean),
        cmocka_unit_test_teardown(test_pgstore_commit_without_answer_is_unknown, s_clean),
        cmocka_unit_test_teardown(test_pgstore_commit_with_a_warning_is_unknown, s_clean),
        cmocka_unit_test_teardown(test_pgstore_lock_is_one_owners_until_evicted, s_clean),
        cmocka_unit_test_teardown(test_pgstore_connect_fails_with_a_reason, s_clean),
    };
    return cmocka_run_group_tests(tests, s_start, s_stop);
}
