/* SPDX-License-Identifier: Apache-2.0
 *
 * Times the decisions of the slot ledger: gold fills an empty tenant (admit), the full one says no
 * (refuse), everything is cancelled in another order (cancel). Beside it the same decisions on a
 * plain table of lanes that is scanned from the first minute on, which is what the admission query
 * does without an index; a cancel there scans for the ticket. A scan of 1,000 resolvers takes long,
 * so it is timed at evenly spaced fillings instead of at each: the mean is the same.
 */
#include "ops/bench_ledger.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/core/ledger.h"

#define EPOCH_MINUTE  29000000 /* simulated time starts in 2025 */
#define GOLD          0
#define GOLD_SLOTS    119 /* minutes one resolver can promise to gold at once */
#define ROUNDS_MAX    21  /* the median of them is told */
#define OPS_PER_ROUND 20000
#define REFUSALS      1000
#define CANCEL_STRIDE 7919 /* a prime: cancels jump about */
#define SCAN_SAMPLES  119  /* fillings, in each of which a scan is timed */
#define SCAN_REPEATS  16   /* the clock itself costs some 25 ns */
#define NS_PER_S      1000000000.0

const char *const dkt_ledger_op_names[DKT_LEDGER_OP_COUNT] = {"admit", "cancel", "refuse"};
const uint16_t dkt_ledger_tenants[DKT_LEDGER_TENANTS] = {1, 1000};

static double s_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * NS_PER_S + (double)now.tv_nsec;
}

/* -- the ledger ----------------------------------------------------------------------------------
 */

static const int64_t s_start_ms = (int64_t)EPOCH_MINUTE * DKT_MINUTE_MS;

static bool s_ledger_admit(void *self, uint64_t ticket)
{
    dkt_place_t place;
    int64_t deadline_ms;
    dkt_moves_t moves;
    return dkt_ledger_admit(self, s_start_ms, GOLD, ticket, &place, &deadline_ms, &moves) ==
           DKT_VERDICT_YES;
}

static void s_ledger_cancel(void *self, uint64_t ticket)
{
    if (!dkt_ledger_cancel(self, s_start_ms, ticket)) {
        abort(); /* the bench would measure something else */
    }
}

static void s_round(dkt_ledger_t *ledger, uint32_t slots, uint64_t *ticket,
                    dkt_ledger_times_t *times)
{
    double admit_ns = 0, refuse_ns = 0, cancel_ns = 0;
    uint32_t done = 0, refused = 0;
    while (done < OPS_PER_ROUND) {
        uint64_t first = *ticket;
        double start = s_now_ns();
        for (uint32_t i = 0; i < slots; i++) {
            if (!s_ledger_admit(ledger, (*ticket)++)) {
                abort(); /* an empty tenant has exactly so many slots */
            }
        }
        double full = s_now_ns();
        for (uint32_t i = 0; i < REFUSALS; i++) {
            refused += !s_ledger_admit(ledger, *ticket);
        }
        double told = s_now_ns();
        for (uint64_t i = 0, at = 0; i < slots; i++, at = (at + CANCEL_STRIDE) % slots) {
            s_ledger_cancel(ledger, first + at);
        }
        cancel_ns += s_now_ns() - told;
        refuse_ns += told - full;
        admit_ns += full - start;
        done += slots;
    }
    times->ns[DKT_LEDGER_ADMIT] = admit_ns / done;
    times->ns[DKT_LEDGER_CANCEL] = cancel_ns / done;
    times->ns[DKT_LEDGER_REFUSE] = refuse_ns / refused;
}

static int s_compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

static void s_median(const dkt_ledger_times_t *rounds, uint32_t count, dkt_ledger_times_t *median)
{
    double sorted[ROUNDS_MAX];
    for (uint32_t op = 0; op < DKT_LEDGER_OP_COUNT; op++) {
        for (uint32_t i = 0; i < count; i++) {
            sorted[i] = rounds[i].ns[op];
        }
        qsort(sorted, count, sizeof sorted[0], s_compare);
        median->ns[op] = sorted[count / 2];
    }
}

/* -- the naive scan ---------------------------------------------------------------------------- */

/* Minute after minute, all lanes of each; 0: free. The address of the slot, or NULL. */
static uint64_t *s_scan_for(uint64_t *slots, uint32_t count, uint64_t wanted)
{
    for (uint32_t i = 0; i < count; i++) {
        if (slots[i] == wanted) {
            return &slots[i];
        }
    }
    return NULL;
}

/* Mean time of finding `wanted` (a free slot, or a ticket) and of writing there. */
static double s_scan_time(uint64_t *slots, uint32_t count, uint64_t wanted)
{
    double start = s_now_ns();
    for (int i = 0; i < SCAN_REPEATS; i++) {
        uint64_t *slot = s_scan_for(slots, count, wanted);
        if (slot) {
            *slot = wanted;
        }
        __asm__ volatile("" ::: "memory"); /* each one anew */
    }
    return (s_now_ns() - start) / SCAN_REPEATS;
}

static void s_scan(uint64_t *slots, uint32_t count, dkt_ledger_times_t *times)
{
    uint32_t filled = 0;
    *times = (dkt_ledger_times_t){0};
    for (uint32_t sample = 0; sample < SCAN_SAMPLES; sample++) {
        while (filled < (uint64_t)count * sample / SCAN_SAMPLES) {
            slots[filled] = filled + 1;
            filled++;
        }
        times->ns[DKT_LEDGER_ADMIT] += s_scan_time(slots, count, 0) / SCAN_SAMPLES;
    }
    while (filled < count) {
        slots[filled] = filled + 1;
        filled++;
    }
    for (uint32_t sample = 0; sample < SCAN_SAMPLES; sample++) {
        uint64_t ticket = (uint64_t)count * sample / SCAN_SAMPLES + 1;
        times->ns[DKT_LEDGER_CANCEL] += s_scan_time(slots, count, ticket) / SCAN_SAMPLES;
    }
    times->ns[DKT_LEDGER_REFUSE] = s_scan_time(slots, count, 0);
}

/* -- both -------------------------------------------------------------------------------------- */

bool dkt_ledger_measure(uint16_t resolvers, uint32_t rounds, dkt_ledger_times_t *ledger_times,
                        dkt_ledger_times_t *scan_times)
{
    dkt_ledger_times_t times[ROUNDS_MAX];
    dkt_settings_t settings;
    uint64_t ticket = 1;
    uint32_t count = (uint32_t)GOLD_SLOTS * resolvers;
    rounds = rounds < ROUNDS_MAX ? rounds : ROUNDS_MAX;
    dkt_settings_default(&settings, resolvers);
    dkt_ledger_t *ledger = dkt_ledger_new(&settings, s_start_ms);
    uint64_t *slots = calloc(count, sizeof *slots);
    bool ready = ledger && slots;
    if (ready) {
        dkt_ledger_load_done(ledger, s_start_ms, NULL, NULL);
        for (uint32_t i = 0; i < rounds; i++) {
            s_round(ledger, count, &ticket, &times[i]);
        }
        s_median(times, rounds, ledger_times);
        s_scan(slots, count, scan_times);
    } else {
        fprintf(stderr, "docket bench ledger: no memory\n");
    }
    free(slots);
    dkt_ledger_destroy(&ledger);
    return ready;
}

/* -- the command ------------------------------------------------------------------------------- */

static void s_print(bool json, uint32_t tenant, const dkt_ledger_times_t *ledger,
                    const dkt_ledger_times_t *scan)
{
    for (uint32_t op = 0; op < DKT_LEDGER_OP_COUNT; op++) {
        if (json) {
            printf("%s\n {\"resolvers\":%u,\"op\":\"%s\",\"ledger_ns\":%.1f,\"scan_ns\":%.1f}",
                   tenant + op ? "," : "", dkt_ledger_tenants[tenant], dkt_ledger_op_names[op],
                   ledger->ns[op], scan->ns[op]);
        } else {
            printf("%9u  %-7s %10.1f %12.1f %9.1fx\n", dkt_ledger_tenants[tenant],
                   dkt_ledger_op_names[op], ledger->ns[op], scan->ns[op],
                   scan->ns[op] / ledger->ns[op]);
        }
    }
}

static void s_usage(FILE *out)
{
    fprintf(
        out,
        "usage: docket bench ledger [--json]\n\n"
        "Nanoseconds per decision of the slot ledger, with one resolver and with 1,000, beside\n"
        "a naive scan of the minutes' lanes. Gold fills an empty tenant (admit), the full one\n"
        "refuses (refuse), all is cancelled in another order (cancel); rebooking is on and\n"
        "nothing is moved. The median of %d rounds.\n\n"
        "  --json  the figures as JSON instead of a table\n\n"
        "Exit status: 0 done, 1 failed, 2 wrong use.\n",
        ROUNDS_MAX);
}

/* -1: go on; otherwise the exit status. */
static int s_parse(int argc, char **argv, bool *json)
{
    static const struct option longs[] = {
        {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    int letter;
    optind = 0;
    while ((letter = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
        if (letter == 'j') {
            *json = true;
        } else {
            s_usage(letter == 'h' ? stdout : stderr);
            return letter == 'h' ? 0 : 2;
        }
    }
    if (optind < argc) {
        s_usage(stderr);
        return 2;
    }
    return -1;
}

int dkt_bench_ledger_main(int argc, char **argv)
{
    bool json = false;
    int status = s_parse(argc, argv, &json);
    if (status >= 0) {
        return status;
    }
    printf(json ? "{\"operations\":[" : "resolvers  op       ledger ns      scan ns     ratio\n");
    for (uint32_t i = 0; i < DKT_LEDGER_TENANTS; i++) {
        dkt_ledger_times_t ledger, scan;
        if (!dkt_ledger_measure(dkt_ledger_tenants[i], ROUNDS_MAX, &ledger, &scan)) {
            return 1;
        }
        s_print(json, i, &ledger, &scan);
    }
    if (json) {
        printf("\n]}\n");
    }
    return 0;
}
