/* SPDX-License-Identifier: Apache-2.0
 *
 * docket tenant export | delete | receipt: operators run them on a machine that has the fleet's
 * keys, next to its databases. They need no broker, no NATS, and only `delete` needs a worker.
 *
 *   life.c         where the control database is, and files that are whole or not there
 *   export.c, export_rows.c   one consistent snapshot of a tenant as files
 *   cmd_export.c   docket tenant export
 *   cmd_delete.c   docket tenant delete, receipt
 */
#ifndef DKT_OPS_LIFE_H
#define DKT_OPS_LIFE_H

#include <jansson.h>
#include <libpq-fe.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "lib/core/ids.h"
#include "lib/core/status.h"
#include "lib/edge/control.h"
#include "lib/edge/keys.h"

#define DKT_SHA256_HEX_BYTES (2 * crypto_hash_sha256_BYTES + 1)
#define DKT_ACTOR_BYTES_MAX  160
#define DKT_LIFE_NAME_BYTES  256

int dkt_export_main(int argc, char **argv);
int dkt_delete_main(int argc, char **argv);
int dkt_receipt_main(int argc, char **argv);

/* -- where -- */

typedef struct {
    const char *data, *join, *keys; /* as given; NULL: not */
    char uri[DKT_CONTROL_URI_BYTES_MAX];
    char keys_folder[DKT_KEY_PATH_BYTES_MAX];
    char actor[DKT_ACTOR_BYTES_MAX]; /* who stands in the audit log */
} dkt_life_where_t;

#define DKT_LIFE_WHERE_HELP                                                                        \
    "  --data DIR      the fleet's folder, on its machine; default $DOCKET_DATA\n"                 \
    "  --join URI      the control database instead (also --endpoint); default from --data\n"      \
    "  --keys DIR      the fleet's keys; default $DOCKET_KEYS, then DIR/keys\n"

/* Fills uri, keys_folder and actor from what was given and the environment. INVALID_ARGUMENT: not
 * enough was given; UNAVAILABLE: no fleet runs on that folder. */
DKT_CHECKED dkt_status_t dkt_life_find(dkt_life_where_t *where, dkt_err_t *err);
/* The folder of the keys alone. */
DKT_CHECKED dkt_status_t dkt_life_find_keys(dkt_life_where_t *where, dkt_err_t *err);

/* One field of a one-row query as text, the caller's to free; NULL with *found false if there is no
 * row. `params` as in dkt_control_run. */
DKT_CHECKED dkt_status_t dkt_life_text(PGconn *conn, const char *sql, int count,
                                       const char *const *params, char **out, dkt_err_t *err);

/* -- files -- */

/* A file in the making: "NAME.part" in a folder, until it is finished. */
typedef struct {
    FILE *file;
    int folder_fd;
    char name[DKT_LIFE_NAME_BYTES];
    uint64_t bytes;
    crypto_hash_sha256_state sha256;
} dkt_life_file_t;

DKT_CHECKED dkt_status_t dkt_life_file_open(dkt_life_file_t *self, int folder_fd, const char *name,
                                            dkt_err_t *err);
/* What cannot be written is noticed by the finish. */
void dkt_life_file_put(dkt_life_file_t *self, const char *bytes, size_t len);
/* On the disk and under its name; `sha256` may be NULL. */
DKT_CHECKED dkt_status_t dkt_life_file_finish(dkt_life_file_t *self,
                                              char sha256[DKT_SHA256_HEX_BYTES], dkt_err_t *err);
/* Without a trace, unless it was finished. */
void dkt_life_file_drop(dkt_life_file_t *self);
/* A text as a whole file at a path; `text` NULL only tries whether that could be done. */
DKT_CHECKED dkt_status_t dkt_life_write(const char *path, const char *text, dkt_err_t *err);

/* -- export -- */

typedef struct {
    const dkt_life_where_t *where;
    const char *client_id, *out;
    bool progress; /* a bar on stderr */
} dkt_export_t;

typedef struct {
    char sha256[DKT_SHA256_HEX_BYTES]; /* of the manifest */
    uint64_t tickets, journal, bytes;
} dkt_exported_t;

/* NOT_FOUND: no such tenant. CONFLICT: the folder holds something else, or another export writes
 * into it. The audit log has its row before the files count as whole. */
/* Could the folder take this export? Makes it if it is not there. */
DKT_CHECKED dkt_status_t dkt_export_check(const dkt_export_t *options, dkt_err_t *err);
DKT_CHECKED dkt_status_t dkt_export_run(const dkt_export_t *options, dkt_exported_t *done,
                                        dkt_err_t *err);

#endif
