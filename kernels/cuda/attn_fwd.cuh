// SPDX-License-Identifier: Apache-2.0
// Attention forward with mma.sync (sm_80 and later): op_attn_fwd of kernels/ops.h for bf16.
//
// A block computes 64 queries of one head, a warp 16 of them. Keys come in tiles, first those of the prefix segment, then the
// segment's own up to the last query; keys and values of the next tile are on their way (cp.async) while this one is computed.
// Softmax is online (Milakov and Gimelshein 2018; FlashAttention-2, Dao 2023), in powers of two. Tiles of queries begin at their segment's
// first token and tiles of keys at their part's, so a row's bits depend on its segment and prefix alone.
//
//   shared memory   Q [64][D] | K0 [KEYS][D] | V0 | K1 | V1        16-byte columns of a row are exchanged by row % 8 (no conflicts)
//   registers       scores [KEYS / 8][4], output [D / 8][4] a lane, as mma lays them out: rows lane / 4 and + 8
#ifndef IMF_CUDA_ATTN_FWD_CUH
#define IMF_CUDA_ATTN_FWD_CUH

#include "kernels/cuda/ptx.cuh"

namespace attn {

enum { QUERIES = 64, THREADS = 128, STAGES = 2 };

// As in kernels/ops.h.
struct Seg {
    int32_t start, len, prefix, pos0;
};

struct Fwd {
    const uint16_t *q, *k, *v;     // [T][N][D], [T][K][D], [T][K][D], bf16
    uint16_t *o;                   // [T][N][D]
    float *lse;                    // [N][T] or NULL
    const Seg *seg;                // [S]
    int64_t q_stride, k_stride, v_stride, o_stride;  // elements from token to token
    int T, S, N, K;
    float scale, softcap;
    int window;
};

template <int D> struct Shape {
    static constexpr int KEYS = D > 128 ? 32 : 64, ROW = D * 2, TILE = KEYS * ROW;
    static constexpr int BYTES = QUERIES * ROW + STAGES * 2 * TILE;
};

// The queries of a block: tile number `tile` of all segments' tiles. n = 0: there is no such tile.
struct Work {
    Seg seg, prefix;  // prefix.len = 0: none
    int first, n;     // queries, counted in the segment
};

DEVICE Work find_work(const Fwd &a, int tile)
{
    Work w = {};
    for (int s = 0; s < a.S; s++) {
        const Seg g = a.seg[s];
        const int tiles = (g.len + QUERIES - 1) / QUERIES;
        if (tile < tiles) {
            w.seg = g;
            w.first = tile * QUERIES;
            w.n = g.len - w.first < QUERIES ? g.len - w.first : QUERIES;
            if (g.prefix >= 0) w.prefix = a.seg[g.prefix];
            return w;
        }
        tile -= tiles;
    }
    return w;
}

// Byte offset of 16-byte column c of row r.
template <int D> DEVICE int at(int r, int c) { return r * Shape<D>::ROW + (c ^ r % 8) * 16; }

// Rows [first, first + ROWS) of a head, zeros from row `len` on.
template <int D, int ROWS> DEVICE void load_rows(unsigned char *to, const uint16_t *from, int64_t stride, int first, int len)
{
    for (int i = (int)threadIdx.x; i < ROWS * (D / 8); i += THREADS) {
        const int r = i / (D / 8), c = i % (D / 8);
        const bool there = first + r < len;
        cp_async16(to + at<D>(r, c), from + (there ? first + r : 0) * stride + c * 8, there);
    }
}

// The keys that a block visits: tiles [from, to) of one segment.
struct Part {
    int start, len, pos0, from, to;
};

// Tiles with a key that some query of the block sees.
template <int D> DEVICE Part part_of(const Fwd &a, const Work &w, const Seg &g)
{
    constexpr int KEYS = Shape<D>::KEYS;
    const int low = w.seg.pos0 + w.first, high = low + w.n - 1;  // positions of the queries
    int keys = high - g.pos0 + 1 < g.len ? high - g.pos0 + 1 : g.len;
    int begin = a.window > 0 && low - a.window + 1 > g.pos0 ? low - a.window + 1 - g.pos0 : 0;
    if (keys < 0) keys = 0;
    if (begin > keys) begin = keys;
    return {g.start, g.len, g.pos0, begin / KEYS, (keys + KEYS - 1) / KEYS};
}

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

template <int D> DEVICE void clear(Sums<D> &s)
{
#pragma unroll
    for (int j = 0; j < D / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) s.o[j][i] = 0;
    s.most[0] = s.most[1] = -INFINITY;
    s.sum[0] = s.sum[1] = 0;
}

template <int D> DEVICE void scores(float (&x)[Shape<D>::KEYS / 8][4], const unsigned char *q, const unsigned char *k)
{
    constexpr int KEYS = Shape<D>::KEYS;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) x[j][i] = 0;
#pragma unroll(D > 128 ? 4 : D / 16)  // all 16 of D 256 want more registers than there are
    for (int d = 0; d < D / 16; d++) {
        uint32_t a[4];
        ldmatrix_x4(a, q + at<D>(warp * 16 + lane % 16, d * 2 + lane / 16));
#pragma unroll
        for (int j = 0; j < KEYS / 16; j++) {
            uint32_t b[4];
            ldmatrix_x4(b, k + at<D>(j * 16 + lane / 16 * 8 + lane % 8, d * 2 + lane / 8 % 2));
            mma_m16n8k16(x[2 * j], a, b);
            mma_m16n8k16(x[2 * j + 1], a, b + 2);
        }
    }
}

DEVICE float capped(const Fwd &a, float s)
{
    constexpr float LOG2E = 1.44269504f;
    s *= a.scale;
    if (a.softcap > 0) s = a.softcap * (1 - 2 * rcp(ex2(s / a.softcap * (2 * LOG2E)) + 1));  // tanh
    return s * LOG2E;
}

// Scale and soft-cap; -inf where the query does not see the key. pos: of the lane's first row; the second is 8 further.
template <int D> DEVICE void weigh(float (&x)[Shape<D>::KEYS / 8][4], const Fwd &a, const Tile &p, int pos, bool masked)
{
    const int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < Shape<D>::KEYS / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int key = p.first + j * 8 + lane % 4 * 2 + i % 2, query_pos = pos + i / 2 * 8, key_pos = p.pos0 + key;
            const bool seen = key < p.len && key_pos <= query_pos && (a.window <= 0 || key_pos > query_pos - a.window);
            x[j][i] = masked && !seen ? -INFINITY : capped(a, x[j][i]);
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
    const int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < Shape<D>::KEYS / 16; k++) {
        const uint32_t a[4] = {pack_bf16(x[2 * k][0], x[2 * k][1]), pack_bf16(x[2 * k][2], x[2 * k][3]),
                               pack_bf16(x[2 * k + 1][0], x[2 * k + 1][1]), pack_bf16(x[2 * k + 1][2], x[2 * k + 1][3])};
#pragma unroll
        for (int j = 0; j < D / 16; j++) {
            uint32_t b[4];
            ldmatrix_x4_trans(b, v + at<D>(k * 16 + lane / 8 % 2 * 8 + lane % 8, j * 2 + lane / 16));
            mma_m16n8k16(s.o[2 * j], a, b);
            mma_m16n8k16(s.o[2 * j + 1], a, b + 2);
        }
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
        if (a.lse && lane % 4 == 0) a.lse[(int64_t)n * a.T + token] = (s.most[r] + lg2(sum)) * 0.69314718f;
    }
}

}  // namespace attn

// Grid: (at most T / 64 + S tiles of queries, N heads). Blocks without a tile end at once.
template <int D> __global__ void __launch_bounds__(attn::THREADS, D > 64 ? 1 : 2) attn_fwd(const attn::Fwd a)
{
    using namespace attn;
    constexpr int KEYS = Shape<D>::KEYS, TILE = Shape<D>::TILE;
    SHARED_MEMORY(shared);
    const Work w = find_work(a, (int)blockIdx.x);
    if (w.n == 0) return;
    const int n = (int)blockIdx.y, kv = n / (a.N / a.K), warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    unsigned char *q = shared, *ring = shared + QUERIES * Shape<D>::ROW;
    const Part prefix = part_of<D>(a, w, w.prefix), own = part_of<D>(a, w, w.seg);
    const int steps = prefix.to - prefix.from + own.to - own.from;
    const auto fetch = [&](int step) {
        const Tile p = tile_at<D>(prefix, own, step);
        unsigned char *to = ring + step % STAGES * 2 * TILE;
        load_rows<D, KEYS>(to, a.k + p.start * a.k_stride + (int64_t)kv * D, a.k_stride, p.first, p.len);
        load_rows<D, KEYS>(to + TILE, a.v + p.start * a.v_stride + (int64_t)kv * D, a.v_stride, p.first, p.len);
    };
    Sums<D> s;
    clear(s);
    load_rows<D, QUERIES>(q, a.q + w.seg.start * a.q_stride + (int64_t)n * D, a.q_stride, w.first, w.seg.len);
    fetch(0);
    cp_async_commit();
    for (int step = 0; step < steps; step++) {
        if (step + 1 < steps) fetch(step + 1);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        const Tile p = tile_at<D>(prefix, own, step);
        const unsigned char *k = ring + step % STAGES * 2 * TILE;
        const int low = w.seg.pos0 + w.first, first_key = p.pos0 + p.first;  // positions
        const bool masked = p.first + KEYS > p.len || first_key + KEYS - 1 > low || (a.window > 0 && first_key <= low + QUERIES - 1 - a.window);
        float x[KEYS / 8][4];
        scores<D>(x, q, k);
        weigh<D>(x, a, p, low + warp * 16 + lane / 4, masked);
        soften(s, x);
        add_values(s, x, k + TILE);
        __syncthreads();
    }
    write_out(s, a, w, n);
}

// Tokens of no segment are padding: their outputs are zero. Grid: T / threads.
__global__ void attn_clear_padding(const attn::Fwd a, int D)
{
    const int t = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (t >= a.T) return;
    for (int s = 0; s < a.S; s++)
        if (t >= a.seg[s].start && t < a.seg[s].start + a.seg[s].len) return;
    for (int i = 0; i < a.N * D; i++) a.o[t * a.o_stride + i] = 0;
    for (int n = 0; a.lse && n < a.N; n++) a.lse[(int64_t)n * a.T + t] = 0;
}

#endif
