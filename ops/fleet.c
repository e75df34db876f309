/* SPDX-License-Identifier: Apache-2.0
 *
 * See fleet.h.
 */
#include "ops/fleet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ops/result.h"
#include "ops/up.h"

#define S_PORT_DEFAULT 7410
#define S_PORT_STEP    100
#define S_PORT_TRIES   40
#define S_PORTS        7 /* N .. N+6 */
#define S_READY_MS     90000
#define S_STOP_MS      30000 /* its processes promise 10 s; then it may be removing its folder */
#define S_LOCK_MS      15000 /* for the last process of a fleet whose supervisor was killed */
#define S_TICK_MS      100
#define S_TAIL_BYTES   4000
#define S_ARGS_FIXED   4
#define S_ARGS_MAX     (S_ARGS_FIXED + 5) /* both options and the end */

static bool s_port_free(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int one = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0) {
        return false;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    bool ok = bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return ok;
}

static int s_port_base(int wanted)
{
    if (wanted == DKT_FLEET_ANY_PORT) {
        return 0; /* it chooses by itself */
    }
    for (int i = 0; wanted == 0 && i < S_PORT_TRIES; i++) {
        int base = S_PORT_DEFAULT + i * S_PORT_STEP, count = 0;
        while (count < S_PORTS && s_port_free(base + count)) {
            count++;
        }
        if (count == S_PORTS) {
            return base;
        }
    }
    return wanted;
}

/* The child's side after fork. DOCKET_BIN lets a test put another program in the fleet's place. */
static void s_exec(const dkt_fleet_t *self, const dkt_fleet_options_t *options, int out_fd,
                   int err_fd)
{
    char port[16], workers[16];
    const char *program = getenv("DOCKET_BIN");
    const char *argv[S_ARGS_MAX] = {"docket", "up", "--port", port};
    int count = S_ARGS_FIXED;
    if (options->data) {
        argv[count++] = "--data";
        argv[count++] = options->data;
    }
    if (options->workers > 0) {
        argv[count++] = "--workers";
        argv[count++] = workers;
    }
    snprintf(workers, sizeof workers, "%d", options->workers);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    snprintf(port, sizeof port, "%d", self->port);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    dup2(out_fd, STDOUT_FILENO);
    dup2(err_fd, STDERR_FILENO);
    execv(program ? program : "/proc/self/exe", (char *const *)argv);
    dprintf(STDERR_FILENO, "cannot start the fleet: %s\n", strerror(errno));
    _exit(127);
}

static bool s_spawn(dkt_fleet_t *self, const dkt_fleet_options_t *options)
{
    int pipe_fd[2];
    if (pipe2(pipe_fd, O_CLOEXEC) != 0) {
        return false;
    }
    self->err_fd = memfd_create("docket-up-stderr", MFD_CLOEXEC);
    pid_t pid = fork();
    if (pid == 0) {
        s_exec(self, options, pipe_fd[1], self->err_fd);
    }
    close(pipe_fd[1]);
    if (pid < 0) {
        close(pipe_fd[0]);
        return false;
    }
    self->pid = pid;
    self->out_fd = pipe_fd[0];
    return true;
}

bool dkt_fleet_alive(dkt_fleet_t *self)
{
    if (self->pid > 0 && waitpid(self->pid, NULL, WNOHANG) == self->pid) {
        self->pid = 0;
    }
    return self->pid > 0;
}

/* What the fleet said on stderr, when it did not come up. */
static void s_show_stderr(const dkt_fleet_t *self)
{
    char text[S_TAIL_BYTES + 1];
    off_t end = lseek(self->err_fd, 0, SEEK_END);
    off_t start = end > S_TAIL_BYTES ? end - S_TAIL_BYTES : 0;
    ssize_t len = end > 0 ? pread(self->err_fd, text, S_TAIL_BYTES, start) : 0;
    if (len > 0) {
        text[len] = '\0';
        fprintf(stderr, "%s", text);
    }
}

/* Takes what follows ` key=` up to the next blank, and of a list the first. */
static bool s_field(const char *line, const char *key, char *out)
{
    char pattern[32];
    snprintf(pattern, sizeof pattern, " %s=", key);
    const char *at = strstr(line, pattern);
    if (!at) {
        return false;
    }
    at += strlen(pattern);
    size_t len = strcspn(at, strcmp(key, "postgres") == 0 ? " \r\n" : " ,\r\n");
    if (len == 0 || len >= DKT_FLEET_TEXT_BYTES) {
        return false;
    }
    memcpy(out, at, len);
    out[len] = '\0';
    return true;
}

static bool s_parse_ready(dkt_fleet_t *self)
{
    const struct {
        const char *key;
        char *out;
    } fields[] = {{"public", self->public_endpoint},
                  {"internal", self->internal_endpoint},
                  {"nats", self->nats},
                  {"postgres", self->postgres},
                  {"keys", self->keys}};
    const char *line = strncmp(self->line, "ready ", 6) == 0 ? self->line : NULL;
    if (!line) {
        line = strstr(self->line, "\nready ");
        line = line ? line + 1 : NULL;
    }
    if (!line || !strchr(line, '\n')) {
        return false;
    }
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (!s_field(line, fields[i].key, fields[i].out)) {
            return false;
        }
    }
    return true;
}

/* True when the ready line is complete; false: not yet. */
static bool s_read_line(dkt_fleet_t *self, size_t *len)
{
    struct pollfd item = {.fd = self->out_fd, .events = POLLIN};
    if (poll(&item, 1, S_TICK_MS) != 1) {
        return false;
    }
    ssize_t got = read(self->out_fd, self->line + *len, sizeof self->line - 1 - *len);
    *len += got > 0 ? (size_t)got : 0;
    self->line[*len] = '\0';
    return s_parse_ready(self);
}

static void s_progress(const dkt_fleet_options_t *options, bool tty, int64_t elapsed_ms)
{
    static const char wheel[] = "|/-\\";
    if (tty) {
        fprintf(options->out, "\r%c starting PostgreSQL, NATS, broker and worker ... %lld.%lld s ",
                wheel[elapsed_ms / S_TICK_MS % 4], (long long)(elapsed_ms / 1000),
                (long long)(elapsed_ms / 100 % 10));
        fflush(options->out);
    }
}

static bool s_wait_ready(dkt_fleet_t *self, const dkt_fleet_options_t *options)
{
    int64_t started_ms = dkt_mono_ms(), elapsed_ms = 0;
    bool tty = options->out && isatty(fileno(options->out)), ready = false;
    size_t len = 0;
    if (options->out && !tty) {
        fprintf(options->out, "starting a fleet on port %d ...\n", self->port);
        fflush(options->out);
    }
    while (!ready && elapsed_ms < S_READY_MS && !options->stopped() && dkt_fleet_alive(self)) {
        ready = s_read_line(self, &len);
        elapsed_ms = dkt_mono_ms() - started_ms;
        s_progress(options, tty, elapsed_ms);
    }
    if (options->out) {
        fprintf(options->out, "%s%s after %lld.%lld s\n", tty ? "\r\033[K" : "",
                ready ? "the fleet is ready" : "the fleet did not come up",
                (long long)(elapsed_ms / 1000), (long long)(elapsed_ms / 100 % 10));
    }
    return ready;
}

bool dkt_fleet_start(dkt_fleet_t *self, const dkt_fleet_options_t *options)
{
    *self = (dkt_fleet_t){.port = s_port_base(options->port), .temporary = !options->data};
    if (options->port == 0 && self->port == 0) {
        fprintf(stderr, "%s: no free ports\n", options->who);
        return false;
    }
    if (!s_spawn(self, options)) {
        fprintf(stderr, "%s: no process: %s\n", options->who, strerror(errno));
        return false;
    }
    bool ready = s_wait_ready(self, options);
    if (!ready) {
        s_show_stderr(self);
        dkt_fleet_stop(self);
    }
    return ready;
}

/* What a killed supervisor could not remove any more: many databases are many files. Its processes
 * hold the folder's lock, and its guard ends them. */
static void s_remove_folder(const dkt_fleet_t *self)
{
    char dir[DKT_FLEET_TEXT_BYTES], path[DKT_FLEET_TEXT_BYTES + 8];
    const char *end = strrchr(self->keys, '/'); /* DIR/keys */
    int64_t end_ms = dkt_mono_ms() + S_LOCK_MS;
    if (!self->temporary || !end) {
        return;
    }
    snprintf(dir, sizeof dir, "%.*s", (int)(end - self->keys), self->keys);
    snprintf(path, sizeof path, "%s/lock", dir);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && dkt_mono_ms() < end_ms) {
        poll(NULL, 0, S_TICK_MS);
    }
    if (fd >= 0) {
        close(fd);
    }
    dkt_up_tree_remove(dir);
}

void dkt_fleet_stop(dkt_fleet_t *self)
{
    int64_t end_ms = dkt_mono_ms() + S_STOP_MS;
    if (self->pid > 0) {
        kill(self->pid, SIGTERM);
    }
    while (dkt_fleet_alive(self)) {
        poll(NULL, 0, S_TICK_MS / 2);
        if (dkt_mono_ms() > end_ms) {
            /* Its guard process ends what it leaves behind. */
            kill(self->pid, SIGKILL);
            waitpid(self->pid, NULL, 0);
            self->pid = 0;
            s_remove_folder(self);
        }
    }
    if (self->out_fd > 0) {
        close(self->out_fd);
        self->out_fd = 0;
    }
    if (self->err_fd > 0) {
        close(self->err_fd);
        self->err_fd = 0;
    }
}
