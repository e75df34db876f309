/* SPDX-License-Identifier: Apache-2.0
 *
 * The authenticator of the internal endpoint (ZeroMQ's ZAP, RFC 27): one thread that answers every
 * CURVE handshake by a list of allowed client keys. libzmq lets every key in when nobody answers,
 * so it is started before any bind and stopped after every socket is closed; and whoever receives
 * drops a message without the `User-Id` that only this thread gives (the key's fingerprint).
 *
 * The list is DIR/internal.allowed. It is read again when the file changes; a file that cannot be
 * read lets nobody in. A handshake is judged once: a key that is taken off the list keeps the
 * connections it has.
 */
#ifndef DKT_EDGE_ZAP_H
#define DKT_EDGE_ZAP_H

#include "lib/core/status.h"

#define DKT_ZAP_DOMAIN "internal" /* of the sockets it serves; every other one is refused */

typedef struct dkt_zap dkt_zap_t;

/* `context` is a libzmq context. NULL on failure, with err filled. */
dkt_zap_t *dkt_zap_start(void *context, const char *keys_folder, dkt_err_t *err);
/* Reads the list again with the next handshake, even if the file looks unchanged. Thread-safe. */
void dkt_zap_reload(dkt_zap_t *self);
/* After the sockets of its domain are closed. */
void dkt_zap_stop(dkt_zap_t **self_p);

#endif
