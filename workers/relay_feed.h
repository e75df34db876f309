/* SPDX-License-Identifier: Apache-2.0
 *
 * The actor's side of the relay: hands every committed journal row over, reads older ones and
 * writes the progress when the relay asks. All of it happens after the answers of a turn have left.
 * Without a relay (no NATS address) every call does nothing.
 */
#ifndef DKT_WORKERS_RELAY_FEED_H
#define DKT_WORKERS_RELAY_FEED_H

#include "lib/edge/pgstore.h"
#include "workers/mail.h"

typedef struct {
    dkt_env_t *env;
    dkt_client_t client;
    uint64_t serial, epoch;
    bool begun;
    uint64_t last_seq;       /* newest committed row */
    dkt_relay_mark_t marked; /* progress as stored, as far as known */
    uint64_t sent_seq;       /* row of the COMMIT that is in flight, 0: none */
    dkt_view_t sent_events, sent_tags;
    int64_t sent_us; /* monotonic, when it was sent */
    uint32_t read_limit;
    dkt_mail_t *head, *tail; /* of this turn */
    bool lost;               /* a row did not fit: the relay must be told that it exists */
} dkt_relay_feed_t;

void dkt_relay_feed_init(dkt_relay_feed_t *self, dkt_env_t *env, const dkt_client_t *client,
                         uint64_t serial);
/* A batch of the core's goes out. */
void dkt_relay_feed_submit(dkt_relay_feed_t *self, const dkt_batch_t *batch);
/* Looks at every result before the core does; true: it was the relay's own. */
DKT_CHECKED bool dkt_relay_feed_result(dkt_relay_feed_t *self, const dkt_store_result_t *result);
/* The tenant serves. */
void dkt_relay_feed_begin(dkt_relay_feed_t *self);
void dkt_relay_feed_ask(dkt_relay_feed_t *self, const dkt_relay_ask_mail_t *ask,
                        dkt_pgstore_t *store);
void dkt_relay_feed_flush(dkt_relay_feed_t *self);
/* The activation is over. */
void dkt_relay_feed_end(dkt_relay_feed_t *self);
/* Is there nothing that the relay could publish for this tenant now? While NATS is away there is
 * nothing; on a stream that was made anew there is the whole journal. */
bool dkt_relay_feed_settled(const dkt_relay_feed_t *self);
/* When the tenant must be active again: with events unpublished, soon. */
int64_t dkt_relay_feed_due_ms(const dkt_relay_feed_t *self, int64_t due_ms);

#endif
