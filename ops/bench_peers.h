/* SPDX-License-Identifier: Apache-2.0
 *
 * What docket is measured against, each a command of its own too:
 *
 *   bench_chain.c    the fleet's sockets and threads when they only echo
 *   bench_plpgsql.c  the obvious design inside PostgreSQL
 *   bench_redis.c    a script inside Redis
 */
#ifndef DKT_OPS_BENCH_PEERS_H
#define DKT_OPS_BENCH_PEERS_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/core/histogram.h"

typedef bool(dkt_peer_stopped_fn)(void);

/* What a run of a peer gave. */
typedef struct {
    double per_s;
    double cpu_us; /* of a request, where the peer is measured by process; else 0 */
    double seconds;
    uint64_t answers;
    dkt_histogram_t latency;
} dkt_peer_result_t;

/* -- chain ------------------------------------------------------------------------------------ */

typedef struct {
    int in_flight, bytes; /* bytes of a request and of its answer */
    bool curve;           /* the producer's side is encrypted, as the internal endpoint is */
    int64_t warm_up_ms, run_ms;
    dkt_peer_stopped_fn *stopped; /* NULL: nobody stops it */
} dkt_chain_plan_t;

#define DKT_CHAIN_BYTES 320 /* about what a create_ticket with its token has */

/* Not reentrant. False: nothing was measured. */
bool dkt_chain_run(const dkt_chain_plan_t *plan, dkt_peer_result_t *result);

/* -- plpgsql ---------------------------------------------------------------------------------- */

#define DKT_PLPGSQL_LEVELS 3
extern const int dkt_plpgsql_levels[DKT_PLPGSQL_LEVELS]; /* connections */

/* A scratch database on a server. */
typedef struct {
    PQconninfoOption *options;
    PGconn *server; /* NULL: not open */
    char database[48];
    uint64_t refused, errors;
    dkt_peer_stopped_fn *stopped;
} dkt_plpgsql_t;

bool dkt_plpgsql_open(dkt_plpgsql_t *self, const char *uri, dkt_peer_stopped_fn *stopped);
bool dkt_plpgsql_run(dkt_plpgsql_t *self, int connections, int64_t run_ms,
                     dkt_peer_result_t *result);
/* The least that a durable write costs: one row, one connection. */
bool dkt_plpgsql_one_row(dkt_plpgsql_t *self, int64_t run_ms, dkt_peer_result_t *result);
void dkt_plpgsql_close(dkt_plpgsql_t *self);

/* -- Redis ------------------------------------------------------------------------------------ */

/* A private server in a temporary folder. */
typedef struct {
    pid_t pid;                     /* 0: not running */
    char folder[192], socket[208]; /* of a Unix socket the kernel takes 107 bytes at most */
    char version[32], appendfsync[16];
    dkt_peer_stopped_fn *stopped;
} dkt_redis_t;

#define DKT_REDIS_CONNECTIONS 64
#define DKT_REDIS_PIPELINE    16

bool dkt_redis_open(dkt_redis_t *self, dkt_peer_stopped_fn *stopped);
bool dkt_redis_run(dkt_redis_t *self, int connections, int pipeline, int64_t run_ms,
                   dkt_peer_result_t *result);
void dkt_redis_close(dkt_redis_t *self);

#endif
