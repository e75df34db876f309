/* SPDX-License-Identifier: Apache-2.0
 *
 * docket demo: a whole fleet, a day of many companies in a minute, and the proof afterwards.
 */
#include "ops/demo.h"

#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "ops/cmd.h"
#include "ops/cmd_common.h"

#define S_SECONDS_DEFAULT   60
#define S_SECONDS_MAX       86400
#define S_COMPANIES_DEFAULT 36
#define S_PORT_MAX          65000
#define S_WAIT_MS           500

static volatile sig_atomic_t s_stop;

static void s_on_signal(int signal_number)
{
    (void)signal_number;
    s_stop = 1;
}

bool dkt_demo_stopped(void)
{
    return s_stop != 0;
}

/* -- options ---------------------------------------------------------------------------------- */

static void s_usage(FILE *out)
{
    fprintf(out,
            "usage: docket demo [options]\n"
            "A fleet, many companies, a day in a minute, and the proof that no promise was "
            "broken.\n\n"
            "  --once          stop the fleet afterwards; exit 0 if all was proved, else 1\n"
            "  --seconds N     how long the day lasts, default %d\n"
            "  --companies N   default %d, at most %d\n"
            "  --data DIR      keep the fleet's data there, default a temporary folder\n"
            "  --port N        the fleet's first port, default 7410 or the next free one\n",
            S_SECONDS_DEFAULT, S_COMPANIES_DEFAULT, DKT_DEMO_COMPANIES_MAX);
}

static bool s_number(const char *text, int min, int max, int *out)
{
    char *end = NULL;
    long value = strtol(text, &end, 10);
    if (end == text || *end || value < min || value > max) {
        fprintf(stderr, "docket demo: %s is not a number from %d to %d\n", text, min, max);
        return false;
    }
    *out = (int)value;
    return true;
}

/* 0: go on; 1: wrong; 2: help was asked for. */
static int s_parse(int argc, char **argv, dkt_demo_options_t *options)
{
    const struct {
        const char *word;
        int *number;
        int min, max;
    } numbers[] = {{"--port", &options->port, 1024, S_PORT_MAX},
                   {"--seconds", &options->seconds, 1, S_SECONDS_MAX},
                   {"--companies", &options->companies, 1, DKT_DEMO_COMPANIES_MAX}};
    for (int i = 1; i < argc; i++) {
        bool known = true;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            return 2;
        }
        if (strcmp(argv[i], "--once") == 0) {
            options->once = true;
            continue;
        }
        if (strcmp(argv[i], "--data") == 0 && i + 1 < argc) {
            options->data = argv[++i];
            continue;
        }
        known = false;
        for (size_t k = 0; k < sizeof numbers / sizeof numbers[0] && !known; k++) {
            if (strcmp(argv[i], numbers[k].word) == 0 && i + 1 < argc) {
                known = true;
                if (!s_number(argv[++i], numbers[k].min, numbers[k].max, numbers[k].number)) {
                    return 1;
                }
            }
        }
        if (!known) {
            fprintf(stderr, "docket demo: unknown or incomplete option %s\n", argv[i]);
            return 1;
        }
    }
    return 0;
}

/* -- phases ----------------------------------------------------------------------------------- */

static bool s_connect(dkt_demo_t *self)
{
    dkt_err_t err;
    dkt_cmd_keys_t keys;
    dkt_producer_options_t options = {
        .endpoint = self->fleet.public_endpoint,
        .in_flight_max = DKT_OPEN_PER_CONNECTION_MAX,
    };
    self->producers[0] = dkt_producer_new(&options, &err);
    options.endpoint = self->fleet.internal_endpoint;
    if (self->producers[0] && dkt_cmd_keys(self->fleet.keys, &keys, &options, &err) == DKT_OK) {
        self->producers[1] = dkt_producer_new(&options, &err);
    }
    if (!self->producers[1]) {
        fprintf(stderr, "docket demo: %s\n", err.text);
        return false;
    }
    return true;
}

/* Three commands that work as they stand. */
static void s_print_next(const dkt_demo_t *self)
{
    const dkt_demo_company_t *company = &self->companies[0];
    const dkt_ack_t *ack = NULL;
    for (size_t i = 0; i < self->ack_count; i++) {
        if (self->acks[i].company == 0 && self->acks[i].state == DKT_ACK_CREATED) {
            ack = &self->acks[i];
        }
    }
    printf("\nThe fleet keeps running. Try it from another terminal:\n"
           "  export DOCKET_ENDPOINT=%s DOCKET_CLIENT=%s DOCKET_TOKEN=%s\n"
           "  %s ticket create --type gold --subject \"printer on fire\"\n"
           "  %s ticket get %s\n"
           "  %s ticket list --state open --limit 10\n"
           "Ctrl-C stops the fleet%s.\n",
           self->fleet.public_endpoint, company->client_id, company->token, program_invocation_name,
           program_invocation_name, ack ? ack->ticket_id : "TICKET_ID", program_invocation_name,
           self->options.data ? " and keeps its data" : " and removes its data");
    fflush(stdout);
}

static bool s_run(dkt_demo_t *self)
{
    const dkt_fleet_options_t options = {.who = "docket demo",
                                         .data = self->options.data,
                                         .port = self->options.port,
                                         .out = stdout,
                                         .stopped = dkt_demo_stopped};
    if (!dkt_fleet_start(&self->fleet, &options) || !dkt_demo_setup(self) || !s_connect(self)) {
        return false;
    }
    if (!dkt_demo_day(self)) {
        fprintf(stderr, "docket demo: %s\n",
                dkt_demo_stopped() ? "stopped" : "the fleet ended before the day did");
        return false;
    }
    if (self->error_text[0]) {
        printf("the last error: %s\n", self->error_text);
    }
    bool proved = dkt_demo_proof(self);
    printf("\n%s\n", proved ? "All proved." : "NOT proved.");
    fflush(stdout);
    return proved;
}

static void s_wait(dkt_demo_t *self)
{
    s_print_next(self);
    while (!dkt_demo_stopped() && dkt_fleet_alive(&self->fleet)) {
        poll(NULL, 0, S_WAIT_MS);
    }
}

static void s_init(dkt_demo_t *self)
{
    struct sigaction action = {.sa_handler = s_on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    setlocale(LC_CTYPE, "");
    self->tty = isatty(STDOUT_FILENO);
    self->utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    self->company_count = (size_t)self->options.companies;
    self->companies = calloc(self->company_count, sizeof *self->companies);
    if (getrandom(&self->random, sizeof self->random, 0) != sizeof self->random ||
        self->random == 0) {
        self->random = 1;
    }
}

int dkt_demo_main(int argc, char **argv)
{
    static dkt_demo_t self; /* 20 KiB of histogram among others */
    self =
        (dkt_demo_t){.options = {.seconds = S_SECONDS_DEFAULT, .companies = S_COMPANIES_DEFAULT}};
    int parsed = s_parse(argc, argv, &self.options);
    if (parsed != 0) {
        s_usage(parsed == 2 ? stdout : stderr);
        return parsed == 2 ? 0 : 2;
    }
    s_init(&self);
    bool proved = self.companies && s_run(&self);
    if (!self.options.once && !dkt_demo_stopped() && self.fleet.pid > 0 && self.ack_count > 0) {
        s_wait(&self);
    }
    dkt_producer_destroy(&self.producers[0]);
    dkt_producer_destroy(&self.producers[1]);
    dkt_fleet_stop(&self.fleet);
    free(self.companies);
    free(self.acks);
    free(self.done);
    return proved ? 0 : 1;
}
