/* SPDX-License-Identifier: Apache-2.0
 *
 * Journal rows as CloudEvents: the group writes a row, the messages say what went in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "lib/core/event.h"

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
    assert_true(dkt_event_batch(&s_keys, &client, 42, row, &slice, &text));
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_event_batch_says_what_was_journaled),
        cmocka_unit_test(test_event_large_row_is_split),
        cmocka_unit_test(test_event_count_refuses_foreign_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
