/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/relay_feed.h"

#include <stdlib.h>
#include <time.h>

#include "lib/edge/clock.h"

void dkt_relay_feed_init(dkt_relay_feed_t *self, dkt_env_t *env, const dkt_client_t *client,
                         uint64_t serial)
{
    *self = (dkt_relay_feed_t){.env = env, .client = *client, .serial = serial};
}

static dkt_relay_mail_t *s_mail(const dkt_relay_feed_t *self, uint32_t rows)
{
    dkt_relay_mail_t *mail = dkt_mail_alloc(sizeof *mail + rows * sizeof *mail->rows);
    mail->client = self->client;
    mail->serial = self->serial;
    return mail;
}

static void s_put(dkt_relay_feed_t *self, dkt_relay_mail_t *mail, dkt_mail_kind_t kind)
{
    mail->mail.kind = kind;
    mail->mail.next = NULL;
    if (self->tail) {
        self->tail->next = &mail->mail;
    } else {
        self->head = &mail->mail;
    }
    self->tail = &mail->mail;
}

void dkt_relay_feed_submit(dkt_relay_feed_t *self, const dkt_batch_t *batch)
{
    if (batch->kind == DKT_BATCH_COMMIT && self->env->relay_box) {
        self->sent_seq = batch->commit.journal_seq;
        self->sent_events = batch->commit.journal_events;
        self->sent_tags = batch->commit.journal_tags;
        self->sent_us = dkt_clock_mono_us();
    }
}

/* Counted here, taken off by the relay. */
static bool s_fits(dkt_env_t *env)
{
    if (atomic_load(&env->relay_bytes) >= DKT_RELAY_BYTES_MAX) {
        return false;
    }
    if (atomic_fetch_add(&env->relay_rows, 1) >= DKT_RELAY_BOX_MAX) {
        atomic_fetch_sub(&env->relay_rows, 1);
        return false;
    }
    return true;
}

/* The group is durable; its memory is still the core's, so the row is copied now. */
static void s_committed(dkt_relay_feed_t *self)
{
    uint64_t seq = self->sent_seq;
    atomic_fetch_add_explicit(&self->env->stats.commits, 1, memory_order_relaxed);
    dkt_meter_add_since(&self->env->stats.commit_us, self->sent_us);
    if (seq == 0) {
        return;
    }
    self->sent_seq = 0;
    self->last_seq = seq;
    if (!s_fits(self->env)) {
        self->lost = true;
        return;
    }
    dkt_relay_mail_t *mail = s_mail(self, 0);
    mail->seq = seq;
    mail->row = dkt_relay_row_new(seq, 0, self->sent_events, self->sent_tags);
    if (mail->row) {
        atomic_fetch_add(&self->env->relay_bytes, dkt_relay_row_bytes(mail->row));
    }
    s_put(self, mail, DKT_MAIL_RELAY_ROW);
    self->lost = false; /* the relay sees the gap before this one */
}

static void s_read(dkt_relay_feed_t *self, const dkt_store_result_t *result)
{
    const dkt_view_t no_tags = {.data = NULL};
    dkt_relay_mail_t *mail = s_mail(self, result->journal_count);
    mail->mark = result->relay;
    mail->complete = result->journal_count < self->read_limit;
    for (uint32_t i = 0; i < result->journal_count; i++) {
        dkt_relay_row_t *row =
            dkt_relay_row_new(result->journal[i].seq, 0, result->journal[i].events, no_tags);
        if (!row) {
            mail->complete = false; /* the rest is read again */
            break;
        }
        mail->rows[mail->count++] = row;
        atomic_fetch_add(&self->env->relay_bytes, dkt_relay_row_bytes(row));
    }
    self->marked = result->relay;
    s_put(self, mail, DKT_MAIL_RELAY_READ);
}

bool dkt_relay_feed_result(dkt_relay_feed_t *self, const dkt_store_result_t *result)
{
    bool good = result->outcome == DKT_STORE_OK;
    if (result->kind == DKT_BATCH_TAKE && good) {
        self->epoch = result->epoch;
        self->last_seq = result->last_journal_seq;
    } else if (result->kind == DKT_BATCH_COMMIT && good && self->env->relay_box) {
        s_committed(self);
    } else if (result->kind == DKT_BATCH_RELAY_READ && good) {
        s_read(self, result);
    }
    return result->kind == DKT_BATCH_RELAY_READ || result->kind == DKT_BATCH_RELAY_MARK;
}

void dkt_relay_feed_begin(dkt_relay_feed_t *self)
{
    if (self->env->relay_box) {
        dkt_relay_mail_t *mail = s_mail(self, 0);
        mail->seq = self->last_seq;
        self->begun = true;
        s_put(self, mail, DKT_MAIL_RELAY_BEGIN);
    }
}

void dkt_relay_feed_ask(dkt_relay_feed_t *self, const dkt_relay_ask_mail_t *ask,
                        dkt_pgstore_t *store)
{
    if (ask->mark) {
        dkt_batch_t batch = {
            .kind = DKT_BATCH_RELAY_MARK, .epoch = self->epoch, .relay_mark = ask->marked};
        self->marked = ask->marked;
        dkt_pgstore_submit(store, &batch);
    }
    if (ask->read) {
        dkt_batch_t batch = {.kind = DKT_BATCH_RELAY_READ, .relay_read = ask->read_from};
        self->read_limit = ask->read_from.limit;
        dkt_pgstore_submit(store, &batch);
    }
}

void dkt_relay_feed_flush(dkt_relay_feed_t *self)
{
    if (self->lost && self->begun && s_fits(self->env)) {
        dkt_relay_mail_t *mail = s_mail(self, 0);
        mail->seq = self->last_seq;
        s_put(self, mail, DKT_MAIL_RELAY_ROW);
        self->lost = false;
    }
    while (self->head) {
        dkt_mail_t *mail = self->head;
        self->head = mail->next;
        dkt_mail_post(self->env->relay_box, mail, (dkt_mail_kind_t)mail->kind);
    }
    self->tail = NULL;
}

void dkt_relay_feed_end(dkt_relay_feed_t *self)
{
    if (self->begun) {
        s_put(self, s_mail(self, 0), DKT_MAIL_RELAY_END);
    }
    if (self->env->relay_box) {
        dkt_relay_feed_flush(self);
    }
}

static bool s_all_published(const dkt_relay_feed_t *self)
{
    int64_t stream_ms = atomic_load(&self->env->relay_stream_ms);
    return !self->begun || self->last_seq == 0 ||
           (self->marked.acked_seq >= self->last_seq &&
            (stream_ms == 0 || self->marked.stream_created_ms == stream_ms));
}

bool dkt_relay_feed_settled(const dkt_relay_feed_t *self)
{
    return atomic_load(&self->env->relay_stream_ms) == 0 || s_all_published(self);
}

int64_t dkt_relay_feed_due_ms(const dkt_relay_feed_t *self, int64_t due_ms)
{
    if (s_all_published(self)) {
        return due_ms;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t soon_ms = (int64_t)now.tv_sec * 1000 + DKT_RELAY_WAKE_MS;
    return soon_ms < due_ms ? soon_ms : due_ms;
}
