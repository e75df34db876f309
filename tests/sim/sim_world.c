/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_world.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/core/ids.h"
#include "lib/core/proto.h"

#define START_MS           INT64_C(1790000000000) /* any wall clock time */
#define EVENTS_MAX         200000
#define HEAL_MS            60000 /* after the faults: everything must have ended by then */
#define CLIENT_RETRY_MS    400
#define CLIENT_BUDGET_MS   5000
#define FENCE_SLACK_MS     100  /* an answer decided just before the fence closed, on its way */
#define TERMINATE_AFTER_MS 2000 /* rule 11: a lock still held this long after a new assignment */
#define FRAME_BYTES        1024

typedef enum { OP_CREATE, OP_CANCEL, OP_RESOLVE, OP_HOLD, OP_ALLOCATE, OP_RELEASE } op_kind_t;

typedef struct {
    op_kind_t kind;
    uint32_t about; /* the op whose ticket or hold this one is about */
    uint8_t frame[FRAME_BYTES];
    uint32_t frame_len;
    bool ended, created, refused, cancelled, too_late, released;
    uint64_t ticket;
    uint64_t created_epoch;
    dkt_uuid_t request_id;
    dkt_slot_ref_t slot;
    char slot_text[DKT_ID_CHARS_MAX + 1];
    char ticket_text[DKT_ID_CHARS_MAX + 1];
} op_t;

typedef enum {
    EV_OP,      /* a client thinks of something */
    EV_SEND,    /* an op's (next) attempt */
    EV_REQUEST, /* arrives at node */
    EV_ANSWER,  /* arrives at the client */
    EV_APPLY,   /* a batch takes effect */
    EV_RESULT,  /* its result arrives at node */
    EV_CLOSE,   /* the server sees the end of a session */
    EV_START,   /* a node activates the tenant */
    EV_TICK,
    EV_FAULT,
    EV_WAKE, /* a stopped node goes on */
    EV_BOOT, /* a killed node is there again */
    EV_LOST, /* a node hears that its connection is gone */
} event_kind_t;

typedef struct {
    int64_t at_us;
    uint64_t tie;
    event_kind_t kind;
    uint32_t node, generation, session, op;
    bool lose_after;
    sim_batch_t *batch;
    sim_result_t *result;
    uint8_t *bytes;
    uint32_t len;
} event_t;

typedef struct {
    dkt_tenant_t *core;
    uint32_t generation; /* of the core: events for an older one are stale */
    uint32_t session;
    bool dead, stopped, starting;
    int64_t last_apply_us;
    dkt_table_version_t table;
    int64_t lock_refused_since_ms;
    dkt_uuid_t suspects[64];
    uint32_t suspect_count;
    event_t *parked; /* what arrived while it was stopped */
    uint32_t parked_count, parked_max;
} node_t;

typedef struct {
    sim_options_t options;
    uint64_t rng;
    int64_t now_us;
    event_t *heap;
    uint32_t heap_count;
    node_t nodes[SIM_NODES];
    uint32_t assigned;
    dkt_table_version_t table;
    int64_t assigned_at_ms;
    uint32_t session_next;
    bool session_open[SIM_SESSIONS_MAX];
    sim_store_t store;
    int64_t epoch_since_ms;
    uint64_t epoch_seen;
    int64_t clock_offset_ms; /* of the database */
    op_t *ops;
    uint32_t op_count;
    bool healing;
    dkt_keyring_t ring;
    dkt_client_t client;
    dkt_token_secret_t token_key;
    sim_summary_t summary;
    char violation[256];
} world_t;

/* -- randomness: splitmix64, all of it from the seed -- */

static uint64_t s_random(world_t *self)
{
    uint64_t z = self->rng += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static uint32_t s_below(world_t *self, uint32_t bound)
{
    return bound ? (uint32_t)(s_random(self) % bound) : 0;
}

static bool s_chance(world_t *self, uint32_t permille)
{
    return s_below(self, 1000) < permille;
}

static int64_t s_now_ms(const world_t *self)
{
    return self->now_us / 1000;
}

static void s_violate(world_t *self, const char *format, ...)
{
    if (self->violation[0]) {
        return;
    }
    va_list args;
    va_start(args, format);
    vsnprintf(self->violation, sizeof self->violation, format, args);
    va_end(args);
}

static void s_trace(world_t *self, uint64_t value)
{
    self->summary.trace = (self->summary.trace ^ value) * UINT64_C(0x100000001B3);
}

/* -- the heap -- */

static bool s_before(const event_t *a, const event_t *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->tie < b->tie;
}

static void s_schedule(world_t *self, int64_t delay_us, event_t event)
{
    assert(self->heap_count < EVENTS_MAX);
    event.at_us = self->now_us + delay_us;
    event.tie = s_random(self);
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
    int64_t latency_us = 200 + s_below(self, 1800);
    if (!self->healing && self->options.can_stall && s_chance(self, 4)) {
        latency_us += 1000 * s_below(self, 6000);
    }
    int64_t at_us = self->now_us > node->last_apply_us ? self->now_us : node->last_apply_us;
    at_us += latency_us;
    node->last_apply_us = at_us;
    bool late = at_us - self->now_us > 1000 * (int64_t)DKT_COMMIT_TIMEOUT_MS;
    bool lose = !self->healing && self->options.can_cut && s_chance(self, 3);
    event_t event = {.kind = EV_APPLY,
                     .node = port->node,
                     .generation = node->generation,
                     .session = node->session,
                     .batch = sim_batch_copy(batch),
                     .lose_after = lose || late};
    if (lose && s_chance(self, 500)) {
        /* Lost on the way there: it never runs, and the session is over. */
        sim_batch_destroy(&event.batch);
        s_schedule(self, at_us - self->now_us,
                   (event_t){.kind = EV_CLOSE, .session = node->session});
    } else {
        s_schedule(self, at_us - self->now_us, event);
    }
    if (lose || late) {
        /* The adapter gives up: what was sent is unknown. */
        sim_result_t *unknown = calloc(1, sizeof *unknown);
        assert(unknown);
        unknown->result.kind = batch->kind;
        unknown->result.outcome = DKT_STORE_UNKNOWN;
        int64_t give_up_us = late ? 1000 * (int64_t)DKT_COMMIT_TIMEOUT_MS : latency_us;
        s_schedule(self, give_up_us,
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
        s_violate(self, "op %u got an answer that is not its own", op);
        return;
    }
    dkt_tenant_counts_t counts;
    dkt_tenant_counts(self->nodes[port->node].core, &counts);
    if (answer.reason.data && counts.epoch != self->store.epoch &&
        s_now_ms(self) - self->epoch_since_ms > DKT_FENCE_FRESH_MS + FENCE_SLACK_MS) {
        s_violate(self, "op %u was refused by an owner that was replaced long ago", op);
    }
    s_trace(self, op ^ (uint64_t)len << 32);
    self->summary.answers++;
    if (!self->healing && s_chance(self, self->options.loss_permille)) {
        return;
    }
    event_t event = {.kind = EV_ANSWER,
                     .op = op,
                     .generation = (uint32_t)counts.epoch,
                     .bytes = malloc(len),
                     .len = (uint32_t)len};
    assert(event.bytes);
    memcpy(event.bytes, bytes, len);
    s_schedule(self, 100 + s_below(self, 3000), event);
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
        ((uint8_t *)bytes)[i] = (uint8_t)s_random(port->world);
    }
}

static void s_settings_changed(void *ctx, const dkt_settings_t *settings)
{
    (void)ctx;
    (void)settings;
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
    s_schedule(self, delay_us + 100 + s_below(self, 2000),
               (event_t){.kind = EV_CLOSE, .session = node->session});
}

/* The core has ended, or its process has died: the shell closes the store and forgets the core. */
static void s_bury(world_t *self, uint32_t index)
{
    node_t *node = &self->nodes[index];
    const dkt_tenant_end_t *end = dkt_tenant_end(node->core);
    bool lock_held = end->lock_held;
    node->suspect_count = 0;
    for (uint32_t i = 0; i < end->suspect_count && i < 64; i++) {
        node->suspects[node->suspect_count++] = end->suspects[i];
    }
    if (!lock_held) {
        node->lock_refused_since_ms = 0;
    } else if (!node->lock_refused_since_ms) {
        node->lock_refused_since_ms = s_now_ms(self);
    }
    dkt_tenant_destroy(&node->core);
    node->generation++;
    s_close_session(self, node);
    if (lock_held && !node->dead && self->assigned == index && !node->starting) {
        node->starting = true;
        s_schedule(self, 1000 * (5 + s_below(self, 45)),
                   (event_t){.kind = EV_START, .node = index});
    }
}

static void s_check_ledger(world_t *self, uint32_t index)
{
    node_t *node = &self->nodes[index];
    const dkt_ledger_t *ledger = dkt_tenant_ledger(node->core);
    dkt_err_t err;
    if (ledger && !dkt_ledger_check(ledger, &err)) {
        s_violate(self, "ledger: %s", err.text);
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
            s_violate(self, "ledger and database disagree about ticket %llu",
                      (unsigned long long)row->number);
        }
        if (!open && live && promise.state == DKT_TICKET_OPEN) {
            s_violate(self, "the ledger keeps ticket %llu open", (unsigned long long)row->number);
        }
    }
}

static void s_step(world_t *self, uint32_t index, const dkt_tenant_event_t *event)
{
    node_t *node = &self->nodes[index];
    dkt_tenant_event_t flush = {.kind = DKT_TEV_FLUSH};
    self->summary.steps++;
    dkt_tenant_step(node->core, s_now_ms(self), event);
    if (s_chance(self, 700)) { /* sometimes more arrives before the shell flushes */
        dkt_tenant_step(node->core, s_now_ms(self), &flush);
    } else {
        s_schedule(self, 100 + s_below(self, 2000),
                   (event_t){.kind = EV_TICK, .node = index, .generation = node->generation});
    }
    if (dkt_tenant_state(node->core) == DKT_TENANT_ENDED) {
        s_bury(self, index);
        return;
    }
    if (s_chance(self, 100)) {
        s_check_ledger(self, index);
    }
    int64_t due_ms = dkt_tenant_due_mono_ms(node->core);
    if (due_ms != INT64_MAX) {
        int64_t delay_us = 1000 * due_ms - self->now_us;
        s_schedule(self, delay_us > 1000 ? delay_us : 1000,
                   (event_t){.kind = EV_TICK, .node = index, .generation = node->generation});
    }
}

static void s_start(world_t *self, uint32_t index)
{
    node_t *node = &self->nodes[index];
    node->starting = false;
    if (node->core || node->dead || self->session_next + 1 >= SIM_SESSIONS_MAX) {
        return;
    }
    if (node->lock_refused_since_ms && self->assigned == index &&
        s_now_ms(self) - self->assigned_at_ms > TERMINATE_AFTER_MS) {
        uint32_t holder = self->store.lock_session;
        if (holder) {
            self->session_open[holder] = false;
            sim_store_close(&self->store, holder);
        }
    }
    s_ports[index] = (port_ctx_t){.world = self, .node = index};
    dkt_tenant_port_t port = {.ctx = &s_ports[index],
                              .submit = s_submit,
                              .answer = s_answer,
                              .give_back = s_give_back,
                              .hash = s_hash,
                              .random = s_fill,
                              .settings_changed = s_settings_changed,
                              .log = s_log};
    if (self->assigned == index) {
        node->table = self->table;
    }
    dkt_tenant_config_t config = {.client = self->client,
                                  .table = node->table,
                                  .id_keys = &self->ring,
                                  .token_key = &self->token_key,
                                  .sub_domain = "sim",
                                  .token_ttl_ms = 900000};
    node->core = dkt_tenant_new(&config, &port, s_now_ms(self));
    node->session = ++self->session_next;
    self->session_open[node->session] = true;
    node->last_apply_us = self->now_us;
    self->summary.activations++;
    dkt_tenant_event_t connected = {.kind = DKT_TEV_CONNECTED};
    s_step(self, index, &connected);
}

static void s_lose(world_t *self, uint32_t index)
{
    dkt_tenant_event_t lost = {.kind = DKT_TEV_LOST};
    if (self->nodes[index].core) {
        s_step(self, index, &lost);
    }
}

/* -- clients -- */

static void s_encode(world_t *self, op_t *op, dkt_method_t method, dkt_id_text_t *client)
{
    (void)self;
    const char *types[] = {"urgent", "normal", "slow"};
    dkt_w_t w = dkt_w_init(op->frame, sizeof op->frame);
    dkt_request_t request = {.method = method, .budget_ms = CLIENT_BUDGET_MS, .state = -1};
    request.msgid = (uint32_t)(op - self->ops) + 1;
    const dkt_method_row_t *row = dkt_method_row(method);
    request.present = row->required | DKT_PARAM_BIT(BUDGET_MS);
    request.client_id = (dkt_view_t){(const uint8_t *)client->text, (uint32_t)strlen(client->text)};
    const char *type = types[op->slot.class_index];
    request.ticket_type = (dkt_view_t){(const uint8_t *)type, (uint32_t)strlen(type)};
    const op_t *about = &self->ops[op->about];
    request.ticket_id =
        (dkt_view_t){(const uint8_t *)about->ticket_text, (uint32_t)strlen(about->ticket_text)};
    request.slot_id =
        (dkt_view_t){(const uint8_t *)about->slot_text, (uint32_t)strlen(about->slot_text)};
    if (row->request_id) {
        request.present |= DKT_PARAM_BIT(REQUEST_ID);
        request.request_id = op->request_id;
    }
    if (method == DKT_METHOD_VALIDATE_ETA) {
        request.present |= DKT_PARAM_BIT(HOLD_MS);
        request.hold_ms = 2000 + s_below(self, 20000);
    }
    dkt_request_encode(&w, &request);
    assert(!w.failed);
    op->frame_len = (uint32_t)w.len;
}

/* An earlier op that has what this kind is about; UINT32_MAX if there is none. */
static uint32_t s_pick(world_t *self, op_kind_t kind)
{
    enum { TRIES = 20, RECENT = 60 };
    for (int i = 0; i < TRIES && self->op_count > 0; i++) {
        uint32_t recent = self->op_count < RECENT ? self->op_count : RECENT;
        uint32_t index = self->op_count - 1 - s_below(self, recent);
        const op_t *op = &self->ops[index];
        if (kind == OP_CANCEL || kind == OP_RESOLVE ? op->created : op->slot_text[0] != '\0') {
            return index;
        }
    }
    return UINT32_MAX;
}

static void s_think(world_t *self)
{
    static const op_kind_t mix[] = {OP_CREATE, OP_CREATE,   OP_CREATE,   OP_CREATE, OP_CREATE,
                                    OP_CANCEL, OP_CANCEL,   OP_RESOLVE,  OP_HOLD,   OP_HOLD,
                                    OP_HOLD,   OP_ALLOCATE, OP_ALLOCATE, OP_RELEASE};
    static const dkt_method_t methods[] = {
        [OP_CREATE] = DKT_METHOD_CREATE_TICKET,   [OP_CANCEL] = DKT_METHOD_CANCEL_TICKET,
        [OP_RESOLVE] = DKT_METHOD_RESOLVE_TICKET, [OP_HOLD] = DKT_METHOD_VALIDATE_ETA,
        [OP_ALLOCATE] = DKT_METHOD_ALLOCATE_SLOT, [OP_RELEASE] = DKT_METHOD_RELEASE_SLOT};
    s_schedule(self, 1000 * (1 + s_below(self, 2 * self->options.ops_every_ms)),
               (event_t){.kind = EV_OP});
    if (self->op_count == SIM_OPS_MAX || self->healing) {
        return;
    }
    op_kind_t kind = mix[s_below(self, sizeof mix / sizeof mix[0])];
    uint32_t about = kind == OP_CREATE || kind == OP_HOLD ? 0 : s_pick(self, kind);
    if (about == UINT32_MAX) {
        return;
    }
    op_t *op = &self->ops[self->op_count];
    memset(op, 0, sizeof *op);
    op->kind = kind;
    op->about = about;
    op->slot.class_index = (uint8_t)s_below(self, 3);
    if (kind == OP_ALLOCATE) {
        op->slot.class_index = self->ops[about].slot.class_index;
    }
    uint8_t random[10];
    for (size_t i = 0; i < sizeof random; i++) {
        random[i] = (uint8_t)s_random(self);
    }
    op->request_id = dkt_uuid_v7(START_MS + s_now_ms(self) + s_below(self, 3000), random);
    dkt_id_text_t client;
    dkt_client_text(&self->client, &client);
    s_encode(self, op, methods[kind], &client);
    s_schedule(self, 0, (event_t){.kind = EV_SEND, .op = self->op_count});
    if (s_chance(self, 100)) { /* an impatient client sends the same twice */
        s_schedule(self, s_below(self, 3000), (event_t){.kind = EV_SEND, .op = self->op_count});
    }
    self->op_count++;
}

static void s_send(world_t *self, uint32_t index)
{
    if (self->ops[index].ended) {
        return;
    }
    uint32_t node = self->assigned;
    if (!self->healing && s_chance(self, 50)) {
        node = 1 - node; /* an old route */
    }
    if (self->healing || !s_chance(self, self->options.loss_permille)) {
        s_schedule(self, 100 + s_below(self, 5000),
                   (event_t){.kind = EV_REQUEST, .node = node, .op = index});
    }
    s_schedule(self, 1000 * (CLIENT_RETRY_MS + s_below(self, CLIENT_RETRY_MS)),
               (event_t){.kind = EV_SEND, .op = index});
}

static bool s_view_is(dkt_view_t view, const char *text)
{
    return view.data && view.len == strlen(text) && memcmp(view.data, text, view.len) == 0;
}

static void s_note_created(world_t *self, uint32_t index, const dkt_answer_t *answer,
                           uint64_t epoch)
{
    op_t *op = &self->ops[index];
    dkt_client_t client;
    uint64_t number;
    if (!dkt_ticket_parse(&self->ring, (const char *)answer->ticket_id.data, answer->ticket_id.len,
                          &client, &number)) {
        s_violate(self, "op %u got a ticket id that is not ours", index);
        return;
    }
    if (op->created && op->ticket != number) {
        s_violate(self, "one request_id, two tickets: %llu and %llu",
                  (unsigned long long)op->ticket, (unsigned long long)number);
    }
    op->created = true;
    op->ticket = number;
    op->created_epoch = epoch;
    memcpy(op->ticket_text, answer->ticket_id.data, answer->ticket_id.len);
    self->summary.created++;
    const op_t *about = &self->ops[op->about];
    if (op->kind == OP_ALLOCATE && about->released && about->created_epoch == epoch &&
        !answer->replayed) {
        s_violate(self, "op %u allocated a hold that its owner had released", index);
    }
}

static void s_on_answer(world_t *self, const event_t *event)
{
    op_t *op = &self->ops[event->op];
    dkt_answer_t answer;
    dkt_err_t err;
    dkt_status_t decoded = dkt_answer_decode(event->bytes, event->len, &answer, &err);
    assert(decoded == DKT_OK);
    (void)decoded;
    if (answer.status != DKT_OK) {
        dkt_retry_t retry = dkt_status_retry(answer.status);
        op->ended = op->ended || retry == DKT_RETRY_NO;
        return;
    }
    op->ended = true;
    uint64_t epoch = event->generation;
    if (s_view_is(answer.status_text, "created")) {
        s_note_created(self, event->op, &answer, epoch);
    } else if (s_view_is(answer.status_text, "refused")) {
        self->summary.refused++;
        op->refused = true;
        if (op->created) {
            s_violate(self, "op %u was created and then refused", event->op);
        }
    } else if (s_view_is(answer.status_text, "held") && !op->slot_text[0]) {
        memcpy(op->slot_text, answer.slot_id.data, answer.slot_id.len);
        op->created_epoch = epoch;
    } else if (s_view_is(answer.status_text, "cancelled")) {
        op->cancelled = true;
    } else if (s_view_is(answer.status_text, "too_late")) {
        op->too_late = true;
    } else if (op->kind == OP_RELEASE && s_view_is(answer.status_text, "released") &&
               self->ops[op->about].created_epoch == epoch) {
        self->ops[op->about].released = true;
    }
}

static void s_on_request(world_t *self, const event_t *event)
{
    node_t *node = &self->nodes[event->node];
    if (node->dead) {
        return;
    }
    if (!node->core) {
        if (!node->starting) {
            s_start(self, event->node);
        }
        if (!node->core) {
            return;
        }
    }
    const op_t *op = &self->ops[event->op];
    dkt_work_t *work = calloc(1, sizeof *work + op->frame_len);
    assert(work);
    static const dkt_method_t methods[] = {
        [OP_CREATE] = DKT_METHOD_CREATE_TICKET,   [OP_CANCEL] = DKT_METHOD_CANCEL_TICKET,
        [OP_RESOLVE] = DKT_METHOD_RESOLVE_TICKET, [OP_HOLD] = DKT_METHOD_VALIDATE_ETA,
        [OP_ALLOCATE] = DKT_METHOD_ALLOCATE_SLOT, [OP_RELEASE] = DKT_METHOD_RELEASE_SLOT};
    work->seq = event->op;
    work->origin = DKT_AUDIENCE_INTERNAL;
    work->method = (uint8_t)methods[op->kind];
    work->deadline_mono_ms = s_now_ms(self) + CLIENT_BUDGET_MS;
    work->len = op->frame_len;
    memcpy(work->body, op->frame, op->frame_len);
    for (uint32_t i = 0; i < node->suspect_count; i++) {
        work->suspect |= memcmp(node->suspects[i].bytes, op->request_id.bytes, DKT_UUID_BYTES) == 0;
    }
    dkt_tenant_event_t request = {.kind = DKT_TEV_REQUEST, .work = work};
    s_step(self, event->node, &request);
}

/* -- the database's side -- */

static void s_on_apply(world_t *self, event_t *event)
{
    if (!self->session_open[event->session]) {
        return;
    }
    self->store.clock_ms = START_MS + s_now_ms(self) + self->clock_offset_ms;
    sim_result_t *result = sim_store_apply(&self->store, event->session, event->batch);
    s_trace(self, (uint64_t)result->result.kind << 8 | result->result.outcome);
    if (self->store.epoch != self->epoch_seen) {
        self->epoch_seen = self->store.epoch;
        self->epoch_since_ms = s_now_ms(self);
    }
    if (event->lose_after) {
        sim_result_destroy(&result);
        s_schedule(self, 100, (event_t){.kind = EV_CLOSE, .session = event->session});
        return;
    }
    s_schedule(self, 50 + s_below(self, 1000),
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
        s_lose(self, event->node);
        return;
    }
    dkt_tenant_event_t result = {.kind = DKT_TEV_RESULT, .result = &event->result->result};
    s_step(self, event->node, &result);
}

/* -- the nemesis -- */

static void s_kill(world_t *self, uint32_t index)
{
    node_t *node = &self->nodes[index];
    node->dead = true;
    s_lose(self, index); /* dead: whatever the core says now is not heard */
    s_schedule(self, 1000 * (100 + s_below(self, 500)), (event_t){.kind = EV_BOOT, .node = index});
}

static void s_move(world_t *self)
{
    uint32_t old = self->assigned;
    self->assigned = 1 - old;
    self->table.version++;
    self->assigned_at_ms = s_now_ms(self);
    self->nodes[self->assigned].lock_refused_since_ms = 0;
    if (self->nodes[old].core && !self->nodes[old].stopped && s_chance(self, 700)) {
        dkt_tenant_event_t drain = {.kind = DKT_TEV_DRAIN};
        s_step(self, old, &drain);
    }
}

static void s_fault(world_t *self)
{
    if (self->healing || !self->options.faults_every_ms) {
        return;
    }
    s_schedule(self, 1000 * (1 + s_below(self, 2 * self->options.faults_every_ms)),
               (event_t){.kind = EV_FAULT});
    uint32_t index = s_below(self, SIM_NODES);
    node_t *node = &self->nodes[index];
    self->summary.faults++;
    switch (s_below(self, 5)) {
    case 0:
        if (self->options.can_kill && !node->dead && !node->stopped) {
            s_kill(self, index);
        }
        break;
    case 1:
        if (self->options.can_stop && !node->dead && !node->stopped) {
            node->stopped = true;
            s_schedule(self, 1000 * (300 + s_below(self, 6000)),
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
            self->session_open[node->session] = false;
            sim_store_close(&self->store, node->session);
            s_schedule(self, 1000 * s_below(self, 100),
                       (event_t){.kind = EV_LOST, .node = index, .generation = node->generation});
        }
        break;
    default:
        if (self->options.can_step) {
            self->clock_offset_ms += (int64_t)s_below(self, 8000) - 4000;
        }
        break;
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

static void s_wake(world_t *self, uint32_t index)
{
    node_t *node = &self->nodes[index];
    node->stopped = false;
    for (uint32_t i = 0; i < node->parked_count; i++) {
        s_schedule(self, i, node->parked[i]);
    }
    node->parked_count = 0;
}

static void s_on_tick(world_t *self, const event_t *event)
{
    node_t *node = &self->nodes[event->node];
    if (node->core && node->generation == event->generation) {
        dkt_tenant_event_t tick = {.kind = DKT_TEV_TICK};
        s_step(self, event->node, &tick);
    }
}

static void s_handle(world_t *self, event_t *event)
{
    switch (event->kind) {
    case EV_OP:
        s_think(self);
        break;
    case EV_SEND:
        s_send(self, event->op);
        break;
    case EV_REQUEST:
        s_on_request(self, event);
        break;
    case EV_ANSWER:
        s_on_answer(self, event);
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
        s_start(self, event->node);
        break;
    case EV_TICK:
        s_on_tick(self, event);
        break;
    case EV_FAULT:
        s_fault(self);
        break;
    case EV_WAKE:
        s_wake(self, event->node);
        break;
    case EV_BOOT:
        self->nodes[event->node].dead = false;
        break;
    case EV_LOST:
        if (self->nodes[event->node].generation == event->generation) {
            s_lose(self, event->node);
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
            s_violate(self, "%s", self->store.violation);
        }
    }
    self->now_us = end_us;
}

/* Everything that clients were told, against the database. */
static void s_check_history(world_t *self)
{
    for (uint32_t i = 0; i < self->op_count; i++) {
        const op_t *op = &self->ops[i];
        if (!op->ended) {
            s_violate(self, "op %u never ended", i);
        }
        const sim_ticket_t *ticket =
            op->created ? sim_store_ticket(&self->store, op->ticket) : NULL;
        if (op->created && (!ticket || memcmp(ticket->row.request_id.bytes, op->request_id.bytes,
                                              DKT_UUID_BYTES) != 0)) {
            s_violate(self, "op %u: acknowledged ticket %llu is not in the database", i,
                      (unsigned long long)op->ticket);
        }
        const op_t *about = &self->ops[op->about];
        ticket = about->created ? sim_store_ticket(&self->store, about->ticket) : NULL;
        if (ticket && op->cancelled && ticket->row.state != DKT_TICKET_CANCELLED) {
            s_violate(self, "op %u: a cancelled ticket is not cancelled", i);
        }
        if (ticket && op->too_late && ticket->row.state == DKT_TICKET_CANCELLED) {
            s_violate(self, "op %u: too_late for a ticket that is cancelled", i);
        }
    }
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
    return self;
}

static void s_world_destroy(world_t *self)
{
    for (uint32_t i = 0; i < SIM_NODES; i++) {
        self->nodes[i].dead = true;
        s_lose(self, i);
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
    return (sim_options_t){.seed = seed,
                           .faults_every_ms = s_chance(&dice, 100) ? 0 : 500 + s_below(&dice, 8000),
                           .ops_every_ms = 20 + s_below(&dice, 300),
                           .length_ms = 60000 + s_below(&dice, 180000),
                           .resolvers = (uint16_t)(1 + s_below(&dice, 3)),
                           .rebooking = s_chance(&dice, 700),
                           .loss_permille = s_chance(&dice, 500) ? s_below(&dice, 100) : 0,
                           .can_kill = s_chance(&dice, 500),
                           .can_stop = s_chance(&dice, 500),
                           .can_move = s_chance(&dice, 500),
                           .can_cut = s_chance(&dice, 500),
                           .can_stall = s_chance(&dice, 300),
                           .can_step = s_chance(&dice, 300)};
}

bool sim_run(const sim_options_t *options, sim_summary_t *summary, char *violation,
             size_t violation_bytes)
{
    world_t *self = s_world_new(options);
    s_schedule(self, 0, (event_t){.kind = EV_OP});
    s_schedule(self, 1000 * 500, (event_t){.kind = EV_FAULT});
    s_run_until(self, 1000 * (int64_t)options->length_ms);
    s_heal(self);
    s_run_until(self, 1000 * ((int64_t)options->length_ms + HEAL_MS));
    if (!sim_store_check(&self->store)) {
        s_violate(self, "%s", self->store.violation);
    }
    if (!self->violation[0]) {
        s_check_history(self);
    }
    *summary = self->summary;
    snprintf(violation, violation_bytes, "%s", self->violation);
    bool good = !self->violation[0];
    s_world_destroy(self);
    return good;
}
