/* SPDX-License-Identifier: Apache-2.0
 *
 * The loop of `docket up`: one thread, one poll over the signal descriptor and the ready pipes.
 * Whatever waits here, waits in dkt_up_pump with a bound, and ends at once when a signal asks to.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/edge/log.h"
#include "ops/up.h"

#define S_PROBE_MS 25    /* between two questions to a server that starts */
#define S_IDLE_MS  60000 /* nothing to do: woken by signals only */
#define S_STOP_MS  20    /* between two looks at a child that is to end */

dkt_status_t dkt_up_watch_open(dkt_up_t *up, dkt_err_t *err)
{
    struct sigaction hangup;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    /* Under nohup it stays ignored: a blocked signal would be queued all the same. */
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) {
        sigaddset(&set, SIGHUP);
    }
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    up->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (up->signal_fd < 0) {
        return dkt_fail(err, DKT_INTERNAL, NULL, "no signalfd: %s", strerror(errno));
    }
    up->tool.ready_fd = -1;
    return DKT_OK;
}

static dkt_up_child_t *s_child_of_pid(dkt_up_t *up, pid_t pid)
{
    if (up->tool.pid == pid) {
        return &up->tool;
    }
    for (int i = 0; i < up->child_count; i++) {
        if (up->children[i].pid == pid) {
            return &up->children[i];
        }
    }
    return NULL;
}

/* 100 ms, doubling with every death in a row, to 5 s. */
static int64_t s_backoff_ms(int deaths)
{
    int64_t wait = DKT_UP_BACKOFF_MIN_MS;
    for (int i = 1; i < deaths && wait < DKT_UP_BACKOFF_MAX_MS; i++) {
        wait *= 2;
    }
    return wait < DKT_UP_BACKOFF_MAX_MS ? wait : DKT_UP_BACKOFF_MAX_MS;
}

static void s_plan_restart(dkt_up_t *up, dkt_up_child_t *child)
{
    if (!up->started || up->stop_signal || child->role == DKT_UP_TOOL) {
        return;
    }
    if (up->options.no_restart) {
        dkt_log(DKT_LOG_ERROR, "%s died, and --no-restart was given: stopping", child->name);
        up->broken = true;
        return;
    }
    int64_t wait = s_backoff_ms(child->deaths);
    child->restart_at_ms = dkt_up_mono_ms() + wait;
    dkt_log(DKT_LOG_INFO, "%s: restart in %lld ms", child->name, (long long)wait);
}

static void s_reap(dkt_up_t *up)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        dkt_up_child_t *child = s_child_of_pid(up, pid);
        if (child) {
            dkt_up_child_ended(up, child, status);
            s_plan_restart(up, child);
        } else if (pid == up->guard_pid) {
            dkt_log(DKT_LOG_ERROR, "the guard (pid %ld) was killed: stopping", (long)pid);
            up->guard_pid = 0;
            up->broken = true;
        }
    }
}

static void s_take_signals(dkt_up_t *up)
{
    struct signalfd_siginfo info;
    while (read(up->signal_fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo != SIGCHLD && !up->stop_signal) {
            up->stop_signal = (int)info.ssi_signo;
            dkt_log(DKT_LOG_INFO, "%s: stopping", strsignal(up->stop_signal));
        }
    }
}

/* One byte says that a broker or worker serves; the pipe has then done its work. */
static void s_take_ready(dkt_up_child_t *child)
{
    char text[16];
    ssize_t len = read(child->ready_fd, text, sizeof text);
    if (len < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (len > 0) {
        child->ready = true;
        dkt_log(DKT_LOG_INFO, "%s: ready after %lld ms", child->name,
                (long long)(dkt_up_mono_ms() - child->started_ms));
    }
    close(child->ready_fd);
    child->ready_fd = -1;
}

void dkt_up_pump(dkt_up_t *up, int64_t timeout_ms)
{
    struct pollfd items[1 + DKT_UP_CHILDREN_MAX];
    dkt_up_child_t *owners[1 + DKT_UP_CHILDREN_MAX];
    nfds_t count = 1;
    items[0] = (struct pollfd){.fd = up->signal_fd, .events = POLLIN};
    for (int i = 0; i < up->child_count; i++) {
        if (up->children[i].ready_fd >= 0) {
            owners[count] = &up->children[i];
            items[count++] = (struct pollfd){.fd = up->children[i].ready_fd, .events = POLLIN};
        }
    }
    int due = poll(items, count, timeout_ms > 0 ? (int)timeout_ms : 0);
    for (nfds_t i = 1; due > 0 && i < count; i++) {
        if (items[i].revents) {
            s_take_ready(owners[i]);
        }
    }
    s_take_signals(up);
    s_reap(up);
}

dkt_status_t dkt_up_tool_run(dkt_up_t *up, const char *name, const dkt_up_spec_t *spec,
                             dkt_err_t *err)
{
    dkt_up_child_t *tool = &up->tool;
    tool->role = DKT_UP_TOOL;
    snprintf(tool->name, sizeof tool->name, "%s", name);
    if (!dkt_up_child_spawn(up, tool, spec)) {
        return dkt_fail(err, DKT_INTERNAL, NULL, "cannot start %s", name);
    }
    int64_t until = tool->started_ms + DKT_UP_START_MS;
    while (tool->pid && !up->stop_signal && dkt_up_mono_ms() < until) {
        dkt_up_pump(up, until - dkt_up_mono_ms());
    }
    if (tool->pid) {
        kill(tool->pid, SIGKILL);
        waitpid(tool->pid, NULL, 0);
        tool->pid = 0;
        return dkt_fail(err, DKT_UNAVAILABLE, NULL, "%s did not end in time", name);
    }
    if (tool->exit_status != 0) {
        dkt_up_child_show_log(up, tool);
        return dkt_fail(err, DKT_INTERNAL, NULL, "%s failed; see %s/log/%s.log", name, up->dir,
                        name);
    }
    return DKT_OK;
}

/* Only PostgreSQL may die while it starts, a few times: shared memory of a server that was killed
 * takes a moment to go. Anything else that dies now would die again. */
static bool s_start_lost(dkt_up_t *up, dkt_up_child_t *child)
{
    int tries = child->role == DKT_UP_POSTGRES ? DKT_UP_START_TRIES_MAX : 1;
    if (child->pid || child->ready) {
        return false;
    }
    if (child->deaths >= tries) {
        return true;
    }
    if (!child->restart_at_ms) {
        child->restart_at_ms = dkt_up_mono_ms() + s_backoff_ms(child->deaths);
    }
    return dkt_up_mono_ms() >= child->restart_at_ms && !dkt_up_child_start(up, child);
}

static bool s_is_between(const dkt_up_child_t *child, dkt_up_role_t first, dkt_up_role_t last)
{
    return child->role >= first && child->role <= last;
}

/* True: all children of these roles serve. `lost` is set to one that cannot be started. */
static bool s_roles_ready(dkt_up_t *up, dkt_up_role_t first, dkt_up_role_t last,
                          dkt_up_child_t **lost)
{
    bool all = true;
    for (int i = 0; i < up->child_count; i++) {
        dkt_up_child_t *child = &up->children[i];
        if (!s_is_between(child, first, last)) {
            continue;
        }
        if (s_start_lost(up, child)) {
            *lost = child;
        }
        all = (child->ready || dkt_up_child_probe(up, child)) && all;
    }
    return all;
}

dkt_status_t dkt_up_roles_start(dkt_up_t *up, dkt_up_role_t first, dkt_up_role_t last,
                                dkt_err_t *err)
{
    int64_t until = dkt_up_mono_ms() + DKT_UP_START_MS;
    dkt_up_child_t *lost = NULL;
    for (int i = 0; i < up->child_count; i++) {
        dkt_up_child_t *child = &up->children[i];
        if (s_is_between(child, first, last) && !dkt_up_child_start(up, child)) {
            return dkt_fail(err, DKT_INTERNAL, NULL, "cannot start %s", child->name);
        }
    }
    while (!s_roles_ready(up, first, last, &lost)) {
        if (lost) {
            dkt_up_child_show_log(up, lost);
            return dkt_fail(err, DKT_UNAVAILABLE, NULL, "%s ended while it started; see above",
                            lost->name);
        }
        if (up->stop_signal || up->broken) {
            return dkt_fail(err, DKT_UNAVAILABLE, NULL, "stopped");
        }
        if (dkt_up_mono_ms() >= until) {
            return dkt_fail(err, DKT_UNAVAILABLE, NULL, "not ready within %d s; see %s/log",
                            DKT_UP_START_MS / 1000, up->dir);
        }
        dkt_up_pump(up, S_PROBE_MS);
    }
    return DKT_OK;
}

/* Restarts what is due; returns how long the next pump may wait. */
static int64_t s_restart_due(dkt_up_t *up)
{
    int64_t now = dkt_up_mono_ms(), wait = S_IDLE_MS;
    for (int i = 0; i < up->child_count; i++) {
        dkt_up_child_t *child = &up->children[i];
        if (child->pid || !child->restart_at_ms) {
            continue;
        }
        if (child->restart_at_ms <= now && !dkt_up_child_start(up, child)) {
            child->deaths++;
            child->restart_at_ms = now + s_backoff_ms(child->deaths);
        }
        if (!child->pid && child->restart_at_ms - now < wait) {
            wait = child->restart_at_ms - now;
        }
    }
    return wait;
}

void dkt_up_watch(dkt_up_t *up)
{
    while (!up->stop_signal && !up->broken) {
        dkt_up_pump(up, s_restart_due(up));
    }
}

static int s_running(const dkt_up_t *up, dkt_up_role_t role)
{
    int count = 0;
    for (int i = 0; i < up->child_count; i++) {
        count += up->children[i].role == role && up->children[i].pid != 0;
    }
    return count;
}

static void s_signal_role(dkt_up_t *up, dkt_up_role_t role, int signal_number)
{
    for (int i = 0; i < up->child_count; i++) {
        const dkt_up_child_t *child = &up->children[i];
        if (child->role == role && child->pid) {
            kill(child->pid, signal_number);
            /* One that was stopped in a test or by hand could not end otherwise. */
            kill(child->pid, SIGCONT);
        }
    }
}

static void s_wait_gone(dkt_up_t *up, dkt_up_role_t role, int64_t until_ms)
{
    while (s_running(up, role) > 0 && dkt_up_mono_ms() < until_ms) {
        dkt_up_pump(up, S_STOP_MS);
    }
}

void dkt_up_stop(dkt_up_t *up)
{
    /* Brokers first, so that no request comes in any more; the stores last. PostgreSQL's SIGINT is
     * its fast shutdown, SIGQUIT its immediate one, after which the next start recovers. A fast one
     * syncs some 300 files per database: not worth it for a folder that goes away. */
    const struct {
        dkt_up_role_t role;
        int soft, hard;
        int bound_ms; /* 0: what is left of the whole */
    } s_stops[] = {
        {DKT_UP_BROKER, SIGTERM, SIGKILL, DKT_UP_STOP_BROKERS_MS},
        {DKT_UP_WORKER, SIGTERM, SIGKILL, DKT_UP_STOP_WORKERS_MS},
        {DKT_UP_NATS, SIGTERM, SIGKILL, DKT_UP_STOP_NATS_MS},
        {DKT_UP_POSTGRES, up->temporary ? SIGQUIT : SIGINT, SIGQUIT, 0},
    };
    int64_t begin = dkt_up_mono_ms();
    if (!up->stop_signal) {
        up->stop_signal = SIGTERM; /* whatever ends from here on is expected to */
    }
    for (unsigned i = 0; i < sizeof s_stops / sizeof s_stops[0]; i++) {
        dkt_up_role_t role = s_stops[i].role;
        int64_t until = begin + DKT_UP_STOP_ALL_MS;
        if (s_stops[i].bound_ms) {
            until = dkt_up_mono_ms() + s_stops[i].bound_ms;
        }
        s_signal_role(up, role, s_stops[i].soft);
        s_wait_gone(up, role, until);
        if (s_running(up, role) > 0) {
            dkt_log(DKT_LOG_WARN, "some processes did not end in time: killed");
            s_signal_role(up, role, s_stops[i].hard);
            s_wait_gone(up, role, dkt_up_mono_ms() + DKT_UP_STOP_KILL_MS);
            s_signal_role(up, role, SIGKILL);
            s_wait_gone(up, role, dkt_up_mono_ms() + DKT_UP_STOP_KILL_MS);
        }
    }
    dkt_log(DKT_LOG_INFO, "all processes ended after %lld ms",
            (long long)(dkt_up_mono_ms() - begin));
}
