/* SPDX-License-Identifier: Apache-2.0
 *
 * Tenant context for brokers that ask for it over their link: this worker's replica, a chunk for
 * each question, so that a broker takes it at its own pace.
 */
#include <assert.h>
#include <stdlib.h>

#include "workers/node.h"

/* Header, records, table, and what each of them is preceded by. */
#define S_MESSAGE_BYTES_MAX (DKT_CONTEXT_CHUNK_BYTES + DKT_CONTEXT_TABLE_BYTES_MAX + 256)

_Static_assert(S_MESSAGE_BYTES_MAX <= DKT_LINK_BYTES_MAX, "a chunk is one message of the link");

/* Fills the chunk behind `pull->after`; returns how many records are in it. */
static uint16_t s_put_records(const dkt_context_t *context, const dkt_link_pull_t *pull, dkt_w_t *w)
{
    dkt_context_info_t info;
    dkt_context_info(context, &info);
    uint32_t first = dkt_context_after(context, pull->after);
    uint32_t index = first;
    size_t bytes = 0;
    while (index < info.records && index - first < UINT16_MAX) {
        bytes += sizeof(uint32_t) + dkt_context_bytes_at(context, index).len;
        if (bytes > DKT_CONTEXT_CHUNK_BYTES) {
            break;
        }
        index++;
    }
    bool from_start = pull->after[0] == '\0';
    dkt_link_chunk_t chunk = {.epoch = info.version.epoch,
                              .seq = info.version.seq,
                              .hash = info.hash,
                              .last = index == info.records};
    chunk.same = from_start && info.version.seq == pull->seq && info.version.epoch >= pull->epoch &&
                 info.hash == pull->hash;
    if (!chunk.same && from_start) {
        chunk.table = dkt_context_table_bytes(context);
    }
    dkt_link_put_chunk(w, &chunk);
    for (uint32_t i = first; i < index && !chunk.same; i++) {
        dkt_link_put_view(w, dkt_context_bytes_at(context, i));
    }
    return chunk.same ? 0 : (uint16_t)(index - first);
}

void dkt_node_context_pull(dkt_node_t *self, dkt_node_link_t *link, const dkt_link_pull_t *pull)
{
    dkt_context_info_t info;
    if (!self->env->replica) {
        return;
    }
    uint8_t *bytes = dkt_mail_alloc(S_MESSAGE_BYTES_MAX);
    dkt_w_t w = dkt_w_init(bytes, S_MESSAGE_BYTES_MAX);
    dkt_link_begin(&w, DKT_LINK_CONTEXT, self->table.version, &self->env->incarnation);
    const dkt_context_t *context = dkt_replica_lock(self->env->replica);
    dkt_context_info(context, &info);
    uint16_t count = s_put_records(context, pull, &w);
    dkt_replica_unlock(self->env->replica);
    dkt_link_finish(&w, count);
    assert(!w.failed);
    if (info.version.epoch > 0) { /* one that knows nothing yet is silent, and another is asked */
        dkt_node_send(link, w.data, w.len);
    }
    free(bytes);
}
