/* SPDX-License-Identifier: Apache-2.0
 *
 * docket tenant: get, set, list, suspend, resume, on the internal endpoint; export, delete and
 * receipt next to the databases (life.h).
 */
#include <string.h>

#include "ops/cmd.h"
#include "ops/cmd_common.h"
#include "ops/life.h"

static void s_print_tenant(const dkt_reply_t *reply, const msgpack_object *result)
{
    static const char *const skip[] = {"status"};
    (void)reply;
    dkt_cmd_print_fields(result, skip, 1);
}

static void s_print_done(const dkt_reply_t *reply, const msgpack_object *result)
{
    (void)reply;
    (void)result;
    puts("done");
}

static void s_print_list(const dkt_reply_t *reply, const msgpack_object *result)
{
    (void)reply;
    const msgpack_object *tenants = dkt_result_get(result, "tenants");
    dkt_text_t cursor = dkt_result_text(result, "cursor");
    if (!tenants || tenants->type != MSGPACK_OBJECT_ARRAY || tenants->via.array.size == 0) {
        puts("no tenants");
        return;
    }
    printf("%-18s %-24s %-24s %9s %s\n", "CLIENT", "NAME", "SUB-DOMAIN", "RESOLVERS", "");
    for (uint32_t i = 0; i < tenants->via.array.size; i++) {
        const msgpack_object *row = &tenants->via.array.ptr[i];
        dkt_text_t id = dkt_result_text(row, "client_id");
        dkt_text_t name = dkt_result_text(row, "name");
        dkt_text_t domain = dkt_result_text(row, "sub_domain");
        printf("%-18.*s %-24.*s %-24.*s %9lld %s\n", (int)id.len, id.data ? id.data : "",
               (int)name.len, name.data ? name.data : "", (int)domain.len,
               domain.data ? domain.data : "", (long long)dkt_result_int(row, "resolvers"),
               dkt_result_bool(row, "suspended") ? "suspended" : "");
    }
    if (cursor.data) {
        printf("there is more: --cursor %.*s\n", (int)cursor.len, cursor.data);
    }
}

#define S_CLIENT                                                                                   \
    {                                                                                              \
        "client", "client_id", DKT_CMD_TEXT, true, true, "DOCKET_CLIENT", "client id, cl_.."       \
    }

static const dkt_cmd_t s_commands[] = {
    {"get", "get_tenant", "show a tenant", true, {S_CLIENT}, s_print_tenant},
    {"set",
     "set_tenant",
     "change a tenant's settings, unless that would break a promise",
     true,
     {S_CLIENT,
      {"resolvers", "resolvers", DKT_CMD_INT, false, false, NULL, "how many, 1 to 4096"},
      {"classes", "classes", DKT_CMD_COUNTS, false, false, NULL,
       "1 to 8 levels of 2 to 1440 minutes: gold=120,silver=240; the others go"},
      {"rebooking", "rebooking", DKT_CMD_BOOL, false, false, NULL, "on or off"},
      {"limits", "limits", DKT_CMD_COUNTS, false, false, NULL,
       "in per mille, 0 to 1000: silver=600,bronze=300; the others have none"}},
     s_print_done},
    {"list",
     "list_tenants",
     "list tenants",
     true,
     {{"limit", "limit", DKT_CMD_INT, false, false, NULL, "at most so many, up to 1000"},
      {"cursor", "cursor", DKT_CMD_TEXT, false, false, NULL, "go on after the page before"}},
     s_print_list},
    {"suspend",
     "set_tenant",
     "take no new tickets of a tenant",
     true,
     {S_CLIENT, {"suspended", "suspended", DKT_CMD_FIXED, false, false, NULL, "true"}},
     s_print_done},
    {"resume",
     "set_tenant",
     "take tickets again",
     true,
     {S_CLIENT, {"suspended", "suspended", DKT_CMD_FIXED, false, false, NULL, "false"}},
     s_print_done},
    {.verb = "export", .summary = "write all of a tenant's data as files"},
    {.verb = "delete", .summary = "delete a tenant, for a signed receipt"},
    {.verb = "receipt", .summary = "check the receipt of a deletion"},
};

/* No calls to the fleet. */
static const struct {
    const char *verb;
    int (*run)(int argc, char **argv);
} s_own[] = {
    {"export", dkt_export_main}, {"delete", dkt_delete_main}, {"receipt", dkt_receipt_main}};

int dkt_cmd_tenant_main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof s_own / sizeof s_own[0]; i++) {
        if (strcmp(argv[1], s_own[i].verb) == 0) {
            return s_own[i].run(argc - 1, argv + 1);
        }
    }
    return dkt_cmd_run(s_commands, sizeof s_commands / sizeof s_commands[0], argc, argv);
}
