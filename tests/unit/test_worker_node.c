/* SPDX-License-Identifier: Apache-2.0
 *
 * The node loop and tenant actors between a ROUTER that plays the broker and a real PostgreSQL. The
 * tenants' core is a stub in this file: it answers every request with {status: "ok"} as soon as its
 * store is connected.
 */
#include "support_control.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <czmq.h>

#include "lib/edge/clock.h"
#include "lib/edge/control.h"
#include "workers/accounts.h"
#include "workers/directory.h"
#include "workers/hasher.h"
#include "workers/node.h"

#define S_WAIT_MS    10000
#define S_ACTORS_MAX 16
#define S_IDLE_MS    1000
#define S_DATABASE   "t_0123456789abcdef0123456789abcde"

/* -- the stub core -- */

static atomic_llong s_next_due_ms = INT64_MAX; /* of every tenant that ends */

struct dkt_tenant {
    dkt_tenant_port_t port;
    dkt_tenant_state_t state;
    dkt_tenant_end_t end;
    dkt_work_t *waiting;
};

dkt_tenant_t *dkt_tenant_new(const dkt_tenant_config_t *config, const dkt_tenant_port_t *port,
                             int64_t mono_ms)
{
    (void)config;
    (void)mono_ms;
    dkt_tenant_t *self = calloc(1, sizeof *self);
    self->port = *port;
    self->end.next_due_ms = INT64_MAX;
    return self;
}

void dkt_tenant_destroy(dkt_tenant_t **self_p)
{
    free(*self_p);
    *self_p = NULL;
}

static void s_answer_all(dkt_tenant_t *self)
{
    while (self->waiting) {
        dkt_work_t *work = self->waiting;
        uint8_t bytes[64];
        dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
        self->waiting = work->next;
        dkt_answer_status(&w, 1, work->suspect ? "suspect" : "ok");
        self->port.answer(self->port.ctx, work, bytes, w.len);
    }
}

static void s_end(dkt_tenant_t *self, bool clean)
{
    self->state = DKT_TENANT_ENDED;
    self->end.clean = clean;
    self->end.next_due_ms = atomic_load(&s_next_due_ms);
    while (self->waiting) {
        dkt_work_t *work = self->waiting;
        self->waiting = work->next;
        self->port.give_back(self->port.ctx, work);
    }
}

void dkt_tenant_step(dkt_tenant_t *self, int64_t mono_ms, const dkt_tenant_event_t *event)
{
    (void)mono_ms;
    assert_int_not_equal(self->state, DKT_TENANT_ENDED);
    if (event->kind == DKT_TEV_CONNECTED) {
        self->state = DKT_TENANT_SERVING;
    } else if (event->kind == DKT_TEV_REQUEST) {
        event->work->next = self->waiting;
        self->waiting = event->work;
    } else if (event->kind == DKT_TEV_LOST || event->kind == DKT_TEV_DRAIN) {
        s_end(self, event->kind == DKT_TEV_DRAIN);
    }
    if (self->state == DKT_TENANT_SERVING) {
        s_answer_all(self);
    }
}

dkt_tenant_state_t dkt_tenant_state(const dkt_tenant_t *self)
{
    return self->state;
}

int64_t dkt_tenant_due_mono_ms(const dkt_tenant_t *self)
{
    (void)self;
    return INT64_MAX;
}

bool dkt_tenant_idle(const dkt_tenant_t *self, int64_t mono_ms)
{
    (void)mono_ms;
    return self->state == DKT_TENANT_SERVING;
}

bool dkt_tenant_background(const dkt_tenant_t *self)
{
    (void)self;
    return false;
}

const dkt_tenant_end_t *dkt_tenant_end(const dkt_tenant_t *self)
{
    return &self->end;
}

void dkt_tenant_counts(const dkt_tenant_t *self, dkt_tenant_counts_t *counts)
{
    (void)self;
    *counts = (dkt_tenant_counts_t){.held = 0};
}

/* -- the rig -- */

static support_control_t s_control;
static dkt_env_t s_env;
static dkt_hasher_t *s_hasher;
static dkt_accounts_t *s_accounts;
static dkt_directory_t *s_directory;
static pthread_t s_node;
static zsock_t *s_broker;
static zframe_t *s_peer; /* the worker's routing id */
static dkt_table_version_t s_table;
static dkt_incarnation_t s_self = {{0xb0}};
static uint64_t s_seq;
static dkt_client_t s_client;

static void *s_run_node(void *argument)
{
    (void)argument;
    dkt_node_config_t config = {
        .env = &s_env, .signal_fd = -1, .ready_fd = -1, .actors_max = S_ACTORS_MAX};
    (void)dkt_node_run(&config);
    return NULL;
}

static void s_add_tenant(const char *database, const char *email, dkt_client_t *client)
{
    uint8_t random[7];
    dkt_id_text_t text;
    char sql[512];
    PGconn *conn = support_control_connect(&s_control);
    memcpy(random, email, sizeof random);
    *client = dkt_client_make(&s_env.id_keys, random);
    dkt_client_text(client, &text);
    snprintf(sql, sizeof sql,
             "insert into tenants (client_id, request_id, name, email, sub_domain, resolvers,"
             " cluster, database, state, settings) values ('%s', gen_random_uuid (), 'n', '%s',"
             " '%s', 1, 'local', '%s', 'active',"
             " '{\"resolvers\": 1, \"rebooking\": true, \"classes\": {}, \"limits\": {}}')",
             text.text, email, email, database);
    support_pg_exec(conn, sql);
    support_pg_tenant(s_control.pg, database);
    PQfinish(conn);
}

/* Reads one message of the worker; false after `wait_ms`. */
static bool s_receive(dkt_link_header_t *header, dkt_link_answer_t *answer, uint8_t *body,
                      size_t body_max, int wait_ms)
{
    zsock_set_rcvtimeo(s_broker, wait_ms);
    zmsg_t *message = zmsg_recv(s_broker);
    if (!message) {
        return false;
    }
    zframe_destroy(&s_peer);
    s_peer = zmsg_pop(message);
    zframe_t *frame = zmsg_pop(message);
    dkt_r_t r;
    assert_true(dkt_link_open(&r, zframe_data(frame), zframe_size(frame), header));
    if (header->kind == DKT_LINK_ANSWERS) {
        assert_true(dkt_link_get_answer(&r, answer));
        assert_true(answer->body.len <= body_max);
        memcpy(body, answer->body.data, answer->body.len);
        answer->body.data = body;
    }
    zframe_destroy(&frame);
    zmsg_destroy(&message);
    return true;
}

static void s_send(dkt_w_t *w)
{
    zframe_t *peer = zframe_dup(s_peer);
    zframe_t *frame = zframe_new(w->data, w->len);
    assert_int_equal(zframe_send(&peer, s_broker, ZFRAME_MORE), 0);
    assert_int_equal(zframe_send(&frame, s_broker, 0), 0);
}

static void s_welcome(void)
{
    uint8_t bytes[256];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_link_begin(&w, DKT_LINK_WELCOME, s_table, &s_self);
    dkt_link_finish(&w, 0);
    s_send(&w);
}

/* Sends a request and waits for its answer. */
static dkt_answer_t s_call(dkt_method_t method, const dkt_client_t *client, const char *password,
                           dkt_table_version_t table, uint8_t *outcome)
{
    static uint8_t frame[4096], message[8192], body[65536];
    dkt_id_text_t id;
    dkt_client_text(client, &id);
    dkt_request_t request = {.msgid = 1, .method = method, .budget_ms = 5000};
    request.present = DKT_PARAM_BIT(CLIENT_ID);
    request.client_id = (dkt_view_t){(const uint8_t *)id.text, (uint32_t)strlen(id.text)};
    if (password) {
        request.present |= DKT_PARAM_BIT(PASSWORD);
        request.password = (dkt_view_t){(const uint8_t *)password, (uint32_t)strlen(password)};
    }
    dkt_w_t f = dkt_w_init(frame, sizeof frame), w = dkt_w_init(message, sizeof message);
    dkt_request_encode(&f, &request);
    dkt_link_request_t row = {.seq = ++s_seq,
                              .budget_left_ms = 5000,
                              .origin = DKT_AUDIENCE_INTERNAL,
                              .method = (uint8_t)method,
                              .vshard = dkt_client_vshard(client),
                              .body = {frame, (uint32_t)f.len}};
    dkt_link_begin(&w, DKT_LINK_REQUESTS, table, &s_self);
    dkt_link_put_request(&w, &row);
    dkt_link_finish(&w, 1);
    s_send(&w);
    dkt_link_header_t header;
    dkt_link_answer_t answer;
    do {
        assert_true(s_receive(&header, &answer, body, sizeof body, S_WAIT_MS));
    } while (header.kind != DKT_LINK_ANSWERS || answer.seq != s_seq);
    dkt_answer_t decoded = {0};
    dkt_err_t err;
    *outcome = answer.outcome;
    if (answer.outcome == DKT_OUTCOME_ANSWER) {
        assert_int_equal(dkt_answer_decode(body, answer.body.len, &decoded, &err), DKT_OK);
    }
    return decoded;
}

static dkt_status_t s_ask(dkt_method_t method, const dkt_client_t *client, const char *password)
{
    uint8_t outcome = 0;
    dkt_answer_t answer = s_call(method, client, password, s_table, &outcome);
    assert_int_equal(outcome, DKT_OUTCOME_ANSWER);
    return answer.status;
}

static int s_setup(void **state)
{
    (void)state;
    dkt_err_t err;
    char address[64];
    zsys_handler_set(NULL);
    zsys_init();
    support_control_start(&s_control);
    support_env_init(&s_env, &s_control, "node-a");
    s_env.idle_ms = S_IDLE_MS;
    s_add_tenant(S_DATABASE "f", "first-tenant", &s_client);
    s_broker = zsock_new(ZMQ_ROUTER);
    zsock_set_linger(s_broker, 0);
    int port = zsock_bind(s_broker, "tcp://127.0.0.1:*");
    assert_true(port > 0);
    snprintf(address, sizeof address, "tcp://127.0.0.1:%d", port);
    assert_int_equal(dkt_control_register_broker(s_control.uri, "b0", address, &err), DKT_OK);
    s_hasher = dkt_hasher_new(&s_env);
    s_accounts = dkt_accounts_new(&s_env);
    s_directory = dkt_directory_new(&s_env);
    assert_int_equal(pthread_create(&s_node, NULL, s_run_node, NULL), 0);
    /* HELLO, WELCOME, then the table is pushed. */
    dkt_link_header_t header;
    dkt_link_answer_t answer;
    uint8_t body[64];
    do {
        assert_true(s_receive(&header, &answer, body, sizeof body, S_WAIT_MS));
        s_welcome();
    } while (header.kind != DKT_LINK_TABLE);
    s_table = header.table;
    return 0;
}

static int s_teardown(void **state)
{
    (void)state;
    dkt_mail_post_kind(s_env.node_box, DKT_MAIL_STOP);
    pthread_join(s_node, NULL);
    atomic_store(&s_env.stopping, true);
    dkt_accounts_destroy(&s_accounts);
    dkt_hasher_destroy(&s_hasher);
    dkt_directory_destroy(&s_directory);
    support_env_fini(&s_env);
    zframe_destroy(&s_peer);
    zsock_destroy(&s_broker);
    support_control_stop(&s_control);
    return 0;
}

static void test_worker_node_activates_and_answers(void **state)
{
    (void)state;
    assert_int_equal(s_ask(DKT_METHOD_AVAILABILITY, &s_client, NULL), DKT_OK);
    assert_int_equal(s_ask(DKT_METHOD_AVAILABILITY, &s_client, NULL), DKT_OK);
}

static void test_worker_node_tells_an_unknown_tenant(void **state)
{
    (void)state;
    dkt_client_t unknown = dkt_client_make(&s_env.id_keys, (const uint8_t *)"unknown");
    assert_int_equal(s_ask(DKT_METHOD_AVAILABILITY, &unknown, NULL), DKT_NOT_FOUND);
    assert_int_equal(s_ask(DKT_METHOD_AVAILABILITY, &unknown, NULL), DKT_NOT_FOUND);
    /* A login must not tell an account that exists from one that does not. */
    assert_int_equal(s_ask(DKT_METHOD_LOGIN, &unknown, "some password"), DKT_UNAUTHENTICATED);
    dkt_client_t forged = s_client;
    forged.bytes[DKT_CLIENT_BYTES - 1] ^= 1;
    assert_int_equal(s_ask(DKT_METHOD_AVAILABILITY, &forged, NULL), DKT_NOT_FOUND);
}

static void test_worker_node_runs_the_directory_methods(void **state)
{
    (void)state;
    dkt_client_t unknown = dkt_client_make(&s_env.id_keys, (const uint8_t *)"nowhere");
    assert_int_equal(s_ask(DKT_METHOD_GET_TENANT, &s_client, NULL), DKT_OK);
    assert_int_equal(s_ask(DKT_METHOD_GET_TENANT, &unknown, NULL), DKT_NOT_FOUND);
    assert_int_equal(s_ask(DKT_METHOD_LIST_TENANTS, &s_client, NULL), DKT_OK);
}

/* A broker with a newer table: the request is parked while the directory looks, then `moved`. */
static void test_worker_node_parks_what_is_ahead(void **state)
{
    (void)state;
    uint8_t outcome = DKT_OUTCOME_ANSWER;
    dkt_table_version_t newer = {s_table.epoch + 1, 0};
    int64_t begin_mono_ms = dkt_clock_mono_ms();
    (void)s_call(DKT_METHOD_AVAILABILITY, &s_client, NULL, newer, &outcome);
    assert_int_equal(outcome, DKT_OUTCOME_MOVED);
    assert_true(dkt_clock_mono_ms() - begin_mono_ms >= DKT_MOVED_PARK_MS);
}

/* One tenant's database is closed: it gets `unavailable` soon, the other is served as ever, and it
 * heals by itself. */
static void test_worker_node_one_database_down_is_that_tenants_own(void **state)
{
    (void)state;
    dkt_client_t broken;
    PGconn *conn = support_control_connect(&s_control);
    s_add_tenant(S_DATABASE "0", "broken-tenant", &broken);
    support_pg_exec(conn, "alter database " S_DATABASE "0 allow_connections false");
    int64_t begin_mono_ms = dkt_clock_mono_ms();
    assert_int_equal(s_ask(DKT_METHOD_AVAILABILITY, &broken, NULL), DKT_UNAVAILABLE);
    assert_true(dkt_clock_mono_ms() - begin_mono_ms < 2000);
    assert_int_equal(s_ask(DKT_METHOD_AVAILABILITY, &s_client, NULL), DKT_OK);
    support_pg_exec(conn, "alter database " S_DATABASE "0 allow_connections true");
    int64_t until_mono_ms = dkt_clock_mono_ms() + S_WAIT_MS;
    while (s_ask(DKT_METHOD_AVAILABILITY, &broken, NULL) != DKT_OK) {
        assert_true(dkt_clock_mono_ms() < until_mono_ms);
    }
    /* The backend of a served tenant is ended: the next request finds a new actor. */
    support_pg_exec(conn, "select pg_terminate_backend (pid) from pg_stat_activity"
                          " where datname = '" S_DATABASE "0'");
    while (s_ask(DKT_METHOD_AVAILABILITY, &broken, NULL) != DKT_OK) {
        assert_true(dkt_clock_mono_ms() < until_mono_ms);
    }
    PQfinish(conn);
}

static void s_wait_for(PGconn *conn, const char *sql, int wanted)
{
    int64_t until_mono_ms = dkt_clock_mono_ms() + S_WAIT_MS;
    while (support_pg_int(conn, sql) != wanted) {
        assert_true(dkt_clock_mono_ms() < until_mono_ms);
    }
}

#define S_SESSIONS(database) "select count(*) from pg_stat_activity where datname = '" database "'"

/* Marked while it serves; when it idles its row says when it is due, and 10 s before that it is
 * active again without having been asked. Then nothing is due any more and the row goes. */
static void test_worker_node_passivates_and_wakes(void **state)
{
    (void)state;
    dkt_client_t sleeper;
    PGconn *conn = support_control_connect(&s_control);
    s_add_tenant(S_DATABASE "1", "sleepy-tenant", &sleeper);
    int64_t due_ms = dkt_clock_unix_ms() + DKT_WAKE_EARLY_MS + 3 * S_IDLE_MS;
    char sql[128];
    snprintf(sql, sizeof sql, "select count(*) from wake where due_ms = %lld", (long long)due_ms);
    atomic_store(&s_next_due_ms, due_ms);
    assert_int_equal(s_ask(DKT_METHOD_AVAILABILITY, &sleeper, NULL), DKT_OK);
    assert_int_equal(support_pg_int(conn, "select count(*) from wake w join tenants t"
                                          " using (client_id) where due_ms = 0"
                                          " and email = 'sleepy-tenant'"),
                     1);
    s_wait_for(conn, sql, 1);
    s_wait_for(conn, S_SESSIONS(S_DATABASE "1"), 0); /* the server notices a moment later */
    assert_true(dkt_clock_unix_ms() < due_ms - DKT_WAKE_EARLY_MS);
    atomic_store(&s_next_due_ms, INT64_MAX);
    s_wait_for(conn, S_SESSIONS(S_DATABASE "1"), 1);
    int64_t early_ms = due_ms - dkt_clock_unix_ms();
    assert_true(early_ms <= DKT_WAKE_EARLY_MS && early_ms > DKT_WAKE_EARLY_MS - S_IDLE_MS);
    s_wait_for(conn, "select count(*) from wake", 0);
    PQfinish(conn);
}

/* Rows of a worker that died: a vshard that is gained is read, and who has a zero is activated. */
static void test_worker_node_reads_the_rows_of_what_it_gains(void **state)
{
    (void)state;
    PGconn *conn = support_control_connect(&s_control);
    dkt_client_t orphan;
    char sql[256];
    s_add_tenant(S_DATABASE "2", "orphan-tenant", &orphan);
    snprintf(sql, sizeof sql,
             "insert into wake select client_id, %u, 0, gen_random_uuid () from tenants"
             " where email = 'orphan-tenant'",
             dkt_client_vshard(&orphan));
    support_pg_exec(conn, sql);
    dkt_wake_mail_t *mail = dkt_mail_alloc(sizeof *mail);
    mail->vshards[dkt_client_vshard(&orphan) / 8] = (uint8_t)(1u << dkt_client_vshard(&orphan) % 8);
    dkt_mail_post(s_env.directory_box, &mail->mail, DKT_MAIL_WAKE);
    s_wait_for(conn, S_SESSIONS(S_DATABASE "2"), 1);
    s_wait_for(conn, "select count(*) from wake", 0); /* idle again, and nothing is due */
    PQfinish(conn);
}

/* Without the control database a tenant is served and even activated again, but stays active:
 * nobody would know when to wake it. Its mark is made up for as soon as that is possible. */
static void test_worker_node_serves_on_without_the_control_database(void **state)
{
    (void)state;
    PGconn *conn = support_pg_connect(s_control.pg, "postgres", NULL);
    assert_int_equal(s_ask(DKT_METHOD_AVAILABILITY, &s_client, NULL), DKT_OK);
    char sql[128];
    snprintf(sql, sizeof sql, S_SESSIONS(S_DATABASE "f") " and pid <> %lld",
             (long long)support_pg_int(conn, "select pid from pg_stat_activity"
                                             " where datname = '" S_DATABASE "f'"));
    support_pg_exec(conn, "alter database docket_control allow_connections false");
    support_pg_exec(conn, "select pg_terminate_backend (pid) from pg_stat_activity"
                          " where datname in ('docket_control', '" S_DATABASE "f')");
    s_wait_for(conn, sql, 1);
    int64_t until_mono_ms = dkt_clock_mono_ms() + 3 * S_IDLE_MS;
    assert_int_equal(s_ask(DKT_METHOD_AVAILABILITY, &s_client, NULL), DKT_OK);
    while (dkt_clock_mono_ms() < until_mono_ms) {
        assert_int_equal(support_pg_int(conn, S_SESSIONS(S_DATABASE "f")), 1);
    }
    support_pg_exec(conn, "alter database docket_control allow_connections true");
    s_wait_for(conn, S_SESSIONS(S_DATABASE "f"), 0);
    PQfinish(conn);
    conn = support_control_connect(&s_control);
    s_wait_for(conn, "select count(*) from wake", 0);
    PQfinish(conn);
}

/* Last: the table goes to somebody else, and everything of ours is `moved`. */
static void test_worker_node_gives_up_what_moved(void **state)
{
    (void)state;
    uint8_t outcome = DKT_OUTCOME_ANSWER;
    dkt_table_mail_t *mail = dkt_mail_alloc(sizeof *mail);
    dkt_incarnation_t other = {{0x77}};
    dkt_table_assign(&mail->table, &other, 1);
    mail->table.version = (dkt_table_version_t){s_table.epoch + 10, 1};
    dkt_mail_post(s_env.node_box, &mail->mail, DKT_MAIL_TABLE);
    int64_t until_mono_ms = dkt_clock_mono_ms() + S_WAIT_MS;
    do {
        (void)s_call(DKT_METHOD_AVAILABILITY, &s_client, NULL, s_table, &outcome);
        assert_true(dkt_clock_mono_ms() < until_mono_ms);
    } while (outcome != DKT_OUTCOME_MOVED);
    PGconn *conn = support_control_connect(&s_control);
    while (support_pg_int(conn, "select count(*) from pg_stat_activity where datname = '" S_DATABASE
                                "f'") > 0) {
        assert_true(dkt_clock_mono_ms() < until_mono_ms);
    }
    PQfinish(conn);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worker_node_activates_and_answers),
        cmocka_unit_test(test_worker_node_tells_an_unknown_tenant),
        cmocka_unit_test(test_worker_node_runs_the_directory_methods),
        cmocka_unit_test(test_worker_node_parks_what_is_ahead),
        cmocka_unit_test(test_worker_node_one_database_down_is_that_tenants_own),
        cmocka_unit_test(test_worker_node_passivates_and_wakes),
        cmocka_unit_test(test_worker_node_reads_the_rows_of_what_it_gains),
        cmocka_unit_test(test_worker_node_serves_on_without_the_control_database),
        cmocka_unit_test(test_worker_node_gives_up_what_moved),
    };
    return cmocka_run_group_tests(tests, s_setup, s_teardown);
}
