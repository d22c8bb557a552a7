// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011). A number is a pure function of (key, counter), so
// any rank can draw the n-th number of any sample without having drawn the ones before it.
#ifndef IMF_BASE_RNG_H
#define IMF_BASE_RNG_H

#include <stdint.h>

#include "base/hash.h"

typedef struct RngKey {
    uint64_t key;     // Philox key
    uint64_t stream;  // upper half of the counter: sets different uses of one key apart
} RngKey;

void rng_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

RngKey rng_key_from_id(Id id);                            // e.g. a sample id: counter = token position
RngKey rng_key(uint64_t seed, uint64_t stream);           // e.g. (recipe seed, purpose)
uint32_t rng_u32(RngKey k, uint64_t counter);
double rng_uniform(RngKey k, uint64_t counter);           // [0, 1), 53 bits
int64_t rng_below(RngKey k, uint64_t counter, int64_t n); // 0 .. n-1, exactly uniform up to 2^-64 bias
double rng_normal(RngKey k, uint64_t counter);            // mean 0, variance 1

// Fisher-Yates over 0..n-1 driven by counters 0..n-1.
void rng_permutation(RngKey k, int64_t *out, int64_t n);

#endif
