/* SPDX-License-Identifier: Apache-2.0
 *
 * The loop itself: wait, read the brokers, read the mailbox, do what is due, send what was
 * answered.
 */
#include "workers/node.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/edge/clock.h"
#include "lib/edge/log.h"
#include "workers/hasher.h"

#define S_TURN_MAX_MS  20   /* beats, parked requests and back-offs are that exact */
#define S_LEAVE_MAX_MS 1500 /* a leaving worker waits this long for others to take over */
#define S_FIXED_ITEMS  2

/* -- mail -- */

static void s_on_answer(dkt_node_t *self, dkt_mail_t *mail)
{
    dkt_node_send_answer(self, (dkt_answer_mail_t *)mail);
}

static void s_on_work(dkt_node_t *self, dkt_mail_t *mail)
{
    dkt_node_route(self, (dkt_work_mail_t *)mail);
}

static void s_on_hashed(dkt_node_t *self, dkt_mail_t *mail)
{
    dkt_node_hashed(self, (dkt_hash_mail_t *)mail);
}

static void s_on_ready(dkt_node_t *self, dkt_mail_t *mail)
{
    dkt_node_ready(self, (dkt_actor_mail_t *)mail);
    free(mail);
}

static void s_on_ended(dkt_node_t *self, dkt_mail_t *mail)
{
    dkt_node_ended(self, (dkt_actor_mail_t *)mail);
    free(((dkt_actor_mail_t *)mail)->suspects);
    free(mail);
}

static void s_on_found(dkt_node_t *self, dkt_mail_t *mail)
{
    dkt_node_found(self, (dkt_lookup_mail_t *)mail);
    free(mail);
}

static void s_on_table(dkt_node_t *self, dkt_mail_t *mail)
{
    dkt_node_set_table(self, &((dkt_table_mail_t *)mail)->table);
    free(mail);
}

static void s_on_brokers(dkt_node_t *self, dkt_mail_t *mail)
{
    dkt_node_set_brokers(self, (dkt_brokers_mail_t *)mail);
    self->registered = true;
    free(mail);
}

static void s_on_context(dkt_node_t *self, dkt_mail_t *mail)
{
    dkt_node_context(self, (dkt_context_mail_t *)mail);
    free(mail);
}

static void s_on_deleting(dkt_node_t *self, dkt_mail_t *mail)
{
    dkt_node_deleting(self, (dkt_deleting_mail_t *)mail);
    free(mail);
}

/* To the activation that it is for, if that is still there. */
static void s_on_relay_ask(dkt_node_t *self, dkt_mail_t *mail)
{
    const dkt_relay_ask_mail_t *ask = (const dkt_relay_ask_mail_t *)mail;
    dkt_record_t *record = dkt_node_find(self, &ask->client);
    if (!record || !record->actor || record->serial != ask->serial ||
        !dkt_actor_push(record->actor, mail, DKT_MAIL_RELAY_ASK)) {
        free(mail);
    }
}

static void s_begin_to_leave(dkt_node_t *self)
{
    if (!self->leaving) {
        dkt_log(DKT_LOG_INFO, "leaving");
        self->leaving = true;
        self->leave_until_mono_ms = self->now_mono_ms + S_LEAVE_MAX_MS;
        dkt_mail_post_kind(self->env->directory_box, DKT_MAIL_LEAVE);
    }
}

static void s_on_rows(dkt_node_t *self, dkt_mail_t *mail)
{
    dkt_node_rows(self, (dkt_rows_mail_t *)mail);
    free(mail);
}

static void s_on_upgrades(dkt_node_t *self, dkt_mail_t *mail)
{
    dkt_node_upgrades(self, (dkt_upgrades_mail_t *)mail);
    free(mail);
}

static void s_on_migrated(dkt_node_t *self, dkt_mail_t *mail)
{
    dkt_node_migrated(self, (dkt_migrated_mail_t *)mail);
}

/* Journals of tenants that sleep must be published again, too. */
static void s_on_probe(dkt_node_t *self, dkt_mail_t *mail)
{
    self->probe_mono_ms = self->now_mono_ms;
    free(mail);
}

static void s_on_stop(dkt_node_t *self, dkt_mail_t *mail)
{
    s_begin_to_leave(self);
    free(mail);
}

typedef void(s_handler_fn)(dkt_node_t *self, dkt_mail_t *mail);

static const struct {
    dkt_mail_kind_t kind;
    s_handler_fn *handle; /* takes the mail */
} s_handlers[] = {
    {DKT_MAIL_ANSWER, s_on_answer},       {DKT_MAIL_WORK, s_on_work},
    {DKT_MAIL_HASHED, s_on_hashed},       {DKT_MAIL_READY, s_on_ready},
    {DKT_MAIL_ENDED, s_on_ended},         {DKT_MAIL_FOUND, s_on_found},
    {DKT_MAIL_TABLE, s_on_table},         {DKT_MAIL_BROKERS, s_on_brokers},
    {DKT_MAIL_CONTEXT, s_on_context},     {DKT_MAIL_STOP, s_on_stop},
    {DKT_MAIL_RELAY_ASK, s_on_relay_ask}, {DKT_MAIL_ROWS, s_on_rows},
    {DKT_MAIL_UPGRADES, s_on_upgrades},   {DKT_MAIL_MIGRATED, s_on_migrated},
    {DKT_MAIL_PROBE, s_on_probe},         {DKT_MAIL_DELETING, s_on_deleting},
};
#define S_HANDLER_COUNT (sizeof s_handlers / sizeof s_handlers[0])

static void s_take_mail(dkt_node_t *self)
{
    dkt_mail_t *mail = dkt_mailbox_drain(self->env->node_box);
    while (mail) {
        dkt_mail_t *next = mail->next;
        size_t i = 0;
        while (i < S_HANDLER_COUNT && s_handlers[i].kind != mail->kind) {
            i++;
        }
        assert(i < S_HANDLER_COUNT);
        s_handlers[i].handle(self, mail);
        mail = next;
    }
}

/* -- turn -- */

static void s_take_signal(dkt_node_t *self)
{
    struct signalfd_siginfo info;
    if (read(self->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        s_begin_to_leave(self);
    }
}

static void s_tell_ready(dkt_node_t *self)
{
    if (self->ready_fd < 0 || !self->registered) {
        return;
    }
    bool any = false, greeted = false;
    for (uint32_t i = 0; i < DKT_BROKERS_MAX; i++) {
        any = any || self->links[i].used;
        greeted = greeted || self->links[i].greeted;
    }
    if (any && !greeted) {
        return;
    }
    static const char text[] = "ready\n";
    if (write(self->ready_fd, text, sizeof text - 1) < 0) {
        dkt_log(DKT_LOG_WARN, "nobody reads the ready fd");
    }
    close(self->ready_fd);
    self->ready_fd = -1;
}

/* First the others take over, as far as there are others; then the actors drain; then it ends. */
static void s_leave(dkt_node_t *self)
{
    bool alone = self->table.member_count <= 1;
    bool taken_over = dkt_table_member(&self->table, &self->env->incarnation) < 0;
    if (self->self_member >= 0 &&
        (alone || taken_over || self->now_mono_ms >= self->leave_until_mono_ms)) {
        dkt_node_drain_all(self);
    }
    if (self->self_member < 0) {
        if (self->leave_until_mono_ms < INT64_MAX) {
            self->drain_until_mono_ms = self->now_mono_ms + DKT_DRAIN_MAX_MS;
            self->leave_until_mono_ms = INT64_MAX;
        }
        self->running = self->actor_count > 0 && self->now_mono_ms < self->drain_until_mono_ms;
    }
}

static int s_wait_ms(const dkt_node_t *self)
{
    int64_t wait_ms = self->backoff_mono_ms - dkt_clock_mono_ms();
    if (wait_ms < 0) {
        return 0;
    }
    return wait_ms < S_TURN_MAX_MS ? (int)wait_ms : S_TURN_MAX_MS;
}

static void s_turn(dkt_node_t *self)
{
    zmq_pollitem_t items[S_FIXED_ITEMS + DKT_BROKERS_MAX];
    dkt_node_link_t *links[S_FIXED_ITEMS + DKT_BROKERS_MAX];
    int count = S_FIXED_ITEMS;
    items[0] = (zmq_pollitem_t){.fd = dkt_mailbox_fd(self->env->node_box), .events = ZMQ_POLLIN};
    items[1] = (zmq_pollitem_t){.fd = self->signal_fd, .events = ZMQ_POLLIN};
    if (self->signal_fd < 0) {
        items[1].fd = items[0].fd; /* nothing to wait for: any fd will do */
    }
    for (uint32_t i = 0; i < DKT_BROKERS_MAX; i++) {
        if (self->links[i].used) {
            links[count] = &self->links[i];
            items[count++] = (zmq_pollitem_t){.socket = zsock_resolve(self->links[i].sock),
                                              .events = ZMQ_POLLIN};
        }
    }
    (void)zmq_poll(items, count, s_wait_ms(self));
    self->now_mono_ms = dkt_clock_mono_ms();
    for (int i = S_FIXED_ITEMS; i < count; i++) {
        if (items[i].revents) {
            dkt_node_read(self, links[i]);
        }
    }
    dkt_node_feed(self);
    if (self->signal_fd >= 0 && items[1].revents) {
        s_take_signal(self);
    }
    s_take_mail(self);
    dkt_node_unpark(self, false);
    dkt_node_turn(self);
    dkt_node_feed(self);
    dkt_node_flush(self);
    dkt_node_beat(self);
    s_tell_ready(self);
    if (self->leaving) {
        s_leave(self);
    }
}

/* -- life -- */

static bool s_make_nobody_hash(dkt_node_t *self)
{
    dkt_hash_job_t job = {.kind = DKT_HASH_CREATE, .password_len = DKT_PASSWORD_CHARS_MIN};
    randombytes_buf(job.password, DKT_PASSWORD_CHARS_MIN);
    dkt_hasher_run(&job);
    memcpy(self->nobody_hash, job.hash, sizeof self->nobody_hash);
    return job.ok;
}

static dkt_node_t *s_new(const dkt_node_config_t *config)
{
    dkt_node_t *self = dkt_mail_alloc(sizeof *self);
    self->env = config->env;
    self->signal_fd = config->signal_fd;
    self->ready_fd = config->ready_fd;
    self->actors_max = config->actors_max;
    self->self_member = -1;
    self->running = true;
    self->backoff_mono_ms = INT64_MAX;
    self->now_mono_ms = dkt_clock_mono_ms();
    self->account_filled_mono_ms = self->now_mono_ms;
    self->account_tokens_milli = INT64_C(1000) * DKT_ACCOUNTS_BURST;
    for (int i = 0; i < DKT_NODE_STATE_COUNT; i++) {
        TAILQ_INIT(&self->lists[i]);
    }
    TAILQ_INIT(&self->waiting);
    dkt_wake_init(&self->wake);
    self->works.room_bytes = sizeof(dkt_work_mail_t) + DKT_FRAME_BYTES_USUAL;
    self->probe_mono_ms = self->now_mono_ms + config->env->probe_ms;
    return self;
}

static void s_destroy(dkt_node_t *self)
{
    dkt_node_drop_all(self);
    while (self->parked_head) {
        dkt_mail_t *next = self->parked_head->next;
        free(self->parked_head);
        self->parked_head = next;
    }
    dkt_node_close_links(self);
    dkt_spare_fini(&self->works);
    dkt_wake_fini(&self->wake);
    if (self->ready_fd >= 0) {
        close(self->ready_fd);
    }
    free(self);
}

int dkt_node_run(const dkt_node_config_t *config)
{
    dkt_node_t *self = s_new(config);
    if (!s_make_nobody_hash(self)) {
        dkt_log(DKT_LOG_ERROR, "no memory for password hashing");
        s_destroy(self);
        return 1;
    }
    while (self->running) {
        s_turn(self);
    }
    dkt_log(DKT_LOG_INFO, "left: %llu requests, %llu activations, %u actors not drained",
            (unsigned long long)self->counts.requests, (unsigned long long)self->counts.activations,
            self->actor_count);
    s_destroy(self);
    return 0;
}
