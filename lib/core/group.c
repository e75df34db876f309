/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/group.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/core/grow.h"

#define EVENTS_HEADER_BYTES 5   /* array32: the count is known only when the group is sealed */
#define EVENT_BYTES_MAX     256 /* type, three times, class name, traceparent, with their headers */
#define INDEX_MIN           32

static const char *const s_event_names[DKT_EVENT_COUNT] = {
#define X(name, text) text,
    DKT_EVENT_MAP(X)
#undef X
};

const char *dkt_event_name(dkt_event_type_t type)
{
    assert(type < DKT_EVENT_COUNT);
    return s_event_names[type];
}

void dkt_group_init(dkt_group_t *self)
{
    memset(self, 0, sizeof *self);
    self->not_after_ms = INT64_MAX;
}

void dkt_group_fini(dkt_group_t *self)
{
    free(self->effects);
    free(self->index);
    free(self->replies);
    free(self->answers);
    free(self->events);
    free(self->tags);
    free(self->handoff);
    free(self->frees);
    free(self->places);
    free(self->inserts);
    free(self->updates);
    dkt_group_init(self);
}

void dkt_group_reset(dkt_group_t *self)
{
    if (self->index) {
        memset(self->index, 0, self->index_max * sizeof *self->index);
    }
    self->effect_count = 0;
    self->reply_count = 0;
    self->answer_len = 0;
    self->event_len = 0;
    self->event_count = 0;
    self->text_bytes = 0;
    self->not_after_ms = INT64_MAX;
    self->sent_mono_ms = 0;
    self->solo = false;
    self->has_settings = false;
    self->has_password = false;
    self->has_revoked = false;
    self->handoff_len = 0;
}

bool dkt_group_readonly(const dkt_group_t *self)
{
    return self->effect_count == 0 && self->event_count == 0 && !self->has_settings &&
           !self->has_password && !self->has_revoked && self->handoff_len == 0;
}

bool dkt_group_empty(const dkt_group_t *self)
{
    return dkt_group_readonly(self) && self->reply_count == 0;
}

bool dkt_group_full(const dkt_group_t *self)
{
    return self->reply_count >= DKT_GROUP_REQUESTS_MAX || self->text_bytes >= DKT_GROUP_BYTES_MAX;
}

/* Fibonacci hashing: ticket numbers are consecutive. */
static uint32_t s_hash(uint64_t number, uint32_t mask)
{
    return (uint32_t)((number * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & mask;
}

static dkt_effect_t *s_find(const dkt_group_t *self, uint64_t number)
{
    if (!self->index) {
        return NULL;
    }
    uint32_t mask = self->index_max - 1;
    for (uint32_t i = s_hash(number, mask); self->index[i]; i = (i + 1) & mask) {
        dkt_effect_t *effect = &self->effects[self->index[i] - 1];
        if (effect->row.number == number) {
            return effect;
        }
    }
    return NULL;
}

static void s_index(dkt_group_t *self, uint32_t position)
{
    uint32_t mask = self->index_max - 1;
    uint32_t i = s_hash(self->effects[position].row.number, mask);
    while (self->index[i]) {
        i = (i + 1) & mask;
    }
    self->index[i] = position + 1;
}

/* Keeps the index at most half full. */
static bool s_grow_index(dkt_group_t *self)
{
    if (self->index && (self->effect_count + 1) * 2 <= self->index_max) {
        return true;
    }
    uint32_t max = self->index_max ? self->index_max * 2 : INDEX_MIN;
    uint32_t *index = calloc(max, sizeof *index);
    if (!index) {
        return false;
    }
    free(self->index);
    self->index = index;
    self->index_max = max;
    for (uint32_t i = 0; i < self->effect_count; i++) {
        s_index(self, i);
    }
    return true;
}

/* The effect of a ticket, made if there is none; NULL without memory. */
static dkt_effect_t *s_touch(dkt_group_t *self, uint64_t number)
{
    dkt_effect_t *effect = s_find(self, number);
    if (effect) {
        return effect;
    }
    if (!s_grow_index(self) || !dkt_grow((void **)&self->effects, &self->effect_max,
                                         self->effect_count + 1, sizeof *self->effects)) {
        return NULL;
    }
    effect = &self->effects[self->effect_count];
    memset(effect, 0, sizeof *effect);
    effect->row.number = number;
    s_index(self, self->effect_count);
    self->effect_count++;
    return effect;
}

const dkt_effect_t *dkt_group_find(const dkt_group_t *self, uint64_t number)
{
    return s_find(self, number);
}

const dkt_effect_t *dkt_group_find_nonce(const dkt_group_t *self, uint64_t nonce)
{
    for (uint32_t i = 0; i < self->effect_count; i++) {
        if (self->effects[i].inserted && self->effects[i].row.hold_nonce == nonce) {
            return &self->effects[i];
        }
    }
    return NULL;
}

static void s_watch(dkt_group_t *self, dkt_place_t place)
{
    int64_t start_ms = (int64_t)place.minute * DKT_MINUTE_MS;
    if (start_ms < self->not_after_ms) {
        self->not_after_ms = start_ms;
    }
}

bool dkt_group_insert(dkt_group_t *self, const dkt_ticket_row_t *row)
{
    assert(!s_find(self, row->number));
    dkt_effect_t *effect = s_touch(self, row->number);
    if (!effect) {
        return false;
    }
    effect->row = *row;
    effect->inserted = true;
    self->text_bytes += row->subject.len + row->payload.len;
    s_watch(self, row->place);
    return true;
}

bool dkt_group_free(dkt_group_t *self, uint64_t number, dkt_ticket_state_t state, int64_t at_ms,
                    bool breached)
{
    assert(state == DKT_TICKET_CANCELLED || state == DKT_TICKET_RESOLVED);
    dkt_effect_t *effect = s_touch(self, number);
    if (!effect) {
        return false;
    }
    assert(!effect->freed);
    effect->row.state = state;
    effect->row.has_lane = false;
    effect->row.breached = breached;
    if (state == DKT_TICKET_CANCELLED) {
        effect->row.cancelled_ms = at_ms;
    } else {
        effect->row.resolved_ms = at_ms;
    }
    effect->freed = true;
    effect->placed = false;
    effect->updated = false;
    return true;
}

bool dkt_group_place(dkt_group_t *self, uint64_t number, dkt_place_t place, bool booking)
{
    dkt_effect_t *effect = s_touch(self, number);
    if (!effect) {
        return false;
    }
    assert(!effect->freed);
    effect->row.place = place;
    effect->row.has_lane = true;
    effect->placed = true;
    if (booking) {
        s_watch(self, place);
    }
    return true;
}

bool dkt_group_update(dkt_group_t *self, const dkt_update_row_t *row)
{
    dkt_effect_t *effect = s_touch(self, row->number);
    if (!effect) {
        return false;
    }
    assert(!effect->freed);
    effect->row.state = row->state;
    effect->row.breached = row->breached;
    effect->row.at_risk = row->at_risk;
    if (row->dispatched_ms) {
        effect->row.dispatched_ms = row->dispatched_ms;
    }
    if (row->resolved_ms) {
        effect->row.resolved_ms = row->resolved_ms;
    }
    effect->updated = true;
    return true;
}

bool dkt_group_event(dkt_group_t *self, dkt_event_type_t type, uint64_t number, int64_t at_ms,
                     uint32_t minute, int64_t deadline_ms, const char *class_name,
                     dkt_view_t traceparent)
{
    if (self->event_len == 0) {
        self->event_len = EVENTS_HEADER_BYTES;
    }
    if (!dkt_grow((void **)&self->events, &self->event_max, self->event_len + EVENT_BYTES_MAX, 1) ||
        !dkt_grow((void **)&self->tags, &self->tag_max, self->event_count + 1,
                  sizeof *self->tags)) {
        return false;
    }
    dkt_w_t w = dkt_w_init(self->events + self->event_len, EVENT_BYTES_MAX);
    dkt_w_array(&w, 7);
    dkt_w_uint(&w, type);
    dkt_w_uint(&w, number);
    dkt_w_int(&w, at_ms);
    dkt_w_uint(&w, minute);
    dkt_w_int(&w, deadline_ms);
    dkt_w_cstr(&w, class_name);
    if (traceparent.data) {
        dkt_w_str(&w, (const char *)traceparent.data, traceparent.len);
    } else {
        dkt_w_nil(&w);
    }
    assert(!w.failed);
    self->event_len += (uint32_t)w.len;
    self->tags[self->event_count++] = 0;
    return true;
}

void dkt_group_tag(dkt_group_t *self, uint64_t tag)
{
    assert(self->event_count > 0);
    self->tags[self->event_count - 1] = tag;
}

bool dkt_group_reply(dkt_group_t *self, dkt_work_t *work, uint32_t memo, const uint8_t *bytes,
                     size_t len)
{
    if (!dkt_grow((void **)&self->replies, &self->reply_max, self->reply_count + 1,
                  sizeof *self->replies) ||
        !dkt_grow((void **)&self->answers, &self->answer_max, self->answer_len + (uint32_t)len,
                  1)) {
        return false;
    }
    memcpy(self->answers + self->answer_len, bytes, len);
    self->replies[self->reply_count++] =
        (dkt_reply_t){.work = work, .memo = memo, .at = self->answer_len, .len = (uint32_t)len};
    self->answer_len += (uint32_t)len;
    return true;
}

static bool s_seal_grow(dkt_group_t *self)
{
    uint32_t n = self->effect_count;
    return dkt_grow((void **)&self->frees, &self->free_max, n, sizeof *self->frees) &&
           dkt_grow((void **)&self->places, &self->place_max, n, sizeof *self->places) &&
           dkt_grow((void **)&self->inserts, &self->insert_max, n, sizeof *self->inserts) &&
           dkt_grow((void **)&self->updates, &self->update_max, n, sizeof *self->updates);
}

/* Which rows of the commit one effect becomes. */
static void s_seal_effect(dkt_group_t *self, const dkt_effect_t *effect, dkt_commit_t *commit)
{
    const dkt_ticket_row_t *row = &effect->row;
    if (effect->inserted) {
        self->inserts[commit->insert_count++] = *row;
        return;
    }
    if (effect->freed) {
        self->frees[commit->free_count++] = (dkt_free_row_t){
            .number = row->number,
            .state = row->state,
            .at_ms = row->state == DKT_TICKET_CANCELLED ? row->cancelled_ms : row->resolved_ms,
            .breached = row->breached};
        return;
    }
    if (effect->placed) {
        self->places[commit->park_count++] =
            (dkt_place_row_t){.number = row->number, .place = row->place};
    }
    if (effect->updated) {
        self->updates[commit->update_count++] =
            (dkt_update_row_t){.number = row->number,
                               .state = row->state,
                               .breached = row->breached,
                               .at_risk = row->at_risk,
                               .dispatched_ms = row->dispatched_ms,
                               .resolved_ms = row->resolved_ms};
    }
}

/* The array header in front of the events: always array32, written by hand in its fixed place. */
static dkt_view_t s_seal_events(dkt_group_t *self)
{
    if (self->event_count == 0) {
        return (dkt_view_t){.data = NULL, .len = 0};
    }
    const uint8_t array32 = 0xdd;
    self->events[0] = array32;
    for (int i = 1; i < EVENTS_HEADER_BYTES; i++) {
        self->events[i] = (uint8_t)(self->event_count >> (8 * (EVENTS_HEADER_BYTES - 1 - i)));
    }
    return (dkt_view_t){.data = self->events, .len = self->event_len};
}

bool dkt_group_seal(dkt_group_t *self, uint64_t journal_seq, int64_t now_ms, dkt_commit_t *commit)
{
    memset(commit, 0, sizeof *commit);
    if (!s_seal_grow(self)) {
        return false;
    }
    for (uint32_t i = 0; i < self->effect_count; i++) {
        s_seal_effect(self, &self->effects[i], commit);
    }
    commit->frees = self->frees;
    commit->places = self->places;
    commit->inserts = self->inserts;
    commit->updates = self->updates;
    commit->not_after_ms = self->not_after_ms;
    commit->journal_events = s_seal_events(self);
    commit->journal_tags = (dkt_view_t){.data = (const uint8_t *)self->tags,
                                        .len = self->event_count * (uint32_t)sizeof *self->tags};
    commit->journal_seq = self->event_count > 0 ? journal_seq : 0;
    commit->journal_at_ms = now_ms;
    commit->settings = self->has_settings ? &self->settings : NULL;
    commit->account_password = self->has_password ? self->account_password : NULL;
    commit->tokens_valid_from_ms = self->tokens_valid_from_ms;
    commit->revoke_token_id = self->has_revoked ? self->revoke_token_id : NULL;
    commit->revoke_expires_ms = self->revoke_expires_ms;
    if (self->handoff_len > 0) {
        commit->handoff = (dkt_view_t){.data = self->handoff, .len = self->handoff_len};
    }
    return true;
}
