/* SPDX-License-Identifier: Apache-2.0
 *
 * The worker process: reads its keys, raises its limits, starts the threads around the node loop,
 * runs it, and takes everything down in the opposite order.
 */
#include "workers/worker.h"

#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/edge/keys.h"
#include "lib/edge/log.h"
#include "workers/accounts.h"
#include "workers/admin.h"
#include "workers/context.h"
#include "workers/directory.h"
#include "workers/hasher.h"
#include "workers/node.h"
#include "workers/pool.h"
#include "workers/relay.h"
#include "workers/teller.h"

#define S_EVENTS_MAX        (1 << 20) /* answers that are open, and events of actors */
#define S_DIRECTORY_BOX_MAX (4 * DKT_NODE_RECORDS_MAX)
#define S_DECIMAL           10
#define S_IDLE_VARIABLE     "DOCKET_IDLE_MS"  /* for tests: passivation without a minute's wait */
#define S_PROBE_VARIABLE    "DOCKET_PROBE_MS" /* and the backstop without ten */
#define S_AGE_VARIABLE      "DOCKET_AGE_MS"   /* and what is old goes sooner too */
/* Rows have their own bound below it; what may not be refused, each of an actor's, fits beside. */
#define S_RELAY_BOX_MAX (DKT_RELAY_BOX_MAX + 8 * DKT_NODE_RECORDS_MAX)

static const char s_usage[] =
    "usage: docket worker --join URI --keys DIR --node NAME [--nats URL]\n"
    "                     [--ready-fd N]\n"
    "\n"
    "Hosts tenants: one worker per node. Ends cleanly on SIGTERM or SIGINT.\n"
    "  --join URI     the control database, postgresql://..\n"
    "  --keys DIR     folder with the fleet's keys\n"
    "  --node NAME    this node's name, at most 23 characters of a-z, 0-9 and -\n"
    "  --nats URL     where events, statistics and tenant context go; without it, nowhere\n"
    "  --ready-fd N   writes a line to this descriptor when it is ready\n"
    "  --help         this text\n";

typedef struct {
    const char *uri, *keys, *node, *nats;
    int ready_fd;
} s_options_t;

typedef struct {
    dkt_env_t env;
    int signal_fd;
    dkt_hasher_t *hasher;
    dkt_accounts_t *accounts;
    dkt_pool_t *pool;
    dkt_relay_thread_t *relay;
    dkt_teller_t *teller;
    dkt_admin_t *admin;
    dkt_directory_t *directory;
    dkt_context_thread_t *context;
} s_worker_t;

/* -- options -- */

/* -1: go on; otherwise the exit status. */
static int s_parse(int argc, char **argv, s_options_t *options)
{
    static const struct option rows[] = {
        {"join", required_argument, NULL, 'j'},
        {"keys", required_argument, NULL, 'k'},
        {"node", required_argument, NULL, 'n'},
        {"ready-fd", required_argument, NULL, 'r'},
        {"nats", required_argument, NULL, 'N'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int letter;
    optind = 0;
    while ((letter = getopt_long(argc, argv, "", rows, NULL)) != -1) {
        if (letter == 'j') {
            options->uri = optarg;
        } else if (letter == 'k') {
            options->keys = optarg;
        } else if (letter == 'n') {
            options->node = optarg;
        } else if (letter == 'N') {
            options->nats = optarg;
        } else if (letter == 'r') {
            options->ready_fd = (int)strtol(optarg, NULL, S_DECIMAL);
        } else {
            fputs(s_usage, letter == 'h' ? stdout : stderr);
            return letter == 'h' ? 0 : 2;
        }
    }
    size_t len = options->node ? strlen(options->node) : 0;
    bool node_ok = len > 0 && len < DKT_NODE_NAME_BYTES_MAX &&
                   strspn(options->node, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
    if (optind != argc || !options->uri || !options->keys || !node_ok) {
        fputs(s_usage, stderr);
        return 2;
    }
    return -1;
}

/* -- process -- */

/* How many tenants may be active; 0: too few descriptors to start at all. */
static uint32_t s_raise_limits(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_max < DKT_NOFILE_MIN) {
        return 0;
    }
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return 0;
    }
    rlim_t actors = (limit.rlim_max - DKT_NOFILE_RESERVED) / DKT_FDS_PER_TENANT;
    return actors < DKT_NODE_RECORDS_MAX ? (uint32_t)actors : DKT_NODE_RECORDS_MAX;
}

/* A time that the environment may shorten, not lengthen. */
static int64_t s_span_ms(const char *variable, int64_t default_ms)
{
    const char *text = getenv(variable);
    long long ms = text ? strtoll(text, NULL, S_DECIMAL) : default_ms;
    return ms >= DKT_IDLE_MIN_MS && ms < default_ms ? ms : default_ms;
}

/* Signals are blocked before any thread exists and read from a descriptor: czmq's own handler would
 * end every poller in every actor at once. */
static int s_block_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static void s_begin_zmq(void)
{
    zsys_handler_set(NULL);
    zsys_init();
    zsys_set_max_sockets(0);
}

static dkt_status_t s_read_keys(s_worker_t *self, const char *folder, dkt_err_t *err)
{
    dkt_env_t *env = &self->env;
    dkt_token_secret_t secrets[DKT_TOKEN_KEYS_MAX];
    dkt_status_t status = dkt_keys_ids(folder, &env->id_keys, err);
    if (status == DKT_OK) {
        status = dkt_keys_tokens(folder, secrets, env->token_publics, DKT_TOKEN_KEYS_MAX,
                                 &env->token_public_count, err);
        env->token_key = secrets[0];
        sodium_memzero(secrets, sizeof secrets);
    }
    if (status == DKT_OK) {
        status = dkt_keys_master(folder, env->master, err);
    }
    return status;
}

static bool s_make_boxes(dkt_env_t *env)
{
    env->node_box = dkt_mailbox_new(S_EVENTS_MAX);
    env->hasher_box = dkt_mailbox_new(DKT_HASH_QUEUE_MAX + 1);
    env->directory_box = dkt_mailbox_new(S_DIRECTORY_BOX_MAX);
    env->accounts_box = dkt_mailbox_new(DKT_ACCOUNT_JOBS_MAX);
    env->relay_box = env->nats ? dkt_mailbox_new(S_RELAY_BOX_MAX) : NULL;
    env->teller_box = env->nats ? dkt_mailbox_new(DKT_REFUSED_BOX_MAX) : NULL;
    return env->node_box && env->hasher_box && env->directory_box && env->accounts_box &&
           ((env->relay_box && env->teller_box) || !env->nats);
}

/* What operators see and say, over the bus. */
static bool s_start_bus(s_worker_t *self)
{
    dkt_env_t *env = &self->env;
    const dkt_bus_config_t config = {
        .url = env->nats, .keys = env->keys, .role = "worker", .node = env->node};
    dkt_err_t err;
    env->bus = dkt_bus_new(&config, &err);
    if (!env->bus) {
        dkt_log(DKT_LOG_ERROR, "%s", err.text);
        return false;
    }
    self->teller = dkt_teller_new(env);
    self->admin = dkt_admin_new(env);
    return self->teller && self->admin;
}

static bool s_start(s_worker_t *self)
{
    if (self->env.nats) {
        self->relay = dkt_relay_thread_new(&self->env);
        if (!self->relay || !s_start_bus(self)) {
            return false;
        }
    }
    self->context = dkt_context_thread_new(&self->env);
    self->hasher = dkt_hasher_new(&self->env);
    self->accounts = dkt_accounts_new(&self->env);
    self->pool = dkt_pool_new(&self->env);
    self->directory = dkt_directory_new(&self->env);
    return self->context && self->hasher && self->accounts && self->pool && self->directory;
}

/* What nobody waits for any more. */
static void s_empty(dkt_mailbox_t *box)
{
    dkt_mail_t *mail = box ? dkt_mailbox_drain(box) : NULL;
    while (mail) {
        dkt_mail_t *next = mail->next;
        if (mail->kind == DKT_MAIL_ENDED) {
            free(((dkt_actor_mail_t *)mail)->suspects);
        } else if (mail->kind == DKT_MAIL_HASHED || mail->kind == DKT_MAIL_HASH) {
            free(((dkt_hash_mail_t *)mail)->work);
        } else if (mail->kind == DKT_MAIL_ACCOUNT || mail->kind == DKT_MAIL_TENANT) {
            free(((dkt_command_mail_t *)mail)->work);
        } else {
            dkt_relay_mail_empty(mail);
        }
        free(mail);
        mail = next;
    }
}

static void s_stop(s_worker_t *self)
{
    dkt_env_t *env = &self->env;
    atomic_store(&env->stopping, true);
    dkt_teller_destroy(&self->teller);
    dkt_context_thread_stop(self->context);
    dkt_bus_destroy(&env->bus);
    dkt_admin_destroy(&self->admin);
    dkt_context_thread_destroy(&self->context);
    dkt_relay_thread_destroy(&self->relay);
    dkt_pool_destroy(&self->pool);
    dkt_accounts_destroy(&self->accounts);
    dkt_hasher_destroy(&self->hasher);
    dkt_directory_destroy(&self->directory);
    dkt_mailbox_t **boxes[] = {&env->node_box,     &env->hasher_box, &env->directory_box,
                               &env->accounts_box, &env->relay_box,  &env->teller_box};
    for (size_t i = 0; i < sizeof boxes / sizeof boxes[0]; i++) {
        s_empty(*boxes[i]);
        if (*boxes[i]) {
            dkt_mailbox_destroy(boxes[i]);
        }
    }
    dkt_replica_destroy(&env->replica);
    sodium_memzero(&self->env, sizeof self->env);
    if (self->signal_fd >= 0) {
        close(self->signal_fd);
    }
}

static int s_run(s_worker_t *self, const s_options_t *options)
{
    dkt_err_t err;
    uint32_t actors_max = s_raise_limits();
    if (actors_max == 0) {
        dkt_log(DKT_LOG_ERROR, "needs at least %d file descriptors (ulimit -Hn)", DKT_NOFILE_MIN);
        return 1;
    }
    if (s_read_keys(self, options->keys, &err) != DKT_OK) {
        dkt_log(DKT_LOG_ERROR, "%s", err.text);
        return 1;
    }
    self->env.uri = options->uri;
    self->env.node = options->node;
    self->env.idle_ms = s_span_ms(S_IDLE_VARIABLE, DKT_IDLE_PASSIVATE_MS);
    self->env.probe_ms = s_span_ms(S_PROBE_VARIABLE, DKT_PROBE_MS);
    self->env.age_ms = s_span_ms(S_AGE_VARIABLE, DKT_AGE_ROUND_MS);
    self->env.nats = options->nats;
    self->env.keys = options->keys;
    pthread_mutex_init(&self->env.refused_window.lock, NULL);
    dkt_worker_turns_init(&self->env.turns);
    pthread_mutex_init(&self->env.nodes.lock, NULL);
    pthread_mutex_init(&self->env.stats.clusters_lock, NULL);
    randombytes_buf(self->env.incarnation.bytes, sizeof self->env.incarnation.bytes);
    self->env.replica = dkt_replica_new();
    if (!self->env.replica || !s_make_boxes(&self->env) || !s_start(self)) {
        dkt_log(DKT_LOG_ERROR, "no memory or no threads to start with");
        return 1;
    }
    dkt_node_config_t node = {.env = &self->env,
                              .signal_fd = self->signal_fd,
                              .ready_fd = options->ready_fd,
                              .actors_max = actors_max};
    return dkt_node_run(&node);
}

int dkt_worker_main(int argc, char **argv)
{
    s_options_t options = {.ready_fd = -1};
    int status = s_parse(argc, argv, &options);
    if (status >= 0) {
        return status;
    }
    dkt_log_init("worker", options.node);
    if (sodium_init() < 0) {
        dkt_log(DKT_LOG_ERROR, "libsodium cannot start");
        return 1;
    }
    static s_worker_t self;
    self.signal_fd = s_block_signals();
    s_begin_zmq();
    status = s_run(&self, &options);
    s_stop(&self);
    zsys_shutdown();
    return status;
}
