/* SPDX-License-Identifier: Apache-2.0
 *
 * The load of the benches: requests to a running fleet as producers send them.
 *
 *   bench_load.c      one run: what is asked, when, and what was answered
 *   bench_tenants.c   the tenants that it asks for: accounts, capacity, tokens
 *   bench_load_cmd.c  `docket bench load`, for a fleet that runs already
 *
 * In a closed loop each open request belongs to one tenant, so that each tenant has the same number
 * in flight. In an open loop a request's clock starts when it was due, not when it could be sent;
 * the loop wakes at least once a millisecond, so that much of a latency may be its own. All of a
 * load belongs to the thread that opened it.
 */
#ifndef DKT_OPS_BENCH_LOAD_H
#define DKT_OPS_BENCH_LOAD_H

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/core/histogram.h"
#include "lib/core/limits.h"
#include "lib/docket.h"
#include "ops/bench_cpu.h"

#define DKT_LOAD_LINES_MAX   4 /* connections: 1,000 tenants with 16 in flight need 16,000 */
#define DKT_LOAD_TENANTS_MAX 1000
#define DKT_LOAD_SECONDS_MAX 3600
#define DKT_LOAD_RING        65536 /* tickets of a tenant that can be cancelled again */

typedef enum {
    DKT_LOAD_CREATE,
    DKT_LOAD_REFUSE,
    DKT_LOAD_HOLD,
    DKT_LOAD_AVAILABILITY,
    DKT_LOAD_MIXED,
    DKT_LOAD_ONE,
    DKT_LOAD_MODE_COUNT
} dkt_load_mode_t;

extern const char *const dkt_load_modes[DKT_LOAD_MODE_COUNT];

/* -- connections ------------------------------------------------------------------------------ */

typedef struct {
    const char *endpoint, *internal; /* internal NULL: none */
    const char *keys;                /* folder with the CURVE keys of the internal one, or NULL */
    int lines;                       /* to the public endpoint */
    int batch;                       /* requests in one message */
} dkt_load_where_t;

typedef struct {
    dkt_producer_t *lines[DKT_LOAD_LINES_MAX];
    int line_count;
    dkt_producer_t *internal; /* NULL: none */
} dkt_load_t;

/* False, told on stderr: no such keys, or no sockets. */
bool dkt_load_open(dkt_load_t *self, const dkt_load_where_t *where);
void dkt_load_close(dkt_load_t *self);

/* -- tenants ---------------------------------------------------------------------------------- */

typedef char dkt_load_ticket_t[DKT_ID_CHARS_MAX + 1];

typedef struct {
    char client_id[DKT_ID_CHARS_MAX + 1], token[DKT_TOKEN_BYTES_MAX];
    int64_t token_until_ms;  /* Unix time */
    uint64_t asked, created; /* tickets, since the tenant exists */
    uint64_t capacity;       /* of its resolvers: open tickets above this need a cancel */
    dkt_load_ticket_t *ring; /* open tickets, oldest first; NULL: none are cancelled */
    uint32_t ring_head, ring_count;
} dkt_load_tenant_t;

/* Tenants that are alike. */
typedef struct {
    dkt_load_tenant_t *list;
    int count;
    int resolvers; /* of each */
    bool recycle;  /* a full tenant's oldest ticket is cancelled for the next; needs memory */
} dkt_load_set_t;

typedef bool(dkt_load_stopped_fn)(void);

/* Opens accounts until there are `count`, with their resolvers set. False, told on stderr. */
bool dkt_load_set_grow(dkt_load_t *load, dkt_load_set_t *set, int count,
                       dkt_load_stopped_fn *stopped);
/* Sees to it that the first `count` are active, and that each has a token for minutes to come. */
bool dkt_load_set_login(dkt_load_t *load, dkt_load_set_t *set, int count,
                        dkt_load_stopped_fn *stopped);
/* Books gold for one of them, so many tickets or until it refuses. */
#define DKT_LOAD_FULL INT_MAX
bool dkt_load_fill(dkt_load_t *load, dkt_load_set_t *set, int index, int tickets);
/* Asks each of the set for its availability, so many at a time, through the internal endpoint:
 * whoever was not active is now. */
bool dkt_load_set_touch(dkt_load_t *load, dkt_load_set_t *set, int at_a_time,
                        dkt_histogram_t *latency, dkt_load_stopped_fn *stopped);
/* Sets the resolvers of all. */
bool dkt_load_set_resize(dkt_load_t *load, dkt_load_set_t *set, int resolvers,
                         dkt_load_stopped_fn *stopped);
void dkt_load_set_free(dkt_load_set_t *set);

/* -- a run ------------------------------------------------------------------------------------ */

typedef struct {
    dkt_load_mode_t mode;
    dkt_load_tenant_t *tenants;
    int tenant_count;
    int lines;     /* connections that it uses; 0: as few as can have so much in flight */
    int in_flight; /* open at a time; in an open loop at most */
    int rate;      /* per second; 0: a closed loop */
    int64_t warm_up_ms, run_ms;
    int fleet_pid;                /* whose CPU time is measured; 0: nobody's */
    dkt_load_stopped_fn *stopped; /* NULL: nobody stops it */
    const atomic_bool *over;      /* another thread ends it; NULL: nobody */
} dkt_load_plan_t;

/* When in a minute of the wall clock a request was due. */
typedef enum {
    DKT_LOAD_SECOND_ZERO,
    DKT_LOAD_SECOND_LAST_TWO,
    DKT_LOAD_SECOND_REST,
    DKT_LOAD_SECOND_COUNT
} dkt_load_second_t;

typedef struct {
    double seconds; /* that were counted, after the warm-up */
    uint64_t asked, created, refused, cancelled, held, other, errors, silences;
    dkt_histogram_t latency[DKT_LOAD_SECOND_COUNT]; /* merged by dkt_load_latency */
    uint64_t per_second[DKT_LOAD_SECONDS_MAX];
    dkt_bench_cpu_t cpu;
    char error_text[200];
} dkt_load_result_t;

/* False: nothing was answered, or it was stopped. */
bool dkt_load_run(dkt_load_t *self, const dkt_load_plan_t *plan, dkt_load_result_t *result);

void dkt_load_latency(const dkt_load_result_t *result, dkt_histogram_t *latency);
uint64_t dkt_load_answered(const dkt_load_result_t *result);

#endif
