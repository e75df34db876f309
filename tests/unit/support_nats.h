/* SPDX-License-Identifier: Apache-2.0
 *
 * A private NATS server with JetStream and the users of a key folder; everything asserts.
 */
#ifndef DKT_TESTS_SUPPORT_NATS_H
#define DKT_TESTS_SUPPORT_NATS_H

#include <sys/types.h>

typedef struct {
    char root[64]; /* temporary folder */
    char keys[96], url[64];
    int port;
    pid_t pid; /* 0: not running */
} support_nats_t;

/* Makes the folder, the keys and the settings; does not start the server yet. */
void support_nats_init(support_nats_t *self);
void support_nats_start(support_nats_t *self);
/* In its place, for a test that answers itself: the listening socket, which is the caller's. */
int support_nats_listen(const support_nats_t *self);
/* kill -9, and waits for it. */
void support_nats_kill(support_nats_t *self);
/* Deletes the folder, too. */
void support_nats_fini(support_nats_t *self);

#endif
