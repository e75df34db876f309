/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/spare.h"

#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/core/limits.h"

static void *s_pop(dkt_spare_t *self)
{
    void *piece = self->first;
    memcpy(&self->first, piece, sizeof self->first);
    self->count--;
    return piece;
}

void *dkt_spare_take(dkt_spare_t *self, size_t bytes)
{
    if (bytes > self->room_bytes) {
        return malloc(bytes);
    }
    return self->first ? s_pop(self) : malloc(self->room_bytes);
}

void dkt_spare_give(dkt_spare_t *self, void *piece)
{
    size_t bytes = malloc_usable_size(piece);
    bool usual = bytes >= self->room_bytes && bytes < 2 * self->room_bytes;
    if (!usual || self->count >= DKT_SPARES_MAX) {
        free(piece);
        return;
    }
    memcpy(piece, &self->first, sizeof self->first);
    self->first = piece;
    self->count++;
}

void dkt_spare_fini(dkt_spare_t *self)
{
    while (self->first) {
        free(s_pop(self));
    }
}
