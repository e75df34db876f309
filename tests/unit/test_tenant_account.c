/* SPDX-License-Identifier: Apache-2.0
 *
 * Passwords, tokens and settings in the tenant's owner.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lib/core/group.h"
#include "tests/unit/support_tenant.h"

#define TTL_MS 900000

/* A login's token, as a broker would pass it on: its time of issue. */
static int64_t s_issued_ms(const bench_t *bench, uint32_t msgid)
{
    bench_expect(bench, msgid, "ok");
    return bench_answer(bench, msgid)->expires_ms - TTL_MS;
}

static int64_t s_log_in(bench_t *bench)
{
    uint32_t msgid = bench_login(bench, "long enough");
    bench_hashed(bench, true, "");
    bench_settle(bench);
    return s_issued_ms(bench, msgid);
}

static void s_change(bench_t *bench, const char *hash)
{
    uint32_t msgid = bench_change_password(bench, "long enough", "long enough 2");
    bench_hashed(bench, true, "");
    bench_hashed(bench, true, hash);
    bench_settle(bench);
    bench_expect(bench, msgid, "ok");
}

/* Is a token of that time of issue alive? */
static bool s_alive(bench_t *bench, int64_t issued_ms, uint8_t token)
{
    bench->origin = DKT_AUDIENCE_PUBLIC;
    bench->token_issued_ms = issued_ms;
    memset(bench->token_id, token, sizeof bench->token_id);
    uint32_t msgid = bench_simple(bench, DKT_METHOD_AVAILABILITY);
    bench_settle(bench);
    bench->origin = DKT_AUDIENCE_INTERNAL;
    assert_true(bench_answered(bench, msgid));
    if (bench->works[msgid].answer.status == DKT_UNAUTHENTICATED) {
        return false;
    }
    bench_expect(bench, msgid, "ok");
    return true;
}

static void test_tenant_password_change_kills_every_token(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    int64_t before_ms = s_log_in(bench);
    assert_true(s_alive(bench, before_ms, 1));
    s_change(bench, "hash-1");
    assert_false(s_alive(bench, before_ms, 1));
    int64_t after_ms = s_log_in(bench); /* in the same second */
    assert_true(s_alive(bench, after_ms, 2));
    bench_destroy(&bench);
}

/* Found: a login after one change got the next second, and outlived a second change in this one. */
static void test_tenant_second_change_in_a_second_kills_every_token_too(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    s_change(bench, "hash-1");
    int64_t between_ms = s_log_in(bench);
    s_change(bench, "hash-2");
    assert_false(s_alive(bench, between_ms, 1));
    assert_true(s_alive(bench, s_log_in(bench), 2));
    bench_destroy(&bench);
}

/* Found: a login with the old password that was being hashed during the change got a token that
 * outlived it. */
static void test_tenant_checks_again_when_the_password_changed_meanwhile(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    uint32_t change = bench_change_password(bench, "long enough", "long enough 2");
    bench_hashed(bench, true, "");
    uint32_t login = bench_login(bench, "long enough");
    bench_hashed(bench, true, "hash-1"); /* the change's own */
    bench_settle(bench);
    bench_expect(bench, change, "ok");
    assert_string_equal(bench->jobs[0].hash, "hash-0");
    bench_hashed(bench, true, "");
    assert_false(bench_answered(bench, login));
    assert_string_equal(bench->jobs[0].hash, "hash-1");
    bench_hashed(bench, false, "");
    bench_settle(bench);
    bench_expect_error(bench, login, DKT_UNAUTHENTICATED, NULL);
    bench_destroy(&bench);
}

static void test_tenant_of_two_password_changes_the_second_is_checked_again(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    uint32_t one = bench_change_password(bench, "long enough", "long enough 1");
    uint32_t two = bench_change_password(bench, "long enough", "long enough 2");
    bench_hashed(bench, true, "");
    bench_hashed(bench, true, "");
    bench_hashed(bench, true, "hash-1");
    bench_hashed(bench, true, "hash-2");
    bench_settle(bench);
    bench_expect(bench, one, "ok");
    assert_string_equal(bench->jobs[0].hash, "hash-1");
    bench_hashed(bench, false, "");
    bench_settle(bench);
    bench_expect_error(bench, two, DKT_UNAUTHENTICATED, NULL);
    bench_destroy(&bench);
}

/* Found: a change whose budget was over was committed all the same; and "wrong password" left
 * without proof that this is still the owner, whose password may be an old one. */
static void test_tenant_answers_a_password_in_time_and_with_proof(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    uint32_t change = bench_change_password(bench, "long enough", "long enough 2");
    bench_hashed(bench, true, "");
    bench->mono_ms += bench->budget_ms;
    bench->db_ms += bench->budget_ms;
    bench_hashed(bench, true, "hash-1");
    bench_expect_error(bench, change, DKT_DEADLINE_EXCEEDED, NULL);
    assert_int_equal(bench->batch_count, 0);
    uint32_t wrong = bench_login(bench, "not it at all");
    bench_hashed(bench, false, "");
    assert_false(bench_answered(bench, wrong));
    (void)bench_batch(bench, DKT_BATCH_GUARD);
    bench_ok(bench);
    bench_expect_error(bench, wrong, DKT_UNAUTHENTICATED, NULL);
    bench_destroy(&bench);
}

static void test_tenant_takes_no_more_of_the_hashing_queue_than_its_share(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    uint32_t last = 0;
    for (int i = 0; i <= DKT_HASHING_PER_TENANT_MAX; i++) {
        last = bench_login(bench, "long enough");
    }
    assert_int_equal(bench->job_count, DKT_HASHING_PER_TENANT_MAX);
    bench_expect_error(bench, last, DKT_RATE_LIMITED, NULL);
    bench_hashed(bench, true, "");
    (void)bench_login(bench, "long enough");
    assert_int_equal(bench->job_count, DKT_HASHING_PER_TENANT_MAX);
    bench_destroy(&bench);
}

static void test_tenant_logout_kills_only_its_token(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    int64_t issued_ms = s_log_in(bench);
    assert_true(s_alive(bench, issued_ms, 2));
    assert_true(s_alive(bench, issued_ms, 1));
    bench->origin = DKT_AUDIENCE_PUBLIC;
    uint32_t one = bench_simple(bench, DKT_METHOD_LOGOUT);
    uint32_t two = bench_simple(bench, DKT_METHOD_LOGOUT);
    bench_flush(bench);
    const dkt_commit_t *commit = &bench_batch(bench, DKT_BATCH_COMMIT)->commit;
    assert_memory_equal(commit->revoke_token_id, bench->token_id, DKT_TOKEN_ID_BYTES);
    assert_false(bench_answered(bench, one));
    bench_settle(bench);
    bench_expect(bench, one, "ok");
    bench_expect_error(bench, two, DKT_UNAUTHENTICATED, NULL);
    assert_false(s_alive(bench, issued_ms, 1));
    assert_true(s_alive(bench, issued_ms, 2));
    bench_destroy(&bench);
}

/* -- settings -- */

static uint32_t s_set(bench_t *bench, dkt_request_t *request)
{
    request->method = DKT_METHOD_SET_TENANT;
    uint32_t msgid = bench_send(bench, request);
    bench_settle(bench);
    return msgid;
}

static void test_tenant_changes_classes_and_limits_by_name(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    dkt_request_t limits = {.present = DKT_PARAM_BIT(LIMITS),
                            .limit_count = 1,
                            .limits = {{.name = "silver", .value = 600}}};
    bench_expect(bench, s_set(bench, &limits), "ok");
    assert_int_equal(bench->settings.classes[1].limit_permille, 600);
    dkt_request_t classes = {
        .present = DKT_PARAM_BIT(CLASSES),
        .class_count = 2,
        .classes = {{.name = "silver", .value = 300}, {.name = "now", .value = 30}}};
    bench_expect(bench, s_set(bench, &classes), "ok");
    assert_int_equal(bench->changed_count, 2);
    assert_string_equal(bench->settings.classes[0].name, "now");
    assert_int_equal(bench->settings.classes[0].limit_permille, DKT_PERMILLE);
    assert_int_equal(bench->settings.classes[1].limit_permille, 600);
    dkt_request_t wrong = {.present = DKT_PARAM_BIT(LIMITS),
                           .limit_count = 1,
                           .limits = {{.name = "gold", .value = 600}}};
    bench_expect_error(bench, s_set(bench, &wrong), DKT_INVALID_ARGUMENT, "limits");
    bench_expect_error(bench, bench_hold(bench, "gold"), DKT_INVALID_ARGUMENT, "ticket_type");
    bench_destroy(&bench);
}

/* Nothing changes: nothing is written, and nobody is told. */
static void test_tenant_settings_twice_the_same_are_one_change(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(2);
    dkt_request_t more = {.present = DKT_PARAM_BIT(RESOLVERS) | DKT_PARAM_BIT(LIMITS),
                          .resolvers = 3,
                          .limit_count = 1,
                          .limits = {{.name = "silver", .value = 600}}};
    for (int i = 0; i < 2; i++) {
        bench_expect(bench, s_set(bench, &more), "ok");
        assert_int_equal(bench->changed_count, 1);
    }
    more.limits[0].value = 601;
    bench_expect(bench, s_set(bench, &more), "ok");
    assert_int_equal(bench->changed_count, 2);
    bench_destroy(&bench);
}

static void test_tenant_settings_in_the_way_of_promises_are_refused(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(2);
    for (uint8_t i = 0; i < 200; i++) {
        (void)bench_create(bench, "gold", bench_new_id(bench, i));
    }
    bench_settle(bench);
    dkt_request_t fewer = {.present = DKT_PARAM_BIT(RESOLVERS), .resolvers = 1};
    bench_expect(bench, s_set(bench, &fewer), "refused");
    assert_int_equal(bench->changed_count, 0);
    bench_destroy(&bench);
}

static void test_tenant_settings_forget_refusals(void **state)
{
    (void)state;
    bench_t *bench = bench_serving(1);
    for (uint8_t i = 0; i < 119; i++) {
        (void)bench_create(bench, "gold", bench_new_id(bench, i));
    }
    bench_settle(bench);
    dkt_uuid_t id = bench_new_id(bench, 200);
    bench_expect(bench, bench_create(bench, "gold", id), "refused");
    dkt_request_t more = {.present = DKT_PARAM_BIT(RESOLVERS), .resolvers = 2};
    bench_expect(bench, s_set(bench, &more), "ok");
    uint32_t again = bench_create(bench, "gold", id);
    bench_settle(bench);
    bench_expect(bench, again, "created");
    bench_destroy(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tenant_password_change_kills_every_token),
        cmocka_unit_test(test_tenant_second_change_in_a_second_kills_every_token_too),
        cmocka_unit_test(test_tenant_checks_again_when_the_password_changed_meanwhile),
        cmocka_unit_test(test_tenant_of_two_password_changes_the_second_is_checked_again),
        cmocka_unit_test(test_tenant_answers_a_password_in_time_and_with_proof),
        cmocka_unit_test(test_tenant_takes_no_more_of_the_hashing_queue_than_its_share),
        cmocka_unit_test(test_tenant_logout_kills_only_its_token),
        cmocka_unit_test(test_tenant_changes_classes_and_limits_by_name),
        cmocka_unit_test(test_tenant_settings_twice_the_same_are_one_change),
        cmocka_unit_test(test_tenant_settings_in_the_way_of_promises_are_refused),
        cmocka_unit_test(test_tenant_settings_forget_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
