// SPDX-License-Identifier: Apache-2.0
// Logits of the log-probabilities for Hopper (sm_90a: TMA, wgmma, warp specialisation): what logprob_slices and logprob_gradient of logprob.cuh do.
//
// A block computes 128 tokens x 256 of the vocabulary: two warpgroups of 64 tokens, and a warpgroup of which one thread fetches. Each step multiplies 64 of
// the depth; a step's products are in flight while the next ones are issued, and what a step has read goes back when they are.
//
//   shared memory   STAGES x (hidden [128][64] | head [256][64]) | barriers        128-byte swizzle
//   registers       logits [32][4] a lane: rows and columns of mma_m16n8k16's fragments, 32 of them side by side
//
// Products are added in the order of depth, wherever a row lies: forward and backward see the same logits, and a row's bits depend on the row and the head
// alone. They need not be those of logprob.cuh on hardware: forward and backward of a step both run in one form.
#ifndef IMF_CUDA_LOGPROB_SM90_CUH
#define IMF_CUDA_LOGPROB_SM90_CUH

#include "kernels/cuda/logits.cuh"
#include "kernels/cuda/sm90.cuh"

namespace logprob_sm90 {

using namespace sm90;
using logprob::Logprob;

enum { TOKENS = ROWS * GROUPS, LOGITS = 256, DEPTH = PANEL, STAGES = 4 };
enum { FETCHING = 24, COMPUTING = 240 };  // registers of a thread
enum { BAND = 16 };
enum { ROWS_BYTES = ROWS * DEPTH * 2, HIDDEN_BYTES = ROWS_BYTES * GROUPS, STAGE = HIDDEN_BYTES + LOGITS * DEPTH * 2, BYTES = STAGES * STAGE + 2 * STAGES * 8 };

// The operands. hidden: the R >= 1 rows that logprob_gather wrote, [R][H], boxes of TOKENS rows; head: [V][H], boxes of LOGITS rows; zeros outside.
struct Maps {
    TensorMap hidden, head;
};

// A block's first row, and its first token of the vocabulary.
struct Tile {
    int row, token;
};

// Blocks go through the tiles in bands of BAND x 128 tokens: those that run at once share most of what they read. x: tiles of tokens, y: of columns.
DEVICE Tile tile_of_block(int first)
{
    const int wide = (int)gridDim.x, high = (int)gridDim.y, i = (int)blockIdx.y * wide + (int)blockIdx.x;
    const int from = i / (BAND * high) * BAND, in_band = i - from * high, width = wide - from < BAND ? wide - from : BAND;
    return {(from + in_band % width) * TOKENS, first + in_band / width * LOGITS};
}

// Shared memory: stages, and the barriers of each.
struct Places {
    unsigned char *stages;
    uint64_t *full, *empty;
};

DEVICE void init_barriers(const Places &s)
{
    for (int i = 0; i < STAGES; i++) {
        mbar_init(s.full + i, 1);
        mbar_init(s.empty + i, WARPS);
    }
    fence_mbar_init();
}

// Which stage a step uses, and the parity of that stage's round.
struct Turn {
    int stage;
    uint32_t parity;
};

DEVICE void next(Turn *t)
{
    if (++t->stage == STAGES) t->stage = 0, t->parity ^= 1;
}

// By the thread that fetches.
DEVICE void fetch_all(const Maps &m, const Places &s, const Tile &tile, int steps)
{
    Turn t = {0, 0};
    for (int step = 0; step < steps; step++, next(&t)) {
        unsigned char *to = s.stages + t.stage * STAGE;
        mbar_wait(s.empty + t.stage, t.parity ^ 1);
        mbar_arrive_expect(s.full + t.stage, STAGE);
        tma_load_2d(to, &m.hidden, step * DEPTH, tile.row, s.full + t.stage);
        tma_load_2d(to + HIDDEN_BYTES, &m.head, step * DEPTH, tile.token, s.full + t.stage);
    }
}

// --- the warpgroups that compute -------------------------------------------------------------------------------------------------

typedef float Logits[LOGITS / 8][4];

// Waits for a step's operands and issues its products. hidden, head: the first stage's.
DEVICE void multiply(Logits &x, const Places &s, const Turn &t, uint64_t hidden, uint64_t head, bool first)
{
    mbar_wait(s.full + t.stage, t.parity);
    wgmma_fence();
#pragma unroll
    for (int d = 0; d < DEPTH / 16; d++) {
        const uint64_t at = (uint64_t)((t.stage * STAGE + d * 32) >> 4);
        wgmma_ss<LOGITS>(x, hidden + at, head + at, !first || d > 0);
    }
    wgmma_commit();
}

// All steps. The products of one are in flight while those of the next are issued.
DEVICE void multiply_all(Logits &x, const Places &s, int number, int steps)
{
    const uint64_t hidden = operand(s.stages + number * ROWS_BYTES, ROWS_BYTES), head = operand(s.stages + HIDDEN_BYTES, LOGITS * DEPTH * 2);
    Turn t = {0, 0};
    multiply(x, s, t, hidden, head, true);
    for (int step = 1; step < steps; step++) {
        uint64_t *before = s.empty + t.stage;
        next(&t);
        multiply(x, s, t, hidden, head, false);
        wgmma_wait<1>();
        give_back(before);
    }
    wgmma_wait<0>();
    hold(x);
}

// The block's logits in registers, then finish(logits, tile) by each thread of the two warpgroups. first: of the vocabulary, in the grid.
template <typename Finish> DEVICE void with_logits(const Maps &m, const Logprob &a, int first, unsigned char *shared, const Finish &finish)
{
    const Tile tile = tile_of_block(first);
    if (tile.row >= a.list[0]) return;
    const Places s = {shared, (uint64_t *)(shared + STAGES * STAGE), (uint64_t *)(shared + STAGES * STAGE) + STAGES};
    const int group = __shfl_sync(~0u, (int)threadIdx.x / GROUP, 0), steps = (a.H + DEPTH - 1) / DEPTH;
    if (threadIdx.x == 0) init_barriers(s);
    __syncthreads();
    if (group == 0) {
        registers_less<FETCHING>();
        if (threadIdx.x == 0) fetch_all(m, s, tile, steps);
    } else {
        registers_more<COMPUTING>();
        Logits x;
        multiply_all(x, s, group - 1, steps);
        finish(x, tile);
    }
}

// Row and column in the tile of x[j][e] of this lane.
DEVICE int row_of(int e) { return ((int)threadIdx.x - GROUP) / 32 * 16 + (int)threadIdx.x % 32 / 4 + e / 2 * 8; }
DEVICE int column_of(int j, int e) { return j * 8 + (int)threadIdx.x % 4 * 2 + e % 2; }

// A token's place among all, -1 beyond the list; its target in the tile's columns, or none of them.
struct Row {
    int token, target;
};

DEVICE Row row_at(const Logprob &a, const Tile &tile, int r)
{
    const int token = r < a.list[0] ? a.list[logprob::LISTED + r] : -1;
    return {token, token < 0 ? -1 : a.target[token] - tile.token};
}

// Parts of a row, and the target's logit, of the row's first (e = 0) or second half of registers.
DEVICE void write_parts(const Logprob &a, Logits &x, const Tile &tile, int e)
{
    const int r = tile.row + row_of(e);
    const Row row = row_at(a, tile, r);
#pragma unroll
    for (int j = 0; j < LOGITS / 8; j++)
#pragma unroll
        for (int c = 0; c < 2; c++) {
            float slope;
            x[j][e + c] = logprob::logit(a, x[j][e + c], tile.token + column_of(j, c), &slope);
            if (row.token >= 0 && column_of(j, c) == row.target) a.picked[row.token] = x[j][e + c];
        }
#pragma unroll
    for (int i = 0; i < LOGITS / logprob::SLICE; i++) {
        const logprob::Part p = logprob::slice_of(x, i * (logprob::SLICE / 8), e);
        const int slice = tile.token / logprob::SLICE + i;
        if (threadIdx.x % 4 == 0 && row.token >= 0 && slice < logprob::slices_of(a.V)) logprob::store_part(&a.part[(int64_t)slice * a.T + r], p);
    }
}

// --- the gradient ----------------------------------------------------------------------------------------------------------------

// Lane q of four holds part q of v[0..3]; afterwards the four parts of what was v[q].
DEVICE void turn_four(uint32_t (&v)[4])
{
#pragma unroll
    for (int step = 1; step < 4; step *= 2)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & step) continue;
            const bool upper = threadIdx.x & step;
            const uint32_t got = __shfl_xor_sync(~0u, upper ? v[i] : v[i + step], step);
            v[i] = upper ? got : v[i];
            v[i + step] = upper ? v[i + step] : got;
        }
}

// A row's gradients, 16 bytes a lane and 64 bytes of a row at once.
DEVICE void write_gradient(const logprob::Gradient &g, Logits &x, const Tile &tile, int e)
{
    const Logprob &a = g.of;
    const int r = tile.row + row_of(e);
    const Row row = row_at(a, tile, r);
    const float lse = row.token < 0 ? 0 : a.lse[row.token], coef = row.token < 0 ? 0 : g.coef[row.token];
#pragma unroll
    for (int i = 0; i < LOGITS / 32; i++) {
        uint32_t v[4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            float d[2];
#pragma unroll
            for (int c = 0; c < 2; c++) {
                const int column = column_of(i * 4 + k, c);
                float slope;
                const float y = logprob::logit(a, x[i * 4 + k][e + c], tile.token + column, &slope);
                d[c] = coef * ((column == row.target ? 1.0f : 0.0f) - ex2((y - lse) * LOG2E)) * slope;
            }
            v[k] = pack_bf16(d[0], d[1]);
        }
        turn_four(v);
        const int column = tile.token - g.first + (i * 4 + (int)threadIdx.x % 4) * 8;
        if (row.token >= 0 && column < g.width) st_u4(g.out + r * g.stride + column, {v[0], v[1], v[2], v[3]});
    }
}

}  // namespace logprob_sm90

// Grid: (tiles of T tokens, tiles of the vocabulary). Blocks beyond the list end at once.
inline __global__ void __launch_bounds__(logprob_sm90::THREADS, 1) logprob_slices_sm90(const __grid_constant__ logprob_sm90::Maps m, const logprob::Logprob a)
{
    using namespace logprob_sm90;
    SHARED_MEMORY(shared);
    with_logits(m, a, 0, shared, [&](Logits &x, const Tile &tile) {
        write_parts(a, x, tile, 0);
        write_parts(a, x, tile, 2);
    });
}

// Grid: (tiles of T tokens, tiles of the chunk). Blocks beyond the list end at once.
inline __global__ void __launch_bounds__(logprob_sm90::THREADS, 1) logprob_gradient_sm90(const __grid_constant__ logprob_sm90::Maps m, const logprob::Gradient g)
{
    using namespace logprob_sm90;
    SHARED_MEMORY(shared);
    with_logits(m, g.of, g.first, shared, [&](Logits &x, const Tile &tile) {
        write_gradient(g, x, tile, 0);
        write_gradient(g, x, tile, 2);
    });
}

#endif
