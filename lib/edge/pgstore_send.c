/* SPDX-License-Identifier: Apache-2.0
 *
 * Batches into statements with binary parameters. libpq copies them, so the columns are built anew
 * for every statement in the same buffers.
 */
#include "lib/edge/pgstore_params.h"

#include <assert.h>
#include <string.h>

static const int s_binary[DKT_COLUMNS_MAX] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

static void s_expect(dkt_pgstore_entry_t *entry, int step)
{
    assert(entry->step_count < DKT_STEPS_MAX);
    entry->steps[entry->step_count++] = (uint8_t)step;
}

/* Runs a statement, after its preparation if this connection has not used it yet. */
static bool s_run(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry, dkt_sql_t sql,
                  const dkt_pgparams_t *params)
{
    const dkt_sql_row_t *row = &dkt_pgstore_sql[sql];
    if (params->failed) {
        return false;
    }
    if (!row->name) {
        if (!PQsendQueryParams(self->conn, row->text, params->count, NULL, params->values,
                               params->lengths, s_binary, 1)) {
            return false;
        }
        s_expect(entry, (int)sql);
        return true;
    }
    if (!(self->prepared & (UINT64_C(1) << sql))) {
        if (!PQsendPrepare(self->conn, row->name, row->text, 0, NULL)) {
            return false;
        }
        self->prepared |= UINT64_C(1) << sql;
        s_expect(entry, (int)sql | DKT_STEP_PREPARE);
    }
    if (!PQsendQueryPrepared(self->conn, row->name, params->count, params->values, params->lengths,
                             s_binary, 1)) {
        return false;
    }
    s_expect(entry, (int)sql);
    return true;
}

static void s_columns_begin(dkt_pgstore_t *self, const dkt_pgtype_t *types, int count)
{
    assert(count <= DKT_COLUMNS_MAX);
    for (int i = 0; i < count; i++) {
        dkt_pgarray_begin(&self->columns[i], types[i]);
    }
}

#define S_BEGIN(self, types) s_columns_begin(self, types, (int)(sizeof types / sizeof *types))

static void s_number(dkt_pgarray_t *column, uint64_t value)
{
    assert(value <= INT64_MAX);
    dkt_pgarray_i64(column, (int64_t)value);
}

static void s_time_or_null(dkt_pgarray_t *column, int64_t unix_ms)
{
    if (unix_ms == 0) {
        dkt_pgarray_null(column);
    } else {
        dkt_pgarray_time(column, unix_ms);
    }
}

/* Runs a statement whose only parameter is an array of int8. */
static bool s_run_numbers(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry, dkt_sql_t sql,
                          const uint64_t *numbers, uint32_t count)
{
    dkt_pgparams_t params = {0};
    dkt_pgarray_begin(&self->columns[0], DKT_PG_INT8);
    for (uint32_t i = 0; i < count; i++) {
        s_number(&self->columns[0], numbers[i]);
    }
    dkt_pgparams_columns(&params, self, 1);
    return s_run(self, entry, sql, &params);
}

/* -- the steps of a commit ------------------------------------------------------------------------
 */

static bool s_guard(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry, int64_t not_after_ms)
{
    dkt_pgparams_t params = {0};
    dkt_pgparams_u64(&params, entry->batch.epoch);
    if (not_after_ms == INT64_MAX) {
        dkt_pgparams_i64(&params, INT64_MAX); /* PostgreSQL's infinity */
    } else {
        dkt_pgparams_time(&params, not_after_ms);
    }
    return s_run(self, entry, DKT_SQL_GUARD, &params);
}

static bool s_frees(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry, const dkt_commit_t *commit)
{
    static const dkt_pgtype_t types[] = {DKT_PG_INT8, DKT_PG_INT2, DKT_PG_TIMESTAMPTZ, DKT_PG_BOOL};
    dkt_pgparams_t params = {0};
    if (commit->free_count == 0) {
        return true;
    }
    S_BEGIN(self, types);
    dkt_pgarray_t *column = self->columns;
    for (uint32_t i = 0; i < commit->free_count; i++) {
        const dkt_free_row_t *row = &commit->frees[i];
        assert(row->state == DKT_TICKET_CANCELLED || row->state == DKT_TICKET_RESOLVED);
        s_number(&column[0], row->number);
        dkt_pgarray_i16(&column[1], (int16_t)row->state);
        dkt_pgarray_time(&column[2], row->at_ms);
        dkt_pgarray_bool(&column[3], row->breached);
    }
    dkt_pgparams_columns(&params, self, 4);
    return s_run(self, entry, DKT_SQL_FREE, &params);
}

/* Tickets that are flagged in this group and may be placed past their deadline by it. */
static bool s_risks(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry, const dkt_commit_t *commit)
{
    dkt_pgparams_t params = {0};
    dkt_pgarray_t *numbers = &self->columns[0];
    dkt_pgarray_begin(numbers, DKT_PG_INT8);
    for (uint32_t i = 0; i < commit->update_count; i++) {
        if (commit->updates[i].at_risk) {
            s_number(numbers, commit->updates[i].number);
        }
    }
    if (numbers->count == 0) {
        return !numbers->failed;
    }
    dkt_pgparams_columns(&params, self, 1);
    return s_run(self, entry, DKT_SQL_RISK, &params);
}

static bool s_moves(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry, const dkt_commit_t *commit)
{
    static const dkt_pgtype_t types[] = {DKT_PG_INT8, DKT_PG_TIMESTAMPTZ, DKT_PG_INT2};
    dkt_pgparams_t park = {0}, place = {0};
    if (commit->park_count == 0) {
        return true;
    }
    dkt_pgarray_t *column = self->columns;
    dkt_pgarray_begin(&column[0], DKT_PG_INT8);
    for (uint32_t i = 0; i < commit->park_count; i++) {
        s_number(&column[0], commit->places[i].number);
    }
    dkt_pgparams_columns(&park, self, 1);
    if (!s_run(self, entry, DKT_SQL_PARK, &park) || !s_risks(self, entry, commit)) {
        return false;
    }
    S_BEGIN(self, types);
    for (uint32_t i = 0; i < commit->park_count; i++) {
        const dkt_place_row_t *row = &commit->places[i];
        s_number(&column[0], row->number);
        dkt_pgarray_time(&column[1], (int64_t)row->place.minute * DKT_MINUTE_MS);
        dkt_pgarray_i16(&column[2], (int16_t)row->place.lane);
    }
    dkt_pgparams_columns(&place, self, 3);
    return s_run(self, entry, DKT_SQL_PLACE, &place);
}

static dkt_view_t s_request_id(const dkt_ticket_row_t *row)
{
    static const dkt_uuid_t none;
    bool has = memcmp(&row->request_id, &none, sizeof none) != 0;
    return (dkt_view_t){.data = has ? row->request_id.bytes : NULL, .len = DKT_UUID_BYTES};
}

/* Columns that both array forms of the insert have, in its order; returns the next column. */
static dkt_pgarray_t *s_insert_head(dkt_pgarray_t *column, const dkt_ticket_row_t *row)
{
    s_number(column++, row->number);
    dkt_pgarray_bytes(column++, s_request_id(row).data, DKT_UUID_BYTES);
    if (row->hold_nonce == 0) {
        dkt_pgarray_null(column++);
    } else {
        s_number(column++, row->hold_nonce);
    }
    dkt_pgarray_bytes(column++, row->class_name.data, row->class_name.len);
    dkt_pgarray_time(column++, (int64_t)row->place.minute * DKT_MINUTE_MS);
    if (row->has_lane) {
        dkt_pgarray_i16(column++, (int16_t)row->place.lane);
    } else {
        dkt_pgarray_null(column++);
    }
    dkt_pgarray_time(column++, row->deadline_ms);
    return column;
}

static bool s_is_plain(const dkt_ticket_row_t *row)
{
    return row->state == DKT_TICKET_OPEN && !row->breached && !row->at_risk;
}

static bool s_insert_open(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry,
                          const dkt_commit_t *commit)
{
    static const dkt_pgtype_t types[] = {
        DKT_PG_INT8, DKT_PG_UUID,        DKT_PG_INT8,        DKT_PG_TEXT, DKT_PG_TIMESTAMPTZ,
        DKT_PG_INT2, DKT_PG_TIMESTAMPTZ, DKT_PG_TIMESTAMPTZ, DKT_PG_TEXT, DKT_PG_BYTEA};
    dkt_pgparams_t params = {0};
    S_BEGIN(self, types);
    for (uint32_t i = 0; i < commit->insert_count; i++) {
        const dkt_ticket_row_t *row = &commit->inserts[i];
        dkt_pgarray_t *column = s_insert_head(self->columns, row);
        dkt_pgarray_time(column++, row->created_ms);
        dkt_pgarray_bytes(column++, row->subject.data, row->subject.len);
        dkt_pgarray_bytes(column, row->payload.data, row->payload.len);
    }
    dkt_pgparams_columns(&params, self, sizeof types / sizeof *types);
    return s_run(self, entry, DKT_SQL_INSERT_OPEN, &params);
}

static bool s_insert_one(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry,
                         const dkt_ticket_row_t *row)
{
    dkt_pgparams_t params = {0};
    dkt_pgparams_u64(&params, row->number);
    dkt_pgparams_view(&params, s_request_id(row));
    if (row->hold_nonce == 0) {
        dkt_pgparams_raw(&params, NULL, 0);
    } else {
        dkt_pgparams_u64(&params, row->hold_nonce);
    }
    dkt_pgparams_view(&params, row->class_name);
    dkt_pgparams_time(&params, (int64_t)row->place.minute * DKT_MINUTE_MS);
    if (row->has_lane) {
        dkt_pgparams_i16(&params, (int16_t)row->place.lane);
    } else {
        dkt_pgparams_raw(&params, NULL, 0);
    }
    dkt_pgparams_time(&params, row->deadline_ms);
    dkt_pgparams_time(&params, row->created_ms);
    dkt_pgparams_view(&params, row->subject);
    dkt_pgparams_view(&params, row->payload);
    return s_run(self, entry, DKT_SQL_INSERT_ONE, &params);
}

static bool s_insert_any(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry,
                         const dkt_commit_t *commit)
{
    static const dkt_pgtype_t types[] = {
        DKT_PG_INT8,        DKT_PG_UUID,        DKT_PG_INT8,        DKT_PG_TEXT,
        DKT_PG_TIMESTAMPTZ, DKT_PG_INT2,        DKT_PG_TIMESTAMPTZ, DKT_PG_INT2,
        DKT_PG_BOOL,        DKT_PG_BOOL,        DKT_PG_TIMESTAMPTZ, DKT_PG_TIMESTAMPTZ,
        DKT_PG_TIMESTAMPTZ, DKT_PG_TIMESTAMPTZ, DKT_PG_TEXT,        DKT_PG_BYTEA};
    dkt_pgparams_t params = {0};
    S_BEGIN(self, types);
    for (uint32_t i = 0; i < commit->insert_count; i++) {
        const dkt_ticket_row_t *row = &commit->inserts[i];
        dkt_pgarray_t *column = s_insert_head(self->columns, row);
        dkt_pgarray_i16(column++, (int16_t)row->state);
        dkt_pgarray_bool(column++, row->breached);
        dkt_pgarray_bool(column++, row->at_risk);
        dkt_pgarray_time(column++, row->created_ms);
        s_time_or_null(column++, row->dispatched_ms);
        s_time_or_null(column++, row->resolved_ms);
        s_time_or_null(column++, row->cancelled_ms);
        dkt_pgarray_bytes(column++, row->subject.data, row->subject.len);
        dkt_pgarray_bytes(column, row->payload.data, row->payload.len);
    }
    dkt_pgparams_columns(&params, self, sizeof types / sizeof *types);
    return s_run(self, entry, DKT_SQL_INSERT, &params);
}

static bool s_inserts(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry, const dkt_commit_t *commit)
{
    bool plain = true;
    for (uint32_t i = 0; i < commit->insert_count; i++) {
        plain = plain && s_is_plain(&commit->inserts[i]);
    }
    if (commit->insert_count == 0) {
        return true;
    }
    if (!plain) {
        return s_insert_any(self, entry, commit);
    }
    return commit->insert_count == 1 ? s_insert_one(self, entry, &commit->inserts[0])
                                     : s_insert_open(self, entry, commit);
}

static bool s_updates(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry, const dkt_commit_t *commit)
{
    static const dkt_pgtype_t types[] = {DKT_PG_INT8, DKT_PG_INT2,        DKT_PG_BOOL,
                                         DKT_PG_BOOL, DKT_PG_TIMESTAMPTZ, DKT_PG_TIMESTAMPTZ};
    dkt_pgparams_t params = {0};
    S_BEGIN(self, types);
    dkt_pgarray_t *column = self->columns;
    for (uint32_t i = 0; i < commit->update_count; i++) {
        const dkt_update_row_t *row = &commit->updates[i];
        assert(row->state != DKT_TICKET_CANCELLED);
        s_number(&column[0], row->number);
        dkt_pgarray_i16(&column[1], (int16_t)row->state);
        dkt_pgarray_bool(&column[2], row->breached);
        dkt_pgarray_bool(&column[3], row->at_risk);
        s_time_or_null(&column[4], row->dispatched_ms);
        s_time_or_null(&column[5], row->resolved_ms);
    }
    dkt_pgparams_columns(&params, self, sizeof types / sizeof *types);
    return s_run(self, entry, DKT_SQL_UPDATE, &params);
}

static bool s_journal(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry, const dkt_commit_t *commit)
{
    dkt_pgparams_t params = {0};
    if (commit->journal_seq == 0) {
        return true;
    }
    dkt_pgparams_u64(&params, commit->journal_seq);
    dkt_pgparams_u64(&params, entry->batch.epoch);
    dkt_pgparams_time(&params, commit->journal_at_ms);
    /* no events is an empty body, not a null one */
    dkt_pgparams_raw(&params,
                     commit->journal_events.data ? (const void *)commit->journal_events.data : "",
                     commit->journal_events.len);
    return s_run(self, entry, DKT_SQL_JOURNAL, &params);
}

static bool s_settings(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry, const dkt_commit_t *commit)
{
    const dkt_settings_t *settings = commit->settings;
    dkt_pgparams_t params = {0};
    if (!settings) {
        return true;
    }
    dkt_pgparams_i16(&params, (int16_t)settings->resolvers);
    dkt_pgparams_bool(&params, settings->rebooking);
    dkt_pgarray_begin(&self->columns[0], DKT_PG_TEXT);
    dkt_pgarray_begin(&self->columns[1], DKT_PG_INT2);
    dkt_pgarray_begin(&self->columns[2], DKT_PG_INT2);
    for (uint8_t i = 0; i < settings->class_count; i++) {
        const dkt_class_t *row = &settings->classes[i];
        dkt_pgarray_bytes(&self->columns[0], row->name, strlen(row->name));
        dkt_pgarray_i16(&self->columns[1], (int16_t)row->level_minutes);
        dkt_pgarray_i16(&self->columns[2], (int16_t)row->limit_permille);
    }
    dkt_pgparams_columns(&params, self, 3);
    return s_run(self, entry, DKT_SQL_SETTINGS, &params);
}

static bool s_account(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry, const dkt_commit_t *commit)
{
    dkt_pgparams_t password = {0}, revoke = {0};
    if (commit->account_password) {
        dkt_pgparams_raw(&password, commit->account_password, strlen(commit->account_password));
        dkt_pgparams_time(&password, commit->tokens_valid_from_ms);
        if (!s_run(self, entry, DKT_SQL_PASSWORD, &password)) {
            return false;
        }
    }
    if (commit->revoke_token_id) {
        dkt_pgparams_raw(&revoke, commit->revoke_token_id, DKT_TOKEN_ID_BYTES);
        dkt_pgparams_time(&revoke, commit->revoke_expires_ms);
        return s_run(self, entry, DKT_SQL_REVOKE, &revoke);
    }
    return true;
}

static bool s_handoff(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry, const dkt_commit_t *commit)
{
    dkt_pgparams_t params = {0};
    if (!commit->handoff.data) {
        return true;
    }
    dkt_pgparams_u64(&params, entry->batch.epoch);
    dkt_pgparams_raw(&params, commit->handoff.data, commit->handoff.len);
    return s_run(self, entry, DKT_SQL_HANDOFF, &params);
}

/* -- one sender per kind of batch -----------------------------------------------------------------
 */

static bool s_send_commit(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry)
{
    const dkt_commit_t *commit = &entry->batch.commit;
    return s_guard(self, entry, commit->not_after_ms) && s_frees(self, entry, commit) &&
           s_moves(self, entry, commit) && s_inserts(self, entry, commit) &&
           (commit->update_count == 0 || s_updates(self, entry, commit)) &&
           s_journal(self, entry, commit) && s_settings(self, entry, commit) &&
           s_account(self, entry, commit) && s_handoff(self, entry, commit);
}

static bool s_send_guard(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry)
{
    return s_guard(self, entry, INT64_MAX);
}

static bool s_send_lock(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry)
{
    dkt_pgparams_t params = {0};
    return s_run(self, entry, DKT_SQL_LOCK, &params);
}

static bool s_send_take(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry)
{
    dkt_pgparams_t params = {0};
    dkt_pgparams_u64(&params, entry->batch.table.epoch);
    dkt_pgparams_u64(&params, entry->batch.table.version);
    dkt_pgparams_raw(&params, self->node, strlen(self->node));
    dkt_pgparams_raw(&params, self->incarnation, strlen(self->incarnation));
    return s_run(self, entry, DKT_SQL_TAKE, &params);
}

static bool s_send_load(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry)
{
    dkt_pgparams_t params = {0};
    return s_run(self, entry, DKT_SQL_LOAD_SETTINGS, &params) &&
           s_run(self, entry, DKT_SQL_LOAD_CLASSES, &params) &&
           s_run(self, entry, DKT_SQL_LOAD_TICKETS, &params) &&
           s_run(self, entry, DKT_SQL_LOAD_REVOKED, &params);
}

static bool s_send_list(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry, const dkt_read_t *read)
{
    dkt_pgparams_t params = {0};
    if (read->list_limit == 0) {
        return true;
    }
    dkt_pgparams_u64(&params, read->list_after);
    dkt_pgparams_i64(&params, read->list_limit);
    if (read->list_state < 0) {
        return s_run(self, entry, DKT_SQL_LIST_ALL, &params);
    }
    if (read->list_state == DKT_TICKET_OPEN) {
        return s_run(self, entry, DKT_SQL_LIST_OPEN, &params);
    }
    dkt_pgparams_i16(&params, (int16_t)read->list_state);
    return s_run(self, entry, DKT_SQL_LIST_STATE, &params);
}

static bool s_send_read(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry)
{
    const dkt_read_t *read = &entry->batch.read;
    if (read->request_id_count > 0) {
        dkt_pgparams_t params = {0};
        dkt_pgarray_begin(&self->columns[0], DKT_PG_UUID);
        for (uint32_t i = 0; i < read->request_id_count; i++) {
            dkt_pgarray_bytes(&self->columns[0], read->request_ids[i].bytes, DKT_UUID_BYTES);
        }
        dkt_pgparams_columns(&params, self, 1);
        if (!s_run(self, entry, DKT_SQL_READ_REQUESTS, &params)) {
            return false;
        }
    }
    if (read->number_count > 0 &&
        !s_run_numbers(self, entry, DKT_SQL_READ_NUMBERS, read->numbers, read->number_count)) {
        return false;
    }
    if (read->nonce_count > 0 &&
        !s_run_numbers(self, entry, DKT_SQL_READ_NONCES, read->nonces, read->nonce_count)) {
        return false;
    }
    return s_send_list(self, entry, read);
}

static bool s_send_age(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry)
{
    static const dkt_sql_t statements[DKT_AGE_COUNT] = {
        [DKT_AGE_REQUEST_IDS] = DKT_SQL_AGE_REQUEST_IDS,
        [DKT_AGE_TICKETS] = DKT_SQL_AGE_TICKETS,
        [DKT_AGE_JOURNAL] = DKT_SQL_AGE_JOURNAL,
        [DKT_AGE_REST] = DKT_SQL_AGE_REST,
    };
    const dkt_age_step_t *age = &entry->batch.age;
    dkt_pgparams_t params = {0};
    dkt_pgparams_time(&params, age->before_ms);
    dkt_pgparams_i64(&params, age->limit);
    dkt_pgparams_u64(&params, age->kind == DKT_AGE_REST ? entry->batch.epoch : age->after);
    if (age->kind == DKT_AGE_TICKETS || age->kind == DKT_AGE_JOURNAL) {
        dkt_pgparams_i64(&params, age->keep);
    }
    if (age->kind == DKT_AGE_REST) {
        dkt_pgparams_i64(&params, DKT_AGE_SERVED_ROWS);
    }
    if (age->kind == DKT_AGE_JOURNAL) {
        dkt_pgparams_time(&params, age->unpublished_before_ms);
    }
    return s_guard(self, entry, INT64_MAX) && s_run(self, entry, statements[age->kind], &params);
}

static bool s_send_rehearse(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry)
{
    static const dkt_commit_t nothing;
    return s_guard(self, entry, INT64_MAX) && s_updates(self, entry, &nothing);
}

static bool s_send_relay_read(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry)
{
    const dkt_relay_read_t *read = &entry->batch.relay_read;
    dkt_pgparams_t none = {0}, params = {0};
    assert(read->limit <= DKT_RELAY_READ_MAX);
    if (read->from_kept) {
        dkt_pgparams_raw(&params, NULL, 0);
    } else {
        dkt_pgparams_u64(&params, read->after_seq);
    }
    dkt_pgparams_i64(&params, read->limit);
    return s_run(self, entry, DKT_SQL_RELAY_KEPT, &none) &&
           s_run(self, entry, DKT_SQL_RELAY_ROWS, &params);
}

static bool s_send_relay_mark(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry)
{
    const dkt_relay_mark_t *mark = &entry->batch.relay_mark;
    dkt_pgparams_t params = {0};
    dkt_pgparams_u64(&params, mark->acked_seq);
    dkt_pgparams_time(&params, mark->stream_created_ms);
    dkt_pgparams_u64(&params, mark->stream_seq);
    dkt_pgparams_u64(&params, entry->batch.epoch);
    return s_run(self, entry, DKT_SQL_RELAY_MARK, &params);
}

/* The step's own time limit, for this transaction: each statement of a pipeline has its own timer,
 * and the session's would end the step no sooner than the adapter gives up the connection. */
static bool s_send_migrate(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry)
{
    dkt_pgparams_t time = {0}, step = {0};
    dkt_pgparams_i64(&time, DKT_MIGRATE_STEP_MS);
    dkt_pgparams_u64(&step, entry->batch.epoch);
    dkt_pgparams_i64(&step, entry->batch.migrate_target);
    return s_run(self, entry, DKT_SQL_MIGRATE_TIME, &time) &&
           s_run(self, entry, DKT_SQL_MIGRATE, &step);
}

typedef bool(s_send_fn)(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry);

static s_send_fn *const s_senders[] = {
    [DKT_BATCH_LOCK] = s_send_lock,
    [DKT_BATCH_TAKE] = s_send_take,
    [DKT_BATCH_LOAD] = s_send_load,
    [DKT_BATCH_GUARD] = s_send_guard,
    [DKT_BATCH_READ] = s_send_read,
    [DKT_BATCH_COMMIT] = s_send_commit,
    [DKT_BATCH_MIGRATE] = s_send_migrate,
    [DKT_BATCH_AGE] = s_send_age,
    [DKT_BATCH_REHEARSE] = s_send_rehearse,
    [DKT_BATCH_RELAY_READ] = s_send_relay_read,
    [DKT_BATCH_RELAY_MARK] = s_send_relay_mark,
};

bool dkt_pgstore_send(dkt_pgstore_t *self, dkt_pgstore_entry_t *entry)
{
    entry->sent = true;
    if (!s_senders[entry->batch.kind](self, entry) || !PQpipelineSync(self->conn)) {
        return false;
    }
    s_expect(entry, DKT_STEP_SYNC);
    /* A large group must not hold its memory for ever: thousands of tenants have such buffers. */
    for (int i = 0; i < DKT_COLUMNS_MAX; i++) {
        if (self->columns[i].cap > DKT_STORE_KEEP_BYTES) {
            dkt_pgarray_fini(&self->columns[i]);
        }
    }
    return true;
}
