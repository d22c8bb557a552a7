// SPDX-License-Identifier: Apache-2.0
// The ops of kernels/ops.h that work token by token, for bf16: norm, RoPE, SwiGLU, GeGLU, embedding, sums; a linear layer in fp64. As there, the
// residual stream, its gradient, gradients at norms and norm weights are fp32, other activations and weights bf16. Every lane takes 8 values at a
// time (RoPE: 4 pairs), so that a warp's accesses have no gaps; sums have a fixed order.
#ifndef IMF_CUDA_ROWS_CUH
#define IMF_CUDA_ROWS_CUH

#include "kernels/cuda/math.cuh"

namespace rows {

enum { WIDE = 8, FOUR = 4, WARP = 32, THREADS = 128 };
enum { PIECE = WARP * WIDE, APART = WARP * FOUR };  // columns of a warp, and from a lane's first four to its other four
enum { SUM_WARPS = 8, SUM_THREADS = SUM_WARPS * WARP, SUM_BYTES = SUM_THREADS * 4 };  // of rmsnorm_bwd_w

// Four values from p on, of which the first n are there; the others read as 0 and are not written. p: a multiple of four values' size.
DEVICE void load_four(float *v, const float *p, int64_t n)
{
    if (n >= FOUR) {
        const float4 a = ld_v4(p);
        v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    } else {
#pragma unroll
        for (int i = 0; i < FOUR; i++) v[i] = i < n ? p[i] : 0;
    }
}

DEVICE void load_four(float *v, const uint16_t *p, int64_t n)
{
    if (n >= FOUR) {
        const uint2 u = ld_u2(p);
        v[0] = low_bf16(u.x), v[1] = high_bf16(u.x), v[2] = low_bf16(u.y), v[3] = high_bf16(u.y);
    } else {
#pragma unroll
        for (int i = 0; i < FOUR; i++) v[i] = i < n ? low_bf16(p[i]) : 0;
    }
}

DEVICE void store_four(float *p, const float *v, int64_t n)
{
    if (n >= FOUR) {
        st_v4(p, {v[0], v[1], v[2], v[3]});
    } else {
#pragma unroll
        for (int i = 0; i < FOUR; i++)
            if (i < n) p[i] = v[i];
    }
}

DEVICE void store_four(uint16_t *p, const float *v, int64_t n)
{
    if (n >= FOUR) {
        st_u2(p, {pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3])});
    } else {
#pragma unroll
        for (int i = 0; i < FOUR; i++)
            if (i < n) p[i] = (uint16_t)pack_bf16(v[i], 0);
    }
}

// A lane's eight of a warp's PIECE columns: four from p on and four APART further on, so that a warp's accesses have no gaps, in fp32 and in bf16. Of
// the values from p on n are there.
template <typename X> DEVICE void load(float (&v)[WIDE], const X *p, int64_t n)
{
    load_four(v, p, n);
    load_four(v + FOUR, p + APART, n - APART);
}
template <typename X> DEVICE void store(X *p, const float (&v)[WIDE], int64_t n)
{
    store_four(p, v, n);
    store_four(p + APART, v + FOUR, n - APART);
}

// Eight neighbouring values, where all is bf16: 16 bytes.
DEVICE void load_eight(float (&v)[WIDE], const uint16_t *p, int64_t n)
{
    if (n >= WIDE) {
        const uint4 u = ld_u4(p);
        v[0] = low_bf16(u.x), v[1] = high_bf16(u.x), v[2] = low_bf16(u.y), v[3] = high_bf16(u.y);
        v[4] = low_bf16(u.z), v[5] = high_bf16(u.z), v[6] = low_bf16(u.w), v[7] = high_bf16(u.w);
    } else {
#pragma unroll
        for (int i = 0; i < WIDE; i++) v[i] = i < n ? low_bf16(p[i]) : 0;
    }
}

DEVICE void store_eight(uint16_t *p, const float (&v)[WIDE], int64_t n)
{
    if (n >= WIDE) {
        st_u4(p, {pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])});
    } else {
#pragma unroll
        for (int i = 0; i < WIDE; i++)
            if (i < n) p[i] = (uint16_t)pack_bf16(v[i], 0);
    }
}

// Row of a warp, and where its lane begins in a piece of columns.
DEVICE int64_t warp_row() { return (int64_t)blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP; }
DEVICE int64_t lane_column() { return (int64_t)(threadIdx.x % WARP) * FOUR; }
DEVICE int64_t block_column() { return (int64_t)(threadIdx.x / WARP) * PIECE + lane_column(); }  // pieces of a block's warps, one behind the other

struct Spot {
    int64_t t, column;
};

// Pieces of [T][width], one a warp: false where the lane has nothing.
BOTH int64_t pieces_of(int64_t width) { return (width + PIECE - 1) / PIECE; }
DEVICE bool piece_of(Spot *s, int64_t T, int64_t width)
{
    s->t = warp_row() / pieces_of(width), s->column = warp_row() % pieces_of(width) * PIECE + lane_column();
    return s->t < T && s->column < width;
}

// Groups of N values of [T][width], one a thread: false beyond the last.
template <int N> DEVICE bool spot_of(Spot *s, int64_t T, int64_t width)
{
    const int64_t groups = (width + N - 1) / N, i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    s->t = i / groups, s->column = i % groups * N;
    return s->t < T;
}

// Sums over tokens: a block has 32 columns, a warp every 8th token.
DEVICE int64_t sum_column() { return (int64_t)blockIdx.x * WARP + threadIdx.x % WARP; }
DEVICE int sum_warp() { return (int)threadIdx.x / WARP; }

// *to += the warps' sums in their order; to NULL: no such column. part: SUM_BYTES of shared memory.
DEVICE void add_warps(float *part, float sum, float *to)
{
    part[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x < WARP && to) {
        for (int w = 1; w < SUM_WARPS; w++) sum += part[w * WARP + threadIdx.x];
        *to += sum;
    }
    __syncthreads();
}

// *rest = 1 - sigmoid(x), to its own last digits: a gate's slope multiplies it by much, and with rcp's error 1 - s is not 0
// where it should be. No e^-x is infinite.
DEVICE float sigmoid(float x, float *rest)
{
    const float e = ex2(fminf(-x * LOG2E, 126)), s = rcp(1 + e);
    *rest = e * s;
    return s;
}

// Gates are act(x) = x sigmoid(w(x)): w and its derivative.
struct Silu {
    DEVICE float inner(float x) { return x; }
    DEVICE float slope(float) { return 1; }
};
constexpr float GELU_W1 = 1.59576912f, GELU_W3 = 0.0713548163f;
struct Gelu {  // the tanh form of kernels/ops.h: w = 2 z
    DEVICE float inner(float x) { return x * (GELU_W1 + GELU_W3 * x * x); }
    DEVICE float slope(float x) { return GELU_W1 + 3 * GELU_W3 * x * x; }
};

template <typename Y> struct Norm {  // Y: uint16_t (bf16) or float
    const float *x;
    Y *y;
    const float *w;
    float *rstd;  // NULL: not wanted
    int64_t x_stride, y_stride, T, H;
    float eps;
};

struct NormBwd {
    const float *x, *dy;
    const float *dx_in;  // NULL: 0
    float *dx;
    const float *w, *rstd;
    float *dw;
    const int32_t *row;
    int n;  // rows (packed sequences)
    int64_t x_stride, dy_stride, dx_in_stride, dx_stride, T, H;
};

struct Bias {
    const uint16_t *dy;
    float *dbias;
    const int32_t *row;
    int n;
    int64_t stride, width;
};

struct Rope {
    uint16_t *x;
    int64_t stride;
    const int32_t *pos;
    const float *table;
    int64_t T, heads, D;
    bool inverse;
};

struct Glu {
    const uint16_t *g, *u, *dy;
    uint16_t *y, *dg, *du;
    int64_t g_stride, u_stride, dy_stride, y_stride, dg_stride, du_stride, T, F;
};

struct Sum {  // y = a + b; or y (bf16) = a rounded
    const float *a, *b;
    float *y;
    uint16_t *rounded;
    int64_t a_stride, b_stride, y_stride, T, H;
};

struct LinearF64 {
    const double *x;
    const float *w, *bias;  // bias NULL: none
    double *y;
    int64_t T, in, out;
    bool relu;
};

struct Embed {
    const uint16_t *table;
    float *y;             // the gradient of y in the backward
    float *dtable;
    const int32_t *token;
    int64_t table_stride, y_stride, dtable_stride, T, H;
};

}  // namespace rows

// A warp a row; grid: T / (THREADS / 32).
template <typename Y> __global__ void __launch_bounds__(rows::THREADS) rmsnorm_fwd(const rows::Norm<Y> a)
{
    using namespace rows;
    const int64_t t = warp_row();
    if (t >= a.T) return;
    float v[WIDE], w[WIDE], sum = 0;
    for (int64_t h = lane_column(); h < a.H; h += PIECE) {
        load(v, a.x + t * a.x_stride + h, a.H - h);
#pragma unroll
        for (int i = 0; i < WIDE; i++) sum = fmaf(v[i], v[i], sum);
    }
    const float rstd = 1 / sqrtf(warp_sum(sum) / (float)a.H + a.eps);
    for (int64_t h = lane_column(); h < a.H; h += PIECE) {
        load(v, a.x + t * a.x_stride + h, a.H - h);
        load(w, a.w + h, a.H - h);
#pragma unroll
        for (int i = 0; i < WIDE; i++) v[i] = v[i] * rstd * w[i];
        store(a.y + t * a.y_stride + h, v, a.H - h);
    }
    if (a.rstd && threadIdx.x % WARP == 0) a.rstd[t] = rstd;
}

// As rmsnorm_fwd. With r = rstd: dx = r (w dy - x r^2 mean(w dy x)), added to dx_in.
inline __global__ void __launch_bounds__(rows::THREADS) rmsnorm_bwd_x(const rows::NormBwd a)
{
    using namespace rows;
    const int64_t t = warp_row();
    if (t >= a.T) return;
    const float *x_row = a.x + t * a.x_stride, *dy_row = a.dy + t * a.dy_stride;
    float x[WIDE], dy[WIDE], w[WIDE], in[WIDE] = {0, 0, 0, 0, 0, 0, 0, 0}, dot = 0;
    for (int64_t h = lane_column(); h < a.H; h += PIECE) {
        load(x, x_row + h, a.H - h);
        load(dy, dy_row + h, a.H - h);
        load(w, a.w + h, a.H - h);
#pragma unroll
        for (int i = 0; i < WIDE; i++) dot = fmaf(w[i] * dy[i], x[i], dot);
    }
    const float r = a.rstd[t];
    dot = warp_sum(dot) * r * r / (float)a.H;
    for (int64_t h = lane_column(); h < a.H; h += PIECE) {
        load(x, x_row + h, a.H - h);
        load(dy, dy_row + h, a.H - h);
        load(w, a.w + h, a.H - h);
        if (a.dx_in) load(in, a.dx_in + t * a.dx_in_stride + h, a.H - h);
#pragma unroll
        for (int i = 0; i < WIDE; i++) in[i] += r * (w[i] * dy[i] - x[i] * dot);
        store(a.dx + t * a.dx_stride + h, in, a.H - h);
#pragma unroll
        for (int i = 0; i < WIDE; i++) in[i] = 0;
    }
}

// dw[h] += the sum over a row's tokens of dy x rstd, row after row. A block of 8 warps has 32 columns; a warp sums every 8th token.
inline __global__ void __launch_bounds__(rows::SUM_THREADS) rmsnorm_bwd_w(const rows::NormBwd a)
{
    using namespace rows;
    SHARED_MEMORY(shared);
    const int64_t h = sum_column();
    for (int r = 0; r < a.n; r++) {
        float sum = 0;
        const int64_t to = a.row[r + 1];
        for (int64_t t = a.row[r] + sum_warp(); h < a.H && t < to; t += SUM_WARPS) {
            const float rstd = a.rstd[t];
            sum = fmaf(a.dy[t * a.dy_stride + h] * a.x[t * a.x_stride + h], rstd, sum);
        }
        add_warps((float *)shared, sum, h < a.H ? a.dw + h : nullptr);
    }
}

// dbias[h] += the sum over a row's tokens of dy, row after row; as rmsnorm_bwd_w.
inline __global__ void __launch_bounds__(rows::SUM_THREADS) bias_bwd(const rows::Bias a)
{
    using namespace rows;
    SHARED_MEMORY(shared);
    const int64_t h = sum_column();
    for (int r = 0; r < a.n; r++) {
        float sum = 0;
        const int64_t to = a.row[r + 1];
        for (int64_t t = a.row[r] + sum_warp(); h < a.width && t < to; t += SUM_WARPS)
            sum += low_bf16(a.dy[t * a.stride + h]);
        add_warps((float *)shared, sum, h < a.width ? a.dbias + h : nullptr);
    }
}

// Four pairs (x_i, x_{i+D/2}) a thread.
inline __global__ void __launch_bounds__(rows::THREADS) rope(const rows::Rope a)
{
    using namespace rows;
    const int64_t half = a.D / 2;
    const uint32_t groups = (uint32_t)((half + FOUR - 1) / FOUR);
    Spot s;
    if (!spot_of<FOUR>(&s, a.T, a.heads * groups * FOUR)) return;
    const uint32_t group = (uint32_t)(s.column / FOUR), head = group / groups;
    const int64_t i = (int64_t)(group - head * groups) * FOUR, n = half - i;
    uint16_t *x = a.x + s.t * a.stride + head * a.D + i;
    const float *turn = a.table + a.pos[s.t] * a.D + i;
    float low[FOUR], high[FOUR], c[FOUR], d[FOUR];
    load_four(low, x, n);
    load_four(high, x + half, n);
    load_four(c, turn, n);
    load_four(d, turn + half, n);
#pragma unroll
    for (int k = 0; k < FOUR; k++) {
        const float sine = a.inverse ? -d[k] : d[k], l = low[k], h = high[k];
        low[k] = l * c[k] - h * sine;
        high[k] = h * c[k] + l * sine;
    }
    store_four(x, low, n);
    store_four(x + half, high, n);
}

// y = act(g) u
template <typename Gate> __global__ void __launch_bounds__(rows::THREADS) glu_fwd(const rows::Glu a)
{
    using namespace rows;
    Spot s;
    if (!spot_of<WIDE>(&s, a.T, a.F)) return;
    const int64_t n = a.F - s.column;
    float g[WIDE], u[WIDE], rest;
    load_eight(g, a.g + s.t * a.g_stride + s.column, n);
    load_eight(u, a.u + s.t * a.u_stride + s.column, n);
#pragma unroll
    for (int i = 0; i < WIDE; i++) g[i] = g[i] * sigmoid(Gate::inner(g[i]), &rest) * u[i];
    store_eight(a.y + s.t * a.y_stride + s.column, g, n);
}

// act'(g) = s + g s (1 - s) w'(g), s = sigmoid(w(g))
template <typename Gate> __global__ void __launch_bounds__(rows::THREADS) glu_bwd(const rows::Glu a)
{
    using namespace rows;
    Spot s;
    if (!spot_of<WIDE>(&s, a.T, a.F)) return;
    const int64_t n = a.F - s.column;
    float g[WIDE], u[WIDE], dy[WIDE], rest;
    load_eight(g, a.g + s.t * a.g_stride + s.column, n);
    load_eight(u, a.u + s.t * a.u_stride + s.column, n);
    load_eight(dy, a.dy + s.t * a.dy_stride + s.column, n);
#pragma unroll
    for (int i = 0; i < WIDE; i++) {
        const float x = sigmoid(Gate::inner(g[i]), &rest), dg = dy[i] * u[i] * (x + g[i] * x * rest * Gate::slope(g[i]));
        u[i] = dy[i] * g[i] * x;
        g[i] = dg;
    }
    store_eight(a.dg + s.t * a.dg_stride + s.column, g, n);
    store_eight(a.du + s.t * a.du_stride + s.column, u, n);
}

inline __global__ void __launch_bounds__(rows::THREADS) add_rows(const rows::Sum a)
{
    using namespace rows;
    Spot s;
    if (!piece_of(&s, a.T, a.H)) return;
    const int64_t n = a.H - s.column;
    float x[WIDE], y[WIDE];
    load(x, a.a + s.t * a.a_stride + s.column, n);
    load(y, a.b + s.t * a.b_stride + s.column, n);
#pragma unroll
    for (int i = 0; i < WIDE; i++) x[i] += y[i];
    store(a.y + s.t * a.y_stride + s.column, x, n);
}

inline __global__ void __launch_bounds__(rows::THREADS) round_rows(const rows::Sum a)
{
    using namespace rows;
    Spot s;
    if (!piece_of(&s, a.T, a.H)) return;
    const int64_t n = a.H - s.column;
    float x[WIDE];
    load(x, a.a + s.t * a.a_stride + s.column, n);
    store(a.rounded + s.t * a.y_stride + s.column, x, n);
}

// A warp an element of y: each lane every 32nd product, then halves are added. Warps that run at once share a token's x.
inline __global__ void __launch_bounds__(rows::THREADS) linear_f64(const rows::LinearF64 a)
{
    using namespace rows;
    const int64_t t = warp_row() / a.out, o = warp_row() % a.out;
    if (t >= a.T) return;
    const int lane = (int)threadIdx.x % WARP;
    double sum = 0;
    for (int64_t i = lane; i < a.in; i += WARP) sum += (double)a.w[o * a.in + i] * a.x[t * a.in + i];
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) sum += shuffle_double(sum, lane ^ step);
    if (lane != 0) return;
    if (a.bias) sum += (double)a.bias[o];
    a.y[t * a.out + o] = a.relu && sum < 0 ? 0 : sum;
}

inline __global__ void __launch_bounds__(rows::THREADS) embed_fwd(const rows::Embed a)
{
    using namespace rows;
    Spot s;
    if (!piece_of(&s, a.T, a.H)) return;
    const int64_t n = a.H - s.column;
    float x[WIDE];
    load(x, a.table + a.token[s.t] * a.table_stride + s.column, n);
    store(a.y + s.t * a.y_stride + s.column, x, n);
}

// A block a token (grid: T): the first of its kind adds the gradients of all of them to the table's row, in their order.
inline __global__ void __launch_bounds__(rows::THREADS) embed_bwd(const rows::Embed a)
{
    using namespace rows;
    SHARED_MEMORY(shared);
    unsigned *seen = (unsigned *)shared;  // [THREADS / WARP]
    const int64_t first = blockIdx.x;
    const int32_t mine = a.token[first];
    bool before = false;
    for (int64_t t = threadIdx.x; t < first; t += THREADS) before |= a.token[t] == mine;
    const unsigned found = __ballot_sync(~0u, before);
    if (threadIdx.x % WARP == 0) seen[threadIdx.x / WARP] = found;
    __syncthreads();
    for (int w = 0; w < THREADS / WARP; w++)
        if (seen[w]) return;
    float *to = a.dtable + mine * a.dtable_stride;
    for (int64_t h = block_column(); h < a.H; h += THREADS * WIDE) {
        float sum[WIDE], dy[WIDE];
        load(sum, to + h, a.H - h);
        for (int64_t t = first; t < a.T; t++) {
            if (a.token[t] != mine) continue;
            load(dy, a.y + t * a.y_stride + h, a.H - h);
#pragma unroll
            for (int i = 0; i < WIDE; i++) sum[i] += dy[i];
        }
        store(to + h, sum, a.H - h);
    }
}

#endif
