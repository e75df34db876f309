/* SPDX-License-Identifier: Apache-2.0
 *
 * Entry points of the commands that talk to a running fleet as its clients do. In each, argv[0] is
 * the command's own word ("ticket") and argv[1] its verb. Exit status: 0 done, 1 refused or
 * failed, 2 wrong use.
 */
#ifndef DKT_OPS_CMD_H
#define DKT_OPS_CMD_H

int dkt_cmd_account_main(int argc, char **argv); /* create login logout password */
int dkt_cmd_ticket_main(int argc,
                        char **argv); /* create cancel get list resolve hold allocate release */
int dkt_cmd_tenant_main(int argc, char **argv); /* get set list suspend resume export delete */
int dkt_demo_main(int argc, char **argv);
int dkt_bench_load_main(int argc, char **argv);    /* docket bench load */
int dkt_bench_chain_main(int argc, char **argv);   /* docket bench chain */
int dkt_bench_plpgsql_main(int argc, char **argv); /* docket bench plpgsql */
int dkt_bench_redis_main(int argc, char **argv);   /* docket bench redis */
int dkt_bench_suite_main(int argc, char **argv);   /* docket bench [all | p1 .. p10] */

#endif
