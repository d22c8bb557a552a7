// SPDX-License-Identifier: Apache-2.0
// op_x entry points of packing and rounding, and the bf16 halves of the gemms and of the embedding.
#include "base/profile.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cuda/device.h"

enum { PANEL_GRAIN = 8, TOKEN_GRAIN = 16 };
_Static_assert((int)BF16_ROWS == (int)BF16_PANEL, "rows are packed by panels");

int64_t op_pack_bf16_elements(int64_t out, int64_t in) { return pack16_elements(out, in); }

Err op_pack_bf16(Ctx *ctx, const PackBf16Args *a)
{
    CHECK_F32(a->w);
    ASSERT(a->packed && a->from % BF16_ROWS == 0 && (a->to % BF16_ROWS == 0 || a->to == a->out) && a->to <= a->out);
    Pack16 p = {.w = {row_f32(&a->w, a->from), DT_F32, a->w.stride}, .rows = a->to - a->from, .cols = a->in,
                .packed = (uint32_t *)a->packed + a->from * bf16_pairs(a->in)};
    pieces(ctx, form_of(ctx)->pack16, &p, bf16_panels(p.rows), PANEL_GRAIN);
    return OK;
}

Err op_round(Ctx *ctx, const RoundArgs *a)
{
    ON_DEVICE(round);
    PROFILE(PHASE_ELEMENTWISE);
    CHECK_F32(a->x);
    CHECK_BF16(a->y);
    Round16 r = {.x = a->x.p, .y = a->y.p, .ldx = a->x.stride, .ldy = a->y.stride, .n = a->H};
    pieces(ctx, form_of(ctx)->round16, &r, a->T, TOKEN_GRAIN);
    return OK;
}

Err gemm16_fwd(const Ctx *ctx, const GemmArgs *a)
{
    CHECK_BF16(a->x);
    ASSERT(a->in % 2 == 0 && a->x.stride % 2 == 0 && a->w.stride == a->in && (!a->add.p || a->add.dtype == DT_F32));
    Gemm16 g = {.M = a->T, .N = a->out, .K = a->in, .b = a->w.p, .c = a->y, .bias = a->bias, .add = a->add.p,
                .ld_add = a->add.stride};
    gemm16_a(&g, a->x.p, a->x.stride);
    return gemm16(ctx, &g);
}

Err gemm16_bwd_x(const Ctx *ctx, const GemmDxArgs *a)
{
    CHECK_BF16(a->dy);
    ASSERT(a->out % 2 == 0 && a->dy.stride % 2 == 0 && a->w.stride == a->in);
    Gemm16 g = {.M = a->T, .N = a->in, .K = a->out, .b = a->w.p, .turned = true, .c = a->dx};
    gemm16_a(&g, a->dy.p, a->dy.stride);
    return gemm16(ctx, &g);
}

static int64_t longest_row(const GemmDwArgs *a)
{
    int64_t n = 0;
    for (int32_t r = 0; r < a->rows; r++)
        if (a->row[r + 1] - a->row[r] > n) n = a->row[r + 1] - a->row[r];
    return n;
}

int64_t op_gemm_bwd_w_workspace(const Ctx *ctx, const GemmDwArgs *a)
{
    if (on_device(ctx) || a->dy.dtype != DT_BF16) return 0;
    int64_t n = longest_row(a);
    return (pack16_elements(a->out, n) + pack16_elements(a->in, n)) * (int64_t)sizeof(uint16_t);
}

// x[rows][cols] by columns.
static uint32_t *packed_t(const Ctx *ctx, const Tensor *x, int64_t first, int64_t rows, int64_t cols, uint32_t *at)
{
    Pack16 p = {.w = {(uint16_t *)x->p + first * x->stride, DT_BF16, x->stride}, .rows = rows, .cols = cols, .packed = at};
    pieces(ctx, form_of(ctx)->pack16_t, &p, bf16_panels(cols), PANEL_GRAIN);
    return at + pack16_elements(cols, rows) / 2;
}

static Err row_bwd_w(const Ctx *ctx, const GemmDwArgs *a, int64_t first, int64_t n)
{
    if (n == 0) return OK;  // an empty sequence adds nothing
    uint32_t *dy = a->workspace, *x = packed_t(ctx, &a->dy, first, n, a->out, dy);
    packed_t(ctx, &a->x, first, n, a->in, x);
    Gemm16 g = {.M = a->out, .N = a->in, .K = n, .b = x, .c = a->dw, .add = a->dw.p, .ld_add = a->dw.stride};
    gemm16_a_packed(&g, dy, n);
    return gemm16(ctx, &g);
}

Err gemm16_bwd_w(const Ctx *ctx, const GemmDwArgs *a)
{
    CHECK_BF16(a->dy);
    CHECK_BF16(a->x);
    for (int32_t r = 0; r < a->rows; r++) TRY(row_bwd_w(ctx, a, a->row[r], a->row[r + 1] - a->row[r]));
    return OK;
}

// Row v of a packed matrix, widened.
void bf16_packed_row(const Tensor *w, int64_t v, float *out)
{
    int64_t pairs = bf16_pairs(w->stride);
    const uint32_t *p = (const uint32_t *)w->p + v / BF16_PANEL * pairs * BF16_PANEL + v % BF16_PANEL;
    for (int64_t k = 0; k < w->stride; k++) {
        uint32_t pair = p[k / 2 * BF16_PANEL];
        out[k] = bf16_to_f32((uint16_t)(k % 2 ? pair >> 16 : pair));
    }
}
