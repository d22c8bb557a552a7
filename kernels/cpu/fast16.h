// SPDX-License-Identifier: Apache-2.0
// bf16 vectors of the level that a file is compiled for (see fast.h).
#ifndef IMF_KERNELS_CPU_FAST16_H
#define IMF_KERNELS_CPU_FAST16_H

#include "kernels/cpu/bf16.h"
#include "kernels/cpu/fast.h"

typedef uint32_t vu __attribute__((vector_size(VL * 4)));
typedef uint16_t vh __attribute__((vector_size(VL * 2)));

Piece NAME(pack16), NAME(pack16_t), NAME(round16), NAME(widen16), NAME(gemm16);
Piece NAME(attn16_pack), NAME(attn16_bwd_pack), NAME(attn16_fwd), NAME(attn16_bwd), NAME(attn16_decode);

// n lanes (n >= VL: all) from p; the others are zero.
static inline vf vload_bf16(const uint16_t *p, int64_t n)
{
    vh h = {0};
    if (n >= VL) memcpy(&h, p, sizeof h);
    else memcpy(&h, p, (size_t)n * sizeof *p);
    return (vf)(__builtin_convertvector(h, vu) << 16);
}

static inline void vstore_bf16(uint16_t *p, vf v, int64_t n)
{
    vu u = (vu)v, rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16, nan = u >> 16 | 0x40;
    vu is_nan = (vu)((u & 0x7fffffff) > 0x7f800000);
    vh h = __builtin_convertvector((is_nan & nan) | (~is_nan & rounded), vh);
    if (n >= VL) memcpy(p, &h, sizeof h);
    else memcpy(p, &h, (size_t)n * sizeof *p);
}

// Of a tensor that is bf16 (`half`) or fp32; `half` is a constant where these are used.
static inline __attribute__((always_inline)) vf vload_at(bool half, const Tensor *t, int64_t row, int64_t i, int64_t n)
{
    return half ? vload_bf16(row_bf16(t, row) + i, n) : vload(row_f32(t, row) + i, n);
}

static inline __attribute__((always_inline)) void vstore_at(bool half, const Tensor *t, int64_t row, int64_t i, vf v, int64_t n)
{
    if (half) vstore_bf16(row_bf16(t, row) + i, v, n);
    else vstore(row_f32(t, row) + i, v, n);
}

#endif
