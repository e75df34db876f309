/* SPDX-License-Identifier: Apache-2.0
 *
 * The proof of the demo: every tenant's database is read and held against everything that was
 * acknowledged to its company. Nothing here asks docket: it is SQL against PostgreSQL.
 */
#include <assert.h>
#include <libpq-fe.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/core/ids.h"
#include "ops/demo.h"
#include "ops/pg_connect.h"
#include "ops/result.h"

#define S_DATABASE_BYTES 64
#define S_STATE_RESOLVED 2
#define S_STATE_CANCELED 3

/* X (NAME, sentence): one line each of the table */
#define S_CHECK_MAP(X)                                                                             \
    X(PRESENT, "every acknowledged ticket is in its company's own database")                       \
    X(PROMISE, "each has the deadline that was promised, and its request_id")                      \
    X(BOOKING, "no minute of a resolver is booked twice")                                          \
    X(IN_TIME, "every booked minute ends by its ticket's deadline")                                \
    X(CANCELLED, "every cancelled ticket is cancelled, and nothing else is")                       \
    X(RESOLVED, "every resolved ticket is resolved")                                               \
    X(ONCE, "one ticket per request_id")                                                           \
    X(ASKED, "no ticket that nobody asked for")                                                    \
    X(REPEATED, "a repeated request got the same ticket")

typedef enum {
#define X(name, text) S_##name,
    S_CHECK_MAP(X)
#undef X
        S_CHECK_COUNT
} s_check_t;

static const char *const s_check_texts[] = {
#define X(name, text) text,
    S_CHECK_MAP(X)
#undef X
};

typedef struct {
    uint64_t number;
    int64_t slot_start_ms, deadline_ms;
    dkt_uuid_t request_id;
    int lane, state;
    bool acked, may_be_cancelled, must_be_cancelled;
} s_row_t;

typedef struct {
    dkt_demo_t *demo;
    PQconninfoOption *options;
    uint64_t tested[S_CHECK_COUNT], failed[S_CHECK_COUNT];
    char example[S_CHECK_COUNT][160]; /* of a failure */
    uint64_t rows, databases;
    s_row_t *list; /* of the database at hand, by number */
    size_t count;
} s_proof_t;

static const char s_query[] =
    "select id, coalesce(request_id::text, ''), floor(extract(epoch from slot_start) * 1000)::int8,"
    " floor(extract(epoch from deadline) * 1000)::int8, coalesce(lane, -1), state"
    " from tickets order by id";
static const char s_query_places[] =
    "select count(*), count(distinct (slot_start, lane)), count(*) filter (where"
    " slot_start + interval '1 minute' > deadline and not at_risk),"
    " (select count(request_id) - count(distinct request_id) from tickets)"
    " from tickets where lane is not null and state <> 3";

/* -- results ---------------------------------------------------------------------------------- */

static void s_expect(s_proof_t *self, s_check_t check, bool ok, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void s_expect(s_proof_t *self, s_check_t check, bool ok, const char *format, ...)
{
    self->tested[check]++;
    if (ok || self->failed[check]++ > 0) {
        return;
    }
    va_list args;
    va_start(args, format);
    vsnprintf(self->example[check], sizeof self->example[check], format, args);
    va_end(args);
}

static bool s_print_table(const s_proof_t *self)
{
    bool passed = true;
    bool tty = self->demo->tty;
    for (int i = 0; i < S_CHECK_COUNT; i++) {
        bool ok = self->failed[i] == 0;
        passed = passed && ok;
        printf("  %s%s%s  %-62s %8llu tested", tty ? (ok ? "\033[32m" : "\033[31;1m") : "",
               ok ? "PASS" : "FAIL", tty ? "\033[0m" : "", s_check_texts[i],
               (unsigned long long)self->tested[i]);
        if (ok) {
            putchar('\n');
        } else {
            printf(", %llu wrong: %s\n", (unsigned long long)self->failed[i], self->example[i]);
        }
    }
    return passed;
}

/* -- databases -------------------------------------------------------------------------------- */

static PGresult *s_select(PGconn *connection, const char *query)
{
    PGresult *result = PQexec(connection, query);
    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        fprintf(stderr, "docket demo: PostgreSQL: %s", PQerrorMessage(connection));
        PQclear(result);
        return NULL;
    }
    return result;
}

static bool s_read_rows(s_proof_t *self, PGconn *connection)
{
    PGresult *result = s_select(connection, s_query);
    if (!result) {
        return false;
    }
    self->count = (size_t)PQntuples(result);
    self->list = calloc(self->count + 1, sizeof *self->list);
    assert(self->list);
    for (size_t i = 0; i < self->count; i++) {
        s_row_t *row = &self->list[i];
        const char *uuid = PQgetvalue(result, (int)i, 1);
        row->number = strtoull(PQgetvalue(result, (int)i, 0), NULL, 10);
        if (!dkt_uuid_parse(uuid, (uint32_t)strlen(uuid), &row->request_id)) {
            memset(&row->request_id, 0, sizeof row->request_id);
        }
        row->slot_start_ms = strtoll(PQgetvalue(result, (int)i, 2), NULL, 10);
        row->deadline_ms = strtoll(PQgetvalue(result, (int)i, 3), NULL, 10);
        row->lane = atoi(PQgetvalue(result, (int)i, 4));
        row->state = atoi(PQgetvalue(result, (int)i, 5));
    }
    PQclear(result);
    self->rows += self->count;
    return true;
}

static int s_compare(const void *a, const void *b)
{
    const s_row_t *left = a, *right = b;
    return left->number < right->number ? -1 : left->number > right->number;
}

static s_row_t *s_find(s_proof_t *self, uint64_t number)
{
    s_row_t key = {.number = number};
    return bsearch(&key, self->list, self->count, sizeof *self->list, s_compare);
}

/* -- checks of one company -------------------------------------------------------------------- */

static void s_check_places(s_proof_t *self, PGconn *connection, const char *title)
{
    PGresult *result = s_select(connection, s_query_places);
    long long value[4] = {0, -1, -1, -1};
    for (int i = 0; result && i < 4; i++) {
        value[i] = atoll(PQgetvalue(result, 0, i));
    }
    PQclear(result);
    s_expect(self, S_BOOKING, value[0] == value[1], "%s: %lld tickets on %lld places", title,
             value[0], value[1]);
    s_expect(self, S_IN_TIME, value[2] == 0, "%s: %lld tickets", title, value[2]);
    s_expect(self, S_ONCE, value[3] == 0, "%s: %lld too many", title, value[3]);
    /* what was counted by SQL counts as tested one by one */
    self->tested[S_BOOKING] += value[0] > 0 ? (uint64_t)value[0] - 1 : 0;
    self->tested[S_IN_TIME] += value[0] > 0 ? (uint64_t)value[0] - 1 : 0;
    self->tested[S_ONCE] += self->count > 0 ? self->count - 1 : 0;
}

static void s_check_ack(s_proof_t *self, const dkt_ack_t *ack, const char *title)
{
    s_row_t *row = s_find(self, ack->number);
    s_expect(self, ack->repeated ? S_REPEATED : S_PRESENT, row != NULL, "%s: %s", title,
             ack->ticket_id);
    if (!row) {
        return;
    }
    bool same = memcmp(row->request_id.bytes, ack->request_id, sizeof ack->request_id) == 0;
    s_expect(self, ack->repeated ? S_REPEATED : S_PROMISE,
             same && row->deadline_ms == ack->deadline_ms, "%s: %s, deadline %lld ms off", title,
             ack->ticket_id, (long long)(row->deadline_ms - ack->deadline_ms));
    row->acked = true;
    row->must_be_cancelled = row->must_be_cancelled || ack->state == DKT_ACK_CANCELLED;
    row->may_be_cancelled = row->may_be_cancelled || ack->state != DKT_ACK_CREATED;
}

static void s_check_rows(s_proof_t *self, const dkt_demo_company_t *company)
{
    uint64_t unasked = 0;
    for (size_t i = 0; i < self->count; i++) {
        const s_row_t *row = &self->list[i];
        bool cancelled = row->state == S_STATE_CANCELED;
        unasked += !row->acked;
        s_expect(self, S_CANCELLED,
                 cancelled ? row->may_be_cancelled || !row->acked : !row->must_be_cancelled,
                 "%s: ticket %llu", company->title, (unsigned long long)row->number);
    }
    /* A request without an answer may have made a ticket; nothing else may. */
    s_expect(self, S_ASKED, unasked <= company->unknown,
             "%s: %llu tickets, %llu calls without answer", company->title,
             (unsigned long long)unasked, (unsigned long long)company->unknown);
    self->tested[S_ASKED] += self->count > 0 ? self->count - 1 : 0;
}

static void s_check_done(s_proof_t *self, size_t company)
{
    const dkt_demo_t *demo = self->demo;
    for (size_t i = 0; i < demo->done_count; i++) {
        const dkt_done_t *done = &demo->done[i];
        const s_row_t *row = done->company == company ? s_find(self, done->number) : NULL;
        if (done->company == company) {
            s_expect(self, S_RESOLVED, row && row->state == S_STATE_RESOLVED, "%s: ticket %llu",
                     demo->companies[company].title, (unsigned long long)done->number);
        }
    }
}

static bool s_check_company(s_proof_t *self, size_t index, const char *database)
{
    const dkt_demo_company_t *company = &self->demo->companies[index];
    PGconn *connection = dkt_pg_connect(self->options, database);
    bool ok = PQstatus(connection) == CONNECTION_OK && s_read_rows(self, connection);
    if (!ok) {
        fprintf(stderr, "docket demo: %s: %s", database, PQerrorMessage(connection));
    } else {
        self->databases++;
        s_check_places(self, connection, company->title);
        for (size_t i = 0; i < self->demo->ack_count; i++) {
            if (self->demo->acks[i].company == index) {
                s_check_ack(self, &self->demo->acks[i], company->title);
            }
        }
        s_check_rows(self, company);
        s_check_done(self, index);
    }
    free(self->list);
    self->list = NULL;
    PQfinish(connection);
    return ok;
}

/* The database of a company, as the control database has it. */
static bool s_database(PGconn *control, const char *client_id, char out[S_DATABASE_BYTES])
{
    const char *values[] = {client_id};
    PGresult *result = PQexecParams(control, "select database from tenants where client_id = $1", 1,
                                    NULL, values, NULL, NULL, 0);
    bool ok = PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1;
    snprintf(out, S_DATABASE_BYTES, "%s", ok ? PQgetvalue(result, 0, 0) : "");
    if (!ok) {
        fprintf(stderr, "docket demo: no database of %s: %s\n", client_id, PQerrorMessage(control));
    }
    PQclear(result);
    return ok;
}

static void s_print_refusals(const dkt_demo_t *demo)
{
    uint64_t all = 0;
    for (size_t i = 0; i < demo->company_count; i++) {
        all += demo->companies[i].refused;
    }
    printf("\nRefused: %llu requests whose level could not be guaranteed:",
           (unsigned long long)all);
    for (size_t i = 0; i < sizeof demo->reasons / sizeof demo->reasons[0]; i++) {
        printf(" %s %llu%s", dkt_demo_reasons[i], (unsigned long long)demo->reasons[i],
               i + 1 < sizeof demo->reasons / sizeof demo->reasons[0] ? "," : "\n");
    }
    for (size_t i = 0; i < demo->example_count; i++) {
        printf("  e.g. %s\n", demo->examples[i].text);
    }
}

static bool s_prove(s_proof_t *self, PGconn *control)
{
    char database[S_DATABASE_BYTES];
    bool ok = true;
    for (size_t i = 0; ok && i < self->demo->company_count; i++) {
        ok = s_database(control, self->demo->companies[i].client_id, database) &&
             s_check_company(self, i, database);
        dkt_view_progress(self->demo, "databases read", i + 1, self->demo->company_count);
    }
    return ok;
}

bool dkt_demo_proof(dkt_demo_t *demo)
{
    char *message = NULL, pgpass[DKT_FLEET_TEXT_BYTES + 8];
    s_proof_t self = {.demo = demo};
    snprintf(pgpass, sizeof pgpass, "%s/pgpass", demo->fleet.keys);
    if (access(pgpass, R_OK) == 0) {
        setenv("PGPASSFILE", pgpass, 0);
    }
    self.options = PQconninfoParse(demo->fleet.postgres, &message);
    if (!self.options) {
        fprintf(stderr, "docket demo: %s", message ? message : "no memory\n");
        PQfreemem(message);
        return false;
    }
    printf("\nThe proof: every database against everything that was acknowledged\n");
    PGconn *control = dkt_pg_connect(self.options, NULL);
    bool ok = PQstatus(control) == CONNECTION_OK;
    if (!ok) {
        fprintf(stderr, "docket demo: %s", PQerrorMessage(control));
    }
    ok = ok && s_prove(&self, control);
    PQfinish(control);
    PQconninfoFree(self.options);
    printf("%llu tickets in %llu databases\n", (unsigned long long)self.rows,
           (unsigned long long)self.databases);
    ok = s_print_table(&self) && ok;
    printf("  %llu requests were repeated with the same request_id, %llu holds taken, %llu given "
           "back\n",
           (unsigned long long)demo->repeats, (unsigned long long)demo->allocated,
           (unsigned long long)demo->released);
    s_print_refusals(demo);
    return ok;
}
