/* SPDX-License-Identifier: Apache-2.0
 *
 * What the threads of a worker tell each other, and what they share. Every message begins with a
 * dkt_mail_t and is on the heap; whoever takes it out of a mailbox owns it.
 *
 *          LOOKUP HOLDER REFRESH LEAVE WAKE SETTLE           HASH
 *   node loop  ------------------------------> directory   ------> hasher
 *      ^ STOP                                   ^ SHARE
 *   operators' requests, on the bus's thread ---+        actors --REFUSED--> teller --> NATS
 *      ^  |        ACCOUNT TENANT CHANGES
 *      |  +----------------------------------> accounts
 *      |  +--- WORK HASHED RELAY_ASK --------> tenant actors --RELAY_*--> relay
 *      +-- ANSWER WORK(given back) READY ENDED HASHED FOUND TABLE BROKERS CONTEXT
 *                                           DELETING ROWS
 *
 *   steps of the schema: directory -UPGRADES-> node loop -MIGRATE-> actor -MIGRATED-> node loop
 *   -MIGRATED-> directory
 */
#ifndef DKT_WORKERS_MAIL_H
#define DKT_WORKERS_MAIL_H

#include <pthread.h>
#include <stdatomic.h>

#include "lib/core/ids.h"
#include "lib/core/link.h"
#include "lib/core/relay.h"
#include "lib/core/tenant.h"
#include "lib/core/token.h"
#include "lib/edge/bus.h"
#include "lib/edge/mailbox.h"
#include "lib/edge/replica.h"
#include "workers/stats.h"
#include "workers/turns.h"

#define DKT_HOST_BYTES_MAX      256
#define DKT_PORT_BYTES_MAX      8
#define DKT_DATABASE_BYTES_MAX  40 /* t_ and 32 hex digits */
#define DKT_DOMAIN_BYTES_MAX    64 /* a DNS label and NUL */
#define DKT_NODE_NAME_BYTES_MAX 24 /* docket/NODE/INCARNATION fits PostgreSQL's 63 characters */
#define DKT_ENDPOINT_BYTES_MAX  256

typedef enum {
    DKT_MAIL_STOP, /* to any thread: finish and return */
    DKT_MAIL_WORK,
    DKT_MAIL_ANSWER,
    DKT_MAIL_HASH, /* to the hasher; comes back as HASHED */
    DKT_MAIL_HASHED,
    DKT_MAIL_READY,
    DKT_MAIL_ENDED,
    DKT_MAIL_LOOKUP, /* to the directory; comes back as FOUND */
    DKT_MAIL_FOUND,
    DKT_MAIL_HOLDER,
    DKT_MAIL_REFRESH,
    DKT_MAIL_LEAVE,
    DKT_MAIL_TABLE,
    DKT_MAIL_BROKERS,
    DKT_MAIL_ACCOUNT,  /* dkt_command_mail_t: create_account, its password hashed */
    DKT_MAIL_TENANT,   /* dkt_command_mail_t: get_tenant, list_tenants, set_tenant suspended */
    DKT_MAIL_CHANGES,  /* dkt_changes_mail_t: carry a tenant's changes to the control database */
    DKT_MAIL_CONTEXT,  /* dkt_context_mail_t: the directory suspended or resumed a tenant */
    DKT_MAIL_DELETING, /* dkt_deleting_mail_t: these tenants exist no more */
    DKT_MAIL_WAKE,     /* dkt_wake_mail_t: read these rows of the table wake; comes back as ROWS */
    DKT_MAIL_ROWS,
    DKT_MAIL_PROBE,    /* to the node: the stream of events is new, look into every tenant */
    DKT_MAIL_SETTLE,   /* dkt_settle_mail_t: a tenant ended cleanly, and when it is due next */
    DKT_MAIL_UPGRADES, /* dkt_upgrades_mail_t: these tenants are to run a step of their schema */
    DKT_MAIL_MIGRATE,  /* dkt_migrate_mail_t, to an actor */
    DKT_MAIL_MIGRATED, /* dkt_migrated_mail_t: what became of it */
    /* dkt_relay_mail_t, from actors to the relay */
    DKT_MAIL_RELAY_BEGIN,
    DKT_MAIL_RELAY_ROW,
    DKT_MAIL_RELAY_READ, /* the result of a read */
    DKT_MAIL_RELAY_END,
    DKT_MAIL_RELAY_ACK, /* dkt_relay_ack_mail_t, from the NATS client's thread to the relay */
    DKT_MAIL_RELAY_ASK, /* dkt_relay_ask_mail_t, from the relay through the node loop to an actor */
    DKT_MAIL_REFUSED,   /* dkt_refused_mail_t, from an actor to the teller */
    DKT_MAIL_SHARE,     /* dkt_share_mail_t, from an operator to the directory */
} dkt_mail_kind_t;

/* A request inside a worker. The core sees `work` only; its container is found again from it. */
typedef struct {
    dkt_mail_t mail;
    dkt_client_t client;   /* all zero where the method names none */
    dkt_uuid_t request_id; /* all zero if there is none */
    uint32_t msgid;
    uint32_t present;          /* params, DKT_PARAM_BIT mask */
    dkt_table_version_t table; /* of the broker that sent it */
    int64_t park_until_mono_ms;
    dkt_work_t work; /* must be last: it ends with the frame */
} dkt_work_mail_t;

/* What of set_tenant is the owner's to decide; `suspended` alone is the directory's. */
#define DKT_SETTINGS_PARAMS                                                                        \
    (DKT_PARAM_BIT(RESOLVERS) | DKT_PARAM_BIT(CLASSES) | DKT_PARAM_BIT(REBOOKING) |                \
     DKT_PARAM_BIT(LIMITS))

dkt_work_mail_t *dkt_work_mail(dkt_work_t *work);

/* An answer on its way to a broker. */
typedef struct {
    dkt_mail_t mail;
    uint32_t link;
    uint8_t outcome; /* dkt_link_outcome_t */
    uint8_t method;  /* dkt_method_t, for the statistics */
    uint64_t seq;
    uint32_t len;
    uint8_t bytes[];
} dkt_answer_mail_t;

/* Makes the answer of a work out of the work's memory, if it fits; `bytes` are not of the work. */
dkt_answer_mail_t *dkt_answer_mail(dkt_work_mail_t *work, const uint8_t *bytes, size_t len);

typedef enum {
    DKT_HASH_FOR_TENANT,  /* for the core of a tenant */
    DKT_HASH_FOR_NOBODY,  /* a login to an unknown account: takes as long as a real one */
    DKT_HASH_FOR_ACCOUNT, /* create_account */
} dkt_hash_purpose_t;

typedef struct {
    dkt_mail_t mail;
    dkt_hash_purpose_t purpose;
    dkt_client_t client;   /* FOR_TENANT */
    uint64_t serial;       /* FOR_TENANT: which activation asked */
    dkt_work_mail_t *work; /* FOR_NOBODY, FOR_ACCOUNT */
    dkt_hash_job_t job;
} dkt_hash_mail_t;

/* Where a tenant lives. The role has the name of the database. */
typedef struct {
    char host[DKT_HOST_BYTES_MAX];
    char port[DKT_PORT_BYTES_MAX];
    char database[DKT_DATABASE_BYTES_MAX];
    char sub_domain[DKT_DOMAIN_BYTES_MAX];
    bool suspended;
    uint64_t changes_seq; /* of its table `changes`, what the control database has */
} dkt_home_t;

typedef struct {
    dkt_mail_t mail;
    dkt_client_t client;
    dkt_status_t status; /* OK, NOT_FOUND, UNAVAILABLE */
    bool marked;         /* its row in the table wake says 0 and is ours */
    dkt_home_t home;
} dkt_lookup_mail_t;

/* Somebody holds the lock of a tenant that the table gives to us. */
typedef struct {
    dkt_mail_t mail;
    char database[DKT_DATABASE_BYTES_MAX];
    int64_t asked_mono_ms, held_since_mono_ms, gained_mono_ms;
} dkt_holder_mail_t;

/* READY and ENDED of an actor. */
typedef struct {
    dkt_mail_t mail;
    dkt_client_t client;
    uint64_t serial;
    bool served; /* it got as far as SERVING */
    bool clean, lock_held, stale;
    bool refused; /* its database refused a group for its data */
    int64_t next_due_ms;
    char text[DKT_ERR_TEXT_BYTES_MAX];
    uint32_t suspect_count;
    dkt_uuid_t *suspects; /* heap */
} dkt_actor_mail_t;

typedef struct {
    dkt_mail_t mail;
    bool probe; /* not rows: the tenants that have none, or one that is far away */
    uint8_t vshards[DKT_VSHARDS / 8]; /* bit set of those that were gained; rows only */
} dkt_wake_mail_t;

typedef struct {
    dkt_client_t client;
    int64_t due_ms;
} dkt_wake_row_t;

typedef struct {
    dkt_mail_t mail;
    bool probe;
    uint32_t count; /* <= DKT_WAKE_ROWS_MAX */
    dkt_wake_row_t rows[];
} dkt_rows_mail_t;

typedef struct {
    dkt_mail_t mail;
    dkt_client_t client;
    int64_t due_ms; /* INT64_MAX: nothing is due, the row goes */
} dkt_settle_mail_t;

typedef struct {
    dkt_client_t client;
    int32_t target;
} dkt_upgrade_row_t;

typedef struct {
    dkt_mail_t mail;
    uint32_t count; /* <= DKT_UPGRADES_MAX */
    dkt_upgrade_row_t rows[];
} dkt_upgrades_mail_t;

typedef struct {
    dkt_mail_t mail;
    int32_t target;
} dkt_migrate_mail_t;

typedef struct {
    dkt_mail_t mail;
    dkt_client_t client;
    int32_t target, version; /* version 0: nobody knows */
    bool broke;              /* the owner ended meanwhile, which may be the step's doing */
    bool failed;             /* nobody should try again */
    char text[DKT_ERR_TEXT_BYTES_MAX];
} dkt_migrated_mail_t;

typedef struct {
    dkt_mail_t mail;
    dkt_table_t table;
} dkt_table_mail_t;

typedef struct {
    dkt_mail_t mail;
    uint32_t count;
    char addresses[DKT_BROKERS_MAX][DKT_ENDPOINT_BYTES_MAX];
} dkt_brokers_mail_t;

typedef struct {
    dkt_mail_t mail;
    dkt_work_mail_t *work;
    char password[DKT_HASH_TEXT_BYTES]; /* ACCOUNT: argon2id text */
} dkt_command_mail_t;

typedef struct {
    dkt_mail_t mail;
    dkt_client_t client;
    uint32_t tries; /* that failed */
} dkt_changes_mail_t;

typedef struct {
    dkt_mail_t mail;
    uint32_t count; /* <= DKT_DELETING_MAX */
    dkt_client_t clients[];
} dkt_deleting_mail_t;

typedef struct {
    dkt_mail_t mail;
    dkt_client_t client;
    bool suspended;
} dkt_context_mail_t;

typedef struct {
    dkt_mail_t mail;
    dkt_client_t client;
    uint64_t serial;       /* which activation */
    uint64_t seq;          /* BEGIN: newest row; ROW: this row */
    dkt_relay_row_t *row;  /* ROW, NULL: it did not fit */
    dkt_relay_mark_t mark; /* READ: the progress that is stored */
    bool complete;
    uint32_t count;
    dkt_relay_row_t *rows[]; /* READ */
} dkt_relay_mail_t;

typedef struct {
    dkt_mail_t mail;
    uint64_t token; /* of the message */
    bool good;
    uint64_t stream_seq;
} dkt_relay_ack_mail_t;

typedef struct {
    dkt_mail_t mail;
    dkt_client_t client;
    uint64_t serial;
    bool read, mark;
    dkt_relay_read_t read_from;
    dkt_relay_mark_t marked;
} dkt_relay_ask_mail_t;

/* A refusal that operators shall see. */
typedef struct {
    dkt_mail_t mail;
    dkt_client_t client;
    char ticket_type[DKT_CLASS_NAME_BYTES_MAX + 1];
    const char *reason;  /* static */
    int64_t earliest_ms; /* 0: unknown */
} dkt_refused_mail_t;

/* An operator wants this worker to take part, or not. */
typedef struct {
    dkt_mail_t mail;
    dkt_share_t share;
} dkt_share_mail_t;

/* When the last refusals were told, so that no second has more than DKT_REFUSED_PER_S. */
typedef struct {
    atomic_llong closed_until_mono_ms;
    pthread_mutex_t lock; /* for a few loads and stores */
    uint32_t next;
    int64_t told_mono_ms[DKT_REFUSED_PER_S];
} dkt_refused_window_t;

/* The workers that the directory sees alive. */
typedef struct {
    pthread_mutex_t lock;
    uint32_t count;
    char names[DKT_MEMBERS_MAX][DKT_NODE_NAME_BYTES_MAX];
} dkt_nodes_t;

/* What all threads of the process share; set before they start and constant from then on, but for
 * what is atomic. */
typedef struct {
    const char *uri; /* control database */
    const char *node;
    dkt_incarnation_t incarnation;
    dkt_keyring_t id_keys;
    dkt_token_secret_t token_key;
    uint32_t token_public_count;
    dkt_token_public_t token_publics[DKT_TOKEN_KEYS_MAX];
    uint8_t master[DKT_KEY_BYTES];
    /* DKT_IDLE_PASSIVATE_MS, DKT_PROBE_MS, DKT_AGE_ROUND_MS; tests shorten them */
    int64_t idle_ms, probe_ms, age_ms;
    dkt_mailbox_t *node_box, *hasher_box, *directory_box, *accounts_box;
    atomic_uint hashes_pending; /* <= DKT_HASH_QUEUE_MAX */
    atomic_bool leader;         /* is this worker's directory the leader? */
    atomic_bool control_up;     /* does it have a session on the control database? */
    atomic_bool stopping;       /* for threads that sleep between tries */
    const char *nats, *keys;    /* address, NULL: no events; folder */
    dkt_mailbox_t *relay_box;   /* NULL: no events */
    atomic_ullong relay_bytes;  /* of journal rows on their way, <= DKT_RELAY_BYTES_MAX and a bit */
    atomic_llong relay_stream_ms; /* creation of the stream the relay writes to, 0: NATS is away */
    atomic_uint relay_rows;       /* ROW mails in relay_box, <= DKT_RELAY_BOX_MAX */
    dkt_worker_stats_t stats;
    dkt_replica_t *replica;    /* tenant context, kept by workers/context.c; NULL in some tests */
    dkt_bus_t *bus;            /* NULL: no NATS address */
    dkt_mailbox_t *teller_box; /* NULL: no NATS address */
    dkt_refused_window_t refused_window;
    dkt_nodes_t nodes;
    dkt_worker_turns_t turns; /* of the actors, for what no request waits for */
} dkt_env_t;

/* Another processor wrote the works behind this mail, and what the core remembers of their ids does
 * not fit a cache: what each of them needs is asked for while the ones before it are decided. */
void dkt_mail_look_ahead(const dkt_mail_t *mail, const dkt_tenant_t *core);

/* Into a mailbox that is large enough for everything that may be open: a refusal is our bug. */
void dkt_mail_post(dkt_mailbox_t *box, dkt_mail_t *mail, dkt_mail_kind_t kind);

/* A message without content, and a zeroed one; out of memory ends the process. */
void dkt_mail_post_kind(dkt_mailbox_t *box, dkt_mail_kind_t kind);
void *dkt_mail_alloc(size_t bytes);

#endif
