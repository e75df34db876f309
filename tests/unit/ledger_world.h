/* SPDX-License-Identifier: Apache-2.0
 *
 * What the ledger's tests share: a ledger, its clock and the changes it reported. Time starts at
 * minute 0 of the tests (`s_at (0, 0)`), and the ledger is recounted after every operation.
 */
#ifndef DKT_TESTS_UNIT_LEDGER_WORLD_H
#define DKT_TESTS_UNIT_LEDGER_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "lib/core/ledger.h"

#define S_BASE    28000000u /* minute 0 of the tests */
#define S_CHANGES 64
#define GOLD      0
#define SILVER    1
#define BRONZE    2

typedef struct {
    dkt_ledger_t *ledger;
    int64_t now_ms;
    uint64_t next; /* ticket or nonce */
    dkt_place_t place;
    int64_t deadline_ms; /* or when the hold expires */
    dkt_moves_t moves;
    dkt_change_t changes[S_CHANGES];
    unsigned change_count;
} s_world_t;

static inline int64_t s_at(int64_t minute, int64_t ms)
{
    return ((int64_t)S_BASE + minute) * DKT_MINUTE_MS + ms;
}

/* Three classes of few minutes keep the cases small. */
static inline dkt_settings_t s_small(uint16_t resolvers, uint16_t gold, uint16_t silver,
                                     uint16_t bronze)
{
    dkt_settings_t settings;
    dkt_settings_default(&settings, resolvers);
    settings.classes[GOLD].level_minutes = gold;
    settings.classes[SILVER].level_minutes = silver;
    settings.classes[BRONZE].level_minutes = bronze;
    return settings;
}

static inline void s_open(s_world_t *world, dkt_settings_t settings, int64_t now_ms)
{
    dkt_err_t err;
    memset(world, 0, sizeof *world);
    assert_int_equal(dkt_settings_check(&settings, &err), DKT_OK);
    world->ledger = dkt_ledger_new(&settings, now_ms);
    assert_non_null(world->ledger);
    world->now_ms = now_ms;
    world->next = 1;
}

static inline void s_close(s_world_t *world)
{
    dkt_ledger_destroy(&world->ledger);
    assert_null(world->ledger);
}

static inline void s_recount(const s_world_t *world)
{
    dkt_err_t err = {0};
    if (!dkt_ledger_check(world->ledger, &err)) {
        fail_msg("%s", err.text);
    }
}

static inline void s_note(void *ctx, const dkt_change_t *change)
{
    s_world_t *world = ctx;
    assert_true(world->change_count < S_CHANGES);
    world->changes[world->change_count++] = *change;
}

/* The slot's minute of the tests, or minus the verdict. */
static inline int s_admit(s_world_t *world, uint8_t class_index)
{
    dkt_verdict_t verdict = dkt_ledger_admit(world->ledger, world->now_ms, class_index, world->next,
                                             &world->place, &world->deadline_ms, &world->moves);
    s_recount(world);
    if (verdict != DKT_VERDICT_YES) {
        return -(int)verdict;
    }
    world->next++;
    return (int)(world->place.minute - S_BASE);
}

static inline int s_hold(s_world_t *world, uint8_t class_index, uint32_t ttl_ms)
{
    dkt_verdict_t verdict =
        dkt_ledger_hold(world->ledger, world->now_ms, class_index, ttl_ms, world->next,
                        &world->place, &world->deadline_ms, &world->moves);
    s_recount(world);
    if (verdict != DKT_VERDICT_YES) {
        return -(int)verdict;
    }
    world->next++;
    return (int)(world->place.minute - S_BASE);
}

static inline void s_tick(s_world_t *world, int64_t now_ms, int minute)
{
    world->now_ms = now_ms;
    world->change_count = 0;
    dkt_ledger_tick(world->ledger, now_ms, S_BASE + (uint32_t)minute, s_note, world);
    s_recount(world);
}

static inline int s_minute_of(const s_world_t *world, uint64_t ticket)
{
    dkt_promise_t promise;
    return dkt_ledger_find(world->ledger, ticket, &promise) ? (int)(promise.place.minute - S_BASE)
                                                            : -1;
}

#endif
