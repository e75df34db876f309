/* SPDX-License-Identifier: Apache-2.0
 *
 * The broker's ROUTER sockets: how they are set up, and whole messages in and out of them.
 */
#ifndef DKT_BROKERS_HUB_SOCKET_H
#define DKT_BROKERS_HUB_SOCKET_H

#include <zmq.h>

#include "lib/core/router.h"
#include "lib/edge/keys.h"

/* What differs between the sockets of clients and of workers. */
typedef struct {
    int64_t frame_bytes_max; /* libzmq closes a connection above it */
    int hwm;                 /* messages of a connection, either way; 0: no bound */
    bool heartbeats;         /* only together with hwm 0 */
} dkt_hub_side_t;

extern const dkt_hub_side_t dkt_hub_clients, dkt_hub_workers;

/* `curve` NULL: no encryption; otherwise the socket is in the authenticator's domain. NULL on
 * failure with err filled. */
void *dkt_hub_bind(void *context, const char *address, const dkt_hub_side_t *side,
                   const dkt_curve_key_t *curve, dkt_err_t *err);

/* One message: a routing id and the frames behind it. */
typedef struct {
    dkt_address_t from;
    zmq_msg_t frames[DKT_FRAMES_PER_MESSAGE_MAX + 2]; /* the delimiter and one too many */
    uint32_t kept;                                    /* of them */
    uint32_t count;                                   /* that the message had */
} dkt_hub_message_t;

/* Receives one whole message without waiting; false if there is none. Frames beyond those that fit
 * are counted and dropped. The kept ones are the caller's, for dkt_hub_message_close. */
DKT_CHECKED bool dkt_hub_receive(void *socket, dkt_hub_message_t *message);
void dkt_hub_message_close(dkt_hub_message_t *message);

/* Sends to one peer without waiting: the delimiter first if `delimiter`, then the frames. */
dkt_sent_t dkt_hub_send(void *socket, const dkt_address_t *to, bool delimiter,
                        const dkt_view_t *frames, uint32_t count);

#endif
