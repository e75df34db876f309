/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/stats.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "workers/node.h"

#define S_MS_PER_S        1000.0
#define S_ONE             1.0
#define S_STATE_BYTES_MAX 32

_Static_assert(DKT_NODE_STATE_COUNT <= DKT_STATS_STATES_MAX, "a gauge for every state");

void dkt_stats_gauge(atomic_uint *gauge, uint32_t *before, uint32_t now)
{
    if (now != *before) {
        atomic_fetch_add_explicit(gauge, now - *before, memory_order_relaxed);
        *before = now;
    }
}

void dkt_stats_total(atomic_ullong *total, uint64_t *before, uint64_t now)
{
    if (now != *before) {
        atomic_fetch_add_explicit(total, now - *before, memory_order_relaxed);
        *before = now;
    }
}

atomic_uint *dkt_stats_cluster(dkt_worker_stats_t *self, const char *host, const char *port)
{
    char name[DKT_STATS_CLUSTER_BYTES];
    snprintf(name, sizeof name, "%s:%s", host, port);
    pthread_mutex_lock(&self->clusters_lock);
    uint32_t count = atomic_load(&self->cluster_count), i = 0;
    while (i < count && strcmp(self->clusters[i].name, name) != 0) {
        i++;
    }
    if (i == DKT_STATS_CLUSTERS_MAX) {
        i = DKT_STATS_CLUSTERS_MAX - 1;
    } else if (i == count) {
        memcpy(self->clusters[i].name, name, sizeof name);
        atomic_store(&self->cluster_count, count + 1);
    }
    pthread_mutex_unlock(&self->clusters_lock);
    return &self->clusters[i].connections;
}

const char *dkt_share_name(dkt_share_t share)
{
    static const char *const names[] = {
        [DKT_SHARE_TAKEN] = "serving",
        [DKT_SHARE_PAUSED] = "paused",
        [DKT_SHARE_DRAINING] = "draining",
    };
    return names[share];
}

static json_t *s_requests(const dkt_worker_stats_t *self)
{
    dkt_traffic_t traffic = {.latency_us = {.count = 0}};
    for (uint32_t method = 0; method < DKT_TRAFFIC_METHODS; method++) {
        for (uint32_t ending = 0; ending < DKT_ENDINGS; ending++) {
            traffic.requests[method][ending] = atomic_load(&self->ended[method][ending]);
        }
    }
    return dkt_traffic_json(&traffic);
}

static json_t *s_actors(const dkt_worker_stats_t *self)
{
    json_t *states = json_object();
    for (int i = 0; i < DKT_NODE_STATE_COUNT; i++) {
        char name[S_STATE_BYTES_MAX];
        snprintf(name, sizeof name, "%s", dkt_node_state_name((dkt_node_state_t)i));
        for (char *at = name; *at; at++) {
            *at = (char)tolower((unsigned char)*at);
        }
        json_object_set_new(states, name, json_integer(atomic_load(&self->actors[i])));
    }
    return states;
}

static void s_put(json_t *root, const char *name, unsigned long long value)
{
    json_object_set_new(root, name, json_integer((json_int_t)value));
}

static json_t *s_clusters(const dkt_worker_stats_t *self)
{
    json_t *clusters = json_object();
    uint32_t count = atomic_load(&self->cluster_count);
    for (uint32_t i = 0; i < count; i++) {
        s_put(clusters, self->clusters[i].name, atomic_load(&self->clusters[i].connections));
    }
    return clusters;
}

static json_t *s_metrics(const dkt_worker_stats_t *self, dkt_stats_told_t *told)
{
    json_t *root = json_object();
    json_object_set_new(root, "docket_requests_total", s_requests(self));
    json_object_set_new(root, "docket_actors", s_actors(self));
    json_object_set_new(root, "docket_pg_connections", s_clusters(self));
    json_object_set_new(root, "docket_commit_seconds",
                        dkt_meter_json(&self->commit_us, &told->commit, DKT_US_PER_S));
    json_object_set_new(root, "docket_commit_group_size",
                        dkt_meter_json(&self->group_size, &told->group, S_ONE));
    json_object_set_new(root, "docket_handoff_seconds",
                        dkt_meter_json(&self->handoff_us, &told->handoff, DKT_US_PER_S));
    json_object_set_new(root, "docket_activation_seconds",
                        dkt_meter_json(&self->activation_us, &told->activation, DKT_US_PER_S));
    json_object_set_new(root, "docket_relay_lag_seconds",
                        json_real((double)atomic_load(&self->lag_ms) / S_MS_PER_S));
    s_put(root, "docket_moved_total", atomic_load(&self->moved));
    s_put(root, "docket_holds", atomic_load(&self->holds));
    s_put(root, "docket_open_tickets", atomic_load(&self->open_tickets));
    s_put(root, "docket_owner_lost_total", atomic_load(&self->owner_lost));
    s_put(root, "docket_breaches_total", atomic_load(&self->breaches));
    s_put(root, "docket_refused_total", atomic_load(&self->refused));
    s_put(root, "docket_refused_told_total", atomic_load(&self->refused_told));
    s_put(root, "docket_refused_dropped_total", atomic_load(&self->refused_dropped));
    return root;
}

static json_t *s_relay(const dkt_worker_stats_t *self)
{
    json_t *root = json_object();
    s_put(root, "published", atomic_load(&self->published));
    s_put(root, "rewinds", atomic_load(&self->rewinds));
    s_put(root, "lag_rows", atomic_load(&self->lag_rows));
    s_put(root, "busy_tenants", atomic_load(&self->busy_tenants));
    return root;
}

json_t *dkt_stats_json(const dkt_worker_stats_t *self, dkt_stats_told_t *told)
{
    json_t *root = json_object();
    s_put(root, "requests", atomic_load(&self->requests));
    s_put(root, "open", atomic_load(&self->open));
    s_put(root, "tenants", atomic_load(&self->tenants));
    s_put(root, "activations", atomic_load(&self->activations));
    s_put(root, "commits", atomic_load(&self->commits));
    json_object_set_new(root, "table",
                        json_pack("{s:I, s:I}", "epoch",
                                  (json_int_t)atomic_load(&self->table_epoch), "version",
                                  (json_int_t)atomic_load(&self->table_version)));
    json_object_set_new(root, "share",
                        json_string(dkt_share_name((dkt_share_t)atomic_load(&self->share))));
    json_object_set_new(root, "relay", s_relay(self));
    json_object_set_new(root, "metrics", s_metrics(self, told));
    return root;
}
