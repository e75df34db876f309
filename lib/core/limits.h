/* SPDX-License-Identifier: Apache-2.0
 *
 * Every ceiling of docket, in one place, each with its reason. A module that needs a new one adds
 * it here. Limits that strangers can reach are answered with a status, never asserted.
 */
#ifndef DKT_CORE_LIMITS_H
#define DKT_CORE_LIMITS_H

/* clang-format off */

/* -- wire contract (page 4): promises to clients, change only with the contract -- */
#define DKT_FRAME_BYTES_MAX         16384 /* a client's frame; more closes the connection */
#define DKT_FRAMES_PER_MESSAGE_MAX  256  /* requests in one message */
#define DKT_OPEN_PER_CONNECTION_MAX 4096 /* open requests of a connection, then `overloaded` */
#define DKT_UNREAD_ANSWERS_MAX      4096 /* answers kept for a client that does not read */
#define DKT_MSGPACK_DEPTH_MAX       4
/* Keys in one map: 23 parameters exist, the rest is room for unknown ones. It bounds the search for
 * a key that is given twice. */
#define DKT_MAP_KEYS_MAX          128
#define DKT_ID_CHARS_MAX          64
#define DKT_BUDGET_DEFAULT_MS     5000
#define DKT_BUDGET_MAX_MS         60000
#define DKT_NAME_CHARS_MAX        100
#define DKT_EMAIL_BYTES_MAX       254 /* RFC 5321 path length */
#define DKT_PASSWORD_CHARS_MIN    10
#define DKT_PASSWORD_CHARS_MAX    128
#define DKT_PASSWORD_BYTES_MAX    512 /* 128 characters of 4 bytes: none longer was ever set */
#define DKT_CURSOR_BYTES_MAX      64  /* a cursor names an id or a ticket number */
#define DKT_SUBJECT_BYTES_MAX     200
#define DKT_PAYLOAD_BYTES_MAX     8192
#define DKT_TRACEPARENT_BYTES_MAX 64 /* W3C trace context level 1 is 55 bytes */
#define DKT_TOKEN_BYTES_MAX       1024
#define DKT_HOLD_DEFAULT_MS       30000
#define DKT_HOLD_MIN_MS           1000
#define DKT_HOLD_MAX_MS           300000
#define DKT_LIST_DEFAULT          100
#define DKT_LIST_MAX              1000
#define DKT_LIST_BYTES_MAX        262144
#define DKT_BLOCKERS_MAX          100 /* ticket ids in a refused set_tenant */
#define DKT_RESOLVERS_SIGNUP_MAX  64
#define DKT_RESOLVERS_MAX         4096
#define DKT_CLASSES_MAX           8
#define DKT_CLASS_NAME_BYTES_MAX  31
#define DKT_LEVEL_MIN_MINUTES     2
#define DKT_LEVEL_MAX_MINUTES     1440
#define DKT_PERMILLE              1000
#define DKT_AUTH_RATE_PER_S       20 /* create_account and login, per source */
#define DKT_AUTH_BURST            100

/* -- ledger (page 3) -- */
#define DKT_MINUTE_MS        60000
#define DKT_COMMIT_BUDGET_MS 2000 /* a slot is closed this long before it starts */
#define DKT_MOVES_MAX        16   /* rebooking chain; longer ones were 1 in 9,430 */

/* -- tenant -- */
#define DKT_GROUP_REQUESTS_MAX 1024    /* of one commit: more only makes the first wait longer */
#define DKT_GROUP_BYTES_MAX    1048576 /* text and payload of one commit */
#define DKT_MAILBOX_MAX        4096    /* requests waiting for one tenant, then `overloaded` */
#define DKT_FENCE_FRESH_MS     500     /* an answer this young proves the connection (rule 3) */
#define DKT_COMMIT_TIMEOUT_MS  2000    /* the actor's own bound on a commit (page 7, 7) */
#define DKT_REFUSAL_MEMORY_MS  60000   /* a refusal is remembered this long */
#define DKT_HANDOFF_REFUSALS_MAX 1024  /* passed on at most: 160 KiB in the handoff's row */
#define DKT_REQUEST_MEMORY_MAX 32768   /* remembered request ids per tenant, then looked up */
#define DKT_HASHING_PER_TENANT_MAX 16  /* passwords under way: no tenant fills the queue of all */
#define DKT_SUSPECT_MEMORY_MS  60000   /* request ids of a failed group, kept by the node loop */
#define DKT_IDLE_PASSIVATE_MS  60000   /* idle this long and nothing due: the actor closes */

/* -- schema: a step says which code understands what it leaves behind (`min_reader`) -- */
#define DKT_SCHEMA_TENANT_READS  2 /* this code's number: the newest tenant schema it knows */
#define DKT_SCHEMA_TENANT_NEEDS  1 /* and the oldest that it still serves */
#define DKT_SCHEMA_CONTROL_READS 2 /* the newest control schema it knows */

/* -- tenant, age: what is old goes in small steps, between two groups -- */
#define DKT_AGE_FIRST_MS       20000  /* the first round: once to twice this after activation */
#define DKT_AGE_ROUND_MS       600000 /* from the end of one round to the next */
#define DKT_AGE_PAUSE_MS       20     /* after a step that found something: a share of 1 in 10 */
#define DKT_AGE_PATIENCE_MS    1000   /* a step waits so long for a quiet moment, then for a gap */
#define DKT_AGE_STEP_ROWS      250    /* of one step: 1 to 2 ms, which the group behind it waits */
#define DKT_AGE_STEP_IDS       100    /* the same for request ids: a new version of each ticket */
/* Tickets that one step of the table `served` looks at: more than one minute may have. */
#define DKT_AGE_SERVED_ROWS    8192
#define DKT_AGE_STEPS_MAX      512    /* of one kind in one round: 7 million ids a day, and more */
#define DKT_AGE_REQUEST_IDS_MS 172800000 /* 48 h: the contract's promise of a replay */
#define DKT_AGE_UNPUBLISHED_DAYS 30   /* of the journal, should NATS stay away: then loudly */

/* -- store (libpq) -- */
#define DKT_STORE_BATCHES_MAX 32    /* open batches of one tenant: a group, and reads behind it */
#define DKT_STORE_CONNECT_MS  2000  /* to be connected and ready, or LOST */
#define DKT_STORE_KEEP_BYTES  65536 /* a parameter buffer above this is freed after its use */

/* -- relay of events -- */
#define DKT_RELAY_WINDOW         64  /* messages of one tenant without an acknowledgement */
#define DKT_RELAY_ROWS_MAX       128 /* journal rows of one tenant in memory; others: read again */
#define DKT_RELAY_READ_MAX       64  /* journal rows of one read */
#define DKT_RELAY_MESSAGES_MAX   64  /* of one journal row: a bit each */
#define DKT_RELAY_EVENTS_MAX     1024 /* of one message: at most 600 bytes each, 1 MiB in all */
#define DKT_RELAY_ACK_MS         2000 /* silence after which everything open is sent again */
#define DKT_RELAY_READ_MS        5000 /* a read without a result is asked again */
#define DKT_RELAY_BACKOFF_MIN_MS 100
#define DKT_RELAY_BACKOFF_MAX_MS 5000
#define DKT_RELAY_MARK_MS        2000 /* progress is written at most this often */
#define DKT_RELAY_BOX_MAX        65536 /* mails for the relay; what does not fit is read again */
#define DKT_RELAY_BYTES_MAX      67108864 /* journal rows in memory of one worker: 64 MiB */
#define DKT_RELAY_OPEN_MAX       4096 /* messages of one worker without an acknowledgement */
#define DKT_RELAY_TURN_MS        10   /* the relay gathers this long: few wake-ups, no latency */
#define DKT_RELAY_KEEP_DAYS      7    /* of the stream, as of the journal */
#define DKT_RELAY_STREAM_BYTES   INT64_C(2147483648) /* of the stream: 4 million events */
#define DKT_RELAY_WAKE_MS        60000 /* a tenant that closes with events unpublished is woken */
#define DKT_NATS_RETRY_MS        250  /* between two tries to connect */
#define DKT_NATS_PONG_MS         1000 /* from a server's greeting to its first PONG */
#define DKT_BUS_SUBSCRIPTIONS_MAX 48  /* of one process: two services of 9 and endpoints, context */

/* -- what operators see -- */
#define DKT_STATS_MS          1000 /* docket.stats of every process */
#define DKT_REFUSED_PER_S     10   /* docket.refused of one worker, in any second */
#define DKT_REFUSED_BOX_MAX   64   /* on their way to NATS */

/* -- between our processes -- */
/* So many of one tenant go on in broker and worker though the round is not over: a client's message
 * may be all its own, and there is no group of another tenant that it could tear apart. */
#define DKT_TENANT_CHUNK DKT_FRAMES_PER_MESSAGE_MAX
#define DKT_VSHARDS              4096
#define DKT_LINK_BYTES_MAX       1048576   /* MAXMSGSIZE on the workers' side of a broker */
#define DKT_BROKER_PENDING_MAX   65536     /* requests open in one broker, then `overloaded` */
#define DKT_BROKER_PENDING_BYTES 134217728 /* and their copies kept for a resend: 128 MiB */
#define DKT_MOVED_PARK_MS        200       /* a worker parks a request that is ahead of its table */

/* -- memory of requests that is used again (spare.h), in brokers and workers -- */
#define DKT_FRAME_BYTES_USUAL 512  /* of a create_ticket 445: a token is most of it */
#define DKT_SPARES_MAX        2048 /* kept after a burst: 1 to 2 MiB */

/* -- broker -- */
#define DKT_BROKER_CONNECTIONS_MAX 16384 /* clients with something open: above it `overloaded` */
#define DKT_BROKER_VSHARD_MAX      8192  /* open requests of one vshard: no tenant fills a broker */
/* Of one tenant at its worker while another asks for little, and how often more may go on: 8,000 a
 * second, of which no tenant has use for 100 (4,096 resolvers have 68 minutes a second to give).
 * Measured on two cores, ten others with 500 requests a second beside a flood of creates, their p50
 * and p99 against those without: 1.29 and 1.23 to 1.32 times with 32 as fast as they are answered
 * (29,000 a second), 1.14 and 1.26 every 2 ms, 1.09 and 1.17 every 4 ms; 16 as fast as they are
 * answered (more commits) 1.35 and 1.9; without any bound 4.8. */
#define DKT_BROKER_SHARE_OPEN      32
#define DKT_BROKER_SHARE_PACE_MS   4
#define DKT_BROKER_SHARE_MS        1000 /* so long who asked for little counts, and who did not */
#define DKT_BROKER_UNREAD_BYTES    67108864 /* unread answers of all clients: 64 MiB */
#define DKT_BROKER_WORKERS_MAX     512      /* incarnations: a whole fleet and its predecessors */
#define DKT_BROKER_GROUP_BYTES     131072   /* answers in one message, unless one alone is larger */
#define DKT_BROKER_GRACE_MS        2500     /* past the budget: a commit under way may take 2 s */
#define DKT_BROKER_RETRY_MS        20       /* between two tries of a request that was `moved` */
#define DKT_BROKER_TABLE_WAIT_MS   250      /* for a newer table that a worker mentioned: a beat */
#define DKT_BROKER_LOSSES_MAX      3     /* owners that one request may lose: does it kill them? */
#define DKT_BROKER_FORGET_MS       10000 /* a worker unheard for this long and in no table */
#define DKT_BROKER_RETRY_AFTER_MS  100   /* what `unavailable` and `overloaded` advise */
#define DKT_BROKER_SOURCES_MAX     4096  /* peers whose quota is remembered */
#define DKT_BROKER_TOKENS_MAX      16384 /* verified tokens remembered, of at most 1 KiB each */
#define DKT_BROKER_BAD_TOKENS_MAX  256   /* and refused ones, so that a retry loop stays cheap */

/* -- upgrades of the schema -- */
#define DKT_MIGRATE_STEP_MS   1000 /* a step's statement: a group decided before it still commits */
#define DKT_UPGRADES_MAX      64   /* tenants asked at a time, of all workers */
#define DKT_UPGRADE_LOOK_MS   250  /* a directory looks for asked tenants this often */
#define DKT_UPGRADE_BREAKS    3    /* owners that one step may end before it counts as failed */
#define DKT_UPGRADE_WINDOW    4    /* tenants asked at a time for each living worker */
#define DKT_UPGRADE_WAIT_MS   30000 /* for an owner's answer, then the tenant counts as failed */
#define DKT_UPGRADE_CHANCES   3    /* rounds of a walk in which some databases were out of reach */
#define DKT_SCHEMA_STEPS_MAX  512
#define DKT_SCHEMA_BYTES_MAX  262144 /* of one step's file */

/* -- worker -- */
#define DKT_ACTIVATIONS_MAX        16 /* per worker: 1000 connects at once take 6 to 8 s */
#define DKT_ACTIVATIONS_FAILED_MAX 4  /* of them for tenants whose last attempt failed */
#define DKT_HASH_QUEUE_MAX         64 /* argon2id jobs: at 28 ms each 1.8 s, then rate_limited */
#define DKT_POOL_READY_MIN         20 /* ready-made tenant databases: 96 to 150 ms each to make */

/* -- producer library -- */
#define DKT_PRODUCER_IN_FLIGHT_DEFAULT 1024
#define DKT_PRODUCER_ATTEMPT_MS        2000  /* silence that ends an attempt */
#define DKT_PRODUCER_TOTAL_MS          10000 /* all attempts of a call together */
#define DKT_PRODUCER_BACKOFF_MIN_MS    20    /* first pause where the answer names none */
#define DKT_PRODUCER_BACKOFF_MAX_MS    1000
#define DKT_PRODUCER_INTERNAL_MAX      3 /* attempts ending in `internal`: poisoned? */
#define DKT_PRODUCER_DRAIN_MAX         1024 /* messages taken from the socket in one poll */
#define DKT_PRODUCER_ANSWER_BYTES_MAX  1048576 /* an answer's frame; a list page is 256 KiB */

/* -- operation -- */
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

/* -- directory -- */
#define DKT_POLL_MS            80  /* each directory asks the control database this often */
#define DKT_POLLS_PER_BEAT     3   /* and raises its beat every so many polls: 4 times a second */
#define DKT_WORKER_HUNG_MS     750 /* a beat that stood still for this long: hung */
#define DKT_WATCH_STEP_MS      250 /* the most silence one poll can add: gaps do not count */
#define DKT_WATCH_WARM_MS      1000 /* a watcher judges nobody before */
#define DKT_LOCK_HELD_MS       2000 /* then the lock of the old owner may be broken (rule 11) */
#define DKT_LOOKUP_NEGATIVE_MS 1000 /* "no such tenant" is believed this long */
#define DKT_DIRECTORY_AGE_MS   60000 /* the leader drops what is old this often */
#define DKT_DIRECTORY_AGE_ROWS 500   /* in one statement: 1 to 3 ms, between two polls */
#define DKT_FEED_ROWS_MAX      10000 /* of the feed are kept, */
#define DKT_FEED_KEEP_HOURS    168   /* and none that is older */
#define DKT_WORKERS_KEEP_HOURS 24    /* the row of a dead worker, unless there are more than */
#define DKT_WORKERS_DEAD_MAX   64    /* this: a worker that crashes in a loop leaves many */
#define DKT_BROKERS_MAX        64   /* brokers a worker connects to */
#define DKT_DELETING_MAX       1024 /* tenants being deleted that a worker is told of at a time */

/* -- tenant context (rule 8) -- */
#define DKT_CONTEXT_RECORDS_MAX     65536 /* in a replica: above DKT_ACCOUNTS_MAX */
#define DKT_CONTEXT_HEAD_MS         500   /* the leader says its head: at least once a second */
#define DKT_CONTEXT_SILENCE_MS      1000  /* without a head for so long: in doubt */
#define DKT_CONTEXT_TAIL_MS         50    /* the leader looks for changes this often */
#define DKT_CONTEXT_TAIL_ROWS_MAX   1024  /* changes read one by one; above it all is read */
#define DKT_CONTEXT_LATE_MAX        1024  /* news kept during a pull: at most 33 MiB, mostly 1 */
#define DKT_CONTEXT_BACKOFF_BASE_MS 50    /* before a pull: full jitter */
#define DKT_CONTEXT_BACKOFF_CAP_MS  2000
#define DKT_CONTEXT_PULL_MS         2000  /* a pull that stands still for so long has failed */
#define DKT_CONTEXT_PAGE_ROWS       1000  /* records in one statement of a pull */
#define DKT_CONTEXT_CHUNK_BYTES     262144 /* records in one message between worker and broker */
#define DKT_CONTEXT_BOX_MAX         16384 /* news waiting for a replica; what is lost is pulled */
#define DKT_CONTEXT_CHECK_MS        5000  /* the leader looks whether the stream is whole */
#define DKT_CONTEXT_RECHECK_MS      60000 /* the leader compares itself with the database */
#define DKT_CONTEXT_JOIN_MS         1000  /* a broker tries to enter itself this often */

/* -- worker, activation -- */
#define DKT_BACKOFF_BASE_MS   50 /* full jitter after a failed activation */
#define DKT_BACKOFF_CAP_MS    2000
#define DKT_STEADY_MS         1000 /* served this long before it broke: back at once */
#define DKT_BREAKS_AT_ONCE    3     /* and so are its first breaks in a row; then the back-off */
#define DKT_LOCK_RETRY_MIN_MS 5 /* the lock is held: try again after 5 to 50 ms */
#define DKT_LOCK_RETRY_MAX_MS 50
#define DKT_HOLDER_ASK_MS     100    /* and ask who holds it at most this often */
#define DKT_PARKED_MAX        4096   /* requests ahead of this worker's table, then `moved` */
#define DKT_NODE_OPEN_MAX     131072 /* requests open in one worker: two brokers' worth */
#define DKT_NODE_RECORDS_MAX  65536  /* tenants a node loop remembers, active or not */
#define DKT_SUSPECTS_MAX      1024   /* request ids of one failed group */
#define DKT_NOFILE_MIN        4096   /* a worker refuses to start below */
#define DKT_NOFILE_RESERVED   1000   /* descriptors that are no tenant's */
#define DKT_FDS_PER_TENANT    4      /* actor pipe 2, eventfd, PostgreSQL socket */
#define DKT_DRAIN_MAX_MS      5000   /* a shutdown waits this long for its actors */
#define DKT_TURNS_MAX         4      /* tenants of a worker that write unasked at the same time */
#define DKT_TURN_WAIT_MS      300    /* nobody waits longer for that: with the stagger below 2 s */

/* -- worker, wake (rule 7) -- */
#define DKT_WAKE_EARLY_MS  10000 /* activated this long before something is due */
#define DKT_WAKE_AHEAD_MAX 16    /* waiting activations above which nobody is woken: a gate full */
#define DKT_WAKE_PAUSE_MS  1000  /* after one that could not even be looked up */
#define DKT_WAKE_MARK_MS   1000  /* an active tenant's missing mark is asked for this often */
#define DKT_WAKE_STAY_MS   15000 /* nobody is passivated with something due sooner: it would wake */
#define DKT_WAKE_ROWS_MAX  1024  /* rows of the table in one query */
#define DKT_PROBE_MS       600000 /* an owner probes its unmarked tenants this often */
#define DKT_PROBES_MAX     4      /* at a time: 20,000 tenants in 10 min are 34 a second */
#define DKT_IDLE_MIN_MS    100    /* a test may shorten idle and probe times down to this */

/* -- accounts -- */
#define DKT_POOL_MAKERS 2 /* databases made at a time */
#define DKT_ACCOUNTS_RATE_PER_S 50 /* create_account per worker: crude, the quota is the broker's */
#define DKT_ACCOUNTS_BURST   100
#define DKT_ACCOUNTS_MAX     20000    /* accounts of a fleet: 7.4 MB of disk each */
#define DKT_ACCOUNT_JOBS_MAX 1024     /* commands waiting for the accounts actor */
#define DKT_ARGON2_OPS       2        /* argon2id t */
#define DKT_ARGON2_MEM_BYTES 19922944 /* argon2id m: 19 MiB */

/* clang-format on */

#endif
