// Log-probabilities of given tokens, in chunks of the vocabulary: logits exist for CHUNK entries times BLOCK tokens only.
//
// Method: the positions that have a target are gathered; for each chunk of the vocabulary a gemm gives a block of
// logits, a row piece folds it into a running maximum and sum (forward) or turns it into the gradient of the logits,
// from which two gemms add to dhidden and dhead (backward). A chunk is the outer loop, so its weights stay in cache.
// Invariants: chunk order and width are fixed, and gemm rows do not depend on M, so a position's bits depend on its
// hidden state and target alone; dhead gets one sum per packed sequence, in row order.
#include <math.h>
#include <string.h>

#include "base/profile.h"
#include "kernels/cpu/cpu.h"

enum { CHUNK = 1024, BLOCK = 1024, TOKEN_GRAIN = 16 };

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
} Space;

static void space_cut(Space *s, void *workspace, int64_t T, int64_t H, bool backward)
{
    float *p = workspace;
    float **parts[] = {&s->max, &s->sum, &s->picked, &s->lse, &s->coef};
    s->hidden = p, p += round16(T * H);
    s->dhidden = p, p += backward ? round16(T * H) : 0;
    s->logits = p, p += least(T, BLOCK) * CHUNK;
    for (int i = 0; i < 5; i++) *parts[i] = p, p += round16(T);
    s->target = (int32_t *)(void *)p, p += round16(T);
    s->from = (int32_t *)(void *)p, p += round16(T);
}

// Bytes of the workspace: the same sum without a base pointer.
static int64_t space_bytes(int64_t T, int64_t H, bool backward)
{
    return (round16(T * H) * (backward ? 2 : 1) + least(T, BLOCK) * CHUNK + 7 * round16(T)) * (int64_t)sizeof(float);
}

int64_t op_logprob_fwd_workspace(const LogprobArgs *a) { return space_bytes(a->T, a->H, false); }
int64_t op_logprob_bwd_workspace(const LogprobBwdArgs *a) { return space_bytes(a->T, a->H, true); }

static void gather(Space *s, int64_t t, const Tensor *hidden, int32_t target, int64_t H)
{
    memcpy(s->hidden + s->n * H, row_f32(hidden, t), (size_t)H * sizeof(float));
    s->target[s->n] = target;
    s->from[s->n] = (int32_t)t;
    s->n++;
}

// logits of gathered positions [t0, t0 + n) for the chunk.
static Err block_logits(const Ctx *ctx, const Space *s, const Tensor *head, LogprobBlock *b, int64_t t0, int64_t n, int64_t H)
{
    *b = (LogprobBlock){.logits = s->logits, .target = s->target + t0, .max = s->max + t0, .sum = s->sum + t0,
                        .picked = s->picked + t0, .lse = s->lse + t0, .coef = s->coef + t0, .first = b->first,
                        .width = b->width, .softcap = b->softcap};
    Gemm g = {.form = GEMM_NT, .M = n, .N = b->width, .K = H, .a = s->hidden + t0 * H, .b = row_f32(head, b->first),
              .c = s->logits, .lda = H, .ldb = head->stride, .ldc = b->width};
    return gemm(ctx, &g);
}

Err op_logprob_fwd(Ctx *ctx, const LogprobArgs *a)
{
    PROFILE(PHASE_ELEMENTWISE);
    CHECK_F32(a->hidden);
    CHECK_F32(a->head);
    Space s = {0};
    space_cut(&s, a->workspace, a->T, a->H, false);
    for (int64_t t = 0; t < a->T; t++) {
        a->logp[t] = a->lse[t] = 0;
        if (a->best) a->best[t] = 0;
        ASSERT(a->target[t] < a->V);
        if (a->target[t] >= 0) gather(&s, t, &a->hidden, a->target[t], a->H);
    }
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

// dhidden of the block's positions += dlogits . head chunk; dhead chunk += dlogits^T . hidden.
static Err block_grads(const Ctx *ctx, const Space *s, const LogprobBwdArgs *a, const LogprobBlock *b, int64_t t0, int64_t n)
{
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
    PROFILE(PHASE_ELEMENTWISE);
    CHECK_F32(a->hidden);
    CHECK_F32(a->head);
    CHECK_F32(a->dhidden);
    CHECK_F32(a->dhead);
    Space s = {0};
    space_cut(&s, a->workspace, a->T, a->H, true);
    for (int64_t t = 0; t < a->T; t++) memset(row_f32(&a->dhidden, t), 0, (size_t)a->H * sizeof(float));
    for (int32_t r = 0; r < a->rows; r++) TRY(row_bwd(ctx, a, &s, r));
    return OK;
}
