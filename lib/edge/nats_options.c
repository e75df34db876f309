/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/nats_options.h"

#include "lib/edge/nats_watch.h"

#define S_PING_MS       1000
#define S_PINGS_OUT_MAX 2

/* On the thread that connects, between the server's greeting and its PONG. */
static natsStatus s_sign(char **error, unsigned char **signature, int *len, const char *nonce,
                         void *closure)
{
    const dkt_nats_key_t *key = closure;
    (void)error; /* the status says enough */
    dkt_nats_watch_pong();
    return nats_Sign(key->seed, nonce, signature, len);
}

natsOptions *dkt_nats_options(const dkt_nats_options_t *config, dkt_nats_key_t *key, dkt_err_t *err)
{
    natsOptions *options = NULL;
    if (dkt_keys_nats(config->keys, config->role, key, err) != DKT_OK) {
        return NULL;
    }
    natsStatus status = natsOptions_Create(&options);
    status = status ? status : natsOptions_SetURL(options, config->url);
    status = status ? status : natsOptions_SetName(options, config->name);
    status = status ? status : natsOptions_SetNKey(options, key->public_key, s_sign, key);
    status = status ? status : natsOptions_SetTimeout(options, config->connect_ms);
    status = status ? status : natsOptions_SetPingInterval(options, S_PING_MS);
    status = status ? status : natsOptions_SetMaxPingsOut(options, S_PINGS_OUT_MAX);
    if (status != NATS_OK) {
        (void)dkt_fail(err, DKT_UNAVAILABLE, NULL, "%s: %s", config->url,
                       natsStatus_GetText(status));
        natsOptions_Destroy(options);
        return NULL;
    }
    return options;
}
