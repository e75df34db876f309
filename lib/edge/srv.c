/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/srv.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sodium.h>

#include "lib/edge/clock.h"

#define S_SUBJECT_MAX 128
#define S_QUEUE       "q" /* the protocol's default */
#define S_PREFIX      "$SRV."
#define S_FORMS       3 /* to all, to all of a name, to one */
#define S_ID_BYTES    12
#define S_CODE_CHARS  12
#define S_NS_PER_US   INT64_C(1000)

/* An endpoint's figures, by the handler thread only. */
typedef struct {
    dkt_srv_t *srv;
    const dkt_srv_endpoint_t *row;
    int64_t requests, errors, busy_us;
    char last_error[DKT_ERR_TEXT_BYTES_MAX + S_CODE_CHARS];
} s_endpoint_t;

struct dkt_srv {
    dkt_srv_config_t config;
    char id[2 * S_ID_BYTES + 1]; /* new at each start */
    char started[32];
    s_endpoint_t endpoints[DKT_SRV_ENDPOINTS_MAX];
};

void dkt_srv_fail(dkt_srv_reply_t *reply, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(reply->text, sizeof reply->text, format, args);
    va_end(args);
    reply->code = code;
    /* It goes into a header, and part of it may be what somebody sent. */
    for (char *at = reply->text; *at; at++) {
        *at = *at < ' ' || *at > '~' ? '?' : *at;
    }
}

const char *dkt_srv_text(json_t *params, const char *key)
{
    return json_string_value(json_object_get(params, key));
}

static bool s_is_there(const dkt_srv_t *self)
{
    return !self->config.when || atomic_load(self->config.when);
}

/* -- answers -- */

/* Takes the body. An answer that cannot be sent is lost: the asker asks again. */
static void s_answer(const dkt_srv_t *self, const char *to, json_t *body,
                     const dkt_srv_reply_t *error)
{
    char *text = json_dumps(body, JSON_COMPACT), code[S_CODE_CHARS];
    natsMsg *message = NULL;
    if (text && natsMsg_Create(&message, to, NULL, text, (int)strlen(text)) == NATS_OK) {
        if (error) {
            snprintf(code, sizeof code, "%d", error->code);
            (void)natsMsgHeader_Set(message, "Nats-Service-Error-Code", code);
            (void)natsMsgHeader_Set(message, "Nats-Service-Error", error->text);
        }
        (void)natsConnection_PublishMsg(dkt_bus_connection(self->config.bus), message);
    }
    natsMsg_Destroy(message);
    free(text);
    json_decref(body);
}

/* -- $SRV -- */

static json_t *s_describe(const s_endpoint_t *endpoint)
{
    const dkt_srv_endpoint_t *row = endpoint->row;
    return json_pack("{s:s, s:s, s:s, s:{s:s}}", "name", row->name, "subject", row->subject,
                     "queue_group", row->each ? "" : S_QUEUE, "metadata", "about", row->about);
}

static json_t *s_measure(const s_endpoint_t *endpoint)
{
    const dkt_srv_endpoint_t *row = endpoint->row;
    json_int_t busy_ns = endpoint->busy_us * S_NS_PER_US;
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:s, s:I, s:I, s:{}}", "name", row->name, "subject",
                     row->subject, "queue_group", row->each ? "" : S_QUEUE, "num_requests",
                     (json_int_t)endpoint->requests, "num_errors", (json_int_t)endpoint->errors,
                     "last_error", endpoint->last_error, "processing_time", busy_ns,
                     "average_processing_time",
                     endpoint->requests > 0 ? busy_ns / endpoint->requests : 0, "data");
}

typedef json_t *(s_list_fn)(const s_endpoint_t *endpoint);

static void s_add_ping(const dkt_srv_t *self, json_t *root)
{
    (void)self;
    (void)root;
}

static void s_add_endpoints(const dkt_srv_t *self, json_t *root, s_list_fn *show)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < self->config.endpoint_count; i++) {
        json_array_append_new(list, show(&self->endpoints[i]));
    }
    json_object_set_new(root, "endpoints", list);
}

static void s_add_info(const dkt_srv_t *self, json_t *root)
{
    json_object_set_new(root, "description", json_string(self->config.description));
    s_add_endpoints(self, root, s_describe);
}

static void s_add_stats(const dkt_srv_t *self, json_t *root)
{
    json_object_set_new(root, "started", json_string(self->started));
    s_add_endpoints(self, root, s_measure);
}

static const struct {
    const char *verb, *type;
    void (*add)(const dkt_srv_t *self, json_t *root);
} s_verbs[] = {
    {"PING", "io.nats.micro.v1.ping_response", s_add_ping},
    {"INFO", "io.nats.micro.v1.info_response", s_add_info},
    {"STATS", "io.nats.micro.v1.stats_response", s_add_stats},
};
#define S_VERBS (int)(sizeof s_verbs / sizeof s_verbs[0])

/* Which row "$SRV.STATS" or "$SRV.STATS.name.id" asks for; -1: none. */
static int s_verb(const char *subject)
{
    const char *verb = subject + strlen(S_PREFIX);
    size_t len = strcspn(verb, ".");
    for (int i = 0; i < S_VERBS; i++) {
        if (strlen(s_verbs[i].verb) == len && strncmp(verb, s_verbs[i].verb, len) == 0) {
            return i;
        }
    }
    return -1;
}

static void s_on_srv(natsConnection *connection, natsSubscription *subscription, natsMsg *message,
                     void *closure)
{
    const dkt_srv_t *self = closure;
    const char *reply = natsMsg_GetReply(message);
    int verb = s_verb(natsMsg_GetSubject(message));
    (void)connection;
    (void)subscription;
    if (reply && verb >= 0 && s_is_there(self)) {
        json_t *root = json_pack("{s:s, s:s, s:s, s:s, s:{s:s}}", "type", s_verbs[verb].type,
                                 "name", self->config.name, "id", self->id, "version", DKT_VERSION,
                                 "metadata", "node", self->config.node);
        if (self->config.incarnation) {
            json_object_set_new(json_object_get(root, "metadata"), "incarnation",
                                json_string(self->config.incarnation));
        }
        s_verbs[verb].add(self, root);
        s_answer(self, reply, root, NULL);
    }
    natsMsg_Destroy(message);
}

/* -- endpoints -- */

static json_t *s_params(natsMsg *message)
{
    int len = natsMsg_GetDataLength(message);
    if (len == 0) {
        return json_object();
    }
    json_t *params = json_loadb(natsMsg_GetData(message), (size_t)len, 0, NULL);
    if (params && !json_is_object(params)) {
        json_decref(params);
        params = NULL;
    }
    return params;
}

static void s_on_request(natsConnection *connection, natsSubscription *subscription,
                         natsMsg *message, void *closure)
{
    s_endpoint_t *self = closure;
    const char *to = natsMsg_GetReply(message);
    dkt_srv_reply_t reply = {.silent = !s_is_there(self->srv)};
    int64_t begun_us = dkt_clock_mono_us();
    (void)connection;
    (void)subscription;
    if (!reply.silent) {
        json_t *params = s_params(message);
        self->row->handle(self->srv->config.ctx, params, &reply);
        json_decref(params);
    }
    if (!reply.silent) {
        if (reply.code != 0) {
            json_decref(reply.body);
            reply.body = json_pack("{s:i, s:s}", "code", reply.code, "error", reply.text);
            self->errors++;
            snprintf(self->last_error, sizeof self->last_error, "%d:%s", reply.code, reply.text);
        }
        if (to) {
            s_answer(self->srv, to, reply.body, reply.code != 0 ? &reply : NULL);
        } else {
            json_decref(reply.body);
        }
        self->requests++;
        self->busy_us += dkt_clock_mono_us() - begun_us;
    }
    natsMsg_Destroy(message);
}

/* -- life -- */

bool dkt_srv_listen(dkt_srv_t *self)
{
    char subject[S_SUBJECT_MAX];
    bool good = true;
    for (int i = 0; i < S_VERBS * S_FORMS && good; i++) {
        const int form = i % S_FORMS;
        snprintf(subject, sizeof subject, S_PREFIX "%s%s%s%s%s", s_verbs[i / S_FORMS].verb,
                 form > 0 ? "." : "", form > 0 ? self->config.name : "", form > 1 ? "." : "",
                 form > 1 ? self->id : "");
        good = dkt_bus_subscribe(self->config.bus, subject, s_on_srv, self);
    }
    for (uint32_t i = 0; i < self->config.endpoint_count && good; i++) {
        s_endpoint_t *endpoint = &self->endpoints[i];
        const dkt_srv_endpoint_t *row = endpoint->row;
        good = row->each
                   ? dkt_bus_subscribe(self->config.bus, row->subject, s_on_request, endpoint)
                   : dkt_bus_share(self->config.bus, row->subject, S_QUEUE, s_on_request, endpoint);
    }
    return good;
}

dkt_srv_t *dkt_srv_new(const dkt_srv_config_t *config)
{
    uint8_t id[S_ID_BYTES];
    time_t now = time(NULL);
    struct tm utc;
    dkt_srv_t *self = calloc(1, sizeof *self);
    assert(config->endpoint_count <= DKT_SRV_ENDPOINTS_MAX);
    if (!self) {
        return NULL;
    }
    self->config = *config;
    randombytes_buf(id, sizeof id);
    sodium_bin2hex(self->id, sizeof self->id, id, sizeof id);
    gmtime_r(&now, &utc);
    strftime(self->started, sizeof self->started, "%Y-%m-%dT%H:%M:%SZ", &utc);
    for (uint32_t i = 0; i < config->endpoint_count; i++) {
        self->endpoints[i] = (s_endpoint_t){.srv = self, .row = &config->endpoints[i]};
    }
    return self;
}

void dkt_srv_destroy(dkt_srv_t **self_p)
{
    free(*self_p);
    *self_p = NULL;
}
