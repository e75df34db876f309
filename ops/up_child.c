/* SPDX-License-Identifier: Apache-2.0
 *
 * One child process of `docket up`: started as the fleet's user, with its log, its pid file and the
 * folder's lock; it gets a signal when the supervisor dies.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/edge/log.h"
#include "ops/up.h"

#define S_EXIT_NOT_STARTED 127
#define S_LOG_TAIL_BYTES   2000 /* of a failed child's log, shown on stderr */

static void s_file_name(const dkt_up_child_t *child, const char *folder, const char *suffix,
                        char out[64])
{
    snprintf(out, 64, "%s/%s%s", folder, child->name, suffix);
}

static int s_open_log(const dkt_up_t *up, const dkt_up_child_t *child)
{
    char name[64], path[DKT_UP_TEXT_BYTES_MAX];
    s_file_name(child, "log", ".log", name);
    dkt_up_path(up->dir, name, path);
    int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0 && up->drop && fchown(fd, up->uid, up->gid) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

_Noreturn static void s_die(const char *what)
{
    dprintf(STDERR_FILENO, "docket up: cannot %s: %s\n", what, strerror(errno));
    _exit(S_EXIT_NOT_STARTED);
}

static void s_keep_open(int fd)
{
    if (fd >= 0) {
        fcntl(fd, F_SETFD, 0);
    }
}

static void s_set_streams(int stdin_fd, int log_fd)
{
    int input = stdin_fd >= 0 ? stdin_fd : open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (dup2(input, STDIN_FILENO) < 0 || dup2(log_fd, STDOUT_FILENO) < 0 ||
        dup2(log_fd, STDERR_FILENO) < 0) {
        _exit(S_EXIT_NOT_STARTED);
    }
}

/* In the child, up to its program; never returns. */
_Noreturn static void s_become(const dkt_up_t *up, const dkt_up_spec_t *spec, int log_fd,
                               pid_t supervisor)
{
    sigset_t none;
    sigemptyset(&none);
    signal(SIGPIPE, SIG_DFL);
    s_set_streams(spec->stdin_fd, log_fd);
    if (setpgid(0, up->guard_pid) != 0) {
        s_die("join the fleet's process group");
    }
    if (up->drop && (setgroups(0, NULL) != 0 || setgid(up->gid) != 0 || setuid(up->uid) != 0)) {
        s_die("become the fleet's user");
    }
    /* After the change of user, which would clear it; and the parent may be gone already. */
    if (prctl(PR_SET_PDEATHSIG, spec->death_signal) != 0 || getppid() != supervisor) {
        _exit(S_EXIT_NOT_STARTED);
    }
    if (chdir(up->view) != 0) {
        s_die("enter the data folder");
    }
    sigprocmask(SIG_SETMASK, &none, NULL);
    s_keep_open(up->lock_fd);
    s_keep_open(spec->pass_fd);
    if (spec->run) {
        _exit(spec->run(up));
    }
    if (spec->program) {
        execv(spec->program, (char *const *)spec->args);
        s_die(spec->program);
    }
    /* Through the descriptor: the fleet's user need not be able to reach the binary's path. */
    fexecve(up->program_fd, (char *const *)spec->args, environ);
    s_die("start docket (is the binary executable for everybody?)");
}

static void s_write_pid(const dkt_up_t *up, const dkt_up_child_t *child)
{
    char name[64], text[32];
    dkt_err_t err = {0};
    s_file_name(child, "run", ".pid", name);
    snprintf(text, sizeof text, "%ld\n", (long)child->pid);
    if (dkt_up_file_write(up, name, text, &err) != DKT_OK) {
        dkt_log(DKT_LOG_WARN, "%s: %s", child->name, err.text);
    }
}

bool dkt_up_child_spawn(dkt_up_t *up, dkt_up_child_t *child, const dkt_up_spec_t *spec)
{
    int log_fd = s_open_log(up, child);
    if (log_fd < 0) {
        dkt_log(DKT_LOG_ERROR, "%s: cannot open its log: %s", child->name, strerror(errno));
        return false;
    }
    pid_t supervisor = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        s_become(up, spec, log_fd, supervisor);
    }
    close(log_fd);
    if (pid < 0) {
        dkt_log(DKT_LOG_ERROR, "%s: cannot fork: %s", child->name, strerror(errno));
        return false;
    }
    child->pid = pid;
    child->ready = false;
    child->restart_at_ms = 0;
    child->started_ms = dkt_up_mono_ms();
    if (child->role != DKT_UP_TOOL) {
        s_write_pid(up, child);
        dkt_log(DKT_LOG_INFO, "%s: started, pid %ld", child->name, (long)pid);
    }
    return true;
}

void dkt_up_child_ended(dkt_up_t *up, dkt_up_child_t *child, int exit_status)
{
    bool expected = up->stop_signal || child->role == DKT_UP_TOOL;
    dkt_log_level_t level = expected ? DKT_LOG_INFO : DKT_LOG_WARN;
    char name[64], path[DKT_UP_TEXT_BYTES_MAX];
    if (WIFSIGNALED(exit_status)) {
        dkt_log(level, "%s: pid %ld ended by signal %d (%s)", child->name, (long)child->pid,
                WTERMSIG(exit_status), strsignal(WTERMSIG(exit_status)));
    } else if (child->role != DKT_UP_TOOL || exit_status != 0) {
        dkt_log(level, "%s: pid %ld ended with status %d", child->name, (long)child->pid,
                WEXITSTATUS(exit_status));
    }
    if (dkt_up_mono_ms() - child->started_ms >= DKT_UP_ALIVE_MS) {
        child->deaths = 0;
    }
    child->deaths++;
    child->pid = 0;
    child->ready = false;
    child->exit_status = exit_status;
    if (child->ready_fd >= 0) {
        close(child->ready_fd);
        child->ready_fd = -1;
    }
    if (child->role != DKT_UP_TOOL) {
        s_file_name(child, "run", ".pid", name);
        dkt_up_path(up->dir, name, path);
        unlink(path);
    }
}

void dkt_up_child_show_log(const dkt_up_t *up, const dkt_up_child_t *child)
{
    char tail[S_LOG_TAIL_BYTES];
    struct stat info;
    int fd = s_open_log(up, child);
    if (fd < 0 || fstat(fd, &info) != 0) {
        return;
    }
    off_t from = info.st_size > S_LOG_TAIL_BYTES ? info.st_size - S_LOG_TAIL_BYTES : 0;
    ssize_t len = pread(fd, tail, sizeof tail, from);
    close(fd);
    if (len > 0) {
        fprintf(stderr, "--- the end of %s/log/%s.log ---\n%.*s---\n", up->dir, child->name,
                (int)len, tail);
    }
}
