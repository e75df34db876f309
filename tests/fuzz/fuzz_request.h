/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DKT_TESTS_FUZZ_REQUEST_H
#define DKT_TESTS_FUZZ_REQUEST_H

#include <stddef.h>
#include <stdint.h>

/* libFuzzer's entry: any bytes; aborts when a property does not hold. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#endif
