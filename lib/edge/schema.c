/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/schema.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define S_VARIABLE  "DOCKET_SCHEMAS"
#define S_DECIMAL   10
#define S_DIGITS    3
#define S_SUFFIX    ".sql"
#define S_EXPAND    "expand"
#define S_CONTRACT  "contract"
#define S_READS_MAX 9999

/* The rest of the comment line that begins with `key`, among the comments the file begins with. */
static const char *s_header_line(const char *sql, const char *key)
{
    for (const char *line = sql; strncmp(line, "--", 2) == 0;) {
        if (strncmp(line + 2, key, strlen(key)) == 0) {
            return line + 2 + strlen(key);
        }
        line = strchr(line, '\n');
        if (!line) {
            break;
        }
        line++;
    }
    return NULL;
}

bool dkt_step_header(dkt_step_t *step)
{
    const char *reader = s_header_line(step->sql, " min_reader: ");
    const char *kind = s_header_line(step->sql, " kind: ");
    if (!reader || !kind) {
        return false;
    }
    char *end = NULL;
    long number = strtol(reader, &end, S_DECIMAL);
    size_t kind_len = strcspn(kind, "\n");
    step->contract = kind_len == strlen(S_CONTRACT) && strncmp(kind, S_CONTRACT, kind_len) == 0;
    bool expand = kind_len == strlen(S_EXPAND) && strncmp(kind, S_EXPAND, kind_len) == 0;
    step->min_reader = (int)number;
    return *end == '\n' && number >= 1 && number <= S_READS_MAX && (step->contract || expand);
}

static dkt_status_t s_add(dkt_steps_t *self, dkt_step_t step, dkt_err_t *err)
{
    bool last = self->count > 0 && self->steps[self->count - 1].number >= step.number;
    if (self->count == DKT_SCHEMA_STEPS_MAX || last || !dkt_step_header(&step)) {
        if (step.own) {
            free((char *)step.sql);
        }
        dkt_status_t status =
            dkt_fail(err, DKT_INVALID_ARGUMENT, "schemas",
                     "%s: its number is taken, or it lacks the lines \"-- min_reader: N\" and"
                     " \"-- kind: expand\" or \"contract\"",
                     step.name);
        if (step.own) {
            free((char *)step.name);
        }
        return status;
    }
    self->steps[self->count++] = step;
    return DKT_OK;
}

/* -- extra files -- */

static int s_is_step(const struct dirent *entry)
{
    const char *name = entry->d_name;
    size_t len = strlen(name);
    return len > S_DIGITS + strlen("-" S_SUFFIX) && strspn(name, "0123456789") == S_DIGITS &&
           name[S_DIGITS] == '-' && strcmp(name + len - strlen(S_SUFFIX), S_SUFFIX) == 0;
}

static char *s_read_file(const char *path)
{
    FILE *file = fopen(path, "re");
    char *text = file ? calloc(1, DKT_SCHEMA_BYTES_MAX + 1) : NULL;
    if (text && (fread(text, 1, DKT_SCHEMA_BYTES_MAX, file) == 0 || !feof(file))) {
        free(text);
        text = NULL;
    }
    if (file) {
        fclose(file);
    }
    return text;
}

static dkt_status_t s_add_file(dkt_steps_t *self, const char *folder, const char *name,
                               dkt_err_t *err)
{
    char path[PATH_MAX];
    int len = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (len < 0 || len >= (int)sizeof path) {
        return dkt_fail(err, DKT_INVALID_ARGUMENT, "schemas", "%s: too long a path", name);
    }
    dkt_step_t step = {.number = (int)strtol(name, NULL, S_DECIMAL), .own = true};
    step.name = strdup(name);
    step.sql = s_read_file(path);
    if (!step.name || !step.sql) {
        free((char *)step.name);
        free((char *)step.sql);
        return dkt_fail(err, DKT_INVALID_ARGUMENT, "schemas", "%s: empty, unreadable or too long",
                        path);
    }
    return s_add(self, step, err);
}

static dkt_status_t s_add_folder(dkt_steps_t *self, const char *folder, dkt_err_t *err)
{
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, s_is_step, alphasort);
    if (count < 0) {
        return errno == ENOENT ? DKT_OK /* extra steps of the other kind only */
                               : dkt_fail(err, DKT_INVALID_ARGUMENT, "schemas", "%s: %s", folder,
                                          strerror(errno));
    }
    dkt_status_t status = DKT_OK;
    for (int i = 0; i < count; i++) {
        if (status == DKT_OK) {
            status = s_add_file(self, folder, entries[i]->d_name, err);
        }
        free(entries[i]);
    }
    free(entries);
    return status;
}

/* -- public -- */

dkt_steps_t *dkt_steps_load(dkt_schema_kind_t kind, dkt_err_t *err)
{
    const dkt_schema_step_t *rows =
        kind == DKT_SCHEMA_TENANT ? dkt_schema_tenant : dkt_schema_control;
    dkt_steps_t *self = calloc(1, sizeof *self);
    if (!self) {
        (void)dkt_fail(err, DKT_UNAVAILABLE, NULL, "no memory for the steps of a schema");
        return NULL;
    }
    dkt_status_t status = DKT_OK;
    for (; rows->number && status == DKT_OK; rows++) {
        status = s_add(
            self, (dkt_step_t){.number = rows->number, .name = rows->name, .sql = rows->sql}, err);
    }
    const char *extra = getenv(S_VARIABLE);
    if (extra && status == DKT_OK) {
        char folder[PATH_MAX];
        snprintf(folder, sizeof folder, "%s/%s", extra,
                 kind == DKT_SCHEMA_TENANT ? "tenant" : "control");
        status = s_add_folder(self, folder, err);
    }
    if (status != DKT_OK) {
        dkt_steps_destroy(&self);
    }
    return self;
}

void dkt_steps_destroy(dkt_steps_t **self_p)
{
    dkt_steps_t *self = *self_p;
    *self_p = NULL;
    for (int i = 0; self && i < self->count; i++) {
        if (self->steps[i].own) {
            free((char *)self->steps[i].name);
            free((char *)self->steps[i].sql);
        }
    }
    free(self);
}

int dkt_steps_newest(const dkt_steps_t *self)
{
    return self->count > 0 ? self->steps[self->count - 1].number : 0;
}

int dkt_steps_target(const dkt_steps_t *self, int version, int contracted)
{
    int loose = version > contracted ? version : contracted;
    int target = version;
    for (int i = 0; i < self->count; i++) {
        const dkt_step_t *step = &self->steps[i];
        if (step->contract && step->number > loose && version > 0) {
            return target;
        }
        target = step->number > target ? step->number : target;
    }
    return target;
}
