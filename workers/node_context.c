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
    uint16_t count = dkt_context_put_chunk(context, pull, DKT_CONTEXT_CHUNK_BYTES, &w);
    dkt_replica_unlock(self->env->replica);
    dkt_link_finish(&w, count);
    assert(!w.failed);
    if (info.version.epoch > 0) { /* one that knows nothing yet is silent, and another is asked */
        dkt_node_send(link, w.data, w.len);
    }
    free(bytes);
}
