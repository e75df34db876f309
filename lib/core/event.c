/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/event.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/core/proto_mp.h"

#define S_FIELDS       7
#define S_TEXT_MIN     4096
#define S_EVENT_BYTES  768 /* of one event in a batch, without what must be escaped */
#define S_MS_PER_S     1000
#define S_CONTROL_MAX  0x20
#define S_ESCAPE_BYTES 6 /* of a control character */

/* -- reading -- */

static bool s_uint(dkt_mp_t *mp, uint64_t max, uint64_t *out)
{
    dkt_mp_token_t token;
    if (!dkt_mp_next(mp, &token) || token.kind != DKT_MP_UINT || token.number > max) {
        return false;
    }
    *out = token.number;
    return true;
}

static bool s_begin(dkt_view_t row, dkt_mp_t *mp, uint32_t *count)
{
    dkt_mp_token_t token;
    *mp = (dkt_mp_t){.at = row.data, .end = row.data + row.len};
    if (!dkt_mp_next(mp, &token) || token.kind != DKT_MP_ARRAY) {
        return false;
    }
    *count = token.count;
    return true;
}

static bool s_next(dkt_mp_t *mp, dkt_event_t *event)
{
    dkt_mp_token_t token;
    uint64_t type, at_ms, minute, deadline_ms;
    if (!dkt_mp_next(mp, &token) || token.kind != DKT_MP_ARRAY || token.count != S_FIELDS ||
        !s_uint(mp, DKT_EVENT_COUNT - 1, &type) || !s_uint(mp, INT64_MAX, &event->number) ||
        !s_uint(mp, INT64_MAX, &at_ms) || !s_uint(mp, UINT32_MAX, &minute) ||
        !s_uint(mp, INT64_MAX, &deadline_ms) || !dkt_mp_next(mp, &token) ||
        token.kind != DKT_MP_STR) {
        return false;
    }
    event->type = (dkt_event_type_t)type;
    event->at_ms = (int64_t)at_ms;
    event->minute = (uint32_t)minute;
    event->deadline_ms = (int64_t)deadline_ms;
    event->class_name = token.view;
    if (!dkt_mp_next(mp, &token) || (token.kind != DKT_MP_STR && token.kind != DKT_MP_NIL)) {
        return false;
    }
    event->traceparent = token.kind == DKT_MP_STR ? token.view : (dkt_view_t){.data = NULL};
    return true;
}

bool dkt_event_count(dkt_view_t row, uint32_t counts[DKT_EVENT_COUNT])
{
    dkt_mp_t mp;
    dkt_event_t event;
    uint32_t count = 0;
    memset(counts, 0, DKT_EVENT_COUNT * sizeof *counts);
    if (row.len == 0) {
        return true;
    }
    if (!s_begin(row, &mp, &count)) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (!s_next(&mp, &event)) {
            return false;
        }
        counts[event.type]++;
    }
    return mp.at == mp.end;
}

/* -- slices -- */

static uint32_t s_parts(uint32_t count)
{
    return (count + DKT_RELAY_EVENTS_MAX - 1) / DKT_RELAY_EVENTS_MAX;
}

uint32_t dkt_event_messages(const uint32_t counts[DKT_EVENT_COUNT])
{
    uint32_t messages = 0;
    for (int type = 0; type < DKT_EVENT_COUNT; type++) {
        messages += s_parts(counts[type]);
    }
    return messages;
}

dkt_event_slice_t dkt_event_slice(const uint32_t counts[DKT_EVENT_COUNT], uint32_t index)
{
    int type = 0;
    while (index >= s_parts(counts[type])) {
        index -= s_parts(counts[type]);
        type++;
        assert(type < DKT_EVENT_COUNT);
    }
    uint32_t first = index * DKT_RELAY_EVENTS_MAX, rest = counts[type] - first;
    return (dkt_event_slice_t){.type = (dkt_event_type_t)type,
                               .part = index,
                               .first = first,
                               .count = rest < DKT_RELAY_EVENTS_MAX ? rest : DKT_RELAY_EVENTS_MAX};
}

void dkt_event_subject(const dkt_client_t *client, dkt_event_type_t type,
                       char out[DKT_EVENT_SUBJECT_BYTES_MAX])
{
    dkt_id_text_t id;
    dkt_client_text(client, &id);
    snprintf(out, DKT_EVENT_SUBJECT_BYTES_MAX, "docket.event.%s.%s", id.text, dkt_event_name(type));
}

void dkt_event_message_id(const dkt_client_t *client, uint64_t seq, const dkt_event_slice_t *slice,
                          char out[DKT_EVENT_ID_BYTES_MAX])
{
    dkt_id_text_t id;
    dkt_client_text(client, &id);
    int len = snprintf(out, DKT_EVENT_ID_BYTES_MAX, "%s:%" PRIu64 ":%s", id.text, seq,
                       dkt_event_name(slice->type));
    if (slice->part > 0) {
        snprintf(out + len, DKT_EVENT_ID_BYTES_MAX - (size_t)len, ":%u", slice->part);
    }
}

/* -- writing -- */

static bool s_room(dkt_text_buf_t *out, size_t more)
{
    if (out->max - out->len >= more) {
        return true;
    }
    size_t max = out->max ? out->max * 2 : S_TEXT_MIN;
    while (max - out->len < more) {
        max *= 2;
    }
    char *data = realloc(out->data, max);
    if (!data) {
        out->failed = true;
        return false;
    }
    out->data = data;
    out->max = max;
    return true;
}

__attribute__((format(printf, 2, 3))) static void s_put(dkt_text_buf_t *out, const char *format,
                                                        ...)
{
    va_list list;
    if (out->failed || !s_room(out, S_EVENT_BYTES)) {
        return;
    }
    va_start(list, format);
    int len = vsnprintf(out->data + out->len, S_EVENT_BYTES, format, list);
    va_end(list);
    assert(len >= 0 && len < S_EVENT_BYTES);
    out->len += (size_t)len;
}

/* A JSON string. The text is valid UTF-8: only quotes, backslashes and controls need an escape. */
static void s_put_text(dkt_text_buf_t *out, dkt_view_t text)
{
    static const char hex[] = "0123456789abcdef";
    if (out->failed || !s_room(out, (size_t)text.len * S_ESCAPE_BYTES + 2)) {
        return;
    }
    char *at = out->data + out->len;
    *at++ = '"';
    for (uint32_t i = 0; i < text.len; i++) {
        uint8_t letter = text.data[i];
        if (letter < S_CONTROL_MAX) {
            memcpy(at, "\\u00", 4);
            at[4] = hex[letter >> 4];
            at[5] = hex[letter & 15];
            at += S_ESCAPE_BYTES;
        } else {
            if (letter == '"' || letter == '\\') {
                *at++ = '\\';
            }
            *at++ = (char)letter;
        }
    }
    *at++ = '"';
    out->len = (size_t)(at - out->data);
}

static void s_put_event(dkt_text_buf_t *out, const dkt_keyring_t *keys, const dkt_client_t *client,
                        const char *source, const char *id, uint32_t index,
                        const dkt_event_t *event)
{
    dkt_id_text_t ticket;
    struct tm utc;
    time_t seconds = (time_t)(event->at_ms / S_MS_PER_S);
    dkt_ticket_text(keys, client, event->number, &ticket);
    gmtime_r(&seconds, &utc);
    s_put(out,
          "{\"specversion\":\"1.0\",\"id\":\"%s:%u\",\"source\":\"/docket/tenants/%s\","
          "\"type\":\"" DKT_EVENT_TYPE_PREFIX "%s\",\"subject\":\"%s\","
          "\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\","
          "\"datacontenttype\":\"application/json\"",
          id, index, source, dkt_event_name(event->type), ticket.text, utc.tm_year + 1900,
          utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
          (int)(event->at_ms % S_MS_PER_S));
    if (event->traceparent.data) {
        s_put(out, ",\"traceparent\":");
        s_put_text(out, event->traceparent);
    }
    s_put(out, ",\"data\":{\"ticket_type\":");
    s_put_text(out, event->class_name);
    s_put(out, ",\"slot_start_ms\":%" PRId64 ",\"deadline_ms\":%" PRId64 "}}",
          (int64_t)event->minute * DKT_MINUTE_MS, event->deadline_ms);
}

bool dkt_event_batch(const dkt_keyring_t *keys, const dkt_client_t *client, uint64_t seq,
                     dkt_view_t row, const dkt_event_slice_t *slice, dkt_text_buf_t *out)
{
    dkt_mp_t mp;
    dkt_event_t event;
    dkt_id_text_t source;
    char id[DKT_EVENT_ID_BYTES_MAX];
    uint32_t count = 0, seen = 0;
    dkt_event_slice_t whole = *slice;
    whole.part = 0; /* an event's own number goes on across the parts */
    dkt_event_message_id(client, seq, &whole, id);
    dkt_client_text(client, &source);
    out->len = 0;
    out->failed = false;
    if (!s_begin(row, &mp, &count)) {
        return false;
    }
    s_put(out, "[");
    for (uint32_t i = 0; i < count && seen < slice->first + slice->count; i++) {
        if (!s_next(&mp, &event)) {
            return false;
        }
        if (event.type == slice->type && seen++ >= slice->first) {
            s_put(out, seen > slice->first + 1 ? "," : "");
            s_put_event(out, keys, client, source.text, id, seen - 1, &event);
        }
    }
    s_put(out, "]");
    return !out->failed;
}
