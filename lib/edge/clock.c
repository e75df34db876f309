/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/edge/clock.h"

#include <assert.h>
#include <time.h>

static struct timespec s_read(clockid_t clock)
{
    struct timespec now;
    int rc = clock_gettime(clock, &now);
    assert(rc == 0);
    return now;
}

static int64_t s_read_ms(clockid_t clock)
{
    struct timespec now = s_read(clock);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t dkt_clock_mono_ms(void)
{
    return s_read_ms(CLOCK_MONOTONIC);
}

int64_t dkt_clock_mono_us(void)
{
    struct timespec now = s_read(CLOCK_MONOTONIC);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t dkt_clock_unix_ms(void)
{
    return s_read_ms(CLOCK_REALTIME);
}
