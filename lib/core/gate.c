/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/gate.h"

#include <assert.h>

#define S_DOUBLINGS_MAX 20 /* beyond it every cap in use is reached */

bool dkt_gate_enter(dkt_gate_t *gate, bool failed_before)
{
    if (gate->open >= DKT_ACTIVATIONS_MAX ||
        (failed_before && gate->open_failed >= DKT_ACTIVATIONS_FAILED_MAX)) {
        return false;
    }
    gate->open++;
    gate->open_failed += failed_before ? 1 : 0;
    return true;
}

void dkt_gate_leave(dkt_gate_t *gate, bool failed_before)
{
    assert(gate->open > 0);
    gate->open--;
    if (failed_before) {
        assert(gate->open_failed > 0);
        gate->open_failed--;
    }
}

uint32_t dkt_backoff_ms(uint32_t failures, uint32_t base_ms, uint32_t cap_ms, uint32_t random)
{
    assert(failures > 0 && base_ms > 0 && cap_ms >= base_ms);
    uint32_t doublings = failures - 1 < S_DOUBLINGS_MAX ? failures - 1 : S_DOUBLINGS_MAX;
    uint64_t ceiling = (uint64_t)base_ms << doublings;
    if (ceiling > cap_ms) {
        ceiling = cap_ms;
    }
    uint32_t wait = (uint32_t)(((uint64_t)random * (ceiling + 1)) >> 32);
    return wait > 0 ? wait : 1;
}
