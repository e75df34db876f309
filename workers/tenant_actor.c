/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tenant_actor.h"

#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <czmq.h>
#include <sodium.h>

#include "lib/edge/clock.h"
#include "lib/edge/keys.h"
#include "lib/edge/log.h"
#include "lib/edge/pgstore.h"
#include "workers/hasher.h"
#include "workers/relay_feed.h"
#include "workers/teller.h"

#define S_TOKEN_TTL_MS      900000
#define S_MAILBOX_MAX       (2 * DKT_MAILBOX_MAX) /* works, and as many results of hashing */
#define S_INCARNATION_CHARS (2 * DKT_INCARNATION_BYTES + 1)
#define S_POLL_MAX_MS       1000 /* also the resolution of "idle" */

struct dkt_actor {
    dkt_actor_config_t config;
    zactor_t *zactor;
    dkt_mailbox_t *box;
    atomic_uint open_count;          /* works taken and not yet passed on */
    atomic_llong idle_since_mono_ms; /* 0: busy */
    dkt_mail_t *fed_head, *fed_tail; /* the node loop's: works until dkt_actor_feed */
    uint32_t fed_count;              /* < DKT_TENANT_CHUNK */
    /* below: the actor's thread only */
    zsock_t *pipe;
    dkt_tenant_t *core;
    dkt_pgstore_t *store;
    dkt_relay_feed_t feed;
    dkt_mail_t *out_head, *out_tail; /* answers of this turn that have not gone yet */
    uint32_t out_count;              /* < DKT_TENANT_CHUNK */
    dkt_tenant_counts_t counted;     /* what the worker's statistics have of this tenant */
    atomic_uint *connections;        /* of its cluster, for the statistics */
    uint32_t connected;              /* of them, 0 or 1 */
    bool fresh;                      /* something was fed and not flushed */
    dkt_actor_turn_t turn;
    bool turn_asked;          /* and not left since: it has a place, or waits for one */
    int64_t turn_due_mono_ms; /* it goes without one then; INT64_MAX: it does not wait */
    uint32_t batch_count;     /* of the core's batches, those on their way */
    bool served;              /* READY was told */
    bool changed;    /* `changes` has rows that the control database lacks, and nobody was told */
    bool terminated; /* $TERM came: the node loop waits for the thread */
    char store_text[DKT_ERR_TEXT_BYTES_MAX]; /* why the store was lost */
    dkt_actor_mail_t *ended;                 /* made in advance, so that the end cannot fail */
};

/* -- port of the core -- */

static void s_port_submit(void *ctx, const dkt_batch_t *batch)
{
    dkt_actor_t *self = ctx;
    self->batch_count++;
    dkt_relay_feed_submit(&self->feed, batch);
    if (batch->kind == DKT_BATCH_COMMIT) {
        dkt_tenant_counts_t counts;
        dkt_tenant_counts(self->core, &counts);
        dkt_meter_add(&self->config.env->stats.group_size,
                      counts.group_requests - self->counted.group_requests);
        self->counted.group_requests = counts.group_requests;
    }
    dkt_pgstore_submit(self->store, batch);
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

static void s_flush_out(dkt_actor_t *self)
{
    bool pushed = dkt_mailbox_push_list(self->config.env->node_box, self->out_head);
    assert(pushed);
    self->out_head = NULL;
    self->out_tail = NULL;
    self->out_count = 0;
}

static void s_put_out(dkt_actor_t *self, dkt_mail_t *mail)
{
    s_append(&self->out_head, &self->out_tail, mail);
    atomic_fetch_sub(&self->open_count, 1);
    if (++self->out_count == DKT_TENANT_CHUNK) {
        s_flush_out(self);
    }
}

static void s_port_give_back(void *ctx, dkt_work_t *work);

/* set_tenant with settings and `suspended`: the owner decides first, because it may refuse. Once it
 * has said ok, what is left goes back to the node loop, which takes it to the directory. */
static bool s_half_done(const dkt_work_mail_t *mail, const uint8_t *bytes, size_t len)
{
    dkt_answer_t answer;
    dkt_err_t err;
    return mail->work.method == DKT_METHOD_SET_TENANT &&
           (mail->present & DKT_PARAM_BIT(SUSPENDED)) && (mail->present & DKT_SETTINGS_PARAMS) &&
           dkt_answer_decode(bytes, len, &answer, &err) == DKT_OK && answer.status == DKT_OK &&
           answer.status_text.len == 2 && memcmp(answer.status_text.data, "ok", 2) == 0;
}

static void s_port_answer(void *ctx, dkt_work_t *work, const uint8_t *bytes, size_t len)
{
    dkt_work_mail_t *mail = dkt_work_mail(work);
    if (s_half_done(mail, bytes, len)) {
        mail->present &= ~DKT_SETTINGS_PARAMS;
        s_port_give_back(ctx, work);
        return;
    }
    dkt_answer_mail_t *answer = dkt_answer_mail(dkt_work_mail(work), bytes, len);
    s_put_out(ctx, &answer->mail);
}

static void s_port_give_back(void *ctx, dkt_work_t *work)
{
    dkt_work_mail_t *mail = dkt_work_mail(work);
    mail->mail.kind = DKT_MAIL_WORK;
    s_put_out(ctx, &mail->mail);
}

static bool s_port_hash(void *ctx, const dkt_hash_job_t *job)
{
    dkt_actor_t *self = ctx;
    dkt_hash_mail_t *hash = dkt_mail_alloc(sizeof *hash);
    hash->purpose = DKT_HASH_FOR_TENANT;
    hash->client = self->config.client;
    hash->serial = self->config.serial;
    hash->job = *job;
    if (!dkt_hasher_submit(self->config.env, hash)) {
        sodium_memzero(&hash->job, sizeof hash->job);
        free(hash);
        return false;
    }
    return true;
}

static void s_port_random(void *ctx, void *bytes, size_t len)
{
    (void)ctx;
    randombytes_buf(bytes, len);
}

static void s_port_refused(void *ctx, const char *ticket_type, const char *reason,
                           int64_t earliest_ms)
{
    dkt_actor_t *self = ctx;
    dkt_teller_refused(self->config.env, &self->config.client, ticket_type, reason, earliest_ms);
}

static void s_port_changed(void *ctx, const dkt_settings_t *settings)
{
    (void)settings; /* read from the database, by whoever carries them over */
    ((dkt_actor_t *)ctx)->changed = true;
}

/* A full mailbox: again in the next turn. Should this worker die first, the tenant's next owner
 * sees that the control database is behind (s_on_result). */
static void s_tell_changed(dkt_actor_t *self)
{
    if (!self->changed) {
        return;
    }
    dkt_changes_mail_t *mail = dkt_mail_alloc(sizeof *mail);
    mail->client = self->config.client;
    mail->mail.kind = DKT_MAIL_CHANGES;
    self->changed = !dkt_mailbox_push(self->config.env->accounts_box, &mail->mail);
    if (self->changed) {
        free(mail);
    }
}

static void s_port_migrated(void *ctx, const dkt_migrated_t *migrated)
{
    dkt_actor_t *self = ctx;
    dkt_migrated_mail_t *mail = dkt_mail_alloc(sizeof *mail);
    mail->client = self->config.client;
    mail->target = migrated->target;
    mail->version = migrated->version;
    mail->failed = migrated->outcome == DKT_MIGRATE_FAILED;
    snprintf(mail->text, sizeof mail->text, "%s", migrated->text);
    dkt_mail_post(self->config.env->node_box, &mail->mail, DKT_MAIL_MIGRATED);
}

static void s_port_log(void *ctx, dkt_log_level_t level, const char *text)
{
    dkt_actor_t *self = ctx;
    dkt_id_text_t client;
    dkt_client_text(&self->config.client, &client);
    dkt_log(level, "%s: %s", client.text, text);
}

/* -- events into the core -- */

/* Results and ticks gather decisions too, so each turn that had any event ends with a FLUSH. */
static void s_step(dkt_actor_t *self, const dkt_tenant_event_t *event)
{
    self->fresh = event->kind != DKT_TEV_FLUSH;
    dkt_tenant_step(self->core, dkt_clock_mono_ms(), event);
}

static void s_step_kind(dkt_actor_t *self, dkt_tenant_event_kind_t kind)
{
    s_step(self, &(dkt_tenant_event_t){.kind = kind});
}

static bool s_is_over(const dkt_actor_t *self)
{
    return dkt_tenant_state(self->core) == DKT_TENANT_ENDED;
}

static void s_leave_turn(dkt_actor_t *self)
{
    if (self->turn_asked) {
        dkt_worker_turns_leave(&self->config.env->turns, &self->turn);
    }
    self->turn_asked = false;
    self->turn_due_mono_ms = INT64_MAX;
}

/* A FLUSH goes at once where anybody waits for it. What nobody waits for takes turns with the other
 * tenants', until its last batch is answered; whoever asks meanwhile takes it along. */
static void s_flush(dkt_actor_t *self)
{
    if (dkt_tenant_background(self->core)) {
        self->turn_asked = true;
        if (!dkt_worker_turns_ask(&self->config.env->turns, &self->turn, dkt_clock_mono_ms(),
                                  &self->turn_due_mono_ms)) {
            return;
        }
    }
    s_step_kind(self, DKT_TEV_FLUSH);
    if (self->batch_count == 0) {
        s_leave_turn(self);
    }
}

static void s_on_result(void *ctx, const dkt_store_result_t *result)
{
    dkt_actor_t *self = ctx;
    bool relays = result->kind == DKT_BATCH_RELAY_READ || result->kind == DKT_BATCH_RELAY_MARK;
    self->batch_count -= relays ? 0 : 1;
    if (!relays && self->batch_count == 0) {
        s_leave_turn(self);
    }
    if (result->kind == DKT_BATCH_LOAD && result->outcome == DKT_STORE_OK &&
        result->changes_seq > self->config.home.changes_seq) {
        self->changed = true;
    }
    if (!dkt_relay_feed_result(&self->feed, result) && !s_is_over(self)) {
        s_step(self, &(dkt_tenant_event_t){.kind = DKT_TEV_RESULT, .result = result});
    }
}

static void s_on_state(void *ctx, dkt_pgstore_state_t state, const char *text)
{
    dkt_actor_t *self = ctx;
    dkt_stats_gauge(self->connections, &self->connected, state == DKT_PGSTORE_READY);
    if (state == DKT_PGSTORE_LOST) {
        snprintf(self->store_text, sizeof self->store_text, "%s", text);
    }
    if (!s_is_over(self)) {
        s_step_kind(self, state == DKT_PGSTORE_READY ? DKT_TEV_CONNECTED : DKT_TEV_LOST);
    }
}

static void s_take_command(dkt_actor_t *self)
{
    char *command = zstr_recv_nowait(self->pipe);
    if (!command) {
        return;
    }
    if (strcmp(command, "SUSPEND") == 0 || strcmp(command, "RESUME") == 0) {
        s_step(self, &(dkt_tenant_event_t){.kind = DKT_TEV_SUSPEND, .flag = command[0] == 'S'});
    } else if (strcmp(command, "DRAIN") == 0) {
        s_step_kind(self, DKT_TEV_DRAIN);
    } else {
        assert(strcmp(command, "$TERM") == 0);
        self->terminated = true;
    }
    zstr_free(&command);
}

static void s_take_mail(dkt_actor_t *self)
{
    dkt_mail_t *mail = dkt_mailbox_drain(self->box);
    while (mail) {
        dkt_mail_t *next = mail->next;
        dkt_mail_look_ahead(mail, self->core);
        if (mail->kind == DKT_MAIL_WORK) {
            dkt_work_t *work = &((dkt_work_mail_t *)mail)->work;
            if (s_is_over(self)) {
                s_port_give_back(self, work);
            } else {
                s_step(self, &(dkt_tenant_event_t){.kind = DKT_TEV_REQUEST, .work = work});
            }
        } else if (mail->kind == DKT_MAIL_RELAY_ASK) {
            if (!s_is_over(self)) {
                dkt_relay_feed_ask(&self->feed, (const dkt_relay_ask_mail_t *)mail, self->store);
            }
            free(mail);
        } else if (mail->kind == DKT_MAIL_MIGRATE) {
            int32_t target = ((const dkt_migrate_mail_t *)mail)->target;
            if (!s_is_over(self)) {
                s_step(self,
                       &(dkt_tenant_event_t){.kind = DKT_TEV_MIGRATE, .schema_version = target});
            }
            free(mail);
        } else {
            assert(mail->kind == DKT_MAIL_HASHED);
            const dkt_hash_job_t *job = &((dkt_hash_mail_t *)mail)->job;
            if (!s_is_over(self)) {
                s_step(self, &(dkt_tenant_event_t){.kind = DKT_TEV_HASHED, .job = job});
            }
            free(mail);
        }
        mail = next;
    }
}

/* -- the loop -- */

static int s_wait_ms(const dkt_actor_t *self, int64_t now_mono_ms)
{
    int64_t due_mono_ms = dkt_tenant_due_mono_ms(self->core);
    int64_t store_due_mono_ms = dkt_pgstore_due_mono_ms(self->store);
    due_mono_ms = store_due_mono_ms < due_mono_ms ? store_due_mono_ms : due_mono_ms;
    due_mono_ms = self->turn_due_mono_ms < due_mono_ms ? self->turn_due_mono_ms : due_mono_ms;
    if (due_mono_ms <= now_mono_ms) {
        return 0;
    }
    int64_t wait_ms = due_mono_ms - now_mono_ms;
    return wait_ms < S_POLL_MAX_MS ? (int)wait_ms : S_POLL_MAX_MS;
}

static void s_tell_ready(dkt_actor_t *self)
{
    if (self->served || dkt_tenant_state(self->core) != DKT_TENANT_SERVING) {
        return;
    }
    self->served = true;
    dkt_relay_feed_begin(&self->feed);
    dkt_actor_mail_t *ready = dkt_mail_alloc(sizeof *ready);
    ready->client = self->config.client;
    ready->serial = self->config.serial;
    dkt_mail_post(self->config.env->node_box, &ready->mail, DKT_MAIL_READY);
}

static void s_note_idle(dkt_actor_t *self, int64_t now_mono_ms)
{
    if (!dkt_tenant_idle(self->core, now_mono_ms) || !dkt_relay_feed_settled(&self->feed)) {
        atomic_store(&self->idle_since_mono_ms, 0);
    } else if (atomic_load(&self->idle_since_mono_ms) == 0) {
        atomic_store(&self->idle_since_mono_ms, now_mono_ms);
    }
}

/* `end`: this tenant has nothing here any more. */
static void s_note_stats(dkt_actor_t *self, bool end)
{
    dkt_worker_stats_t *stats = &self->config.env->stats;
    dkt_tenant_counts_t counts = {.held = 0};
    dkt_tenant_counts(self->core, &counts);
    dkt_stats_gauge(&stats->holds, &self->counted.held, end ? 0 : counts.held);
    dkt_stats_gauge(&stats->open_tickets, &self->counted.open, end ? 0 : counts.open);
    dkt_stats_total(&stats->breaches, &self->counted.breached, counts.breached);
}

/* One turn: wait, take everything that is there, decide once, send what was answered. */
static void s_turn(dkt_actor_t *self)
{
    int fd = dkt_pgstore_fd(self->store);
    short events = dkt_pgstore_events(self->store);
    zmq_pollitem_t items[] = {
        {.socket = zsock_resolve(self->pipe), .events = ZMQ_POLLIN},
        {.fd = dkt_mailbox_fd(self->box), .events = ZMQ_POLLIN},
        {.fd = fd,
         .events =
             (short)((events & POLLIN ? ZMQ_POLLIN : 0) | (events & POLLOUT ? ZMQ_POLLOUT : 0))},
    };
    (void)zmq_poll(items, fd >= 0 ? 3 : 2, s_wait_ms(self, dkt_clock_mono_ms()));
    if (items[0].revents) {
        s_take_command(self);
    }
    if (items[1].revents) {
        s_take_mail(self);
    }
    int64_t now_mono_ms = dkt_clock_mono_ms();
    bool store_due = dkt_pgstore_due_mono_ms(self->store) <= now_mono_ms;
    if (!s_is_over(self) && (store_due || (fd >= 0 && items[2].revents))) {
        dkt_pgstore_ready(self->store, now_mono_ms);
    }
    if (!s_is_over(self) && dkt_tenant_due_mono_ms(self->core) <= dkt_clock_mono_ms()) {
        s_step_kind(self, DKT_TEV_TICK);
    }
    if (!s_is_over(self) && self->fresh) {
        s_flush(self);
    }
    s_tell_ready(self);
    s_note_idle(self, dkt_clock_mono_ms());
    s_tell_changed(self);
    s_flush_out(self);
    s_note_stats(self, false);
    dkt_relay_feed_flush(&self->feed);
}

static bool s_open(dkt_actor_t *self)
{
    static const dkt_tenant_port_t port = {
        .submit = s_port_submit,
        .answer = s_port_answer,
        .give_back = s_port_give_back,
        .hash = s_port_hash,
        .random = s_port_random,
        .refused = s_port_refused,
        .changed = s_port_changed,
        .migrated = s_port_migrated,
        .log = s_port_log,
    };
    const dkt_env_t *env = self->config.env;
    const dkt_home_t *home = &self->config.home;
    char password[44], incarnation[S_INCARNATION_CHARS];
    dkt_keys_role_password(env->master, home->database, password);
    sodium_bin2hex(incarnation, sizeof incarnation, env->incarnation.bytes,
                   sizeof env->incarnation.bytes);
    dkt_pgstore_config_t store = {.host = home->host,
                                  .port = home->port,
                                  .dbname = home->database,
                                  .user = home->database,
                                  .password = password,
                                  .node = env->node,
                                  .incarnation = incarnation};
    dkt_tenant_config_t core = {.client = self->config.client,
                                .table = self->config.table,
                                .id_keys = &env->id_keys,
                                .token_key = &env->token_key,
                                .sub_domain = home->sub_domain,
                                .token_ttl_ms = S_TOKEN_TTL_MS,
                                .idle_ms = env->idle_ms,
                                .suspended = home->suspended,
                                .age = dkt_age_config(env->age_ms),
                                .rehearses = true};
    core.age.at_once = self->config.probe;
    dkt_tenant_port_t own_port = port;
    own_port.ctx = self;
    self->core = dkt_tenant_new(&core, &own_port, dkt_clock_mono_ms());
    self->store = dkt_pgstore_new(&store, s_on_result, s_on_state, self);
    sodium_memzero(password, sizeof password);
    return self->core && self->store;
}

static void s_copy_end(dkt_actor_t *self, dkt_actor_mail_t *mail)
{
    const dkt_tenant_end_t *end = dkt_tenant_end(self->core);
    mail->clean = end->clean;
    mail->lock_held = end->lock_held;
    mail->stale = end->stale;
    mail->refused = end->refused;
    mail->next_due_ms = dkt_relay_feed_due_ms(&self->feed, end->next_due_ms);
    snprintf(mail->text, sizeof mail->text, "%s",
             self->store_text[0] ? self->store_text : end->text);
    uint32_t count = end->suspect_count < DKT_SUSPECTS_MAX ? end->suspect_count : DKT_SUSPECTS_MAX;
    mail->suspects = count > 0 ? calloc(count, sizeof *mail->suspects) : NULL;
    if (mail->suspects) {
        memcpy(mail->suspects, end->suspects, count * sizeof *mail->suspects);
        mail->suspect_count = count;
    }
}

static void s_actor(zsock_t *pipe, void *argument)
{
    dkt_actor_t *self = argument;
    dkt_actor_mail_t *ended = self->ended;
    self->pipe = pipe;
    zsock_signal(pipe, 0);
    ended->next_due_ms = INT64_MAX;
    if (s_open(self)) {
        while (!s_is_over(self) && !self->terminated) {
            s_turn(self);
        }
        if (!s_is_over(self)) {
            s_step_kind(self, DKT_TEV_LOST);
        }
        s_copy_end(self, ended);
        s_note_stats(self, true);
    }
    s_leave_turn(self);
    dkt_stats_gauge(self->connections, &self->connected, 0);
    ended->served = self->served;
    dkt_pgstore_destroy(&self->store);
    s_flush_out(self);
    dkt_relay_feed_end(&self->feed);
    dkt_tenant_destroy(&self->core);
    dkt_mail_post(self->config.env->node_box, &ended->mail, DKT_MAIL_ENDED);
}

/* -- for the node loop -- */

dkt_actor_t *dkt_actor_new(const dkt_actor_config_t *config)
{
    dkt_actor_t *self = calloc(1, sizeof *self);
    dkt_actor_mail_t *ended = calloc(1, sizeof *ended);
    dkt_mailbox_t *box = dkt_mailbox_new(S_MAILBOX_MAX);
    if (!self || !ended || !box) {
        free(self);
        free(ended);
        dkt_mailbox_destroy(&box);
        return NULL;
    }
    self->config = *config;
    self->box = box;
    self->ended = ended;
    self->turn.box = box;
    self->turn_due_mono_ms = INT64_MAX;
    self->connections =
        dkt_stats_cluster(&config->env->stats, config->home.host, config->home.port);
    ended->client = config->client;
    ended->serial = config->serial;
    dkt_relay_feed_init(&self->feed, config->env, &config->client, config->serial);
    self->zactor = zactor_new(s_actor, self);
    assert(self->zactor);
    /* A command to an actor that has just ended must fail, not wait for a peer that is gone. */
    zsock_set_sndtimeo(zactor_sock(self->zactor), 0);
    return self;
}

bool dkt_actor_push(dkt_actor_t *self, dkt_mail_t *mail, dkt_mail_kind_t kind)
{
    mail->kind = kind;
    if (kind != DKT_MAIL_WORK) {
        return dkt_mailbox_push(self->box, mail);
    }
    if (atomic_fetch_add(&self->open_count, 1) >= DKT_MAILBOX_MAX) {
        atomic_fetch_sub(&self->open_count, 1);
        return false;
    }
    s_append(&self->fed_head, &self->fed_tail, mail);
    if (++self->fed_count == DKT_TENANT_CHUNK) {
        dkt_actor_feed(self);
    }
    return true;
}

void dkt_actor_feed(dkt_actor_t *self)
{
    bool pushed = dkt_mailbox_push_list(self->box, self->fed_head);
    assert(pushed); /* it has room for all that open_count allows */
    self->fed_head = NULL;
    self->fed_tail = NULL;
    self->fed_count = 0;
}

void dkt_actor_drain(dkt_actor_t *self)
{
    (void)zstr_send(self->zactor, "DRAIN");
}

void dkt_actor_suspend(dkt_actor_t *self, bool suspended)
{
    (void)zstr_send(self->zactor, suspended ? "SUSPEND" : "RESUME");
}

int64_t dkt_actor_idle_since_mono_ms(const dkt_actor_t *self)
{
    return atomic_load(&self->idle_since_mono_ms);
}

dkt_mail_t *dkt_actor_destroy(dkt_actor_t **self_p)
{
    dkt_actor_t *self = *self_p;
    *self_p = NULL;
    assert(!self->fed_head);
    zactor_destroy(&self->zactor);
    dkt_mail_t *rest = dkt_mailbox_drain(self->box);
    dkt_mailbox_destroy(&self->box);
    free(self);
    return rest;
}
