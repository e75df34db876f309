/* SPDX-License-Identifier: Apache-2.0
 *
 * The inside of the simulated world, shared by tests/sim/sim_*.c only.
 */
#ifndef DKT_SIM_IMPL_H
#define DKT_SIM_IMPL_H

#include "lib/core/ids.h"
#include "lib/core/proto.h"
#include "tests/sim/sim_world.h"

#define START_MS           INT64_C(1790000000000) /* any wall clock time */
#define EVENTS_MAX         200000
#define HEAL_MS            60000 /* after the faults: everything must have ended by then */
#define CLIENT_RETRY_MS    400
#define CLIENT_BUDGET_MS   5000
#define FENCE_SLACK_MS     100  /* an answer decided just before the fence closed, on its way */
#define TERMINATE_AFTER_MS 2000 /* rule 11: a lock still held this long after a new assignment */
#define FRAME_BYTES        1024
#define REFUSAL_SLACK_MS   2000  /* on top of the minute a refusal is remembered */
#define SLOW_MS            10000 /* how long a database's bad time lasts */

typedef enum { OP_CREATE, OP_CANCEL, OP_RESOLVE, OP_HOLD, OP_ALLOCATE, OP_RELEASE } op_kind_t;

typedef struct {
    op_kind_t kind;
    uint32_t about;        /* the op whose ticket or hold this one is about */
    uint64_t about_ticket; /* that ticket; 0: none */
    uint8_t frame[FRAME_BYTES];
    uint32_t frame_len;
    bool poisoned;
    bool ended, created, refused, cancelled, too_late, released;
    uint64_t ticket;
    uint64_t created_epoch;
    int64_t created_ms; /* tenant time of the decision */
    int64_t hold_expires_ms, refused_at_ms;
    bool release_tried; /* somebody has asked to release this hold */
    bool again;         /* answered long ago, and asked once more */
    bool old_refusal;   /* heard the old refusal then */
    bool anew;          /* heard a new verdict then */
    dkt_uuid_t request_id;
    dkt_slot_ref_t slot;
    char slot_text[DKT_ID_CHARS_MAX + 1];
    char ticket_text[DKT_ID_CHARS_MAX + 1];
} op_t;

typedef enum {
    EV_OP,      /* a client thinks of something */
    EV_SEND,    /* an op's (next) attempt */
    EV_AGAIN,   /* an op that was answered is asked once more */
    EV_REQUEST, /* arrives at node */
    EV_ANSWER,  /* arrives at the client */
    EV_APPLY,   /* a batch takes effect */
    EV_RESULT,  /* its result arrives at node */
    EV_CLOSE,   /* the server sees the end of a session */
    EV_START,   /* a node activates the tenant */
    EV_TICK,
    EV_FAULT,
    EV_WAKE,    /* a stopped node goes on */
    EV_BOOT,    /* a killed node is there again */
    EV_LOST,    /* a node hears that its connection is gone */
    EV_MIGRATE, /* somebody asks the nodes for a step of the schema */
} event_kind_t;

typedef struct {
    int64_t at_us;
    uint64_t tie;
    event_kind_t kind;
    uint32_t node, generation, session, op;
    bool lose_after;
    sim_batch_t *batch;
    sim_result_t *result;
    uint8_t *bytes;
    uint32_t len;
} event_t;

typedef struct {
    dkt_tenant_t *core;
    uint32_t generation; /* of the core: events for an older one are stale */
    uint32_t session;
    bool dead, stopped, starting;
    int64_t last_apply_us;
    int64_t last_result_us; /* results come in the order of the batches, as on one connection */
    int64_t tick_at_us;     /* the earliest tick under way; 0: none */
    int64_t turn_at_us;     /* what nobody waits for has its turn then; 0: nothing waits */
    dkt_table_version_t table;
    int64_t lock_refused_since_ms;
    dkt_uuid_t suspects[64];
    uint32_t suspect_count;
    event_t *parked; /* what arrived while it was stopped */
    uint32_t parked_count, parked_max;
} node_t;

typedef struct {
    sim_options_t options;
    uint64_t rng;
    int64_t now_us;
    event_t *heap;
    uint32_t heap_count;
    node_t nodes[SIM_NODES];
    uint32_t assigned;
    dkt_table_version_t table;
    int64_t assigned_at_ms;
    uint32_t session_next;
    bool session_open[SIM_SESSIONS_MAX];
    sim_store_t store;
    int64_t epoch_since_ms;
    uint64_t epoch_seen;
    int64_t clock_offset_ms; /* of the database */
    op_t *ops;
    uint32_t op_count;
    bool healing;
    int64_t slow_until_us; /* the database has a bad time: one stall seldom comes alone */
    dkt_keyring_t ring;
    dkt_client_t client;
    dkt_token_secret_t token_key;
    sim_summary_t summary;
    char violation[256];
} world_t;

/* -- sim_world.c: randomness, time, the heap -- */
uint64_t sim_random(world_t *self);
uint32_t sim_below(world_t *self, uint32_t bound);
bool sim_chance(world_t *self, uint32_t permille);
int64_t sim_now_ms(const world_t *self);
void sim_violate(world_t *self, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_trace(world_t *self, uint64_t value);
void sim_schedule(world_t *self, int64_t delay_us, event_t event);

/* -- sim_node.c: the shell around the core -- */
void sim_step(world_t *self, uint32_t index, const dkt_tenant_event_t *event);
void sim_start(world_t *self, uint32_t index);
void sim_terminate(world_t *self, uint32_t session);
void sim_lose(world_t *self, uint32_t index);

/* -- sim_client.c -- */
void sim_think(world_t *self);
void sim_send(world_t *self, uint32_t index);
void sim_again(world_t *self, uint32_t index);
void sim_on_answer(world_t *self, const event_t *event);
void sim_on_request(world_t *self, const event_t *event);
void sim_check_history(world_t *self);

#endif
