/* SPDX-License-Identifier: Apache-2.0
 *
 * docket bench load: requests per second and latency of a running fleet. Closed loop by default
 * (--in-flight requests are always open); with --rate an open loop, where a request's clock starts
 * when it was due, not when it could be sent.
 */
#include "ops/bench_load.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "ops/cmd.h"
#include "ops/cmd_common.h"

#define S_POLL_MS    1
#define S_WARM_UP_US 1000000
#define S_DRAIN_MS   15000
#define S_SECOND_US  1000000
#define S_HOLD_MS    10000
#define S_BURST_MAX  1024 /* requests made between two polls */
#define S_IN_FLIGHT  1000
#define S_RATE_MAX   1000000
#define S_ENDPOINT   "tcp://127.0.0.1:7410"

const char *const dkt_bench_modes[DKT_BENCH_MODE_COUNT] = {"create", "refuse", "hold", "mixed",
                                                           "one"};

/* A request on its way. */
typedef struct s_op {
    dkt_bench_t *bench;
    struct s_op *next; /* free ones */
    int64_t due_us;
    uint32_t tenant;
} s_op_t;

/* The ops of a run; the callbacks give them back. */
typedef struct {
    s_op_t *all, *free;
} s_pool_t;

static s_pool_t s_pool;

static s_op_t *s_op_take(dkt_bench_t *self, int64_t due_us)
{
    s_op_t *op = s_pool.free;
    s_pool.free = op->next;
    op->bench = self;
    op->due_us = due_us;
    op->tenant = (uint32_t)(self->asked % (uint64_t)self->options.tenants);
    return op;
}

static void s_op_give(s_op_t *op)
{
    op->next = s_pool.free;
    s_pool.free = op;
}

/* -- answers ---------------------------------------------------------------------------------- */

static void s_measure(s_op_t *op, const dkt_reply_t *reply)
{
    dkt_bench_t *self = op->bench;
    int64_t now_us = dkt_mono_us();
    if (reply->status != DKT_OK) {
        self->errors++;
        self->silences += reply->silence;
        snprintf(self->error_text, sizeof self->error_text, "%s: %.*s",
                 dkt_status_code(reply->status), (int)reply->message.len,
                 reply->message.data ? reply->message.data : "");
        return;
    }
    if (!self->counting || op->due_us < self->counted_from_us) {
        return;
    }
    int64_t second = (now_us - self->counted_from_us) / S_SECOND_US;
    dkt_histogram_add(&self->latency, (uint64_t)(now_us - op->due_us));
    if (second < DKT_BENCH_SECONDS_MAX) {
        self->per_second[second]++;
    }
    self->created += dkt_text_is(reply->state, "created");
    self->refused += dkt_text_is(reply->state, "refused");
    self->held += dkt_text_is(reply->state, "held");
    self->cancelled += dkt_text_is(reply->state, "cancelled");
    self->other += dkt_text_is(reply->state, "ok") || dkt_text_is(reply->state, "released");
}

static void s_done(void *ctx, const dkt_reply_t *reply)
{
    s_measure(ctx, reply);
    s_op_give(ctx);
}

static void s_created(void *ctx, const dkt_reply_t *reply)
{
    s_op_t *op = ctx;
    dkt_bench_tenant_t *tenant = &op->bench->tenants[op->tenant];
    s_measure(op, reply);
    if (tenant->ring && tenant->count < DKT_BENCH_RING && reply->ticket_id.data) {
        dkt_text_copy(reply->ticket_id,
                      tenant->ring[(tenant->head + tenant->count++) % DKT_BENCH_RING],
                      sizeof tenant->ring[0]);
    }
    s_op_give(op);
}

/* A hold is given back at once: what is measured is the decision. */
static void s_held(void *ctx, const dkt_reply_t *reply)
{
    s_op_t *op = ctx;
    char slot_id[DKT_ID_CHARS_MAX + 1];
    s_measure(op, reply);
    if (!dkt_text_is(reply->state, "held")) {
        s_op_give(op);
        return;
    }
    dkt_text_copy(reply->slot_id, slot_id, sizeof slot_id);
    dkt_arg_t args[] = {dkt_arg_text("slot_id", slot_id)};
    op->due_us = dkt_mono_us();
    if (dkt_producer_submit(op->bench->internal, "release_slot", args, 1, NULL, s_done, op) !=
        DKT_OK) {
        s_op_give(op);
    }
}

/* -- requests --------------------------------------------------------------------------------- */

typedef dkt_status_t(s_ask_fn)(dkt_bench_t *self, s_op_t *op);

static dkt_status_t s_ask_create_as(dkt_bench_t *self, s_op_t *op, const char *ticket_type)
{
    dkt_bench_tenant_t *tenant = &self->tenants[op->tenant];
    dkt_arg_t args[] = {
        dkt_arg_text("client_id", tenant->client_id),
        dkt_arg_text("ticket_type", ticket_type),
        dkt_arg_text("token", tenant->token),
    };
    return dkt_producer_submit(self->producer, "create_ticket", args, 3, NULL, s_created, op);
}

static dkt_status_t s_ask_cancel(dkt_bench_t *self, s_op_t *op)
{
    dkt_bench_tenant_t *tenant = &self->tenants[op->tenant];
    const char *ticket_id = tenant->ring[tenant->head];
    dkt_arg_t args[] = {
        dkt_arg_text("ticket_id", ticket_id),
        dkt_arg_text("token", tenant->token),
    };
    dkt_status_t status =
        dkt_producer_submit(self->producer, "cancel_ticket", args, 2, NULL, s_done, op);
    if (status == DKT_OK) {
        tenant->head = (tenant->head + 1) % DKT_BENCH_RING;
        tenant->count--;
    }
    return status;
}

/* Cancels the oldest instead once the tenant is nearly full. */
static dkt_status_t s_ask_create(dkt_bench_t *self, s_op_t *op)
{
    const dkt_bench_tenant_t *tenant = &self->tenants[op->tenant];
    if (tenant->ring && tenant->count >= tenant->capacity) {
        return s_ask_cancel(self, op);
    }
    return s_ask_create_as(self, op, "bronze");
}

static dkt_status_t s_ask_refuse(dkt_bench_t *self, s_op_t *op)
{
    return s_ask_create_as(self, op, "gold");
}

static dkt_status_t s_ask_hold(dkt_bench_t *self, s_op_t *op)
{
    dkt_arg_t args[] = {
        dkt_arg_text("client_id", self->tenants[op->tenant].client_id),
        dkt_arg_text("ticket_type", "bronze"),
        dkt_arg_int("hold_ms", S_HOLD_MS),
    };
    return dkt_producer_submit(self->internal, "validate_eta", args, 3, NULL, s_held, op);
}

static dkt_status_t s_ask_availability(dkt_bench_t *self, s_op_t *op)
{
    dkt_bench_tenant_t *tenant = &self->tenants[op->tenant];
    dkt_arg_t args[] = {
        dkt_arg_text("client_id", tenant->client_id),
        dkt_arg_text("token", tenant->token),
    };
    return dkt_producer_submit(self->producer, "availability", args, 2, NULL, s_done, op);
}

/* Of ten: seven creates, one cancel, two questions. */
static dkt_status_t s_ask_mixed(dkt_bench_t *self, s_op_t *op)
{
    uint64_t dice = self->asked / (uint64_t)self->options.tenants % 10;
    if (dice == 0 && self->tenants[op->tenant].count > 0) {
        return s_ask_cancel(self, op);
    }
    return dice <= 2 ? s_ask_availability(self, op) : s_ask_create(self, op);
}

static s_ask_fn *const s_asks[DKT_BENCH_MODE_COUNT] = {s_ask_create, s_ask_refuse, s_ask_hold,
                                                       s_ask_mixed, s_ask_create};

/* -- the loop --------------------------------------------------------------------------------- */

static void s_poll(dkt_bench_t *self)
{
    dkt_producer_t *list[] = {self->producer, self->internal};
    dkt_producer_poll_all(list, self->internal ? 2 : 1, S_POLL_MS);
}

/* Makes the requests that are due: all that fit, or those of the rate's timetable. */
static void s_ask_due(dkt_bench_t *self, int64_t start_us, uint64_t *made)
{
    int64_t now_us = dkt_mono_us();
    for (int i = 0; i < S_BURST_MAX && s_pool.free; i++) {
        int64_t due_us = now_us;
        if (self->options.rate > 0) {
            due_us = start_us + (int64_t)(*made * S_SECOND_US / (uint64_t)self->options.rate);
            if (due_us > now_us) {
                return;
            }
        }
        s_op_t *op = s_op_take(self, due_us);
        if (s_asks[self->options.mode](self, op) != DKT_OK) {
            s_op_give(op);
            return; /* full: the next round */
        }
        (*made)++;
        self->asked++;
    }
}

static bool s_run(dkt_bench_t *self)
{
    int64_t start_us = dkt_mono_us();
    int64_t end_us = start_us + S_WARM_UP_US + (int64_t)self->options.seconds * S_SECOND_US;
    uint64_t made = 0;
    for (int64_t now_us = start_us; now_us < end_us; now_us = dkt_mono_us()) {
        if (!self->counting && now_us >= start_us + S_WARM_UP_US) {
            self->counting = true;
            dkt_bench_cpu_read(self->options.fleet, &self->cpu);
            self->counted_from_us = now_us;
        }
        s_ask_due(self, start_us, &made);
        s_poll(self);
    }
    self->seconds = (double)(dkt_mono_us() - self->counted_from_us) / S_SECOND_US;
    dkt_bench_cpu_t end;
    dkt_bench_cpu_read(self->options.fleet, &end);
    for (int i = 0; i < DKT_BENCH_CPU_COUNT; i++) {
        self->cpu.us[i] = end.us[i] - self->cpu.us[i];
    }
    /* What is answered after the end is not counted, but waited for. */
    self->counting = false;
    int64_t drain_ms = dkt_mono_ms() + S_DRAIN_MS;
    while (dkt_producer_open(self->producer) +
                   (self->internal ? dkt_producer_open(self->internal) : 0) >
               0 &&
           dkt_mono_ms() < drain_ms) {
        s_poll(self);
    }
    return self->latency.count > 0;
}

/* -- options ---------------------------------------------------------------------------------- */

static void s_usage(FILE *out)
{
    fputs("usage: docket bench load [options]\n"
          "Requests per second and latency of a running fleet. Opens accounts of its own.\n\n"
          "  --endpoint ADDRESS   default $DOCKET_ENDPOINT or " S_ENDPOINT "\n"
          "  --internal ADDRESS   the internal endpoint: more capacity, and mode hold\n"
          "  --keys DIR           its CURVE keys\n"
          "  --mode NAME          create | refuse | hold | mixed | one (default create)\n"
          "  --tenants N          default 1\n"
          "  --resolvers N        of each tenant; more than 64 need --internal\n"
          "  --seconds N          counted after one of warm-up, default 10\n"
          "  --in-flight N        requests open at a time, default 1000, at most 4096\n"
          "  --rate N             open loop: so many requests per second\n"
          "  --batch N            requests in one message, default 256\n"
          "  --postgres URI       tell fsync and synchronous_commit\n"
          "  --fleet PID          of docket up: tell the CPU time of a request, by process\n"
          "  --json               one line of JSON\n"
          "  --svg FILE           requests per second as a plot\n",
          out);
}

static bool s_number(const char *text, int min, int max, int *out)
{
    char *end = NULL;
    long value = strtol(text, &end, 10);
    if (end == text || *end || value < min || value > max) {
        fprintf(stderr, "docket bench load: %s is not a number from %d to %d\n", text, min, max);
        return false;
    }
    *out = (int)value;
    return true;
}

static bool s_mode(const char *text, dkt_bench_mode_t *mode)
{
    for (int i = 0; i < DKT_BENCH_MODE_COUNT; i++) {
        if (strcmp(text, dkt_bench_modes[i]) == 0) {
            *mode = (dkt_bench_mode_t)i;
            return true;
        }
    }
    fprintf(stderr, "docket bench load: there is no mode %s\n", text);
    return false;
}

/* Takes argv[i] and its value. False: wrong. */
static bool s_take(dkt_bench_options_t *options, const char *word, const char *value)
{
    const struct {
        const char *word;
        const char **text;
    } texts[] = {{"--endpoint", &options->endpoint},
                 {"--internal", &options->internal},
                 {"--keys", &options->keys},
                 {"--postgres", &options->postgres},
                 {"--svg", &options->svg}};
    const struct {
        const char *word;
        int *number;
        int max;
    } numbers[] = {{"--tenants", &options->tenants, DKT_BENCH_TENANTS_MAX},
                   {"--seconds", &options->seconds, DKT_BENCH_SECONDS_MAX},
                   {"--in-flight", &options->in_flight, DKT_OPEN_PER_CONNECTION_MAX},
                   {"--rate", &options->rate, S_RATE_MAX},
                   {"--batch", &options->batch, DKT_FRAMES_PER_MESSAGE_MAX},
                   {"--fleet", &options->fleet, INT_MAX},
                   {"--resolvers", &options->resolvers, DKT_RESOLVERS_MAX}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (strcmp(word, texts[i].word) == 0) {
            *texts[i].text = value;
            return true;
        }
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (strcmp(word, numbers[i].word) == 0) {
            return s_number(value, 1, numbers[i].max, numbers[i].number);
        }
    }
    if (strcmp(word, "--mode") == 0) {
        return s_mode(value, &options->mode);
    }
    fprintf(stderr, "docket bench load: unknown option %s\n", word);
    return false;
}

/* 0: go on; 1: wrong; 2: help was asked for. */
static int s_parse(int argc, char **argv, dkt_bench_options_t *options)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            return 2;
        }
        if (strcmp(argv[i], "--json") == 0) {
            options->json = true;
        } else if (i + 1 >= argc) {
            fprintf(stderr, "docket bench load: unknown or incomplete option %s\n", argv[i]);
            return 1;
        } else if (!s_take(options, argv[i], argv[i + 1])) {
            return 1;
        } else {
            i++;
        }
    }
    if (options->mode == DKT_BENCH_HOLD && !options->internal) {
        fprintf(stderr, "docket bench load: mode hold needs --internal and --keys\n");
        return 1;
    }
    if (options->mode == DKT_BENCH_ONE) {
        options->in_flight = 1;
    }
    return 0;
}

/* -- life ------------------------------------------------------------------------------------- */

static bool s_connect(dkt_bench_t *self)
{
    dkt_err_t err = {0};
    dkt_cmd_keys_t keys;
    const char *endpoint = getenv("DOCKET_ENDPOINT");
    dkt_producer_options_t options = {
        .endpoint = self->options.endpoint ? self->options.endpoint
                    : endpoint             ? endpoint
                                           : S_ENDPOINT,
        .in_flight_max = DKT_OPEN_PER_CONNECTION_MAX,
        .batch_max = (uint32_t)self->options.batch,
        .attempt_ms = 10000,
        .total_ms = 60000,
    };
    self->producer = dkt_producer_new(&options, &err);
    if (self->producer && self->options.internal) {
        options.endpoint = self->options.internal;
        if (!self->options.keys ||
            dkt_cmd_keys(self->options.keys, &keys, &options, &err) == DKT_OK) {
            self->internal = dkt_producer_new(&options, &err);
        }
    }
    if (!self->producer || (self->options.internal && !self->internal)) {
        fprintf(stderr, "docket bench load: %s\n", err.text);
        return false;
    }
    return true;
}

static bool s_pool_make(int count)
{
    s_pool.all = calloc((size_t)count, sizeof *s_pool.all);
    for (int i = 0; s_pool.all && i < count; i++) {
        s_op_give(&s_pool.all[i]);
    }
    return s_pool.all != NULL;
}

int dkt_bench_load_main(int argc, char **argv)
{
    static dkt_bench_t self; /* its histogram is large */
    self = (dkt_bench_t){.options = {.tenants = 1,
                                     .seconds = 10,
                                     .in_flight = S_IN_FLIGHT,
                                     .batch = DKT_FRAMES_PER_MESSAGE_MAX}};
    int parsed = s_parse(argc, argv, &self.options);
    if (parsed != 0) {
        s_usage(parsed == 2 ? stdout : stderr);
        return parsed == 2 ? 0 : 2;
    }
    self.tenants = calloc((size_t)self.options.tenants, sizeof *self.tenants);
    bool ok = self.tenants && s_pool_make(self.options.in_flight) && s_connect(&self) &&
              dkt_bench_setup(&self) && s_run(&self);
    if (ok) {
        dkt_bench_report(&self);
    } else {
        fprintf(stderr, "docket bench load: nothing was measured%s%s\n",
                self.error_text[0] ? "; " : "", self.error_text);
    }
    dkt_producer_destroy(&self.producer);
    dkt_producer_destroy(&self.internal);
    for (int i = 0; self.tenants && i < self.options.tenants; i++) {
        free(self.tenants[i].ring);
    }
    free(self.tenants);
    free(s_pool.all);
    return ok ? 0 : 1;
}
