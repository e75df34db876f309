/* SPDX-License-Identifier: Apache-2.0
 *
 * workers/tenant_actor.c without its thread and its connection: the same mailbox, core, relay feed
 * and statement parameters; a turn runs when the chain says so, and the database answers at once.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/edge/pgstore_self.h"
#include "tests/bench/chain.h"
#include "workers/relay_feed.h"

#define S_MAILBOX_MAX  (2 * DKT_MAILBOX_MAX)
#define S_TOKEN_TTL_MS 900000
#define S_BATCHES_MAX  DKT_STORE_BATCHES_MAX
#define S_BRONZE       2 /* index of the class */
#define S_ROWS_MAX     CHAIN_REQUESTS_MAX
#define S_AGE_MS       1000 /* of the tickets that are there from the start */

struct dkt_actor {
    dkt_actor_config_t config;
    dkt_mailbox_t *box;
    uint32_t open_count;
    dkt_mail_t *fed_head, *fed_tail;
    bool runnable;
    dkt_actor_t *next; /* in chain->runnable */
    dkt_tenant_t *core;
    dkt_pgstore_t store; /* only what dkt_pgstore_send uses */
    dkt_relay_feed_t feed;
    dkt_mail_t *out_head, *out_tail;
    dkt_batch_t batches[S_BATCHES_MAX]; /* submitted and not answered, oldest first */
    uint32_t batch_first, batch_count;
    uint8_t random; /* counts up: nonces differ */
};

/* -- libpq, put in by the linker -- */

int __wrap_PQsendQueryPrepared(PGconn *conn, const char *name, int count, const char *const *values,
                               const int *lengths, const int *formats, int format);
int __wrap_PQsendPrepare(PGconn *conn, const char *name, const char *text, int count,
                         const Oid *types);
int __wrap_PQsendQueryParams(PGconn *conn, const char *text, int count, const Oid *types,
                             const char *const *values, const int *lengths, const int *formats,
                             int format);
int __wrap_PQpipelineSync(PGconn *conn);

int __wrap_PQsendQueryPrepared(PGconn *conn, const char *name, int count, const char *const *values,
                               const int *lengths, const int *formats, int format)
{
    (void)conn;
    (void)name;
    (void)count;
    (void)values;
    (void)lengths;
    (void)formats;
    (void)format;
    return 1;
}

int __wrap_PQsendPrepare(PGconn *conn, const char *name, const char *text, int count,
                         const Oid *types)
{
    (void)conn;
    (void)name;
    (void)text;
    (void)count;
    (void)types;
    return 1;
}

int __wrap_PQsendQueryParams(PGconn *conn, const char *text, int count, const Oid *types,
                             const char *const *values, const int *lengths, const int *formats,
                             int format)
{
    (void)conn;
    (void)text;
    (void)count;
    (void)types;
    (void)values;
    (void)lengths;
    (void)formats;
    (void)format;
    return 1;
}

int __wrap_PQpipelineSync(PGconn *conn)
{
    (void)conn;
    return 1;
}

/* -- the database -- */

static dkt_view_t s_text(const char *text)
{
    return (dkt_view_t){(const uint8_t *)text, (uint32_t)strlen(text)};
}

static dkt_ticket_row_t s_row(const dkt_settings_t *settings, uint64_t number)
{
    const dkt_class_t *bronze = &settings->classes[S_BRONZE];
    uint32_t first = (uint32_t)(CHAIN_START_MS / DKT_MINUTE_MS) + 1;
    uint32_t index = (uint32_t)number - 1;
    int64_t created_ms = CHAIN_START_MS - S_AGE_MS;
    return (dkt_ticket_row_t){
        .number = number,
        .request_id = {{(uint8_t)number, (uint8_t)(number >> 8), (uint8_t)(number >> 16), 0xee}},
        .class_name = s_text(bronze->name),
        .place = {.minute = first + index / settings->resolvers,
                  .lane = (uint16_t)(index % settings->resolvers)},
        .has_lane = true,
        .deadline_ms = CHAIN_START_MS + (int64_t)bronze->level_minutes * DKT_MINUTE_MS,
        .state = DKT_TICKET_OPEN,
        .created_ms = created_ms};
}

static void s_load(dkt_store_result_t *result, const dkt_settings_t *settings,
                   dkt_ticket_row_t **rows)
{
    uint32_t count = chain->config.open;
    *rows = dkt_mail_alloc((count + 1) * sizeof **rows);
    for (uint32_t i = 0; i < count; i++) {
        (*rows)[i] = s_row(settings, i + 1);
    }
    result->tickets = *rows;
    result->ticket_count = count;
    result->settings = settings;
    result->account_password = s_text("hash");
}

/* Every ticket that is asked for by number is there; no request_id is. */
static void s_read(dkt_store_result_t *result, const dkt_read_t *read,
                   const dkt_settings_t *settings)
{
    static dkt_ticket_row_t rows[S_ROWS_MAX];
    assert(read->number_count <= S_ROWS_MAX);
    for (uint32_t i = 0; i < read->number_count; i++) {
        rows[i] = s_row(settings, read->numbers[i]);
    }
    result->tickets = rows;
    result->ticket_count = read->number_count;
    result->db_ms = 0;
}

static dkt_batch_t s_take_batch(dkt_actor_t *self)
{
    dkt_batch_t batch = self->batches[self->batch_first];
    self->batch_first = (self->batch_first + 1) % S_BATCHES_MAX;
    self->batch_count--;
    return batch;
}

static void s_step(dkt_actor_t *self, const dkt_tenant_event_t *event)
{
    dkt_tenant_step(self->core, chain->mono_ms, event);
}

static void s_step_kind(dkt_actor_t *self, dkt_tenant_event_kind_t kind)
{
    s_step(self, &(dkt_tenant_event_t){.kind = kind});
}

static void s_answer_batch(dkt_actor_t *self)
{
    dkt_batch_t batch = s_take_batch(self);
    dkt_settings_t settings;
    dkt_ticket_row_t *rows = NULL;
    dkt_store_result_t result = {.kind = batch.kind,
                                 .outcome = DKT_STORE_OK,
                                 .db_ms = chain->db_ms,
                                 .locked = true,
                                 .taken = true,
                                 .epoch = 1,
                                 .last_ticket = chain->config.open};
    if (batch.kind == DKT_BATCH_LOAD || batch.kind == DKT_BATCH_READ) {
        dkt_settings_default(&settings, chain->config.resolvers);
    }
    if (batch.kind == DKT_BATCH_LOAD) {
        s_load(&result, &settings, &rows);
    } else if (batch.kind == DKT_BATCH_READ) {
        s_read(&result, &batch.read, &settings);
    }
    if (!dkt_relay_feed_result(&self->feed, &result)) {
        s_step(self, &(dkt_tenant_event_t){.kind = DKT_TEV_RESULT, .result = &result});
    }
    free(rows);
}

/* -- port of the core, as tenant_actor.c has it -- */

static void s_port_submit(void *ctx, const dkt_batch_t *batch)
{
    dkt_actor_t *self = ctx;
    dkt_relay_feed_submit(&self->feed, batch);
    dkt_pgstore_entry_t *entry = &self->store.entries[0];
    memset(entry, 0, sizeof *entry);
    entry->batch = *batch;
    bool sent = dkt_pgstore_send(&self->store, entry);
    assert(sent && self->batch_count < S_BATCHES_MAX);
    (void)sent;
    self->batches[(self->batch_first + self->batch_count++) % S_BATCHES_MAX] = *batch;
}

static void s_append(dkt_mail_t **head, dkt_mail_t **tail, dkt_mail_t *mail)
{
    mail->next = NULL;
    if (*tail) {
        (*tail)->next = mail;
    } else {
        *head = mail;
    }
    *tail = mail;
}

static void s_port_answer(void *ctx, dkt_work_t *work, const uint8_t *bytes, size_t len)
{
    dkt_actor_t *self = ctx;
    dkt_answer_mail_t *answer = dkt_answer_mail(dkt_work_mail(work), bytes, len);
    s_append(&self->out_head, &self->out_tail, &answer->mail);
    self->open_count--;
}

static void s_port_give_back(void *ctx, dkt_work_t *work)
{
    (void)ctx;
    (void)work;
    abort(); /* no scenario ends a tenant */
}

static bool s_port_hash(void *ctx, const dkt_hash_job_t *job)
{
    (void)ctx;
    (void)job;
    return false;
}

static void s_port_random(void *ctx, void *bytes, size_t len)
{
    dkt_actor_t *self = ctx;
    memset(bytes, self->random++, len);
}

static void s_port_changed(void *ctx, const dkt_settings_t *settings)
{
    (void)ctx;
    (void)settings;
}

static void s_port_log(void *ctx, dkt_log_level_t level, const char *text)
{
    (void)ctx;
    if (level >= DKT_LOG_WARN) {
        fprintf(stderr, "%s\n", text);
    }
}

/* -- turns -- */

static void s_take_mail(dkt_actor_t *self)
{
    dkt_mail_t *mail = dkt_mailbox_drain(self->box);
    while (mail) {
        dkt_mail_t *next = mail->next;
        assert(mail->kind == DKT_MAIL_WORK);
        dkt_work_t *work = &((dkt_work_mail_t *)mail)->work;
        s_step(self, &(dkt_tenant_event_t){.kind = DKT_TEV_REQUEST, .work = work});
        mail = next;
    }
}

static void s_settle(dkt_actor_t *self)
{
    s_step_kind(self, DKT_TEV_FLUSH);
    while (self->batch_count > 0) {
        s_answer_batch(self);
        s_step_kind(self, DKT_TEV_FLUSH);
    }
}

static void s_flush_out(dkt_actor_t *self)
{
    bool pushed = dkt_mailbox_push_list(chain->env.node_box, self->out_head);
    assert(pushed);
    (void)pushed;
    self->out_head = NULL;
    self->out_tail = NULL;
    dkt_relay_feed_flush(&self->feed);
}

void chain_actors_run(void)
{
    while (chain->runnable) {
        dkt_actor_t *self = chain->runnable;
        chain->runnable = self->next;
        self->runnable = false;
        s_take_mail(self);
        s_settle(self);
        s_flush_out(self);
    }
}

/* -- for the node loop: what tenant_actor.h promises -- */

dkt_actor_t *dkt_actor_new(const dkt_actor_config_t *config)
{
    static const dkt_tenant_port_t port = {.submit = s_port_submit,
                                           .answer = s_port_answer,
                                           .give_back = s_port_give_back,
                                           .hash = s_port_hash,
                                           .random = s_port_random,
                                           .changed = s_port_changed,
                                           .log = s_port_log};
    dkt_actor_t *self = dkt_mail_alloc(sizeof *self);
    dkt_tenant_config_t core = {.client = config->client,
                                .table = config->table,
                                .id_keys = &config->env->id_keys,
                                .token_key = &config->env->token_key,
                                .sub_domain = "acme",
                                .token_ttl_ms = S_TOKEN_TTL_MS,
                                .idle_ms = config->env->idle_ms};
    dkt_tenant_port_t own_port = port;
    own_port.ctx = self;
    self->config = *config;
    self->box = dkt_mailbox_new(S_MAILBOX_MAX);
    dkt_relay_feed_init(&self->feed, config->env, &config->client, config->serial);
    self->core = dkt_tenant_new(&core, &own_port, chain->mono_ms);
    assert(self->box && self->core);
    s_step_kind(self, DKT_TEV_CONNECTED);
    s_settle(self);
    assert(dkt_tenant_state(self->core) == DKT_TENANT_SERVING);
    dkt_relay_feed_begin(&self->feed);
    dkt_actor_mail_t *ready = dkt_mail_alloc(sizeof *ready);
    ready->client = config->client;
    ready->serial = config->serial;
    dkt_mail_post(config->env->node_box, &ready->mail, DKT_MAIL_READY);
    return self;
}

bool dkt_actor_push(dkt_actor_t *self, dkt_mail_t *mail, dkt_mail_kind_t kind)
{
    assert(kind == DKT_MAIL_WORK);
    mail->kind = kind;
    if (self->open_count++ >= DKT_MAILBOX_MAX) {
        self->open_count--;
        return false;
    }
    s_append(&self->fed_head, &self->fed_tail, mail);
    return true;
}

void dkt_actor_feed(dkt_actor_t *self)
{
    bool pushed = dkt_mailbox_push_list(self->box, self->fed_head);
    assert(pushed);
    (void)pushed;
    self->fed_head = NULL;
    self->fed_tail = NULL;
    if (!self->runnable) {
        self->runnable = true;
        self->next = chain->runnable;
        chain->runnable = self;
    }
}

void dkt_actor_drain(dkt_actor_t *self)
{
    (void)self;
}

void dkt_actor_suspend(dkt_actor_t *self, bool suspended)
{
    (void)self;
    (void)suspended;
}

int64_t dkt_actor_idle_since_mono_ms(const dkt_actor_t *self)
{
    (void)self;
    return 0;
}

dkt_mail_t *dkt_actor_destroy(dkt_actor_t **self_p)
{
    dkt_actor_t *self = *self_p;
    *self_p = NULL;
    s_step_kind(self, DKT_TEV_LOST);
    dkt_tenant_destroy(&self->core);
    for (int i = 0; i < DKT_COLUMNS_MAX; i++) {
        dkt_pgarray_fini(&self->store.columns[i]);
    }
    dkt_mailbox_destroy(&self->box);
    free(self);
    return NULL;
}
