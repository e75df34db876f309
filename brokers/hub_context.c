/* SPDX-License-Identifier: Apache-2.0 */
#include "brokers/hub_context.h"

#include <stdlib.h>
#include <string.h>

#include "lib/edge/clock.h"
#include "lib/edge/mailbox.h"

#define S_ASK_MS         500 /* an answer that does not come by then fails the pull */
#define S_PULL_BYTES_MAX (DKT_LINK_HEADER_BYTES + 24 + 2 + DKT_ID_CHARS_MAX)

typedef struct {
    dkt_mail_t mail;
    uint32_t len;
    uint8_t bytes[];
} s_news_mail_t;

struct dkt_hub_context {
    dkt_incarnation_t own;
    dkt_hub_context_port_t port;
    dkt_replica_t *replica;
    dkt_mailbox_t *box;    /* news; a bounded loss is a gap */
    bool asking;           /* a question is open */
    bool begun;            /* its first chunk has come: version and hash are those of the pull */
    bool whole;            /* the same version would prove nothing */
    int64_t asked_mono_ms; /* when the open question was sent */
    dkt_context_version_t version;
    uint64_t hash;
    dkt_table_t table; /* of the port's last call; too large for a stack */
};

/* -- news, on the bus's thread -- */

static void s_on_news(natsConnection *connection, natsSubscription *subscription, natsMsg *message,
                      void *closure)
{
    dkt_hub_context_t *self = closure;
    int len = natsMsg_GetDataLength(message);
    (void)connection;
    (void)subscription;
    s_news_mail_t *mail =
        len > 0 && len <= DKT_CONTEXT_NEWS_BYTES_MAX ? malloc(sizeof *mail + (size_t)len) : NULL;
    if (mail) {
        mail->mail = (dkt_mail_t){.next = NULL};
        mail->len = (uint32_t)len;
        memcpy(mail->bytes, natsMsg_GetData(message), (size_t)len);
        if (!dkt_mailbox_push(self->box, &mail->mail)) {
            free(mail); /* a gap, which is pulled */
        }
    }
    natsMsg_Destroy(message);
}

/* -- steps -- */

static void s_ask(dkt_hub_context_t *self, const char *after);

static void s_step(dkt_hub_context_t *self, dkt_context_event_t event)
{
    dkt_context_out_t out;
    dkt_replica_step(self->replica, event, &out);
    if (out.table) {
        bool there = dkt_context_table(dkt_replica_lock(self->replica), &self->table);
        dkt_replica_unlock(self->replica);
        if (there) {
            self->port.table(self->port.ctx, &self->table);
        }
    }
    if (out.pull) {
        self->begun = false;
        self->whole = out.whole;
        s_ask(self, "");
    }
}

static void s_fail(dkt_hub_context_t *self)
{
    self->asking = false;
    s_step(self, (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_FAILED});
}

static void s_ask(dkt_hub_context_t *self, const char *after)
{
    uint8_t bytes[S_PULL_BYTES_MAX];
    dkt_context_info_t info;
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_replica_info(self->replica, &info);
    dkt_link_pull_t pull = {.epoch = info.version.epoch,
                            .seq = info.version.seq,
                            .hash = self->whole ? ~info.hash : info.hash};
    memcpy(pull.after, after, strlen(after) + 1);
    dkt_link_begin(&w, DKT_LINK_CONTEXT_PULL, (dkt_table_version_t){0, 0}, &self->own);
    dkt_link_put_pull(&w, &pull);
    dkt_link_finish(&w, 1);
    self->asking = !w.failed && self->port.ask(self->port.ctx, bytes, w.len);
    self->asked_mono_ms = dkt_clock_mono_ms();
    if (!self->asking) {
        s_fail(self);
    }
}

/* -- answers -- */

/* The first chunk says what the pull is of. False: it is over. */
static bool s_begin(dkt_hub_context_t *self, const dkt_link_chunk_t *chunk)
{
    dkt_context_info_t info;
    dkt_replica_info(self->replica, &info);
    self->version = (dkt_context_version_t){.epoch = chunk->epoch, .seq = chunk->seq};
    self->hash = chunk->hash;
    if (chunk->same) {
        s_step(self,
               (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_SAME, .version = self->version});
        return false;
    }
    if (dkt_context_version_compare(self->version, info.version) < 0) {
        s_fail(self); /* a worker that is behind us */
        return false;
    }
    self->begun = true;
    s_step(self, (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_BEGIN, .version = self->version});
    if (chunk->table.len > 0) {
        s_step(self, (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_TABLE, .body = chunk->table});
    }
    return true;
}

/* Takes the records, and then asks for more or ends it. */
static bool s_take_records(dkt_hub_context_t *self, uint16_t count, bool last, dkt_r_t *r)
{
    dkt_context_record_t record;
    dkt_id_text_t id = {.text = ""};
    for (uint16_t i = 0; i < count; i++) {
        dkt_view_t view;
        if (!dkt_link_get_view(r, &view) ||
            !dkt_context_read_record(view.data, view.len, &record)) {
            return false;
        }
        dkt_client_text(&record.client, &id);
        s_step(self, (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_RECORD, .body = view});
    }
    if (!dkt_link_end(r) || (count == 0 && !last)) {
        return false;
    }
    if (last) {
        s_step(self, (dkt_context_event_t){
                         .kind = DKT_CONTEXT_PULL_END, .hashed = true, .hash = self->hash});
    } else {
        s_ask(self, id.text);
    }
    return true;
}

bool dkt_hub_context_chunk(dkt_hub_context_t *self, const dkt_link_header_t *header, dkt_r_t *r)
{
    dkt_link_chunk_t chunk;
    if (!self->asking) {
        return true; /* it came too late */
    }
    self->asking = false;
    bool read = dkt_link_get_chunk(r, &chunk);
    if (read && !self->begun && !s_begin(self, &chunk)) {
        return true;
    }
    bool fits = read && chunk.epoch == self->version.epoch && chunk.seq == self->version.seq &&
                chunk.hash == self->hash && !chunk.same;
    if (!fits || !s_take_records(self, header->count, chunk.last, r)) {
        s_fail(self);
    }
    return read;
}

/* -- turns -- */

static void s_take_news(dkt_hub_context_t *self, bool use)
{
    dkt_mail_t *mail = dkt_mailbox_drain(self->box);
    while (mail) {
        dkt_mail_t *next = mail->next;
        const s_news_mail_t *bytes = (const s_news_mail_t *)mail;
        dkt_context_news_t news;
        if (use && dkt_context_read_news(bytes->bytes, bytes->len, &news)) {
            s_step(self, (dkt_context_event_t){.kind = DKT_CONTEXT_NEWS, .news = &news});
        }
        free(mail);
        mail = next;
    }
}

void dkt_hub_context_turn(dkt_hub_context_t *self)
{
    int64_t now_mono_ms = dkt_clock_mono_ms();
    s_take_news(self, true);
    if (self->asking && now_mono_ms - self->asked_mono_ms >= S_ASK_MS) {
        s_fail(self);
    }
    if (now_mono_ms >= dkt_replica_due_mono_ms(self->replica)) {
        s_step(self, (dkt_context_event_t){.kind = DKT_CONTEXT_TICK});
    }
}

int64_t dkt_hub_context_due_mono_ms(dkt_hub_context_t *self)
{
    int64_t due_mono_ms = dkt_replica_due_mono_ms(self->replica);
    int64_t late_mono_ms = self->asked_mono_ms + S_ASK_MS;
    return self->asking && late_mono_ms < due_mono_ms ? late_mono_ms : due_mono_ms;
}

int dkt_hub_context_fd(const dkt_hub_context_t *self)
{
    return dkt_mailbox_fd(self->box);
}

dkt_replica_t *dkt_hub_context_replica(dkt_hub_context_t *self)
{
    return self->replica;
}

/* -- life -- */

dkt_hub_context_t *dkt_hub_context_new(const dkt_incarnation_t *own,
                                       const dkt_hub_context_port_t *port)
{
    dkt_hub_context_t *self = calloc(1, sizeof *self);
    if (!self) {
        return NULL;
    }
    self->own = *own;
    self->port = *port;
    self->replica = dkt_replica_new();
    self->box = dkt_mailbox_new(DKT_CONTEXT_BOX_MAX);
    if (!self->replica || !self->box) {
        dkt_hub_context_destroy(&self);
    }
    return self;
}

bool dkt_hub_context_listen(dkt_hub_context_t *self, dkt_bus_t *bus)
{
    return dkt_bus_subscribe(bus, "docket.ctx.>", s_on_news, self);
}

void dkt_hub_context_destroy(dkt_hub_context_t **self_p)
{
    dkt_hub_context_t *self = *self_p;
    if (!self) {
        return;
    }
    *self_p = NULL;
    if (self->box) {
        s_take_news(self, false);
        dkt_mailbox_destroy(&self->box);
    }
    dkt_replica_destroy(&self->replica);
    free(self);
}
