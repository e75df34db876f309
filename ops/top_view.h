/* SPDX-License-Identifier: Apache-2.0
 *
 * `docket top` as text: the fleet in a line, a table of brokers, one of workers, and what is asked
 * of the fleet by method.
 */
#ifndef DKT_OPS_TOP_VIEW_H
#define DKT_OPS_TOP_VIEW_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* What one process told last, and the time before. */
typedef struct {
    const char *node;
    json_t *now, *before; /* before NULL: it has told once only */
} dkt_top_node_t;

/* Sorted by role and name. `color`: a terminal that understands it. */
void dkt_top_show(const dkt_top_node_t *nodes, uint32_t count, bool color);

#endif
