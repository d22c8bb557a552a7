// SPDX-License-Identifier: Apache-2.0
// The forward pass of generation: a prompt as one row (prefill), then one token a slot (decode), both through pages.
#ifndef IMF_DECODE_STEP_H
#define IMF_DECODE_STEP_H

#include "decode/kv.h"
#include "model/model.h"

// Where the slots' keys and values lie: the tables of DecodeAttnArgs. Owned by step_open / step_close.
typedef struct SlotTables {
    int32_t *prefix_page, *prefix_len;  // [slots][max_prefix], [slots]
    int32_t *own_page, *own_len;        // [slots][max_own], [slots]
    int32_t *order, *group;             // [slots], [slots + 1]: groups of the step that is computed
    int64_t slots, max_prefix, max_own, groups;
} SlotTables;

// What decides which kernels a decode step launches and where they find what they read: buffers move only when they grow.
typedef struct StepShape {
    int64_t active, groups, rows, max_prefix, max_own, workspace_bytes, kv_pages, logits;
} StepShape;

typedef struct Step {
    Ctx *ctx;
    const Model *model;  // borrowed
    KvPool kv;
    SlotTables tables;
    int64_t rows;        // tokens that the buffers below can hold
    Tensor x;                            // [rows][H] residual stream, fp32
    Tensor h, qkv, att, gate_up, act;    // in the model's dtype: [rows][H], [.. (N + 2K) D], [.. N D], [.. 2F], [.. F]
    int32_t *token, *pos, *page, *place;  // [rows] of the tokens at hand
    Segment *seg;                // of the prompt at hand
    void *workspace;
    int64_t workspace_bytes;
    StepShape shape;            // of the last decode step, on a device
    struct DeviceGraph *graph;  // it, recorded; NULL: not yet
} Step;

Err step_open(Step *s, Ctx *ctx, const Model *m, int64_t slots) ERR_MUST_CHECK;
void step_close(Step *s);

// Makes room for prompts of prompt_len tokens and answers of new_tokens. Allocates only when a request is the longest yet.
Err step_reserve(Step *s, int64_t prompt_len, int64_t new_tokens) ERR_MUST_CHECK;

// Computes a prompt, writes its keys and values to page[kv_pages_for(n)], and the logits behind its last token (memory that ctx's ops reach).
// Returns when they can be read.
Err step_prefill(Step *s, const int32_t *token, int64_t n, const int32_t *page, float *logits) ERR_MUST_CHECK;

// One token for each of the slots 0 .. active-1: token[i] at position prefix_len + own_len - 1 (own_len counts it, its page is
// in the table). logits[active][V] can be read after ctx_wait; until then the tables must stay.
Err step_decode(Step *s, const int32_t *token, int64_t active, float *logits) ERR_MUST_CHECK;

// For plans, from the model's layout and dtype alone: bytes of a pool that met a need of `pages`; of the buffers for one
// prompt's rows, or the slots', with their workspace. ctx: where the ops run; NULL: on the host.
int64_t step_kv_bytes(Ctx *ctx, const Model *m, int64_t slots, int64_t pages);
int64_t step_row_bytes(Ctx *ctx, const Model *m, const SlotTables *longest, int64_t prompt_len);

#endif
