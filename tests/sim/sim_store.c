/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_store.h"

#include <assert.h>
#include <msgpack.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/core/group.h"

#define SQLSTATE_STALE      "DK001"
#define SQLSTATE_TOO_LATE   "DK002"
#define SQLSTATE_UNEXPECTED "DK003"
#define SQLSTATE_UNIQUE     "23505"
#define SQLSTATE_POISON     "P0001"
#define EVENT_FIELDS        7

void sim_store_init(sim_store_t *self, const dkt_settings_t *settings, int64_t clock_ms)
{
    memset(self, 0, sizeof *self);
    self->settings = *settings;
    self->clock_ms = clock_ms;
    self->journal_first = 1;
}

static void *s_copy(const void *data, size_t bytes)
{
    void *copy = malloc(bytes + 1);
    assert(copy);
    if (bytes > 0) {
        memcpy(copy, data, bytes);
    }
    return copy;
}

static void s_copy_inserts(sim_batch_t *self, const dkt_commit_t *commit)
{
    uint32_t count = commit->insert_count;
    self->inserts = s_copy(commit->inserts, count * sizeof *commit->inserts);
    self->insert_names = calloc(count + 1, sizeof *self->insert_names);
    self->insert_subjects = calloc(count + 1, sizeof *self->insert_subjects);
    assert(self->insert_names && self->insert_subjects);
    for (uint32_t i = 0; i < count; i++) {
        const dkt_ticket_row_t *row = &commit->inserts[i];
        assert(row->class_name.len <= DKT_CLASS_NAME_BYTES_MAX && row->subject.len < SIM_TEXT_MAX);
        memcpy(self->insert_names[i], row->class_name.data, row->class_name.len);
        if (row->subject.data) {
            memcpy(self->insert_subjects[i], row->subject.data, row->subject.len);
        }
    }
}

sim_batch_t *sim_batch_copy(const dkt_batch_t *batch)
{
    sim_batch_t *self = calloc(1, sizeof *self);
    assert(self);
    self->batch = *batch;
    if (batch->kind == DKT_BATCH_COMMIT) {
        const dkt_commit_t *commit = &batch->commit;
        self->frees = s_copy(commit->frees, commit->free_count * sizeof *commit->frees);
        self->places = s_copy(commit->places, commit->park_count * sizeof *commit->places);
        self->updates = s_copy(commit->updates, commit->update_count * sizeof *commit->updates);
        self->events = s_copy(commit->journal_events.data, commit->journal_events.len);
        self->handoff = s_copy(commit->handoff.data, commit->handoff.len);
        s_copy_inserts(self, commit);
    } else if (batch->kind == DKT_BATCH_READ) {
        const dkt_read_t *read = &batch->read;
        self->ids = s_copy(read->request_ids, read->request_id_count * sizeof *read->request_ids);
        self->numbers = s_copy(read->numbers, read->number_count * sizeof *read->numbers);
        self->nonces = s_copy(read->nonces, read->nonce_count * sizeof *read->nonces);
    }
    return self;
}

void sim_batch_destroy(sim_batch_t **self_p)
{
    sim_batch_t *self = *self_p;
    if (!self) {
        return;
    }
    free(self->frees);
    free(self->places);
    free(self->inserts);
    free(self->insert_names);
    free(self->insert_subjects);
    free(self->updates);
    free(self->events);
    free(self->handoff);
    free(self->ids);
    free(self->numbers);
    free(self->nonces);
    free(self);
    *self_p = NULL;
}

sim_ticket_t *sim_store_ticket(sim_store_t *self, uint64_t number)
{
    for (uint32_t i = 0; i < self->ticket_count; i++) {
        if (self->tickets[i].row.number == number) {
            return &self->tickets[i];
        }
    }
    return NULL;
}

static void s_violate(sim_store_t *self, const char *format, uint64_t a, uint64_t b)
{
    if (!self->violation[0]) {
        char text[192];
        snprintf(text, sizeof text, "%s (%llu, %llu)", format, (unsigned long long)a,
                 (unsigned long long)b);
        snprintf(self->violation, sizeof self->violation, "%s", text);
    }
}

static void s_refuse(dkt_store_result_t *result, const char *sqlstate, const char *text)
{
    result->outcome = DKT_STORE_REFUSED;
    snprintf(result->sqlstate, sizeof result->sqlstate, "%s", sqlstate);
    snprintf(result->text, sizeof result->text, "%s", text);
}

/* The rows' views follow the copy of the table. */
void sim_store_fix_views(sim_store_t *self)
{
    for (uint32_t i = 0; i < self->ticket_count; i++) {
        sim_ticket_t *ticket = &self->tickets[i];
        ticket->row.class_name = (dkt_view_t){.data = (const uint8_t *)ticket->class_name,
                                              .len = (uint32_t)strlen(ticket->class_name)};
        ticket->row.subject =
            (dkt_view_t){.data = ticket->subject[0] ? (const uint8_t *)ticket->subject : NULL,
                         .len = (uint32_t)strlen(ticket->subject)};
        ticket->row.payload = (dkt_view_t){.data = NULL, .len = 0};
    }
}

static bool s_occupied(const sim_store_t *self, dkt_place_t place, uint64_t except)
{
    for (uint32_t i = 0; i < self->ticket_count; i++) {
        const dkt_ticket_row_t *row = &self->tickets[i].row;
        if (row->has_lane && row->state != DKT_TICKET_CANCELLED && row->number != except &&
            row->place.minute == place.minute && row->place.lane == place.lane) {
            return true;
        }
    }
    return false;
}

/* -- the steps of a commit, in their order; each returns NULL or the sqlstate it fails with -- */

static const char *s_apply_frees(sim_store_t *self, const sim_batch_t *batch)
{
    for (uint32_t i = 0; i < batch->batch.commit.free_count; i++) {
        sim_ticket_t *ticket = sim_store_ticket(self, batch->frees[i].number);
        if (!ticket || ticket->row.state != DKT_TICKET_OPEN) {
            return SQLSTATE_UNEXPECTED;
        }
        ticket->row.state = batch->frees[i].state;
        ticket->row.has_lane = false;
        ticket->row.breached = batch->frees[i].breached;
        if (batch->frees[i].state == DKT_TICKET_CANCELLED) {
            ticket->row.cancelled_ms = batch->frees[i].at_ms;
        } else {
            ticket->row.resolved_ms = batch->frees[i].at_ms;
        }
    }
    return NULL;
}

static const char *s_apply_places(sim_store_t *self, const sim_batch_t *batch)
{
    uint32_t count = batch->batch.commit.park_count;
    for (uint32_t i = 0; i < count; i++) {
        sim_ticket_t *ticket = sim_store_ticket(self, batch->places[i].number);
        if (!ticket) {
            return SQLSTATE_UNEXPECTED;
        }
        ticket->row.has_lane = false;
    }
    for (uint32_t i = 0; i < count; i++) {
        sim_ticket_t *ticket = sim_store_ticket(self, batch->places[i].number);
        if (s_occupied(self, batch->places[i].place, ticket->row.number)) {
            return SQLSTATE_UNIQUE;
        }
        ticket->row.place = batch->places[i].place;
        ticket->row.has_lane = true;
    }
    return NULL;
}

static const char *s_apply_inserts(sim_store_t *self, const sim_batch_t *batch)
{
    for (uint32_t i = 0; i < batch->batch.commit.insert_count; i++) {
        const dkt_ticket_row_t *row = &batch->inserts[i];
        /* Every ticket is born with a request id, so that those without one match nobody's. */
        for (uint32_t j = 0; j < self->ticket_count; j++) {
            const dkt_ticket_row_t *other = &self->tickets[j].row;
            if (other->number == row->number ||
                memcmp(other->request_id.bytes, row->request_id.bytes, DKT_UUID_BYTES) == 0 ||
                (row->hold_nonce && other->hold_nonce == row->hold_nonce)) {
                return SQLSTATE_UNIQUE;
            }
        }
        if (row->has_lane && s_occupied(self, row->place, row->number)) {
            return SQLSTATE_UNIQUE;
        }
        if (row->number <= self->number_highest) {
            s_violate(self, "a ticket number is used again", row->number, self->number_highest);
        }
        self->number_highest = row->number;
        assert(self->ticket_count < SIM_TICKETS_MAX && row->number < SIM_NUMBERS_MAX);
        sim_ticket_t *ticket = &self->tickets[self->ticket_count++];
        memset(ticket, 0, sizeof *ticket);
        ticket->row = *row;
        memcpy(ticket->class_name, batch->insert_names[i], sizeof ticket->class_name);
        memcpy(ticket->subject, batch->insert_subjects[i], sizeof ticket->subject);
    }
    sim_store_fix_views(self);
    return NULL;
}

static const char *s_apply_updates(sim_store_t *self, const sim_batch_t *batch)
{
    for (uint32_t i = 0; i < batch->batch.commit.update_count; i++) {
        const dkt_update_row_t *update = &batch->updates[i];
        sim_ticket_t *ticket = sim_store_ticket(self, update->number);
        if (!ticket) {
            return SQLSTATE_UNEXPECTED;
        }
        ticket->row.state = update->state;
        ticket->row.breached = update->breached;
        ticket->row.at_risk = update->at_risk;
        if (update->dispatched_ms) {
            ticket->row.dispatched_ms = update->dispatched_ms;
        }
        if (update->resolved_ms) {
            ticket->row.resolved_ms = update->resolved_ms;
        }
    }
    return NULL;
}

static void s_fold_event(sim_store_t *self, const msgpack_object_array *event)
{
    uint64_t number = event->ptr[1].via.u64;
    sim_ticket_t *ticket = sim_store_ticket(self, number);
    if (!ticket) {
        s_violate(self, "an event without a ticket", number, event->ptr[0].via.u64);
        return;
    }
    switch ((dkt_event_type_t)event->ptr[0].via.u64) {
    case DKT_EVENT_CREATED:
        ticket->journaled = true;
        ticket->journal_state = DKT_TICKET_OPEN;
        return;
    case DKT_EVENT_DISPATCHED:
        ticket->journal_state = DKT_TICKET_DISPATCHED;
        return;
    case DKT_EVENT_RESOLVED:
        ticket->journal_state = DKT_TICKET_RESOLVED;
        return;
    case DKT_EVENT_CANCELLED:
        ticket->journal_state = DKT_TICKET_CANCELLED;
        return;
    case DKT_EVENT_RESCHEDULED:
    case DKT_EVENT_BREACHED:
    case DKT_EVENT_AT_RISK:
    case DKT_EVENT_COUNT:
        return;
    }
}

static void s_fold_journal(sim_store_t *self, const sim_batch_t *batch)
{
    const dkt_commit_t *commit = &batch->batch.commit;
    if (!commit->journal_seq) {
        return;
    }
    if (commit->journal_seq != self->journal_seq + 1) {
        s_violate(self, "the journal has a gap", commit->journal_seq, self->journal_seq);
    }
    self->journal_seq = commit->journal_seq;
    if (commit->journal_at_ms < self->journal_at_ms) {
        s_violate(self, "tenant time went back", (uint64_t)commit->journal_at_ms,
                  (uint64_t)self->journal_at_ms);
    }
    self->journal_at_ms = commit->journal_at_ms;
    assert(self->journal_seq < SIM_JOURNAL_MAX);
    self->journal_times_ms[self->journal_seq] = commit->journal_at_ms;
    msgpack_unpacked message;
    msgpack_unpacked_init(&message);
    size_t at = 0;
    msgpack_unpack_return got =
        msgpack_unpack_next(&message, (const char *)batch->events, commit->journal_events.len, &at);
    assert(got == MSGPACK_UNPACK_SUCCESS && message.data.type == MSGPACK_OBJECT_ARRAY);
    for (uint32_t i = 0; i < message.data.via.array.size; i++) {
        const msgpack_object *event = &message.data.via.array.ptr[i];
        assert(event->type == MSGPACK_OBJECT_ARRAY && event->via.array.size == EVENT_FIELDS);
        s_fold_event(self, &event->via.array);
    }
    msgpack_unpacked_destroy(&message);
}

static bool s_guard(sim_store_t *self, const sim_batch_t *batch, dkt_store_result_t *result)
{
    uint64_t epoch = batch->batch.epoch;
    if (epoch != 0 && epoch != self->epoch) {
        s_refuse(result, SQLSTATE_STALE, "stale epoch");
        return false;
    }
    if (epoch == 0) {
        epoch = self->epoch; /* only a planted bug sends none */
    }
    if (batch->batch.kind == DKT_BATCH_COMMIT &&
        self->clock_ms > batch->batch.commit.not_after_ms) {
        s_refuse(result, SQLSTATE_TOO_LATE, "past the group's earliest slot");
        return false;
    }
    result->db_ms = self->clock_ms;
    return true;
}

static void s_check_fresh_bookings(sim_store_t *self, const sim_batch_t *batch)
{
    for (uint32_t i = 0; i < batch->batch.commit.insert_count; i++) {
        const dkt_ticket_row_t *row = &batch->inserts[i];
        if ((int64_t)row->place.minute * DKT_MINUTE_MS < self->clock_ms &&
            row->state == DKT_TICKET_OPEN) {
            s_violate(self, "a ticket was booked into a minute that has begun", row->number,
                      row->place.minute);
        }
    }
}

/* For whoever looks into a seed: what the refused group wanted, and what stood in its way. */
static void s_print_group(const sim_store_t *self, const sim_batch_t *batch)
{
    const dkt_commit_t *commit = &batch->batch.commit;
    for (uint32_t i = 0; i < self->ticket_count; i++) {
        const dkt_ticket_row_t *row = &self->tickets[i].row;
        if (row->state == DKT_TICKET_OPEN) {
            printf("  open %llu at %u.%u\n", (unsigned long long)row->number, row->place.minute,
                   row->place.lane);
        }
    }
    for (uint32_t i = 0; i < commit->free_count; i++) {
        printf("  free %llu state %d\n", (unsigned long long)batch->frees[i].number,
               batch->frees[i].state);
    }
    for (uint32_t i = 0; i < commit->park_count; i++) {
        printf("  place %llu at %u.%u\n", (unsigned long long)batch->places[i].number,
               batch->places[i].place.minute, batch->places[i].place.lane);
    }
    for (uint32_t i = 0; i < commit->insert_count; i++) {
        printf("  insert %llu at %u.%u\n", (unsigned long long)batch->inserts[i].number,
               batch->inserts[i].place.minute, batch->inserts[i].place.lane);
    }
    for (uint32_t i = 0; i < commit->update_count; i++) {
        printf("  update %llu state %d\n", (unsigned long long)batch->updates[i].number,
               batch->updates[i].state);
    }
}

static size_t s_used_bytes(const sim_store_t *self)
{
    return offsetof(sim_store_t, tickets) + self->ticket_count * sizeof self->tickets[0];
}

static bool s_poisoned(const sim_batch_t *batch)
{
    bool poisoned = false;
    for (uint32_t i = 0; i < batch->batch.commit.insert_count; i++) {
        poisoned |= strcmp(batch->insert_subjects[i], SIM_POISON) == 0;
    }
    return poisoned;
}

static void s_apply_commit(sim_store_t *self, const sim_batch_t *batch, dkt_store_result_t *result)
{
    static sim_store_t before; /* one world at a time */
    if (!s_guard(self, batch, result)) {
        return;
    }
    if (s_poisoned(batch)) {
        s_refuse(result, SQLSTATE_POISON, "a rule of this database");
        return;
    }
    memcpy(&before, self, s_used_bytes(self));
    const char *(*const steps[])(sim_store_t *, const sim_batch_t *) = {
        s_apply_frees, s_apply_places, s_apply_inserts, s_apply_updates};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        const char *sqlstate = steps[i](self, batch);
        if (sqlstate) {
            memcpy(self, &before, s_used_bytes(&before));
            sim_store_fix_views(self);
            s_refuse(result, sqlstate, "constraint");
            if (getenv("SIM_DEBUG")) {
                s_print_group(self, batch);
            }
            /* Nobody lies about ids here: ledger and database disagree, whatever heals it later. */
            s_violate(self, "the database had to refuse a group", i, batch->batch.epoch);
            return;
        }
    }
    const dkt_commit_t *commit = &batch->batch.commit;
    if (commit->settings) {
        self->settings = *commit->settings;
    }
    if (commit->handoff.data) {
        assert(commit->handoff.len <= sizeof self->handoff);
        memcpy(self->handoff, batch->handoff, commit->handoff.len);
        self->handoff_len = commit->handoff.len;
        self->handoff_epoch = self->epoch;
    }
    s_check_fresh_bookings(self, batch);
    s_fold_journal(self, batch);
}

static void s_apply_load(sim_store_t *self, sim_result_t *out)
{
    for (uint32_t i = 0; i < self->ticket_count; i++) {
        const dkt_ticket_row_t *row = &self->tickets[i].row;
        if (row->state == DKT_TICKET_OPEN ||
            (row->state == DKT_TICKET_DISPATCHED && !row->breached)) {
            out->rows[out->result.ticket_count++] = *row;
        }
        if (row->has_lane && row->state != DKT_TICKET_OPEN &&
            row->place.minute > out->result.last_dispatched_minute) {
            out->result.last_dispatched_minute = row->place.minute;
        }
    }
    out->result.settings = &self->settings;
}

static void s_apply_read(sim_store_t *self, const sim_batch_t *batch, sim_result_t *out)
{
    const dkt_read_t *read = &batch->batch.read;
    for (uint32_t i = 0; i < self->ticket_count; i++) {
        const dkt_ticket_row_t *row = &self->tickets[i].row;
        bool wanted = false;
        for (uint32_t j = 0; j < read->request_id_count; j++) {
            wanted |= memcmp(row->request_id.bytes, batch->ids[j].bytes, DKT_UUID_BYTES) == 0;
        }
        for (uint32_t j = 0; j < read->number_count; j++) {
            wanted |= row->number == batch->numbers[j];
        }
        for (uint32_t j = 0; j < read->nonce_count; j++) {
            wanted |= row->hold_nonce == batch->nonces[j];
        }
        if (wanted) {
            out->rows[out->result.ticket_count++] = *row;
        }
    }
}

/* A step of the schema by its owner; whoever was replaced must not get past the guard. */
static void s_apply_migrate(sim_store_t *self, uint32_t session, const sim_batch_t *batch,
                            dkt_store_result_t *result)
{
    if (!s_guard(self, batch, result)) {
        return;
    }
    if (session != self->taker) {
        s_violate(self, "a step of the schema by an owner that was replaced", session, self->taker);
    }
    if (self->schema_version < batch->batch.migrate_target && self->bad_steps > 0) {
        bool later = self->bad_steps-- % 2 == 0;
        snprintf(result->sqlstate, sizeof result->sqlstate, "%s", later ? "55P03" : "42P01");
        snprintf(result->text, sizeof result->text, "a step that fails");
    } else if (self->schema_version < batch->batch.migrate_target) {
        self->schema_version++;
    }
    result->schema_version = self->schema_version;
}

sim_result_t *sim_store_apply(sim_store_t *self, uint32_t session, const sim_batch_t *batch)
{
    sim_result_t *out = calloc(1, sizeof *out);
    assert(out);
    out->rows = calloc(self->ticket_count + 1, sizeof *out->rows);
    assert(out->rows);
    out->result.kind = batch->batch.kind;
    out->result.outcome = DKT_STORE_OK;
    out->result.tickets = out->rows;
    switch (batch->batch.kind) {
    case DKT_BATCH_LOCK:
        out->result.locked = self->lock_session == 0 || self->lock_session == session;
        if (out->result.locked) {
            self->lock_session = session;
        }
        break;
    case DKT_BATCH_TAKE:
        out->result.taken = dkt_table_version_compare(self->table, batch->batch.table) <= 0;
        if (out->result.taken) {
            self->table = batch->batch.table;
            self->taker = session;
            if (self->handoff_len > 0 && self->handoff_epoch == self->epoch) {
                out->result.handoff = (dkt_view_t){.data = self->handoff, .len = self->handoff_len};
            }
            out->result.epoch = ++self->epoch;
            if (self->journal_first <= self->journal_seq) {
                out->result.last_journal_seq = self->journal_seq;
                out->result.last_journal_ms = self->journal_at_ms;
            }
            out->result.last_ticket =
                self->ticket_count ? self->tickets[self->ticket_count - 1].row.number : 0;
        }
        out->result.db_ms = self->clock_ms;
        break;
    case DKT_BATCH_LOAD:
        s_apply_load(self, out);
        break;
    case DKT_BATCH_GUARD:
    case DKT_BATCH_REHEARSE:
        (void)s_guard(self, batch, &out->result);
        break;
    case DKT_BATCH_READ:
        s_apply_read(self, batch, out);
        break;
    case DKT_BATCH_MIGRATE:
        s_apply_migrate(self, session, batch, &out->result);
        break;
    case DKT_BATCH_AGE:
        if (s_guard(self, batch, &out->result)) {
            sim_store_age(self, &batch->batch.age, &out->result);
        }
        break;
    case DKT_BATCH_RELAY_READ:
    case DKT_BATCH_RELAY_MARK:
        break; /* the shell's, not the core's: nobody submits them here */
    case DKT_BATCH_COMMIT:
        if (self->lock_session != session && !self->lock_may_vanish) {
            s_violate(self, "a commit without the lock", session, self->lock_session);
        }
        s_apply_commit(self, batch, &out->result);
        break;
    }
    return out;
}

void sim_result_destroy(sim_result_t **self_p)
{
    if (*self_p) {
        free((*self_p)->rows);
        free(*self_p);
        *self_p = NULL;
    }
}

void sim_store_close(sim_store_t *self, uint32_t session)
{
    if (self->lock_session == session) {
        self->lock_session = 0;
    }
}

bool sim_store_check(sim_store_t *self)
{
    for (uint32_t i = 0; i < self->ticket_count; i++) {
        const sim_ticket_t *ticket = &self->tickets[i];
        const dkt_ticket_row_t *row = &ticket->row;
        if (row->has_lane && s_occupied(self, row->place, row->number)) {
            s_violate(self, "two live tickets on one lane", row->number, row->place.minute);
        }
        if (row->has_lane && !row->at_risk &&
            (int64_t)(row->place.minute + 1) * DKT_MINUTE_MS > row->deadline_ms) {
            s_violate(self, "a slot ends after its deadline", row->number, row->place.minute);
        }
        if (!ticket->journaled || ticket->journal_state != row->state) {
            s_violate(self, "the journal does not tell this ticket's state", row->number,
                      row->state);
        }
    }
    return !self->violation[0];
}
