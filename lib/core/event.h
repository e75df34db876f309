/* SPDX-License-Identifier: Apache-2.0
 *
 * Journal rows as messages: reads the msgpack of a row (lib/core/group.h wrote it) and writes the
 * events of one type as a CloudEvents 1.0 JSON batch.
 *
 *   row  [[type, number, at_ms, minute, deadline_ms, class, traceparent | nil], ..]
 *   message 0 .. n-1: the types in the order of their numbers, which is the order of a ticket's
 *   life; more than DKT_RELAY_EVENTS_MAX events of one type make several messages
 */
#ifndef DKT_CORE_EVENT_H
#define DKT_CORE_EVENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/core/group.h"
#include "lib/core/ids.h"
#include "lib/core/proto.h"

#define DKT_EVENT_SUBJECT_BYTES_MAX 128
#define DKT_EVENT_ID_BYTES_MAX      128
#define DKT_EVENT_TYPE_PREFIX       "com.docket.ticket."

/* A cursor over a row. Views point into the row. */
typedef struct {
    dkt_event_type_t type;
    uint64_t number;
    int64_t at_ms;
    uint32_t minute;
    int64_t deadline_ms;
    dkt_view_t class_name, traceparent;
    uint64_t tag; /* of the ticket's id, 0: not known; not in the row */
} dkt_event_t;

/* How many events of each type; false: these bytes are no row. */
DKT_CHECKED bool dkt_event_count(dkt_view_t row, uint32_t counts[DKT_EVENT_COUNT]);

/* Which events message `index` of a row with these counts has. */
typedef struct {
    dkt_event_type_t type;
    uint32_t part, first, count;
} dkt_event_slice_t;

uint32_t dkt_event_messages(const uint32_t counts[DKT_EVENT_COUNT]);
/* `index` < dkt_event_messages (counts). */
dkt_event_slice_t dkt_event_slice(const uint32_t counts[DKT_EVENT_COUNT], uint32_t index);

/* "docket.event.<client_id>.<type>" and the message id "<client_id>:<seq>:<type>", with ":<part>"
 * for the second part and those behind it. */
void dkt_event_subject(const dkt_client_t *client, dkt_event_type_t type,
                       char out[DKT_EVENT_SUBJECT_BYTES_MAX]);
void dkt_event_message_id(const dkt_client_t *client, uint64_t seq, const dkt_event_slice_t *slice,
                          char out[DKT_EVENT_ID_BYTES_MAX]);

/* A growing text; `data` is the caller's to free. */
typedef struct {
    char *data;
    size_t len, max;
} dkt_text_buf_t;

/* A journal row; `tags` (dkt_group_tag) of all events, or empty. */
typedef struct {
    uint64_t seq;
    dkt_view_t events, tags;
} dkt_event_row_t;

/* Replaces the text by the batch of that slice; false: no memory, or these bytes are no row. */
DKT_CHECKED bool dkt_event_batch(const dkt_keyring_t *keys, const dkt_client_t *client,
                                 const dkt_event_row_t *row, const dkt_event_slice_t *slice,
                                 dkt_text_buf_t *out);

#endif
