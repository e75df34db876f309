/* SPDX-License-Identifier: Apache-2.0
 *
 * docket tenant delete: asks for a deletion in the control database, exports when the tenant's
 * database stands still, waits, and hands over the receipt. The work itself is the leader's
 * (workers/deletion.h); this command may die anywhere and be run again.
 *
 *   look -+- tombstone ------------------------------------------> the receipt
 *         +- deletion under way -> wait <-----+
 *         +- active -> begin -----------------+-- fenced, export wanted -> export, manifest
 *                                             +-- refused: open promises
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/core/limits.h"
#include "lib/core/receipt.h"
#include "lib/edge/clock.h"
#include "ops/life.h"

#define S_LOOK_MS           50
#define S_TIMEOUT_S         120
#define S_TIMEOUT_MAX_S     86400
#define S_NUMBER_BYTES      24
#define S_RECEIPT_BYTES_MAX 65536

static const char s_usage[] =
    "usage: docket tenant delete CLIENT_ID --confirm CLIENT_ID --receipt FILE [OPTIONS]\n"
    "\n"
    "Deletes a tenant for good: its database, its role, its account. From the first moment on\n"
    "nobody can reach it; its email is free again at the end. Open tickets are promises: a tenant\n"
    "with any is refused. The receipt says what was deleted, and is signed. Safe to repeat after\n"
    "any interruption: it goes on where it was, and a finished one prints the same receipt.\n"
    "  --confirm CLIENT_ID        the same id again\n"
    "  --receipt FILE             where the receipt goes; also printed\n"
    "  --export DIR               export (docket tenant export) when nothing can change any more,\n"
    "                             and delete only when that is whole\n"
    "  --even-with-open-tickets   break its promises\n"
    "  --timeout SECONDS          wait so long, default 120; the deletion goes on without "
    "us\n" DKT_LIFE_WHERE_HELP
    "  --json                     errors and refusals as one line of JSON, too\n"
    "  --help                     this text\n"
    "\n"
    "Events that are published already stay on NATS for their 7 days. Exit status: 0 deleted,\n"
    "1 refused or failed, 2 wrong use.\n";

typedef struct {
    dkt_life_where_t where;
    const char *client_id, *confirm, *receipt, *export;
    bool even_open, json;
    long timeout_s;
} s_options_t;

/* What the control database says of a deletion. */
typedef struct {
    char *receipt; /* heap; it is done */
    bool active, deleting, fenced, refused;
    bool export_wanted, exported;
    long long open_tickets; /* refused */
} s_state_t;

/* -- options -- */

/* -1: go on; otherwise the exit status. */
static int s_check(const s_options_t *options)
{
    if (!options->confirm || !options->receipt || options->timeout_s < 1 ||
        options->timeout_s > S_TIMEOUT_MAX_S) {
        fputs(s_usage, stderr);
        return 2;
    }
    if (strcmp(options->client_id, options->confirm) != 0) {
        fprintf(stderr, "docket tenant delete: --confirm names another tenant than %s\n",
                options->client_id);
        return 2;
    }
    return -1;
}

static int s_parse(int argc, char **argv, s_options_t *options)
{
    static const struct option rows[] = {
        {"confirm", required_argument, NULL, 'c'},
        {"receipt", required_argument, NULL, 'r'},
        {"export", required_argument, NULL, 'x'},
        {"even-with-open-tickets", no_argument, NULL, 'o'},
        {"timeout", required_argument, NULL, 't'},
        {"data", required_argument, NULL, 'd'},
        {"join", required_argument, NULL, 'e'},
        {"endpoint", required_argument, NULL, 'e'},
        {"keys", required_argument, NULL, 'k'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const struct {
        char letter;
        const char **target;
    } texts[] = {{'c', &options->confirm},    {'r', &options->receipt},
                 {'x', &options->export},     {'d', &options->where.data},
                 {'e', &options->where.join}, {'k', &options->where.keys}};
    int letter;
    optind = 0;
    while ((letter = getopt_long(argc, argv, "h", rows, NULL)) != -1) {
        if (letter == 'h' || letter == '?') {
            fputs(s_usage, letter == 'h' ? stdout : stderr);
            return letter == 'h' ? 0 : 2;
        }
        options->even_open = options->even_open || letter == 'o';
        options->json = options->json || letter == 'j';
        options->timeout_s = letter == 't' ? strtol(optarg, NULL, 10) : options->timeout_s;
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
            if (texts[i].letter == letter) {
                *texts[i].target = optarg;
            }
        }
    }
    if (optind + 1 != argc) {
        fputs(s_usage, stderr);
        return 2;
    }
    options->client_id = argv[optind];
    return s_check(options);
}

/* -- answers -- */

static int s_fail(const s_options_t *options, const dkt_err_t *err)
{
    if (options->json) {
        json_t *all = json_pack("{s:{s:s, s:s}}", "error", "code", dkt_status_code(err->status),
                                "message", err->text);
        json_dumpf(all, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(all);
    } else {
        fprintf(stderr, "docket tenant delete: %s\n", err->text);
    }
    return err->status == DKT_INVALID_ARGUMENT ? 2 : 1;
}

static int s_refused(const s_options_t *options, long long count)
{
    if (options->json) {
        printf("{\"status\":\"refused\",\"count\":%lld}\n", count);
    } else {
        printf("refused: %lld open tickets are promises; resolve or cancel them, or break them "
               "with --even-with-open-tickets\n",
               count);
    }
    return 1;
}

/* A receipt that this fleet did not sign is nothing to hand over. */
static dkt_status_t s_hand_over(const s_options_t *options, const char *receipt, dkt_err_t *err)
{
    uint8_t public_key[DKT_KEY_BYTES];
    dkt_status_t status = dkt_keys_receipt_public(options->where.keys_folder, public_key, err);
    if (status == DKT_OK) {
        json_t *good = dkt_receipt_verify(receipt, strlen(receipt), public_key, err);
        status = good ? DKT_OK : err->status;
        json_decref(good);
    }
    if (status == DKT_OK) {
        status = dkt_life_write(options->receipt, receipt, err);
    }
    if (status == DKT_OK) {
        fputs(receipt, stdout);
    }
    return status;
}

/* -- state -- */

/* In this order: the transaction that removes the tenant leaves the tombstone, so whoever does not
 * find the one finds the other, however much time passes between the two statements. */
static dkt_status_t s_look(PGconn *conn, const s_options_t *options, s_state_t *state,
                           dkt_err_t *err)
{
    memset(state, 0, sizeof *state);
    PGresult *result =
        dkt_control_run(conn,
                        "select t.state = 'active', t.state = 'deleting', d.phase = 'fenced',"
                        " d.phase = 'refused', d.export_wanted, d.manifest is not null,"
                        " coalesce (d.counts ->> 'open_tickets', '0')"
                        " from tenants t left join deletions d using (client_id)"
                        " where t.client_id = $1 and t.state in ('active', 'deleting')",
                        1, &options->client_id, err);
    if (!result) {
        return err->status;
    }
    if (PQntuples(result) == 1) {
        bool *const flags[] = {&state->active,  &state->deleting,      &state->fenced,
                               &state->refused, &state->export_wanted, &state->exported};
        for (int i = 0; i < (int)(sizeof flags / sizeof flags[0]); i++) {
            *flags[i] = PQgetvalue(result, 0, i)[0] == 't';
        }
        state->open_tickets = strtoll(PQgetvalue(result, 0, 6), NULL, 10);
    }
    bool found = PQntuples(result) == 1;
    PQclear(result);
    return found ? DKT_OK
                 : dkt_life_text(conn, "select receipt from tombstones where client_id = $1", 1,
                                 &options->client_id, &state->receipt, err);
}

/* How many promises a tenant has now, without disturbing it. */
static dkt_status_t s_count_open(PGconn *conn, const s_options_t *options, long long *count,
                                 dkt_err_t *err)
{
    char *database = NULL, *text = NULL;
    dkt_status_t status = dkt_life_text(conn, "select database from tenants where client_id = $1",
                                        1, &options->client_id, &database, err);
    PGconn *tenant =
        database ? dkt_control_connect(options->where.uri, database, "delete", err) : NULL;
    status = status == DKT_OK && !tenant ? (database ? err->status : DKT_OK) : status;
    if (tenant) {
        status = dkt_life_text(tenant,
                               "select count (*) from tickets where state = 0"
                               " or (state = 1 and not breached)",
                               0, NULL, &text, err);
    }
    *count = text ? strtoll(text, NULL, 10) : 0;
    PQfinish(tenant);
    free(database);
    free(text);
    return status;
}

/* The one transaction that makes the tenant unknown, or joins a deletion that has not come to its
 * fence yet. */
static dkt_status_t s_begin(PGconn *conn, const s_options_t *options, dkt_err_t *err)
{
    const char *params[] = {options->client_id, options->where.actor,
                            options->even_open ? "true" : "false",
                            options->export ? "true" : "false"};
    return dkt_control_exec(
        conn,
        "with t as materialized (select client_id, state from tenants where client_id = $1"
        "     and state in ('active', 'deleting') for update),"
        " more as (update deletions d set open_allowed = d.open_allowed or $3::boolean,"
        "     export_wanted = d.export_wanted or $4::boolean from t"
        "   where d.client_id = t.client_id and t.state = 'deleting' and d.phase = 'draining'),"
        " d as (insert into deletions (client_id, phase, actor, open_allowed, export_wanted)"
        "   select client_id, 'draining', $2, $3::boolean, $4::boolean from t"
        "     where state = 'active'"
        "   on conflict (client_id) do update set phase = 'draining', actor = excluded.actor,"
        "     asked_at = clock_timestamp (), open_allowed = excluded.open_allowed,"
        "     export_wanted = excluded.export_wanted, manifest = null, counts = null"
        "   returning client_id),"
        " u as (update tenants t set state = 'deleting', revision = revision + 1 from d"
        "   where t.client_id = d.client_id returning t.client_id, t.state, t.revision)"
        " select feed_append (to_jsonb (u)), audit_append ($2, 'delete_asked', client_id,"
        "     jsonb_build_object ('even_with_open_tickets', $3::boolean, 'export', $4::boolean)),"
        "   pg_notify ('docket_directory', '') from u",
        4, params, err);
}

static dkt_status_t s_audit_refusal(PGconn *conn, const s_options_t *options, long long count,
                                    dkt_err_t *err)
{
    char number[S_NUMBER_BYTES];
    snprintf(number, sizeof number, "%lld", count);
    const char *params[] = {options->where.actor, options->client_id, number};
    return dkt_control_exec(conn,
                            "select audit_append ($1, 'delete_refused', $2,"
                            " jsonb_build_object ('open_tickets', $3::bigint))",
                            3, params, err);
}

static dkt_status_t s_export(PGconn *conn, const s_options_t *options, dkt_err_t *err)
{
    dkt_exported_t done;
    if (!options->export) {
        return dkt_fail(err, DKT_CONFLICT, NULL,
                        "this deletion waits for its export: run it again with --export DIR");
    }
    dkt_export_t export = {.where = &options->where,
                           .client_id = options->client_id,
                           .out = options->export,
                           .progress = isatty(STDERR_FILENO) == 1};
    dkt_status_t status = dkt_export_run(&export, &done, err);
    const char *params[] = {options->client_id, done.sha256};
    return status == DKT_OK ? dkt_control_exec(conn,
                                               "update deletions set manifest = $2"
                                               " where client_id = $1 and manifest is null",
                                               2, params, err)
                            : status;
}

/* -- the command -- */

/* Until it is deleted; -1, or the exit status where there is no receipt. */
static int s_follow(PGconn *conn, const s_options_t *options, s_state_t *state, dkt_err_t *err)
{
    int64_t until_mono_ms = dkt_clock_mono_ms() + options->timeout_s * 1000;
    dkt_status_t status = DKT_OK;
    while (status == DKT_OK && !state->receipt) {
        if (state->refused && state->active) {
            return s_refused(options, state->open_tickets);
        }
        if (state->fenced && state->export_wanted && !state->exported) {
            status = s_export(conn, options, err);
        } else if (dkt_clock_mono_ms() >= until_mono_ms) {
            status = dkt_fail(err, DKT_UNAVAILABLE, NULL,
                              "not deleted within %ld s: is a worker running? It goes on; run this "
                              "again for the receipt",
                              options->timeout_s);
        } else {
            (void)poll(NULL, 0, S_LOOK_MS);
        }
        status = status == DKT_OK ? s_look(conn, options, state, err) : status;
        if (status == DKT_OK && !state->receipt && !state->active && !state->deleting) {
            status = dkt_fail(err, DKT_NOT_FOUND, NULL, "there is no such tenant");
        }
    }
    return status == DKT_OK ? -1 : s_fail(options, err);
}

/* Both files can be written: better known before the tenant is out of reach. */
static dkt_status_t s_check_files(const s_options_t *options, dkt_err_t *err)
{
    dkt_export_t export = {
        .where = &options->where, .client_id = options->client_id, .out = options->export};
    dkt_status_t status = dkt_life_write(options->receipt, NULL, err);
    return status == DKT_OK && options->export ? dkt_export_check(&export, err) : status;
}

/* What must be true before anything is touched; -1, or the exit status. */
static int s_prepare(PGconn *conn, const s_options_t *options, const s_state_t *state,
                     dkt_err_t *err)
{
    long long open = 0;
    dkt_status_t status = DKT_OK;
    if (!state->active && !state->deleting) {
        (void)dkt_fail(err, DKT_NOT_FOUND, NULL, "there is no such tenant");
        return s_fail(options, err);
    }
    if (state->active && !options->even_open) {
        status = s_count_open(conn, options, &open, err);
    }
    if (status == DKT_OK && open > 0) {
        status = s_audit_refusal(conn, options, open, err);
        return status == DKT_OK ? s_refused(options, open) : s_fail(options, err);
    }
    if (status == DKT_OK) {
        status = s_check_files(options, err);
    }
    if (status == DKT_OK) {
        status = s_begin(conn, options, err);
    }
    return status == DKT_OK ? -1 : s_fail(options, err);
}

static int s_run(PGconn *conn, const s_options_t *options, s_state_t *state)
{
    dkt_err_t err;
    if (s_look(conn, options, state, &err) != DKT_OK) {
        return s_fail(options, &err);
    }
    if (!state->receipt) {
        int status = s_prepare(conn, options, state, &err);
        if (status >= 0) {
            return status;
        }
        status = s_look(conn, options, state, &err) == DKT_OK ? s_follow(conn, options, state, &err)
                                                              : s_fail(options, &err);
        if (status >= 0) {
            return status;
        }
    }
    return s_hand_over(options, state->receipt, &err) == DKT_OK ? 0 : s_fail(options, &err);
}

int dkt_delete_main(int argc, char **argv)
{
    s_options_t options = {.timeout_s = S_TIMEOUT_S};
    s_state_t state = {0};
    dkt_err_t err;
    int status = s_parse(argc, argv, &options);
    if (status >= 0) {
        return status;
    }
    if (dkt_life_find(&options.where, &err) != DKT_OK) {
        return s_fail(&options, &err);
    }
    PGconn *conn = dkt_control_connect(options.where.uri, NULL, "delete", &err);
    if (!conn) {
        return s_fail(&options, &err);
    }
    status = s_run(conn, &options, &state);
    PQfinish(conn);
    free(state.receipt);
    return status;
}

/* -- docket tenant receipt -- */

static const char s_receipt_usage[] =
    "usage: docket tenant receipt FILE [OPTIONS]\n"
    "\n"
    "Checks the signature of a receipt of `docket tenant delete`.\n"
    "  --public HEX    the fleet's public key, as in its file keys/receipt.pub; otherwise\n"
    "  --data DIR      the fleet's folder; default $DOCKET_DATA\n"
    "  --keys DIR      the fleet's keys; default $DOCKET_KEYS, then DIR/keys\n"
    "  --json          print the receipt as one line of JSON\n"
    "  --help          this text\n"
    "\n"
    "Exit status: 0 good, 1 not, 2 wrong use.\n";

typedef struct {
    dkt_life_where_t where;
    const char *file, *public_key;
    bool json;
} s_check_t;

static int s_parse_receipt(int argc, char **argv, s_check_t *options)
{
    static const struct option rows[] = {
        {"public", required_argument, NULL, 'p'},
        {"data", required_argument, NULL, 'd'},
        {"keys", required_argument, NULL, 'k'},
        {"endpoint", required_argument, NULL, 'e'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int letter;
    optind = 0;
    while ((letter = getopt_long(argc, argv, "h", rows, NULL)) != -1) {
        if (letter == 'p') {
            options->public_key = optarg;
        } else if (letter == 'd') {
            options->where.data = optarg;
        } else if (letter == 'k') {
            options->where.keys = optarg;
        } else if (letter == 'j') {
            options->json = true;
        } else if (letter != 'e') { /* no endpoint is asked for this */
            fputs(s_receipt_usage, letter == 'h' ? stdout : stderr);
            return letter == 'h' ? 0 : 2;
        }
    }
    if (optind + 1 != argc) {
        fputs(s_receipt_usage, stderr);
        return 2;
    }
    options->file = argv[optind];
    return -1;
}

static dkt_status_t s_public_key(s_check_t *options, uint8_t key[DKT_KEY_BYTES], dkt_err_t *err)
{
    size_t len = 0;
    if (!options->public_key) {
        dkt_status_t status = dkt_life_find_keys(&options->where, err);
        return status == DKT_OK ? dkt_keys_receipt_public(options->where.keys_folder, key, err)
                                : status;
    }
    bool good = sodium_hex2bin(key, DKT_KEY_BYTES, options->public_key, strlen(options->public_key),
                               NULL, &len, NULL) == 0 &&
                len == DKT_KEY_BYTES;
    return good ? DKT_OK : dkt_fail(err, DKT_INVALID_ARGUMENT, NULL, "--public is no key");
}

static json_t *s_verify(s_check_t *options, dkt_err_t *err)
{
    static char text[S_RECEIPT_BYTES_MAX];
    uint8_t key[DKT_KEY_BYTES];
    if (s_public_key(options, key, err) != DKT_OK) {
        return NULL;
    }
    FILE *file = fopen(options->file, "re");
    if (!file) {
        (void)dkt_fail(err, DKT_NOT_FOUND, NULL, "cannot read %s: %s", options->file,
                       strerror(errno));
        return NULL;
    }
    size_t len = fread(text, 1, sizeof text, file);
    fclose(file);
    return dkt_receipt_verify(text, len, key, err);
}

int dkt_receipt_main(int argc, char **argv)
{
    s_check_t options = {0};
    dkt_err_t err;
    int status = s_parse_receipt(argc, argv, &options);
    if (status >= 0) {
        return status;
    }
    json_t *receipt = s_verify(&options, &err);
    if (!receipt) {
        fprintf(stderr, "docket tenant receipt: %s\n", err.text);
        return 1;
    }
    if (options.json) {
        json_dumpf(receipt, stdout, JSON_COMPACT | JSON_SORT_KEYS);
        putchar('\n');
    } else {
        printf("good: %s was deleted at %s, audit row %lld\n",
               json_string_value(json_object_get(receipt, "client_id")),
               json_string_value(json_object_get(receipt, "deleted_at")),
               (long long)json_integer_value(
                   json_object_get(json_object_get(receipt, "audit"), "seq")));
    }
    json_decref(receipt);
    return 0;
}
