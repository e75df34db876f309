/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/support_message.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define S_VALUE_BYTES_MAX (2 * DKT_FRAME_BYTES_MAX)

size_t message_from_hex(const char *hex, uint8_t *out, size_t max)
{
    size_t len = strlen(hex) / 2;
    assert(strlen(hex) % 2 == 0 && len <= max);
    for (size_t i = 0; i < len; i++) {
        unsigned byte = 0;
        int got = sscanf(hex + 2 * i, "%2x", &byte);
        assert(got == 1);
        out[i] = (uint8_t)byte;
    }
    return len;
}

static void s_write_bin(dkt_w_t *w, const json_t *hex)
{
    static uint8_t bytes[S_VALUE_BYTES_MAX];
    dkt_w_bin(w, bytes, message_from_hex(json_string_value(hex), bytes, sizeof bytes));
}

static void s_write_repeat(dkt_w_t *w, const json_t *repeat)
{
    static char text[S_VALUE_BYTES_MAX];
    const char *part = json_string_value(json_array_get(repeat, 0));
    size_t times = (size_t)json_integer_value(json_array_get(repeat, 1));
    size_t len = strlen(part);
    assert(len * times <= sizeof text);
    for (size_t i = 0; i < times; i++) {
        memcpy(text + i * len, part, len);
    }
    dkt_w_str(w, text, len * times);
}

static void s_write_pairs(dkt_w_t *w, json_int_t count)
{
    dkt_w_map(w, (uint32_t)count);
    for (json_int_t i = 0; i < count; i++) {
        char key[24];
        snprintf(key, sizeof key, "key-%d", (int)i);
        dkt_w_cstr(w, key);
        dkt_w_nil(w);
    }
}

static void s_write_object(dkt_w_t *w, const json_t *object)
{
    const char *key;
    json_t *item;
    if ((item = json_object_get(object, "$bin"))) {
        s_write_bin(w, item);
        return;
    }
    if ((item = json_object_get(object, "$repeat"))) {
        s_write_repeat(w, item);
        return;
    }
    if ((item = json_object_get(object, "$pairs"))) {
        s_write_pairs(w, json_integer_value(item));
        return;
    }
    dkt_w_map(w, (uint32_t)json_object_size(object));
    json_object_foreach((json_t *)object, key, item)
    {
        dkt_w_cstr(w, key);
        message_write(w, item);
    }
}

void message_write(dkt_w_t *w, const json_t *value)
{
    size_t at;
    json_t *item;
    if (json_is_object(value)) {
        s_write_object(w, value);
    } else if (json_is_array(value)) {
        dkt_w_array(w, (uint32_t)json_array_size(value));
        json_array_foreach(value, at, item)
        {
            message_write(w, item);
        }
    } else if (json_is_string(value)) {
        dkt_w_str(w, json_string_value(value), json_string_length(value));
    } else if (json_is_integer(value)) {
        dkt_w_int(w, json_integer_value(value));
    } else if (json_is_boolean(value)) {
        dkt_w_bool(w, json_is_true(value));
    } else {
        assert(json_is_null(value));
        dkt_w_nil(w);
    }
}

void message_write_text(dkt_w_t *w, const char *json)
{
    json_error_t error;
    json_t *value = json_loads(json, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error);
    if (!value) {
        fprintf(stderr, "%s in %s\n", error.text, json);
    }
    assert(value);
    message_write(w, value);
    json_decref(value);
}
