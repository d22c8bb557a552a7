// SPDX-License-Identifier: Apache-2.0
// What the fast forms share: vectors of the level that this file is compiled for, exp, and a small matrix product.
//
// kernels/cpu/fast*.c are compiled three times (ISA = base, avx2, avx512); NAME(x) gives each copy its own names.
// Invariant: an element is computed by the same operations wherever it lies in its row, and mm sums over k in ascending
// order in one chain, so that its bits do not depend on M, N or the tile that an element falls into.
#ifndef IMF_KERNELS_CPU_FAST_H
#define IMF_KERNELS_CPU_FAST_H

#include <stddef.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define FAST_PASTE_(a, b) a##_##b
#define FAST_PASTE(a, b) FAST_PASTE_(a, b)
#define NAME(x) FAST_PASTE(x, ISA)

#if defined(__AVX512F__)
enum { VL = 16, NV = 4 };  // lanes; vectors a tile is wide
#elif defined(__AVX2__)
enum { VL = 8, NV = 2 };
#else
enum { VL = 4, NV = 2 };
#endif
enum { MR = 6 };  // rows of a tile
typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));

extern const Form NAME(form);
Piece NAME(rmsnorm_fwd), NAME(rmsnorm_bwd_x), NAME(rmsnorm_bwd_w), NAME(rope), NAME(swiglu_fwd), NAME(swiglu_bwd), NAME(add);
Piece NAME(geglu_fwd), NAME(geglu_bwd);
Piece NAME(attn_pack), NAME(attn_fwd), NAME(attn_bwd_pack), NAME(attn_bwd), NAME(attn_bwd_sum), NAME(attn_decode);
Piece NAME(logprob_fwd), NAME(logprob_bwd), NAME(adamw), NAME(sqnorm), NAME(gemm_panel), NAME(gemm_packed);

// (0 + x would cost an addition for each broadcast: it is not x where x is -0.)
static inline vf vset(float x) { return x - (vf){0}; }

// n lanes (n >= VL: all) from p; the others are zero.
static inline vf vload(const float *p, int64_t n)
{
    vf v = {0};
    if (n >= VL) memcpy(&v, p, sizeof v);
#if defined(__AVX512F__)
    else v = (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif defined(__AVX2__)
    else v = (vf)_mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
#else
    else memcpy(&v, p, (size_t)n * sizeof(float));
#endif
    return v;
}

static inline void vstore(float *p, vf v, int64_t n)
{
    if (n >= VL) memcpy(p, &v, sizeof v);
#if defined(__AVX512F__)
    else _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#elif defined(__AVX2__)
    else _mm256_maskstore_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)), (__m256)v);
#else
    else memcpy(p, &v, (size_t)n * sizeof(float));
#endif
}

static inline vf vselect(vi mask, vf yes, vf no)
{
#if defined(__AVX512F__)
    return (vf)_mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)mask), (__m512)no, (__m512)yes);
#elif defined(__AVX2__)
    return (vf)_mm256_blendv_ps((__m256)no, (__m256)yes, (__m256)mask);
#else
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
#endif
}

static inline bool vany(vi mask)
{
#if defined(__AVX512F__)
    return _mm512_movepi32_mask((__m512i)mask) != 0;
#elif defined(__AVX2__)
    return _mm256_movemask_ps((__m256)mask) != 0;
#else
    return (mask[0] | mask[1] | mask[2] | mask[3]) != 0;
#endif
}

// Lane numbers.
static inline vi vlane(void)
{
    static const int32_t lane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vi v;
    memcpy(&v, lane, sizeof v);
    return v;
}

// a > b ? a : b, so b where one is NaN.
static inline vf vmax(vf a, vf b)
{
#if defined(__AVX512F__)
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return vselect(a > b, a, b);
#endif
}

// a < b ? a : b.
static inline vf vmin(vf a, vf b)
{
#if defined(__AVX512F__)
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return vselect(a < b, a, b);
#endif
}

// Fixed tree: lane i + lane i + VL / 2, and so on.
static inline float vsum(vf v)
{
#if defined(__AVX512F__)
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256((__m512)v), _mm512_extractf32x8_ps((__m512)v, 1));
#elif defined(__AVX2__)
    __m256 h = (__m256)v;
#endif
#if defined(__AVX2__)
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return q[0] + q[1];
#else
    return (v[0] + v[2]) + (v[1] + v[3]);
#endif
}

static inline float vmax_lanes(vf v)
{
    float x[VL];
    memcpy(x, &v, sizeof x);
    for (int w = VL / 2; w > 0; w /= 2)
        for (int i = 0; i < w; i++) x[i] = x[i] > x[i + w] ? x[i] : x[i + w];
    return x[0];
}

// e^x for -87 <= x <= 88, about 1 ulp: x = n ln 2 + r, minimax polynomial of degree 6 in |r| <= 0.347 (3e-9 off), n added to
// the exponent.
static inline vf vexp_near(vf x)
{
    const vf magic = vset(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    vf t = x * vset(1.44269504f) + magic, n = t - magic;
    vf r = x - n * vset(0.693359375f);
    r = r - n * vset(-2.12194440e-4f);
    vf p = vset(0.001381439996f);
    p = p * r + vset(0.008368811893f);
    p = p * r + vset(0.0416683973f);
    p = p * r + vset(0.1666651985f);
    p = p * r + vset(0.4999999339f);
    p = p * r + vset(1.0f);
    p = p * r + vset(1.0f);
    return (vf)((vi)p + ((vi)t << 23));
}

// e^x: 0 below -87, no overflow above 88 (the value stays at e^88); NaN stays NaN.
static inline vf vexp(vf x)
{
    vf y = vexp_near(vmin(vset(88.0f), vmax(vset(-87.0f), x)));
    return vselect(x < vset(-87.0f), vset(0), y);
}

// tanh x: 1 - 2 / (e^2|x| + 1) with x's sign; an odd polynomial (2e-8 off) below 0.3, where that would lose digits.
static inline vf vtanh(vf x)
{
    vf size = vmax(x, -x), square = x * x;
    vf far = vset(1) - vset(2) / (vexp(size + size) + vset(1));
    vf p = vset(62.0f / 2835);
    p = p * square - vset(17.0f / 315);
    p = p * square + vset(2.0f / 15);
    p = p * square - vset(1.0f / 3);
    return vselect(size < vset(0.3f), x + x * square * p, vselect(x < vset(0), -far, far));
}

static inline int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

// A matrix as pointer, row stride and column stride.
typedef struct Mat {
    const float *p;
    int64_t rs, cs;
} Mat;

static inline __attribute__((always_inline)) void tile(int rows, int width, Mat a, const float *b, int64_t ldb, float *c,
                                                       int64_t ldc, int64_t K, bool accumulate)
{
    vf acc[MR][NV];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < width; j++) acc[i][j] = accumulate ? vload(c + i * ldc + j * VL, VL) : vset(0);
    for (int64_t k = 0; k < K; k++) {
        vf line[NV];
        for (int j = 0; j < width; j++) line[j] = vload(b + k * ldb + j * VL, VL);
        for (int i = 0; i < rows; i++) {
            vf x = vset(a.p[i * a.rs + k * a.cs]);
            for (int j = 0; j < width; j++) acc[i][j] += x * line[j];
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < width; j++) vstore(c + i * ldc + j * VL, acc[i][j], VL);
}

// One column strip of constant width, all rows.
#define MM_STRIP(WIDTH)                                                                            \
    do {                                                                                           \
        for (int64_t i = 0; i < M; i += MR) {                                                      \
            Mat at = {a.p + i * a.rs, a.rs, a.cs};                                                 \
            float *ct = c + i * ldc + j;                                                           \
            switch (M - i) {                                                                       \
            case 1: tile(1, WIDTH, at, b + j, ldb, ct, ldc, K, accumulate); break;                 \
            case 2: tile(2, WIDTH, at, b + j, ldb, ct, ldc, K, accumulate); break;                 \
            case 3: tile(3, WIDTH, at, b + j, ldb, ct, ldc, K, accumulate); break;                 \
            case 4: tile(4, WIDTH, at, b + j, ldb, ct, ldc, K, accumulate); break;                 \
            case 5: tile(5, WIDTH, at, b + j, ldb, ct, ldc, K, accumulate); break;                 \
            default: tile(MR, WIDTH, at, b + j, ldb, ct, ldc, K, accumulate); break;               \
            }                                                                                      \
        }                                                                                          \
    } while (0)

#ifdef __clang__
#define NO_COPIES noinline, unused
#else
#define NO_COPIES noinline, noclone, unused
#endif

// c[M][N] = a[M][K] . b[K][N] (+ c). Columns beyond a multiple of VL are computed one by one. (Inlined with constant strides,
// gcc 12 keeps the sums of a tile on the stack.)
static __attribute__((NO_COPIES)) void mm(int64_t M, int64_t N, int64_t K, Mat a, const float *b, int64_t ldb, float *c,
                                          int64_t ldc, bool accumulate)
{
    int64_t j = 0;
    for (; j + NV * VL <= N; j += NV * VL) MM_STRIP(NV);
    for (; j + VL <= N; j += VL) MM_STRIP(1);
    for (; j < N; j++)
        for (int64_t i = 0; i < M; i++) {
            vf sum = vset(accumulate ? c[i * ldc + j] : 0);
            for (int64_t k = 0; k < K; k++) sum += vset(a.p[i * a.rs + k * a.cs]) * vset(b[k * ldb + j]);
            vstore(&c[i * ldc + j], sum, 1);
        }
}

#endif
