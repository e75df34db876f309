/* SPDX-License-Identifier: Apache-2.0
 *
 * The worker process: node loop, tenant actors, directory candidate, account saga, password hasher.
 *   docket worker --join URI --keys DIR --node NAME [--ready-fd N]
 */
#ifndef DKT_WORKERS_WORKER_H
#define DKT_WORKERS_WORKER_H

/* argv[0] is "worker". Exit status: 0 clean shutdown, 1 failed, 2 wrong use. */
int dkt_worker_main(int argc, char **argv);

#endif
