/* SPDX-License-Identifier: Apache-2.0
 *
 * What a worker counts about itself, for docket.stats.worker.<node>. Counting is a relaxed atomic
 * addition or store; only the teller reads, once a second. Names of metrics are Prometheus's.
 */
#ifndef DKT_WORKERS_STATS_H
#define DKT_WORKERS_STATS_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "lib/core/traffic.h"
#include "lib/edge/meter.h"

#define DKT_STATS_STATES_MAX    8   /* states of a tenant's record in the node loop */
#define DKT_STATS_CLUSTERS_MAX  16  /* PostgreSQL clusters told apart; the rest count as the last */
#define DKT_STATS_CLUSTER_BYTES 280 /* host:port */

/* Connections to one PostgreSQL cluster. The name is written before the count of clusters. */
typedef struct {
    char name[DKT_STATS_CLUSTER_BYTES];
    atomic_uint connections;
} dkt_stats_cluster_t;

/* Whether the worker takes part; set by operators. */
typedef enum { DKT_SHARE_TAKEN, DKT_SHARE_PAUSED, DKT_SHARE_DRAINING } dkt_share_t;

typedef struct {
    /* by the node loop */
    atomic_ullong requests, activations, moved, owner_lost, table_epoch, table_version;
    atomic_ullong ended[DKT_TRAFFIC_METHODS][DKT_ENDINGS];
    atomic_uint open, tenants, actors[DKT_STATS_STATES_MAX];
    dkt_meter_t handoff_us; /* from the table that takes a tenant away to its actor's clean end */
    dkt_meter_t activation_us; /* from the start of an actor to its first answer's being possible */
    /* by the actors */
    atomic_ullong commits, breaches, refused;
    atomic_uint holds, open_tickets;
    pthread_mutex_t clusters_lock; /* to add one */
    atomic_uint cluster_count;
    dkt_stats_cluster_t clusters[DKT_STATS_CLUSTERS_MAX];
    dkt_meter_t commit_us, group_size;
    /* by the relay */
    atomic_ullong published, rewinds, lag_rows, lag_ms, busy_tenants;
    /* by the teller and whoever told it to tell */
    atomic_ullong refused_told, refused_dropped;
    atomic_uint share; /* dkt_share_t */
} dkt_worker_stats_t;

/* The reader's memory of what it has told. */
typedef struct {
    dkt_histogram_t commit, group, handoff, activation;
} dkt_stats_told_t;

/* Adds what changed since `before`, which is renewed. */
void dkt_stats_gauge(atomic_uint *gauge, uint32_t *before, uint32_t now);
void dkt_stats_total(atomic_ullong *total, uint64_t *before, uint64_t now);

/* The gauge of the cluster at that address; made if there is none. */
atomic_uint *dkt_stats_cluster(dkt_worker_stats_t *self, const char *host, const char *port);

const char *dkt_share_name(dkt_share_t share);

/* Everything as one object; percentiles are those of the time since the last call. */
json_t *dkt_stats_json(const dkt_worker_stats_t *self, dkt_stats_told_t *told);

#endif
