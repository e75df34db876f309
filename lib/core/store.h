/* SPDX-License-Identifier: Apache-2.0
 *
 * The port between a tenant's pure core and its database, as data. The core submits batches; the
 * adapter (libpq in lib/edge/pgstore, a fake one in tests/sim) runs them strictly in order on ONE
 * connection and returns each batch's result exactly once, also when the connection is lost.
 *
 * A batch is one pipeline section with one Sync, so one implicit transaction: all or nothing, and
 * its result counts only when the Sync has been answered. If any batch fails, the connection is
 * over for the core: it closes the store and ends (rule 5); the adapter answers every later batch
 * LOST.
 *
 *   state     CLOSED -open-> CONNECTING -ok-> READY -failure-> LOST -close-> CLOSED
 */
#ifndef DKT_CORE_STORE_H
#define DKT_CORE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/core/ids.h"
#include "lib/core/ledger.h"
#include "lib/core/limits.h"
#include "lib/core/link.h"
#include "lib/core/proto.h"
#include "lib/core/status.h"

/* -- rows -- */

/* A ticket as the database has it. Text views live as long as the result. */
typedef struct {
    uint64_t number;
    dkt_uuid_t request_id; /* all zero once retention removed it */
    uint64_t hold_nonce;   /* 0: created without a hold */
    dkt_view_t class_name; /* classes are stored by name: settings may change */
    dkt_place_t place;
    bool has_lane; /* false: parked, cancelled, or resolved before its minute */
    int64_t deadline_ms;
    dkt_ticket_state_t state;
    bool breached, at_risk;
    int64_t created_ms, dispatched_ms, resolved_ms, cancelled_ms; /* 0: null */
    dkt_view_t subject, payload;                                  /* data NULL: null */
} dkt_ticket_row_t;

typedef struct {
    uint64_t number;
    dkt_ticket_state_t state; /* CANCELLED, or RESOLVED before its minute */
    int64_t at_ms;
    bool breached;
} dkt_free_row_t; /* step 2: sets the state, its time and lane = null */

typedef struct {
    uint64_t number;
    dkt_place_t place;
} dkt_place_row_t; /* steps 3 and 4: parked, then placed */

typedef struct {
    uint64_t number;
    dkt_ticket_state_t state; /* OPEN, DISPATCHED or RESOLVED */
    bool breached, at_risk;
    int64_t dispatched_ms, resolved_ms; /* 0: leave what is stored */
} dkt_update_row_t;                     /* step 6: final values */

/* -- batches -- */

typedef enum {
    DKT_BATCH_LOCK, /* pg_try_advisory_lock; result.locked, db_ms, schema_version, min_reader */
    DKT_BATCH_TAKE, /* owner row: epoch + 1 where table version <= mine; result.taken, epoch, db_ms,
                       last_journal_ms, last_journal_seq, last_ticket, last handoff body */
    DKT_BATCH_LOAD, /* settings, live tickets (open, or dispatched and not breached; without subject
                       and payload), revoked tokens that have not expired, account */
    DKT_BATCH_GUARD,  /* the bare guard */
    DKT_BATCH_READ,   /* lookups, gets and lists; no guard, writes nothing */
    DKT_BATCH_COMMIT, /* guard and a group's net effects */
    /* Guard, then the next step of the schema that the administrator has placed, up to
       migrate_target. A step that fails is undone and told (sqlstate and text of a result that is
       OK): only the guard can fail the batch. result.schema_version is what the database has then
     */
    DKT_BATCH_MIGRATE,
    DKT_BATCH_AGE,      /* guard, then one small step of dropping what is old; durable soon, not at
                           once: losing it repeats, so its success proves nothing to anybody */
    DKT_BATCH_REHEARSE, /* guard, then the dispatch of no ticket: changes nothing. A session's first
                           use of a statement costs several times its later ones */
    /* The relay's, submitted by the shell beside the core's own; no guard, and a failure of theirs
       ends the connection like any other. */
    DKT_BATCH_RELAY_READ, /* progress, and journal rows after a sequence number */
    DKT_BATCH_RELAY_MARK  /* writes the progress; durable soon, not at once: losing it repeats */
} dkt_batch_kind_t;

/* A group's net effects: one final row per ticket, in the order of the steps. All arrays belong to
 * the core and stay until the batch's result. */
typedef struct {
    int64_t
        not_after_ms; /* the guard raises when the database's clock is past it; INT64_MAX: none */
    uint32_t free_count;
    const dkt_free_row_t *frees;
    uint32_t park_count; /* park and place name the same tickets */
    const dkt_place_row_t *places;
    uint32_t insert_count;
    const dkt_ticket_row_t *inserts;
    uint32_t update_count;
    const dkt_update_row_t *updates;
    /* journal row */
    uint64_t journal_seq; /* 0: no row */
    int64_t journal_at_ms;
    dkt_view_t journal_events; /* msgpack */
    dkt_view_t journal_tags;   /* not stored: see dkt_group_tag */
    /* rare changes; NULL if none */
    const dkt_settings_t *settings;
    const char *account_password; /* new argon2id string; all tokens issued before
                                     tokens_valid_from_ms die with it */
    int64_t tokens_valid_from_ms;
    const uint8_t *revoke_token_id; /* DKT_TOKEN_ID_BYTES */
    int64_t revoke_expires_ms;
    dkt_view_t handoff; /* body to leave for the successor; data NULL: none */
} dkt_commit_t;

/* Answers: tickets found by any of the three; each list may be empty. The rows come in the order of
 * the fields here, in no order within one; a ticket that two of them find comes twice. The rows of
 * the list carry no payload. */
typedef struct {
    uint32_t request_id_count;
    const dkt_uuid_t *request_ids;
    uint32_t number_count;
    const uint64_t *numbers;
    uint32_t nonce_count;
    const uint64_t *nonces;
    /* at most one page per batch: list_limit 0 means no list */
    uint32_t list_limit;
    int list_state;      /* dkt_ticket_state_t or -1 */
    uint64_t list_after; /* ticket number of the cursor */
} dkt_read_t;

/* How far the journal was published: the contiguous acknowledged prefix, and on which stream. */
typedef struct {
    uint64_t acked_seq;
    int64_t stream_created_ms; /* 0: never published */
    uint64_t stream_seq;       /* the newest message of ours on that stream */
} dkt_relay_mark_t;

typedef struct {
    bool from_kept; /* after the progress that is stored; otherwise after `after_seq` */
    uint64_t after_seq;
    uint32_t limit;
} dkt_relay_read_t;

typedef struct {
    uint64_t seq;
    dkt_view_t events; /* msgpack */
} dkt_journal_row_t;

/* What goes when it is old, in the order of a round. Ids, and numbers of journal rows, grow with
 * time, so that the old ones are found from the smallest on without an index by time. */
typedef enum {
    DKT_AGE_REQUEST_IDS, /* of tickets made before `before_ms`, whatever became of them */
    DKT_AGE_TICKETS,     /* resolved, cancelled, or dispatched and breached; made so many days
                            before `before_ms` as settings.retention_days says */
    DKT_AGE_JOURNAL,     /* rows of before `before_ms`; those that were never published: of before
                            `unpublished_before_ms` */
    DKT_AGE_REST, /* revoked tokens that expired before `before_ms`, handoffs of epochs before
                     the batch's; and the adapter's note of where open tickets are */
    DKT_AGE_COUNT
} dkt_age_kind_t;

/* One step: the next `limit` rows after number `after`; 0: from the first. */
typedef struct {
    dkt_age_kind_t kind;
    int64_t before_ms, unpublished_before_ms;
    uint64_t after;
    uint32_t limit;
    uint32_t keep; /* so many of the newest tickets and journal rows stay: numbers continue there */
} dkt_age_step_t;

typedef struct {
    dkt_batch_kind_t kind;
    uint64_t epoch; /* GUARD, COMMIT, AGE, REHEARSE, MIGRATE, RELAY_MARK, TAKE (out) */
    union {
        int32_t migrate_target;    /* MIGRATE */
        dkt_table_version_t table; /* TAKE */
        dkt_read_t read;
        dkt_commit_t commit;
        dkt_age_step_t age;
        dkt_relay_read_t relay_read;
        dkt_relay_mark_t relay_mark;
    };
} dkt_batch_t;

typedef enum {
    DKT_STORE_OK,
    DKT_STORE_REFUSED, /* the database answered with an error: nothing of the batch happened */
    DKT_STORE_UNKNOWN, /* sent, and no answer: it may have happened */
    DKT_STORE_LOST,    /* never sent: nothing happened */
} dkt_store_outcome_t;

typedef struct {
    uint8_t token_id[DKT_TOKEN_ID_BYTES];
    int64_t expires_ms;
} dkt_revoked_t;

/* The result of one batch. Arrays and views belong to the adapter and live until the call that
 * delivered them returns. */
typedef struct {
    dkt_batch_kind_t kind;
    dkt_store_outcome_t outcome;
    char sqlstate[6]; /* "" if none; DK001 stale epoch, DK002 past not_after,
                          DK003 a change whose row is not there, DK004 a step nobody placed */
    char text[DKT_ERR_TEXT_BYTES_MAX];
    int64_t
        db_ms; /* the database's clock, where the batch had a guard, a take or a lock; 0: none */
    bool locked, taken;
    int32_t schema_version, min_reader; /* LOCK, MIGRATE; 0: unknown */
    uint64_t epoch;
    int64_t last_journal_ms;
    uint64_t last_journal_seq, last_ticket;
    dkt_view_t handoff; /* body of the handoff row of epoch - 1, absent if there is none */
    /* LOAD */
    uint32_t last_dispatched_minute; /* newest minute with a dispatched ticket on a lane; 0: none */
    const dkt_settings_t *settings;
    uint32_t ticket_count; /* LOAD: live tickets; READ: those found by id, then those of the list */
    const dkt_ticket_row_t *tickets;
    uint32_t listed_count; /* READ: how many of the last ones belong to the list */
    uint32_t revoked_count;
    const dkt_revoked_t *revoked;
    dkt_view_t account_password; /* argon2id string */
    dkt_view_t sub_domain, account_name;
    int64_t tokens_valid_from_ms;
    /* AGE */
    uint64_t aged_count;             /* rows that went, or lost their request id */
    uint64_t aged_unpublished_count; /* of them, journal rows that were never published */
    uint64_t aged_to;                /* the number that the step came to */
    bool aged_more;                  /* all it looked at were old enough: go on behind aged_to */
    uint64_t changes_seq;            /* newest row of `changes` */
    /* RELAY_READ */
    dkt_relay_mark_t relay;
    uint32_t journal_count;
    const dkt_journal_row_t *journal; /* ascending */
} dkt_store_result_t;

#endif
