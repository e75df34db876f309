/* SPDX-License-Identifier: Apache-2.0
 *
 * A request's whole way in one thread and without a socket, so that its instructions can be
 * counted. All of it is the real code, but for what stands in brackets:
 *
 *   client frame -> dkt_router_client, _flush -> [queue] -> dkt_node_read, _request, _give, _feed
 *                -> mailbox -> [actor's turn] -> dkt_tenant_step -> relay feed, dkt_pgstore_send
 *                -> [a database that has committed at once] -> dkt_tenant_step -> mailbox
 *                -> dkt_node_send_answer, _flush -> [queue] -> dkt_router_worker, _flush -> frame
 *
 * libzmq, libpq and the clock are replaced by the linker (--wrap): what they cost is not counted,
 * what we do to call them is. Time stands still but for chain_new's start, all ids and keys are
 * made of numbers: the count of a scenario is the same in every run.
 *
 * Files: chain.c the world and its hops, chain_actor.c an actor without its thread,
 * instructions.c the scenarios.
 */
#ifndef DKT_TESTS_BENCH_CHAIN_H
#define DKT_TESTS_BENCH_CHAIN_H

#include "lib/core/router.h"
#include "workers/node.h"

#define CHAIN_TENANTS_MAX  1000
#define CHAIN_REQUESTS_MAX 256 /* of one round */
#define CHAIN_FRAME_BYTES  1024
#define CHAIN_ANSWER_BYTES 1024
#define CHAIN_LINK_QUEUE   4                      /* link messages of one hop */
#define CHAIN_START_MS     INT64_C(1790000000000) /* 20 s into a minute */

typedef struct {
    uint32_t tenants;
    uint16_t resolvers;
    uint32_t open; /* bronze tickets that each tenant has from the start */
} chain_config_t;

typedef struct {
    dkt_client_t client;
    char client_id[DKT_ID_CHARS_MAX + 1];
    char token[DKT_TOKEN_BYTES_MAX];
    dkt_address_t address; /* of its producer */
} chain_tenant_t;

/* A request of a round and its answer. */
typedef struct {
    uint8_t frame[CHAIN_FRAME_BYTES];
    uint32_t frame_len;
    uint8_t answer[CHAIN_ANSWER_BYTES];
    uint32_t answer_len;
} chain_slot_t;

typedef struct {
    size_t len[CHAIN_LINK_QUEUE];
    uint8_t *bytes[CHAIN_LINK_QUEUE]; /* DKT_LINK_BYTES_MAX each */
    uint32_t first, count;
} chain_queue_t;

typedef struct {
    chain_config_t config;
    int64_t mono_ms, db_ms;
    dkt_env_t env;
    dkt_node_t *node;
    dkt_router_t *router;
    dkt_actor_t *runnable; /* those that were fed in this round */
    chain_tenant_t *tenants;
    chain_queue_t to_worker, to_broker;
    uint32_t answered; /* of this round */
    chain_slot_t slots[CHAIN_REQUESTS_MAX];
} chain_t;

/* The one world: the linker's wrappers and the actors find it here. */
extern chain_t *chain;

void chain_new(const chain_config_t *config);
void chain_destroy(void);

/* One message of a tenant's producer with the frames of `count` slots from `first` on. */
void chain_send(uint32_t tenant, dkt_audience_t side, uint32_t first, uint32_t count);

/* The hops of a round, in order. What they call is what is counted. */
void chain_broker_out(void);
void chain_node_in(void);
void chain_actors(void);
void chain_node_out(void);
void chain_broker_in(void);

/* What the relay would take away; frees it. */
void chain_empty_relay(void);
/* The same, and before it the messages that the relay would publish; how many events they had. The
 * state machine (lib/core/relay.h) and the NATS client work per message and are not called. */
uint32_t chain_publish(void);

/* Mono time passes; nothing happens by itself. */
void chain_pass(int64_t ms);

/* A turn of every actor that was fed. */
void chain_actors_run(void);

#endif
