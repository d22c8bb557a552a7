// SPDX-License-Identifier: Apache-2.0
// Attention on Hopper: tensor maps and launches. Compiled for sm_90a alone, so it has no kernel that another file has, too: the runtime knows one
// program a kernel.
#include "kernels/cuda/attn_bwd_sm90.cuh"
#include "kernels/cuda/attn_fwd_sm90.cuh"
#include "kernels/cuda/ops_attn.hpp"

// --- forward -----------------------------------------------------------------------------------------------------------------

template <int D> static Err forward(Ctx *ctx, const AttnArgs *a)
{
    using H = attn_sm90::Shape<D>;
    const auto kernel = a->softcap > 0 ? attn_fwd_sm90<D, true> : attn_fwd_sm90<D, false>;
    const dim3 tiles((unsigned)(a->T / attn_sm90::QUERIES + a->S), (unsigned)a->N);
    attn_sm90::Fwd f = {};
    TRY(map_of(ctx, a->q, a->T, a->N * D, attn_sm90::ROWS, &f.q));
    TRY(map_of(ctx, a->k, a->T, a->K * D, H::KEYS, &f.k));
    TRY(map_of(ctx, a->v, a->T, a->K * D, H::KEYS, &f.v));
    f.o = bf16(a->o), f.lse = a->lse, f.o_stride = a->o.stride, f.N = (int)a->N, f.K = (int)a->K;
    f.table = table_of(a->seg, a->S, a->T), f.rule = {a->scale, a->softcap, a->window};
    TRY_CUDA(allow(kernel, H::BYTES));
    TRY_CUDA(CUDA_LAUNCH(kernel, tiles, attn_sm90::THREADS, H::BYTES, stream_of(ctx), f));
    return OK;
}

Err sm90_attn_fwd(Ctx *ctx, const AttnArgs *a)
{
    ASSERT(a->D == 64 || a->D == 128 || a->D == 256);
    return a->D == 64 ? forward<64>(ctx, a) : a->D == 128 ? forward<128>(ctx, a) : forward<256>(ctx, a);
}

// --- backward ----------------------------------------------------------------------------------------------------------------

int64_t sm90_attn_bwd_workspace(const AttnBwdArgs *a)
{
    if (a->D == 64) return attn_bwd::bytes_of<attn_bwd_sm90::Shape<64>>(a);
    return a->D == 128 ? attn_bwd::bytes_of<attn_bwd_sm90::Shape<128>>(a) : a->D == 256 ? attn_bwd::bytes_of<attn_bwd_sm90::Shape<256>>(a) : 0;
}

template <int D> static Err backward(Ctx *ctx, const AttnBwdArgs *a)
{
    using H = attn_bwd_sm90::Shape<D>;
    const auto main = a->softcap > 0 ? attn_bwd_sm90_main<D, true> : attn_bwd_sm90_main<D, false>;
    const int64_t key_tiles = a->T / H::KEYS + a->S;
    attn_bwd_sm90::Bwd b = {};
    TRY(map_of(ctx, a->q, a->T, a->N * D, H::QUERIES, &b.q));
    TRY(map_of(ctx, a->dout, a->T, a->N * D, H::QUERIES, &b.dout));
    TRY(map_of(ctx, a->k, a->T, a->K * D, H::KEYS, &b.k));
    TRY(map_of(ctx, a->v, a->T, a->K * D, H::KEYS, &b.v));
    b.a = attn_bwd::args_of<H>(a);
    TRY_CUDA(allow(main, H::BYTES));
    TRY_CUDA(CUDA_LAUNCH(attn_bwd_prepare_sm90<D>, blocks_of(a->T * a->N, attn_bwd::PREPARE_WARPS), attn_bwd::PREPARE_THREADS, 0, stream_of(ctx), b.a));
    TRY_CUDA(CUDA_LAUNCH(main, (unsigned)(a->K * key_tiles), attn_bwd_sm90::THREADS, H::BYTES, stream_of(ctx), b));
    return OK;
}

Err sm90_attn_bwd(Ctx *ctx, const AttnBwdArgs *a)
{
    ASSERT(a->D == 64 || a->D == 128 || a->D == 256);
    return a->D == 64 ? backward<64>(ctx, a) : a->D == 128 ? backward<128>(ctx, a) : backward<256>(ctx, a);
}
