/* SPDX-License-Identifier: Apache-2.0
 *
 * A session of a command's own on the fleet's server: the proof and the benchmarks read whole
 * tables, so it has none of the time-outs of lib/edge/control.
 */
#ifndef DKT_OPS_PG_CONNECT_H
#define DKT_OPS_PG_CONNECT_H

#include <libpq-fe.h>

/* The caller's, connected or not (PQstatus). `options` as of PQconninfoParse, borrowed; `database`
 * NULL: the one they name. */
PGconn *dkt_pg_connect(const PQconninfoOption *options, const char *database);

#endif
