/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/context_row.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#define S_DECIMAL 10

/* The columns of DKT_CONTEXT_COLUMNS. */
enum {
    S_CLIENT,
    S_SUSPENDED,
    S_REVISION,
    S_CREATED,
    S_CLUSTER,
    S_HOST,
    S_PORT,
    S_DATABASE,
    S_DOMAIN,
    S_NAME,
    S_EMAIL,
    S_SETTINGS
};

static uint64_t s_number(const PGresult *result, int row, int column)
{
    return strtoull(PQgetvalue(result, row, column), NULL, S_DECIMAL);
}

/* Of the same text always the same settings: jsonb has its keys in one order. */
static void s_read_settings(const char *text, dkt_settings_t *settings)
{
    json_t *all = json_loads(text, 0, NULL), *value;
    const json_t *limits = json_object_get(all, "limits");
    const char *name;
    settings->resolvers = (uint16_t)json_integer_value(json_object_get(all, "resolvers"));
    settings->rebooking = json_is_true(json_object_get(all, "rebooking"));
    json_object_foreach(json_object_get(all, "classes"), name, value)
    {
        const json_t *limit = json_object_get(limits, name);
        if (settings->class_count < DKT_CLASSES_MAX) {
            dkt_class_t *row = &settings->classes[settings->class_count++];
            snprintf(row->name, sizeof row->name, "%s", name);
            row->level_minutes = (uint16_t)json_integer_value(value);
            row->limit_permille = limit ? (uint16_t)json_integer_value(limit) : DKT_PERMILLE;
        }
    }
    json_decref(all);
}

bool dkt_context_read_row(const PGresult *result, int row, int first, dkt_context_record_t *record)
{
    const char *client = PQgetvalue(result, row, first + S_CLIENT);
    memset(record, 0, sizeof *record);
    if (!dkt_client_parse(client, (uint32_t)strlen(client), &record->client)) {
        return false;
    }
    const struct {
        int column;
        char *text;
        size_t bytes;
    } texts[] = {
        {S_CLUSTER, record->cluster, sizeof record->cluster},
        {S_HOST, record->host, sizeof record->host},
        {S_DATABASE, record->database, sizeof record->database},
        {S_DOMAIN, record->sub_domain, sizeof record->sub_domain},
        {S_NAME, record->name, sizeof record->name},
        {S_EMAIL, record->email, sizeof record->email},
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        snprintf(texts[i].text, texts[i].bytes, "%s",
                 PQgetvalue(result, row, first + texts[i].column));
    }
    record->suspended = PQgetvalue(result, row, first + S_SUSPENDED)[0] == 't';
    record->revision = s_number(result, row, first + S_REVISION);
    record->created_ms = (int64_t)s_number(result, row, first + S_CREATED);
    record->port = (uint16_t)s_number(result, row, first + S_PORT);
    s_read_settings(PQgetvalue(result, row, first + S_SETTINGS), &record->settings);
    return true;
}
