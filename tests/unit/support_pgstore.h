/* SPDX-License-Identifier: Apache-2.0
 *
 * A client of the libpq store for tests: drives it as an actor would and keeps what it said. One
 * PostgreSQL with the tenant t_one per test program.
 */
#ifndef DKT_TESTS_SUPPORT_PGSTORE_H
#define DKT_TESTS_SUPPORT_PGSTORE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/edge/pgstore.h"
#include "support_pg.h"

#define ST_INCARNATION  "00112233445566778899aabbccddeeff"
#define ST_RESULTS_MAX  16
#define ST_TICKETS_MAX  16
#define ST_WAIT_MS      10000
#define ST_BYTES_MAX    64
#define ST_BASE_MINUTE  INT64_C(40000000) /* 2046: far from every clock */
#define ST_BASE_MS      (ST_BASE_MINUTE * DKT_MINUTE_MS)
#define ST_GOLD_MINUTES 120

/* What a callback saw, copied: views die with it. */
typedef struct {
    dkt_store_result_t result;
    dkt_ticket_row_t tickets[ST_TICKETS_MAX];
    char class_name[ST_TICKETS_MAX][ST_BYTES_MAX];
    char subject[ST_TICKETS_MAX][ST_BYTES_MAX];
    bool has_payload[ST_TICKETS_MAX];
    char handoff[ST_BYTES_MAX];
    char sub_domain[ST_BYTES_MAX], password[ST_BYTES_MAX];
    dkt_settings_t settings;
    dkt_revoked_t revoked;
} st_seen_t;

typedef struct {
    dkt_pgstore_t *store;
    uint32_t count;
    st_seen_t seen[ST_RESULTS_MAX];
    dkt_pgstore_state_t state;
    char text[DKT_ERR_TEXT_BYTES_MAX];
    uint64_t epoch;
} st_client_t;

extern support_pg_t *st_pg;
extern PGconn *st_admin; /* superuser in the tenant's database */
extern st_client_t st_one, st_two;

/* Fixtures: for the program (durable: fsync on), and after each test. */
int st_start(void **state);
int st_start_durable(void **state);
int st_stop(void **state);
int st_clean(void **state);

int64_t st_now_ms(void);
/* One turn of the loop that owns the store; `skew_ms` pretends that much more time has passed. */
void st_turn(st_client_t *client, int64_t skew_ms);
void st_wait_state(st_client_t *client, dkt_pgstore_state_t state);
/* Waits for results until there are `count` in all; returns the last of them. */
const st_seen_t *st_wait(st_client_t *client, uint32_t count);
/* Submits one batch and waits for its result, the only one then. */
const st_seen_t *st_run(st_client_t *client, const dkt_batch_t *batch);

void st_open_as(st_client_t *client, const char *dbname, const char *incarnation);
/* Connected; and the lock, which the last test's backend may still be giving back. */
void st_open(st_client_t *client);
void st_lock(st_client_t *client);
dkt_store_result_t st_take(st_client_t *client, uint64_t epoch, uint64_t version);
/* Connected, locked, taken. */
void st_own(st_client_t *client);

/* An empty group. */
dkt_batch_t st_commit(const st_client_t *client);
/* A plain open gold ticket; `minute` counts from ST_BASE_MINUTE. */
dkt_ticket_row_t st_ticket(uint64_t number, uint32_t minute, uint16_t lane);
/* Commits plain open tickets 1 .. count, one a minute on lane 0. */
void st_insert(st_client_t *client, uint32_t count);
int64_t st_int(const char *sql);
/* Processor time of our backend so far, which other load on the machine does not change; 0: the
 * kernel does not tell. */
double st_backend_us(void);
/* The outcome of the last batch; and after a failure the store must be over. */
void st_failed(st_client_t *client, dkt_store_outcome_t outcome, const char *sqlstate);

#endif
