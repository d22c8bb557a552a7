// SPDX-License-Identifier: Apache-2.0
// Attention forward for Hopper (sm_90a: TMA, wgmma, warp specialisation): what attn_fwd.cuh computes, by the same softmax.
//
// A block computes 128 queries of one head: two warpgroups of 64, and a warpgroup of which one thread fetches. Keys and values of a tile have a barrier
// each for "full" and "empty", so a tile's keys make room while its values are still in use. While a warpgroup turns scores into weights, its product of the
// last tile's weights and values is in flight, and the other warpgroup's products as well: they take turns to issue
// (after FlashAttention-3, Shah et al. 2024).
//
//   shared memory   Q [2][D / 64][64][64] | K0 [D / 64][KEYS][64] | K1 | V0 | V1 | barriers        128-byte swizzle, panels of 64 columns
//   registers       scores [KEYS / 8][4], weights [KEYS / 16][4] (bf16), output [D / 8][4] a lane
//
// Drawback: keys and values of a tile that reaches beyond its segment are those of the next one. Scores of such keys are masked, and such values
// are overwritten with zeros before they are used, which both warpgroups wait for.
#ifndef IMF_CUDA_ATTN_FWD_SM90_CUH
#define IMF_CUDA_ATTN_FWD_SM90_CUH

#include "kernels/cuda/attn_softmax.cuh"
#include "kernels/cuda/sm90.cuh"

namespace attn_sm90 {

using namespace sm90;
using attn::Part;
using attn::Sums;
using attn::Tile;
using attn::Work;

enum { QUERIES = ROWS * GROUPS, STAGES = 2 };
enum { FETCHING = 24, COMPUTING = 240 };  // registers of a thread
enum { TURN = 1, CLEARED = TURN + GROUPS };  // named barriers

struct Fwd {
    TensorMap q, k, v;  // [T][N D], [T][K D], [T][K D]; boxes of 64 columns and 64 (q) or KEYS rows
    uint16_t *o;        // [T][N][D], bf16
    float *lse;         // [N][T] or NULL
    int64_t o_stride;
    int N, K;
    attn::Table table;
    attn::Rule rule;
};

template <int D> struct Shape {
    static constexpr int KEYS = D > 128 ? 80 : 128;
    static constexpr int PANELS = D / PANEL, ROWS_BYTES = ROWS * PANEL * 2, KEYS_BYTES = KEYS * PANEL * 2;  // of one panel
    static constexpr int Q_BYTES = ROWS_BYTES * PANELS, TILE = KEYS_BYTES * PANELS;                         // of a warpgroup's queries, of a tile
    static constexpr int BARRIERS = 1 + 4 * STAGES;
    static constexpr int BYTES = GROUPS * Q_BYTES + 2 * STAGES * TILE + BARRIERS * 8;
};

// Where things lie in shared memory. Keys and values: [STAGES] tiles, and a barrier "full" and "empty" for each.
template <int D> struct Places {
    unsigned char *q, *k, *v;
    uint64_t *q_full, *k_full, *k_empty, *v_full, *v_empty;
};

template <int D> DEVICE Places<D> places_of(unsigned char *shared)
{
    using S = Shape<D>;
    Places<D> p;
    p.q = shared;
    p.k = p.q + GROUPS * S::Q_BYTES;
    p.v = p.k + STAGES * S::TILE;
    p.q_full = (uint64_t *)(p.v + STAGES * S::TILE);
    p.k_full = p.q_full + 1, p.k_empty = p.k_full + STAGES, p.v_full = p.k_empty + STAGES, p.v_empty = p.v_full + STAGES;
    return p;
}

// What a block goes through.
struct Walk {
    Part prefix, own;
    int steps, n, kv;
};

DEVICE uint32_t parity_of(int step) { return (uint32_t)(step / STAGES) & 1; }

// --- the thread that fetches -----------------------------------------------------------------------------------------------------

template <int D> DEVICE void fetch(unsigned char *tiles, const TensorMap *map, const Walk &l, int step, uint64_t *full, uint64_t *empty)
{
    using S = Shape<D>;
    const int stage = step % STAGES;
    const Tile t = attn::tile_at<S::KEYS>(l.prefix, l.own, step);
    mbar_wait(empty + stage, parity_of(step) ^ 1);
    mbar_arrive_expect(full + stage, S::TILE);
    for (int p = 0; p < S::PANELS; p++)
        tma_load_2d(tiles + stage * S::TILE + p * S::KEYS_BYTES, map, l.kv * D + p * PANEL, t.start + t.first, full + stage);
}

template <int D> DEVICE void fetch_all(const Fwd &a, const Work &w, const Walk &l, const Places<D> &s)
{
    using S = Shape<D>;
    mbar_arrive_expect(s.q_full, GROUPS * S::Q_BYTES);
    for (int g = 0; g < GROUPS; g++)
        for (int p = 0; p < S::PANELS; p++)
            tma_load_2d(s.q + g * S::Q_BYTES + p * S::ROWS_BYTES, &a.q, l.n * D + p * PANEL, w.seg.start + w.first + g * ROWS, s.q_full);
    for (int step = 0; step <= l.steps; step++) {  // values come a step later than keys
        if (step < l.steps) fetch<D>(s.k, &a.k, l, step, s.k_full, s.k_empty);
        if (step > 0) fetch<D>(s.v, &a.v, l, step - 1, s.v_full, s.v_empty);
    }
}

// --- the warpgroups that compute -------------------------------------------------------------------------------------------------

// Zeros in place of the values behind the segment's end, once they have come.
template <int D> DEVICE void clear_values(const Walk &l, const Places<D> &s, int step)
{
    using S = Shape<D>;
    const Tile t = attn::tile_at<S::KEYS>(l.prefix, l.own, step);
    const int stage = step % STAGES;
    if (t.len >= t.first + S::KEYS) return;
    mbar_wait(s.v_full + stage, parity_of(step));
    clear_rows<D, 1>((int)threadIdx.x - GROUP, s.v + stage * S::TILE, t.len - t.first, S::KEYS, S::KEYS_BYTES, CLEARED);
}

// A warpgroup's queries.
template <int D> struct Group {
    int number, late[2];  // late: as attn::weigh wants it
    uint64_t q, k, v;     // operands: its queries, the first stage's keys and values
    uint32_t weights[Shape<D>::KEYS / 16][4];
    Sums<D> sums;
};

// Scores of step `step`, while the values of the step before are multiplied; then its weights. FIRST: there is no step before.
template <int D, bool CAP, attn::Hidden HIDDEN, bool FIRST> DEVICE void turn(Group<D> &g, const Fwd &a, const Walk &l, const Places<D> &s, int step)
{
    using S = Shape<D>;
    constexpr uint64_t NEXT = S::TILE >> 4;
    const int stage = step % STAGES, before = (step + STAGES - 1) % STAGES;
    float x[S::KEYS / 8][4], shrink[2];
    mbar_wait(s.k_full + stage, parity_of(step));
    bar_sync(TURN + g.number, GROUP * GROUPS);
    wgmma_fence();
    sm90::multiply_rows<D>(x, g.q, S::ROWS_BYTES, g.k + (uint64_t)stage * NEXT, S::KEYS_BYTES);
    wgmma_commit();
    if (!FIRST) {
        mbar_wait(s.v_full + before, parity_of(step - 1));
        wgmma_fence();
        sm90::multiply_columns(g.sums.o, g.weights, g.v + (uint64_t)before * NEXT);
    }
    wgmma_commit();
    if (step + 1 < l.steps || g.number == 0) bar_arrive(TURN + (1 - g.number), GROUP * GROUPS);
    wgmma_wait<1>();
    hold(x);
    give_back(s.k_empty + stage);
    attn::weigh<S::KEYS, CAP, HIDDEN>(x, a.rule, attn::tile_at<S::KEYS>(l.prefix, l.own, step), g.late);
    attn::soften<D, S::KEYS>(g.sums, x, attn::factor_of<CAP>(a.rule), shrink);
    wgmma_wait<0>();
    hold(x);
    hold(g.sums.o);
    if (!FIRST) give_back(s.v_empty + before);
    attn::scale(g.sums, shrink);
    as_operands(g.weights, x);
    if (HIDDEN == attn::ANY) clear_values<D>(l, s, step);
}

template <int D> DEVICE void last_values(Group<D> &g, const Walk &l, const Places<D> &s)
{
    const int stage = (l.steps - 1) % STAGES;
    mbar_wait(s.v_full + stage, parity_of(l.steps - 1));
    wgmma_fence();
    sm90::multiply_columns(g.sums.o, g.weights, g.v + (uint64_t)stage * (Shape<D>::TILE >> 4));
    wgmma_commit();
    wgmma_wait<0>();
    hold(g.sums.o);
}

// Output of a warp's 16 rows, to the place of its queries, and their log-sum-exp.
template <int D> DEVICE void finish_rows(const Group<D> &g, const Fwd &a, const Work &w, const Walk &l, unsigned char *rows, int first, float factor)
{
    const int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = lane / 4 + r * 8;
        const float sum = quad_sum(g.sums.sum[r]), inverse = 1 / sum;
#pragma unroll
        for (int j = 0; j < D / 8; j++)
            *(uint32_t *)(rows + at<D>(row, j) + lane % 4 * 4) = pack_bf16(g.sums.o[j][2 * r] * inverse, g.sums.o[j][2 * r + 1] * inverse);
        if (a.lse && lane % 4 == 0 && first + row < w.n)
            a.lse[(int64_t)l.n * a.table.T + w.seg.start + w.first + first + row] = attn::lse_of(g.sums.most[r], sum, factor);
    }
}

// Every lane writes 16 bytes at a time.
template <int D> DEVICE void write_rows(const Fwd &a, const Work &w, const Walk &l, const unsigned char *rows, int first)
{
    for (int i = (int)threadIdx.x % 32; i < 16 * (D / 8); i += 32) {
        const int row = i / (D / 8), c = i % (D / 8);
        uint16_t *to = a.o + (w.seg.start + w.first + first + row) * a.o_stride + (int64_t)l.n * D + c * 8;
        if (first + row < w.n) st_u4(to, ld_u4((const uint16_t *)(rows + at<D>(row, c))));
    }
}

template <int D> DEVICE void write_out(const Group<D> &g, const Fwd &a, const Work &w, const Walk &l, unsigned char *q, float factor)
{
    const int warp = (int)threadIdx.x % GROUP / 32, first = g.number * ROWS + warp * 16;
    unsigned char *rows = q + g.number * Shape<D>::Q_BYTES + warp * 16 * D * 2;
    bar_sync(TURN + g.number, GROUP);  // nobody of this warpgroup reads queries any more
    finish_rows(g, a, w, l, rows, first, factor);
    __syncwarp();
    write_rows<D>(a, w, l, rows, first);
}

template <int D, bool CAP> DEVICE void compute(const Fwd &a, const Work &w, const Walk &l, const Places<D> &s, int number)
{
    using S = Shape<D>;
    using namespace attn;
    Group<D> g;
    g.number = number;
    g.late[0] = w.seg.pos0 + w.first + number * ROWS + (int)threadIdx.x % GROUP / 32 * 16 + (int)threadIdx.x % 32 / 4 + 1 - first_column();
    g.late[1] = g.late[0] + 8;
    g.q = operand(s.q + number * S::Q_BYTES, S::ROWS_BYTES);
    g.k = operand(s.k, S::KEYS_BYTES), g.v = operand(s.v, S::KEYS_BYTES);
    begin(g.sums);
    const auto hidden = [&](int step) { return hidden_of<S::KEYS>(a.rule, tile_at<S::KEYS>(l.prefix, l.own, step), w.seg.pos0 + w.first, QUERIES); };
    if (number == 1) bar_arrive(TURN, GROUP * GROUPS);
    mbar_wait(s.q_full, 0);
    turn<D, CAP, ANY, true>(g, a, l, s, 0);
    for (int step = 1; step < l.steps;) {
        for (; step < l.steps && hidden(step) == NONE; step++) turn<D, CAP, NONE, false>(g, a, l, s, step);
        for (; step < l.steps && hidden(step) == LATE; step++) turn<D, CAP, LATE, false>(g, a, l, s, step);
        for (; step < l.steps && hidden(step) == ANY; step++) turn<D, CAP, ANY, false>(g, a, l, s, step);
    }
    last_values<D>(g, l, s);
    write_out<D>(g, a, w, l, s.q, factor_of<CAP>(a.rule));
}

template <int D> DEVICE void init_barriers(const Places<D> &s)
{
    mbar_init(s.q_full, 1);
    for (int i = 0; i < STAGES; i++) {
        mbar_init(s.k_full + i, 1);
        mbar_init(s.v_full + i, 1);
        mbar_init(s.k_empty + i, WARPS);
        mbar_init(s.v_empty + i, WARPS);
    }
    fence_mbar_init();
}

}  // namespace attn_sm90

// Grid: (at most T / 128 + S tiles of queries, N heads). Blocks without a tile end at once.
template <int D, bool CAP> __global__ void __launch_bounds__(attn_sm90::THREADS, 1) attn_fwd_sm90(const __grid_constant__ attn_sm90::Fwd a)
{
    using namespace attn_sm90;
    SHARED_MEMORY(shared);
    const Work w = attn::find_work(a.table, (int)blockIdx.x, QUERIES);
    if (w.n == 0) return;
    const Places<D> s = places_of<D>(shared);
    const int n = (int)blockIdx.y, group = __shfl_sync(~0u, (int)threadIdx.x / GROUP, 0);
    Walk l = {attn::part_of<Shape<D>::KEYS>(a.rule, w, w.prefix), attn::part_of<Shape<D>::KEYS>(a.rule, w, w.seg), 0, n, n / (a.N / a.K)};
    l.steps = l.prefix.to - l.prefix.from + l.own.to - l.own.from;
    if (threadIdx.x == 0) init_barriers<D>(s);
    __syncthreads();
    if (group == 0) {
        registers_less<FETCHING>();
        if (threadIdx.x == 0) fetch_all<D>(a, w, l, s);
    } else {
        registers_more<COMPUTING>();
        compute<D, CAP>(a, w, l, s, group - 1);
    }
}

#endif
