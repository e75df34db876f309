/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading and writing of the link between brokers and workers. The bytes of a peer are never
 * trusted: every length is compared with what is left, every index with its table, before use.
 *
 *   request  seq 8 | budget 4 | origin 1 | method 1 | vshard 2 | token id 16 | issued 8 | expires 8
 *            | length 4 | body
 *   answer   seq 8 | outcome 1 | zero 3 | length 4 | body
 *   node     length 2 | text
 *   table    epoch 8 | version 8 | members 2 | keys 2 | incarnation 16 .. | owner 2 * DKT_VSHARDS
 *            | (kid 4 | public key 32) ..
 */
#include "lib/core/link.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

#define S_COUNT_AT      2 /* where the header has its count */
#define S_REQUEST_BYTES 52
#define S_ANSWER_BYTES  16
#define S_ANSWER_ZEROES 3

/* -- writing ---------------------------------------------------------------------------------- */

static void s_put_bytes(dkt_w_t *w, const void *bytes, size_t len)
{
    if (w->failed || len > w->max - w->len) {
        w->failed = true;
        return;
    }
    if (len > 0) {
        memcpy(w->data + w->len, bytes, len);
        w->len += len;
    }
}

/* Inline, so that `width`, a constant everywhere, makes it a store. */
static inline void s_put_uint(dkt_w_t *w, uint64_t value, size_t width)
{
    uint64_t little = htole64(value);
    if (w->failed || width > w->max - w->len) {
        w->failed = true;
        return;
    }
    memcpy(w->data + w->len, &little, width);
    w->len += width;
}

static void s_put_view(dkt_w_t *w, dkt_view_t view)
{
    uint32_t len = view.data ? view.len : 0;
    s_put_uint(w, len, 4);
    s_put_bytes(w, view.data, len);
}

static void s_put_version(dkt_w_t *w, dkt_table_version_t version)
{
    s_put_uint(w, version.epoch, 8);
    s_put_uint(w, version.version, 8);
}

void dkt_link_begin(dkt_w_t *w, dkt_link_kind_t kind, dkt_table_version_t table,
                    const dkt_incarnation_t *sender)
{
    assert(w->len == 0 && "a link message starts its buffer");
    s_put_uint(w, DKT_LINK_VERSION, 1);
    s_put_uint(w, kind, 1);
    s_put_uint(w, 0, 2);
    s_put_uint(w, 0, 4);
    s_put_version(w, table);
    s_put_bytes(w, sender->bytes, sizeof sender->bytes);
}

void dkt_link_finish(dkt_w_t *w, uint16_t count)
{
    if (!w->failed && w->len >= DKT_LINK_HEADER_BYTES) {
        w->data[S_COUNT_AT] = (uint8_t)count;
        w->data[S_COUNT_AT + 1] = (uint8_t)(count >> 8);
    }
}

size_t dkt_link_request_bytes(const dkt_link_request_t *request)
{
    return S_REQUEST_BYTES + (size_t)request->body.len;
}

size_t dkt_link_answer_bytes(const dkt_link_answer_t *answer)
{
    return S_ANSWER_BYTES + (size_t)answer->body.len;
}

void dkt_link_put_request(dkt_w_t *w, const dkt_link_request_t *request)
{
    s_put_uint(w, request->seq, 8);
    s_put_uint(w, request->budget_left_ms, 4);
    s_put_uint(w, request->origin, 1);
    s_put_uint(w, request->method, 1);
    s_put_uint(w, request->vshard, 2);
    s_put_bytes(w, request->token_id, sizeof request->token_id);
    s_put_uint(w, (uint64_t)request->token_issued_ms, 8);
    s_put_uint(w, (uint64_t)request->token_expires_ms, 8);
    s_put_view(w, request->body);
}

void dkt_link_put_answer(dkt_w_t *w, const dkt_link_answer_t *answer)
{
    s_put_uint(w, answer->seq, 8);
    s_put_uint(w, answer->outcome, 1);
    s_put_uint(w, 0, S_ANSWER_ZEROES);
    s_put_view(w, answer->body);
}

void dkt_link_put_node(dkt_w_t *w, const char *node)
{
    size_t len = strlen(node);
    if (len > UINT16_MAX) {
        w->failed = true;
        return;
    }
    s_put_uint(w, len, 2);
    s_put_bytes(w, node, len);
}

void dkt_link_put_table(dkt_w_t *w, const dkt_table_t *table)
{
    assert(table->member_count <= DKT_MEMBERS_MAX && table->key_count <= DKT_TOKEN_KEYS_MAX);
    s_put_version(w, table->version);
    s_put_uint(w, table->member_count, 2);
    s_put_uint(w, table->key_count, 2);
    for (uint16_t i = 0; i < table->member_count; i++) {
        s_put_bytes(w, table->members[i].bytes, DKT_INCARNATION_BYTES);
    }
    for (uint16_t i = 0; i < DKT_VSHARDS; i++) {
        s_put_uint(w, table->owner[i], 2);
    }
    for (uint32_t i = 0; i < table->key_count; i++) {
        s_put_uint(w, table->keys[i].kid, 4);
        s_put_bytes(w, table->keys[i].public_key, sizeof table->keys[i].public_key);
    }
}

/* -- reading ---------------------------------------------------------------------------------- */

static bool s_fail(dkt_r_t *r)
{
    r->failed = true;
    return false;
}

/* The next `len` bytes, NULL if they are not there. */
static inline const uint8_t *s_get_bytes(dkt_r_t *r, size_t len)
{
    if (r->failed || len > r->len - r->at) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *bytes = r->data + r->at;
    r->at += len;
    return bytes;
}

/* 0 once the cursor has failed. */
static inline uint64_t s_get_uint(dkt_r_t *r, size_t width)
{
    const uint8_t *bytes = s_get_bytes(r, width);
    uint64_t little = 0;
    if (bytes) {
        memcpy(&little, bytes, width);
    }
    return le64toh(little);
}

static void s_get_copy(dkt_r_t *r, void *out, size_t len)
{
    const uint8_t *bytes = s_get_bytes(r, len);
    if (bytes) {
        memcpy(out, bytes, len);
    }
}

static dkt_view_t s_get_view(dkt_r_t *r)
{
    dkt_view_t view = {.data = NULL, .len = (uint32_t)s_get_uint(r, 4)};
    view.data = s_get_bytes(r, view.len);
    return view;
}

static dkt_table_version_t s_get_version(dkt_r_t *r)
{
    uint64_t epoch = s_get_uint(r, 8);
    return (dkt_table_version_t){.epoch = epoch, .version = s_get_uint(r, 8)};
}

bool dkt_link_open(dkt_r_t *r, const uint8_t *data, size_t len, dkt_link_header_t *header)
{
    *r = (dkt_r_t){.data = data, .at = 0, .len = len, .failed = false};
    uint64_t version = s_get_uint(r, 1);
    header->kind = (uint8_t)s_get_uint(r, 1);
    header->count = (uint16_t)s_get_uint(r, 2);
    uint64_t zero = s_get_uint(r, 4);
    header->table = s_get_version(r);
    s_get_copy(r, header->sender.bytes, sizeof header->sender.bytes);
    if (r->failed || version != DKT_LINK_VERSION || zero != 0 || header->kind < DKT_LINK_HELLO ||
        header->kind > DKT_LINK_REQUESTS) {
        return s_fail(r);
    }
    return true;
}

bool dkt_link_get_request(dkt_r_t *r, dkt_link_request_t *request)
{
    request->seq = s_get_uint(r, 8);
    request->budget_left_ms = (uint32_t)s_get_uint(r, 4);
    request->origin = (uint8_t)s_get_uint(r, 1);
    request->method = (uint8_t)s_get_uint(r, 1);
    request->vshard = (uint16_t)s_get_uint(r, 2);
    s_get_copy(r, request->token_id, sizeof request->token_id);
    request->token_issued_ms = (int64_t)s_get_uint(r, 8);
    request->token_expires_ms = (int64_t)s_get_uint(r, 8);
    request->body = s_get_view(r);
    if (r->failed || request->method >= DKT_METHOD_COUNT || request->vshard >= DKT_VSHARDS ||
        (request->origin != DKT_AUDIENCE_PUBLIC && request->origin != DKT_AUDIENCE_INTERNAL)) {
        return s_fail(r);
    }
    return true;
}

bool dkt_link_get_answer(dkt_r_t *r, dkt_link_answer_t *answer)
{
    answer->seq = s_get_uint(r, 8);
    answer->outcome = (uint8_t)s_get_uint(r, 1);
    uint64_t zero = s_get_uint(r, S_ANSWER_ZEROES);
    answer->body = s_get_view(r);
    if (r->failed || zero != 0 || answer->outcome > DKT_OUTCOME_MOVED) {
        return s_fail(r);
    }
    return true;
}

bool dkt_link_get_node(dkt_r_t *r, char *node, size_t node_bytes)
{
    size_t len = (size_t)s_get_uint(r, 2);
    const uint8_t *text = s_get_bytes(r, len);
    if (!text || len >= node_bytes || memchr(text, 0, len)) {
        return s_fail(r);
    }
    memcpy(node, text, len);
    node[len] = '\0';
    return true;
}

static bool s_get_owners(dkt_r_t *r, dkt_table_t *table)
{
    for (uint16_t i = 0; i < DKT_VSHARDS; i++) {
        table->owner[i] = (uint16_t)s_get_uint(r, 2);
        if (table->owner[i] >= table->member_count && table->owner[i] != DKT_VSHARD_NOBODY) {
            return s_fail(r);
        }
    }
    return !r->failed;
}

bool dkt_link_get_table(dkt_r_t *r, dkt_table_t *table)
{
    table->version = s_get_version(r);
    table->member_count = (uint16_t)s_get_uint(r, 2);
    table->key_count = (uint32_t)s_get_uint(r, 2);
    if (r->failed || table->member_count > DKT_MEMBERS_MAX ||
        table->key_count > DKT_TOKEN_KEYS_MAX) {
        return s_fail(r);
    }
    for (uint16_t i = 0; i < table->member_count; i++) {
        s_get_copy(r, table->members[i].bytes, DKT_INCARNATION_BYTES);
    }
    if (!s_get_owners(r, table)) {
        return false;
    }
    for (uint32_t i = 0; i < table->key_count; i++) {
        table->keys[i].kid = (uint32_t)s_get_uint(r, 4);
        s_get_copy(r, table->keys[i].public_key, sizeof table->keys[i].public_key);
    }
    return !r->failed;
}

bool dkt_link_end(const dkt_r_t *r)
{
    return !r->failed && r->at == r->len;
}
