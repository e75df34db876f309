/* SPDX-License-Identifier: Apache-2.0
 *
 * Entry points of the commands in ops/ that run or measure something themselves; those that talk
 * to a fleet as its clients do are in cmd.h. Each takes its own name as argv[0] and returns the
 * exit status: 0 done, 1 refused or failed, 2 wrong use.
 */
#ifndef DKT_OPS_COMMANDS_H
#define DKT_OPS_COMMANDS_H

int dkt_up_main(int argc, char **argv);
int dkt_doctor_main(int argc, char **argv);
int dkt_events_main(int argc, char **argv);
int dkt_top_main(int argc, char **argv);
int dkt_migrate_main(int argc, char **argv);
int dkt_bench_policy_main(int argc, char **argv);
int dkt_bench_ledger_main(int argc, char **argv);

#endif
