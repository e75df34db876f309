/* SPDX-License-Identifier: Apache-2.0
 *
 * The accounts actor when its database does not answer: a mailbox that is full of commands does not
 * keep it from ending.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/edge/clock.h"
#include "workers/accounts.h"

#define S_BOX_MAX 16
#define S_WAIT_MS 10000

static dkt_env_t s_env;
static dkt_accounts_t *s_accounts;
static char s_uri[128];
static int s_server; /* lets connect, and says nothing */

static int s_setup(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    s_server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(s_server >= 0);
    assert_int_equal(bind(s_server, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(s_server, 8), 0);
    assert_int_equal(getsockname(s_server, (struct sockaddr *)&address, &len), 0);
    snprintf(s_uri, sizeof s_uri, "postgresql://x:x@127.0.0.1:%d/x", ntohs(address.sin_port));
    memset(&s_env, 0, sizeof s_env);
    s_env.uri = s_uri;
    s_env.node_box = dkt_mailbox_new(S_BOX_MAX);
    s_env.accounts_box = dkt_mailbox_new(S_BOX_MAX);
    s_accounts = dkt_accounts_new(&s_env);
    assert_true(s_env.node_box && s_env.accounts_box && s_accounts);
    return 0;
}

static void s_empty(dkt_mailbox_t **box)
{
    dkt_mail_t *mail = dkt_mailbox_drain(*box);
    while (mail) {
        dkt_mail_t *next = mail->next;
        free(mail);
        mail = next;
    }
    dkt_mailbox_destroy(box);
}

static int s_teardown(void **state)
{
    (void)state;
    atomic_store(&s_env.stopping, true);
    dkt_accounts_destroy(&s_accounts);
    s_empty(&s_env.accounts_box);
    s_empty(&s_env.node_box);
    close(s_server);
    return 0;
}

static bool s_push_change(void)
{
    dkt_changes_mail_t *mail = dkt_mail_alloc(sizeof *mail);
    mail->mail.kind = DKT_MAIL_CHANGES;
    bool pushed = dkt_mailbox_push(s_env.accounts_box, &mail->mail);
    if (!pushed) {
        free(mail);
    }
    return pushed;
}

static void test_worker_accounts_ends_with_a_full_mailbox(void **state)
{
    (void)state;
    assert_true(s_push_change());
    struct pollfd item = {.fd = s_server, .events = POLLIN};
    assert_int_equal(poll(&item, 1, S_WAIT_MS), 1); /* from now on it waits for the server */
    int pushed = 0;
    while (s_push_change()) {
        pushed++;
    }
    assert_int_equal(pushed, S_BOX_MAX);
    int64_t began_mono_ms = dkt_clock_mono_ms();
    atomic_store(&s_env.stopping, true);
    dkt_accounts_destroy(&s_accounts);
    assert_true(dkt_clock_mono_ms() - began_mono_ms < S_WAIT_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_worker_accounts_ends_with_a_full_mailbox, s_setup,
                                        s_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
