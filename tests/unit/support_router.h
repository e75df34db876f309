/* SPDX-License-Identifier: Apache-2.0
 *
 * A router with scripted peers: what it sends is written down, time is a number.
 */
#ifndef DKT_TESTS_SUPPORT_ROUTER_H
#define DKT_TESTS_SUPPORT_ROUTER_H

#include "lib/core/router.h"

#define RIG_LOG_MAX     16384
#define RIG_PEERS_MAX   16
#define RIG_TEXT_BYTES  64
#define RIG_FRAME_BYTES 4096

/* An answer that a client got. */
typedef struct {
    uint8_t peer, side;
    uint32_t message; /* number of the message that it was in */
    uint32_t msgid;
    dkt_status_t status;
    uint32_t retry_after_ms;
    char field[RIG_TEXT_BYTES];
    char text[RIG_TEXT_BYTES]; /* result status */
} rig_answer_t;

/* A request that a worker got. */
typedef struct {
    uint8_t worker;
    uint32_t message;
    dkt_table_version_t table;
    dkt_link_request_t request; /* body is not kept */
    uint32_t msgid;
} rig_request_t;

typedef struct {
    dkt_router_t *router;
    dkt_instant_t now;
    dkt_keyring_t ring;
    dkt_client_t clients[2];
    char client_ids[2][DKT_ID_CHARS_MAX + 1];
    char tokens[2][DKT_TOKEN_BYTES_MAX];
    dkt_token_secret_t secret;
    dkt_token_public_t public_key;
    const char *source;
    dkt_sent_t client_takes[RIG_PEERS_MAX], worker_takes[RIG_PEERS_MAX];
    rig_answer_t answers[RIG_LOG_MAX];
    uint32_t answer_count, client_messages, largest_group;
    rig_request_t requests[RIG_LOG_MAX];
    uint32_t request_count, worker_messages, welcomes;
    size_t largest_batch;
    uint8_t worker_bytes[DKT_LINK_BYTES_MAX];
    uint8_t frames[DKT_FRAMES_PER_MESSAGE_MAX + 2][RIG_FRAME_BYTES];
} rig_t;

/* `pending_max` 0: the real bound. No worker and no table yet. */
rig_t *rig_new(uint32_t pending_max, size_t pending_bytes_max);
void rig_destroy(rig_t **rig_p);

dkt_address_t rig_address(uint8_t peer);
dkt_incarnation_t rig_incarnation(uint8_t worker);

/* Workers 1 .. `workers` share the vshards; worker 0xff gets none. */
void rig_table(rig_t *rig, uint64_t version, const uint8_t *workers, uint16_t count);
void rig_hello(rig_t *rig, uint8_t worker, uint8_t address);
/* Worker 1 is here and owns everything. */
void rig_one_worker(rig_t *rig);

/* Borrows the text. */
dkt_view_t rig_text(const char *text);
/* A request with the usual parameters of its method: client 0, its token, valid values. */
dkt_request_t rig_request(const rig_t *rig, dkt_method_t method, uint32_t msgid);
dkt_view_t rig_encode(rig_t *rig, uint32_t slot, const dkt_request_t *request);
/* Sends one message of one request and flushes. */
void rig_send(rig_t *rig, dkt_audience_t side, uint8_t peer, const dkt_request_t *request);
/* Raw frames, the delimiter included by the caller. */
void rig_send_raw(rig_t *rig, dkt_audience_t side, uint8_t peer, const dkt_view_t *frames,
                  uint32_t count);

/* The worker answers that request with {status: text}, or gives it back. */
void rig_answer(rig_t *rig, uint8_t worker, const rig_request_t *request, const char *text);
void rig_answer_error(rig_t *rig, uint8_t worker, const rig_request_t *request,
                      dkt_status_t status);
void rig_moved(rig_t *rig, uint8_t worker, const rig_request_t *request, uint64_t version);
/* Time passes, with a tick every 16 ms; `beating` workers say hello every 250 ms. */
void rig_pass(rig_t *rig, int64_t ms, const uint8_t *beating, uint32_t count);

const rig_answer_t *rig_last_answer(const rig_t *rig);
const rig_request_t *rig_last_request(const rig_t *rig);
dkt_router_counts_t rig_counts(const rig_t *rig);

#endif
