/* SPDX-License-Identifier: Apache-2.0
 *
 * The SQL of the databases, carried inside the binary: the files schemas/control/NNN-words.sql and
 * schemas/tenant/NNN-words.sql in ascending order, made into arrays by cmake/embed_sql.cmake.
 */
#ifndef DKT_EDGE_SCHEMA_H
#define DKT_EDGE_SCHEMA_H

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

#endif
