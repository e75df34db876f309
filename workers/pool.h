/* SPDX-License-Identifier: Apache-2.0
 *
 * The pool of ready-made tenant databases, so that create_account never waits for CREATE DATABASE.
 * Its threads also delete tenants (deletion.h).
 * DKT_POOL_MAKERS threads with a session each; they work while this worker's directory leads.
 */
#ifndef DKT_WORKERS_POOL_H
#define DKT_WORKERS_POOL_H

#include <libpq-fe.h>

#include "workers/mail.h"

typedef struct dkt_pool dkt_pool_t;

/* NULL: no thread. `env` outlives it; env->stopping ends it. */
dkt_pool_t *dkt_pool_new(dkt_env_t *env);
void dkt_pool_destroy(dkt_pool_t **self_p);

/* Makes one database if fewer than `ready_min` are there or on their way; `made` tells. Blocks for
 * 0.1 s and more. */
DKT_CHECKED dkt_status_t dkt_pool_fill_one(PGconn *conn, const dkt_env_t *env, uint32_t ready_min,
                                           bool *made, dkt_err_t *err);

/* Removes what a maker that died left half-made more than a minute ago. */
DKT_CHECKED dkt_status_t dkt_pool_clean(PGconn *conn, dkt_err_t *err);

/* A statement that may take long, at most the session's statement_timeout. A worker that is told to
 * stop does not wait for its end: then false, as after an error, and the session is of no more use.
 */
DKT_CHECKED bool dkt_pool_long(const dkt_env_t *env, PGconn *conn, const char *sql);

#endif
