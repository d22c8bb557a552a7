// SPDX-License-Identifier: Apache-2.0
// Arithmetic that several kernels share.
#ifndef IMF_CUDA_MATH_CUH
#define IMF_CUDA_MATH_CUH

#include "kernels/cuda/ptx.cuh"

constexpr float LOG2E = 1.44269504f, LN2 = 0.69314718f;

// cap tanh(x / cap), Gemma's; *slope: its derivative. cap 0: x and 1.
DEVICE float soft_cap(float x, float cap, float *slope)
{
    *slope = 1;
    if (cap <= 0) return x;
    const float t = 1 - 2 * rcp(ex2(x / cap * (2 * LOG2E)) + 1);  // tanh
    *slope = 1 - t * t;
    return cap * t;
}

#endif
