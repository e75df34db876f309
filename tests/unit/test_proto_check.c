/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/proto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "lib/core/proto_mp.h"
#include "tests/unit/support_message.h"

typedef struct {
    const char *why;
    const char *hex;
    bool taken;
} s_case_t;

static const s_case_t s_cases[] = {
    {"nothing", "", false},
    {"nil", "c0", true},
    {"reserved byte", "c1", false},
    {"two values", "c0c0", false},
    {"booleans, ints and floats of every width",
     "dc0010"
     "c2"
     "c3"
     "00"
     "7f"
     "ff"
     "e0"
     "ccff"
     "cdffff"
     "ceffffffff"
     "cfffffffffffffffff"
     "d080"
     "d18000"
     "d280000000"
     "d38000000000000000"
     "ca3fc00000"
     "cb3ff8000000000000",
     true},
    {"uint8 cut", "cc", false},
    {"uint64 cut", "cf00000000000000", false},
    {"float32 cut", "ca000000", false},
    {"fixstr", "a161", true},
    {"fixstr cut", "a261", false},
    {"str8", "d90161", true},
    {"str16 longer than the rest", "da000261", false},
    {"str32 of 4 GiB", "dbffffffff61", false},
    {"str length cut", "db000000", false},
    {"bin8", "c4021234", true},
    {"bin16 longer than the rest", "c5ffff00", false},
    {"bin32 of 4 GiB", "c6ffffffff", false},
    {"bin holds anything", "c403ff00c0", true},
    {"array of 2 with 1", "9201", false},
    {"array16", "dc000101", true},
    {"array32 of 2^32 - 1", "ddffffffff", false},
    {"array32 of 2^32 - 1 and some", "ddffffffff0102030405060708", false},
    {"map of 1", "81a16101", true},
    {"map without its value", "81a161", false},
    {"map32 of 2^31", "df80000000a16101", false},
    {"map key is an int", "810102", false},
    {"map key is bin", "81c4016102", false},
    {"map key is nil", "81c002", false},
    {"map key is an array", "819002", false},
    {"map key is the empty text", "81a002", true},
    {"the same key twice", "82a16101a16102", false},
    {"the same key twice, in two encodings", "82a16101d9016102", false},
    {"the empty key twice", "82a001a002", false},
    {"the same key in two maps", "9281a1610181a16101", true},
    {"the same key inside and outside", "82a16181a16101a16202", true},
    {"the outer key again behind an inner map", "82a16181a16201a16102", false},
    {"fixext 1", "d40100", false},
    {"fixext 16",
     "d801"
     "00000000000000000000000000000000",
     false},
    {"ext 8", "c7010100", false},
    {"timestamp", "d6ff00000000", false},
    {"depth 4", "91919190", true},
    {"depth 5", "9191919190", false},
    {"depth 4 of maps", "81a16181a16181a16180", true},
    {"depth 5 of maps", "81a16181a16181a16181a16180", false},
    {"depth 4 twice", "929191909190", true},
    {"text of 2, 3 and 4 bytes a character", "a9c3a9e282acf09f94a5", true},
    {"U+0000", "a3610062", false},
    {"U+0000 in a long text", "aa61616161616161610061", false},
    {"lonely tail byte", "a180", false},
    {"overlong slash", "a2c0af", false},
    {"overlong U+0000", "a2c080", false},
    {"overlong of 3", "a3e08080", false},
    {"overlong of 4", "a4f0808080", false},
    {"surrogate", "a3eda080", false},
    {"last before the surrogates", "a3ed9fbf", true},
    {"U+10FFFF", "a4f48fbfbf", true},
    {"beyond U+10FFFF", "a4f4908080", false},
    {"f5", "a4f5808080", false},
    {"character cut at 2", "a1c3", false},
    {"character cut at 3", "a2e282", false},
    {"character cut at 4", "a3f09f94", false},
    {"tail missing behind 8 plain bytes", "a96161616161616161c3", false},
};

static void test_proto_check_cases(void **state)
{
    (void)state;
    unsigned wrong = 0;
    for (size_t i = 0; i < sizeof s_cases / sizeof s_cases[0]; i++) {
        uint8_t bytes[128];
        size_t len = message_from_hex(s_cases[i].hex, bytes, sizeof bytes);
        if (dkt_msgpack_check(bytes, len) != s_cases[i].taken) {
            print_error("%s: %s\n", s_cases[i].why, s_cases[i].taken ? "refused" : "taken");
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

/* Frames with room for one pair: the decoders check in a pass of their own, and must refuse what
 * dkt_msgpack_check refuses. `key` NULL: the case stands where the key does. */
static const struct {
    const char *why, *frame, *key;
    bool answer, any; /* `any`: nothing else can be wrong with the value, so that both agree */
} s_places[] = {
    {"a stranger's value", "940009a470696e679181", "a161", false, true},
    {"a known parameter, not of this method", "940009a470696e679181", "a77061796c6f6164", false,
     true},
    {"a parameter of this method", "940009a56c6f67696e9181", "a870617373776f7264", false, false},
    {"a parameter", "940009ad6372656174655f7469636b65749181", "a77061796c6f6164", false, true},
    {"of an unknown method", "940009a4706f6e679181", "a77061796c6f6164", false, true},
    {"a key", "940009a470696e679181", NULL, false, false},
    {"an unknown value of a result", "940109c081", "a161", true, true},
    {"a known value of a result", "940109c081", "a6737461747573", true, false},
    {"a key of a result", "940109c081", NULL, true, false},
    {"a value of an error", "94010982a4636f6465a161", "a161", true, false},
};

static bool s_decodes(bool answer, const uint8_t *bytes, size_t len)
{
    dkt_err_t err;
    dkt_answer_t decoded;
    dkt_request_t request;
    return answer ? dkt_answer_decode(bytes, len, &decoded, &err) == DKT_OK
                  : dkt_request_decode(bytes, len, &request, &err) != DKT_MALFORMED;
}

static void test_proto_check_decoders_ask_for_the_same(void **state)
{
    (void)state;
    for (size_t p = 0; p < sizeof s_places / sizeof s_places[0]; p++) {
        for (size_t i = 0; i < sizeof s_cases / sizeof s_cases[0]; i++) {
            char hex[512];
            uint8_t bytes[256];
            snprintf(hex, sizeof hex, "%s%s%s%s", s_places[p].frame,
                     s_places[p].key ? s_places[p].key : "", s_cases[i].hex,
                     s_places[p].key ? "" : "01");
            size_t len = message_from_hex(hex, bytes, sizeof bytes);
            bool taken = dkt_msgpack_check(bytes, len);
            bool decoded = s_decodes(s_places[p].answer, bytes, len);
            if (s_places[p].any ? decoded != taken : decoded && !taken) {
                fail_msg("%s as %s: decoded %d", s_cases[i].why, s_places[p].why, decoded);
            }
        }
    }
}

/* The maps behind these heads have two pairs. */
static void test_proto_check_decoders_take_a_key_once(void **state)
{
    (void)state;
    static const char *const heads[] = {"940009a470696e679182", "940109c082", "94010982"};
    static const char *const keys[] = {"a17a", "a0", "a5746f6b656e", "d905746f6b656e",
                                       "a6737461747573"};
    for (size_t h = 0; h < sizeof heads / sizeof heads[0]; h++) {
        for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
            for (size_t other = 0; other < sizeof keys / sizeof keys[0]; other++) {
                char hex[256];
                uint8_t bytes[128];
                snprintf(hex, sizeof hex, "%s%sa161%sa162", heads[h], keys[k], keys[other]);
                size_t len = message_from_hex(hex, bytes, sizeof bytes);
                bool taken = dkt_msgpack_check(bytes, len);
                bool is_error = h == 2; /* without its code it is none, whatever its keys */
                assert_int_equal(s_decodes(h > 0, bytes, len), taken && !is_error);
            }
        }
    }
}

/* Every text of up to 4 bytes out of the bytes that matter, against a naive decoder. */
static bool s_naive_utf8(const uint8_t *bytes, size_t len)
{
    static const uint32_t least[] = {0, 1, 0x80, 0x800, 0x10000};
    for (size_t at = 0; at < len;) {
        unsigned need = bytes[at] < 0x80 ? 1 : 0;
        need = (bytes[at] & 0xe0) == 0xc0 ? 2 : need;
        need = (bytes[at] & 0xf0) == 0xe0 ? 3 : need;
        need = (bytes[at] & 0xf8) == 0xf0 ? 4 : need;
        if (need == 0 || at + need > len) {
            return false;
        }
        uint32_t code = need == 1 ? bytes[at] : bytes[at] & (0x7fu >> need);
        for (unsigned i = 1; i < need; i++) {
            if ((bytes[at + i] & 0xc0) != 0x80) {
                return false;
            }
            code = code << 6 | (bytes[at + i] & 0x3f);
        }
        if (code < least[need] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
            return false;
        }
        at += need;
    }
    return true;
}

static void test_proto_check_text_is_exactly_utf8(void **state)
{
    (void)state;
    static const uint8_t edges[] = {0x00, 0x01, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                    0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee,
                                    0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf8, 0xff};
    const size_t n = sizeof edges;
    for (size_t i = 0; i < n * n * n * n; i++) {
        const uint8_t text[4] = {edges[i % n], edges[i / n % n], edges[i / n / n % n],
                                 edges[i / n / n / n]};
        for (size_t len = 1; len <= sizeof text; len++) {
            assert_int_equal(dkt_utf8_check(text, len), s_naive_utf8(text, len));
        }
    }
}

static void test_proto_check_keys_of_one_map(void **state)
{
    (void)state;
    static uint8_t bytes[DKT_FRAME_BYTES_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    message_write_text(&w, "{\"$pairs\": 128}");
    assert_true(dkt_msgpack_check(bytes, w.len));
    w = dkt_w_init(bytes, sizeof bytes);
    message_write_text(&w, "{\"$pairs\": 129}");
    assert_false(dkt_msgpack_check(bytes, w.len));
}

/* The reader takes every integer by value, whatever its width. */
static void test_proto_check_integers_by_value(void **state)
{
    (void)state;
    static const struct {
        const char *hex;
        dkt_mp_kind_t kind;
        int64_t value;
    } rows[] = {
        {"05", DKT_MP_UINT, 5},
        {"cc05", DKT_MP_UINT, 5},
        {"d3"
         "0000000000000005",
         DKT_MP_UINT, 5},
        {"d005", DKT_MP_UINT, 5},
        {"ff", DKT_MP_NEGATIVE, -1},
        {"d0ff", DKT_MP_NEGATIVE, -1},
        {"d1ff7f", DKT_MP_NEGATIVE, -129},
        {"d280000000", DKT_MP_NEGATIVE, INT32_MIN},
        {"d38000000000000000", DKT_MP_NEGATIVE, INT64_MIN},
        {"e0", DKT_MP_NEGATIVE, -32},
        {"cf7fffffffffffffff", DKT_MP_UINT, INT64_MAX},
        {"d17fff", DKT_MP_UINT, 32767},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t bytes[16];
        size_t len = message_from_hex(rows[i].hex, bytes, sizeof bytes);
        dkt_mp_t mp = {bytes, bytes + len};
        dkt_mp_token_t token;
        assert_true(dkt_mp_next(&mp, &token));
        assert_int_equal(token.kind, rows[i].kind);
        assert_true((int64_t)token.number == rows[i].value);
        assert_ptr_equal(mp.at, mp.end);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_proto_check_cases),
        cmocka_unit_test(test_proto_check_decoders_ask_for_the_same),
        cmocka_unit_test(test_proto_check_decoders_take_a_key_once),
        cmocka_unit_test(test_proto_check_text_is_exactly_utf8),
        cmocka_unit_test(test_proto_check_keys_of_one_map),
        cmocka_unit_test(test_proto_check_integers_by_value),
    };
    return cmocka_run_group_tests_name("proto_check", tests, NULL, NULL);
}
