/* SPDX-License-Identifier: Apache-2.0
 *
 * The walk of `docket migrate`. What is done is in the control database (table upgrades), so that a
 * walk that was killed goes on where it stopped. At most `window` tenants are asked at a time: no
 * more of them are woken at once, and no more wait for a step.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/edge/clock.h"
#include "lib/edge/control.h"
#include "lib/edge/upgrade.h"
#include "ops/migrate.h"

#define S_LOOK_MS      30
#define S_CHANCE_MS    500  /* before databases that were out of reach are tried again */
#define S_LINE_MS      1000 /* between two lines of progress, without a terminal */
#define S_BAR_MS       100  /* with one */
#define S_BAR_CELLS    30
#define S_CHANNEL      "docket_directory" /* workers look at the control database when notified */
#define S_HALF_MADE    "10 s"             /* an account should be finished by then */
#define S_NUMBER_BYTES 16
#define S_MS_PER_S     1000.0

static void s_show(dkt_migrate_t *self, bool last)
{
    int64_t now_mono_ms = dkt_clock_mono_ms();
    bool terminal = isatty(STDERR_FILENO);
    if (!last && now_mono_ms - self->shown_mono_ms < (terminal ? S_BAR_MS : S_LINE_MS)) {
        return;
    }
    self->shown_mono_ms = now_mono_ms;
    double seconds = (double)(now_mono_ms - self->begun_mono_ms) / S_MS_PER_S;
    uint32_t seen = self->done + self->failed;
    if (!terminal) {
        fprintf(stderr, "migrate: %u of %u at version %d, %u failed, %.1f s\n", self->done,
                self->total, self->target, self->failed, seconds);
        return;
    }
    char bar[S_BAR_CELLS + 1];
    uint32_t cells = self->total > 0 ? seen * S_BAR_CELLS / self->total : S_BAR_CELLS;
    cells = cells < S_BAR_CELLS ? cells : S_BAR_CELLS;
    memset(bar, '.', S_BAR_CELLS);
    memset(bar, '#', cells);
    bar[S_BAR_CELLS] = '\0';
    fprintf(stderr, "\r[%s] %u of %u at version %d, %u failed, %.1f s%s", bar, self->done,
            self->total, self->target, self->failed, seconds, last ? "\n" : " ");
}

/* -- one tenant -- */

static dkt_status_t s_note(dkt_migrate_t *self, const char *client_id, int version,
                           const char *state, const char *error, dkt_err_t *err)
{
    char known[S_NUMBER_BYTES], target[S_NUMBER_BYTES];
    snprintf(known, sizeof known, "%d", version);
    snprintf(target, sizeof target, "%d", self->target);
    const char *params[] = {client_id, known, target, state, error};
    return dkt_control_exec(
        self->conn,
        "with noted as (insert into upgrades as u (client_id, version, target, state, error)"
        "   values ($1, $2, $3, $4, $5) on conflict (client_id) do update"
        "   set version = greatest (u.version, excluded.version), target = excluded.target,"
        "     state = excluded.state, error = excluded.error, broken = 0,"
        "     asked_at = clock_timestamp (), at = clock_timestamp ()"
        "   returning state)"
        " select pg_notify ('" S_CHANNEL "', '') from noted where state = 'asked'",
        5, params, err);
}

static dkt_status_t s_fail(dkt_migrate_t *self, const char *client_id, const char *why,
                           dkt_err_t *err)
{
    self->failed++;
    return s_note(self, client_id, 0, "failed", why, err);
}

/* Its database is the tenant's own trouble: the walk goes on. */
static dkt_status_t s_ask(dkt_migrate_t *self, const char *client_id, const char *database,
                          dkt_err_t *err)
{
    int version = 0;
    dkt_err_t why;
    if (dkt_upgrade_place(self->uri, database, self->tenant_steps, self->target, &version, &why) !=
        DKT_OK) {
        self->unplaced++;
        return s_fail(self, client_id, why.text, err);
    }
    if (version >= self->target) {
        self->done++;
        return s_note(self, client_id, version, "done", NULL, err);
    }
    dkt_migrate_open_t *open = &self->open[self->open_count++];
    snprintf(open->client_id, sizeof open->client_id, "%s", client_id);
    open->asked_mono_ms = dkt_clock_mono_ms();
    return s_note(self, client_id, version, "asked", NULL, err);
}

/* -- those that are asked -- */

static dkt_status_t s_give_up(dkt_migrate_t *self, const char *client_id, dkt_err_t *err)
{
    const char *params[] = {client_id};
    return dkt_control_exec(self->conn,
                            "update upgrades set state = 'failed', at = clock_timestamp (),"
                            " error = coalesce (error, 'no owner has run the step in time')"
                            " where client_id = $1 and state = 'asked'",
                            1, params, err);
}

/* Asked too long ago: whatever keeps its owner from it, others do not wait. */
static dkt_status_t s_expire(dkt_migrate_t *self, dkt_err_t *err)
{
    dkt_status_t status = DKT_OK;
    for (uint32_t i = 0; i < self->open_count && status == DKT_OK; i++) {
        const dkt_migrate_open_t *open = &self->open[i];
        if (dkt_clock_mono_ms() - open->asked_mono_ms > DKT_UPGRADE_WAIT_MS) {
            status = s_give_up(self, open->client_id, err);
        }
    }
    return status;
}

/* What became of an open one; without a row, its account is gone. True: it is open no more. */
static bool s_settle(dkt_migrate_t *self, const dkt_migrate_open_t *open, const PGresult *rows)
{
    for (int i = 0; i < PQntuples(rows); i++) {
        if (strcmp(open->client_id, PQgetvalue(rows, i, 0)) == 0) {
            const char *state = PQgetvalue(rows, i, 1);
            self->done += strcmp(state, "done") == 0 ? 1 : 0;
            self->failed += strcmp(state, "failed") == 0 ? 1 : 0;
            return strcmp(state, "asked") != 0;
        }
    }
    return true;
}

/* Client ids need no quoting in an array literal. */
static dkt_status_t s_look(dkt_migrate_t *self, dkt_err_t *err)
{
    char clients[DKT_UPGRADES_MAX * (DKT_ID_CHARS_MAX + 1) + 2];
    size_t len = 0;
    clients[len++] = '{';
    for (uint32_t i = 0; i < self->open_count; i++) {
        len += (size_t)snprintf(clients + len, sizeof clients - len, "%s%s", i > 0 ? "," : "",
                                self->open[i].client_id);
    }
    snprintf(clients + len, sizeof clients - len, "}");
    const char *params[] = {clients};
    PGresult *rows = dkt_control_run(
        self->conn, "select client_id, state from upgrades where client_id = any ($1::text[])", 1,
        params, err);
    if (!rows) {
        return err->status;
    }
    for (uint32_t i = 0; i < self->open_count;) {
        if (s_settle(self, &self->open[i], rows)) {
            self->open[i] = self->open[--self->open_count];
        } else {
            i++;
        }
    }
    PQclear(rows);
    return DKT_OK;
}

static dkt_status_t s_wait(dkt_migrate_t *self, uint32_t most, dkt_err_t *err)
{
    dkt_status_t status = DKT_OK;
    while (status == DKT_OK && self->open_count > most) {
        status = s_expire(self, err);
        if (status == DKT_OK) {
            status = s_look(self, err);
        }
        s_show(self, false);
        (void)poll(NULL, 0, self->open_count > most ? S_LOOK_MS : 0);
    }
    return status;
}

/* -- all -- */

static dkt_status_t s_visit(dkt_migrate_t *self, const PGresult *rows, int i, dkt_err_t *err)
{
    bool active = strcmp(PQgetvalue(rows, i, 2), "active") == 0;
    bool late = PQgetvalue(rows, i, 3)[0] == 't';
    if (!active) {
        return late ? s_fail(self, PQgetvalue(rows, i, 0), "its account is only half-made", err)
                    : DKT_OK; /* a later pass finds it */
    }
    dkt_status_t status = s_wait(self, self->window - 1, err);
    return status == DKT_OK ? s_ask(self, PQgetvalue(rows, i, 0), PQgetvalue(rows, i, 1), err)
                            : status;
}

/* One pass over those that lack the target and have not failed in this run. */
static dkt_status_t s_pass(dkt_migrate_t *self, int *left, dkt_err_t *err)
{
    char target[S_NUMBER_BYTES];
    snprintf(target, sizeof target, "%d", self->target);
    const char *params[] = {target, self->begun};
    PGresult *rows = dkt_control_run(
        self->conn,
        "select t.client_id, t.database, t.state,"
        "   t.created_at < clock_timestamp () - interval '" S_HALF_MADE "'"
        " from tenants t left join upgrades u on u.client_id = t.client_id"
        " where coalesce (u.version, 0) < $1::integer and t.state <> 'deleting'"
        "   and not coalesce (u.state = 'failed' and u.at >= $2::timestamptz, false)"
        " order by t.client_id",
        2, params, err);
    if (!rows) {
        return err->status;
    }
    *left = PQntuples(rows);
    self->total = self->done + self->failed + (uint32_t)*left;
    dkt_status_t status = DKT_OK;
    for (int i = 0; status == DKT_OK && i < *left; i++) {
        status = s_visit(self, rows, i, err);
        s_show(self, false);
    }
    PQclear(rows);
    return status == DKT_OK ? s_wait(self, 0, err) : status;
}

/* What a command before this one has asked for and did not live to hear of is asked anew. */
static dkt_status_t s_begin(dkt_migrate_t *self, dkt_err_t *err)
{
    PGresult *result = dkt_control_run(
        self->conn,
        "with stopped as (update upgrades set state = 'failed', error = 'the command was stopped'"
        "   where state = 'asked')"
        " select clock_timestamp (),"
        "   (select count (*) from workers where dead_at is null and not leaving)",
        0, NULL, err);
    if (!result) {
        return err->status;
    }
    snprintf(self->begun, sizeof self->begun, "%s", PQgetvalue(result, 0, 0));
    int workers = atoi(PQgetvalue(result, 0, 1));
    PQclear(result);
    if (workers == 0) {
        return dkt_fail(err, DKT_UNAVAILABLE, NULL, "no worker is running: tenants have no owner");
    }
    int window = workers * DKT_UPGRADE_WINDOW;
    self->window = (uint32_t)(window < DKT_UPGRADES_MAX ? window : DKT_UPGRADES_MAX);
    return DKT_OK;
}

/* Until nobody is left that lacks the target and has not failed. */
static dkt_status_t s_round(dkt_migrate_t *self, dkt_err_t *err)
{
    int left = 1;
    self->failed = 0;
    self->unplaced = 0;
    dkt_status_t status = s_begin(self, err);
    while (status == DKT_OK && left > 0) {
        status = s_pass(self, &left, err);
        (void)poll(NULL, 0, left > 0 ? S_LOOK_MS : 0);
    }
    return status;
}

dkt_status_t dkt_migrate_walk(dkt_migrate_t *self, dkt_err_t *err)
{
    self->begun_mono_ms = dkt_clock_mono_ms();
    dkt_status_t status = s_round(self, err);
    for (int i = 1; status == DKT_OK && self->unplaced > 0 && i < DKT_UPGRADE_CHANCES; i++) {
        (void)poll(NULL, 0, S_CHANCE_MS);
        status = s_round(self, err);
    }
    s_show(self, true);
    return status;
}
