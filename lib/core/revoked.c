/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/revoked.h"

#include <stdlib.h>
#include <string.h>

#define SLOTS_MIN 16

void dkt_revoked_fini(dkt_revoked_set_t *self)
{
    free(self->slots);
    *self = (dkt_revoked_set_t){.slots = NULL, .count = 0, .max = 0};
}

/* Token ids are random: any of their bits are a hash. */
static uint32_t s_slot(const dkt_revoked_set_t *self, const uint8_t *token_id)
{
    uint32_t hash;
    memcpy(&hash, token_id, sizeof hash);
    uint32_t slot = hash & (self->max - 1);
    while (self->slots[slot].expires_ms &&
           memcmp(self->slots[slot].token_id, token_id, DKT_TOKEN_ID_BYTES) != 0) {
        slot = (slot + 1) & (self->max - 1);
    }
    return slot;
}

static bool s_rehash(dkt_revoked_set_t *self, int64_t now_ms)
{
    dkt_revoked_set_t next = {.max = SLOTS_MIN};
    uint32_t live = 0;
    for (uint32_t i = 0; i < self->max; i++) {
        live += self->slots[i].expires_ms > now_ms;
    }
    while (next.max < (live + 1) * 4) {
        next.max *= 2;
    }
    next.slots = calloc(next.max, sizeof *next.slots);
    if (!next.slots) {
        return false;
    }
    for (uint32_t i = 0; i < self->max; i++) {
        if (self->slots[i].expires_ms > now_ms) {
            next.slots[s_slot(&next, self->slots[i].token_id)] = self->slots[i];
            next.count++;
        }
    }
    free(self->slots);
    *self = next;
    return true;
}

bool dkt_revoked_add(dkt_revoked_set_t *self, const uint8_t token_id[DKT_TOKEN_ID_BYTES],
                     int64_t expires_ms, int64_t now_ms)
{
    if (expires_ms <= now_ms || dkt_revoked_has(self, token_id)) {
        return true;
    }
    if ((self->count + 1) * 2 > self->max && !s_rehash(self, now_ms)) {
        return false;
    }
    dkt_revoked_t *slot = &self->slots[s_slot(self, token_id)];
    memcpy(slot->token_id, token_id, DKT_TOKEN_ID_BYTES);
    slot->expires_ms = expires_ms;
    self->count++;
    return true;
}

void dkt_revoked_forget(dkt_revoked_set_t *self, int64_t now_ms)
{
    bool expired = false;
    for (uint32_t i = 0; i < self->max; i++) {
        expired |= self->slots[i].expires_ms && self->slots[i].expires_ms <= now_ms;
    }
    if (expired) {
        (void)s_rehash(self, now_ms); /* without memory it stays as it is, which is right too */
    }
}

bool dkt_revoked_has(const dkt_revoked_set_t *self, const uint8_t token_id[DKT_TOKEN_ID_BYTES])
{
    return self->max > 0 && self->slots[s_slot(self, token_id)].expires_ms != 0;
}
