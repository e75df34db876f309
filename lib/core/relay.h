/* SPDX-License-Identifier: Apache-2.0
 *
 * The relay of one tenant: which journal rows are published next, how far they were acknowledged,
 * and when everything starts over. A state machine step (state, now, event) -> actions; the thread
 * in workers/relay.c and the property test drive the same object.
 *
 *   committed row --> later --+
 *   READ of the store --------+--> rows: acked | sent, open | not yet sent      up to 128
 *                                        ^ acked_seq            ^ have_seq
 *
 * A row is 1 to 64 messages. At most DKT_RELAY_WINDOW messages are open. Progress is the contiguous
 * acknowledged prefix of rows. What arrives on one connection is stored in the order in which it
 * was sent, so after a break, or silence, everything from the first open message on is sent again:
 * the first time that a message is stored, all before it were. Progress belongs to a stream: when
 * the stream was made anew, or its last number is smaller than one it gave us, the journal is
 * published from its start again (rewind).
 */
#ifndef DKT_CORE_RELAY_H
#define DKT_CORE_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/core/group.h"
#include "lib/core/limits.h"
#include "lib/core/store.h"

/* A journal row, on the heap; whoever holds it frees it. */
typedef struct {
    uint64_t seq;
    uint64_t todo; /* a bit per message without an acknowledgement */
    uint64_t sent; /* of them, those that are on their way */
    uint32_t messages;
    uint32_t counts[DKT_EVENT_COUNT]; /* of its events, for whoever makes the messages */
    uint32_t len, tags_len;           /* tags: none if it was read from the store */
    uint8_t bytes[]; /* the events, behind them their tickets' tags (dkt_group_tag) */
} dkt_relay_row_t;

/* NULL without memory. `messages` <= DKT_RELAY_MESSAGES_MAX. */
dkt_relay_row_t *dkt_relay_row_new(uint64_t seq, uint32_t messages, dkt_view_t bytes,
                                   dkt_view_t tags);
dkt_view_t dkt_relay_row_events(const dkt_relay_row_t *row);
dkt_view_t dkt_relay_row_tags(const dkt_relay_row_t *row);
/* Of a row that no relay has taken yet. */
void dkt_relay_row_messages(dkt_relay_row_t *row, uint32_t messages);
size_t dkt_relay_row_bytes(const dkt_relay_row_t *row);

typedef enum {
    DKT_RELAY_BEGIN,    /* the tenant is active; seq: its newest journal row */
    DKT_RELAY_ROW,      /* committed; row (taken), or NULL and only its seq: it was dropped */
    DKT_RELAY_READ_ROW, /* of the store, ascending, before READ_DONE; row (taken) */
    /* mark: the progress that is stored; stream: as in STREAM, not older than the mark; complete:
       there was no more */
    DKT_RELAY_READ_DONE,
    DKT_RELAY_STREAM, /* a new connection; stream: its creation and its last number */
    DKT_RELAY_ACKED,  /* seq, message, stream_seq */
    DKT_RELAY_BREAK,  /* the connection is over, or the stream refused something */
    DKT_RELAY_TICK
} dkt_relay_event_kind_t;

typedef struct {
    dkt_relay_event_kind_t kind;
    uint64_t seq, stream_seq;
    uint32_t message;
    dkt_relay_row_t *row;
    dkt_relay_mark_t mark, stream;
    bool complete;
} dkt_relay_event_t;

typedef struct {
    const dkt_relay_row_t *row; /* until the next step */
    uint32_t message;
} dkt_relay_send_t;

/* What to do. The sends in their order; what could not be sent is a BREAK. */
typedef struct {
    bool read;
    dkt_relay_read_t read_from;
    bool mark;
    dkt_relay_mark_t marked;
    uint32_t send_count;
    dkt_relay_send_t sends[DKT_RELAY_WINDOW];
} dkt_relay_out_t;

typedef struct {
    bool connected; /* and the stream is known */
    bool kept;      /* the stored progress was read */
    bool reading;
    int64_t read_ms;         /* when it was asked */
    dkt_relay_mark_t stream; /* the current one: creation and last number */
    dkt_relay_mark_t mark;   /* progress; its stream is the one that it belongs to */
    dkt_relay_mark_t stored; /* as far as it was written */
    int64_t mark_due_ms;
    uint64_t have_seq;      /* newest row that is, or was, in `rows` */
    uint64_t last_seq;      /* newest row that is known to be committed */
    uint64_t read_last_seq; /* last_seq when the read was asked: it sees at least that */
    uint32_t first, count;
    dkt_relay_row_t *rows[DKT_RELAY_ROWS_MAX]; /* ring, ascending */
    uint32_t next;                             /* of `rows`: before it everything was sent */
    uint32_t later_count;                      /* rows committed during a read, ascending */
    dkt_relay_row_t *later[DKT_RELAY_READ_MAX];
    uint32_t open; /* messages on their way */
    int64_t open_since_ms;
    uint32_t failures;
    int64_t retry_ms;
    uint64_t bytes; /* of all rows in here */
    uint64_t published, rewinds;
} dkt_relay_t;

void dkt_relay_init(dkt_relay_t *self);
void dkt_relay_fini(dkt_relay_t *self);

/* `window`: how many messages may be sent now, at most. */
void dkt_relay_step(dkt_relay_t *self, int64_t now_ms, const dkt_relay_event_t *event,
                    uint32_t window, dkt_relay_out_t *out);

/* Everything committed was acknowledged and that is written down. */
bool dkt_relay_quiet(const dkt_relay_t *self);
/* Rows that are committed and not acknowledged. */
uint64_t dkt_relay_lag(const dkt_relay_t *self);

#endif
