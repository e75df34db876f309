/* SPDX-License-Identifier: Apache-2.0
 *
 * A group: what one commit will write, as net effects - one final row per ticket, whatever happened
 * to the ticket while the group gathered - and the answers that leave when the commit is durable.
 *
 *   decide ..insert/free/move/update.. -> row per ticket -> seal -> dkt_commit_t in the order
 *   guard, frees, parked, placed, inserts, other updates, journal
 *
 * Two groups per tenant: one gathers while the other is in flight.
 */
#ifndef DKT_CORE_GROUP_H
#define DKT_CORE_GROUP_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/core/ledger.h"
#include "lib/core/proto.h"
#include "lib/core/status.h"
#include "lib/core/store.h"
#include "lib/core/tenant.h"

/* The journal's event types; the numbers are stored: add at the end only. */
#define DKT_EVENT_MAP(X)                                                                           \
    X(CREATED, "created")                                                                          \
    X(RESCHEDULED, "rescheduled")                                                                  \
    X(DISPATCHED, "dispatched")                                                                    \
    X(RESOLVED, "resolved")                                                                        \
    X(CANCELLED, "cancelled")                                                                      \
    X(BREACHED, "breached")                                                                        \
    X(AT_RISK, "at_risk")
typedef enum {
#define X(name, text) DKT_EVENT_##name,
    DKT_EVENT_MAP(X)
#undef X
        DKT_EVENT_COUNT
} dkt_event_type_t;

const char *dkt_event_name(dkt_event_type_t type);

/* An answer waiting for the commit. The bytes lie in the group's answer arena. */
typedef struct {
    dkt_work_t *work;
    uint32_t memo; /* entry whose joiners are answered too, DKT_MEMO_NONE if none */
    uint32_t at, len;
} dkt_reply_t;

/* The final state of one ticket. */
typedef struct {
    dkt_ticket_row_t row; /* for existing tickets only what changed is meant */
    uint8_t class_index;
    bool inserted, freed, placed, updated;
} dkt_effect_t;

typedef struct dkt_group {
    dkt_effect_t *effects;
    uint32_t effect_count, effect_max;
    uint32_t *index; /* open addressing: effect number + 1, 0 is empty */
    uint32_t index_max;
    dkt_reply_t *replies;
    uint32_t reply_count, reply_max;
    uint8_t *answers;
    uint32_t answer_len, answer_max;
    uint8_t *events; /* DKT_GROUP_EVENTS_HEADER bytes for the array header, then the events */
    uint32_t event_len, event_max, event_count;
    uint64_t *tags; /* of the events' tickets, as far as known */
    uint32_t tag_max;
    uint32_t text_bytes;  /* subjects and payloads */
    int64_t not_after_ms; /* earliest slot start of a new booking */
    int64_t sent_mono_ms;
    bool solo; /* one request alone: a barrier, or a suspect */
    /* rare changes, see dkt_commit_t */
    bool has_settings, has_password, has_revoked;
    dkt_settings_t settings;
    char account_password[DKT_HASH_TEXT_BYTES];
    int64_t tokens_valid_from_ms;
    uint8_t revoke_token_id[DKT_TOKEN_ID_BYTES];
    int64_t revoke_expires_ms;
    uint8_t *handoff;
    uint32_t handoff_len, handoff_max;
    /* sealed arrays */
    dkt_free_row_t *frees;
    dkt_place_row_t *places;
    dkt_ticket_row_t *inserts;
    dkt_update_row_t *updates;
    uint32_t free_max, place_max, insert_max, update_max;
} dkt_group_t;

void dkt_group_init(dkt_group_t *self);
void dkt_group_fini(dkt_group_t *self);
/* Empties it and keeps the memory. */
void dkt_group_reset(dkt_group_t *self);

/* Nothing to write and nobody to answer. */
bool dkt_group_empty(const dkt_group_t *self);
/* Nothing to write. */
bool dkt_group_readonly(const dkt_group_t *self);
bool dkt_group_full(const dkt_group_t *self);

/* The effect on a ticket; NULL if the group does not touch it. */
const dkt_effect_t *dkt_group_find(const dkt_group_t *self, uint64_t number);
/* The inserted ticket of that hold; NULL if there is none. O(effects). */
const dkt_effect_t *dkt_group_find_nonce(const dkt_group_t *self, uint64_t nonce);

/* All return false without memory. A new ticket; views must outlive the group. */
DKT_CHECKED bool dkt_group_insert(dkt_group_t *self, const dkt_ticket_row_t *row);
/* CANCELLED, or RESOLVED before its minute: the slot is free. */
DKT_CHECKED bool dkt_group_free(dkt_group_t *self, uint64_t number, dkt_ticket_state_t state,
                                int64_t at_ms, bool breached);
/* Moved; `booking` is true for rebooking, whose slot start the guard watches too. */
DKT_CHECKED bool dkt_group_place(dkt_group_t *self, uint64_t number, dkt_place_t place,
                                 bool booking);
/* Dispatched, resolved after dispatch, breached or at risk. Times of 0 leave what is stored. */
DKT_CHECKED bool dkt_group_update(dkt_group_t *self, const dkt_update_row_t *row);

DKT_CHECKED bool dkt_group_event(dkt_group_t *self, dkt_event_type_t type, uint64_t number,
                                 int64_t at_ms, uint32_t minute, int64_t deadline_ms,
                                 const char *class_name, dkt_view_t traceparent);
/* The tag of the ticket of the last event (dkt_ticket_text returned it), so that whoever publishes
 * the event need not make it again. */
void dkt_group_tag(dkt_group_t *self, uint64_t tag);
DKT_CHECKED bool dkt_group_reply(dkt_group_t *self, dkt_work_t *work, uint32_t memo,
                                 const uint8_t *bytes, size_t len);

/* Builds the commit; its arrays belong to the group until reset. */
DKT_CHECKED bool dkt_group_seal(dkt_group_t *self, uint64_t journal_seq, int64_t now_ms,
                                dkt_commit_t *commit);

#endif
