/* SPDX-License-Identifier: Apache-2.0
 *
 * Tenant context in a broker: a replica that the hub's thread keeps, with or without NATS.
 *
 *   docket.ctx.> on the bus's thread --bounded mailbox--> hub: step
 *   in doubt: a question over the link to any worker that lives, chunk by chunk
 *
 * All chunks of a pull are of one version and one hash, whoever sent them; otherwise, or when an
 * answer does not come, the pull has failed and is begun anew later.
 */
#ifndef DKT_BROKERS_HUB_CONTEXT_H
#define DKT_BROKERS_HUB_CONTEXT_H

#include "lib/core/router.h"
#include "lib/edge/bus.h"
#include "lib/edge/replica.h"

typedef struct {
    void *ctx;
    /* A link message to a worker; false: there is none. */
    bool (*ask)(void *ctx, const uint8_t *bytes, size_t len);
    void (*table)(void *ctx, const dkt_table_t *table); /* there is another one */
} dkt_hub_context_port_t;

typedef struct dkt_hub_context dkt_hub_context_t;

/* `own` is the broker's incarnation. NULL without memory or descriptors. */
dkt_hub_context_t *dkt_hub_context_new(const dkt_incarnation_t *own,
                                       const dkt_hub_context_port_t *port);
/* Hears news; the bus is destroyed before this. */
DKT_CHECKED bool dkt_hub_context_listen(dkt_hub_context_t *self, dkt_bus_t *bus);
void dkt_hub_context_destroy(dkt_hub_context_t **self_p);

/* To poll for reading. */
int dkt_hub_context_fd(const dkt_hub_context_t *self);
int64_t dkt_hub_context_due_mono_ms(dkt_hub_context_t *self);
/* With every round: takes the news there are, and asks if it is time to. */
void dkt_hub_context_turn(dkt_hub_context_t *self);
/* A worker's answer. False: it cannot be read. */
bool dkt_hub_context_chunk(dkt_hub_context_t *self, const dkt_link_header_t *header, dkt_r_t *r);

/* For any thread; lives as long as this. */
dkt_replica_t *dkt_hub_context_replica(dkt_hub_context_t *self);

#endif
