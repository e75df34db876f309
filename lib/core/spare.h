/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that is used again. What belongs to a request is of many lengths and ends in any order,
 * which malloc keeps apart by length, thousands at a time: here all usual lengths are alike, and
 * the last piece that ended, which is in the cache, is the next one used.
 */
#ifndef DKT_CORE_SPARE_H
#define DKT_CORE_SPARE_H

#include <stddef.h>
#include <stdint.h>

/* Of one thread. `room_bytes`, >= sizeof(void *), is set once; the rest zeroed at first. */
typedef struct {
    size_t room_bytes; /* of a usual piece */
    uint32_t count;    /* <= DKT_SPARES_MAX */
    void *first;       /* each begins with the next */
} dkt_spare_t;

/* As malloc, to be given back or freed by whoever likes; NULL without memory. */
void *dkt_spare_take(dkt_spare_t *self, size_t bytes);
/* Any memory of malloc; kept if it is a usual piece and there are not too many. */
void dkt_spare_give(dkt_spare_t *self, void *piece);
/* Frees those that are kept. */
void dkt_spare_fini(dkt_spare_t *self);

#endif
