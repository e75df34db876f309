/* SPDX-License-Identifier: Apache-2.0
 *
 * Binary arrays: golden bytes, and what PostgreSQL itself reads out of them.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/edge/pgarray.h"
#include "support_pgstore.h"

static void test_pgstore_array_golden_bytes(void **state)
{
    (void)state;
    static const uint8_t expected[] = {0, 0, 0,    1,    0,    0,    0, 1, 0, 0, 0,    21,
                                       0, 0, 0,    3,    0,    0,    0, 1, 0, 0, 0,    2,
                                       1, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 2, 0xff, 0xfe};
    static const uint8_t empty[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20};
    dkt_pgarray_t array = {0};
    dkt_pgarray_begin(&array, DKT_PG_INT2);
    dkt_pgarray_i16(&array, 0x0102);
    dkt_pgarray_null(&array);
    dkt_pgarray_i16(&array, -2);
    assert_true(dkt_pgarray_finish(&array));
    assert_int_equal(array.len, sizeof expected);
    assert_memory_equal(array.data, expected, sizeof expected);
    /* used again, nothing of the last one is left */
    dkt_pgarray_begin(&array, DKT_PG_INT8);
    assert_true(dkt_pgarray_finish(&array));
    assert_int_equal(array.len, sizeof empty);
    assert_memory_equal(array.data, empty, sizeof empty);
    dkt_pgarray_fini(&array);
    assert_null(array.data);
}

static void test_pgstore_array_times_round_down(void **state)
{
    (void)state;
    static const int64_t rows_ms[] = {
        0, 1, -1, INT64_C(946684800000), INT64_C(946684799999), INT64_C(4102444800000)};
    for (size_t i = 0; i < sizeof rows_ms / sizeof *rows_ms; i++) {
        int64_t us = dkt_pg_time_of_ms(rows_ms[i]);
        assert_int_equal(dkt_pg_ms_of_time(us), rows_ms[i]);
        assert_int_equal(dkt_pg_ms_of_time(us + 999), rows_ms[i]);
        assert_int_equal(dkt_pg_ms_of_time(us - 1), rows_ms[i] - 1);
    }
}

/* Sends the array as the only parameter; the answer is one text. */
static void s_ask(const char *sql, dkt_pgarray_t *array, const char *expected)
{
    assert_true(dkt_pgarray_finish(array));
    const char *values[] = {(const char *)array->data};
    const int lengths[] = {(int)array->len}, formats[] = {1};
    PGresult *result = PQexecParams(st_admin, sql, 1, NULL, values, lengths, formats, 0);
    assert_int_equal(PQresultStatus(result), PGRES_TUPLES_OK);
    assert_string_equal(PQgetvalue(result, 0, 0), expected);
    PQclear(result);
}

static void test_pgstore_array_is_what_postgres_reads(void **state)
{
    (void)state;
    static const uint8_t uuid[16] = {0x01, 0x8f};
    dkt_pgarray_t array = {0};
    dkt_pgarray_begin(&array, DKT_PG_TEXT);
    dkt_pgarray_bytes(&array, "gold", 4);
    dkt_pgarray_bytes(&array, "", 0);
    dkt_pgarray_null(&array);
    s_ask("select $1::text[]::text", &array, "{gold,\"\",NULL}");
    dkt_pgarray_begin(&array, DKT_PG_UUID);
    dkt_pgarray_bytes(&array, uuid, sizeof uuid);
    s_ask("select $1::uuid[]::text", &array, "{018f0000-0000-0000-0000-000000000000}");
    dkt_pgarray_begin(&array, DKT_PG_TIMESTAMPTZ);
    dkt_pgarray_time(&array, INT64_C(1700000000123));
    s_ask("select extract(epoch from ($1::timestamptz[])[1])::text", &array, "1700000000.123000");
    dkt_pgarray_begin(&array, DKT_PG_BOOL);
    dkt_pgarray_bool(&array, true);
    dkt_pgarray_bool(&array, false);
    s_ask("select $1::bool[]::text", &array, "{t,f}");
    /* grows past its first buffer */
    dkt_pgarray_begin(&array, DKT_PG_INT8);
    for (int64_t i = -5000; i <= 5000; i++) {
        dkt_pgarray_i64(&array, i);
    }
    s_ask("select concat(cardinality(a), ' ', a[1], ' ', a[10001], ' ', (select sum(x) from "
          "unnest(a) x)) from (select $1::int8[] as a) s",
          &array, "10001 -5000 5000 0");
    dkt_pgarray_fini(&array);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pgstore_array_golden_bytes),
        cmocka_unit_test(test_pgstore_array_times_round_down),
        cmocka_unit_test(test_pgstore_array_is_what_postgres_reads),
    };
    return cmocka_run_group_tests(tests, st_start, st_stop);
}
