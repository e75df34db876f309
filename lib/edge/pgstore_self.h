/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of the libpq store, shared by its files only:
 *   pgstore.c       connection, queue, driving, failures
 *   pgstore_sql.c   the statements as a table
 *   pgstore_send.c  batches -> statements with binary parameters
 *   pgstore_read.c  binary results -> dkt_store_result_t
 */
#ifndef DKT_EDGE_PGSTORE_SELF_H
#define DKT_EDGE_PGSTORE_SELF_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/core/store.h"
#include "lib/edge/pgarray.h"
#include "lib/edge/pgstore.h"

/* Every statement, in the order in which a COMMIT sends its own. */
#define DKT_PGSTORE_STATEMENTS(X)                                                                  \
    X(LOCK)                                                                                        \
    X(TAKE)                                                                                        \
    X(LOAD_SETTINGS)                                                                               \
    X(LOAD_CLASSES)                                                                                \
    X(LOAD_TICKETS)                                                                                \
    X(LOAD_REVOKED)                                                                                \
    X(READ_REQUESTS)                                                                               \
    X(READ_NUMBERS)                                                                                \
    X(READ_NONCES)                                                                                 \
    X(LIST_ALL)                                                                                    \
    X(LIST_OPEN)                                                                                   \
    X(LIST_STATE)                                                                                  \
    X(GUARD)                                                                                       \
    X(FREE)                                                                                        \
    X(PARK)                                                                                        \
    X(RISK)                                                                                        \
    X(PLACE)                                                                                       \
    X(INSERT)                                                                                      \
    X(INSERT_OPEN)                                                                                 \
    X(INSERT_ONE)                                                                                  \
    X(UPDATE)                                                                                      \
    X(JOURNAL)                                                                                     \
    X(SETTINGS)                                                                                    \
    X(PASSWORD)                                                                                    \
    X(REVOKE)                                                                                      \
    X(HANDOFF)                                                                                     \
    X(AGE_REQUEST_IDS)                                                                             \
    X(AGE_TICKETS)                                                                                 \
    X(AGE_JOURNAL)                                                                                 \
    X(AGE_REST)                                                                                    \
    X(RELAY_KEPT)                                                                                  \
    X(RELAY_ROWS)                                                                                  \
    X(RELAY_MARK)                                                                                  \
    X(MIGRATE_TIME)                                                                                \
    X(MIGRATE)

typedef enum {
#define X(name) DKT_SQL_##name,
    DKT_PGSTORE_STATEMENTS(X)
#undef X
        DKT_SQL_COUNT
} dkt_sql_t;

_Static_assert(DKT_SQL_COUNT <= 64, "the prepared ones are bits of 64");

/* Takes the rows of one statement into the result; false: not what the statement returns. */
typedef bool(dkt_pgstore_take_fn)(dkt_pgstore_t *self, const PGresult *rows,
                                  dkt_store_result_t *out);

typedef struct {
    const char *name; /* of the prepared statement; NULL: never prepared, it runs once */
    const char *text;
    int columns; /* that a row has; 0: no rows are read */
    dkt_pgstore_take_fn *take;
} dkt_sql_row_t;

extern const dkt_sql_row_t dkt_pgstore_sql[DKT_SQL_COUNT];

/* What is expected from the server next: a statement's answer, its preparation's, or the Sync's. */
#define DKT_STEP_PREPARE 0x40
#define DKT_STEP_SYNC    0x80
#define DKT_STEPS_MAX    27 /* a COMMIT: 13 statements, each prepared first, and the Sync */
#define DKT_RESULTS_MAX  4  /* of one batch that are kept: LOAD and READ have 4 */
#define DKT_COLUMNS_MAX  16 /* parameters of INSERT */

/* The owner's advisory lock: "docket" in ASCII, as in docket_lock of schemas/tenant. */
#define DKT_PGSTORE_LOCK_KEY "110429572130164"

typedef struct {
    dkt_batch_t batch;
    void *copies;        /* of a READ that waits: its arrays */
    bool sent;           /* at least a byte of it was given to libpq */
    int64_t deadline_ms; /* once sent */
    uint8_t step_count, step;
    uint8_t steps[DKT_STEPS_MAX];
} dkt_pgstore_entry_t;

struct dkt_pgstore {
    PGconn *conn; /* NULL once lost */
    dkt_pgstore_state_t state;
    PostgresPollingStatusType polling; /* while connecting */
    int64_t connect_deadline_ms;
    int64_t now_ms;   /* as of the latest call */
    bool in_call;     /* inside dkt_pgstore_ready: submits are flushed at its end */
    bool want_write;  /* libpq has bytes that the socket did not take */
    bool broken;      /* the connection is over, not yet told */
    bool lost_told;   /* on_state LOST was called */
    bool warned;      /* a WARNING came during the first entry */
    bool refused;     /* the first entry got an error while the connection lives */
    bool answered;    /* the current step got its result, its end is awaited */
    bool malformed;   /* a value of a result is not as long as its type */
    char sqlstate[6]; /* of the failure */
    char text[DKT_ERR_TEXT_BYTES_MAX];
    char node[32], incarnation[40];
    dkt_pgstore_fn *on_result;
    dkt_pgstore_state_fn *on_state;
    void *ctx;
    uint64_t prepared;             /* bit per dkt_sql_t: sent for preparation on this connection */
    uint32_t first, count, flight; /* of `entries` */
    /* results of the first entry, kept until its callback has returned */
    uint32_t result_count;
    PGresult *results[DKT_RESULTS_MAX];
    uint8_t result_sql[DKT_RESULTS_MAX];
    /* rows made of them */
    dkt_ticket_row_t *tickets;
    uint32_t ticket_cap;
    dkt_revoked_t *revoked;
    dkt_settings_t settings;
    /* parameters under construction */
    dkt_pgarray_t columns[DKT_COLUMNS_MAX];
    /* What follows is written before it is read: most tenants never touch most of it. */
    dkt_journal_row_t journal[DKT_RELAY_READ_MAX];
    /* ring of open batches, the oldest first; the first `flight` of them were sent */
    dkt_pgstore_entry_t entries[DKT_STORE_BATCHES_MAX];
};

/* Gives the entry's statements and its Sync to libpq; false: the connection is of no more use. */
DKT_CHECKED bool dkt_pgstore_send(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry);

/* Makes the result out of the rows that are kept; false: they are not what was asked for. */
DKT_CHECKED bool dkt_pgstore_read(dkt_pgstore_t *self, dkt_store_result_t *out);
/* Frees rows and results of the entry that was delivered. */
void dkt_pgstore_read_done(dkt_pgstore_t *self);

dkt_pgstore_take_fn dkt_pgstore_take_lock, dkt_pgstore_take_take, dkt_pgstore_take_settings,
    dkt_pgstore_take_classes, dkt_pgstore_take_tickets, dkt_pgstore_take_list,
    dkt_pgstore_take_revoked, dkt_pgstore_take_guard, dkt_pgstore_take_aged, dkt_pgstore_take_kept,
    dkt_pgstore_take_journal, dkt_pgstore_take_migrate;

#endif
