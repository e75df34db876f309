/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_impl.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- clients -- */

static void s_encode(world_t *self, op_t *op, dkt_method_t method, dkt_id_text_t *client)
{
    (void)self;
    const char *types[] = {"urgent", "normal", "slow"};
    dkt_w_t w = dkt_w_init(op->frame, sizeof op->frame);
    dkt_request_t request = {.method = method, .budget_ms = CLIENT_BUDGET_MS, .state = -1};
    request.msgid = (uint32_t)(op - self->ops) + 1;
    const dkt_method_row_t *row = dkt_method_row(method);
    request.present = row->required | DKT_PARAM_BIT(BUDGET_MS);
    request.client_id = (dkt_view_t){(const uint8_t *)client->text, (uint32_t)strlen(client->text)};
    const char *type = types[op->slot.class_index];
    request.ticket_type = (dkt_view_t){(const uint8_t *)type, (uint32_t)strlen(type)};
    const op_t *about = &self->ops[op->about];
    request.ticket_id =
        (dkt_view_t){(const uint8_t *)about->ticket_text, (uint32_t)strlen(about->ticket_text)};
    request.slot_id =
        (dkt_view_t){(const uint8_t *)about->slot_text, (uint32_t)strlen(about->slot_text)};
    if (row->request_id) {
        request.present |= DKT_PARAM_BIT(REQUEST_ID);
        request.request_id = op->request_id;
    }
    if (op->poisoned) {
        request.present |= DKT_PARAM_BIT(SUBJECT);
        request.subject = (dkt_view_t){(const uint8_t *)SIM_POISON, sizeof SIM_POISON - 1};
    }
    if (method == DKT_METHOD_VALIDATE_ETA) {
        request.present |= DKT_PARAM_BIT(HOLD_MS);
        request.hold_ms = 2000 + sim_below(self, 20000);
    }
    dkt_request_encode(&w, &request);
    assert(!w.failed);
    op->frame_len = (uint32_t)w.len;
}

/* An earlier op that has what this kind is about; UINT32_MAX if there is none. */
static uint32_t s_pick(world_t *self, op_kind_t kind)
{
    enum { TRIES = 20, RECENT = 60 };
    for (int i = 0; i < TRIES && self->op_count > 0; i++) {
        uint32_t recent = self->op_count < RECENT ? self->op_count : RECENT;
        uint32_t index = self->op_count - 1 - sim_below(self, recent);
        const op_t *op = &self->ops[index];
        if (kind == OP_CANCEL || kind == OP_RESOLVE ? op->created : op->slot_text[0] != '\0') {
            return index;
        }
    }
    return UINT32_MAX;
}

/* How long until a client thinks of something again. */
static int64_t s_pause_ms(world_t *self)
{
    enum { QUIET_FACTOR = 20, CLOSES_MS = 2000, BEFORE_MS = 800, MINUTE_MS = 60000 };
    if (!self->options.quiet) {
        return 1 + sim_below(self, 2 * self->options.ops_every_ms);
    }
    int64_t left_ms = MINUTE_MS - (START_MS + sim_now_ms(self)) % MINUTE_MS;
    int64_t pause_ms = 1 + sim_below(self, QUIET_FACTOR * self->options.ops_every_ms);
    bool closing = left_ms > CLOSES_MS + BEFORE_MS && sim_chance(self, 300);
    return closing ? left_ms - CLOSES_MS - sim_below(self, BEFORE_MS) : pause_ms;
}

void sim_think(world_t *self)
{
    static const op_kind_t mix[] = {OP_CREATE, OP_CREATE,   OP_CREATE,   OP_CREATE, OP_CREATE,
                                    OP_CANCEL, OP_CANCEL,   OP_RESOLVE,  OP_HOLD,   OP_HOLD,
                                    OP_HOLD,   OP_ALLOCATE, OP_ALLOCATE, OP_RELEASE};
    static const dkt_method_t methods[] = {
        [OP_CREATE] = DKT_METHOD_CREATE_TICKET,   [OP_CANCEL] = DKT_METHOD_CANCEL_TICKET,
        [OP_RESOLVE] = DKT_METHOD_RESOLVE_TICKET, [OP_HOLD] = DKT_METHOD_VALIDATE_ETA,
        [OP_ALLOCATE] = DKT_METHOD_ALLOCATE_SLOT, [OP_RELEASE] = DKT_METHOD_RELEASE_SLOT};
    sim_schedule(self, 1000 * s_pause_ms(self), (event_t){.kind = EV_OP});
    if (self->op_count == SIM_OPS_MAX || self->healing) {
        return;
    }
    op_kind_t kind = mix[sim_below(self, sizeof mix / sizeof mix[0])];
    uint32_t about = kind == OP_CREATE || kind == OP_HOLD ? 0 : s_pick(self, kind);
    if (about == UINT32_MAX) {
        return;
    }
    op_t *op = &self->ops[self->op_count];
    memset(op, 0, sizeof *op);
    op->kind = kind;
    op->about = about;
    op->about_ticket = self->ops[about].ticket;
    op->slot.class_index = (uint8_t)sim_below(self, 3);
    op->poisoned = kind == OP_CREATE && self->options.can_poison && sim_chance(self, 15);
    if (kind == OP_ALLOCATE) {
        op->slot.class_index = self->ops[about].slot.class_index;
    }
    if (kind == OP_RELEASE) {
        self->ops[about].release_tried = true;
    }
    uint8_t random[10];
    for (size_t i = 0; i < sizeof random; i++) {
        random[i] = (uint8_t)sim_random(self);
    }
    op->request_id = dkt_uuid_v7(START_MS + sim_now_ms(self) + sim_below(self, 3000), random);
    dkt_id_text_t client;
    dkt_client_text(&self->client, &client);
    s_encode(self, op, methods[kind], &client);
    sim_schedule(self, 0, (event_t){.kind = EV_SEND, .op = self->op_count});
    if (sim_chance(self, 100)) { /* an impatient client sends the same twice */
        sim_schedule(self, sim_below(self, 3000), (event_t){.kind = EV_SEND, .op = self->op_count});
    }
    self->op_count++;
}

void sim_send(world_t *self, uint32_t index)
{
    if (self->ops[index].ended) {
        return;
    }
    uint32_t node = self->assigned;
    if (!self->healing && sim_chance(self, 50)) {
        node = 1 - node; /* an old route */
    }
    if (self->healing || !sim_chance(self, self->options.loss_permille)) {
        sim_schedule(self, 100 + sim_below(self, 5000),
                     (event_t){.kind = EV_REQUEST, .node = node, .op = index});
    }
    sim_schedule(self, 1000 * (CLIENT_RETRY_MS + sim_below(self, CLIENT_RETRY_MS)),
                 (event_t){.kind = EV_SEND, .op = index});
}

/* Long after the answer: a refused id must be decided anew, a created one only when its time is
 * over. */
void sim_again(world_t *self, uint32_t index)
{
    self->ops[index].ended = false;
    self->ops[index].again = true;
    sim_send(self, index);
}

static bool s_view_is(dkt_view_t view, const char *text)
{
    return view.data && view.len == strlen(text) && memcmp(view.data, text, view.len) == 0;
}

/* Were the two decisions so far apart that the id may have been dropped between them? */
static bool s_forgotten(const world_t *self, int64_t a_ms, int64_t b_ms)
{
    int64_t apart_ms = a_ms < b_ms ? b_ms - a_ms : a_ms - b_ms;
    return self->options.age_round_ms && apart_ms >= self->options.request_ids_ms;
}

static void s_note_created(world_t *self, uint32_t index, const dkt_answer_t *answer,
                           uint64_t epoch)
{
    op_t *op = &self->ops[index];
    dkt_client_t client;
    uint64_t number;
    if (!dkt_ticket_parse(&self->ring, (const char *)answer->ticket_id.data, answer->ticket_id.len,
                          &client, &number)) {
        sim_violate(self, "op %u got a ticket id that is not ours", index);
        return;
    }
    static const int64_t levels_ms[] = {3 * 60000, 6 * 60000, 10 * 60000};
    int64_t created_ms = answer->deadline_ms - levels_ms[op->slot.class_index];
    if (op->created && op->ticket != number && !s_forgotten(self, op->created_ms, created_ms)) {
        sim_violate(self, "one request_id, two tickets: %llu and %llu",
                    (unsigned long long)op->ticket, (unsigned long long)number);
    }
    int64_t again_ms = 1000 + sim_below(self, 2 * self->options.request_ids_ms);
    if (!op->created && self->options.age_round_ms &&
        sim_now_ms(self) + again_ms < self->options.length_ms && sim_chance(self, 50)) {
        sim_schedule(self, 1000 * again_ms, (event_t){.kind = EV_AGAIN, .op = index});
    }
    if (op->poisoned) {
        sim_violate(self, "op %u was created although the database refuses it", index);
    }
    op->created = true;
    op->anew = true;
    op->ticket = number;
    op->created_epoch = epoch;
    op->created_ms = created_ms;
    memcpy(op->ticket_text, answer->ticket_id.data, answer->ticket_id.len);
    self->summary.created++;
    const op_t *about = &self->ops[op->about];
    if (op->kind == OP_ALLOCATE && !answer->replayed && created_ms >= about->hold_expires_ms) {
        sim_violate(self, "op %u allocated a hold that had expired", index);
    }
    if (op->kind == OP_ALLOCATE && about->released && about->created_epoch == epoch &&
        !answer->replayed) {
        sim_violate(self, "op %u allocated a hold that its owner had released", index);
    }
}

/* A refusal may be repeated for a minute; whoever asks after that hears a new one. */
static void s_note_refused(world_t *self, uint32_t index, const dkt_answer_t *answer,
                           uint64_t epoch)
{
    op_t *op = &self->ops[index];
    const int64_t again_ms = DKT_REFUSAL_MEMORY_MS + REFUSAL_SLACK_MS;
    self->summary.refused++;
    /* Where a lock may vanish under a living session, a read that the session still answers counts
     * as proof to an owner that was replaced: it may refuse once more, but never book. */
    bool replaced = self->options.can_unlock && epoch < op->created_epoch;
    if (op->created && !op->again && !replaced) {
        sim_violate(self, "op %u was created and then refused", index);
    }
    op->anew |= op->again && !answer->replayed;
    op->old_refusal |=
        op->again && answer->replayed && sim_now_ms(self) >= op->refused_at_ms + again_ms;
    if (!answer->replayed || !op->refused) {
        op->refused_at_ms = sim_now_ms(self);
    }
    if (!op->refused && op->kind == OP_CREATE &&
        sim_now_ms(self) + again_ms < self->options.length_ms && sim_chance(self, 30)) {
        sim_schedule(self, 1000 * again_ms, (event_t){.kind = EV_AGAIN, .op = index});
    }
    op->refused = true;
}

/* What an allocation heard that got nothing. */
static void s_note_released(world_t *self, uint32_t index)
{
    const op_t *op = &self->ops[index];
    if (op->kind == OP_ALLOCATE && !self->ops[op->about].release_tried) {
        sim_violate(self, "op %u: nobody released this hold", index);
    }
    if (op->kind == OP_RELEASE) {
        self->ops[op->about].released = true;
    }
}

void sim_on_answer(world_t *self, const event_t *event)
{
    op_t *op = &self->ops[event->op];
    dkt_answer_t answer;
    dkt_err_t err;
    dkt_status_t decoded = dkt_answer_decode(event->bytes, event->len, &answer, &err);
    assert(decoded == DKT_OK);
    (void)decoded;
    if (answer.status != DKT_OK) {
        dkt_retry_t retry = dkt_status_retry(answer.status);
        op->ended = op->ended || retry == DKT_RETRY_NO || answer.status == DKT_INTERNAL;
        if (answer.status == DKT_INTERNAL && !op->poisoned) {
            sim_violate(self, "op %u pays for another's poison", event->op);
        }
        return;
    }
    op->ended = true;
    uint64_t epoch = event->generation;
    if (s_view_is(answer.status_text, "created")) {
        s_note_created(self, event->op, &answer, epoch);
    } else if (s_view_is(answer.status_text, "refused")) {
        s_note_refused(self, event->op, &answer, epoch);
    } else if (s_view_is(answer.status_text, "held") && !op->slot_text[0]) {
        memcpy(op->slot_text, answer.slot_id.data, answer.slot_id.len);
        op->created_epoch = epoch;
        op->hold_expires_ms = answer.hold_expires_ms;
    } else if (s_view_is(answer.status_text, "cancelled")) {
        op->cancelled = true;
    } else if (s_view_is(answer.status_text, "too_late")) {
        op->too_late = true;
    } else if (s_view_is(answer.status_text, "released") &&
               (op->kind == OP_ALLOCATE || self->ops[op->about].created_epoch == epoch)) {
        s_note_released(self, event->op);
    }
}

void sim_on_request(world_t *self, const event_t *event)
{
    node_t *node = &self->nodes[event->node];
    if (node->dead) {
        return;
    }
    if (!node->core) {
        if (!node->starting) {
            sim_start(self, event->node);
        }
        if (!node->core) {
            return;
        }
    }
    const op_t *op = &self->ops[event->op];
    dkt_work_t *work = calloc(1, sizeof *work + op->frame_len);
    assert(work);
    static const dkt_method_t methods[] = {
        [OP_CREATE] = DKT_METHOD_CREATE_TICKET,   [OP_CANCEL] = DKT_METHOD_CANCEL_TICKET,
        [OP_RESOLVE] = DKT_METHOD_RESOLVE_TICKET, [OP_HOLD] = DKT_METHOD_VALIDATE_ETA,
        [OP_ALLOCATE] = DKT_METHOD_ALLOCATE_SLOT, [OP_RELEASE] = DKT_METHOD_RELEASE_SLOT};
    work->seq = event->op;
    work->origin = DKT_AUDIENCE_INTERNAL;
    work->method = (uint8_t)methods[op->kind];
    work->deadline_mono_ms = sim_now_ms(self) + CLIENT_BUDGET_MS;
    work->len = op->frame_len;
    memcpy(work->body, op->frame, op->frame_len);
    for (uint32_t i = 0; i < node->suspect_count; i++) {
        work->suspect |= memcmp(node->suspects[i].bytes, op->request_id.bytes, DKT_UUID_BYTES) == 0;
    }
    dkt_tenant_event_t request = {.kind = DKT_TEV_REQUEST, .work = work};
    sim_step(self, event->node, &request);
}

/* Is the acknowledged ticket in the database, as far as age has left it there? */
static bool s_is_there(const world_t *self, const op_t *op, const sim_ticket_t *ticket)
{
    static const dkt_uuid_t none;
    if (!ticket) {
        return self->store.aged[op->ticket];
    }
    return memcmp(&ticket->row.request_id, &op->request_id, sizeof none) == 0 ||
           (self->options.age_round_ms && memcmp(&ticket->row.request_id, &none, sizeof none) == 0);
}

/* Everything that clients were told, against the database. */
void sim_check_history(world_t *self)
{
    const sim_options_t *o = &self->options;
    /* A successor's time may be behind, if the database's clock has stepped: then it keeps what was
     * passed on to it for longer. */
    bool steps = o->can_step && o->can_move;
    bool all_heard = !steps && o->loss_permille == 0 && !o->can_kill && !o->can_stop &&
                     !o->can_cut && !o->can_stall;
    for (uint32_t i = 0; i < self->op_count; i++) {
        const op_t *op = &self->ops[i];
        if (!op->ended) {
            sim_violate(self, "op %u never ended", i);
        }
        if (op->old_refusal && !op->anew && all_heard) {
            sim_violate(self, "op %u is refused for good", i);
        }
        const sim_ticket_t *ticket =
            op->created ? sim_store_ticket(&self->store, op->ticket) : NULL;
        if (op->created && !s_is_there(self, op, ticket)) {
            sim_violate(self, "op %u: acknowledged ticket %llu is not in the database", i,
                        (unsigned long long)op->ticket);
        }
        ticket = op->about_ticket ? sim_store_ticket(&self->store, op->about_ticket) : NULL;
        if (ticket && op->cancelled && ticket->row.state != DKT_TICKET_CANCELLED) {
            sim_violate(self, "op %u: a cancelled ticket is not cancelled", i);
        }
        if (ticket && op->too_late && ticket->row.state == DKT_TICKET_CANCELLED) {
            sim_violate(self, "op %u: too_late for a ticket that is cancelled", i);
        }
    }
}
