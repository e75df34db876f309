/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests as they ended, by method and ending, and how long they took: docket_requests_total and
 * docket_request_duration_seconds. Plain numbers that only grow; whoever shows them subtracts an
 * older copy.
 */
#ifndef DKT_CORE_TRAFFIC_H
#define DKT_CORE_TRAFFIC_H

#include <stddef.h>
#include <stdint.h>

#include "lib/core/histogram.h"
#include "lib/core/proto.h"

/* How a request can end: with a status of ours, or with "no, it cannot be kept", which is a normal
 * answer and yet what operators look for first. */
#define DKT_ENDING_REFUSED DKT_STATUS_COUNT
#define DKT_ENDINGS        (DKT_STATUS_COUNT + 1)

/* One more row than there are methods: frames that named none of them. */
#define DKT_TRAFFIC_METHODS (DKT_METHOD_COUNT + 1)

typedef struct {
    uint64_t requests[DKT_TRAFFIC_METHODS][DKT_ENDINGS];
    dkt_histogram_t latency_us;
} dkt_traffic_t;

/* "ok", "refused", or the error's wire code; static text. */
const char *dkt_ending_name(uint32_t ending);
/* The wire name of a row, "none" for the last one; static text. */
const char *dkt_traffic_method_name(uint32_t method);

/* How the request ended that has this response frame: a look at its first key, no decoding. What
 * cannot be read counts as `internal`. */
uint32_t dkt_ending_of(const uint8_t *bytes, size_t len);

/* `method` may be anything: what is none of ours counts in the last row. */
void dkt_traffic_count(dkt_traffic_t *self, uint32_t method, uint32_t ending);

#endif
