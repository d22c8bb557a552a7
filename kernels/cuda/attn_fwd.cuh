// SPDX-License-Identifier: Apache-2.0
// Attention forward with mma.sync (sm_80 and later): op_attn_fwd of kernels/ops.h for bf16.
//
// A block computes 64 queries of one head, a warp 16 of them. Keys come in tiles, first those of the prefix segment, then the
// segment's own up to the last query; keys and values of the next tile are on their way (cp.async) while this one is computed.
// Softmax is online (Milakov and Gimelshein 2018; FlashAttention-2, Dao 2023), in powers of two. Tiles of queries begin at their segment's
// first token and tiles of keys at their part's, so a row's bits depend on its segment and prefix alone.
//
//   shared memory   Q [64][D] | K0 [KEYS][D] | V0 | K1 | V1
//   registers       scores [KEYS / 8][4], output [D / 8][4] a lane, as mma lays them out: rows lane / 4 and + 8
#ifndef IMF_CUDA_ATTN_FWD_CUH
#define IMF_CUDA_ATTN_FWD_CUH

#include "kernels/cuda/attn.cuh"

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

// A tile of keys; tile number `step` of the prefix's and the segment's.
struct Tile {
    int start, len, pos0;  // of its segment
    int first;             // key, counted in the segment
};

template <int D> DEVICE Tile tile_at(const Part &prefix, const Part &own, int step)
{
    const int of_prefix = prefix.to - prefix.from;
    const bool in_prefix = step < of_prefix;
    return {in_prefix ? prefix.start : own.start, in_prefix ? prefix.len : own.len, in_prefix ? prefix.pos0 : own.pos0,
            (in_prefix ? prefix.from + step : own.from + step - of_prefix) * Shape<D>::KEYS};
}

// What a warp has so far of its 16 queries: two rows a lane.
template <int D> struct Sums {
    float o[D / 8][4];
    float most[2], sum[2];  // in powers of two
};

template <int D> DEVICE void begin(Sums<D> &s)
{
    clear(s.o);
    s.most[0] = s.most[1] = -INFINITY;
    s.sum[0] = s.sum[1] = 0;
}

// Scores of products; -inf where the query does not see the key. pos: of the queries in the lane's two rows.
template <int D> DEVICE void weigh(float (&x)[Shape<D>::KEYS / 8][4], const Rule &r, const Tile &p, const int (&pos)[2], bool masked)
{
    const int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < Shape<D>::KEYS / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int key = p.first + j * 8 + lane % 4 * 2 + i % 2;
            const bool seen = key < p.len && sees(r, pos[i / 2], p.pos0 + key);
            float slope;
            x[j][i] = masked && !seen ? -INFINITY : score_of(r, x[j][i], &slope);
        }
}

// Scores become weights relative to the greatest so far; what was summed before is scaled to it.
template <int D> DEVICE void soften(Sums<D> &s, float (&x)[Shape<D>::KEYS / 8][4])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float most = s.most[r], sum = 0;
#pragma unroll
        for (int j = 0; j < Shape<D>::KEYS / 8; j++) most = fmaxf(most, fmaxf(x[j][2 * r], x[j][2 * r + 1]));
        most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
        most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
        const float base = most == -INFINITY ? 0 : most, shrink = ex2(s.most[r] - base);
#pragma unroll
        for (int j = 0; j < Shape<D>::KEYS / 8; j++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                x[j][2 * r + e] = ex2(x[j][2 * r + e] - base);
                sum += x[j][2 * r + e];
            }
        s.most[r] = most;
        s.sum[r] = s.sum[r] * shrink + sum;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            s.o[j][2 * r] *= shrink;
            s.o[j][2 * r + 1] *= shrink;
        }
    }
}

template <int D> DEVICE void add_values(Sums<D> &s, const float (&x)[Shape<D>::KEYS / 8][4], const unsigned char *v)
{
#pragma unroll
    for (int k = 0; k < Shape<D>::KEYS / 16; k++) {
        uint32_t a[4];
        as_operand(a, x[2 * k], x[2 * k + 1]);
        multiply_columns<D>(s.o, a, v, k * 16, 0);
    }
}

template <int D> DEVICE void write_out(Sums<D> &s, const Fwd &a, const Work &w, int n)
{
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = warp * 16 + lane / 4 + r * 8;
        float sum = s.sum[r];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (row >= w.n) continue;
        const int64_t token = w.seg.start + w.first + row;
        uint32_t *o = (uint32_t *)(a.o + token * a.o_stride + (int64_t)n * D);
        const float inverse = 1 / sum;
#pragma unroll
        for (int j = 0; j < D / 8; j++) o[j * 4 + lane % 4] = pack_bf16(s.o[j][2 * r] * inverse, s.o[j][2 * r + 1] * inverse);
        if (a.lse && lane % 4 == 0) a.lse[(int64_t)n * a.table.T + token] = (s.most[r] + lg2(sum)) * LN2;
    }
}

}  // namespace attn

// Grid: (at most T / 64 + S tiles of queries, N heads). Blocks without a tile end at once.
template <int D> __global__ void __launch_bounds__(attn::THREADS, D > 64 ? 1 : 2) attn_fwd(const attn::Fwd a)
{
    using namespace attn;
    constexpr int KEYS = Shape<D>::KEYS, TILE = Shape<D>::TILE;
    SHARED_MEMORY(shared);
    const Work w = find_work(a.table, (int)blockIdx.x, QUERIES);
    if (w.n == 0) return;
    const int n = (int)blockIdx.y, kv = n / (a.N / a.K), warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    unsigned char *q = shared, *ring = shared + QUERIES * Shape<D>::ROW;
    const Part prefix = part_of<KEYS>(a.rule, w, w.prefix), own = part_of<KEYS>(a.rule, w, w.seg);
    const int steps = prefix.to - prefix.from + own.to - own.from;
    const auto fetch = [&](int step) {
        const Tile p = tile_at<D>(prefix, own, step);
        unsigned char *to = ring + step % STAGES * 2 * TILE;
        load_rows<D, KEYS>(to, a.k + p.start * a.k_stride + (int64_t)kv * D, a.k_stride, p.first, p.len);
        load_rows<D, KEYS>(to + TILE, a.v + p.start * a.v_stride + (int64_t)kv * D, a.v_stride, p.first, p.len);
    };
    const int pos = w.seg.pos0 + w.first + warp * 16 + lane / 4, row_pos[2] = {pos, pos + 8};
    Sums<D> s;
    begin(s);
    load_rows<D, QUERIES>(q, a.q + w.seg.start * a.q_stride + (int64_t)n * D, a.q_stride, w.first, w.seg.len);
    fetch(0);
    cp_async_commit();
    for (int step = 0; step < steps; step++) {
        cp_async_wait<0>();
        __syncthreads();  // this tile has come, and the one before it is read
        if (step + 1 < steps) fetch(step + 1);
        cp_async_commit();
        const Tile p = tile_at<D>(prefix, own, step);
        const unsigned char *k = ring + step % STAGES * 2 * TILE;
        const int low = w.seg.pos0 + w.first;  // position
        const bool masked = p.first + KEYS > p.len || any_hidden(a.rule, low, QUERIES, p.pos0 + p.first, KEYS);
        float x[KEYS / 8][4];
        clear(x);
        multiply_rows<D, KEYS / 8, Shape<D>::UNROLL>(x, q, warp * 16, k, 0);
        weigh<D>(x, a.rule, p, row_pos, masked);
        soften(s, x);
        add_values(s, x, k + TILE);
    }
    write_out(s, a, w, n);
}

#endif
