// SPDX-License-Identifier: Apache-2.0
// How the tensors of a Hugging Face checkpoint map to our block; shared by loading, random weights and export.
#ifndef IMF_MODEL_WEIGHTS_H
#define IMF_MODEL_WEIGHTS_H

#include "model/model.h"
#include "model/safetensors.h"

enum { PART_NAME = 96, SPEC_PARTS = 3 };

// One tensor on disk: `dims` (1 or 2) dimensions, contiguous at `offset` of our block.
typedef struct WeightPart {
    char name[PART_NAME];
    int32_t dims;
    int64_t dim[2];
    int64_t offset, n;  // elements
} WeightPart;

// Every part of the model in block order; *out is owned by the caller (mem_free).
Err weight_parts(const Model *m, WeightPart **out, int64_t *n) ERR_MUST_CHECK;

// The tensor of `dir` that a part names: ERR_DATA when it is missing, has another shape or is not bf16, f16 or f32.
Err weight_find(const StDir *dir, const WeightPart *part, const StTensor **out) ERR_MUST_CHECK;

// The spec of a tensor, or NULL.
const WeightSpec *weight_spec(const Model *m, WeightKind kind, int32_t layer);

// Memory of a model: its device's, node-shared or this rank's own.
Err weight_memory(const Model *m, int64_t bytes, void *pp) ERR_MUST_CHECK;
void weight_memory_free(const Model *m, void *p, int64_t bytes);

// Makes the fingerprint that of a bf16 model.
Err weight_mark_bf16(Model *m) ERR_MUST_CHECK;

// Fills a bf16 model without master weights: packed and vectors from the opened directory. Local: this rank's share.
Err weight_pack_parts(Model *m, const StDir *dir) ERR_MUST_CHECK;

// A model as model_load_as makes it, but without weights; *st stays open for who reads them, and is the caller's to close. Collective when `shared`.
Err weight_files(Model *m, const char *dir, DType dtype, bool shared, StDir *st) ERR_MUST_CHECK;

// Fills m->rope for cfg (spec 1.2, 1.3). Collective when m->shared.
Err model_rope_table(Model *m) ERR_MUST_CHECK;
int64_t rope_bytes(const ModelConfig *c);

#endif
