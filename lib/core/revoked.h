/* SPDX-License-Identifier: Apache-2.0
 *
 * The tokens of one tenant that are dead before they expire: an open-addressing set of token ids.
 */
#ifndef DKT_CORE_REVOKED_H
#define DKT_CORE_REVOKED_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/core/status.h"
#include "lib/core/store.h"

typedef struct {
    dkt_revoked_t *slots; /* expires_ms 0: empty */
    uint32_t count, max;
} dkt_revoked_set_t;

void dkt_revoked_fini(dkt_revoked_set_t *self);
/* Drops what has expired when it has to grow; false without memory. */
DKT_CHECKED bool dkt_revoked_add(dkt_revoked_set_t *self,
                                 const uint8_t token_id[DKT_TOKEN_ID_BYTES], int64_t expires_ms,
                                 int64_t now_ms);
/* Drops what has expired, as far as memory allows. */
void dkt_revoked_forget(dkt_revoked_set_t *self, int64_t now_ms);
bool dkt_revoked_has(const dkt_revoked_set_t *self, const uint8_t token_id[DKT_TOKEN_ID_BYTES]);

#endif
