/* SPDX-License-Identifier: Apache-2.0
 *
 * The store port (lib/core/store.h) over libpq: ONE connection to one tenant's database, never
 * blocking, in pipeline mode. It has no thread and no loop of its own: whoever owns it polls its fd
 * for its events until its due time and then calls dkt_pgstore_ready.
 *
 *   state    CONNECTING -ok-> READY -any failure-> LOST        (one way: a new store is a new
 * object)
 *
 * - A batch is statements and one Sync, so one implicit transaction. Its result is delivered when
 * the Sync is answered, exactly once, in order, only from inside dkt_pgstore_ready.
 * - A batch that writes (LOCK, TAKE, COMMIT, MIGRATE) is sent only when no earlier one that writes
 * is open; until then its arrays are not read. READ, LOAD and GUARD go out at once, behind whatever
 * is in flight.
 * - Any failure ends the connection (and so frees the lock): REFUSED for the batch that the
 * database refused, UNKNOWN for others that were sent and may write, LOST for the rest. Then
 * on_state LOST.
 * - A batch without an answer for DKT_COMMIT_TIMEOUT_MS is UNKNOWN and the connection is dropped;
 * no query is ever cancelled, because a cancelled commit wait reports success.
 * - All times are CLOCK_MONOTONIC milliseconds.
 */
#ifndef DKT_EDGE_PGSTORE_H
#define DKT_EDGE_PGSTORE_H

#include <stdint.h>

#include "lib/core/store.h"

typedef struct dkt_pgstore dkt_pgstore_t;

/* All borrowed for the call of dkt_pgstore_new. Hosts are addresses (a name would block in the
 * resolver); host and port may be comma lists, the first that accepts writes is taken. */
typedef struct {
    const char *host;
    const char *port;
    const char *dbname;
    const char *user;
    const char *password;    /* NULL: none */
    const char *sslmode;     /* NULL: "prefer", on loopback "disable" */
    const char *node;        /* these two make the application_name docket/NODE/INCARNATION; */
    const char *incarnation; /* 32 hex digits; the node's name is cut where both do not fit */
} dkt_pgstore_config_t;

typedef enum {
    DKT_PGSTORE_CONNECTING,
    DKT_PGSTORE_READY,
    DKT_PGSTORE_LOST,
} dkt_pgstore_state_t;

/* May submit, must not destroy. */
typedef void(dkt_pgstore_fn)(void *ctx, const dkt_store_result_t *result);
/* READY once, then LOST once, or LOST alone; `text` is a sentence, "" for READY. */
typedef void(dkt_pgstore_state_fn)(void *ctx, dkt_pgstore_state_t state, const char *text);

/* Starts to connect. Heap; NULL without memory. */
dkt_pgstore_t *dkt_pgstore_new(const dkt_pgstore_config_t *config, dkt_pgstore_fn *on_result,
                               dkt_pgstore_state_fn *on_state, void *ctx);
/* Closes the connection at once; batches that are open get no result. Not from a callback. */
void dkt_pgstore_destroy(dkt_pgstore_t **self_p);

/* What to poll: it may change with every call, -1: nothing. */
int dkt_pgstore_fd(const dkt_pgstore_t *self);
short dkt_pgstore_events(const dkt_pgstore_t *self);
/* When to call dkt_pgstore_ready at the latest; INT64_MAX: not before the fd is ready. */
int64_t dkt_pgstore_due_mono_ms(const dkt_pgstore_t *self);

/* Drives everything: call it when the fd is ready or the time has come. Calls back. */
void dkt_pgstore_ready(dkt_pgstore_t *self, int64_t mono_ms);

/* Queues the batch and sends it if it may go. Never calls back. At most DKT_STORE_BATCHES_MAX may
 * be open (an assert). `batch` and the arrays of a READ are borrowed for the call; what a COMMIT
 * points to stays until its result. */
void dkt_pgstore_submit(dkt_pgstore_t *self, const dkt_batch_t *batch);

dkt_pgstore_state_t dkt_pgstore_state(const dkt_pgstore_t *self);

#endif
