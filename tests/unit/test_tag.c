/* SPDX-License-Identifier: Apache-2.0
 *
 * Tags beside libsodium's BLAKE2b: every length, many keys.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/core/tag.h"

#define T_KEYS 200

static void test_tag_is_keyed_blake2b(void **state)
{
    (void)state;
    uint8_t key[DKT_KEY_BYTES], message[DKT_TAG_MESSAGE_BYTES], tag[DKT_TAG_BYTES],
        expected[DKT_TAG_BYTES];
    for (int i = 0; i < T_KEYS; i++) {
        /* The first keys and messages have every bit alike, the others none. */
        memset(key, i == 1 ? 0xff : 0, sizeof key);
        memset(message, i == 1 ? 0xff : 0, sizeof message);
        if (i > 1) {
            randombytes_buf(key, sizeof key);
            randombytes_buf(message, sizeof message);
        }
        const dkt_tag_key_t made = dkt_tag_key(key);
        for (size_t len = 1; len <= sizeof message; len++) {
            dkt_tag_make(&made, message, len, tag);
            assert_int_equal(
                crypto_generichash(expected, sizeof expected, message, len, key, sizeof key), 0);
            assert_memory_equal(tag, expected, sizeof tag);
        }
    }
}

int main(void)
{
    if (sodium_init() < 0) {
        return 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tag_is_keyed_blake2b)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
