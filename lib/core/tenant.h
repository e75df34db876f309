/* SPDX-License-Identifier: Apache-2.0
 *
 * The pure core of a tenant: ownership, decisions, grouping and answers, as one state machine
 * step (state, now, event) -> calls on a port. The actor in workers/ and the simulator in tests/sim
 * drive the same object; neither a clock nor a socket is in here.
 *
 *   state     CONNECTING -> LOCKING -> TAKING -> LOADING -> SERVING -> DRAINING -> ENDED
 *                  any failure on the way, or of any batch, goes to ENDED at once
 *
 * Events in: CONNECTED, REQUEST, HASHED, RESULT, TICK, DRAIN, LOST, MIGRATE.
 * Port calls out: submit a batch, answer a request, give it back undecided, hash a password, tell
 * what became of a step of the schema, log.
 * Works belong to the core from the REQUEST event until it passes them to answer, moved or
 * give_back; it passes every one exactly once, at the latest when it ends.
 */
#ifndef DKT_CORE_TENANT_H
#define DKT_CORE_TENANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/core/ids.h"
#include "lib/core/ledger.h"
#include "lib/core/limits.h"
#include "lib/core/link.h"
#include "lib/core/proto.h"
#include "lib/core/status.h"
#include "lib/core/store.h"
#include "lib/core/token.h"

/* One request on its way through a worker. Made by the node loop, freed by whoever the core passes
 * it to. `body` is the client's frame, which the core does not trust; `head` is what a decoder of
 * this process made of it (dkt_work_keep), with views into `body`, so the two live as one. */
typedef struct dkt_work {
    struct dkt_work *next; /* of whichever list holds it */
    uint64_t seq;          /* the broker's number */
    int64_t deadline_mono_ms;
    uint32_t link;  /* which broker link it came through */
    uint8_t origin; /* dkt_audience_t */
    uint8_t method; /* dkt_method_t */
    uint16_t vshard;
    bool kept;    /* `head` is there: the body need not be read again */
    bool suspect; /* its request_id was in a group that the database refused: decide it alone */
    uint8_t token_id[DKT_TOKEN_ID_BYTES];
    int64_t token_issued_ms, token_expires_ms;
    uint32_t len;
    uint8_t head[DKT_REQUEST_HEAD_BYTES]; /* of a dkt_request_t; undefined unless `kept` */
    uint8_t body[];
} dkt_work_t;

/* Keeps what was decoded from the work's own body, if its head is all of it: else the core reads
 * the body again, which is rare (set_tenant, wrong parameters). */
void dkt_work_keep(dkt_work_t *work, const dkt_request_t *request);
/* As dkt_request_decode of the body. */
DKT_CHECKED dkt_status_t dkt_work_decode(const dkt_work_t *work, dkt_request_t *out,
                                         dkt_err_t *err);

typedef enum { DKT_HASH_VERIFY, DKT_HASH_CREATE } dkt_hash_kind_t;

#define DKT_HASH_TEXT_BYTES 128 /* crypto_pwhash_STRBYTES */

/* A password job, copied; `cookie` comes back with the result. */
typedef struct {
    dkt_hash_kind_t kind;
    uint64_t cookie;
    uint32_t password_len;
    char password[DKT_PASSWORD_CHARS_MAX * 4 + 1];
    char hash[DKT_HASH_TEXT_BYTES]; /* VERIFY: against this; CREATE: the result */
    bool ok;                        /* result */
} dkt_hash_job_t;

typedef struct dkt_tenant dkt_tenant_t;

typedef enum { DKT_LOG_DEBUG, DKT_LOG_INFO, DKT_LOG_WARN, DKT_LOG_ERROR } dkt_log_level_t;

typedef enum {
    DKT_MIGRATE_RAN,    /* one step, or the schema was there already: `version` */
    DKT_MIGRATE_LATER,  /* it could not have its locks or its time, and was undone: ask again */
    DKT_MIGRATE_FAILED, /* it was refused, and undone: somebody must look */
} dkt_migrate_outcome_t;

typedef struct {
    int32_t target;  /* as asked */
    int32_t version; /* what the database has now */
    dkt_migrate_outcome_t outcome;
    const char *text; /* why, unless it ran */
} dkt_migrated_t;

/* What the core asks of its shell. All calls happen inside dkt_tenant_step. */
typedef struct {
    void *ctx;
    void (*submit)(void *ctx, const dkt_batch_t *batch);
    /* takes the work; bytes are the response frame, borrowed for the call */
    void (*answer)(void *ctx, dkt_work_t *work, const uint8_t *bytes, size_t len);
    /* takes the work; it was not decided: another activation may decide it */
    void (*give_back)(void *ctx, dkt_work_t *work);
    /* false: the hashing queue is full */
    bool (*hash)(void *ctx, const dkt_hash_job_t *job);
    void (*random)(void *ctx, void *bytes, size_t len);
    /* NULL, or: a request was refused. Nothing is written of it, so this is how it is seen; the
     * name is borrowed for the call, `earliest_ms` 0 is unknown */
    void (*refused)(void *ctx, const char *ticket_type, const char *reason, int64_t earliest_ms);
    /* the table `changes` has a new row, durable: the audit log and the control database's copy
       want it. `settings` NULL: the password was changed */
    void (*changed)(void *ctx, const dkt_settings_t *settings);
    /* the answer to a MIGRATE event; none if the tenant ends before */
    void (*migrated)(void *ctx, const dkt_migrated_t *migrated);
    void (*log)(void *ctx, dkt_log_level_t level, const char *text);
} dkt_tenant_port_t;

/* When the owner looks for what is old, and how long things are kept; tickets as the settings say.
 */
typedef struct {
    int64_t round_ms; /* 0: never */
    int64_t first_ms, pause_ms;
    int64_t request_ids_ms, journal_ms, unpublished_ms;
    bool at_once; /* a first round right away, and idle only after it: the tenant was activated just
                     to be looked into */
} dkt_age_config_t;

/* The fleet's, with a round so often: at most DKT_AGE_ROUND_MS, 0 for never. */
dkt_age_config_t dkt_age_config(int64_t round_ms);

/* Everything here is borrowed for the tenant's life. */
typedef struct {
    dkt_client_t client;
    dkt_table_version_t table; /* version under which this worker was given the tenant */
    const dkt_keyring_t *id_keys;
    const dkt_token_secret_t *token_key;
    const char *sub_domain;
    int64_t token_ttl_ms; /* 900000 by default */
    int64_t idle_ms;      /* how far ahead idle looks; at least DKT_WAKE_STAY_MS is used */
    bool suspended;
    dkt_age_config_t age;
    bool rehearses; /* the first dispatch is tried before its time, without tickets */
} dkt_tenant_config_t;

#define X_TENANT_STATES(X)                                                                         \
    X(CONNECTING) X(LOCKING) X(TAKING) X(LOADING) X(SERVING) X(DRAINING) X(ENDED)
typedef enum {
#define X(name) DKT_TENANT_##name,
    X_TENANT_STATES(X)
#undef X
        DKT_TENANT_STATE_COUNT
} dkt_tenant_state_t;

typedef enum {
    DKT_TEV_CONNECTED, /* the store's connection is up */
    DKT_TEV_LOST,      /* it could not be made, or broke; err tells */
    DKT_TEV_REQUEST,   /* work */
    DKT_TEV_HASHED,    /* job */
    DKT_TEV_RESULT,    /* result */
    DKT_TEV_TICK,      /* time has passed */
    DKT_TEV_FLUSH,     /* no more requests at hand: send what was gathered */
    DKT_TEV_SUSPEND,   /* flag: the directory suspended or resumed the tenant */
    DKT_TEV_DRAIN,     /* hand off or passivate: commit what is decided, give back the rest, end */
    DKT_TEV_MIGRATE,   /* schema_version: run the next step towards it between two groups */
} dkt_tenant_event_kind_t;

typedef struct {
    dkt_tenant_event_kind_t kind;
    union {
        dkt_work_t *work;
        const dkt_hash_job_t *job;
        const dkt_store_result_t *result;
        bool flag;
        int32_t schema_version;
    };
} dkt_tenant_event_t;

/* Heap; NULL without memory. `port` is copied. */
dkt_tenant_t *dkt_tenant_new(const dkt_tenant_config_t *config, const dkt_tenant_port_t *port,
                             int64_t mono_ms);
/* Only in state ENDED, or before any work was given. */
void dkt_tenant_destroy(dkt_tenant_t **self_p);

void dkt_tenant_step(dkt_tenant_t *self, int64_t mono_ms, const dkt_tenant_event_t *event);
/* A request of that id comes after others, or next (`soon`): what it will touch is asked for from
 * memory. Changes nothing. */
void dkt_tenant_fetch(const dkt_tenant_t *self, const dkt_uuid_t *request_id, bool soon);

dkt_tenant_state_t dkt_tenant_state(const dkt_tenant_t *self);
const char *dkt_tenant_state_name(dkt_tenant_state_t state);

/* When it next wants a TICK on the monotonic clock; INT64_MAX: not before an event. */
int64_t dkt_tenant_due_mono_ms(const dkt_tenant_t *self);

/* True if it serves and nothing decided is unfinished: ledger and database say the same. */
bool dkt_tenant_settled(const dkt_tenant_t *self);

/* True if a FLUSH would send something for which no request waits: it may be put off, by up to
 * DKT_TURN_WAIT_MS. What a FLUSH sends is decided by then at the latest, so it may only grow. */
bool dkt_tenant_background(const dkt_tenant_t *self);

/* True if nothing is in flight, waiting or held and nothing is due within `idle_ms`. */
bool dkt_tenant_idle(const dkt_tenant_t *self, int64_t mono_ms);

/* How it ended. `lock_held`: somebody else has the lock. `suspects`: the request ids of the group
 * that failed, to be marked on their works for DKT_SUSPECT_MEMORY_MS. Valid until destroy. */
typedef struct {
    bool clean;     /* drained: everything decided was committed and answered */
    bool lock_held; /* could not get the lock; try again soon */
    bool stale;     /* a newer owner or assignment exists: back off, refresh the table */
    bool refused;   /* the database refused a group for its data: it may do so again at once */
    char text[DKT_ERR_TEXT_BYTES_MAX];
    uint32_t suspect_count;
    const dkt_uuid_t *suspects;
    int64_t next_due_ms; /* tenant time of the next dispatch or deadline; INT64_MAX: none (wake) */
} dkt_tenant_end_t;
const dkt_tenant_end_t *dkt_tenant_end(const dkt_tenant_t *self);

/* Counters since activation, for stats and benches. */
typedef struct {
    uint64_t requests, created, refused, replayed, groups, group_requests, reads, dispatched, moves;
    uint64_t aged;     /* rows that age has taken */
    uint64_t breached; /* tickets whose deadline passed unresolved; decided, committed or not */
    uint32_t open, dispatched_now, held, waiting;
    uint64_t epoch;
} dkt_tenant_counts_t;
void dkt_tenant_counts(const dkt_tenant_t *self, dkt_tenant_counts_t *counts);

/* The ledger, for ledger_check in tests; NULL before LOADING is done. */
const dkt_ledger_t *dkt_tenant_ledger(const dkt_tenant_t *self);

#endif
