/* SPDX-License-Identifier: Apache-2.0
 *
 * A tenant database as the simulator has it: rows with the real constraints, sessions, the advisory
 * lock, the epoch row, the journal. Batches are copied at submit, as the libpq adapter encodes
 * them; one takes effect wholly or not at all, at a moment the world chooses.
 *
 *   session   OPEN -close/kill-> its queue may still run, then the lock is free
 */
#ifndef DKT_SIM_STORE_H
#define DKT_SIM_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/core/store.h"

#define SIM_TICKETS_MAX  4096
#define SIM_NUMBERS_MAX  8192 /* ticket numbers: at most one an op */
#define SIM_JOURNAL_MAX  16384
#define SIM_SESSIONS_MAX 4096
#define SIM_TEXT_MAX     64       /* subjects are short here */
#define SIM_POISON       "poison" /* a subject that this database refuses */

typedef struct {
    dkt_ticket_row_t row; /* views point at the arrays below */
    char class_name[DKT_CLASS_NAME_BYTES_MAX + 1];
    char subject[SIM_TEXT_MAX];
    /* folded from the journal, to be equal to the row */
    dkt_ticket_state_t journal_state;
    bool journaled;
} sim_ticket_t;

typedef struct {
    dkt_settings_t settings;
    uint64_t epoch;
    dkt_table_version_t table;
    uint64_t journal_seq;
    uint64_t journal_first; /* age took those before */
    int64_t journal_at_ms;
    uint64_t number_highest;     /* of all tickets there ever were */
    int64_t tickets_kept_ms;     /* settings.retention_days */
    uint32_t lock_session;       /* 0: free */
    int64_t clock_ms;            /* the database's clock; the world moves it */
    uint8_t handoff[256 * 1024]; /* DKT_HANDOFF_REFUSALS_MAX refusals, and holds */
    uint32_t handoff_len;
    uint64_t handoff_epoch;
    bool lock_may_vanish; /* a fault of the world: then the epoch alone must protect */
    char violation[256];  /* the first thing that may never happen; "" so far */
    uint32_t ticket_count;
    sim_ticket_t
        tickets[SIM_TICKETS_MAX]; /* a rollback copies only what is used, and nothing below */
    int64_t journal_times_ms[SIM_JOURNAL_MAX]; /* by number */
    bool aged[SIM_NUMBERS_MAX];                /* by number: age took this ticket */
} sim_store_t;

/* A copied batch. */
typedef struct {
    dkt_batch_t batch;
    dkt_free_row_t *frees;
    dkt_place_row_t *places;
    dkt_ticket_row_t *inserts;
    char (*insert_names)[DKT_CLASS_NAME_BYTES_MAX + 1];
    char (*insert_subjects)[SIM_TEXT_MAX];
    dkt_update_row_t *updates;
    uint8_t *events, *handoff;
    dkt_uuid_t *ids;
    uint64_t *numbers, *nonces;
} sim_batch_t;

/* A result with its own rows; their texts are the store's. */
typedef struct {
    dkt_store_result_t result;
    dkt_ticket_row_t *rows;
} sim_result_t;

void sim_store_init(sim_store_t *self, const dkt_settings_t *settings, int64_t clock_ms);
sim_batch_t *sim_batch_copy(const dkt_batch_t *batch);
void sim_batch_destroy(sim_batch_t **self_p);

/* Runs the batch for that session: all or nothing. The result is the caller's. */
sim_result_t *sim_store_apply(sim_store_t *self, uint32_t session, const sim_batch_t *batch);
void sim_result_destroy(sim_result_t **self_p);
/* The session is over: its lock is free. */
void sim_store_close(sim_store_t *self, uint32_t session);

/* Every row against every invariant that needs only the database. False: self->violation says. */
bool sim_store_check(sim_store_t *self);
/* The effect of an AGE batch whose guard has let it pass. */
void sim_store_age(sim_store_t *self, const dkt_age_step_t *step, dkt_store_result_t *out);
/* After rows have moved: their views point at their own texts again. */
void sim_store_fix_views(sim_store_t *self);
sim_ticket_t *sim_store_ticket(sim_store_t *self, uint64_t number);

#endif
