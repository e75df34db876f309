/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/receipt.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#define S_SIGNATURE    "signature"
#define S_INDENT       2
#define S_BASE64_BYTES sodium_base64_ENCODED_LEN(crypto_sign_BYTES, S_VARIANT)
#define S_VARIANT      sodium_base64_VARIANT_URLSAFE_NO_PADDING

_Static_assert(DKT_RECEIPT_SECRET_BYTES == crypto_sign_SECRETKEYBYTES, "libsodium's form");
_Static_assert(DKT_RECEIPT_PUBLIC_BYTES == crypto_sign_PUBLICKEYBYTES, "libsodium's form");

/* The bytes that are signed; NULL without memory. */
static char *s_signed_text(const json_t *receipt, size_t *len)
{
    static const char first[] = DKT_RECEIPT_FORMAT "\n";
    char *body = json_dumps(receipt, JSON_SORT_KEYS | JSON_COMPACT);
    size_t body_len = body ? strlen(body) : 0;
    char *text = body ? malloc(sizeof first + body_len) : NULL;
    if (text) {
        memcpy(text, first, sizeof first - 1);
        memcpy(text + sizeof first - 1, body, body_len + 1);
        *len = sizeof first - 1 + body_len;
    }
    free(body);
    return text;
}

static char *s_text(const json_t *receipt)
{
    char *text = json_dumps(receipt, JSON_SORT_KEYS | JSON_INDENT(S_INDENT));
    size_t len = text ? strlen(text) : 0;
    char *line = text ? realloc(text, len + 2) : NULL;
    if (!line) {
        free(text);
        return NULL;
    }
    memcpy(line + len, "\n", 2);
    return line;
}

char *dkt_receipt_sign(json_t *receipt, const uint8_t secret[DKT_RECEIPT_SECRET_BYTES])
{
    uint8_t signature[crypto_sign_BYTES];
    char base64[S_BASE64_BYTES];
    size_t len = 0;
    assert(!json_object_get(receipt, S_SIGNATURE));
    char *text = s_signed_text(receipt, &len);
    if (!text) {
        return NULL;
    }
    crypto_sign_detached(signature, NULL, (const uint8_t *)text, len, secret);
    free(text);
    sodium_bin2base64(base64, sizeof base64, signature, sizeof signature, S_VARIANT);
    if (json_object_set_new(receipt, S_SIGNATURE, json_string(base64)) != 0) {
        return NULL;
    }
    return s_text(receipt);
}

static bool s_is_signed(json_t *receipt, const char *base64,
                        const uint8_t public_key[DKT_RECEIPT_PUBLIC_BYTES])
{
    uint8_t signature[crypto_sign_BYTES];
    size_t signature_len = 0, len = 0;
    if (sodium_base642bin(signature, sizeof signature, base64, strlen(base64), NULL, &signature_len,
                          NULL, S_VARIANT) != 0 ||
        signature_len != sizeof signature) {
        return false;
    }
    json_t *bare = json_copy(receipt);
    char *text = bare && json_object_del(bare, S_SIGNATURE) == 0 ? s_signed_text(bare, &len) : NULL;
    bool good =
        text && crypto_sign_verify_detached(signature, (const uint8_t *)text, len, public_key) == 0;
    free(text);
    json_decref(bare);
    return good;
}

json_t *dkt_receipt_verify(const char *text, size_t len,
                           const uint8_t public_key[DKT_RECEIPT_PUBLIC_BYTES], dkt_err_t *err)
{
    json_t *receipt = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    const char *format = json_string_value(json_object_get(receipt, "format"));
    const char *signature = json_string_value(json_object_get(receipt, S_SIGNATURE));
    dkt_status_t status = DKT_OK;
    if (!format || strcmp(format, DKT_RECEIPT_FORMAT) != 0 || !signature) {
        status = dkt_fail(err, DKT_INVALID_ARGUMENT, NULL, "this is no receipt of docket");
    } else if (!s_is_signed(receipt, signature, public_key)) {
        status = dkt_fail(err, DKT_PERMISSION_DENIED, NULL,
                          "the signature does not fit: changed, or signed with another key");
    }
    if (status != DKT_OK) {
        json_decref(receipt);
        return NULL;
    }
    return receipt;
}
