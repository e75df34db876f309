/* SPDX-License-Identifier: Apache-2.0
 *
 * Turns among threads: many actors want a few places again and again. No more than the places are
 * taken at a time, whoever is told wakes up, and nothing is left over.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/edge/clock.h"
#include "workers/turns.h"

#define S_ACTORS       24
#define S_ROUNDS       100
#define S_WORK_MS      2
#define S_HANG_MS      60000 /* far beyond any wait: only a lost wake-up comes near */
#define S_IMPATIENT_MS 1     /* some ask in vain and leave */

static dkt_worker_turns_t s_turns;
static atomic_int s_inside, s_inside_most, s_gone_without, s_waited;

typedef struct {
    pthread_t thread;
    dkt_actor_turn_t turn;
    int number;
} s_actor_t;

static void s_work(const s_actor_t *self)
{
    if (self->turn.turn.state != DKT_TURN_HAS) {
        atomic_fetch_add(&s_gone_without, 1); /* a slow machine: the wait was over first */
        return;
    }
    int inside = atomic_fetch_add(&s_inside, 1) + 1;
    int most = atomic_load(&s_inside_most);
    while (inside > most && !atomic_compare_exchange_weak(&s_inside_most, &most, inside)) {
    }
    if (self->number % 4 == 0) {
        poll(NULL, 0, S_WORK_MS);
    }
    atomic_fetch_sub(&s_inside, 1);
}

static void s_round(s_actor_t *self, bool impatient)
{
    struct pollfd item = {.fd = dkt_mailbox_fd(self->turn.box), .events = POLLIN};
    int64_t due_mono_ms = 0;
    while (!dkt_worker_turns_ask(&s_turns, &self->turn, dkt_clock_mono_ms(), &due_mono_ms)) {
        int64_t left_ms = due_mono_ms - dkt_clock_mono_ms();
        atomic_fetch_add(&s_waited, 1);
        (void)poll(&item, 1, impatient ? S_IMPATIENT_MS : left_ms > 0 ? (int)left_ms : 0);
        assert_null(dkt_mailbox_drain(self->turn.box));
        if (impatient) {
            break;
        }
    }
    if (!impatient) {
        s_work(self);
    }
    dkt_worker_turns_leave(&s_turns, &self->turn);
}

static void *s_run(void *arg)
{
    s_actor_t *self = arg;
    for (int i = 0; i < S_ROUNDS; i++) {
        s_round(self, self->number % 6 == 5 && i % 2 == 0);
    }
    return NULL;
}

static void test_worker_turns_are_shared_by_threads(void **state)
{
    (void)state;
    static s_actor_t actors[S_ACTORS];
    int64_t begin_mono_ms = dkt_clock_mono_ms();
    dkt_worker_turns_init(&s_turns);
    for (int i = 0; i < S_ACTORS; i++) {
        actors[i] = (s_actor_t){.number = i, .turn = {.box = dkt_mailbox_new(1)}};
        assert_non_null(actors[i].turn.box);
        assert_int_equal(pthread_create(&actors[i].thread, NULL, s_run, &actors[i]), 0);
    }
    for (int i = 0; i < S_ACTORS; i++) {
        pthread_join(actors[i].thread, NULL);
        dkt_mailbox_destroy(&actors[i].turn.box);
    }
    assert_true(atomic_load(&s_waited) > 0);
    assert_in_range(atomic_load(&s_inside_most), 1, DKT_TURNS_MAX);
    assert_int_equal(s_turns.turns.taken, 0);
    assert_true(TAILQ_EMPTY(&s_turns.turns.queue));
    assert_true(dkt_clock_mono_ms() - begin_mono_ms < S_HANG_MS);
    dkt_worker_turns_fini(&s_turns);
}

/* Told, and the waker does nothing more: the sleeper must have been woken by the leave alone. */
static void test_worker_turns_wake_the_next(void **state)
{
    (void)state;
    static dkt_actor_turn_t turns[DKT_TURNS_MAX + 1];
    int64_t due_mono_ms = 0;
    dkt_worker_turns_init(&s_turns);
    for (int i = 0; i <= DKT_TURNS_MAX; i++) {
        turns[i] = (dkt_actor_turn_t){.box = dkt_mailbox_new(1)};
        assert_int_equal(dkt_worker_turns_ask(&s_turns, &turns[i], 0, &due_mono_ms),
                         i < DKT_TURNS_MAX);
    }
    struct pollfd item = {.fd = dkt_mailbox_fd(turns[DKT_TURNS_MAX].box), .events = POLLIN};
    assert_int_equal(poll(&item, 1, 0), 0);
    dkt_worker_turns_leave(&s_turns, &turns[0]);
    assert_int_equal(poll(&item, 1, 0), 1);
    assert_true(dkt_worker_turns_ask(&s_turns, &turns[DKT_TURNS_MAX], 0, &due_mono_ms));
    for (int i = 0; i <= DKT_TURNS_MAX; i++) {
        dkt_worker_turns_leave(&s_turns, &turns[i]);
        assert_null(dkt_mailbox_drain(turns[i].box));
        dkt_mailbox_destroy(&turns[i].box);
    }
    assert_int_equal(s_turns.turns.taken, 0);
    dkt_worker_turns_fini(&s_turns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worker_turns_wake_the_next),
        cmocka_unit_test(test_worker_turns_are_shared_by_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
