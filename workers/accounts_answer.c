/* SPDX-License-Identifier: Apache-2.0
 *
 * The answers of get_tenant and list_tenants, wherever the records come from.
 */
#include "workers/accounts_internal.h"

#include <assert.h>
#include <string.h>

#define S_ROW_BYTES_MAX 4096 /* a tenant in an answer: name 400, email 254 */
/* Of a tenant in a list; classes and limits come with get_tenant only, because an answer is at most
 * 4 levels deep. */
#define S_PAIRS 10

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

void dkt_accounts_write_tenant(dkt_w_t *w, uint32_t msgid, const dkt_context_record_t *record)
{
    dkt_answer_begin(w, msgid, S_PAIRS + 3);
    s_put_text(w, "status", "ok");
    s_put_tenant(w, record);
    s_put_classes(w, &record->settings);
    s_put_limits(w, &record->settings);
}

void dkt_accounts_after(const dkt_request_t *request, char after[DKT_ID_CHARS_MAX + 1])
{
    uint32_t len = request->cursor.len < DKT_ID_CHARS_MAX ? request->cursor.len : DKT_ID_CHARS_MAX;
    if (len > 0) {
        memcpy(after, request->cursor.data, len);
    }
    after[len] = '\0';
}

static void s_put_listed(dkt_w_t *w, const dkt_context_record_t *record)
{
    dkt_w_map(w, S_PAIRS);
    s_put_tenant(w, record);
}

/* How many fit a page, found by writing them into nowhere but a scratch buffer. */
static uint32_t s_page_rows(const dkt_accounts_rows_t *rows, uint32_t limit)
{
    size_t bytes = 0;
    uint32_t count = 0;
    dkt_context_record_t record;
    while (count < limit && count < rows->count && rows->at(rows->ctx, count, &record)) {
        uint8_t scratch[S_ROW_BYTES_MAX];
        dkt_w_t w = dkt_w_init(scratch, sizeof scratch);
        s_put_listed(&w, &record);
        assert(!w.failed);
        bytes += w.len;
        if (bytes > DKT_LIST_BYTES_MAX - S_ROW_BYTES_MAX) {
            break;
        }
        count++;
    }
    return count;
}

void dkt_accounts_write_page(dkt_w_t *w, const dkt_request_t *request,
                             const dkt_accounts_rows_t *rows)
{
    dkt_context_record_t record;
    uint32_t count = s_page_rows(rows, request->limit);
    bool more = count < rows->count;
    dkt_answer_begin(w, request->msgid, more ? 3 : 2);
    s_put_text(w, "status", "ok");
    dkt_w_cstr(w, "tenants");
    dkt_w_array(w, count);
    for (uint32_t i = 0; i < count && rows->at(rows->ctx, i, &record); i++) {
        s_put_listed(w, &record);
    }
    if (more) {
        char after[DKT_ID_CHARS_MAX + 1];
        dkt_id_text_t last;
        dkt_accounts_after(request, after);
        if (count > 0) {
            dkt_client_text(&record.client, &last);
        }
        s_put_text(w, "cursor", count > 0 ? last.text : after);
    }
}
