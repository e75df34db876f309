/* SPDX-License-Identifier: Apache-2.0
 *
 * The live view of the demo: a row per company and totals. On a terminal it is redrawn in place;
 * elsewhere a line of totals comes now and then.
 */
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "ops/demo.h"
#include "ops/result.h"

#define S_DRAW_TTY_MS    200
#define S_DRAW_PLAIN_MS  5000
#define S_BAR_CELLS      10
#define S_BAR_BYTES      (S_BAR_CELLS * 3 + 1)
#define S_PROGRESS_CELLS 30
#define S_FIXED_ROWS     8 /* title, head, totals, and room for the cursor */
#define S_ROWS_DEFAULT   40
#define S_GOLD_MINUTES   120
#define S_MS_PER_US      1000.0
#define S_P50            5000
#define S_P99            9900

void dkt_view_bar(bool utf8, double share, size_t cells, char *out)
{
    share = share < 0 ? 0 : share > 1 ? 1 : share;
    size_t full = (size_t)(share * (double)cells + 0.5);
    full = full == 0 && share > 0 ? 1 : full;
    for (size_t i = 0; i < cells; i++) {
        const char *cell = i < full ? (utf8 ? "\u2588" : "#") : (utf8 ? "\u00b7" : ".");
        size_t len = strlen(cell);
        memcpy(out, cell, len);
        out += len;
    }
    *out = '\0';
}

void dkt_view_progress(const dkt_demo_t *self, const char *label, size_t done, size_t all)
{
    char bar[S_PROGRESS_CELLS * 3 + 1];
    if (!self->tty) {
        if (done == all) {
            printf("%s: %zu\n", label, done);
            fflush(stdout);
        }
        return;
    }
    dkt_view_bar(self->utf8, all ? (double)done / (double)all : 1, S_PROGRESS_CELLS, bar);
    printf("\r%s %zu/%zu %s\033[K%s", bar, done, all, label, done == all ? "\n" : "");
    fflush(stdout);
}

void dkt_view_open(dkt_demo_t *self)
{
    self->started_ms = self->drawn_ms = dkt_mono_ms();
    self->drawn_answers = self->answers;
    if (self->tty) {
        printf("\033[?25l\033[2J");
    }
}

void dkt_view_close(dkt_demo_t *self)
{
    if (self->tty) {
        printf("\033[?25h\n");
        fflush(stdout);
    }
}

static size_t s_rows(void)
{
    struct winsize size;
    size_t rows = S_ROWS_DEFAULT;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > S_FIXED_ROWS) {
        rows = size.ws_row;
    }
    return rows - S_FIXED_ROWS;
}

/* How much of the next two hours is promised, as far as acknowledged. */
static double s_utilisation(const dkt_demo_company_t *company, int64_t now_ms)
{
    int64_t minute = now_ms / DKT_MINUTE_MS + 1;
    uint32_t booked = 0;
    for (int64_t i = 0; i < S_GOLD_MINUTES; i++) {
        booked += company->booked[(minute + i) % DKT_DEMO_MINUTES];
    }
    double share = (double)booked / (S_GOLD_MINUTES * (double)company->resolvers);
    return share < 1 ? share : 1;
}

static void s_draw_company(const dkt_demo_t *self, const dkt_demo_company_t *company,
                           int64_t now_ms, const char *end)
{
    char accepted[S_BAR_BYTES], refused[S_BAR_BYTES], used[S_BAR_BYTES];
    double all = (double)(company->accepted + company->refused);
    double share = s_utilisation(company, now_ms);
    dkt_view_bar(self->utf8, all > 0 ? (double)company->accepted / all : 0, S_BAR_CELLS, accepted);
    dkt_view_bar(self->utf8, all > 0 ? (double)company->refused / all : 0, S_BAR_CELLS, refused);
    dkt_view_bar(self->utf8, share, S_BAR_CELLS, used);
    printf("%-18.18s %3u  %s %6llu  %s %6llu  %6llu %6llu  %s %3.0f %%%s\n", company->title,
           company->resolvers, accepted, (unsigned long long)company->accepted, refused,
           (unsigned long long)company->refused, (unsigned long long)company->cancelled,
           (unsigned long long)company->resolved, used, share * 100, end);
}

static dkt_demo_company_t s_sum(const dkt_demo_t *self)
{
    dkt_demo_company_t sum = {0};
    for (size_t i = 0; i < self->company_count; i++) {
        sum.accepted += self->companies[i].accepted;
        sum.refused += self->companies[i].refused;
        sum.cancelled += self->companies[i].cancelled;
        sum.resolved += self->companies[i].resolved;
    }
    return sum;
}

static void s_draw_totals(const dkt_demo_t *self, int64_t now_ms, const char *end)
{
    dkt_demo_company_t sum = s_sum(self);
    printf("%3lld s  %llu accepted, %llu refused, %llu cancelled, %llu resolved, %llu held%s\n",
           (long long)((now_ms - self->started_ms) / 1000), (unsigned long long)sum.accepted,
           (unsigned long long)sum.refused, (unsigned long long)sum.cancelled,
           (unsigned long long)sum.resolved, (unsigned long long)self->holds, end);
    printf("       %.0f answers/s, p50 %.1f ms, p99 %.1f ms, %llu errors, %llu without answer%s\n",
           self->answers_per_s, (double)dkt_histogram_at(&self->latency, S_P50) / S_MS_PER_US,
           (double)dkt_histogram_at(&self->latency, S_P99) / S_MS_PER_US,
           (unsigned long long)self->errors, (unsigned long long)self->silences, end);
}

static void s_draw_companies(const dkt_demo_t *self, size_t rows, const char *end)
{
    int64_t now_ms = dkt_unix_ms();
    printf("%-18s %3s  %-17s  %-17s  %6s %6s  %s%s\n", "company", "res", "accepted", "refused",
           "cancel", "solved", "next 2 h", end);
    for (size_t i = 0; i < self->company_count && i < rows; i++) {
        s_draw_company(self, &self->companies[i], now_ms, end);
    }
    if (self->company_count > rows) {
        printf("and %zu more companies%s\n", self->company_count - rows, end);
    }
}

void dkt_view_draw(dkt_demo_t *self, bool force)
{
    int64_t now_ms = dkt_mono_ms(), since_ms = now_ms - self->drawn_ms;
    if (!force && since_ms < (self->tty ? S_DRAW_TTY_MS : S_DRAW_PLAIN_MS)) {
        return;
    }
    if (since_ms >= S_DRAW_TTY_MS && !self->draining) {
        double now_per_s = (double)(self->answers - self->drawn_answers) * 1000 / (double)since_ms;
        self->answers_per_s =
            self->answers_per_s > 0 ? 0.8 * self->answers_per_s + 0.2 * now_per_s : now_per_s;
    }
    self->drawn_ms = now_ms;
    self->drawn_answers = self->answers;
    if (self->tty) {
        printf("\033[H docket: a ticket is created only if its service level can be "
               "guaranteed\033[K\n\033[K\n");
        s_draw_companies(self, s_rows(), "\033[K");
        printf("\033[K\n");
        s_draw_totals(self, now_ms, "\033[K");
        printf("\033[J");
    } else {
        if (force) {
            s_draw_companies(self, self->company_count, "");
        }
        s_draw_totals(self, now_ms, "");
    }
    fflush(stdout);
}
