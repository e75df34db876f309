/* SPDX-License-Identifier: Apache-2.0 */
#include "support_router.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define S_STEP_MS 16

static void s_copy_text(char *out, dkt_view_t view)
{
    size_t len = view.len < RIG_TEXT_BYTES - 1 ? view.len : RIG_TEXT_BYTES - 1;
    if (view.data) {
        memcpy(out, view.data, len);
    }
    out[view.data ? len : 0] = '\0';
}

static dkt_sent_t s_to_client(void *ctx, dkt_audience_t side, const dkt_address_t *to,
                              const dkt_view_t *frames, uint32_t count)
{
    rig_t *rig = ctx;
    uint8_t peer = to->bytes[0];
    if (rig->client_takes[peer] != DKT_SENT_OK) {
        return rig->client_takes[peer];
    }
    rig->client_messages++;
    rig->largest_group = count > rig->largest_group ? count : rig->largest_group;
    for (uint32_t i = 0; i < count; i++) {
        dkt_answer_t answer;
        dkt_err_t err;
        if (dkt_answer_decode(frames[i].data, frames[i].len, &answer, &err) != DKT_OK) {
            fprintf(stderr, "not an answer: %s\n", err.text);
            abort();
        }
        assert(rig->answer_count < RIG_LOG_MAX);
        rig_answer_t *row = &rig->answers[rig->answer_count++];
        *row = (rig_answer_t){.peer = peer,
                              .side = (uint8_t)side,
                              .message = rig->client_messages,
                              .msgid = answer.msgid,
                              .status = answer.status,
                              .retry_after_ms = answer.retry_after_ms};
        s_copy_text(row->field, answer.field);
        s_copy_text(row->text, answer.status_text);
    }
    return DKT_SENT_OK;
}

static dkt_sent_t s_to_worker(void *ctx, const dkt_address_t *to, const uint8_t *bytes, size_t len)
{
    rig_t *rig = ctx;
    uint8_t worker = to->bytes[0];
    if (rig->worker_takes[worker] != DKT_SENT_OK) {
        return rig->worker_takes[worker];
    }
    dkt_r_t r;
    dkt_link_header_t header;
    bool ok = dkt_link_open(&r, bytes, len, &header);
    assert(ok);
    rig->worker_messages++;
    rig->welcomes += header.kind == DKT_LINK_WELCOME;
    rig->largest_batch = len > rig->largest_batch ? len : rig->largest_batch;
    for (uint16_t i = 0; i < header.count; i++) {
        assert(rig->request_count < RIG_LOG_MAX);
        rig_request_t *row = &rig->requests[rig->request_count++];
        ok = dkt_link_get_request(&r, &row->request);
        dkt_request_t request;
        dkt_err_t err;
        dkt_status_t status =
            dkt_request_decode(row->request.body.data, row->request.body.len, &request, &err);
        assert(ok && status == DKT_OK);
        row->worker = worker;
        row->message = rig->worker_messages;
        row->table = header.table;
        row->msgid = request.msgid;
        row->request.body = (dkt_view_t){NULL, row->request.body.len};
    }
    ok = dkt_link_end(&r);
    assert(ok);
    return DKT_SENT_OK;
}

static const char *s_source(void *ctx)
{
    return ((rig_t *)ctx)->source;
}

static void s_log(void *ctx, dkt_log_level_t level, const char *text)
{
    (void)ctx;
    (void)level;
    (void)text;
}

static void s_make_tenants(rig_t *rig)
{
    static const uint8_t seed[DKT_TOKEN_SEED_BYTES] = {7};
    rig->ring.count = 1;
    rig->ring.keys[0].kid = 1;
    dkt_token_keys(1, seed, &rig->secret, &rig->public_key);
    for (uint8_t i = 0; i < 2; i++) {
        uint8_t random[7] = {(uint8_t)(i + 1), 2, 3};
        dkt_id_text_t text;
        rig->clients[i] = dkt_client_make(&rig->ring, random);
        dkt_client_text(&rig->clients[i], &text);
        memcpy(rig->client_ids[i], text.text, sizeof rig->client_ids[i]);
        dkt_claims_t claims = {.client = rig->clients[i],
                               .token_id = {i, 1},
                               .issued_ms = rig->now.unix_ms,
                               .expires_ms = rig->now.unix_ms + 900000};
        dkt_token_sign(&rig->secret, &claims, rig->tokens[i]);
    }
}

rig_t *rig_new(uint32_t pending_max, size_t pending_bytes_max)
{
    rig_t *rig = calloc(1, sizeof *rig);
    assert(rig);
    rig->now = (dkt_instant_t){.mono_ms = 1000000, .unix_ms = 1700000000000};
    rig->source = "10.0.0.1";
    dkt_router_config_t config = {.node = "broker-0",
                                  .version = "0.1.0",
                                  .incarnation = {{0xb0}},
                                  .seed = 42,
                                  .pending_max = pending_max,
                                  .pending_bytes_max = pending_bytes_max};
    dkt_router_port_t port = {.ctx = rig,
                              .to_client = s_to_client,
                              .to_worker = s_to_worker,
                              .source = s_source,
                              .log = s_log};
    rig->router = dkt_router_new(&config, &port, rig->now);
    assert(rig->router);
    s_make_tenants(rig);
    return rig;
}

void rig_destroy(rig_t **rig_p)
{
    dkt_router_destroy(&(*rig_p)->router);
    free(*rig_p);
    *rig_p = NULL;
}

dkt_address_t rig_address(uint8_t peer)
{
    return (dkt_address_t){.len = 5, .bytes = {peer, 1, 2, 3, 4}};
}

dkt_incarnation_t rig_incarnation(uint8_t worker)
{
    return (dkt_incarnation_t){{worker, 9, 9}};
}

static void s_from_worker(rig_t *rig, uint8_t address, const dkt_w_t *w)
{
    dkt_address_t from = rig_address(address);
    assert(!w->failed);
    dkt_router_worker(rig->router, rig->now, &from, w->data, w->len);
    dkt_router_flush(rig->router, rig->now);
}

static dkt_w_t s_begin(rig_t *rig, uint8_t worker, dkt_link_kind_t kind, uint64_t version)
{
    dkt_incarnation_t sender = rig_incarnation(worker);
    dkt_w_t w = dkt_w_init(rig->worker_bytes, sizeof rig->worker_bytes);
    dkt_link_begin(&w, kind, (dkt_table_version_t){1, version}, &sender);
    return w;
}

void rig_table(rig_t *rig, uint64_t version, const uint8_t *workers, uint16_t count)
{
    static dkt_table_t table;
    dkt_incarnation_t members[RIG_PEERS_MAX];
    memset(&table, 0, sizeof table);
    for (uint16_t i = 0; i < count; i++) {
        members[i] = rig_incarnation(workers[i]);
    }
    dkt_table_assign(&table, members, count);
    table.version = (dkt_table_version_t){1, version};
    table.key_count = 1;
    table.keys[0] = rig->public_key;
    dkt_w_t w = s_begin(rig, workers[0], DKT_LINK_TABLE, version);
    dkt_link_put_table(&w, &table);
    dkt_link_finish(&w, 1);
    s_from_worker(rig, workers[0], &w);
}

void rig_hello(rig_t *rig, uint8_t worker, uint8_t address)
{
    dkt_w_t w = s_begin(rig, worker, DKT_LINK_HELLO, 0);
    dkt_link_put_node(&w, "node");
    dkt_link_finish(&w, 1);
    s_from_worker(rig, address, &w);
}

void rig_one_worker(rig_t *rig)
{
    rig_hello(rig, 1, 1);
    rig_table(rig, 1, (const uint8_t[]){1}, 1);
}

dkt_view_t rig_text(const char *text)
{
    return (dkt_view_t){(const uint8_t *)text, (uint32_t)strlen(text)};
}

dkt_request_t rig_request(const rig_t *rig, dkt_method_t method, uint32_t msgid)
{
    static dkt_id_text_t ticket, slot;
    dkt_ticket_text(&rig->ring, &rig->clients[0], 5, &ticket);
    dkt_slot_text(&rig->ring, &(dkt_slot_ref_t){.client = rig->clients[0], .nonce = 3}, &slot);
    const dkt_method_row_t *row = dkt_method_row(method);
    dkt_request_t request = {.msgid = msgid,
                             .method = method,
                             .token = rig_text(rig->tokens[0]),
                             .client_id = rig_text(rig->client_ids[0]),
                             .ticket_type = rig_text("gold"),
                             .ticket_id = rig_text(ticket.text),
                             .slot_id = rig_text(slot.text),
                             .name = rig_text("Acme"),
                             .email = rig_text("it@acme.example"),
                             .password = rig_text("correct horse"),
                             .new_password = rig_text("battery staple"),
                             .request_id = {{(uint8_t)msgid, (uint8_t)(msgid >> 8), 5}},
                             .budget_ms = 5000};
    request.present = row->required | DKT_PARAM_BIT(BUDGET_MS) |
                      (row->token ? DKT_PARAM_BIT(TOKEN) : 0) |
                      (row->request_id ? DKT_PARAM_BIT(REQUEST_ID) : 0);
    return request;
}

dkt_view_t rig_encode(rig_t *rig, uint32_t slot, const dkt_request_t *request)
{
    dkt_w_t w = dkt_w_init(rig->frames[slot], RIG_FRAME_BYTES);
    dkt_request_encode(&w, request);
    assert(!w.failed);
    return (dkt_view_t){w.data, (uint32_t)w.len};
}

void rig_send_raw(rig_t *rig, dkt_audience_t side, uint8_t peer, const dkt_view_t *frames,
                  uint32_t count)
{
    dkt_address_t from = rig_address(peer);
    dkt_router_client(rig->router, rig->now, side, &from, frames, count);
    dkt_router_flush(rig->router, rig->now);
}

void rig_send(rig_t *rig, dkt_audience_t side, uint8_t peer, const dkt_request_t *request)
{
    dkt_view_t frames[2] = {{(const uint8_t *)"", 0}, rig_encode(rig, 0, request)};
    rig_send_raw(rig, side, peer, frames, 2);
}

static void s_answer(rig_t *rig, uint8_t worker, const rig_request_t *request,
                     dkt_link_outcome_t outcome, uint64_t version, const dkt_w_t *body)
{
    dkt_w_t w = s_begin(rig, worker, DKT_LINK_ANSWERS, version);
    dkt_link_answer_t answer = {.seq = request->request.seq,
                                .outcome = (uint8_t)outcome,
                                .body = {body ? body->data : NULL, body ? (uint32_t)body->len : 0}};
    dkt_link_put_answer(&w, &answer);
    dkt_link_finish(&w, 1);
    s_from_worker(rig, worker, &w);
}

void rig_answer(rig_t *rig, uint8_t worker, const rig_request_t *request, const char *text)
{
    uint8_t bytes[RIG_FRAME_BYTES];
    dkt_w_t body = dkt_w_init(bytes, sizeof bytes);
    dkt_answer_status(&body, request->msgid, text);
    s_answer(rig, worker, request, DKT_OUTCOME_ANSWER, 1, &body);
}

void rig_answer_error(rig_t *rig, uint8_t worker, const rig_request_t *request, dkt_status_t status)
{
    uint8_t bytes[RIG_FRAME_BYTES];
    dkt_w_t body = dkt_w_init(bytes, sizeof bytes);
    dkt_err_t err;
    (void)dkt_fail(&err, status, NULL, NULL);
    dkt_answer_error(&body, request->msgid, &err);
    s_answer(rig, worker, request, DKT_OUTCOME_ANSWER, 1, &body);
}

void rig_moved(rig_t *rig, uint8_t worker, const rig_request_t *request, uint64_t version)
{
    s_answer(rig, worker, request, DKT_OUTCOME_MOVED, version, NULL);
}

void rig_pass(rig_t *rig, int64_t ms, const uint8_t *beating, uint32_t count)
{
    int64_t beat_ms = 0;
    for (int64_t passed = 0; passed < ms; passed += S_STEP_MS, beat_ms += S_STEP_MS) {
        if (beat_ms >= DKT_LINK_BEAT_MS) {
            for (uint32_t i = 0; i < count; i++) {
                rig_hello(rig, beating[i], beating[i]);
            }
            beat_ms = 0;
        }
        rig->now.mono_ms += S_STEP_MS;
        rig->now.unix_ms += S_STEP_MS;
        dkt_router_tick(rig->router, rig->now);
    }
}

const rig_answer_t *rig_last_answer(const rig_t *rig)
{
    static const rig_answer_t none = {.msgid = UINT32_MAX, .status = DKT_STATUS_COUNT};
    return rig->answer_count ? &rig->answers[rig->answer_count - 1] : &none;
}

const rig_request_t *rig_last_request(const rig_t *rig)
{
    static const rig_request_t none = {.worker = UINT8_MAX};
    return rig->request_count ? &rig->requests[rig->request_count - 1] : &none;
}

dkt_router_counts_t rig_counts(const rig_t *rig)
{
    dkt_router_counts_t counts;
    dkt_router_counts(rig->router, &counts);
    return counts;
}
