/* SPDX-License-Identifier: Apache-2.0
 *
 * Lanes of minutes: taking, leaving, finding free ones, and the booking limits on them.
 */
#include "lib/core/ledger_impl.h"

#include <string.h>

#define S_WORD_BITS 64u

static uint64_t *s_bitmap(const dkt_ledger_t *self, unsigned number)
{
    return self->open_minutes + (size_t)number * (self->shape.ring / S_WORD_BITS);
}

static void s_set_bit(dkt_ledger_t *self, unsigned number, uint32_t minute, bool value)
{
    uint32_t position = minute & (self->shape.ring - 1);
    uint64_t bit = (uint64_t)1 << (position % S_WORD_BITS);
    uint64_t *word = &s_bitmap(self, number)[position / S_WORD_BITS];
    *word = value ? *word | bit : *word & ~bit;
}

/* Lanes that the classes from `index` on use in the minute. */
static uint32_t s_used_from(const dkt_ledger_t *self, uint32_t minute, unsigned index)
{
    const uint16_t *used = dkt_li_used(self, minute);
    uint32_t sum = 0;
    for (unsigned i = index; i < self->settings.class_count; i++) {
        sum += used[i];
    }
    return sum;
}

bool dkt_li_limits_allow(const dkt_ledger_t *self, uint32_t minute, uint8_t enters, uint8_t leaves)
{
    if (!self->shape.limited || enters == DKT_CLASS_GONE) {
        return true;
    }
    for (uint8_t i = 0; i <= enters; i++) {
        if (self->settings.classes[i].limit_permille == DKT_PERMILLE) {
            continue;
        }
        uint32_t used = s_used_from(self, minute, i) + 1;
        if (leaves != DKT_CLASS_GONE && leaves >= i) {
            used--;
        }
        if (used > dkt_li_allowed(&self->settings, i, minute)) {
            return false;
        }
    }
    return true;
}

/* Recounts the bits of a minute. */
void dkt_li_refresh(dkt_ledger_t *self, uint32_t minute)
{
    bool lane_free = dkt_li_minute(self, minute)->free_count > 0;
    s_set_bit(self, 0, minute, lane_free);
    if (!self->shape.limited) {
        return;
    }
    for (uint8_t i = 0; i < self->settings.class_count; i++) {
        s_set_bit(self, 1u + i, minute,
                  lane_free && dkt_li_limits_allow(self, minute, i, DKT_CLASS_GONE));
    }
}

static void s_count_class(dkt_ledger_t *self, const dkt_li_record_t *record, int change)
{
    if (self->shape.limited && record->class_index != DKT_CLASS_GONE) {
        uint16_t *used = &dkt_li_used(self, record->minute)[record->class_index];
        assert(change > 0 || *used > 0);
        *used = (uint16_t)(*used + change);
    }
}

static void s_raise_top(dkt_ledger_t *self, uint32_t index)
{
    const dkt_li_record_t *record = &self->records[index];
    uint32_t *top = &dkt_li_minute(self, record->minute)->top;
    if (*top == DKT_LI_NONE ||
        (*top != DKT_LI_TOP_UNKNOWN && record->deadline_ms > self->records[*top].deadline_ms)) {
        *top = index;
    }
}

void dkt_li_take(dkt_ledger_t *self, uint32_t index, uint32_t minute)
{
    assert(minute - self->base < self->shape.ring);
    dkt_li_minute_t *meta = dkt_li_minute(self, minute);
    dkt_li_record_t *record = &self->records[index];
    assert(meta->free_count > 0);
    uint32_t *cell = dkt_li_lane(self, minute, meta->free_lane);
    record->minute = minute;
    record->lane = meta->free_lane;
    meta->free_lane = (uint16_t)(*cell & ~DKT_LI_LANE_FREE);
    meta->free_count--;
    *cell = index;
    self->version++;
    s_count_class(self, record, 1);
    if (record->flags & DKT_LI_OPEN) {
        s_raise_top(self, index);
    }
    if (meta->free_count == 0 || self->shape.limited) {
        dkt_li_refresh(self, minute);
    }
}

/* While loading: a certain lane, free lists are made afterwards. */
void dkt_li_take_lane(dkt_ledger_t *self, uint32_t index, uint32_t minute, uint16_t lane)
{
    assert(self->loading && minute - self->base < self->shape.ring);
    uint32_t *cell = dkt_li_lane(self, minute, lane);
    assert(*cell & DKT_LI_LANE_FREE);
    *cell = index;
    self->records[index].minute = minute;
    self->records[index].lane = lane;
    s_count_class(self, &self->records[index], 1);
}

void dkt_li_leave(dkt_ledger_t *self, uint32_t index)
{
    const dkt_li_record_t *record = &self->records[index];
    assert(record->minute - self->base < self->shape.ring);
    dkt_li_minute_t *meta = dkt_li_minute(self, record->minute);
    uint32_t *cell = dkt_li_lane(self, record->minute, record->lane);
    assert(*cell == index);
    *cell = DKT_LI_LANE_FREE | meta->free_lane;
    meta->free_lane = record->lane;
    meta->free_count++;
    if (meta->free_count == self->shape.resolvers) {
        meta->top = DKT_LI_NONE;
    } else if (meta->top == index) {
        meta->top = DKT_LI_TOP_UNKNOWN;
    }
    self->version++;
    s_count_class(self, record, -1);
    if (meta->free_count == 1 || self->shape.limited) {
        dkt_li_refresh(self, record->minute);
    }
}

void dkt_li_became_open(dkt_ledger_t *self, uint32_t index)
{
    self->version++;
    s_raise_top(self, index);
}

uint32_t dkt_li_top(dkt_ledger_t *self, uint32_t minute)
{
    dkt_li_minute_t *meta = dkt_li_minute(self, minute);
    if (meta->top != DKT_LI_TOP_UNKNOWN) {
        return meta->top;
    }
    meta->top = DKT_LI_NONE;
    for (uint32_t lane = 0; lane < self->shape.resolvers; lane++) {
        uint32_t index = *dkt_li_lane(self, minute, lane);
        if (!(index & DKT_LI_LANE_FREE) && self->records[index].flags & DKT_LI_OPEN) {
            s_raise_top(self, index);
        }
    }
    return meta->top;
}

void dkt_li_recycle(dkt_ledger_t *self)
{
    uint32_t minute = self->base;
    assert(dkt_li_minute(self, minute)->free_count == self->shape.resolvers);
    assert(dkt_li_minute(self, minute)->top == DKT_LI_NONE);
    self->base++;
    self->version++;
    dkt_li_refresh(self, minute + self->shape.ring);
}

/* -- finding -------------------------------------------------------------------------------------
 */

static const uint64_t *s_bitmap_of(const dkt_ledger_t *self, uint8_t class_index)
{
    bool by_class = self->shape.limited && class_index != DKT_CLASS_GONE;
    return s_bitmap(self, by_class ? 1u + class_index : 0u);
}

uint32_t dkt_li_find(const dkt_ledger_t *self, uint8_t class_index, uint32_t first, uint32_t last)
{
    const uint64_t *bitmap = s_bitmap_of(self, class_index);
    uint32_t mask = self->shape.ring - 1;
    if (last > dkt_li_window_end(self)) {
        last = dkt_li_window_end(self);
    }
    assert(first >= self->base);
    while (first <= last) {
        uint32_t shift = (first & mask) % S_WORD_BITS;
        uint64_t word = bitmap[(first & mask) / S_WORD_BITS] >> shift;
        if (word) {
            uint32_t minute = first + (uint32_t)__builtin_ctzll(word);
            return minute <= last ? minute : DKT_LI_NONE;
        }
        first += S_WORD_BITS - shift;
    }
    return DKT_LI_NONE;
}

uint32_t dkt_li_find_back(const dkt_ledger_t *self, uint8_t class_index, uint32_t first,
                          uint32_t last)
{
    const uint64_t *bitmap = s_bitmap_of(self, class_index);
    uint32_t mask = self->shape.ring - 1;
    if (last > dkt_li_window_end(self)) {
        last = dkt_li_window_end(self);
    }
    for (uint32_t minute = last; minute >= first && minute != DKT_LI_NONE; minute--) {
        uint32_t position = minute & mask;
        if (bitmap[position / S_WORD_BITS] >> (position % S_WORD_BITS) & 1) {
            return minute;
        }
    }
    return DKT_LI_NONE;
}
