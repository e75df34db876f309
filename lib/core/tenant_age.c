/* SPDX-License-Identifier: Apache-2.0
 *
 * Data does not grow for ever: the owner drops what is old, a few rows at a time. A round walks
 * through the kinds of dkt_age_kind_t, each from its oldest row on until one is too young.
 *
 * A step goes out when nothing else is under way. A tenant that is never quiet makes room for one
 * after DKT_AGE_PATIENCE_MS: behind the group in flight, when all that was decided is on its way
 * and nothing that was looked up waits to be decided. Then whatever is decided later was looked up
 * after the step, and no group changes a row that the step has taken.
 *
 * The rows are older than every replay and every live promise, so memory need not hear of them: the
 * ledger holds open tickets and dispatched ones before their deadline, which no step touches, and a
 * remembered request id whose row has lost it is decided anew (s_known_in_memory).
 */
#include <assert.h>
#include <stdio.h>

#include "lib/core/plant.h"
#include "lib/core/tenant_impl.h"

#define DAY_MS INT64_C(86400000)

dkt_age_config_t dkt_age_config(int64_t round_ms)
{
    assert(round_ms >= 0 && round_ms <= DKT_AGE_ROUND_MS);
    return (dkt_age_config_t){.round_ms = round_ms,
                              .first_ms = round_ms < DKT_AGE_FIRST_MS ? round_ms : DKT_AGE_FIRST_MS,
                              .pause_ms = DKT_AGE_PAUSE_MS,
                              .request_ids_ms = DKT_AGE_REQUEST_IDS_MS,
                              .journal_ms = DKT_RELAY_KEEP_DAYS * DAY_MS,
                              .unpublished_ms = DKT_AGE_UNPUBLISHED_DAYS * DAY_MS};
}

/* A thousand tenants that were activated together do not look together. */
static int64_t s_jitter_ms(const dkt_tenant_t *self)
{
    return self->config.age.first_ms * dkt_client_vshard(&self->config.client) / DKT_VSHARDS;
}

void dkt_tenant_age_begin(dkt_tenant_t *self)
{
    const dkt_age_config_t *config = &self->config.age;
    if (config->round_ms == 0) {
        return;
    }
    self->age.state = DKT_AGE_RESTING;
    self->age.due_mono_ms =
        self->mono_ms + (config->at_once ? 0 : config->first_ms + s_jitter_ms(self));
}

static bool s_is_due(const dkt_tenant_t *self)
{
    const dkt_age_t *age = &self->age;
    return self->state == DKT_TENANT_SERVING &&
           (age->state == DKT_AGE_RESTING || age->state == DKT_AGE_PAUSING) &&
           age->due_mono_ms <= self->mono_ms;
}

bool dkt_tenant_age_presses(const dkt_tenant_t *self)
{
    return s_is_due(self) && self->mono_ms - self->age.due_mono_ms >= DKT_AGE_PATIENCE_MS;
}

int64_t dkt_tenant_age_due_mono_ms(const dkt_tenant_t *self)
{
    if (s_is_due(self)) {
        /* Not a good moment. The next result is one, or this. */
        return self->mono_ms + self->config.age.pause_ms;
    }
    bool waits = self->age.state == DKT_AGE_RESTING || self->age.state == DKT_AGE_PAUSING;
    return waits ? self->age.due_mono_ms : INT64_MAX;
}

bool dkt_tenant_age_owes(const dkt_tenant_t *self)
{
    return self->config.age.at_once && self->age.state != DKT_AGE_OFF && self->age.rounds == 0;
}

/* Before when what goes was made, or has expired. */
static int64_t s_before_ms(const dkt_tenant_t *self)
{
    const dkt_age_config_t *config = &self->config.age;
    switch (self->age.kind) {
    case DKT_AGE_REQUEST_IDS:
        return self->now_ms - config->request_ids_ms / (DKT_PLANTED(AGE_TOO_EAGER) ? 2 : 1);
    case DKT_AGE_JOURNAL:
        return self->now_ms - config->journal_ms;
    case DKT_AGE_TICKETS: /* the settings tell how long before */
    case DKT_AGE_REST:
    case DKT_AGE_COUNT:
        break;
    }
    return self->now_ms;
}

bool dkt_tenant_age_ready(const dkt_tenant_t *self)
{
    bool open = !dkt_group_empty(self->gathering) || self->read_sent;
    bool quiet = !self->inflight && !self->guard_sent && self->need_count == 0 &&
                 dkt_works_empty(&self->waiting) && dkt_works_empty(&self->solo);
    return s_is_due(self) && !open && (quiet || dkt_tenant_age_presses(self));
}

void dkt_tenant_age_flush(dkt_tenant_t *self)
{
    dkt_age_t *age = &self->age;
    if (!dkt_tenant_age_ready(self)) {
        return;
    }
    dkt_batch_t batch = {
        .kind = DKT_BATCH_AGE,
        .epoch = self->epoch,
        .age = {.kind = age->kind,
                .before_ms = s_before_ms(self),
                .unpublished_before_ms = self->now_ms - self->config.age.unpublished_ms,
                .after = age->after,
                .limit = age->kind == DKT_AGE_REQUEST_IDS ? DKT_AGE_STEP_IDS : DKT_AGE_STEP_ROWS,
                .keep = DKT_PLANTED(AGE_DROPS_NEWEST) ? 0 : 1}};
    age->state = DKT_AGE_SENT;
    age->sent_mono_ms = self->mono_ms;
    self->port.submit(self->port.ctx, &batch);
}

/* What is gone was never seen by anybody who listens: only NATS being away for a month does that.
 */
static void s_tell_unpublished(dkt_tenant_t *self, uint64_t count)
{
    char text[DKT_ERR_TEXT_BYTES_MAX];
    if (count == 0 || self->age.told_unpublished) {
        return;
    }
    self->age.told_unpublished = true;
    snprintf(text, sizeof text,
             "events are lost: nothing was published for %d days, and the oldest of the journal's "
             "rows are deleted now (%llu in this step)",
             DKT_AGE_UNPUBLISHED_DAYS, (unsigned long long)count);
    self->port.log(self->port.ctx, DKT_LOG_ERROR, text);
}

static void s_rest(dkt_tenant_t *self)
{
    dkt_age_t *age = &self->age;
    age->state = DKT_AGE_RESTING;
    age->kind = 0;
    age->rounds++;
    age->due_mono_ms = self->mono_ms + self->config.age.round_ms;
    dkt_revoked_forget(&self->revoked, self->now_ms);
}

void dkt_tenant_age_result(dkt_tenant_t *self, const dkt_store_result_t *result)
{
    dkt_age_t *age = &self->age;
    assert(age->state == DKT_AGE_SENT);
    self->counts.aged += result->aged_count;
    s_tell_unpublished(self, result->aged_unpublished_count);
    age->state = DKT_AGE_PAUSING;
    age->due_mono_ms = self->mono_ms + (result->aged_count > 0 ? self->config.age.pause_ms : 0);
    age->after = result->aged_to;
    if (result->aged_more && ++age->steps < DKT_AGE_STEPS_MAX) {
        return;
    }
    age->steps = 0;
    age->after = 0;
    if (++age->kind == DKT_AGE_COUNT) {
        s_rest(self);
    }
}
