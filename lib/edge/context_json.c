/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/context_json.h"

#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#define S_INCARNATION_CHARS (2 * DKT_INCARNATION_BYTES + 1)

static json_t *s_incarnation(const dkt_incarnation_t *incarnation)
{
    char text[S_INCARNATION_CHARS];
    sodium_bin2hex(text, sizeof text, incarnation->bytes, sizeof incarnation->bytes);
    return json_string(text);
}

static void s_put_text(json_t *root, const char *key, const char *text)
{
    json_object_set_new(root, key, json_string(text));
}

static void s_put_number(json_t *root, const char *key, int64_t number)
{
    json_object_set_new(root, key, json_integer(number));
}

/* What a list shows of a tenant. */
static json_t *s_brief(const dkt_context_record_t *record)
{
    dkt_id_text_t client;
    json_t *root = json_object();
    dkt_client_text(&record->client, &client);
    s_put_text(root, "client_id", client.text);
    s_put_text(root, "name", record->name);
    s_put_text(root, "cluster", record->cluster);
    s_put_number(root, "resolvers", record->settings.resolvers);
    json_object_set_new(root, "suspended", json_boolean(record->suspended));
    s_put_number(root, "vshard", dkt_client_vshard(&record->client));
    return root;
}

static json_t *s_classes(const dkt_settings_t *settings)
{
    json_t *classes = json_object();
    for (uint8_t i = 0; i < settings->class_count; i++) {
        const dkt_class_t *row = &settings->classes[i];
        json_object_set_new(classes, row->name,
                            json_pack("{s:i, s:i}", "level_minutes", row->level_minutes,
                                      "limit_permille", row->limit_permille));
    }
    return classes;
}

/* Null: nobody, or no table yet. */
static json_t *s_owner(const dkt_context_t *context, uint16_t vshard)
{
    dkt_table_t table;
    if (!dkt_context_table(context, &table) || table.owner[vshard] >= table.member_count) {
        return json_null();
    }
    return s_incarnation(&table.members[table.owner[vshard]]);
}

static void s_put_version(json_t *root, const dkt_context_t *context)
{
    dkt_context_info_t info;
    dkt_context_info(context, &info);
    json_object_set_new(
        root, "context",
        json_pack("{s:s, s:I, s:I, s:I}", "state", dkt_context_state_name(info.state), "epoch",
                  (json_int_t)info.version.epoch, "seq", (json_int_t)info.version.seq, "records",
                  (json_int_t)info.records));
}

/* -- answers -- */

void dkt_context_answer_tenants(const dkt_context_t *context, json_t *params,
                                dkt_srv_reply_t *reply)
{
    json_t *limit_param = json_object_get(params, "limit");
    json_t *cursor_param = json_object_get(params, "cursor");
    json_int_t limit = limit_param ? json_integer_value(limit_param) : DKT_LIST_DEFAULT;
    if (!params || (cursor_param && !json_is_string(cursor_param)) || limit < 1 ||
        limit > DKT_LIST_MAX) {
        dkt_srv_fail(reply, DKT_SRV_BAD_REQUEST,
                     "{\"cursor\": client_id, \"limit\": 1 .. %d}, both optional", DKT_LIST_MAX);
        return;
    }
    const char *cursor = cursor_param ? json_string_value(cursor_param) : "";
    dkt_context_info_t info;
    dkt_context_record_t record;
    dkt_id_text_t last;
    json_t *tenants = json_array();
    dkt_context_info(context, &info);
    uint32_t at = dkt_context_after(context, cursor);
    for (; limit > 0 && dkt_context_at(context, at, &record); at++, limit--) {
        dkt_client_text(&record.client, &last);
        json_array_append_new(tenants, s_brief(&record));
    }
    bool more = at < info.records && json_array_size(tenants) > 0;
    reply->body =
        json_pack("{s:o, s:I, s:o}", "tenants", tenants, "count", (json_int_t)info.records,
                  "cursor", more ? json_string(last.text) : json_null());
    s_put_version(reply->body, context);
}

void dkt_context_answer_tenant(const dkt_context_t *context, json_t *params, dkt_srv_reply_t *reply)
{
    const char *text = dkt_srv_text(params, "client_id");
    dkt_context_record_t record;
    dkt_client_t client;
    if (!text || !dkt_client_parse(text, (uint32_t)strlen(text), &client)) {
        dkt_srv_fail(reply, DKT_SRV_BAD_REQUEST, "which tenant? {\"client_id\": \"cl_..\"}");
        return;
    }
    if (!dkt_context_find(context, &client, &record)) {
        dkt_srv_fail(reply, DKT_SRV_NOT_FOUND, "this replica has no tenant %s", text);
        return;
    }
    json_t *root = s_brief(&record);
    s_put_text(root, "email", record.email);
    s_put_text(root, "sub_domain", record.sub_domain);
    s_put_text(root, "host", record.host);
    s_put_number(root, "port", record.port);
    s_put_text(root, "database", record.database);
    s_put_number(root, "created_ms", record.created_ms);
    s_put_number(root, "revision", (int64_t)record.revision);
    json_object_set_new(root, "rebooking", json_boolean(record.settings.rebooking));
    json_object_set_new(root, "classes", s_classes(&record.settings));
    json_object_set_new(root, "owner", s_owner(context, dkt_client_vshard(&client)));
    s_put_version(root, context);
    reply->body = root;
}

void dkt_context_answer_table(const dkt_context_t *context, json_t *params, dkt_srv_reply_t *reply)
{
    dkt_table_t table;
    uint32_t shares[DKT_MEMBERS_MAX] = {0}, nobody = 0;
    (void)params;
    if (!dkt_context_table(context, &table)) {
        dkt_srv_fail(reply, DKT_SRV_UNAVAILABLE, "no table has arrived yet");
        return;
    }
    for (uint16_t v = 0; v < DKT_VSHARDS; v++) {
        if (table.owner[v] < table.member_count) {
            shares[table.owner[v]]++;
        } else {
            nobody++;
        }
    }
    json_t *members = json_array();
    for (uint16_t i = 0; i < table.member_count; i++) {
        json_array_append_new(members, json_pack("{s:o, s:I}", "incarnation",
                                                 s_incarnation(&table.members[i]), "vshards",
                                                 (json_int_t)shares[i]));
    }
    reply->body = json_pack("{s:I, s:I, s:o, s:I}", "epoch", (json_int_t)table.version.epoch,
                            "version", (json_int_t)table.version.version, "members", members,
                            "unowned", (json_int_t)nobody);
    s_put_version(reply->body, context);
}
