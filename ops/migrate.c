/* SPDX-License-Identifier: Apache-2.0
 *
 * `docket migrate`: new steps of the schemas into a running fleet. Control database and template
 * first, then the ready-made databases, then tenant by tenant. Whoever runs it twice at once hears
 * so; whoever kills it starts it again.
 */
#include "ops/migrate.h"

#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/edge/control.h"
#include "lib/edge/upgrade.h"
#include "ops/commands.h"

#define S_VARIABLE     "DOCKET_JOIN"
#define S_LOCK_MS      3000
#define S_LOCK_LOOK_MS 100
#define S_LONGER       "set statement_timeout = '30s'; set lock_timeout = '10s'"
#define S_LOCK         "select 1 where pg_try_advisory_lock (7410, 3)"

static const char s_usage[] =
    "usage: docket migrate [--status | --finish] [OPTIONS]\n"
    "\n"
    "Brings the databases of a running fleet to this code's schema, without an outage: control\n"
    "database and template first, then each tenant, whose owner runs the step between two groups.\n"
    "Can be stopped at any time and started again. Only steps that older code can live with are\n"
    "run; the others wait for --finish.\n"
    "  --status        show how far all are, change nothing\n"
    "  --finish        run the steps that older code cannot live with; refused while a worker "
    "with\n"
    "                  such code or a tenant that lacks a step stands in the way\n"
    "  --join URI      the control database, postgresql://..; default " S_VARIABLE ". It is the\n"
    "                  `postgres=` of docket up's ready line\n"
    "  --endpoint URI  the same\n"
    "  --json          the outcome as JSON\n"
    "  --help          this text\n";

typedef struct {
    const char *uri;
    bool status, finish, json;
} s_options_t;

/* -1: go on; otherwise the exit status. */
static int s_parse(int argc, char **argv, s_options_t *options)
{
    static const struct option rows[] = {
        {"join", required_argument, NULL, 'j'},
        {"endpoint", required_argument, NULL, 'j'},
        {"status", no_argument, NULL, 's'},
        {"finish", no_argument, NULL, 'f'},
        {"json", no_argument, NULL, 'J'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int letter;
    optind = 0;
    while ((letter = getopt_long(argc, argv, "", rows, NULL)) != -1) {
        if (letter == 'j') {
            options->uri = optarg;
        } else if (letter == 's') {
            options->status = true;
        } else if (letter == 'f') {
            options->finish = true;
        } else if (letter == 'J') {
            options->json = true;
        } else {
            fputs(s_usage, letter == 'h' ? stdout : stderr);
            return letter == 'h' ? 0 : 2;
        }
    }
    if (optind != argc || !options->uri || (options->status && options->finish)) {
        fputs(s_usage, stderr);
        return 2;
    }
    return -1;
}

/* -- phases -- */

/* Where all tenants are to get: older versions than the first are of no use to anybody. */
static dkt_status_t s_set_target(dkt_migrate_t *self, dkt_err_t *err)
{
    int contracted = 0;
    dkt_status_t status = dkt_upgrade_contracted(self->conn, &contracted, err);
    self->target = dkt_steps_target(self->tenant_steps, 1, contracted);
    return status;
}

/* Patience: a busy control database is no reason to stop half-way, and the session of a command
 * that was killed keeps its lock until the server notices. */
static dkt_status_t s_lock(dkt_migrate_t *self, dkt_err_t *err)
{
    bool locked = false;
    dkt_status_t status = dkt_control_exec(self->conn, S_LONGER, 0, NULL, err);
    for (int waited_ms = 0; status == DKT_OK && !locked && waited_ms < S_LOCK_MS;
         waited_ms += S_LOCK_LOOK_MS) {
        PGresult *result = dkt_control_run(self->conn, S_LOCK, 0, NULL, err);
        status = result ? DKT_OK : err->status;
        locked = result && PQntuples(result) == 1;
        PQclear(result);
        (void)poll(NULL, 0, status != DKT_OK || locked ? 0 : S_LOCK_LOOK_MS);
    }
    return status != DKT_OK || locked
               ? status
               : dkt_fail(err, DKT_CONFLICT, NULL, "another docket migrate is at work here");
}

/* Schemas nobody owns, then the tenants. */
static dkt_status_t s_upgrade(dkt_migrate_t *self, bool contract, dkt_err_t *err)
{
    dkt_status_t status = dkt_control_upgrade(self->uri, contract, err);
    if (status == DKT_OK) {
        status = s_set_target(self, err);
    }
    if (status == DKT_OK) {
        status = dkt_upgrade_pool(self->conn, self->uri, self->tenant_steps, self->target, err);
    }
    return status == DKT_OK ? dkt_migrate_walk(self, err) : status;
}

static int s_run_upgrade(dkt_migrate_t *self, bool contract, dkt_err_t *err)
{
    dkt_status_t status = s_upgrade(self, contract, err);
    if (status == DKT_OK) {
        status = dkt_migrate_summary(self, err);
    }
    return status == DKT_OK && self->failed == 0 ? 0 : 1;
}

/* What comes before the contract steps must be there: the control database's own table of upgrades
 * to begin with. */
static int s_run_finish(dkt_migrate_t *self, dkt_err_t *err)
{
    bool clear = false;
    dkt_status_t status = dkt_control_upgrade(self->uri, false, err);
    if (status == DKT_OK) {
        status = s_set_target(self, err);
    }
    if (status == DKT_OK) {
        status = dkt_migrate_may_finish(self, &clear, err);
    }
    return status == DKT_OK && clear ? s_run_upgrade(self, true, err) : 1;
}

static int s_run_status(dkt_migrate_t *self, dkt_err_t *err)
{
    bool all = false;
    dkt_status_t status = s_set_target(self, err);
    if (status == DKT_OK) {
        status = dkt_migrate_status(self, &all, err);
    }
    return status == DKT_OK ? 0 : 1;
}

static int s_run(dkt_migrate_t *self, const s_options_t *options, dkt_err_t *err)
{
    self->control_steps = dkt_steps_load(DKT_SCHEMA_CONTROL, err);
    self->tenant_steps = self->control_steps ? dkt_steps_load(DKT_SCHEMA_TENANT, err) : NULL;
    self->conn = self->tenant_steps ? dkt_control_connect(self->uri, NULL, "migrate", err) : NULL;
    if (!self->conn) {
        return 1;
    }
    if (options->status) {
        return s_run_status(self, err);
    }
    if (s_lock(self, err) != DKT_OK) {
        return 1;
    }
    return options->finish ? s_run_finish(self, err) : s_run_upgrade(self, false, err);
}

int dkt_migrate_main(int argc, char **argv)
{
    s_options_t options = {.uri = getenv(S_VARIABLE)};
    int status = s_parse(argc, argv, &options);
    if (status >= 0) {
        return status;
    }
    static dkt_migrate_t self;
    dkt_err_t err = {0};
    self.uri = options.uri;
    self.json = options.json;
    status = s_run(&self, &options, &err);
    if (err.status != DKT_OK) {
        fprintf(stderr, "docket migrate: %s\n", err.text);
    }
    PQfinish(self.conn);
    dkt_steps_destroy(&self.tenant_steps);
    dkt_steps_destroy(&self.control_steps);
    return status;
}
