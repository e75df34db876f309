/* SPDX-License-Identifier: Apache-2.0
 *
 * `docket bench policy`: how many promises each admission policy of the slot ledger can keep, by
 * simulation; a table, JSON or an SVG bar chart beside the figures of the design.
 */
#ifndef DKT_OPS_BENCH_POLICY_H
#define DKT_OPS_BENCH_POLICY_H

int dkt_bench_policy_main(int argc, char **argv);

#endif
