/* SPDX-License-Identifier: Apache-2.0
 *
 * Arrays that grow by doubling and are reused, so that the hot path does not allocate once warm.
 */
#ifndef DKT_CORE_GROW_H
#define DKT_CORE_GROW_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "lib/core/status.h"

/* Makes room for `need` elements; false without memory, and then nothing has changed. */
DKT_CHECKED static inline bool dkt_grow(void **data, uint32_t *max, uint32_t need,
                                        size_t element_bytes)
{
    enum { FIRST = 16 };
    if (need <= *max) {
        return true;
    }
    uint32_t wanted = *max ? *max : FIRST;
    while (wanted < need) {
        if (wanted > UINT32_MAX / 2) {
            return false;
        }
        wanted *= 2;
    }
    void *grown = realloc(*data, (size_t)wanted * element_bytes);
    if (!grown) {
        return false;
    }
    *data = grown;
    *max = wanted;
    return true;
}

#endif
