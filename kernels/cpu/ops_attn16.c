// SPDX-License-Identifier: Apache-2.0
// The bf16 halves of attention's entry points: operands packed for tiles of the bf16 gemm, or, for the plain forms, widened,
// computed in fp32 and rounded.
#include <string.h>

#include "kernels/cpu/attn16.h"

// --- through fp32 ------------------------------------------------------------------------------------------------------

enum { TOKEN_GRAIN = 16 };

// fp32 memory for x[T][width], taken from *at.
static Tensor take(float **at, int64_t T, int64_t width)
{
    Tensor t = tensor_f32(*at, width);
    *at += T * width;
    return t;
}

static Tensor widened(const Ctx *ctx, const Tensor *x, int64_t T, int64_t width, float **at)
{
    Tensor y = take(at, T, width);
    Widen16 a = {.x = x->p, .y = y.p, .ldx = x->stride, .ldy = width, .n = width};
    pieces(ctx, form_of(ctx)->widen16, &a, T, TOKEN_GRAIN);
    return y;
}

static void rounded(const Ctx *ctx, const Tensor *x, const Tensor *y, int64_t T, int64_t width)
{
    Round16 a = {.x = x->p, .y = y->p, .ldx = width, .ldy = y->stride, .n = width};
    pieces(ctx, form_of(ctx)->round16, &a, T, TOKEN_GRAIN);
}

static Err fwd_widened(Ctx *ctx, const AttnArgs *a)
{
    AttnArgs f = *a;
    float *at = a->workspace;
    f.q = widened(ctx, &a->q, a->T, a->N * a->D, &at);
    f.k = widened(ctx, &a->k, a->T, a->K * a->D, &at);
    f.v = widened(ctx, &a->v, a->T, a->K * a->D, &at);
    f.o = take(&at, a->T, a->N * a->D);
    f.workspace = at;
    TRY(op_attn_fwd(ctx, &f));
    rounded(ctx, &f.o, &a->o, a->T, a->N * a->D);
    return OK;
}

static Err bwd_widened(Ctx *ctx, const AttnBwdArgs *a)
{
    AttnBwdArgs f = *a;
    float *at = a->workspace;
    int64_t wide = a->N * a->D, narrow = a->K * a->D;
    f.q = widened(ctx, &a->q, a->T, wide, &at);
    f.k = widened(ctx, &a->k, a->T, narrow, &at);
    f.v = widened(ctx, &a->v, a->T, narrow, &at);
    f.o = widened(ctx, &a->o, a->T, wide, &at);
    f.dout = widened(ctx, &a->dout, a->T, wide, &at);
    f.dq = take(&at, a->T, wide);
    f.dk = take(&at, a->T, narrow);
    f.dv = take(&at, a->T, narrow);
    f.workspace = at;
    TRY(op_attn_bwd(ctx, &f));
    rounded(ctx, &f.dq, &a->dq, a->T, wide);
    rounded(ctx, &f.dk, &a->dk, a->T, narrow);
    rounded(ctx, &f.dv, &a->dv, a->T, narrow);
    return OK;
}

static int64_t widened_fwd_bytes(const AttnArgs *a)
{
    AttnArgs f = *a;
    f.q.dtype = DT_F32;
    return a->T * 2 * (a->N + a->K) * a->D * (int64_t)sizeof(float) + op_attn_fwd_workspace(NULL, &f);
}

static int64_t widened_bwd_bytes(const AttnBwdArgs *a)
{
    AttnBwdArgs f = *a;
    f.q.dtype = DT_F32;
    return a->T * 4 * (a->N + a->K) * a->D * (int64_t)sizeof(float) + op_attn_bwd_workspace(NULL, &f);
}

// --- tiles ---------------------------------------------------------------------------------------------------------------

// Takes n units of 4 bytes of the workspace (NULL: only counts).
static void *cut(uint32_t *workspace, int64_t *at, int64_t n)
{
    void *p = workspace ? workspace + *at : NULL;
    *at += n;
    return p;
}

// Cuts the workspace (NULL: only measures) and returns its bytes.
static int64_t attn16_cut(Attn16 *g, uint32_t *workspace, bool backward)
{
    const AttnBwdArgs *a = &g->a;
    int64_t rows = unit_rows16(a->D), columns = unit_columns16(a->D), at = 0, many = backward;
    g->blocks = a->T / BLOCK16 + a->S;
    g->k = cut(workspace, &at, g->blocks * a->K * rows);
    g->v = cut(workspace, &at, g->blocks * a->K * (backward ? rows : columns));
    g->kt = cut(workspace, &at, many * g->blocks * a->K * columns);
    g->qt = cut(workspace, &at, many * g->blocks * a->N * columns);
    g->dot = cut(workspace, &at, many * g->blocks * a->N * columns);
    g->dq = cut(workspace, &at, many * a->N * halves16(a->D) * g->blocks * BLOCK16 * TILE16_COLUMNS);
    g->delta = cut(workspace, &at, many * a->N * a->T);
    return at * (int64_t)sizeof(uint32_t);
}

static Attn16 of_forward(const AttnArgs *a)
{
    return (Attn16){.a = {.q = a->q, .k = a->k, .v = a->v, .seg = a->seg, .T = a->T, .S = a->S, .N = a->N, .K = a->K, .D = a->D,
                          .scale = a->scale, .softcap = a->softcap, .window = a->window}, .o = a->o, .lse = a->lse};
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

int64_t attn16_fwd_workspace(const AttnArgs *a)
{
    Attn16 g = of_forward(a);
    return larger(attn16_cut(&g, NULL, false), widened_fwd_bytes(a));
}

int64_t attn16_bwd_workspace(const AttnBwdArgs *a)
{
    Attn16 g = {.a = *a};
    return larger(attn16_cut(&g, NULL, true), widened_bwd_bytes(a));
}

static void zero_rows(const Tensor *t, int64_t rows, int64_t width)
{
    for (int64_t i = 0; i < rows; i++) memset(row_bf16(t, i), 0, (size_t)width * sizeof(uint16_t));
}

Err attn16_fwd(Ctx *ctx, const AttnArgs *a)
{
    const Form *form = form_of(ctx);
    CHECK_SAME(a->k, a->q);
    CHECK_SAME(a->v, a->q);
    CHECK_SAME(a->o, a->q);
    if (!form->attn16_fwd) return fwd_widened(ctx, a);
    Attn16 g = of_forward(a);
    attn16_cut(&g, a->workspace, false);
    g.tile = tile16_of(ctx);
    zero_rows(&a->o, a->T, a->N * a->D);
    if (a->lse) memset(a->lse, 0, (size_t)(a->N * a->T) * sizeof(float));
    pieces(ctx, form->attn16_pack, &g, a->S * a->K, 1);
    pieces(ctx, form->attn16_fwd, &g, a->S * a->N, 1);
    return OK;
}

Err attn16_bwd(Ctx *ctx, const AttnBwdArgs *a)
{
    const Form *form = form_of(ctx);
    const Tensor *all[] = {&a->k, &a->v, &a->o, &a->dout, &a->dq, &a->dk, &a->dv};
    for (int i = 0; i < 7; i++) CHECK_SAME(*all[i], a->q);
    if (!form->attn16_bwd) return bwd_widened(ctx, a);
    Attn16 g = {.a = *a};
    attn16_cut(&g, a->workspace, true);
    g.tile = tile16_of(ctx);
    zero_rows(&a->dq, a->T, a->N * a->D);
    zero_rows(&a->dk, a->T, a->K * a->D);
    zero_rows(&a->dv, a->T, a->K * a->D);
    pieces(ctx, form->attn16_bwd_pack, &g, a->S * a->K, 1);
    pieces(ctx, form->attn16_bwd, &g, a->S * a->K, 1);
    return OK;
}

// --- decode ----------------------------------------------------------------------------------------------------------------

uint16_t *attn16_cached(const void *pages, int64_t K, int64_t D, int64_t page, int which, int64_t kv, int64_t j, int64_t d)
{
    int64_t rows = unit_rows16(D), columns = unit_columns16(D);
    uint32_t *unit = (uint32_t *)pages + page * K * (rows + columns) + (which ? K * rows + kv * columns : kv * rows);
    if (which) return (uint16_t *)(unit + (d / BF16_PANEL * bf16_pairs(KV_PAGE) + j / 2) * BF16_PANEL + d % BF16_PANEL) + j % 2;
    return (uint16_t *)(unit + (j / BF16_PANEL * bf16_pairs(D) + d / 2) * BF16_PANEL + j % BF16_PANEL) + d % 2;
}

// Pairs of a key lie a panel's width apart in the key's column, values of a value two halves apart in its place's line.
static void store_head(const KvStoreArgs *a, int64_t i, int64_t h)
{
    const uint16_t *k = row_bf16(&a->k, i) + h * a->D, *v = row_bf16(&a->v, i) + h * a->D;
    uint16_t *key = attn16_cached(a->pages, a->K, a->D, a->page[i], 0, h, a->place[i], 0);
    for (int64_t d = 0; d < a->D; d += 2) memcpy(key + d * BF16_PANEL, k + d, 2 * sizeof *k);
    for (int64_t d = 0; d < a->D; d += BF16_PANEL) {
        uint16_t *value = attn16_cached(a->pages, a->K, a->D, a->page[i], 1, h, a->place[i], d);
        for (int64_t e = 0; e < least(BF16_PANEL, a->D - d); e++) value[2 * e] = v[d + e];
    }
}

// A page is cleared with its first token: what is not filled must be zero, not NaN, for tiles that read more.
void attn16_store(const KvStoreArgs *a)
{
    int64_t bytes = op_kv_page_bytes(NULL, DT_BF16, a->K, a->D);
    for (int64_t i = 0; i < a->n; i++) {
        if (a->place[i] == 0) memset((char *)a->pages + a->page[i] * bytes, 0, (size_t)bytes);
        for (int64_t h = 0; h < a->K; h++) store_head(a, i, h);
    }
}

Err attn16_decode(Ctx *ctx, const DecodeAttnArgs *a)
{
    const Form *form = form_of(ctx);
    Decode16 g = {a, tile16_of(ctx)};
    if (form->attn16_decode) pieces(ctx, form->attn16_decode, &g, a->groups * a->K, 1);
    else pieces(ctx, form->attn_decode, a, a->groups * a->K, 1);
    return OK;
}
