/* SPDX-License-Identifier: Apache-2.0
 *
 * Schemas, as the directory sees them: whether this code may work at all with what the databases
 * have become, and the table upgrades, through which `docket migrate` asks owners for a step.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/edge/clock.h"
#include "lib/edge/control.h"
#include "lib/edge/log.h"
#include "workers/directory_internal.h"

#define S_NUMBER_BYTES 16
#define S_DECIMAL      10
#define S_UPGRADES_AT  2 /* the step of schemas/control that brought the table */

/* The first value of the first row; 0 if there is none. */
static dkt_status_t s_number(dkt_directory_t *self, const char *sql, int *number, dkt_err_t *err)
{
    PGresult *result = dkt_control_run(self->conn, sql, 0, NULL, err);
    if (!result) {
        return err->status;
    }
    *number = PQntuples(result) > 0 ? (int)strtol(PQgetvalue(result, 0, 0), NULL, S_DECIMAL) : 0;
    PQclear(result);
    return DKT_OK;
}

static dkt_status_t s_look_for_table(dkt_directory_t *self, dkt_err_t *err)
{
    int version = 0;
    dkt_status_t status = s_number(self, "select max (version) from schema_version", &version, err);
    self->upgrades_known = status == DKT_OK && version >= S_UPGRADES_AT;
    return status;
}

dkt_status_t dkt_directory_schema(dkt_directory_t *self, dkt_err_t *err)
{
    int reader = 0, floor = 0;
    self->reads_told = false;
    self->upgrade_mono_ms = 0;
    dkt_status_t status = s_look_for_table(self, err);
    if (status == DKT_OK) {
        status = s_number(self, "select max (min_reader) from schema_version", &reader, err);
    }
    if (status == DKT_OK && self->upgrades_known) {
        status = s_number(self, "select reads from schema_floor", &floor, err);
    }
    if (status == DKT_OK && reader > DKT_SCHEMA_CONTROL_READS) {
        status = dkt_fail(err, DKT_CONFLICT, NULL,
                          "its schema is for code that reads %d, this reads %d: this docket is too"
                          " old for the fleet",
                          reader, DKT_SCHEMA_CONTROL_READS);
    }
    if (status == DKT_OK && floor > DKT_SCHEMA_TENANT_READS) {
        status = dkt_fail(err, DKT_CONFLICT, NULL,
                          "the tenants' schemas are for code that reads %d, this reads %d: this"
                          " docket is too old for the fleet",
                          floor, DKT_SCHEMA_TENANT_READS);
    }
    return status;
}

static dkt_status_t s_tell_reads(dkt_directory_t *self, dkt_err_t *err)
{
    char reads[S_NUMBER_BYTES], control_reads[S_NUMBER_BYTES];
    snprintf(reads, sizeof reads, "%d", DKT_SCHEMA_TENANT_READS);
    snprintf(control_reads, sizeof control_reads, "%d", DKT_SCHEMA_CONTROL_READS);
    const char *params[] = {self->incarnation, reads, control_reads};
    dkt_status_t status = dkt_control_exec(
        self->conn, "update workers set reads = $2, control_reads = $3 where incarnation = $1", 3,
        params, err);
    self->reads_told = status == DKT_OK;
    return status;
}

static dkt_status_t s_read_asked(dkt_directory_t *self, dkt_err_t *err)
{
    char limit[S_NUMBER_BYTES];
    snprintf(limit, sizeof limit, "%d", DKT_UPGRADES_MAX);
    const char *params[] = {limit};
    PGresult *result =
        dkt_control_run(self->conn,
                        "select client_id, target from upgrades"
                        " where state = 'asked' order by client_id limit $1::integer",
                        1, params, err);
    if (!result) {
        return err->status;
    }
    int count = PQntuples(result);
    if (count > 0) {
        dkt_upgrades_mail_t *mail =
            dkt_mail_alloc(sizeof *mail + (size_t)count * sizeof mail->rows[0]);
        for (int i = 0; i < count; i++) {
            dkt_upgrade_row_t *row = &mail->rows[mail->count];
            const char *text = PQgetvalue(result, i, 0);
            if (dkt_client_parse(text, (uint32_t)strlen(text), &row->client)) {
                row->target = (int32_t)strtol(PQgetvalue(result, i, 1), NULL, S_DECIMAL);
                mail->count++;
            }
        }
        dkt_mail_post(self->env->node_box, &mail->mail, DKT_MAIL_UPGRADES);
    }
    PQclear(result);
    return DKT_OK;
}

dkt_status_t dkt_directory_upgrade(dkt_directory_t *self, dkt_err_t *err)
{
    int64_t now_mono_ms = dkt_clock_mono_ms();
    dkt_status_t status = DKT_OK;
    if (now_mono_ms < self->upgrade_mono_ms) {
        return DKT_OK;
    }
    self->upgrade_mono_ms = now_mono_ms + DKT_UPGRADE_LOOK_MS;
    if (!self->upgrades_known) {
        status = s_look_for_table(self, err);
    }
    if (status == DKT_OK && self->upgrades_known && !self->reads_told) {
        status = s_tell_reads(self, err);
    }
    return status == DKT_OK && self->upgrades_known ? s_read_asked(self, err) : status;
}

dkt_status_t dkt_directory_migrated(dkt_directory_t *self, const dkt_migrated_mail_t *mail,
                                    dkt_err_t *err)
{
    dkt_id_text_t client;
    char target[S_NUMBER_BYTES], version[S_NUMBER_BYTES], breaks[S_NUMBER_BYTES];
    dkt_client_text(&mail->client, &client);
    snprintf(target, sizeof target, "%d", (int)mail->target);
    snprintf(version, sizeof version, "%d", (int)mail->version);
    snprintf(breaks, sizeof breaks, "%d", DKT_UPGRADE_BREAKS);
    if (mail->text[0]) {
        dkt_log(DKT_LOG_WARN, "%s: schema %s: %s", client.text, target, mail->text);
    }
    const char *params[] = {client.text,
                            target,
                            version,
                            mail->text[0] ? mail->text : NULL,
                            mail->broke ? "1" : "0",
                            mail->failed ? "true" : "false",
                            breaks};
    return dkt_control_exec(
        self->conn,
        "update upgrades set version = greatest (version, $3), at = clock_timestamp (),"
        "   broken = broken + $5, error = case when $3 < target then $4 end,"
        "   state = case when $3 >= target then 'done'"
        "     when $6::boolean or broken + $5 >= $7 then 'failed' else state end"
        " where client_id = $1 and target = $2 and state = 'asked'",
        7, params, err);
}
