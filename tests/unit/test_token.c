/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/token.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define S_NOW_MS     INT64_C(1795339519000)
#define S_EXPIRES_MS (S_NOW_MS + 900000)
#define S_HUGE_BYTES 1000000

typedef struct {
    dkt_token_secret_t secret;
    dkt_token_public_t public_key;
    dkt_claims_t claims;
    char token[DKT_TOKEN_BYTES_MAX];
    uint32_t len;
} s_case_t;

static void s_setup(s_case_t *c)
{
    memset(c, 0, sizeof *c);
    uint8_t seed[DKT_TOKEN_SEED_BYTES];
    memset(seed, 0x5a, sizeof seed);
    dkt_token_keys(12, seed, &c->secret, &c->public_key);
    memcpy(c->claims.client.bytes,
           "\x07"
           "clientid"
           "tag",
           DKT_CLIENT_BYTES);
    memset(c->claims.token_id, 0xab, DKT_TOKEN_ID_BYTES);
    c->claims.issued_ms = S_NOW_MS;
    c->claims.expires_ms = S_EXPIRES_MS;
    dkt_token_sign(&c->secret, &c->claims, c->token);
    c->len = (uint32_t)strlen(c->token);
}

static dkt_status_t s_verify(const s_case_t *c, const char *token, uint32_t len, int64_t now_ms)
{
    dkt_claims_t claims;
    dkt_err_t err;
    return dkt_token_verify(&c->public_key, 1, now_ms, token, len, &claims, &err);
}

static void test_token_round_trip(void **state)
{
    (void)state;
    s_case_t c;
    s_setup(&c);
    assert_true(c.len < DKT_TOKEN_BYTES_MAX);
    assert_memory_equal(c.token, "v4.public.", 10);
    dkt_claims_t claims;
    dkt_err_t err;
    assert_int_equal(dkt_token_verify(&c.public_key, 1, S_NOW_MS, c.token, c.len, &claims, &err),
                     DKT_OK);
    assert_true(dkt_client_equal(&claims.client, &c.claims.client));
    assert_memory_equal(claims.token_id, c.claims.token_id, DKT_TOKEN_ID_BYTES);
    assert_true(claims.issued_ms == S_NOW_MS);
    assert_true(claims.expires_ms == S_EXPIRES_MS);
}

static void test_token_is_dead_from_its_expiry_on(void **state)
{
    (void)state;
    s_case_t c;
    s_setup(&c);
    assert_int_equal(s_verify(&c, c.token, c.len, S_EXPIRES_MS - 1), DKT_OK);
    assert_int_equal(s_verify(&c, c.token, c.len, S_EXPIRES_MS), DKT_UNAUTHENTICATED);
}

/* Every bit of every byte of the text (libsodium's base64 alone takes 0xdf for '_'), and every
 * other text length. */
static void test_token_any_change_is_refused(void **state)
{
    (void)state;
    s_case_t c;
    s_setup(&c);
    for (uint32_t i = 0; i < c.len; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            char changed[DKT_TOKEN_BYTES_MAX];
            memcpy(changed, c.token, sizeof changed);
            changed[i] = (char)(changed[i] ^ (1 << bit));
            assert_int_equal(s_verify(&c, changed, c.len, S_NOW_MS), DKT_UNAUTHENTICATED);
        }
        assert_int_equal(s_verify(&c, c.token, i, S_NOW_MS), DKT_UNAUTHENTICATED);
    }
    char longer[DKT_TOKEN_BYTES_MAX];
    memcpy(longer, c.token, c.len);
    longer[c.len] = 'A';
    assert_int_equal(s_verify(&c, longer, c.len + 1, S_NOW_MS), DKT_UNAUTHENTICATED);
}

static void test_token_of_an_unknown_key_is_refused(void **state)
{
    (void)state;
    s_case_t c;
    s_setup(&c);
    dkt_token_public_t keys[2] = {c.public_key, c.public_key};
    keys[0].kid = 13;
    keys[1].kid = 1;
    dkt_claims_t claims;
    dkt_err_t err;
    assert_int_equal(dkt_token_verify(keys, 2, S_NOW_MS, c.token, c.len, &claims, &err),
                     DKT_UNAUTHENTICATED);
    assert_int_equal(dkt_token_verify(keys, 0, S_NOW_MS, c.token, c.len, &claims, &err),
                     DKT_UNAUTHENTICATED);
    keys[1].kid = 12;
    assert_int_equal(dkt_token_verify(keys, 2, S_NOW_MS, c.token, c.len, &claims, &err), DKT_OK);
    keys[1].public_key[3] ^= 1;
    assert_int_equal(dkt_token_verify(keys, 2, S_NOW_MS, c.token, c.len, &claims, &err),
                     DKT_UNAUTHENTICATED);
}

static void test_token_huge_and_foreign_input_is_refused(void **state)
{
    (void)state;
    s_case_t c;
    s_setup(&c);
    static const char *const foreign[] = {
        "",
        "v4.public.",
        "v4.public..",
        "v4.public.AAAA",
        "v4.local.AAAA.AAAA",
        "v3.public.AAAA.",
        "v4.public.AAAA.eyJraWQiOiJka3QtMTIifQ",
        "eyJhbGciOiJub25lIn0.e30.",
    };
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        assert_int_equal(s_verify(&c, foreign[i], (uint32_t)strlen(foreign[i]), S_NOW_MS),
                         DKT_UNAUTHENTICATED);
    }
    assert_int_equal(s_verify(&c, NULL, 0, S_NOW_MS), DKT_UNAUTHENTICATED);
    char *huge = malloc(S_HUGE_BYTES);
    assert_non_null(huge);
    memset(huge, 'A', S_HUGE_BYTES);
    memcpy(huge, "v4.public.", 10);
    for (uint32_t len = 600; len < 1100; len++) {
        huge[len / 2] = '.';
        assert_int_equal(s_verify(&c, huge, len, S_NOW_MS), DKT_UNAUTHENTICATED);
        huge[len / 2] = 'A';
    }
    assert_int_equal(s_verify(&c, huge, S_HUGE_BYTES, S_NOW_MS), DKT_UNAUTHENTICATED);
    free(huge);
}

/* Signs any claims with the right key, by the published layout, to reach what is read after the
 * signature. */
static uint32_t s_sign_text(const s_case_t *c, const char *claims, char out[DKT_TOKEN_BYTES_MAX])
{
    static const char footer[] = "{\"kid\":\"dkt-12\"}";
    static const char header[] = "v4.public.";
    uint8_t body[1024], pae[2048];
    size_t claims_len = strlen(claims);
    memcpy(body, claims, claims_len);
    size_t at = 0;
    const struct {
        const void *data;
        size_t len;
    } pieces[] = {{header, 10}, {claims, claims_len}, {footer, strlen(footer)}, {"", 0}};
    uint64_t number = 4;
    memcpy(pae + at, &number, 8);
    at += 8;
    for (unsigned i = 0; i < 4; i++) {
        number = pieces[i].len;
        memcpy(pae + at, &number, 8);
        memcpy(pae + at + 8, pieces[i].data, pieces[i].len);
        at += 8 + pieces[i].len;
    }
    crypto_sign_detached(body + claims_len, NULL, pae, at, c->secret.secret_key);
    char text[2][1024];
    sodium_bin2base64(text[0], sizeof text[0], body, claims_len + crypto_sign_BYTES,
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    sodium_bin2base64(text[1], sizeof text[1], (const uint8_t *)footer, strlen(footer),
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    int len = snprintf(out, DKT_TOKEN_BYTES_MAX, "%s%s.%s", header, text[0], text[1]);
    assert_in_range(len, 1, DKT_TOKEN_BYTES_MAX - 1);
    return (uint32_t)len;
}

#define S_SUB "\"sub\":\"cl_B2NsaWVudGlkdGFn\""
#define S_JTI "\"jti\":\"abababababababababababababababab\""
#define S_IAT "\"iat\":\"2026-11-22T09:25:19+00:00\""
#define S_EXP "\"exp\":\"2026-11-22T09:40:19+00:00\""

static void test_token_signed_layout_is_paseto(void **state)
{
    (void)state;
    s_case_t c;
    s_setup(&c);
    char token[DKT_TOKEN_BYTES_MAX];
    uint32_t len = s_sign_text(&c, "{" S_SUB "," S_JTI "," S_IAT "," S_EXP "}", token);
    assert_string_equal(token, c.token); /* Ed25519 is deterministic */
    assert_int_equal(s_verify(&c, token, len, S_NOW_MS), DKT_OK);
}

static void test_token_signed_claims_are_still_checked(void **state)
{
    (void)state;
    s_case_t c;
    s_setup(&c);
    static const char *const wrong[] = {
        "",
        "null",
        "[]",
        "{}",
        "{" S_SUB "," S_JTI "," S_IAT "}",
        "{" S_SUB "," S_JTI "," S_IAT "," S_EXP "," S_EXP "}",
        "{" S_SUB "," S_JTI "," S_IAT "," S_EXP "} ?",
        "{\"sub\":7," S_JTI "," S_IAT "," S_EXP "}",
        "{\"sub\":\"cl_short\"," S_JTI "," S_IAT "," S_EXP "}",
        "{" S_SUB ",\"jti\":\"ab\"," S_IAT "," S_EXP "}",
        "{" S_SUB ",\"jti\":\"zbababababababababababababababab\"," S_IAT "," S_EXP "}",
        "{" S_SUB "," S_JTI "," S_IAT ",\"exp\":\"2026-13-22T09:40:19+00:00\"}",
        "{" S_SUB "," S_JTI "," S_IAT ",\"exp\":\"2026-11-22T09:40:19+01:00\"}",
        "{" S_SUB "," S_JTI "," S_IAT ",\"exp\":\"2026-02-30T09:40:19+00:00\"}",
        "{" S_SUB "," S_JTI "," S_IAT ",\"exp\":\"-026-11-22T09:40:19+00:00\"}",
        "{" S_SUB "," S_JTI "," S_IAT ",\"exp\":1795340419}",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char token[DKT_TOKEN_BYTES_MAX];
        uint32_t len = s_sign_text(&c, wrong[i], token);
        assert_int_equal(s_verify(&c, token, len, 0), DKT_UNAUTHENTICATED);
    }
}

/* The example in schemas/ was signed by another implementation. */
static void test_token_golden_example(void **state)
{
    (void)state;
    s_case_t c;
    s_setup(&c);
    json_t *example = json_load_file(DKT_SOURCE_DIR "/schemas/messages/token/v4-public.json",
                                     JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(example);
    char key_hex[65];
    sodium_bin2hex(key_hex, sizeof key_hex, c.public_key.public_key, 32);
    assert_string_equal(json_string_value(json_object_get(example, "public_key_hex")), key_hex);
    assert_string_equal(json_string_value(json_object_get(example, "token")), c.token);
    json_decref(example);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_token_round_trip),
        cmocka_unit_test(test_token_is_dead_from_its_expiry_on),
        cmocka_unit_test(test_token_any_change_is_refused),
        cmocka_unit_test(test_token_of_an_unknown_key_is_refused),
        cmocka_unit_test(test_token_huge_and_foreign_input_is_refused),
        cmocka_unit_test(test_token_signed_layout_is_paseto),
        cmocka_unit_test(test_token_signed_claims_are_still_checked),
        cmocka_unit_test(test_token_golden_example),
    };
    return cmocka_run_group_tests_name("token", tests, NULL, NULL);
}
