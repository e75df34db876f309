/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/mail.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define S_AHEAD      3  /* works that are looked at before they are decided */
#define S_LINE_BYTES 64 /* of a processor's cache */

dkt_work_mail_t *dkt_work_mail(dkt_work_t *work)
{
    return (dkt_work_mail_t *)((char *)work - offsetof(dkt_work_mail_t, work));
}

dkt_answer_mail_t *dkt_answer_mail(dkt_work_mail_t *work, const uint8_t *bytes, size_t len)
{
    uint64_t seq = work->work.seq;
    uint32_t link = work->work.link;
    uint8_t method = work->work.method;
    void *room = work;
    if (sizeof(dkt_answer_mail_t) + len > sizeof *work + work->work.len) {
        free(work);
        room = dkt_mail_alloc(sizeof(dkt_answer_mail_t) + len);
    }
    dkt_answer_mail_t *answer = room;
    if (len > 0) {
        memcpy(answer->bytes, bytes, len);
    }
    answer->mail.kind = DKT_MAIL_ANSWER;
    answer->mail.next = NULL;
    answer->link = link;
    answer->method = method;
    answer->seq = seq;
    answer->outcome = DKT_OUTCOME_ANSWER;
    answer->len = (uint32_t)len;
    return answer;
}

static const dkt_uuid_t *s_id_of(const dkt_mail_t *mail)
{
    const dkt_work_mail_t *work = (const dkt_work_mail_t *)mail;
    bool has = mail->kind == DKT_MAIL_WORK && work->present & DKT_PARAM_BIT(REQUEST_ID);
    return has ? &work->request_id : NULL;
}

void dkt_mail_look_ahead(const dkt_mail_t *mail, const dkt_tenant_t *core)
{
    const dkt_mail_t *ahead = mail->next;
    for (int i = 1; ahead && i < S_AHEAD; i++, ahead = ahead->next) {
        const dkt_uuid_t *id = s_id_of(ahead);
        if (id) {
            dkt_tenant_fetch(core, id, i == 1);
        }
    }
    for (size_t at = 0; ahead && at < sizeof(dkt_work_mail_t); at += S_LINE_BYTES) {
        __builtin_prefetch((const char *)ahead + at);
    }
}

void dkt_mail_post(dkt_mailbox_t *box, dkt_mail_t *mail, dkt_mail_kind_t kind)
{
    mail->kind = kind;
    bool pushed = dkt_mailbox_push(box, mail);
    assert(pushed);
}

void *dkt_mail_alloc(size_t bytes)
{
    void *mail = calloc(1, bytes);
    if (!mail) {
        abort();
    }
    return mail;
}

void dkt_mail_post_kind(dkt_mailbox_t *box, dkt_mail_kind_t kind)
{
    dkt_mail_post(box, dkt_mail_alloc(sizeof(dkt_mail_t)), kind);
}
