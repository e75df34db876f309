/* SPDX-License-Identifier: Apache-2.0
 *
 * What a node loop does with a request: is it well-formed, is it ours, who runs it. Most go to
 * their tenant's actor; a few are the directory's business and go to the accounts actor.
 */
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "workers/hasher.h"
#include "workers/node.h"

#define S_ERROR_BYTES_MAX 1024
#define S_RETRY_AFTER_MS  100
#define S_HASH_RETRY_MS   1000 /* a full hashing queue takes 1.8 s to empty */
#define S_MILLI           1000

/* -- answers -- */

void dkt_node_answer(dkt_node_t *self, dkt_work_mail_t *work, const uint8_t *bytes, size_t len)
{
    dkt_node_send_answer(self, dkt_answer_mail(work, bytes, len));
}

static void s_fail_err(dkt_node_t *self, dkt_work_mail_t *work, const dkt_err_t *err)
{
    uint8_t bytes[S_ERROR_BYTES_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_answer_error(&w, work->msgid, err);
    assert(!w.failed);
    dkt_node_answer(self, work, bytes, w.len);
}

void dkt_node_fail(dkt_node_t *self, dkt_work_mail_t *work, dkt_status_t status,
                   uint32_t retry_after_ms)
{
    dkt_err_t err;
    (void)dkt_fail(&err, status, NULL, NULL);
    err.retry_after_ms = retry_after_ms;
    s_fail_err(self, work, &err);
}

void dkt_node_moved(dkt_node_t *self, dkt_work_mail_t *work)
{
    self->counts.moved++;
    dkt_answer_mail_t *answer = dkt_answer_mail(work, NULL, 0);
    answer->outcome = DKT_OUTCOME_MOVED;
    dkt_node_send_answer(self, answer);
}

static void s_hash_for(dkt_node_t *self, dkt_work_mail_t *work, dkt_hash_purpose_t purpose,
                       dkt_hash_kind_t kind, dkt_view_t password)
{
    dkt_hash_mail_t *hash = dkt_mail_alloc(sizeof *hash);
    hash->purpose = purpose;
    hash->work = work;
    hash->job.kind = kind;
    hash->job.password_len = password.len < sizeof hash->job.password - 1
                                 ? password.len
                                 : (uint32_t)sizeof hash->job.password - 1;
    if (password.data) {
        memcpy(hash->job.password, password.data, hash->job.password_len);
    }
    memcpy(hash->job.hash, self->nobody_hash, sizeof hash->job.hash);
    if (!dkt_hasher_submit(self->env, hash)) {
        sodium_memzero(&hash->job, sizeof hash->job);
        free(hash);
        dkt_node_fail(self, work, DKT_RATE_LIMITED, S_HASH_RETRY_MS);
    }
}

void dkt_node_unknown(dkt_node_t *self, dkt_work_mail_t *work)
{
    if (work->work.method != DKT_METHOD_LOGIN) {
        dkt_node_fail(self, work, DKT_NOT_FOUND, 0);
        return;
    }
    dkt_request_t request;
    if (dkt_request_decode(work->work.body, work->work.len, &request, NULL) != DKT_OK) {
        dkt_node_fail(self, work, DKT_MALFORMED, 0);
        return;
    }
    s_hash_for(self, work, DKT_HASH_FOR_NOBODY, DKT_HASH_VERIFY, request.password);
}

/* -- the directory's methods -- */

static void s_command(dkt_node_t *self, dkt_work_mail_t *work, dkt_mail_kind_t kind,
                      const char *password_hash)
{
    dkt_command_mail_t *command = dkt_mail_alloc(sizeof *command);
    command->work = work;
    command->mail.kind = kind;
    if (password_hash) {
        memcpy(command->password, password_hash, sizeof command->password);
    }
    if (!dkt_mailbox_push(self->env->accounts_box, &command->mail)) {
        free(command);
        self->counts.overloaded++;
        dkt_node_fail(self, work, DKT_OVERLOADED, S_RETRY_AFTER_MS);
    }
}

/* A token bucket in thousandths of a token, filled as time passes. */
static bool s_account_allowed(dkt_node_t *self)
{
    int64_t passed_ms = self->now_mono_ms - self->account_filled_mono_ms;
    self->account_filled_mono_ms = self->now_mono_ms;
    self->account_tokens_milli += passed_ms * DKT_ACCOUNTS_RATE_PER_S;
    if (self->account_tokens_milli > (int64_t)DKT_ACCOUNTS_BURST * S_MILLI) {
        self->account_tokens_milli = (int64_t)DKT_ACCOUNTS_BURST * S_MILLI;
    }
    if (self->account_tokens_milli < S_MILLI) {
        return false;
    }
    self->account_tokens_milli -= S_MILLI;
    return true;
}

static void s_create_account(dkt_node_t *self, dkt_work_mail_t *work, const dkt_request_t *request)
{
    if (!s_account_allowed(self)) {
        dkt_node_fail(self, work, DKT_RATE_LIMITED, S_MILLI / DKT_ACCOUNTS_RATE_PER_S);
        return;
    }
    s_hash_for(self, work, DKT_HASH_FOR_ACCOUNT, DKT_HASH_CREATE, request->password);
}

/* True if the accounts actor runs it and not the tenant's. */
static bool s_is_command(const dkt_work_mail_t *work)
{
    return work->work.method == DKT_METHOD_GET_TENANT ||
           work->work.method == DKT_METHOD_LIST_TENANTS ||
           (work->work.method == DKT_METHOD_SET_TENANT &&
            (work->present & DKT_PARAM_BIT(SUSPENDED)) && !(work->present & DKT_SETTINGS_PARAMS));
}

/* -- routing -- */

static bool s_is_ahead(const dkt_node_t *self, const dkt_work_mail_t *work)
{
    return dkt_table_version_compare(work->table, self->table.version) > 0;
}

static void s_park(dkt_node_t *self, dkt_work_mail_t *work)
{
    if (self->parked_count >= DKT_PARKED_MAX) {
        dkt_node_moved(self, work);
        return;
    }
    self->counts.parked++;
    work->park_until_mono_ms = self->now_mono_ms + DKT_MOVED_PARK_MS;
    work->mail.next = NULL;
    if (self->parked_tail) {
        self->parked_tail->next = &work->mail;
    } else {
        self->parked_head = &work->mail;
        dkt_mail_post_kind(self->env->directory_box, DKT_MAIL_REFRESH);
    }
    self->parked_tail = &work->mail;
    self->parked_count++;
}

void dkt_node_unpark(dkt_node_t *self, bool table_changed)
{
    dkt_mail_t *mail = self->parked_head;
    if (!mail ||
        (!table_changed && ((dkt_work_mail_t *)mail)->park_until_mono_ms > self->now_mono_ms)) {
        return; /* parked in order of time, each for as long: the first one is the next */
    }
    self->parked_head = NULL;
    self->parked_tail = NULL;
    self->parked_count = 0;
    while (mail) {
        dkt_mail_t *next = mail->next;
        dkt_work_mail_t *work = (dkt_work_mail_t *)mail;
        mail->next = NULL;
        if (!s_is_ahead(self, work)) {
            dkt_node_route(self, work);
        } else if (work->park_until_mono_ms <= self->now_mono_ms) {
            dkt_node_moved(self, work);
        } else {
            if (self->parked_tail) {
                self->parked_tail->next = mail;
            } else {
                self->parked_head = mail;
            }
            self->parked_tail = mail;
            self->parked_count++;
        }
        mail = next;
    }
}

void dkt_node_route(dkt_node_t *self, dkt_work_mail_t *work)
{
    if (work->work.method == DKT_METHOD_LIST_TENANTS) {
        s_command(self, work, DKT_MAIL_TENANT, NULL);
    } else if (s_is_ahead(self, work) && !self->leaving) {
        s_park(self, work);
    } else if (!dkt_node_owns(self, work->work.vshard)) {
        dkt_node_moved(self, work);
    } else if (work->work.deadline_mono_ms <= self->now_mono_ms) {
        self->counts.expired++;
        dkt_node_fail(self, work, DKT_DEADLINE_EXCEEDED, 0);
    } else if (s_is_command(work)) {
        s_command(self, work, DKT_MAIL_TENANT, NULL);
    } else {
        dkt_node_give(self, work);
    }
}

/* A tag is a keyed hash; whoever has a record has shown a good one before. */
static bool s_is_genuine(dkt_node_t *self, const dkt_client_t *client)
{
    return dkt_node_find(self, client) || dkt_client_verify(&self->env->id_keys, client);
}

/* The client a request is about; false if its id is not one of ours. */
static bool s_client_of(dkt_node_t *self, const dkt_request_t *request, dkt_client_t *client)
{
    dkt_view_t id = {0};
    switch (dkt_method_row(request->method)->route) {
    case DKT_ROUTE_CLIENT:
        id = request->client_id;
        return id.data &&
               dkt_client_parse_seen(&self->client_seen, (const char *)id.data, id.len, client) &&
               s_is_genuine(self, client);
    case DKT_ROUTE_TICKET:
        id = request->ticket_id;
        break;
    case DKT_ROUTE_SLOT:
        id = request->slot_id;
        break;
    case DKT_ROUTE_BROKER:
    case DKT_ROUTE_ANY:
        break;
    }
    return id.data && dkt_id_client((const char *)id.data, id.len, client) &&
           s_is_genuine(self, client);
}

static dkt_work_mail_t *s_make_work(dkt_node_t *self, const dkt_node_link_t *link,
                                    dkt_table_version_t table, const dkt_link_request_t *request)
{
    dkt_work_mail_t *work = dkt_spare_take(&self->works, sizeof *work + request->body.len);
    if (!work) {
        abort();
    }
    memset(work, 0, offsetof(dkt_work_mail_t, work.head)); /* what is behind it is written whole */
    work->table = table;
    work->work.seq = request->seq;
    work->work.deadline_mono_ms = self->now_mono_ms + request->budget_left_ms;
    work->work.link = link->id;
    work->work.origin = request->origin;
    memcpy(work->work.token_id, request->token_id, sizeof work->work.token_id);
    work->work.token_issued_ms = request->token_issued_ms;
    work->work.token_expires_ms = request->token_expires_ms;
    work->work.len = request->body.len;
    if (request->body.len > 0) {
        memcpy(work->work.body, request->body.data, request->body.len);
    }
    self->open_count++;
    self->counts.requests++;
    return work;
}

void dkt_node_request(dkt_node_t *self, dkt_node_link_t *link, dkt_table_version_t table,
                      const dkt_link_request_t *row)
{
    dkt_work_mail_t *work = s_make_work(self, link, table, row);
    dkt_request_t request;
    dkt_err_t err;
    dkt_status_t status = dkt_request_decode(work->work.body, work->work.len, &request, &err);
    work->msgid = request.msgid;
    if (status != DKT_OK) {
        s_fail_err(self, work, &err);
        return;
    }
    work->work.method = (uint8_t)request.method;
    dkt_work_keep(&work->work, &request);
    work->present = request.present;
    if (request.present & DKT_PARAM_BIT(REQUEST_ID)) {
        work->request_id = request.request_id;
    }
    if (self->open_count > DKT_NODE_OPEN_MAX) {
        self->counts.overloaded++;
        dkt_node_fail(self, work, DKT_OVERLOADED, S_RETRY_AFTER_MS);
        return;
    }
    dkt_route_t route = dkt_method_row(request.method)->route;
    if (route == DKT_ROUTE_ANY || route == DKT_ROUTE_BROKER) {
        if (request.argument.status != DKT_OK) {
            s_fail_err(self, work, &request.argument);
        } else if (request.method == DKT_METHOD_CREATE_ACCOUNT) {
            s_create_account(self, work, &request);
        } else if (request.method == DKT_METHOD_LIST_TENANTS) {
            dkt_node_route(self, work);
        } else {
            dkt_node_fail(self, work, DKT_UNKNOWN_METHOD, 0);
        }
        return;
    }
    if (!s_client_of(self, &request, &work->client)) {
        if (request.argument.status != DKT_OK) {
            s_fail_err(self, work, &request.argument);
        } else {
            dkt_node_unknown(self, work);
        }
        return;
    }
    work->work.vshard = dkt_node_vshard(self, &work->client);
    dkt_node_route(self, work);
}

/* -- what comes back -- */

static void s_hashed_for_tenant(dkt_node_t *self, dkt_hash_mail_t *hash)
{
    dkt_record_t *record = dkt_node_find(self, &hash->client);
    if (!record || !record->actor || record->serial != hash->serial ||
        !dkt_actor_push(record->actor, &hash->mail, DKT_MAIL_HASHED)) {
        free(hash); /* who asked is gone, and has given back or answered what it was for */
    }
}

void dkt_node_hashed(dkt_node_t *self, dkt_hash_mail_t *hash)
{
    if (hash->purpose == DKT_HASH_FOR_TENANT) {
        s_hashed_for_tenant(self, hash);
        return;
    }
    if (hash->purpose == DKT_HASH_FOR_NOBODY) {
        dkt_node_fail(self, hash->work, DKT_UNAUTHENTICATED, 0);
    } else if (hash->job.ok) {
        s_command(self, hash->work, DKT_MAIL_ACCOUNT, hash->job.hash);
    } else {
        dkt_node_fail(self, hash->work, DKT_UNAVAILABLE, S_RETRY_AFTER_MS); /* no 19 MiB left */
    }
    free(hash);
}

void dkt_node_context(dkt_node_t *self, dkt_context_mail_t *context)
{
    dkt_record_t *record = dkt_node_find(self, &context->client);
    if (record) {
        record->home.suspended = context->suspended;
        if (record->actor) {
            dkt_actor_suspend(record->actor, context->suspended);
        }
    }
}

/* A lookup says no from now on. Whoever waits for the end of an actor is looked up again, and then
 * unknown. */
void dkt_node_deleting(dkt_node_t *self, const dkt_deleting_mail_t *deleting)
{
    for (uint32_t i = 0; i < deleting->count; i++) {
        dkt_record_t *record = dkt_node_find(self, &deleting->clients[i]);
        if (!record) {
            continue;
        }
        record->home_known = false;
        record->wanted = false;
        if (record->state == DKT_NODE_STARTING || record->state == DKT_NODE_SERVING) {
            dkt_node_close(self, record);
        } else if (record->state == DKT_NODE_QUEUED || record->state == DKT_NODE_QUEUED_FAILED ||
                   record->state == DKT_NODE_BACKOFF) {
            dkt_node_dispose(self, record, dkt_node_unknown);
            dkt_node_move(self, record, DKT_NODE_IDLE);
        }
    }
}
