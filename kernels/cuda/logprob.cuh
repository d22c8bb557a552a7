// SPDX-License-Identifier: Apache-2.0
// Log-probabilities of target tokens and their gradient, without tokens x vocabulary in memory: op_logprob_* of kernels/ops.h for bf16.
//
//   both       logprob_list      the R tokens that have a target, in order
//              logprob_gather    their hidden states, rounded, one behind the other
//              logprob_slices    logits of 128 of them x 128 of the vocabulary in registers; of each row and slice of 64 the greatest logit and
//                                the sum of exponentials; the target's logit
//              logprob_combine   slices in order: lse, logp, best
//   backward   logprob_gradient  the same logits once more, for one chunk of the vocabulary: coef (onehot - softmax) in bf16, [R][width]; two
//                                products with it add to the gradients of hidden states and head
//              logprob_scatter   the gradients of hidden states back to their tokens, zero for the others
//
// Logits are computed with their inputs in the same order whatever shares the tile, so a row's bits depend on the row and the head alone.
#ifndef IMF_CUDA_LOGPROB_CUH
#define IMF_CUDA_LOGPROB_CUH

#include "kernels/cuda/logits.cuh"
#include "kernels/cuda/rows.cuh"

namespace logprob {

enum { LIST_THREADS = 1024, LIST_BYTES = LIST_THREADS / 32 * 4 };
enum { COMBINE_ROWS = 32, COMBINE_PARTS = 8, COMBINE_THREADS = COMBINE_ROWS * COMBINE_PARTS, COMBINE_BYTES = COMBINE_THREADS * 8 };

DEVICE product::Operand hidden_rows(const Logprob &a)
{
    return {a.hidden, a.hidden_stride, (int)blockIdx.x * product::SIDE, a.list[0]};
}

DEVICE Part join(const Part &a, const Part &b)
{
    const float most = fmaxf(a.most, b.most), base = most == -INFINITY ? 0 : most;
    return {most, a.sum * ex2((a.most - base) * LOG2E) + b.sum * ex2((b.most - base) * LOG2E)};
}

}  // namespace logprob

// One block of LIST_THREADS. The tokens with a target, in order; outputs of the others.
inline __global__ void logprob_list(const logprob::Logprob a)
{
    using namespace logprob;
    SHARED_MEMORY(shared);
    int *count = (int *)shared;  // [LIST_THREADS / 32]
    const int thread = (int)threadIdx.x, warp = thread / 32, lane = thread % 32;
    int before = 0;
    for (int from = 0; from < a.T; from += LIST_THREADS) {
        const int t = from + thread;
        const bool has = t < a.T && a.target[t] >= 0;
        const unsigned mine = __ballot_sync(~0u, has);
        if (lane == 0) count[warp] = __popc(mine);
        __syncthreads();
        int at = before, all = before;
        for (int w = 0; w < LIST_THREADS / 32; w++) {
            at += w < warp ? count[w] : 0;
            all += count[w];
        }
        at += __popc(mine & ((1u << lane) - 1));
        if (has) a.list[LISTED + at] = t;
        if (t < a.T) a.place[t] = has ? at : -1;
        if (t < a.T && !has && a.logp) {
            a.logp[t] = a.lse[t] = 0;
            if (a.best) a.best[t] = 0;
        }
        before = all;
        __syncthreads();
    }
    if (thread == 0) a.list[0] = before;
}

// A warp a token; grid: T / 4.
inline __global__ void __launch_bounds__(rows::THREADS) logprob_gather(const logprob::Logprob a, const float *hidden, int64_t stride)
{
    using namespace rows;
    const int64_t t = warp_row();
    if (t >= a.T || a.place[t] < 0) return;
    for (int64_t h = lane_column(); h < a.H; h += PIECE) {
        float x[WIDE];
        load(x, hidden + t * stride + h, a.H - h);
        store(a.hidden + a.place[t] * a.hidden_stride + h, x, a.H - h);
    }
}

// A warp a token; grid: T / 4. from: [R][H].
inline __global__ void __launch_bounds__(rows::THREADS) logprob_scatter(const logprob::Logprob a, const float *from, int64_t from_stride, float *dhidden, int64_t stride)
{
    using namespace rows;
    const int64_t t = warp_row();
    if (t >= a.T) return;
    for (int64_t h = lane_column(); h < a.H; h += PIECE) {
        float x[WIDE] = {0, 0, 0, 0, 0, 0, 0, 0};
        if (a.place[t] >= 0) load(x, from + a.place[t] * from_stride + h, a.H - h);
        store(dhidden + t * stride + h, x, a.H - h);
    }
}

// Grid: (tiles of T tokens, tiles of the vocabulary). Blocks beyond the list end at once.
inline __global__ void __launch_bounds__(product::THREADS, 2) logprob_slices(const logprob::Logprob a)
{
    using namespace logprob;
    SHARED_MEMORY(shared);
    const product::Operand rows = hidden_rows(a);
    if (rows.first >= rows.rows) return;
    const int first = (int)blockIdx.y * product::SIDE, warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    product::Sums x;
    product::multiply_all(x, shared, rows, {a.head, a.head_stride, first, a.V}, a.H);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
            const int r = rows.first + product::row_of(i, e);
            const int token = r < rows.rows ? a.list[LISTED + r] : -1, target = token < 0 ? -1 : a.target[token];
#pragma unroll
            for (int j = 0; j < 8; j++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    const int of = first + product::column_of(j, c);
                    float slope;
                    x[i][j][e + c] = logit(a, x[i][j][e + c], of, &slope);
                    if (of == target) a.picked[token] = x[i][j][e + c];
                }
            const Part p = slice_of(x[i], 0, e);
            if (lane % 4 == 0 && token >= 0) store_part(&a.part[(int64_t)(blockIdx.y * 2 + warp % 2) * a.T + r], p);
        }
}

// Grid: blocks of COMBINE_ROWS rows; each row's slices are shared by COMBINE_PARTS threads, and what they found is joined in order.
inline __global__ void logprob_combine(const logprob::Logprob a)
{
    using namespace logprob;
    SHARED_MEMORY(shared);
    Part *found = (Part *)shared;  // [COMBINE_PARTS][COMBINE_ROWS]
    const int row = (int)threadIdx.x % COMBINE_ROWS, group = (int)threadIdx.x / COMBINE_ROWS, r = (int)blockIdx.x * COMBINE_ROWS + row;
    const int slices = slices_of(a.V), each = (slices + COMBINE_PARTS - 1) / COMBINE_PARTS, R = a.list[0];
    Part p = {-INFINITY, 0};
    for (int s = group * each; r < R && s < (group + 1) * each && s < slices; s++) p = join(p, load_part(&a.part[(int64_t)s * a.T + r]));
    store_part(&found[group * COMBINE_ROWS + row], p);
    __syncthreads();
    if (group > 0 || r >= R) return;
    for (int g = 1; g < COMBINE_PARTS; g++) p = join(p, load_part(&found[g * COMBINE_ROWS + row]));
    const int token = a.list[LISTED + r];
    const float lse = p.most + lg2(p.sum) * LN2;
    a.lse[token] = lse;
    a.logp[token] = a.picked[token] - lse;
    if (a.best) a.best[token] = a.picked[token] >= p.most;
}

// Grid: (tiles of T tokens, tiles of the chunk). Blocks beyond the list end at once.
inline __global__ void __launch_bounds__(product::THREADS, 2) logprob_gradient(const logprob::Gradient g)
{
    using namespace logprob;
    SHARED_MEMORY(shared);
    const Logprob &a = g.of;
    const product::Operand rows = hidden_rows(a);
    if (rows.first >= rows.rows) return;
    const int column = (int)blockIdx.y * product::SIDE, first = g.first + column;
    product::Sums x;
    product::multiply_all(x, shared, rows, {a.head, a.head_stride, first, a.V}, a.H);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
            const int r = rows.first + product::row_of(i, e);
            const int token = r < rows.rows ? a.list[LISTED + r] : -1, target = token < 0 ? -1 : a.target[token];
            const float lse = token < 0 ? 0 : a.lse[token], coef = token < 0 ? 0 : g.coef[token];
#pragma unroll
            for (int j = 0; j < 8; j += 2) {
                uint32_t words[2];
#pragma unroll
                for (int k = 0; k < 2; k++) {
                    float d[2];
#pragma unroll
                    for (int n = 0; n < 2; n++) {
                        const int of = first + product::column_of(j + k, n);
                        float slope;
                        const float y = logit(a, x[i][j + k][e + n], of, &slope);
                        d[n] = coef * ((of == target ? 1.0f : 0.0f) - ex2((y - lse) * LOG2E)) * slope;
                    }
                    words[k] = pack_bf16(d[0], d[1]);
                }
                const uint2 pair = pair_up(words[0], words[1], (int)threadIdx.x);
                const int c = column + (int)threadIdx.x / 32 % 2 * 64 + j * 8 + pair_column((int)threadIdx.x);
                if (token >= 0 && c < g.width) st_u2(g.out + r * g.stride + c, pair);
            }
        }
}

#endif
