/* SPDX-License-Identifier: Apache-2.0
 *
 * The SQL of the databases, carried inside the binary: the files schemas/FOLDER/NNN-words.sql in
 * ascending order, made into arrays by cmake/embed_sql.cmake. `control` and `tenant` hold steps;
 * `upgrade` what is laid in a tenant's database before its owner can run a step.
 *
 * A step's file begins with comments, among them these two lines:
 *   -- min_reader: N        the oldest code that understands the schema after it (limits.h:
 *                           DKT_SCHEMA_TENANT_READS, DKT_SCHEMA_CONTROL_READS)
 *   -- kind: expand         older code goes on with it; `contract`: it does not
 *
 * Procedure for a new step: README, "A step of the schema".
 */
#ifndef DKT_EDGE_SCHEMA_H
#define DKT_EDGE_SCHEMA_H

#include <stdbool.h>

#include "lib/core/limits.h"
#include "lib/core/status.h"

typedef struct {
    int number;       /* NNN: 1 or more, ascending, never reused */
    const char *name; /* file name, for messages */
    const char *sql;  /* the whole file */
} dkt_schema_step_t;

/* Each array ends with a row of zeros that the count leaves out. */
extern const dkt_schema_step_t dkt_schema_control[];
extern const int dkt_schema_control_count;
extern const dkt_schema_step_t dkt_schema_tenant[];
extern const int dkt_schema_tenant_count;
extern const dkt_schema_step_t dkt_schema_upgrade[];
extern const int dkt_schema_upgrade_count;

typedef struct {
    int number;
    const char *name, *sql; /* of the binary, or heap if `own` */
    int min_reader;
    bool contract, own;
} dkt_step_t;

typedef struct {
    int count;
    dkt_step_t steps[DKT_SCHEMA_STEPS_MAX]; /* ascending */
} dkt_steps_t;

typedef enum { DKT_SCHEMA_CONTROL, DKT_SCHEMA_TENANT } dkt_schema_kind_t;

/* The steps of the binary, and behind them those of $DOCKET_SCHEMAS/control or /tenant, if the
 * variable is set: a way for tests to have a next version. INVALID_ARGUMENT: a file that is no
 * step. Heap, the caller's; NULL on failure. */
dkt_steps_t *dkt_steps_load(dkt_schema_kind_t kind, dkt_err_t *err);
void dkt_steps_destroy(dkt_steps_t **self_p);

/* Reads the header; false: one of the two lines is missing or wrong. */
DKT_CHECKED bool dkt_step_header(dkt_step_t *step);

/* The newest step that may be run in a database of that version without contracting: the last one
 * before the first contract step above max (version, contracted). An empty database (0) gets all,
 * since no older code has ever known it. */
int dkt_steps_target(const dkt_steps_t *self, int version, int contracted);
int dkt_steps_newest(const dkt_steps_t *self);

#endif
