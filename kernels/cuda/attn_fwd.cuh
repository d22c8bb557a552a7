// SPDX-License-Identifier: Apache-2.0
// Attention forward with mma.sync (sm_80 and later): op_attn_fwd of kernels/ops.h for bf16.
//
// A block computes 64 queries of one head, a warp 16 of them. Keys come in tiles, first those of the prefix segment, then the
// segment's own up to the last query; keys and values of the next tile are on their way (cp.async) while this one is computed.
// Softmax: attn_softmax.cuh. Tiles of queries begin at their segment's first token and tiles of keys at their part's, so a row's
// bits depend on its segment and prefix alone.
//
//   shared memory   Q [64][D] | K0 [KEYS][D] | V0 | K1 | V1
//   registers       scores [KEYS / 8][4], output [D / 8][4] a lane, as mma lays them out: rows lane / 4 and + 8
#ifndef IMF_CUDA_ATTN_FWD_CUH
#define IMF_CUDA_ATTN_FWD_CUH

#include "kernels/cuda/attn_softmax.cuh"

namespace attn {

enum { QUERIES = 64, THREADS = 128, STAGES = 2 };

struct Fwd {
    const uint16_t *q, *k, *v;     // [T][N][D], [T][K][D], [T][K][D], bf16
    uint16_t *o;                   // [T][N][D]
    float *lse;                    // [N][T] or NULL
    int64_t q_stride, k_stride, v_stride, o_stride;  // elements from token to token
    int N, K;
    Table table;
    Rule rule;
};

template <int D> struct Shape {
    static constexpr int KEYS = D > 128 ? 32 : 64, ROW = D * 2, TILE = KEYS * ROW;
    static constexpr int BYTES = QUERIES * ROW + STAGES * 2 * TILE;
    static constexpr int UNROLL = D > 128 ? 4 : D / 16;  // all 16 steps of D 256 want more registers than there are
};

template <int D> DEVICE void add_values(Sums<D> &s, const float (&x)[Shape<D>::KEYS / 8][4], const unsigned char *v)
{
#pragma unroll
    for (int k = 0; k < Shape<D>::KEYS / 16; k++) {
        uint32_t a[4];
        as_operand(a, x[2 * k], x[2 * k + 1]);
        multiply_columns<D>(s.o, a, v, k * 16, 0);
    }
}

// A tile of keys and values that have come: scores, weights, and their share of the output.
template <int D, bool CAP, Hidden HIDDEN>
DEVICE void add_tile(Sums<D> &s, const Rule &r, const Tile &p, const int (&late)[2], const unsigned char *q, const unsigned char *k)
{
    float x[Shape<D>::KEYS / 8][4], shrink[2];
    clear(x);
    multiply_rows<D, Shape<D>::KEYS / 8, Shape<D>::UNROLL>(x, q, (int)threadIdx.x / 32 * 16, k, 0);
    weigh<Shape<D>::KEYS, CAP, HIDDEN>(x, r, p, late);
    soften<D, Shape<D>::KEYS>(s, x, factor_of<CAP>(r), shrink);
    scale(s, shrink);
    add_values(s, x, k + Shape<D>::TILE);
}

template <int D> DEVICE void write_out(Sums<D> &s, const Fwd &a, const Work &w, int n, float factor)
{
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = warp * 16 + lane / 4 + r * 8;
        const float sum = quad_sum(s.sum[r]);
        const int64_t token = w.seg.start + w.first + row;
        store_row(a.o + token * a.o_stride + (int64_t)n * D, s.o, r, 1 / sum, row < w.n);
        if (a.lse && lane % 4 == 0 && row < w.n) a.lse[(int64_t)n * a.table.T + token] = lse_of(s.most[r], sum, factor);
    }
}

// What a block goes through: tiles of keys `step` of the prefix's and the segment's, in two stages of shared memory.
struct Walk {
    Part prefix, own;
    int steps, kv;
    unsigned char *ring;
};

template <int D> DEVICE void fetch(const Fwd &a, const Walk &l, int step)
{
    constexpr int KEYS = Shape<D>::KEYS, TILE = Shape<D>::TILE;
    const Tile p = tile_at<KEYS>(l.prefix, l.own, step);
    unsigned char *to = l.ring + step % STAGES * 2 * TILE;
    load_rows<D, KEYS>(to, a.k + p.start * a.k_stride + (int64_t)l.kv * D, a.k_stride, p.first, p.len);
    load_rows<D, KEYS>(to + TILE, a.v + p.start * a.v_stride + (int64_t)l.kv * D, a.v_stride, p.first, p.len);
}

template <int D, bool CAP, Hidden HIDDEN> DEVICE void turn(Sums<D> &s, const Fwd &a, const Walk &l, const int (&late)[2], const unsigned char *q, int step)
{
    cp_async_wait<0>();
    __syncthreads();  // this tile has come, and the one before it is read
    if (step + 1 < l.steps) fetch<D>(a, l, step + 1);
    cp_async_commit();
    add_tile<D, CAP, HIDDEN>(s, a.rule, tile_at<Shape<D>::KEYS>(l.prefix, l.own, step), late, q, l.ring + step % STAGES * 2 * Shape<D>::TILE);
}

}  // namespace attn

// Grid: (at most T / 64 + S tiles of queries, N heads). Blocks without a tile end at once.
template <int D, bool CAP> __global__ void __launch_bounds__(attn::THREADS, D > 64 ? 1 : 2) attn_fwd(const attn::Fwd a)
{
    using namespace attn;
    SHARED_MEMORY(q);
    const Work w = find_work(a.table, (int)blockIdx.x, QUERIES);
    if (w.n == 0) return;
    const int n = (int)blockIdx.y, row = (int)threadIdx.x / 32 * 16 + (int)threadIdx.x % 32 / 4;
    const int first = w.seg.pos0 + w.first + row + 1 - first_column(), late[2] = {first, first + 8};
    Walk l = {part_of<Shape<D>::KEYS>(a.rule, w, w.prefix), part_of<Shape<D>::KEYS>(a.rule, w, w.seg), 0, n / (a.N / a.K), q + QUERIES * Shape<D>::ROW};
    l.steps = l.prefix.to - l.prefix.from + l.own.to - l.own.from;
    Sums<D> s;
    begin(s);
    load_rows<D, QUERIES>(q, a.q + w.seg.start * a.q_stride + (int64_t)n * D, a.q_stride, w.first, w.seg.len);
    fetch<D>(a, l, 0);
    cp_async_commit();
    const auto hidden = [&](int step) { return hidden_of<Shape<D>::KEYS>(a.rule, tile_at<Shape<D>::KEYS>(l.prefix, l.own, step), w.seg.pos0 + w.first, QUERIES); };
    for (int step = 0; step < l.steps;) {
        for (; step < l.steps && hidden(step) == NONE; step++) turn<D, CAP, NONE>(s, a, l, late, q, step);
        for (; step < l.steps && hidden(step) == LATE; step++) turn<D, CAP, LATE>(s, a, l, late, q, step);
        for (; step < l.steps && hidden(step) == ANY; step++) turn<D, CAP, ANY>(s, a, l, late, q, step);
    }
    write_out(s, a, w, n, factor_of<CAP>(a.rule));
}

// Tokens of no segment are padding: zero in x[T][width] (bf16), and in lse[N][T] unless it is NULL. Grid: T blocks.
inline __global__ void attn_clear_padding(const attn::Table t, uint16_t *x, int64_t stride, int width, float *lse, int N)
{
    const int token = (int)blockIdx.x;
    for (int s = 0; s < t.S; s++)
        if (token >= t.seg[s].start && token < t.seg[s].start + t.seg[s].len) return;
    for (int i = (int)threadIdx.x; i < width; i += (int)blockDim.x) x[token * stride + i] = 0;
    for (int n = (int)threadIdx.x; lse && n < N; n += (int)blockDim.x) lse[(int64_t)n * t.T + token] = 0;
}

#endif
