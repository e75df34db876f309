/* SPDX-License-Identifier: Apache-2.0
 *
 * The control database on a real PostgreSQL: bootstrap, audit chain, feed, pool, create_account.
 */
#include "support_control.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/edge/control.h"
#include "lib/edge/schema.h"
#include "lib/edge/keys.h"
#include "workers/pool.h"
#include "workers/saga.h"

static support_control_t s_control;
static dkt_env_t s_env;

static int s_setup(void **state)
{
    (void)state;
    support_control_start(&s_control);
    support_env_init(&s_env, &s_control, "test");
    return 0;
}

static int s_teardown(void **state)
{
    (void)state;
    support_env_fini(&s_env);
    support_control_stop(&s_control);
    return 0;
}

static void test_control_bootstrap_is_idempotent(void **state)
{
    (void)state;
    dkt_err_t err;
    PGconn *conn = support_control_connect(&s_control);
    assert_int_equal(dkt_control_bootstrap(s_control.uri, s_control.keys, &err), DKT_OK);
    assert_int_equal(support_pg_int(conn, "select max (version) from schema_version"),
                     dkt_schema_control[dkt_schema_control_count - 1].number);
    assert_int_equal(support_pg_int(conn, "select count(*) from clusters where name = 'local'"
                                          " and host = '127.0.0.1'"),
                     1);
    assert_int_equal(support_pg_int(conn, "select count(*) from pg_database where datname ="
                                          " 'docket_template' and datistemplate"
                                          " and not datallowconn"),
                     1);
    PQfinish(conn);
}

/* Nobody but the administrator gets in anywhere: no database grants CONNECT to PUBLIC. */
static void test_control_nothing_is_open_to_public(void **state)
{
    (void)state;
    PGconn *conn = support_control_connect(&s_control);
    assert_int_equal(
        support_pg_int(conn, "select count(*) from pg_database d,"
                             " aclexplode (coalesce (d.datacl, acldefault ('d', d.datdba))) a"
                             " where a.grantee = 0 and d.datname <> 'template0'"),
        0);
    PQfinish(conn);
}

static void test_control_refuses_a_bad_name_and_a_missing_key(void **state)
{
    (void)state;
    dkt_err_t err;
    assert_int_equal(
        dkt_control_bootstrap("postgresql://x@127.0.0.1:1/Robert%22;drop", s_control.keys, &err),
        DKT_INVALID_ARGUMENT);
    assert_int_not_equal(dkt_control_bootstrap(s_control.uri, "/nowhere", &err), DKT_OK);
    char uri[128];
    snprintf(uri, sizeof uri, "postgresql://x@127.0.0.1:%u/docket_control", support_free_port());
    assert_int_equal(dkt_control_bootstrap(uri, s_control.keys, &err), DKT_UNAVAILABLE);
}

static void test_control_registers_brokers(void **state)
{
    (void)state;
    dkt_err_t err;
    PGconn *conn = support_control_connect(&s_control);
    assert_int_equal(dkt_control_register_broker(s_control.uri, "b0", "tcp://x:1", &err), DKT_OK);
    assert_int_equal(dkt_control_register_broker(s_control.uri, "b0", "tcp://x:2", &err), DKT_OK);
    assert_int_equal(support_pg_int(conn, "select count(*) from brokers where"
                                          " workers_address = 'tcp://x:2'"),
                     1);
    assert_int_equal(dkt_control_deregister_broker(s_control.uri, "b0", "tcp://x:1", &err), DKT_OK);
    assert_int_equal(support_pg_int(conn, "select count(*) from brokers"), 1);
    assert_int_equal(dkt_control_deregister_broker(s_control.uri, "b0", "tcp://x:2", &err), DKT_OK);
    assert_int_equal(support_pg_int(conn, "select count(*) from brokers"), 0);
    PQfinish(conn);
}

static void test_control_audit_is_chained_and_append_only(void **state)
{
    (void)state;
    dkt_err_t err;
    PGconn *conn = support_control_connect(&s_control);
    for (int i = 0; i < 3; i++) {
        support_pg_exec(conn, "select audit_append ('ops', 'test', null, '{\"a\": 1}')");
    }
    assert_int_equal(support_pg_int(conn, "select coalesce (audit_broken (), 0)"), 0);
    assert_int_equal(dkt_control_exec(conn, "update audit set actor = 'me'", 0, NULL, &err),
                     DKT_INTERNAL);
    assert_int_equal(dkt_control_exec(conn, "delete from audit", 0, NULL, &err), DKT_INTERNAL);
    /* Somebody with the rights of the server changes one row behind the trigger's back. */
    support_pg_exec(conn, "begin; set local session_replication_role = replica;"
                          "update audit set actor = 'me' where seq = 2; commit");
    assert_int_equal(support_pg_int(conn, "select audit_broken ()"), 2);
    PQfinish(conn);
}

/* -- accounts -- */

static dkt_view_t s_view(const char *text)
{
    return (dkt_view_t){.data = (const uint8_t *)text, .len = (uint32_t)strlen(text)};
}

static dkt_saga_request_t s_request(const char *name, const char *email)
{
    dkt_saga_request_t request = {.name = s_view(name),
                                  .email = s_view(email),
                                  .resolvers = 5,
                                  .password = "$argon2id$v=19$test"};
    randombytes_buf(&request.request_id, sizeof request.request_id);
    return request;
}

static void s_fill(PGconn *conn)
{
    dkt_err_t err;
    bool made = false;
    assert_int_equal(dkt_pool_fill_one(conn, &s_env, 1, &made, &err), DKT_OK);
    assert_true(made);
    assert_int_equal(dkt_pool_fill_one(conn, &s_env, 1, &made, &err), DKT_OK);
    assert_false(made); /* one is enough */
}

static void test_control_account_needs_a_ready_database(void **state)
{
    (void)state;
    dkt_err_t err;
    dkt_saga_account_t account, again;
    PGconn *conn = support_control_connect(&s_control);
    dkt_saga_request_t request = s_request("Acme & Sons", "acme@example.com");
    assert_int_equal(dkt_saga_create(conn, &s_env, &request, &account, &err), DKT_OVERLOADED);
    s_fill(conn);
    assert_int_equal(dkt_saga_create(conn, &s_env, &request, &account, &err), DKT_OK);
    assert_false(account.replayed);
    assert_int_equal(strncmp(account.sub_domain, "acme-sons-", 10), 0);
    assert_int_equal(dkt_saga_create(conn, &s_env, &request, &again, &err), DKT_OK);
    assert_true(again.replayed);
    assert_string_equal(again.client_id.text, account.client_id.text);
    assert_string_equal(again.sub_domain, account.sub_domain);
    assert_int_equal(support_pg_int(conn, "select count(*) from pool"), 0);
    PQfinish(conn);
}

static void test_control_account_conflicts_name_the_field(void **state)
{
    (void)state;
    dkt_err_t err;
    dkt_saga_account_t account;
    PGconn *conn = support_control_connect(&s_control);
    dkt_saga_request_t first = s_request("Conflict", "conflict@example.com"), other = first;
    s_fill(conn);
    assert_int_equal(dkt_saga_create(conn, &s_env, &first, &account, &err), DKT_OK);
    other.name = s_view("Else");
    assert_int_equal(dkt_saga_create(conn, &s_env, &other, &account, &err), DKT_CONFLICT);
    assert_string_equal(err.field, "name");
    other = first;
    other.email = s_view("else@example.com");
    assert_int_equal(dkt_saga_create(conn, &s_env, &other, &account, &err), DKT_CONFLICT);
    assert_string_equal(err.field, "email");
    other = first;
    other.resolvers = 6;
    assert_int_equal(dkt_saga_create(conn, &s_env, &other, &account, &err), DKT_CONFLICT);
    assert_string_equal(err.field, "resolvers");
    /* Another request for the same mail box, in another spelling. */
    other = s_request("Else", "Conflict@Example.com");
    assert_int_equal(dkt_saga_create(conn, &s_env, &other, &account, &err), DKT_ALREADY_EXISTS);
    PQfinish(conn);
}

/* The process died between the claim and the rest: whoever comes next finishes it. */
static void test_control_account_half_made_is_finished(void **state)
{
    (void)state;
    dkt_err_t err;
    uint32_t count = 0;
    PGconn *conn = support_control_connect(&s_control);
    s_fill(conn);
    support_pg_exec(conn,
                    "with t as (delete from pool returning database, cluster)"
                    " insert into tenants (client_id, request_id, name, email, sub_domain,"
                    " resolvers, cluster, database, state, password, settings, created_at)"
                    " select 'cl_0123456789abcdef', gen_random_uuid (), 'Half', 'half@x', 'half-1',"
                    " 9, cluster, database, 'claimed', 'secret-hash', '{}',"
                    " now() - interval '1 minute' from t");
    /* An older one cannot be finished. */
    support_pg_exec(conn,
                    "insert into tenants (client_id, request_id, name, email, sub_domain,"
                    " resolvers, cluster, database, state, password, settings, created_at)"
                    " select 'cl_fedcba9876543210', gen_random_uuid (), 'Lost', 'lost@x', 'lost-1',"
                    " 9, cluster, 't_' || repeat ('0', 32), 'claimed', 'secret-hash', '{}',"
                    " now() - interval '2 minutes' from tenants where name = 'Half'");
    assert_int_not_equal(dkt_saga_finish_all(conn, &s_env, &count, &err), DKT_OK);
    assert_int_equal(count, 1);
    support_pg_exec(conn, "delete from tenants where name = 'Lost'");
    assert_int_equal(support_pg_int(conn, "select count(*) from tenants where name = 'Half'"
                                          " and state = 'active' and password is null"),
                     1);
    char database[64], hash[64];
    support_pg_text(conn, "select database from tenants where name = 'Half'", database,
                    sizeof database);
    PGconn *tenant = support_pg_connect(s_control.pg, database, NULL);
    support_pg_text(tenant, "select password from account", hash, sizeof hash);
    assert_string_equal(hash, "secret-hash");
    assert_int_equal(support_pg_int(tenant, "select resolvers from settings"), 9);
    /* Once more changes nothing. */
    support_pg_exec(tenant, "update settings set resolvers = 11");
    support_pg_exec(conn, "update tenants set state = 'claimed' where name = 'Half'");
    assert_int_equal(dkt_saga_finish_all(conn, &s_env, &count, &err), DKT_OK);
    assert_int_equal(support_pg_int(tenant, "select resolvers from settings"), 11);
    PQfinish(tenant);
    PQfinish(conn);
}

static void test_control_pool_role_reaches_its_database_only(void **state)
{
    (void)state;
    char own[64], other[64];
    PGconn *conn = support_control_connect(&s_control);
    support_pg_text(conn, "select database from tenants order by created_at limit 1", own,
                    sizeof own);
    support_pg_text(conn, "select database from tenants order by created_at desc limit 1", other,
                    sizeof other);
    assert_string_not_equal(own, other);
    const char *const forbidden[] = {other, "docket_control", "docket_template", "postgres",
                                     "template1"};
    char info[256];
    for (size_t i = 0; i < sizeof forbidden / sizeof forbidden[0]; i++) {
        snprintf(info, sizeof info, "host=127.0.0.1 port=%u user=%s dbname=%s",
                 support_pg_port(s_control.pg), own, forbidden[i]);
        PGconn *tenant = PQconnectdb(info);
        assert_int_not_equal(PQstatus(tenant), CONNECTION_OK);
        PQfinish(tenant);
    }
    PGconn *tenant = support_pg_connect(s_control.pg, own, own);
    assert_int_equal(support_pg_int(tenant, "select count(*) from account"), 1);
    PQfinish(tenant);
    PQfinish(conn);
}

static void test_control_pool_cleans_what_was_left_half_made(void **state)
{
    (void)state;
    dkt_err_t err;
    PGconn *conn = support_control_connect(&s_control);
    support_pg_exec(conn, "insert into pool values ('t_00000000000000000000000000000000', 'local',"
                          " 'making', now() - interval '2 minutes')");
    support_pg_exec(conn, "create database t_00000000000000000000000000000000");
    assert_int_equal(dkt_pool_clean(conn, &err), DKT_OK);
    assert_int_equal(support_pg_int(conn, "select count(*) from pool"), 0);
    assert_int_equal(support_pg_int(conn, "select count(*) from pg_database where datname ="
                                          " 't_00000000000000000000000000000000'"),
                     0);
    PQfinish(conn);
}

static void test_control_slug_is_a_label_from_any_name(void **state)
{
    (void)state;
    static const struct {
        const char *name, *slug;
    } rows[] = {
        {"Acme Corp.", "acme-corp-aaaaaa"},
        {"--- A  b ---", "a-b-aaaaaa"},
        {"", "aaaaaa"},
        {"\xe6\xbc\xa2\xe5\xad\x97", "aaaaaa"},
        {"'; drop table tenants; --", "drop-table-tenants-aaaaaa"},
        {"0123456789012345678901234567890123456789012345678901234567890123456789",
         "0123456789012345678901234567890123456789-aaaaaa"},
    };
    char slug[DKT_DOMAIN_BYTES_MAX];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dkt_saga_slug(s_view(rows[i].name), 0, slug);
        assert_string_equal(slug, rows[i].slug);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_control_bootstrap_is_idempotent),
        cmocka_unit_test(test_control_nothing_is_open_to_public),
        cmocka_unit_test(test_control_refuses_a_bad_name_and_a_missing_key),
        cmocka_unit_test(test_control_registers_brokers),
        cmocka_unit_test(test_control_audit_is_chained_and_append_only),
        cmocka_unit_test(test_control_account_needs_a_ready_database),
        cmocka_unit_test(test_control_account_conflicts_name_the_field),
        cmocka_unit_test(test_control_account_half_made_is_finished),
        cmocka_unit_test(test_control_pool_role_reaches_its_database_only),
        cmocka_unit_test(test_control_pool_cleans_what_was_left_half_made),
        cmocka_unit_test(test_control_slug_is_a_label_from_any_name),
    };
    return cmocka_run_group_tests(tests, s_setup, s_teardown);
}
