/* SPDX-License-Identifier: Apache-2.0
 *
 * docket ticket: create, cancel, get, list, resolve, available; and for services inside the VPN
 * hold, allocate, release.
 */
#include "ops/cmd.h"
#include "ops/cmd_common.h"

static void s_print_created(const dkt_reply_t *reply, const msgpack_object *result)
{
    int64_t now_ms = dkt_unix_ms();
    (void)result;
    printf("ticket %.*s created%s\n", (int)reply->ticket_id.len, reply->ticket_id.data,
           reply->replayed ? " (before: the same request_id)" : "");
    printf("  resolved by %s\n", dkt_time_text(reply->deadline_ms, now_ms).text);
    printf("  planned for %s\n", dkt_time_text(reply->slot_start_ms, now_ms).text);
}

static void s_print_held(const dkt_reply_t *reply, const msgpack_object *result)
{
    int64_t now_ms = dkt_unix_ms();
    (void)result;
    printf("slot %.*s held\n", (int)reply->slot_id.len, reply->slot_id.data);
    printf("  starts  %s\n", dkt_time_text(reply->slot_start_ms, now_ms).text);
    printf("  expires %s\n", dkt_time_text(reply->hold_expires_ms, now_ms).text);
}

static void s_print_state(const dkt_reply_t *reply, const msgpack_object *result)
{
    (void)result;
    printf("%.*s%s\n", (int)reply->state.len, reply->state.data, reply->replayed ? " before" : "");
}

static void s_print_resolved(const dkt_reply_t *reply, const msgpack_object *result)
{
    (void)result;
    printf("resolved, %s\n", reply->met ? "the promise was kept" : "after its deadline");
}

static void s_print_ticket(const dkt_reply_t *reply, const msgpack_object *result)
{
    (void)reply;
    dkt_cmd_print_fields(dkt_result_get(result, "ticket"), NULL, 0);
}

static void s_print_row(const msgpack_object *row)
{
    dkt_text_t id = dkt_result_text(row, "ticket_id");
    dkt_text_t type = dkt_result_text(row, "ticket_type");
    dkt_text_t state = dkt_result_text(row, "state");
    dkt_text_t subject = dkt_result_text(row, "subject");
    printf("%-43.*s %-8.*s %-10.*s %-6s %-6s %s%s%.*s\n", (int)id.len, id.data, (int)type.len,
           type.data, (int)state.len, state.data,
           dkt_time_short(dkt_result_int(row, "slot_start_ms")).text,
           dkt_time_short(dkt_result_int(row, "deadline_ms")).text,
           dkt_result_bool(row, "breached") ? "breached " : "",
           dkt_result_bool(row, "at_risk") ? "at risk " : "", (int)subject.len,
           subject.data ? subject.data : "");
}

static void s_print_list(const dkt_reply_t *reply, const msgpack_object *result)
{
    (void)reply;
    const msgpack_object *tickets = dkt_result_get(result, "tickets");
    dkt_text_t cursor = dkt_result_text(result, "cursor");
    if (!tickets || tickets->type != MSGPACK_OBJECT_ARRAY || tickets->via.array.size == 0) {
        puts("no tickets");
        return;
    }
    printf("%-43s %-8s %-10s %-6s %-6s %s\n", "TICKET", "TYPE", "STATE", "SLOT", "BY", "");
    for (uint32_t i = 0; i < tickets->via.array.size; i++) {
        s_print_row(&tickets->via.array.ptr[i]);
    }
    if (cursor.data) {
        printf("there is more: --cursor %.*s\n", (int)cursor.len, cursor.data);
    }
}

static void s_print_available(const dkt_reply_t *reply, const msgpack_object *result)
{
    (void)reply;
    const msgpack_object *classes = dkt_result_get(result, "classes");
    if (!classes || classes->type != MSGPACK_OBJECT_MAP) {
        return;
    }
    for (uint32_t i = 0; i < classes->via.map.size; i++) {
        const msgpack_object_kv *pair = &classes->via.map.ptr[i];
        dkt_text_t name = {pair->key.via.str.ptr, pair->key.via.str.size};
        printf("%-10.*s %6lld free, first at %s\n", (int)name.len, name.data,
               (long long)dkt_result_int(&pair->val, "free"),
               dkt_time_short(dkt_result_int(&pair->val, "next_free_ms")).text);
    }
}

#define S_CLIENT                                                                                   \
    {                                                                                              \
        "client", "client_id", DKT_CMD_TEXT, true, false, "DOCKET_CLIENT", "client id, cl_.."      \
    }
#define S_TICKET                                                                                   \
    {                                                                                              \
        "ticket", "ticket_id", DKT_CMD_TEXT, true, true, NULL, "ticket id, tk_.."                  \
    }
#define S_SLOT                                                                                     \
    {                                                                                              \
        "slot", "slot_id", DKT_CMD_TEXT, true, true, NULL, "slot id, sl_.."                        \
    }
#define S_TYPE                                                                                     \
    {                                                                                              \
        "type", "ticket_type", DKT_CMD_TEXT, true, true, NULL,                                     \
            "service level: gold, silver, bronze"                                                  \
    }
#define S_SUBJECT                                                                                  \
    {                                                                                              \
        "subject", "subject", DKT_CMD_TEXT, false, false, NULL, "what it is about, 200 bytes"      \
    }
#define S_PAYLOAD                                                                                  \
    {                                                                                              \
        "payload", "payload", DKT_CMD_PAYLOAD, false, false, NULL, "text or @FILE, 8 KiB"          \
    }

static const dkt_cmd_t s_commands[] = {
    {"create",
     "create_ticket",
     "create a ticket if its level can be guaranteed",
     false,
     {S_TYPE, S_CLIENT, S_SUBJECT, S_PAYLOAD},
     s_print_created},
    {"cancel", "cancel_ticket", "cancel an open ticket", false, {S_TICKET}, s_print_state},
    {"get", "get_ticket", "show a ticket", false, {S_TICKET}, s_print_ticket},
    {"list",
     "list_tickets",
     "list tickets in order",
     false,
     {S_CLIENT,
      {"state", "state", DKT_CMD_TEXT, false, false, NULL,
       "only open, dispatched, resolved or cancelled ones"},
      {"limit", "limit", DKT_CMD_INT, false, false, NULL, "at most so many, up to 1000"},
      {"cursor", "cursor", DKT_CMD_TEXT, false, false, NULL, "go on after the page before"}},
     s_print_list},
    {"resolve", "resolve_ticket", "say that a ticket is done", false, {S_TICKET}, s_print_resolved},
    {"available",
     "availability",
     "how many of each class would be admitted now",
     false,
     {S_CLIENT},
     s_print_available},
    {"hold",
     "validate_eta",
     "hold a slot for a while",
     true,
     {S_TYPE,
      S_CLIENT,
      {"hold-ms", "hold_ms", DKT_CMD_INT, false, false, NULL, "for how long, 1000 to 300000"}},
     s_print_held},
    {"allocate",
     "allocate_slot",
     "turn a held slot into a ticket",
     true,
     {S_TYPE, S_SLOT, S_CLIENT, S_SUBJECT, S_PAYLOAD},
     s_print_created},
    {"release", "release_slot", "give a held slot back", true, {S_SLOT}, s_print_state},
};

int dkt_cmd_ticket_main(int argc, char **argv)
{
    return dkt_cmd_run(s_commands, sizeof s_commands / sizeof s_commands[0], argc, argv);
}
