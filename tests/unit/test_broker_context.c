/* SPDX-License-Identifier: Apache-2.0
 *
 * A broker's replica without NATS: it pulls from workers over the link, whatever they do meanwhile.
 */
#include "brokers/hub_context.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/edge/clock.h"

#define S_RECORDS     500
#define S_CHUNK_BYTES 4096 /* some 20 records */
#define S_TABLE_AT    28   /* where a chunk has the length of the table */
#define S_WAIT_MS     10000
#define S_STEP_US     1000

typedef struct {
    dkt_context_t *worker; /* what the worker has; NULL: there is no worker */
    dkt_hub_context_t *broker;
    uint8_t answer[DKT_LINK_BYTES_MAX];
    size_t answer_len; /* 0: none on its way */
    uint32_t questions, tables;
    bool silent;
} t_world_t;

static const dkt_incarnation_t s_own = {{1}}, s_worker = {{2}};

static void s_step(dkt_context_t *context, dkt_context_event_t event)
{
    dkt_context_out_t out;
    dkt_context_step(context, dkt_clock_mono_ms(), &event, &out);
}

static dkt_view_t s_record(uint32_t number, uint64_t revision, uint8_t *bytes)
{
    dkt_context_record_t record = {.client = {.bytes = {1, 'c'}},
                                   .revision = revision,
                                   .port = 5432,
                                   .cluster = "local",
                                   .host = "127.0.0.1",
                                   .name = "Acme",
                                   .email = "it@acme.example"};
    memcpy(record.client.bytes + 2, &number, sizeof number);
    dkt_settings_default(&record.settings, 2);
    dkt_w_t w = dkt_w_init(bytes, DKT_CONTEXT_RECORD_BYTES_MAX);
    dkt_context_put_record(&w, &record);
    assert_false(w.failed);
    return (dkt_view_t){.data = bytes, .len = (uint32_t)w.len};
}

/* A worker that has pulled so many records and a table. */
static dkt_context_t *s_new_worker(dkt_context_version_t version, uint32_t records)
{
    static uint8_t bytes[DKT_CONTEXT_TABLE_BYTES_MAX];
    static dkt_table_t table;
    dkt_context_t *worker = dkt_context_new(0);
    s_step(worker, (dkt_context_event_t){.kind = DKT_CONTEXT_TICK});
    s_step(worker, (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_BEGIN, .version = version});
    table.version = (dkt_table_version_t){version.epoch, version.seq};
    memset(table.owner, 0xff, sizeof table.owner);
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_link_put_table(&w, &table);
    s_step(worker,
           (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_TABLE, .body = {bytes, (uint32_t)w.len}});
    for (uint32_t i = 0; i < records; i++) {
        s_step(worker, (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_RECORD,
                                             .body = s_record(i, 1, bytes)});
    }
    s_step(worker, (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_END});
    return worker;
}

static void s_change_worker(t_world_t *world)
{
    uint8_t bytes[DKT_CONTEXT_RECORD_BYTES_MAX];
    dkt_context_info_t info;
    dkt_context_info(world->worker, &info);
    dkt_context_news_t news = {.kind = DKT_CONTEXT_RECORD,
                               .version = {info.version.epoch, info.version.seq + 1},
                               .prev = info.version.seq,
                               .body = s_record(3, info.version.seq + 1, bytes)};
    s_step(world->worker, (dkt_context_event_t){.kind = DKT_CONTEXT_NEWS, .news = &news});
}

static bool s_ask(void *ctx, const uint8_t *bytes, size_t len)
{
    t_world_t *world = ctx;
    dkt_link_header_t header;
    dkt_link_pull_t pull;
    dkt_r_t r;
    world->questions++;
    assert_true(dkt_link_open(&r, bytes, len, &header));
    assert_int_equal(header.kind, DKT_LINK_CONTEXT_PULL);
    assert_true(dkt_link_get_pull(&r, &pull) && dkt_link_end(&r));
    if (!world->worker) {
        return false;
    }
    if (!world->silent) {
        dkt_w_t w = dkt_w_init(world->answer, sizeof world->answer);
        dkt_link_begin(&w, DKT_LINK_CONTEXT, (dkt_table_version_t){0, 0}, &s_worker);
        uint16_t count = dkt_context_put_chunk(world->worker, &pull, S_CHUNK_BYTES, &w);
        dkt_link_finish(&w, count);
        assert_false(w.failed);
        world->answer_len = w.len;
    }
    return true;
}

static void s_table(void *ctx, const dkt_table_t *table)
{
    (void)table;
    ((t_world_t *)ctx)->tables++;
}

static void s_deliver(t_world_t *world)
{
    dkt_link_header_t header;
    dkt_r_t r;
    static uint8_t bytes[DKT_LINK_BYTES_MAX];
    size_t len = world->answer_len;
    memcpy(bytes, world->answer, len);
    world->answer_len = 0;
    assert_true(dkt_link_open(&r, bytes, len, &header));
    (void)dkt_hub_context_chunk(world->broker, &header, &r);
}

static dkt_context_info_t s_info(t_world_t *world)
{
    dkt_context_info_t info;
    dkt_replica_info(dkt_hub_context_replica(world->broker), &info);
    return info;
}

/* Lets time pass until the broker asks. */
static void s_until_asked(t_world_t *world)
{
    uint32_t before = world->questions;
    int64_t until_mono_ms = dkt_clock_mono_ms() + S_WAIT_MS;
    while (world->questions == before && dkt_clock_mono_ms() < until_mono_ms) {
        dkt_hub_context_turn(world->broker);
        usleep(S_STEP_US);
    }
    assert_true(world->questions > before);
}

static bool s_equal(t_world_t *world)
{
    dkt_context_info_t worker, broker = s_info(world);
    dkt_context_info(world->worker, &worker);
    return worker.hash == broker.hash && worker.records == broker.records &&
           dkt_context_version_compare(worker.version, broker.version) == 0 &&
           broker.state == DKT_CONTEXT_CURRENT;
}

static int s_setup(void **state)
{
    t_world_t *world = calloc(1, sizeof *world);
    assert_true(sodium_init() >= 0);
    dkt_hub_context_port_t port = {.ctx = world, .ask = s_ask, .table = s_table};
    world->broker = dkt_hub_context_new(&s_own, &port);
    assert_non_null(world->broker);
    *state = world;
    return 0;
}

static int s_teardown(void **state)
{
    t_world_t *world = *state;
    dkt_hub_context_destroy(&world->broker);
    dkt_context_destroy(&world->worker);
    free(world);
    return 0;
}

static void s_pull(t_world_t *world)
{
    s_until_asked(world);
    while (world->answer_len > 0) {
        s_deliver(world);
    }
}

static void test_broker_context_pulls_in_chunks(void **state)
{
    t_world_t *world = *state;
    world->worker = s_new_worker((dkt_context_version_t){1, 9}, S_RECORDS);
    s_pull(world);
    assert_true(s_equal(world));
    assert_int_equal(world->tables, 1);
    assert_true(world->questions > 5);
    uint32_t before = world->questions;
    s_pull(world); /* a second later nothing has changed: one question is enough */
    assert_true(s_equal(world));
    assert_int_equal(world->questions, before + 1);
    assert_int_equal(s_info(world).sames, 1);
}

static void test_broker_context_begins_anew_when_the_worker_moves_on(void **state)
{
    t_world_t *world = *state;
    world->worker = s_new_worker((dkt_context_version_t){1, 9}, S_RECORDS);
    s_until_asked(world);
    s_deliver(world);
    s_change_worker(world); /* the next chunk is of another version */
    s_deliver(world);
    if (world->answer_len > 0) {
        s_deliver(world);
    }
    assert_int_equal(s_info(world).failures, 1);
    assert_int_equal(s_info(world).records, 0); /* nothing half-made was shown */
    s_pull(world);
    assert_true(s_equal(world));
}

static void test_broker_context_outlives_workers_that_are_gone_silent_or_behind(void **state)
{
    t_world_t *world = *state;
    s_until_asked(world); /* nobody there */
    world->worker = s_new_worker((dkt_context_version_t){2, 9}, 20);
    world->silent = true;
    s_until_asked(world); /* it never answers */
    world->silent = false;
    s_pull(world);
    assert_true(s_equal(world));
    dkt_context_t *newer = world->worker;
    world->worker = s_new_worker((dkt_context_version_t){2, 7}, 10);
    s_pull(world); /* older: refused */
    assert_int_equal(s_info(world).records, 20);
    dkt_context_destroy(&world->worker);
    world->worker = newer;
    s_change_worker(world);
    s_pull(world);
    assert_true(s_equal(world));
}

/* A bit of a record, a byte too few, a length beyond the end: the pull fails, and the next is good.
 */
static void test_broker_context_refuses_foreign_bytes(void **state)
{
    t_world_t *world = *state;
    world->worker = s_new_worker((dkt_context_version_t){1, 9}, 10);
    s_until_asked(world);
    world->answer[world->answer_len - 1] ^= 1;
    s_deliver(world);
    s_until_asked(world);
    world->answer_len--;
    s_deliver(world);
    s_until_asked(world);
    memset(world->answer + DKT_LINK_HEADER_BYTES + S_TABLE_AT, 0xff, sizeof(uint32_t));
    s_deliver(world);
    assert_int_equal(s_info(world).failures, 3);
    assert_int_equal(s_info(world).records, 0);
    s_pull(world);
    assert_true(s_equal(world));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_broker_context_pulls_in_chunks, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown(test_broker_context_begins_anew_when_the_worker_moves_on,
                                        s_setup, s_teardown),
        cmocka_unit_test_setup_teardown(
            test_broker_context_outlives_workers_that_are_gone_silent_or_behind, s_setup,
            s_teardown),
        cmocka_unit_test_setup_teardown(test_broker_context_refuses_foreign_bytes, s_setup,
                                        s_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
