/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may send what: the checks of the contract as a table, in the contract's order. What is left
 * after them (request_id, ticket_type, suspended, the ledger's verdict) is the owner's.
 */
#include <string.h>
#include <xxhash.h>

#include "lib/core/router_internal.h"

typedef dkt_status_t(s_check_fn)(dkt_router_t *self, dkt_instant_t now,
                                 const dkt_request_t *request, dkt_rt_checked_t *checked,
                                 dkt_err_t *err);

/* A token counts only where one is asked for: on the public endpoint. */
static bool s_has_tenant(const dkt_request_t *request, const dkt_rt_checked_t *checked)
{
    return checked->side == DKT_AUDIENCE_PUBLIC && dkt_method_row(request->method)->token;
}

static dkt_status_t s_check_endpoint(dkt_router_t *self, dkt_instant_t now,
                                     const dkt_request_t *request, dkt_rt_checked_t *checked,
                                     dkt_err_t *err)
{
    (void)self;
    (void)now;
    if (checked->side == DKT_AUDIENCE_PUBLIC &&
        dkt_method_row(request->method)->audience != DKT_AUDIENCE_PUBLIC) {
        return dkt_fail(err, DKT_PERMISSION_DENIED, NULL,
                        "this method is served on the internal endpoint only");
    }
    return DKT_OK;
}

static dkt_status_t s_check_token(dkt_router_t *self, dkt_instant_t now,
                                  const dkt_request_t *request, dkt_rt_checked_t *checked,
                                  dkt_err_t *err)
{
    if (!s_has_tenant(request, checked)) {
        return DKT_OK;
    }
    if (!request->token.data) {
        return dkt_fail(err, DKT_UNAUTHENTICATED, "token", NULL);
    }
    if (self->table.key_count == 0) {
        checked->later = true;
        return DKT_OK;
    }
    return dkt_rt_token(self, now, request->token, checked, err);
}

static dkt_status_t s_check_tenant(dkt_router_t *self, dkt_instant_t now,
                                   const dkt_request_t *request, dkt_rt_checked_t *checked,
                                   dkt_err_t *err)
{
    (void)now;
    const dkt_method_row_t *row = dkt_method_row(request->method);
    dkt_client_t client;
    if (!s_has_tenant(request, checked) || !request->client_id.data ||
        !((row->required | row->optional) & DKT_PARAM_BIT(CLIENT_ID))) {
        return DKT_OK;
    }
    if (!dkt_client_parse_seen(&self->client_seen, (const char *)request->client_id.data,
                               request->client_id.len, &client) ||
        !dkt_client_equal(&client, &checked->claims.client)) {
        return dkt_fail(err, DKT_PERMISSION_DENIED, "client_id", "not the client of the token");
    }
    return DKT_OK;
}

static dkt_status_t s_check_arguments(dkt_router_t *self, dkt_instant_t now,
                                      const dkt_request_t *request, dkt_rt_checked_t *checked,
                                      dkt_err_t *err)
{
    (void)self;
    (void)now;
    (void)checked;
    if (request->argument.status != DKT_OK) {
        *err = request->argument;
    }
    return request->argument.status;
}

/* By client_id. An account that cannot exist looks like one that does not: login never tells. */
static dkt_status_t s_route_client(dkt_router_t *self, const dkt_request_t *request,
                                   dkt_rt_checked_t *checked, dkt_err_t *err)
{
    dkt_client_t client;
    if (!s_has_tenant(request, checked)) { /* else it is the token's, whose vshard is known */
        if (!dkt_client_parse_seen(&self->client_seen, (const char *)request->client_id.data,
                                   request->client_id.len, &client)) {
            return request->method == DKT_METHOD_LOGIN
                       ? dkt_fail(err, DKT_UNAUTHENTICATED, NULL, NULL)
                       : dkt_fail(err, DKT_NOT_FOUND, "client_id", NULL);
        }
        checked->vshard = dkt_client_vshard_seen(&self->vshard_seen, &client);
    }
    if (request->slot_id.data &&
        !dkt_id_client((const char *)request->slot_id.data, request->slot_id.len, &client)) {
        return dkt_fail(err, DKT_NOT_FOUND, "slot_id", NULL);
    }
    return DKT_OK;
}

/* By the client inside a ticket or slot id; on the public endpoint it must be the token's, and
 * another tenant's id is as unknown as one that never was. */
static dkt_status_t s_route_id(dkt_router_t *self, const dkt_request_t *request, dkt_view_t id,
                               const char *field, dkt_rt_checked_t *checked, dkt_err_t *err)
{
    dkt_client_t client;
    if (!dkt_id_client((const char *)id.data, id.len, &client) ||
        (s_has_tenant(request, checked) && !dkt_client_equal(&client, &checked->claims.client))) {
        return dkt_fail(err, DKT_NOT_FOUND, field, NULL);
    }
    if (!s_has_tenant(request, checked)) {
        checked->vshard = dkt_client_vshard_seen(&self->vshard_seen, &client);
    }
    return DKT_OK;
}

static dkt_status_t s_check_ids(dkt_router_t *self, dkt_instant_t now, const dkt_request_t *request,
                                dkt_rt_checked_t *checked, dkt_err_t *err)
{
    (void)now;
    switch (dkt_method_row(request->method)->route) {
    case DKT_ROUTE_CLIENT:
        return s_route_client(self, request, checked, err);
    case DKT_ROUTE_TICKET:
        return s_route_id(self, request, request->ticket_id, "ticket_id", checked, err);
    case DKT_ROUTE_SLOT:
        return s_route_id(self, request, request->slot_id, "slot_id", checked, err);
    case DKT_ROUTE_ANY:
        /* A retry of the same request_id should find the same worker, which may still be at it. */
        checked->vshard = (uint16_t)((request->present & DKT_PARAM_BIT(REQUEST_ID)
                                          ? XXH64(request->request_id.bytes, DKT_UUID_BYTES, 0)
                                          : self->spread++) %
                                     DKT_VSHARDS);
        return DKT_OK;
    case DKT_ROUTE_BROKER:
        break;
    }
    return DKT_OK;
}

/* Last, so that what is wrong anyway costs a client nothing. */
static dkt_status_t s_check_quota(dkt_router_t *self, dkt_instant_t now,
                                  const dkt_request_t *request, dkt_rt_checked_t *checked,
                                  dkt_err_t *err)
{
    (void)checked;
    uint32_t wait_ms = 0;
    if ((request->method != DKT_METHOD_CREATE_ACCOUNT && request->method != DKT_METHOD_LOGIN) ||
        dkt_rt_quota(self, now, self->port.source(self->port.ctx), &wait_ms)) {
        return DKT_OK;
    }
    self->counts.limited++;
    dkt_status_t status = dkt_fail(err, DKT_RATE_LIMITED, NULL, NULL);
    err->retry_after_ms = wait_ms;
    return status;
}

dkt_status_t dkt_rt_check(dkt_router_t *self, dkt_instant_t now, const dkt_request_t *request,
                          dkt_rt_checked_t *checked, dkt_err_t *err)
{
    static s_check_fn *const checks[] = {s_check_endpoint,  s_check_token, s_check_tenant,
                                         s_check_arguments, s_check_ids,   s_check_quota};
    dkt_status_t status = DKT_OK;
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        status = checks[i](self, now, request, checked, err);
        if (status != DKT_OK || checked->later) {
            break;
        }
    }
    return status;
}
