/* SPDX-License-Identifier: Apache-2.0
 *
 * Between the tenant core and its store: groups go out one at a time, reads go behind them, results
 * come back in order. At most one COMMIT, READ, GUARD and AGE each are in flight.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/core/grow.h"
#include "lib/core/plant.h"
#include "lib/core/tenant_impl.h"

#define SQLSTATE_STALE_EPOCH "DK001"

const char *dkt_tenant_class_name(const dkt_tenant_t *self, uint8_t class_index)
{
    const dkt_settings_t *settings = dkt_ledger_settings(self->ledger);
    return class_index < settings->class_count ? settings->classes[class_index].name : "";
}

const dkt_effect_t *dkt_tenant_pending(const dkt_tenant_t *self, uint64_t number)
{
    const dkt_effect_t *effect =
        DKT_PLANTED(PENDING_IGNORED) ? NULL : dkt_group_find(self->gathering, number);
    return effect || DKT_PLANTED(PENDING_IGNORED) || !self->inflight
               ? effect
               : dkt_group_find(self->inflight, number);
}

/* -- changes that other operations cause -- */

static const dkt_view_t s_no_view = {.data = NULL, .len = 0};

static bool s_event(dkt_tenant_t *self, dkt_event_type_t type, const dkt_promise_t *promise)
{
    return dkt_group_event(self->gathering, type, promise->ticket, self->now_ms,
                           promise->place.minute, promise->deadline_ms,
                           dkt_tenant_class_name(self, promise->class_index), s_no_view);
}

static bool s_update(dkt_tenant_t *self, const dkt_promise_t *promise, int64_t dispatched_ms)
{
    dkt_update_row_t row = {.number = promise->ticket,
                            .state = (dkt_ticket_state_t)promise->state,
                            .breached = self->now_ms > promise->deadline_ms,
                            .at_risk = promise->at_risk,
                            .dispatched_ms = dispatched_ms};
    return dkt_group_update(self->gathering, &row);
}

static bool s_place(dkt_tenant_t *self, const dkt_change_t *change)
{
    bool same = change->from.minute == change->promise.place.minute &&
                change->from.lane == change->promise.place.lane;
    return same ||
           dkt_group_place(self->gathering, change->promise.ticket, change->promise.place, false);
}

static bool s_change(dkt_tenant_t *self, const dkt_change_t *change)
{
    const dkt_promise_t *promise = &change->promise;
    switch (change->kind) {
    case DKT_CHANGE_MOVED:
        return s_place(self, change) && s_event(self, DKT_EVENT_RESCHEDULED, promise);
    case DKT_CHANGE_DISPATCHED:
        self->counts.dispatched++;
        return s_place(self, change) && s_update(self, promise, self->now_ms) &&
               s_event(self, DKT_EVENT_DISPATCHED, promise);
    case DKT_CHANGE_BREACHED:
        self->counts.breached++;
        return s_update(self, promise, 0) && s_event(self, DKT_EVENT_BREACHED, promise);
    case DKT_CHANGE_AT_RISK:
        return s_place(self, change) && s_update(self, promise, 0) &&
               s_event(self, DKT_EVENT_AT_RISK, promise);
    }
    return false;
}

void dkt_tenant_change(void *ctx, const dkt_change_t *change)
{
    dkt_tenant_t *self = ctx;
    if (!s_change(self, change)) {
        dkt_tenant_fail(self, "no memory for a change of a ticket");
    }
}

void dkt_tenant_moves(dkt_tenant_t *self, const dkt_moves_t *moves)
{
    for (uint32_t i = 0; i < moves->count && !DKT_PLANTED(MOVE_NOT_WRITTEN); i++) {
        dkt_promise_t promise;
        bool live = dkt_ledger_find(self->ledger, moves->moves[i].ticket, &promise);
        assert(live);
        if (!live || !dkt_group_place(self->gathering, promise.ticket, promise.place, true) ||
            !s_event(self, DKT_EVENT_RESCHEDULED, &promise)) {
            dkt_tenant_fail(self, "no memory for a move");
        }
    }
}

/* -- needs and reads -- */

void dkt_tenant_drop_need(dkt_tenant_t *self, const dkt_need_t *need)
{
    if (need->memo != DKT_MEMO_NONE) {
        dkt_memo_entry_t *entry = dkt_memo_entry(&self->memo, need->memo);
        dkt_work_t *joiner = entry->joiners;
        entry->joiners = NULL;
        dkt_memo_remove(&self->memo, need->memo);
        while (joiner) {
            dkt_work_t *next = joiner->next;
            dkt_tenant_give_back(self, joiner);
            joiner = next;
        }
    }
    dkt_tenant_give_back(self, need->work);
}

void dkt_tenant_unlook(dkt_tenant_t *self, uint32_t memo)
{
    if (memo == DKT_MEMO_NONE) {
        return;
    }
    dkt_memo_entry_t *entry = dkt_memo_entry(&self->memo, memo);
    dkt_work_t *joiner = entry->joiners;
    entry->joiners = NULL;
    dkt_memo_remove(&self->memo, memo);
    while (joiner) {
        dkt_work_t *next = joiner->next;
        dkt_works_push(&self->waiting, joiner);
        joiner = next;
    }
}

void dkt_tenant_need(dkt_tenant_t *self, dkt_call_t *call, const dkt_need_t *need)
{
    dkt_need_t wanted = *need;
    wanted.work = call->work;
    wanted.memo = call->memo;
    if (self->state != DKT_TENANT_SERVING) {
        dkt_tenant_drop_need(self, &wanted);
        return;
    }
    if (!dkt_grow((void **)&self->needs, &self->need_max, self->need_count + 1,
                  sizeof *self->needs)) {
        dkt_tenant_fail(self, "no memory for a look-up");
        dkt_tenant_drop_need(self, &wanted);
        return;
    }
    self->needs[self->need_count++] = wanted;
}

/* Takes the needs of the next READ out of the queue: all of them, but at most one list. */
static bool s_take_needs(dkt_tenant_t *self, dkt_read_t *read)
{
    uint32_t count = self->need_count;
    if (!dkt_grow((void **)&self->reading, &self->reading_max, count, sizeof *self->reading) ||
        !dkt_grow((void **)&self->read_ids, &self->read_id_max, count, sizeof *self->read_ids) ||
        !dkt_grow((void **)&self->read_numbers, &self->read_number_max, count,
                  sizeof *self->read_numbers) ||
        !dkt_grow((void **)&self->read_nonces, &self->read_nonce_max, count,
                  sizeof *self->read_nonces)) {
        return false;
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        const dkt_need_t need = self->needs[i];
        if ((need.list && read->list_limit > 0) || self->reading_count >= DKT_NEEDS_MAX) {
            self->needs[kept++] = need;
            continue;
        }
        if (need.list) {
            read->list_limit = need.list_limit;
            read->list_state = need.list_state;
            read->list_after = need.number;
        } else if (need.number) {
            self->read_numbers[read->number_count++] = need.number;
        }
        if (need.by_id) {
            self->read_ids[read->request_id_count++] = need.id;
        }
        if (need.nonce) {
            self->read_nonces[read->nonce_count++] = need.nonce;
        }
        self->reading[self->reading_count++] = need;
    }
    self->need_count = kept;
    return true;
}

static void s_flush_read(dkt_tenant_t *self)
{
    if (self->read_sent || self->need_count == 0) {
        return;
    }
    dkt_batch_t batch = {.kind = DKT_BATCH_READ, .epoch = self->epoch};
    if (!s_take_needs(self, &batch.read)) {
        dkt_tenant_fail(self, "no memory for a look-up");
        return;
    }
    batch.read.request_ids = self->read_ids;
    batch.read.numbers = self->read_numbers;
    batch.read.nonces = self->read_nonces;
    self->read_sent = true;
    self->read_mono_ms = self->mono_ms;
    self->counts.reads++;
    self->port.submit(self->port.ctx, &batch);
}

static void s_handle_again(dkt_tenant_t *self, const dkt_store_result_t *result,
                           const dkt_need_t *need)
{
    dkt_call_t call;
    if (need->work->deadline_mono_ms <= self->mono_ms) {
        dkt_tenant_error_of(self, need->work, DKT_DEADLINE_EXCEEDED, NULL);
        dkt_tenant_unlook(self, need->memo);
        return;
    }
    if (!dkt_tenant_open(self, need->work, &call)) {
        dkt_tenant_unlook(self, need->memo);
        return;
    }
    call.memo = need->memo;
    call.looked = true;
    call.result = result;
    if (need->by_id && DKT_PLANTED(LOOKUP_MIXED)) {
        call.row = self->rows.count > 0 ? &self->rows.rows[0] : NULL;
    } else if (need->by_id) {
        call.row = dkt_rows_by_id(&self->rows, &need->id);
    } else if (need->number && !need->list) {
        call.row = dkt_rows_by_number(&self->rows, need->number);
    }
    if (need->nonce) {
        call.taken = dkt_rows_by_nonce(&self->rows, need->nonce);
    }
    dkt_tenant_handle(self, &call);
}

/* Every need of the READ is handled again, now knowing what the database has. */
static void s_on_read(dkt_tenant_t *self, const dkt_store_result_t *result)
{
    self->read_sent = false;
    dkt_need_t *reading = self->reading;
    uint32_t count = self->reading_count;
    self->reading = NULL; /* a handler may need a look again */
    self->reading_count = 0;
    self->reading_max = 0;
    dkt_rows_index(&self->rows, result->tickets, result->ticket_count - result->listed_count);
    for (uint32_t i = 0; i < count; i++) {
        if (self->failed) {
            dkt_tenant_drop_need(self, &reading[i]);
        } else {
            s_handle_again(self, result, &reading[i]);
        }
    }
    free(reading);
}

/* -- groups -- */

/* The retries that joined a request hear the same, marked as replayed. */
static void s_answer_joiners(dkt_tenant_t *self, const dkt_group_t *group, uint32_t memo)
{
    dkt_memo_entry_t *entry = dkt_memo_entry(&self->memo, memo);
    dkt_work_t *joiner = entry->joiners;
    entry->joiners = NULL;
    const dkt_effect_t *effect = dkt_group_find(group, entry->ticket);
    assert(effect && effect->inserted);
    while (joiner) {
        dkt_work_t *next = joiner->next;
        dkt_call_t call;
        if (dkt_tenant_open(self, joiner, &call)) {
            uint8_t bytes[DKT_ANSWER_BYTES_MAX];
            dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
            (void)dkt_tenant_write_created(
                self, &w, call.request.msgid,
                entry->ticket + (DKT_PLANTED(JOINER_OTHER_TICKET) ? 1 : 0), call.request.slot_id,
                effect->row.place.minute, effect->row.deadline_ms, true);
            self->counts.replayed++;
            dkt_tenant_answer(self, joiner, bytes, w.len);
        }
        joiner = next;
    }
    dkt_memo_done(&self->memo, memo);
}

static void s_flush_group(dkt_tenant_t *self)
{
    if (self->inflight || dkt_group_empty(self->gathering)) {
        return;
    }
    dkt_batch_t batch = {.kind = DKT_BATCH_COMMIT,
                         .epoch = DKT_PLANTED(NO_GUARD) ? 0 : self->epoch};
    dkt_group_t *group = self->gathering;
    if (!dkt_group_seal(group, self->journal_seq + 1, self->now_ms, &batch.commit)) {
        dkt_tenant_fail(self, "no memory for a group");
        return;
    }
    if (batch.commit.journal_seq) {
        self->journal_seq++;
    }
    if (DKT_PLANTED(NO_NOT_AFTER)) {
        batch.commit.not_after_ms = INT64_MAX;
    }
    if (DKT_PLANTED(SWAPPED_ANSWERS) && group->reply_count > 1) {
        dkt_work_t *first = group->replies[0].work;
        group->replies[0].work = group->replies[1].work;
        group->replies[1].work = first;
    }
    if (batch.commit.update_count > 0) {
        dkt_tenant_rehearsed(self);
    }
    group->sent_mono_ms = self->mono_ms;
    self->inflight = group;
    self->gathering = group == &self->groups[0] ? &self->groups[1] : &self->groups[0];
    self->counts.groups++;
    self->counts.group_requests += group->reply_count;
    self->port.submit(self->port.ctx, &batch);
    if (DKT_PLANTED(ACK_BEFORE_SYNC)) {
        for (uint32_t i = 0; i < group->reply_count; i++) {
            const dkt_reply_t *reply = &group->replies[i];
            if (reply->memo != DKT_MEMO_NONE) {
                s_answer_joiners(self, group, reply->memo);
            }
            dkt_tenant_answer(self, reply->work, group->answers + reply->at, reply->len);
        }
        group->reply_count = 0;
    }
}

static void s_on_committed(dkt_tenant_t *self)
{
    dkt_group_t *group = self->inflight;
    for (uint32_t i = 0; i < group->reply_count; i++) {
        const dkt_reply_t *reply = &group->replies[i];
        dkt_tenant_answer(self, reply->work, group->answers + reply->at, reply->len);
        if (reply->memo != DKT_MEMO_NONE) {
            s_answer_joiners(self, group, reply->memo);
        }
    }
    if (group->has_settings || group->has_password) {
        self->port.changed(self->port.ctx, group->has_settings ? &group->settings : NULL);
    }
    self->inflight = NULL;
    dkt_group_reset(group);
}

static void s_flush_guard(dkt_tenant_t *self)
{
    if (self->fenced_count == 0 || self->inflight || self->read_sent || self->guard_sent) {
        return;
    }
    dkt_batch_t batch = {.kind = DKT_BATCH_GUARD, .epoch = self->epoch};
    self->guard_sent = true;
    self->guard_mono_ms = self->mono_ms;
    self->port.submit(self->port.ctx, &batch);
}

/* No work inside means no answer in the group, no look-up, no proof wanted and nobody behind it. */
bool dkt_tenant_background(const dkt_tenant_t *self)
{
    bool nobody_waits =
        self->state == DKT_TENANT_SERVING && self->held == 0 && self->migrate_target == 0;
    bool group = !self->inflight && !dkt_group_empty(self->gathering);
    return nobody_waits &&
           (group || dkt_tenant_age_ready(self) || dkt_tenant_rehearsal_ready(self));
}

void dkt_tenant_flush(dkt_tenant_t *self)
{
    if (self->failed) {
        return; /* the group may rest on a work that has left already */
    }
    s_flush_group(self);
    if (!self->failed) {
        dkt_tenant_age_flush(self);
        dkt_tenant_rehearse(self);
    }
    if (!self->failed && !dkt_tenant_age_presses(self)) {
        s_flush_read(self);
    }
    if (!self->failed) {
        s_flush_guard(self);
    }
}

/* A batch went wrong: the tenant ends (rule 5). */
static void s_on_failed(dkt_tenant_t *self, const dkt_store_result_t *result)
{
    dkt_tenant_fail(self, result->text[0] ? result->text : "the database did not answer");
    self->failed_outcome = result->kind == DKT_BATCH_COMMIT ? result->outcome : DKT_STORE_UNKNOWN;
    if (result->kind == DKT_BATCH_COMMIT) {
        memcpy(self->failed_sqlstate, result->sqlstate, sizeof self->failed_sqlstate);
    }
    self->end.stale = strcmp(result->sqlstate, SQLSTATE_STALE_EPOCH) == 0;
}

void dkt_tenant_on_result(dkt_tenant_t *self, const dkt_store_result_t *result)
{
    bool ignored = result->kind == DKT_BATCH_COMMIT &&
                   ((DKT_PLANTED(REFUSED_IS_OK) && result->outcome == DKT_STORE_REFUSED) ||
                    (DKT_PLANTED(UNKNOWN_IS_OK) && result->outcome == DKT_STORE_UNKNOWN));
    if (result->outcome != DKT_STORE_OK && !ignored) {
        s_on_failed(self, result);
        return;
    }
    int64_t sent_mono_ms = self->mono_ms;
    switch (result->kind) {
    case DKT_BATCH_COMMIT:
        assert(self->inflight);
        sent_mono_ms = self->inflight->sent_mono_ms;
        break;
    case DKT_BATCH_READ:
        sent_mono_ms = self->read_mono_ms;
        break;
    case DKT_BATCH_GUARD:
        self->guard_sent = false;
        sent_mono_ms = self->guard_mono_ms;
        break;
    case DKT_BATCH_MIGRATE:
        sent_mono_ms = self->migrate_mono_ms;
        break;
    case DKT_BATCH_AGE:
        sent_mono_ms = self->age.sent_mono_ms;
        break;
    case DKT_BATCH_REHEARSE:
        sent_mono_ms = self->rehearsal.sent_mono_ms;
        break;
    case DKT_BATCH_LOCK:
    case DKT_BATCH_TAKE:
    case DKT_BATCH_LOAD:
    case DKT_BATCH_RELAY_READ:
    case DKT_BATCH_RELAY_MARK:
        dkt_tenant_fail(self, "a result that nobody asked for");
        return;
    }
    if (sent_mono_ms > self->proof_mono_ms && result->kind != DKT_BATCH_AGE) {
        self->proof_mono_ms = sent_mono_ms;
    }
    bool clock_ahead = result->db_ms && !dkt_tenant_clock_read(&self->clock, result->db_ms,
                                                               sent_mono_ms, self->mono_ms);
    if (result->kind == DKT_BATCH_COMMIT) {
        s_on_committed(self);
    } else if (result->kind == DKT_BATCH_READ) {
        s_on_read(self, result);
    } else if (result->kind == DKT_BATCH_MIGRATE) {
        dkt_tenant_migrated(self, result);
    } else if (result->kind == DKT_BATCH_AGE) {
        dkt_tenant_age_result(self, result);
    } else if (result->kind == DKT_BATCH_REHEARSE) {
        dkt_tenant_rehearsed(self);
    }
    dkt_tenant_fence_open(self);
    if (clock_ahead) {
        dkt_tenant_fail(self, "the database's clock stepped ahead: activating anew");
    }
}
