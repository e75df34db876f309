/* SPDX-License-Identifier: Apache-2.0
 *
 * The control database stays small: the leader drops what nobody needs any more, one bounded
 * statement behind a poll, so that no beat waits for more than that.
 *
 *   feed      all but the newest DKT_FEED_ROWS_MAX rows of the last DKT_FEED_KEEP_HOURS; the head
 *             stays. Whoever is further behind reads the whole
 *   workers   the dead, and their beats: after a day, or when there are many. Never one that still
 *             holds its lock: it may wake up, and is heard again only while its row is there
 *
 * The rest stays: `audit` is append-only; a row of `brokers` says where a broker listens, the
 * broker takes it back at its end and nothing here could tell a dead one from one that is merely
 * out of sight, while a row too many costs each worker one socket that tries to connect; `pool`
 * names databases that exist; `wake` and `tenants` go with their tenant.
 */
#include <stdio.h>
#include <stdlib.h>

#include "lib/edge/clock.h"
#include "lib/edge/control.h"
#include "lib/edge/log.h"
#include "workers/directory_internal.h"

#define S_NUMBER_BYTES 24

/* Each returns how many rows went: at most $2, by a leader of epoch $1. $3 newest rows stay, unless
 * they are $4 hours old. */

static const char s_feed[] =
    "with guard as (select from leader where epoch = $1::bigint for share),"
    " old as (select f.seq, f.at from feed f, guard order by f.seq limit $2::bigint),"
    " gone as (delete from feed f using old o, feed_head h where f.seq = o.seq and f.seq < h.seq"
    " and (f.seq <= h.seq - $3::bigint or o.at < clock_timestamp () - make_interval (hours => $4))"
    " returning 1) select count (*) from gone";

static const char s_workers[] =
    "with guard as (select from leader where epoch = $1::bigint for share),"
    " recent as (select incarnation from workers where dead_at is not null order by dead_at desc"
    "   limit $3::bigint),"
    " held as (select (classid::bigint << 32) | objid::bigint as key from pg_locks"
    "   where locktype = 'advisory' and objsubid = 1 and granted"
    "   and database = (select oid from pg_database where datname = current_database ())),"
    " old as (select w.incarnation from workers w, guard where w.dead_at is not null"
    "   and (w.dead_at < clock_timestamp () - make_interval (hours => $4)"
    "        or w.incarnation not in (select incarnation from recent))"
    "   and w.lock_key not in (select key from held) order by w.dead_at limit $2::bigint),"
    " beats as (delete from worker_beats b using old o where b.incarnation = o.incarnation),"
    " gone as (delete from workers w using old o where w.incarnation = o.incarnation returning 1)"
    " select count (*) from gone";

static const struct {
    const char *sql;
    int newest, hours;
} s_rows[] = {
    {s_feed, DKT_FEED_ROWS_MAX, DKT_FEED_KEEP_HOURS},
    {s_workers, DKT_WORKERS_DEAD_MAX, DKT_WORKERS_KEEP_HOURS},
};
enum { S_ROWS = sizeof s_rows / sizeof s_rows[0] };

/* A statement that fails is no reason to give up the lead: if it is the session, the next poll
 * finds out. */
void dkt_directory_age(dkt_directory_t *self)
{
    int64_t now_mono_ms = dkt_clock_mono_ms();
    if (now_mono_ms < self->age_mono_ms) {
        return;
    }
    char epoch[S_NUMBER_BYTES], rows[S_NUMBER_BYTES], newest[S_NUMBER_BYTES], hours[S_NUMBER_BYTES];
    snprintf(epoch, sizeof epoch, "%llu", (unsigned long long)self->epoch);
    snprintf(rows, sizeof rows, "%d", DKT_DIRECTORY_AGE_ROWS);
    snprintf(newest, sizeof newest, "%d", s_rows[self->age_next].newest);
    snprintf(hours, sizeof hours, "%d", s_rows[self->age_next].hours);
    const char *params[] = {epoch, rows, newest, hours};
    dkt_err_t err;
    PGresult *result = dkt_control_run(self->conn, s_rows[self->age_next].sql, 4, params, &err);
    uint64_t gone = 0;
    if (result) {
        gone = strtoull(PQgetvalue(result, 0, 0), NULL, 10);
        PQclear(result);
    } else {
        dkt_log(DKT_LOG_WARN, "the control database keeps what is old: %s", err.text);
    }
    if (gone == DKT_DIRECTORY_AGE_ROWS) {
        return; /* more of the same with the next poll */
    }
    self->age_next = (self->age_next + 1) % S_ROWS;
    if (self->age_next == 0) {
        self->age_mono_ms = now_mono_ms + DKT_DIRECTORY_AGE_MS;
    }
}
