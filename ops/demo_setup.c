/* SPDX-License-Identifier: Apache-2.0
 *
 * The companies of the demo: sizes, appetites and mixes from a table, then accounts and logins
 * through the public endpoint.
 */
#include <stdio.h>
#include <stdlib.h>

#include "ops/demo.h"
#include "ops/result.h"

#define S_PASSWORD     "correct horse battery staple"
#define S_DAY_MINUTES  480.0 /* a resolver's capacity: one ticket a minute, the longest level */
#define S_RATE_MAX     250.0 /* of one company, so that short demos stay a demo */
#define S_POLL_MS      50
#define S_RATE_ACCOUNT 20 /* the quota of create_account and login, per second */
#define S_SETUP_MS     120000

typedef struct {
    const char *name;
    uint16_t resolvers;
    uint8_t mix[DKT_DEMO_CLASSES];
    double appetite; /* 1: in the time of the demo it asks for all the minutes it has */
    bool bursty;
} s_template_t;

static const s_template_t s_templates[] = {
    {"Aurora Air", 16, {45, 35, 20}, 0.90, true},
    {"Baltic Freight", 8, {20, 30, 50}, 0.70, false},
    {"Cedar Bank", 12, {60, 30, 10}, 0.60, true},
    {"Delta Foods", 2, {10, 20, 70}, 1.50, false},
    {"Elm Insurance", 6, {30, 40, 30}, 0.80, false},
    {"Fjord Energy", 10, {40, 40, 20}, 0.50, true},
    {"Granite Steel", 4, {20, 30, 50}, 1.30, false},
    {"Harbour Lines", 3, {30, 30, 40}, 0.90, true},
    {"Iris Clinics", 8, {70, 20, 10}, 0.45, false},
    {"Juniper Retail", 5, {15, 25, 60}, 1.60, true},
    {"Krill Robotics", 1, {30, 30, 40}, 2.00, false},
    {"Lumen Telecom", 16, {35, 35, 30}, 0.60, false},
    {"Maple Schools", 2, {5, 15, 80}, 0.40, false},
    {"Nordic Paper", 1, {10, 30, 60}, 0.60, false},
    {"Orchid Hotels", 4, {40, 40, 20}, 1.40, true},
    {"Pine Logistics", 7, {25, 35, 40}, 0.70, false},
    {"Quartz Mining", 2, {50, 30, 20}, 1.20, false},
    {"River Water", 3, {20, 40, 40}, 0.30, false},
    {"Saffron Trading", 1, {80, 15, 5}, 1.00, true},
    {"Tundra Gas", 9, {30, 50, 20}, 0.55, false},
    {"Umber Paints", 1, {10, 20, 70}, 0.05, false},
    {"Vega Space", 5, {60, 20, 20}, 0.90, true},
    {"Willow Media", 2, {30, 30, 40}, 1.80, true},
    {"Xenon Light", 1, {20, 30, 50}, 0.10, false},
    {"Yarrow Pharma", 11, {50, 40, 10}, 0.50, false},
    {"Zephyr Wind", 6, {20, 60, 20}, 0.70, true},
    {"Amber Rail", 14, {40, 30, 30}, 0.65, false},
    {"Birch Housing", 1, {5, 15, 80}, 1.10, false},
    {"Coral Ferries", 2, {25, 50, 25}, 0.80, true},
    {"Dune Solar", 3, {30, 30, 40}, 0.20, false},
    {"Ember Ovens", 1, {40, 30, 30}, 1.60, true},
    {"Flint Tools", 2, {10, 40, 50}, 0.90, false},
    {"Glacier Ice", 1, {20, 20, 60}, 0.03, false},
    {"Heron Post", 10, {30, 40, 30}, 0.75, false},
    {"Indigo Cloth", 3, {20, 30, 50}, 1.30, true},
    {"Jade Museums", 1, {10, 10, 80}, 0.70, false},
};

#define S_TEMPLATES (sizeof s_templates / sizeof s_templates[0])

static void s_company_fill(dkt_demo_t *self, size_t i)
{
    const s_template_t *from = &s_templates[i % S_TEMPLATES];
    dkt_demo_company_t *company = &self->companies[i];
    double rate = from->appetite * from->resolvers * S_DAY_MINUTES / (double)self->options.seconds;
    company->name = from->name;
    company->resolvers = from->resolvers;
    memcpy(company->mix, from->mix, sizeof company->mix);
    company->rate = rate < S_RATE_MAX ? rate : S_RATE_MAX;
    company->bursty = from->bursty;
    if (i < S_TEMPLATES) {
        snprintf(company->title, sizeof company->title, "%s", from->name);
    } else {
        snprintf(company->title, sizeof company->title, "%s %zu", from->name, i / S_TEMPLATES + 1);
    }
}

/* -- accounts --------------------------------------------------------------------------------- */

struct s_progress;

typedef struct {
    struct s_progress *progress;
    dkt_demo_company_t *company;
} s_step_t;

/* Outlives the producer: open calls point to the steps. */
typedef struct s_progress {
    dkt_demo_t *demo;
    s_step_t *steps; /* by company */
    size_t done, failed;
    char error[200];
} s_progress_t;

static void s_step_failed(s_progress_t *progress, const dkt_reply_t *reply)
{
    progress->failed++;
    snprintf(progress->error, sizeof progress->error, "%s: %.*s", dkt_status_code(reply->status),
             (int)reply->message.len, reply->message.data ? reply->message.data : "");
}

static void s_created(void *ctx, const dkt_reply_t *reply)
{
    s_step_t *step = ctx;
    if (reply->status == DKT_OK && dkt_text_is(reply->state, "created")) {
        dkt_text_copy(reply->client_id, step->company->client_id, sizeof step->company->client_id);
        dkt_text_copy(reply->sub_domain, step->company->sub_domain,
                      sizeof step->company->sub_domain);
    } else {
        s_step_failed(step->progress, reply);
    }
    step->progress->done++;
}

static void s_logged_in(void *ctx, const dkt_reply_t *reply)
{
    s_step_t *step = ctx;
    if (reply->status == DKT_OK && reply->token.data) {
        dkt_text_copy(reply->token, step->company->token, sizeof step->company->token);
    } else {
        s_step_failed(step->progress, reply);
    }
    step->progress->done++;
}

static dkt_status_t s_submit_create(dkt_producer_t *producer, s_step_t *step)
{
    char email[64];
    /* A data folder that is used again has last time's accounts: the address is new each time. */
    snprintf(email, sizeof email, "desk-%zx-%llx@example.com",
             (size_t)(step->company - step->progress->demo->companies),
             (unsigned long long)step->progress->demo->random);
    dkt_arg_t args[] = {
        dkt_arg_text("name", step->company->title),
        dkt_arg_text("email", email),
        dkt_arg_text("password", S_PASSWORD),
        dkt_arg_int("resolvers", step->company->resolvers),
    };
    return dkt_producer_submit(producer, "create_account", args, 4, NULL, s_created, step);
}

static dkt_status_t s_submit_login(dkt_producer_t *producer, s_step_t *step)
{
    dkt_arg_t args[] = {
        dkt_arg_text("client_id", step->company->client_id),
        dkt_arg_text("password", S_PASSWORD),
    };
    return dkt_producer_submit(producer, "login", args, 2, NULL, s_logged_in, step);
}

typedef dkt_status_t(s_submit_fn)(dkt_producer_t *producer, s_step_t *step);

/* One call for each company, as fast as the quota of the endpoint allows. */
static bool s_for_all(dkt_demo_t *self, dkt_producer_t *producer, const char *label,
                      s_submit_fn *submit, s_progress_t *progress)
{
    int64_t started_ms = dkt_mono_ms();
    bool gone = false;
    size_t sent = 0;
    while (!gone && progress->done < self->company_count && progress->failed == 0) {
        size_t allowed =
            DKT_AUTH_BURST / 2 + (size_t)((dkt_mono_ms() - started_ms) * S_RATE_ACCOUNT / 1000);
        while (sent < self->company_count && sent < allowed) {
            progress->steps[sent] = (s_step_t){progress, &self->companies[sent]};
            if (submit(producer, &progress->steps[sent]) != DKT_OK) {
                break;
            }
            sent++;
        }
        dkt_producer_poll(producer, S_POLL_MS);
        dkt_view_progress(self, label, progress->done, self->company_count);
        gone = dkt_demo_stopped() || !dkt_fleet_alive(&self->fleet);
    }
    if (progress->failed > 0) {
        fprintf(stderr, "docket demo: %s: %s\n", label, progress->error);
    }
    return !gone && progress->failed == 0;
}

bool dkt_demo_setup(dkt_demo_t *self)
{
    dkt_err_t err;
    dkt_producer_options_t options = {
        .endpoint = self->fleet.public_endpoint,
        .attempt_ms = S_SETUP_MS / 4,
        .total_ms = S_SETUP_MS,
    };
    dkt_producer_t *producer = dkt_producer_new(&options, &err);
    if (!producer) {
        fprintf(stderr, "docket demo: %s\n", err.text);
        return false;
    }
    for (size_t i = 0; i < self->company_count; i++) {
        s_company_fill(self, i);
    }
    s_step_t *steps = calloc(2 * self->company_count, sizeof *steps);
    s_progress_t created = {.demo = self, .steps = steps};
    s_progress_t logged_in = {.demo = self, .steps = steps + self->company_count};
    bool ok = steps &&
              s_for_all(self, producer, "companies open accounts, each with its own database",
                        s_submit_create, &created) &&
              s_for_all(self, producer, "companies log in", s_submit_login, &logged_in);
    dkt_producer_destroy(&producer);
    free(steps);
    return ok;
}
