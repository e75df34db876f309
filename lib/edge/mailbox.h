/* SPDX-License-Identifier: Apache-2.0
 *
 * A bounded queue from many threads to one, of nodes that live inside the messages themselves.
 *
 *   push --+                       +--> drain: the whole list, in one lock
 *   push --+--> [ n n n n n n ] ---+
 *   push --+        count <= max   +--> eventfd, readable while there may be something
 *
 * Why not an inproc socket pair: it costs 3 fds and about 32 KB per tenant. With this an active
 * tenant is 2 fds of its actor's pipe, 1 eventfd and 1 PostgreSQL socket, which is the 4 in
 * tenants_active_max = (hard limit - 1000) / 4. A push that finds the queue not empty makes no
 * system call, so under load a wake-up is paid per batch and not per message.
 */
#ifndef DKT_EDGE_MAILBOX_H
#define DKT_EDGE_MAILBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/core/status.h"

/* First member of every message. `kind` belongs to the two ends. */
typedef struct dkt_mail {
    struct dkt_mail *next;
    uint32_t kind;
} dkt_mail_t;

typedef struct dkt_mailbox dkt_mailbox_t;

/* At most `max` messages. NULL without memory or without a file descriptor. */
dkt_mailbox_t *dkt_mailbox_new(uint32_t max);
/* Must be empty, and every push must have returned: whoever may push is joined before. */
void dkt_mailbox_destroy(dkt_mailbox_t **self_p);

/* False when full: the message stays the caller's. */
DKT_CHECKED bool dkt_mailbox_push(dkt_mailbox_t *self, dkt_mail_t *mail);
/* All of a list linked by `next`, in its order, or nothing. An empty list is well. */
DKT_CHECKED bool dkt_mailbox_push_list(dkt_mailbox_t *self, dkt_mail_t *head);

/* Takes everything, oldest first; NULL if there is nothing. One thread only. */
dkt_mail_t *dkt_mailbox_drain(dkt_mailbox_t *self);

/* Makes it readable although nothing was put: the reader shall look at something else. */
void dkt_mailbox_wake(dkt_mailbox_t *self);

/* To poll for reading. */
int dkt_mailbox_fd(const dkt_mailbox_t *self);

#endif
