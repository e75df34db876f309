/* SPDX-License-Identifier: Apache-2.0
 *
 * One run of a load, see bench_load.h.
 */
#include "ops/bench_load.h"

#include <stdio.h>
#include <stdlib.h>

#include "ops/cmd_common.h"

#define S_POLL_MS    1
#define S_DRAIN_MS   15000
#define S_SECOND_US  1000000
#define S_MINUTE_US  60000000
#define S_HOLD_MS    10000
#define S_BURST_MAX  1024 /* requests made between two polls */
#define S_ATTEMPT_MS 10000
#define S_TOTAL_MS   60000

const char *const dkt_load_modes[DKT_LOAD_MODE_COUNT] = {"create",       "refuse", "hold",
                                                         "availability", "mixed",  "one"};

struct s_run;

/* A request on its way. */
typedef struct s_op {
    struct s_run *run;
    struct s_op *next; /* free ones */
    dkt_producer_t *line;
    dkt_load_tenant_t *tenant;
    int64_t due_us;
} s_op_t;

typedef struct s_run {
    dkt_load_t *load;
    const dkt_load_plan_t *plan;
    dkt_load_result_t *result;
    s_op_t *ops, *free;
    bool counting; /* after the warm-up */
    bool full;     /* a tenant has no room left, and nothing of it is cancelled */
    int64_t start_us, counted_from_us;
    int64_t wall_us; /* wall clock minus monotonic clock */
    uint64_t made;
} s_run_t;

/* -- connections ------------------------------------------------------------------------------ */

bool dkt_load_open(dkt_load_t *self, const dkt_load_where_t *where)
{
    dkt_err_t err = {0};
    dkt_cmd_keys_t keys;
    dkt_producer_options_t options = {
        .endpoint = where->endpoint,
        .in_flight_max = DKT_OPEN_PER_CONNECTION_MAX,
        .batch_max = (uint32_t)where->batch,
        .attempt_ms = S_ATTEMPT_MS,
        .total_ms = S_TOTAL_MS,
    };
    bool ok = true;
    *self = (dkt_load_t){0};
    while (ok && self->line_count < where->lines) {
        self->lines[self->line_count] = dkt_producer_new(&options, &err);
        ok = self->lines[self->line_count++] != NULL;
    }
    if (ok && where->internal) {
        options.endpoint = where->internal;
        ok = !where->keys || dkt_cmd_keys(where->keys, &keys, &options, &err) == DKT_OK;
        self->internal = ok ? dkt_producer_new(&options, &err) : NULL;
        ok = self->internal != NULL;
    }
    if (!ok) {
        fprintf(stderr, "docket bench: %s\n", err.text);
        dkt_load_close(self);
    }
    return ok;
}

void dkt_load_close(dkt_load_t *self)
{
    for (int i = 0; i < self->line_count; i++) {
        dkt_producer_destroy(&self->lines[i]);
    }
    dkt_producer_destroy(&self->internal);
    self->line_count = 0;
}

static size_t s_lines(const dkt_load_t *self, dkt_producer_t *list[DKT_LOAD_LINES_MAX + 1])
{
    size_t count = 0;
    for (int i = 0; i < self->line_count; i++) {
        list[count++] = self->lines[i];
    }
    if (self->internal) {
        list[count++] = self->internal;
    }
    return count;
}

static void s_poll(dkt_load_t *self)
{
    dkt_producer_t *list[DKT_LOAD_LINES_MAX + 1];
    size_t count = s_lines(self, list);
    dkt_producer_poll_all(list, count, S_POLL_MS);
}

static size_t s_open(const dkt_load_t *self)
{
    dkt_producer_t *list[DKT_LOAD_LINES_MAX + 1];
    size_t count = s_lines(self, list), open = 0;
    for (size_t i = 0; i < count; i++) {
        open += dkt_producer_open(list[i]);
    }
    return open;
}

/* -- answers ---------------------------------------------------------------------------------- */

static void s_give(s_op_t *op)
{
    op->next = op->run->free;
    op->run->free = op;
}

static dkt_load_second_t s_second(const s_run_t *run, int64_t due_us)
{
    int64_t second = (due_us + run->wall_us) % S_MINUTE_US / S_SECOND_US;
    return second == 0    ? DKT_LOAD_SECOND_ZERO
           : second >= 58 ? DKT_LOAD_SECOND_LAST_TWO
                          : DKT_LOAD_SECOND_REST;
}

static void s_measure(s_op_t *op, const dkt_reply_t *reply)
{
    s_run_t *run = op->run;
    dkt_load_result_t *result = run->result;
    int64_t now_us = dkt_mono_us();
    op->tenant->created += dkt_text_is(reply->state, "created") && !reply->replayed;
    if (reply->status != DKT_OK) {
        result->errors++;
        result->silences += reply->silence;
        snprintf(result->error_text, sizeof result->error_text, "%s: %.*s",
                 dkt_status_code(reply->status), (int)reply->message.len,
                 reply->message.data ? reply->message.data : "");
        return;
    }
    if (!run->counting || op->due_us < run->counted_from_us) {
        return;
    }
    int64_t second = (now_us - run->counted_from_us) / S_SECOND_US;
    dkt_histogram_add(&result->latency[s_second(run, op->due_us)], (uint64_t)(now_us - op->due_us));
    if (second < DKT_LOAD_SECONDS_MAX) {
        result->per_second[second]++;
    }
    result->created += dkt_text_is(reply->state, "created");
    result->refused += dkt_text_is(reply->state, "refused");
    result->held += dkt_text_is(reply->state, "held");
    result->cancelled += dkt_text_is(reply->state, "cancelled");
    result->other += dkt_text_is(reply->state, "ok") || dkt_text_is(reply->state, "released");
}

static void s_done(void *ctx, const dkt_reply_t *reply)
{
    s_measure(ctx, reply);
    s_give(ctx);
}

static void s_created(void *ctx, const dkt_reply_t *reply)
{
    s_op_t *op = ctx;
    dkt_load_tenant_t *tenant = op->tenant;
    s_measure(op, reply);
    if (tenant->ring && tenant->ring_count < DKT_LOAD_RING && reply->ticket_id.data) {
        uint32_t at = (tenant->ring_head + tenant->ring_count++) % DKT_LOAD_RING;
        dkt_text_copy(reply->ticket_id, tenant->ring[at], sizeof tenant->ring[at]);
    }
    s_give(op);
}

/* A hold is given back at once: what is measured is the decision. */
static void s_held(void *ctx, const dkt_reply_t *reply)
{
    s_op_t *op = ctx;
    char slot_id[DKT_ID_CHARS_MAX + 1];
    s_measure(op, reply);
    if (!dkt_text_is(reply->state, "held")) {
        s_give(op);
        return;
    }
    dkt_text_copy(reply->slot_id, slot_id, sizeof slot_id);
    dkt_arg_t args[] = {dkt_arg_text("slot_id", slot_id)};
    op->due_us = dkt_mono_us();
    if (dkt_producer_submit(op->run->load->internal, "release_slot", args, 1, NULL, s_done, op) !=
        DKT_OK) {
        s_give(op);
    }
}

/* -- requests --------------------------------------------------------------------------------- */

typedef dkt_status_t(s_ask_fn)(s_run_t *run, s_op_t *op);

static dkt_status_t s_ask_create_as(s_op_t *op, const char *ticket_type)
{
    dkt_arg_t args[] = {
        dkt_arg_text("client_id", op->tenant->client_id),
        dkt_arg_text("ticket_type", ticket_type),
        dkt_arg_text("token", op->tenant->token),
    };
    dkt_status_t status =
        dkt_producer_submit(op->line, "create_ticket", args, 3, NULL, s_created, op);
    op->tenant->asked += status == DKT_OK;
    return status;
}

static dkt_status_t s_ask_cancel(s_op_t *op)
{
    dkt_load_tenant_t *tenant = op->tenant;
    dkt_arg_t args[] = {
        dkt_arg_text("ticket_id", tenant->ring[tenant->ring_head]),
        dkt_arg_text("token", tenant->token),
    };
    dkt_status_t status = dkt_producer_submit(op->line, "cancel_ticket", args, 2, NULL, s_done, op);
    if (status == DKT_OK) {
        tenant->ring_head = (tenant->ring_head + 1) % DKT_LOAD_RING;
        tenant->ring_count--;
    }
    return status;
}

/* Once the tenant is nearly full it cancels the oldest instead, or the run is over. */
static dkt_status_t s_ask_create(s_run_t *run, s_op_t *op)
{
    const dkt_load_tenant_t *tenant = op->tenant;
    if (tenant->ring && tenant->ring_count >= tenant->capacity) {
        return s_ask_cancel(op);
    }
    if (!tenant->ring && tenant->asked >= tenant->capacity) {
        run->full = true;
        return DKT_OVERLOADED;
    }
    return s_ask_create_as(op, "bronze");
}

static dkt_status_t s_ask_refuse(s_run_t *run, s_op_t *op)
{
    (void)run;
    return s_ask_create_as(op, "gold");
}

static dkt_status_t s_ask_hold(s_run_t *run, s_op_t *op)
{
    dkt_arg_t args[] = {
        dkt_arg_text("client_id", op->tenant->client_id),
        dkt_arg_text("ticket_type", "bronze"),
        dkt_arg_int("hold_ms", S_HOLD_MS),
    };
    return dkt_producer_submit(run->load->internal, "validate_eta", args, 3, NULL, s_held, op);
}

static dkt_status_t s_ask_availability(s_run_t *run, s_op_t *op)
{
    (void)run;
    dkt_arg_t args[] = {
        dkt_arg_text("client_id", op->tenant->client_id),
        dkt_arg_text("token", op->tenant->token),
    };
    return dkt_producer_submit(op->line, "availability", args, 2, NULL, s_done, op);
}

/* Of ten: seven creates, one cancel, two questions. */
static dkt_status_t s_ask_mixed(s_run_t *run, s_op_t *op)
{
    uint64_t dice = run->made / (uint64_t)run->plan->tenant_count % 10;
    if (dice == 0 && op->tenant->ring_count > 0) {
        return s_ask_cancel(op);
    }
    return dice <= 2 ? s_ask_availability(run, op) : s_ask_create(run, op);
}

static s_ask_fn *const s_asks[DKT_LOAD_MODE_COUNT] = {
    s_ask_create, s_ask_refuse, s_ask_hold, s_ask_availability, s_ask_mixed, s_ask_create};

/* -- the loop --------------------------------------------------------------------------------- */

/* Makes the requests that are due: all that are free, or those of the rate's timetable. */
static void s_ask_due(s_run_t *run)
{
    const dkt_load_plan_t *plan = run->plan;
    int64_t now_us = dkt_mono_us();
    for (int i = 0; i < S_BURST_MAX && run->free && !run->full; i++) {
        s_op_t *op = run->free;
        op->due_us = now_us;
        if (plan->rate > 0) {
            op->due_us = run->start_us + (int64_t)(run->made * S_SECOND_US / (uint64_t)plan->rate);
            op->tenant = &plan->tenants[run->made % (uint64_t)plan->tenant_count];
            if (op->due_us > now_us) {
                return;
            }
        }
        run->free = op->next;
        if (s_asks[plan->mode](run, op) != DKT_OK) {
            s_give(op);
            return; /* no room: the next round */
        }
        run->made++;
    }
}

/* A short run on a busy machine may have no answer yet when its time is over: it gets more. */
static bool s_is_over(const s_run_t *run)
{
    const dkt_load_plan_t *plan = run->plan;
    int64_t late_ms = (dkt_mono_us() - run->start_us) / 1000 - (plan->warm_up_ms + plan->run_ms);
    bool told = dkt_load_answered(run->result) > 0 || late_ms >= S_DRAIN_MS;
    return run->full || (plan->stopped && plan->stopped()) ||
           (plan->over && atomic_load(plan->over)) || (late_ms >= 0 && told);
}

static void s_count_from_now(s_run_t *run)
{
    run->counting = true;
    dkt_bench_cpu_read(run->plan->fleet_pid, &run->result->cpu);
    run->counted_from_us = dkt_mono_us();
}

static void s_count_no_more(s_run_t *run)
{
    dkt_load_result_t *result = run->result;
    dkt_bench_cpu_t end;
    if (!run->counting) {
        return; /* it ended within its warm-up */
    }
    result->seconds = (double)(dkt_mono_us() - run->counted_from_us) / S_SECOND_US;
    dkt_bench_cpu_read(run->plan->fleet_pid, &end);
    for (int i = 0; i < DKT_BENCH_CPU_COUNT; i++) {
        result->cpu.us[i] = end.us[i] - result->cpu.us[i];
    }
    result->asked = run->made;
    run->counting = false;
}

/* An operation of a closed loop belongs to its tenant and its line for good. */
static bool s_ops_make(s_run_t *run)
{
    const dkt_load_plan_t *plan = run->plan;
    int needed = (plan->in_flight + DKT_OPEN_PER_CONNECTION_MAX - 1) / DKT_OPEN_PER_CONNECTION_MAX;
    int lines = plan->lines > 0 ? plan->lines : needed;
    lines = lines < run->load->line_count ? lines : run->load->line_count;
    run->ops = calloc((size_t)plan->in_flight, sizeof *run->ops);
    for (int i = plan->in_flight - 1; run->ops && i >= 0; i--) {
        run->ops[i].run = run;
        run->ops[i].tenant = &plan->tenants[i % plan->tenant_count];
        run->ops[i].line = run->load->lines[i % lines];
        s_give(&run->ops[i]);
    }
    return run->ops != NULL;
}

bool dkt_load_run(dkt_load_t *self, const dkt_load_plan_t *plan, dkt_load_result_t *result)
{
    s_run_t run = {.load = self, .plan = plan, .result = result};
    memset(result, 0, sizeof *result);
    if (self->line_count == 0 || !s_ops_make(&run)) {
        return false; /* an earlier run gave the connections up, or no memory */
    }
    run.start_us = dkt_mono_us();
    run.wall_us = dkt_unix_ms() * 1000 - run.start_us;
    while (!s_is_over(&run)) {
        if (!run.counting && dkt_mono_us() >= run.start_us + plan->warm_up_ms * 1000) {
            s_count_from_now(&run);
        }
        s_ask_due(&run);
        s_poll(self);
    }
    s_count_no_more(&run);
    /* What is answered after the end is not counted, but waited for: the tickets are real. */
    int64_t drain_ms = dkt_mono_ms() + S_DRAIN_MS;
    while (s_open(self) > 0 && dkt_mono_ms() < drain_ms) {
        s_poll(self);
    }
    bool closed = s_open(self) == 0;
    if (!closed) {
        fprintf(stderr, "docket bench: %zu requests have no answer\n", s_open(self));
        dkt_load_close(self); /* their callbacks must not come any more */
    }
    free(run.ops);
    return closed && dkt_load_answered(result) > 0 && !(plan->stopped && plan->stopped());
}

/* -- figures ---------------------------------------------------------------------------------- */

void dkt_load_latency(const dkt_load_result_t *result, dkt_histogram_t *latency)
{
    memset(latency, 0, sizeof *latency);
    for (int i = 0; i < DKT_LOAD_SECOND_COUNT; i++) {
        dkt_histogram_merge(latency, &result->latency[i]);
    }
}

uint64_t dkt_load_answered(const dkt_load_result_t *result)
{
    uint64_t count = 0;
    for (int i = 0; i < DKT_LOAD_SECOND_COUNT; i++) {
        count += result->latency[i].count;
    }
    return count;
}
