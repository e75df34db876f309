/* SPDX-License-Identifier: Apache-2.0
 *
 * See bench_machine.h.
 */
#include "ops/bench_machine.h"

#include <fcntl.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "lib/core/histogram.h"
#include "ops/result.h"

#define S_PINGPONG_ROUNDS 2000
#define S_SYNC_ROUNDS     200
#define S_SYNC_BYTES      8192 /* a page of PostgreSQL's log */
#define S_P50             5000

/* -- the machine ------------------------------------------------------------------------------ */

static void s_cpu_model(char *out, size_t max)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    snprintf(out, max, "-");
    while (file && fgets(line, sizeof line, file)) {
        const char *value = strstr(line, ": ");
        if (value && strncmp(line, "model name", strlen("model name")) == 0) {
            snprintf(out, max, "%.*s", (int)strcspn(value + 2, "\n"), value + 2);
            break;
        }
    }
    if (file) {
        fclose(file);
    }
}

const char *dkt_bench_temp(void)
{
    const char *folder = getenv("TMPDIR");
    return folder && folder[0] ? folder : "/tmp";
}

/* In the folder where the servers of a bench keep their data. */
static double s_fdatasync_ms(const char *folder)
{
    static dkt_histogram_t histogram;
    static const char page[S_SYNC_BYTES];
    char path[256];
    memset(&histogram, 0, sizeof histogram);
    snprintf(path, sizeof path, "%s/docket-sync-XXXXXX", folder);
    int fd = mkostemp(path, O_CLOEXEC);
    for (int i = 0; fd >= 0 && i < S_SYNC_ROUNDS; i++) {
        int64_t start_us = dkt_mono_us();
        if (pwrite(fd, page, sizeof page, 0) != sizeof page || fdatasync(fd) != 0) {
            break;
        }
        dkt_histogram_add(&histogram, (uint64_t)(dkt_mono_us() - start_us));
    }
    if (fd >= 0) {
        unlink(path);
        close(fd);
    }
    return (double)dkt_histogram_at(&histogram, S_P50) / 1000.0;
}

void dkt_bench_machine(dkt_bench_machine_t *out)
{
    struct utsname names = {0};
    double load = 0;
    uname(&names);
    s_cpu_model(out->cpu, sizeof out->cpu);
    snprintf(out->kernel, sizeof out->kernel, "%.*s", (int)sizeof out->kernel - 1, names.release);
    out->cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
    out->load_average = getloadavg(&load, 1) == 1 ? load : 0;
    out->fdatasync_ms = s_fdatasync_ms(dkt_bench_temp());
    out->pingpong_us = dkt_bench_pingpong_us();
}

/* -- PostgreSQL ------------------------------------------------------------------------------- */

static void s_show(PGconn *connection, const char *query, char *out, size_t max)
{
    PGresult *result = PQexec(connection, query);
    bool ok = PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1;
    snprintf(out, max, "%s", ok ? PQgetvalue(result, 0, 0) : "-");
    PQclear(result);
}

bool dkt_bench_settings(const char *uri, dkt_bench_postgres_t *out)
{
    *out = (dkt_bench_postgres_t){"-", "-", "-"};
    if (!uri) {
        return false;
    }
    PGconn *connection = PQconnectdb(uri);
    bool ok = PQstatus(connection) == CONNECTION_OK;
    if (ok) {
        s_show(connection, "show server_version", out->version, sizeof out->version);
        s_show(connection, "show fsync", out->fsync, sizeof out->fsync);
        s_show(connection, "show synchronous_commit", out->synchronous_commit,
               sizeof out->synchronous_commit);
    } else {
        fprintf(stderr, "docket bench: %s", PQerrorMessage(connection));
    }
    PQfinish(connection);
    return ok;
}

/* -- ping-pong -------------------------------------------------------------------------------- */

typedef struct {
    int ping_fd, pong_fd;
    cpu_set_t core; /* of the thread that echoes; another than the caller's, if there is one */
} s_pair_t;

/* The first allowed core into `one`, the last into `other`. */
static void s_two_cores(const cpu_set_t *allowed, cpu_set_t *one, cpu_set_t *other)
{
    CPU_ZERO(one);
    CPU_ZERO(other);
    for (int i = 0; i < CPU_SETSIZE; i++) {
        if (CPU_ISSET(i, allowed)) {
            if (CPU_COUNT(one) == 0) {
                CPU_SET(i, one);
            }
            CPU_ZERO(other);
            CPU_SET(i, other);
        }
    }
}

static void *s_echo(void *arg)
{
    const s_pair_t *pair = arg;
    uint64_t value = 0;
    (void)sched_setaffinity(0, sizeof pair->core, &pair->core);
    for (int i = 0; i < S_PINGPONG_ROUNDS; i++) {
        if (read(pair->ping_fd, &value, sizeof value) != sizeof value ||
            write(pair->pong_fd, &value, sizeof value) != sizeof value) {
            break;
        }
    }
    return NULL;
}

uint64_t dkt_bench_pingpong_us(void)
{
    static dkt_histogram_t histogram;
    s_pair_t pair = {.ping_fd = eventfd(0, EFD_CLOEXEC), .pong_fd = eventfd(0, EFD_CLOEXEC)};
    cpu_set_t allowed, own;
    pthread_t thread;
    uint64_t value = 1;
    memset(&histogram, 0, sizeof histogram);
    /* On one core a hop is a switch without a wake-up: not what the processes of a fleet see. */
    (void)sched_getaffinity(0, sizeof allowed, &allowed);
    s_two_cores(&allowed, &own, &pair.core);
    (void)sched_setaffinity(0, sizeof own, &own);
    if (pair.ping_fd >= 0 && pair.pong_fd >= 0 &&
        pthread_create(&thread, NULL, s_echo, &pair) == 0) {
        for (int i = 0; i < S_PINGPONG_ROUNDS; i++) {
            int64_t start_us = dkt_mono_us();
            if (write(pair.ping_fd, &value, sizeof value) != sizeof value ||
                read(pair.pong_fd, &value, sizeof value) != sizeof value) {
                break;
            }
            dkt_histogram_add(&histogram, (uint64_t)(dkt_mono_us() - start_us));
        }
        pthread_join(thread, NULL);
    }
    (void)sched_setaffinity(0, sizeof allowed, &allowed);
    close(pair.ping_fd);
    close(pair.pong_fd);
    return dkt_histogram_at(&histogram, S_P50);
}
