/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions about tickets. get and list show what the database has, so committed state only;
 * availability is asked of the ledger and leaves after everything it rests on is durable.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/core/tenant_impl.h"

#define CURSOR_CHARS_MAX 20 /* a ticket number in decimal */

/* The buffer of long answers, made at first use; NULL without memory. */
static uint8_t *s_page(dkt_tenant_t *self)
{
    if (!self->page) {
        self->page = malloc(DKT_PAGE_BYTES);
    }
    return self->page;
}

static void s_write_ticket(dkt_tenant_t *self, dkt_w_t *w, const dkt_ticket_row_t *row)
{
    dkt_id_text_t ticket_id;
    char class_name[DKT_CLASS_NAME_BYTES_MAX + 1] = "";
    dkt_ticket_text(self->config.id_keys, &self->config.client, row->number, &ticket_id);
    assert(row->class_name.len < sizeof class_name);
    memcpy(class_name, row->class_name.data, row->class_name.len);
    dkt_answer_ticket_t ticket = {.ticket_id = ticket_id.text,
                                  .ticket_type = class_name,
                                  .state = row->state,
                                  .slot_start_ms = (int64_t)row->place.minute * DKT_MINUTE_MS,
                                  .deadline_ms = row->deadline_ms,
                                  .created_ms = row->created_ms,
                                  .breached = row->breached,
                                  .at_risk = row->at_risk,
                                  .subject = row->subject,
                                  .payload = row->payload,
                                  .dispatched_ms = row->dispatched_ms,
                                  .resolved_ms = row->resolved_ms,
                                  .cancelled_ms = row->cancelled_ms};
    dkt_answer_ticket_map(w, &ticket);
}

void dkt_tenant_get_ticket(dkt_tenant_t *self, dkt_call_t *call)
{
    if (!call->looked) {
        dkt_need_t need = {.number = call->number};
        dkt_tenant_need(self, call, &need);
        return;
    }
    if (!call->row) {
        dkt_tenant_fenced_error(self, call, DKT_NOT_FOUND, NULL);
        return;
    }
    if (!s_page(self)) {
        dkt_tenant_error_of(self, call->work, DKT_OVERLOADED, NULL);
        return;
    }
    dkt_w_t w = dkt_w_init(self->page, DKT_PAGE_BYTES);
    dkt_answer_begin(&w, call->request.msgid, 2);
    dkt_w_cstr(&w, "status");
    dkt_w_cstr(&w, "ok");
    dkt_w_cstr(&w, "ticket");
    s_write_ticket(self, &w, call->row);
    assert(!w.failed);
    dkt_tenant_fenced(self, call->work, w.data, w.len);
}

/* -- list_tickets: the cursor is the ticket number of the page's last row, in decimal -- */

static bool s_cursor(dkt_view_t cursor, uint64_t *after)
{
    *after = 0;
    if (!cursor.data) {
        return true;
    }
    if (cursor.len == 0 || cursor.len >= CURSOR_CHARS_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < cursor.len; i++) {
        if (cursor.data[i] < '0' || cursor.data[i] > '9') {
            return false;
        }
        *after = *after * 10 + (uint64_t)(cursor.data[i] - '0');
    }
    return *after <= INT64_MAX;
}

static void s_write_cursor(dkt_w_t *w, uint64_t number)
{
    char text[CURSOR_CHARS_MAX + 1];
    size_t at = sizeof text;
    do {
        text[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    dkt_w_str(w, text + at, sizeof text - at);
}

/* How many rows fit into a page: counted by writing them. */
static uint32_t s_fitting(dkt_tenant_t *self, const dkt_ticket_row_t *rows, uint32_t count)
{
    dkt_w_t w = dkt_w_init(self->page, DKT_LIST_BYTES_MAX);
    uint32_t fitting = 0;
    while (fitting < count) {
        s_write_ticket(self, &w, &rows[fitting]);
        if (w.failed) {
            break;
        }
        fitting++;
    }
    return fitting;
}

void dkt_tenant_list_tickets(dkt_tenant_t *self, dkt_call_t *call)
{
    uint64_t after;
    if (!s_cursor(call->request.cursor, &after)) {
        dkt_tenant_error_of(self, call->work, DKT_INVALID_ARGUMENT, "cursor");
        return;
    }
    if (!call->looked) {
        dkt_need_t need = {.list = true,
                           .number = after,
                           .list_state = call->request.state,
                           .list_limit = call->request.limit + 1}; /* is there more? */
        dkt_tenant_need(self, call, &need);
        return;
    }
    if (!s_page(self)) {
        dkt_tenant_error_of(self, call->work, DKT_OVERLOADED, NULL);
        return;
    }
    uint32_t count = call->result->listed_count;
    const dkt_ticket_row_t *rows = call->result->tickets + call->result->ticket_count - count;
    uint32_t wanted = count < call->request.limit ? count : call->request.limit;
    uint32_t fitting = s_fitting(self, rows, wanted);
    bool more = fitting < count;
    dkt_w_t w = dkt_w_init(self->page, DKT_PAGE_BYTES);
    dkt_answer_begin(&w, call->request.msgid, more ? 3 : 2);
    dkt_w_cstr(&w, "status");
    dkt_w_cstr(&w, "ok");
    dkt_w_cstr(&w, "tickets");
    dkt_w_array(&w, fitting);
    for (uint32_t i = 0; i < fitting; i++) {
        s_write_ticket(self, &w, &rows[i]);
    }
    if (more) {
        dkt_w_cstr(&w, "cursor");
        s_write_cursor(&w, rows[fitting - 1].number);
    }
    assert(!w.failed);
    dkt_tenant_fenced(self, call->work, w.data, w.len);
}

void dkt_tenant_availability(dkt_tenant_t *self, dkt_call_t *call)
{
    const dkt_settings_t *settings = dkt_ledger_settings(self->ledger);
    uint8_t bytes[DKT_ANSWER_BYTES_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_answer_begin(&w, call->request.msgid, 2);
    dkt_w_cstr(&w, "status");
    dkt_w_cstr(&w, "ok");
    dkt_w_cstr(&w, "classes");
    dkt_w_map(&w, settings->class_count);
    for (uint8_t i = 0; i < settings->class_count; i++) {
        uint32_t minute = 0;
        uint32_t free_count = dkt_ledger_available(self->ledger, self->now_ms, i, &minute);
        dkt_w_cstr(&w, settings->classes[i].name);
        dkt_w_map(&w, free_count > 0 ? 2 : 1);
        dkt_w_cstr(&w, "free");
        dkt_w_uint(&w, free_count);
        if (free_count > 0) {
            dkt_w_cstr(&w, "next_free_ms");
            dkt_w_int(&w, (int64_t)minute * DKT_MINUTE_MS);
        }
    }
    assert(!w.failed);
    dkt_tenant_attach(self, call->work, bytes, w.len);
}
