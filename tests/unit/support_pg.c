/* SPDX-License-Identifier: Apache-2.0 */
#include "support_pg.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ftw.h>
#include <glob.h>
#include <grp.h>
#include <netinet/in.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The header that has assert-like macros for tests aborts the one test; here the process ends. */
#define S_REQUIRE(condition)                                                                       \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s failed\n", __FILE__, __LINE__, #condition);                 \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define S_BIN            "/usr/lib/postgresql/15/bin/"
#define S_START_POLLS    600 /* of 50 ms: half a minute for initdb and start on a busy machine */
#define S_START_POLL_NS  50000000
#define S_SQL_BYTES_MAX  1048576
#define S_FILES_OPEN_MAX 16

struct support_pg {
    pid_t keeper;
    int life; /* the keeper ends everything when this end of the pipe is closed */
    uint16_t port;
    char dir[64];
    char conninfo[96];
};

uint16_t support_free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    S_REQUIRE(fd >= 0);
    S_REQUIRE(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    S_REQUIRE(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    close(fd);
    return ntohs(address.sin_port);
}

/* -- keeper: runs as postgres, never returns -----------------------------------------------------
 */

static int s_remove_one(const char *path, const struct stat *info, int kind, struct FTW *ftw)
{
    (void)info;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static pid_t s_spawn(const char *log, char *const argv[])
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGQUIT);
        if (!freopen(log, "a", stdout) || dup2(STDOUT_FILENO, STDERR_FILENO) < 0) {
            _exit(126);
        }
        execv(argv[0], argv);
        _exit(127);
    }
    return pid;
}

static void s_keep(const support_pg_t *self, int life, bool durable)
{
    char data[80], log[80], port[8];
    snprintf(data, sizeof data, "%s/data", self->dir);
    snprintf(log, sizeof log, "%s/log", self->dir);
    snprintf(port, sizeof port, "%u", self->port);
    char *init[] = {S_BIN "initdb",
                    "-D",
                    data,
                    "-U",
                    "postgres",
                    "-A",
                    "trust",
                    "-E",
                    "UTF8",
                    "--locale=C.UTF-8",
                    "--no-sync",
                    "--no-instructions",
                    NULL};
    char *serve[] = {S_BIN "postgres",
                     "-D",
                     data,
                     "-p",
                     port,
                     "-c",
                     "listen_addresses=127.0.0.1",
                     "-c",
                     "unix_socket_directories=",
                     "-c",
                     durable ? "fsync=on" : "fsync=off",
                     "-c",
                     "max_connections=50",
                     "-c",
                     "shared_buffers=64MB",
                     "-c",
                     "log_line_prefix=%m [%p] %a ",
                     NULL};
    int status = 1;
    pid_t server = -1;
    pid_t initdb = s_spawn(log, init);
    if (initdb > 0 && waitpid(initdb, &status, 0) == initdb && status == 0) {
        server = s_spawn(log, serve);
    }
    char byte;
    while (read(life, &byte, 1) < 0 && errno == EINTR) {
    }
    if (server > 0) {
        kill(server, SIGQUIT);
        waitpid(server, &status, 0);
    }
    nftw(self->dir, s_remove_one, S_FILES_OPEN_MAX, FTW_DEPTH | FTW_PHYS);
    _exit(0);
}

static void s_become_postgres(const struct passwd *user)
{
    if (user && (initgroups(user->pw_name, user->pw_gid) != 0 || setgid(user->pw_gid) != 0 ||
                 setuid(user->pw_uid) != 0)) {
        _exit(125);
    }
}

static void s_start_keeper(support_pg_t *self, bool durable)
{
    const struct passwd *user = geteuid() == 0 ? getpwnam("postgres") : NULL;
    S_REQUIRE(user || geteuid() != 0);
    snprintf(self->dir, sizeof self->dir, "/tmp/docket-pg-XXXXXX");
    S_REQUIRE(mkdtemp(self->dir));
    S_REQUIRE(!user || chown(self->dir, user->pw_uid, user->pw_gid) == 0);
    int ends[2];
    S_REQUIRE(pipe(ends) == 0);
    fflush(NULL);
    self->keeper = fork();
    S_REQUIRE(self->keeper >= 0);
    if (self->keeper == 0) {
        /* Signals to the group of the test (Ctrl-C, a time limit) must not stop the cleaning up;
         * and nothing of the test may stay open here, above all no other keeper's pipe. */
        setsid();
        int life = dup2(ends[0], 3);
        close_range(4, ~0U, 0);
        s_become_postgres(user);
        s_keep(self, life, durable);
    }
    close(ends[0]);
    self->life = ends[1];
}

/* -- the test's side ------------------------------------------------------------------------------
 */

PGconn *support_pg_connect(const support_pg_t *self, const char *database, const char *user)
{
    char info[256];
    snprintf(info, sizeof info, "host=127.0.0.1 port=%u dbname=%s user=%s", self->port, database,
             user ? user : "postgres");
    PGconn *conn = PQconnectdb(info);
    if (PQstatus(conn) != CONNECTION_OK) {
        fprintf(stderr, "%s", PQerrorMessage(conn));
    }
    S_REQUIRE(PQstatus(conn) == CONNECTION_OK);
    return conn;
}

void support_pg_exec(PGconn *conn, const char *sql)
{
    PGresult *result = PQexec(conn, sql);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
        fprintf(stderr, "%s", PQerrorMessage(conn));
    }
    S_REQUIRE(status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK);
    PQclear(result);
}

void support_pg_text(PGconn *conn, const char *sql, char *out, size_t size)
{
    PGresult *result = PQexec(conn, sql);
    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        fprintf(stderr, "%s", PQerrorMessage(conn));
    }
    S_REQUIRE(PQresultStatus(result) == PGRES_TUPLES_OK);
    snprintf(out, size, "%s", PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "");
    PQclear(result);
}

int64_t support_pg_int(PGconn *conn, const char *sql)
{
    char text[32];
    support_pg_text(conn, sql, text, sizeof text);
    S_REQUIRE(text[0] != '\0');
    return strtoll(text, NULL, 10);
}

static void s_wait_ready(const support_pg_t *self)
{
    char info[128];
    snprintf(info, sizeof info, "%s dbname=postgres", self->conninfo);
    for (int i = 0; i < S_START_POLLS; i++) {
        if (PQping(info) == PQPING_OK) {
            return;
        }
        nanosleep(&(struct timespec){.tv_nsec = S_START_POLL_NS}, NULL);
    }
    fprintf(stderr, "PostgreSQL did not start, see %s/log\n", self->dir);
    abort();
}

/* Runs one migration file as one PQexec, so as one transaction. */
static void s_apply(PGconn *conn, const char *path)
{
    char *sql = calloc(1, S_SQL_BYTES_MAX);
    FILE *file = fopen(path, "r");
    S_REQUIRE(sql && file);
    size_t len = fread(sql, 1, S_SQL_BYTES_MAX - 1, file);
    S_REQUIRE(len > 0 && feof(file));
    fclose(file);
    support_pg_exec(conn, sql);
    free(sql);
}

static void s_make_template(support_pg_t *self)
{
    PGconn *conn = support_pg_connect(self, "postgres", NULL);
    support_pg_exec(conn, "create database docket_template");
    PGconn *template = support_pg_connect(self, "docket_template", NULL);
    glob_t files;
    S_REQUIRE(glob(DKT_SOURCE_DIR "/schemas/tenant/*.sql", 0, NULL, &files) == 0);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        char entry[160];
        s_apply(template, files.gl_pathv[i]);
        snprintf(entry, sizeof entry,
                 "insert into schema_version (version, min_reader) values (%d, 1)"
                 " on conflict do nothing",
                 atoi(strrchr(files.gl_pathv[i], '/') + 1));
        support_pg_exec(template, entry);
    }
    globfree(&files);
    PQfinish(template);
    support_pg_exec(conn, "alter database docket_template allow_connections false");
    PQfinish(conn);
}

support_pg_t *support_pg_start(bool durable)
{
    support_pg_t *self = calloc(1, sizeof *self);
    S_REQUIRE(self);
    self->port = support_free_port();
    snprintf(self->conninfo, sizeof self->conninfo, "host=127.0.0.1 port=%u user=postgres",
             self->port);
    s_start_keeper(self, durable);
    s_wait_ready(self);
    s_make_template(self);
    return self;
}

void support_pg_stop(support_pg_t **self_p)
{
    support_pg_t *self = *self_p;
    if (self) {
        close(self->life);
        waitpid(self->keeper, NULL, 0);
        free(self);
        *self_p = NULL;
    }
}

uint16_t support_pg_port(const support_pg_t *self)
{
    return self->port;
}

const char *support_pg_conninfo(const support_pg_t *self)
{
    return self->conninfo;
}

void support_pg_tenant(support_pg_t *self, const char *name)
{
    char sql[512];
    PGconn *conn = support_pg_connect(self, "postgres", NULL);
    snprintf(sql, sizeof sql, "create role %s login in role docket_tenant", name);
    support_pg_exec(conn, sql);
    snprintf(sql, sizeof sql, "create database %s template docket_template", name);
    support_pg_exec(conn, sql);
    snprintf(sql, sizeof sql, "revoke all on database %s from public", name);
    support_pg_exec(conn, sql);
    snprintf(sql, sizeof sql, "grant connect on database %s to %s", name, name);
    support_pg_exec(conn, sql);
    PQfinish(conn);
}
