/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of the export: export.c (folder, snapshot, manifest) and export_rows.c (tables).
 */
#ifndef DKT_OPS_EXPORT_IMPL_H
#define DKT_OPS_EXPORT_IMPL_H

#include "lib/core/event.h"
#include "ops/life.h"

#define DKT_EXPORT_STAMP_BYTES 40

/* A timestamptz column as ISO 8601 in UTC. */
#define DKT_EXPORT_UTC(column)                                                                     \
    "to_char (" column " at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"

typedef struct {
    char name[64], sha256[DKT_SHA256_HEX_BYTES];
    uint64_t rows, bytes;
} dkt_export_file_t;

/* Tables first. */
enum {
    DKT_EXPORT_TICKETS,
    DKT_EXPORT_JOURNAL,
    DKT_EXPORT_CHANGES,
    DKT_EXPORT_SETTINGS,
    DKT_EXPORT_ACCOUNT,
    DKT_EXPORT_FILES
};

typedef struct {
    const dkt_export_t *options;
    PGconn *control, *tenant;
    int folder_fd;
    dkt_keyring_t keys;
    dkt_client_t client;
    char database[64];
    char stamp[DKT_EXPORT_STAMP_BYTES]; /* of the snapshot, as it is in file names */
    json_t *manifest, *context;         /* context: what the control database has of the tenant */
    dkt_export_file_t files[DKT_EXPORT_FILES];
    dkt_text_buf_t text; /* of one row's events */
    const char *label;
    uint64_t low, high; /* of the numbers of the rows that are being written */
    int bar;            /* per mille that was drawn last; -1: nothing */
} dkt_exporter_t;

/* Writes one of the tables of the snapshot, in pages of a cursor. */
DKT_CHECKED dkt_status_t dkt_export_table(dkt_exporter_t *self, int index, dkt_err_t *err);

/* Finishes the file, or drops it if `status` is a failure; the entry gets size and hash. */
DKT_CHECKED dkt_status_t dkt_export_end_file(dkt_life_file_t *file, dkt_status_t status,
                                             dkt_export_file_t *entry, dkt_err_t *err);

/* Clears the bar. */
void dkt_export_end_progress(const dkt_exporter_t *self);

#endif
