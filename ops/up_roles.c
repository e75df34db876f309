/* SPDX-License-Identifier: Apache-2.0
 *
 * What the children of `docket up` are: programs, arguments, settings, and how to see that they
 * serve. Settings are written at each start, so that a new version brings its own.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <libpq-fe.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/edge/control.h"
#include "lib/edge/keys.h"
#include "lib/edge/log.h"
#include "ops/up.h"

#define S_PORT_STEP       10 /* from broker to broker */
#define S_OFFSET_NATS     2
#define S_OFFSET_POSTGRES 3
#define S_OFFSET_WEB      5
#define S_OFFSET_WORKERS  6
#define S_PROBE_MS        200
#define S_ARG_TEXTS_MAX   10
#define S_FILE_BYTES_MAX  8192

static int s_port(const dkt_up_t *up, int offset)
{
    return up->options.port + offset;
}

/* The arguments' texts live until the next child is started: fork copies them. */
static char s_texts[S_ARG_TEXTS_MAX][DKT_UP_TEXT_BYTES_MAX];

void dkt_up_control_uri(const dkt_up_t *up, const char *dir, char out[DKT_UP_TEXT_BYTES_MAX])
{
    snprintf(out, DKT_UP_TEXT_BYTES_MAX,
             "postgresql://docket@127.0.0.1:%d/docket_control?passfile=%s/keys/pgpass",
             s_port(up, S_OFFSET_POSTGRES), dir);
}

void dkt_up_addresses(const dkt_up_t *up, int offset, char out[DKT_UP_TEXT_BYTES_MAX])
{
    size_t len = 0;
    out[0] = '\0';
    for (int i = 0; i < up->options.brokers; i++) {
        len += (size_t)snprintf(out + len, DKT_UP_TEXT_BYTES_MAX - len, "%stcp://127.0.0.1:%d",
                                i ? "," : "", s_port(up, i * S_PORT_STEP + offset));
    }
}

/* -- children ---------------------------------------------------------------------------------- */

static void s_add_child(dkt_up_t *up, dkt_up_role_t role, const char *role_name, int index)
{
    dkt_up_child_t *child = &up->children[up->child_count++];
    child->role = role;
    child->index = index;
    child->ready_fd = -1;
    snprintf(child->name, sizeof child->name, "%s-%d", role_name, index);
}

void dkt_up_children_fill(dkt_up_t *up)
{
    s_add_child(up, DKT_UP_POSTGRES, "postgres", 0);
    s_add_child(up, DKT_UP_NATS, "nats", 0);
    for (int i = 0; i < up->options.brokers; i++) {
        s_add_child(up, DKT_UP_BROKER, "broker", i);
    }
    for (int i = 0; i < up->options.workers; i++) {
        s_add_child(up, DKT_UP_WORKER, "worker", i);
    }
}

static void s_args_postgres(const dkt_up_t *up, const dkt_up_child_t *child, dkt_up_spec_t *spec)
{
    (void)child;
    dkt_up_path(up->view, "pg", s_texts[0]);
    spec->program = DKT_UP_PG_BIN "/postgres";
    spec->death_signal = SIGINT;   /* its fast shutdown */
    spec->args[0] = spec->program; /* it finds its own files by this path */
    spec->args[1] = "-D";
    spec->args[2] = s_texts[0];
}

static void s_args_nats(const dkt_up_t *up, const dkt_up_child_t *child, dkt_up_spec_t *spec)
{
    (void)child;
    dkt_up_path(up->view, "nats.conf", s_texts[0]);
    spec->program = "/usr/sbin/nats-server";
    if (access(spec->program, X_OK) != 0) {
        spec->program = "/usr/local/bin/nats-server";
    }
    spec->args[0] = "nats-server";
    spec->args[1] = "-c";
    spec->args[2] = s_texts[0];
}

/* What brokers and workers have in common; returns how many arguments there are. */
static int s_args_node(const dkt_up_t *up, const dkt_up_child_t *child, dkt_up_spec_t *spec)
{
    dkt_up_control_uri(up, up->view, s_texts[0]);
    dkt_up_path(up->view, "keys", s_texts[1]);
    snprintf(s_texts[2], sizeof s_texts[2], "%d", spec->pass_fd);
    /* Through fexecve argv[0] is ours to choose: it names the role in `ps`. */
    const char *const args[] = {"docket",     child->role == DKT_UP_BROKER ? "broker" : "worker",
                                "--join",     s_texts[0],
                                "--keys",     s_texts[1],
                                "--node",     child->name,
                                "--ready-fd", s_texts[2],
                                "--nats",     s_texts[3]};
    snprintf(s_texts[3], sizeof s_texts[3], "nats://127.0.0.1:%d", s_port(up, S_OFFSET_NATS));
    int count = (int)(sizeof args / sizeof args[0]);
    memcpy(spec->args, args, sizeof args);
    return count;
}

static void s_args_worker(const dkt_up_t *up, const dkt_up_child_t *child, dkt_up_spec_t *spec)
{
    (void)s_args_node(up, child, spec);
}

static void s_args_broker(const dkt_up_t *up, const dkt_up_child_t *child, dkt_up_spec_t *spec)
{
    static const struct {
        const char *option;
        int offset;
    } sides[] = {{"--public", 0}, {"--internal", 1}, {"--workers", S_OFFSET_WORKERS}};
    int count = s_args_node(up, child, spec);
    for (int i = 0; i < 3; i++) {
        char *text = s_texts[4 + i];
        snprintf(text, sizeof s_texts[0], "tcp://127.0.0.1:%d",
                 s_port(up, child->index * S_PORT_STEP + sides[i].offset));
        spec->args[count++] = sides[i].option;
        spec->args[count++] = text;
    }
    if (up->options.insecure_dev) {
        spec->args[count++] = "--insecure-dev";
    }
}

bool dkt_up_child_start(dkt_up_t *up, dkt_up_child_t *child)
{
    static const struct {
        void (*fill)(const dkt_up_t *up, const dkt_up_child_t *child, dkt_up_spec_t *spec);
        bool reports; /* says on a pipe that it is ready */
    } roles[] = {
        [DKT_UP_POSTGRES] = {s_args_postgres, false},
        [DKT_UP_NATS] = {s_args_nats, false},
        [DKT_UP_BROKER] = {s_args_broker, true},
        [DKT_UP_WORKER] = {s_args_worker, true},
    };
    int ends[2] = {-1, -1};
    if (roles[child->role].reports && pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        return false;
    }
    dkt_up_spec_t spec = {.death_signal = SIGTERM, .stdin_fd = -1, .pass_fd = ends[1]};
    roles[child->role].fill(up, child, &spec);
    bool started = dkt_up_child_spawn(up, child, &spec);
    if (ends[1] >= 0) {
        close(ends[1]);
    }
    if (started) {
        child->ready_fd = ends[0];
    } else if (ends[0] >= 0) {
        close(ends[0]);
    }
    return started;
}

/* -- PostgreSQL -------------------------------------------------------------------------------- */

/* Page "Reliability" says why for each; {port} is the only part that changes. */
static const char s_postgres_settings[] =
    "# Written by docket up at each start. Settings of your own go into postgresql.conf below\n"
    "# the line that includes this file.\n"
    "listen_addresses = '127.0.0.1'\n"
    "port = %d\n"
    "cluster_name = 'docket-%d'\n"
    "unix_socket_directories = ''\n"
    "max_connections = %d\n"
    "superuser_reserved_connections = 5\n"
    "password_encryption = 'scram-sha-256'\n"
    "fsync = on\n"
    "full_page_writes = on\n"
    "synchronous_commit = on\n"
    "recovery_init_sync_method = syncfs\n"
    "dynamic_shared_memory_type = mmap\n" /* in the folder: gone with it, also after kill -9 */
    "restart_after_crash = on\n"
    /* The defaults make room for 64 locks of each session: 80,000 places, and every look at the
     * directory's locks walks through all of them. A session of ours has a handful. */
    "max_locks_per_transaction = 16\n"
    "max_pred_locks_per_transaction = 10\n"
    /* A new segment of the log is 16 MB of zeros and an fsync, for which every commit waits: 25 to
     * 80 ms, twice a second at full load. Those that a checkpoint frees are used again instead. */
    "min_wal_size = 1GB\n"
    "max_wal_size = 2GB\n"
    /* A new tenant's database is 7.5 MB of pages and of WAL, and twenty stand ready: in the default
     * of 128 MB the sessions write pages out themselves. Memory is taken as it is touched. */
    "shared_buffers = 512MB\n"
    "wal_compression = lz4\n"
    "autovacuum_naptime = 15min\n"
    "client_connection_check_interval = 1000\n"
    "tcp_keepalives_idle = 1\n"
    "tcp_keepalives_interval = 1\n"
    "tcp_keepalives_count = 3\n"
    "tcp_user_timeout = 3000\n"
    "jit = off\n"
    "timezone = 'UTC'\n"
    "log_timezone = 'UTC'\n"
    "log_destination = 'stderr'\n"
    "logging_collector = off\n"
    "log_line_prefix = '%%m [%%p] %%a %%d '\n";

/* Makes the cluster under another name first: one that was half made is never taken for a whole. */
static dkt_status_t s_initdb(dkt_up_t *up, dkt_err_t *err)
{
    char fresh[DKT_UP_TEXT_BYTES_MAX], final[DKT_UP_TEXT_BYTES_MAX], keys[DKT_UP_TEXT_BYTES_MAX];
    char password[DKT_ROLE_PASSWORD_BYTES], conf[DKT_UP_TEXT_BYTES_MAX];
    int ends[2];
    dkt_up_path(up->dir, "pg.new", fresh);
    dkt_up_path(up->dir, "pg", final);
    dkt_up_path(up->dir, "keys", keys);
    dkt_up_path(up->dir, "pg.new/postgresql.conf", conf);
    dkt_up_tree_remove(fresh);
    dkt_status_t status = dkt_keys_admin_password(keys, password, err);
    if (status != DKT_OK) {
        return status;
    }
    /* The password goes through a pipe: it is in no file but ours and in no list of processes.
     * initdb opens it by name, so it must own it. */
    if (pipe2(ends, O_CLOEXEC) != 0 || dprintf(ends[1], "%s\n", password) < 0 ||
        (up->drop && fchown(ends[0], up->uid, up->gid) != 0)) {
        return dkt_fail(err, DKT_INTERNAL, NULL, "no pipe for initdb");
    }
    close(ends[1]);
    dkt_up_path(up->view, "pg.new", s_texts[0]);
    dkt_up_spec_t spec = {
        .program = DKT_UP_PG_BIN "/initdb",
        .args = {DKT_UP_PG_BIN "/initdb", "-D", s_texts[0], "-U", "docket", "-k",
                 "--pwfile=/dev/stdin", "--auth-host=scram-sha-256", "--auth-local=reject",
                 "--encoding=UTF8", "--locale=C", "--no-instructions"},
        .death_signal = SIGKILL,
        .stdin_fd = ends[0],
        .pass_fd = -1,
    };
    status = dkt_up_tool_run(up, "initdb", &spec, err);
    close(ends[0]);
    if (status != DKT_OK) {
        return status;
    }
    int fd = open(conf, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
    bool good = fd >= 0 && dprintf(fd, "\ninclude_if_exists 'docket.conf'\n") > 0;
    if (fd >= 0) {
        close(fd);
    }
    if (!good || rename(fresh, final) != 0) {
        return dkt_fail(err, DKT_INTERNAL, NULL, "cannot finish the new cluster in %s", final);
    }
    return DKT_OK;
}

dkt_status_t dkt_up_postgres_init(dkt_up_t *up, dkt_err_t *err)
{
    char path[DKT_UP_TEXT_BYTES_MAX], text[S_FILE_BYTES_MAX];
    int port = s_port(up, S_OFFSET_POSTGRES);
    if (access(DKT_UP_PG_BIN "/postgres", X_OK) != 0) {
        return dkt_fail(err, DKT_NOT_FOUND, NULL, "PostgreSQL 15 is not in %s: make deps",
                        DKT_UP_PG_BIN);
    }
    dkt_up_path(up->dir, "pg/PG_VERSION", path);
    if (access(path, F_OK) != 0) {
        dkt_status_t status = s_initdb(up, err);
        if (status != DKT_OK) {
            return status;
        }
    }
    /* We hold the folder's lock, so no process of an older fleet lives: after a kill -9 this file
     * names a pid that may belong to a stranger by now, and PostgreSQL would refuse to start. */
    dkt_up_path(up->dir, "pg/postmaster.pid", path);
    unlink(path);
    snprintf(text, sizeof text, s_postgres_settings, port, port, DKT_UP_PG_CONNECTIONS);
    return dkt_up_file_write(up, "pg/docket.conf", text, err);
}

static bool s_probe_postgres(const dkt_up_t *up)
{
    char port[16];
    snprintf(port, sizeof port, "%d", s_port(up, S_OFFSET_POSTGRES));
    const char *const names[] = {"host",       "port", "connect_timeout", "dbname", "sslmode",
                                 "gssencmode", NULL};
    const char *const values[] = {"127.0.0.1", port, "2", "postgres", "disable", "disable", NULL};
    return PQpingParams(names, values, 0) == PQPING_OK;
}

static int s_run_bootstrap(const dkt_up_t *up)
{
    char uri[DKT_UP_TEXT_BYTES_MAX], keys[DKT_UP_TEXT_BYTES_MAX];
    dkt_err_t err = {0};
    dkt_up_control_uri(up, up->view, uri);
    dkt_up_path(up->view, "keys", keys);
    if (dkt_control_bootstrap(uri, keys, &err) != DKT_OK) {
        dkt_log(DKT_LOG_ERROR, "control database: %s", err.text);
        return 1;
    }
    return 0;
}

/* In a process of its own: it blocks for seconds, and a signal must be heard meanwhile. */
dkt_status_t dkt_up_bootstrap(dkt_up_t *up, dkt_err_t *err)
{
    dkt_up_spec_t spec = {
        .run = s_run_bootstrap, .death_signal = SIGKILL, .stdin_fd = -1, .pass_fd = -1};
    return dkt_up_tool_run(up, "bootstrap", &spec, err);
}

/* -- NATS -------------------------------------------------------------------------------------- */

/* Who may say and hear what. Workers write the streams, operators read them; a broker hears tenant
 * context and what operators ask, and answers. */
#define S_NATS_READ_API                                                                            \
    "\"$JS.API.INFO\", \"$JS.API.STREAM.NAMES\", \"$JS.API.STREAM.LIST\", "                        \
    "\"$JS.API.STREAM.INFO.*\", \"$JS.API.STREAM.MSG.GET.*\", \"$JS.API.DIRECT.GET.>\", "          \
    "\"$JS.API.CONSUMER.>\", \"$JS.ACK.>\", \"$JS.FC.>\", \"_INBOX.>\""
#define S_NATS_HEAR_ALL "\"docket.>\", \"$SRV.>\", \"_INBOX.>\""

static const struct {
    const char *role;
    const char *publish, *subscribe;
} s_nats_users[] = {
    {"worker", "\"docket.>\", \"$JS.API.>\", \"$JS.ACK.>\", \"$JS.FC.>\", \"$SRV.>\", \"_INBOX.>\"",
     S_NATS_HEAR_ALL},
    {"broker", "\"docket.stats.broker.*\", \"_INBOX.>\"",
     "\"docket.ctx.>\", \"docket.admin.>\", \"$SRV.>\", \"_INBOX.>\""},
    {"ops", "\"docket.admin.>\", \"$SRV.>\", " S_NATS_READ_API, S_NATS_HEAR_ALL},
};

static const char s_nats_head[] =
    "# Written by docket up at each start.\n"
    "server_name: \"docket-%d\"\n"
    "listen: \"127.0.0.1:%d\"\n"
    "websocket { listen: \"127.0.0.1:%d\", no_tls: true, compression: false }\n"
    "jetstream { store_dir: \"%s/nats\", max_memory_store: 67108864, "
    "max_file_store: 4294967296 }\n"
    "max_payload: 1048576\n"
    "logtime: true\n"
    "accounts { DOCKET { jetstream: enabled, users: [\n";

static const char s_nats_user[] = "  { nkey: %s, permissions: {\n"
                                  "      publish: { allow: [%s] },\n"
                                  "      subscribe: { allow: [%s] } } }\n";

dkt_status_t dkt_up_nats_configure(const dkt_up_t *up, dkt_err_t *err)
{
    char text[S_FILE_BYTES_MAX], keys[DKT_UP_TEXT_BYTES_MAX];
    dkt_nats_key_t key;
    int port = s_port(up, S_OFFSET_NATS);
    dkt_up_path(up->dir, "keys", keys);
    int len =
        snprintf(text, sizeof text, s_nats_head, port, port, s_port(up, S_OFFSET_WEB), up->view);
    for (unsigned i = 0; i < sizeof s_nats_users / sizeof s_nats_users[0]; i++) {
        dkt_status_t status = dkt_keys_nats(keys, s_nats_users[i].role, &key, err);
        if (status != DKT_OK) {
            return status;
        }
        len += snprintf(text + len, sizeof text - (size_t)len, s_nats_user, key.public_key,
                        s_nats_users[i].publish, s_nats_users[i].subscribe);
    }
    sodium_memzero(&key, sizeof key);
    snprintf(text + len, sizeof text - (size_t)len, "] } }\n");
    return dkt_up_file_write(up, "nats.conf", text, err);
}

/* The server speaks first: INFO, as soon as it serves. */
static bool s_probe_nats(const dkt_up_t *up)
{
    char text[5] = "";
    struct timeval bound = {.tv_usec = S_PROBE_MS * 1000};
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)s_port(up, S_OFFSET_NATS)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof bound);
    bool serves = connect(fd, (const struct sockaddr *)&address, sizeof address) == 0 &&
                  recv(fd, text, sizeof text - 1, MSG_WAITALL) == sizeof text - 1 &&
                  strcmp(text, "INFO") == 0;
    close(fd);
    return serves;
}

bool dkt_up_child_probe(const dkt_up_t *up, dkt_up_child_t *child)
{
    if (!child->pid) {
        return false;
    }
    if (child->role == DKT_UP_POSTGRES) {
        child->ready = s_probe_postgres(up);
    } else if (child->role == DKT_UP_NATS) {
        child->ready = s_probe_nats(up);
    }
    return child->ready;
}
