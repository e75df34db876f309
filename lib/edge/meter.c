/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/meter.h"

#include "lib/edge/clock.h"

#define S_P50  5000 /* in ten thousandths */
#define S_P99  9900
#define S_P999 9990

void dkt_meter_add(dkt_meter_t *self, uint64_t value)
{
    atomic_fetch_add_explicit(&self->cells[dkt_histogram_cell(value)], 1, memory_order_relaxed);
}

void dkt_meter_add_since(dkt_meter_t *self, int64_t begun_us)
{
    int64_t us = dkt_clock_mono_us() - begun_us;
    dkt_meter_add(self, us > 0 ? (uint64_t)us : 0);
}

json_t *dkt_histogram_json(const dkt_histogram_t *since, double divisor)
{
    double mean = since->count > 0 ? (double)since->sum_us / (double)since->count : 0;
    return json_pack("{s:I, s:f, s:f, s:f, s:f, s:f}", "count", (json_int_t)since->count, "mean",
                     mean / divisor, "p50", (double)dkt_histogram_at(since, S_P50) / divisor, "p99",
                     (double)dkt_histogram_at(since, S_P99) / divisor, "p999",
                     (double)dkt_histogram_at(since, S_P999) / divisor, "max",
                     (double)since->max_us / divisor);
}

json_t *dkt_meter_json(const dkt_meter_t *self, dkt_histogram_t *last, double divisor)
{
    dkt_histogram_t since = {.count = 0};
    for (uint32_t i = 0; i < DKT_HISTOGRAM_CELLS; i++) {
        /* Modulo 2^32, as the counter itself: it may wrap between two looks. */
        uint32_t now = atomic_load_explicit(&self->cells[i], memory_order_relaxed);
        since.cells[i] = now - (uint32_t)last->cells[i];
        last->cells[i] = now;
    }
    dkt_histogram_derive(&since);
    return dkt_histogram_json(&since, divisor);
}

json_t *dkt_traffic_json(const dkt_traffic_t *traffic)
{
    json_t *methods = json_object();
    for (uint32_t method = 0; method < DKT_TRAFFIC_METHODS; method++) {
        json_t *endings = json_object();
        for (uint32_t ending = 0; ending < DKT_ENDINGS; ending++) {
            uint64_t count = traffic->requests[method][ending];
            if (count > 0) {
                json_object_set_new(endings, dkt_ending_name(ending),
                                    json_integer((json_int_t)count));
            }
        }
        if (json_object_size(endings) > 0) {
            json_object_set(methods, dkt_traffic_method_name(method), endings);
        }
        json_decref(endings);
    }
    return methods;
}
