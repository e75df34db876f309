/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/mailbox.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct dkt_mailbox {
    pthread_mutex_t lock;
    dkt_mail_t *head, *tail; /* under the lock */
    uint32_t count, max;
    int fd;
};

dkt_mailbox_t *dkt_mailbox_new(uint32_t max)
{
    assert(max > 0);
    dkt_mailbox_t *self = calloc(1, sizeof *self);
    if (!self) {
        return NULL;
    }
    self->max = max;
    self->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (self->fd < 0) {
        free(self);
        return NULL;
    }
    pthread_mutex_init(&self->lock, NULL);
    return self;
}

void dkt_mailbox_destroy(dkt_mailbox_t **self_p)
{
    dkt_mailbox_t *self = *self_p;
    if (!self) {
        return;
    }
    *self_p = NULL;
    assert(!self->head);
    close(self->fd);
    pthread_mutex_destroy(&self->lock);
    free(self);
}

/* Only the push that ends an empty queue wakes the reader by itself. The counter of an eventfd
 * cannot overflow: that would take 2^64 calls without a drain, which resets it. */
void dkt_mailbox_wake(dkt_mailbox_t *self)
{
    uint64_t one = 1;
    ssize_t n;
    do {
        n = write(self->fd, &one, sizeof one);
    } while (n < 0 && errno == EINTR);
    assert(n == (ssize_t)sizeof one);
}

static bool s_append(dkt_mailbox_t *self, dkt_mail_t *head, dkt_mail_t *tail, uint32_t count)
{
    pthread_mutex_lock(&self->lock);
    bool fits = count <= self->max - self->count;
    bool was_empty = !self->head;
    if (fits) {
        if (was_empty) {
            self->head = head;
        } else {
            self->tail->next = head;
        }
        self->tail = tail;
        self->count += count;
    }
    pthread_mutex_unlock(&self->lock);
    if (fits && was_empty) {
        dkt_mailbox_wake(
            self); /* outside the lock, for which the reader would wait as soon as it is awake */
    }
    return fits;
}

bool dkt_mailbox_push(dkt_mailbox_t *self, dkt_mail_t *mail)
{
    mail->next = NULL;
    return s_append(self, mail, mail, 1);
}

bool dkt_mailbox_push_list(dkt_mailbox_t *self, dkt_mail_t *head)
{
    if (!head) {
        return true;
    }
    uint32_t count = 1;
    dkt_mail_t *tail = head;
    while (tail->next) {
        tail = tail->next;
        count++;
    }
    return s_append(self, head, tail, count);
}

dkt_mail_t *dkt_mailbox_drain(dkt_mailbox_t *self)
{
    uint64_t wakes;
    /* First, so that a wake-up is taken before its message: one that comes later than its message
     * was taken only wakes in vain. */
    ssize_t n = read(self->fd, &wakes, sizeof wakes);
    assert(n == (ssize_t)sizeof wakes || errno == EAGAIN || errno == EINTR);
    (void)n;
    pthread_mutex_lock(&self->lock);
    dkt_mail_t *head = self->head;
    self->head = NULL;
    self->tail = NULL;
    self->count = 0;
    pthread_mutex_unlock(&self->lock);
    return head;
}

int dkt_mailbox_fd(const dkt_mailbox_t *self)
{
    return self->fd;
}
