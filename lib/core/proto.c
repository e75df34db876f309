/* SPDX-License-Identifier: Apache-2.0
 *
 * The tables of the wire contract, and the digests that tell a replay from a conflict.
 */
#include "lib/core/proto.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

#define P(name) DKT_PARAM_BIT(name)
static const dkt_method_row_t s_methods[DKT_METHOD_COUNT] = {
#define X(name, wire, audience, token, request_id, route, required, optional)                      \
    {wire, DKT_AUDIENCE_##audience, token, request_id, DKT_ROUTE_##route, required, optional},
    DKT_METHOD_MAP(X)
#undef X
};
#undef P

static const char *const s_params[DKT_PARAM_COUNT] = {
#define X(name, key) key,
    DKT_PARAM_MAP(X)
#undef X
};

static_assert(DKT_PARAM_COUNT <= 32, "a mask of parameters is 32 bits");

const dkt_method_row_t *dkt_method_row(dkt_method_t method)
{
    assert((unsigned)method < DKT_METHOD_COUNT);
    return &s_methods[method];
}

const char *dkt_param_key(dkt_param_t param)
{
    assert((unsigned)param < DKT_PARAM_COUNT);
    return s_params[param];
}

uint64_t dkt_view_digest(dkt_view_t view)
{
    if (!view.data) {
        return 0;
    }
    uint64_t digest = XXH3_64bits(view.data, view.len);
    return digest ? digest : 1; /* 0 says absent */
}

dkt_digest_t dkt_request_digest(const dkt_request_t *request)
{
    return (dkt_digest_t){.method = (uint8_t)request->method,
                          .ticket_type = dkt_view_digest(request->ticket_type),
                          .subject = dkt_view_digest(request->subject),
                          .payload = dkt_view_digest(request->payload),
                          .slot_id = dkt_view_digest(request->slot_id)};
}

const char *dkt_digest_differs(const dkt_digest_t *a, const dkt_digest_t *b)
{
    if (a->method != b->method) {
        return "method";
    }
    if (a->ticket_type != b->ticket_type) {
        return dkt_param_key(DKT_PARAM_TICKET_TYPE);
    }
    if (a->subject != b->subject) {
        return dkt_param_key(DKT_PARAM_SUBJECT);
    }
    if (a->payload != b->payload) {
        return dkt_param_key(DKT_PARAM_PAYLOAD);
    }
    return a->slot_id != b->slot_id ? dkt_param_key(DKT_PARAM_SLOT_ID) : NULL;
}
