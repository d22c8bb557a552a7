// SPDX-License-Identifier: Apache-2.0
// Layout of the weight block, and filling it: from safetensors or with random numbers.
//
// Reading is cut into pieces of at most PIECE elements; with a shared block the ranks of a node take turns, so that each
// byte is read once a node and checked (NaN, Inf) by the rank that reads it. The fingerprint is the hash of the pieces'
// hashes in block order: it depends on the tensors, not on how files hold them.
#include "model/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/profile.h"
#include "base/rng.h"
#include "kernels/cuda/device.h"
#include "par/par.h"

enum { BORDER = 16, PIECE = 1 << 22 };  // floats: 64 bytes; elements

// --- layout ----------------------------------------------------------------------------------------------------------

static void add_spec(Model *m, WeightKind kind, int32_t layer, int64_t rows, int64_t cols)
{
    m->spec[m->specs++] = (WeightSpec){kind, layer, rows, cols, m->elements, m->bf16_values, m->vector_elements};
    int64_t size = (rows * cols + BORDER - 1) / BORDER * BORDER;
    m->elements += size;
    if (rows > 1) m->bf16_values += op_pack_bf16_elements(rows, cols);
    else m->vector_elements += size;
}

Err model_layout(Model *m)
{
    const ModelConfig *c = &m->cfg;
    int64_t qkv = (c->N + 2 * c->K) * c->D;
    m->specs = 0;
    m->elements = m->bf16_values = m->vector_elements = 0;
    TRY(MEM_ARRAY(&m->spec, 8 * c->layers + 3));
    add_spec(m, W_EMBED, -1, c->V, c->H);
    for (int32_t l = 0; l < c->layers; l++) {
        add_spec(m, W_NORM_ATTN, l, 1, c->H);
        add_spec(m, W_QKV, l, qkv, c->H);
        if (c->qkv_bias) add_spec(m, W_QKV_BIAS, l, 1, qkv);
        add_spec(m, W_O, l, c->H, c->N * c->D);
        add_spec(m, W_NORM_MLP, l, 1, c->H);
        add_spec(m, W_GATE_UP, l, 2 * c->F, c->H);
        add_spec(m, W_DOWN, l, c->H, c->F);
    }
    add_spec(m, W_NORM_FINAL, -1, 1, c->H);
    if (!c->tied && !c->headless) add_spec(m, W_HEAD, -1, c->V, c->H);
    return OK;
}

const WeightSpec *weight_spec(const Model *m, WeightKind kind, int32_t layer)
{
    // A layer's tensors lie together: start at its first one.
    int32_t per_layer = m->cfg.qkv_bias ? 7 : 6;
    int32_t first = layer < 0 ? 0 : 1 + layer * per_layer;
    for (int32_t i = first; i < m->specs; i++)
        if (m->spec[i].kind == kind && m->spec[i].layer == layer) return &m->spec[i];
    return NULL;
}

int64_t model_offset(const Model *m, WeightKind kind, int32_t layer)
{
    const WeightSpec *s = weight_spec(m, kind, layer);
    return s ? s->offset : -1;
}

float *model_weight(const Model *m, WeightKind kind, int32_t layer)
{
    const WeightSpec *s = weight_spec(m, kind, layer);
    return s ? m->w + s->offset : NULL;
}

float *model_vector(const Model *m, WeightKind kind, int32_t layer)
{
    const WeightSpec *s = weight_spec(m, kind, layer);
    if (!s) return NULL;
    return m->w ? m->w + s->offset : m->vectors + s->vector;
}

Tensor model_matrix(const Model *m, WeightKind kind, int32_t layer)
{
    const WeightSpec *s = weight_spec(m, kind, layer);
    if (!s) return (Tensor){0};
    if (m->dtype == DT_BF16) return tensor_bf16((uint16_t *)m->bf16 + (m->device ? s->offset : s->bf16), s->cols);
    return tensor_f32(m->w + s->offset, s->cols);
}

// --- parts -----------------------------------------------------------------------------------------------------------

typedef struct PartList {
    WeightPart *part;
    int64_t n;
} PartList;

// Takes the next `rows` rows of a spec; returns the offset behind them.
static int64_t add_part(PartList *list, const WeightSpec *s, const char *name, int64_t offset, int64_t rows)
{
    WeightPart *p = &list->part[list->n++];
    bool vector = s->rows == 1;
    *p = (WeightPart){.dims = vector ? 1 : 2, .dim = {rows, vector ? 1 : s->cols}, .offset = offset,
                      .n = vector ? rows : rows * s->cols};
    if (s->layer < 0) snprintf(p->name, sizeof p->name, "%s", name);
    else snprintf(p->name, sizeof p->name, "model.layers.%d.%s", s->layer, name);
    return offset + p->n;
}

static void add_qkv(PartList *list, const ModelConfig *c, const WeightSpec *s)
{
    static const char *const names[2][3] = {
        {"self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"},
        {"self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"}};
    const char *const *name = names[s->kind == W_QKV_BIAS];
    int64_t at = add_part(list, s, name[0], s->offset, c->N * c->D);
    at = add_part(list, s, name[1], at, c->K * c->D);
    add_part(list, s, name[2], at, c->K * c->D);
}

static void add_parts(PartList *list, const ModelConfig *c, const WeightSpec *s)
{
    static const char *const names[] = {
        [W_EMBED] = "model.embed_tokens.weight", [W_NORM_ATTN] = "input_layernorm.weight",
        [W_O] = "self_attn.o_proj.weight",       [W_NORM_MLP] = "post_attention_layernorm.weight",
        [W_DOWN] = "mlp.down_proj.weight",       [W_NORM_FINAL] = "model.norm.weight",
        [W_HEAD] = "lm_head.weight"};
    if (s->kind == W_QKV || s->kind == W_QKV_BIAS) {
        add_qkv(list, c, s);
    } else if (s->kind == W_GATE_UP) {
        int64_t at = add_part(list, s, "mlp.gate_proj.weight", s->offset, c->F);
        add_part(list, s, "mlp.up_proj.weight", at, c->F);
    } else {
        add_part(list, s, names[s->kind], s->offset, s->rows == 1 ? s->cols : s->rows);
    }
}

Err weight_parts(const Model *m, WeightPart **out, int64_t *n)
{
    PartList list = {0};
    TRY(MEM_ARRAY(&list.part, (int64_t)SPEC_PARTS * m->specs));
    for (int32_t i = 0; i < m->specs; i++) add_parts(&list, &m->cfg, &m->spec[i]);
    *out = list.part;
    *n = list.n;
    return OK;
}

// --- checking what a directory holds -----------------------------------------------------------------------------------

Err weight_find(const StDir *dir, const WeightPart *part, const StTensor **out)
{
    const StTensor *t = st_find(dir, part->name);
    char cols[24] = "";
    if (part->dims == 2) snprintf(cols, sizeof cols, "%lld", (long long)part->dim[1]);
    CHECK(t, ERR_DATA, "%s: tensor '%s' is missing", dir->tensors ? dir->tensor[0].file : "(no tensors)", part->name);
    CHECK(t->dims == part->dims && t->dim[0] == part->dim[0] && (t->dims == 1 || t->dim[1] == part->dim[1]), ERR_DATA,
          "%s: tensor '%s' has the wrong shape; config.json asks for %lld%s%s", t->file, t->name,
          (long long)part->dim[0], part->dims == 2 ? " x " : "", cols);
    CHECK(t->readable, ERR_DATA, "%s: tensor '%s' is neither bf16, f16 nor f32", t->file, t->name);
    *out = t;
    return OK;
}

static bool known_extra(const ModelConfig *c, const char *name)
{
    if (strstr(name, ".rotary_emb.inv_freq")) return true;                   // recomputed from rope_theta
    if (!strcmp(name, "lm_head.weight")) return c->tied || c->headless;      // a copy of the embedding
    return c->headless && (!strncmp(name, "gating.", 7) || !strcmp(name, "regression_layer.weight") ||
                           !strcmp(name, "reward_transform_matrix"));
}

static int by_part_name(const void *a, const void *b)
{
    return strcmp(((const WeightPart *)a)->name, ((const WeightPart *)b)->name);
}

// A tensor that we do not use means a model that we do not compute.
static Err check_extra(const Model *m, const StDir *dir)
{
    WeightPart *part, key;
    int64_t n;
    TRY(weight_parts(m, &part, &n));
    MEM_SORT(part, n, by_part_name);
    const StTensor *odd = NULL;
    for (int64_t i = 0; i < dir->tensors && !odd; i++) {
        snprintf(key.name, sizeof key.name, "%s", dir->tensor[i].name);
        if (!bsearch(&key, part, (size_t)n, sizeof key, by_part_name) && !known_extra(&m->cfg, dir->tensor[i].name))
            odd = &dir->tensor[i];
    }
    mem_free(part);
    CHECK(!odd, ERR_DATA, "%s: tensor '%s' has no place in a model of this config.json", odd->file, odd->name);
    return OK;
}

// --- loading ---------------------------------------------------------------------------------------------------------

typedef struct Piece {
    const StTensor *tensor;
    int64_t first, n, offset;  // elements of the tensor; place in the block
} Piece;

static Err make_pieces(const Model *m, const StDir *dir, Piece **out, int64_t *n)
{
    WeightPart *part = NULL;
    int64_t parts = 0, cap = 0;
    Err err = OK;
    *n = 0;
    TRY_DONE(weight_parts(m, &part, &parts));
    for (int64_t i = 0; i < parts; i++) {
        const StTensor *t = NULL;
        TRY_DONE(weight_find(dir, &part[i], &t));
        for (int64_t at = 0; at < t->n; at += PIECE) {
            TRY_DONE(MEM_GROW(out, *n, &cap, *n + 1));
            int64_t len = t->n - at < PIECE ? t->n - at : PIECE;
            (*out)[(*n)++] = (Piece){t, at, len, part[i].offset + at};
        }
    }
done:
    mem_free(part);
    return err;
}

// This rank's share of the pieces; the hash of each goes to hash[piece]. Without an fp32 block they are hashed only.
static Err read_pieces(Model *m, const Piece *piece, int64_t n, Id *hash)
{
    int64_t ranks = m->shared ? par_node_size() : 1, rank = m->shared ? par_node_rank() : 0;
    for (int64_t i = rank; i < n; i += ranks) {
        const Piece *p = &piece[i];
        if (m->w) TRY(st_read(p->tensor, p->first, p->n, m->w + p->offset));
        int64_t size = dtype_size(p->tensor->dtype);
        hash[i] = hash_bytes(p->tensor->data + p->first * size, p->n * size);
    }
    return OK;
}

static Err fingerprint(Model *m, const Id *hash, int64_t n)
{
    char path[IO_PATH];
    Id config;
    Hash *h;
    TRY(io_join(path, m->dir, "config.json"));
    TRY(hash_file(path, &config));
    TRY(hash_new(&h));
    hash_add_id(h, config);
    for (int64_t i = 0; i < n; i++) hash_add_id(h, hash[i]);
    m->fingerprint = hash_end(h);
    return m->dtype == DT_BF16 ? weight_mark_bf16(m) : OK;
}

// What a model computes in bf16 is not what it computes in fp32.
Err weight_mark_bf16(Model *m)
{
    Hash *h;
    TRY(hash_new(&h));
    hash_add_id(h, m->fingerprint);
    hash_add_text(h, "bfloat16");
    m->fingerprint = hash_end(h);
    return OK;
}

Err weight_memory(const Model *m, int64_t bytes, void *pp)
{
    if (m->device) TRY(device_alloc(m->device, pp, bytes));
    else if (m->shared) TRY(par_shared_alloc(bytes, pp));
    else TRY(mem_alloc_huge(pp, bytes, 1));
    return OK;
}

void weight_memory_free(const Model *m, void *p, int64_t bytes)
{
    if (m->device) device_free(m->device, p);
    else if (m->shared && p) par_shared_free(p, bytes);
    else mem_free(p);
}

// Makes an error of one rank an error of all when the block is shared.
static Err agree(bool shared, Err err)
{
    return shared ? par_agree(err) : err;
}

static Err open_model(Model *m, const char *dir, StDir *st, Piece **piece, int64_t *n)
{
    TRY(mem_strdup(&m->dir, dir));
    TRY(model_config_load(dir, &m->cfg));
    TRY(model_layout(m));
    TRY(st_open(dir, st));
    TRY(check_extra(m, st));
    TRY(make_pieces(m, st, piece, n));
    m->cfg.storage = (*piece)[0].tensor->dtype;
    return OK;
}

static int64_t block_bytes(const Model *m) { return m->elements * 4; }
static int64_t packed_bytes(const Model *m) { return m->bf16_values * 2; }
static int64_t vector_bytes(const Model *m) { return m->vector_elements * 4; }

ModelBytes model_bytes(const Model *m, DType dtype, bool master)
{
    ModelBytes b = {.rope = rope_bytes(&m->cfg)};
    const bool half = dtype == DT_BF16;
    b.weights = half && !master ? packed_bytes(m) + vector_bytes(m) : block_bytes(m);
    b.copy = half && master ? packed_bytes(m) : 0;
    return b;
}

static Err alloc_weights(Model *m)
{
    if (m->dtype == DT_F32) return weight_memory(m, block_bytes(m), &m->w);
    TRY(weight_memory(m, packed_bytes(m), &m->bf16));
    return weight_memory(m, vector_bytes(m), &m->vectors);
}

static Err read_weights(Model *m, const StDir *dir, const Piece *piece, int64_t n, Id *hash)
{
    TRY(read_pieces(m, piece, n, hash));
    return m->bf16 ? weight_pack_parts(m, dir) : OK;
}

// All but the weights, which are read only if there is memory for them.
static Err fill_model(Model *m, const StDir *dir, const Piece *piece, int64_t n)
{
    Id *hash = NULL;
    int64_t bytes = n * (int64_t)sizeof *hash;
    Err err = OK;
    TRY_DONE(weight_memory(m, bytes, &hash));
    TRY_DONE(agree(m->shared, read_weights(m, dir, piece, n, hash)));
    if (m->shared) TRY_DONE(par_node_barrier());
    TRY_DONE(agree(m->shared, fingerprint(m, hash, n)));
    TRY_DONE(model_rope_table(m));
done:
    weight_memory_free(m, hash, bytes);
    return err;
}

static Err load(Model *m, const char *dir, bool weights, StDir *st)
{
    Piece *piece = NULL;
    int64_t n = 0;
    Err err = agree(m->shared, open_model(m, dir, st, &piece, &n));
    if (err == OK && weights) err = alloc_weights(m);
    if (err == OK) err = fill_model(m, st, piece, n);
    mem_free(piece);
    return err;
}

Err model_load_as(Model *m, const char *dir, DType dtype, bool shared)
{
    PROFILE(PHASE_IO);
    StDir st = {0};
    *m = (Model){.shared = shared, .dtype = dtype};
    const Err err = load(m, dir, true, &st);
    st_close(&st);
    if (err != OK) model_free(m);
    return err;
}

Err weight_files(Model *m, const char *dir, DType dtype, bool shared, StDir *st)
{
    PROFILE(PHASE_IO);
    *st = (StDir){0};
    *m = (Model){.shared = shared, .dtype = dtype};
    const Err err = load(m, dir, false, st);
    if (err == OK) return OK;
    st_close(st);
    model_free(m);
    return err;
}

Err model_load(Model *m, const char *dir, bool shared) { return model_load_as(m, dir, DT_F32, shared); }

Err model_dtype(const char *name, DType *out)
{
    *out = strcmp(name, "bfloat16") ? DT_F32 : DT_BF16;
    CHECK(*out == DT_BF16 || !strcmp(name, "float32"), ERR_USAGE, "dtype '%s' is neither float32 nor bfloat16", name);
    return OK;
}

Err model_fingerprint(const char *dir, DType dtype, Id *out)
{
    PROFILE(PHASE_IO);
    Model m = {.dtype = dtype};
    StDir st = {0};
    Piece *piece = NULL;
    Id *hash = NULL;
    int64_t n = 0;
    Err err = OK;
    TRY_DONE(open_model(&m, dir, &st, &piece, &n));
    TRY_DONE(MEM_ARRAY(&hash, n));
    TRY_DONE(read_pieces(&m, piece, n, hash));
    TRY_DONE(fingerprint(&m, hash, n));
    *out = m.fingerprint;
done:
    mem_free(hash);
    mem_free(piece);
    st_close(&st);
    model_free(&m);
    return err;
}

// --- random weights ----------------------------------------------------------------------------------------------------

static void draw(Model *m, const WeightPart *p, uint64_t seed)
{
    float *w = m->w + p->offset;
    bool bias = strstr(p->name, ".bias"), norm = strstr(p->name, "norm.weight");
    RngKey key = rng_key(seed, hash_text(p->name).lo);
    for (int64_t i = 0; i < p->n; i++) w[i] = norm ? 1 : bias ? 0 : (float)(0.02 * rng_normal(key, (uint64_t)i));
}

static Err draw_all(Model *m, uint64_t seed)
{
    int64_t ranks = m->shared ? par_node_size() : 1, rank = m->shared ? par_node_rank() : 0, n = 0;
    WeightPart *part = NULL;
    TRY(weight_parts(m, &part, &n));
    for (int64_t i = rank; i < n; i += ranks) draw(m, &part[i], seed);
    mem_free(part);
    Hash *h;
    TRY(hash_new(&h));
    hash_add_text(h, "random");
    hash_add_i64(h, (int64_t)seed);
    hash_add_i64(h, m->elements);
    m->fingerprint = hash_end(h);
    return OK;
}

static Err init_random(Model *m, uint64_t seed)
{
    TRY(model_layout(m));
    TRY(weight_memory(m, block_bytes(m), &m->w));
    TRY(agree(m->shared, draw_all(m, seed)));
    return model_rope_table(m);
}

Err model_init_random(Model *m, const ModelConfig *cfg, uint64_t seed, bool shared)
{
    *m = (Model){.cfg = *cfg, .shared = shared};
    Err err = init_random(m, seed);
    if (err != OK) model_free(m);
    return err;
}

void model_free(Model *m)
{
    weight_memory_free(m, m->rope, rope_bytes(&m->cfg));
    weight_memory_free(m, m->w, block_bytes(m));
    weight_memory_free(m, m->bf16, packed_bytes(m));
    weight_memory_free(m, m->vectors, vector_bytes(m));
    mem_free(m->spec);
    mem_free(m->dir);
    *m = (Model){0};
}
