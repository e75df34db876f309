/* SPDX-License-Identifier: Apache-2.0
 *
 * Works: their lists, and what was decoded of them before they came to the core.
 */
#include <string.h>

#include "lib/core/tenant_impl.h"

/* -- lists -- */

void dkt_works_push(dkt_works_t *works, dkt_work_t *work)
{
    work->next = NULL;
    if (works->tail) {
        works->tail->next = work;
    } else {
        works->head = work;
    }
    works->tail = work;
    works->count++;
}

dkt_work_t *dkt_works_pop(dkt_works_t *works)
{
    dkt_work_t *work = works->head;
    if (work) {
        works->head = work->next;
        if (!works->head) {
            works->tail = NULL;
        }
        works->count--;
    }
    return work;
}

/* -- what is to come -- */

void dkt_tenant_fetch(const dkt_tenant_t *self, const dkt_uuid_t *request_id, bool soon)
{
    dkt_memo_fetch(&self->memo, request_id, soon);
}

/* -- what was decoded -- */

void dkt_work_keep(dkt_work_t *work, const dkt_request_t *request)
{
    uint32_t tables = DKT_PARAM_BIT(CLASSES) | DKT_PARAM_BIT(LIMITS);
    work->kept = request->argument.status == DKT_OK && (request->present & tables) == 0;
    if (work->kept) {
        memcpy(work->head, request, sizeof work->head);
    }
}

dkt_status_t dkt_work_decode(const dkt_work_t *work, dkt_request_t *out, dkt_err_t *err)
{
    if (!work->kept) {
        return dkt_request_decode(work->body, work->len, out, err);
    }
    memcpy(out, work->head, sizeof work->head);
    out->argument.status = DKT_OK;
    out->argument.retry_after_ms = 0;
    out->argument.field[0] = out->argument.text[0] = '\0';
    return DKT_OK;
}
