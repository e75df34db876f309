/* SPDX-License-Identifier: Apache-2.0
 *
 * docket bench redis: the same decision as a Lua script inside a private Redis that syncs its log
 * before it answers (appendfsync always). So many connections, each with a pipeline of calls in
 * flight; whatever arrives in one turn of Redis' loop shares one sync. A ticket is one hash. The
 * free minutes are a sorted set and a counter of lanes each, which is less work than a row per lane
 * and minute. As with plpgsql it is as lean as it can be: no cancel, no request_id, no rebooking;
 * what it leaves out only makes it faster. The socket is a Unix one: the fastest that there is.
 */
#include <errno.h>
#include <fcntl.h>
#include <hiredis.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ops/bench_machine.h"
#include "ops/bench_peers.h"
#include "ops/cmd.h"
#include "ops/result.h"
#include "ops/up.h"

#define S_PROGRAM         "redis-server"
#define S_CONNECTIONS_MAX 256
#define S_PIPELINE_MAX    1024
#define S_SECONDS_DEFAULT 10
#define S_SECONDS_MAX     600
#define S_READY_MS        10000
#define S_STOP_MS         5000
#define S_TICK_MS         10
#define S_POLL_MS         100
#define S_DRAIN_MS        5000
#define S_LANES           100000 /* of each minute: more than any run can take */
#define S_MINUTES         480
#define S_MINUTE_MS       60000
#define S_HASH_BYTES      64
#define S_P50             5000
#define S_P99             9900

/* KEYS: open minutes, lanes used of each, last id. ARGV: now, latest, lanes, class. */
static const char s_script[] =
    "local minute = redis.call('zrangebyscore', KEYS[1], '(' .. ARGV[1], '(' .. ARGV[2],"
    " 'limit', 0, 1)[1]\n"
    "if not minute then return 0 end\n"
    "local lane = redis.call('hincrby', KEYS[2], minute, 1)\n"
    "if lane >= tonumber(ARGV[3]) then redis.call('zrem', KEYS[1], minute) end\n"
    "local id = redis.call('incr', KEYS[3])\n"
    "redis.call('hset', 'ticket:' .. id, 'class', ARGV[4], 'slot', minute, 'lane', lane,"
    " 'deadline', ARGV[2])\n"
    "return id\n";

/* -- the server ------------------------------------------------------------------------------- */

static void s_exec(const dkt_redis_t *self)
{
    const char *const argv[] = {S_PROGRAM,    "--port",
                                "0",          "--unixsocket",
                                self->socket, "--dir",
                                self->folder, "--save",
                                "",           "--appendonly",
                                "yes",        "--appendfsync",
                                "always",     "--auto-aof-rewrite-percentage",
                                "0",          "--daemonize",
                                "no",         "--logfile",
                                "redis.log",  NULL};
    sigset_t none;
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    for (int fd = STDIN_FILENO; null_fd >= 0 && fd <= STDERR_FILENO; fd++) {
        dup2(null_fd, fd);
    }
    execvp(argv[0], (char *const *)argv);
    _exit(127);
}

static bool s_alive(dkt_redis_t *self)
{
    if (self->pid > 0 && waitpid(self->pid, NULL, WNOHANG) == self->pid) {
        self->pid = 0;
    }
    return self->pid > 0;
}

static redisContext *s_connect(const dkt_redis_t *self)
{
    redisContext *context = redisConnectUnix(self->socket);
    if (context && context->err) {
        redisFree(context);
        context = NULL;
    }
    return context;
}

/* One command of texts; NULL: it failed. */
static redisReply *s_call(redisContext *context, const char *const *words)
{
    int count = 0;
    while (words[count]) {
        count++;
    }
    redisReply *reply = redisCommandArgv(context, count, (const char **)words, NULL);
    if (reply && reply->type == REDIS_REPLY_ERROR) {
        fprintf(stderr, "docket bench redis: %s\n", reply->str);
        freeReplyObject(reply);
        reply = NULL;
    }
    return reply;
}

/* What the server itself says about how it is set. */
static bool s_read_settings(dkt_redis_t *self)
{
    redisContext *context = s_connect(self);
    redisReply *always =
        context ? s_call(context, (const char *[]){"config", "get", "appendfsync", NULL}) : NULL;
    redisReply *info = context ? s_call(context, (const char *[]){"info", "server", NULL}) : NULL;
    bool ok = always && always->type == REDIS_REPLY_ARRAY && always->elements == 2 && info;
    if (ok) {
        const char *version = strstr(info->str, "redis_version:");
        version = version ? version + strlen("redis_version:") : "-";
        snprintf(self->version, sizeof self->version, "%.*s", (int)strcspn(version, "\r\n"),
                 version);
        snprintf(self->appendfsync, sizeof self->appendfsync, "%s", always->element[1]->str);
    }
    freeReplyObject(always);
    freeReplyObject(info);
    redisFree(context);
    return ok;
}

bool dkt_redis_open(dkt_redis_t *self, dkt_peer_stopped_fn *stopped)
{
    *self = (dkt_redis_t){.stopped = stopped};
    snprintf(self->folder, sizeof self->folder, "%s/docket-redis-XXXXXX", dkt_bench_temp());
    if (!mkdtemp(self->folder)) {
        fprintf(stderr, "docket bench redis: %s: %s\n", self->folder, strerror(errno));
        self->folder[0] = '\0';
        return false;
    }
    snprintf(self->socket, sizeof self->socket, "%s/socket", self->folder);
    self->pid = fork();
    if (self->pid == 0) {
        s_exec(self);
    }
    redisContext *context = NULL;
    int64_t end_ms = dkt_mono_ms() + S_READY_MS;
    while (!context && s_alive(self) && dkt_mono_ms() < end_ms && !(stopped && stopped())) {
        context = s_connect(self);
        poll(NULL, 0, context ? 0 : S_TICK_MS);
    }
    bool ok = context != NULL;
    redisFree(context);
    if (!ok || !s_read_settings(self)) {
        fprintf(stderr, "docket bench redis: %s did not come up; is it installed?\n", S_PROGRAM);
        dkt_redis_close(self);
        return false;
    }
    return true;
}

void dkt_redis_close(dkt_redis_t *self)
{
    int64_t end_ms = dkt_mono_ms() + S_STOP_MS;
    if (self->pid > 0) {
        kill(self->pid, SIGTERM);
    }
    while (s_alive(self)) {
        poll(NULL, 0, S_TICK_MS);
        if (dkt_mono_ms() > end_ms) {
            kill(self->pid, SIGKILL);
            waitpid(self->pid, NULL, 0);
            self->pid = 0;
        }
    }
    if (self->folder[0]) {
        dkt_up_tree_remove(self->folder);
        self->folder[0] = '\0';
    }
}

/* -- a run ------------------------------------------------------------------------------------ */

typedef struct {
    redisContext *context;
    int64_t sent_us[S_PIPELINE_MAX]; /* ring, oldest first */
    int head, open;
} s_client_t;

typedef struct {
    dkt_redis_t *redis;
    dkt_peer_result_t *result;
    s_client_t *clients;
    int count, pipeline;
    char *command; /* of the wire, made once */
    int command_len;
    uint64_t refused, errors;
} s_run_t;

/* Empties the store and opens every minute of the next eight hours. */
static bool s_prepare(s_run_t *self, redisContext *context)
{
    char hash[S_HASH_BYTES], now[24], latest[24], lanes[16];
    int64_t now_ms = dkt_unix_ms(), minute_ms = now_ms / S_MINUTE_MS * S_MINUTE_MS;
    redisReply *reply = s_call(context, (const char *[]){"flushall", NULL});
    bool ok = reply != NULL;
    freeReplyObject(reply);
    for (int i = 1; ok && i <= S_MINUTES; i++) {
        char score[24];
        snprintf(score, sizeof score, "%lld", (long long)(minute_ms + i * S_MINUTE_MS));
        reply = s_call(context, (const char *[]){"zadd", "open", score, score, NULL});
        ok = reply != NULL;
        freeReplyObject(reply);
    }
    reply = ok ? s_call(context, (const char *[]){"script", "load", s_script, NULL}) : NULL;
    ok = reply && reply->type == REDIS_REPLY_STRING;
    if (ok) {
        snprintf(hash, sizeof hash, "%s", reply->str);
        snprintf(now, sizeof now, "%lld", (long long)now_ms);
        snprintf(latest, sizeof latest, "%lld", (long long)(now_ms + S_MINUTES * S_MINUTE_MS));
        snprintf(lanes, sizeof lanes, "%d", S_LANES);
        const char *words[] = {"evalsha", hash, "3",    "open", "used",
                               "id",      now,  latest, lanes,  "bronze"};
        self->command_len = redisFormatCommandArgv(
            &self->command, (int)(sizeof words / sizeof words[0]), words, NULL);
        ok = self->command_len > 0;
    }
    freeReplyObject(reply);
    return ok;
}

static void s_send(s_run_t *self, s_client_t *client, int count)
{
    int64_t now_us = dkt_mono_us();
    int done = 0;
    for (int i = 0; i < count; i++) {
        redisAppendFormattedCommand(client->context, self->command, (size_t)self->command_len);
        client->sent_us[(client->head + client->open++) % self->pipeline] = now_us;
    }
    /* A pipeline of calls is smaller than a socket's buffer: it never stays half sent. */
    while (!done && redisBufferWrite(client->context, &done) == REDIS_OK) {
    }
}

/* Takes what has come; the count, or -1: the connection is gone. */
static int s_receive(s_run_t *self, s_client_t *client)
{
    int count = 0;
    redisReply *reply = NULL;
    if (redisBufferRead(client->context) != REDIS_OK) {
        return -1;
    }
    while (client->open > 0 &&
           redisGetReplyFromReader(client->context, (void **)&reply) == REDIS_OK && reply) {
        bool good = reply->type == REDIS_REPLY_INTEGER;
        self->errors += !good;
        self->refused += good && reply->integer == 0;
        self->result->answers += good && reply->integer > 0;
        dkt_histogram_add(&self->result->latency,
                          (uint64_t)(dkt_mono_us() - client->sent_us[client->head]));
        client->head = (client->head + 1) % self->pipeline;
        client->open--;
        count++;
        freeReplyObject(reply);
        reply = NULL;
    }
    return count;
}

static void s_drive(s_run_t *self, int64_t run_ms)
{
    struct pollfd items[S_CONNECTIONS_MAX];
    int64_t end_us = dkt_mono_us() + run_ms * 1000;
    int open = self->count;
    for (int i = 0; i < self->count; i++) {
        s_send(self, &self->clients[i], self->pipeline);
    }
    while (open > 0 && dkt_mono_us() < end_us + S_DRAIN_MS * 1000) {
        bool more = dkt_mono_us() < end_us && !(self->redis->stopped && self->redis->stopped());
        for (int i = 0; i < self->count; i++) {
            int fd = self->clients[i].open ? self->clients[i].context->fd : -1;
            items[i] = (struct pollfd){.fd = fd, .events = POLLIN};
        }
        poll(items, (nfds_t)self->count, S_POLL_MS);
        open = 0;
        for (int i = 0; i < self->count; i++) {
            s_client_t *client = &self->clients[i];
            int got = items[i].revents ? s_receive(self, client) : 0;
            if (got < 0) {
                self->errors += (uint64_t)client->open;
                client->open = 0;
            } else if (got > 0 && more) {
                s_send(self, client, got);
            }
            open += client->open > 0;
        }
    }
}

static bool s_clients_open(s_run_t *self)
{
    self->clients = calloc((size_t)self->count, sizeof *self->clients);
    for (int i = 0; self->clients && i < self->count; i++) {
        self->clients[i].context = s_connect(self->redis);
        if (!self->clients[i].context) {
            return false;
        }
    }
    return self->clients != NULL;
}

/* Each ticket that was acknowledged is a hash. */
static bool s_check(s_run_t *self)
{
    redisContext *context = s_connect(self->redis);
    redisReply *reply = context ? s_call(context, (const char *[]){"dbsize", NULL}) : NULL;
    /* The open minutes, the counters and the last id are keys too. */
    bool ok = reply && reply->type == REDIS_REPLY_INTEGER &&
              (uint64_t)reply->integer >= self->result->answers + 3;
    freeReplyObject(reply);
    redisFree(context);
    return ok && self->errors == 0 && self->refused == 0;
}

bool dkt_redis_run(dkt_redis_t *redis, int connections, int pipeline, int64_t run_ms,
                   dkt_peer_result_t *result)
{
    s_run_t self = {.redis = redis, .result = result, .count = connections, .pipeline = pipeline};
    memset(result, 0, sizeof *result);
    redisContext *context = s_connect(redis);
    bool ok = context && s_prepare(&self, context) && s_clients_open(&self);
    redisFree(context);
    if (ok) {
        int64_t start_us = dkt_mono_us();
        s_drive(&self, run_ms);
        result->seconds = (double)(dkt_mono_us() - start_us) / 1000000.0;
        result->per_s = (double)result->answers / result->seconds;
        ok = s_check(&self);
    }
    if (!ok) {
        fprintf(stderr, "docket bench redis: %llu errors, %llu refused\n",
                (unsigned long long)self.errors, (unsigned long long)self.refused);
    }
    for (int i = 0; self.clients && i < connections; i++) {
        redisFree(self.clients[i].context);
    }
    free(self.clients);
    redisFreeCommand(self.command);
    return ok && result->answers > 0;
}

/* -- the command ------------------------------------------------------------------------------ */

static void s_usage(FILE *out)
{
    fprintf(
        out,
        "usage: docket bench redis [--seconds N] [--connections N] [--pipeline N] [--json]\n"
        "Tickets per second of a Lua script inside a private Redis with appendfsync always, one\n"
        "hash per ticket: N seconds (default %d), N connections (default %d), so many calls in\n"
        "flight on each (default %d).\n",
        S_SECONDS_DEFAULT, DKT_REDIS_CONNECTIONS, DKT_REDIS_PIPELINE);
}

typedef struct {
    int seconds, connections, pipeline;
    bool json;
} s_options_t;

/* 0: go on; 1: wrong; 2: help was asked for. */
static int s_parse(int argc, char **argv, s_options_t *self)
{
    const struct {
        const char *word;
        int *number;
        int max;
    } numbers[] = {{"--seconds", &self->seconds, S_SECONDS_MAX},
                   {"--connections", &self->connections, S_CONNECTIONS_MAX},
                   {"--pipeline", &self->pipeline, S_PIPELINE_MAX}};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            return 2;
        }
        bool known = strcmp(argv[i], "--json") == 0;
        self->json |= known;
        for (size_t n = 0; !known && i + 1 < argc && n < 3; n++) {
            if (strcmp(argv[i], numbers[n].word) == 0) {
                *numbers[n].number = atoi(argv[++i]);
                known = *numbers[n].number >= 1 && *numbers[n].number <= numbers[n].max;
                break;
            }
        }
        if (!known) {
            fprintf(stderr, "docket bench redis: unknown, incomplete or wrong: %s\n", argv[i]);
            return 1;
        }
    }
    return 0;
}

int dkt_bench_redis_main(int argc, char **argv)
{
    static dkt_peer_result_t result; /* its histogram is large */
    dkt_redis_t redis;
    s_options_t options = {.seconds = S_SECONDS_DEFAULT,
                           .connections = DKT_REDIS_CONNECTIONS,
                           .pipeline = DKT_REDIS_PIPELINE};
    int parsed = s_parse(argc, argv, &options);
    if (parsed != 0) {
        s_usage(parsed == 2 ? stdout : stderr);
        return parsed == 2 ? 0 : 2;
    }
    bool ok = dkt_redis_open(&redis, NULL);
    if (ok) {
        ok = dkt_redis_run(&redis, options.connections, options.pipeline,
                           (int64_t)options.seconds * 1000, &result);
        dkt_redis_close(&redis);
    }
    if (!ok) {
        return 1;
    }
    double p50_ms = (double)dkt_histogram_at(&result.latency, S_P50) / 1000.0;
    double p99_ms = (double)dkt_histogram_at(&result.latency, S_P99) / 1000.0;
    if (options.json) {
        printf("{\"bench\": \"redis\", \"connections\": %d, \"pipeline\": %d, \"seconds\": %.3f, "
               "\"per_s\": %.1f, \"p50_us\": %.0f, \"p99_us\": %.0f, \"redis\": \"%s\", "
               "\"appendfsync\": \"%s\"}\n",
               options.connections, options.pipeline, result.seconds, result.per_s, p50_ms * 1000,
               p99_ms * 1000, redis.version, redis.appendfsync);
    } else {
        printf("a Lua script inside Redis %s, appendfsync %s, %d connections, pipeline %d\n"
               "%12.0f tickets/s over %.1f s, p50 %.3f ms, p99 %.3f ms\n",
               redis.version, redis.appendfsync, options.connections, options.pipeline,
               result.per_s, result.seconds, p50_ms, p99_ms);
    }
    return 0;
}
