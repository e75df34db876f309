/* SPDX-License-Identifier: Apache-2.0
 *
 * The broker's way to tenant context without NATS: it asks any worker over the link it has.
 */
#include "lib/core/router_internal.h"

bool dkt_router_ask(dkt_router_t *self, dkt_instant_t now, const uint8_t *bytes, size_t len)
{
    for (uint32_t i = 0; i < self->worker_used; i++) {
        self->asked = (self->asked + 1) % self->worker_used;
        if (dkt_rt_worker_lives(self, now, self->asked)) {
            return self->port.to_worker(self->port.ctx, &self->workers[self->asked].address, bytes,
                                        len) == DKT_SENT_OK;
        }
    }
    return false;
}

bool dkt_rt_take_context(dkt_router_t *self, dkt_instant_t now, const dkt_address_t *from,
                         const dkt_link_header_t *header, dkt_r_t *r)
{
    (void)now;
    (void)from;
    return self->port.context && self->port.context(self->port.ctx, header, r);
}
