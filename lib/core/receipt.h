/* SPDX-License-Identifier: Apache-2.0
 *
 * The receipt of a deletion: a JSON object, signed with Ed25519. What is signed is the line
 * "docket-receipt/1", a newline, and the object without its key `signature`, written with sorted
 * keys and no blanks (in Python: json.dumps (object, sort_keys=True, separators=(",", ":"),
 * ensure_ascii=False)). `signature` is base64url without padding.
 *
 * Another form needs another first line, so that no signature of this one fits it.
 */
#ifndef DKT_CORE_RECEIPT_H
#define DKT_CORE_RECEIPT_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/core/status.h"

#define DKT_RECEIPT_FORMAT       "docket-receipt/1"
#define DKT_RECEIPT_SECRET_BYTES 64
#define DKT_RECEIPT_PUBLIC_BYTES 32

/* Adds `signature` to the object and returns it as text with a line end, the caller's to free; NULL
 * without memory. The object must not have one yet. */
char *dkt_receipt_sign(json_t *receipt, const uint8_t secret[DKT_RECEIPT_SECRET_BYTES]);

/* The object of a good receipt, the caller's; NULL and err: INVALID_ARGUMENT if it is none,
 * PERMISSION_DENIED if this key did not sign it. */
json_t *dkt_receipt_verify(const char *text, size_t len,
                           const uint8_t public_key[DKT_RECEIPT_PUBLIC_BYTES], dkt_err_t *err);

#endif
