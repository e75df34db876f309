/* SPDX-License-Identifier: Apache-2.0
 *
 * What a broker tells operators over NATS: docket.stats.broker.<node> once a second and the service
 * docket-broker. One thread of its own, so that the loop that routes never waits for NATS:
 *
 *   hub --offer, once a second--> copy under a lock that the hub only tries --> teller --> NATS
 */
#ifndef DKT_BROKERS_HUB_TELLER_H
#define DKT_BROKERS_HUB_TELLER_H

#include "lib/core/router.h"
#include "lib/edge/bus.h"
#include "lib/edge/replica.h"

typedef struct dkt_hub_teller dkt_hub_teller_t;

/* `bus`, `tenants` and `node` outlive it. NULL: no memory, or no thread. */
dkt_hub_teller_t *dkt_hub_teller_new(dkt_bus_t *bus, dkt_replica_t *tenants, const char *node);
/* Called with every round of the hub's; looks at the clock and mostly does nothing. */
void dkt_hub_teller_offer(dkt_hub_teller_t *self, const dkt_router_t *router, int64_t now_mono_ms);
/* Ends the thread; on the bus its handlers may still run. May be NULL. */
void dkt_hub_teller_stop(dkt_hub_teller_t *self);
/* After the bus was destroyed. */
void dkt_hub_teller_destroy(dkt_hub_teller_t **self_p);

#endif
