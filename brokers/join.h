/* SPDX-License-Identifier: Apache-2.0
 *
 * Enters a broker in the control database, behind its back: a broker serves as soon as a worker has
 * found it, and one that was entered earlier is found without that database. Once it is entered, or
 * when the broker ends, the database's address is wiped: nothing in a process that strangers talk
 * to leads there.
 */
#ifndef DKT_BROKERS_JOIN_H
#define DKT_BROKERS_JOIN_H

#include "lib/core/status.h"

typedef struct dkt_join dkt_join_t;

/* Copies everything and wipes the caller's `uri`. NULL: no memory, or no thread. */
dkt_join_t *dkt_join_new(char *uri, const char *node, const char *workers_address);
/* Within a second; an attempt that takes longer ends with the process. May be NULL. */
void dkt_join_destroy(dkt_join_t **self_p);

#endif
