/* SPDX-License-Identifier: Apache-2.0
 *
 * The tables of an export as JSON lines. SQL makes the objects; what only the keys know (ids of
 * tickets) or only the code (events) is added here.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ops/export_impl.h"

#define S_PAGE      "500" /* rows: 5 MB at most, payloads of 8 KiB */
#define S_BAR_CHARS 30
#define S_SQL_BYTES 2048

/* "created_at": .., "created_ms": .. of a column. */
#define S_TIME(name, column)                                                                       \
    "'" name "_at', " DKT_EXPORT_UTC(column) ", '" name "_ms', docket_ms (" column "), "

/* -- progress -- */

static void s_progress(dkt_exporter_t *self, uint64_t number)
{
    uint64_t span = self->high > self->low ? self->high - self->low : 1;
    uint64_t done = number > self->low ? number - self->low : 0;
    int mille = (int)((done < span ? done : span) * 1000 / span);
    if (!self->options->progress || mille == self->bar) {
        return;
    }
    self->bar = mille;
    int full = mille * S_BAR_CHARS / 1000;
    fprintf(stderr, "\r%-8s [%.*s%.*s] %3d %%", self->label, full, "##############################",
            S_BAR_CHARS - full, "..............................", mille / 10);
}

static void s_begin_progress(dkt_exporter_t *self, const char *label, const char *low,
                             const char *high)
{
    self->label = label;
    self->low = strtoull(low, NULL, 10);
    self->high = strtoull(high, NULL, 10);
    self->bar = -1;
    s_progress(self, self->low);
}

void dkt_export_end_progress(const dkt_exporter_t *self)
{
    if (self->options->progress) {
        fprintf(stderr, "\r%*s\r", S_BAR_CHARS + 20, "");
    }
}

/* -- rows -- */

/* SQL gives the object; the ticket's id is known only to whoever has the keys. */
static dkt_status_t s_put_ticket(dkt_exporter_t *self, dkt_life_file_t *file, const PGresult *rows,
                                 int i, dkt_err_t *err)
{
    dkt_id_text_t id;
    char begin[sizeof id.text + 32];
    const char *object = PQgetvalue(rows, i, 1);
    (void)err;
    dkt_ticket_text(&self->keys, &self->client, strtoull(PQgetvalue(rows, i, 0), NULL, 10), &id);
    int len = snprintf(begin, sizeof begin, "{\"ticket_id\" : \"%s\", ", id.text);
    dkt_life_file_put(file, begin, (size_t)len);
    dkt_life_file_put(file, object + 1, strlen(object + 1));
    dkt_life_file_put(file, "\n", 1);
    return DKT_OK;
}

/* The events as they were published, in their order of publication. */
static dkt_status_t s_put_events(dkt_exporter_t *self, dkt_life_file_t *file, uint64_t seq,
                                 dkt_view_t row, dkt_err_t *err)
{
    const dkt_event_row_t whole = {.seq = seq, .events = row};
    uint32_t counts[DKT_EVENT_COUNT];
    bool good = dkt_event_count(row, counts);
    uint32_t messages = good ? dkt_event_messages(counts) : 0;
    for (uint32_t i = 0; good && i < messages; i++) {
        dkt_event_slice_t slice = dkt_event_slice(counts, i);
        good = dkt_event_batch(&self->keys, &self->client, &whole, &slice, &self->text);
        if (good) {
            assert(self->text.len >= 2); /* [..] */
            dkt_life_file_put(file, i > 0 ? "," : "", i > 0 ? 1 : 0);
            dkt_life_file_put(file, self->text.data + 1, self->text.len - 2);
        }
    }
    return good ? DKT_OK
                : dkt_fail(err, DKT_INTERNAL, NULL, "journal row %" PRIu64 " cannot be read", seq);
}

static dkt_status_t s_put_journal(dkt_exporter_t *self, dkt_life_file_t *file, const PGresult *rows,
                                  int i, dkt_err_t *err)
{
    char begin[256];
    size_t len = 0;
    unsigned char *events = PQunescapeBytea((const unsigned char *)PQgetvalue(rows, i, 4), &len);
    if (!events) {
        return dkt_fail(err, DKT_UNAVAILABLE, NULL, "no memory");
    }
    int begin_len = snprintf(begin, sizeof begin,
                             "{\"seq\" : %s, \"epoch\" : %s, \"at\" : \"%s\", \"at_ms\" : %s, "
                             "\"events\" : [",
                             PQgetvalue(rows, i, 0), PQgetvalue(rows, i, 1), PQgetvalue(rows, i, 2),
                             PQgetvalue(rows, i, 3));
    dkt_life_file_put(file, begin, (size_t)begin_len);
    dkt_view_t row = {.data = events, .len = (uint32_t)len};
    dkt_status_t status =
        s_put_events(self, file, strtoull(PQgetvalue(rows, i, 0), NULL, 10), row, err);
    PQfreemem(events);
    dkt_life_file_put(file, "]}\n", 3);
    return status;
}

static dkt_status_t s_put_object(dkt_exporter_t *self, dkt_life_file_t *file, const PGresult *rows,
                                 int i, dkt_err_t *err)
{
    const char *object = PQgetvalue(rows, i, 1);
    (void)self;
    (void)err;
    dkt_life_file_put(file, object, strlen(object));
    dkt_life_file_put(file, "\n", 1);
    return DKT_OK;
}

typedef dkt_status_t(s_put_fn)(dkt_exporter_t *self, dkt_life_file_t *file, const PGresult *rows,
                               int i, dkt_err_t *err);

typedef struct {
    const char *name, *range, *rows; /* range: smallest and greatest number; rows: the cursor's */
    s_put_fn *put;
} s_table_t;

static const s_table_t s_tables[] = {
    [DKT_EXPORT_TICKETS] =
        {"tickets", "select coalesce (min (id), 0), coalesce (max (id), 0) from tickets",
         "select id, json_build_object ('number', id, 'ticket_type', class, 'state',"
         " (array['open', 'dispatched', 'resolved', 'cancelled'])[state + 1],"
         " 'breached', breached, 'at_risk', at_risk, 'lane', lane, "
         "'slot_start', " DKT_EXPORT_UTC(
             "slot_start") ", 'slot_start_ms', docket_ms (slot_start),"
                           " 'deadline', " DKT_EXPORT_UTC(
                               "deadline") ", 'deadline_ms', docket_ms (deadline), " S_TIME("create"
                                                                                            "d",
                                                                                            "create"
                                                                                            "d_at")
                               S_TIME("dispatched", "dispatched_at") S_TIME("resolved",
                                                                            "resolved_at")
                                   S_TIME("cancelled",
                                          "cancelled_at") "'request_id', request_id, 'hold_nonce', "
                                                          "hold_nonce, 'subject', subject,"
                                                          " 'payload_base64', translate (encode "
                                                          "(payload, 'base64'), E'\\n', ''))"
                                                          " from tickets order by id",
         s_put_ticket},
    [DKT_EXPORT_JOURNAL] = {"journal",
                            "select coalesce (min (seq), 0), coalesce (max (seq), 0) from journal",
                            "select seq, epoch, " DKT_EXPORT_UTC(
                                "at") ", docket_ms (at), events from journal"
                                      " order by seq",
                            s_put_journal},
    [DKT_EXPORT_CHANGES] =
        {"changes", "select coalesce (min (seq), 0), coalesce (max (seq), 0) from changes",
         "select seq, json_build_object ('seq', seq, 'at', " DKT_EXPORT_UTC(
             "at") ", 'at_ms',"
                   " docket_ms (at), 'action', action, 'detail', detail) from changes"
                   " order by seq",
         s_put_object},
};

static dkt_status_t s_put_pages(dkt_exporter_t *self, const s_table_t *table, dkt_life_file_t *file,
                                uint64_t *written, dkt_err_t *err)
{
    dkt_status_t status = DKT_OK;
    int count = 1;
    while (status == DKT_OK && count > 0) {
        PGresult *rows =
            dkt_control_run(self->tenant, "fetch " S_PAGE " from export_rows", 0, NULL, err);
        count = rows ? PQntuples(rows) : 0;
        status = rows ? DKT_OK : err->status;
        for (int i = 0; i < count && status == DKT_OK; i++) {
            status = table->put(self, file, rows, i, err);
            (*written)++;
        }
        if (count > 0) {
            s_progress(self, strtoull(PQgetvalue(rows, count - 1, 0), NULL, 10));
        }
        PQclear(rows);
    }
    return status;
}

static dkt_status_t s_begin_table(dkt_exporter_t *self, const s_table_t *table, dkt_err_t *err)
{
    PGresult *range = dkt_control_run(self->tenant, table->range, 0, NULL, err);
    if (!range) {
        return err->status;
    }
    s_begin_progress(self, table->name, PQgetvalue(range, 0, 0), PQgetvalue(range, 0, 1));
    PQclear(range);
    char sql[S_SQL_BYTES];
    int len = snprintf(sql, sizeof sql, "declare export_rows no scroll cursor for %s", table->rows);
    assert(len > 0 && len < (int)sizeof sql);
    return dkt_control_exec(self->tenant, sql, 0, NULL, err);
}

dkt_status_t dkt_export_table(dkt_exporter_t *self, int index, dkt_err_t *err)
{
    const s_table_t *table = &s_tables[index];
    dkt_export_file_t *entry = &self->files[index];
    dkt_life_file_t file;
    snprintf(entry->name, sizeof entry->name, "%s.%s.jsonl", table->name, self->stamp);
    dkt_status_t status = s_begin_table(self, table, err);
    if (status == DKT_OK) {
        status = dkt_life_file_open(&file, self->folder_fd, entry->name, err);
    }
    if (status == DKT_OK) {
        status = s_put_pages(self, table, &file, &entry->rows, err);
        status = dkt_export_end_file(&file, status, entry, err);
    }
    return status == DKT_OK ? dkt_control_exec(self->tenant, "close export_rows", 0, NULL, err)
                            : status;
}
