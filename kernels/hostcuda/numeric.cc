// SPDX-License-Identifier: Apache-2.0
// The special function unit: exact here, or wrong by as much as the PTX ISA allows a GPU to be.
//
// A seed decides how wrong a result is, as a function of the argument alone, so that equal arguments give equal results in any order.
#include "kernels/hostcuda/hostcuda.hpp"

static uint64_t seed;

void hostcuda::set_numeric_seed(uint64_t s) { seed = s; }

// In [-1, 1].
static float part_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint64_t h = (bits + seed * 0x9e3779b97f4a7c15u) * 0xd1b54a32d192ed03u;
    h ^= h >> 32, h *= 0x9e3779b97f4a7c15u;
    return (float)(int32_t)(h >> 32) / 2147483648.0f;
}

static float bent(float y, float x, float relative) { return seed ? y * (1 + part_of(x) * relative) : y; }

// PTX ISA, ex2.approx, rcp.approx: relative errors up to 2^-22 and 2^-23; lg2.approx: absolute error up to 2^-22 near 1, else relative.
float ex2(float x) { return bent(exp2f(x), x, 0x1p-22f); }
float rcp(float x) { return bent(1 / x, x, 0x1p-23f); }
float lg2(float x)
{
    const float y = log2f(x);
    return x > 0.5f && x < 2 ? y + (seed ? part_of(x) * 0x1p-22f : 0) : bent(y, x, 0x1p-22f);
}
