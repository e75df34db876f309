/* SPDX-License-Identifier: Apache-2.0
 *
 * Recounts every invariant of the ledger from scratch.
 */
#include "lib/core/ledger_impl.h"

static bool s_broken(dkt_err_t *err, const char *what, uint64_t number)
{
    (void)dkt_fail(err, DKT_INTERNAL, NULL, "ledger: %s (%llu)", what, (unsigned long long)number);
    return false;
}

/* Lanes of one minute: free list, classes, deadlines, latest deadline, bitmap. */
static bool s_check_lanes(const dkt_ledger_t *self, uint32_t minute, uint32_t *standing,
                          dkt_err_t *err)
{
    const dkt_li_minute_t *meta = dkt_li_minute(self, minute);
    uint32_t used[DKT_CLASSES_MAX] = {0};
    uint32_t free_count = 0;
    int64_t latest_ms = INT64_MIN;
    for (uint32_t lane = 0; lane < self->shape.resolvers; lane++) {
        uint32_t index = *dkt_li_lane(self, minute, lane);
        if (index & DKT_LI_LANE_FREE) {
            free_count++;
            continue;
        }
        const dkt_li_record_t *record = &self->records[index];
        if (!(record->flags & (DKT_LI_OPEN | DKT_LI_HOLD)) || record->minute != minute ||
            record->lane != lane) {
            return s_broken(err, "a lane and its promise disagree", record->key);
        }
        (*standing)++;
        if (record->class_index != DKT_CLASS_GONE) {
            used[record->class_index]++;
        }
        if (record->flags & DKT_LI_OPEN) {
            latest_ms = record->deadline_ms > latest_ms ? record->deadline_ms : latest_ms;
        }
    }
    if (free_count != meta->free_count) {
        return s_broken(err, "free lanes are miscounted in minute", minute);
    }
    uint32_t listed = 0;
    for (uint32_t lane = meta->free_lane; lane != DKT_LI_LANE_END && listed <= free_count;
         listed++) {
        lane = *dkt_li_lane(self, minute, lane) & ~DKT_LI_LANE_FREE;
    }
    if (listed != free_count) {
        return s_broken(err, "the free list is wrong in minute", minute);
    }
    if (meta->top != DKT_LI_TOP_UNKNOWN &&
        (meta->top == DKT_LI_NONE ? latest_ms != INT64_MIN
                                  : self->records[meta->top].deadline_ms != latest_ms)) {
        return s_broken(err, "the latest deadline is wrong in minute", minute);
    }
    if ((dkt_li_find(self, DKT_CLASS_GONE, minute, minute) == minute) != (free_count > 0)) {
        return s_broken(err, "the bitmap is wrong in minute", minute);
    }
    for (uint8_t i = 0; self->shape.limited && i < self->settings.class_count; i++) {
        bool open = free_count > 0 && dkt_li_limits_allow(self, minute, i, DKT_CLASS_GONE);
        if (dkt_li_used(self, minute)[i] != used[i] ||
            (dkt_li_find(self, i, minute, minute) == minute) != open) {
            return s_broken(err, "the classes are miscounted in minute", minute);
        }
    }
    return true;
}

static bool s_check_record(const dkt_ledger_t *self, uint32_t index, dkt_err_t *err)
{
    const dkt_li_record_t *record = &self->records[index];
    uint64_t number = record->key & ~DKT_LI_HOLD_KEY;
    if (dkt_li_lookup(self, record->key) != index) {
        return s_broken(err, "a promise is not found by its number", number);
    }
    if (record->flags & DKT_LI_DISPATCHED) {
        return true;
    }
    if (record->flags & (DKT_LI_ADRIFT | DKT_LI_MARK)) {
        return s_broken(err, "a promise stands nowhere", number);
    }
    if (record->minute - self->base >= self->shape.ring || record->lane >= self->shape.resolvers ||
        *dkt_li_lane(self, record->minute, record->lane) != index) {
        return s_broken(err, "a promise and its lane disagree", number);
    }
    if (record->flags & DKT_LI_HOLD) {
        if (record->deadline_ms < self->hold_due_ms ||
            record->deadline_ms > (int64_t)record->minute * DKT_MINUTE_MS - DKT_COMMIT_BUDGET_MS) {
            return s_broken(err, "a hold outlives its slot or is overlooked", number);
        }
        return true;
    }
    if (!(record->flags & DKT_LI_AT_RISK) &&
        (int64_t)(record->minute + 1) * DKT_MINUTE_MS > record->deadline_ms) {
        return s_broken(err, "a promise ends after its deadline", number);
    }
    return true;
}

static bool s_check_lists(const dkt_ledger_t *self, uint32_t live, dkt_err_t *err)
{
    uint32_t listed = 0;
    for (uint32_t list = 0; list < self->shape.lists; list++) {
        uint32_t prev = DKT_LI_HEAD | list;
        uint32_t index = self->lists[list];
        for (; index != DKT_LI_NONE && listed <= live; index = self->records[index].next) {
            const dkt_li_record_t *record = &self->records[index];
            bool hold_list = list >= dkt_li_list(self, DKT_LI_LIST_HOLDS);
            if (record->prev != prev || hold_list != ((record->flags & DKT_LI_HOLD) != 0)) {
                return s_broken(err, "a list is broken", list);
            }
            prev = index;
            listed++;
        }
    }
    return listed == live || s_broken(err, "promises are missing from the lists", live - listed);
}

bool dkt_ledger_check(const dkt_ledger_t *self, dkt_err_t *err)
{
    uint32_t standing = 0;
    dkt_ledger_counts_t counts = {0};
    uint32_t unused = 0;
    for (uint32_t i = 0; i < self->shape.ring; i++) {
        if (!s_check_lanes(self, self->base + i, &standing, err)) {
            return false;
        }
    }
    for (uint32_t i = 0; i < self->fresh; i++) {
        uint8_t flags = self->records[i].flags;
        counts.held += flags & DKT_LI_HOLD ? 1 : 0;
        counts.open += flags & DKT_LI_OPEN ? 1 : 0;
        counts.dispatched += flags & DKT_LI_DISPATCHED ? 1 : 0;
        if (flags && !s_check_record(self, i, err)) {
            return false;
        }
    }
    for (uint32_t i = self->unused; i != DKT_LI_NONE && unused <= self->fresh;
         i = self->records[i].chain) {
        unused++;
    }
    uint32_t live = counts.open + counts.held + counts.dispatched;
    if (counts.open != self->counts.open || counts.held != self->counts.held ||
        counts.dispatched != self->counts.dispatched) {
        return s_broken(err, "promises are miscounted", live);
    }
    if (standing != counts.open + counts.held) {
        return s_broken(err, "lanes used and promises differ", standing);
    }
    if (unused + live != self->fresh || self->fresh > self->shape.records_max) {
        return s_broken(err, "records are lost", unused);
    }
    return s_check_lists(self, live, err);
}
