/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/zap.h"

#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zmq.h>

#include "lib/core/limits.h"
#include "lib/edge/clock.h"
#include "lib/edge/keys.h"
#include "lib/edge/log.h"

#define S_ENDPOINT          "inproc://zeromq.zap.01"
#define S_CONTROL           "inproc://docket.zap.control"
#define S_FRAMES_MAX        8 /* version, id, domain, address, identity, mechanism, key; one more */
#define S_FRAME_BYTES_MAX   256 /* longer ones are of no request that we would grant */
#define S_CURVE_KEY_BYTES   32
#define S_FINGERPRINT_BYTES 16
#define S_PATH_BYTES_MAX    4096
#define S_LOG_EVERY_MS      1000 /* refusals are summed up: strangers do not fill the log */

struct dkt_zap {
    pthread_t thread;
    void *socket;  /* REP, of the thread */
    void *control; /* PAIR, its end in the thread */
    void *pipe;    /* PAIR, the caller's end */
    atomic_bool reload;
    char folder[S_PATH_BYTES_MAX];
    char path[S_PATH_BYTES_MAX];
    struct stat seen; /* of the file when it was read */
    uint8_t keys[DKT_ALLOWED_KEYS_MAX][S_CURVE_KEY_BYTES];
    uint32_t key_count;
    int64_t logged_mono_ms; /* when refusals were last logged */
    uint32_t refusals;      /* since then */
};

typedef struct {
    uint8_t bytes[S_FRAME_BYTES_MAX];
    size_t len;
} s_frame_t;

/* -- the list --------------------------------------------------------------------------------- */

static bool s_changed(dkt_zap_t *self, struct stat *now)
{
    memset(now, 0, sizeof *now);
    if (stat(self->path, now) != 0) {
        memset(now, 0, sizeof *now);
    }
    return atomic_exchange(&self->reload, false) || now->st_ino != self->seen.st_ino ||
           now->st_size != self->seen.st_size || now->st_mtim.tv_sec != self->seen.st_mtim.tv_sec ||
           now->st_mtim.tv_nsec != self->seen.st_mtim.tv_nsec;
}

static void s_refresh(dkt_zap_t *self)
{
    struct stat now;
    if (!s_changed(self, &now)) {
        return;
    }
    dkt_curve_key_t allowed[DKT_ALLOWED_KEYS_MAX];
    uint32_t count = 0;
    dkt_err_t err;
    self->key_count = 0;
    self->seen = now;
    if (dkt_keys_allowed(self->folder, allowed, DKT_ALLOWED_KEYS_MAX, &count, &err) != DKT_OK) {
        dkt_log(DKT_LOG_ERROR, "no internal client is let in: %s", err.text);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (zmq_z85_decode(self->keys[self->key_count], allowed[i].public_key)) {
            self->key_count++;
        }
    }
    dkt_log(DKT_LOG_INFO, "%u internal client keys are allowed", self->key_count);
}

static bool s_is_allowed(dkt_zap_t *self, const s_frame_t *key)
{
    s_refresh(self);
    bool allowed = false;
    for (uint32_t i = 0; key->len == S_CURVE_KEY_BYTES && i < self->key_count; i++) {
        allowed |= sodium_memcmp(self->keys[i], key->bytes, S_CURVE_KEY_BYTES) == 0;
    }
    return allowed;
}

/* -- requests --------------------------------------------------------------------------------- */

static bool s_equals(const s_frame_t *frame, const char *text)
{
    return frame->len == strlen(text) && memcmp(frame->bytes, text, frame->len) == 0;
}

/* Receives one whole request; false if none is there. Frames beyond the last are dropped. */
static bool s_receive(void *socket, s_frame_t *frames, uint32_t *count)
{
    int more = 1;
    size_t more_bytes = sizeof more;
    for (*count = 0; more; (*count)++) {
        s_frame_t spare;
        s_frame_t *frame = *count < S_FRAMES_MAX ? &frames[*count] : &spare;
        int len = zmq_recv(socket, frame->bytes, sizeof frame->bytes, ZMQ_DONTWAIT);
        if (len < 0 || zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &more_bytes) != 0) {
            return false;
        }
        /* A cut frame matches nothing. */
        frame->len = (size_t)len > sizeof frame->bytes ? 0 : (size_t)len;
    }
    return true;
}

static void s_reply(void *socket, const s_frame_t *id, bool granted, const char *user)
{
    zmq_send(socket, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(socket, id->bytes, id->len, ZMQ_SNDMORE);
    zmq_send(socket, granted ? "200" : "400", 3, ZMQ_SNDMORE);
    zmq_send(socket, granted ? "OK" : "no", 2, ZMQ_SNDMORE);
    zmq_send(socket, user, strlen(user), ZMQ_SNDMORE);
    zmq_send(socket, "", 0, 0);
}

static void s_log_refusal(dkt_zap_t *self, const s_frame_t *mechanism, const s_frame_t *address)
{
    int64_t now_mono_ms = dkt_clock_mono_ms();
    self->refusals++;
    if (now_mono_ms - self->logged_mono_ms >= S_LOG_EVERY_MS) {
        dkt_log(DKT_LOG_WARN, "%u internal clients were refused, the last one is %.*s from %.*s",
                self->refusals, (int)mechanism->len, (const char *)mechanism->bytes,
                (int)address->len, (const char *)address->bytes);
        self->logged_mono_ms = now_mono_ms;
        self->refusals = 0;
    }
}

static void s_handle(dkt_zap_t *self)
{
    s_frame_t frames[S_FRAMES_MAX] = {0};
    uint32_t count = 0;
    if (!s_receive(self->socket, frames, &count)) {
        return;
    }
    const s_frame_t *version = &frames[0], *id = &frames[1], *domain = &frames[2];
    const s_frame_t *mechanism = &frames[5], *key = &frames[6];
    bool granted = count == 7 && s_equals(version, "1.0") && s_equals(domain, DKT_ZAP_DOMAIN) &&
                   s_equals(mechanism, "CURVE") && s_is_allowed(self, key);
    char user[2 * S_FINGERPRINT_BYTES + 1] = "";
    if (granted) {
        uint8_t hash[S_FINGERPRINT_BYTES];
        crypto_generichash(hash, sizeof hash, key->bytes, key->len, NULL, 0);
        sodium_bin2hex(user, sizeof user, hash, sizeof hash);
    } else {
        s_log_refusal(self, mechanism, &frames[3]);
    }
    s_reply(self->socket, id, granted, user);
}

static void *s_run(void *arg)
{
    dkt_zap_t *self = arg;
    zmq_pollitem_t items[2] = {{self->control, 0, ZMQ_POLLIN, 0}, {self->socket, 0, ZMQ_POLLIN, 0}};
    /* Ends with the caller's word, or with the context. */
    while (zmq_poll(items, 2, -1) >= 0 && !(items[0].revents & ZMQ_POLLIN)) {
        if (items[1].revents & ZMQ_POLLIN) {
            s_handle(self);
        }
    }
    return NULL;
}

/* -- life cycle ------------------------------------------------------------------------------- */

static void *s_open(void *context, int type, const char *bind_to, const char *connect_to)
{
    int linger_ms = 0;
    void *socket = zmq_socket(context, type);
    if (socket && (zmq_setsockopt(socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms) != 0 ||
                   (bind_to && zmq_bind(socket, bind_to) != 0) ||
                   (connect_to && zmq_connect(socket, connect_to) != 0))) {
        zmq_close(socket);
        return NULL;
    }
    return socket;
}

static void s_free(dkt_zap_t *self)
{
    void *sockets[] = {self->socket, self->control, self->pipe};
    for (size_t i = 0; i < sizeof sockets / sizeof *sockets; i++) {
        if (sockets[i]) {
            zmq_close(sockets[i]);
        }
    }
    free(self);
}

dkt_zap_t *dkt_zap_start(void *context, const char *keys_folder, dkt_err_t *err)
{
    dkt_zap_t *self = calloc(1, sizeof *self);
    if (!self) {
        (void)dkt_fail(err, DKT_INTERNAL, NULL, "no memory for the authenticator");
        return NULL;
    }
    snprintf(self->folder, sizeof self->folder, "%s", keys_folder);
    int len = snprintf(self->path, sizeof self->path, "%s/internal.allowed", keys_folder);
    atomic_init(&self->reload, true);
    self->socket = s_open(context, ZMQ_REP, S_ENDPOINT, NULL);
    self->control = s_open(context, ZMQ_PAIR, S_CONTROL, NULL);
    self->pipe = s_open(context, ZMQ_PAIR, NULL, S_CONTROL);
    if (len < 0 || (size_t)len >= sizeof self->path || !self->socket || !self->control ||
        !self->pipe || pthread_create(&self->thread, NULL, s_run, self) != 0) {
        (void)dkt_fail(err, DKT_INTERNAL, NULL, "the authenticator cannot start: %s",
                       zmq_strerror(zmq_errno()));
        s_free(self);
        return NULL;
    }
    return self;
}

void dkt_zap_reload(dkt_zap_t *self)
{
    atomic_store(&self->reload, true);
}

void dkt_zap_stop(dkt_zap_t **self_p)
{
    dkt_zap_t *self = *self_p;
    if (self) {
        zmq_send(self->pipe, "", 0, 0);
        pthread_join(self->thread, NULL);
        s_free(self);
        *self_p = NULL;
    }
}
