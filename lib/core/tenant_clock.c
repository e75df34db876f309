/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/tenant_clock.h"

#define US_PER_MS      1000
#define SLEW_US_PER_MS DKT_CLOCK_SLEW_PER_S /* so many ms in a second are so many us in a ms */

dkt_status_t dkt_tenant_clock_start(dkt_tenant_clock_t *self, int64_t db_ms, int64_t last_ms,
                                    int64_t mono_ms)
{
    if (last_ms - db_ms > DKT_CLOCK_BEHIND_MAX_MS) {
        return DKT_CONFLICT;
    }
    self->base_us = (db_ms > last_ms ? db_ms : last_ms) * US_PER_MS;
    self->base_mono_ms = mono_ms;
    self->slew_us = 0;
    return DKT_OK;
}

/* How much of the slew has been let in after `elapsed_ms`. */
static int64_t s_slewed_us(const dkt_tenant_clock_t *self, int64_t elapsed_ms)
{
    int64_t most_us = elapsed_ms * SLEW_US_PER_MS;
    if (self->slew_us >= 0) {
        return self->slew_us < most_us ? self->slew_us : most_us;
    }
    return -self->slew_us < most_us ? self->slew_us : -most_us;
}

static int64_t s_now_us(const dkt_tenant_clock_t *self, int64_t mono_ms)
{
    int64_t elapsed_ms = mono_ms > self->base_mono_ms ? mono_ms - self->base_mono_ms : 0;
    return self->base_us + elapsed_ms * US_PER_MS + s_slewed_us(self, elapsed_ms);
}

int64_t dkt_tenant_clock_now(const dkt_tenant_clock_t *self, int64_t mono_ms)
{
    return s_now_us(self, mono_ms) / US_PER_MS;
}

bool dkt_tenant_clock_read(dkt_tenant_clock_t *self, int64_t db_ms, int64_t sent_mono_ms,
                           int64_t received_mono_ms)
{
    int64_t now_us = s_now_us(self, received_mono_ms);
    int64_t now_ms = now_us / US_PER_MS;
    /* The reading happened somewhere between sent and received, so the difference is known only as
     * an interval; inside it we are right already. */
    int64_t least_ms = db_ms - now_ms;
    int64_t most_ms = least_ms + (received_mono_ms - sent_mono_ms);
    int64_t difference_ms = least_ms > 0 ? least_ms : most_ms < 0 ? most_ms : 0;
    if (difference_ms > DKT_CLOCK_SLEW_MAX_MS) {
        return false;
    }
    self->base_us = now_us;
    self->base_mono_ms = received_mono_ms;
    self->slew_us = difference_ms < -DKT_CLOCK_SLEW_MAX_MS ? 0 : difference_ms * US_PER_MS;
    return true;
}
