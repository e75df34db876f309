/* SPDX-License-Identifier: Apache-2.0
 *
 * Admission: new tickets and holds. A handler takes its work: it answers it, puts it into the
 * gathering group, or asks for a look into the database and is called again. A request_id is looked
 * up before it is decided (rule 6): in memory first, then in the database unless it is provably
 * new.
 */
#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "lib/core/plant.h"
#include "lib/core/tenant_impl.h"

#define NONCE_EPOCH_SHIFT 32

/* -- one request_id, one ticket -- */

static void s_join(dkt_tenant_t *self, dkt_call_t *call, dkt_memo_entry_t *entry)
{
    (void)self;
    call->work->next = entry->joiners;
    entry->joiners = call->work;
}

static void s_replay(dkt_tenant_t *self, dkt_call_t *call, uint64_t number, uint32_t minute,
                     int64_t deadline_ms)
{
    uint8_t bytes[DKT_ANSWER_BYTES_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    (void)dkt_tenant_write_created(self, &w, call->request.msgid, number, call->request.slot_id,
                                   minute, deadline_ms, true);
    self->counts.replayed++;
    dkt_tenant_fenced(self, call->work, bytes, w.len);
}

/* What the database's ticket was asked with. */
static dkt_memo_digest_t s_row_digest(const dkt_ticket_row_t *row)
{
    return (dkt_memo_digest_t){.method = row->hold_nonce ? DKT_METHOD_ALLOCATE_SLOT
                                                         : DKT_METHOD_CREATE_TICKET,
                               .ticket_type = (uint32_t)dkt_view_digest(row->class_name),
                               .subject = (uint32_t)dkt_view_digest(row->subject),
                               .payload = (uint32_t)dkt_view_digest(row->payload),
                               .slot = row->hold_nonce};
}

static void s_write_refusal(dkt_tenant_t *self, dkt_w_t *w, uint32_t msgid,
                            const dkt_memo_refusal_t *refusal, bool replayed)
{
    dkt_answer_refused_t answer = {.reason = dkt_verdict_name((dkt_verdict_t)refusal->verdict),
                                   .has_earliest = refusal->has_earliest,
                                   .earliest_ms = refusal->earliest_ms,
                                   .alternative_count = refusal->alternative_count,
                                   .replayed = replayed};
    for (uint32_t i = 0; i < refusal->alternative_count; i++) {
        answer.alternatives[i] = (dkt_alternative_t){
            .ticket_type = dkt_tenant_class_name(self, refusal->alternatives[i].class_index),
            .slot_start_ms = (int64_t)refusal->alternatives[i].minute * DKT_MINUTE_MS,
            .deadline_ms = refusal->alternatives[i].deadline_ms};
    }
    dkt_answer_refused(w, msgid, &answer);
}

/* Is this request_id known, so that the call is over? Otherwise the ledger may decide. */
static bool s_known_in_memory(dkt_tenant_t *self, dkt_call_t *call)
{
    uint32_t memo = dkt_memo_find(&self->memo, &call->request.request_id);
    if (memo == DKT_MEMO_NONE || memo == call->memo) {
        return false;
    }
    dkt_memo_entry_t *entry = dkt_memo_entry(&self->memo, memo);
    const char *field = dkt_memo_differs(&entry->digest, &call->digest);
    if (entry->state == DKT_MEMO_REFUSED && entry->refusal->until_mono_ms <= self->mono_ms &&
        !DKT_PLANTED(REFUSAL_FOR_EVER)) {
        dkt_memo_remove(&self->memo, memo);
        return false;
    }
    /* While it is looked up nobody knows which of two different requests has the right to the id:
     * the database may hold the second one's ticket. */
    if (field && entry->state != DKT_MEMO_LOOKING) {
        dkt_tenant_fenced_error(self, call, DKT_CONFLICT, field);
        return true;
    }
    if (entry->state == DKT_MEMO_LOOKING || entry->state == DKT_MEMO_PENDING) {
        s_join(self, call, entry);
        return true;
    }
    if (entry->state == DKT_MEMO_REFUSED) {
        uint8_t bytes[DKT_ANSWER_BYTES_MAX];
        dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
        s_write_refusal(self, &w, call->request.msgid, entry->refusal, true);
        self->counts.replayed++;
        dkt_tenant_fenced(self, call->work, bytes, w.len);
        return true;
    }
    dkt_promise_t promise;
    if (dkt_ledger_find(self->ledger, entry->ticket, &promise)) {
        s_replay(self, call, promise.ticket, promise.place.minute, promise.deadline_ms);
        return true;
    }
    if (!call->looked) {
        dkt_need_t need = {.by_id = true,
                           .id = call->request.request_id,
                           .nonce = call->slot.nonce & ~DKT_NONCE_DERIVED};
        dkt_tenant_need(self, call, &need);
        return true;
    }
    if (!call->row) {
        dkt_memo_remove(&self->memo, memo); /* retention was faster than this memory */
    }
    return false;
}

static bool s_known_in_database(dkt_tenant_t *self, dkt_call_t *call)
{
    if (!call->looked) {
        if (DKT_PLANTED(NO_LOOKUP)) {
            return false;
        }
        if (!call->work->suspect &&
            dkt_memo_new_id(&self->memo, &call->request.request_id, self->now_ms)) {
            return false;
        }
        call->memo =
            dkt_memo_add(&self->memo, &call->request.request_id, &call->digest, DKT_MEMO_LOOKING);
        if (call->memo == DKT_MEMO_NONE) {
            dkt_tenant_error_of(self, call->work, DKT_OVERLOADED, NULL);
            return true;
        }
        dkt_need_t need = {.by_id = true,
                           .id = call->request.request_id,
                           .nonce = call->slot.nonce & ~DKT_NONCE_DERIVED};
        dkt_tenant_need(self, call, &need);
        return true;
    }
    if (!call->row) {
        return false;
    }
    dkt_memo_digest_t stored = s_row_digest(call->row);
    const char *field = dkt_memo_differs(&stored, &call->digest);
    if (field) {
        dkt_tenant_fenced_error(self, call, DKT_CONFLICT, field);
    } else {
        s_replay(self, call, call->row->number, call->row->place.minute, call->row->deadline_ms);
    }
    dkt_tenant_unlook(self, call->memo);
    return true;
}

/* The checks before the ledger's verdict, in the contract's order; true: the call is over. A hold's
 * own slot_id names its class. */
static bool s_before_verdict(dkt_tenant_t *self, dkt_call_t *call, int *class_index)
{
    const dkt_request_t *request = &call->request;
    *class_index =
        dkt_settings_class(dkt_ledger_settings(self->ledger),
                           (const char *)request->ticket_type.data, request->ticket_type.len);
    bool names_class = request->slot_id.data != NULL && (call->slot.nonce & DKT_NONCE_DERIVED) == 0;
    if (*class_index < 0 || (names_class && call->slot.class_index != *class_index)) {
        dkt_tenant_fenced_error(self, call, DKT_INVALID_ARGUMENT, "ticket_type");
    } else if (self->suspended) {
        dkt_tenant_fenced_error(self, call, DKT_SUSPENDED, NULL);
    } else {
        return false;
    }
    dkt_tenant_unlook(self, call->memo);
    return true;
}

/* Those who joined while the id was looked up are looked at again, now that more is known. */
static void s_wake_joiners(dkt_tenant_t *self, dkt_memo_entry_t *entry)
{
    dkt_work_t *joiner = entry->joiners;
    entry->joiners = NULL;
    while (joiner) {
        dkt_work_t *next = joiner->next;
        dkt_works_push(&self->waiting, joiner);
        joiner = next;
    }
}

/* -- yes -- */

/* The ledger has said yes: row, event, memory and answer. The promise is in the ledger already, so
 * whatever fails here ends the tenant: memory is dropped and the database is the truth again. */
static void s_created(dkt_tenant_t *self, dkt_call_t *call, uint64_t number, dkt_place_t place,
                      int64_t deadline_ms, uint64_t nonce)
{
    const dkt_request_t *request = &call->request;
    dkt_ticket_row_t row = {.number = number,
                            .request_id = request->request_id,
                            .hold_nonce = nonce,
                            .class_name = request->ticket_type,
                            .place = place,
                            .has_lane = true,
                            .deadline_ms = deadline_ms,
                            .state = DKT_TICKET_OPEN,
                            .created_ms = self->now_ms,
                            .subject = request->subject,
                            .payload = request->payload};
    char class_name[DKT_CLASS_NAME_BYTES_MAX + 1];
    assert(request->ticket_type.len < sizeof class_name);
    memcpy(class_name, request->ticket_type.data, request->ticket_type.len);
    class_name[request->ticket_type.len] = '\0';
    if (call->memo == DKT_MEMO_NONE) {
        call->memo =
            dkt_memo_add(&self->memo, &request->request_id, &call->digest, DKT_MEMO_PENDING);
    }
    if (call->memo == DKT_MEMO_NONE || !dkt_group_insert(self->gathering, &row) ||
        !dkt_group_event(self->gathering, DKT_EVENT_CREATED, number, self->now_ms, place.minute,
                         deadline_ms, class_name, request->traceparent)) {
        dkt_tenant_fail(self, "no memory for a new ticket");
        dkt_tenant_error_of(self, call->work, DKT_UNAVAILABLE, NULL);
        return;
    }
    dkt_memo_entry_t *entry = dkt_memo_entry(&self->memo, call->memo);
    entry->state = DKT_MEMO_PENDING;
    entry->ticket = number;
    s_wake_joiners(self, entry);
    self->last_ticket = number;
    self->counts.created++;
    uint8_t bytes[DKT_ANSWER_BYTES_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_group_tag(self->gathering,
                  dkt_tenant_write_created(self, &w, request->msgid, number, request->slot_id,
                                           place.minute, deadline_ms, false));
    dkt_tenant_decided(self, call, call->memo, &w);
}

/* -- no -- */

static void s_explain(dkt_tenant_t *self, dkt_verdict_t verdict, uint8_t class_index,
                      dkt_memo_refusal_t *refusal)
{
    const dkt_settings_t *settings = dkt_ledger_settings(self->ledger);
    memset(refusal, 0, offsetof(dkt_memo_refusal_t, alternatives));
    refusal->verdict = (uint8_t)verdict;
    refusal->until_mono_ms = self->mono_ms + DKT_REFUSAL_MEMORY_MS;
    refusal->has_earliest =
        dkt_ledger_earliest(self->ledger, self->now_ms, class_index, &refusal->earliest_ms);
    for (uint8_t i = 0; i < settings->class_count; i++) {
        uint32_t minute;
        if (i == class_index ||
            dkt_ledger_probe(self->ledger, self->now_ms, i, &minute) != DKT_VERDICT_YES) {
            continue;
        }
        uint8_t n = refusal->alternative_count++;
        refusal->alternatives[n].class_index = i;
        refusal->alternatives[n].minute = minute;
        refusal->alternatives[n].deadline_ms =
            self->now_ms + (int64_t)settings->classes[i].level_minutes * DKT_MINUTE_MS;
    }
}

static void s_refuse(dkt_tenant_t *self, dkt_call_t *call, uint8_t class_index,
                     const dkt_memo_refusal_t *refusal)
{
    uint8_t bytes[DKT_ANSWER_BYTES_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    s_write_refusal(self, &w, call->request.msgid, refusal, false);
    self->counts.refused++;
    if (self->port.refused) {
        self->port.refused(self->port.ctx, dkt_tenant_class_name(self, class_index),
                           dkt_verdict_name((dkt_verdict_t)refusal->verdict),
                           refusal->has_earliest ? refusal->earliest_ms : 0);
    }
    assert(!w.failed);
    dkt_tenant_fenced(self, call->work, bytes, w.len);
}

/* A refused request_id hears the same for a while; retries that joined hear it now. */
static void s_remember_refusal(dkt_tenant_t *self, dkt_call_t *call,
                               const dkt_memo_refusal_t *refusal)
{
    if (call->memo == DKT_MEMO_NONE) {
        call->memo =
            dkt_memo_add(&self->memo, &call->request.request_id, &call->digest, DKT_MEMO_LOOKING);
        if (call->memo == DKT_MEMO_NONE) {
            return;
        }
    }
    s_wake_joiners(self, dkt_memo_entry(&self->memo, call->memo));
    dkt_memo_refused(&self->memo, call->memo, refusal);
}

/* -- create_ticket, allocate_slot -- */

/* Suspects are decided alone; true: the work waits for its turn. */
static bool s_suspect(dkt_tenant_t *self, dkt_call_t *call)
{
    return call->work->suspect && !DKT_PLANTED(SUSPECTS_TOGETHER) && !call->looked &&
           dkt_tenant_to_solo(self, call);
}

void dkt_tenant_create_ticket(dkt_tenant_t *self, dkt_call_t *call)
{
    int class_index;
    if (s_suspect(self, call) || s_known_in_memory(self, call) || s_known_in_database(self, call) ||
        s_before_verdict(self, call, &class_index)) {
        return;
    }
    dkt_place_t place;
    int64_t deadline_ms;
    dkt_moves_t moves = {.count = 0};
    uint64_t number = self->last_ticket + 1;
    dkt_verdict_t verdict = dkt_ledger_admit(self->ledger, self->now_ms, (uint8_t)class_index,
                                             number, &place, &deadline_ms, &moves);
    if (verdict != DKT_VERDICT_YES) {
        dkt_memo_refusal_t refusal;
        s_explain(self, verdict, (uint8_t)class_index, &refusal);
        s_refuse(self, call, (uint8_t)class_index, &refusal);
        s_remember_refusal(self, call, &refusal);
        return;
    }
    dkt_tenant_moves(self, &moves);
    s_created(self, call, number, place, deadline_ms, 0);
}

static uint64_t s_nonce_epoch(uint64_t nonce)
{
    return nonce >> NONCE_EPOCH_SHIFT;
}

/* Is there a ticket of that hold, durable or not? */
static bool s_hold_taken(const dkt_tenant_t *self, const dkt_call_t *call)
{
    return call->taken || dkt_group_find_nonce(self->gathering, call->slot.nonce) ||
           (self->inflight && dkt_group_find_nonce(self->inflight, call->slot.nonce));
}

/* Did a living owner end this hold, so that it cannot merely be lost? */
static bool s_hold_accounted(const dkt_tenant_t *self, uint64_t nonce)
{
    uint64_t epoch = s_nonce_epoch(nonce);
    return !DKT_PLANTED(RELEASED_IS_LOST) &&
           (epoch == self->epoch || (self->handoff_used && epoch + 1 == self->epoch));
}

static void s_not_allocated(dkt_tenant_t *self, dkt_call_t *call, const char *status)
{
    dkt_tenant_attach_status(self, call, status);
    dkt_tenant_unlook(self, call->memo);
}

/* The ledger does not hold this nonce: allocated, released, or lost in a crash. */
static void s_allocate_gone(dkt_tenant_t *self, dkt_call_t *call)
{
    if (!call->looked) {
        dkt_need_t need = {
            .by_id = true, .id = call->request.request_id, .nonce = call->slot.nonce};
        dkt_tenant_need(self, call, &need);
        return;
    }
    if (s_hold_taken(self, call)) {
        s_not_allocated(self, call, "taken");
        return;
    }
    bool outlives = DKT_PLANTED(HOLD_OUTLIVES) && self->now_ms >= call->slot.expires_ms;
    if (s_hold_accounted(self, call->slot.nonce) && !outlives) {
        s_not_allocated(self, call, "released");
        return;
    }
    dkt_place_t place;
    int64_t deadline_ms;
    uint64_t number = self->last_ticket + 1;
    if (!dkt_ledger_allocate_lost(self->ledger, self->now_ms, call->slot.class_index,
                                  call->slot.minute, number, &place, &deadline_ms)) {
        s_not_allocated(self, call, "taken");
        return;
    }
    s_created(self, call, number, place, deadline_ms, call->slot.nonce);
}

void dkt_tenant_allocate_slot(dkt_tenant_t *self, dkt_call_t *call)
{
    int class_index;
    if (s_suspect(self, call) || s_known_in_memory(self, call) || s_known_in_database(self, call)) {
        return;
    }
    if (s_before_verdict(self, call, &class_index)) {
        return;
    }
    if (call->slot.nonce & DKT_NONCE_DERIVED) {
        s_not_allocated(self, call, "taken"); /* it names a ticket's own reservation */
        return;
    }
    dkt_place_t place;
    int64_t deadline_ms;
    uint64_t number = self->last_ticket + 1;
    switch (dkt_ledger_allocate(self->ledger, self->now_ms, call->slot.nonce, call->slot.expires_ms,
                                number, &place, &deadline_ms)) {
    case DKT_ALLOCATE_CREATED:
        s_created(self, call, number, place, deadline_ms, call->slot.nonce);
        return;
    case DKT_ALLOCATE_EXPIRED:
        if (DKT_PLANTED(HOLD_OUTLIVES)) {
            s_allocate_gone(self, call);
            return;
        }
        s_not_allocated(self, call, "expired");
        return;
    case DKT_ALLOCATE_GONE:
        s_allocate_gone(self, call);
        return;
    }
}

/* -- holds -- */

void dkt_tenant_validate_eta(dkt_tenant_t *self, dkt_call_t *call)
{
    int class_index;
    if (s_before_verdict(self, call, &class_index)) {
        return;
    }
    dkt_slot_ref_t slot = {.client = self->config.client,
                           .class_index = (uint8_t)class_index,
                           .nonce = self->epoch << NONCE_EPOCH_SHIFT | self->nonce_next};
    if (DKT_PLANTED(NONCE_REUSED)) {
        slot.nonce = self->nonce_next;
    }
    dkt_place_t place;
    dkt_moves_t moves = {.count = 0};
    dkt_verdict_t verdict =
        dkt_ledger_hold(self->ledger, self->now_ms, (uint8_t)class_index, call->request.hold_ms,
                        slot.nonce, &place, &slot.expires_ms, &moves);
    if (verdict != DKT_VERDICT_YES) {
        dkt_memo_refusal_t refusal;
        s_explain(self, verdict, (uint8_t)class_index, &refusal);
        s_refuse(self, call, (uint8_t)class_index, &refusal);
        return;
    }
    if (++self->nonce_next == 0) {
        /* 2^32 holds in one activation: the next one has a new epoch and so new nonces. */
        dkt_tenant_fail(self, "hold numbers of this epoch are used up");
    }
    slot.minute = place.minute;
    dkt_id_text_t slot_id;
    dkt_slot_text(self->config.id_keys, &slot, &slot_id);
    dkt_answer_held_t answer = {.slot_id = slot_id.text,
                                .slot_start_ms = (int64_t)place.minute * DKT_MINUTE_MS,
                                .hold_expires_ms = slot.expires_ms};
    uint8_t bytes[DKT_ANSWER_BYTES_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_answer_held(&w, call->request.msgid, &answer);
    if (moves.count > 0) {
        dkt_tenant_moves(self, &moves); /* they commit before the answer */
        dkt_tenant_decided(self, call, DKT_MEMO_NONE, &w);
    } else {
        dkt_tenant_fenced(self, call->work, bytes, w.len);
    }
}

void dkt_tenant_release_slot(dkt_tenant_t *self, dkt_call_t *call)
{
    if (call->slot.nonce & DKT_NONCE_DERIVED) {
        dkt_tenant_attach_status(self, call, "taken");
        return;
    }
    if (dkt_ledger_release(self->ledger, self->now_ms, call->slot.nonce)) {
        dkt_tenant_fenced_status(self, call, "released");
        return;
    }
    if (!call->looked) {
        dkt_need_t need = {.nonce = call->slot.nonce};
        dkt_tenant_need(self, call, &need);
        return;
    }
    dkt_tenant_attach_status(self, call, s_hold_taken(self, call) ? "taken" : "released");
}
