/* SPDX-License-Identifier: Apache-2.0
 *
 * A record per tenant: where its requests wait, when its actor starts, what happens when it ends.
 * One function changes a record's state; the lists by state are the queues.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/edge/log.h"
#include "workers/node.h"

#define S_SWEEP_MS         50  /* budgets of what waits, and records to forget */
#define S_RETRY_AFTER_MS   100 /* told with `overloaded` and `unavailable` */
#define S_REFRESH_MS       20  /* ask the directory for a new table at most this often */
#define S_FORGET_PER_SWEEP 256

static const char *const s_names[DKT_NODE_STATE_COUNT] = {
#define X(name) #name,
    DKT_NODE_STATES(X)
#undef X
};

const char *dkt_node_state_name(dkt_node_state_t state)
{
    return (unsigned)state < DKT_NODE_STATE_COUNT ? s_names[state] : "?";
}

/* What may follow what; everything else is a bug of ours. */
#define S_TO(name) (1u << DKT_NODE_##name)
static const unsigned s_legal[DKT_NODE_STATE_COUNT] = {
    [DKT_NODE_IDLE] = S_TO(RESOLVING),
    [DKT_NODE_RESOLVING] = S_TO(IDLE) | S_TO(QUEUED) | S_TO(QUEUED_FAILED),
    [DKT_NODE_QUEUED] = S_TO(STARTING) | S_TO(IDLE) | S_TO(BACKOFF),
    [DKT_NODE_QUEUED_FAILED] = S_TO(STARTING) | S_TO(IDLE) | S_TO(BACKOFF),
    [DKT_NODE_STARTING] = S_TO(SERVING) | S_TO(CLOSING) | S_TO(BACKOFF) | S_TO(IDLE),
    [DKT_NODE_SERVING] = S_TO(CLOSING) | S_TO(BACKOFF) | S_TO(IDLE),
    [DKT_NODE_CLOSING] = S_TO(BACKOFF) | S_TO(IDLE),
    [DKT_NODE_BACKOFF] = S_TO(RESOLVING) | S_TO(IDLE),
};

static void s_move(dkt_node_t *self, dkt_record_t *record, dkt_node_state_t state)
{
    assert(s_legal[record->state] & (1u << state));
    TAILQ_REMOVE(&self->lists[record->state], record, of_state);
    self->counts_of_state[record->state]--;
    record->state = state;
    TAILQ_INSERT_TAIL(&self->lists[state], record, of_state);
    self->counts_of_state[state]++;
}

/* -- records -------------------------------------------------------------------------------------
 */

dkt_record_t *dkt_node_find(dkt_node_t *self, const dkt_client_t *client)
{
    dkt_record_t *record;
    LIST_FOREACH(record, &self->buckets[dkt_client_vshard(client)], bucket)
    {
        if (dkt_client_equal(&record->client, client)) {
            return record;
        }
    }
    return NULL;
}

static dkt_record_t *s_record(dkt_node_t *self, const dkt_client_t *client)
{
    dkt_record_t *record = dkt_node_find(self, client);
    if (record || self->record_count >= DKT_NODE_RECORDS_MAX) {
        return record;
    }
    record = dkt_mail_alloc(sizeof *record);
    record->client = *client;
    record->vshard = dkt_client_vshard(client);
    record->state = DKT_NODE_IDLE;
    LIST_INSERT_HEAD(&self->buckets[record->vshard], record, bucket);
    TAILQ_INSERT_TAIL(&self->lists[DKT_NODE_IDLE], record, of_state);
    self->counts_of_state[DKT_NODE_IDLE]++;
    self->record_count++;
    return record;
}

static void s_forget(dkt_node_t *self, dkt_record_t *record)
{
    assert(record->state == DKT_NODE_IDLE && record->pending_count == 0 && !record->actor);
    LIST_REMOVE(record, bucket);
    TAILQ_REMOVE(&self->lists[DKT_NODE_IDLE], record, of_state);
    self->counts_of_state[DKT_NODE_IDLE]--;
    self->record_count--;
    free(record->suspects);
    free(record);
}

bool dkt_node_owns(const dkt_node_t *self, uint16_t vshard)
{
    return self->self_member >= 0 && self->table.owner[vshard] == self->self_member;
}

/* -- what waits
 * ------------------------------------------------------------------------------------ */

static void s_wait(dkt_node_t *self, dkt_record_t *record, dkt_work_mail_t *work)
{
    if (record->pending_count >= DKT_MAILBOX_MAX) {
        self->counts.overloaded++;
        dkt_node_fail(self, work, DKT_OVERLOADED, S_RETRY_AFTER_MS);
        return;
    }
    work->mail.next = NULL;
    if (record->pending_count == 0) {
        record->pending_head = &work->mail;
        TAILQ_INSERT_TAIL(&self->waiting, record, waiting);
    } else {
        record->pending_tail->next = &work->mail;
    }
    record->pending_tail = &work->mail;
    record->pending_count++;
}

/* Empties the list; the caller disposes of it. */
static dkt_mail_t *s_take_pending(dkt_node_t *self, dkt_record_t *record)
{
    dkt_mail_t *head = record->pending_head;
    if (record->pending_count > 0) {
        TAILQ_REMOVE(&self->waiting, record, waiting);
    }
    record->pending_head = NULL;
    record->pending_tail = NULL;
    record->pending_count = 0;
    return head;
}

typedef void(s_dispose_fn)(dkt_node_t *self, dkt_work_mail_t *work);

static void s_dispose(dkt_node_t *self, dkt_record_t *record, s_dispose_fn *dispose)
{
    dkt_mail_t *mail = s_take_pending(self, record);
    while (mail) {
        dkt_mail_t *next = mail->next;
        dispose(self, (dkt_work_mail_t *)mail);
        mail = next;
    }
}

static void s_fail_unavailable(dkt_node_t *self, dkt_work_mail_t *work)
{
    dkt_node_fail(self, work, DKT_UNAVAILABLE, S_RETRY_AFTER_MS);
}

static void s_fail_expired(dkt_node_t *self, dkt_work_mail_t *work)
{
    self->counts.expired++;
    dkt_node_fail(self, work, DKT_DEADLINE_EXCEEDED, 0);
}

static void s_expire(dkt_node_t *self, dkt_record_t *record)
{
    dkt_mail_t *mail = s_take_pending(self, record);
    while (mail) {
        dkt_mail_t *next = mail->next;
        dkt_work_mail_t *work = (dkt_work_mail_t *)mail;
        if (work->work.deadline_mono_ms <= self->now_mono_ms) {
            s_fail_expired(self, work);
        } else {
            s_wait(self, record, work);
        }
        mail = next;
    }
}

/* -- activation
 * ------------------------------------------------------------------------------------ */

static void s_resolve(dkt_node_t *self, dkt_record_t *record)
{
    dkt_lookup_mail_t *lookup = dkt_mail_alloc(sizeof *lookup);
    lookup->client = record->client;
    s_move(self, record, DKT_NODE_RESOLVING);
    dkt_mail_post(self->env->directory_box, &lookup->mail, DKT_MAIL_LOOKUP);
}

static void s_mark_suspect(dkt_node_t *self, dkt_record_t *record, dkt_work_mail_t *work)
{
    if (record->suspect_count > 0 && self->now_mono_ms >= record->suspects_until_mono_ms) {
        free(record->suspects);
        record->suspects = NULL;
        record->suspect_count = 0;
    }
    work->work.suspect = false;
    for (uint32_t i = 0; i < record->suspect_count; i++) {
        if (memcmp(&record->suspects[i], &work->request_id, sizeof work->request_id) == 0) {
            work->work.suspect = true;
        }
    }
}

static void s_push(dkt_node_t *self, dkt_record_t *record, dkt_work_mail_t *work)
{
    s_mark_suspect(self, record, work);
    if (!dkt_actor_push(record->actor, &work->mail, DKT_MAIL_WORK)) {
        self->counts.overloaded++;
        dkt_node_fail(self, work, DKT_OVERLOADED, S_RETRY_AFTER_MS);
    }
}

static void s_back_off(dkt_node_t *self, dkt_record_t *record, uint32_t wait_ms, bool refusing)
{
    record->retry_mono_ms = self->now_mono_ms + wait_ms;
    record->refusing = refusing;
    s_move(self, record, DKT_NODE_BACKOFF);
    if (record->retry_mono_ms < self->backoff_mono_ms) {
        self->backoff_mono_ms = record->retry_mono_ms;
    }
}

static void s_back_off_failed(dkt_node_t *self, dkt_record_t *record)
{
    record->failures++;
    self->counts.failed_activations++;
    s_dispose(self, record, s_fail_unavailable);
    s_back_off(self, record,
               dkt_backoff_ms(record->failures, DKT_BACKOFF_BASE_MS, DKT_BACKOFF_CAP_MS,
                              randombytes_random()),
               true);
}

static uint32_t s_short_wait_ms(void)
{
    return DKT_LOCK_RETRY_MIN_MS +
           randombytes_uniform(DKT_LOCK_RETRY_MAX_MS - DKT_LOCK_RETRY_MIN_MS + 1);
}

/* The record has a place in the gate. */
static void s_start(dkt_node_t *self, dkt_record_t *record)
{
    dkt_actor_config_t config = {.env = self->env,
                                 .client = record->client,
                                 .serial = ++self->serial,
                                 .table = self->table.version,
                                 .home = record->home};
    record->failed_place = record->state == DKT_NODE_QUEUED_FAILED;
    record->actor = dkt_actor_new(&config);
    if (!record->actor) {
        dkt_gate_leave(&self->gate, record->failed_place);
        s_back_off_failed(self, record);
        return;
    }
    self->actor_count++;
    self->counts.activations++;
    record->serial = config.serial;
    record->wanted = false;
    s_move(self, record, DKT_NODE_STARTING);
    dkt_mail_t *mail = s_take_pending(self, record);
    while (mail) {
        dkt_mail_t *next = mail->next;
        s_push(self, record, (dkt_work_mail_t *)mail);
        mail = next;
    }
}

static void s_close(dkt_node_t *self, dkt_record_t *record)
{
    dkt_actor_drain(record->actor);
    if (record->state == DKT_NODE_STARTING) {
        dkt_gate_leave(&self->gate, record->failed_place);
    }
    s_move(self, record, DKT_NODE_CLOSING);
}

/* The one that has been idle for longest gives its place, if there is one at all. */
static void s_passivate_idlest(dkt_node_t *self)
{
    dkt_record_t *record, *idlest = NULL;
    int64_t idlest_since_mono_ms = INT64_MAX;
    if (self->counts_of_state[DKT_NODE_CLOSING] > 0) {
        return; /* a place is on its way */
    }
    TAILQ_FOREACH(record, &self->lists[DKT_NODE_SERVING], of_state)
    {
        int64_t since_mono_ms = dkt_actor_idle_since_mono_ms(record->actor);
        if (since_mono_ms != 0 && since_mono_ms < idlest_since_mono_ms) {
            idlest = record;
            idlest_since_mono_ms = since_mono_ms;
        }
    }
    if (idlest) {
        self->counts.passivations++;
        s_close(self, idlest);
    }
}

static void s_pump_list(dkt_node_t *self, dkt_node_state_t state)
{
    dkt_record_t *record;
    while ((record = TAILQ_FIRST(&self->lists[state]))) {
        if (self->actor_count >= self->actors_max) {
            s_passivate_idlest(self);
            return;
        }
        if (!dkt_gate_enter(&self->gate, state == DKT_NODE_QUEUED_FAILED)) {
            return;
        }
        s_start(self, record);
    }
}

/* -- events
 * ---------------------------------------------------------------------------------------- */

void dkt_node_give(dkt_node_t *self, dkt_work_mail_t *work)
{
    dkt_record_t *record = s_record(self, &work->client);
    if (!record) {
        self->counts.overloaded++;
        dkt_node_fail(self, work, DKT_OVERLOADED, S_RETRY_AFTER_MS);
        return;
    }
    record->last_request_mono_ms = self->now_mono_ms;
    if (record->state == DKT_NODE_STARTING || record->state == DKT_NODE_SERVING) {
        s_push(self, record, work);
    } else if (record->state == DKT_NODE_BACKOFF && record->refusing) {
        int64_t wait_ms = record->retry_mono_ms - self->now_mono_ms;
        dkt_node_fail(self, work, DKT_UNAVAILABLE, wait_ms > 0 ? (uint32_t)wait_ms : 1);
    } else if (record->state == DKT_NODE_IDLE && self->now_mono_ms < record->absent_until_mono_ms) {
        dkt_node_unknown(self, work);
    } else {
        s_wait(self, record, work);
        if (record->state == DKT_NODE_IDLE) {
            s_resolve(self, record);
        }
    }
}

void dkt_node_found(dkt_node_t *self, const dkt_lookup_mail_t *found)
{
    dkt_record_t *record = dkt_node_find(self, &found->client);
    if (!record || record->state != DKT_NODE_RESOLVING) {
        return;
    }
    if (found->status == DKT_OK) {
        record->home = found->home;
        record->home_known = true;
    }
    if (!dkt_node_owns(self, record->vshard)) {
        s_dispose(self, record, dkt_node_moved);
        s_move(self, record, DKT_NODE_IDLE);
    } else if (found->status == DKT_NOT_FOUND) {
        record->home_known = false;
        record->wanted = false;
        record->absent_until_mono_ms = self->now_mono_ms + DKT_LOOKUP_NEGATIVE_MS;
        s_dispose(self, record, dkt_node_unknown);
        s_move(self, record, DKT_NODE_IDLE);
    } else if (!record->home_known) {
        s_dispose(self, record, s_fail_unavailable);
        s_move(self, record, DKT_NODE_IDLE);
    } else {
        /* The control database is gone, but it said earlier where this tenant lives. */
        s_move(self, record, record->failures > 0 ? DKT_NODE_QUEUED_FAILED : DKT_NODE_QUEUED);
    }
}

static dkt_record_t *s_record_of(dkt_node_t *self, const dkt_actor_mail_t *event)
{
    dkt_record_t *record = dkt_node_find(self, &event->client);
    return record && record->actor && record->serial == event->serial ? record : NULL;
}

void dkt_node_ready(dkt_node_t *self, const dkt_actor_mail_t *event)
{
    dkt_record_t *record = s_record_of(self, event);
    assert(record);
    record->failures = 0;
    record->lock_held_since_mono_ms = 0;
    if (record->state == DKT_NODE_STARTING) {
        dkt_gate_leave(&self->gate, record->failed_place);
        s_move(self, record, DKT_NODE_SERVING);
    }
}

static void s_keep_suspects(dkt_node_t *self, dkt_record_t *record, dkt_actor_mail_t *event)
{
    if (event->suspect_count > 0) {
        free(record->suspects);
        record->suspects = event->suspects;
        record->suspect_count = event->suspect_count;
        record->suspects_until_mono_ms = self->now_mono_ms + DKT_SUSPECT_MEMORY_MS;
        event->suspects = NULL;
        event->suspect_count = 0;
    }
}

static void s_refresh_table(dkt_node_t *self)
{
    if (self->now_mono_ms >= self->refresh_mono_ms) {
        self->refresh_mono_ms = self->now_mono_ms + S_REFRESH_MS;
        dkt_mail_post_kind(self->env->directory_box, DKT_MAIL_REFRESH);
    }
}

static void s_ask_holder(dkt_node_t *self, dkt_record_t *record)
{
    if (record->lock_held_since_mono_ms == 0) {
        record->lock_held_since_mono_ms = self->now_mono_ms;
        record->holder_asked_mono_ms = 0;
    }
    if (self->now_mono_ms < record->holder_asked_mono_ms + DKT_HOLDER_ASK_MS) {
        return;
    }
    record->holder_asked_mono_ms = self->now_mono_ms;
    dkt_holder_mail_t *mail = dkt_mail_alloc(sizeof *mail);
    memcpy(mail->database, record->home.database, sizeof mail->database);
    mail->asked_mono_ms = self->now_mono_ms;
    mail->held_since_mono_ms = record->lock_held_since_mono_ms;
    mail->gained_mono_ms = self->gained_mono_ms[record->vshard];
    dkt_mail_post(self->env->directory_box, &mail->mail, DKT_MAIL_HOLDER);
}

/* What comes after an end, in the order of what is known best. */
static void s_after_end(dkt_node_t *self, dkt_record_t *record, const dkt_actor_mail_t *event)
{
    if (!dkt_node_owns(self, record->vshard)) {
        record->wanted = false;
        record->lock_held_since_mono_ms = 0;
        s_dispose(self, record, dkt_node_moved);
        s_move(self, record, DKT_NODE_IDLE);
    } else if (event->lock_held) {
        s_ask_holder(self, record);
        s_back_off(self, record, s_short_wait_ms(), false);
    } else if (event->stale) {
        s_refresh_table(self);
        s_back_off(self, record, s_short_wait_ms(), false);
    } else if (event->clean || event->served) {
        /* An actor that served and broke has told its askers; those it gave back try once more. */
        if (record->pending_count > 0 || record->wanted) {
            s_back_off(self, record, event->clean ? 0 : s_short_wait_ms(), false);
        } else {
            s_move(self, record, DKT_NODE_IDLE);
        }
    } else {
        s_back_off_failed(self, record);
    }
}

void dkt_node_ended(dkt_node_t *self, dkt_actor_mail_t *event)
{
    dkt_record_t *record = s_record_of(self, event);
    assert(record);
    if (record->state == DKT_NODE_STARTING) {
        dkt_gate_leave(&self->gate, record->failed_place);
    }
    if (!event->clean && !event->lock_held) {
        dkt_id_text_t client;
        dkt_client_text(&record->client, &client);
        dkt_log(DKT_LOG_WARN, "%s: ended%s: %s", client.text, event->served ? "" : " unopened",
                event->text);
    }
    s_keep_suspects(self, record, event);
    dkt_mail_t *mail = dkt_actor_destroy(&record->actor);
    self->actor_count--;
    while (mail) {
        dkt_mail_t *next = mail->next;
        if (mail->kind == DKT_MAIL_WORK) {
            s_wait(self, record, (dkt_work_mail_t *)mail);
        } else {
            free(mail);
        }
        mail = next;
    }
    if (event->next_due_ms != INT64_MAX && !event->clean) {
        record->wanted = true;
    }
    s_after_end(self, record, event);
}

/* -- table
 * ----------------------------------------------------------------------------------------- */

static void s_lose(dkt_node_t *self, dkt_record_t *record)
{
    record->wanted = false;
    if (record->state == DKT_NODE_STARTING || record->state == DKT_NODE_SERVING) {
        s_close(self, record);
    }
    s_dispose(self, record, dkt_node_moved);
    if (record->state == DKT_NODE_QUEUED || record->state == DKT_NODE_QUEUED_FAILED ||
        record->state == DKT_NODE_BACKOFF) {
        s_move(self, record, DKT_NODE_IDLE);
    }
}

void dkt_node_set_table(dkt_node_t *self, const dkt_table_t *table)
{
    if (dkt_table_version_compare(table->version, self->table.version) <= 0) {
        return;
    }
    bool owned[DKT_VSHARDS];
    for (uint16_t v = 0; v < DKT_VSHARDS; v++) {
        owned[v] = dkt_node_owns(self, v);
    }
    self->table = *table;
    self->self_member = dkt_table_member(table, &self->env->incarnation);
    for (uint16_t v = 0; v < DKT_VSHARDS; v++) {
        bool owns = dkt_node_owns(self, v);
        if (owns && !owned[v]) {
            self->gained_mono_ms[v] = self->now_mono_ms;
        }
        dkt_record_t *record;
        LIST_FOREACH(record, &self->buckets[v], bucket)
        {
            if (!owns) {
                s_lose(self, record);
            }
        }
    }
    dkt_node_unpark(self, true);
}

/* -- time
 * ------------------------------------------------------------------------------------------ */

static void s_end_backoffs(dkt_node_t *self)
{
    if (self->now_mono_ms < self->backoff_mono_ms) {
        return;
    }
    int64_t next_mono_ms = INT64_MAX;
    dkt_record_t *record = TAILQ_FIRST(&self->lists[DKT_NODE_BACKOFF]);
    while (record) {
        dkt_record_t *next = TAILQ_NEXT(record, of_state);
        if (record->retry_mono_ms > self->now_mono_ms) {
            if (record->retry_mono_ms < next_mono_ms) {
                next_mono_ms = record->retry_mono_ms;
            }
        } else if (record->pending_count > 0 || record->wanted) {
            s_resolve(self, record);
        } else {
            s_move(self, record, DKT_NODE_IDLE);
        }
        record = next;
    }
    self->backoff_mono_ms = next_mono_ms;
}

static void s_passivate_idle(dkt_node_t *self)
{
    dkt_record_t *record = TAILQ_FIRST(&self->lists[DKT_NODE_SERVING]);
    while (record) {
        dkt_record_t *next = TAILQ_NEXT(record, of_state);
        int64_t since_mono_ms = dkt_actor_idle_since_mono_ms(record->actor);
        int64_t until_mono_ms = self->now_mono_ms - DKT_IDLE_PASSIVATE_MS;
        if (since_mono_ms != 0 && since_mono_ms <= until_mono_ms &&
            record->last_request_mono_ms <= until_mono_ms) {
            self->counts.passivations++;
            s_close(self, record);
        }
        record = next;
    }
}

static void s_forget_idle(dkt_node_t *self)
{
    dkt_record_t *record = TAILQ_FIRST(&self->lists[DKT_NODE_IDLE]);
    for (int i = 0; record && i < S_FORGET_PER_SWEEP; i++) {
        dkt_record_t *next = TAILQ_NEXT(record, of_state);
        bool remembers =
            (record->suspect_count > 0 && self->now_mono_ms < record->suspects_until_mono_ms) ||
            self->now_mono_ms < record->absent_until_mono_ms ||
            self->now_mono_ms < record->last_request_mono_ms + DKT_SUSPECT_MEMORY_MS;
        if (!remembers || self->record_count >= DKT_NODE_RECORDS_MAX) {
            s_forget(self, record);
        }
        record = next;
    }
}

static void s_sweep(dkt_node_t *self)
{
    self->sweep_mono_ms = self->now_mono_ms + S_SWEEP_MS;
    dkt_record_t *record = TAILQ_FIRST(&self->waiting);
    dkt_record_t *last = TAILQ_LAST(&self->waiting, dkt_records);
    while (record) {
        /* Expiring takes a record out of the list and puts it back at its end. */
        dkt_record_t *next = record == last ? NULL : TAILQ_NEXT(record, waiting);
        s_expire(self, record);
        record = next;
    }
    s_passivate_idle(self);
    s_forget_idle(self);
}

void dkt_node_turn(dkt_node_t *self)
{
    s_end_backoffs(self);
    if (self->now_mono_ms >= self->sweep_mono_ms) {
        s_sweep(self);
    }
    s_pump_list(self, DKT_NODE_QUEUED);
    s_pump_list(self, DKT_NODE_QUEUED_FAILED);
}

void dkt_node_drain_all(dkt_node_t *self)
{
    self->self_member = -1; /* from now on everything is somebody else's */
    for (uint16_t v = 0; v < DKT_VSHARDS; v++) {
        dkt_record_t *record;
        LIST_FOREACH(record, &self->buckets[v], bucket)
        {
            s_lose(self, record);
        }
    }
}

void dkt_node_drop_all(dkt_node_t *self)
{
    for (uint16_t v = 0; v < DKT_VSHARDS; v++) {
        dkt_record_t *record;
        while ((record = LIST_FIRST(&self->buckets[v]))) {
            dkt_mail_t *rest = record->actor ? dkt_actor_destroy(&record->actor) : NULL;
            while (rest) {
                dkt_mail_t *next = rest->next;
                free(rest);
                rest = next;
            }
            dkt_mail_t *mail = s_take_pending(self, record);
            while (mail) {
                dkt_mail_t *next = mail->next;
                free(mail);
                mail = next;
            }
            LIST_REMOVE(record, bucket);
            free(record->suspects);
            free(record);
        }
    }
}
