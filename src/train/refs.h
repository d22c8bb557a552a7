// SPDX-License-Identifier: Apache-2.0
// Reference log-probabilities of preference pairs: computed once by the code path of training (so that policy and
// reference agree bit for bit while the weights do) and kept in a file.
//
//   OFFSET  SIZE  run_dir/dpo/ref_logps.bin, little endian
//   0       8     "IMFREF02"
//   8       16    fingerprint: model, rendered data (tokens), length limits
//   24      16    sum of everything behind it
//   40      8     pairs n
//   48      40 n  id (16), log-prob of chosen, of rejected (8 each, sums over tokens), tokens of chosen, rejected (4 each)
#ifndef IMF_TRAIN_REFS_H
#define IMF_TRAIN_REFS_H

#include "base/str.h"
#include "train/compute.h"
#include "train/dataset.h"
#include "train/loss.h"
#include "train/spec.h"

// Collective. ref[data->n] in the data's order, owned by the caller (mem_free). Reads the file when it is there; ERR_DATA
// when it belongs to another model or other data, does not match its sum or holds a value that is not finite. ERR_INTERNAL
// when such a value is computed.
Err refs_get(Compute *on, const TrainSpec *spec, const Dataset *data, int64_t row_tokens, PairLogp **ref) ERR_MUST_CHECK;

// The fingerprint of the pairs' log-probabilities under a model. Local.
Err refs_fingerprint(Id model, Id data, Id *out) ERR_MUST_CHECK;
// Local: reads and checks such a file, calls f for every pair in the file's order.
typedef Err (*RefsFn)(void *user, Id pair, const PairLogp *ref);
Err refs_each(const char *path, Id *fingerprint, RefsFn f, void *user) ERR_MUST_CHECK;

// Local: what `imf show` prints of such a file.
Err refs_show(const char *path, Str *out) ERR_MUST_CHECK;

#endif
