/* SPDX-License-Identifier: Apache-2.0
 *
 * The tenants of `docket bench load`: accounts, capacity, tokens; for the refusals a full house.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "ops/bench_load.h"
#include "ops/cmd_common.h"

#define S_PASSWORD      "a bench needs no secrets"
#define S_CREATE_LANES  2048 /* resolvers of one tenant, where the internal endpoint allows */
#define S_REFUSE_LANES  1
#define S_LEVEL_MINUTES 479 /* admitted in one instant for each resolver, bronze */
#define S_USE_PERCENT   80  /* of the capacity, then tickets are cancelled again */
#define S_FILL_MAX      200 /* gold tickets that fill one resolver for two hours, and some more */

static bool s_failed(const char *what, const dkt_reply_t *reply)
{
    fprintf(stderr, "docket bench load: %s: %s: %.*s\n", what, dkt_status_code(reply->status),
            (int)reply->message.len, reply->message.data ? reply->message.data : "");
    return false;
}

static int s_resolvers(const dkt_bench_t *self)
{
    if (self->options.resolvers > 0) {
        return self->options.resolvers;
    }
    if (self->options.mode == DKT_BENCH_REFUSE) {
        return S_REFUSE_LANES;
    }
    int wanted = S_CREATE_LANES / self->options.tenants;
    int least = DKT_RESOLVERS_SIGNUP_MAX;
    return self->internal && wanted > least ? wanted : least;
}

static bool s_account(dkt_bench_t *self, dkt_bench_tenant_t *tenant, int index, int resolvers)
{
    char name[32], email[64];
    dkt_reply_t reply;
    int at_first = resolvers < DKT_RESOLVERS_SIGNUP_MAX ? resolvers : DKT_RESOLVERS_SIGNUP_MAX;
    snprintf(name, sizeof name, "Bench %d", index);
    snprintf(email, sizeof email, "bench-%d-%llx@example.com", index,
             (unsigned long long)self->random);
    dkt_arg_t create[] = {
        dkt_arg_text("name", name),
        dkt_arg_text("email", email),
        dkt_arg_text("password", S_PASSWORD),
        dkt_arg_int("resolvers", at_first),
    };
    if (dkt_producer_call(self->producer, "create_account", create, 4, NULL, &reply) != DKT_OK) {
        return s_failed("create_account", &reply);
    }
    dkt_text_copy(reply.client_id, tenant->client_id, sizeof tenant->client_id);
    dkt_arg_t login[] = {
        dkt_arg_text("client_id", tenant->client_id),
        dkt_arg_text("password", S_PASSWORD),
    };
    if (dkt_producer_call(self->producer, "login", login, 2, NULL, &reply) != DKT_OK) {
        return s_failed("login", &reply);
    }
    dkt_text_copy(reply.token, tenant->token, sizeof tenant->token);
    if (resolvers == at_first) {
        return true;
    }
    dkt_arg_t set[] = {
        dkt_arg_text("client_id", tenant->client_id),
        dkt_arg_int("resolvers", resolvers),
    };
    if (!self->internal) {
        fprintf(stderr, "docket bench load: more than %d resolvers need --internal\n", at_first);
        return false;
    }
    if (dkt_producer_call(self->internal, "set_tenant", set, 2, NULL, &reply) != DKT_OK) {
        return s_failed("set_tenant", &reply);
    }
    return true;
}

/* Books all that a tenant can give, until it refuses. */
static bool s_fill(dkt_bench_t *self, dkt_bench_tenant_t *tenant, int resolvers)
{
    dkt_reply_t reply;
    dkt_arg_t args[] = {
        dkt_arg_text("client_id", tenant->client_id),
        dkt_arg_text("ticket_type", "gold"),
        dkt_arg_text("token", tenant->token),
    };
    for (int i = 0; i < S_FILL_MAX * resolvers; i++) {
        if (dkt_producer_call(self->producer, "create_ticket", args, 3, NULL, &reply) != DKT_OK) {
            return s_failed("create_ticket", &reply);
        }
        if (dkt_text_is(reply.state, "refused")) {
            return true;
        }
    }
    fprintf(stderr, "docket bench load: a tenant of %d resolvers never refuses\n", resolvers);
    return false;
}

bool dkt_bench_setup(dkt_bench_t *self)
{
    int resolvers = s_resolvers(self);
    bool cancels = self->options.mode != DKT_BENCH_REFUSE && self->options.mode != DKT_BENCH_HOLD;
    uint64_t capacity = (uint64_t)resolvers * S_LEVEL_MINUTES * S_USE_PERCENT / 100;
    bool ok = getrandom(&self->random, sizeof self->random, 0) == sizeof self->random;
    for (int i = 0; ok && i < self->options.tenants; i++) {
        dkt_bench_tenant_t *tenant = &self->tenants[i];
        /* Above the ring's size a run never comes near the capacity of one tenant's hour. */
        tenant->capacity = (uint32_t)(capacity < DKT_BENCH_RING ? capacity : UINT32_MAX);
        if (cancels) {
            tenant->ring = calloc(DKT_BENCH_RING, sizeof *tenant->ring);
            ok = tenant->ring != NULL;
        }
        ok = ok && s_account(self, tenant, i, resolvers);
        if (ok && self->options.mode == DKT_BENCH_REFUSE) {
            ok = s_fill(self, tenant, resolvers);
        }
    }
    return ok;
}
