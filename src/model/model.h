// SPDX-License-Identifier: Apache-2.0
// A decoder-only transformer (Llama and Qwen-2 blocks), its weights, forward and backward, in fp32 or bf16.
//
// Weights live in one fp32 block: tensor after tensor in table order, each [rows][cols], each starting on a 64-byte border.
// Gradients and optimiser state use the same layout, so one table describes them all. A bf16 model computes with a packed
// bf16 copy of the matrices (op_pack_bf16); in training the fp32 block holds the master weights, in inference there is none.
#ifndef IMF_MODEL_MODEL_H
#define IMF_MODEL_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/hash.h"
#include "kernels/ops.h"

typedef enum Family { FAMILY_LLAMA, FAMILY_QWEN2 } Family;
enum { MODEL_STOPS = 8 };

typedef struct ModelConfig {
    Family family;
    int64_t layers, H, N, K, D, F, V, max_positions;
    float eps, rope_theta;
    bool rope_llama3;  // frequency scaling of Llama 3.1/3.2 (spec 1.3)
    float rope_factor, rope_low, rope_high;
    int64_t rope_original;
    bool tied, qkv_bias;
    bool headless;                      // a reward model: no output head
    float attn_softcap, final_softcap;  // 0: none
    int32_t window;                     // 0: none
    DType storage;                      // dtype of the weights on disk
    int32_t bos;                        // -1: none
    int32_t stop[MODEL_STOPS];          // ids that end generation (config.json and generation_config.json)
    int32_t stops;
} ModelConfig;

typedef enum WeightKind {
    W_EMBED, W_NORM_ATTN, W_QKV, W_QKV_BIAS, W_O, W_NORM_MLP, W_GATE_UP, W_DOWN, W_NORM_FINAL, W_HEAD
} WeightKind;

// One tensor of our block. q, k, v are fused to one [N*D + 2*K*D][H] tensor, gate and up to one [2*F][H]; the names on
// disk are the Hugging Face ones (weights.c maps rows to them).
typedef struct WeightSpec {
    WeightKind kind;
    int32_t layer;       // -1 outside layers
    int64_t rows, cols;  // a vector has rows = 1
    int64_t offset;      // first element in the block
    int64_t bf16;        // matrices: first value in the packed block of a bf16 model
    int64_t vector;      // vectors: first element in Model.vectors
} WeightSpec;

typedef struct Model {
    ModelConfig cfg;
    WeightSpec *spec;  // owned
    int32_t specs;
    int64_t elements;  // of the block, padding included
    float *w;          // the block; node-shared memory (par_shared_alloc) when `shared`; NULL: bf16 without master weights
    DType dtype;       // of the arithmetic: DT_F32 or DT_BF16
    void *bf16;        // bf16: [bf16_values] all matrices, packed; shared like w
    float *vectors;    // bf16 without w: [vector_elements] norms and biases; shared like w
    int64_t bf16_values, vector_elements;
    bool shared;
    bool packed;       // the matrices were rearranged by model_pack
    float *rope;       // [rope_positions][D], cos | sin (op_rope); shared like w
    int64_t rope_positions;
    Id fingerprint;    // of config and weight files, and of bf16
    char *dir;         // owned; where it was loaded from
    struct Device *device;  // bf16, vectors and rope are memory of this device, matrices not packed but where the block has them; NULL: the host's
    struct DeviceMark *const *arrived;  // [model_grad_parts] on a device: ops that read a part come behind its mark; borrowed; NULL: all is there
} Model;

Err model_config_load(const char *dir, ModelConfig *out) ERR_MUST_CHECK;
// Fills spec, specs, elements from cfg (no weights): what `imf plan` and tests need.
Err model_layout(Model *m) ERR_MUST_CHECK;

// Loads a Hugging Face directory. Collective when `shared` (each node reads once, ranks share the reading). Errors name
// the file and the tensor: missing, wrong shape, unknown dtype, truncated, NaN or Inf.
Err model_load(Model *m, const char *dir, bool shared) ERR_MUST_CHECK;
// The same for inference in `dtype`: a bf16 model has its matrices packed and no fp32 block (half the memory).
Err model_load_as(Model *m, const char *dir, DType dtype, bool shared) ERR_MUST_CHECK;
// The fingerprint that such a model would have. Local; reads every byte of the weights and keeps none.
Err model_fingerprint(const char *dir, DType dtype, Id *out) ERR_MUST_CHECK;
// Makes a model with an fp32 block compute in bf16, or packs the block again after its weights have changed. Collective over
// the node when shared: each rank packs its part; nobody returns before all is packed.
Err model_pack_bf16(Ctx *ctx, Model *m) ERR_MUST_CHECK;
// "float32" or "bfloat16", as the recipe's key and the flag --dtype name them.
Err model_dtype(const char *name, DType *out) ERR_MUST_CHECK;
// A model with weights drawn from N(0, 0.02) (norms 1, biases 0) by the tensor's name and seed.
Err model_init_random(Model *m, const ModelConfig *cfg, uint64_t seed, bool shared) ERR_MUST_CHECK;
// Rearranges an fp32 model's matrices for generation (op_pack), in place (bf16 ones are packed already); an embedding that is no
// head stays as it is. From then on only src/decode and model_logits may use the model. Collective when m->shared.
Err model_pack(Ctx *ctx, Model *m) ERR_MUST_CHECK;
// A copy for ops on a device: matrices rounded to bf16, of a model with an fp32 block, which takes the fingerprint of a bf16 model.
// Refresh: again, after the block has changed. Local.
Err model_to_device(Ctx *host, struct Device *device, Model *m, Model *out) ERR_MUST_CHECK;
Err model_refresh(Ctx *host, const Model *m, Model *on_device) ERR_MUST_CHECK;
// A model for inference in ctx->dtype, on ctx->gpu where there is one: straight from its files. Collective when `shared`.
// To decode: packed where it is not on a device.
Err model_load_to_compute(Ctx *ctx, const char *dir, bool shared, Model *out) ERR_MUST_CHECK;
Err model_load_to_decode(Ctx *ctx, const char *dir, bool shared, Model *out) ERR_MUST_CHECK;
void model_free(Model *m);

float *model_weight(const Model *m, WeightKind kind, int32_t layer);      // in the fp32 block; NULL when the model has none
float *model_vector(const Model *m, WeightKind kind, int32_t layer);      // a norm or bias, likewise, in every model
Tensor model_matrix(const Model *m, WeightKind kind, int32_t layer);      // as ops take it; p = NULL when the model has none
int64_t model_offset(const Model *m, WeightKind kind, int32_t layer);     // element offset, -1 when none

// Writes a Hugging Face directory: safetensors (sharded above 4 GiB) in `storage`, config.json (that of `from` with our
// values on top); copies tokenizer files, chat template and generation_config.json byte for byte from `from` (NULL: there
// are none); model_card becomes README.md (NULL: none). Re-reads itself and compares every weight; `dir` appears whole or
// not at all (an older one is replaced). Local: rank 0.
Err model_export(const Model *m, const char *from, const char *dir, DType storage, const char *model_card) ERR_MUST_CHECK;

// --- batches -------------------------------------------------------------------------------------------------------

// R packed rows of tokens, one after the other without padding between them. Each row is always the same sequence of
// tokens and segments, whatever batch it travels in.
typedef struct Batch {
    int32_t rows;
    int64_t T;              // all tokens
    const int32_t *row;     // [rows + 1] token offsets
    const int32_t *token;   // [T]
    const int32_t *pos;     // [T]
    const Segment *seg;     // [S], starts index the batch
    int64_t S;
} Batch;

// What the backward needs of a forward; filled by model_forward, arena-owned.
typedef struct Acts Acts;

// hidden[T][H] = output of the final norm. keep != NULL: activations are kept in *keep (allocated from `arena`).
Err model_forward(Ctx *ctx, const Model *m, const Batch *b, Arena *arena, float *hidden, Acts **keep) ERR_MUST_CHECK;

// Every id inside the vocabulary, else ERR_DATA naming the model's directory: a tokenizer of another model shows here first.
Err model_check_ids(const Model *m, const int32_t *id, int64_t n) ERR_MUST_CHECK;

// Where a backward adds the gradients of weights: to one buffer with the block's layout, or part by part. The parts in the order in
// which they are done: 0 final norm and an untied head, then the layers from the last to the first, then the embedding.
typedef struct GradSink {
    float *whole;  // [model_grad_elements]; NULL: by parts
    Tensor head;   // where op_logprob_bwd adds the head's gradient
    // *base: where element 0 of the block would lie. Between begin and end the part's elements are added to.
    Err (*begin)(void *user, int32_t part, float **base);
    Err (*end)(void *user, int32_t part);
    void *user;
} GradSink;
GradSink model_grad_whole(const Model *m, float *grad);
int32_t model_grad_parts(const Model *m);
void model_grad_part(const Model *m, int32_t part, int64_t *first, int64_t *n);  // elements of the block, padding included

// From d loss / d hidden to gradients of the weights.
Err model_backward(Ctx *ctx, const Model *m, const Batch *b, Arena *arena, const Acts *acts, const float *dhidden,
                   const GradSink *sink) ERR_MUST_CHECK;

// What these two ask of their arena, asked of a counting one (base/arena.h): no weights, only m's layout and dtype, and of the
// batch its sizes and row offsets. Afterwards the arena holds what the forward keeps.
Err model_forward_count(Ctx *ctx, const Model *m, const Batch *b, Arena *counting, bool keep) ERR_MUST_CHECK;
Err model_backward_count(Ctx *ctx, const Model *m, const Batch *b, Arena *counting) ERR_MUST_CHECK;

// Bytes of a model's memory, of one copy (a node's): from cfg and the layout alone (model_layout).
typedef struct ModelBytes {
    int64_t weights;  // the fp32 block, or (bf16 without master weights) packed matrices and vectors
    int64_t copy;     // the packed bf16 copy beside the block
    int64_t rope;
} ModelBytes;
ModelBytes model_bytes(const Model *m, DType dtype, bool master);
int64_t model_device_bytes(const Model *m);  // of a copy that model_to_device makes

// The output head: the embedding when tied; p = NULL when the model has none.
Tensor model_head(const Model *m);

// With a tied head both the lookup's and the head's gradients belong to the embedding. The order in which they are added
// must not depend on the micro-batch (law 1), so the head's part has a place of its own behind the block:
// a whole gradient is model_grad_elements() floats; op_logprob_bwd adds to GradSink.head; after a chain's last row
// model_grad_fold() adds that part to the embedding's gradient (and does nothing when the head is not tied).
int64_t model_grad_elements(const Model *m);
Err model_grad_fold(Ctx *ctx, const Model *m, float *grad) ERR_MUST_CHECK;

// logits[n][V] of n hidden states in m->dtype (small n: generation, tests).
Err model_logits(Ctx *ctx, const Model *m, Tensor hidden, int64_t n, float *logits) ERR_MUST_CHECK;

#endif
