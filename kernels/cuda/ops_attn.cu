// SPDX-License-Identifier: Apache-2.0
// cuda_x of attention.
#include "kernels/cuda/attn_bwd.cuh"
#include "kernels/cuda/attn_fwd.cuh"
#include "kernels/cuda/device.hpp"
#include "kernels/cuda/rows.cuh"

static_assert(sizeof(attn::Seg) == sizeof(Segment), "segments are read where they lie");

enum { CLEAR_THREADS = 128 };

static attn::Table table_of(const Segment *seg, int64_t S, int64_t T) { return {(const attn::Seg *)seg, (int)S, (int)T}; }

static Err clear_padding(Ctx *ctx, const attn::Table &t, const Tensor &x, int64_t width, float *lse, int64_t N)
{
    TRY_CUDA(CUDA_LAUNCH(attn_clear_padding, (unsigned)t.T, CLEAR_THREADS, 0, stream_of(ctx), t, bf16(x), x.stride, (int)width, lse, (int)N));
    return OK;
}

// --- forward -----------------------------------------------------------------------------------------------------------------

template <int D> static Err forward(Ctx *ctx, const attn::Fwd &f)
{
    const auto kernel = f.rule.softcap > 0 ? attn_fwd<D, true> : attn_fwd<D, false>;
    const unsigned tiles = (unsigned)(f.table.T / attn::QUERIES + f.table.S);
    TRY_CUDA(allow(kernel, attn::Shape<D>::BYTES));
    TRY_CUDA(CUDA_LAUNCH(kernel, dim3(tiles, (unsigned)f.N), attn::THREADS, attn::Shape<D>::BYTES, stream_of(ctx), f));
    return OK;
}

Err cuda_attn_fwd(Ctx *ctx, const AttnArgs *a)
{
    ASSERT_TYPE(a->q, DT_BF16);
    ASSERT_TYPE(a->k, DT_BF16);
    ASSERT_TYPE(a->v, DT_BF16);
    ASSERT_TYPE(a->o, DT_BF16);
    ASSERT(a->N > 0 && a->K > 0 && a->N % a->K == 0);
    const attn::Table table = table_of(a->seg, a->S, a->T);
    const attn::Fwd f = {bf16(a->q), bf16(a->k), bf16(a->v), bf16(a->o), a->lse, a->q.stride, a->k.stride, a->v.stride, a->o.stride,
                         (int)a->N, (int)a->K, table, {a->scale, a->softcap, a->window}};
    switch (a->D) {
    case 64: TRY(forward<64>(ctx, f)); break;
    case 128: TRY(forward<128>(ctx, f)); break;
    case 256: TRY(forward<256>(ctx, f)); break;
    default: FAIL(ERR_RECIPE, "attention on CUDA has heads of 64, 128 and 256, not of %lld: run this model on the CPU", (long long)a->D);
    }
    return clear_padding(ctx, table, a->o, a->N * a->D, a->lse, a->N);
}

// --- backward ----------------------------------------------------------------------------------------------------------------

// The workspace: delta, turns, sums; each begins at a multiple of 64 bytes.
struct Space {
    int64_t turn, sums, bytes;  // offsets
    int query_tiles;
};

template <int D> static Space space_of(int64_t T, int64_t S, int64_t N)
{
    using H = attn_bwd::Shape<D>;
    Space s;
    s.query_tiles = (int)(T / H::QUERIES + S);
    s.turn = round64(T * N * (int64_t)sizeof(float));
    s.sums = s.turn + round64(H::turns((int)N, s.query_tiles) * (int64_t)sizeof(uint32_t));
    s.bytes = s.sums + H::sums((int)N, s.query_tiles) * (int64_t)sizeof(float);
    return s;
}

int64_t cuda_attn_bwd_workspace(const AttnBwdArgs *a)
{
    return (a->D == 64 ? space_of<64>(a->T, a->S, a->N) : a->D == 128 ? space_of<128>(a->T, a->S, a->N) : space_of<256>(a->T, a->S, a->N)).bytes;
}

template <int D> static Err backward(Ctx *ctx, attn_bwd::Bwd b, void *workspace)
{
    using H = attn_bwd::Shape<D>;
    const Space s = space_of<D>(b.table.T, b.table.S, b.N);
    const auto main = b.rule.softcap > 0 ? attn_bwd_main<D, true> : attn_bwd_main<D, false>;
    const unsigned key_tiles = (unsigned)(b.table.T / attn_bwd::KEYS + b.table.S);
    b.delta = (float *)workspace;
    b.turn = (uint32_t *)((char *)workspace + s.turn);
    b.sums = (float *)((char *)workspace + s.sums);
    b.query_tiles = s.query_tiles;
    TRY_CUDA(allow(main, H::BYTES));
    TRY_CUDA(CUDA_LAUNCH(attn_bwd_prepare<D>, blocks_of((int64_t)b.table.T * b.N, rows::THREADS / rows::WARP), rows::THREADS, 0, stream_of(ctx), b));
    TRY_CUDA(CUDA_LAUNCH(main, (unsigned)b.K * key_tiles, H::THREADS, H::BYTES, stream_of(ctx), b));
    return OK;
}

Err cuda_attn_bwd(Ctx *ctx, const AttnBwdArgs *a)
{
    const Tensor *const all[] = {&a->q, &a->k, &a->v, &a->o, &a->dout, &a->dq, &a->dk, &a->dv};
    for (const Tensor *t : all) ASSERT_TYPE(*t, DT_BF16);
    ASSERT(a->N > 0 && a->K > 0 && a->N % a->K == 0);
    const attn::Table table = table_of(a->seg, a->S, a->T);
    attn_bwd::Bwd b = {};
    b.q = bf16(a->q), b.k = bf16(a->k), b.v = bf16(a->v), b.o = bf16(a->o), b.dout = bf16(a->dout), b.lse = a->lse;
    b.dq = bf16(a->dq), b.dk = bf16(a->dk), b.dv = bf16(a->dv);
    b.q_stride = a->q.stride, b.k_stride = a->k.stride, b.v_stride = a->v.stride, b.o_stride = a->o.stride, b.dout_stride = a->dout.stride;
    b.dq_stride = a->dq.stride, b.dk_stride = a->dk.stride, b.dv_stride = a->dv.stride;
    b.N = (int)a->N, b.K = (int)a->K, b.table = table, b.rule = {a->scale, a->softcap, a->window};
    switch (a->D) {
    case 64: TRY(backward<64>(ctx, b, a->workspace)); break;
    case 128: TRY(backward<128>(ctx, b, a->workspace)); break;
    case 256: TRY(backward<256>(ctx, b, a->workspace)); break;
    default: FAIL(ERR_RECIPE, "attention on CUDA has heads of 64, 128 and 256, not of %lld: run this model on the CPU", (long long)a->D);
    }
    TRY(clear_padding(ctx, table, a->dq, a->N * a->D, nullptr, 0));
    TRY(clear_padding(ctx, table, a->dk, a->K * a->D, nullptr, 0));
    return clear_padding(ctx, table, a->dv, a->K * a->D, nullptr, 0);
}
