/* SPDX-License-Identifier: Apache-2.0
 *
 * The broker process: ROUTER sockets for producers (public, internal) and for workers, no truth
 * inside, no database credentials after its start.
 *   docket broker --public ADDR --internal ADDR --workers ADDR --keys DIR --node NAME
 *                 [--join URI] [--ready-fd N] [--insecure-dev]
 */
#ifndef DKT_BROKERS_BROKER_H
#define DKT_BROKERS_BROKER_H

/* argv[0] is "broker". Exit status: 0 clean shutdown, 1 failed, 2 wrong use. */
int dkt_broker_main(int argc, char **argv);

#endif
