/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/event.h"

#include <assert.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "lib/core/proto_mp.h"
#include "lib/core/text.h"

#define S_FIELDS       7
#define S_TEXT_MIN     4096
#define S_MS_PER_S     1000
#define S_MS_DIGITS    3
#define S_CONTROL_MAX  0x20
#define S_ESCAPE_BYTES 6 /* of a control character */

/* The fixed parts of an event, in their order. */
#define S_JSON_BEGIN   "{\"specversion\":\"1.0\",\"id\":\""
#define S_JSON_SOURCE  "\",\"source\":\"/docket/tenants/"
#define S_JSON_TYPE    "\",\"type\":\"" DKT_EVENT_TYPE_PREFIX
#define S_JSON_SUBJECT "\",\"subject\":\""
#define S_JSON_TIME    "\",\"time\":\""
#define S_JSON_FORMAT  "Z\",\"datacontenttype\":\"application/json\""
#define S_JSON_TRACE   ",\"traceparent\":"
#define S_JSON_DATA    ",\"data\":{\"ticket_type\":"
#define S_JSON_SLOT    ",\"slot_start_ms\":"
#define S_JSON_DUE     ",\"deadline_ms\":"
#define S_JSON_END     "}}"

#define S_NAME_CHARS_MAX 15 /* of a type, see DKT_EVENT_MAP */
#define S_HEAD_BYTES_MAX (sizeof S_JSON_BEGIN + DKT_EVENT_ID_BYTES_MAX)
#define S_MIDDLE_BYTES_MAX                                                                         \
    (sizeof S_JSON_SOURCE + DKT_CLIENT_CHARS + sizeof S_JSON_TYPE + S_NAME_CHARS_MAX +             \
     sizeof S_JSON_SUBJECT)
/* An event without class and traceparent, which may have to be escaped; and a comma before it. */
#define S_EVENT_BYTES_MAX                                                                          \
    (1 + S_HEAD_BYTES_MAX + DKT_TEXT_UINT_CHARS_MAX + S_MIDDLE_BYTES_MAX + DKT_ID_CHARS_MAX +      \
     sizeof S_JSON_TIME + DKT_TEXT_UTC_CHARS_MAX + 1 + S_MS_DIGITS + sizeof S_JSON_FORMAT +        \
     sizeof S_JSON_TRACE + sizeof S_JSON_DATA + sizeof S_JSON_SLOT + DKT_TEXT_UINT_CHARS_MAX +     \
     sizeof S_JSON_DUE + DKT_TEXT_UINT_CHARS_MAX + sizeof S_JSON_END)

/* -- reading -- */

static bool s_any_uint(dkt_mp_t *mp, uint64_t max, uint64_t *out)
{
    dkt_mp_token_t token;
    if (!dkt_mp_next(mp, &token) || token.kind != DKT_MP_UINT || token.number > max) {
        return false;
    }
    *out = token.number;
    return true;
}

/* Most of an event are numbers: where nine bytes are left, one is a load, whatever its width. */
static inline bool s_uint(dkt_mp_t *mp, uint64_t max, uint64_t *out)
{
    const uint8_t *at = mp->at;
    uint64_t word;
    if (dkt_mp_left(mp) <= sizeof word || *at < DKT_MP_UINT8 || *at > DKT_MP_UINT64) {
        return s_any_uint(mp, max, out);
    }
    unsigned width = 1U << (*at - DKT_MP_UINT8);
    memcpy(&word, at + 1, sizeof word);
    *out = be64toh(word) >> (64 - 8 * width);
    mp->at = at + 1 + width;
    return *out <= max;
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
    event->traceparent = (dkt_view_t){.data = NULL};
    if (mp->at < mp->end && *mp->at == DKT_MP_NIL_BYTE) {
        mp->at++;
        return true;
    }
    if (!dkt_mp_next(mp, &token) || token.kind != DKT_MP_STR) {
        return false;
    }
    event->traceparent = token.view;
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

static char *s_put_name(char *at, dkt_event_type_t type)
{
    const char *name = dkt_event_name(type);
    size_t len = strlen(name);
    assert(len <= S_NAME_CHARS_MAX);
    return dkt_text_put(at, name, len);
}

static char *s_put_client(char *at, const dkt_client_t *client)
{
    dkt_id_text_t id;
    dkt_client_text(client, &id);
    return dkt_text_put(at, id.text, DKT_CLIENT_CHARS);
}

/* "<client_id>:<seq>:<type>" */
static char *s_put_id(char *at, const dkt_client_t *client, uint64_t seq, dkt_event_type_t type)
{
    at = s_put_client(at, client);
    *at++ = ':';
    at = dkt_text_uint(at, seq);
    *at++ = ':';
    return s_put_name(at, type);
}

void dkt_event_subject(const dkt_client_t *client, dkt_event_type_t type,
                       char out[DKT_EVENT_SUBJECT_BYTES_MAX])
{
    char *at = DKT_TEXT_PUT(out, "docket.event.");
    at = s_put_client(at, client);
    *at++ = '.';
    at = s_put_name(at, type);
    *at = '\0';
}

void dkt_event_message_id(const dkt_client_t *client, uint64_t seq, const dkt_event_slice_t *slice,
                          char out[DKT_EVENT_ID_BYTES_MAX])
{
    char *at = s_put_id(out, client, seq, slice->type);
    if (slice->part > 0) {
        *at++ = ':';
        at = dkt_text_uint(at, slice->part);
    }
    *at = '\0';
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
        return false;
    }
    out->data = data;
    out->max = max;
    return true;
}

/* A JSON string. The text is valid UTF-8: only quotes, backslashes and controls need an escape. */
static char *s_put_string(char *at, dkt_view_t text)
{
    static const char hex[] = "0123456789abcdef";
    *at++ = '"';
    for (uint32_t i = 0; i < text.len; i++) {
        uint8_t letter = text.data[i];
        if (letter < S_CONTROL_MAX) {
            at = DKT_TEXT_PUT(at, "\\u00");
            *at++ = hex[letter >> 4];
            *at++ = hex[letter & 15];
        } else {
            if (letter == '"' || letter == '\\') {
                *at++ = '\\';
            }
            *at++ = (char)letter;
        }
    }
    *at++ = '"';
    return at;
}

/* A number and its text, which is made again only when the number is another one. */
typedef struct {
    uint64_t value;
    size_t len;
    char text[DKT_TEXT_UINT_CHARS_MAX];
} s_kept_t;

static char *s_put_kept(char *at, s_kept_t *kept, uint64_t value)
{
    if (value != kept->value || kept->len == 0) {
        kept->value = value;
        kept->len = (size_t)(dkt_text_uint(kept->text, value) - kept->text);
    }
    return dkt_text_put(at, kept->text, kept->len);
}

/* What the events of one batch have in common, as text, and of the last one what the next one most
 * likely has as well. */
typedef struct {
    const dkt_keyring_t *keys;
    const dkt_client_t *client;
    size_t head_len, middle_len, time_len;
    int64_t second;
    s_kept_t slot, deadline;
    char head[S_HEAD_BYTES_MAX];     /* up to the event's own number */
    char middle[S_MIDDLE_BYTES_MAX]; /* from there to the ticket */
    char time[DKT_TEXT_UTC_CHARS_MAX];
} s_form_t;

static void s_keep_second(s_form_t *form, int64_t second)
{
    form->second = second;
    form->time_len = (size_t)(dkt_text_utc(form->time, second) - form->time);
}

static void s_begin_form(s_form_t *form, const dkt_keyring_t *keys, const dkt_client_t *client,
                         uint64_t seq, dkt_event_type_t type)
{
    form->keys = keys;
    form->client = client;
    char *at = DKT_TEXT_PUT(form->head, S_JSON_BEGIN);
    at = s_put_id(at, client, seq, type);
    *at++ = ':';
    form->head_len = (size_t)(at - form->head);
    at = DKT_TEXT_PUT(form->middle, S_JSON_SOURCE);
    at = s_put_client(at, client);
    at = DKT_TEXT_PUT(at, S_JSON_TYPE);
    at = s_put_name(at, type);
    at = DKT_TEXT_PUT(at, S_JSON_SUBJECT);
    form->middle_len = (size_t)(at - form->middle);
    s_keep_second(form, 0);
    form->slot.len = form->deadline.len = 0;
}

/* `at` has room for it. */
static char *s_put_event(s_form_t *form, char *at, uint32_t index, const dkt_event_t *event)
{
    dkt_id_text_t ticket;
    if (event->at_ms / S_MS_PER_S != form->second) {
        s_keep_second(form, event->at_ms / S_MS_PER_S);
    }
    dkt_ticket_text_again(form->keys, form->client, event->number, event->tag, &ticket);
    at = dkt_text_put(at, form->head, form->head_len);
    at = dkt_text_uint(at, index);
    at = dkt_text_put(at, form->middle, form->middle_len);
    at = dkt_text_put(at, ticket.text, DKT_TICKET_CHARS);
    at = DKT_TEXT_PUT(at, S_JSON_TIME);
    at = dkt_text_put(at, form->time, form->time_len);
    *at++ = '.';
    at = dkt_text_padded(at, (uint64_t)(event->at_ms % S_MS_PER_S), S_MS_DIGITS);
    at = DKT_TEXT_PUT(at, S_JSON_FORMAT);
    if (event->traceparent.data) {
        at = DKT_TEXT_PUT(at, S_JSON_TRACE);
        at = s_put_string(at, event->traceparent);
    }
    at = DKT_TEXT_PUT(at, S_JSON_DATA);
    at = s_put_string(at, event->class_name);
    at = DKT_TEXT_PUT(at, S_JSON_SLOT);
    at = s_put_kept(at, &form->slot, (uint64_t)event->minute * DKT_MINUTE_MS);
    at = DKT_TEXT_PUT(at, S_JSON_DUE);
    at = s_put_kept(at, &form->deadline, (uint64_t)event->deadline_ms);
    return DKT_TEXT_PUT(at, S_JSON_END);
}

/* Room for the event, with every letter that may be escaped escaped, and for the batch's end. */
static size_t s_event_room(const dkt_event_t *event)
{
    size_t letters = (size_t)event->class_name.len;
    letters += event->traceparent.data ? event->traceparent.len : 0;
    return S_EVENT_BYTES_MAX + letters * S_ESCAPE_BYTES + 4 + 1;
}

static uint64_t s_tag(const dkt_event_row_t *row, uint32_t index)
{
    uint64_t tag = 0;
    if (row->tags.len > index * sizeof tag) {
        memcpy(&tag, row->tags.data + index * sizeof tag, sizeof tag);
    }
    return tag;
}

bool dkt_event_batch(const dkt_keyring_t *keys, const dkt_client_t *client,
                     const dkt_event_row_t *row, const dkt_event_slice_t *slice,
                     dkt_text_buf_t *out)
{
    dkt_mp_t mp;
    dkt_event_t event;
    s_form_t form;
    uint32_t count = 0, seen = 0;
    out->len = 0;
    if (!s_room(out, S_TEXT_MIN) || !s_begin(row->events, &mp, &count)) {
        return false;
    }
    s_begin_form(&form, keys, client, row->seq, slice->type);
    out->data[out->len++] = '[';
    for (uint32_t i = 0; i < count && seen < slice->first + slice->count; i++) {
        if (!s_next(&mp, &event)) {
            return false;
        }
        if (event.type != slice->type || seen++ < slice->first) {
            continue;
        }
        if (!s_room(out, s_event_room(&event))) {
            return false;
        }
        event.tag = s_tag(row, i);
        char *at = out->data + out->len;
        if (seen > slice->first + 1) {
            *at++ = ',';
        }
        /* An event's own number goes on across the parts. */
        at = s_put_event(&form, at, seen - 1, &event);
        out->len = (size_t)(at - out->data);
    }
    out->data[out->len++] = ']';
    return true;
}
