/* SPDX-License-Identifier: Apache-2.0
 *
 * Tags of ids: keyed BLAKE2b (RFC 7693) of messages of one block. A keyed hash begins with a block
 * that has nothing but the key; libsodium can only be asked to do that anew for each tag, and it is
 * half of the work. Here it is done once per key: every ticket has three tags made.
 */
#ifndef DKT_CORE_TAG_H
#define DKT_CORE_TAG_H

#include <stddef.h>
#include <stdint.h>

#define DKT_KEY_BYTES         32
#define DKT_TAG_BYTES         16 /* of the hash; an id has the first of them */
#define DKT_TAG_MESSAGE_BYTES 128

/* A key, as the hash's state behind its block. */
typedef struct {
    uint64_t state[8];
} dkt_tag_key_t;

dkt_tag_key_t dkt_tag_key(const uint8_t bytes[DKT_KEY_BYTES]);

/* 1 <= len <= DKT_TAG_MESSAGE_BYTES. As crypto_generichash with that key and DKT_TAG_BYTES. */
void dkt_tag_make(const dkt_tag_key_t *key, const uint8_t *message, size_t len,
                  uint8_t tag[DKT_TAG_BYTES]);

#endif
