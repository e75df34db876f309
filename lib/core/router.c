/* SPDX-License-Identifier: Apache-2.0
 *
 * The router's life cycle, its open requests and the messages of clients.
 */
#include "lib/core/router.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/core/router_internal.h"

/* -- lists of open requests ------------------------------------------------------------------- */

void dkt_rt_list_init(dkt_rt_list_t *list)
{
    *list = (dkt_rt_list_t){.first = DKT_RT_NONE, .last = DKT_RT_NONE, .count = 0};
}

void dkt_rt_push(dkt_router_t *self, dkt_rt_list_t *list, dkt_rt_by_t by, uint32_t index)
{
    dkt_rt_open_t *open = &self->opens[index];
    open->prev[by] = list->last;
    open->next[by] = DKT_RT_NONE;
    if (list->last == DKT_RT_NONE) {
        list->first = index;
    } else {
        self->opens[list->last].next[by] = index;
    }
    list->last = index;
    list->count++;
}

void dkt_rt_remove(dkt_router_t *self, dkt_rt_list_t *list, dkt_rt_by_t by, uint32_t index)
{
    dkt_rt_open_t *open = &self->opens[index];
    uint32_t prev = open->prev[by], next = open->next[by];
    assert(list->count > 0);
    if (prev == DKT_RT_NONE) {
        list->first = next;
    } else {
        self->opens[prev].next[by] = next;
    }
    if (next == DKT_RT_NONE) {
        list->last = prev;
    } else {
        self->opens[next].prev[by] = prev;
    }
    list->count--;
}

/* -- budgets ---------------------------------------------------------------------------------- */

static void s_wheel_add(dkt_router_t *self, uint32_t index, int64_t at_mono_ms)
{
    int64_t slot = at_mono_ms / DKT_RT_SLOT_MS;
    if (slot < self->wheel_at) {
        slot = self->wheel_at;
    }
    dkt_rt_open_t *open = &self->opens[index];
    open->wheel = (uint32_t)(slot % DKT_RT_WHEEL_SLOTS);
    dkt_rt_push(self, &self->wheel[open->wheel], DKT_RT_BY_TIME, index);
}

void dkt_rt_unavailable(dkt_router_t *self, dkt_instant_t now, uint32_t index, const char *why)
{
    dkt_err_t err;
    (void)dkt_fail(&err, DKT_UNAVAILABLE, NULL, "%s", why);
    err.retry_after_ms = DKT_BROKER_RETRY_AFTER_MS;
    self->counts.unavailable++;
    dkt_rt_fail(self, now, index, &err);
}

/* It never left: nothing has happened. */
static void s_overloaded(dkt_router_t *self, dkt_instant_t now, uint32_t index)
{
    dkt_err_t err;
    (void)dkt_fail(&err, DKT_OVERLOADED, NULL,
                   "too many requests of this tenant, others had their share");
    err.retry_after_ms = DKT_BROKER_RETRY_AFTER_MS;
    self->counts.overloaded++;
    dkt_rt_fail(self, now, index, &err);
}

/* The budget of a request is over. Only its owner knows whether it was committed, so a live one
 * gets the time of a commit to say so; nobody else can answer. */
static void s_expire(dkt_router_t *self, dkt_instant_t now, uint32_t index)
{
    dkt_rt_open_t *open = &self->opens[index];
    if (!open->grace && open->state == DKT_RT_SENT &&
        dkt_rt_worker_lives(self, now, open->worker)) {
        dkt_rt_remove(self, &self->wheel[open->wheel], DKT_RT_BY_TIME, index);
        open->grace = true;
        s_wheel_add(self, index, now.mono_ms + DKT_BROKER_GRACE_MS);
        return;
    }
    if (open->state == DKT_RT_HELD) {
        s_overloaded(self, now, index);
        return;
    }
    dkt_rt_unavailable(self, now, index,
                       open->sent_once ? "the owner did not answer in time"
                                       : "no owner could be reached in time");
}

static void s_turn_wheel(dkt_router_t *self, dkt_instant_t now)
{
    int64_t until = now.mono_ms / DKT_RT_SLOT_MS;
    if (until - self->wheel_at > DKT_RT_WHEEL_SLOTS) {
        self->wheel_at = until - DKT_RT_WHEEL_SLOTS; /* after a long stop: each slot once */
    }
    while (self->wheel_at < until) {
        dkt_rt_list_t *slot = &self->wheel[self->wheel_at % DKT_RT_WHEEL_SLOTS];
        self->wheel_at++;
        for (uint32_t left = slot->count; left > 0 && slot->first != DKT_RT_NONE; left--) {
            s_expire(self, now, slot->first);
        }
    }
}

/* -- open requests ---------------------------------------------------------------------------- */

dkt_rt_open_t *dkt_rt_find(dkt_router_t *self, uint64_t seq)
{
    uint32_t index = (uint32_t)(seq & 0xffff);
    if (index >= self->open_used || self->opens[index].seq != seq || seq == 0) {
        return NULL;
    }
    return &self->opens[index];
}

uint32_t dkt_rt_index(const dkt_router_t *self, const dkt_rt_open_t *open)
{
    return (uint32_t)(open - self->opens);
}

static uint32_t s_take_record(dkt_router_t *self)
{
    uint32_t index = self->open_free;
    if (index != DKT_RT_NONE) {
        self->open_free = self->opens[index].next[DKT_RT_BY_PLACE];
    } else {
        assert(self->open_used < self->config.pending_max);
        index = self->open_used++;
    }
    return index;
}

void dkt_rt_close(dkt_router_t *self, uint32_t index)
{
    dkt_rt_open_t *open = &self->opens[index];
    uint32_t connection = open->connection;
    dkt_rt_unplace(self, index);
    dkt_rt_remove(self, &self->wheel[open->wheel], DKT_RT_BY_TIME, index);
    dkt_rt_remove(self, &self->connections[connection].open, DKT_RT_BY_CONNECTION, index);
    self->open_of_vshard[open->vshard]--;
    self->counts.open--;
    self->counts.pending_bytes -= open->len;
    dkt_spare_give(&self->bodies, open->body);
    open->body = NULL;
    open->seq = 0;
    open->state = DKT_RT_FREE;
    open->next[DKT_RT_BY_PLACE] = self->open_free;
    self->open_free = index;
    dkt_rt_release(self, connection);
}

void dkt_rt_count(dkt_router_t *self, dkt_instant_t now, const dkt_rt_open_t *open, uint32_t ending)
{
    int64_t us = now.mono_us - open->begun_mono_us;
    dkt_traffic_count(&self->traffic, open->method, ending);
    dkt_histogram_add(&self->traffic.latency_us, us > 0 ? (uint64_t)us : 0);
}

void dkt_rt_fail(dkt_router_t *self, dkt_instant_t now, uint32_t index, const dkt_err_t *err)
{
    dkt_rt_open_t *open = &self->opens[index];
    dkt_rt_count(self, now, open, err->status);
    dkt_rt_answer_error(self, now, open->connection, open->msgid, err);
    /* Room may have been made by a flush in which the client turned out to be gone. */
    if (self->opens[index].state != DKT_RT_FREE) {
        dkt_rt_close(self, index);
    }
}

/* What has no room: of the connection, of a tenant's vshard, of the broker. */
static const char *s_full(const dkt_router_t *self, uint32_t connection, uint16_t vshard,
                          size_t len)
{
    if (self->connections[connection].open.count >= DKT_OPEN_PER_CONNECTION_MAX) {
        return "too many open requests on this connection";
    }
    if (self->open_of_vshard[vshard] >= DKT_BROKER_VSHARD_MAX) {
        return "too many open requests for this tenant";
    }
    if (self->counts.open >= self->config.pending_max ||
        len > self->config.pending_bytes_max - self->counts.pending_bytes) {
        return "too many open requests in this broker";
    }
    return NULL;
}

static void s_set_checked(dkt_rt_open_t *open, const dkt_rt_checked_t *checked)
{
    memcpy(open->token_id, checked->claims.token_id, sizeof open->token_id);
    open->token_issued_ms = checked->claims.issued_ms;
    open->token_expires_ms = checked->claims.expires_ms;
    open->vshard = checked->vshard;
    open->unchecked = checked->later;
}

/* Opens a request that passed its checks (or waits for the keys); false: no room. */
static bool s_open(dkt_router_t *self, dkt_instant_t now, uint32_t connection, dkt_view_t frame,
                   const dkt_request_t *request, const dkt_rt_checked_t *checked, dkt_err_t *err)
{
    const char *full = s_full(self, connection, checked->vshard, frame.len);
    uint8_t *body = full ? NULL : dkt_spare_take(&self->bodies, frame.len);
    if (!body) {
        (void)dkt_fail(err, DKT_OVERLOADED, NULL, "%s", full ? full : "no memory for it");
        err->retry_after_ms = DKT_BROKER_RETRY_AFTER_MS;
        self->counts.overloaded++;
        return false;
    }
    memcpy(body, frame.data, frame.len);
    uint32_t index = s_take_record(self);
    dkt_rt_open_t *open = &self->opens[index];
    memset(open, 0, sizeof *open);
    open->state = DKT_RT_UNPLACED;
    open->seq = ++self->seq_count << 16 | index;
    open->connection = connection;
    open->msgid = request->msgid;
    open->begun_mono_us = now.mono_us;
    open->deadline_mono_ms = now.mono_ms + request->budget_ms;
    open->side = (uint8_t)checked->side;
    open->method = (uint8_t)request->method;
    open->len = frame.len;
    open->body = body;
    s_set_checked(open, checked);
    self->chunk_count = open->vshard == self->chunk_vshard ? self->chunk_count + 1 : 1;
    self->chunk_vshard = open->vshard;
    self->open_of_vshard[open->vshard]++;
    self->counts.open++;
    self->counts.pending_bytes += frame.len;
    s_wheel_add(self, index, open->deadline_mono_ms);
    dkt_rt_push(self, &self->connections[connection].open, DKT_RT_BY_CONNECTION, index);
    if (dkt_rt_share_holds(self, now, index)) {
        dkt_rt_hold(self, index);
    } else {
        dkt_rt_place(self, now, index);
    }
    return true;
}

bool dkt_rt_check_again(dkt_router_t *self, dkt_instant_t now, uint32_t index)
{
    dkt_rt_open_t *open = &self->opens[index];
    dkt_request_t request;
    dkt_rt_checked_t checked = {.side = (dkt_audience_t)open->side};
    dkt_err_t err;
    dkt_status_t status = dkt_request_decode(open->body, open->len, &request, &err);
    if (status == DKT_OK) {
        status = dkt_rt_check(self, now, &request, &checked, &err);
    }
    if (status != DKT_OK) {
        self->counts.refused++;
        dkt_rt_fail(self, now, index, &err);
        return false;
    }
    self->open_of_vshard[open->vshard]--;
    s_set_checked(open, &checked);
    self->open_of_vshard[open->vshard]++;
    return true;
}

/* -- messages of clients ---------------------------------------------------------------------- */

static void s_take_frame(dkt_router_t *self, dkt_instant_t now, dkt_audience_t side,
                         uint32_t connection, dkt_view_t frame)
{
    dkt_request_t request;
    dkt_rt_checked_t checked = {.side = side};
    dkt_err_t err;
    self->counts.frames++;
    dkt_status_t status = dkt_request_decode(frame.data, frame.len, &request, &err);
    if (status == DKT_MALFORMED) {
        self->counts.malformed++;
    } else if (status == DKT_OK) {
        status = dkt_rt_check(self, now, &request, &checked, &err);
    }
    if (status != DKT_OK) {
        self->counts.refused += status != DKT_MALFORMED && status != DKT_RATE_LIMITED;
        dkt_traffic_count(&self->traffic, request.method, status);
        dkt_rt_answer_error(self, now, connection, request.msgid, &err);
    } else if (dkt_method_row(request.method)->route == DKT_ROUTE_BROKER) {
        dkt_traffic_count(&self->traffic, request.method, DKT_OK);
        dkt_rt_answer_ping(self, now, connection, request.msgid);
    } else if (!s_open(self, now, connection, frame, &request, &checked, &err)) {
        dkt_traffic_count(&self->traffic, request.method, err.status);
        dkt_rt_answer_error(self, now, connection, request.msgid, &err);
    }
}

/* What is wrong with the message as a whole; NULL if nothing. */
static const char *s_wrong_shape(const dkt_view_t *frames, uint32_t count)
{
    if (count == 0 || frames[0].len != 0) {
        return "a message starts with one empty frame";
    }
    if (count == 1) {
        return "no request after the empty frame";
    }
    if (count > 1 + DKT_FRAMES_PER_MESSAGE_MAX) {
        return "more than 256 requests in one message";
    }
    return NULL;
}

/* One answer for the whole message. Its msgid can only be told if it is a lone request that lacks
 * the delimiter. */
static void s_refuse_message(dkt_router_t *self, dkt_instant_t now, uint32_t connection,
                             const dkt_view_t *frames, uint32_t count, const char *why)
{
    dkt_request_t request = {.msgid = 0};
    dkt_err_t err;
    if (count == 1 && frames[0].len > 0) {
        dkt_status_t ignored = dkt_request_decode(frames[0].data, frames[0].len, &request, &err);
        (void)ignored;
    }
    self->counts.malformed++;
    dkt_traffic_count(&self->traffic, DKT_METHOD_COUNT, DKT_MALFORMED);
    (void)dkt_fail(&err, DKT_MALFORMED, NULL, "%s", why);
    dkt_rt_answer_error(self, now, connection, request.msgid, &err);
}

/* There is no record for this client: it is told so, without one. */
static void s_refuse_connection(dkt_router_t *self, dkt_audience_t side, const dkt_address_t *from,
                                const dkt_view_t *frames, uint32_t count)
{
    for (uint32_t i = 1; i < count && i <= DKT_FRAMES_PER_MESSAGE_MAX; i++) {
        dkt_request_t request;
        dkt_err_t err;
        uint8_t bytes[DKT_RT_ANSWER_BYTES];
        dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
        if (dkt_request_decode(frames[i].data, frames[i].len, &request, &err) == DKT_OK) {
            (void)dkt_fail(&err, DKT_OVERLOADED, NULL, "too many connections");
            err.retry_after_ms = DKT_BROKER_RETRY_AFTER_MS;
        }
        self->counts.overloaded++;
        dkt_traffic_count(&self->traffic, DKT_METHOD_COUNT, err.status);
        dkt_answer_error(&w, request.msgid, &err);
        dkt_view_t frame = {.data = bytes, .len = (uint32_t)w.len};
        if (self->port.to_client(self->port.ctx, side, from, &frame, 1) != DKT_SENT_OK) {
            self->counts.unread_dropped++;
            return;
        }
    }
}

void dkt_router_client(dkt_router_t *self, dkt_instant_t now, dkt_audience_t side,
                       const dkt_address_t *from, const dkt_view_t *frames, uint32_t count)
{
    uint32_t connection = dkt_rt_connect(self, side, from);
    if (connection == DKT_RT_NONE) {
        s_refuse_connection(self, side, from, frames, count);
        return;
    }
    self->connections[connection].pinned = true;
    const char *wrong = s_wrong_shape(frames, count);
    if (wrong) {
        s_refuse_message(self, now, connection, frames, count, wrong);
    }
    for (uint32_t i = 1; !wrong && i < count; i++) {
        s_take_frame(self, now, side, connection, frames[i]);
    }
    self->connections[connection].pinned = false;
    dkt_rt_release(self, connection);
}

/* -- life cycle ------------------------------------------------------------------------------- */

dkt_router_t *dkt_router_new(const dkt_router_config_t *config, const dkt_router_port_t *port,
                             dkt_instant_t now)
{
    dkt_router_t *self = calloc(1, sizeof *self);
    if (!self) {
        return NULL;
    }
    self->port = *port;
    self->config = *config;
    size_t node_len = strnlen(config->node, DKT_NODE_BYTES_MAX);
    memcpy(self->node, config->node, node_len);
    self->config.node = self->node;
    if (self->config.pending_max == 0) {
        self->config.pending_max = DKT_BROKER_PENDING_MAX;
    }
    if (self->config.pending_bytes_max == 0) {
        self->config.pending_bytes_max = DKT_BROKER_PENDING_BYTES;
    }
    assert(self->config.pending_max <= DKT_BROKER_PENDING_MAX);
    self->bodies.room_bytes = DKT_FRAME_BYTES_USUAL;
    self->open_free = self->connection_free = DKT_RT_NONE;
    self->dirty_first = self->stuck_first = DKT_RT_NONE;
    self->retry_mono_ms = INT64_MAX;
    self->ticked_mono_ms = now.mono_ms;
    self->wheel_at = now.mono_ms / DKT_RT_SLOT_MS;
    self->spread = (uint32_t)config->seed;
    dkt_rt_list_init(&self->waiting);
    for (uint32_t i = 0; i < DKT_VSHARDS; i++) {
        dkt_rt_list_init(&self->held[i]);
    }
    for (uint32_t i = 0; i < DKT_RT_WHEEL_SLOTS; i++) {
        dkt_rt_list_init(&self->wheel[i]);
    }
    memset(self->buckets, 0xff, sizeof self->buckets);
    memset(self->table.owner, 0xff, sizeof self->table.owner);
    self->opens = calloc(self->config.pending_max, sizeof *self->opens);
    self->connections = calloc(DKT_BROKER_CONNECTIONS_MAX, sizeof *self->connections);
    self->batch = malloc(DKT_LINK_BYTES_MAX);
    if (!self->opens || !self->connections || !self->batch) {
        dkt_router_destroy(&self);
    }
    return self;
}

void dkt_router_destroy(dkt_router_t **self_p)
{
    dkt_router_t *self = *self_p;
    if (!self) {
        return;
    }
    for (uint32_t i = 0; self->opens && i < self->open_used; i++) {
        free(self->opens[i].body);
    }
    if (self->connections) {
        dkt_rt_connections_fini(self);
    }
    dkt_rt_tokens_forget(self);
    dkt_spare_fini(&self->bodies);
    free(self->opens);
    free(self->connections);
    free(self->batch);
    free(self);
    *self_p = NULL;
}

/* -- time ------------------------------------------------------------------------------------- */

bool dkt_router_has_chunk(const dkt_router_t *self)
{
    return self->chunk_count >= DKT_TENANT_CHUNK;
}

void dkt_router_flush(dkt_router_t *self, dkt_instant_t now)
{
    self->chunk_count = 0;
    dkt_rt_share_pass(self, now);
    dkt_rt_send_batches(self, now);
    dkt_rt_send_answers(self, now);
}

void dkt_router_tick(dkt_router_t *self, dkt_instant_t now)
{
    self->ticked_mono_ms = now.mono_ms;
    s_turn_wheel(self, now);
    if (now.mono_ms >= self->retry_mono_ms) {
        dkt_rt_wake(self, now, false);
    }
    dkt_rt_workers_tick(self, now);
    dkt_rt_connections_tick(self, now);
    dkt_router_flush(self, now);
}

int64_t dkt_router_due_mono_ms(const dkt_router_t *self)
{
    bool busy = self->counts.open > 0 || self->stuck_first != DKT_RT_NONE;
    int64_t due_mono_ms = self->ticked_mono_ms + (busy ? DKT_RT_SLOT_MS : DKT_LINK_BEAT_MS);
    return self->held_vshard_count > 0 && self->share_due_mono_ms < due_mono_ms
               ? self->share_due_mono_ms
               : due_mono_ms;
}

void dkt_router_abort(dkt_router_t *self, dkt_instant_t now)
{
    for (uint32_t i = 0; i < self->open_used; i++) {
        if (self->opens[i].state != DKT_RT_FREE) {
            dkt_rt_unavailable(self, now, i, "the broker is shutting down");
        }
    }
    dkt_rt_send_answers(self, now);
}

dkt_table_version_t dkt_router_table(const dkt_router_t *self)
{
    return self->table.version;
}

void dkt_router_counts(const dkt_router_t *self, dkt_router_counts_t *counts)
{
    *counts = self->counts;
    counts->waiting = self->waiting.count;
    counts->held = 0;
    for (uint32_t i = 0; i < self->held_vshard_count; i++) {
        counts->held += self->held[self->held_vshards[i]].count;
    }
    counts->workers = 0;
    for (uint32_t i = 0; i < self->worker_used; i++) {
        counts->workers += self->workers[i].used && self->workers[i].connected;
    }
}

const dkt_traffic_t *dkt_router_traffic(const dkt_router_t *self)
{
    return &self->traffic;
}
