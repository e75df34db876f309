/* SPDX-License-Identifier: Apache-2.0
 *
 * The tenants of a load, see bench_load.h: the same call for each of a set, some at a time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "ops/bench_load.h"
#include "ops/cmd_common.h"

#define S_PASSWORD       "a bench needs no secrets"
#define S_LEVEL_MINUTES  479 /* admitted in one instant for each resolver, bronze */
#define S_USE_PERCENT    95  /* of the capacity: the rest is for the minutes that end meanwhile */
#define S_FILL_MAX       200 /* gold tickets that fill one resolver for two hours, and some more */
#define S_AT_A_TIME      24
#define S_POLL_MS        20
#define S_QUIET_MS       90000 /* without any answer: something is wrong */
#define S_TOKEN_LEFT_MS  480000
#define S_PASSWORD_SLOTS 8 /* logins at a time: a password costs 28 ms of one thread */

struct s_job;

/* One call of a job. */
typedef struct {
    struct s_job *job;
    int index;
} s_step_t;

/* What is asked for one tenant. */
typedef dkt_status_t(s_submit_fn)(struct s_job *job, s_step_t *step);
/* What is kept of the answer. */
typedef bool(s_take_fn)(dkt_load_tenant_t *tenant, const dkt_reply_t *reply);

typedef struct {
    const char *what; /* for messages */
    s_submit_fn *submit;
    s_take_fn *take;
    int at_a_time;
} s_kind_t;

typedef struct s_job {
    const s_kind_t *kind;
    dkt_producer_t *producer;
    dkt_load_set_t *set;
    dkt_histogram_t *latency; /* NULL: of no interest */
    unsigned long long random;
    int open, done;
    char error[200];
} s_job_t;

static void s_on_reply(void *ctx, const dkt_reply_t *reply)
{
    s_step_t *step = ctx;
    s_job_t *job = step->job;
    job->open--;
    job->done++;
    if (job->latency) {
        dkt_histogram_add(job->latency, reply->elapsed_us);
    }
    if (reply->status != DKT_OK || !job->kind->take(&job->set->list[step->index], reply)) {
        snprintf(job->error, sizeof job->error, "%s: %s: %.*s", job->kind->what,
                 dkt_status_code(reply->status), (int)reply->message.len,
                 reply->message.data ? reply->message.data : "");
    }
}

/* Runs the job for the tenants [from, to). */
static bool s_for_all(s_job_t *job, int from, int to, dkt_load_stopped_fn *stopped)
{
    int count = to - from, sent = 0;
    s_step_t *steps = calloc((size_t)count + 1, sizeof *steps);
    int64_t quiet_ms = dkt_mono_ms() + S_QUIET_MS;
    bool ok = steps && getrandom(&job->random, sizeof job->random, 0) == sizeof job->random;
    while (ok && job->done < count && !job->error[0]) {
        while (sent < count && job->open < job->kind->at_a_time) {
            steps[sent] = (s_step_t){job, from + sent};
            if (job->kind->submit(job, &steps[sent]) != DKT_OK) {
                break;
            }
            job->open++;
            sent++;
        }
        quiet_ms =
            dkt_producer_poll(job->producer, S_POLL_MS) > 0 ? dkt_mono_ms() + S_QUIET_MS : quiet_ms;
        ok = dkt_mono_ms() < quiet_ms && !(stopped && stopped());
    }
    ok = ok && !job->error[0];
    if (!ok && !(stopped && stopped())) {
        fprintf(stderr, "docket bench: %s\n", job->error[0] ? job->error : "no answers");
    }
    /* Open calls point to the steps: a job that failed takes its answers before it ends. */
    for (int64_t end_ms = dkt_mono_ms() + S_QUIET_MS; job->open > 0 && dkt_mono_ms() < end_ms;) {
        dkt_producer_poll(job->producer, S_POLL_MS);
    }
    if (job->open == 0) {
        free(steps);
    }
    return ok;
}

/* -- the calls -------------------------------------------------------------------------------- */

static dkt_status_t s_submit_create(s_job_t *job, s_step_t *step)
{
    char name[32], email[64];
    int resolvers = job->set->resolvers;
    snprintf(name, sizeof name, "Bench %d", step->index);
    snprintf(email, sizeof email, "bench-%d-%llx@example.com", step->index, job->random);
    dkt_arg_t args[] = {
        dkt_arg_text("name", name),
        dkt_arg_text("email", email),
        dkt_arg_text("password", S_PASSWORD),
        dkt_arg_int("resolvers",
                    resolvers < DKT_RESOLVERS_SIGNUP_MAX ? resolvers : DKT_RESOLVERS_SIGNUP_MAX),
    };
    return dkt_producer_submit(job->producer, "create_account", args, 4, NULL, s_on_reply, step);
}

static bool s_take_created(dkt_load_tenant_t *tenant, const dkt_reply_t *reply)
{
    dkt_text_copy(reply->client_id, tenant->client_id, sizeof tenant->client_id);
    return reply->client_id.data != NULL;
}

static dkt_status_t s_submit_resolvers(s_job_t *job, s_step_t *step)
{
    dkt_arg_t args[] = {
        dkt_arg_text("client_id", job->set->list[step->index].client_id),
        dkt_arg_int("resolvers", job->set->resolvers),
    };
    return dkt_producer_submit(job->producer, "set_tenant", args, 2, NULL, s_on_reply, step);
}

static dkt_status_t s_submit_login(s_job_t *job, s_step_t *step)
{
    dkt_arg_t args[] = {
        dkt_arg_text("client_id", job->set->list[step->index].client_id),
        dkt_arg_text("password", S_PASSWORD),
    };
    return dkt_producer_submit(job->producer, "login", args, 2, NULL, s_on_reply, step);
}

static bool s_take_token(dkt_load_tenant_t *tenant, const dkt_reply_t *reply)
{
    dkt_text_copy(reply->token, tenant->token, sizeof tenant->token);
    tenant->token_until_ms = reply->expires_ms;
    return reply->token.data != NULL;
}

static dkt_status_t s_submit_touch(s_job_t *job, s_step_t *step)
{
    dkt_arg_t args[] = {dkt_arg_text("client_id", job->set->list[step->index].client_id)};
    return dkt_producer_submit(job->producer, "availability", args, 1, NULL, s_on_reply, step);
}

static bool s_take_nothing(dkt_load_tenant_t *tenant, const dkt_reply_t *reply)
{
    (void)tenant;
    (void)reply;
    return true;
}

static const s_kind_t s_creates = {"create_account", s_submit_create, s_take_created, S_AT_A_TIME};
static const s_kind_t s_resolvers = {"set_tenant", s_submit_resolvers, s_take_nothing, S_AT_A_TIME};
static const s_kind_t s_logins = {"login", s_submit_login, s_take_token, S_PASSWORD_SLOTS};
static const s_kind_t s_touches = {"availability", s_submit_touch, s_take_nothing, S_AT_A_TIME};

/* -- sets ------------------------------------------------------------------------------------- */

static bool s_make_room(dkt_load_set_t *set, int count)
{
    dkt_load_tenant_t *list = realloc(set->list, (size_t)count * sizeof *list);
    if (!list) {
        return false;
    }
    set->list = list;
    for (int i = set->count; i < count; i++) {
        list[i] = (dkt_load_tenant_t){.capacity = (uint64_t)set->resolvers * S_LEVEL_MINUTES *
                                                  S_USE_PERCENT / 100};
        if (set->recycle) {
            list[i].ring = calloc(DKT_LOAD_RING, sizeof *list[i].ring);
            list[i].capacity = list[i].capacity < DKT_LOAD_RING ? list[i].capacity : UINT64_MAX;
            if (!list[i].ring) {
                return false;
            }
        }
        set->count++;
    }
    return true;
}

bool dkt_load_set_grow(dkt_load_t *load, dkt_load_set_t *set, int count,
                       dkt_load_stopped_fn *stopped)
{
    int before = set->count;
    if (before >= count) {
        return true;
    }
    if (set->resolvers > DKT_RESOLVERS_SIGNUP_MAX && !load->internal) {
        fprintf(stderr, "docket bench: more than %d resolvers need --internal\n",
                DKT_RESOLVERS_SIGNUP_MAX);
        return false;
    }
    s_job_t create = {.kind = &s_creates,
                      .producer = load->internal ? load->internal : load->lines[0],
                      .set = set};
    bool ok = s_make_room(set, count) && s_for_all(&create, before, count, stopped);
    if (ok && set->resolvers > DKT_RESOLVERS_SIGNUP_MAX) {
        s_job_t more = {.kind = &s_resolvers, .producer = load->internal, .set = set};
        ok = s_for_all(&more, before, count, stopped);
    }
    return ok;
}

bool dkt_load_set_login(dkt_load_t *load, dkt_load_set_t *set, int count,
                        dkt_load_stopped_fn *stopped)
{
    int fresh = 0;
    int64_t wanted_ms = dkt_unix_ms() + S_TOKEN_LEFT_MS;
    while (fresh < count && set->list[fresh].token_until_ms > wanted_ms) {
        fresh++;
    }
    s_job_t login = {.kind = &s_logins, .producer = load->lines[0], .set = set};
    s_job_t touch = {.kind = &s_touches, .producer = load->internal, .set = set};
    return s_for_all(&login, fresh, count, stopped) &&
           (!load->internal || s_for_all(&touch, 0, count, stopped));
}

bool dkt_load_set_touch(dkt_load_t *load, dkt_load_set_t *set, int at_a_time,
                        dkt_histogram_t *latency, dkt_load_stopped_fn *stopped)
{
    s_kind_t kind = s_touches;
    kind.at_a_time = at_a_time;
    s_job_t touch = {.kind = &kind, .producer = load->internal, .set = set, .latency = latency};
    return s_for_all(&touch, 0, set->count, stopped);
}

bool dkt_load_set_resize(dkt_load_t *load, dkt_load_set_t *set, int resolvers,
                         dkt_load_stopped_fn *stopped)
{
    set->resolvers = resolvers;
    s_job_t job = {.kind = &s_resolvers, .producer = load->internal, .set = set};
    return s_for_all(&job, 0, set->count, stopped);
}

bool dkt_load_fill(dkt_load_t *load, dkt_load_set_t *set, int index, int tickets)
{
    dkt_load_tenant_t *tenant = &set->list[index];
    dkt_reply_t reply;
    dkt_arg_t args[] = {
        dkt_arg_text("client_id", tenant->client_id),
        dkt_arg_text("ticket_type", "gold"),
        dkt_arg_text("token", tenant->token),
    };
    for (int i = 0; i < S_FILL_MAX * set->resolvers; i++) {
        if (i == tickets) {
            return true;
        }
        if (dkt_producer_call(load->lines[0], "create_ticket", args, 3, NULL, &reply) != DKT_OK) {
            fprintf(stderr, "docket bench: create_ticket: %s: %.*s\n",
                    dkt_status_code(reply.status), (int)reply.message.len,
                    reply.message.data ? reply.message.data : "");
            return false;
        }
        if (dkt_text_is(reply.state, "refused")) {
            return true;
        }
        tenant->asked++;
        tenant->created++;
    }
    fprintf(stderr, "docket bench: a tenant of %d resolvers never refuses\n", set->resolvers);
    return false;
}

void dkt_load_set_free(dkt_load_set_t *set)
{
    for (int i = 0; i < set->count; i++) {
        free(set->list[i].ring);
    }
    free(set->list);
    *set = (dkt_load_set_t){.resolvers = set->resolvers, .recycle = set->recycle};
}
