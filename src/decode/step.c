// SPDX-License-Identifier: Apache-2.0
// Method: one layer loop for both uses; only attention differs (a packed segment, or one query a slot against pages). Every
// other op works row by row, so a token's bits do not depend on the rows beside it. In a bf16 model all but the
// residual stream and the logits is bf16.
#include "decode/step.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/device.h"

// Frees *pp and allocates n elements; the old contents are lost.
#define REPLACE(s, pp, n) replace((s), (pp), (n), (int64_t)sizeof **(pp))
static Err replace(Step *s, void *pp, int64_t n, int64_t size)
{
    void *old;
    memcpy(&old, pp, sizeof old);
    ctx_free(s->ctx, old);
    memset(pp, 0, sizeof old);
    return ctx_alloc(s->ctx, pp, n, size);
}

static int64_t qkv_width(const ModelConfig *c) { return (c->N + 2 * c->K) * c->D; }

static AttnArgs prefill_args(const Step *s, const Segment *seg)
{
    const ModelConfig *c = &s->model->cfg;
    return (AttnArgs){.q = s->qkv, .k = tensor_at(s->qkv, c->N * c->D), .v = tensor_at(s->qkv, (c->N + c->K) * c->D), .o = s->att,
                      .seg = seg, .T = seg->len, .S = 1, .N = c->N, .K = c->K, .D = c->D,
                      .scale = 1.0f / sqrtf((float)c->D), .softcap = c->attn_softcap, .window = c->window,
                      .workspace = s->workspace};
}

static DecodeAttnArgs decode_args(const Step *s, int64_t layer, int64_t active)
{
    const ModelConfig *c = &s->model->cfg;
    const SlotTables *t = &s->tables;
    return (DecodeAttnArgs){.q = s->qkv,
                            .o = s->att,
                            .pages = s->kv.layer[layer],
                            .prefix_page = t->prefix_page,
                            .prefix_len = t->prefix_len,
                            .own_page = t->own_page,
                            .own_len = t->own_len,
                            .order = t->order,
                            .group = t->group,
                            .groups = t->groups,
                            .slots = active,
                            .N = c->N,
                            .K = c->K,
                            .D = c->D,
                            .max_prefix_pages = t->max_prefix,
                            .max_own_pages = t->max_own,
                            .scale = 1.0f / sqrtf((float)c->D),
                            .softcap = c->attn_softcap,
                            .window = c->window,
                            .workspace = s->workspace};
}

static Err replace_tensor(Step *s, Tensor *t, DType dtype, int64_t rows, int64_t width)
{
    TRY(replace(s, &t->p, rows * width, dtype == DT_F32 ? 4 : 2));
    t->dtype = dtype, t->stride = width;
    return OK;
}

enum { ROW_TENSORS = 6 };

// Where the rows lie, in which format and how wide.
static void row_tensors(Step *s, Tensor *where[ROW_TENSORS], Tensor shape[ROW_TENSORS])
{
    const ModelConfig *c = &s->model->cfg;
    const DType dtype = s->model->dtype;
    const int64_t width[ROW_TENSORS] = {c->H, qkv_width(c), c->N * c->D, c->H, 2 * c->F, c->F};
    Tensor *const to[ROW_TENSORS] = {&s->x, &s->qkv, &s->att, &s->h, &s->gate_up, &s->act};
    for (int i = 0; i < ROW_TENSORS; i++) where[i] = to[i], shape[i] = (Tensor){NULL, i ? dtype : DT_F32, width[i]};
}

static Err reserve_rows(Step *s, int64_t rows)
{
    Tensor *where[ROW_TENSORS], shape[ROW_TENSORS];
    if (rows <= s->rows) return OK;
    s->rows = 0;
    row_tensors(s, where, shape);
    for (int i = 0; i < ROW_TENSORS; i++) TRY(replace_tensor(s, where[i], shape[i].dtype, rows, shape[i].stride));
    TRY(REPLACE(s, &s->token, rows));
    TRY(REPLACE(s, &s->pos, rows));
    TRY(REPLACE(s, &s->page, rows));
    TRY(REPLACE(s, &s->place, rows));
    s->rows = rows;
    return OK;
}

// Widens a table of `slots` rows from *width to `wider` columns.
static Err widen(Ctx *ctx, int32_t **table, int64_t slots, int64_t *width, int64_t wider)
{
    int32_t *fresh;
    TRY(ctx_alloc(ctx, &fresh, slots * wider, sizeof *fresh));
    for (int64_t i = 0; i < slots && *width > 0; i++)
        memcpy(fresh + i * wider, *table + i * *width, (size_t)*width * sizeof *fresh);
    ctx_free(ctx, *table);
    *table = fresh;
    *width = wider;
    return OK;
}

static int64_t workspace_bytes(const Step *s, void *const *layer)
{
    Step t = *s;
    t.kv.layer = (void **)layer;
    const Segment seg = {0, (int32_t)s->rows, -1, 0};
    const AttnArgs a = prefill_args(s, &seg);
    const DecodeAttnArgs d = decode_args(&t, 0, s->tables.slots);
    int64_t bytes = op_attn_fwd_workspace(s->ctx, &a), more = op_attn_decode_workspace(s->ctx, &d);
    return more > bytes ? more : bytes;
}

static Err reserve_workspace(Step *s)
{
    int64_t bytes = workspace_bytes(s, s->kv.layer);
    if (bytes <= s->workspace_bytes) return OK;
    s->workspace_bytes = bytes;
    return replace(s, &s->workspace, bytes, 1);
}

enum { FIRST_TOKENS = KV_PAGE };  // there is room for from the start
static int64_t first_pages(int64_t slots) { return 2 * slots; }
static int64_t page_bytes(const Ctx *ctx, const Model *m) { return op_kv_page_bytes(ctx, m->dtype, m->cfg.K, m->cfg.D); }

int64_t step_kv_bytes(Ctx *ctx, const Model *m, int64_t slots, int64_t pages)
{
    return m->cfg.layers * page_bytes(ctx, m) * kv_pages_grown(first_pages(slots), pages);
}

int64_t step_row_bytes(Ctx *ctx, const Model *m, const SlotTables *longest, int64_t prompt_len)
{
    const int64_t prompt = prompt_len > FIRST_TOKENS ? prompt_len : FIRST_TOKENS;
    Step s = {.ctx = ctx, .model = m, .rows = prompt > longest->slots ? prompt : longest->slots, .tables = *longest};
    Tensor *where[ROW_TENSORS], shape[ROW_TENSORS];
    void *none = NULL;
    int64_t bytes = 0;
    row_tensors(&s, where, shape);
    s.qkv = shape[1], s.att = shape[2];
    for (int i = 0; i < ROW_TENSORS; i++) bytes += s.rows * shape[i].stride * (shape[i].dtype == DT_F32 ? 4 : 2);
    return bytes + workspace_bytes(&s, &none);
}

Err step_open(Step *s, Ctx *ctx, const Model *m, int64_t slots)
{
    *s = (Step){.ctx = ctx, .model = m, .tables = {.slots = slots}};
    TRY(kv_open(&s->kv, ctx, m->cfg.layers, page_bytes(ctx, m), first_pages(slots)));
    TRY(REPLACE(s, &s->tables.prefix_len, slots));
    TRY(REPLACE(s, &s->tables.own_len, slots));
    TRY(REPLACE(s, &s->tables.order, slots));
    TRY(REPLACE(s, &s->tables.group, slots + 1));
    TRY(REPLACE(s, &s->seg, 1));
    return step_reserve(s, FIRST_TOKENS, FIRST_TOKENS);
}

void step_close(Step *s)
{
    SlotTables *t = &s->tables;
    void *const all[] = {t->prefix_page, t->prefix_len, t->own_page, t->own_len, t->order, t->group, s->x.p, s->h.p, s->qkv.p, s->att.p,
                         s->gate_up.p, s->act.p, s->token, s->pos, s->page, s->place, s->seg, s->workspace};
    device_graph_free(s->graph);
    kv_close(&s->kv);
    for (size_t i = 0; s->ctx && i < sizeof all / sizeof *all; i++) ctx_free(s->ctx, all[i]);
    *s = (Step){0};
}

Err step_reserve(Step *s, int64_t prompt_len, int64_t new_tokens)
{
    SlotTables *t = &s->tables;
    const int64_t prefix = kv_pages_for(prompt_len), own = kv_pages_for(new_tokens);
    const int64_t rows = prompt_len > t->slots ? prompt_len : t->slots;
    if (rows <= s->rows && prefix <= t->max_prefix && own <= t->max_own) return OK;
    TRY(reserve_rows(s, rows));
    if (prefix > t->max_prefix) TRY(widen(s->ctx, &t->prefix_page, t->slots, &t->max_prefix, prefix));
    if (own > t->max_own) TRY(widen(s->ctx, &t->own_page, t->slots, &t->max_own, own));
    return reserve_workspace(s);
}

// --- layers ----------------------------------------------------------------------------------------------------------

// y[T] = x[T] . weight^T
static GemmArgs product(const Step *s, Tensor x, WeightKind kind, int64_t layer, Tensor y, int64_t T)
{
    const Model *m = s->model;
    return (GemmArgs){.x = x, .w = model_matrix(m, kind, (int32_t)layer), .y = y, .T = T, .in = x.stride, .out = y.stride,
                      .packed = m->packed};
}

// x += y . weight^T
static Err residual(Step *s, Tensor y, WeightKind kind, int64_t layer, int64_t T)
{
    GemmArgs a = product(s, y, kind, layer, s->x, T);
    a.add = a.y;
    return op_gemm_fwd(s->ctx, &a);
}

// h = norm of the T rows of x from `first` on
static Err norm(Step *s, int64_t first, WeightKind kind, int64_t layer, int64_t T)
{
    const ModelConfig *c = &s->model->cfg;
    RmsNormArgs a = {.x = tensor_at(s->x, first * c->H), .y = s->h, .w = model_vector(s->model, kind, (int32_t)layer), .T = T,
                     .H = c->H, .eps = c->eps};
    return op_rmsnorm_fwd(s->ctx, &a);
}

static Err mlp(Step *s, int64_t layer, int64_t T)
{
    const int64_t F = s->model->cfg.F;
    TRY(norm(s, 0, W_NORM_MLP, layer, T));
    GemmArgs gate_up = product(s, s->h, W_GATE_UP, layer, s->gate_up, T);
    TRY(op_gemm_fwd(s->ctx, &gate_up));
    SwigluArgs a = {.g = s->gate_up, .u = tensor_at(s->gate_up, F), .y = s->act, .T = T, .F = F};
    TRY(op_swiglu_fwd(s->ctx, &a));
    return residual(s, s->act, W_DOWN, layer, T);
}

// x -> q, k, v at their positions; q and k lie side by side, so one rotation serves both.
static Err project(Step *s, int64_t layer, int64_t T)
{
    const ModelConfig *c = &s->model->cfg;
    TRY(norm(s, 0, W_NORM_ATTN, layer, T));
    GemmArgs qkv = product(s, s->h, W_QKV, layer, s->qkv, T);
    qkv.bias = model_vector(s->model, W_QKV_BIAS, (int32_t)layer);
    TRY(op_gemm_fwd(s->ctx, &qkv));
    RopeArgs a = {.x = s->qkv, .pos = s->pos, .table = s->model->rope, .T = T,
                  .heads = c->N + c->K, .D = c->D};
    return op_rope(s->ctx, &a);
}

// Keys and values of T rows to their pages.
static Err store(Step *s, int64_t layer, int64_t T)
{
    const ModelConfig *c = &s->model->cfg;
    KvStoreArgs a = {.k = tensor_at(s->qkv, c->N * c->D), .v = tensor_at(s->qkv, (c->N + c->K) * c->D), .pages = s->kv.layer[layer],
                     .page = s->page, .place = s->place, .n = T, .K = c->K, .D = c->D};
    return op_kv_store(s->ctx, &a);
}

static Err embed(Step *s, int64_t T)
{
    const ModelConfig *c = &s->model->cfg;
    EmbedArgs a = {.table = model_matrix(s->model, W_EMBED, -1),
                   .y = s->x,
                   .token = s->token,
                   .T = T,
                   .H = c->H,
                   .V = c->V,
                   .packed = s->model->packed && c->tied};
    return op_embed_fwd(s->ctx, &a);
}

Err step_prefill(Step *s, const int32_t *token, int64_t n, const int32_t *page, float *logits)
{
    const ModelConfig *c = &s->model->cfg;
    RANGE_ON(s->ctx, "prefill");
    *s->seg = (Segment){0, (int32_t)n, -1, 0};
    const AttnArgs attn = prefill_args(s, s->seg);
    memcpy(s->token, token, (size_t)n * sizeof *token);
    for (int64_t t = 0; t < n; t++) s->pos[t] = (int32_t)t, s->page[t] = page[t / KV_PAGE], s->place[t] = (int32_t)(t % KV_PAGE);
    TRY(embed(s, n));
    for (int64_t l = 0; l < c->layers; l++) {
        TRY(project(s, l, n));
        TRY(store(s, l, n));
        TRY(op_attn_fwd(s->ctx, &attn));
        TRY(residual(s, s->att, W_O, l, n));
        TRY(mlp(s, l, n));
    }
    TRY(norm(s, n - 1, W_NORM_FINAL, -1, 1));
    TRY(model_logits(s->ctx, s->model, s->h, 1, logits));
    return ctx_wait(s->ctx);
}

// Slots with the same first prefix page, which no other prompt holds, side by side. Slots of a prompt are started one after the
// other, so that the insertion sort has little to do.
static void group_slots(SlotTables *t, int64_t active)
{
    for (int64_t i = 0; i < active; i++) {
        int64_t at = i;
        for (; at > 0 && t->prefix_page[t->order[at - 1] * t->max_prefix] > t->prefix_page[i * t->max_prefix]; at--)
            t->order[at] = t->order[at - 1];
        t->order[at] = (int32_t)i;
    }
    t->groups = 0;
    for (int64_t i = 0; i < active; i++) {
        const int64_t page = t->prefix_page[t->order[i] * t->max_prefix];
        if (i > 0 && page == t->prefix_page[t->order[i - 1] * t->max_prefix] && i - t->group[t->groups - 1] < DECODE_GROUP)
            continue;
        t->group[t->groups++] = (int32_t)i;
    }
    t->group[t->groups] = (int32_t)active;
}

// The ops of one token for each slot, whose tables and tokens are in place.
static Err decode_ops(Step *s, int64_t active, float *logits)
{
    const ModelConfig *c = &s->model->cfg;
    TRY(embed(s, active));
    for (int64_t l = 0; l < c->layers; l++) {
        TRY(project(s, l, active));
        TRY(store(s, l, active));
        const DecodeAttnArgs attn = decode_args(s, l, active);
        TRY(op_attn_decode(s->ctx, &attn));
        TRY(residual(s, s->att, W_O, l, active));
        TRY(mlp(s, l, active));
    }
    TRY(norm(s, 0, W_NORM_FINAL, -1, active));
    return model_logits(s->ctx, s->model, s->h, active, logits);
}

// --- replay on a device ----------------------------------------------------------------------------------------------

// Empty groups, so that a recorded step still fits when samples of other prompts have come or gone.
static void round_groups(SlotTables *t, int64_t active)
{
    enum { EACH = 8 };
    int64_t groups = (t->groups + EACH - 1) / EACH * EACH;
    if (groups > active) groups = active;
    while (t->groups < groups) t->group[++t->groups] = (int32_t)active;
}

static StepShape shape_of(const Step *s, int64_t active, const float *logits)
{
    const SlotTables *t = &s->tables;
    return (StepShape){active, t->groups, s->rows, t->max_prefix, t->max_own, s->workspace_bytes, s->kv.pages, (int64_t)(intptr_t)logits};
}

static Err record(Step *s, int64_t active, float *logits)
{
    Device *d = s->ctx->device;
    TRY(device_record(d));
    const Err err = decode_ops(s, active, logits), end = device_recorded(d, &s->graph);
    return err != OK ? err : end;
}

// A step with a new shape runs op by op. One that has the shape of the step before it is recorded, and then replayed as long as that lasts.
static Err decode_on_device(Step *s, int64_t active, float *logits)
{
    round_groups(&s->tables, active);
    const StepShape shape = shape_of(s, active, logits);
    const bool again = !memcmp(&shape, &s->shape, sizeof shape);
    s->shape = shape;
    if (!again) {
        device_graph_free(s->graph);
        s->graph = NULL;
        return decode_ops(s, active, logits);
    }
    if (!s->graph) TRY(record(s, active, logits));
    return device_replay(s->ctx->device, s->graph);
}

Err step_decode(Step *s, const int32_t *token, int64_t active, float *logits)
{
    RANGE_ON(s->ctx, "decode step");
    SlotTables *t = &s->tables;
    group_slots(t, active);
    memcpy(s->token, token, (size_t)active * sizeof *token);
    for (int64_t i = 0; i < active; i++) {
        const int32_t last = t->own_len[i] - 1;
        s->pos[i] = t->prefix_len[i] + last;
        s->page[i] = t->own_page[i * t->max_own + last / KV_PAGE];
        s->place[i] = last % KV_PAGE;
    }
    return s->ctx->device ? decode_on_device(s, active, logits) : decode_ops(s, active, logits);
}
