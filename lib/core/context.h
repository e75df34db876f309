/* SPDX-License-Identifier: Apache-2.0
 *
 * Tenant context as a query replica keeps it (rule 8): which tenants exist, where they live, and
 * the vshard table, in the memory of every broker and worker. One writer, the directory's leader;
 * its changes come as news in the order of (epoch, seq).
 *
 *              news in order, or a head that fits             gap, new epoch, wrong hash,
 *                 +-------+                                   no head for a second
 *                 v       |                        .--------------------------.
 *              CURRENT ---+                        |                          v
 *                 ^ ^------------ a head proves it right ---------------- DOUBT <--.
 *                 |                                                          |     | failed:
 *                 '--- END: swapped in one step; SAME: nothing new --- PULLING     | back off
 *                                                                            '-----'
 *
 * In every state it answers from what it has. The new state is built aside and only ever replaces
 * an older one. The hash of the whole is a wrapping sum of one hash for each record and one for the
 * table, so a change costs the same however many tenants there are.
 *
 * Absence in a replica is never an answer (rule 9).
 */
#ifndef DKT_CORE_CONTEXT_H
#define DKT_CORE_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/core/cursor.h"
#include "lib/core/ids.h"
#include "lib/core/ledger.h"
#include "lib/core/link.h"

/* -- a record ------------------------------------------------------------------------------------

   Procedure for a change: raise DKT_CONTEXT_FORMAT, write new fields behind all others, read them
   only from records of that format on. An older reader takes what it knows and leaves the rest, and
   compares no hash with a writer of another format. */

#define DKT_CONTEXT_FORMAT           1
#define DKT_CONTEXT_CLUSTER_BYTES    33 /* with NUL, as all of these */
#define DKT_CONTEXT_HOST_BYTES       256
#define DKT_CONTEXT_DATABASE_BYTES   40
#define DKT_CONTEXT_DOMAIN_BYTES     64
#define DKT_CONTEXT_NAME_BYTES       (4 * DKT_NAME_CHARS_MAX + 1)
#define DKT_CONTEXT_EMAIL_BYTES      (DKT_EMAIL_BYTES_MAX + 1)
#define DKT_CONTEXT_RECORD_BYTES_MAX 2048
#define DKT_CONTEXT_TABLE_BYTES_MAX  32768

/* An active tenant. One that is being made or deleted has no record. */
typedef struct {
    dkt_client_t client;
    bool suspended;
    uint64_t revision; /* of the row in the control database */
    int64_t created_ms;
    char cluster[DKT_CONTEXT_CLUSTER_BYTES];
    char host[DKT_CONTEXT_HOST_BYTES]; /* of the cluster */
    uint16_t port;
    char database[DKT_CONTEXT_DATABASE_BYTES]; /* and its role */
    char sub_domain[DKT_CONTEXT_DOMAIN_BYTES];
    char name[DKT_CONTEXT_NAME_BYTES];
    char email[DKT_CONTEXT_EMAIL_BYTES];
    dkt_settings_t settings; /* the directory's copy, for lists */
} dkt_context_record_t;

void dkt_context_put_record(dkt_w_t *w, const dkt_context_record_t *record);
DKT_CHECKED bool dkt_context_read_record(const uint8_t *bytes, size_t len,
                                         dkt_context_record_t *record);

/* -- news: the messages of docket.ctx.> ---------------------------------------------------------
 */

/* Greater is newer: the epoch of the leader that says it, and the number of the change. */
typedef struct {
    uint64_t epoch, seq;
} dkt_context_version_t;

int dkt_context_version_compare(dkt_context_version_t a, dkt_context_version_t b);

typedef enum {
    DKT_CONTEXT_RECORD = 1, /* docket.ctx.<client_id>: it is like this now */
    DKT_CONTEXT_GONE,       /* docket.ctx.<client_id>: there is no such tenant any more */
    DKT_CONTEXT_TABLE,      /* docket.ctx.table */
    DKT_CONTEXT_HEAD,       /* docket.ctx.head */
} dkt_context_kind_t;

/* `prev` is the number before: the change covers prev + 1 .. seq. Equal: said before, only so that
 * the stream is complete. */
typedef struct {
    dkt_context_kind_t kind;
    uint8_t format; /* the writer's DKT_CONTEXT_FORMAT */
    dkt_context_version_t version;
    uint64_t prev;
    dkt_client_t client; /* RECORD, GONE */
    dkt_view_t body;     /* RECORD: dkt_context_put_record; TABLE: dkt_link_put_table */
    uint64_t hash;       /* HEAD: of the whole at `version` */
    uint32_t records;    /* HEAD */
} dkt_context_news_t;

#define DKT_CONTEXT_NEWS_BYTES_MAX (64 + DKT_CONTEXT_TABLE_BYTES_MAX)

void dkt_context_put_news(dkt_w_t *w, const dkt_context_news_t *news);
/* The body is a view into `bytes`. */
DKT_CHECKED bool dkt_context_read_news(const uint8_t *bytes, size_t len, dkt_context_news_t *news);

/* -- the replica --------------------------------------------------------------------------------
 */

#define DKT_CONTEXT_STATES(X)                                                                      \
    X(CURRENT)                                                                                     \
    X(DOUBT)   /* waits for its time to pull */                                                    \
    X(PULLING) /* a pull was asked for */
typedef enum {
#define X(name) DKT_CONTEXT_##name,
    DKT_CONTEXT_STATES(X)
#undef X
        DKT_CONTEXT_STATE_COUNT
} dkt_context_state_t;

const char *dkt_context_state_name(dkt_context_state_t state);

typedef enum {
    DKT_CONTEXT_NEWS,        /* news */
    DKT_CONTEXT_TICK,        /* time alone */
    DKT_CONTEXT_RECHECK,     /* pull all of it, although nothing is wrong as far as we know */
    DKT_CONTEXT_PULL_SAME,   /* version: whoever was asked has exactly this too */
    DKT_CONTEXT_PULL_BEGIN,  /* version of what follows */
    DKT_CONTEXT_PULL_RECORD, /* body */
    DKT_CONTEXT_PULL_TABLE,  /* body */
    DKT_CONTEXT_PULL_END,    /* hash, unless it is not `hashed` */
    DKT_CONTEXT_PULL_FAILED,
    DKT_CONTEXT_EVENT_COUNT
} dkt_context_event_kind_t;

typedef struct {
    dkt_context_event_kind_t kind;
    uint32_t random; /* any 32 bits, for the back-off */
    const dkt_context_news_t *news;
    dkt_context_version_t version;
    dkt_view_t body;
    bool hashed;
    uint64_t hash;
} dkt_context_event_t;

typedef struct {
    bool pull;  /* begin one now; it ends with SAME, END or FAILED */
    bool whole; /* with `pull`: the hash was wrong, so the version alone proves nothing */
    bool table; /* there is another table than before */
} dkt_context_out_t;

typedef struct {
    dkt_context_state_t state;
    dkt_context_version_t version;
    uint64_t hash;
    uint32_t records;
    uint64_t head_seq;     /* of the newest head heard: less our own is how far we are behind */
    int64_t heard_mono_ms; /* when somebody last proved it right; 0: never */
    uint64_t gaps, epochs, wrong_hashes, silences; /* why it doubted */
    uint64_t swaps, sames, failures;               /* how pulls ended */
    uint64_t changes;                              /* taken from news */
} dkt_context_info_t;

typedef struct dkt_context dkt_context_t;

/* Heap; NULL without memory. It begins in DOUBT, with nothing. */
dkt_context_t *dkt_context_new(int64_t now_mono_ms);
void dkt_context_destroy(dkt_context_t **self_p);

void dkt_context_step(dkt_context_t *self, int64_t now_mono_ms, const dkt_context_event_t *event,
                      dkt_context_out_t *out);
/* When it next wants a TICK. */
int64_t dkt_context_due_mono_ms(const dkt_context_t *self);

/* -- reading: in any state, what it has -- */

void dkt_context_info(const dkt_context_t *self, dkt_context_info_t *info);
bool dkt_context_find(const dkt_context_t *self, const dkt_client_t *client,
                      dkt_context_record_t *record);
/* In the order of client ids as text: records are numbered 0 .. info.records - 1. */
bool dkt_context_at(const dkt_context_t *self, uint32_t index, dkt_context_record_t *record);
/* The encoding; valid until the next step. */
dkt_view_t dkt_context_bytes_at(const dkt_context_t *self, uint32_t index);
/* The number of the first one behind that id; "" is before all. */
uint32_t dkt_context_after(const dkt_context_t *self, const char *client_id);
/* False: none yet. */
bool dkt_context_table(const dkt_context_t *self, dkt_table_t *table);
/* The encoding, empty if there is none; valid until the next step. */
dkt_view_t dkt_context_table_bytes(const dkt_context_t *self);
/* Answers one question of another replica: the records behind `pull->after`, at most `bytes_max` of
 * them unless one alone is larger. Returns their number, for dkt_link_finish. */
uint16_t dkt_context_put_chunk(const dkt_context_t *self, const dkt_link_pull_t *pull,
                               size_t bytes_max, dkt_w_t *w);
/* Recounts everything; for tests. */
bool dkt_context_check(const dkt_context_t *self);

#endif
