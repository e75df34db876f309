/* SPDX-License-Identifier: Apache-2.0
 *
 * The two clocks. Everything that measures a span uses the monotonic one; the wall clock is only
 * for times that people or other machines read.
 */
#ifndef DKT_EDGE_CLOCK_H
#define DKT_EDGE_CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC in ms. */
int64_t dkt_clock_mono_ms(void);

/* The same in us, to measure how long something took. */
int64_t dkt_clock_mono_us(void);

/* ms since the Unix epoch. */
int64_t dkt_clock_unix_ms(void);

#endif
