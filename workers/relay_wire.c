/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/relay_wire.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <nats/nats.h>

#include "lib/core/text.h"
#include "lib/edge/log.h"
#include "lib/edge/nats_options.h"

#define S_CONNECT_MS     1000
#define S_API_MS         1000
#define S_WRITE_MS       2000
#define S_CLOSE_MS       1000
#define S_NS_PER_MS      INT64_C(1000000)
#define S_DAY_NS         (INT64_C(86400) * 1000 * S_NS_PER_MS)
#define S_DUPLICATES_NS  (INT64_C(120000) * S_NS_PER_MS)
#define S_SUBJECT_MAX    128
#define S_HEX            16
#define S_MESSAGE_FORMAT "application/cloudevents-batch+json"

struct dkt_wire {
    dkt_env_t *env;
    natsOptions *options;
    dkt_nats_key_t key;
    natsConnection *connection;
    jsCtx *js;
    natsSubscription *acks;
    natsInbox *inbox;
};

static bool s_good(natsStatus status)
{
    return status == NATS_OK;
}

/* -- acknowledgements, on a thread of the client's -- */

/* {"stream": .., "seq": 1} or {"error": {..}}; no body: nobody listens to that subject. */
static bool s_parse_ack(natsMsg *message, uint64_t *stream_seq)
{
    int len = natsMsg_GetDataLength(message);
    json_t *root = len > 0 ? json_loadb(natsMsg_GetData(message), (size_t)len, 0, NULL) : NULL;
    json_t *seq = root ? json_object_get(root, "seq") : NULL;
    bool good = seq && json_is_integer(seq) && !json_object_get(root, "error");
    *stream_seq = good ? (uint64_t)json_integer_value(seq) : 0;
    json_decref(root);
    return good;
}

static void s_on_ack(natsConnection *connection, natsSubscription *subscription, natsMsg *message,
                     void *closure)
{
    dkt_wire_t *self = closure;
    const char *dot = strrchr(natsMsg_GetSubject(message), '.');
    dkt_relay_ack_mail_t *ack = dkt_mail_alloc(sizeof *ack);
    (void)connection;
    (void)subscription;
    ack->mail.kind = DKT_MAIL_RELAY_ACK;
    ack->token = dot ? strtoull(dot + 1, NULL, S_HEX) : 0;
    ack->good = s_parse_ack(message, &ack->stream_seq);
    if (!dkt_mailbox_push(self->env->relay_box, &ack->mail)) {
        free(ack); /* the message is sent again, and found to be a duplicate */
    }
    natsMsg_Destroy(message);
}

/* -- connection -- */

dkt_wire_t *dkt_wire_new(dkt_env_t *env)
{
    char name[DKT_NODE_NAME_BYTES_MAX + 16];
    dkt_err_t err = {0};
    snprintf(name, sizeof name, "docket-relay %s", env->node);
    const dkt_nats_options_t options = {.url = env->nats,
                                        .keys = env->keys,
                                        .role = "worker",
                                        .name = name,
                                        .connect_ms = S_CONNECT_MS};
    dkt_wire_t *self = calloc(1, sizeof *self);
    if (!self || !(self->options = dkt_nats_options(&options, &self->key, &err))) {
        dkt_log(DKT_LOG_ERROR, "NATS: %s", self ? err.text : "no memory");
        free(self);
        return NULL;
    }
    self->env = env;
    bool good = s_good(natsOptions_UseGlobalMessageDelivery(self->options, true)) &&
                s_good(natsOptions_SetAllowReconnect(self->options, false)) &&
                s_good(natsOptions_SetWriteDeadline(self->options, S_WRITE_MS)) &&
                s_good(natsInbox_Create(&self->inbox));
    if (!good) {
        dkt_log(DKT_LOG_ERROR, "NATS: no memory");
        dkt_wire_destroy(&self);
    }
    return self;
}

void dkt_wire_close(dkt_wire_t *self)
{
    natsSubscription_Destroy(self->acks);
    jsCtx_Destroy(self->js);
    natsConnection_Destroy(self->connection);
    self->acks = NULL;
    self->js = NULL;
    self->connection = NULL;
}

void dkt_wire_destroy(dkt_wire_t **self_p)
{
    dkt_wire_t *self = *self_p;
    if (!self) {
        return;
    }
    *self_p = NULL;
    dkt_wire_close(self);
    natsInbox_Destroy(self->inbox);
    natsOptions_Destroy(self->options);
    (void)nats_CloseAndWait(S_CLOSE_MS); /* no callback runs after this */
    free(self);
}

bool dkt_wire_up(const dkt_wire_t *self)
{
    return self->connection && !natsConnection_IsClosed(self->connection);
}

/* -- stream -- */

static natsStatus s_make_stream(dkt_wire_t *self, jsStreamInfo **info, jsErrCode *code)
{
    const char *subjects[] = {"docket.event.>"};
    jsStreamConfig config;
    jsStreamConfig_Init(&config);
    config.Name = DKT_EVENT_STREAM;
    config.Description = "Events of all tickets; the journals in PostgreSQL are the record";
    config.Subjects = subjects;
    config.SubjectsLen = 1;
    config.Storage = js_FileStorage;
    config.MaxAge = DKT_RELAY_KEEP_DAYS * S_DAY_NS;
    config.MaxBytes = DKT_RELAY_STREAM_BYTES; /* the oldest go: a full stream would stop them all */
    config.Discard = js_DiscardOld;
    config.Duplicates = S_DUPLICATES_NS;
    config.AllowDirect = true;
    return js_AddStream(info, self->js, &config, NULL, code);
}

bool dkt_wire_stream(dkt_wire_t *self, dkt_relay_mark_t *stream)
{
    jsStreamInfo *info = NULL;
    jsErrCode code = 0;
    natsStatus status = js_GetStreamInfo(&info, self->js, DKT_EVENT_STREAM, NULL, &code);
    if (status == NATS_NOT_FOUND || code == JSStreamNotFoundErr) {
        dkt_log(DKT_LOG_INFO, "making the stream " DKT_EVENT_STREAM);
        status = s_make_stream(self, &info, &code);
    }
    if (!s_good(status)) {
        dkt_log(DKT_LOG_WARN, "stream " DKT_EVENT_STREAM ": %s (%d)", natsStatus_GetText(status),
                (int)code);
        return false;
    }
    *stream = (dkt_relay_mark_t){.stream_created_ms = info->Created / S_NS_PER_MS,
                                 .stream_seq = info->State.LastSeq};
    jsStreamInfo_Destroy(info);
    return true;
}

bool dkt_wire_connect(dkt_wire_t *self, dkt_relay_mark_t *stream, char text[DKT_ERR_TEXT_BYTES_MAX])
{
    char subject[S_SUBJECT_MAX];
    jsOptions options;
    dkt_wire_close(self);
    jsOptions_Init(&options);
    options.Wait = S_API_MS;
    snprintf(subject, sizeof subject, "%s.*", (const char *)self->inbox);
    natsStatus status = natsConnection_Connect(&self->connection, self->options);
    if (s_good(status)) {
        status = natsConnection_JetStream(&self->js, self->connection, &options);
    }
    if (s_good(status)) {
        status = natsConnection_Subscribe(&self->acks, self->connection, subject, s_on_ack, self);
    }
    if (s_good(status) && dkt_wire_stream(self, stream)) {
        return true;
    }
    snprintf(text, DKT_ERR_TEXT_BYTES_MAX, "%s", natsStatus_GetText(status));
    dkt_wire_close(self);
    return false;
}

/* -- publishing -- */

bool dkt_wire_publish(dkt_wire_t *self, uint64_t token, const char *subject, const char *id,
                      const char *data, size_t len)
{
    char reply[S_SUBJECT_MAX];
    natsMsg *message = NULL;
    size_t inbox_len = strlen((const char *)self->inbox);
    assert(inbox_len + 1 + DKT_TEXT_HEX_CHARS_MAX < sizeof reply);
    char *at = dkt_text_put(reply, (const char *)self->inbox, inbox_len);
    *at++ = '.';
    at = dkt_text_hex(at, token);
    *at = '\0';
    bool good = s_good(natsMsg_Create(&message, subject, reply, data, (int)len)) &&
                s_good(natsMsgHeader_Set(message, "Nats-Msg-Id", id)) &&
                s_good(natsMsgHeader_Set(message, "Content-Type", S_MESSAGE_FORMAT)) &&
                s_good(natsConnection_PublishMsg(self->connection, message));
    natsMsg_Destroy(message);
    return good;
}
