// SPDX-License-Identifier: Apache-2.0
// op_x entry points of attention.
#include <string.h>

#include "base/profile.h"
#include "kernels/cpu/attn.h"
#include "kernels/cpu/attn16.h"
#include "kernels/cuda/device.h"

int64_t attn_blocks(int64_t T, int64_t S) { return T / ATTN_BLOCK + S; }

// Keys transposed.
int64_t op_attn_fwd_workspace(const Ctx *ctx, const AttnArgs *a)
{
    if (on_device(ctx)) return 0;
    if (a->q.dtype == DT_BF16) return attn16_fwd_workspace(a);
    return (attn_blocks(a->T, a->S) * ATTN_BLOCK * a->D * a->K) * (int64_t)sizeof(float);
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

// Is every token in a segment? Segments do not overlap.
static bool is_full(const Segment *seg, int64_t S, int64_t T)
{
    for (int64_t s = 0; s < S; s++) T -= seg[s].len;
    return T == 0;
}

static void zero_rows(const Tensor *t, int64_t rows, int64_t width)
{
    for (int64_t i = 0; i < rows; i++) memset(row_f32(t, i), 0, (size_t)width * sizeof(float));
}

Err op_attn_fwd(Ctx *ctx, const AttnArgs *a)
{
    ON_DEVICE(attn_fwd);
    PROFILE(PHASE_ATTENTION);
    const Form *form = form_of(ctx);
    TRY(check_shape(a->N, a->K, a->D));
    TRY(check_segments(a->seg, a->S, a->T));
    if (a->q.dtype == DT_BF16) return attn16_fwd(ctx, a);
    CHECK_F32(a->q);
    CHECK_F32(a->k);
    CHECK_F32(a->v);
    CHECK_F32(a->o);
    bool full = is_full(a->seg, a->S, a->T);
    if (!full) zero_rows(&a->o, a->T, a->N * a->D);
    if (!full && a->lse) memset(a->lse, 0, (size_t)(a->N * a->T) * sizeof(float));
    if (form->attn_pack) pieces(ctx, form->attn_pack, a, a->S * a->K, 1);
    pieces(ctx, form->attn_fwd, a, a->N * attn_blocks_before(a->seg, a->S, ATTN_QUERIES), 1);
    return OK;
}

// Keys and values transposed, keys; queries, dout, and each head's dk and dv; one number a query and head.
int64_t op_attn_bwd_workspace(const Ctx *ctx, const AttnBwdArgs *a)
{
    if (on_device(ctx)) return cuda_attn_bwd_workspace(a);
    if (a->q.dtype == DT_BF16) return attn16_bwd_workspace(a);
    int64_t keys = (2 * attn_blocks(a->T, a->S) * ATTN_BLOCK + a->T) * a->K * a->D;
    return (keys + (4 * a->D + 1) * a->T * a->N) * (int64_t)sizeof(float);
}

Err op_attn_bwd(Ctx *ctx, const AttnBwdArgs *a)
{
    ON_DEVICE(attn_bwd);
    PROFILE(PHASE_ATTENTION);
    const Form *form = form_of(ctx);
    TRY(check_shape(a->N, a->K, a->D));
    TRY(check_segments(a->seg, a->S, a->T));
    if (a->q.dtype == DT_BF16) return attn16_bwd(ctx, a);
    CHECK_F32(a->q);
    CHECK_F32(a->k);
    CHECK_F32(a->v);
    CHECK_F32(a->o);
    CHECK_F32(a->dout);
    CHECK_F32(a->dq);
    CHECK_F32(a->dk);
    CHECK_F32(a->dv);
    if (!form->attn_bwd_sum || !is_full(a->seg, a->S, a->T)) {
        zero_rows(&a->dq, a->T, a->N * a->D);
        zero_rows(&a->dk, a->T, a->K * a->D);
        zero_rows(&a->dv, a->T, a->K * a->D);
    }
    if (form->attn_bwd_pack) pieces(ctx, form->attn_bwd_pack, a, a->S * a->K, 1);
    pieces(ctx, form->attn_bwd, a, (form->attn_bwd_sum ? a->N : a->K) * a->S, 1);
    if (form->attn_bwd_sum) pieces(ctx, form->attn_bwd_sum, a, a->S * a->K, 1);
    return OK;
}

int64_t op_kv_page_bytes(const Ctx *ctx, DType dtype, int64_t K, int64_t D)
{
    if (on_device(ctx)) return cuda_kv_page_bytes(K, D);
    if (dtype == DT_F32) return 2 * K * KV_PAGE * D * (int64_t)sizeof(float);
    return K * (unit_rows16(D) + unit_columns16(D)) * (int64_t)sizeof(uint32_t);
}

static void store_f32(const KvStoreArgs *a)
{
    for (int64_t i = 0; i < a->n; i++) {
        float *page = (float *)a->pages + a->page[i] * 2 * a->K * KV_PAGE * a->D, *key = page + a->place[i];
        float *value = page + a->K * KV_PAGE * a->D + a->place[i] * a->D;
        for (int64_t d = 0; d < a->K * a->D; d++) key[d * KV_PAGE] = row_f32(&a->k, i)[d];
        for (int64_t h = 0; h < a->K; h++)
            memcpy(value + h * KV_PAGE * a->D, row_f32(&a->v, i) + h * a->D, (size_t)a->D * sizeof(float));
    }
}

Err op_kv_store(Ctx *ctx, const KvStoreArgs *a)
{
    ON_DEVICE(kv_store);
    PROFILE(PHASE_ATTENTION);
    CHECK_FLOAT(a->k);
    CHECK_SAME(a->v, a->k);
    if (a->k.dtype == DT_BF16) attn16_store(a);
    else store_f32(a);
    return OK;
}

int64_t op_attn_decode_workspace(const Ctx *ctx, const DecodeAttnArgs *a)
{
    return on_device(ctx) ? cuda_attn_decode_workspace(a) : 0;
}

Err op_attn_decode(Ctx *ctx, const DecodeAttnArgs *a)
{
    ON_DEVICE(attn_decode);
    PROFILE(PHASE_ATTENTION);
    TRY(check_shape(a->N, a->K, a->D));
    CHECK_FLOAT(a->q);
    CHECK_SAME(a->o, a->q);
    ASSERT(a->group[0] == 0 && a->group[a->groups] == a->slots);
    for (int64_t g = 0; g < a->groups; g++) ASSERT(a->group[g + 1] - a->group[g] <= DECODE_GROUP);
    if (a->q.dtype == DT_BF16) return attn16_decode(ctx, a);
    pieces(ctx, form_of(ctx)->attn_decode, a, a->groups * a->K, 1);
    return OK;
}
