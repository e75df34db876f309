/* SPDX-License-Identifier: Apache-2.0
 *
 * The slot ledger of one tenant: what is promised and when. Pure: no clock, no socket, no database,
 * and no allocation after dkt_ledger_new. The semantics are page 3 of the design ("The slot
 * ledger").
 *
 *      minute   m      m+1    m+2   ...             ring of minutes, horizon = longest class
 *            +------+------+------+
 *    lane 0  | tk 7 | hold | free |      R lanes a minute, each free, held or booked.
 *    lane 1  | tk 9 | free | free |      The unit of truth is the promise; the lane is where
 *            +------+------+------+      it stands now and it may move until its deadline.
 *
 * Units: `_ms` is milliseconds since the Unix epoch (tenant time), `minute` is minutes since the
 * Unix epoch (slot start / 60000). A ticket number is the tenant's own sequence, 1 .. 2^62. A nonce
 * names a hold, 1 .. 2^62, unique for ever within the tenant.
 * Time given to a ledger never goes back; an older `now_ms` is taken as the newest one seen.
 */
#ifndef DKT_CORE_LEDGER_H
#define DKT_CORE_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/core/limits.h"
#include "lib/core/status.h"

typedef struct dkt_ledger dkt_ledger_t;

typedef struct {
    char name[DKT_CLASS_NAME_BYTES_MAX + 1];
    uint16_t level_minutes; /* DKT_LEVEL_MIN_MINUTES .. DKT_LEVEL_MAX_MINUTES */
    uint16_t
        limit_permille; /* booking limit p_i of this class and all less urgent ones; 1000: none */
} dkt_class_t;

/* What the tenant's database says about capacity and policy. Classes are sorted by level, urgent
 * first; a class is named by its index here. */
typedef struct {
    uint16_t resolvers; /* R, 1 .. DKT_RESOLVERS_MAX */
    bool rebooking;
    uint8_t class_count; /* 1 .. DKT_CLASSES_MAX */
    dkt_class_t classes[DKT_CLASSES_MAX];
} dkt_settings_t;

/* gold 120, silver 240, bronze 480, rebooking on, no limits. */
void dkt_settings_default(dkt_settings_t *settings, uint16_t resolvers);

/* INVALID_ARGUMENT with field resolvers, classes or limits. Sorts the classes by level. */
DKT_CHECKED dkt_status_t dkt_settings_check(dkt_settings_t *settings, dkt_err_t *err);

/* Index of the class of that name, -1 if there is none. */
int dkt_settings_class(const dkt_settings_t *settings, const char *name, uint32_t len);

/* Where a promise stands. */
typedef struct {
    uint32_t minute;
    uint16_t lane;
} dkt_place_t;

typedef enum {
    DKT_TICKET_OPEN,
    DKT_TICKET_DISPATCHED,
    DKT_TICKET_RESOLVED,
    DKT_TICKET_CANCELLED,
    DKT_TICKET_STATE_COUNT
} dkt_ticket_state_t;

const char *dkt_ticket_state_name(dkt_ticket_state_t state);

#define DKT_CLASS_GONE 255 /* a ticket whose class the settings no longer have */

/* One live promise as the ledger knows it (open, or dispatched and neither resolved nor breached).
 */
typedef struct {
    uint64_t ticket;
    int64_t deadline_ms;
    dkt_place_t place;
    uint8_t class_index; /* or DKT_CLASS_GONE */
    uint8_t state;       /* dkt_ticket_state_t: OPEN or DISPATCHED */
    bool at_risk;
} dkt_promise_t;

/* A ticket that another operation moved. */
typedef struct {
    uint64_t ticket;
    dkt_place_t from, to;
} dkt_move_t;

typedef struct {
    uint32_t count; /* <= DKT_MOVES_MAX */
    dkt_move_t moves[DKT_MOVES_MAX];
} dkt_moves_t;

typedef enum {
    DKT_VERDICT_YES,
    DKT_VERDICT_NO_SLOT,        /* no schedule exists (without limits and with rebooking: at all) */
    DKT_VERDICT_LIMIT,          /* a booking limit stands in the way */
    DKT_VERDICT_TOO_MANY_MOVES, /* a chain longer than DKT_MOVES_MAX would be needed */
    DKT_VERDICT_COUNT
} dkt_verdict_t;

/* Wire name of a refusal's reason: "no_slot", "limit", "too_many_moves"; "yes" for YES. */
const char *dkt_verdict_name(dkt_verdict_t verdict);

/* A change that tick, load or resize made and that must be committed. */
typedef enum {
    DKT_CHANGE_MOVED,      /* place is new */
    DKT_CHANGE_DISPATCHED, /* place may be new too (pulled forward) */
    DKT_CHANGE_BREACHED,   /* deadline passed unresolved; the promise is forgotten after this
                              when it was dispatched, kept when open */
    DKT_CHANGE_AT_RISK,    /* place is new, the promise may not be kept */
} dkt_change_kind_t;

typedef struct {
    dkt_change_kind_t kind;
    dkt_promise_t promise; /* as it is after the change */
    dkt_place_t from;      /* as it was before */
} dkt_change_t;

typedef void(dkt_change_fn)(void *ctx, const dkt_change_t *change);

/* A new, empty ledger; settings are copied and must have passed dkt_settings_check. Heap; the
 * caller's. NULL if there is no memory. Bytes: dkt_ledger_bytes. */
dkt_ledger_t *dkt_ledger_new(const dkt_settings_t *settings, int64_t now_ms);
void dkt_ledger_destroy(dkt_ledger_t **self_p);
size_t dkt_ledger_bytes(const dkt_settings_t *settings);

const dkt_settings_t *dkt_ledger_settings(const dkt_ledger_t *self);

/* -- loading after activation: load_ticket for each row in any order, load_hold for each hold that
 * a planned handoff passed on, then load_done once, before anything else. -------------------------
 */

/* The newest minute that a predecessor has dispatched (0: none), before any ticket: dispatched and
 * resolved tickets stand on its lanes in the database, so this ledger does not dispatch it again.
 */
void dkt_ledger_load_dispatched(dkt_ledger_t *self, uint32_t minute);

/* OPEN and DISPATCHED (unbreached) tickets, as they stand in the database. INVALID_ARGUMENT if two
 * stand on one lane or the place is outside what R allows: the database is damaged, do not serve.
 */
DKT_CHECKED dkt_status_t dkt_ledger_load_ticket(dkt_ledger_t *self, const dkt_promise_t *promise,
                                                dkt_err_t *err);
DKT_CHECKED dkt_status_t dkt_ledger_load_hold(dkt_ledger_t *self, uint64_t nonce,
                                              uint8_t class_index, dkt_place_t place,
                                              int64_t expires_ms, dkt_err_t *err);

/* Settles missed minutes (page 3): reports every move, at_risk and breach through `fn`. */
void dkt_ledger_load_done(dkt_ledger_t *self, int64_t now_ms, dkt_change_fn *fn, void *ctx);

/* -- admission -----------------------------------------------------------------------------------
 */

/* hold + allocate in one step at the earliest eligible slot. On YES the promise is live, `*place`
 * and
 * `*deadline_ms` (now + level) are set and `moves` tells which tickets had to move (often none). */
DKT_CHECKED dkt_verdict_t dkt_ledger_admit(dkt_ledger_t *self, int64_t now_ms, uint8_t class_index,
                                           uint64_t ticket, dkt_place_t *place,
                                           int64_t *deadline_ms, dkt_moves_t *moves);

/* Books as pending; on YES `*place` and `*expires_ms` are set. The rules for which slot: page 3. */
DKT_CHECKED dkt_verdict_t dkt_ledger_hold(dkt_ledger_t *self, int64_t now_ms, uint8_t class_index,
                                          uint32_t ttl_ms, uint64_t nonce, dkt_place_t *place,
                                          int64_t *expires_ms, dkt_moves_t *moves);

typedef enum {
    DKT_ALLOCATE_CREATED,
    DKT_ALLOCATE_EXPIRED, /* now >= expires_ms */
    DKT_ALLOCATE_GONE, /* this ledger holds no such nonce: released, allocated, or lost in a crash
                        */
} dkt_allocate_t;

/* Turns a live hold into a ticket in its place; the deadline counts from now. A hold whose slot can
 * no longer serve its class (it expires 2 s before its slot) cannot occur while it is live. */
DKT_CHECKED dkt_allocate_t dkt_ledger_allocate(dkt_ledger_t *self, int64_t now_ms, uint64_t nonce,
                                               int64_t expires_ms, uint64_t ticket,
                                               dkt_place_t *place, int64_t *deadline_ms);

/* For a hold that a crash lost: books `ticket` in exactly `minute` iff a lane there is still free
 * and the slot still serves the class (now < expires_ms has been checked by the caller). */
DKT_CHECKED bool dkt_ledger_allocate_lost(dkt_ledger_t *self, int64_t now_ms, uint8_t class_index,
                                          uint32_t minute, uint64_t ticket, dkt_place_t *place,
                                          int64_t *deadline_ms);

/* Frees a live hold; false if there is none of that nonce (released, expired, allocated, lost). */
bool dkt_ledger_release(dkt_ledger_t *self, int64_t now_ms, uint64_t nonce);

/* -- the life of a promise ------------------------------------------------------------------------
 */

/* The live promise of that number; false if the ledger has none (never was, or is over). */
DKT_CHECKED bool dkt_ledger_find(const dkt_ledger_t *self, uint64_t ticket, dkt_promise_t *promise);

/* Frees the slot of an OPEN ticket; false if it is not live or not open. */
DKT_CHECKED bool dkt_ledger_cancel(dkt_ledger_t *self, int64_t now_ms, uint64_t ticket);

/* Forgets a live ticket, open (its slot is freed) or dispatched; false if it is not live. */
DKT_CHECKED bool dkt_ledger_resolve(dkt_ledger_t *self, int64_t now_ms, uint64_t ticket);

/* Dispatches `minute` (once now > minute * 60000 - 2 s; a later call inside the minute still
 * counts; a minute that ended undispatched is missed and is settled here as at load), pulls
 * forward, and reports breaches. Calling it again for the same minute does nothing. Changes go
 * through `fn`. */
void dkt_ledger_tick(dkt_ledger_t *self, int64_t now_ms, uint32_t minute, dkt_change_fn *fn,
                     void *ctx);

/* When the ledger next has something to do: the next undispatched minute (its start - 2 s + 1 ms,
 * when it is closed to booking) while a ticket is open, a deadline to flag (+ 1 ms: at the deadline
 * itself it is still met), or a hold to expire; INT64_MAX if nothing. A tick at that time for the
 * minute of (now + 1999 ms) always gets past it. */
int64_t dkt_ledger_due_ms(const dkt_ledger_t *self);

/* -- settings
 * -------------------------------------------------------------------------------------- */

/* Replaces the settings (R, classes, policy). On YES `*self_p` is a new block and the old one is
 * freed; moves go through `fn`. On refusal nothing changes: `*blocker_count` promises stand in the
 * way, the first `blockers_max` of them (earliest deadline first) are in `blockers`.
 * INTERNAL: no memory. REFUSED is CONFLICT. Holds stay where they are. */
DKT_CHECKED dkt_status_t dkt_ledger_resize(dkt_ledger_t **self_p, int64_t now_ms,
                                           const dkt_settings_t *settings, dkt_change_fn *fn,
                                           void *ctx, uint64_t *blockers, uint32_t blockers_max,
                                           uint32_t *blocker_count);

/* -- questions
 * ------------------------------------------------------------------------------------- */

/* Start of the first minute whose arrival of this class would fit if only time passed (page 3);
 * false: it can never fit. */
DKT_CHECKED bool dkt_ledger_earliest(dkt_ledger_t *self, int64_t now_ms, uint8_t class_index,
                                     int64_t *earliest_ms);

/* Would this class be admitted now, and where? Changes nothing. `*minute` is its slot start. */
DKT_CHECKED dkt_verdict_t dkt_ledger_probe(dkt_ledger_t *self, int64_t now_ms, uint8_t class_index,
                                           uint32_t *minute);

/* How many of this class alone would be admitted now in a row, and the slot of the first (valid
 * when free > 0). Exact with rebooking and limits, but that a chain of more than DKT_MOVES_MAX
 * moves may end the row earlier. The first question after a change looks at every lane, O(horizon *
 * R); with limits it tries, one admission after another. */
uint32_t dkt_ledger_available(dkt_ledger_t *self, int64_t now_ms, uint8_t class_index,
                              uint32_t *first_minute);

typedef struct {
    uint32_t open, dispatched, held, moves_total;
} dkt_ledger_counts_t;

void dkt_ledger_counts(const dkt_ledger_t *self, dkt_ledger_counts_t *counts);

/* Calls `fn` for each live hold, in no order (handoff). */
typedef void(dkt_hold_fn)(void *ctx, uint64_t nonce, uint8_t class_index, dkt_place_t place,
                          int64_t expires_ms);
void dkt_ledger_holds(const dkt_ledger_t *self, dkt_hold_fn *fn, void *ctx);

/* Recounts every invariant from scratch; false and a sentence in `err` at the first that is broken.
 * O(horizon * R). On after every operation in tests. */
DKT_CHECKED bool dkt_ledger_check(const dkt_ledger_t *self, dkt_err_t *err);

#endif
