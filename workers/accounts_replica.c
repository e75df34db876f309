/* SPDX-License-Identifier: Apache-2.0
 *
 * get_tenant and list_tenants while the control database is gone: out of this worker's replica. Who
 * is not in it may exist all the same.
 */
#include "workers/accounts_internal.h"

bool dkt_accounts_get_known(dkt_replica_t *replica, const dkt_client_t *client, uint32_t msgid,
                            dkt_w_t *w)
{
    dkt_context_record_t record;
    if (!dkt_replica_find(replica, client, &record)) {
        return false;
    }
    dkt_accounts_write_tenant(w, msgid, &record);
    return true;
}

typedef struct {
    const dkt_context_t *context;
    uint32_t first;
} s_from_t;

static bool s_at(const void *ctx, uint32_t index, dkt_context_record_t *record)
{
    const s_from_t *from = ctx;
    return dkt_context_at(from->context, from->first + index, record);
}

bool dkt_accounts_list_known(dkt_replica_t *replica, const dkt_request_t *request, dkt_w_t *w)
{
    char after[DKT_ID_CHARS_MAX + 1];
    dkt_context_info_t info;
    dkt_accounts_after(request, after);
    s_from_t from = {.context = dkt_replica_lock(replica)};
    dkt_context_info(from.context, &info);
    from.first = dkt_context_after(from.context, after);
    dkt_accounts_rows_t rows = {.at = s_at, .ctx = &from, .count = info.records - from.first};
    dkt_accounts_write_page(w, request, &rows);
    dkt_replica_unlock(replica);
    return info.version.epoch > 0;
}
