/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the two halves of the directory: the follower (directory.c), which every worker is, and
 * the leader (directory_lead.c).
 */
#ifndef DKT_WORKERS_DIRECTORY_INTERNAL_H
#define DKT_WORKERS_DIRECTORY_INTERNAL_H

#include <libpq-fe.h>
#include <pthread.h>

#include "lib/core/directory.h"
#include "workers/directory.h"

#define DKT_UUID_TEXT_BYTES   37
#define DKT_DIRECTORY_CHANNEL "docket_directory" /* NOTIFY: look at the control database now */

struct dkt_directory {
    dkt_env_t *env;
    pthread_t thread;
    PGconn *conn; /* NULL while there is no session */
    char incarnation[DKT_UUID_TEXT_BYTES];
    char lock_key[24]; /* advisory lock of this incarnation, as a decimal bigint */
    int64_t next_poll_mono_ms, retry_mono_ms;
    uint32_t connect_failures;
    uint32_t polls;
    bool leading;           /* this session has the leader's lock and has raised the epoch */
    bool leaving;           /* wants no share: it ends */
    bool paused;            /* wants none: an operator said so */
    uint64_t epoch;         /* of the leader's guard, while leading */
    dkt_watch_t watch;      /* of this session */
    dkt_table_t table;      /* newest one read */
    char brokers_mark[24];  /* digest of the brokers table as last read */
    char deleting_mark[24]; /* and of the tenants that are being deleted */
    bool lookup_kept;       /* this session has parsed the lookup's statement */
    int64_t age_mono_ms;    /* directory_age.c: the next statement is due, */
    uint32_t age_next;      /* and which */
    /* directory_upgrade.c */
    int64_t upgrade_mono_ms; /* the next look for tenants that are asked for a step */
    bool upgrades_known;     /* the control database's schema has them */
    bool reads_told;         /* our row says which schema we know */
    /* directory_wake.c */
    dkt_mail_t *settles, *settles_last;      /* not written yet, oldest first */
    uint8_t unread[DKT_VSHARDS / 8];         /* bit set of vshards whose rows were not read yet */
    bool any_unread, probing;                /* `probing`: tenants without a row are being listed */
    char probe_cursor[DKT_ID_CHARS_MAX + 1]; /* the last one that was listed */
};

/* An incarnation as the text of a uuid, and its advisory lock's key. */
void dkt_directory_uuid(const dkt_incarnation_t *incarnation, char out[DKT_UUID_TEXT_BYTES]);

bool dkt_directory_is_true(const PGresult *result, int row, int column);

/* -- directory_lookup.c -- */

#define DKT_LOOKUPS_MAX 256 /* in one statement */

/* Answers a list of at most DKT_LOOKUPS_MAX lookups; takes them. Without a session, and if this
 * fails, the answer is the replica's, or UNAVAILABLE, and a session that failed is the caller's to
 * close. */
DKT_CHECKED dkt_status_t dkt_directory_look_up(dkt_directory_t *self, dkt_mail_t *list,
                                               dkt_err_t *err);

/* A poll showed this digest of the tenants that are being deleted: if it is another one, the node
 * loop is told who they are. */
DKT_CHECKED dkt_status_t dkt_directory_deleting(dkt_directory_t *self, const char *mark,
                                                dkt_err_t *err);

/* -- directory_holder.c -- */

/* Ends the session that holds the lock of this tenant's database, if the rules allow it. A session
 * of ours that failed is the caller's to close. */
DKT_CHECKED dkt_status_t dkt_directory_ask_holder(dkt_directory_t *self,
                                                  const dkt_holder_mail_t *asked, dkt_err_t *err);

/* -- directory_lead.c -- */

/* The lock was just gained: raises the epoch. */
DKT_CHECKED dkt_status_t dkt_directory_lead_begin(dkt_directory_t *self, dkt_err_t *err);
/* After each poll while leading: writes verdicts and, if the members changed, a new table. */
DKT_CHECKED dkt_status_t dkt_directory_lead(dkt_directory_t *self, dkt_err_t *err);

/* -- directory_age.c -- */

/* After each poll while leading: drops some of what is old, if it is time. */
void dkt_directory_age(dkt_directory_t *self);

/* -- directory_wake.c: the table wake -- */

/* Takes a WAKE or SETTLE mail; what it asks for is done by the next dkt_directory_wake. */
void dkt_directory_wake_take(dkt_directory_t *self, dkt_mail_t *mail);
/* Writes and reads what is pending, if there is a session. After a failure all of it is still
 * pending, and the session is the caller's to close. */
DKT_CHECKED dkt_status_t dkt_directory_wake(dkt_directory_t *self, dkt_err_t *err);
/* Frees what could not be written. */
void dkt_directory_wake_fini(dkt_directory_t *self);

/* -- directory_upgrade.c: schemas -- */

/* At the begin of a session: may this code work with what the databases have become? CONFLICT if it
 * may not, and err says why. */
DKT_CHECKED dkt_status_t dkt_directory_schema(dkt_directory_t *self, dkt_err_t *err);
/* With every poll: tells the node loop which tenants are asked for a step, now and then. */
DKT_CHECKED dkt_status_t dkt_directory_upgrade(dkt_directory_t *self, dkt_err_t *err);
/* Writes what became of a step; what cannot be written is asked for again. */
DKT_CHECKED dkt_status_t dkt_directory_migrated(dkt_directory_t *self,
                                                const dkt_migrated_mail_t *mail, dkt_err_t *err);

#endif
