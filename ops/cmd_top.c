/* SPDX-License-Identifier: Apache-2.0
 *
 * docket top: what the processes of a fleet tell about themselves once a second, on
 * docket.stats.<role>.<node>.
 */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ops/commands.h"
#include "ops/nats_client.h"
#include "ops/top_view.h"

#define S_SUBJECT   "docket.stats.>"
#define S_GATHER_MS 1300 /* each tells once a second */
#define S_FORGET_MS 5000
#define S_NODES_MAX 256
#define S_NEXT_MS   100
#define S_KEY_MAX   128
#define S_SHOW_MS   1000

static const char s_usage[] = "usage: docket top [OPTIONS]\n"
                              "\n"
                              "Shows what every broker and worker does, once a second.\n"
                              "  --once          one look, then end\n"
                              "  --json          an array of what each tells about itself\n"
                              "  --endpoint URL  NATS; default DOCKET_NATS, then\n"
                              "                  nats://127.0.0.1:7412 (--nats is the same)\n"
                              "  --keys DIR      the fleet's keys; default DOCKET_KEYS\n"
                              "  --help          this text\n"
                              "\n"
                              "Latencies are those of the last second: of brokers from receipt to\n"
                              "answer, of workers (c.) of one commit. `group` is requests in a\n"
                              "commit, `lag s` the age of the oldest event that is not on NATS.\n";

typedef struct {
    char key[S_KEY_MAX]; /* role.node */
    json_t *now, *before;
    int64_t now_ms;
} s_node_t;

typedef struct {
    dkt_nats_where_t where;
    bool once, json;
    uint32_t count;
    s_node_t nodes[S_NODES_MAX];
} s_top_t;

/* -- gathering -- */

static s_node_t *s_node(s_top_t *self, const char *key)
{
    for (uint32_t i = 0; i < self->count; i++) {
        if (strcmp(self->nodes[i].key, key) == 0) {
            return &self->nodes[i];
        }
    }
    if (self->count == S_NODES_MAX || strlen(key) >= S_KEY_MAX) {
        return NULL;
    }
    s_node_t *node = &self->nodes[self->count++];
    *node = (s_node_t){.now = NULL};
    snprintf(node->key, sizeof node->key, "%s", key);
    return node;
}

static void s_take(s_top_t *self, natsMsg *message)
{
    const char *subject = natsMsg_GetSubject(message);
    json_t *stats =
        json_loadb(natsMsg_GetData(message), (size_t)natsMsg_GetDataLength(message), 0, NULL);
    s_node_t *node = json_is_object(stats) ? s_node(self, subject + strlen("docket.stats.")) : NULL;
    if (!node) {
        json_decref(stats);
        return;
    }
    json_decref(node->before);
    node->before = node->now;
    node->now = stats;
    node->now_ms = nats_Now();
}

/* Who has not told anything for a while is gone. */
static void s_forget(s_top_t *self)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < self->count; i++) {
        if (nats_Now() - self->nodes[i].now_ms > S_FORGET_MS) {
            json_decref(self->nodes[i].now);
            json_decref(self->nodes[i].before);
        } else {
            self->nodes[kept++] = self->nodes[i];
        }
    }
    self->count = kept;
}

static int s_compare(const void *a, const void *b)
{
    return strcmp(((const s_node_t *)a)->key, ((const s_node_t *)b)->key);
}

/* -- showing -- */

static void s_show_json(const s_top_t *self)
{
    json_t *all = json_array();
    for (uint32_t i = 0; i < self->count; i++) {
        json_array_append(all, self->nodes[i].now);
    }
    char *text = json_dumps(all, JSON_COMPACT);
    puts(text ? text : "[]");
    free(text);
    json_decref(all);
}

static void s_show_text(const s_top_t *self)
{
    static dkt_top_node_t nodes[S_NODES_MAX];
    bool terminal = isatty(STDOUT_FILENO);
    for (uint32_t i = 0; i < self->count; i++) {
        const s_node_t *node = &self->nodes[i];
        const char *dot = strchr(node->key, '.');
        nodes[i] = (dkt_top_node_t){
            .node = dot ? dot + 1 : node->key, .now = node->now, .before = node->before};
    }
    if (!self->once && terminal) {
        fputs("\033[H\033[2J", stdout);
    }
    dkt_top_show(nodes, self->count, terminal);
}

static int s_run(s_top_t *self, natsConnection *connection)
{
    natsSubscription *subscription = NULL;
    int64_t show_ms = nats_Now() + (self->once && !self->json ? 2 : 1) * S_GATHER_MS;
    int status = 1;
    if (natsConnection_SubscribeSync(&subscription, connection, S_SUBJECT) != NATS_OK) {
        return 1;
    }
    while (!dkt_nats_stopped()) {
        natsMsg *message = NULL;
        natsStatus got = natsSubscription_NextMsg(&message, subscription, S_NEXT_MS);
        if (got == NATS_OK) {
            s_take(self, message);
            natsMsg_Destroy(message);
        } else if (got != NATS_TIMEOUT) {
            fprintf(stderr, "docket top: the connection to NATS is over\n");
            break;
        }
        if (nats_Now() < show_ms) {
            continue;
        }
        show_ms = nats_Now() + S_SHOW_MS;
        s_forget(self);
        qsort(self->nodes, self->count, sizeof *self->nodes, s_compare);
        (self->json ? s_show_json : s_show_text)(self);
        fflush(stdout);
        status = self->count > 0 ? 0 : 1;
        if (self->once) {
            break;
        }
    }
    natsSubscription_Destroy(subscription);
    return dkt_nats_stopped() ? 0 : status;
}

int dkt_top_main(int argc, char **argv)
{
    static const struct option rows[] = {
        {"once", no_argument, NULL, 'o'},
        {"json", no_argument, NULL, 'j'},
        {"nats", required_argument, NULL, 'n'},
        {"keys", required_argument, NULL, 'k'},
        {"endpoint", required_argument, NULL, 'n'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    static s_top_t self;
    int letter;
    optind = 0;
    while ((letter = getopt_long(argc, argv, "", rows, NULL)) != -1) {
        self.once |= letter == 'o';
        self.json |= letter == 'j';
        self.where.url = letter == 'n' ? optarg : self.where.url;
        self.where.keys = letter == 'k' ? optarg : self.where.keys;
        if (letter == 'h' || letter == '?') {
            fputs(s_usage, letter == 'h' ? stdout : stderr);
            return letter == 'h' ? 0 : 2;
        }
    }
    if (optind != argc) {
        fputs(s_usage, stderr);
        return 2;
    }
    dkt_err_t err = {0};
    dkt_nats_defaults(&self.where);
    dkt_nats_watch_signals();
    natsConnection *connection = dkt_nats_connect(&self.where, "docket top", &err);
    if (!connection) {
        fprintf(stderr, "docket top: %s\n", err.text);
        return 1;
    }
    int status = s_run(&self, connection);
    for (uint32_t i = 0; i < self.count; i++) {
        json_decref(self.nodes[i].now);
        json_decref(self.nodes[i].before);
    }
    natsConnection_Destroy(connection);
    nats_Close();
    return status;
}
