/* SPDX-License-Identifier: Apache-2.0
 *
 * docket bench load: requests per second and latency of a fleet that runs already. Closed loop by
 * default (--in-flight requests are always open); with --rate an open loop, where a request's clock
 * starts when it was due.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "ops/bench_load.h"
#include "ops/bench_machine.h"
#include "ops/cmd.h"
#include "ops/result.h"

#define S_WARM_UP_MS   1000
#define S_IN_FLIGHT    1000
#define S_RATE_MAX     1000000
#define S_ENDPOINT     "tcp://127.0.0.1:7410"
#define S_CREATE_LANES 2048 /* resolvers of all together, where the internal endpoint allows */
#define S_P50          5000
#define S_P99          9900
#define S_P999         9990
#define S_PLOT_W       720
#define S_PLOT_H       240
#define S_PLOT_LEFT    70
#define S_PLOT_TOP     40

typedef struct {
    const char *endpoint, *internal, *keys, *postgres, *svg;
    int tenants, seconds, in_flight, rate, batch, resolvers, fleet;
    dkt_load_mode_t mode;
    bool json;
} s_options_t;

typedef struct {
    s_options_t options;
    dkt_load_t load;
    dkt_load_set_t set;
    dkt_load_result_t result;
    dkt_histogram_t latency;
} s_command_t;

/* -- options ---------------------------------------------------------------------------------- */

static void s_usage(FILE *out)
{
    fputs("usage: docket bench load [options]\n"
          "Requests per second and latency of a running fleet. Opens accounts of its own.\n\n"
          "  --endpoint ADDRESS   default $DOCKET_ENDPOINT or " S_ENDPOINT "\n"
          "  --internal ADDRESS   the internal endpoint: more capacity, and mode hold\n"
          "  --keys DIR           its CURVE keys\n"
          "  --mode NAME          create | refuse | hold | availability | mixed | one;\n"
          "                       default create\n"
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

static bool s_mode(const char *text, dkt_load_mode_t *mode)
{
    for (int i = 0; i < DKT_LOAD_MODE_COUNT; i++) {
        if (strcmp(text, dkt_load_modes[i]) == 0) {
            *mode = (dkt_load_mode_t)i;
            return true;
        }
    }
    fprintf(stderr, "docket bench load: there is no mode %s\n", text);
    return false;
}

/* Takes argv[i] and its value. False: wrong. */
static bool s_take(s_options_t *options, const char *word, const char *value)
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
    } numbers[] = {{"--tenants", &options->tenants, DKT_LOAD_TENANTS_MAX},
                   {"--seconds", &options->seconds, DKT_LOAD_SECONDS_MAX},
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
static int s_parse(int argc, char **argv, s_options_t *options)
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
    if (options->mode == DKT_LOAD_HOLD && !options->internal) {
        fprintf(stderr, "docket bench load: mode hold needs --internal and --keys\n");
        return 1;
    }
    if (options->mode == DKT_LOAD_ONE) {
        options->in_flight = 1;
    }
    return 0;
}

/* -- the plot --------------------------------------------------------------------------------- */

static void s_plot(const s_command_t *self)
{
    FILE *out = fopen(self->options.svg, "w");
    uint64_t top = 1;
    int count = self->options.seconds;
    if (!out) {
        fprintf(stderr, "docket bench load: cannot write %s: %s\n", self->options.svg,
                strerror(errno));
        return;
    }
    for (int i = 0; i < count; i++) {
        top = self->result.per_second[i] > top ? self->result.per_second[i] : top;
    }
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
            "<text x=\"%d\" y=\"20\">docket bench load, mode %s, %d tenants, %d in flight: "
            "requests per second</text>\n",
            S_PLOT_W + S_PLOT_LEFT + 20, S_PLOT_H + S_PLOT_TOP + 30, S_PLOT_LEFT,
            dkt_load_modes[self->options.mode], self->options.tenants, self->options.in_flight);
    for (int i = 0; i <= 4; i++) {
        int y = S_PLOT_TOP + S_PLOT_H - i * S_PLOT_H / 4;
        fprintf(out,
                "<line x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\" stroke=\"#ddd\"/>"
                "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%llu</text>\n",
                S_PLOT_LEFT, S_PLOT_LEFT + S_PLOT_W, y, y, S_PLOT_LEFT - 6, y + 4,
                (unsigned long long)(top * (uint64_t)i / 4));
    }
    fprintf(out, "<polyline fill=\"none\" stroke=\"#0a62a9\" stroke-width=\"2\" points=\"");
    for (int i = 0; i < count; i++) {
        double x = S_PLOT_LEFT + (i + 0.5) * S_PLOT_W / count;
        double y =
            S_PLOT_TOP + S_PLOT_H - (double)self->result.per_second[i] * S_PLOT_H / (double)top;
        fprintf(out, "%.1f,%.1f ", x, y);
    }
    fprintf(out, "\"/>\n<text x=\"%d\" y=\"%d\">0 to %d s</text>\n</svg>\n", S_PLOT_LEFT,
            S_PLOT_TOP + S_PLOT_H + 20, count);
    fclose(out);
}

/* -- figures ---------------------------------------------------------------------------------- */

static double s_cpu(const s_command_t *self, int role)
{
    return self->latency.count ? self->result.cpu.us[role] / (double)self->latency.count : 0;
}

static void s_report_json(const s_command_t *self, const dkt_bench_postgres_t *settings,
                          uint64_t pingpong_us)
{
    const s_options_t *options = &self->options;
    printf("{\"mode\": \"%s\", \"tenants\": %d, \"in_flight\": %d, \"rate\": %d, \"batch\": %d, "
           "\"seconds\": %.3f, \"requests\": %llu, \"per_s\": %.1f, \"p50_us\": %llu, "
           "\"p99_us\": %llu, \"p999_us\": %llu, \"max_us\": %llu, ",
           dkt_load_modes[options->mode], options->tenants, options->in_flight, options->rate,
           options->batch, self->result.seconds, (unsigned long long)self->latency.count,
           (double)self->latency.count / self->result.seconds,
           (unsigned long long)dkt_histogram_at(&self->latency, S_P50),
           (unsigned long long)dkt_histogram_at(&self->latency, S_P99),
           (unsigned long long)dkt_histogram_at(&self->latency, S_P999),
           (unsigned long long)self->latency.max_us);
    for (int i = 0; i < (options->fleet ? DKT_BENCH_CPU_COUNT : 1); i++) {
        printf("\"cpu_%s_us\": %.3f, ", dkt_bench_cpu_names[i], s_cpu(self, i));
    }
    printf("\"created\": %llu, \"refused\": %llu, \"held\": %llu, \"cancelled\": %llu, "
           "\"other\": %llu, \"errors\": %llu, \"silences\": %llu, \"pingpong_p50_us\": %llu, "
           "\"postgres\": \"%s\", \"fsync\": \"%s\", \"synchronous_commit\": \"%s\"}\n",
           (unsigned long long)self->result.created, (unsigned long long)self->result.refused,
           (unsigned long long)self->result.held, (unsigned long long)self->result.cancelled,
           (unsigned long long)self->result.other, (unsigned long long)self->result.errors,
           (unsigned long long)self->result.silences, (unsigned long long)pingpong_us,
           settings->version, settings->fsync, settings->synchronous_commit);
}

static void s_report_text(const s_command_t *self, const dkt_bench_postgres_t *settings,
                          uint64_t pingpong_us)
{
    const s_options_t *options = &self->options;
    printf("mode %s, %d tenants, %d in flight, batch %d", dkt_load_modes[options->mode],
           options->tenants, options->in_flight, options->batch);
    if (options->rate > 0) {
        printf(", open loop of %d/s", options->rate);
    }
    printf("\nPostgreSQL %s, fsync %s, synchronous_commit %s\n", settings->version, settings->fsync,
           settings->synchronous_commit);
    printf("%12.0f requests/s over %.1f s\n", (double)self->latency.count / self->result.seconds,
           self->result.seconds);
    if (self->result.created > 0) {
        printf("%12.0f tickets/s durably created\n",
               (double)self->result.created / self->result.seconds);
    }
    printf("%12.3f ms p50\n%12.3f ms p99\n%12.3f ms p99.9\n%12.3f ms at most\n",
           (double)dkt_histogram_at(&self->latency, S_P50) / 1000.0,
           (double)dkt_histogram_at(&self->latency, S_P99) / 1000.0,
           (double)dkt_histogram_at(&self->latency, S_P999) / 1000.0,
           (double)self->latency.max_us / 1000.0);
    printf("CPU us per request:");
    for (int i = 0; i < (options->fleet ? DKT_BENCH_CPU_COUNT : 1); i++) {
        printf(" %s %.2f", dkt_bench_cpu_names[i], s_cpu(self, i));
    }
    printf("\n%12.3f ms p50 of a bare eventfd ping-pong between two threads here\n",
           (double)pingpong_us / 1000.0);
    printf("created %llu, refused %llu, held %llu, cancelled %llu, other %llu; "
           "errors %llu, without answer %llu\n",
           (unsigned long long)self->result.created, (unsigned long long)self->result.refused,
           (unsigned long long)self->result.held, (unsigned long long)self->result.cancelled,
           (unsigned long long)self->result.other, (unsigned long long)self->result.errors,
           (unsigned long long)self->result.silences);
    if (self->result.error_text[0]) {
        printf("last error: %s\n", self->result.error_text);
    }
}

/* -- life ------------------------------------------------------------------------------------- */

static int s_resolvers(const s_options_t *options)
{
    if (options->resolvers > 0) {
        return options->resolvers;
    }
    if (options->mode == DKT_LOAD_REFUSE) {
        return 1;
    }
    int wanted = S_CREATE_LANES / options->tenants, least = DKT_RESOLVERS_SIGNUP_MAX;
    return options->internal && wanted > least ? wanted : least;
}

static bool s_run(s_command_t *self)
{
    const s_options_t *options = &self->options;
    const char *endpoint = getenv("DOCKET_ENDPOINT");
    dkt_load_mode_t mode = options->mode;
    const dkt_load_where_t where = {.endpoint = options->endpoint ? options->endpoint
                                                : endpoint        ? endpoint
                                                                  : S_ENDPOINT,
                                    .internal = options->internal,
                                    .keys = options->keys,
                                    .lines = 1,
                                    .batch = options->batch};
    self->set = (dkt_load_set_t){.resolvers = s_resolvers(options),
                                 .recycle = mode == DKT_LOAD_CREATE || mode == DKT_LOAD_MIXED ||
                                            mode == DKT_LOAD_ONE};
    bool ok = dkt_load_open(&self->load, &where) &&
              dkt_load_set_grow(&self->load, &self->set, options->tenants, NULL) &&
              dkt_load_set_login(&self->load, &self->set, options->tenants, NULL);
    for (int i = 0; ok && mode == DKT_LOAD_REFUSE && i < options->tenants; i++) {
        ok = dkt_load_fill(&self->load, &self->set, i, DKT_LOAD_FULL);
    }
    if (ok) {
        const dkt_load_plan_t plan = {.mode = mode,
                                      .tenants = self->set.list,
                                      .tenant_count = options->tenants,
                                      .in_flight = options->in_flight,
                                      .rate = options->rate,
                                      .warm_up_ms = S_WARM_UP_MS,
                                      .run_ms = (int64_t)options->seconds * 1000,
                                      .fleet_pid = options->fleet};
        ok = dkt_load_run(&self->load, &plan, &self->result);
        dkt_load_latency(&self->result, &self->latency);
    }
    dkt_load_close(&self->load);
    dkt_load_set_free(&self->set);
    return ok;
}

static void s_report(const s_command_t *self)
{
    dkt_bench_postgres_t settings;
    (void)dkt_bench_settings(self->options.postgres, &settings);
    uint64_t pingpong_us = dkt_bench_pingpong_us();
    if (self->options.json) {
        s_report_json(self, &settings, pingpong_us);
    } else {
        s_report_text(self, &settings, pingpong_us);
    }
    if (self->options.svg) {
        s_plot(self);
    }
}

int dkt_bench_load_main(int argc, char **argv)
{
    static s_command_t self; /* its histograms are large */
    self = (s_command_t){.options = {.tenants = 1,
                                     .seconds = 10,
                                     .in_flight = S_IN_FLIGHT,
                                     .batch = DKT_FRAMES_PER_MESSAGE_MAX}};
    int parsed = s_parse(argc, argv, &self.options);
    if (parsed != 0) {
        s_usage(parsed == 2 ? stdout : stderr);
        return parsed == 2 ? 0 : 2;
    }
    bool ok = s_run(&self);
    if (ok) {
        s_report(&self);
    } else {
        fprintf(stderr, "docket bench load: nothing was measured%s%s\n",
                self.result.error_text[0] ? "; " : "", self.result.error_text);
    }
    return ok ? 0 : 1;
}
