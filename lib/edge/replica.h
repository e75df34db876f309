/* SPDX-License-Identifier: Apache-2.0
 *
 * A replica of tenant context that several threads of a process read: the pure state machine of
 * lib/core/context.h behind a lock. One thread steps it; everybody may look. Nobody keeps the lock
 * for longer than it takes to copy what is wanted.
 */
#ifndef DKT_EDGE_REPLICA_H
#define DKT_EDGE_REPLICA_H

#include <jansson.h>

#include "lib/core/context.h"

typedef struct dkt_replica dkt_replica_t;

/* NULL without memory. */
dkt_replica_t *dkt_replica_new(void);
void dkt_replica_destroy(dkt_replica_t **self_p);

/* -- for everybody -- */

/* To read with the functions of lib/core/context.h; must be given back at once. */
const dkt_context_t *dkt_replica_lock(dkt_replica_t *self);
void dkt_replica_unlock(dkt_replica_t *self);

/* These take the lock themselves. */
bool dkt_replica_find(dkt_replica_t *self, const dkt_client_t *client,
                      dkt_context_record_t *record);
void dkt_replica_info(dkt_replica_t *self, dkt_context_info_t *info);
/* {state, epoch, seq, records, hash, lag, heard_ms, changes, doubts: {gap, epoch, hash, silence},
 * resyncs, sames, failures}, the `ctx` of docket.stats; NULL without memory. */
json_t *dkt_replica_json(dkt_replica_t *self);

/* -- for the thread that keeps it -- */

/* A step now, with a random number of its own. */
void dkt_replica_step(dkt_replica_t *self, dkt_context_event_t event, dkt_context_out_t *out);
int64_t dkt_replica_due_mono_ms(dkt_replica_t *self);

#endif
