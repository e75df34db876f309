/* SPDX-License-Identifier: Apache-2.0
 *
 * The request ids a tenant's owner remembers: in flight (so that a retry joins), refused (for 60 s,
 * so that a retry hears the same) and created (so that a young id need not be looked up in the
 * database). What is not in here is looked up, or is provably new: see dkt_memo_new.
 *
 *   LOOKING -found-> gone       LOOKING -decided-> PENDING -committed-> DONE
 *                               LOOKING -refused-> REFUSED (60 s)
 *
 * Only DONE and REFUSED entries are evicted, oldest first, when there are DKT_REQUEST_MEMORY_MAX.
 */
#ifndef DKT_CORE_MEMO_H
#define DKT_CORE_MEMO_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/core/ids.h"
#include "lib/core/proto.h"
#include "lib/core/status.h"
#include "lib/core/tenant.h"

#define DKT_MEMO_NONE UINT32_MAX

typedef enum {
    DKT_MEMO_FREE,
    DKT_MEMO_LOOKING,
    DKT_MEMO_PENDING,
    DKT_MEMO_DONE,
    DKT_MEMO_REFUSED,
} dkt_memo_state_t;

/* What a request asked for, short enough to keep; slot is the nonce of the slot_id. */
typedef struct {
    uint32_t method, ticket_type, subject, payload;
    uint64_t slot;
} dkt_memo_digest_t;

/* A refusal, remembered by class index: settings changes forget all of them. There are tens of
 * thousands, so that what is remembered ends with the alternatives that there are. */
typedef struct {
    uint8_t verdict; /* dkt_verdict_t */
    bool has_earliest;
    uint8_t alternative_count;
    int64_t earliest_ms, until_mono_ms;
    struct {
        uint8_t class_index;
        uint32_t minute;
        int64_t deadline_ms;
    } alternatives[DKT_CLASSES_MAX];
} dkt_memo_refusal_t;

typedef struct {
    dkt_uuid_t id;
    dkt_memo_digest_t digest;
    uint64_t ticket;             /* PENDING, DONE */
    dkt_work_t *joiners;         /* LOOKING, PENDING */
    dkt_memo_refusal_t *refusal; /* REFUSED, heap: up to its last alternative */
    uint32_t older, newer;       /* eviction order of DONE and REFUSED; `newer` links free ones */
    uint8_t state;               /* dkt_memo_state_t */
} dkt_memo_entry_t;

/* Of each entry what a walk along a bucket needs, apart from it: tens of thousands of entries do
 * not fit a cache, their links do. */
typedef struct {
    uint32_t chain; /* next in the hash bucket */
    uint32_t hash;  /* of the id */
} dkt_memo_link_t;

typedef struct {
    dkt_memo_entry_t *entries;
    dkt_memo_link_t *links; /* beside `entries` */
    uint32_t count, max, link_max;
    uint32_t *buckets;
    uint32_t bucket_count;
    uint32_t free_head, oldest, newest;
    uint32_t settled; /* DONE and REFUSED */
    /* An UUIDv7 younger than this and not in here has never been seen by this tenant. */
    int64_t complete_after_ms;
} dkt_memo_t;

void dkt_memo_init(dkt_memo_t *self);
/* Joiners must have been taken. */
void dkt_memo_fini(dkt_memo_t *self);

/* Entry number, or DKT_MEMO_NONE. Numbers are stable until the entry is removed or evicted. */
uint32_t dkt_memo_find(const dkt_memo_t *self, const dkt_uuid_t *id);
/* Asks for the memory that finding this id will touch: first, while others are decided before it,
 * for its bucket, then, when it is next, for what is behind that. Changes nothing. */
void dkt_memo_fetch(const dkt_memo_t *self, const dkt_uuid_t *id, bool soon);
dkt_memo_entry_t *dkt_memo_entry(dkt_memo_t *self, uint32_t number);

/* A new entry in that state (LOOKING or PENDING) for an id that dkt_memo_find does not find;
 * DKT_MEMO_NONE without memory. */
DKT_CHECKED uint32_t dkt_memo_add(dkt_memo_t *self, const dkt_uuid_t *id,
                                  const dkt_memo_digest_t *digest, dkt_memo_state_t state);
void dkt_memo_remove(dkt_memo_t *self, uint32_t number);
/* PENDING -> DONE. */
void dkt_memo_done(dkt_memo_t *self, uint32_t number);
/* LOOKING or PENDING -> REFUSED; without memory the entry is removed (best effort). */
void dkt_memo_refused(dkt_memo_t *self, uint32_t number, const dkt_memo_refusal_t *refusal);
void dkt_memo_forget_refusals(dkt_memo_t *self);

/* Is this id provably unseen, so that no lookup is needed? An id used before the activation at time
 * A with a timestamp at most DKT_MEMO_SKEW_MS ahead of tenant time is below A + DKT_MEMO_SKEW_MS;
 * anything older, further ahead, or not a UUIDv7 is looked up. The unique index catches liars.
 * With `pristine` no id was ever stored, so that none need be looked up because of its age. */
#define DKT_MEMO_SKEW_MS 10000
void dkt_memo_activated(dkt_memo_t *self, int64_t now_ms, bool pristine);
bool dkt_memo_new_id(const dkt_memo_t *self, const dkt_uuid_t *id, int64_t now_ms);

/* The wire key of the first field that differs, NULL if none. */
const char *dkt_memo_differs(const dkt_memo_digest_t *a, const dkt_memo_digest_t *b);

#endif
