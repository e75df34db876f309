/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/context.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "lib/core/context_set.h"
#include "lib/core/gate.h"

/* News that came while a pull was under way: what is newer than the pull belongs behind it. */
typedef struct s_late {
    struct s_late *next;
    uint32_t len;
    uint8_t bytes[];
} s_late_t;

struct dkt_context {
    dkt_context_state_t state;
    dkt_context_set_t set;  /* in force */
    dkt_context_set_t next; /* PULLING: built aside */
    bool begun;             /* PULLING: its version is known */
    int64_t moved_mono_ms;  /* PULLING: when the pull last moved */
    int64_t retry_mono_ms;  /* DOUBT: when to pull */
    int64_t heard_mono_ms;  /* when somebody last proved it right */
    uint32_t failures;      /* of pulls, in a row */
    bool wrong;             /* the hash did not fit: only the whole helps */
    s_late_t *late, *late_last;
    uint32_t late_count;       /* <= DKT_CONTEXT_LATE_MAX */
    dkt_context_info_t counts; /* its counters and head_seq only */
};

const char *dkt_context_state_name(dkt_context_state_t state)
{
    static const char *const names[DKT_CONTEXT_STATE_COUNT] = {
#define X(name) #name,
        DKT_CONTEXT_STATES(X)
#undef X
    };
    return names[state];
}

int dkt_context_version_compare(dkt_context_version_t a, dkt_context_version_t b)
{
    if (a.epoch != b.epoch) {
        return a.epoch < b.epoch ? -1 : 1;
    }
    return a.seq < b.seq ? -1 : a.seq > b.seq;
}

/* -- states -- */

static void s_drop_late(dkt_context_t *self)
{
    while (self->late) {
        s_late_t *next = self->late->next;
        free(self->late);
        self->late = next;
    }
    self->late_last = NULL;
    self->late_count = 0;
}

/* `failures` 0: a first pull, only spread a little, because all replicas doubt at once. */
static void s_doubt(dkt_context_t *self, int64_t now_mono_ms, uint32_t random)
{
    uint32_t failures = self->failures > 0 ? self->failures : 1;
    self->state = DKT_CONTEXT_DOUBT;
    self->retry_mono_ms = now_mono_ms + dkt_backoff_ms(failures, DKT_CONTEXT_BACKOFF_BASE_MS,
                                                       DKT_CONTEXT_BACKOFF_CAP_MS, random);
}

/* Counts why, and leaves a pull that is under way alone: it may well settle it. */
static void s_suspect(dkt_context_t *self, int64_t now_mono_ms, uint32_t random, uint64_t *why)
{
    if (self->state == DKT_CONTEXT_CURRENT) {
        (*why)++;
        s_doubt(self, now_mono_ms, random);
    }
}

static void s_prove(dkt_context_t *self, int64_t now_mono_ms)
{
    self->state = DKT_CONTEXT_CURRENT;
    self->heard_mono_ms = now_mono_ms;
    self->failures = 0;
    self->wrong = false;
    self->begun = false;
    dkt_context_set_fini(&self->next);
    s_drop_late(self);
}

/* -- news -- */

static bool s_apply(dkt_context_set_t *set, const dkt_context_news_t *news)
{
    bool table = false, good = true;
    if (news->kind == DKT_CONTEXT_RECORD) {
        good = dkt_context_set_put(set, news->body);
    } else if (news->kind == DKT_CONTEXT_GONE) {
        dkt_context_set_remove(set, &news->client);
    } else {
        good = dkt_context_set_put_table(set, news->body, &table);
    }
    if (good) {
        set->version = news->version;
    }
    return good;
}

static void s_keep_late(dkt_context_t *self, const dkt_context_news_t *news)
{
    uint8_t *bytes = malloc(sizeof(s_late_t) + DKT_CONTEXT_NEWS_BYTES_MAX);
    s_late_t *late = (s_late_t *)(void *)bytes;
    if (!late || self->late_count == DKT_CONTEXT_LATE_MAX) {
        free(late); /* the next head shows the gap */
        return;
    }
    dkt_w_t w = dkt_w_init(late->bytes, DKT_CONTEXT_NEWS_BYTES_MAX);
    dkt_context_put_news(&w, news);
    assert(!w.failed);
    late->len = (uint32_t)w.len;
    late->next = NULL;
    late = realloc(late, sizeof *late + w.len);
    assert(late);
    if (self->late_last) {
        self->late_last->next = late;
    } else {
        self->late = late;
    }
    self->late_last = late;
    self->late_count++;
}

static void s_take_change(dkt_context_t *self, int64_t now_mono_ms, uint32_t random,
                          const dkt_context_news_t *news, dkt_context_out_t *out)
{
    if (self->state == DKT_CONTEXT_PULLING) {
        s_keep_late(self, news);
    }
    uint64_t table_hash = self->set.table_hash;
    if (news->version.epoch < self->set.version.epoch ||
        (news->version.epoch == self->set.version.epoch &&
         news->version.seq <= self->set.version.seq)) {
        return; /* known, or of a leader that was replaced */
    }
    if (news->version.epoch > self->set.version.epoch) {
        s_suspect(self, now_mono_ms, random, &self->counts.epochs);
    } else if (news->prev > self->set.version.seq || !s_apply(&self->set, news)) {
        s_suspect(self, now_mono_ms, random, &self->counts.gaps);
    } else {
        self->counts.changes++;
        out->table = self->set.table_hash != table_hash;
    }
}

static void s_take_head(dkt_context_t *self, int64_t now_mono_ms, uint32_t random,
                        const dkt_context_news_t *news)
{
    if (news->version.epoch < self->set.version.epoch) {
        return;
    }
    self->counts.head_seq = news->version.seq;
    if (news->version.epoch > self->set.version.epoch) {
        s_suspect(self, now_mono_ms, random, &self->counts.epochs);
    } else if (news->version.seq > self->set.version.seq) {
        s_suspect(self, now_mono_ms, random, &self->counts.gaps);
    } else if (news->version.seq < self->set.version.seq) {
        return; /* a pull was faster: the next head proves it, or silence is looked into */
    } else if (news->format == DKT_CONTEXT_FORMAT &&
               news->hash != dkt_context_set_hash(&self->set)) {
        self->wrong = true;
        s_suspect(self, now_mono_ms, random, &self->counts.wrong_hashes);
    } else if (self->state != DKT_CONTEXT_PULLING && !self->wrong) {
        s_prove(self, now_mono_ms);
    }
}

static void s_on_news(dkt_context_t *self, int64_t now_mono_ms, const dkt_context_event_t *event,
                      dkt_context_out_t *out)
{
    if (event->news->kind == DKT_CONTEXT_HEAD) {
        s_take_head(self, now_mono_ms, event->random, event->news);
    } else {
        s_take_change(self, now_mono_ms, event->random, event->news, out);
    }
}

/* -- time -- */

static void s_on_tick_current(dkt_context_t *self, int64_t now_mono_ms,
                              const dkt_context_event_t *event, dkt_context_out_t *out)
{
    (void)out;
    if (now_mono_ms - self->heard_mono_ms >= DKT_CONTEXT_SILENCE_MS) {
        s_suspect(self, now_mono_ms, event->random, &self->counts.silences);
    }
}

static void s_on_tick_doubt(dkt_context_t *self, int64_t now_mono_ms,
                            const dkt_context_event_t *event, dkt_context_out_t *out)
{
    (void)event;
    if (now_mono_ms >= self->retry_mono_ms) {
        self->state = DKT_CONTEXT_PULLING;
        self->moved_mono_ms = now_mono_ms;
        self->begun = false;
        out->pull = true;
        out->whole = self->wrong;
    }
}

/* -- pulls -- */

static void s_on_failed(dkt_context_t *self, int64_t now_mono_ms, const dkt_context_event_t *event,
                        dkt_context_out_t *out)
{
    (void)out;
    self->failures++;
    self->counts.failures++;
    self->begun = false;
    dkt_context_set_fini(&self->next);
    s_drop_late(self);
    s_doubt(self, now_mono_ms, event->random);
}

static void s_on_tick_pulling(dkt_context_t *self, int64_t now_mono_ms,
                              const dkt_context_event_t *event, dkt_context_out_t *out)
{
    if (now_mono_ms - self->moved_mono_ms >= DKT_CONTEXT_PULL_MS) {
        s_on_failed(self, now_mono_ms, event, out);
    }
}

/* Of the same number in a new epoch: nothing was changed since, so only the epoch is new. */
static void s_on_same(dkt_context_t *self, int64_t now_mono_ms, const dkt_context_event_t *event,
                      dkt_context_out_t *out)
{
    if (event->version.seq != self->set.version.seq ||
        event->version.epoch < self->set.version.epoch) {
        s_on_failed(self, now_mono_ms, event, out);
        return;
    }
    self->set.version = event->version;
    self->counts.sames++;
    s_prove(self, now_mono_ms);
}

static void s_on_begin(dkt_context_t *self, int64_t now_mono_ms, const dkt_context_event_t *event,
                       dkt_context_out_t *out)
{
    (void)out;
    dkt_context_set_fini(&self->next);
    self->next.version = event->version;
    self->begun = true;
    self->moved_mono_ms = now_mono_ms;
}

static void s_on_record(dkt_context_t *self, int64_t now_mono_ms, const dkt_context_event_t *event,
                        dkt_context_out_t *out)
{
    self->moved_mono_ms = now_mono_ms;
    if (!self->begun || !dkt_context_set_put(&self->next, event->body)) {
        s_on_failed(self, now_mono_ms, event, out);
    }
}

static void s_on_table(dkt_context_t *self, int64_t now_mono_ms, const dkt_context_event_t *event,
                       dkt_context_out_t *out)
{
    bool changed = false;
    self->moved_mono_ms = now_mono_ms;
    if (!self->begun || !dkt_context_set_put_table(&self->next, event->body, &changed)) {
        s_on_failed(self, now_mono_ms, event, out);
    }
}

/* What was told since the pull was made, so that the new state is no older than the old one. */
static void s_apply_late(dkt_context_t *self)
{
    for (s_late_t *late = self->late; late; late = late->next) {
        dkt_context_news_t news;
        const dkt_context_version_t *at = &self->next.version;
        bool readable = dkt_context_read_news(late->bytes, late->len, &news);
        assert(readable); /* we wrote it */
        if (news.version.epoch == at->epoch && news.version.seq > at->seq && news.prev <= at->seq &&
            !s_apply(&self->next, &news)) {
            return; /* without memory: what is missing is a gap at the next head */
        }
    }
}

static void s_on_end(dkt_context_t *self, int64_t now_mono_ms, const dkt_context_event_t *event,
                     dkt_context_out_t *out)
{
    bool whole =
        self->begun && (!event->hashed || event->hash == dkt_context_set_hash(&self->next));
    if (whole) {
        s_apply_late(self);
    }
    /* Replicas only move forward. */
    if (!whole || dkt_context_version_compare(self->next.version, self->set.version) < 0) {
        s_on_failed(self, now_mono_ms, event, out);
        return;
    }
    out->table = self->next.table_hash != self->set.table_hash;
    dkt_context_set_fini(&self->set);
    self->set = self->next;
    self->next = (dkt_context_set_t){.count = 0};
    self->counts.swaps++;
    s_prove(self, now_mono_ms);
}

/* What belongs to a pull that was given up. */
static void s_ignore(dkt_context_t *self, int64_t now_mono_ms, const dkt_context_event_t *event,
                     dkt_context_out_t *out)
{
    (void)self;
    (void)now_mono_ms;
    (void)event;
    (void)out;
}

/* The leader's own replica reads every change where it is made: it asks for no pull and is told. */
static void s_on_told(dkt_context_t *self, int64_t now_mono_ms, const dkt_context_event_t *event,
                      dkt_context_out_t *out)
{
    (void)out;
    if (dkt_context_version_compare(event->version, self->set.version) == 0) {
        self->heard_mono_ms = now_mono_ms;
    }
}

static void s_on_recheck(dkt_context_t *self, int64_t now_mono_ms, const dkt_context_event_t *event,
                         dkt_context_out_t *out)
{
    (void)out;
    self->wrong = true;
    s_doubt(self, now_mono_ms, event->random);
}

typedef void(s_handler_fn)(dkt_context_t *self, int64_t now_mono_ms,
                           const dkt_context_event_t *event, dkt_context_out_t *out);

static s_handler_fn *const s_handlers[DKT_CONTEXT_STATE_COUNT][DKT_CONTEXT_EVENT_COUNT] = {
    [DKT_CONTEXT_CURRENT] = {[DKT_CONTEXT_NEWS] = s_on_news,
                             [DKT_CONTEXT_TICK] = s_on_tick_current,
                             [DKT_CONTEXT_RECHECK] = s_on_recheck,
                             [DKT_CONTEXT_PULL_SAME] = s_on_told,
                             [DKT_CONTEXT_PULL_BEGIN] = s_ignore,
                             [DKT_CONTEXT_PULL_RECORD] = s_ignore,
                             [DKT_CONTEXT_PULL_TABLE] = s_ignore,
                             [DKT_CONTEXT_PULL_END] = s_ignore,
                             [DKT_CONTEXT_PULL_FAILED] = s_ignore},
    [DKT_CONTEXT_DOUBT] = {[DKT_CONTEXT_NEWS] = s_on_news,
                           [DKT_CONTEXT_TICK] = s_on_tick_doubt,
                           [DKT_CONTEXT_RECHECK] = s_ignore,
                           [DKT_CONTEXT_PULL_SAME] = s_ignore,
                           [DKT_CONTEXT_PULL_BEGIN] = s_ignore,
                           [DKT_CONTEXT_PULL_RECORD] = s_ignore,
                           [DKT_CONTEXT_PULL_TABLE] = s_ignore,
                           [DKT_CONTEXT_PULL_END] = s_ignore,
                           [DKT_CONTEXT_PULL_FAILED] = s_ignore},
    [DKT_CONTEXT_PULLING] = {[DKT_CONTEXT_NEWS] = s_on_news,
                             [DKT_CONTEXT_TICK] = s_on_tick_pulling,
                             [DKT_CONTEXT_RECHECK] = s_ignore,
                             [DKT_CONTEXT_PULL_SAME] = s_on_same,
                             [DKT_CONTEXT_PULL_BEGIN] = s_on_begin,
                             [DKT_CONTEXT_PULL_RECORD] = s_on_record,
                             [DKT_CONTEXT_PULL_TABLE] = s_on_table,
                             [DKT_CONTEXT_PULL_END] = s_on_end,
                             [DKT_CONTEXT_PULL_FAILED] = s_on_failed},
};

void dkt_context_step(dkt_context_t *self, int64_t now_mono_ms, const dkt_context_event_t *event,
                      dkt_context_out_t *out)
{
    assert(event->kind < DKT_CONTEXT_EVENT_COUNT && self->state < DKT_CONTEXT_STATE_COUNT);
    *out = (dkt_context_out_t){.pull = false};
    s_handlers[self->state][event->kind](self, now_mono_ms, event, out);
}

int64_t dkt_context_due_mono_ms(const dkt_context_t *self)
{
    switch (self->state) {
    case DKT_CONTEXT_CURRENT:
        return self->heard_mono_ms + DKT_CONTEXT_SILENCE_MS;
    case DKT_CONTEXT_DOUBT:
        return self->retry_mono_ms;
    case DKT_CONTEXT_PULLING:
    case DKT_CONTEXT_STATE_COUNT:
        break;
    }
    return self->moved_mono_ms + DKT_CONTEXT_PULL_MS;
}

/* -- life -- */

dkt_context_t *dkt_context_new(int64_t now_mono_ms)
{
    dkt_context_t *self = calloc(1, sizeof *self);
    if (self) {
        self->state = DKT_CONTEXT_DOUBT;
        self->retry_mono_ms = now_mono_ms;
    }
    return self;
}

void dkt_context_destroy(dkt_context_t **self_p)
{
    dkt_context_t *self = *self_p;
    if (!self) {
        return;
    }
    *self_p = NULL;
    dkt_context_set_fini(&self->set);
    dkt_context_set_fini(&self->next);
    s_drop_late(self);
    free(self);
}

/* -- reading -- */

void dkt_context_info(const dkt_context_t *self, dkt_context_info_t *info)
{
    *info = self->counts;
    info->state = self->state;
    info->version = self->set.version;
    info->hash = dkt_context_set_hash(&self->set);
    info->records = self->set.count;
    info->heard_mono_ms = self->heard_mono_ms;
}

dkt_view_t dkt_context_bytes_at(const dkt_context_t *self, uint32_t index)
{
    dkt_view_t none = {.data = NULL, .len = 0};
    return index < self->set.count ? (dkt_view_t){.data = self->set.entries[index]->bytes,
                                                  .len = self->set.entries[index]->len}
                                   : none;
}

bool dkt_context_at(const dkt_context_t *self, uint32_t index, dkt_context_record_t *record)
{
    dkt_view_t bytes = dkt_context_bytes_at(self, index);
    return bytes.data && dkt_context_read_record(bytes.data, bytes.len, record);
}

bool dkt_context_find(const dkt_context_t *self, const dkt_client_t *client,
                      dkt_context_record_t *record)
{
    dkt_id_text_t id;
    uint32_t index = 0;
    dkt_client_text(client, &id);
    return dkt_context_set_find(&self->set, id.text, &index) && dkt_context_at(self, index, record);
}

uint32_t dkt_context_after(const dkt_context_t *self, const char *client_id)
{
    uint32_t index = 0;
    return dkt_context_set_find(&self->set, client_id, &index) ? index + 1 : index;
}

dkt_view_t dkt_context_table_bytes(const dkt_context_t *self)
{
    return (dkt_view_t){.data = self->set.table, .len = self->set.table ? self->set.table_len : 0};
}

bool dkt_context_table(const dkt_context_t *self, dkt_table_t *table)
{
    return self->set.table && dkt_context_set_read_table(dkt_context_table_bytes(self), table);
}

bool dkt_context_check(const dkt_context_t *self)
{
    uint64_t sum = 0;
    bool good = self->set.count <= self->set.max;
    for (uint32_t i = 0; i < self->set.count; i++) {
        const dkt_context_entry_t *entry = self->set.entries[i];
        dkt_context_record_t record;
        good = good && entry->hash == XXH64(entry->bytes, entry->len, 0) &&
               dkt_context_read_record(entry->bytes, entry->len, &record) &&
               (i == 0 || strcmp(self->set.entries[i - 1]->id, entry->id) < 0);
        sum += entry->hash;
    }
    return good && sum == self->set.sum;
}
