/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of `docket bench [all | p1 .. p10]`, shared by these files only:
 *
 *   bench_suite.c       options, the order, the end
 *   bench_stage.c       a fleet of the bench's own and what is connected to it
 *   bench_through.c     P1, P2, P3: how many
 *   bench_latency.c     P4, P8, P9: how soon
 *   bench_scale.c       P5, P6, P7, P10: at what cost
 *   bench_outcome.c     figures, goals and checks of a scenario
 *   bench_print.c       table, JSON
 *   bench_chart.c       SVG
 *   bench_progress.c    what is under way, on stderr
 *
 * Sides alternate: in each round the peer is measured, then docket. All runs in one thread, but for
 * the flood of P8.
 */
#ifndef DKT_OPS_BENCH_H
#define DKT_OPS_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "ops/bench_load.h"
#include "ops/bench_machine.h"
#include "ops/bench_peers.h"
#include "ops/fleet.h"

#define DKT_BENCH_SCENARIOS   10
#define DKT_BENCH_ROUNDS_MAX  15
#define DKT_BENCH_FIGURES_MAX 40
#define DKT_BENCH_GOALS_MAX   8
#define DKT_BENCH_CHECKS_MAX  8
#define DKT_BENCH_LEVELS      3 /* of tenants, in P5 */

/* -- outcome ---------------------------------------------------------------------------------- */

/* One value for each round. */
typedef struct {
    double values[DKT_BENCH_ROUNDS_MAX];
    int count;
} dkt_series_t;

void dkt_series_add(dkt_series_t *self, double value);
double dkt_series_median(const dkt_series_t *self); /* 0 when empty */
/* Round by round, what the one was of the other. A machine whose speed drifts is the same machine
 * within a round, so the median of these says more than the ratio of two medians. */
dkt_series_t dkt_series_ratio(const dkt_series_t *self, const dkt_series_t *of);
dkt_series_t dkt_series_sum(const dkt_series_t *self, const dkt_series_t *other);
/* A single value. */
dkt_series_t dkt_series_one(double value);

typedef struct {
    char name[80];
    const char *unit; /* static */
    dkt_series_t series;
} dkt_figure_t;

typedef struct {
    char name[80];
    const char *unit;    /* static; "x" is a ratio */
    dkt_series_t series; /* its median is judged */
    double limit;
    bool at_most; /* else at least */
} dkt_goal_t;

typedef struct {
    char name[80], detail[160];
    bool ok;
} dkt_check_t;

/* What a scenario gave. */
typedef struct {
    bool asked, ran; /* ran: to its end */
    double seconds;
    char error[200];
    int figure_count, goal_count, check_count;
    uint64_t errors; /* requests that ended without an answer */
    dkt_figure_t figures[DKT_BENCH_FIGURES_MAX];
    dkt_goal_t goals[DKT_BENCH_GOALS_MAX];
    dkt_check_t checks[DKT_BENCH_CHECKS_MAX];
} dkt_outcome_t;

void dkt_outcome_figure(dkt_outcome_t *self, const char *unit, const dkt_series_t *series,
                        const char *format, ...) __attribute__((format(printf, 4, 5)));
/* The same of a single value. */
void dkt_outcome_value(dkt_outcome_t *self, const char *unit, double value, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void dkt_outcome_percentiles(dkt_outcome_t *self, const dkt_histogram_t *latency, const char *what);
void dkt_outcome_at_least(dkt_outcome_t *self, const char *name, const char *unit,
                          dkt_series_t series, double limit);
void dkt_outcome_at_most(dkt_outcome_t *self, const char *name, const char *unit,
                         dkt_series_t series, double limit);
void dkt_outcome_check(dkt_outcome_t *self, bool ok, const char *name, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The first reason why the scenario could not run; always false. */
bool dkt_outcome_fail(dkt_outcome_t *self, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
double dkt_goal_value(const dkt_goal_t *self);
bool dkt_goal_met(const dkt_goal_t *self);
/* Did it run to its end, and did every check hold? */
bool dkt_outcome_good(const dkt_outcome_t *self);

double dkt_percentile_ms(const dkt_histogram_t *latency, uint32_t permyriad);
#define DKT_P50  5000
#define DKT_P99  9900
#define DKT_P999 9990

/* -- the suite -------------------------------------------------------------------------------- */

/* How much is measured; one row for a real run, one for --quick. */
typedef struct {
    int rounds;
    int64_t warm_up_ms, run_ms;
    int in_flight;                /* of P1 and P2, one tenant */
    int some_in_flight;           /* of P1, of all of `some_tenants` together */
    int chain_in_flight;          /* of P3, on both sides */
    int wide_resolvers;           /* of a tenant that takes a whole round's tickets */
    int some_tenants;             /* the hundred of P1 */
    int some_resolvers;           /* of each of many tenants */
    int levels[DKT_BENCH_LEVELS]; /* tenants of P5; each divides the last */
    int activations;              /* tenants of P6 */
    int ledger_rounds;            /* of P7 */
    int others;                   /* tenants of P8 beside the flood */
    int others_rate;              /* their requests per second, all together */
    int minutes;                  /* of P9 */
    int minute_tenants, minute_rate;
    int split_tenants; /* of P10 */
    int log_segments;  /* of 16 MiB each, made before anything is measured */
    bool keep_fleet;   /* one fleet for all scenarios */
} dkt_bench_sizes_t;

/* A fleet and what is connected to it. */
typedef struct {
    bool open;
    dkt_fleet_t fleet;
    dkt_load_t load;
    dkt_load_set_t wide, many, single, cold;
    int wide_used;   /* tenants of `wide` that have tickets */
    PGconn *control; /* the control database */
    struct s_relay *relay;
} dkt_stage_t;

typedef struct dkt_suite {
    dkt_bench_sizes_t sizes;
    bool quick, json;
    const char *out;       /* folder, or NULL */
    dkt_stage_t stages[2]; /* with one worker, with two */
    dkt_plpgsql_t plpgsql;
    dkt_redis_t redis;
    dkt_bench_machine_t machine;
    dkt_bench_postgres_t postgres;
    char redis_version[32], appendfsync[16];
    int64_t started_ms, started_mono_ms;
    double seconds;
    dkt_load_result_t result; /* of the run under way: large */
    dkt_peer_result_t peer;
    dkt_outcome_t outcomes[DKT_BENCH_SCENARIOS];
    int scenario; /* index of the one under way */
    int scenarios_asked, scenarios_done;
    bool tty;
} dkt_suite_t;

typedef struct {
    const char *id, *title;
    const char *against;
    bool (*run)(dkt_suite_t *suite, dkt_outcome_t *outcome);
} dkt_scenario_t;

extern const dkt_scenario_t dkt_scenarios[DKT_BENCH_SCENARIOS];

bool dkt_suite_stopped(void);

bool dkt_bench_p1(dkt_suite_t *suite, dkt_outcome_t *outcome);
bool dkt_bench_p2(dkt_suite_t *suite, dkt_outcome_t *outcome);
bool dkt_bench_p3(dkt_suite_t *suite, dkt_outcome_t *outcome);
bool dkt_bench_p4(dkt_suite_t *suite, dkt_outcome_t *outcome);
bool dkt_bench_p5(dkt_suite_t *suite, dkt_outcome_t *outcome);
bool dkt_bench_p6(dkt_suite_t *suite, dkt_outcome_t *outcome);
bool dkt_bench_p7(dkt_suite_t *suite, dkt_outcome_t *outcome);
bool dkt_bench_p8(dkt_suite_t *suite, dkt_outcome_t *outcome);
bool dkt_bench_p9(dkt_suite_t *suite, dkt_outcome_t *outcome);
bool dkt_bench_p10(dkt_suite_t *suite, dkt_outcome_t *outcome);

/* -- stage ------------------------------------------------------------------------------------ */

/* The fleet with so many workers, started if it does not run. NULL: it failed. */
dkt_stage_t *dkt_stage_open(dkt_suite_t *suite, int workers, dkt_outcome_t *outcome);
void dkt_stage_close(dkt_stage_t *stage);
/* PostgreSQL as a peer: in the fleet's own server. */
bool dkt_stage_plpgsql(dkt_suite_t *suite, dkt_outcome_t *outcome);
bool dkt_stage_redis(dkt_suite_t *suite, dkt_outcome_t *outcome);
/* The first `count` tenants of a set are there, active, and have tokens. */
bool dkt_stage_tenants(dkt_stage_t *stage, dkt_load_set_t *set, int count, dkt_outcome_t *outcome);
/* Waits until the fleet has its ready-made databases: making them costs what is measured. */
void dkt_stage_quiet(dkt_stage_t *stage);
/* One that nobody has asked for anything, with room for a whole round; NULL: it failed. */
dkt_load_tenant_t *dkt_stage_wide(dkt_stage_t *stage, dkt_outcome_t *outcome);
/* A run of the suite's lengths into suite->result. */
bool dkt_stage_run(dkt_suite_t *suite, dkt_stage_t *stage, dkt_load_plan_t *plan,
                   dkt_outcome_t *outcome);
/* Waits until the relay has published everything; rows that were behind, and how long it took. */
typedef struct {
    dkt_series_t lag_rows, drain_s;
    bool failed;
} dkt_relay_watch_t;
void dkt_stage_settle(dkt_stage_t *stage, dkt_relay_watch_t *watch);
/* Every acknowledged ticket of the set is a row, and no slot carries two. */
void dkt_stage_check_rows(dkt_stage_t *stage, const dkt_load_set_t *set, dkt_outcome_t *outcome);
/* Of the first worker, from its pid file; 0: there is none. */
int dkt_stage_worker_pid(const dkt_stage_t *stage);
/* CPU time of a request in the fleet, without the bench itself. */
double dkt_stage_cpu_us(const dkt_load_result_t *result);

/* -- output ----------------------------------------------------------------------------------- */

void dkt_progress_open(dkt_suite_t *suite);
/* What is done now, in the scenario under way; `done` of `all` of its steps. */
void dkt_progress(dkt_suite_t *suite, const char *what, int done, int all);
void dkt_progress_scenario(dkt_suite_t *suite, const dkt_outcome_t *ended);
void dkt_progress_close(dkt_suite_t *suite);

void dkt_bench_print_table(const dkt_suite_t *suite, FILE *out);
void dkt_bench_print_json(const dkt_suite_t *suite, FILE *out);
void dkt_bench_chart(const dkt_suite_t *suite, FILE *out);

#endif
