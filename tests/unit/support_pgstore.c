/* SPDX-License-Identifier: Apache-2.0 */
#include "support_pgstore.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define S_POLL_MS 50

support_pg_t *st_pg;
PGconn *st_admin;
st_client_t st_one, st_two;

int64_t st_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void s_copy_text(char *out, dkt_view_t view)
{
    assert_true(view.len < ST_BYTES_MAX);
    memcpy(out, view.data ? (const char *)view.data : "", view.len);
    out[view.len] = '\0';
}

static void s_on_result(void *ctx, const dkt_store_result_t *result)
{
    st_client_t *client = ctx;
    assert_true(client->count < ST_RESULTS_MAX);
    st_seen_t *seen = &client->seen[client->count++];
    memset(seen, 0, sizeof *seen);
    seen->result = *result;
    assert_true(result->ticket_count <= ST_TICKETS_MAX);
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
    st_client_t *client = ctx;
    client->state = state;
    snprintf(client->text, sizeof client->text, "%s", text);
}

void st_turn(st_client_t *client, int64_t skew_ms)
{
    struct pollfd socket = {.fd = dkt_pgstore_fd(client->store),
                            .events = dkt_pgstore_events(client->store)};
    int64_t due_ms = dkt_pgstore_due_mono_ms(client->store);
    int64_t left_ms = due_ms == INT64_MAX ? S_POLL_MS : due_ms - st_now_ms() - skew_ms;
    left_ms = left_ms < 0 ? 0 : left_ms > S_POLL_MS ? S_POLL_MS : left_ms;
    /* no more calls than an actor would make: a store that needs one it did not ask for stalls */
    if (poll(&socket, 1, (int)left_ms) > 0 || st_now_ms() + skew_ms >= due_ms) {
        dkt_pgstore_ready(client->store, st_now_ms() + skew_ms);
    }
}

void st_wait_state(st_client_t *client, dkt_pgstore_state_t state)
{
    int64_t end_ms = st_now_ms() + ST_WAIT_MS;
    while (client->state != state) {
        assert_true(st_now_ms() < end_ms);
        st_turn(client, 0);
    }
}

const st_seen_t *st_wait(st_client_t *client, uint32_t count)
{
    int64_t end_ms = st_now_ms() + ST_WAIT_MS;
    while (client->count < count) {
        assert_true(st_now_ms() < end_ms);
        st_turn(client, 0);
    }
    assert_int_equal(client->count, count);
    return &client->seen[count - 1];
}

const st_seen_t *st_run(st_client_t *client, const dkt_batch_t *batch)
{
    client->count = 0;
    dkt_pgstore_submit(client->store, batch);
    return st_wait(client, 1);
}

void st_open_as(st_client_t *client, const char *dbname, const char *incarnation)
{
    char port[8];
    snprintf(port, sizeof port, "%u", support_pg_port(st_pg));
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

void st_open(st_client_t *client)
{
    st_open_as(client, "t_one", ST_INCARNATION);
    st_wait_state(client, DKT_PGSTORE_READY);
}

void st_lock(st_client_t *client)
{
    int64_t end_ms = st_now_ms() + ST_WAIT_MS;
    const dkt_batch_t batch = {.kind = DKT_BATCH_LOCK};
    while (!st_run(client, &batch)->result.locked) {
        assert_int_equal(client->seen[0].result.outcome, DKT_STORE_OK);
        assert_true(st_now_ms() < end_ms);
    }
}

dkt_store_result_t st_take(st_client_t *client, uint64_t epoch, uint64_t version)
{
    dkt_batch_t batch = {.kind = DKT_BATCH_TAKE, .table = {epoch, version}};
    dkt_store_result_t result = st_run(client, &batch)->result;
    client->epoch = result.epoch;
    return result;
}

void st_own(st_client_t *client)
{
    st_open(client);
    st_lock(client);
    assert_true(st_take(client, 1, 1).taken);
}

dkt_batch_t st_commit(const st_client_t *client)
{
    return (dkt_batch_t){
        .kind = DKT_BATCH_COMMIT, .epoch = client->epoch, .commit = {.not_after_ms = INT64_MAX}};
}

dkt_ticket_row_t st_ticket(uint64_t number, uint32_t minute, uint16_t lane)
{
    dkt_ticket_row_t row = {
        .number = number,
        .class_name = {(const uint8_t *)"gold", 4},
        .place = {.minute = (uint32_t)(ST_BASE_MINUTE + minute), .lane = lane},
        .has_lane = true,
        .created_ms = ST_BASE_MS + (int64_t)number,
        .deadline_ms = ST_BASE_MS + (int64_t)number + ST_GOLD_MINUTES * DKT_MINUTE_MS,
        .state = DKT_TICKET_OPEN,
        .subject = {(const uint8_t *)"a subject", 9},
    };
    memcpy(row.request_id.bytes, &number, sizeof number);
    return row;
}

void st_insert(st_client_t *client, uint32_t count)
{
    dkt_ticket_row_t rows[ST_TICKETS_MAX];
    assert_true(count <= ST_TICKETS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        rows[i] = st_ticket(i + 1, i + 1, 0);
    }
    dkt_batch_t batch = st_commit(client);
    batch.commit.insert_count = count;
    batch.commit.inserts = rows;
    assert_int_equal(st_run(client, &batch)->result.outcome, DKT_STORE_OK);
}

int64_t st_int(const char *sql)
{
    return support_pg_int(st_admin, sql);
}

void st_failed(st_client_t *client, dkt_store_outcome_t outcome, const char *sqlstate)
{
    const dkt_store_result_t *result = &client->seen[client->count - 1].result;
    assert_int_equal(result->outcome, outcome);
    assert_string_equal(result->sqlstate, sqlstate);
    assert_true(result->text[0] != '\0');
    st_wait_state(client, DKT_PGSTORE_LOST);
    assert_int_equal(dkt_pgstore_fd(client->store), -1);
}

/* -- fixtures -------------------------------------------------------------------------------------
 */

static void s_start(bool durable)
{
    st_pg = support_pg_start(durable);
    support_pg_tenant(st_pg, "t_one");
    st_admin = support_pg_connect(st_pg, "t_one", NULL);
}

int st_start(void **state)
{
    (void)state;
    s_start(false);
    return 0;
}

int st_start_durable(void **state)
{
    (void)state;
    s_start(true);
    return 0;
}

int st_stop(void **state)
{
    (void)state;
    PQfinish(st_admin);
    support_pg_stop(&st_pg);
    return 0;
}

int st_clean(void **state)
{
    (void)state;
    dkt_pgstore_destroy(&st_one.store);
    dkt_pgstore_destroy(&st_two.store);
    support_pg_exec(st_admin,
                    "truncate tickets, journal, handoff, account, revoked_tokens;"
                    "update owner set epoch = 0, table_epoch = 0, table_version = 0, node = '',"
                    "incarnation = '';"
                    "update served set until = '-infinity';"
                    "select docket_settings(1::int2, true, array['gold', 'silver', 'bronze'], "
                    "array[120, 240, 480]::int2[], array[1000, 1000, 1000]::int2[])");
    return 0;
}

double st_backend_us(void)
{
    char path[64], text[64];
    snprintf(path, sizeof path, "/proc/%d/schedstat",
             (int)st_int("select pid from pg_stat_activity where application_name like "
                         "'docket/%'"));
    FILE *file = fopen(path, "r");
    if (!file) {
        return 0; /* a kernel without it */
    }
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    return strtod(text, NULL) / 1e3;
}
