/* SPDX-License-Identifier: Apache-2.0
 *
 * `docket doctor`: is this machine fit for a fleet? A table of checks; each says what it found and,
 * unless that is fine, what to do. Nothing is changed; the one file written is removed.
 */
#include <czmq.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <libpq-fe.h>
#include <msgpack.h>
#include <nats/nats.h>
#include <pg_config.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "lib/core/limits.h"
#include "ops/commands.h"
#include "ops/up.h"

#define S_TEXT_BYTES_MAX 200
#define S_FILES_MIN      4096 /* page Reliability: refuse to start below */
#define S_FILES_GOOD     20000
#define S_THREADS_GOOD   8192
#define S_MAPS_GOOD      65530 /* two maps per thread's stack: 1,000 actors need 2,000 and more */
#define S_DISK_MIN_MB    1024
#define S_DISK_GOOD_MB   10240 /* 1,000 tenants at 7.4 MB, and their log */
#define S_MEMORY_MIN_MB  512
#define S_MEMORY_GOOD_MB 2048
/* shared_buffers of the embedded fleet and what stands beside them: 283 pages of 2 MB were taken */
#define S_SHARED_KB    600000
#define S_SYNC_ROUNDS  50
#define S_SYNC_GOOD_US 2000
#define S_SYNC_BAD_US  20000
#define S_BLOCK_BYTES  8192 /* a page of PostgreSQL's log */

typedef enum { S_OK, S_WARN, S_FAIL } s_verdict_t;

static const char *const s_verdict_names[] = {"ok", "warn", "fail"};

typedef struct {
    s_verdict_t verdict;
    char found[S_TEXT_BYTES_MAX];
    char advice[S_TEXT_BYTES_MAX]; /* "" if all is well */
} s_finding_t;

typedef struct {
    const char *data; /* folder whose disk is looked at */
    int port;
    bool json;
} s_options_t;

__attribute__((format(printf, 2, 3))) static void s_found(s_finding_t *out, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(out->found, sizeof out->found, format, args);
    va_end(args);
}

static void s_advise(s_finding_t *out, s_verdict_t verdict, const char *advice)
{
    out->verdict = verdict;
    snprintf(out->advice, sizeof out->advice, "%s", advice);
}

/* `value` against what must and what should be there. */
static void s_judge(s_finding_t *out, long long value, long long lowest, long long good,
                    const char *advice)
{
    if (value < good) {
        s_advise(out, value < lowest ? S_FAIL : S_WARN, advice);
    }
}

static long long s_read_number(const char *path)
{
    long long value = -1;
    FILE *file = fopen(path, "re");
    if (file) {
        if (fscanf(file, "%lld", &value) != 1) {
            value = -1;
        }
        fclose(file);
    }
    return value;
}

static void s_check_files(const s_options_t *options, s_finding_t *out)
{
    (void)options;
    struct rlimit limit = {0};
    getrlimit(RLIMIT_NOFILE, &limit);
    long long hard = limit.rlim_max == RLIM_INFINITY ? 1000000000 : (long long)limit.rlim_max;
    s_found(out, "hard limit %lld: up to %lld active tenants per worker", hard,
            hard > 1000 ? (hard - 1000) / 4 : 0);
    s_judge(out, hard, S_FILES_MIN, S_FILES_GOOD,
            "raise it: LimitNOFILE= in the unit, or `ulimit -Hn 65536` as root before the start");
}

static void s_check_threads(const s_options_t *options, s_finding_t *out)
{
    (void)options;
    struct rlimit limit = {0};
    getrlimit(RLIMIT_NPROC, &limit);
    long long pids = s_read_number("/proc/sys/kernel/pid_max");
    long long threads = s_read_number("/proc/sys/kernel/threads-max");
    long long own = limit.rlim_max == RLIM_INFINITY ? threads : (long long)limit.rlim_max;
    long long least = pids < threads ? pids : threads;
    least = own < least ? own : least;
    s_found(out, "pid_max %lld, threads-max %lld, processes per user %lld", pids, threads, own);
    s_judge(out, least, 1024, S_THREADS_GOOD,
            "every active tenant is a thread: sysctl kernel.pid_max=4194304, ulimit -u");
}

static void s_check_maps(const s_options_t *options, s_finding_t *out)
{
    (void)options;
    long long maps = s_read_number("/proc/sys/vm/max_map_count");
    s_found(out, "vm.max_map_count %lld", maps);
    s_judge(out, maps, S_FILES_MIN, S_MAPS_GOOD, "sysctl vm.max_map_count=262144");
}

static void s_check_ports(const s_options_t *options, s_finding_t *out)
{
    char taken[S_TEXT_BYTES_MAX] = "";
    size_t len = 0;
    for (int port = options->port; port <= options->port + 6; port++) {
        if (!dkt_up_port_free(port)) {
            len += (size_t)snprintf(taken + len, sizeof taken - len, " %d", port);
        }
    }
    if (len > 0) {
        s_found(out, "taken:%s", taken);
        s_advise(out, S_WARN,
                 "a fleet that runs already is fine; otherwise docket up --port N, or --port 0");
    } else {
        s_found(out, "%d to %d are free", options->port, options->port + 6);
    }
}

/* The first line that a program prints. */
static bool s_program_line(const char *command, char out[S_TEXT_BYTES_MAX])
{
    FILE *pipe = popen(command, "re");
    bool found = pipe && fgets(out, S_TEXT_BYTES_MAX, pipe) != NULL;
    if (pipe) {
        pclose(pipe);
    }
    if (found) {
        out[strcspn(out, "\n")] = '\0';
    }
    return found;
}

static void s_check_program(s_finding_t *out, const char *command, const char *wanted,
                            const char *package)
{
    char line[S_TEXT_BYTES_MAX], advice[S_TEXT_BYTES_MAX];
    snprintf(advice, sizeof advice, "apt-get install %s", package);
    if (!s_program_line(command, line)) {
        s_found(out, "not found");
        s_advise(out, S_FAIL, advice);
        return;
    }
    s_found(out, "%s", line);
    if (!strstr(line, wanted)) {
        s_advise(out, S_WARN, "another version than the one docket is tested with");
    }
}

static void s_check_postgres(const s_options_t *options, s_finding_t *out)
{
    (void)options;
    s_check_program(out, "/usr/lib/postgresql/15/bin/postgres --version 2>/dev/null",
                    "(PostgreSQL) 15.", "postgresql-15");
}

static void s_check_nats(const s_options_t *options, s_finding_t *out)
{
    (void)options;
    s_check_program(out, "PATH=$PATH:/usr/sbin nats-server --version 2>/dev/null", "v2.",
                    "nats-server");
}

/* A library at run time against the headers it was compiled with. Another first number is another
 * binary interface; another second one is not, but is not what was tested. */
static void s_check_library(s_finding_t *out, const char *compiled, const char *running)
{
    s_found(out, "compiled with %s, running %s", compiled, running);
    int major = atoi(compiled), major_running = atoi(running);
    const char *minor = strchr(compiled, '.'), *minor_running = strchr(running, '.');
    bool same_minor = minor && minor_running && atoi(minor + 1) == atoi(minor_running + 1);
    if (major != major_running) {
        s_advise(out, S_FAIL, "build docket again on this machine: make clean build");
    } else if (!same_minor) {
        s_advise(out, S_WARN, "build docket again on this machine: make clean build");
    }
}

static void s_check_zmq(const s_options_t *options, s_finding_t *out)
{
    (void)options;
    char compiled[32], running[32];
    int major, minor, patch;
    zmq_version(&major, &minor, &patch);
    snprintf(compiled, sizeof compiled, "%d.%d.%d", ZMQ_VERSION_MAJOR, ZMQ_VERSION_MINOR,
             ZMQ_VERSION_PATCH);
    snprintf(running, sizeof running, "%d.%d.%d", major, minor, patch);
    s_check_library(out, compiled, running);
    if (!zmq_has("curve")) {
        s_advise(out, S_FAIL, "this libzmq has no CURVE; use the one of Debian");
    }
}

static void s_check_czmq(const s_options_t *options, s_finding_t *out)
{
    (void)options;
    char compiled[32], running[32];
    int major, minor, patch;
    zsys_version(&major, &minor, &patch);
    snprintf(compiled, sizeof compiled, "%d.%d.%d", CZMQ_VERSION_MAJOR, CZMQ_VERSION_MINOR,
             CZMQ_VERSION_PATCH);
    snprintf(running, sizeof running, "%d.%d.%d", major, minor, patch);
    s_check_library(out, compiled, running);
}

static void s_check_msgpack(const s_options_t *options, s_finding_t *out)
{
    (void)options;
    s_check_library(out, MSGPACK_VERSION, msgpack_version());
}

static void s_check_nats_client(const s_options_t *options, s_finding_t *out)
{
    (void)options;
    s_check_library(out, NATS_VERSION_STRING, nats_GetVersion());
}

static void s_check_sodium(const s_options_t *options, s_finding_t *out)
{
    (void)options;
    s_check_library(out, SODIUM_VERSION_STRING, sodium_version_string());
}

static void s_check_jansson(const s_options_t *options, s_finding_t *out)
{
    (void)options;
    s_check_library(out, JANSSON_VERSION, jansson_version_str());
}

static void s_check_pq(const s_options_t *options, s_finding_t *out)
{
    (void)options;
    char running[32];
    snprintf(running, sizeof running, "%d.%d", PQlibVersion() / 10000, PQlibVersion() % 10000);
    /* Its second number counts bug fixes: a newer one is welcome. */
    s_found(out, "compiled with %s, running %s", PG_VERSION, running);
    if (atoi(PG_VERSION) != PQlibVersion() / 10000) {
        s_advise(out, S_FAIL, "build docket again on this machine: make clean build");
    }
}

static void s_check_xxhash(const s_options_t *options, s_finding_t *out)
{
    (void)options;
    char compiled[32], running[32];
    unsigned version = XXH_versionNumber();
    snprintf(compiled, sizeof compiled, "%d.%d.%d", XXH_VERSION_MAJOR, XXH_VERSION_MINOR,
             XXH_VERSION_RELEASE);
    snprintf(running, sizeof running, "%u.%u.%u", version / 10000, version / 100 % 100,
             version % 100);
    s_check_library(out, compiled, running);
}

static void s_check_disk(const s_options_t *options, s_finding_t *out)
{
    struct statvfs info;
    if (statvfs(options->data, &info) != 0) {
        s_found(out, "%s cannot be looked at", options->data);
        s_advise(out, S_FAIL, "name an existing folder with --data");
        return;
    }
    long long free_mb = (long long)(info.f_bavail * (info.f_frsize / 1024) / 1024);
    s_found(out, "%lld MB free in %s, room for about %lld tenants", free_mb, options->data,
            free_mb * 10 / 74);
    s_judge(out, free_mb, S_DISK_MIN_MB, S_DISK_GOOD_MB,
            "choose a larger disk with docket up --data DIR");
}

/* The number in the line of /proc/meminfo that starts with `name`; -1 if there is none. */
static long long s_meminfo(const char *name)
{
    long long value = -1;
    char line[S_TEXT_BYTES_MAX];
    size_t len = strlen(name);
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && value < 0 && fgets(line, sizeof line, file)) {
        if (strncmp(line, name, len) == 0) {
            (void)sscanf(line + len, ": %lld", &value);
        }
    }
    if (file) {
        fclose(file);
    }
    return value;
}

static void s_check_memory(const s_options_t *options, s_finding_t *out)
{
    (void)options;
    long long available_mb = s_meminfo("MemAvailable") / 1024;
    s_found(out, "%lld MB available", available_mb);
    s_judge(out, available_mb, S_MEMORY_MIN_MB, S_MEMORY_GOOD_MB,
            "2.4 MB per open tenant connection: fewer active tenants, or more memory");
}

/* A fleet runs without them, so it is told and not warned of. */
static void s_check_huge_pages(const s_options_t *options, s_finding_t *out)
{
    (void)options;
    long long page_kb = s_meminfo("Hugepagesize");
    long long free_pages = s_meminfo("HugePages_Free");
    long long needed = page_kb > 0 ? S_SHARED_KB / page_kb + 1 : 0;
    if (needed == 0 || free_pages < 0) {
        s_found(out, "this kernel has none");
    } else if (free_pages >= needed) {
        s_found(out, "%lld of %lld kB are free: PostgreSQL takes what it needs", free_pages,
                page_kb);
    } else {
        s_found(out, "%lld free; with many tenants sysctl vm.nr_hugepages=%lld saves CPU",
                free_pages, needed);
    }
}

static int s_compare(const void *a, const void *b)
{
    long long left = *(const long long *)a, right = *(const long long *)b;
    return (left > right) - (left < right);
}

static long long s_now_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

/* What every commit group waits for. */
static void s_check_sync(const s_options_t *options, s_finding_t *out)
{
    char path[512];
    static const char block[S_BLOCK_BYTES];
    long long times[S_SYNC_ROUNDS];
    snprintf(path, sizeof path, "%s/docket-doctor-XXXXXX", options->data);
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) {
        s_found(out, "cannot write in %s", options->data);
        s_advise(out, S_WARN, "name a folder that this user may write to with --data");
        return;
    }
    unlink(path);
    bool good = true;
    for (int i = 0; i < S_SYNC_ROUNDS && good; i++) {
        long long begin = s_now_us(CLOCK_MONOTONIC);
        good = pwrite(fd, block, sizeof block, 0) == (ssize_t)sizeof block && fdatasync(fd) == 0;
        times[i] = s_now_us(CLOCK_MONOTONIC) - begin;
    }
    close(fd);
    if (!good) {
        s_found(out, "fdatasync failed in %s", options->data);
        s_advise(out, S_FAIL, "this disk cannot keep a promise: choose another with --data");
        return;
    }
    qsort(times, S_SYNC_ROUNDS, sizeof times[0], s_compare);
    long long median = times[S_SYNC_ROUNDS / 2];
    s_found(out, "fdatasync of 8 KB: median %lld us, worst of %d %lld us", median, S_SYNC_ROUNDS,
            times[S_SYNC_ROUNDS - 1]);
    if (median > S_SYNC_GOOD_US) {
        s_advise(out, median > S_SYNC_BAD_US ? S_FAIL : S_WARN,
                 "every answer waits for this: a disk with a protected write cache helps");
    }
}

static void s_check_clock(const s_options_t *options, s_finding_t *out)
{
    (void)options;
    char source[S_TEXT_BYTES_MAX] = "unknown";
    FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
    if (file) {
        if (fgets(source, sizeof source, file)) {
            source[strcspn(source, "\n")] = '\0';
        }
        fclose(file);
    }
    /* 1,000 readings: a slow source is a system call each, 50 times the price. */
    long long begin = s_now_us(CLOCK_MONOTONIC);
    for (int i = 0; i < 1000; i++) {
        s_now_us(CLOCK_MONOTONIC);
    }
    long long nanoseconds = s_now_us(CLOCK_MONOTONIC) - begin;
    s_found(out, "%.40s, %lld ns a reading", source, nanoseconds);
    if (nanoseconds > 1000) {
        s_advise(out, S_WARN, "a slow clock costs throughput: prefer tsc or kvm-clock");
    }
}

typedef struct {
    const char *name;
    void (*run)(const s_options_t *options, s_finding_t *out);
} s_check_t;

static const s_check_t s_checks[] = {
    {"open files", s_check_files},
    {"threads", s_check_threads},
    {"memory maps", s_check_maps},
    {"ports", s_check_ports},
    {"postgres", s_check_postgres},
    {"nats-server", s_check_nats},
    {"libzmq", s_check_zmq},
    {"czmq", s_check_czmq},
    {"msgpack-c", s_check_msgpack},
    {"libpq", s_check_pq},
    {"nats.c", s_check_nats_client},
    {"libsodium", s_check_sodium},
    {"xxhash", s_check_xxhash},
    {"jansson", s_check_jansson},
    {"disk", s_check_disk},
    {"memory", s_check_memory},
    {"huge pages", s_check_huge_pages},
    {"commit latency", s_check_sync},
    {"clock", s_check_clock},
};

static void s_print_json(const s_finding_t *findings, size_t count, s_verdict_t worst)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(rows, json_pack("{ss ss ss ss}", "check", s_checks[i].name, "verdict",
                                              s_verdict_names[findings[i].verdict], "found",
                                              findings[i].found, "advice", findings[i].advice));
    }
    json_t *all = json_pack("{ss so}", "verdict", s_verdict_names[worst], "checks", rows);
    json_dumpf(all, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(all);
}

static void s_print_table(const s_finding_t *findings, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        printf("%-4s  %-14s  %s\n", s_verdict_names[findings[i].verdict], s_checks[i].name,
               findings[i].found);
        if (findings[i].advice[0]) {
            printf("      %-14s  -> %s\n", "", findings[i].advice);
        }
    }
}

/* -1: go on; otherwise the exit status. */
static int s_parse(int argc, char **argv, s_options_t *options)
{
    static const struct option table[] = {
        {"data", required_argument, NULL, 'd'},
        {"port", required_argument, NULL, 'p'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;
    optind = 1;
    while ((option = getopt_long(argc, argv, "h", table, NULL)) != -1) {
        if (option == 'h') {
            puts("usage: docket doctor [--data DIR] [--port N] [--json]\n\n"
                 "Checks whether this machine is fit for a fleet. Exit status 1 if a check fails.\n"
                 "  --data DIR  the folder whose disk is measured (default: the temporary one)\n"
                 "  --port N    first port of the fleet (default 7410)\n"
                 "  --json      for machines");
            return 0;
        }
        if (option == 'd') {
            options->data = optarg;
        } else if (option == 'p') {
            options->port = atoi(optarg);
        } else if (option == 'j') {
            options->json = true;
        } else {
            return 2;
        }
    }
    if (optind < argc || options->port < 1 || options->port > UINT16_MAX - 6) {
        fputs("docket doctor: wrong use; --help shows the options\n", stderr);
        return 2;
    }
    return -1;
}

int dkt_doctor_main(int argc, char **argv)
{
    enum { COUNT = sizeof s_checks / sizeof s_checks[0] };
    s_finding_t findings[COUNT];
    const char *temporary = getenv("TMPDIR");
    s_options_t options = {.data = temporary && *temporary ? temporary : "/tmp",
                           .port = DKT_UP_PORT_DEFAULT};
    int parsed = s_parse(argc, argv, &options);
    if (parsed >= 0) {
        return parsed;
    }
    s_verdict_t worst = S_OK;
    memset(findings, 0, sizeof findings);
    for (size_t i = 0; i < COUNT; i++) {
        s_checks[i].run(&options, &findings[i]);
        worst = findings[i].verdict > worst ? findings[i].verdict : worst;
    }
    if (options.json) {
        s_print_json(findings, COUNT, worst);
    } else {
        s_print_table(findings, COUNT);
    }
    return worst == S_FAIL ? 1 : 0;
}
