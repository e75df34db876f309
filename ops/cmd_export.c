/* SPDX-License-Identifier: Apache-2.0
 *
 * docket tenant export: the command around export.c.
 */
#include <getopt.h>
#include <inttypes.h>
#include <unistd.h>

#include "ops/life.h"

static const char s_usage[] =
    "usage: docket tenant export CLIENT_ID --out DIR [OPTIONS]\n"
    "\n"
    "Writes all data of a tenant as files, from one consistent snapshot, while it is served:\n"
    "tickets, journal (with its events) and changes of settings as JSON lines, settings and\n"
    "account as JSON, and last DIR/manifest.json with rows, bytes and SHA-256 of each file, epoch\n"
    "and time of the snapshot.\n"
    "Again into the same folder: the new export replaces the old one when it is whole. A folder\n"
    "that holds anything else is refused. No password leaves with an export.\n"
    "  --out DIR       where to; made if it is not there\n" DKT_LIFE_WHERE_HELP
    "  --json          print the result as one line of JSON\n"
    "  --help          this text\n"
    "\n"
    "Exit status: 0 done, 1 failed, 2 wrong use.\n";

typedef struct {
    dkt_life_where_t where;
    const char *client_id, *out;
    bool json;
} s_options_t;

/* -1: go on; otherwise the exit status. */
static int s_parse(int argc, char **argv, s_options_t *options)
{
    static const struct option rows[] = {
        {"out", required_argument, NULL, 'o'},  {"data", required_argument, NULL, 'd'},
        {"join", required_argument, NULL, 'e'}, {"endpoint", required_argument, NULL, 'e'},
        {"keys", required_argument, NULL, 'k'}, {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},       {NULL, 0, NULL, 0},
    };
    int letter;
    optind = 0;
    while ((letter = getopt_long(argc, argv, "h", rows, NULL)) != -1) {
        if (letter == 'o') {
            options->out = optarg;
        } else if (letter == 'd') {
            options->where.data = optarg;
        } else if (letter == 'e') {
            options->where.join = optarg;
        } else if (letter == 'k') {
            options->where.keys = optarg;
        } else if (letter == 'j') {
            options->json = true;
        } else {
            fputs(s_usage, letter == 'h' ? stdout : stderr);
            return letter == 'h' ? 0 : 2;
        }
    }
    options->client_id = optind < argc ? argv[optind] : NULL;
    if (optind + 1 != argc || !options->out) {
        fputs(s_usage, stderr);
        return 2;
    }
    return -1;
}

static void s_print(const s_options_t *options, const dkt_exported_t *done)
{
    if (options->json) {
        json_t *all =
            json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "status", "exported", "client_id",
                      options->client_id, "out", options->out, "manifest_sha256", done->sha256,
                      "tickets", (json_int_t)done->tickets, "journal", (json_int_t)done->journal,
                      "bytes", (json_int_t)done->bytes);
        json_dumpf(all, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(all);
        return;
    }
    printf("%" PRIu64 " tickets and %" PRIu64 " journal rows, %.1f MB, in %s\n"
           "manifest.json  sha256 %s\n",
           done->tickets, done->journal, (double)done->bytes / 1e6, options->out, done->sha256);
}

int dkt_export_main(int argc, char **argv)
{
    s_options_t options = {0};
    dkt_exported_t done;
    dkt_err_t err;
    int parsed = s_parse(argc, argv, &options);
    if (parsed >= 0) {
        return parsed;
    }
    dkt_status_t status = dkt_life_find(&options.where, &err);
    if (status == DKT_OK) {
        dkt_export_t export = {.where = &options.where,
                               .client_id = options.client_id,
                               .out = options.out,
                               .progress = isatty(STDERR_FILENO) == 1};
        status = dkt_export_run(&export, &done, &err);
    }
    if (status != DKT_OK) {
        fprintf(stderr, "docket tenant export: %s\n", err.text);
        return status == DKT_INVALID_ARGUMENT ? 2 : 1;
    }
    s_print(&options, &done);
    return 0;
}
