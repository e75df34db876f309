/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/tenant.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/core/grow.h"
#include "lib/core/tenant_impl.h"

#define WAIT_TICK_MS 50 /* how often waiting works' budgets are looked at */
/* Dispatch groups of many tenants spread over this much of the 2 s before a minute; the rest is for
 * the commit of the last ones. */
#define STAGGER_MAX_MS 1600
_Static_assert(STAGGER_MAX_MS + DKT_TURN_WAIT_MS < DKT_COMMIT_BUDGET_MS,
               "a dispatch that waited for its turn still leaves before the minute");

static const char *const s_state_names[DKT_TENANT_STATE_COUNT] = {
#define X(name) #name,
    X_TENANT_STATES(X)
#undef X
};

const char *dkt_tenant_state_name(dkt_tenant_state_t state)
{
    assert(state < DKT_TENANT_STATE_COUNT);
    return s_state_names[state];
}

/* -- life -- */

dkt_tenant_t *dkt_tenant_new(const dkt_tenant_config_t *config, const dkt_tenant_port_t *port,
                             int64_t mono_ms)
{
    dkt_tenant_t *self = calloc(1, sizeof *self);
    if (!self) {
        return NULL;
    }
    self->config = *config;
    self->port = *port;
    self->state = DKT_TENANT_CONNECTING;
    self->mono_ms = mono_ms;
    self->suspended = config->suspended;
    self->end.next_due_ms = INT64_MAX;
    dkt_memo_init(&self->memo);
    dkt_group_init(&self->groups[0]);
    dkt_group_init(&self->groups[1]);
    self->gathering = &self->groups[0];
    snprintf(self->sub_domain, sizeof self->sub_domain, "%s", config->sub_domain);
    return self;
}

void dkt_tenant_destroy(dkt_tenant_t **self_p)
{
    dkt_tenant_t *self = *self_p;
    if (!self) {
        return;
    }
    assert(self->held == 0);
    dkt_ledger_destroy(&self->ledger);
    dkt_memo_fini(&self->memo);
    dkt_group_fini(&self->groups[0]);
    dkt_group_fini(&self->groups[1]);
    dkt_revoked_fini(&self->revoked);
    free(self->needs);
    free(self->reading);
    free(self->fenced);
    free(self->fence_bytes);
    free(self->read_ids);
    free(self->read_numbers);
    free(self->read_nonces);
    free(self->rows.places);
    free(self->suspects);
    free(self->handoff);
    free(self->page);
    free(self);
    *self_p = NULL;
}

/* -- requests -- */

typedef void(s_handler_t)(dkt_tenant_t *, dkt_call_t *);

/* What the owner serves. The rest (create_account, get_tenant, list_tenants, ping) never gets here.
 */
static s_handler_t *const s_handlers[DKT_METHOD_COUNT] = {
    [DKT_METHOD_CREATE_TICKET] = dkt_tenant_create_ticket,
    [DKT_METHOD_ALLOCATE_SLOT] = dkt_tenant_allocate_slot,
    [DKT_METHOD_VALIDATE_ETA] = dkt_tenant_validate_eta,
    [DKT_METHOD_RELEASE_SLOT] = dkt_tenant_release_slot,
    [DKT_METHOD_CANCEL_TICKET] = dkt_tenant_cancel_ticket,
    [DKT_METHOD_RESOLVE_TICKET] = dkt_tenant_resolve_ticket,
    [DKT_METHOD_GET_TICKET] = dkt_tenant_get_ticket,
    [DKT_METHOD_LIST_TICKETS] = dkt_tenant_list_tickets,
    [DKT_METHOD_AVAILABILITY] = dkt_tenant_availability,
    [DKT_METHOD_LOGIN] = dkt_tenant_login,
    [DKT_METHOD_LOGOUT] = dkt_tenant_logout,
    [DKT_METHOD_CHANGE_PASSWORD] = dkt_tenant_change_password,
    [DKT_METHOD_SET_TENANT] = dkt_tenant_set_tenant,
};

static bool s_token_alive(const dkt_tenant_t *self, const dkt_work_t *work)
{
    if (work->origin != DKT_AUDIENCE_PUBLIC || !dkt_method_row((dkt_method_t)work->method)->token) {
        return true;
    }
    /* Brokers look at the expiry too, with clocks of their own; what is revoked is forgotten by
     * this one. */
    return work->token_issued_ms > self->tokens_valid_from_ms &&
           work->token_expires_ms > self->now_ms &&
           !dkt_revoked_has(&self->revoked, work->token_id);
}

/* Are the ids this tenant's, and genuine? */
static bool s_ids_ours(dkt_tenant_t *self, dkt_call_t *call)
{
    const dkt_request_t *request = &call->request;
    dkt_client_t client;
    if (request->client_id.data &&
        (!dkt_client_parse_seen(&self->client_seen, (const char *)request->client_id.data,
                                request->client_id.len, &client) ||
         !dkt_client_equal(&client, &self->config.client))) {
        return false;
    }
    if (request->ticket_id.data &&
        (!dkt_ticket_parse(self->config.id_keys, (const char *)request->ticket_id.data,
                           request->ticket_id.len, &client, &call->number) ||
         !dkt_client_equal(&client, &self->config.client))) {
        return false;
    }
    return !request->slot_id.data ||
           (dkt_slot_parse(self->config.id_keys, (const char *)request->slot_id.data,
                           request->slot_id.len, &call->slot) &&
            dkt_client_equal(&call->slot.client, &self->config.client));
}

bool dkt_tenant_open(dkt_tenant_t *self, dkt_work_t *work, dkt_call_t *call)
{
    dkt_err_t err;
    memset(call, 0, offsetof(dkt_call_t, request));
    call->work = work;
    call->memo = DKT_MEMO_NONE;
    if (dkt_work_decode(work, &call->request, &err) != DKT_OK) {
        dkt_tenant_error(self, work, &err);
        return false;
    }
    if (!s_handlers[call->request.method]) {
        dkt_tenant_error_of(self, work, DKT_UNKNOWN_METHOD, NULL);
        return false;
    }
    if (!s_token_alive(self, work)) {
        dkt_tenant_error_of(self, work, DKT_UNAUTHENTICATED, NULL);
        return false;
    }
    if (call->request.argument.status != DKT_OK) {
        dkt_tenant_error(self, work, &call->request.argument);
        return false;
    }
    if (!s_ids_ours(self, call)) {
        dkt_tenant_error_of(self, work, DKT_NOT_FOUND, NULL);
        return false;
    }
    const dkt_request_t *request = &call->request;
    call->digest =
        (dkt_memo_digest_t){.method = request->method,
                            .ticket_type = (uint32_t)dkt_view_digest(request->ticket_type),
                            .subject = (uint32_t)dkt_view_digest(request->subject),
                            .payload = (uint32_t)dkt_view_digest(request->payload),
                            .slot = call->slot.nonce};
    return true;
}

void dkt_tenant_handle(dkt_tenant_t *self, dkt_call_t *call)
{
    s_handlers[call->request.method](self, call);
}

static void s_take(dkt_tenant_t *self, dkt_work_t *work)
{
    if (work->deadline_mono_ms <= self->mono_ms) {
        dkt_tenant_error_of(self, work, DKT_DEADLINE_EXCEEDED, NULL);
        return;
    }
    dkt_call_t call;
    if (dkt_tenant_open(self, work, &call)) {
        dkt_tenant_handle(self, &call);
    }
}

bool dkt_tenant_to_solo(dkt_tenant_t *self, dkt_call_t *call)
{
    if (self->solo_active) {
        self->gathering->solo = true;
        return false;
    }
    dkt_works_push(&self->solo, call->work);
    return true;
}

bool dkt_tenant_quiet(const dkt_tenant_t *self)
{
    return !self->inflight && dkt_group_empty(self->gathering) && self->need_count == 0 &&
           self->reading_count == 0;
}

void dkt_tenant_process(dkt_tenant_t *self)
{
    while (!self->failed && self->state == DKT_TENANT_SERVING) {
        if (self->solo_active && dkt_tenant_quiet(self)) {
            self->solo_active = false;
            self->gathering->solo = false;
        }
        if (self->solo_active || dkt_tenant_migrate(self)) {
            return;
        }
        if (!dkt_works_empty(&self->solo)) {
            if (!dkt_tenant_quiet(self)) {
                return;
            }
            self->solo_active = true;
            s_take(self, dkt_works_pop(&self->solo));
            continue;
        }
        if (dkt_works_empty(&self->waiting) || dkt_group_full(self->gathering) ||
            self->need_count >= DKT_NEEDS_MAX) {
            return;
        }
        s_take(self, dkt_works_pop(&self->waiting));
    }
}

static bool s_accept(dkt_tenant_t *self, dkt_work_t *work)
{
    self->held++;
    self->counts.requests++;
    if (self->held > DKT_MAILBOX_MAX) {
        dkt_tenant_error_of(self, work, DKT_OVERLOADED, NULL);
        return false;
    }
    return true;
}

static void s_on_wait(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    if (s_accept(self, event->work)) {
        dkt_works_push(&self->waiting, event->work);
    }
}

static void s_on_request(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    s_on_wait(self, event);
    dkt_tenant_process(self);
}

static void s_on_return(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    self->held++;
    dkt_tenant_give_back(self, event->work);
}

/* -- time -- */

static void s_expire(dkt_tenant_t *self, dkt_works_t *works)
{
    dkt_works_t kept = {0};
    dkt_work_t *work;
    while ((work = dkt_works_pop(works))) {
        if (work->deadline_mono_ms <= self->mono_ms) {
            dkt_tenant_error_of(self, work, DKT_DEADLINE_EXCEEDED, NULL);
        } else {
            dkt_works_push(&kept, work);
        }
    }
    *works = kept;
}

/* Dispatch groups of a thousand tenants must not meet: each has its own place in the 2 s. */
static int64_t s_stagger_ms(const dkt_tenant_t *self)
{
    return (int64_t)dkt_client_vshard(&self->config.client) * STAGGER_MAX_MS / DKT_VSHARDS;
}

static void s_on_tick_waiting(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    (void)event;
    s_expire(self, &self->waiting);
}

static void s_on_tick(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    s_on_tick_waiting(self, event);
    s_expire(self, &self->solo);
    dkt_tenant_fence_expire(self);
    int64_t due_ms = dkt_ledger_due_ms(self->ledger);
    /* A group of one stays a group of one: the minute waits the millisecond that takes. */
    if (!self->solo_active && due_ms != INT64_MAX && self->now_ms > due_ms + s_stagger_ms(self)) {
        /* Always the coming minute: what stands in one that has begun still goes out late, but only
         * the coming one is filled up by pulling forward. A ticket pulled into a minute that runs
         * would end in the next, beside what stands there. */
        int64_t minute = self->now_ms / DKT_MINUTE_MS + 1;
        dkt_ledger_tick(self->ledger, self->now_ms, (uint32_t)minute, dkt_tenant_change, self);
    }
    dkt_tenant_process(self);
}

int64_t dkt_tenant_due_mono_ms(const dkt_tenant_t *self)
{
    if (self->state == DKT_TENANT_ENDED) {
        return INT64_MAX;
    }
    int64_t due_mono_ms = INT64_MAX;
    if (!dkt_works_empty(&self->waiting) || !dkt_works_empty(&self->solo) ||
        self->fenced_count > 0) {
        due_mono_ms = self->mono_ms + WAIT_TICK_MS;
    }
    if (self->state != DKT_TENANT_SERVING) {
        return due_mono_ms;
    }
    int64_t due_ms = dkt_ledger_due_ms(self->ledger);
    if (due_ms != INT64_MAX) {
        int64_t wait_ms =
            due_ms + s_stagger_ms(self) + 1 - dkt_tenant_clock_now(&self->clock, self->mono_ms);
        int64_t mono_ms = self->mono_ms + (wait_ms > 1 ? wait_ms : 1);
        due_mono_ms = mono_ms < due_mono_ms ? mono_ms : due_mono_ms;
    }
    int64_t age_mono_ms = dkt_tenant_age_due_mono_ms(self);
    int64_t rehearsal_mono_ms = dkt_tenant_rehearsal_due_mono_ms(self);
    due_mono_ms = age_mono_ms < due_mono_ms ? age_mono_ms : due_mono_ms;
    return rehearsal_mono_ms < due_mono_ms ? rehearsal_mono_ms : due_mono_ms;
}

bool dkt_tenant_settled(const dkt_tenant_t *self)
{
    return self->state == DKT_TENANT_SERVING && dkt_tenant_quiet(self);
}

bool dkt_tenant_idle(const dkt_tenant_t *self, int64_t mono_ms)
{
    if (self->state != DKT_TENANT_SERVING || self->held > 0 || self->migrate_target != 0 ||
        !dkt_tenant_quiet(self) || dkt_tenant_age_owes(self)) {
        return false;
    }
    dkt_ledger_counts_t counts;
    dkt_ledger_counts(self->ledger, &counts);
    int64_t due_ms = dkt_ledger_due_ms(self->ledger);
    int64_t now_ms = dkt_tenant_clock_now(&self->clock, mono_ms);
    int64_t ahead_ms =
        self->config.idle_ms > DKT_WAKE_STAY_MS ? self->config.idle_ms : DKT_WAKE_STAY_MS;
    return counts.held == 0 && (due_ms == INT64_MAX || due_ms - now_ms > ahead_ms);
}

/* -- drain, loss, suspend -- */

/* When all that was decided is durable, one last group leaves the handoff, then the end is clean.
 */
static void s_drain_step(dkt_tenant_t *self)
{
    if (self->inflight || self->reading_count > 0 || self->fenced_count > 0 || self->hashing ||
        self->migrate_sent) {
        return;
    }
    if (self->handoff_written) {
        dkt_tenant_finish(self, true, "drained");
        return;
    }
    dkt_tenant_handoff_write(self);
    self->handoff_written = true;
}

static void s_on_drain(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    (void)event;
    self->state = DKT_TENANT_DRAINING;
    dkt_tenant_give_back_all(self, &self->waiting);
    dkt_tenant_give_back_all(self, &self->solo);
    for (uint32_t i = 0; i < self->need_count; i++) {
        dkt_tenant_drop_need(self, &self->needs[i]);
    }
    self->need_count = 0;
}

static void s_on_drain_early(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    (void)event;
    dkt_tenant_finish(self, true, "drained before it served");
}

static void s_on_tick_draining(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    (void)event;
    dkt_tenant_fence_expire(self);
}

static void s_on_flush_draining(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    (void)event;
    if (dkt_group_empty(self->gathering)) {
        s_drain_step(self);
    }
    if (self->state == DKT_TENANT_DRAINING) {
        dkt_tenant_flush(self);
    }
}

static void s_on_lost(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    (void)event;
    self->failed_outcome = DKT_STORE_UNKNOWN;
    dkt_tenant_finish(self, false, "the connection to the database is lost");
}

static void s_on_suspend(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    self->suspended = event->flag;
}

static void s_on_flush(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    (void)event;
    dkt_tenant_process(self);
    dkt_tenant_flush(self);
}

static void s_on_result(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    dkt_tenant_on_result(self, event->result);
    if (!self->failed) {
        dkt_tenant_process(self);
    }
}

static void s_on_migrate(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    dkt_tenant_on_migrate(self, event);
    dkt_tenant_process(self);
}

static void s_on_hashed(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    dkt_tenant_on_hashed(self, event->job);
    dkt_tenant_process(self);
}

static void s_ignore(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    (void)self;
    (void)event;
}

static void s_illegal(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    (void)event;
    assert(!"an event that this state cannot have");
    dkt_tenant_fail(self, "illegal event");
}

/* -- the table: every cell written -- */

typedef void(s_event_fn)(dkt_tenant_t *, const dkt_tenant_event_t *);

static s_event_fn *const s_table[DKT_TENANT_STATE_COUNT][DKT_TEV_MIGRATE + 1] = {
    /* CONNECTED, LOST, REQUEST, HASHED, RESULT, TICK, FLUSH, SUSPEND, DRAIN, MIGRATE */
    [DKT_TENANT_CONNECTING] = {dkt_tenant_on_connected, s_on_lost, s_on_wait, s_illegal, s_illegal,
                               s_on_tick_waiting, s_ignore, s_on_suspend, s_on_drain_early,
                               dkt_tenant_on_migrate},
    [DKT_TENANT_LOCKING] = {s_illegal, s_on_lost, s_on_wait, s_illegal, dkt_tenant_on_locked,
                            s_on_tick_waiting, s_ignore, s_on_suspend, s_on_drain_early,
                            dkt_tenant_on_migrate},
    [DKT_TENANT_TAKING] = {s_illegal, s_on_lost, s_on_wait, s_illegal, dkt_tenant_on_taken,
                           s_on_tick_waiting, s_ignore, s_on_suspend, s_on_drain_early,
                           dkt_tenant_on_migrate},
    [DKT_TENANT_LOADING] = {s_illegal, s_on_lost, s_on_wait, s_illegal, dkt_tenant_on_loaded,
                            s_on_tick_waiting, s_ignore, s_on_suspend, s_on_drain_early,
                            dkt_tenant_on_migrate},
    [DKT_TENANT_SERVING] = {s_illegal, s_on_lost, s_on_request, s_on_hashed, s_on_result, s_on_tick,
                            s_on_flush, s_on_suspend, s_on_drain, s_on_migrate},
    [DKT_TENANT_DRAINING] = {s_illegal, s_on_lost, s_on_return, s_on_hashed, s_on_result,
                             s_on_tick_draining, s_on_flush_draining, s_on_suspend, s_ignore,
                             s_ignore},
    [DKT_TENANT_ENDED] = {s_ignore, s_ignore, s_on_return, s_ignore, s_ignore, s_ignore, s_ignore,
                          s_ignore, s_ignore, s_ignore},
};

void dkt_tenant_step(dkt_tenant_t *self, int64_t mono_ms, const dkt_tenant_event_t *event)
{
    assert(event->kind <= DKT_TEV_MIGRATE);
    if (mono_ms > self->mono_ms) {
        self->mono_ms = mono_ms;
    }
    if (self->epoch != 0) {
        self->now_ms = dkt_tenant_clock_now(&self->clock, self->mono_ms);
    }
    s_table[self->state][event->kind](self, event);
    if (self->failed && self->state != DKT_TENANT_ENDED) {
        dkt_tenant_finish(self, false, NULL);
    }
}

/* -- questions -- */

dkt_tenant_state_t dkt_tenant_state(const dkt_tenant_t *self)
{
    return self->state;
}

const dkt_tenant_end_t *dkt_tenant_end(const dkt_tenant_t *self)
{
    return &self->end;
}

void dkt_tenant_counts(const dkt_tenant_t *self, dkt_tenant_counts_t *counts)
{
    *counts = self->counts;
    counts->waiting = self->held;
    if (self->ledger) {
        dkt_ledger_counts_t ledger;
        dkt_ledger_counts(self->ledger, &ledger);
        counts->open = ledger.open;
        counts->dispatched_now = ledger.dispatched;
        counts->held = ledger.held;
        counts->moves = ledger.moves_total;
    }
}

const dkt_ledger_t *dkt_tenant_ledger(const dkt_tenant_t *self)
{
    return self->ledger;
}
