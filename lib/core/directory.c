/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/directory.h"

#include <assert.h>
#include <string.h>

bool dkt_incarnation_equal(const dkt_incarnation_t *a, const dkt_incarnation_t *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

void dkt_watch_reset(dkt_watch_t *watch)
{
    watch->count = 0;
    watch->last_poll_mono_ms = 0;
    watch->warm_ms = 0;
}

static dkt_worker_watch_t *s_find(dkt_watch_t *watch, const dkt_incarnation_t *who)
{
    for (uint32_t i = 0; i < watch->count; i++) {
        if (dkt_incarnation_equal(&watch->workers[i].incarnation, who)) {
            return &watch->workers[i];
        }
    }
    return NULL;
}

const dkt_worker_watch_t *dkt_watch_find(const dkt_watch_t *watch, const dkt_incarnation_t *who)
{
    return s_find((dkt_watch_t *)watch, who);
}

bool dkt_watch_warm(const dkt_watch_t *watch)
{
    return watch->warm_ms >= DKT_WATCH_WARM_MS;
}

static void s_see(dkt_watch_t *watch, const dkt_worker_seen_t *seen, uint32_t step_ms)
{
    dkt_worker_watch_t *worker = s_find(watch, &seen->incarnation);
    if (!worker) {
        if (watch->count == DKT_MEMBERS_MAX) {
            return;
        }
        worker = &watch->workers[watch->count++];
        *worker = (dkt_worker_watch_t){.incarnation = seen->incarnation, .beat = seen->beat};
    } else if (worker->beat != seen->beat) {
        worker->beat = seen->beat;
        worker->silent_ms = 0;
    } else if (worker->silent_ms < DKT_WORKER_HUNG_MS) {
        worker->silent_ms += step_ms;
    }
    worker->present = true;
    worker->leaving = seen->leaving;
    worker->marked_dead = seen->marked_dead;
    bool silent = !seen->lock_held || worker->silent_ms >= DKT_WORKER_HUNG_MS;
    /* Before it is warm a watcher believes what was decided earlier. Afterwards its own eyes count:
     * one that was declared dead and beats again is alive again. */
    worker->dead = dkt_watch_warm(watch) ? silent : seen->marked_dead;
}

void dkt_watch_poll(dkt_watch_t *watch, int64_t mono_ms, const dkt_worker_seen_t *seen,
                    uint32_t count)
{
    uint32_t step_ms = 0;
    if (watch->last_poll_mono_ms != 0) {
        int64_t gap_ms = mono_ms - watch->last_poll_mono_ms;
        assert(gap_ms >= 0);
        step_ms = gap_ms < DKT_WATCH_STEP_MS ? (uint32_t)gap_ms : DKT_WATCH_STEP_MS;
    }
    watch->last_poll_mono_ms = mono_ms;
    if (!dkt_watch_warm(watch)) {
        watch->warm_ms += step_ms;
    }
    for (uint32_t i = 0; i < watch->count; i++) {
        watch->workers[i].present = false;
    }
    for (uint32_t i = 0; i < count; i++) {
        s_see(watch, &seen[i], step_ms);
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < watch->count; i++) {
        if (watch->workers[i].present) {
            watch->workers[kept++] = watch->workers[i];
        }
    }
    watch->count = kept;
}

uint16_t dkt_watch_members(const dkt_watch_t *watch, dkt_incarnation_t members[DKT_MEMBERS_MAX])
{
    uint16_t count = 0;
    for (uint32_t i = 0; i < watch->count; i++) {
        const dkt_worker_watch_t *worker = &watch->workers[i];
        if (worker->dead || worker->leaving) {
            continue;
        }
        uint16_t at = count;
        while (at > 0 && memcmp(members[at - 1].bytes, worker->incarnation.bytes,
                                sizeof worker->incarnation.bytes) > 0) {
            members[at] = members[at - 1];
            at--;
        }
        members[at] = worker->incarnation;
        count++;
    }
    return count;
}

int dkt_table_member(const dkt_table_t *table, const dkt_incarnation_t *who)
{
    for (uint16_t i = 0; i < table->member_count; i++) {
        if (dkt_incarnation_equal(&table->members[i], who)) {
            return i;
        }
    }
    return -1;
}

bool dkt_table_members_equal(const dkt_table_t *table, const dkt_incarnation_t *members,
                             uint16_t count)
{
    if (table->member_count != count) {
        return false;
    }
    for (uint16_t i = 0; i < count; i++) {
        if (dkt_table_member(table, &members[i]) < 0) {
            return false;
        }
    }
    return true;
}

bool dkt_holder_may_end(const dkt_incarnation_t *self, const dkt_holder_t *holder)
{
    if (!holder->holder_known) {
        return false; /* an operator's session: never ours to end */
    }
    if (dkt_incarnation_equal(&holder->holder, self)) {
        return !holder->self_runs_it;
    }
    if (!holder->holder_listed || holder->holder_dead) {
        return true;
    }
    return holder->held_for_ms >= DKT_LOCK_HELD_MS && holder->gained_ago_ms >= DKT_LOCK_HELD_MS;
}
