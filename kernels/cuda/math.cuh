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

// cap tanh(x / cap), Gemma's; *slope: its derivative.
DEVICE float soft_cap(float x, float cap, float *slope)
{
    const float t = 1 - 2 * rcp(ex2(x * (2 * LOG2E * rcp(cap))) + 1);  // tanh
    *slope = 1 - t * t;
    return cap * t;
}

#endif
