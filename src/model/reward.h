// SPDX-License-Identifier: Apache-2.0
// A reward model of ArmoRM's shape (spec 1.7): objective rewards from the last token's hidden state, mixed by a gate that
// sees the prompt only.
//
//   r = W_reg h(last)                          objectives
//   g = softmax(MLP(h(gating)) / temperature) * logit_scale
//   score = sum_k g_k (r T)_k                  T: reward transform (verbosity penalty)
//
// h(gating): hidden state at the first token of the last occurrence of `pattern`, the tokens between the user's text and the
// answer's: end of turn, assistant header. In a directory: backbone as usual, regression_layer.weight,
// gating.layers.N.{weight,bias}, gating.logit_scale, reward_transform_matrix; in config.json num_objectives,
// gating_temperature, gating_hidden_dim, gating_n_hidden, and our own imf_gating_pattern (ids; ArmoRM's when absent) and
// imf_objectives (names, may be absent).
#ifndef IMF_MODEL_REWARD_H
#define IMF_MODEL_REWARD_H

#include "model/model.h"

enum { REWARD_PATTERN = 16, REWARD_OBJECTIVES = 256, REWARD_GATE_LAYERS = 16 };

typedef struct RewardHead {
    int64_t H, objectives;
    int64_t gate_hidden, gate_layers;   // width; linear layers (hidden ones + 1)
    float temperature, logit_scale;
    float *regression;                  // [objectives][H]
    float *transform;                   // [objectives][objectives]: r' = r T
    float *gate_w[REWARD_GATE_LAYERS];  // [out][in] each
    float *gate_b[REWARD_GATE_LAYERS];  // [out]
    char **name;                        // [objectives] or NULL
    int32_t pattern[REWARD_PATTERN];
    int32_t pattern_len;
    float *block;                       // owns all arrays above
    struct Device *device;              // has a copy of the block too; NULL: none
    float *on_device;                   // that copy
} RewardHead;

// Allocates zeroed arrays (transform = identity, logit_scale 1, temperature 10, ArmoRM's pattern). names: copied, or NULL.
Err reward_head_new(RewardHead *h, int64_t H, int64_t objectives, int64_t gate_hidden, int64_t gate_layers,
                    const char *const *names) ERR_MUST_CHECK;
void reward_head_free(RewardHead *h);

// Inputs and outputs of gate layer i.
int64_t reward_gate_in(const RewardHead *h, int64_t i);
int64_t reward_gate_out(const RewardHead *h, int64_t i);

typedef struct RewardModel {
    Model model;      // backbone, headless
    RewardHead head;
    Id fingerprint;   // of both
    MemSource memory;  // of the backbone's device
} RewardModel;

// The backbone in ctx->dtype, it and a copy of the head on ctx->gpu where there is one. Errors as model_load; collective when
// `shared`.
Err reward_load(RewardModel *r, Ctx *ctx, const char *dir, bool shared) ERR_MUST_CHECK;
void reward_free(RewardModel *r);
// What an arena for reward_hidden takes its memory from; valid until r is freed. NULL: mem_alloc.
const MemSource *reward_memory(const RewardModel *r);
// "cuda" where the backbone lies on a device, else NULL: for headers of records, as bits depend on it.
const char *reward_device(const RewardModel *r);

// model_export's directory with the head's tensors (fp32) and keys besides. The backbone's own output head is left out. Local.
Err reward_save(const Model *backbone, const RewardHead *h, const char *from, const char *dir, DType storage,
                const char *model_card) ERR_MUST_CHECK;

// Index of the gating token in n ids, -1 when the pattern does not occur.
int64_t reward_gating_position(const RewardHead *h, const int32_t *id, int64_t n);

// Hidden states of one conversation at the two places that count.
typedef struct RewardInput {
    const int32_t *id;  // borrowed
    int64_t n;
    int64_t gating;     // reward_gating_position
} RewardInput;

// last[count][H], gating[count][H], of the host: each conversation is a row of its own, so that alone == batched, bit for bit.
// Memory: that of a forward without kept activations over all their tokens, from an arena that the backbone's device reaches
// (reward_memory). Waits for the device.
Err reward_hidden(Ctx *ctx, const Model *backbone, Arena *arena, const RewardInput *in, int64_t count, float *last,
                  float *gating) ERR_MUST_CHECK;
// What it takes of its arena, but for ids and positions (12 bytes a token); for plans.
int64_t reward_hidden_bytes(Ctx *ctx, const Model *m, int64_t tokens, int64_t conversations);  // ctx NULL: on the host

// Of count conversations; the caller's.
typedef struct RewardScores {
    double *objectives;  // [count][objectives]: r, before T
    double *gate;        // [count][objectives]
    double *score;       // [count]
} RewardScores;

// In double, each number in an order that the head and the place of its copy decide. The arena: as for reward_hidden. Waits for the device once.
Err reward_score(Ctx *ctx, const RewardModel *r, Arena *arena, const RewardInput *in, int64_t count, const RewardScores *out) ERR_MUST_CHECK;
// The same from what reward_hidden has brought, on the host.
Err reward_score_hidden(Ctx *ctx, const RewardHead *h, Arena *arena, int64_t count, const float *last, const float *gating,
                        const RewardScores *out) ERR_MUST_CHECK;

#endif
