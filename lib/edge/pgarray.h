/* SPDX-License-Identifier: Apache-2.0
 *
 * Builds one-dimensional PostgreSQL arrays in the binary wire format, one column of a group at a
 * time. A buffer is used again and again (begin .. put .. finish); it grows, so the hot path does
 * not allocate.
 *
 *   dimensions 4 | has nulls 4 | element type 4 | count 4 | lower bound 4 | (length 4 | bytes)*
 */
#ifndef DKT_EDGE_PGARRAY_H
#define DKT_EDGE_PGARRAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/core/status.h"

/* Type oids of PostgreSQL's catalog; they never change. */
typedef enum {
    DKT_PG_BOOL = 16,
    DKT_PG_BYTEA = 17,
    DKT_PG_INT8 = 20,
    DKT_PG_INT2 = 21,
    DKT_PG_TEXT = 25,
    DKT_PG_TIMESTAMPTZ = 1184,
    DKT_PG_UUID = 2950,
} dkt_pgtype_t;

typedef struct {
    uint8_t *data;
    size_t len, cap;
    uint32_t count;
    bool has_null;
    bool failed; /* no memory: sticky until the next begin, told by finish */
} dkt_pgarray_t;

/* An embedded array starts zeroed; fini frees its buffer and zeroes it again. */
void dkt_pgarray_fini(dkt_pgarray_t *self);

void dkt_pgarray_begin(dkt_pgarray_t *self, dkt_pgtype_t type);
void dkt_pgarray_null(dkt_pgarray_t *self);
void dkt_pgarray_bool(dkt_pgarray_t *self, bool value);
void dkt_pgarray_i16(dkt_pgarray_t *self, int16_t value);
void dkt_pgarray_i64(dkt_pgarray_t *self, int64_t value);
/* A timestamptz of Unix milliseconds. */
void dkt_pgarray_time(dkt_pgarray_t *self, int64_t unix_ms);
/* text, bytea or uuid; `data` NULL: null. */
void dkt_pgarray_bytes(dkt_pgarray_t *self, const void *data, size_t len);

/* Completes the header; the bytes are self->data, self->len. False: there was no memory. */
DKT_CHECKED bool dkt_pgarray_finish(dkt_pgarray_t *self);

/* Scalars in the same format. */
void dkt_pg_put_i16(uint8_t out[2], int16_t value);
void dkt_pg_put_i32(uint8_t out[4], int32_t value);
void dkt_pg_put_i64(uint8_t out[8], int64_t value);
int16_t dkt_pg_get_i16(const void *bytes);
int64_t dkt_pg_get_i64(const void *bytes);
/* Between Unix milliseconds and timestamptz (microseconds since 2000-01-01). */
int64_t dkt_pg_time_of_ms(int64_t unix_ms);
int64_t dkt_pg_ms_of_time(int64_t pg_us);

#endif
