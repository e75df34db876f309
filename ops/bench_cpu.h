/* SPDX-License-Identifier: Apache-2.0
 *
 * CPU time of a fleet by role, read from /proc: what a request costs, whatever else the machine
 * does meanwhile.
 */
#ifndef DKT_OPS_BENCH_CPU_H
#define DKT_OPS_BENCH_CPU_H

typedef enum {
    DKT_BENCH_CPU_BENCH, /* this process */
    DKT_BENCH_CPU_BROKER,
    DKT_BENCH_CPU_WORKER,
    DKT_BENCH_CPU_POSTGRES,
    DKT_BENCH_CPU_REST,
    DKT_BENCH_CPU_COUNT
} dkt_bench_cpu_role_t;

extern const char *const dkt_bench_cpu_names[DKT_BENCH_CPU_COUNT];

typedef struct {
    double us[DKT_BENCH_CPU_COUNT];
} dkt_bench_cpu_t;

/* What this process and the descendants of `fleet_pid` have used so far; 0: this process alone. */
void dkt_bench_cpu_read(int fleet_pid, dkt_bench_cpu_t *cpu);

/* Resident memory of a process; 0: there is none such. */
double dkt_bench_memory_kib(int pid);

#endif
