/* SPDX-License-Identifier: Apache-2.0
 *
 * create_account as steps that can be repeated: whoever finds a half-done one finishes it.
 *
 *   nothing --claim--> claimed --account written in the tenant's database--> active (+ feed, audit)
 *             one transaction: row and a ready-made database from the pool
 *
 * All of it blocks, on sessions of the caller's thread.
 */
#ifndef DKT_WORKERS_SAGA_H
#define DKT_WORKERS_SAGA_H

#include <libpq-fe.h>

#include "lib/core/ids.h"
#include "lib/core/limits.h"
#include "lib/core/proto.h"
#include "workers/mail.h"

typedef struct {
    dkt_uuid_t request_id;
    dkt_view_t name, email;
    uint16_t resolvers;
    const char *password; /* argon2id text */
} dkt_saga_request_t;

typedef struct {
    dkt_id_text_t client_id;
    char sub_domain[DKT_DOMAIN_BYTES_MAX];
    bool replayed;
} dkt_saga_account_t;

/* CONFLICT (field), ALREADY_EXISTS (email), OVERLOADED (no database is ready, or the fleet is
 * full), UNAVAILABLE (the session broke). */
DKT_CHECKED dkt_status_t dkt_saga_create(PGconn *conn, const dkt_env_t *env,
                                         const dkt_saga_request_t *request,
                                         dkt_saga_account_t *account, dkt_err_t *err);

/* Finishes what was claimed a while ago and not finished; `count` tells how many. */
DKT_CHECKED dkt_status_t dkt_saga_finish_all(PGconn *conn, const dkt_env_t *env, uint32_t *count,
                                             dkt_err_t *err);

/* A DNS label from any name: what is left of it in a-z, 0-9 and single dashes, and 6 characters of
 * `random`, so that it is never empty and seldom taken. */
void dkt_saga_slug(dkt_view_t name, uint32_t random, char out[DKT_DOMAIN_BYTES_MAX]);

#endif
