/* SPDX-License-Identifier: Apache-2.0
 *
 * Which tenant of a worker's own must be activated although nobody asks (rule 7), and when. Pure:
 * time is an argument, the rows come from the control table `wake`, the caller activates.
 *
 *   rows     due at a time of the tenant; activated DKT_WAKE_EARLY_MS early, smallest first, so the
 *            zeros, which a worker that died left behind, come before everything
 *   probes   tenants without a row, or with one far away: looked into now and then, a few at a
 *            time, behind all rows that are due
 *
 * A tenant that is active is not in here. What is here is a subset of the table: nothing is lost
 * with it that the next owner of the vshard would not read again.
 */
#ifndef DKT_CORE_WAKE_H
#define DKT_CORE_WAKE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "lib/core/ids.h"
#include "lib/core/limits.h"
#include "lib/core/status.h"

typedef struct dkt_wake_entry {
    LIST_ENTRY(dkt_wake_entry) bucket; /* of its vshard */
    TAILQ_ENTRY(dkt_wake_entry) probe; /* in `probes` while it is in no heap */
    dkt_client_t client;
    int64_t due_ms;
    uint32_t place; /* in the heap; UINT32_MAX: a probe */
} dkt_wake_entry_t;

typedef struct {
    LIST_HEAD(, dkt_wake_entry) buckets[DKT_VSHARDS];
    TAILQ_HEAD(, dkt_wake_entry) probes;
    dkt_wake_entry_t **heap;
    uint32_t heap_count, heap_max;
    uint32_t probe_count;
    int64_t paused_until_ms;
} dkt_wake_t;

typedef enum {
    DKT_WAKE_DUE,    /* client, due_ms: a row that was read or written; the earlier one stays */
    DKT_WAKE_PROBE,  /* client: look into it, unless there is a row */
    DKT_WAKE_ACTIVE, /* client: it is being activated, or it is gone */
    DKT_WAKE_LOST,   /* vshard: somebody else's now */
    DKT_WAKE_PAUSE,  /* an activation found no way: nothing more for DKT_WAKE_PAUSE_MS */
} dkt_wake_event_kind_t;

typedef struct {
    dkt_wake_event_kind_t kind;
    dkt_client_t client;
    int64_t due_ms;
    uint16_t vshard;
} dkt_wake_event_t;

/* What the end of a tenant's actor means for its row. */
typedef enum {
    DKT_WAKE_END_SETTLE, /* the ledger knew what is due next: the row says so, or goes */
    DKT_WAKE_END_KEEP,   /* it never served, so nobody knows: the row stays as it is */
    DKT_WAKE_END_WANTED, /* what it served may be in the database: activate it again at once */
} dkt_wake_end_t;

dkt_wake_end_t dkt_wake_after_end(bool clean, bool served);

void dkt_wake_init(dkt_wake_t *self);
void dkt_wake_fini(dkt_wake_t *self);

/* False: no memory, the event had no effect. Only DUE and PROBE can fail. */
DKT_CHECKED bool dkt_wake_step(dkt_wake_t *self, int64_t now_ms, const dkt_wake_event_t *event);

/* Takes out who must be activated now; false: nobody. `starting`: how many activations wait for
 * their turn, so that those with waiting requests are not kept behind; `probing`: how many probes
 * are under way. */
DKT_CHECKED bool dkt_wake_next(dkt_wake_t *self, int64_t now_ms, uint32_t starting,
                               uint32_t probing, dkt_client_t *client, bool *is_probe);

/* How many are in here, probes included. */
uint32_t dkt_wake_count(const dkt_wake_t *self);

#endif
