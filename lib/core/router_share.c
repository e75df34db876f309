/* SPDX-License-Identifier: Apache-2.0
 *
 * A tenant that floods does not slow the others down. While somebody else is served who asks for
 * little, a tenant has at most DKT_BROKER_SHARE_OPEN requests at its worker. What comes beyond that
 * is held here, in its order, and goes on every DKT_BROKER_SHARE_PACE_MS as far as there is room.
 * What slows the others is not the queue, which is the tenant's own, but processors and a disk that
 * are never free: groups of hundreds of rows, rounds of hundreds of frames, one commit right behind
 * the other. With nobody else there, or only others that flood as well, nothing is held: large
 * groups are what makes many requests cheap.
 *
 * Tenants are told apart by their vshard. One asks for little if it had fewer than its share open
 * for DKT_BROKER_SHARE_MS. Two of those are remembered, the last one and the last but one, so that
 * for every tenant the last *other* is known.
 */
#include "lib/core/router_internal.h"

/* Its requests that are not held: at a worker, on the way to one, or waiting for one. */
static uint32_t s_passed(const dkt_router_t *self, uint16_t vshard)
{
    return self->open_of_vshard[vshard] - self->held[vshard].count;
}

static bool s_another_asks_for_little(const dkt_router_t *self, dkt_instant_t now, uint16_t vshard)
{
    const dkt_rt_light_t *light = &self->lights[self->lights[0].vshard == vshard];
    return now.mono_ms < light->until_mono_ms;
}

/* Were so many of its requests not held. */
static bool s_is_over(const dkt_router_t *self, dkt_instant_t now, uint16_t vshard, uint32_t passed)
{
    return passed > DKT_BROKER_SHARE_OPEN && s_another_asks_for_little(self, now, vshard);
}

/* A request of that vshard has come. */
static void s_weigh(dkt_router_t *self, dkt_instant_t now, uint16_t vshard)
{
    if (self->open_of_vshard[vshard] >= DKT_BROKER_SHARE_OPEN) {
        self->heavy_until_mono_ms[vshard] = now.mono_ms + DKT_BROKER_SHARE_MS;
    } else if (now.mono_ms >= self->heavy_until_mono_ms[vshard]) {
        if (self->lights[0].vshard != vshard) {
            self->lights[1] = self->lights[0];
        }
        self->lights[0] =
            (dkt_rt_light_t){.vshard = vshard, .until_mono_ms = now.mono_ms + DKT_BROKER_SHARE_MS};
    }
}

bool dkt_rt_share_holds(dkt_router_t *self, dkt_instant_t now, uint32_t index)
{
    const dkt_rt_open_t *open = &self->opens[index];
    if (open->unchecked || dkt_rt_any_worker_serves(open)) {
        return false;
    }
    uint16_t vshard = open->vshard;
    s_weigh(self, now, vshard);
    if (self->held[vshard].count == 0 &&
        !s_is_over(self, now, vshard, s_passed(self, vshard))) { /* this one is open already */
        return false;
    }
    if (!self->is_held[vshard]) {
        self->is_held[vshard] = true;
        self->held_vshards[self->held_vshard_count++] = vshard;
    }
    return true;
}

void dkt_rt_share_pass(dkt_router_t *self, dkt_instant_t now)
{
    uint32_t i = 0;
    if (now.mono_ms < self->share_due_mono_ms) {
        return;
    }
    self->share_due_mono_ms = now.mono_ms + DKT_BROKER_SHARE_PACE_MS;
    while (i < self->held_vshard_count) {
        uint16_t vshard = self->held_vshards[i];
        dkt_rt_list_t *held = &self->held[vshard];
        while (held->count > 0 && !s_is_over(self, now, vshard, s_passed(self, vshard) + 1)) {
            uint32_t index = held->first;
            dkt_rt_unplace(self, index);
            dkt_rt_place(self, now, index);
        }
        if (held->count > 0) {
            i++;
        } else {
            self->is_held[vshard] = false;
            self->held_vshards[i] = self->held_vshards[--self->held_vshard_count];
        }
    }
}
