/* SPDX-License-Identifier: Apache-2.0
 *
 * See result.h: result maps, JSON and times for people.
 */
#include "ops/result.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <time.h>

bool dkt_result_init(dkt_result_t *self, const dkt_reply_t *reply)
{
    size_t offset = 0;
    msgpack_unpacked_init(&self->unpacked);
    self->root = NULL;
    if (!reply->result ||
        msgpack_unpack_next(&self->unpacked, (const char *)reply->result, reply->result_len,
                            &offset) != MSGPACK_UNPACK_SUCCESS ||
        self->unpacked.data.type != MSGPACK_OBJECT_MAP) {
        return false;
    }
    self->root = &self->unpacked.data;
    return true;
}

void dkt_result_fini(dkt_result_t *self)
{
    msgpack_unpacked_destroy(&self->unpacked);
    self->root = NULL;
}

const msgpack_object *dkt_result_get(const msgpack_object *map, const char *key)
{
    if (!map || map->type != MSGPACK_OBJECT_MAP) {
        return NULL;
    }
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object_kv *pair = &map->via.map.ptr[i];
        if (pair->key.type == MSGPACK_OBJECT_STR && pair->key.via.str.size == strlen(key) &&
            memcmp(pair->key.via.str.ptr, key, pair->key.via.str.size) == 0) {
            return &pair->val;
        }
    }
    return NULL;
}

dkt_text_t dkt_result_text(const msgpack_object *map, const char *key)
{
    const msgpack_object *value = dkt_result_get(map, key);
    if (!value || value->type != MSGPACK_OBJECT_STR) {
        return (dkt_text_t){NULL, 0};
    }
    return (dkt_text_t){value->via.str.ptr, value->via.str.size};
}

int64_t dkt_result_int(const msgpack_object *map, const char *key)
{
    const msgpack_object *value = dkt_result_get(map, key);
    if (!value || (value->type != MSGPACK_OBJECT_POSITIVE_INTEGER &&
                   value->type != MSGPACK_OBJECT_NEGATIVE_INTEGER)) {
        return 0;
    }
    return value->via.i64;
}

bool dkt_result_bool(const msgpack_object *map, const char *key)
{
    const msgpack_object *value = dkt_result_get(map, key);
    return value && value->type == MSGPACK_OBJECT_BOOLEAN && value->via.boolean;
}

/* -- JSON ------------------------------------------------------------------------------------- */

void dkt_json_text(FILE *out, const char *text, size_t len)
{
    fputc('"', out);
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)text[i];
        if (byte == '"' || byte == '\\') {
            fprintf(out, "\\%c", byte);
        } else if (byte < ' ' || byte == 0x7f) {
            fprintf(out, "\\u%04x", byte);
        } else {
            fputc(byte, out);
        }
    }
    fputc('"', out);
}

static void s_json_bytes(FILE *out, const msgpack_object_bin *bin)
{
    size_t max = sodium_base64_encoded_len(bin->size, sodium_base64_VARIANT_ORIGINAL);
    char *text = malloc(max);
    if (!text) {
        fputs("null", out);
        return;
    }
    sodium_bin2base64(text, max, (const unsigned char *)bin->ptr, bin->size,
                      sodium_base64_VARIANT_ORIGINAL);
    fprintf(out, "\"%s\"", text);
    free(text);
}

static void s_json_array(FILE *out, const msgpack_object_array *array)
{
    fputc('[', out);
    for (uint32_t i = 0; i < array->size; i++) {
        fputs(i ? ", " : "", out);
        dkt_result_json(out, &array->ptr[i]);
    }
    fputc(']', out);
}

static void s_json_map(FILE *out, const msgpack_object_map *map)
{
    fputc('{', out);
    for (uint32_t i = 0; i < map->size; i++) {
        fputs(i ? ", " : "", out);
        dkt_result_json(out, &map->ptr[i].key);
        fputs(": ", out);
        dkt_result_json(out, &map->ptr[i].val);
    }
    fputc('}', out);
}

/* Recursion is bounded: the answer's decoder limits the depth. */
void dkt_result_json(FILE *out, const msgpack_object *value)
{
    switch (value->type) {
    case MSGPACK_OBJECT_BOOLEAN:
        fputs(value->via.boolean ? "true" : "false", out);
        return;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        fprintf(out, "%" PRIu64, value->via.u64);
        return;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        fprintf(out, "%" PRId64, value->via.i64);
        return;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        fprintf(out, "%.17g", value->via.f64);
        return;
    case MSGPACK_OBJECT_STR:
        dkt_json_text(out, value->via.str.ptr, value->via.str.size);
        return;
    case MSGPACK_OBJECT_BIN:
        s_json_bytes(out, &value->via.bin);
        return;
    case MSGPACK_OBJECT_ARRAY:
        s_json_array(out, &value->via.array);
        return;
    case MSGPACK_OBJECT_MAP:
        s_json_map(out, &value->via.map);
        return;
    case MSGPACK_OBJECT_NIL:
    case MSGPACK_OBJECT_EXT:
        break;
    }
    fputs("null", out);
}

/* -- time ------------------------------------------------------------------------------------- */

static int64_t s_clock_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t dkt_unix_ms(void)
{
    return s_clock_us(CLOCK_REALTIME) / 1000;
}

int64_t dkt_mono_us(void)
{
    return s_clock_us(CLOCK_MONOTONIC);
}

int64_t dkt_mono_ms(void)
{
    return dkt_mono_us() / 1000;
}

static void s_print_distance(char *out, size_t max, int64_t distance_ms)
{
    int64_t s = (distance_ms < 0 ? -distance_ms : distance_ms) / 1000;
    char amount[32];
    if (s < 120) {
        snprintf(amount, sizeof amount, "%d s", (int)s);
    } else if (s < 7200) {
        snprintf(amount, sizeof amount, "%d min", (int)(s / 60));
    } else {
        snprintf(amount, sizeof amount, "%d h %d min", (int)(s / 3600), (int)(s / 60 % 60));
    }
    snprintf(out, max, distance_ms < 0 ? "%s ago" : "in %s", amount);
}

dkt_time_text_t dkt_time_text(int64_t unix_ms, int64_t now_ms)
{
    dkt_time_text_t out = {"-"};
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm parts;
    char distance[40], day[24];
    if (unix_ms == 0 || !gmtime_r(&seconds, &parts)) {
        return out;
    }
    strftime(day, sizeof day, "%Y-%m-%d %H:%M:%S", &parts);
    s_print_distance(distance, sizeof distance, unix_ms - now_ms);
    snprintf(out.text, sizeof out.text, "%s UTC (%.*s)", day, 30, distance);
    return out;
}

dkt_time_text_t dkt_time_short(int64_t unix_ms)
{
    dkt_time_text_t out = {"-"};
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm parts;
    if (unix_ms != 0 && gmtime_r(&seconds, &parts)) {
        strftime(out.text, sizeof out.text, "%H:%M", &parts);
    }
    return out;
}
