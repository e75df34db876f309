/* SPDX-License-Identifier: Apache-2.0
 *
 * A bootstrapped control database on a private PostgreSQL, with a folder of fresh keys, and a
 * worker's environment on top of it: what the tests of the directory's side share.
 */
#ifndef DKT_TESTS_SUPPORT_CONTROL_H
#define DKT_TESTS_SUPPORT_CONTROL_H

#include <libpq-fe.h>

#include "support_pg.h"
#include "workers/mail.h"

typedef struct {
    support_pg_t *pg;
    char uri[256];
    char keys[64]; /* folder */
} support_control_t;

void support_control_start(support_control_t *self);
void support_control_stop(support_control_t *self);
/* A session on the control database. */
PGconn *support_control_connect(const support_control_t *self);

/* Keys, a random incarnation and mailboxes; everything asserts. */
void support_env_init(dkt_env_t *env, const support_control_t *control, const char *node);
void support_env_fini(dkt_env_t *env);

/* Waits for a mail of that kind in the node's mailbox, freeing others; NULL after `wait_ms`. */
dkt_mail_t *support_env_wait(dkt_env_t *env, dkt_mail_kind_t kind, int wait_ms);

#endif
