/* SPDX-License-Identifier: Apache-2.0
 *
 * The secrets of a fleet, files in one folder (mode 0600, folder 0700), made by dkt_keys_create:
 *
 *   id.keys              ids: lines "kid hex(32 bytes)", newest first
 *   token.keys           tokens: lines "kid hex(32-byte Ed25519 seed)", newest first, signs
 *   master.key           hex(32 bytes): role passwords are derived from it
 *   pgpass               libpq password file of the administrator role
 *   internal.pub         CURVE public key of the internal endpoint, Z85, one line (mode 0644)
 *   internal.key         CURVE server key: public and secret, a line each, Z85
 *   internal-client.key  the first allowed client: public and secret, a line each, Z85
 *   internal.allowed     public keys of allowed clients, a line each, Z85
 *   receipt.key          hex(32-byte Ed25519 seed): signs the receipts of deletions
 *   receipt.pub          hex(its public key), to check them anywhere (mode 0644)
 *   nats-<role>.nk       NATS nkey seeds, one for each of server role: worker, broker, ops
 */
#ifndef DKT_EDGE_KEYS_H
#define DKT_EDGE_KEYS_H

#include "lib/core/ids.h"
#include "lib/core/status.h"
#include "lib/core/token.h"
#include "lib/edge/nkey.h"

#define DKT_Z85_KEY_CHARS       40
#define DKT_ALLOWED_KEYS_MAX    256 /* CURVE client keys of the internal endpoint */
#define DKT_KEY_PATH_BYTES_MAX  1024
#define DKT_ROLE_PASSWORD_BYTES 44 /* 32 bytes as base64url, and NUL */

typedef struct {
    char public_key[DKT_Z85_KEY_CHARS + 1];
    char secret_key[DKT_Z85_KEY_CHARS + 1]; /* "" where only the public one is known */
} dkt_curve_key_t;

/* Makes the folder and what is missing in it; never overwrites. */
DKT_CHECKED dkt_status_t dkt_keys_create(const char *folder, dkt_err_t *err);

DKT_CHECKED dkt_status_t dkt_keys_ids(const char *folder, dkt_keyring_t *ring, dkt_err_t *err);
/* All token keys; secrets[0] signs. */
DKT_CHECKED dkt_status_t dkt_keys_tokens(const char *folder, dkt_token_secret_t *secrets,
                                         dkt_token_public_t *publics, uint32_t keys_max,
                                         uint32_t *count, dkt_err_t *err);
DKT_CHECKED dkt_status_t dkt_keys_master(const char *folder, uint8_t master[DKT_KEY_BYTES],
                                         dkt_err_t *err);
/* The key that signs receipts, in libsodium's form; and what checks them, from a file. */
DKT_CHECKED dkt_status_t dkt_keys_receipt(const char *folder, uint8_t secret[64], dkt_err_t *err);
DKT_CHECKED dkt_status_t dkt_keys_receipt_public(const char *folder,
                                                 uint8_t public_key[DKT_KEY_BYTES], dkt_err_t *err);
/* The password of a generated role: 43 characters and NUL. */
void dkt_keys_role_password(const uint8_t master[DKT_KEY_BYTES], const char *role, char out[44]);
/* Reads a file "NAME.key" (public and secret) or "NAME.pub" (public only). */
DKT_CHECKED dkt_status_t dkt_keys_curve(const char *folder, const char *file, dkt_curve_key_t *key,
                                        dkt_err_t *err);
DKT_CHECKED dkt_status_t dkt_keys_allowed(const char *folder, dkt_curve_key_t *keys,
                                          uint32_t keys_max, uint32_t *count, dkt_err_t *err);
/* A server role's nkey (worker, broker, ops) as texts. The seed is secret. */
typedef struct {
    char seed[DKT_NKEY_SEED_CHARS + 1], public_key[DKT_NKEY_PUBLIC_CHARS + 1];
} dkt_nats_key_t;

DKT_CHECKED dkt_status_t dkt_keys_nats(const char *folder, const char *role, dkt_nats_key_t *key,
                                       dkt_err_t *err);
/* The administrator's password, out of the file pgpass. */
DKT_CHECKED dkt_status_t dkt_keys_admin_password(const char *folder,
                                                 char out[DKT_ROLE_PASSWORD_BYTES], dkt_err_t *err);

#endif
