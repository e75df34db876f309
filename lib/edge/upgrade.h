/* SPDX-License-Identifier: Apache-2.0
 *
 * What the administrator does to bring databases to a newer schema. Databases that nobody owns (the
 * control database, the tenants' template, the pool) get their steps from here; a tenant's only has
 * them placed, its owner runs them (lib/core/tenant_migrate.c).
 *
 * All calls block, each for at most a few seconds for each step.
 */
#ifndef DKT_EDGE_UPGRADE_H
#define DKT_EDGE_UPGRADE_H

#include <libpq-fe.h>

#include "lib/edge/schema.h"

/* Runs what the database lacks, each step in a transaction of its own with its entry in
 * schema_version. `contracted`: contract steps up to this number may run (dkt_steps_target);
 * `version` is what it has then. */
DKT_CHECKED dkt_status_t dkt_upgrade_apply(const char *uri, const char *database,
                                           const dkt_steps_t *steps, int contracted, int *version,
                                           dkt_err_t *err);

/* How far contract steps of the tenants have been let loose; 0 in a control database that does not
 * know of it yet. */
DKT_CHECKED dkt_status_t dkt_upgrade_contracted(PGconn *control, int *contracted, dkt_err_t *err);
/* Lets those of `steps` loose up to their newest: from now on no worker with older code may own
 * tenants. */
DKT_CHECKED dkt_status_t dkt_upgrade_raise_floor(PGconn *control, const dkt_steps_t *steps,
                                                 dkt_err_t *err);

/* Brings the ready-made databases to `target`, in place, after the template: each is locked against
 * being taken meanwhile. Those that are being made are waited for first: they may be copies of an
 * older template. `control` is left with other time-outs than before. */
DKT_CHECKED dkt_status_t dkt_upgrade_pool(PGconn *control, const char *uri,
                                          const dkt_steps_t *steps, int target, dkt_err_t *err);

/* The tenant's version, which is all if it has `target` already; otherwise the steps up to it are
 * placed, so that its owner can run them. */
DKT_CHECKED dkt_status_t dkt_upgrade_place(const char *uri, const char *database,
                                           const dkt_steps_t *steps, int target, int *version,
                                           dkt_err_t *err);

#endif
