// SPDX-License-Identifier: Apache-2.0
// A directory is written beside its place, read back and compared, synced, and renamed: it is there whole or not at all.
#include "model/export.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/profile.h"
#include "model/sums.h"
#include "model/weights.h"

enum { CHUNK = 1 << 20, JSON_LIMIT = 1 << 20 };  // elements; bytes
static const int64_t SHARD_BYTES = (int64_t)4 << 30;

typedef struct Plan {  // all tensors in file order
    ExportTensor *tensor;
    WeightPart *part;  // owns the names
    int64_t n;
    int32_t *shard;    // [n]
    int32_t shards;
} Plan;

static void plan_free(Plan *p)
{
    mem_free(p->tensor);
    mem_free(p->part);
    mem_free(p->shard);
}

static ExportTensor part_tensor(const Export *x, const WeightPart *w)
{
    return (ExportTensor){{w->name, w->dims, {w->dim[0], w->dim[1]}, w->n, x->storage}, x->model->w + w->offset};
}

static Err plan_make(const Export *x, Plan *p)
{
    int64_t parts = 0, bytes = 0;
    TRY(weight_parts(x->model, &p->part, &parts));
    p->n = parts + x->extras;
    TRY(MEM_ARRAY(&p->tensor, p->n));
    TRY(MEM_ARRAY(&p->shard, p->n));
    for (int64_t i = 0; i < p->n; i++) {
        p->tensor[i] = i < parts ? part_tensor(x, &p->part[i]) : x->extra[i - parts];
        int64_t size = p->tensor[i].entry.n * dtype_size(p->tensor[i].entry.dtype);
        if (bytes + size > SHARD_BYTES && bytes) {
            p->shards++;
            bytes = 0;
        }
        bytes += size;
        p->shard[i] = p->shards;
    }
    p->shards++;
    return OK;
}

static void shard_name(const Plan *p, int32_t shard, char name[64])
{
    if (p->shards == 1) snprintf(name, 64, "model.safetensors");
    else snprintf(name, 64, "model-%05d-of-%05d.safetensors", shard + 1, p->shards);
}

// --- weights ---------------------------------------------------------------------------------------------------------

static Err check_finite(const ExportTensor *t, int64_t first, int64_t n)
{
    for (int64_t i = first; i < first + n; i++)
        CHECK(isfinite(t->data[i]), ERR_INTERNAL, "tensor '%s' holds NaN or Inf: training diverged; nothing is exported",
              t->entry.name);
    return OK;
}

static Err write_tensor(int fd, const char *path, const ExportTensor *t, void *buffer)
{
    for (int64_t at = 0; at < t->entry.n; at += CHUNK) {
        int64_t n = t->entry.n - at < CHUNK ? t->entry.n - at : CHUNK;
        TRY(check_finite(t, at, n));
        st_encode(t->data + at, n, t->entry.dtype, buffer);
        TRY(io_write_all(fd, path, buffer, n * dtype_size(t->entry.dtype)));
    }
    return OK;
}

static Err shard_header(const Plan *p, int32_t shard, Str *out)
{
    StEntry *e;
    int64_t n = 0;
    TRY(MEM_ARRAY(&e, p->n));
    for (int64_t i = 0; i < p->n; i++)
        if (p->shard[i] == shard) e[n++] = p->tensor[i].entry;
    Err err = st_header(e, n, out);
    mem_free(e);
    return err;
}

static Err write_shard(const Plan *p, int32_t shard, const char *dir, void *buffer)
{
    char name[64], path[IO_PATH];
    Str header = {0};
    int fd = -1;
    Err err = OK;
    shard_name(p, shard, name);
    TRY_DONE(io_join(path, dir, name));
    TRY_DONE(shard_header(p, shard, &header));
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    CHECK_DONE(fd >= 0, ERR_CREATE, "cannot create %s: %s%s", path, strerror(errno), io_advice(errno));
    TRY_DONE(io_write_all(fd, path, header.p, header.len));
    for (int64_t i = 0; i < p->n; i++)
        if (p->shard[i] == shard) TRY_DONE(write_tensor(fd, path, &p->tensor[i], buffer));
    CHECK_DONE(fsync(fd) == 0, ERR_IO, "%s: fsync: %s%s", path, strerror(errno), io_advice(errno));
    int last = close(fd);
    fd = -1;
    CHECK_DONE(last == 0, ERR_IO, "%s: close: %s%s", path, strerror(errno), io_advice(errno));
done:
    if (fd >= 0) close(fd);
    str_free(&header);
    return err;
}

static Err write_text(const char *dir, const char *name, const char *text, int64_t n)
{
    char path[IO_PATH];
    TRY(io_join(path, dir, name));
    return io_write(path, text, n);
}

static int add_text(const char *bytes, size_t n, void *text) { return str_add(text, bytes, (int64_t)n) == OK ? 0 : -1; }

static Err write_json(const char *dir, const char *name, const json_t *o)
{
    Str text = {0};
    Err err = OK;
    CHECK_DONE(json_dump_callback(o, add_text, &text, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) == 0, ERR_UNAVAILABLE, "no memory for %s", name);
    TRY_DONE(write_text(dir, name, str_text(&text), text.len));
done:
    str_free(&text);
    return err;
}

static Err write_index(const Plan *p, const char *dir)
{
    if (p->shards == 1) return OK;
    int64_t total = 0;
    json_t *map = json_object();
    for (int64_t i = 0; i < p->n; i++) {
        char name[64];
        shard_name(p, p->shard[i], name);
        json_object_set_new(map, p->tensor[i].entry.name, json_string(name));
        total += p->tensor[i].entry.n * dtype_size(p->tensor[i].entry.dtype);
    }
    json_t *index = json_pack("{s:{s:I},s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    CHECK(index, ERR_UNAVAILABLE, "no memory for the index");
    Err err = write_json(dir, "model.safetensors.index.json", index);
    json_decref(index);
    return err;
}

static Err write_weights(const Plan *p, const char *dir, void *buffer)
{
    for (int32_t s = 0; s < p->shards; s++) TRY(write_shard(p, s, dir, buffer));
    return write_index(p, dir);
}

// Reads the directory back: every tensor must be there, with the bytes that our numbers encode to.
static Err compare(const Plan *p, const char *dir, char *buffer)
{
    StDir st;
    Err err = OK;
    TRY(st_open(dir, &st));
    for (int64_t i = 0; i < p->n; i++) {
        const ExportTensor *t = &p->tensor[i];
        const StTensor *s = st_find(&st, t->entry.name);
        CHECK_DONE(s && s->n == t->entry.n && s->dtype == t->entry.dtype, ERR_IO, "%s: tensor '%s' was not written", dir,
                   t->entry.name);
        int64_t size = dtype_size(s->dtype);
        for (int64_t at = 0; at < s->n; at += CHUNK) {
            int64_t n = s->n - at < CHUNK ? s->n - at : CHUNK;
            st_encode(t->data + at, n, s->dtype, buffer);
            CHECK_DONE(!memcmp(buffer, s->data + at * size, (size_t)(n * size)), ERR_IO,
                       "%s: tensor '%s' reads back differently than it was written", dir, t->entry.name);
        }
    }
done:
    st_close(&st);
    return err;
}

// --- configuration -----------------------------------------------------------------------------------------------------

static json_t *rope_scaling(const ModelConfig *c)
{
    if (!c->rope_llama3) return json_null();
    return json_pack("{s:s,s:f,s:f,s:f,s:I}", "rope_type", "llama3", "factor", (double)c->rope_factor, "low_freq_factor",
                     (double)c->rope_low, "high_freq_factor", (double)c->rope_high, "original_max_position_embeddings",
                     (json_int_t)c->rope_original);
}

// The shortest decimal that gives this float back: 1e-05 rather than 9.9999997e-06.
static json_t *short_float(float f)
{
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)f);
        if (strtof(text, NULL) == f) break;
    }
    return json_real(strtod(text, NULL));
}

static json_t *stop_ids(const ModelConfig *c)
{
    if (!c->stops) return json_null();
    if (c->stops == 1) return json_integer(c->stop[0]);
    json_t *list = json_array();
    for (int32_t i = 0; i < c->stops; i++) json_array_append_new(list, json_integer(c->stop[i]));
    return list;
}

static json_t *bos_id(const ModelConfig *c) { return c->bos < 0 ? json_null() : json_integer(c->bos); }

// config.json of a model that never had one.
static json_t *new_config(const ModelConfig *c)
{
    bool llama = c->family == FAMILY_LLAMA;
    const char *class = c->headless ? "LlamaForRewardModelWithGating" : llama ? "LlamaForCausalLM" : "Qwen2ForCausalLM";
    json_t *o = json_pack("{s:[s],s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "architectures", class, "model_type",
                          llama ? "llama" : "qwen2", "hidden_act", "silu", "vocab_size", (json_int_t)c->V, "hidden_size",
                          (json_int_t)c->H, "intermediate_size", (json_int_t)c->F, "num_hidden_layers",
                          (json_int_t)c->layers, "num_attention_heads", (json_int_t)c->N, "num_key_value_heads",
                          (json_int_t)c->K, "head_dim", (json_int_t)c->D, "max_position_embeddings",
                          (json_int_t)c->max_positions);
    json_object_set_new(o, "rms_norm_eps", short_float(c->eps));
    json_object_set_new(o, "rope_theta", short_float(c->rope_theta));
    json_object_set_new(o, "rope_scaling", rope_scaling(c));
    json_object_set_new(o, "tie_word_embeddings", json_boolean(c->tied));
    if (llama) json_object_set_new(o, "attention_bias", json_false());
    if (llama) json_object_set_new(o, "mlp_bias", json_false());
    if (!llama) json_object_set_new(o, "use_sliding_window", json_false());
    json_object_set_new(o, "bos_token_id", bos_id(c));
    json_object_set_new(o, "eos_token_id", stop_ids(c));
    return o;
}

static Err old_config(const char *from, json_t **out)
{
    char path[IO_PATH];
    Str text = {0};
    json_error_t e;
    Err err = OK;
    TRY_DONE(io_join(path, from, "config.json"));
    TRY_DONE(io_read(path, &text, JSON_LIMIT));
    *out = json_loadb(str_text(&text), (size_t)text.len, JSON_REJECT_DUPLICATES, &e);
    CHECK_DONE(*out, ERR_DATA, "%s:%d: %s", path, e.line, e.text);
done:
    str_free(&text);
    return err;
}

static Err write_config(const Export *x, const char *dir)
{
    static const char *const dtypes[] = {"float32", "bfloat16", "float16"};
    json_t *o = NULL;
    if (x->from) TRY(old_config(x->from, &o));
    else o = new_config(&x->model->cfg);
    json_object_del(o, "dtype");  // what transformers 5 calls torch_dtype; it reads both
    json_object_set_new(o, "torch_dtype", json_string(dtypes[x->storage]));
    if (x->config) json_object_update(o, (json_t *)x->config);
    Err err = write_json(dir, "config.json", o);
    json_decref(o);
    return err;
}

static Err write_generation(const ModelConfig *c, const char *dir)
{
    json_t *o = json_object();
    json_object_set_new(o, "bos_token_id", bos_id(c));
    json_object_set_new(o, "eos_token_id", stop_ids(c));
    Err err = write_json(dir, "generation_config.json", o);
    json_decref(o);
    return err;
}

static Err copy_rest(const char *from, const char *dir)
{
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                        "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
                                        "generation_config.json"};
    char src[IO_PATH], dst[IO_PATH];
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        TRY(io_join(src, from, files[i]));
        TRY(io_join(dst, dir, files[i]));
        if (io_exists(src)) TRY(io_copy(src, dst));
    }
    return OK;
}

// The configuration that was written must mean the model that we have.
static Err check_config(const ModelConfig *want, const char *dir)
{
    ModelConfig got;
    TRY(model_config_load(dir, &got));
    CHECK(got.family == want->family && got.layers == want->layers && got.H == want->H && got.N == want->N &&
              got.K == want->K && got.D == want->D && got.F == want->F && got.V == want->V && got.tied == want->tied &&
              got.eps == want->eps && got.rope_theta == want->rope_theta && got.rope_llama3 == want->rope_llama3,
          ERR_INTERNAL, "%s: config.json does not describe the exported model", dir);
    return OK;
}

// --- the directory -----------------------------------------------------------------------------------------------------

static Err write_directory(const Export *x, const Plan *p, const char *dir, void *buffer)
{
    TRY(io_mkdirs(dir));
    TRY(write_weights(p, dir, buffer));
    if (x->from) TRY(copy_rest(x->from, dir));
    else TRY(write_generation(&x->model->cfg, dir));
    if (x->model_card) TRY(write_text(dir, "README.md", x->model_card, (int64_t)strlen(x->model_card)));
    TRY(write_config(x, dir));
    TRY(check_config(&x->model->cfg, dir));
    TRY(compare(p, dir, buffer));
    TRY(sums_write(dir));
    return io_sync_dir(dir);
}

static Err swap_in(const char *tmp, const char *dir)
{
    fault_point("export-rename");
    TRY(io_remove_tree(dir));
    fault_point("export-removed");
    CHECK(rename(tmp, dir) == 0, ERR_CREATE, "cannot rename %s to %s: %s%s", tmp, dir, strerror(errno), io_advice(errno));
    char parent[IO_PATH];
    fault_point("export-renamed");
    snprintf(parent, sizeof parent, "%s/..", dir);
    return io_sync_dir(parent);
}

Err export_directory(const Export *x)
{
    PROFILE(PHASE_IO);
    char tmp[IO_PATH];
    Plan p = {0};
    void *buffer = NULL;
    Err err = OK;
    CHECK_DONE(snprintf(tmp, sizeof tmp, "%s.tmp", x->dir) < IO_PATH, ERR_DATA, "%s: the path is too long", x->dir);
    TRY_DONE(mem_alloc(&buffer, CHUNK, 4));
    TRY_DONE(plan_make(x, &p));
    TRY_DONE(io_remove_tree(tmp));
    TRY_DONE(write_directory(x, &p, tmp, buffer));
    TRY_DONE(swap_in(tmp, x->dir));
done:
    plan_free(&p);
    mem_free(buffer);
    return err;
}

Err model_export(const Model *m, const char *from, const char *dir, DType storage, const char *model_card)
{
    Export x = {.model = m, .from = from, .dir = dir, .storage = storage, .model_card = model_card};
    return export_directory(&x);
}
