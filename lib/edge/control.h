/* SPDX-License-Identifier: Apache-2.0
 *
 * The control database: made once by whoever starts a fleet, read and written by the directory of
 * every worker. All calls here block for at most a few seconds (connect_timeout and
 * statement_timeout); they are for start-up and for threads of their own, never for a loop that
 * serves requests.
 *
 * A URI names the control database: postgresql://docket@127.0.0.1:PORT/docket_control?passfile=..
 * Other databases of the same cluster are reached by replacing its database name.
 */
#ifndef DKT_EDGE_CONTROL_H
#define DKT_EDGE_CONTROL_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>

#include "lib/core/status.h"

#define DKT_CONTROL_URI_BYTES_MAX 1024 /* a URI with its parameters and NUL */
#define DKT_CONTROL_TEMPLATE      "docket_template"
#define DKT_CONTROL_TENANT_ROLE   "docket_tenant"

/* Idempotent, and safe to run from several processes at once (an advisory lock in `postgres`):
 *   - the control database exists and has the numbered steps of schemas/control, but of those that
 *     an older fleet lacks only what older code can live with (dkt_steps_target)
 *   - the group role docket_tenant exists (NOLOGIN)
 *   - docket_template exists with the steps of schemas/tenant in the same way, is a template nobody
 *     can connect to
 *   - nothing in `postgres`, `template1`, the control database or the template is open to PUBLIC
 *   - the cluster of the URI is registered as "local" in `clusters`
 * `keys_folder` must hold master.key: roles made from here on derive their passwords from it.
 * UNAVAILABLE: the database cannot be reached. INTERNAL: it refused a step, err->text says which.
 */
DKT_CHECKED dkt_status_t dkt_control_bootstrap(const char *admin_uri, const char *keys_folder,
                                               dkt_err_t *err);

/* The schemas alone, of a fleet that may be running: control database and template get the steps
 * they lack. `contract`: contract steps as well, and those of the tenants are let loose; the caller
 * knows that no older code is left. */
DKT_CHECKED dkt_status_t dkt_control_upgrade(const char *uri, bool contract, dkt_err_t *err);

/* Enters a broker, or renews its entry; `workers_address` is what workers connect to. */
DKT_CHECKED dkt_status_t dkt_control_register_broker(const char *uri, const char *node,
                                                     const char *workers_address, dkt_err_t *err);
/* Removes the entry if it still has this address. */
DKT_CHECKED dkt_status_t dkt_control_deregister_broker(const char *uri, const char *node,
                                                       const char *workers_address, dkt_err_t *err);

/* -- for the modules that talk to it -- */

/* A session with our settings: connect_timeout 2 s, statement_timeout 2 s, keep-alives 1/1/3,
 * search_path fixed, `application_name` docket/`who`. `database` replaces the URI's database name;
 * NULL keeps it. On failure NULL, and err is UNAVAILABLE with libpq's text. */
PGconn *dkt_control_connect(const char *uri, const char *database, const char *who, dkt_err_t *err);

/* Runs one statement with text parameters. NULL on failure, err filled (sqlstate and text);
 * otherwise the caller clears the result. `params` may be NULL when count is 0. */
PGresult *dkt_control_run(PGconn *conn, const char *sql, int count, const char *const *params,
                          dkt_err_t *err);

/* For a statement that somebody waits for: it is parsed once in a session and planned a few times,
 * under a name, and run by that. */
DKT_CHECKED dkt_status_t dkt_control_keep(PGconn *conn, const char *name, const char *sql,
                                          dkt_err_t *err);
PGresult *dkt_control_run_kept(PGconn *conn, const char *name, int count, const char *const *params,
                               dkt_err_t *err);

/* dkt_control_run where no rows are wanted. `err` is required. */
DKT_CHECKED dkt_status_t dkt_control_exec(PGconn *conn, const char *sql, int count,
                                          const char *const *params, dkt_err_t *err);
/* Did the last failure have this SQLSTATE? */
bool dkt_control_is_state(const dkt_err_t *err, const char *sqlstate);

/* Host and port of the session, for tenant stores of the same cluster. */
const char *dkt_control_host(const PGconn *conn);
const char *dkt_control_port(const PGconn *conn);

#endif
