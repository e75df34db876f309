/* SPDX-License-Identifier: Apache-2.0
 *
 * The broker's sockets and its one loop around the router. One thread owns everything here but the
 * authenticator's.
 *
 *     public ROUTER   \                                  round: receive what is there (bounded),
 *     internal ROUTER  > receive -> router -> send       route it, send what came of it; sleep only
 *     workers ROUTER  /                                  when a round received nothing
 */
#ifndef DKT_BROKERS_HUB_H
#define DKT_BROKERS_HUB_H

#include <stdbool.h>

#include "lib/core/status.h"

typedef struct {
    const char *public_address, *internal_address, *workers_address;
    const char *keys; /* folder */
    const char *node;
    const char *nats;  /* URL; NULL: none */
    int ready_fd;      /* "ready\n" goes there; -1: nowhere */
    bool insecure_dev; /* no CURVE on the internal endpoint */
} dkt_hub_config_t;

typedef struct dkt_hub dkt_hub_t;

/* Binds; NULL on failure with err filled. Signals HUP, INT and TERM must be blocked already. */
dkt_hub_t *dkt_hub_new(const dkt_hub_config_t *config, dkt_err_t *err);
/* Serves until SIGINT or SIGTERM, then drains. */
DKT_CHECKED dkt_status_t dkt_hub_run(dkt_hub_t *self, dkt_err_t *err);
void dkt_hub_destroy(dkt_hub_t **self_p);

#endif
