/* SPDX-License-Identifier: Apache-2.0
 *
 * Where tenants live: the directory's answer to the node loop's lookups, many in one statement; and
 * who lives no more.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/edge/control.h"
#include "workers/directory_internal.h"

#define S_VSHARD_BYTES 5 /* 4095 and a comma */
#define S_LOOKUP       "lookup"

static void s_fill_home(const PGresult *result, int row, dkt_lookup_mail_t *lookup)
{
    dkt_home_t *home = &lookup->home;
    lookup->status = DKT_OK;
    lookup->marked = true;
    snprintf(home->host, sizeof home->host, "%s", PQgetvalue(result, row, 1));
    snprintf(home->port, sizeof home->port, "%s", PQgetvalue(result, row, 2));
    snprintf(home->database, sizeof home->database, "%s", PQgetvalue(result, row, 3));
    snprintf(home->sub_domain, sizeof home->sub_domain, "%s", PQgetvalue(result, row, 4));
    home->suspended = dkt_directory_is_true(result, row, 5);
    home->changes_seq = strtoull(PQgetvalue(result, row, 6), NULL, 10);
}

static void s_fill_homes(const PGresult *result, dkt_mail_t *list)
{
    for (int i = 0; i < PQntuples(result); i++) {
        dkt_client_t client;
        const char *text = PQgetvalue(result, i, 0);
        if (!dkt_client_parse(text, (uint32_t)strlen(text), &client)) {
            continue;
        }
        for (dkt_mail_t *mail = list; mail; mail = mail->next) {
            if (dkt_client_equal(&((dkt_lookup_mail_t *)mail)->client, &client)) {
                s_fill_home(result, i, (dkt_lookup_mail_t *)mail);
            }
        }
    }
}

/* The control database is gone: what the replica has of the tenant is good enough to find it, and
 * its own database decides who may own it. It is not marked in the table wake: that is asked for
 * later. Who is not in the replica may exist all the same. */
static void s_fill_from_replica(dkt_replica_t *replica, dkt_lookup_mail_t *lookup)
{
    dkt_context_record_t record;
    dkt_home_t *home = &lookup->home;
    if (!dkt_replica_find(replica, &lookup->client, &record)) {
        return;
    }
    lookup->status = DKT_OK;
    snprintf(home->host, sizeof home->host, "%s", record.host);
    snprintf(home->port, sizeof home->port, "%u", record.port);
    snprintf(home->database, sizeof home->database, "%s", record.database);
    snprintf(home->sub_domain, sizeof home->sub_domain, "%s", record.sub_domain);
    home->suspended = record.suspended;
}

/* Whoever asks is about to activate: what is found is marked in the table wake by the same
 * statement, so before the tenant can answer anything. In the order of the ids, because two workers
 * may do so at once. */
static const char s_lookup_sql[] =
    "with found as materialized (select t.client_id, c.host, c.port, t.database, t.sub_domain,"
    "   t.suspended, t.changes_seq from tenants t join clusters c on c.name = t.cluster"
    "   where t.client_id = any ($1::text[]) and t.state = 'active'),"
    " marked as (insert into wake (client_id, vshard, due_ms, owner)"
    "   select distinct a.client_id, a.vshard, 0, $3::uuid"
    "     from unnest ($1::text[], $2::integer[]) a (client_id, vshard)"
    "     join found using (client_id) order by a.client_id"
    "   on conflict (client_id) do update set due_ms = 0, owner = excluded.owner"
    "   where wake.due_ms <> 0 or wake.owner <> excluded.owner)"
    " select * from found";

/* An activation waits for it: it is parsed once in a session. */
static PGresult *s_find(dkt_directory_t *self, const char *const *params, dkt_err_t *err)
{
    if (!self->lookup_kept && dkt_control_keep(self->conn, S_LOOKUP, s_lookup_sql, err) != DKT_OK) {
        return NULL;
    }
    self->lookup_kept = true;
    return dkt_control_run_kept(self->conn, S_LOOKUP, 3, params, err);
}

/* Client ids are of a base64url alphabet, so they need no quoting in an array literal. */
dkt_status_t dkt_directory_look_up(dkt_directory_t *self, dkt_mail_t *list, dkt_err_t *err)
{
    char clients[DKT_LOOKUPS_MAX * (DKT_ID_CHARS_MAX + 1) + 2];
    char vshards[DKT_LOOKUPS_MAX * S_VSHARD_BYTES + 2];
    size_t len = 0, vshards_len = 0;
    clients[len++] = '{';
    vshards[vshards_len++] = '{';
    for (dkt_mail_t *mail = list; mail; mail = mail->next) {
        dkt_lookup_mail_t *lookup = (dkt_lookup_mail_t *)mail;
        dkt_id_text_t text;
        lookup->status = DKT_UNAVAILABLE;
        dkt_client_text(&lookup->client, &text);
        len += (size_t)snprintf(clients + len, sizeof clients - len, "%s%s", len > 1 ? "," : "",
                                text.text);
        vshards_len +=
            (size_t)snprintf(vshards + vshards_len, sizeof vshards - vshards_len, "%s%u",
                             vshards_len > 1 ? "," : "", dkt_client_vshard(&lookup->client));
    }
    snprintf(clients + len, sizeof clients - len, "}");
    snprintf(vshards + vshards_len, sizeof vshards - vshards_len, "}");
    const char *params[] = {clients, vshards, self->incarnation};
    PGresult *result = NULL;
    dkt_status_t status = DKT_OK;
    if (self->conn) {
        result = s_find(self, params, err);
        status = result ? DKT_OK : err->status;
    }
    if (result) {
        for (dkt_mail_t *mail = list; mail; mail = mail->next) {
            ((dkt_lookup_mail_t *)mail)->status = DKT_NOT_FOUND;
        }
        s_fill_homes(result, list);
        PQclear(result);
    }
    for (dkt_mail_t *mail = list; mail && !result && self->env->replica; mail = mail->next) {
        s_fill_from_replica(self->env->replica, (dkt_lookup_mail_t *)mail);
    }
    for (dkt_mail_t *mail = list; mail; mail = list) {
        list = mail->next;
        dkt_mail_post(self->env->node_box, mail, DKT_MAIL_FOUND);
    }
    return status;
}

/* On the session and in the thread of the lookups: whatever was found active before is with the
 * node loop already, and what is looked up from now on is not found. */
dkt_status_t dkt_directory_deleting(dkt_directory_t *self, const char *mark, dkt_err_t *err)
{
    if (strcmp(mark, self->deleting_mark) == 0) {
        return DKT_OK;
    }
    char limit[16];
    snprintf(limit, sizeof limit, "%d", DKT_DELETING_MAX);
    const char *params[] = {limit};
    PGresult *result = dkt_control_run(self->conn,
                                       "select client_id from tenants where state = 'deleting'"
                                       " order by client_id limit $1::integer",
                                       1, params, err);
    if (!result) {
        return err->status;
    }
    uint32_t count = (uint32_t)PQntuples(result);
    dkt_deleting_mail_t *mail = dkt_mail_alloc(sizeof *mail + count * sizeof mail->clients[0]);
    for (uint32_t i = 0; i < count; i++) {
        const char *text = PQgetvalue(result, (int)i, 0);
        if (dkt_client_parse(text, (uint32_t)strlen(text), &mail->clients[mail->count])) {
            mail->count++;
        }
    }
    PQclear(result);
    snprintf(self->deleting_mark, sizeof self->deleting_mark, "%s", mark);
    dkt_mail_post(self->env->node_box, &mail->mail, DKT_MAIL_DELETING);
    return DKT_OK;
}
