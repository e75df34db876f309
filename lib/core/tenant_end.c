/* SPDX-License-Identifier: Apache-2.0
 *
 * The end of a tenant: whatever the reason, every work leaves once, and what the node loop must
 * know is written down. A failed or uncertain group ends the tenant (rule 5): memory is dropped,
 * the next activation reads the truth.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/core/tenant_impl.h"

void dkt_tenant_fail(dkt_tenant_t *self, const char *text)
{
    if (!self->failed) {
        self->failed = true;
        self->failed_outcome = DKT_STORE_UNKNOWN;
        snprintf(self->end.text, sizeof self->end.text, "%s", text);
    }
}

void dkt_tenant_give_back_all(dkt_tenant_t *self, dkt_works_t *works)
{
    dkt_work_t *work;
    while ((work = dkt_works_pop(works))) {
        dkt_tenant_give_back(self, work);
    }
}

static dkt_work_t *s_take_joiners(dkt_tenant_t *self, uint32_t memo)
{
    dkt_memo_entry_t *entry = dkt_memo_entry(&self->memo, memo);
    dkt_work_t *joiners = entry->joiners;
    entry->joiners = NULL;
    return joiners;
}

/* The request ids of the group in flight, for the node loop (rule 5). */
static void s_note_suspects(dkt_tenant_t *self, const dkt_group_t *group)
{
    self->suspects = malloc((group->reply_count + 1) * sizeof *self->suspects);
    if (!self->suspects) {
        return;
    }
    for (uint32_t i = 0; i < group->reply_count; i++) {
        if (group->replies[i].memo != DKT_MEMO_NONE) {
            self->suspects[self->end.suspect_count++] =
                dkt_memo_entry(&self->memo, group->replies[i].memo)->id;
        }
    }
    self->end.suspects = self->suspects;
}

/* Whose fault is a refusal? Of the moment or the place (stale epoch, past not_after, resources,
 * locks, an operator), not of the requests, unless the database says something about the data. */
static bool s_refused_for_data(const dkt_tenant_t *self)
{
    static const char *const elsewhere[] = {"DK001", "DK002", "25", "40", "53",
                                            "54",    "55",    "57", "58", "F0"};
    for (size_t i = 0; i < sizeof elsewhere / sizeof elsewhere[0]; i++) {
        if (strncmp(self->failed_sqlstate, elsewhere[i], strlen(elsewhere[i])) == 0) {
            return false;
        }
    }
    return self->failed_outcome == DKT_STORE_REFUSED;
}

/* What becomes of a group's requests when the tenant ends with it unfinished. `sent`: it was on its
 * way to the database, so its outcome is the next owner's to find out; otherwise nothing happened.
 */
static void s_end_group(dkt_tenant_t *self, dkt_group_t *group, bool sent)
{
    bool refused_alone = sent && group->solo && s_refused_for_data(self);
    for (uint32_t i = 0; i < group->reply_count; i++) {
        dkt_reply_t *reply = &group->replies[i];
        dkt_work_t *joiner =
            reply->memo == DKT_MEMO_NONE ? NULL : s_take_joiners(self, reply->memo);
        if (!sent) {
            dkt_tenant_give_back(self, reply->work);
        } else {
            dkt_tenant_error_of(self, reply->work, refused_alone ? DKT_INTERNAL : DKT_UNAVAILABLE,
                                NULL);
        }
        while (joiner) {
            dkt_work_t *next = joiner->next;
            dkt_tenant_give_back(self, joiner);
            joiner = next;
        }
    }
    group->reply_count = 0;
}

static void s_end_lists(dkt_tenant_t *self)
{
    dkt_tenant_give_back_all(self, &self->waiting);
    dkt_tenant_give_back_all(self, &self->solo);
    for (uint32_t i = 0; i < self->need_count; i++) {
        dkt_tenant_give_back(self, self->needs[i].work);
    }
    for (uint32_t i = 0; i < self->reading_count; i++) {
        dkt_tenant_give_back(self, self->reading[i].work);
    }
    for (uint32_t i = 0; i < self->fenced_count; i++) {
        dkt_tenant_give_back(self, self->fenced[i].work);
    }
    self->need_count = self->reading_count = self->fenced_count = 0;
    while (self->hashing) {
        dkt_hashing_t *hashing = self->hashing;
        self->hashing = hashing->next;
        self->hashing_count--;
        dkt_tenant_give_back(self, hashing->work);
        free(hashing);
    }
    for (uint32_t i = 0; i < self->memo.count; i++) {
        dkt_work_t *joiner =
            self->memo.entries[i].state == DKT_MEMO_FREE ? NULL : s_take_joiners(self, i);
        while (joiner) {
            dkt_work_t *next = joiner->next;
            dkt_tenant_give_back(self, joiner);
            joiner = next;
        }
    }
}

void dkt_tenant_finish(dkt_tenant_t *self, bool clean, const char *text)
{
    assert(self->state != DKT_TENANT_ENDED);
    self->state = DKT_TENANT_ENDED;
    self->end.clean = clean;
    self->end.refused = s_refused_for_data(self);
    if (text) {
        snprintf(self->end.text, sizeof self->end.text, "%s", text);
    }
    if (self->inflight) {
        bool sent = self->failed_outcome != DKT_STORE_LOST;
        bool refused = self->failed_outcome == DKT_STORE_REFUSED;
        if (sent && (!refused || (s_refused_for_data(self) && !self->inflight->solo))) {
            s_note_suspects(self, self->inflight);
        }
        s_end_group(self, self->inflight, sent);
        self->inflight = NULL;
    }
    s_end_group(self, self->gathering, false);
    s_end_lists(self);
    self->end.next_due_ms = self->ledger ? dkt_ledger_due_ms(self->ledger) : INT64_MAX;
    assert(self->held == 0);
}
