/* SPDX-License-Identifier: Apache-2.0
 *
 * `docket`: one program, a table of commands. A new command is a row here and a line in cmd.h
 * or commands.h.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "brokers/broker.h"
#include "ops/cmd.h"
#include "ops/commands.h"
#include "workers/worker.h"

typedef struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} s_command_t;

static int s_bench_main(int argc, char **argv);

static const s_command_t s_commands[] = {
    {"up", dkt_up_main, "start a whole fleet in the foreground and keep it running"},
    {"demo", dkt_demo_main, "a fleet, a few tenants and tickets, to see it work"},
    {"account", dkt_cmd_account_main, "create | login | logout | password"},
    {"ticket", dkt_cmd_ticket_main, "create | cancel | get | list | resolve, and holds"},
    {"tenant", dkt_cmd_tenant_main,
     "get | set | list | suspend | resume | export | delete | receipt"},
    {"events", dkt_events_main, "tail: what happens to tickets, as it happens"},
    {"top", dkt_top_main, "what every worker does, once a second"},
    {"migrate", dkt_migrate_main, "new schemas into a running fleet, tenant by tenant"},
    {"worker", dkt_worker_main, "one more worker for a running fleet"},
    {"broker", dkt_broker_main, "one more broker for a running fleet"},
    {"bench", s_bench_main, "measure docket beside its peers, in one command or one by one"},
    {"doctor", dkt_doctor_main, "is this machine fit for a fleet, and what to do if not"},
    {NULL, NULL, NULL},
};

static const s_command_t s_benches[] = {
    {"all", dkt_bench_suite_main, "every scenario, with a fleet and peers of its own; the default"},
    {"p1", dkt_bench_suite_main, "durable tickets, beside a function inside PostgreSQL"},
    {"p2", dkt_bench_suite_main, "the same beside a script inside Redis"},
    {"p3", dkt_bench_suite_main, "decisions that write nothing, beside a chain that echoes"},
    {"p4", dkt_bench_suite_main, "one ticket at a time, beside a chain and a commit"},
    {"p5", dkt_bench_suite_main, "CPU time of a request with few and many tenants"},
    {"p6", dkt_bench_suite_main, "memory of an active tenant, and its activation"},
    {"p7", dkt_bench_suite_main, "decisions of the ledger, beside a naive scan"},
    {"p8", dkt_bench_suite_main, "a tenant that floods, and what the others see of it"},
    {"p9", dkt_bench_suite_main, "second 0 of a minute, when every tenant dispatches"},
    {"p10", dkt_bench_suite_main, "CPU time of a request with a second worker"},
    {"policy", dkt_bench_policy_main, "how many promises each policy can keep"},
    {"ledger", dkt_bench_ledger_main, "decisions per second of the slot ledger"},
    {"load", dkt_bench_load_main, "requests per second and latency of a running fleet"},
    {"chain", dkt_bench_chain_main, "the fleet's sockets and threads when they only echo"},
    {"plpgsql", dkt_bench_plpgsql_main, "the same decisions as a function inside PostgreSQL"},
    {"redis", dkt_bench_redis_main, "the same decisions as a script inside Redis"},
    {NULL, NULL, NULL},
};

static void s_usage(FILE *out, const char *program, const s_command_t *commands)
{
    fprintf(out, "usage: %s COMMAND [OPTIONS]\n\n", program);
    for (const s_command_t *row = commands; row->name; row++) {
        fprintf(out, "  %-8s %s\n", row->name, row->help);
    }
    fprintf(out,
            "\n%s COMMAND --help tells more. Exit status: 0 done, 1 refused or failed, "
            "2 wrong use.\n",
            program);
}

/* argv[0] is the program's or the group's own name. */
static int s_dispatch(const char *program, const s_command_t *commands, int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        s_usage(stdout, program, commands);
        return 0;
    }
    if (strcmp(name, "--version") == 0) {
        printf("docket %s\n", DKT_VERSION);
        return 0;
    }
    for (const s_command_t *row = commands; row->name; row++) {
        if (strcmp(row->name, name) == 0) {
            /* `--version` everywhere: answered here, so that no command has to. */
            if (argc > 2 && strcmp(argv[2], "--version") == 0) {
                printf("docket %s\n", DKT_VERSION);
                return 0;
            }
            return row->run(argc - 1, argv + 1);
        }
    }
    if (name[0]) {
        fprintf(stderr, "%s: there is no command \"%s\"\n", program, name);
    }
    s_usage(stderr, program, commands);
    return 2;
}

static int s_bench_main(int argc, char **argv)
{
    /* Options without a name: all. Help and version are the group's own. */
    const char *first = argc > 1 ? argv[1] : "--";
    if (first[0] == '-' && strcmp(first, "--help") != 0 && strcmp(first, "-h") != 0 &&
        strcmp(first, "--version") != 0) {
        return dkt_bench_suite_main(argc, argv);
    }
    return s_dispatch("docket bench", s_benches, argc, argv);
}

int main(int argc, char **argv)
{
    /* Started through a descriptor (docket up), the kernel would name us after its number. */
    prctl(PR_SET_NAME, "docket");
    return s_dispatch("docket", s_commands, argc, argv);
}
