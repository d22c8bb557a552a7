// SPDX-License-Identifier: Apache-2.0
#include "model/reward.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "kernels/cuda/device.h"
#include "model/export.h"
#include "model/safetensors.h"
#include "par/par.h"
#include "text/record.h"

// Llama-3's end of turn, assistant header and blank line: what ArmoRM looks for.
static const int32_t armorm_pattern[] = {128009, 128006, 78191, 128007, 271};
enum { ARMORM_PATTERN = 5, MAX_WIDTH = 1 << 20, JSON_LIMIT = 1 << 20 };

int64_t reward_gate_in(const RewardHead *h, int64_t i) { return i == 0 ? h->H : h->gate_hidden; }
int64_t reward_gate_out(const RewardHead *h, int64_t i) { return i == h->gate_layers - 1 ? h->objectives : h->gate_hidden; }

static Err copy_names(RewardHead *h, const char *const *names)
{
    if (!names) return OK;
    TRY(MEM_ARRAY(&h->name, h->objectives));
    for (int64_t i = 0; i < h->objectives; i++) TRY(mem_strdup(&h->name[i], names[i]));
    return OK;
}

static int64_t head_elements(const RewardHead *h)
{
    int64_t n = h->objectives * (h->H + h->objectives);
    for (int64_t i = 0; i < h->gate_layers; i++) n += (reward_gate_in(h, i) + 1) * reward_gate_out(h, i);
    return n;
}

static Err head_alloc(RewardHead *h, const char *const *names)
{
    TRY(MEM_ARRAY(&h->block, head_elements(h)));
    float *p = h->block;
    h->regression = p, p += h->objectives * h->H;
    h->transform = p, p += h->objectives * h->objectives;
    for (int64_t i = 0; i < h->gate_layers; i++) {
        h->gate_w[i] = p, p += reward_gate_in(h, i) * reward_gate_out(h, i);
        h->gate_b[i] = p, p += reward_gate_out(h, i);
    }
    for (int64_t k = 0; k < h->objectives; k++) h->transform[k * h->objectives + k] = 1;
    return copy_names(h, names);
}

Err reward_head_new(RewardHead *h, int64_t H, int64_t objectives, int64_t gate_hidden, int64_t gate_layers,
                    const char *const *names)
{
    ASSERT(objectives > 0 && objectives <= REWARD_OBJECTIVES && gate_layers > 0 && gate_layers <= REWARD_GATE_LAYERS);
    *h = (RewardHead){.H = H, .objectives = objectives, .gate_hidden = gate_hidden, .gate_layers = gate_layers,
                      .temperature = 10, .logit_scale = 1, .pattern_len = ARMORM_PATTERN};
    memcpy(h->pattern, armorm_pattern, sizeof armorm_pattern);
    Err err = head_alloc(h, names);
    if (err != OK) reward_head_free(h);
    return err;
}

void reward_head_free(RewardHead *h)
{
    for (int64_t i = 0; h->name && i < h->objectives; i++) mem_free(h->name[i]);
    mem_free(h->name);
    mem_free(h->block);
    if (h->device) device_free(h->device, h->on_device);
    *h = (RewardHead){0};
}

// --- loading ---------------------------------------------------------------------------------------------------------

static Err read_json(const char *path, json_t **out)
{
    Str text = {0};
    Err err = OK;
    TRY_DONE(io_read(path, &text, JSON_LIMIT));
    TRY_DONE(json_parse_file(&text, path, out));
done:
    str_free(&text);
    return err;
}

static Err size_key(const json_t *o, const char *path, const char *key, int64_t max, int64_t *out)
{
    const json_t *v = json_object_get(o, key);
    CHECK(json_is_integer(v) && json_integer_value(v) >= 1 && json_integer_value(v) <= max, ERR_DATA,
          "%s: '%s' must be a whole number from 1 to %lld", path, key, (long long)max);
    *out = json_integer_value(v);
    return OK;
}

static Err read_pattern(const json_t *o, const char *path, int64_t V, RewardHead *h)
{
    const json_t *list = json_object_get(o, "imf_gating_pattern");
    size_t n = json_array_size(list);
    if (!list) return OK;
    CHECK(n >= 1 && n <= REWARD_PATTERN, ERR_DATA, "%s: imf_gating_pattern must be a list of 1 to %d ids", path,
          REWARD_PATTERN);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        CHECK(json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < V, ERR_DATA,
              "%s: imf_gating_pattern must hold ids of the vocabulary", path);
        h->pattern[i] = (int32_t)json_integer_value(v);
    }
    h->pattern_len = (int32_t)n;
    return OK;
}

static Err read_names(const json_t *o, const char *path, int64_t n, const char *name[REWARD_OBJECTIVES], bool *have)
{
    const json_t *list = json_object_get(o, "imf_objectives");
    *have = json_is_array(list);
    if (!*have) return OK;
    CHECK((int64_t)json_array_size(list) == n, ERR_DATA, "%s: imf_objectives must name all %lld objectives", path,
          (long long)n);
    for (int64_t i = 0; i < n; i++) {
        name[i] = json_string_value(json_array_get(list, (size_t)i));
        CHECK(name[i], ERR_DATA, "%s: imf_objectives must be a list of names", path);
    }
    return OK;
}

// Sizes and constants from config.json; allocates the head.
static Err read_head_config(const json_t *o, const char *path, const ModelConfig *c, RewardHead *h)
{
    const char *name[REWARD_OBJECTIVES];
    int64_t objectives = 0, hidden = 0, n_hidden = 0;
    bool named = false;
    TRY(size_key(o, path, "num_objectives", REWARD_OBJECTIVES, &objectives));
    TRY(size_key(o, path, "gating_hidden_dim", MAX_WIDTH, &hidden));
    TRY(size_key(o, path, "gating_n_hidden", REWARD_GATE_LAYERS - 1, &n_hidden));
    TRY(read_names(o, path, objectives, name, &named));
    TRY(reward_head_new(h, c->H, objectives, hidden, n_hidden + 1, named ? name : NULL));
    const json_t *t = json_object_get(o, "gating_temperature");
    if (t) {
        CHECK(json_is_number(t) && json_number_value(t) > 0, ERR_DATA, "%s: gating_temperature must be positive", path);
        h->temperature = (float)json_number_value(t);
    }
    return read_pattern(o, path, c->V, h);
}

// Reads a head tensor of the given shape (cols 0: a vector) and adds it to the fingerprint.
static Err read_head_tensor(const StDir *st, const char *name, int64_t rows, int64_t cols, float *out, Hash *hash)
{
    const StTensor *t = st_find(st, name);
    CHECK(t, ERR_DATA, "%s: tensor '%s' is missing: not a reward model of ArmoRM's shape",
          st->tensors ? st->tensor[0].file : "(no tensors)", name);
    bool fits = cols ? t->dims == 2 && t->dim[0] == rows && t->dim[1] == cols : t->n == rows && t->dims <= 1;
    CHECK(fits && t->readable, ERR_DATA,
          "%s: tensor '%s' has the wrong shape or type; copy or download it and config.json again", t->file, name);
    TRY(st_read(t, 0, t->n, out));
    hash_add(hash, t->data, t->bytes);
    return OK;
}

static Err read_head_tensors(const StDir *st, RewardHead *h, Hash *hash)
{
    TRY(read_head_tensor(st, "regression_layer.weight", h->objectives, h->H, h->regression, hash));
    TRY(read_head_tensor(st, "reward_transform_matrix", h->objectives, h->objectives, h->transform, hash));
    TRY(read_head_tensor(st, "gating.logit_scale", 1, 0, &h->logit_scale, hash));
    for (int64_t i = 0; i < h->gate_layers; i++) {
        char name[64];
        snprintf(name, sizeof name, "gating.layers.%lld.weight", (long long)i);
        TRY(read_head_tensor(st, name, reward_gate_out(h, i), reward_gate_in(h, i), h->gate_w[i], hash));
        snprintf(name, sizeof name, "gating.layers.%lld.bias", (long long)i);
        TRY(read_head_tensor(st, name, reward_gate_out(h, i), 0, h->gate_b[i], hash));
    }
    return OK;
}

static Err load_head(RewardModel *r, const char *dir)
{
    char path[IO_PATH];
    json_t *o = NULL;
    StDir st = {0};
    Hash *hash = NULL;
    Err err = OK;
    CHECK(r->model.cfg.headless, ERR_DATA, "%s: config.json has no num_objectives: this is not a reward model", dir);
    TRY_DONE(io_join(path, dir, "config.json"));
    TRY_DONE(read_json(path, &o));
    TRY_DONE(read_head_config(o, path, &r->model.cfg, &r->head));
    TRY_DONE(st_open(dir, &st));
    TRY_DONE(hash_new(&hash));
    hash_add_id(hash, r->model.fingerprint);
    TRY_DONE(read_head_tensors(&st, &r->head, hash));
done:
    if (hash) r->fingerprint = hash_end(hash);
    st_close(&st);
    json_decref(o);
    return err;
}

static Err head_to_device(RewardHead *h, Device *d)
{
    const int64_t bytes = head_elements(h) * (int64_t)sizeof *h->block;
    TRY(device_alloc(d, &h->on_device, bytes));
    h->device = d;
    return device_put(d, h->on_device, h->block, bytes);
}

Err reward_load(RewardModel *r, Ctx *ctx, const char *dir, bool shared)
{
    *r = (RewardModel){0};
    TRY(model_load_to_compute(ctx, dir, shared, &r->model));
    if (r->model.device) r->memory = device_managed(r->model.device);
    Err err = load_head(r, dir);
    if (err == OK && r->model.device) err = head_to_device(&r->head, r->model.device);
    if (shared) err = par_agree(err);
    if (err != OK) reward_free(r);
    return err;
}

void reward_free(RewardModel *r)
{
    reward_head_free(&r->head);
    model_free(&r->model);
}

const MemSource *reward_memory(const RewardModel *r) { return r->model.device ? &r->memory : NULL; }
const char *reward_device(const RewardModel *r) { return r->model.device ? "cuda" : NULL; }

// --- saving ------------------------------------------------------------------------------------------------------------

static ExportTensor head_tensor(const char *name, int64_t rows, int64_t cols, const float *data)
{
    return (ExportTensor){{name, cols ? 2 : 1, {rows, cols}, rows * (cols ? cols : 1), DT_F32}, data};
}

static json_t *head_config(const RewardHead *h, Family family)
{
    const char *class = family == FAMILY_LLAMA ? "LlamaForRewardModelWithGating" : "Qwen2ForRewardModelWithGating";
    json_t *pattern = json_array(), *names = json_array();
    for (int32_t i = 0; i < h->pattern_len; i++) json_array_append_new(pattern, json_integer(h->pattern[i]));
    for (int64_t i = 0; h->name && i < h->objectives; i++) json_array_append_new(names, json_string(h->name[i]));
    json_t *o = json_pack("{s:[s],s:I,s:f,s:I,s:I,s:b,s:o,s:o}", "architectures", class,
                          "num_objectives", (json_int_t)h->objectives, "gating_temperature", (double)h->temperature,
                          "gating_hidden_dim", (json_int_t)h->gate_hidden, "gating_n_hidden",
                          (json_int_t)(h->gate_layers - 1), "tie_word_embeddings", 0, "imf_gating_pattern", pattern,
                          "imf_objectives", names);
    if (o && !h->name) json_object_del(o, "imf_objectives");
    return o;
}

typedef struct HeadTensors {
    ExportTensor tensor[3 + 2 * REWARD_GATE_LAYERS];
    char name[2 * REWARD_GATE_LAYERS][40];
    int64_t n;
} HeadTensors;

static void list_head(const RewardHead *h, HeadTensors *t)
{
    t->tensor[t->n++] = head_tensor("regression_layer.weight", h->objectives, h->H, h->regression);
    t->tensor[t->n++] = head_tensor("reward_transform_matrix", h->objectives, h->objectives, h->transform);
    t->tensor[t->n++] = head_tensor("gating.logit_scale", 1, 0, &h->logit_scale);
    for (int64_t i = 0; i < h->gate_layers; i++) {
        char *w = t->name[2 * i], *b = t->name[2 * i + 1];
        snprintf(w, sizeof t->name[0], "gating.layers.%d.weight", (int)i);
        snprintf(b, sizeof t->name[0], "gating.layers.%d.bias", (int)i);
        t->tensor[t->n++] = head_tensor(w, reward_gate_out(h, i), reward_gate_in(h, i), h->gate_w[i]);
        t->tensor[t->n++] = head_tensor(b, reward_gate_out(h, i), 0, h->gate_b[i]);
    }
}

// The same weights without an output head of their own: W_HEAD is the last tensor of a block.
static Model without_head(const Model *m)
{
    Model bare = *m;
    if (bare.specs && bare.spec[bare.specs - 1].kind == W_HEAD) bare.specs--;
    bare.cfg.headless = true;
    bare.cfg.tied = false;
    return bare;
}

Err reward_save(const Model *backbone, const RewardHead *h, const char *from, const char *dir, DType storage,
                const char *model_card)
{
    Model bare = without_head(backbone);
    HeadTensors t = {.n = 0};
    list_head(h, &t);
    json_t *config = head_config(h, backbone->cfg.family);
    CHECK(config, ERR_UNAVAILABLE, "no memory for the reward model's configuration");
    Export x = {.model = &bare, .extra = t.tensor, .extras = t.n, .config = config, .from = from, .dir = dir,
                .storage = storage, .model_card = model_card};
    Err err = export_directory(&x);
    json_decref(config);
    return err;
}

// --- computing ---------------------------------------------------------------------------------------------------------

int64_t reward_gating_position(const RewardHead *h, const int32_t *id, int64_t n)
{
    for (int64_t at = n - h->pattern_len; at >= 0; at--)
        if (!memcmp(id + at, h->pattern, (size_t)h->pattern_len * sizeof *id)) return at;
    return -1;
}

int64_t reward_hidden_bytes(Ctx *ctx, const Model *m, int64_t tokens, int64_t conversations)
{
    Arena arena = {.counting = true};
    const Batch b = {.rows = (int32_t)conversations, .T = tokens, .S = conversations};
    float *hidden;
    if (arena_alloc(&arena, &hidden, tokens * m->cfg.H, (int64_t)sizeof *hidden) != OK) return INT64_MAX;
    return model_forward_count(ctx, m, &b, &arena, false) == OK ? arena.most : INT64_MAX;
}

static Err make_batch(Arena *arena, const RewardInput *in, int64_t count, Batch *b)
{
    int32_t *row, *token, *pos;
    Segment *seg;
    int64_t T = 0;
    for (int64_t i = 0; i < count; i++) T += in[i].n;
    TRY(ARENA_ARRAY(arena, &row, count + 1));
    TRY(ARENA_ARRAY(arena, &token, T));
    TRY(ARENA_ARRAY(arena, &pos, T));
    TRY(ARENA_ARRAY(arena, &seg, count));
    row[0] = 0;
    for (int64_t i = 0; i < count; i++) {
        ASSERT(in[i].n > 0 && in[i].gating >= 0 && in[i].gating < in[i].n);
        seg[i] = (Segment){row[i], (int32_t)in[i].n, -1, 0};
        row[i + 1] = row[i] + (int32_t)in[i].n;
        memcpy(token + row[i], in[i].id, (size_t)in[i].n * sizeof *token);
        for (int64_t t = 0; t < in[i].n; t++) pos[row[i] + t] = (int32_t)t;
    }
    *b = (Batch){.rows = (int32_t)count, .T = T, .row = row, .token = token, .pos = pos, .seg = seg, .S = count};
    return OK;
}

// Those of all tokens, when the ops have run.
static Err hidden_states(Ctx *ctx, const Model *m, Arena *arena, const RewardInput *in, int64_t count, Batch *b, float **hidden)
{
    for (int64_t i = 0; i < count; i++) TRY(model_check_ids(m, in[i].id, in[i].n));
    TRY(make_batch(arena, in, count, b));
    TRY(ARENA_ARRAY(arena, hidden, b->T * m->cfg.H));
    return model_forward(ctx, m, b, arena, *hidden, NULL);
}

static const float *last_of(const Batch *b, const float *hidden, int64_t H, int64_t i) { return hidden + (b->row[i + 1] - 1) * H; }

static const float *gating_of(const Batch *b, const float *hidden, int64_t H, int64_t i, const RewardInput *in)
{
    return hidden + (b->row[i] + in[i].gating) * H;
}

static Err fetch_hidden(Ctx *ctx, const Model *m, Arena *arena, const RewardInput *in, int64_t count, float *last, float *gating)
{
    Batch b;
    float *hidden;
    const int64_t H = m->cfg.H;
    TRY(hidden_states(ctx, m, arena, in, count, &b, &hidden));
    TRY(ctx_wait(ctx));
    for (int64_t i = 0; i < count; i++) {
        memcpy(last + i * H, last_of(&b, hidden, H, i), (size_t)H * sizeof *last);
        memcpy(gating + i * H, gating_of(&b, hidden, H, i, in), (size_t)H * sizeof *last);
    }
    return OK;
}

Err reward_hidden(Ctx *ctx, const Model *backbone, Arena *arena, const RewardInput *in, int64_t count, float *last,
                  float *gating)
{
    Ctx on = *ctx;
    on.device = backbone->device;
    ASSERT(!on.device || arena->source);
    ArenaMark mark = arena_mark(arena);
    Err err = fetch_hidden(&on, backbone, arena, in, count, last, gating);
    arena_rewind(arena, mark);
    return err;
}

static void softmax(double *x, int64_t n, double temperature, double scale)
{
    double top = x[0], sum = 0;
    for (int64_t i = 1; i < n; i++) top = x[i] > top ? x[i] : top;
    for (int64_t i = 0; i < n; i++) sum += x[i] = exp((x[i] - top) / temperature);
    for (int64_t i = 0; i < n; i++) x[i] *= scale / sum;
}

// Where the head's ops find an array of it.
static const float *place(const RewardHead *h, const float *p) { return h->device ? h->on_device + (p - h->block) : p; }

static Err widened(Arena *arena, const float *x, int64_t n, double **out)
{
    TRY(ARENA_ARRAY(arena, out, n));
    for (int64_t i = 0; i < n; i++) (*out)[i] = (double)x[i];
    return OK;
}

// The same of n floats that an op writes, into out: a linear layer from the one input 1. It needs nobody to wait.
static Err widen_later(Ctx *ctx, const float *x, int64_t n, const double *one, double *out)
{
    LinearF64Args a = {.x = one, .w = x, .y = out, .T = 1, .in = 1, .out = n};
    return op_linear_f64(ctx, &a);
}

// What the gate's softmax takes, [count][objectives], of hidden states x.
static Err gate_forward(Ctx *ctx, const RewardHead *h, Arena *arena, int64_t count, const double *x, double **out)
{
    for (int64_t l = 0; l < h->gate_layers; l++) {
        LinearF64Args a = {.x = x, .w = place(h, h->gate_w[l]), .bias = place(h, h->gate_b[l]), .T = count, .in = reward_gate_in(h, l),
                           .out = reward_gate_out(h, l), .relu = l < h->gate_layers - 1};
        TRY(ARENA_ARRAY(arena, &a.y, count * a.out));
        TRY(op_linear_f64(ctx, &a));
        x = *out = a.y;
    }
    return OK;
}

static double mix(const RewardHead *h, const double *objectives, const double *gate)
{
    double score = 0;
    for (int64_t k = 0; k < h->objectives; k++) {
        double adjusted = 0;
        for (int64_t j = 0; j < h->objectives; j++) adjusted += objectives[j] * (double)h->transform[j * h->objectives + k];
        score += gate[k] * adjusted;
    }
    return score;
}

// From widened hidden states, of the last tokens and of the gating ones, to numbers. Waits.
static Err compute_heads(Ctx *ctx, const RewardHead *h, Arena *arena, int64_t count, const double *last, const double *gating,
                         const RewardScores *out)
{
    const int64_t K = h->objectives;
    double *r, *g = NULL;
    TRY(ARENA_ARRAY(arena, &r, count * K));
    LinearF64Args a = {.x = last, .w = place(h, h->regression), .y = r, .T = count, .in = h->H, .out = K};
    TRY(op_linear_f64(ctx, &a));
    TRY(gate_forward(ctx, h, arena, count, gating, &g));
    TRY(ctx_wait(ctx));
    memcpy(out->objectives, r, (size_t)(count * K) * sizeof *r);
    memcpy(out->gate, g, (size_t)(count * K) * sizeof *g);
    for (int64_t i = 0; i < count; i++) {
        softmax(out->gate + i * K, K, (double)h->temperature, (double)h->logit_scale);
        out->score[i] = mix(h, out->objectives + i * K, out->gate + i * K);
    }
    return OK;
}

static Err score_hidden(Ctx *ctx, const RewardHead *h, Arena *arena, int64_t count, const float *last, const float *gating,
                        const RewardScores *out)
{
    double *x, *z;
    TRY(widened(arena, last, count * h->H, &x));
    TRY(widened(arena, gating, count * h->H, &z));
    return compute_heads(ctx, h, arena, count, x, z, out);
}

Err reward_score_hidden(Ctx *ctx, const RewardHead *h, Arena *arena, int64_t count, const float *last, const float *gating,
                        const RewardScores *out)
{
    ASSERT(!ctx->device && !h->device);
    ArenaMark mark = arena_mark(arena);
    Err err = score_hidden(ctx, h, arena, count, last, gating, out);
    arena_rewind(arena, mark);
    return err;
}

static Err score(Ctx *ctx, const RewardModel *r, Arena *arena, const RewardInput *in, int64_t count, const RewardScores *out)
{
    Batch b;
    float *hidden;
    double *x, *z, *one;
    const int64_t H = r->head.H;
    TRY(ARENA_ARRAY(arena, &one, 1));
    *one = 1;
    TRY(hidden_states(ctx, &r->model, arena, in, count, &b, &hidden));
    TRY(ARENA_ARRAY(arena, &x, count * H));
    TRY(ARENA_ARRAY(arena, &z, count * H));
    for (int64_t i = 0; i < count; i++) {
        TRY(widen_later(ctx, last_of(&b, hidden, H, i), H, one, x + i * H));
        TRY(widen_later(ctx, gating_of(&b, hidden, H, i, in), H, one, z + i * H));
    }
    return compute_heads(ctx, &r->head, arena, count, x, z, out);
}

Err reward_score(Ctx *ctx, const RewardModel *r, Arena *arena, const RewardInput *in, int64_t count, const RewardScores *out)
{
    Ctx on = *ctx;
    on.device = r->model.device;
    ASSERT(!on.device || arena->source);
    ArenaMark mark = arena_mark(arena);
    Err err = score(&on, r, arena, in, count, out);
    arena_rewind(arena, mark);
    return err;
}
