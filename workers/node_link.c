/* SPDX-License-Identifier: Apache-2.0
 *
 * The links of a node loop: one DEALER per broker, one frame a message. Answers of a turn are
 * gathered and leave as one message per broker.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/edge/log.h"
#include "workers/node.h"

#define S_MESSAGES_PER_TURN 64   /* of one broker, so that no broker starves the others */
#define S_TABLE_AGAIN_MS    1000 /* a broker that still has an older table gets it once more */
#define S_HURRY_MS          20   /* HELLO interval until the first WELCOME */
#define S_LINGER_MS         500
#define S_RECONNECT_MS      100
#define S_RECONNECT_MAX_MS  1000
#define S_HEARTBEAT_MS      500
#define S_HEARTBEAT_DEAD_MS 1500
#define S_HEARTBEAT_TTL_MS  2000
#define S_SLOT_BITS         8 /* low bits of a link id */
#define S_TABLE_BYTES_MAX   32768

_Static_assert(DKT_BROKERS_MAX <= 1 << S_SLOT_BITS, "a slot must fit its bits");

static dkt_node_link_t *s_link_of(dkt_node_t *self, uint32_t id)
{
    uint32_t slot = id & ((1u << S_SLOT_BITS) - 1);
    dkt_node_link_t *link = slot < DKT_BROKERS_MAX ? &self->links[slot] : NULL;
    return link && link->used && link->id == id ? link : NULL;
}

/* Answers that are on their way under the old id will find no link. */
static void s_renew_id(dkt_node_t *self, dkt_node_link_t *link)
{
    self->link_generation++;
    link->id = (self->link_generation << S_SLOT_BITS) | (uint32_t)(link - self->links);
    link->out_count = 0;
    link->known = (dkt_table_version_t){0, 0};
    link->pushed = (dkt_table_version_t){0, 0};
}

static void s_open(dkt_node_t *self, const char *address)
{
    dkt_node_link_t *link = self->links;
    while (link < self->links + DKT_BROKERS_MAX && link->used) {
        link++;
    }
    if (link == self->links + DKT_BROKERS_MAX) {
        return; /* the directory names no more than that at once */
    }
    uint8_t *out = malloc(DKT_LINK_BYTES_MAX);
    zsock_t *sock = out ? zsock_new(ZMQ_DEALER) : NULL;
    if (!sock) {
        free(out);
        return;
    }
    zsock_set_immediate(sock, 1);
    zsock_set_linger(sock, S_LINGER_MS);
    /* No high-water mark decides: what is on its way is bounded by the broker's open requests. */
    zsock_set_sndhwm(sock, 0);
    zsock_set_rcvhwm(sock, 0);
    zsock_set_maxmsgsize(sock, DKT_LINK_BYTES_MAX);
    zsock_set_reconnect_ivl(sock, S_RECONNECT_MS);
    zsock_set_reconnect_ivl_max(sock, S_RECONNECT_MAX_MS);
    zsock_set_heartbeat_ivl(sock, S_HEARTBEAT_MS);
    zsock_set_heartbeat_timeout(sock, S_HEARTBEAT_DEAD_MS);
    zsock_set_heartbeat_ttl(sock, S_HEARTBEAT_TTL_MS);
    if (zsock_connect(sock, "%s", address) != 0) {
        dkt_log(DKT_LOG_WARN, "not an address of a broker: %s", address);
        zsock_destroy(&sock);
        free(out);
        return;
    }
    *link = (dkt_node_link_t){.used = true, .sock = sock, .out = out};
    snprintf(link->address, sizeof link->address, "%s", address);
    s_renew_id(self, link);
    dkt_log(DKT_LOG_INFO, "broker %s", address);
}

static void s_close(dkt_node_link_t *link)
{
    dkt_log(DKT_LOG_INFO, "broker %s is gone from the directory", link->address);
    zsock_destroy(&link->sock);
    free(link->out);
    *link = (dkt_node_link_t){.used = false};
}

void dkt_node_set_brokers(dkt_node_t *self, const dkt_brokers_mail_t *brokers)
{
    for (uint32_t i = 0; i < DKT_BROKERS_MAX; i++) {
        bool listed = false;
        for (uint32_t j = 0; j < brokers->count; j++) {
            listed = listed || strcmp(self->links[i].address, brokers->addresses[j]) == 0;
        }
        if (self->links[i].used && !listed) {
            s_close(&self->links[i]);
        }
    }
    for (uint32_t j = 0; j < brokers->count; j++) {
        bool open = false;
        for (uint32_t i = 0; i < DKT_BROKERS_MAX; i++) {
            open = open || (self->links[i].used &&
                            strcmp(self->links[i].address, brokers->addresses[j]) == 0);
        }
        if (!open) {
            s_open(self, brokers->addresses[j]);
        }
    }
}

void dkt_node_close_links(dkt_node_t *self)
{
    for (uint32_t i = 0; i < DKT_BROKERS_MAX; i++) {
        if (self->links[i].used) {
            s_close(&self->links[i]);
        }
    }
}

/* -- sending -- */

bool dkt_node_send(dkt_node_link_t *link, const uint8_t *bytes, size_t len)
{
    return zmq_send(zsock_resolve(link->sock), bytes, len, ZMQ_DONTWAIT) >= 0;
}

static void s_flush_link(dkt_node_t *self, dkt_node_link_t *link)
{
    if (link->out_count == 0) {
        return;
    }
    dkt_link_finish(&link->w, link->out_count);
    assert(!link->w.failed);
    if (!dkt_node_send(link, link->out, link->w.len)) {
        /* Not connected: whoever waits asks again through a broker that is. */
        self->counts.dropped_answers += link->out_count;
    }
    link->out_count = 0;
}

void dkt_node_send_answer(dkt_node_t *self, dkt_answer_mail_t *answer)
{
    assert(self->open_count > 0);
    self->open_count--;
    if (answer->outcome == DKT_OUTCOME_ANSWER) {
        uint32_t method = answer->method < DKT_METHOD_COUNT ? answer->method : DKT_METHOD_COUNT;
        uint32_t ending = dkt_ending_of(answer->bytes, answer->len);
        atomic_fetch_add_explicit(&self->env->stats.ended[method][ending], 1, memory_order_relaxed);
    }
    dkt_node_link_t *link = s_link_of(self, answer->link);
    dkt_link_answer_t row = {.seq = answer->seq,
                             .outcome = answer->outcome,
                             .body = {.data = answer->bytes, .len = answer->len}};
    size_t bytes = dkt_link_answer_bytes(&row);
    if (!link || bytes > DKT_LINK_BYTES_MAX - DKT_LINK_HEADER_BYTES) {
        self->counts.dropped_answers++;
        dkt_spare_give(&self->works, answer);
        return;
    }
    if (link->out_count > 0 &&
        (link->out_count == UINT16_MAX || link->w.max - link->w.len < bytes)) {
        s_flush_link(self, link);
    }
    if (link->out_count == 0) {
        link->w = dkt_w_init(link->out, DKT_LINK_BYTES_MAX);
        dkt_link_begin(&link->w, DKT_LINK_ANSWERS, self->table.version, &self->env->incarnation);
    }
    dkt_link_put_answer(&link->w, &row);
    link->out_count++;
    dkt_spare_give(&self->works, answer);
}

void dkt_node_flush(dkt_node_t *self)
{
    for (uint32_t i = 0; i < DKT_BROKERS_MAX; i++) {
        if (self->links[i].used) {
            s_flush_link(self, &self->links[i]);
        }
    }
}

static void s_push_table(dkt_node_t *self, dkt_node_link_t *link)
{
    uint8_t bytes[S_TABLE_BYTES_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_link_begin(&w, DKT_LINK_TABLE, self->table.version, &self->env->incarnation);
    dkt_link_put_table(&w, &self->table);
    dkt_link_finish(&w, 1);
    assert(!w.failed);
    if (dkt_node_send(link, bytes, w.len)) {
        link->pushed = self->table.version;
        link->pushed_mono_ms = self->now_mono_ms;
    }
}

static void s_say_hello(dkt_node_t *self, dkt_node_link_t *link)
{
    uint8_t bytes[DKT_LINK_HEADER_BYTES + DKT_NODE_NAME_BYTES_MAX + 16];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_link_begin(&w, DKT_LINK_HELLO, self->table.version, &self->env->incarnation);
    dkt_link_put_node(&w, self->env->node);
    dkt_link_finish(&w, 1);
    assert(!w.failed);
    (void)dkt_node_send(link, bytes, w.len);
    link->hello_mono_ms = self->now_mono_ms + (link->greeted ? DKT_LINK_BEAT_MS : S_HURRY_MS);
}

/* A table is pushed once per version at once, and again while the broker still shows an older one:
 * it may have been sent into a connection that was just breaking. */
static void s_tend(dkt_node_t *self, dkt_node_link_t *link)
{
    if (self->now_mono_ms >= link->hello_mono_ms) {
        s_say_hello(self, link);
    }
    bool older = dkt_table_version_compare(link->known, self->table.version) < 0;
    bool pushed = dkt_table_version_compare(link->pushed, self->table.version) == 0 &&
                  self->now_mono_ms < link->pushed_mono_ms + S_TABLE_AGAIN_MS;
    if (link->greeted && older && !pushed) {
        s_push_table(self, link);
    }
}

void dkt_node_beat(dkt_node_t *self)
{
    for (uint32_t i = 0; i < DKT_BROKERS_MAX; i++) {
        if (self->links[i].used) {
            s_tend(self, &self->links[i]);
        }
    }
}

/* -- receiving -- */

static void s_greet(dkt_node_t *self, dkt_node_link_t *link, const dkt_link_header_t *header)
{
    if (!link->greeted || !dkt_incarnation_equal(&link->broker, &header->sender)) {
        s_flush_link(self, link);
        s_renew_id(self, link); /* another process: its numbers mean other requests */
        link->broker = header->sender;
        link->greeted = true;
    }
    link->known = header->table;
}

static bool s_take_frame(dkt_node_t *self, dkt_node_link_t *link, const uint8_t *data, size_t len)
{
    dkt_r_t r;
    dkt_link_header_t header;
    if (!dkt_link_open(&r, data, len, &header) ||
        (header.kind != DKT_LINK_WELCOME && header.kind != DKT_LINK_REQUESTS &&
         header.kind != DKT_LINK_CONTEXT_PULL)) {
        return false;
    }
    s_greet(self, link, &header);
    if (header.kind == DKT_LINK_CONTEXT_PULL) {
        dkt_link_pull_t pull;
        if (!dkt_link_get_pull(&r, &pull)) {
            return false;
        }
        dkt_node_context_pull(self, link, &pull);
    }
    for (uint16_t i = 0; header.kind == DKT_LINK_REQUESTS && i < header.count; i++) {
        dkt_link_request_t request;
        if (!dkt_link_get_request(&r, &request)) {
            return false;
        }
        dkt_node_request(self, link, header.table, &request);
    }
    return true;
}

void dkt_node_read(dkt_node_t *self, dkt_node_link_t *link)
{
    for (int i = 0; i < S_MESSAGES_PER_TURN; i++) {
        zmq_msg_t frame;
        zmq_msg_init(&frame);
        if (zmq_msg_recv(&frame, zsock_resolve(link->sock), ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&frame);
            return;
        }
        if (!s_take_frame(self, link, zmq_msg_data(&frame), zmq_msg_size(&frame))) {
            self->counts.bad_frames++;
        }
        zmq_msg_close(&frame);
    }
}
