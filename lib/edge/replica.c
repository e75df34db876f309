/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/replica.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <sodium.h>

#include "lib/edge/clock.h"

#define S_HASH_TEXT_BYTES 17

struct dkt_replica {
    pthread_mutex_t lock;
    dkt_context_t *context;
};

dkt_replica_t *dkt_replica_new(void)
{
    dkt_replica_t *self = calloc(1, sizeof *self);
    if (!self) {
        return NULL;
    }
    self->context = dkt_context_new(dkt_clock_mono_ms());
    if (!self->context) {
        free(self);
        return NULL;
    }
    pthread_mutex_init(&self->lock, NULL);
    return self;
}

void dkt_replica_destroy(dkt_replica_t **self_p)
{
    dkt_replica_t *self = *self_p;
    if (!self) {
        return;
    }
    *self_p = NULL;
    dkt_context_destroy(&self->context);
    pthread_mutex_destroy(&self->lock);
    free(self);
}

const dkt_context_t *dkt_replica_lock(dkt_replica_t *self)
{
    pthread_mutex_lock(&self->lock);
    return self->context;
}

void dkt_replica_unlock(dkt_replica_t *self)
{
    pthread_mutex_unlock(&self->lock);
}

bool dkt_replica_find(dkt_replica_t *self, const dkt_client_t *client, dkt_context_record_t *record)
{
    bool found = dkt_context_find(dkt_replica_lock(self), client, record);
    dkt_replica_unlock(self);
    return found;
}

void dkt_replica_info(dkt_replica_t *self, dkt_context_info_t *info)
{
    dkt_context_info(dkt_replica_lock(self), info);
    dkt_replica_unlock(self);
}

json_t *dkt_replica_json(dkt_replica_t *self)
{
    dkt_context_info_t info;
    char hash[S_HASH_TEXT_BYTES];
    dkt_replica_info(self, &info);
    snprintf(hash, sizeof hash, "%016" PRIx64, info.hash);
    uint64_t lag = info.head_seq > info.version.seq ? info.head_seq - info.version.seq : 0;
    int64_t heard_ms = info.heard_mono_ms > 0 ? dkt_clock_mono_ms() - info.heard_mono_ms : -1;
    return json_pack("{s:s, s:I, s:I, s:I, s:s, s:I, s:I, s:I, s:{s:I, s:I, s:I, s:I}, s:I, s:I,"
                     " s:I}",
                     "state", dkt_context_state_name(info.state), "epoch",
                     (json_int_t)info.version.epoch, "seq", (json_int_t)info.version.seq, "records",
                     (json_int_t)info.records, "hash", hash, "lag", (json_int_t)lag, "heard_ms",
                     (json_int_t)heard_ms, "changes", (json_int_t)info.changes, "doubts", "gap",
                     (json_int_t)info.gaps, "epoch", (json_int_t)info.epochs, "hash",
                     (json_int_t)info.wrong_hashes, "silence", (json_int_t)info.silences, "resyncs",
                     (json_int_t)info.swaps, "sames", (json_int_t)info.sames, "failures",
                     (json_int_t)info.failures);
}

void dkt_replica_step(dkt_replica_t *self, dkt_context_event_t event, dkt_context_out_t *out)
{
    event.random = randombytes_random();
    pthread_mutex_lock(&self->lock);
    dkt_context_step(self->context, dkt_clock_mono_ms(), &event, out);
    pthread_mutex_unlock(&self->lock);
}

int64_t dkt_replica_due_mono_ms(dkt_replica_t *self)
{
    int64_t due_mono_ms = dkt_context_due_mono_ms(dkt_replica_lock(self));
    dkt_replica_unlock(self);
    return due_mono_ms;
}
