/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions on the control database. Every parameter that matters is set here by name, after the
 * URI's own, so that a URI cannot weaken the time-outs.
 */
#include "lib/edge/control.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define S_PARAMS_MAX     64 /* libpq 15 knows about 40 options */
#define S_SQLSTATE_CHARS 5

static const char *const s_fixed[][2] = {
    {"connect_timeout", "2"},
    {"keepalives", "1"},
    {"keepalives_idle", "1"},
    {"keepalives_interval", "1"},
    {"keepalives_count", "3"},
    {"tcp_user_timeout", "2000"},
    {"client_encoding", "UTF8"},
    {"options", "-c statement_timeout=2s -c lock_timeout=500ms -c search_path=public"
                " -c idle_in_transaction_session_timeout=2s -c timezone=UTC -c jit=off"
                " -c tcp_keepalives_idle=1 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=3"
                " -c tcp_user_timeout=3000 -c client_connection_check_interval=1000"},
};
#define S_FIXED_COUNT (sizeof s_fixed / sizeof s_fixed[0])

/* libpq's texts end with a newline and may have several lines; one line is kept. */
static dkt_status_t s_fail_pq(dkt_err_t *err, dkt_status_t status, const char *what,
                              const char *text)
{
    return dkt_fail(err, status, NULL, "%s: %.*s", what, (int)strcspn(text, "\n"), text);
}

static bool s_is_fixed(const char *keyword)
{
    for (size_t i = 0; i < S_FIXED_COUNT; i++) {
        if (strcmp(s_fixed[i][0], keyword) == 0) {
            return true;
        }
    }
    return strcmp(keyword, "application_name") == 0 || strcmp(keyword, "replication") == 0;
}

/* Server notices would be printed on stderr outside of the log. */
static void s_drop_notice(void *ctx, const PGresult *result)
{
    (void)ctx;
    (void)result;
}

PGconn *dkt_control_connect(const char *uri, const char *database, const char *who, dkt_err_t *err)
{
    char *parse_text = NULL;
    PQconninfoOption *options = PQconninfoParse(uri, &parse_text);
    if (!options) {
        (void)s_fail_pq(err, DKT_INVALID_ARGUMENT, "the URI of the control database",
                        parse_text ? parse_text : "no memory");
        PQfreemem(parse_text);
        return NULL;
    }
    const char *keywords[S_PARAMS_MAX + 1], *values[S_PARAMS_MAX + 1];
    size_t count = 0;
    for (PQconninfoOption *option = options; option->keyword; option++) {
        bool replaced = database && strcmp(option->keyword, "dbname") == 0;
        if (option->val && !replaced && !s_is_fixed(option->keyword)) {
            assert(count < S_PARAMS_MAX - S_FIXED_COUNT - 2);
            keywords[count] = option->keyword;
            values[count++] = option->val;
        }
    }
    if (database) {
        keywords[count] = "dbname";
        values[count++] = database;
    }
    char name[64];
    snprintf(name, sizeof name, "docket/%s", who);
    keywords[count] = "application_name";
    values[count++] = name;
    for (size_t i = 0; i < S_FIXED_COUNT; i++) {
        keywords[count] = s_fixed[i][0];
        values[count++] = s_fixed[i][1];
    }
    keywords[count] = NULL;
    values[count] = NULL;
    PGconn *conn = PQconnectdbParams(keywords, values, 0);
    PQconninfoFree(options);
    if (PQstatus(conn) != CONNECTION_OK) {
        (void)s_fail_pq(err, DKT_UNAVAILABLE, "the control database", PQerrorMessage(conn));
        PQfinish(conn);
        return NULL;
    }
    PQsetNoticeReceiver(conn, s_drop_notice, NULL);
    return conn;
}

/* The result if it is a good one; otherwise NULL, and err says why. */
static PGresult *s_judge(PGconn *conn, PGresult *result, dkt_err_t *err)
{
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY) {
        return result;
    }
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    char what[S_SQLSTATE_CHARS + 1];
    snprintf(what, sizeof what, "%s", sqlstate ? sqlstate : "lost");
    (void)s_fail_pq(err, PQstatus(conn) == CONNECTION_OK ? DKT_INTERNAL : DKT_UNAVAILABLE, what,
                    result ? PQresultErrorMessage(result) : PQerrorMessage(conn));
    PQclear(result);
    return NULL;
}

PGresult *dkt_control_run(PGconn *conn, const char *sql, int count, const char *const *params,
                          dkt_err_t *err)
{
    /* Without parameters the simple protocol is used: it takes several statements at once. */
    PGresult *result = count == 0 ? PQexec(conn, sql)
                                  : PQexecParams(conn, sql, count, NULL, params, NULL, NULL, 0);
    return s_judge(conn, result, err);
}

dkt_status_t dkt_control_keep(PGconn *conn, const char *name, const char *sql, dkt_err_t *err)
{
    PGresult *result = s_judge(conn, PQprepare(conn, name, sql, 0, NULL), err);
    if (!result) {
        return err->status;
    }
    PQclear(result);
    return DKT_OK;
}

PGresult *dkt_control_run_kept(PGconn *conn, const char *name, int count, const char *const *params,
                               dkt_err_t *err)
{
    return s_judge(conn, PQexecPrepared(conn, name, count, params, NULL, NULL, 0), err);
}

dkt_status_t dkt_control_exec(PGconn *conn, const char *sql, int count, const char *const *params,
                              dkt_err_t *err)
{
    PGresult *result = dkt_control_run(conn, sql, count, params, err);
    if (!result) {
        return err->status;
    }
    PQclear(result);
    return DKT_OK;
}

bool dkt_control_is_state(const dkt_err_t *err, const char *sqlstate)
{
    return strncmp(err->text, sqlstate, S_SQLSTATE_CHARS) == 0;
}

const char *dkt_control_host(const PGconn *conn)
{
    return PQhost(conn);
}

const char *dkt_control_port(const PGconn *conn)
{
    return PQport(conn);
}

static dkt_status_t s_run_once(const char *uri, const char *sql, int count,
                               const char *const *params, dkt_err_t *err)
{
    PGconn *conn = dkt_control_connect(uri, NULL, "start", err);
    if (!conn) {
        return err->status;
    }
    dkt_status_t status = dkt_control_exec(conn, sql, count, params, err);
    PQfinish(conn);
    return status;
}

dkt_status_t dkt_control_register_broker(const char *uri, const char *node,
                                         const char *workers_address, dkt_err_t *err)
{
    dkt_err_t own;
    const char *params[] = {node, workers_address};
    return s_run_once(uri,
                      "insert into brokers (node, workers_address) values ($1, $2)"
                      " on conflict (node) do update set workers_address = $2,"
                      " registered_at = clock_timestamp ()",
                      2, params, err ? err : &own);
}

dkt_status_t dkt_control_deregister_broker(const char *uri, const char *node,
                                           const char *workers_address, dkt_err_t *err)
{
    dkt_err_t own;
    const char *params[] = {node, workers_address};
    return s_run_once(uri, "delete from brokers where node = $1 and workers_address = $2", 2,
                      params, err ? err : &own);
}
