/* SPDX-License-Identifier: Apache-2.0
 *
 * One tenant as files, from one repeatable-read snapshot of its database: the owner goes on writing
 * and waits for nothing. Rows come through a cursor, so memory is bounded by a page of them.
 *
 *   DIR/manifest.json         names the files of one whole export, with their hashes
 *   DIR/tickets.STAMP.jsonl   DIR/journal.STAMP.jsonl   DIR/changes.STAMP.jsonl
 *   DIR/settings.STAMP.json   DIR/account.STAMP.json
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

#include "ops/export_impl.h"

#define S_FORMAT   "docket-export/1"
#define S_MANIFEST "manifest.json"
#define S_SESSION                                                                                  \
    "set statement_timeout = '10min'; set idle_in_transaction_session_timeout = '10min';"          \
    "begin isolation level repeatable read read only"

/* -- the folder -- */

/* Is it a file that an export leaves or makes? */
static bool s_is_ours(const char *name)
{
    static const char *const kinds[] = {"tickets.", "journal.", "changes.", "settings.",
                                        "account."};
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
static dkt_status_t s_check_manifest(const dkt_exporter_t *self, dkt_err_t *err)
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

static dkt_status_t s_open_folder(dkt_exporter_t *self, dkt_err_t *err)
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

static bool s_is_named(const dkt_exporter_t *self, const char *name)
{
    bool named = strcmp(name, S_MANIFEST) == 0;
    for (int i = 0; i < DKT_EXPORT_FILES; i++) {
        named = named || strcmp(name, self->files[i].name) == 0;
    }
    return named;
}

/* What older exports and interrupted ones left. */
static void s_tidy(const dkt_exporter_t *self)
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

/* -- small files -- */

dkt_status_t dkt_export_end_file(dkt_life_file_t *file, dkt_status_t status,
                                 dkt_export_file_t *entry, dkt_err_t *err)
{
    entry->bytes = file->bytes;
    if (status == DKT_OK) {
        return dkt_life_file_finish(file, entry->sha256, err);
    }
    dkt_life_file_drop(file);
    return status;
}

static dkt_status_t s_write_json(dkt_exporter_t *self, const char *name, const json_t *object,
                                 dkt_export_file_t *entry, dkt_err_t *err)
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
        status = dkt_export_end_file(&file, DKT_OK, entry, err);
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

static dkt_status_t s_write_object(dkt_exporter_t *self, int index, const char *name,
                                   const char *sql, json_t *more, dkt_err_t *err)
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

static dkt_status_t s_write_small(dkt_exporter_t *self, dkt_err_t *err)
{
    json_t *nothing = json_object();
    dkt_status_t status = s_write_object(
        self, DKT_EXPORT_SETTINGS, "settings",
        "select json_build_object ('resolvers', resolvers, 'rebooking', rebooking,"
        " 'retention_days', retention_days, 'classes', (select json_agg (json_build_object ("
        "   'name', name, 'level_minutes', level_minutes, 'limit_permille', limit_permille)"
        "   order by level_minutes, name) from classes)) from settings",
        nothing, err);
    json_decref(nothing);
    /* Everything but the password's hash. */
    return status == DKT_OK
               ? s_write_object(self, DKT_EXPORT_ACCOUNT, "account",
                                "select json_build_object ('name', name, 'email', email,"
                                " 'sub_domain', sub_domain, 'tokens_valid_from', " //
                                DKT_EXPORT_UTC("tokens_valid_from") ") from account",
                                self->context, err)
               : status;
}

/* -- begin and end -- */

static dkt_status_t s_connect(dkt_exporter_t *self, dkt_err_t *err)
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
                 " 'created_at', " DKT_EXPORT_UTC(
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
static dkt_status_t s_begin(dkt_exporter_t *self, dkt_err_t *err)
{
    dkt_status_t status = dkt_control_exec(self->tenant, S_SESSION, 0, NULL, err);
    if (status != DKT_OK) {
        return status;
    }
    status = s_object(
        self->tenant,
        "select json_build_object ('format', '" S_FORMAT "',"
        " 'docket', '" DKT_VERSION "', 'snapshot_at', " DKT_EXPORT_UTC(
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

static json_t *s_files_json(const dkt_exporter_t *self)
{
    json_t *files = json_array();
    for (int i = 0; i < DKT_EXPORT_FILES; i++) {
        const dkt_export_file_t *entry = &self->files[i];
        json_array_append_new(files, json_pack("{s:s, s:I, s:I, s:s}", "name", entry->name, "rows",
                                               (json_int_t)entry->rows, "bytes",
                                               (json_int_t)entry->bytes, "sha256", entry->sha256));
    }
    return files;
}

/* Who took a tenant's data is on record before the data counts as taken. */
static dkt_status_t s_audit(dkt_exporter_t *self, const char *sha256, dkt_err_t *err)
{
    const char *at = json_string_value(json_object_get(self->manifest, "snapshot_at"));
    char tickets[24];
    snprintf(tickets, sizeof tickets, "%" PRIu64, self->files[DKT_EXPORT_TICKETS].rows);
    const char *params[] = {self->options->where->actor, self->options->client_id, sha256, at,
                            tickets};
    return dkt_control_exec(self->control,
                            "select audit_append ($1, 'export_tenant', $2, jsonb_build_object ("
                            " 'manifest', $3::text, 'snapshot_at', $4::text,"
                            " 'tickets', $5::bigint))",
                            5, params, err);
}

static dkt_status_t s_write_manifest(dkt_exporter_t *self, dkt_exported_t *done, dkt_err_t *err)
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

static dkt_status_t s_run(dkt_exporter_t *self, dkt_exported_t *done, dkt_err_t *err)
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
    for (int i = DKT_EXPORT_TICKETS; i <= DKT_EXPORT_CHANGES && status == DKT_OK; i++) {
        status = dkt_export_table(self, i, err);
    }
    dkt_export_end_progress(self);
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

dkt_status_t dkt_export_check(const dkt_export_t *options, dkt_err_t *err)
{
    dkt_exporter_t self = {.options = options, .folder_fd = -1};
    dkt_status_t status = s_open_folder(&self, err);
    if (self.folder_fd >= 0) {
        close(self.folder_fd);
    }
    return status;
}

dkt_status_t dkt_export_run(const dkt_export_t *options, dkt_exported_t *done, dkt_err_t *err)
{
    dkt_exporter_t self = {.options = options, .folder_fd = -1};
    memset(done, 0, sizeof *done);
    dkt_status_t status = s_run(&self, done, err);
    done->tickets = self.files[DKT_EXPORT_TICKETS].rows;
    done->journal = self.files[DKT_EXPORT_JOURNAL].rows;
    for (int i = 0; i < DKT_EXPORT_FILES; i++) {
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
