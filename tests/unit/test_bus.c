/* SPDX-License-Identifier: Apache-2.0
 *
 * The long-lived NATS connection: it begins before the server does, outlives it, never buffers, and
 * is taken down within its time with no handler left behind.
 */
#include "lib/edge/bus.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/edge/clock.h"
#include "lib/edge/log.h"
#include "support_nats.h"

#define S_WAIT_MS     10000
#define S_STEP_US     2000
#define S_HANG_US     2500000 /* two attempts to connect and more */
#define S_DESTROY_MS  2500    /* two seconds, and a busy machine */
#define S_GREETED_MAX 64

static support_nats_t s_nats;
static atomic_uint s_heard;
static int s_greeted[S_GREETED_MAX]; /* of the greeting thread, until it was joined */
static unsigned s_greeted_count;

static int s_setup(void **state)
{
    (void)state;
    support_nats_init(&s_nats);
    return 0;
}

static int s_teardown(void **state)
{
    (void)state;
    support_nats_fini(&s_nats);
    return 0;
}

static dkt_bus_t *s_bus(const char *role)
{
    dkt_err_t err = {0};
    dkt_bus_config_t config = {
        .url = s_nats.url, .keys = s_nats.keys, .role = role, .node = "test"};
    dkt_bus_t *bus = dkt_bus_new(&config, &err);
    if (!bus) {
        fail_msg("%s", err.text);
    }
    return bus;
}

static bool s_wait_up(const dkt_bus_t *bus, bool up)
{
    int64_t until_mono_ms = dkt_clock_mono_ms() + S_WAIT_MS;
    while (dkt_bus_up(bus) != up && dkt_clock_mono_ms() < until_mono_ms) {
        usleep(S_STEP_US);
    }
    return dkt_bus_up(bus) == up;
}

static void s_on_message(natsConnection *connection, natsSubscription *subscription,
                         natsMsg *message, void *ctx)
{
    (void)connection;
    (void)subscription;
    atomic_fetch_add((atomic_uint *)ctx, 1);
    natsMsg_Destroy(message);
}

/* Publishes until it is heard: a subscription needs a moment to arrive. */
static bool s_wait_heard(dkt_bus_t *bus)
{
    unsigned before = atomic_load(&s_heard);
    int64_t until_mono_ms = dkt_clock_mono_ms() + S_WAIT_MS;
    while (atomic_load(&s_heard) == before && dkt_clock_mono_ms() < until_mono_ms) {
        (void)dkt_bus_publish(bus, "docket.ctx.test", "x", 1);
        usleep(S_STEP_US);
    }
    return atomic_load(&s_heard) > before;
}

static void s_destroy(dkt_bus_t *bus)
{
    int64_t began_mono_ms = dkt_clock_mono_ms();
    dkt_bus_destroy(&bus);
    assert_null(bus);
    assert_in_range(dkt_clock_mono_ms() - began_mono_ms, 0, S_DESTROY_MS);
}

static void test_bus_starts_before_the_server_and_outlives_it(void **state)
{
    (void)state;
    dkt_bus_t *bus = s_bus("broker");
    assert_false(dkt_bus_up(bus));
    assert_int_equal(dkt_bus_connects(bus), 0);
    assert_true(dkt_bus_subscribe(bus, "docket.ctx.>", s_on_message, &s_heard));
    assert_false(dkt_bus_publish(bus, "docket.ctx.test", "x", 1));

    support_nats_start(&s_nats);
    assert_true(s_wait_up(bus, true));
    assert_true(s_wait_heard(bus));
    assert_int_equal(dkt_bus_connects(bus), 1);

    support_nats_kill(&s_nats);
    assert_true(s_wait_up(bus, false));
    assert_false(dkt_bus_publish(bus, "docket.ctx.test", "x", 1));
    support_nats_start(&s_nats);
    assert_true(s_wait_up(bus, true));
    assert_true(s_wait_heard(bus)); /* the subscription is there again */
    assert_int_equal(dkt_bus_connects(bus), 2);
    s_destroy(bus);
    support_nats_kill(&s_nats);
}

/* A server that takes connections and says nothing is worse than none. */
static void test_bus_starts_while_the_server_hangs(void **state)
{
    (void)state;
    support_nats_start(&s_nats);
    assert_int_equal(kill(s_nats.pid, SIGSTOP), 0);
    assert_int_equal(waitpid(s_nats.pid, NULL, WUNTRACED), s_nats.pid); /* it has stopped */
    dkt_bus_t *bus = s_bus("broker");
    assert_true(dkt_bus_subscribe(bus, "docket.ctx.>", s_on_message, &s_heard));
    usleep(S_HANG_US);
    assert_false(dkt_bus_up(bus));
    assert_int_equal(kill(s_nats.pid, SIGCONT), 0);
    assert_true(s_wait_up(bus, true));
    assert_true(s_wait_heard(bus));
    s_destroy(bus);
    support_nats_kill(&s_nats);
}

/* Greets every connection, and says nothing after it until it is closed. */
static void *s_greet(void *argument)
{
    static const char info[] = "INFO {\"server_id\":\"X\",\"version\":\"2.9.10\",\"proto\":1,"
                               "\"auth_required\":true,\"nonce\":\"abcdefgh\","
                               "\"max_payload\":1048576}\r\n";
    int listener = *(int *)argument, fd;
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        assert_int_equal(send(fd, info, sizeof info - 1, MSG_NOSIGNAL), (ssize_t)sizeof info - 1);
        s_greeted[s_greeted_count++ % S_GREETED_MAX] = fd;
    }
    return NULL;
}

/* Worse still: libnats 3.4 itself would wait for that server's PONG for ever. */
static void test_bus_starts_while_the_server_greets_and_hangs(void **state)
{
    (void)state;
    pthread_t greeter;
    int listener = support_nats_listen(&s_nats);
    assert_int_equal(pthread_create(&greeter, NULL, s_greet, &listener), 0);
    int64_t began_mono_ms = dkt_clock_mono_ms();
    dkt_bus_t *bus = s_bus("broker");
    assert_in_range(dkt_clock_mono_ms() - began_mono_ms, 0, S_WAIT_MS);
    assert_false(dkt_bus_up(bus));
    shutdown(listener, SHUT_RDWR); /* accept ends */
    pthread_join(greeter, NULL);
    close(listener);
    assert_true(s_greeted_count > 0);
    for (unsigned i = 0; i < s_greeted_count && i < S_GREETED_MAX; i++) {
        close(s_greeted[i]);
    }
    support_nats_start(&s_nats);
    assert_true(s_wait_up(bus, true));
    s_destroy(bus);
    support_nats_kill(&s_nats);
}

static void test_bus_destroyed_while_down_or_busy_ends_in_time(void **state)
{
    (void)state;
    s_destroy(s_bus("worker"));
    support_nats_start(&s_nats);
    dkt_bus_t *speaker = s_bus("worker"), *bus = s_bus("broker");
    atomic_uint *heard = calloc(1, sizeof *heard);
    assert_true(dkt_bus_subscribe(bus, "docket.ctx.>", s_on_message, heard));
    for (int i = 0; i < 5000; i++) {
        (void)dkt_bus_publish(speaker, "docket.ctx.test", "x", 1);
    }
    s_destroy(bus);
    free(heard); /* a handler that still ran would be found by a sanitizer */
    s_destroy(speaker);
    support_nats_kill(&s_nats);
}

static void test_bus_without_key_or_address_is_refused(void **state)
{
    (void)state;
    dkt_err_t err = {0};
    dkt_bus_config_t config = {
        .url = s_nats.url, .keys = s_nats.keys, .role = "stranger", .node = "test"};
    assert_null(dkt_bus_new(&config, &err));
    config.role = "worker";
    config.url = "nats://no port at all:x";
    assert_null(dkt_bus_new(&config, &err));
    assert_true(strlen(err.text) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bus_starts_before_the_server_and_outlives_it),
        cmocka_unit_test(test_bus_starts_while_the_server_hangs),
        cmocka_unit_test(test_bus_starts_while_the_server_greets_and_hangs),
        cmocka_unit_test(test_bus_destroyed_while_down_or_busy_ends_in_time),
        cmocka_unit_test(test_bus_without_key_or_address_is_refused),
    };
    dkt_log_init("test", "bus");
    int failed = cmocka_run_group_tests(tests, s_setup, s_teardown);
    nats_Close();
    return failed;
}
