/* SPDX-License-Identifier: Apache-2.0
 *
 * What PostgreSQL keeps of the password of a role: its SCRAM-SHA-256 verifier (RFC 5802, 7677).
 *
 * With ONE iteration. The iterations are there to make guessing slow for whoever has stolen a
 * verifier or overheard a login; the passwords of our roles are 256 random bits
 * (dkt_keys_role_password), so there is nothing to guess, however fast a guess is. PostgreSQL's
 * 4,096 would cost every activation of a tenant 4 ms of the worker's CPU: the client repeats them
 * at each login, the server never does. NEVER for a password that a human chose.
 *
 * The count stands in the verifier, so roles that were made with another one go on as they are.
 */
#ifndef DKT_EDGE_SCRAM_H
#define DKT_EDGE_SCRAM_H

#include <stdint.h>

#define DKT_SCRAM_SALT_BYTES     16
#define DKT_SCRAM_VERIFIER_BYTES 131 /* SCRAM-SHA-256$1:24$44:44 and NUL */

/* The text for CREATE ROLE .. PASSWORD. `password` is plain ASCII; `salt` is random. */
void dkt_scram_verifier(const char *password, const uint8_t salt[DKT_SCRAM_SALT_BYTES],
                        char out[DKT_SCRAM_VERIFIER_BYTES]);

#endif
