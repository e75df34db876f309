/* SPDX-License-Identifier: Apache-2.0
 *
 * P5, P6, P7, P10: what a request, a tenant, a decision, a second worker cost.
 */
#include <poll.h>
#include <signal.h>
#include <string.h>

#include "ops/bench.h"
#include "ops/bench_cpu.h"
#include "ops/bench_ledger.h"
#include "ops/result.h"

#define S_PER_TENANT     16   /* requests in flight of each tenant */
#define S_P5_GOAL        1.3  /* times the CPU time with few tenants */
#define S_P6_KIB_GOAL    96.0 /* of an active tenant */
#define S_P6_MS_GOAL     15.0 /* of an activation */
#define S_P7_NS_GOAL     60.0
#define S_P10_GOAL       1.05 /* times the CPU time with one worker */
#define S_MORE_RESOLVERS 101  /* to tell what a lane costs */
#define S_LANE_MINUTES   480.0
#define S_RESTART_MS     30000
#define S_TICK_MS        20
#define S_BYTES_PER_KIB  1024.0
#define S_MS_PER_S       1000.0
#define S_US_PER_MS      1000.0
/* Four times what a worker activates at once, and all are answered within a budget. */
#define S_AWAKE_AT_A_TIME 64

/* -- P5 and P10 ------------------------------------------------------------------------------- */

/* So many tenants from `first` on, 16 in flight each. */
static bool s_load_tenants(dkt_suite_t *suite, dkt_stage_t *stage, int first, int tenants,
                           dkt_outcome_t *outcome)
{
    if (!dkt_stage_tenants(stage, &stage->many, first + tenants, outcome)) {
        return false;
    }
    dkt_load_plan_t plan = {.mode = DKT_LOAD_CREATE,
                            .tenants = stage->many.list + first,
                            .tenant_count = tenants,
                            .in_flight = tenants * S_PER_TENANT};
    return dkt_stage_run(suite, stage, &plan, outcome);
}

/* CPU time of a request of theirs. */
static bool s_cpu_round(dkt_suite_t *suite, dkt_stage_t *stage, int first, int tenants,
                        dkt_series_t *cpu_us, dkt_series_t *per_s, dkt_outcome_t *outcome)
{
    if (!s_load_tenants(suite, stage, first, tenants, outcome)) {
        return false;
    }
    dkt_series_add(cpu_us, dkt_stage_cpu_us(&suite->result));
    dkt_series_add(per_s, (double)dkt_load_answered(&suite->result) / suite->result.seconds);
    return true;
}

static void s_cpu_by_role(const dkt_suite_t *suite, int tenants, dkt_outcome_t *outcome)
{
    for (int role = DKT_BENCH_CPU_BROKER; role < DKT_BENCH_CPU_COUNT; role++) {
        dkt_outcome_value(outcome, "us",
                          suite->result.cpu.us[role] / (double)dkt_load_answered(&suite->result),
                          "tenants: %d, of it %s, last round", tenants, dkt_bench_cpu_names[role]);
    }
}

bool dkt_bench_p5(dkt_suite_t *suite, dkt_outcome_t *outcome)
{
    const int *levels = suite->sizes.levels;
    dkt_series_t cpu_us[DKT_BENCH_LEVELS] = {0}, per_s[DKT_BENCH_LEVELS] = {0};
    dkt_stage_t *stage = dkt_stage_open(suite, 1, outcome);
    /* Once all of them, not counted: the first statements of a session are parsed and planned,
     * which belongs to its activation and not to a request. */
    if (!stage || !s_load_tenants(suite, stage, 0, levels[DKT_BENCH_LEVELS - 1], outcome)) {
        return false;
    }
    for (int round = 0; round < suite->sizes.rounds; round++) {
        for (int i = 0; i < DKT_BENCH_LEVELS; i++) {
            dkt_progress(suite, "docket, few and many tenants", round, suite->sizes.rounds);
            /* Few tenants would be full after a few rounds: each round takes the next ones. */
            int first = round * levels[i] % levels[DKT_BENCH_LEVELS - 1];
            if (!s_cpu_round(suite, stage, first, levels[i], &cpu_us[i], &per_s[i], outcome)) {
                return false;
            }
            if (round == suite->sizes.rounds - 1) {
                s_cpu_by_role(suite, levels[i], outcome);
            }
        }
    }
    for (int i = 0; i < DKT_BENCH_LEVELS; i++) {
        dkt_outcome_figure(outcome, "us", &cpu_us[i], "CPU of a request, tenants: %d", levels[i]);
        dkt_outcome_figure(outcome, "/s", &per_s[i], "requests, tenants: %d", levels[i]);
    }
    for (int i = 1; i < DKT_BENCH_LEVELS; i++) {
        char name[64];
        snprintf(name, sizeof name, "CPU with %d tenants / with %d", levels[i], levels[0]);
        dkt_outcome_at_most(outcome, name, "x", dkt_series_ratio(&cpu_us[i], &cpu_us[0]),
                            S_P5_GOAL);
    }
    return true;
}

bool dkt_bench_p10(dkt_suite_t *suite, dkt_outcome_t *outcome)
{
    dkt_series_t cpu_us[2] = {0}, per_s[2] = {0};
    dkt_stage_t *stages[2] = {dkt_stage_open(suite, 1, outcome), NULL};
    stages[1] = stages[0] ? dkt_stage_open(suite, 2, outcome) : NULL;
    bool ok = stages[1] != NULL;
    for (int round = 0; ok && round < suite->sizes.rounds; round++) {
        for (int i = 0; ok && i < 2; i++) {
            dkt_progress(suite, i ? "two workers" : "one worker", round, suite->sizes.rounds);
            ok = s_cpu_round(suite, stages[i], 0, suite->sizes.split_tenants, &cpu_us[i], &per_s[i],
                             outcome);
        }
    }
    if (stages[1]) {
        dkt_stage_close(stages[1]);
    }
    if (!ok) {
        return false;
    }
    for (int i = 0; i < 2; i++) {
        dkt_outcome_figure(outcome, "us", &cpu_us[i], "CPU of a request, tenants: %d, workers: %d",
                           suite->sizes.split_tenants, i + 1);
        dkt_outcome_figure(outcome, "/s", &per_s[i], "requests, workers: %d", i + 1);
    }
    dkt_outcome_at_most(outcome, "CPU with two workers / with one", "x",
                        dkt_series_ratio(&cpu_us[1], &cpu_us[0]), S_P10_GOAL);
    return true;
}

/* -- P6 --------------------------------------------------------------------------------------- */

/* A worker with nobody in memory: the fleet restarts what is ended. */
static int s_restart_worker(const dkt_stage_t *stage)
{
    int before = dkt_stage_worker_pid(stage), now = before;
    int64_t end_ms = dkt_mono_ms() + S_RESTART_MS;
    if (before <= 0 || kill(before, SIGTERM) != 0) {
        return 0;
    }
    while ((now == before || now <= 0) && dkt_mono_ms() < end_ms && !dkt_suite_stopped()) {
        poll(NULL, 0, S_TICK_MS);
        now = dkt_stage_worker_pid(stage);
    }
    return now != before ? now : 0;
}

/* What was measured of tenants that awake. */
typedef struct {
    double kib[3]; /* the worker with one of them, with all, with all and more resolvers */
    double cpu_us[DKT_BENCH_CPU_COUNT];   /* of all, one after the other */
    double burst_us[DKT_BENCH_CPU_COUNT]; /* and many at a time, */
    double burst_s;                       /* which took so long */
    dkt_histogram_t latency;
} s_awake_t;

/* A worker that has just one tenant in memory, which awoke the ways to it and its buffers; the rest
 * are counted. Returns its pid, 0: none. */
static int s_asleep(dkt_stage_t *stage)
{
    static dkt_histogram_t first;
    dkt_load_set_t one = {.list = stage->cold.list, .count = 1};
    memset(&first, 0, sizeof first);
    int worker = s_restart_worker(stage);
    bool ok = worker > 0 && dkt_load_set_touch(&stage->load, &one, 1, &first, dkt_suite_stopped);
    dkt_stage_quiet(stage);
    return ok ? worker : 0;
}

/* All others awake; the CPU time is that of the whole fleet meanwhile. */
static bool s_awake(dkt_stage_t *stage, int at_a_time, dkt_histogram_t *latency,
                    double cpu_us[DKT_BENCH_CPU_COUNT])
{
    dkt_bench_cpu_t before, after;
    dkt_load_set_t others = {.list = stage->cold.list + 1, .count = stage->cold.count - 1};
    dkt_bench_cpu_read(stage->fleet.pid, &before);
    bool ok = dkt_load_set_touch(&stage->load, &others, at_a_time, latency, dkt_suite_stopped);
    dkt_bench_cpu_read(stage->fleet.pid, &after);
    for (int role = 0; role < DKT_BENCH_CPU_COUNT; role++) {
        cpu_us[role] = after.us[role] - before.us[role];
    }
    return ok;
}

static bool s_activate(dkt_suite_t *suite, dkt_stage_t *stage, s_awake_t *awake,
                       dkt_outcome_t *outcome)
{
    dkt_load_set_t others = {.list = stage->cold.list + 1, .count = stage->cold.count - 1};
    dkt_progress(suite, "many tenants awake at once", 0, 3);
    bool ok = s_asleep(stage) > 0;
    int64_t start_ms = dkt_mono_ms();
    ok = ok && s_awake(stage, S_AWAKE_AT_A_TIME, NULL, awake->burst_us);
    awake->burst_s = (double)(dkt_mono_ms() - start_ms) / S_MS_PER_S;
    dkt_progress(suite, "a worker without tenants", 1, 3);
    int worker = ok ? s_asleep(stage) : 0;
    ok = worker > 0;
    awake->kib[0] = ok ? dkt_bench_memory_kib(worker) : 0;
    dkt_progress(suite, "tenants awake", 2, 3);
    ok = ok && s_awake(stage, 1, &awake->latency, awake->cpu_us);
    awake->kib[1] = ok ? dkt_bench_memory_kib(worker) : 0;
    ok = ok && dkt_load_set_resize(&stage->load, &others, S_MORE_RESOLVERS, dkt_suite_stopped);
    awake->kib[2] = ok ? dkt_bench_memory_kib(worker) : 0;
    return (ok && awake->kib[0] > 0) ||
           dkt_outcome_fail(outcome, "the worker was not restarted, or told no memory");
}

static void s_awake_values(dkt_outcome_t *outcome, const s_awake_t *awake, int count)
{
    static const dkt_bench_cpu_role_t roles[] = {DKT_BENCH_CPU_WORKER, DKT_BENCH_CPU_POSTGRES};
    for (int i = 0; i < 2; i++) {
        dkt_outcome_value(outcome, "ms", awake->cpu_us[roles[i]] / S_US_PER_MS / count,
                          "CPU of an activation, %s", dkt_bench_cpu_names[roles[i]]);
    }
    dkt_outcome_value(outcome, "ms", awake->burst_s * S_MS_PER_S / count,
                      "an activation, %d asked at a time", S_AWAKE_AT_A_TIME);
    for (int i = 0; i < 2; i++) {
        dkt_outcome_value(outcome, "ms", awake->burst_us[roles[i]] / S_US_PER_MS / count,
                          "CPU of it, %s", dkt_bench_cpu_names[roles[i]]);
    }
}

bool dkt_bench_p6(dkt_suite_t *suite, dkt_outcome_t *outcome)
{
    static s_awake_t awake;
    dkt_stage_t *stage = dkt_stage_open(suite, 1, outcome);
    memset(&awake, 0, sizeof awake);
    if (!stage || !dkt_load_set_grow(&stage->load, &stage->cold, suite->sizes.activations + 1,
                                     dkt_suite_stopped)) {
        return dkt_outcome_fail(outcome, "the tenants' accounts could not be opened");
    }
    if (!s_activate(suite, stage, &awake, outcome)) {
        return false;
    }
    int count = suite->sizes.activations;
    double each_kib = (awake.kib[1] - awake.kib[0]) / count;
    double lane_bytes = (awake.kib[2] - awake.kib[1]) * S_BYTES_PER_KIB / count /
                        ((S_MORE_RESOLVERS - 1) * S_LANE_MINUTES);
    dkt_outcome_value(outcome, "KiB", awake.kib[0], "worker with one active tenant");
    dkt_outcome_value(outcome, "KiB", awake.kib[1], "worker with %d more", count);
    dkt_outcome_value(outcome, "B", lane_bytes,
                      "of a lane-minute beyond (%d resolvers, %d minutes)", S_MORE_RESOLVERS,
                      (int)S_LANE_MINUTES);
    dkt_outcome_percentiles(outcome, &awake.latency, "activation, first answer");
    s_awake_values(outcome, &awake, count);
    dkt_outcome_at_most(outcome, "memory of an active tenant, one resolver", "KiB",
                        dkt_series_one(each_kib), S_P6_KIB_GOAL);
    dkt_outcome_at_most(outcome, "activation, p50", "ms",
                        dkt_series_one(dkt_percentile_ms(&awake.latency, DKT_P50)), S_P6_MS_GOAL);
    return true;
}

/* -- P7 --------------------------------------------------------------------------------------- */

bool dkt_bench_p7(dkt_suite_t *suite, dkt_outcome_t *outcome)
{
    for (int i = 0; i < DKT_LEDGER_TENANTS; i++) {
        dkt_ledger_times_t ledger, scan;
        dkt_progress(suite, "the ledger and a naive scan", i, DKT_LEDGER_TENANTS);
        if (!dkt_ledger_measure(dkt_ledger_tenants[i], (uint32_t)suite->sizes.ledger_rounds,
                                &ledger, &scan)) {
            return dkt_outcome_fail(outcome, "no memory");
        }
        for (int op = 0; op < DKT_LEDGER_OP_COUNT; op++) {
            char name[64];
            snprintf(name, sizeof name, "%s, resolvers: %d", dkt_ledger_op_names[op],
                     dkt_ledger_tenants[i]);
            dkt_outcome_value(outcome, "ns", scan.ns[op], "naive scan, %s", name);
            dkt_outcome_at_most(outcome, name, "ns", dkt_series_one(ledger.ns[op]), S_P7_NS_GOAL);
        }
    }
    return true;
}
