// SPDX-License-Identifier: Apache-2.0
// bfloat16 on the CPU: conversions, the packed form of weights, and the gemm that every product goes through.
//
// A bf16 is the upper half of an fp32; rounding is to nearest, ties to even, NaN stays NaN.
//
// Packed matrix w[N][K] (Gemm16.b): panels of BF16_PANEL rows; a panel holds, pair of k after pair of k, the pair of
// each of its rows side by side. That is what the bf16 dot instructions of AVX-512 and AMX read.
//   OFFSET (elements)                                       SIZE  DESCRIPTION
//   ((n / 16) * pairs + k / 2) * 32 + (n % 16) * 2 + k % 2     1  w[n][k]; pairs = K / 2 rounded up to a multiple of 16
// Rows and values of k that round up N and K are zero.
#ifndef IMF_KERNELS_CPU_BF16_H
#define IMF_KERNELS_CPU_BF16_H

#include <string.h>

#include "kernels/cpu/cpu.h"

enum { BF16_PANEL = 16, BF16_PAIRS = 16 };  // columns a panel is wide; pairs are padded to a multiple

static inline float bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint16_t bf16_from_f32(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline int64_t bf16_pairs(int64_t K) { return (K + 2 * BF16_PAIRS - 1) / (2 * BF16_PAIRS) * BF16_PAIRS; }
static inline int64_t bf16_panels(int64_t N) { return (N + BF16_PANEL - 1) / BF16_PANEL; }

// One tile of the product as a form computes it: c[rows][panels * 16] = or += a . b over `pairs` pairs of k.
// rows <= TILE16_ROWS, panels <= TILE16_PANELS, pairs <= TILE16_DEPTH; c is fp32, TILE16_COLUMNS from row to row, and
// has memory for rows rounded up to 32; b's pairs behind the last one are zero up to a multiple of 16.
enum { TILE16_ROWS = 96, TILE16_PANELS = 8, TILE16_DEPTH = 384, TILE16_COLUMNS = TILE16_PANELS * BF16_PANEL };
enum { GEMM16_STRIP = 8 * TILE16_ROWS };  // rows a piece of the gemm has at most
typedef struct Tile16 {
    int64_t rows, panels, pairs;
    const uint32_t *a;
    int64_t a_panel, a_row, a_pair;  // as in Gemm16
    const uint32_t *b;
    int64_t b_panel;                 // pairs from one panel to the next, times 16
    float *c;
    bool first;       // c is overwritten, else added to
} Tile16;
typedef void Tile16Form(const Tile16 *t);
Tile16Form tile16_base, tile16_avx2, tile16_avx512, tile16_avx512bf16, tile16_amx;

// Element i of a row of an fp32 or bf16 tensor, for plain forms.
static inline float tensor_get(const Tensor *t, int64_t row, int64_t i)
{
    return t->dtype == DT_BF16 ? bf16_to_f32(row_bf16(t, row)[i]) : row_f32(t, row)[i];
}

static inline void tensor_put(const Tensor *t, int64_t row, int64_t i, float x)
{
    if (t->dtype == DT_BF16) row_bf16(t, row)[i] = bf16_from_f32(x);
    else row_f32(t, row)[i] = x;
}

// A product of bf16 matrices, summed in fp32 over k in ascending order (inside a pair as the instruction does it), so that
// an element's bits depend on its row of a, its column of b and the form alone.
//   c[M][N] = a[M][K] . b[N][K]^T (+ bias[N]) (+ add[M][N])
// Unit of a and b is the pair of k: pair p of row i of a is a[(i / 16) * a_panel + (i % 16) * a_row + p * a_pair].
typedef struct Gemm16 {
    int64_t M, N, K;
    const uint32_t *a;
    int64_t a_panel, a_row, a_pair;
    const uint32_t *b;    // packed b[N][K]; turned: packed b^T[K][N]
    bool turned;
    Tensor c;             // fp32 or bf16
    const float *bias;    // [N] or NULL
    const float *add;     // [M][N] rows of stride ld_add, or NULL; may be c's memory
    int64_t ld_add;
    Tile16Form *tile;     // set by gemm16
} Gemm16;
Err gemm16(const Ctx *ctx, const Gemm16 *g) ERR_MUST_CHECK;
Tile16Form *tile16_of(const Ctx *ctx);
bool tile16_amx_ready(void);  // the machine has AMX with bf16, and Linux lets this process use it

// A row-major bf16 matrix as a; row stride in elements, even.
static inline void gemm16_a(Gemm16 *g, const void *a, int64_t stride)
{
    g->a = a;
    g->a_row = stride / 2;
    g->a_panel = BF16_PANEL * g->a_row;
    g->a_pair = 1;
}

// A packed bf16 matrix [M][K] as a.
static inline void gemm16_a_packed(Gemm16 *g, const void *a, int64_t K)
{
    g->a = a;
    g->a_row = 1;
    g->a_panel = bf16_pairs(K) * BF16_PANEL;
    g->a_pair = BF16_PANEL;
}

// Packs w[rows][cols] (fp32 or bf16, row stride in elements): items are panels.
typedef struct Pack16 {
    Tensor w;
    int64_t rows, cols;
    uint32_t *packed;
} Pack16;
// Packs the transpose of x[rows][cols] (bf16): columns become the rows of the packed matrix, rows its k. Items are panels.
// packed has pack16_elements(cols, rows) elements.

// y[t][0 .. n) = x[t][0 .. n) rounded; strides in elements. Items are rows.
typedef struct Round16 {
    const float *x;
    uint16_t *y;
    int64_t ldx, ldy, n;
} Round16;

// y[t][0 .. n) (fp32) = x[t][0 .. n) (bf16). Items are rows.
typedef struct Widen16 {
    const uint16_t *x;
    float *y;
    int64_t ldx, ldy, n;
} Widen16;

// Elements (uint16_t) of a packed matrix.
static inline int64_t pack16_elements(int64_t rows, int64_t cols) { return bf16_panels(rows) * bf16_pairs(cols) * 2 * BF16_PANEL; }

// The ops whose operands are bf16 (ops_bf16.c).
Err gemm16_fwd(const Ctx *ctx, const GemmArgs *a) ERR_MUST_CHECK;
Err gemm16_bwd_x(const Ctx *ctx, const GemmDxArgs *a) ERR_MUST_CHECK;
Err gemm16_bwd_w(const Ctx *ctx, const GemmDwArgs *a) ERR_MUST_CHECK;  // dw only
void bf16_packed_row(const Tensor *w, int64_t v, float *out);          // row v of packed w[][stride], widened

#endif
