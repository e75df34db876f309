/* SPDX-License-Identifier: Apache-2.0
 *
 * What a worker tells operators over NATS, by one thread that alone may wait for it:
 * docket.stats.worker.<node> once a second, and refusals on docket.refused.<client_id>.
 *   mailbox  REFUSED of actors; STOP
 *   gives    messages on the bus, nothing to other threads
 */
#ifndef DKT_WORKERS_TELLER_H
#define DKT_WORKERS_TELLER_H

#include "workers/mail.h"

typedef struct dkt_teller dkt_teller_t;

/* env->bus and env->teller_box are set. NULL: no memory, or no thread. */
dkt_teller_t *dkt_teller_new(dkt_env_t *env);
/* May be NULL. */
void dkt_teller_destroy(dkt_teller_t **self_p);

/* From any thread, without waiting: at most DKT_REFUSED_PER_S in any second are told, the others
 * only counted. Without NATS it counts. */
void dkt_teller_refused(dkt_env_t *env, const dkt_client_t *client, const char *ticket_type,
                        const char *reason, int64_t earliest_ms);

#endif
