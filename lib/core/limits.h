/* SPDX-License-Identifier: Apache-2.0
 *
 * Every ceiling of docket, in one place, each with its reason. A module that needs a new one adds
 * it here. Limits that strangers can reach are answered with a status, never asserted.
 */
#ifndef DKT_CORE_LIMITS_H
#define DKT_CORE_LIMITS_H

/* -- wire contract (page 4): promises to clients, change only with the contract ------------------
 */
#define DKT_FRAME_BYTES_MAX         16384 /* a client's frame; libzmq closes the connection above it */
#define DKT_FRAMES_PER_MESSAGE_MAX  256  /* requests in one message */
#define DKT_OPEN_PER_CONNECTION_MAX 4096 /* open requests of a connection, then `overloaded` */
#define DKT_UNREAD_ANSWERS_MAX      4096 /* answers kept for a client that does not read */
#define DKT_MSGPACK_DEPTH_MAX       4
/* Keys in one map: 23 parameters exist, the rest is room for unknown ones. It bounds the search for
 * a key that is given twice. */
#define DKT_MAP_KEYS_MAX            128
#define DKT_ID_CHARS_MAX            64
#define DKT_BUDGET_DEFAULT_MS       5000
#define DKT_BUDGET_MAX_MS           60000
#define DKT_NAME_CHARS_MAX          100
#define DKT_EMAIL_BYTES_MAX         254 /* RFC 5321 path length */
#define DKT_PASSWORD_CHARS_MIN      10
#define DKT_PASSWORD_CHARS_MAX      128
#define DKT_PASSWORD_BYTES_MAX      512 /* 128 characters of 4 bytes: none longer was ever set */
#define DKT_CURSOR_BYTES_MAX        64  /* a cursor names an id or a ticket number */
#define DKT_SUBJECT_BYTES_MAX       200
#define DKT_PAYLOAD_BYTES_MAX       8192
#define DKT_TRACEPARENT_BYTES_MAX   64 /* W3C trace context level 1 is 55 bytes */
#define DKT_TOKEN_BYTES_MAX         1024
#define DKT_HOLD_DEFAULT_MS         30000
#define DKT_HOLD_MIN_MS             1000
#define DKT_HOLD_MAX_MS             300000
#define DKT_LIST_DEFAULT            100
#define DKT_LIST_MAX                1000
#define DKT_LIST_BYTES_MAX          262144
#define DKT_BLOCKERS_MAX            100 /* ticket ids in a refused set_tenant */
#define DKT_RESOLVERS_SIGNUP_MAX    64
#define DKT_RESOLVERS_MAX           4096
#define DKT_CLASSES_MAX             8
#define DKT_CLASS_NAME_BYTES_MAX    31
#define DKT_LEVEL_MIN_MINUTES       2
#define DKT_LEVEL_MAX_MINUTES       1440
#define DKT_PERMILLE                1000
#define DKT_AUTH_RATE_PER_S         20 /* create_account and login, per source */
#define DKT_AUTH_BURST              100

/* -- ledger (page 3) ----------------------------------------------------------------------------
 */
#define DKT_MINUTE_MS        60000
#define DKT_COMMIT_BUDGET_MS 2000 /* a slot is closed this long before it starts */
#define DKT_MOVES_MAX        16   /* rebooking chain; longer ones were 1 in 9,430 */

/* -- tenant -------------------------------------------------------------------------------------
 */
#define DKT_GROUP_REQUESTS_MAX                                                                     \
    1024                              /* requests of one commit: one fsync for all of them; more   \
                                         only makes the first of them wait longer */
#define DKT_GROUP_BYTES_MAX   1048576 /* text and payload of one commit */
#define DKT_MAILBOX_MAX       4096    /* requests waiting for one tenant, then `overloaded` */
#define DKT_FENCE_FRESH_MS    500     /* an answer this young proves the connection (rule 3) */
#define DKT_COMMIT_TIMEOUT_MS 2000    /* the actor's own bound on a commit (page 7, 7) */
#define DKT_REFUSAL_MEMORY_MS 60000   /* a refusal is remembered this long */
#define DKT_REQUEST_MEMORY_MAX                                                                     \
    4096 /* remembered request ids per tenant; older ones are looked up */
#define DKT_SUSPECT_MEMORY_MS 60000 /* request ids of a failed group, kept by the node loop */
#define DKT_IDLE_PASSIVATE_MS 60000 /* idle this long and nothing due: the actor closes */

/* -- between our processes -----------------------------------------------------------------------
 */
#define DKT_VSHARDS              4096
#define DKT_LINK_BYTES_MAX       1048576   /* MAXMSGSIZE on the workers' side of a broker */
#define DKT_BROKER_PENDING_MAX   65536     /* requests open in one broker, then `overloaded` */
#define DKT_BROKER_PENDING_BYTES 134217728 /* and their copies kept for a resend: 128 MiB */
#define DKT_MOVED_PARK_MS        200       /* a worker parks a request that is ahead of its table */

/* -- worker --------------------------------------------------------------------------------------
 */
#define DKT_ACTIVATIONS_MAX        16 /* at a time per worker: 1000 connects at once take 6 to 8 s */
#define DKT_ACTIVATIONS_FAILED_MAX 4  /* of them for tenants whose last attempt failed */
#define DKT_HASH_QUEUE_MAX         64 /* argon2id jobs waiting: at 28 ms each 1.8 s, then rate_limited */
#define DKT_POOL_READY_MIN         20 /* ready-made tenant databases: 96 to 150 ms each to make */

/* -- producer library ----------------------------------------------------------------------------
 */
#define DKT_PRODUCER_IN_FLIGHT_DEFAULT 1024
#define DKT_PRODUCER_ATTEMPT_MS        2000  /* silence that ends an attempt: a failover is faster */
#define DKT_PRODUCER_TOTAL_MS          10000 /* all attempts of a call together */
#define DKT_PRODUCER_BACKOFF_MIN_MS    20    /* first pause where the answer names none */
#define DKT_PRODUCER_BACKOFF_MAX_MS    1000
#define DKT_PRODUCER_INTERNAL_MAX      3 /* attempts that may end in `internal`: it may be poisoned */
#define DKT_PRODUCER_DRAIN_MAX         1024 /* messages taken from the socket in one poll */
#define DKT_PRODUCER_ANSWER_BYTES_MAX  1048576 /* an answer's frame; a list page is 256 KiB */
/* -- operation -----------------------------------------------------------------------------------
 */
#define DKT_LOG_LINE_BYTES_MAX 2048 /* below PIPE_BUF: one line is one atomic write */
#define DKT_UP_PORT_DEFAULT    7410
#define DKT_UP_PORTS_MAX       64     /* 3 per broker, NATS, its websocket, PostgreSQL */
#define DKT_UP_BROKERS_MAX     16     /* more nodes join with `docket broker --join` */
#define DKT_UP_WORKERS_MAX     32     /* the same */
#define DKT_UP_LOCK_WAIT_MS    10000  /* for the last process of an older fleet on the folder */
#define DKT_UP_START_MS        120000 /* for one step of the start: crash recovery is the longest */
#define DKT_UP_BACKOFF_MIN_MS  100    /* a dead process is restarted after this, doubling */
#define DKT_UP_BACKOFF_MAX_MS  5000
#define DKT_UP_ALIVE_MS        10000 /* alive for so long: the shortest back-off again */
#define DKT_UP_START_TRIES_MAX 5     /* PostgreSQL at start, while old shared memory goes away */
#define DKT_UP_STOP_BROKERS_MS 2000  /* a stop ends within 10 s: these are parts of it ... */
#define DKT_UP_STOP_WORKERS_MS 3000
#define DKT_UP_STOP_NATS_MS    1000
#define DKT_UP_STOP_ALL_MS     9200 /* ... PostgreSQL gets what is left, then crashes safely */
#define DKT_UP_GUARD_MS        5000 /* supervisor killed: then the guard kills what hangs */
#define DKT_UP_STOP_KILL_MS    300  /* after the last, hard signal */
#define DKT_UP_PG_CONNECTIONS  1200 /* max_connections: 1,000 tenants and ours */

#endif
