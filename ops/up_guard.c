/* SPDX-License-Identifier: Apache-2.0
 *
 * The guard: a small process that only waits for the supervisor's end. Every child gets SIGTERM
 * from the kernel when the supervisor dies; one that hangs or is stopped would stay for ever. All
 * children are in the guard's process group, and hold the folder's lock. So the guard waits until
 * the lock is free, kills the group if that takes too long, and removes a temporary folder.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ops/up.h"

#define S_POLL_MS 50

static bool s_all_gone(const char *lock_path)
{
    int fd = open(lock_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    bool gone = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return gone;
}

static void s_wait_gone(const char *lock_path, int64_t bound_ms)
{
    int64_t until = dkt_up_mono_ms() + bound_ms;
    while (!s_all_gone(lock_path) && dkt_up_mono_ms() < until) {
        usleep(S_POLL_MS * 1000);
    }
}

static void s_guard(const dkt_up_t *up, int pipe_fd)
{
    char lock_path[DKT_UP_TEXT_BYTES_MAX], byte;
    dkt_up_path(up->dir, "lock", lock_path);
    while (read(pipe_fd, &byte, 1) < 0 && errno == EINTR) {
    }
    s_wait_gone(lock_path, DKT_UP_GUARD_MS);
    /* The last kill takes this process too: what comes after it needs a process outside. */
    pid_t group = getpgrp();
    if (fork() == 0) {
        setsid();
        kill(-group, SIGKILL);
        s_wait_gone(lock_path, DKT_UP_GUARD_MS);
        if (up->temporary) {
            dkt_up_tree_remove(up->dir);
        }
        _exit(0);
    }
}

dkt_status_t dkt_up_guard_start(dkt_up_t *up, dkt_err_t *err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return dkt_fail(err, DKT_INTERNAL, NULL, "no pipe: %s", strerror(errno));
    }
    pid_t pid = fork();
    if (pid < 0) {
        return dkt_fail(err, DKT_INTERNAL, NULL, "cannot fork: %s", strerror(errno));
    }
    if (pid == 0) {
        /* Nothing that somebody waits on to end: not the terminal, not the lock. */
        setpgid(0, 0);
        prctl(PR_SET_NAME, "docket-guard");
        int null_fd = open("/dev/null", O_RDWR);
        for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
            dup2(null_fd, fd);
        }
        close(ends[1]);
        close(up->lock_fd);
        dkt_up_ports_release(up);
        s_guard(up, ends[0]);
        _exit(0);
    }
    setpgid(pid, pid);
    close(ends[0]);
    up->guard_fd = ends[1];
    up->guard_pid = pid;
    return DKT_OK;
}

void dkt_up_guard_stop(dkt_up_t *up)
{
    if (up->guard_pid <= 0) {
        return;
    }
    kill(up->guard_pid, SIGKILL);
    while (waitpid(up->guard_pid, NULL, 0) < 0 && errno == EINTR) {
    }
    up->guard_pid = 0;
}
