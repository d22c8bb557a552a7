// SPDX-License-Identifier: Apache-2.0
// Arithmetic that several kernels share.
#ifndef IMF_CUDA_MATH_CUH
#define IMF_CUDA_MATH_CUH

#include "kernels/cuda/ptx.cuh"

constexpr float LOG2E = 1.44269504f, LN2 = 0.69314718f;

// Over the four lanes that hold a row of a fragment; over a warp. Every lane gets the result.
DEVICE float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
DEVICE float quad_sum(float x)
{
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}
DEVICE float warp_sum(float x)
{
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
    return x;
}

// tanh(x rate), with one special function: e = exp(-2 |x| rate), then (1 - e) / (1 + e). On [0, 1] the cubic is within 1 / 577 of 1 / (1 + e) (577 is
// Chebyshev's T4 at 3, of which the interval's ends are 1 and -1); two terms of 1 / (1 - off) make that 5e-9.
DEVICE float tanh_of(float x, float rate)
{
    const float e = ex2(fabsf(x) * (-2 * LOG2E * rate));
    const float near = fmaf(fmaf(fmaf(-128 / 577.0f, e, 384 / 577.0f), e, -544 / 577.0f), e, 576 / 577.0f);
    const float off = fmaf(-1 - e, near, 1);
    return copysignf((1 - e) * fmaf(near, fmaf(off, off, off), near), x);
}

// cap tanh(x / cap), Gemma's; *slope: its derivative.
DEVICE float soft_cap(float x, float cap, float *slope)
{
    const float t = tanh_of(x, rcp(cap));
    *slope = 1 - t * t;
    return cap * t;
}

#endif
