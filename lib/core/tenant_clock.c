/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/tenant_clock.h"

#define MS_PER_S 1000

dkt_status_t dkt_tenant_clock_start(dkt_tenant_clock_t *self, int64_t db_ms,
                                    int64_t last_journal_ms, int64_t mono_ms)
{
    if (last_journal_ms - db_ms > DKT_CLOCK_BEHIND_MAX_MS) {
        return DKT_CONFLICT;
    }
    self->base_ms = db_ms > last_journal_ms ? db_ms : last_journal_ms;
    self->base_mono_ms = mono_ms;
    self->slew_ms = 0;
    return DKT_OK;
}

/* How much of the slew has been let in after `elapsed_ms`. */
static int64_t s_slewed(const dkt_tenant_clock_t *self, int64_t elapsed_ms)
{
    int64_t most_ms = elapsed_ms * DKT_CLOCK_SLEW_PER_S / MS_PER_S;
    if (self->slew_ms >= 0) {
        return self->slew_ms < most_ms ? self->slew_ms : most_ms;
    }
    return -self->slew_ms < most_ms ? self->slew_ms : -most_ms;
}

int64_t dkt_tenant_clock_now(const dkt_tenant_clock_t *self, int64_t mono_ms)
{
    int64_t elapsed_ms = mono_ms > self->base_mono_ms ? mono_ms - self->base_mono_ms : 0;
    return self->base_ms + elapsed_ms + s_slewed(self, elapsed_ms);
}

bool dkt_tenant_clock_read(dkt_tenant_clock_t *self, int64_t db_ms, int64_t sent_mono_ms,
                           int64_t received_mono_ms)
{
    int64_t now_ms = dkt_tenant_clock_now(self, received_mono_ms);
    /* The reading happened somewhere between sent and received, so the difference is known only as
     * an interval; inside it we are right already. */
    int64_t least_ms = db_ms - now_ms;
    int64_t most_ms = db_ms - dkt_tenant_clock_now(self, sent_mono_ms);
    int64_t difference_ms = least_ms > 0 ? least_ms : most_ms < 0 ? most_ms : 0;
    if (difference_ms > DKT_CLOCK_SLEW_MAX_MS) {
        return false;
    }
    self->base_ms = now_ms;
    self->base_mono_ms = received_mono_ms;
    self->slew_ms = difference_ms < -DKT_CLOCK_SLEW_MAX_MS ? 0 : difference_ms;
    return true;
}
