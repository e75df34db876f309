/* SPDX-License-Identifier: Apache-2.0
 *
 * Ids: see ids.h for their bytes. A tag is a truncated keyed BLAKE2b over the prefix and the bytes
 * before the tag, so an id of one kind is never one of another kind.
 */
#include "lib/core/ids.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>
#include <xxhash.h>

#define S_PREFIX_CHARS 3

#define S_CLIENT_TAG_AT 8
#define S_CLIENT_TAG    4

_Static_assert(DKT_CLIENT_CHARS == S_PREFIX_CHARS + 16, "a prefix, and 12 bytes in groups of 3");

#define S_OWNER_AT  1 /* the client inside a ticket or slot id, after the kid */
#define S_TAG_BYTES 8

_Static_assert(S_TAG_BYTES == sizeof(uint64_t), "a tag is given as a number");

#define S_TICKET_NUMBER_AT (S_OWNER_AT + DKT_CLIENT_BYTES)
#define S_TICKET_TAG_AT    (S_TICKET_NUMBER_AT + 8)
#define S_TICKET_BYTES     (S_TICKET_TAG_AT + S_TAG_BYTES)
_Static_assert(DKT_TICKET_CHARS == S_PREFIX_CHARS + (S_TICKET_BYTES * 8 + 5) / 6, "6 bits each");

#define S_SLOT_MINUTE_AT  (S_OWNER_AT + DKT_CLIENT_BYTES)
#define S_SLOT_CLASS_AT   (S_SLOT_MINUTE_AT + 4)
#define S_SLOT_EXPIRES_AT (S_SLOT_CLASS_AT + 1)
#define S_SLOT_NONCE_AT   (S_SLOT_EXPIRES_AT + 6)
#define S_SLOT_TAG_AT     (S_SLOT_NONCE_AT + 8)
#define S_SLOT_BYTES      (S_SLOT_TAG_AT + S_TAG_BYTES)
#define S_SLOT_CHARS      (S_PREFIX_CHARS + 54)

#define S_RAW_BYTES_MAX   S_SLOT_BYTES
#define S_EXPIRES_MS_MAX  ((INT64_C(1) << 48) - 1)
#define S_UUID_TEXT_CHARS 36

static const char s_client_prefix[] = "cl_";
static const char s_ticket_prefix[] = "tk_";
static const char s_slot_prefix[] = "sl_";

static void s_put_le(uint8_t *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

static uint64_t s_get_le(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++) {
        value |= (uint64_t)at[i] << (8 * i);
    }
    return value;
}

/* -- base64url without padding ------------------------------------------------------------------
 *
 * By table: ids and tokens are read and written for every request, and the text of one is no secret
 * whose value the time of a look-up could tell to anybody but its bearer. */

#define S_DIGIT_BITS 6
#define S_DIGIT_MASK 63U
/* Whole groups of 3 bytes and 4 digits are the bulk of an id and need no counting of bits. */
#define S_GROUP_BYTES 3
#define S_GROUP_CHARS 4

static const char s_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* The value of a digit and one more; 0: none. */
static const uint8_t s_values[256] = {
    ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,  ['H'] = 8,
    ['I'] = 9,  ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16,
    ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24,
    ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32,
    ['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40,
    ['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48,
    ['w'] = 49, ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
    ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['-'] = 63, ['_'] = 64,
};

/* With a NUL behind it. */
static void s_base64url_write(char *out, const uint8_t *raw, size_t len)
{
    uint32_t bits = 0;
    unsigned count = 0;
    for (; len >= S_GROUP_BYTES; len -= S_GROUP_BYTES, raw += S_GROUP_BYTES) {
        bits = (uint32_t)raw[0] << 16 | (uint32_t)raw[1] << 8 | raw[2];
        *out++ = s_digits[bits >> 3 * S_DIGIT_BITS];
        *out++ = s_digits[bits >> 2 * S_DIGIT_BITS & S_DIGIT_MASK];
        *out++ = s_digits[bits >> S_DIGIT_BITS & S_DIGIT_MASK];
        *out++ = s_digits[bits & S_DIGIT_MASK];
    }
    for (size_t i = 0; i < len; i++) {
        bits = bits << 8 | raw[i];
        for (count += 8; count >= S_DIGIT_BITS; count -= S_DIGIT_BITS) {
            *out++ = s_digits[bits >> (count - S_DIGIT_BITS) & S_DIGIT_MASK];
        }
    }
    if (count > 0) {
        *out++ = s_digits[bits << (S_DIGIT_BITS - count) & S_DIGIT_MASK];
    }
    *out = '\0';
}

bool dkt_base64url_read(const char *text, size_t len, uint8_t *out, size_t max, size_t *out_len)
{
    uint32_t bits = 0;
    unsigned count = 0;
    size_t at = 0, done = 0;
    for (; len - done >= S_GROUP_CHARS && max - at >= S_GROUP_BYTES; done += S_GROUP_CHARS) {
        const uint8_t *group = (const uint8_t *)text + done;
        uint32_t a = s_values[group[0]], b = s_values[group[1]], c = s_values[group[2]],
                 d = s_values[group[3]];
        if (a == 0 || b == 0 || c == 0 || d == 0) {
            return false;
        }
        uint32_t whole = (a - 1) << 3 * S_DIGIT_BITS | (b - 1) << 2 * S_DIGIT_BITS |
                         (c - 1) << S_DIGIT_BITS | (d - 1);
        out[at++] = (uint8_t)(whole >> 16);
        out[at++] = (uint8_t)(whole >> 8);
        out[at++] = (uint8_t)whole;
    }
    for (size_t i = done; i < len; i++) {
        uint8_t value = s_values[(uint8_t)text[i]];
        if (value == 0) {
            return false;
        }
        bits = bits << S_DIGIT_BITS | (value - 1U);
        count += S_DIGIT_BITS;
        if (count >= 8) {
            count -= 8;
            if (at == max) {
                return false;
            }
            out[at++] = (uint8_t)(bits >> count);
        }
    }
    *out_len = at;
    /* A lone digit is no byte, and unused bits are zero: bytes have one text only. */
    return count < S_DIGIT_BITS && (bits & ((1U << count) - 1)) == 0;
}

/* -- ids --------------------------------------------------------------------------------------- */

static void s_make_text(const char *prefix, const uint8_t *raw, size_t len, dkt_id_text_t *out)
{
    memcpy(out->text, prefix, S_PREFIX_CHARS);
    s_base64url_write(out->text + S_PREFIX_CHARS, raw, len);
}

/* Exactly `raw_len` bytes from exactly `chars` characters; unused low bits must be zero, so that an
 * id has one text only. */
static bool s_read_text(const char *prefix, const char *text, uint32_t len, uint32_t chars,
                        uint8_t *raw, size_t raw_len)
{
    if (!text || len != chars || memcmp(text, prefix, S_PREFIX_CHARS) != 0) {
        return false;
    }
    size_t got = 0;
    return dkt_base64url_read(text + S_PREFIX_CHARS, len - S_PREFIX_CHARS, raw, raw_len, &got) &&
           got == raw_len;
}

static void s_tag(const uint8_t key[DKT_KEY_BYTES], const char *prefix, const uint8_t *raw,
                  size_t len, uint8_t *tag, size_t tag_len)
{
    uint8_t message[S_PREFIX_CHARS + S_RAW_BYTES_MAX];
    uint8_t full[crypto_generichash_BYTES_MIN];
    assert(len <= S_RAW_BYTES_MAX && tag_len <= sizeof full);
    memcpy(message, prefix, S_PREFIX_CHARS);
    memcpy(message + S_PREFIX_CHARS, raw, len);
    crypto_generichash(full, sizeof full, message, S_PREFIX_CHARS + len, key, DKT_KEY_BYTES);
    memcpy(tag, full, tag_len);
}

static void s_sign(const dkt_keyring_t *ring, const char *prefix, uint8_t *raw, size_t tag_at,
                   size_t tag_len)
{
    assert(ring->count >= 1 && ring->count <= DKT_KEYS_MAX);
    raw[0] = ring->keys[0].kid;
    s_tag(ring->keys[0].key, prefix, raw, tag_at, raw + tag_at, tag_len);
}

static bool s_verify(const dkt_keyring_t *ring, const char *prefix, const uint8_t *raw,
                     size_t tag_at, size_t tag_len)
{
    assert(ring->count <= DKT_KEYS_MAX);
    for (uint32_t i = 0; i < ring->count; i++) {
        if (ring->keys[i].kid != raw[0]) {
            continue;
        }
        uint8_t tag[S_TAG_BYTES];
        s_tag(ring->keys[i].key, prefix, raw, tag_at, tag, tag_len);
        if (sodium_memcmp(tag, raw + tag_at, tag_len) == 0) {
            return true;
        }
    }
    return false;
}

dkt_client_t dkt_client_make(const dkt_keyring_t *ring, const uint8_t random[7])
{
    dkt_client_t client;
    memcpy(client.bytes + 1, random, 7);
    s_sign(ring, s_client_prefix, client.bytes, S_CLIENT_TAG_AT, S_CLIENT_TAG);
    return client;
}

void dkt_client_text(const dkt_client_t *client, dkt_id_text_t *out)
{
    s_make_text(s_client_prefix, client->bytes, DKT_CLIENT_BYTES, out);
}

bool dkt_client_parse(const char *text, uint32_t len, dkt_client_t *client)
{
    dkt_client_t parsed;
    if (!s_read_text(s_client_prefix, text, len, DKT_CLIENT_CHARS, parsed.bytes,
                     DKT_CLIENT_BYTES)) {
        return false;
    }
    *client = parsed;
    return true;
}

bool dkt_client_parse_seen(dkt_client_seen_t *seen, const char *text, uint32_t len,
                           dkt_client_t *client)
{
    if (!seen->any || !text || len != sizeof seen->text ||
        memcmp(seen->text, text, sizeof seen->text) != 0) {
        if (!dkt_client_parse(text, len, client)) {
            return false;
        }
        memcpy(seen->text, text, sizeof seen->text);
        seen->client = *client;
        seen->any = true;
    }
    *client = seen->client;
    return true;
}

bool dkt_client_verify(const dkt_keyring_t *ring, const dkt_client_t *client)
{
    return s_verify(ring, s_client_prefix, client->bytes, S_CLIENT_TAG_AT, S_CLIENT_TAG);
}

bool dkt_client_equal(const dkt_client_t *a, const dkt_client_t *b)
{
    return memcmp(a->bytes, b->bytes, DKT_CLIENT_BYTES) == 0;
}

static void s_begin_ticket(uint8_t raw[S_TICKET_BYTES], const dkt_client_t *client, uint64_t number)
{
    memcpy(raw + S_OWNER_AT, client->bytes, DKT_CLIENT_BYTES);
    s_put_le(raw + S_TICKET_NUMBER_AT, number, 8);
}

uint64_t dkt_ticket_text(const dkt_keyring_t *ring, const dkt_client_t *client, uint64_t number,
                         dkt_id_text_t *out)
{
    uint8_t raw[S_TICKET_BYTES];
    uint64_t tag;
    s_begin_ticket(raw, client, number);
    s_sign(ring, s_ticket_prefix, raw, S_TICKET_TAG_AT, S_TAG_BYTES);
    s_make_text(s_ticket_prefix, raw, sizeof raw, out);
    memcpy(&tag, raw + S_TICKET_TAG_AT, sizeof tag);
    return tag;
}

void dkt_ticket_text_again(const dkt_keyring_t *ring, const dkt_client_t *client, uint64_t number,
                           uint64_t tag, dkt_id_text_t *out)
{
    uint8_t raw[S_TICKET_BYTES];
    if (tag == 0) {
        (void)dkt_ticket_text(ring, client, number, out);
        return;
    }
    s_begin_ticket(raw, client, number);
    raw[0] = ring->keys[0].kid;
    memcpy(raw + S_TICKET_TAG_AT, &tag, sizeof tag);
    s_make_text(s_ticket_prefix, raw, sizeof raw, out);
}

bool dkt_id_client(const char *text, uint32_t len, dkt_client_t *client)
{
    uint8_t raw[S_RAW_BYTES_MAX];
    if (!s_read_text(s_ticket_prefix, text, len, DKT_TICKET_CHARS, raw, S_TICKET_BYTES) &&
        !s_read_text(s_slot_prefix, text, len, S_SLOT_CHARS, raw, S_SLOT_BYTES)) {
        return false;
    }
    memcpy(client->bytes, raw + S_OWNER_AT, DKT_CLIENT_BYTES);
    return true;
}

bool dkt_ticket_parse(const dkt_keyring_t *ring, const char *text, uint32_t len,
                      dkt_client_t *client, uint64_t *number)
{
    uint8_t raw[S_TICKET_BYTES];
    if (!s_read_text(s_ticket_prefix, text, len, DKT_TICKET_CHARS, raw, sizeof raw) ||
        !s_verify(ring, s_ticket_prefix, raw, S_TICKET_TAG_AT, S_TAG_BYTES)) {
        return false;
    }
    memcpy(client->bytes, raw + S_OWNER_AT, DKT_CLIENT_BYTES);
    *number = s_get_le(raw + S_TICKET_NUMBER_AT, 8);
    return true;
}

void dkt_slot_text(const dkt_keyring_t *ring, const dkt_slot_ref_t *slot, dkt_id_text_t *out)
{
    assert(slot->expires_ms >= 0 && slot->expires_ms <= S_EXPIRES_MS_MAX);
    uint8_t raw[S_SLOT_BYTES];
    memcpy(raw + S_OWNER_AT, slot->client.bytes, DKT_CLIENT_BYTES);
    s_put_le(raw + S_SLOT_MINUTE_AT, slot->minute, 4);
    raw[S_SLOT_CLASS_AT] = slot->class_index;
    s_put_le(raw + S_SLOT_EXPIRES_AT, (uint64_t)slot->expires_ms, 6);
    s_put_le(raw + S_SLOT_NONCE_AT, slot->nonce, 8);
    s_sign(ring, s_slot_prefix, raw, S_SLOT_TAG_AT, S_TAG_BYTES);
    s_make_text(s_slot_prefix, raw, sizeof raw, out);
}

bool dkt_slot_parse(const dkt_keyring_t *ring, const char *text, uint32_t len, dkt_slot_ref_t *slot)
{
    uint8_t raw[S_SLOT_BYTES];
    if (!s_read_text(s_slot_prefix, text, len, S_SLOT_CHARS, raw, sizeof raw) ||
        !s_verify(ring, s_slot_prefix, raw, S_SLOT_TAG_AT, S_TAG_BYTES)) {
        return false;
    }
    memcpy(slot->client.bytes, raw + S_OWNER_AT, DKT_CLIENT_BYTES);
    slot->minute = (uint32_t)s_get_le(raw + S_SLOT_MINUTE_AT, 4);
    slot->class_index = raw[S_SLOT_CLASS_AT];
    slot->expires_ms = (int64_t)s_get_le(raw + S_SLOT_EXPIRES_AT, 6);
    slot->nonce = s_get_le(raw + S_SLOT_NONCE_AT, 8);
    return true;
}

uint16_t dkt_client_vshard(const dkt_client_t *client)
{
    dkt_id_text_t text;
    dkt_client_text(client, &text);
    return (uint16_t)(XXH64(text.text, DKT_CLIENT_CHARS, 0) % DKT_VSHARDS);
}

uint16_t dkt_client_vshard_seen(dkt_vshard_seen_t *seen, const dkt_client_t *client)
{
    if (!seen->any || !dkt_client_equal(&seen->client, client)) {
        seen->any = true;
        seen->client = *client;
        seen->vshard = dkt_client_vshard(client);
    }
    return seen->vshard;
}

static bool s_is_dash(unsigned at)
{
    return at == 8 || at == 13 || at == 18 || at == 23;
}

void dkt_uuid_text(const dkt_uuid_t *uuid, char out[37])
{
    static const char digits[] = "0123456789abcdef";
    unsigned at = 0;
    for (unsigned i = 0; i < DKT_UUID_BYTES; i++) {
        if (s_is_dash(at)) {
            out[at++] = '-';
        }
        out[at++] = digits[uuid->bytes[i] >> 4];
        out[at++] = digits[uuid->bytes[i] & 15];
    }
    out[at] = '\0';
}

static int s_hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

bool dkt_uuid_parse(const char *text, uint32_t len, dkt_uuid_t *uuid)
{
    if (!text || len != S_UUID_TEXT_CHARS) {
        return false;
    }
    dkt_uuid_t parsed;
    unsigned at = 0;
    for (unsigned i = 0; i < DKT_UUID_BYTES; i++) {
        if (s_is_dash(at) && text[at++] != '-') {
            return false;
        }
        int high = s_hex_digit(text[at]);
        int low = s_hex_digit(text[at + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        parsed.bytes[i] = (uint8_t)(high << 4 | low);
        at += 2;
    }
    *uuid = parsed;
    return true;
}

dkt_uuid_t dkt_uuid_v7(int64_t unix_ms, const uint8_t random[10])
{
    dkt_uuid_t uuid;
    for (unsigned i = 0; i < 6; i++) {
        uuid.bytes[i] = (uint8_t)((uint64_t)unix_ms >> (40 - 8 * i));
    }
    memcpy(uuid.bytes + 6, random, 10);
    uuid.bytes[6] = (uint8_t)((uuid.bytes[6] & 0x0f) | 0x70); /* version 7 */
    uuid.bytes[8] = (uint8_t)((uuid.bytes[8] & 0x3f) | 0x80); /* RFC 9562 variant */
    return uuid;
}
