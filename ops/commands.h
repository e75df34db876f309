/* SPDX-License-Identifier: Apache-2.0
 *
 * The entry point of every command that lives in ops/. Each takes its own name as argv[0] and
 * returns the exit status: 0 done, 1 refused or failed, 2 wrong use.
 */
#ifndef DKT_OPS_COMMANDS_H
#define DKT_OPS_COMMANDS_H

int dkt_up_main(int argc, char **argv);           /* up.c */
int dkt_doctor_main(int argc, char **argv);       /* doctor.c */
int dkt_demo_main(int argc, char **argv);         /* demo.c */
int dkt_cmd_account_main(int argc, char **argv);  /* cmd_account.c */
int dkt_cmd_ticket_main(int argc, char **argv);   /* cmd_ticket.c */
int dkt_cmd_tenant_main(int argc, char **argv);   /* cmd_tenant.c */
int dkt_bench_policy_main(int argc, char **argv); /* bench_policy.c */
int dkt_bench_ledger_main(int argc, char **argv); /* bench_ledger.c */
int dkt_bench_load_main(int argc, char **argv);   /* bench_load.c */

#endif
