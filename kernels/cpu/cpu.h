// SPDX-License-Identifier: Apache-2.0
// Inside of the CPU back end: op_x (ops_*.c) checks the arguments and cuts the work into pieces whose shape depends on
// the op alone; a form (plain, or fast at one ISA level) computes a piece on one thread. So results do not depend on
// the number of threads.
#ifndef IMF_KERNELS_CPU_H
#define IMF_KERNELS_CPU_H

#include "kernels/cuda/device.h"
#include "kernels/ops.h"

// Computes items [from, to) of the op whose argument struct is `args`.
typedef void Piece(const void *args, int64_t from, int64_t to);

// What logprob's row pieces work on: a block of `n` gathered tokens times one chunk of the vocabulary.
typedef struct LogprobBlock {
    float *logits;          // [n][width], overwritten by the backward with the gradient of the logits
    const int32_t *target;  // [n] all >= 0
    float *max, *sum;       // [n] running maximum and sum of exp(logit - max)
    float *picked;          // [n] the target's logit
    const float *lse, *coef;  // [n] backward
    int64_t first, width;   // vocabulary entries of this chunk
    float softcap;
} LogprobBlock;

typedef struct Form {
    Piece *rmsnorm_fwd, *rmsnorm_bwd_x;  // items: tokens
    Piece *rmsnorm_bwd_w;                // columns
    Piece *rope, *swiglu_fwd, *swiglu_bwd, *geglu_fwd, *geglu_bwd, *add;  // tokens
    Piece *attn_pack;                    // AttnArgs: (segment, kv head) pairs; NULL: nothing to pack
    Piece *attn_fwd;                     // (head, block of queries) pairs
    Piece *attn_bwd_pack;                // AttnBwdArgs: (segment, kv head) pairs
    Piece *attn_bwd;                     // (head, segment) pairs; a segment with a prefix is done with its prefix. Without
                                         // attn_bwd_sum: kv heads
    Piece *attn_bwd_sum;                 // (segment, kv head) pairs: adds up the heads of a group; or NULL
    Piece *attn_decode;                  // (group, kv head) pairs
    Piece *logprob_fwd, *logprob_bwd;    // LogprobBlock: tokens of the block
    Piece *adamw, *sqnorm;               // blocks of NORM_BLOCK elements
    Piece *gemm_packed;                  // GemmArgs: panels of PACK_PANEL output features
    Piece *gemm_panel;                   // Gemm: panels of GEMM_PANEL columns; NULL: gemm_plain
    Piece *attn16_pack, *attn16_bwd_pack;  // Attn16: (segment, kv head) pairs
    Piece *attn16_fwd;                   // (segment, head) pairs; NULL: widened, computed in fp32, rounded
    Piece *attn16_bwd;                   // (segment, kv head) pairs; a segment with a prefix is done with its prefix
    Piece *attn16_decode;                // Decode16: (group, kv head) pairs; NULL: attn_decode
    Piece *gemm16;                       // Gemm16: (columns, strip of rows) pairs; NULL: gemm16's definition
    Piece *pack16, *pack16_t;            // Pack16: panels
    Piece *round16, *widen16;            // Round16, Widen16: rows
} Form;

// Row `row` of a packed weight of `out` rows.
void unpack_row(const Tensor *w, int64_t in, int64_t out, int64_t row, float *y);

// Output features of panel p of a packed weight.
static inline int64_t panel_width(int64_t out, int64_t p)
{
    return out - p * PACK_PANEL < PACK_PANEL ? out - p * PACK_PANEL : PACK_PANEL;
}

extern const Form form_plain, form_base, form_avx2, form_avx512;
const Form *form_of(const Ctx *ctx);

// Runs fn over [0, n) in pieces of `grain` items on the rank's team.
void pieces(const Ctx *ctx, Piece *fn, const void *args, int64_t n, int64_t grain);

// c[M][N] = op(a) . op(b) (+ c when accumulate); row-major, ld in elements.
typedef enum GemmForm {
    GEMM_NT,  // a[M][K] . b[N][K]^T
    GEMM_NN,  // a[M][K] . b[K][N]
    GEMM_TN   // a[K][M]^T . b[K][N]
} GemmForm;
typedef struct Gemm {
    GemmForm form;
    int64_t M, N, K;
    const float *a, *b;
    float *c;
    int64_t lda, ldb, ldc;
    bool accumulate;
} Gemm;
enum { GEMM_PANEL = 64 };
Err gemm(const Ctx *ctx, const Gemm *g) ERR_MUST_CHECK;
// The fixed-order definition: every element sums over k in ascending order.
void gemm_plain(const Gemm *g);
// Same bits for every M and thread count on this machine? Decides ctx->gemm_dnnl.
bool gemm_guard(int threads);

// MAX_D: largest head size; MAX_GROUP: most query heads of one key/value head. Attention takes keys in blocks of ATTN_BLOCK,
// counted from their segment's start (attn.h).
enum { ATTN_BLOCK = 64, MAX_D = 256, MAX_GROUP = 32 };
int64_t attn_blocks(int64_t T, int64_t S);  // at most this many blocks

// op_x begins with it: where the ops of this ctx run on a device, the twin there does all of it.
#define ON_DEVICE(op)                                      \
    do {                                                   \
        RANGE_ON(ctx, #op);                                \
        if (ctx->device) return cuda_##op(ctx, a);         \
    } while (0)
static inline bool on_device(const Ctx *ctx) { return ctx && ctx->device; }

#define CHECK_F32(t) ASSERT((t).p && (t).dtype == DT_F32)
#define CHECK_FLOAT(t) ASSERT((t).p && ((t).dtype == DT_F32 || (t).dtype == DT_BF16))
#define CHECK_SAME(t, like) ASSERT((t).p && (t).dtype == (like).dtype)
#define CHECK_BF16(t) ASSERT((t).p && (t).dtype == DT_BF16)
static inline float *row_f32(const Tensor *t, int64_t i) { return (float *)t->p + i * t->stride; }
static inline uint16_t *row_bf16(const Tensor *t, int64_t i) { return (uint16_t *)t->p + i * t->stride; }

#endif
