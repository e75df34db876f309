/* SPDX-License-Identifier: Apache-2.0
 *
 * How commands print answers for people: refusals, and maps as lines.
 */
#include "ops/cmd_common.h"

static const struct {
    const char *reason, *text;
} s_reasons[] = {
    {"no_slot", "every minute that would keep this promise is taken"},
    {"limit", "the booking limit of this class is reached"},
    {"too_many_moves", "room could only be made by moving too many other tickets"},
};

static const char *s_reason_text(dkt_text_t reason)
{
    for (size_t i = 0; i < sizeof s_reasons / sizeof s_reasons[0]; i++) {
        if (dkt_text_is(reason, s_reasons[i].reason)) {
            return s_reasons[i].text;
        }
    }
    return "it cannot be guaranteed";
}

static void s_print_alternatives(FILE *out, const msgpack_object *list, int64_t now_ms)
{
    if (!list || list->type != MSGPACK_OBJECT_ARRAY || list->via.array.size == 0) {
        fprintf(out, "  no other class fits now\n");
        return;
    }
    for (uint32_t i = 0; i < list->via.array.size; i++) {
        const msgpack_object *row = &list->via.array.ptr[i];
        dkt_text_t type = dkt_result_text(row, "ticket_type");
        fprintf(out, "  would fit now: %.*s, resolved by %s\n", (int)type.len,
                type.data ? type.data : "",
                dkt_time_text(dkt_result_int(row, "deadline_ms"), now_ms).text);
    }
}

/* A refused set_tenant names the promises in the way. */
static void s_print_blockers(FILE *out, const msgpack_object *result)
{
    const msgpack_object *tickets = dkt_result_get(result, "tickets");
    fprintf(out, "refused: %lld promises stand in the way\n",
            (long long)dkt_result_int(result, "count"));
    for (uint32_t i = 0;
         tickets && tickets->type == MSGPACK_OBJECT_ARRAY && i < tickets->via.array.size; i++) {
        const msgpack_object *id = &tickets->via.array.ptr[i];
        if (id->type == MSGPACK_OBJECT_STR) {
            fprintf(out, "  %.*s\n", (int)id->via.str.size, id->via.str.ptr);
        }
    }
}

void dkt_cmd_print_refusal(FILE *out, const dkt_reply_t *reply, const msgpack_object *result)
{
    int64_t now_ms = dkt_unix_ms();
    if (!reply->reason.data) {
        s_print_blockers(out, result);
        return;
    }
    fprintf(out, "refused: %.*s - %s\n", (int)reply->reason.len, reply->reason.data,
            s_reason_text(reply->reason));
    if (reply->earliest_ms) {
        fprintf(out, "  ask again from %s on\n", dkt_time_text(reply->earliest_ms, now_ms).text);
    }
    s_print_alternatives(out, dkt_result_get(result, "alternatives"), now_ms);
}

static bool s_is_time(const msgpack_object_str *key)
{
    return key->size > 3 && memcmp(key->ptr + key->size - 3, "_ms", 3) == 0;
}

static bool s_is_skipped(const msgpack_object_str *key, const char *const *skip, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strlen(skip[i]) == key->size && memcmp(skip[i], key->ptr, key->size) == 0) {
            return true;
        }
    }
    return false;
}

void dkt_cmd_print_fields(const msgpack_object *map, const char *const *skip, size_t skip_count)
{
    int64_t now_ms = dkt_unix_ms();
    if (!map || map->type != MSGPACK_OBJECT_MAP) {
        return;
    }
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object_kv *pair = &map->via.map.ptr[i];
        const msgpack_object_str *key = &pair->key.via.str;
        if (pair->key.type != MSGPACK_OBJECT_STR || s_is_skipped(key, skip, skip_count)) {
            continue;
        }
        bool time = s_is_time(key) && pair->val.type == MSGPACK_OBJECT_POSITIVE_INTEGER;
        printf("%-16.*s ", time ? (int)key->size - 3 : (int)key->size, key->ptr);
        if (time) {
            printf("%s\n", dkt_time_text(pair->val.via.i64, now_ms).text);
        } else if (pair->val.type == MSGPACK_OBJECT_STR) {
            printf("%.*s\n", (int)pair->val.via.str.size, pair->val.via.str.ptr);
        } else {
            dkt_result_json(stdout, &pair->val);
            putchar('\n');
        }
    }
}
