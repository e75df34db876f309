/* SPDX-License-Identifier: Apache-2.0
 *
 * Tenant context: its bytes, and a replica against a naive model of the leader while news are lost,
 * doubled and late, leaders change and pulls fail: it serves all the time, moves only forward, and
 * is right as soon as it says so.
 */
#include "lib/core/context.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <sodium.h>
#include <xxhash.h>

#include "lib/core/gate.h"

#define S_CLIENTS 40
#define S_SEEDS   100
#define S_STEPS   400
#define S_FLIPS   20000

/* -- bytes -- */

static dkt_client_t s_client(uint8_t number)
{
    dkt_client_t client = {.bytes = {7, 'c', 'l', 'i', 'e', 'n', 't', 'i', 'd', 't', 'a', number}};
    return client;
}

static dkt_context_record_t s_record(uint8_t number, uint64_t revision)
{
    dkt_context_record_t record = {.client = s_client(number),
                                   .revision = revision,
                                   .suspended = revision % 2 == 0,
                                   .created_ms = 1795339519000,
                                   .port = 5432,
                                   .cluster = "local",
                                   .host = "127.0.0.1",
                                   .sub_domain = "acme-abcdef",
                                   .name = "Acme",
                                   .email = "it@acme.example"};
    snprintf(record.database, sizeof record.database, "t_%032d", number);
    dkt_settings_default(&record.settings, 2);
    return record;
}

static dkt_view_t s_encode(const dkt_context_record_t *record, uint8_t *bytes)
{
    dkt_w_t w = dkt_w_init(bytes, DKT_CONTEXT_RECORD_BYTES_MAX);
    dkt_context_put_record(&w, record);
    assert_false(w.failed);
    return (dkt_view_t){.data = bytes, .len = (uint32_t)w.len};
}

static size_t s_hex(const char *hex, uint8_t *out, size_t max)
{
    size_t len = 0;
    assert_int_equal(sodium_hex2bin(out, max, hex, strlen(hex), NULL, &len, NULL), 0);
    return len;
}

static const char *s_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    assert_non_null(text);
    return text;
}

static uint64_t s_int(const json_t *object, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

static void s_record_of_json(const json_t *json, dkt_context_record_t *record)
{
    memset(record, 0, sizeof *record);
    s_hex(s_text(json, "client_hex"), record->client.bytes, sizeof record->client.bytes);
    record->suspended = json_is_true(json_object_get(json, "suspended"));
    record->settings.rebooking = json_is_true(json_object_get(json, "rebooking"));
    record->revision = s_int(json, "revision");
    record->created_ms = (int64_t)s_int(json, "created_ms");
    record->port = (uint16_t)s_int(json, "port");
    record->settings.resolvers = (uint16_t)s_int(json, "resolvers");
    json_t *row;
    size_t i;
    json_array_foreach(json_object_get(json, "classes"), i, row)
    {
        dkt_class_t *class = &record->settings.classes[record->settings.class_count++];
        strcpy(class->name, json_string_value(json_array_get(row, 0)));
        class->level_minutes = (uint16_t)json_integer_value(json_array_get(row, 1));
        class->limit_permille = (uint16_t)json_integer_value(json_array_get(row, 2));
    }
    strcpy(record->cluster, s_text(json, "cluster"));
    strcpy(record->host, s_text(json, "host"));
    strcpy(record->database, s_text(json, "database"));
    strcpy(record->sub_domain, s_text(json, "sub_domain"));
    strcpy(record->name, s_text(json, "name"));
    strcpy(record->email, s_text(json, "email"));
}

static void test_context_golden_bytes(void **state)
{
    (void)state;
    uint8_t wanted[4096], bytes[4096];
    json_t *golden = json_load_file(DKT_SOURCE_DIR "/schemas/messages/context/v1.json", 0, NULL);
    assert_non_null(golden);
    const json_t *json = json_object_get(golden, "record");
    dkt_context_record_t record, again;
    s_record_of_json(json, &record);
    dkt_view_t view = s_encode(&record, bytes);
    assert_int_equal(s_hex(s_text(json, "hex"), wanted, sizeof wanted), view.len);
    assert_memory_equal(wanted, bytes, view.len);
    assert_true(dkt_context_read_record(wanted, view.len, &again));
    assert_memory_equal(&again, &record, sizeof record);
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(golden, "news"), i, row)
    {
        dkt_context_news_t news;
        size_t len = s_hex(s_text(row, "hex"), wanted, sizeof wanted);
        assert_true(dkt_context_read_news(wanted, len, &news));
        assert_int_equal(news.version.epoch, s_int(row, "epoch"));
        assert_int_equal(news.version.seq, s_int(row, "seq"));
        assert_int_equal(news.prev, s_int(row, "prev"));
        dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
        dkt_context_put_news(&w, &news);
        assert_int_equal(w.len, len);
        assert_memory_equal(bytes, wanted, len);
    }
    json_decref(golden);
}

/* What a peer sends may be anything: it is refused or it is read, and never more than is there. */
static void test_context_foreign_bytes_are_refused(void **state)
{
    (void)state;
    uint8_t bytes[DKT_CONTEXT_RECORD_BYTES_MAX];
    dkt_context_record_t record = s_record(1, 1), read;
    dkt_view_t view = s_encode(&record, bytes);
    for (uint32_t len = 0; len < view.len; len++) {
        uint8_t *exact = malloc(len + 1);
        memcpy(exact, bytes, len);
        assert_false(dkt_context_read_record(exact, len, &read));
        free(exact);
    }
    bytes[view.len] = 0;
    assert_false(dkt_context_read_record(bytes, view.len + 1, &read)); /* left-over bytes */
    bytes[0] = DKT_CONTEXT_FORMAT + 1;
    assert_true(dkt_context_read_record(bytes, view.len + 1, &read)); /* a newer one has more */
    assert_string_equal(read.email, record.email);
    uint32_t random = 1;
    for (int i = 0; i < S_FLIPS; i++) {
        view = s_encode(&record, bytes);
        random = random * 1664525u + 1013904223u;
        bytes[(random >> 8) % view.len] ^= (uint8_t)(1u << (random & 7));
        dkt_context_news_t news;
        if (dkt_context_read_record(bytes, view.len, &read)) {
            assert_true(read.settings.class_count <= DKT_CLASSES_MAX);
        }
        if (dkt_context_read_news(bytes, view.len, &news)) {
            assert_in_range(news.kind, DKT_CONTEXT_RECORD, DKT_CONTEXT_HEAD);
        }
    }
}

/* -- the leader, naively -- */

typedef struct {
    dkt_context_version_t version;
    uint64_t revisions[S_CLIENTS]; /* 0: there is no such tenant */
    uint32_t random;
} t_leader_t;

static uint32_t s_random(t_leader_t *self)
{
    self->random = self->random * 1664525u + 1013904223u;
    return self->random >> 4;
}

static uint64_t s_hash(const t_leader_t *self)
{
    uint64_t sum = 0;
    for (uint8_t i = 0; i < S_CLIENTS; i++) {
        uint8_t bytes[DKT_CONTEXT_RECORD_BYTES_MAX];
        dkt_context_record_t record = s_record(i, self->revisions[i]);
        dkt_view_t view = s_encode(&record, bytes);
        sum += self->revisions[i] ? XXH64(view.data, view.len, 0) : 0;
    }
    return sum;
}

static void s_step(dkt_context_t *replica, int64_t now, dkt_context_event_t event,
                   dkt_context_out_t *out)
{
    dkt_context_info_t before, after;
    dkt_context_out_t unused;
    dkt_context_info(replica, &before);
    dkt_context_step(replica, now, &event, out ? out : &unused);
    dkt_context_info(replica, &after);
    assert_true(dkt_context_version_compare(after.version, before.version) >= 0);
}

static void s_tell(dkt_context_t *replica, int64_t now, const dkt_context_news_t *news)
{
    s_step(replica, now, (dkt_context_event_t){.kind = DKT_CONTEXT_NEWS, .news = news}, NULL);
}

static void s_head(const t_leader_t *self, dkt_context_t *replica, int64_t now)
{
    dkt_context_news_t head = {.kind = DKT_CONTEXT_HEAD,
                               .format = DKT_CONTEXT_FORMAT,
                               .version = self->version,
                               .prev = self->version.seq,
                               .hash = s_hash(self)};
    s_tell(replica, now, &head);
}

/* One more change, told or not. */
static void s_change(t_leader_t *self, dkt_context_t *replica, int64_t now, bool told)
{
    uint8_t bytes[DKT_CONTEXT_RECORD_BYTES_MAX];
    uint8_t i = (uint8_t)(s_random(self) % S_CLIENTS);
    bool gone = self->revisions[i] > 0 && s_random(self) % 4 == 0;
    self->version.seq++;
    self->revisions[i] = gone ? 0 : self->version.seq;
    dkt_context_record_t record = s_record(i, self->revisions[i]);
    dkt_context_news_t news = {.kind = gone ? DKT_CONTEXT_GONE : DKT_CONTEXT_RECORD,
                               .format = DKT_CONTEXT_FORMAT,
                               .version = self->version,
                               .prev = self->version.seq - 1,
                               .client = record.client,
                               .body = s_encode(&record, bytes)};
    if (told) {
        s_tell(replica, now, &news);
        s_tell(replica, now, &news); /* at least once */
    }
}

static bool s_is_right(const t_leader_t *self, const dkt_context_t *replica)
{
    dkt_context_info_t info;
    dkt_context_info(replica, &info);
    uint32_t count = 0;
    bool right = dkt_context_check(replica);
    for (uint8_t i = 0; i < S_CLIENTS; i++) {
        dkt_context_record_t record, wanted = s_record(i, self->revisions[i]);
        dkt_client_t client = s_client(i);
        bool found = dkt_context_find(replica, &client, &record);
        right = right && found == (self->revisions[i] > 0) &&
                (!found || memcmp(&record, &wanted, sizeof record) == 0);
        count += found ? 1 : 0;
    }
    return right && count == info.records && info.hash == s_hash(self);
}

static void s_pull(const t_leader_t *self, dkt_context_t *replica, int64_t now)
{
    s_step(replica, now,
           (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_BEGIN, .version = self->version}, NULL);
    for (uint8_t i = 0; i < S_CLIENTS; i++) {
        uint8_t bytes[DKT_CONTEXT_RECORD_BYTES_MAX];
        dkt_context_record_t record = s_record(i, self->revisions[i]);
        if (self->revisions[i] > 0) {
            s_step(replica, now,
                   (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_RECORD,
                                         .body = s_encode(&record, bytes)},
                   NULL);
        }
    }
    s_step(
        replica, now,
        (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_END, .hashed = true, .hash = s_hash(self)},
        NULL);
}

static dkt_context_state_t s_state(const dkt_context_t *replica)
{
    dkt_context_info_t info;
    dkt_context_info(replica, &info);
    return info.state;
}

/* Time until it asks for a pull. */
static int64_t s_wait_pull(dkt_context_t *replica, int64_t now, dkt_context_out_t *out)
{
    int64_t until = now + DKT_CONTEXT_SILENCE_MS + 2 * DKT_CONTEXT_BACKOFF_CAP_MS;
    for (; now < until; now++) {
        s_step(replica, now, (dkt_context_event_t){.kind = DKT_CONTEXT_TICK}, out);
        if (out->pull) {
            return now;
        }
    }
    fail_msg("no pull was asked for");
    return now;
}

static dkt_context_t *s_current(t_leader_t *leader)
{
    dkt_context_out_t out;
    dkt_context_t *replica = dkt_context_new(0);
    *leader = (t_leader_t){.version = {.epoch = 1}, .random = 1};
    for (int i = 0; i < 30; i++) {
        s_change(leader, replica, 0, false);
    }
    s_wait_pull(replica, 0, &out);
    s_pull(leader, replica, 0);
    assert_int_equal(s_state(replica), DKT_CONTEXT_CURRENT);
    assert_true(s_is_right(leader, replica));
    return replica;
}

/* -- each reason to doubt -- */

static void test_context_news_in_order_keep_it_current(void **state)
{
    (void)state;
    t_leader_t leader;
    dkt_context_t *replica = s_current(&leader);
    for (int64_t now = 0; now < 10000; now += 100) {
        s_change(&leader, replica, now, true);
        s_head(&leader, replica, now);
        s_step(replica, now, (dkt_context_event_t){.kind = DKT_CONTEXT_TICK}, NULL);
        assert_int_equal(s_state(replica), DKT_CONTEXT_CURRENT);
        assert_true(s_is_right(&leader, replica));
    }
    dkt_context_destroy(&replica);
}

typedef enum { T_GAP, T_HEAD_AHEAD, T_EPOCH, T_HASH, T_SILENCE, T_COUNT } t_reason_t;

static void s_make_doubt(t_leader_t *leader, dkt_context_t *replica, t_reason_t reason)
{
    switch (reason) {
    case T_GAP:
        s_change(leader, replica, 0, false);
        s_change(leader, replica, 0, true);
        break;
    case T_HEAD_AHEAD:
        s_change(leader, replica, 0, false);
        s_head(leader, replica, 0);
        break;
    case T_EPOCH:
        leader->version.epoch++;
        s_head(leader, replica, 0);
        break;
    case T_HASH:
        leader->revisions[0] = leader->revisions[0] ? 0 : 77; /* changed behind everybody's back */
        s_head(leader, replica, 0);
        break;
    case T_SILENCE:
        s_step(replica, DKT_CONTEXT_SILENCE_MS, (dkt_context_event_t){.kind = DKT_CONTEXT_TICK},
               NULL);
        break;
    case T_COUNT:
        break;
    }
}

static void test_context_doubt_serves_the_old_and_a_pull_swaps(void **state)
{
    (void)state;
    for (t_reason_t reason = T_GAP; reason < T_COUNT; reason++) {
        t_leader_t leader, old;
        dkt_context_out_t out;
        dkt_context_t *replica = s_current(&leader);
        old = leader;
        s_make_doubt(&leader, replica, reason);
        assert_int_equal(s_state(replica), DKT_CONTEXT_DOUBT);
        assert_true(s_is_right(&old, replica));
        int64_t now = s_wait_pull(replica, DKT_CONTEXT_SILENCE_MS, &out);
        assert_int_equal(out.whole, reason == T_HASH);
        assert_true(s_is_right(&old, replica));
        s_change(&leader, replica, now, true); /* comes while the pull is under way */
        old = leader;
        s_change(&leader, replica, now, true);
        s_pull(&old, replica, now);
        assert_int_equal(s_state(replica), DKT_CONTEXT_CURRENT);
        assert_true(s_is_right(&leader, replica)); /* the pull, and what came meanwhile */
        dkt_context_info_t info;
        dkt_context_info(replica, &info);
        assert_int_equal(info.gaps + info.epochs + info.wrong_hashes + info.silences, 1);
        dkt_context_destroy(&replica);
    }
}

static void test_context_pull_that_fails_or_is_older_changes_nothing(void **state)
{
    (void)state;
    t_leader_t leader, old;
    dkt_context_out_t out;
    dkt_context_t *replica = s_current(&leader);
    t_leader_t before = leader;
    s_change(&leader, replica, 0, true);
    old = leader;
    s_make_doubt(&leader, replica, T_HEAD_AHEAD);
    int64_t now = s_wait_pull(replica, 0, &out);
    s_pull(&before, replica, now); /* somebody who is behind us */
    assert_int_equal(s_state(replica), DKT_CONTEXT_DOUBT);
    now = s_wait_pull(replica, now, &out);
    s_step(replica, now,
           (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_BEGIN, .version = leader.version}, NULL);
    s_step(replica, now,
           (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_END, .hashed = true, .hash = 1}, NULL);
    assert_int_equal(s_state(replica), DKT_CONTEXT_DOUBT);
    now = s_wait_pull(replica, now, &out);
    s_step(replica, now + DKT_CONTEXT_PULL_MS, (dkt_context_event_t){.kind = DKT_CONTEXT_TICK},
           NULL); /* nobody answers */
    assert_int_equal(s_state(replica), DKT_CONTEXT_DOUBT);
    assert_true(s_is_right(&old, replica));
    now = s_wait_pull(replica, now + DKT_CONTEXT_PULL_MS, &out);
    s_pull(&leader, replica, now);
    assert_true(s_is_right(&leader, replica));
    dkt_context_destroy(&replica);
}

static void test_context_same_in_a_new_epoch_needs_no_records(void **state)
{
    (void)state;
    t_leader_t leader;
    dkt_context_out_t out;
    dkt_context_t *replica = s_current(&leader);
    s_make_doubt(&leader, replica, T_EPOCH);
    int64_t now = s_wait_pull(replica, 0, &out);
    s_step(replica, now,
           (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_SAME, .version = leader.version}, NULL);
    assert_int_equal(s_state(replica), DKT_CONTEXT_CURRENT);
    s_change(&leader, replica, now, true);
    assert_true(s_is_right(&leader, replica));
    leader.version.epoch--; /* one who was replaced goes on talking */
    t_leader_t old = leader;
    old.version.seq--;
    s_change(&old, replica, now, true);
    s_head(&old, replica, now);
    assert_int_equal(s_state(replica), DKT_CONTEXT_CURRENT);
    assert_true(s_is_right(&leader, replica));
    dkt_context_destroy(&replica);
}

static void test_context_recheck_pulls_the_whole_once(void **state)
{
    (void)state;
    t_leader_t leader;
    dkt_context_out_t out;
    dkt_context_t *replica = s_current(&leader);
    s_step(replica, 0, (dkt_context_event_t){.kind = DKT_CONTEXT_RECHECK}, NULL);
    s_head(&leader, replica, 0); /* its own voice proves nothing */
    int64_t now = s_wait_pull(replica, 0, &out);
    assert_true(out.whole);
    leader.revisions[0] = 4711; /* changed by hand, under the same number */
    s_pull(&leader, replica, now);
    assert_true(s_is_right(&leader, replica));
    assert_int_equal(s_state(replica), DKT_CONTEXT_CURRENT);
    dkt_context_destroy(&replica);
}

/* -- everything at once -- */

static void s_play(uint32_t seed)
{
    t_leader_t leader = {.version = {.epoch = 1}, .random = seed};
    dkt_context_t *replica = dkt_context_new(0);
    bool pulling = false;
    int64_t now = 0;
    for (int i = 0; i < S_STEPS; i++) {
        uint32_t dice = s_random(&leader) % 100;
        dkt_context_out_t out;
        now += s_random(&leader) % 50;
        if (dice < 40) {
            s_change(&leader, replica, now, dice < 35);
        } else if (dice < 60) {
            s_head(&leader, replica, now);
            if (s_state(replica) == DKT_CONTEXT_CURRENT) {
                assert_true(s_is_right(&leader, replica));
            }
        } else if (dice < 63) {
            leader.version.epoch++;
        } else if (pulling && dice < 75) {
            s_pull(&leader, replica, now);
            assert_true(s_state(replica) != DKT_CONTEXT_PULLING);
            pulling = false;
        } else if (pulling && dice < 80) {
            s_step(replica, now, (dkt_context_event_t){.kind = DKT_CONTEXT_PULL_FAILED}, NULL);
            pulling = false;
        }
        s_step(replica, now,
               (dkt_context_event_t){.kind = DKT_CONTEXT_TICK, .random = s_random(&leader) << 4},
               &out);
        pulling = out.pull || (pulling && s_state(replica) == DKT_CONTEXT_PULLING);
        assert_true(dkt_context_check(replica));
    }
    /* Left in peace it gets right. */
    for (int i = 0; i < 10 && (i == 0 || s_state(replica) != DKT_CONTEXT_CURRENT); i++) {
        dkt_context_out_t out;
        now += 2 * DKT_CONTEXT_BACKOFF_CAP_MS;
        s_head(&leader, replica, now);
        s_step(replica, now, (dkt_context_event_t){.kind = DKT_CONTEXT_TICK}, &out);
        if (out.pull) {
            s_pull(&leader, replica, now);
        }
    }
    s_head(&leader, replica, now);
    assert_int_equal(s_state(replica), DKT_CONTEXT_CURRENT);
    assert_true(s_is_right(&leader, replica));
    dkt_context_destroy(&replica);
}

static void test_context_follows_a_naive_leader(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= S_SEEDS; seed++) {
        s_play(seed);
    }
}

static void test_context_lists_in_the_order_of_ids(void **state)
{
    (void)state;
    t_leader_t leader;
    dkt_context_info_t info;
    dkt_context_t *replica = s_current(&leader);
    dkt_context_info(replica, &info);
    char last[DKT_ID_CHARS_MAX + 1] = "";
    for (uint32_t i = 0; i < info.records; i++) {
        dkt_context_record_t record;
        dkt_id_text_t id;
        assert_int_equal(dkt_context_after(replica, last), i);
        assert_true(dkt_context_at(replica, i, &record));
        dkt_client_text(&record.client, &id);
        assert_true(strcmp(last, id.text) < 0);
        strcpy(last, id.text);
    }
    assert_int_equal(dkt_context_after(replica, last), info.records);
    dkt_context_destroy(&replica);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_context_golden_bytes),
        cmocka_unit_test(test_context_foreign_bytes_are_refused),
        cmocka_unit_test(test_context_news_in_order_keep_it_current),
        cmocka_unit_test(test_context_doubt_serves_the_old_and_a_pull_swaps),
        cmocka_unit_test(test_context_pull_that_fails_or_is_older_changes_nothing),
        cmocka_unit_test(test_context_same_in_a_new_epoch_needs_no_records),
        cmocka_unit_test(test_context_recheck_pulls_the_whole_once),
        cmocka_unit_test(test_context_follows_a_naive_leader),
        cmocka_unit_test(test_context_lists_in_the_order_of_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
