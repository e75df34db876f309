/* SPDX-License-Identifier: Apache-2.0
 *
 * docket bench [all | p1 .. p10]: every scenario in one command, with a fleet and peers of its own,
 * which are gone at its end, however it ends. This file: options, the order, the end.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/bench.h"
#include "ops/cmd.h"
#include "ops/result.h"

#define S_MINUTE_MS 60000
#define S_LEAP_FROM_MS                                                                             \
    45000 /* of a minute: P9 in small waits for its end, so it goes first then                     \
           */
#define S_LEAP_TO_MS 56000
#define S_P9         8
#define S_PATH_BYTES 512

const dkt_scenario_t dkt_scenarios[DKT_BENCH_SCENARIOS] = {
    {"P1", "durable create_ticket, many in flight, relay on",
     "the obvious design as a function inside PostgreSQL, best of 4, 16, 64 connections",
     dkt_bench_p1},
    {"P2", "durable create_ticket, many in flight",
     "a Lua script inside Redis, appendfsync always, 64 connections, pipeline 16", dkt_bench_p2},
    {"P3", "decisions that write nothing", "a bare chain of the same sockets that echoes",
     dkt_bench_p3},
    {"P4", "one create_ticket at a time", "the bare chain and the commit of one row", dkt_bench_p4},
    {"P5", "CPU of a request with many active tenants", "itself with few", dkt_bench_p5},
    {"P6", "memory of an active tenant in the worker, and its activation", "fixed limits",
     dkt_bench_p6},
    {"P7", "decisions of the ledger, one resolver and 1,000", "a naive scan of the minutes",
     dkt_bench_p7},
    {"P8", "a tenant that floods", "the others' p99 without it", dkt_bench_p8},
    {"P9", "second 0 of each minute, when every tenant dispatches", "the rest of the minute",
     dkt_bench_p9},
    {"P10", "a second worker", "CPU of a request with one", dkt_bench_p10},
};

/* Indexes above. What leaves most tickets behind comes last: they are dispatched minute by minute,
 * beside whatever is measured then. P6 wants a worker without tenants, and P9 the tenants of P5. */
static const int s_order[DKT_BENCH_SCENARIOS] = {6, 5, 3, 2, 0, 1, 9, 7, 4, 8};

static const dkt_bench_sizes_t s_full = {
    .rounds = 5,
    .warm_up_ms = 1000,
    .run_ms = 3000,
    .in_flight = 2048,
    .some_in_flight = 8000,
    .chain_in_flight = 1000,
    .wide_resolvers = 1024,
    .some_tenants = 100,
    .some_resolvers = 64,
    .levels = {10, 100, 1000},
    .activations = 200,
    .ledger_rounds = 21,
    .others = 10,
    .others_rate = 500,
    .minutes = 3,
    .minute_tenants = 1000,
    .minute_rate = 500,
    .split_tenants = 64,
    .log_segments = 60, /* and a few to spare are the cluster's min_wal_size */
};

static const dkt_bench_sizes_t s_quick = {
    .rounds = 1,
    .warm_up_ms = 100,
    .run_ms = 300,
    .in_flight = 256,
    .some_in_flight = 256,
    .chain_in_flight = 200,
    .wide_resolvers = 128,
    .some_tenants = 4,
    .some_resolvers = 64,
    .levels = {2, 4, 8},
    .activations = 4,
    .ledger_rounds = 3,
    .others = 4,
    .others_rate = 200,
    .minutes = 1,
    .minute_tenants = 8,
    .minute_rate = 200,
    .split_tenants = 4,
    .keep_fleet = true,
};

static volatile sig_atomic_t s_stop;

static void s_on_signal(int number)
{
    (void)number;
    s_stop = 1;
}

bool dkt_suite_stopped(void)
{
    return s_stop != 0;
}

/* -- options ---------------------------------------------------------------------------------- */

static void s_usage(FILE *out, const char *name)
{
    fprintf(out,
            "usage: docket bench %s [--quick] [--rounds N] [--out DIR] [--json] [MORE NAMES]\n"
            "Measures docket beside its peers on this machine, with a fleet, a PostgreSQL and a\n"
            "Redis of its own, which are gone afterwards. Settings are durable always. Peer and\n"
            "docket take turns; figures are medians of the rounds.\n\n",
            name);
    for (int i = 0; i < DKT_BENCH_SCENARIOS; i++) {
        if (strcasecmp(name, "all") == 0 || strcasecmp(name, dkt_scenarios[i].id) == 0) {
            fprintf(out, "  %-4s %s;\n       against %s\n", dkt_scenarios[i].id,
                    dkt_scenarios[i].title, dkt_scenarios[i].against);
        }
    }
    fprintf(out,
            "\n  --quick     small sizes: does everything work? Its figures say little\n"
            "  --rounds N  turns of each side, default %d (quick: %d), at most %d\n"
            "  --out DIR   writes bench.txt, bench.json and bench.svg there\n"
            "  --json      JSON instead of the table\n\n"
            "Exit status: 0 all ran, whether a goal was met or not; 1 something could not run, or\n"
            "a check failed; 2 wrong use.\n",
            s_full.rounds, s_quick.rounds, DKT_BENCH_ROUNDS_MAX);
}

/* Marks a scenario, or all of them, by name. */
static bool s_ask_for(dkt_suite_t *suite, const char *name)
{
    bool all = strcasecmp(name, "all") == 0, known = all;
    for (int i = 0; i < DKT_BENCH_SCENARIOS; i++) {
        bool named = all || strcasecmp(name, dkt_scenarios[i].id) == 0;
        suite->outcomes[i].asked |= named;
        known |= named;
    }
    return known;
}

/* -1: go on; otherwise the exit status. */
static int s_parse(int argc, char **argv, const char *name, dkt_suite_t *suite)
{
    static const struct option longs[] = {
        {"quick", no_argument, NULL, 'q'},        {"json", no_argument, NULL, 'j'},
        {"rounds", required_argument, NULL, 'r'}, {"out", required_argument, NULL, 'o'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0},
    };
    int letter, rounds = 0;
    optind = 0;
    while ((letter = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
        suite->quick |= letter == 'q';
        suite->json |= letter == 'j';
        if (letter == 'r') {
            rounds = atoi(optarg);
        } else if (letter == 'o') {
            suite->out = optarg;
        } else if (letter == 'h' || letter == '?') {
            s_usage(letter == 'h' ? stdout : stderr, name);
            return letter == 'h' ? 0 : 2;
        }
        if (letter == 'r' && (rounds < 1 || rounds > DKT_BENCH_ROUNDS_MAX)) {
            fprintf(stderr, "docket bench: --rounds is a number from 1 to %d\n",
                    DKT_BENCH_ROUNDS_MAX);
            return 2;
        }
    }
    for (int i = optind; i < argc; i++) {
        if (!s_ask_for(suite, argv[i])) {
            fprintf(stderr, "docket bench: there is no scenario %s\n", argv[i]);
            return 2;
        }
    }
    suite->sizes = suite->quick ? s_quick : s_full;
    suite->sizes.rounds = rounds ? rounds : suite->sizes.rounds;
    return -1;
}

/* -- scenarios -------------------------------------------------------------------------------- */

static void s_close_all(dkt_suite_t *suite)
{
    dkt_plpgsql_close(&suite->plpgsql);
    dkt_redis_close(&suite->redis);
    for (size_t i = 0; i < sizeof suite->stages / sizeof suite->stages[0]; i++) {
        dkt_stage_close(&suite->stages[i]);
    }
}

static void s_run_one(dkt_suite_t *suite, int index)
{
    dkt_outcome_t *outcome = &suite->outcomes[index];
    int64_t start_ms = dkt_mono_ms();
    suite->scenario = index;
    dkt_progress(suite, "starts", 0, 1);
    outcome->ran = dkt_scenarios[index].run(suite, outcome) && !dkt_suite_stopped();
    if (outcome->ran) {
        dkt_outcome_check(outcome, outcome->errors == 0, "every request was answered",
                          "%llu were not", (unsigned long long)outcome->errors);
    }
    outcome->seconds = (double)(dkt_mono_ms() - start_ms) / 1000.0;
    suite->scenarios_done++;
    dkt_progress_scenario(suite, outcome);
    /* In a real run each finds a fleet without tickets of others; P9 goes on with the tenants of
     * P5. After a failure nobody knows what is left. */
    bool keep = suite->sizes.keep_fleet || s_order[DKT_BENCH_SCENARIOS - 2] == index;
    if (!outcome->ran || !keep) {
        s_close_all(suite);
    }
}

/* Index of the next scenario; -1: all were run. */
static int s_next(const dkt_suite_t *suite, const bool *done)
{
    int64_t in_minute_ms = dkt_unix_ms() % S_MINUTE_MS;
    if (suite->sizes.minutes == 1 && suite->outcomes[S_P9].asked && !done[S_P9] &&
        in_minute_ms >= S_LEAP_FROM_MS && in_minute_ms < S_LEAP_TO_MS) {
        return S_P9;
    }
    for (int i = 0; i < DKT_BENCH_SCENARIOS; i++) {
        if (suite->outcomes[s_order[i]].asked && !done[s_order[i]]) {
            return s_order[i];
        }
    }
    return -1;
}

static void s_run_all(dkt_suite_t *suite)
{
    bool done[DKT_BENCH_SCENARIOS] = {false};
    for (int i = s_next(suite, done); i >= 0 && !dkt_suite_stopped(); i = s_next(suite, done)) {
        done[i] = true;
        s_run_one(suite, i);
    }
    s_close_all(suite);
}

/* -- the end ---------------------------------------------------------------------------------- */

typedef void(s_print_fn)(const dkt_suite_t *suite, FILE *out);

static bool s_write(const dkt_suite_t *suite, const char *name, s_print_fn *print)
{
    char path[S_PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", suite->out, name);
    FILE *out = fopen(path, "w");
    if (out) {
        print(suite, out);
    }
    if (!out || ferror(out) | fclose(out)) {
        fprintf(stderr, "docket bench: cannot write %s: %s\n", path, strerror(errno));
        return false;
    }
    return true;
}

static bool s_report(const dkt_suite_t *suite)
{
    bool good = true;
    for (int i = 0; i < DKT_BENCH_SCENARIOS; i++) {
        good = good && (!suite->outcomes[i].asked || dkt_outcome_good(&suite->outcomes[i]));
    }
    if (suite->json) {
        dkt_bench_print_json(suite, stdout);
    } else {
        dkt_bench_print_table(suite, stdout);
    }
    if (suite->out) {
        good = s_write(suite, "bench.txt", dkt_bench_print_table) && good;
        good = s_write(suite, "bench.json", dkt_bench_print_json) && good;
        good = s_write(suite, "bench.svg", dkt_bench_chart) && good;
    }
    return good;
}

static void s_catch_signals(void)
{
    const struct sigaction action = {.sa_handler = s_on_signal};
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    sigaction(SIGPIPE, &ignore, NULL); /* a reader that leaves must not leave servers behind */
}

int dkt_bench_suite_main(int argc, char **argv)
{
    static dkt_suite_t suite; /* its histograms are large */
    /* Without a name argv[0] is the group's own: all. */
    const char *name = strcmp(argv[0], "bench") == 0 ? "all" : argv[0];
    int parsed = s_ask_for(&suite, name) ? s_parse(argc, argv, name, &suite) : 2;
    if (parsed >= 0) {
        return parsed;
    }
    for (int i = 0; i < DKT_BENCH_SCENARIOS; i++) {
        suite.scenarios_asked += suite.outcomes[i].asked;
    }
    if (suite.out && mkdir(suite.out, 0755) != 0 && errno != EEXIST) {
        fprintf(stderr, "docket bench: cannot make %s: %s\n", suite.out, strerror(errno));
        return 2;
    }
    s_catch_signals();
    dkt_progress_open(&suite);
    suite.started_ms = dkt_unix_ms();
    suite.started_mono_ms = dkt_mono_ms();
    dkt_bench_machine(&suite.machine);
    s_run_all(&suite);
    suite.seconds = (double)(dkt_mono_ms() - suite.started_mono_ms) / 1000.0;
    dkt_progress_close(&suite);
    if (dkt_suite_stopped()) {
        fprintf(stderr, "docket bench: stopped\n");
        return 1;
    }
    return s_report(&suite) ? 0 : 1;
}
