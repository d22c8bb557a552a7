// SPDX-License-Identifier: Apache-2.0
// AdamW, the squares of a gradient and its sum in fixed point: op_adamw, op_sqnorm, op_fixed_add and op_fixed_get of kernels/ops.h.
#ifndef IMF_CUDA_OPTIM_CUH
#define IMF_CUDA_OPTIM_CUH

#include "kernels/cuda/rows.cuh"

namespace optim {

enum { THREADS = 256, BLOCK = 4096, FIXED_SHIFT = 40, FIXED_MOST = 11 };

struct AdamW {
    float *w, *m, *v;
    const float *g;
    uint16_t *rounded;  // [n] the new weights in bf16, or NULL
    int64_t n;
    const float *clip, *lr;
    const int64_t *step;  // 1-based
    float beta1, beta2, eps, decay;
};

}  // namespace optim

// Eight values a thread. g is multiplied by *clip first;
//   w -= lr decay w;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  w -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)
inline __global__ void __launch_bounds__(optim::THREADS) adamw(const optim::AdamW a)
{
    using rows::WIDE;
    using optim::THREADS;
    SHARED_MEMORY(shared);
    float *factor = (float *)shared;  // lr / (1 - b1^t), 1 / sqrt(1 - b2^t)
    if (threadIdx.x == 0) {
        factor[0] = (float)((double)*a.lr / (1 - pow((double)a.beta1, (double)*a.step)));
        factor[1] = (float)(1 / sqrt(1 - pow((double)a.beta2, (double)*a.step)));
    }
    __syncthreads();
    const int64_t at = (int64_t)blockIdx.x * (THREADS * WIDE) + rows::block_column(), n = a.n - at;
    if (n <= 0) return;
    const float rate = factor[0], root = factor[1], clip = *a.clip, shrink = *a.lr * a.decay;
    float w[WIDE], m[WIDE], v[WIDE], g[WIDE];
    rows::load(w, a.w + at, n);
    rows::load(m, a.m + at, n);
    rows::load(v, a.v + at, n);
    rows::load(g, a.g + at, n);
#pragma unroll
    for (int i = 0; i < WIDE; i++) {
        g[i] *= clip;
        m[i] = fmaf(a.beta1, m[i], (1 - a.beta1) * g[i]);
        v[i] = fmaf(a.beta2, v[i], (1 - a.beta2) * g[i] * g[i]);
        w[i] = fmaf(-shrink, w[i], w[i]) - rate * m[i] / (sqrtf(v[i]) * root + a.eps);
    }
    rows::store(a.w + at, w, n);
    rows::store(a.m + at, m, n);
    rows::store(a.v + at, v, n);
    if (a.rounded) rows::store(a.rounded + at, w, n);
}

// sum += g in units of 2^-FIXED_SHIFT, g = 0; what is too large or not a number says so in *bad. Grid: blocks of BLOCK values.
inline __global__ void __launch_bounds__(optim::THREADS) fixed_add(float *g, int64_t *sum, int64_t n, uint32_t *bad)
{
    using namespace optim;
    for (int i = (int)threadIdx.x; i < BLOCK; i += THREADS) {
        const int64_t at = (int64_t)blockIdx.x * BLOCK + i;
        if (at >= n) return;
        const float x = g[at];
        g[at] = 0;
        if (fabsf(x) < (float)(1 << FIXED_MOST)) sum[at] += (int64_t)rintf(x * (float)((int64_t)1 << FIXED_SHIFT));
        else st_release(bad, 1);
    }
}

inline __global__ void __launch_bounds__(optim::THREADS) fixed_get(const int64_t *sum, float *g, int64_t n)
{
    using namespace optim;
    for (int i = (int)threadIdx.x; i < BLOCK; i += THREADS) {
        const int64_t at = (int64_t)blockIdx.x * BLOCK + i;
        if (at >= n) return;
        g[at] = (float)sum[at] * (1 / (float)((int64_t)1 << FIXED_SHIFT));
    }
}

// sum[b] = squares of block b of BLOCK values, in double: each thread every 256th, then halves are added. Grid: blocks.
inline __global__ void __launch_bounds__(optim::THREADS) sqnorm(const float *g, int64_t n, double *sum)
{
    using namespace optim;
    SHARED_MEMORY(shared);
    double *part = (double *)shared;  // [THREADS]
    double s = 0;
    for (int i = (int)threadIdx.x; i < BLOCK; i += THREADS) {
        const int64_t at = (int64_t)blockIdx.x * BLOCK + i;
        if (at < n) s += (double)g[at] * (double)g[at];
    }
    part[threadIdx.x] = s;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    }
    if (threadIdx.x == 0) sum[blockIdx.x] = part[0];
}

#endif
