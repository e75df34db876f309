/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/turns.h"

void dkt_worker_turns_init(dkt_worker_turns_t *self)
{
    pthread_mutex_init(&self->lock, NULL);
    dkt_turns_init(&self->turns);
}

void dkt_worker_turns_fini(dkt_worker_turns_t *self)
{
    pthread_mutex_destroy(&self->lock);
}

/* Under the lock: an actor that was told and leaves at once could be gone before its mailbox is
 * woken, if not for the lock that leaving needs. */
static void s_wake_next(dkt_worker_turns_t *self)
{
    dkt_turn_t *turn;
    while ((turn = dkt_turns_next(&self->turns))) {
        dkt_mailbox_wake(((dkt_actor_turn_t *)turn)->box);
    }
}

bool dkt_worker_turns_ask(dkt_worker_turns_t *self, dkt_actor_turn_t *mine, int64_t mono_ms,
                          int64_t *due_mono_ms)
{
    pthread_mutex_lock(&self->lock);
    bool go = dkt_turns_ask(&self->turns, &mine->turn, mono_ms);
    *due_mono_ms = dkt_turn_due_mono_ms(&mine->turn);
    pthread_mutex_unlock(&self->lock);
    return go;
}

void dkt_worker_turns_leave(dkt_worker_turns_t *self, dkt_actor_turn_t *mine)
{
    pthread_mutex_lock(&self->lock);
    dkt_turns_leave(&self->turns, &mine->turn);
    s_wake_next(self);
    pthread_mutex_unlock(&self->lock);
}
