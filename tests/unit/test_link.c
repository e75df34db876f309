/* SPDX-License-Identifier: Apache-2.0
 *
 * The link codec: what is written is read back, and no bytes of a peer can hurt the reader.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/core/link.h"
#include "support_random.h"

#define S_BUFFER_BYTES 65536
#define S_FLIPS        20000

static uint8_t s_buffer[S_BUFFER_BYTES];
static const dkt_table_version_t s_version = {.epoch = 7, .version = UINT64_C(0x1122334455667788)};
static const dkt_incarnation_t s_sender = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

static dkt_link_request_t s_make_request(void)
{
    dkt_link_request_t request = {.seq = UINT64_C(0xfedcba9876543210),
                                  .budget_left_ms = 5000,
                                  .origin = DKT_AUDIENCE_PUBLIC,
                                  .method = DKT_METHOD_CREATE_TICKET,
                                  .vshard = 4095,
                                  .token_issued_ms = -1,
                                  .token_expires_ms = 1700000000000,
                                  .body = {(const uint8_t *)"body", 4}};
    memset(request.token_id, 0xab, sizeof request.token_id);
    return request;
}

static dkt_w_t s_write_requests(uint16_t count)
{
    dkt_w_t w = dkt_w_init(s_buffer, sizeof s_buffer);
    dkt_link_request_t request = s_make_request();
    dkt_link_begin(&w, DKT_LINK_REQUESTS, s_version, &s_sender);
    for (uint16_t i = 0; i < count; i++) {
        dkt_link_put_request(&w, &request);
    }
    dkt_link_finish(&w, count);
    return w;
}

static dkt_w_t s_write_answers(void)
{
    dkt_w_t w = dkt_w_init(s_buffer, sizeof s_buffer);
    dkt_link_begin(&w, DKT_LINK_ANSWERS, s_version, &s_sender);
    dkt_link_put_answer(&w, &(dkt_link_answer_t){3, DKT_OUTCOME_ANSWER, {(const uint8_t *)"x", 1}});
    dkt_link_put_answer(&w, &(dkt_link_answer_t){4, DKT_OUTCOME_MOVED, {NULL, 0}});
    dkt_link_finish(&w, 2);
    return w;
}

static void s_fill_table(dkt_table_t *table)
{
    memset(table, 0, sizeof *table);
    table->version = s_version;
    table->member_count = 3;
    for (uint16_t i = 0; i < 3; i++) {
        memset(table->members[i].bytes, i + 1, DKT_INCARNATION_BYTES);
    }
    for (uint16_t v = 0; v < DKT_VSHARDS; v++) {
        table->owner[v] = v % 4 == 3 ? DKT_VSHARD_NOBODY : v % 4;
    }
    table->key_count = 2;
    table->keys[1].kid = 99;
    memset(table->keys[1].public_key, 5, sizeof table->keys[1].public_key);
}

static dkt_w_t s_write_table(void)
{
    dkt_table_t table;
    s_fill_table(&table);
    dkt_w_t w = dkt_w_init(s_buffer, sizeof s_buffer);
    dkt_link_begin(&w, DKT_LINK_TABLE, s_version, &s_sender);
    dkt_link_put_table(&w, &table);
    dkt_link_finish(&w, 1);
    return w;
}

static dkt_w_t s_write_hello(void)
{
    dkt_w_t w = dkt_w_init(s_buffer, sizeof s_buffer);
    dkt_link_begin(&w, DKT_LINK_HELLO, s_version, &s_sender);
    dkt_link_put_node(&w, "node-1");
    dkt_link_finish(&w, 1);
    return w;
}

static dkt_w_t s_write_pull(void)
{
    dkt_link_pull_t pull = {.epoch = 7, .seq = 9, .hash = 11, .after = "cl_B2NsaWVudGlkdGFn"};
    dkt_w_t w = dkt_w_init(s_buffer, sizeof s_buffer);
    dkt_link_begin(&w, DKT_LINK_CONTEXT_PULL, s_version, &s_sender);
    dkt_link_put_pull(&w, &pull);
    dkt_link_finish(&w, 1);
    return w;
}

static dkt_w_t s_write_chunk(void)
{
    dkt_link_chunk_t chunk = {
        .epoch = 7, .seq = 9, .hash = 11, .last = true, .table = {(const uint8_t *)"table", 5}};
    dkt_w_t w = dkt_w_init(s_buffer, sizeof s_buffer);
    dkt_link_begin(&w, DKT_LINK_CONTEXT, s_version, &s_sender);
    dkt_link_put_chunk(&w, &chunk);
    dkt_link_put_view(&w, (dkt_view_t){(const uint8_t *)"record", 6});
    dkt_link_put_view(&w, (dkt_view_t){(const uint8_t *)"another", 7});
    dkt_link_finish(&w, 2);
    return w;
}

/* Reads a whole message of any kind; true if every record and the end were right. */
static bool s_read_all(const uint8_t *data, size_t len)
{
    dkt_r_t r;
    dkt_link_header_t header;
    if (!dkt_link_open(&r, data, len, &header)) {
        return false;
    }
    static dkt_table_t table;
    dkt_link_request_t request;
    dkt_link_answer_t answer;
    dkt_link_pull_t pull;
    dkt_link_chunk_t chunk;
    dkt_view_t view;
    char node[64];
    bool ok = header.kind != DKT_LINK_CONTEXT || dkt_link_get_chunk(&r, &chunk);
    for (uint16_t i = 0; ok && i < header.count; i++) {
        switch (header.kind) {
        case DKT_LINK_REQUESTS:
            ok = dkt_link_get_request(&r, &request);
            break;
        case DKT_LINK_ANSWERS:
            ok = dkt_link_get_answer(&r, &answer);
            break;
        case DKT_LINK_TABLE:
            ok = dkt_link_get_table(&r, &table);
            break;
        case DKT_LINK_CONTEXT_PULL:
            ok = dkt_link_get_pull(&r, &pull);
            break;
        case DKT_LINK_CONTEXT:
            ok = dkt_link_get_view(&r, &view);
            break;
        default:
            ok = dkt_link_get_node(&r, node, sizeof node);
        }
    }
    return ok && dkt_link_end(&r);
}

static void test_link_header_round_trip(void **state)
{
    (void)state;
    dkt_w_t w = s_write_requests(3);
    assert_false(w.failed);
    dkt_r_t r;
    dkt_link_header_t header;
    assert_true(dkt_link_open(&r, w.data, w.len, &header));
    assert_int_equal(header.kind, DKT_LINK_REQUESTS);
    assert_int_equal(header.count, 3);
    assert_int_equal(header.table.epoch, 7);
    assert_true(header.table.version == s_version.version);
    assert_memory_equal(header.sender.bytes, s_sender.bytes, DKT_INCARNATION_BYTES);
}

static void test_link_header_golden(void **state)
{
    (void)state;
    dkt_w_t w = s_write_hello();
    static const uint8_t golden[] = {1,  1,  1,  0,  0,    0,    0,    0,    7,    0,    0,    0,
                                     0,  0,  0,  0,  0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
                                     1,  2,  3,  4,  5,    6,    7,    8,    9,    10,   11,   12,
                                     13, 14, 15, 16, 6,    0,    'n',  'o',  'd',  'e',  '-',  '1'};
    assert_int_equal(w.len, sizeof golden);
    assert_memory_equal(w.data, golden, sizeof golden);
}

static void test_link_request_round_trip(void **state)
{
    (void)state;
    dkt_link_request_t want = s_make_request();
    dkt_w_t w = s_write_requests(1);
    assert_int_equal(w.len, DKT_LINK_HEADER_BYTES + dkt_link_request_bytes(&want));
    dkt_r_t r;
    dkt_link_header_t header;
    dkt_link_request_t got;
    assert_true(dkt_link_open(&r, w.data, w.len, &header));
    assert_true(dkt_link_get_request(&r, &got));
    assert_true(dkt_link_end(&r));
    assert_true(got.seq == want.seq && got.budget_left_ms == want.budget_left_ms);
    assert_int_equal(got.origin, want.origin);
    assert_int_equal(got.method, want.method);
    assert_int_equal(got.vshard, want.vshard);
    assert_memory_equal(got.token_id, want.token_id, sizeof got.token_id);
    assert_true(got.token_issued_ms == -1 && got.token_expires_ms == 1700000000000);
    assert_int_equal(got.body.len, 4);
    assert_memory_equal(got.body.data, "body", 4);
}

static void test_link_answer_round_trip(void **state)
{
    (void)state;
    dkt_w_t w = s_write_answers();
    dkt_r_t r;
    dkt_link_header_t header;
    dkt_link_answer_t answer;
    assert_true(dkt_link_open(&r, w.data, w.len, &header));
    assert_true(dkt_link_get_answer(&r, &answer));
    assert_int_equal(answer.seq, 3);
    assert_int_equal(answer.outcome, DKT_OUTCOME_ANSWER);
    assert_memory_equal(answer.body.data, "x", 1);
    assert_false(dkt_link_end(&r));
    assert_true(dkt_link_get_answer(&r, &answer));
    assert_int_equal(answer.outcome, DKT_OUTCOME_MOVED);
    assert_int_equal(answer.body.len, 0);
    assert_true(dkt_link_end(&r));
    assert_false(dkt_link_get_answer(&r, &answer));
    assert_false(dkt_link_end(&r));
}

static void test_link_table_round_trip(void **state)
{
    (void)state;
    static dkt_table_t want, got;
    s_fill_table(&want);
    dkt_w_t w = s_write_table();
    dkt_r_t r;
    dkt_link_header_t header;
    memset(&got, 0, sizeof got);
    assert_true(dkt_link_open(&r, w.data, w.len, &header));
    assert_true(dkt_link_get_table(&r, &got));
    assert_true(dkt_link_end(&r));
    assert_memory_equal(&got.version, &want.version, sizeof got.version);
    assert_int_equal(got.member_count, want.member_count);
    assert_memory_equal(got.members, want.members, 3 * sizeof *got.members);
    assert_memory_equal(got.owner, want.owner, sizeof got.owner);
    assert_int_equal(got.key_count, 2);
    assert_int_equal(got.keys[1].kid, 99);
    assert_memory_equal(got.keys[1].public_key, want.keys[1].public_key, 32);
}

static void test_link_context_round_trip(void **state)
{
    (void)state;
    dkt_r_t r;
    dkt_link_header_t header;
    dkt_link_pull_t pull;
    dkt_link_chunk_t chunk;
    dkt_view_t first, second;
    dkt_w_t w = s_write_pull();
    assert_true(dkt_link_open(&r, w.data, w.len, &header) && dkt_link_get_pull(&r, &pull));
    assert_true(dkt_link_end(&r));
    assert_true(pull.epoch == 7 && pull.seq == 9 && pull.hash == 11);
    assert_string_equal(pull.after, "cl_B2NsaWVudGlkdGFn");
    w = s_write_chunk();
    assert_true(dkt_link_open(&r, w.data, w.len, &header) && dkt_link_get_chunk(&r, &chunk));
    assert_true(dkt_link_get_view(&r, &first) && dkt_link_get_view(&r, &second));
    assert_true(dkt_link_end(&r));
    assert_true(chunk.epoch == 7 && chunk.seq == 9 && chunk.hash == 11);
    assert_true(chunk.last && !chunk.same);
    assert_memory_equal(chunk.table.data, "table", chunk.table.len);
    assert_memory_equal(first.data, "record", first.len);
    assert_memory_equal(second.data, "another", second.len);
}

static void test_link_node_too_long_is_refused(void **state)
{
    (void)state;
    dkt_w_t w = s_write_hello();
    dkt_r_t r;
    dkt_link_header_t header;
    char node[7];
    assert_true(dkt_link_open(&r, w.data, w.len, &header));
    assert_true(dkt_link_get_node(&r, node, sizeof node));
    assert_string_equal(node, "node-1");
    assert_true(dkt_link_open(&r, w.data, w.len, &header));
    assert_false(dkt_link_get_node(&r, node, sizeof node - 1));
}

static void test_link_writer_stops_when_full(void **state)
{
    (void)state;
    dkt_link_request_t request = s_make_request();
    size_t need = DKT_LINK_HEADER_BYTES + dkt_link_request_bytes(&request);
    for (size_t max = 0; max <= need; max++) {
        uint8_t *exact = malloc(max ? max : 1);
        dkt_w_t w = dkt_w_init(exact, max);
        dkt_link_begin(&w, DKT_LINK_REQUESTS, s_version, &s_sender);
        dkt_link_put_request(&w, &request);
        dkt_link_finish(&w, 1);
        assert_int_equal(w.failed, max < need);
        free(exact);
    }
}

static void test_link_wrong_fields_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        size_t at;
        uint8_t value;
    } rows[] = {
        {"version", 0, 2},
        {"kind 0", 1, 0},
        {"kind 6", 1, 6},
        {"reserved", 4, 1},
        {"origin", 40 + 12, 3},
        {"origin 0", 40 + 12, 0},
        {"method", 40 + 13, DKT_METHOD_COUNT},
        {"vshard", 40 + 15, 0x10},
        {"length", 40 + 48, 5},
        {"left over", 40 + 48, 3},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        dkt_w_t w = s_write_requests(1);
        assert_true(s_read_all(w.data, w.len));
        w.data[rows[i].at] = rows[i].value;
        if (s_read_all(w.data, w.len)) {
            fail_msg("accepted: wrong %s", rows[i].what);
        }
    }
    dkt_w_t w = s_write_table();
    w.data[40 + 16 + 4 + 3 * 16] = 3; /* the owner of vshard 0 is not a member */
    assert_false(s_read_all(w.data, w.len));
}

typedef dkt_w_t(s_writer_fn)(void);

static dkt_w_t s_write_three(void)
{
    return s_write_requests(3);
}

static s_writer_fn *const s_writers[] = {s_write_three, s_write_answers, s_write_table,
                                         s_write_hello, s_write_pull,    s_write_chunk};

/* Each copy lies in a block of its exact size, so that a sanitizer sees one byte too many. */
static void test_link_every_truncation_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof s_writers / sizeof *s_writers; i++) {
        dkt_w_t w = s_writers[i]();
        for (size_t len = 0; len < w.len; len++) {
            uint8_t *cut = malloc(len ? len : 1);
            memcpy(cut, w.data, len);
            assert_false(s_read_all(cut, len));
            free(cut);
        }
        assert_true(s_read_all(w.data, w.len));
    }
}

static void test_link_random_flips_never_crash(void **state)
{
    (void)state;
    uint64_t seed = 42;
    uint32_t refused = 0;
    for (uint32_t i = 0; i < S_FLIPS; i++) {
        dkt_w_t w = s_writers[i % (sizeof s_writers / sizeof *s_writers)]();
        uint8_t *copy = malloc(w.len);
        memcpy(copy, w.data, w.len);
        uint64_t flips = 1 + random_next(&seed) % 8;
        for (uint64_t k = 0; k < flips; k++) {
            size_t span = random_next(&seed) % 2 ? 64 : w.len;
            copy[random_next(&seed) % (span < w.len ? span : w.len)] = (uint8_t)random_next(&seed);
        }
        refused += s_read_all(copy, w.len) ? 0 : 1;
        free(copy);
    }
    assert_true(refused > S_FLIPS / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_link_header_round_trip),
        cmocka_unit_test(test_link_header_golden),
        cmocka_unit_test(test_link_request_round_trip),
        cmocka_unit_test(test_link_answer_round_trip),
        cmocka_unit_test(test_link_table_round_trip),
        cmocka_unit_test(test_link_context_round_trip),
        cmocka_unit_test(test_link_node_too_long_is_refused),
        cmocka_unit_test(test_link_writer_stops_when_full),
        cmocka_unit_test(test_link_wrong_fields_are_refused),
        cmocka_unit_test(test_link_every_truncation_is_refused),
        cmocka_unit_test(test_link_random_flips_never_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
