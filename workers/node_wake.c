/* SPDX-License-Identifier: Apache-2.0
 *
 * Rule 7: a tenant with something due is active in time, although nobody asks. lib/core/wake says
 * who is due; this file feeds it (rows of vshards that were gained, ends of own actors, tenants
 * without a row) and activates whom it names, the way a request would.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/edge/clock.h"
#include "lib/edge/log.h"
#include "workers/node.h"

static void s_step(dkt_node_t *self, const dkt_wake_event_t *event)
{
    if (!dkt_wake_step(&self->wake, dkt_clock_unix_ms(), event)) {
        abort(); /* no memory */
    }
}

static void s_put(dkt_node_t *self, const dkt_client_t *client, bool probe, int64_t due_ms)
{
    s_step(self, &(dkt_wake_event_t){.kind = probe ? DKT_WAKE_PROBE : DKT_WAKE_DUE,
                                     .client = *client,
                                     .due_ms = due_ms});
}

/* -- what is known of -- */

void dkt_node_gained(dkt_node_t *self, const uint8_t vshards[DKT_VSHARDS / 8])
{
    dkt_wake_mail_t *mail = dkt_mail_alloc(sizeof *mail);
    memcpy(mail->vshards, vshards, sizeof mail->vshards);
    dkt_mail_post(self->env->directory_box, &mail->mail, DKT_MAIL_WAKE);
}

void dkt_node_lost(dkt_node_t *self, uint16_t vshard)
{
    s_step(self, &(dkt_wake_event_t){.kind = DKT_WAKE_LOST, .vshard = vshard});
}

void dkt_node_rows(dkt_node_t *self, const dkt_rows_mail_t *rows)
{
    uint32_t taken = 0;
    for (uint32_t i = 0; i < rows->count; i++) {
        const dkt_wake_row_t *row = &rows->rows[i];
        const dkt_record_t *record = dkt_node_find(self, &row->client);
        bool active = record && record->state != DKT_NODE_IDLE &&
                      (rows->probe || record->state == DKT_NODE_SERVING);
        if (!active && dkt_node_owns(self, dkt_client_vshard(&row->client))) {
            s_put(self, &row->client, rows->probe, row->due_ms);
            taken++;
        }
    }
    if (taken > 0 && !rows->probe) {
        dkt_log(DKT_LOG_INFO, "%u inactive tenants have something due", taken);
    }
}

void dkt_node_is_active(dkt_node_t *self, const dkt_client_t *client)
{
    s_step(self, &(dkt_wake_event_t){.kind = DKT_WAKE_ACTIVE, .client = *client});
}

void dkt_node_settle(dkt_node_t *self, dkt_record_t *record, const dkt_actor_mail_t *event)
{
    dkt_wake_end_t end = dkt_wake_after_end(event->clean, event->served);
    record->marked = false;
    record->wanted = record->wanted || end == DKT_WAKE_END_WANTED;
    if (end != DKT_WAKE_END_SETTLE) {
        return;
    }
    dkt_settle_mail_t *mail = dkt_mail_alloc(sizeof *mail);
    mail->client = record->client;
    mail->due_ms = event->next_due_ms;
    dkt_mail_post(self->env->directory_box, &mail->mail, DKT_MAIL_SETTLE);
    if (event->next_due_ms != INT64_MAX && dkt_node_owns(self, record->vshard)) {
        s_put(self, &record->client, false, event->next_due_ms);
    }
}

void dkt_node_wake_later(dkt_node_t *self, dkt_record_t *record)
{
    if (record->wanted) {
        s_put(self, &record->client, record->probe, 0);
        s_step(self, &(dkt_wake_event_t){.kind = DKT_WAKE_PAUSE});
        record->wanted = false;
    }
}

/* -- activation -- */

void dkt_node_end_probe(dkt_node_t *self, dkt_record_t *record)
{
    if (record->probe) {
        record->probe = false;
        self->probing--;
    }
}

static void s_wake(dkt_node_t *self, const dkt_client_t *client, bool probe)
{
    dkt_record_t *record = dkt_node_record(self, client);
    if (!record) {
        s_put(self, client, probe, 0);
        s_step(self, &(dkt_wake_event_t){.kind = DKT_WAKE_PAUSE});
        return;
    }
    if (record->state == DKT_NODE_SERVING) {
        return; /* it sees to its minutes itself */
    }
    if (record->state != DKT_NODE_IDLE) {
        record->wanted = record->wanted || !probe;
        return;
    }
    record->wanted = true;
    record->probe = probe;
    self->probing += probe ? 1 : 0;
    self->counts.wakes += probe ? 0 : 1;
    self->counts.probes += probe ? 1 : 0;
    dkt_node_resolve(self, record);
}

static void s_ask_for_unmarked(dkt_node_t *self)
{
    if (self->now_mono_ms < self->probe_mono_ms || self->self_member < 0) {
        return;
    }
    self->probe_mono_ms = self->now_mono_ms + self->env->probe_ms;
    dkt_wake_mail_t *mail = dkt_mail_alloc(sizeof *mail);
    mail->probe = true;
    dkt_mail_post(self->env->directory_box, &mail->mail, DKT_MAIL_WAKE);
}

void dkt_node_wake(dkt_node_t *self)
{
    dkt_client_t client;
    bool probe = false;
    s_ask_for_unmarked(self);
    while (dkt_wake_next(&self->wake, dkt_clock_unix_ms(),
                         self->counts_of_state[DKT_NODE_RESOLVING] +
                             self->counts_of_state[DKT_NODE_QUEUED],
                         self->probing, &client, &probe)) {
        if (dkt_node_owns(self, dkt_client_vshard(&client))) {
            s_wake(self, &client, probe);
        }
    }
}

/* -- passivation -- */

bool dkt_node_may_passivate(dkt_node_t *self, dkt_record_t *record)
{
    bool up = atomic_load(&self->env->control_up);
    if (!record->marked && up && self->now_mono_ms >= record->mark_asked_mono_ms) {
        record->mark_asked_mono_ms = self->now_mono_ms + DKT_WAKE_MARK_MS;
        dkt_lookup_mail_t *lookup = dkt_mail_alloc(sizeof *lookup);
        lookup->client = record->client;
        dkt_mail_post(self->env->directory_box, &lookup->mail, DKT_MAIL_LOOKUP);
    }
    return record->marked && up && record->migrate_target == 0;
}
