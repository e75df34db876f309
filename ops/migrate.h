/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of `docket migrate`:
 *   migrate.c         options, and the order of the phases
 *   migrate_walk.c    tenant by tenant: place the steps, ask the owner, wait for what came of it
 *   migrate_finish.c  who stands in the way of contract steps
 *   migrate_status.c  how far all are
 */
#ifndef DKT_OPS_MIGRATE_H
#define DKT_OPS_MIGRATE_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/core/limits.h"
#include "lib/edge/schema.h"

typedef struct {
    char client_id[DKT_ID_CHARS_MAX + 1];
    int64_t asked_mono_ms;
} dkt_migrate_open_t;

typedef struct {
    const char *uri;
    bool json;
    PGconn *conn; /* control database, with the command's lock */
    dkt_steps_t *control_steps, *tenant_steps;
    int target;     /* of the tenants */
    char begun[64]; /* by the control database's clock: what failed later than that, failed now */
    uint32_t window, open_count;
    dkt_migrate_open_t open[DKT_UPGRADES_MAX]; /* asked, not answered */
    uint32_t total, done, failed;
    uint32_t unplaced; /* of those that failed: nobody got as far as to ask an owner */
    int64_t begun_mono_ms, shown_mono_ms;
} dkt_migrate_t;

/* Brings every tenant to self->target, or notes why not. OK also if some failed. */
DKT_CHECKED dkt_status_t dkt_migrate_walk(dkt_migrate_t *self, dkt_err_t *err);

/* Prints who stands in the way of contract steps; `clear`: nobody. */
DKT_CHECKED dkt_status_t dkt_migrate_may_finish(dkt_migrate_t *self, bool *clear, dkt_err_t *err);

/* Prints the state of the fleet; `all`: every tenant has the target. */
DKT_CHECKED dkt_status_t dkt_migrate_status(dkt_migrate_t *self, bool *all, dkt_err_t *err);
/* What the run came to, with those that failed. */
DKT_CHECKED dkt_status_t dkt_migrate_summary(dkt_migrate_t *self, dkt_err_t *err);

#endif
