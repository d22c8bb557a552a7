// SPDX-License-Identifier: Apache-2.0
// Arithmetic that several kernels share.
#ifndef IMF_CUDA_MATH_CUH
#define IMF_CUDA_MATH_CUH

#include "kernels/cuda/ptx.cuh"

constexpr float LOG2E = 1.44269504f, LN2 = 0.69314718f;

// cap tanh(x / cap), Gemma's; *slope: its derivative.
DEVICE float soft_cap(float x, float cap, float *slope)
{
    const float t = 1 - 2 * rcp(ex2(x * (2 * LOG2E / cap)) + 1);  // tanh
    *slope = 1 - t * t;
    return cap * t;
}

#endif
