/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of `docket bench load`, shared by bench_load*.c and bench_plpgsql.c only.
 *
 *   bench_load.c         options, the loop, the requests
 *   bench_load_setup.c   tenants with capacity, or without any
 *   bench_load_report.c  settings, ping-pong, table, JSON, SVG
 */
#ifndef DKT_OPS_BENCH_LOAD_H
#define DKT_OPS_BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/core/histogram.h"
#include "lib/core/limits.h"
#include "lib/docket.h"
#include "ops/bench_cpu.h"

#define DKT_BENCH_TENANTS_MAX 1000
#define DKT_BENCH_SECONDS_MAX 3600
#define DKT_BENCH_RING        65536 /* tickets of a tenant that can be cancelled again */

typedef enum {
    DKT_BENCH_CREATE,
    DKT_BENCH_REFUSE,
    DKT_BENCH_HOLD,
    DKT_BENCH_MIXED,
    DKT_BENCH_ONE,
    DKT_BENCH_MODE_COUNT
} dkt_bench_mode_t;

extern const char *const dkt_bench_modes[DKT_BENCH_MODE_COUNT];

typedef struct {
    const char *endpoint, *internal, *keys, *postgres, *svg;
    int tenants, seconds, in_flight, rate, batch, resolvers, fleet;
    dkt_bench_mode_t mode;
    bool json;
} dkt_bench_options_t;

typedef struct {
    char client_id[DKT_ID_CHARS_MAX + 1], token[DKT_TOKEN_BYTES_MAX];
    char (*ring)[DKT_ID_CHARS_MAX +
                 1]; /* ids of open tickets, oldest first; NULL where nothing is cancelled */
    uint32_t head, count;
    uint32_t capacity; /* open tickets above this are cancelled again */
} dkt_bench_tenant_t;

typedef struct {
    dkt_bench_options_t options;
    dkt_producer_t *producer; /* that the load goes through */
    dkt_producer_t *internal; /* NULL without --internal */
    dkt_bench_tenant_t *tenants;
    bool counting; /* after the warm-up */
    int64_t counted_from_us;
    uint64_t asked, created, refused, cancelled, held, other, errors, silences;
    uint64_t per_second[DKT_BENCH_SECONDS_MAX];
    uint64_t random;
    double seconds;      /* that were counted */
    dkt_bench_cpu_t cpu; /* used while it was counted */
    char error_text[200];
    dkt_histogram_t latency;
} dkt_bench_t;

bool dkt_bench_setup(dkt_bench_t *self);

typedef struct {
    char version[64], fsync[16], synchronous_commit[24];
} dkt_bench_settings_t;

/* Reads them from PostgreSQL; false (and "-") if it cannot be asked. */
bool dkt_bench_settings(const char *uri, dkt_bench_settings_t *out);

/* Median of a bare eventfd ping-pong between two threads, us: what a thread hop costs here. */
uint64_t dkt_bench_pingpong_us(void);

void dkt_bench_report(const dkt_bench_t *self);

#endif
