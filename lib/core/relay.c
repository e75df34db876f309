/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/relay.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

dkt_relay_row_t *dkt_relay_row_new(uint64_t seq, uint32_t messages, dkt_view_t bytes,
                                   dkt_view_t tags)
{
    dkt_relay_row_t *row = malloc(sizeof *row + bytes.len + tags.len);
    if (row) {
        *row = (dkt_relay_row_t){.seq = seq, .len = bytes.len, .tags_len = tags.len};
        if (bytes.len > 0) {
            memcpy(row->bytes, bytes.data, bytes.len);
        }
        if (tags.len > 0) {
            memcpy(row->bytes + bytes.len, tags.data, tags.len);
        }
        dkt_relay_row_messages(row, messages);
    }
    return row;
}

void dkt_relay_row_messages(dkt_relay_row_t *row, uint32_t messages)
{
    assert(messages <= DKT_RELAY_MESSAGES_MAX && row->sent == 0);
    row->messages = messages;
    row->todo = messages == DKT_RELAY_MESSAGES_MAX ? UINT64_MAX : (UINT64_C(1) << messages) - 1;
}

size_t dkt_relay_row_bytes(const dkt_relay_row_t *row)
{
    return sizeof *row + row->len + row->tags_len;
}

dkt_view_t dkt_relay_row_events(const dkt_relay_row_t *row)
{
    return (dkt_view_t){.data = row->bytes, .len = row->len};
}

dkt_view_t dkt_relay_row_tags(const dkt_relay_row_t *row)
{
    return (dkt_view_t){.data = row->bytes + row->len, .len = row->tags_len};
}

void dkt_relay_init(dkt_relay_t *self)
{
    memset(self, 0, sizeof *self);
}

/* -- rows -- */

static void s_free(dkt_relay_t *self, dkt_relay_row_t *row)
{
    if (row) {
        self->bytes -= dkt_relay_row_bytes(row);
        free(row);
    }
}

static dkt_relay_row_t *s_at(const dkt_relay_t *self, uint32_t index)
{
    assert(index < self->count);
    return self->rows[(self->first + index) % DKT_RELAY_ROWS_MAX];
}

static void s_append(dkt_relay_t *self, dkt_relay_row_t *row)
{
    assert(self->count < DKT_RELAY_ROWS_MAX && row->seq > self->have_seq);
    self->rows[(self->first + self->count++) % DKT_RELAY_ROWS_MAX] = row;
    self->have_seq = row->seq;
}

static void s_pop(dkt_relay_t *self)
{
    s_free(self, s_at(self, 0));
    self->first = (self->first + 1) % DKT_RELAY_ROWS_MAX;
    self->count--;
    self->next -= self->next > 0 ? 1 : 0;
}

static void s_drop_later(dkt_relay_t *self)
{
    for (uint32_t i = 0; i < self->later_count; i++) {
        s_free(self, self->later[i]);
    }
    self->later_count = 0;
}

void dkt_relay_fini(dkt_relay_t *self)
{
    while (self->count > 0) {
        s_pop(self);
    }
    s_drop_later(self);
    assert(self->bytes == 0);
}

/* -- connection and stream -- */

/* Everything open is sent again, from the first on. */
static void s_resend(dkt_relay_t *self)
{
    for (uint32_t i = 0; i < self->count; i++) {
        s_at(self, i)->sent = 0;
    }
    self->open = 0;
    self->next = 0;
}

static void s_back_off(dkt_relay_t *self, int64_t now_ms)
{
    int64_t wait_ms = DKT_RELAY_BACKOFF_MIN_MS;
    for (uint32_t i = 0; i < self->failures && wait_ms < DKT_RELAY_BACKOFF_MAX_MS; i++) {
        wait_ms *= 2;
    }
    self->failures++;
    self->retry_ms =
        now_ms + (wait_ms < DKT_RELAY_BACKOFF_MAX_MS ? wait_ms : DKT_RELAY_BACKOFF_MAX_MS);
}

/* Progress counts on the stream that it was made on, and only while that stream still has it. */
static void s_check_stream(dkt_relay_t *self)
{
    dkt_relay_mark_t *mark = &self->mark;
    if (!self->connected || !self->kept) {
        return;
    }
    bool same = mark->stream_created_ms == self->stream.stream_created_ms &&
                mark->stream_seq <= self->stream.stream_seq;
    if (same) {
        return;
    }
    if (mark->stream_created_ms == 0 && mark->acked_seq == 0) {
        mark->stream_created_ms = self->stream.stream_created_ms; /* the first time at all */
        return;
    }
    self->rewinds++;
    while (self->count > 0) {
        s_pop(self);
    }
    s_drop_later(self);
    *mark = (dkt_relay_mark_t){.stream_created_ms = self->stream.stream_created_ms};
    self->have_seq = 0;
    self->open = 0;
    self->reading = false; /* what it brings does not fit any more: it is asked anew */
}

/* -- events -- */

static void s_on_begin(dkt_relay_t *self, int64_t now_ms, const dkt_relay_event_t *event)
{
    (void)now_ms;
    self->last_seq = event->seq;
}

/* Takes the row: behind the others, behind a read that is under way, or not at all; then it is
 * read from the store. */
static void s_on_row(dkt_relay_t *self, int64_t now_ms, const dkt_relay_event_t *event)
{
    dkt_relay_row_t *row = event->row;
    uint64_t seq = row ? row->seq : event->seq;
    (void)now_ms;
    self->last_seq = seq > self->last_seq ? seq : self->last_seq;
    if (!row) {
        return;
    }
    self->bytes += dkt_relay_row_bytes(row);
    if (self->kept && !self->reading && self->have_seq + 1 == seq &&
        self->count < DKT_RELAY_ROWS_MAX) {
        s_append(self, row);
    } else if (self->reading && self->later_count < DKT_RELAY_READ_MAX) {
        self->later[self->later_count++] = row;
    } else {
        s_free(self, row);
    }
}

static void s_on_read_row(dkt_relay_t *self, int64_t now_ms, const dkt_relay_event_t *event)
{
    (void)now_ms;
    self->bytes += dkt_relay_row_bytes(event->row);
    if (self->reading && event->row->seq > self->have_seq && self->count < DKT_RELAY_ROWS_MAX) {
        s_append(self, event->row);
    } else {
        s_free(self, event->row);
    }
}

static void s_on_read_done(dkt_relay_t *self, int64_t now_ms, const dkt_relay_event_t *event)
{
    (void)now_ms;
    if (!self->reading) {
        return; /* of before a rewind */
    }
    bool first = !self->kept;
    self->reading = false;
    if (first) {
        self->kept = true;
        self->mark = self->stored = event->mark;
        self->stream = event->stream;
        if (self->have_seq < event->mark.acked_seq) {
            self->have_seq = event->mark.acked_seq;
        }
    }
    for (uint32_t i = 0; i < self->later_count; i++) {
        dkt_relay_row_t *row = self->later[i];
        bool fits = row->seq == self->have_seq + 1 && self->count < DKT_RELAY_ROWS_MAX;
        if (fits && event->complete) {
            s_append(self, row);
        } else {
            s_free(self, row);
        }
    }
    self->later_count = 0;
    if (self->count == 0 && event->complete && self->have_seq < self->read_last_seq) {
        /* Retention took the rest: what is gone from the journal cannot be published. */
        self->have_seq = self->mark.acked_seq = self->read_last_seq;
    }
    if (first) {
        s_check_stream(self);
    }
}

static void s_on_stream(dkt_relay_t *self, int64_t now_ms, const dkt_relay_event_t *event)
{
    (void)now_ms;
    self->connected = true;
    self->stream = event->stream;
    s_resend(self);
    s_check_stream(self);
}

static void s_on_acked(dkt_relay_t *self, int64_t now_ms, const dkt_relay_event_t *event)
{
    for (uint32_t i = 0; i < self->count; i++) {
        dkt_relay_row_t *row = s_at(self, i);
        uint64_t bit = UINT64_C(1) << event->message;
        if (row->seq != event->seq || !(row->todo & bit)) {
            continue;
        }
        self->open -= row->sent & bit ? 1 : 0;
        row->todo &= ~bit;
        row->sent &= ~bit;
        self->published++;
        self->failures = 0;
        self->open_since_ms = now_ms;
        if (event->stream_seq > self->mark.stream_seq) {
            self->mark.stream_seq = event->stream_seq;
        }
        break;
    }
}

static void s_on_break(dkt_relay_t *self, int64_t now_ms, const dkt_relay_event_t *event)
{
    (void)event;
    self->connected = false;
    s_resend(self);
    s_back_off(self, now_ms);
}

static void s_on_tick(dkt_relay_t *self, int64_t now_ms, const dkt_relay_event_t *event)
{
    (void)event;
    if (self->open > 0 && now_ms - self->open_since_ms >= DKT_RELAY_ACK_MS) {
        s_resend(self);
        s_back_off(self, now_ms);
    }
    if (self->reading && now_ms - self->read_ms >= DKT_RELAY_READ_MS) {
        s_drop_later(self);
        self->reading = false;
    }
}

/* -- actions -- */

static void s_advance(dkt_relay_t *self)
{
    while (self->count > 0 && s_at(self, 0)->todo == 0) {
        self->mark.acked_seq = s_at(self, 0)->seq;
        s_pop(self);
    }
}

static void s_want_read(dkt_relay_t *self, int64_t now_ms, dkt_relay_out_t *out)
{
    bool behind = !self->kept || self->have_seq < self->last_seq;
    if (!self->connected || self->reading || !behind ||
        self->count + DKT_RELAY_READ_MAX > DKT_RELAY_ROWS_MAX) {
        return;
    }
    self->reading = true;
    self->read_ms = now_ms;
    self->read_last_seq = self->last_seq;
    out->read = true;
    out->read_from = (dkt_relay_read_t){
        .from_kept = !self->kept, .after_seq = self->have_seq, .limit = DKT_RELAY_READ_MAX};
}

static void s_want_send(dkt_relay_t *self, int64_t now_ms, uint32_t window, dkt_relay_out_t *out)
{
    if (!self->connected || !self->kept || now_ms < self->retry_ms) {
        return;
    }
    while (self->next < self->count && self->open < DKT_RELAY_WINDOW && out->send_count < window &&
           out->send_count < DKT_RELAY_WINDOW) {
        dkt_relay_row_t *row = s_at(self, self->next);
        uint64_t rest = row->todo & ~row->sent;
        if (rest == 0) {
            self->next++;
            continue;
        }
        uint32_t message = (uint32_t)__builtin_ctzll(rest);
        row->sent |= UINT64_C(1) << message;
        if (self->open++ == 0) {
            self->open_since_ms = now_ms;
        }
        out->sends[out->send_count++] = (dkt_relay_send_t){.row = row, .message = message};
    }
}

static bool s_marked(const dkt_relay_t *self)
{
    return self->mark.acked_seq == self->stored.acked_seq &&
           self->mark.stream_created_ms == self->stored.stream_created_ms;
}

static void s_want_mark(dkt_relay_t *self, int64_t now_ms, dkt_relay_out_t *out)
{
    if (!self->kept || s_marked(self) || now_ms < self->mark_due_ms) {
        return;
    }
    self->mark_due_ms = now_ms + DKT_RELAY_MARK_MS;
    self->stored = self->mark;
    out->mark = true;
    out->marked = self->mark;
}

typedef void(s_event_fn)(dkt_relay_t *self, int64_t now_ms, const dkt_relay_event_t *event);

static s_event_fn *const s_events[] = {
    [DKT_RELAY_BEGIN] = s_on_begin,       [DKT_RELAY_ROW] = s_on_row,
    [DKT_RELAY_READ_ROW] = s_on_read_row, [DKT_RELAY_READ_DONE] = s_on_read_done,
    [DKT_RELAY_STREAM] = s_on_stream,     [DKT_RELAY_ACKED] = s_on_acked,
    [DKT_RELAY_BREAK] = s_on_break,       [DKT_RELAY_TICK] = s_on_tick,
};

void dkt_relay_step(dkt_relay_t *self, int64_t now_ms, const dkt_relay_event_t *event,
                    uint32_t window, dkt_relay_out_t *out)
{
    out->read = out->mark = false;
    out->send_count = 0;
    s_events[event->kind](self, now_ms, event);
    if (event->kind == DKT_RELAY_READ_ROW) {
        return; /* READ_DONE follows */
    }
    s_advance(self);
    s_want_read(self, now_ms, out);
    s_want_send(self, now_ms, window, out);
    s_want_mark(self, now_ms, out);
}

bool dkt_relay_quiet(const dkt_relay_t *self)
{
    return self->kept && self->count == 0 && !self->reading && self->have_seq >= self->last_seq &&
           s_marked(self);
}

uint64_t dkt_relay_lag(const dkt_relay_t *self)
{
    return self->kept && self->last_seq > self->mark.acked_seq
               ? self->last_seq - self->mark.acked_seq
               : 0;
}
