/* SPDX-License-Identifier: Apache-2.0
 *
 * Fields of a fixed width, little-endian, written and read one after the other: what the link and
 * the tenant context are made of. A cursor's error is sticky, so only its end must be looked at.
 * All inline: a broker writes and reads hundreds of thousands of them a second.
 */
#ifndef DKT_CORE_CURSOR_H
#define DKT_CORE_CURSOR_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "lib/core/proto.h"

/* A read cursor; views point into `data`. Every reader fails at the first byte that is not there,
 * and the cursor then stays failed. */
typedef struct {
    const uint8_t *data;
    size_t at, len;
    bool failed;
} dkt_r_t;

/* -- writing -- */

static inline void dkt_cursor_put_bytes(dkt_w_t *w, const void *bytes, size_t len)
{
    if (w->failed || len > w->max - w->len) {
        w->failed = true;
        return;
    }
    if (len > 0) {
        memcpy(w->data + w->len, bytes, len);
        w->len += len;
    }
}

/* The low `width` bytes, 1 to 8: a constant everywhere, so that it becomes one store. */
static inline void dkt_cursor_put_uint(dkt_w_t *w, uint64_t value, size_t width)
{
    uint64_t little = htole64(value);
    if (w->failed || width > w->max - w->len) {
        w->failed = true;
        return;
    }
    memcpy(w->data + w->len, &little, width);
    w->len += width;
}

/* length 4 | bytes */
static inline void dkt_cursor_put_view(dkt_w_t *w, dkt_view_t view)
{
    uint32_t len = view.data ? view.len : 0;
    dkt_cursor_put_uint(w, len, 4);
    dkt_cursor_put_bytes(w, view.data, len);
}

/* length 2 | text without its NUL; a longer one fails. */
static inline void dkt_cursor_put_text(dkt_w_t *w, const char *text)
{
    size_t len = strlen(text);
    if (len > UINT16_MAX) {
        w->failed = true;
        return;
    }
    dkt_cursor_put_uint(w, len, 2);
    dkt_cursor_put_bytes(w, text, len);
}

/* -- reading -- */

/* Always false. */
static inline bool dkt_cursor_fail(dkt_r_t *r)
{
    r->failed = true;
    return false;
}

/* The next `len` bytes, NULL if they are not there. */
static inline const uint8_t *dkt_cursor_get_bytes(dkt_r_t *r, size_t len)
{
    if (r->failed || len > r->len - r->at) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *bytes = r->data + r->at;
    r->at += len;
    return bytes;
}

/* 0 once the cursor has failed. */
static inline uint64_t dkt_cursor_get_uint(dkt_r_t *r, size_t width)
{
    const uint8_t *bytes = dkt_cursor_get_bytes(r, width);
    uint64_t little = 0;
    if (bytes) {
        memcpy(&little, bytes, width);
    }
    return le64toh(little);
}

/* Leaves `out` as it is if they are not there. */
static inline void dkt_cursor_get_copy(dkt_r_t *r, void *out, size_t len)
{
    const uint8_t *bytes = dkt_cursor_get_bytes(r, len);
    if (bytes) {
        memcpy(out, bytes, len);
    }
}

static inline dkt_view_t dkt_cursor_get_view(dkt_r_t *r)
{
    dkt_view_t view = {.data = NULL, .len = (uint32_t)dkt_cursor_get_uint(r, 4)};
    view.data = dkt_cursor_get_bytes(r, view.len);
    return view;
}

/* With a NUL behind it, within `out_bytes`; one that is longer or has a NUL inside fails. */
static inline bool dkt_cursor_get_text(dkt_r_t *r, char *out, size_t out_bytes)
{
    size_t len = (size_t)dkt_cursor_get_uint(r, 2);
    const uint8_t *text = dkt_cursor_get_bytes(r, len);
    if (!text || len >= out_bytes || memchr(text, 0, len)) {
        return dkt_cursor_fail(r);
    }
    memcpy(out, text, len);
    out[len] = '\0';
    return true;
}

#endif
