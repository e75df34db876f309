/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/bus.h"

#include <assert.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/core/limits.h"
#include "lib/edge/clock.h"
#include "lib/edge/log.h"
#include "lib/edge/nats_options.h"

#define S_CONNECT_MS     1000
#define S_JITTER_MS      50
#define S_WRITE_MS       1000
#define S_BUFFER_BYTES   1 /* while disconnected: publishing fails at once */
#define S_CLOSE_MS       1500
#define S_COMPLAIN_MS    5000 /* the client's errors are logged this often at most */
#define S_NAME_BYTES_MAX 128
#define S_SUBJECT_MAX    128
#define S_QUEUE_MAX      16
#define S_MS_PER_S       1000
#define S_NS_PER_MS      1000000L
#define S_NS_PER_S       1000000000L

/* A subscription that is wanted, with or without a connection. */
typedef struct {
    char subject[S_SUBJECT_MAX], queue[S_QUEUE_MAX]; /* queue "": none */
    natsMsgHandler handler;
    void *ctx;
    natsSubscription *made; /* NULL: not connected so far */
} s_wanted_t;

struct dkt_bus {
    natsOptions *options;
    dkt_nats_key_t key;
    natsConnection *_Atomic connection; /* NULL until it was connected for the first time */
    _Atomic uint64_t connects;
    atomic_bool closing;        /* by us: nothing to complain about */
    int64_t complained_mono_ms; /* by the client's callback thread only */
    pthread_t connector;        /* tries until that first time */
    bool connecting;            /* there is such a thread */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* something ended, or `closing` */
    uint32_t running;       /* under the lock: subscriptions whose handler may still run, and a
                               connection whose callbacks may */
    uint32_t wanted_count;  /* under the lock, as these */
    s_wanted_t wanted[DKT_BUS_SUBSCRIPTIONS_MAX];
};

/* -- callbacks, on threads of the client's -- */

static void s_on_up(natsConnection *connection, void *closure)
{
    dkt_bus_t *self = closure;
    (void)connection;
    atomic_fetch_add(&self->connects, 1);
    dkt_log(DKT_LOG_INFO, "NATS: connected");
}

static void s_on_down(natsConnection *connection, void *closure)
{
    dkt_bus_t *self = closure;
    (void)connection;
    if (!atomic_load(&self->closing)) {
        dkt_log(DKT_LOG_WARN, "NATS: connection lost");
    }
}

static void s_end(void *closure)
{
    dkt_bus_t *self = closure;
    pthread_mutex_lock(&self->lock);
    assert(self->running > 0);
    self->running--;
    pthread_cond_broadcast(&self->changed);
    pthread_mutex_unlock(&self->lock);
}

static void s_on_closed(natsConnection *connection, void *closure)
{
    dkt_bus_t *self = closure;
    const char *text = NULL;
    if (!atomic_load(&self->closing)) {
        (void)natsConnection_GetLastError(connection, &text);
        dkt_log(DKT_LOG_ERROR, "NATS: closed for good: %s", text ? text : "unknown");
    }
    s_end(self);
}

/* Permissions and slow handlers; each may come with every message. */
static void s_on_error(natsConnection *connection, natsSubscription *subscription,
                       natsStatus status, void *closure)
{
    dkt_bus_t *self = closure;
    int64_t now_mono_ms = dkt_clock_mono_ms();
    const char *text = NULL;
    (void)subscription;
    if (self->complained_mono_ms == 0 || now_mono_ms - self->complained_mono_ms >= S_COMPLAIN_MS) {
        self->complained_mono_ms = now_mono_ms;
        (void)natsConnection_GetLastError(connection, &text);
        dkt_log(DKT_LOG_WARN, "NATS: %s: %s", natsStatus_GetText(status), text ? text : "");
    }
}

/* -- life cycle -- */

/* It comes back by itself, for ever. */
static natsStatus s_fill_options(dkt_bus_t *self)
{
    natsOptions *o = self->options;
    natsStatus s = natsOptions_UseGlobalMessageDelivery(o, true);
    s = s ? s : natsOptions_SetAllowReconnect(o, true);
    s = s ? s : natsOptions_SetMaxReconnect(o, INT_MAX);
    s = s ? s : natsOptions_SetReconnectWait(o, DKT_NATS_RETRY_MS);
    s = s ? s : natsOptions_SetReconnectJitter(o, S_JITTER_MS, S_JITTER_MS);
    s = s ? s : natsOptions_SetReconnectBufSize(o, S_BUFFER_BYTES);
    s = s ? s : natsOptions_SetReconnectedCB(o, s_on_up, self);
    s = s ? s : natsOptions_SetDisconnectedCB(o, s_on_down, self);
    s = s ? s : natsOptions_SetClosedCB(o, s_on_closed, self);
    s = s ? s : natsOptions_SetErrorHandler(o, s_on_error, self);
    s = s ? s : natsOptions_SetFailRequestsOnDisconnect(o, true);
    return s ? s : natsOptions_SetWriteDeadline(o, S_WRITE_MS);
}

static dkt_bus_t *s_make(void)
{
    dkt_bus_t *self = calloc(1, sizeof *self);
    pthread_condattr_t attributes;
    if (self) {
        pthread_mutex_init(&self->lock, NULL);
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(&self->changed, &attributes);
        pthread_condattr_destroy(&attributes);
    }
    return self;
}

/* Under the lock, connected. */
static bool s_subscribe(dkt_bus_t *self, s_wanted_t *wanted)
{
    natsConnection *connection = atomic_load(&self->connection);
    natsStatus status =
        wanted->queue[0]
            ? natsConnection_QueueSubscribe(&wanted->made, connection, wanted->subject,
                                            wanted->queue, wanted->handler, wanted->ctx)
            : natsConnection_Subscribe(&wanted->made, connection, wanted->subject, wanted->handler,
                                       wanted->ctx);
    if (status == NATS_OK) {
        self->running++;
        status = natsSubscription_SetOnCompleteCB(wanted->made, s_end, self);
        if (status != NATS_OK) {
            self->running--;
            natsSubscription_Destroy(wanted->made);
            wanted->made = NULL;
        }
    }
    return status == NATS_OK;
}

/* One attempt. The client's own retry of a first connection is not used: it gives up for good when
 * a server takes the connection and says nothing in time. */
static natsStatus s_try(dkt_bus_t *self)
{
    natsConnection *connection = NULL;
    pthread_mutex_lock(&self->lock);
    self->running++;
    pthread_mutex_unlock(&self->lock);
    natsStatus status = natsConnection_Connect(&connection, self->options);
    pthread_mutex_lock(&self->lock);
    if (status != NATS_OK) {
        self->running--;
    } else {
        atomic_store(&self->connection, connection);
        for (uint32_t i = 0; i < self->wanted_count; i++) {
            if (!s_subscribe(self, &self->wanted[i])) {
                dkt_log(DKT_LOG_ERROR, "NATS: %s cannot be heard", self->wanted[i].subject);
            }
        }
    }
    pthread_mutex_unlock(&self->lock);
    if (status == NATS_OK) {
        s_on_up(connection, self); /* the client calls it for later connections only */
    }
    return status;
}

static struct timespec s_after(int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / S_MS_PER_S;
    until.tv_nsec += (ms % S_MS_PER_S) * S_NS_PER_MS;
    if (until.tv_nsec >= S_NS_PER_S) {
        until.tv_sec++;
        until.tv_nsec -= S_NS_PER_S;
    }
    return until;
}

static void *s_connect(void *argument)
{
    dkt_bus_t *self = argument;
    natsStatus status = NATS_NO_SERVER, told = status;
    while (status != NATS_OK) {
        struct timespec until = s_after(DKT_NATS_RETRY_MS);
        int rc = 0;
        pthread_mutex_lock(&self->lock);
        while (!atomic_load(&self->closing) && rc == 0) {
            rc = pthread_cond_timedwait(&self->changed, &self->lock, &until);
        }
        pthread_mutex_unlock(&self->lock);
        if (atomic_load(&self->closing)) {
            break;
        }
        status = s_try(self);
        if (status != NATS_OK && status != told) {
            told = status;
            dkt_log(DKT_LOG_WARN, "NATS: %s", natsStatus_GetText(status));
        }
    }
    return NULL;
}

/* Nothing that time could heal. */
static bool s_is_wrong_use(natsStatus status)
{
    return status == NATS_INVALID_ARG || status == NATS_NO_MEMORY || status == NATS_ERR ||
           status == NATS_ADDRESS_MISSING;
}

dkt_bus_t *dkt_bus_new(const dkt_bus_config_t *config, dkt_err_t *err)
{
    char name[S_NAME_BYTES_MAX];
    snprintf(name, sizeof name, "docket-%s %s", config->role, config->node);
    const dkt_nats_options_t options = {.url = config->url,
                                        .keys = config->keys,
                                        .role = config->role,
                                        .name = name,
                                        .connect_ms = S_CONNECT_MS};
    dkt_bus_t *self = s_make();
    if (!self) {
        (void)dkt_fail(err, DKT_INTERNAL, NULL, "no memory");
        return NULL;
    }
    self->options = dkt_nats_options(&options, &self->key, err);
    if (!self->options) {
        dkt_bus_destroy(&self);
        return NULL;
    }
    natsStatus status = s_fill_options(self);
    if (status == NATS_OK) {
        status = s_try(self);
    }
    if (status == NATS_OK) {
        return self;
    }
    self->connecting =
        !s_is_wrong_use(status) && pthread_create(&self->connector, NULL, s_connect, self) == 0;
    if (!self->connecting) {
        (void)dkt_fail(err, DKT_UNAVAILABLE, NULL, "NATS at %s: %s", config->url,
                       natsStatus_GetText(status));
        dkt_bus_destroy(&self);
    } else {
        dkt_log(DKT_LOG_WARN, "NATS: %s does not answer yet", config->url);
    }
    return self;
}

/* True: no callback runs any more. */
static bool s_wait_ended(dkt_bus_t *self)
{
    struct timespec until = s_after(S_CLOSE_MS);
    int rc = 0;
    pthread_mutex_lock(&self->lock);
    while (self->running > 0 && rc == 0) {
        rc = pthread_cond_timedwait(&self->changed, &self->lock, &until);
    }
    bool ended = self->running == 0;
    pthread_mutex_unlock(&self->lock);
    return ended;
}

void dkt_bus_destroy(dkt_bus_t **self_p)
{
    dkt_bus_t *self = *self_p;
    if (!self) {
        return;
    }
    *self_p = NULL;
    pthread_mutex_lock(&self->lock);
    atomic_store(&self->closing, true);
    pthread_cond_broadcast(&self->changed);
    pthread_mutex_unlock(&self->lock);
    if (self->connecting) {
        pthread_join(self->connector, NULL); /* an attempt is bounded */
    }
    for (uint32_t i = 0; i < self->wanted_count; i++) {
        natsSubscription_Destroy(self->wanted[i].made);
    }
    natsConnection_Destroy(atomic_load(&self->connection));
    natsOptions_Destroy(self->options);
    if (!s_wait_ended(self)) {
        dkt_log(DKT_LOG_ERROR, "NATS: a handler does not end"); /* it keeps what it may touch */
        return;
    }
    pthread_cond_destroy(&self->changed);
    pthread_mutex_destroy(&self->lock);
    free(self);
}

/* -- use -- */

bool dkt_bus_up(const dkt_bus_t *self)
{
    natsConnection *connection = atomic_load(&self->connection);
    return connection && natsConnection_Status(connection) == NATS_CONN_STATUS_CONNECTED;
}

uint64_t dkt_bus_connects(const dkt_bus_t *self)
{
    return atomic_load(&self->connects);
}

natsConnection *dkt_bus_connection(dkt_bus_t *self)
{
    return atomic_load(&self->connection);
}

bool dkt_bus_share(dkt_bus_t *self, const char *subject, const char *queue, natsMsgHandler handler,
                   void *ctx)
{
    bool good = true;
    pthread_mutex_lock(&self->lock);
    assert(self->wanted_count < DKT_BUS_SUBSCRIPTIONS_MAX);
    s_wanted_t *wanted = &self->wanted[self->wanted_count];
    *wanted = (s_wanted_t){.handler = handler, .ctx = ctx};
    snprintf(wanted->subject, sizeof wanted->subject, "%s", subject);
    snprintf(wanted->queue, sizeof wanted->queue, "%s", queue ? queue : "");
    if (atomic_load(&self->connection)) {
        good = s_subscribe(self, wanted);
    }
    self->wanted_count += good;
    pthread_mutex_unlock(&self->lock);
    return good;
}

bool dkt_bus_subscribe(dkt_bus_t *self, const char *subject, natsMsgHandler handler, void *ctx)
{
    return dkt_bus_share(self, subject, NULL, handler, ctx);
}

bool dkt_bus_publish(dkt_bus_t *self, const char *subject, const void *data, size_t len)
{
    return len <= INT_MAX && dkt_bus_up(self) &&
           natsConnection_Publish(atomic_load(&self->connection), subject, data, (int)len) ==
               NATS_OK;
}
