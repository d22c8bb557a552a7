// op_x entry points of attention.
#include <string.h>

#include "base/profile.h"
#include "kernels/cpu/bf16.h"

int64_t attn_blocks(int64_t T, int64_t S) { return T / ATTN_BLOCK + S; }

// --- bf16: widened, computed in fp32, rounded --------------------------------------------------------------------------

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

static Err attn_fwd_bf16(Ctx *ctx, const AttnArgs *a)
{
    AttnArgs f = *a;
    float *at = a->workspace;
    CHECK_SAME(a->k, a->q);
    CHECK_SAME(a->v, a->q);
    CHECK_SAME(a->o, a->q);
    f.q = widened(ctx, &a->q, a->T, a->N * a->D, &at);
    f.k = widened(ctx, &a->k, a->T, a->K * a->D, &at);
    f.v = widened(ctx, &a->v, a->T, a->K * a->D, &at);
    f.o = take(&at, a->T, a->N * a->D);
    f.workspace = at;
    TRY(op_attn_fwd(ctx, &f));
    rounded(ctx, &f.o, &a->o, a->T, a->N * a->D);
    return OK;
}

static Err attn_bwd_bf16(Ctx *ctx, const AttnBwdArgs *a)
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

// --- entry points ------------------------------------------------------------------------------------------------------

int64_t op_attn_fwd_workspace(const AttnArgs *a)
{
    int64_t copies = a->q.dtype == DT_BF16 ? a->T * (2 * a->N + 2 * a->K) * a->D : 0;
    return (copies + attn_blocks(a->T, a->S) * ATTN_BLOCK * a->D * a->K) * (int64_t)sizeof(float);
}

static Err check_shape(int64_t N, int64_t K, int64_t D)
{
    ASSERT(N > 0 && K > 0 && N % K == 0);
    ASSERT(N / K <= MAX_GROUP && D > 0 && D <= MAX_D && D % 4 == 0);
    return OK;
}

static Err check_segments(const Segment *seg, int64_t S, int64_t T)
{
    for (int64_t s = 0; s < S; s++) {
        ASSERT(seg[s].start >= 0 && seg[s].len >= 0 && seg[s].start + (int64_t)seg[s].len <= T);
        ASSERT(seg[s].prefix < s && (seg[s].prefix < 0 || seg[seg[s].prefix].prefix < 0));
    }
    return OK;
}

static void zero_rows(const Tensor *t, int64_t rows, int64_t width)
{
    for (int64_t i = 0; i < rows; i++) memset(row_f32(t, i), 0, (size_t)width * sizeof(float));
}

Err op_attn_fwd(Ctx *ctx, const AttnArgs *a)
{
    PROFILE(PHASE_ATTENTION);
    const Form *form = form_of(ctx);
    TRY(check_shape(a->N, a->K, a->D));
    TRY(check_segments(a->seg, a->S, a->T));
    if (a->q.dtype == DT_BF16) return attn_fwd_bf16(ctx, a);
    CHECK_F32(a->q);
    CHECK_F32(a->k);
    CHECK_F32(a->v);
    CHECK_F32(a->o);
    zero_rows(&a->o, a->T, a->N * a->D);
    if (a->lse) memset(a->lse, 0, (size_t)(a->N * a->T) * sizeof(float));
    if (form->attn_pack) pieces(ctx, form->attn_pack, a, a->S * a->K, 1);
    pieces(ctx, form->attn_fwd, a, a->S * a->N, 1);
    return OK;
}

// Keys and values transposed, and one number a query and head (dout . o).
int64_t op_attn_bwd_workspace(const AttnBwdArgs *a)
{
    int64_t copies = a->q.dtype == DT_BF16 ? a->T * (4 * a->N + 4 * a->K) * a->D : 0;
    return (copies + 2 * attn_blocks(a->T, a->S) * ATTN_BLOCK * a->D * a->K + a->N * a->T) * (int64_t)sizeof(float);
}

Err op_attn_bwd(Ctx *ctx, const AttnBwdArgs *a)
{
    PROFILE(PHASE_ATTENTION);
    const Form *form = form_of(ctx);
    TRY(check_shape(a->N, a->K, a->D));
    TRY(check_segments(a->seg, a->S, a->T));
    if (a->q.dtype == DT_BF16) return attn_bwd_bf16(ctx, a);
    CHECK_F32(a->q);
    CHECK_F32(a->k);
    CHECK_F32(a->v);
    CHECK_F32(a->o);
    CHECK_F32(a->dout);
    CHECK_F32(a->dq);
    CHECK_F32(a->dk);
    CHECK_F32(a->dv);
    zero_rows(&a->dq, a->T, a->N * a->D);
    zero_rows(&a->dk, a->T, a->K * a->D);
    zero_rows(&a->dv, a->T, a->K * a->D);
    if (form->attn_bwd_pack) pieces(ctx, form->attn_bwd_pack, a, a->S * a->K, 1);
    pieces(ctx, form->attn_bwd, a, a->S * a->K, 1);
    return OK;
}

int64_t op_attn_decode_workspace(const DecodeAttnArgs *a)
{
    (void)a;
    return 0;
}

Err op_attn_decode(Ctx *ctx, const DecodeAttnArgs *a)
{
    PROFILE(PHASE_ATTENTION);
    TRY(check_shape(a->N, a->K, a->D));
    CHECK_F32(a->q);
    CHECK_F32(a->o);
    pieces(ctx, form_of(ctx)->attn_decode, a, a->slots * a->K, 1);
    return OK;
}
