/* SPDX-License-Identifier: Apache-2.0
 *
 * What `docket bench load` prints: settings, the machine's ping-pong, figures; and the plot.
 */
#include <errno.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "ops/bench_load.h"
#include "ops/result.h"

#define S_PINGPONG_ROUNDS 2000
#define S_P50             5000
#define S_P99             9900
#define S_P999            9990
#define S_PLOT_W          720
#define S_PLOT_H          240
#define S_PLOT_LEFT       70
#define S_PLOT_TOP        40

/* -- settings --------------------------------------------------------------------------------- */

static void s_show(PGconn *connection, const char *query, char *out, size_t max)
{
    PGresult *result = PQexec(connection, query);
    bool ok = PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1;
    snprintf(out, max, "%s", ok ? PQgetvalue(result, 0, 0) : "-");
    PQclear(result);
}

bool dkt_bench_settings(const char *uri, dkt_bench_settings_t *out)
{
    *out = (dkt_bench_settings_t){"-", "-", "-"};
    if (!uri) {
        return false;
    }
    PGconn *connection = PQconnectdb(uri);
    bool ok = PQstatus(connection) == CONNECTION_OK;
    if (ok) {
        s_show(connection, "show server_version", out->version, sizeof out->version);
        s_show(connection, "show fsync", out->fsync, sizeof out->fsync);
        s_show(connection, "show synchronous_commit", out->synchronous_commit,
               sizeof out->synchronous_commit);
    } else {
        fprintf(stderr, "docket bench: %s", PQerrorMessage(connection));
    }
    PQfinish(connection);
    return ok;
}

/* -- ping-pong -------------------------------------------------------------------------------- */

typedef struct {
    int ping_fd, pong_fd;
    cpu_set_t core; /* of the thread that echoes; another than the caller's, if there is one */
} s_pair_t;

/* The first allowed core into `one`, the last into `other`. */
static void s_two_cores(const cpu_set_t *allowed, cpu_set_t *one, cpu_set_t *other)
{
    CPU_ZERO(one);
    CPU_ZERO(other);
    for (int i = 0; i < CPU_SETSIZE; i++) {
        if (CPU_ISSET(i, allowed)) {
            if (CPU_COUNT(one) == 0) {
                CPU_SET(i, one);
            }
            CPU_ZERO(other);
            CPU_SET(i, other);
        }
    }
}

static void *s_echo(void *arg)
{
    const s_pair_t *pair = arg;
    uint64_t value = 0;
    (void)sched_setaffinity(0, sizeof pair->core, &pair->core);
    for (int i = 0; i < S_PINGPONG_ROUNDS; i++) {
        if (read(pair->ping_fd, &value, sizeof value) != sizeof value ||
            write(pair->pong_fd, &value, sizeof value) != sizeof value) {
            break;
        }
    }
    return NULL;
}

uint64_t dkt_bench_pingpong_us(void)
{
    static dkt_histogram_t histogram;
    s_pair_t pair = {.ping_fd = eventfd(0, EFD_CLOEXEC), .pong_fd = eventfd(0, EFD_CLOEXEC)};
    cpu_set_t allowed, own;
    pthread_t thread;
    uint64_t value = 1;
    memset(&histogram, 0, sizeof histogram);
    /* On one core a hop is a switch without a wake-up: not what the processes of a fleet see. */
    (void)sched_getaffinity(0, sizeof allowed, &allowed);
    s_two_cores(&allowed, &own, &pair.core);
    (void)sched_setaffinity(0, sizeof own, &own);
    if (pair.ping_fd >= 0 && pair.pong_fd >= 0 &&
        pthread_create(&thread, NULL, s_echo, &pair) == 0) {
        for (int i = 0; i < S_PINGPONG_ROUNDS; i++) {
            int64_t start_us = dkt_mono_us();
            if (write(pair.ping_fd, &value, sizeof value) != sizeof value ||
                read(pair.pong_fd, &value, sizeof value) != sizeof value) {
                break;
            }
            dkt_histogram_add(&histogram, (uint64_t)(dkt_mono_us() - start_us));
        }
        pthread_join(thread, NULL);
    }
    (void)sched_setaffinity(0, sizeof allowed, &allowed);
    close(pair.ping_fd);
    close(pair.pong_fd);
    return dkt_histogram_at(&histogram, S_P50);
}

/* -- the plot --------------------------------------------------------------------------------- */

static void s_plot(const dkt_bench_t *self)
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
        top = self->per_second[i] > top ? self->per_second[i] : top;
    }
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
            "<text x=\"%d\" y=\"20\">docket bench load, mode %s, %d tenants, %d in flight: "
            "requests per second</text>\n",
            S_PLOT_W + S_PLOT_LEFT + 20, S_PLOT_H + S_PLOT_TOP + 30, S_PLOT_LEFT,
            dkt_bench_modes[self->options.mode], self->options.tenants, self->options.in_flight);
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
        double y = S_PLOT_TOP + S_PLOT_H - (double)self->per_second[i] * S_PLOT_H / (double)top;
        fprintf(out, "%.1f,%.1f ", x, y);
    }
    fprintf(out, "\"/>\n<text x=\"%d\" y=\"%d\">0 to %d s</text>\n</svg>\n", S_PLOT_LEFT,
            S_PLOT_TOP + S_PLOT_H + 20, count);
    fclose(out);
}

/* -- figures ---------------------------------------------------------------------------------- */

static double s_cpu(const dkt_bench_t *self, int role)
{
    return self->latency.count ? self->cpu.us[role] / (double)self->latency.count : 0;
}

static void s_report_json(const dkt_bench_t *self, const dkt_bench_settings_t *settings,
                          uint64_t pingpong_us)
{
    const dkt_bench_options_t *options = &self->options;
    printf("{\"mode\": \"%s\", \"tenants\": %d, \"in_flight\": %d, \"rate\": %d, \"batch\": %d, "
           "\"seconds\": %.3f, \"requests\": %llu, \"per_s\": %.1f, \"p50_us\": %llu, "
           "\"p99_us\": %llu, \"p999_us\": %llu, \"max_us\": %llu, ",
           dkt_bench_modes[options->mode], options->tenants, options->in_flight, options->rate,
           options->batch, self->seconds, (unsigned long long)self->latency.count,
           (double)self->latency.count / self->seconds,
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
           (unsigned long long)self->created, (unsigned long long)self->refused,
           (unsigned long long)self->held, (unsigned long long)self->cancelled,
           (unsigned long long)self->other, (unsigned long long)self->errors,
           (unsigned long long)self->silences, (unsigned long long)pingpong_us, settings->version,
           settings->fsync, settings->synchronous_commit);
}

static void s_report_text(const dkt_bench_t *self, const dkt_bench_settings_t *settings,
                          uint64_t pingpong_us)
{
    const dkt_bench_options_t *options = &self->options;
    printf("mode %s, %d tenants, %d in flight, batch %d", dkt_bench_modes[options->mode],
           options->tenants, options->in_flight, options->batch);
    if (options->rate > 0) {
        printf(", open loop of %d/s", options->rate);
    }
    printf("\nPostgreSQL %s, fsync %s, synchronous_commit %s\n", settings->version, settings->fsync,
           settings->synchronous_commit);
    printf("%12.0f requests/s over %.1f s\n", (double)self->latency.count / self->seconds,
           self->seconds);
    if (self->created > 0) {
        printf("%12.0f tickets/s durably created\n", (double)self->created / self->seconds);
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
           (unsigned long long)self->created, (unsigned long long)self->refused,
           (unsigned long long)self->held, (unsigned long long)self->cancelled,
           (unsigned long long)self->other, (unsigned long long)self->errors,
           (unsigned long long)self->silences);
    if (self->error_text[0]) {
        printf("last error: %s\n", self->error_text);
    }
}

void dkt_bench_report(const dkt_bench_t *self)
{
    dkt_bench_settings_t settings;
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
