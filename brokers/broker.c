/* SPDX-License-Identifier: Apache-2.0
 *
 * The broker's command line and process: limits, signals, its entry in the control database, and
 * then the hub.
 */
#include "brokers/broker.h"

#include <getopt.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "brokers/hub.h"
#include "brokers/join.h"
#include "lib/core/router.h"
#include "lib/edge/log.h"

typedef struct {
    dkt_hub_config_t hub;
    char *join; /* control database; NULL: not entered anywhere */
    bool help;
} s_options_t;

static const char s_usage[] =
    "usage: docket broker --public ADDR --internal ADDR --workers ADDR --keys DIR --node NAME\n"
    "                     [--join URI] [--nats URL] [--ready-fd N] [--insecure-dev]\n"
    "  --public ADDR    where producers connect, such as tcp://127.0.0.1:7410\n"
    "  --internal ADDR  where services inside the VPN connect (CURVE)\n"
    "  --workers ADDR   where workers connect; loopback only\n"
    "  --keys DIR       the fleet's keys\n"
    "  --node NAME      what ping answers, at most 63 bytes\n"
    "  --join URI       enter the workers' address in this control database as soon as it is\n"
    "                   there, then forget it\n"
    "  --nats URL       where tenant context is heard; without it, over the workers only\n"
    "  --ready-fd N     write \"ready\" there when requests can be routed\n"
    "  --insecure-dev   no CURVE on the internal endpoint\n";

static const struct option s_long[] = {{"public", required_argument, NULL, 'p'},
                                       {"internal", required_argument, NULL, 'i'},
                                       {"workers", required_argument, NULL, 'w'},
                                       {"keys", required_argument, NULL, 'k'},
                                       {"node", required_argument, NULL, 'n'},
                                       {"join", required_argument, NULL, 'j'},
                                       {"ready-fd", required_argument, NULL, 'r'},
                                       {"insecure-dev", no_argument, NULL, 'd'},
                                       {"nats", required_argument, NULL, 'N'},
                                       {"help", no_argument, NULL, 'h'},
                                       {NULL, 0, NULL, 0}};

static bool s_parse_fd(const char *text, int *fd)
{
    char *end = NULL;
    long value = strtol(text, &end, 10);
    *fd = (int)value;
    return *text && !*end && value >= 0 && value <= INT16_MAX;
}

static bool s_set(s_options_t *options, int option)
{
    bool ok = true;
    switch (option) {
    case 'p':
        options->hub.public_address = optarg;
        break;
    case 'i':
        options->hub.internal_address = optarg;
        break;
    case 'w':
        options->hub.workers_address = optarg;
        break;
    case 'k':
        options->hub.keys = optarg;
        break;
    case 'n':
        options->hub.node = optarg;
        break;
    case 'j':
        options->join = optarg;
        break;
    case 'N':
        options->hub.nats = optarg;
        break;
    case 'r':
        ok = s_parse_fd(optarg, &options->hub.ready_fd);
        break;
    case 'd':
        options->hub.insecure_dev = true;
        break;
    case 'h':
        options->help = true;
        break;
    default:
        ok = false;
    }
    return ok;
}

static bool s_parse(int argc, char **argv, s_options_t *options)
{
    *options = (s_options_t){.hub = {.ready_fd = -1}};
    bool ok = true;
    int option = 0;
    optind = 0; /* glibc: start over, another command may have parsed before */
    while (ok && (option = getopt_long(argc, argv, "", s_long, NULL)) != -1) {
        ok = s_set(options, option);
    }
    const dkt_hub_config_t *hub = &options->hub;
    return options->help || (ok && optind == argc && hub->public_address && hub->internal_address &&
                             hub->workers_address && hub->keys && hub->node && *hub->node &&
                             strlen(hub->node) <= DKT_NODE_BYTES_MAX);
}

/* Connections are descriptors: as many as we may have. */
static void s_raise_limits(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &files) != 0) {
            dkt_log(DKT_LOG_WARN, "the limit of open files stays as it is");
        }
    }
}

static dkt_status_t s_serve(s_options_t *options, dkt_err_t *err)
{
    dkt_join_t *join = NULL;
    if (options->join) {
        join = dkt_join_new(options->join, options->hub.node, options->hub.workers_address);
        options->join = NULL;
        if (!join) {
            return dkt_fail(err, DKT_INTERNAL, NULL, "no memory, or no thread");
        }
    }
    dkt_hub_t *hub = dkt_hub_new(&options->hub, err);
    dkt_status_t status = hub ? DKT_OK : err->status;
    if (hub) {
        dkt_log(DKT_LOG_INFO, "public %s internal %s workers %s", options->hub.public_address,
                options->hub.internal_address, options->hub.workers_address);
        status = dkt_hub_run(hub, err);
        dkt_hub_destroy(&hub);
    }
    dkt_join_destroy(&join);
    return status;
}

int dkt_broker_main(int argc, char **argv)
{
    s_options_t options;
    if (!s_parse(argc, argv, &options)) {
        fputs(s_usage, stderr);
        return 2;
    }
    if (options.help) {
        fputs(s_usage, stdout);
        return 0;
    }
    /* Blocked before any thread is started, so that only the loop sees them. */
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGHUP);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGTERM);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    signal(SIGPIPE, SIG_IGN);
    dkt_log_init("broker", options.hub.node);
    s_raise_limits();
    dkt_err_t err = {.status = DKT_INTERNAL};
    if (sodium_init() < 0) {
        (void)dkt_fail(&err, DKT_INTERNAL, NULL, "libsodium cannot start");
    } else if (s_serve(&options, &err) == DKT_OK) {
        return 0;
    }
    dkt_log(DKT_LOG_ERROR, "%s", err.text);
    return 1;
}
