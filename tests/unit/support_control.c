/* SPDX-License-Identifier: Apache-2.0 */
#include "support_control.h"

#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/edge/clock.h"
#include "lib/edge/control.h"
#include "lib/edge/keys.h"

#define S_BOX_MAX 100000

void support_control_start(support_control_t *self)
{
    dkt_err_t err;
    assert(sodium_init() >= 0);
    snprintf(self->keys, sizeof self->keys, "/tmp/dkt-keys-XXXXXX");
    char *folder = mkdtemp(self->keys);
    assert(folder);
    assert(dkt_keys_create(self->keys, &err) == DKT_OK);
    self->pg = support_pg_start(false);
    snprintf(self->uri, sizeof self->uri, "postgresql://postgres@127.0.0.1:%u/docket_control",
             support_pg_port(self->pg));
    dkt_status_t status = dkt_control_bootstrap(self->uri, self->keys, &err);
    if (status != DKT_OK) {
        fprintf(stderr, "bootstrap: %s\n", err.text);
        abort();
    }
}

void support_control_stop(support_control_t *self)
{
    static const char *const files[] = {
        "id.keys",        "token.keys",     "master.key",          "pgpass",
        "internal.pub",   "internal.key",   "internal-client.key", "internal.allowed",
        "nats-server.nk", "nats-worker.nk", "nats-broker.nk",      "nats-ops.nk",
        "receipt.key",    "receipt.pub"};
    support_pg_stop(&self->pg);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", self->keys, files[i]);
        unlink(path);
    }
    rmdir(self->keys);
}

PGconn *support_control_connect(const support_control_t *self)
{
    return support_pg_connect(self->pg, "docket_control", NULL);
}

void support_env_init(dkt_env_t *env, const support_control_t *control, const char *node)
{
    dkt_err_t err;
    dkt_token_secret_t secrets[DKT_TOKEN_KEYS_MAX];
    memset(env, 0, sizeof *env);
    dkt_worker_turns_init(&env->turns);
    env->uri = control->uri;
    env->keys = control->keys;
    env->node = node;
    env->idle_ms = DKT_IDLE_PASSIVATE_MS;
    env->probe_ms = DKT_PROBE_MS;
    randombytes_buf(env->incarnation.bytes, sizeof env->incarnation.bytes);
    dkt_status_t ids = dkt_keys_ids(control->keys, &env->id_keys, &err);
    dkt_status_t tokens = dkt_keys_tokens(control->keys, secrets, env->token_publics,
                                          DKT_TOKEN_KEYS_MAX, &env->token_public_count, &err);
    dkt_status_t master = dkt_keys_master(control->keys, env->master, &err);
    assert(ids == DKT_OK && tokens == DKT_OK && master == DKT_OK);
    env->token_key = secrets[0];
    env->node_box = dkt_mailbox_new(S_BOX_MAX);
    env->hasher_box = dkt_mailbox_new(S_BOX_MAX);
    env->directory_box = dkt_mailbox_new(S_BOX_MAX);
    env->accounts_box = dkt_mailbox_new(S_BOX_MAX);
    assert(env->node_box && env->hasher_box && env->directory_box && env->accounts_box);
}

static void s_free_all(dkt_mail_t *mail)
{
    while (mail) {
        dkt_mail_t *next = mail->next;
        free(mail);
        mail = next;
    }
}

void support_env_fini(dkt_env_t *env)
{
    dkt_mailbox_t **boxes[] = {&env->node_box, &env->hasher_box, &env->directory_box,
                               &env->accounts_box};
    for (size_t i = 0; i < sizeof boxes / sizeof boxes[0]; i++) {
        s_free_all(dkt_mailbox_drain(*boxes[i]));
        dkt_mailbox_destroy(boxes[i]);
    }
}

dkt_mail_t *support_env_wait(dkt_env_t *env, dkt_mail_kind_t kind, int wait_ms)
{
    int64_t until_mono_ms = dkt_clock_mono_ms() + wait_ms;
    for (;;) {
        dkt_mail_t *mail = dkt_mailbox_drain(env->node_box), *found = NULL;
        while (mail) {
            dkt_mail_t *next = mail->next;
            if (!found && mail->kind == kind) {
                found = mail;
            } else if (found) { /* what came behind it is for the next wait */
                dkt_mail_post(env->node_box, mail, mail->kind);
            } else {
                free(mail);
            }
            mail = next;
        }
        int64_t left_ms = until_mono_ms - dkt_clock_mono_ms();
        if (found || left_ms <= 0) {
            return found;
        }
        struct pollfd item = {.fd = dkt_mailbox_fd(env->node_box), .events = POLLIN};
        (void)poll(&item, 1, (int)left_ms);
    }
}
