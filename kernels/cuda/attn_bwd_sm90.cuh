// SPDX-License-Identifier: Apache-2.0
// Attention backward for Hopper (sm_90a: TMA, wgmma, warp specialisation): what attn_bwd.cuh computes, for heads of 64 and 128.
//
// A block keeps 128 keys and values of one kv head; two warpgroups compute, each with dK and dV of 64 keys in registers, and a warp fetches. It alone walks
// through the tiles of 128 queries that see the keys, and leaves with each what the others have to know of it (Step). Keys are rows, as in attn_bwd.cuh:
//
//   S' = K Q'   wgmma, 128 columns             P' = 2^(S' - lse), bf16, parked in shared memory
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

#include "kernels/cuda/attn_bwd.cuh"
#include "kernels/cuda/sm90.cuh"

namespace attn_bwd_sm90 {

using namespace attn;
using attn_bwd::Visit;
using sm90::THREADS;  // attn has others
using namespace sm90;

enum { KEYS = ROWS * GROUPS, STAGES = 2, DQ_COLUMNS = 64 };
enum { FETCHING = 40, COMPUTING = 232 };  // registers of a thread
enum { CLEARED = 1, WEIGHED, READ };      // named barriers; READ + g: dS' of group g

struct Bwd {
    TensorMap q, k, v, dout;  // [T][N D], [T][K D], [T][K D], [T][N D]; boxes of 64 columns and QUERIES (q, dout) or 128 rows
    attn_bwd::Bwd a;          // its query_tiles: at most T / QUERIES + S; sums and turns: Shape says how many
};

// What the computing warps know of a tile of queries. n = 0: there are no more.
struct Step {
    int32_t n, token;         // queries, the first one's token
    int32_t head, tile;       // its place among all query tiles
    int32_t order, of;        // as in Visit
    int32_t ahead, is_masked;  // position of the first key - of the first query; is there a pair of them that is not seen?
};

// The block's keys, for the computing warps: kept there and not in registers.
struct Keys {
    int32_t token, n, kv;  // the first one's token, how many, their head
};

template <int D> struct Shape {
    static constexpr int QUERIES = 128, PANELS = D / PANEL, SLOPES = D > 64 ? 1 : 2;  // SLOPES: buffers of dS'
    static constexpr int KEYS_PANEL = KEYS * PANEL * 2, PANEL_BYTES = QUERIES * PANEL * 2;  // bytes of a panel
    static constexpr int KEYS_TILE = KEYS_PANEL * PANELS, TILE = PANEL_BYTES * PANELS, WEIGHTS = KEYS * QUERIES * 2;
    static constexpr int RING = 2 * KEYS_TILE, DS = RING + 2 * STAGES * TILE, STATS = DS + SLOPES * WEIGHTS;  // offsets
    static constexpr int STATS_BYTES = 2 * QUERIES * 4, STEPS = STATS + STAGES * STATS_BYTES, BARRIERS = STEPS + STAGES * 32;
    static constexpr int BLOCK = BARRIERS + (1 + 2 * STAGES) * 8, TICKET = BLOCK + sizeof(Keys), BYTES = TICKET + 4;
    static __host__ __device__ constexpr int64_t sums(int N, int query_tiles) { return (int64_t)N * query_tiles * QUERIES * D; }
    static __host__ __device__ constexpr int64_t turns(int N, int query_tiles) { return (int64_t)N * query_tiles * WARPS * PANELS + 1; }
};
static_assert(sizeof(Step) == 32, "a step's place in shared memory");
static_assert(Shape<128>::BYTES <= 227 * 1024, "shared memory of a block");

// Where things lie in shared memory.
template <int D> struct Places {
    unsigned char *k, *v, *ring, *ds;
    float *stats;  // [STAGES][QUERIES / 2][4]: of two queries -lse (in powers of two) and delta
    Step *step;
    Keys *keys;
    uint64_t *kv_full, *full, *empty;
};

template <int D> DEVICE Places<D> places_of(unsigned char *shared)
{
    using H = Shape<D>;
    uint64_t *bar = (uint64_t *)(shared + H::BARRIERS);
    return {shared, shared + H::KEYS_TILE, shared + H::RING, shared + H::DS, (float *)(shared + H::STATS), (Step *)(shared + H::STEPS), (Keys *)(shared + H::BLOCK),
            bar, bar + 1, bar + 1 + STAGES};
}

DEVICE uint32_t parity_of(int number) { return (uint32_t)(number / STAGES) & 1; }

// --- the warp that fetches -------------------------------------------------------------------------------------------------------

template <int D> DEVICE void fetch_keys(const Bwd &b, const Work &k, int kv, const Places<D> &s)
{
    using H = Shape<D>;
    mbar_arrive_expect(s.kv_full, 2 * H::KEYS_TILE);
    for (int p = 0; p < H::PANELS; p++) {
        tma_load_2d(s.k + p * H::KEYS_PANEL, &b.k, kv * D + p * PANEL, k.seg.start + k.first, s.kv_full);
        tma_load_2d(s.v + p * H::KEYS_PANEL, &b.v, kv * D + p * PANEL, k.seg.start + k.first, s.kv_full);
    }
}

template <int D> DEVICE Step step_of(const Bwd &b, const Work &k, const Visit &v, int head)
{
    constexpr int QUERIES = Shape<D>::QUERIES;
    if (!v.there) return {};
    const Work w = work_at(b.a.table, v.seg, v.tile, QUERIES);
    const int query = w.seg.pos0 + w.first, key = k.seg.pos0 + k.first;
    const bool is_masked = k.n < KEYS || any_hidden(b.a.rule, query, QUERIES, key, KEYS);
    return {w.n, w.seg.start + w.first, head, v.base + v.tile, v.order, v.of, key - query, is_masked};
}

// Of two queries, lse and delta; zeros for those that are not there.
template <int D> DEVICE void fetch_stats(const Bwd &b, const Step &t, float *to)
{
    const int64_t from = (int64_t)t.head * b.a.table.T + t.token;
    for (int i = (int)threadIdx.x * 2; i < Shape<D>::QUERIES; i += 64) {
        const bool first = i < t.n, second = i + 1 < t.n;
        st_v4(to + i * 2, {first ? -b.a.lse[from + i] * LOG2E : 0, second ? -b.a.lse[from + i + 1] * LOG2E : 0, first ? b.a.delta[from + i] : 0,
                           second ? b.a.delta[from + i + 1] : 0});
    }
}

template <int D> DEVICE void fetch_queries(const Bwd &b, const Step &t, const Places<D> &s, int stage)
{
    using H = Shape<D>;
    unsigned char *q = s.ring + stage * 2 * H::TILE;
    mbar_arrive_expect(s.full + stage, 2 * H::TILE);
    for (int p = 0; p < H::PANELS; p++) {
        tma_load_2d(q + p * H::PANEL_BYTES, &b.q, t.head * D + p * PANEL, t.token, s.full + stage);
        tma_load_2d(q + H::TILE + p * H::PANEL_BYTES, &b.dout, t.head * D + p * PANEL, t.token, s.full + stage);
    }
}

template <int D> DEVICE void fetch_all(const Bwd &b, const Work &k, int kv, const Places<D> &s)
{
    using H = Shape<D>;
    if (threadIdx.x == 0) fetch_keys<D>(b, k, kv, s);
    Visit v = {0, 0, 0, 0, 0, 0, true};
    for (int number = 0; v.there; number++) {
        const int stage = number % STAGES;
        v = attn_bwd::settle<H::QUERIES, KEYS>(b.a, k, v);
        const Step t = step_of<D>(b, k, v, kv * (b.a.N / b.a.K) + v.head);
        mbar_wait(s.empty + stage, parity_of(number) ^ 1);
        if (v.there) fetch_stats<D>(b, t, s.stats + stage * 2 * H::QUERIES);
        if (threadIdx.x == 0) s.step[stage] = t;
        __syncwarp();
        if (threadIdx.x == 0 && v.there) fetch_queries<D>(b, t, s, stage);
        if (threadIdx.x == 0 && !v.there) mbar_arrive(s.full + stage);
        v.tile++;
    }
}

// --- the warpgroups that compute -------------------------------------------------------------------------------------------------

// A computing thread's first key of the tile (it has the one 8 rows on, too), and its first query.
DEVICE int row_of(int thread) { return (int)((uint32_t)thread / 32 * 16 + (uint32_t)thread % 32 / 4); }
DEVICE int column_of(int thread) { return (int)((uint32_t)thread % 4 * 2); }

// Columns (queries) that see each of a lane's two keys: `many` of them, from `from` on, counted from the lane's first.
struct Columns {
    int from[2];
    uint32_t many;
};

DEVICE Columns columns_of(const Rule &r, int ahead, int thread, int keys)
{
    Columns c;
    const int row = row_of(thread);
#pragma unroll
    for (int e = 0; e < 2; e++) c.from[e] = row + e * 8 < keys ? row + e * 8 + ahead - column_of(thread) : INT32_MAX;
    c.many = r.window > 0 ? (uint32_t)r.window : INT32_MAX;
    return c;
}

DEVICE bool is_seen(const Columns &c, int j, int i) { return (uint32_t)(j * 8 + i % 2 - c.from[i / 2]) < c.many; }

// Products become -inf where the query does not see the key.
template <int N> DEVICE void hide(float (&x)[N][4], const Columns &c)
{
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (!is_seen(c, j, i)) x[j][i] = -INFINITY;
}

// Products become weights.
template <int N> DEVICE void weigh(float (&x)[N][4], float factor, const float *stats)
{
#pragma unroll
    for (int j = 0; j < N; j++) {
        const float4 s = ld_v4(stats + j * 16);
#pragma unroll
        for (int i = 0; i < 4; i++) x[j][i] = ex2(fmaf(x[j][i], factor, i % 2 ? s.y : s.x));
    }
}

// A thread's operands to where it finds them again; to: its own 16 bytes of its warp's.
template <int K> DEVICE void park(unsigned char *to, const uint32_t (&x)[K][4])
{
#pragma unroll
    for (int k = 0; k < K; k++) st_u4((uint16_t *)(to + k * 32 * 16), {x[k][0], x[k][1], x[k][2], x[k][3]});
}

// Products become weights, and operands; what is parked is those times the soft-cap's slope.
template <int N>
DEVICE void weigh_and_park(uint32_t (&p)[N / 2][4], float (&x)[N][4], const Rule &r, const Columns &c, const float *stats, unsigned char *to)
{
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        float slope[2][4];
        uint32_t parked[1][4];
#pragma unroll
        for (int j = 2 * k; j < 2 * k + 2; j++) {
            const float4 s = ld_v4(stats + j * 16);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float w = ex2(fmaf(score_of<true>(r, x[j][i], &slope[j % 2][i]), LOG2E, i % 2 ? s.y : s.x));
                x[j][i] = is_seen(c, j, i) ? w : 0;
                slope[j % 2][i] *= x[j][i];
            }
        }
        as_operand(p[k], x[2 * k], x[2 * k + 1]);
        as_operand(parked[0], slope[0], slope[1]);
        park(to + k * 32 * 16, parked);
    }
}

// dP' becomes dS', with P' (times the slope) as it was parked.
template <int N> DEVICE void slope_of(float (&dp)[N][4], const unsigned char *parked, const float *stats)
{
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        const uint4 p = ld_u4((const uint16_t *)(parked + k * 32 * 16));
        const uint32_t words[4] = {p.x, p.y, p.z, p.w};
#pragma unroll
        for (int j = 2 * k; j < 2 * k + 2; j++) {
            const float4 s = ld_v4(stats + j * 16);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const uint32_t word = words[j % 2 * 2 + i / 2];
                dp[j][i] = (i % 2 ? high_bf16(word) : low_bf16(word)) * (dp[j][i] - (i % 2 ? s.w : s.z));
            }
        }
    }
}

// A thread's operands into [KEYS][QUERIES]. Columns of 16 bytes are exchanged 8 rows on as they are here, and 8 columns on.
template <int QUERIES> DEVICE void put_weights(unsigned char *to, const uint32_t (&x)[QUERIES / 16][4], int thread)
{
#pragma unroll
    for (int c = 0; c < 8; c++) {
        unsigned char *mine = to + at<QUERIES>(row_of(thread), c) + column_of(thread) * 2;
#pragma unroll
        for (int d = c; d < QUERIES / 8; d += 8)
#pragma unroll
            for (int r = 0; r < 2; r++) *(uint32_t *)(mine + (d - c) * 16 + r * 8 * QUERIES * 2) = x[d / 2][d % 2 * 2 + r];
    }
}

// A warpgroup's sums.
template <int D> struct Group {
    int thread;  // among the computing ones
    float dk[D / 8][4], dv[D / 8][4];
};

template <int D> using Operands = uint32_t[Shape<D>::QUERIES / 16][4];

// Issues S' (or dP') of a warpgroup's 64 keys (values) and a tile of queries (their dO).
template <int D> DEVICE void multiply_tile(float (&x)[Shape<D>::QUERIES / 8][4], const unsigned char *keys, const unsigned char *queries)
{
    using H = Shape<D>;
    wgmma_fence();
    sm90::multiply_rows<D>(x, operand(keys, H::KEYS_PANEL), H::KEYS_PANEL, operand(queries, H::PANEL_BYTES), H::PANEL_BYTES);
    wgmma_commit();
}

// Issues sum += weights[64][QUERIES] . x[QUERIES][D].
template <int D> DEVICE void add_rows(float (&sum)[D / 8][4], const Operands<D> &weights, const unsigned char *x)
{
    wgmma_fence();
    sm90::multiply_columns(sum, weights, operand(x, Shape<D>::PANEL_BYTES));
    wgmma_commit();
}

// P' and dS' of a warpgroup's 64 keys and a tile of queries, as operands; dV is under way (D 64) or added to. P' (with the soft-cap's slope) waits for dP' in
// shared memory, where the warp's dS' will be.
template <int D, bool CAP> DEVICE void weights(Group<D> &g, Operands<D> &p, Operands<D> &slopes, const Bwd &b, const Places<D> &s, int stage, bool first)
{
    using H = Shape<D>;
    const int group = g.thread / GROUP, rows = group * ROWS * 128;
    const unsigned char *q = s.ring + stage * 2 * H::TILE;
    const float *stats = s.stats + stage * 2 * H::QUERIES + column_of(g.thread) * 2;
    unsigned char *parked = s.ds + stage % H::SLOPES * H::WEIGHTS + g.thread / 32 * 16 * H::QUERIES * 2 + g.thread % 32 * 16;
    const bool shares = H::SLOPES == 1 && !first;  // the last tile's dS' lay there
    if (shares) bar_arrive(READ + 1 - group, GROUP * GROUPS);
    float x[H::QUERIES / 8][4], y[H::QUERIES / 8][4];
    multiply_tile<D>(x, s.k + rows, q);
    if (shares) bar_sync(READ + group, GROUP * GROUPS);  // the other group has read it
    wgmma_wait<0>();
    hold(x);
    const auto columns = [&] { return columns_of(b.a.rule, s.step[stage].ahead, g.thread, s.keys->n); };
    if constexpr (CAP) {
        weigh_and_park(p, x, b.a.rule, columns(), stats, parked);
    } else {
        if (s.step[stage].is_masked) hide(x, columns());
        weigh(x, factor_of<CAP>(b.a.rule), stats);
        as_operands(p, x);
        park(parked, p);
    }
    if (D == 64) multiply_tile<D>(y, s.v + rows, q + H::TILE);
    add_rows<D>(g.dv, p, q + H::TILE);
    if (D > 64) {  // dV's operands make room for dP'
        wgmma_wait<0>();
        hold(g.dv);
        multiply_tile<D>(y, s.v + rows, q + H::TILE);
    }
    wgmma_wait<D == 64>();
    hold(y);
    slope_of(y, parked, stats);
    as_operands(slopes, y);
    __syncwarp();  // no lane reads what is parked any more
}

// A warp's 16 queries of dS, turned, for all keys.
template <int D> DEVICE void load_slopes(uint32_t (&a)[KEYS / 16][4], const unsigned char *ds, int query, int lane)
{
#pragma unroll
    for (int j = 0; j < KEYS / 16; j++)
        ldmatrix_x4_trans(a[j], ds + at<Shape<D>::QUERIES>(j * 16 + lane / 16 * 8 + lane % 8, query / 8 + lane / 8 % 2));
}

// A warp's part of dQ, 64 columns, when its turn has come: added to what lower key tiles have left; the last one writes it.
template <int D> DEVICE void pass_dq(const attn_bwd::Bwd &a, const Step &t, float (&x)[8][4], int warp, int panel)
{
    const int lane = (int)threadIdx.x % 32;
    const int64_t part = (((int64_t)t.head * a.query_tiles + t.tile) * WARPS + warp) * Shape<D>::PANELS + panel;
    float *sums = a.sums + part * 16 * DQ_COLUMNS + lane * 4;
    if (t.order > 0 && lane == 0) spin_until(a.turn + part, (uint32_t)t.order);
    __syncwarp();
    const int first = warp * 16 + lane / 4;
    uint32_t *dq = (uint32_t *)(a.dq + (int64_t)(t.token + first) * a.dq_stride + (int64_t)t.head * D + panel * PANEL) + lane % 4;
    attn_bwd::pass_on(a, t.order, t.of, x, sums, dq, first, t.n);
    __syncwarp();
    if (t.order + 1 < t.of && lane == 0) st_release(a.turn + part, (uint32_t)t.order + 1);
}

// dQ = dS K of a warp's 16 queries, 64 columns at a time; the tile is given back as soon as dK has been added to.
template <int D> DEVICE void add_dq(Group<D> &g, const Bwd &b, const Places<D> &s, const unsigned char *ds, int stage)
{
    using H = Shape<D>;
    const int warp = g.thread / 32;
    uint32_t a[KEYS / 16][4];
    load_slopes<D>(a, ds, warp * 16, g.thread % 32);
    const Step t = s.step[stage];
#pragma unroll
    for (int panel = 0; panel < H::PANELS; panel++) {
        float dq[DQ_COLUMNS / 8][4];
        wgmma_fence();
        sm90::multiply_columns(dq, a, operand(s.k + panel * H::KEYS_PANEL, H::KEYS_PANEL), false);
        wgmma_commit();
        if (panel == 0) {
            wgmma_wait<1>();
            hold(g.dk);
            __syncwarp();  // every lane has read its step
            give_back(s.empty + stage);
        }
        wgmma_wait<0>();
        hold(dq);
        pass_dq<D>(b.a, t, dq, warp, panel);
    }
}

// A tile of queries. false: there was none.
template <int D, bool CAP> DEVICE bool turn(Group<D> &g, const Bwd &b, const Places<D> &s, int number)
{
    using H = Shape<D>;
    int stage = number % STAGES;
    forget(g.thread);
    mbar_wait(s.full + stage, parity_of(number));
    const int n = s.step[stage].n;
    if (n == 0) return false;
    clear_rows<D, 2>(g.thread, s.ring + stage * 2 * H::TILE, n, H::QUERIES, H::PANEL_BYTES, CLEARED);
    Operands<D> p, slopes;
    weights<D, CAP>(g, p, slopes, b, s, stage, number == 0);
    forget(stage);
    forget(g.thread);
    unsigned char *ds = s.ds + stage % H::SLOPES * H::WEIGHTS;
    put_weights<H::QUERIES>(ds, slopes, g.thread);
    add_rows<D>(g.dk, slopes, s.ring + stage * 2 * H::TILE);
    bar_sync(WEIGHED, GROUP * GROUPS);
    wgmma_wait<D == 64>();  // larger heads: dK's operands make room
    hold(g.dv);
    if (D > 64) hold(g.dk);
    add_dq<D>(g, b, s, ds, stage);
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
    clear_rows<D, 2>(g.thread, s.k, s.keys->n, KEYS, H::KEYS_PANEL, CLEARED);
    for (int number = 0; turn<D, CAP>(g, b, s, number);) number++;
    const Keys k = *s.keys;
    const int64_t token = k.token;
    const int row = g.thread / 32 * 16;
    attn_bwd::write_rows(b.a.dk + token * b.a.dk_stride + (int64_t)k.kv * D, b.a.dk_stride, g.dk, b.a.rule.scale, row, k.n);
    attn_bwd::write_rows(b.a.dv + token * b.a.dv_stride + (int64_t)k.kv * D, b.a.dv_stride, g.dv, 1, row, k.n);
}

template <int D> DEVICE void init_barriers(const Places<D> &s)
{
    mbar_init(s.kv_full, 1);
    for (int i = 0; i < STAGES; i++) {
        mbar_init(s.full + i, 1);
        mbar_init(s.empty + i, WARPS);
    }
    fence_mbar_init();
}

}  // namespace attn_bwd_sm90

// As attn_bwd_prepare, with the turns of this form.
template <int D> __global__ void attn_bwd_prepare_sm90(const attn_bwd::Bwd a)
{
    attn_bwd::prepare<D>(a, attn_bwd_sm90::Shape<D>::turns(a.N, a.query_tiles));
}

// Grid: K x (at most T / 128 + S tiles of keys). Blocks without a tile end at once.
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
    const Work k = find_work(b.a.table, number, KEYS);
    if (k.n == 0) return;
    if (threadIdx.x == 0) *s.keys = {k.seg.start + k.first, k.n, kv};
    __syncthreads();
    if (warp < GROUP / 32) {
        registers_less<FETCHING>();
        if (warp == 0) fetch_all<D>(b, k, kv, s);
    } else {
        registers_more<COMPUTING>();
        compute<D, CAP>(b, s, warp - GROUP / 32);
    }
}

#endif
