/* SPDX-License-Identifier: Apache-2.0 */
#include "brokers/join.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sodium.h>

#include "lib/core/gate.h"
#include "lib/core/limits.h"
#include "lib/edge/control.h"
#include "lib/edge/log.h"

#define S_END_S     1   /* to wait for an attempt under way */
#define S_BASE_MS   200 /* pause after the first attempt */
#define S_MS_PER_S  1000
#define S_NS_PER_MS 1000000L
#define S_NS_PER_S  1000000000L

struct dkt_join {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stopping; /* under the lock */
    char *uri, *node, *workers_address;
};

static struct timespec s_in_ms(clockid_t clock, int64_t ms)
{
    struct timespec at;
    clock_gettime(clock, &at);
    at.tv_sec += ms / S_MS_PER_S;
    at.tv_nsec += (ms % S_MS_PER_S) * S_NS_PER_MS;
    if (at.tv_nsec >= S_NS_PER_S) {
        at.tv_sec++;
        at.tv_nsec -= S_NS_PER_S;
    }
    return at;
}

static void s_forget(dkt_join_t *self)
{
    sodium_memzero(self->uri, strlen(self->uri));
}

/* False: told to end. */
static bool s_pause(dkt_join_t *self, uint32_t ms)
{
    struct timespec until = s_in_ms(CLOCK_MONOTONIC, ms);
    int rc = 0;
    pthread_mutex_lock(&self->lock);
    while (!self->stopping && rc == 0) {
        rc = pthread_cond_timedwait(&self->changed, &self->lock, &until);
    }
    bool running = !self->stopping;
    pthread_mutex_unlock(&self->lock);
    return running;
}

static void *s_run(void *argument)
{
    dkt_join_t *self = argument;
    uint32_t failures = 0;
    dkt_err_t err;
    while (dkt_control_register_broker(self->uri, self->node, self->workers_address, &err) !=
           DKT_OK) {
        if (err.status == DKT_INVALID_ARGUMENT) {
            dkt_log(DKT_LOG_ERROR, "never entered: %s", err.text);
            break;
        }
        if (failures++ == 0) {
            dkt_log(DKT_LOG_WARN, "not entered yet, only workers that know us come: %s", err.text);
        }
        if (!s_pause(self, dkt_backoff_ms(failures, S_BASE_MS, DKT_CONTEXT_JOIN_MS,
                                          randombytes_random()))) {
            break;
        }
    }
    s_forget(self);
    dkt_log(DKT_LOG_INFO, "the control database is forgotten");
    return NULL;
}

static void s_free(dkt_join_t *self)
{
    free(self->uri);
    free(self->node);
    free(self->workers_address);
    free(self);
}

dkt_join_t *dkt_join_new(char *uri, const char *node, const char *workers_address)
{
    dkt_join_t *self = calloc(1, sizeof *self);
    pthread_condattr_t attributes;
    if (!self) {
        return NULL;
    }
    self->uri = strdup(uri);
    self->node = strdup(node);
    self->workers_address = strdup(workers_address);
    sodium_memzero(uri, strlen(uri));
    pthread_mutex_init(&self->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&self->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (!self->uri || !self->node || !self->workers_address ||
        pthread_create(&self->thread, NULL, s_run, self) != 0) {
        s_free(self);
        return NULL;
    }
    return self;
}

void dkt_join_destroy(dkt_join_t **self_p)
{
    dkt_join_t *self = *self_p;
    if (!self) {
        return;
    }
    *self_p = NULL;
    pthread_mutex_lock(&self->lock);
    self->stopping = true;
    pthread_cond_signal(&self->changed);
    pthread_mutex_unlock(&self->lock);
    struct timespec until = s_in_ms(CLOCK_REALTIME, (int64_t)S_END_S * S_MS_PER_S);
    if (pthread_timedjoin_np(self->thread, NULL, &until) == 0) {
        s_free(self);
    } else {
        pthread_detach(self->thread); /* it keeps what it uses */
    }
}
