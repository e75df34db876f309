/* SPDX-License-Identifier: Apache-2.0
 *
 * `docket bench ledger`: nanoseconds per decision of the slot ledger beside a naive scan.
 */
#ifndef DKT_OPS_BENCH_LEDGER_H
#define DKT_OPS_BENCH_LEDGER_H

int dkt_bench_ledger_main(int argc, char **argv);

#endif
