// SPDX-License-Identifier: Apache-2.0
#include "base/rng.h"

#include <math.h>

static void round_once(uint32_t c[4], const uint32_t k[2])
{
    uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
    uint32_t c1 = c[1], c3 = c[3];
    c[0] = (uint32_t)(p1 >> 32) ^ c1 ^ k[0];
    c[1] = (uint32_t)p1;
    c[2] = (uint32_t)(p0 >> 32) ^ c3 ^ k[1];
    c[3] = (uint32_t)p0;
}

void rng_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t k[2] = {key[0], key[1]};
    for (int i = 0; i < 4; i++) out[i] = counter[i];
    for (int r = 0; r < 10; r++) {
        round_once(out, k);
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
}

RngKey rng_key_from_id(Id id) { return (RngKey){id.lo, id.hi}; }
RngKey rng_key(uint64_t seed, uint64_t stream) { return (RngKey){seed, stream}; }

static void block(RngKey k, uint64_t counter, uint32_t out[4])
{
    uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), (uint32_t)k.stream, (uint32_t)(k.stream >> 32)};
    uint32_t key[2] = {(uint32_t)k.key, (uint32_t)(k.key >> 32)};
    rng_philox(out, c, key);
}

uint32_t rng_u32(RngKey k, uint64_t counter)
{
    uint32_t x[4];
    block(k, counter, x);
    return x[0];
}

double rng_uniform(RngKey k, uint64_t counter)
{
    uint32_t x[4];
    block(k, counter, x);
    uint64_t bits = (uint64_t)x[0] << 32 | x[1];
    return (double)(bits >> 11) * 0x1p-53;
}

int64_t rng_below(RngKey k, uint64_t counter, int64_t n)
{
    uint32_t x[4];
    block(k, counter, x);
    uint64_t bits = (uint64_t)x[0] << 32 | x[1];
    uint64_t m = (uint64_t)n, low = (bits & 0xffffffffu) * m, high = (bits >> 32) * m + (low >> 32);
    return (int64_t)(high >> 32);  // floor(bits * n / 2^64) for n < 2^32
}

double rng_normal(RngKey k, uint64_t counter)
{
    uint32_t x[4];
    block(k, counter, x);
    double u = ((double)x[0] + 0.5) * 0x1p-32, v = ((double)x[1] + 0.5) * 0x1p-32;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

void rng_permutation(RngKey k, int64_t *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++) out[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = rng_below(k, (uint64_t)i, i + 1), swap = out[i];
        out[i] = out[j];
        out[j] = swap;
    }
}
