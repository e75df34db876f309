/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/mailbox.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define S_WRITERS      4
#define S_PER_WRITER   20000
#define S_WAIT_MAX_MS  10000
#define S_SMALL_MAX    3
#define S_THREADED_MAX 64

static bool s_readable(const dkt_mailbox_t *box, int timeout_ms)
{
    struct pollfd item = {.fd = dkt_mailbox_fd(box), .events = POLLIN};
    return poll(&item, 1, timeout_ms) == 1;
}

static void test_mailbox_keeps_order(void **state)
{
    (void)state;
    dkt_mailbox_t *box = dkt_mailbox_new(S_SMALL_MAX);
    dkt_mail_t mails[S_SMALL_MAX];
    for (uint32_t i = 0; i < S_SMALL_MAX; i++) {
        mails[i].kind = i;
        assert_true(dkt_mailbox_push(box, &mails[i]));
    }
    dkt_mail_t *mail = dkt_mailbox_drain(box);
    for (uint32_t i = 0; i < S_SMALL_MAX; i++) {
        assert_non_null(mail);
        assert_int_equal(mail->kind, i);
        mail = mail->next;
    }
    assert_null(mail);
    dkt_mailbox_destroy(&box);
    assert_null(box);
}

static void test_mailbox_refuses_above_its_bound(void **state)
{
    (void)state;
    dkt_mailbox_t *box = dkt_mailbox_new(S_SMALL_MAX);
    dkt_mail_t mails[S_SMALL_MAX + 1] = {{0}};
    mails[0].next = &mails[1];
    assert_true(dkt_mailbox_push_list(box, &mails[0]));
    /* A list goes in whole or not at all. */
    mails[2].next = &mails[3];
    assert_false(dkt_mailbox_push_list(box, &mails[2]));
    assert_true(dkt_mailbox_push(box, &mails[2]));
    assert_false(dkt_mailbox_push(box, &mails[3]));
    assert_ptr_equal(dkt_mailbox_drain(box), &mails[0]);
    assert_true(dkt_mailbox_push(box, &mails[3]));
    assert_ptr_equal(dkt_mailbox_drain(box), &mails[3]);
    dkt_mailbox_destroy(&box);
}

static void test_mailbox_is_readable_while_it_holds_something(void **state)
{
    (void)state;
    dkt_mailbox_t *box = dkt_mailbox_new(S_SMALL_MAX);
    dkt_mail_t mails[2] = {{0}};
    assert_false(s_readable(box, 0));
    assert_true(dkt_mailbox_push_list(box, NULL));
    assert_false(s_readable(box, 0));
    assert_true(dkt_mailbox_push(box, &mails[0]));
    assert_true(dkt_mailbox_push(box, &mails[1]));
    assert_true(s_readable(box, 0));
    assert_ptr_equal(dkt_mailbox_drain(box), &mails[0]);
    assert_false(s_readable(box, 0));
    assert_null(dkt_mailbox_drain(box));
    dkt_mailbox_destroy(&box);
}

typedef struct {
    dkt_mail_t mail;
    uint32_t writer, number;
} s_message_t;

typedef struct {
    dkt_mailbox_t *box;
    uint32_t writer;
} s_writer_t;

static void *s_write(void *argument)
{
    s_writer_t *self = argument;
    for (uint32_t i = 0; i < S_PER_WRITER; i++) {
        s_message_t *message = malloc(sizeof *message);
        *message = (s_message_t){.writer = self->writer, .number = i};
        while (!dkt_mailbox_push(self->box, &message->mail)) {
            sched_yield();
        }
    }
    return NULL;
}

/* Nothing is lost, nothing doubled, each writer's order is kept, and a reader that sleeps on the fd
 * is always woken. */
static void test_mailbox_from_many_threads(void **state)
{
    (void)state;
    dkt_mailbox_t *box = dkt_mailbox_new(S_THREADED_MAX);
    pthread_t threads[S_WRITERS];
    s_writer_t writers[S_WRITERS];
    for (uint32_t i = 0; i < S_WRITERS; i++) {
        writers[i] = (s_writer_t){.box = box, .writer = i};
        assert_int_equal(pthread_create(&threads[i], NULL, s_write, &writers[i]), 0);
    }
    uint32_t expected[S_WRITERS] = {0}, count = 0;
    while (count < S_WRITERS * S_PER_WRITER) {
        assert_true(s_readable(box, S_WAIT_MAX_MS));
        dkt_mail_t *mail = dkt_mailbox_drain(box); /* NULL: woken in vain */
        while (mail) {
            s_message_t *message = (s_message_t *)mail;
            mail = mail->next;
            assert_int_equal(message->number, expected[message->writer]);
            expected[message->writer]++;
            count++;
            free(message);
        }
    }
    for (uint32_t i = 0; i < S_WRITERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(expected[i], S_PER_WRITER);
    }
    dkt_mailbox_destroy(&box);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mailbox_keeps_order),
        cmocka_unit_test(test_mailbox_refuses_above_its_bound),
        cmocka_unit_test(test_mailbox_is_readable_while_it_holds_something),
        cmocka_unit_test(test_mailbox_from_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
