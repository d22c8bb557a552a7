// SPDX-License-Identifier: Apache-2.0
// Attention backward for Hopper, heads of 256: what attn_bwd_sm90.cuh computes, with other shares of the work.
//
// A block keeps 64 keys, since dK or dV of them alone are half of a thread's registers. So one warpgroup has the values' side and the other the keys';
// they hold S' and dP' of the same keys and queries, and a thread of the second finds P' where the thread of the first has parked it:
//
//   values   S' = K Q'    P' = 2^(S' - lse), parked    dV += P' dO     then both: dQ = dS K of 64 queries each, 64 columns at a time
//   keys     dP' = V dO'  dS' = P' (dP' - delta)       dK += dS' Q
//
//   shared memory   K [4][64][64] | V | Q [4][128][64] | dO | P' and dS' [64][128] | lse, delta of a tile | Step | barriers
//   registers       S' or dP' [16][4], dV or dK [32][4], P' or dS' [8][4] (bf16), dQ [8][4] a lane
//
// There is room for one tile only. Queries and their dO have a barrier each for "full" and "empty", and the next ones come while dQ is made, which
// wants neither.
#ifndef IMF_CUDA_ATTN_BWD_WIDE_SM90_CUH
#define IMF_CUDA_ATTN_BWD_WIDE_SM90_CUH

#include "kernels/cuda/attn_bwd_parts_sm90.cuh"

namespace attn_bwd_sm90 {

enum { WIDE = 256, PARKED = OWN };      // PARKED: a named barrier
enum { OF_QUERIES, OF_DOUT };           // barriers
enum Side { VALUES_SIDE, KEYS_SIDE };

DEVICE void fetch_all_wide(const Bwd &b, const Work &k, int kv, const Places<WIDE> &s)
{
    using H = Shape<WIDE>;
    const bool is_first = threadIdx.x == 0;
    if (is_first) fetch_keys<WIDE>(b, k, kv, s);
    Visit v = {0, 0, 0, 0, 0, 0, true};
    for (int number = 0; v.there; number++) {
        v = attn_bwd::settle<H::QUERIES, H::KEYS>(b.a, k, v);
        const Step t = step_of<WIDE>(b, k, v, kv * (b.a.N / b.a.K) + v.head);
        mbar_wait(s.empty + OF_DOUT, parity_of<WIDE>(number) ^ 1);
        if (is_first && v.there) {
            mbar_arrive_expect(s.full + OF_DOUT, H::TILE);
            fetch_tile<WIDE>(s.ring + H::TILE, &b.dout, t, s.full + OF_DOUT);
        }
        mbar_wait(s.empty + OF_QUERIES, parity_of<WIDE>(number) ^ 1);
        if (v.there) fetch_stats<WIDE>(b, t, s.stats);
        if (is_first) *s.step = t;
        __syncwarp();
        if (is_first && v.there) {
            mbar_arrive_expect(s.full + OF_QUERIES, H::TILE);
            fetch_tile<WIDE>(s.ring, &b.q, t, s.full + OF_QUERIES);
        }
        if (is_first && !v.there) mbar_arrive(s.full + OF_QUERIES);
        v.tile++;
    }
}

// A warpgroup's sums: dV or dK.
struct Half {
    int thread;  // among the computing ones
    float sum[WIDE / 8][4];
};

// P' as operands, and parked; dV is under way.
template <bool CAP> DEVICE void add_values(Half &g, Operands<WIDE> &p, const Bwd &b, const Places<WIDE> &s, int number)
{
    using H = Shape<WIDE>;
    float x[H::QUERIES / 8][4];
    multiply_tile<WIDE>(x, s.k, s.ring);
    wgmma_wait<0>();
    hold(x);
    make_weights<WIDE, CAP>(p, x, b.a.rule, *s.step, s.keys->n, g.thread, s.stats + column_of(g.thread) * 2, parked_by(s.ds, g.thread));
    bar_arrive(PARKED, GROUP * GROUPS);
    mbar_wait(s.full + OF_DOUT, parity_of<WIDE>(number));
    add_rows<WIDE>(g.sum, p, s.ring + H::TILE);
}

// dS' as operands, and in shared memory; dK is under way.
DEVICE void add_keys(Half &g, Operands<WIDE> &slopes, const Places<WIDE> &s, int number)
{
    using H = Shape<WIDE>;
    float x[H::QUERIES / 8][4];
    mbar_wait(s.full + OF_DOUT, parity_of<WIDE>(number));
    multiply_tile<WIDE>(x, s.v, s.ring + H::TILE);
    wgmma_wait<0>();
    hold(x);
    give_back(s.empty + OF_DOUT);
    bar_sync(PARKED, GROUP * GROUPS);
    const unsigned char *parked = parked_by(s.ds, g.thread % GROUP);
    const float *stats = s.stats + column_of(g.thread) * 2;
#pragma unroll
    for (int k = 0; k < H::QUERIES / 16; k++) {
        slope_of(x[2 * k], x[2 * k + 1], parked + k * PARKED_STEP, stats + k * 32);
        as_operand(slopes[k], x[2 * k], x[2 * k + 1]);
        put_weights<H::QUERIES>(s.ds + H::WEIGHTS, slopes[k], k, g.thread % GROUP);
    }
    add_rows<WIDE>(g.sum, slopes, s.ring);
}

// A tile of queries. false: there was none. P' and dS' of the last one are read: by dQ, behind which both warpgroups park or wait for what is parked.
template <Side SIDE, bool CAP> DEVICE bool turn_wide(Half &g, const Bwd &b, const Places<WIDE> &s, int number)
{
    using H = Shape<WIDE>;
    forget(g.thread);
    mbar_wait(s.full + OF_QUERIES, parity_of<WIDE>(number));
    const int n = s.step->n;
    if (n == 0) return false;
    if (n < H::QUERIES) mbar_wait(s.full + OF_DOUT, parity_of<WIDE>(number));
    clear_rows<WIDE, 2>(g.thread, s.ring, n, H::QUERIES, H::PANEL_BYTES, CLEARED);
    Operands<WIDE> x;
    if constexpr (SIDE == VALUES_SIDE) add_values<CAP>(g, x, b, s, number);
    else add_keys(g, x, s, number);
    bar_sync(WEIGHED, GROUP * GROUPS);
    wgmma_wait<0>();
    hold(g.sum);
    const Step t = *s.step;
    __syncwarp();  // every lane has read its step
    give_back(s.empty + OF_QUERIES);
    if (SIDE == VALUES_SIDE) give_back(s.empty + OF_DOUT);
    forget(g.thread);
    add_dq<WIDE>(b, s, s.ds + H::WEIGHTS, t, g.thread, [] {});
    return true;
}

template <Side SIDE, bool CAP> DEVICE void compute_side(const Bwd &b, const Places<WIDE> &s, int warp)
{
    using H = Shape<WIDE>;
    Half g;
    g.thread = warp * 32 + (int)threadIdx.x % 32;
    clear(g.sum);
    mbar_wait(s.kv_full, 0);
    clear_rows<WIDE, 2>(g.thread, s.k, s.keys->n, H::KEYS, H::KEYS_PANEL, CLEARED);
    for (int number = 0; turn_wide<SIDE, CAP>(g, b, s, number);) number++;
    const Keys k = *s.keys;
    const int row = g.thread % GROUP / 32 * 16;
    if (SIDE == VALUES_SIDE) attn_bwd::write_rows(b.a.dv + k.token * b.a.dv_stride + (int64_t)k.kv * WIDE, b.a.dv_stride, g.sum, 1, row, k.n);
    else attn_bwd::write_rows(b.a.dk + k.token * b.a.dk_stride + (int64_t)k.kv * WIDE, b.a.dk_stride, g.sum, b.a.rule.scale, row, k.n);
}

template <bool CAP> DEVICE void compute_wide(const Bwd &b, const Places<WIDE> &s, int warp)
{
    if (warp < GROUP / 32) compute_side<VALUES_SIDE, CAP>(b, s, warp);
    else compute_side<KEYS_SIDE, CAP>(b, s, warp);
}

}  // namespace attn_bwd_sm90

#endif
