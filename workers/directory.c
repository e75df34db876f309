/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/directory_internal.h"

#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/core/gate.h"
#include "lib/edge/clock.h"
#include "lib/edge/control.h"
#include "lib/edge/log.h"
#include "workers/admin.h"

#define S_RECONNECT_BASE_MS 50
#define S_RECONNECT_CAP_MS  500

/* One statement a poll: the beat, the leader's lock, everybody's state, the versions of what may
 * have changed. The beat touches an unlogged table only, so it costs no sync. */
static const char s_poll_sql[] =
    "with beat as (update worker_beats set beat = beat + 1"
    "              where incarnation = $1::uuid and $2::boolean),"
    " one as materialized (select"
    "   (select epoch from vshards) as epoch, (select version from vshards) as version,"
    "   case when $3::boolean then pg_try_advisory_lock (7410, 2) else false end as gained,"
    "   (select coalesce (sum (hashtext (node || ' ' || workers_address)::bigint), 0)::text"
    "           || ':' || count (*) from brokers) as brokers,"
    "   (select coalesce (sum (hashtext (client_id)::bigint), 0)::text || ':' || count (*)"
    "      from tenants where state = 'deleting') as deleting,"
    "   (select incarnation from leader) as leader),"
    " held as materialized (select (classid::bigint << 32) | objid::bigint as key from pg_locks"
    "   where locktype = 'advisory' and objsubid = 1 and granted"
    "     and database = (select oid from pg_database where datname = current_database ()))"
    " select one.epoch, one.version, one.gained, one.brokers, w.incarnation,"
    "        coalesce (b.beat, 0), w.lock_key in (select key from held), w.leaving,"
    "        w.dead_at is not null, w.incarnation = one.leader, one.deleting, w.node"
    "   from one left join workers w on true"
    "   left join worker_beats b on b.incarnation = w.incarnation"
    " order by w.dead_at nulls first"; /* no number of dead ones hides one that lives */
enum {
    S_EPOCH,
    S_VERSION,
    S_GAINED,
    S_BROKERS,
    S_WHO,
    S_BEAT,
    S_HELD,
    S_LEAVING,
    S_DEAD,
    S_LEADS,
    S_DELETING,
    S_NODE
};

void dkt_directory_uuid(const dkt_incarnation_t *incarnation, char out[DKT_UUID_TEXT_BYTES])
{
    dkt_uuid_t uuid;
    _Static_assert(sizeof uuid == sizeof *incarnation, "an incarnation is written as a uuid");
    memcpy(&uuid, incarnation, sizeof uuid);
    dkt_uuid_text(&uuid, out);
}

bool dkt_directory_is_true(const PGresult *result, int row, int column)
{
    return PQgetvalue(result, row, column)[0] == 't';
}

static uint64_t s_number(const PGresult *result, int row, int column)
{
    return strtoull(PQgetvalue(result, row, column), NULL, 10);
}

/* -- session -- */

static void s_close(dkt_directory_t *self, const char *why)
{
    if (self->conn) {
        dkt_log(DKT_LOG_WARN, "control database: %s", why);
        PQfinish(self->conn);
    }
    self->conn = NULL;
    self->leading = false;
    atomic_store(&self->env->leader, false);
    atomic_store(&self->env->control_up, false);
    dkt_watch_reset(&self->watch);
    self->connect_failures++;
    self->retry_mono_ms =
        dkt_clock_mono_ms() + dkt_backoff_ms(self->connect_failures, S_RECONNECT_BASE_MS,
                                             S_RECONNECT_CAP_MS, randombytes_random());
}

/* The lock first, then the row: nobody may see this incarnation without its lock. An older session
 * of ours that the server still keeps has it for us until its time-outs end it. */
static dkt_status_t s_register(dkt_directory_t *self, dkt_err_t *err)
{
    const char *key[] = {self->lock_key};
    dkt_status_t status =
        dkt_control_exec(self->conn, "select pg_try_advisory_lock ($1::bigint)", 1, key, err);
    if (status != DKT_OK) {
        return status;
    }
    const char *beat[] = {self->incarnation};
    status = dkt_control_exec(self->conn,
                              "insert into worker_beats (incarnation, beat) values ($1, 1)"
                              " on conflict (incarnation) do update"
                              " set beat = worker_beats.beat + 1",
                              1, beat, err);
    if (status != DKT_OK) {
        return status;
    }
    const char *row[] = {self->incarnation, self->env->node, self->lock_key,
                         self->leaving || self->paused ? "true" : "false"};
    status = dkt_control_exec(self->conn,
                              "insert into workers (incarnation, node, lock_key, leaving)"
                              " values ($1, $2, $3, $4)"
                              " on conflict (incarnation) do update"
                              " set leaving = excluded.leaving",
                              4, row, err);
    return status == DKT_OK
               ? dkt_control_exec(self->conn,
                                  "listen " DKT_DIRECTORY_CHANNEL "; notify " DKT_DIRECTORY_CHANNEL,
                                  0, NULL, err)
               : status;
}

static void s_connect(dkt_directory_t *self)
{
    dkt_err_t err;
    char who[64];
    snprintf(who, sizeof who, "%s/directory", self->env->node);
    self->conn = dkt_control_connect(self->env->uri, NULL, who, &err);
    if (!self->conn) {
        dkt_log(DKT_LOG_WARN, "%s", err.text);
        s_close(self, err.text);
        return;
    }
    self->next_poll_mono_ms = 0;
    self->lookup_kept = false;
    if (dkt_directory_schema(self, &err) != DKT_OK || s_register(self, &err) != DKT_OK) {
        s_close(self, err.text);
        return;
    }
    self->connect_failures = 0;
    atomic_store(&self->env->control_up, true);
    dkt_log(DKT_LOG_INFO, "registered as %s", self->incarnation);
}

/* -- what a poll may find changed -- */

static dkt_status_t s_read_table(dkt_directory_t *self, dkt_err_t *err)
{
    PGresult *result = dkt_control_run(self->conn, "select body from vshards", 0, NULL, err);
    if (!result) {
        return err->status;
    }
    size_t len = 0;
    unsigned char *body = PQunescapeBytea((const unsigned char *)PQgetvalue(result, 0, 0), &len);
    PQclear(result);
    dkt_link_header_t header;
    dkt_r_t r;
    dkt_table_mail_t *mail = dkt_mail_alloc(sizeof *mail);
    bool read = body && dkt_link_open(&r, body, len, &header) &&
                dkt_link_get_table(&r, &mail->table) && dkt_link_end(&r);
    PQfreemem(body);
    if (!read) {
        free(mail);
        return dkt_fail(err, DKT_INTERNAL, NULL, "the table in the control database is not ours");
    }
    if (dkt_table_version_compare(mail->table.version, self->table.version) <= 0) {
        free(mail);
        return DKT_OK;
    }
    self->table = mail->table;
    dkt_mail_post(self->env->node_box, &mail->mail, DKT_MAIL_TABLE);
    return DKT_OK;
}

static dkt_status_t s_read_brokers(dkt_directory_t *self, const char *mark, dkt_err_t *err)
{
    PGresult *result = dkt_control_run(
        self->conn, "select workers_address from brokers order by node", 0, NULL, err);
    if (!result) {
        return err->status;
    }
    dkt_brokers_mail_t *mail = dkt_mail_alloc(sizeof *mail);
    for (int i = 0; i < PQntuples(result) && mail->count < DKT_BROKERS_MAX; i++) {
        if (PQgetlength(result, i, 0) < DKT_ENDPOINT_BYTES_MAX) {
            snprintf(mail->addresses[mail->count++], DKT_ENDPOINT_BYTES_MAX, "%s",
                     PQgetvalue(result, i, 0));
        }
    }
    PQclear(result);
    snprintf(self->brokers_mark, sizeof self->brokers_mark, "%s", mark);
    dkt_mail_post(self->env->node_box, &mail->mail, DKT_MAIL_BROKERS);
    return DKT_OK;
}

static uint32_t s_read_workers(const PGresult *result, dkt_worker_seen_t seen[DKT_MEMBERS_MAX])
{
    uint32_t count = 0;
    for (int i = 0; i < PQntuples(result) && count < DKT_MEMBERS_MAX; i++) {
        dkt_uuid_t uuid;
        const char *text = PQgetvalue(result, i, S_WHO);
        if (!dkt_uuid_parse(text, (uint32_t)strlen(text), &uuid)) {
            continue; /* no worker at all: the outer join's empty row */
        }
        dkt_worker_seen_t *worker = &seen[count++];
        memcpy(&worker->incarnation, &uuid, sizeof uuid);
        worker->beat = s_number(result, i, S_BEAT);
        worker->lock_held = dkt_directory_is_true(result, i, S_HELD);
        worker->leaving = dkt_directory_is_true(result, i, S_LEAVING);
        worker->marked_dead = dkt_directory_is_true(result, i, S_DEAD);
    }
    return count;
}

/* For the leader's answers to operators: whoever is dead is not there. */
static void s_note_nodes(dkt_directory_t *self, const PGresult *result)
{
    char names[DKT_MEMBERS_MAX][DKT_NODE_NAME_BYTES_MAX];
    uint32_t count = 0;
    for (int i = 0; i < PQntuples(result) && count < DKT_MEMBERS_MAX; i++) {
        if (dkt_directory_is_true(result, i, S_HELD) &&
            PQgetlength(result, i, S_NODE) < DKT_NODE_NAME_BYTES_MAX) {
            snprintf(names[count++], DKT_NODE_NAME_BYTES_MAX, "%s", PQgetvalue(result, i, S_NODE));
        }
    }
    dkt_admin_nodes(&self->env->nodes, count, names);
}

static dkt_status_t s_use_poll(dkt_directory_t *self, const PGresult *result, dkt_err_t *err)
{
    dkt_table_version_t version = {s_number(result, 0, S_EPOCH), s_number(result, 0, S_VERSION)};
    dkt_status_t status = DKT_OK;
    if (dkt_table_version_compare(version, self->table.version) > 0) {
        status = s_read_table(self, err);
    }
    const char *mark = PQgetvalue(result, 0, S_BROKERS);
    if (status == DKT_OK && strcmp(mark, self->brokers_mark) != 0) {
        status = s_read_brokers(self, mark, err);
    }
    if (status == DKT_OK) {
        status = dkt_directory_deleting(self, PQgetvalue(result, 0, S_DELETING), err);
    }
    if (status == DKT_OK && dkt_directory_is_true(result, 0, S_GAINED)) {
        status = dkt_directory_lead_begin(self, err);
    }
    if (status == DKT_OK && self->leading) {
        status = dkt_directory_lead(self, err);
    }
    if (status == DKT_OK && self->leading) {
        dkt_directory_age(self);
    }
    return status;
}

/* A leader that hangs keeps the leader's lock, and nobody could declare it dead. Whoever saw its
 * silence ends its session; should it wake up, its epoch is over before it can write. */
static dkt_status_t s_depose(dkt_directory_t *self, const PGresult *result,
                             const dkt_worker_seen_t *seen, uint32_t count, dkt_err_t *err)
{
    for (uint32_t i = 0; i < count && dkt_watch_warm(&self->watch); i++) {
        const dkt_worker_watch_t *worker = dkt_watch_find(&self->watch, &seen[i].incarnation);
        if (!worker || !worker->dead || !dkt_directory_is_true(result, (int)i, S_LEADS) ||
            dkt_incarnation_equal(&worker->incarnation, &self->env->incarnation)) {
            continue;
        }
        dkt_log(DKT_LOG_WARN, "the leader hangs: ending its session");
        return dkt_control_exec(
            self->conn,
            "select pg_terminate_backend (pid) from pg_locks where locktype = 'advisory'"
            " and granted and classid = 7410 and objid = 2 and objsubid = 2"
            " and pid <> pg_backend_pid ()"
            " and database = (select oid from pg_database where datname = current_database ())",
            0, NULL, err);
    }
    return DKT_OK;
}

static void s_poll(dkt_directory_t *self)
{
    int64_t began_mono_ms = dkt_clock_mono_ms();
    bool beat = self->polls++ % DKT_POLLS_PER_BEAT == 0;
    bool candidate = !self->leading && !self->leaving;
    const char *params[] = {self->incarnation, beat ? "true" : "false",
                            candidate ? "true" : "false"};
    dkt_err_t err;
    PGresult *result = dkt_control_run(self->conn, s_poll_sql, 3, params, &err);
    if (!result) {
        s_close(self, err.text);
        return;
    }
    dkt_worker_seen_t seen[DKT_MEMBERS_MAX];
    uint32_t count = s_read_workers(result, seen);
    dkt_watch_poll(&self->watch, began_mono_ms, seen, count);
    s_note_nodes(self, result);
    dkt_status_t status = s_use_poll(self, result, &err);
    if (status == DKT_OK && !self->leading) {
        status = s_depose(self, result, seen, count, &err);
    }
    if (status == DKT_OK) {
        status = dkt_directory_upgrade(self, &err);
    }
    PQclear(result);
    if (status != DKT_OK) {
        s_close(self, err.text);
        return;
    }
    self->next_poll_mono_ms = began_mono_ms + DKT_POLL_MS;
}

/* -- mail -- */

static void s_ask_holder(dkt_directory_t *self, const dkt_holder_mail_t *asked)
{
    dkt_err_t err;
    if (dkt_directory_ask_holder(self, asked, &err) != DKT_OK) {
        s_close(self, err.text);
    }
}

static void s_leave(dkt_directory_t *self)
{
    dkt_err_t err;
    const char *params[] = {self->incarnation};
    self->leaving = true;
    self->next_poll_mono_ms = 0;
    if (self->conn &&
        dkt_control_exec(self->conn, "update workers set leaving = true where incarnation = $1", 1,
                         params, &err) != DKT_OK) {
        s_close(self, err.text);
    }
}

/* An operator has spoken. Should the session break first, s_register says it again; only the
 * audit's row is lost then, and the log has it. */
static void s_share(dkt_directory_t *self, dkt_share_t share)
{
    static const char *const verbs[] = {
        [DKT_SHARE_TAKEN] = "resume", [DKT_SHARE_PAUSED] = "pause", [DKT_SHARE_DRAINING] = "drain"};
    dkt_err_t err;
    self->paused = share != DKT_SHARE_TAKEN;
    self->next_poll_mono_ms = 0;
    const char *params[] = {self->incarnation, self->leaving || self->paused ? "true" : "false",
                            verbs[share], self->env->node};
    if (self->conn &&
        dkt_control_exec(self->conn,
                         "with share as (update workers set leaving = $2::boolean"
                         " where incarnation = $1)"
                         " select audit_append ('operator', $3, null,"
                         " jsonb_build_object ('node', $4::text, 'incarnation', $1::text))",
                         4, params, &err) != DKT_OK) {
        s_close(self, err.text);
    }
}

static void s_wake(dkt_directory_t *self)
{
    dkt_err_t err;
    if (dkt_directory_wake(self, &err) != DKT_OK) {
        s_close(self, err.text);
    }
}

/* What ended is written before anything is looked up: the mark of a tenant that comes back must be
 * the later one. Returns the rest. */
static dkt_mail_t *s_take_wakes(dkt_directory_t *self, dkt_mail_t *mail)
{
    dkt_mail_t *rest = NULL, **tail = &rest;
    while (mail) {
        dkt_mail_t *next = mail->next;
        if (mail->kind == DKT_MAIL_WAKE || mail->kind == DKT_MAIL_SETTLE) {
            dkt_directory_wake_take(self, mail);
        } else {
            *tail = mail;
            tail = &mail->next;
        }
        mail = next;
    }
    *tail = NULL;
    s_wake(self);
    return rest;
}

static void s_look_up(dkt_directory_t *self, dkt_mail_t *list)
{
    dkt_err_t err;
    if (dkt_directory_look_up(self, list, &err) != DKT_OK) {
        s_close(self, err.text);
    }
}

static void s_migrated(dkt_directory_t *self, const dkt_migrated_mail_t *mail)
{
    dkt_err_t err;
    if (self->conn && dkt_directory_migrated(self, mail, &err) != DKT_OK) {
        s_close(self, err.text);
    }
}

/* Returns false when told to stop. Lookups are gathered, so that a burst is one query. */
static bool s_take(dkt_directory_t *self, dkt_mail_t *mail)
{
    bool running = true;
    dkt_mail_t *lookups = NULL;
    uint32_t lookup_count = 0;
    while (mail) {
        dkt_mail_t *next = mail->next;
        if (mail->kind == DKT_MAIL_LOOKUP) {
            mail->next = lookups;
            lookups = mail;
            lookup_count++;
        } else {
            if (mail->kind == DKT_MAIL_HOLDER) {
                s_ask_holder(self, (dkt_holder_mail_t *)mail);
            } else if (mail->kind == DKT_MAIL_MIGRATED) {
                s_migrated(self, (const dkt_migrated_mail_t *)mail);
            } else if (mail->kind == DKT_MAIL_REFRESH) {
                self->next_poll_mono_ms = 0;
            } else if (mail->kind == DKT_MAIL_LEAVE) {
                s_leave(self);
            } else if (mail->kind == DKT_MAIL_SHARE) {
                s_share(self, ((const dkt_share_mail_t *)mail)->share);
            } else {
                assert(mail->kind == DKT_MAIL_STOP);
                running = false;
            }
            free(mail);
        }
        if (lookups && (!next || lookup_count == DKT_LOOKUPS_MAX)) {
            s_look_up(self, lookups);
            lookups = NULL;
            lookup_count = 0;
        }
        mail = next;
    }
    return running;
}

static void s_deregister(dkt_directory_t *self)
{
    if (self->conn) {
        const char *params[] = {self->incarnation};
        dkt_err_t err;
        if (dkt_control_exec(self->conn,
                             "with gone as (delete from worker_beats where incarnation = $1)"
                             " delete from workers where incarnation = $1",
                             1, params, &err) != DKT_OK) {
            dkt_log(DKT_LOG_WARN, "not deregistered: %s", err.text);
        }
        PQfinish(self->conn);
        self->conn = NULL;
    }
}

/* A notification only says "look now": what changed is read by the next poll, which comes anyway.
 */
static void s_take_notices(dkt_directory_t *self)
{
    if (!self->conn) {
        return;
    }
    if (!PQconsumeInput(self->conn)) {
        s_close(self, "the session broke");
        return;
    }
    PGnotify *notice;
    while ((notice = PQnotifies(self->conn))) {
        if (notice->be_pid != PQbackendPID(self->conn)) {
            self->next_poll_mono_ms = 0;
            self->upgrade_mono_ms = 0;
        }
        PQfreemem(notice);
    }
}

static void *s_run(void *argument)
{
    dkt_directory_t *self = argument;
    struct pollfd items[] = {
        {.fd = dkt_mailbox_fd(self->env->directory_box), .events = POLLIN},
        {.fd = -1, .events = POLLIN},
    };
    bool running = true;
    while (running) {
        int64_t now_mono_ms = dkt_clock_mono_ms();
        if (!self->conn && now_mono_ms >= self->retry_mono_ms) {
            s_connect(self);
        }
        if (self->conn && now_mono_ms >= self->next_poll_mono_ms) {
            s_poll(self);
        }
        int64_t due_mono_ms = self->conn ? self->next_poll_mono_ms : self->retry_mono_ms;
        int64_t wait_ms = due_mono_ms - dkt_clock_mono_ms();
        items[1].fd = self->conn ? PQsocket(self->conn) : -1; /* poll skips a negative one */
        (void)poll(items, 2, wait_ms > 0 ? (int)wait_ms : 0);
        s_take_notices(self);
        running = s_take(self, s_take_wakes(self, dkt_mailbox_drain(self->env->directory_box)));
    }
    s_deregister(self);
    return NULL;
}

/* -- life -- */

dkt_directory_t *dkt_directory_new(dkt_env_t *env)
{
    dkt_directory_t *self = calloc(1, sizeof *self);
    if (!self) {
        return NULL;
    }
    self->env = env;
    dkt_directory_uuid(&env->incarnation, self->incarnation);
    int64_t key;
    memcpy(&key, env->incarnation.bytes, sizeof key);
    snprintf(self->lock_key, sizeof self->lock_key, "%lld", (long long)key);
    if (pthread_create(&self->thread, NULL, s_run, self) != 0) {
        free(self);
        return NULL;
    }
    return self;
}

void dkt_directory_destroy(dkt_directory_t **self_p)
{
    dkt_directory_t *self = *self_p;
    if (!self) {
        return;
    }
    *self_p = NULL;
    dkt_mail_post_kind(self->env->directory_box, DKT_MAIL_STOP);
    pthread_join(self->thread, NULL);
    dkt_directory_wake_fini(self);
    free(self);
}
