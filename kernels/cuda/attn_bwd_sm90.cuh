// SPDX-License-Identifier: Apache-2.0
// Attention backward for Hopper (sm_90a: TMA, wgmma, warp specialisation): what attn_bwd.cuh computes. Heads of 256: attn_bwd_wide_sm90.cuh.
//
// A block keeps 128 keys and values of one kv head; two warpgroups compute, each with dK and dV of 64 keys in registers, and a warp fetches. It alone walks
// through the tiles of 128 queries that see the keys, and leaves with each what the others have to know of it (Step). Keys are rows, as in attn_bwd.cuh:
//
//   S' = K Q'   wgmma, 128 columns             P' = 2^(S' - lse), bf16; fp16 parked in shared memory
//   dV += P' dO   dP' = V dO'   wgmma          dS' = P' (dP' - delta), in place of P'
//   dK += dS' Q   wgmma, P' and dS' in registers
//   dQ = dS K   wgmma, over all 128 keys: a warp reads 16 queries of dS turned, and adds its 16 x 64 of dQ when their turn has come
//
//   shared memory   K [D / 64][128][64] | V | Q0 [D / 64][128][64] | dO0 | Q1 | dO1 | dS' [128][128], D 64: 2 | lse, delta of 2 tiles | Step 2 | barriers
//   registers       S' or dP' [16][4], dK, dV [D / 8][4], P' or dS' [8][4] (bf16), dQ [8][4] a lane
//
// With D 128, dK, dV, S' and dP' of a tile would be all registers that there are: so dP' follows P', which is parked, and a warpgroup's products hide behind
// the other's. Drawback: tiles that reach beyond their segment hold what lies behind it, and 0 x NaN is NaN: such rows are overwritten with zeros before
// they are used, which both warpgroups wait for.
#ifndef IMF_CUDA_ATTN_BWD_SM90_CUH
#define IMF_CUDA_ATTN_BWD_SM90_CUH

#include "kernels/cuda/attn_bwd_parts_sm90.cuh"
#include "kernels/cuda/attn_bwd_wide_sm90.cuh"

namespace attn_bwd_sm90 {

enum { READ = OWN };  // named barriers; READ + g: dS' of group g

template <int D> DEVICE void fetch_all(const Bwd &b, const Work &k, int kv, const Places<D> &s)
{
    using H = Shape<D>;
    if (threadIdx.x == 0) fetch_keys<D>(b, k, kv, s);
    Visit v = {0, 0, 0, 0, 0, 0, true};
    for (int number = 0; v.there; number++) {
        const int stage = number % H::STAGES;
        v = attn_bwd::settle<H::QUERIES, H::KEYS>(b.a, k, v);
        const Step t = step_of<D>(b, k, v, kv * (b.a.N / b.a.K) + v.head);
        mbar_wait(s.empty + stage, parity_of<D>(number) ^ 1);
        if (v.there) fetch_stats<D>(b, t, s.stats + stage * 2 * H::QUERIES);
        if (threadIdx.x == 0) s.step[stage] = t;
        __syncwarp();
        if (threadIdx.x == 0 && v.there) {
            unsigned char *q = s.ring + stage * 2 * H::TILE;
            mbar_arrive_expect(s.full + stage, 2 * H::TILE);
            fetch_tile<D>(q, &b.q, t, s.full + stage);
            fetch_tile<D>(q + H::TILE, &b.dout, t, s.full + stage);
        }
        if (threadIdx.x == 0 && !v.there) mbar_arrive(s.full + stage);
        v.tile++;
    }
}

// A warpgroup's sums.
template <int D> struct Group {
    int thread;  // among the computing ones
    float dk[D / 8][4], dv[D / 8][4];
};

// P' and dS' of a warpgroup's 64 keys and a tile of queries, as operands; dV is under way (D 64) or added to. P' (with the soft-cap's slope) waits for dP' in
// shared memory, where the warp's dS' will be.
template <int D, bool CAP> DEVICE void weights(Group<D> &g, Operands<D> &p, Operands<D> &slopes, const Bwd &b, const Places<D> &s, int stage, bool first)
{
    using H = Shape<D>;
    const int group = g.thread / GROUP, rows = group * ROWS * 128;
    const unsigned char *q = s.ring + stage * 2 * H::TILE;
    const float *stats = s.stats + stage * 2 * H::QUERIES + column_of(g.thread) * 2;
    unsigned char *parked = parked_by(s.ds + stage % H::WEIGHTS_KEPT * H::WEIGHTS, g.thread);
    const bool shares = H::WEIGHTS_KEPT == 1 && !first;  // the last tile's dS' lay there
    if (shares) bar_arrive(READ + 1 - group, GROUP * GROUPS);
    float x[H::QUERIES / 8][4], y[H::QUERIES / 8][4];
    multiply_tile<D>(x, s.k + rows, q);
    if (shares) bar_sync(READ + group, GROUP * GROUPS);  // the other group has read it
    wgmma_wait<0>();
    hold(x);
    make_weights<D, CAP>(p, x, b.a.rule, s.step[stage], s.keys->n, g.thread, stats, parked);
    if (D == 64) multiply_tile<D>(y, s.v + rows, q + H::TILE);
    add_rows<D>(g.dv, p, q + H::TILE);
    if (D == 128) {  // dV's operands make room for dP'
        wgmma_wait<0>();
        hold(g.dv);
        multiply_tile<D>(y, s.v + rows, q + H::TILE);
    }
    wgmma_wait<D == 64>();
    hold(y);
#pragma unroll
    for (int k = 0; k < H::QUERIES / 16; k++) {
        slope_of(y[2 * k], y[2 * k + 1], parked + k * PARKED_STEP, stats + k * 32);
        as_operand(slopes[k], y[2 * k], y[2 * k + 1]);
    }
    __syncwarp();  // no lane reads what is parked any more
}

// A tile of queries. false: there was none.
template <int D, bool CAP> DEVICE bool turn(Group<D> &g, const Bwd &b, const Places<D> &s, int number)
{
    using H = Shape<D>;
    int stage = number % H::STAGES;
    forget(g.thread);
    mbar_wait(s.full + stage, parity_of<D>(number));
    const int n = s.step[stage].n;
    if (n == 0) return false;
    clear_rows<D, 2>(g.thread, s.ring + stage * 2 * H::TILE, n, H::QUERIES, H::PANEL_BYTES, CLEARED);
    Operands<D> p, slopes;
    weights<D, CAP>(g, p, slopes, b, s, stage, number == 0);
    forget(stage);
    forget(g.thread);
    unsigned char *ds = s.ds + stage % H::WEIGHTS_KEPT * H::WEIGHTS;
#pragma unroll
    for (int k = 0; k < H::QUERIES / 16; k++) put_weights<H::QUERIES>(ds, slopes[k], k, g.thread);
    add_rows<D>(g.dk, slopes, s.ring + stage * 2 * H::TILE);
    bar_sync(WEIGHED, GROUP * GROUPS);
    wgmma_wait<D == 64>();  // D 128: dK's operands make room
    hold(g.dv);
    if (D == 128) hold(g.dk);
    const Step t = s.step[stage];
    add_dq<D>(b, s, ds, t, g.thread, [&] {
        wgmma_wait<1>();
        hold(g.dk);
        __syncwarp();  // every lane has read its step
        give_back(s.empty + stage);
    });
    return true;
}

template <int D, bool CAP> DEVICE void compute(const Bwd &b, const Places<D> &s, int warp)
{
    using H = Shape<D>;
    Group<D> g;
    g.thread = warp * 32 + (int)threadIdx.x % 32;
    clear(g.dk);
    clear(g.dv);
    mbar_wait(s.kv_full, 0);
    clear_rows<D, 2>(g.thread, s.k, s.keys->n, H::KEYS, H::KEYS_PANEL, CLEARED);
    for (int number = 0; turn<D, CAP>(g, b, s, number);) number++;
    const Keys k = *s.keys;
    const int64_t token = k.token;
    const int row = g.thread / 32 * 16;
    attn_bwd::write_rows(b.a.dk + token * b.a.dk_stride + (int64_t)k.kv * D, b.a.dk_stride, g.dk, b.a.rule.scale, row, k.n);
    attn_bwd::write_rows(b.a.dv + token * b.a.dv_stride + (int64_t)k.kv * D, b.a.dv_stride, g.dv, 1, row, k.n);
}

}  // namespace attn_bwd_sm90

// As attn_bwd_prepare, with the turns of this form.
template <int D> __global__ void attn_bwd_prepare_sm90(const attn_bwd::Bwd a)
{
    attn_bwd::prepare<D>(a, attn_bwd_sm90::Shape<D>::turns(a.N, a.query_tiles));
}

// Grid: K x (at most T / KEYS + S tiles of keys). Blocks without a tile end at once.
template <int D, bool CAP> __global__ void __launch_bounds__(attn_bwd_sm90::THREADS, 1) attn_bwd_sm90_main(const __grid_constant__ attn_bwd_sm90::Bwd b)
{
    using namespace attn_bwd_sm90;
    using H = attn_bwd_sm90::Shape<D>;
    SHARED_MEMORY(shared);
    const Places<D> s = places_of<D>(shared);
    uint32_t *ticket = (uint32_t *)(shared + H::TICKET);
    if (threadIdx.x == 0) {
        *ticket = atom_add_acq_rel(b.a.turn + H::turns(b.a.N, b.a.query_tiles) - 1, 1);
        init_barriers<D>(s);
    }
    __syncthreads();
    const int number = (int)*ticket / b.a.K, kv = (int)*ticket % b.a.K, warp = __shfl_sync(~0u, (int)threadIdx.x / 32, 0);
    const Work k = find_work(b.a.table, number, H::KEYS);
    if (k.n == 0) return;
    if (threadIdx.x == 0) *s.keys = {k.seg.start + k.first, k.n, kv};  // its arrival at kv_full tells who computes
    if (warp < GROUP / 32) {
        registers_less<FETCHING>();
        if (warp > 0) return;
        if constexpr (D == WIDE) fetch_all_wide(b, k, kv, s);
        else fetch_all<D>(b, k, kv, s);
    } else {
        registers_more<COMPUTING>();
        if constexpr (D == WIDE) compute_wide<CAP>(b, s, warp - GROUP / 32);
        else compute<D, CAP>(b, s, warp - GROUP / 32);
    }
}

#endif
