/* SPDX-License-Identifier: Apache-2.0
 *
 * A log-linear histogram of microseconds: 64 steps in each power of two, so that a percentile is
 * at most 1.6 % above the truth, in a fixed 16 KiB.
 */
#ifndef DKT_CORE_HISTOGRAM_H
#define DKT_CORE_HISTOGRAM_H

#include <stdint.h>

#define DKT_HISTOGRAM_BITS    6  /* steps of a power of two, as a power of two */
#define DKT_HISTOGRAM_OCTAVES 36 /* values up to 2^36 us, 19 h; larger ones count as that */
/* A row of steps for each power of two, and one for the values below the first. */
#define DKT_HISTOGRAM_ROWS  (DKT_HISTOGRAM_OCTAVES - DKT_HISTOGRAM_BITS + 1)
#define DKT_HISTOGRAM_CELLS (DKT_HISTOGRAM_ROWS << DKT_HISTOGRAM_BITS)

/* Plain data: memset to zero empties it. */
typedef struct {
    uint64_t count, sum_us, max_us;
    uint64_t cells[DKT_HISTOGRAM_CELLS];
} dkt_histogram_t;

void dkt_histogram_add(dkt_histogram_t *self, uint64_t us);
/* The cell that a value counts in, for those who keep the cells in another way. */
uint32_t dkt_histogram_cell(uint64_t us);
void dkt_histogram_merge(dkt_histogram_t *self, const dkt_histogram_t *other);
/* What came since `before`, an older copy of `now`; its maximum is exact to a cell. `out` may be
 * either of them. */
void dkt_histogram_since(dkt_histogram_t *out, const dkt_histogram_t *now,
                         const dkt_histogram_t *before);
/* A histogram of cells alone: count, sum and maximum are derived, as exact as a cell. */
void dkt_histogram_derive(dkt_histogram_t *self);

/* The smallest value that at least `permyriad` / 10000 of all are not above; 0 when empty. */
uint64_t dkt_histogram_at(const dkt_histogram_t *self, uint32_t permyriad);

#endif
