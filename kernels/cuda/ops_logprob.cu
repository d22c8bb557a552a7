// SPDX-License-Identifier: Apache-2.0
// cuda_x of log-probabilities: the form for mma.sync, and which form runs.
//
// The tokens that have a target lie one behind the other (R of them). Backward, for each chunk of the vocabulary: the gradient of the logits
// [R][CHUNK] in bf16; dhidden += it x head, and row by row (packed sequence) dhead += it' x hidden. How many tokens there are, of a row and of
// all, the host counts from `target`.
#include "kernels/cuda/logprob.cuh"
#include "kernels/cuda/ops_logprob.hpp"

static const int64_t CHUNK = 8192;  // a multiple of the kernels' tiles

// Offsets into the workspace; those behind `part` are the forward's or the backward's alone.
struct Space {
    int64_t hidden, list, place, picked, part, dlogits, dhidden, bytes;
    int64_t stride, width;  // of a row of hidden and dhidden; of dlogits
};

static Space space_of(int64_t T, int64_t H, int64_t V, bool backward)
{
    Space s = {};
    s.stride = (H + 7) / 8 * 8;
    s.width = V < CHUNK ? (V + 7) / 8 * 8 : CHUNK;
    s.list = s.hidden + round64(T * s.stride * (int64_t)sizeof(uint16_t));
    s.place = s.list + round64((logprob::LISTED + T) * (int64_t)sizeof(int32_t));
    s.picked = s.place + round64(T * (int64_t)sizeof(int32_t));
    s.part = s.dlogits = s.picked + round64(T * (int64_t)sizeof(float));
    s.dhidden = s.dlogits + round64(T * s.width * (int64_t)sizeof(uint16_t));
    s.bytes = backward ? s.dhidden + T * s.stride * (int64_t)sizeof(float) : s.part + T * logprob::slices_of((int)V) * (int64_t)sizeof(logprob::Part);
    return s;
}

int64_t cuda_logprob_fwd_workspace(const LogprobArgs *a) { return space_of(a->T, a->H, a->V, false).bytes; }
int64_t cuda_logprob_bwd_workspace(const LogprobBwdArgs *a) { return space_of(a->T, a->H, a->V, true).bytes; }

// What both directions begin with.
static Err gather(Ctx *ctx, const logprob::Logprob &l, const Tensor &hidden)
{
    TRY_CUDA(CUDA_LAUNCH(logprob_list, 1, logprob::LIST_THREADS, logprob::LIST_BYTES, stream_of(ctx), l));
    TRY_CUDA(CUDA_LAUNCH(logprob_gather, blocks_of(l.T, rows::THREADS / rows::WARP), rows::THREADS, 0, stream_of(ctx), l, f32(hidden), hidden.stride));
    return OK;
}

static int64_t targets_in(const int32_t *target, int64_t from, int64_t to)
{
    int64_t n = 0;
    for (int64_t t = from; t < to; t++) n += target[t] >= 0;
    return n;
}

static Err slices(Ctx *ctx, const logprob::Logprob &l, int64_t R)
{
    if (!R) return OK;
    if (is_hopper(ctx)) return sm90_logprob_slices(ctx, l, R);
    const dim3 tiles(blocks_of(R, product::SIDE), blocks_of(l.V, product::SIDE));
    TRY_CUDA(allow(logprob_slices, product::BYTES));
    TRY_CUDA(CUDA_LAUNCH(logprob_slices, tiles, product::THREADS, product::BYTES, stream_of(ctx), l));
    return OK;
}

Err cuda_logprob_fwd(Ctx *ctx, const LogprobArgs *a)
{
    ASSERT_TYPE(a->hidden, DT_F32);
    ASSERT_TYPE(a->head, DT_BF16);
    ASSERT(a->H % 8 == 0);
    const Space s = space_of(a->T, a->H, a->V, false);
    char *const at = (char *)a->workspace;
    const logprob::Logprob l = {bf16(a->head), a->target, (uint16_t *)(at + s.hidden), s.stride, a->head.stride, (int32_t *)(at + s.list),
                                (int32_t *)(at + s.place), (int)a->T, (int)a->H, (int)a->V, a->softcap, (logprob::Part *)(at + s.part),
                                (float *)(at + s.picked), a->logp, a->lse, a->best};
    TRY(gather(ctx, l, a->hidden));
    TRY(slices(ctx, l, targets_in(a->target, 0, a->T)));
    TRY_CUDA(CUDA_LAUNCH(logprob_combine, blocks_of(a->T, logprob::COMBINE_ROWS), logprob::COMBINE_THREADS, logprob::COMBINE_BYTES, stream_of(ctx), l));
    return OK;
}

// --- backward ----------------------------------------------------------------------------------------------------------------

// of one chunk; R > 0
static Err gradient(Ctx *ctx, const logprob::Gradient &g, int64_t R)
{
    if (is_hopper(ctx)) return sm90_logprob_gradient(ctx, g, R);
    const dim3 tiles(blocks_of(R, product::SIDE), blocks_of(g.width, product::SIDE));
    TRY_CUDA(allow(logprob_gradient, product::BYTES));
    TRY_CUDA(CUDA_LAUNCH(logprob_gradient, tiles, product::THREADS, product::BYTES, stream_of(ctx), g));
    return OK;
}

// dhidden[R][H] (+)= dlogits[R][width] head[width][H]
static Err add_dhidden(Ctx *ctx, const LogprobBwdArgs *a, const Space &s, int64_t first, int64_t width, int64_t R)
{
    char *const at = (char *)a->workspace;
    float *const dhidden = (float *)(at + s.dhidden);
    const bool add = first > 0;
    const Product p = {bf16(a->head) + first * a->head.stride, at + s.dlogits, add ? dhidden : nullptr, dhidden, a->head.stride, s.width, s.stride, s.stride,
                       a->H, R, width, nullptr, {false, false, false, false, add, a->H, width}};
    return multiply(ctx, p);
}

// dhead[width][H] += dlogits' hidden, row by row.
static Err add_dhead(Ctx *ctx, const LogprobBwdArgs *a, const Space &s, int64_t first, int64_t width)
{
    const uint16_t *const hidden = (const uint16_t *)((char *)a->workspace + s.hidden), *const dlogits = (const uint16_t *)((char *)a->workspace + s.dlogits);
    float *const dhead = f32(a->dhead) + first * a->dhead.stride;
    int64_t before = 0;
    for (int32_t r = 0; r < a->rows; r++) {
        const int64_t n = targets_in(a->target, a->row[r], a->row[r + 1]);
        const Product p = {hidden + before * s.stride, dlogits + before * s.width, dhead, dhead, s.stride, s.width, a->dhead.stride, a->dhead.stride,
                           a->H, width, n, nullptr, {false, true, false, false, true, a->H, 0}};
        TRY(multiply(ctx, p));
        before += n;
    }
    return OK;
}

Err cuda_logprob_bwd(Ctx *ctx, const LogprobBwdArgs *a)
{
    ASSERT_TYPE(a->hidden, DT_F32);
    ASSERT_TYPE(a->head, DT_BF16);
    ASSERT_TYPE(a->dhidden, DT_F32);
    ASSERT_TYPE(a->dhead, DT_F32);
    ASSERT(a->H % 8 == 0);
    const Space s = space_of(a->T, a->H, a->V, true);
    char *const at = (char *)a->workspace;
    const logprob::Logprob l = {bf16(a->head), a->target, (uint16_t *)(at + s.hidden), s.stride, a->head.stride, (int32_t *)(at + s.list),
                                (int32_t *)(at + s.place), (int)a->T, (int)a->H, (int)a->V, a->softcap, nullptr, nullptr, nullptr, (float *)a->lse, nullptr};
    const int64_t R = targets_in(a->target, 0, a->T);
    TRY(gather(ctx, l, a->hidden));
    for (int64_t first = 0; R && first < a->V; first += CHUNK) {
        const int64_t width = a->V - first < CHUNK ? a->V - first : CHUNK;
        const logprob::Gradient g = {l, a->coef, (uint16_t *)(at + s.dlogits), s.width, (int)first, (int)((width + 7) / 8 * 8)};
        TRY(gradient(ctx, g, R));
        TRY(add_dhidden(ctx, a, s, first, width, R));
        TRY(add_dhead(ctx, a, s, first, width));
    }
    TRY_CUDA(CUDA_LAUNCH(logprob_scatter, blocks_of(a->T, rows::THREADS / rows::WARP), rows::THREADS, 0, stream_of(ctx), l, (const float *)(at + s.dhidden), s.stride,
                         f32(a->dhidden), a->dhidden.stride));
    return OK;
}
