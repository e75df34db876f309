/* SPDX-License-Identifier: Apache-2.0
 *
 * The authenticator: who gets through a CURVE socket, and what the receiver sees of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>
#include <cmocka.h>

#include "lib/edge/keys.h"
#include "lib/edge/zap.h"

#define S_NOTHING_MS 300
#define S_WAIT_MS    10000

static char s_folder[64], s_address[128];
static void *s_context, *s_router;
static dkt_zap_t *s_zap;
static dkt_curve_key_t s_server;

static void s_set_int(void *socket, int option, int value)
{
    assert_int_equal(zmq_setsockopt(socket, option, &value, sizeof value), 0);
}

static int s_setup(void **state)
{
    (void)state;
    dkt_err_t err;
    snprintf(s_folder, sizeof s_folder, "/tmp/docket-zap-XXXXXX");
    assert_non_null(mkdtemp(s_folder));
    assert_int_equal(dkt_keys_create(s_folder, &err), DKT_OK);
    assert_int_equal(dkt_keys_curve(s_folder, "internal.key", &s_server, &err), DKT_OK);
    s_context = zmq_ctx_new();
    s_zap = dkt_zap_start(s_context, s_folder, &err);
    assert_non_null(s_zap);
    s_router = zmq_socket(s_context, ZMQ_ROUTER);
    s_set_int(s_router, ZMQ_LINGER, 0);
    s_set_int(s_router, ZMQ_CURVE_SERVER, 1);
    assert_int_equal(zmq_setsockopt(s_router, ZMQ_CURVE_SECRETKEY, s_server.secret_key, 41), 0);
    assert_int_equal(zmq_setsockopt(s_router, ZMQ_ZAP_DOMAIN, DKT_ZAP_DOMAIN, 8), 0);
    assert_int_equal(zmq_bind(s_router, "tcp://127.0.0.1:*"), 0);
    size_t len = sizeof s_address;
    assert_int_equal(zmq_getsockopt(s_router, ZMQ_LAST_ENDPOINT, s_address, &len), 0);
    return 0;
}

static int s_teardown(void **state)
{
    (void)state;
    char command[128];
    zmq_close(s_router);
    dkt_zap_stop(&s_zap);
    zmq_ctx_term(s_context);
    snprintf(command, sizeof command, "rm -rf '%s'", s_folder);
    return system(command);
}

/* Connects with these keys (NULL: no CURVE), sends one frame, and tells whether it arrived; `user`
 * gets its User-Id. */
static bool s_arrives(const char *server_key, const dkt_curve_key_t *key, int wait_ms, char *user)
{
    void *client = zmq_socket(s_context, ZMQ_DEALER);
    s_set_int(client, ZMQ_LINGER, 0);
    if (key) {
        zmq_setsockopt(client, ZMQ_CURVE_SERVERKEY, server_key, 41);
        zmq_setsockopt(client, ZMQ_CURVE_PUBLICKEY, key->public_key, 41);
        zmq_setsockopt(client, ZMQ_CURVE_SECRETKEY, key->secret_key, 41);
    }
    assert_int_equal(zmq_connect(client, s_address), 0);
    zmq_send(client, "hello", 5, 0);
    zmq_pollitem_t item = {s_router, 0, ZMQ_POLLIN, 0};
    bool arrived = zmq_poll(&item, 1, wait_ms) == 1;
    if (arrived) {
        zmq_msg_t msg;
        zmq_msg_init(&msg);
        zmq_msg_recv(&msg, s_router, 0);
        zmq_msg_recv(&msg, s_router, 0);
        const char *id = zmq_msg_gets(&msg, "User-Id");
        snprintf(user, 64, "%s", id ? id : "");
        zmq_msg_close(&msg);
    }
    zmq_close(client);
    return arrived;
}

static dkt_curve_key_t s_new_key(void)
{
    dkt_curve_key_t key;
    zmq_curve_keypair(key.public_key, key.secret_key);
    return key;
}

static void s_write_allowed(const char *mode, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/internal.allowed", s_folder);
    FILE *file = fopen(path, mode);
    assert_non_null(file);
    fprintf(file, "%s\n", text);
    fclose(file);
}

static void test_zap_listed_key_has_a_user_id(void **state)
{
    (void)state;
    dkt_curve_key_t key;
    dkt_err_t err;
    char user[64] = "", again[64] = "";
    assert_int_equal(dkt_keys_curve(s_folder, "internal-client.key", &key, &err), DKT_OK);
    assert_true(s_arrives(s_server.public_key, &key, S_WAIT_MS, user));
    assert_int_equal(strlen(user), 32);
    assert_true(s_arrives(s_server.public_key, &key, S_WAIT_MS, again));
    assert_string_equal(user, again);
}

static void test_zap_others_do_not_get_through(void **state)
{
    (void)state;
    dkt_curve_key_t listed, unlisted = s_new_key(), other_server = s_new_key();
    dkt_err_t err;
    char user[64];
    assert_int_equal(dkt_keys_curve(s_folder, "internal-client.key", &listed, &err), DKT_OK);
    assert_false(s_arrives(s_server.public_key, &unlisted, S_NOTHING_MS, user));
    assert_false(s_arrives(other_server.public_key, &listed, S_NOTHING_MS, user));
    assert_false(s_arrives(NULL, NULL, S_NOTHING_MS, user));
    assert_true(s_arrives(s_server.public_key, &listed, S_WAIT_MS, user));
}

static void test_zap_list_is_read_again_when_it_changes(void **state)
{
    (void)state;
    dkt_curve_key_t first, second = s_new_key();
    dkt_err_t err;
    char user[64];
    assert_int_equal(dkt_keys_curve(s_folder, "internal-client.key", &first, &err), DKT_OK);
    assert_false(s_arrives(s_server.public_key, &second, S_NOTHING_MS, user));
    s_write_allowed("a", second.public_key);
    assert_true(s_arrives(s_server.public_key, &second, S_WAIT_MS, user));
    assert_true(s_arrives(s_server.public_key, &first, S_WAIT_MS, user));
    s_write_allowed("w", second.public_key);
    assert_false(s_arrives(s_server.public_key, &first, S_NOTHING_MS, user));
    assert_true(s_arrives(s_server.public_key, &second, S_WAIT_MS, user));
}

static void test_zap_unreadable_list_lets_nobody_in(void **state)
{
    (void)state;
    dkt_curve_key_t key;
    dkt_err_t err;
    char user[64], path[128];
    assert_int_equal(dkt_keys_curve(s_folder, "internal-client.key", &key, &err), DKT_OK);
    assert_true(s_arrives(s_server.public_key, &key, S_WAIT_MS, user));
    snprintf(path, sizeof path, "%s/internal.allowed", s_folder);
    assert_int_equal(unlink(path), 0);
    assert_false(s_arrives(s_server.public_key, &key, S_NOTHING_MS, user));
    s_write_allowed("w", "this is not a key");
    assert_false(s_arrives(s_server.public_key, &key, S_NOTHING_MS, user));
}

/* Raw requests to the handler itself: other domains and mechanisms, and what is no request. */
static void test_zap_refuses_other_domains_and_rubbish(void **state)
{
    (void)state;
    static const char *const frames[][7] = {
        {"1.0", "7", "internal", "127.0.0.1", "", "NULL", ""},
        {"1.0", "7", "other", "127.0.0.1", "", "CURVE", "0123456789abcdef0123456789abcdef"},
        {"1.0", "7", "internal", "127.0.0.1", "", "CURVE", "short"},
        {"2.0", "7", "internal", "127.0.0.1", "", "CURVE", "0123456789abcdef0123456789abcdef"},
    };
    void *client = zmq_socket(s_context, ZMQ_REQ);
    s_set_int(client, ZMQ_LINGER, 0);
    s_set_int(client, ZMQ_RCVTIMEO, S_WAIT_MS);
    assert_int_equal(zmq_connect(client, "inproc://zeromq.zap.01"), 0);
    for (size_t i = 0; i < sizeof frames / sizeof *frames + 2; i++) {
        /* The last two: far too many frames, and a lone one. */
        size_t row = i < 4 ? i : 0, count = i < 4 ? 7 : i == 4 ? 100 : 1;
        for (size_t k = 0; k < count; k++) {
            const char *text = frames[row][k % 7];
            zmq_send(client, text, strlen(text), k + 1 < count ? ZMQ_SNDMORE : 0);
        }
        char reply[6][64] = {0};
        for (size_t k = 0; k < 6; k++) {
            int len = zmq_recv(client, reply[k], sizeof reply[k] - 1, 0);
            assert_true(len >= 0);
        }
        assert_string_equal(reply[0], "1.0");
        assert_string_equal(reply[2], "400");
        assert_string_equal(reply[4], "");
    }
    zmq_close(client);
}

#define T(name) cmocka_unit_test_setup_teardown(name, s_setup, s_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_zap_listed_key_has_a_user_id),           T(test_zap_others_do_not_get_through),
        T(test_zap_list_is_read_again_when_it_changes), T(test_zap_unreadable_list_lets_nobody_in),
        T(test_zap_refuses_other_domains_and_rubbish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
