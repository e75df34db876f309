/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/scram.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#define S_BASE64_BYTES sodium_base64_ENCODED_LEN(crypto_hash_sha256_BYTES, S_VARIANT)
#define S_VARIANT      sodium_base64_VARIANT_ORIGINAL

static void s_hmac(const void *key, size_t key_len, const void *text, size_t len,
                   uint8_t out[crypto_auth_hmacsha256_BYTES])
{
    crypto_auth_hmacsha256_state state;
    crypto_auth_hmacsha256_init(&state, key, key_len);
    crypto_auth_hmacsha256_update(&state, text, len);
    crypto_auth_hmacsha256_final(&state, out);
}

/* HMAC (salted password, label), one of the two keys that are derived from a password. */
static void s_derive(const uint8_t salted[crypto_auth_hmacsha256_BYTES], const char *label,
                     uint8_t out[crypto_auth_hmacsha256_BYTES])
{
    s_hmac(salted, crypto_auth_hmacsha256_BYTES, label, strlen(label), out);
}

void dkt_scram_verifier(const char *password, const uint8_t salt[DKT_SCRAM_SALT_BYTES],
                        char out[DKT_SCRAM_VERIFIER_BYTES])
{
    uint8_t block[DKT_SCRAM_SALT_BYTES + 4] = {0}; /* the salt and the number of the block, 1 */
    uint8_t salted[crypto_auth_hmacsha256_BYTES], client[crypto_auth_hmacsha256_BYTES];
    uint8_t stored[crypto_hash_sha256_BYTES], server[crypto_auth_hmacsha256_BYTES];
    char salt_text[S_BASE64_BYTES], stored_text[S_BASE64_BYTES], server_text[S_BASE64_BYTES];
    memcpy(block, salt, DKT_SCRAM_SALT_BYTES);
    block[sizeof block - 1] = 1;
    s_hmac(password, strlen(password), block, sizeof block, salted);
    s_derive(salted, "Client Key", client);
    s_derive(salted, "Server Key", server);
    crypto_hash_sha256(stored, client, sizeof client);
    sodium_bin2base64(salt_text, sizeof salt_text, salt, DKT_SCRAM_SALT_BYTES, S_VARIANT);
    sodium_bin2base64(stored_text, sizeof stored_text, stored, sizeof stored, S_VARIANT);
    sodium_bin2base64(server_text, sizeof server_text, server, sizeof server, S_VARIANT);
    int len = snprintf(out, DKT_SCRAM_VERIFIER_BYTES, "SCRAM-SHA-256$1:%s$%s:%s", salt_text,
                       stored_text, server_text);
    assert(len > 0 && len < DKT_SCRAM_VERIFIER_BYTES);
    sodium_memzero(salted, sizeof salted);
    sodium_memzero(client, sizeof client);
}
