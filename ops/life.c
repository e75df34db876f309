/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/life.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define S_PID_PORT_LINE 4 /* of PostgreSQL's postmaster.pid */
#define S_LINE_BYTES    1024
#define S_FILE_MODE     0600
#define S_PART_BYTES    (DKT_LIFE_NAME_BYTES + 8)

/* -- where -- */

static const char *s_or_env(const char *given, const char *variable)
{
    const char *value = given ? given : getenv(variable);
    return value && value[0] ? value : NULL;
}

static dkt_status_t s_port_of(const char *data, int *port, dkt_err_t *err)
{
    char path[DKT_KEY_PATH_BYTES_MAX], line[S_LINE_BYTES] = "";
    snprintf(path, sizeof path, "%s/pg/postmaster.pid", data);
    FILE *file = fopen(path, "re");
    bool read = file != NULL;
    for (int i = 0; read && i < S_PID_PORT_LINE; i++) {
        read = fgets(line, sizeof line, file) != NULL;
    }
    if (file) {
        fclose(file);
    }
    *port = read ? atoi(line) : 0;
    return *port > 0 ? DKT_OK
                     : dkt_fail(err, DKT_UNAVAILABLE, NULL,
                                "no PostgreSQL runs in %s: start the fleet, or name the control "
                                "database with --join URI",
                                data);
}

/* Who is at the keyboard, as far as one can tell. */
static void s_fill_actor(char out[DKT_ACTOR_BYTES_MAX])
{
    char host[64] = "";
    const char *user = getenv("SUDO_USER");
    const struct passwd *entry = getpwuid(getuid());
    if (gethostname(host, sizeof host - 1) != 0) {
        host[0] = '\0';
    }
    if (!user || !user[0]) {
        user = entry ? entry->pw_name : "unknown";
    }
    snprintf(out, DKT_ACTOR_BYTES_MAX, "operator:%.64s@%.64s", user, host);
}

dkt_status_t dkt_life_find_keys(dkt_life_where_t *where, dkt_err_t *err)
{
    if (sodium_init() < 0) {
        return dkt_fail(err, DKT_INTERNAL, NULL, "libsodium cannot start");
    }
    where->data = s_or_env(where->data, "DOCKET_DATA");
    where->keys = where->keys || !where->data ? s_or_env(where->keys, "DOCKET_KEYS") : NULL;
    int len = where->keys
                  ? snprintf(where->keys_folder, sizeof where->keys_folder, "%s", where->keys)
              : where->data
                  ? snprintf(where->keys_folder, sizeof where->keys_folder, "%s/keys", where->data)
                  : -1;
    return len > 0 && len < (int)sizeof where->keys_folder
               ? DKT_OK
               : dkt_fail(err, DKT_INVALID_ARGUMENT, NULL, "needed is --data DIR, or --keys DIR");
}

dkt_status_t dkt_life_find(dkt_life_where_t *where, dkt_err_t *err)
{
    int port = 0;
    dkt_status_t status = dkt_life_find_keys(where, err);
    if (status != DKT_OK) {
        return status;
    }
    s_fill_actor(where->actor);
    char passfile[DKT_KEY_PATH_BYTES_MAX + 8];
    snprintf(passfile, sizeof passfile, "%s/pgpass", where->keys_folder);
    if (where->join) {
        setenv("PGPASSFILE", passfile, 0); /* a URI may name another one */
        snprintf(where->uri, sizeof where->uri, "%s", where->join);
        return DKT_OK;
    }
    if (!where->data) {
        return dkt_fail(err, DKT_INVALID_ARGUMENT, NULL, "needed is --data DIR, or --join URI");
    }
    status = s_port_of(where->data, &port, err);
    if (status != DKT_OK) {
        return status;
    }
    int len =
        snprintf(where->uri, sizeof where->uri,
                 "postgresql://docket@127.0.0.1:%d/docket_control?passfile=%s", port, passfile);
    return len > 0 && len < (int)sizeof where->uri
               ? DKT_OK
               : dkt_fail(err, DKT_INVALID_ARGUMENT, NULL, "the folder's path is too long");
}

dkt_status_t dkt_life_text(PGconn *conn, const char *sql, int count, const char *const *params,
                           char **out, dkt_err_t *err)
{
    *out = NULL;
    PGresult *result = dkt_control_run(conn, sql, count, params, err);
    if (!result) {
        return err->status;
    }
    bool found = PQntuples(result) > 0;
    *out = found ? strdup(PQgetvalue(result, 0, 0)) : NULL;
    PQclear(result);
    return found && !*out ? dkt_fail(err, DKT_UNAVAILABLE, NULL, "no memory") : DKT_OK;
}

/* -- files -- */

static dkt_status_t s_fail_file(dkt_err_t *err, const char *what, const char *name)
{
    return dkt_fail(err, DKT_INTERNAL, NULL, "cannot %s %s: %s", what, name, strerror(errno));
}

static void s_part_name(const dkt_life_file_t *self, char out[S_PART_BYTES])
{
    snprintf(out, S_PART_BYTES, "%s.part", self->name);
}

dkt_status_t dkt_life_file_open(dkt_life_file_t *self, int folder_fd, const char *name,
                                dkt_err_t *err)
{
    char part[S_PART_BYTES];
    memset(self, 0, sizeof *self);
    self->folder_fd = folder_fd;
    snprintf(self->name, sizeof self->name, "%s", name);
    crypto_hash_sha256_init(&self->sha256);
    s_part_name(self, part);
    int fd =
        openat(folder_fd, part, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, S_FILE_MODE);
    self->file = fd >= 0 ? fdopen(fd, "w") : NULL;
    return self->file ? DKT_OK : s_fail_file(err, "create", part);
}

void dkt_life_file_put(dkt_life_file_t *self, const char *bytes, size_t len)
{
    (void)fwrite(bytes, 1, len, self->file); /* its error stays with the file */
    crypto_hash_sha256_update(&self->sha256, (const uint8_t *)bytes, len);
    self->bytes += len;
}

dkt_status_t dkt_life_file_finish(dkt_life_file_t *self, char sha256[DKT_SHA256_HEX_BYTES],
                                  dkt_err_t *err)
{
    char part[S_PART_BYTES];
    uint8_t hash[crypto_hash_sha256_BYTES];
    s_part_name(self, part);
    bool good = fflush(self->file) == 0 && !ferror(self->file) && fsync(fileno(self->file)) == 0;
    if (!good || renameat(self->folder_fd, part, self->folder_fd, self->name) != 0 ||
        fsync(self->folder_fd) != 0) {
        dkt_status_t status = s_fail_file(err, "write", self->name);
        dkt_life_file_drop(self);
        return status;
    }
    fclose(self->file);
    self->file = NULL;
    crypto_hash_sha256_final(&self->sha256, hash);
    if (sha256) {
        sodium_bin2hex(sha256, DKT_SHA256_HEX_BYTES, hash, sizeof hash);
    }
    return DKT_OK;
}

void dkt_life_file_drop(dkt_life_file_t *self)
{
    if (self->file) {
        char part[S_PART_BYTES];
        s_part_name(self, part);
        fclose(self->file);
        self->file = NULL;
        (void)unlinkat(self->folder_fd, part, 0);
    }
}

dkt_status_t dkt_life_write(const char *path, const char *text, dkt_err_t *err)
{
    char folder[DKT_KEY_PATH_BYTES_MAX], name[DKT_KEY_PATH_BYTES_MAX];
    int len = snprintf(folder, sizeof folder, "%s", path);
    snprintf(name, sizeof name, "%s", path);
    const char *base = basename(name);
    dkt_life_file_t file;
    if (len >= (int)sizeof folder || strlen(base) >= DKT_LIFE_NAME_BYTES) {
        return dkt_fail(err, DKT_INVALID_ARGUMENT, NULL, "the path of a file is too long");
    }
    int fd = open(dirname(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return s_fail_file(err, "open the folder of", path);
    }
    dkt_status_t status = dkt_life_file_open(&file, fd, base, err);
    if (status == DKT_OK && !text) {
        dkt_life_file_drop(&file);
    } else if (status == DKT_OK) {
        dkt_life_file_put(&file, text, strlen(text));
        status = dkt_life_file_finish(&file, NULL, err);
    }
    close(fd);
    return status;
}
