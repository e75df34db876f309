/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/pgstore_params.h"

#include <assert.h>

void dkt_pgparams_raw(dkt_pgparams_t *params, const void *data, size_t len)
{
    assert(params->count < DKT_COLUMNS_MAX);
    params->values[params->count] = data;
    params->lengths[params->count] = (int)len;
    params->count++;
}

void dkt_pgparams_i64(dkt_pgparams_t *params, int64_t value)
{
    uint8_t *scalar = params->scalars[params->count];
    dkt_pg_put_i64(scalar, value);
    dkt_pgparams_raw(params, scalar, sizeof value);
}

void dkt_pgparams_u64(dkt_pgparams_t *params, uint64_t value)
{
    assert(value <= INT64_MAX);
    dkt_pgparams_i64(params, (int64_t)value);
}

void dkt_pgparams_i16(dkt_pgparams_t *params, int16_t value)
{
    uint8_t *scalar = params->scalars[params->count];
    dkt_pg_put_i16(scalar, value);
    dkt_pgparams_raw(params, scalar, sizeof value);
}

void dkt_pgparams_bool(dkt_pgparams_t *params, bool value)
{
    uint8_t *scalar = params->scalars[params->count];
    *scalar = value;
    dkt_pgparams_raw(params, scalar, 1);
}

void dkt_pgparams_time(dkt_pgparams_t *params, int64_t unix_ms)
{
    dkt_pgparams_i64(params, dkt_pg_time_of_ms(unix_ms));
}

void dkt_pgparams_view(dkt_pgparams_t *params, dkt_view_t view)
{
    dkt_pgparams_raw(params, view.data, view.len);
}

void dkt_pgparams_columns(dkt_pgparams_t *params, dkt_pgstore_t *self, int count)
{
    for (int i = 0; i < count; i++) {
        dkt_pgarray_t *column = &self->columns[i];
        params->failed |= !dkt_pgarray_finish(column);
        dkt_pgparams_raw(params, column->data, column->len);
    }
}
