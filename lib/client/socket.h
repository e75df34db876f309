/* SPDX-License-Identifier: Apache-2.0
 *
 * The edges of a producer: its socket, and a decoded answer as a reply.
 */
#ifndef DKT_CLIENT_SOCKET_H
#define DKT_CLIENT_SOCKET_H

#include "lib/core/proto.h"
#include "lib/docket.h"

/* A connecting DEALER, the caller's to close; NULL with `err`. */
void *dkt_socket_open(void *zmq, const dkt_producer_options_t *options, dkt_err_t *err);

/* The views of `answer` are borrowed by the reply. */
dkt_reply_t dkt_reply_of(const dkt_answer_t *answer);

#endif
