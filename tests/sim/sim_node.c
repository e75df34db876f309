/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_impl.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- a node's shell: the port of the core -- */

typedef struct {
    world_t *world;
    uint32_t node;
} port_ctx_t;

static port_ctx_t s_ports[SIM_NODES];

static void s_submit(void *ctx, const dkt_batch_t *batch)
{
    port_ctx_t *port = ctx;
    world_t *self = port->world;
    node_t *node = &self->nodes[port->node];
    int64_t latency_us = 200 + sim_below(self, 1800);
    if (!self->healing && (self->options.can_stall || self->options.quiet) &&
        sim_chance(self, self->options.quiet ? 200 : 40)) {
        /* In a quiet world just around the adapter's limit: what is given up then still happens. */
        latency_us +=
            1000 * (self->options.quiet ? 1500 + sim_below(self, 1500) : sim_below(self, 6000));
        if (sim_chance(self, 300)) {
            self->slow_until_us = self->now_us + 1000 * SLOW_MS;
        }
    }
    if (self->now_us < self->slow_until_us) { /* below the adapter's limit: every one arrives */
        latency_us += 1000 * (900 + sim_below(self, 1000));
    }
    int64_t at_us = self->now_us > node->last_apply_us ? self->now_us : node->last_apply_us;
    at_us += latency_us;
    node->last_apply_us = at_us;
    bool late = at_us - self->now_us > 1000 * (int64_t)DKT_COMMIT_TIMEOUT_MS;
    bool lose = !self->healing && self->options.can_cut && sim_chance(self, 3);
    event_t event = {.kind = EV_APPLY,
                     .node = port->node,
                     .generation = node->generation,
                     .session = node->session,
                     .batch = sim_batch_copy(batch),
                     .lose_after = lose || late};
    if (lose && sim_chance(self, 500)) {
        /* Lost on the way there: it never runs, and the session is over. */
        sim_batch_destroy(&event.batch);
        sim_schedule(self, at_us - self->now_us,
                     (event_t){.kind = EV_CLOSE, .session = node->session});
    } else {
        sim_schedule(self, at_us - self->now_us, event);
    }
    if (lose || late) {
        /* The adapter gives up: what was sent is unknown. */
        sim_result_t *unknown = calloc(1, sizeof *unknown);
        assert(unknown);
        unknown->result.kind = batch->kind;
        unknown->result.outcome = DKT_STORE_UNKNOWN;
        int64_t give_up_us = late ? 1000 * (int64_t)DKT_COMMIT_TIMEOUT_MS : latency_us;
        sim_schedule(self, give_up_us,
                     (event_t){.kind = EV_RESULT,
                               .node = port->node,
                               .generation = node->generation,
                               .result = unknown});
    }
}

static void s_answer(void *ctx, dkt_work_t *work, const uint8_t *bytes, size_t len)
{
    port_ctx_t *port = ctx;
    world_t *self = port->world;
    uint32_t op = (uint32_t)work->seq;
    free(work);
    if (self->nodes[port->node].dead) {
        return;
    }
    dkt_answer_t answer;
    dkt_err_t err;
    if (dkt_answer_decode(bytes, len, &answer, &err) != DKT_OK || answer.msgid != op + 1) {
        sim_violate(self, "op %u got an answer that is not its own", op);
        return;
    }
    dkt_tenant_counts_t counts;
    dkt_tenant_counts(self->nodes[port->node].core, &counts);
    if (answer.reason.data && !self->options.can_unlock && counts.epoch != self->store.epoch &&
        sim_now_ms(self) - self->epoch_since_ms > DKT_FENCE_FRESH_MS + FENCE_SLACK_MS) {
        sim_violate(self, "op %u was refused by an owner that was replaced long ago", op);
    }
    sim_trace(self, op ^ (uint64_t)len << 32);
    self->summary.answers++;
    if (!self->healing && sim_chance(self, self->options.loss_permille)) {
        return;
    }
    event_t event = {.kind = EV_ANSWER,
                     .op = op,
                     .generation = (uint32_t)counts.epoch,
                     .bytes = malloc(len),
                     .len = (uint32_t)len};
    assert(event.bytes);
    memcpy(event.bytes, bytes, len);
    sim_schedule(self, 100 + sim_below(self, 3000), event);
}

static void s_give_back(void *ctx, dkt_work_t *work)
{
    (void)ctx;
    free(work); /* silence: the client tries again */
}

static bool s_hash(void *ctx, const dkt_hash_job_t *job)
{
    (void)ctx;
    (void)job;
    return false;
}

static void s_fill(void *ctx, void *bytes, size_t len)
{
    port_ctx_t *port = ctx;
    for (size_t i = 0; i < len; i++) {
        ((uint8_t *)bytes)[i] = (uint8_t)sim_random(port->world);
    }
}

static void s_changed(void *ctx, const dkt_settings_t *settings)
{
    (void)ctx;
    (void)settings;
}

static void s_migrated(void *ctx, const dkt_migrated_t *migrated)
{
    port_ctx_t *port = ctx;
    world_t *self = port->world;
    bool ran = migrated->outcome == DKT_MIGRATE_RAN;
    self->summary.migrated += ran ? 1 : 0;
    if (ran && migrated->version > self->store.schema_version) {
        sim_violate(self, "a step that did not run is told as done");
    }
}

static void s_log(void *ctx, dkt_log_level_t level, const char *text)
{
    (void)ctx;
    (void)level;
    (void)text;
}

/* -- nodes -- */

static void s_close_session(world_t *self, node_t *node)
{
    int64_t delay_us = node->last_apply_us > self->now_us ? node->last_apply_us - self->now_us : 0;
    sim_schedule(self, delay_us + 100 + sim_below(self, 2000),
                 (event_t){.kind = EV_CLOSE, .session = node->session});
}

/* The core has ended, or its process has died: the shell closes the store and forgets the core. */
static void s_bury(world_t *self, uint32_t index)
{
    node_t *node = &self->nodes[index];
    const dkt_tenant_end_t *end = dkt_tenant_end(node->core);
    bool lock_held = end->lock_held;
    if (!self->options.can_unlock && strstr(end->text, "lost an open ticket")) {
        sim_violate(self, "a ledger has lost an open ticket");
    }
    node->suspect_count = 0;
    for (uint32_t i = 0; i < end->suspect_count && i < 64; i++) {
        node->suspects[node->suspect_count++] = end->suspects[i];
    }
    if (!lock_held) {
        node->lock_refused_since_ms = 0;
    } else if (!node->lock_refused_since_ms) {
        node->lock_refused_since_ms = sim_now_ms(self);
    }
    dkt_tenant_destroy(&node->core);
    node->generation++;
    node->tick_at_us = 0;
    node->turn_at_us = 0;
    s_close_session(self, node);
    if (lock_held && !node->dead && self->assigned == index && !node->starting) {
        node->starting = true;
        sim_schedule(self, 1000 * (5 + sim_below(self, 45)),
                     (event_t){.kind = EV_START, .node = index});
    }
}

static void s_check_ledger(world_t *self, uint32_t index)
{
    node_t *node = &self->nodes[index];
    const dkt_ledger_t *ledger = dkt_tenant_ledger(node->core);
    dkt_err_t err;
    if (ledger && !dkt_ledger_check(ledger, &err)) {
        sim_violate(self, "ledger: %s", err.text);
    }
    dkt_tenant_counts_t counts;
    dkt_tenant_counts(node->core, &counts);
    if (!ledger || counts.epoch != self->store.epoch || counts.waiting > 0 ||
        node->last_apply_us > self->now_us || !dkt_tenant_settled(node->core)) {
        return;
    }
    for (uint32_t i = 0; i < self->store.ticket_count; i++) {
        const dkt_ticket_row_t *row = &self->store.tickets[i].row;
        dkt_promise_t promise;
        bool live = dkt_ledger_find(ledger, row->number, &promise);
        bool open = row->state == DKT_TICKET_OPEN;
        if (open && (!live || promise.place.minute != row->place.minute ||
                     promise.place.lane != row->place.lane)) {
            sim_violate(self, "ledger and database disagree about ticket %llu",
                        (unsigned long long)row->number);
        }
        if (!open && live && promise.state == DKT_TICKET_OPEN) {
            sim_violate(self, "the ledger keeps ticket %llu open", (unsigned long long)row->number);
        }
    }
}

/* One tick at a time: an earlier one makes a later one needless. */
static void s_schedule_tick(world_t *self, uint32_t index, int64_t delay_us)
{
    node_t *node = &self->nodes[index];
    int64_t at_us = self->now_us + delay_us;
    if (node->tick_at_us && node->tick_at_us <= at_us) {
        return;
    }
    node->tick_at_us = at_us;
    sim_schedule(self, delay_us,
                 (event_t){.kind = EV_TICK, .node = index, .generation = node->generation});
}

/* Has what nobody waits for its turn yet? Sometimes other tenants come first, but never for long.
 */
static bool s_may_flush(world_t *self, node_t *node)
{
    if (!dkt_tenant_background(node->core)) {
        node->turn_at_us = 0;
        return true;
    }
    if (node->turn_at_us == 0) {
        node->turn_at_us = self->now_us;
        node->turn_at_us += sim_chance(self, 500) ? 0 : 1000 * sim_below(self, DKT_TURN_WAIT_MS);
    }
    return node->turn_at_us <= self->now_us;
}

void sim_step(world_t *self, uint32_t index, const dkt_tenant_event_t *event)
{
    node_t *node = &self->nodes[index];
    dkt_tenant_event_t flush = {.kind = DKT_TEV_FLUSH};
    self->summary.steps++;
    dkt_tenant_step(node->core, sim_now_ms(self), event);
    if (!s_may_flush(self, node)) {
        s_schedule_tick(self, index, node->turn_at_us - self->now_us);
    } else if (sim_chance(self, 700)) { /* sometimes more arrives before the shell flushes */
        dkt_tenant_step(node->core, sim_now_ms(self), &flush);
    } else {
        s_schedule_tick(self, index, 100 + sim_below(self, 2000));
    }
    if (dkt_tenant_state(node->core) == DKT_TENANT_ENDED) {
        s_bury(self, index);
        return;
    }
    if (sim_chance(self, 100)) {
        s_check_ledger(self, index);
    }
    int64_t due_ms = dkt_tenant_due_mono_ms(node->core);
    if (due_ms != INT64_MAX) {
        int64_t delay_us = 1000 * due_ms - self->now_us;
        s_schedule_tick(self, index, delay_us > 1000 ? delay_us : 1000);
    }
}

/* pg_terminate_backend: the session is over at once, its client hears it a little later. */
void sim_terminate(world_t *self, uint32_t session)
{
    self->session_open[session] = false;
    sim_store_close(&self->store, session);
    for (uint32_t i = 0; i < SIM_NODES; i++) {
        if (self->nodes[i].core && self->nodes[i].session == session) {
            sim_schedule(
                self, 1000 * sim_below(self, 100),
                (event_t){.kind = EV_LOST, .node = i, .generation = self->nodes[i].generation});
        }
    }
}

void sim_start(world_t *self, uint32_t index)
{
    node_t *node = &self->nodes[index];
    node->starting = false;
    if (node->core || node->dead || self->session_next + 1 >= SIM_SESSIONS_MAX) {
        return;
    }
    if (node->lock_refused_since_ms && self->assigned == index &&
        sim_now_ms(self) - self->assigned_at_ms > TERMINATE_AFTER_MS) {
        uint32_t holder = self->store.lock_session;
        if (holder) {
            sim_terminate(self, holder);
        }
    }
    s_ports[index] = (port_ctx_t){.world = self, .node = index};
    dkt_tenant_port_t port = {.ctx = &s_ports[index],
                              .submit = s_submit,
                              .answer = s_answer,
                              .give_back = s_give_back,
                              .hash = s_hash,
                              .random = s_fill,
                              .changed = s_changed,
                              .migrated = s_migrated,
                              .log = s_log};
    if (self->assigned == index) {
        node->table = self->table;
    }
    dkt_tenant_config_t config = {.client = self->client,
                                  .table = node->table,
                                  .id_keys = &self->ring,
                                  .token_key = &self->token_key,
                                  .sub_domain = "sim",
                                  .token_ttl_ms = 900000,
                                  .rehearses = true,
                                  .age = {.round_ms = self->options.age_round_ms,
                                          .first_ms = self->options.age_round_ms,
                                          .pause_ms = DKT_AGE_PAUSE_MS,
                                          .request_ids_ms = self->options.request_ids_ms,
                                          .journal_ms = self->options.journal_ms}};
    node->core = dkt_tenant_new(&config, &port, sim_now_ms(self));
    node->session = ++self->session_next;
    self->session_open[node->session] = true;
    node->last_apply_us = self->now_us;
    node->last_result_us = self->now_us;
    self->summary.activations++;
    dkt_tenant_event_t connected = {.kind = DKT_TEV_CONNECTED};
    sim_step(self, index, &connected);
}

void sim_lose(world_t *self, uint32_t index)
{
    dkt_tenant_event_t lost = {.kind = DKT_TEV_LOST};
    if (self->nodes[index].core) {
        sim_step(self, index, &lost);
    }
}
