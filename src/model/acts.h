// SPDX-License-Identifier: Apache-2.0
// What forward.c keeps for backward.c, and the steps that both run. Private to src/model.
#ifndef IMF_MODEL_ACTS_H
#define IMF_MODEL_ACTS_H

#include <math.h>
#include <stddef.h>

#include "model/model.h"

// fp32, or bf16 in a bf16 model, but for the residual stream, rstd and lse.
typedef struct LayerActs {
    Tensor mid;        // [T][H] residual stream between attention and MLP, fp32; recomputed: all layers' in one place
    Tensor qkv;        // [T][(N + 2K) D] after RoPE
    Tensor o;          // [T][N D] attention output
    Tensor gate_up;    // [T][2F]
    float *rstd_attn, *rstd_mlp;  // [T]
    float *lse;        // [N][T]
} LayerActs;

// What layers share, the backward's too.
typedef struct Scratch {
    Tensor norm;    // [T][H] a norm's output
    Tensor swiglu;  // [T][F]
    Tensor mid;     // where it is recomputed
} Scratch;

struct Acts {
    Scratch scratch;
    LayerActs *layer;  // [layers]
    Tensor *x;         // [layers + 1] -> [T][H] residual stream before each layer and after the last, fp32
    float *rstd_final; // [T]
};

static inline float attn_scale(const ModelConfig *c) { return (float)(1 / sqrt((double)c->D)); }
static inline int64_t qkv_width(const ModelConfig *c) { return (c->N + 2 * c->K) * c->D; }

// On a device `mid` is recomputed in the backward, by one product more, and the residual stream kept once a layer: there memory decides how
// many tokens a row may have.
static inline bool acts_recompute_mid(const Ctx *ctx) { return ctx->device; }

// [T][width] from the arena.
Err acts_tensor(Arena *arena, DType dtype, int64_t T, int64_t width, Tensor *out) ERR_MUST_CHECK;
// mid: where it lies; NULL: in memory of its own.
Err acts_layer_alloc(Arena *arena, const Model *m, int64_t T, bool keep, const Tensor *mid, LayerActs *a) ERR_MUST_CHECK;
// a->mid = in + a->o . W_O^T
Err layer_mid(Ctx *ctx, const Model *m, int32_t l, int64_t T, Tensor in, const LayerActs *a) ERR_MUST_CHECK;
// y = norm of x with the weight `kind` of layer l; rstd may be NULL.
Err layer_norm(Ctx *ctx, const Model *m, WeightKind kind, int32_t l, int64_t T, Tensor x, float *rstd, Tensor y)
    ERR_MUST_CHECK;
// Turns the q and k heads of a fused buffer in place.
Err layer_rope(Ctx *ctx, const Model *m, const Batch *b, Tensor qkv, bool inverse) ERR_MUST_CHECK;
Err layer_swiglu(Ctx *ctx, const Model *m, int64_t T, Tensor gate_up, Tensor y) ERR_MUST_CHECK;

#endif
