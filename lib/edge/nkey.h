/* SPDX-License-Identifier: Apache-2.0
 *
 * NATS nkeys of users: text forms of an Ed25519 seed and its public key. Base32 without padding of
 *   seed    'S' and 'U' as 5-bit prefixes in 2 bytes | seed 32 | CRC-16/XMODEM 2, little-endian
 *   public  'U' prefix in 1 byte                     | key 32  | CRC 2
 */
#ifndef DKT_EDGE_NKEY_H
#define DKT_EDGE_NKEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/core/status.h"

#define DKT_NKEY_RAW_BYTES    32
#define DKT_NKEY_SEED_CHARS   58
#define DKT_NKEY_PUBLIC_CHARS 56

/* Writes the seed's text, NUL-terminated. */
void dkt_nkey_seed_text(const uint8_t seed[DKT_NKEY_RAW_BYTES], char out[DKT_NKEY_SEED_CHARS + 1]);

/* The public key of a seed's text. False: not a user's seed, or its checksum is wrong. */
DKT_CHECKED bool dkt_nkey_public_text(const char *seed_text, char out[DKT_NKEY_PUBLIC_CHARS + 1]);

#endif
