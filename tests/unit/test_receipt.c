/* SPDX-License-Identifier: Apache-2.0
 *
 * Receipts: signed once, the same bytes each time, and good for nothing else.
 */
#include "lib/core/receipt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

static uint8_t s_secret[DKT_RECEIPT_SECRET_BYTES], s_public[DKT_RECEIPT_PUBLIC_BYTES];

static int s_setup(void **state)
{
    (void)state;
    uint8_t seed[crypto_sign_SEEDBYTES] = {1, 2, 3};
    assert_true(sodium_init() >= 0);
    crypto_sign_seed_keypair(s_public, s_secret, seed);
    return 0;
}

static char *s_make(void)
{
    json_t *receipt = json_pack("{s:s, s:s, s:{s:i}, s:n}", "format", DKT_RECEIPT_FORMAT,
                                "client_id", "cl_\xc3\xa4", "rows", "tickets", 7, "export");
    char *text = dkt_receipt_sign(receipt, s_secret);
    assert_non_null(text);
    json_decref(receipt);
    return text;
}

static void test_receipt_is_good_and_always_the_same(void **state)
{
    (void)state;
    dkt_err_t err;
    char *text = s_make(), *again = s_make();
    assert_string_equal(text, again);
    json_t *receipt = dkt_receipt_verify(text, strlen(text), s_public, &err);
    assert_non_null(receipt);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(receipt, "rows"), "tickets")), 7);
    /* Blanks and the order of keys are no part of what is said. */
    char *compact = json_dumps(receipt, JSON_COMPACT);
    json_t *same = dkt_receipt_verify(compact, strlen(compact), s_public, &err);
    assert_non_null(same);
    json_decref(same);
    json_decref(receipt);
    free(compact);
    free(text);
    free(again);
}

static void s_expect_bad(const char *text, dkt_status_t status)
{
    dkt_err_t err;
    assert_null(dkt_receipt_verify(text, strlen(text), s_public, &err));
    assert_int_equal(err.status, status);
}

static void test_receipt_with_any_byte_changed_is_refused(void **state)
{
    (void)state;
    dkt_err_t err;
    char *text = s_make();
    for (size_t i = 0; text[i]; i++) {
        char was = text[i];
        if (was == ' ' || was == '\n') {
            continue;
        }
        text[i] = was == '0' ? '1' : '0';
        assert_null(dkt_receipt_verify(text, strlen(text), s_public, &err));
        text[i] = was;
    }
    uint8_t other[DKT_RECEIPT_PUBLIC_BYTES];
    memcpy(other, s_public, sizeof other);
    other[0] ^= 1;
    assert_null(dkt_receipt_verify(text, strlen(text), other, &err));
    free(text);
}

static void test_receipt_of_another_form_is_none(void **state)
{
    (void)state;
    s_expect_bad("", DKT_INVALID_ARGUMENT);
    s_expect_bad("[]", DKT_INVALID_ARGUMENT);
    s_expect_bad("{\"format\": \"docket-receipt/1\"}", DKT_INVALID_ARGUMENT);
    s_expect_bad("{\"format\": \"docket-receipt/2\", \"signature\": \"\"}", DKT_INVALID_ARGUMENT);
    s_expect_bad("{\"format\": \"docket-receipt/1\", \"signature\": \"AAAA\"}",
                 DKT_PERMISSION_DENIED);
    /* A key that is there twice could say one thing to us and another to its reader. */
    char *text = s_make();
    size_t len = strlen(text) + sizeof "\"format\": \"docket-receipt/1\",";
    char *twice = calloc(1, len + 1);
    assert_non_null(twice);
    snprintf(twice, len + 1, "{\"format\": \"docket-receipt/1\",%s", text + 1);
    s_expect_bad(twice, DKT_INVALID_ARGUMENT);
    free(twice);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_receipt_is_good_and_always_the_same),
        cmocka_unit_test(test_receipt_with_any_byte_changed_is_refused),
        cmocka_unit_test(test_receipt_of_another_form_is_none),
    };
    return cmocka_run_group_tests(tests, s_setup, NULL);
}
