/* SPDX-License-Identifier: Apache-2.0
 *
 * A fleet of the bench's own, and what is connected to it, see bench.h. What runs here ends here:
 * dkt_stage_close may be called at any time, and twice.
 */
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "ops/bench.h"
#include "ops/nats_client.h"
#include "ops/pg_connect.h"
#include "ops/result.h"

#define S_SUBJECT        "docket.stats.worker.>"
#define S_NODES_MAX      8
#define S_DRAIN_MS       60000 /* of the relay, then it is told as failed */
#define S_NEXT_MS        100
#define S_QUIET_MS       60000 /* for the ready-made databases */
#define S_DATABASE_BYTES 64

/* -- relay: its own words, told once a second ------------------------------------------------- */

typedef struct s_relay {
    natsConnection *connection;
    natsSubscription *subscription;
    struct {
        char subject[128];
        int64_t lag_rows, told_ms;
    } nodes[S_NODES_MAX];
    int node_count;
} s_relay_t;

static void s_relay_close(s_relay_t **self_p)
{
    if (*self_p) {
        natsSubscription_Destroy((*self_p)->subscription);
        natsConnection_Destroy((*self_p)->connection);
        free(*self_p);
        *self_p = NULL;
    }
}

static s_relay_t *s_relay_open(const dkt_fleet_t *fleet, dkt_err_t *err)
{
    s_relay_t *self = calloc(1, sizeof *self);
    const dkt_nats_where_t where = {.url = fleet->nats, .keys = fleet->keys};
    if (!self) {
        return NULL;
    }
    self->connection = dkt_nats_connect(&where, "docket bench", err);
    if (!self->connection ||
        natsConnection_SubscribeSync(&self->subscription, self->connection, S_SUBJECT) != NATS_OK) {
        s_relay_close(&self);
    }
    return self;
}

static void s_relay_take(s_relay_t *self, natsMsg *message)
{
    json_t *stats =
        json_loadb(natsMsg_GetData(message), (size_t)natsMsg_GetDataLength(message), 0, NULL);
    json_t *lag = json_object_get(json_object_get(stats, "relay"), "lag_rows");
    int i = 0;
    while (i < self->node_count &&
           strcmp(self->nodes[i].subject, natsMsg_GetSubject(message)) != 0) {
        i++;
    }
    if (json_is_integer(lag) && i < S_NODES_MAX) {
        self->node_count = i < self->node_count ? self->node_count : i + 1;
        snprintf(self->nodes[i].subject, sizeof self->nodes[i].subject, "%s",
                 natsMsg_GetSubject(message));
        self->nodes[i].lag_rows = json_integer_value(lag);
        self->nodes[i].told_ms = dkt_mono_ms();
    }
    json_decref(stats);
}

/* Rows that the workers are behind, as they told last; -1: one has told nothing since then. */
static int64_t s_relay_lag(const s_relay_t *self, int64_t since_ms)
{
    int64_t lag = 0;
    for (int i = 0; i < self->node_count; i++) {
        if (self->nodes[i].told_ms < since_ms) {
            return -1;
        }
        lag += self->nodes[i].lag_rows;
    }
    return self->node_count > 0 ? lag : -1;
}

void dkt_stage_settle(dkt_stage_t *stage, dkt_relay_watch_t *watch)
{
    s_relay_t *relay = stage->relay;
    int64_t start_ms = dkt_mono_ms(), now_ms = start_ms, lag = 0, lag_max = 0;
    natsMsg *message = NULL;
    /* What came during the run first: it is older than the run's end. */
    while (natsSubscription_NextMsg(&message, relay->subscription, 0) == NATS_OK) {
        s_relay_take(relay, message);
        natsMsg_Destroy(message);
        lag = s_relay_lag(relay, 0);
        lag_max = lag > lag_max ? lag : lag_max;
    }
    start_ms = dkt_mono_ms();
    do {
        if (natsSubscription_NextMsg(&message, relay->subscription, S_NEXT_MS) == NATS_OK) {
            s_relay_take(relay, message);
            natsMsg_Destroy(message);
        }
        now_ms = dkt_mono_ms();
        lag = s_relay_lag(relay, start_ms);
        lag_max = lag > lag_max ? lag : lag_max;
    } while (lag != 0 && now_ms < start_ms + S_DRAIN_MS && !dkt_suite_stopped());
    watch->failed |= lag != 0;
    dkt_series_add(&watch->lag_rows, (double)lag_max);
    dkt_series_add(&watch->drain_s, (double)(now_ms - start_ms) / 1000.0);
}

/* -- PostgreSQL ------------------------------------------------------------------------------- */

static PGconn *s_connect_to(const dkt_stage_t *stage, const char *database)
{
    PQconninfoOption *options = PQconninfoParse(stage->fleet.postgres, NULL);
    PGconn *connection = dkt_pg_connect(options, database);
    PQconninfoFree(options);
    return connection;
}

void dkt_stage_quiet(dkt_stage_t *stage)
{
    int64_t end_ms = dkt_mono_ms() + S_QUIET_MS;
    bool quiet = false;
    while (!quiet && dkt_mono_ms() < end_ms && !dkt_suite_stopped()) {
        PGresult *result =
            PQexec(stage->control, "select count(*) from pool where state = 'ready'");
        quiet = PQresultStatus(result) != PGRES_TUPLES_OK ||
                atoi(PQgetvalue(result, 0, 0)) >= DKT_POOL_READY_MIN;
        PQclear(result);
        poll(NULL, 0, quiet ? 0 : S_NEXT_MS);
    }
}

static bool s_do(PGconn *connection, const char *sql)
{
    PGresult *result = PQexec(connection, sql);
    const ExecStatusType status = PQresultStatus(result);
    PQclear(result);
    return status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
}

/* A server that has run for a while writes its log into segments that it has used before; a new one
 * makes them, 25 to 80 ms each, while all commits wait. The checkpoint hands them back. */
static bool s_reuse_log(dkt_suite_t *suite, dkt_stage_t *stage)
{
    bool ok = true;
    for (int i = 0; ok && i < suite->sizes.log_segments && !dkt_suite_stopped(); i++) {
        ok = s_do(stage->control, "select pg_logical_emit_message (false, 'docket bench', '')") &&
             s_do(stage->control, "select pg_switch_wal ()");
        dkt_progress(suite, "log segments", i, suite->sizes.log_segments);
    }
    return ok && (suite->sizes.log_segments == 0 || s_do(stage->control, "checkpoint"));
}

/* -- open and close --------------------------------------------------------------------------- */

void dkt_stage_close(dkt_stage_t *stage)
{
    s_relay_close(&stage->relay);
    PQfinish(stage->control);
    stage->control = NULL;
    dkt_load_close(&stage->load);
    dkt_load_set_free(&stage->wide);
    dkt_load_set_free(&stage->many);
    dkt_load_set_free(&stage->single);
    dkt_load_set_free(&stage->cold);
    dkt_fleet_stop(&stage->fleet);
    stage->open = false;
}

static bool s_connect(dkt_suite_t *suite, dkt_stage_t *stage, dkt_outcome_t *outcome)
{
    dkt_err_t err = {0};
    const dkt_load_where_t where = {.endpoint = stage->fleet.public_endpoint,
                                    .internal = stage->fleet.internal_endpoint,
                                    .keys = stage->fleet.keys,
                                    .lines = DKT_LOAD_LINES_MAX,
                                    .batch = DKT_FRAMES_PER_MESSAGE_MAX};
    if (!dkt_load_open(&stage->load, &where)) {
        return dkt_outcome_fail(outcome, "no connections to the fleet");
    }
    stage->relay = s_relay_open(&stage->fleet, &err);
    if (!stage->relay) {
        return dkt_outcome_fail(outcome, "NATS: %s", err.text);
    }
    if (!dkt_bench_settings(stage->fleet.postgres, &suite->postgres)) {
        return dkt_outcome_fail(outcome, "PostgreSQL does not tell its settings");
    }
    stage->control = s_connect_to(stage, NULL);
    dkt_stage_quiet(stage);
    /* Figures of servers that may lose what they acknowledged are not figures. */
    if (strcmp(suite->postgres.fsync, "on") != 0 ||
        strcmp(suite->postgres.synchronous_commit, "on") != 0) {
        return dkt_outcome_fail(outcome,
                                "PostgreSQL is not durable: fsync %s, "
                                "synchronous_commit %s",
                                suite->postgres.fsync, suite->postgres.synchronous_commit);
    }
    return s_reuse_log(suite, stage) ||
           dkt_outcome_fail(outcome, "PostgreSQL: %s", PQerrorMessage(stage->control));
}

dkt_stage_t *dkt_stage_open(dkt_suite_t *suite, int workers, dkt_outcome_t *outcome)
{
    dkt_stage_t *stage = &suite->stages[workers - 1];
    const dkt_fleet_options_t options = {.who = "docket bench",
                                         .port = DKT_FLEET_ANY_PORT,
                                         .workers = workers,
                                         .stopped = dkt_suite_stopped};
    if (stage->open) {
        return stage;
    }
    dkt_progress(suite, "a fleet starts", 0, 1);
    *stage = (dkt_stage_t){.wide = {.resolvers = suite->sizes.wide_resolvers},
                           .many = {.resolvers = suite->sizes.some_resolvers},
                           .single = {.resolvers = 1},
                           .cold = {.resolvers = 1}};
    if (!dkt_fleet_start(&stage->fleet, &options)) {
        dkt_outcome_fail(outcome, "the fleet did not come up");
        return NULL;
    }
    stage->open = true;
    if (!s_connect(suite, stage, outcome)) {
        dkt_stage_close(stage);
        return NULL;
    }
    return stage;
}

bool dkt_stage_plpgsql(dkt_suite_t *suite, dkt_outcome_t *outcome)
{
    return suite->plpgsql.server ||
           dkt_plpgsql_open(&suite->plpgsql, suite->stages[0].fleet.postgres, dkt_suite_stopped) ||
           dkt_outcome_fail(outcome, "no scratch database");
}

bool dkt_stage_redis(dkt_suite_t *suite, dkt_outcome_t *outcome)
{
    if (suite->redis.pid == 0 && !dkt_redis_open(&suite->redis, dkt_suite_stopped)) {
        return dkt_outcome_fail(outcome, "Redis did not come up");
    }
    snprintf(suite->redis_version, sizeof suite->redis_version, "%s", suite->redis.version);
    snprintf(suite->appendfsync, sizeof suite->appendfsync, "%s", suite->redis.appendfsync);
    return strcmp(suite->appendfsync, "always") == 0 ||
           dkt_outcome_fail(outcome, "Redis is not durable: appendfsync %s", suite->appendfsync);
}

/* -- tenants and runs ------------------------------------------------------------------------- */

bool dkt_stage_tenants(dkt_stage_t *stage, dkt_load_set_t *set, int count, dkt_outcome_t *outcome)
{
    int before = set->count;
    bool ok = dkt_load_set_grow(&stage->load, set, count, dkt_suite_stopped);
    if (ok && set->count > before) {
        dkt_stage_quiet(stage);
    }
    return (ok && dkt_load_set_login(&stage->load, set, count, dkt_suite_stopped)) ||
           dkt_outcome_fail(outcome, "the tenants' accounts could not be opened");
}

dkt_load_tenant_t *dkt_stage_wide(dkt_stage_t *stage, dkt_outcome_t *outcome)
{
    int index = stage->wide_used;
    if (!dkt_stage_tenants(stage, &stage->wide, index + 1, outcome)) {
        return NULL;
    }
    stage->wide_used++;
    return &stage->wide.list[index];
}

bool dkt_stage_run(dkt_suite_t *suite, dkt_stage_t *stage, dkt_load_plan_t *plan,
                   dkt_outcome_t *outcome)
{
    plan->warm_up_ms = plan->warm_up_ms ? plan->warm_up_ms : suite->sizes.warm_up_ms;
    plan->run_ms = plan->run_ms ? plan->run_ms : suite->sizes.run_ms;
    plan->fleet_pid = stage->fleet.pid;
    plan->stopped = dkt_suite_stopped;
    bool ok = dkt_load_run(&stage->load, plan, &suite->result);
    outcome->errors += suite->result.errors;
    if (!ok) {
        return dkt_outcome_fail(outcome, "%s: no answers to %llu requests; %s",
                                dkt_load_modes[plan->mode], (unsigned long long)suite->result.asked,
                                suite->result.error_text);
    }
    return true;
}

double dkt_stage_cpu_us(const dkt_load_result_t *result)
{
    double us = 0;
    for (int i = 0; i < DKT_BENCH_CPU_COUNT; i++) {
        us += i == DKT_BENCH_CPU_BENCH ? 0 : result->cpu.us[i];
    }
    return us / (double)dkt_load_answered(result);
}

int dkt_stage_worker_pid(const dkt_stage_t *stage)
{
    char path[DKT_FLEET_TEXT_BYTES + 32], text[16] = "";
    const char *end = strrchr(stage->fleet.keys, '/'); /* DIR/keys */
    snprintf(path, sizeof path, "%.*s/run/worker-0.pid", end ? (int)(end - stage->fleet.keys) : 0,
             stage->fleet.keys);
    FILE *file = fopen(path, "r");
    bool got = file && fgets(text, sizeof text, file);
    if (file) {
        fclose(file);
    }
    return got ? atoi(text) : 0;
}

/* -- the rows --------------------------------------------------------------------------------- */

/* Tickets that are not cancelled (state 3) have a place each; parked ones have none. */
static const char s_query_rows[] =
    "select (select count(*) from tickets), (select count(*) from (select from tickets"
    " where lane is not null and state <> 3 group by slot_start, lane having count(*) > 1) double)";

/* Rows and double places of one tenant. */
static bool s_count_rows(const dkt_stage_t *stage, const char *client_id, long long *rows,
                         long long *doubles)
{
    char database[S_DATABASE_BYTES] = "";
    const char *const values[] = {client_id};
    PGresult *result =
        PQexecParams(stage->control, "select database from tenants where client_id = $1", 1, NULL,
                     values, NULL, NULL, 0);
    if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1) {
        snprintf(database, sizeof database, "%s", PQgetvalue(result, 0, 0));
    }
    PQclear(result);
    if (!database[0]) {
        return false;
    }
    PGconn *connection = s_connect_to(stage, database);
    result = PQexec(connection, s_query_rows);
    bool ok = PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1;
    if (ok) {
        *rows = atoll(PQgetvalue(result, 0, 0));
        *doubles = atoll(PQgetvalue(result, 0, 1));
    }
    PQclear(result);
    PQfinish(connection);
    return ok;
}

void dkt_stage_check_rows(dkt_stage_t *stage, const dkt_load_set_t *set, dkt_outcome_t *outcome)
{
    long long tenants = 0, tickets = 0, missing = 0, doubles = 0, unread = 0;
    for (int i = 0; i < set->count && !dkt_suite_stopped(); i++) {
        const dkt_load_tenant_t *tenant = &set->list[i];
        long long rows = 0, twice = 0;
        if (tenant->created == 0) {
            continue;
        }
        tenants++;
        unread += !s_count_rows(stage, tenant->client_id, &rows, &twice);
        tickets += (long long)tenant->created;
        missing += (long long)tenant->created > rows ? (long long)tenant->created - rows : 0;
        doubles += twice;
    }
    dkt_outcome_check(outcome, unread == 0 && missing == 0 && tickets > 0,
                      "every acknowledged ticket is a row in PostgreSQL",
                      "%lld tickets in %lld databases, %lld missing, %lld databases unread",
                      tickets, tenants, missing, unread);
    dkt_outcome_check(outcome, unread == 0 && doubles == 0, "no slot carries two tickets",
                      "%lld slots", doubles);
}
