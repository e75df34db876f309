/* SPDX-License-Identifier: Apache-2.0
 *
 * get_tenant and list_tenants while the control database is gone: out of this worker's replica, in
 * the words of accounts_tenants.c. Who is not in it may exist all the same.
 */
#include "workers/accounts_internal.h"

#include <string.h>

#define S_ROW_BYTES_MAX 4096 /* a tenant in an answer, as in accounts_tenants.c */
#define S_PAIRS         10

static void s_put_text(dkt_w_t *w, const char *key, const char *text)
{
    dkt_w_cstr(w, key);
    dkt_w_cstr(w, text);
}

/* S_PAIRS pairs. */
static void s_put_tenant(dkt_w_t *w, const dkt_context_record_t *record)
{
    dkt_id_text_t client;
    dkt_client_text(&record->client, &client);
    s_put_text(w, "client_id", client.text);
    s_put_text(w, "name", record->name);
    s_put_text(w, "email", record->email);
    s_put_text(w, "sub_domain", record->sub_domain);
    s_put_text(w, "cluster", record->cluster);
    dkt_w_cstr(w, "suspended");
    dkt_w_bool(w, record->suspended);
    dkt_w_cstr(w, "revision");
    dkt_w_uint(w, record->revision);
    dkt_w_cstr(w, "created_ms");
    dkt_w_int(w, record->created_ms);
    dkt_w_cstr(w, "resolvers");
    dkt_w_int(w, record->settings.resolvers);
    dkt_w_cstr(w, "rebooking");
    dkt_w_bool(w, record->settings.rebooking);
}

static void s_put_classes(dkt_w_t *w, const dkt_settings_t *settings)
{
    dkt_w_cstr(w, "classes");
    dkt_w_map(w, settings->class_count);
    for (uint8_t i = 0; i < settings->class_count; i++) {
        dkt_w_cstr(w, settings->classes[i].name);
        dkt_w_int(w, settings->classes[i].level_minutes);
    }
}

static void s_put_limits(dkt_w_t *w, const dkt_settings_t *settings)
{
    uint32_t count = 0;
    for (uint8_t i = 0; i < settings->class_count; i++) {
        count += settings->classes[i].limit_permille < DKT_PERMILLE ? 1 : 0;
    }
    dkt_w_cstr(w, "limits");
    dkt_w_map(w, count);
    for (uint8_t i = 0; i < settings->class_count; i++) {
        if (settings->classes[i].limit_permille < DKT_PERMILLE) {
            dkt_w_cstr(w, settings->classes[i].name);
            dkt_w_int(w, settings->classes[i].limit_permille);
        }
    }
}

bool dkt_accounts_get_known(dkt_replica_t *replica, const dkt_client_t *client, uint32_t msgid,
                            dkt_w_t *w)
{
    dkt_context_record_t record;
    if (!dkt_replica_find(replica, client, &record)) {
        return false;
    }
    dkt_answer_begin(w, msgid, S_PAIRS + 3);
    s_put_text(w, "status", "ok");
    s_put_tenant(w, &record);
    s_put_classes(w, &record.settings);
    s_put_limits(w, &record.settings);
    return true;
}

/* How many from `first` on fit a page, and the last of them. */
static uint32_t s_page_rows(const dkt_context_t *context, uint32_t first, uint32_t limit)
{
    size_t bytes = 0;
    uint32_t rows = 0;
    dkt_context_record_t record;
    while (rows < limit && dkt_context_at(context, first + rows, &record)) {
        uint8_t scratch[S_ROW_BYTES_MAX];
        dkt_w_t w = dkt_w_init(scratch, sizeof scratch);
        s_put_tenant(&w, &record);
        bytes += w.len + 1; /* and the map's own byte */
        if (bytes > DKT_LIST_BYTES_MAX - S_ROW_BYTES_MAX) {
            break;
        }
        rows++;
    }
    return rows;
}

bool dkt_accounts_list_known(dkt_replica_t *replica, const dkt_request_t *request, dkt_w_t *w)
{
    char after[DKT_ID_CHARS_MAX + 1] = "";
    dkt_id_text_t last = {.text = ""};
    dkt_context_info_t info;
    dkt_context_record_t record;
    if (request->cursor.data && request->cursor.len <= DKT_ID_CHARS_MAX) {
        memcpy(after, request->cursor.data, request->cursor.len);
    }
    const dkt_context_t *context = dkt_replica_lock(replica);
    dkt_context_info(context, &info);
    uint32_t first = dkt_context_after(context, after);
    uint32_t rows = s_page_rows(context, first, request->limit);
    bool more = first + rows < info.records;
    dkt_answer_begin(w, request->msgid, more ? 3 : 2);
    s_put_text(w, "status", "ok");
    dkt_w_cstr(w, "tenants");
    dkt_w_array(w, rows);
    for (uint32_t i = 0; i < rows && dkt_context_at(context, first + i, &record); i++) {
        dkt_w_map(w, S_PAIRS);
        s_put_tenant(w, &record);
        dkt_client_text(&record.client, &last);
    }
    dkt_replica_unlock(replica);
    if (more) {
        s_put_text(w, "cursor", rows > 0 ? last.text : after);
    }
    return info.version.epoch > 0;
}
