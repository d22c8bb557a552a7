// Forward pass over packed rows: x += Attn(norm(x)); x += MLP(norm(x)) per layer, then the final norm (spec 1.2).
//
// With `keep`, each layer's input, middle, rstd, q/k/v, attention output, log-sum-exp and gate/up stay for the backward; norm
// outputs and the SwiGLU product are recomputed there (cheap). Without, all layers share the same few buffers. Both run the
// same ops on the same numbers, so the bits are the same.
#include "model/acts.h"

static Tensor weight(const Model *m, WeightKind kind, int32_t layer, int64_t cols)
{
    return tensor_f32(model_weight(m, kind, layer), cols);
}

Err acts_layer_alloc(Arena *arena, const ModelConfig *c, int64_t T, bool keep, LayerActs *a)
{
    int64_t qkv = (c->N + 2 * c->K) * c->D;
    TRY(ARENA_ARRAY(arena, &a->mid, T * c->H));
    TRY(ARENA_ARRAY(arena, &a->qkv, T * qkv));
    TRY(ARENA_ARRAY(arena, &a->o, T * c->N * c->D));
    TRY(ARENA_ARRAY(arena, &a->gate_up, T * 2 * c->F));
    a->rstd_attn = a->rstd_mlp = a->lse = NULL;
    if (!keep) return OK;
    TRY(ARENA_ARRAY(arena, &a->rstd_attn, T));
    TRY(ARENA_ARRAY(arena, &a->rstd_mlp, T));
    TRY(ARENA_ARRAY(arena, &a->lse, c->N * T));
    return OK;
}

Err layer_norm(Ctx *ctx, const Model *m, WeightKind kind, int32_t l, int64_t T, const float *x, float *rstd, float *y)
{
    int64_t H = m->cfg.H;
    RmsNormArgs a = {.x = tensor_f32((float *)x, H), .y = tensor_f32(y, H), .w = model_weight(m, kind, l), .rstd = rstd,
                     .T = T, .H = H, .eps = m->cfg.eps};
    return op_rmsnorm_fwd(ctx, &a);
}

static Err dense(Ctx *ctx, const Model *m, WeightKind kind, int32_t l, int64_t T, const float *x, int64_t in, float *y,
                 int64_t out, const float *bias)
{
    GemmArgs a = {.x = tensor_f32((float *)x, in), .w = weight(m, kind, l, in), .y = tensor_f32(y, out), .bias = bias,
                  .T = T, .in = in, .out = out};
    return op_gemm_fwd(ctx, &a);
}

static Err add(Ctx *ctx, int64_t T, int64_t H, const float *a, const float *b, float *y)
{
    AddArgs args = {tensor_f32((float *)a, H), tensor_f32((float *)b, H), tensor_f32(y, H), T, H};
    return op_add(ctx, &args);
}

Err layer_rope(Ctx *ctx, const Model *m, const Batch *b, float *qkv, bool inverse)
{
    const ModelConfig *c = &m->cfg;
    int64_t stride = (c->N + 2 * c->K) * c->D;  // q and k heads lie together: one call turns both
    RopeArgs a = {.x = tensor_f32(qkv, stride), .pos = b->pos, .table = m->rope, .T = b->T, .heads = c->N + c->K, .D = c->D,
                  .inverse = inverse};
    return op_rope(ctx, &a);
}

static Err attention(Ctx *ctx, const Model *m, const Batch *b, Arena *arena, LayerActs *a)
{
    const ModelConfig *c = &m->cfg;
    int64_t stride = (c->N + 2 * c->K) * c->D;
    AttnArgs args = {.q = tensor_f32(a->qkv, stride), .k = tensor_f32(a->qkv + c->N * c->D, stride),
                     .v = tensor_f32(a->qkv + (c->N + c->K) * c->D, stride), .o = tensor_f32(a->o, c->N * c->D),
                     .lse = a->lse, .seg = b->seg, .T = b->T, .S = b->S, .N = c->N, .K = c->K, .D = c->D,
                     .scale = attn_scale(c), .softcap = c->attn_softcap, .window = c->window};
    ArenaMark mark = arena_mark(arena);
    TRY(arena_alloc(arena, &args.workspace, op_attn_fwd_workspace(&args), 1));
    Err err = op_attn_fwd(ctx, &args);
    arena_rewind(arena, mark);
    return err;
}

Err layer_swiglu(Ctx *ctx, const Model *m, int64_t T, const float *gate_up, float *y)
{
    int64_t F = m->cfg.F;
    SwigluArgs a = {tensor_f32((float *)gate_up, 2 * F), tensor_f32((float *)gate_up + F, 2 * F), tensor_f32(y, F), T, F};
    return op_swiglu_fwd(ctx, &a);
}

// Scratch that layers share.
typedef struct Scratch {
    float *norm;    // [T][H]
    float *swiglu;  // [T][F]
} Scratch;

// in -> out, a->mid between them; out may be `in` (nothing kept).
static Err layer_forward(Ctx *ctx, const Model *m, const Batch *b, Arena *arena, int32_t l, const float *in, LayerActs *a,
                         Scratch s, float *out)
{
    const ModelConfig *c = &m->cfg;
    TRY(layer_norm(ctx, m, W_NORM_ATTN, l, b->T, in, a->rstd_attn, s.norm));
    TRY(dense(ctx, m, W_QKV, l, b->T, s.norm, c->H, a->qkv, (c->N + 2 * c->K) * c->D, model_weight(m, W_QKV_BIAS, l)));
    TRY(layer_rope(ctx, m, b, a->qkv, false));
    TRY(attention(ctx, m, b, arena, a));
    TRY(dense(ctx, m, W_O, l, b->T, a->o, c->N * c->D, a->mid, c->H, NULL));
    TRY(add(ctx, b->T, c->H, in, a->mid, a->mid));
    TRY(layer_norm(ctx, m, W_NORM_MLP, l, b->T, a->mid, a->rstd_mlp, s.norm));
    TRY(dense(ctx, m, W_GATE_UP, l, b->T, s.norm, c->H, a->gate_up, 2 * c->F, NULL));
    TRY(layer_swiglu(ctx, m, b->T, a->gate_up, s.swiglu));
    TRY(dense(ctx, m, W_DOWN, l, b->T, s.swiglu, c->F, out, c->H, NULL));
    return add(ctx, b->T, c->H, a->mid, out, out);
}

static Err check_batch(const Model *m, const Batch *b)
{
    ASSERT(b->T > 0 && b->rows > 0 && b->row[b->rows] == b->T);
    for (int64_t s = 0; s < b->S; s++)
        CHECK(b->seg[s].pos0 + (int64_t)b->seg[s].len <= m->rope_positions, ERR_DATA,
              "a sequence of %lld tokens is longer than the model's %lld positions",
              (long long)b->seg[s].pos0 + b->seg[s].len, (long long)m->rope_positions);
    return OK;
}

static Err embed(Ctx *ctx, const Model *m, const Batch *b, float *x)
{
    const ModelConfig *c = &m->cfg;
    EmbedArgs a = {weight(m, W_EMBED, -1, c->H), tensor_f32(x, c->H), b->token, b->T, c->H, c->V};
    return op_embed_fwd(ctx, &a);
}

static Err forward_keep(Ctx *ctx, const Model *m, const Batch *b, Arena *arena, Scratch s, float *hidden, Acts *acts)
{
    const ModelConfig *c = &m->cfg;
    TRY(ARENA_ARRAY(arena, &acts->layer, c->layers));
    TRY(ARENA_ARRAY(arena, &acts->x, c->layers + 1));
    for (int32_t l = 0; l <= c->layers; l++) TRY(ARENA_ARRAY(arena, &acts->x[l], b->T * c->H));
    TRY(ARENA_ARRAY(arena, &acts->rstd_final, b->T));
    TRY(embed(ctx, m, b, acts->x[0]));
    for (int32_t l = 0; l < c->layers; l++) {
        TRY(acts_layer_alloc(arena, c, b->T, true, &acts->layer[l]));
        TRY(layer_forward(ctx, m, b, arena, l, acts->x[l], &acts->layer[l], s, acts->x[l + 1]));
    }
    return layer_norm(ctx, m, W_NORM_FINAL, -1, b->T, acts->x[c->layers], acts->rstd_final, hidden);
}

static Err forward_lean(Ctx *ctx, const Model *m, const Batch *b, Arena *arena, Scratch s, float *hidden)
{
    const ModelConfig *c = &m->cfg;
    LayerActs a;
    float *x;
    TRY(ARENA_ARRAY(arena, &x, b->T * c->H));
    TRY(acts_layer_alloc(arena, c, b->T, false, &a));
    TRY(embed(ctx, m, b, x));
    for (int32_t l = 0; l < c->layers; l++) TRY(layer_forward(ctx, m, b, arena, l, x, &a, s, x));
    return layer_norm(ctx, m, W_NORM_FINAL, -1, b->T, x, NULL, hidden);
}

Err model_forward(Ctx *ctx, const Model *m, const Batch *b, Arena *arena, float *hidden, Acts **keep)
{
    Scratch s;
    TRY(check_batch(m, b));
    if (keep) {
        TRY(ARENA_ARRAY(arena, keep, 1));
        // Scratch lies behind what is kept, in the same arena; it is small beside it.
        TRY(ARENA_ARRAY(arena, &s.norm, b->T * m->cfg.H));
        TRY(ARENA_ARRAY(arena, &s.swiglu, b->T * m->cfg.F));
        return forward_keep(ctx, m, b, arena, s, hidden, *keep);
    }
    ArenaMark mark = arena_mark(arena);
    TRY(ARENA_ARRAY(arena, &s.norm, b->T * m->cfg.H));
    TRY(ARENA_ARRAY(arena, &s.swiglu, b->T * m->cfg.F));
    Err err = forward_lean(ctx, m, b, arena, s, hidden);
    arena_rewind(arena, mark);
    return err;
}

Tensor model_head(const Model *m)
{
    WeightKind kind = m->cfg.tied ? W_EMBED : W_HEAD;
    return weight(m, kind, -1, m->cfg.H);
}

Err model_logits(Ctx *ctx, const Model *m, const float *hidden, int64_t n, float *logits)
{
    ASSERT(!m->cfg.headless);
    const ModelConfig *c = &m->cfg;
    GemmArgs a = {.x = tensor_f32((float *)hidden, c->H), .w = model_head(m), .y = tensor_f32(logits, c->V),
                  .T = n, .in = c->H, .out = c->V};
    return op_gemm_fwd(ctx, &a);
}

Err model_check_ids(const Model *m, const int32_t *id, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        CHECK(id[i] >= 0 && id[i] < m->cfg.V, ERR_DATA,
              "token %d is outside the model's vocabulary of %lld: tokenizer and weights in %s do not belong together",
              (int)id[i], (long long)m->cfg.V, m->dir ? m->dir : "this model");
    return OK;
}
