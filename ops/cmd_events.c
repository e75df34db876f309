/* SPDX-License-Identifier: Apache-2.0
 *
 * docket events tail: the events of all tenants, or of some, as they are published. It outlives
 * NATS: after a break it goes on where it was, on a stream made anew from its start, and it prints
 * no message twice.
 */
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

#include "lib/core/event.h"
#include "ops/commands.h"
#include "ops/nats_client.h"

#define S_STREAM      "DOCKET_EVENT"
#define S_NEXT_MS     200
#define S_RETRY_MS    250
#define S_SEEN_MAX    (1u << 20) /* message ids remembered: the newer half for sure */
#define S_NS_PER_S    INT64_C(1000000000)
#define S_MINUTE_MAX  8
#define S_SUBJECT_MAX 128

static const char s_usage[] =
    "usage: docket events tail [OPTIONS]\n"
    "\n"
    "Prints the events of tickets as they happen, each once.\n"
    "  --client ID     of one tenant\n"
    "  --type T        created, rescheduled, dispatched, resolved, cancelled, breached or at_risk\n"
    "  --since TIME    begin so long ago: 90s, 10m, 2h, 3d\n"
    "  --from-start    begin with the oldest event there is\n"
    "  --once          end when there is no more\n"
    "  --json          CloudEvents, one a line\n"
    "  --nats URL      default DOCKET_NATS, then nats://127.0.0.1:7412\n"
    "  --keys DIR      the fleet's keys; default DOCKET_KEYS\n"
    "  --help          this text\n";

typedef struct {
    dkt_nats_where_t where;
    const char *client, *type;
    int64_t since_s;
    bool from_start, once, json;
} s_options_t;

/* Two sets of which the older one is emptied when the newer one is full. */
typedef struct {
    uint64_t *ids[2];
    uint32_t count, newer;
} s_seen_t;

typedef struct {
    s_options_t options;
    s_seen_t seen;
    char subject[S_SUBJECT_MAX];
    int64_t created_ns; /* of the stream that `next_seq` belongs to; 0: none yet */
    uint64_t next_seq;
    int64_t begin_ns; /* without --from-start: the first event's time */
    bool complained;
} s_tail_t;

/* -- each once -- */

static bool s_in(uint64_t *ids, uint64_t id, bool add)
{
    uint32_t i = (uint32_t)id & (S_SEEN_MAX - 1);
    while (ids[i] && ids[i] != id) {
        i = (i + 1) & (S_SEEN_MAX - 1);
    }
    bool found = ids[i] == id;
    if (add) {
        ids[i] = id;
    }
    return found;
}

static bool s_seen_before(s_seen_t *seen, const char *text)
{
    uint64_t id = XXH64(text, strlen(text), 0) | 1;
    if (s_in(seen->ids[0], id, false) || s_in(seen->ids[1], id, false)) {
        return true;
    }
    if (seen->count == S_SEEN_MAX / 2) {
        seen->newer ^= 1;
        seen->count = 0;
        memset(seen->ids[seen->newer], 0, S_SEEN_MAX * sizeof(uint64_t));
    }
    s_in(seen->ids[seen->newer], id, true);
    seen->count++;
    return false;
}

/* -- printing -- */

static void s_minute(int64_t unix_ms, char out[S_MINUTE_MAX])
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm local;
    localtime_r(&seconds, &local);
    strftime(out, S_MINUTE_MAX, "%H:%M", &local);
}

static void s_print_pretty(json_t *event)
{
    const char *type = json_string_value(json_object_get(event, "type"));
    const char *time = json_string_value(json_object_get(event, "time"));
    const char *ticket = json_string_value(json_object_get(event, "subject"));
    const char *source = json_string_value(json_object_get(event, "source"));
    json_t *data = json_object_get(event, "data");
    const char *class_name = json_string_value(json_object_get(data, "ticket_type"));
    if (!type || !time || !ticket || !source || !class_name) {
        return;
    }
    char slot[S_MINUTE_MAX], deadline[S_MINUTE_MAX];
    s_minute(json_integer_value(json_object_get(data, "slot_start_ms")), slot);
    s_minute(json_integer_value(json_object_get(data, "deadline_ms")), deadline);
    const char *client = strrchr(source, '/');
    size_t prefix = strlen(DKT_EVENT_TYPE_PREFIX);
    printf("%s  %-11s  %s  %-8s  slot %s  by %s  %s\n", time,
           strlen(type) > prefix ? type + prefix : type, ticket, class_name, slot, deadline,
           client ? client + 1 : source);
}

static void s_print_batch(const s_tail_t *self, natsMsg *message)
{
    json_t *batch =
        json_loadb(natsMsg_GetData(message), (size_t)natsMsg_GetDataLength(message), 0, NULL);
    size_t i;
    json_t *event;
    json_array_foreach(batch, i, event)
    {
        if (self->options.json) {
            char *text = json_dumps(event, JSON_COMPACT);
            puts(text ? text : "null");
            free(text);
        } else {
            s_print_pretty(event);
        }
    }
    json_decref(batch);
    fflush(stdout);
}

/* -- the stream -- */

/* Where a new subscription begins. False: there is no stream now. */
static bool s_begin(s_tail_t *self, jsCtx *js, jsSubOptions *sub, uint64_t *last_seq)
{
    jsStreamInfo *info = NULL;
    jsErrCode code = 0;
    if (js_GetStreamInfo(&info, js, S_STREAM, NULL, &code) != NATS_OK) {
        return false;
    }
    bool again = self->created_ns == info->Created && self->next_seq <= info->State.LastSeq + 1;
    *last_seq = info->State.LastSeq;
    if (again) {
        sub->Config.DeliverPolicy = js_DeliverByStartSequence;
        sub->Config.OptStartSeq = self->next_seq;
    } else if (self->created_ns != 0 || self->options.from_start) {
        sub->Config.DeliverPolicy = js_DeliverAll;
        self->next_seq = 1;
    } else {
        sub->Config.DeliverPolicy = js_DeliverByStartTime;
        sub->Config.OptStartTime = self->begin_ns;
        self->next_seq = info->State.LastSeq + 1;
    }
    self->created_ns = info->Created;
    jsStreamInfo_Destroy(info);
    return true;
}

static void s_take(s_tail_t *self, natsMsg *message, uint64_t *pending)
{
    jsMsgMetaData *meta = NULL;
    const char *id = NULL;
    if (natsMsg_GetMetaData(&meta, message) == NATS_OK) {
        self->next_seq = meta->Sequence.Stream + 1;
        *pending = meta->NumPending;
        jsMsgMetaData_Destroy(meta);
    }
    (void)natsMsgHeader_Get(message, "Nats-Msg-Id", &id);
    if (!id || !s_seen_before(&self->seen, id)) {
        s_print_batch(self, message);
    }
}

/* Until the connection breaks, a signal, or with --once the end; true: it is the end. */
static bool s_follow(s_tail_t *self, jsCtx *js)
{
    natsSubscription *subscription = NULL;
    jsSubOptions sub;
    jsErrCode code = 0;
    uint64_t last_seq = 0, pending = 1;
    bool done = false;
    jsSubOptions_Init(&sub);
    sub.Ordered = true;
    sub.Stream = S_STREAM;
    if (!s_begin(self, js, &sub, &last_seq)) {
        return self->options.once;
    }
    if (js_SubscribeSync(&subscription, js, self->subject, NULL, &sub, &code) != NATS_OK) {
        return false;
    }
    while (!done && !dkt_nats_stopped()) {
        natsMsg *message = NULL;
        natsStatus status = natsSubscription_NextMsg(&message, subscription, S_NEXT_MS);
        if (status == NATS_OK) {
            s_take(self, message, &pending);
            natsMsg_Destroy(message);
            done = self->options.once && pending == 0;
        } else if (status == NATS_TIMEOUT) {
            done = self->options.once;
        } else {
            break;
        }
    }
    natsSubscription_Destroy(subscription);
    return done;
}

static int s_tail(s_tail_t *self)
{
    while (!dkt_nats_stopped()) {
        dkt_err_t err = {0};
        jsCtx *js = NULL;
        bool done = false;
        natsConnection *connection =
            dkt_nats_connect(&self->options.where, "docket events tail", &err);
        if (connection && natsConnection_JetStream(&js, connection, NULL) == NATS_OK) {
            self->complained = false;
            done = s_follow(self, js);
        } else if (!self->complained) {
            fprintf(stderr, "docket events: %s\n", err.text);
            self->complained = true;
        }
        jsCtx_Destroy(js);
        natsConnection_Destroy(connection);
        if (err.status == DKT_INVALID_ARGUMENT || err.status == DKT_NOT_FOUND ||
            (self->options.once && !done)) {
            return 1;
        }
        if (done) {
            return 0;
        }
        nats_Sleep(S_RETRY_MS);
    }
    return 0;
}

/* -- options -- */

static bool s_parse_since(const char *text, int64_t *seconds)
{
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    char *end;
    int64_t number = strtoll(text, &end, 10);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (end != text && number >= 0 && number < INT32_MAX && *end == units[i].unit &&
            end[1] == '\0') {
            *seconds = number * units[i].seconds;
            return true;
        }
    }
    return false;
}

static bool s_type_known(const char *type)
{
    for (int i = 0; i < DKT_EVENT_COUNT; i++) {
        if (strcmp(type, dkt_event_name((dkt_event_type_t)i)) == 0) {
            return true;
        }
    }
    return false;
}

/* -1: go on; otherwise the exit status. */
static int s_parse(int argc, char **argv, s_options_t *options)
{
    static const struct option rows[] = {
        {"client", required_argument, NULL, 'c'}, {"type", required_argument, NULL, 't'},
        {"since", required_argument, NULL, 's'},  {"from-start", no_argument, NULL, 'f'},
        {"once", no_argument, NULL, 'o'},         {"json", no_argument, NULL, 'j'},
        {"nats", required_argument, NULL, 'n'},   {"keys", required_argument, NULL, 'k'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0},
    };
    int letter;
    bool good = true;
    optind = 0;
    while ((letter = getopt_long(argc, argv, "", rows, NULL)) != -1) {
        if (letter == 'h') {
            fputs(s_usage, stdout);
            return 0;
        }
        const struct {
            int letter;
            const char **text;
        } texts[] = {{'c', &options->client},
                     {'t', &options->type},
                     {'n', &options->where.url},
                     {'k', &options->where.keys}};
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
            *texts[i].text = letter == texts[i].letter ? optarg : *texts[i].text;
        }
        options->from_start |= letter == 'f';
        options->once |= letter == 'o';
        options->json |= letter == 'j';
        good &= letter != '?' && (letter != 's' || s_parse_since(optarg, &options->since_s));
    }
    dkt_client_t client;
    good &= !options->type || s_type_known(options->type);
    good &= !options->client ||
            dkt_client_parse(options->client, (uint32_t)strlen(options->client), &client);
    if (!good || optind != argc) {
        fputs(s_usage, stderr);
        return 2;
    }
    return -1;
}

int dkt_events_main(int argc, char **argv)
{
    s_tail_t self = {.complained = false};
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "tail") != 0) {
        bool help = strcmp(verb, "--help") == 0;
        fputs(s_usage, help ? stdout : stderr);
        return help ? 0 : 2;
    }
    int status = s_parse(argc - 1, argv + 1, &self.options);
    if (status >= 0) {
        return status;
    }
    dkt_nats_defaults(&self.options.where);
    dkt_nats_watch_signals();
    snprintf(self.subject, sizeof self.subject, "docket.event.%s.%s",
             self.options.client ? self.options.client : "*",
             self.options.type ? self.options.type : "*");
    self.begin_ns = nats_NowInNanoSeconds() - self.options.since_s * S_NS_PER_S;
    self.seen.ids[0] = calloc(S_SEEN_MAX, sizeof(uint64_t));
    self.seen.ids[1] = calloc(S_SEEN_MAX, sizeof(uint64_t));
    status = self.seen.ids[0] && self.seen.ids[1] ? s_tail(&self) : 1;
    free(self.seen.ids[0]);
    free(self.seen.ids[1]);
    nats_Close();
    return status;
}
