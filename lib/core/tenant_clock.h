/* SPDX-License-Identifier: Apache-2.0
 *
 * Tenant time (page 3): the tenant database's clock, read with every guard, carried on by the
 * monotonic clock between readings. It never goes back: small differences are slewed in at 1 ms/s.
 */
#ifndef DKT_CORE_TENANT_CLOCK_H
#define DKT_CORE_TENANT_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/core/status.h"

#define DKT_CLOCK_SLEW_MAX_MS   2000  /* a larger step forward ends the actor */
#define DKT_CLOCK_SLEW_PER_S    1     /* milliseconds slewed in per second */
#define DKT_CLOCK_BEHIND_MAX_MS 60000 /* behind the last row by more: stay closed */

typedef struct {
    int64_t base_us;      /* tenant time at base_mono_ms: microseconds, or readings closer than a
                             second would each drop the millisecond that is being slewed in */
    int64_t base_mono_ms; /* monotonic */
    int64_t slew_us;      /* still to be slewed in, either sign */
} dkt_tenant_clock_t;

/* Starts at max (db_ms, last_ms). CONFLICT: the database's clock is so far behind its own
 * journal that an operator has to look. */
DKT_CHECKED dkt_status_t dkt_tenant_clock_start(dkt_tenant_clock_t *self, int64_t db_ms,
                                                int64_t last_ms, int64_t mono_ms);

/* Tenant time; grows with mono_ms. */
int64_t dkt_tenant_clock_now(const dkt_tenant_clock_t *self, int64_t mono_ms);

/* A reading taken between sent and received (monotonic). False: the database's clock is more than
 * DKT_CLOCK_SLEW_MAX_MS ahead, activate anew. */
DKT_CHECKED bool dkt_tenant_clock_read(dkt_tenant_clock_t *self, int64_t db_ms,
                                       int64_t sent_mono_ms, int64_t received_mono_ms);

#endif
