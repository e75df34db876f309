/* SPDX-License-Identifier: Apache-2.0
 *
 * What a node loop does because time has passed: back-offs end, budgets expire, idle tenants are
 * passivated and forgotten.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "workers/node.h"

#define S_SWEEP_MS         50 /* budgets of what waits, and records to forget */
#define S_FORGET_PER_SWEEP 256

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
            dkt_node_resolve(self, record);
        } else {
            dkt_node_move(self, record, DKT_NODE_IDLE);
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
        int64_t until_mono_ms = self->now_mono_ms - self->env->idle_ms;
        bool idle = since_mono_ms != 0 &&
                    (record->probe || (since_mono_ms <= until_mono_ms &&
                                       record->last_request_mono_ms <= until_mono_ms));
        if (dkt_node_may_passivate(self, record) && idle) {
            self->counts.passivations++;
            dkt_node_close(self, record);
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
            dkt_node_forget(self, record);
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
        dkt_node_expire(self, record);
        record = next;
    }
    s_passivate_idle(self);
    s_forget_idle(self);
    dkt_worker_stats_t *stats = &self->env->stats;
    atomic_store(&stats->requests, self->counts.requests);
    atomic_store(&stats->activations, self->counts.activations);
    atomic_store(&stats->tenants, self->counts_of_state[DKT_NODE_SERVING]);
    atomic_store(&stats->open, self->open_count);
    atomic_store(&stats->moved, self->counts.moved);
    atomic_store(&stats->table_epoch, self->table.version.epoch);
    atomic_store(&stats->table_version, self->table.version.version);
    for (int i = 0; i < DKT_NODE_STATE_COUNT; i++) {
        atomic_store(&stats->actors[i], self->counts_of_state[i]);
    }
}

void dkt_node_turn(dkt_node_t *self)
{
    s_end_backoffs(self);
    if (self->now_mono_ms >= self->sweep_mono_ms) {
        s_sweep(self);
    }
    dkt_node_wake(self);
    dkt_node_start_queued(self);
}

void dkt_node_drain_all(dkt_node_t *self)
{
    self->self_member = -1; /* from now on everything is somebody else's */
    for (uint16_t v = 0; v < DKT_VSHARDS; v++) {
        dkt_record_t *record;
        LIST_FOREACH(record, &self->buckets[v], bucket)
        {
            dkt_node_lose(self, record);
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
            dkt_mail_t *mail = dkt_node_take_pending(self, record);
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
