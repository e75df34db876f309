/* SPDX-License-Identifier: Apache-2.0
 *
 * Session tokens: PASETO v4.public (Ed25519), claims as JSON, key id in the footer.
 *   payload {"sub": client_id, "jti": 32 hex digits, "iat": RFC 3339, "exp": RFC 3339}, times as
 *           2026-11-22T09:25:19+00:00
 *   footer  {"kid": "dkt-" and the key's number}
 * Whoever has a public key can check signature and expiry; only the tenant's owner knows which
 * tokens are revoked.
 */
#ifndef DKT_CORE_TOKEN_H
#define DKT_CORE_TOKEN_H

#include <stdint.h>

#include "lib/core/ids.h"
#include "lib/core/status.h"

#define DKT_TOKEN_ID_BYTES   16
#define DKT_TOKEN_SEED_BYTES 32

typedef struct {
    dkt_client_t client;
    uint8_t token_id[DKT_TOKEN_ID_BYTES];
    int64_t issued_ms;  /* whole seconds */
    int64_t expires_ms; /* whole seconds */
} dkt_claims_t;

typedef struct {
    uint32_t kid;
    uint8_t public_key[32];
} dkt_token_public_t;

typedef struct {
    uint32_t kid;
    uint8_t secret_key[64]; /* libsodium form: seed and public key */
} dkt_token_secret_t;

/* Keys from a 32-byte seed. */
void dkt_token_keys(uint32_t kid, const uint8_t seed[DKT_TOKEN_SEED_BYTES],
                    dkt_token_secret_t *secret, dkt_token_public_t *public_key);

/* Writes a NUL-terminated token of at most DKT_TOKEN_BYTES_MAX - 1 bytes. */
void dkt_token_sign(const dkt_token_secret_t *key, const dkt_claims_t *claims,
                    char out[DKT_TOKEN_BYTES_MAX]);

/* UNAUTHENTICATED: malformed, unknown key, bad signature, or exp <= now_ms. About 60 us: cache it.
 */
DKT_CHECKED dkt_status_t dkt_token_verify(const dkt_token_public_t *keys, uint32_t key_count,
                                          int64_t now_ms, const char *token, uint32_t len,
                                          dkt_claims_t *claims, dkt_err_t *err);

#endif
