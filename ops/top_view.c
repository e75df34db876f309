/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/top_view.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define S_MS_PER_S      1000.0
#define S_NAME_MAX      32
#define S_METHODS_MAX   32
#define S_TIME_BYTES    16
#define S_LAG_WARN_S    5.0
#define S_BOLD          "\033[1m"
#define S_RED           "\033[31m"
#define S_PLAIN         "\033[0m"
#define S_REQUESTS      "docket_requests_total"
#define S_REFUSED_TOTAL "docket_refused_total"

/* -- reading -- */

static double s_number(json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static json_t *s_metric(json_t *stats, const char *name)
{
    return json_object_get(json_object_get(stats, "metrics"), name);
}

static double s_seconds(const dkt_top_node_t *node)
{
    return node->before
               ? (s_number(node->now, "at_ms") - s_number(node->before, "at_ms")) / S_MS_PER_S
               : 0;
}

static double s_per_second(const dkt_top_node_t *node, double now, double before)
{
    double seconds = s_seconds(node);
    /* Counters of a process that was restarted begin anew. */
    return seconds > 0 && now >= before ? (now - before) / seconds : 0;
}

static double s_rate(const dkt_top_node_t *node, const char *key)
{
    return s_per_second(node, s_number(node->now, key), s_number(node->before, key));
}

static bool s_has_role(const dkt_top_node_t *node, const char *role)
{
    const char *text = json_string_value(json_object_get(node->now, "role"));
    return text && strcmp(text, role) == 0;
}

/* How the requests of one method, or of all, ended. */
typedef struct {
    double ok, refused, errors;
} s_endings_t;

static void s_add_endings(json_t *endings, s_endings_t *sum)
{
    const char *name;
    json_t *value;
    json_object_foreach(endings, name, value)
    {
        double count = json_number_value(value);
        if (strcmp(name, "ok") == 0) {
            sum->ok += count;
        } else if (strcmp(name, "refused") == 0) {
            sum->refused += count;
        } else {
            sum->errors += count;
        }
    }
}

/* `method` NULL: of all. */
static s_endings_t s_endings(json_t *stats, const char *method)
{
    s_endings_t sum = {0};
    const char *name;
    json_t *endings;
    json_object_foreach(s_metric(stats, S_REQUESTS), name, endings)
    {
        if (!method || strcmp(method, name) == 0) {
            s_add_endings(endings, &sum);
        }
    }
    return sum;
}

static s_endings_t s_ending_rates(const dkt_top_node_t *node, const char *method)
{
    s_endings_t now = s_endings(node->now, method), before = s_endings(node->before, method);
    return (s_endings_t){.ok = s_per_second(node, now.ok, before.ok),
                         .refused = s_per_second(node, now.refused, before.refused),
                         .errors = s_per_second(node, now.errors, before.errors)};
}

static double s_ms(json_t *stats, const char *metric, const char *percentile)
{
    return s_number(s_metric(stats, metric), percentile) * S_MS_PER_S;
}

/* -- showing -- */

static void s_show_title(const dkt_top_node_t *nodes, uint32_t count, bool color)
{
    uint32_t brokers = 0, workers = 0;
    double tenants = 0, epoch = 0, version = 0;
    const char *leader = "nobody";
    char clock[S_TIME_BYTES] = "";
    time_t now = time(NULL);
    struct tm local;
    for (uint32_t i = 0; i < count; i++) {
        json_t *table = json_object_get(nodes[i].now, "table");
        brokers += s_has_role(&nodes[i], "broker");
        workers += s_has_role(&nodes[i], "worker");
        tenants += s_has_role(&nodes[i], "worker") ? s_number(nodes[i].now, "tenants") : 0;
        if (s_number(table, "version") > version) {
            epoch = s_number(table, "epoch");
            version = s_number(table, "version");
        }
        if (json_is_true(json_object_get(nodes[i].now, "leader"))) {
            leader = nodes[i].node;
        }
    }
    localtime_r(&now, &local);
    strftime(clock, sizeof clock, "%H:%M:%S", &local);
    printf("%sdocket %s  %u brokers, %u workers, %.0f tenants active, leader %s, table %.0f.%.0f%s"
           "\n",
           color ? S_BOLD : "", clock, brokers, workers, tenants, leader, epoch, version,
           color ? S_PLAIN : "");
}

static void s_show_brokers(const dkt_top_node_t *nodes, uint32_t count)
{
    static const char metric[] = "docket_request_duration_seconds";
    printf("\n%-16s %9s %9s %9s %7s %7s %8s %8s %8s %8s\n", "BROKER", "req/s", "refused/s",
           "errors/s", "open", "conns", "p50 ms", "p99 ms", "p999 ms", "ctx lag");
    for (uint32_t i = 0; i < count; i++) {
        const dkt_top_node_t *node = &nodes[i];
        if (!s_has_role(node, "broker")) {
            continue;
        }
        s_endings_t rates = s_ending_rates(node, NULL);
        printf("%-16s %9.1f %9.1f %9.1f %7.0f %7.0f %8.1f %8.1f %8.1f %8.0f\n", node->node,
               s_rate(node, "requests"), rates.refused, rates.errors, s_number(node->now, "open"),
               s_number(node->now, "connections"), s_ms(node->now, metric, "p50"),
               s_ms(node->now, metric, "p99"), s_ms(node->now, metric, "p999"),
               s_number(json_object_get(node->now, "metrics"), "docket_ctx_lag"));
    }
}

static void s_show_worker(const dkt_top_node_t *node, bool color)
{
    static const char commit[] = "docket_commit_seconds";
    json_t *metrics = json_object_get(node->now, "metrics");
    json_t *relay = json_object_get(node->now, "relay"),
           *before = json_object_get(node->before, "relay");
    double lag = s_number(metrics, "docket_relay_lag_seconds");
    double breaches = s_number(metrics, "docket_breaches_total");
    const char *share = json_string_value(json_object_get(node->now, "share"));
    bool warn = color && (lag > S_LAG_WARN_S || breaches > 0);
    printf("%s%-16s %-8s %7.0f %9.1f %8.1f %6.1f %8.1f %8.1f %6.0f %7.0f %8.1f %7.1f %8.0f%s%s\n",
           warn ? S_RED : "", node->node, share ? share : "", s_number(node->now, "tenants"),
           s_rate(node, "requests"), s_rate(node, "commits"),
           s_number(s_metric(node->now, "docket_commit_group_size"), "mean"),
           s_ms(node->now, commit, "p50"), s_ms(node->now, commit, "p99"),
           s_number(metrics, "docket_holds"), s_number(metrics, "docket_open_tickets"),
           s_per_second(node, s_number(relay, "published"), s_number(before, "published")), lag,
           breaches, json_is_true(json_object_get(node->now, "leader")) ? "  leader" : "",
           warn ? S_PLAIN : "");
}

static void s_show_workers(const dkt_top_node_t *nodes, uint32_t count, bool color)
{
    printf("\n%-16s %-8s %7s %9s %8s %6s %8s %8s %6s %7s %8s %7s %8s\n", "WORKER", "share",
           "tenants", "req/s", "commit/s", "group", "c.p50 ms", "c.p99 ms", "holds", "tickets",
           "events/s", "lag s", "breaches");
    for (uint32_t i = 0; i < count; i++) {
        if (s_has_role(&nodes[i], "worker")) {
            s_show_worker(&nodes[i], color);
        }
    }
}

static bool s_is_listed(const char *const *methods, uint32_t count, const char *name)
{
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(methods[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* As the brokers see them: each request once. */
static void s_show_methods(const dkt_top_node_t *nodes, uint32_t count)
{
    const char *methods[S_METHODS_MAX], *name;
    uint32_t method_count = 0;
    json_t *endings;
    for (uint32_t i = 0; i < count; i++) {
        json_t *all = s_has_role(&nodes[i], "broker") ? s_metric(nodes[i].now, S_REQUESTS) : NULL;
        json_object_foreach(all, name, endings)
        {
            if (method_count < S_METHODS_MAX && !s_is_listed(methods, method_count, name)) {
                methods[method_count++] = name;
            }
        }
    }
    printf("\n%-16s %9s %9s %9s\n", "METHOD", "ok/s", "refused/s", "errors/s");
    for (uint32_t m = 0; m < method_count; m++) {
        s_endings_t sum = {0};
        for (uint32_t i = 0; i < count; i++) {
            if (s_has_role(&nodes[i], "broker")) {
                s_endings_t rates = s_ending_rates(&nodes[i], methods[m]);
                sum.ok += rates.ok;
                sum.refused += rates.refused;
                sum.errors += rates.errors;
            }
        }
        printf("%-16s %9.1f %9.1f %9.1f\n", methods[m], sum.ok, sum.refused, sum.errors);
    }
}

void dkt_top_show(const dkt_top_node_t *nodes, uint32_t count, bool color)
{
    s_show_title(nodes, count, color);
    s_show_brokers(nodes, count);
    s_show_workers(nodes, count, color);
    s_show_methods(nodes, count);
}
