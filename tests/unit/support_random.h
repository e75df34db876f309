/* SPDX-License-Identifier: Apache-2.0
 *
 * Chance that can be repeated: the same state gives the same numbers on every machine.
 */
#ifndef DKT_TESTS_SUPPORT_RANDOM_H
#define DKT_TESTS_SUPPORT_RANDOM_H

#include <stdint.h>

/* splitmix64: every seed is a good one. */
static inline uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* 0 to bound - 1; bound > 0. */
static inline uint32_t random_below(uint64_t *state, uint32_t bound)
{
    return (uint32_t)(random_next(state) % bound);
}

/* Of 0 to 64 bits, small ones as often as large ones. */
static inline uint64_t random_of_any_size(uint64_t *state)
{
    uint64_t number = random_next(state);
    return number >> (random_next(state) & 63);
}

#endif
