/* SPDX-License-Identifier: Apache-2.0
 *
 * What all our NATS connections have in common: who we are (a role's nkey), and that silence is
 * noticed within seconds (page 7). Whether a broken connection comes back, and what a callback
 * does, is the caller's.
 */
#ifndef DKT_EDGE_NATS_OPTIONS_H
#define DKT_EDGE_NATS_OPTIONS_H

#include <nats/nats.h>
#include <stdint.h>

#include "lib/core/status.h"
#include "lib/edge/keys.h"

typedef struct {
    const char *url, *keys, *role; /* keys: the folder with the role's key */
    const char *name;              /* as the server shows it */
    int64_t connect_ms;            /* bound of one attempt */
} dkt_nats_options_t;

/* The caller's (natsOptions_Destroy); NULL on failure with err filled: as dkt_keys_nats says, or
 * UNAVAILABLE if the address is none, or without memory. *key is filled, and must outlive every
 * connection that may still be made with the options: it is what they sign with. */
natsOptions *dkt_nats_options(const dkt_nats_options_t *config, dkt_nats_key_t *key,
                              dkt_err_t *err);

#endif
