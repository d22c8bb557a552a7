// SPDX-License-Identifier: Apache-2.0
// What attention's backward kernels for Hopper share: shared memory, the walk of the warp that fetches, weights and slopes, and how dQ is passed on.
#ifndef IMF_CUDA_ATTN_BWD_PARTS_SM90_CUH
#define IMF_CUDA_ATTN_BWD_PARTS_SM90_CUH

#include "kernels/cuda/attn_bwd.cuh"
#include "kernels/cuda/sm90.cuh"

namespace attn_bwd_sm90 {

using namespace attn;
using attn_bwd::Visit;
using sm90::THREADS;  // attn has others
using namespace sm90;

enum { DQ_COLUMNS = 64, PARKED_STEP = 32 * 16 };
enum { FETCHING = 40, COMPUTING = 232 };  // registers of a thread
enum { CLEARED = 1, WEIGHED, OWN };       // named barriers; from OWN on: each form's own

struct Bwd {
    TensorMap q, k, v, dout;  // [T][N D], [T][K D], [T][K D], [T][N D]; boxes of 64 columns and QUERIES (q, dout) or KEYS rows
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

// Heads of 256 have half the keys and a single stage.
template <int D> struct Shape {
    static constexpr int KEYS = D == 256 ? 64 : 128, QUERIES = 128, PANELS = D / PANEL, STAGES = D == 256 ? 1 : 2;
    static constexpr int WEIGHTS_KEPT = D == 128 ? 1 : 2;  // D 64: dS' of two tiles; 256: P' and dS'
    static constexpr int KEYS_PANEL = KEYS * PANEL * 2, PANEL_BYTES = QUERIES * PANEL * 2;  // bytes of a panel
    static constexpr int KEYS_TILE = KEYS_PANEL * PANELS, TILE = PANEL_BYTES * PANELS, WEIGHTS = KEYS * QUERIES * 2;
    static constexpr int RING = 2 * KEYS_TILE, DS = RING + 2 * STAGES * TILE, STATS = DS + WEIGHTS_KEPT * WEIGHTS;  // offsets
    static constexpr int STATS_BYTES = 2 * QUERIES * 4, STEPS = STATS + STAGES * STATS_BYTES, BARRIERS = STEPS + STAGES * 32;
    static constexpr int BLOCK = BARRIERS + 5 * 8, TICKET = BLOCK + sizeof(Keys), BYTES = TICKET + 4;
    static_assert(BYTES <= 227 * 1024, "shared memory of a block");
    static __host__ __device__ constexpr int64_t sums(int N, int query_tiles) { return (int64_t)N * query_tiles * QUERIES * D; }
    static __host__ __device__ constexpr int64_t turns(int N, int query_tiles) { return (int64_t)N * query_tiles * WARPS * PANELS + 1; }
};
static_assert(sizeof(Step) == 32, "a step's place in shared memory");

// Where things lie in shared memory.
template <int D> struct Places {
    unsigned char *k, *v, *ring, *ds;
    float *stats;  // [STAGES][QUERIES / 2][4]: of two queries -lse (in powers of two) and delta
    Step *step;
    Keys *keys;
    uint64_t *kv_full, *full, *empty;  // full, empty: two each, of stages; with one stage of queries and of their dO
};

template <int D> DEVICE Places<D> places_of(unsigned char *shared)
{
    using H = Shape<D>;
    uint64_t *bar = (uint64_t *)(shared + H::BARRIERS);
    return {shared, shared + H::KEYS_TILE, shared + H::RING, shared + H::DS, (float *)(shared + H::STATS), (Step *)(shared + H::STEPS),
            (Keys *)(shared + H::BLOCK), bar, bar + 1, bar + 3};
}

template <int D> DEVICE uint32_t parity_of(int number) { return (uint32_t)(number / Shape<D>::STAGES) & 1; }

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
    constexpr int QUERIES = Shape<D>::QUERIES, KEYS = Shape<D>::KEYS;
    if (!v.there) return {};
    const Work w = work_at(b.a.table, v.seg, v.tile, QUERIES);
    const int query = w.seg.pos0 + w.first, key = k.seg.pos0 + k.first;
    const bool is_masked = k.n < KEYS || any_hidden(b.a.rule, query, QUERIES, key, KEYS);
    return {w.n, w.seg.start + w.first, head, v.base + v.tile, v.order, v.of, key - query, is_masked};
}

// Of two queries, lse and delta; zeros for those that are not there. Half of the lanes fetch lse, half delta, each a whole sector with its neighbours.
template <int D> DEVICE void fetch_stats(const Bwd &b, const Step &t, float *to)
{
    const bool of_delta = threadIdx.x & 16;
    const float *from = (of_delta ? b.a.delta : b.a.lse) + (int64_t)t.head * b.a.table.T + t.token;
    for (int i = (int)threadIdx.x % 16; i < Shape<D>::QUERIES; i += 16) {
        const float x = i < t.n ? from[i] : 0;
        to[i / 2 * 4 + of_delta * 2 + i % 2] = of_delta ? x : -x * LOG2E;
    }
}

// A tile of queries, or of their dO; its bytes count in `full`.
template <int D> DEVICE void fetch_tile(unsigned char *to, const TensorMap *map, const Step &t, uint64_t *full)
{
    using H = Shape<D>;
    for (int p = 0; p < H::PANELS; p++) tma_load_2d(to + p * H::PANEL_BYTES, map, t.head * D + p * PANEL, t.token, full);
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

// Where a thread's operands wait, 16 bytes at a time, in [KEYS][128]: among the rows of its warp's 16 keys.
DEVICE unsigned char *parked_by(unsigned char *weights, int thread) { return weights + (thread / 32 * 8 * 32 + thread % 32) * 16; }

// P' of 16 queries, at most 1: in fp16, which rounds dS' no more than its own bf16 does.
DEVICE void park(unsigned char *to, const float (&left)[4], const float (&right)[4])
{
    st_u4((uint16_t *)to, {pack_f16(left[0], left[1]), pack_f16(left[2], left[3]), pack_f16(right[0], right[1]), pack_f16(right[2], right[3])});
}

// Products become weights, and operands; what is parked is those times the soft-cap's slope.
template <int N>
DEVICE void weigh_and_park(uint32_t (&p)[N / 2][4], float (&x)[N][4], const Rule &r, const Columns &c, const float *stats, unsigned char *to)
{
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        float slope[2][4];
#pragma unroll
        for (int j = 2 * k; j < 2 * k + 2; j++) {
            const float4 s = ld_v4(stats + j * 16);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float w = ex2(fmaf(score_of<true>(r, x[j][i], &slope[j % 2][i]), factor_of<true>(r), i % 2 ? s.y : s.x));
                x[j][i] = is_seen(c, j, i) ? w : 0;
                slope[j % 2][i] *= x[j][i];
            }
        }
        as_operand(p[k], x[2 * k], x[2 * k + 1]);
        park(to + k * PARKED_STEP, slope[0], slope[1]);
    }
}

// The same without a soft-cap.
template <int N> DEVICE void weigh_and_park(uint32_t (&p)[N / 2][4], float (&x)[N][4], float factor, const float *stats, unsigned char *to)
{
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
#pragma unroll
        for (int j = 2 * k; j < 2 * k + 2; j++) {
            const float4 s = ld_v4(stats + j * 16);
#pragma unroll
            for (int i = 0; i < 4; i++) x[j][i] = ex2(fmaf(x[j][i], factor, i % 2 ? s.y : s.x));
        }
        park(to + k * PARKED_STEP, x[2 * k], x[2 * k + 1]);
        as_operand(p[k], x[2 * k], x[2 * k + 1]);
    }
}

// dP' of 16 queries becomes dS', with P' (times the slope) as it was parked.
DEVICE void slope_of(float (&left)[4], float (&right)[4], const unsigned char *parked, const float *stats)
{
    const uint4 p = ld_u4((const uint16_t *)parked);
    const uint32_t words[4] = {p.x, p.y, p.z, p.w};
    const float4 s = ld_v4(stats), t = ld_v4(stats + 16);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        left[i] = (i % 2 ? high_f16(words[i / 2]) : low_f16(words[i / 2])) * (left[i] - (i % 2 ? s.w : s.z));
        right[i] = (i % 2 ? high_f16(words[2 + i / 2]) : low_f16(words[2 + i / 2])) * (right[i] - (i % 2 ? t.w : t.z));
    }
}

// A thread's operands of 16 queries (number k of them) into [KEYS][QUERIES]: columns of 16 bytes are exchanged 8 rows on, and 8 columns
// on, as they are here.
template <int QUERIES> DEVICE void put_weights(unsigned char *to, const uint32_t (&x)[4], int k, int thread)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        unsigned char *mine = to + at<QUERIES>(row_of(thread), 2 * k % 8 + i / 2) + column_of(thread) * 2;
        *(uint32_t *)(mine + k / 4 * 128 + i % 2 * 8 * QUERIES * 2) = x[i];
    }
}

template <int D> using Operands = uint32_t[Shape<D>::QUERIES / 16][4];

// Products become P', as operands; P' (times the soft-cap's slope) is parked. thread: of its warp's keys' tile.
template <int D, bool CAP>
DEVICE void make_weights(Operands<D> &p, float (&x)[Shape<D>::QUERIES / 8][4], const Rule &r, const Step &t, int keys, int thread, const float *stats,
                         unsigned char *parked)
{
    if constexpr (CAP) {
        weigh_and_park(p, x, r, columns_of(r, t.ahead, thread, keys), stats, parked);
    } else {
        if (t.is_masked) hide(x, columns_of(r, t.ahead, thread, keys));
        weigh_and_park(p, x, factor_of<CAP>(r), stats, parked);
    }
}

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

// A warp's 16 queries of dS, turned, for all keys.
template <int D> DEVICE void load_slopes(uint32_t (&a)[Shape<D>::KEYS / 16][4], const unsigned char *ds, int query, int lane)
{
#pragma unroll
    for (int j = 0; j < Shape<D>::KEYS / 16; j++)
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

// dQ = dS K of a warp's 16 queries, 64 columns at a time; issued() is called while the first product is under way.
template <int D, typename F> DEVICE void add_dq(const Bwd &b, const Places<D> &s, const unsigned char *ds, const Step &t, int thread, F issued)
{
    using H = Shape<D>;
    const int warp = thread / 32;
    uint32_t a[H::KEYS / 16][4];
    load_slopes<D>(a, ds, warp * 16, thread % 32);
#pragma unroll
    for (int panel = 0; panel < H::PANELS; panel++) {
        float dq[DQ_COLUMNS / 8][4];
        wgmma_fence();
        sm90::multiply_columns(dq, a, operand(s.k + panel * H::KEYS_PANEL, H::KEYS_PANEL), false);
        wgmma_commit();
        if (panel == 0) issued();
        wgmma_wait<0>();
        hold(dq);
        pass_dq<D>(b.a, t, dq, warp, panel);
    }
}

template <int D> DEVICE void init_barriers(const Places<D> &s)
{
    mbar_init(s.kv_full, 1);
    for (int i = 0; i < 2; i++) {
        mbar_init(s.full + i, 1);
        mbar_init(s.empty + i, WARPS);
    }
    fence_mbar_init();
}

}  // namespace attn_bwd_sm90

#endif
