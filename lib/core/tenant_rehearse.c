/* SPDX-License-Identifier: Apache-2.0
 *
 * The first use of a statement costs a session several times what later ones do: it is parsed and
 * planned, and the catalogs are read for that. The first dispatch takes 0.85 ms of the backend
 * instead of 0.34 in a warm one, and 3 ms were seen in a session that had done little else. A
 * worker whose thousand tenants were activated lately would pay that for all of them in the two
 * seconds before their first minute. So each owner dispatches nothing at all once, at a moment of
 * its own between the first open ticket and the first dispatch.
 */
#include <assert.h>

#include "lib/core/tenant_impl.h"

/* Tenants that have their first tickets together do not rehearse together, and all in time. */
static void s_plan(dkt_tenant_t *self)
{
    dkt_ledger_counts_t counts;
    dkt_ledger_counts(self->ledger, &counts);
    int64_t left_ms = counts.open > 0 ? dkt_ledger_due_ms(self->ledger) - self->now_ms : 0;
    if (left_ms <= 0) {
        return; /* a tick that is due comes first: it dispatches, or looks at the next minute */
    }
    int64_t place = dkt_client_vshard(&self->config.client);
    self->rehearsal.state = DKT_REHEARSAL_PLANNED;
    self->rehearsal.due_mono_ms = self->mono_ms + left_ms * place / DKT_VSHARDS;
}

bool dkt_tenant_rehearsal_ready(const dkt_tenant_t *self)
{
    return self->state == DKT_TENANT_SERVING && self->rehearsal.state == DKT_REHEARSAL_PLANNED &&
           self->rehearsal.due_mono_ms <= self->mono_ms && self->held == 0 &&
           dkt_tenant_quiet(self) && self->age.state != DKT_AGE_SENT && !self->migrate_sent;
}

void dkt_tenant_rehearse(dkt_tenant_t *self)
{
    if (self->rehearsal.state == DKT_REHEARSAL_NONE && self->config.rehearses &&
        self->state == DKT_TENANT_SERVING) {
        s_plan(self);
    }
    if (!dkt_tenant_rehearsal_ready(self)) {
        return;
    }
    dkt_batch_t batch = {.kind = DKT_BATCH_REHEARSE, .epoch = self->epoch};
    self->rehearsal.state = DKT_REHEARSAL_SENT;
    self->rehearsal.sent_mono_ms = self->mono_ms;
    self->port.submit(self->port.ctx, &batch);
}

void dkt_tenant_rehearsed(dkt_tenant_t *self)
{
    self->rehearsal.state = DKT_REHEARSAL_DONE;
}

int64_t dkt_tenant_rehearsal_due_mono_ms(const dkt_tenant_t *self)
{
    /* Past that moment something is under way, and its result brings a turn. */
    bool waits = self->rehearsal.state == DKT_REHEARSAL_PLANNED &&
                 self->rehearsal.due_mono_ms > self->mono_ms;
    return waits ? self->rehearsal.due_mono_ms : INT64_MAX;
}
