/* SPDX-License-Identifier: Apache-2.0
 *
 * `docket bench ledger`: nanoseconds per decision of the slot ledger beside a naive scan.
 */
#ifndef DKT_OPS_BENCH_LEDGER_H
#define DKT_OPS_BENCH_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    DKT_LEDGER_ADMIT,
    DKT_LEDGER_CANCEL,
    DKT_LEDGER_REFUSE,
    DKT_LEDGER_OP_COUNT
} dkt_ledger_op_t;

extern const char *const dkt_ledger_op_names[DKT_LEDGER_OP_COUNT];

#define DKT_LEDGER_TENANTS 2
extern const uint16_t dkt_ledger_tenants[DKT_LEDGER_TENANTS]; /* resolvers, few and many */

typedef struct {
    double ns[DKT_LEDGER_OP_COUNT];
} dkt_ledger_times_t;

/* Medians of the ledger over `rounds`, means of the scan. False: no memory. */
bool dkt_ledger_measure(uint16_t resolvers, uint32_t rounds, dkt_ledger_times_t *ledger_times,
                        dkt_ledger_times_t *scan_times);

int dkt_bench_ledger_main(int argc, char **argv);

#endif
