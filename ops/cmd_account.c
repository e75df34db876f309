/* SPDX-License-Identifier: Apache-2.0
 *
 * docket account: create, login, logout, password.
 */
#include "ops/cmd.h"
#include "ops/cmd_common.h"

static void s_print_created(const dkt_reply_t *reply, const msgpack_object *result)
{
    (void)result;
    printf("account %.*s created%s\nsub-domain %.*s\n", (int)reply->client_id.len,
           reply->client_id.data, reply->replayed ? " (before)" : "", (int)reply->sub_domain.len,
           reply->sub_domain.data);
}

static void s_print_login(const dkt_reply_t *reply, const msgpack_object *result)
{
    (void)result;
    printf("logged in to %.*s until %s\nexport DOCKET_TOKEN=%.*s\n", (int)reply->sub_domain.len,
           reply->sub_domain.data, dkt_time_text(reply->expires_ms, dkt_unix_ms()).text,
           (int)reply->token.len, reply->token.data);
}

static void s_print_logout(const dkt_reply_t *reply, const msgpack_object *result)
{
    (void)reply;
    (void)result;
    puts("logged out: the token is dead");
}

static void s_print_password(const dkt_reply_t *reply, const msgpack_object *result)
{
    (void)reply;
    (void)result;
    puts("password changed: all tokens are dead");
}

#define S_CLIENT                                                                                   \
    {                                                                                              \
        "client", "client_id", DKT_CMD_TEXT, true, true, "DOCKET_CLIENT", "client id, cl_.."       \
    }
#define S_PASSWORD                                                                                 \
    {                                                                                              \
        "password", "password", DKT_CMD_PASSWORD, true, false, "DOCKET_PASSWORD", "the password"   \
    }

static const dkt_cmd_t s_commands[] = {
    {"create",
     "create_account",
     "open an account with a database of its own",
     false,
     {{"name", "name", DKT_CMD_TEXT, true, false, NULL, "the company's name"},
      {"email", "email", DKT_CMD_TEXT, true, false, NULL, "official e-mail address"},
      {"resolvers", "resolvers", DKT_CMD_INT, false, false, NULL, "how many, 1 to 64"},
      S_PASSWORD},
     s_print_created},
    {"login", "login", "get a session token", false, {S_CLIENT, S_PASSWORD}, s_print_login},
    {"logout", "logout", "end the session of the token", false, {S_CLIENT}, s_print_logout},
    {"password",
     "change_password",
     "change the password",
     false,
     {S_CLIENT,
      S_PASSWORD,
      {"new-password", "new_password", DKT_CMD_PASSWORD, true, false, "DOCKET_NEW_PASSWORD",
       "the new password"}},
     s_print_password},
};

int dkt_cmd_account_main(int argc, char **argv)
{
    return dkt_cmd_run(s_commands, sizeof s_commands / sizeof s_commands[0], argc, argv);
}
