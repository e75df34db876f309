/* SPDX-License-Identifier: Apache-2.0
 *
 * The link between brokers and workers: one ZeroMQ frame a message, a fixed header and `count`
 * records, integers little-endian. A worker's DEALER connects to the workers' side of every broker.
 *
 *   header  version 1 | kind 1 | count 2 | zero 4 | table epoch 8 | table version 8 | incarnation
 * 16
 *
 *   worker -> broker   HELLO     sender alive, at start and every DKT_LINK_BEAT_MS; record: node
 * name TABLE     the vshard table and the token public keys, when the broker's is older ANSWERS
 * records: answers broker -> worker   WELCOME   answer to HELLO; its header carries the broker's
 * table version REQUESTS  records: requests
 *
 * Procedure for a change: raise DKT_LINK_VERSION, read the old one for one release (N talks to
 * N-1).
 */
#ifndef DKT_CORE_LINK_H
#define DKT_CORE_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/core/cursor.h"
#include "lib/core/ids.h"
#include "lib/core/limits.h"
#include "lib/core/proto.h"
#include "lib/core/status.h"
#include "lib/core/token.h"

#define DKT_LINK_VERSION      1
#define DKT_LINK_BEAT_MS      250  /* HELLO interval */
#define DKT_LINK_SILENCE_MS   1500 /* a worker unheard for this long gets no new requests */
#define DKT_LINK_HEADER_BYTES 40
#define DKT_INCARNATION_BYTES 16
#define DKT_MEMBERS_MAX       256 /* worker incarnations in a table */
#define DKT_TOKEN_KEYS_MAX    8
#define DKT_VSHARD_NOBODY     0xffff

/* One start of one worker (or broker) process: random. */
typedef struct {
    uint8_t bytes[DKT_INCARNATION_BYTES];
} dkt_incarnation_t;

/* (epoch, version) orders tables; the greater one is the newer. */
typedef struct {
    uint64_t epoch, version;
} dkt_table_version_t;

int dkt_table_version_compare(dkt_table_version_t a, dkt_table_version_t b);

/* Which worker incarnation owns which vshard, and the keys that verify tokens. */
typedef struct {
    dkt_table_version_t version;
    uint16_t member_count; /* <= DKT_MEMBERS_MAX */
    dkt_incarnation_t members[DKT_MEMBERS_MAX];
    uint16_t owner[DKT_VSHARDS]; /* index into members, or DKT_VSHARD_NOBODY */
    uint32_t key_count;          /* <= DKT_TOKEN_KEYS_MAX */
    dkt_token_public_t keys[DKT_TOKEN_KEYS_MAX];
} dkt_table_t;

/* Spreads the vshards over `members` evenly, moving as few as possible from `table`: vshards of
 * members that stay keep their owner unless theirs is above the fair share. Raises the version. */
void dkt_table_assign(dkt_table_t *table, const dkt_incarnation_t *members, uint16_t member_count);

typedef enum {
    DKT_LINK_HELLO = 1,
    DKT_LINK_TABLE,
    DKT_LINK_ANSWERS,
    DKT_LINK_WELCOME,
    DKT_LINK_REQUESTS,
    DKT_LINK_CONTEXT_PULL, /* a broker asks for tenant context; an older worker ignores it */
    DKT_LINK_CONTEXT,
    DKT_LINK_KINDS_END
} dkt_link_kind_t;

typedef struct {
    uint8_t kind; /* dkt_link_kind_t */
    uint16_t count;
    dkt_table_version_t table;
    dkt_incarnation_t sender;
} dkt_link_header_t;

/* A request on its way to its owner. `origin` is where it came in. */
typedef struct {
    uint64_t seq; /* the broker's own number for it */
    uint32_t budget_left_ms;
    uint8_t origin; /* dkt_audience_t */
    uint8_t method; /* dkt_method_t */
    uint16_t vshard;
    uint8_t token_id[DKT_TOKEN_ID_BYTES]; /* zero on the internal endpoint */
    int64_t token_issued_ms, token_expires_ms;
    dkt_view_t body; /* the client's frame as it came */
} dkt_link_request_t;

typedef enum {
    DKT_OUTCOME_ANSWER, /* body is the response frame for the client */
    DKT_OUTCOME_MOVED,  /* not mine: the header's table version is newer or my table says another */
} dkt_link_outcome_t;

typedef struct {
    uint64_t seq;
    uint8_t outcome; /* dkt_link_outcome_t */
    dkt_view_t body;
} dkt_link_answer_t;

/* What a broker's replica is at, and the client id behind which it wants more; "": from the start.
 */
typedef struct {
    uint64_t epoch, seq, hash;
    char after[DKT_ID_CHARS_MAX + 1];
} dkt_link_pull_t;

/* What the worker's replica is at. `same`: exactly that, nothing follows. Otherwise a chunk: the
 * message's count says how many records follow, each a view; `last`: there are none behind them.
 * All chunks of a pull must be of the same version, or it has to begin anew. */
typedef struct {
    uint64_t epoch, seq, hash;
    bool same, last;
    dkt_view_t table; /* in the chunk from the start only */
} dkt_link_chunk_t;

/* Writers append to a cursor; the header's count is patched by dkt_link_finish. */
void dkt_link_begin(dkt_w_t *w, dkt_link_kind_t kind, dkt_table_version_t table,
                    const dkt_incarnation_t *sender);
void dkt_link_put_request(dkt_w_t *w, const dkt_link_request_t *request);
void dkt_link_put_answer(dkt_w_t *w, const dkt_link_answer_t *answer);
void dkt_link_put_node(dkt_w_t *w, const char *node);
void dkt_link_put_table(dkt_w_t *w, const dkt_table_t *table);
void dkt_link_put_pull(dkt_w_t *w, const dkt_link_pull_t *pull);
void dkt_link_put_chunk(dkt_w_t *w, const dkt_link_chunk_t *chunk);
void dkt_link_put_view(dkt_w_t *w, dkt_view_t view);
void dkt_link_finish(dkt_w_t *w, uint16_t count);

/* Upper bound of a record's bytes, for "does one more fit". */
size_t dkt_link_request_bytes(const dkt_link_request_t *request);
size_t dkt_link_answer_bytes(const dkt_link_answer_t *answer);

/* Readers stop at the first byte that is not there or wrong (lib/core/cursor.h). */
DKT_CHECKED bool dkt_link_open(dkt_r_t *r, const uint8_t *data, size_t len,
                               dkt_link_header_t *header);
DKT_CHECKED bool dkt_link_get_request(dkt_r_t *r, dkt_link_request_t *request);
DKT_CHECKED bool dkt_link_get_answer(dkt_r_t *r, dkt_link_answer_t *answer);
DKT_CHECKED bool dkt_link_get_node(dkt_r_t *r, char *node, size_t node_bytes);
DKT_CHECKED bool dkt_link_get_table(dkt_r_t *r, dkt_table_t *table);
DKT_CHECKED bool dkt_link_get_pull(dkt_r_t *r, dkt_link_pull_t *pull);
DKT_CHECKED bool dkt_link_get_chunk(dkt_r_t *r, dkt_link_chunk_t *chunk);
DKT_CHECKED bool dkt_link_get_view(dkt_r_t *r, dkt_view_t *view);
/* All records read and nothing left over. */
DKT_CHECKED bool dkt_link_end(const dkt_r_t *r);

#endif
