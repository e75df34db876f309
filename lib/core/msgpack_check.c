/* SPDX-License-Identifier: Apache-2.0
 *
 * The bounded pre-check of everything that comes in from a stranger, and the token reader below it.
 * Depth is bounded by an explicit stack; keys are compared by a print first, at most
 * DKT_MAP_KEYS_MAX of them in one map, so that a hostile frame of many equal-looking keys costs
 * microseconds.
 */
#include "lib/core/proto_mp.h"

#include <endian.h>
#include <string.h>

/* -- tokens ------------------------------------------------------------------------------------ */

/* What lead bytes 0xc0 to 0xdf mean, and how many bytes of number, length or count follow. */
typedef enum {
    S_NONE,
    S_NIL,
    S_FALSE,
    S_TRUE,
    S_UINT,
    S_INT,
    S_FLOAT,
    S_STR,
    S_BIN,
    S_ARR,
    S_MAP
} s_form_t;

typedef struct {
    uint8_t form; /* s_form_t */
    uint8_t width;
} s_lead_t;

static const s_lead_t s_leads[32] = {
    {S_NIL, 0},  {S_NONE, 0}, {S_FALSE, 0}, {S_TRUE, 0},  /* c0 */
    {S_BIN, 1},  {S_BIN, 2},  {S_BIN, 4},   {S_NONE, 0},  /* c4, c7: ext 8 */
    {S_NONE, 0}, {S_NONE, 0}, {S_FLOAT, 4}, {S_FLOAT, 8}, /* c8, c9: ext 16, ext 32 */
    {S_UINT, 1}, {S_UINT, 2}, {S_UINT, 4},  {S_UINT, 8},  /* cc */
    {S_INT, 1},  {S_INT, 2},  {S_INT, 4},   {S_INT, 8},   /* d0 */
    {S_NONE, 0}, {S_NONE, 0}, {S_NONE, 0},  {S_NONE, 0},  /* d4: fixext */
    {S_NONE, 0}, {S_STR, 1},  {S_STR, 2},   {S_STR, 4},   /* d8: fixext 16 */
    {S_ARR, 2},  {S_ARR, 4},  {S_MAP, 2},   {S_MAP, 4},   /* dc */
};

static bool s_take_int(uint64_t raw, unsigned width, dkt_mp_token_t *token)
{
    uint64_t sign = UINT64_C(1) << (8 * width - 1);
    token->number = (raw ^ sign) - sign;
    token->kind = (raw & sign) ? DKT_MP_NEGATIVE : DKT_MP_UINT;
    return true;
}

static bool s_take_plain(dkt_mp_kind_t kind, uint64_t number, dkt_mp_token_t *token)
{
    token->kind = kind;
    token->number = number;
    return true;
}

/* A big-endian number of 0, 1, 2, 4 or 8 bytes that are there. */
static uint64_t s_take_big(dkt_mp_t *mp, unsigned width)
{
    const uint8_t *at = mp->at;
    uint16_t two;
    uint32_t four;
    uint64_t eight;
    mp->at += width;
    switch (width) {
    case 1:
        return *at;
    case sizeof two:
        memcpy(&two, at, sizeof two);
        return be16toh(two);
    case sizeof four:
        memcpy(&four, at, sizeof four);
        return be32toh(four);
    case sizeof eight:
        memcpy(&eight, at, sizeof eight);
        return be64toh(eight);
    default:
        return 0;
    }
}

bool dkt_mp_wide(dkt_mp_t *mp, uint8_t first, dkt_mp_token_t *token)
{
    if (first >= DKT_MP_NEGFIX) {
        return s_take_int(first, 1, token);
    }
    s_lead_t lead = s_leads[first - DKT_MP_LEADS];
    if (lead.width > dkt_mp_left(mp)) {
        return false;
    }
    uint64_t raw = s_take_big(mp, lead.width);
    switch ((s_form_t)lead.form) {
    case S_NIL:
        return s_take_plain(DKT_MP_NIL, 0, token);
    case S_FALSE:
        return s_take_plain(DKT_MP_FALSE, 0, token);
    case S_TRUE:
        return s_take_plain(DKT_MP_TRUE, 1, token);
    case S_UINT:
        return s_take_plain(DKT_MP_UINT, raw, token);
    case S_FLOAT:
        return s_take_plain(DKT_MP_FLOAT, raw, token);
    case S_INT:
        return s_take_int(raw, lead.width, token);
    case S_STR:
        return dkt_mp_take_view(mp, raw, DKT_MP_STR, token);
    case S_BIN:
        return dkt_mp_take_view(mp, raw, DKT_MP_BIN, token);
    case S_ARR:
        return dkt_mp_take_count(mp, raw, DKT_MP_ARRAY, token);
    case S_MAP:
        return dkt_mp_take_count(mp, raw, DKT_MP_MAP, token);
    case S_NONE:
        break;
    }
    return false;
}

/* -- text -------------------------------------------------------------------------------------- */

#define S_ONES  UINT64_C(0x0101010101010101)
#define S_HIGHS UINT64_C(0x8080808080808080)
#define S_WORD  8u  /* bytes looked at in one step */
#define S_BLOCK 32u /* or in one */

/* Eight bytes that are all ASCII and none of them NUL. */
static bool s_is_plain(uint64_t word)
{
    return ((word | (word - S_ONES)) & S_HIGHS) == 0;
}

static bool s_is_tail(uint8_t byte)
{
    return (byte & 0xc0) == 0x80;
}

/* Bytes of the sequence at `at`, 0 if it is not valid: no overlong form, no surrogate, nothing
 * above U+10FFFF. */
static unsigned s_sequence(const uint8_t *at, size_t left)
{
    uint8_t a = at[0];
    if (a < 0x80) {
        return a ? 1 : 0;
    }
    if (a >= 0xc2 && a <= 0xdf) {
        return left >= 2 && s_is_tail(at[1]) ? 2 : 0;
    }
    if (a >= 0xe0 && a <= 0xef) {
        if (left < 3 || !s_is_tail(at[1]) || !s_is_tail(at[2])) {
            return 0;
        }
        bool overlong = a == 0xe0 && at[1] < 0xa0;
        bool surrogate = a == 0xed && at[1] > 0x9f;
        return overlong || surrogate ? 0 : 3;
    }
    if (a >= 0xf0 && a <= 0xf4) {
        if (left < 4 || !s_is_tail(at[1]) || !s_is_tail(at[2]) || !s_is_tail(at[3])) {
            return 0;
        }
        bool overlong = a == 0xf0 && at[1] < 0x90;
        bool beyond = a == 0xf4 && at[1] > 0x8f;
        return overlong || beyond ? 0 : 4;
    }
    return 0;
}

static bool s_plain_at(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return s_is_plain(word);
}

/* The same for S_BLOCK bytes: most of a request is its token, which is long and ASCII. */
static bool s_plain_block(const uint8_t *bytes)
{
    uint64_t word[S_BLOCK / S_WORD], found = 0;
    memcpy(word, bytes, sizeof word);
    for (unsigned i = 0; i < S_BLOCK / S_WORD; i++) {
        found |= word[i] | (word[i] - S_ONES);
    }
    return (found & S_HIGHS) == 0;
}

/* The same for less than a word, which most keys and values are: two halves that overlap. */
static bool s_plain_short(const uint8_t *bytes, size_t len)
{
    uint32_t low, high;
    if (len >= sizeof low) {
        memcpy(&low, bytes, sizeof low);
        memcpy(&high, bytes + len - sizeof high, sizeof high);
        return s_is_plain((uint64_t)high << 32 | low);
    }
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] == 0 || bytes[i] >= 0x80) {
            return false;
        }
    }
    return true;
}

bool dkt_utf8_check(const uint8_t *bytes, size_t len)
{
    if (len < S_WORD && s_plain_short(bytes, len)) {
        return true;
    }
    size_t at = 0;
    while (at < len) {
        size_t left = len - at;
        if (left >= S_BLOCK && s_plain_block(bytes + at)) {
            at += S_BLOCK;
            continue;
        }
        if (left >= S_WORD && s_plain_at(bytes + at)) {
            at += S_WORD;
            continue;
        }
        /* the last word once more, with bytes before it that were seen already */
        if (left < S_WORD && len >= S_WORD && s_plain_at(bytes + len - S_WORD)) {
            return true;
        }
        unsigned step = s_sequence(bytes + at, left);
        if (step == 0) {
            return false;
        }
        at += step;
    }
    return true;
}

uint32_t dkt_utf8_chars(dkt_view_t text)
{
    uint32_t chars = 0;
    for (uint32_t i = 0; i < text.len; i++) {
        chars += !s_is_tail(text.data[i]);
    }
    return chars;
}

/* -- the check --------------------------------------------------------------------------------- */

/* One open container. */
typedef struct {
    bool is_map;
    bool key_next; /* the next token is a key of this map */
    uint32_t left; /* values (array) or pairs (map) not yet begun */
    uint32_t keys; /* keys seen */
    uint32_t print[DKT_MAP_KEYS_MAX];
    dkt_view_t key[DKT_MAP_KEYS_MAX];
} s_level_t;

typedef struct {
    unsigned depth;  /* open containers */
    unsigned around; /* those of them that were opened before, by somebody else */
    s_level_t levels[DKT_MSGPACK_DEPTH_MAX];
} s_stack_t;

static bool s_open(s_stack_t *stack, const dkt_mp_token_t *token)
{
    if (stack->depth == DKT_MSGPACK_DEPTH_MAX ||
        (token->kind == DKT_MP_MAP && token->count > DKT_MAP_KEYS_MAX)) {
        return false;
    }
    s_level_t *level = &stack->levels[stack->depth++];
    level->is_map = token->kind == DKT_MP_MAP;
    level->key_next = level->is_map;
    level->left = token->count;
    level->keys = 0;
    return true;
}

/* Length, first, middle and last byte: enough to tell the keys of an honest map apart, and of a
 * hostile one there are too few for the comparisons behind it to cost anything. */
static uint32_t s_print(dkt_view_t key)
{
    if (key.len == 0) {
        return 0;
    }
    return key.len | (uint32_t)key.data[0] << 8 | (uint32_t)key.data[key.len / 2] << 16 |
           (uint32_t)key.data[key.len - 1] << 24;
}

static bool s_take_key(s_level_t *level, const dkt_mp_token_t *token)
{
    if (token->kind != DKT_MP_STR) {
        return false;
    }
    uint32_t print = s_print(token->view);
    for (uint32_t i = 0; i < level->keys; i++) {
        if (level->print[i] == print && level->key[i].len == token->view.len &&
            memcmp(level->key[i].data, token->view.data, token->view.len) == 0) {
            return false;
        }
    }
    level->print[level->keys] = print;
    level->key[level->keys++] = token->view;
    level->key_next = false;
    return true;
}

/* The next token is the value of a pair or an element: it is counted before it is looked at. */
static void s_count_value(s_level_t *level)
{
    level->left--;
    level->key_next = level->is_map;
}

/* Takes one token of the value that is being checked; false if it must not stand there. */
static bool s_take(s_stack_t *stack, const dkt_mp_token_t *token)
{
    if (token->kind == DKT_MP_STR && !dkt_utf8_check(token->view.data, token->view.len)) {
        return false;
    }
    s_level_t *level = stack->depth > stack->around ? &stack->levels[stack->depth - 1] : NULL;
    if (level && level->key_next) {
        return s_take_key(level, token);
    }
    if (level) {
        s_count_value(level);
    }
    if ((token->kind == DKT_MP_ARRAY || token->kind == DKT_MP_MAP) && !s_open(stack, token)) {
        return false;
    }
    while (stack->depth > stack->around && stack->levels[stack->depth - 1].left == 0) {
        stack->depth--;
    }
    return true;
}

bool dkt_mp_check_value(dkt_mp_t *mp, unsigned around)
{
    s_stack_t stack;
    stack.depth = stack.around = around;
    do {
        dkt_mp_token_t token;
        if (!dkt_mp_next(mp, &token) || !s_take(&stack, &token)) {
            return false;
        }
    } while (stack.depth > around);
    return true;
}

bool dkt_msgpack_check(const uint8_t *bytes, size_t len)
{
    dkt_mp_t mp = {.at = bytes, .end = bytes + len};
    return len > 0 && dkt_mp_check_value(&mp, 0) && mp.at == mp.end;
}

/* -- for decoders that check while they read --------------------------------------------------- */

bool dkt_mp_take_stranger(dkt_mp_strangers_t *strangers, dkt_view_t key)
{
    for (uint32_t i = 0; i < strangers->count; i++) {
        if (strangers->keys[i].len == key.len &&
            memcmp(strangers->keys[i].data, key.data, key.len) == 0) {
            return false;
        }
    }
    if (strangers->count == DKT_MAP_KEYS_MAX) {
        return false;
    }
    strangers->keys[strangers->count++] = key;
    return dkt_utf8_check(key.data, key.len);
}
