/* SPDX-License-Identifier: Apache-2.0
 *
 * A busy tenant with each of its allocations failing once: it may end or answer less, but it never
 * crashes, and every work leaves exactly once. This program is linked with malloc, calloc and
 * realloc wrapped.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/support_tenant.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *data, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *data, size_t size);

static bool s_counting;    /* only inside the core */
static uint32_t s_counted; /* allocations so far */
static uint32_t s_failing; /* this one fails */

static bool s_fails(void)
{
    return s_counting && ++s_counted == s_failing;
}

void *__wrap_malloc(size_t size)
{
    return s_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return s_fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *data, size_t size)
{
    return s_fails() ? NULL : __real_realloc(data, size);
}

static void s_on(void)
{
    s_counting = true;
}

static void s_off(void)
{
    s_counting = false;
}

static bool s_over(const bench_t *bench)
{
    return dkt_tenant_state(bench->core) == DKT_TENANT_ENDED;
}

static dkt_uuid_t s_young_id(const bench_t *bench, uint8_t n)
{
    const uint8_t random[10] = {[9] = n};
    return dkt_uuid_v7(bench->db_ms, random);
}

/* New and old request ids, retries, holds, cancels, a login, settings, a refusal, a drain. */
static void s_busy(bench_t *bench)
{
    bench_activate(bench);
    if (!s_over(bench)) {
        bench_advance(bench, 10001); /* from now on a young id needs no look-up */
    }
    for (uint8_t i = 0; i < 40 && !s_over(bench); i++) {
        (void)bench_create(bench, "gold", bench_old_id(i));
        (void)bench_create(bench, "gold", bench_old_id(i));
        (void)bench_create(bench, i % 2 ? "silver" : "gold", s_young_id(bench, i));
        (void)bench_hold(bench, "gold");
    }
    bench_settle(bench);
    for (uint64_t i = 1; i < 20 && !s_over(bench); i++) {
        (void)bench_ticket(bench, DKT_METHOD_CANCEL_TICKET, i);
        (void)bench_ticket(bench, DKT_METHOD_RESOLVE_TICKET, i + 1);
        (void)bench_ticket(bench, DKT_METHOD_GET_TICKET, i);
        (void)bench_create(bench, "gold", bench_old_id((uint8_t)i));
    }
    dkt_request_t list = {.method = DKT_METHOD_LIST_TICKETS, .state = -1};
    dkt_request_t set = {
        .method = DKT_METHOD_SET_TENANT, .present = DKT_PARAM_BIT(RESOLVERS), .resolvers = 3};
    if (!s_over(bench)) {
        (void)bench_send(bench, &list);
        (void)bench_send(bench, &set);
        (void)bench_login(bench, "long enough");
        (void)bench_change_password(bench, "long enough", "long enough 2");
    }
    bench_settle(bench);
    while (bench->job_count > 0 && !s_over(bench)) {
        bench_hashed(bench, true, "hash-1");
    }
    bench_settle(bench);
    if (!s_over(bench)) {
        bench_advance(bench, 45000);
        bench_settle(bench);
    }
    if (!s_over(bench)) {
        bench_kind(bench, DKT_TEV_DRAIN);
        bench_settle(bench);
    }
}

static void test_tenant_memory_each_allocation_fails_once(void **state)
{
    (void)state;
    uint32_t ended = 0;
    uint32_t round = 0;
    do {
        s_counted = 0;
        s_failing = ++round;
        bench_t *bench = bench_new(1);
        bench->before_step = s_on;
        bench->after_step = s_off;
        s_busy(bench);
        ended += !dkt_tenant_end(bench->core)->clean;
        bench_destroy(&bench); /* asserts that every work has left */
    } while (s_counted >= s_failing);
    assert_in_range(round, 30, 10000);
    assert_true(ended > 0 && ended < round);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tenant_memory_each_allocation_fails_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
