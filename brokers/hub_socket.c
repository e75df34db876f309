/* SPDX-License-Identifier: Apache-2.0 */
#include "brokers/hub_socket.h"

#include <errno.h>
#include <string.h>

#include "lib/edge/log.h"
#include "lib/edge/zap.h"

#define S_CLIENT_HWM           64 /* messages of a connection, each up to 256 frames */
#define S_BACKLOG              1024
#define S_HANDSHAKE_MS         2000 /* silent connections are gone after this */
#define S_KEEPALIVE_IDLE_S     10   /* a client whose machine is gone is noticed after 20 s */
#define S_KEEPALIVE_INTERVAL_S 3
#define S_KEEPALIVE_COUNT      3
#define S_HEARTBEAT_MS         500
#define S_HEARTBEAT_TIMEOUT_MS 1500
#define S_HEARTBEAT_TTL_MS     2000
#define S_LINGER_MS            1000 /* answers on their way when the broker ends */

const dkt_hub_side_t dkt_hub_clients = {DKT_FRAME_BYTES_MAX, S_CLIENT_HWM, false};
/* Workers are ours and bounded by the router: no mark of libzmq's decides about them. */
const dkt_hub_side_t dkt_hub_workers = {DKT_LINK_BYTES_MAX, 0, true};

static bool s_set_int(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

static bool s_set_curve(void *socket, const dkt_curve_key_t *curve)
{
    return s_set_int(socket, ZMQ_CURVE_SERVER, 1) &&
           zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, curve->secret_key, DKT_Z85_KEY_CHARS + 1) ==
               0 &&
           zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, DKT_ZAP_DOMAIN, strlen(DKT_ZAP_DOMAIN)) == 0;
}

static bool s_set_up(void *socket, const dkt_hub_side_t *side)
{
    int64_t frame_bytes_max = side->frame_bytes_max;
    return zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &frame_bytes_max, sizeof frame_bytes_max) == 0 &&
           s_set_int(socket, ZMQ_ROUTER_MANDATORY, 1) &&
           s_set_int(socket, ZMQ_ROUTER_HANDOVER, 0) &&
           s_set_int(socket, ZMQ_HANDSHAKE_IVL, S_HANDSHAKE_MS) &&
           s_set_int(socket, ZMQ_BACKLOG, S_BACKLOG) && s_set_int(socket, ZMQ_SNDHWM, side->hwm) &&
           s_set_int(socket, ZMQ_RCVHWM, side->hwm) && s_set_int(socket, ZMQ_LINGER, S_LINGER_MS);
}

/* ZMTP heartbeats only where nobody reads slowly: in libzmq 4.3.4 a heartbeat that falls due on a
 * connection that broke while its input was stopped by the high-water mark aborts the process
 * (_io_error in out_event), ours or, by way of the time to live, the client's (libzmq issues 3937,
 * 4767). A flood that leaves was enough. Clients that are gone are found by TCP's own probes. */
static bool s_set_liveness(void *socket, const dkt_hub_side_t *side)
{
    if (side->heartbeats) {
        return s_set_int(socket, ZMQ_HEARTBEAT_IVL, S_HEARTBEAT_MS) &&
               s_set_int(socket, ZMQ_HEARTBEAT_TIMEOUT, S_HEARTBEAT_TIMEOUT_MS) &&
               s_set_int(socket, ZMQ_HEARTBEAT_TTL, S_HEARTBEAT_TTL_MS);
    }
    return s_set_int(socket, ZMQ_TCP_KEEPALIVE, 1) &&
           s_set_int(socket, ZMQ_TCP_KEEPALIVE_IDLE, S_KEEPALIVE_IDLE_S) &&
           s_set_int(socket, ZMQ_TCP_KEEPALIVE_INTVL, S_KEEPALIVE_INTERVAL_S) &&
           s_set_int(socket, ZMQ_TCP_KEEPALIVE_CNT, S_KEEPALIVE_COUNT);
}

void *dkt_hub_bind(void *context, const char *address, const dkt_hub_side_t *side,
                   const dkt_curve_key_t *curve, dkt_err_t *err)
{
    void *socket = zmq_socket(context, ZMQ_ROUTER);
    if (!socket || !s_set_up(socket, side) || !s_set_liveness(socket, side) ||
        (curve && !s_set_curve(socket, curve)) || zmq_bind(socket, address) != 0) {
        (void)dkt_fail(err, DKT_UNAVAILABLE, NULL, "cannot bind %s: %s", address,
                       zmq_strerror(zmq_errno()));
        if (socket) {
            zmq_close(socket);
        }
        return NULL;
    }
    return socket;
}

bool dkt_hub_receive(void *socket, dkt_hub_message_t *message)
{
    zmq_msg_t id;
    zmq_msg_init(&id);
    message->kept = message->count = 0;
    if (zmq_msg_recv(&id, socket, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&id);
        return false;
    }
    message->from.len = (uint8_t)zmq_msg_size(&id);
    memcpy(message->from.bytes, zmq_msg_data(&id), message->from.len);
    bool more = zmq_msg_more(&id);
    zmq_msg_close(&id);
    while (more) {
        zmq_msg_t spare;
        bool keep = message->kept < sizeof message->frames / sizeof *message->frames;
        zmq_msg_t *frame = keep ? &message->frames[message->kept] : &spare;
        zmq_msg_init(frame);
        /* The parts of a message arrive as one, so this does not wait. */
        if (zmq_msg_recv(frame, socket, 0) < 0) {
            zmq_msg_close(frame);
            break;
        }
        more = zmq_msg_more(frame);
        message->count++;
        if (keep) {
            message->kept++;
        } else {
            zmq_msg_close(frame);
        }
    }
    return true;
}

void dkt_hub_message_close(dkt_hub_message_t *message)
{
    for (uint32_t i = 0; i < message->kept; i++) {
        zmq_msg_close(&message->frames[i]);
    }
    message->kept = 0;
}

dkt_sent_t dkt_hub_send(void *socket, const dkt_address_t *to, bool delimiter,
                        const dkt_view_t *frames, uint32_t count)
{
    if (zmq_send(socket, to->bytes, to->len, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0) {
        return zmq_errno() == EAGAIN ? DKT_SENT_FULL : DKT_SENT_GONE;
    }
    /* The first frame reserved the place: the others fail only when the peer leaves meanwhile. */
    bool sent = !delimiter || zmq_send(socket, "", 0, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0;
    for (uint32_t i = 0; i < count && sent; i++) {
        sent = zmq_send(socket, frames[i].data, frames[i].len,
                        ZMQ_DONTWAIT | (i + 1 < count ? ZMQ_SNDMORE : 0)) >= 0;
    }
    if (!sent) {
        dkt_log(DKT_LOG_WARN, "an answer was cut: %s", zmq_strerror(zmq_errno()));
    }
    return DKT_SENT_OK;
}
