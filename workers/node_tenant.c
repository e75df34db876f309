/* SPDX-License-Identifier: Apache-2.0
 *
 * Activation: when a tenant's actor starts, what happens when it ends, and what a new table moves.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/edge/clock.h"
#include "lib/edge/log.h"
#include "workers/node.h"

#define S_RETRY_AFTER_MS 100 /* told with `overloaded` and `unavailable` */
#define S_REFRESH_MS     20  /* ask the directory for a new table at most this often */

bool dkt_node_owns(const dkt_node_t *self, uint16_t vshard)
{
    return self->self_member >= 0 && self->table.owner[vshard] == self->self_member;
}

static void s_fail_unavailable(dkt_node_t *self, dkt_work_mail_t *work)
{
    dkt_node_fail(self, work, DKT_UNAVAILABLE, S_RETRY_AFTER_MS);
}

/* -- activation -- */

void dkt_node_resolve(dkt_node_t *self, dkt_record_t *record)
{
    dkt_lookup_mail_t *lookup = dkt_mail_alloc(sizeof *lookup);
    lookup->client = record->client;
    dkt_node_move(self, record, DKT_NODE_RESOLVING);
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
        return;
    }
    if (!record->fed) {
        record->fed = true;
        record->fed_next = self->fed;
        self->fed = record;
    }
}

void dkt_node_feed(dkt_node_t *self)
{
    while (self->fed) {
        dkt_record_t *record = self->fed;
        self->fed = record->fed_next;
        record->fed = false;
        dkt_actor_feed(record->actor);
    }
}

static void s_back_off(dkt_node_t *self, dkt_record_t *record, uint32_t wait_ms, bool refusing)
{
    record->retry_mono_ms = self->now_mono_ms + wait_ms;
    record->refusing = refusing;
    dkt_node_move(self, record, DKT_NODE_BACKOFF);
    if (record->retry_mono_ms < self->backoff_mono_ms) {
        self->backoff_mono_ms = record->retry_mono_ms;
    }
}

static void s_back_off_failed(dkt_node_t *self, dkt_record_t *record)
{
    record->failures++;
    self->counts.failed_activations++;
    record->wanted = record->wanted && !record->probe; /* a probe has no hurry */
    dkt_node_dispose(self, record, s_fail_unavailable);
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
                                 .home = record->home,
                                 .probe = record->probe};
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
    record->started_mono_us = dkt_clock_mono_us();
    record->lost_mono_us = 0;
    dkt_node_move(self, record, DKT_NODE_STARTING);
    dkt_mail_t *mail = dkt_node_take_pending(self, record);
    while (mail) {
        dkt_mail_t *next = mail->next;
        s_push(self, record, (dkt_work_mail_t *)mail);
        mail = next;
    }
}

void dkt_node_close(dkt_node_t *self, dkt_record_t *record)
{
    dkt_actor_drain(record->actor);
    if (record->state == DKT_NODE_STARTING) {
        dkt_gate_leave(&self->gate, record->failed_place);
    }
    dkt_node_move(self, record, DKT_NODE_CLOSING);
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
        if (since_mono_ms != 0 && since_mono_ms < idlest_since_mono_ms &&
            dkt_node_may_passivate(self, record)) {
            idlest = record;
            idlest_since_mono_ms = since_mono_ms;
        }
    }
    if (idlest) {
        self->counts.passivations++;
        dkt_node_close(self, idlest);
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

void dkt_node_start_queued(dkt_node_t *self)
{
    s_pump_list(self, DKT_NODE_QUEUED);
    s_pump_list(self, DKT_NODE_QUEUED_FAILED);
}

/* -- events -- */

void dkt_node_give(dkt_node_t *self, dkt_work_mail_t *work)
{
    dkt_record_t *record = dkt_node_record(self, &work->client);
    if (!record) {
        self->counts.overloaded++;
        dkt_node_fail(self, work, DKT_OVERLOADED, S_RETRY_AFTER_MS);
        return;
    }
    record->last_request_mono_ms = self->now_mono_ms;
    dkt_node_end_probe(self, record);
    if (record->state == DKT_NODE_STARTING || record->state == DKT_NODE_SERVING) {
        s_push(self, record, work);
    } else if (record->state == DKT_NODE_BACKOFF && record->refusing) {
        int64_t wait_ms = record->retry_mono_ms - self->now_mono_ms;
        dkt_node_fail(self, work, DKT_UNAVAILABLE, wait_ms > 0 ? (uint32_t)wait_ms : 1);
    } else if (record->state == DKT_NODE_IDLE && self->now_mono_ms < record->absent_until_mono_ms) {
        dkt_node_unknown(self, work);
    } else {
        dkt_node_wait(self, record, work);
        if (record->state == DKT_NODE_IDLE) {
            dkt_node_resolve(self, record);
        }
    }
}

void dkt_node_found(dkt_node_t *self, const dkt_lookup_mail_t *found)
{
    dkt_record_t *record = dkt_node_find(self, &found->client);
    if (!record) {
        return;
    }
    if (record->state != DKT_NODE_RESOLVING) {
        /* Asked for the mark only, or too late. */
        record->marked = record->marked || (record->actor && found->marked);
        return;
    }
    record->marked = found->marked;
    if (found->status == DKT_OK) {
        record->home = found->home;
        record->home_known = true;
    }
    if (!dkt_node_owns(self, record->vshard)) {
        dkt_node_dispose(self, record, dkt_node_moved);
        dkt_node_move(self, record, DKT_NODE_IDLE);
    } else if (found->status == DKT_NOT_FOUND) {
        record->home_known = false;
        record->wanted = false;
        dkt_node_is_active(self, &record->client);
        record->absent_until_mono_ms = self->now_mono_ms + DKT_LOOKUP_NEGATIVE_MS;
        dkt_node_dispose(self, record, dkt_node_unknown);
        dkt_node_move(self, record, DKT_NODE_IDLE);
    } else if (!record->home_known) {
        dkt_node_dispose(self, record, s_fail_unavailable);
        dkt_node_wake_later(self, record);
        dkt_node_move(self, record, DKT_NODE_IDLE);
    } else {
        /* The control database is gone, but it said earlier where this tenant lives. */
        dkt_node_move(self, record,
                      record->failures > 0 ? DKT_NODE_QUEUED_FAILED : DKT_NODE_QUEUED);
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
    record->ready_mono_ms = self->now_mono_ms;
    dkt_meter_add_since(&self->env->stats.activation_us, record->started_mono_us);
    record->wanted = false;
    dkt_node_is_active(self, &record->client);
    record->lock_held_since_mono_ms = 0;
    if (record->state == DKT_NODE_STARTING) {
        dkt_gate_leave(&self->gate, record->failed_place);
        dkt_node_move(self, record, DKT_NODE_SERVING);
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

/* Who served and broke is back at once, the first time. One that breaks as soon as it serves would
 * go round for ever, an epoch and a log line each time: it waits like one that cannot start. Only a
 * refusal counts: a new session after a lost one is had only if the database lets it. */
static uint32_t s_break_wait_ms(dkt_node_t *self, dkt_record_t *record, bool refused)
{
    bool steady = !refused || self->now_mono_ms - record->ready_mono_ms >= DKT_STEADY_MS;
    record->breaks = steady ? 1 : record->breaks + 1;
    uint32_t wait_ms = s_short_wait_ms();
    return record->breaks <= DKT_BREAKS_AT_ONCE
               ? wait_ms
               : wait_ms + dkt_backoff_ms(record->breaks - DKT_BREAKS_AT_ONCE, DKT_BACKOFF_BASE_MS,
                                          DKT_BACKOFF_CAP_MS, randombytes_random());
}

/* What comes after an end, in the order of what is known best. */
static void s_after_end(dkt_node_t *self, dkt_record_t *record, const dkt_actor_mail_t *event)
{
    if (!dkt_node_owns(self, record->vshard)) {
        record->wanted = false;
        record->lock_held_since_mono_ms = 0;
        dkt_node_dispose(self, record, dkt_node_moved);
        dkt_node_move(self, record, DKT_NODE_IDLE);
    } else if (event->lock_held) {
        s_ask_holder(self, record);
        s_back_off(self, record, s_short_wait_ms(), false);
    } else if (event->stale) {
        s_refresh_table(self);
        s_back_off(self, record, s_short_wait_ms(), false);
    } else if (event->clean || event->served) {
        /* An actor that served and broke has told its askers; those it gave back try once more. */
        if (record->pending_count > 0 || record->wanted) {
            s_back_off(self, record,
                       event->clean ? 0 : s_break_wait_ms(self, record, event->refused), false);
        } else {
            dkt_node_move(self, record, DKT_NODE_IDLE);
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
    if (record->lost_mono_us > 0 && event->clean) {
        dkt_meter_add_since(&self->env->stats.handoff_us, record->lost_mono_us);
    }
    if (event->served && !event->clean) {
        atomic_fetch_add_explicit(&self->env->stats.owner_lost, 1, memory_order_relaxed);
    }
    s_keep_suspects(self, record, event);
    dkt_node_feed(self); /* what it was to get comes back with the rest of its mailbox */
    dkt_mail_t *mail = dkt_actor_destroy(&record->actor);
    self->actor_count--;
    while (mail) {
        dkt_mail_t *next = mail->next;
        if (mail->kind == DKT_MAIL_WORK) {
            dkt_node_wait(self, record, (dkt_work_mail_t *)mail);
        } else {
            free(mail);
        }
        mail = next;
    }
    dkt_node_settle(self, record, event);
    s_after_end(self, record, event);
}

/* -- table -- */

void dkt_node_lose(dkt_node_t *self, dkt_record_t *record)
{
    record->wanted = false;
    if (record->state == DKT_NODE_STARTING || record->state == DKT_NODE_SERVING) {
        record->lost_mono_us = dkt_clock_mono_us();
        dkt_node_close(self, record);
    }
    dkt_node_dispose(self, record, dkt_node_moved);
    if (record->state == DKT_NODE_QUEUED || record->state == DKT_NODE_QUEUED_FAILED ||
        record->state == DKT_NODE_BACKOFF) {
        dkt_node_move(self, record, DKT_NODE_IDLE);
    }
}

void dkt_node_set_table(dkt_node_t *self, const dkt_table_t *table)
{
    if (dkt_table_version_compare(table->version, self->table.version) <= 0) {
        return;
    }
    bool owned[DKT_VSHARDS];
    uint8_t gained[DKT_VSHARDS / 8] = {0};
    for (uint16_t v = 0; v < DKT_VSHARDS; v++) {
        owned[v] = dkt_node_owns(self, v);
    }
    self->table = *table;
    self->self_member = dkt_table_member(table, &self->env->incarnation);
    for (uint16_t v = 0; v < DKT_VSHARDS; v++) {
        bool owns = dkt_node_owns(self, v);
        if (owns && !owned[v]) {
            self->gained_mono_ms[v] = self->now_mono_ms;
            gained[v / 8] |= (uint8_t)(1u << v % 8);
        } else if (!owns && owned[v]) {
            dkt_node_lost(self, v);
        }
        dkt_record_t *record;
        LIST_FOREACH(record, &self->buckets[v], bucket)
        {
            if (!owns) {
                dkt_node_lose(self, record);
            }
        }
    }
    dkt_node_gained(self, gained);
    dkt_node_unpark(self, true);
}
