/* SPDX-License-Identifier: Apache-2.0
 *
 * Every way out of the tenant core for a request. Answers that write nothing leave only with proof
 * that this connection still owns the tenant (rule 3); answers of decisions leave with their group.
 */
#include <assert.h>
#include <string.h>

#include "lib/core/grow.h"
#include "lib/core/plant.h"
#include "lib/core/tenant_impl.h"

#define RETRY_SOON_MS 50 /* after a failed group: the next activation takes about this long */

void dkt_tenant_answer(dkt_tenant_t *self, dkt_work_t *work, const uint8_t *bytes, size_t len)
{
    assert(self->held > 0);
    self->held--;
    self->port.answer(self->port.ctx, work, bytes, len);
}

void dkt_tenant_give_back(dkt_tenant_t *self, dkt_work_t *work)
{
    assert(self->held > 0);
    self->held--;
    self->port.give_back(self->port.ctx, work);
}

static uint32_t s_msgid(const dkt_work_t *work)
{
    dkt_request_t request;
    dkt_err_t err;
    dkt_status_t ignored = dkt_work_decode(work, &request, &err);
    (void)ignored; /* of a malformed request it is the msgid if that could be read, else 0 */
    return request.msgid;
}

void dkt_tenant_error(dkt_tenant_t *self, dkt_work_t *work, const dkt_err_t *err)
{
    uint8_t bytes[DKT_ANSWER_BYTES_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_answer_error(&w, s_msgid(work), err);
    assert(!w.failed);
    dkt_tenant_answer(self, work, bytes, w.len);
}

static dkt_err_t s_error_of(dkt_status_t status, const char *field)
{
    dkt_err_t err;
    dkt_fail(&err, status, field, NULL);
    if (dkt_status_retry(status) == DKT_RETRY_SAME || dkt_status_retry(status) == DKT_RETRY_FIND) {
        err.retry_after_ms = RETRY_SOON_MS;
    }
    return err;
}

void dkt_tenant_error_of(dkt_tenant_t *self, dkt_work_t *work, dkt_status_t status,
                         const char *field)
{
    dkt_err_t err = s_error_of(status, field);
    dkt_tenant_error(self, work, &err);
}

/* -- with proof -- */

static bool s_proof_fresh(const dkt_tenant_t *self)
{
    return DKT_PLANTED(NO_FENCE) || self->mono_ms - self->proof_mono_ms < DKT_FENCE_FRESH_MS;
}

void dkt_tenant_fenced(dkt_tenant_t *self, dkt_work_t *work, const uint8_t *bytes, size_t len)
{
    if (s_proof_fresh(self)) {
        dkt_tenant_answer(self, work, bytes, len);
        return;
    }
    if (!dkt_grow((void **)&self->fenced, &self->fenced_max, self->fenced_count + 1,
                  sizeof *self->fenced) ||
        !dkt_grow((void **)&self->fence_bytes, &self->fence_max, self->fence_len + (uint32_t)len,
                  1)) {
        dkt_tenant_error_of(self, work, DKT_OVERLOADED, NULL);
        return;
    }
    memcpy(self->fence_bytes + self->fence_len, bytes, len);
    self->fenced[self->fenced_count++] =
        (dkt_fenced_t){.work = work, .at = self->fence_len, .len = (uint32_t)len};
    self->fence_len += (uint32_t)len;
}

void dkt_tenant_fence_open(dkt_tenant_t *self)
{
    if (!s_proof_fresh(self)) {
        return;
    }
    for (uint32_t i = 0; i < self->fenced_count; i++) {
        const dkt_fenced_t *fenced = &self->fenced[i];
        dkt_tenant_answer(self, fenced->work, self->fence_bytes + fenced->at, fenced->len);
    }
    self->fenced_count = 0;
    self->fence_len = 0;
}

void dkt_tenant_fence_expire(dkt_tenant_t *self)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < self->fenced_count; i++) {
        const dkt_fenced_t fenced = self->fenced[i];
        if (fenced.work->deadline_mono_ms <= self->mono_ms) {
            dkt_tenant_error_of(self, fenced.work, DKT_DEADLINE_EXCEEDED, NULL);
        } else {
            self->fenced[kept++] = fenced;
        }
    }
    self->fenced_count = kept;
    if (kept == 0) {
        self->fence_len = 0;
    }
}

/* How an answer leaves: with proof, or with what is pending. */
typedef void(s_way_out_t)(dkt_tenant_t *, dkt_work_t *, const uint8_t *, size_t);

static void s_send_error(dkt_tenant_t *self, dkt_call_t *call, dkt_status_t status,
                         const char *field, s_way_out_t *way_out)
{
    uint8_t bytes[DKT_ANSWER_BYTES_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_err_t err = s_error_of(status, field);
    dkt_answer_error(&w, call->request.msgid, &err);
    assert(!w.failed);
    way_out(self, call->work, bytes, w.len);
}

static void s_send_status(dkt_tenant_t *self, dkt_call_t *call, const char *status,
                          s_way_out_t *way_out)
{
    uint8_t bytes[DKT_ANSWER_BYTES_MAX];
    dkt_w_t w = dkt_w_init(bytes, sizeof bytes);
    dkt_answer_status(&w, call->request.msgid, status);
    assert(!w.failed);
    way_out(self, call->work, bytes, w.len);
}

void dkt_tenant_fenced_error(dkt_tenant_t *self, dkt_call_t *call, dkt_status_t status,
                             const char *field)
{
    s_send_error(self, call, status, field, dkt_tenant_fenced);
}

void dkt_tenant_fenced_status(dkt_tenant_t *self, dkt_call_t *call, const char *status)
{
    s_send_status(self, call, status, dkt_tenant_fenced);
}

/* -- with a group -- */

static void s_reply(dkt_tenant_t *self, dkt_group_t *group, dkt_work_t *work, uint32_t memo,
                    const uint8_t *bytes, size_t len)
{
    if (!dkt_group_reply(group, work, memo, bytes, len)) {
        dkt_tenant_fail(self, "no memory for an answer");
        dkt_tenant_error_of(self, work, DKT_UNAVAILABLE, NULL);
    }
}

void dkt_tenant_attach(dkt_tenant_t *self, dkt_work_t *work, const uint8_t *bytes, size_t len)
{
    dkt_group_t *group = !dkt_group_readonly(self->gathering) ? self->gathering : self->inflight;
    if (group) {
        s_reply(self, group, work, DKT_MEMO_NONE, bytes, len);
    } else {
        dkt_tenant_fenced(self, work, bytes, len);
    }
}

void dkt_tenant_attach_error(dkt_tenant_t *self, dkt_call_t *call, dkt_status_t status,
                             const char *field)
{
    s_send_error(self, call, status, field, dkt_tenant_attach);
}

void dkt_tenant_attach_status(dkt_tenant_t *self, dkt_call_t *call, const char *status)
{
    s_send_status(self, call, status, dkt_tenant_attach);
}

void dkt_tenant_decided(dkt_tenant_t *self, dkt_call_t *call, uint32_t memo, const dkt_w_t *w)
{
    assert(!w->failed);
    s_reply(self, self->gathering, call->work, memo, w->data, w->len);
}

uint64_t dkt_tenant_write_created(dkt_tenant_t *self, dkt_w_t *w, uint32_t msgid, uint64_t number,
                                  dkt_view_t slot_text, uint32_t minute, int64_t deadline_ms,
                                  bool replayed)
{
    dkt_id_text_t ticket_id, slot_id;
    uint64_t tag = dkt_ticket_text(self->config.id_keys, &self->config.client, number, &ticket_id);
    if (slot_text.data) {
        assert(slot_text.len <= DKT_ID_CHARS_MAX);
        memcpy(slot_id.text, slot_text.data, slot_text.len);
        slot_id.text[slot_text.len] = '\0';
    } else {
        dkt_slot_ref_t derived = {.client = self->config.client,
                                  .nonce = DKT_NONCE_DERIVED | number};
        dkt_slot_text(self->config.id_keys, &derived, &slot_id);
    }
    dkt_answer_created_t answer = {.ticket_id = ticket_id.text,
                                   .slot_id = slot_id.text,
                                   .slot_start_ms = (int64_t)minute * DKT_MINUTE_MS,
                                   .deadline_ms = deadline_ms,
                                   .replayed = replayed};
    dkt_answer_created(w, msgid, &answer);
    return tag;
}
