/* SPDX-License-Identifier: Apache-2.0 */
#include "brokers/hub_teller.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/edge/clock.h"
#include "lib/edge/log.h"
#include "lib/edge/meter.h"
#include "lib/edge/replica_answer.h"
#include "lib/edge/srv.h"

#define S_STATS_PREFIX "docket.stats.broker."
#define S_SERVICE      "docket-broker"
#define S_DIGITS       6 /* of a fraction in JSON */

/* What the hub hands over. */
typedef struct {
    dkt_router_counts_t counts;
    dkt_traffic_t traffic;
    dkt_table_version_t table;
} s_snapshot_t;

struct dkt_hub_teller {
    dkt_bus_t *bus;
    dkt_replica_t *tenants;
    dkt_srv_t *srv;
    pthread_t thread;
    char node[DKT_NODE_BYTES_MAX + 1]; /* as one token of a subject */
    int64_t offer_mono_ms;             /* the hub's: its next offer */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool fresh, stopping; /* under the lock */
    s_snapshot_t offered; /* under the lock */
    s_snapshot_t now;     /* the thread's, as everything below */
    dkt_histogram_t told, since;
};

/* -- the hub's side -- */

void dkt_hub_teller_offer(dkt_hub_teller_t *self, const dkt_router_t *router, int64_t now_mono_ms)
{
    if (now_mono_ms < self->offer_mono_ms || pthread_mutex_trylock(&self->lock) != 0) {
        return; /* not yet, or the teller is copying: the next round is soon enough */
    }
    self->offer_mono_ms = now_mono_ms + DKT_STATS_MS;
    dkt_router_counts(router, &self->offered.counts);
    self->offered.traffic = *dkt_router_traffic(router);
    self->offered.table = dkt_router_table(router);
    self->fresh = true;
    pthread_cond_signal(&self->changed);
    pthread_mutex_unlock(&self->lock);
}

/* -- the thread -- */

static json_t *s_counts(const dkt_router_counts_t *counts)
{
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"frames", counts->frames},
        {"malformed", counts->malformed},
        {"refused", counts->refused},
        {"overloaded", counts->overloaded},
        {"limited", counts->limited},
        {"unavailable", counts->unavailable},
        {"sent", counts->sent},
        {"resent", counts->resent},
        {"answered", counts->answered},
        {"late_dropped", counts->late_dropped},
        {"stale_dropped", counts->stale_dropped},
        {"unread_dropped", counts->unread_dropped},
        {"link_malformed", counts->link_malformed},
        {"token_verified", counts->token_verified},
        {"waiting", counts->waiting},
        {"held", counts->held},
        {"unread", counts->unread},
        {"pending_bytes", counts->pending_bytes},
        {"unread_bytes", counts->unread_bytes},
    };
    json_t *root = json_object();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        json_object_set_new(root, rows[i].name, json_integer((json_int_t)rows[i].value));
    }
    return root;
}

static json_t *s_metrics(dkt_hub_teller_t *self)
{
    const dkt_traffic_t *traffic = &self->now.traffic;
    dkt_histogram_since(&self->since, &traffic->latency_us, &self->told);
    self->told = traffic->latency_us;
    json_t *root = json_pack("{s:o, s:o}", "docket_requests_total", dkt_traffic_json(traffic),
                             "docket_request_duration_seconds",
                             dkt_histogram_json(&self->since, DKT_US_PER_S));
    dkt_replica_metrics(self->tenants, root);
    return root;
}

static json_t *s_stats(dkt_hub_teller_t *self)
{
    const s_snapshot_t *now = &self->now;
    return json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:{s:I, s:I}, s:o, s:o, s:o}", "role", "broker",
        "node", self->node, "version", DKT_VERSION, "at_ms", (json_int_t)dkt_clock_unix_ms(),
        "requests", (json_int_t)now->counts.frames, "open", (json_int_t)now->counts.open,
        "connections", (json_int_t)now->counts.connections, "workers",
        (json_int_t)now->counts.workers, "table", "epoch", (json_int_t)now->table.epoch, "version",
        (json_int_t)now->table.version, "counts", s_counts(&now->counts), "ctx",
        dkt_replica_json(self->tenants), "metrics", s_metrics(self));
}

static void s_tell(dkt_hub_teller_t *self)
{
    char subject[sizeof S_STATS_PREFIX + DKT_NODE_BYTES_MAX];
    json_t *root = s_stats(self);
    char *text = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(S_DIGITS));
    snprintf(subject, sizeof subject, S_STATS_PREFIX "%s", self->node);
    /* Not taken: NATS is away, and the next second has the newer figures. */
    bool told = text && dkt_bus_publish(self->bus, subject, text, strlen(text));
    (void)told;
    free(text);
    json_decref(root);
}

static void *s_run(void *argument)
{
    dkt_hub_teller_t *self = argument;
    pthread_mutex_lock(&self->lock);
    while (!self->stopping) {
        if (!self->fresh) {
            pthread_cond_wait(&self->changed, &self->lock); /* for an offer or the end */
            continue;
        }
        self->fresh = false;
        self->now = self->offered;
        pthread_mutex_unlock(&self->lock);
        s_tell(self);
        pthread_mutex_lock(&self->lock);
    }
    pthread_mutex_unlock(&self->lock);
    return NULL;
}

/* -- life -- */

static const dkt_srv_endpoint_t s_endpoints[] = {DKT_REPLICA_ENDPOINTS(dkt_replica_answer)};

static bool s_serve(dkt_hub_teller_t *self)
{
    const dkt_srv_config_t config = {.bus = self->bus,
                                     .name = S_SERVICE,
                                     .description = "Routes requests to the owners of tenants",
                                     .node = self->node,
                                     .endpoints = s_endpoints,
                                     .endpoint_count = sizeof s_endpoints / sizeof s_endpoints[0],
                                     .ctx = self->tenants};
    self->srv = dkt_srv_new(&config);
    return self->srv && dkt_srv_listen(self->srv);
}

/* A node may be named anything; in a subject only some characters are one token. */
static void s_name(dkt_hub_teller_t *self, const char *node)
{
    snprintf(self->node, sizeof self->node, "%s", node);
    for (char *at = self->node; *at; at++) {
        bool plain = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') ||
                     (*at >= '0' && *at <= '9') || *at == '-';
        *at = plain ? *at : '_';
    }
}

dkt_hub_teller_t *dkt_hub_teller_new(dkt_bus_t *bus, dkt_replica_t *tenants, const char *node)
{
    dkt_hub_teller_t *self = calloc(1, sizeof *self);
    if (!self) {
        return NULL;
    }
    self->bus = bus;
    self->tenants = tenants;
    s_name(self, node);
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->changed, NULL);
    if (pthread_create(&self->thread, NULL, s_run, self) != 0) {
        free(self);
        return NULL;
    }
    if (!s_serve(self)) {
        dkt_log(DKT_LOG_WARN, "NATS: the service " S_SERVICE " cannot be heard");
    }
    return self;
}

void dkt_hub_teller_stop(dkt_hub_teller_t *self)
{
    if (self) {
        pthread_mutex_lock(&self->lock);
        self->stopping = true;
        pthread_cond_signal(&self->changed);
        pthread_mutex_unlock(&self->lock);
        pthread_join(self->thread, NULL);
    }
}

void dkt_hub_teller_destroy(dkt_hub_teller_t **self_p)
{
    dkt_hub_teller_t *self = *self_p;
    if (!self) {
        return;
    }
    *self_p = NULL;
    dkt_srv_destroy(&self->srv);
    pthread_cond_destroy(&self->changed);
    pthread_mutex_destroy(&self->lock);
    free(self);
}
