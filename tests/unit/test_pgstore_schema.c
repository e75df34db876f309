/* SPDX-License-Identifier: Apache-2.0
 *
 * The tenant database by itself: rights, constraints and the view of slots, over plain SQL.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/edge/pgstore_self.h"
#include "support_pg.h"

static support_pg_t *s_pg;
static PGconn *s_conn;

static int s_start(void **state)
{
    (void)state;
    s_pg = support_pg_start(false);
    support_pg_tenant(s_pg, "t_one");
    support_pg_tenant(s_pg, "t_two");
    s_conn = support_pg_connect(s_pg, "t_one", "t_one");
    return 0;
}

static int s_stop(void **state)
{
    (void)state;
    PQfinish(s_conn);
    support_pg_stop(&s_pg);
    return 0;
}

/* The statement must fail with that SQLSTATE. */
static void s_refused(const char *sql, const char *sqlstate)
{
    PGresult *result = PQexec(s_conn, sql);
    assert_int_equal(PQresultStatus(result), PGRES_FATAL_ERROR);
    assert_string_equal(PQresultErrorField(result, PG_DIAG_SQLSTATE), sqlstate);
    PQclear(result);
}

#define S_INSERT                                                                                   \
    "insert into tickets (id, class, slot_start, lane, created_at, deadline, state, breached, "    \
    "at_risk) "

static void test_pgstore_schema_refuses_broken_promises(void **state)
{
    (void)state;
    static const struct {
        const char *values, *sqlstate;
    } rows[] = {
        /* slot ends after the deadline */
        {"(1, 'gold', '2030-01-01 02:00Z', 0, '2030-01-01Z', '2030-01-01 02:00Z', 0, false, false)",
         "23514"},
        /* not a whole minute */
        {"(1, 'gold', '2030-01-01 01:00:01Z', 0, '2030-01-01Z', '2030-01-01 02:00Z', 0, false, "
         "false)",
         "23514"},
        /* a level is whole minutes, at most 1440 */
        {"(1, 'gold', '2030-01-01 01:00Z', 0, '2030-01-01 00:00:07Z', '2030-01-01 02:00Z', 0, "
         "false, false)",
         "23514"},
        {"(1, 'gold', '2030-01-01 01:00Z', 0, '2030-01-01Z', '2030-01-02 00:01Z', 0, false, false)",
         "23514"},
        /* cancelled without its time; a fifth state */
        {"(1, 'gold', '2030-01-01 01:00Z', null, '2030-01-01Z', '2030-01-01 02:00Z', 3, false, "
         "false)",
         "23514"},
        {"(1, 'gold', '2030-01-01 01:00Z', 0, '2030-01-01Z', '2030-01-01 02:00Z', 4, false, false)",
         "23514"},
        /* two on one lane */
        {"(1, 'gold', '2030-01-01 01:00Z', 0, '2030-01-01Z', '2030-01-01 02:00Z', 0, false, false),"
         "(2, 'gold', '2030-01-01 01:00Z', 0, '2030-01-01Z', '2030-01-01 02:00Z', 0, false, false)",
         "23505"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char sql[1024];
        snprintf(sql, sizeof sql, S_INSERT "values %s", rows[i].values);
        s_refused(sql, rows[i].sqlstate);
    }
    /* the same, late but flagged, and on two lanes */
    support_pg_exec(s_conn, S_INSERT "values (1, 'gold', '2030-01-01 02:00Z', 0, '2030-01-01Z', "
                                     "'2030-01-01 02:00Z', 0, false, true),"
                                     "(2, 'gold', '2030-01-01 01:00Z', 1, '2030-01-01Z', "
                                     "'2030-01-01 02:00Z', 0, false, false);"
                                     "delete from tickets");
}

/* Which state agrees with which times and lane, said the other way round than the schema says it.
 */
static bool s_state_is_sound(int state, bool lane, bool dispatched, bool resolved, bool cancelled)
{
    switch (state) {
    case 0:
        return !dispatched && !resolved && !cancelled;
    case 1:
        return dispatched && !resolved && !cancelled;
    case 2:
        return resolved && !cancelled;
    case 3:
        return cancelled && !dispatched && !resolved && !lane;
    default:
        return false;
    }
}

/* Every state, and what is none, with every combination of times and lane. */
static void test_pgstore_schema_state_agrees_with_times(void **state)
{
    static const int states[] = {INT16_MIN, -1, 0, 1, 2, 3, 4, INT16_MAX};
    enum { S_LANE = 1, S_DISPATCHED = 2, S_RESOLVED = 4, S_CANCELLED = 8, S_ALL = 16 };
    (void)state;
    support_pg_exec(s_conn, "begin");
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        for (int has = 0; has < S_ALL; has++) {
            char sql[512];
            snprintf(sql, sizeof sql,
                     "insert into tickets (id, class, slot_start, created_at, deadline, state, "
                     "breached, at_risk, lane, dispatched_at, resolved_at, cancelled_at) values "
                     "(1, 'gold', '2030-01-01 01:00Z', '2030-01-01Z', '2030-01-01 02:00Z', %d, "
                     "false, false, %s, %s, %s, %s)",
                     states[i], has & S_LANE ? "0" : "null", has & S_DISPATCHED ? "now()" : "null",
                     has & S_RESOLVED ? "now()" : "null", has & S_CANCELLED ? "now()" : "null");
            support_pg_exec(s_conn, "savepoint before");
            if (s_state_is_sound(states[i], has & S_LANE, has & S_DISPATCHED, has & S_RESOLVED,
                                 has & S_CANCELLED)) {
                support_pg_exec(s_conn, sql);
            } else {
                s_refused(sql, "23514");
            }
            support_pg_exec(s_conn, "rollback to before");
        }
    }
    support_pg_exec(s_conn, "rollback");
}

static void test_pgstore_schema_keeps_tenants_apart(void **state)
{
    (void)state;
    char info[256];
    snprintf(info, sizeof info, "%s user=t_one dbname=t_two", support_pg_conninfo(s_pg));
    PGconn *stranger = PQconnectdb(info);
    assert_int_equal(PQstatus(stranger), CONNECTION_BAD);
    PQfinish(stranger);
    s_refused("create table loot (a int)", "42501");
    s_refused("create temp table loot (a int)", "42501");
    s_refused("drop table tickets", "42501");
    s_refused("delete from owner", "42501");
    s_refused("update schema_version set version = 9", "42501");
    s_refused("alter table tickets drop constraint tickets_promise", "42501");
}

/* Books every lane of [from, to) minutes after the first bookable one. */
static void s_book(int from, int to, int lanes)
{
    char sql[768];
    snprintf(sql, sizeof sql,
             S_INSERT "select coalesce((select max(id) from tickets), 0) + row_number() over (), "
                      "'bronze', m.time, m.lane, now(), now() + interval '8 h', 0, false, false "
                      "from slots m where m.lane < %d and m.time >= docket_first_minute(now()) + "
                      "make_interval(mins => %d) and m.time < docket_first_minute(now()) + "
                      "make_interval(mins => %d)",
             lanes, from, to);
    support_pg_exec(s_conn, sql);
}

#define S_QUERY                                                                                    \
    "select min(time) from slots where available = 'available' and time > now() and time < "       \
    "now() + interval '2 h'"

/* The minute after the first bookable one that the mission's query names; -1: none. All inside one
 * transaction, so now() stands still. */
static int64_t s_named(void)
{
    return support_pg_int(s_conn, "select coalesce(extract(epoch from (" S_QUERY
                                  ") - docket_first_minute(now()))::bigint / 60, -1)");
}

static void test_pgstore_schema_hides_the_closing_minute(void **state)
{
    (void)state;
    static const struct {
        const char *now, *first;
    } rows[] = {
        {"12:00:00", "12:01:00+00"},        {"12:00:57.999", "12:01:00+00"},
        {"12:00:58", "12:01:00+00"},        {"12:00:58.000001", "12:02:00+00"},
        {"12:00:59.999999", "12:02:00+00"}, {"23:59:59", "00:01:00+00"},
    };
    support_pg_exec(s_conn, "set timezone = 'UTC'");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char sql[128], text[32];
        snprintf(sql, sizeof sql, "select docket_first_minute('2030-01-01 %sZ')::timetz",
                 rows[i].now);
        support_pg_text(s_conn, sql, text, sizeof text);
        assert_string_equal(text, rows[i].first);
    }
}

static void test_pgstore_schema_slots_names_the_ledgers_minute(void **state)
{
    (void)state;
    support_pg_exec(s_conn, "begin");
    support_pg_exec(s_conn, "update settings set resolvers = 2");
    /* 479 whole minutes fit into 480, less one if now is within 2 s of a minute's end */
    int64_t minutes = support_pg_int(s_conn, "select count(*) / 2 from slots");
    int64_t closing = support_pg_int(s_conn, "select (docket_first_minute(now()) - now() > "
                                             "interval '1 min')::int");
    assert_int_equal(minutes, 479 - closing);
    assert_int_equal(support_pg_int(s_conn, "select count(distinct available) from slots"), 1);
    assert_true(support_pg_int(s_conn, "select extract(epoch from min(time) - now()) * 1000 "
                                       "from slots") >= 2000);
    assert_int_equal(s_named(), 0);
    s_book(0, 5, 2);
    assert_int_equal(s_named(), 5);
    s_book(5, 6, 1); /* one lane of the sixth is left */
    assert_int_equal(s_named(), 5);
    support_pg_exec(s_conn, "update tickets set state = 3, lane = null, cancelled_at = now() "
                            "where id = 3");
    assert_int_equal(s_named(), 1);
    support_pg_exec(s_conn, "delete from tickets");
    s_book(0, 119, 2); /* gold is full: only the minute that begins but does not end in time */
    assert_int_equal(s_named(), closing ? -1 : 119);
    s_book(119, 120, 2);
    assert_int_equal(s_named(), -1);
    support_pg_exec(s_conn, "rollback");
}

/* The highest parameter of a statement. */
static int s_parameters(const char *sql)
{
    int highest = 0;
    for (const char *at = strchr(sql, '$'); at; at = strchr(at + 1, '$')) {
        int number = atoi(at + 1);
        highest = number > highest ? number : highest;
    }
    return highest;
}

/* Whatever the table held when the plan was made (here: nothing), it must not be read as a whole.
 */
static void test_pgstore_schema_statements_use_indexes(void **state)
{
    (void)state;
    int checked = 0;
    support_pg_exec(s_conn, "set plan_cache_mode = force_generic_plan; set enable_seqscan = off;"
                            "set enable_hashjoin = off; set enable_mergejoin = off");
    for (int i = 0; i < DKT_SQL_COUNT; i++) {
        const dkt_sql_row_t *row = &dkt_pgstore_sql[i];
        char sql[4096];
        if (!strstr(row->text, "tickets")) {
            continue;
        }
        snprintf(sql, sizeof sql, "prepare p as %s", row->text);
        support_pg_exec(s_conn, sql);
        int count = s_parameters(row->text);
        int len = snprintf(sql, sizeof sql, "explain execute p%s", count ? " (null" : "");
        for (int k = 1; k < count; k++) {
            len += snprintf(sql + len, sizeof sql - (size_t)len, ", null");
        }
        snprintf(sql + len, sizeof sql - (size_t)len, "%s", count ? ")" : "");
        PGresult *plan = PQexec(s_conn, sql);
        assert_int_equal(PQresultStatus(plan), PGRES_TUPLES_OK);
        for (int k = 0; k < PQntuples(plan); k++) {
            if (strstr(PQgetvalue(plan, k, 0), "Seq Scan on tickets")) {
                fail_msg("%s reads the whole table", row->name);
            }
        }
        PQclear(plan);
        support_pg_exec(s_conn, "deallocate p");
        checked++;
    }
    assert_true(checked >= 10);
    support_pg_exec(s_conn, "reset all");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pgstore_schema_refuses_broken_promises),
        cmocka_unit_test(test_pgstore_schema_state_agrees_with_times),
        cmocka_unit_test(test_pgstore_schema_keeps_tenants_apart),
        cmocka_unit_test(test_pgstore_schema_hides_the_closing_minute),
        cmocka_unit_test(test_pgstore_schema_slots_names_the_ledgers_minute),
        cmocka_unit_test(test_pgstore_schema_statements_use_indexes),
    };
    return cmocka_run_group_tests(tests, s_start, s_stop);
}
