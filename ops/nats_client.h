/* SPDX-License-Identifier: Apache-2.0
 *
 * A NATS connection with the operators' key, for the commands that listen: events, top.
 */
#ifndef DKT_OPS_NATS_CLIENT_H
#define DKT_OPS_NATS_CLIENT_H

#include <nats/nats.h>
#include <stdbool.h>

#include "lib/core/status.h"

/* Where to connect: what --nats and --keys say, else DOCKET_NATS and DOCKET_KEYS, else the default
 * port of `docket up`. */
typedef struct {
    const char *url, *keys;
} dkt_nats_where_t;

void dkt_nats_defaults(dkt_nats_where_t *where);

/* One attempt. A connection that breaks is over. NULL: err tells. */
natsConnection *dkt_nats_connect(const dkt_nats_where_t *where, const char *name, dkt_err_t *err);

/* SIGINT or SIGTERM came; the first call of _watch catches them. */
void dkt_nats_watch_signals(void);
bool dkt_nats_stopped(void);

#endif
