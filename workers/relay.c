/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/relay.h"

#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#include "lib/core/event.h"
#include "lib/core/relay.h"
#include "lib/edge/clock.h"
#include "lib/edge/log.h"
#include "workers/relay_wire.h"

#define S_BUCKETS    4096
#define S_SLOTS      (4 * DKT_RELAY_OPEN_MAX)
#define S_IDLE_MS    250
#define S_STATS_MS   250
#define S_TEXT_KEEP  65536
#define S_SILENCE_MS 10000 /* between two log lines about a NATS that is not there */

/* A tenant that is active in this worker. */
typedef struct s_tenant {
    LIST_ENTRY(s_tenant) bucket;
    TAILQ_ENTRY(s_tenant) of_busy;
    bool busy; /* in the list: something is unfinished */
    /* How late it is: when row `behind_seq`, the newest of that moment, was not published yet; 0:
     * everything was. The oldest unpublished row is at most one such step older. */
    int64_t behind_mono_ms;
    uint64_t behind_seq;
    dkt_client_t client;
    uint64_t serial;
    dkt_relay_t relay;
} s_tenant_t;

/* A message on its way. Tokens are never used twice: what a late answer means is always clear. */
typedef struct {
    uint64_t token; /* 0: free */
    dkt_client_t client;
    uint64_t serial, seq;
    uint32_t message;
} s_slot_t;

struct dkt_relay_thread {
    dkt_env_t *env;
    pthread_t thread;
    dkt_wire_t *wire;
    bool connected, broken;
    int64_t retry_mono_ms, complain_mono_ms, stats_mono_ms, now_mono_ms;
    dkt_relay_mark_t stream;
    int64_t noted_ms; /* creation of the last stream, 0: none yet */
    uint64_t token_next;
    uint32_t open_count; /* of all tenants */
    uint64_t published, rewinds, lag;
    dkt_text_buf_t text;
    TAILQ_HEAD(, s_tenant) busy;
    LIST_HEAD(, s_tenant) buckets[S_BUCKETS];
    s_slot_t slots[S_SLOTS];
};

/* -- tenants -- */

static s_tenant_t *s_find(dkt_relay_thread_t *self, const dkt_client_t *client, uint64_t serial)
{
    s_tenant_t *tenant;
    LIST_FOREACH(tenant, &self->buckets[dkt_client_vshard(client) % S_BUCKETS], bucket)
    {
        if (tenant->serial == serial && dkt_client_equal(&tenant->client, client)) {
            return tenant;
        }
    }
    return NULL;
}

static void s_note_busy(dkt_relay_thread_t *self, s_tenant_t *tenant)
{
    bool busy = !dkt_relay_quiet(&tenant->relay);
    if (busy && !tenant->busy) {
        TAILQ_INSERT_TAIL(&self->busy, tenant, of_busy);
    } else if (!busy && tenant->busy) {
        TAILQ_REMOVE(&self->busy, tenant, of_busy);
    }
    tenant->busy = busy;
    const dkt_relay_t *relay = &tenant->relay;
    if (dkt_relay_lag(relay) == 0) {
        tenant->behind_mono_ms = 0;
    } else if (tenant->behind_mono_ms == 0 || relay->mark.acked_seq >= tenant->behind_seq) {
        tenant->behind_mono_ms = self->now_mono_ms;
        tenant->behind_seq = relay->last_seq;
    }
}

static void s_forget(dkt_relay_thread_t *self, s_tenant_t *tenant)
{
    self->open_count -= tenant->relay.open;
    atomic_fetch_sub(&self->env->relay_bytes, tenant->relay.bytes);
    if (tenant->busy) {
        TAILQ_REMOVE(&self->busy, tenant, of_busy);
    }
    LIST_REMOVE(tenant, bucket);
    dkt_relay_fini(&tenant->relay);
    free(tenant);
}

/* -- sending -- */

static bool s_send(dkt_relay_thread_t *self, const s_tenant_t *tenant, const dkt_relay_send_t *send)
{
    char subject[DKT_EVENT_SUBJECT_BYTES_MAX], id[DKT_EVENT_ID_BYTES_MAX];
    const dkt_event_row_t row = {.seq = send->row->seq,
                                 .events = dkt_relay_row_events(send->row),
                                 .tags = dkt_relay_row_tags(send->row)};
    dkt_event_slice_t slice = dkt_event_slice(send->row->counts, send->message);
    if (!dkt_event_batch(&self->env->id_keys, &tenant->client, &row, &slice, &self->text)) {
        return false;
    }
    dkt_event_subject(&tenant->client, slice.type, subject);
    dkt_event_message_id(&tenant->client, send->row->seq, &slice, id);
    uint64_t token = self->token_next++;
    self->slots[token % S_SLOTS] = (s_slot_t){.token = token,
                                              .client = tenant->client,
                                              .serial = tenant->serial,
                                              .seq = send->row->seq,
                                              .message = send->message};
    return dkt_wire_publish(self->wire, token, subject, id, self->text.data, self->text.len);
}

static void s_ask(dkt_relay_thread_t *self, const s_tenant_t *tenant, const dkt_relay_out_t *out)
{
    dkt_relay_ask_mail_t *ask = dkt_mail_alloc(sizeof *ask);
    ask->client = tenant->client;
    ask->serial = tenant->serial;
    ask->read = out->read;
    ask->read_from = out->read_from;
    ask->mark = out->mark;
    ask->marked = out->marked;
    ask->mail.kind = DKT_MAIL_RELAY_ASK;
    if (!dkt_mailbox_push(self->env->node_box, &ask->mail)) {
        free(ask); /* asked again */
    }
}

static void s_step(dkt_relay_thread_t *self, s_tenant_t *tenant, const dkt_relay_event_t *event)
{
    dkt_relay_out_t out;
    dkt_relay_t *relay = &tenant->relay;
    uint64_t bytes = relay->bytes, published = relay->published, rewinds = relay->rewinds;
    uint32_t open = relay->open;
    uint32_t window =
        self->open_count < DKT_RELAY_OPEN_MAX ? DKT_RELAY_OPEN_MAX - self->open_count : 0;
    dkt_relay_step(relay, self->now_mono_ms, event, window, &out);
    self->open_count += relay->open - open;
    self->published += relay->published - published;
    self->rewinds += relay->rewinds - rewinds;
    atomic_fetch_add(&self->env->relay_bytes, relay->bytes - bytes);
    for (uint32_t i = 0; i < out.send_count && !self->broken; i++) {
        self->broken = !s_send(self, tenant, &out.sends[i]);
    }
    if (out.read || out.mark) {
        s_ask(self, tenant, &out);
    }
    s_note_busy(self, tenant);
}

static void s_step_all(dkt_relay_thread_t *self, const dkt_relay_event_t *event)
{
    for (uint32_t i = 0; i < S_BUCKETS; i++) {
        s_tenant_t *tenant;
        LIST_FOREACH(tenant, &self->buckets[i], bucket)
        {
            s_step(self, tenant, event);
        }
    }
}

/* Another stream than the last one has nothing of the journals: tenants that sleep are woken, a few
 * at a time, and see for themselves. */
static void s_note_stream(dkt_relay_thread_t *self)
{
    const int64_t created_ms = self->stream.stream_created_ms;
    if (self->noted_ms != 0 && self->noted_ms != created_ms) {
        dkt_log(DKT_LOG_INFO, "NATS: the stream is new; every journal is published again");
        dkt_mail_post_kind(self->env->node_box, DKT_MAIL_PROBE);
    }
    self->noted_ms = created_ms;
    atomic_store(&self->env->relay_stream_ms, created_ms);
}

/* -- mails -- */

static void s_on_begin(dkt_relay_thread_t *self, dkt_mail_t *mail)
{
    const dkt_relay_mail_t *begin = (const dkt_relay_mail_t *)mail;
    s_tenant_t *tenant = dkt_mail_alloc(sizeof *tenant);
    tenant->client = begin->client;
    tenant->serial = begin->serial;
    dkt_relay_init(&tenant->relay);
    LIST_INSERT_HEAD(&self->buckets[dkt_client_vshard(&begin->client) % S_BUCKETS], tenant, bucket);
    s_step(self, tenant, &(dkt_relay_event_t){.kind = DKT_RELAY_BEGIN, .seq = begin->seq});
    if (self->connected) {
        s_step(self, tenant,
               &(dkt_relay_event_t){.kind = DKT_RELAY_STREAM, .stream = self->stream});
    }
}

/* From here on the row counts as the tenant's. */
static void s_take_row(dkt_relay_thread_t *self, dkt_relay_row_t *row)
{
    atomic_fetch_sub(&self->env->relay_bytes, dkt_relay_row_bytes(row));
    uint32_t messages = 0;
    if (dkt_event_count(dkt_relay_row_events(row), row->counts)) {
        messages = dkt_event_messages(row->counts);
    }
    if (messages > DKT_RELAY_MESSAGES_MAX || (messages == 0 && row->len > 0)) {
        dkt_log(DKT_LOG_ERROR, "journal row %llu cannot be read as events",
                (unsigned long long)row->seq);
        messages = messages > DKT_RELAY_MESSAGES_MAX ? DKT_RELAY_MESSAGES_MAX : 0;
    }
    dkt_relay_row_messages(row, messages);
}

static void s_on_row(dkt_relay_thread_t *self, dkt_mail_t *mail)
{
    dkt_relay_mail_t *row = (dkt_relay_mail_t *)mail;
    s_tenant_t *tenant = s_find(self, &row->client, row->serial);
    atomic_fetch_sub(&self->env->relay_rows, 1);
    if (row->row) {
        s_take_row(self, row->row);
    }
    if (tenant) {
        s_step(self, tenant,
               &(dkt_relay_event_t){.kind = DKT_RELAY_ROW, .seq = row->seq, .row = row->row});
    } else {
        free(row->row);
    }
}

static void s_on_read(dkt_relay_thread_t *self, dkt_mail_t *mail)
{
    const dkt_relay_mail_t *read = (const dkt_relay_mail_t *)mail;
    s_tenant_t *tenant = s_find(self, &read->client, read->serial);
    for (uint32_t i = 0; i < read->count; i++) {
        s_take_row(self, read->rows[i]);
        if (tenant) {
            s_step(self, tenant,
                   &(dkt_relay_event_t){.kind = DKT_RELAY_READ_ROW, .row = read->rows[i]});
        } else {
            free(read->rows[i]);
        }
    }
    if (!tenant) {
        return;
    }
    /* Another worker may have published until a moment ago: only a fresh look can say that the
     * stream is shorter than it was. */
    if (self->connected && read->mark.stream_seq > self->stream.stream_seq) {
        self->broken = self->broken || !dkt_wire_stream(self->wire, &self->stream);
        s_note_stream(self);
    }
    s_step(self, tenant,
           &(dkt_relay_event_t){.kind = DKT_RELAY_READ_DONE,
                                .mark = read->mark,
                                .stream = self->stream,
                                .complete = read->complete});
}

static void s_on_end(dkt_relay_thread_t *self, dkt_mail_t *mail)
{
    const dkt_relay_mail_t *end = (const dkt_relay_mail_t *)mail;
    s_tenant_t *tenant = s_find(self, &end->client, end->serial);
    if (tenant) {
        s_forget(self, tenant);
    }
}

static void s_on_ack(dkt_relay_thread_t *self, dkt_mail_t *mail)
{
    const dkt_relay_ack_mail_t *ack = (const dkt_relay_ack_mail_t *)mail;
    s_slot_t slot = self->slots[ack->token % S_SLOTS];
    if (slot.token != ack->token || slot.token == 0) {
        return; /* of a connection that is over, or a second answer */
    }
    self->slots[ack->token % S_SLOTS].token = 0;
    if (!ack->good) {
        self->broken = true; /* no stream, or it takes nothing: look at it anew */
        return;
    }
    if (ack->stream_seq > self->stream.stream_seq) {
        self->stream.stream_seq = ack->stream_seq;
    }
    s_tenant_t *tenant = s_find(self, &slot.client, slot.serial);
    if (tenant) {
        s_step(self, tenant,
               &(dkt_relay_event_t){.kind = DKT_RELAY_ACKED,
                                    .seq = slot.seq,
                                    .message = slot.message,
                                    .stream_seq = ack->stream_seq});
    }
}

void dkt_relay_mail_empty(dkt_mail_t *mail)
{
    dkt_relay_mail_t *relay = (dkt_relay_mail_t *)mail;
    if (mail->kind == DKT_MAIL_RELAY_ROW) {
        free(relay->row);
    } else if (mail->kind == DKT_MAIL_RELAY_READ) {
        for (uint32_t i = 0; i < relay->count; i++) {
            free(relay->rows[i]);
        }
    }
}

typedef void(s_mail_fn)(dkt_relay_thread_t *self, dkt_mail_t *mail);

static const struct {
    dkt_mail_kind_t kind;
    s_mail_fn *handle;
} s_handlers[] = {
    {DKT_MAIL_RELAY_BEGIN, s_on_begin}, {DKT_MAIL_RELAY_ROW, s_on_row},
    {DKT_MAIL_RELAY_READ, s_on_read},   {DKT_MAIL_RELAY_END, s_on_end},
    {DKT_MAIL_RELAY_ACK, s_on_ack},
};
#define S_HANDLER_COUNT (sizeof s_handlers / sizeof s_handlers[0])

/* False when told to stop. */
static bool s_take_mail(dkt_relay_thread_t *self, bool *any)
{
    bool running = true;
    dkt_mail_t *mail = dkt_mailbox_drain(self->env->relay_box);
    *any = mail != NULL;
    while (mail) {
        dkt_mail_t *next = mail->next;
        if (mail->kind == DKT_MAIL_STOP || !running) {
            running = false;
            dkt_relay_mail_empty(mail);
        } else {
            size_t i = 0;
            while (i < S_HANDLER_COUNT && s_handlers[i].kind != mail->kind) {
                i++;
            }
            assert(i < S_HANDLER_COUNT);
            s_handlers[i].handle(self, mail);
        }
        free(mail);
        mail = next;
    }
    return running;
}

/* -- connection -- */

static void s_complain(dkt_relay_thread_t *self, const char *text)
{
    if (self->now_mono_ms >= self->complain_mono_ms) {
        self->complain_mono_ms = self->now_mono_ms + S_SILENCE_MS;
        dkt_log(DKT_LOG_WARN, "NATS: %s; events wait in the journals", text);
    }
}

static void s_break(dkt_relay_thread_t *self)
{
    s_complain(self, "the connection is over, or the stream takes nothing");
    self->connected = self->broken = false;
    atomic_store(&self->env->relay_stream_ms, 0);
    self->retry_mono_ms = self->now_mono_ms + DKT_NATS_RETRY_MS;
    memset(self->slots, 0, sizeof self->slots);
    s_step_all(self, &(dkt_relay_event_t){.kind = DKT_RELAY_BREAK});
    self->broken = false;
    dkt_wire_close(self->wire);
}

static void s_connect(dkt_relay_thread_t *self)
{
    char text[DKT_ERR_TEXT_BYTES_MAX];
    if (!dkt_wire_connect(self->wire, &self->stream, text)) {
        self->now_mono_ms = dkt_clock_mono_ms();
        self->retry_mono_ms = self->now_mono_ms + DKT_NATS_RETRY_MS;
        s_complain(self, text);
        return;
    }
    dkt_log(DKT_LOG_INFO, "NATS: connected, the stream has %llu messages",
            (unsigned long long)self->stream.stream_seq);
    self->now_mono_ms = dkt_clock_mono_ms();
    self->connected = true;
    s_note_stream(self);
    s_step_all(self, &(dkt_relay_event_t){.kind = DKT_RELAY_STREAM, .stream = self->stream});
}

/* -- statistics -- */

static void s_note_stats(dkt_relay_thread_t *self)
{
    dkt_worker_stats_t *stats = &self->env->stats;
    uint64_t lag_rows = 0, busy = 0;
    int64_t since_mono_ms = self->now_mono_ms;
    s_tenant_t *tenant;
    TAILQ_FOREACH(tenant, &self->busy, of_busy)
    {
        lag_rows += dkt_relay_lag(&tenant->relay);
        busy++;
        if (tenant->behind_mono_ms > 0 && tenant->behind_mono_ms < since_mono_ms) {
            since_mono_ms = tenant->behind_mono_ms;
        }
    }
    atomic_store(&stats->published, self->published);
    atomic_store(&stats->rewinds, self->rewinds);
    atomic_store(&stats->lag_rows, lag_rows);
    atomic_store(&stats->busy_tenants, busy);
    atomic_store(&stats->lag_ms, (uint64_t)(self->now_mono_ms - since_mono_ms));
}

/* -- the loop -- */

static void s_tick(dkt_relay_thread_t *self)
{
    s_tenant_t *tenant = TAILQ_FIRST(&self->busy);
    while (tenant) {
        s_tenant_t *next = TAILQ_NEXT(tenant, of_busy);
        s_step(self, tenant, &(dkt_relay_event_t){.kind = DKT_RELAY_TICK});
        tenant = next;
    }
    /* The last one of this turn was served first in the sharing of the window: turn the list. */
    tenant = TAILQ_FIRST(&self->busy);
    if (tenant) {
        TAILQ_REMOVE(&self->busy, tenant, of_busy);
        TAILQ_INSERT_TAIL(&self->busy, tenant, of_busy);
    }
    if (self->text.max > S_TEXT_KEEP) {
        free(self->text.data);
        self->text = (dkt_text_buf_t){.data = NULL};
    }
}

static void s_turn(dkt_relay_thread_t *self, bool any)
{
    if (self->connected && (self->broken || !dkt_wire_up(self->wire))) {
        s_break(self);
    }
    if (!self->connected && self->now_mono_ms >= self->retry_mono_ms) {
        s_connect(self);
    }
    if (self->connected) {
        s_tick(self);
    }
    if (self->now_mono_ms >= self->stats_mono_ms) {
        self->stats_mono_ms = self->now_mono_ms + S_STATS_MS;
        s_note_stats(self);
    }
    if (any || (self->connected && !TAILQ_EMPTY(&self->busy))) {
        /* Rows are gathered: one wake-up for many, and a core for those who answer requests. */
        const struct timespec pause = {.tv_nsec = DKT_RELAY_TURN_MS * 1000000L};
        nanosleep(&pause, NULL);
    }
}

static void *s_run(void *argument)
{
    dkt_relay_thread_t *self = argument;
    struct pollfd item = {.fd = dkt_mailbox_fd(self->env->relay_box), .events = POLLIN};
    bool any = false;
    do {
        bool busy = self->connected && !TAILQ_EMPTY(&self->busy);
        (void)poll(&item, 1, busy ? DKT_RELAY_TURN_MS : S_IDLE_MS);
        self->now_mono_ms = dkt_clock_mono_ms();
        if (!s_take_mail(self, &any)) {
            break;
        }
        s_turn(self, any);
    } while (true);
    return NULL;
}

dkt_relay_thread_t *dkt_relay_thread_new(dkt_env_t *env)
{
    dkt_relay_thread_t *self = calloc(1, sizeof *self);
    if (!self) {
        return NULL;
    }
    self->env = env;
    self->token_next = 1;
    TAILQ_INIT(&self->busy);
    self->wire = dkt_wire_new(env);
    if (!self->wire || pthread_create(&self->thread, NULL, s_run, self) != 0) {
        dkt_wire_destroy(&self->wire);
        free(self);
        return NULL;
    }
    return self;
}

void dkt_relay_thread_destroy(dkt_relay_thread_t **self_p)
{
    dkt_relay_thread_t *self = *self_p;
    if (!self) {
        return;
    }
    *self_p = NULL;
    dkt_mail_post_kind(self->env->relay_box, DKT_MAIL_STOP);
    pthread_join(self->thread, NULL);
    dkt_wire_destroy(&self->wire);
    for (uint32_t i = 0; i < S_BUCKETS; i++) {
        while (!LIST_EMPTY(&self->buckets[i])) {
            s_forget(self, LIST_FIRST(&self->buckets[i]));
        }
    }
    free(self->text.data);
    free(self);
}
