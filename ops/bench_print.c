/* SPDX-License-Identifier: Apache-2.0
 *
 * What the scenarios gave, as a table and as JSON, see bench.h.
 */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ops/bench.h"

#define S_NAME_WIDTH 62
#define S_FINE       100.0 /* below, figures have decimals */

static void s_time_text(int64_t unix_ms, char out[32])
{
    struct tm parts;
    time_t seconds = (time_t)(unix_ms / 1000);
    if (!gmtime_r(&seconds, &parts) || strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0) {
        out[0] = '\0';
    }
}

/* -- table ------------------------------------------------------------------------------------ */

static void s_number(char out[32], double value)
{
    snprintf(out, 32, fabs(value) >= S_FINE ? "%.0f" : "%.3f", value);
}

/* " (lowest to highest)", where there is more than one value. */
static void s_print_range(const dkt_series_t *series, FILE *out)
{
    char lowest[32], highest[32];
    double low = series->values[0], high = low;
    for (int i = 1; i < series->count; i++) {
        double value = series->values[i];
        low = value < low ? value : low;
        high = value > high ? value : high;
    }
    s_number(lowest, low);
    s_number(highest, high);
    if (series->count > 1) {
        fprintf(out, " (%s to %s)", lowest, highest);
    }
}

static void s_print_figure(const dkt_figure_t *figure, FILE *out)
{
    char number[32];
    s_number(number, dkt_series_median(&figure->series));
    fprintf(out, "     %-*s %12s %s", S_NAME_WIDTH, figure->name, number, figure->unit);
    s_print_range(&figure->series, out);
    fputc('\n', out);
}

static void s_print_goal(const dkt_goal_t *goal, FILE *out)
{
    char number[32], limit[32];
    s_number(number, dkt_goal_value(goal));
    s_number(limit, goal->limit);
    fprintf(out, "  -> %-*s %12s %s", S_NAME_WIDTH, goal->name, number, goal->unit);
    s_print_range(&goal->series, out);
    fprintf(out, ", goal %s %s: %s\n", goal->at_most ? "<=" : ">=", limit,
            dkt_goal_met(goal) ? "met" : "MISSED");
}

static void s_print_scenario(const dkt_scenario_t *scenario, const dkt_outcome_t *outcome,
                             FILE *out)
{
    fprintf(out, "\n%-4s %s; against %s\n", scenario->id, scenario->title, scenario->against);
    for (int i = 0; i < outcome->figure_count; i++) {
        s_print_figure(&outcome->figures[i], out);
    }
    for (int i = 0; i < outcome->goal_count; i++) {
        s_print_goal(&outcome->goals[i], out);
    }
    for (int i = 0; i < outcome->check_count; i++) {
        const dkt_check_t *check = &outcome->checks[i];
        fprintf(out, "     %s: %s: %s\n", check->ok ? "checked" : "CHECK FAILED", check->name,
                check->detail);
    }
    if (!outcome->ran) {
        fprintf(out, "     COULD NOT RUN: %s\n", outcome->error);
    }
}

void dkt_bench_print_table(const dkt_suite_t *suite, FILE *out)
{
    char started[32];
    int goals = 0, met = 0;
    const dkt_bench_machine_t *machine = &suite->machine;
    s_time_text(suite->started_ms, started);
    fprintf(out,
            "docket %s bench%s, %s, %.0f s, rounds: %d\n"
            "machine   %s, %d cores, Linux %s; load average %.1f before\n"
            "          fdatasync of 8 KiB %.3f ms, eventfd ping-pong %.3f ms (medians)\n",
            DKT_VERSION, suite->quick ? " --quick (figures of small sizes say little)" : "",
            started, suite->seconds, suite->sizes.rounds, machine->cpu, machine->cores,
            machine->kernel, machine->load_average, machine->fdatasync_ms,
            (double)machine->pingpong_us / 1000.0);
    fprintf(out, "settings  PostgreSQL %s: fsync %s, synchronous_commit %s\n",
            suite->postgres.version[0] ? suite->postgres.version : "-", suite->postgres.fsync,
            suite->postgres.synchronous_commit);
    if (suite->redis_version[0]) {
        fprintf(out, "          Redis %s: appendfsync %s\n", suite->redis_version,
                suite->appendfsync);
    }
    fprintf(out, "Medians of the rounds (lowest to highest), also of ratios within a round.\n");
    for (int i = 0; i < DKT_BENCH_SCENARIOS; i++) {
        const dkt_outcome_t *outcome = &suite->outcomes[i];
        if (outcome->asked) {
            s_print_scenario(&dkt_scenarios[i], outcome, out);
        }
        for (int k = 0; k < outcome->goal_count; k++) {
            goals++;
            met += dkt_goal_met(&outcome->goals[k]);
        }
    }
    fprintf(out, "\n%d of %d goals met\n", met, goals);
}

/* -- JSON ------------------------------------------------------------------------------------- */

/* JSON knows no infinity: a ratio to nothing is null. */
static json_t *s_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *s_json_rounds(const dkt_series_t *series)
{
    json_t *rounds = json_array();
    for (int k = 0; k < series->count; k++) {
        json_array_append_new(rounds, s_real(series->values[k]));
    }
    return rounds;
}

static json_t *s_json_figures(const dkt_outcome_t *outcome)
{
    json_t *list = json_array();
    for (int i = 0; i < outcome->figure_count; i++) {
        const dkt_figure_t *figure = &outcome->figures[i];
        json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:o}", "name", figure->name, "unit",
                                              figure->unit, "median",
                                              s_real(dkt_series_median(&figure->series)), "rounds",
                                              s_json_rounds(&figure->series)));
    }
    return list;
}

static json_t *s_json_goals(const dkt_outcome_t *outcome)
{
    json_t *list = json_array();
    for (int i = 0; i < outcome->goal_count; i++) {
        const dkt_goal_t *goal = &outcome->goals[i];
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:o, s:o, s:o, s:s, s:b}", "name", goal->name, "unit",
                            goal->unit, "value", s_real(dkt_goal_value(goal)), "rounds",
                            s_json_rounds(&goal->series), "goal", s_real(goal->limit), "compare",
                            goal->at_most ? "<=" : ">=", "met", dkt_goal_met(goal)));
    }
    return list;
}

static json_t *s_json_checks(const dkt_outcome_t *outcome)
{
    json_t *list = json_array();
    for (int i = 0; i < outcome->check_count; i++) {
        const dkt_check_t *check = &outcome->checks[i];
        json_array_append_new(list, json_pack("{s:s, s:b, s:s}", "name", check->name, "ok",
                                              check->ok, "detail", check->detail));
    }
    return list;
}

static json_t *s_json_scenarios(const dkt_suite_t *suite)
{
    json_t *list = json_array();
    for (int i = 0; i < DKT_BENCH_SCENARIOS; i++) {
        const dkt_outcome_t *outcome = &suite->outcomes[i];
        const dkt_scenario_t *scenario = &dkt_scenarios[i];
        if (outcome->asked) {
            json_array_append_new(
                list, json_pack("{s:s, s:s, s:s, s:b, s:s, s:o, s:o, s:o, s:o}", "id", scenario->id,
                                "title", scenario->title, "against", scenario->against, "ran",
                                outcome->ran, "error", outcome->error, "seconds",
                                s_real(outcome->seconds), "figures", s_json_figures(outcome),
                                "goals", s_json_goals(outcome), "checks", s_json_checks(outcome)));
        }
    }
    return list;
}

void dkt_bench_print_json(const dkt_suite_t *suite, FILE *out)
{
    char started[32];
    const dkt_bench_machine_t *machine = &suite->machine;
    s_time_text(suite->started_ms, started);
    json_t *root = json_pack(
        "{s:s, s:b, s:s, s:o, s:i, s:{s:s, s:i, s:s, s:f, s:f, s:I}, s:{s:s, s:s, s:s, s:s, s:s}}",
        "docket", DKT_VERSION, "quick", suite->quick, "started", started, "seconds",
        s_real(suite->seconds), "rounds", suite->sizes.rounds, "machine", "cpu", machine->cpu,
        "cores", machine->cores, "kernel", machine->kernel, "load_average", machine->load_average,
        "fdatasync_ms", machine->fdatasync_ms, "pingpong_us", (json_int_t)machine->pingpong_us,
        "settings", "postgres", suite->postgres.version, "fsync", suite->postgres.fsync,
        "synchronous_commit", suite->postgres.synchronous_commit, "redis", suite->redis_version,
        "appendfsync", suite->appendfsync);
    json_object_set_new(root, "scenarios", s_json_scenarios(suite));
    json_dumpf(root, out, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    fputc('\n', out);
    json_decref(root);
}
