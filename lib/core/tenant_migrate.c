/* SPDX-License-Identifier: Apache-2.0
 *
 * One step of the schema, run by the owner between two groups: on its own connection and under its
 * epoch, so that nobody else can, and so that no request waits longer than the step.
 *
 *   target 0 -MIGRATE-> wanted -quiet-> sent -RESULT-> target 0, told to the shell
 *
 * From `wanted` on nothing new is decided, and what was decided commits first. A group that waited
 * behind a step could be too late for its earliest slot; a request that waits is decided afterwards
 * with the time of then. A step that fails has been undone inside its transaction (docket_migrate):
 * the tenant goes on with the schema it has.
 */
#include <assert.h>
#include <string.h>

#include "lib/core/plant.h"
#include "lib/core/tenant_impl.h"

void dkt_tenant_on_migrate(dkt_tenant_t *self, const dkt_tenant_event_t *event)
{
    assert(event->schema_version > 0);
    if (!self->migrate_sent) { /* the shell hears of the one on its way and asks again */
        self->migrate_target = event->schema_version;
    }
}

bool dkt_tenant_migrate(dkt_tenant_t *self)
{
    if (self->migrate_target == 0) {
        return false;
    }
    if (!self->migrate_sent && dkt_tenant_quiet(self)) {
        dkt_batch_t batch = {.kind = DKT_BATCH_MIGRATE,
                             .epoch = DKT_PLANTED(MIGRATE_UNGUARDED) ? 0 : self->epoch,
                             .migrate_target = self->migrate_target};
        self->migrate_sent = true;
        self->migrate_mono_ms = self->mono_ms;
        self->port.submit(self->port.ctx, &batch);
    }
    return true;
}

/* Somebody else's lock, or too little time: it may go better in a moment. */
static dkt_migrate_outcome_t s_outcome(const char *sqlstate)
{
    static const char *const later[] = {"55P03", "57014", "40P01", "40001"};
    for (size_t i = 0; i < sizeof later / sizeof later[0]; i++) {
        if (strcmp(sqlstate, later[i]) == 0) {
            return DKT_MIGRATE_LATER;
        }
    }
    return sqlstate[0] ? DKT_MIGRATE_FAILED : DKT_MIGRATE_RAN;
}

void dkt_tenant_migrated(dkt_tenant_t *self, const dkt_store_result_t *result)
{
    assert(self->migrate_sent);
    dkt_migrated_t migrated = {.target = self->migrate_target,
                               .version = result->schema_version,
                               .outcome = s_outcome(result->sqlstate),
                               .text = result->text};
    self->migrate_sent = false;
    self->migrate_target = 0;
    self->port.migrated(self->port.ctx, &migrated);
}
