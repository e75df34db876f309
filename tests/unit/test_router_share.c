/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes on of a tenant that floods: all of it while it is alone, its share while another is
 * served who asks for little.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "support_random.h"
#include "support_router.h"

#define INTERNAL   DKT_AUDIENCE_INTERNAL
#define S_SHARE    DKT_BROKER_SHARE_OPEN
#define S_FLOOD    (4 * S_SHARE)
#define S_LIGHT_ID 100000 /* msgids of the other tenant from here on */

enum { S_FLOODER, S_LIGHT };
enum { S_FLOOD_PEER = 3, S_LIGHT_PEER };

static rig_t *s_rig;
static const uint8_t s_one[] = {1};

static int s_setup(void **state)
{
    (void)state;
    s_rig = rig_new(0, 0);
    rig_one_worker(s_rig);
    assert_int_not_equal(dkt_client_vshard(&s_rig->clients[S_FLOODER]),
                         dkt_client_vshard(&s_rig->clients[S_LIGHT]));
    return 0;
}

static int s_teardown(void **state)
{
    (void)state;
    rig_destroy(&s_rig);
    return 0;
}

static void s_send(unsigned client, uint32_t msgid, uint32_t budget_ms)
{
    dkt_request_t request = rig_request(s_rig, DKT_METHOD_CREATE_TICKET, msgid);
    request.client_id = rig_text(s_rig->client_ids[client]);
    request.budget_ms = budget_ms;
    rig_send(s_rig, INTERNAL, client == S_FLOODER ? S_FLOOD_PEER : S_LIGHT_PEER, &request);
}

static void s_send_many(unsigned client, uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        s_send(client, first + i, 5000);
    }
}

/* How many requests of a tenant its worker got. */
static uint32_t s_passed(unsigned client)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < s_rig->request_count; i++) {
        count += (s_rig->requests[i].msgid >= S_LIGHT_ID) == (client == S_LIGHT);
    }
    return count;
}

static void s_answer_all_from(uint32_t first)
{
    for (uint32_t i = first; i < s_rig->request_count; i++) {
        const rig_request_t request = s_rig->requests[i];
        rig_answer(s_rig, 1, &request, "created");
    }
}

static void test_share_all_goes_on_while_nobody_else_is_served(void **state)
{
    (void)state;
    s_send_many(S_FLOODER, 0, 10 * S_FLOOD);
    assert_int_equal(s_passed(S_FLOODER), 10 * S_FLOOD);
    assert_int_equal(rig_counts(s_rig).held, 0);
}

static void test_share_of_a_flood_beside_another(void **state)
{
    (void)state;
    s_send(S_LIGHT, S_LIGHT_ID, 5000);
    s_send_many(S_FLOODER, 0, S_FLOOD);
    assert_int_equal(s_passed(S_FLOODER), S_SHARE);
    assert_int_equal(rig_counts(s_rig).held, S_FLOOD - S_SHARE);
    s_send(S_LIGHT, S_LIGHT_ID + 1, 5000);
    assert_int_equal(s_passed(S_LIGHT), 2);
}

static void test_share_goes_on_at_its_pace_in_order(void **state)
{
    (void)state;
    uint32_t answered = 1, next = 0;
    s_send(S_LIGHT, S_LIGHT_ID, 5000);
    s_send_many(S_FLOODER, 0, S_FLOOD);
    rig_pass(s_rig, DKT_BROKER_SHARE_PACE_MS, NULL, 0);
    for (uint32_t passed = S_SHARE; passed <= S_FLOOD; passed += S_SHARE) {
        assert_int_equal(s_passed(S_FLOODER), passed);
        for (; answered < s_rig->request_count; answered++) {
            const rig_request_t request = s_rig->requests[answered];
            assert_int_equal(request.msgid, next++);
            rig_answer(s_rig, 1, &request, "created");
        }
        assert_int_equal(s_passed(S_FLOODER), passed);
        if (passed < S_FLOOD) {
            assert_in_range(dkt_router_due_mono_ms(s_rig->router), s_rig->now.mono_ms,
                            s_rig->now.mono_ms + DKT_BROKER_SHARE_PACE_MS);
        }
        s_rig->now.mono_ms += DKT_BROKER_SHARE_PACE_MS;
        dkt_router_flush(s_rig->router, s_rig->now);
    }
    assert_int_equal(next, S_FLOOD);
    assert_int_equal(rig_counts(s_rig).held, 0);
}

static void test_share_nobody_overtakes_what_is_held(void **state)
{
    (void)state;
    s_send(S_LIGHT, S_LIGHT_ID, 5000);
    s_send_many(S_FLOODER, 0, S_SHARE + 1);
    const rig_request_t request = s_rig->requests[1];
    rig_answer(s_rig, 1, &request, "created");
    s_send(S_FLOODER, S_SHARE + 1, 5000);
    assert_int_equal(s_passed(S_FLOODER), S_SHARE);
    s_rig->now.mono_ms += DKT_BROKER_SHARE_PACE_MS;
    dkt_router_flush(s_rig->router, s_rig->now);
    assert_int_equal(s_passed(S_FLOODER), S_SHARE + 1);
    assert_int_equal(rig_last_request(s_rig)->msgid, S_SHARE);
}

static void test_share_ends_with_the_others_silence(void **state)
{
    (void)state;
    s_send(S_LIGHT, S_LIGHT_ID, 5000);
    s_send_many(S_FLOODER, 0, S_FLOOD);
    rig_pass(s_rig, DKT_BROKER_SHARE_MS - 100, s_one, 1);
    assert_int_equal(s_passed(S_FLOODER), S_SHARE);
    rig_pass(s_rig, 200, s_one, 1);
    assert_int_equal(s_passed(S_FLOODER), S_FLOOD);
    assert_int_equal(rig_counts(s_rig).held, 0);
}

static void test_share_does_not_bind_two_that_both_flood(void **state)
{
    (void)state;
    uint32_t first = 0;
    for (uint32_t round = 0; round < 4; round++) {
        first = s_rig->request_count;
        s_send_many(S_LIGHT, S_LIGHT_ID + round * S_FLOOD, S_FLOOD);
        s_send_many(S_FLOODER, round * S_FLOOD, S_FLOOD);
        if (round < 3) {
            rig_pass(s_rig, DKT_BROKER_SHARE_MS / 2, s_one, 1);
            s_answer_all_from(first);
            dkt_router_flush(s_rig->router, s_rig->now);
        }
    }
    /* They asked for little only at first, which is long ago; a pause changes nothing. */
    assert_int_equal(s_passed(S_LIGHT), 4 * S_FLOOD);
    assert_int_equal(s_passed(S_FLOODER), 4 * S_FLOOD);
    assert_int_equal(rig_counts(s_rig).held, 0);
}

static void test_share_is_not_left_by_a_flood_that_was_small_at_first(void **state)
{
    (void)state;
    s_send(S_FLOODER, 0, 5000);
    s_send(S_LIGHT, S_LIGHT_ID, 5000);
    s_send(S_FLOODER, 1, 5000);
    s_send_many(S_FLOODER, 2, S_FLOOD);
    assert_int_equal(s_passed(S_FLOODER), S_SHARE);
}

static void test_share_budget_of_what_is_held_ends_with_overloaded(void **state)
{
    (void)state;
    s_send(S_LIGHT, S_LIGHT_ID, 5000);
    s_send_many(S_FLOODER, 0, S_SHARE);
    s_send(S_FLOODER, S_SHARE, 200);
    rig_pass(s_rig, 300, s_one, 1);
    assert_int_equal(s_rig->answer_count, 1);
    assert_int_equal(rig_last_answer(s_rig)->msgid, S_SHARE);
    assert_int_equal(rig_last_answer(s_rig)->status, DKT_OVERLOADED);
    assert_int_equal(rig_last_answer(s_rig)->retry_after_ms, DKT_BROKER_RETRY_AFTER_MS);
    assert_int_equal(rig_counts(s_rig).held, 0);
    assert_int_equal(s_passed(S_FLOODER), S_SHARE);
}

static void test_share_of_a_client_that_left_is_given_up(void **state)
{
    (void)state;
    s_send(S_LIGHT, S_LIGHT_ID, 5000);
    s_send_many(S_FLOODER, 0, S_FLOOD);
    s_rig->client_takes[S_FLOOD_PEER] = DKT_SENT_GONE;
    const rig_request_t request = s_rig->requests[1];
    rig_answer(s_rig, 1, &request, "created");
    dkt_router_flush(s_rig->router, s_rig->now);
    assert_int_equal(rig_counts(s_rig).open, 1);
    assert_int_equal(rig_counts(s_rig).held, 0);
}

static void test_share_goes_to_the_new_owner_with_what_had_passed(void **state)
{
    (void)state;
    static const uint8_t two[] = {2};
    s_send(S_LIGHT, S_LIGHT_ID, 5000);
    s_send_many(S_FLOODER, 0, S_FLOOD);
    rig_hello(s_rig, 2, 2);
    rig_table(s_rig, 2, two, 1);
    assert_int_equal(s_passed(S_FLOODER), 2 * S_SHARE);
    assert_int_equal(rig_last_request(s_rig)->worker, 2);
    assert_int_equal(rig_counts(s_rig).held, S_FLOOD - S_SHARE);
}

static void test_share_is_no_matter_of_methods_without_a_tenant(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 10; i++) {
        dkt_request_t request = rig_request(s_rig, DKT_METHOD_LIST_TENANTS, S_LIGHT_ID + i);
        rig_send(s_rig, INTERNAL, S_LIGHT_PEER, &request);
    }
    s_send_many(S_FLOODER, 0, S_FLOOD);
    assert_int_equal(s_passed(S_FLOODER), S_FLOOD);
}

/* -- by chance ------------------------------------------------------------------------------------
 */

static uint64_t s_seed;

/* The other tenant asks once, and is answered. */
static void s_ask_light(uint32_t msgid)
{
    s_send(S_LIGHT, msgid, 60000);
    const rig_request_t request = *rig_last_request(s_rig);
    assert_int_equal(request.msgid, msgid);
    rig_answer(s_rig, 1, &request, "created");
}

/* Answers some of what is away, in any order; returns how many of the flood. */
static uint32_t s_answer_some(void)
{
    uint32_t answered = 0;
    for (uint32_t i = 0; i < s_rig->request_count && random_below(&s_seed, 30) > 0; i++) {
        const rig_request_t request = s_rig->requests[random_below(&s_seed, s_rig->request_count)];
        const uint32_t open = rig_counts(s_rig).open;
        rig_answer(s_rig, 1, &request, "created");
        answered += rig_counts(s_rig).open < open;
    }
    return answered;
}

static void s_assert_order(uint32_t sent)
{
    uint32_t next = 0;
    for (uint32_t i = 0; i < s_rig->request_count; i++) {
        if (s_rig->requests[i].msgid < S_LIGHT_ID) {
            assert_int_equal(s_rig->requests[i].msgid, next++);
        }
    }
    assert_int_equal(next, sent);
}

/* Whatever happens: a tenant's requests leave in the order in which they came, none is left behind,
 * and beside another who asks for little no more than the share is away, or than was before. */
static void test_share_keeps_order_and_bound_by_chance(void **state)
{
    (void)state;
    uint32_t bound_steps = 0;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        uint32_t sent = 0, answered = 0, lights = 0;
        int64_t light_until_mono_ms = 0;
        s_seed = seed;
        for (uint32_t step = 0; step < 200; step++) {
            const uint32_t before = s_passed(S_FLOODER) - answered;
            switch (random_below(&s_seed, 8)) {
            case 0:
                s_ask_light(S_LIGHT_ID + lights++);
                light_until_mono_ms = s_rig->now.mono_ms + DKT_BROKER_SHARE_MS;
                break;
            case 1:
            case 2:
            case 3:
                for (uint32_t left = random_below(&s_seed, 2 * S_SHARE); left > 0; left--) {
                    s_send(S_FLOODER, sent++, 60000);
                }
                break;
            case 4:
                rig_pass(s_rig, random_below(&s_seed, 1000), s_one, 1);
                break;
            default:
                answered += s_answer_some();
            }
            const uint32_t away = s_passed(S_FLOODER) - answered;
            if (s_rig->now.mono_ms < light_until_mono_ms) {
                assert_true(away <= S_SHARE || away <= before);
                bound_steps++;
            }
        }
        rig_pass(s_rig, DKT_BROKER_SHARE_MS + 100, s_one, 1);
        s_assert_order(sent);
        s_teardown(NULL);
        s_setup(NULL);
    }
    assert_in_range(bound_steps, 1000, 6000);
}

#define T(name) cmocka_unit_test_setup_teardown(name, s_setup, s_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_share_all_goes_on_while_nobody_else_is_served),
        T(test_share_of_a_flood_beside_another),
        T(test_share_goes_on_at_its_pace_in_order),
        T(test_share_nobody_overtakes_what_is_held),
        T(test_share_ends_with_the_others_silence),
        T(test_share_does_not_bind_two_that_both_flood),
        T(test_share_is_not_left_by_a_flood_that_was_small_at_first),
        T(test_share_budget_of_what_is_held_ends_with_overloaded),
        T(test_share_of_a_client_that_left_is_given_up),
        T(test_share_goes_to_the_new_owner_with_what_had_passed),
        T(test_share_is_no_matter_of_methods_without_a_tenant),
        T(test_share_keeps_order_and_bound_by_chance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
