/* SPDX-License-Identifier: Apache-2.0
 *
 * Figures, goals and checks of a scenario, see bench.h.
 */
#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "ops/bench.h"

#define S_US_PER_MS 1000.0

void dkt_series_add(dkt_series_t *self, double value)
{
    assert(self->count < DKT_BENCH_ROUNDS_MAX);
    self->values[self->count++] = value;
}

static int s_compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

double dkt_series_median(const dkt_series_t *self)
{
    double sorted[DKT_BENCH_ROUNDS_MAX];
    size_t count = (size_t)self->count;
    if (count == 0) {
        return 0;
    }
    memcpy(sorted, self->values, count * sizeof sorted[0]);
    qsort(sorted, count, sizeof sorted[0], s_compare);
    return (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
}

dkt_series_t dkt_series_ratio(const dkt_series_t *self, const dkt_series_t *of)
{
    dkt_series_t ratios = {0};
    assert(self->count == of->count);
    for (int i = 0; i < self->count; i++) {
        dkt_series_add(&ratios, self->values[i] / of->values[i]);
    }
    return ratios;
}

dkt_series_t dkt_series_sum(const dkt_series_t *self, const dkt_series_t *other)
{
    dkt_series_t sums = {0};
    assert(self->count == other->count);
    for (int i = 0; i < self->count; i++) {
        dkt_series_add(&sums, self->values[i] + other->values[i]);
    }
    return sums;
}

dkt_series_t dkt_series_one(double value)
{
    return (dkt_series_t){.values = {value}, .count = 1};
}

double dkt_percentile_ms(const dkt_histogram_t *latency, uint32_t permyriad)
{
    return (double)dkt_histogram_at(latency, permyriad) / S_US_PER_MS;
}

/* -- figures ---------------------------------------------------------------------------------- */

static void s_figure(dkt_outcome_t *self, const char *unit, const dkt_series_t *series,
                     const char *format, va_list args)
{
    assert(self->figure_count < DKT_BENCH_FIGURES_MAX);
    dkt_figure_t *figure = &self->figures[self->figure_count++];
    figure->unit = unit;
    figure->series = *series;
    vsnprintf(figure->name, sizeof figure->name, format, args);
}

void dkt_outcome_figure(dkt_outcome_t *self, const char *unit, const dkt_series_t *series,
                        const char *format, ...)
{
    va_list args;
    va_start(args, format);
    s_figure(self, unit, series, format, args);
    va_end(args);
}

void dkt_outcome_value(dkt_outcome_t *self, const char *unit, double value, const char *format, ...)
{
    const dkt_series_t series = dkt_series_one(value);
    va_list args;
    va_start(args, format);
    s_figure(self, unit, &series, format, args);
    va_end(args);
}

void dkt_outcome_percentiles(dkt_outcome_t *self, const dkt_histogram_t *latency, const char *what)
{
    dkt_outcome_value(self, "ms", dkt_percentile_ms(latency, DKT_P50), "%s, p50", what);
    dkt_outcome_value(self, "ms", dkt_percentile_ms(latency, DKT_P99), "%s, p99", what);
    dkt_outcome_value(self, "ms", dkt_percentile_ms(latency, DKT_P999), "%s, p99.9", what);
    dkt_outcome_value(self, "ms", (double)latency->max_us / S_US_PER_MS, "%s, max", what);
}

/* -- goals and checks ------------------------------------------------------------------------- */

static void s_goal(dkt_outcome_t *self, const char *name, const dkt_goal_t *goal)
{
    assert(self->goal_count < DKT_BENCH_GOALS_MAX);
    dkt_goal_t *mine = &self->goals[self->goal_count++];
    *mine = *goal;
    snprintf(mine->name, sizeof mine->name, "%s", name);
}

void dkt_outcome_at_least(dkt_outcome_t *self, const char *name, const char *unit,
                          dkt_series_t series, double limit)
{
    s_goal(self, name, &(dkt_goal_t){.unit = unit, .series = series, .limit = limit});
}

void dkt_outcome_at_most(dkt_outcome_t *self, const char *name, const char *unit,
                         dkt_series_t series, double limit)
{
    s_goal(self, name,
           &(dkt_goal_t){.unit = unit, .series = series, .limit = limit, .at_most = true});
}

double dkt_goal_value(const dkt_goal_t *self)
{
    return dkt_series_median(&self->series);
}

bool dkt_goal_met(const dkt_goal_t *self)
{
    double value = dkt_goal_value(self);
    return self->at_most ? value <= self->limit : value >= self->limit;
}

void dkt_outcome_check(dkt_outcome_t *self, bool ok, const char *name, const char *format, ...)
{
    assert(self->check_count < DKT_BENCH_CHECKS_MAX);
    dkt_check_t *check = &self->checks[self->check_count++];
    va_list args;
    check->ok = ok;
    snprintf(check->name, sizeof check->name, "%s", name);
    va_start(args, format);
    vsnprintf(check->detail, sizeof check->detail, format, args);
    va_end(args);
}

bool dkt_outcome_fail(dkt_outcome_t *self, const char *format, ...)
{
    if (!self->error[0]) {
        va_list args;
        va_start(args, format);
        vsnprintf(self->error, sizeof self->error, format, args);
        va_end(args);
    }
    return false;
}

bool dkt_outcome_good(const dkt_outcome_t *self)
{
    bool good = self->ran;
    for (int i = 0; i < self->check_count; i++) {
        good = good && self->checks[i].ok;
    }
    return good;
}
