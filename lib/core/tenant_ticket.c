/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of a ticket after it was promised: cancel and resolve, by the table of states in page 3.
 * A ticket that the ledger no longer knows is looked up, and what is not durable yet is looked at
 * first.
 */
#include <assert.h>
#include <string.h>

#include "lib/core/plant.h"
#include "lib/core/tenant_impl.h"

static void s_need_ticket(dkt_tenant_t *self, dkt_call_t *call)
{
    dkt_need_t need = {.number = call->number};
    dkt_tenant_need(self, call, &need);
}

static void s_lost_memory(dkt_tenant_t *self, dkt_call_t *call)
{
    dkt_tenant_fail(self, "no memory for a change of a ticket");
    dkt_tenant_error_of(self, call->work, DKT_UNAVAILABLE, NULL);
}

/* Open in the database and not in the ledger: another owner has made it, or memory is wrong. */
static void s_lost_open(dkt_tenant_t *self, dkt_call_t *call)
{
    dkt_tenant_fail(self, "the ledger has lost an open ticket of the database");
    dkt_tenant_error_of(self, call->work, DKT_UNAVAILABLE, NULL);
}

static void s_cancel_open(dkt_tenant_t *self, dkt_call_t *call, const dkt_promise_t *promise)
{
    bool freed = dkt_ledger_cancel(self->ledger, self->now_ms, promise->ticket) ||
                 (DKT_PLANTED(CANCEL_AFTER_DISPATCH) &&
                  dkt_ledger_resolve(self->ledger, self->now_ms, promise->ticket));
    assert(freed);
    if (!freed ||
        (!DKT_PLANTED(CANCEL_NOT_WRITTEN) &&
         !dkt_group_free(self->gathering, promise->ticket, DKT_TICKET_CANCELLED, self->now_ms,
                         self->now_ms > promise->deadline_ms)) ||
        (!DKT_PLANTED(JOURNAL_GAP) &&
         !dkt_group_event(self->gathering, DKT_EVENT_CANCELLED, promise->ticket, self->now_ms,
                          promise->place.minute, promise->deadline_ms,
                          dkt_tenant_class_name(self, promise->class_index),
                          call->request.traceparent))) {
        s_lost_memory(self, call);
        return;
    }
    uint8_t bytes[DKT_ANSWER_BYTES_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_answer_status(&w, call->request.msgid, "cancelled");
    dkt_tenant_decided(self, call, DKT_MEMO_NONE, &w);
}

/* The live promise, if there is one. A deadline that has passed is flagged first: the tick comes a
 * little later for most, and a ticket that ends before it would be breached without an event. */
static bool s_find_live(dkt_tenant_t *self, uint64_t number, dkt_promise_t *promise)
{
    bool live = dkt_ledger_find(self->ledger, number, promise);
    if (live && self->now_ms > promise->deadline_ms) {
        const uint32_t no_minute = 0; /* nothing is dispatched here */
        dkt_ledger_tick(self->ledger, self->now_ms, no_minute, dkt_tenant_change, self);
        live = dkt_ledger_find(self->ledger, number, promise);
    }
    return live;
}

void dkt_tenant_cancel_ticket(dkt_tenant_t *self, dkt_call_t *call)
{
    dkt_promise_t promise;
    if (s_find_live(self, call->number, &promise)) {
        if (promise.state == DKT_TICKET_OPEN || DKT_PLANTED(CANCEL_AFTER_DISPATCH)) {
            s_cancel_open(self, call, &promise);
        } else {
            dkt_tenant_attach_status(self, call, "too_late");
        }
        return;
    }
    const dkt_effect_t *pending = dkt_tenant_pending(self, call->number);
    if (!pending && !call->looked) {
        s_need_ticket(self, call);
        return;
    }
    if (!pending && !call->row) {
        dkt_tenant_fenced_error(self, call, DKT_NOT_FOUND, NULL);
        return;
    }
    dkt_ticket_state_t state = pending ? pending->row.state : call->row->state;
    if (state == DKT_TICKET_OPEN) {
        s_lost_open(self, call);
        return;
    }
    dkt_tenant_attach_status(self, call, state == DKT_TICKET_CANCELLED ? "cancelled" : "too_late");
}

static void s_resolved(dkt_tenant_t *self, dkt_call_t *call, bool met, bool decided)
{
    uint8_t bytes[DKT_ANSWER_BYTES_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_answer_begin(&w, call->request.msgid, 2);
    dkt_w_cstr(&w, "status");
    dkt_w_cstr(&w, "resolved");
    dkt_w_cstr(&w, "met");
    dkt_w_bool(&w, met);
    if (decided) {
        dkt_tenant_decided(self, call, DKT_MEMO_NONE, &w);
    } else {
        dkt_tenant_attach(self, call->work, bytes, w.len);
    }
}

/* Of an open or dispatched ticket; `promise` as far as it is known. */
static void s_resolve(dkt_tenant_t *self, dkt_call_t *call, const dkt_promise_t *promise,
                      const char *class_name)
{
    bool breached = self->now_ms > promise->deadline_ms;
    dkt_update_row_t row = {.number = promise->ticket,
                            .state = DKT_TICKET_RESOLVED,
                            .breached = breached,
                            .at_risk = promise->at_risk,
                            .resolved_ms = self->now_ms};
    bool written = promise->state == DKT_TICKET_OPEN
                       ? dkt_group_free(self->gathering, promise->ticket, DKT_TICKET_RESOLVED,
                                        self->now_ms, breached)
                       : dkt_group_update(self->gathering, &row);
    if (!written || !dkt_group_event(self->gathering, DKT_EVENT_RESOLVED, promise->ticket,
                                     self->now_ms, promise->place.minute, promise->deadline_ms,
                                     class_name, call->request.traceparent)) {
        s_lost_memory(self, call);
        return;
    }
    s_resolved(self, call, !breached, true);
}

/* Not live in the ledger: over, or dispatched and breached. */
static void s_resolve_past(dkt_tenant_t *self, dkt_call_t *call, const dkt_effect_t *pending)
{
    const dkt_ticket_row_t *row = call->row;
    dkt_ticket_state_t state = pending ? pending->row.state : row->state;
    int64_t resolved_ms = pending ? pending->row.resolved_ms : row->resolved_ms;
    switch (state) {
    case DKT_TICKET_RESOLVED:
        s_resolved(self, call, resolved_ms <= row->deadline_ms, false);
        return;
    case DKT_TICKET_CANCELLED:
        dkt_tenant_attach_error(self, call, DKT_CONFLICT, "ticket_id");
        return;
    case DKT_TICKET_DISPATCHED: {
        char class_name[DKT_CLASS_NAME_BYTES_MAX + 1] = "";
        if (row->class_name.len < sizeof class_name) {
            memcpy(class_name, row->class_name.data, row->class_name.len);
        }
        dkt_promise_t promise = {.ticket = row->number,
                                 .deadline_ms = row->deadline_ms,
                                 .place = row->place,
                                 .state = DKT_TICKET_DISPATCHED,
                                 .at_risk = row->at_risk || (pending && pending->row.at_risk)};
        s_resolve(self, call, &promise, class_name);
        return;
    }
    case DKT_TICKET_OPEN:
    case DKT_TICKET_STATE_COUNT:
        break;
    }
    s_lost_open(self, call);
}

void dkt_tenant_resolve_ticket(dkt_tenant_t *self, dkt_call_t *call)
{
    dkt_promise_t promise;
    if (s_find_live(self, call->number, &promise)) {
        bool live = dkt_ledger_resolve(self->ledger, self->now_ms, call->number);
        assert(live);
        (void)live;
        s_resolve(self, call, &promise, dkt_tenant_class_name(self, promise.class_index));
        return;
    }
    if (!call->looked) {
        s_need_ticket(self, call);
        return;
    }
    const dkt_effect_t *pending = dkt_tenant_pending(self, call->number);
    if (!call->row && pending && pending->inserted) {
        call->row = &pending->row;
    }
    if (!call->row) {
        dkt_tenant_fenced_error(self, call, DKT_NOT_FOUND, NULL);
        return;
    }
    s_resolve_past(self, call, pending);
}
