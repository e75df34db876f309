/* SPDX-License-Identifier: Apache-2.0
 *
 * The broker without its sockets: which request is open, who may send it, where it goes and who
 * gets its answer. A state machine over events; the shell in brokers/ and the tests drive the same
 * object. There is neither a clock nor a socket in here, and no truth: losing it loses no promise.
 *
 *     client frame -> checks (page 4, in order) -> open -> QUEUED -> SENT -> answered
 *                                                  | |       ^ ^       |
 *                         above a tenant's share:  | +-> HELD  |       |
 *                                                  +-> WAITING <-------+  no owner, owner replaced,
 *                                                                         silent or `moved`
 *
 * Events in: a client's message, a worker's message, tick, flush. What leaves goes through the
 * port, only inside dkt_router_flush, dkt_router_tick and when a round's room is used up.
 * An open request keeps a copy of its frame until it is answered, so that it can be sent again.
 */
#ifndef DKT_CORE_ROUTER_H
#define DKT_CORE_ROUTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/core/limits.h"
#include "lib/core/link.h"
#include "lib/core/proto.h"
#include "lib/core/tenant.h"
#include "lib/core/traffic.h"

#define DKT_ADDRESS_BYTES_MAX 255 /* libzmq's longest routing id */
#define DKT_NODE_BYTES_MAX    63  /* longest node name on the link and in ping's answer */

/* A ZeroMQ routing id: where to, never who. */
typedef struct {
    uint8_t len;
    uint8_t bytes[DKT_ADDRESS_BYTES_MAX];
} dkt_address_t;

/* `mono_ms` counts budgets and silence, `unix_ms` is compared with the expiry of tokens, `mono_us`
 * measures how long requests take. */
typedef struct {
    int64_t mono_ms, unix_ms, mono_us;
} dkt_instant_t;

typedef enum {
    DKT_SENT_OK,
    DKT_SENT_FULL, /* the peer does not take more at present; nothing was sent */
    DKT_SENT_GONE, /* there is no such peer (any more) */
} dkt_sent_t;

typedef struct {
    void *ctx;
    /* One message: the empty delimiter and then these frames. Must not block. */
    dkt_sent_t (*to_client)(void *ctx, dkt_audience_t side, const dkt_address_t *to,
                            const dkt_view_t *frames, uint32_t count);
    /* One link message. Must not block. */
    dkt_sent_t (*to_worker)(void *ctx, const dkt_address_t *to, const uint8_t *bytes, size_t len);
    /* The peer address of the client message being handled, for the quota; never NULL. */
    const char *(*source)(void *ctx);
    void (*log)(void *ctx, dkt_log_level_t level, const char *text);
    /* A worker's answer to dkt_router_ask; may be NULL. False: it cannot be read. */
    bool (*context)(void *ctx, const dkt_link_header_t *header, dkt_r_t *r);
} dkt_router_port_t;

typedef struct {
    const char *node;              /* copied; at most DKT_NODE_BYTES_MAX bytes */
    const char *version;           /* static text */
    dkt_incarnation_t incarnation; /* of this broker process */
    uint64_t seed;                 /* random: nobody can aim at our hash tables */
    uint32_t pending_max;          /* <= DKT_BROKER_PENDING_MAX; 0: that */
    size_t pending_bytes_max;      /* 0: DKT_BROKER_PENDING_BYTES */
} dkt_router_config_t;

typedef struct {
    uint64_t frames;     /* that clients sent */
    uint64_t malformed;  /* answers with that code */
    uint64_t refused;    /* other errors that the broker answered itself, but the next three */
    uint64_t overloaded; /* no room: connection, vshard or broker */
    uint64_t limited;    /* create_account and login above the quota */
    uint64_t unavailable;
    uint64_t sent, resent;   /* requests to workers */
    uint64_t answered;       /* answers of workers passed on */
    uint64_t late_dropped;   /* answers to requests that are no longer open */
    uint64_t stale_dropped;  /* answers of an incarnation that is not the owner */
    uint64_t unread_dropped; /* answers that a client did not take */
    uint64_t link_malformed; /* worker messages that could not be read */
    uint64_t token_verified; /* signatures checked, i.e. misses of the cache */
    uint32_t open, waiting;  /* now */
    uint32_t held;           /* now, above a tenant's share */
    uint32_t connections;    /* records now */
    uint32_t workers;        /* live now */
    uint32_t unread;         /* answers kept for clients now */
    size_t pending_bytes, unread_bytes;
} dkt_router_counts_t;

typedef struct dkt_router dkt_router_t;

/* Heap; NULL without memory. `port` is copied. */
dkt_router_t *dkt_router_new(const dkt_router_config_t *config, const dkt_router_port_t *port,
                             dkt_instant_t now);
void dkt_router_destroy(dkt_router_t **self_p);

/* A message of a client, without its routing id: `frames` has the first `count` frames or, of a
 * message that is too long, the first DKT_FRAMES_PER_MESSAGE_MAX + 1. Borrowed for the call. */
void dkt_router_client(dkt_router_t *self, dkt_instant_t now, dkt_audience_t side,
                       const dkt_address_t *from, const dkt_view_t *frames, uint32_t count);

/* A link message of a worker. Its bytes must live until the next dkt_router_flush. */
void dkt_router_worker(dkt_router_t *self, dkt_instant_t now, const dkt_address_t *from,
                       const uint8_t *bytes, size_t len);

/* One tenant has so many requests in a row that nothing is gained by waiting for other tenants':
 * a flush is due. */
bool dkt_router_has_chunk(const dkt_router_t *self);

/* Sends what was gathered since the last flush: the end of a round of the loop. */
void dkt_router_flush(dkt_router_t *self, dkt_instant_t now);

/* Budgets that ended, delayed retries, clients that did not read, workers that left; flushes. */
void dkt_router_tick(dkt_router_t *self, dkt_instant_t now);
/* When it next wants a tick. */
int64_t dkt_router_due_mono_ms(const dkt_router_t *self);

/* Answers everything open with `unavailable`; the last act of a broker. */
void dkt_router_abort(dkt_router_t *self, dkt_instant_t now);

/* Sends a link message that is no request to a worker that lives, another one each time. False:
 * there is none, or it does not take it. */
bool dkt_router_ask(dkt_router_t *self, dkt_instant_t now, const uint8_t *bytes, size_t len);
/* A table that came another way than from a worker: taken if it is newer, as theirs are. */
void dkt_router_offer_table(dkt_router_t *self, dkt_instant_t now, const dkt_table_t *table);

/* {0, 0}: no table yet. */
dkt_table_version_t dkt_router_table(const dkt_router_t *self);
void dkt_router_counts(const dkt_router_t *self, dkt_router_counts_t *counts);
/* Every request that was answered, whoever answered it; latencies of those that were opened, from
 * receipt to answer. Valid until the router is destroyed. */
const dkt_traffic_t *dkt_router_traffic(const dkt_router_t *self);

#endif
