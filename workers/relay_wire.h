/* SPDX-License-Identifier: Apache-2.0
 *
 * The relay's NATS connection. A connection that breaks is over and a new one is made: so the relay
 * knows that whatever was on its way may be lost, and nothing is sent on a new connection that
 * ought to follow something lost on the old one.
 */
#ifndef DKT_WORKERS_RELAY_WIRE_H
#define DKT_WORKERS_RELAY_WIRE_H

#include "workers/mail.h"

#define DKT_EVENT_STREAM "DOCKET_EVENT"

typedef struct dkt_wire dkt_wire_t;

/* Reads the worker's key; NULL and a log line if it cannot. */
dkt_wire_t *dkt_wire_new(dkt_env_t *env);
void dkt_wire_destroy(dkt_wire_t **self_p);

/* Connects, makes the stream if it is missing, and tells which one it is. Blocks for 2 s at most.
 * `text` says why not. */
DKT_CHECKED bool dkt_wire_connect(dkt_wire_t *self, dkt_relay_mark_t *stream,
                                  char text[DKT_ERR_TEXT_BYTES_MAX]);
/* Which stream it is now. */
DKT_CHECKED bool dkt_wire_stream(dkt_wire_t *self, dkt_relay_mark_t *stream);
bool dkt_wire_up(const dkt_wire_t *self);
void dkt_wire_close(dkt_wire_t *self);

/* The acknowledgement comes as RELAY_ACK with this token, or never. False: the connection is over.
 */
DKT_CHECKED bool dkt_wire_publish(dkt_wire_t *self, uint64_t token, const char *subject,
                                  const char *id, const char *data, size_t len);

#endif
