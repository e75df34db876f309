/* SPDX-License-Identifier: Apache-2.0
 *
 * Journal rows as CloudEvents: the group writes a row, the messages say what went in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <jansson.h>

#include "lib/core/event.h"
#include "support_random.h"

#define T_AT_MS    INT64_C(1795344563523) /* 2026-11-22T10:49:23.523Z */
#define T_MINUTE   29922410u
#define T_DEADLINE (T_AT_MS + 7200000)

static dkt_keyring_t s_keys = {.count = 1, .keys = {{.kid = 1, .key = {7}}}};

static dkt_client_t s_client(void)
{
    const uint8_t random[7] = {1, 2, 3};
    return dkt_client_make(&s_keys, random);
}

static void s_add(dkt_group_t *group, dkt_event_type_t type, uint64_t number,
                  const char *class_name, const char *traceparent)
{
    dkt_view_t trace = {.data = (const uint8_t *)traceparent,
                        .len = traceparent ? (uint32_t)strlen(traceparent) : 0};
    assert_true(
        dkt_group_event(group, type, number, T_AT_MS, T_MINUTE, T_DEADLINE, class_name, trace));
}

static dkt_view_t s_seal(dkt_group_t *group)
{
    dkt_commit_t commit;
    assert_true(dkt_group_seal(group, 1, T_AT_MS, &commit));
    return commit.journal_events;
}

/* The batch of message `index` of the row, parsed. */
static json_t *s_batch(dkt_view_t row, uint32_t index)
{
    uint32_t counts[DKT_EVENT_COUNT];
    dkt_text_buf_t text = {.data = NULL};
    const dkt_client_t client = s_client();
    assert_true(dkt_event_count(row, counts));
    dkt_event_slice_t slice = dkt_event_slice(counts, index);
    const dkt_event_row_t whole = {.seq = 42, .events = row};
    assert_true(dkt_event_batch(&s_keys, &client, &whole, &slice, &text));
    json_t *batch = json_loadb(text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
    assert_true(json_is_array(batch));
    free(text.data);
    return batch;
}

static const char *s_text(json_t *event, const char *key)
{
    const char *text = json_string_value(json_object_get(event, key));
    assert_non_null(text);
    return text;
}

static void test_event_batch_says_what_was_journaled(void **state)
{
    (void)state;
    dkt_group_t group;
    dkt_id_text_t ticket, client_text;
    char expected[DKT_EVENT_ID_BYTES_MAX];
    const dkt_client_t client = s_client();
    dkt_group_init(&group);
    s_add(&group, DKT_EVENT_CANCELLED, 9, "gold", NULL);
    s_add(&group, DKT_EVENT_CREATED, 8, "odd \"\\\n", "00-aa-bb-01");
    dkt_view_t row = s_seal(&group);
    json_t *batch = s_batch(row, 0), *event = json_array_get(batch, 0);
    assert_int_equal(json_array_size(batch), 1);
    dkt_client_text(&client, &client_text);
    snprintf(expected, sizeof expected, "%s:42:created:0", client_text.text);
    assert_string_equal(s_text(event, "id"), expected);
    dkt_ticket_text(&s_keys, &client, 8, &ticket);
    assert_string_equal(s_text(event, "subject"), ticket.text);
    assert_string_equal(s_text(event, "specversion"), "1.0");
    assert_string_equal(s_text(event, "type"), "com.docket.ticket.created");
    assert_string_equal(s_text(event, "time"), "2026-11-22T10:49:23.523Z");
    assert_string_equal(s_text(event, "traceparent"), "00-aa-bb-01");
    json_t *data = json_object_get(event, "data");
    assert_string_equal(s_text(data, "ticket_type"), "odd \"\\\n");
    assert_int_equal(json_integer_value(json_object_get(data, "slot_start_ms")),
                     (int64_t)T_MINUTE * DKT_MINUTE_MS);
    assert_int_equal(json_integer_value(json_object_get(data, "deadline_ms")), T_DEADLINE);
    json_decref(batch);
    batch = s_batch(row, 1);
    event = json_array_get(batch, 0);
    assert_string_equal(s_text(event, "type"), "com.docket.ticket.cancelled");
    assert_null(json_object_get(event, "traceparent"));
    json_decref(batch);
    dkt_group_fini(&group);
}

static void test_event_large_row_is_split(void **state)
{
    (void)state;
    enum { COUNT = 2 * DKT_RELAY_EVENTS_MAX + 3 };
    dkt_group_t group;
    uint32_t counts[DKT_EVENT_COUNT];
    char id[DKT_EVENT_ID_BYTES_MAX];
    const dkt_client_t client = s_client();
    dkt_group_init(&group);
    for (uint64_t number = 1; number <= COUNT; number++) {
        s_add(&group, DKT_EVENT_DISPATCHED, number, "gold", NULL);
    }
    dkt_view_t row = s_seal(&group);
    assert_true(dkt_event_count(row, counts));
    assert_int_equal(dkt_event_messages(counts), 3);
    dkt_event_slice_t slice = dkt_event_slice(counts, 2);
    assert_int_equal(slice.count, 3);
    dkt_event_message_id(&client, 42, &slice, id);
    assert_string_equal(strrchr(id, ':'), ":2");
    json_t *batch = s_batch(row, 2);
    assert_int_equal(json_array_size(batch), 3);
    assert_string_equal(strrchr(s_text(json_array_get(batch, 0), "id"), ':'), ":2048");
    json_decref(batch);
    dkt_group_fini(&group);
}

static void test_event_count_refuses_foreign_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        uint32_t len;
    } rows[] = {
        {"\xc0", 1},                                       /* nil */
        {"\x91\x91\x00", 3},                               /* an event of one field */
        {"\x91\x97\x07\x01\x01\x01\x01\xa1g\xc0", 10},     /* a type that does not exist */
        {"\x91\x97\x00\x01\x01\x01\x01\xa1g", 9},          /* cut */
        {"\x91\x97\x00\x01\x01\x01\x01\xa1g\xc0\x00", 11}, /* something behind it */
    };
    uint32_t counts[DKT_EVENT_COUNT];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dkt_view_t row = {.data = (const uint8_t *)rows[i].bytes, .len = rows[i].len};
        assert_false(dkt_event_count(row, counts));
    }
    const dkt_view_t good = {.data = (const uint8_t *)"\x91\x97\x00\x01\x01\x01\x01\xa1g\xc0",
                             .len = 10};
    assert_true(dkt_event_count(good, counts));
    assert_int_equal(counts[DKT_EVENT_CREATED], 1);
}

/* -- the writer beside a naive one -- */

#define T_ROWS        600
#define T_ROW_EVENTS  40
#define T_TEXT_BYTES  (T_ROW_EVENTS * 2048)
#define T_PICK(array) ((array)[random_below(&s_random_state, sizeof(array) / sizeof((array)[0]))])

static uint64_t s_random_state = 1;

static int64_t s_random_ms(void)
{
    static const int64_t edges[] = {
        0,
        999,
        INT64_C(951782399999),    /* the end of 2000-02-28 */
        INT64_C(951868799999),    /* of 2000-02-29 */
        INT64_C(1709164800000),   /* 2024-02-29 */
        INT64_C(1798761599999),   /* the end of 2026 */
        INT64_C(4107542399999),   /* of 2100-02-28: the next day is in March */
        INT64_C(13574563200000),  /* 2400-02-29 */
        INT64_C(253402300799999), /* the end of the last year of four digits */
        INT64_C(253402300800000),
        INT64_MAX,
    };
    switch (random_below(&s_random_state, 3)) {
    case 0:
        return T_PICK(edges);
    case 1:
        return (int64_t)(random_of_any_size(&s_random_state) & INT64_MAX);
    default:
        return T_AT_MS + random_below(&s_random_state, 3000);
    }
}

static dkt_event_t s_random_event(void)
{
    static const char *const classes[] = {
        "bronze", "gold", "", "a \"b\" \\ c", "\x01\x1f\n\t\x7f", "Prio \xc3\xa4 \xe2\x82\xac"};
    static const char *const traces[] = {
        NULL, "", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "\"\\\r"};
    const char *class_name = T_PICK(classes), *trace = T_PICK(traces);
    uint64_t at = random_of_any_size(&s_random_state);
    return (dkt_event_t){
        .type = (dkt_event_type_t)random_below(&s_random_state, DKT_EVENT_COUNT),
        .number = at & INT64_MAX,
        .at_ms = s_random_ms(),
        .minute = at % 2 ? (uint32_t)at : T_MINUTE,
        .deadline_ms = s_random_ms(),
        .class_name = {(const uint8_t *)class_name, (uint32_t)strlen(class_name)},
        .traceparent = {(const uint8_t *)trace, trace ? (uint32_t)strlen(trace) : 0}};
}

static void s_naive_string(FILE *out, dkt_view_t text)
{
    fputc('"', out);
    for (uint32_t i = 0; i < text.len; i++) {
        if (text.data[i] < 0x20) {
            fprintf(out, "\\u%04x", text.data[i]);
        } else {
            fprintf(out, strchr("\"\\", text.data[i]) ? "\\%c" : "%c", text.data[i]);
        }
    }
    fputc('"', out);
}

static void s_naive_event(FILE *out, uint64_t seq, uint32_t index, const dkt_event_t *event)
{
    const dkt_client_t client = s_client();
    const char *type = dkt_event_name(event->type);
    dkt_id_text_t client_text, ticket;
    char when[64];
    struct tm utc;
    time_t seconds = (time_t)(event->at_ms / 1000);
    gmtime_r(&seconds, &utc);
    strftime(when, sizeof when, "-%m-%dT%H:%M:%S", &utc);
    dkt_client_text(&client, &client_text);
    dkt_ticket_text(&s_keys, &client, event->number, &ticket);
    fprintf(out,
            "{\"specversion\":\"1.0\",\"id\":\"%s:%" PRIu64 ":%s:%u\",\"source\":"
            "\"/docket/tenants/%s\",\"type\":\"com.docket.ticket.%s\",\"subject\":\"%s\","
            "\"time\":\"%04d%s.%03dZ\",\"datacontenttype\":\"application/json\"",
            client_text.text, seq, type, index, client_text.text, type, ticket.text,
            utc.tm_year + 1900, when, (int)(event->at_ms % 1000));
    if (event->traceparent.data) {
        fputs(",\"traceparent\":", out);
        s_naive_string(out, event->traceparent);
    }
    fputs(",\"data\":{\"ticket_type\":", out);
    s_naive_string(out, event->class_name);
    fprintf(out, ",\"slot_start_ms\":%" PRId64 ",\"deadline_ms\":%" PRId64 "}}",
            (int64_t)event->minute * DKT_MINUTE_MS, event->deadline_ms);
}

/* The batch of a type, of all the row's events. */
static void s_naive_batch(char *text, uint64_t seq, dkt_event_type_t type,
                          const dkt_event_t *events, uint32_t count)
{
    FILE *out = fmemopen(text, T_TEXT_BYTES, "w");
    uint32_t index = 0;
    assert_non_null(out);
    for (uint32_t i = 0; i < count; i++) {
        if (events[i].type == type) {
            fputs(index == 0 ? "[" : ",", out);
            s_naive_event(out, seq, index++, &events[i]);
        }
    }
    fputs("]", out);
    assert_int_equal(fclose(out), 0);
}

static void s_check_row(const dkt_event_row_t *row, const dkt_event_t *events, uint32_t count)
{
    static char expected[T_TEXT_BYTES];
    uint32_t counts[DKT_EVENT_COUNT];
    dkt_text_buf_t text = {.data = NULL};
    const dkt_client_t client = s_client();
    assert_true(dkt_event_count(row->events, counts));
    for (uint32_t i = 0; i < dkt_event_messages(counts); i++) {
        dkt_event_slice_t slice = dkt_event_slice(counts, i);
        assert_true(dkt_event_batch(&s_keys, &client, row, &slice, &text));
        s_naive_batch(expected, row->seq, slice.type, events, count);
        assert_int_equal(text.len, strlen(expected));
        assert_memory_equal(text.data, expected, text.len);
    }
    free(text.data);
}

static void test_event_text_is_the_naive_one(void **state)
{
    (void)state;
    dkt_group_t group;
    dkt_event_t events[T_ROW_EVENTS];
    const dkt_client_t client = s_client();
    dkt_group_init(&group);
    for (int i = 0; i < T_ROWS; i++) {
        uint32_t count = 1 + random_below(&s_random_state, T_ROW_EVENTS);
        dkt_group_reset(&group);
        for (uint32_t j = 0; j < count; j++) {
            events[j] = s_random_event();
            assert_true(dkt_group_event(&group, events[j].type, events[j].number, events[j].at_ms,
                                        events[j].minute, events[j].deadline_ms,
                                        (const char *)events[j].class_name.data,
                                        events[j].traceparent));
            if (random_below(&s_random_state, 2) == 1) { /* its tag is known */
                dkt_id_text_t ticket;
                dkt_group_tag(&group, dkt_ticket_text(&s_keys, &client, events[j].number, &ticket));
            }
        }
        dkt_commit_t commit;
        assert_true(dkt_group_seal(&group, 1, T_AT_MS, &commit));
        dkt_event_row_t row = {.seq = random_of_any_size(&s_random_state),
                               .events = commit.journal_events};
        s_check_row(&row, events, count); /* as it is read from the store */
        row.tags = commit.journal_tags;
        s_check_row(&row, events, count);
    }
    dkt_group_fini(&group);
}

static void test_event_subject_and_message_id(void **state)
{
    (void)state;
    dkt_id_text_t id;
    char text[DKT_EVENT_ID_BYTES_MAX], subject[DKT_EVENT_SUBJECT_BYTES_MAX], expected[256];
    const dkt_client_t client = s_client();
    dkt_client_text(&client, &id);
    for (int type = 0; type < DKT_EVENT_COUNT; type++) {
        const char *name = dkt_event_name((dkt_event_type_t)type);
        dkt_event_slice_t slice = {.type = (dkt_event_type_t)type, .part = UINT32_MAX};
        dkt_event_subject(&client, slice.type, subject);
        snprintf(expected, sizeof expected, "docket.event.%s.%s", id.text, name);
        assert_string_equal(subject, expected);
        dkt_event_message_id(&client, UINT64_MAX, &slice, text);
        snprintf(expected, sizeof expected, "%s:18446744073709551615:%s:4294967295", id.text, name);
        assert_string_equal(text, expected);
        slice.part = 0;
        dkt_event_message_id(&client, 0, &slice, text);
        snprintf(expected, sizeof expected, "%s:0:%s", id.text, name);
        assert_string_equal(text, expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_event_batch_says_what_was_journaled),
        cmocka_unit_test(test_event_large_row_is_split),
        cmocka_unit_test(test_event_count_refuses_foreign_bytes),
        cmocka_unit_test(test_event_text_is_the_naive_one),
        cmocka_unit_test(test_event_subject_and_message_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
