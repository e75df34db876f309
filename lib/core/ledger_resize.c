/* SPDX-License-Identifier: Apache-2.0
 *
 * New settings: a new block is filled from the old one, and the old one goes only if all promises
 * have a place in the new one.
 */
#include "lib/core/ledger_impl.h"

#include <string.h>

static uint8_t s_new_class(const dkt_ledger_t *old, const dkt_settings_t *settings,
                           uint8_t class_index)
{
    if (class_index == DKT_CLASS_GONE) {
        return DKT_CLASS_GONE;
    }
    const char *name = old->settings.classes[class_index].name;
    int found = dkt_settings_class(settings, name, (uint32_t)strlen(name));
    return found < 0 ? DKT_CLASS_GONE : (uint8_t)found;
}

/* Minutes from now to the furthest promise. */
static uint32_t s_furthest(const dkt_ledger_t *self)
{
    uint32_t furthest = self->base;
    for (uint32_t i = 0; i < self->fresh; i++) {
        const dkt_li_record_t *record = &self->records[i];
        if (!record->flags) {
            continue;
        }
        uint32_t deadline = dkt_li_minute_of(record->deadline_ms);
        furthest = record->minute > furthest ? record->minute : furthest;
        furthest = deadline > furthest ? deadline : furthest;
    }
    return furthest - self->base;
}

static uint32_t s_copy(dkt_ledger_t *self, const dkt_ledger_t *old, const dkt_li_record_t *record)
{
    uint32_t index = dkt_li_insert(self, record->key);
    dkt_li_record_t *copy = &self->records[index];
    uint32_t chain = copy->chain;
    *copy = *record;
    copy->chain = chain;
    copy->class_index = s_new_class(old, &self->settings, record->class_index);
    if (record->flags & DKT_LI_HOLD) {
        self->counts.held++;
        dkt_li_link_hold(self, index);
    } else if (record->flags & DKT_LI_OPEN) {
        self->counts.open++;
    } else {
        self->counts.dispatched++;
        dkt_li_link_deadline(self, index);
    }
    return index;
}

static bool s_lane_is_free(const dkt_ledger_t *self, uint32_t minute, uint32_t lane)
{
    return lane < self->shape.resolvers && *dkt_li_lane(self, minute, lane) & DKT_LI_LANE_FREE;
}

/* Keeps a record in its minute, in its lane if that is free, else in another. */
static bool s_keep(dkt_ledger_t *self, uint32_t index)
{
    uint32_t minute = self->records[index].minute;
    uint32_t lane = self->records[index].lane;
    if (!s_lane_is_free(self, minute, lane)) {
        for (lane = 0; lane < self->shape.resolvers && !s_lane_is_free(self, minute, lane);) {
            lane++;
        }
    }
    if (lane >= self->shape.resolvers) {
        return false;
    }
    dkt_li_take_lane(self, index, minute, (uint16_t)lane);
    return true;
}

/* Holds first, for they must stay; then the tickets, and those that lost their minute are adrift.
 * False: a minute has more holds than resolvers now. */
static bool s_fill(dkt_ledger_t *self, const dkt_ledger_t *old)
{
    uint32_t adrift = dkt_li_list(self, DKT_LI_LIST_ADRIFT);
    uint32_t batch = dkt_li_list(self, DKT_LI_LIST_BATCH);
    for (uint32_t i = 0; i < old->fresh; i++) {
        const dkt_li_record_t *record = &old->records[i];
        if (!record->flags) {
            continue;
        }
        uint32_t index = s_copy(self, old, record);
        if (record->flags & DKT_LI_HOLD && !s_keep(self, index)) {
            return false;
        }
        if (record->flags & DKT_LI_OPEN) {
            dkt_li_link(self, batch, index);
        }
    }
    /* Lanes that stay are taken before those that change, earliest deadlines before later ones. */
    dkt_li_sort(self, batch, false);
    for (int round = 0; round < 2; round++) {
        uint32_t next;
        for (uint32_t index = self->lists[batch]; index != DKT_LI_NONE; index = next) {
            next = self->records[index].next;
            dkt_li_record_t *record = &self->records[index];
            if (round == 0 && !s_lane_is_free(self, record->minute, record->lane)) {
                continue;
            }
            bool kept = s_keep(self, index);
            dkt_li_unlink(self, index);
            if (kept) {
                dkt_li_link_deadline(self, index);
            } else {
                record->flags |= DKT_LI_ADRIFT;
                dkt_li_link(self, adrift, index);
            }
        }
    }
    dkt_li_relink_lanes(self);
    return true;
}

/* A promise that is at risk may stand anywhere. */
static bool s_place_anywhere(dkt_ledger_t *self, uint32_t index)
{
    uint32_t first = dkt_li_first(self->now_ms, DKT_COMMIT_BUDGET_MS);
    uint32_t minute = dkt_li_find(self, DKT_CLASS_GONE, first, dkt_li_window_end(self));
    if (minute == DKT_LI_NONE) {
        return false;
    }
    dkt_li_take(self, index, minute);
    return true;
}

/* Places the adrift, earliest deadline first; those that find nothing stay in the list. */
static uint32_t s_place_adrift(dkt_ledger_t *self, uint64_t *blockers, uint32_t blockers_max)
{
    uint32_t adrift = dkt_li_list(self, DKT_LI_LIST_ADRIFT);
    uint32_t blocker_count = 0;
    dkt_li_sort(self, adrift, false);
    uint32_t next;
    for (uint32_t index = self->lists[adrift]; index != DKT_LI_NONE; index = next) {
        dkt_li_record_t *record = &self->records[index];
        next = record->next;
        if (dkt_li_place(self, index, NULL, NULL) ||
            (record->flags & DKT_LI_AT_RISK && s_place_anywhere(self, index))) {
            dkt_li_unlink(self, index);
            record->flags &= (uint8_t)~DKT_LI_ADRIFT;
            dkt_li_link_deadline(self, index);
            continue;
        }
        if (blocker_count < blockers_max) {
            blockers[blocker_count] = record->key;
        }
        blocker_count++;
    }
    return blocker_count;
}

/* A ticket may have moved more than once on the way; only where it ends is told. */
static void s_report_moves(dkt_ledger_t *self, const dkt_ledger_t *old, dkt_change_fn *fn,
                           void *ctx)
{
    for (uint32_t i = 0; i < old->fresh; i++) {
        const dkt_li_record_t *record = &old->records[i];
        if (!(record->flags & DKT_LI_OPEN)) {
            continue;
        }
        uint32_t index = dkt_li_lookup(self, record->key);
        const dkt_li_record_t *copy = &self->records[index];
        if (copy->minute != record->minute || copy->lane != record->lane) {
            dkt_place_t from = {record->minute, record->lane};
            self->counts.moves_total++;
            dkt_li_report(self, index, DKT_CHANGE_MOVED, from, fn, ctx);
        }
    }
}

dkt_status_t dkt_ledger_resize(dkt_ledger_t **self_p, int64_t now_ms,
                               const dkt_settings_t *settings, dkt_change_fn *fn, void *ctx,
                               uint64_t *blockers, uint32_t blockers_max, uint32_t *blocker_count)
{
    dkt_ledger_t *old = *self_p;
    *blocker_count = 0;
    dkt_li_advance(old, now_ms);
    uint32_t live = old->counts.open + old->counts.dispatched + old->counts.held;
    dkt_ledger_t *self = dkt_li_new(settings, s_furthest(old), live, old->now_ms);
    if (!self) {
        return DKT_INTERNAL;
    }
    self->base = old->base;
    self->flag_minute = old->flag_minute;
    self->version = old->version + 1;
    self->counts.moves_total = old->counts.moves_total;
    bool placed = s_fill(self, old);
    self->loading = false;
    if (placed) {
        *blocker_count = s_place_adrift(self, blockers, blockers_max);
    }
    if (!placed || *blocker_count > 0) {
        dkt_ledger_destroy(&self);
        return DKT_CONFLICT;
    }
    s_report_moves(self, old, fn, ctx);
    dkt_ledger_destroy(self_p);
    *self_p = self;
    return DKT_OK;
}
