/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/bench_cpu.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define S_PROCESSES_MAX 4096
#define S_US_PER_S      1000000.0
#define S_NS_PER_US     1000.0
#define S_CMDLINE_BYTES 64

const char *const dkt_bench_cpu_names[DKT_BENCH_CPU_COUNT] = {"bench", "broker", "worker",
                                                              "postgres", "rest"};

typedef struct {
    int pid, parent;
    char name[32];
    unsigned long long own_ticks, child_ticks; /* user and system; of ended and awaited children */
    bool ours;
} s_process_t;

static bool s_read_process(int pid, s_process_t *process)
{
    char path[48], line[1024] = {0};
    unsigned long long user = 0, kernel = 0, child_user = 0, child_kernel = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file) {
        return false; /* it has ended meanwhile */
    }
    bool got = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    char *open = strchr(line, '('), *close = strrchr(line, ')');
    if (!got || !open || !close) {
        return false;
    }
    process->pid = pid;
    process->ours = false;
    snprintf(process->name, sizeof process->name, "%.*s", (int)(close - open - 1), open + 1);
    if (sscanf(close + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %llu %llu",
               &process->parent, &user, &kernel, &child_user, &child_kernel) != 5) {
        return false;
    }
    process->own_ticks = user + kernel;
    process->child_ticks = child_user + child_kernel;
    return true;
}

/* Brokers and workers are the same program: their second argument tells. */
static dkt_bench_cpu_role_t s_role(const s_process_t *process)
{
    char path[48], text[S_CMDLINE_BYTES] = {0};
    if (strcmp(process->name, "postgres") == 0) {
        return DKT_BENCH_CPU_POSTGRES;
    }
    snprintf(path, sizeof path, "/proc/%d/cmdline", process->pid);
    FILE *file = fopen(path, "r");
    size_t len = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file) {
        fclose(file);
    }
    const char *second = strlen(text) + 1 < len ? text + strlen(text) + 1 : "";
    return strcmp(second, "broker") == 0   ? DKT_BENCH_CPU_BROKER
           : strcmp(second, "worker") == 0 ? DKT_BENCH_CPU_WORKER
                                           : DKT_BENCH_CPU_REST;
}

static int s_read_all(s_process_t *processes)
{
    int count = 0;
    DIR *dir = opendir("/proc");
    const struct dirent *entry;
    while (dir && count < S_PROCESSES_MAX && (entry = readdir(dir))) {
        int pid = atoi(entry->d_name);
        count += pid > 0 && s_read_process(pid, &processes[count]);
    }
    if (dir) {
        closedir(dir);
    }
    return count;
}

/* Parents may come after their children in the list: again until nothing new is found. */
static void s_mark_descendants(s_process_t *processes, int count, int root)
{
    bool again = true;
    while (again) {
        again = false;
        for (int i = 0; i < count; i++) {
            bool ours = processes[i].pid == root;
            for (int j = 0; !ours && j < count; j++) {
                ours = processes[j].ours && processes[j].pid == processes[i].parent;
            }
            again |= ours && !processes[i].ours;
            processes[i].ours |= ours;
        }
    }
}

/* The kernel counts in ticks of 10 ms and tells whole ones only: too coarse for a thousand backends
 * that each work a little. Of a process with one thread, as they are, it tells nanoseconds too. */
static double s_own_us(const s_process_t *process, dkt_bench_cpu_role_t role)
{
    char path[48];
    unsigned long long ns = 0;
    double ticks_us = (double)process->own_ticks * S_US_PER_S / (double)sysconf(_SC_CLK_TCK);
    snprintf(path, sizeof path, "/proc/%d/schedstat", process->pid);
    FILE *file = role == DKT_BENCH_CPU_POSTGRES ? fopen(path, "r") : NULL;
    bool got = file && fscanf(file, "%llu", &ns) == 1 && ns > 0;
    if (file) {
        fclose(file);
    }
    return got ? (double)ns / S_NS_PER_US : ticks_us;
}

double dkt_bench_memory_kib(int pid)
{
    char path[48], line[256];
    double kib = 0;
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    FILE *file = fopen(path, "r");
    while (file && kib == 0 && fgets(line, sizeof line, file)) {
        if (sscanf(line, "Rss: %lf kB", &kib) != 1) {
            kib = 0;
        }
    }
    if (file) {
        fclose(file);
    }
    return kib;
}

void dkt_bench_cpu_read(int fleet_pid, dkt_bench_cpu_t *cpu)
{
    static s_process_t processes[S_PROCESSES_MAX];
    struct rusage usage;
    *cpu = (dkt_bench_cpu_t){0};
    getrusage(RUSAGE_SELF, &usage);
    cpu->us[DKT_BENCH_CPU_BENCH] =
        (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * S_US_PER_S +
        (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    int count = fleet_pid > 0 ? s_read_all(processes) : 0;
    s_mark_descendants(processes, count, fleet_pid);
    for (int i = 0; i < count; i++) {
        if (processes[i].ours && processes[i].pid != getpid()) {
            dkt_bench_cpu_role_t role = s_role(&processes[i]);
            cpu->us[role] += s_own_us(&processes[i], role) + (double)processes[i].child_ticks *
                                                                 S_US_PER_S /
                                                                 (double)sysconf(_SC_CLK_TCK);
        }
    }
}
