/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/pgarray.h"

#include <assert.h>
#include <endian.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define S_HEADER_BYTES       20 /* of an array that has elements */
#define S_HEADER_EMPTY_BYTES 12 /* of an array without dimensions */
#define S_CAP_MIN            1024
#define S_EPOCH_2000_MS      INT64_C(946684800000) /* 2000-01-01 in Unix milliseconds */
#define S_US_PER_MS          1000

void dkt_pg_put_i16(uint8_t out[2], int16_t value)
{
    uint16_t big = htobe16((uint16_t)value);
    memcpy(out, &big, sizeof big);
}

void dkt_pg_put_i32(uint8_t out[4], int32_t value)
{
    uint32_t big = htobe32((uint32_t)value);
    memcpy(out, &big, sizeof big);
}

void dkt_pg_put_i64(uint8_t out[8], int64_t value)
{
    uint64_t big = htobe64((uint64_t)value);
    memcpy(out, &big, sizeof big);
}

int16_t dkt_pg_get_i16(const void *bytes)
{
    uint16_t big;
    memcpy(&big, bytes, sizeof big);
    return (int16_t)be16toh(big);
}

int64_t dkt_pg_get_i64(const void *bytes)
{
    uint64_t big;
    memcpy(&big, bytes, sizeof big);
    return (int64_t)be64toh(big);
}

int64_t dkt_pg_time_of_ms(int64_t unix_ms)
{
    return (unix_ms - S_EPOCH_2000_MS) * S_US_PER_MS;
}

int64_t dkt_pg_ms_of_time(int64_t pg_us)
{
    int64_t ms = pg_us / S_US_PER_MS;
    /* rounds down, also before 2000 */
    return ms - (pg_us % S_US_PER_MS < 0) + S_EPOCH_2000_MS;
}

void dkt_pgarray_fini(dkt_pgarray_t *self)
{
    free(self->data);
    *self = (dkt_pgarray_t){0};
}

/* Room for `len` more bytes, NULL if there is none: the array has failed then. */
static uint8_t *s_reserve(dkt_pgarray_t *self, size_t len)
{
    if (self->failed || len > INT_MAX - self->len) {
        self->failed = true;
        return NULL;
    }
    if (len > self->cap - self->len) {
        size_t cap = self->cap ? self->cap : S_CAP_MIN;
        while (cap < self->len + len) {
            cap *= 2;
        }
        uint8_t *data = realloc(self->data, cap);
        if (!data) {
            self->failed = true;
            return NULL;
        }
        self->data = data;
        self->cap = cap;
    }
    uint8_t *place = self->data + self->len;
    self->len += len;
    return place;
}

void dkt_pgarray_begin(dkt_pgarray_t *self, dkt_pgtype_t type)
{
    self->len = 0;
    self->count = 0;
    self->has_null = false;
    self->failed = false;
    uint8_t *header = s_reserve(self, S_HEADER_BYTES);
    if (header) {
        dkt_pg_put_i32(header + 8, (int32_t)type);
    }
}

/* Room for one element of `len` bytes after its length word. */
static uint8_t *s_element(dkt_pgarray_t *self, int32_t len)
{
    size_t body = len > 0 ? (size_t)len : 0;
    uint8_t *place = s_reserve(self, sizeof len + body);
    if (!place) {
        return NULL;
    }
    dkt_pg_put_i32(place, len);
    self->count++;
    return place + sizeof len;
}

void dkt_pgarray_null(dkt_pgarray_t *self)
{
    self->has_null = true;
    s_element(self, -1);
}

void dkt_pgarray_bool(dkt_pgarray_t *self, bool value)
{
    uint8_t *place = s_element(self, 1);
    if (place) {
        *place = value;
    }
}

void dkt_pgarray_i16(dkt_pgarray_t *self, int16_t value)
{
    uint8_t *place = s_element(self, sizeof value);
    if (place) {
        dkt_pg_put_i16(place, value);
    }
}

void dkt_pgarray_i64(dkt_pgarray_t *self, int64_t value)
{
    uint8_t *place = s_element(self, sizeof value);
    if (place) {
        dkt_pg_put_i64(place, value);
    }
}

void dkt_pgarray_time(dkt_pgarray_t *self, int64_t unix_ms)
{
    dkt_pgarray_i64(self, dkt_pg_time_of_ms(unix_ms));
}

void dkt_pgarray_bytes(dkt_pgarray_t *self, const void *data, size_t len)
{
    if (!data) {
        dkt_pgarray_null(self);
        return;
    }
    if (len > INT_MAX) {
        self->failed = true;
        return;
    }
    uint8_t *place = s_element(self, (int32_t)len);
    if (place && len > 0) {
        memcpy(place, data, len);
    }
}

bool dkt_pgarray_finish(dkt_pgarray_t *self)
{
    if (self->failed) {
        return false;
    }
    assert(self->len >= S_HEADER_BYTES);
    dkt_pg_put_i32(self->data, self->count > 0);
    dkt_pg_put_i32(self->data + 4, self->has_null);
    dkt_pg_put_i32(self->data + 12, (int32_t)self->count);
    dkt_pg_put_i32(self->data + 16, 1); /* SQL arrays count from 1 */
    if (self->count == 0) {
        self->len = S_HEADER_EMPTY_BYTES;
    }
    return true;
}
