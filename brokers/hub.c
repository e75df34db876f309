/* SPDX-License-Identifier: Apache-2.0 */
#include "brokers/hub.h"

#include <errno.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "brokers/hub_context.h"
#include "brokers/hub_socket.h"
#include "brokers/hub_teller.h"
#include "lib/edge/bus.h"
#include "lib/edge/clock.h"
#include "lib/edge/log.h"
#include "lib/edge/zap.h"

#define S_ROUND_MESSAGES      512     /* received from one client socket before sending */
#define S_ROUND_FRAMES        4096    /* and frames */
#define S_ROUND_LINK_MESSAGES 64      /* from workers; they are kept until the flush */
#define S_ROUND_LINK_BYTES    4194304 /* and their bytes */
#define S_READY_WAIT_MS       20000   /* for the first table, before "ready" is said without one */
#define S_FIXED_ITEMS         3       /* polled also while it drains: all but clients */
#define S_DRAIN_MS            1000    /* for what is in flight when the broker ends */
#define S_US_PER_MS           1000

enum { S_PUBLIC, S_INTERNAL, S_WORKERS, S_SOCKETS };

struct dkt_hub {
    dkt_hub_config_t config;
    void *context;
    void *sockets[S_SOCKETS];
    dkt_zap_t *zap;
    dkt_bus_t *bus; /* NULL: no NATS at all */
    dkt_hub_teller_t *teller;
    dkt_hub_context_t *tenants;
    int signals;
    dkt_router_t *router;
    bool draining;
    int64_t ready_until_mono_ms;           /* 0: said already */
    uint64_t strangers;                    /* internal messages without a User-Id, dropped */
    dkt_hub_message_t message;             /* of a client, being handled */
    zmq_msg_t held[S_ROUND_LINK_MESSAGES]; /* of workers, until the flush */
    uint32_t held_count;
};

static dkt_instant_t s_now(void)
{
    int64_t mono_us = dkt_clock_mono_us();
    return (dkt_instant_t){
        .mono_ms = mono_us / S_US_PER_MS, .unix_ms = dkt_clock_unix_ms(), .mono_us = mono_us};
}

/* -- the router's port ------------------------------------------------------------------------ */

static dkt_sent_t s_to_client(void *ctx, dkt_audience_t side, const dkt_address_t *to,
                              const dkt_view_t *frames, uint32_t count)
{
    dkt_hub_t *self = ctx;
    void *socket = self->sockets[side == DKT_AUDIENCE_PUBLIC ? S_PUBLIC : S_INTERNAL];
    return dkt_hub_send(socket, to, true, frames, count);
}

static dkt_sent_t s_to_worker(void *ctx, const dkt_address_t *to, const uint8_t *bytes, size_t len)
{
    dkt_hub_t *self = ctx;
    dkt_view_t frame = {.data = bytes, .len = (uint32_t)len};
    return dkt_hub_send(self->sockets[S_WORKERS], to, false, &frame, 1);
}

static const char *s_source(void *ctx)
{
    dkt_hub_t *self = ctx;
    const char *address =
        self->message.kept > 0 ? zmq_msg_gets(&self->message.frames[0], "Peer-Address") : NULL;
    return address ? address : "unknown";
}

static bool s_context(void *ctx, const dkt_link_header_t *header, dkt_r_t *r)
{
    dkt_hub_t *self = ctx;
    return dkt_hub_context_chunk(self->tenants, header, r);
}

static void s_log(void *ctx, dkt_log_level_t level, const char *text)
{
    (void)ctx;
    dkt_log(level, "%s", text);
}

/* -- the replica's port ----------------------------------------------------------------------- */

static bool s_ask(void *ctx, const uint8_t *bytes, size_t len)
{
    dkt_hub_t *self = ctx;
    return dkt_router_ask(self->router, s_now(), bytes, len);
}

static void s_table(void *ctx, const dkt_table_t *table)
{
    dkt_hub_t *self = ctx;
    dkt_router_offer_table(self->router, s_now(), table);
}

/* -- receiving -------------------------------------------------------------------------------- */

/* Fail closed: whoever got past a missing authenticator has no User-Id. */
static bool s_is_stranger(dkt_hub_t *self, int side)
{
    return side == S_INTERNAL && !self->config.insecure_dev &&
           (self->message.kept == 0 || !zmq_msg_gets(&self->message.frames[0], "User-Id"));
}

/* At least one message, so that a flood on one side does not shut out the other. */
static bool s_receive_clients(dkt_hub_t *self, int side)
{
    uint32_t messages = 0, frames = 0;
    dkt_instant_t now = s_now();
    while (messages < S_ROUND_MESSAGES && frames < S_ROUND_FRAMES &&
           (messages == 0 || !dkt_router_has_chunk(self->router)) &&
           dkt_hub_receive(self->sockets[side], &self->message)) {
        messages++;
        frames += self->message.count;
        if (s_is_stranger(self, side)) {
            self->strangers++;
            dkt_hub_message_close(&self->message);
            continue;
        }
        dkt_view_t views[DKT_FRAMES_PER_MESSAGE_MAX + 2];
        for (uint32_t i = 0; i < self->message.kept; i++) {
            views[i].data = zmq_msg_data(&self->message.frames[i]);
            views[i].len = (uint32_t)zmq_msg_size(&self->message.frames[i]);
        }
        dkt_router_client(self->router, now,
                          side == S_PUBLIC ? DKT_AUDIENCE_PUBLIC : DKT_AUDIENCE_INTERNAL,
                          &self->message.from, views, self->message.count);
        dkt_hub_message_close(&self->message);
    }
    return messages > 0;
}

static bool s_receive_workers(dkt_hub_t *self)
{
    dkt_instant_t now = s_now();
    size_t bytes = 0;
    while (self->held_count < S_ROUND_LINK_MESSAGES && bytes < S_ROUND_LINK_BYTES &&
           dkt_hub_receive(self->sockets[S_WORKERS], &self->message)) {
        if (self->message.count != 1) {
            dkt_log(DKT_LOG_WARN, "a link message of %u frames is ignored", self->message.count);
            dkt_hub_message_close(&self->message);
            continue;
        }
        zmq_msg_t *held = &self->held[self->held_count++];
        zmq_msg_init(held);
        zmq_msg_move(held, &self->message.frames[0]);
        dkt_hub_message_close(&self->message);
        bytes += zmq_msg_size(held);
        dkt_router_worker(self->router, now, &self->message.from, zmq_msg_data(held),
                          zmq_msg_size(held));
    }
    return self->held_count > 0;
}

static void s_flush(dkt_hub_t *self)
{
    dkt_router_flush(self->router, s_now());
    for (uint32_t i = 0; i < self->held_count; i++) {
        zmq_msg_close(&self->held[i]);
    }
    self->held_count = 0;
}

/* -- the loop --------------------------------------------------------------------------------- */

static void s_say_ready(dkt_hub_t *self, int64_t now_mono_ms)
{
    bool has_table =
        dkt_router_table(self->router).epoch > 0 || dkt_router_table(self->router).version > 0;
    if (self->ready_until_mono_ms == 0 || (!has_table && now_mono_ms < self->ready_until_mono_ms)) {
        return;
    }
    if (!has_table) {
        dkt_log(DKT_LOG_WARN, "no worker has sent a table yet: requests will wait");
    }
    static const char text[] = "ready\n";
    if (self->config.ready_fd >= 0 &&
        write(self->config.ready_fd, text, sizeof text - 1) != (ssize_t)sizeof text - 1) {
        dkt_log(DKT_LOG_WARN, "cannot say ready: %s", strerror(errno));
    }
    self->ready_until_mono_ms = 0;
    dkt_log(DKT_LOG_INFO, "ready");
}

static void s_log_counts(const dkt_hub_t *self)
{
    dkt_router_counts_t counts;
    dkt_router_counts(self->router, &counts);
    dkt_log(DKT_LOG_INFO,
            "frames %llu sent %llu resent %llu answered %llu malformed %llu refused %llu "
            "overloaded %llu limited %llu unavailable %llu late %llu stale %llu unread %llu "
            "open %u held %u connections %u workers %u strangers %llu",
            (unsigned long long)counts.frames, (unsigned long long)counts.sent,
            (unsigned long long)counts.resent, (unsigned long long)counts.answered,
            (unsigned long long)counts.malformed, (unsigned long long)counts.refused,
            (unsigned long long)counts.overloaded, (unsigned long long)counts.limited,
            (unsigned long long)counts.unavailable, (unsigned long long)counts.late_dropped,
            (unsigned long long)counts.stale_dropped, (unsigned long long)counts.unread_dropped,
            counts.open, counts.held, counts.connections, counts.workers,
            (unsigned long long)self->strangers);
}

/* True: the broker shall end. */
static bool s_take_signals(dkt_hub_t *self)
{
    struct signalfd_siginfo info;
    bool end = false;
    while (read(self->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP) {
            s_log_counts(self);
            if (self->zap) {
                dkt_zap_reload(self->zap);
            }
        } else {
            end = true;
        }
    }
    return end;
}

/* One round: receive, route, send. Sleeps first if the last one received nothing. */
static bool s_round(dkt_hub_t *self, bool sleep, bool *end)
{
    int64_t due_mono_ms = dkt_router_due_mono_ms(self->router);
    int64_t tenants_mono_ms = dkt_hub_context_due_mono_ms(self->tenants);
    int64_t wait_ms =
        (tenants_mono_ms < due_mono_ms ? tenants_mono_ms : due_mono_ms) - dkt_clock_mono_ms();
    zmq_pollitem_t items[] = {{NULL, self->signals, ZMQ_POLLIN, 0},
                              {NULL, dkt_hub_context_fd(self->tenants), ZMQ_POLLIN, 0},
                              {self->sockets[S_WORKERS], 0, ZMQ_POLLIN, 0},
                              {self->sockets[S_INTERNAL], 0, ZMQ_POLLIN, 0},
                              {self->sockets[S_PUBLIC], 0, ZMQ_POLLIN, 0}};
    if (sleep && wait_ms > 0) {
        zmq_poll(items, self->draining ? S_FIXED_ITEMS : S_FIXED_ITEMS + 2, wait_ms);
    }
    bool received = s_receive_workers(self);
    if (!self->draining) {
        received |= s_receive_clients(self, S_INTERNAL);
        received |= s_receive_clients(self, S_PUBLIC);
    }
    dkt_hub_context_turn(self->tenants);
    s_flush(self);
    dkt_instant_t now = s_now();
    if (now.mono_ms >= dkt_router_due_mono_ms(self->router)) {
        dkt_router_tick(self->router, now);
        *end |= s_take_signals(self);
    } else if (sleep && items[0].revents & ZMQ_POLLIN) {
        *end |= s_take_signals(self);
    }
    if (self->teller) {
        dkt_hub_teller_offer(self->teller, self->router, now.mono_ms);
    }
    s_say_ready(self, now.mono_ms);
    return received;
}

static void s_drain(dkt_hub_t *self)
{
    int64_t until_mono_ms = dkt_clock_mono_ms() + S_DRAIN_MS;
    dkt_router_counts_t counts;
    bool again = false, received = false;
    self->draining = true;
    dkt_router_counts(self->router, &counts);
    dkt_log(DKT_LOG_INFO, "ending: %u requests in flight", counts.open);
    while (counts.open > 0 && dkt_clock_mono_ms() < until_mono_ms) {
        received = s_round(self, !received, &again);
        dkt_router_counts(self->router, &counts);
    }
    dkt_router_abort(self->router, s_now());
}

dkt_status_t dkt_hub_run(dkt_hub_t *self, dkt_err_t *err)
{
    (void)err;
    bool end = false, received = false;
    self->ready_until_mono_ms = dkt_clock_mono_ms() + S_READY_WAIT_MS;
    while (!end) {
        received = s_round(self, !received, &end);
    }
    s_drain(self);
    s_log_counts(self);
    return DKT_OK;
}

/* -- life cycle ------------------------------------------------------------------------------- */

static bool s_start_zap(dkt_hub_t *self, dkt_curve_key_t *curve, dkt_err_t *err)
{
    if (self->config.insecure_dev) {
        dkt_log(DKT_LOG_WARN, "--insecure-dev: the internal endpoint lets everybody in");
        return true;
    }
    if (dkt_keys_curve(self->config.keys, "internal.key", curve, err) != DKT_OK) {
        return false;
    }
    self->zap = dkt_zap_start(self->context, self->config.keys, err);
    return self->zap != NULL;
}

static bool s_bind(dkt_hub_t *self, int index, const char *address, const dkt_hub_side_t *side,
                   const dkt_curve_key_t *curve, dkt_err_t *err)
{
    self->sockets[index] = dkt_hub_bind(self->context, address, side, curve, err);
    return self->sockets[index] != NULL;
}

static bool s_bind_all(dkt_hub_t *self, dkt_err_t *err)
{
    dkt_curve_key_t curve;
    if (!s_start_zap(self, &curve, err)) {
        return false;
    }
    const dkt_hub_config_t *config = &self->config;
    bool ok = s_bind(self, S_WORKERS, config->workers_address, &dkt_hub_workers, NULL, err) &&
              s_bind(self, S_INTERNAL, config->internal_address, &dkt_hub_clients,
                     config->insecure_dev ? NULL : &curve, err) &&
              s_bind(self, S_PUBLIC, config->public_address, &dkt_hub_clients, NULL, err);
    sodium_memzero(&curve, sizeof curve);
    return ok;
}

static bool s_make_router(dkt_hub_t *self, dkt_err_t *err)
{
    dkt_router_config_t config = {.node = self->config.node, .version = DKT_VERSION};
    dkt_router_port_t port = {.ctx = self,
                              .to_client = s_to_client,
                              .to_worker = s_to_worker,
                              .source = s_source,
                              .log = s_log,
                              .context = s_context};
    dkt_hub_context_port_t tenants = {.ctx = self, .ask = s_ask, .table = s_table};
    randombytes_buf(&config.incarnation, sizeof config.incarnation);
    randombytes_buf(&config.seed, sizeof config.seed);
    self->router = dkt_router_new(&config, &port, s_now());
    self->tenants = dkt_hub_context_new(&config.incarnation, &tenants);
    if (!self->router || !self->tenants) {
        (void)dkt_fail(err, DKT_INTERNAL, NULL, "no memory for the router");
    }
    return self->router && self->tenants;
}

static bool s_start_bus(dkt_hub_t *self, dkt_err_t *err)
{
    const dkt_bus_config_t config = {.url = self->config.nats,
                                     .keys = self->config.keys,
                                     .role = "broker",
                                     .node = self->config.node};
    if (!config.url) {
        return true;
    }
    self->bus = dkt_bus_new(&config, err);
    if (!self->bus) {
        return false;
    }
    self->teller =
        dkt_hub_teller_new(self->bus, dkt_hub_context_replica(self->tenants), self->config.node);
    if (!self->teller || !dkt_hub_context_listen(self->tenants, self->bus)) {
        (void)dkt_fail(err, DKT_INTERNAL, NULL, "no memory or thread for what NATS brings");
        return false;
    }
    return true;
}

dkt_hub_t *dkt_hub_new(const dkt_hub_config_t *config, dkt_err_t *err)
{
    dkt_hub_t *self = calloc(1, sizeof *self);
    if (!self) {
        (void)dkt_fail(err, DKT_INTERNAL, NULL, "no memory");
        return NULL;
    }
    self->config = *config;
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGHUP);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGTERM);
    self->signals = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
    self->context = zmq_ctx_new();
    if (self->signals < 0 || !self->context) {
        (void)dkt_fail(err, DKT_INTERNAL, NULL, "cannot start: %s", strerror(errno));
        dkt_hub_destroy(&self);
    } else if (!s_make_router(self, err) || !s_start_bus(self, err) || !s_bind_all(self, err)) {
        dkt_hub_destroy(&self);
    }
    return self;
}

void dkt_hub_destroy(dkt_hub_t **self_p)
{
    dkt_hub_t *self = *self_p;
    if (!self) {
        return;
    }
    dkt_hub_teller_stop(self->teller);
    dkt_bus_destroy(&self->bus);
    dkt_hub_teller_destroy(&self->teller);
    dkt_hub_context_destroy(&self->tenants);
    for (int i = 0; i < S_SOCKETS; i++) {
        if (self->sockets[i]) {
            zmq_close(self->sockets[i]);
        }
    }
    dkt_zap_stop(&self->zap);
    if (self->context) {
        zmq_ctx_term(self->context); /* waits for the sockets' linger at most */
    }
    dkt_router_destroy(&self->router);
    if (self->signals >= 0) {
        close(self->signals);
    }
    free(self);
    *self_p = NULL;
}
