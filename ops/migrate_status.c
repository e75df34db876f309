/* SPDX-License-Identifier: Apache-2.0
 *
 * What `docket migrate` shows: how many tenants are at which version, who failed and why, what the
 * workers' code knows.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/edge/clock.h"
#include "lib/edge/control.h"
#include "ops/migrate.h"

#define S_DECIMAL      10
#define S_NUMBER_BYTES 16
#define S_MS_PER_S     1000.0

/* Rows as an array of objects; NULL: err says why. */
static json_t *s_rows(PGconn *conn, const char *sql, const char *param, dkt_err_t *err)
{
    PGresult *result = dkt_control_run(conn, sql, param ? 1 : 0, &param, err);
    if (!result) {
        return NULL;
    }
    json_t *rows = json_array();
    for (int i = 0; i < PQntuples(result); i++) {
        json_t *row = json_object();
        for (int column = 0; column < PQnfields(result); column++) {
            const char *value = PQgetvalue(result, i, column), *name = PQfname(result, column);
            char *end = NULL;
            long long number = strtoll(value, &end, S_DECIMAL);
            bool numeric = *value && !*end && strcmp(name, "node") != 0;
            json_object_set_new(row, name,
                                PQgetisnull(result, i, column) ? json_null()
                                : numeric                      ? json_integer(number)
                                                               : json_string(value));
        }
        json_array_append_new(rows, row);
    }
    PQclear(result);
    return rows;
}

static json_int_t s_number(const json_t *row, const char *key)
{
    return json_integer_value(json_object_get(row, key));
}

static const char *s_text(const json_t *row, const char *key)
{
    const char *text = json_string_value(json_object_get(row, key));
    return text ? text : "-";
}

static const char s_fleet_sql[] =
    "select (select max (version) from schema_version) as control,"
    " (select substring (shobj_description (oid, 'pg_database') from '\\d+')::integer"
    "    from pg_database where datname = '" DKT_CONTROL_TEMPLATE "') as template,"
    " (select contracted from schema_floor) as contracted,"
    " (select count (*) from tenants where state <> 'deleting') as tenants,"
    " (select count (*) from tenants t where t.state <> 'deleting' and not exists"
    "    (select from upgrades u where u.client_id = t.client_id)) as unseen,"
    " (select count (*) from upgrades u join tenants t on t.client_id = u.client_id"
    "    where u.version >= $1::integer and t.state <> 'deleting') as finished,"
    " (select count (*) from upgrades where state = 'asked') as asked";

static const char s_failed_sql[] =
    "select client_id, version, target, coalesce (error, '') as error,"
    " extract (epoch from clock_timestamp () - at)::bigint as age_s"
    " from upgrades u where state = 'failed' and not exists (select from tenants t"
    "    where t.client_id = u.client_id and t.state = 'deleting') order by client_id";

static void s_print_failed(const json_t *failed)
{
    size_t i;
    json_t *row;
    json_array_foreach(failed, i, row)
    {
        printf("failed: %s is at version %lld, not at %lld, since %lld s: %s\n",
               s_text(row, "client_id"), (long long)s_number(row, "version"),
               (long long)s_number(row, "target"), (long long)s_number(row, "age_s"),
               s_text(row, "error"));
    }
}

static void s_print(const json_t *all)
{
    size_t i;
    json_t *row;
    printf("this code: tenants %lld (%lld with contract steps), control %d\n",
           (long long)s_number(all, "target"), (long long)s_number(all, "newest"),
           DKT_SCHEMA_CONTROL_READS);
    printf("control database: version %lld; template of new tenants: version %lld\n",
           (long long)s_number(all, "control"), (long long)s_number(all, "template"));
    printf("%-10s %8s  %s\n", "version", "tenants", "longest ago");
    json_array_foreach(json_object_get(all, "versions"), i, row)
    {
        printf("%-10lld %8lld  %lld s\n", (long long)s_number(row, "version"),
               (long long)s_number(row, "tenants"), (long long)s_number(row, "age_s"));
    }
    printf("%-10s %8lld\n", "unseen", (long long)s_number(all, "unseen"));
    json_array_foreach(json_object_get(all, "workers"), i, row)
    {
        printf("worker %s: knows tenants' schema %lld, control schema %lld\n", s_text(row, "node"),
               (long long)s_number(row, "reads"), (long long)s_number(row, "control_reads"));
    }
    s_print_failed(json_object_get(all, "failed"));
    if (s_number(all, "asked") > 0) {
        printf("%lld tenants are asked for a step now\n", (long long)s_number(all, "asked"));
    }
    printf("%lld of %lld tenants are at version %lld or later%s\n",
           (long long)s_number(all, "finished"), (long long)s_number(all, "tenants"),
           (long long)s_number(all, "target"),
           s_number(all, "finished") < s_number(all, "tenants") ? ": docket migrate" : "");
}

static void s_put(json_t *all, const char *key, json_t *rows)
{
    if (rows) {
        json_object_set_new(all, key, rows);
    }
}

dkt_status_t dkt_migrate_status(dkt_migrate_t *self, bool *all_done, dkt_err_t *err)
{
    char target[S_NUMBER_BYTES];
    snprintf(target, sizeof target, "%d", self->target);
    json_t *fleet = s_rows(self->conn, s_fleet_sql, target, err);
    if (!fleet) {
        return err->status;
    }
    json_t *all = json_copy(json_array_get(fleet, 0));
    json_decref(fleet);
    json_object_set_new(all, "target", json_integer(self->target));
    json_object_set_new(all, "newest", json_integer(dkt_steps_newest(self->tenant_steps)));
    s_put(all, "versions",
          s_rows(self->conn,
                 "select version, count (*) as tenants,"
                 " extract (epoch from clock_timestamp () - min (at))::bigint as age_s"
                 " from upgrades group by version order by version",
                 NULL, err));
    s_put(all, "workers",
          s_rows(self->conn,
                 "select node, reads, control_reads from workers where dead_at is null"
                 " order by node",
                 NULL, err));
    s_put(all, "failed", s_rows(self->conn, s_failed_sql, NULL, err));
    bool complete = json_object_get(all, "versions") && json_object_get(all, "workers") &&
                    json_object_get(all, "failed");
    if (complete && self->json) {
        json_dumpf(all, stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (complete) {
        s_print(all);
    }
    *all_done = s_number(all, "finished") >= s_number(all, "tenants");
    json_decref(all);
    return complete ? DKT_OK : err->status;
}

dkt_status_t dkt_migrate_summary(dkt_migrate_t *self, dkt_err_t *err)
{
    json_t *failed = s_rows(self->conn, s_failed_sql, NULL, err);
    if (!failed) {
        return err->status;
    }
    double seconds = (double)(dkt_clock_mono_ms() - self->begun_mono_ms) / S_MS_PER_S;
    if (self->json) {
        json_t *all =
            json_pack("{s:i, s:i, s:i, s:f, s:O}", "target", self->target, "done", (int)self->done,
                      "total", (int)self->total, "seconds", seconds, "failed", failed);
        json_dumpf(all, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(all);
    } else {
        s_print_failed(failed);
        printf("%u tenants brought to version %d in %.1f s, %u failed\n", self->done, self->target,
               seconds, self->failed);
    }
    json_decref(failed);
    return DKT_OK;
}
