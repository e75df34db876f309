/* SPDX-License-Identifier: Apache-2.0
 *
 * The rows of a READ, found by request_id, ticket number or hold. A READ answers up to 1024 works
 * with up to 3072 rows, so they are indexed once; a few are looked through.
 */
#include <string.h>

#include "lib/core/grow.h"
#include "lib/core/tenant_impl.h"

#define KEYS_PER_ROW   3
#define INDEX_ROWS_MIN 16 /* fewer are looked through */

typedef enum { S_BY_ID, S_BY_NUMBER, S_BY_NONCE } s_key_t;

/* Request ids are the clients' choice and are hashed; numbers and nonces are ours and are mixed. */
static uint32_t s_hash(s_key_t key, const dkt_ticket_row_t *row)
{
    if (key == S_BY_ID) {
        return (uint32_t)dkt_view_digest(
            (dkt_view_t){.data = row->request_id.bytes, .len = DKT_UUID_BYTES});
    }
    uint64_t value = key == S_BY_NUMBER ? row->number : row->hold_nonce;
    return (uint32_t)((value * UINT64_C(0x9E3779B97F4A7C15)) >> 32);
}

static bool s_same(s_key_t key, const dkt_ticket_row_t *a, const dkt_ticket_row_t *b)
{
    return key == S_BY_ID ? memcmp(a->request_id.bytes, b->request_id.bytes, DKT_UUID_BYTES) == 0
           : key == S_BY_NUMBER ? a->number == b->number
                                : a->hold_nonce == b->hold_nonce;
}

static const dkt_ticket_row_t *s_find(const dkt_rows_t *self, s_key_t key,
                                      const dkt_ticket_row_t *wanted)
{
    for (uint32_t i = 0; self->place_count == 0 && i < self->count; i++) {
        if (s_same(key, &self->rows[i], wanted)) {
            return &self->rows[i];
        }
    }
    if (self->place_count == 0) {
        return NULL;
    }
    uint32_t mask = self->place_count - 1;
    for (uint32_t i = s_hash(key, wanted) & mask; self->places[i]; i = (i + 1) & mask) {
        const dkt_ticket_row_t *row = &self->rows[self->places[i] - 1];
        if (s_same(key, row, wanted)) {
            return row;
        }
    }
    return NULL;
}

void dkt_rows_index(dkt_rows_t *self, const dkt_ticket_row_t *rows, uint32_t count)
{
    self->rows = rows;
    self->count = count;
    self->place_count = 0;
    if (count < INDEX_ROWS_MIN) {
        return;
    }
    uint32_t wanted = INDEX_ROWS_MIN;
    while (wanted < 2 * KEYS_PER_ROW * count) {
        wanted *= 2;
    }
    if (!dkt_grow((void **)&self->places, &self->place_max, wanted, sizeof *self->places)) {
        return;
    }
    memset(self->places, 0, wanted * sizeof *self->places);
    self->place_count = wanted;
    for (uint32_t i = 0; i < KEYS_PER_ROW * count; i++) {
        uint32_t place = s_hash((s_key_t)(i % KEYS_PER_ROW), &rows[i / KEYS_PER_ROW]);
        while (self->places[place & (wanted - 1)]) {
            place++;
        }
        self->places[place & (wanted - 1)] = i / KEYS_PER_ROW + 1;
    }
}

const dkt_ticket_row_t *dkt_rows_by_id(const dkt_rows_t *self, const dkt_uuid_t *id)
{
    dkt_ticket_row_t wanted = {.request_id = *id};
    return s_find(self, S_BY_ID, &wanted);
}

const dkt_ticket_row_t *dkt_rows_by_number(const dkt_rows_t *self, uint64_t number)
{
    dkt_ticket_row_t wanted = {.number = number};
    return s_find(self, S_BY_NUMBER, &wanted);
}

const dkt_ticket_row_t *dkt_rows_by_nonce(const dkt_rows_t *self, uint64_t nonce)
{
    dkt_ticket_row_t wanted = {.hold_nonce = nonce};
    return s_find(self, S_BY_NONCE, &wanted);
}
