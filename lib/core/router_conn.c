/* SPDX-License-Identifier: Apache-2.0
 *
 * Clients' connections: a record exists only while something is open or unsent. Answers of one
 * round are chained per connection and leave in groups; what a socket does not take is copied and
 * kept, within bounds, and offered again with every tick.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "lib/core/router_internal.h"

/* -- records ---------------------------------------------------------------------------------- */

static uint32_t s_bucket(const dkt_router_t *self, uint8_t side, const dkt_address_t *address)
{
    return (uint32_t)(XXH3_64bits_withSeed(address->bytes, address->len, self->config.seed + side) %
                      DKT_RT_BUCKETS);
}

static bool s_is(const dkt_rt_connection_t *connection, uint8_t side, const dkt_address_t *address)
{
    return connection->side == side && connection->address.len == address->len &&
           memcmp(connection->address.bytes, address->bytes, address->len) == 0;
}

uint32_t dkt_rt_connect(dkt_router_t *self, dkt_audience_t side, const dkt_address_t *address)
{
    uint32_t bucket = s_bucket(self, (uint8_t)side, address);
    uint32_t index = self->buckets[bucket];
    while (index != DKT_RT_NONE && !s_is(&self->connections[index], (uint8_t)side, address)) {
        index = self->connections[index].bucket_next;
    }
    if (index != DKT_RT_NONE) {
        return index;
    }
    if (self->connection_free != DKT_RT_NONE) {
        index = self->connection_free;
        self->connection_free = self->connections[index].bucket_next;
    } else if (self->connection_used < DKT_BROKER_CONNECTIONS_MAX) {
        index = self->connection_used++;
    } else {
        return DKT_RT_NONE;
    }
    dkt_rt_connection_t *connection = &self->connections[index];
    memset(connection, 0, sizeof *connection);
    connection->used = true;
    connection->side = (uint8_t)side;
    connection->address.len = address->len;
    memcpy(connection->address.bytes, address->bytes, address->len);
    dkt_rt_list_init(&connection->open);
    connection->bucket_next = self->buckets[bucket];
    self->buckets[bucket] = index;
    self->counts.connections++;
    return index;
}

void dkt_rt_release(dkt_router_t *self, uint32_t index)
{
    dkt_rt_connection_t *connection = &self->connections[index];
    if (connection->pinned || connection->dirty || connection->open.count > 0 ||
        connection->out_count > 0 || connection->unread_count > 0) {
        return;
    }
    uint32_t *link = &self->buckets[s_bucket(self, connection->side, &connection->address)];
    while (*link != index) {
        link = &self->connections[*link].bucket_next;
    }
    *link = connection->bucket_next;
    connection->used = false;
    connection->bucket_next = self->connection_free;
    self->connection_free = index;
    self->counts.connections--;
}

/* -- answers that the socket did not take ------------------------------------------------------ */

static void s_unstick(dkt_router_t *self, dkt_rt_connection_t *connection)
{
    uint32_t prev = connection->stuck_prev, next = connection->stuck_next;
    if (prev == DKT_RT_NONE) {
        self->stuck_first = next;
    } else {
        self->connections[prev].stuck_next = next;
    }
    if (next != DKT_RT_NONE) {
        self->connections[next].stuck_prev = prev;
    }
}

static void s_stick(dkt_router_t *self, dkt_instant_t now, uint32_t index)
{
    dkt_rt_connection_t *connection = &self->connections[index];
    connection->stuck_mono_ms = now.mono_ms;
    connection->stuck_prev = DKT_RT_NONE;
    connection->stuck_next = self->stuck_first;
    if (self->stuck_first != DKT_RT_NONE) {
        self->connections[self->stuck_first].stuck_prev = index;
    }
    self->stuck_first = index;
}

static void s_keep_unread(dkt_router_t *self, dkt_instant_t now, uint32_t index, dkt_view_t body)
{
    dkt_rt_connection_t *connection = &self->connections[index];
    dkt_rt_unread_t *unread = NULL;
    if (connection->unread_count < DKT_UNREAD_ANSWERS_MAX &&
        body.len <= DKT_BROKER_UNREAD_BYTES - self->counts.unread_bytes) {
        unread = malloc(sizeof *unread + body.len);
    }
    if (!unread) {
        self->counts.unread_dropped++;
        return;
    }
    unread->next = NULL;
    unread->len = body.len;
    memcpy(unread->bytes, body.data, body.len);
    if (connection->unread_last) {
        connection->unread_last->next = unread;
    } else {
        connection->unread_first = unread;
        s_stick(self, now, index);
    }
    connection->unread_last = unread;
    connection->unread_count++;
    self->counts.unread++;
    self->counts.unread_bytes += body.len;
}

static void s_free_unread(dkt_router_t *self, dkt_rt_connection_t *connection, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        dkt_rt_unread_t *unread = connection->unread_first;
        connection->unread_first = unread->next;
        self->counts.unread--;
        self->counts.unread_bytes -= unread->len;
        free(unread);
    }
    connection->unread_count -= count;
    if (count > 0 && connection->unread_count == 0) {
        connection->unread_last = NULL;
        s_unstick(self, connection);
    }
}

void dkt_rt_connections_fini(dkt_router_t *self)
{
    while (self->stuck_first != DKT_RT_NONE) {
        dkt_rt_connection_t *connection = &self->connections[self->stuck_first];
        s_free_unread(self, connection, connection->unread_count);
    }
}

/* -- sending ---------------------------------------------------------------------------------- */

/* The client has left: nobody waits for any of its answers. */
static void s_forget(dkt_router_t *self, uint32_t index)
{
    dkt_rt_connection_t *connection = &self->connections[index];
    bool pinned = connection->pinned;
    connection->pinned = true;
    self->counts.late_dropped += connection->out_count + connection->unread_count;
    connection->out_count = 0;
    s_free_unread(self, connection, connection->unread_count);
    while (connection->open.count > 0) {
        dkt_rt_close(self, connection->open.first);
    }
    connection->pinned = pinned;
}

/* A message in the making. */
typedef struct {
    dkt_view_t frames[DKT_FRAMES_PER_MESSAGE_MAX];
    uint32_t count;
    size_t bytes;
} s_group_t;

static bool s_group_add(s_group_t *group, dkt_view_t body)
{
    if (group->count == DKT_FRAMES_PER_MESSAGE_MAX ||
        (group->count > 0 && group->bytes + body.len > DKT_BROKER_GROUP_BYTES)) {
        return false;
    }
    group->frames[group->count++] = body;
    group->bytes += body.len;
    return true;
}

static dkt_sent_t s_group_send(dkt_router_t *self, const dkt_rt_connection_t *connection,
                               const s_group_t *group)
{
    return self->port.to_client(self->port.ctx, (dkt_audience_t)connection->side,
                                &connection->address, group->frames, group->count);
}

static dkt_sent_t s_send_unread(dkt_router_t *self, dkt_instant_t now,
                                dkt_rt_connection_t *connection)
{
    dkt_sent_t sent = DKT_SENT_OK;
    while (sent == DKT_SENT_OK && connection->unread_count > 0) {
        s_group_t group;
        group.count = 0;
        group.bytes = 0;
        for (const dkt_rt_unread_t *unread = connection->unread_first; unread;
             unread = unread->next) {
            if (!s_group_add(&group, (dkt_view_t){unread->bytes, unread->len})) {
                break;
            }
        }
        sent = s_group_send(self, connection, &group);
        if (sent == DKT_SENT_OK) {
            connection->stuck_mono_ms = now.mono_ms;
            s_free_unread(self, connection, group.count);
        }
    }
    return sent;
}

/* Sends this round's answers of a connection behind those it has not read yet. */
static void s_send_outs(dkt_router_t *self, dkt_instant_t now, uint32_t index)
{
    dkt_rt_connection_t *connection = &self->connections[index];
    dkt_sent_t sent = s_send_unread(self, now, connection);
    uint32_t out = connection->out_first, left = connection->out_count;
    while (left > 0 && sent == DKT_SENT_OK) {
        s_group_t group;
        group.count = 0;
        group.bytes = 0;
        uint32_t next = out;
        while (group.count < left && s_group_add(&group, self->outs[next].body)) {
            next = self->outs[next].next;
        }
        sent = s_group_send(self, connection, &group);
        if (sent == DKT_SENT_OK) {
            out = next;
            left -= group.count;
        }
    }
    connection->out_count = left;
    if (sent == DKT_SENT_GONE) {
        s_forget(self, index);
        return;
    }
    for (; left > 0; left--) {
        s_keep_unread(self, now, index, self->outs[out].body);
        out = self->outs[out].next;
    }
    connection->out_count = 0;
}

void dkt_rt_send_answers(dkt_router_t *self, dkt_instant_t now)
{
    while (self->dirty_first != DKT_RT_NONE) {
        uint32_t index = self->dirty_first;
        self->dirty_first = self->connections[index].dirty_next;
        self->connections[index].dirty = false;
        s_send_outs(self, now, index);
        dkt_rt_release(self, index);
    }
    self->out_used = 0;
    self->arena_used = 0;
}

void dkt_rt_connections_tick(dkt_router_t *self, dkt_instant_t now)
{
    uint32_t index = self->stuck_first;
    while (index != DKT_RT_NONE) {
        dkt_rt_connection_t *connection = &self->connections[index];
        uint32_t next = connection->stuck_next;
        dkt_sent_t sent = s_send_unread(self, now, connection);
        if (sent == DKT_SENT_GONE) {
            s_forget(self, index);
        } else if (connection->unread_count > 0 &&
                   now.mono_ms - connection->stuck_mono_ms > DKT_BUDGET_MAX_MS) {
            /* No budget is longer: nobody can still be waiting for any of these. */
            self->counts.unread_dropped += connection->unread_count;
            s_free_unread(self, connection, connection->unread_count);
        }
        dkt_rt_release(self, index);
        index = next;
    }
}

/* -- answers ---------------------------------------------------------------------------------- */

void dkt_rt_answer(dkt_router_t *self, dkt_instant_t now, uint32_t index, dkt_view_t body)
{
    if (self->out_used == DKT_RT_OUT_MAX) {
        dkt_rt_send_answers(self, now);
    }
    dkt_rt_connection_t *connection = &self->connections[index];
    if (!connection->used) {
        self->counts.late_dropped++;
        return;
    }
    uint32_t out = self->out_used++;
    self->outs[out] = (dkt_rt_out_t){.body = body, .next = DKT_RT_NONE};
    if (connection->out_count++ == 0) {
        connection->out_first = out;
    } else {
        self->outs[connection->out_last].next = out;
    }
    connection->out_last = out;
    if (!connection->dirty) {
        connection->dirty = true;
        connection->dirty_next = self->dirty_first;
        self->dirty_first = index;
    }
}

/* Room for one answer of ours that lives until the flush. */
static dkt_w_t s_begin_own(dkt_router_t *self, dkt_instant_t now)
{
    /* Both kinds of room at once, so that dkt_rt_answer does not flush what is being written. */
    if (self->arena_used + DKT_RT_ANSWER_BYTES > DKT_RT_ARENA_BYTES ||
        self->out_used == DKT_RT_OUT_MAX) {
        dkt_rt_send_answers(self, now);
    }
    return dkt_w_init(self->arena + self->arena_used, DKT_RT_ANSWER_BYTES);
}

static void s_end_own(dkt_router_t *self, dkt_instant_t now, uint32_t index, const dkt_w_t *w)
{
    assert(!w->failed && "an answer of ours fits DKT_RT_ANSWER_BYTES");
    self->arena_used += w->len;
    dkt_rt_answer(self, now, index, (dkt_view_t){.data = w->data, .len = (uint32_t)w->len});
}

void dkt_rt_answer_error(dkt_router_t *self, dkt_instant_t now, uint32_t index, uint32_t msgid,
                         const dkt_err_t *err)
{
    dkt_w_t w = s_begin_own(self, now);
    dkt_answer_error(&w, msgid, err);
    s_end_own(self, now, index, &w);
}

void dkt_rt_answer_ping(dkt_router_t *self, dkt_instant_t now, uint32_t index, uint32_t msgid)
{
    dkt_w_t w = s_begin_own(self, now);
    dkt_answer_begin(&w, msgid, 3);
    dkt_w_cstr(&w, "status");
    dkt_w_cstr(&w, "ok");
    dkt_w_cstr(&w, "node");
    dkt_w_cstr(&w, self->node);
    dkt_w_cstr(&w, "version");
    dkt_w_cstr(&w, self->config.version);
    s_end_own(self, now, index, &w);
}
