/* SPDX-License-Identifier: Apache-2.0
 *
 * A bound for the last step of connecting to NATS. libnats 3.4 waits for the server's first PONG
 * without one: its time-out there is taken for a byte read, so against a server that greets and
 * then hangs the thread spins, and its buffer grows, until the connection breaks. It shows nobody
 * its socket, but tells when it signs the greeting, just before that wait.
 */
#ifndef DKT_EDGE_NATS_WATCH_H
#define DKT_EDGE_NATS_WATCH_H

/* Call while the server's greeting is being signed. Within DKT_NATS_PONG_MS from now a connection
 * on which nothing was sent so far must have received something, or it is shut down: the client
 * then sees it closed, and what it does next is what it does at any failed attempt. Only NATS lets
 * the server speak first, so no other connection of this process can be meant. */
void dkt_nats_watch_pong(void);

#endif
