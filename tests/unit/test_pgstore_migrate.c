/* SPDX-License-Identifier: Apache-2.0
 *
 * Steps of a tenant's schema against a real PostgreSQL: what the owner can run, that it runs once,
 * and that a step's failure costs nothing but the step. The steps themselves: headers and targets.
 */
#include <stdio.h>
#include <string.h>

#include "support_pgstore.h"

#include "lib/edge/schema.h"
#include "lib/edge/upgrade.h"

#define S_FIRST 900 /* numbers that no real step has yet */

static char s_uri[128];

/* Places one step after all that the database has. */
static void s_place(int number, const char *sql)
{
    dkt_err_t err;
    char text[512];
    int version = 0;
    snprintf(text, sizeof text, "-- min_reader: 1\n-- kind: expand\n%s", sql);
    dkt_steps_t steps = {.count = 1, .steps = {{.number = number, .name = "a step", .sql = text}}};
    assert_true(dkt_step_header(&steps.steps[0]));
    assert_int_equal(dkt_upgrade_place(s_uri, "t_one", &steps, number, &version, &err), DKT_OK);
    assert_true(version > 0 && version < number);
}

static const dkt_store_result_t *s_migrate(st_client_t *client, int target)
{
    dkt_batch_t batch = {
        .kind = DKT_BATCH_MIGRATE, .epoch = client->epoch, .migrate_target = target};
    return &st_run(client, &batch)->result;
}

static int s_forget(void **state)
{
    support_pg_exec(st_admin, "drop table if exists one, two; drop table if exists migrations;"
                              "delete from schema_version where version >= 900");
    return st_clean(state);
}

static int s_begin(void **state)
{
    int status = st_start(state);
    snprintf(s_uri, sizeof s_uri, "postgresql://postgres@127.0.0.1:%u/t_one",
             support_pg_port(st_pg));
    return status;
}

static void test_pgstore_migrate_runs_each_step_once(void **state)
{
    (void)state;
    st_own(&st_one);
    s_place(S_FIRST, "create table one (a int); insert into one values (1);");
    s_place(S_FIRST + 1, "create table two (a int);");
    const dkt_store_result_t *result = s_migrate(&st_one, S_FIRST);
    assert_int_equal(result->outcome, DKT_STORE_OK);
    assert_string_equal(result->sqlstate, "");
    assert_int_equal(result->schema_version, S_FIRST);
    assert_true(result->db_ms > 0);
    for (int i = 0; i < 2; i++) { /* the second time there is nothing to do */
        result = s_migrate(&st_one, S_FIRST + 1);
        assert_string_equal(result->sqlstate, "");
        assert_int_equal(result->schema_version, S_FIRST + 1);
    }
    assert_int_equal(st_int("select count(*) from one"), 1);
    assert_int_equal(st_int("select count(*) from schema_version where version >= 900"), 2);
    dkt_batch_t lock = {.kind = DKT_BATCH_LOCK};
    result = &st_run(&st_one, &lock)->result;
    assert_int_equal(result->schema_version, S_FIRST + 1);
    assert_int_equal(result->min_reader, 1);
}

/* Whatever goes wrong, the owner's session and its lock outlive it, and nothing of the step stays.
 */
static void test_pgstore_migrate_failure_is_undone_and_told(void **state)
{
    (void)state;
    static const struct {
        const char *sql, *sqlstate;
    } rows[] = {
        {"create table one (a int); select 1 / 0;", "22012"},
        {"create table one (a int); select no such thing;", "42601"},
        {"create table one (a int); do $$ begin raise exception 'no'; end $$;", "P0001"},
        {"create table one (a int); select pg_sleep(5);", "57014"},
        {"create table one (a int); alter table account add column b int;", "55P03"},
    };
    st_own(&st_one);
    support_pg_exec(st_admin, "begin; lock table account in access share mode");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        s_place(S_FIRST, rows[i].sql);
        int64_t begin_ms = st_now_ms();
        const dkt_store_result_t *result = s_migrate(&st_one, S_FIRST);
        assert_int_equal(result->outcome, DKT_STORE_OK);
        assert_string_equal(result->sqlstate, rows[i].sqlstate);
        assert_non_null(strstr(result->text, "a step: "));
        assert_int_not_equal(result->schema_version, S_FIRST);
        assert_true(st_now_ms() - begin_ms < DKT_COMMIT_TIMEOUT_MS);
        dkt_ticket_row_t row = st_ticket(i + 1, (uint32_t)i + 1, 0);
        dkt_batch_t batch = st_commit(&st_one);
        batch.commit.insert_count = 1;
        batch.commit.inserts = &row;
        assert_int_equal(st_run(&st_one, &batch)->result.outcome, DKT_STORE_OK);
    }
    support_pg_exec(st_admin, "commit");
    assert_int_equal(st_int("select count(*) from pg_class where relname = 'one'"), 0);
    assert_int_equal(st_int("select count(*) from schema_version where version >= 900"), 0);
    assert_string_equal(s_migrate(&st_one, S_FIRST)->sqlstate, ""); /* the lock was given back */
}

static void test_pgstore_migrate_refuses_a_stale_owner(void **state)
{
    (void)state;
    st_own(&st_one);
    s_place(S_FIRST, "create table one (a int);");
    support_pg_exec(st_admin, "update owner set epoch = epoch + 1");
    s_migrate(&st_one, S_FIRST);
    st_failed(&st_one, DKT_STORE_REFUSED, "DK001");
    assert_int_equal(st_int("select count(*) from pg_class where relname = 'one'"), 0);
}

static void test_pgstore_migrate_tells_of_a_step_nobody_placed(void **state)
{
    (void)state;
    st_own(&st_one);
    s_place(S_FIRST, "create table one (a int);");
    s_migrate(&st_one, S_FIRST);
    assert_string_equal(s_migrate(&st_one, S_FIRST + 7)->sqlstate, "DK004");
}

static void s_refused(PGconn *conn, const char *sql)
{
    PGresult *result = PQexec(conn, sql);
    assert_string_equal(PQresultErrorField(result, PG_DIAG_SQLSTATE), "42501");
    PQclear(result);
}

/* The text of a step is the administrator's alone, and so is what it makes. */
static void test_pgstore_migrate_text_is_out_of_the_tenants_reach(void **state)
{
    (void)state;
    st_own(&st_one);
    s_place(S_FIRST, "create table one (a int);");
    PGconn *tenant = support_pg_connect(st_pg, "t_one", "t_one");
    s_refused(tenant, "select * from migrations");
    s_refused(tenant, "insert into migrations values (901, 1, 'x', 'select 1')");
    s_refused(tenant, "update migrations set sql = 'select 1'");
    s_refused(tenant, "create or replace function docket_migrate(bigint, bigint) returns int"
                      " language sql as 'select 1'");
    s_migrate(&st_one, S_FIRST);
    s_refused(tenant, "drop table one");
    s_refused(tenant, "select * from one");
    PQfinish(tenant);
}

/* -- the steps -- */

static void test_schema_steps_of_the_binary_have_headers(void **state)
{
    (void)state;
    dkt_err_t err;
    for (int kind = DKT_SCHEMA_CONTROL; kind <= DKT_SCHEMA_TENANT; kind++) {
        int reads = kind == DKT_SCHEMA_TENANT ? DKT_SCHEMA_TENANT_READS : DKT_SCHEMA_CONTROL_READS;
        dkt_steps_t *steps = dkt_steps_load((dkt_schema_kind_t)kind, &err);
        assert_non_null(steps);
        assert_int_equal(dkt_steps_newest(steps), reads); /* this code knows its own schema */
        for (int i = 0; i < steps->count; i++) {
            assert_true(steps->steps[i].min_reader <= reads);
        }
        dkt_steps_destroy(&steps);
    }
}

static void test_schema_header_must_be_there(void **state)
{
    (void)state;
    static const struct {
        const char *sql;
        bool good, contract;
        int min_reader;
    } rows[] = {
        {"-- min_reader: 3\n-- kind: contract\nselect 1", true, true, 3},
        {"-- a licence\n--\n-- kind: expand\n-- min_reader: 1\n\nselect 1", true, false, 1},
        {"-- min_reader: 3\nselect 1", false, false, 0},
        {"-- kind: expand\nselect 1", false, false, 0},
        {"-- min_reader: 3\n-- kind: expanded\nselect 1", false, false, 0},
        {"-- min_reader: 0\n-- kind: expand\nselect 1", false, false, 0},
        {"-- min_reader: 3x\n-- kind: expand\nselect 1", false, false, 0},
        {"select 1;\n-- min_reader: 3\n-- kind: expand\n", false, false, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dkt_step_t step = {.number = 1, .name = "x", .sql = rows[i].sql};
        assert_int_equal(dkt_step_header(&step), rows[i].good);
        if (rows[i].good) {
            assert_int_equal(step.contract, rows[i].contract);
            assert_int_equal(step.min_reader, rows[i].min_reader);
        }
    }
}

static void test_schema_target_stops_before_a_contract_step(void **state)
{
    (void)state;
    const dkt_steps_t steps = {.count = 5,
                               .steps = {{.number = 1},
                                         {.number = 2},
                                         {.number = 3, .contract = true},
                                         {.number = 4},
                                         {.number = 6, .contract = true}}};
    static const struct {
        int version, contracted, target;
    } rows[] = {
        {0, 0, 6}, /* empty: no older code has known it */
        {1, 0, 2}, {2, 0, 2}, {3, 0, 4}, {4, 0, 4},
        {1, 3, 4}, {1, 6, 6}, {6, 0, 6}, {9, 0, 9}, /* made by newer code: nothing to do */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(dkt_steps_target(&steps, rows[i].version, rows[i].contracted),
                         rows[i].target);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_pgstore_migrate_runs_each_step_once, s_forget),
        cmocka_unit_test_teardown(test_pgstore_migrate_failure_is_undone_and_told, s_forget),
        cmocka_unit_test_teardown(test_pgstore_migrate_refuses_a_stale_owner, s_forget),
        cmocka_unit_test_teardown(test_pgstore_migrate_tells_of_a_step_nobody_placed, s_forget),
        cmocka_unit_test_teardown(test_pgstore_migrate_text_is_out_of_the_tenants_reach, s_forget),
        cmocka_unit_test(test_schema_steps_of_the_binary_have_headers),
        cmocka_unit_test(test_schema_header_must_be_there),
        cmocka_unit_test(test_schema_target_stops_before_a_contract_step),
    };
    return cmocka_run_group_tests(tests, s_begin, st_stop);
}
