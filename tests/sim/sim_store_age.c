/* SPDX-License-Identifier: Apache-2.0
 *
 * What age takes from the simulated database. All of a kind in one step: the steps of the real one
 * are the adapter's.
 */
#include <string.h>

#include "tests/sim/sim_store.h"

static void s_age_request_ids(sim_store_t *self, const dkt_age_step_t *step,
                              dkt_store_result_t *out)
{
    for (uint32_t i = 0; i < self->ticket_count; i++) {
        dkt_ticket_row_t *row = &self->tickets[i].row;
        if (row->created_ms < step->before_ms) {
            memset(&row->request_id, 0, sizeof row->request_id);
            out->aged_count++;
        }
    }
}

static void s_age_tickets(sim_store_t *self, const dkt_age_step_t *step, dkt_store_result_t *out)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < self->ticket_count; i++) {
        const dkt_ticket_row_t *row = &self->tickets[i].row;
        bool over = row->state == DKT_TICKET_RESOLVED || row->state == DKT_TICKET_CANCELLED ||
                    (row->state == DKT_TICKET_DISPATCHED && row->breached);
        if (over && row->created_ms < step->before_ms - self->tickets_kept_ms &&
            i + step->keep < self->ticket_count) {
            self->aged[row->number] = true;
            out->aged_count++;
        } else {
            self->tickets[kept++] = self->tickets[i];
        }
    }
    self->ticket_count = kept;
    sim_store_fix_views(self);
}

static void s_age_journal(sim_store_t *self, const dkt_age_step_t *step, dkt_store_result_t *out)
{
    while (self->journal_first + step->keep <= self->journal_seq &&
           self->journal_times_ms[self->journal_first] < step->before_ms) {
        self->journal_first++;
        out->aged_count++;
    }
}

void sim_store_age(sim_store_t *self, const dkt_age_step_t *step, dkt_store_result_t *out)
{
    switch (step->kind) {
    case DKT_AGE_REQUEST_IDS:
        s_age_request_ids(self, step, out);
        return;
    case DKT_AGE_TICKETS:
        s_age_tickets(self, step, out);
        return;
    case DKT_AGE_JOURNAL:
        s_age_journal(self, step, out);
        return;
    case DKT_AGE_REST:
    case DKT_AGE_COUNT:
        return;
    }
}
