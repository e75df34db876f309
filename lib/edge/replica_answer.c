/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/replica_answer.h"

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

static bool s_table(dkt_replica_t *replica, dkt_table_t *table)
{
    bool any = dkt_context_table(dkt_replica_lock(replica), table);
    dkt_replica_unlock(replica);
    return any;
}

/* Null: nobody, or no table yet. */
static json_t *s_owner(dkt_replica_t *replica, uint16_t vshard)
{
    dkt_table_t table;
    if (!s_table(replica, &table) || table.owner[vshard] >= table.member_count) {
        return json_null();
    }
    return s_incarnation(&table.members[table.owner[vshard]]);
}

/* How much of the truth this replica has, so that two answers can be compared. */
static void s_put_version(json_t *root, dkt_replica_t *replica)
{
    json_object_set_new(root, "ctx", dkt_replica_json(replica));
}

/* The first record behind that id. The lock is held for one record at a time: a page may be long,
 * and whoever routes requests reads here too. */
static bool s_next(dkt_replica_t *replica, const char *after, dkt_context_record_t *record)
{
    const dkt_context_t *context = dkt_replica_lock(replica);
    bool any = dkt_context_at(context, dkt_context_after(context, after), record);
    dkt_replica_unlock(replica);
    return any;
}

/* -- answers -- */

void dkt_replica_answer_tenants(void *replica, json_t *params, dkt_srv_reply_t *reply)
{
    json_t *limit_param = json_object_get(params, "limit");
    json_t *cursor_param = json_object_get(params, "cursor");
    json_int_t limit = limit_param ? json_integer_value(limit_param) : DKT_LIST_DEFAULT;
    const char *cursor = cursor_param ? json_string_value(cursor_param) : "";
    if (!params || !cursor || limit < 1 || limit > DKT_LIST_MAX) {
        dkt_srv_fail(reply, DKT_SRV_BAD_REQUEST,
                     "{\"cursor\": client_id, \"limit\": 1 .. %d}, both optional", DKT_LIST_MAX);
        return;
    }
    dkt_context_info_t info;
    dkt_context_record_t record;
    dkt_id_text_t last;
    json_t *tenants = json_array();
    while (limit > 0 && s_next(replica, cursor, &record)) {
        dkt_client_text(&record.client, &last);
        json_array_append_new(tenants, s_brief(&record));
        cursor = last.text;
        limit--;
    }
    bool more = limit == 0 && s_next(replica, cursor, &record);
    dkt_replica_info(replica, &info);
    reply->body =
        json_pack("{s:o, s:I, s:o}", "tenants", tenants, "count", (json_int_t)info.records,
                  "cursor", more ? json_string(cursor) : json_null());
    s_put_version(reply->body, replica);
}

void dkt_replica_answer_tenant(void *replica, json_t *params, dkt_srv_reply_t *reply)
{
    const char *text = dkt_srv_text(params, "client_id");
    dkt_context_record_t record;
    dkt_client_t client;
    if (!text || !dkt_client_parse(text, (uint32_t)strlen(text), &client)) {
        dkt_srv_fail(reply, DKT_SRV_BAD_REQUEST, "which tenant? {\"client_id\": \"cl_..\"}");
        return;
    }
    if (!dkt_replica_find(replica, &client, &record)) {
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
    json_object_set_new(root, "owner", s_owner(replica, dkt_client_vshard(&client)));
    s_put_version(root, replica);
    reply->body = root;
}

void dkt_replica_answer_table(void *replica, json_t *params, dkt_srv_reply_t *reply)
{
    dkt_table_t table;
    uint32_t shares[DKT_MEMBERS_MAX] = {0}, nobody = 0;
    (void)params;
    if (!s_table(replica, &table)) {
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
    s_put_version(reply->body, replica);
}

/* -- statistics -- */

void dkt_replica_metrics(dkt_replica_t *replica, json_t *metrics)
{
    dkt_context_info_t info;
    dkt_replica_info(replica, &info);
    s_put_number(metrics, "docket_ctx_lag",
                 info.head_seq > info.version.seq ? (int64_t)(info.head_seq - info.version.seq)
                                                  : 0);
    s_put_number(metrics, "docket_ctx_resync_total", (int64_t)info.swaps);
}
