/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/admin.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/edge/log.h"
#include "lib/edge/replica_answer.h"
#include "lib/edge/srv.h"

#define S_INCARNATION_CHARS (2 * DKT_INCARNATION_BYTES + 1)

struct dkt_admin {
    dkt_env_t *env;
    char incarnation[S_INCARNATION_CHARS];
    dkt_srv_t *worker, *directory;
};

/* -- names -- */

void dkt_admin_nodes(dkt_nodes_t *nodes, uint32_t count,
                     const char names[][DKT_NODE_NAME_BYTES_MAX])
{
    assert(count <= DKT_MEMBERS_MAX);
    pthread_mutex_lock(&nodes->lock);
    nodes->count = count;
    memcpy(nodes->names, names, count * sizeof nodes->names[0]);
    pthread_mutex_unlock(&nodes->lock);
}

static bool s_is_known(dkt_nodes_t *nodes, const char *name)
{
    bool known = false;
    pthread_mutex_lock(&nodes->lock);
    for (uint32_t i = 0; i < nodes->count && !known; i++) {
        known = strcmp(nodes->names[i], name) == 0;
    }
    pthread_mutex_unlock(&nodes->lock);
    return known;
}

/* -- the worker's commands -- */

/* The directory's thread writes it down, audit included, as soon as it has a session. */
static bool s_tell_directory(dkt_env_t *env, dkt_share_t share)
{
    dkt_share_mail_t *mail = dkt_mail_alloc(sizeof *mail);
    mail->mail.kind = DKT_MAIL_SHARE;
    mail->share = share;
    if (!dkt_mailbox_push(env->directory_box, &mail->mail)) {
        free(mail);
        return false;
    }
    return true;
}

static bool s_tell_node(dkt_env_t *env)
{
    dkt_mail_t *mail = dkt_mail_alloc(sizeof *mail);
    mail->kind = DKT_MAIL_STOP;
    if (!dkt_mailbox_push(env->node_box, mail)) {
        free(mail);
        return false;
    }
    return true;
}

static void s_set_share(const dkt_admin_t *self, json_t *params, dkt_srv_reply_t *reply,
                        dkt_share_t share)
{
    dkt_env_t *env = self->env;
    const char *node = dkt_srv_text(params, "node");
    if (!node || strcmp(node, env->node) != 0) {
        reply->silent = true;
        return;
    }
    if (atomic_load(&env->stats.share) == DKT_SHARE_DRAINING && share != DKT_SHARE_DRAINING) {
        dkt_srv_fail(reply, DKT_SRV_UNAVAILABLE, "%s is draining: it will not come back", node);
        return;
    }
    if (!s_tell_directory(env, share) || (share == DKT_SHARE_DRAINING && !s_tell_node(env))) {
        dkt_srv_fail(reply, DKT_SRV_UNAVAILABLE, "%s is too busy", node);
        return;
    }
    atomic_store(&env->stats.share, share);
    dkt_log(DKT_LOG_INFO, "an operator has set this worker to %s", dkt_share_name(share));
    reply->body = json_pack("{s:s, s:s, s:s}", "node", env->node, "incarnation", self->incarnation,
                            "share", dkt_share_name(share));
}

static void s_drain(void *ctx, json_t *params, dkt_srv_reply_t *reply)
{
    s_set_share(ctx, params, reply, DKT_SHARE_DRAINING);
}

static void s_pause(void *ctx, json_t *params, dkt_srv_reply_t *reply)
{
    s_set_share(ctx, params, reply, DKT_SHARE_PAUSED);
}

static void s_resume(void *ctx, json_t *params, dkt_srv_reply_t *reply)
{
    s_set_share(ctx, params, reply, DKT_SHARE_TAKEN);
}

static void s_tenants(void *ctx, json_t *params, dkt_srv_reply_t *reply)
{
    dkt_replica_answer_tenants(((const dkt_admin_t *)ctx)->env->replica, params, reply);
}

static void s_tenant(void *ctx, json_t *params, dkt_srv_reply_t *reply)
{
    dkt_replica_answer_tenant(((const dkt_admin_t *)ctx)->env->replica, params, reply);
}

static void s_table(void *ctx, json_t *params, dkt_srv_reply_t *reply)
{
    dkt_replica_answer_table(((const dkt_admin_t *)ctx)->env->replica, params, reply);
}

#define S_DRAIN  "hands its tenants over and ends: {\"node\": name}"
#define S_PAUSE  "hands its tenants over and takes none: {\"node\": name}"
#define S_RESUME "takes a share again: {\"node\": name}"

static const dkt_srv_endpoint_t s_worker_rows[] = {
    {"drain", "docket.admin.drain", S_DRAIN, true, s_drain},
    {"pause", "docket.admin.pause", S_PAUSE, true, s_pause},
    {"resume", "docket.admin.resume", S_RESUME, true, s_resume},
    DKT_REPLICA_ENDPOINTS(s),
};

/* -- the leader's answers to what no worker answers -- */

static void s_no_such_node(void *ctx, json_t *params, dkt_srv_reply_t *reply)
{
    const dkt_admin_t *self = ctx;
    const char *node = dkt_srv_text(params, "node");
    if (!params) {
        dkt_srv_fail(reply, DKT_SRV_BAD_REQUEST, "the request is no JSON object");
    } else if (!node) {
        dkt_srv_fail(reply, DKT_SRV_BAD_REQUEST, "which worker? {\"node\": \"worker-0\"}");
    } else if (!s_is_known(&self->env->nodes, node)) {
        dkt_srv_fail(reply, DKT_SRV_NOT_FOUND, "no worker \"%s\" is alive", node);
    } else {
        reply->silent = true;
    }
}

static const dkt_srv_endpoint_t s_directory_rows[] = {
    {"drain", "docket.admin.drain", S_DRAIN, true, s_no_such_node},
    {"pause", "docket.admin.pause", S_PAUSE, true, s_no_such_node},
    {"resume", "docket.admin.resume", S_RESUME, true, s_no_such_node},
};

/* -- life -- */

#define S_ROWS(rows) .endpoints = rows, .endpoint_count = sizeof rows / sizeof rows[0]

dkt_admin_t *dkt_admin_new(dkt_env_t *env)
{
    dkt_admin_t *self = calloc(1, sizeof *self);
    if (!self) {
        return NULL;
    }
    self->env = env;
    sodium_bin2hex(self->incarnation, sizeof self->incarnation, env->incarnation.bytes,
                   sizeof env->incarnation.bytes);
    const dkt_srv_config_t worker = {.bus = env->bus,
                                     .name = "docket-worker",
                                     .description = "Owns tenants and their slots",
                                     .node = env->node,
                                     .incarnation = self->incarnation,
                                     .ctx = self,
                                     S_ROWS(s_worker_rows)};
    const dkt_srv_config_t directory = {.bus = env->bus,
                                        .name = "docket-directory",
                                        .description = "Decides which worker owns which tenants",
                                        .node = env->node,
                                        .incarnation = self->incarnation,
                                        .ctx = self,
                                        .when = &env->leader,
                                        S_ROWS(s_directory_rows)};
    self->worker = dkt_srv_new(&worker);
    self->directory = dkt_srv_new(&directory);
    if (!self->worker || !self->directory || !dkt_srv_listen(self->worker) ||
        !dkt_srv_listen(self->directory)) {
        dkt_log(DKT_LOG_ERROR, "NATS: no memory for operators' requests");
    }
    return self;
}

void dkt_admin_destroy(dkt_admin_t **self_p)
{
    dkt_admin_t *self = *self_p;
    if (!self) {
        return;
    }
    *self_p = NULL;
    dkt_srv_destroy(&self->worker);
    dkt_srv_destroy(&self->directory);
    free(self);
}
