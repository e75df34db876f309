/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const char *code;
    dkt_retry_t retry;
    const char *text;
} s_row_t;

static const s_row_t s_rows[DKT_STATUS_COUNT] = {
#define X(name, code, retry, text) {code, DKT_RETRY_##retry, text},
    DKT_STATUS_MAP(X)
#undef X
};

static const s_row_t *s_row(dkt_status_t status)
{
    unsigned index = (unsigned)status;
    return &s_rows[index < DKT_STATUS_COUNT ? index : DKT_INTERNAL];
}

const char *dkt_status_code(dkt_status_t status)
{
    return s_row(status)->code;
}

const char *dkt_status_text(dkt_status_t status)
{
    return s_row(status)->text;
}

dkt_retry_t dkt_status_retry(dkt_status_t status)
{
    return s_row(status)->retry;
}

dkt_status_t dkt_status_of_code(const char *code, uint32_t len)
{
    for (unsigned i = 0; i < DKT_STATUS_COUNT; i++) {
        if (strlen(s_rows[i].code) == len && memcmp(s_rows[i].code, code, len) == 0) {
            return (dkt_status_t)i;
        }
    }
    return DKT_INTERNAL;
}

dkt_status_t dkt_fail(dkt_err_t *err, dkt_status_t status, const char *field, const char *format,
                      ...)
{
    if (!err) {
        return status;
    }
    err->status = status;
    err->retry_after_ms = 0;
    snprintf(err->field, sizeof err->field, "%s", field ? field : "");
    if (format) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    } else {
        snprintf(err->text, sizeof err->text, "%s", dkt_status_text(status));
    }
    return status;
}
