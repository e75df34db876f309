/* SPDX-License-Identifier: Apache-2.0
 *
 * The workers' side of the router: who beats, who owns what, and which requests go where.
 *
 * An answer counts only from the incarnation that the request was last sent to, and only while the
 * table names it. Everything else is dropped, and the request goes to the owner: its request_id
 * finds out there what had happened.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "lib/core/router_internal.h"

#define S_LOG_BYTES 256

static bool s_available(const dkt_router_t *self, dkt_instant_t now, uint32_t index)
{
    const dkt_rt_worker_t *worker = &self->workers[index];
    return worker->member != DKT_VSHARD_NOBODY && dkt_rt_worker_lives(self, now, index);
}

bool dkt_rt_worker_lives(const dkt_router_t *self, dkt_instant_t now, uint32_t index)
{
    const dkt_rt_worker_t *worker = &self->workers[index];
    return worker->used && worker->connected &&
           now.mono_ms - worker->heard_mono_ms <= DKT_LINK_SILENCE_MS;
}

/* The worker that the table names for a vshard; DKT_RT_NONE if none or none that we know. */
static uint32_t s_owner(const dkt_router_t *self, uint16_t vshard)
{
    uint16_t member = self->table.owner[vshard];
    return member == DKT_VSHARD_NOBODY ? DKT_RT_NONE : self->worker_of_member[member];
}

bool dkt_rt_any_worker_serves(const dkt_rt_open_t *open)
{
    return dkt_method_row((dkt_method_t)open->method)->route == DKT_ROUTE_ANY;
}

static uint32_t s_pick(const dkt_router_t *self, dkt_instant_t now, const dkt_rt_open_t *open)
{
    uint32_t owner = s_owner(self, open->vshard);
    if (owner != DKT_RT_NONE && s_available(self, now, owner)) {
        return owner;
    }
    for (uint32_t i = 0; dkt_rt_any_worker_serves(open) && i < self->worker_used; i++) {
        uint32_t index = (open->vshard + i) % self->worker_used;
        if (s_available(self, now, index)) {
            return index;
        }
    }
    return DKT_RT_NONE;
}

/* Is its worker the one to have it, by the table as it is now? */
static bool s_is_right(const dkt_router_t *self, const dkt_rt_open_t *open)
{
    if (dkt_rt_any_worker_serves(open)) {
        return self->workers[open->worker].member != DKT_VSHARD_NOBODY;
    }
    return s_owner(self, open->vshard) == open->worker;
}

/* -- places ----------------------------------------------------------------------------------- */

static dkt_rt_list_t *s_place_list(dkt_router_t *self, const dkt_rt_open_t *open)
{
    switch (open->state) {
    case DKT_RT_HELD:
        return &self->held[open->vshard];
    case DKT_RT_WAITING:
        return &self->waiting;
    case DKT_RT_QUEUED:
        return &self->workers[open->worker].queued;
    case DKT_RT_SENT:
        return &self->workers[open->worker].sent;
    case DKT_RT_UNPLACED:
    case DKT_RT_FREE:
        break;
    }
    return NULL;
}

void dkt_rt_unplace(dkt_router_t *self, uint32_t index)
{
    dkt_rt_list_t *list = s_place_list(self, &self->opens[index]);
    if (list) {
        dkt_rt_remove(self, list, DKT_RT_BY_PLACE, index);
    }
    self->opens[index].state = DKT_RT_UNPLACED;
}

static void s_put(dkt_router_t *self, uint32_t index, dkt_rt_state_t state)
{
    dkt_rt_open_t *open = &self->opens[index];
    assert(open->state == DKT_RT_UNPLACED);
    open->state = state;
    dkt_rt_push(self, s_place_list(self, open), DKT_RT_BY_PLACE, index);
}

/* `retry_mono_ms` 0: as soon as somebody can take it. */
static void s_wait(dkt_router_t *self, uint32_t index, int64_t retry_mono_ms)
{
    self->opens[index].retry_mono_ms = retry_mono_ms;
    if (retry_mono_ms > 0 && retry_mono_ms < self->retry_mono_ms) {
        self->retry_mono_ms = retry_mono_ms;
    }
    s_put(self, index, DKT_RT_WAITING);
}

void dkt_rt_hold(dkt_router_t *self, uint32_t index)
{
    s_put(self, index, DKT_RT_HELD);
}

void dkt_rt_place(dkt_router_t *self, dkt_instant_t now, uint32_t index)
{
    dkt_rt_open_t *open = &self->opens[index];
    if (open->unchecked) {
        if (self->table.key_count == 0) {
            s_wait(self, index, 0);
            return;
        }
        if (!dkt_rt_check_again(self, now, index)) {
            return;
        }
    }
    uint32_t worker = s_pick(self, now, open);
    if (worker == DKT_RT_NONE) {
        s_wait(self, index, 0);
        return;
    }
    open->worker = worker;
    s_put(self, index, DKT_RT_QUEUED);
}

/* Takes a request from a worker that will not answer it, or whose answer does not count. */
static void s_requeue(dkt_router_t *self, dkt_instant_t now, uint32_t index)
{
    dkt_rt_open_t *open = &self->opens[index];
    open->losses = (uint8_t)(open->losses + (open->state == DKT_RT_SENT));
    dkt_rt_unplace(self, index);
    if (now.mono_ms >= open->deadline_mono_ms) {
        dkt_rt_unavailable(self, now, index, "its owner was replaced");
    } else if (open->losses > DKT_BROKER_LOSSES_MAX) {
        dkt_rt_unavailable(self, now, index, "its owners were replaced again and again");
    } else {
        dkt_rt_place(self, now, index);
    }
}

void dkt_rt_wake(dkt_router_t *self, dkt_instant_t now, bool all)
{
    self->retry_mono_ms = INT64_MAX;
    for (uint32_t left = self->waiting.count; left > 0 && self->waiting.count > 0; left--) {
        uint32_t index = self->waiting.first;
        int64_t retry_mono_ms = self->opens[index].retry_mono_ms;
        dkt_rt_unplace(self, index);
        if (!all && retry_mono_ms > now.mono_ms) {
            s_wait(self, index, retry_mono_ms);
        } else {
            dkt_rt_place(self, now, index);
        }
    }
}

/* Gives back what the list's worker should not have (everything, with `all`). */
static void s_sift(dkt_router_t *self, dkt_instant_t now, dkt_rt_list_t *list, bool all)
{
    for (uint32_t left = list->count; left > 0 && list->count > 0; left--) {
        uint32_t index = list->first;
        dkt_rt_state_t state = self->opens[index].state;
        if (all || !s_is_right(self, &self->opens[index])) {
            s_requeue(self, now, index);
        } else {
            dkt_rt_unplace(self, index);
            s_put(self, index, state);
        }
    }
}

/* -- sending ---------------------------------------------------------------------------------- */

static dkt_link_request_t s_link_request(const dkt_rt_open_t *open, dkt_instant_t now)
{
    int64_t left_ms = open->deadline_mono_ms - now.mono_ms;
    dkt_link_request_t request = {.seq = open->seq,
                                  .budget_left_ms = left_ms > 0 ? (uint32_t)left_ms : 1,
                                  .origin = open->side,
                                  .method = open->method,
                                  .vshard = open->vshard,
                                  .token_issued_ms = open->token_issued_ms,
                                  .token_expires_ms = open->token_expires_ms,
                                  .body = {.data = open->body, .len = open->len}};
    memcpy(request.token_id, open->token_id, sizeof request.token_id);
    return request;
}

/* Fills one message from the worker's queue; returns how many requests are in it. */
static uint16_t s_fill_batch(dkt_router_t *self, dkt_instant_t now, const dkt_rt_worker_t *worker,
                             dkt_w_t *w)
{
    uint16_t count = 0;
    *w = dkt_w_init(self->batch, DKT_LINK_BYTES_MAX);
    dkt_link_begin(w, DKT_LINK_REQUESTS, self->table.version, &self->config.incarnation);
    for (uint32_t i = worker->queued.first; i != DKT_RT_NONE && count < UINT16_MAX;
         i = self->opens[i].next[DKT_RT_BY_PLACE]) {
        dkt_link_request_t request = s_link_request(&self->opens[i], now);
        if (dkt_link_request_bytes(&request) > w->max - w->len) {
            break;
        }
        dkt_link_put_request(w, &request);
        count++;
    }
    dkt_link_finish(w, count);
    return count;
}

static void s_mark_sent(dkt_router_t *self, dkt_rt_worker_t *worker, uint16_t count)
{
    for (uint16_t i = 0; i < count; i++) {
        uint32_t index = worker->queued.first;
        dkt_rt_open_t *open = &self->opens[index];
        dkt_rt_unplace(self, index);
        s_put(self, index, DKT_RT_SENT);
        self->counts.resent += open->sent_once;
        self->counts.sent += !open->sent_once;
        open->sent_once = true;
    }
}

static void s_send_batches_to(dkt_router_t *self, dkt_instant_t now, dkt_rt_worker_t *worker)
{
    dkt_sent_t sent = DKT_SENT_OK;
    while (sent == DKT_SENT_OK && worker->queued.count > 0) {
        dkt_w_t w;
        uint16_t count = s_fill_batch(self, now, worker, &w);
        assert(!w.failed && count > 0);
        sent = self->port.to_worker(self->port.ctx, &worker->address, w.data, w.len);
        if (sent == DKT_SENT_OK) {
            s_mark_sent(self, worker, count);
        }
    }
    /* FULL: what is queued goes with a later flush. GONE: it waits for a sign of life. */
    if (sent == DKT_SENT_GONE) {
        worker->connected = false;
        s_sift(self, now, &worker->queued, true);
    }
}

void dkt_rt_send_batches(dkt_router_t *self, dkt_instant_t now)
{
    for (uint32_t i = 0; i < self->worker_used; i++) {
        if (self->workers[i].queued.count > 0) {
            s_send_batches_to(self, now, &self->workers[i]);
        }
    }
}

/* -- workers ---------------------------------------------------------------------------------- */

static bool s_same(const dkt_incarnation_t *a, const dkt_incarnation_t *b)
{
    return memcmp(a->bytes, b->bytes, DKT_INCARNATION_BYTES) == 0;
}

static uint32_t s_find_worker(const dkt_router_t *self, const dkt_incarnation_t *incarnation)
{
    for (uint32_t i = 0; i < self->worker_used; i++) {
        if (self->workers[i].used && s_same(&self->workers[i].incarnation, incarnation)) {
            return i;
        }
    }
    return DKT_RT_NONE;
}

static uint16_t s_member_of(const dkt_router_t *self, const dkt_incarnation_t *incarnation)
{
    for (uint16_t i = 0; i < self->table.member_count; i++) {
        if (s_same(&self->table.members[i], incarnation)) {
            return i;
        }
    }
    return DKT_VSHARD_NOBODY;
}

static void s_log_worker(dkt_router_t *self, dkt_log_level_t level, const dkt_rt_worker_t *worker,
                         const char *what)
{
    char text[S_LOG_BYTES];
    const uint8_t *id = worker->incarnation.bytes;
    snprintf(text, sizeof text, "worker %s (%02x%02x%02x%02x) %s", worker->node, id[0], id[1],
             id[2], id[3], what);
    self->port.log(self->port.ctx, level, text);
}

static uint32_t s_add_worker(dkt_router_t *self, const dkt_incarnation_t *incarnation)
{
    uint32_t index = 0;
    while (index < self->worker_used && self->workers[index].used) {
        index++;
    }
    if (index == DKT_BROKER_WORKERS_MAX) {
        return DKT_RT_NONE;
    }
    if (index == self->worker_used) {
        self->worker_used++;
    }
    dkt_rt_worker_t *worker = &self->workers[index];
    memset(worker, 0, sizeof *worker);
    worker->used = true;
    worker->incarnation = *incarnation;
    worker->member = s_member_of(self, incarnation);
    dkt_rt_list_init(&worker->queued);
    dkt_rt_list_init(&worker->sent);
    if (worker->member != DKT_VSHARD_NOBODY) {
        self->worker_of_member[worker->member] = index;
    }
    return index;
}

static void s_welcome(dkt_router_t *self, const dkt_address_t *to)
{
    uint8_t bytes[DKT_LINK_HEADER_BYTES];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_link_begin(&w, DKT_LINK_WELCOME, self->table.version, &self->config.incarnation);
    dkt_link_finish(&w, 0);
    /* Not taken: the next beat is answered again. */
    (void)self->port.to_worker(self->port.ctx, to, w.data, w.len);
}

static bool s_take_hello(dkt_router_t *self, dkt_instant_t now, const dkt_address_t *from,
                         const dkt_link_header_t *header, dkt_r_t *r)
{
    char node[DKT_NODE_BYTES_MAX + 1];
    if (header->count != 1 || !dkt_link_get_node(r, node, sizeof node) || !dkt_link_end(r)) {
        return false;
    }
    uint32_t index = s_find_worker(self, &header->sender);
    bool known = index != DKT_RT_NONE;
    index = known ? index : s_add_worker(self, &header->sender);
    if (index == DKT_RT_NONE) {
        self->port.log(self->port.ctx, DKT_LOG_WARN, "too many workers: one is ignored");
        return true;
    }
    dkt_rt_worker_t *worker = &self->workers[index];
    bool lived = known && dkt_rt_worker_lives(self, now, index);
    bool moved = known && (worker->address.len != from->len ||
                           memcmp(worker->address.bytes, from->bytes, from->len) != 0);
    worker->address = *from;
    worker->connected = true;
    worker->silent = false;
    worker->heard_mono_ms = now.mono_ms;
    memcpy(worker->node, node, sizeof node);
    if (!lived) {
        s_log_worker(self, DKT_LOG_INFO, worker, known ? "is back" : "is here");
    }
    s_welcome(self, from);
    /* A new connection: what went out on the old one may be lost, either way. */
    if (moved) {
        s_sift(self, now, &worker->sent, true);
    }
    if (!lived && worker->member != DKT_VSHARD_NOBODY) {
        dkt_rt_wake(self, now, false);
    }
    return true;
}

void dkt_rt_workers_tick(dkt_router_t *self, dkt_instant_t now)
{
    for (uint32_t i = 0; i < self->worker_used; i++) {
        dkt_rt_worker_t *worker = &self->workers[i];
        int64_t silence_ms = now.mono_ms - worker->heard_mono_ms;
        if (!worker->used || silence_ms <= DKT_LINK_SILENCE_MS) {
            continue;
        }
        if (!worker->silent) {
            worker->silent = true;
            s_log_worker(self, DKT_LOG_WARN, worker, "is silent");
            s_sift(self, now, &worker->queued, true);
        }
        if (silence_ms > DKT_BROKER_FORGET_MS && worker->member == DKT_VSHARD_NOBODY) {
            s_sift(self, now, &worker->sent, true);
            s_log_worker(self, DKT_LOG_INFO, worker, "is forgotten");
            worker->used = false;
        }
    }
}

/* -- the table -------------------------------------------------------------------------------- */

static bool s_keys_differ(const dkt_table_t *a, const dkt_table_t *b)
{
    bool differ = a->key_count != b->key_count;
    for (uint32_t i = 0; !differ && i < a->key_count; i++) {
        differ =
            a->keys[i].kid != b->keys[i].kid ||
            memcmp(a->keys[i].public_key, b->keys[i].public_key, sizeof a->keys[i].public_key) != 0;
    }
    return differ;
}

static void s_adopt_table(dkt_router_t *self, dkt_instant_t now)
{
    bool keys_differ = s_keys_differ(&self->table, &self->incoming);
    self->table = self->incoming;
    if (keys_differ) {
        dkt_rt_tokens_forget(self);
    }
    memset(self->worker_of_member, 0xff, sizeof self->worker_of_member);
    for (uint32_t i = 0; i < self->worker_used; i++) {
        dkt_rt_worker_t *worker = &self->workers[i];
        worker->member = worker->used ? s_member_of(self, &worker->incarnation) : DKT_VSHARD_NOBODY;
        if (worker->member != DKT_VSHARD_NOBODY) {
            self->worker_of_member[worker->member] = i;
        }
    }
    for (uint32_t i = 0; i < self->worker_used; i++) {
        if (self->workers[i].used) {
            s_sift(self, now, &self->workers[i].queued, false);
            s_sift(self, now, &self->workers[i].sent, false);
        }
    }
    dkt_rt_wake(self, now, true);
    char text[S_LOG_BYTES];
    snprintf(text, sizeof text, "table %llu.%llu with %u workers",
             (unsigned long long)self->table.version.epoch,
             (unsigned long long)self->table.version.version, self->table.member_count);
    self->port.log(self->port.ctx, DKT_LOG_INFO, text);
}

static bool s_take_table(dkt_router_t *self, dkt_instant_t now, const dkt_address_t *from,
                         const dkt_link_header_t *header, dkt_r_t *r)
{
    (void)from;
    if (header->count != 1 || !dkt_link_get_table(r, &self->incoming) || !dkt_link_end(r)) {
        return false;
    }
    if (dkt_table_version_compare(self->incoming.version, self->table.version) > 0) {
        s_adopt_table(self, now);
    }
    return true;
}

void dkt_router_offer_table(dkt_router_t *self, dkt_instant_t now, const dkt_table_t *table)
{
    if (dkt_table_version_compare(table->version, self->table.version) > 0) {
        self->incoming = *table;
        s_adopt_table(self, now);
    }
}

/* -- answers ---------------------------------------------------------------------------------- */

/* The owner gave it back undecided. If it knows a newer table, that one will come; otherwise the
 * two see it differently for a moment, and it is tried again a little later. */
static void s_take_moved(dkt_router_t *self, dkt_instant_t now, uint32_t index,
                         const dkt_link_header_t *header)
{
    dkt_rt_open_t *open = &self->opens[index];
    bool newer = dkt_table_version_compare(header->table, self->table.version) > 0;
    dkt_rt_unplace(self, index);
    if (now.mono_ms >= open->deadline_mono_ms) {
        dkt_rt_unavailable(self, now, index, "its owner is moving");
    } else {
        s_wait(self, index, now.mono_ms + (newer ? DKT_BROKER_TABLE_WAIT_MS : DKT_BROKER_RETRY_MS));
    }
}

/* An owner that says "nothing has happened" speaks for itself only: if an earlier owner may have
 * carried the request out, the honest answer is that nobody knows. */
static bool s_hides_doubt(const dkt_rt_open_t *open, const dkt_link_answer_t *answer)
{
    dkt_answer_t decoded;
    dkt_err_t err;
    return open->losses > 0 &&
           (dkt_answer_decode(answer->body.data, answer->body.len, &decoded, &err) != DKT_OK ||
            dkt_status_retry(decoded.status) == DKT_RETRY_SAME);
}

static void s_pass_on(dkt_router_t *self, dkt_instant_t now, uint32_t index,
                      const dkt_link_answer_t *answer)
{
    if (answer->body.len == 0 || s_hides_doubt(&self->opens[index], answer)) {
        dkt_rt_unavailable(self, now, index, "its owner was replaced");
        return;
    }
    self->counts.answered++;
    dkt_rt_count(self, now, &self->opens[index],
                 dkt_ending_of(answer->body.data, answer->body.len));
    dkt_rt_answer(self, now, self->opens[index].connection, answer->body);
    /* Room may have been made by a flush in which the client turned out to be gone. */
    if (self->opens[index].state != DKT_RT_FREE) {
        dkt_rt_close(self, index);
    }
}

static void s_take_answer(dkt_router_t *self, dkt_instant_t now, uint32_t worker,
                          const dkt_link_header_t *header, const dkt_link_answer_t *answer)
{
    dkt_rt_open_t *open = dkt_rt_find(self, answer->seq);
    if (!open) {
        self->counts.late_dropped++;
        return;
    }
    uint32_t index = dkt_rt_index(self, open);
    if (open->state != DKT_RT_SENT || open->worker != worker) {
        self->counts.stale_dropped++;
    } else if (!s_is_right(self, open)) {
        self->counts.stale_dropped++;
        s_requeue(self, now, index);
    } else if (answer->outcome == DKT_OUTCOME_MOVED) {
        s_take_moved(self, now, index, header);
    } else {
        s_pass_on(self, now, index, answer);
    }
}

static bool s_take_answers(dkt_router_t *self, dkt_instant_t now, const dkt_address_t *from,
                           const dkt_link_header_t *header, dkt_r_t *r)
{
    (void)from;
    uint32_t worker = s_find_worker(self, &header->sender);
    if (worker == DKT_RT_NONE) {
        self->counts.stale_dropped += header->count;
        return true;
    }
    /* Only a beat ends a silence, because it also wakes those who wait for it. */
    if (dkt_rt_worker_lives(self, now, worker)) {
        self->workers[worker].heard_mono_ms = now.mono_ms;
    }
    dkt_link_answer_t answer;
    for (uint16_t i = 0; i < header->count; i++) {
        if (!dkt_link_get_answer(r, &answer)) {
            return false;
        }
        s_take_answer(self, now, worker, header, &answer);
    }
    return dkt_link_end(r);
}

typedef bool(s_take_fn)(dkt_router_t *self, dkt_instant_t now, const dkt_address_t *from,
                        const dkt_link_header_t *header, dkt_r_t *r);

/* By kind; a broker takes nothing else. */
static s_take_fn *const s_takers[DKT_LINK_KINDS_END] = {
    [DKT_LINK_HELLO] = s_take_hello,
    [DKT_LINK_TABLE] = s_take_table,
    [DKT_LINK_ANSWERS] = s_take_answers,
    [DKT_LINK_CONTEXT] = dkt_rt_take_context,
};

void dkt_router_worker(dkt_router_t *self, dkt_instant_t now, const dkt_address_t *from,
                       const uint8_t *bytes, size_t len)
{
    dkt_r_t r;
    dkt_link_header_t header;
    if (!dkt_link_open(&r, bytes, len, &header) || !s_takers[header.kind] ||
        !s_takers[header.kind](self, now, from, &header, &r)) {
        self->counts.link_malformed++;
    }
}
