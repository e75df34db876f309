/* SPDX-License-Identifier: Apache-2.0
 *
 * Decisions of the directory, as pure functions of what a poll of the control database showed: who
 * is alive (rule 10), whether the table must change, and whether the backend that holds a tenant's
 * lock may be terminated (rule 11).
 *
 * Every directory watches, the leader decides. A worker counts as
 *   gone   its session's advisory lock is not held; dead at once
 *   hung   its beat stood still for DKT_WORKER_HUNG_MS that this watcher saw itself
 * A span without a successful poll counts for nothing, and a watcher judges nobody in its first
 * DKT_WATCH_WARM_MS: after a restart of the database every lock is gone for a moment.
 */
#ifndef DKT_CORE_DIRECTORY_H
#define DKT_CORE_DIRECTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/core/link.h"

/* One worker as a poll showed it. */
typedef struct {
    dkt_incarnation_t incarnation;
    uint64_t beat;    /* raised by its owner 4 times a second */
    bool lock_held;   /* its session is there */
    bool leaving;     /* it drains and wants no share */
    bool marked_dead; /* an earlier decision, in the database */
} dkt_worker_seen_t;

typedef struct {
    dkt_incarnation_t incarnation;
    uint64_t beat;
    uint32_t silent_ms; /* seen by this watcher */
    bool dead;          /* its verdict */
    bool leaving, marked_dead, present;
} dkt_worker_watch_t;

typedef struct {
    uint32_t count;
    dkt_worker_watch_t workers[DKT_MEMBERS_MAX];
    int64_t last_poll_mono_ms; /* 0: none since the session was made */
    uint32_t warm_ms;          /* how long this session has watched */
} dkt_watch_t;

/* A new session: forgets all silence. */
void dkt_watch_reset(dkt_watch_t *watch);

/* A successful poll that began at `mono_ms`. `count` above DKT_MEMBERS_MAX is cut. */
void dkt_watch_poll(dkt_watch_t *watch, int64_t mono_ms, const dkt_worker_seen_t *seen,
                    uint32_t count);

/* Has it watched for long enough to judge? */
bool dkt_watch_warm(const dkt_watch_t *watch);

/* NULL if the last poll did not show it. */
const dkt_worker_watch_t *dkt_watch_find(const dkt_watch_t *watch, const dkt_incarnation_t *who);

/* Those who should have a share, in order of incarnation; returns the count. */
uint16_t dkt_watch_members(const dkt_watch_t *watch, dkt_incarnation_t members[DKT_MEMBERS_MAX]);

/* Are these exactly the members of the table? The table's order does not matter. */
bool dkt_table_members_equal(const dkt_table_t *table, const dkt_incarnation_t *members,
                             uint16_t count);

/* Index of a member in the table, -1 if it is none. */
int dkt_table_member(const dkt_table_t *table, const dkt_incarnation_t *who);

/* What is known of the session that holds a tenant's lock, which the table gives to `self`. */
typedef struct {
    dkt_incarnation_t holder;
    bool holder_known;     /* its application_name is one of ours */
    bool holder_listed;    /* the control database has its row */
    bool holder_dead;      /* and the leader marked it dead */
    bool self_runs_it;     /* `self` has an actor for this tenant in that very moment */
    int64_t held_for_ms;   /* since `self` was first refused the lock */
    int64_t gained_ago_ms; /* since the version that gave it to `self` arrived */
} dkt_holder_t;

/* May `self` terminate that backend? */
bool dkt_holder_may_end(const dkt_incarnation_t *self, const dkt_holder_t *holder);

bool dkt_incarnation_equal(const dkt_incarnation_t *a, const dkt_incarnation_t *b);

#endif
