/* SPDX-License-Identifier: Apache-2.0
 *
 * PASETO v4.public: "v4.public." base64url (claims | signature) "." base64url (footer). The
 * signature is Ed25519 over the pre-authentication encoding of header, claims, footer and an empty
 * implicit assertion. The footer is only used to choose the key; nothing of the claims is looked at
 * before the signature is proved.
 */
#include "lib/core/token.h"

#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define S_PIECES          4   /* header, message, footer, implicit assertion */
#define S_CLAIMS_MAX      512 /* ours have 182 bytes; more is not one of ours */
#define S_FOOTER_MAX      32
#define S_TIME_CHARS      25                       /* 2026-11-22T09:25:19+00:00 */
#define S_TIME_MS_MAX     INT64_C(253402300799000) /* the last second of the year 9999 */
#define S_SIGNATURE_BYTES crypto_sign_BYTES
#define S_BASE64          sodium_base64_VARIANT_URLSAFE_NO_PADDING

static const char s_header[] = "v4.public.";
static const char s_footer_begin[] = "{\"kid\":\"dkt-";
static const char s_footer_end[] = "\"}";

typedef struct {
    const void *data;
    size_t len;
} s_piece_t;

static size_t s_put_length(uint8_t *at, size_t len)
{
    for (unsigned i = 0; i < 8; i++) {
        at[i] = (uint8_t)((uint64_t)len >> (8 * i));
    }
    return 8;
}

/* Pre-authentication encoding of PASETO: count and lengths as 64-bit little-endian. Lengths here
 * are below 2^31, so the top bit that the specification clears is never set. */
static size_t s_encode_pieces(const s_piece_t pieces[S_PIECES], uint8_t *out, size_t max)
{
    size_t need = 8;
    for (unsigned i = 0; i < S_PIECES; i++) {
        need += 8 + pieces[i].len;
    }
    assert(need <= max);
    size_t at = s_put_length(out, S_PIECES);
    for (unsigned i = 0; i < S_PIECES; i++) {
        at += s_put_length(out + at, pieces[i].len);
        if (pieces[i].len) {
            memcpy(out + at, pieces[i].data, pieces[i].len);
        }
        at += pieces[i].len;
    }
    return at;
}

static size_t s_signed_bytes(const void *message, size_t message_len, const void *footer,
                             size_t footer_len, uint8_t *out, size_t max)
{
    s_piece_t pieces[S_PIECES] = {
        {s_header, sizeof s_header - 1}, {message, message_len}, {footer, footer_len}, {NULL, 0}};
    return s_encode_pieces(pieces, out, max);
}

static void s_write_time(int64_t unix_ms, char out[S_TIME_CHARS + 1])
{
    assert(unix_ms >= 0 && unix_ms <= S_TIME_MS_MAX);
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm when;
    gmtime_r(&seconds, &when);
    size_t len = strftime(out, S_TIME_CHARS + 1, "%Y-%m-%dT%H:%M:%S+00:00", &when);
    assert(len == S_TIME_CHARS);
}

/* Only the one form that s_write_time writes: whatever is read is written again and compared. */
static bool s_read_time(const char *text, size_t len, int64_t *unix_ms)
{
    struct tm when = {0};
    if (len != S_TIME_CHARS ||
        sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d+00:00", &when.tm_year, &when.tm_mon, &when.tm_mday,
               &when.tm_hour, &when.tm_min, &when.tm_sec) != 6) {
        return false;
    }
    when.tm_year -= 1900;
    when.tm_mon -= 1;
    int64_t seconds = timegm(&when);
    if (seconds < 0 || seconds > S_TIME_MS_MAX / 1000) {
        return false;
    }
    char again[S_TIME_CHARS + 1];
    s_write_time(seconds * 1000, again);
    *unix_ms = seconds * 1000;
    return memcmp(again, text, S_TIME_CHARS) == 0;
}

static size_t s_write_claims(const dkt_claims_t *claims, char out[S_CLAIMS_MAX])
{
    dkt_id_text_t client;
    dkt_client_text(&claims->client, &client);
    char id[2 * DKT_TOKEN_ID_BYTES + 1];
    sodium_bin2hex(id, sizeof id, claims->token_id, DKT_TOKEN_ID_BYTES);
    char issued[S_TIME_CHARS + 1];
    char expires[S_TIME_CHARS + 1];
    s_write_time(claims->issued_ms, issued);
    s_write_time(claims->expires_ms, expires);
    int len =
        snprintf(out, S_CLAIMS_MAX, "{\"sub\":\"%s\",\"jti\":\"%s\",\"iat\":\"%s\",\"exp\":\"%s\"}",
                 client.text, id, issued, expires);
    assert(len > 0 && len < S_CLAIMS_MAX);
    return (size_t)len;
}

/* A claim that must be text; NULL if it is none. */
static const char *s_claim(const json_t *object, const char *key, size_t *len)
{
    const json_t *value = json_object_get(object, key);
    *len = json_string_length(value);
    return json_string_value(value);
}

static bool s_read_claims(const uint8_t *message, size_t message_len, dkt_claims_t *claims)
{
    json_t *object = json_loadb((const char *)message, message_len, JSON_REJECT_DUPLICATES, NULL);
    size_t sub_len, jti_len, iat_len, exp_len;
    const char *sub = s_claim(object, "sub", &sub_len);
    const char *jti = s_claim(object, "jti", &jti_len);
    const char *iat = s_claim(object, "iat", &iat_len);
    const char *exp = s_claim(object, "exp", &exp_len);
    size_t id_len = 0;
    bool ok = sub && jti && iat && exp && jti_len == 2 * DKT_TOKEN_ID_BYTES &&
              dkt_client_parse(sub, (uint32_t)sub_len, &claims->client) &&
              sodium_hex2bin(claims->token_id, DKT_TOKEN_ID_BYTES, jti, jti_len, NULL, &id_len,
                             NULL) == 0 &&
              id_len == DKT_TOKEN_ID_BYTES && s_read_time(iat, iat_len, &claims->issued_ms) &&
              s_read_time(exp, exp_len, &claims->expires_ms);
    json_decref(object);
    return ok;
}

static size_t s_write_footer(uint32_t kid, char out[S_FOOTER_MAX + 1])
{
    int len = snprintf(out, S_FOOTER_MAX + 1, "%s%" PRIu32 "%s", s_footer_begin, kid, s_footer_end);
    assert(len > 0 && len <= S_FOOTER_MAX);
    return (size_t)len;
}

void dkt_token_keys(uint32_t kid, const uint8_t seed[DKT_TOKEN_SEED_BYTES],
                    dkt_token_secret_t *secret, dkt_token_public_t *public_key)
{
    static_assert(crypto_sign_SEEDBYTES == DKT_TOKEN_SEED_BYTES, "Ed25519 seed");
    static_assert(crypto_sign_SECRETKEYBYTES == sizeof secret->secret_key, "Ed25519 secret key");
    static_assert(crypto_sign_PUBLICKEYBYTES == sizeof public_key->public_key, "Ed25519 key");
    secret->kid = kid;
    public_key->kid = kid;
    crypto_sign_seed_keypair(public_key->public_key, secret->secret_key, seed);
}

void dkt_token_sign(const dkt_token_secret_t *key, const dkt_claims_t *claims,
                    char out[DKT_TOKEN_BYTES_MAX])
{
    uint8_t body[S_CLAIMS_MAX + S_SIGNATURE_BYTES];
    char footer[S_FOOTER_MAX + 1];
    uint8_t to_sign[DKT_TOKEN_BYTES_MAX];
    size_t claims_len = s_write_claims(claims, (char *)body);
    size_t footer_len = s_write_footer(key->kid, footer);
    size_t len = s_signed_bytes(body, claims_len, footer, footer_len, to_sign, sizeof to_sign);
    crypto_sign_detached(body + claims_len, NULL, to_sign, len, key->secret_key);

    size_t body_len = claims_len + S_SIGNATURE_BYTES;
    size_t body_chars = sodium_base64_encoded_len(body_len, S_BASE64) - 1;
    size_t footer_chars = sodium_base64_encoded_len(footer_len, S_BASE64) - 1;
    assert(sizeof s_header - 1 + body_chars + 1 + footer_chars < DKT_TOKEN_BYTES_MAX);
    size_t at = sizeof s_header - 1;
    memcpy(out, s_header, at);
    sodium_bin2base64(out + at, DKT_TOKEN_BYTES_MAX - at, body, body_len, S_BASE64);
    at += body_chars;
    out[at++] = '.';
    sodium_bin2base64(out + at, DKT_TOKEN_BYTES_MAX - at, (const uint8_t *)footer, footer_len,
                      S_BASE64);
}

/* What a token's text consists of, before anything of it is believed. */
typedef struct {
    uint8_t body[S_CLAIMS_MAX + S_SIGNATURE_BYTES];
    size_t claims_len;
    char footer[S_FOOTER_MAX];
    size_t footer_len;
} s_parts_t;

static bool s_split(const char *token, uint32_t len, s_parts_t *parts)
{
    const size_t header_len = sizeof s_header - 1;
    if (!token || len >= DKT_TOKEN_BYTES_MAX || len <= header_len ||
        memcmp(token, s_header, header_len) != 0) {
        return false;
    }
    const char *body = token + header_len;
    const char *end = token + len;
    const char *dot = memchr(body, '.', (size_t)(end - body));
    if (!dot) {
        return false;
    }
    size_t body_len = 0;
    if (!dkt_base64url_read(body, (size_t)(dot - body), parts->body, sizeof parts->body,
                            &body_len) ||
        body_len <= S_SIGNATURE_BYTES) {
        return false;
    }
    parts->claims_len = body_len - S_SIGNATURE_BYTES;
    return dkt_base64url_read(dot + 1, (size_t)(end - dot - 1), (uint8_t *)parts->footer,
                              sizeof parts->footer, &parts->footer_len);
}

/* A key is the token's if it would have written the same footer. */
static bool s_is_key_of(const dkt_token_public_t *key, const s_parts_t *parts)
{
    char footer[S_FOOTER_MAX + 1];
    size_t len = s_write_footer(key->kid, footer);
    return len == parts->footer_len && memcmp(footer, parts->footer, len) == 0;
}

static bool s_signature_ok(const dkt_token_public_t *keys, uint32_t key_count,
                           const s_parts_t *parts)
{
    uint8_t signed_bytes[DKT_TOKEN_BYTES_MAX];
    size_t len = s_signed_bytes(parts->body, parts->claims_len, parts->footer, parts->footer_len,
                                signed_bytes, sizeof signed_bytes);
    for (uint32_t i = 0; i < key_count; i++) {
        if (s_is_key_of(&keys[i], parts) &&
            crypto_sign_verify_detached(parts->body + parts->claims_len, signed_bytes, len,
                                        keys[i].public_key) == 0) {
            return true;
        }
    }
    return false;
}

dkt_status_t dkt_token_verify(const dkt_token_public_t *keys, uint32_t key_count, int64_t now_ms,
                              const char *token, uint32_t len, dkt_claims_t *claims, dkt_err_t *err)
{
    s_parts_t parts;
    if (!s_split(token, len, &parts)) {
        return dkt_fail(err, DKT_UNAUTHENTICATED, "token", "this is not a session token");
    }
    if (!s_signature_ok(keys, key_count, &parts)) {
        return dkt_fail(err, DKT_UNAUTHENTICATED, "token", "the token was not signed here");
    }
    dkt_claims_t read;
    if (!s_read_claims(parts.body, parts.claims_len, &read)) {
        return dkt_fail(err, DKT_UNAUTHENTICATED, "token", "the token's claims cannot be read");
    }
    if (read.expires_ms <= now_ms) {
        return dkt_fail(err, DKT_UNAUTHENTICATED, "token", "the token has expired");
    }
    *claims = read;
    return DKT_OK;
}
