/* SPDX-License-Identifier: Apache-2.0
 *
 * The inside of the tenant core, shared by lib/core/tenant*.c only.
 *
 *   REQUEST -> waiting -> handle -+-> answered at once (errors, fenced answers)
 *                ^                +-> needs a look into the database -> READ -> handle again
 *                |                +-> decided: gathering group -> COMMIT -> answered
 *                +-- solo: barriers and suspects, each in a group of its own
 *
 * Every work is in exactly one of: waiting, solo, needs, reading, fenced, hashing, a memo entry's
 * joiners, a group's replies.
 */
#ifndef DKT_CORE_TENANT_IMPL_H
#define DKT_CORE_TENANT_IMPL_H

#include "lib/core/group.h"
#include "lib/core/memo.h"
#include "lib/core/revoked.h"
#include "lib/core/tenant.h"
#include "lib/core/tenant_clock.h"

typedef struct {
    dkt_work_t *head, *tail;
    uint32_t count;
} dkt_works_t;

/* A work that waits for the next READ, with the keys it wants. */
typedef struct {
    dkt_work_t *work;
    uint32_t memo; /* LOOKING entry that it decides, or DKT_MEMO_NONE */
    bool by_id;    /* by request_id */
    dkt_uuid_t id;
    uint64_t number, nonce; /* 0: not wanted; number is the cursor of a list */
    bool list;
    int list_state;
    uint32_t list_limit;
} dkt_need_t;

/* An answer that writes nothing and waits for proof that this is still the owner. */
typedef struct {
    dkt_work_t *work;
    uint32_t at, len; /* in fence_bytes */
} dkt_fenced_t;

/* A password job under way. */
typedef struct dkt_hashing {
    struct dkt_hashing *next;
    dkt_work_t *work;
    uint64_t cookie;
    uint32_t passwords_seen; /* what `passwords_set` was: the password may change meanwhile */
} dkt_hashing_t;

/* The rows of a READ by their keys: open addressing, row number + 1, 0 is empty. Without memory it
 * has no places, and rows are looked for one by one. */
typedef struct {
    const dkt_ticket_row_t *rows;
    uint32_t count;
    uint32_t *places;
    uint32_t place_count, place_max;
} dkt_rows_t;

/* Dropping what is old (tenant_age.c).
 *   RESTING -due-> SENT -result-> PAUSING -due-> SENT .. -last kind is done-> RESTING */
typedef enum { DKT_AGE_OFF, DKT_AGE_RESTING, DKT_AGE_PAUSING, DKT_AGE_SENT } dkt_age_state_t;

typedef struct {
    dkt_age_state_t state;
    dkt_age_kind_t kind; /* of the next step, or of the one on its way */
    uint64_t after;
    uint32_t steps;        /* of this kind in this round, bounded by DKT_AGE_STEPS_MAX */
    uint64_t rounds;       /* finished since activation */
    int64_t due_mono_ms;   /* RESTING, PAUSING */
    int64_t sent_mono_ms;  /* SENT */
    bool told_unpublished; /* that rows went which nobody had published: once is loud enough */
} dkt_age_t;

/* The first dispatch, tried without tickets (tenant_rehearse.c).
 *   NONE -open ticket-> PLANNED -due and quiet-> SENT -result-> DONE
 *                          +------ any update of tickets ------> DONE */
typedef enum {
    DKT_REHEARSAL_NONE,
    DKT_REHEARSAL_PLANNED,
    DKT_REHEARSAL_SENT,
    DKT_REHEARSAL_DONE
} dkt_rehearsal_state_t;

typedef struct {
    dkt_rehearsal_state_t state;
    int64_t due_mono_ms;  /* PLANNED */
    int64_t sent_mono_ms; /* SENT */
} dkt_rehearsal_t;

#define DKT_NEEDS_MAX 1024 /* works in one READ: as many as in one group */

struct dkt_tenant {
    dkt_tenant_config_t config;
    dkt_tenant_port_t port;
    dkt_tenant_state_t state;
    int64_t mono_ms; /* of the step under way */
    int64_t now_ms;  /* tenant time of the step under way; 0 before TAKING is done */
    dkt_tenant_clock_t clock;
    dkt_client_seen_t client_seen;
    bool suspended;

    /* ownership, from the database */
    uint64_t epoch, journal_seq, last_ticket;
    uint32_t nonce_next; /* low half of the next hold's nonce */
    uint8_t *handoff;    /* the predecessor's, until the ledger is loaded */
    uint32_t handoff_len;
    bool handoff_used;    /* holds of epoch - 1 were passed on: none of them is lost */
    bool handoff_written; /* draining: ours is in the group that is on its way */

    dkt_ledger_t *ledger;
    dkt_memo_t memo;
    dkt_group_t groups[2];
    dkt_group_t *gathering;
    dkt_group_t *inflight; /* NULL: no COMMIT in flight */
    bool commit_sent, read_sent, guard_sent;
    int64_t read_mono_ms, guard_mono_ms; /* when they were sent */
    int64_t proof_mono_ms; /* send time of the youngest batch that was answered well */

    dkt_works_t waiting, solo;
    uint32_t held; /* works inside, bounded by DKT_MAILBOX_MAX */
    bool solo_active;
    dkt_need_t *needs, *reading;
    uint32_t need_count, need_max, reading_count, reading_max;
    dkt_fenced_t *fenced;
    uint32_t fenced_count, fenced_max;
    uint8_t *fence_bytes;
    uint32_t fence_len, fence_max;
    dkt_hashing_t *hashing;
    uint32_t hashing_count; /* bounded by DKT_HASHING_PER_TENANT_MAX */
    uint64_t cookie_next;

    int32_t migrate_target; /* 0: no step is wanted; otherwise nothing new is decided */
    bool migrate_sent;      /* the step is on its way */
    int64_t migrate_mono_ms;
    dkt_age_t age;
    dkt_rehearsal_t rehearsal;
    dkt_revoked_set_t revoked;
    char account_password[DKT_HASH_TEXT_BYTES];
    uint32_t passwords_set; /* since activation */
    char sub_domain[DKT_ID_CHARS_MAX * 2];
    int64_t tokens_valid_from_ms;

    /* READ keys, kept for the submit call */
    dkt_uuid_t *read_ids;
    uint64_t *read_numbers, *read_nonces;
    uint32_t read_id_max, read_number_max, read_nonce_max;
    dkt_rows_t rows; /* of the READ being handled */

    bool failed; /* inside a step: ends the tenant when the step is over; the text is in `end` */
    dkt_store_outcome_t failed_outcome; /* of the group in flight */
    char failed_sqlstate[6];            /* why the database refused it; "" if it did not */
    uint8_t *page;                      /* long answers: DKT_PAGE_BYTES */
    dkt_tenant_end_t end;
    dkt_uuid_t *suspects;
    dkt_tenant_counts_t counts;
};

/* A request being handled. */
typedef struct {
    dkt_work_t *work;
    dkt_memo_digest_t digest;
    uint32_t memo;                    /* the LOOKING entry this call decides, or DKT_MEMO_NONE */
    uint64_t number;                  /* ticket_id */
    dkt_slot_ref_t slot;              /* slot_id */
    bool looked;                      /* the database was asked */
    const dkt_ticket_row_t *row;      /* by request_id or number, NULL if none */
    const dkt_ticket_row_t *taken;    /* by nonce, NULL if none */
    const dkt_store_result_t *result; /* list */
    dkt_request_t request;            /* last: it is large, and written by its decoder alone */
} dkt_call_t;

#define DKT_ANSWER_BYTES_MAX 2048 /* every answer but get_ticket, list_tickets, set_tenant */
#define DKT_PAGE_BYTES       (DKT_LIST_BYTES_MAX + 2 * DKT_PAYLOAD_BYTES_MAX)

static inline bool dkt_works_empty(const dkt_works_t *works)
{
    return !works->head;
}
/* -- tenant_rows.c -- */
void dkt_rows_index(dkt_rows_t *self, const dkt_ticket_row_t *rows, uint32_t count);
const dkt_ticket_row_t *dkt_rows_by_id(const dkt_rows_t *self, const dkt_uuid_t *id);
const dkt_ticket_row_t *dkt_rows_by_number(const dkt_rows_t *self, uint64_t number);
const dkt_ticket_row_t *dkt_rows_by_nonce(const dkt_rows_t *self, uint64_t nonce);

/* -- tenant_work.c -- */
void dkt_works_push(dkt_works_t *works, dkt_work_t *work);
dkt_work_t *dkt_works_pop(dkt_works_t *works);

/* -- tenant_end.c -- */
/* A failure in the middle of a step: the tenant ends when the step is over. The text is copied. */
void dkt_tenant_fail(dkt_tenant_t *self, const char *text);
/* The one way to ENDED: every work leaves, and what the shell must know is written down. `text`
 * NULL: dkt_tenant_fail has written it. */
void dkt_tenant_finish(dkt_tenant_t *self, bool clean, const char *text);
void dkt_tenant_give_back_all(dkt_tenant_t *self, dkt_works_t *works);

/* -- tenant_activate.c: event handlers of the states before SERVING -- */
void dkt_tenant_on_connected(dkt_tenant_t *self, const dkt_tenant_event_t *event);
void dkt_tenant_on_locked(dkt_tenant_t *self, const dkt_tenant_event_t *event);
void dkt_tenant_on_taken(dkt_tenant_t *self, const dkt_tenant_event_t *event);
void dkt_tenant_on_loaded(dkt_tenant_t *self, const dkt_tenant_event_t *event);

/* -- tenant.c -- */
/* Handles one work: now, or again after its READ. Takes the work. */
void dkt_tenant_handle(dkt_tenant_t *self, dkt_call_t *call);
/* Decodes the work into the call; false: it has been answered already. */
DKT_CHECKED bool dkt_tenant_open(dkt_tenant_t *self, dkt_work_t *work, dkt_call_t *call);
/* Takes up waiting and solo works as far as the groups allow. */
void dkt_tenant_process(dkt_tenant_t *self);

/* Nothing decided or looked up is unfinished. */
bool dkt_tenant_quiet(const dkt_tenant_t *self);

/* -- tenant_migrate.c: one step of the schema between two groups -- */
void dkt_tenant_on_migrate(dkt_tenant_t *self, const dkt_tenant_event_t *event);
/* True while a step is wanted or on its way; sends it as soon as nothing else is unfinished. */
DKT_CHECKED bool dkt_tenant_migrate(dkt_tenant_t *self);
void dkt_tenant_migrated(dkt_tenant_t *self, const dkt_store_result_t *result);

/* -- tenant_handoff.c: live holds pass to the successor (rules 4 and 11) -- */
/* The writer's time; 0 without a handoff. */
int64_t dkt_tenant_handoff_written_ms(const dkt_tenant_t *self);
void dkt_tenant_handoff_take(dkt_tenant_t *self, dkt_view_t body);
void dkt_tenant_handoff_load(dkt_tenant_t *self);
void dkt_tenant_handoff_write(dkt_tenant_t *self);

/* -- tenant_age.c: what is old goes -- */
void dkt_tenant_age_begin(dkt_tenant_t *self);
/* The next step is due and the moment is good. */
bool dkt_tenant_age_ready(const dkt_tenant_t *self);
/* Sends it then. */
void dkt_tenant_age_flush(dkt_tenant_t *self);
void dkt_tenant_age_result(dkt_tenant_t *self, const dkt_store_result_t *result);
/* It has waited for a good moment long enough: no READ may go out before it. */
bool dkt_tenant_age_presses(const dkt_tenant_t *self);
/* When it wants a turn; INT64_MAX: not before a result. */
int64_t dkt_tenant_age_due_mono_ms(const dkt_tenant_t *self);
/* Has it yet to do what the tenant was activated for? */
bool dkt_tenant_age_owes(const dkt_tenant_t *self);

/* -- tenant_rehearse.c: the first dispatch, tried before -- */
/* It is due and the moment is good. */
bool dkt_tenant_rehearsal_ready(const dkt_tenant_t *self);
/* Plans it once there is an open ticket, and sends it as soon as it is ready. */
void dkt_tenant_rehearse(dkt_tenant_t *self);
/* Its statement was used, by it or by a group. */
void dkt_tenant_rehearsed(dkt_tenant_t *self);
/* When it wants a turn; INT64_MAX: not before a result. */
int64_t dkt_tenant_rehearsal_due_mono_ms(const dkt_tenant_t *self);

/* -- tenant_answer.c: every way out for a work -- */
void dkt_tenant_answer(dkt_tenant_t *self, dkt_work_t *work, const uint8_t *bytes, size_t len);
/* At once, without proof: wrong requests, overload, silence. `err` as dkt_fail filled it. */
void dkt_tenant_error(dkt_tenant_t *self, dkt_work_t *work, const dkt_err_t *err);
void dkt_tenant_error_of(dkt_tenant_t *self, dkt_work_t *work, dkt_status_t status,
                         const char *field);
void dkt_tenant_give_back(dkt_tenant_t *self, dkt_work_t *work);
/* With proof (rule 3): now if the connection answered lately, else after the next answer. */
void dkt_tenant_fenced(dkt_tenant_t *self, dkt_work_t *work, const uint8_t *bytes, size_t len);
void dkt_tenant_fenced_error(dkt_tenant_t *self, dkt_call_t *call, dkt_status_t status,
                             const char *field);
void dkt_tenant_fenced_status(dkt_tenant_t *self, dkt_call_t *call, const char *status);
/* Lets fenced answers go if the proof is fresh. */
void dkt_tenant_fence_open(dkt_tenant_t *self);
/* Fenced answers whose budget is over, because no proof came in time, become deadline_exceeded. */
void dkt_tenant_fence_expire(dkt_tenant_t *self);
/* After everything decided so far is durable; fenced if nothing is pending. */
void dkt_tenant_attach(dkt_tenant_t *self, dkt_work_t *work, const uint8_t *bytes, size_t len);
void dkt_tenant_attach_error(dkt_tenant_t *self, dkt_call_t *call, dkt_status_t status,
                             const char *field);
void dkt_tenant_attach_status(dkt_tenant_t *self, dkt_call_t *call, const char *status);
/* Into the gathering group, as the answer of a decision. */
void dkt_tenant_decided(dkt_tenant_t *self, dkt_call_t *call, uint32_t memo, const dkt_w_t *w);
/* The "created" answer. `slot_text` NULL: derived from the ticket. Returns the ticket's tag. */
uint64_t dkt_tenant_write_created(dkt_tenant_t *self, dkt_w_t *w, uint32_t msgid, uint64_t number,
                                  dkt_view_t slot_text, uint32_t minute, int64_t deadline_ms,
                                  bool replayed);

/* -- tenant_commit.c: groups, reads, guards -- */
void dkt_tenant_flush(dkt_tenant_t *self);
void dkt_tenant_on_result(dkt_tenant_t *self, const dkt_store_result_t *result);
/* Wants a look into the database before it goes on; takes the work. */
void dkt_tenant_need(dkt_tenant_t *self, dkt_call_t *call, const dkt_need_t *need);
/* The LOOKING entry of a call is settled without a ticket: it goes, its joiners are handled anew.
 */
void dkt_tenant_unlook(dkt_tenant_t *self, uint32_t memo);
/* Gives a need's work back, and takes its LOOKING entry's joiners along. */
void dkt_tenant_drop_need(dkt_tenant_t *self, const dkt_need_t *need);
/* The tick's, load's and resize's changes (a dkt_change_fn; ctx is the tenant). */
void dkt_tenant_change(void *ctx, const dkt_change_t *change);
void dkt_tenant_moves(dkt_tenant_t *self, const dkt_moves_t *moves);
/* The effect of a group that is not durable yet on that ticket, gathering first; NULL if none. */
const dkt_effect_t *dkt_tenant_pending(const dkt_tenant_t *self, uint64_t number);
const char *dkt_tenant_class_name(const dkt_tenant_t *self, uint8_t class_index);

/* -- method handlers; each takes call->work -- */
void dkt_tenant_create_ticket(dkt_tenant_t *self, dkt_call_t *call);
void dkt_tenant_allocate_slot(dkt_tenant_t *self, dkt_call_t *call);
void dkt_tenant_validate_eta(dkt_tenant_t *self, dkt_call_t *call);
void dkt_tenant_release_slot(dkt_tenant_t *self, dkt_call_t *call);
void dkt_tenant_cancel_ticket(dkt_tenant_t *self, dkt_call_t *call);
void dkt_tenant_resolve_ticket(dkt_tenant_t *self, dkt_call_t *call);
void dkt_tenant_get_ticket(dkt_tenant_t *self, dkt_call_t *call);
void dkt_tenant_list_tickets(dkt_tenant_t *self, dkt_call_t *call);
void dkt_tenant_availability(dkt_tenant_t *self, dkt_call_t *call);
void dkt_tenant_login(dkt_tenant_t *self, dkt_call_t *call);
void dkt_tenant_logout(dkt_tenant_t *self, dkt_call_t *call);
void dkt_tenant_change_password(dkt_tenant_t *self, dkt_call_t *call);
void dkt_tenant_set_tenant(dkt_tenant_t *self, dkt_call_t *call);
DKT_LARGE_FRAME void dkt_tenant_on_hashed(dkt_tenant_t *self, const dkt_hash_job_t *job);
/* Pushes the work to the solo queue unless it is its turn already; true: it was pushed. */
DKT_CHECKED bool dkt_tenant_to_solo(dkt_tenant_t *self, dkt_call_t *call);

#endif
