/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_impl.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- randomness: splitmix64, all of it from the seed -- */

uint64_t sim_random(world_t *self)
{
    uint64_t z = self->rng += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

uint32_t sim_below(world_t *self, uint32_t bound)
{
    return bound ? (uint32_t)(sim_random(self) % bound) : 0;
}

bool sim_chance(world_t *self, uint32_t permille)
{
    return sim_below(self, 1000) < permille;
}

int64_t sim_now_ms(const world_t *self)
{
    return self->now_us / 1000;
}

void sim_violate(world_t *self, const char *format, ...)
{
    if (self->violation[0]) {
        return;
    }
    va_list args;
    va_start(args, format);
    vsnprintf(self->violation, sizeof self->violation, format, args);
    va_end(args);
}

void sim_trace(world_t *self, uint64_t value)
{
    self->summary.trace = (self->summary.trace ^ value) * UINT64_C(0x100000001B3);
}

/* -- the heap -- */

static bool s_before(const event_t *a, const event_t *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->tie < b->tie;
}

void sim_schedule(world_t *self, int64_t delay_us, event_t event)
{
    assert(self->heap_count < EVENTS_MAX);
    event.at_us = self->now_us + delay_us;
    event.tie = sim_random(self);
    uint32_t i = self->heap_count++;
    while (i > 0 && s_before(&event, &self->heap[(i - 1) / 2])) {
        self->heap[i] = self->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    self->heap[i] = event;
}

static event_t s_next(world_t *self)
{
    event_t top = self->heap[0];
    event_t last = self->heap[--self->heap_count];
    uint32_t i = 0;
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= self->heap_count) {
            break;
        }
        if (child + 1 < self->heap_count && s_before(&self->heap[child + 1], &self->heap[child])) {
            child++;
        }
        if (!s_before(&self->heap[child], &last)) {
            break;
        }
        self->heap[i] = self->heap[child];
        i = child;
    }
    self->heap[i] = last;
    return top;
}

/* -- the database's side -- */

static void s_on_apply(world_t *self, event_t *event)
{
    if (!self->session_open[event->session]) {
        return;
    }
    self->store.clock_ms = START_MS + sim_now_ms(self) + self->clock_offset_ms;
    sim_result_t *result = sim_store_apply(&self->store, event->session, event->batch);
    sim_trace(self, (uint64_t)result->result.kind << 8 | result->result.outcome);
    if (self->store.epoch != self->epoch_seen) {
        self->epoch_seen = self->store.epoch;
        self->epoch_since_ms = sim_now_ms(self);
    }
    if (event->lose_after) {
        sim_result_destroy(&result);
        sim_schedule(self, 100, (event_t){.kind = EV_CLOSE, .session = event->session});
        return;
    }
    node_t *node = &self->nodes[event->node];
    int64_t at_us = self->now_us + 50 + sim_below(self, 1000);
    node->last_result_us = at_us > node->last_result_us ? at_us : node->last_result_us + 1;
    sim_schedule(self, node->last_result_us - self->now_us,
                 (event_t){.kind = EV_RESULT,
                           .node = event->node,
                           .generation = event->generation,
                           .session = event->session,
                           .result = result});
}

static void s_on_result(world_t *self, const event_t *event)
{
    node_t *node = &self->nodes[event->node];
    if (!node->core || node->generation != event->generation) {
        return;
    }
    if (event->session && !self->session_open[event->session]) {
        sim_lose(self, event->node);
        return;
    }
    dkt_tenant_event_t result = {.kind = DKT_TEV_RESULT, .result = &event->result->result};
    sim_step(self, event->node, &result);
}

/* -- the nemesis -- */

static void s_kill(world_t *self, uint32_t index)
{
    node_t *node = &self->nodes[index];
    node->dead = true;
    sim_lose(self, index); /* dead: whatever the core says now is not heard */
    sim_schedule(self, 1000 * (100 + sim_below(self, 500)),
                 (event_t){.kind = EV_BOOT, .node = index});
}

static void s_move(world_t *self)
{
    uint32_t old = self->assigned;
    self->assigned = 1 - old;
    self->table.version++;
    self->assigned_at_ms = sim_now_ms(self);
    self->nodes[self->assigned].lock_refused_since_ms = 0;
    if (self->nodes[old].core && !self->nodes[old].stopped && sim_chance(self, 700)) {
        dkt_tenant_event_t drain = {.kind = DKT_TEV_DRAIN};
        sim_step(self, old, &drain);
    }
}

static void s_fault(world_t *self)
{
    if (self->healing || !self->options.faults_every_ms) {
        return;
    }
    sim_schedule(self, 1000 * (1 + sim_below(self, 2 * self->options.faults_every_ms)),
                 (event_t){.kind = EV_FAULT});
    uint32_t index = sim_below(self, SIM_NODES);
    node_t *node = &self->nodes[index];
    self->summary.faults++;
    switch (sim_below(self, 6)) {
    case 0:
        if (self->options.can_kill && !node->dead && !node->stopped) {
            s_kill(self, index);
        }
        break;
    case 1:
        if (self->options.can_stop && !node->dead && !node->stopped) {
            node->stopped = true;
            sim_schedule(self, 1000 * (300 + sim_below(self, 6000)),
                         (event_t){.kind = EV_WAKE, .node = index});
        }
        break;
    case 2:
        if (self->options.can_move) {
            s_move(self);
        }
        break;
    case 3:
        if (self->options.can_cut && node->core && !node->stopped) {
            sim_terminate(self, node->session);
        }
        break;
    case 4:
        if (self->options.can_unlock) {
            self->store.lock_session = 0;
        }
        break;
    default:
        if (self->options.can_step) {
            self->clock_offset_ms += (int64_t)sim_below(self, 8000) - 4000;
        }
        break;
    }
}

/* Asked again and again, of whoever has a core, as a directory does while a row says so. */
static void s_migrate(world_t *self)
{
    dkt_tenant_event_t event = {.kind = DKT_TEV_MIGRATE,
                                .schema_version = self->store.schema_version + 1};
    if (sim_chance(self, 300)) {
        self->store.bad_steps += sim_below(self, 3);
    }
    for (uint32_t i = 0; i < SIM_NODES; i++) {
        if (self->nodes[i].core && !self->nodes[i].stopped) {
            sim_step(self, i, &event);
        }
    }
    if (!self->healing) {
        sim_schedule(self, 1000 * (1 + sim_below(self, 3000)), (event_t){.kind = EV_MIGRATE});
    }
}

/* A stopped node's events wait for it. */
static bool s_park(world_t *self, const event_t *event)
{
    bool to_node = event->kind == EV_REQUEST || event->kind == EV_RESULT ||
                   event->kind == EV_START || event->kind == EV_TICK || event->kind == EV_LOST;
    node_t *node = &self->nodes[event->node];
    if (!to_node || !node->stopped) {
        return false;
    }
    if (node->parked_count == node->parked_max) {
        node->parked_max = node->parked_max ? node->parked_max * 2 : 64;
        node->parked = realloc(node->parked, node->parked_max * sizeof *node->parked);
        assert(node->parked);
    }
    node->parked[node->parked_count++] = *event;
    return true;
}

static void s_handle(world_t *self, event_t *event);
static void s_free_event(event_t *event);

static void s_wake(world_t *self, uint32_t index)
{
    node_t *node = &self->nodes[index];
    node->stopped = false;
    for (uint32_t i = 0; i < node->parked_count; i++) {
        s_handle(self, &node->parked[i]);
        s_free_event(&node->parked[i]);
    }
    node->parked_count = 0;
}

static void s_on_tick(world_t *self, const event_t *event)
{
    node_t *node = &self->nodes[event->node];
    if (node->core && node->generation == event->generation) {
        node->tick_at_us = event->at_us >= node->tick_at_us ? 0 : node->tick_at_us;
        dkt_tenant_event_t tick = {.kind = DKT_TEV_TICK};
        sim_step(self, event->node, &tick);
    }
}

static void s_handle(world_t *self, event_t *event)
{
    switch (event->kind) {
    case EV_OP:
        sim_think(self);
        break;
    case EV_SEND:
        sim_send(self, event->op);
        break;
    case EV_AGAIN:
        sim_again(self, event->op);
        break;
    case EV_REQUEST:
        sim_on_request(self, event);
        break;
    case EV_ANSWER:
        sim_on_answer(self, event);
        break;
    case EV_APPLY:
        s_on_apply(self, event);
        break;
    case EV_RESULT:
        s_on_result(self, event);
        break;
    case EV_CLOSE:
        self->session_open[event->session] = false;
        sim_store_close(&self->store, event->session);
        break;
    case EV_START:
        sim_start(self, event->node);
        break;
    case EV_TICK:
        s_on_tick(self, event);
        break;
    case EV_FAULT:
        s_fault(self);
        break;
    case EV_MIGRATE:
        s_migrate(self);
        break;
    case EV_WAKE:
        s_wake(self, event->node);
        break;
    case EV_BOOT:
        self->nodes[event->node].dead = false;
        break;
    case EV_LOST:
        if (self->nodes[event->node].generation == event->generation) {
            sim_lose(self, event->node);
        }
        break;
    }
}

static void s_free_event(event_t *event)
{
    sim_batch_destroy(&event->batch);
    sim_result_destroy(&event->result);
    free(event->bytes);
}

static void s_run_until(world_t *self, int64_t end_us)
{
    while (self->heap_count > 0 && self->heap[0].at_us < end_us && !self->violation[0]) {
        event_t event = s_next(self);
        self->now_us = event.at_us > self->now_us ? event.at_us : self->now_us;
        if (!s_park(self, &event)) {
            s_handle(self, &event);
            s_free_event(&event);
        }
        if (self->store.violation[0]) {
            sim_violate(self, "%s", self->store.violation);
        }
    }
    self->now_us = end_us;
}

static void s_heal(world_t *self)
{
    self->healing = true;
    for (uint32_t i = 0; i < SIM_NODES; i++) {
        self->nodes[i].dead = false;
        if (self->nodes[i].stopped) {
            s_wake(self, i);
        }
    }
}

static world_t *s_world_new(const sim_options_t *options)
{
    world_t *self = calloc(1, sizeof *self);
    assert(self);
    self->options = *options;
    self->rng = options->seed * UINT64_C(0xD1342543DE82EF95) + 1;
    self->heap = calloc(EVENTS_MAX, sizeof *self->heap);
    self->ops = calloc(SIM_OPS_MAX, sizeof *self->ops);
    assert(self->heap && self->ops);
    self->ring.count = 1;
    memset(self->ring.keys[0].key, 7, sizeof self->ring.keys[0].key);
    const uint8_t random[7] = {1, 2, 3, 4, 5, 6, 7};
    self->client = dkt_client_make(&self->ring, random);
    self->table = (dkt_table_version_t){.epoch = 1, .version = 1};
    dkt_settings_t settings;
    dkt_settings_default(&settings, options->resolvers);
    const char *names[] = {"urgent", "normal", "slow"};
    const uint16_t levels[] = {3, 6, 10};
    for (int i = 0; i < 3; i++) {
        snprintf(settings.classes[i].name, sizeof settings.classes[i].name, "%s", names[i]);
        settings.classes[i].level_minutes = levels[i];
    }
    settings.rebooking = options->rebooking;
    sim_store_init(&self->store, &settings, START_MS);
    self->store.tickets_kept_ms = options->tickets_ms;
    self->store.lock_may_vanish = options->can_unlock;
    return self;
}

static void s_world_destroy(world_t *self)
{
    for (uint32_t i = 0; i < SIM_NODES; i++) {
        self->nodes[i].dead = true;
        sim_lose(self, i);
        for (uint32_t j = 0; j < self->nodes[i].parked_count; j++) {
            s_free_event(&self->nodes[i].parked[j]);
        }
        free(self->nodes[i].parked);
    }
    for (uint32_t i = 0; i < self->heap_count; i++) {
        s_free_event(&self->heap[i]);
    }
    free(self->heap);
    free(self->ops);
    free(self);
}

sim_options_t sim_options(uint64_t seed)
{
    world_t dice = {.rng = seed ^ UINT64_C(0xA5A5A5A5)};
    sim_options_t options = {.seed = seed,
                             .faults_every_ms =
                                 sim_chance(&dice, 100) ? 0 : 500 + sim_below(&dice, 8000),
                             .ops_every_ms = 20 + sim_below(&dice, 300),
                             .length_ms = 60000 + sim_below(&dice, 180000),
                             .resolvers = (uint16_t)(1 + sim_below(&dice, 3)),
                             .rebooking = sim_chance(&dice, 700),
                             .loss_permille = sim_chance(&dice, 500) ? sim_below(&dice, 100) : 0,
                             .can_kill = sim_chance(&dice, 500),
                             .can_stop = sim_chance(&dice, 500),
                             .can_move = sim_chance(&dice, 500),
                             .can_cut = sim_chance(&dice, 500),
                             .can_stall = sim_chance(&dice, 300),
                             .can_step = sim_chance(&dice, 300),
                             .can_poison = sim_chance(&dice, 300),
                             .can_unlock = sim_chance(&dice, 100),
                             .quiet = sim_chance(&dice, 150)};
    /* Not in quiet worlds: they wait for a stall at a certain moment, and steps of age would have
     * it first. */
    bool ages = !options.quiet && !sim_chance(&dice, 200);
    options.age_round_ms = ages ? 1000 + sim_below(&dice, 4000) : 0;
    options.request_ids_ms = 30000 + sim_below(&dice, 30000);
    options.tickets_ms = options.request_ids_ms + sim_below(&dice, 30000);
    options.journal_ms = 5000 + sim_below(&dice, 30000);
    options.can_migrate = sim_chance(&dice, 300);
    return options;
}

bool sim_run(const sim_options_t *options, sim_summary_t *summary, char *violation,
             size_t violation_bytes)
{
    world_t *self = s_world_new(options);
    sim_schedule(self, 0, (event_t){.kind = EV_OP});
    sim_schedule(self, 1000 * 500, (event_t){.kind = EV_FAULT});
    if (options->can_migrate) {
        sim_schedule(self, 1000 * 700, (event_t){.kind = EV_MIGRATE});
    }
    s_run_until(self, 1000 * (int64_t)options->length_ms);
    s_heal(self);
    s_run_until(self, 1000 * ((int64_t)options->length_ms + HEAL_MS));
    if (!sim_store_check(&self->store)) {
        sim_violate(self, "%s", self->store.violation);
    }
    if (!self->violation[0]) {
        sim_check_history(self);
    }
    *summary = self->summary;
    snprintf(violation, violation_bytes, "%s", self->violation);
    bool good = !self->violation[0];
    s_world_destroy(self);
    return good;
}
