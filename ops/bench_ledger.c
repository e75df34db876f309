/* SPDX-License-Identifier: Apache-2.0
 *
 * Times the decisions of the slot ledger: gold fills an empty tenant (admit), the full one says no
 * (refuse), everything is cancelled in another order (cancel). Beside it the same work on a plain
 * table of lanes that is scanned from the first minute on, which is what the admission query does
 * without an index; a cancel there scans for the ticket.
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

#define EPOCH_MINUTE     29000000 /* simulated time starts in 2025 */
#define GOLD             0
#define GOLD_SLOTS       119 /* minutes one resolver can promise to gold at once */
#define ROUNDS           21  /* the median of them is told */
#define SCAN_ROUNDS_SLOW 1   /* 1,000 resolvers scanned: seconds a round */
#define OPS_PER_ROUND    20000
#define REFUSALS         1000
#define CANCEL_STRIDE    7919 /* a prime: cancels jump about */
#define NS_PER_S         1000000000.0
#define OP_COUNT         3
#define TENANT_COUNT     2

typedef enum { OP_ADMIT, OP_CANCEL, OP_REFUSE } s_op_t;

static const char *const s_op_names[OP_COUNT] = {"admit", "cancel", "refuse"};

/* The tenants that are timed, small and large. */
static const struct {
    uint16_t resolvers;
    uint32_t scan_rounds;
} s_tenants[TENANT_COUNT] = {{1, ROUNDS}, {1000, SCAN_ROUNDS_SLOW}};

/* What a side of the comparison can do; `self` is its own. */
typedef struct {
    bool (*admit)(void *self, uint64_t ticket);
    void (*cancel)(void *self, uint64_t ticket);
} s_side_t;

typedef struct {
    double ns[OP_COUNT];
} s_times_t;

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

static const s_side_t s_ledger_side = {s_ledger_admit, s_ledger_cancel};

/* -- the naive scan ------------------------------------------------------------------------------
 */

typedef struct {
    uint16_t resolvers;
    uint64_t tickets[]; /* minute after minute, `resolvers` lanes each; 0: free */
} s_scan_t;

static bool s_scan_admit(void *self, uint64_t ticket)
{
    s_scan_t *scan = self;
    size_t lane_count = (size_t)GOLD_SLOTS * scan->resolvers;
    for (size_t i = 0; i < lane_count; i++) {
        if (scan->tickets[i] == 0) {
            scan->tickets[i] = ticket;
            return true;
        }
    }
    return false;
}

static void s_scan_cancel(void *self, uint64_t ticket)
{
    s_scan_t *scan = self;
    size_t i = 0;
    while (scan->tickets[i] != ticket) {
        i++;
    }
    scan->tickets[i] = 0;
}

static const s_side_t s_scan_side = {s_scan_admit, s_scan_cancel};

/* -- one round: fill, refuse, empty --------------------------------------------------------------
 */

static void s_round(const s_side_t *side, void *self, uint32_t slots, uint32_t ops,
                    uint64_t *ticket, s_times_t *times)
{
    double admit_ns = 0, refuse_ns = 0, cancel_ns = 0;
    uint32_t done = 0, refused = 0;
    while (done < ops) {
        uint64_t first = *ticket;
        double start = s_now_ns();
        for (uint32_t i = 0; i < slots; i++) {
            if (!side->admit(self, (*ticket)++)) {
                abort(); /* an empty tenant has exactly so many slots */
            }
        }
        double full = s_now_ns();
        for (uint32_t i = 0; i < REFUSALS; i++) {
            refused += !side->admit(self, *ticket);
        }
        double told = s_now_ns();
        for (uint64_t i = 0, at = 0; i < slots; i++, at = (at + CANCEL_STRIDE) % slots) {
            side->cancel(self, first + at);
        }
        cancel_ns += s_now_ns() - told;
        refuse_ns += told - full;
        admit_ns += full - start;
        done += slots;
    }
    times->ns[OP_ADMIT] = admit_ns / done;
    times->ns[OP_CANCEL] = cancel_ns / done;
    times->ns[OP_REFUSE] = refuse_ns / refused;
}

static int s_compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

static void s_median(s_times_t *rounds, uint32_t count, s_times_t *median)
{
    double sorted[ROUNDS];
    for (uint32_t op = 0; op < OP_COUNT; op++) {
        for (uint32_t i = 0; i < count; i++) {
            sorted[i] = rounds[i].ns[op];
        }
        qsort(sorted, count, sizeof sorted[0], s_compare);
        median->ns[op] = sorted[count / 2];
    }
}

/* -- the command ---------------------------------------------------------------------------------
 */

static void s_time(const s_side_t *side, void *self, uint16_t resolvers, uint32_t rounds,
                   s_times_t *median)
{
    s_times_t times[ROUNDS];
    uint64_t ticket = 1;
    uint32_t slots = (uint32_t)GOLD_SLOTS * resolvers;
    for (uint32_t i = 0; i < rounds; i++) {
        s_round(side, self, slots, rounds > 1 ? OPS_PER_ROUND : 1, &ticket, &times[i]);
    }
    s_median(times, rounds, median);
}

static bool s_measure(uint16_t resolvers, uint32_t scan_rounds, s_times_t *ledger_ns,
                      s_times_t *scan_ns)
{
    dkt_settings_t settings;
    dkt_settings_default(&settings, resolvers);
    dkt_ledger_t *ledger = dkt_ledger_new(&settings, s_start_ms);
    s_scan_t *scan =
        calloc(1, sizeof *scan + sizeof scan->tickets[0] * GOLD_SLOTS * (size_t)resolvers);
    bool ready = ledger && scan;
    if (ready) {
        dkt_ledger_load_done(ledger, s_start_ms, NULL, NULL);
        s_time(&s_ledger_side, ledger, resolvers, ROUNDS, ledger_ns);
        scan->resolvers = resolvers;
        s_time(&s_scan_side, scan, resolvers, scan_rounds, scan_ns);
    } else {
        fprintf(stderr, "docket bench ledger: no memory\n");
    }
    free(scan);
    dkt_ledger_destroy(&ledger);
    return ready;
}

static void s_print(bool json, uint32_t tenant, const s_times_t *ledger, const s_times_t *scan)
{
    for (uint32_t op = 0; op < OP_COUNT; op++) {
        if (json) {
            printf("%s\n {\"resolvers\":%u,\"op\":\"%s\",\"ledger_ns\":%.1f,\"scan_ns\":%.1f}",
                   tenant + op ? "," : "", s_tenants[tenant].resolvers, s_op_names[op],
                   ledger->ns[op], scan->ns[op]);
        } else {
            printf("%9u  %-7s %10.1f %12.1f %9.1fx\n", s_tenants[tenant].resolvers, s_op_names[op],
                   ledger->ns[op], scan->ns[op], scan->ns[op] / ledger->ns[op]);
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
        "nothing is moved. The median of %d rounds (the scan of 1,000 resolvers: %d).\n\n"
        "  --json  the figures as JSON instead of a table\n\n"
        "Exit status: 0 done, 1 failed, 2 wrong use.\n",
        ROUNDS, SCAN_ROUNDS_SLOW);
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
    for (uint32_t i = 0; i < TENANT_COUNT; i++) {
        s_times_t ledger, scan;
        if (!s_measure(s_tenants[i].resolvers, s_tenants[i].scan_rounds, &ledger, &scan)) {
            return 1;
        }
        s_print(json, i, &ledger, &scan);
    }
    if (json) {
        printf("\n]}\n");
    }
    return 0;
}
