/* SPDX-License-Identifier: Apache-2.0
 *
 * The producer: open calls in a table of slots, sent in batches, ended exactly once.
 *
 *   call     FREE -submit-> QUEUED -sent-> SENT -answer-> FREE
 *                             ^              |  retryable error -> PAUSED -due-> QUEUED
 *                             +---silence----+
 *            any state but FREE ends with silence when its total time is over
 *
 * A msgid is the slot's index + 1 and a generation that grows with each attempt, so that an answer
 * to an earlier attempt of the same call still counts and one to an earlier call never does.
 */
#include "lib/docket.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <zmq.h>

#include "lib/client/frame.h"
#include "lib/client/socket.h"
#include "lib/core/ids.h"
#include "lib/core/limits.h"
#include "lib/core/proto.h"

#define S_SLOT_BITS       13 /* room for DKT_OPEN_PER_CONNECTION_MAX + 1 values */
#define S_GENERATION_MASK ((UINT32_C(1) << (32 - S_SLOT_BITS)) - 1)
#define S_NONE            UINT32_MAX
#define S_MESSAGE_BYTES   262144 /* a batch is cut here: the broker caps memory per connection */
#define S_FRAME_BYTES_MIN 512

_Static_assert(DKT_OPEN_PER_CONNECTION_MAX < (1 << S_SLOT_BITS), "a slot fits into a msgid");

typedef enum { S_FREE, S_QUEUED, S_SENT, S_PAUSED } s_state_t;

typedef struct {
    s_state_t state;
    uint32_t next; /* of the free list or of the queue */
    uint32_t first_generation, generation;
    uint32_t attempts, internals, pause_ms;
    int64_t started_us, due_ms, final_ms;
    dkt_reply_fn *fn;
    void *ctx;
    bool keep; /* the answer is copied: a blocking call */
    uint8_t *frame;
    size_t frame_len, frame_max;
} s_call_t;

struct dkt_producer {
    void *zmq, *socket;
    uint32_t in_flight_max, batch_max, attempt_ms, total_ms;
    char token[DKT_TOKEN_BYTES_MAX];
    s_call_t *calls;
    uint32_t free_head, queue_head, queue_tail, queued, open;
    int64_t scan_due_ms; /* no call is due before */
    int64_t heard_us;    /* when the message or the silence came that ends calls now */
    uint64_t jitter;
    dkt_frame_random_t random;
    size_t ended; /* by the poll that runs */
    uint8_t *kept;
    size_t kept_max;
    dkt_producer_counts_t counts;
};

static int64_t s_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int64_t s_now_ms(void)
{
    return s_now_us() / 1000;
}

/* -- queue and slots ------------------------------------------------------------------------ */

static void s_call_enqueue(dkt_producer_t *self, s_call_t *call)
{
    uint32_t index = (uint32_t)(call - self->calls);
    call->state = S_QUEUED;
    call->due_ms = call->final_ms;
    call->next = S_NONE;
    if (self->queue_head == S_NONE) {
        self->queue_head = index;
    } else {
        self->calls[self->queue_tail].next = index;
    }
    self->queue_tail = index;
    self->queued++;
    if (call->due_ms < self->scan_due_ms) {
        self->scan_due_ms = call->due_ms;
    }
}

/* A queued call that ends leaves its place in the queue; rare, so a walk is good enough. */
static void s_queue_remove(dkt_producer_t *self, uint32_t index)
{
    uint32_t previous = S_NONE, *link = &self->queue_head;
    while (*link != index) {
        previous = *link;
        link = &self->calls[previous].next;
    }
    *link = self->calls[index].next;
    if (self->queue_tail == index) {
        self->queue_tail = previous;
    }
    self->queued--;
}

/* Frees the slot first: the callback may submit at once. */
static void s_call_end(dkt_producer_t *self, s_call_t *call, dkt_reply_t *reply)
{
    uint32_t index = (uint32_t)(call - self->calls);
    assert(call->state != S_FREE && self->open > 0);
    if (call->state == S_QUEUED) {
        s_queue_remove(self, index);
    }
    reply->attempts = call->attempts;
    reply->elapsed_us = (uint64_t)(self->heard_us - call->started_us);
    call->state = S_FREE;
    call->next = self->free_head;
    self->free_head = index;
    self->open--;
    self->ended++;
    if (call->fn) {
        call->fn(call->ctx, reply);
    }
}

static void s_call_end_silent(dkt_producer_t *self, s_call_t *call)
{
    const char *text = call->attempts ? "no answer within the time of this call"
                                      : "no connection to the broker within the time of this call";
    dkt_reply_t reply = {.status = DKT_UNAVAILABLE, .silence = true};
    reply.message = (dkt_text_t){text, strlen(text)};
    s_call_end(self, call, &reply);
}

/* -- sending ---------------------------------------------------------------------------------- */

static void s_call_stamp(dkt_producer_t *self, s_call_t *call)
{
    uint32_t index = (uint32_t)(call - self->calls);
    call->generation = (call->generation + 1) & S_GENERATION_MASK;
    if (call->attempts == 0) {
        call->first_generation = call->generation;
    }
    call->attempts++;
    dkt_frame_set_msgid(call->frame, call->generation << S_SLOT_BITS | (index + 1));
}

/* Sends one message of up to batch_max queued calls; false if the socket takes none now. */
static bool s_send_batch(dkt_producer_t *self)
{
    if (zmq_send(self->socket, "", 0, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0) {
        return false;
    }
    int64_t now_ms = s_now_ms();
    size_t bytes = 0;
    for (uint32_t count = 1;; count++) {
        s_call_t *call = &self->calls[self->queue_head];
        self->queue_head = call->next;
        self->queued--;
        s_call_stamp(self, call);
        call->state = S_SENT;
        int64_t due_ms = now_ms + self->attempt_ms;
        call->due_ms = due_ms < call->final_ms ? due_ms : call->final_ms;
        if (call->due_ms < self->scan_due_ms) {
            self->scan_due_ms = call->due_ms;
        }
        bytes += call->frame_len;
        bool more =
            self->queue_head != S_NONE && count < self->batch_max && bytes < S_MESSAGE_BYTES;
        /* A failure after the delimiter means the connection is gone and with it the message:
         * silence, and the calls are sent again. */
        (void)zmq_send(self->socket, call->frame, call->frame_len,
                       ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0));
        if (!more) {
            return true;
        }
    }
}

static void s_flush(dkt_producer_t *self)
{
    while (self->queue_head != S_NONE && s_send_batch(self)) {
    }
}

/* -- answers ---------------------------------------------------------------------------------- */

/* The open call that a msgid belongs to, NULL if there is none. */
static s_call_t *s_call_find(dkt_producer_t *self, uint32_t msgid, bool *current)
{
    uint32_t slot = msgid & ((UINT32_C(1) << S_SLOT_BITS) - 1);
    if (slot == 0 || slot > self->in_flight_max) {
        return NULL;
    }
    s_call_t *call = &self->calls[slot - 1];
    if (call->state == S_FREE || call->attempts == 0) {
        return NULL;
    }
    uint32_t age = (call->generation - (msgid >> S_SLOT_BITS)) & S_GENERATION_MASK;
    uint32_t oldest = (call->generation - call->first_generation) & S_GENERATION_MASK;
    *current = age == 0;
    return age <= oldest ? call : NULL;
}

/* A pause of one to one and a half times the wished one, so that calls spread. */
static int64_t s_jitter(dkt_producer_t *self, int64_t pause_ms)
{
    self->jitter ^= self->jitter << 13;
    self->jitter ^= self->jitter >> 7;
    self->jitter ^= self->jitter << 17;
    return pause_ms + (int64_t)(self->jitter % (uint64_t)(pause_ms / 2 + 1));
}

/* True if the call will be sent again instead of ending with this error. */
static bool s_call_pause(dkt_producer_t *self, s_call_t *call, const dkt_answer_t *answer)
{
    dkt_retry_t retry = dkt_status_retry(answer->status);
    if (retry != DKT_RETRY_SAME && retry != DKT_RETRY_FIND) {
        return false;
    }
    if (answer->status == DKT_INTERNAL && ++call->internals >= DKT_PRODUCER_INTERNAL_MAX) {
        return false;
    }
    int64_t pause_ms = answer->retry_after_ms;
    if (pause_ms == 0) {
        pause_ms = call->pause_ms;
        call->pause_ms = call->pause_ms * 2 < DKT_PRODUCER_BACKOFF_MAX_MS
                             ? call->pause_ms * 2
                             : DKT_PRODUCER_BACKOFF_MAX_MS;
    }
    int64_t due_ms = s_now_ms() + s_jitter(self, pause_ms);
    if (due_ms >= call->final_ms) {
        return false;
    }
    call->state = S_PAUSED;
    call->due_ms = due_ms;
    if (due_ms < self->scan_due_ms) {
        self->scan_due_ms = due_ms;
    }
    self->counts.retries++;
    return true;
}

/* Copies the frame of a blocking call, because its caller reads it after poll. */
static bool s_keep(dkt_producer_t *self, const uint8_t *bytes, size_t len, dkt_answer_t *answer)
{
    dkt_err_t err;
    if (len > self->kept_max) {
        uint8_t *kept = realloc(self->kept, len);
        if (!kept) {
            return false;
        }
        self->kept = kept;
        self->kept_max = len;
    }
    memcpy(self->kept, bytes, len);
    return dkt_answer_decode(self->kept, len, answer, &err) == DKT_OK;
}

static void s_take_answer(dkt_producer_t *self, const uint8_t *bytes, size_t len)
{
    dkt_err_t err;
    dkt_answer_t answer;
    if (dkt_answer_decode(bytes, len, &answer, &err) != DKT_OK) {
        self->counts.garbage++;
        return;
    }
    bool current = false;
    s_call_t *call = s_call_find(self, answer.msgid, &current);
    if (!call) {
        self->counts.strays++;
        return;
    }
    if (answer.status != DKT_OK && dkt_status_retry(answer.status) != DKT_RETRY_NO) {
        /* A late retryable error says nothing about the attempt that is under way. */
        if (!current || call->state != S_SENT) {
            self->counts.strays++;
            return;
        }
        if (s_call_pause(self, call, &answer)) {
            return;
        }
    }
    if (call->keep && !s_keep(self, bytes, len, &answer)) {
        s_call_end_silent(self, call);
        return;
    }
    self->counts.answers++;
    dkt_reply_t reply = dkt_reply_of(&answer);
    s_call_end(self, call, &reply);
}

/* One message: an empty delimiter, then answers. False when there is none. */
static bool s_receive_message(dkt_producer_t *self)
{
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    bool first = true, sound = false, any = false;
    while (zmq_msg_recv(&frame, self->socket, ZMQ_DONTWAIT) >= 0) {
        any = true;
        if (first) {
            self->heard_us = s_now_us();
            sound = zmq_msg_size(&frame) == 0;
            self->counts.garbage += !sound;
        } else if (sound) {
            s_take_answer(self, zmq_msg_data(&frame), zmq_msg_size(&frame));
        }
        first = false;
        if (!zmq_msg_more(&frame)) {
            break;
        }
    }
    zmq_msg_close(&frame);
    return any;
}

/* -- time ------------------------------------------------------------------------------------- */

static void s_call_due(dkt_producer_t *self, s_call_t *call, int64_t now_ms)
{
    if (call->state == S_SENT) {
        self->counts.silences++;
    }
    if (now_ms >= call->final_ms) {
        s_call_end_silent(self, call);
        return;
    }
    if (call->state == S_SENT) {
        self->counts.retries++;
    }
    s_call_enqueue(self, call);
}

/* Looks at every call, but only when the earliest of them can be due. */
static void s_scan(dkt_producer_t *self, int64_t now_ms)
{
    if (now_ms < self->scan_due_ms) {
        return;
    }
    self->scan_due_ms = INT64_MAX;
    for (uint32_t i = 0; i < self->in_flight_max; i++) {
        s_call_t *call = &self->calls[i];
        if (call->state != S_FREE && call->due_ms <= now_ms) {
            s_call_due(self, call, now_ms);
        }
        if (call->state != S_FREE && call->due_ms < self->scan_due_ms) {
            self->scan_due_ms = call->due_ms;
        }
    }
}

static size_t s_work(dkt_producer_t *self)
{
    self->ended = 0;
    s_flush(self);
    uint32_t left = DKT_PRODUCER_DRAIN_MAX;
    while (left-- > 0 && self->ended < self->batch_max && s_receive_message(self)) {
    }
    self->heard_us = s_now_us();
    s_scan(self, self->heard_us / 1000);
    s_flush(self);
    return self->ended;
}

size_t dkt_producer_poll_all(dkt_producer_t **list, size_t count, int timeout_ms)
{
    assert(count >= 1 && count <= DKT_PRODUCERS_MAX);
    int64_t end_ms = s_now_ms() + (timeout_ms > 0 ? timeout_ms : 0);
    for (;;) {
        size_t ended = 0;
        int64_t wake_ms = end_ms;
        zmq_pollitem_t items[DKT_PRODUCERS_MAX] = {0};
        for (size_t i = 0; i < count; i++) {
            ended += s_work(list[i]);
        }
        int64_t now_ms = s_now_ms();
        if (ended > 0 || now_ms >= end_ms) {
            return ended;
        }
        for (size_t i = 0; i < count; i++) {
            short out = list[i]->queue_head != S_NONE ? ZMQ_POLLOUT : 0;
            items[i] =
                (zmq_pollitem_t){.socket = list[i]->socket, .events = (short)(ZMQ_POLLIN | out)};
            wake_ms = list[i]->scan_due_ms < wake_ms ? list[i]->scan_due_ms : wake_ms;
        }
        long wait_ms = wake_ms > now_ms ? (long)(wake_ms - now_ms) : 1;
        if (zmq_poll(items, (int)count, wait_ms) < 0 && errno == EINTR) {
            return 0; /* the caller's signal: it decides */
        }
    }
}

size_t dkt_producer_poll(dkt_producer_t *self, int timeout_ms)
{
    return dkt_producer_poll_all(&self, 1, timeout_ms);
}

/* -- calls ------------------------------------------------------------------------------------ */

static dkt_status_t s_frame_fill(s_call_t *call, const dkt_frame_call_t *from)
{
    size_t want = dkt_frame_bytes(from);
    if (want > DKT_FRAME_BYTES_MAX) {
        return DKT_INVALID_ARGUMENT;
    }
    if (want > call->frame_max) {
        size_t max = want > S_FRAME_BYTES_MIN ? want : S_FRAME_BYTES_MIN;
        uint8_t *frame = realloc(call->frame, max);
        if (!frame) {
            return DKT_OVERLOADED;
        }
        call->frame = frame;
        call->frame_max = max;
    }
    call->frame_len = dkt_frame_encode(from, call->frame, call->frame_max);
    return call->frame_len ? DKT_OK : DKT_INVALID_ARGUMENT;
}

static dkt_status_t s_submit(dkt_producer_t *self, const dkt_frame_call_t *from, dkt_reply_fn *fn,
                             void *ctx, bool keep)
{
    if (self->free_head == S_NONE) {
        return DKT_OVERLOADED;
    }
    s_call_t *call = &self->calls[self->free_head];
    dkt_status_t status = s_frame_fill(call, from);
    if (status != DKT_OK) {
        return status;
    }
    self->free_head = call->next;
    self->open++;
    self->counts.calls++;
    call->started_us = s_now_us();
    call->final_ms = call->started_us / 1000 + self->total_ms;
    call->attempts = call->internals = 0;
    call->pause_ms = DKT_PRODUCER_BACKOFF_MIN_MS;
    call->fn = fn;
    call->ctx = ctx;
    call->keep = keep;
    s_call_enqueue(self, call);
    /* A full message gains nothing by waiting; if the socket takes none now, a poll sends it. */
    if (self->queued >= self->batch_max) {
        (void)s_send_batch(self);
    }
    return DKT_OK;
}

static dkt_frame_call_t s_frame_call(dkt_producer_t *self, const char *method,
                                     const dkt_arg_t *args, size_t arg_count,
                                     const uint8_t *request_id)
{
    return (dkt_frame_call_t){
        .method = method,
        .args = args,
        .arg_count = arg_count,
        .token = self->token[0] ? self->token : NULL,
        .request_id = request_id,
        .random = &self->random,
        .budget_ms = self->attempt_ms,
    };
}

dkt_status_t dkt_producer_submit(dkt_producer_t *self, const char *method, const dkt_arg_t *args,
                                 size_t arg_count, const uint8_t *request_id, dkt_reply_fn *fn,
                                 void *ctx)
{
    dkt_frame_call_t from = s_frame_call(self, method, args, arg_count, request_id);
    return s_submit(self, &from, fn, ctx, false);
}

typedef struct {
    dkt_reply_t *reply;
    bool done;
} s_waiter_t;

static void s_waiter_done(void *ctx, const dkt_reply_t *reply)
{
    s_waiter_t *waiter = ctx;
    *waiter->reply = *reply;
    waiter->done = true;
}

dkt_status_t dkt_producer_call(dkt_producer_t *self, const char *method, const dkt_arg_t *args,
                               size_t arg_count, const uint8_t *request_id, dkt_reply_t *reply)
{
    s_waiter_t waiter = {.reply = reply};
    dkt_frame_call_t from = s_frame_call(self, method, args, arg_count, request_id);
    *reply = (dkt_reply_t){0};
    reply->status = s_submit(self, &from, s_waiter_done, &waiter, true);
    if (reply->status != DKT_OK) {
        const char *text = dkt_status_text(reply->status);
        reply->message = (dkt_text_t){text, strlen(text)};
        return reply->status;
    }
    while (!waiter.done) { /* bounded by the call's total time */
        dkt_producer_poll(self, (int)self->total_ms);
    }
    return reply->status;
}

/* -- life ------------------------------------------------------------------------------------- */

static uint32_t s_or(uint32_t value, uint32_t otherwise, uint32_t max)
{
    value = value ? value : otherwise;
    return value < max ? value : max;
}

static dkt_status_t s_init(dkt_producer_t *self, const dkt_producer_options_t *options,
                           dkt_err_t *err)
{
    self->in_flight_max =
        s_or(options->in_flight_max, DKT_PRODUCER_IN_FLIGHT_DEFAULT, DKT_OPEN_PER_CONNECTION_MAX);
    self->batch_max =
        s_or(options->batch_max, DKT_FRAMES_PER_MESSAGE_MAX, DKT_FRAMES_PER_MESSAGE_MAX);
    self->attempt_ms = s_or(options->attempt_ms, DKT_PRODUCER_ATTEMPT_MS, DKT_BUDGET_MAX_MS);
    self->total_ms = s_or(options->total_ms, DKT_PRODUCER_TOTAL_MS, INT32_MAX);
    self->queue_head = self->queue_tail = S_NONE;
    self->scan_due_ms = INT64_MAX;
    self->calls = calloc(self->in_flight_max, sizeof *self->calls);
    self->zmq = zmq_ctx_new();
    if (!self->calls || !self->zmq) {
        return dkt_fail(err, DKT_UNAVAILABLE, NULL, "no memory");
    }
    for (uint32_t i = 0; i < self->in_flight_max; i++) {
        self->calls[i].next = i + 1 < self->in_flight_max ? i + 1 : S_NONE;
    }
    if (getrandom(&self->jitter, sizeof self->jitter, 0) != sizeof self->jitter ||
        self->jitter == 0) {
        self->jitter = 1;
    }
    if (dkt_producer_set_token(self, options->token) != DKT_OK) {
        return dkt_fail(err, DKT_INVALID_ARGUMENT, "token", "the token is too long");
    }
    self->socket = dkt_socket_open(self->zmq, options, err);
    return self->socket ? DKT_OK : err ? err->status : DKT_UNAVAILABLE;
}

dkt_producer_t *dkt_producer_new(const dkt_producer_options_t *options, dkt_err_t *err)
{
    assert(options && options->endpoint);
    dkt_producer_t *self = calloc(1, sizeof *self);
    if (!self) {
        (void)dkt_fail(err, DKT_UNAVAILABLE, NULL, "no memory");
        return NULL;
    }
    if (s_init(self, options, err) != DKT_OK) {
        dkt_producer_destroy(&self);
    }
    return self;
}

void dkt_producer_destroy(dkt_producer_t **self_p)
{
    dkt_producer_t *self = *self_p;
    *self_p = NULL;
    if (!self) {
        return;
    }
    if (self->socket) {
        zmq_close(self->socket);
    }
    if (self->zmq) {
        zmq_ctx_term(self->zmq);
    }
    for (uint32_t i = 0; self->calls && i < self->in_flight_max; i++) {
        free(self->calls[i].frame);
    }
    free(self->calls);
    free(self->kept);
    free(self);
}

dkt_status_t dkt_producer_set_token(dkt_producer_t *self, const char *token)
{
    size_t len = token ? strlen(token) : 0;
    if (len >= sizeof self->token) {
        return DKT_INVALID_ARGUMENT;
    }
    memcpy(self->token, token ? token : "", len + 1);
    return DKT_OK;
}

size_t dkt_producer_open(const dkt_producer_t *self)
{
    return self->open;
}

dkt_producer_counts_t dkt_producer_counts(const dkt_producer_t *self)
{
    return self->counts;
}
