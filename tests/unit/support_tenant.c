/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/support_tenant.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <msgpack.h>

#define FAR_MS 3600000

/* -- the port -- */

static void s_submit(void *ctx, const dkt_batch_t *batch)
{
    bench_t *bench = ctx;
    assert_true(bench->batch_count < BENCH_BATCHES);
    bench->batches[bench->batch_count++] = *batch;
}

static bench_work_t *s_leave(bench_t *bench, dkt_work_t *work, bench_fate_t fate)
{
    bench_work_t *slot = &bench->works[work->seq];
    assert_int_equal(slot->fate, BENCH_INSIDE);
    slot->fate = fate;
    free(work);
    return slot;
}

static void s_answer(void *ctx, dkt_work_t *work, const uint8_t *bytes, size_t len)
{
    bench_t *bench = ctx;
    uint32_t msgid = (uint32_t)work->seq;
    bench_work_t *slot = s_leave(bench, work, BENCH_ANSWERED);
    slot->frame = test_malloc(len);
    memcpy(slot->frame, bytes, len);
    dkt_err_t err;
    assert_int_equal(dkt_answer_decode(slot->frame, len, &slot->answer, &err), DKT_OK);
    assert_int_equal(slot->answer.msgid, msgid);
}

static void s_give_back(void *ctx, dkt_work_t *work)
{
    s_leave(ctx, work, BENCH_GIVEN_BACK);
}

static bool s_hash(void *ctx, const dkt_hash_job_t *job)
{
    bench_t *bench = ctx;
    if (bench->hash_full || bench->job_count == BENCH_JOBS) {
        return false;
    }
    bench->jobs[bench->job_count++] = *job;
    return true;
}

static void s_random(void *ctx, void *bytes, size_t len)
{
    (void)ctx;
    memset(bytes, 0x5a, len);
}

static void s_changed(void *ctx, const dkt_settings_t *settings)
{
    bench_t *bench = ctx;
    bench->changed_count++;
    if (settings) {
        bench->settings = *settings;
    }
}

static void s_migrated(void *ctx, const dkt_migrated_t *migrated)
{
    bench_t *bench = ctx;
    bench->migrated = *migrated;
    bench->migrated.text = NULL; /* it is borrowed */
    bench->migrated_count++;
}

static void s_log(void *ctx, dkt_log_level_t level, const char *text)
{
    bench_t *bench = ctx;
    (void)text;
    bench->error_count += level == DKT_LOG_ERROR;
}

/* -- life -- */

static bench_t *s_new(uint16_t resolvers, const dkt_age_config_t *age, bool rehearses)
{
    bench_t *bench = test_calloc(1, sizeof *bench);
    bench->mono_ms = 1000;
    bench->db_ms = BENCH_DB_MS;
    bench->origin = DKT_AUDIENCE_INTERNAL;
    bench->budget_ms = DKT_BUDGET_DEFAULT_MS;
    bench->token_ttl_ms = FAR_MS;
    bench->ring.count = 1;
    memset(bench->ring.keys[0].key, 7, DKT_KEY_BYTES);
    const uint8_t random[7] = {1, 2, 3, 4, 5, 6, 7};
    bench->client = dkt_client_make(&bench->ring, random);
    dkt_settings_default(&bench->settings, resolvers);
    bench->taken.epoch = 1;
    bench->loaded.account_password = bench_view("hash-0");
    dkt_tenant_port_t port = {.ctx = bench,
                              .submit = s_submit,
                              .answer = s_answer,
                              .give_back = s_give_back,
                              .hash = s_hash,
                              .random = s_random,
                              .changed = s_changed,
                              .migrated = s_migrated,
                              .log = s_log};
    dkt_tenant_config_t config = {.client = bench->client,
                                  .id_keys = &bench->ring,
                                  .token_key = &bench->token_key,
                                  .sub_domain = "acme",
                                  .token_ttl_ms = 900000,
                                  .age = *age,
                                  .rehearses = rehearses};
    bench->core = dkt_tenant_new(&config, &port, bench->mono_ms);
    assert_non_null(bench->core);
    return bench;
}

bench_t *bench_new(uint16_t resolvers)
{
    const dkt_age_config_t never = {.round_ms = 0};
    return bench_new_aging(resolvers, &never);
}

bench_t *bench_new_aging(uint16_t resolvers, const dkt_age_config_t *age)
{
    return s_new(resolvers, age, false);
}

bench_t *bench_new_rehearsing(uint16_t resolvers)
{
    const dkt_age_config_t never = {.round_ms = 0};
    return s_new(resolvers, &never, true);
}

void bench_activate(bench_t *bench)
{
    bench_kind(bench, DKT_TEV_CONNECTED);
    while (bench->batch_count > 0 && dkt_tenant_state(bench->core) != DKT_TENANT_SERVING &&
           dkt_tenant_state(bench->core) != DKT_TENANT_ENDED) {
        bench_ok(bench);
    }
}

bench_t *bench_serving(uint16_t resolvers)
{
    bench_t *bench = bench_new(resolvers);
    bench_activate(bench);
    assert_int_equal(dkt_tenant_state(bench->core), DKT_TENANT_SERVING);
    return bench;
}

void bench_destroy(bench_t **bench_p)
{
    bench_t *bench = *bench_p;
    *bench_p = NULL;
    if (dkt_tenant_state(bench->core) != DKT_TENANT_ENDED) {
        bench_kind(bench, DKT_TEV_LOST);
    }
    dkt_tenant_destroy(&bench->core);
    for (uint32_t i = 1; i <= bench->msgid; i++) {
        assert_int_not_equal(bench->works[i].fate, BENCH_INSIDE);
        if (bench->works[i].frame) {
            test_free(bench->works[i].frame);
        }
    }
    test_free(bench);
}

void bench_step(bench_t *bench, const dkt_tenant_event_t *event)
{
    if (bench->before_step) {
        bench->before_step();
    }
    dkt_tenant_step(bench->core, bench->mono_ms, event);
    if (bench->after_step) {
        bench->after_step();
    }
    dkt_err_t err = {0};
    const dkt_ledger_t *ledger = dkt_tenant_ledger(bench->core);
    if (ledger && dkt_tenant_state(bench->core) == DKT_TENANT_SERVING &&
        !dkt_ledger_check(ledger, &err)) {
        fail_msg("%s", err.text);
    }
}

void bench_kind(bench_t *bench, dkt_tenant_event_kind_t kind)
{
    bench_step(bench, &(dkt_tenant_event_t){.kind = kind});
}

void bench_flush(bench_t *bench)
{
    bench_kind(bench, DKT_TEV_FLUSH);
}

void bench_advance(bench_t *bench, int64_t ms)
{
    bench->mono_ms += ms;
    bench->db_ms += ms;
    bench_kind(bench, DKT_TEV_TICK);
    bench_flush(bench);
}

/* -- requests -- */

dkt_view_t bench_view(const char *text)
{
    return (dkt_view_t){.data = (const uint8_t *)text, .len = (uint32_t)strlen(text)};
}

/* As a node loop does; every other one, so that the core has both kinds. */
static void s_keep(dkt_work_t *work)
{
    dkt_request_t request;
    dkt_err_t err;
    if (work->seq % 2 == 0 && dkt_request_decode(work->body, work->len, &request, &err) == DKT_OK) {
        dkt_work_keep(work, &request);
    }
}

uint32_t bench_send(bench_t *bench, dkt_request_t *request)
{
    const dkt_method_row_t *row = dkt_method_row(request->method);
    dkt_id_text_t client;
    dkt_client_text(&bench->client, &client);
    request->client_id = bench_view(client.text);
    request->present |= row->required | (row->request_id ? DKT_PARAM_BIT(REQUEST_ID) : 0);
    request->msgid = ++bench->msgid;
    assert_true(bench->msgid < BENCH_WORKS_MAX);
    dkt_work_t *work = calloc(1, sizeof *work + BENCH_FRAME_MAX);
    assert_non_null(work);
    dkt_w_t w = dkt_w_init(work->body, BENCH_FRAME_MAX);
    dkt_request_encode(&w, request);
    assert_false(w.failed);
    work->seq = request->msgid;
    work->len = (uint32_t)w.len;
    work->origin = bench->origin;
    work->method = (uint8_t)request->method;
    s_keep(work);
    work->deadline_mono_ms = bench->mono_ms + bench->budget_ms;
    work->suspect = bench->suspect;
    memcpy(work->token_id, bench->token_id, sizeof work->token_id);
    work->token_issued_ms = bench->token_issued_ms;
    work->token_expires_ms = bench->db_ms + bench->token_ttl_ms;
    bench_step(bench, &(dkt_tenant_event_t){.kind = DKT_TEV_REQUEST, .work = work});
    return request->msgid;
}

uint32_t bench_create(bench_t *bench, const char *type, dkt_uuid_t id)
{
    dkt_request_t request = {
        .method = DKT_METHOD_CREATE_TICKET, .ticket_type = bench_view(type), .request_id = id};
    return bench_send(bench, &request);
}

uint32_t bench_ticket(bench_t *bench, dkt_method_t method, uint64_t number)
{
    dkt_id_text_t ticket;
    dkt_ticket_text(&bench->ring, &bench->client, number, &ticket);
    dkt_request_t request = {.method = method, .ticket_id = bench_view(ticket.text)};
    return bench_send(bench, &request);
}

uint32_t bench_hold(bench_t *bench, const char *type)
{
    dkt_request_t request = {.method = DKT_METHOD_VALIDATE_ETA, .ticket_type = bench_view(type)};
    return bench_send(bench, &request);
}

uint32_t bench_slot(bench_t *bench, dkt_method_t method, const char *type, dkt_uuid_t id,
                    const char *slot_id)
{
    char text[DKT_ID_CHARS_MAX + 1];
    snprintf(text, sizeof text, "%s", slot_id);
    dkt_request_t request = {.method = method,
                             .ticket_type = bench_view(type),
                             .request_id = id,
                             .slot_id = bench_view(text)};
    return bench_send(bench, &request);
}

uint32_t bench_login(bench_t *bench, const char *password)
{
    dkt_request_t request = {.method = DKT_METHOD_LOGIN, .password = bench_view(password)};
    return bench_send(bench, &request);
}

uint32_t bench_change_password(bench_t *bench, const char *password, const char *new_password)
{
    dkt_request_t request = {.method = DKT_METHOD_CHANGE_PASSWORD,
                             .password = bench_view(password),
                             .new_password = bench_view(new_password)};
    return bench_send(bench, &request);
}

uint32_t bench_simple(bench_t *bench, dkt_method_t method)
{
    dkt_request_t request = {.method = method};
    return bench_send(bench, &request);
}

dkt_uuid_t bench_new_id(bench_t *bench, uint8_t n)
{
    uint8_t random[10] = {[9] = n};
    enum { PAST_SKEW_MS = 10001 };
    if (bench->db_ms < BENCH_DB_MS + PAST_SKEW_MS) {
        bench_advance(bench, BENCH_DB_MS + PAST_SKEW_MS - bench->db_ms);
        bench_settle(bench);
    }
    return dkt_uuid_v7(bench->db_ms, random);
}

dkt_uuid_t bench_old_id(uint8_t n)
{
    return (dkt_uuid_t){.bytes = {n, 1, 2, 3, 4, 5, 0x40}};
}

/* -- the database -- */

const dkt_batch_t *bench_batch(bench_t *bench, dkt_batch_kind_t kind)
{
    assert_true(bench->batch_count > 0);
    assert_int_equal(bench->batches[0].kind, kind);
    return &bench->batches[0];
}

static void s_deliver(bench_t *bench, dkt_store_result_t *result)
{
    assert_true(bench->batch_count > 0);
    result->kind = bench->batches[0].kind;
    memmove(bench->batches, bench->batches + 1, --bench->batch_count * sizeof bench->batches[0]);
    bench_step(bench, &(dkt_tenant_event_t){.kind = DKT_TEV_RESULT, .result = result});
    if (dkt_tenant_state(bench->core) != DKT_TENANT_ENDED) {
        bench_flush(bench);
    }
}

void bench_rows(bench_t *bench, const dkt_ticket_row_t *rows, uint32_t count, uint32_t listed)
{
    dkt_store_result_t result = {
        .outcome = DKT_STORE_OK, .tickets = rows, .ticket_count = count, .listed_count = listed};
    s_deliver(bench, &result);
}

void bench_aged(bench_t *bench, uint64_t count, uint64_t to, bool more, uint64_t unpublished)
{
    dkt_store_result_t result = {.outcome = DKT_STORE_OK,
                                 .db_ms = bench->db_ms,
                                 .aged_count = count,
                                 .aged_to = to,
                                 .aged_more = more,
                                 .aged_unpublished_count = unpublished};
    (void)bench_batch(bench, DKT_BATCH_AGE);
    s_deliver(bench, &result);
}

void bench_ok(bench_t *bench)
{
    dkt_store_result_t result = {.outcome = DKT_STORE_OK};
    assert_true(bench->batch_count > 0);
    switch (bench->batches[0].kind) {
    case DKT_BATCH_TAKE:
        result = bench->taken;
        result.taken = true;
        break;
    case DKT_BATCH_LOAD:
        result = bench->loaded;
        result.settings = &bench->settings;
        break;
    case DKT_BATCH_MIGRATE:
        result = bench->migrate;
        break;
    case DKT_BATCH_LOCK:
        result = bench->lock;
        break;
    case DKT_BATCH_GUARD:
    case DKT_BATCH_READ:
    case DKT_BATCH_COMMIT:
    case DKT_BATCH_AGE:
    case DKT_BATCH_REHEARSE:
    case DKT_BATCH_RELAY_READ:
    case DKT_BATCH_RELAY_MARK:
        break;
    }
    result.locked = true;
    result.db_ms = bench->batches[0].kind == DKT_BATCH_READ ? 0 : bench->db_ms;
    s_deliver(bench, &result);
}

void bench_fail(bench_t *bench, dkt_store_outcome_t outcome, const char *sqlstate)
{
    dkt_store_result_t result = {.outcome = outcome};
    snprintf(result.sqlstate, sizeof result.sqlstate, "%s", sqlstate);
    s_deliver(bench, &result);
}

void bench_settle(bench_t *bench)
{
    if (dkt_tenant_state(bench->core) != DKT_TENANT_ENDED) {
        bench_flush(bench);
    }
    while (bench->batch_count > 0 && dkt_tenant_state(bench->core) != DKT_TENANT_ENDED) {
        bench_ok(bench);
    }
}

void bench_hashed(bench_t *bench, bool ok, const char *hash)
{
    assert_true(bench->job_count > 0);
    dkt_hash_job_t job = bench->jobs[0];
    memmove(bench->jobs, bench->jobs + 1, --bench->job_count * sizeof bench->jobs[0]);
    job.ok = ok;
    if (job.kind == DKT_HASH_CREATE) {
        snprintf(job.hash, sizeof job.hash, "%s", hash);
    }
    bench_step(bench, &(dkt_tenant_event_t){.kind = DKT_TEV_HASHED, .job = &job});
    bench_flush(bench);
}

/* -- answers -- */

bool bench_answered(const bench_t *bench, uint32_t msgid)
{
    return bench->works[msgid].fate == BENCH_ANSWERED;
}

const dkt_answer_t *bench_answer(const bench_t *bench, uint32_t msgid)
{
    assert_int_equal(bench->works[msgid].fate, BENCH_ANSWERED);
    const dkt_answer_t *answer = &bench->works[msgid].answer;
    assert_string_equal(dkt_status_code(answer->status), "ok");
    return answer;
}

static void s_expect_view(dkt_view_t view, const char *text)
{
    char copy[64] = "";
    assert_true(view.len < sizeof copy);
    if (view.data) {
        memcpy(copy, view.data, view.len);
    }
    assert_string_equal(copy, text);
}

void bench_expect(const bench_t *bench, uint32_t msgid, const char *status)
{
    s_expect_view(bench_answer(bench, msgid)->status_text, status);
}

void bench_expect_error(const bench_t *bench, uint32_t msgid, dkt_status_t status,
                        const char *field)
{
    assert_int_equal(bench->works[msgid].fate, BENCH_ANSWERED);
    const dkt_answer_t *answer = &bench->works[msgid].answer;
    assert_string_equal(dkt_status_code(answer->status), dkt_status_code(status));
    s_expect_view(answer->field, field ? field : "");
}

uint64_t bench_number(const bench_t *bench, uint32_t msgid)
{
    const dkt_answer_t *answer = bench_answer(bench, msgid);
    dkt_client_t client;
    uint64_t number = 0;
    assert_true(dkt_ticket_parse(&bench->ring, (const char *)answer->ticket_id.data,
                                 answer->ticket_id.len, &client, &number));
    return number;
}

uint32_t bench_events(const dkt_commit_t *commit, uint32_t type)
{
    msgpack_unpacked message;
    msgpack_unpacked_init(&message);
    size_t at = 0;
    uint32_t count = 0;
    if (commit->journal_seq) {
        assert_int_equal(msgpack_unpack_next(&message, (const char *)commit->journal_events.data,
                                             commit->journal_events.len, &at),
                         MSGPACK_UNPACK_SUCCESS);
        for (uint32_t i = 0; i < message.data.via.array.size; i++) {
            count += message.data.via.array.ptr[i].via.array.ptr[0].via.u64 == type;
        }
    }
    msgpack_unpacked_destroy(&message);
    return count;
}
