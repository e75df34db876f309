/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that is used again: the last piece first, usual ones only, and not without end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/core/limits.h"
#include "lib/core/spare.h"

#define T_ROOM 512

static void *s_take(dkt_spare_t *spare, size_t bytes)
{
    void *piece = dkt_spare_take(spare, bytes);
    assert_non_null(piece);
    memset(piece, 0xa5, bytes); /* all of it is there: the sanitizers' build would tell */
    return piece;
}

static void test_spare_gives_the_last_piece_first(void **state)
{
    (void)state;
    dkt_spare_t spare = {.room_bytes = T_ROOM};
    void *first = s_take(&spare, 10), *second = s_take(&spare, T_ROOM);
    dkt_spare_give(&spare, first);
    dkt_spare_give(&spare, second);
    assert_int_equal(spare.count, 2);
    assert_ptr_equal(s_take(&spare, T_ROOM), second); /* whatever length it was asked for */
    assert_ptr_equal(s_take(&spare, T_ROOM), first);
    assert_int_equal(spare.count, 0);
    dkt_spare_give(&spare, first);
    dkt_spare_give(&spare, second);
    dkt_spare_fini(&spare);
    assert_int_equal(spare.count, 0);
    assert_null(spare.first);
}

static void test_spare_keeps_usual_pieces_only(void **state)
{
    (void)state;
    dkt_spare_t spare = {.room_bytes = T_ROOM};
    dkt_spare_give(&spare, s_take(&spare, 32 * T_ROOM)); /* 2,048 of them would be 32 MiB */
    dkt_spare_give(&spare, malloc(T_ROOM / 2));          /* too small for the next one */
    assert_int_equal(spare.count, 0);
    dkt_spare_give(&spare, malloc(T_ROOM)); /* made by somebody else */
    assert_int_equal(spare.count, 1);
    void *large = s_take(&spare, T_ROOM + 1);
    assert_int_equal(spare.count, 1);
    free(large);
    dkt_spare_fini(&spare);
}

static void test_spare_is_bounded(void **state)
{
    (void)state;
    dkt_spare_t spare = {.room_bytes = T_ROOM};
    for (uint32_t i = 0; i <= DKT_SPARES_MAX; i++) {
        dkt_spare_give(&spare, malloc(T_ROOM));
    }
    assert_int_equal(spare.count, DKT_SPARES_MAX);
    dkt_spare_fini(&spare);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spare_gives_the_last_piece_first),
        cmocka_unit_test(test_spare_keeps_usual_pieces_only),
        cmocka_unit_test(test_spare_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
