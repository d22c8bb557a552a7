// SPDX-License-Identifier: Apache-2.0
// How much of a trained model is new, and how much of that its number format on disk keeps.
#ifndef IMF_MODEL_CHANGES_H
#define IMF_MODEL_CHANGES_H

#include "model/model.h"

typedef struct Changes {
    int64_t elements;
    int64_t learned;  // weights that differ from the base model's
    int64_t written;  // those that still differ once they are rounded to the number format
} Changes;

// Local. base: the directory that m was loaded from before it was trained.
Err model_changes(const Model *m, const char *base, DType storage, Changes *out) ERR_MUST_CHECK;

#endif
