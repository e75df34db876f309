/* SPDX-License-Identifier: Apache-2.0 */
#include "support_nats.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/edge/clock.h"
#include "lib/edge/keys.h"

#define S_START_MS 10000
#define S_STEP_US  5000
#define S_BACKLOG  8

static struct sockaddr_in s_address(int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* A port that was free a moment ago. */
static int s_free_port(void)
{
    struct sockaddr_in address = s_address(0);
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static bool s_serves(int port)
{
    struct sockaddr_in address = s_address(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool serves = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return serves;
}

void support_nats_init(support_nats_t *self)
{
    static const char *const roles[] = {"worker", "broker", "ops"};
    char path[160];
    memset(self, 0, sizeof *self);
    strcpy(self->root, "/tmp/docket-test-nats-XXXXXX");
    assert_non_null(mkdtemp(self->root));
    snprintf(self->keys, sizeof self->keys, "%s/keys", self->root);
    assert_int_equal(dkt_keys_create(self->keys, NULL), DKT_OK);
    self->port = s_free_port();
    snprintf(self->url, sizeof self->url, "nats://127.0.0.1:%d", self->port);
    snprintf(path, sizeof path, "%s/nats.conf", self->root);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fprintf(out,
            "listen: \"127.0.0.1:%d\"\njetstream { store_dir: \"%s/store\" }\n"
            "accounts { DOCKET { jetstream: enabled, users: [\n",
            self->port, self->root);
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        dkt_nats_key_t key;
        assert_int_equal(dkt_keys_nats(self->keys, roles[i], &key, NULL), DKT_OK);
        fprintf(out, "  { nkey: %s }\n", key.public_key);
    }
    fprintf(out, "] } }\n");
    assert_int_equal(fclose(out), 0);
}

void support_nats_start(support_nats_t *self)
{
    char path[160], log[160];
    snprintf(path, sizeof path, "%s/nats.conf", self->root);
    snprintf(log, sizeof log, "%s/nats.log", self->root);
    self->pid = fork();
    assert_true(self->pid >= 0);
    if (self->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl("/usr/sbin/nats-server", "nats-server", "-c", path, "-l", log, (char *)NULL);
        execl("/usr/local/bin/nats-server", "nats-server", "-c", path, "-l", log, (char *)NULL);
        _exit(127);
    }
    int64_t until_mono_ms = dkt_clock_mono_ms() + S_START_MS;
    while (!s_serves(self->port)) {
        assert_true(dkt_clock_mono_ms() < until_mono_ms);
        usleep(S_STEP_US);
    }
}

int support_nats_listen(const support_nats_t *self)
{
    struct sockaddr_in address = s_address(self->port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, S_BACKLOG), 0);
    return fd;
}

void support_nats_kill(support_nats_t *self)
{
    if (self->pid > 0) {
        kill(self->pid, SIGKILL);
        waitpid(self->pid, NULL, 0);
    }
    self->pid = 0;
}

void support_nats_fini(support_nats_t *self)
{
    char command[128];
    support_nats_kill(self);
    snprintf(command, sizeof command, "rm -rf '%s'", self->root);
    assert_int_equal(system(command), 0);
}
