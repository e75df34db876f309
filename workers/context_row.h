/* SPDX-License-Identifier: Apache-2.0
 *
 * One tenant as the control database has it: the columns, and a record made of them. Who reads a
 * tenant's context from there reads it with these.
 */
#ifndef DKT_WORKERS_CONTEXT_ROW_H
#define DKT_WORKERS_CONTEXT_ROW_H

#include <libpq-fe.h>
#include <stdbool.h>

#include "lib/core/context.h"

/* Of `tenants t join clusters c on c.name = t.cluster`; the first is the client_id. */
#define DKT_CONTEXT_COLUMNS                                                                        \
    " t.client_id, t.suspended, t.revision,"                                                       \
    " floor (extract (epoch from t.created_at) * 1000)::bigint, t.cluster, c.host, c.port,"        \
    " t.database, t.sub_domain, t.name, t.email, t.settings"

/* False: this row is none of ours; the columns begin with `first`. */
DKT_CHECKED bool dkt_context_read_row(const PGresult *result, int row, int first,
                                      dkt_context_record_t *record);

#endif
