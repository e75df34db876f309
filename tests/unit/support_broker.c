/* SPDX-License-Identifier: Apache-2.0 */
#include "support_broker.h"

#include <arpa/inet.h>
#include <assert.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "brokers/broker.h"
#include "lib/edge/clock.h"

#define S_FRAME_BYTES 4096

/* -- the broker ------------------------------------------------------------------------------- */

static void s_free_address(char *address)
{
    struct sockaddr_in where = {.sin_family = AF_INET};
    socklen_t len = sizeof where;
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int failed = bind(fd, (struct sockaddr *)&where, sizeof where);
    failed |= getsockname(fd, (struct sockaddr *)&where, &len);
    assert(fd >= 0 && !failed);
    close(fd);
    snprintf(address, FLEET_TEXT_BYTES, "tcp://127.0.0.1:%d", ntohs(where.sin_port));
}

static void s_make_tenant(fleet_t *fleet)
{
    static const uint8_t seed[DKT_TOKEN_SEED_BYTES] = {3}, random[7] = {1, 2, 3};
    dkt_id_text_t text;
    fleet->ring = (dkt_keyring_t){.count = 1, .keys = {{.kid = 1}}};
    dkt_token_keys(1, seed, &fleet->token_secret, &fleet->token_public);
    fleet->client = dkt_client_make(&fleet->ring, random);
    dkt_client_text(&fleet->client, &text);
    memcpy(fleet->client_id, text.text, sizeof fleet->client_id);
    int64_t now_ms = dkt_clock_unix_ms() / 1000 * 1000;
    dkt_claims_t claims = {
        .client = fleet->client, .issued_ms = now_ms, .expires_ms = now_ms + 900000};
    dkt_token_sign(&fleet->token_secret, &claims, fleet->token);
}

void fleet_start(fleet_t *fleet, bool insecure_dev)
{
    memset(fleet, 0, sizeof *fleet);
    int fds[2];
    dkt_err_t err;
    snprintf(fleet->folder, sizeof fleet->folder, "/tmp/docket-broker-XXXXXX");
    bool made = mkdtemp(fleet->folder) && pipe(fds) == 0;
    dkt_status_t status = dkt_keys_create(fleet->folder, &err);
    assert(made && status == DKT_OK);
    s_free_address(fleet->public_address);
    s_free_address(fleet->internal_address);
    s_free_address(fleet->workers_address);
    s_make_tenant(fleet);
    fleet->pid = fork();
    assert(fleet->pid >= 0);
    if (fleet->pid == 0) {
        char ready[16];
        snprintf(ready, sizeof ready, "%d", fds[1]);
        setenv("DOCKET_LOG", "error", 0);
        char *argv[] = {"broker",
                        "--public",
                        fleet->public_address,
                        "--internal",
                        fleet->internal_address,
                        "--workers",
                        fleet->workers_address,
                        "--keys",
                        fleet->folder,
                        "--node",
                        "broker-0",
                        "--ready-fd",
                        ready,
                        insecure_dev ? "--insecure-dev" : NULL,
                        NULL};
        _exit(dkt_broker_main(insecure_dev ? 14 : 13, argv));
    }
    close(fds[1]);
    fleet->ready_fd = fds[0];
    fleet->context = zmq_ctx_new();
}

bool fleet_is_ready(fleet_t *fleet, int wait_ms)
{
    struct pollfd item = {.fd = fleet->ready_fd, .events = POLLIN};
    char text[16] = "";
    return poll(&item, 1, wait_ms) == 1 && read(fleet->ready_fd, text, sizeof text) == 6 &&
           memcmp(text, "ready\n", 6) == 0;
}

static void s_remove_folder(const char *folder)
{
    char command[2 * FLEET_TEXT_BYTES];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    int ignored = system(command);
    (void)ignored;
}

int fleet_stop(fleet_t *fleet)
{
    if (fleet->has_worker) {
        atomic_store(&fleet->worker_stop, true);
        pthread_join(fleet->worker, NULL);
    }
    kill(fleet->pid, SIGTERM);
    int status = 0;
    int64_t until_ms = dkt_clock_mono_ms() + FLEET_WAIT_MS;
    pid_t ended = 0;
    while (ended == 0 && dkt_clock_mono_ms() < until_ms) {
        ended = waitpid(fleet->pid, &status, WNOHANG);
        poll(NULL, 0, 2);
    }
    if (ended == 0) {
        kill(fleet->pid, SIGKILL);
        waitpid(fleet->pid, &status, 0);
    }
    close(fleet->ready_fd);
    zmq_ctx_term(fleet->context);
    s_remove_folder(fleet->folder);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* -- the fake worker -------------------------------------------------------------------------- */

static const dkt_incarnation_t s_me = {{0x77, 1}};
static const dkt_table_version_t s_version = {1, 1};

static void s_hello(void *socket)
{
    uint8_t bytes[256];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_link_begin(&w, DKT_LINK_HELLO, s_version, &s_me);
    dkt_link_put_node(&w, "worker-0");
    dkt_link_finish(&w, 1);
    zmq_send(socket, w.data, w.len, ZMQ_DONTWAIT);
}

static void s_table(fleet_t *fleet, void *socket)
{
    static dkt_table_t table;
    static uint8_t bytes[65536];
    memset(&table, 0, sizeof table);
    dkt_table_assign(&table, &s_me, 1);
    table.version = s_version;
    table.key_count = 1;
    table.keys[0] = fleet->token_public;
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_link_begin(&w, DKT_LINK_TABLE, s_version, &s_me);
    dkt_link_put_table(&w, &table);
    dkt_link_finish(&w, 1);
    assert(!w.failed);
    zmq_send(socket, w.data, w.len, ZMQ_DONTWAIT);
}

/* Every answer is {status: "ok"}: fixarray 4, 1, msgid, nil, map. The msgid is in the frame. */
static void s_answer_all(fleet_t *fleet, void *socket, dkt_r_t *r, uint16_t count)
{
    static uint8_t bytes[DKT_LINK_BYTES_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_link_begin(&w, DKT_LINK_ANSWERS, s_version, &s_me);
    for (uint16_t i = 0; i < count; i++) {
        dkt_link_request_t request;
        dkt_request_t decoded;
        dkt_err_t err;
        bool ok = dkt_link_get_request(r, &request) &&
                  dkt_request_decode(request.body.data, request.body.len, &decoded, &err) == DKT_OK;
        assert(ok);
        uint8_t body[64];
        dkt_w_t answer = dkt_w_init(body, sizeof body);
        dkt_answer_status(&answer, decoded.msgid, "ok");
        dkt_link_put_answer(&w, &(dkt_link_answer_t){.seq = request.seq,
                                                     .outcome = DKT_OUTCOME_ANSWER,
                                                     .body = {body, (uint32_t)answer.len}});
    }
    dkt_link_finish(&w, count);
    assert(!w.failed);
    zmq_send(socket, w.data, w.len, 0);
    atomic_fetch_add(&fleet->worker_requests, count);
}

static void s_take(fleet_t *fleet, void *socket)
{
    zmq_msg_t msg;
    zmq_msg_init(&msg);
    while (zmq_msg_recv(&msg, socket, ZMQ_DONTWAIT) >= 0) {
        dkt_r_t r;
        dkt_link_header_t header;
        bool ok = dkt_link_open(&r, zmq_msg_data(&msg), zmq_msg_size(&msg), &header);
        assert(ok);
        if (header.kind == DKT_LINK_WELCOME &&
            dkt_table_version_compare(header.table, s_version) < 0) {
            s_table(fleet, socket);
        } else if (header.kind == DKT_LINK_REQUESTS) {
            if (atomic_load(&fleet->worker_mute)) {
                atomic_fetch_add(&fleet->worker_requests, header.count);
            } else {
                s_answer_all(fleet, socket, &r, header.count);
            }
        }
    }
    zmq_msg_close(&msg);
}

static void *s_work(void *arg)
{
    fleet_t *fleet = arg;
    void *socket = fleet_client(fleet, ZMQ_DEALER, fleet->workers_address);
    int64_t beat_ms = 0;
    while (!atomic_load(&fleet->worker_stop)) {
        if (dkt_clock_mono_ms() >= beat_ms) {
            s_hello(socket);
            beat_ms = dkt_clock_mono_ms() + DKT_LINK_BEAT_MS;
        }
        zmq_pollitem_t item = {socket, 0, ZMQ_POLLIN, 0};
        if (zmq_poll(&item, 1, 20) > 0) {
            s_take(fleet, socket);
        }
    }
    zmq_close(socket);
    return NULL;
}

void fleet_start_worker(fleet_t *fleet)
{
    int failed = pthread_create(&fleet->worker, NULL, s_work, fleet);
    assert(!failed);
    fleet->has_worker = true;
}

/* -- clients ---------------------------------------------------------------------------------- */

static void *s_socket(fleet_t *fleet, int type)
{
    int linger_ms = 0, wait_ms = FLEET_WAIT_MS, none = 0;
    void *socket = zmq_socket(fleet->context, type);
    assert(socket);
    zmq_setsockopt(socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    zmq_setsockopt(socket, ZMQ_SNDTIMEO, &wait_ms, sizeof wait_ms);
    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms);
    zmq_setsockopt(socket, ZMQ_SNDHWM, &none, sizeof none);
    zmq_setsockopt(socket, ZMQ_RCVHWM, &none, sizeof none);
    return socket;
}

void *fleet_client(fleet_t *fleet, int type, const char *address)
{
    void *socket = s_socket(fleet, type);
    int failed = zmq_connect(socket, address);
    assert(!failed);
    return socket;
}

void *fleet_curve_client(fleet_t *fleet, const char *address, const char *server_key,
                         const dkt_curve_key_t *key)
{
    void *socket = s_socket(fleet, ZMQ_DEALER);
    int failed = zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, server_key, 41);
    failed |= zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, key->public_key, 41);
    failed |= zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, key->secret_key, 41);
    failed |= zmq_connect(socket, address);
    assert(!failed);
    return socket;
}

static dkt_view_t s_text(const char *text)
{
    return (dkt_view_t){(const uint8_t *)text, (uint32_t)strlen(text)};
}

dkt_view_t fleet_request(const fleet_t *fleet, dkt_method_t method, uint32_t msgid, uint8_t *bytes,
                         size_t max)
{
    const dkt_method_row_t *row = dkt_method_row(method);
    dkt_request_t request = {.msgid = msgid,
                             .method = method,
                             .token = s_text(fleet->token),
                             .client_id = s_text(fleet->client_id),
                             .ticket_type = s_text("gold"),
                             .password = s_text("correct horse"),
                             .budget_ms = 5000};
    memcpy(request.request_id.bytes, &msgid, sizeof msgid);
    request.present = row->required | (row->token ? DKT_PARAM_BIT(TOKEN) : 0) |
                      (row->request_id ? DKT_PARAM_BIT(REQUEST_ID) : 0);
    dkt_w_t w = dkt_w_init(bytes, max);
    dkt_request_encode(&w, &request);
    assert(!w.failed);
    return (dkt_view_t){w.data, (uint32_t)w.len};
}

void fleet_send(fleet_t *fleet, void *socket, dkt_method_t method, uint32_t msgid)
{
    uint8_t bytes[S_FRAME_BYTES];
    dkt_view_t frame = fleet_request(fleet, method, msgid, bytes, sizeof bytes);
    zmq_send(socket, "", 0, ZMQ_SNDMORE);
    zmq_send(socket, frame.data, frame.len, 0);
}

uint32_t fleet_receive(void *socket, int wait_ms, dkt_answer_t *answers, uint32_t max)
{
    static uint8_t bytes[DKT_FRAMES_PER_MESSAGE_MAX][S_FRAME_BYTES];
    zmq_pollitem_t item = {socket, 0, ZMQ_POLLIN, 0};
    if (zmq_poll(&item, 1, wait_ms) <= 0) {
        return 0;
    }
    int more = 1;
    size_t more_bytes = sizeof more;
    bool ok = zmq_recv(socket, bytes[0], S_FRAME_BYTES, 0) == 0;
    zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &more_bytes);
    uint32_t count = 0;
    while (more && count < max) {
        int len = zmq_recv(socket, bytes[count], S_FRAME_BYTES, 0);
        dkt_err_t err;
        ok = ok && len >= 0 &&
             dkt_answer_decode(bytes[count], (size_t)len, &answers[count], &err) == DKT_OK;
        count++;
        zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &more_bytes);
    }
    return ok ? count : 0;
}

bool fleet_ask(fleet_t *fleet, void *socket, dkt_method_t method, int wait_ms, dkt_answer_t *answer)
{
    fleet_send(fleet, socket, method, 1);
    return fleet_receive(socket, wait_ms, answer, 1) == 1;
}
