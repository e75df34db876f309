/* SPDX-License-Identifier: Apache-2.0
 *
 * The verifier of a role's password. That PostgreSQL takes it and lets in who knows the password
 * and nobody else is seen end to end (test_isolation.py): the databases of unit tests trust.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/edge/scram.h"

/* Made by an independent implementation: PBKDF2 of Python's hashlib, one iteration. */
static const char s_password[] = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
static const char s_verifier[] =
    "SCRAM-SHA-256$1:AAECAwQFBgcICQoLDA0ODw==$i4OYXXwp0EIGv3Yb83ly29XIIoYBzituVvhAcntdpiE="
    ":uoim21mDvkLBXHFnhh+EZek5A1GuuL3BVzM6in0qcFw=";
static const uint8_t s_salt[DKT_SCRAM_SALT_BYTES] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                     8, 9, 10, 11, 12, 13, 14, 15};

static void test_scram_verifier_is_the_known_one(void **state)
{
    char verifier[DKT_SCRAM_VERIFIER_BYTES];
    (void)state;
    dkt_scram_verifier(s_password, s_salt, verifier);
    assert_string_equal(verifier, s_verifier);
    assert_int_equal(strlen(verifier), DKT_SCRAM_VERIFIER_BYTES - 1);
}

static void test_scram_verifier_differs_by_password_and_salt(void **state)
{
    char verifier[DKT_SCRAM_VERIFIER_BYTES];
    uint8_t salt[DKT_SCRAM_SALT_BYTES] = {1};
    (void)state;
    dkt_scram_verifier("another", s_salt, verifier);
    assert_memory_equal(verifier, s_verifier, 41); /* up to the salt */
    assert_string_not_equal(strrchr(verifier, '$'), strrchr(s_verifier, '$'));
    dkt_scram_verifier(s_password, salt, verifier);
    assert_string_not_equal(strrchr(verifier, '$'), strrchr(s_verifier, '$'));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scram_verifier_is_the_known_one),
        cmocka_unit_test(test_scram_verifier_differs_by_password_and_salt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
