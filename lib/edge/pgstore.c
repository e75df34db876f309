/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/pgstore.h"

#include <assert.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/edge/pgstore_self.h"

/* Page 7, timers: the client must notice a dead connection before the server does. */
#define S_KEEPALIVES         "1"
#define S_KEEPALIVES_IDLE    "1"
#define S_KEEPALIVES_EVERY   "1"
#define S_KEEPALIVES_COUNT   "3"
#define S_TCP_USER_TIMEOUT   "2000"
#define S_APPLICATION_FORMAT "docket/%.*s/%s"
#define S_NAME_BYTES_MAX     63 /* of an application_name, NAMEDATALEN - 1 */

/* Session settings. The last lines are for the planner: one plan per statement for the life of the
 * connection, and always by index (pgstore_sql.c). */
static const char s_options[] =
    "-c statement_timeout=2000 -c lock_timeout=500 -c idle_in_transaction_session_timeout=2000 "
    "-c search_path=public,pg_temp -c client_connection_check_interval=1000 "
    "-c tcp_keepalives_idle=1 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=3 "
    "-c tcp_user_timeout=3000 -c synchronous_commit=on -c client_min_messages=warning "
    "-c TimeZone=UTC -c jit=off -c plan_cache_mode=force_generic_plan "
    "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off";

static int64_t s_mono_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* -- queue ----------------------------------------------------------------------------------------
 */

static dkt_pgstore_entry_t *s_entry(dkt_pgstore_t *self, uint32_t index)
{
    assert(index < self->count);
    return &self->entries[(self->first + index) % DKT_STORE_BATCHES_MAX];
}

static dkt_pgstore_entry_t *s_push(dkt_pgstore_t *self)
{
    assert(self->count < DKT_STORE_BATCHES_MAX);
    self->count++;
    dkt_pgstore_entry_t *entry = s_entry(self, self->count - 1);
    memset(entry, 0, sizeof *entry);
    return entry;
}

static void s_pop(dkt_pgstore_t *self)
{
    free(s_entry(self, 0)->copies);
    self->count--;
    /* An empty one begins anew: the memory of few entries is all that most tenants ever touch. */
    self->first = self->count > 0 ? (self->first + 1) % DKT_STORE_BATCHES_MAX : 0;
    if (self->flight > 0) {
        self->flight--;
    }
    self->warned = false;
    self->refused = false;
    self->answered = false;
}

/* Does it change what others see? Such batches wait for each other's success. */
static bool s_writes(const dkt_pgstore_entry_t *entry)
{
    static const bool writes[] = {
        [DKT_BATCH_LOCK] = true,
        [DKT_BATCH_TAKE] = true,
        [DKT_BATCH_LOAD] = false,
        [DKT_BATCH_GUARD] = false,
        [DKT_BATCH_READ] = false,
        [DKT_BATCH_COMMIT] = true,
        [DKT_BATCH_MIGRATE] = true,
        /* Nobody waits for a mark, or for what is old to go, and a lost one only repeats: they need
         * no turn of their own. */
        [DKT_BATCH_AGE] = false,
        [DKT_BATCH_REHEARSE] = false,
        [DKT_BATCH_RELAY_READ] = false,
        [DKT_BATCH_RELAY_MARK] = false,
    };
    return writes[entry->batch.kind];
}

/* The connection is over; what that means for the open batches is settled in s_settle. The first
 * reason is the one that is told. */
static void s_break(dkt_pgstore_t *self, const char *text)
{
    if (self->broken) {
        return;
    }
    self->broken = true;
    if (self->text[0] == '\0') {
        snprintf(self->text, sizeof self->text, "%s", text);
        self->text[strcspn(self->text, "\n")] = '\0';
    }
}

static void s_flush(dkt_pgstore_t *self)
{
    if (self->state != DKT_PGSTORE_READY || self->broken) {
        return;
    }
    int rest = PQflush(self->conn);
    self->want_write = rest > 0;
    if (rest < 0) {
        s_break(self, PQerrorMessage(self->conn));
    }
}

/* Sends what may go. */
static void s_pump(dkt_pgstore_t *self)
{
    bool writing = false;
    for (uint32_t i = 0; i < self->flight; i++) {
        writing = writing || s_writes(s_entry(self, i));
    }
    while (self->state == DKT_PGSTORE_READY && !self->broken && self->flight < self->count) {
        dkt_pgstore_entry_t *entry = s_entry(self, self->flight);
        if (writing && s_writes(entry)) {
            return;
        }
        writing = writing || s_writes(entry);
        entry->deadline_ms = s_mono_ms() + DKT_COMMIT_TIMEOUT_MS;
        self->flight++;
        if (!dkt_pgstore_send(self, entry)) {
            s_break(self, PQerrorMessage(self->conn));
        }
    }
}

/* -- results --------------------------------------------------------------------------------------
 */

/* Delivers the result of the first entry and forgets the entry. */
static void s_deliver(dkt_pgstore_t *self, dkt_store_result_t *result)
{
    dkt_pgstore_entry_t *entry = s_entry(self, 0);
    result->kind = entry->batch.kind;
    s_pop(self);
    self->on_result(self->ctx, result);
    dkt_pgstore_read_done(self);
}

static void s_failure(const dkt_pgstore_t *self, dkt_store_result_t *result,
                      dkt_store_outcome_t outcome)
{
    *result = (dkt_store_result_t){.outcome = outcome};
    memcpy(result->sqlstate, self->sqlstate, sizeof result->sqlstate);
    snprintf(result->text, sizeof result->text, "%s", self->text);
}

/* The first entry's Sync was answered. */
static void s_finish(dkt_pgstore_t *self)
{
    dkt_store_result_t result = {.outcome = DKT_STORE_OK};
    if (self->refused) {
        s_failure(self, &result, DKT_STORE_REFUSED);
        s_break(self, self->text);
    } else if (self->warned &&
               (s_writes(s_entry(self, 0)) || s_entry(self, 0)->batch.kind == DKT_BATCH_GUARD)) {
        /* A commit wait that was cancelled says OK, with a WARNING: durable here only. */
        s_failure(self, &result, DKT_STORE_UNKNOWN);
        s_break(self, self->text);
    } else if (!dkt_pgstore_read(self, &result)) {
        /* Not our schema, or no memory for its rows: a commit may still have happened. */
        s_break(self, "the database returned something else than was asked for");
        s_failure(self, &result, DKT_STORE_UNKNOWN);
    } else {
        self->text[0] = '\0'; /* of a warning that did not matter */
        self->sqlstate[0] = '\0';
    }
    s_deliver(self, &result);
}

static void s_keep_error(dkt_pgstore_t *self, const PGresult *error)
{
    const char *sqlstate = PQresultErrorField(error, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(error, PG_DIAG_MESSAGE_PRIMARY);
    snprintf(self->sqlstate, sizeof self->sqlstate, "%s", sqlstate ? sqlstate : "");
    snprintf(self->text, sizeof self->text, "%s", text ? text : PQresultErrorMessage(error));
    self->text[strcspn(self->text, "\n")] = '\0';
}

/* Is the session over with this error (08xxx, 57P0x, anything FATAL, or libpq's own)? Then nobody
 * knows whether the transaction was committed. */
static bool s_ends_session(const PGresult *error)
{
    const char *sqlstate = PQresultErrorField(error, PG_DIAG_SQLSTATE);
    const char *severity = PQresultErrorField(error, PG_DIAG_SEVERITY_NONLOCALIZED);
    return !sqlstate || strncmp(sqlstate, "08", 2) == 0 || strncmp(sqlstate, "57P0", 4) == 0 ||
           !severity || strcmp(severity, "ERROR") != 0;
}

static void s_take_error(dkt_pgstore_t *self, const PGresult *error)
{
    if (!self->refused) {
        s_keep_error(self, error);
    }
    if (s_ends_session(error)) {
        s_break(self, self->text);
    }
    self->refused = true;
}

/* Keeps the rows of a statement if somebody reads them; takes the result. */
static void s_take_rows(dkt_pgstore_t *self, uint8_t sql, PGresult *rows)
{
    if (dkt_pgstore_sql[sql].columns > 0) {
        assert(self->result_count < DKT_RESULTS_MAX);
        self->result_sql[self->result_count] = sql;
        self->results[self->result_count++] = rows;
    } else {
        PQclear(rows);
    }
}

/* One result of the first entry, checked against the step that is expected; takes it. */
static void s_take_result(dkt_pgstore_t *self, PGresult *result)
{
    dkt_pgstore_entry_t *entry = s_entry(self, 0);
    ExecStatusType status = PQresultStatus(result);
    assert(entry->step < entry->step_count);
    uint8_t step = entry->steps[entry->step];
    if (status == PGRES_FATAL_ERROR) {
        s_take_error(self, result);
        PQclear(result);
        /* an error of the commit itself has no statement of its own */
        self->answered = step != DKT_STEP_SYNC;
        return;
    }
    /* libpq counts syncs itself: out of step with it is a bug of ours */
    assert((status == PGRES_PIPELINE_SYNC) == (step == DKT_STEP_SYNC));
    if (status == PGRES_PIPELINE_SYNC) {
        PQclear(result);
        entry->step++;
        s_finish(self);
        return;
    }
    assert(!self->answered);
    self->answered = true;
    if (status == PGRES_PIPELINE_ABORTED) {
        assert(self->refused);
        PQclear(result);
    } else if (step & DKT_STEP_PREPARE) {
        assert(status == PGRES_COMMAND_OK);
        PQclear(result);
    } else {
        assert(status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK);
        s_take_rows(self, step, result);
    }
}

/* Takes every result that has arrived. */
static void s_drain(dkt_pgstore_t *self)
{
    bool skipped = false;
    while (self->flight > 0 && !self->broken && !PQisBusy(self->conn)) {
        PGresult *result = PQgetResult(self->conn);
        if (result) {
            s_take_result(self, result);
        } else if (self->answered) {
            self->answered = false; /* the end of one statement's results */
            s_entry(self, 0)->step++;
        } else if (!skipped) {
            skipped = true; /* ends an error of the commit itself; its Sync may be here already */
        } else {
            return;
        }
    }
    if (self->flight == 0 && !self->broken) {
        /* lets libpq take what comes unasked: a notice, the news of a shutdown */
        (void)PQisBusy(self->conn);
    }
}

/* -- connection -----------------------------------------------------------------------------------
 */

/* A WARNING or worse that belongs to no statement. libpq parses no further than to the next result,
 * so it belongs to the first entry. */
static void s_notice(void *arg, const PGresult *notice)
{
    dkt_pgstore_t *self = arg;
    const char *severity = PQresultErrorField(notice, PG_DIAG_SEVERITY_NONLOCALIZED);
    if (!severity || strcmp(severity, "NOTICE") == 0 || strcmp(severity, "INFO") == 0 ||
        strcmp(severity, "LOG") == 0 || strcmp(severity, "DEBUG") == 0) {
        return;
    }
    self->warned = self->flight > 0;
    if (!self->refused) {
        s_keep_error(self, notice);
    }
}

static void s_connected(dkt_pgstore_t *self)
{
    if (PQsetnonblocking(self->conn, 1) != 0 || !PQenterPipelineMode(self->conn)) {
        s_break(self, PQerrorMessage(self->conn));
        return;
    }
    self->state = DKT_PGSTORE_READY;
    self->text[0] = '\0';
    self->sqlstate[0] = '\0';
    self->warned = false;
    self->on_state(self->ctx, DKT_PGSTORE_READY, "");
}

static void s_connect(dkt_pgstore_t *self)
{
    struct pollfd socket = {.fd = PQsocket(self->conn), .events = dkt_pgstore_events(self)};
    /* PQconnectPoll may only be called when its socket is ready, else it may block. */
    if (poll(&socket, 1, 0) > 0) {
        self->polling = PQconnectPoll(self->conn);
    }
    if (self->polling == PGRES_POLLING_OK) {
        s_connected(self);
    } else if (self->polling == PGRES_POLLING_FAILED) {
        s_break(self, PQerrorMessage(self->conn));
    } else if (self->now_ms >= self->connect_deadline_ms) {
        s_break(self, "no connection within the time for one");
    }
}

static void s_read(dkt_pgstore_t *self)
{
    bool alive = PQconsumeInput(self->conn) == 1;
    s_drain(self);
    if (!alive) {
        s_break(self, PQerrorMessage(self->conn));
    }
    if (self->flight > 0 && !self->broken && self->now_ms >= s_entry(self, 0)->deadline_ms) {
        s_break(self, "no answer within the time for a commit");
    }
}

/* After the connection is over: every open batch gets its result, in order. What was sent and may
 * write is UNKNOWN, the rest has not happened. */
static void s_settle(dkt_pgstore_t *self)
{
    uint32_t count = self->count; /* those that callbacks submit wait for the next call */
    /* Closing first frees the lock, whatever the callbacks do. Never a cancel. */
    dkt_pgstore_read_done(self);
    PQfinish(self->conn);
    self->conn = NULL;
    self->state = DKT_PGSTORE_LOST;
    self->want_write = false;
    for (uint32_t i = 0; i < count; i++) {
        dkt_store_result_t result;
        const dkt_pgstore_entry_t *entry = s_entry(self, 0);
        bool unknown = entry->sent && s_writes(entry);
        s_failure(self, &result, unknown ? DKT_STORE_UNKNOWN : DKT_STORE_LOST);
        s_deliver(self, &result);
    }
    if (!self->lost_told) {
        self->lost_told = true;
        self->on_state(self->ctx, DKT_PGSTORE_LOST, self->text);
    }
}

/* -- public ---------------------------------------------------------------------------------------
 */

/* On loopback there is nobody to hide from, and to ask for TLS costs a round trip and the library's
 * start in each new backend. */
static const char *s_sslmode(const dkt_pgstore_config_t *config)
{
    bool loopback = config->host && !strchr(config->host, ',') &&
                    (strncmp(config->host, "127.", 4) == 0 || strcmp(config->host, "::1") == 0);
    if (config->sslmode) {
        return config->sslmode;
    }
    return loopback ? "disable" : "prefer";
}

static PGconn *s_start(const dkt_pgstore_config_t *config, const char *application)
{
    const char *const pairs[][2] = {
        {"host", config->host},
        {"port", config->port},
        {"dbname", config->dbname},
        {"user", config->user},
        {"password", config->password},
        {"sslmode", s_sslmode(config)},
        {"gssencmode", "disable"},
        {"target_session_attrs", "read-write"},
        {"application_name", application},
        {"client_encoding", "UTF8"},
        {"keepalives", S_KEEPALIVES},
        {"keepalives_idle", S_KEEPALIVES_IDLE},
        {"keepalives_interval", S_KEEPALIVES_EVERY},
        {"keepalives_count", S_KEEPALIVES_COUNT},
        {"tcp_user_timeout", S_TCP_USER_TIMEOUT},
        {"options", s_options},
    };
    enum { S_PAIRS = sizeof pairs / sizeof *pairs };
    const char *keywords[S_PAIRS + 1] = {0}, *values[S_PAIRS + 1] = {0};
    for (int i = 0; i < S_PAIRS; i++) {
        keywords[i] = pairs[i][0];
        values[i] = pairs[i][1];
    }
    return PQconnectStartParams(keywords, values, 0);
}

dkt_pgstore_t *dkt_pgstore_new(const dkt_pgstore_config_t *config, dkt_pgstore_fn *on_result,
                               dkt_pgstore_state_fn *on_state, void *ctx)
{
    char application[S_NAME_BYTES_MAX + 1];
    dkt_pgstore_t *self = malloc(sizeof *self);
    if (!self) {
        return NULL;
    }
    memset(self, 0, offsetof(dkt_pgstore_t, journal));
    assert(strlen(config->incarnation) < sizeof self->incarnation);
    snprintf(self->node, sizeof self->node, "%s", config->node);
    snprintf(self->incarnation, sizeof self->incarnation, "%s", config->incarnation);
    int room = S_NAME_BYTES_MAX - (int)strlen("docket//") - (int)strlen(config->incarnation);
    snprintf(application, sizeof application, S_APPLICATION_FORMAT, room, config->node,
             self->incarnation);
    self->on_result = on_result;
    self->on_state = on_state;
    self->ctx = ctx;
    self->connect_deadline_ms = s_mono_ms() + DKT_STORE_CONNECT_MS;
    self->polling = PGRES_POLLING_WRITING;
    self->conn = s_start(config, application);
    if (!self->conn) {
        free(self);
        return NULL;
    }
    PQsetNoticeReceiver(self->conn, s_notice, self);
    if (PQstatus(self->conn) == CONNECTION_BAD) {
        s_break(self, PQerrorMessage(self->conn));
    }
    return self;
}

void dkt_pgstore_destroy(dkt_pgstore_t **self_p)
{
    dkt_pgstore_t *self = *self_p;
    if (!self) {
        return;
    }
    assert(!self->in_call);
    dkt_pgstore_read_done(self);
    while (self->count > 0) {
        s_pop(self);
    }
    for (int i = 0; i < DKT_COLUMNS_MAX; i++) {
        dkt_pgarray_fini(&self->columns[i]);
    }
    free(self->tickets);
    PQfinish(self->conn);
    free(self);
    *self_p = NULL;
}

int dkt_pgstore_fd(const dkt_pgstore_t *self)
{
    return self->conn ? PQsocket(self->conn) : -1;
}

short dkt_pgstore_events(const dkt_pgstore_t *self)
{
    if (self->state == DKT_PGSTORE_CONNECTING) {
        return self->polling == PGRES_POLLING_READING ? POLLIN : POLLOUT;
    }
    return (short)(POLLIN | (self->want_write ? POLLOUT : 0));
}

int64_t dkt_pgstore_due_mono_ms(const dkt_pgstore_t *self)
{
    if (self->state == DKT_PGSTORE_LOST) {
        return self->count > 0 ? 0 : INT64_MAX;
    }
    if (self->broken) {
        return 0;
    }
    if (self->state == DKT_PGSTORE_CONNECTING) {
        return self->connect_deadline_ms;
    }
    return self->flight > 0 ? self->entries[self->first].deadline_ms : INT64_MAX;
}

void dkt_pgstore_ready(dkt_pgstore_t *self, int64_t mono_ms)
{
    assert(!self->in_call);
    self->in_call = true;
    self->now_ms = mono_ms;
    if (self->state == DKT_PGSTORE_CONNECTING && !self->broken) {
        s_connect(self);
    }
    if (self->state == DKT_PGSTORE_READY && !self->broken) {
        s_read(self);
        s_pump(self);
        s_flush(self);
    }
    if (self->broken) {
        s_settle(self);
    }
    self->in_call = false;
}

/* A READ that cannot go out at once outlives its caller's arrays. */
static bool s_copy_read(dkt_pgstore_entry_t *entry)
{
    dkt_read_t *read = &entry->batch.read;
    size_t ids = read->request_id_count * sizeof *read->request_ids;
    size_t numbers = read->number_count * sizeof *read->numbers;
    size_t nonces = read->nonce_count * sizeof *read->nonces;
    uint8_t *copy = malloc(numbers + nonces + ids + 1);
    if (!copy) {
        return false;
    }
    entry->copies = copy;
    if (numbers > 0) {
        read->numbers = memcpy(copy, read->numbers, numbers);
    }
    if (nonces > 0) {
        read->nonces = memcpy(copy + numbers, read->nonces, nonces);
    }
    if (ids > 0) {
        read->request_ids = memcpy(copy + numbers + nonces, read->request_ids, ids);
    }
    return true;
}

static void s_send_soon(dkt_pgstore_t *self)
{
    s_pump(self);
    if (!self->in_call) {
        s_flush(self);
    }
}

void dkt_pgstore_submit(dkt_pgstore_t *self, const dkt_batch_t *batch)
{
    dkt_pgstore_entry_t *entry = s_push(self);
    entry->batch = *batch;
    s_send_soon(self);
    if (!entry->sent && batch->kind == DKT_BATCH_READ && !s_copy_read(entry)) {
        entry->batch.read = (dkt_read_t){0};
        s_break(self, "out of memory");
    }
}

dkt_pgstore_state_t dkt_pgstore_state(const dkt_pgstore_t *self)
{
    return self->state;
}
