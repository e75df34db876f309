/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/turns.h"

#include <assert.h>
#include <stddef.h>

void dkt_turns_init(dkt_turns_t *self)
{
    self->taken = 0;
    TAILQ_INIT(&self->queue);
}

bool dkt_turns_ask(dkt_turns_t *self, dkt_turn_t *turn, int64_t mono_ms)
{
    switch (turn->state) {
    case DKT_TURN_HAS:
        return true;
    case DKT_TURN_WAITING:
        if (mono_ms < dkt_turn_due_mono_ms(turn)) {
            return false;
        }
        dkt_turns_leave(self, turn);
        return true;
    case DKT_TURN_AWAY:
        break;
    }
    if (self->taken < DKT_TURNS_MAX) {
        assert(TAILQ_EMPTY(&self->queue));
        self->taken++;
        turn->state = DKT_TURN_HAS;
        return true;
    }
    turn->state = DKT_TURN_WAITING;
    turn->asked_mono_ms = mono_ms;
    TAILQ_INSERT_TAIL(&self->queue, turn, queue);
    return false;
}

void dkt_turns_leave(dkt_turns_t *self, dkt_turn_t *turn)
{
    if (turn->state == DKT_TURN_HAS) {
        assert(self->taken > 0);
        self->taken--;
    } else if (turn->state == DKT_TURN_WAITING) {
        TAILQ_REMOVE(&self->queue, turn, queue);
    }
    turn->state = DKT_TURN_AWAY;
}

dkt_turn_t *dkt_turns_next(dkt_turns_t *self)
{
    dkt_turn_t *turn = TAILQ_FIRST(&self->queue);
    if (!turn || self->taken >= DKT_TURNS_MAX) {
        return NULL;
    }
    TAILQ_REMOVE(&self->queue, turn, queue);
    self->taken++;
    turn->state = DKT_TURN_HAS;
    return turn;
}

int64_t dkt_turn_due_mono_ms(const dkt_turn_t *turn)
{
    return turn->state == DKT_TURN_WAITING ? turn->asked_mono_ms + DKT_TURN_WAIT_MS : INT64_MAX;
}
