// SPDX-License-Identifier: Apache-2.0
// Attention backward with mma.sync (sm_80 and later): op_attn_bwd of kernels/ops.h for bf16.
//
// A block keeps 64 keys and values of one kv head, and dK and dV of them in registers; it goes through the tiles of queries that see them: of
// every query head of the kv head, first their own segment's, then those of the segments whose prefix it is, in table order.
// Everything is computed once, on its side (keys are rows), so that P' and dS' are operands of the next product where they lie:
//
//   S' = K Q'    P' = 2^(S' - lse)    dV += P' dO    dP' = V dO'    dS' = P' (dP' - delta)    dK += dS' Q    dQ += dS K
//
// A tile of queries sums the dQ of its key tiles in their order (prefix first): each warp waits until its part's turn has come, adds, and
// passes it on; the last one writes bf16. Blocks draw tickets, and wait only for lower ones, so that they cannot wait in a circle.
//
//   shared memory   K [64][D] | V | Q0 [QUERIES][D] | dO0 | Q1 | dO1 | dS' [64][QUERIES] | P' (D 128, 256) | lse, delta 2 x [QUERIES] each
//   D 128, 256      two warps share 16 keys: each computes the weights of half of the queries, and dK and dV of half of the columns
#ifndef IMF_CUDA_ATTN_BWD_CUH
#define IMF_CUDA_ATTN_BWD_CUH

#include "kernels/cuda/attn.cuh"

namespace attn_bwd {

using namespace attn;

struct Bwd {
    const uint16_t *q, *k, *v, *o, *dout;  // as in the forward
    uint16_t *dq, *dk, *dv;                // [T][N][D], [T][K][D], [T][K][D], overwritten
    const float *lse;                      // [N][T]
    float *delta;                          // [N][T] scratch: sum of o x dout
    float *sums;                           // dQ so far: N x query tiles x QUERIES x D
    uint32_t *turn;                        // [N][query tiles][WARPS] then the ticket: Shape::turns(...) of them
    int64_t q_stride, k_stride, v_stride, o_stride, dout_stride, dq_stride, dk_stride, dv_stride;
    int N, K, query_tiles;                 // at most T / QUERIES + S
    Table table;
    Rule rule;
};

enum { KEYS = 64 };

template <int D> struct Shape {
    static constexpr int SPLIT = D > 64 ? 2 : 1;       // warps of 16 keys
    static constexpr int QUERIES = D > 128 ? 32 : 64;  // of a tile
    static constexpr int WARPS = KEYS / 16 * SPLIT, THREADS = WARPS * 32;
    static constexpr int MINE = QUERIES / SPLIT, COLUMNS = D / SPLIT;                         // a warp's queries in S', columns of dK and dV
    static constexpr int DQ_PARTS = WARPS / (QUERIES / 16), DQ_COLUMNS = D / DQ_PARTS;        // of a warp's 16 queries of dQ
    static constexpr int ROW = D * 2, TILE = QUERIES * ROW, WEIGHTS = KEYS * QUERIES * 2;     // bytes
    static constexpr int RING = 2 * KEYS * ROW, DS = RING + 4 * TILE, P = DS + WEIGHTS;       // offsets
    static constexpr int STATS = SPLIT > 1 ? P + WEIGHTS : P, BYTES = STATS + 4 * QUERIES * 4;
    static __host__ __device__ constexpr int64_t sums(int N, int query_tiles) { return (int64_t)N * query_tiles * QUERIES * D; }
    static __host__ __device__ constexpr int64_t turns(int N, int query_tiles) { return (int64_t)N * query_tiles * WARPS + 1; }
};

// Where a block is: a tile of queries of one head, and what number it has among all tiles of queries.
struct Visit {
    int head;     // of the kv head's
    int seg, base;  // segment, and the tiles of queries before it
    int tile;     // in the segment
    int order, of;  // this block's key tile is number `order` of `of` that the queries visit
    bool there;   // false: all are done
};

// Does the tile of QUERIES queries see the tile of HEIGHT keys? Its place in the order too.
template <int QUERIES, int HEIGHT> DEVICE bool meets(const Bwd &a, const Work &k, Visit *v)
{
    const Work w = work_at(a.table, v->seg, v->tile, QUERIES);
    const Part prefix = part_of<HEIGHT>(a.rule, w, w.prefix), own = part_of<HEIGHT>(a.rule, w, w.seg);
    const int tile = k.first / HEIGHT, before = prefix.to - prefix.from;
    const bool is_own = v->seg == k.index;
    v->of = before + own.to - own.from;
    v->order = is_own ? before + tile - own.from : tile - prefix.from;
    return is_own ? tile >= own.from && tile < own.to : tile >= prefix.from && tile < prefix.to;
}

// The next tile of queries from `v` on (itself included) that sees the keys.
template <int QUERIES, int HEIGHT> DEVICE Visit settle(const Bwd &a, const Work &k, Visit v)
{
    for (; v.head < a.N / a.K; v.head++, v.seg = 0, v.base = 0)
        for (; v.seg < a.table.S; v.seg++, v.tile = 0) {
            const Seg g = a.table.seg[v.seg];
            const int tiles = tiles_of(g, QUERIES);
            const bool looks = v.seg == k.index || g.prefix == k.index;
            for (; looks && v.tile < tiles; v.tile++)
                if (meets<QUERIES, HEIGHT>(a, k, &v)) return v;
            v.base += tiles;
        }
    v.there = false;
    return v;
}

// Queries, their dO, lse and delta into stage `stage`.
template <int D> DEVICE void fetch(const Bwd &a, const Visit &v, int head, unsigned char *shared, int stage)
{
    using H = Shape<D>;
    const Work w = work_at(a.table, v.seg, v.tile, H::QUERIES);
    unsigned char *q = shared + H::RING + stage * 2 * H::TILE;
    load_rows<D, H::QUERIES>(q, a.q + w.seg.start * a.q_stride + (int64_t)head * D, a.q_stride, w.first, w.seg.len);
    load_rows<D, H::QUERIES>(q + H::TILE, a.dout + w.seg.start * a.dout_stride + (int64_t)head * D, a.dout_stride, w.first, w.seg.len);
    float *stats = (float *)(shared + H::STATS) + stage * 2 * H::QUERIES;
    for (int i = (int)threadIdx.x; i < 2 * H::QUERIES; i += H::THREADS) {
        const int r = i % H::QUERIES;
        const float *from = (i < H::QUERIES ? a.lse : a.delta) + (int64_t)head * a.table.T + w.seg.start + w.first;
        cp_async4(stats + i, from + (r < w.n ? r : 0), r < w.n);
    }
}

// Is there a pair of a query and a key of the tiles that does not see it, or no such key?
template <int D> DEVICE bool is_masked(const Bwd &a, const Work &k, const Work &w)
{
    return k.first + KEYS > k.seg.len || any_hidden(a.rule, w.seg.pos0 + w.first, Shape<D>::QUERIES, k.seg.pos0 + k.first, KEYS);
}

// P' and dS' of a warp's 16 keys and MINE queries, rounded, as operands: 16 queries each.
template <int D> struct Weights {
    uint32_t p[Shape<D>::MINE / 16][4], ds[Shape<D>::MINE / 16][4];
};

template <int D, bool CAP, bool MASKED> DEVICE void weights(Weights<D> &out, const Bwd &a, const Work &k, const Work &w, const unsigned char *shared, int stage)
{
    using H = Shape<D>;
    constexpr int N = H::MINE / 8, UNROLL = D > 128 ? 4 : D / 16;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, row = warp / H::SPLIT * 16, mine = warp % H::SPLIT * H::MINE;
    const unsigned char *q = shared + H::RING + stage * 2 * H::TILE;
    const float *lse = (const float *)(shared + H::STATS) + stage * 2 * H::QUERIES, *delta = lse + H::QUERIES;
    const int query_pos = w.seg.pos0 + w.first, key_pos = k.seg.pos0 + k.first;
    float s[N][4], dp[N][4];
    clear(s);
    clear(dp);
    multiply_rows<D, N, UNROLL>(s, shared, row, q, mine);
    multiply_rows<D, N, UNROLL>(dp, shared + KEYS * H::ROW, row, q + H::TILE, mine);
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int query = mine + j * 8 + lane % 4 * 2 + i % 2, key = row + lane / 4 + i / 2 * 8;
            const bool seen = !MASKED || (k.first + key < k.seg.len && sees(a.rule, query_pos + query, key_pos + key));
            float slope;
            const float p = ex2(fmaf(score_of<CAP>(a.rule, s[j][i], &slope), factor_of<CAP>(a.rule), -lse[query] * LOG2E));
            s[j][i] = seen ? p : 0;
            dp[j][i] = seen ? p * (dp[j][i] - delta[query]) * slope : 0;
        }
#pragma unroll
    for (int j = 0; j < N / 2; j++) {
        as_operand(out.p[j], s[2 * j], s[2 * j + 1]);
        as_operand(out.ds[j], dp[2 * j], dp[2 * j + 1]);
    }
}

// A warp's operands into [64 keys][QUERIES].
template <int D> DEVICE void put_weights(unsigned char *to, const uint32_t (&x)[Shape<D>::MINE / 16][4])
{
    using H = Shape<D>;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, row = warp / H::SPLIT * 16, column = warp % H::SPLIT * H::MINE / 8;
#pragma unroll
    for (int j = 0; j < H::MINE / 16; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            *(uint32_t *)(to + at<H::QUERIES>(row + lane / 4 + i % 2 * 8, column + j * 2 + i / 2) + lane % 4 * 4) = x[j][i];
}

// sum[16 keys][COLUMNS] += weights[16 keys][QUERIES] . x[QUERIES][D]: the weights lie in registers, or in shared memory where two warps made them.
template <int D>
DEVICE void add_rows(float (&sum)[Shape<D>::COLUMNS / 8][4], const uint32_t (&mine)[Shape<D>::MINE / 16][4], const unsigned char *all, const unsigned char *x)
{
    using H = Shape<D>;
    const int warp = (int)threadIdx.x / 32, column = warp % H::SPLIT * H::COLUMNS / 8;
#pragma unroll
    for (int j = 0; j < H::QUERIES / 16; j++) {
        if constexpr (H::SPLIT == 1) {
            multiply_columns<D>(sum, mine[j], x, j * 16, column);
        } else {
            uint32_t a[4];
            load_a<H::QUERIES>(a, all, warp / H::SPLIT * 16, j * 2);
            multiply_columns<D>(sum, a, x, j * 16, column);
        }
    }
}

// A warp's sums for 16 queries and 8 N columns of dQ: added to what lower key tiles have left in `sums` (the lane's place), or written, to dq (bf16, the
// lane's first two) and 8 rows on. first: the lane's first row, of n. Loops without branches: their loads are in flight together. A store of dq is half a
// sector and the next one the other half: with store_row's exchange the loop has 5 % more instructions, and registers are spilled.
template <int N> DEVICE void pass_on(const Bwd &a, int order, int of, float (&x)[N][4], float *sums, uint32_t *dq, int first, int n)
{
    if (order > 0) {
#pragma unroll
        for (int j = 0; j < N; j++) {
            const float4 before = ld_v4(sums + j * 128);
            x[j][0] += before.x, x[j][1] += before.y, x[j][2] += before.z, x[j][3] += before.w;
        }
    }
    if (order + 1 < of) {
#pragma unroll
        for (int j = 0; j < N; j++) st_v4(sums + j * 128, {x[j][0], x[j][1], x[j][2], x[j][3]});
        return;
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        if (first + r * 8 >= n) return;
#pragma unroll
        for (int j = 0; j < N; j++) dq[j * 4] = pack_bf16(x[j][2 * r] * a.rule.scale, x[j][2 * r + 1] * a.rule.scale);
        dq += 4 * a.dq_stride;
    }
}

// 8 N columns (from 8 x column on) of a warp's 16 queries of dQ: dS K, added to what lower key tiles have left, or written.
template <int D, int N> DEVICE void add_dq(const Bwd &a, const Visit &v, const Work &w, int head, const unsigned char *shared, int column, float *sums)
{
    using H = Shape<D>;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, row = warp / H::DQ_PARTS * 16;
    float x[N][4];
    clear(x);
#pragma unroll
    for (int j = 0; j < KEYS / 16; j++) {
        uint32_t ds[4];
        ldmatrix_x4_trans(ds, shared + H::DS + at<H::QUERIES>(j * 16 + lane / 16 * 8 + lane % 8, row / 8 + lane / 8 % 2));
        multiply_columns<D>(x, ds, shared, j * 16, column);
    }
    const int first = row + lane / 4;
    uint32_t *dq = (uint32_t *)(a.dq + (w.seg.start + w.first + first) * a.dq_stride + (int64_t)head * D) + column * 4 + lane % 4;
    pass_on(a, v.order, v.of, x, sums + lane * 4, dq, first, w.n);
}

// This block's part of dQ, when its turn has come.
template <int D> DEVICE void pass_dq(const Bwd &a, const Visit &v, const Work &w, int head, const unsigned char *shared)
{
    using H = Shape<D>;
    constexpr int N = H::DQ_COLUMNS / 8 > 8 ? 8 : H::DQ_COLUMNS / 8;
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    const int64_t part = ((int64_t)head * a.query_tiles + v.base + v.tile) * H::WARPS + warp;
    if (v.order > 0 && lane == 0) spin_until(a.turn + part, (uint32_t)v.order);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < H::DQ_COLUMNS / 8 / N; i++)
        add_dq<D, N>(a, v, w, head, shared, warp % H::DQ_PARTS * (H::DQ_COLUMNS / 8) + i * N, a.sums + (part * (H::DQ_COLUMNS / 8) + i * N) * 32 * 4);
    __syncwarp();
    if (v.order + 1 < v.of && lane == 0) st_release(a.turn + part, (uint32_t)v.order + 1);
}

// A warp's 16 rows, from `row` on, of those that there are: n.
template <int N> DEVICE void write_rows(uint16_t *to, int64_t stride, const float (&sum)[N][4], float factor, int row, int n)
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int here = row + (int)threadIdx.x % 32 / 4 + r * 8;
        store_row(to + here * stride, sum, r, factor, here < n);
    }
}

// delta[n][t] = sum of o x dout, a warp each; and all `turns` turns begin at 0.
template <int D> DEVICE void prepare(const Bwd &a, int64_t turns)
{
    const int64_t thread = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, threads = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = thread; i < turns; i += threads) a.turn[i] = 0;
    const int64_t token = thread / 32 / a.N, n = thread / 32 % a.N;
    if (token >= a.table.T) return;
    const uint32_t *o = (const uint32_t *)(a.o + token * a.o_stride + n * D), *dout = (const uint32_t *)(a.dout + token * a.dout_stride + n * D);
    float sum = 0;
#pragma unroll
    for (int i = (int)threadIdx.x % 32; i < D / 2; i += 32) {
        const uint32_t x = o[i], y = dout[i];
        sum = fmaf(low_bf16(x), low_bf16(y), sum);
        sum = fmaf(high_bf16(x), high_bf16(y), sum);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) a.delta[n * a.table.T + token] = sum;
}

}  // namespace attn_bwd

// Grid: T x N warps.
template <int D> __global__ void attn_bwd_prepare(const attn_bwd::Bwd a)
{
    attn_bwd::prepare<D>(a, attn_bwd::Shape<D>::turns(a.N, a.query_tiles));
}

// Grid: K x (at most T / 64 + S tiles of keys). Blocks without a tile end at once.
template <int D, bool CAP> __global__ void __launch_bounds__(attn_bwd::Shape<D>::THREADS, 1) attn_bwd_main(const attn_bwd::Bwd a)
{
    using namespace attn_bwd;
    using H = attn_bwd::Shape<D>;
    SHARED_MEMORY(shared);
    uint32_t *ticket = (uint32_t *)(shared + H::STATS);
    if (threadIdx.x == 0) *ticket = atom_add_acq_rel(a.turn + H::turns(a.N, a.query_tiles) - 1, 1);
    __syncthreads();
    const int number = (int)*ticket / a.K, kv = (int)*ticket % a.K;
    __syncthreads();
    const Work k = find_work(a.table, number, KEYS);
    if (k.n == 0) return;
    load_rows<D, KEYS>(shared, a.k + k.seg.start * a.k_stride + (int64_t)kv * D, a.k_stride, k.first, k.seg.len);
    load_rows<D, KEYS>(shared + KEYS * H::ROW, a.v + k.seg.start * a.v_stride + (int64_t)kv * D, a.v_stride, k.first, k.seg.len);
    float dk[H::COLUMNS / 8][4], dv[H::COLUMNS / 8][4];
    clear(dk);
    clear(dv);
    Visit now = settle<H::QUERIES, KEYS>(a, k, {0, 0, 0, 0, 0, 0, true});
    if (now.there) fetch<D>(a, now, kv * (a.N / a.K) + now.head, shared, 0);
    cp_async_commit();
    for (int stage = 0; now.there; stage ^= 1) {
        cp_async_wait<0>();
        __syncthreads();  // these queries have come, and those before are done with
        const Work w = work_at(a.table, now.seg, now.tile, H::QUERIES);
        const unsigned char *q = shared + H::RING + stage * 2 * H::TILE;
        Weights<D> x;
        if (is_masked<D>(a, k, w)) weights<D, CAP, true>(x, a, k, w, shared, stage);
        else weights<D, CAP, false>(x, a, k, w, shared, stage);
        put_weights<D>(shared + H::DS, x.ds);
        if constexpr (H::SPLIT > 1) put_weights<D>(shared + H::P, x.p);
        __syncthreads();
        Visit next = now;  // not before: registers are short above
        next.tile++;
        next = settle<H::QUERIES, KEYS>(a, k, next);
        if (next.there) fetch<D>(a, next, kv * (a.N / a.K) + next.head, shared, stage ^ 1);
        cp_async_commit();
        add_rows<D>(dv, x.p, shared + H::P, q + H::TILE);
        add_rows<D>(dk, x.ds, shared + H::DS, q);
        pass_dq<D>(a, now, w, kv * (a.N / a.K) + now.head, shared);
        now = next;
    }
    const int64_t token = k.seg.start + k.first;
    const int warp = (int)threadIdx.x / 32, row = warp / H::SPLIT * 16, column = warp % H::SPLIT * H::COLUMNS;
    write_rows(a.dk + token * a.dk_stride + (int64_t)kv * D + column, a.dk_stride, dk, a.rule.scale, row, k.n);
    write_rows(a.dv + token * a.dv_stride + (int64_t)kv * D + column, a.dv_stride, dv, 1, row, k.n);
}

#endif
