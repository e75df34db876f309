/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/nats_watch.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/core/limits.h"
#include "lib/edge/log.h"

#define S_SOCKETS_MAX 8 /* attempts of one process at the same time: two */
#define S_MS_PER_S    1000
#define S_NS_PER_MS   1000000L

/* Descriptors of our own: whatever the client closes meanwhile, these stay what they are. */
typedef struct {
    int fd[S_SOCKETS_MAX];
    uint64_t received_bytes[S_SOCKETS_MAX];
    unsigned count;
} s_watch_t;

static bool s_info(int fd, struct tcp_info *info)
{
    socklen_t len = sizeof *info;
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &len) == 0;
}

/* Has it heard something and said nothing? */
static bool s_is_greeted(int fd, struct tcp_info *info)
{
    return s_info(fd, info) && info->tcpi_bytes_received > 0 && info->tcpi_data_segs_out == 0;
}

static void s_find(s_watch_t *self)
{
    DIR *folder = opendir("/proc/self/fd");
    struct dirent *entry = NULL;
    while (folder && self->count < S_SOCKETS_MAX && (entry = readdir(folder))) {
        struct tcp_info info = {0};
        int fd = atoi(entry->d_name);
        if (s_is_greeted(fd, &info)) {
            int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
            if (own >= 0) {
                self->fd[self->count] = own;
                self->received_bytes[self->count++] = info.tcpi_bytes_received;
            }
        }
    }
    if (folder) {
        closedir(folder);
    }
}

static void s_end(s_watch_t *self)
{
    for (unsigned i = 0; i < self->count; i++) {
        close(self->fd[i]);
    }
    free(self);
}

static void *s_run(void *argument)
{
    s_watch_t *self = argument;
    nanosleep(&(struct timespec){.tv_sec = DKT_NATS_PONG_MS / S_MS_PER_S,
                                 .tv_nsec = DKT_NATS_PONG_MS % S_MS_PER_S * S_NS_PER_MS},
              NULL);
    for (unsigned i = 0; i < self->count; i++) {
        struct tcp_info info = {0};
        if (s_info(self->fd[i], &info) && info.tcpi_bytes_received == self->received_bytes[i]) {
            dkt_log(DKT_LOG_WARN, "NATS: the server greets and says no more");
            shutdown(self->fd[i], SHUT_RDWR);
        }
    }
    s_end(self);
    return NULL;
}

void dkt_nats_watch_pong(void)
{
    s_watch_t *self = calloc(1, sizeof *self);
    pthread_t thread;
    if (!self) {
        return;
    }
    s_find(self);
    if (self->count > 0 && pthread_create(&thread, NULL, s_run, self) == 0) {
        pthread_detach(thread);
    } else {
        s_end(self);
    }
}
