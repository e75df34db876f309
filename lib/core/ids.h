/* SPDX-License-Identifier: Apache-2.0
 *
 * Ids that route alone, cannot be guessed and cannot be forged. Text is a prefix and base64url
 * without padding of these bytes (integers little-endian):
 *
 *   cl_  kid 1 | random 7 | tag 4                                                     16 characters
 *   tk_  kid 1 | client 12 | number 8 | tag 8                                         39 characters
 *   sl_  kid 1 | client 12 | minute 4 | class 1 | expires_ms 6 | nonce 8 | tag 8      54 characters
 *
 * `kid` names the key of the tag (keyed BLAKE2b over prefix and the bytes before the tag), so keys
 * can be rotated: new ids take the newest key, old ones stay valid while their key is in the ring.
 * A broker has no key: it reads the client out of an id and routes; only the owner believes it.
 * The nonce of a slot has the owner's epoch in its high half; DKT_NONCE_DERIVED marks a slot id
 * that was derived from a ticket (create_ticket): the low bits are the ticket's number. Procedure
 * for a change of format: a new prefix, and readers for both.
 */
#ifndef DKT_CORE_IDS_H
#define DKT_CORE_IDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/core/limits.h"
#include "lib/core/status.h"

#define DKT_CLIENT_BYTES  12
#define DKT_KEY_BYTES     32
#define DKT_KEYS_MAX      8 /* keys in a ring: 7 rotations before the oldest ids must be gone */
#define DKT_NONCE_DERIVED (UINT64_C(1) << 62)
#define DKT_UUID_BYTES    16

/* A client as 12 bytes: what everything inside docket is keyed by. */
typedef struct {
    uint8_t bytes[DKT_CLIENT_BYTES];
} dkt_client_t;

typedef struct {
    uint8_t bytes[DKT_UUID_BYTES];
} dkt_uuid_t;

typedef struct {
    char text[DKT_ID_CHARS_MAX + 1];
} dkt_id_text_t;

typedef struct {
    uint8_t kid;
    uint8_t key[DKT_KEY_BYTES];
} dkt_id_key_t;

/* The first key is the newest: it signs. */
typedef struct {
    uint32_t count; /* 1 .. DKT_KEYS_MAX */
    dkt_id_key_t keys[DKT_KEYS_MAX];
} dkt_keyring_t;

typedef struct {
    dkt_client_t client;
    uint32_t minute;
    uint8_t class_index;
    int64_t expires_ms; /* 48 bits */
    uint64_t nonce;
} dkt_slot_ref_t;

/* Makes a client id from 7 random bytes that the caller gives. */
dkt_client_t dkt_client_make(const dkt_keyring_t *ring, const uint8_t random[7]);
void dkt_client_text(const dkt_client_t *client, dkt_id_text_t *out);
/* False: not of the form of a client id. Says nothing about its tag. */
DKT_CHECKED bool dkt_client_parse(const char *text, uint32_t len, dkt_client_t *client);

#define DKT_CLIENT_CHARS 19

/* The client id that was read last, and its bytes: a client's requests come together, and a client
 * has one text only, so that comparing texts is enough. All zero: none yet. */
typedef struct {
    bool any;
    char text[DKT_CLIENT_CHARS];
    dkt_client_t client;
} dkt_client_seen_t;

/* dkt_client_parse with that memory. */
DKT_CHECKED bool dkt_client_parse_seen(dkt_client_seen_t *seen, const char *text, uint32_t len,
                                       dkt_client_t *client);
/* Does the tag match? */
DKT_CHECKED bool dkt_client_verify(const dkt_keyring_t *ring, const dkt_client_t *client);
bool dkt_client_equal(const dkt_client_t *a, const dkt_client_t *b);

#define DKT_TICKET_CHARS 42
/* Returns the tag, with which the same process can write the same text again: most of the work. */
uint64_t dkt_ticket_text(const dkt_keyring_t *ring, const dkt_client_t *client, uint64_t number,
                         dkt_id_text_t *out);
/* `tag` 0: not known, it is made. */
void dkt_ticket_text_again(const dkt_keyring_t *ring, const dkt_client_t *client, uint64_t number,
                           uint64_t tag, dkt_id_text_t *out);
/* The client inside a ticket or slot id, for routing; false if it is neither in form. */
DKT_CHECKED bool dkt_id_client(const char *text, uint32_t len, dkt_client_t *client);
/* Parses and verifies; false for a forged or foreign-looking id. */
DKT_CHECKED bool dkt_ticket_parse(const dkt_keyring_t *ring, const char *text, uint32_t len,
                                  dkt_client_t *client, uint64_t *number);

void dkt_slot_text(const dkt_keyring_t *ring, const dkt_slot_ref_t *slot, dkt_id_text_t *out);
DKT_CHECKED bool dkt_slot_parse(const dkt_keyring_t *ring, const char *text, uint32_t len,
                                dkt_slot_ref_t *slot);

/* vshard = XXH64 (client_id text, seed 0) % DKT_VSHARDS. */
uint16_t dkt_client_vshard(const dkt_client_t *client);

/* The same with a memory of the last one. All zero: none yet. */
typedef struct {
    bool any;
    dkt_client_t client;
    uint16_t vshard;
} dkt_vshard_seen_t;

uint16_t dkt_client_vshard_seen(dkt_vshard_seen_t *seen, const dkt_client_t *client);

/* Exactly canonical base64url without padding: decodes `len` characters into at most `max` bytes.
 * libsodium's decoder alone takes 0xdf for '_' and 0xad for '-'. */
DKT_CHECKED bool dkt_base64url_read(const char *text, size_t len, uint8_t *out, size_t max,
                                    size_t *out_len);

/* 36-character text form, lower case; out has 37 bytes. */
void dkt_uuid_text(const dkt_uuid_t *uuid, char out[37]);
/* 8-4-4-4-12 hex digits, any case. */
DKT_CHECKED bool dkt_uuid_parse(const char *text, uint32_t len, dkt_uuid_t *uuid);
/* UUIDv7 of that time and 10 random bytes. */
dkt_uuid_t dkt_uuid_v7(int64_t unix_ms, const uint8_t random[10]);

#endif
