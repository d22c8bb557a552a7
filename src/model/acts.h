// What forward.c keeps for backward.c, and the steps that both run. Private to src/model.
#ifndef IMF_MODEL_ACTS_H
#define IMF_MODEL_ACTS_H

#include <math.h>
#include <stddef.h>

#include "model/model.h"

typedef struct LayerActs {
    float *mid;        // [T][H] residual stream between attention and MLP
    float *qkv;        // [T][(N + 2K) D] after RoPE
    float *o;          // [T][N D] attention output
    float *gate_up;    // [T][2F]
    float *rstd_attn, *rstd_mlp;  // [T]
    float *lse;        // [N][T]
} LayerActs;

struct Acts {
    LayerActs *layer;  // [layers]
    float **x;         // [layers + 1] -> [T][H] residual stream before each layer and after the last
    float *rstd_final; // [T]
};

static inline float attn_scale(const ModelConfig *c) { return (float)(1 / sqrt((double)c->D)); }

Err acts_layer_alloc(Arena *arena, const ModelConfig *c, int64_t T, bool keep, LayerActs *a) ERR_MUST_CHECK;
// y = norm of x with the weight `kind` of layer l; rstd may be NULL.
Err layer_norm(Ctx *ctx, const Model *m, WeightKind kind, int32_t l, int64_t T, const float *x, float *rstd, float *y)
    ERR_MUST_CHECK;
// Turns the q and k heads of a fused buffer in place.
Err layer_rope(Ctx *ctx, const Model *m, const Batch *b, float *qkv, bool inverse) ERR_MUST_CHECK;
Err layer_swiglu(Ctx *ctx, const Model *m, int64_t T, const float *gate_up, float *y) ERR_MUST_CHECK;

#endif
