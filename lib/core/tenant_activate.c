/* SPDX-License-Identifier: Apache-2.0
 *
 * Activation: lock, take (epoch + 1), load, serve. Ownership is proved by the store (rule 1): the
 * lock and every later write are on the one connection, and every commit carries the epoch.
 */
#include <stdio.h>

#include "lib/core/plant.h"
#include "lib/core/tenant_impl.h"

void dkt_tenant_on_connected(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    (void)event;
    dkt_batch_t batch = {.kind = DKT_BATCH_LOCK};
    self->state = DKT_TENANT_LOCKING;
    self->port.submit(self->port.ctx, &batch);
}

static bool s_batch_failed(dkt_tenant_t *self, const dkt_store_result_t *result)
{
    if (result->outcome == DKT_STORE_OK) {
        return false;
    }
    self->failed_outcome = result->outcome;
    dkt_tenant_finish(self, false, result->text[0] ? result->text : "the database did not answer");
    return true;
}

/* Before anything is written: a schema that a step has left behind for newer code only, or one that
 * this code has stopped to serve. True: it ended. */
static bool s_schema_foreign(dkt_tenant_t *self, const dkt_store_result_t *result)
{
    char text[DKT_ERR_TEXT_BYTES_MAX];
    if (result->min_reader > DKT_SCHEMA_TENANT_READS) {
        snprintf(text, sizeof text,
                 "schema %d is for code that reads %d, this reads %d: a newer docket must serve it",
                 (int)result->schema_version, (int)result->min_reader, DKT_SCHEMA_TENANT_READS);
    } else if (result->schema_version != 0 && result->schema_version < DKT_SCHEMA_TENANT_NEEDS) {
        snprintf(text, sizeof text, "schema %d is too old, this needs %d: run docket migrate",
                 (int)result->schema_version, DKT_SCHEMA_TENANT_NEEDS);
    } else {
        return false;
    }
    dkt_tenant_finish(self, false, text);
    return true;
}

void dkt_tenant_on_locked(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    if (s_batch_failed(self, event->result)) {
        return;
    }
    if (!event->result->locked && !DKT_PLANTED(NO_LOCK)) {
        self->end.lock_held = true;
        dkt_tenant_finish(self, false, "another owner holds the lock");
        return;
    }
    if (s_schema_foreign(self, event->result)) {
        return;
    }
    dkt_batch_t take = {.kind = DKT_BATCH_TAKE, .table = self->config.table};
    dkt_batch_t load = {.kind = DKT_BATCH_LOAD};
    self->state = DKT_TENANT_TAKING;
    self->proof_mono_ms = self->mono_ms;
    /* The load goes right behind, a transaction of its own that begins after the takeover's commit:
     * nothing is read that another owner could still change. If the takeover fails it is for
     * nothing, and its result is nobody's. */
    self->port.submit(self->port.ctx, &take);
    self->port.submit(self->port.ctx, &load);
}

void dkt_tenant_on_taken(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    const dkt_store_result_t *result = event->result;
    if (s_batch_failed(self, result)) {
        return;
    }
    if (!result->taken) {
        self->end.stale = true;
        dkt_tenant_finish(self, false, "a newer assignment exists");
        return;
    }
    dkt_tenant_handoff_take(self, result->handoff);
    int64_t written_ms = dkt_tenant_handoff_written_ms(self);
    int64_t last_ms = written_ms > result->last_journal_ms ? written_ms : result->last_journal_ms;
    if (dkt_tenant_clock_start(&self->clock, result->db_ms,
                               DKT_PLANTED(CLOCK_GOES_BACK) ? 0 : last_ms,
                               self->mono_ms) != DKT_OK) {
        dkt_tenant_finish(self, false,
                          "the database's clock is behind its own journal: an operator must look");
        return;
    }
    self->epoch = result->epoch;
    self->journal_seq = DKT_PLANTED(JOURNAL_RESTARTS) ? 0 : result->last_journal_seq;
    self->last_ticket = result->last_ticket;
    self->nonce_next = 1;
    self->counts.epoch = result->epoch;
    self->now_ms = dkt_tenant_clock_now(&self->clock, self->mono_ms);
    self->state = DKT_TENANT_LOADING; /* on its way already */
}

static bool s_load_tickets(dkt_tenant_t *self, const dkt_store_result_t *result, dkt_err_t *err)
{
    for (uint32_t i = DKT_PLANTED(LOAD_MISSES_ROW) ? 1 : 0; i < result->ticket_count; i++) {
        const dkt_ticket_row_t *row = &result->tickets[i];
        int class_index = dkt_settings_class(result->settings, (const char *)row->class_name.data,
                                             row->class_name.len);
        dkt_promise_t promise = {.ticket = row->number,
                                 .deadline_ms = row->deadline_ms,
                                 .place = row->place,
                                 .class_index =
                                     class_index < 0 ? DKT_CLASS_GONE : (uint8_t)class_index,
                                 .state = (uint8_t)row->state,
                                 .at_risk = row->at_risk};
        if (dkt_ledger_load_ticket(self->ledger, &promise, err) != DKT_OK) {
            return false;
        }
    }
    return true;
}

void dkt_tenant_on_loaded(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    const dkt_store_result_t *result = event->result;
    if (s_batch_failed(self, result)) {
        return;
    }
    dkt_err_t err = {0};
    dkt_settings_t settings = *result->settings;
    if (dkt_settings_check(&settings, &err) != DKT_OK) {
        dkt_tenant_finish(self, false, err.text);
        return;
    }
    self->ledger = dkt_ledger_new(&settings, self->now_ms);
    if (!self->ledger) {
        dkt_tenant_finish(self, false, "no memory for the ledger");
        return;
    }
    dkt_ledger_load_dispatched(self->ledger, result->last_dispatched_minute);
    if (!s_load_tickets(self, result, &err)) {
        dkt_tenant_finish(self, false, err.text);
        return;
    }
    dkt_tenant_handoff_load(self);
    for (uint32_t i = 0; i < result->revoked_count; i++) {
        if (!dkt_revoked_add(&self->revoked, result->revoked[i].token_id,
                             result->revoked[i].expires_ms, self->now_ms)) {
            dkt_tenant_finish(self, false, "no memory for the revoked tokens");
            return;
        }
    }
    snprintf(self->account_password, sizeof self->account_password, "%.*s",
             (int)result->account_password.len, (const char *)result->account_password.data);
    if (result->sub_domain.data) {
        snprintf(self->sub_domain, sizeof self->sub_domain, "%.*s", (int)result->sub_domain.len,
                 (const char *)result->sub_domain.data);
    }
    self->tokens_valid_from_ms = result->tokens_valid_from_ms;
    /* The newest ticket's row is always kept: without one there has never been any. */
    dkt_memo_activated(&self->memo, self->now_ms, self->last_ticket == 0);
    self->state = DKT_TENANT_SERVING;
    dkt_tenant_age_begin(self);
    dkt_ledger_load_done(self->ledger, self->now_ms, dkt_tenant_change, self);
    dkt_tenant_process(self);
}
