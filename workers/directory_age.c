/* SPDX-License-Identifier: Apache-2.0
 *
 * The control database stays small: the leader drops what nobody needs any more, one bounded
 * statement behind a poll, so that no beat waits for more than that.
 *
 *   feed      all but the newest DKT_FEED_ROWS_MAX rows of the last DKT_FEED_KEEP_DAYS; the head
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

#define S_NUMBER_BYTES    24
#define S_TEXT(number)    S_TEXT_OF(number)
#define S_TEXT_OF(number) #number
#define S_GUARD           "with guard as (select from leader where epoch = $1 for share), "
#define S_ROWS            S_TEXT(DKT_DIRECTORY_AGE_ROWS)

/* Each returns how many rows went. */
static const char
    *const
        s_statements
            [] =
                {
                    S_GUARD "old as (select f.seq, f.at from feed f, guard order by f.seq "
                            "limit " S_ROWS "), "
                            "gone as (delete from feed f using old o, feed_head h where f.seq = "
                            "o.seq"
                            " and f.seq < h.seq and (f.seq <= h.seq - " S_TEXT(
                                DKT_FEED_ROWS_MAX) " or o.at < clock_timestamp () - interval "
                                                   "'" S_TEXT(DKT_FEED_KEEP_DAYS) " days')"
                                                                                  " returning 1) "
                                                                                  "select count "
                                                                                  "(*) from gone",
                    S_GUARD
                    "old as (select w.incarnation from workers w, guard where w.dead_at is not null"
                    " and (w.dead_at < clock_timestamp () - interval '" S_TEXT(
                        DKT_WORKERS_KEEP_HOURS) " hours' or w.incarnation not in (select "
                                                "incarnation from workers"
                                                "   where dead_at is not null order by dead_at "
                                                "desc limit " S_TEXT(
                                                    DKT_WORKERS_DEAD_MAX) "))"
                                                                          " and not exists (select "
                                                                          "from pg_locks k where "
                                                                          "k.locktype = 'advisory'"
                                                                          "   and k.objsubid = 1 "
                                                                          "and k.granted"
                                                                          "   and k.database = "
                                                                          "(select oid from "
                                                                          "pg_database where "
                                                                          "datname = "
                                                                          "current_database ())"
                                                                          "   and "
                                                                          "((k.classid::bigint << "
                                                                          "32) | k.objid::bigint) "
                                                                          "= w.lock_key)"
                                                                          " order by w.dead_at "
                                                                          "limit " S_ROWS "), "
                                                                          "beats as (delete from "
                                                                          "worker_beats b using "
                                                                          "old o where "
                                                                          "b.incarnation = "
                                                                          "o.incarnation), "
                                                                          "gone as (delete from "
                                                                          "workers w using old o "
                                                                          "where w.incarnation = "
                                                                          "o.incarnation"
                                                                          " returning 1) select "
                                                                          "count (*) from gone",
};
enum { S_STATEMENTS = sizeof s_statements / sizeof s_statements[0] };

/* A statement that fails is no reason to give up the lead: if it is the session, the next poll
 * finds out. */
void dkt_directory_age(dkt_directory_t *self)
{
    int64_t now_mono_ms = dkt_clock_mono_ms();
    if (now_mono_ms < self->age_mono_ms) {
        return;
    }
    char epoch[S_NUMBER_BYTES];
    snprintf(epoch, sizeof epoch, "%llu", (unsigned long long)self->epoch);
    const char *params[] = {epoch};
    dkt_err_t err;
    PGresult *result = dkt_control_run(self->conn, s_statements[self->age_next], 1, params, &err);
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
    self->age_next = (self->age_next + 1) % S_STATEMENTS;
    if (self->age_next == 0) {
        self->age_mono_ms = now_mono_ms + DKT_DIRECTORY_AGE_MS;
    }
}
