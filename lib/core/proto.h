/* SPDX-License-Identifier: Apache-2.0
 *
 * The wire contract "docket/1" (page 4) as data: methods and parameters are rows of tables, a
 * request is a struct of borrowed views, an answer is written by one function per shape.
 *
 * Reading: checked and understood in one pass of one token reader (proto_mp.h), so nothing is
 * allocated: msgpack-c takes 24 bytes for each byte of a hostile frame, 390 KB for the largest.
 * What dkt_msgpack_check refuses no decoder takes. Writing: msgpack-c's packer over a caller's
 * buffer with a sticky error; `failed` says whether all fitted.
 */
#ifndef DKT_CORE_PROTO_H
#define DKT_CORE_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "lib/core/ids.h"
#include "lib/core/ledger.h"
#include "lib/core/limits.h"
#include "lib/core/status.h"

/* -- methods
 * --------------------------------------------------------------------------------------- */

typedef enum { DKT_AUDIENCE_PUBLIC = 1, DKT_AUDIENCE_INTERNAL } dkt_audience_t;

/* How a method finds the worker that runs it. */
typedef enum {
    DKT_ROUTE_BROKER, /* answered by the broker itself */
    DKT_ROUTE_CLIENT, /* by client_id */
    DKT_ROUTE_TICKET, /* by the client inside ticket_id */
    DKT_ROUTE_SLOT,   /* by the client inside slot_id */
    DKT_ROUTE_ANY,    /* any worker: create_account, list_tenants */
} dkt_route_t;

/* X (NAME, wire name, audience, needs token on the public endpoint, request_id required, route,
 *    required params, optional params) - params as a mask of DKT_P_ bits */
#define DKT_METHOD_MAP(X)                                                                          \
    X(CREATE_ACCOUNT, "create_account", PUBLIC, false, true, ANY,                                  \
      P(NAME) | P(EMAIL) | P(PASSWORD), P(RESOLVERS))                                              \
    X(LOGIN, "login", PUBLIC, false, false, CLIENT, P(CLIENT_ID) | P(PASSWORD), 0)                 \
    X(LOGOUT, "logout", PUBLIC, true, false, CLIENT, P(CLIENT_ID), 0)                              \
    X(CREATE_TICKET, "create_ticket", PUBLIC, true, true, CLIENT, P(CLIENT_ID) | P(TICKET_TYPE),   \
      P(SUBJECT) | P(PAYLOAD))                                                                     \
    X(CANCEL_TICKET, "cancel_ticket", PUBLIC, true, false, TICKET, P(TICKET_ID), 0)                \
    X(GET_TICKET, "get_ticket", PUBLIC, true, false, TICKET, P(TICKET_ID), 0)                      \
    X(LIST_TICKETS, "list_tickets", PUBLIC, true, false, CLIENT, P(CLIENT_ID),                     \
      P(STATE) | P(LIMIT) | P(CURSOR))                                                             \
    X(RESOLVE_TICKET, "resolve_ticket", PUBLIC, true, false, TICKET, P(TICKET_ID), 0)              \
    X(AVAILABILITY, "availability", PUBLIC, true, false, CLIENT, P(CLIENT_ID), 0)                  \
    X(VALIDATE_ETA, "validate_eta", INTERNAL, false, false, CLIENT, P(CLIENT_ID) | P(TICKET_TYPE), \
      P(HOLD_MS))                                                                                  \
    X(ALLOCATE_SLOT, "allocate_slot", INTERNAL, false, true, CLIENT,                               \
      P(CLIENT_ID) | P(TICKET_TYPE) | P(SLOT_ID), P(SUBJECT) | P(PAYLOAD))                         \
    X(RELEASE_SLOT, "release_slot", INTERNAL, false, false, SLOT, P(SLOT_ID), 0)                   \
    X(SET_TENANT, "set_tenant", INTERNAL, false, false, CLIENT, P(CLIENT_ID),                      \
      P(RESOLVERS) | P(CLASSES) | P(REBOOKING) | P(LIMITS) | P(SUSPENDED))                         \
    X(GET_TENANT, "get_tenant", INTERNAL, false, false, CLIENT, P(CLIENT_ID), 0)                   \
    X(LIST_TENANTS, "list_tenants", INTERNAL, false, false, ANY, 0, P(LIMIT) | P(CURSOR))          \
    X(CHANGE_PASSWORD, "change_password", PUBLIC, true, false, CLIENT,                             \
      P(CLIENT_ID) | P(PASSWORD) | P(NEW_PASSWORD), 0)                                             \
    X(PING, "ping", PUBLIC, false, false, BROKER, 0, 0)

typedef enum {
#define X(name, ...) DKT_METHOD_##name,
    DKT_METHOD_MAP(X)
#undef X
        DKT_METHOD_COUNT
} dkt_method_t;

/* X (NAME, wire key) - every parameter of every method */
#define DKT_PARAM_MAP(X)                                                                           \
    X(TOKEN, "token")                                                                              \
    X(REQUEST_ID, "request_id")                                                                    \
    X(BUDGET_MS, "budget_ms")                                                                      \
    X(TRACEPARENT, "traceparent")                                                                  \
    X(CLIENT_ID, "client_id")                                                                      \
    X(TICKET_TYPE, "ticket_type")                                                                  \
    X(TICKET_ID, "ticket_id")                                                                      \
    X(SLOT_ID, "slot_id")                                                                          \
    X(SUBJECT, "subject")                                                                          \
    X(PAYLOAD, "payload")                                                                          \
    X(STATE, "state")                                                                              \
    X(LIMIT, "limit")                                                                              \
    X(CURSOR, "cursor")                                                                            \
    X(HOLD_MS, "hold_ms")                                                                          \
    X(NAME, "name")                                                                                \
    X(EMAIL, "email")                                                                              \
    X(PASSWORD, "password")                                                                        \
    X(NEW_PASSWORD, "new_password")                                                                \
    X(RESOLVERS, "resolvers")                                                                      \
    X(CLASSES, "classes")                                                                          \
    X(REBOOKING, "rebooking")                                                                      \
    X(LIMITS, "limits")                                                                            \
    X(SUSPENDED, "suspended")

typedef enum {
#define X(name, key) DKT_PARAM_##name,
    DKT_PARAM_MAP(X)
#undef X
        DKT_PARAM_COUNT
} dkt_param_t;

#define DKT_PARAM_BIT(name) (UINT32_C(1) << DKT_PARAM_##name)

typedef struct {
    const char *name;
    dkt_audience_t audience;
    bool token; /* needs a token on the public endpoint */
    bool request_id;
    dkt_route_t route;
    uint32_t required; /* DKT_PARAM_BIT mask */
    uint32_t optional;
} dkt_method_row_t;

/* The row of a method; `method` must be < DKT_METHOD_COUNT. Static. */
const dkt_method_row_t *dkt_method_row(dkt_method_t method);
const char *dkt_param_key(dkt_param_t param);

/* -- requests
 * -------------------------------------------------------------------------------------- */

/* Borrowed bytes; `data` NULL means absent. */
typedef struct {
    const uint8_t *data;
    uint32_t len;
} dkt_view_t;

typedef struct {
    char name[DKT_CLASS_NAME_BYTES_MAX + 1];
    uint16_t value; /* minutes, or per mille */
} dkt_named_u16_t;

/* A decoded request. Views live as long as the frame. Absent optional numbers have their default.
 * A parameter that is wrong is absent (and named in `argument`); a token that cannot be one is just
 * absent. `password` of login and change_password may have any length up to DKT_PASSWORD_BYTES_MAX;
 * a longer one is read as the empty password, which is as wrong. */
typedef struct {
    uint32_t msgid;
    dkt_method_t method;
    uint32_t present; /* DKT_PARAM_BIT mask; nil counts as absent */
    dkt_view_t token, traceparent, client_id, ticket_type, ticket_id, slot_id, subject, payload,
        cursor, name, email, password, new_password;
    dkt_uuid_t request_id;
    uint32_t budget_ms; /* 1 .. DKT_BUDGET_MAX_MS, default DKT_BUDGET_DEFAULT_MS */
    uint32_t hold_ms;
    uint32_t limit;
    uint16_t resolvers;
    int state; /* dkt_ticket_state_t, or -1 for any */
    bool rebooking, suspended;
    uint8_t class_count, limit_count; /* what is behind them in the tables is undefined */
    dkt_named_u16_t classes[DKT_CLASSES_MAX], limits[DKT_CLASSES_MAX];
    /* The first parameter that is missing or wrong; status DKT_OK if all are well. It is reported
     * only after the checks that come before it in the contract's order. */
    dkt_err_t argument;
} dkt_request_t;

/* What comes before the tables: all there is to know of a request that has none of them and nothing
 * wrong in it. */
#define DKT_REQUEST_HEAD_BYTES offsetof(dkt_request_t, classes)

/* The bounded check of what comes from a stranger, without allocation: one complete msgpack value
 * that fills `len` exactly, depth <= DKT_MSGPACK_DEPTH_MAX, counts and lengths within the bytes
 * that are there, no ext type, str is UTF-8 without U+0000, map keys are str, no key twice in one
 * map. */
DKT_CHECKED bool dkt_msgpack_check(const uint8_t *bytes, size_t len);

/* MALFORMED (out->msgid is set if it could be read, else 0), UNKNOWN_METHOD, or OK with
 * out->argument telling whether the parameters are well. Allocates nothing. */
DKT_CHECKED dkt_status_t dkt_request_decode(const uint8_t *bytes, size_t len, dkt_request_t *out,
                                            dkt_err_t *err);

/* Which of the compared parameters differ between two requests of one request_id. Digests are kept
 * instead of the requests. 0 is the digest of an absent parameter. */
typedef struct {
    uint8_t method;       /* dkt_method_t */
    uint64_t ticket_type; /* XXH3-64 of each */
    uint64_t subject, payload, slot_id;
} dkt_digest_t;

dkt_digest_t dkt_request_digest(const dkt_request_t *request);
uint64_t dkt_view_digest(dkt_view_t view);
/* The wire key of the first field that differs ("method", "ticket_type", ..), NULL if none. */
const char *dkt_digest_differs(const dkt_digest_t *a, const dkt_digest_t *b);

/* Encodes a request (the client side, tests, bench): every parameter in `present`. */
typedef struct dkt_w dkt_w_t;
void dkt_request_encode(dkt_w_t *w, const dkt_request_t *request);

/* -- answers
 * ---------------------------------------------------------------------------------------- */

/* A write cursor. When something does not fit, `failed` is set and nothing more is written. */
struct dkt_w {
    uint8_t *data;
    size_t len, max;
    bool failed;
};

static inline dkt_w_t dkt_w_init(uint8_t *data, size_t max)
{
    return (dkt_w_t){.data = data, .len = 0, .max = max, .failed = false};
}

void dkt_w_nil(dkt_w_t *w);
void dkt_w_bool(dkt_w_t *w, bool value);
void dkt_w_int(dkt_w_t *w, int64_t value);
void dkt_w_uint(dkt_w_t *w, uint64_t value);
void dkt_w_str(dkt_w_t *w, const char *text, size_t len);
/* Here, because most texts are keys, whose length the compiler knows. */
static inline void dkt_w_cstr(dkt_w_t *w, const char *text)
{
    dkt_w_str(w, text, strlen(text));
}
void dkt_w_bin(dkt_w_t *w, const uint8_t *bytes, size_t len);
void dkt_w_array(dkt_w_t *w, uint32_t count);
void dkt_w_map(dkt_w_t *w, uint32_t count);

/* [1, msgid, nil, {..}] with `pairs` pairs to follow; and the error form. */
void dkt_answer_begin(dkt_w_t *w, uint32_t msgid, uint32_t pairs);
void dkt_answer_error(dkt_w_t *w, uint32_t msgid, const dkt_err_t *err);
/* {status: text} alone: "ok", "cancelled", "too_late", "released", "taken", "expired". */
void dkt_answer_status(dkt_w_t *w, uint32_t msgid, const char *status);

typedef struct {
    const char *ticket_id, *slot_id;
    int64_t slot_start_ms, deadline_ms;
    bool replayed;
} dkt_answer_created_t;
void dkt_answer_created(dkt_w_t *w, uint32_t msgid, const dkt_answer_created_t *answer);

typedef struct {
    const char *ticket_type;
    int64_t slot_start_ms, deadline_ms;
} dkt_alternative_t;

typedef struct {
    const char *reason; /* dkt_verdict_name */
    bool has_earliest;
    int64_t earliest_ms;
    uint32_t alternative_count;
    dkt_alternative_t alternatives[DKT_CLASSES_MAX];
    bool replayed;
} dkt_answer_refused_t;
void dkt_answer_refused(dkt_w_t *w, uint32_t msgid, const dkt_answer_refused_t *answer);

typedef struct {
    const char *slot_id;
    int64_t slot_start_ms, hold_expires_ms;
} dkt_answer_held_t;
void dkt_answer_held(dkt_w_t *w, uint32_t msgid, const dkt_answer_held_t *answer);

typedef struct {
    const char *ticket_id, *ticket_type;
    dkt_ticket_state_t state;
    int64_t slot_start_ms, deadline_ms, created_ms;
    bool breached, at_risk;
    dkt_view_t subject, payload;                      /* absent: not written */
    int64_t dispatched_ms, resolved_ms, cancelled_ms; /* 0: absent */
} dkt_answer_ticket_t;
/* The ticket map alone, used by get_ticket and list_tickets. */
void dkt_answer_ticket_map(dkt_w_t *w, const dkt_answer_ticket_t *ticket);

/* -- reading answers (client library, tests) ----------------------------------------------------
 */

/* A decoded answer; views live as long as the frame. Keys that an answer does not have are absent
 * (data NULL) or 0. For lists use msgpack-c on `result`. */
typedef struct {
    uint32_t msgid;
    dkt_status_t status; /* DKT_OK, or the error's code */
    dkt_view_t message, field;
    uint32_t retry_after_ms;
    dkt_view_t result; /* the result map's bytes, whole */
    dkt_view_t status_text, ticket_id, slot_id, client_id, sub_domain, token, reason, node, version;
    int64_t slot_start_ms, deadline_ms, hold_expires_ms, earliest_ms, expires_ms;
    bool replayed, met;
} dkt_answer_t;

DKT_CHECKED dkt_status_t dkt_answer_decode(const uint8_t *bytes, size_t len, dkt_answer_t *out,
                                           dkt_err_t *err);

#endif
