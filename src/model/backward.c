// SPDX-License-Identifier: Apache-2.0
// Backward pass: d loss / d hidden -> gradients of all weights, added to the sink row by row (Batch.row), so that the sums
// depend on the rows and their order alone. Norm outputs and SwiGLU products are recomputed, on a device also LayerActs.mid, all by the
// forward's ops: the same bits.
#include "model/acts.h"

#include "kernels/cuda/device.h"

typedef struct Back {  // what every step needs
    Ctx *ctx;
    const Model *m;
    const Batch *b;
    const GradSink *sink;
    float *grad;     // of the part at hand: where element 0 of the block would lie
    Tensor dx;       // [T][H] gradient at the residual stream, fp32
    Tensor dy;       // [T][H] the same as an operand: dx itself, in a bf16 model dx rounded
    Tensor norm;     // [T][H] recomputed norm outputs, in the forward's scratch
    Tensor dnorm;    // [T][H] gradients at norm outputs, fp32
    Tensor wide;     // [T][F] recomputed SwiGLU, likewise
    Tensor dwide;    // [T][F]
    Tensor dgu;      // [T][2F]
    Tensor dqkv;     // [T][(N + 2K) D]
    Tensor dout;     // [T][N D]
    void *attn, *dw; // workspaces
} Back;

static float *grad_of(const Back *k, WeightKind kind, int32_t l)
{
    int64_t at = model_offset(k->m, kind, l);
    return at < 0 ? NULL : k->grad + at;
}

// A dense layer y = x . w^T: dx[T][in] from dy[T][out], and dw (and dbias) added.
static Err dense_back(const Back *k, WeightKind kind, int32_t l, Tensor x, Tensor dy, Tensor dx, float *dbias)
{
    int64_t in = x.stride, out = dy.stride;
    GemmDxArgs a = {.dy = dy, .w = model_matrix(k->m, kind, l), .dx = dx, .T = k->b->T, .in = in, .out = out};
    TRY(op_gemm_bwd_x(k->ctx, &a));
    GemmDwArgs d = {.dy = dy, .x = x, .dw = tensor_f32(grad_of(k, kind, l), in), .dbias = dbias, .row = k->b->row,
                    .rows = k->b->rows, .in = in, .out = out, .workspace = k->dw};
    return op_gemm_bwd_w(k->ctx, &d);
}

static Err round_dx(const Back *k)
{
    RoundArgs a = {k->dx, k->dy, k->b->T, k->m->cfg.H};
    return k->m->dtype == DT_F32 ? OK : op_round(k->ctx, &a);
}

// Through the norm of `x`: k->dx = (carry ? k->dx : 0) + gradient of dy; the norm's weight gradient is added.
static Err norm_back(const Back *k, WeightKind kind, int32_t l, Tensor x, const float *rstd, Tensor dy, bool carry)
{
    RmsNormBwdArgs a = {.x = x, .dy = dy, .dx_in = carry ? k->dx : (Tensor){0}, .dx = k->dx, .w = model_vector(k->m, kind, l),
                        .rstd = rstd, .dw = grad_of(k, kind, l), .row = k->b->row, .rows = k->b->rows, .T = k->b->T,
                        .H = k->m->cfg.H};
    TRY(op_rmsnorm_bwd(k->ctx, &a));
    return round_dx(k);
}

static Err swiglu_back(const Back *k, Tensor gate_up)
{
    int64_t F = k->m->cfg.F;
    SwigluBwdArgs a = {.g = gate_up, .u = tensor_at(gate_up, F), .dy = k->dwide, .dg = k->dgu, .du = tensor_at(k->dgu, F),
                       .T = k->b->T, .F = F};
    return op_swiglu_bwd(k->ctx, &a);
}

static AttnBwdArgs attn_args(const Back *k, const LayerActs *a)
{
    const ModelConfig *c = &k->m->cfg;
    int64_t key = c->N * c->D, value = (c->N + c->K) * c->D;
    return (AttnBwdArgs){.q = a->qkv, .k = tensor_at(a->qkv, key), .v = tensor_at(a->qkv, value), .o = a->o, .dout = k->dout,
                         .dq = k->dqkv, .dk = tensor_at(k->dqkv, key), .dv = tensor_at(k->dqkv, value), .lse = a->lse,
                         .seg = k->b->seg, .T = k->b->T, .S = k->b->S, .N = c->N, .K = c->K, .D = c->D,
                         .scale = attn_scale(c), .softcap = c->attn_softcap, .window = c->window, .workspace = k->attn};
}

static Err mlp_back(const Back *k, int32_t l, Tensor x, const LayerActs *a)
{
    if (acts_recompute_mid(k->ctx)) TRY(layer_mid(k->ctx, k->m, l, k->b->T, x, a));
    TRY(layer_swiglu(k->ctx, k->m, k->b->T, a->gate_up, k->wide));
    TRY(dense_back(k, W_DOWN, l, k->wide, k->dy, k->dwide, NULL));
    TRY(swiglu_back(k, a->gate_up));
    TRY(layer_norm(k->ctx, k->m, W_NORM_MLP, l, k->b->T, a->mid, NULL, k->norm));
    TRY(dense_back(k, W_GATE_UP, l, k->norm, k->dgu, k->dnorm, NULL));
    return norm_back(k, W_NORM_MLP, l, a->mid, a->rstd_mlp, k->dnorm, true);
}

static Err attention_back(const Back *k, int32_t l, Tensor x, const LayerActs *a)
{
    TRY(dense_back(k, W_O, l, a->o, k->dy, k->dout, NULL));
    AttnBwdArgs args = attn_args(k, a);
    TRY(op_attn_bwd(k->ctx, &args));
    TRY(layer_rope(k->ctx, k->m, k->b, k->dqkv, true));
    TRY(layer_norm(k->ctx, k->m, W_NORM_ATTN, l, k->b->T, x, NULL, k->norm));
    TRY(dense_back(k, W_QKV, l, k->norm, k->dqkv, k->dnorm, grad_of(k, W_QKV_BIAS, l)));
    return norm_back(k, W_NORM_ATTN, l, x, a->rstd_attn, k->dnorm, true);
}

// The largest workspace of any op_gemm_bwd_w of a layer.
static int64_t dw_workspace(const Back *k)
{
    const ModelConfig *c = &k->m->cfg;
    int64_t size[][2] = {{qkv_width(c), c->H}, {c->H, c->N * c->D}, {2 * c->F, c->H}, {c->H, c->F}}, most = 0;
    for (int i = 0; i < 4; i++) {
        GemmDwArgs a = {.dy.dtype = k->m->dtype, .row = k->b->row, .rows = k->b->rows, .out = size[i][0], .in = size[i][1]};
        int64_t bytes = op_gemm_bwd_w_workspace(k->ctx, &a);
        if (bytes > most) most = bytes;
    }
    return most;
}

// first: any layer's
static Err back_alloc(Back *k, Arena *arena, const LayerActs *first)
{
    const ModelConfig *c = &k->m->cfg;
    int64_t T = k->b->T;
    DType type = k->m->dtype;
    TRY(acts_tensor(arena, DT_F32, T, c->H, &k->dx));
    k->dy = k->dx;
    if (type != DT_F32) TRY(acts_tensor(arena, type, T, c->H, &k->dy));
    TRY(acts_tensor(arena, DT_F32, T, c->H, &k->dnorm));
    TRY(acts_tensor(arena, type, T, c->F, &k->dwide));
    TRY(acts_tensor(arena, type, T, 2 * c->F, &k->dgu));
    TRY(acts_tensor(arena, type, T, qkv_width(c), &k->dqkv));
    TRY(acts_tensor(arena, type, T, c->N * c->D, &k->dout));
    TRY(arena_alloc(arena, &k->dw, dw_workspace(k), 1));
    AttnBwdArgs args = attn_args(k, first);
    return arena_alloc(arena, &k->attn, op_attn_bwd_workspace(k->ctx, &args), 1);
}

// Part p of the backward (GradSink).
static Err part_back(Back *k, int32_t p, const Acts *acts, Tensor dhidden)
{
    const ModelConfig *c = &k->m->cfg;
    const int32_t l = (int32_t)c->layers - p;
    if (p == 0) return norm_back(k, W_NORM_FINAL, -1, acts->x[c->layers], acts->rstd_final, dhidden, false);
    if (l >= 0) {
        TRY(mlp_back(k, l, acts->x[l], &acts->layer[l]));
        return attention_back(k, l, acts->x[l], &acts->layer[l]);
    }
    EmbedBwdArgs e = {k->dx, tensor_f32(grad_of(k, W_EMBED, -1), c->H), k->b->token, k->b->T, c->H, c->V};
    return op_embed_bwd(k->ctx, &e);
}

static Err backward(Back *k, Arena *arena, const Acts *acts, Tensor dhidden)
{
    const GradSink *s = k->sink;
    k->grad = s->whole, k->norm = acts->scratch.norm, k->wide = acts->scratch.swiglu;
    TRY(back_alloc(k, arena, &acts->layer[0]));
    for (int32_t p = 0; p < model_grad_parts(k->m); p++) {
        if (!s->whole) TRY(s->begin(s->user, p, &k->grad));
        TRY(part_back(k, p, acts, dhidden));
        if (!s->whole) TRY(s->end(s->user, p));
    }
    return OK;
}

Err model_backward(Ctx *ctx, const Model *m, const Batch *b, Arena *arena, const Acts *acts, const float *dhidden,
                   const GradSink *sink)
{
    RANGE_ON(ctx, "backward");
    Back k = {.ctx = ctx, .m = m, .b = b, .sink = sink};
    ArenaMark mark = arena_mark(arena);
    Err err = backward(&k, arena, acts, tensor_f32((float *)dhidden, m->cfg.H));
    arena_rewind(arena, mark);
    return err;
}

Err model_backward_count(Ctx *ctx, const Model *m, const Batch *b, Arena *counting)
{
    Back k = {.ctx = ctx, .m = m, .b = b};
    const LayerActs a = {.qkv.dtype = m->dtype};
    const ArenaMark mark = arena_mark(counting);
    TRY(back_alloc(&k, counting, &a));
    arena_rewind(counting, mark);
    return OK;
}

int64_t model_grad_elements(const Model *m) { return m->elements + (m->cfg.tied ? m->cfg.V * m->cfg.H : 0); }

static Tensor head_grad(const Model *m, float *grad)
{
    int64_t at = m->cfg.tied ? m->elements : model_offset(m, W_HEAD, -1);
    return tensor_f32(at < 0 ? NULL : grad + at, m->cfg.H);
}

GradSink model_grad_whole(const Model *m, float *grad) { return (GradSink){.whole = grad, .head = head_grad(m, grad)}; }

int32_t model_grad_parts(const Model *m) { return (int32_t)m->cfg.layers + 2; }

void model_grad_part(const Model *m, int32_t part, int64_t *first, int64_t *n)
{
    const int32_t layers = (int32_t)m->cfg.layers, l = layers - part;  // l = -1: the embedding
    const int64_t end = l == layers ? m->elements : l == layers - 1 ? model_offset(m, W_NORM_FINAL, -1) : model_offset(m, W_NORM_ATTN, l + 1);
    *first = l == layers ? model_offset(m, W_NORM_FINAL, -1) : l >= 0 ? model_offset(m, W_NORM_ATTN, l) : model_offset(m, W_EMBED, -1);
    *n = end - *first;
}

Err model_grad_fold(Ctx *ctx, const Model *m, float *grad)
{
    const ModelConfig *c = &m->cfg;
    if (!c->tied) return OK;
    Tensor embed = tensor_f32(grad + model_offset(m, W_EMBED, -1), c->H);
    AddArgs a = {embed, head_grad(m, grad), embed, c->V, c->H};
    return op_add(ctx, &a);
}
