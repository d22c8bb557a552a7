// SPDX-License-Identifier: Apache-2.0
// Forward pass over packed rows: x += Attn(norm(x)); x += MLP(norm(x)) per layer, then the final norm (spec 1.2).
//
// With `keep`, each layer's input, middle, rstd, q/k/v, attention output, log-sum-exp and gate/up stay for the backward; norm
// outputs and the SwiGLU product are recomputed there (cheap), on a device the middle too. Without, all layers share the same few
// buffers. Both run the same ops on the same numbers, so the bits are the same.
#include "model/acts.h"

#include "kernels/cuda/device.h"

Err acts_tensor(Arena *arena, DType dtype, int64_t T, int64_t width, Tensor *out)
{
    *out = (Tensor){NULL, dtype, width};
    return arena_alloc(arena, &out->p, T * width, dtype == DT_F32 ? 4 : 2);
}

Err acts_layer_alloc(Arena *arena, const Model *m, int64_t T, bool keep, const Tensor *mid, LayerActs *a)
{
    const ModelConfig *c = &m->cfg;
    if (mid) a->mid = *mid;
    else TRY(acts_tensor(arena, DT_F32, T, c->H, &a->mid));
    TRY(acts_tensor(arena, m->dtype, T, qkv_width(c), &a->qkv));
    TRY(acts_tensor(arena, m->dtype, T, c->N * c->D, &a->o));
    TRY(acts_tensor(arena, m->dtype, T, 2 * c->F, &a->gate_up));
    a->rstd_attn = a->rstd_mlp = a->lse = NULL;
    if (!keep) return OK;
    TRY(ARENA_ARRAY(arena, &a->rstd_attn, T));
    TRY(ARENA_ARRAY(arena, &a->rstd_mlp, T));
    TRY(ARENA_ARRAY(arena, &a->lse, c->N * T));
    return OK;
}

Err layer_norm(Ctx *ctx, const Model *m, WeightKind kind, int32_t l, int64_t T, Tensor x, float *rstd, Tensor y)
{
    RmsNormArgs a = {.x = x, .y = y, .w = model_vector(m, kind, l), .rstd = rstd, .T = T, .H = m->cfg.H, .eps = m->cfg.eps};
    return op_rmsnorm_fwd(ctx, &a);
}

// y = x . w^T (+ bias) (+ add)
static Err dense(Ctx *ctx, const Model *m, WeightKind kind, int32_t l, int64_t T, Tensor x, const float *bias, Tensor add, Tensor y)
{
    GemmArgs a = {.x = x, .w = model_matrix(m, kind, l), .y = y, .bias = bias, .add = add, .T = T, .in = x.stride, .out = y.stride};
    return op_gemm_fwd(ctx, &a);
}

Err layer_rope(Ctx *ctx, const Model *m, const Batch *b, Tensor qkv, bool inverse)
{
    const ModelConfig *c = &m->cfg;  // q and k heads lie together: one call turns both
    RopeArgs a = {.x = qkv, .pos = b->pos, .table = m->rope, .T = b->T, .heads = c->N + c->K, .D = c->D, .inverse = inverse};
    return op_rope(ctx, &a);
}

static AttnArgs attention_args(const Model *m, const Batch *b, const LayerActs *a)
{
    const ModelConfig *c = &m->cfg;
    return (AttnArgs){.q = a->qkv, .k = tensor_at(a->qkv, c->N * c->D), .v = tensor_at(a->qkv, (c->N + c->K) * c->D), .o = a->o,
                      .lse = a->lse, .seg = b->seg, .T = b->T, .S = b->S, .N = c->N, .K = c->K, .D = c->D,
                      .scale = attn_scale(c), .softcap = c->attn_softcap, .window = c->window};
}

static Err attention(Ctx *ctx, const Model *m, const Batch *b, Arena *arena, const LayerActs *a)
{
    AttnArgs args = attention_args(m, b, a);
    ArenaMark mark = arena_mark(arena);
    TRY(arena_alloc(arena, &args.workspace, op_attn_fwd_workspace(ctx, &args), 1));
    Err err = op_attn_fwd(ctx, &args);
    arena_rewind(arena, mark);
    return err;
}

Err layer_swiglu(Ctx *ctx, const Model *m, int64_t T, Tensor gate_up, Tensor y)
{
    SwigluArgs a = {gate_up, tensor_at(gate_up, m->cfg.F), y, T, m->cfg.F};
    return op_swiglu_fwd(ctx, &a);
}

Err layer_mid(Ctx *ctx, const Model *m, int32_t l, int64_t T, Tensor in, const LayerActs *a)
{
    return dense(ctx, m, W_O, l, T, a->o, NULL, in, a->mid);
}

static Err scratch_alloc(Arena *arena, const Model *m, int64_t T, bool mid, Scratch *s)
{
    *s = (Scratch){0};
    TRY(acts_tensor(arena, m->dtype, T, m->cfg.H, &s->norm));
    TRY(acts_tensor(arena, m->dtype, T, m->cfg.F, &s->swiglu));
    return mid ? acts_tensor(arena, DT_F32, T, m->cfg.H, &s->mid) : OK;
}

// What is put into the stream from now on finds the weights of a part (GradSink), which may still be on their way.
static Err part_there(const Ctx *ctx, const Model *m, int32_t part) { return m->arrived ? device_after(ctx->device, m->arrived[part]) : OK; }

// in -> out, a->mid between them; out may be `in` (nothing kept).
static Err layer_forward(Ctx *ctx, const Model *m, const Batch *b, Arena *arena, int32_t l, Tensor in, LayerActs *a, Scratch s,
                         Tensor out)
{
    const Tensor none = {0};
    TRY(part_there(ctx, m, (int32_t)m->cfg.layers - l));
    TRY(layer_norm(ctx, m, W_NORM_ATTN, l, b->T, in, a->rstd_attn, s.norm));
    TRY(dense(ctx, m, W_QKV, l, b->T, s.norm, model_vector(m, W_QKV_BIAS, l), none, a->qkv));
    TRY(layer_rope(ctx, m, b, a->qkv, false));
    TRY(attention(ctx, m, b, arena, a));
    TRY(layer_mid(ctx, m, l, b->T, in, a));
    TRY(layer_norm(ctx, m, W_NORM_MLP, l, b->T, a->mid, a->rstd_mlp, s.norm));
    TRY(dense(ctx, m, W_GATE_UP, l, b->T, s.norm, NULL, none, a->gate_up));
    TRY(layer_swiglu(ctx, m, b->T, a->gate_up, s.swiglu));
    return dense(ctx, m, W_DOWN, l, b->T, s.swiglu, NULL, a->mid, out);
}

static Err check_batch(const Model *m, const Batch *b)
{
    ASSERT(!m->packed);
    ASSERT(b->T > 0 && b->rows > 0 && b->row[b->rows] == b->T);
    for (int64_t s = 0; s < b->S; s++)
        CHECK(b->seg[s].pos0 + (int64_t)b->seg[s].len <= m->rope_positions, ERR_DATA,
              "a sequence of %lld tokens is longer than the model's %lld positions",
              (long long)b->seg[s].pos0 + b->seg[s].len, (long long)m->rope_positions);
    return OK;
}

static Err embed(Ctx *ctx, const Model *m, const Batch *b, Tensor x)
{
    EmbedArgs a = {model_matrix(m, W_EMBED, -1), x, b->token, b->T, m->cfg.H, m->cfg.V, false};
    TRY(part_there(ctx, m, model_grad_parts(m) - 1));
    return op_embed_fwd(ctx, &a);
}

// An untied head belongs to this part too: who reads it comes behind.
static Err final_norm(Ctx *ctx, const Model *m, int64_t T, Tensor x, float *rstd, Tensor hidden)
{
    TRY(part_there(ctx, m, 0));
    return layer_norm(ctx, m, W_NORM_FINAL, -1, T, x, rstd, hidden);
}

// All that is kept. A counting arena gives no tables to fill.
static Err keep_alloc(const Ctx *ctx, Arena *arena, const Model *m, int64_t T, Acts *acts)
{
    const ModelConfig *c = &m->cfg;
    const bool recompute = acts_recompute_mid(ctx);
    Tensor x;
    LayerActs layer;
    TRY(scratch_alloc(arena, m, T, recompute, &acts->scratch));
    const Tensor *const mid = recompute ? &acts->scratch.mid : NULL;
    TRY(ARENA_ARRAY(arena, &acts->layer, c->layers));
    TRY(ARENA_ARRAY(arena, &acts->x, c->layers + 1));
    for (int32_t l = 0; l <= c->layers; l++) TRY(acts_tensor(arena, DT_F32, T, c->H, acts->x ? &acts->x[l] : &x));
    TRY(ARENA_ARRAY(arena, &acts->rstd_final, T));
    for (int32_t l = 0; l < c->layers; l++) TRY(acts_layer_alloc(arena, m, T, true, mid, acts->layer ? &acts->layer[l] : &layer));
    return OK;
}

static Err forward_keep(Ctx *ctx, const Model *m, const Batch *b, Arena *arena, Tensor hidden, Acts *acts)
{
    const ModelConfig *c = &m->cfg;
    TRY(keep_alloc(ctx, arena, m, b->T, acts));
    TRY(embed(ctx, m, b, acts->x[0]));
    for (int32_t l = 0; l < c->layers; l++)
        TRY(layer_forward(ctx, m, b, arena, l, acts->x[l], &acts->layer[l], acts->scratch, acts->x[l + 1]));
    return final_norm(ctx, m, b->T, acts->x[c->layers], acts->rstd_final, hidden);
}

static Err lean_alloc(Arena *arena, const Model *m, int64_t T, Scratch *s, Tensor *x, LayerActs *a)
{
    TRY(scratch_alloc(arena, m, T, false, s));
    TRY(acts_tensor(arena, DT_F32, T, m->cfg.H, x));
    return acts_layer_alloc(arena, m, T, false, NULL, a);
}

static Err forward_lean(Ctx *ctx, const Model *m, const Batch *b, Arena *arena, Tensor hidden)
{
    Scratch s;
    LayerActs a;
    Tensor x;
    TRY(lean_alloc(arena, m, b->T, &s, &x, &a));
    TRY(embed(ctx, m, b, x));
    for (int32_t l = 0; l < m->cfg.layers; l++) TRY(layer_forward(ctx, m, b, arena, l, x, &a, s, x));
    return final_norm(ctx, m, b->T, x, NULL, hidden);
}

Err model_forward(Ctx *ctx, const Model *m, const Batch *b, Arena *arena, float *hidden, Acts **keep)
{
    RANGE_ON(ctx, "forward");
    const Tensor out = tensor_f32(hidden, m->cfg.H);
    TRY(check_batch(m, b));
    if (keep) {
        TRY(ARENA_ARRAY(arena, keep, 1));
        return forward_keep(ctx, m, b, arena, out, *keep);
    }
    ArenaMark mark = arena_mark(arena);
    Err err = forward_lean(ctx, m, b, arena, out);
    arena_rewind(arena, mark);
    return err;
}

Err model_forward_count(Ctx *ctx, const Model *m, const Batch *b, Arena *counting, bool keep)
{
    Scratch s;
    Acts acts;
    LayerActs a = {.qkv.dtype = m->dtype};
    Tensor x;
    const ArenaMark start = arena_mark(counting);
    if (keep) TRY(arena_alloc(counting, &x.p, 1, (int64_t)sizeof acts));
    TRY(keep ? keep_alloc(ctx, counting, m, b->T, &acts) : lean_alloc(counting, m, b->T, &s, &x, &a));
    const AttnArgs args = attention_args(m, b, &a);
    const ArenaMark mark = arena_mark(counting);
    TRY(arena_alloc(counting, &x.p, op_attn_fwd_workspace(ctx, &args), 1));
    arena_rewind(counting, keep ? mark : start);
    return OK;
}

Tensor model_head(const Model *m) { return model_matrix(m, m->cfg.tied ? W_EMBED : W_HEAD, -1); }

Err model_logits(Ctx *ctx, const Model *m, Tensor hidden, int64_t n, float *logits)
{
    ASSERT(!m->cfg.headless);
    const ModelConfig *c = &m->cfg;
    GemmArgs a = {.x = hidden, .w = model_head(m), .y = tensor_f32(logits, c->V), .T = n, .in = c->H, .out = c->V,
                  .packed = m->packed};
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
