/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/proto_params.h"

#include <assert.h>
#include <string.h>

#define S_COMMON                                                                                   \
    (DKT_PARAM_BIT(TOKEN) | DKT_PARAM_BIT(REQUEST_ID) | DKT_PARAM_BIT(BUDGET_MS) |                 \
     DKT_PARAM_BIT(TRACEPARENT))

#define S_EMAIL_LOCAL_MAX 64 /* RFC 5321 */

typedef struct s_row s_row_t;
struct s_row {
    const char *key;
    uint32_t key_len;
    bool (*read)(const s_row_t *row, const dkt_param_value_t *value, dkt_request_t *request);
    void (*write)(const s_row_t *row, dkt_w_t *w, const dkt_request_t *request);
    size_t offset;     /* of the field in dkt_request_t */
    uint32_t min, max; /* of the number, or of the length in bytes or characters */
    const char *must;  /* "name must be .." */
};

static void *s_field(const s_row_t *row, dkt_request_t *request)
{
    return (char *)request + row->offset;
}

static const void *s_const_field(const s_row_t *row, const dkt_request_t *request)
{
    return (const char *)request + row->offset;
}

/* -- reading ----------------------------------------------------------------------------------- */

static bool s_within(const s_row_t *row, uint64_t value)
{
    return value >= row->min && value <= row->max;
}

static bool s_read_view(const s_row_t *row, const dkt_param_value_t *value, dkt_mp_kind_t kind,
                        dkt_request_t *request)
{
    if (value->token.kind != kind || !s_within(row, value->token.view.len)) {
        return false;
    }
    *(dkt_view_t *)s_field(row, request) = value->token.view;
    return true;
}

static bool s_read_text(const s_row_t *row, const dkt_param_value_t *value, dkt_request_t *request)
{
    return s_read_view(row, value, DKT_MP_STR, request);
}

static bool s_read_bin(const s_row_t *row, const dkt_param_value_t *value, dkt_request_t *request)
{
    return s_read_view(row, value, DKT_MP_BIN, request);
}

static bool s_read_chars(const s_row_t *row, const dkt_param_value_t *value, dkt_request_t *request)
{
    if (value->token.kind != DKT_MP_STR || !s_within(row, dkt_utf8_chars(value->token.view))) {
        return false;
    }
    *(dkt_view_t *)s_field(row, request) = value->token.view;
    return true;
}

static bool s_sets_password(const dkt_request_t *request, const s_row_t *row)
{
    return request->method == DKT_METHOD_CREATE_ACCOUNT ||
           row->offset == offsetof(dkt_request_t, new_password);
}

/* Length is a rule for passwords that are set. One that is only compared may have any length; what
 * is longer than any that was ever set is read as the empty one, which matches as little: it gets
 * the answer of a wrong password, and nobody has to keep more than DKT_PASSWORD_BYTES_MAX. */
static bool s_read_password(const s_row_t *row, const dkt_param_value_t *value,
                            dkt_request_t *request)
{
    if (s_sets_password(request, row)) {
        return s_read_chars(row, value, request);
    }
    if (value->token.kind != DKT_MP_STR) {
        return false;
    }
    dkt_view_t view = value->token.view;
    if (view.len > DKT_PASSWORD_BYTES_MAX) {
        view.len = 0;
    }
    *(dkt_view_t *)s_field(row, request) = view;
    return true;
}

/* Plausible, not proved: one '@' between a local part and a domain, nothing that is blank or a
 * control character. Only a message that arrives proves more. */
static bool s_is_email(dkt_view_t view)
{
    const uint8_t *sign = memchr(view.data, '@', view.len);
    if (!sign) {
        return false;
    }
    size_t local = (size_t)(sign - view.data);
    const uint8_t *domain = sign + 1;
    size_t domain_len = view.len - local - 1;
    if (local == 0 || local > S_EMAIL_LOCAL_MAX || domain_len == 0 || domain[0] == '.' ||
        domain[domain_len - 1] == '.' || memchr(domain, '@', domain_len) ||
        memmem(domain, domain_len, "..", 2)) {
        return false;
    }
    for (uint32_t i = 0; i < view.len; i++) {
        if (view.data[i] <= ' ' || view.data[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

static bool s_read_email(const s_row_t *row, const dkt_param_value_t *value, dkt_request_t *request)
{
    return value->token.kind == DKT_MP_STR && s_is_email(value->token.view) &&
           s_read_view(row, value, DKT_MP_STR, request);
}

static bool s_read_uuid(const s_row_t *row, const dkt_param_value_t *value, dkt_request_t *request)
{
    dkt_uuid_t *uuid = s_field(row, request);
    dkt_view_t view = value->token.view;
    if (value->token.kind == DKT_MP_STR) {
        return dkt_uuid_parse((const char *)view.data, view.len, uuid);
    }
    if (value->token.kind != DKT_MP_BIN || view.len != DKT_UUID_BYTES) {
        return false;
    }
    memcpy(uuid->bytes, view.data, DKT_UUID_BYTES);
    return true;
}

static bool s_read_u32(const s_row_t *row, const dkt_param_value_t *value, dkt_request_t *request)
{
    if (value->token.kind != DKT_MP_UINT || !s_within(row, value->token.number)) {
        return false;
    }
    *(uint32_t *)s_field(row, request) = (uint32_t)value->token.number;
    return true;
}

/* A new account gets fewer than an operator may set. */
static bool s_read_resolvers(const s_row_t *row, const dkt_param_value_t *value,
                             dkt_request_t *request)
{
    uint32_t max =
        request->method == DKT_METHOD_CREATE_ACCOUNT ? DKT_RESOLVERS_SIGNUP_MAX : row->max;
    if (value->token.kind != DKT_MP_UINT || value->token.number < row->min ||
        value->token.number > max) {
        return false;
    }
    request->resolvers = (uint16_t)value->token.number;
    return true;
}

static bool s_read_bool(const s_row_t *row, const dkt_param_value_t *value, dkt_request_t *request)
{
    if (value->token.kind != DKT_MP_TRUE && value->token.kind != DKT_MP_FALSE) {
        return false;
    }
    *(bool *)s_field(row, request) = value->token.kind == DKT_MP_TRUE;
    return true;
}

static const char *const s_states[DKT_TICKET_STATE_COUNT] = {
    [DKT_TICKET_OPEN] = "open",
    [DKT_TICKET_DISPATCHED] = "dispatched",
    [DKT_TICKET_RESOLVED] = "resolved",
    [DKT_TICKET_CANCELLED] = "cancelled",
};

static bool s_view_is(dkt_view_t view, const char *text)
{
    return view.len == strlen(text) && memcmp(view.data, text, view.len) == 0;
}

static bool s_read_state(const s_row_t *row, const dkt_param_value_t *value, dkt_request_t *request)
{
    (void)row;
    if (value->token.kind != DKT_MP_STR) {
        return false;
    }
    for (int i = 0; i < DKT_TICKET_STATE_COUNT; i++) {
        if (s_view_is(value->token.view, s_states[i])) {
            request->state = i;
            return true;
        }
    }
    return false;
}

/* A map of class names to numbers within the row's bounds. */
static bool s_read_named(const s_row_t *row, const dkt_param_value_t *value, uint32_t count_min,
                         dkt_named_u16_t out[DKT_CLASSES_MAX], uint8_t *out_count)
{
    dkt_named_u16_t named[DKT_CLASSES_MAX] = {0};
    uint32_t count = value->token.count;
    if (value->token.kind != DKT_MP_MAP || count < count_min || count > DKT_CLASSES_MAX) {
        return false;
    }
    dkt_mp_t mp = value->rest;
    for (uint32_t i = 0; i < count; i++) {
        dkt_mp_token_t name, number;
        if (!dkt_mp_next(&mp, &name) || !dkt_mp_next(&mp, &number) || name.kind != DKT_MP_STR ||
            name.view.len == 0 || name.view.len > DKT_CLASS_NAME_BYTES_MAX ||
            number.kind != DKT_MP_UINT || !s_within(row, number.number)) {
            return false;
        }
        memcpy(named[i].name, name.view.data, name.view.len);
        named[i].value = (uint16_t)number.number;
    }
    memcpy(out, named, sizeof named);
    *out_count = (uint8_t)count;
    return true;
}

static bool s_read_classes(const s_row_t *row, const dkt_param_value_t *value,
                           dkt_request_t *request)
{
    return s_read_named(row, value, 1, request->classes, &request->class_count);
}

/* An empty map is well: it takes the limits away. */
static bool s_read_limits(const s_row_t *row, const dkt_param_value_t *value,
                          dkt_request_t *request)
{
    return s_read_named(row, value, 0, request->limits, &request->limit_count);
}

/* -- writing ----------------------------------------------------------------------------------- */

/* A view that is marked present but empty of data is written as nil, which means absent. */
static void s_write_text(const s_row_t *row, dkt_w_t *w, const dkt_request_t *request)
{
    const dkt_view_t *view = s_const_field(row, request);
    if (view->data) {
        dkt_w_str(w, (const char *)view->data, view->len);
    } else {
        dkt_w_nil(w);
    }
}

static void s_write_bin(const s_row_t *row, dkt_w_t *w, const dkt_request_t *request)
{
    const dkt_view_t *view = s_const_field(row, request);
    if (view->data) {
        dkt_w_bin(w, view->data, view->len);
    } else {
        dkt_w_nil(w);
    }
}

static void s_write_uuid(const s_row_t *row, dkt_w_t *w, const dkt_request_t *request)
{
    dkt_w_bin(w, ((const dkt_uuid_t *)s_const_field(row, request))->bytes, DKT_UUID_BYTES);
}

static void s_write_u32(const s_row_t *row, dkt_w_t *w, const dkt_request_t *request)
{
    dkt_w_uint(w, *(const uint32_t *)s_const_field(row, request));
}

static void s_write_u16(const s_row_t *row, dkt_w_t *w, const dkt_request_t *request)
{
    dkt_w_uint(w, *(const uint16_t *)s_const_field(row, request));
}

static void s_write_bool(const s_row_t *row, dkt_w_t *w, const dkt_request_t *request)
{
    dkt_w_bool(w, *(const bool *)s_const_field(row, request));
}

static void s_write_state(const s_row_t *row, dkt_w_t *w, const dkt_request_t *request)
{
    (void)row;
    if (request->state >= 0 && request->state < DKT_TICKET_STATE_COUNT) {
        dkt_w_cstr(w, s_states[request->state]);
    } else {
        dkt_w_nil(w);
    }
}

static void s_write_named(dkt_w_t *w, const dkt_named_u16_t *named, uint8_t count)
{
    assert(count <= DKT_CLASSES_MAX);
    dkt_w_map(w, count);
    for (uint8_t i = 0; i < count; i++) {
        dkt_w_cstr(w, named[i].name);
        dkt_w_uint(w, named[i].value);
    }
}

static void s_write_classes(const s_row_t *row, dkt_w_t *w, const dkt_request_t *request)
{
    (void)row;
    s_write_named(w, request->classes, request->class_count);
}

static void s_write_limits(const s_row_t *row, dkt_w_t *w, const dkt_request_t *request)
{
    (void)row;
    s_write_named(w, request->limits, request->limit_count);
}

/* -- the table --------------------------------------------------------------------------------- */

#define ROW(name, key, reader, writer, field, min, max, must)                                      \
    [DKT_PARAM_##name] = {key,                                                                     \
                          sizeof(key) - 1,                                                         \
                          s_read_##reader,                                                         \
                          s_write_##writer,                                                        \
                          offsetof(dkt_request_t, field),                                          \
                          min,                                                                     \
                          max,                                                                     \
                          must}
#define ID(name, key, field)                                                                       \
    ROW(name, key, text, text, field, 1, DKT_ID_CHARS_MAX, "text of 1 to 64 characters")

static const s_row_t s_rows[DKT_PARAM_COUNT] = {
    ROW(TOKEN, "token", text, text, token, 1, DKT_TOKEN_BYTES_MAX, "the text of a session token"),
    ROW(REQUEST_ID, "request_id", uuid, uuid, request_id, 0, 0,
        "a UUID, as 16 bytes or as text of 36 characters"),
    ROW(BUDGET_MS, "budget_ms", u32, u32, budget_ms, 1, DKT_BUDGET_MAX_MS,
        "a whole number from 1 to 60000"),
    ROW(TRACEPARENT, "traceparent", text, text, traceparent, 1, DKT_TRACEPARENT_BYTES_MAX,
        "text of at most 64 bytes"),
    ID(CLIENT_ID, "client_id", client_id),
    ROW(TICKET_TYPE, "ticket_type", text, text, ticket_type, 1, DKT_CLASS_NAME_BYTES_MAX,
        "text of 1 to 31 bytes"),
    ID(TICKET_ID, "ticket_id", ticket_id),
    ID(SLOT_ID, "slot_id", slot_id),
    ROW(SUBJECT, "subject", text, text, subject, 0, DKT_SUBJECT_BYTES_MAX,
        "text of at most 200 bytes"),
    ROW(PAYLOAD, "payload", bin, bin, payload, 0, DKT_PAYLOAD_BYTES_MAX,
        "bytes (bin), at most 8192"),
    ROW(STATE, "state", state, state, state, 0, 0,
        "one of \"open\", \"dispatched\", \"resolved\", \"cancelled\""),
    ROW(LIMIT, "limit", u32, u32, limit, 1, DKT_LIST_MAX, "a whole number from 1 to 1000"),
    ROW(CURSOR, "cursor", text, text, cursor, 1, DKT_CURSOR_BYTES_MAX,
        "the cursor of an earlier answer"),
    ROW(HOLD_MS, "hold_ms", u32, u32, hold_ms, DKT_HOLD_MIN_MS, DKT_HOLD_MAX_MS,
        "a whole number from 1000 to 300000"),
    ROW(NAME, "name", chars, text, name, 1, DKT_NAME_CHARS_MAX, "text of 1 to 100 characters"),
    ROW(EMAIL, "email", email, text, email, 1, DKT_EMAIL_BYTES_MAX,
        "an e-mail address of at most 254 bytes"),
    ROW(PASSWORD, "password", password, text, password, DKT_PASSWORD_CHARS_MIN,
        DKT_PASSWORD_CHARS_MAX, "text of 10 to 128 characters"),
    ROW(NEW_PASSWORD, "new_password", password, text, new_password, DKT_PASSWORD_CHARS_MIN,
        DKT_PASSWORD_CHARS_MAX, "text of 10 to 128 characters"),
    ROW(RESOLVERS, "resolvers", resolvers, u16, resolvers, 1, DKT_RESOLVERS_MAX,
        "a whole number from 1 to 64 for a new account, to 4096 for set_tenant"),
    ROW(CLASSES, "classes", classes, classes, classes, DKT_LEVEL_MIN_MINUTES, DKT_LEVEL_MAX_MINUTES,
        "a map of 1 to 8 names of 1 to 31 bytes to minutes from 2 to 1440"),
    ROW(REBOOKING, "rebooking", bool, bool, rebooking, 0, 0, "true or false"),
    ROW(LIMITS, "limits", limits, limits, limits, 0, DKT_PERMILLE,
        "a map of at most 8 names of 1 to 31 bytes to whole numbers from 0 to 1000"),
    ROW(SUSPENDED, "suspended", bool, bool, suspended, 0, 0, "true or false"),
};

const char *dkt_state_wire(dkt_ticket_state_t state)
{
    return (unsigned)state < DKT_TICKET_STATE_COUNT ? s_states[state] : NULL;
}

void dkt_params_default(dkt_request_t *request)
{
    request->budget_ms = DKT_BUDGET_DEFAULT_MS;
    request->hold_ms = DKT_HOLD_DEFAULT_MS;
    request->limit = DKT_LIST_DEFAULT;
    request->resolvers = 1;
    request->state = -1;
}

void dkt_param_read(dkt_param_t param, const dkt_param_value_t *value, dkt_request_t *request,
                    dkt_err_t *err)
{
    const s_row_t *row = &s_rows[param];
    if (row->read(row, value, request)) {
        request->present |= UINT32_C(1) << param;
    } else {
        dkt_fail(err, DKT_INVALID_ARGUMENT, row->key, "%s must be %s", row->key, row->must);
    }
}

void dkt_param_write(dkt_w_t *w, dkt_param_t param, const dkt_request_t *request)
{
    s_rows[param].write(&s_rows[param], w, request);
}

/* Heads of all keys, close together. */
static const uint16_t s_heads[DKT_PARAM_COUNT] = {
#define X(name, key) DKT_MP_HEAD(sizeof(key) - 1, (key)[0]),
    DKT_PARAM_MAP(X)
#undef X
};

dkt_param_t dkt_param_find(dkt_view_t key)
{
    uint16_t head = dkt_mp_head(key);
    unsigned i = 0;
    while (i < DKT_PARAM_COUNT &&
           (s_heads[i] != head || memcmp(s_rows[i].key, key.data, key.len) != 0)) {
        i++;
    }
    return (dkt_param_t)i;
}

uint32_t dkt_params_accepted(dkt_method_t method)
{
    const dkt_method_row_t *row = dkt_method_row(method);
    return S_COMMON | row->required | row->optional;
}
