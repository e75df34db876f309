/* SPDX-License-Identifier: Apache-2.0
 *
 * The one status enum: what a function of ours can end with, its code on the wire and whether the
 * same attempt may be made again. Page "Errors" of the wire contract, as a table.
 */
#ifndef DKT_CORE_STATUS_H
#define DKT_CORE_STATUS_H

#include <stdbool.h>
#include <stdint.h>

/* Class of a status for a client that wants to try again. */
typedef enum {
    DKT_RETRY_NONE, /* not an error */
    DKT_RETRY_NO,   /* the same request fails again */
    DKT_RETRY_SAME, /* same request_id, after retry_after_ms; nothing has happened */
    DKT_RETRY_FIND, /* same request_id; it may have happened, the retry finds out */
} dkt_retry_t;

/* X (NAME, wire code, retry class, default text) */
#define DKT_STATUS_MAP(X)                                                                          \
    X(OK, "ok", NONE, "done")                                                                      \
    X(MALFORMED, "malformed", NO, "this is not a docket request")                                  \
    X(UNKNOWN_METHOD, "unknown_method", NO, "there is no such method")                             \
    X(INVALID_ARGUMENT, "invalid_argument", NO, "a parameter is missing or out of range")          \
    X(UNAUTHENTICATED, "unauthenticated", NO, "log in first")                                      \
    X(PERMISSION_DENIED, "permission_denied", NO, "not allowed here")                              \
    X(NOT_FOUND, "not_found", NO, "no such id")                                                    \
    X(ALREADY_EXISTS, "already_exists", NO, "it exists already")                                   \
    X(CONFLICT, "conflict", NO, "in conflict with an earlier request")                             \
    X(SUSPENDED, "suspended", NO, "the tenant is suspended")                                       \
    X(RATE_LIMITED, "rate_limited", SAME, "too many requests")                                     \
    X(OVERLOADED, "overloaded", SAME, "a queue is full")                                           \
    X(DEADLINE_EXCEEDED, "deadline_exceeded", SAME, "the budget ran out before the commit")        \
    X(UNAVAILABLE, "unavailable", FIND, "try again with the same request_id")                      \
    X(INTERNAL, "internal", FIND, "a bug of ours; it is logged")

typedef enum {
#define X(name, code, retry, text) DKT_##name,
    DKT_STATUS_MAP(X)
#undef X
        DKT_STATUS_COUNT
} dkt_status_t;

#define DKT_CHECKED __attribute__((warn_unused_result))
/* Of a function whose frame has kilobytes and which few requests need. Linked as one program, it
 * would be put into its callers, and its frame into the stack that every tenant's thread touches:
 * that was 8 to 12 KiB a tenant. */
#define DKT_LARGE_FRAME __attribute__((noinline))

#define DKT_ERR_TEXT_BYTES_MAX  160 /* a sentence; longer ones are cut */
#define DKT_ERR_FIELD_BYTES_MAX 32  /* the longest parameter name and its NUL */

/* Detail of a failure, owned by the caller; text and field are always NUL-terminated. */
typedef struct {
    dkt_status_t status;
    uint32_t retry_after_ms;             /* 0: none given */
    char field[DKT_ERR_FIELD_BYTES_MAX]; /* the parameter at fault; "" if none */
    char text[DKT_ERR_TEXT_BYTES_MAX];
} dkt_err_t;

/* The wire code ("invalid_argument"), static text. Unknown values: "internal". */
const char *dkt_status_code(dkt_status_t status);

/* The default sentence, static text. */
const char *dkt_status_text(dkt_status_t status);

dkt_retry_t dkt_status_retry(dkt_status_t status);

/* The status of a wire code; DKT_INTERNAL if it is none of ours. */
dkt_status_t dkt_status_of_code(const char *code, uint32_t len);

/* Fills `err` (may be NULL) and returns `status`, so that `return dkt_fail (...)` reads well.
 * `field` may be NULL; `format` NULL takes the default sentence. */
dkt_status_t dkt_fail(dkt_err_t *err, dkt_status_t status, const char *field, const char *format,
                      ...) __attribute__((format(printf, 4, 5)));

#endif
