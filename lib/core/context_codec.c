/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes of tenant context. The order of the fields is the format's; golden bytes of both are in
 * schemas/messages/context.
 *
 *   record  format 1 | flags 1 | client 12 | revision 8 | created_ms 8 | port 2 | resolvers 2
 *           | classes 1 | (level 2 | limit 2 | name text) .. | cluster, host, database, sub_domain,
 *           name, email as texts
 *   news    format 1 | kind 1 | zero 2 | epoch 8 | prev 8 | seq 8, then by kind
 *           RECORD: the record    GONE: client 12    TABLE: the table    HEAD: hash 8 | records 4
 *   text    length 2 | bytes
 */
#include "lib/core/context.h"

#include <string.h>

#define S_FLAG_SUSPENDED 1u
#define S_FLAG_REBOOKING 2u
#define S_RECORD_CLIENT  2 /* where a record has its client */

/* -- record -- */

void dkt_context_put_record(dkt_w_t *w, const dkt_context_record_t *record)
{
    const dkt_settings_t *settings = &record->settings;
    const char *const texts[] = {record->cluster,    record->host, record->database,
                                 record->sub_domain, record->name, record->email};
    dkt_cursor_put_uint(w, DKT_CONTEXT_FORMAT, 1);
    dkt_cursor_put_uint(w,
                        (record->suspended ? S_FLAG_SUSPENDED : 0) |
                            (settings->rebooking ? S_FLAG_REBOOKING : 0),
                        1);
    dkt_cursor_put_bytes(w, record->client.bytes, sizeof record->client.bytes);
    dkt_cursor_put_uint(w, record->revision, 8);
    dkt_cursor_put_uint(w, (uint64_t)record->created_ms, 8);
    dkt_cursor_put_uint(w, record->port, 2);
    dkt_cursor_put_uint(w, settings->resolvers, 2);
    dkt_cursor_put_uint(w, settings->class_count, 1);
    for (uint8_t i = 0; i < settings->class_count; i++) {
        dkt_cursor_put_uint(w, settings->classes[i].level_minutes, 2);
        dkt_cursor_put_uint(w, settings->classes[i].limit_permille, 2);
        dkt_cursor_put_text(w, settings->classes[i].name);
    }
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        dkt_cursor_put_text(w, texts[i]);
    }
}

static void s_get_settings(dkt_r_t *r, dkt_settings_t *settings)
{
    settings->resolvers = (uint16_t)dkt_cursor_get_uint(r, 2);
    settings->class_count = (uint8_t)dkt_cursor_get_uint(r, 1);
    if (settings->class_count > DKT_CLASSES_MAX) {
        (void)dkt_cursor_fail(r);
        return;
    }
    for (uint8_t i = 0; i < settings->class_count; i++) {
        dkt_class_t *row = &settings->classes[i];
        row->level_minutes = (uint16_t)dkt_cursor_get_uint(r, 2);
        row->limit_permille = (uint16_t)dkt_cursor_get_uint(r, 2);
        (void)dkt_cursor_get_text(r, row->name, sizeof row->name);
    }
}

bool dkt_context_read_record(const uint8_t *bytes, size_t len, dkt_context_record_t *record)
{
    dkt_r_t r = {.data = bytes, .len = len};
    memset(record, 0, sizeof *record);
    uint64_t format = dkt_cursor_get_uint(&r, 1);
    uint64_t flags = dkt_cursor_get_uint(&r, 1);
    record->suspended = (flags & S_FLAG_SUSPENDED) != 0;
    record->settings.rebooking = (flags & S_FLAG_REBOOKING) != 0;
    dkt_cursor_get_copy(&r, record->client.bytes, sizeof record->client.bytes);
    record->revision = dkt_cursor_get_uint(&r, 8);
    record->created_ms = (int64_t)dkt_cursor_get_uint(&r, 8);
    record->port = (uint16_t)dkt_cursor_get_uint(&r, 2);
    s_get_settings(&r, &record->settings);
    (void)dkt_cursor_get_text(&r, record->cluster, sizeof record->cluster);
    (void)dkt_cursor_get_text(&r, record->host, sizeof record->host);
    (void)dkt_cursor_get_text(&r, record->database, sizeof record->database);
    (void)dkt_cursor_get_text(&r, record->sub_domain, sizeof record->sub_domain);
    (void)dkt_cursor_get_text(&r, record->name, sizeof record->name);
    (void)dkt_cursor_get_text(&r, record->email, sizeof record->email);
    /* A newer format has more behind what is known here; this one has not. */
    return !r.failed && len <= DKT_CONTEXT_RECORD_BYTES_MAX &&
           (format > DKT_CONTEXT_FORMAT || (format == DKT_CONTEXT_FORMAT && r.at == r.len));
}

/* -- news -- */

void dkt_context_put_news(dkt_w_t *w, const dkt_context_news_t *news)
{
    dkt_cursor_put_uint(w, DKT_CONTEXT_FORMAT, 1);
    dkt_cursor_put_uint(w, news->kind, 1);
    dkt_cursor_put_uint(w, 0, 2);
    dkt_cursor_put_uint(w, news->version.epoch, 8);
    dkt_cursor_put_uint(w, news->prev, 8);
    dkt_cursor_put_uint(w, news->version.seq, 8);
    switch (news->kind) {
    case DKT_CONTEXT_RECORD:
    case DKT_CONTEXT_TABLE:
        dkt_cursor_put_bytes(w, news->body.data, news->body.len);
        break;
    case DKT_CONTEXT_GONE:
        dkt_cursor_put_bytes(w, news->client.bytes, sizeof news->client.bytes);
        break;
    case DKT_CONTEXT_HEAD:
        dkt_cursor_put_uint(w, news->hash, 8);
        dkt_cursor_put_uint(w, news->records, 4);
        break;
    }
}

static dkt_view_t s_get_rest(dkt_r_t *r)
{
    dkt_view_t rest = {.data = NULL, .len = (uint32_t)(r->len - r->at)};
    rest.data = dkt_cursor_get_bytes(r, rest.len);
    return rest;
}

/* The record itself is read where it is used; its client must be there at least. */
static void s_get_body(dkt_r_t *r, dkt_context_news_t *news)
{
    dkt_r_t record;
    switch (news->kind) {
    case DKT_CONTEXT_RECORD:
        news->body = s_get_rest(r);
        record = (dkt_r_t){.data = news->body.data, .len = news->body.len};
        (void)dkt_cursor_get_bytes(&record, S_RECORD_CLIENT);
        dkt_cursor_get_copy(&record, news->client.bytes, sizeof news->client.bytes);
        r->failed = r->failed || record.failed;
        break;
    case DKT_CONTEXT_TABLE:
        news->body = s_get_rest(r);
        break;
    case DKT_CONTEXT_GONE:
        dkt_cursor_get_copy(r, news->client.bytes, sizeof news->client.bytes);
        break;
    case DKT_CONTEXT_HEAD:
        news->hash = dkt_cursor_get_uint(r, 8);
        news->records = (uint32_t)dkt_cursor_get_uint(r, 4);
        break;
    default:
        (void)dkt_cursor_fail(r);
    }
}

bool dkt_context_read_news(const uint8_t *bytes, size_t len, dkt_context_news_t *news)
{
    dkt_r_t r = {.data = bytes, .len = len};
    memset(news, 0, sizeof *news);
    news->format = (uint8_t)dkt_cursor_get_uint(&r, 1);
    news->kind = (dkt_context_kind_t)dkt_cursor_get_uint(&r, 1);
    uint64_t zero = dkt_cursor_get_uint(&r, 2);
    news->version.epoch = dkt_cursor_get_uint(&r, 8);
    news->prev = dkt_cursor_get_uint(&r, 8);
    news->version.seq = dkt_cursor_get_uint(&r, 8);
    if (r.failed || news->format == 0 || zero != 0 || news->prev > news->version.seq ||
        len > DKT_CONTEXT_NEWS_BYTES_MAX) {
        return false;
    }
    s_get_body(&r, news);
    return !r.failed && (r.at == r.len || news->format > DKT_CONTEXT_FORMAT);
}
