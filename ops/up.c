/* SPDX-License-Identifier: Apache-2.0
 *
 * `docket up`: a whole fleet in the foreground. This file: options, the steps of the start in their
 * order, and the ready line.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "lib/edge/log.h"
#include "ops/commands.h"
#include "ops/up.h"

#define S_PORT_HIGHEST 65535

static const char s_usage[] =
    "usage: docket up [OPTIONS]\n"
    "\n"
    "Starts PostgreSQL, NATS, brokers and workers, keeps them running, and stops them all on\n"
    "SIGINT or SIGTERM. When all is ready it prints one line: ready public=.. internal=.. nats=..\n"
    "postgres=.. keys=..\n"
    "\n"
    "  --data DIR      keep everything in this folder (default: a temporary one, removed at exit)\n"
    "  --port N        first port (default 7410); 0 chooses free ones\n"
    "                  broker i: N+10i public, N+10i+1 internal, N+10i+6 workers;\n"
    "                  N+2 NATS, N+3 PostgreSQL, N+5 NATS websocket\n"
    "  --brokers N     1 by default\n"
    "  --workers N     2 by default\n"
    "  --user NAME     as root: run the processes as this user (default: docket, postgres, "
    "nobody)\n"
    "  --no-restart    do not restart what dies: stop everything and exit 1\n"
    "  --insecure-dev  brokers without CURVE on the internal side; for development only\n"
    "  --help, --version\n";

int64_t dkt_up_mono_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void dkt_up_path(const char *dir, const char *name, char out[DKT_UP_TEXT_BYTES_MAX])
{
    snprintf(out, DKT_UP_TEXT_BYTES_MAX, "%s/%s", dir, name);
}

static bool s_number(const char *text, int lowest, int highest, int *out)
{
    char *rest = NULL;
    errno = 0;
    long value = strtol(text, &rest, 10);
    if (errno || rest == text || *rest || value < lowest || value > highest) {
        return false;
    }
    *out = (int)value;
    return true;
}

/* Takes one option; false: its value is out of range. */
static bool s_take_option(int option, const char *value, dkt_up_options_t *options)
{
    switch (option) {
    case 'd':
        options->data = value;
        return value[0] != '\0';
    case 'u':
        options->user = value;
        return true;
    case 'p':
        return s_number(value, 0, S_PORT_HIGHEST, &options->port);
    case 'b':
        return s_number(value, 1, DKT_UP_BROKERS_MAX, &options->brokers);
    case 'w':
        return s_number(value, 1, DKT_UP_WORKERS_MAX, &options->workers);
    case 'n':
        options->no_restart = true;
        return true;
    case 'i':
        options->insecure_dev = true;
        return true;
    default:
        return false;
    }
}

/* -1: go on; otherwise the exit status. */
static int s_parse(int argc, char **argv, dkt_up_options_t *options)
{
    static const struct option table[] = {
        {"data", required_argument, NULL, 'd'},    {"port", required_argument, NULL, 'p'},
        {"brokers", required_argument, NULL, 'b'}, {"workers", required_argument, NULL, 'w'},
        {"user", required_argument, NULL, 'u'},    {"no-restart", no_argument, NULL, 'n'},
        {"insecure-dev", no_argument, NULL, 'i'},  {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},       {NULL, 0, NULL, 0},
    };
    int option, index = 0;
    optind = 1;
    while ((option = getopt_long(argc, argv, "h", table, &index)) != -1) {
        if (option == 'h') {
            fputs(s_usage, stdout);
            return 0;
        }
        if (option == 'v') {
            printf("docket %s\n", DKT_VERSION);
            return 0;
        }
        if (option == '?') {
            fputs("docket up --help shows the options\n", stderr);
            return 2;
        }
        if (!s_take_option(option, optarg, options)) {
            fprintf(stderr, "docket up: --%s cannot be \"%s\"\n", table[index].name, optarg);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "docket up: what is \"%s\"? --help shows the options\n", argv[optind]);
        return 2;
    }
    if (options->port + 10 * (options->brokers - 1) + 6 > S_PORT_HIGHEST) {
        fputs("docket up: --port is too high: ports end at 65535\n", stderr);
        return 2;
    }
    return -1;
}

static void s_raise_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void s_print_ready(const dkt_up_t *up)
{
    char public[DKT_UP_TEXT_BYTES_MAX], internal[DKT_UP_TEXT_BYTES_MAX];
    char uri[DKT_UP_TEXT_BYTES_MAX];
    dkt_up_addresses(up, 0, public);
    dkt_up_addresses(up, 1, internal);
    dkt_up_control_uri(up, up->dir, uri);
    printf("ready public=%s internal=%s nats=nats://127.0.0.1:%d postgres=%s keys=%s/keys\n",
           public, internal, up->options.port + 2, uri, up->dir);
    fflush(stdout);
}

/* A step of the start: a sentence for who waits, and what is done. */
typedef struct {
    const char *text;
    dkt_status_t (*run)(dkt_up_t *up, dkt_err_t *err);
} s_step_t;

static dkt_status_t s_step_keys(dkt_up_t *up, dkt_err_t *err)
{
    return dkt_up_keys_make(up, err);
}

static dkt_status_t s_step_postgres(dkt_up_t *up, dkt_err_t *err)
{
    return dkt_up_roles_start(up, DKT_UP_POSTGRES, DKT_UP_POSTGRES, err);
}

static dkt_status_t s_step_nats(dkt_up_t *up, dkt_err_t *err)
{
    dkt_status_t status = dkt_up_nats_configure(up, err);
    return status == DKT_OK ? dkt_up_roles_start(up, DKT_UP_NATS, DKT_UP_NATS, err) : status;
}

/* Together: a broker is ready when a worker has told it who owns what. */
static dkt_status_t s_step_nodes(dkt_up_t *up, dkt_err_t *err)
{
    return dkt_up_roles_start(up, DKT_UP_BROKER, DKT_UP_WORKER, err);
}

static const s_step_t s_steps[] = {
    {"folder", dkt_up_folder_open},
    {"ports", dkt_up_ports_choose},
    {"guard", dkt_up_guard_start},
    {"keys", s_step_keys},
    {"PostgreSQL: cluster", dkt_up_postgres_init},
    {"PostgreSQL: start", s_step_postgres},
    {"PostgreSQL: control database", dkt_up_bootstrap},
    {"NATS", s_step_nats},
    {"brokers and workers", s_step_nodes},
};
#define S_STEP_COUNT (sizeof s_steps / sizeof s_steps[0])

static bool s_start(dkt_up_t *up)
{
    int64_t begin = dkt_up_mono_ms();
    for (unsigned i = 0; i < S_STEP_COUNT; i++) {
        dkt_err_t err = {0};
        int64_t step = dkt_up_mono_ms();
        dkt_status_t status = s_steps[i].run(up, &err);
        if (up->stop_signal) {
            dkt_log(DKT_LOG_INFO, "stopped during the start, at step %s", s_steps[i].text);
            return false;
        }
        if (status != DKT_OK) {
            dkt_log(DKT_LOG_ERROR, "[%u/%zu] %s: %s", i + 1, S_STEP_COUNT, s_steps[i].text,
                    err.text);
            return false;
        }
        dkt_log(DKT_LOG_INFO, "[%u/%zu] %s: done in %lld ms", i + 1, S_STEP_COUNT, s_steps[i].text,
                (long long)(dkt_up_mono_ms() - step));
        if (s_steps[i].run == dkt_up_ports_choose) {
            dkt_up_children_fill(up);
        }
    }
    dkt_log(DKT_LOG_INFO, "ready after %lld ms; data in %s%s",
            (long long)(dkt_up_mono_ms() - begin), up->dir, up->temporary ? " (temporary)" : "");
    return true;
}

int dkt_up_main(int argc, char **argv)
{
    static dkt_up_t up; /* large, and once per process */
    up.options = (dkt_up_options_t){
        .port = DKT_UP_PORT_DEFAULT,
        .brokers = 1,
        .workers = 2,
    };
    up.lock_fd = up.program_fd = up.signal_fd = up.guard_fd = -1;
    int parsed = s_parse(argc, argv, &up.options);
    if (parsed >= 0) {
        return parsed;
    }
    dkt_log_init("up", "");
    s_raise_files();
    dkt_err_t err = {0};
    if (dkt_up_watch_open(&up, &err) != DKT_OK) {
        dkt_log(DKT_LOG_ERROR, "%s", err.text);
        return 1;
    }
    bool good = s_start(&up);
    if (good) {
        up.started = true;
        s_print_ready(&up);
        dkt_up_watch(&up);
        good = !up.broken;
    } else if (up.stop_signal) {
        good = true;
    }
    dkt_up_stop(&up);
    dkt_up_guard_stop(&up);
    if (up.temporary && up.dir[0]) {
        dkt_up_tree_remove(up.dir);
    }
    dkt_log(DKT_LOG_INFO, "stopped");
    return good ? 0 : 1;
}
