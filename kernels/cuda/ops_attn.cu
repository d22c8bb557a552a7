// SPDX-License-Identifier: Apache-2.0
// cuda_x of attention: the form for mma.sync, and which form runs.
#include "kernels/cuda/attn_fwd.cuh"
#include "kernels/cuda/ops_attn.hpp"

enum { CLEAR_THREADS = 128 };

static Err clear_padding(Ctx *ctx, const attn::Table &t, const Tensor &x, int64_t width, float *lse, int64_t N)
{
    TRY_CUDA(CUDA_LAUNCH(attn_clear_padding, (unsigned)t.T, CLEAR_THREADS, 0, stream_of(ctx), t, bf16(x), x.stride, (int)width, lse, (int)N));
    return OK;
}

// --- forward -----------------------------------------------------------------------------------------------------------------

template <int D> static Err forward(Ctx *ctx, const AttnArgs *a)
{
    const auto kernel = a->softcap > 0 ? attn_fwd<D, true> : attn_fwd<D, false>;
    const dim3 tiles((unsigned)(a->T / attn::QUERIES + a->S), (unsigned)a->N);
    const attn::Fwd f = {bf16(a->q), bf16(a->k), bf16(a->v), bf16(a->o), a->lse, a->q.stride, a->k.stride, a->v.stride, a->o.stride,
                         (int)a->N, (int)a->K, table_of(a->seg, a->S, a->T), {a->scale, a->softcap, a->window}};
    TRY_CUDA(allow(kernel, attn::Shape<D>::BYTES));
    TRY_CUDA(CUDA_LAUNCH(kernel, tiles, attn::THREADS, attn::Shape<D>::BYTES, stream_of(ctx), f));
    return OK;
}

static Err check_heads(int64_t N, int64_t K, int64_t D)
{
    ASSERT(N > 0 && K > 0 && N % K == 0);
    CHECK(D == 64 || D == 128 || D == 256, ERR_RECIPE, "attention on CUDA has heads of 64, 128 and 256, not of %lld: run this model on the CPU", (long long)D);
    return OK;
}

Err cuda_attn_fwd(Ctx *ctx, const AttnArgs *a)
{
    ASSERT_TYPE(a->q, DT_BF16);
    ASSERT_TYPE(a->k, DT_BF16);
    ASSERT_TYPE(a->v, DT_BF16);
    ASSERT_TYPE(a->o, DT_BF16);
    TRY(check_heads(a->N, a->K, a->D));
    if (is_hopper(ctx)) TRY(sm90_attn_fwd(ctx, a));
    else TRY(a->D == 64 ? forward<64>(ctx, a) : a->D == 128 ? forward<128>(ctx, a) : forward<256>(ctx, a));
    return clear_padding(ctx, table_of(a->seg, a->S, a->T), a->o, a->N * a->D, a->lse, a->N);
}

// --- backward ----------------------------------------------------------------------------------------------------------------

static int64_t mma_workspace(const AttnBwdArgs *a)
{
    using attn_bwd::bytes_of;
    return a->D == 64 ? bytes_of<attn_bwd::Shape<64>>(a) : a->D == 128 ? bytes_of<attn_bwd::Shape<128>>(a) : bytes_of<attn_bwd::Shape<256>>(a);
}

// What does for either form.
int64_t cuda_attn_bwd_workspace(const AttnBwdArgs *a)
{
    const int64_t mma = mma_workspace(a), sm90 = sm90_attn_bwd_workspace(a);
    return mma > sm90 ? mma : sm90;
}

template <int D> static Err backward(Ctx *ctx, const AttnBwdArgs *a)
{
    using H = attn_bwd::Shape<D>;
    const attn_bwd::Bwd b = attn_bwd::args_of<H>(a);
    const auto main = a->softcap > 0 ? attn_bwd_main<D, true> : attn_bwd_main<D, false>;
    const int64_t key_tiles = a->T / attn_bwd::KEYS + a->S;
    TRY_CUDA(allow(main, H::BYTES));
    TRY_CUDA(CUDA_LAUNCH(attn_bwd_prepare<D>, blocks_of(a->T * a->N, attn_bwd::PREPARE_WARPS), attn_bwd::PREPARE_THREADS, 0, stream_of(ctx), b));
    TRY_CUDA(CUDA_LAUNCH(main, (unsigned)(a->K * key_tiles), H::THREADS, H::BYTES, stream_of(ctx), b));
    return OK;
}

Err cuda_attn_bwd(Ctx *ctx, const AttnBwdArgs *a)
{
    const Tensor *const all[] = {&a->q, &a->k, &a->v, &a->o, &a->dout, &a->dq, &a->dk, &a->dv};
    for (const Tensor *t : all) ASSERT_TYPE(*t, DT_BF16);
    TRY(check_heads(a->N, a->K, a->D));
    if (is_hopper(ctx)) TRY(sm90_attn_bwd(ctx, a));
    else TRY(a->D == 64 ? backward<64>(ctx, a) : a->D == 128 ? backward<128>(ctx, a) : backward<256>(ctx, a));
    const attn::Table table = table_of(a->seg, a->S, a->T);
    TRY(clear_padding(ctx, table, a->dq, a->N * a->D, nullptr, 0));
    TRY(clear_padding(ctx, table, a->dk, a->K * a->D, nullptr, 0));
    return clear_padding(ctx, table, a->dv, a->K * a->D, nullptr, 0);
}
