/* SPDX-License-Identifier: Apache-2.0
 *
 * The day of the demo. Time of day and bursts shape when a company asks; a table of kinds says
 * what for. Every answer is remembered, because the proof asks the databases about each.
 */
#include <assert.h>
#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "ops/demo.h"
#include "ops/result.h"

#define S_TICK_MS         5
#define S_DRAIN_MS        15000
#define S_CREDIT_MAX      64.0 /* what a stalled fleet may owe a company */
#define S_BURST_FACTOR    5.0
#define S_BURST_SECONDS   3.0
#define S_BURSTS          3.0 /* of a bursty company in one day */
#define S_TICKET_BYTES    29  /* kid 1, client 12, number 8, tag 8 */
#define S_NUMBER_OFFSET   13
#define S_RESOLVE_MS      250 /* a company's resolvers look for work in turn */
#define S_RESOLVE_LIMIT   100
#define S_HOLD_MS         20000
#define S_RELEASE_PERCENT 15 /* of the holds */
#define S_ACKS_FIRST      4096

const char *const dkt_demo_classes[DKT_DEMO_CLASSES] = {"gold", "silver", "bronze"};
const char *const dkt_demo_reasons[3] = {"no_slot", "limit", "too_many_moves"};

/* A call on its way, freed by its callback. */
typedef struct {
    dkt_demo_t *demo;
    uint16_t company;
    uint8_t class_index;
    bool repeat;  /* the request was acknowledged before */
    uint32_t ack; /* REPEAT, CANCEL, resolve: which ticket it is about; UINT32_MAX: none */
    uint8_t request_id[16];
    char slot_id[DKT_ID_CHARS_MAX + 1];
    uint64_t number; /* of a resolve's ticket */
} s_op_t;

#define S_NO_ACK UINT32_MAX

/* -- helpers ---------------------------------------------------------------------------------- */

uint64_t dkt_demo_random(dkt_demo_t *self, uint64_t below)
{
    self->random ^= self->random << 13;
    self->random ^= self->random >> 7;
    self->random ^= self->random << 17;
    return self->random % below;
}

uint64_t dkt_demo_ticket_number(dkt_text_t ticket_id)
{
    uint8_t bytes[S_TICKET_BYTES];
    size_t len = 0;
    uint64_t number = 0;
    if (!ticket_id.data || ticket_id.len < 3 ||
        sodium_base642bin(bytes, sizeof bytes, ticket_id.data + 3, ticket_id.len - 3, NULL, &len,
                          NULL, sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0 ||
        len != sizeof bytes) {
        return 0;
    }
    for (int i = 7; i >= 0; i--) {
        number = number << 8 | bytes[S_NUMBER_OFFSET + i];
    }
    return number;
}

static s_op_t *s_op_new(dkt_demo_t *self, size_t company, int class_index)
{
    s_op_t *op = calloc(1, sizeof *op);
    assert(op); /* a demo without memory is over */
    op->demo = self;
    op->company = (uint16_t)company;
    op->class_index = (uint8_t)class_index;
    op->ack = S_NO_ACK;
    return op;
}

static void s_booked_add(dkt_demo_company_t *company, int64_t slot_start_ms, int change)
{
    uint16_t *cell = &company->booked[slot_start_ms / DKT_MINUTE_MS % DKT_DEMO_MINUTES];
    *cell = (uint16_t)(*cell + change > 0 ? *cell + change : 0);
}

static void s_count(dkt_demo_t *self, const dkt_reply_t *reply)
{
    self->answers++;
    if (reply->silence) {
        self->silences++;
    } else if (reply->status != DKT_OK) {
        self->errors++;
    }
    if (reply->status == DKT_OK) {
        dkt_histogram_add(&self->latency, reply->elapsed_us);
    } else {
        snprintf(self->error_text, sizeof self->error_text, "%s: %.*s",
                 dkt_status_code(reply->status), (int)reply->message.len,
                 reply->message.data ? reply->message.data : "");
    }
}

/* An error that says nothing happened leaves nothing to doubt. */
static bool s_may_have_happened(const dkt_reply_t *reply)
{
    return dkt_status_retry(reply->status) == DKT_RETRY_FIND;
}

/* -- answers ---------------------------------------------------------------------------------- */

/* Room for one more item of an array that doubles. */
static void *s_grow(void *array, size_t count, size_t *max, size_t size)
{
    if (count < *max) {
        return array;
    }
    *max = *max ? *max * 2 : S_ACKS_FIRST;
    void *grown = *max <= DKT_DEMO_ACKS_MAX ? realloc(array, *max * size) : NULL;
    assert(grown);
    return grown;
}

static void s_ack_add(const s_op_t *op, const dkt_reply_t *reply)
{
    dkt_demo_t *self = op->demo;
    dkt_demo_company_t *company = &self->companies[op->company];
    self->acks = s_grow(self->acks, self->ack_count, &self->ack_max, sizeof *self->acks);
    dkt_ack_t *ack = &self->acks[self->ack_count];
    *ack = (dkt_ack_t){
        .number = dkt_demo_ticket_number(reply->ticket_id),
        .slot_start_ms = reply->slot_start_ms,
        .deadline_ms = reply->deadline_ms,
        .company = op->company,
        .class_index = op->class_index,
        .repeated = op->repeat,
        .held = op->slot_id[0] != '\0',
    };
    memcpy(ack->request_id, op->request_id, sizeof ack->request_id);
    dkt_text_copy(reply->ticket_id, ack->ticket_id, sizeof ack->ticket_id);
    if (!op->repeat) {
        company->recent[company->recent_count++ % DKT_DEMO_RECENT] = (uint32_t)self->ack_count;
        company->accepted++;
        company->accepted_by[op->class_index]++;
        s_booked_add(company, reply->slot_start_ms, 1);
    }
    self->ack_count++;
}

/* A few of many, each of another company. */
static bool s_example_wanted(dkt_demo_t *self, uint16_t company)
{
    for (size_t i = 0; i < self->example_count; i++) {
        if (self->examples[i].company == company) {
            return false;
        }
    }
    return self->example_count < DKT_DEMO_EXAMPLES && dkt_demo_random(self, 20) == 0;
}

/* Notes why it was refused; keeps the first few with what else would have fitted. */
static void s_refused(const s_op_t *op, const dkt_reply_t *reply)
{
    dkt_demo_t *self = op->demo;
    dkt_demo_company_t *company = &self->companies[op->company];
    dkt_result_t result;
    if (op->repeat) {
        return; /* counted when it was refused first */
    }
    company->refused++;
    company->refused_by[op->class_index]++;
    for (size_t i = 0; i < sizeof self->reasons / sizeof self->reasons[0]; i++) {
        self->reasons[i] += dkt_text_is(reply->reason, dkt_demo_reasons[i]);
    }
    if (!s_example_wanted(self, op->company)) {
        return;
    }
    self->examples[self->example_count].company = op->company;
    char *text = self->examples[self->example_count++].text;
    size_t max = sizeof self->examples[0].text, used = 0;
    used = (size_t)snprintf(
        text, max, "%s, %s: %.*s; ask again from %s; would fit now:", company->title,
        dkt_demo_classes[op->class_index], (int)reply->reason.len, reply->reason.data,
        reply->earliest_ms ? dkt_time_short(reply->earliest_ms).text : "(not at all)");
    bool ok = dkt_result_init(&result, reply);
    const msgpack_object *list = ok ? dkt_result_get(result.root, "alternatives") : NULL;
    uint32_t count = list && list->type == MSGPACK_OBJECT_ARRAY ? list->via.array.size : 0;
    for (uint32_t i = 0; i < count && used < max; i++) {
        const msgpack_object *row = &list->via.array.ptr[i];
        dkt_text_t type = dkt_result_text(row, "ticket_type");
        used += (size_t)snprintf(text + used, max - used, " %.*s by %s", (int)type.len,
                                 type.data ? type.data : "",
                                 dkt_time_short(dkt_result_int(row, "deadline_ms")).text);
    }
    if (count == 0 && used < max) {
        snprintf(text + used, max - used, " nothing");
    }
    dkt_result_fini(&result);
}

static void s_created(void *ctx, const dkt_reply_t *reply)
{
    s_op_t *op = ctx;
    s_count(op->demo, reply);
    if (reply->status != DKT_OK) {
        op->demo->companies[op->company].unknown += s_may_have_happened(reply);
    } else if (dkt_text_is(reply->state, "created")) {
        s_ack_add(op, reply);
        op->demo->allocated += op->slot_id[0] != '\0';
        if (op->ack != S_NO_ACK) {
            op->demo->repeats_same +=
                op->demo->acks[op->ack].number == dkt_demo_ticket_number(reply->ticket_id);
        }
    } else if (dkt_text_is(reply->state, "refused")) {
        s_refused(op, reply);
    } else {
        op->demo->expired++; /* a hold that was not taken in time */
    }
    free(op);
}

static void s_cancelled(void *ctx, const dkt_reply_t *reply)
{
    s_op_t *op = ctx;
    dkt_ack_t *ack = &op->demo->acks[op->ack];
    s_count(op->demo, reply);
    if (reply->status != DKT_OK) {
        ack->state = s_may_have_happened(reply) ? DKT_ACK_UNKNOWN : ack->state;
    } else if (!dkt_text_is(reply->state, "cancelled")) {
        op->demo->too_late++;
    } else if (ack->state != DKT_ACK_CANCELLED) {
        ack->state = DKT_ACK_CANCELLED;
        op->demo->companies[op->company].cancelled++;
        s_booked_add(&op->demo->companies[op->company], ack->slot_start_ms, -1);
    }
    free(op);
}

static void s_released(void *ctx, const dkt_reply_t *reply)
{
    s_op_t *op = ctx;
    s_count(op->demo, reply);
    op->demo->released += dkt_text_is(reply->state, "released");
    free(op);
}

/* -- calls ------------------------------------------------------------------------------------ */

/* Counts the call, or takes it back when the producer is full. */
static bool s_sent(s_op_t *op, dkt_status_t status)
{
    if (status != DKT_OK) {
        op->demo->skipped++;
        free(op);
        return false;
    }
    op->demo->calls++;
    return true;
}

static bool s_send_create(s_op_t *op)
{
    dkt_demo_company_t *company = &op->demo->companies[op->company];
    dkt_arg_t args[] = {
        dkt_arg_text("client_id", company->client_id),
        dkt_arg_text("ticket_type", dkt_demo_classes[op->class_index]),
        dkt_arg_text("subject", company->title),
        dkt_arg_text("token", company->token),
    };
    return s_sent(op, dkt_producer_submit(op->demo->producers[0], "create_ticket", args, 4,
                                          op->request_id, s_created, op));
}

static bool s_ask_create(dkt_demo_t *self, size_t company, int class_index)
{
    s_op_t *op = s_op_new(self, company, class_index);
    dkt_producer_request_id(op->request_id);
    return s_send_create(op);
}

/* A recent ticket of the company that nobody has cancelled yet, S_NO_ACK if there is none. */
static uint32_t s_recent(dkt_demo_t *self, size_t company)
{
    dkt_demo_company_t *from = &self->companies[company];
    uint32_t count = from->recent_count < DKT_DEMO_RECENT ? from->recent_count : DKT_DEMO_RECENT;
    if (count == 0) {
        return S_NO_ACK;
    }
    uint32_t ack = from->recent[dkt_demo_random(self, count)];
    return self->acks[ack].state == DKT_ACK_CREATED ? ack : S_NO_ACK;
}

/* The same request once more, as a producer does that lost the answer. */
static bool s_ask_repeat(dkt_demo_t *self, size_t company, int class_index)
{
    uint32_t ack = s_recent(self, company);
    if (ack == S_NO_ACK || self->acks[ack].held) {
        return s_ask_create(self, company, class_index);
    }
    s_op_t *op = s_op_new(self, company, self->acks[ack].class_index);
    memcpy(op->request_id, self->acks[ack].request_id, sizeof op->request_id);
    op->repeat = true;
    op->ack = ack;
    self->repeats++;
    return s_send_create(op);
}

/* The same request twice at once: the second joins the first. */
static bool s_ask_twin(dkt_demo_t *self, size_t company, int class_index)
{
    s_op_t *first = s_op_new(self, company, class_index);
    dkt_producer_request_id(first->request_id);
    s_op_t *second = s_op_new(self, company, class_index);
    memcpy(second->request_id, first->request_id, sizeof first->request_id);
    second->repeat = true;
    if (!s_send_create(first)) {
        free(second);
        return false;
    }
    return s_send_create(second);
}

static bool s_ask_cancel(dkt_demo_t *self, size_t company, int class_index)
{
    uint32_t ack = s_recent(self, company);
    if (ack == S_NO_ACK) {
        return s_ask_create(self, company, class_index);
    }
    s_op_t *op = s_op_new(self, company, class_index);
    op->ack = ack;
    dkt_arg_t args[] = {
        dkt_arg_text("ticket_id", self->acks[ack].ticket_id),
        dkt_arg_text("token", self->companies[company].token),
    };
    return s_sent(op, dkt_producer_submit(self->producers[0], "cancel_ticket", args, 2, NULL,
                                          s_cancelled, op));
}

/* The second half of a reservation: mostly it is taken, sometimes given back. */
static void s_held(void *ctx, const dkt_reply_t *reply)
{
    s_op_t *op = ctx;
    dkt_demo_t *self = op->demo;
    s_count(self, reply);
    if (reply->status != DKT_OK || !dkt_text_is(reply->state, "held")) {
        if (reply->status == DKT_OK) {
            s_refused(op, reply);
        }
        free(op);
        return;
    }
    self->holds++;
    dkt_text_copy(reply->slot_id, op->slot_id, sizeof op->slot_id);
    dkt_arg_t args[] = {
        dkt_arg_text("slot_id", op->slot_id),
        dkt_arg_text("client_id", self->companies[op->company].client_id),
        dkt_arg_text("ticket_type", dkt_demo_classes[op->class_index]),
        dkt_arg_text("subject", self->companies[op->company].title),
    };
    if (dkt_demo_random(self, 100) < S_RELEASE_PERCENT) {
        (void)s_sent(op, dkt_producer_submit(self->producers[1], "release_slot", args, 1, NULL,
                                             s_released, op));
    } else {
        (void)s_sent(op, dkt_producer_submit(self->producers[1], "allocate_slot", args, 4,
                                             op->request_id, s_created, op));
    }
}

static bool s_ask_hold(dkt_demo_t *self, size_t company, int class_index)
{
    s_op_t *op = s_op_new(self, company, class_index);
    dkt_producer_request_id(op->request_id);
    dkt_arg_t args[] = {
        dkt_arg_text("client_id", self->companies[company].client_id),
        dkt_arg_text("ticket_type", dkt_demo_classes[class_index]),
        dkt_arg_int("hold_ms", S_HOLD_MS),
    };
    return s_sent(
        op, dkt_producer_submit(self->producers[1], "validate_eta", args, 3, NULL, s_held, op));
}

/* -- resolvers -------------------------------------------------------------------------------- */

static void s_resolved(void *ctx, const dkt_reply_t *reply)
{
    s_op_t *op = ctx;
    dkt_demo_t *self = op->demo;
    s_count(self, reply);
    if (dkt_text_is(reply->state, "resolved")) {
        self->done = s_grow(self->done, self->done_count, &self->done_max, sizeof *self->done);
        self->done[self->done_count++] = (dkt_done_t){op->number, op->company};
        self->companies[op->company].resolved++;
    }
    free(op);
}

static void s_resolve(dkt_demo_t *self, size_t company, dkt_text_t ticket_id)
{
    char text[DKT_ID_CHARS_MAX + 1];
    s_op_t *op = s_op_new(self, company, 0);
    dkt_text_copy(ticket_id, text, sizeof text);
    op->number = dkt_demo_ticket_number(ticket_id);
    dkt_arg_t args[] = {
        dkt_arg_text("ticket_id", text),
        dkt_arg_text("token", self->companies[company].token),
    };
    (void)s_sent(op, dkt_producer_submit(self->producers[0], "resolve_ticket", args, 2, NULL,
                                         s_resolved, op));
}

static void s_listed(void *ctx, const dkt_reply_t *reply)
{
    s_op_t *op = ctx;
    dkt_result_t result;
    s_count(op->demo, reply);
    bool ok = dkt_result_init(&result, reply);
    const msgpack_object *list = ok ? dkt_result_get(result.root, "tickets") : NULL;
    for (uint32_t i = 0; list && list->type == MSGPACK_OBJECT_ARRAY && i < list->via.array.size;
         i++) {
        s_resolve(op->demo, op->company, dkt_result_text(&list->via.array.ptr[i], "ticket_id"));
    }
    dkt_result_fini(&result);
    free(op);
}

/* One company's resolvers pull what was dispatched to them. */
static void s_pull(dkt_demo_t *self, size_t company)
{
    s_op_t *op = s_op_new(self, company, 0);
    dkt_arg_t args[] = {
        dkt_arg_text("client_id", self->companies[company].client_id),
        dkt_arg_text("state", "dispatched"),
        dkt_arg_int("limit", S_RESOLVE_LIMIT),
        dkt_arg_text("token", self->companies[company].token),
    };
    (void)s_sent(
        op, dkt_producer_submit(self->producers[0], "list_tickets", args, 4, NULL, s_listed, op));
}

/* -- the day ---------------------------------------------------------------------------------- */

typedef bool(s_ask_fn)(dkt_demo_t *self, size_t company, int class_index);

static const struct {
    s_ask_fn *ask;
    uint8_t percent;
} s_kinds[] = {
    {s_ask_create, 80}, {s_ask_hold, 8}, {s_ask_cancel, 7}, {s_ask_repeat, 3}, {s_ask_twin, 2},
};

static bool s_ask(dkt_demo_t *self, size_t company)
{
    uint64_t dice = dkt_demo_random(self, 100), mix = dkt_demo_random(self, 100);
    int class_index = 0;
    while (class_index < DKT_DEMO_CLASSES - 1 && mix >= self->companies[company].mix[class_index]) {
        mix -= self->companies[company].mix[class_index++];
    }
    for (size_t i = 0; i < sizeof s_kinds / sizeof s_kinds[0]; i++) {
        if (dice < s_kinds[i].percent) {
            return s_kinds[i].ask(self, company, class_index);
        }
        dice -= s_kinds[i].percent;
    }
    return false;
}

/* Two peaks and a lunch break; 1 on average. */
static double s_time_of_day(double share)
{
    return 1.0 - 0.6 * cos(2.0 * M_PI * 2.0 * share);
}

static double s_factor(dkt_demo_t *self, dkt_demo_company_t *company, double at_s, double step_s)
{
    double share = at_s / self->options.seconds;
    double starts = S_BURSTS * step_s / self->options.seconds;
    if (!company->bursty) {
        return s_time_of_day(share);
    }
    if (at_s < company->burst_until_s) {
        return S_BURST_FACTOR;
    }
    if ((double)dkt_demo_random(self, 1000000) < starts * 1e6) {
        company->burst_until_s = at_s + S_BURST_SECONDS;
    }
    return 0.5; /* the bursts are the rest of its day */
}

static void s_ask_all(dkt_demo_t *self, double at_s, double step_s)
{
    for (size_t i = 0; i < self->company_count; i++) {
        dkt_demo_company_t *company = &self->companies[i];
        company->credit += company->rate * step_s * s_factor(self, company, at_s, step_s);
        company->credit = company->credit < S_CREDIT_MAX ? company->credit : S_CREDIT_MAX;
        while (company->credit >= 1.0 && s_ask(self, i)) {
            company->credit -= 1.0;
        }
    }
}

static bool s_goes_on(dkt_demo_t *self)
{
    return !dkt_demo_stopped() && dkt_fleet_alive(&self->fleet);
}

/* Takes the answers to what is still open. */
static void s_drain(dkt_demo_t *self)
{
    int64_t end_ms = dkt_mono_ms() + S_DRAIN_MS;
    self->draining = true;
    while (s_goes_on(self) && dkt_mono_ms() < end_ms &&
           dkt_producer_open(self->producers[0]) + dkt_producer_open(self->producers[1]) > 0) {
        dkt_producer_poll_all(self->producers, 2, S_TICK_MS);
    }
}

bool dkt_demo_day(dkt_demo_t *self)
{
    int64_t last_us = dkt_mono_us(), pulled_ms = 0;
    int64_t end_us = last_us + (int64_t)self->options.seconds * 1000000, start_us = last_us;
    size_t next = 0;
    dkt_view_open(self);
    while (s_goes_on(self) && last_us < end_us) {
        int64_t now_us = dkt_mono_us();
        s_ask_all(self, (double)(now_us - start_us) / 1e6, (double)(now_us - last_us) / 1e6);
        last_us = now_us;
        if (now_us / 1000 - pulled_ms >= S_RESOLVE_MS) {
            pulled_ms = now_us / 1000;
            s_pull(self, next++ % self->company_count);
        }
        dkt_producer_poll_all(self->producers, 2, S_TICK_MS);
        dkt_view_draw(self, false);
    }
    s_drain(self);
    dkt_view_draw(self, true);
    dkt_view_close(self);
    return s_goes_on(self);
}
