// SPDX-License-Identifier: Apache-2.0
// What the attention kernels share: segments, what a query of theirs sees, scores.
#ifndef IMF_CUDA_ATTN_CUH
#define IMF_CUDA_ATTN_CUH

#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/math.cuh"

namespace attn {

// As in kernels/ops.h.
struct Seg {
    int32_t start, len, prefix, pos0;
};

// Which scores there are and what becomes of them. Kernels are compiled with a soft-cap (CAP) and without.
struct Rule {
    float scale, softcap;  // scale > 0; softcap 0: none
    int window;            // 0: none
};

// The segments of a batch.
struct Table {
    const Seg *seg;
    int S, T;
};

// A tile of queries of one segment. n = 0: there is no such tile.
struct Work {
    Seg seg, prefix;  // prefix.len = 0: none
    int index;        // the segment's
    int first, n;     // queries, counted in the segment
};

DEVICE int tiles_of(const Seg &g, int height) { return (g.len + height - 1) / height; }

// Tile `tile` of a segment, of `height` queries or what is left of them.
DEVICE Work work_at(const Table &t, int index, int tile, int height)
{
    const Seg g = t.seg[index];
    Work w = {g, {}, index, tile * height, g.len - tile * height < height ? g.len - tile * height : height};
    if (g.prefix >= 0) w.prefix = t.seg[g.prefix];
    return w;
}

// Tile number `tile` of all segments' tiles.
DEVICE Work find_work(const Table &t, int tile, int height)
{
    for (int s = 0; s < t.S; s++) {
        const int tiles = tiles_of(t.seg[s], height);
        if (tile < tiles) return work_at(t, s, tile, height);
        tile -= tiles;
    }
    return {};
}

// The keys that a tile of queries visits: tiles [from, to) of one segment.
struct Part {
    int start, len, pos0, from, to;
};

// Tiles of KEYS keys of `g` with a key that some query of `w` sees.
template <int KEYS> DEVICE Part part_of(const Rule &r, const Work &w, const Seg &g)
{
    const int low = w.seg.pos0 + w.first, high = low + w.n - 1;  // positions of the queries
    int keys = high - g.pos0 + 1 < g.len ? high - g.pos0 + 1 : g.len;
    int begin = r.window > 0 && low - r.window + 1 > g.pos0 ? low - r.window + 1 - g.pos0 : 0;
    if (keys < 0) keys = 0;
    if (begin > keys) begin = keys;
    return {g.start, g.len, g.pos0, begin / KEYS, (keys + KEYS - 1) / KEYS};
}

// Is there a pair of a query in positions [low, low + queries) and a key in [key, key + keys), that does not see it?
DEVICE bool any_hidden(const Rule &r, int low, int queries, int key, int keys)
{
    return key + keys - 1 > low || (r.window > 0 && key <= low + queries - 1 - r.window);
}

DEVICE bool sees(const Rule &r, int query_pos, int key_pos)
{
    return key_pos <= query_pos && (r.window <= 0 || key_pos > query_pos - r.window);
}

// A score is what is compared: with a soft-cap the tanh, without it the bare product. 2^(score x factor) is its weight.
template <bool CAP> DEVICE float score_of(const Rule &r, float product, float *slope)
{
    const float score = CAP ? tanh_of(product, r.scale * rcp(r.softcap)) : product;
    *slope = CAP ? 1 - score * score : 1;
    return score;
}
template <bool CAP> DEVICE float factor_of(const Rule &r) { return (CAP ? r.softcap : r.scale) * LOG2E; }

// Rows [first, first + ROWS) of a head of D values, zeros from row `len` on.
template <int D, int ROWS> DEVICE void load_rows(unsigned char *to, const uint16_t *from, int64_t stride, int first, int len)
{
    for (int i = (int)threadIdx.x; i < ROWS * (D / 8); i += (int)blockDim.x) {
        const int r = i / (D / 8), c = i % (D / 8);
        const bool there = first + r < len;
        cp_async16(to + at<D>(r, c), from + (there ? first + r : 0) * stride + c * 8, there);
    }
}

}  // namespace attn

#endif
