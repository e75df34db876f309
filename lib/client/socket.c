/* SPDX-License-Identifier: Apache-2.0
 *
 * See socket.h: the DEALER of a producer with its options.
 */
#include "lib/client/socket.h"

#include <errno.h>
#include <zmq.h>

#include "lib/core/limits.h"

#define S_RECONNECT_MS     100
#define S_RECONNECT_MAX_MS 2000
#define S_KEEPALIVE_S      1 /* idle, and between probes */
#define S_KEEPALIVE_COUNT  3

static bool s_set_int(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

static bool s_set_key(void *socket, int option, const char *key)
{
    return zmq_setsockopt(socket, option, key, strlen(key) + 1) == 0;
}

/* TCP keepalive and no ZMTP heartbeats: a peer that pings and leaves in a flood can end a libzmq
 * 4.3.4 ROUTER with an assertion (its issues 3937 and 4767). A lost answer is noticed by the call's
 * own silence anyway. */
static bool s_set_keepalive(void *socket)
{
    return s_set_int(socket, ZMQ_TCP_KEEPALIVE, 1) &&
           s_set_int(socket, ZMQ_TCP_KEEPALIVE_IDLE, S_KEEPALIVE_S) &&
           s_set_int(socket, ZMQ_TCP_KEEPALIVE_INTVL, S_KEEPALIVE_S) &&
           s_set_int(socket, ZMQ_TCP_KEEPALIVE_CNT, S_KEEPALIVE_COUNT);
}

static dkt_status_t s_connect(void *socket, const dkt_producer_options_t *options, dkt_err_t *err)
{
    int64_t answer_max = DKT_PRODUCER_ANSWER_BYTES_MAX;
    bool ok = s_set_int(socket, ZMQ_LINGER, 0) && s_set_int(socket, ZMQ_SNDHWM, 0) &&
              s_set_int(socket, ZMQ_RCVHWM, 0) && s_set_int(socket, ZMQ_IMMEDIATE, 1) &&
              s_set_int(socket, ZMQ_RECONNECT_IVL, S_RECONNECT_MS) &&
              s_set_int(socket, ZMQ_RECONNECT_IVL_MAX, S_RECONNECT_MAX_MS) &&
              s_set_keepalive(socket) &&
              zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &answer_max, sizeof answer_max) == 0;
    if (!ok) {
        return dkt_fail(err, DKT_UNAVAILABLE, NULL, "socket options: %s", zmq_strerror(errno));
    }
    if (options->server_public_key) {
        if (!options->client_public_key || !options->client_secret_key ||
            !s_set_key(socket, ZMQ_CURVE_SERVERKEY, options->server_public_key) ||
            !s_set_key(socket, ZMQ_CURVE_PUBLICKEY, options->client_public_key) ||
            !s_set_key(socket, ZMQ_CURVE_SECRETKEY, options->client_secret_key)) {
            return dkt_fail(err, DKT_INVALID_ARGUMENT, "keys", "these are no CURVE keys");
        }
    }
    if (zmq_connect(socket, options->endpoint) != 0) {
        return dkt_fail(err, DKT_INVALID_ARGUMENT, "endpoint", "cannot connect to %s: %s",
                        options->endpoint, zmq_strerror(errno));
    }
    return DKT_OK;
}

void *dkt_socket_open(void *zmq, const dkt_producer_options_t *options, dkt_err_t *err)
{
    void *socket = zmq_socket(zmq, ZMQ_DEALER);
    if (!socket) {
        (void)dkt_fail(err, DKT_UNAVAILABLE, NULL, "no socket: %s", zmq_strerror(errno));
        return NULL;
    }
    if (s_connect(socket, options, err) != DKT_OK) {
        zmq_close(socket);
        return NULL;
    }
    return socket;
}

static dkt_text_t s_text(dkt_view_t view)
{
    return (dkt_text_t){(const char *)view.data, view.len};
}

dkt_reply_t dkt_reply_of(const dkt_answer_t *answer)
{
    return (dkt_reply_t){
        .status = answer->status,
        .retry_after_ms = answer->retry_after_ms,
        .message = s_text(answer->message),
        .field = s_text(answer->field),
        .state = s_text(answer->status_text),
        .client_id = s_text(answer->client_id),
        .ticket_id = s_text(answer->ticket_id),
        .slot_id = s_text(answer->slot_id),
        .sub_domain = s_text(answer->sub_domain),
        .token = s_text(answer->token),
        .reason = s_text(answer->reason),
        .slot_start_ms = answer->slot_start_ms,
        .deadline_ms = answer->deadline_ms,
        .hold_expires_ms = answer->hold_expires_ms,
        .earliest_ms = answer->earliest_ms,
        .expires_ms = answer->expires_ms,
        .replayed = answer->replayed,
        .met = answer->met,
        .result = answer->result.data,
        .result_len = answer->result.len,
    };
}

void dkt_text_copy(dkt_text_t text, char *out, size_t max)
{
    size_t len = text.data ? text.len : 0;
    len = len < max ? len : max - 1;
    if (len > 0) {
        memcpy(out, text.data, len);
    }
    out[len] = '\0';
}
