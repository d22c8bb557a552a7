// SPDX-License-Identifier: Apache-2.0
// The operations: one prototype each. kernels/cpu/plain_*.c is the definition of correct; every faster form (kernels/cpu,
// kernels/cuda) has the same name and passes the same test.
//
// Legend   T tokens, H hidden size, D head size, N query heads, K key/value heads, F feed-forward size, V vocabulary,
//          R rows (packed sequences) of a batch, S segments.
// Contract
//   - An op only enqueues: it returns no computed value and takes none by value (learning rate, clip factor and loss
//     coefficients are pointers to where they will be). Err is for impossible arguments only.
//   - Ops never allocate: scratch comes from args->workspace, of op_x_workspace(ctx, args) bytes, a pure function of shapes and of where
//     the op runs (ctx NULL: on the host).
//   - A Tensor is pointer, dtype, row stride in elements; the innermost dimension is contiguous; base and strides are
//     multiples of 16 bytes. q, k, v, o and their gradients are token-major [T][heads][D] views with a token stride.
//   - Weights are [out][in]; bf16 weights are packed (op_pack_bf16): their Tensor is the packed matrix with stride = in.
//   - fp32: every tensor is fp32. bf16: the residual stream, its gradient, norm weights, biases and weight gradients are fp32,
//     all other activations and the weights are bf16; products are summed in fp32.
//   - Gradients of activations overwrite; gradients of weights are added to the accumulator, one
//     row (packed sequence) after the other: `row` gives R + 1 token offsets, and the sum over a row's tokens is
//     formed first and then added, so that the result depends on the rows and their order alone (law 1).
//   - The bits of an output row depend on that row's inputs alone, never on how many rows share the call, nor on the
//     number of threads, nor on where a segment lies in its row.
//   - Log-sum-exp and log-probabilities are fp32, natural logarithm.
//   - Tokens that belong to no segment are padding: their outputs are zero, their inputs may be NaN and do not leak.
#ifndef IMF_KERNELS_OPS_H
#define IMF_KERNELS_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

typedef enum DType { DT_F32 = 0, DT_BF16 = 1, DT_F16 = 2 } DType;

typedef struct Tensor {
    void *p;
    DType dtype;
    int64_t stride;  // elements from one row (token, output feature, vocabulary entry) to the next
} Tensor;

static inline Tensor tensor_f32(float *p, int64_t stride)
{
    const Tensor t = {p, DT_F32, stride};
    return t;
}
static inline Tensor tensor_bf16(void *p, int64_t stride)
{
    const Tensor t = {p, DT_BF16, stride};
    return t;
}

// The view that starts `columns` elements further right.
static inline Tensor tensor_at(Tensor t, int64_t columns)
{
    t.p = (char *)t.p + columns * (t.dtype == DT_F32 ? 4 : 2);
    return t;
}

// The levels above AVX-512 differ in the bf16 gemm only.
typedef enum Isa { ISA_BASE = 0, ISA_AVX2 = 1, ISA_AVX512 = 2, ISA_AVX512BF16 = 3, ISA_AMX = 4 } Isa;

// Where and how ops run. One a rank; made by ctx_init.
typedef struct Ctx {
    Isa isa;         // level used by the fast forms
    int threads;     // team of this rank
    DType dtype;     // number format of the models that are loaded for it (recipe: dtype)
    bool plain;      // use the plain forms everywhere (tests)
    bool gemm_dnnl;  // f32 gemm through oneDNN (its guard test passed), else the plain fixed-order kernel
    struct Device *device;  // where its ops run (kernels/cuda/device.h); NULL: on the host
    struct Device *gpu;     // the one that main opened for those who can use it; NULL: none
} Ctx;

// Picks the ISA level (environment IMF_ISA=base|avx2|avx512|avx512bf16|amx lowers it), runs the gemm guard test once.
Err ctx_init(Ctx *ctx, int threads) ERR_MUST_CHECK;
const char *isa_name(Isa isa);

// Memory of n * size bytes that this ctx's ops reach, as large as mem_alloc's but zeroed on the host only. The host may touch it while
// no op is under way: ctx_wait returns when all have run, and tells their errors.
Err ctx_alloc(Ctx *ctx, void *pp, int64_t n, int64_t size) ERR_MUST_CHECK;
void ctx_free(Ctx *ctx, void *p);  // NULL p: nothing
Err ctx_wait(Ctx *ctx) ERR_MUST_CHECK;

// A packed sequence is cut into segments. A segment's queries see, causally by position, its own keys and those of its
// prefix segment (an earlier segment of the same row, itself without a prefix). So the chosen and the rejected answer
// of a pair share one computation of the prompt.
typedef struct Segment {
    int32_t start;   // first token, index into the batch's T tokens
    int32_t len;     // tokens
    int32_t prefix;  // index of the prefix segment in this table, or -1
    int32_t pos0;    // position of the first token (prefix: the prefix's pos0 + len)
} Segment;

// --- dense ---------------------------------------------------------------------------------------------------------

// packed = w[out][in] (fp32) rounded to bf16 (nearest, ties to even), in the form that bf16 gemms read: op_pack_bf16_elements
// values. Only rows [from, to) are written; both are multiples of BF16_ROWS, or the end.
enum { BF16_ROWS = 16 };
typedef struct PackBf16Args {
    Tensor w;
    void *packed;
    int64_t out, in, from, to;
} PackBf16Args;
int64_t op_pack_bf16_elements(int64_t out, int64_t in);
Err op_pack_bf16(Ctx *ctx, const PackBf16Args *a) ERR_MUST_CHECK;

// y[T][H] (bf16) = x[T][H] (fp32) rounded.
typedef struct RoundArgs {
    Tensor x, y;
    int64_t T, H;
} RoundArgs;
Err op_round(Ctx *ctx, const RoundArgs *a) ERR_MUST_CHECK;

// y[T][out] = x[T][in] . w[out][in]^T (+ bias[out]) (+ add[T][out]). bf16: y is fp32 or bf16, add is fp32, `in` is even.
// packed: w (fp32) was rearranged by op_pack; few rows then cost no more than reading w, and an element's sum is one chain over
// ascending `in`, begun at y where add is y (so its bits are not those of an unpacked w).
typedef struct GemmArgs {
    Tensor x, w, y;
    const float *bias;  // [out] or NULL
    Tensor add;         // p = NULL: none; may be y
    int64_t T, in, out;
    bool packed;
} GemmArgs;
Err op_gemm_fwd(Ctx *ctx, const GemmArgs *a) ERR_MUST_CHECK;

// Rearranges w (fp32) in place from [out][in] to panels of PACK_PANEL output features, each [in][features], the last one as
// narrow as what is left: the same elements in the same memory. From then on only `packed` ops may read it.
enum { PACK_PANEL = 64 };
typedef struct PackArgs {
    Tensor w;  // dense: stride = in
    int64_t in, out;
    void *workspace;
} PackArgs;
int64_t op_pack_workspace(const PackArgs *a);
Err op_pack(Ctx *ctx, const PackArgs *a) ERR_MUST_CHECK;

// dx[T][in] = dy[T][out] . w[out][in]. bf16: dx is fp32 or bf16, `out` is even.
typedef struct GemmDxArgs {
    Tensor dy, w, dx;
    int64_t T, in, out;
} GemmDxArgs;
Err op_gemm_bwd_x(Ctx *ctx, const GemmDxArgs *a) ERR_MUST_CHECK;

// dw[out][in] += sum over tokens of dy[t][out] x[t][in], row by row; dbias[out] likewise (or NULL).
typedef struct GemmDwArgs {
    Tensor dy, x, dw;
    float *dbias;
    const int32_t *row;  // [rows + 1] token offsets
    int32_t rows;
    int64_t in, out;
    void *workspace;
} GemmDwArgs;
int64_t op_gemm_bwd_w_workspace(const Ctx *ctx, const GemmDwArgs *a);  // bf16: both operands packed, for the longest row; fp32: 0
Err op_gemm_bwd_w(Ctx *ctx, const GemmDwArgs *a) ERR_MUST_CHECK;

// y[t][o] = sum over i of w[o][i] x[t][i] (+ bias[o]); with relu 0 where that is negative. Products and sums in fp64: for the small heads
// that reward models end with.
typedef struct LinearF64Args {
    const double *x;  // [T][in]
    const float *w;   // [out][in]
    const float *bias;  // [out] or NULL
    double *y;        // [T][out]
    int64_t T, in, out;
    bool relu;
} LinearF64Args;
Err op_linear_f64(Ctx *ctx, const LinearF64Args *a) ERR_MUST_CHECK;

// --- embedding -----------------------------------------------------------------------------------------------------

// y[t] = table[token[t]]; y is fp32. packed: the fp32 table was rearranged by op_pack (out = V, in = H).
typedef struct EmbedArgs {
    Tensor table, y;
    const int32_t *token;  // [T], each in [0, V)
    int64_t T, H, V;
    bool packed;
} EmbedArgs;
Err op_embed_fwd(Ctx *ctx, const EmbedArgs *a) ERR_MUST_CHECK;

// dtable[token[t]] += dy[t], in token order.
typedef struct EmbedBwdArgs {
    Tensor dy, dtable;
    const int32_t *token;
    int64_t T, H, V;
} EmbedBwdArgs;
Err op_embed_bwd(Ctx *ctx, const EmbedBwdArgs *a) ERR_MUST_CHECK;

// --- element-wise --------------------------------------------------------------------------------------------------

// y = x / sqrt(mean(x^2) + eps) * w; rstd[t] is kept for the backward (NULL: not wanted). y may be x.
typedef struct RmsNormArgs {
    Tensor x, y;
    const float *w;  // [H]
    float *rstd;     // [T]
    int64_t T, H;
    float eps;
} RmsNormArgs;
Err op_rmsnorm_fwd(Ctx *ctx, const RmsNormArgs *a) ERR_MUST_CHECK;

// dx = (residual gradient dx_in, or 0 when its p is NULL) + gradient through the norm; dw += row by row. dx may be dx_in.
typedef struct RmsNormBwdArgs {
    Tensor x, dy, dx_in, dx;
    const float *w, *rstd;
    float *dw;           // [H] or NULL
    const int32_t *row;  // [rows + 1]
    int32_t rows;
    int64_t T, H;
} RmsNormBwdArgs;
Err op_rmsnorm_bwd(Ctx *ctx, const RmsNormBwdArgs *a) ERR_MUST_CHECK;

// Rotates `heads` heads of size D in place, half-split layout (x_i with x_{i+D/2}); table[position][D] holds cos in its
// first half and sin in its second. inverse: rotates back (the backward).
typedef struct RopeArgs {
    Tensor x;  // [T][heads][D], stride = token stride
    const int32_t *pos;  // [T]
    const float *table;  // [positions][D]
    int64_t T, heads, D;
    bool inverse;
} RopeArgs;
Err op_rope(Ctx *ctx, const RopeArgs *a) ERR_MUST_CHECK;

// y[T][F] = silu(g[T][F]) * u[T][F]. Backward: dg, du from dy; dg and du may be g and u.
typedef struct SwigluArgs {
    Tensor g, u, y;
    int64_t T, F;
} SwigluArgs;
Err op_swiglu_fwd(Ctx *ctx, const SwigluArgs *a) ERR_MUST_CHECK;
typedef struct SwigluBwdArgs {
    Tensor g, u, dy, dg, du;
    int64_t T, F;
} SwigluBwdArgs;
Err op_swiglu_bwd(Ctx *ctx, const SwigluBwdArgs *a) ERR_MUST_CHECK;

// y = gelu(g) * u and its gradients, with gelu's tanh form (Hendrycks & Gimpel 2016; Gemma's gelu_pytorch_tanh):
//   gelu(x) = x / 2 (1 + tanh z) = x sigmoid(2 z), z = GELU_SCALE (x + GELU_CUBE x^3)
#define GELU_SCALE 0.79788456080286536  // sqrt(2 / pi)
#define GELU_CUBE 0.044715
typedef SwigluArgs GegluArgs;
typedef SwigluBwdArgs GegluBwdArgs;
Err op_geglu_fwd(Ctx *ctx, const GegluArgs *a) ERR_MUST_CHECK;
Err op_geglu_bwd(Ctx *ctx, const GegluBwdArgs *a) ERR_MUST_CHECK;

// y = a + b, [T][H]. y may be a or b.
typedef struct AddArgs {
    Tensor a, b, y;
    int64_t T, H;
} AddArgs;
Err op_add(Ctx *ctx, const AddArgs *a) ERR_MUST_CHECK;

// --- attention -----------------------------------------------------------------------------------------------------

// o = softmax(softcap(scale q.k)) v over the keys that a query sees. softcap 0: none (cap * tanh(s / cap) otherwise);
// window 0: none (otherwise keys at positions > query position - window). GQA: query head n reads kv head n / (N/K).
typedef struct AttnArgs {
    Tensor q, k, v, o;   // [T][N][D], [T][K][D], [T][K][D], [T][N][D]
    float *lse;          // [N][T] kept for the backward, or NULL
    const Segment *seg;  // [S]
    int64_t T, S, N, K, D;
    float scale, softcap;
    int32_t window;
    void *workspace;
} AttnArgs;
int64_t op_attn_fwd_workspace(const Ctx *ctx, const AttnArgs *a);
Err op_attn_fwd(Ctx *ctx, const AttnArgs *a) ERR_MUST_CHECK;

// dq, dk, dv overwritten. A prefix's dk, dv sum first its own queries, then those of the segments that share it, in
// table order.
typedef struct AttnBwdArgs {
    Tensor q, k, v, o, dout, dq, dk, dv;
    const float *lse;  // [N][T]
    const Segment *seg;
    int64_t T, S, N, K, D;
    float scale, softcap;
    int32_t window;
    void *workspace;
} AttnBwdArgs;
int64_t op_attn_bwd_workspace(const Ctx *ctx, const AttnBwdArgs *a);
Err op_attn_bwd(Ctx *ctx, const AttnBwdArgs *a) ERR_MUST_CHECK;

// Decode: one new query a slot against a paged cache. A page of one layer holds KV_PAGE tokens and takes op_kv_page_bytes.
// fp32: keys [K][D][KV_PAGE], then values [K][KV_PAGE][D], so that scores and outputs are plain products; bf16: each head's
// keys, then each head's values, as packed matrices. A slot sees its prefix pages, then its own pages.
// Slots with the same prefix (the samples of one prompt) form groups of at most DECODE_GROUP, whose prefix is read once.
enum { KV_PAGE = 64, DECODE_GROUP = 8 };

// Stores keys and values of n tokens, in order of their places: a page is begun with place 0.
typedef struct KvStoreArgs {
    Tensor k, v;                  // [n][K][D]
    void *pages;                  // this layer's pages
    const int32_t *page, *place;  // [n] where each token goes
    int64_t n, K, D;
} KvStoreArgs;
int64_t op_kv_page_bytes(const Ctx *ctx, DType dtype, int64_t K, int64_t D);
Err op_kv_store(Ctx *ctx, const KvStoreArgs *a) ERR_MUST_CHECK;

typedef struct DecodeAttnArgs {
    Tensor q, o;                 // [slots][N][D]
    const void *pages;           // this layer's pages, in q's dtype
    const int32_t *prefix_page;  // [slots][max_prefix_pages] page numbers
    const int32_t *prefix_len;   // [slots] tokens in the prefix (the last page may be part filled)
    const int32_t *own_page;     // [slots][max_own_pages]
    const int32_t *own_len;      // [slots] tokens in the slot's own pages, the newest included
    const int32_t *order;        // [slots] every slot once, group by group
    const int32_t *group;        // [groups + 1] where each group begins in `order`; they say how to compute, not what; some may be empty
    int64_t groups, slots, N, K, D, max_prefix_pages, max_own_pages;
    float scale, softcap;
    int32_t window;
    void *workspace;
} DecodeAttnArgs;
int64_t op_attn_decode_workspace(const Ctx *ctx, const DecodeAttnArgs *a);
Err op_attn_decode(Ctx *ctx, const DecodeAttnArgs *a) ERR_MUST_CHECK;

// --- log-probabilities and losses ----------------------------------------------------------------------------------

// logp[t] = log softmax(softcap(hidden[t] . head^T))[target[t]], lse[t] likewise; computed in chunks of the
// vocabulary of fixed width, never T x V. target < 0: the position is skipped, logp = 0, lse = 0, best = 0.
typedef struct LogprobArgs {
    Tensor hidden, head;  // [T][H], [V][H]
    const int32_t *target;
    float *logp, *lse;    // [T]
    uint8_t *best;        // [T] or NULL: 1 where no token is more likely than the target
    int64_t T, H, V;
    float softcap;        // 0: none
    void *workspace;
} LogprobArgs;
int64_t op_logprob_fwd_workspace(const Ctx *ctx, const LogprobArgs *a);
Err op_logprob_fwd(Ctx *ctx, const LogprobArgs *a) ERR_MUST_CHECK;

// Gradient of sum_t coef[t] logp[t]: dhidden overwritten, dhead added row by row. Positions with target < 0 or
// coef == 0 give zero.
typedef struct LogprobBwdArgs {
    Tensor hidden, head, dhidden, dhead;
    const int32_t *target;
    const float *lse, *coef;  // [T]
    const int32_t *row;       // [rows + 1]
    int32_t rows;
    int64_t T, H, V;
    float softcap;
    void *workspace;
} LogprobBwdArgs;
int64_t op_logprob_bwd_workspace(const Ctx *ctx, const LogprobBwdArgs *a);
Err op_logprob_bwd(Ctx *ctx, const LogprobBwdArgs *a) ERR_MUST_CHECK;

// --- optimiser -----------------------------------------------------------------------------------------------------

// AdamW with decoupled decay (Loshchilov & Hutter 2019), as torch.optim.AdamW: g is multiplied by *clip first.
//   w -= lr * decay * w;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;
//   w -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
typedef struct AdamWArgs {
    float *w, *m, *v;
    const float *g;
    uint16_t *rounded;  // [n] the new weights in bf16, or NULL
    int64_t n;
    const float *clip, *lr;  // where they will be
    const int64_t *step;     // 1-based t
    float beta1, beta2, eps, decay;
} AdamWArgs;
Err op_adamw(Ctx *ctx, const AdamWArgs *a) ERR_MUST_CHECK;

// sum[b] = sum of g^2 over block b of 4,096 elements, in double.
enum { NORM_BLOCK = 4096 };
typedef struct SqNormArgs {
    const float *g;
    int64_t n;
    double *sum;  // [ceil(n / NORM_BLOCK)]
} SqNormArgs;
Err op_sqnorm(Ctx *ctx, const SqNormArgs *a) ERR_MUST_CHECK;

// Sums in fixed point: integers add exactly, so that a sum depends neither on the order nor on who adds.
// sum[i] += g[i] in units of 2^-FIXED_BITS (nearest, ties to even), g[i] = 0. Where g[i] is not below 2^FIXED_LIMIT in size (NaN is
// not), nothing is added and *bad becomes 1. A sum has room for 4,096 of them.
enum { FIXED_BITS = 40, FIXED_LIMIT = 11 };
typedef struct FixedAddArgs {
    float *g;
    int64_t *sum;
    int64_t n;
    uint32_t *bad;
} FixedAddArgs;
Err op_fixed_add(Ctx *ctx, const FixedAddArgs *a) ERR_MUST_CHECK;

// g[i] = sum[i], to the nearest.
typedef struct FixedGetArgs {
    const int64_t *sum;
    float *g;
    int64_t n;
} FixedGetArgs;
Err op_fixed_get(Ctx *ctx, const FixedGetArgs *a) ERR_MUST_CHECK;

#endif
