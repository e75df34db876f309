/* SPDX-License-Identifier: Apache-2.0
 *
 * Tenant context out of the control database. A number of the feed is an exact state: the feed's
 * head is locked until the change that took the number commits, so a snapshot that shows number N
 * shows all changes up to N and none behind it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <sodium.h>

#include "lib/core/gate.h"
#include "lib/edge/clock.h"
#include "lib/edge/control.h"
#include "lib/edge/log.h"
#include "workers/context_internal.h"
#include "workers/context_row.h"
#include "workers/directory_internal.h"

#define S_RECONNECT_BASE_MS 100
#define S_RECONNECT_CAP_MS  1000
#define S_NUMBER_BYTES      24
#define S_DECIMAL           10

/* -- session -- */

void dkt_context_close(dkt_context_thread_t *self)
{
    PQfinish(self->conn);
    self->conn = NULL;
}

dkt_status_t dkt_context_session(dkt_context_thread_t *self, dkt_err_t *err)
{
    char who[64];
    if (self->conn && PQstatus(self->conn) == CONNECTION_OK) {
        return DKT_OK;
    }
    dkt_context_close(self);
    if (dkt_clock_mono_ms() < self->connect_mono_ms) {
        return dkt_fail(err, DKT_UNAVAILABLE, NULL, "the control database cannot be reached");
    }
    snprintf(who, sizeof who, "%s/context", self->env->node);
    self->conn = dkt_control_connect(self->env->uri, NULL, who, err);
    if (self->conn) {
        self->connect_failures = 0;
        return DKT_OK;
    }
    self->connect_failures++;
    self->connect_mono_ms =
        dkt_clock_mono_ms() + dkt_backoff_ms(self->connect_failures, S_RECONNECT_BASE_MS,
                                             S_RECONNECT_CAP_MS, randombytes_random());
    return err->status;
}

/* -- rows -- */

static uint64_t s_number(const PGresult *result, int row, int column)
{
    return strtoull(PQgetvalue(result, row, column), NULL, S_DECIMAL);
}

/* The table's encoding out of the message that `vshards` keeps; empty: there is none yet. */
static dkt_view_t s_read_table(const PGresult *result, int row, int column, uint8_t *bytes)
{
    size_t len = 0;
    dkt_link_header_t header;
    dkt_r_t r;
    dkt_view_t view = {.data = NULL, .len = 0};
    dkt_table_t *table = dkt_mail_alloc(sizeof *table);
    unsigned char *body =
        PQunescapeBytea((const unsigned char *)PQgetvalue(result, row, column), &len);
    if (body && len > 0 && dkt_link_open(&r, body, len, &header) && dkt_link_get_table(&r, table) &&
        dkt_link_end(&r)) {
        dkt_w_t w = dkt_w_init(bytes, DKT_CONTEXT_TABLE_BYTES_MAX);
        dkt_link_put_table(&w, table);
        view = (dkt_view_t){.data = bytes, .len = w.failed ? 0 : (uint32_t)w.len};
    }
    PQfreemem(body);
    free(table);
    return view;
}

/* -- the whole -- */

static void s_step(dkt_context_thread_t *self, dkt_context_event_t event)
{
    dkt_context_out_t out;
    dkt_replica_step(self->env->replica, event, &out);
}

static dkt_status_t s_pull_pages(dkt_context_thread_t *self, dkt_err_t *err)
{
    char after[DKT_ID_CHARS_MAX + 1] = "", limit[S_NUMBER_BYTES];
    int count = DKT_CONTEXT_PAGE_ROWS;
    snprintf(limit, sizeof limit, "%d", DKT_CONTEXT_PAGE_ROWS);
    while (count == DKT_CONTEXT_PAGE_ROWS) {
        const char *params[] = {after, limit};
        PGresult *result =
            dkt_control_run(self->conn,
                            "select" DKT_CONTEXT_COLUMNS " from tenants t join clusters c on"
                            " c.name = t.cluster where t.state = 'active' and t.client_id > $1"
                            " order by t.client_id limit $2::integer",
                            2, params, err);
        if (!result) {
            return err->status;
        }
        count = PQntuples(result);
        for (int i = 0; i < count; i++) {
            uint8_t bytes[DKT_CONTEXT_RECORD_BYTES_MAX];
            dkt_context_record_t record;
            dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
            if (dkt_context_read_row(result, i, 0, &record)) {
                dkt_context_put_record(&w, &record);
                s_step(self, (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_RECORD,
                                                   .body = {bytes, (uint32_t)w.len}});
            }
        }
        if (count > 0) {
            snprintf(after, sizeof after, "%s", PQgetvalue(result, count - 1, 0));
        }
        PQclear(result);
    }
    return DKT_OK;
}

/* Is the replica exactly there? A table is compared as well: an older leader changes it without a
 * number. */
static bool s_is_same(dkt_context_thread_t *self, dkt_context_version_t version, dkt_view_t table)
{
    dkt_context_info_t info;
    const dkt_context_t *context = dkt_replica_lock(self->env->replica);
    dkt_view_t own = dkt_context_table_bytes(context);
    dkt_context_info(context, &info);
    bool same = info.version.epoch > 0 && info.version.seq == version.seq &&
                info.version.epoch <= version.epoch && own.len == table.len &&
                (own.len == 0 || memcmp(own.data, table.data, own.len) == 0);
    dkt_replica_unlock(self->env->replica);
    return same;
}

static dkt_status_t s_pull_snapshot(dkt_context_thread_t *self, bool whole, dkt_err_t *err)
{
    uint8_t bytes[DKT_CONTEXT_TABLE_BYTES_MAX];
    PGresult *result = dkt_control_run(
        self->conn, "select l.epoch, h.seq, v.body from leader l, feed_head h, vshards v", 0, NULL,
        err);
    if (!result) {
        return err->status;
    }
    dkt_context_version_t version = {s_number(result, 0, 0), s_number(result, 0, 1)};
    dkt_view_t table = s_read_table(result, 0, 2, bytes);
    PQclear(result);
    if (!whole && s_is_same(self, version, table)) {
        s_step(self, (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_SAME, .version = version});
        return DKT_OK;
    }
    s_step(self, (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_BEGIN, .version = version});
    if (table.len > 0) {
        s_step(self, (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_TABLE, .body = table});
    }
    dkt_status_t status = s_pull_pages(self, err);
    if (status == DKT_OK) {
        s_step(self, (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_END});
    }
    return status;
}

dkt_status_t dkt_context_pull(dkt_context_thread_t *self, bool whole, dkt_err_t *err)
{
    dkt_status_t status = dkt_context_session(self, err);
    if (status == DKT_OK) {
        status = dkt_control_exec(self->conn, "begin isolation level repeatable read read only", 0,
                                  NULL, err);
    }
    if (status == DKT_OK) {
        status = s_pull_snapshot(self, whole, err);
    }
    if (status == DKT_OK) {
        status = dkt_control_exec(self->conn, "commit", 0, NULL, err);
    }
    if (status != DKT_OK) {
        dkt_context_close(self); /* whatever the transaction was about */
        s_step(self, (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_FAILED});
    }
    return status;
}

/* -- the feed -- */

/* One row for each tenant that was changed, with the number of its last change, and one for all the
 * rest. A tenant is read as it is now, which is as it was after that change. */
static const char s_tail_sql[] =
    "with f as materialized (select body ->> 'client_id' as client_id, max (seq) as seq,"
    "   count (*) as rows, bool_or (body ? 'cluster' and not body ? 'client_id') as moved"
    "   from feed where seq > $1::bigint group by 1)"
    " select f.client_id, f.seq, f.rows, f.moved,"
    "        case when f.client_id is null then (select body from vshards) end," DKT_CONTEXT_COLUMNS
    "   from f left join tenants t on t.client_id = f.client_id and t.state = 'active'"
    "   left join clusters c on c.name = t.cluster order by f.seq";
enum { S_TAIL_CLIENT, S_TAIL_SEQ, S_TAIL_ROWS, S_TAIL_MOVED, S_TAIL_TABLE, S_TAIL_COLUMNS };

/* Fills `news` from a row of the tail; its body is in `bytes`. */
static bool s_make_news(const PGresult *result, int row, uint8_t *bytes, dkt_context_news_t *news)
{
    dkt_context_record_t record;
    const char *client = PQgetvalue(result, row, S_TAIL_CLIENT);
    news->format = DKT_CONTEXT_FORMAT;
    if (PQgetisnull(result, row, S_TAIL_CLIENT)) {
        news->kind = DKT_CONTEXT_TABLE;
        news->body = s_read_table(result, row, S_TAIL_TABLE, bytes);
        return news->body.len > 0;
    }
    if (!dkt_client_parse(client, (uint32_t)strlen(client), &news->client)) {
        return false;
    }
    news->kind = DKT_CONTEXT_GONE;
    if (PQgetisnull(result, row, S_TAIL_COLUMNS)) {
        return true;
    }
    dkt_w_t w = dkt_w_init(bytes, DKT_CONTEXT_RECORD_BYTES_MAX);
    if (!dkt_context_read_row(result, row, S_TAIL_COLUMNS, &record)) {
        return false;
    }
    dkt_context_put_record(&w, &record);
    news->kind = DKT_CONTEXT_RECORD;
    news->body = (dkt_view_t){.data = bytes, .len = (uint32_t)w.len};
    return !w.failed;
}

/* A head that the replica cannot fit: it doubts, and pulls. */
static void s_tell_head(dkt_context_thread_t *self, dkt_context_version_t version)
{
    dkt_context_news_t head = {.kind = DKT_CONTEXT_HEAD, .version = version, .prev = version.seq};
    dkt_context_thread_tell(self, &head);
}

static void s_take_tail(dkt_context_thread_t *self, const PGresult *result,
                        dkt_context_version_t from, dkt_context_version_t to,
                        dkt_context_said_fn *said)
{
    uint64_t rows = 0;
    bool moved = false;
    for (int i = 0; i < PQntuples(result); i++) {
        rows += s_number(result, i, S_TAIL_ROWS);
        moved = moved || dkt_directory_is_true(result, i, S_TAIL_MOVED);
    }
    if (moved || rows != to.seq - from.seq) {
        s_tell_head(self, to); /* many tenants live elsewhere, or rows are gone for their age */
        return;
    }
    uint64_t prev = from.seq;
    for (int i = 0; i < PQntuples(result); i++) {
        uint8_t bytes[DKT_CONTEXT_TABLE_BYTES_MAX];
        dkt_context_news_t news = {.version = {to.epoch, s_number(result, i, S_TAIL_SEQ)},
                                   .prev = prev};
        if (!s_make_news(result, i, bytes, &news)) {
            dkt_log(DKT_LOG_ERROR, "change %llu of tenant context cannot be read",
                    (unsigned long long)news.version.seq);
            s_tell_head(self, to);
            return;
        }
        dkt_context_thread_tell(self, &news);
        said(self, &news);
        prev = news.version.seq;
    }
}

static dkt_status_t s_read_tail(dkt_context_thread_t *self, dkt_context_version_t from,
                                dkt_context_version_t to, dkt_context_said_fn *said, dkt_err_t *err)
{
    char seq[S_NUMBER_BYTES];
    snprintf(seq, sizeof seq, "%llu", (unsigned long long)from.seq);
    const char *params[] = {seq};
    if (to.seq - from.seq > DKT_CONTEXT_TAIL_ROWS_MAX) {
        s_tell_head(self, to);
        return DKT_OK;
    }
    PGresult *result = dkt_control_run(self->conn, s_tail_sql, 1, params, err);
    if (!result) {
        return err->status;
    }
    /* The head was read before: rows that came since are left for the next look. */
    int last = PQntuples(result) - 1;
    if (last >= 0 && s_number(result, last, S_TAIL_SEQ) > to.seq) {
        to.seq = s_number(result, last, S_TAIL_SEQ);
    }
    s_take_tail(self, result, from, to, said);
    PQclear(result);
    return DKT_OK;
}

dkt_status_t dkt_context_tail(dkt_context_thread_t *self, dkt_context_said_fn *said, bool *leads,
                              dkt_err_t *err)
{
    char own[DKT_UUID_TEXT_BYTES];
    dkt_context_info_t info;
    *leads = false;
    dkt_status_t status = dkt_context_session(self, err);
    if (status != DKT_OK) {
        return status;
    }
    dkt_directory_uuid(&self->env->incarnation, own);
    const char *params[] = {own};
    PGresult *result =
        dkt_control_run(self->conn,
                        "select l.epoch, h.seq, coalesce (l.incarnation = $1::uuid, false)"
                        " from leader l, feed_head h",
                        1, params, err);
    if (!result) {
        dkt_context_close(self);
        return err->status;
    }
    dkt_context_version_t to = {s_number(result, 0, 0), s_number(result, 0, 1)};
    *leads = dkt_directory_is_true(result, 0, 2);
    PQclear(result);
    dkt_replica_info(self->env->replica, &info);
    if (!*leads || info.state != DKT_CONTEXT_CURRENT) {
        return DKT_OK; /* its own doubt comes first */
    }
    if (info.version.epoch != to.epoch || info.version.seq > to.seq) {
        s_tell_head(self, to);
    } else if (info.version.seq < to.seq) {
        status = s_read_tail(self, info.version, to, said, err);
    } else {
        s_step(self, (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_SAME, .version = to});
    }
    if (status != DKT_OK) {
        dkt_context_close(self);
        *leads = false;
    }
    return status;
}
