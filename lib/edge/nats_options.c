/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/nats_options.h"

#include "lib/edge/keys.h"

#define S_PING_MS       1000
#define S_PINGS_OUT_MAX 2

natsOptions *dkt_nats_options(const dkt_nats_options_t *config, dkt_err_t *err)
{
    char path[DKT_KEY_PATH_BYTES_MAX], public_key[DKT_NKEY_PUBLIC_CHARS + 1];
    natsOptions *options = NULL;
    if (dkt_keys_nats(config->keys, config->role, path, public_key, err) != DKT_OK) {
        return NULL;
    }
    natsStatus status = natsOptions_Create(&options);
    status = status ? status : natsOptions_SetURL(options, config->url);
    status = status ? status : natsOptions_SetName(options, config->name);
    status = status ? status : natsOptions_SetNKeyFromSeed(options, public_key, path);
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
