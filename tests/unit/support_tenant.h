/* SPDX-License-Identifier: Apache-2.0
 *
 * A tenant core on a bench: its port records what it submits and answers, and the test says what
 * the database does. Every work is counted: it leaves exactly once, or the test fails.
 */
#ifndef DKT_TESTS_SUPPORT_TENANT_H
#define DKT_TESTS_SUPPORT_TENANT_H

#include "lib/core/tenant.h"

#define BENCH_DB_MS      INT64_C(1790000000000) /* 20 s into a minute */
#define BENCH_WORKS_MAX  2048
#define BENCH_BATCHES    64
#define BENCH_JOBS       64
#define BENCH_FRAME_MAX  16384
#define BENCH_ANSWER_MAX 300000

typedef enum { BENCH_INSIDE, BENCH_ANSWERED, BENCH_GIVEN_BACK } bench_fate_t;

typedef struct {
    bench_fate_t fate;
    uint8_t *frame;
    dkt_answer_t answer;
} bench_work_t;

typedef struct {
    dkt_tenant_t *core;
    int64_t mono_ms, db_ms; /* the database's clock follows bench_advance */
    dkt_keyring_t ring;
    dkt_token_secret_t token_key;
    dkt_client_t client;
    dkt_settings_t settings;
    dkt_batch_t batches[BENCH_BATCHES]; /* submitted and not answered, oldest first */
    uint32_t batch_count;
    dkt_hash_job_t jobs[BENCH_JOBS]; /* not answered, oldest first */
    uint32_t job_count;
    bool hash_full;
    bench_work_t works[BENCH_WORKS_MAX]; /* by msgid */
    uint32_t msgid;
    uint32_t changed_count, error_count; /* errors: lines of the log */
    dkt_migrated_t migrated;             /* the latest */
    uint32_t migrated_count;
    /* for the next work */
    bool suspect;
    uint8_t origin;
    uint32_t budget_ms;
    uint8_t token_id[DKT_TOKEN_ID_BYTES];
    int64_t token_issued_ms, token_ttl_ms;
    /* for activation */
    dkt_store_result_t lock, taken, loaded;
    dkt_store_result_t migrate;                     /* what a step of the schema comes to */
    void (*before_step)(void), (*after_step)(void); /* memory that fails */
} bench_t;

/* A bench that has not begun to connect; change settings, taken and loaded before bench_activate.
 */
bench_t *bench_new(uint16_t resolvers);
bench_t *bench_new_aging(uint16_t resolvers, const dkt_age_config_t *age);
bench_t *bench_new_rehearsing(uint16_t resolvers);
/* Through lock, take and load; asserts that it serves. */
void bench_activate(bench_t *bench);
/* Both. */
bench_t *bench_serving(uint16_t resolvers);
/* Ends the core if need be and asserts that every work has left. */
void bench_destroy(bench_t **bench_p);

void bench_step(bench_t *bench, const dkt_tenant_event_t *event);
void bench_kind(bench_t *bench, dkt_tenant_event_kind_t kind);
void bench_flush(bench_t *bench);
/* Both clocks, then a TICK and a FLUSH. */
void bench_advance(bench_t *bench, int64_t ms);

/* Sends a request; returns its msgid. client_id and what the method requires are marked present. */
uint32_t bench_send(bench_t *bench, dkt_request_t *request);
uint32_t bench_create(bench_t *bench, const char *type, dkt_uuid_t id);
uint32_t bench_ticket(bench_t *bench, dkt_method_t method, uint64_t number);
uint32_t bench_hold(bench_t *bench, const char *type);
uint32_t bench_slot(bench_t *bench, dkt_method_t method, const char *type, dkt_uuid_t id,
                    const char *slot_id);
uint32_t bench_login(bench_t *bench, const char *password);
uint32_t bench_change_password(bench_t *bench, const char *password, const char *new_password);
uint32_t bench_simple(bench_t *bench, dkt_method_t method);

/* A young UUIDv7, new to every activation; and one that has to be looked up. */
dkt_uuid_t bench_new_id(bench_t *bench, uint8_t n);
dkt_uuid_t bench_old_id(uint8_t n);
dkt_view_t bench_view(const char *text);

/* The oldest open batch; asserts its kind. */
const dkt_batch_t *bench_batch(bench_t *bench, dkt_batch_kind_t kind);
/* Answers the oldest batch well; `rows` for a READ, the last `listed` of them for its list. Then a
 * FLUSH. */
void bench_ok(bench_t *bench);
void bench_rows(bench_t *bench, const dkt_ticket_row_t *rows, uint32_t count, uint32_t listed);
/* Answers the oldest batch, a step of age. */
void bench_aged(bench_t *bench, uint64_t count, uint64_t to, bool more, uint64_t unpublished);
void bench_fail(bench_t *bench, dkt_store_outcome_t outcome, const char *sqlstate);
/* Answers everything well until nothing is open. */
void bench_settle(bench_t *bench);
/* Answers the oldest password job. */
void bench_hashed(bench_t *bench, bool ok, const char *hash);

bool bench_answered(const bench_t *bench, uint32_t msgid);
/* The answer, which must be there and be no error. */
const dkt_answer_t *bench_answer(const bench_t *bench, uint32_t msgid);
/* Asserts the status text of a result; or an error's code and field (NULL: none). */
void bench_expect(const bench_t *bench, uint32_t msgid, const char *status);
void bench_expect_error(const bench_t *bench, uint32_t msgid, dkt_status_t status,
                        const char *field);
uint64_t bench_number(const bench_t *bench, uint32_t msgid);
/* How often that event is in a commit's journal row. */
uint32_t bench_events(const dkt_commit_t *commit, uint32_t type);

#endif
