/* SPDX-License-Identifier: Apache-2.0
 *
 * What a worker tells about itself on docket.stats.worker.<node>. Counting is a few relaxed atomic
 * additions per commit; writing happens in the relay's thread.
 */
#ifndef DKT_WORKERS_STATS_H
#define DKT_WORKERS_STATS_H

#include <jansson.h>

#include "workers/mail.h"

int64_t dkt_stats_mono_us(void);
void dkt_stats_commit(dkt_worker_stats_t *self, int64_t us);
/* The counters as JSON; percentiles are those of the time since `last`, which is renewed. */
json_t *dkt_stats_json(dkt_worker_stats_t *self, uint32_t last[DKT_STATS_CELLS]);

#endif
