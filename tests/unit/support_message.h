/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages written as JSON, for tests: {"$bin": hex} is bytes, {"$repeat": [text, n]} is that text
 * n times, {"$pairs": n} is a map of n different keys to nil.
 */
#ifndef DKT_TESTS_SUPPORT_MESSAGE_H
#define DKT_TESTS_SUPPORT_MESSAGE_H

#include <jansson.h>

#include "lib/core/proto.h"

/* Packs a JSON value. */
void message_write(dkt_w_t *w, const json_t *value);

/* Packs JSON text, which must be well. */
void message_write_text(dkt_w_t *w, const char *json);

/* Bytes of a hex text, at most `max`; returns how many. */
size_t message_from_hex(const char *hex, uint8_t *out, size_t max);

#endif
