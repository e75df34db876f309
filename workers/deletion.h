/* SPDX-License-Identifier: Apache-2.0
 *
 * The deletion of a tenant as steps that can be repeated: whoever leads finishes them, whoever
 * died.
 *
 *   active --asked (docket tenant delete)--> deleting: unknown to everybody from here on
 *     draining   its owner ends; under the owner's lock the rows are counted, and the database is
 *                given to an owner that never comes: `fenced`
 *                open promises that were not expected: back to active, `refused`
 *     fenced     waits for the export's manifest if one is wanted; then database and role are
 *                dropped, and in one transaction the row becomes a tombstone with the signed
 *                receipt, with audit and feed
 *
 * All of it blocks, on sessions of the caller's thread.
 */
#ifndef DKT_WORKERS_DELETION_H
#define DKT_WORKERS_DELETION_H

#include <libpq-fe.h>

#include "workers/mail.h"

/* Takes each deletion one step further, if it can go; `moved` tells how many did. One that fails
 * keeps no other waiting: its error is returned when all were tried. */
DKT_CHECKED dkt_status_t dkt_deletion_work(PGconn *conn, const dkt_env_t *env, uint32_t *moved,
                                           dkt_err_t *err);

#endif
