/* SPDX-License-Identifier: Apache-2.0
 *
 * Figures for docket.stats: a histogram that many threads add to and one reads, and how histograms
 * and traffic look as JSON. Adding is one relaxed atomic addition.
 */
#ifndef DKT_EDGE_METER_H
#define DKT_EDGE_METER_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdint.h>

#include "lib/core/histogram.h"
#include "lib/core/traffic.h"

#define DKT_US_PER_S 1e6

/* Zeroed memory is an empty one. 8 KiB. */
typedef struct {
    atomic_uint cells[DKT_HISTOGRAM_CELLS];
} dkt_meter_t;

void dkt_meter_add(dkt_meter_t *self, uint64_t value);
/* The same for a span of dkt_clock_mono_us that began at `begun_us`. */
void dkt_meter_add_since(dkt_meter_t *self, int64_t begun_us);

/* What came since the last call, {count, mean, p50, p99, p999, max} in units of `divisor` values;
 * `last` is the reader's, zeroed at first. */
json_t *dkt_meter_json(const dkt_meter_t *self, dkt_histogram_t *last, double divisor);
json_t *dkt_histogram_json(const dkt_histogram_t *since, double divisor);

/* {method: {ending: count}}, only of what has happened. */
json_t *dkt_traffic_json(const dkt_traffic_t *traffic);

#endif
