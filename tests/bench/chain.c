/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/chain.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sodium.h>

#include "lib/core/event.h"
#include "lib/core/relay.h"

#define S_TOKEN_LIFE_MS 900000
#define S_PAST_SKEW_MS                                                                             \
    11000               /* after activation: new request ids need no look into the database        \
                         */
#define S_GREET_TURNS 4 /* HELLO, WELCOME, TABLE, and one more */
#define S_MAILS_MAX   65536

chain_t *chain;

/* -- the world's edges, put in by the linker -- */

int __wrap_clock_gettime(clockid_t id, struct timespec *now);
int __wrap_zmq_send(void *sock, const void *bytes, size_t len, int flags);
int __wrap_zmq_msg_recv(zmq_msg_t *message, void *sock, int flags);
void *__wrap_zsock_resolve(void *sock);

int __wrap_clock_gettime(clockid_t id, struct timespec *now)
{
    int64_t ms = id == CLOCK_REALTIME ? chain->db_ms : chain->mono_ms;
    *now = (struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    return 0;
}

static void s_put(chain_queue_t *queue, const void *bytes, size_t len)
{
    assert(queue->count < CHAIN_LINK_QUEUE && len <= DKT_LINK_BYTES_MAX);
    uint32_t at = (queue->first + queue->count++) % CHAIN_LINK_QUEUE;
    memcpy(queue->bytes[at], bytes, len); /* as libzmq does */
    queue->len[at] = len;
}

/* The bytes stay until as many messages as fit have followed. */
static bool s_get(chain_queue_t *queue, uint8_t **bytes, size_t *len)
{
    if (queue->count == 0) {
        return false;
    }
    *bytes = queue->bytes[queue->first];
    *len = queue->len[queue->first];
    queue->first = (queue->first + 1) % CHAIN_LINK_QUEUE;
    queue->count--;
    return true;
}

void *__wrap_zsock_resolve(void *sock)
{
    return sock;
}

int __wrap_zmq_send(void *sock, const void *bytes, size_t len, int flags)
{
    (void)sock;
    (void)flags;
    s_put(&chain->to_broker, bytes, len);
    return (int)len;
}

int __wrap_zmq_msg_recv(zmq_msg_t *message, void *sock, int flags)
{
    uint8_t *bytes;
    size_t len;
    (void)sock;
    (void)flags;
    if (!s_get(&chain->to_worker, &bytes, &len)) {
        return -1;
    }
    zmq_msg_init_data(message, bytes, len, NULL, NULL);
    return (int)len;
}

/* -- the router's port -- */

static dkt_sent_t s_to_client(void *ctx, dkt_audience_t side, const dkt_address_t *to,
                              const dkt_view_t *frames, uint32_t count)
{
    (void)ctx;
    (void)side;
    (void)to;
    for (uint32_t i = 0; i < count; i++) {
        chain_slot_t *slot = &chain->slots[chain->answered++];
        assert(chain->answered <= CHAIN_REQUESTS_MAX && frames[i].len <= CHAIN_ANSWER_BYTES);
        memcpy(slot->answer, frames[i].data, frames[i].len); /* as libzmq does */
        slot->answer_len = frames[i].len;
    }
    return DKT_SENT_OK;
}

static dkt_sent_t s_to_worker(void *ctx, const dkt_address_t *to, const uint8_t *bytes, size_t len)
{
    (void)ctx;
    (void)to;
    s_put(&chain->to_worker, bytes, len);
    return DKT_SENT_OK;
}

static const char *s_source(void *ctx)
{
    (void)ctx;
    return "127.0.0.1";
}

static void s_log(void *ctx, dkt_log_level_t level, const char *text)
{
    (void)ctx;
    if (level >= DKT_LOG_WARN) {
        fprintf(stderr, "%s\n", text);
    }
}

/* -- hops -- */

static dkt_instant_t s_now(void)
{
    return (dkt_instant_t){.mono_ms = chain->mono_ms, .unix_ms = chain->db_ms};
}

void chain_send(uint32_t tenant, dkt_audience_t side, uint32_t first, uint32_t count)
{
    dkt_view_t frames[CHAIN_REQUESTS_MAX + 1] = {{(const uint8_t *)"", 0}};
    for (uint32_t i = 0; i < count; i++) {
        const chain_slot_t *slot = &chain->slots[first + i];
        frames[i + 1] = (dkt_view_t){slot->frame, slot->frame_len};
    }
    dkt_router_client(chain->router, s_now(), side, &chain->tenants[tenant].address, frames,
                      count + 1);
}

void chain_broker_out(void)
{
    dkt_router_flush(chain->router, s_now());
}

void chain_node_in(void)
{
    dkt_node_read(chain->node, &chain->node->links[0]);
    dkt_node_feed(chain->node);
}

void chain_actors(void)
{
    chain_actors_run();
}

static void s_node_mail(dkt_mail_t *mail)
{
    if (mail->kind == DKT_MAIL_ANSWER) {
        dkt_node_send_answer(chain->node, (dkt_answer_mail_t *)mail);
    } else {
        assert(mail->kind == DKT_MAIL_READY);
        dkt_node_ready(chain->node, (dkt_actor_mail_t *)mail);
        free(mail);
    }
}

void chain_node_out(void)
{
    dkt_mail_t *mail = dkt_mailbox_drain(chain->env.node_box);
    while (mail) {
        dkt_mail_t *next = mail->next;
        s_node_mail(mail);
        mail = next;
    }
    dkt_node_unpark(chain->node, false);
    dkt_node_turn(chain->node);
    dkt_node_feed(chain->node);
    dkt_node_flush(chain->node);
    dkt_node_beat(chain->node);
}

void chain_broker_in(void)
{
    static const dkt_address_t from = {.len = 5, .bytes = {0xff, 1, 2, 3, 4}};
    uint8_t *bytes;
    size_t len;
    while (s_get(&chain->to_broker, &bytes, &len)) {
        dkt_router_worker(chain->router, s_now(), &from, bytes, len);
    }
    dkt_router_flush(chain->router, s_now());
}

static void s_empty(dkt_mailbox_t *box)
{
    dkt_mail_t *mail = dkt_mailbox_drain(box);
    while (mail) {
        dkt_mail_t *next = mail->next;
        free(mail);
        mail = next;
    }
}

/* As s_take_row and s_send of workers/relay.c. */
static uint32_t s_publish(const dkt_relay_mail_t *mail)
{
    static dkt_text_buf_t text;
    uint32_t counts[DKT_EVENT_COUNT], events = 0;
    char subject[DKT_EVENT_SUBJECT_BYTES_MAX], id[DKT_EVENT_ID_BYTES_MAX];
    const dkt_event_row_t row = {.seq = mail->row->seq,
                                 .events = dkt_relay_row_events(mail->row),
                                 .tags = dkt_relay_row_tags(mail->row)};
    bool good = dkt_event_count(row.events, counts);
    for (uint32_t i = 0; good && i < dkt_event_messages(counts); i++) {
        dkt_event_slice_t slice = dkt_event_slice(counts, i);
        good = dkt_event_batch(&chain->env.id_keys, &mail->client, &row, &slice, &text);
        dkt_event_subject(&mail->client, slice.type, subject);
        dkt_event_message_id(&mail->client, mail->row->seq, &slice, id);
        events += slice.count;
    }
    assert(good);
    return events;
}

static uint32_t s_drain_relay(bool publish)
{
    uint32_t events = 0;
    dkt_mail_t *mail = dkt_mailbox_drain(chain->env.relay_box);
    while (mail) {
        dkt_mail_t *next = mail->next;
        if (publish && mail->kind == DKT_MAIL_RELAY_ROW) {
            events += s_publish((const dkt_relay_mail_t *)mail);
        }
        free(((dkt_relay_mail_t *)mail)->row);
        free(mail);
        mail = next;
    }
    atomic_store(&chain->env.relay_rows, 0);
    atomic_store(&chain->env.relay_bytes, 0);
    return events;
}

void chain_empty_relay(void)
{
    (void)s_drain_relay(false);
}

uint32_t chain_publish(void)
{
    return s_drain_relay(true);
}

/* -- setup -- */

static void s_queue_new(chain_queue_t *queue)
{
    for (uint32_t i = 0; i < CHAIN_LINK_QUEUE; i++) {
        queue->bytes[i] = dkt_mail_alloc(DKT_LINK_BYTES_MAX);
    }
}

static void s_queue_free(chain_queue_t *queue)
{
    for (uint32_t i = 0; i < CHAIN_LINK_QUEUE; i++) {
        free(queue->bytes[i]);
    }
}

static void s_make_env(void)
{
    static const uint8_t seed[DKT_TOKEN_SEED_BYTES] = {7};
    dkt_env_t *env = &chain->env;
    env->node = "node-0";
    env->incarnation = (dkt_incarnation_t){{0xaa}};
    env->id_keys.count = 1;
    memset(env->id_keys.keys[0].key, 7, DKT_KEY_BYTES);
    env->token_public_count = 1;
    dkt_token_keys(1, seed, &env->token_key, &env->token_publics[0]);
    env->idle_ms = DKT_IDLE_PASSIVATE_MS;
    env->probe_ms = INT32_MAX;
    dkt_mailbox_t **const boxes[] = {&env->node_box, &env->directory_box, &env->accounts_box,
                                     &env->hasher_box, &env->relay_box};
    for (size_t i = 0; i < sizeof boxes / sizeof boxes[0]; i++) {
        *boxes[i] = dkt_mailbox_new(S_MAILS_MAX);
        assert(*boxes[i]);
    }
}

/* As s_new of workers/node.c and s_open of node_link.c make them. */
static void s_make_node(void)
{
    static dkt_table_t table;
    dkt_node_t *node = dkt_mail_alloc(sizeof *node);
    chain->node = node;
    node->env = &chain->env;
    node->signal_fd = -1;
    node->ready_fd = -1;
    node->actors_max = CHAIN_TENANTS_MAX;
    node->self_member = -1;
    node->running = true;
    node->backoff_mono_ms = INT64_MAX;
    node->probe_mono_ms = INT64_MAX;
    node->now_mono_ms = chain->mono_ms;
    for (int i = 0; i < DKT_NODE_STATE_COUNT; i++) {
        TAILQ_INIT(&node->lists[i]);
    }
    TAILQ_INIT(&node->waiting);
    dkt_wake_init(&node->wake);
    node->works.room_bytes = sizeof(dkt_work_mail_t) + DKT_FRAME_BYTES_USUAL;
    node->links[0].used = true;
    node->links[0].id = 1 << 8;
    node->links[0].out = dkt_mail_alloc(DKT_LINK_BYTES_MAX);
    node->link_generation = 1;
    memset(&table, 0, sizeof table);
    dkt_table_assign(&table, &chain->env.incarnation, 1);
    table.version = (dkt_table_version_t){1, 1};
    table.key_count = 1;
    table.keys[0] = chain->env.token_publics[0];
    dkt_node_set_table(node, &table);
}

static void s_make_router(void)
{
    dkt_router_config_t config = {
        .node = "broker-0", .version = "0", .incarnation = {{0xb0}}, .seed = 42};
    dkt_router_port_t port = {
        .to_client = s_to_client, .to_worker = s_to_worker, .source = s_source, .log = s_log};
    chain->router = dkt_router_new(&config, &port, s_now());
    assert(chain->router);
}

static void s_greet(void)
{
    for (int i = 0; i < S_GREET_TURNS; i++) {
        chain_node_in();
        chain_node_out();
        chain_broker_in();
    }
    dkt_table_version_t version = dkt_router_table(chain->router);
    assert(version.version == 1);
    (void)version;
}

static void s_make_tenant(uint32_t index)
{
    chain_tenant_t *tenant = &chain->tenants[index];
    uint8_t random[7] = {(uint8_t)index, (uint8_t)(index >> 8), 3};
    dkt_id_text_t text;
    tenant->client = dkt_client_make(&chain->env.id_keys, random);
    dkt_client_text(&tenant->client, &text);
    memcpy(tenant->client_id, text.text, sizeof tenant->client_id);
    dkt_claims_t claims = {.client = tenant->client,
                           .token_id = {(uint8_t)index, (uint8_t)(index >> 8), 1},
                           .issued_ms = chain->db_ms,
                           .expires_ms = chain->db_ms + S_TOKEN_LIFE_MS};
    dkt_token_sign(&chain->env.token_key, &claims, tenant->token);
    tenant->address =
        (dkt_address_t){.len = 5, .bytes = {(uint8_t)index, (uint8_t)(index >> 8), 7, 7, 7}};

    dkt_record_t *record = dkt_node_record(chain->node, &tenant->client);
    dkt_lookup_mail_t found = {.client = tenant->client, .status = DKT_OK, .marked = true};
    dkt_node_resolve(chain->node, record);
    dkt_node_found(chain->node, &found);
    dkt_node_start_queued(chain->node);
    chain_node_out();
    assert(record->state == DKT_NODE_SERVING);
    s_empty(chain->env.directory_box);
}

void chain_pass(int64_t ms)
{
    chain->mono_ms += ms;
    chain->db_ms += ms;
    chain->node->now_mono_ms = chain->mono_ms;
    s_greet();
    dkt_router_tick(chain->router, s_now());
}

void chain_new(const chain_config_t *config)
{
    assert(config->tenants <= CHAIN_TENANTS_MAX);
    chain = dkt_mail_alloc(sizeof *chain);
    chain->config = *config;
    chain->mono_ms = 1000000;
    chain->db_ms = CHAIN_START_MS;
    chain->tenants = dkt_mail_alloc(config->tenants * sizeof *chain->tenants);
    s_queue_new(&chain->to_worker);
    s_queue_new(&chain->to_broker);
    s_make_env();
    s_make_node();
    s_make_router();
    s_greet();
    for (uint32_t i = 0; i < config->tenants; i++) {
        s_make_tenant(i);
    }
    chain_pass(S_PAST_SKEW_MS);
    chain_empty_relay();
}

void chain_destroy(void)
{
    dkt_env_t *env = &chain->env;
    dkt_node_drop_all(chain->node);
    dkt_spare_fini(&chain->node->works);
    dkt_wake_fini(&chain->node->wake);
    free(chain->node->links[0].out);
    free(chain->node);
    dkt_router_destroy(&chain->router);
    chain_empty_relay();
    s_empty(env->node_box);
    s_empty(env->directory_box);
    dkt_mailbox_t **const boxes[] = {&env->node_box, &env->directory_box, &env->accounts_box,
                                     &env->hasher_box, &env->relay_box};
    for (size_t i = 0; i < sizeof boxes / sizeof boxes[0]; i++) {
        dkt_mailbox_destroy(boxes[i]);
    }
    s_queue_free(&chain->to_worker);
    s_queue_free(&chain->to_broker);
    free(chain->tenants);
    free(chain);
    chain = NULL;
}
