// SPDX-License-Identifier: Apache-2.0
// op_x entry points of the gemms, the embedding, the element-wise ops and the optimiser.
#include <math.h>
#include <string.h>

#include "base/profile.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cuda/device.h"

enum { TOKEN_GRAIN = 16, COLUMN_GRAIN = 64 };

static Err add_rows(Ctx *ctx, const GemmArgs *a)
{
    AddArgs args = {a->add, a->y, a->y, a->T, a->out};
    if (!a->add.p || a->add.p == a->y.p) return OK;
    return op_add(ctx, &args);
}

static void add_bias(const GemmArgs *a)
{
    for (int64_t t = 0; a->bias && t < a->T; t++) {
        float *y = row_f32(&a->y, t);
        for (int64_t o = 0; o < a->out; o++) y[o] += a->bias[o];
    }
}

static Err gemm_packed(Ctx *ctx, const GemmArgs *a)
{
    ASSERT(a->w.stride == a->in && a->in > 0);
    pieces(ctx, form_of(ctx)->gemm_packed, a, (a->out + PACK_PANEL - 1) / PACK_PANEL, 1);
    add_bias(a);
    return add_rows(ctx, a);
}

Err op_gemm_fwd(Ctx *ctx, const GemmArgs *a)
{
    ON_DEVICE(gemm_fwd);
    PROFILE(PHASE_GEMM);
    if (a->w.dtype == DT_BF16) return gemm16_fwd(ctx, a);
    CHECK_F32(a->x);
    CHECK_F32(a->w);
    CHECK_F32(a->y);
    if (a->packed) return gemm_packed(ctx, a);
    Gemm g = {.form = GEMM_NT, .M = a->T, .N = a->out, .K = a->in, .a = a->x.p, .b = a->w.p, .c = a->y.p,
              .lda = a->x.stride, .ldb = a->w.stride, .ldc = a->y.stride, .accumulate = a->add.p && a->add.p == a->y.p};
    TRY(gemm(ctx, &g));
    add_bias(a);
    return add_rows(ctx, a);
}

Err op_gemm_bwd_x(Ctx *ctx, const GemmDxArgs *a)
{
    ON_DEVICE(gemm_bwd_x);
    PROFILE(PHASE_GEMM);
    if (a->w.dtype == DT_BF16) return gemm16_bwd_x(ctx, a);
    CHECK_F32(a->dy);
    CHECK_F32(a->w);
    CHECK_F32(a->dx);
    Gemm g = {.form = GEMM_NN, .M = a->T, .N = a->in, .K = a->out, .a = a->dy.p, .b = a->w.p, .c = a->dx.p,
              .lda = a->dy.stride, .ldb = a->w.stride, .ldc = a->dx.stride};
    return gemm(ctx, &g);
}

static float dy_at(const GemmDwArgs *a, int64_t t, int64_t o)
{
    return a->dy.dtype == DT_BF16 ? bf16_to_f32(row_bf16(&a->dy, t)[o]) : row_f32(&a->dy, t)[o];
}

static void dbias_columns(const void *args, int64_t from, int64_t to)
{
    const GemmDwArgs *a = args;
    for (int32_t r = 0; r < a->rows; r++) {
        float sum[COLUMN_GRAIN] = {0};
        for (int64_t t = a->row[r]; t < a->row[r + 1]; t++)
            for (int64_t o = from; o < to; o++) sum[o - from] += dy_at(a, t, o);
        for (int64_t o = from; o < to; o++) a->dbias[o] += sum[o - from];
    }
}

static Err gemm_bwd_w_f32(const Ctx *ctx, const GemmDwArgs *a)
{
    CHECK_F32(a->dy);
    CHECK_F32(a->x);
    for (int32_t r = 0; r < a->rows; r++) {
        Gemm g = {.form = GEMM_TN, .M = a->out, .N = a->in, .K = a->row[r + 1] - a->row[r], .a = row_f32(&a->dy, a->row[r]),
                  .b = row_f32(&a->x, a->row[r]), .c = a->dw.p, .lda = a->dy.stride, .ldb = a->x.stride,
                  .ldc = a->dw.stride, .accumulate = true};
        TRY(gemm(ctx, &g));
    }
    return OK;
}

Err op_gemm_bwd_w(Ctx *ctx, const GemmDwArgs *a)
{
    ON_DEVICE(gemm_bwd_w);
    PROFILE(PHASE_GEMM);
    CHECK_F32(a->dw);
    TRY(a->dy.dtype == DT_BF16 ? gemm16_bwd_w(ctx, a) : gemm_bwd_w_f32(ctx, a));
    if (a->dbias) pieces(ctx, dbias_columns, a, a->out, COLUMN_GRAIN);
    return OK;
}

// Items: output features. Ascending sums of four tokens side by side: one alone would wait for each of its additions.
static void linear_f64(const void *args, int64_t from, int64_t to)
{
    enum { SIDE = 4 };
    const LinearF64Args *a = args;
    for (int64_t o = from; o < to; o++)
        for (int64_t t = 0; t < a->T; t += SIDE) {
            const int64_t last = a->T - 1, in = a->in;
            const double *x[SIDE];
            double sum[SIDE] = {0};
            for (int s = 0; s < SIDE; s++) x[s] = a->x + (t + s < last ? t + s : last) * in;
            for (int64_t i = 0; i < in; i++)
                for (int s = 0; s < SIDE; s++) sum[s] += (double)a->w[o * in + i] * x[s][i];
            for (int s = 0; s < SIDE && t + s < a->T; s++) {
                if (a->bias) sum[s] += (double)a->bias[o];
                a->y[(t + s) * a->out + o] = a->relu && sum[s] < 0 ? 0 : sum[s];
            }
        }
}

Err op_linear_f64(Ctx *ctx, const LinearF64Args *a)
{
    ON_DEVICE(linear_f64);
    PROFILE(PHASE_GEMM);
    pieces(ctx, linear_f64, a, a->out, COLUMN_GRAIN);
    return OK;
}

Err op_embed_fwd(Ctx *ctx, const EmbedArgs *a)
{
    ON_DEVICE(embed_fwd);
    PROFILE(PHASE_ELEMENTWISE);
    CHECK_F32(a->y);
    for (int64_t t = 0; t < a->T; t++) {
        ASSERT(a->token[t] >= 0 && a->token[t] < a->V);
        if (a->table.dtype == DT_BF16) bf16_packed_row(&a->table, a->token[t], row_f32(&a->y, t));
        else if (a->packed) unpack_row(&a->table, a->H, a->V, a->token[t], row_f32(&a->y, t));
        else memcpy(row_f32(&a->y, t), row_f32(&a->table, a->token[t]), (size_t)a->H * sizeof(float));
    }
    return OK;
}

Err op_embed_bwd(Ctx *ctx, const EmbedBwdArgs *a)
{
    ON_DEVICE(embed_bwd);
    PROFILE(PHASE_ELEMENTWISE);
    CHECK_F32(a->dy);
    CHECK_F32(a->dtable);
    for (int64_t t = 0; t < a->T; t++) {
        ASSERT(a->token[t] >= 0 && a->token[t] < a->V);
        float *sum = row_f32(&a->dtable, a->token[t]);
        const float *dy = row_f32(&a->dy, t);
        for (int64_t h = 0; h < a->H; h++) sum[h] += dy[h];
    }
    return OK;
}

Err op_rmsnorm_fwd(Ctx *ctx, const RmsNormArgs *a)
{
    ON_DEVICE(rmsnorm_fwd);
    PROFILE(PHASE_ELEMENTWISE);
    CHECK_F32(a->x);
    CHECK_FLOAT(a->y);
    pieces(ctx, form_of(ctx)->rmsnorm_fwd, a, a->T, TOKEN_GRAIN);
    return OK;
}

// dw first: it reads dy, which dx may share.
Err op_rmsnorm_bwd(Ctx *ctx, const RmsNormBwdArgs *a)
{
    ON_DEVICE(rmsnorm_bwd);
    PROFILE(PHASE_ELEMENTWISE);
    CHECK_F32(a->x);
    CHECK_F32(a->dy);
    CHECK_F32(a->dx);
    if (a->dw) pieces(ctx, form_of(ctx)->rmsnorm_bwd_w, a, a->H, COLUMN_GRAIN);
    pieces(ctx, form_of(ctx)->rmsnorm_bwd_x, a, a->T, TOKEN_GRAIN);
    return OK;
}

Err op_rope(Ctx *ctx, const RopeArgs *a)
{
    ON_DEVICE(rope);
    PROFILE(PHASE_ELEMENTWISE);
    CHECK_FLOAT(a->x);
    ASSERT(a->D % 2 == 0);
    pieces(ctx, form_of(ctx)->rope, a, a->T, TOKEN_GRAIN);
    return OK;
}

static Err glu_fwd(const Ctx *ctx, Piece *piece, const SwigluArgs *a)
{
    PROFILE(PHASE_ELEMENTWISE);
    CHECK_FLOAT(a->g);
    CHECK_SAME(a->u, a->g);
    CHECK_SAME(a->y, a->g);
    pieces(ctx, piece, a, a->T, TOKEN_GRAIN);
    return OK;
}

static Err glu_bwd(const Ctx *ctx, Piece *piece, const SwigluBwdArgs *a)
{
    PROFILE(PHASE_ELEMENTWISE);
    CHECK_FLOAT(a->g);
    CHECK_SAME(a->u, a->g);
    CHECK_SAME(a->dy, a->g);
    CHECK_SAME(a->dg, a->g);
    CHECK_SAME(a->du, a->g);
    pieces(ctx, piece, a, a->T, TOKEN_GRAIN);
    return OK;
}

Err op_swiglu_fwd(Ctx *ctx, const SwigluArgs *a)
{
    ON_DEVICE(swiglu_fwd);
    return glu_fwd(ctx, form_of(ctx)->swiglu_fwd, a);
}

Err op_swiglu_bwd(Ctx *ctx, const SwigluBwdArgs *a)
{
    ON_DEVICE(swiglu_bwd);
    return glu_bwd(ctx, form_of(ctx)->swiglu_bwd, a);
}

Err op_geglu_fwd(Ctx *ctx, const GegluArgs *a)
{
    ON_DEVICE(geglu_fwd);
    return glu_fwd(ctx, form_of(ctx)->geglu_fwd, a);
}

Err op_geglu_bwd(Ctx *ctx, const GegluBwdArgs *a)
{
    ON_DEVICE(geglu_bwd);
    return glu_bwd(ctx, form_of(ctx)->geglu_bwd, a);
}

Err op_add(Ctx *ctx, const AddArgs *a)
{
    ON_DEVICE(add);
    PROFILE(PHASE_ELEMENTWISE);
    CHECK_F32(a->a);
    CHECK_F32(a->b);
    CHECK_F32(a->y);
    pieces(ctx, form_of(ctx)->add, a, a->T, TOKEN_GRAIN);
    return OK;
}

Err op_adamw(Ctx *ctx, const AdamWArgs *a)
{
    ON_DEVICE(adamw);
    PROFILE(PHASE_OPTIM);
    pieces(ctx, form_of(ctx)->adamw, a, (a->n + NORM_BLOCK - 1) / NORM_BLOCK, 4);
    return OK;
}

// Items: blocks of NORM_BLOCK.
static void fixed_add(const void *args, int64_t from, int64_t to)
{
    const FixedAddArgs *a = args;
    const int64_t end = to * NORM_BLOCK < a->n ? to * NORM_BLOCK : a->n;
    for (int64_t i = from * NORM_BLOCK; i < end; i++) {
        const float g = a->g[i];
        a->g[i] = 0;
        if (fabsf(g) < (float)(1 << FIXED_LIMIT)) a->sum[i] += llrintf(ldexpf(g, FIXED_BITS));
        else *a->bad = 1;
    }
}

Err op_fixed_add(Ctx *ctx, const FixedAddArgs *a)
{
    ON_DEVICE(fixed_add);
    PROFILE(PHASE_OPTIM);
    const Ctx alone = {.threads = 1};  // all blocks may write *bad
    pieces(&alone, fixed_add, a, (a->n + NORM_BLOCK - 1) / NORM_BLOCK, 4);
    return OK;
}

static void fixed_get(const void *args, int64_t from, int64_t to)
{
    const FixedGetArgs *a = args;
    const int64_t end = to * NORM_BLOCK < a->n ? to * NORM_BLOCK : a->n;
    for (int64_t i = from * NORM_BLOCK; i < end; i++) a->g[i] = ldexpf((float)a->sum[i], -FIXED_BITS);
}

Err op_fixed_get(Ctx *ctx, const FixedGetArgs *a)
{
    ON_DEVICE(fixed_get);
    PROFILE(PHASE_OPTIM);
    pieces(ctx, fixed_get, a, (a->n + NORM_BLOCK - 1) / NORM_BLOCK, 4);
    return OK;
}

Err op_sqnorm(Ctx *ctx, const SqNormArgs *a)
{
    ON_DEVICE(sqnorm);
    PROFILE(PHASE_OPTIM);
    pieces(ctx, form_of(ctx)->sqnorm, a, (a->n + NORM_BLOCK - 1) / NORM_BLOCK, 4);
    return OK;
}
