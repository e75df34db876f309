/* SPDX-License-Identifier: Apache-2.0
 *
 * The table wake, as the directory's thread writes and reads it for its node loop. Marks of active
 * tenants are not here: they are part of the lookup (directory.c), which every activation begins
 * with, so they cost no statement of their own.
 *
 * What could not be written stays pending and is tried again with the next session. That is safe in
 * any order of failures: until it is written the row says 0, and 0 only means to look.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/edge/control.h"
#include "workers/directory_internal.h"

#define S_SETTLES_MAX  256 /* in one statement */
#define S_NUMBER_BYTES 24
#define S_VSHARD_BYTES 5 /* 4095 and a comma */
#define S_BITS         8
#define S_DECIMAL      10

void dkt_directory_wake_take(dkt_directory_t *self, dkt_mail_t *mail)
{
    if (mail->kind == DKT_MAIL_SETTLE) {
        mail->next = NULL;
        if (self->settles) {
            self->settles_last->next = mail;
        } else {
            self->settles = mail;
        }
        self->settles_last = mail;
        return;
    }
    const dkt_wake_mail_t *wake = (const dkt_wake_mail_t *)mail;
    assert(mail->kind == DKT_MAIL_WAKE);
    if (wake->probe && !self->probing) {
        self->probing = true;
        self->probe_cursor[0] = '\0';
    }
    for (size_t i = 0; !wake->probe && i < sizeof self->unread; i++) {
        self->unread[i] |= wake->vshards[i];
        self->any_unread = self->any_unread || wake->vshards[i] != 0;
    }
    free(mail);
}

void dkt_directory_wake_fini(dkt_directory_t *self)
{
    while (self->settles) {
        dkt_mail_t *next = self->settles->next;
        free(self->settles);
        self->settles = next;
    }
}

/* -- ends -- */

/* The same tenant may have ended twice since: the last end counts, so it is the last in a statement
 * and what comes behind waits for the next one. */
static bool s_is_among(const dkt_mail_t *list, uint32_t count, const dkt_client_t *client)
{
    for (uint32_t i = 0; i < count; i++, list = list->next) {
        if (dkt_client_equal(&((const dkt_settle_mail_t *)list)->client, client)) {
            return true;
        }
    }
    return false;
}

static dkt_status_t s_write_settles(dkt_directory_t *self, dkt_err_t *err)
{
    char clients[S_SETTLES_MAX * (DKT_ID_CHARS_MAX + 1) + 2];
    char dues[S_SETTLES_MAX * S_NUMBER_BYTES + 2];
    size_t client_len = 0, due_len = 0;
    uint32_t count = 0;
    for (dkt_mail_t *mail = self->settles; mail && count < S_SETTLES_MAX; mail = mail->next) {
        const dkt_settle_mail_t *settle = (const dkt_settle_mail_t *)mail;
        if (s_is_among(self->settles, count, &settle->client)) {
            break;
        }
        dkt_id_text_t text;
        dkt_client_text(&settle->client, &text);
        client_len += (size_t)snprintf(clients + client_len, sizeof clients - client_len, "%c%s",
                                       count > 0 ? ',' : '{', text.text);
        due_len += (size_t)snprintf(dues + due_len, sizeof dues - due_len, "%c%lld",
                                    count > 0 ? ',' : '{', (long long)settle->due_ms);
        count++;
    }
    snprintf(clients + client_len, sizeof clients - client_len, "}");
    snprintf(dues + due_len, sizeof dues - due_len, "}");
    const char *params[] = {clients, dues, self->incarnation};
    dkt_status_t status = dkt_control_exec(
        self->conn,
        "with ended as (select * from unnest ($1::text[], $2::bigint[]) e (client_id, due_ms)),"
        " own as materialized (select w.client_id, e.due_ms from wake w join ended e"
        "   using (client_id) where w.owner = $3::uuid order by w.client_id for update of w),"
        " gone as (delete from wake w using own"
        "   where w.client_id = own.client_id and own.due_ms = 9223372036854775807)"
        " update wake w set due_ms = own.due_ms from own"
        "   where w.client_id = own.client_id and own.due_ms < 9223372036854775807",
        3, params, err);
    while (status == DKT_OK && count-- > 0) {
        dkt_mail_t *next = self->settles->next;
        free(self->settles);
        self->settles = next;
    }
    return status;
}

/* -- rows -- */

static void s_give_rows(dkt_directory_t *self, const PGresult *result, bool probe)
{
    uint32_t count = (uint32_t)PQntuples(result);
    dkt_rows_mail_t *mail = dkt_mail_alloc(sizeof *mail + count * sizeof mail->rows[0]);
    mail->probe = probe;
    for (uint32_t i = 0; i < count; i++) {
        dkt_wake_row_t *row = &mail->rows[mail->count];
        const char *text = PQgetvalue(result, (int)i, 0);
        if (dkt_client_parse(text, (uint32_t)strlen(text), &row->client)) {
            row->due_ms = strtoll(PQgetvalue(result, (int)i, 1), NULL, S_DECIMAL);
            mail->count++;
        }
    }
    dkt_mail_post(self->env->node_box, &mail->mail, DKT_MAIL_ROWS);
}

static void s_vshards_text(const dkt_directory_t *self, char *out, size_t max)
{
    size_t len = (size_t)snprintf(out, max, "{");
    for (unsigned v = 0; v < DKT_VSHARDS; v++) {
        if (self->unread[v / S_BITS] & (1u << v % S_BITS)) {
            len += (size_t)snprintf(out + len, max - len, "%s%u", len > 1 ? "," : "", v);
        }
    }
    snprintf(out + len, max - len, "}");
}

/* Page by page in the order in which they are due: the zeros are the node loop's first. */
static dkt_status_t s_read_rows(dkt_directory_t *self, dkt_err_t *err)
{
    char vshards[DKT_VSHARDS * S_VSHARD_BYTES + 2];
    char due[S_NUMBER_BYTES] = "-1", client[DKT_ID_CHARS_MAX + 1] = "", limit[S_NUMBER_BYTES];
    s_vshards_text(self, vshards, sizeof vshards);
    snprintf(limit, sizeof limit, "%d", DKT_WAKE_ROWS_MAX);
    int count = DKT_WAKE_ROWS_MAX;
    while (count == DKT_WAKE_ROWS_MAX) {
        const char *params[] = {vshards, due, client, limit};
        PGresult *result =
            dkt_control_run(self->conn,
                            "select client_id, due_ms from wake where vshard = any ($1::integer[])"
                            " and (due_ms, client_id) > ($2::bigint, $3) order by due_ms, client_id"
                            " limit $4::integer",
                            4, params, err);
        if (!result) {
            return err->status;
        }
        count = PQntuples(result);
        s_give_rows(self, result, false);
        if (count > 0) {
            snprintf(client, sizeof client, "%s", PQgetvalue(result, count - 1, 0));
            snprintf(due, sizeof due, "%s", PQgetvalue(result, count - 1, 1));
        }
        PQclear(result);
    }
    memset(self->unread, 0, sizeof self->unread);
    self->any_unread = false;
    return DKT_OK;
}

/* One page per turn, so that no poll waits for it. A row that is further away than the next look is
 * no proof: it may be of an owner that could not mark the tenant active. */
static dkt_status_t s_list_unmarked(dkt_directory_t *self, dkt_err_t *err)
{
    char limit[S_NUMBER_BYTES], ahead[S_NUMBER_BYTES];
    snprintf(limit, sizeof limit, "%d", DKT_WAKE_ROWS_MAX);
    snprintf(ahead, sizeof ahead, "%lld", (long long)self->env->probe_ms);
    const char *params[] = {self->probe_cursor, ahead, limit};
    PGresult *result = dkt_control_run(
        self->conn,
        "select t.client_id, 0 from tenants t left join wake w on w.client_id = t.client_id"
        " where t.state = 'active' and t.client_id > $1 and (w.client_id is null"
        "   or w.due_ms > extract (epoch from clock_timestamp ()) * 1000 + $2::bigint)"
        " order by t.client_id limit $3::integer",
        3, params, err);
    if (!result) {
        return err->status;
    }
    int count = PQntuples(result);
    s_give_rows(self, result, true);
    self->probing = count == DKT_WAKE_ROWS_MAX;
    if (count > 0) {
        snprintf(self->probe_cursor, sizeof self->probe_cursor, "%s",
                 PQgetvalue(result, count - 1, 0));
    }
    PQclear(result);
    return DKT_OK;
}

dkt_status_t dkt_directory_wake(dkt_directory_t *self, dkt_err_t *err)
{
    dkt_status_t status = DKT_OK;
    while (self->conn && self->settles && status == DKT_OK) {
        status = s_write_settles(self, err);
    }
    if (self->conn && self->any_unread && status == DKT_OK) {
        status = s_read_rows(self, err);
    }
    if (self->conn && self->probing && status == DKT_OK) {
        status = s_list_unmarked(self, err);
    }
    return status;
}
