/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/ids.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#define S_ROUNDS 2000

static const char s_alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static dkt_keyring_t s_ring(void)
{
    dkt_keyring_t ring = {.count = 2, .keys = {{.kid = 7}, {.kid = 3}}};
    memset(ring.keys[0].key, 0x11, DKT_KEY_BYTES);
    memset(ring.keys[1].key, 0x22, DKT_KEY_BYTES);
    return ring;
}

static dkt_keyring_t s_old_ring(void)
{
    dkt_keyring_t ring = s_ring();
    ring.keys[0] = ring.keys[1];
    ring.count = 1;
    return ring;
}

static dkt_client_t s_client(const dkt_keyring_t *ring)
{
    return dkt_client_make(ring, (const uint8_t *)"\x01\x02\x03\x04\x05\x06\x07");
}

static uint32_t s_len(const dkt_id_text_t *text)
{
    return (uint32_t)strlen(text->text);
}

static void test_ids_client_round_trip(void **state)
{
    (void)state;
    dkt_keyring_t ring = s_ring();
    dkt_client_t client = s_client(&ring);
    dkt_id_text_t text;
    dkt_client_text(&client, &text);
    assert_int_equal(s_len(&text), 19);
    assert_memory_equal(text.text, "cl_", 3);
    assert_int_equal(client.bytes[0], 7);
    dkt_client_t parsed;
    assert_true(dkt_client_parse(text.text, s_len(&text), &parsed));
    assert_true(dkt_client_equal(&client, &parsed));
    assert_true(dkt_client_verify(&ring, &parsed));
}

static void test_ids_client_seen_before_is_the_same(void **state)
{
    (void)state;
    static const char nothing[DKT_CLIENT_CHARS] = {0};
    dkt_keyring_t ring = s_ring();
    dkt_client_seen_t seen = {.any = false};
    dkt_vshard_seen_t vshard_seen = {.any = false};
    dkt_client_t none, parsed;
    assert_false(dkt_client_parse_seen(&seen, nothing, sizeof nothing, &none));
    assert_false(dkt_client_parse_seen(&seen, NULL, 0, &none));
    for (uint8_t i = 0; i < 9; i++) {
        uint8_t random[7] = {i % 3 % 2};
        dkt_client_t client = dkt_client_make(&ring, random);
        dkt_id_text_t text;
        dkt_client_text(&client, &text);
        assert_true(dkt_client_parse_seen(&seen, text.text, s_len(&text), &parsed));
        assert_true(dkt_client_equal(&client, &parsed));
        assert_int_equal(dkt_client_vshard_seen(&vshard_seen, &parsed), dkt_client_vshard(&client));
        assert_false(dkt_client_parse_seen(&seen, text.text, s_len(&text) - 1, &none));
        assert_false(dkt_client_parse_seen(&seen, nothing, sizeof nothing, &none));
    }
}

/* The bytes are a promise: ids given out live as long as their tickets. */
static void test_ids_golden_texts(void **state)
{
    (void)state;
    dkt_keyring_t ring = s_ring();
    dkt_client_t client = s_client(&ring);
    dkt_slot_ref_t slot = {.client = client,
                           .minute = 29903000,
                           .class_index = 2,
                           .expires_ms = 1794180030000,
                           .nonce = (UINT64_C(5) << 32) + 9};
    dkt_id_text_t text;
    dkt_client_text(&client, &text);
    assert_string_equal(text.text, "cl_BwECAwQFBgf9MQDy");
    dkt_ticket_text(&ring, &client, 42, &text);
    assert_string_equal(text.text, "tk_BwcBAgMEBQYH_TEA8ioAAAAAAAAAPYMFdSMswpg");
    dkt_slot_text(&ring, &slot, &text);
    assert_string_equal(text.text, "sl_BwcBAgMEBQYH_TEA8phIyAECMJ52vaEBCQAAAAUAAAAaOEZxJAzI1w");
    assert_int_equal(dkt_client_vshard(&client), 2918);
}

static void test_ids_ticket_round_trip(void **state)
{
    (void)state;
    dkt_keyring_t ring = s_ring();
    dkt_client_t client = s_client(&ring);
    static const uint64_t numbers[] = {0, 1, 255, 256, UINT64_C(1) << 62, UINT64_MAX};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        dkt_id_text_t text;
        dkt_ticket_text(&ring, &client, numbers[i], &text);
        assert_int_equal(s_len(&text), 42);
        dkt_client_t owner;
        uint64_t number;
        assert_true(dkt_ticket_parse(&ring, text.text, s_len(&text), &owner, &number));
        assert_true(dkt_client_equal(&client, &owner));
        assert_true(number == numbers[i]);
        memset(&owner, 0, sizeof owner);
        assert_true(dkt_id_client(text.text, s_len(&text), &owner));
        assert_true(dkt_client_equal(&client, &owner));
    }
}

static void test_ids_slot_round_trip(void **state)
{
    (void)state;
    dkt_keyring_t ring = s_ring();
    dkt_slot_ref_t slot = {.client = s_client(&ring),
                           .minute = UINT32_MAX,
                           .class_index = 255,
                           .expires_ms = (INT64_C(1) << 48) - 1,
                           .nonce = DKT_NONCE_DERIVED | 77};
    dkt_id_text_t text;
    dkt_slot_text(&ring, &slot, &text);
    assert_int_equal(s_len(&text), 57);
    dkt_slot_ref_t parsed;
    assert_true(dkt_slot_parse(&ring, text.text, s_len(&text), &parsed));
    assert_true(dkt_client_equal(&parsed.client, &slot.client));
    assert_int_equal(parsed.minute, slot.minute);
    assert_int_equal(parsed.class_index, slot.class_index);
    assert_true(parsed.expires_ms == slot.expires_ms);
    assert_true(parsed.nonce == slot.nonce);
    dkt_client_t owner;
    assert_true(dkt_id_client(text.text, s_len(&text), &owner));
    assert_true(dkt_client_equal(&owner, &slot.client));
}

/* Every other byte in every place, of all three kinds: none may be taken. That covers forged
 * tags, other clients and the unused low bits of the last character. */
static void test_ids_any_changed_byte_is_refused(void **state)
{
    (void)state;
    dkt_keyring_t ring = s_ring();
    dkt_client_t client = s_client(&ring);
    dkt_slot_ref_t slot = {.client = client, .minute = 1, .expires_ms = 2, .nonce = 3};
    dkt_id_text_t texts[3];
    dkt_client_text(&client, &texts[0]);
    dkt_ticket_text(&ring, &client, 5, &texts[1]);
    dkt_slot_text(&ring, &slot, &texts[2]);
    for (unsigned kind = 0; kind < 3; kind++) {
        uint32_t len = s_len(&texts[kind]);
        for (uint32_t at = 0; at < len; at++) {
            for (unsigned byte = 0; byte < 256; byte++) {
                dkt_id_text_t changed = texts[kind];
                if (changed.text[at] == (char)byte) {
                    continue;
                }
                changed.text[at] = (char)byte;
                dkt_client_t owner;
                uint64_t number;
                dkt_slot_ref_t ref;
                bool taken = dkt_ticket_parse(&ring, changed.text, len, &owner, &number) ||
                             dkt_slot_parse(&ring, changed.text, len, &ref) ||
                             (dkt_client_parse(changed.text, len, &owner) &&
                              dkt_client_verify(&ring, &owner));
                assert_false(taken);
            }
        }
    }
}

static void test_ids_text_that_is_not_canonical_does_not_route(void **state)
{
    (void)state;
    dkt_keyring_t ring = s_ring();
    dkt_client_t client = s_client(&ring);
    dkt_id_text_t text;
    dkt_ticket_text(&ring, &client, 5, &text);
    uint32_t len = s_len(&text);
    const char *last = strchr(s_alphabet, text.text[len - 1]);
    assert_non_null(last);
    dkt_client_t owner;
    for (unsigned low = 1; low < 4; low++) { /* 29 bytes leave 2 bits unused */
        dkt_id_text_t other = text;
        other.text[len - 1] = last[low];
        assert_false(dkt_id_client(other.text, len, &owner));
    }
    dkt_id_text_t odd = text;
    odd.text[10] = '=';
    assert_false(dkt_id_client(odd.text, len, &owner));
    odd.text[10] = '+';
    assert_false(dkt_id_client(odd.text, len, &owner));
    odd.text[10] = ' ';
    assert_false(dkt_id_client(odd.text, len, &owner));
    odd.text[10] = '\0';
    assert_false(dkt_id_client(odd.text, len, &owner));
    assert_false(dkt_id_client(text.text, len - 1, &owner));
    assert_false(dkt_id_client(text.text, 0, &owner));
    assert_false(dkt_id_client(NULL, 0, &owner));
}

static void test_ids_kinds_are_not_mixed(void **state)
{
    (void)state;
    dkt_keyring_t ring = s_ring();
    dkt_client_t client = s_client(&ring);
    dkt_id_text_t text;
    dkt_ticket_text(&ring, &client, 5, &text);
    memcpy(text.text, "sl_", 3);
    dkt_client_t owner;
    dkt_slot_ref_t ref;
    uint64_t number;
    assert_false(dkt_id_client(text.text, s_len(&text), &owner));
    assert_false(dkt_slot_parse(&ring, text.text, s_len(&text), &ref));
    memcpy(text.text, "cl_", 3);
    assert_false(dkt_client_parse(text.text, s_len(&text), &owner));
    dkt_client_text(&client, &text);
    assert_false(dkt_ticket_parse(&ring, text.text, s_len(&text), &owner, &number));
    assert_false(dkt_id_client(text.text, s_len(&text), &owner));
}

static void test_ids_keys_rotate(void **state)
{
    (void)state;
    dkt_keyring_t ring = s_ring();
    dkt_keyring_t old = s_old_ring();
    dkt_client_t client = s_client(&old);
    dkt_id_text_t text;
    dkt_client_t owner;
    uint64_t number;
    assert_true(dkt_client_verify(&ring, &client));
    dkt_ticket_text(&old, &client, 9, &text);
    assert_true(dkt_ticket_parse(&ring, text.text, s_len(&text), &owner, &number));
    dkt_ticket_text(&ring, &client, 9, &text);
    assert_false(dkt_ticket_parse(&old, text.text, s_len(&text), &owner, &number));
    dkt_client_t newer = s_client(&ring);
    assert_false(dkt_client_verify(&old, &newer));
}

/* Ids of random clients spread over the shards: none gets four times its share. */
static void test_ids_vshards_spread(void **state)
{
    (void)state;
    dkt_keyring_t ring = s_ring();
    unsigned counts[16] = {0};
    for (unsigned i = 0; i < S_ROUNDS; i++) {
        uint8_t random[7] = {(uint8_t)i, (uint8_t)(i >> 8)};
        dkt_client_t client = dkt_client_make(&ring, random);
        uint16_t vshard = dkt_client_vshard(&client);
        assert_true(vshard < DKT_VSHARDS);
        counts[vshard / (DKT_VSHARDS / 16)]++;
    }
    for (unsigned i = 0; i < 16; i++) {
        assert_in_range(counts[i], S_ROUNDS / 32, S_ROUNDS / 8);
    }
}

static void test_ids_uuid_text(void **state)
{
    (void)state;
    static const char lower[] = "0190a5d3-1c2b-7def-8123-456789abcdef";
    static const char upper[] = "0190A5D3-1C2B-7DEF-8123-456789ABCDEF";
    dkt_uuid_t a, b;
    char text[37];
    assert_true(dkt_uuid_parse(lower, 36, &a));
    assert_true(dkt_uuid_parse(upper, 36, &b));
    assert_memory_equal(a.bytes, b.bytes, DKT_UUID_BYTES);
    dkt_uuid_text(&b, text);
    assert_string_equal(text, lower);
    assert_false(dkt_uuid_parse(lower, 35, &a));
    assert_false(dkt_uuid_parse(NULL, 36, &a));
    for (unsigned i = 0; i < 36; i++) {
        char wrong[37];
        memcpy(wrong, lower, sizeof wrong);
        wrong[i] = lower[i] == '-' ? '0' : 'g';
        assert_false(dkt_uuid_parse(wrong, 36, &a));
    }
}

static void test_ids_uuid_v7(void **state)
{
    (void)state;
    static const uint8_t ones[10] = {255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
    dkt_uuid_t uuid = dkt_uuid_v7(0x0190a5d31c2b, ones);
    char text[37];
    dkt_uuid_text(&uuid, text);
    assert_string_equal(text, "0190a5d3-1c2b-7fff-bfff-ffffffffffff");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids_client_round_trip),
        cmocka_unit_test(test_ids_client_seen_before_is_the_same),
        cmocka_unit_test(test_ids_golden_texts),
        cmocka_unit_test(test_ids_ticket_round_trip),
        cmocka_unit_test(test_ids_slot_round_trip),
        cmocka_unit_test(test_ids_any_changed_byte_is_refused),
        cmocka_unit_test(test_ids_text_that_is_not_canonical_does_not_route),
        cmocka_unit_test(test_ids_kinds_are_not_mixed),
        cmocka_unit_test(test_ids_keys_rotate),
        cmocka_unit_test(test_ids_vshards_spread),
        cmocka_unit_test(test_ids_uuid_text),
        cmocka_unit_test(test_ids_uuid_v7),
    };
    return cmocka_run_group_tests_name("ids", tests, NULL, NULL);
}
