/* SPDX-License-Identifier: Apache-2.0
 *
 * The NATS services protocol ("micro"): a role of this process answers $SRV.PING, $SRV.INFO and
 * $SRV.STATS, also by name and by id, and has endpoints: subjects on which it answers requests.
 * Everything runs on the bus's one handler thread, which waits for nobody, and so must handlers.
 *
 *   request  JSON object, or nothing at all     docket.admin.pause {"node": "worker-1"}
 *   answer   JSON object                        {"node": "worker-1", "state": "paused"}
 *   error    headers Nats-Service-Error-Code and Nats-Service-Error, and the same as JSON
 */
#ifndef DKT_EDGE_SRV_H
#define DKT_EDGE_SRV_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/edge/bus.h"

#define DKT_SRV_ENDPOINTS_MAX 8

/* Codes of errors, as HTTP has them. */
#define DKT_SRV_BAD_REQUEST 400
#define DKT_SRV_NOT_FOUND   404
#define DKT_SRV_UNAVAILABLE 503

/* What a handler says. Zeroed before the call. */
typedef struct {
    json_t *body; /* taken; the answer, if there is no error */
    int code;     /* of an error; 0: none */
    char text[DKT_ERR_TEXT_BYTES_MAX];
    bool silent; /* this request is another instance's business: no answer, not counted */
} dkt_srv_reply_t;

/* `params` NULL: the request is neither empty nor a JSON object. */
typedef void(dkt_srv_fn)(void *ctx, json_t *params, dkt_srv_reply_t *reply);

void dkt_srv_fail(dkt_srv_reply_t *reply, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The text of a parameter; NULL if it is missing or not a text. */
const char *dkt_srv_text(json_t *params, const char *key);

/* Static data. */
typedef struct {
    const char *name, *subject;
    const char *about; /* what it does with which parameters, for people: metadata */
    bool each;         /* every instance hears it; otherwise one of them does (queue group "q") */
    dkt_srv_fn *handle;
} dkt_srv_endpoint_t;

typedef struct {
    dkt_bus_t *bus;
    const char *name, *description; /* static */
    const char *node, *incarnation; /* outlive the service; incarnation NULL: it has none */
    const dkt_srv_endpoint_t *endpoints;
    uint32_t endpoint_count;
    void *ctx;               /* of the handlers */
    const atomic_bool *when; /* NULL, or: it is there while this is true */
} dkt_srv_config_t;

typedef struct dkt_srv dkt_srv_t;

/* NULL without memory. */
dkt_srv_t *dkt_srv_new(const dkt_srv_config_t *config);
/* Once. False: the bus takes no more subscriptions. */
DKT_CHECKED bool dkt_srv_listen(dkt_srv_t *self);
/* After the bus was destroyed: no handler runs any more. */
void dkt_srv_destroy(dkt_srv_t **self_p);

#endif
