/* SPDX-License-Identifier: Apache-2.0
 *
 * Before contract steps: every worker's code must know the schema they leave, and every tenant must
 * have all that comes before them. Tenants that nobody has looked at are looked at here.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/edge/control.h"
#include "lib/edge/upgrade.h"
#include "ops/migrate.h"

#define S_NUMBER_BYTES 16
#define S_TOLD_MAX     20 /* in the way, by name; the rest is counted */

static int s_reader(const dkt_steps_t *steps)
{
    int reader = 0;
    for (int i = 0; i < steps->count; i++) {
        const dkt_step_t *step = &steps->steps[i];
        reader = step->contract && step->min_reader > reader ? step->min_reader : reader;
    }
    return reader;
}

static dkt_status_t s_workers(dkt_migrate_t *self, int *in_the_way, dkt_err_t *err)
{
    char reads[S_NUMBER_BYTES], control_reads[S_NUMBER_BYTES];
    snprintf(reads, sizeof reads, "%d", s_reader(self->tenant_steps));
    snprintf(control_reads, sizeof control_reads, "%d", s_reader(self->control_steps));
    const char *params[] = {reads, control_reads};
    PGresult *result = dkt_control_run(self->conn,
                                       "select node, reads, control_reads from workers"
                                       " where dead_at is null"
                                       "   and (reads < $1 or control_reads < $2) order by node",
                                       2, params, err);
    if (!result) {
        return err->status;
    }
    for (int i = 0; i < PQntuples(result); i++) {
        fprintf(stderr,
                "in the way: worker %s knows tenants' schema %s and control schema %s, and the"
                " contract steps want %s and %s\n",
                PQgetvalue(result, i, 0), PQgetvalue(result, i, 1), PQgetvalue(result, i, 2), reads,
                control_reads);
    }
    *in_the_way += PQntuples(result);
    PQclear(result);
    return DKT_OK;
}

/* What a tenant lacks, if nobody has looked before: it may have been made since. */
static dkt_status_t s_look(dkt_migrate_t *self, const char *client_id, const char *database,
                           int *version, dkt_err_t *err)
{
    char known[S_NUMBER_BYTES];
    dkt_err_t why;
    if (dkt_upgrade_place(self->uri, database, self->tenant_steps, 0, version, &why) != DKT_OK) {
        *version = 0;
        return DKT_OK;
    }
    snprintf(known, sizeof known, "%d", *version);
    const char *params[] = {client_id, known};
    return *version < self->target
               ? DKT_OK
               : dkt_control_exec(self->conn,
                                  "insert into upgrades (client_id, version, target, state)"
                                  " values ($1, $2, $2, 'done') on conflict (client_id) do update"
                                  " set version = excluded.version, state = 'done', error = null,"
                                  " at = clock_timestamp ()",
                                  2, params, err);
}

static dkt_status_t s_tenants(dkt_migrate_t *self, int *in_the_way, dkt_err_t *err)
{
    char target[S_NUMBER_BYTES];
    snprintf(target, sizeof target, "%d", self->target);
    const char *params[] = {target};
    PGresult *rows =
        dkt_control_run(self->conn,
                        "select t.client_id, t.database from tenants t left join upgrades u"
                        "   on u.client_id = t.client_id where coalesce (u.version, 0) < $1"
                        "   and t.state <> 'deleting' order by t.client_id",
                        1, params, err);
    if (!rows) {
        return err->status;
    }
    dkt_status_t status = DKT_OK;
    int count = 0;
    for (int i = 0; status == DKT_OK && i < PQntuples(rows); i++) {
        int version = 0;
        status = s_look(self, PQgetvalue(rows, i, 0), PQgetvalue(rows, i, 1), &version, err);
        if (status == DKT_OK && version < self->target && count++ < S_TOLD_MAX) {
            fprintf(stderr, "in the way: tenant %s is at version %d and not at %d yet\n",
                    PQgetvalue(rows, i, 0), version, self->target);
        }
    }
    if (count > S_TOLD_MAX) {
        fprintf(stderr, "in the way: %d more tenants\n", count - S_TOLD_MAX);
    }
    *in_the_way += count;
    PQclear(rows);
    return status;
}

dkt_status_t dkt_migrate_may_finish(dkt_migrate_t *self, bool *clear, dkt_err_t *err)
{
    int in_the_way = 0;
    dkt_status_t status = s_workers(self, &in_the_way, err);
    if (status == DKT_OK) {
        status = s_tenants(self, &in_the_way, err);
    }
    *clear = status == DKT_OK && in_the_way == 0;
    return status;
}
