// SPDX-License-Identifier: Apache-2.0
// Does a directory still hold the model that it held before? Seen from its small files and the ends of every tensor, so that
// a job can ask it of a 72 B model in a moment. What a model computes is told by Model.fingerprint, which reads every byte.
#ifndef IMF_MODEL_MARK_H
#define IMF_MODEL_MARK_H

#include "base/hash.h"

// Local. ERR_NOINPUT or ERR_DATA when the weights cannot be opened.
Err model_mark(const char *dir, Id *out) ERR_MUST_CHECK;

#endif
