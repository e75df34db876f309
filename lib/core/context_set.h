/* SPDX-License-Identifier: Apache-2.0
 *
 * The content of a replica: encoded records in the order of their client ids, the encoded table,
 * and the hash of the whole. Shared by context.c and context_set.c only.
 */
#ifndef DKT_CORE_CONTEXT_SET_H
#define DKT_CORE_CONTEXT_SET_H

#include "lib/core/context.h"

#define DKT_CONTEXT_CLIENT_CHARS 19 /* cl_ and 16 characters */

typedef struct {
    char id[DKT_CONTEXT_CLIENT_CHARS + 1]; /* the key: lists are in its order */
    uint32_t len;
    uint64_t hash; /* XXH64 of the bytes */
    uint8_t bytes[];
} dkt_context_entry_t;

typedef struct {
    dkt_context_version_t version;
    dkt_context_entry_t **entries; /* heap, sorted */
    uint32_t count, max;           /* count <= DKT_CONTEXT_RECORDS_MAX */
    uint64_t sum;                  /* of the entries' hashes */
    uint8_t *table;                /* heap, NULL: none */
    uint32_t table_len;
    uint64_t table_hash; /* 0: none */
} dkt_context_set_t;

void dkt_context_set_fini(dkt_context_set_t *self);
uint64_t dkt_context_set_hash(const dkt_context_set_t *self);

/* Where that id is or would be; true if it is there. */
bool dkt_context_set_find(const dkt_context_set_t *self, const char *id, uint32_t *index);

/* Copies the record in, over an older one. False: it cannot be read, or there is no room for it;
 * nothing has changed then. */
DKT_CHECKED bool dkt_context_set_put(dkt_context_set_t *self, dkt_view_t record);
void dkt_context_set_remove(dkt_context_set_t *self, const dkt_client_t *client);
/* `changed`: it is another one than before. False: it cannot be read, or no memory. */
DKT_CHECKED bool dkt_context_set_put_table(dkt_context_set_t *self, dkt_view_t table,
                                           bool *changed);
/* Reads a table in its encoding. */
DKT_CHECKED bool dkt_context_set_read_table(dkt_view_t bytes, dkt_table_t *table);

#endif
