/* SPDX-License-Identifier: Apache-2.0
 *
 * The node loop: one thread that stands between the brokers and the tenants of a worker. It owns
 * the links to all brokers, the table in force, a record for every tenant somebody asked for, and
 * the activation gate. It never blocks and never looks into a ledger.
 *
 *   broker ==DEALER==> node_link.c --> node_request.c --> node_tenant.c --> actor's mailbox
 *          <==========                      |   <---- one mailbox for everything that comes back
 *                                           +--> directory, accounts, hasher
 *
 * A tenant's record is in exactly one state, and in the list of that state:
 *
 *   IDLE -request-> RESOLVING -found-> QUEUED -gate-> STARTING -READY-> SERVING -drain-> CLOSING
 *    ^                                   ^               |                 |               |
 *    +---- nothing waits ---- BACKOFF <--+---------------+----- ENDED -----+---------------+
 */
#ifndef DKT_WORKERS_NODE_H
#define DKT_WORKERS_NODE_H

#include <sys/queue.h>

#include <czmq.h>

#include "lib/core/directory.h"
#include "lib/core/gate.h"
#include "lib/core/spare.h"
#include "lib/core/wake.h"
#include "workers/mail.h"
#include "workers/tenant_actor.h"

#define DKT_NODE_STATES(X)                                                                         \
    X(IDLE)          /* no actor; kept for failures, suspects or the negative cache */             \
    X(RESOLVING)     /* the directory was asked where it lives */                                  \
    X(QUEUED)        /* waits for the gate */                                                      \
    X(QUEUED_FAILED) /* the same, its last attempt failed */                                       \
    X(STARTING)      /* has a place in the gate and an actor on its way up */                      \
    X(SERVING)                                                                                     \
    X(CLOSING) /* its actor drains */                                                              \
    X(BACKOFF)
typedef enum {
#define X(name) DKT_NODE_##name,
    DKT_NODE_STATES(X)
#undef X
        DKT_NODE_STATE_COUNT
} dkt_node_state_t;

typedef struct dkt_record {
    LIST_ENTRY(dkt_record) bucket;    /* of its vshard */
    TAILQ_ENTRY(dkt_record) of_state; /* in lists[state] */
    TAILQ_ENTRY(dkt_record) waiting;  /* in `waiting` while pending_count > 0 */
    dkt_node_state_t state;
    dkt_client_t client;
    uint16_t vshard;
    dkt_actor_t *actor; /* STARTING, SERVING, CLOSING */
    bool fed;           /* in the node's list `fed` */
    struct dkt_record *fed_next;
    uint64_t serial; /* of its activation */
    dkt_home_t home;
    bool home_known;
    bool failed_place; /* STARTING: it entered the gate as one that failed */
    bool wanted;       /* something is or may be due: activate it without being asked */
    bool probe;        /* only looked into: passivated as soon as nothing is due */
    bool marked;       /* the table wake has it as active and ours */
    bool refusing;     /* BACKOFF after a failure: requests are answered `unavailable` at once */
    int32_t migrate_target; /* 0: no step of the schema is wanted of it; not in IDLE */
    uint32_t failures;      /* in a row */
    uint32_t breaks; /* in a row: it served, and ended unclean before DKT_STEADY_MS had passed */
    int64_t ready_mono_ms;        /* when it began to serve */
    int64_t started_mono_us;      /* its actor */
    int64_t lost_mono_us;         /* CLOSING because it is somebody else's, since then; 0: not so */
    int64_t retry_mono_ms;        /* BACKOFF ends */
    int64_t absent_until_mono_ms; /* the directory does not know it */
    int64_t last_request_mono_ms;
    int64_t lock_held_since_mono_ms; /* 0: the lock was not refused */
    int64_t holder_asked_mono_ms;
    int64_t mark_asked_mono_ms;
    dkt_mail_t *pending_head, *pending_tail; /* works, while there is no actor to take them */
    uint32_t pending_count;                  /* <= DKT_MAILBOX_MAX */
    uint32_t suspect_count;
    dkt_uuid_t *suspects; /* heap */
    int64_t suspects_until_mono_ms;
} dkt_record_t;

typedef TAILQ_HEAD(dkt_records, dkt_record) dkt_records_t;
typedef LIST_HEAD(dkt_bucket, dkt_record) dkt_bucket_t;

/* A broker. `id` is slot and generation: works remember it, and an answer for a broker that went
 * away or started anew finds no link and is dropped. */
typedef struct {
    bool used, greeted;
    uint32_t id;
    zsock_t *sock;
    char address[DKT_ENDPOINT_BYTES_MAX];
    dkt_incarnation_t broker;
    dkt_table_version_t known;  /* as its last message said */
    dkt_table_version_t pushed; /* the newest table sent to it */
    int64_t pushed_mono_ms;
    int64_t hello_mono_ms; /* next HELLO */
    uint8_t *out;          /* one ANSWERS message in the making, DKT_LINK_BYTES_MAX */
    dkt_w_t w;
    uint16_t out_count;
} dkt_node_link_t;

typedef struct {
    uint64_t requests, moved, parked, overloaded, expired, activations, failed_activations,
        passivations, wakes, probes, dropped_answers, bad_frames;
} dkt_node_counts_t;

typedef struct {
    dkt_env_t *env;
    int signal_fd;
    int ready_fd; /* -1: none, or told */
    bool registered, running, leaving;
    int64_t leave_until_mono_ms, drain_until_mono_ms;
    int64_t now_mono_ms; /* read once per turn */
    dkt_table_t table;
    int self_member; /* index in the table, -1: owns nothing */
    int64_t gained_mono_ms[DKT_VSHARDS];
    dkt_node_link_t links[DKT_BROKERS_MAX];
    uint32_t link_generation;
    dkt_bucket_t buckets[DKT_VSHARDS];
    dkt_client_seen_t client_seen;
    dkt_vshard_seen_t vshard_seen; /* a request asks three times */
    dkt_records_t lists[DKT_NODE_STATE_COUNT];
    uint32_t counts_of_state[DKT_NODE_STATE_COUNT];
    dkt_records_t waiting;
    uint32_t record_count;
    uint64_t serial;
    dkt_gate_t gate;
    dkt_wake_t wake;
    uint32_t probing;      /* records with `probe` */
    int64_t probe_mono_ms; /* the next look for unmarked tenants */
    uint32_t actors_max, actor_count;
    dkt_record_t *fed;   /* those whose actors were given works in this turn */
    uint32_t open_count; /* requests that are somewhere in this process */
    dkt_spare_t works;   /* memory of works, and of the answers that they become */
    dkt_mail_t *parked_head, *parked_tail;
    uint32_t parked_count;
    int64_t sweep_mono_ms, backoff_mono_ms, refresh_mono_ms;
    int64_t account_tokens_milli, account_filled_mono_ms; /* create_account's crude rate */
    char nobody_hash[DKT_HASH_TEXT_BYTES];                /* for logins to unknown accounts */
    dkt_node_counts_t counts;
} dkt_node_t;

/* -- node_link.c: brokers -- */

void dkt_node_set_brokers(dkt_node_t *self, const dkt_brokers_mail_t *brokers);
void dkt_node_close_links(dkt_node_t *self);
/* HELLOs that are due, and the table to every broker with an older one. */
void dkt_node_beat(dkt_node_t *self);
/* Reads what a link has, up to a bound. */
void dkt_node_read(dkt_node_t *self, dkt_node_link_t *link);
/* One message; false: the broker does not take it. */
bool dkt_node_send(dkt_node_link_t *link, const uint8_t *bytes, size_t len);
/* Frees the answer. */
void dkt_node_send_answer(dkt_node_t *self, dkt_answer_mail_t *answer);
void dkt_node_flush(dkt_node_t *self);

/* -- node_context.c: tenant context for brokers -- */

void dkt_node_context_pull(dkt_node_t *self, dkt_node_link_t *link, const dkt_link_pull_t *pull);

/* -- node_request.c: what to do with a request -- */

void dkt_node_request(dkt_node_t *self, dkt_node_link_t *link, dkt_table_version_t table,
                      const dkt_link_request_t *request);
/* Routes a work that waited: parked, given back, or after a suspend. */
void dkt_node_route(dkt_node_t *self, dkt_work_mail_t *work);
void dkt_node_unpark(dkt_node_t *self, bool table_changed);
void dkt_node_hashed(dkt_node_t *self, dkt_hash_mail_t *hash);
void dkt_node_context(dkt_node_t *self, dkt_context_mail_t *context);
void dkt_node_deleting(dkt_node_t *self, const dkt_deleting_mail_t *deleting);

/* All of these take the work and answer it. */
void dkt_node_answer(dkt_node_t *self, dkt_work_mail_t *work, const uint8_t *bytes, size_t len);
void dkt_node_fail(dkt_node_t *self, dkt_work_mail_t *work, dkt_status_t status,
                   uint32_t retry_after_ms);
void dkt_node_moved(dkt_node_t *self, dkt_work_mail_t *work);
/* NOT_FOUND, but a login takes as long as with a wrong password and gets the same answer. */
void dkt_node_unknown(dkt_node_t *self, dkt_work_mail_t *work);

/* -- node_record.c: records and what waits for them -- */

uint16_t dkt_node_vshard(dkt_node_t *self, const dkt_client_t *client);
dkt_record_t *dkt_node_find(dkt_node_t *self, const dkt_client_t *client);
/* Makes it if there is none; NULL: there are DKT_NODE_RECORDS_MAX. */
dkt_record_t *dkt_node_record(dkt_node_t *self, const dkt_client_t *client);
/* Only an IDLE one for which nothing waits. */
void dkt_node_forget(dkt_node_t *self, dkt_record_t *record);
void dkt_node_move(dkt_node_t *self, dkt_record_t *record, dkt_node_state_t state);
const char *dkt_node_state_name(dkt_node_state_t state);
/* Takes the work: it waits, or is answered `overloaded`. */
void dkt_node_wait(dkt_node_t *self, dkt_record_t *record, dkt_work_mail_t *work);
/* Everything that waits, the caller's now. */
dkt_mail_t *dkt_node_take_pending(dkt_node_t *self, dkt_record_t *record);
typedef void(dkt_node_dispose_fn)(dkt_node_t *self, dkt_work_mail_t *work);
void dkt_node_dispose(dkt_node_t *self, dkt_record_t *record, dkt_node_dispose_fn *dispose);
/* Answers those whose budget is over. */
void dkt_node_expire(dkt_node_t *self, dkt_record_t *record);

/* -- node_tenant.c: activation -- */

/* Passes on the works that actors were given in this turn. */
void dkt_node_feed(dkt_node_t *self);

bool dkt_node_owns(const dkt_node_t *self, uint16_t vshard);
/* Takes a work for a tenant of ours. */
void dkt_node_give(dkt_node_t *self, dkt_work_mail_t *work);
void dkt_node_found(dkt_node_t *self, const dkt_lookup_mail_t *found);
void dkt_node_ready(dkt_node_t *self, const dkt_actor_mail_t *event);
void dkt_node_ended(dkt_node_t *self, dkt_actor_mail_t *event);
void dkt_node_set_table(dkt_node_t *self, const dkt_table_t *table);
/* Asks the directory where it lives, then queues it. */
void dkt_node_resolve(dkt_node_t *self, dkt_record_t *record);
/* Starts what the gate lets in. */
void dkt_node_start_queued(dkt_node_t *self);
/* Drains the actor of a STARTING or SERVING one. */
void dkt_node_close(dkt_node_t *self, dkt_record_t *record);
/* It is somebody else's now. */
void dkt_node_lose(dkt_node_t *self, dkt_record_t *record);

/* -- node_wake.c: activation because something is due -- */

/* These vshards were gained: their rows are wanted. */
void dkt_node_gained(dkt_node_t *self, const uint8_t vshards[DKT_VSHARDS / 8]);
void dkt_node_lost(dkt_node_t *self, uint16_t vshard);
void dkt_node_rows(dkt_node_t *self, const dkt_rows_mail_t *rows);
/* It serves, or does not exist at all: nothing is due any more that others must remember. */
void dkt_node_is_active(dkt_node_t *self, const dkt_client_t *client);
/* Its actor has ended: what is due next goes into the table, or it is wanted again. */
void dkt_node_settle(dkt_node_t *self, dkt_record_t *record, const dkt_actor_mail_t *event);
/* Nobody could say where it lives: later. */
void dkt_node_wake_later(dkt_node_t *self, dkt_record_t *record);
void dkt_node_end_probe(dkt_node_t *self, dkt_record_t *record);
/* May it be passivated? Asks for its mark if that is missing. */
bool dkt_node_may_passivate(dkt_node_t *self, dkt_record_t *record);
/* Wakes who is due, asks for who may have been forgotten. */
void dkt_node_wake(dkt_node_t *self);

/* -- node_upgrade.c: steps of the schema -- */

void dkt_node_upgrades(dkt_node_t *self, const dkt_upgrades_mail_t *upgrades);
/* Its actor is there: passes on what is wanted of it. */
void dkt_node_migrate(dkt_record_t *record);
/* Takes the mail. */
void dkt_node_migrated(dkt_node_t *self, dkt_migrated_mail_t *mail);
/* Its actor has ended without an answer. */
void dkt_node_migrate_ended(dkt_node_t *self, dkt_record_t *record, const dkt_actor_mail_t *event);

/* -- node_turn.c: time -- */

void dkt_node_turn(dkt_node_t *self);
void dkt_node_drain_all(dkt_node_t *self);
void dkt_node_drop_all(dkt_node_t *self);

/* -- node.c -- */

typedef struct {
    dkt_env_t *env;
    int signal_fd; /* SIGTERM and SIGINT end the loop; -1: only a STOP mail does */
    int ready_fd;  /* "ready\n" is written here; -1: nowhere */
    uint32_t actors_max;
} dkt_node_config_t;

/* Runs until it is told to stop and everything has been drained. 0, or 1 if it could not begin. */
int dkt_node_run(const dkt_node_config_t *config);

#endif
