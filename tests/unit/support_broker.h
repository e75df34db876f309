/* SPDX-License-Identifier: Apache-2.0
 *
 * A real broker process on free ports, a fake worker that owns everything, and plain clients.
 */
#ifndef DKT_TESTS_SUPPORT_BROKER_H
#define DKT_TESTS_SUPPORT_BROKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "lib/core/link.h"
#include "lib/core/token.h"
#include "lib/edge/keys.h"

#define FLEET_TEXT_BYTES 128
#define FLEET_WAIT_MS    10000 /* for anything that must happen */

typedef struct {
    char folder[FLEET_TEXT_BYTES];
    char public_address[FLEET_TEXT_BYTES], internal_address[FLEET_TEXT_BYTES],
        workers_address[FLEET_TEXT_BYTES];
    pid_t pid;
    int ready_fd;
    void *context; /* of the clients and the worker */
    dkt_keyring_t ring;
    dkt_token_secret_t token_secret;
    dkt_token_public_t token_public;
    dkt_client_t client;
    char client_id[DKT_ID_CHARS_MAX + 1];
    char token[DKT_TOKEN_BYTES_MAX];
    pthread_t worker;
    bool has_worker;
    atomic_bool worker_stop, worker_mute; /* mute: takes requests and does not answer */
    atomic_uint worker_requests;
} fleet_t;

/* Starts the broker; waits for nothing. */
void fleet_start(fleet_t *fleet, bool insecure_dev);
void fleet_start_worker(fleet_t *fleet);
/* True when "ready" was read within `wait_ms`. */
bool fleet_is_ready(fleet_t *fleet, int wait_ms);
/* Ends the worker; SIGTERM to the broker; returns its exit status, or -1 if it did not end well. */
int fleet_stop(fleet_t *fleet);

/* A connected client socket with bounded waits. */
void *fleet_client(fleet_t *fleet, int type, const char *address);
/* As above with CURVE; keys as Z85. */
void *fleet_curve_client(fleet_t *fleet, const char *address, const char *server_key,
                         const dkt_curve_key_t *key);
dkt_view_t fleet_request(const fleet_t *fleet, dkt_method_t method, uint32_t msgid, uint8_t *bytes,
                         size_t max);
/* Sends the delimiter and one request on a DEALER. */
void fleet_send(fleet_t *fleet, void *socket, dkt_method_t method, uint32_t msgid);
/* Receives the answers of one message; 0 if none came in time or the delimiter is missing. */
uint32_t fleet_receive(void *socket, int wait_ms, dkt_answer_t *answers, uint32_t max);
/* Sends and receives one; false if there is no answer in time. */
bool fleet_ask(fleet_t *fleet, void *socket, dkt_method_t method, int wait_ms,
               dkt_answer_t *answer);

#endif
