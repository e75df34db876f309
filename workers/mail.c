/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/mail.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

dkt_work_mail_t *dkt_work_mail(dkt_work_t *work)
{
    return (dkt_work_mail_t *)((char *)work - offsetof(dkt_work_mail_t, work));
}

dkt_answer_mail_t *dkt_answer_mail(dkt_work_mail_t *work, const uint8_t *bytes, size_t len)
{
    dkt_answer_mail_t *answer = dkt_mail_alloc(sizeof *answer + len);
    answer->mail.kind = DKT_MAIL_ANSWER;
    answer->link = work->work.link;
    answer->seq = work->work.seq;
    answer->outcome = DKT_OUTCOME_ANSWER;
    answer->len = (uint32_t)len;
    if (len > 0) {
        memcpy(answer->bytes, bytes, len);
    }
    free(work);
    return answer;
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
