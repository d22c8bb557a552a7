// SPDX-License-Identifier: Apache-2.0
// Log-probabilities of given tokens, in chunks of the vocabulary: logits exist for CHUNK entries times BLOCK tokens only.
//
// Method: the positions that have a target are gathered; for each chunk of the vocabulary a gemm gives a block of
// logits, a row piece folds it into a running maximum and sum (forward) or turns it into the gradient of the logits,
// from which two gemms add to dhidden and dhead (backward). A chunk is the outer loop, so its weights stay in cache.
// bf16: the gathered hidden states and the gradient of the logits are rounded, logits and sums stay fp32.
// Invariants: chunk order and width are fixed, and gemm rows do not depend on M, so a position's bits depend on its
// hidden state and target alone; dhead gets one sum per packed sequence, in row order.
#include <math.h>
#include <string.h>

#include "base/profile.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cuda/device.h"

enum { CHUNK = 1024, BLOCK = 1024, TOKEN_GRAIN = 16, PANEL_GRAIN = 8 };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t round16(int64_t n) { return (n + 15) / 16 * 16; }

// The workspace cut into arrays, each a multiple of 64 bytes.
typedef struct Space {
    float *hidden;   // [T][H] gathered
    float *dhidden;  // [T][H] (backward)
    float *logits;   // [min(T, BLOCK)][CHUNK]
    float *max, *sum, *picked, *lse, *coef;  // [T]
    int32_t *target, *from;  // [T] gathered: target, original position
    int64_t n;               // gathered positions
    bool half;               // bf16
    uint16_t *hidden16;      // [T][H] hidden rounded
    uint16_t *dlogits;       // [min(T, BLOCK)][CHUNK] rounded (backward)
    uint32_t *dlogits_t, *hidden_t;  // the operands of dhead packed (backward)
} Space;

// Takes n floats of the workspace (NULL: only counts).
static void *cut(float *workspace, int64_t *at, int64_t n)
{
    void *p = workspace ? workspace + *at : NULL;
    *at += n;
    return p;
}

// Cuts `workspace` (NULL: only measures) and returns its bytes.
static int64_t space_cut(Space *s, float *workspace, int64_t T, int64_t H, bool half, bool backward)
{
    float **parts[] = {&s->max, &s->sum, &s->picked, &s->lse, &s->coef};
    int64_t n = least(T, BLOCK), at = 0, grads = half && backward;
    s->half = half;
    s->hidden = cut(workspace, &at, round16(T * H));
    s->dhidden = cut(workspace, &at, backward ? round16(T * H) : 0);
    s->logits = cut(workspace, &at, n * CHUNK);
    for (int i = 0; i < 5; i++) *parts[i] = cut(workspace, &at, round16(T));
    s->target = cut(workspace, &at, round16(T));
    s->from = cut(workspace, &at, round16(T));
    s->hidden16 = cut(workspace, &at, half ? round16(T * H) / 2 : 0);
    s->dlogits = cut(workspace, &at, grads * n * CHUNK / 2);
    s->dlogits_t = cut(workspace, &at, grads * pack16_elements(CHUNK, n) / 2);
    s->hidden_t = cut(workspace, &at, grads * pack16_elements(H, n) / 2);
    return at * (int64_t)sizeof(float);
}

static int64_t space_bytes(int64_t T, int64_t H, DType dtype, bool backward)
{
    Space s;
    return space_cut(&s, NULL, T, H, dtype == DT_BF16, backward);
}

int64_t op_logprob_fwd_workspace(const Ctx *ctx, const LogprobArgs *a)
{
    return on_device(ctx) ? cuda_logprob_fwd_workspace(a) : space_bytes(a->T, a->H, a->head.dtype, false);
}
int64_t op_logprob_bwd_workspace(const Ctx *ctx, const LogprobBwdArgs *a)
{
    return on_device(ctx) ? cuda_logprob_bwd_workspace(a) : space_bytes(a->T, a->H, a->head.dtype, true);
}

static void gather(Space *s, int64_t t, const Tensor *hidden, int32_t target, int64_t H)
{
    memcpy(s->hidden + s->n * H, row_f32(hidden, t), (size_t)H * sizeof(float));
    s->target[s->n] = target;
    s->from[s->n] = (int32_t)t;
    s->n++;
}

static void round_hidden(const Ctx *ctx, const Space *s, int64_t H)
{
    Round16 a = {.x = s->hidden, .y = s->hidden16, .ldx = H, .ldy = H, .n = H};
    if (s->half) pieces(ctx, form_of(ctx)->round16, &a, s->n, TOKEN_GRAIN);
}

// Rows `first` and following of the packed head.
static const uint32_t *head_panels(const Tensor *head, int64_t first)
{
    return (const uint32_t *)head->p + first * bf16_pairs(head->stride);
}

// logits of gathered positions [t0, t0 + n) for the chunk.
static Err block_logits(const Ctx *ctx, const Space *s, const Tensor *head, LogprobBlock *b, int64_t t0, int64_t n, int64_t H)
{
    *b = (LogprobBlock){.logits = s->logits, .target = s->target + t0, .max = s->max + t0, .sum = s->sum + t0,
                        .picked = s->picked + t0, .lse = s->lse + t0, .coef = s->coef + t0, .first = b->first,
                        .width = b->width, .softcap = b->softcap};
    if (s->half) {
        Gemm16 h = {.M = n, .N = b->width, .K = H, .b = head_panels(head, b->first), .c = tensor_f32(s->logits, b->width)};
        gemm16_a(&h, s->hidden16 + t0 * H, H);
        return gemm16(ctx, &h);
    }
    Gemm g = {.form = GEMM_NT, .M = n, .N = b->width, .K = H, .a = s->hidden + t0 * H, .b = row_f32(head, b->first),
              .c = s->logits, .lda = H, .ldb = head->stride, .ldc = b->width};
    return gemm(ctx, &g);
}

Err op_logprob_fwd(Ctx *ctx, const LogprobArgs *a)
{
    ON_DEVICE(logprob_fwd);
    PROFILE(PHASE_ELEMENTWISE);
    CHECK_F32(a->hidden);
    CHECK_FLOAT(a->head);
    Space s = {0};
    space_cut(&s, a->workspace, a->T, a->H, a->head.dtype == DT_BF16, false);
    for (int64_t t = 0; t < a->T; t++) {
        a->logp[t] = a->lse[t] = 0;
        if (a->best) a->best[t] = 0;
        ASSERT(a->target[t] < a->V);
        if (a->target[t] >= 0) gather(&s, t, &a->hidden, a->target[t], a->H);
    }
    round_hidden(ctx, &s, a->H);
    for (int64_t i = 0; i < s.n; i++) s.max[i] = -INFINITY, s.sum[i] = 0;
    for (int64_t v = 0; v < a->V; v += CHUNK)
        for (int64_t t = 0; t < s.n; t += BLOCK) {
            LogprobBlock b = {.first = v, .width = least(CHUNK, a->V - v), .softcap = a->softcap};
            int64_t n = least(BLOCK, s.n - t);
            TRY(block_logits(ctx, &s, &a->head, &b, t, n, a->H));
            pieces(ctx, form_of(ctx)->logprob_fwd, &b, n, TOKEN_GRAIN);
        }
    for (int64_t i = 0; i < s.n; i++) {
        a->lse[s.from[i]] = s.max[i] + logf(s.sum[i]);
        a->logp[s.from[i]] = s.picked[i] - a->lse[s.from[i]];
        if (a->best) a->best[s.from[i]] = s.picked[i] >= s.max[i];
    }
    return OK;
}

static void pack_columns(const Ctx *ctx, uint16_t *x, int64_t stride, int64_t rows, int64_t cols, uint32_t *packed)
{
    Pack16 p = {.w = tensor_bf16(x, stride), .rows = rows, .cols = cols, .packed = packed};
    pieces(ctx, form_of(ctx)->pack16_t, &p, bf16_panels(cols), PANEL_GRAIN);
}

// The logits' gradient rounded, rows of even length.
static int64_t round_dlogits(const Ctx *ctx, const Space *s, const LogprobBlock *b, int64_t n)
{
    int64_t stride = b->width + b->width % 2;
    Round16 r = {.x = b->logits, .y = s->dlogits, .ldx = b->width, .ldy = stride, .n = b->width};
    pieces(ctx, form_of(ctx)->round16, &r, n, TOKEN_GRAIN);
    for (int64_t i = 0; i < n && stride > b->width; i++) s->dlogits[i * stride + b->width] = 0;
    return stride;
}

static Err block_grads16(const Ctx *ctx, const Space *s, const LogprobBwdArgs *a, const LogprobBlock *b, int64_t t0, int64_t n)
{
    float *dhidden = s->dhidden + t0 * a->H, *dhead = row_f32(&a->dhead, b->first);
    int64_t stride = round_dlogits(ctx, s, b, n);
    Gemm16 dx = {.M = n, .N = a->H, .K = b->width, .b = head_panels(&a->head, b->first), .turned = true,
                 .c = tensor_f32(dhidden, a->H), .add = dhidden, .ld_add = a->H};
    gemm16_a(&dx, s->dlogits, stride);
    TRY(gemm16(ctx, &dx));
    pack_columns(ctx, s->dlogits, stride, n, b->width, s->dlogits_t);
    if (b->first == 0 || s->n > BLOCK) pack_columns(ctx, s->hidden16 + t0 * a->H, a->H, n, a->H, s->hidden_t);
    Gemm16 dw = {.M = b->width, .N = a->H, .K = n, .b = s->hidden_t, .c = tensor_f32(dhead, a->dhead.stride), .add = dhead,
                 .ld_add = a->dhead.stride};
    gemm16_a_packed(&dw, s->dlogits_t, n);
    return gemm16(ctx, &dw);
}

// dhidden of the block's positions += dlogits . head chunk; dhead chunk += dlogits^T . hidden.
static Err block_grads(const Ctx *ctx, const Space *s, const LogprobBwdArgs *a, const LogprobBlock *b, int64_t t0, int64_t n)
{
    if (s->half) return block_grads16(ctx, s, a, b, t0, n);
    Gemm dx = {.form = GEMM_NN, .M = n, .N = a->H, .K = b->width, .a = b->logits, .b = row_f32(&a->head, b->first),
               .c = s->dhidden + t0 * a->H, .lda = b->width, .ldb = a->head.stride, .ldc = a->H, .accumulate = true};
    Gemm dw = {.form = GEMM_TN, .M = b->width, .N = a->H, .K = n, .a = b->logits, .b = s->hidden + t0 * a->H,
               .c = row_f32(&a->dhead, b->first), .lda = b->width, .ldb = a->H, .ldc = a->dhead.stride, .accumulate = true};
    TRY(gemm(ctx, &dx));
    return gemm(ctx, &dw);
}

// One packed sequence: its gathered positions in blocks counted from its start.
static Err row_bwd(Ctx *ctx, const LogprobBwdArgs *a, Space *s, int32_t r)
{
    s->n = 0;
    for (int64_t t = a->row[r]; t < a->row[r + 1]; t++) {
        ASSERT(a->target[t] < a->V);
        if (a->target[t] < 0 || a->coef[t] == 0) continue;
        s->lse[s->n] = a->lse[t];
        s->coef[s->n] = a->coef[t];
        gather(s, t, &a->hidden, a->target[t], a->H);
    }
    round_hidden(ctx, s, a->H);
    memset(s->dhidden, 0, (size_t)(s->n * a->H) * sizeof(float));
    for (int64_t v = 0; v < a->V; v += CHUNK)
        for (int64_t t = 0; t < s->n; t += BLOCK) {
            LogprobBlock b = {.first = v, .width = least(CHUNK, a->V - v), .softcap = a->softcap};
            int64_t n = least(BLOCK, s->n - t);
            TRY(block_logits(ctx, s, &a->head, &b, t, n, a->H));
            pieces(ctx, form_of(ctx)->logprob_bwd, &b, n, TOKEN_GRAIN);
            TRY(block_grads(ctx, s, a, &b, t, n));
        }
    for (int64_t i = 0; i < s->n; i++)
        memcpy(row_f32(&a->dhidden, s->from[i]), s->dhidden + i * a->H, (size_t)a->H * sizeof(float));
    return OK;
}

Err op_logprob_bwd(Ctx *ctx, const LogprobBwdArgs *a)
{
    ON_DEVICE(logprob_bwd);
    PROFILE(PHASE_ELEMENTWISE);
    CHECK_F32(a->hidden);
    CHECK_FLOAT(a->head);
    CHECK_F32(a->dhidden);
    CHECK_F32(a->dhead);
    Space s = {0};
    space_cut(&s, a->workspace, a->T, a->H, a->head.dtype == DT_BF16, true);
    for (int64_t t = 0; t < a->T; t++) memset(row_f32(&a->dhidden, t), 0, (size_t)a->H * sizeof(float));
    for (int32_t r = 0; r < a->rows; r++) TRY(row_bwd(ctx, a, &s, r));
    return OK;
}
