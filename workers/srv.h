/* SPDX-License-Identifier: Apache-2.0
 *
 * The NATS services protocol ("micro"): answers $SRV.PING, $SRV.INFO and $SRV.STATS, also by name
 * and by id, from a thread of the NATS client that waits for nobody.
 */
#ifndef DKT_WORKERS_SRV_H
#define DKT_WORKERS_SRV_H

#include <nats/nats.h>
#include <stdbool.h>
#include <stdint.h>

#define DKT_SRV_SUBJECTS      9
#define DKT_SRV_ID_BYTES      33
#define DKT_SRV_STARTED_BYTES 32

typedef struct {
    const char *name, *node; /* docket-worker; borrowed for ever */
    char id[DKT_SRV_ID_BYTES];
    char started[DKT_SRV_STARTED_BYTES];
    natsSubscription *subscriptions[DKT_SRV_SUBJECTS];
} dkt_srv_t;

/* `id` is hex, new at each start of the process. */
void dkt_srv_init(dkt_srv_t *self, const char *name, const char *node, const uint8_t id[16]);
/* On a new connection; the object outlives all its callbacks. */
bool dkt_srv_listen(dkt_srv_t *self, natsConnection *connection);
void dkt_srv_close(dkt_srv_t *self);

#endif
