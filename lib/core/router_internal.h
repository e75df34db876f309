/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of the router share; nobody else includes it.
 *
 *   router.c        life cycle, client messages, tick
 *   router_check.c  who may send what, in the contract's order
 *   router_link.c   workers, the table, where a request goes
 *   router_share.c  how much of a tenant goes on while others are served
 *   router_conn.c   connections, answers, clients that do not read
 *   router_cache.c  verified tokens and quotas, in tables of a fixed size
 *
 * Records live in arrays and are named by their index; DKT_RT_NONE is no record.
 */
#ifndef DKT_CORE_ROUTER_INTERNAL_H
#define DKT_CORE_ROUTER_INTERNAL_H

#include "lib/core/router.h"
#include "lib/core/spare.h"

#define DKT_RT_NONE         UINT32_MAX
#define DKT_RT_WHEEL_SLOTS  4096 /* times 16 ms: 65 s, longer than any budget with its grace */
#define DKT_RT_SLOT_MS      16
#define DKT_RT_OUT_MAX      4096   /* answers of one round, then it is flushed */
#define DKT_RT_ARENA_BYTES  262144 /* the broker's own answers of one round */
#define DKT_RT_ANSWER_BYTES 512    /* room for one of them: a sentence, a field, a node name */
#define DKT_RT_BUCKETS      32768  /* of the hash table of connections */
#define DKT_RT_WAYS         4      /* of the token cache and the quota table */

typedef struct {
    uint32_t first, last, count;
} dkt_rt_list_t;

/* The lists that a request is in at a time: one of each. */
typedef enum { DKT_RT_BY_TIME, DKT_RT_BY_CONNECTION, DKT_RT_BY_PLACE, DKT_RT_LISTS } dkt_rt_by_t;

typedef enum {
    DKT_RT_FREE,
    DKT_RT_UNPLACED, /* on its way from one place to another, inside one call */
    DKT_RT_HELD,     /* place: router.held of its vshard, above its tenant's share */
    DKT_RT_WAITING,  /* place: router.waiting */
    DKT_RT_QUEUED,   /* place: worker.queued, leaves with the next flush */
    DKT_RT_SENT,     /* place: worker.sent */
} dkt_rt_state_t;

typedef struct {
    uint64_t seq; /* count << 16 | index; 0: free */
    dkt_rt_state_t state;
    uint32_t connection, worker; /* worker: of QUEUED and SENT */
    uint32_t prev[DKT_RT_LISTS], next[DKT_RT_LISTS];
    uint32_t msgid;
    uint32_t wheel;           /* slot of the wheel that it is in */
    int64_t begun_mono_us;    /* when it came */
    int64_t deadline_mono_ms; /* end of the budget */
    int64_t retry_mono_ms;    /* WAITING: not before; 0: whenever an owner is there */
    int64_t token_issued_ms, token_expires_ms;
    uint8_t token_id[DKT_TOKEN_ID_BYTES];
    uint8_t side, method;
    bool unchecked; /* waits for the keys: its token was not verified yet */
    bool grace;     /* its budget is over, its owner may still be committing */
    bool sent_once; /* sending it again is counted as such */
    uint8_t losses; /* workers that had it, did not answer and may have carried it out */
    uint16_t vshard;
    uint32_t len;
    uint8_t *body;
} dkt_rt_open_t;

typedef struct dkt_rt_unread {
    struct dkt_rt_unread *next;
    uint32_t len;
    uint8_t bytes[];
} dkt_rt_unread_t;

typedef struct {
    bool used, dirty, pinned;
    uint8_t side;
    dkt_address_t address;
    uint32_t bucket_next;
    uint32_t dirty_next;
    dkt_rt_list_t open;
    uint32_t out_first, out_last, out_count;     /* answers of this round */
    dkt_rt_unread_t *unread_first, *unread_last; /* answers that the socket did not take */
    uint32_t unread_count;
    int64_t stuck_mono_ms; /* since when it takes none */
    uint32_t stuck_prev, stuck_next;
} dkt_rt_connection_t;

typedef struct {
    dkt_view_t body;
    uint32_t next;
} dkt_rt_out_t;

typedef struct {
    bool used;
    bool connected;  /* its address works as far as we know */
    bool silent;     /* unheard for DKT_LINK_SILENCE_MS at the last look */
    uint16_t member; /* index in the table, or DKT_VSHARD_NOBODY */
    dkt_incarnation_t incarnation;
    dkt_address_t address;
    int64_t heard_mono_ms;
    char node[DKT_NODE_BYTES_MAX + 1];
    dkt_rt_list_t queued, sent;
} dkt_rt_worker_t;

typedef struct {
    uint64_t hash; /* 0: empty */
    dkt_claims_t claims;
    uint16_t vshard; /* of the claims' client */
    uint8_t *token;  /* the whole text: a hash alone would let a collision in */
    uint32_t len;
} dkt_rt_token_t;

typedef struct {
    uint64_t hash; /* 0: empty */
    int64_t at_mono_ms;
    int64_t millis; /* tokens of the bucket, in thousandths */
} dkt_rt_quota_t;

/* A vshard whose tenant asks for little. */
typedef struct {
    uint16_t vshard;
    int64_t until_mono_ms; /* so long it counts */
} dkt_rt_light_t;

struct dkt_router {
    dkt_client_seen_t client_seen;
    dkt_vshard_seen_t vshard_seen;
    const dkt_rt_token_t *token_seen; /* of `good`: what the last request came with; may be NULL */
    dkt_router_port_t port;
    dkt_router_config_t config;
    char node[DKT_NODE_BYTES_MAX + 1];
    dkt_router_counts_t counts;
    dkt_traffic_t traffic;

    dkt_rt_open_t *opens;
    uint32_t open_used, open_free; /* never used from here on; head of the free ones */
    uint64_t seq_count;
    dkt_spare_t bodies; /* memory of their frames */
    dkt_rt_list_t waiting;
    int64_t retry_mono_ms; /* earliest retry of the waiting ones */
    dkt_rt_list_t wheel[DKT_RT_WHEEL_SLOTS];
    int64_t wheel_at; /* slots before this one are settled */
    int64_t ticked_mono_ms;
    uint16_t open_of_vshard[DKT_VSHARDS];
    uint16_t chunk_vshard; /* the last one that was opened */
    uint32_t chunk_count;  /* how many in a row are of it, since the last flush */

    dkt_rt_list_t held[DKT_VSHARDS];
    uint16_t held_vshards[DKT_VSHARDS]; /* which have some, or had since the last flush */
    bool is_held[DKT_VSHARDS];          /* is it among them? */
    uint32_t held_vshard_count;
    int64_t share_due_mono_ms;                /* held ones go on then */
    int64_t heavy_until_mono_ms[DKT_VSHARDS]; /* its tenant had its share open */
    dkt_rt_light_t lights[2];                 /* the last one, and the last one that is another */

    dkt_rt_connection_t *connections;
    uint32_t connection_used, connection_free;
    uint32_t buckets[DKT_RT_BUCKETS];
    uint32_t dirty_first;
    uint32_t stuck_first;

    dkt_rt_out_t outs[DKT_RT_OUT_MAX];
    uint32_t out_used;
    uint8_t arena[DKT_RT_ARENA_BYTES];
    size_t arena_used;

    dkt_rt_worker_t workers[DKT_BROKER_WORKERS_MAX];
    uint32_t worker_used;
    dkt_table_t table, incoming; /* version {0, 0}: none yet */
    uint32_t worker_of_member[DKT_MEMBERS_MAX];
    uint32_t spread; /* round robin of requests that any worker serves */
    uint32_t asked;  /* the worker that dkt_router_ask took last */
    uint8_t *batch;  /* DKT_LINK_BYTES_MAX */

    dkt_rt_token_t good[DKT_BROKER_TOKENS_MAX], bad[DKT_BROKER_BAD_TOKENS_MAX];
    dkt_rt_quota_t quotas[DKT_BROKER_SOURCES_MAX];
};

/* -- router.c: open requests --------------------------------------------------------------------
 */

void dkt_rt_list_init(dkt_rt_list_t *list);
void dkt_rt_push(dkt_router_t *self, dkt_rt_list_t *list, dkt_rt_by_t by, uint32_t index);
void dkt_rt_remove(dkt_router_t *self, dkt_rt_list_t *list, dkt_rt_by_t by, uint32_t index);
/* The open request of that number, NULL if it is not open. */
dkt_rt_open_t *dkt_rt_find(dkt_router_t *self, uint64_t seq);
uint32_t dkt_rt_index(const dkt_router_t *self, const dkt_rt_open_t *open);
/* Takes it out of every list and frees its copy; its connection may go with it. */
void dkt_rt_close(dkt_router_t *self, uint32_t index);
/* An open request is being answered: counts how it ended. */
void dkt_rt_count(dkt_router_t *self, dkt_instant_t now, const dkt_rt_open_t *open,
                  uint32_t ending);
/* Answers with an error of ours and closes. */
void dkt_rt_fail(dkt_router_t *self, dkt_instant_t now, uint32_t index, const dkt_err_t *err);
/* Answers `unavailable` and closes. */
void dkt_rt_unavailable(dkt_router_t *self, dkt_instant_t now, uint32_t index, const char *why);
/* Runs the checks of a request that waited for the keys; false: it was answered and closed. */
DKT_CHECKED bool dkt_rt_check_again(dkt_router_t *self, dkt_instant_t now, uint32_t index);

/* -- router_check.c ------------------------------------------------------------------------------
 */

typedef struct {
    dkt_audience_t side;
    dkt_claims_t claims; /* set by the token check */
    uint16_t vshard;     /* set by the id check, to the claims' by the token check */
    bool later;          /* there are no keys yet: wait */
} dkt_rt_checked_t;

/* OK, or the first error in the contract's order. */
DKT_CHECKED dkt_status_t dkt_rt_check(dkt_router_t *self, dkt_instant_t now,
                                      const dkt_request_t *request, dkt_rt_checked_t *checked,
                                      dkt_err_t *err);

/* -- router_cache.c ------------------------------------------------------------------------------
 */

/* Sets the claims and their client's vshard. */
DKT_CHECKED dkt_status_t dkt_rt_token(dkt_router_t *self, dkt_instant_t now, dkt_view_t token,
                                      dkt_rt_checked_t *checked, dkt_err_t *err);
/* Keys have changed: what was good may be bad and the other way round. */
void dkt_rt_tokens_forget(dkt_router_t *self);
/* Takes one from the quota of that source, or says in how many ms there is one. */
DKT_CHECKED bool dkt_rt_quota(dkt_router_t *self, dkt_instant_t now, const char *source,
                              uint32_t *wait_ms);

/* -- router_link.c -------------------------------------------------------------------------------
 */

/* Puts an open request that is in no place list where it belongs: a worker's queue, or waiting. */
void dkt_rt_place(dkt_router_t *self, dkt_instant_t now, uint32_t index);
void dkt_rt_unplace(dkt_router_t *self, uint32_t index);
/* Tries the waiting ones again; with `all` also those whose retry is not due. */
void dkt_rt_wake(dkt_router_t *self, dkt_instant_t now, bool all);
void dkt_rt_send_batches(dkt_router_t *self, dkt_instant_t now);
void dkt_rt_workers_tick(dkt_router_t *self, dkt_instant_t now);
/* Does its worker still beat? */
bool dkt_rt_worker_lives(const dkt_router_t *self, dkt_instant_t now, uint32_t worker);

/* Its method goes by no tenant. */
bool dkt_rt_any_worker_serves(const dkt_rt_open_t *open);
/* Puts an open request that is in no place list behind its tenant's share. */
void dkt_rt_hold(dkt_router_t *self, uint32_t index);

/* -- router_share.c ------------------------------------------------------------------------------
 */

/* A request that was opened: must it wait for its tenant's share? */
DKT_CHECKED bool dkt_rt_share_holds(dkt_router_t *self, dkt_instant_t now, uint32_t index);
/* Lets go on what has room by now. */
void dkt_rt_share_pass(dkt_router_t *self, dkt_instant_t now);

/* -- router_context.c ----------------------------------------------------------------------------
 */

DKT_CHECKED bool dkt_rt_take_context(dkt_router_t *self, dkt_instant_t now,
                                     const dkt_address_t *from, const dkt_link_header_t *header,
                                     dkt_r_t *r);

/* -- router_conn.c -------------------------------------------------------------------------------
 */

/* The record of a connection, made if need be; DKT_RT_NONE if there are too many. */
uint32_t dkt_rt_connect(dkt_router_t *self, dkt_audience_t side, const dkt_address_t *address);
/* Frees the record if nothing is open, unsent or pinned. */
void dkt_rt_release(dkt_router_t *self, uint32_t connection);
/* Queues an answer for this round; `body` must live until the flush. */
void dkt_rt_answer(dkt_router_t *self, dkt_instant_t now, uint32_t connection, dkt_view_t body);
/* An error of ours, for this round. */
void dkt_rt_answer_error(dkt_router_t *self, dkt_instant_t now, uint32_t connection, uint32_t msgid,
                         const dkt_err_t *err);
void dkt_rt_answer_ping(dkt_router_t *self, dkt_instant_t now, uint32_t connection, uint32_t msgid);
void dkt_rt_send_answers(dkt_router_t *self, dkt_instant_t now);
void dkt_rt_connections_tick(dkt_router_t *self, dkt_instant_t now);
void dkt_rt_connections_fini(dkt_router_t *self);

#endif
