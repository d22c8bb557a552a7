// SPDX-License-Identifier: Apache-2.0
// Attention of one new query a slot over paged keys and values: op_kv_store and op_attn_decode of kernels/ops.h for bf16 (sm_80 and later).
//
// A page of a layer holds 64 tokens: keys [K][64][D], then values. A block reads one chunk of 4 pages of one kv head, for all query heads that
// share it (GQA) and, in the prefix, for all slots of a group: what they share is read once. It leaves sums and their greatest score;
// decode_combine joins a slot's chunks in their order. Which slots share a block changes no row's bits.
//
//   shared memory   Q [64][D] | K0 [KEYS][D] | V0 | K1 | V1; row i x (N / K) + h is slot i of the group, query head h
#ifndef IMF_CUDA_DECODE_CUH
#define IMF_CUDA_DECODE_CUH

#include "kernels/cuda/attn_fwd.cuh"

namespace decode {

using namespace attn;

enum { PAGE = 64, CHUNK_PAGES = 4, CHUNK = PAGE * CHUNK_PAGES, GROUP = 8 };

struct Store {
    const uint16_t *k, *v;        // [n][K][D]
    uint16_t *pages;
    const int32_t *page, *place;  // [n]
    int64_t k_stride, v_stride, n;
    int K, D;
};

struct Decode {
    const uint16_t *q;           // [slots][N][D]
    uint16_t *o;                 // [slots][N][D]
    const uint16_t *pages;
    const int32_t *prefix_page;  // [slots][max_prefix_pages]
    const int32_t *prefix_len;   // [slots]
    const int32_t *own_page;     // [slots][max_own_pages]
    const int32_t *own_len;      // [slots]
    const int32_t *order;        // [slots] every slot once, group by group
    const int32_t *group;        // [groups + 1]: where each begins in `order`
    float *part;                 // [slots][N][chunks][D] scratch
    float *part_sum;             // [slots][N][chunks][2] scratch: greatest score, sum of weights
    int64_t q_stride, o_stride;
    int groups, slots, N, K, max_prefix_pages, max_own_pages;
    Rule rule;
};

BOTH int chunks_of(int pages) { return (pages + CHUNK_PAGES - 1) / CHUNK_PAGES; }
BOTH int all_chunks(const Decode &a) { return chunks_of(a.max_prefix_pages) + chunks_of(a.max_own_pages); }
BOTH int64_t page_values(int K, int D) { return (int64_t)2 * K * PAGE * D; }

// What a block does: keys [first, first + CHUNK) of a prefix or of a slot's own, for slots order[from .. from + n).
struct Item {
    int from, n, chunk;   // chunk: its number in the slot's list, prefix chunks first
    const int32_t *page;  // of the whole list
    int len, first, pos0;
};

DEVICE Item item_of(const Decode &a, int number)
{
    const int prefix_chunks = chunks_of(a.max_prefix_pages), own_chunks = chunks_of(a.max_own_pages);
    Item w;
    if (number < a.groups * prefix_chunks) {
        const int g = number / prefix_chunks;
        w.from = a.group[g], w.n = a.group[g + 1] - w.from, w.chunk = number % prefix_chunks;
        w.len = w.first = 0;
        if (!w.n) return w;
        const int slot = a.order[w.from];
        w.page = a.prefix_page + (int64_t)slot * a.max_prefix_pages, w.len = a.prefix_len[slot], w.first = w.chunk * CHUNK, w.pos0 = 0;
    } else {
        number -= a.groups * prefix_chunks;
        w.from = number / own_chunks, w.n = 1, w.chunk = prefix_chunks + number % own_chunks;
        const int slot = a.order[w.from];
        w.page = a.own_page + (int64_t)slot * a.max_own_pages, w.len = a.own_len[slot], w.first = number % own_chunks * CHUNK;
        w.pos0 = a.prefix_len[slot];
    }
    return w;
}

template <int D> DEVICE void load_queries(unsigned char *to, const Decode &a, const Item &w, int kv)
{
    const int heads = a.N / a.K;
    for (int i = (int)threadIdx.x; i < QUERIES * (D / 8); i += THREADS) {
        const int r = i / (D / 8), c = i % (D / 8);
        const bool there = r < w.n * heads;
        const int64_t slot = there ? a.order[w.from + r / heads] : 0;
        cp_async16(to + at<D>(r, c), a.q + slot * a.q_stride + (there ? kv * heads + r % heads : 0) * D + c * 8, there);
    }
}

// Keys and values of a tile of the chunk.
template <int D> DEVICE void load_tile(unsigned char *to, const Decode &a, const Item &w, int kv, int step)
{
    constexpr int KEYS = Shape<D>::KEYS;
    const int first = w.first + step * KEYS, in_page = first % PAGE;
    const uint16_t *page = a.pages + w.page[first / PAGE] * page_values(a.K, D) + (int64_t)kv * PAGE * D;
    load_rows<D, KEYS>(to, page, D, in_page, in_page + w.len - first);
    load_rows<D, KEYS>(to + Shape<D>::TILE, page + (int64_t)a.K * PAGE * D, D, in_page, in_page + w.len - first);
}

// As weigh wants it, of the lane's two rows; where there is no query, no key is seen.
DEVICE void find_late(int (&late)[2], const Decode &a, const Item &w)
{
    const int heads = a.N / a.K;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = (int)threadIdx.x / 32 * 16 + (int)threadIdx.x % 32 / 4 + r * 8, slot = row < w.n * heads ? a.order[w.from + row / heads] : -1;
        late[r] = (slot < 0 ? 0 : a.prefix_len[slot] + a.own_len[slot]) - attn::first_column();
    }
}

template <int D> DEVICE void write_part(Sums<D> &s, const Decode &a, const Item &w, int kv, float factor)
{
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, heads = a.N / a.K;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = warp * 16 + lane / 4 + r * 8;
        const float sum = quad_sum(s.sum[r]);
        if (row >= w.n * heads) continue;
        const int64_t slot = a.order[w.from + row / heads], at = (slot * a.N + kv * heads + row % heads) * all_chunks(a) + w.chunk;
#pragma unroll
        for (int j = 0; j < D / 8; j++) st_v2(a.part + at * D + j * 8 + lane % 4 * 2, {s.o[j][2 * r], s.o[j][2 * r + 1]});
        if (lane % 4 == 0) st_v2(a.part_sum + at * 2, {s.most[r] * factor, sum});
    }
}

}  // namespace decode

// Eight values a thread: keys, then values.
inline __global__ void kv_store(const decode::Store a)
{
    using namespace decode;
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, width = a.K * (a.D / 8);
    const int64_t token = i / (2 * width), of = i % (2 * width) / width, head = i % width / (a.D / 8), column = i % (a.D / 8) * 8;
    if (token >= a.n) return;
    const uint16_t *from = (of ? a.v + token * a.v_stride : a.k + token * a.k_stride) + head * a.D + column;
    uint16_t *to = a.pages + a.page[token] * page_values(a.K, a.D) + (of * a.K + head) * PAGE * a.D + (int64_t)a.place[token] * a.D + column;
    st_u4(to, ld_u4(from));
}

// Grid: (groups x prefix chunks + slots x own chunks, K kv heads). Chunks beyond a list's end are left out.
template <int D, bool CAP> __global__ void __launch_bounds__(attn::THREADS, D > 64 ? 1 : 2) decode_chunks(const decode::Decode a)
{
    using namespace decode;
    constexpr int KEYS = Shape<D>::KEYS, TILE = Shape<D>::TILE;
    SHARED_MEMORY(q);
    const Item w = item_of(a, (int)blockIdx.x);
    if (w.first >= w.len) return;
    const int kv = (int)blockIdx.y, keys = w.len - w.first < CHUNK ? w.len - w.first : CHUNK, steps = (keys + KEYS - 1) / KEYS;
    unsigned char *ring = q + QUERIES * Shape<D>::ROW;
    Sums<D> s;
    int late[2];
    find_late(late, a, w);
    begin(s);
    load_queries<D>(q, a, w, kv);
    load_tile<D>(ring, a, w, kv, 0);
    cp_async_commit();
    for (int step = 0; step < steps; step++) {
        cp_async_wait<0>();
        __syncthreads();  // this tile has come, and the one before it is read
        if (step + 1 < steps) load_tile<D>(ring + (step + 1) % STAGES * 2 * TILE, a, w, kv, step + 1);
        cp_async_commit();
        const Tile p = {0, w.len, w.pos0, w.first + step * KEYS};
        const unsigned char *k = ring + step % STAGES * 2 * TILE;
        if (a.rule.window > 0 || p.first + KEYS > p.len) add_tile<D, CAP, ANY>(s, a.rule, p, late, q, k);
        else add_tile<D, CAP, NONE>(s, a.rule, p, late, q, k);
    }
    write_part(s, a, w, kv, factor_of<CAP>(a.rule));
}

// A warp a slot and query head; grid: slots x N / 4.
template <int D> __global__ void decode_combine(const decode::Decode a)
{
    using namespace decode;
    const int64_t row = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, slot = row / a.N;
    if (slot >= a.slots) return;
    const int lane = (int)threadIdx.x % 32, prefix_chunks = chunks_of(a.max_prefix_pages), all = all_chunks(a);
    const auto is_there = [&](int c) {
        return c < prefix_chunks ? c * CHUNK < a.prefix_len[slot] : (c - prefix_chunks) * CHUNK < a.own_len[slot];
    };
    float most = -INFINITY, sum = 0, o[D / 32];
    for (int c = 0; c < all; c++)
        if (is_there(c)) most = fmaxf(most, a.part_sum[(row * all + c) * 2]);
#pragma unroll
    for (int i = 0; i < D / 32; i++) o[i] = 0;
    for (int c = 0; c < all; c++) {
        if (!is_there(c)) continue;
        const float weight = ex2(a.part_sum[(row * all + c) * 2] - most);
        sum = fmaf(weight, a.part_sum[(row * all + c) * 2 + 1], sum);
#pragma unroll
        for (int i = 0; i < D / 32; i++) o[i] = fmaf(weight, a.part[(row * all + c) * D + i * 32 + lane], o[i]);
    }
#pragma unroll
    for (int i = 0; i < D / 32; i++) a.o[slot * a.o_stride + row % a.N * D + i * 32 + lane] = (uint16_t)pack_bf16(o[i] / sum, 0);
}

#endif
