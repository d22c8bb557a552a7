// SPDX-License-Identifier: Apache-2.0
// Online softmax of attention forward, as both of its forms have it: a lane's scores and outputs lie as mma and wgmma lay them out.
//
// After Milakov and Gimelshein (2018) and FlashAttention-2 (Dao 2023), in powers of two.
#ifndef IMF_CUDA_ATTN_SOFTMAX_CUH
#define IMF_CUDA_ATTN_SOFTMAX_CUH

#include "kernels/cuda/attn.cuh"

namespace attn {

// A tile of keys; tile number `step` of the prefix's and the segment's.
struct Tile {
    int start, len, pos0;  // of its segment
    int first;             // key, counted in the segment
};

template <int KEYS> DEVICE Tile tile_at(const Part &prefix, const Part &own, int step)
{
    const int of_prefix = prefix.to - prefix.from;
    const bool in_prefix = step < of_prefix;
    return {in_prefix ? prefix.start : own.start, in_prefix ? prefix.len : own.len, in_prefix ? prefix.pos0 : own.pos0,
            (in_prefix ? prefix.from + step : own.from + step - of_prefix) * KEYS};
}

// Which keys of a tile some query of the block does not see: none; those behind a query; or any, also those before its window and
// behind the segment's end.
enum Hidden { NONE, LATE, ANY };

// low: position of the first of `queries` queries.
template <int KEYS> DEVICE Hidden hidden_of(const Rule &r, const Tile &p, int low, int queries)
{
    const int key = p.pos0 + p.first;
    if (p.first + KEYS > p.len || (r.window > 0 && key <= low + queries - 1 - r.window)) return ANY;
    return key + KEYS - 1 > low ? LATE : NONE;
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

// A lane's first score of a row is in column 2 (lane % 4) of a tile; this counts columns from there.
DEVICE int first_column() { return (int)threadIdx.x % 4 * 2; }

// Scores of products; -inf where the query does not see the key. late: of the lane's two rows, position + 1 - first_column().
template <int KEYS, bool CAP, Hidden HIDDEN> DEVICE void weigh(float (&x)[KEYS / 8][4], const Rule &r, const Tile &p, const int (&late)[2])
{
    int from[2], to[2];  // columns that are seen
#pragma unroll
    for (int e = 0; e < 2; e++) {
        to[e] = late[e] - (p.pos0 + p.first);
        from[e] = r.window > 0 ? to[e] - r.window : 0;
        if (HIDDEN == ANY && to[e] > p.len - p.first - first_column()) to[e] = p.len - p.first - first_column();
    }
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float slope;
            x[j][i] = score_of<CAP>(r, x[j][i], &slope);
            if (HIDDEN != NONE && j * 8 + i % 2 >= to[i / 2]) x[j][i] = -INFINITY;
            if (HIDDEN == ANY && j * 8 + i % 2 < from[i / 2]) x[j][i] = -INFINITY;
        }
}

// Scores become weights relative to the greatest so far. What was summed before has to be scaled by `shrink`, a factor a row.
template <int D, int KEYS> DEVICE void soften(Sums<D> &s, float (&x)[KEYS / 8][4], float factor, float (&shrink)[2])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float most = s.most[r], sum = 0;
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++) most = fmaxf(most, fmaxf(x[j][2 * r], x[j][2 * r + 1]));
        most = quad_max(most);
        const float base = most == -INFINITY ? 0 : most * factor;
        shrink[r] = ex2(fmaf(s.most[r], factor, -base));
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                x[j][2 * r + e] = ex2(fmaf(x[j][2 * r + e], factor, -base));
                sum += x[j][2 * r + e];
            }
        s.most[r] = most;
        s.sum[r] = s.sum[r] * shrink[r] + sum;
    }
}

template <int D> DEVICE void scale(Sums<D> &s, const float (&shrink)[2])
{
#pragma unroll
    for (int j = 0; j < D / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) s.o[j][i] *= shrink[i / 2];
}

// Of row r of the lane's two, with the whole sum of its weights.
DEVICE float lse_of(float most, float sum, float factor) { return (most * factor + lg2(sum)) * LN2; }

}  // namespace attn

#endif
