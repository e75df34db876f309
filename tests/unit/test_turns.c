/* SPDX-License-Identifier: Apache-2.0
 *
 * Turns of tenants that write unasked: places, order, the bound of a wait, those who leave in every
 * state, and a comparison with a plain list over thousands of random events.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/core/turns.h"

#define S_TENANTS    40
#define S_OPERATIONS 200000

static dkt_turns_t s_turns;
static dkt_turn_t s_tenants[S_TENANTS];

static int s_setup(void **state)
{
    (void)state;
    dkt_turns_init(&s_turns);
    memset(s_tenants, 0, sizeof s_tenants);
    return 0;
}

static bool s_ask(int number, int64_t mono_ms)
{
    return dkt_turns_ask(&s_turns, &s_tenants[number], mono_ms);
}

/* The number of whoever is next, -1 for nobody. */
static int s_next(void)
{
    dkt_turn_t *turn = dkt_turns_next(&s_turns);
    return turn ? (int)(turn - s_tenants) : -1;
}

static void s_fill(void)
{
    for (int i = 0; i < DKT_TURNS_MAX; i++) {
        assert_true(s_ask(i, 0));
    }
}

static void test_turns_are_free_at_first(void **state)
{
    (void)state;
    s_fill();
    assert_true(s_ask(0, 1)); /* it has one: again is well */
    assert_false(s_ask(DKT_TURNS_MAX, 1));
    assert_int_equal(s_next(), -1);
}

static void test_turns_pass_on_in_order(void **state)
{
    (void)state;
    s_fill();
    for (int i = 0; i < 3; i++) {
        assert_false(s_ask(10 + i, i));
    }
    for (int i = 0; i < 3; i++) {
        dkt_turns_leave(&s_turns, &s_tenants[i]);
        assert_int_equal(s_next(), 10 + i);
        assert_int_equal(s_next(), -1);
        assert_true(s_ask(10 + i, 5)); /* told, it goes */
    }
}

/* Whoever has just been served stands behind those who wait. */
static void test_turns_of_a_busy_tenant_come_round(void **state)
{
    (void)state;
    s_fill();
    assert_false(s_ask(10, 0));
    dkt_turns_leave(&s_turns, &s_tenants[0]);
    assert_int_equal(s_next(), 10);
    assert_false(s_ask(0, 1));
    dkt_turns_leave(&s_turns, &s_tenants[10]);
    assert_int_equal(s_next(), 0);
}

static void test_turns_wait_is_bounded(void **state)
{
    (void)state;
    s_fill(); /* and they hang */
    assert_false(s_ask(10, 7));
    assert_int_equal(dkt_turn_due_mono_ms(&s_tenants[10]), 7 + DKT_TURN_WAIT_MS);
    assert_false(s_ask(10, 6 + DKT_TURN_WAIT_MS));
    assert_true(s_ask(10, 7 + DKT_TURN_WAIT_MS));
    assert_int_equal(dkt_turn_due_mono_ms(&s_tenants[10]), INT64_MAX);
    /* It went without a place, so there is none to give back. */
    dkt_turns_leave(&s_turns, &s_tenants[10]);
    assert_false(s_ask(11, 400));
    assert_int_equal(s_next(), -1);
}

static void test_turns_may_be_left_at_any_time(void **state)
{
    (void)state;
    s_fill();
    assert_false(s_ask(10, 0));
    assert_false(s_ask(11, 0));
    dkt_turns_leave(&s_turns, &s_tenants[10]); /* waiting */
    dkt_turns_leave(&s_turns, &s_tenants[10]); /* away */
    dkt_turns_leave(&s_turns, &s_tenants[0]);
    assert_int_equal(s_next(), 11);
    dkt_turns_leave(&s_turns, &s_tenants[11]); /* told, and gone before it went */
    assert_int_equal(s_next(), -1);
    assert_true(s_ask(10, 1));
}

/* -- against a plain list ------------------------------------------------------------------------
 */

typedef struct {
    int places[DKT_TURNS_MAX + 1], queue[S_TENANTS];
    int64_t since_ms[S_TENANTS];
    int place_count, queue_count;
} s_model_t;

static bool s_take_out(int *list, int *count, int number)
{
    for (int i = 0; i < *count; i++) {
        if (list[i] == number) {
            (*count)--;
            memmove(&list[i], &list[i + 1], (size_t)(*count - i) * sizeof *list);
            return true;
        }
    }
    return false;
}

static bool s_model_has(const s_model_t *model, int number)
{
    bool has = false;
    for (int i = 0; i < model->place_count; i++) {
        has = has || model->places[i] == number;
    }
    return has;
}

static bool s_model_waits(const s_model_t *model, int number)
{
    bool waits = false;
    for (int i = 0; i < model->queue_count; i++) {
        waits = waits || model->queue[i] == number;
    }
    return waits;
}

static bool s_model_ask(s_model_t *model, int number, int64_t mono_ms)
{
    if (s_model_has(model, number)) {
        return true;
    }
    if (s_model_waits(model, number)) {
        return mono_ms - model->since_ms[number] >= DKT_TURN_WAIT_MS &&
               s_take_out(model->queue, &model->queue_count, number);
    }
    if (model->place_count < DKT_TURNS_MAX) {
        model->places[model->place_count++] = number;
        return true;
    }
    model->queue[model->queue_count++] = number;
    model->since_ms[number] = mono_ms;
    return false;
}

static void s_model_leave(s_model_t *model, int number)
{
    if (!s_take_out(model->places, &model->place_count, number)) {
        (void)s_take_out(model->queue, &model->queue_count, number);
    }
}

static int s_model_next(s_model_t *model)
{
    if (model->queue_count == 0 || model->place_count >= DKT_TURNS_MAX) {
        return -1;
    }
    int number = model->queue[0];
    (void)s_take_out(model->queue, &model->queue_count, number);
    model->places[model->place_count++] = number;
    return number;
}

static void test_turns_are_as_in_a_plain_list(void **state)
{
    (void)state;
    static s_model_t model;
    int64_t mono_ms = 0;
    unsigned int random = 1;
    uint32_t passed_on = 0, without = 0;
    memset(&model, 0, sizeof model);
    for (int i = 0; i < S_OPERATIONS; i++) {
        int number = rand_r(&random) % S_TENANTS;
        mono_ms += rand_r(&random) % 16;
        if (rand_r(&random) % 3 > 0) {
            bool waited = s_model_waits(&model, number);
            bool go = s_ask(number, mono_ms);
            assert_int_equal(go, s_model_ask(&model, number, mono_ms));
            without += waited && go;
        } else {
            dkt_turns_leave(&s_turns, &s_tenants[number]);
            s_model_leave(&model, number);
        }
        int next;
        do {
            next = s_next();
            assert_int_equal(next, s_model_next(&model));
            passed_on += next >= 0;
        } while (next >= 0);
        /* No place is lost, and nobody waits beside a free one. */
        assert_int_equal(s_turns.taken, model.place_count);
        assert_true(model.queue_count == 0 || s_turns.taken == DKT_TURNS_MAX);
    }
    assert_true(passed_on > 1000 && without > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_turns_are_free_at_first, s_setup),
        cmocka_unit_test_setup(test_turns_pass_on_in_order, s_setup),
        cmocka_unit_test_setup(test_turns_of_a_busy_tenant_come_round, s_setup),
        cmocka_unit_test_setup(test_turns_wait_is_bounded, s_setup),
        cmocka_unit_test_setup(test_turns_may_be_left_at_any_time, s_setup),
        cmocka_unit_test_setup(test_turns_are_as_in_a_plain_list, s_setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
