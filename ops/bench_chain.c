/* SPDX-License-Identifier: Apache-2.0
 *
 * docket bench chain: what the sockets and threads of a fleet cost when they only echo. The same
 * hops, the same batches, no work:
 *
 *   producer DEALER -- ROUTER broker ROUTER -- DEALER node -- mailbox -- actor, and back
 *
 * Each of the three has a context of its own, as three processes have. With CURVE on the producer's
 * side it is the peer of what goes through the internal endpoint.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "lib/core/limits.h"
#include "lib/edge/mailbox.h"
#include "ops/bench_cpu.h"
#include "ops/bench_peers.h"
#include "ops/cmd.h"
#include "ops/result.h"

#define S_FRAME_MIN     16
#define S_IN_FLIGHT     1000
#define S_SECONDS_MAX   3600
#define S_POLL_MS       20
#define S_WARM_UP_MS    1000
#define S_DRAIN_US      5000000
#define S_SECOND_US     1000000
#define S_KEY_BYTES     41 /* Z85 and its end */
#define S_ADDRESS_BYTES 64
#define S_ID_BYTES_MAX  256
#define S_ROUND_MAX     64
#define S_P50           5000
#define S_P99           9900

/* A request inside the worker. */
typedef struct {
    dkt_mail_t mail;
    uint8_t bytes[];
} s_mail_t;

typedef struct {
    const dkt_chain_plan_t *plan;
    dkt_peer_result_t *result;
    int in_flight, bytes;
    char public_address[S_ADDRESS_BYTES], workers_address[S_ADDRESS_BYTES];
    void *contexts[3], *client, *public_socket, *workers_socket, *node;
    dkt_mailbox_t *node_box, *actor_box;
    atomic_bool over;
} s_chain_t;

enum { S_CLIENT, S_BROKER, S_NODE };

/* -- broker ----------------------------------------------------------------------------------- */

typedef struct {
    uint8_t id[S_ID_BYTES_MAX];
    size_t id_len, len;
    uint8_t bytes[DKT_LINK_BYTES_MAX];
} s_batch_t;

/* Everything a socket has, its frames one behind the other; who sent it last. */
static void s_gather(const s_chain_t *self, void *socket, s_batch_t *batch)
{
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    batch->len = 0;
    for (int i = 0;
         i < S_ROUND_MAX && batch->len < DKT_FRAMES_PER_MESSAGE_MAX * (size_t)self->bytes; i++) {
        int got = zmq_recv(socket, batch->id, sizeof batch->id, ZMQ_DONTWAIT);
        if (got < 0) {
            break;
        }
        batch->id_len = (size_t)got;
        do {
            if (zmq_msg_recv(&frame, socket, 0) < 0) {
                break;
            }
            size_t len = zmq_msg_size(&frame);
            if (len % (size_t)self->bytes == 0 && len <= sizeof batch->bytes - batch->len) {
                memcpy(batch->bytes + batch->len, zmq_msg_data(&frame), len);
                batch->len += len;
            }
        } while (zmq_msg_more(&frame));
    }
    zmq_msg_close(&frame);
}

static void s_scatter(const s_chain_t *self, const s_batch_t *to, const s_batch_t *batch)
{
    size_t count = 0;
    for (size_t at = 0; at < batch->len; at += (size_t)self->bytes) {
        if (count == 0) {
            zmq_send(self->public_socket, to->id, to->id_len, ZMQ_SNDMORE);
            zmq_send(self->public_socket, "", 0, ZMQ_SNDMORE);
        }
        bool last = ++count == DKT_FRAMES_PER_MESSAGE_MAX || at + (size_t)self->bytes == batch->len;
        zmq_send(self->public_socket, batch->bytes + at, (size_t)self->bytes,
                 last ? 0 : ZMQ_SNDMORE);
        count = last ? 0 : count;
    }
}

static void *s_broker(void *arg)
{
    static s_batch_t requests, answers;
    s_chain_t *self = arg;
    answers.id_len = 0;                             /* an earlier run's node is gone */
    s_gather(self, self->workers_socket, &answers); /* may be the node's first word already */
    while (!atomic_load(&self->over)) {
        zmq_pollitem_t items[] = {{self->workers_socket, 0, ZMQ_POLLIN, 0},
                                  {self->public_socket, 0, ZMQ_POLLIN, 0}};
        zmq_poll(items, answers.id_len ? 2 : 1, S_POLL_MS);
        s_gather(self, self->workers_socket, &answers);
        if (answers.id_len) {
            s_gather(self, self->public_socket, &requests);
        }
        if (requests.len > 0) {
            zmq_send(self->workers_socket, answers.id, answers.id_len, ZMQ_SNDMORE);
            zmq_send(self->workers_socket, requests.bytes, requests.len, 0);
        }
        s_scatter(self, &requests, &answers);
    }
    return NULL;
}

/* -- worker ----------------------------------------------------------------------------------- */

static void s_node_read(s_chain_t *self)
{
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    for (int i = 0; i < S_ROUND_MAX && zmq_msg_recv(&frame, self->node, ZMQ_DONTWAIT) >= 0; i++) {
        const uint8_t *bytes = zmq_msg_data(&frame);
        for (size_t at = 0; at < zmq_msg_size(&frame); at += (size_t)self->bytes) {
            s_mail_t *mail = malloc(sizeof *mail + (size_t)self->bytes);
            if (!mail) {
                abort();
            }
            memcpy(mail->bytes, bytes + at, (size_t)self->bytes);
            if (!dkt_mailbox_push(self->actor_box, &mail->mail)) {
                abort(); /* it is larger than all that can be in flight */
            }
        }
    }
    zmq_msg_close(&frame);
}

static void *s_node_loop(void *arg)
{
    static uint8_t out[DKT_LINK_BYTES_MAX];
    s_chain_t *self = arg;
    zmq_send(self->node, "", 0, 0); /* hello: now the broker knows the way */
    while (!atomic_load(&self->over)) {
        zmq_pollitem_t items[] = {{self->node, 0, ZMQ_POLLIN, 0},
                                  {NULL, dkt_mailbox_fd(self->node_box), ZMQ_POLLIN, 0}};
        zmq_poll(items, 2, S_POLL_MS);
        s_node_read(self);
        size_t len = 0;
        dkt_mail_t *mail = dkt_mailbox_drain(self->node_box);
        while (mail) {
            dkt_mail_t *next = mail->next;
            memcpy(out + len, ((s_mail_t *)mail)->bytes, (size_t)self->bytes);
            len += (size_t)self->bytes;
            free(mail);
            mail = next;
        }
        if (len > 0) {
            zmq_send(self->node, out, len, 0);
        }
    }
    return NULL;
}

static void *s_actor_loop(void *arg)
{
    s_chain_t *self = arg;
    while (!atomic_load(&self->over)) {
        struct pollfd item = {.fd = dkt_mailbox_fd(self->actor_box), .events = POLLIN};
        poll(&item, 1, S_POLL_MS);
        if (!dkt_mailbox_push_list(self->node_box, dkt_mailbox_drain(self->actor_box))) {
            abort();
        }
    }
    return NULL;
}

/* -- producer --------------------------------------------------------------------------------- */

/* A request is the time it was made at, and filling. */
static void s_ask(s_chain_t *self, int count)
{
    uint8_t bytes[DKT_FRAME_BYTES_MAX] = {0};
    while (count > 0) {
        int batch = count < DKT_FRAMES_PER_MESSAGE_MAX ? count : DKT_FRAMES_PER_MESSAGE_MAX;
        count -= batch;
        zmq_send(self->client, "", 0, ZMQ_SNDMORE);
        for (; batch > 0; batch--) {
            int64_t now_us = dkt_mono_us();
            memcpy(bytes, &now_us, sizeof now_us);
            zmq_send(self->client, bytes, (size_t)self->bytes, batch > 1 ? ZMQ_SNDMORE : 0);
        }
    }
}

/* Takes what has come; returns how many answers that were. */
static int s_take(s_chain_t *self, bool counting)
{
    int count = 0;
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    while (count < DKT_FRAMES_PER_MESSAGE_MAX &&
           zmq_msg_recv(&frame, self->client, ZMQ_DONTWAIT) >= 0) {
        int64_t sent_us;
        if (zmq_msg_size(&frame) < sizeof sent_us) {
            continue; /* the delimiter */
        }
        memcpy(&sent_us, zmq_msg_data(&frame), sizeof sent_us);
        count++;
        if (counting) {
            dkt_histogram_add(&self->result->latency, (uint64_t)(dkt_mono_us() - sent_us));
        }
    }
    zmq_msg_close(&frame);
    return count;
}

static void s_drive(s_chain_t *self)
{
    const dkt_chain_plan_t *plan = self->plan;
    dkt_peer_result_t *result = self->result;
    dkt_bench_cpu_t before = {0}, after;
    int64_t start_us = dkt_mono_us(), from_us = start_us + plan->warm_up_ms * 1000;
    int64_t end_us = from_us + plan->run_ms * 1000;
    bool counting = false;
    s_ask(self, self->in_flight);
    for (int64_t now_us = start_us; now_us < end_us && !(plan->stopped && plan->stopped());
         now_us = dkt_mono_us()) {
        if (!counting && now_us >= from_us) {
            counting = true;
            from_us = now_us;
            dkt_bench_cpu_read(0, &before);
        }
        zmq_pollitem_t item = {self->client, 0, ZMQ_POLLIN, 0};
        zmq_poll(&item, 1, S_POLL_MS);
        int count = s_take(self, counting);
        result->answers += counting ? (uint64_t)count : 0;
        s_ask(self, count);
    }
    dkt_bench_cpu_read(0, &after);
    if (result->answers > 0) {
        result->cpu_us = (after.us[DKT_BENCH_CPU_BENCH] - before.us[DKT_BENCH_CPU_BENCH]) /
                         (double)result->answers;
        result->seconds = (double)(dkt_mono_us() - from_us) / S_SECOND_US;
        result->per_s = (double)result->answers / result->seconds;
    }
    /* A connection that ends in the midst of a message can end the process inside libzmq. */
    int open = self->in_flight;
    end_us = dkt_mono_us() + S_DRAIN_US;
    while (open > 0 && dkt_mono_us() < end_us) {
        zmq_pollitem_t item = {self->client, 0, ZMQ_POLLIN, 0};
        zmq_poll(&item, 1, S_POLL_MS);
        open -= s_take(self, false);
    }
}

/* -- life ------------------------------------------------------------------------------------- */

static void *s_socket(void *context, int type)
{
    int none = 0;
    void *socket = zmq_socket(context, type);
    if (socket) {
        zmq_setsockopt(socket, ZMQ_SNDHWM, &none, sizeof none);
        zmq_setsockopt(socket, ZMQ_RCVHWM, &none, sizeof none);
        zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof none);
    }
    return socket;
}

static bool s_bind(void *socket, char address[S_ADDRESS_BYTES])
{
    size_t len = S_ADDRESS_BYTES;
    return socket && zmq_bind(socket, "tcp://127.0.0.1:*") == 0 &&
           zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, address, &len) == 0;
}

/* No key is refused without a handler of them: here they cost what they cost, and guard nothing. */
static bool s_set_curve(s_chain_t *self)
{
    char server[2][S_KEY_BYTES], client[2][S_KEY_BYTES];
    int one = 1;
    return zmq_curve_keypair(server[0], server[1]) == 0 &&
           zmq_curve_keypair(client[0], client[1]) == 0 &&
           zmq_setsockopt(self->public_socket, ZMQ_CURVE_SERVER, &one, sizeof one) == 0 &&
           zmq_setsockopt(self->public_socket, ZMQ_CURVE_SECRETKEY, server[1], S_KEY_BYTES) == 0 &&
           zmq_setsockopt(self->client, ZMQ_CURVE_SERVERKEY, server[0], S_KEY_BYTES) == 0 &&
           zmq_setsockopt(self->client, ZMQ_CURVE_PUBLICKEY, client[0], S_KEY_BYTES) == 0 &&
           zmq_setsockopt(self->client, ZMQ_CURVE_SECRETKEY, client[1], S_KEY_BYTES) == 0;
}

static bool s_open(s_chain_t *self)
{
    for (int i = 0; i < 3; i++) {
        self->contexts[i] = zmq_ctx_new();
    }
    self->public_socket = s_socket(self->contexts[S_BROKER], ZMQ_ROUTER);
    self->workers_socket = s_socket(self->contexts[S_BROKER], ZMQ_ROUTER);
    self->client = s_socket(self->contexts[S_CLIENT], ZMQ_DEALER);
    self->node = s_socket(self->contexts[S_NODE], ZMQ_DEALER);
    self->node_box = dkt_mailbox_new(DKT_OPEN_PER_CONNECTION_MAX);
    self->actor_box = dkt_mailbox_new(DKT_OPEN_PER_CONNECTION_MAX);
    return self->node_box && self->actor_box && self->client && self->node && self->public_socket &&
           (!self->plan->curve || s_set_curve(self)) &&
           s_bind(self->public_socket, self->public_address) &&
           s_bind(self->workers_socket, self->workers_address) &&
           zmq_connect(self->client, self->public_address) == 0 &&
           zmq_connect(self->node, self->workers_address) == 0;
}

static void s_close(s_chain_t *self)
{
    void *sockets[] = {self->client, self->public_socket, self->workers_socket, self->node};
    dkt_mailbox_t *boxes[] = {self->node_box, self->actor_box};
    for (size_t i = 0; i < sizeof sockets / sizeof sockets[0]; i++) {
        if (sockets[i]) {
            zmq_close(sockets[i]);
        }
    }
    for (int i = 0; i < 3; i++) {
        zmq_ctx_term(self->contexts[i]);
    }
    for (size_t i = 0; i < 2; i++) {
        dkt_mail_t *mail = boxes[i] ? dkt_mailbox_drain(boxes[i]) : NULL;
        while (mail) {
            dkt_mail_t *next = mail->next;
            free(mail);
            mail = next;
        }
        dkt_mailbox_destroy(&boxes[i]);
    }
}

bool dkt_chain_run(const dkt_chain_plan_t *plan, dkt_peer_result_t *result)
{
    void *(*const loops[])(void *) = {s_broker, s_node_loop, s_actor_loop};
    s_chain_t self = {
        .plan = plan, .result = result, .in_flight = plan->in_flight, .bytes = plan->bytes};
    pthread_t threads[3];
    int started = 0;
    memset(result, 0, sizeof *result);
    bool ok = s_open(&self);
    while (ok && started < 3) {
        ok = pthread_create(&threads[started], NULL, loops[started], &self) == 0;
        started += ok;
    }
    if (ok) {
        s_drive(&self);
    }
    atomic_store(&self.over, true);
    for (int i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
    }
    s_close(&self);
    return ok && result->answers > 0;
}

/* -- the command ------------------------------------------------------------------------------ */

typedef struct {
    int seconds, in_flight, bytes;
    bool json, curve;
} s_options_t;

static void s_report(const s_options_t *options, const dkt_peer_result_t *result)
{
    unsigned long long p50_us = dkt_histogram_at(&result->latency, S_P50);
    unsigned long long p99_us = dkt_histogram_at(&result->latency, S_P99);
    if (options->json) {
        printf("{\"bench\": \"chain\", \"in_flight\": %d, \"bytes\": %d, \"curve\": %s, "
               "\"seconds\": %.3f, \"per_s\": %.1f, \"cpu_us\": %.3f, \"p50_us\": %llu, "
               "\"p99_us\": %llu}\n",
               options->in_flight, options->bytes, options->curve ? "true" : "false",
               result->seconds, result->per_s, result->cpu_us, p50_us, p99_us);
        return;
    }
    printf("a bare chain that echoes %d bytes, %d in flight%s\n%12.0f requests/s over %.1f s\n"
           "%12.3f ms p50\n%12.3f ms p99\nCPU us per request: %.2f\n",
           options->bytes, options->in_flight, options->curve ? ", CURVE" : "", result->per_s,
           result->seconds, (double)p50_us / 1000.0, (double)p99_us / 1000.0, result->cpu_us);
}

static void s_usage(FILE *out)
{
    fprintf(out,
            "usage: docket bench chain [--seconds N] [--in-flight N] [--bytes N] [--curve] "
            "[--json]\n"
            "Requests per second and latency of the fleet's sockets and threads when they only\n"
            "echo: N seconds after one of warm-up (default 10), N requests in flight (default\n"
            "%d), N bytes each (default %d); --curve encrypts the producer's side.\n",
            S_IN_FLIGHT, DKT_CHAIN_BYTES);
}

/* 0: go on; 1: wrong; 2: help was asked for. */
static int s_parse(int argc, char **argv, s_options_t *self)
{
    const struct {
        const char *word;
        int *number;
        int min, max;
    } numbers[] = {{"--seconds", &self->seconds, 1, S_SECONDS_MAX},
                   {"--in-flight", &self->in_flight, 1, DKT_OPEN_PER_CONNECTION_MAX / 2},
                   {"--bytes", &self->bytes, S_FRAME_MIN, DKT_FRAME_BYTES_MAX / 16}};
    for (int i = 1; i < argc; i++) {
        bool json = strcmp(argv[i], "--json") == 0, curve = strcmp(argv[i], "--curve") == 0;
        bool known = json || curve;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            return 2;
        }
        self->json |= json;
        self->curve |= curve;
        for (size_t n = 0; !known && i + 1 < argc && n < 3; n++) {
            if (strcmp(argv[i], numbers[n].word) == 0) {
                int value = atoi(argv[++i]);
                *numbers[n].number = value;
                known = value >= numbers[n].min && value <= numbers[n].max;
                break;
            }
        }
        if (!known) {
            fprintf(stderr, "docket bench chain: unknown, incomplete or wrong: %s\n", argv[i]);
            return 1;
        }
    }
    return 0;
}

int dkt_bench_chain_main(int argc, char **argv)
{
    static dkt_peer_result_t result; /* its histogram is large */
    s_options_t options = {.seconds = 10, .in_flight = S_IN_FLIGHT, .bytes = DKT_CHAIN_BYTES};
    int parsed = s_parse(argc, argv, &options);
    if (parsed != 0) {
        s_usage(parsed == 2 ? stdout : stderr);
        return parsed == 2 ? 0 : 2;
    }
    const dkt_chain_plan_t plan = {.in_flight = options.in_flight,
                                   .bytes = options.bytes,
                                   .curve = options.curve,
                                   .warm_up_ms = S_WARM_UP_MS,
                                   .run_ms = (int64_t)options.seconds * 1000};
    if (!dkt_chain_run(&plan, &result)) {
        fprintf(stderr, "docket bench chain: nothing was measured: %s\n", zmq_strerror(errno));
        return 1;
    }
    s_report(&options, &result);
    return 0;
}
