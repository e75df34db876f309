/* SPDX-License-Identifier: Apache-2.0
 *
 * Random sequences of every ledger operation against the naive model; after each step the two are
 * compared whole. DKT_TEST_SEED and DKT_TEST_SEQUENCES (the number of sequences of each
 * profile) vary them; a failure prints what to set.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/core/ledger.h"
#include "support_follow.h"
#include "support_model.h"
#include "support_random.h"

#define SEED_DEFAULT     20240611
#define EPOCH_MINUTE     29000000u /* about 2025 */
#define PERMILLE         1000u
#define LIMIT_STEP_COUNT 8

/* -- chance --------------------------------------------------------------------------------------
 */

static bool s_chance(uint64_t *state, uint32_t permille)
{
    return random_below(state, PERMILLE) < permille;
}

static uint64_t s_env(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

/* -- one sequence --------------------------------------------------------------------------------
 */

/* What kind of tenant a sequence plays with. */
typedef struct {
    const char *name;
    uint32_t sequences; /* by default */
    uint32_t steps;
    uint32_t level_max;       /* minutes of the longest class */
    uint32_t limits_permille; /* chance that a tenant has booking limits */
    uint32_t rebooking_permille;
    uint32_t admit_permille; /* share of plain admissions among the steps */
    bool crowded;            /* starts full of tickets that can hardly move: long chains */
} s_profile_t;

typedef struct {
    follow_t follow;
    const s_profile_t *profile;
    uint64_t random;
    uint64_t next_ticket, next_nonce;
    int64_t last_expires_ms;
} s_run_t;

static s_run_t s_run;

static void s_random_limits(uint64_t *random, dkt_settings_t *settings)
{
    static const uint16_t steps[LIMIT_STEP_COUNT] = {1000, 1000, 900, 750, 600, 500, 334, 0};
    uint32_t at = 0;
    for (uint8_t i = 0; i < settings->class_count; i++) {
        at += random_below(random, LIMIT_STEP_COUNT - at);
        bool own = s_chance(random, 900);
        settings->classes[i].limit_permille = own ? steps[at] : DKT_PERMILLE;
    }
}

static void s_random_settings(s_run_t *run, dkt_settings_t *settings)
{
    uint64_t *random = &run->random;
    uint32_t span = run->profile->level_max - DKT_LEVEL_MIN_MINUTES + 1;
    dkt_err_t err = {0};
    memset(settings, 0, sizeof *settings);
    settings->resolvers = (uint16_t)(1 + random_below(random, 3));
    settings->rebooking = s_chance(random, run->profile->rebooking_permille);
    bool used[DKT_LEVEL_MAX_MINUTES + 1] = {false};
    uint32_t wish = 1 + random_below(random, span < 4 ? span : 4);
    while (settings->class_count < wish) {
        uint32_t level = DKT_LEVEL_MIN_MINUTES + random_below(random, span);
        if (!used[level]) {
            dkt_class_t *added = &settings->classes[settings->class_count++];
            snprintf(added->name, sizeof added->name, "level%u", level);
            added->level_minutes = (uint16_t)level;
            added->limit_permille = DKT_PERMILLE;
            used[level] = true;
        }
    }
    assert_int_equal(dkt_settings_check(settings, &err), DKT_OK);
    if (s_chance(random, run->profile->limits_permille)) {
        s_random_limits(random, settings);
        assert_int_equal(dkt_settings_check(settings, &err), DKT_OK);
    }
}

static uint8_t s_any_class(s_run_t *run)
{
    return (uint8_t)random_below(&run->random, run->follow.model.settings.class_count);
}

/* Mostly a live ticket, now and then one that is over or never was. */
static uint64_t s_any_ticket(s_run_t *run)
{
    const model_t *model = &run->follow.model;
    if (model->promise_count == 0 || s_chance(&run->random, 100)) {
        return 1 + random_below(&run->random, (uint32_t)run->next_ticket + 1);
    }
    return model->promises[random_below(&run->random, model->promise_count)].promise.ticket;
}

/* -- the operations ------------------------------------------------------------------------------
 */

static void s_do_admit(s_run_t *run)
{
    uint8_t class_index = s_any_class(run);
    dkt_verdict_t verdict = follow_admit(&run->follow, class_index, run->next_ticket++);
    if (verdict != DKT_VERDICT_YES && s_chance(&run->random, 250)) {
        follow_earliest(&run->follow, class_index);
    }
}

static void s_do_hold(s_run_t *run)
{
    static const uint32_t ttls_ms[] = {1000, 1500, 30000, 61000, 300000};
    uint32_t ttl_ms = ttls_ms[random_below(&run->random, sizeof ttls_ms / sizeof ttls_ms[0])];
    (void)follow_hold(&run->follow, s_any_class(run), ttl_ms, run->next_nonce++);
}

static void s_do_allocate(s_run_t *run)
{
    const model_t *model = &run->follow.model;
    if (model->hold_count == 0 || s_chance(&run->random, 100)) {
        uint64_t nonce = 1 + random_below(&run->random, (uint32_t)run->next_nonce + 1);
        if (!model_find_hold(&run->follow.model, nonce)) {
            follow_allocate(&run->follow, nonce, model->now_ms + 1000, run->next_ticket++);
        }
        return;
    }
    const model_hold_t *hold = &model->holds[random_below(&run->random, model->hold_count)];
    follow_allocate(&run->follow, hold->nonce, hold->expires_ms, run->next_ticket++);
}

/* A hold that runs out between two operations yields nothing. */
static void s_do_expire(s_run_t *run)
{
    const model_t *model = &run->follow.model;
    if (model->hold_count > 0) {
        model_hold_t hold = model->holds[random_below(&run->random, model->hold_count)];
        follow_pass(&run->follow, hold.expires_ms, 0);
        follow_allocate(&run->follow, hold.nonce, hold.expires_ms, run->next_ticket++);
    }
}

static void s_do_allocate_lost(s_run_t *run)
{
    uint8_t class_index = s_any_class(run);
    model_window_t window = model_window(&run->follow.model, class_index);
    uint32_t span = window.last >= window.first ? window.last - window.first + 3 : 3;
    uint32_t minute = window.first - 1 + random_below(&run->random, span);
    follow_allocate_lost(&run->follow, class_index, minute, run->next_ticket++);
}

static void s_do_release(s_run_t *run)
{
    const model_t *model = &run->follow.model;
    uint64_t nonce = 1 + random_below(&run->random, (uint32_t)run->next_nonce + 1);
    if (model->hold_count > 0 && s_chance(&run->random, 900)) {
        nonce = model->holds[random_below(&run->random, model->hold_count)].nonce;
    }
    follow_release(&run->follow, nonce);
}

static void s_do_cancel(s_run_t *run)
{
    follow_cancel(&run->follow, s_any_ticket(run));
}

static void s_do_resolve(s_run_t *run)
{
    follow_resolve(&run->follow, s_any_ticket(run));
}

static void s_do_pass_ms(s_run_t *run)
{
    int64_t target_ms = run->follow.model.now_ms + random_below(&run->random, 20000);
    follow_pass(&run->follow, target_ms, random_below(&run->random, DKT_COMMIT_BUDGET_MS));
}

/* Ticks may come late, but inside their minute. */
static void s_do_pass_minutes(s_run_t *run)
{
    int64_t target_ms = run->follow.model.now_ms + random_below(&run->random, 3 * DKT_MINUTE_MS);
    follow_pass(&run->follow, target_ms, random_below(&run->random, DKT_MINUTE_MS));
}

static int64_t s_jump_ms(s_run_t *run)
{
    uint32_t minutes = 1 + random_below(&run->random, run->profile->level_max + 2);
    if (s_chance(&run->random, 700)) {
        minutes = 1 + minutes % 3;
    }
    return run->follow.model.now_ms + (int64_t)minutes * DKT_MINUTE_MS +
           random_below(&run->random, DKT_MINUTE_MS);
}

/* A living owner that slept: minutes are missed, the next tick settles them. */
static void s_do_miss(s_run_t *run)
{
    model_advance(&run->follow.model, s_jump_ms(run));
    uint32_t current = (uint32_t)(run->follow.model.now_ms / DKT_MINUTE_MS);
    if (current >= run->follow.next_minute) {
        follow_tick(&run->follow, current);
    }
}

/* A crash; the next owner may be late. */
static void s_do_reload(s_run_t *run)
{
    if (s_chance(&run->random, 500)) {
        model_advance(&run->follow.model, s_jump_ms(run));
    }
    follow_reload(&run->follow, random_next(&run->random));
}

static void s_do_resize(s_run_t *run)
{
    dkt_settings_t settings;
    s_random_settings(run, &settings);
    if (s_chance(&run->random, 700)) {
        memcpy(settings.classes, run->follow.model.settings.classes, sizeof settings.classes);
        settings.class_count = run->follow.model.settings.class_count;
    }
    follow_resize(&run->follow, &settings);
}

/* available () says how many; then exactly so many are admitted, the first where it said. */
static void s_do_fill(s_run_t *run)
{
    follow_t *follow = &run->follow;
    const model_t *model = &follow->model;
    uint8_t class_index = s_any_class(run);
    uint32_t first_minute = 0, probed_minute = 0, count = 0;
    uint32_t got = dkt_ledger_available(follow->ledger, model->now_ms, class_index, &first_minute);
    if (!model_has_limits(model) && model->settings.rebooking) {
        uint32_t want = model_available(model, class_index);
        FOLLOW_CHECK(follow, got <= want, "%u available, model %u", got, want);
    }
    dkt_verdict_t probed =
        dkt_ledger_probe(follow->ledger, model->now_ms, class_index, &probed_minute);
    FOLLOW_CHECK(follow, (got > 0) == (probed == DKT_VERDICT_YES), "%u available, probed %s", got,
                 dkt_verdict_name(probed));
    FOLLOW_CHECK(follow, got == 0 || first_minute == probed_minute, "%u, probed %u", first_minute,
                 probed_minute);
    dkt_verdict_t verdict;
    while ((verdict = follow_admit(follow, class_index, run->next_ticket++)) == DKT_VERDICT_YES) {
        count++;
        follow_compare(follow);
    }
    bool cut = verdict == DKT_VERDICT_TOO_MANY_MOVES; /* what is counted needs a longer chain */
    FOLLOW_CHECK(follow, got == count || (cut && got > count), "%u available, %u admitted", got,
                 count);
    follow_earliest(follow, class_index);
}

typedef struct {
    const char *name;
    void (*run)(s_run_t *run);
    uint32_t weight;
} s_op_t;

static const s_op_t s_ops[] = {
    {"hold", s_do_hold, 24},
    {"allocate", s_do_allocate, 12},
    {"expire", s_do_expire, 3},
    {"allocate_lost", s_do_allocate_lost, 6},
    {"release", s_do_release, 6},
    {"cancel", s_do_cancel, 24},
    {"resolve", s_do_resolve, 14},
    {"pass_ms", s_do_pass_ms, 30},
    {"pass_minutes", s_do_pass_minutes, 10},
    {"miss", s_do_miss, 3},
    {"reload", s_do_reload, 6},
    {"resize", s_do_resize, 6},
    {"fill", s_do_fill, 6},
};

#define OP_COUNT (sizeof s_ops / sizeof s_ops[0])

static const s_op_t s_admit_op = {"admit", s_do_admit, 0};

static const s_op_t *s_pick(s_run_t *run)
{
    uint32_t total = 0;
    if (s_chance(&run->random, run->profile->admit_permille)) {
        return &s_admit_op;
    }
    for (size_t i = 0; i < OP_COUNT; i++) {
        total += s_ops[i].weight;
    }
    uint32_t at = random_below(&run->random, total);
    size_t index = 0;
    while (at >= s_ops[index].weight) {
        at -= s_ops[index++].weight;
    }
    return &s_ops[index];
}

/* Fills most minutes with tickets whose deadlines leave them a minute or two to move. */
static void s_crowd(s_run_t *run)
{
    follow_t *follow = &run->follow;
    model_t *model = &follow->model;
    uint64_t *random = &run->random;
    uint8_t slowest = (uint8_t)(model->settings.class_count - 1);
    model_window_t window = model_window(model, slowest);
    uint32_t gaps_permille = random_below(random, 60);
    for (uint32_t minute = window.first; minute + 2 <= window.last; minute++) {
        for (uint16_t lane = 0; lane < model->settings.resolvers; lane++) {
            if (!s_chance(random, gaps_permille)) {
                int64_t deadline_ms =
                    model_start_ms(minute + 2 + s_chance(random, 300)) - s_chance(random, 200);
                deadline_ms += deadline_ms < model_start_ms(minute + 1) ? DKT_MINUTE_MS : 0;
                model_add(model, run->next_ticket++, (uint8_t)random_below(random, slowest + 1u),
                          deadline_ms, (dkt_place_t){minute, lane});
            }
        }
    }
    follow_reload(follow, random_next(random));
}

static void s_play(s_run_t *run, uint64_t sequence)
{
    dkt_settings_t settings;
    run->random = run->follow.seed ^ (sequence * 0xd1342543de82ef95u);
    run->next_ticket = run->next_nonce = 1;
    run->follow.sequence = sequence;
    run->follow.step = 0;
    run->follow.op = "new";
    s_random_settings(run, &settings);
    int64_t now_ms = model_start_ms(EPOCH_MINUTE + random_below(&run->random, 1000)) +
                     random_below(&run->random, DKT_MINUTE_MS);
    follow_open(&run->follow, &settings, now_ms);
    if (run->profile->crowded) {
        s_crowd(run);
    }
    while (run->follow.step < run->profile->steps) {
        const s_op_t *op = s_pick(run);
        run->follow.step++;
        run->follow.op = op->name;
        op->run(run);
        follow_compare(&run->follow);
    }
    follow_close(&run->follow);
}

static void s_play_profile(const s_profile_t *profile)
{
    memset(&s_run, 0, sizeof s_run);
    s_run.profile = profile;
    s_run.follow.seed = s_env("DKT_TEST_SEED", SEED_DEFAULT);
    uint64_t sequences = s_env("DKT_TEST_SEQUENCES", profile->sequences);
    for (uint64_t i = 0; i < sequences; i++) {
        s_play(&s_run, i);
    }
    const follow_tally_t *tally = &s_run.follow.tally;
    print_message("%s: %llu sequences of %u steps: %llu admitted (%llu by moves), %llu held, "
                  "refused %llu no_slot %llu limit %llu too_many_moves, %llu verdicts against "
                  "matching, %llu earliest, %llu changes\n",
                  profile->name, (unsigned long long)sequences, profile->steps,
                  (unsigned long long)tally->admitted, (unsigned long long)tally->rebooked,
                  (unsigned long long)tally->held, (unsigned long long)tally->refused,
                  (unsigned long long)tally->limited, (unsigned long long)tally->too_many,
                  (unsigned long long)tally->matchings, (unsigned long long)tally->earliest,
                  (unsigned long long)tally->changes);
    assert_true(sequences < profile->sequences || tally->admitted > 0);
}

/* -- the profiles --------------------------------------------------------------------------------
 */

static void test_ledger_property_contended(void **state)
{
    static const s_profile_t profile = {"contended", 2500, 80, 8, 0, 1000, 450, false};
    (void)state;
    s_play_profile(&profile);
}

static void test_ledger_property_limits(void **state)
{
    static const s_profile_t profile = {"limits", 1500, 80, 8, 1000, 700, 450, false};
    (void)state;
    s_play_profile(&profile);
}

static void test_ledger_property_plain(void **state)
{
    static const s_profile_t profile = {"no rebooking", 500, 80, 8, 300, 0, 450, false};
    (void)state;
    s_play_profile(&profile);
}

static void test_ledger_property_tiny(void **state)
{
    static const s_profile_t profile = {"tiny", 1500, 60, 3, 300, 700, 350, false};
    (void)state;
    s_play_profile(&profile);
}

static void test_ledger_property_long(void **state)
{
    static const s_profile_t profile = {"long", 20, 400, 70, 300, 900, 700, false};
    (void)state;
    s_play_profile(&profile);
}

static void test_ledger_property_chains(void **state)
{
    static const s_profile_t profile = {"chains", 200, 30, 45, 300, 1000, 600, true};
    (void)state;
    s_play_profile(&profile);
    assert_true(s_env("DKT_TEST_SEQUENCES", 0) > 0 || s_run.follow.tally.too_many > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ledger_property_contended),
        cmocka_unit_test(test_ledger_property_limits),
        cmocka_unit_test(test_ledger_property_plain),
        cmocka_unit_test(test_ledger_property_tiny),
        cmocka_unit_test(test_ledger_property_long),
        cmocka_unit_test(test_ledger_property_chains),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
