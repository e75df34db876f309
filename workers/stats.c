/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/stats.h"

#include <time.h>

#define S_STEP_BITS 2 /* 4 steps in a power of two: percentiles are at most 25 % too large */
#define S_US_PER_S  1000000
#define S_NS_PER_US 1000

int64_t dkt_stats_mono_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * S_US_PER_S + now.tv_nsec / S_NS_PER_US;
}

static uint32_t s_cell(uint64_t us)
{
    uint32_t octave = us > 0 ? 63 - (uint32_t)__builtin_clzll(us) : 0;
    uint32_t step = octave >= S_STEP_BITS ? (us >> (octave - S_STEP_BITS)) & 3 : 0;
    uint32_t cell = (octave << S_STEP_BITS) + step;
    return cell < DKT_STATS_CELLS ? cell : DKT_STATS_CELLS - 1;
}

/* The upper end of a cell. */
static uint64_t s_cell_us(uint32_t cell)
{
    uint32_t octave = cell >> S_STEP_BITS, step = cell & 3;
    return octave >= S_STEP_BITS ? (UINT64_C(5) + step) << (octave - S_STEP_BITS)
                                 : UINT64_C(2) << octave;
}

void dkt_stats_commit(dkt_worker_stats_t *self, int64_t us)
{
    uint64_t value = us > 0 ? (uint64_t)us : 0;
    atomic_fetch_add_explicit(&self->commits, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&self->commit_us_sum, value, memory_order_relaxed);
    atomic_fetch_add_explicit(&self->commit_us[s_cell(value)], 1, memory_order_relaxed);
}

static uint64_t s_percentile(const uint32_t *cells, uint64_t count, uint32_t permille)
{
    uint64_t seen = 0, wanted = (count * permille + 999) / 1000;
    for (uint32_t i = 0; i < DKT_STATS_CELLS; i++) {
        seen += cells[i];
        if (seen >= wanted && wanted > 0) {
            return s_cell_us(i);
        }
    }
    return 0;
}

json_t *dkt_stats_json(dkt_worker_stats_t *self, uint32_t last[DKT_STATS_CELLS])
{
    uint32_t cells[DKT_STATS_CELLS];
    uint64_t count = 0;
    for (uint32_t i = 0; i < DKT_STATS_CELLS; i++) {
        uint32_t now = atomic_load_explicit(&self->commit_us[i], memory_order_relaxed);
        cells[i] = now - last[i];
        last[i] = now;
        count += cells[i];
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:{s:I, s:I, s:I, s:I}}", "requests",
                     (json_int_t)atomic_load(&self->requests), "open",
                     (json_int_t)atomic_load(&self->open), "tenants",
                     (json_int_t)atomic_load(&self->tenants), "activations",
                     (json_int_t)atomic_load(&self->activations), "commits",
                     (json_int_t)atomic_load(&self->commits), "commit_us", "count",
                     (json_int_t)count, "p50", (json_int_t)s_percentile(cells, count, 500), "p99",
                     (json_int_t)s_percentile(cells, count, 990), "p999",
                     (json_int_t)s_percentile(cells, count, 999));
}
