/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of open requests' frames. Thousands are open at a time and end in any order, which malloc
 * keeps apart by their lengths: here all of the usual lengths are alike, and the last one that
 * ended, which is in the cache, is the next one used.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/core/router_internal.h"

#define S_ROOM_BYTES 512  /* of a frame that is usual */
#define S_SPARES_MAX 2048 /* 1 MiB that stays after a burst */

uint8_t *dkt_rt_body_take(dkt_router_t *self, uint32_t len)
{
    uint8_t *body = self->spare;
    if (len > S_ROOM_BYTES) {
        return malloc(len);
    }
    if (!body) {
        return malloc(S_ROOM_BYTES);
    }
    memcpy(&self->spare, body, sizeof self->spare); /* a spare one begins with the next */
    self->spare_count--;
    return body;
}

void dkt_rt_body_give(dkt_router_t *self, uint8_t *body, uint32_t len)
{
    if (len > S_ROOM_BYTES || self->spare_count >= S_SPARES_MAX) {
        free(body);
        return;
    }
    memcpy(body, &self->spare, sizeof self->spare);
    self->spare = body;
    self->spare_count++;
}

void dkt_rt_bodies_fini(dkt_router_t *self)
{
    while (self->spare) {
        uint8_t *body = self->spare;
        memcpy(&self->spare, body, sizeof self->spare);
        free(body);
    }
    self->spare_count = 0;
}
