/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/tag.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

#define S_WORDS       8
#define S_BLOCK_WORDS 16
#define S_ROUNDS      12
#define S_ORDERS      10

/* The first word of the parameters: length of the hash, length of the key, fan-out 1, depth 1. */
#define S_PARAMETERS (UINT64_C(0x01010000) | DKT_KEY_BYTES << 8 | DKT_TAG_BYTES)

_Static_assert(DKT_TAG_MESSAGE_BYTES == S_BLOCK_WORDS * sizeof(uint64_t), "one block");

static const uint64_t s_start[S_WORDS] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};

/* Which words of the block a round mixes in; the eleventh is the first again. */
static const uint8_t s_orders[S_ORDERS][S_BLOCK_WORDS] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

static inline uint64_t s_turn_right(uint64_t word, unsigned bits)
{
    return word >> bits | word << (64 - bits);
}

static inline void s_mix(uint64_t v[S_BLOCK_WORDS], int a, int b, int c, int d, uint64_t x,
                         uint64_t y)
{
    v[a] += v[b] + x;
    v[d] = s_turn_right(v[d] ^ v[a], 32);
    v[c] += v[d];
    v[b] = s_turn_right(v[b] ^ v[c], 24);
    v[a] += v[b] + y;
    v[d] = s_turn_right(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = s_turn_right(v[b] ^ v[c], 63);
}

/* `total`: bytes up to the end of this block, the key's block among them. */
static void s_compress(uint64_t state[S_WORDS], const uint8_t *block, uint64_t total, uint64_t last)
{
    uint64_t m[S_BLOCK_WORDS], v[S_BLOCK_WORDS];
    memcpy(m, block, sizeof m);
    for (int i = 0; i < S_BLOCK_WORDS; i++) {
        m[i] = le64toh(m[i]);
    }
    memcpy(v, state, sizeof s_start);
    memcpy(v + S_WORDS, s_start, sizeof s_start);
    v[12] ^= total;
    v[14] ^= last;
#pragma GCC unroll 12
    for (int i = 0; i < S_ROUNDS; i++) {
        const uint8_t *order = s_orders[i % S_ORDERS];
        s_mix(v, 0, 4, 8, 12, m[order[0]], m[order[1]]);
        s_mix(v, 1, 5, 9, 13, m[order[2]], m[order[3]]);
        s_mix(v, 2, 6, 10, 14, m[order[4]], m[order[5]]);
        s_mix(v, 3, 7, 11, 15, m[order[6]], m[order[7]]);
        s_mix(v, 0, 5, 10, 15, m[order[8]], m[order[9]]);
        s_mix(v, 1, 6, 11, 12, m[order[10]], m[order[11]]);
        s_mix(v, 2, 7, 8, 13, m[order[12]], m[order[13]]);
        s_mix(v, 3, 4, 9, 14, m[order[14]], m[order[15]]);
    }
    for (int i = 0; i < S_WORDS; i++) {
        state[i] ^= v[i] ^ v[i + S_WORDS];
    }
}

dkt_tag_key_t dkt_tag_key(const uint8_t bytes[DKT_KEY_BYTES])
{
    uint8_t block[DKT_TAG_MESSAGE_BYTES] = {0};
    dkt_tag_key_t key;
    memcpy(block, bytes, DKT_KEY_BYTES);
    memcpy(key.state, s_start, sizeof s_start);
    key.state[0] ^= S_PARAMETERS;
    s_compress(key.state, block, sizeof block, 0);
    return key;
}

void dkt_tag_make(const dkt_tag_key_t *key, const uint8_t *message, size_t len,
                  uint8_t tag[DKT_TAG_BYTES])
{
    uint8_t block[DKT_TAG_MESSAGE_BYTES] = {0};
    uint64_t state[S_WORDS];
    assert(len > 0 && len <= sizeof block);
    memcpy(block, message, len);
    memcpy(state, key->state, sizeof state);
    s_compress(state, block, sizeof block + len, UINT64_MAX);
    for (int i = 0; i < DKT_TAG_BYTES / 8; i++) {
        uint64_t word = htole64(state[i]);
        memcpy(tag + 8 * i, &word, sizeof word);
    }
}
