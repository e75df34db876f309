/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/nats_client.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/core/limits.h"
#include "lib/edge/nats_options.h"

#define S_CONNECT_MS  2000
#define S_PORT_OFFSET 2

static volatile sig_atomic_t s_stop;

static void s_on_signal(int number)
{
    (void)number;
    s_stop = 1;
}

void dkt_nats_watch_signals(void)
{
    const struct sigaction action = {.sa_handler = s_on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool dkt_nats_stopped(void)
{
    return s_stop != 0;
}

void dkt_nats_defaults(dkt_nats_where_t *where)
{
    static char url[64];
    if (!where->url) {
        where->url = getenv("DOCKET_NATS");
    }
    if (!where->url) {
        snprintf(url, sizeof url, "nats://127.0.0.1:%d", DKT_UP_PORT_DEFAULT + S_PORT_OFFSET);
        where->url = url;
    }
    if (!where->keys) {
        where->keys = getenv("DOCKET_KEYS");
    }
}

natsConnection *dkt_nats_connect(const dkt_nats_where_t *where, const char *name, dkt_err_t *err)
{
    natsConnection *connection = NULL;
    if (!where->keys) {
        err->status =
            dkt_fail(err, DKT_INVALID_ARGUMENT, "keys", "which keys? --keys DIR, or DOCKET_KEYS");
        return NULL;
    }
    const dkt_nats_options_t config = {.url = where->url,
                                       .keys = where->keys,
                                       .role = "ops",
                                       .name = name,
                                       .connect_ms = S_CONNECT_MS};
    dkt_nats_key_t key; /* it never reconnects, so that it signs in here only */
    natsOptions *options = dkt_nats_options(&config, &key, err);
    if (!options) {
        return NULL;
    }
    natsStatus status = natsOptions_SetAllowReconnect(options, false);
    status = status ? status : natsConnection_Connect(&connection, options);
    natsOptions_Destroy(options);
    if (status != NATS_OK) {
        err->status =
            dkt_fail(err, DKT_UNAVAILABLE, NULL, "%s: %s", where->url, natsStatus_GetText(status));
        return NULL;
    }
    return connection;
}
