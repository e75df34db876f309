/* SPDX-License-Identifier: Apache-2.0
 *
 * See histogram.h.
 */
#include "lib/core/histogram.h"

#include <assert.h>

#define S_STEPS     (UINT64_C(1) << DKT_HISTOGRAM_BITS)
#define S_VALUE_MAX ((UINT64_C(1) << DKT_HISTOGRAM_OCTAVES) - 1)
#define S_WHOLE     10000

_Static_assert(sizeof(dkt_histogram_t) < 20000, "small enough to embed");

/* Values below 64 have a cell each; above, the leading 7 bits choose it. */
static uint32_t s_cell(uint64_t us)
{
    if (us < S_STEPS) {
        return (uint32_t)us;
    }
    uint32_t shift = 63U - (uint32_t)__builtin_clzll(us) - DKT_HISTOGRAM_BITS;
    return (uint32_t)((uint64_t)shift * S_STEPS + (us >> shift));
}

/* The largest value of a cell. */
static uint64_t s_cell_top(uint32_t cell)
{
    if (cell < 2 * S_STEPS) {
        return cell;
    }
    uint32_t shift = cell / (uint32_t)S_STEPS - 1;
    return ((cell % S_STEPS + S_STEPS + 1) << shift) - 1;
}

uint32_t dkt_histogram_cell(uint64_t us)
{
    uint32_t cell = s_cell(us < S_VALUE_MAX ? us : S_VALUE_MAX);
    assert(cell < DKT_HISTOGRAM_CELLS);
    return cell;
}

void dkt_histogram_add(dkt_histogram_t *self, uint64_t us)
{
    us = us < S_VALUE_MAX ? us : S_VALUE_MAX;
    uint32_t cell = dkt_histogram_cell(us);
    self->cells[cell]++;
    self->count++;
    self->sum_us += us;
    self->max_us = us > self->max_us ? us : self->max_us;
}

void dkt_histogram_merge(dkt_histogram_t *self, const dkt_histogram_t *other)
{
    for (uint32_t i = 0; i < DKT_HISTOGRAM_CELLS; i++) {
        self->cells[i] += other->cells[i];
    }
    self->count += other->count;
    self->sum_us += other->sum_us;
    self->max_us = other->max_us > self->max_us ? other->max_us : self->max_us;
}

void dkt_histogram_since(dkt_histogram_t *out, const dkt_histogram_t *now,
                         const dkt_histogram_t *before)
{
    uint64_t max_us = 0;
    for (uint32_t i = 0; i < DKT_HISTOGRAM_CELLS; i++) {
        out->cells[i] = now->cells[i] - before->cells[i];
        max_us = out->cells[i] > 0 ? s_cell_top(i) : max_us;
    }
    out->count = now->count - before->count;
    out->sum_us = now->sum_us - before->sum_us;
    out->max_us = max_us < now->max_us ? max_us : now->max_us;
}

void dkt_histogram_derive(dkt_histogram_t *self)
{
    self->count = self->sum_us = self->max_us = 0;
    for (uint32_t i = 0; i < DKT_HISTOGRAM_CELLS; i++) {
        if (self->cells[i] > 0) {
            self->max_us = s_cell_top(i);
            self->count += self->cells[i];
            self->sum_us += self->cells[i] * self->max_us;
        }
    }
}

uint64_t dkt_histogram_at(const dkt_histogram_t *self, uint32_t permyriad)
{
    assert(permyriad <= S_WHOLE);
    uint64_t want = (self->count * permyriad + S_WHOLE - 1) / S_WHOLE, seen = 0;
    if (self->count == 0) {
        return 0;
    }
    for (uint32_t i = 0; i < DKT_HISTOGRAM_CELLS; i++) {
        seen += self->cells[i];
        if (seen >= want && seen > 0) {
            uint64_t top = s_cell_top(i);
            return top < self->max_us ? top : self->max_us;
        }
    }
    return self->max_us;
}
