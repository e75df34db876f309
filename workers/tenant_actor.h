/* SPDX-License-Identifier: Apache-2.0
 *
 * The actor of one tenant: a zactor that owns the tenant's core and its one PostgreSQL connection.
 *   pipe     DRAIN, SUSPEND, RESUME, $TERM
 *   mailbox  WORK, HASHED, MIGRATE
 *   gives    ANSWER, WORK (given back), SETTINGS, MIGRATED, READY once, ENDED last; to the
 *            node loop, but SETTINGS to the accounts actor
 * After ENDED the thread is gone or about to go; destroy then does not wait for long.
 */
#ifndef DKT_WORKERS_TENANT_ACTOR_H
#define DKT_WORKERS_TENANT_ACTOR_H

#include "workers/mail.h"

typedef struct dkt_actor dkt_actor_t;

typedef struct {
    dkt_env_t *env; /* outlives the actor */
    dkt_client_t client;
    uint64_t serial; /* comes back in its events */
    dkt_table_version_t table;
    dkt_home_t home;
    bool probe; /* only looked into: what is old goes at once, then it may be passivated */
} dkt_actor_config_t;

/* NULL without memory or a file descriptor. The caller has counted actors: czmq aborts the process
 * when sockets run out. */
dkt_actor_t *dkt_actor_new(const dkt_actor_config_t *config);

/* WORK or HASHED; false: DKT_MAILBOX_MAX works wait or are being decided, it stays the caller's.
 * Works are gathered until there are DKT_TENANT_CHUNK or dkt_actor_feed is called, so that the
 * actor wakes once for many of them. */
DKT_CHECKED bool dkt_actor_push(dkt_actor_t *self, dkt_mail_t *mail, dkt_mail_kind_t kind);

void dkt_actor_feed(dkt_actor_t *self);

void dkt_actor_drain(dkt_actor_t *self);
void dkt_actor_suspend(dkt_actor_t *self, bool suspended);

/* Monotonic ms since when it has nothing to do; 0: it is busy. */
int64_t dkt_actor_idle_since_mono_ms(const dkt_actor_t *self);

/* Ends the actor if it still runs. Returns what its mailbox still held, the caller's now. */
dkt_mail_t *dkt_actor_destroy(dkt_actor_t **self_p);

#endif
