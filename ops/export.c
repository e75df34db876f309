/* SPDX-License-Identifier: Apache-2.0
 *
 * One tenant as files, from one repeatable-read snapshot of its database: the owner goes on writing
 * and waits for nothing. Rows come through a cursor, so memory is bounded by a page of them.
 *
 *   DIR/manifest.json         names the files of one whole export, with their hashes
 *   DIR/tickets.STAMP.jsonl   DIR/journal.STAMP.jsonl   DIR/settings.STAMP.json
 *   DIR/account.STAMP.json
 *
 * Every file is written as NAME.part and renamed when it is on the disk; the manifest is the last.
 * Until then the one before it stands, with its own files: at each moment the manifest names a
 * whole export, or there is none. Files that it does not name are removed at the end.
 */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/core/event.h"
#include "ops/life.h"

#define S_FORMAT      "docket-export/1"
#define S_MANIFEST    "manifest.json"
#define S_PAGE        "500" /* rows: 5 MB at most, payloads of 8 KiB */
#define S_BAR_CHARS   30
#define S_STAMP_BYTES 40
#define S_SQL_BYTES   2048
#define S_SESSION                                                                                  \
    "set statement_timeout = '10min'; set idle_in_transaction_session_timeout = '10min';"          \
    "begin isolation level repeatable read read only"

/* "created_at": .., "created_ms": .. of a column. */
#define S_UTC(column) "to_char (" column " at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
#define S_TIME(name, column)                                                                       \
    "'" name "_at', " S_UTC(column) ", '" name "_ms', docket_ms (" column "), "

typedef struct {
    char name[64], sha256[DKT_SHA256_HEX_BYTES];
    uint64_t rows, bytes;
} s_file_t;

enum { S_TICKETS, S_JOURNAL, S_SETTINGS, S_ACCOUNT, S_FILES };

typedef struct {
    const dkt_export_t *options;
    PGconn *control, *tenant;
    int folder_fd;
    dkt_keyring_t keys;
    dkt_client_t client;
    char database[64];
    char stamp[S_STAMP_BYTES];  /* of the snapshot, as it is in file names */
    json_t *manifest, *context; /* context: what the control database has of the tenant */
    s_file_t files[S_FILES];
    dkt_text_buf_t text; /* of one row's events */
    const char *label;
    uint64_t low, high; /* of the numbers of the rows that are being written */
    int bar;            /* per mille that was drawn last; -1: nothing */
} s_export_t;

/* -- the folder -- */

/* Is it a file that an export leaves or makes? */
static bool s_is_ours(const char *name)
{
    static const char *const kinds[] = {"tickets.", "journal.", "settings.", "account."};
    if (strcmp(name, S_MANIFEST) == 0 || strcmp(name, S_MANIFEST ".part") == 0) {
        return true;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strncmp(name, kinds[i], strlen(kinds[i])) == 0) {
            return strstr(name, ".json") != NULL;
        }
    }
    return false;
}

/* The manifest that is there must be of the same tenant: another's data is never replaced. */
static dkt_status_t s_check_manifest(const s_export_t *self, dkt_err_t *err)
{
    int fd = openat(self->folder_fd, S_MANIFEST, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return DKT_OK;
    }
    json_t *manifest = json_loadfd(fd, 0, NULL);
    const char *format = json_string_value(json_object_get(manifest, "format"));
    const char *client = json_string_value(json_object_get(manifest, "client_id"));
    bool same = format && client && strcmp(format, S_FORMAT) == 0 &&
                strcmp(client, self->options->client_id) == 0;
    close(fd);
    json_decref(manifest);
    return same ? DKT_OK
                : dkt_fail(err, DKT_CONFLICT, NULL, "%s holds the export of another tenant",
                           self->options->out);
}

static dkt_status_t s_open_folder(s_export_t *self, dkt_err_t *err)
{
    const char *out = self->options->out;
    if (mkdir(out, 0700) != 0 && errno != EEXIST) {
        return dkt_fail(err, DKT_INTERNAL, NULL, "cannot create %s: %s", out, strerror(errno));
    }
    self->folder_fd = open(out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (self->folder_fd < 0) {
        return dkt_fail(err, DKT_INTERNAL, NULL, "cannot open %s: %s", out, strerror(errno));
    }
    if (flock(self->folder_fd, LOCK_EX | LOCK_NB) != 0) {
        return dkt_fail(err, DKT_CONFLICT, NULL, "another export writes into %s", out);
    }
    DIR *stream = opendir(out);
    const char *foreign = NULL;
    char name[DKT_LIFE_NAME_BYTES];
    for (const struct dirent *entry; stream && !foreign && (entry = readdir(stream));) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            !s_is_ours(entry->d_name)) {
            snprintf(name, sizeof name, "%s", entry->d_name);
            foreign = name;
        }
    }
    if (stream) {
        closedir(stream);
    }
    return foreign ? dkt_fail(err, DKT_CONFLICT, NULL,
                              "%s is not empty and no export's folder: there is %s", out, foreign)
                   : s_check_manifest(self, err);
}

static bool s_is_named(const s_export_t *self, const char *name)
{
    bool named = strcmp(name, S_MANIFEST) == 0;
    for (int i = 0; i < S_FILES; i++) {
        named = named || strcmp(name, self->files[i].name) == 0;
    }
    return named;
}

/* What older exports and interrupted ones left. */
static void s_tidy(const s_export_t *self)
{
    DIR *stream = opendir(self->options->out);
    for (const struct dirent *entry; stream && (entry = readdir(stream));) {
        if (s_is_ours(entry->d_name) && !s_is_named(self, entry->d_name)) {
            (void)unlinkat(self->folder_fd, entry->d_name, 0);
        }
    }
    if (stream) {
        closedir(stream);
    }
}

/* -- progress -- */

static void s_progress(s_export_t *self, uint64_t number)
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

static void s_begin_progress(s_export_t *self, const char *label, const char *low, const char *high)
{
    self->label = label;
    self->low = strtoull(low, NULL, 10);
    self->high = strtoull(high, NULL, 10);
    self->bar = -1;
    s_progress(self, self->low);
}

static void s_end_progress(const s_export_t *self)
{
    if (self->options->progress) {
        fprintf(stderr, "\r%*s\r", S_BAR_CHARS + 20, "");
    }
}

/* -- rows -- */

/* SQL gives the object; the ticket's id is known only to whoever has the keys. */
static dkt_status_t s_put_ticket(s_export_t *self, dkt_life_file_t *file, const PGresult *rows,
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
static dkt_status_t s_put_events(s_export_t *self, dkt_life_file_t *file, uint64_t seq,
                                 dkt_view_t row, dkt_err_t *err)
{
    uint32_t counts[DKT_EVENT_COUNT];
    bool good = dkt_event_count(row, counts);
    uint32_t messages = good ? dkt_event_messages(counts) : 0;
    for (uint32_t i = 0; good && i < messages; i++) {
        dkt_event_slice_t slice = dkt_event_slice(counts, i);
        good = dkt_event_batch(&self->keys, &self->client, seq, row, &slice, &self->text);
        if (good) {
            assert(self->text.len >= 2); /* [..] */
            dkt_life_file_put(file, i > 0 ? "," : "", i > 0 ? 1 : 0);
            dkt_life_file_put(file, self->text.data + 1, self->text.len - 2);
        }
    }
    return good ? DKT_OK
                : dkt_fail(err, DKT_INTERNAL, NULL, "journal row %" PRIu64 " cannot be read", seq);
}

static dkt_status_t s_put_journal(s_export_t *self, dkt_life_file_t *file, const PGresult *rows,
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

typedef dkt_status_t(s_put_fn)(s_export_t *self, dkt_life_file_t *file, const PGresult *rows, int i,
                               dkt_err_t *err);

typedef struct {
    const char *name, *range, *rows; /* range: smallest and greatest number; rows: the cursor's */
    s_put_fn *put;
} s_table_t;

static const s_table_t s_tables[] = {
    [S_TICKETS] =
        {"tickets", "select coalesce (min (id), 0), coalesce (max (id), 0) from tickets",
         "select id, json_build_object ('number', id, 'ticket_type', class, 'state',"
         " (array['open', 'dispatched', 'resolved', 'cancelled'])[state + 1],"
         " 'breached', breached, 'at_risk', at_risk, 'lane', lane, "
         "'slot_start', " S_UTC(
             "slot_start") ", 'slot_start_ms', docket_ms (slot_start),"
                           " 'deadline', " S_UTC(
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
    [S_JOURNAL] = {"journal",
                   "select coalesce (min (seq), 0), coalesce (max (seq), 0) from journal",
                   "select seq, epoch, " S_UTC("at") ", docket_ms (at), events from journal"
                                                     " order by seq",
                   s_put_journal},
};

static dkt_status_t s_put_pages(s_export_t *self, const s_table_t *table, dkt_life_file_t *file,
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

static dkt_status_t s_begin_table(s_export_t *self, const s_table_t *table, dkt_err_t *err)
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

static dkt_status_t s_end_file(dkt_life_file_t *file, dkt_status_t status, s_file_t *entry,
                               dkt_err_t *err)
{
    entry->bytes = file->bytes;
    if (status == DKT_OK) {
        return dkt_life_file_finish(file, entry->sha256, err);
    }
    dkt_life_file_drop(file);
    return status;
}

static dkt_status_t s_write_table(s_export_t *self, int index, dkt_err_t *err)
{
    const s_table_t *table = &s_tables[index];
    s_file_t *entry = &self->files[index];
    dkt_life_file_t file;
    snprintf(entry->name, sizeof entry->name, "%s.%s.jsonl", table->name, self->stamp);
    dkt_status_t status = s_begin_table(self, table, err);
    if (status == DKT_OK) {
        status = dkt_life_file_open(&file, self->folder_fd, entry->name, err);
    }
    if (status == DKT_OK) {
        status = s_put_pages(self, table, &file, &entry->rows, err);
        status = s_end_file(&file, status, entry, err);
    }
    return status == DKT_OK ? dkt_control_exec(self->tenant, "close export_rows", 0, NULL, err)
                            : status;
}

/* -- small files -- */

static dkt_status_t s_write_json(s_export_t *self, const char *name, const json_t *object,
                                 s_file_t *entry, dkt_err_t *err)
{
    dkt_life_file_t file;
    char *text = json_dumps(object, JSON_INDENT(2));
    snprintf(entry->name, sizeof entry->name, "%s", name);
    entry->rows = 1;
    dkt_status_t status = text ? dkt_life_file_open(&file, self->folder_fd, name, err)
                               : dkt_fail(err, DKT_UNAVAILABLE, NULL, "no memory");
    if (status == DKT_OK) {
        dkt_life_file_put(&file, text, strlen(text));
        dkt_life_file_put(&file, "\n", 1);
        status = s_end_file(&file, DKT_OK, entry, err);
    }
    free(text);
    return status;
}

/* The object that a query gives, in the snapshot. */
static dkt_status_t s_object(PGconn *conn, const char *sql, int count, const char *const *params,
                             json_t **object, dkt_err_t *err)
{
    char *text = NULL;
    dkt_status_t status = dkt_life_text(conn, sql, count, params, &text, err);
    *object = text ? json_loads(text, 0, NULL) : NULL;
    free(text);
    if (status == DKT_OK && !*object) {
        status = dkt_fail(err, DKT_NOT_FOUND, NULL, "there is no such tenant");
    }
    return status;
}

static dkt_status_t s_write_object(s_export_t *self, int index, const char *name, const char *sql,
                                   json_t *more, dkt_err_t *err)
{
    char file[64];
    json_t *object = NULL;
    dkt_status_t status = s_object(self->tenant, sql, 0, NULL, &object, err);
    snprintf(file, sizeof file, "%s.%s.json", name, self->stamp);
    if (status == DKT_OK) {
        json_object_update_missing(object, more);
        status = s_write_json(self, file, object, &self->files[index], err);
    }
    json_decref(object);
    return status;
}

static dkt_status_t s_write_small(s_export_t *self, dkt_err_t *err)
{
    json_t *nothing = json_object();
    dkt_status_t status = s_write_object(
        self, S_SETTINGS, "settings",
        "select json_build_object ('resolvers', resolvers, 'rebooking', rebooking,"
        " 'retention_days', retention_days, 'classes', (select json_agg (json_build_object ("
        "   'name', name, 'level_minutes', level_minutes, 'limit_permille', limit_permille)"
        "   order by level_minutes, name) from classes)) from settings",
        nothing, err);
    json_decref(nothing);
    /* Everything but the password's hash. */
    return status == DKT_OK
               ? s_write_object(self, S_ACCOUNT, "account",
                                "select json_build_object ('name', name, 'email', email,"
                                " 'sub_domain', sub_domain, 'tokens_valid_from', " //
                                S_UTC("tokens_valid_from") ") from account",
                                self->context, err)
               : status;
}

/* -- begin and end -- */

static dkt_status_t s_connect(s_export_t *self, dkt_err_t *err)
{
    const char *params[] = {self->options->client_id};
    const char *uri = self->options->where->uri;
    self->control = dkt_control_connect(uri, NULL, "export", err);
    if (!self->control) {
        return err->status;
    }
    dkt_status_t status =
        s_object(self->control,
                 "select json_build_object ('client_id', client_id, 'cluster',"
                 " cluster, 'database', database, 'suspended', suspended,"
                 " 'created_at', " S_UTC(
                     "created_at") ") from tenants"
                                   " where client_id = $1 and state in ('active', 'deleting')",
                 1, params, &self->context, err);
    if (status != DKT_OK) {
        return status;
    }
    snprintf(self->database, sizeof self->database, "%s",
             json_string_value(json_object_get(self->context, "database")));
    self->tenant = dkt_control_connect(uri, self->database, "export", err);
    return self->tenant ? DKT_OK : err->status;
}

/* The first query fixes the snapshot. */
static dkt_status_t s_begin(s_export_t *self, dkt_err_t *err)
{
    dkt_status_t status = dkt_control_exec(self->tenant, S_SESSION, 0, NULL, err);
    if (status != DKT_OK) {
        return status;
    }
    status = s_object(
        self->tenant,
        "select json_build_object ('format', '" S_FORMAT "',"
        " 'docket', '" DKT_VERSION "', 'snapshot_at', " S_UTC(
            "clock_timestamp ()") ", 'snapshot_ms', docket_ms (clock_timestamp ()), "
                                  "'schema_version',"
                                  " (select max (version) from schema_version), 'epoch', (select "
                                  "epoch"
                                  " from owner), 'journal_seq', (select max (seq) from journal))",
        0, NULL, &self->manifest, err);
    if (status != DKT_OK) {
        return status;
    }
    json_object_set_new(self->manifest, "client_id", json_string(self->options->client_id));
    size_t len = 0;
    const char *at = json_string_value(json_object_get(self->manifest, "snapshot_at"));
    for (; *at && len < sizeof self->stamp - 1; at++) {
        if (*at != '-' && *at != ':') {
            self->stamp[len++] = *at;
        }
    }
    self->stamp[len] = '\0';
    return DKT_OK;
}

static json_t *s_files_json(const s_export_t *self)
{
    json_t *files = json_array();
    for (int i = 0; i < S_FILES; i++) {
        const s_file_t *entry = &self->files[i];
        json_array_append_new(files, json_pack("{s:s, s:I, s:I, s:s}", "name", entry->name, "rows",
                                               (json_int_t)entry->rows, "bytes",
                                               (json_int_t)entry->bytes, "sha256", entry->sha256));
    }
    return files;
}

/* Who took a tenant's data is on record before the data counts as taken. */
static dkt_status_t s_audit(s_export_t *self, const char *sha256, dkt_err_t *err)
{
    const char *at = json_string_value(json_object_get(self->manifest, "snapshot_at"));
    char tickets[24];
    snprintf(tickets, sizeof tickets, "%" PRIu64, self->files[S_TICKETS].rows);
    const char *params[] = {self->options->where->actor, self->options->client_id, sha256, at,
                            tickets};
    return dkt_control_exec(self->control,
                            "select audit_append ($1, 'export_tenant', $2, jsonb_build_object ("
                            " 'manifest', $3::text, 'snapshot_at', $4::text,"
                            " 'tickets', $5::bigint))",
                            5, params, err);
}

static dkt_status_t s_write_manifest(s_export_t *self, dkt_exported_t *done, dkt_err_t *err)
{
    dkt_life_file_t file;
    uint8_t hash[crypto_hash_sha256_BYTES];
    json_object_set_new(self->manifest, "files", s_files_json(self));
    char *text = json_dumps(self->manifest, JSON_INDENT(2) | JSON_SORT_KEYS);
    if (!text) {
        return dkt_fail(err, DKT_UNAVAILABLE, NULL, "no memory");
    }
    crypto_hash_sha256(hash, (const uint8_t *)text, strlen(text));
    sodium_bin2hex(done->sha256, sizeof done->sha256, hash, sizeof hash);
    dkt_status_t status = s_audit(self, done->sha256, err);
    if (status == DKT_OK) {
        status = dkt_life_file_open(&file, self->folder_fd, S_MANIFEST, err);
    }
    if (status == DKT_OK) {
        dkt_life_file_put(&file, text, strlen(text));
        status = dkt_life_file_finish(&file, NULL, err);
    }
    free(text);
    return status;
}

static dkt_status_t s_run(s_export_t *self, dkt_exported_t *done, dkt_err_t *err)
{
    const char *client_id = self->options->client_id;
    if (!dkt_client_parse(client_id, (uint32_t)strlen(client_id), &self->client)) {
        return dkt_fail(err, DKT_NOT_FOUND, NULL, "there is no such tenant");
    }
    dkt_status_t status = dkt_keys_ids(self->options->where->keys_folder, &self->keys, err);
    if (status == DKT_OK) {
        status = s_connect(self, err);
    }
    if (status == DKT_OK) {
        status = s_open_folder(self, err);
    }
    if (status == DKT_OK) {
        status = s_begin(self, err);
    }
    for (int i = S_TICKETS; i <= S_JOURNAL && status == DKT_OK; i++) {
        status = s_write_table(self, i, err);
    }
    s_end_progress(self);
    if (status == DKT_OK) {
        status = s_write_small(self, err);
    }
    if (status == DKT_OK) {
        status = s_write_manifest(self, done, err);
    }
    if (status == DKT_OK) {
        s_tidy(self);
    }
    return status;
}

dkt_status_t dkt_export_run(const dkt_export_t *options, dkt_exported_t *done, dkt_err_t *err)
{
    s_export_t self = {.options = options, .folder_fd = -1};
    memset(done, 0, sizeof *done);
    dkt_status_t status = s_run(&self, done, err);
    done->tickets = self.files[S_TICKETS].rows;
    done->journal = self.files[S_JOURNAL].rows;
    for (int i = 0; i < S_FILES; i++) {
        done->bytes += self.files[i].bytes;
    }
    PQfinish(self.tenant);
    PQfinish(self.control);
    json_decref(self.manifest);
    json_decref(self.context);
    free(self.text.data);
    if (self.folder_fd >= 0) {
        close(self.folder_fd);
    }
    sodium_memzero(&self.keys, sizeof self.keys);
    return status;
}
