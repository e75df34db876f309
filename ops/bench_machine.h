/* SPDX-License-Identifier: Apache-2.0
 *
 * What figures depend on and must be told with them: the machine, and the servers' settings as the
 * servers themselves tell them.
 */
#ifndef DKT_OPS_BENCH_MACHINE_H
#define DKT_OPS_BENCH_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    char cpu[96], kernel[80];
    int cores;
    double load_average; /* of the last minute: what else ran */
    double fdatasync_ms; /* median of writing and syncing 8 KiB */
    uint64_t pingpong_us;
} dkt_bench_machine_t;

void dkt_bench_machine(dkt_bench_machine_t *out);

/* Where fleets and peers keep their data while they are measured: $TMPDIR, or /tmp. */
const char *dkt_bench_temp(void);

/* Median of a bare eventfd ping-pong between two threads, us: what a thread hop costs here. */
uint64_t dkt_bench_pingpong_us(void);

typedef struct {
    char version[64], fsync[16], synchronous_commit[24];
} dkt_bench_postgres_t;

/* Reads them from PostgreSQL; false (and "-") if it cannot be asked. */
bool dkt_bench_settings(const char *uri, dkt_bench_postgres_t *out);

#endif
