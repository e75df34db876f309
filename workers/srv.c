/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/srv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>
#include <sodium.h>

#define S_SUBJECT_MAX 128
#define S_VERBS       3
#define S_FORMS       3

static const char *const s_verbs[S_VERBS] = {"PING", "INFO", "STATS"};
static const char *const s_types[S_VERBS] = {"io.nats.micro.v1.ping_response",
                                             "io.nats.micro.v1.info_response",
                                             "io.nats.micro.v1.stats_response"};

void dkt_srv_init(dkt_srv_t *self, const char *name, const char *node, const uint8_t id[16])
{
    time_t now = time(NULL);
    struct tm utc;
    *self = (dkt_srv_t){.name = name, .node = node};
    sodium_bin2hex(self->id, sizeof self->id, id, 16);
    gmtime_r(&now, &utc);
    strftime(self->started, sizeof self->started, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

/* "$SRV.STATS.." is verb 2. */
static int s_verb(const char *subject)
{
    for (int i = 0; i < S_VERBS; i++) {
        size_t len = strlen(s_verbs[i]);
        const char *verb = subject + strlen("$SRV.");
        if (strncmp(verb, s_verbs[i], len) == 0 && (verb[len] == '.' || verb[len] == '\0')) {
            return i;
        }
    }
    return -1;
}

static void s_on_request(natsConnection *connection, natsSubscription *subscription,
                         natsMsg *message, void *closure)
{
    const dkt_srv_t *self = closure;
    const char *reply = natsMsg_GetReply(message);
    int verb = s_verb(natsMsg_GetSubject(message));
    (void)subscription;
    if (reply && verb >= 0) {
        json_t *root =
            json_pack("{s:s, s:s, s:s, s:s, s:{s:s}}", "type", s_types[verb], "name", self->name,
                      "id", self->id, "version", DKT_VERSION, "metadata", "node", self->node);
        if (verb == 1) {
            json_object_set_new(root, "description", json_string("Owns tenants and their slots"));
        } else if (verb == 2) {
            json_object_set_new(root, "started", json_string(self->started));
        }
        if (verb > 0) {
            json_object_set_new(root, "endpoints", json_array()); /* requests come over ZeroMQ */
        }
        char *text = json_dumps(root, JSON_COMPACT);
        if (text) {
            (void)natsConnection_PublishString(connection, reply, text);
        }
        free(text);
        json_decref(root);
    }
    natsMsg_Destroy(message);
}

bool dkt_srv_listen(dkt_srv_t *self, natsConnection *connection)
{
    for (int i = 0; i < DKT_SRV_SUBJECTS; i++) {
        char subject[S_SUBJECT_MAX];
        const char *verb = s_verbs[i / S_FORMS];
        const int form = i % S_FORMS;
        snprintf(subject, sizeof subject, "$SRV.%s%s%s%s%s", verb, form > 0 ? "." : "",
                 form > 0 ? self->name : "", form > 1 ? "." : "", form > 1 ? self->id : "");
        if (natsConnection_Subscribe(&self->subscriptions[i], connection, subject, s_on_request,
                                     self) != NATS_OK) {
            return false;
        }
    }
    return true;
}

void dkt_srv_close(dkt_srv_t *self)
{
    for (int i = 0; i < DKT_SRV_SUBJECTS; i++) {
        natsSubscription_Destroy(self->subscriptions[i]);
        self->subscriptions[i] = NULL;
    }
}
