// Backward pass: d loss / d hidden -> gradients of all weights, added to `grad` row by row (Batch.row), so that the sums
// depend on the rows and their order alone. Norm outputs and SwiGLU products are recomputed.
#include "model/acts.h"

typedef struct Back {  // what every step needs
    Ctx *ctx;
    const Model *m;
    const Batch *b;
    float *grad;
    float *dx;       // [T][H] gradient at the residual stream
    float *norm;     // [T][H] recomputed norm outputs
    float *dnorm;    // [T][H] gradients at norm outputs
    float *wide;     // [T][F] recomputed SwiGLU
    float *dwide;    // [T][F]
    float *dgu;      // [T][2F]
    float *dqkv;     // [T][(N + 2K) D]
    float *dout;     // [T][N D]
    void *attn;      // workspace
} Back;

static float *grad_of(const Back *k, WeightKind kind, int32_t l)
{
    int64_t at = model_offset(k->m, kind, l);
    return at < 0 ? NULL : k->grad + at;
}

// A dense layer y = x . w^T: dx[T][in] from dy[T][out], and dw (and dbias) added.
static Err dense_back(const Back *k, WeightKind kind, int32_t l, const float *x, int64_t in, const float *dy, int64_t out,
                      float *dx, float *dbias)
{
    Tensor g = tensor_f32((float *)dy, out), w = tensor_f32(model_weight(k->m, kind, l), in);
    GemmDxArgs a = {.dy = g, .w = w, .dx = tensor_f32(dx, in), .T = k->b->T, .in = in, .out = out};
    TRY(op_gemm_bwd_x(k->ctx, &a));
    GemmDwArgs d = {.dy = g, .x = tensor_f32((float *)x, in), .dw = tensor_f32(grad_of(k, kind, l), in), .dbias = dbias,
                    .row = k->b->row, .rows = k->b->rows, .in = in, .out = out};
    return op_gemm_bwd_w(k->ctx, &d);
}

// Through the norm of `x`: k->dx = (carry ? k->dx : 0) + gradient of dy; the norm's weight gradient is added.
static Err norm_back(const Back *k, WeightKind kind, int32_t l, const float *x, const float *rstd, const float *dy,
                     bool carry)
{
    int64_t H = k->m->cfg.H;
    RmsNormBwdArgs a = {.x = tensor_f32((float *)x, H), .dy = tensor_f32((float *)dy, H),
                        .dx_in = tensor_f32(carry ? k->dx : NULL, H), .dx = tensor_f32(k->dx, H),
                        .w = model_weight(k->m, kind, l), .rstd = rstd, .dw = grad_of(k, kind, l), .row = k->b->row,
                        .rows = k->b->rows, .T = k->b->T, .H = H};
    return op_rmsnorm_bwd(k->ctx, &a);
}

static Err swiglu_back(const Back *k, const float *gate_up)
{
    int64_t F = k->m->cfg.F;
    SwigluBwdArgs a = {.g = tensor_f32((float *)gate_up, 2 * F), .u = tensor_f32((float *)gate_up + F, 2 * F),
                       .dy = tensor_f32(k->dwide, F), .dg = tensor_f32(k->dgu, 2 * F),
                       .du = tensor_f32(k->dgu + F, 2 * F), .T = k->b->T, .F = F};
    return op_swiglu_bwd(k->ctx, &a);
}

static AttnBwdArgs attn_args(const Back *k, const LayerActs *a)
{
    const ModelConfig *c = &k->m->cfg;
    int64_t s = (c->N + 2 * c->K) * c->D, key = c->N * c->D, value = (c->N + c->K) * c->D;
    return (AttnBwdArgs){.q = tensor_f32(a->qkv, s), .k = tensor_f32(a->qkv + key, s), .v = tensor_f32(a->qkv + value, s),
                         .o = tensor_f32(a->o, key), .dout = tensor_f32(k->dout, key), .dq = tensor_f32(k->dqkv, s),
                         .dk = tensor_f32(k->dqkv + key, s), .dv = tensor_f32(k->dqkv + value, s), .lse = a->lse,
                         .seg = k->b->seg, .T = k->b->T, .S = k->b->S, .N = c->N, .K = c->K, .D = c->D,
                         .scale = attn_scale(c), .softcap = c->attn_softcap, .window = c->window, .workspace = k->attn};
}

static Err mlp_back(const Back *k, int32_t l, const LayerActs *a)
{
    const ModelConfig *c = &k->m->cfg;
    TRY(layer_swiglu(k->ctx, k->m, k->b->T, a->gate_up, k->wide));
    TRY(dense_back(k, W_DOWN, l, k->wide, c->F, k->dx, c->H, k->dwide, NULL));
    TRY(swiglu_back(k, a->gate_up));
    TRY(layer_norm(k->ctx, k->m, W_NORM_MLP, l, k->b->T, a->mid, NULL, k->norm));
    TRY(dense_back(k, W_GATE_UP, l, k->norm, c->H, k->dgu, 2 * c->F, k->dnorm, NULL));
    return norm_back(k, W_NORM_MLP, l, a->mid, a->rstd_mlp, k->dnorm, true);
}

static Err attention_back(const Back *k, int32_t l, const float *x, const LayerActs *a)
{
    const ModelConfig *c = &k->m->cfg;
    TRY(dense_back(k, W_O, l, a->o, c->N * c->D, k->dx, c->H, k->dout, NULL));
    AttnBwdArgs args = attn_args(k, a);
    TRY(op_attn_bwd(k->ctx, &args));
    TRY(layer_rope(k->ctx, k->m, k->b, k->dqkv, true));
    TRY(layer_norm(k->ctx, k->m, W_NORM_ATTN, l, k->b->T, x, NULL, k->norm));
    TRY(dense_back(k, W_QKV, l, k->norm, c->H, k->dqkv, (c->N + 2 * c->K) * c->D, k->dnorm, grad_of(k, W_QKV_BIAS, l)));
    return norm_back(k, W_NORM_ATTN, l, x, a->rstd_attn, k->dnorm, true);
}

static Err back_alloc(Back *k, Arena *arena, const Acts *acts)
{
    const ModelConfig *c = &k->m->cfg;
    int64_t T = k->b->T;
    TRY(ARENA_ARRAY(arena, &k->dx, T * c->H));
    TRY(ARENA_ARRAY(arena, &k->norm, T * c->H));
    TRY(ARENA_ARRAY(arena, &k->dnorm, T * c->H));
    TRY(ARENA_ARRAY(arena, &k->wide, T * c->F));
    TRY(ARENA_ARRAY(arena, &k->dwide, T * c->F));
    TRY(ARENA_ARRAY(arena, &k->dgu, T * 2 * c->F));
    TRY(ARENA_ARRAY(arena, &k->dqkv, T * (c->N + 2 * c->K) * c->D));
    TRY(ARENA_ARRAY(arena, &k->dout, T * c->N * c->D));
    AttnBwdArgs args = attn_args(k, &acts->layer[0]);
    return arena_alloc(arena, &k->attn, op_attn_bwd_workspace(&args), 1);
}

static Err backward(Back *k, Arena *arena, const Acts *acts, const float *dhidden)
{
    const ModelConfig *c = &k->m->cfg;
    TRY(back_alloc(k, arena, acts));
    TRY(norm_back(k, W_NORM_FINAL, -1, acts->x[c->layers], acts->rstd_final, dhidden, false));
    for (int32_t l = (int32_t)c->layers - 1; l >= 0; l--) {
        TRY(mlp_back(k, l, &acts->layer[l]));
        TRY(attention_back(k, l, acts->x[l], &acts->layer[l]));
    }
    EmbedBwdArgs e = {tensor_f32(k->dx, c->H), tensor_f32(grad_of(k, W_EMBED, -1), c->H), k->b->token, k->b->T, c->H, c->V};
    return op_embed_bwd(k->ctx, &e);
}

Err model_backward(Ctx *ctx, const Model *m, const Batch *b, Arena *arena, const Acts *acts, const float *dhidden,
                   float *grad)
{
    Back k = {.ctx = ctx, .m = m, .b = b, .grad = grad};
    ArenaMark mark = arena_mark(arena);
    Err err = backward(&k, arena, acts, dhidden);
    arena_rewind(arena, mark);
    return err;
}

int64_t model_grad_elements(const Model *m) { return m->elements + (m->cfg.tied ? m->cfg.V * m->cfg.H : 0); }

Tensor model_head_grad(const Model *m, float *grad)
{
    int64_t at = m->cfg.tied ? m->elements : model_offset(m, W_HEAD, -1);
    return tensor_f32(at < 0 ? NULL : grad + at, m->cfg.H);
}

Err model_grad_fold(Ctx *ctx, const Model *m, float *grad)
{
    const ModelConfig *c = &m->cfg;
    if (!c->tied) return OK;
    Tensor embed = tensor_f32(grad + model_offset(m, W_EMBED, -1), c->H);
    AddArgs a = {embed, model_head_grad(m, grad), embed, c->V, c->H};
    return op_add(ctx, &a);
}
