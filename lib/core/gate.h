/* SPDX-License-Identifier: Apache-2.0
 *
 * How many tenants may be in activation at once (rule 15), and how long one whose attempt failed
 * waits before the next. Pure: the caller owns the queues and the clock.
 *
 * Tenants whose last attempt failed have a small share of the gate, so that a hundred dead
 * databases cannot keep the healthy ones out.
 */
#ifndef DKT_CORE_GATE_H
#define DKT_CORE_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/core/limits.h"
#include "lib/core/status.h"

typedef struct {
    uint32_t open;        /* activations under way, <= DKT_ACTIVATIONS_MAX */
    uint32_t open_failed; /* of them for tenants that failed, <= DKT_ACTIVATIONS_FAILED_MAX */
} dkt_gate_t;

/* May one more start? Takes a place if so; give it back by dkt_gate_leave with the same flag. */
DKT_CHECKED bool dkt_gate_enter(dkt_gate_t *gate, bool failed_before);
void dkt_gate_leave(dkt_gate_t *gate, bool failed_before);

/* Full jitter: uniform in [0, min (cap, base * 2^(failures - 1))], at least 1 ms. `failures` >= 1,
 * `random` is any 32 random bits. */
uint32_t dkt_backoff_ms(uint32_t failures, uint32_t base_ms, uint32_t cap_ms, uint32_t random);

#endif
