/* SPDX-License-Identifier: Apache-2.0
 *
 * The relay's state machine: a few exact steps, and a property test against a model of the world,
 * in which connections break at random, acknowledgements are lost, messages come twice and the
 * stream is wiped: every row is stored, and the first time of each in the order of the journal.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/core/relay.h"
#include "support_random.h"

#define T_ROWS_MAX  400
#define T_WIRE_MAX  4096
#define T_SEEDS     300
#define T_STEPS     4000
#define T_STEP_MS   7
#define T_FINISH    20000
#define T_RETENTION 60

/* -- exact steps -- */

static const dkt_view_t s_none = {.data = NULL, .len = 0};

static dkt_relay_out_t s_step(dkt_relay_t *relay, int64_t now_ms, dkt_relay_event_t event)
{
    dkt_relay_out_t out;
    dkt_relay_step(relay, now_ms, &event, DKT_RELAY_WINDOW, &out);
    return out;
}

static dkt_relay_row_t *s_row(uint64_t seq, uint32_t messages)
{
    dkt_relay_row_t *row = dkt_relay_row_new(seq, messages, s_none, s_none);
    assert_non_null(row);
    return row;
}

/* Connected, its stored progress known, nothing open. */
static void s_begin(dkt_relay_t *relay, uint64_t acked_seq)
{
    const dkt_relay_mark_t stream = {.stream_created_ms = 77, .stream_seq = 10};
    dkt_relay_init(relay);
    s_step(relay, 0, (dkt_relay_event_t){.kind = DKT_RELAY_BEGIN, .seq = acked_seq});
    dkt_relay_out_t out =
        s_step(relay, 0, (dkt_relay_event_t){.kind = DKT_RELAY_STREAM, .stream = stream});
    assert_true(out.read && out.read_from.from_kept);
    s_step(relay, 0,
           (dkt_relay_event_t){.kind = DKT_RELAY_READ_DONE,
                               .complete = true,
                               .mark = {acked_seq, 77, 5},
                               .stream = stream});
    assert_true(dkt_relay_quiet(relay));
}

static void test_relay_publishes_and_marks_the_prefix(void **state)
{
    (void)state;
    dkt_relay_t relay;
    s_begin(&relay, 4);
    dkt_relay_out_t out =
        s_step(&relay, 1, (dkt_relay_event_t){.kind = DKT_RELAY_ROW, .row = s_row(5, 2)});
    assert_int_equal(out.send_count, 2);
    out = s_step(&relay, 2, (dkt_relay_event_t){.kind = DKT_RELAY_ROW, .row = s_row(6, 1)});
    assert_int_equal(out.send_count, 1);
    s_step(&relay, 3, (dkt_relay_event_t){.kind = DKT_RELAY_ACKED, .seq = 6, .stream_seq = 13});
    assert_int_equal(relay.mark.acked_seq, 4); /* 5 is not acknowledged: no prefix */
    s_step(&relay, 3, (dkt_relay_event_t){.kind = DKT_RELAY_ACKED, .seq = 5, .stream_seq = 11});
    out = s_step(
        &relay, 3,
        (dkt_relay_event_t){.kind = DKT_RELAY_ACKED, .seq = 5, .message = 1, .stream_seq = 12});
    assert_true(out.mark);
    assert_int_equal(out.marked.acked_seq, 6);
    assert_int_equal(out.marked.stream_seq, 13);
    assert_true(dkt_relay_quiet(&relay));
    dkt_relay_fini(&relay);
}

static void test_relay_window_is_bounded(void **state)
{
    (void)state;
    dkt_relay_t relay;
    uint32_t sent = 0;
    s_begin(&relay, 0);
    for (uint64_t seq = 1; seq <= 100; seq++) {
        sent += s_step(&relay, 1, (dkt_relay_event_t){.kind = DKT_RELAY_ROW, .row = s_row(seq, 1)})
                    .send_count;
    }
    assert_int_equal(sent, DKT_RELAY_WINDOW);
    assert_int_equal(relay.open, DKT_RELAY_WINDOW);
    dkt_relay_fini(&relay);
}

static void test_relay_silence_resends_from_the_first(void **state)
{
    (void)state;
    dkt_relay_t relay;
    s_begin(&relay, 0);
    s_step(&relay, 0, (dkt_relay_event_t){.kind = DKT_RELAY_ROW, .row = s_row(1, 1)});
    s_step(&relay, 0, (dkt_relay_event_t){.kind = DKT_RELAY_ROW, .row = s_row(2, 1)});
    dkt_relay_event_t tick = {.kind = DKT_RELAY_TICK};
    assert_int_equal(s_step(&relay, DKT_RELAY_ACK_MS, tick).send_count, 0); /* backs off first */
    dkt_relay_out_t out = s_step(&relay, DKT_RELAY_ACK_MS + DKT_RELAY_BACKOFF_MIN_MS, tick);
    assert_int_equal(out.send_count, 2);
    assert_int_equal(out.sends[0].row->seq, 1);
    dkt_relay_fini(&relay);
}

static void test_relay_dropped_row_is_read_again(void **state)
{
    (void)state;
    dkt_relay_t relay;
    s_begin(&relay, 3);
    dkt_relay_out_t out = s_step(&relay, 1, (dkt_relay_event_t){.kind = DKT_RELAY_ROW, .seq = 4});
    assert_true(out.read && !out.read_from.from_kept);
    assert_int_equal(out.read_from.after_seq, 3);
    assert_false(dkt_relay_quiet(&relay));
    dkt_relay_fini(&relay);
}

static void test_relay_row_dropped_during_a_read_is_not_skipped(void **state)
{
    (void)state;
    dkt_relay_t relay;
    s_begin(&relay, 3);
    assert_true(s_step(&relay, 1, (dkt_relay_event_t){.kind = DKT_RELAY_ROW, .seq = 4}).read);
    s_step(&relay, 1, (dkt_relay_event_t){.kind = DKT_RELAY_ROW, .seq = 5});
    s_step(&relay, 2, (dkt_relay_event_t){.kind = DKT_RELAY_READ_ROW, .row = s_row(4, 0)});
    dkt_relay_out_t out =
        s_step(&relay, 2, (dkt_relay_event_t){.kind = DKT_RELAY_READ_DONE, .complete = true});
    assert_true(out.read);
    assert_int_equal(out.read_from.after_seq, 4);
    dkt_relay_fini(&relay);
}

static void test_relay_other_stream_rewinds(void **state)
{
    (void)state;
    static const dkt_relay_mark_t streams[] = {
        {.stream_created_ms = 78, .stream_seq = 100}, /* made anew */
        {.stream_created_ms = 77, .stream_seq = 4},   /* lost its end */
    };
    for (int i = 0; i < 2; i++) {
        dkt_relay_t relay;
        s_begin(&relay, 9);
        s_step(&relay, 1, (dkt_relay_event_t){.kind = DKT_RELAY_BREAK});
        dkt_relay_out_t out =
            s_step(&relay, 2, (dkt_relay_event_t){.kind = DKT_RELAY_STREAM, .stream = streams[i]});
        assert_true(out.read && !out.read_from.from_kept);
        assert_int_equal(out.read_from.after_seq, 0);
        assert_int_equal(relay.rewinds, 1);
        dkt_relay_fini(&relay);
    }
}

/* -- the world -- */

typedef struct {
    uint64_t seq;
    uint32_t message;
} t_message_t;

typedef struct {
    uint64_t random;
    int64_t now_ms;
    dkt_relay_t relay;
    bool alive;                    /* the relay's owner */
    uint32_t messages[T_ROWS_MAX]; /* of row seq - 1 */
    uint64_t committed, oldest;    /* journal: rows oldest .. committed are there */
    dkt_relay_mark_t stored;
    bool asked;
    dkt_relay_read_t read;
    uint64_t read_to; /* what the read sees */
    /* NATS */
    bool up, connected;
    dkt_relay_mark_t stream;
    uint32_t wire_count, ack_count;
    t_message_t wire[T_WIRE_MAX];
    t_message_t acks[T_WIRE_MAX];
    uint64_t ack_seqs[T_WIRE_MAX];
    /* what a consumer of the current stream has seen */
    uint64_t seen[T_ROWS_MAX];
    uint64_t newest_seq;
    uint32_t newest_message;
    uint64_t from; /* every row from here on must be in the stream in the end */
} t_world_t;

static void s_feed(t_world_t *world, dkt_relay_event_t event)
{
    dkt_relay_out_t out;
    dkt_relay_step(&world->relay, world->now_ms, &event, DKT_RELAY_WINDOW, &out);
    assert_true(world->relay.open <= DKT_RELAY_WINDOW);
    if (out.read) {
        world->asked = true;
        world->read = out.read_from;
        world->read_to = world->committed;
    }
    if (out.mark) {
        assert_true(out.marked.acked_seq <= world->committed);
        world->stored = out.marked;
    }
    for (uint32_t i = 0; i < out.send_count; i++) {
        assert_true(world->connected && world->wire_count < T_WIRE_MAX);
        world->wire[world->wire_count++] =
            (t_message_t){out.sends[i].row->seq, out.sends[i].message};
    }
}

static void s_store(t_world_t *world, t_message_t message)
{
    uint64_t bit = UINT64_C(1) << message.message;
    bool fresh = !(world->seen[message.seq - 1] & bit);
    if (fresh) {
        bool ordered = message.seq > world->newest_seq || (message.seq == world->newest_seq &&
                                                           message.message > world->newest_message);
        assert_true(ordered || world->newest_seq == 0);
        world->newest_seq = message.seq;
        world->newest_message = message.message;
        world->seen[message.seq - 1] |= bit;
        world->stream.stream_seq++;
    }
}

/* The server takes the first message on the wire; its answer may come twice. */
static void s_deliver(t_world_t *world)
{
    if (!world->up || world->wire_count == 0) {
        return;
    }
    t_message_t message = world->wire[0];
    memmove(world->wire, world->wire + 1, --world->wire_count * sizeof *world->wire);
    s_store(world, message);
    for (uint32_t i = 0; i < 1 + (random_below(&world->random, 20) == 0 ? 1u : 0u); i++) {
        if (world->ack_count < T_WIRE_MAX) {
            world->ack_seqs[world->ack_count] = world->stream.stream_seq;
            world->acks[world->ack_count++] = message;
        }
    }
}

static void s_ack(t_world_t *world)
{
    if (world->ack_count == 0) {
        return;
    }
    t_message_t message = world->acks[0];
    uint64_t stream_seq = world->ack_seqs[0];
    world->ack_count--;
    memmove(world->acks, world->acks + 1, world->ack_count * sizeof *world->acks);
    memmove(world->ack_seqs, world->ack_seqs + 1, world->ack_count * sizeof *world->ack_seqs);
    if (random_below(&world->random, 30) != 0 && world->alive) { /* else it is lost */
        s_feed(world, (dkt_relay_event_t){.kind = DKT_RELAY_ACKED,
                                          .seq = message.seq,
                                          .message = message.message,
                                          .stream_seq = stream_seq});
    }
}

/* Some of what is on the wire still arrives, then the rest and all answers are gone. */
static void s_break(t_world_t *world, bool wipe)
{
    for (uint32_t i = random_below(&world->random, 8); i > 0; i--) {
        s_deliver(world);
    }
    world->wire_count = world->ack_count = 0;
    world->connected = false;
    if (wipe) {
        world->stream =
            (dkt_relay_mark_t){.stream_created_ms = world->stream.stream_created_ms + 1};
        memset(world->seen, 0, sizeof world->seen);
        world->newest_seq = 0;
        world->from = world->oldest;
    }
    if (world->alive) {
        s_feed(world, (dkt_relay_event_t){.kind = DKT_RELAY_BREAK});
    }
}

static void s_connect(t_world_t *world)
{
    if (world->up && world->alive && !world->connected) {
        world->connected = true;
        s_feed(world, (dkt_relay_event_t){.kind = DKT_RELAY_STREAM, .stream = world->stream});
    }
}

static void s_commit(t_world_t *world)
{
    if (!world->alive || world->committed == T_ROWS_MAX) {
        return;
    }
    uint32_t messages = random_below(&world->random, 4);
    world->messages[world->committed++] = messages;
    bool dropped = random_below(&world->random, 10) == 0;
    dkt_relay_event_t event = {.kind = DKT_RELAY_ROW, .seq = world->committed};
    event.row = dropped ? NULL : s_row(world->committed, messages);
    s_feed(world, event);
}

static void s_read(t_world_t *world)
{
    if (!world->asked || !world->alive) {
        return;
    }
    world->asked = false;
    uint64_t after = world->read.from_kept ? world->stored.acked_seq : world->read.after_seq;
    uint64_t seq = after + 1 > world->oldest ? after + 1 : world->oldest;
    uint32_t count = 0;
    for (; seq <= world->read_to && count < world->read.limit; seq++, count++) {
        s_feed(world, (dkt_relay_event_t){.kind = DKT_RELAY_READ_ROW,
                                          .row = s_row(seq, world->messages[seq - 1])});
    }
    s_feed(world, (dkt_relay_event_t){.kind = DKT_RELAY_READ_DONE,
                                      .mark = world->stored,
                                      .stream = world->stream,
                                      .complete = count < world->read.limit});
}

/* The owner dies; the next one knows what is stored and nothing else. */
static void s_restart(t_world_t *world)
{
    if (world->alive) {
        s_break(world, false);
        dkt_relay_fini(&world->relay);
        world->asked = false;
    }
    world->alive = true;
    dkt_relay_init(&world->relay);
    s_feed(world, (dkt_relay_event_t){.kind = DKT_RELAY_BEGIN, .seq = world->committed});
}

/* What was acknowledged, on this very stream, and is old leaves the journal. */
static void s_retain(t_world_t *world)
{
    if (world->stored.stream_created_ms == world->stream.stream_created_ms &&
        world->committed > T_RETENTION && world->stored.acked_seq > world->oldest &&
        world->oldest + T_RETENTION < world->committed) {
        world->oldest++;
    }
}

static void s_world_step(t_world_t *world)
{
    world->now_ms += random_below(&world->random, T_STEP_MS);
    uint32_t dice = random_below(&world->random, 1000);
    if (dice < 150) {
        s_commit(world);
    } else if (dice < 450) {
        s_deliver(world);
    } else if (dice < 750) {
        s_ack(world);
    } else if (dice < 800) {
        s_read(world);
    } else if (dice < 810) {
        s_break(world, false);
    } else if (dice < 812) {
        s_break(world, true);
    } else if (dice < 815) {
        s_break(world, false);
        world->up = !world->up;
    } else if (dice < 818) {
        s_restart(world);
    } else if (dice < 850) {
        s_retain(world);
    } else if (dice < 900) {
        s_connect(world);
    } else {
        s_feed(world, (dkt_relay_event_t){.kind = DKT_RELAY_TICK});
    }
}

static void s_finish(t_world_t *world)
{
    world->up = true;
    for (int i = 0; i < T_FINISH && !dkt_relay_quiet(&world->relay); i++) {
        world->now_ms += T_STEP_MS;
        s_connect(world);
        s_read(world);
        s_deliver(world);
        s_ack(world);
        s_feed(world, (dkt_relay_event_t){.kind = DKT_RELAY_TICK});
    }
    assert_true(dkt_relay_quiet(&world->relay));
    assert_int_equal(world->stored.acked_seq, world->committed);
    for (uint64_t seq = world->from > 0 ? world->from : 1; seq <= world->committed; seq++) {
        assert_int_equal(world->seen[seq - 1], (UINT64_C(1) << world->messages[seq - 1]) - 1);
    }
}

static void test_relay_delivers_everything_in_order(void **state)
{
    (void)state;
    t_world_t *world = calloc(1, sizeof *world);
    for (uint64_t seed = 1; seed <= T_SEEDS; seed++) {
        memset(world, 0, sizeof *world);
        world->random = seed;
        world->up = true;
        world->oldest = world->from = 1;
        world->stream.stream_created_ms = 1;
        s_restart(world);
        for (int i = 0; i < T_STEPS; i++) {
            s_world_step(world);
        }
        s_finish(world);
        dkt_relay_fini(&world->relay);
    }
    free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_relay_publishes_and_marks_the_prefix),
        cmocka_unit_test(test_relay_window_is_bounded),
        cmocka_unit_test(test_relay_silence_resends_from_the_first),
        cmocka_unit_test(test_relay_dropped_row_is_read_again),
        cmocka_unit_test(test_relay_row_dropped_during_a_read_is_not_skipped),
        cmocka_unit_test(test_relay_other_stream_rewinds),
        cmocka_unit_test(test_relay_delivers_everything_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
