/* SPDX-License-Identifier: Apache-2.0
 *
 * The relay of a worker: one thread with a NATS connection of its own. It publishes the journal of
 * every tenant that is active here (lib/core/relay.h decides what and when). Nobody waits for it;
 * what it cannot keep in memory it reads again through the tenant's actor.
 *   mailbox  RELAY_BEGIN, RELAY_ROW, RELAY_READ, RELAY_END of actors; RELAY_ACK of the NATS client
 *   gives    RELAY_ASK to actors, through the node loop
 */
#ifndef DKT_WORKERS_RELAY_H
#define DKT_WORKERS_RELAY_H

#include "workers/mail.h"

typedef struct dkt_relay_thread dkt_relay_thread_t;

/* env->relay_box, nats and keys are set. NULL: no thread, no memory, or no key. */
dkt_relay_thread_t *dkt_relay_thread_new(dkt_env_t *env);
/* May be NULL. What nobody has acknowledged is published by the next owner. */
void dkt_relay_thread_destroy(dkt_relay_thread_t **self_p);

/* Frees what a mail of the relay's holds, not the mail; others are left alone. */
void dkt_relay_mail_empty(dkt_mail_t *mail);

#endif
