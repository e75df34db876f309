/* SPDX-License-Identifier: Apache-2.0
 *
 * A replica as another one pulls it over the link, in chunks.
 */
#include "lib/core/context.h"

/* How many records from `first` on fit, one at least. */
static uint16_t s_count(const dkt_context_t *context, uint32_t first, uint32_t records,
                        size_t bytes_max)
{
    size_t bytes = 0;
    uint32_t count = 0;
    while (first + count < records && count < UINT16_MAX) {
        bytes += sizeof(uint32_t) + dkt_context_bytes_at(context, first + count).len;
        if (bytes > bytes_max && count > 0) {
            break;
        }
        count++;
    }
    return (uint16_t)count;
}

uint16_t dkt_context_put_chunk(const dkt_context_t *self, const dkt_link_pull_t *pull,
                               size_t bytes_max, dkt_w_t *w)
{
    dkt_context_info_t info;
    dkt_context_info(self, &info);
    bool from_start = pull->after[0] == '\0';
    uint32_t first = dkt_context_after(self, pull->after);
    uint16_t count = s_count(self, first, info.records, bytes_max);
    dkt_link_chunk_t chunk = {.epoch = info.version.epoch,
                              .seq = info.version.seq,
                              .hash = info.hash,
                              .last = first + count == info.records};
    chunk.same = from_start && info.version.seq == pull->seq && info.version.epoch >= pull->epoch &&
                 info.hash == pull->hash;
    if (!chunk.same && from_start) {
        chunk.table = dkt_context_table_bytes(self);
    }
    dkt_link_put_chunk(w, &chunk);
    for (uint16_t i = 0; i < count && !chunk.same; i++) {
        dkt_link_put_view(w, dkt_context_bytes_at(self, first + i));
    }
    return chunk.same ? 0 : count;
}
