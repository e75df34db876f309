/* SPDX-License-Identifier: Apache-2.0
 *
 * P1, P2, P3: how many requests per second, beside peers that do the same or less.
 */
#include <string.h>

#include "ops/bench.h"
#include "ops/result.h"

#define S_P1_GOAL   12.0 /* times the function inside PostgreSQL */
#define S_P2_GOAL   1.0  /* times Redis */
#define S_P3_GOAL   0.6  /* of the bare chain */
#define S_HALF_GOLD 60   /* tickets: half of the two hours of one resolver */
/* Times the usual warm-up: tenants asked a moment ago make the broker hold back a busy one for up
 * to DKT_BROKER_SHARE_MS, and what was due meanwhile must have gone before anything is counted. */
#define S_HALF_WARM_UPS 3

/* -- P1 and P2 -------------------------------------------------------------------------------- */

/* Tickets per second of one tenant that is new, so that every round starts the same. */
static bool s_one_tenant(dkt_suite_t *suite, dkt_stage_t *stage, dkt_relay_watch_t *watch,
                         dkt_series_t *per_s, dkt_outcome_t *outcome)
{
    dkt_load_tenant_t *tenant = dkt_stage_wide(stage, outcome);
    dkt_load_plan_t plan = {.mode = DKT_LOAD_CREATE,
                            .tenants = tenant,
                            .tenant_count = 1,
                            .in_flight = suite->sizes.in_flight};
    if (!tenant || !dkt_stage_run(suite, stage, &plan, outcome)) {
        return false;
    }
    dkt_series_add(per_s, (double)suite->result.created / suite->result.seconds);
    dkt_stage_settle(stage, watch);
    return true;
}

static bool s_many_tenants(dkt_suite_t *suite, dkt_stage_t *stage, dkt_relay_watch_t *watch,
                           dkt_series_t *per_s, dkt_outcome_t *outcome)
{
    dkt_load_plan_t plan = {.mode = DKT_LOAD_CREATE,
                            .tenants = stage->many.list,
                            .tenant_count = suite->sizes.some_tenants,
                            .in_flight = suite->sizes.some_in_flight};
    if (!dkt_stage_run(suite, stage, &plan, outcome)) {
        return false;
    }
    dkt_series_add(per_s, (double)suite->result.created / suite->result.seconds);
    dkt_stage_settle(stage, watch);
    return true;
}

static void s_check_relay(const dkt_relay_watch_t *watch, dkt_outcome_t *outcome)
{
    dkt_outcome_figure(outcome, "rows", &watch->lag_rows, "relay: groups behind, at most");
    dkt_outcome_figure(outcome, "s", &watch->drain_s, "relay: time to publish the rest");
    dkt_outcome_check(outcome, !watch->failed, "the relay has published every change", "%s",
                      watch->failed ? "it is behind still" : "nothing is left");
}

/* The latency of an open loop at half the highest rate, from when a request was due. */
static bool s_half_rate(dkt_suite_t *suite, dkt_stage_t *stage, double per_s, bool many,
                        dkt_relay_watch_t *watch, dkt_outcome_t *outcome)
{
    char what[64];
    static dkt_histogram_t latency;
    int count = many ? suite->sizes.some_tenants : 1;
    dkt_load_tenant_t *tenants = many ? stage->many.list : dkt_stage_wide(stage, outcome);
    dkt_load_plan_t plan = {.mode = DKT_LOAD_CREATE,
                            .tenants = tenants,
                            .tenant_count = count,
                            .in_flight = DKT_OPEN_PER_CONNECTION_MAX,
                            .rate = (int)(per_s / 2) + 1,
                            .warm_up_ms = S_HALF_WARM_UPS * suite->sizes.warm_up_ms};
    if (!tenants || !dkt_stage_run(suite, stage, &plan, outcome)) {
        return false;
    }
    dkt_load_latency(&suite->result, &latency);
    snprintf(what, sizeof what, "open loop, half of that rate, tenants: %d", count);
    dkt_outcome_percentiles(outcome, &latency, what);
    dkt_stage_settle(stage, watch);
    return true;
}

/* The best of its numbers of connections, in this round. */
static bool s_plpgsql_round(dkt_suite_t *suite, dkt_series_t levels[DKT_PLPGSQL_LEVELS],
                            dkt_series_t *best, int round, dkt_outcome_t *outcome)
{
    double highest = 0;
    for (int i = 0; i < DKT_PLPGSQL_LEVELS; i++) {
        dkt_progress(suite, "the function inside PostgreSQL", round, suite->sizes.rounds);
        if (!dkt_plpgsql_run(&suite->plpgsql, dkt_plpgsql_levels[i], suite->sizes.run_ms,
                             &suite->peer)) {
            return dkt_outcome_fail(outcome, "the function inside PostgreSQL gave nothing");
        }
        dkt_series_add(&levels[i], suite->peer.per_s);
        highest = suite->peer.per_s > highest ? suite->peer.per_s : highest;
    }
    dkt_series_add(best, highest);
    return true;
}

bool dkt_bench_p1(dkt_suite_t *suite, dkt_outcome_t *outcome)
{
    dkt_series_t levels[DKT_PLPGSQL_LEVELS] = {0}, best = {0}, one = {0}, many = {0};
    dkt_relay_watch_t watch = {0};
    dkt_stage_t *stage = dkt_stage_open(suite, 1, outcome);
    if (!stage || !dkt_stage_plpgsql(suite, outcome)) {
        return false;
    }
    bool ok = true;
    for (int round = 0; ok && round < suite->sizes.rounds; round++) {
        ok = s_plpgsql_round(suite, levels, &best, round, outcome);
        dkt_progress(suite, "docket, one tenant", round, suite->sizes.rounds);
        ok = ok && s_one_tenant(suite, stage, &watch, &one, outcome);
        dkt_progress(suite, "docket, many tenants", round, suite->sizes.rounds);
        ok = ok && dkt_stage_tenants(stage, &stage->many, suite->sizes.some_tenants, outcome) &&
             s_many_tenants(suite, stage, &watch, &many, outcome);
    }
    dkt_progress(suite, "docket, latency at half the rate", 0, 1);
    double one_per_s = dkt_series_median(&one), many_per_s = dkt_series_median(&many);
    for (int i = 0; ok && i < DKT_PLPGSQL_LEVELS; i++) {
        dkt_outcome_figure(outcome, "/s", &levels[i], "function inside PostgreSQL, connections: %d",
                           dkt_plpgsql_levels[i]);
    }
    if (ok) {
        dkt_outcome_figure(outcome, "/s", &one, "docket, one tenant, %d in flight",
                           suite->sizes.in_flight);
        dkt_outcome_figure(outcome, "/s", &many, "docket, %d tenants, %d in flight",
                           suite->sizes.some_tenants, suite->sizes.some_in_flight);
    }
    ok = ok && s_half_rate(suite, stage, one_per_s, false, &watch, outcome) &&
         s_half_rate(suite, stage, many_per_s, true, &watch, outcome);
    if (!ok) {
        return false;
    }
    dkt_outcome_at_least(outcome, "one tenant / the function's best", "x",
                         dkt_series_ratio(&one, &best), S_P1_GOAL);
    dkt_outcome_at_least(outcome, "many tenants / the function's best", "x",
                         dkt_series_ratio(&many, &best), S_P1_GOAL);
    s_check_relay(&watch, outcome);
    dkt_stage_check_rows(stage, &stage->wide, outcome);
    dkt_stage_check_rows(stage, &stage->many, outcome);
    return true;
}

bool dkt_bench_p2(dkt_suite_t *suite, dkt_outcome_t *outcome)
{
    dkt_series_t redis = {0}, one = {0};
    dkt_relay_watch_t watch = {0};
    dkt_stage_t *stage = dkt_stage_open(suite, 1, outcome);
    bool ok = stage && dkt_stage_redis(suite, outcome);
    for (int round = 0; ok && round < suite->sizes.rounds; round++) {
        dkt_progress(suite, "the script inside Redis", round, suite->sizes.rounds);
        ok = dkt_redis_run(&suite->redis, DKT_REDIS_CONNECTIONS, DKT_REDIS_PIPELINE,
                           suite->sizes.run_ms, &suite->peer) ||
             dkt_outcome_fail(outcome, "Redis gave nothing");
        if (ok) {
            dkt_series_add(&redis, suite->peer.per_s);
            dkt_progress(suite, "docket, one tenant", round, suite->sizes.rounds);
            ok = s_one_tenant(suite, stage, &watch, &one, outcome);
        }
    }
    if (!ok) {
        return false;
    }
    dkt_outcome_figure(outcome, "/s", &redis, "script inside Redis, connections: %d, pipeline: %d",
                       DKT_REDIS_CONNECTIONS, DKT_REDIS_PIPELINE);
    dkt_outcome_figure(outcome, "/s", &one, "docket, one tenant, %d in flight",
                       suite->sizes.in_flight);
    dkt_outcome_at_least(outcome, "one tenant / Redis", "x", dkt_series_ratio(&one, &redis),
                         S_P2_GOAL);
    s_check_relay(&watch, outcome);
    dkt_stage_check_rows(stage, &stage->wide, outcome);
    return true;
}

/* -- P3 --------------------------------------------------------------------------------------- */

/* What writes nothing, of three tenants: one with much room, one that is full, one in between. The
 * peer is the chain over sockets as the request's own. */
typedef enum { S_EMPTY, S_FULL, S_HALF_FULL, S_FILLINGS } s_filling_t;

static const struct {
    const char *name;
    dkt_load_mode_t mode;
    bool curve; /* asked through the internal endpoint */
    s_filling_t filling;
} s_decisions[] = {
    {"validate_eta and release_slot", DKT_LOAD_HOLD, true, S_EMPTY},
    {"create_ticket, refused", DKT_LOAD_REFUSE, false, S_FULL},
    {"availability of a tenant with one resolver", DKT_LOAD_AVAILABILITY, false, S_HALF_FULL},
};
#define S_DECISIONS (sizeof s_decisions / sizeof s_decisions[0])

static bool s_chain_round(dkt_suite_t *suite, bool curve, dkt_series_t *per_s,
                          dkt_outcome_t *outcome)
{
    const dkt_chain_plan_t plan = {.in_flight = suite->sizes.chain_in_flight,
                                   .bytes = DKT_CHAIN_BYTES,
                                   .curve = curve,
                                   .warm_up_ms = suite->sizes.warm_up_ms,
                                   .run_ms = suite->sizes.run_ms,
                                   .stopped = dkt_suite_stopped};
    if (!dkt_chain_run(&plan, &suite->peer)) {
        return dkt_outcome_fail(outcome, "the bare chain gave nothing");
    }
    dkt_series_add(per_s, suite->peer.per_s);
    return true;
}

static bool s_decision_round(dkt_suite_t *suite, dkt_stage_t *stage, size_t i,
                             dkt_load_tenant_t *tenant, dkt_series_t *per_s, dkt_outcome_t *outcome)
{
    dkt_load_plan_t plan = {.mode = s_decisions[i].mode,
                            .tenants = tenant,
                            .tenant_count = 1,
                            .in_flight = suite->sizes.chain_in_flight};
    if (!dkt_stage_run(suite, stage, &plan, outcome)) {
        return false;
    }
    dkt_series_add(per_s, (double)dkt_load_answered(&suite->result) / suite->result.seconds);
    return true;
}

static bool s_fill_them(dkt_stage_t *stage, dkt_load_tenant_t *tenants[S_FILLINGS],
                        dkt_outcome_t *outcome)
{
    tenants[S_EMPTY] = dkt_stage_wide(stage, outcome);
    if (!tenants[S_EMPTY] || !dkt_stage_tenants(stage, &stage->single, 2, outcome)) {
        return false;
    }
    tenants[S_FULL] = &stage->single.list[0];
    tenants[S_HALF_FULL] = &stage->single.list[1];
    return (dkt_load_fill(&stage->load, &stage->single, 0, DKT_LOAD_FULL) &&
            dkt_load_fill(&stage->load, &stage->single, 1, S_HALF_GOLD)) ||
           dkt_outcome_fail(outcome, "the tenants could not be filled");
}

bool dkt_bench_p3(dkt_suite_t *suite, dkt_outcome_t *outcome)
{
    dkt_series_t chain[2] = {0}, ours[S_DECISIONS] = {0};
    dkt_load_tenant_t *tenants[S_FILLINGS];
    dkt_stage_t *stage = dkt_stage_open(suite, 1, outcome);
    dkt_progress(suite, "tenants are filled", 0, 1);
    bool ok = stage && s_fill_them(stage, tenants, outcome);
    for (int round = 0; ok && round < suite->sizes.rounds; round++) {
        dkt_progress(suite, "a bare chain that echoes", round, suite->sizes.rounds);
        ok = s_chain_round(suite, false, &chain[false], outcome) &&
             s_chain_round(suite, true, &chain[true], outcome);
        dkt_progress(suite, "docket, decisions", round, suite->sizes.rounds);
        for (size_t i = 0; ok && i < S_DECISIONS; i++) {
            ok = s_decision_round(suite, stage, i, tenants[s_decisions[i].filling], &ours[i],
                                  outcome);
        }
    }
    if (!ok) {
        return false;
    }
    dkt_outcome_figure(outcome, "/s", &chain[false], "bare chain, %d in flight",
                       suite->sizes.chain_in_flight);
    dkt_outcome_figure(outcome, "/s", &chain[true], "bare chain with CURVE, as inside");
    for (size_t i = 0; i < S_DECISIONS; i++) {
        dkt_outcome_figure(outcome, "/s", &ours[i], "%s", s_decisions[i].name);
    }
    for (size_t i = 0; i < S_DECISIONS; i++) {
        dkt_outcome_at_least(outcome, s_decisions[i].name, "x",
                             dkt_series_ratio(&ours[i], &chain[s_decisions[i].curve]), S_P3_GOAL);
    }
    return true;
}
