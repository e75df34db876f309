/* SPDX-License-Identifier: Apache-2.0
 *
 * docket bench plpgsql: the obvious design, measured on the same server. A table of slots and a
 * function that takes the smallest free one (for update skip locked), books it and inserts the
 * ticket; so many connections, one call in flight on each. It lives in a database of its own that
 * is made and dropped here. The earliest free slot is looked up through a partial index. It is as
 * lean as the design can be: no request_id, no constraint beyond the keys; what it leaves out only
 * makes it faster. Last the least that a durable write costs: one row, one connection.
 */
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/core/histogram.h"
#include "ops/bench_load.h"
#include "ops/cmd.h"
#include "ops/result.h"

#define S_CONNECTIONS_MAX 64
#define S_SECONDS_DEFAULT 10
#define S_SECONDS_MAX     600
#define S_POLL_MS         100
#define S_DRAIN_MS        5000
#define S_CONNINFO_MAX    48
#define S_QUERY_BYTES     256

static const int s_levels[] = {4, 16, 64};
#define S_LEVELS (sizeof s_levels / sizeof s_levels[0])

static const char s_schema[] =
    "create table slots (id bigint primary key, time timestamptz not null,"
    " available text not null default 'available');"
    "create index slots_free on slots (time) where available = 'available';"
    "create table tickets (id bigint generated always as identity primary key,"
    " slot bigint not null, class text not null, deadline timestamptz not null);"
    "create function create_ticket(p_class text, p_level interval) returns bigint"
    " language plpgsql as $$ declare v_slot bigint; v_id bigint; begin"
    " select id into v_slot from slots where available = 'available'"
    " and time > now() and time < now() + p_level order by time limit 1"
    " for update skip locked;"
    " if not found then return null; end if;"
    " update slots set available = 'booked' where id = v_slot;"
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

typedef struct {
    const char *uri;
    int seconds;
    bool json;
    PQconninfoOption *options;
    char database[48];
    uint64_t tickets, refused, errors;
    double per_s[S_LEVELS];
    dkt_histogram_t latency[S_LEVELS];
    double one_row_per_s;
    dkt_histogram_t one_row;
} s_bench_t;

/* -- database --------------------------------------------------------------------------------- */

static PGconn *s_connect(const s_bench_t *self, const char *database)
{
    const char *keys[S_CONNINFO_MAX + 1], *values[S_CONNINFO_MAX + 1];
    size_t count = 0;
    for (PQconninfoOption *option = self->options; option->keyword && count < S_CONNINFO_MAX;
         option++) {
        bool name = database && strcmp(option->keyword, "dbname") == 0;
        if (name || option->val) {
            keys[count] = option->keyword;
            values[count++] = name ? database : option->val;
        }
    }
    keys[count] = values[count] = NULL;
    PGconn *connection = PQconnectdbParams(keys, values, 0);
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

static bool s_database_make(s_bench_t *self, PGconn *server)
{
    char query[S_QUERY_BYTES];
    snprintf(self->database, sizeof self->database, "docket_bench_%d", (int)getpid());
    snprintf(query, sizeof query, "create database %s", self->database);
    return s_execute(server, query);
}

static void s_database_drop(const s_bench_t *self, PGconn *server)
{
    char query[S_QUERY_BYTES];
    snprintf(query, sizeof query, "drop database if exists %s with (force)", self->database);
    (void)s_execute(server, query);
}

/* Fresh tables, so that one level does not find the dead rows of the one before. */
static bool s_tables_make(const s_bench_t *self)
{
    char query[S_QUERY_BYTES];
    PGconn *connection = s_connect(self, self->database);
    snprintf(query, sizeof query, s_fill, S_LANES_PER_SECOND * self->seconds);
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

static void s_count(s_bench_t *self, PGresult *result)
{
    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        self->errors++;
    } else if (PQgetisnull(result, 0, 0)) {
        self->refused++;
    } else {
        self->tickets++;
    }
    PQclear(result);
}

/* Takes what has come; true when the answer is complete. */
static bool s_receive(s_bench_t *self, s_client_t *client)
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
        s_count(self, result);
    }
    return false;
}

static bool s_clients_open(const s_bench_t *self, const char *query, s_client_t *clients, int count)
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
static void s_drive(s_bench_t *self, s_client_t *clients, int count, dkt_histogram_t *latency)
{
    struct pollfd items[S_CONNECTIONS_MAX];
    int64_t end_us = dkt_mono_us() + (int64_t)self->seconds * 1000000;
    int open = count;
    while (open > 0 && dkt_mono_us() < end_us + S_DRAIN_MS * 1000) {
        for (int i = 0; i < count; i++) {
            int fd = clients[i].sent_us ? PQsocket(clients[i].connection) : -1;
            items[i] = (struct pollfd){.fd = fd, .events = POLLIN};
        }
        poll(items, (nfds_t)count, S_POLL_MS);
        open = 0;
        for (int i = 0; i < count; i++) {
            if ((items[i].revents & (POLLIN | POLLERR | POLLHUP)) && s_receive(self, &clients[i])) {
                dkt_histogram_add(latency, (uint64_t)(dkt_mono_us() - clients[i].sent_us));
                clients[i].sent_us = 0;
                if (dkt_mono_us() < end_us && !s_send(&clients[i])) {
                    self->errors++;
                }
            }
            open += clients[i].sent_us != 0;
        }
    }
}

static bool s_level(s_bench_t *self, const char *query, int count, double *per_s,
                    dkt_histogram_t *latency)
{
    s_client_t clients[S_CONNECTIONS_MAX] = {0};
    self->tickets = 0;
    bool ok = s_tables_make(self) && s_clients_open(self, query, clients, count);
    if (ok) {
        int64_t start_us = dkt_mono_us();
        s_drive(self, clients, count, latency);
        *per_s = (double)self->tickets / ((double)(dkt_mono_us() - start_us) / 1000000.0);
    }
    for (int i = 0; i < count; i++) {
        PQfinish(clients[i].connection);
    }
    return ok;
}

/* -- report ----------------------------------------------------------------------------------- */

static void s_report(const s_bench_t *self)
{
    dkt_bench_settings_t settings;
    double best = 0;
    (void)dkt_bench_settings(self->uri, &settings);
    if (!self->json) {
        printf("a plpgsql function over a table of slots, PostgreSQL %s, fsync %s, "
               "synchronous_commit %s\n",
               settings.version, settings.fsync, settings.synchronous_commit);
    }
    for (size_t i = 0; i < S_LEVELS; i++) {
        best = self->per_s[i] > best ? self->per_s[i] : best;
        if (!self->json) {
            printf("%4d connections %10.0f tickets/s, p50 %.3f ms, p99 %.3f ms\n", s_levels[i],
                   self->per_s[i], (double)dkt_histogram_at(&self->latency[i], 5000) / 1000.0,
                   (double)dkt_histogram_at(&self->latency[i], 9900) / 1000.0);
        }
    }
    if (self->json) {
        printf("{\"bench\": \"plpgsql\", \"seconds\": %d, \"per_s\": {\"4\": %.1f, \"16\": %.1f, "
               "\"64\": %.1f}, \"best_per_s\": %.1f, \"one_row_p50_us\": %llu, "
               "\"refused\": %llu, \"errors\": %llu, "
               "\"postgres\": \"%s\", \"fsync\": \"%s\", \"synchronous_commit\": \"%s\"}\n",
               self->seconds, self->per_s[0], self->per_s[1], self->per_s[2], best,
               (unsigned long long)dkt_histogram_at(&self->one_row, 5000),
               (unsigned long long)self->refused, (unsigned long long)self->errors,
               settings.version, settings.fsync, settings.synchronous_commit);
    } else {
        printf("one row, one connection %.0f/s, p50 %.3f ms\n", self->one_row_per_s,
               (double)dkt_histogram_at(&self->one_row, 5000) / 1000.0);
        printf("best %.0f tickets/s; refused %llu, errors %llu\n", best,
               (unsigned long long)self->refused, (unsigned long long)self->errors);
    }
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
static int s_parse(int argc, char **argv, s_bench_t *self)
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
    static s_bench_t self; /* its histograms are large */
    char *message = NULL;
    self = (s_bench_t){.seconds = S_SECONDS_DEFAULT};
    int parsed = s_parse(argc, argv, &self);
    if (parsed != 0) {
        s_usage(parsed == 2 ? stdout : stderr);
        return parsed == 2 ? 0 : 2;
    }
    self.options = PQconninfoParse(self.uri, &message);
    if (!self.options) {
        fprintf(stderr, "docket bench plpgsql: %s", message ? message : "no memory\n");
        PQfreemem(message);
        return 2;
    }
    PGconn *server = s_connect(&self, NULL);
    bool ok = server && s_database_make(&self, server);
    bool made = ok;
    for (size_t i = 0; ok && i < S_LEVELS; i++) {
        ok = s_level(&self, s_create, s_levels[i], &self.per_s[i], &self.latency[i]);
    }
    ok = ok && s_level(&self, s_one_row, 1, &self.one_row_per_s, &self.one_row);
    if (made) {
        s_database_drop(&self, server);
    }
    if (ok) {
        s_report(&self);
    }
    PQfinish(server);
    PQconninfoFree(self.options);
    return ok ? 0 : 1;
}
