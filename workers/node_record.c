/* SPDX-License-Identifier: Apache-2.0
 *
 * The records of a node loop: which state a tenant is in and what waits for it. One function
 * changes a state; the lists by state are the queues.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "workers/node.h"

#define S_RETRY_AFTER_MS 100 /* told with `overloaded` */

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

void dkt_node_move(dkt_node_t *self, dkt_record_t *record, dkt_node_state_t state)
{
    assert(s_legal[record->state] & (1u << state));
    if (state == DKT_NODE_IDLE) {
        dkt_node_end_probe(self, record);
        record->migrate_target = 0;
    }
    TAILQ_REMOVE(&self->lists[record->state], record, of_state);
    self->counts_of_state[record->state]--;
    record->state = state;
    TAILQ_INSERT_TAIL(&self->lists[state], record, of_state);
    self->counts_of_state[state]++;
}

/* -- records -- */

uint16_t dkt_node_vshard(dkt_node_t *self, const dkt_client_t *client)
{
    return dkt_client_vshard_seen(&self->vshard_seen, client);
}

dkt_record_t *dkt_node_find(dkt_node_t *self, const dkt_client_t *client)
{
    dkt_record_t *record;
    LIST_FOREACH(record, &self->buckets[dkt_node_vshard(self, client)], bucket)
    {
        if (dkt_client_equal(&record->client, client)) {
            return record;
        }
    }
    return NULL;
}

dkt_record_t *dkt_node_record(dkt_node_t *self, const dkt_client_t *client)
{
    dkt_record_t *record = dkt_node_find(self, client);
    if (record || self->record_count >= DKT_NODE_RECORDS_MAX) {
        return record;
    }
    record = dkt_mail_alloc(sizeof *record);
    record->client = *client;
    record->vshard = dkt_node_vshard(self, client);
    record->state = DKT_NODE_IDLE;
    LIST_INSERT_HEAD(&self->buckets[record->vshard], record, bucket);
    TAILQ_INSERT_TAIL(&self->lists[DKT_NODE_IDLE], record, of_state);
    self->counts_of_state[DKT_NODE_IDLE]++;
    self->record_count++;
    return record;
}

void dkt_node_forget(dkt_node_t *self, dkt_record_t *record)
{
    assert(record->state == DKT_NODE_IDLE && record->pending_count == 0 && !record->actor);
    LIST_REMOVE(record, bucket);
    TAILQ_REMOVE(&self->lists[DKT_NODE_IDLE], record, of_state);
    self->counts_of_state[DKT_NODE_IDLE]--;
    self->record_count--;
    free(record->suspects);
    free(record);
}

/* -- what waits -- */

void dkt_node_wait(dkt_node_t *self, dkt_record_t *record, dkt_work_mail_t *work)
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
dkt_mail_t *dkt_node_take_pending(dkt_node_t *self, dkt_record_t *record)
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

void dkt_node_dispose(dkt_node_t *self, dkt_record_t *record, dkt_node_dispose_fn *dispose)
{
    dkt_mail_t *mail = dkt_node_take_pending(self, record);
    while (mail) {
        dkt_mail_t *next = mail->next;
        dispose(self, (dkt_work_mail_t *)mail);
        mail = next;
    }
}

static void s_fail_expired(dkt_node_t *self, dkt_work_mail_t *work)
{
    self->counts.expired++;
    dkt_node_fail(self, work, DKT_DEADLINE_EXCEEDED, 0);
}

void dkt_node_expire(dkt_node_t *self, dkt_record_t *record)
{
    dkt_mail_t *mail = dkt_node_take_pending(self, record);
    while (mail) {
        dkt_mail_t *next = mail->next;
        dkt_work_mail_t *work = (dkt_work_mail_t *)mail;
        if (work->work.deadline_mono_ms <= self->now_mono_ms) {
            s_fail_expired(self, work);
        } else {
            dkt_node_wait(self, record, work);
        }
        mail = next;
    }
}
