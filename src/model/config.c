// SPDX-License-Identifier: Apache-2.0
// config.json and generation_config.json of a Hugging Face directory -> ModelConfig. What we do not compute is refused
// here, by name, instead of being computed wrongly: other families, other activations, biases elsewhere, sliding windows,
// other kinds of RoPE scaling, quantised weights.
#include <jansson.h>
#include <string.h>

#include "base/io.h"
#include "model/model.h"
#include "text/record.h"

enum { JSON_LIMIT = 1 << 20 };

typedef struct Source {
    const json_t *o;
    const char *path;  // for messages
} Source;

static Err load_json(const char *path, json_t **out)
{
    Str text = {0};
    Err err = OK;
    TRY_DONE(io_read(path, &text, JSON_LIMIT));
    TRY_DONE(json_parse_file(&text, path, out));
    if (!json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        CHECK_DONE(false, ERR_DATA, "%s: not a JSON object; is it the model's own file?", path);
    }
done:
    str_free(&text);
    return err;
}

// A key that is absent or null leaves *out (the default) alone.
static Err get_i64(Source s, const char *key, int64_t min, int64_t max, int64_t *out)
{
    const json_t *v = json_object_get(s.o, key);
    if (!v || json_is_null(v)) {
        CHECK(*out >= min, ERR_DATA, "%s: key '%s' is missing; is it the model's own file?", s.path, key);
        return OK;
    }
    CHECK(json_is_integer(v) && json_integer_value(v) >= min && json_integer_value(v) <= max, ERR_DATA,
          "%s: '%s' must be a whole number from %lld to %lld", s.path, key, (long long)min, (long long)max);
    *out = json_integer_value(v);
    return OK;
}

static Err get_f32(Source s, const char *key, float *out)
{
    const json_t *v = json_object_get(s.o, key);
    if (!v || json_is_null(v)) return OK;
    CHECK(json_is_number(v) && json_number_value(v) > 0 && json_number_value(v) < 1e30, ERR_DATA,
          "%s: '%s' must be a positive number", s.path, key);
    *out = (float)json_number_value(v);
    return OK;
}

static const char *get_text(const json_t *o, const char *key, const char *preset)
{
    const char *v = json_string_value(json_object_get(o, key));
    return v ? v : preset;
}

static bool is_true(Source s, const char *key) { return json_is_true(json_object_get(s.o, key)); }

static Err read_family(Source s, ModelConfig *c)
{
    const char *type = get_text(s.o, "model_type", "");
    if (!strcmp(type, "llama")) c->family = FAMILY_LLAMA;
    else if (!strcmp(type, "qwen2")) c->family = FAMILY_QWEN2;
    else FAIL(ERR_DATA, "%s: model_type '%s' is not supported; use a model of type llama or qwen2", s.path, type);
    c->qkv_bias = c->family == FAMILY_QWEN2;
    c->headless = json_object_get(s.o, "num_objectives") != NULL;
    c->tied = is_true(s, "tie_word_embeddings") && !c->headless;
    return OK;
}

// Everything that would change the computation and that we do not compute.
static Err refuse_unknown(Source s)
{
    const char *act = get_text(s.o, "hidden_act", "silu");
    CHECK(!strcmp(act, "silu"), ERR_DATA, "%s: hidden_act '%s' is not supported; silu is", s.path, act);
    CHECK(!is_true(s, "attention_bias"), ERR_DATA, "%s: attention_bias: true is not supported for llama", s.path);
    CHECK(!is_true(s, "mlp_bias"), ERR_DATA, "%s: mlp_bias: true is not supported", s.path);
    CHECK(!is_true(s, "use_sliding_window"), ERR_DATA, "%s: use_sliding_window: true is not supported", s.path);
    const json_t *quant = json_object_get(s.o, "quantization_config");
    CHECK(!quant || json_is_null(quant), ERR_DATA, "%s: quantised weights are not supported; take the bf16 model", s.path);
    const json_t *partial = json_object_get(s.o, "partial_rotary_factor");
    CHECK(!json_is_number(partial) || json_number_value(partial) == 1, ERR_DATA,
          "%s: partial_rotary_factor other than 1 is not supported", s.path);
    return OK;
}

static Err read_sizes(Source s, ModelConfig *c)
{
    enum { MAX_SIZE = 1 << 24 };
    TRY(get_i64(s, "num_hidden_layers", 1, 4096, &c->layers));
    TRY(get_i64(s, "hidden_size", 1, MAX_SIZE, &c->H));
    TRY(get_i64(s, "num_attention_heads", 1, MAX_SIZE, &c->N));
    c->K = c->N;
    TRY(get_i64(s, "num_key_value_heads", 1, MAX_SIZE, &c->K));
    c->D = c->H / c->N;
    TRY(get_i64(s, "head_dim", 1, 4096, &c->D));
    TRY(get_i64(s, "intermediate_size", 1, MAX_SIZE, &c->F));
    TRY(get_i64(s, "vocab_size", 1, 1 << 22, &c->V));
    TRY(get_i64(s, "max_position_embeddings", 1, 1 << 24, &c->max_positions));
    c->eps = 1e-6f;
    TRY(get_f32(s, "rms_norm_eps", &c->eps));
    CHECK(c->N % c->K == 0, ERR_DATA, "%s: %lld attention heads cannot share %lld key/value heads", s.path,
          (long long)c->N, (long long)c->K);
    CHECK(c->D % 8 == 0 && c->H % 4 == 0 && c->F % 4 == 0, ERR_DATA,
          "%s: head size must be a multiple of 8, hidden_size and intermediate_size of 4", s.path);
    return OK;
}

// rope_theta and rope_scaling (before transformers 5) or rope_parameters (since).
static Err read_rope(Source s, ModelConfig *c)
{
    c->rope_theta = 10000;
    TRY(get_f32(s, "rope_theta", &c->rope_theta));
    const char *keys[] = {"rope_scaling", "rope_parameters"};
    for (int i = 0; i < 2; i++) {
        Source r = {json_object_get(s.o, keys[i]), s.path};
        if (!json_is_object(r.o)) continue;
        TRY(get_f32(r, "rope_theta", &c->rope_theta));
        const char *type = get_text(r.o, "rope_type", get_text(r.o, "type", "default"));
        if (!strcmp(type, "default")) continue;
        CHECK(!strcmp(type, "llama3"), ERR_DATA, "%s: %s of type '%s' is not supported; default and llama3 are", s.path,
              keys[i], type);
        c->rope_llama3 = true;
        TRY(get_f32(r, "factor", &c->rope_factor));
        TRY(get_f32(r, "low_freq_factor", &c->rope_low));
        TRY(get_f32(r, "high_freq_factor", &c->rope_high));
        CHECK(c->rope_factor > 0 && c->rope_low > 0 && c->rope_high > c->rope_low, ERR_DATA,
              "%s: %s wants factor, low_freq_factor < high_freq_factor", s.path, keys[i]);
        TRY(get_i64(r, "original_max_position_embeddings", 1, 1 << 24, &c->rope_original));
    }
    return OK;
}

static Err add_stop(Source s, ModelConfig *c, const json_t *v)
{
    if (!v || json_is_null(v)) return OK;
    CHECK(json_is_integer(v), ERR_DATA, "%s: 'eos_token_id' must be a token's id or a list of ids", s.path);
    int64_t id = json_integer_value(v);
    for (int i = 0; i < c->stops; i++)
        if (c->stop[i] == id) return OK;
    if (id >= 0 && id < c->V && c->stops < MODEL_STOPS) c->stop[c->stops++] = (int32_t)id;
    return OK;
}

static Err add_stops(Source s, ModelConfig *c)
{
    const json_t *v = json_object_get(s.o, "eos_token_id"), *e;
    size_t i;
    if (!json_is_array(v)) return add_stop(s, c, v);
    json_array_foreach(v, i, e) TRY(add_stop(s, c, e));
    return OK;
}

static Err read_storage(Source s, ModelConfig *c)
{
    const char *name = get_text(s.o, "torch_dtype", get_text(s.o, "dtype", "float32"));
    if (!strcmp(name, "bfloat16")) c->storage = DT_BF16;
    else if (!strcmp(name, "float16")) c->storage = DT_F16;
    else if (!strcmp(name, "float32")) c->storage = DT_F32;
    else FAIL(ERR_DATA, "%s: torch_dtype '%s' is not supported; bfloat16, float16 and float32 are", s.path, name);
    return OK;
}

static Err read_config(Source s, ModelConfig *c)
{
    TRY(read_family(s, c));
    TRY(refuse_unknown(s));
    TRY(read_sizes(s, c));
    TRY(read_rope(s, c));
    TRY(read_storage(s, c));
    int64_t bos = -1;
    if (json_is_integer(json_object_get(s.o, "bos_token_id"))) TRY(get_i64(s, "bos_token_id", 0, c->V - 1, &bos));
    c->bos = (int32_t)bos;
    return add_stops(s, c);
}

static Err read_generation(const char *dir, ModelConfig *c)
{
    char path[IO_PATH];
    json_t *o = NULL;
    TRY(io_join(path, dir, "generation_config.json"));
    if (!io_exists(path)) return OK;
    TRY(load_json(path, &o));
    Err err = add_stops((Source){o, path}, c);
    json_decref(o);
    return err;
}

Err model_config_load(const char *dir, ModelConfig *out)
{
    char path[IO_PATH];
    json_t *o = NULL;
    *out = (ModelConfig){.bos = -1};
    TRY(io_join(path, dir, "config.json"));
    CHECK(io_is_dir(dir), ERR_NOINPUT, "%s: no such model directory; is the path right, seen from the current directory?", dir);
    TRY(load_json(path, &o));
    Err err = read_config((Source){o, path}, out);
    json_decref(o);
    TRY(err);
    return read_generation(dir, out);
}
