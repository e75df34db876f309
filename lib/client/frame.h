/* SPDX-License-Identifier: Apache-2.0
 *
 * A call as the bytes of its request frame: [0, msgid, method, [params]]. The msgid is always
 * written as five bytes, so that a retry only changes them in place.
 */
#ifndef DKT_CLIENT_FRAME_H
#define DKT_CLIENT_FRAME_H

#include "lib/docket.h"

#define DKT_FRAME_IDS_MAX      25 /* 250 bytes: so few never come in parts */
#define DKT_FRAME_RANDOM_BYTES 10

/* Random bytes of new request ids, each used once: a system call for many. Of its own for each
 * producer; a process that forks cannot use a producer's socket on both sides either. */
typedef struct {
    uint8_t bytes[DKT_FRAME_IDS_MAX][DKT_FRAME_RANDOM_BYTES];
    uint32_t left;
} dkt_frame_random_t;

/* All borrowed. */
typedef struct {
    const char *method;
    const dkt_arg_t *args;
    size_t arg_count;
    const char *token;         /* NULL: none; sent with methods that need one */
    const uint8_t *request_id; /* NULL: a new one where the method wants one */
    dkt_frame_random_t *random;
    uint32_t budget_ms;
} dkt_frame_call_t;

/* An upper bound of the encoded size. */
size_t dkt_frame_bytes(const dkt_frame_call_t *call);

/* Bytes written, 0 if they do not fit into `max`. msgid is 0 until dkt_frame_set_msgid. */
size_t dkt_frame_encode(const dkt_frame_call_t *call, uint8_t *out, size_t max);

void dkt_frame_set_msgid(uint8_t *frame, uint32_t msgid);

#endif
