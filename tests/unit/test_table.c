/* SPDX-License-Identifier: Apache-2.0
 *
 * The vshard table: even shares, as few moves as possible, the greater version wins.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "lib/core/link.h"

static dkt_table_t s_table;
static dkt_incarnation_t s_members[DKT_MEMBERS_MAX];

static int s_setup(void **state)
{
    (void)state;
    memset(&s_table, 0, sizeof s_table);
    for (uint16_t v = 0; v < DKT_VSHARDS; v++) {
        s_table.owner[v] = DKT_VSHARD_NOBODY;
    }
    for (uint16_t i = 0; i < DKT_MEMBERS_MAX; i++) {
        memset(s_members[i].bytes, 0, DKT_INCARNATION_BYTES);
        s_members[i].bytes[0] = (uint8_t)i;
        s_members[i].bytes[15] = 1;
    }
    return 0;
}

static void s_assert_even(uint16_t member_count)
{
    uint16_t held[DKT_MEMBERS_MAX] = {0};
    for (uint16_t v = 0; v < DKT_VSHARDS; v++) {
        assert_true(s_table.owner[v] < member_count);
        held[s_table.owner[v]]++;
    }
    for (uint16_t i = 0; i < member_count; i++) {
        uint16_t least = DKT_VSHARDS / member_count;
        assert_in_range(held[i], least, least + (DKT_VSHARDS % member_count ? 1 : 0));
    }
}

/* Vshards whose owner (by incarnation) is not what it was. */
static uint16_t s_count_moved(const dkt_table_t *before)
{
    uint16_t moved = 0;
    for (uint16_t v = 0; v < DKT_VSHARDS; v++) {
        uint16_t was = before->owner[v];
        if (was == DKT_VSHARD_NOBODY ||
            memcmp(before->members[was].bytes, s_table.members[s_table.owner[v]].bytes,
                   DKT_INCARNATION_BYTES) != 0) {
            moved++;
        }
    }
    return moved;
}

static void test_table_version_order(void **state)
{
    (void)state;
    static const struct {
        dkt_table_version_t a, b;
        int want;
    } rows[] = {
        {{1, 1}, {1, 1}, 0},  {{1, 2}, {1, 1}, 1},   {{1, 1}, {1, 2}, -1},
        {{2, 0}, {1, 99}, 1}, {{1, 99}, {2, 0}, -1}, {{UINT64_MAX, 0}, {0, 0}, 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(dkt_table_version_compare(rows[i].a, rows[i].b), rows[i].want);
    }
}

static void test_table_assign_from_nothing_is_even(void **state)
{
    (void)state;
    static const uint16_t counts[] = {1, 2, 3, 7, 64, 255, 256};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        s_setup(NULL);
        dkt_table_assign(&s_table, s_members, counts[i]);
        assert_int_equal(s_table.version.version, 1);
        assert_int_equal(s_table.member_count, counts[i]);
        s_assert_even(counts[i]);
    }
}

static void test_table_assign_again_moves_nothing(void **state)
{
    (void)state;
    dkt_table_assign(&s_table, s_members, 5);
    dkt_table_t before = s_table;
    dkt_table_assign(&s_table, s_members, 5);
    assert_int_equal(s_count_moved(&before), 0);
    assert_int_equal(s_table.version.version, 2);
}

static void test_table_assign_newcomer_takes_its_share_only(void **state)
{
    (void)state;
    dkt_table_assign(&s_table, s_members, 3);
    dkt_table_t before = s_table;
    dkt_table_assign(&s_table, s_members, 4);
    s_assert_even(4);
    assert_int_equal(s_count_moved(&before), DKT_VSHARDS / 4);
}

static void test_table_assign_leaver_gives_only_its_own(void **state)
{
    (void)state;
    dkt_table_assign(&s_table, s_members, 4);
    dkt_table_t before = s_table;
    dkt_incarnation_t left[3] = {s_members[3], s_members[0], s_members[2]};
    dkt_table_assign(&s_table, left, 3);
    s_assert_even(3);
    assert_int_equal(s_count_moved(&before), DKT_VSHARDS / 4);
}

static void test_table_assign_restarted_member_owns_by_new_incarnation(void **state)
{
    (void)state;
    dkt_table_assign(&s_table, s_members, 2);
    dkt_table_t before = s_table;
    dkt_incarnation_t now[2] = {s_members[0], s_members[9]};
    dkt_table_assign(&s_table, now, 2);
    s_assert_even(2);
    assert_int_equal(s_count_moved(&before), DKT_VSHARDS / 2);
}

static void test_table_assign_nobody(void **state)
{
    (void)state;
    dkt_table_assign(&s_table, s_members, 2);
    dkt_table_assign(&s_table, s_members, 0);
    for (uint16_t v = 0; v < DKT_VSHARDS; v++) {
        assert_int_equal(s_table.owner[v], DKT_VSHARD_NOBODY);
    }
    assert_int_equal(s_table.member_count, 0);
}

/* The members of the table itself may be given as the new ones. */
static void test_table_assign_own_members(void **state)
{
    (void)state;
    dkt_table_assign(&s_table, s_members, 6);
    dkt_table_assign(&s_table, s_table.members + 1, 5);
    s_assert_even(5);
    assert_memory_equal(s_table.members, s_members + 1, 5 * sizeof *s_members);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_version_order),
        cmocka_unit_test_setup(test_table_assign_from_nothing_is_even, s_setup),
        cmocka_unit_test_setup(test_table_assign_again_moves_nothing, s_setup),
        cmocka_unit_test_setup(test_table_assign_newcomer_takes_its_share_only, s_setup),
        cmocka_unit_test_setup(test_table_assign_leaver_gives_only_its_own, s_setup),
        cmocka_unit_test_setup(test_table_assign_restarted_member_owns_by_new_incarnation, s_setup),
        cmocka_unit_test_setup(test_table_assign_nobody, s_setup),
        cmocka_unit_test_setup(test_table_assign_own_members, s_setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
