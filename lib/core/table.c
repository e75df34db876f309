/* SPDX-License-Identifier: Apache-2.0
 *
 * The vshard table: order of versions, and the assignment of vshards to worker incarnations that
 * moves as few as possible (every move is a drain and an activation for its tenants).
 */
#include <assert.h>
#include <string.h>

#include "lib/core/link.h"

int dkt_table_version_compare(dkt_table_version_t a, dkt_table_version_t b)
{
    if (a.epoch != b.epoch) {
        return a.epoch < b.epoch ? -1 : 1;
    }
    if (a.version != b.version) {
        return a.version < b.version ? -1 : 1;
    }
    return 0;
}

static uint16_t s_member_index(const dkt_incarnation_t *members, uint16_t member_count,
                               const dkt_incarnation_t *wanted)
{
    for (uint16_t i = 0; i < member_count; i++) {
        if (memcmp(members[i].bytes, wanted->bytes, DKT_INCARNATION_BYTES) == 0) {
            return i;
        }
    }
    return DKT_VSHARD_NOBODY;
}

/* Rewrites the owners as indexes into the new members; those that left own nothing. */
static void s_translate_owners(dkt_table_t *table, const dkt_incarnation_t *members,
                               uint16_t member_count, uint16_t *held)
{
    uint16_t to[DKT_MEMBERS_MAX];
    for (uint16_t i = 0; i < table->member_count; i++) {
        to[i] = s_member_index(members, member_count, &table->members[i]);
    }
    for (uint16_t v = 0; v < DKT_VSHARDS; v++) {
        uint16_t owner = table->owner[v];
        table->owner[v] = owner < table->member_count ? to[owner] : DKT_VSHARD_NOBODY;
        if (table->owner[v] != DKT_VSHARD_NOBODY) {
            held[table->owner[v]]++;
        }
    }
}

/* How many vshards each member may have: V / n each, and the rest of the division one each to those
 * that hold the most now, because that moves the fewest. */
static void s_fill_quotas(const uint16_t *held, uint16_t member_count, uint16_t *quota)
{
    bool favoured[DKT_MEMBERS_MAX] = {false};
    for (uint16_t i = 0; i < member_count; i++) {
        quota[i] = (uint16_t)(DKT_VSHARDS / member_count);
    }
    for (uint16_t rest = (uint16_t)(DKT_VSHARDS % member_count); rest > 0; rest--) {
        uint16_t most = DKT_VSHARD_NOBODY;
        for (uint16_t i = 0; i < member_count; i++) {
            if (!favoured[i] && (most == DKT_VSHARD_NOBODY || held[i] > held[most])) {
                most = i;
            }
        }
        favoured[most] = true;
        quota[most]++;
    }
}

void dkt_table_assign(dkt_table_t *table, const dkt_incarnation_t *members, uint16_t member_count)
{
    assert(member_count <= DKT_MEMBERS_MAX && table->member_count <= DKT_MEMBERS_MAX);
    uint16_t held[DKT_MEMBERS_MAX] = {0};
    uint16_t quota[DKT_MEMBERS_MAX] = {0};
    s_translate_owners(table, members, member_count, held);
    if (member_count > 0) {
        s_fill_quotas(held, member_count, quota);
    }
    uint16_t kept[DKT_MEMBERS_MAX] = {0};
    for (uint16_t v = 0; v < DKT_VSHARDS; v++) {
        uint16_t owner = table->owner[v];
        if (owner != DKT_VSHARD_NOBODY && kept[owner]++ >= quota[owner]) {
            table->owner[v] = DKT_VSHARD_NOBODY;
            kept[owner]--;
        }
    }
    /* Round robin over those below their quota, so that a hot range of vshards is spread. */
    uint16_t next = 0;
    for (uint16_t v = 0; v < DKT_VSHARDS && member_count > 0; v++) {
        if (table->owner[v] == DKT_VSHARD_NOBODY) {
            while (kept[next] >= quota[next]) {
                next = (uint16_t)((next + 1) % member_count);
            }
            table->owner[v] = next;
            kept[next]++;
            next = (uint16_t)((next + 1) % member_count);
        }
    }
    table->member_count = member_count;
    memmove(table->members, members, member_count * sizeof *members);
    table->version.version++;
}
