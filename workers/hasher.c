/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/hasher.h"

#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>

#include <sodium.h>

_Static_assert(DKT_HASH_TEXT_BYTES >= crypto_pwhash_STRBYTES, "a hash must fit its text");

struct dkt_hasher {
    dkt_env_t *env;
    pthread_t thread;
};

void dkt_hasher_run(dkt_hash_job_t *job)
{
    if (job->kind == DKT_HASH_CREATE) {
        job->ok = crypto_pwhash_str_alg(job->hash, job->password, job->password_len, DKT_ARGON2_OPS,
                                        DKT_ARGON2_MEM_BYTES, crypto_pwhash_ALG_ARGON2ID13) == 0;
    } else {
        job->hash[DKT_HASH_TEXT_BYTES - 1] = '\0';
        job->ok = crypto_pwhash_str_verify(job->hash, job->password, job->password_len) == 0;
    }
    sodium_memzero(job->password, sizeof job->password);
}

bool dkt_hasher_submit(dkt_env_t *env, dkt_hash_mail_t *hash)
{
    if (atomic_fetch_add(&env->hashes_pending, 1) >= DKT_HASH_QUEUE_MAX) {
        atomic_fetch_sub(&env->hashes_pending, 1);
        return false;
    }
    dkt_mail_post(env->hasher_box, &hash->mail, DKT_MAIL_HASH);
    return true;
}

/* Returns false when told to stop; then the rest of the list is dropped. */
static bool s_take(dkt_hasher_t *self, dkt_mail_t *mail)
{
    bool running = true;
    while (mail) {
        dkt_mail_t *next = mail->next;
        running = running && mail->kind != DKT_MAIL_STOP;
        if (!running) {
            if (mail->kind == DKT_MAIL_HASH) {
                sodium_memzero(&((dkt_hash_mail_t *)mail)->job, sizeof(dkt_hash_job_t));
                free(((dkt_hash_mail_t *)mail)->work);
            }
            free(mail);
        } else {
            assert(mail->kind == DKT_MAIL_HASH);
            dkt_hasher_run(&((dkt_hash_mail_t *)mail)->job);
            atomic_fetch_sub(&self->env->hashes_pending, 1);
            dkt_mail_post(self->env->node_box, mail, DKT_MAIL_HASHED);
        }
        mail = next;
    }
    return running;
}

static void *s_run(void *argument)
{
    dkt_hasher_t *self = argument;
    struct pollfd item = {.fd = dkt_mailbox_fd(self->env->hasher_box), .events = POLLIN};
    do {
        (void)poll(&item, 1, -1);
    } while (s_take(self, dkt_mailbox_drain(self->env->hasher_box)));
    return NULL;
}

dkt_hasher_t *dkt_hasher_new(dkt_env_t *env)
{
    dkt_hasher_t *self = calloc(1, sizeof *self);
    if (!self) {
        return NULL;
    }
    self->env = env;
    if (pthread_create(&self->thread, NULL, s_run, self) != 0) {
        free(self);
        return NULL;
    }
    return self;
}

void dkt_hasher_destroy(dkt_hasher_t **self_p)
{
    dkt_hasher_t *self = *self_p;
    if (!self) {
        return;
    }
    *self_p = NULL;
    dkt_mail_post_kind(self->env->hasher_box, DKT_MAIL_STOP);
    pthread_join(self->thread, NULL);
    free(self);
}
