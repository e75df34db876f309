/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/nkey.h"

#include <assert.h>
#include <string.h>

#include <sodium.h>

#define S_PREFIX_SEED (18 << 3) /* 'S' in base32 */
#define S_PREFIX_USER (20 << 3) /* 'U' in base32 */
#define S_CRC_BYTES   2
#define S_SEED_BYTES  (2 + DKT_NKEY_RAW_BYTES + S_CRC_BYTES)
#define S_PUB_BYTES   (1 + DKT_NKEY_RAW_BYTES + S_CRC_BYTES)

static const char s_base32[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

_Static_assert((S_SEED_BYTES * 8 + 4) / 5 == DKT_NKEY_SEED_CHARS, "text length of a seed");
_Static_assert((S_PUB_BYTES * 8 + 4) / 5 == DKT_NKEY_PUBLIC_CHARS, "text length of a public key");

static uint16_t s_crc16(const uint8_t *bytes, size_t len)
{
    uint16_t crc = 0;
    for (size_t i = 0; i < len; i++) {
        crc = (uint16_t)(crc ^ (bytes[i] << 8));
        for (int bit = 0; bit < 8; bit++) {
            crc = (uint16_t)((crc & 0x8000) ? (crc << 1) ^ 0x1021 : crc << 1);
        }
    }
    return crc;
}

static void s_encode(const uint8_t *bytes, size_t len, char *out)
{
    uint32_t window = 0;
    int bits = 0;
    for (size_t i = 0; i < len; i++) {
        window = (window << 8) | bytes[i];
        for (bits += 8; bits >= 5; bits -= 5) {
            *out++ = s_base32[(window >> (bits - 5)) & 31];
        }
    }
    if (bits > 0) {
        *out++ = s_base32[(window << (5 - bits)) & 31];
    }
    *out = '\0';
}

/* Exactly `len` bytes from `text`; false for a foreign character or another length. */
static bool s_decode(const char *text, uint8_t *bytes, size_t len)
{
    uint32_t window = 0;
    int bits = 0;
    size_t done = 0;
    for (; *text; text++) {
        const char *at = strchr(s_base32, *text);
        if (!at) {
            return false;
        }
        window = (window << 5) | (uint32_t)(at - s_base32);
        bits += 5;
        if (bits >= 8) {
            if (done == len) {
                return false;
            }
            bits -= 8;
            bytes[done++] = (uint8_t)(window >> bits);
        }
    }
    return done == len;
}

static void s_put_crc(uint8_t *bytes, size_t len)
{
    uint16_t crc = s_crc16(bytes, len);
    bytes[len] = (uint8_t)(crc & 0xff);
    bytes[len + 1] = (uint8_t)(crc >> 8);
}

void dkt_nkey_seed_text(const uint8_t seed[DKT_NKEY_RAW_BYTES], char out[DKT_NKEY_SEED_CHARS + 1])
{
    uint8_t raw[S_SEED_BYTES];
    raw[0] = S_PREFIX_SEED | (S_PREFIX_USER >> 5);
    raw[1] = (uint8_t)((S_PREFIX_USER & 31) << 3);
    memcpy(raw + 2, seed, DKT_NKEY_RAW_BYTES);
    s_put_crc(raw, S_SEED_BYTES - S_CRC_BYTES);
    s_encode(raw, sizeof raw, out);
    assert(strlen(out) == DKT_NKEY_SEED_CHARS);
    sodium_memzero(raw, sizeof raw);
}

bool dkt_nkey_public_text(const char *seed_text, char out[DKT_NKEY_PUBLIC_CHARS + 1])
{
    uint8_t raw[S_SEED_BYTES], check[S_SEED_BYTES];
    uint8_t public_raw[S_PUB_BYTES] = {S_PREFIX_USER};
    uint8_t secret[crypto_sign_SECRETKEYBYTES];
    if (strlen(seed_text) != DKT_NKEY_SEED_CHARS || !s_decode(seed_text, raw, sizeof raw)) {
        return false;
    }
    memcpy(check, raw, sizeof raw);
    s_put_crc(check, S_SEED_BYTES - S_CRC_BYTES);
    bool user = raw[0] == (S_PREFIX_SEED | (S_PREFIX_USER >> 5)) &&
                raw[1] == (uint8_t)((S_PREFIX_USER & 31) << 3);
    bool good = user && memcmp(check, raw, sizeof raw) == 0;
    if (good) {
        crypto_sign_seed_keypair(public_raw + 1, secret, raw + 2);
        s_put_crc(public_raw, S_PUB_BYTES - S_CRC_BYTES);
        s_encode(public_raw, sizeof public_raw, out);
    }
    sodium_memzero(raw, sizeof raw);
    sodium_memzero(check, sizeof check);
    sodium_memzero(secret, sizeof secret);
    return good;
}
