/* SPDX-License-Identifier: Apache-2.0
 *
 * Prints how fast tickets are written (durably: fsync and synchronous_commit on), in groups of 1
 * and 256, over one connection. A figure, not a test of one: it only asserts that all are there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "support_pgstore.h"

#define S_LANES      4096
#define S_EVENTS_MAX 16384

static int64_t s_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int s_compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Grows with n, as UUIDv7 does with time. */
static dkt_uuid_t s_uuid(uint64_t n)
{
    dkt_uuid_t uuid = {{0}};
    for (int i = 0; i < 8; i++) {
        uuid.bytes[i] = (uint8_t)(n >> (56 - 8 * i));
    }
    return uuid;
}

/* Commits `groups` groups of `size` tickets; a journal row of 64 bytes a ticket with each. */
static void s_measure(uint64_t *number, uint64_t *seq, uint32_t groups, uint32_t size)
{
    static uint8_t events[S_EVENTS_MAX];
    dkt_ticket_row_t *rows = calloc(size, sizeof *rows);
    int64_t *took_us = calloc(groups, sizeof *took_us);
    double cpu_us = st_backend_us();
    int64_t start_us = s_now_us();
    for (uint32_t i = 0; i < groups; i++) {
        for (uint32_t k = 0; k < size; k++) {
            uint64_t n = ++*number;
            rows[k] = st_ticket(n, 1 + (uint32_t)(n / S_LANES), (uint16_t)(n % S_LANES));
            rows[k].request_id = s_uuid(n);
        }
        dkt_batch_t batch = st_commit(&st_one);
        batch.commit.insert_count = size;
        batch.commit.inserts = rows;
        batch.commit.journal_seq = ++*seq;
        batch.commit.journal_at_ms = ST_BASE_MS;
        batch.commit.journal_events = (dkt_view_t){events, 64 * size};
        int64_t sent_us = s_now_us();
        assert_int_equal(st_run(&st_one, &batch)->result.outcome, DKT_STORE_OK);
        took_us[i] = s_now_us() - sent_us;
    }
    double seconds = (double)(s_now_us() - start_us) / 1e6;
    qsort(took_us, groups, sizeof *took_us, s_compare);
    printf(
        "groups of %3u: %7.0f tickets/s, commit p50 %.2f ms, p99 %.2f ms, backend %.1f us/ticket\n",
        size, groups * size / seconds, (double)took_us[groups / 2] / 1e3,
        (double)took_us[groups * 99 / 100] / 1e3, (st_backend_us() - cpu_us) / (groups * size));
    free(took_us);
    free(rows);
}

static void test_pgstore_bench_writes_tickets(void **state)
{
    (void)state;
    uint64_t number = 0, seq = 0;
    st_own(&st_one);
    s_measure(&number, &seq, 300, 1);
    s_measure(&number, &seq, 100, 256);
    s_measure(&number, &seq, 300, 1);
    s_measure(&number, &seq, 100, 256);
    assert_int_equal(st_int("select count(*) from tickets"), (int64_t)number);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_pgstore_bench_writes_tickets, st_clean),
    };
    return cmocka_run_group_tests(tests, st_start_durable, st_stop);
}
