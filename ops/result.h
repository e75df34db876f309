/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading and printing the result map of an answer, and times as people read them.
 */
#ifndef DKT_OPS_RESULT_H
#define DKT_OPS_RESULT_H

#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "lib/docket.h"

/* An unpacked result. `root` is borrowed from `unpacked`, the texts from the reply. */
typedef struct {
    msgpack_unpacked unpacked;
    const msgpack_object *root;
} dkt_result_t;

/* False if the reply has no result map. dkt_result_fini in either case. */
bool dkt_result_init(dkt_result_t *self, const dkt_reply_t *reply);
void dkt_result_fini(dkt_result_t *self);

/* The value of a key of a map; NULL if it is no map or has no such key. */
const msgpack_object *dkt_result_get(const msgpack_object *map, const char *key);
dkt_text_t dkt_result_text(const msgpack_object *map, const char *key);
int64_t dkt_result_int(const msgpack_object *map, const char *key); /* 0 if absent */
bool dkt_result_bool(const msgpack_object *map, const char *key);

/* JSON of one value without a line end; bin is base64. */
void dkt_result_json(FILE *out, const msgpack_object *value);
void dkt_json_text(FILE *out, const char *text, size_t len);

#define DKT_TIME_TEXT_BYTES 64
typedef struct {
    char text[DKT_TIME_TEXT_BYTES];
} dkt_time_text_t;

/* "2026-11-22 14:05:00 UTC (in 1 h 59 min)", "-" for 0. */
dkt_time_text_t dkt_time_text(int64_t unix_ms, int64_t now_ms);
/* "14:05" of the same day, UTC. */
dkt_time_text_t dkt_time_short(int64_t unix_ms);
int64_t dkt_unix_ms(void);
int64_t dkt_mono_ms(void);
int64_t dkt_mono_us(void);

#endif
