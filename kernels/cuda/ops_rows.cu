// SPDX-License-Identifier: Apache-2.0
// cuda_x of the row-wise ops and of the optimiser.
#include "kernels/cuda/device.hpp"
#include "kernels/cuda/optim.cuh"

using rows::THREADS;
using rows::WIDE;

static_assert((int)optim::BLOCK == (int)NORM_BLOCK, "the same blocks on both sides");

// Blocks of THREADS for groups of so many values of [T][width].
static unsigned groups(int64_t T, int64_t width, int64_t of) { return blocks_of(T * ((width + of - 1) / of), THREADS); }

static unsigned warps(int64_t T) { return blocks_of(T, THREADS / rows::WARP); }
static unsigned pieces(int64_t T, int64_t width) { return warps(T * rows::pieces_of(width)); }

Err cuda_linear_f64(Ctx *ctx, const LinearF64Args *a)
{
    const rows::LinearF64 l = {a->x, a->w, a->bias, a->y, a->T, a->in, a->out, a->relu};
    TRY_CUDA(CUDA_LAUNCH(linear_f64, warps(a->T * a->out), THREADS, 0, stream_of(ctx), l));
    return OK;
}

Err cuda_round(Ctx *ctx, const RoundArgs *a)
{
    ASSERT_TYPE(a->x, DT_F32);
    ASSERT_TYPE(a->y, DT_BF16);
    const rows::Sum s = {f32(a->x), nullptr, nullptr, bf16(a->y), a->x.stride, 0, a->y.stride, a->T, a->H};
    TRY_CUDA(CUDA_LAUNCH(round_rows, pieces(a->T, a->H), THREADS, 0, stream_of(ctx), s));
    return OK;
}

Err cuda_add(Ctx *ctx, const AddArgs *a)
{
    ASSERT_TYPE(a->a, DT_F32);
    ASSERT_TYPE(a->b, DT_F32);
    ASSERT_TYPE(a->y, DT_F32);
    const rows::Sum s = {f32(a->a), f32(a->b), f32(a->y), nullptr, a->a.stride, a->b.stride, a->y.stride, a->T, a->H};
    TRY_CUDA(CUDA_LAUNCH(add_rows, pieces(a->T, a->H), THREADS, 0, stream_of(ctx), s));
    return OK;
}

template <typename Y> static Err norm(Ctx *ctx, const RmsNormArgs *a)
{
    const rows::Norm<Y> n = {f32(a->x), (Y *)a->y.p, a->w, a->rstd, a->x.stride, a->y.stride, a->T, a->H, a->eps};
    TRY_CUDA(CUDA_LAUNCH(rmsnorm_fwd<Y>, warps(a->T), THREADS, 0, stream_of(ctx), n));
    return OK;
}

Err cuda_rmsnorm_fwd(Ctx *ctx, const RmsNormArgs *a)
{
    ASSERT_TYPE(a->x, DT_F32);
    ASSERT(a->y.stride % 8 == 0);
    return a->y.dtype == DT_BF16 ? norm<uint16_t>(ctx, a) : norm<float>(ctx, a);
}

Err cuda_rmsnorm_bwd(Ctx *ctx, const RmsNormBwdArgs *a)
{
    ASSERT_TYPE(a->x, DT_F32);
    ASSERT_TYPE(a->dy, DT_F32);
    ASSERT_TYPE(a->dx, DT_F32);
    const rows::NormBwd n = {f32(a->x), f32(a->dy), f32(a->dx_in), f32(a->dx), a->w, a->rstd, a->dw, a->row, a->rows,
                             a->x.stride, a->dy.stride, a->dx_in.stride, a->dx.stride, a->T, a->H};
    if (a->dw) TRY_CUDA(CUDA_LAUNCH(rmsnorm_bwd_w, blocks_of(a->H, rows::WARP), rows::SUM_THREADS, rows::SUM_BYTES, stream_of(ctx), n));
    TRY_CUDA(CUDA_LAUNCH(rmsnorm_bwd_x, warps(a->T), THREADS, 0, stream_of(ctx), n));
    return OK;
}

Err cuda_rope(Ctx *ctx, const RopeArgs *a)
{
    ASSERT_TYPE(a->x, DT_BF16);
    ASSERT(a->D % 16 == 0);
    const rows::Rope r = {bf16(a->x), a->x.stride, a->pos, a->table, a->T, a->heads, a->D, a->inverse};
    TRY_CUDA(CUDA_LAUNCH(rope, groups(a->T, a->heads * (a->D / 2), rows::FOUR), THREADS, 0, stream_of(ctx), r));
    return OK;
}

static_assert(rows::GELU_W1 == (float)(2 * GELU_SCALE), "the CPU's gelu");
static_assert(rows::GELU_W3 == (float)(2 * GELU_SCALE * GELU_CUBE), "the CPU's gelu");

template <typename Gate> static Err glu(Ctx *ctx, const SwigluArgs *a)
{
    ASSERT_TYPE(a->g, DT_BF16);
    ASSERT_TYPE(a->u, DT_BF16);
    ASSERT_TYPE(a->y, DT_BF16);
    rows::Glu s = {};
    s.g = bf16(a->g), s.u = bf16(a->u), s.y = bf16(a->y);
    s.g_stride = a->g.stride, s.u_stride = a->u.stride, s.y_stride = a->y.stride, s.T = a->T, s.F = a->F;
    TRY_CUDA(CUDA_LAUNCH(glu_fwd<Gate>, groups(a->T, a->F, WIDE), THREADS, 0, stream_of(ctx), s));
    return OK;
}

template <typename Gate> static Err glu_back(Ctx *ctx, const SwigluBwdArgs *a)
{
    ASSERT_TYPE(a->g, DT_BF16);
    ASSERT_TYPE(a->u, DT_BF16);
    ASSERT_TYPE(a->dy, DT_BF16);
    ASSERT_TYPE(a->dg, DT_BF16);
    ASSERT_TYPE(a->du, DT_BF16);
    rows::Glu s = {};
    s.g = bf16(a->g), s.u = bf16(a->u), s.dy = bf16(a->dy), s.dg = bf16(a->dg), s.du = bf16(a->du);
    s.g_stride = a->g.stride, s.u_stride = a->u.stride, s.dy_stride = a->dy.stride, s.dg_stride = a->dg.stride, s.du_stride = a->du.stride;
    s.T = a->T, s.F = a->F;
    TRY_CUDA(CUDA_LAUNCH(glu_bwd<Gate>, groups(a->T, a->F, WIDE), THREADS, 0, stream_of(ctx), s));
    return OK;
}

Err cuda_swiglu_fwd(Ctx *ctx, const SwigluArgs *a) { return glu<rows::Silu>(ctx, a); }
Err cuda_swiglu_bwd(Ctx *ctx, const SwigluBwdArgs *a) { return glu_back<rows::Silu>(ctx, a); }
Err cuda_geglu_fwd(Ctx *ctx, const GegluArgs *a) { return glu<rows::Gelu>(ctx, a); }
Err cuda_geglu_bwd(Ctx *ctx, const GegluBwdArgs *a) { return glu_back<rows::Gelu>(ctx, a); }

Err cuda_embed_fwd(Ctx *ctx, const EmbedArgs *a)
{
    ASSERT_TYPE(a->table, DT_BF16);
    ASSERT_TYPE(a->y, DT_F32);
    const rows::Embed e = {bf16(a->table), f32(a->y), nullptr, a->token, a->table.stride, a->y.stride, 0, a->T, a->H};
    TRY_CUDA(CUDA_LAUNCH(embed_fwd, pieces(a->T, a->H), THREADS, 0, stream_of(ctx), e));
    return OK;
}

Err cuda_embed_bwd(Ctx *ctx, const EmbedBwdArgs *a)
{
    ASSERT_TYPE(a->dy, DT_F32);
    ASSERT_TYPE(a->dtable, DT_F32);
    const rows::Embed e = {nullptr, f32(a->dy), f32(a->dtable), a->token, 0, a->dy.stride, a->dtable.stride, a->T, a->H};
    TRY_CUDA(CUDA_LAUNCH(embed_bwd, (unsigned)a->T, THREADS, THREADS / rows::WARP * sizeof(unsigned), stream_of(ctx), e));
    return OK;
}

Err cuda_adamw(Ctx *ctx, const AdamWArgs *a)
{
    const optim::AdamW o = {a->w, a->m, a->v, a->g, a->rounded, a->n, a->clip, a->lr, a->step, a->beta1, a->beta2, a->eps, a->decay};
    TRY_CUDA(CUDA_LAUNCH(adamw, blocks_of(a->n, optim::THREADS * WIDE), optim::THREADS, 2 * sizeof(float), stream_of(ctx), o));
    return OK;
}

Err cuda_fixed_add(Ctx *ctx, const FixedAddArgs *a)
{
    static_assert((int)FIXED_BITS == (int)optim::FIXED_SHIFT && (int)FIXED_LIMIT == (int)optim::FIXED_MOST, "as the kernel has it");
    TRY_CUDA(CUDA_LAUNCH(fixed_add, blocks_of(a->n, optim::BLOCK), optim::THREADS, 0, stream_of(ctx), a->g, a->sum, a->n, a->bad));
    return OK;
}

Err cuda_fixed_get(Ctx *ctx, const FixedGetArgs *a)
{
    TRY_CUDA(CUDA_LAUNCH(fixed_get, blocks_of(a->n, optim::BLOCK), optim::THREADS, 0, stream_of(ctx), a->sum, a->g, a->n));
    return OK;
}

Err cuda_sqnorm(Ctx *ctx, const SqNormArgs *a)
{
    TRY_CUDA(CUDA_LAUNCH(sqnorm, blocks_of(a->n, NORM_BLOCK), optim::THREADS, optim::THREADS * sizeof(double), stream_of(ctx), a->g, a->n, a->sum));
    return OK;
}
