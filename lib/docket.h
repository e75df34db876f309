/* SPDX-License-Identifier: Apache-2.0
 *
 * The producer library: calls of the wire contract "docket/1" over one DEALER connection.
 *
 * A producer is confined to the thread that made it. Calls are pipelined: submit queues a call,
 * poll sends what is queued (many calls in one message; a full message leaves at once), takes
 * answers in any order and runs each call's callback exactly once, with the answer or with why
 * there is none. A call that meets `unavailable`, `overloaded`, another retryable error or silence
 * is sent again with the SAME request_id, after the time that the answer asks for, until its total
 * time is over. So a ticket is never created twice by a retry.
 *
 *      dkt_producer_options_t options = {.endpoint = "tcp://127.0.0.1:7410"};
 *      dkt_producer_t *producer = dkt_producer_new (&options, &err);
 *      dkt_arg_t args [] = {dkt_arg_text ("client_id", id), dkt_arg_text ("ticket_type", "gold")};
 *      dkt_reply_t reply;
 *      dkt_producer_call (producer, "create_ticket", args, 2, NULL, &reply);
 *      if (reply.status == DKT_OK && dkt_text_is (reply.state, "created"))
 *          ...
 *      dkt_producer_destroy (&producer);
 */
#ifndef DKT_DOCKET_H
#define DKT_DOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "lib/core/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dkt_producer dkt_producer_t;

/* Everything is copied. Zero or NULL takes the default. */
typedef struct {
    const char *endpoint; /* one address, "tcp://127.0.0.1:7410" */
    /* CURVE, for the internal endpoint: all three, Z85 of 40 characters; or none */
    const char *server_public_key, *client_public_key, *client_secret_key;
    const char *token;      /* of login; sent with every call when given */
    uint32_t in_flight_max; /* open calls, default 1024, at most 4096 */
    uint32_t batch_max;     /* calls in one message, default 256, at most 256 */
    uint32_t attempt_ms;    /* silence after which an attempt is given up, default 2000 */
    uint32_t total_ms;      /* all attempts of a call together, default 10000 */
} dkt_producer_options_t;

/* -- parameters of a call --------------------------------------------------------------------- */

typedef enum {
    DKT_ARG_TEXT,
    DKT_ARG_BYTES,
    DKT_ARG_INT,
    DKT_ARG_BOOL,
    DKT_ARG_COUNTS
} dkt_arg_kind_t;

/* A pair of a map of numbers: classes {"gold": 120}, limits {"bronze": 300}. */
typedef struct {
    const char *name;
    int64_t value;
} dkt_count_t;

/* One parameter, borrowed until submit returns. */
typedef struct {
    const char *key;
    dkt_arg_kind_t kind;
    const void *data; /* TEXT, BYTES; COUNTS: dkt_count_t [len] */
    size_t len;
    int64_t number; /* INT, BOOL */
} dkt_arg_t;

static inline dkt_arg_t dkt_arg_text(const char *key, const char *text)
{
    dkt_arg_t arg = {key, DKT_ARG_TEXT, text, strlen(text), 0};
    return arg;
}

static inline dkt_arg_t dkt_arg_bytes(const char *key, const void *data, size_t len)
{
    dkt_arg_t arg = {key, DKT_ARG_BYTES, data, len, 0};
    return arg;
}

static inline dkt_arg_t dkt_arg_int(const char *key, int64_t number)
{
    dkt_arg_t arg = {key, DKT_ARG_INT, NULL, 0, number};
    return arg;
}

static inline dkt_arg_t dkt_arg_bool(const char *key, bool value)
{
    dkt_arg_t arg = {key, DKT_ARG_BOOL, NULL, 0, value};
    return arg;
}

static inline dkt_arg_t dkt_arg_counts(const char *key, const dkt_count_t *counts, size_t len)
{
    dkt_arg_t arg = {key, DKT_ARG_COUNTS, counts, len, 0};
    return arg;
}

/* -- answers ---------------------------------------------------------------------------------- */

/* Borrowed text without a terminating NUL; data NULL: the answer does not have it. */
typedef struct {
    const char *data;
    size_t len;
} dkt_text_t;

static inline bool dkt_text_is(dkt_text_t text, const char *other)
{
    return text.data && text.len == strlen(other) && memcmp(text.data, other, text.len) == 0;
}

/* Copies into a buffer of `max` bytes with a NUL, cut if it must be. */
void dkt_text_copy(dkt_text_t text, char *out, size_t max);

/* The end of a call. A refusal is an answer: status DKT_OK, state "refused". Numbers that the
 * answer does not have are 0. */
typedef struct {
    dkt_status_t status; /* DKT_OK, or the error's code */
    bool silence;        /* no answer came: the call may have happened (status DKT_UNAVAILABLE) */
    uint32_t attempts;
    uint32_t retry_after_ms;
    uint64_t elapsed_us;       /* from submit to now */
    dkt_text_t message, field; /* of an error */
    dkt_text_t state;          /* the result's "status": "created", "refused", "held", .. */
    dkt_text_t client_id, ticket_id, slot_id, sub_domain, token, reason;
    int64_t slot_start_ms, deadline_ms, hold_expires_ms, earliest_ms, expires_ms;
    bool replayed, met;
    const uint8_t *result; /* the whole result map, msgpack; NULL for an error */
    size_t result_len;
} dkt_reply_t;

/* Runs inside poll, once per submitted call. `reply` and what it points to live until it returns.
 * It may submit further calls; it must not poll or destroy. */
typedef void(dkt_reply_fn)(void *ctx, const dkt_reply_t *reply);

/* -- the producer ----------------------------------------------------------------------------- */

/* Connects in the background: a broker that is not there yet is silence, not an error. NULL with
 * `err` (INVALID_ARGUMENT: address or keys; UNAVAILABLE: no sockets) otherwise. */
dkt_producer_t *dkt_producer_new(const dkt_producer_options_t *options, dkt_err_t *err);

/* Open calls end without their callbacks. */
void dkt_producer_destroy(dkt_producer_t **self_p);

/* The token of later calls; NULL: none. Too long a token is INVALID_ARGUMENT. */
DKT_CHECKED dkt_status_t dkt_producer_set_token(dkt_producer_t *self, const char *token);

/* Queues a call. `request_id` (16 bytes) NULL: a new UUIDv7 is made where `method` wants one.
 * `token` of the call before all others: dkt_arg_text ("token", ..) among args replaces the
 * producer's own. OVERLOADED: in_flight_max calls are open, poll first. INVALID_ARGUMENT: larger
 * than a frame may be. */
DKT_CHECKED dkt_status_t dkt_producer_submit(dkt_producer_t *self, const char *method,
                                             const dkt_arg_t *args, size_t arg_count,
                                             const uint8_t *request_id, dkt_reply_fn *fn,
                                             void *ctx);

/* Sends, receives, retries, and waits at most `timeout_ms` for the first answer. Returns how many
 * calls ended, which is not many more than a message has: whoever asks anew for each answer has the
 * next requests under way while the answers behind these are read. */
size_t dkt_producer_poll(dkt_producer_t *self, int timeout_ms);

/* The same for up to DKT_PRODUCERS_MAX producers of one thread. */
#define DKT_PRODUCERS_MAX 8
size_t dkt_producer_poll_all(dkt_producer_t **list, size_t count, int timeout_ms);

/* One call, waited for. What `reply` points to lives until the next call on this producer. Calls
 * submitted before go on meanwhile. Returns reply->status. */
dkt_status_t dkt_producer_call(dkt_producer_t *self, const char *method, const dkt_arg_t *args,
                               size_t arg_count, const uint8_t *request_id, dkt_reply_t *reply);

/* Calls submitted and not ended. */
size_t dkt_producer_open(const dkt_producer_t *self);

typedef struct {
    uint64_t calls, answers, retries, silences;
    uint64_t strays;  /* answers to no open call: late ones after a retry, or a peer's mistakes */
    uint64_t garbage; /* frames that are no answer */
} dkt_producer_counts_t;
dkt_producer_counts_t dkt_producer_counts(const dkt_producer_t *self);

/* A new UUIDv7 for a request_id that the caller wants to know or to repeat. */
void dkt_producer_request_id(uint8_t out[16]);

#ifdef __cplusplus
}
#endif

#endif
