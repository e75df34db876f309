/* SPDX-License-Identifier: Apache-2.0
 *
 * A tenant's lock that somebody holds although the table gives the tenant to us: who is it, and may
 * that session be ended (lib/core/directory.h)?
 */
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/edge/clock.h"
#include "lib/edge/control.h"
#include "lib/edge/log.h"
#include "workers/directory_internal.h"

#define S_HOLDER_LOCK "110429572130164" /* the owner's lock of schemas/tenant */

/* application_name is docket/NODE/INCARNATION; the incarnation as 32 hex digits or as a uuid. */
static bool s_parse_holder(const char *name, dkt_incarnation_t *holder)
{
    const char *last = strrchr(name, '/');
    size_t len = 0;
    return strncmp(name, "docket/", 7) == 0 && last &&
           sodium_hex2bin(holder->bytes, sizeof holder->bytes, last + 1, strlen(last + 1), "-",
                          &len, NULL) == 0 &&
           len == sizeof holder->bytes;
}

/* A session of our own incarnation is an older one iff it began before the node loop asked: at that
 * moment no actor of ours ran for this tenant. */
DKT_CHECKED static dkt_status_t s_judge(dkt_directory_t *self, const dkt_holder_mail_t *asked,
                                        const PGresult *result, dkt_err_t *err)
{
    int64_t now_mono_ms = dkt_clock_mono_ms();
    int64_t age_ms = strtoll(PQgetvalue(result, 0, 2), NULL, 10);
    dkt_holder_t holder = {.self_runs_it = age_ms <= now_mono_ms - asked->asked_mono_ms + 1,
                           .held_for_ms = now_mono_ms - asked->held_since_mono_ms,
                           .gained_ago_ms = now_mono_ms - asked->gained_mono_ms};
    holder.holder_known = s_parse_holder(PQgetvalue(result, 0, 1), &holder.holder);
    holder.holder_listed = dkt_directory_is_true(result, 0, 4);
    holder.holder_dead = dkt_directory_is_true(result, 0, 5);
    if (!dkt_holder_may_end(&self->env->incarnation, &holder)) {
        return DKT_OK;
    }
    dkt_log(DKT_LOG_INFO, "%s: ending the session of %s, which holds its lock", asked->database,
            PQgetvalue(result, 0, 1));
    /* By name and start as well as by pid: the pid may be somebody else's by now. */
    const char *params[] = {PQgetvalue(result, 0, 0), PQgetvalue(result, 0, 1),
                            PQgetvalue(result, 0, 3)};
    return dkt_control_exec(self->conn,
                            "select pg_terminate_backend (pid) from pg_stat_activity"
                            " where pid = $1::integer and application_name = $2"
                            " and backend_start = $3::timestamptz",
                            3, params, err);
}

dkt_status_t dkt_directory_ask_holder(dkt_directory_t *self, const dkt_holder_mail_t *asked,
                                      dkt_err_t *err)
{
    const char *params[] = {asked->database};
    if (!self->conn) {
        return DKT_OK; /* nothing is known: nobody is judged */
    }
    /* The row of the holder's worker is read here and now: one that this directory has not seen yet
     * is a new worker, not a dead one. */
    PGresult *result = dkt_control_run(
        self->conn,
        "select a.pid, a.application_name,"
        " (extract (epoch from clock_timestamp () - a.backend_start) * 1000)::bigint,"
        " a.backend_start, w.incarnation is not null, w.dead_at is not null"
        " from pg_locks l join pg_stat_activity a on a.pid = l.pid"
        " left join workers w"
        "   on replace (w.incarnation::text, '-', '') = right (a.application_name, 32)"
        " where l.locktype = 'advisory' and l.granted and l.objsubid = 1 and a.datname = $1"
        " and l.database = a.datid"
        " and (l.classid::bigint << 32 | l.objid::bigint) = " S_HOLDER_LOCK,
        1, params, err);
    if (!result) {
        return err->status;
    }
    dkt_status_t status = PQntuples(result) == 1 ? s_judge(self, asked, result, err) : DKT_OK;
    PQclear(result);
    return status;
}
