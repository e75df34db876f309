/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/context_internal.h"

#include <assert.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "lib/edge/clock.h"
#include "lib/edge/log.h"

#define S_WAIT_MAX_MS  100 /* leadership is looked at this often */
#define S_LOG_EVERY_MS 5000

typedef struct {
    dkt_mail_t mail;
    uint32_t len;
    uint8_t bytes[];
} s_news_mail_t;

enum { S_MAIL_STOP, S_MAIL_NEWS };

/* -- news, on the bus's thread -- */

static void s_on_news(natsConnection *connection, natsSubscription *subscription, natsMsg *message,
                      void *closure)
{
    dkt_context_thread_t *self = closure;
    int len = natsMsg_GetDataLength(message);
    (void)connection;
    (void)subscription;
    if (len > 0 && len <= DKT_CONTEXT_NEWS_BYTES_MAX) {
        s_news_mail_t *mail = dkt_mail_alloc(sizeof *mail + (size_t)len);
        mail->mail.kind = S_MAIL_NEWS;
        mail->len = (uint32_t)len;
        memcpy(mail->bytes, natsMsg_GetData(message), (size_t)len);
        if (!dkt_mailbox_push(self->box, &mail->mail)) {
            free(mail); /* a gap, which is pulled */
        }
    }
    natsMsg_Destroy(message);
}

/* -- the replica -- */

void dkt_context_thread_tell(dkt_context_thread_t *self, const dkt_context_news_t *news)
{
    dkt_context_out_t out;
    dkt_replica_step(self->env->replica,
                     (dkt_context_event_t){.kind = DKT_CONTEXT_NEWS, .news = news}, &out);
}

static void s_complain(dkt_context_thread_t *self, const char *text)
{
    int64_t now_mono_ms = dkt_clock_mono_ms();
    if (self->failed_mono_ms == 0 || now_mono_ms - self->failed_mono_ms >= S_LOG_EVERY_MS) {
        self->failed_mono_ms = now_mono_ms;
        dkt_log(DKT_LOG_WARN, "tenant context: %s", text);
    }
}

static void s_tick(dkt_context_thread_t *self)
{
    dkt_context_out_t out;
    dkt_err_t err;
    dkt_replica_step(self->env->replica, (dkt_context_event_t){.kind = DKT_CONTEXT_TICK}, &out);
    if (out.pull && dkt_context_pull(self, out.whole, &err) != DKT_OK) {
        s_complain(self, err.text);
    }
}

/* The directory's thread says that its session leads; the guard's row in the same database says
 * whether that still holds. Everybody compares themselves with the leader's replica, so that one
 * compares itself with the database now and then: a row changed by hand is in no feed. */
static void s_lead(dkt_context_thread_t *self)
{
    int64_t now_mono_ms = dkt_clock_mono_ms();
    bool leads = false;
    dkt_err_t err;
    if (!atomic_load(&self->env->leader) || now_mono_ms < self->tail_mono_ms) {
        return;
    }
    self->tail_mono_ms = now_mono_ms + DKT_CONTEXT_TAIL_MS;
    if (dkt_context_tail(self, dkt_context_say, &leads, &err) != DKT_OK) {
        s_complain(self, err.text);
    }
    if (leads) {
        dkt_context_say_due(self);
    }
    if (leads && now_mono_ms >= self->recheck_mono_ms) {
        dkt_context_out_t out;
        self->recheck_mono_ms = now_mono_ms + DKT_CONTEXT_RECHECK_MS;
        dkt_replica_step(self->env->replica, (dkt_context_event_t){.kind = DKT_CONTEXT_RECHECK},
                         &out);
    }
}

/* -- the loop -- */

static bool s_take_mail(dkt_context_thread_t *self)
{
    bool running = true;
    dkt_mail_t *mail = dkt_mailbox_drain(self->box);
    while (mail) {
        dkt_mail_t *next = mail->next;
        const s_news_mail_t *bytes = (const s_news_mail_t *)mail;
        dkt_context_news_t news;
        running = running && mail->kind != S_MAIL_STOP;
        if (mail->kind == S_MAIL_NEWS && dkt_context_read_news(bytes->bytes, bytes->len, &news)) {
            dkt_context_thread_tell(self, &news);
        }
        free(mail);
        mail = next;
    }
    return running;
}

static int s_wait_ms(dkt_context_thread_t *self)
{
    int64_t due_mono_ms = dkt_replica_due_mono_ms(self->env->replica);
    if (atomic_load(&self->env->leader) && self->tail_mono_ms < due_mono_ms) {
        due_mono_ms = self->tail_mono_ms;
    }
    int64_t wait_ms = due_mono_ms - dkt_clock_mono_ms();
    if (wait_ms < 0) {
        return 0;
    }
    return wait_ms < S_WAIT_MAX_MS ? (int)wait_ms : S_WAIT_MAX_MS;
}

static void *s_run(void *argument)
{
    dkt_context_thread_t *self = argument;
    struct pollfd item = {.fd = dkt_mailbox_fd(self->box), .events = POLLIN};
    while (s_take_mail(self) && !atomic_load(&self->env->stopping)) {
        s_tick(self);
        s_lead(self);
        (void)poll(&item, 1, s_wait_ms(self));
    }
    dkt_context_say_fini(self);
    dkt_context_close(self);
    return NULL;
}

/* -- life -- */

dkt_context_thread_t *dkt_context_thread_new(dkt_env_t *env)
{
    dkt_context_thread_t *self = calloc(1, sizeof *self);
    if (!self) {
        return NULL;
    }
    self->env = env;
    self->box = dkt_mailbox_new(DKT_CONTEXT_BOX_MAX);
    if (!self->box) {
        free(self);
        return NULL;
    }
    if ((env->bus && !dkt_bus_subscribe(env->bus, "docket.ctx.>", s_on_news, self)) ||
        pthread_create(&self->thread, NULL, s_run, self) != 0) {
        return NULL; /* the bus may know it already: it stays until the process ends, at once */
    }
    return self;
}

void dkt_context_thread_stop(dkt_context_thread_t *self)
{
    if (!self) {
        return;
    }
    dkt_mail_t *stop = dkt_mail_alloc(sizeof *stop);
    stop->kind = S_MAIL_STOP;
    assert(atomic_load(&self->env->stopping));
    if (!dkt_mailbox_push(self->box, stop)) {
        free(stop); /* full of news: the thread is awake and sees the flag */
    }
    pthread_join(self->thread, NULL);
}

void dkt_context_thread_destroy(dkt_context_thread_t **self_p)
{
    dkt_context_thread_t *self = *self_p;
    if (!self) {
        return;
    }
    *self_p = NULL;
    (void)s_take_mail(self);
    dkt_mailbox_destroy(&self->box);
    free(self);
}
