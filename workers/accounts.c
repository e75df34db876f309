/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/accounts_internal.h"

#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/edge/clock.h"
#include "lib/edge/control.h"
#include "lib/edge/log.h"
#include "workers/saga.h"

#define S_ANSWER_BYTES_MAX (DKT_LIST_BYTES_MAX + 4096)
#define S_POOL_LOOK_MS     20   /* how often a waiting create_account looks for a database */
#define S_ANSWER_BEFORE_MS 50   /* it gives up this long before its budget ends */
#define S_RETRY_AFTER_MS   1000 /* told with `overloaded` and `unavailable` */
#define S_FINISH_MS        2000 /* between looks for half-made accounts */
#define S_WAIT_MAX_MS      500
#define S_RECONNECT_MS     200 /* at least, between two tries */
#define S_LATE_MS          500 /* between two tries to carry a change */
#define S_CHANGE_TRIES_MAX 100

struct dkt_accounts {
    dkt_env_t *env;
    pthread_t thread;
    PGconn *conn;
    int64_t connect_mono_ms; /* not before */
    int64_t finish_mono_ms;
    dkt_mail_t *waiting; /* ACCOUNT commands that found the pool empty, oldest first */
    uint32_t waiting_count;
    dkt_mail_t *late; /* CHANGES that could not be carried, oldest first */
    uint32_t late_count;
    int64_t late_mono_ms; /* not before */
    uint8_t *answer;      /* S_ANSWER_BYTES_MAX */
};

/* -- session -- */

static dkt_status_t s_session(dkt_accounts_t *self, dkt_err_t *err)
{
    if (self->conn && PQstatus(self->conn) == CONNECTION_OK) {
        return DKT_OK;
    }
    PQfinish(self->conn);
    self->conn = NULL;
    int64_t now_mono_ms = dkt_clock_mono_ms();
    if (now_mono_ms < self->connect_mono_ms) {
        return dkt_fail(err, DKT_UNAVAILABLE, NULL, "the directory cannot be reached");
    }
    self->conn = dkt_control_connect(self->env->uri, NULL, "accounts", err);
    self->connect_mono_ms = dkt_clock_mono_ms() + S_RECONNECT_MS;
    return self->conn ? DKT_OK : err->status;
}

/* -- answers -- */

static void s_answer(dkt_accounts_t *self, dkt_work_mail_t *work, const dkt_w_t *w)
{
    assert(!w->failed);
    dkt_answer_mail_t *answer = dkt_answer_mail(work, w->data, w->len);
    dkt_mail_post(self->env->node_box, &answer->mail, DKT_MAIL_ANSWER);
}

/* A text of libpq is for the log, not for strangers. */
static void s_fail(dkt_accounts_t *self, dkt_work_mail_t *work, dkt_err_t *err)
{
    if (err->status == DKT_INTERNAL || err->status == DKT_UNAVAILABLE) {
        dkt_log(DKT_LOG_WARN, "accounts: %s", err->text);
        (void)dkt_fail(err, err->status, NULL, NULL);
    }
    if (dkt_status_retry(err->status) != DKT_RETRY_NO && err->retry_after_ms == 0) {
        err->retry_after_ms = S_RETRY_AFTER_MS;
    }
    dkt_w_t w = dkt_w_init(self->answer, S_ANSWER_BYTES_MAX);
    dkt_answer_error(&w, work->msgid, err);
    s_answer(self, work, &w);
}

/* -- create_account -- */

static void s_answer_created(dkt_accounts_t *self, dkt_work_mail_t *work,
                             const dkt_saga_account_t *account)
{
    dkt_w_t w = dkt_w_init(self->answer, S_ANSWER_BYTES_MAX);
    dkt_answer_begin(&w, work->msgid, account->replayed ? 4 : 3);
    dkt_w_cstr(&w, "status");
    dkt_w_cstr(&w, "created");
    dkt_w_cstr(&w, "client_id");
    dkt_w_cstr(&w, account->client_id.text);
    dkt_w_cstr(&w, "sub_domain");
    dkt_w_cstr(&w, account->sub_domain);
    if (account->replayed) {
        dkt_w_cstr(&w, "replayed");
        dkt_w_bool(&w, true);
    }
    s_answer(self, work, &w);
}

static bool s_in_time(const dkt_work_mail_t *work)
{
    return dkt_clock_mono_ms() + S_ANSWER_BEFORE_MS < work->work.deadline_mono_ms;
}

/* Keeps the command if there is no database for it yet. */
static void s_create(dkt_accounts_t *self, dkt_command_mail_t *command)
{
    dkt_work_mail_t *work = command->work;
    dkt_request_t request;
    dkt_err_t err;
    dkt_saga_account_t account;
    dkt_status_t status = dkt_request_decode(work->work.body, work->work.len, &request, &err);
    if (status == DKT_OK && work->work.deadline_mono_ms <= dkt_clock_mono_ms()) {
        status = dkt_fail(&err, DKT_DEADLINE_EXCEEDED, NULL, NULL);
    }
    if (status == DKT_OK) {
        status = s_session(self, &err);
    }
    if (status == DKT_OK) {
        dkt_saga_request_t saga = {.request_id = request.request_id,
                                   .name = request.name,
                                   .email = request.email,
                                   .resolvers = request.resolvers,
                                   .password = command->password};
        status = dkt_saga_create(self->conn, self->env, &saga, &account, &err);
    }
    if (status == DKT_OVERLOADED && s_in_time(work) && self->waiting_count < DKT_ACCOUNT_JOBS_MAX) {
        command->mail.next = NULL;
        dkt_mail_t **tail = &self->waiting;
        while (*tail) {
            tail = &(*tail)->next;
        }
        *tail = &command->mail;
        self->waiting_count++;
        return;
    }
    if (status == DKT_OK) {
        s_answer_created(self, work, &account);
    } else {
        s_fail(self, work, &err);
    }
    sodium_memzero(command->password, sizeof command->password);
    free(command);
}

/* Each waiting one tries again; as soon as one finds nothing, only budgets are looked at. */
static void s_retry_waiting(dkt_accounts_t *self)
{
    dkt_mail_t *mail = self->waiting;
    bool dry = false;
    self->waiting = NULL;
    self->waiting_count = 0;
    while (mail) {
        dkt_mail_t *next = mail->next;
        dkt_command_mail_t *command = (dkt_command_mail_t *)mail;
        if (dry && s_in_time(command->work)) {
            mail->next = next;
            break;
        }
        uint32_t count = self->waiting_count;
        s_create(self, command);
        dry = self->waiting_count > count;
        mail = next;
    }
    dkt_mail_t **tail = &self->waiting;
    while (*tail) {
        tail = &(*tail)->next;
    }
    *tail = mail;
    while (mail) {
        self->waiting_count++;
        mail = mail->next;
    }
}

/* -- tenant context -- */

static dkt_status_t s_set(dkt_accounts_t *self, dkt_work_mail_t *work, const dkt_request_t *request,
                          dkt_err_t *err)
{
    dkt_status_t status = dkt_accounts_suspend(self->conn, &work->client, request->suspended, err);
    if (status != DKT_OK) {
        return status;
    }
    dkt_context_mail_t *context = dkt_mail_alloc(sizeof *context);
    context->client = work->client;
    context->suspended = request->suspended;
    dkt_mail_post(self->env->node_box, &context->mail, DKT_MAIL_CONTEXT);
    dkt_w_t w = dkt_w_init(self->answer, S_ANSWER_BYTES_MAX);
    dkt_answer_status(&w, work->msgid, "ok");
    s_answer(self, work, &w);
    return DKT_OK;
}

/* The control database cannot say: does the replica know? */
static bool s_is_known(dkt_accounts_t *self, const dkt_work_mail_t *work,
                       const dkt_request_t *request, dkt_w_t *w)
{
    if (!self->env->replica || work->work.method == DKT_METHOD_SET_TENANT) {
        return false;
    }
    *w = dkt_w_init(self->answer, S_ANSWER_BYTES_MAX);
    return work->work.method == DKT_METHOD_GET_TENANT
               ? dkt_accounts_get_known(self->env->replica, &work->client, work->msgid, w)
               : dkt_accounts_list_known(self->env->replica, request, w);
}

static void s_tenant(dkt_accounts_t *self, dkt_work_mail_t *work)
{
    dkt_request_t request;
    dkt_err_t err;
    dkt_w_t w = dkt_w_init(self->answer, S_ANSWER_BYTES_MAX);
    dkt_status_t status = dkt_request_decode(work->work.body, work->work.len, &request, &err);
    if (status == DKT_OK && request.argument.status != DKT_OK) {
        err = request.argument;
        status = err.status;
    }
    if (status == DKT_OK && work->work.deadline_mono_ms <= dkt_clock_mono_ms()) {
        status = dkt_fail(&err, DKT_DEADLINE_EXCEEDED, NULL, NULL);
    }
    if (status == DKT_OK) {
        status = s_session(self, &err);
    }
    if (status == DKT_OK && work->work.method == DKT_METHOD_SET_TENANT) {
        status = s_set(self, work, &request, &err);
        if (status == DKT_OK) {
            return;
        }
    } else if (status == DKT_OK) {
        status = work->work.method == DKT_METHOD_GET_TENANT
                     ? dkt_accounts_get(self->conn, &request, &w, &err)
                     : dkt_accounts_list(self->conn, &request, &w, &err);
    }
    /* INTERNAL is what a session says that was ended under the statement. */
    bool gone = status == DKT_UNAVAILABLE ||
                (status == DKT_INTERNAL && PQstatus(self->conn) != CONNECTION_OK);
    if (status == DKT_OK || (gone && s_is_known(self, work, &request, &w))) {
        s_answer(self, work, &w);
    } else {
        s_fail(self, work, &err);
    }
}

/* -- changes -- */

static bool s_is_late(const dkt_accounts_t *self, const dkt_client_t *client)
{
    const dkt_mail_t *mail = self->late;
    while (mail && !dkt_client_equal(&((const dkt_changes_mail_t *)mail)->client, client)) {
        mail = mail->next;
    }
    return mail != NULL;
}

/* At the end of the queue. One whose own database fails again and again is left to the tenant's
 * next activation. */
static void s_keep_late(dkt_accounts_t *self, dkt_changes_mail_t *mail, const char *why)
{
    bool control_up = self->conn && PQstatus(self->conn) == CONNECTION_OK;
    if (mail->tries == 0 && !self->late) {
        dkt_log(DKT_LOG_WARN, "a tenant's change waits for the audit log: %s", why);
    }
    mail->tries += control_up ? 1 : 0;
    if (mail->tries > S_CHANGE_TRIES_MAX || self->late_count == DKT_ACCOUNT_JOBS_MAX ||
        s_is_late(self, &mail->client)) {
        free(mail);
        return;
    }
    dkt_mail_t **tail = &self->late;
    while (*tail) {
        tail = &(*tail)->next;
    }
    mail->mail.next = NULL;
    *tail = &mail->mail;
    self->late_count++;
    self->late_mono_ms = dkt_clock_mono_ms() + S_LATE_MS;
}

/* Takes the mail. */
static void s_carry(dkt_accounts_t *self, dkt_changes_mail_t *mail)
{
    dkt_err_t err;
    dkt_status_t status = s_session(self, &err);
    if (status == DKT_OK) {
        status = dkt_accounts_carry(self->conn, self->env->uri, &mail->client, &err);
    }
    if (status == DKT_OK || status == DKT_NOT_FOUND) {
        free(mail);
    } else {
        s_keep_late(self, mail, err.text);
    }
}

/* One at a time: a database that does not answer keeps nobody waiting for long. */
static void s_carry_late(dkt_accounts_t *self)
{
    dkt_mail_t *mail = self->late;
    if (!mail || dkt_clock_mono_ms() < self->late_mono_ms) {
        return;
    }
    self->late = mail->next;
    self->late_count--;
    s_carry(self, (dkt_changes_mail_t *)mail);
}

/* -- loop -- */

static void s_finish_left(dkt_accounts_t *self)
{
    dkt_err_t err;
    uint32_t count = 0;
    self->finish_mono_ms = dkt_clock_mono_ms() + S_FINISH_MS;
    dkt_status_t status = s_session(self, &err);
    if (status == DKT_OK) {
        status = dkt_saga_finish_all(self->conn, self->env, &count, &err);
    }
    if (count > 0) {
        dkt_log(DKT_LOG_INFO, "finished %u accounts that were half-made", count);
    }
    if (status != DKT_OK) {
        dkt_log(DKT_LOG_WARN, "accounts: %s", err.text);
    }
}

/* Returns false when told to stop; what comes behind that is dropped. */
static bool s_take(dkt_accounts_t *self, dkt_mail_t *mail)
{
    bool running = true;
    while (mail) {
        dkt_mail_t *next = mail->next;
        running = running && mail->kind != DKT_MAIL_STOP && !atomic_load(&self->env->stopping);
        if (running && mail->kind == DKT_MAIL_ACCOUNT) {
            s_create(self, (dkt_command_mail_t *)mail);
        } else if (running && mail->kind == DKT_MAIL_CHANGES) {
            s_carry(self, (dkt_changes_mail_t *)mail);
        } else {
            if (running) {
                assert(mail->kind == DKT_MAIL_TENANT);
                s_tenant(self, ((dkt_command_mail_t *)mail)->work);
            } else if (mail->kind == DKT_MAIL_ACCOUNT || mail->kind == DKT_MAIL_TENANT) {
                free(((dkt_command_mail_t *)mail)->work);
            }
            free(mail);
        }
        mail = next;
    }
    return running && !atomic_load(&self->env->stopping);
}

static void *s_run(void *argument)
{
    dkt_accounts_t *self = argument;
    struct pollfd item = {.fd = dkt_mailbox_fd(self->env->accounts_box), .events = POLLIN};
    do {
        (void)poll(&item, 1, self->waiting ? S_POOL_LOOK_MS : S_WAIT_MAX_MS);
        s_retry_waiting(self);
        s_carry_late(self);
        if (atomic_load(&self->env->leader) && dkt_clock_mono_ms() >= self->finish_mono_ms) {
            s_finish_left(self);
        }
    } while (s_take(self, dkt_mailbox_drain(self->env->accounts_box)));
    PQfinish(self->conn);
    return NULL;
}

dkt_accounts_t *dkt_accounts_new(dkt_env_t *env)
{
    dkt_accounts_t *self = calloc(1, sizeof *self);
    uint8_t *answer = malloc(S_ANSWER_BYTES_MAX);
    if (!self || !answer) {
        free(self);
        free(answer);
        return NULL;
    }
    self->env = env;
    self->answer = answer;
    if (pthread_create(&self->thread, NULL, s_run, self) != 0) {
        free(answer);
        free(self);
        return NULL;
    }
    return self;
}

void dkt_accounts_destroy(dkt_accounts_t **self_p)
{
    dkt_accounts_t *self = *self_p;
    if (!self) {
        return;
    }
    *self_p = NULL;
    assert(atomic_load(&self->env->stopping));
    dkt_mail_t *stop = dkt_mail_alloc(sizeof *stop);
    stop->kind = DKT_MAIL_STOP;
    if (!dkt_mailbox_push(self->env->accounts_box, stop)) {
        free(stop); /* full of commands: the thread is awake and sees the flag */
    }
    pthread_join(self->thread, NULL);
    while (self->waiting) {
        dkt_mail_t *next = self->waiting->next;
        free(((dkt_command_mail_t *)self->waiting)->work);
        free(self->waiting);
        self->waiting = next;
    }
    while (self->late) {
        dkt_mail_t *next = self->late->next;
        free(self->late);
        self->late = next;
    }
    free(self->answer);
    free(self);
}
