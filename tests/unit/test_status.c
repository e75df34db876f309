/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static void test_status_codes_are_the_contract(void **state)
{
    (void)state;
    static const struct {
        dkt_status_t status;
        const char *code;
        dkt_retry_t retry;
    } rows[] = {
        {DKT_OK, "ok", DKT_RETRY_NONE},
        {DKT_MALFORMED, "malformed", DKT_RETRY_NO},
        {DKT_UNKNOWN_METHOD, "unknown_method", DKT_RETRY_NO},
        {DKT_INVALID_ARGUMENT, "invalid_argument", DKT_RETRY_NO},
        {DKT_UNAUTHENTICATED, "unauthenticated", DKT_RETRY_NO},
        {DKT_PERMISSION_DENIED, "permission_denied", DKT_RETRY_NO},
        {DKT_NOT_FOUND, "not_found", DKT_RETRY_NO},
        {DKT_ALREADY_EXISTS, "already_exists", DKT_RETRY_NO},
        {DKT_CONFLICT, "conflict", DKT_RETRY_NO},
        {DKT_SUSPENDED, "suspended", DKT_RETRY_NO},
        {DKT_RATE_LIMITED, "rate_limited", DKT_RETRY_SAME},
        {DKT_OVERLOADED, "overloaded", DKT_RETRY_SAME},
        {DKT_DEADLINE_EXCEEDED, "deadline_exceeded", DKT_RETRY_SAME},
        {DKT_UNAVAILABLE, "unavailable", DKT_RETRY_FIND},
        {DKT_INTERNAL, "internal", DKT_RETRY_FIND},
    };
    assert_int_equal(sizeof rows / sizeof rows[0], DKT_STATUS_COUNT);
    for (size_t i = 0; i < DKT_STATUS_COUNT; i++) {
        assert_string_equal(dkt_status_code(rows[i].status), rows[i].code);
        assert_int_equal(dkt_status_retry(rows[i].status), rows[i].retry);
        assert_int_equal(dkt_status_of_code(rows[i].code, (uint32_t)strlen(rows[i].code)),
                         rows[i].status);
        assert_true(strlen(dkt_status_text(rows[i].status)) > 0);
    }
}

static void test_status_unknown_is_internal(void **state)
{
    (void)state;
    assert_int_equal(dkt_status_of_code("okay", 4), DKT_INTERNAL);
    assert_int_equal(dkt_status_of_code("o", 1), DKT_INTERNAL);
    assert_int_equal(dkt_status_of_code("", 0), DKT_INTERNAL);
    assert_string_equal(dkt_status_code(DKT_STATUS_COUNT), "internal");
    assert_string_equal(dkt_status_code((dkt_status_t)-1), "internal");
}

static void test_status_fail_fills_the_detail(void **state)
{
    (void)state;
    dkt_err_t err = {.retry_after_ms = 7};
    assert_int_equal(dkt_fail(&err, DKT_CONFLICT, "subject", "was %d", 5), DKT_CONFLICT);
    assert_int_equal(err.status, DKT_CONFLICT);
    assert_int_equal(err.retry_after_ms, 0);
    assert_string_equal(err.field, "subject");
    assert_string_equal(err.text, "was 5");
    assert_int_equal(dkt_fail(&err, DKT_NOT_FOUND, NULL, NULL), DKT_NOT_FOUND);
    assert_string_equal(err.field, "");
    assert_string_equal(err.text, "no such id");
    assert_int_equal(dkt_fail(NULL, DKT_INTERNAL, "x", "%s", "y"), DKT_INTERNAL);
}

static void test_status_fail_cuts_long_text(void **state)
{
    (void)state;
    char text[2 * DKT_ERR_TEXT_BYTES_MAX];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    dkt_err_t err;
    assert_int_equal(dkt_fail(&err, DKT_INTERNAL, text, "%s", text), DKT_INTERNAL);
    assert_int_equal(strlen(err.text), DKT_ERR_TEXT_BYTES_MAX - 1);
    assert_int_equal(strlen(err.field), DKT_ERR_FIELD_BYTES_MAX - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status_codes_are_the_contract),
        cmocka_unit_test(test_status_unknown_is_internal),
        cmocka_unit_test(test_status_fail_fills_the_detail),
        cmocka_unit_test(test_status_fail_cuts_long_text),
    };
    return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
