/* SPDX-License-Identifier: Apache-2.0
 *
 * P4, P8, P9: how soon an answer comes.
 */
#include <poll.h>
#include <pthread.h>
#include <string.h>

#include "ops/bench.h"
#include "ops/result.h"

#define S_P4_GOAL   1.15 /* times the sum of what it cannot avoid */
#define S_P8_GOAL   1.2  /* times the p99 without the flood */
#define S_P9_GOAL   1.5  /* times the p99 of the rest of the minute */
#define S_MINUTE_MS 60000
#define S_LEAD_MS   12000 /* of P9 before its first minute: tickets that are due then */
#define S_TAIL_MS   2000
#define S_TICK_MS   100
#define S_FLOOD_MS  600000 /* it is stopped long before */

/* -- P4 --------------------------------------------------------------------------------------- */

static bool s_one_at_a_time(dkt_suite_t *suite, dkt_stage_t *stage, dkt_histogram_t *all,
                            dkt_series_t *p50_ms, dkt_outcome_t *outcome)
{
    static dkt_histogram_t latency;
    dkt_load_plan_t plan = {
        .mode = DKT_LOAD_CREATE, .tenants = stage->wide.list, .tenant_count = 1, .in_flight = 1};
    if (!dkt_stage_run(suite, stage, &plan, outcome)) {
        return false;
    }
    dkt_load_latency(&suite->result, &latency);
    dkt_histogram_merge(all, &latency);
    dkt_series_add(p50_ms, dkt_percentile_ms(&latency, DKT_P50));
    return true;
}

bool dkt_bench_p4(dkt_suite_t *suite, dkt_outcome_t *outcome)
{
    static dkt_histogram_t all;
    dkt_series_t chain_ms = {0}, commit_ms = {0}, ours_ms = {0};
    dkt_stage_t *stage = dkt_stage_open(suite, 1, outcome);
    const dkt_chain_plan_t chain = {.in_flight = 1,
                                    .bytes = DKT_CHAIN_BYTES,
                                    .warm_up_ms = suite->sizes.warm_up_ms,
                                    .run_ms = suite->sizes.run_ms,
                                    .stopped = dkt_suite_stopped};
    memset(&all, 0, sizeof all);
    bool ok = stage && dkt_stage_plpgsql(suite, outcome) &&
              dkt_stage_tenants(stage, &stage->wide, 1, outcome);
    for (int round = 0; ok && round < suite->sizes.rounds; round++) {
        dkt_progress(suite, "a bare chain, then one row", round, suite->sizes.rounds);
        ok = dkt_chain_run(&chain, &suite->peer) ||
             dkt_outcome_fail(outcome, "the bare chain gave nothing");
        if (ok) {
            dkt_series_add(&chain_ms, dkt_percentile_ms(&suite->peer.latency, DKT_P50));
            ok = dkt_plpgsql_one_row(&suite->plpgsql, suite->sizes.run_ms, &suite->peer) ||
                 dkt_outcome_fail(outcome, "the rows gave nothing");
        }
        if (ok) {
            dkt_series_add(&commit_ms, dkt_percentile_ms(&suite->peer.latency, DKT_P50));
            dkt_progress(suite, "docket, one at a time", round, suite->sizes.rounds);
            ok = s_one_at_a_time(suite, stage, &all, &ours_ms, outcome);
        }
    }
    if (!ok) {
        return false;
    }
    dkt_outcome_value(outcome, "ms", (double)suite->machine.pingpong_us / 1000.0,
                      "bare eventfd ping-pong, p50");
    dkt_outcome_figure(outcome, "ms", &chain_ms, "bare chain, one in flight, p50");
    dkt_outcome_figure(outcome, "ms", &commit_ms, "one row, one connection, p50");
    dkt_outcome_figure(outcome, "ms", &ours_ms, "docket, one at a time, p50");
    dkt_outcome_percentiles(outcome, &all, "docket, one at a time, all rounds");
    const dkt_series_t least_ms = dkt_series_sum(&chain_ms, &commit_ms);
    dkt_outcome_at_most(outcome, "create_ticket / (chain + commit), p50", "x",
                        dkt_series_ratio(&ours_ms, &least_ms), S_P4_GOAL);
    return true;
}

/* -- P8 --------------------------------------------------------------------------------------- */

/* A tenant with all open that a connection may have, from a thread of its own. */
typedef struct {
    dkt_load_where_t where;
    dkt_load_tenant_t tenant;
    dkt_load_result_t result;
    atomic_bool over;
    bool ok;
} s_flood_t;

static void *s_flood(void *arg)
{
    s_flood_t *self = arg;
    dkt_load_t load;
    const dkt_load_plan_t plan = {.mode = DKT_LOAD_CREATE,
                                  .tenants = &self->tenant,
                                  .tenant_count = 1,
                                  .in_flight = DKT_OPEN_PER_CONNECTION_MAX,
                                  .run_ms = S_FLOOD_MS,
                                  .over = &self->over};
    if (dkt_load_open(&load, &self->where)) {
        self->ok = dkt_load_run(&load, &plan, &self->result);
        dkt_load_close(&load);
    }
    return NULL;
}

/* The others' latency, at a rate that they keep. */
static bool s_others(dkt_suite_t *suite, dkt_stage_t *stage, dkt_series_t *p50_ms,
                     dkt_series_t *p99_ms, dkt_outcome_t *outcome)
{
    static dkt_histogram_t latency;
    dkt_load_plan_t plan = {.mode = DKT_LOAD_CREATE,
                            .tenants = stage->many.list,
                            .tenant_count = suite->sizes.others,
                            .in_flight = DKT_OPEN_PER_CONNECTION_MAX,
                            .rate = suite->sizes.others_rate};
    if (!dkt_stage_run(suite, stage, &plan, outcome)) {
        return false;
    }
    dkt_load_latency(&suite->result, &latency);
    dkt_series_add(p50_ms, dkt_percentile_ms(&latency, DKT_P50));
    dkt_series_add(p99_ms, dkt_percentile_ms(&latency, DKT_P99));
    return true;
}

static bool s_others_flooded(dkt_suite_t *suite, dkt_stage_t *stage, dkt_series_t *p50_ms,
                             dkt_series_t *p99_ms, dkt_series_t *flood_per_s,
                             dkt_outcome_t *outcome)
{
    static s_flood_t flood;
    pthread_t thread;
    dkt_load_tenant_t *tenant = dkt_stage_wide(stage, outcome);
    if (!tenant) {
        return false;
    }
    flood = (s_flood_t){.where = {.endpoint = stage->fleet.public_endpoint,
                                  .lines = 1,
                                  .batch = DKT_FRAMES_PER_MESSAGE_MAX},
                        .tenant = *tenant};
    if (pthread_create(&thread, NULL, s_flood, &flood) != 0) {
        return dkt_outcome_fail(outcome, "no thread for the flood");
    }
    bool ok = s_others(suite, stage, p50_ms, p99_ms, outcome);
    atomic_store(&flood.over, true);
    pthread_join(thread, NULL);
    *tenant = flood.tenant;
    if (ok && flood.ok) {
        dkt_series_add(flood_per_s,
                       (double)dkt_load_answered(&flood.result) / flood.result.seconds);
    }
    return ok && (flood.ok || dkt_outcome_fail(outcome, "the flood had no answers"));
}

bool dkt_bench_p8(dkt_suite_t *suite, dkt_outcome_t *outcome)
{
    dkt_series_t before_p50 = {0}, before_p99 = {0}, after_p50 = {0}, after_p99 = {0}, flood = {0};
    dkt_stage_t *stage = dkt_stage_open(suite, 1, outcome);
    bool ok = stage && dkt_stage_tenants(stage, &stage->many, suite->sizes.others, outcome);
    for (int round = 0; ok && round < suite->sizes.rounds; round++) {
        dkt_progress(suite, "the others alone", round, suite->sizes.rounds);
        ok = s_others(suite, stage, &before_p50, &before_p99, outcome);
        dkt_progress(suite, "the others beside a flood", round, suite->sizes.rounds);
        ok = ok && s_others_flooded(suite, stage, &after_p50, &after_p99, &flood, outcome);
    }
    if (!ok) {
        return false;
    }
    dkt_outcome_figure(outcome, "ms", &before_p50, "%d others at %d/s together, p50",
                       suite->sizes.others, suite->sizes.others_rate);
    dkt_outcome_figure(outcome, "ms", &before_p99, "the same, p99");
    dkt_outcome_figure(outcome, "ms", &after_p50, "the same beside the flood, p50");
    dkt_outcome_figure(outcome, "ms", &after_p99, "the same beside the flood, p99");
    dkt_outcome_figure(outcome, "/s", &flood, "the flood, %d in flight",
                       DKT_OPEN_PER_CONNECTION_MAX);
    dkt_outcome_at_most(outcome, "the others' p99 with the flood / without", "x",
                        dkt_series_ratio(&after_p99, &before_p99), S_P8_GOAL);
    dkt_stage_check_rows(stage, &stage->wide, outcome);
    return true;
}

/* -- P9 --------------------------------------------------------------------------------------- */

/* Not longer before a minute than its tickets need: what comes earlier tells nothing more. */
static void s_wait_for_minute(dkt_suite_t *suite)
{
    if (suite->sizes.minutes > 1) {
        return; /* the rest of the minute is wanted as well */
    }
    while (dkt_unix_ms() % S_MINUTE_MS < S_MINUTE_MS - S_LEAD_MS && !dkt_suite_stopped()) {
        poll(NULL, 0, S_TICK_MS);
    }
}

bool dkt_bench_p9(dkt_suite_t *suite, dkt_outcome_t *outcome)
{
    const dkt_load_result_t *result = &suite->result;
    int count = suite->sizes.minute_tenants;
    dkt_stage_t *stage = dkt_stage_open(suite, 1, outcome);
    if (!stage || !dkt_stage_tenants(stage, &stage->many, count, outcome)) {
        return false;
    }
    dkt_progress(suite, "waiting for the end of a minute", 0, 2);
    s_wait_for_minute(suite);
    dkt_progress(suite, "docket across minutes", 1, 2);
    /* Every tenant books the next minute again and again, so that each has something to dispatch.
     */
    int64_t left_ms = S_MINUTE_MS - dkt_unix_ms() % S_MINUTE_MS;
    dkt_load_plan_t plan = {.mode = DKT_LOAD_CREATE,
                            .tenants = stage->many.list,
                            .tenant_count = count,
                            .in_flight = DKT_OPEN_PER_CONNECTION_MAX,
                            .rate = suite->sizes.minute_rate,
                            .run_ms = left_ms + (suite->sizes.minutes - 1) * S_MINUTE_MS +
                                      S_TAIL_MS - suite->sizes.warm_up_ms};
    if (!dkt_stage_run(suite, stage, &plan, outcome)) {
        return false;
    }
    const dkt_histogram_t *zero = &result->latency[DKT_LOAD_SECOND_ZERO];
    const dkt_histogram_t *last = &result->latency[DKT_LOAD_SECOND_LAST_TWO];
    const dkt_histogram_t *rest = &result->latency[DKT_LOAD_SECOND_REST];
    dkt_outcome_value(outcome, "", (double)zero->count,
                      "requests in second 0 of %d minute(s), tenants: %d", suite->sizes.minutes,
                      count);
    dkt_outcome_percentiles(outcome, zero, "second 0");
    dkt_outcome_value(outcome, "ms", dkt_percentile_ms(last, DKT_P99), "seconds 58 and 59, p99");
    dkt_outcome_percentiles(outcome, rest, "the rest");
    if (zero->count == 0 || rest->count == 0) {
        return dkt_outcome_fail(outcome, "no request was due in second 0");
    }
    const double ratio = dkt_percentile_ms(zero, DKT_P99) / dkt_percentile_ms(rest, DKT_P99);
    dkt_outcome_at_most(outcome, "p99 of second 0 / of the rest", "x", dkt_series_one(ratio),
                        S_P9_GOAL);
    return true;
}
