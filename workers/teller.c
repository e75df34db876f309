/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/teller.h"

#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/edge/bus.h"
#include "lib/edge/clock.h"
#include "lib/edge/replica_answer.h"

#define S_SUBJECT_MAX 128
#define S_DIGITS      6 /* of a fraction in JSON */

struct dkt_teller {
    dkt_env_t *env;
    pthread_t thread;
    int64_t stats_mono_ms; /* when they are told next */
    dkt_stats_told_t told;
};

/* -- refusals, from any thread -- */

/* `window` keeps the times of the last ones. Once it is full nobody takes its lock before the
 * oldest is a second old: a flood of refusals costs a load each. */
static bool s_may_tell(dkt_refused_window_t *window, int64_t now_mono_ms)
{
    if (now_mono_ms < atomic_load_explicit(&window->closed_until_mono_ms, memory_order_relaxed)) {
        return false;
    }
    pthread_mutex_lock(&window->lock);
    int64_t *oldest = &window->told_mono_ms[window->next % DKT_REFUSED_PER_S];
    bool allowed = *oldest == 0 || now_mono_ms - *oldest >= DKT_STATS_MS;
    if (allowed) {
        *oldest = now_mono_ms;
        window->next++;
    } else {
        atomic_store(&window->closed_until_mono_ms, *oldest + DKT_STATS_MS);
    }
    pthread_mutex_unlock(&window->lock);
    return allowed;
}

void dkt_teller_refused(dkt_env_t *env, const dkt_client_t *client, const char *ticket_type,
                        const char *reason, int64_t earliest_ms)
{
    dkt_worker_stats_t *stats = &env->stats;
    atomic_fetch_add_explicit(&stats->refused, 1, memory_order_relaxed);
    if (!env->teller_box || !s_may_tell(&env->refused_window, dkt_clock_mono_ms())) {
        return;
    }
    dkt_refused_mail_t *mail = dkt_mail_alloc(sizeof *mail);
    mail->mail.kind = DKT_MAIL_REFUSED;
    mail->client = *client;
    mail->earliest_ms = earliest_ms;
    mail->reason = reason;
    snprintf(mail->ticket_type, sizeof mail->ticket_type, "%s", ticket_type);
    if (!dkt_mailbox_push(env->teller_box, &mail->mail)) {
        atomic_fetch_add_explicit(&stats->refused_dropped, 1, memory_order_relaxed);
        free(mail);
    }
}

/* -- telling -- */

/* Takes the object. False: NATS is away. */
static bool s_publish(const dkt_teller_t *self, const char *subject, json_t *root)
{
    char *text = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(S_DIGITS));
    bool told = text && dkt_bus_publish(self->env->bus, subject, text, strlen(text));
    free(text);
    json_decref(root);
    return told;
}

static void s_tell_refused(dkt_teller_t *self, const dkt_refused_mail_t *mail)
{
    char subject[S_SUBJECT_MAX];
    dkt_id_text_t client;
    dkt_client_text(&mail->client, &client);
    snprintf(subject, sizeof subject, "docket.refused.%s", client.text);
    json_t *root = json_pack("{s:s, s:s, s:s, s:s}", "client_id", client.text, "ticket_type",
                             mail->ticket_type, "reason", mail->reason, "node", self->env->node);
    json_object_set_new(root, "earliest_ms",
                        mail->earliest_ms > 0 ? json_integer(mail->earliest_ms) : json_null());
    dkt_worker_stats_t *stats = &self->env->stats;
    atomic_fetch_add(
        s_publish(self, subject, root) ? &stats->refused_told : &stats->refused_dropped, 1);
}

static void s_tell_stats(dkt_teller_t *self)
{
    char subject[S_SUBJECT_MAX];
    const dkt_env_t *env = self->env;
    json_t *root = dkt_stats_json(&env->stats, &self->told);
    json_object_set_new(root, "role", json_string("worker"));
    json_object_set_new(root, "node", json_string(env->node));
    json_object_set_new(root, "version", json_string(DKT_VERSION));
    json_object_set_new(root, "at_ms", json_integer(dkt_clock_unix_ms()));
    json_object_set_new(root, "leader", json_boolean(atomic_load(&env->leader)));
    json_object_set_new(root, "control_up", json_boolean(atomic_load(&env->control_up)));
    json_object_set_new(root, "ctx", dkt_replica_json(env->replica));
    dkt_replica_metrics(env->replica, json_object_get(root, "metrics"));
    snprintf(subject, sizeof subject, "docket.stats.worker.%s", env->node);
    (void)s_publish(self, subject, root); /* the next second has newer ones */
}

/* -- the loop -- */

static bool s_take_mail(dkt_teller_t *self)
{
    bool running = true;
    dkt_mail_t *mail = dkt_mailbox_drain(self->env->teller_box);
    while (mail) {
        dkt_mail_t *next = mail->next;
        if (mail->kind == DKT_MAIL_REFUSED) {
            s_tell_refused(self, (const dkt_refused_mail_t *)mail);
        } else {
            assert(mail->kind == DKT_MAIL_STOP);
            running = false;
        }
        free(mail);
        mail = next;
    }
    return running;
}

static void *s_run(void *argument)
{
    dkt_teller_t *self = argument;
    struct pollfd item = {.fd = dkt_mailbox_fd(self->env->teller_box), .events = POLLIN};
    do {
        int64_t now_mono_ms = dkt_clock_mono_ms();
        if (now_mono_ms >= self->stats_mono_ms) {
            self->stats_mono_ms = now_mono_ms + DKT_STATS_MS;
            s_tell_stats(self);
        }
        int64_t wait_ms = self->stats_mono_ms - dkt_clock_mono_ms();
        (void)poll(&item, 1, wait_ms > 0 ? (int)wait_ms : 0);
    } while (s_take_mail(self));
    return NULL;
}

dkt_teller_t *dkt_teller_new(dkt_env_t *env)
{
    dkt_teller_t *self = calloc(1, sizeof *self);
    if (!self) {
        return NULL;
    }
    self->env = env;
    if (pthread_create(&self->thread, NULL, s_run, self) != 0) {
        free(self);
        return NULL;
    }
    return self;
}

void dkt_teller_destroy(dkt_teller_t **self_p)
{
    dkt_teller_t *self = *self_p;
    if (!self) {
        return;
    }
    *self_p = NULL;
    dkt_mail_post_kind(self->env->teller_box, DKT_MAIL_STOP);
    pthread_join(self->thread, NULL);
    free(self);
}
