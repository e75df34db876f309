/* SPDX-License-Identifier: Apache-2.0
 *
 * The inside of the slot ledger, shared by the files ledger*.c and by nobody else.
 *
 * A record is one hold, one open ticket or one dispatched ticket. Records are found by key through
 * chained buckets (`heads`), and each is in exactly one doubly linked list (`lists`): a hold in the
 * list of the 5 seconds it expires in, a ticket in the list of its deadline's minute.
 * `minutes` and `lanes` are rings over the undispatched minutes [base, base + ring).
 */
#ifndef DKT_CORE_LEDGER_IMPL_H
#define DKT_CORE_LEDGER_IMPL_H

#include <assert.h>

#include "lib/core/ledger.h"

#define DKT_LI_NONE UINT32_MAX /* no record, no minute */
#define DKT_LI_TOP_UNKNOWN                                                                         \
    (UINT32_MAX - 1) /* the latest deadline of a minute must be recounted                          \
                      */
#define DKT_LI_LANE_FREE                                                                           \
    0x80000000u                     /* set in a free lane's cell; the rest is the next free one    \
                                     */
#define DKT_LI_LANE_END 0xffffu     /* end of a minute's free list */
#define DKT_LI_HEAD     0x80000000u /* set in `prev` of a list's first record: the list's number */
#define DKT_LI_HOLD_KEY 0x8000000000000000u /* keeps nonces and ticket numbers apart */

/* Bits of a record's `flags`. */
#define DKT_LI_HOLD       0x01u
#define DKT_LI_OPEN       0x02u
#define DKT_LI_DISPATCHED 0x04u
#define DKT_LI_AT_RISK    0x08u
#define DKT_LI_BREACHED   0x10u
#define DKT_LI_ADRIFT     0x20u /* open, but its minute was missed: it stands nowhere for now */
#define DKT_LI_MARK       0x40u /* taken by the sweep of dkt_ledger_earliest */

typedef struct {
    uint64_t key;        /* ticket number, or nonce | DKT_LI_HOLD_KEY */
    int64_t deadline_ms; /* of a hold: when it expires */
    uint32_t minute;
    uint32_t next, prev; /* in its list; of an unused record `next` is the third behind it */
    uint32_t chain;      /* next record of the same hash bucket, or next unused record */
    uint16_t lane;
    uint8_t class_index;
    uint8_t flags;
} __attribute__((packed, aligned(4))) dkt_li_record_t;

typedef struct {
    uint16_t free_lane; /* first free lane */
    uint16_t free_count;
    uint32_t top; /* open ticket of latest deadline standing here, NONE or TOP_UNKNOWN */
} dkt_li_minute_t;

/* What a question costs again only after a change. */
typedef struct {
    uint64_t version;
    uint32_t first, last;
    dkt_verdict_t verdict;
} dkt_li_refusal_t;

typedef struct {
    uint64_t version;
    uint32_t from;
    int64_t earliest_ms;
} dkt_li_earliest_t;

typedef struct {
    uint64_t version;
    uint32_t first, last, count;
} dkt_li_available_t;

/* Sizes of the arrays behind the header. */
typedef struct {
    uint32_t ring; /* minutes, a power of two */
    uint32_t records_max;
    uint32_t heads; /* a power of two */
    uint32_t lists;
    uint32_t bitmaps; /* one for lanes, and with limits one more a class */
    uint32_t resolvers;
    bool limited;
} dkt_li_shape_t;

struct dkt_ledger {
    dkt_settings_t settings;
    dkt_li_shape_t shape;
    bool loading;
    int64_t now_ms;
    int64_t hold_due_ms;     /* earliest expiry of a hold, INT64_MAX without one */
    uint64_t version;        /* counts changes */
    uint32_t base;           /* first undispatched minute */
    uint32_t dispatched_end; /* minutes before it had another owner to dispatch them; 0: none */
    uint32_t flag_minute;    /* no unbreached ticket is in a deadline list before this one's */
    uint32_t unused;         /* first record of the chain of those that are free again */
    uint32_t fresh;          /* records from here on were never touched: no page of theirs exists */
    dkt_ledger_counts_t counts;
    dkt_li_refusal_t refusals[DKT_CLASSES_MAX];
    dkt_li_earliest_t earliest[DKT_CLASSES_MAX];
    dkt_li_available_t available[DKT_CLASSES_MAX];

    void *arena; /* this block's tail, or a block of its own when loading had to grow it */
    bool arena_owned;
    uint64_t *open_minutes; /* bitmaps [bitmaps][ring / 64]: minutes with a lane to book */
    dkt_li_record_t *records;
    uint32_t *heads;
    uint32_t *lists;
    uint32_t *lanes; /* [ring][resolvers]: a record, or DKT_LI_LANE_FREE | next free lane */
    dkt_li_minute_t *minutes;
    uint16_t *used;    /* [ring][DKT_CLASSES_MAX], with limits only */
    uint32_t *parents; /* [records_max], the limited search's */
    uint32_t *queue;   /* [records_max], likewise */
};

/* Lists behind the `ring` deadline minutes. */
enum {
    DKT_LI_LIST_LATE,   /* open tickets past their deadline */
    DKT_LI_LIST_ADRIFT, /* open tickets of missed minutes, while they are re-placed */
    DKT_LI_LIST_BATCH,  /* the tickets of one dispatch or flagging */
    DKT_LI_LIST_HOLDS,  /* and DKT_LI_HOLD_LISTS - 1 more */
};
#define DKT_LI_HOLD_LISTS   64   /* a power of two */
#define DKT_LI_HOLD_LIST_MS 5000 /* of each: together more than DKT_HOLD_MAX_MS */
#define DKT_LI_RING_SPARE   8    /* minutes beyond the horizon: late ticks, missed minutes */
#define DKT_LI_CHAIN_MAX    2048 /* moves that settle one missed promise; levels <= ring */

/* Where something fits, and who has to move for it: chain[i] takes the place of chain[i + 1], the
 * last one goes to `free_minute`; the newcomer takes the place of chain[0]. */
typedef struct {
    uint32_t count, max;
    uint32_t *chain;
    uint32_t free_minute;
} dkt_li_route_t;

static inline dkt_li_minute_t *dkt_li_minute(const dkt_ledger_t *self, uint32_t minute)
{
    return &self->minutes[minute & (self->shape.ring - 1)];
}

static inline uint32_t *dkt_li_lane(const dkt_ledger_t *self, uint32_t minute, uint32_t lane)
{
    return &self->lanes[(size_t)(minute & (self->shape.ring - 1)) * self->shape.resolvers + lane];
}

static inline uint16_t *dkt_li_used(const dkt_ledger_t *self, uint32_t minute)
{
    return &self->used[(size_t)(minute & (self->shape.ring - 1)) * DKT_CLASSES_MAX];
}

static inline uint32_t dkt_li_minute_of(int64_t time_ms)
{
    return time_ms <= 0 ? 0 : (uint32_t)(time_ms / DKT_MINUTE_MS);
}

/* First minute open to booking `lead_ms` from now. */
static inline uint32_t dkt_li_first(int64_t now_ms, int64_t lead_ms)
{
    return dkt_li_minute_of(now_ms + lead_ms + DKT_MINUTE_MS - 1);
}

/* Last minute that ends by the deadline; 0 if none does. */
static inline uint32_t dkt_li_last(int64_t deadline_ms)
{
    return dkt_li_minute_of(deadline_ms - DKT_MINUTE_MS);
}

static inline uint32_t dkt_li_window_end(const dkt_ledger_t *self)
{
    return self->base + self->shape.ring - 1;
}

static inline int64_t dkt_li_level_ms(const dkt_ledger_t *self, uint8_t class_index)
{
    assert(class_index < self->settings.class_count);
    return (int64_t)self->settings.classes[class_index].level_minutes * DKT_MINUTE_MS;
}

/* -- ledger.c: the block, records, lists, lanes --------------------------------------------------
 */
dkt_ledger_t *dkt_li_new(const dkt_settings_t *settings, uint32_t horizon, uint32_t extra,
                         int64_t now_ms);
dkt_ledger_t *dkt_li_clone(const dkt_ledger_t *self);
bool dkt_li_grow(dkt_ledger_t *self, uint32_t ring, uint32_t records_max);
void dkt_li_relink_lanes(dkt_ledger_t *self);

uint32_t dkt_li_lookup(const dkt_ledger_t *self, uint64_t key);
uint32_t dkt_li_insert(dkt_ledger_t *self, uint64_t key);
void dkt_li_rekey(dkt_ledger_t *self, uint32_t index, uint64_t key);
void dkt_li_drop(dkt_ledger_t *self, uint32_t index); /* from its list and the hash */

void dkt_li_link(dkt_ledger_t *self, uint32_t list, uint32_t index);
void dkt_li_unlink(dkt_ledger_t *self, uint32_t index);
void dkt_li_link_deadline(dkt_ledger_t *self, uint32_t index);
/* Sorts by deadline, with `by_class` by class first; ties by ticket number. */
void dkt_li_sort(dkt_ledger_t *self, uint32_t list, bool by_class);
static inline uint32_t dkt_li_list(const dkt_ledger_t *self, uint32_t which)
{
    return self->shape.ring + which;
}
static inline uint32_t dkt_li_deadline_list(const dkt_ledger_t *self, uint32_t minute)
{
    return minute & (self->shape.ring - 1);
}

/* ledger_lanes.c */
void dkt_li_take(dkt_ledger_t *self, uint32_t index, uint32_t minute); /* a free lane there */
void dkt_li_take_lane(dkt_ledger_t *self, uint32_t index, uint32_t minute, uint16_t lane);
void dkt_li_leave(dkt_ledger_t *self, uint32_t index);
void dkt_li_became_open(dkt_ledger_t *self, uint32_t index); /* a hold that is a ticket now */
void dkt_li_recycle(dkt_ledger_t *self);                     /* base is over: base + ring is new */
void dkt_li_refresh(dkt_ledger_t *self, uint32_t minute);
uint32_t dkt_li_top(dkt_ledger_t *self, uint32_t minute);
/* First and last minute of [first, last] with a lane `class_index` may book; DKT_LI_NONE. Class
 * DKT_CLASS_GONE: any free lane. */
uint32_t dkt_li_find(const dkt_ledger_t *self, uint8_t class_index, uint32_t first, uint32_t last);
uint32_t dkt_li_find_back(const dkt_ledger_t *self, uint8_t class_index, uint32_t first,
                          uint32_t last);
/* May `enters` be booked in the minute once a ticket of class `leaves` has left it? With
 * DKT_CLASS_GONE as `leaves` nothing is given back. */
bool dkt_li_limits_allow(const dkt_ledger_t *self, uint32_t minute, uint8_t enters, uint8_t leaves);

/* -- time ----------------------------------------------------------------------------------------
 */
/* ledger_admit.c: takes the newest time, expires holds, lets empty minutes pass. */
void dkt_li_advance(dkt_ledger_t *self, int64_t now_ms);
void dkt_li_link_hold(dkt_ledger_t *self, uint32_t index);
void dkt_li_hold_gone(dkt_ledger_t *self, int64_t expires_ms);

/* -- ledger_rebook.c -----------------------------------------------------------------------------
 */
dkt_verdict_t dkt_li_locate(dkt_ledger_t *self, uint8_t class_index, uint32_t first, uint32_t last,
                            int64_t deadline_ms, uint32_t *minute, dkt_li_route_t *route);
/* A chain by lanes alone, without limits; false if there is none. route->count may exceed max. */
bool dkt_li_route(dkt_ledger_t *self, uint32_t first, uint32_t last, dkt_li_route_t *route);
bool dkt_li_route_limited(dkt_ledger_t *self, uint8_t class_index, uint32_t first, uint32_t last,
                          int64_t deadline_ms, dkt_li_route_t *route);
/* Makes the moves; returns the minute that is free then. */
uint32_t dkt_li_follow(dkt_ledger_t *self, const dkt_li_route_t *route, dkt_moves_t *moves,
                       dkt_change_fn *fn, void *ctx);

/* -- ledger_tick.c -------------------------------------------------------------------------------
 */
void dkt_li_promise(const dkt_ledger_t *self, uint32_t index, dkt_promise_t *promise);
void dkt_li_report(const dkt_ledger_t *self, uint32_t index, dkt_change_kind_t kind,
                   dkt_place_t from, dkt_change_fn *fn, void *ctx);
/* Finds a place for an open ticket that stands nowhere, moving others if need be; false: none. */
DKT_LARGE_FRAME bool dkt_li_place(dkt_ledger_t *self, uint32_t index, dkt_change_fn *fn, void *ctx);
/* Re-places what stood in minutes that ended, and reports breaches. */
void dkt_li_settle_missed(dkt_ledger_t *self, dkt_change_fn *fn, void *ctx);

/* ledger_settings.c: lanes of the minute that class `index` and less urgent ones may book. */
uint32_t dkt_li_allowed(const dkt_settings_t *settings, uint8_t index, uint32_t minute);
bool dkt_li_limited(const dkt_settings_t *settings);

#endif
