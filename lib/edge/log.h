/* SPDX-License-Identifier: Apache-2.0
 *
 * The log: one line per event on stderr, each a single write, so that lines of several threads (and
 * of several processes on one file opened for appending) never mix.
 *   2026-11-22T09:00:00.123Z INFO worker/worker-0: text
 * Environment DOCKET_LOG = debug, info (default), warn or error is the lowest level shown.
 */
#ifndef DKT_EDGE_LOG_H
#define DKT_EDGE_LOG_H

#include "lib/core/tenant.h" /* dkt_log_level_t */

/* Once, before any thread is started. `role` and `node` are copied. */
void dkt_log_init(const char *role, const char *node);

/* Thread-safe. Longer texts are cut at DKT_LOG_LINE_BYTES_MAX; control characters become spaces, so
 * that nobody's text can forge a line. */
void dkt_log(dkt_log_level_t level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
