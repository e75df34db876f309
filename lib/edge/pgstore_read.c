/* SPDX-License-Identifier: Apache-2.0
 *
 * Binary rows into a dkt_store_result_t. Its views point into the PGresults, which are kept until
 * the callback has returned. The database is a peer: a value that is not as long as its type makes
 * the result malformed, never an assert.
 */
#include "lib/edge/pgstore_self.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define S_KEEP_TICKETS_MAX 64 /* rows of memory kept between batches */

/* -- values ---------------------------------------------------------------------------------------
 */

typedef struct {
    dkt_pgstore_t *self;
    const PGresult *rows;
    int row, column; /* of the next value */
} s_cursor_t;

/* The next value, NULL for a null; it must be `len` bytes long unless that is negative. */
static const char *s_next(s_cursor_t *cursor, int len)
{
    int column = cursor->column++;
    if (PQgetisnull(cursor->rows, cursor->row, column)) {
        return NULL;
    }
    if (len >= 0 && PQgetlength(cursor->rows, cursor->row, column) != len) {
        cursor->self->malformed = true;
        return NULL;
    }
    return PQgetvalue(cursor->rows, cursor->row, column);
}

static int64_t s_i64(s_cursor_t *cursor)
{
    const char *value = s_next(cursor, sizeof(int64_t));
    return value ? dkt_pg_get_i64(value) : 0;
}

/* Numbers that are never negative in our schema. */
static uint64_t s_u64(s_cursor_t *cursor)
{
    int64_t value = s_i64(cursor);
    cursor->self->malformed |= value < 0;
    return (uint64_t)value;
}

static int16_t s_i16(s_cursor_t *cursor)
{
    const char *value = s_next(cursor, sizeof(int16_t));
    return value ? dkt_pg_get_i16(value) : 0;
}

static bool s_bool(s_cursor_t *cursor)
{
    const char *value = s_next(cursor, 1);
    return value && *value;
}

static int64_t s_time_ms(s_cursor_t *cursor)
{
    const char *value = s_next(cursor, sizeof(int64_t));
    return value ? dkt_pg_ms_of_time(dkt_pg_get_i64(value)) : 0;
}

static dkt_view_t s_view(s_cursor_t *cursor)
{
    int column = cursor->column;
    const char *value = s_next(cursor, -1);
    if (!value) {
        return (dkt_view_t){0};
    }
    return (dkt_view_t){(const uint8_t *)value,
                        (uint32_t)PQgetlength(cursor->rows, cursor->row, column)};
}

/* -- rows -----------------------------------------------------------------------------------------
 */

bool dkt_pgstore_take_lock(dkt_pgstore_t *self, const PGresult *rows, dkt_store_result_t *out)
{
    s_cursor_t cursor = {self, rows, 0, 0};
    if (PQntuples(rows) != 1) {
        return false;
    }
    out->locked = s_bool(&cursor);
    out->db_ms = s_time_ms(&cursor);
    out->schema_version = (int32_t)s_i64(&cursor);
    out->min_reader = (int32_t)s_i64(&cursor);
    return true;
}

/* Texts in binary results end with a NUL that libpq adds. */
bool dkt_pgstore_take_migrate(dkt_pgstore_t *self, const PGresult *rows, dkt_store_result_t *out)
{
    s_cursor_t cursor = {self, rows, 0, 0};
    if (PQntuples(rows) != 1) {
        return false;
    }
    out->schema_version = (int32_t)s_i64(&cursor);
    out->db_ms = s_i64(&cursor);
    dkt_view_t sqlstate = s_view(&cursor);
    dkt_view_t error = s_view(&cursor);
    if (sqlstate.data) {
        snprintf(out->sqlstate, sizeof out->sqlstate, "%s", (const char *)sqlstate.data);
        snprintf(out->text, sizeof out->text, "%s", error.data ? (const char *)error.data : "");
        out->text[strcspn(out->text, "\n")] = '\0';
    }
    return true;
}

bool dkt_pgstore_take_take(dkt_pgstore_t *self, const PGresult *rows, dkt_store_result_t *out)
{
    s_cursor_t cursor = {self, rows, 0, 0};
    if (PQntuples(rows) == 0) {
        return true; /* a newer assignment exists: taken stays false */
    }
    out->taken = true;
    out->epoch = s_u64(&cursor);
    out->db_ms = s_time_ms(&cursor);
    out->last_journal_ms = s_time_ms(&cursor);
    out->last_journal_seq = s_u64(&cursor);
    out->last_ticket = s_u64(&cursor);
    out->handoff = s_view(&cursor);
    return true;
}

bool dkt_pgstore_take_guard(dkt_pgstore_t *self, const PGresult *rows, dkt_store_result_t *out)
{
    s_cursor_t cursor = {self, rows, 0, 0};
    if (PQntuples(rows) != 1) {
        return false;
    }
    out->db_ms = s_time_ms(&cursor);
    return true;
}

bool dkt_pgstore_take_aged(dkt_pgstore_t *self, const PGresult *rows, dkt_store_result_t *out)
{
    s_cursor_t cursor = {self, rows, 0, 0};
    if (PQntuples(rows) != 1) {
        return false;
    }
    out->aged_count = s_u64(&cursor);
    out->aged_to = s_u64(&cursor);
    out->aged_more = s_bool(&cursor);
    out->aged_unpublished_count = s_u64(&cursor);
    return true;
}

bool dkt_pgstore_take_settings(dkt_pgstore_t *self, const PGresult *rows, dkt_store_result_t *out)
{
    s_cursor_t cursor = {self, rows, 0, 0};
    if (PQntuples(rows) != 1) {
        return false;
    }
    memset(&self->settings, 0, sizeof self->settings);
    self->settings.resolvers = (uint16_t)s_i16(&cursor);
    self->settings.rebooking = s_bool(&cursor);
    out->settings = &self->settings;
    out->account_name = s_view(&cursor);
    out->sub_domain = s_view(&cursor);
    out->account_password = s_view(&cursor);
    out->tokens_valid_from_ms = s_time_ms(&cursor);
    out->last_dispatched_minute = (uint32_t)(s_time_ms(&cursor) / DKT_MINUTE_MS);
    out->changes_seq = s_u64(&cursor);
    return true;
}

/* The order in which classes are numbered: by level, then by name. */
static int s_compare_classes(const void *left, const void *right)
{
    const dkt_class_t *a = left, *b = right;
    return a->level_minutes != b->level_minutes ? (int)a->level_minutes - (int)b->level_minutes
                                                : strcmp(a->name, b->name);
}

bool dkt_pgstore_take_classes(dkt_pgstore_t *self, const PGresult *rows, dkt_store_result_t *out)
{
    int count = PQntuples(rows);
    (void)out;
    if (count < 1 || count > DKT_CLASSES_MAX) {
        return false;
    }
    self->settings.class_count = (uint8_t)count;
    for (int i = 0; i < count; i++) {
        s_cursor_t cursor = {self, rows, i, 0};
        dkt_class_t *class = &self->settings.classes[i];
        dkt_view_t name = s_view(&cursor);
        if (!name.data || name.len > DKT_CLASS_NAME_BYTES_MAX) {
            return false;
        }
        memcpy(class->name, name.data, name.len);
        class->level_minutes = (uint16_t)s_i16(&cursor);
        class->limit_permille = (uint16_t)s_i16(&cursor);
    }
    qsort(self->settings.classes, (size_t)count, sizeof self->settings.classes[0],
          s_compare_classes);
    return true;
}

/* Room for `more` rows after those of the result. */
static bool s_reserve_tickets(dkt_pgstore_t *self, const dkt_store_result_t *out, uint32_t more)
{
    uint32_t need = out->ticket_count + more;
    if (need <= self->ticket_cap) {
        return true;
    }
    dkt_ticket_row_t *tickets = realloc(self->tickets, need * sizeof *tickets);
    if (!tickets) {
        return false;
    }
    self->tickets = tickets;
    self->ticket_cap = need;
    return true;
}

/* The place of a row: a whole minute, and a lane or none. */
static void s_take_place(s_cursor_t *cursor, dkt_ticket_row_t *ticket)
{
    int64_t start_ms = s_time_ms(cursor);
    ticket->place.minute = (uint32_t)(start_ms / DKT_MINUTE_MS);
    cursor->self->malformed |= start_ms < 0 || start_ms % DKT_MINUTE_MS != 0;
    ticket->has_lane = !PQgetisnull(cursor->rows, cursor->row, cursor->column);
    ticket->place.lane = (uint16_t)s_i16(cursor);
}

static void s_take_ticket(s_cursor_t *cursor, dkt_ticket_row_t *ticket)
{
    memset(ticket, 0, sizeof *ticket);
    ticket->number = s_u64(cursor);
    const char *uuid = s_next(cursor, DKT_UUID_BYTES);
    if (uuid) {
        memcpy(ticket->request_id.bytes, uuid, DKT_UUID_BYTES);
    }
    ticket->hold_nonce = s_u64(cursor);
    ticket->class_name = s_view(cursor);
    s_take_place(cursor, ticket);
    ticket->deadline_ms = s_time_ms(cursor);
    int16_t state = s_i16(cursor);
    cursor->self->malformed |= state < 0 || state >= DKT_TICKET_STATE_COUNT;
    ticket->state = (dkt_ticket_state_t)state;
    ticket->breached = s_bool(cursor);
    ticket->at_risk = s_bool(cursor);
    ticket->created_ms = s_time_ms(cursor);
    ticket->dispatched_ms = s_time_ms(cursor);
    ticket->resolved_ms = s_time_ms(cursor);
    ticket->cancelled_ms = s_time_ms(cursor);
    ticket->subject = s_view(cursor);
    ticket->payload = s_view(cursor);
}

bool dkt_pgstore_take_tickets(dkt_pgstore_t *self, const PGresult *rows, dkt_store_result_t *out)
{
    int count = PQntuples(rows);
    if (!s_reserve_tickets(self, out, (uint32_t)count)) {
        return false;
    }
    for (int i = 0; i < count; i++) {
        s_cursor_t cursor = {self, rows, i, 0};
        s_take_ticket(&cursor, &self->tickets[out->ticket_count++]);
    }
    out->tickets = self->tickets;
    return true;
}

bool dkt_pgstore_take_list(dkt_pgstore_t *self, const PGresult *rows, dkt_store_result_t *out)
{
    out->listed_count = (uint32_t)PQntuples(rows);
    return dkt_pgstore_take_tickets(self, rows, out);
}

bool dkt_pgstore_take_revoked(dkt_pgstore_t *self, const PGresult *rows, dkt_store_result_t *out)
{
    int count = PQntuples(rows);
    assert(!self->revoked);
    if (count == 0) {
        return true;
    }
    self->revoked = calloc((size_t)count, sizeof *self->revoked);
    if (!self->revoked) {
        return false;
    }
    for (int i = 0; i < count; i++) {
        s_cursor_t cursor = {self, rows, i, 0};
        const char *token_id = s_next(&cursor, DKT_TOKEN_ID_BYTES);
        if (!token_id) {
            return false;
        }
        memcpy(self->revoked[i].token_id, token_id, DKT_TOKEN_ID_BYTES);
        self->revoked[i].expires_ms = s_time_ms(&cursor);
    }
    out->revoked = self->revoked;
    out->revoked_count = (uint32_t)count;
    return true;
}

bool dkt_pgstore_take_kept(dkt_pgstore_t *self, const PGresult *rows, dkt_store_result_t *out)
{
    s_cursor_t cursor = {self, rows, 0, 0};
    if (PQntuples(rows) != 1) {
        return false;
    }
    out->relay.acked_seq = s_u64(&cursor);
    out->relay.stream_created_ms = s_time_ms(&cursor);
    out->relay.stream_seq = s_u64(&cursor);
    return true;
}

bool dkt_pgstore_take_journal(dkt_pgstore_t *self, const PGresult *rows, dkt_store_result_t *out)
{
    int count = PQntuples(rows);
    if (count > DKT_RELAY_READ_MAX) {
        return false;
    }
    for (int i = 0; i < count; i++) {
        s_cursor_t cursor = {self, rows, i, 0};
        self->journal[i].seq = s_u64(&cursor);
        self->journal[i].events = s_view(&cursor);
    }
    out->journal = self->journal;
    out->journal_count = (uint32_t)count;
    return true;
}

/* -- results --------------------------------------------------------------------------------------
 */

bool dkt_pgstore_read(dkt_pgstore_t *self, dkt_store_result_t *out)
{
    self->malformed = false;
    for (uint32_t i = 0; i < self->result_count; i++) {
        const dkt_sql_row_t *sql = &dkt_pgstore_sql[self->result_sql[i]];
        const PGresult *rows = self->results[i];
        if (PQnfields(rows) != sql->columns || !sql->take(self, rows, out)) {
            return false;
        }
    }
    return !self->malformed;
}

void dkt_pgstore_read_done(dkt_pgstore_t *self)
{
    for (uint32_t i = 0; i < self->result_count; i++) {
        PQclear(self->results[i]);
    }
    self->result_count = 0;
    free(self->revoked);
    self->revoked = NULL;
    if (self->ticket_cap > S_KEEP_TICKETS_MAX) {
        free(self->tickets);
        self->tickets = NULL;
        self->ticket_cap = 0;
    }
}
