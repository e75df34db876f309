/* SPDX-License-Identifier: Apache-2.0
 *
 * A private PostgreSQL for C unit tests: a cluster of its own in a temporary folder on a free port
 * of 127.0.0.1, run as user `postgres` when the test is root. A keeper process ends the server and
 * removes the folder when the test stops it, and also when the test dies. Everything here asserts:
 * a test that has no database cannot go on.
 */
#ifndef DKT_TESTS_SUPPORT_PG_H
#define DKT_TESTS_SUPPORT_PG_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct support_pg support_pg_t;

/* Starts a cluster with superuser `postgres` (no password needed from 127.0.0.1), the database
 * docket_template (schemas/tenant/NNN-*.sql applied in order) and the role docket_tenant.
 * `durable`: fsync on. */
support_pg_t *support_pg_start(bool durable);
void support_pg_stop(support_pg_t **self_p);

uint16_t support_pg_port(const support_pg_t *self);
/* "host=127.0.0.1 port=N user=postgres", to which dbname=.. can be appended. */
const char *support_pg_conninfo(const support_pg_t *self);

/* Creates the login role `name`, a member of docket_tenant, and its database `name` from the
 * template, which only that role may connect to. */
void support_pg_tenant(support_pg_t *self, const char *name);

/* A blocking connection as `user` (NULL: postgres), for setting up and looking behind. */
PGconn *support_pg_connect(const support_pg_t *self, const char *database, const char *user);
/* Runs SQL, asserts that it succeeds. */
void support_pg_exec(PGconn *conn, const char *sql);
/* First column of the first row as a number; asserts that there is one. */
int64_t support_pg_int(PGconn *conn, const char *sql);
/* First column of the first row as text, cut to `size`; "" if null or no row. */
void support_pg_text(PGconn *conn, const char *sql, char *out, size_t size);

/* A port of 127.0.0.1 that was free a moment ago. */
uint16_t support_free_port(void);

#endif
