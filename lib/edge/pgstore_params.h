/* SPDX-License-Identifier: Apache-2.0
 *
 * The parameters of one statement, all binary. What is added must live until the statement is sent;
 * scalars are kept inside.
 */
#ifndef DKT_EDGE_PGSTORE_PARAMS_H
#define DKT_EDGE_PGSTORE_PARAMS_H

#include "lib/edge/pgstore_self.h"

typedef struct {
    int count;
    const char *values[DKT_COLUMNS_MAX];
    int lengths[DKT_COLUMNS_MAX];
    uint8_t scalars[DKT_COLUMNS_MAX][8];
    bool failed;
} dkt_pgparams_t;

/* Bytes of the caller's; NULL is the SQL null. */
void dkt_pgparams_raw(dkt_pgparams_t *params, const void *data, size_t len);
void dkt_pgparams_i64(dkt_pgparams_t *params, int64_t value);
void dkt_pgparams_u64(dkt_pgparams_t *params, uint64_t value);
void dkt_pgparams_i16(dkt_pgparams_t *params, int16_t value);
void dkt_pgparams_bool(dkt_pgparams_t *params, bool value);
void dkt_pgparams_time(dkt_pgparams_t *params, int64_t unix_ms);
/* `data` NULL: the SQL null. */
void dkt_pgparams_view(dkt_pgparams_t *params, dkt_view_t view);
/* The first `count` columns, in order. */
void dkt_pgparams_columns(dkt_pgparams_t *params, dkt_pgstore_t *self, int count);

#endif
