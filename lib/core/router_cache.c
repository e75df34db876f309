/* SPDX-License-Identifier: Apache-2.0
 *
 * Two tables of a fixed size, four ways each: tokens whose signature was checked (60 us each, so
 * that they are worth keeping) and the quotas of sources. A full set gives up what is worth least.
 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "lib/core/router_internal.h"

#define S_MILLIS_PER_MS DKT_AUTH_RATE_PER_S              /* 20/s is 20 thousandths per ms */
#define S_MILLIS_MAX    (INT64_C(1000) * DKT_AUTH_BURST) /* a full bucket */
#define S_MILLIS_COST   1000

/* The hash of some bytes, never 0. */
static uint64_t s_hash(const dkt_router_t *self, const void *bytes, size_t len)
{
    uint64_t hash = XXH3_64bits_withSeed(bytes, len, self->config.seed);
    return hash ? hash : 1;
}

/* -- tokens ----------------------------------------------------------------------------------- */

static dkt_rt_token_t *s_token_set(dkt_rt_token_t *table, uint32_t entries, uint64_t hash)
{
    return &table[hash % (entries / DKT_RT_WAYS) * DKT_RT_WAYS];
}

static dkt_rt_token_t *s_token_find(dkt_rt_token_t *set, uint64_t hash, dkt_view_t token)
{
    for (uint32_t i = 0; i < DKT_RT_WAYS; i++) {
        if (set[i].hash == hash && set[i].len == token.len &&
            memcmp(set[i].token, token.data, token.len) == 0) {
            return &set[i];
        }
    }
    return NULL;
}

/* Gives up the one that expires first; without memory nothing is kept, which is only slower. */
static void s_token_keep(dkt_rt_token_t *set, uint64_t hash, dkt_view_t token,
                         const dkt_claims_t *claims)
{
    dkt_rt_token_t *victim = &set[0];
    for (uint32_t i = 0; i < DKT_RT_WAYS && victim->hash != 0; i++) {
        if (set[i].hash == 0 || set[i].claims.expires_ms < victim->claims.expires_ms) {
            victim = &set[i];
        }
    }
    uint8_t *copy = malloc(token.len);
    if (!copy) {
        return;
    }
    memcpy(copy, token.data, token.len);
    free(victim->token);
    *victim = (dkt_rt_token_t){.hash = hash,
                               .claims = *claims,
                               .vshard = dkt_client_vshard(&claims->client),
                               .token = copy,
                               .len = token.len};
}

/* The entry of a token that was found good: first the one that the last request came with, because
 * a producer's requests come together and comparing is cheaper than hashing. */
static const dkt_rt_token_t *s_token_known(dkt_router_t *self, dkt_view_t token, uint64_t *hash)
{
    const dkt_rt_token_t *seen = self->token_seen;
    if (seen && seen->len == token.len && memcmp(seen->token, token.data, token.len) == 0) {
        return seen;
    }
    *hash = s_hash(self, token.data, token.len);
    dkt_rt_token_t *good = s_token_set(self->good, DKT_BROKER_TOKENS_MAX, *hash);
    self->token_seen = s_token_find(good, *hash, token);
    return self->token_seen;
}

dkt_status_t dkt_rt_token(dkt_router_t *self, dkt_instant_t now, dkt_view_t token,
                          dkt_rt_checked_t *checked, dkt_err_t *err)
{
    dkt_claims_t *claims = &checked->claims;
    uint64_t hash = 0;
    if (token.len == 0 || token.len >= DKT_TOKEN_BYTES_MAX) {
        return dkt_fail(err, DKT_UNAUTHENTICATED, "token", NULL);
    }
    const dkt_rt_token_t *known = s_token_known(self, token, &hash);
    if (known) {
        *claims = known->claims;
        checked->vshard = known->vshard;
        return claims->expires_ms > now.unix_ms
                   ? DKT_OK
                   : dkt_fail(err, DKT_UNAUTHENTICATED, "token", "the token has expired");
    }
    dkt_rt_token_t *bad = s_token_set(self->bad, DKT_BROKER_BAD_TOKENS_MAX, hash);
    if (s_token_find(bad, hash, token)) {
        return dkt_fail(err, DKT_UNAUTHENTICATED, "token", NULL);
    }
    self->counts.token_verified++;
    dkt_status_t status = dkt_token_verify(self->table.keys, self->table.key_count, now.unix_ms,
                                           (const char *)token.data, token.len, claims, err);
    if (status == DKT_OK) {
        dkt_rt_token_t *good = s_token_set(self->good, DKT_BROKER_TOKENS_MAX, hash);
        checked->vshard = dkt_client_vshard(&claims->client);
        s_token_keep(good, hash, token, claims);
    } else {
        s_token_keep(bad, hash, token, &(dkt_claims_t){.expires_ms = now.unix_ms});
    }
    return status;
}

static void s_forget(dkt_rt_token_t *table, uint32_t entries)
{
    for (uint32_t i = 0; i < entries; i++) {
        free(table[i].token);
    }
    memset(table, 0, entries * sizeof *table);
}

void dkt_rt_tokens_forget(dkt_router_t *self)
{
    s_forget(self->good, DKT_BROKER_TOKENS_MAX);
    s_forget(self->bad, DKT_BROKER_BAD_TOKENS_MAX);
    self->token_seen = NULL;
}

/* -- quotas ----------------------------------------------------------------------------------- */

static int64_t s_level(const dkt_rt_quota_t *quota, dkt_instant_t now)
{
    int64_t passed_ms = now.mono_ms - quota->at_mono_ms;
    if (passed_ms >= S_MILLIS_MAX / S_MILLIS_PER_MS) {
        return S_MILLIS_MAX;
    }
    int64_t millis = quota->millis + (passed_ms > 0 ? passed_ms * S_MILLIS_PER_MS : 0);
    return millis < S_MILLIS_MAX ? millis : S_MILLIS_MAX;
}

/* The bucket of a source. A set that is full gives up its fullest one: it has the least to tell. */
static dkt_rt_quota_t *s_quota_of(dkt_router_t *self, dkt_instant_t now, uint64_t hash)
{
    dkt_rt_quota_t *set =
        &self->quotas[hash % (DKT_BROKER_SOURCES_MAX / DKT_RT_WAYS) * DKT_RT_WAYS];
    dkt_rt_quota_t *victim = &set[0];
    for (uint32_t i = 0; i < DKT_RT_WAYS; i++) {
        if (set[i].hash == hash) {
            return &set[i];
        }
        if (victim->hash != 0 &&
            (set[i].hash == 0 || s_level(&set[i], now) > s_level(victim, now))) {
            victim = &set[i];
        }
    }
    *victim = (dkt_rt_quota_t){.hash = hash, .at_mono_ms = now.mono_ms, .millis = S_MILLIS_MAX};
    return victim;
}

bool dkt_rt_quota(dkt_router_t *self, dkt_instant_t now, const char *source, uint32_t *wait_ms)
{
    dkt_rt_quota_t *quota = s_quota_of(self, now, s_hash(self, source, strlen(source)));
    quota->millis = s_level(quota, now);
    quota->at_mono_ms = now.mono_ms;
    if (quota->millis < S_MILLIS_COST) {
        *wait_ms =
            (uint32_t)((S_MILLIS_COST - quota->millis + S_MILLIS_PER_MS - 1) / S_MILLIS_PER_MS);
        return false;
    }
    quota->millis -= S_MILLIS_COST;
    return true;
}
