/* SPDX-License-Identifier: Apache-2.0
 *
 * What the leader of the directory writes. Every write demands its epoch under the row lock of
 * `leader`, on the connection that holds the leader's lock: a leader that was replaced without
 * noticing writes nothing.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/edge/clock.h"
#include "lib/edge/control.h"
#include "lib/edge/log.h"
#include "workers/directory_internal.h"

/* Header, versions, members, owners and keys of a table, with room to spare. */
#define S_TABLE_BYTES_MAX 32768
#define S_NUMBER_BYTES    24

dkt_status_t dkt_directory_lead_begin(dkt_directory_t *self, dkt_err_t *err)
{
    const char *params[] = {self->incarnation};
    PGresult *result = dkt_control_run(self->conn,
                                       "update leader set epoch = epoch + 1, incarnation = $1,"
                                       " since = clock_timestamp () returning epoch",
                                       1, params, err);
    if (!result) {
        return err->status;
    }
    self->epoch = strtoull(PQgetvalue(result, 0, 0), NULL, 10);
    PQclear(result);
    self->leading = true;
    self->age_mono_ms = dkt_clock_mono_ms() + DKT_WATCH_WARM_MS; /* who is alive comes first */
    atomic_store(&self->env->leader, true);
    dkt_log(DKT_LOG_INFO, "leads the directory, epoch %llu", (unsigned long long)self->epoch);
    return DKT_OK;
}

/* A verdict is written before the table that follows from it: a successor may end the session of
 * somebody marked dead as soon as it owns the tenant. */
static dkt_status_t s_write_verdict(dkt_directory_t *self, const dkt_worker_watch_t *worker,
                                    dkt_err_t *err)
{
    char who[DKT_UUID_TEXT_BYTES], epoch[S_NUMBER_BYTES];
    dkt_directory_uuid(&worker->incarnation, who);
    snprintf(epoch, sizeof epoch, "%llu", (unsigned long long)self->epoch);
    dkt_log(worker->dead ? DKT_LOG_WARN : DKT_LOG_INFO, "worker %s is %s", who,
            worker->dead ? "dead" : "alive again");
    const char *params[] = {who, worker->dead ? "true" : "false", epoch};
    return dkt_control_exec(self->conn,
                            "with guard as (select from leader where epoch = $3 for share)"
                            " update workers set dead_at ="
                            " case when $2::boolean then clock_timestamp () end"
                            " from guard where incarnation = $1",
                            3, params, err);
}

static dkt_status_t s_write_verdicts(dkt_directory_t *self, dkt_err_t *err)
{
    dkt_status_t status = DKT_OK;
    for (uint32_t i = 0; i < self->watch.count && status == DKT_OK; i++) {
        dkt_worker_watch_t *worker = &self->watch.workers[i];
        if (worker->dead != worker->marked_dead) {
            status = s_write_verdict(self, worker, err);
            worker->marked_dead = worker->dead;
        }
    }
    return status;
}

static dkt_status_t s_write_table(dkt_directory_t *self, const dkt_table_t *table, dkt_err_t *err)
{
    uint8_t body[S_TABLE_BYTES_MAX];
    char hex[2 * S_TABLE_BYTES_MAX + 1];
    dkt_w_t w = dkt_w_init(body, sizeof body);
    dkt_link_begin(&w, DKT_LINK_TABLE, table->version, &self->env->incarnation);
    dkt_link_put_table(&w, table);
    dkt_link_finish(&w, 1);
    assert(!w.failed);
    sodium_bin2hex(hex, sizeof hex, body, w.len);
    char epoch[S_NUMBER_BYTES], version[S_NUMBER_BYTES];
    snprintf(epoch, sizeof epoch, "%llu", (unsigned long long)table->version.epoch);
    snprintf(version, sizeof version, "%llu", (unsigned long long)table->version.version);
    const char *params[] = {epoch, version, hex};
    PGresult *result = dkt_control_run(
        self->conn,
        "with guard as (select from leader where epoch = $1 for share),"
        " done as (update vshards v set epoch = $1, version = $2, body = decode ($3, 'hex')"
        "   from guard where (v.epoch, v.version) < ($1, $2) returning v.epoch, v.version)"
        " select pg_notify ('" DKT_DIRECTORY_CHANNEL "', ''),"
        "        feed_append (jsonb_build_object ('table', to_jsonb (done))) from done",
        3, params, err);
    if (!result) {
        return err->status;
    }
    bool written = PQntuples(result) == 1;
    PQclear(result);
    return written ? DKT_OK
                   : dkt_fail(err, DKT_CONFLICT, NULL, "replaced as leader by a newer epoch");
}

dkt_status_t dkt_directory_lead(dkt_directory_t *self, dkt_err_t *err)
{
    dkt_incarnation_t members[DKT_MEMBERS_MAX];
    dkt_status_t status = s_write_verdicts(self, err);
    if (status != DKT_OK) {
        return status;
    }
    uint16_t count = dkt_watch_members(&self->watch, members);
    if (count == 0 || dkt_table_members_equal(&self->table, members, count)) {
        return DKT_OK; /* with nobody alive the last table stays in force */
    }
    dkt_table_mail_t *mail = dkt_mail_alloc(sizeof *mail);
    mail->table = self->table;
    dkt_table_assign(&mail->table, members, count);
    mail->table.version.epoch = self->epoch;
    mail->table.key_count = self->env->token_public_count;
    memcpy(mail->table.keys, self->env->token_publics, sizeof mail->table.keys);
    status = s_write_table(self, &mail->table, err);
    if (status != DKT_OK) {
        free(mail);
        return status;
    }
    self->table = mail->table;
    dkt_log(DKT_LOG_INFO, "table %llu.%llu: %u workers",
            (unsigned long long)mail->table.version.epoch,
            (unsigned long long)mail->table.version.version, count);
    dkt_mail_post(self->env->node_box, &mail->mail, DKT_MAIL_TABLE);
    return DKT_OK;
}
