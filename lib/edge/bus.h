/* SPDX-License-Identifier: Apache-2.0
 *
 * One NATS connection of a process that serves whether NATS is there or not: brokers and workers.
 *
 *   - It starts while NATS is down and connects for as long as the process lives; subscriptions are
 *     made at once and hold across every reconnect.
 *   - Publishing while it is down fails at once: nothing is buffered, so nothing old is sent later.
 *   - Handlers run on a thread of the NATS client, one at a time over all buses of the process:
 * they hand over (lib/edge/mailbox.h) and never wait. None runs once dkt_bus_destroy has returned.
 *   - A server that hangs, or refuses the key, when the process starts is tried again. A key that
 * is refused later ends the connection for good: it is logged, and the process goes on without NATS
 * until it is started anew. Its requests are worth more than its news.
 *
 * The relay has a connection of its own (workers/relay_wire.c): there every break must be seen.
 */
#ifndef DKT_EDGE_BUS_H
#define DKT_EDGE_BUS_H

#include <nats/nats.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/core/status.h"

typedef struct dkt_bus dkt_bus_t;

typedef struct {
    const char *url;  /* nats://host:port */
    const char *keys; /* the fleet's folder */
    const char *role; /* whose key it takes: "worker", "broker" */
    const char *node; /* with the role, the connection's name for operators */
} dkt_bus_config_t;

/* Tries to connect once, for a second at most, and goes on trying behind the caller. NULL: no key,
 * no address or no memory; err tells. */
dkt_bus_t *dkt_bus_new(const dkt_bus_config_t *config, dkt_err_t *err);
/* Within two seconds. What the caller made on the connection itself (a jsCtx) is destroyed before.
 */
void dkt_bus_destroy(dkt_bus_t **self_p);

/* Connected as far as we know: a dead peer is noticed within 3 s. */
bool dkt_bus_up(const dkt_bus_t *self);
/* How often it has connected: 0 so far never. One more: what was published meanwhile is not known
 * to have arrived. */
uint64_t dkt_bus_connects(const dkt_bus_t *self);
/* For everything else that the client can do; the bus keeps it. NULL until it has connected. */
natsConnection *dkt_bus_connection(dkt_bus_t *self);

/* The handler owns the message. At most DKT_BUS_SUBSCRIPTIONS_MAX of them. */
DKT_CHECKED bool dkt_bus_subscribe(dkt_bus_t *self, const char *subject, natsMsgHandler handler,
                                   void *ctx);
/* The same in a queue group: each message goes to one of those who share it. */
DKT_CHECKED bool dkt_bus_share(dkt_bus_t *self, const char *subject, const char *queue,
                               natsMsgHandler handler, void *ctx);
/* False: not connected, or the message is too large. True says nothing about its arrival. */
bool dkt_bus_publish(dkt_bus_t *self, const char *subject, const void *data, size_t len);

#endif
