/* SPDX-License-Identifier: Apache-2.0
 *
 * docket bench plpgsql: the obvious design, measured on the same server. A table of slots and a
 * function that takes the smallest free one (for update skip locked), books it and inserts the
 * ticket; so many connections, one prepared call in flight on each. It lives in a database of its
 * own that is made and dropped here. The earliest free slot is found through a partial index and
 * updated in its place (by ctid: the row is locked and cannot move). It is as lean as the design
 * can be: no request_id, no constraint beyond the keys; what it leaves out only makes it faster.
 * Tried and not faster: one statement instead of three. Last the least that a durable write costs:
 * one row, one connection.
 */
#include "ops/bench_peers.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ops/bench_machine.h"
#include "ops/cmd.h"
#include "ops/pg_connect.h"
#include "ops/result.h"

#define S_CONNECTIONS_MAX 64
#define S_SECONDS_DEFAULT 10
#define S_SECONDS_MAX     600
#define S_POLL_MS         100
#define S_DRAIN_MS        5000
#define S_QUERY_BYTES     256
#define S_P50             5000
#define S_P99             9900

const int dkt_plpgsql_levels[DKT_PLPGSQL_LEVELS] = {4, 16, 64};

static const char s_schema[] =
    "create table slots (id bigint primary key, time timestamptz not null,"
    " available text not null default 'available');"
    "create index slots_free on slots (time) where available = 'available';"
    "create table tickets (id bigint generated always as identity primary key,"
    " slot bigint not null, class text not null, deadline timestamptz not null);"
    "create function create_ticket(p_class text, p_level interval) returns bigint"
    " language plpgsql as $$ declare v_slot bigint; v_place tid; v_id bigint; begin"
    " select id, ctid into v_slot, v_place from slots where available = 'available'"
    " and time > now() and time < now() + p_level order by time limit 1"
    " for update skip locked;"
    " if not found then return null; end if;"
    " update slots set available = 'booked' where ctid = v_place;"
    " insert into tickets (slot, class, deadline)"
    " values (v_slot, p_class, now() + p_level) returning id into v_id;"
    " return v_id; end $$;";

static const char s_create[] = "select create_ticket('bronze', interval '8 h')";
/* The least that a durable write costs: one row, one connection. */
static const char s_one_row[] =
    "insert into tickets (slot, class, deadline) values (1, 'bronze', now()) returning id";

/* Enough slots for the run: 8 h of so many resolvers. */
static const char s_fill[] =
    "insert into slots (id, time) select row_number() over (),"
    " date_trunc('minute', now()) + m * interval '1 minute'"
    " from generate_series(1, 480) m, generate_series(1, %d) l; analyze slots";
#define S_LANES_PER_SECOND 20 /* 480 slots each, above what any server books in a second */

/* -- database --------------------------------------------------------------------------------- */

static PGconn *s_connect(const dkt_plpgsql_t *self, const char *database)
{
    PGconn *connection = dkt_pg_connect(self->options, database);
    if (PQstatus(connection) != CONNECTION_OK) {
        fprintf(stderr, "docket bench plpgsql: %s", PQerrorMessage(connection));
        PQfinish(connection);
        return NULL;
    }
    return connection;
}

static bool s_execute(PGconn *connection, const char *query)
{
    PGresult *result = PQexec(connection, query);
    ExecStatusType status = PQresultStatus(result);
    PQclear(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
        fprintf(stderr, "docket bench plpgsql: %s", PQerrorMessage(connection));
        return false;
    }
    return true;
}

static bool s_database_make(dkt_plpgsql_t *self, PGconn *server)
{
    char query[S_QUERY_BYTES];
    snprintf(self->database, sizeof self->database, "docket_bench_%d", (int)getpid());
    snprintf(query, sizeof query, "create database %s", self->database);
    return s_execute(server, query);
}

static void s_database_drop(const dkt_plpgsql_t *self, PGconn *server)
{
    char query[S_QUERY_BYTES];
    snprintf(query, sizeof query, "drop database if exists %s with (force)", self->database);
    (void)s_execute(server, query);
}

/* Fresh tables, so that one level does not find the dead rows of the one before. */
static bool s_tables_make(const dkt_plpgsql_t *self, int64_t run_ms)
{
    char query[S_QUERY_BYTES];
    PGconn *connection = s_connect(self, self->database);
    snprintf(query, sizeof query, s_fill, (int)(S_LANES_PER_SECOND * (run_ms / 1000 + 1)));
    bool ok = connection &&
              s_execute(connection, "set client_min_messages = warning;"
                                    "drop schema public cascade; create schema public") &&
              s_execute(connection, s_schema) && s_execute(connection, query);
    PQfinish(connection);
    return ok;
}

/* -- the run ---------------------------------------------------------------------------------- */

typedef struct {
    PGconn *connection;
    int64_t sent_us; /* 0: nothing is in flight */
} s_client_t;

static bool s_send(s_client_t *client)
{
    client->sent_us = dkt_mono_us();
    return PQsendQueryPrepared(client->connection, "create", 0, NULL, NULL, NULL, 0) == 1;
}

static void s_count(dkt_plpgsql_t *self, PGresult *result, dkt_peer_result_t *counts)
{
    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        self->errors++;
    } else if (PQgetisnull(result, 0, 0)) {
        self->refused++;
    } else {
        counts->answers++;
    }
    PQclear(result);
}

/* Takes what has come; true when the answer is complete. */
static bool s_receive(dkt_plpgsql_t *self, s_client_t *client, dkt_peer_result_t *counts)
{
    if (!PQconsumeInput(client->connection)) {
        self->errors++;
        client->sent_us = 0;
        return false;
    }
    while (!PQisBusy(client->connection)) {
        PGresult *result = PQgetResult(client->connection);
        if (!result) {
            return true;
        }
        s_count(self, result, counts);
    }
    return false;
}

static bool s_clients_open(const dkt_plpgsql_t *self, const char *query, s_client_t *clients,
                           int count)
{
    for (int i = 0; i < count; i++) {
        clients[i].connection = s_connect(self, self->database);
        if (!clients[i].connection) {
            return false;
        }
        PGresult *result = PQprepare(clients[i].connection, "create", query, 0, NULL);
        bool ok = PQresultStatus(result) == PGRES_COMMAND_OK;
        PQclear(result);
        if (!ok || !s_send(&clients[i])) {
            return false;
        }
    }
    return true;
}

/* One call in flight on each connection until the time is over, then until all are answered. */
static void s_drive(dkt_plpgsql_t *self, s_client_t *clients, int count, int64_t run_ms,
                    dkt_peer_result_t *result)
{
    struct pollfd items[S_CONNECTIONS_MAX];
    int64_t end_us = dkt_mono_us() + run_ms * 1000;
    int open = count;
    while (open > 0 && dkt_mono_us() < end_us + S_DRAIN_MS * 1000) {
        for (int i = 0; i < count; i++) {
            int fd = clients[i].sent_us ? PQsocket(clients[i].connection) : -1;
            items[i] = (struct pollfd){.fd = fd, .events = POLLIN};
        }
        poll(items, (nfds_t)count, S_POLL_MS);
        open = 0;
        for (int i = 0; i < count; i++) {
            if ((items[i].revents & (POLLIN | POLLERR | POLLHUP)) &&
                s_receive(self, &clients[i], result)) {
                dkt_histogram_add(&result->latency, (uint64_t)(dkt_mono_us() - clients[i].sent_us));
                clients[i].sent_us = 0;
                bool more = dkt_mono_us() < end_us && !(self->stopped && self->stopped());
                if (more && !s_send(&clients[i])) {
                    self->errors++;
                }
            }
            open += clients[i].sent_us != 0;
        }
    }
}

static bool s_measure(dkt_plpgsql_t *self, const char *query, int count, int64_t run_ms,
                      dkt_peer_result_t *result)
{
    s_client_t clients[S_CONNECTIONS_MAX] = {0};
    memset(result, 0, sizeof *result);
    bool ok = s_tables_make(self, run_ms) && s_clients_open(self, query, clients, count);
    if (ok) {
        int64_t start_us = dkt_mono_us();
        s_drive(self, clients, count, run_ms, result);
        result->seconds = (double)(dkt_mono_us() - start_us) / 1000000.0;
        result->per_s = (double)result->answers / result->seconds;
    }
    for (int i = 0; i < count; i++) {
        PQfinish(clients[i].connection);
    }
    return ok && result->answers > 0;
}

bool dkt_plpgsql_open(dkt_plpgsql_t *self, const char *uri, dkt_peer_stopped_fn *stopped)
{
    char *message = NULL;
    *self = (dkt_plpgsql_t){.options = PQconninfoParse(uri, &message), .stopped = stopped};
    if (!self->options) {
        fprintf(stderr, "docket bench plpgsql: %s", message ? message : "no memory\n");
        PQfreemem(message);
        return false;
    }
    self->server = s_connect(self, NULL);
    if (!self->server || !s_database_make(self, self->server)) {
        self->database[0] = '\0';
        dkt_plpgsql_close(self);
        return false;
    }
    return true;
}

bool dkt_plpgsql_run(dkt_plpgsql_t *self, int connections, int64_t run_ms,
                     dkt_peer_result_t *result)
{
    return s_measure(self, s_create, connections, run_ms, result);
}

bool dkt_plpgsql_one_row(dkt_plpgsql_t *self, int64_t run_ms, dkt_peer_result_t *result)
{
    return s_measure(self, s_one_row, 1, run_ms, result);
}

void dkt_plpgsql_close(dkt_plpgsql_t *self)
{
    if (self->server && self->database[0]) {
        s_database_drop(self, self->server);
    }
    PQfinish(self->server);
    PQconninfoFree(self->options);
    *self = (dkt_plpgsql_t){0};
}

/* -- the command ------------------------------------------------------------------------------ */

typedef struct {
    const char *uri;
    int seconds;
    bool json;
    dkt_plpgsql_t server;
    dkt_peer_result_t levels[DKT_PLPGSQL_LEVELS], one_row;
} s_command_t;

static void s_report(const s_command_t *self)
{
    dkt_bench_postgres_t settings;
    double best = 0;
    (void)dkt_bench_settings(self->uri, &settings);
    for (int i = 0; i < DKT_PLPGSQL_LEVELS; i++) {
        best = self->levels[i].per_s > best ? self->levels[i].per_s : best;
    }
    unsigned long long one_row_us = dkt_histogram_at(&self->one_row.latency, S_P50);
    if (self->json) {
        printf("{\"bench\": \"plpgsql\", \"seconds\": %d, \"per_s\": {", self->seconds);
        for (int i = 0; i < DKT_PLPGSQL_LEVELS; i++) {
            printf("%s\"%d\": %.1f", i ? ", " : "", dkt_plpgsql_levels[i], self->levels[i].per_s);
        }
        printf("}, \"best_per_s\": %.1f, \"one_row_p50_us\": %llu, \"refused\": %llu, "
               "\"errors\": %llu, \"postgres\": \"%s\", \"fsync\": \"%s\", "
               "\"synchronous_commit\": \"%s\"}\n",
               best, one_row_us, (unsigned long long)self->server.refused,
               (unsigned long long)self->server.errors, settings.version, settings.fsync,
               settings.synchronous_commit);
        return;
    }
    printf("a plpgsql function over a table of slots, PostgreSQL %s, fsync %s, "
           "synchronous_commit %s\n",
           settings.version, settings.fsync, settings.synchronous_commit);
    for (int i = 0; i < DKT_PLPGSQL_LEVELS; i++) {
        const dkt_histogram_t *latency = &self->levels[i].latency;
        printf("%4d connections %10.0f tickets/s, p50 %.3f ms, p99 %.3f ms\n",
               dkt_plpgsql_levels[i], self->levels[i].per_s,
               (double)dkt_histogram_at(latency, S_P50) / 1000.0,
               (double)dkt_histogram_at(latency, S_P99) / 1000.0);
    }
    printf("one row, one connection %.0f/s, p50 %.3f ms\n", self->one_row.per_s,
           (double)one_row_us / 1000.0);
    printf("best %.0f tickets/s; refused %llu, errors %llu\n", best,
           (unsigned long long)self->server.refused, (unsigned long long)self->server.errors);
}

static void s_usage(FILE *out)
{
    fprintf(out,
            "usage: docket bench plpgsql --postgres URI [--seconds N] [--json]\n"
            "Tickets per second of the obvious design: a plpgsql function over a table of slots,\n"
            "with 4, 16 and 64 connections for N seconds each (default %d), in a scratch database\n"
            "that is made and dropped.\n",
            S_SECONDS_DEFAULT);
}

/* 0: go on; 1: wrong; 2: help was asked for. */
static int s_parse(int argc, char **argv, s_command_t *self)
{
    for (int i = 1; i < argc; i++) {
        bool value = i + 1 < argc;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            return 2;
        }
        if (strcmp(argv[i], "--json") == 0) {
            self->json = true;
        } else if (value && strcmp(argv[i], "--postgres") == 0) {
            self->uri = argv[++i];
        } else if (value && strcmp(argv[i], "--seconds") == 0) {
            self->seconds = atoi(argv[++i]);
        } else {
            fprintf(stderr, "docket bench plpgsql: unknown or incomplete option %s\n", argv[i]);
            return 1;
        }
    }
    return self->uri && self->seconds >= 1 && self->seconds <= S_SECONDS_MAX ? 0 : 1;
}

int dkt_bench_plpgsql_main(int argc, char **argv)
{
    static s_command_t self; /* its histograms are large */
    self = (s_command_t){.seconds = S_SECONDS_DEFAULT};
    int parsed = s_parse(argc, argv, &self);
    if (parsed != 0) {
        s_usage(parsed == 2 ? stdout : stderr);
        return parsed == 2 ? 0 : 2;
    }
    int64_t run_ms = (int64_t)self.seconds * 1000;
    bool ok = dkt_plpgsql_open(&self.server, self.uri, NULL);
    for (int i = 0; ok && i < DKT_PLPGSQL_LEVELS; i++) {
        ok = dkt_plpgsql_run(&self.server, dkt_plpgsql_levels[i], run_ms, &self.levels[i]);
    }
    ok = ok && dkt_plpgsql_one_row(&self.server, run_ms, &self.one_row);
    if (ok) {
        s_report(&self);
    }
    dkt_plpgsql_close(&self.server);
    return ok ? 0 : 1;
}
