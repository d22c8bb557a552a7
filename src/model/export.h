// SPDX-License-Identifier: Apache-2.0
// Writing a Hugging Face directory: a model, and what a reward model has besides (reward.c).
#ifndef IMF_MODEL_EXPORT_H
#define IMF_MODEL_EXPORT_H

#include <jansson.h>

#include "model/model.h"
#include "model/safetensors.h"

typedef struct ExportTensor {
    StEntry entry;
    const float *data;  // borrowed
} ExportTensor;

typedef struct Export {
    const Model *model;
    const ExportTensor *extra;  // written behind the model's tensors
    int64_t extras;
    const json_t *config;       // keys on top of config.json, or NULL; borrowed
    const char *from;           // directory whose tokenizer, template and configuration are taken over, or NULL
    const char *dir;
    DType storage;              // of the model's tensors
    const char *model_card;     // README.md, or NULL
} Export;

Err export_directory(const Export *x) ERR_MUST_CHECK;

#endif
