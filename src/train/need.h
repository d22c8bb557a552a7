// SPDX-License-Identifier: Apache-2.0
// What SFT and DPO will need, before anything is loaded: steps, tokens and bytes. Sizes come from the functions that allocate
// (model_forward_count, chain_buffers, optim_bytes, ...), so there is one formula for each. Nothing here is collective.
#ifndef IMF_TRAIN_NEED_H
#define IMF_TRAIN_NEED_H

#include "train/dataset.h"
#include "train/spec.h"

// The work of a stage, for every layout. Release with train_work_free.
typedef struct TrainWork {
    bool known;               // from a data set; else bounds from the recipe: rows as long as it allows, all chains in use
    int64_t row_tokens, examples, steps, per_epoch;  // examples, steps: -1 when not known
    double tokens, reference; // of all steps; of the reference pass (pairs)
    int64_t counted;          // steps whose rows were looked at
    int32_t *active;          // [counted] chains in use
    int64_t *bytes;           // [counted][grad_chains] most bytes that a chain takes of a rank's arena
    int32_t *calls;           // [counted][grad_chains] model calls of a chain, each of another length
    int64_t chains;
} TrainWork;

// m: layout and dtype. data: NULL when it is not there yet; its split is made. ctx: where it will run (a device: device_plan's).
Err train_work(const Ctx *ctx, const TrainSpec *spec, const Model *m, Dataset *data, TrainWork *out) ERR_MUST_CHECK;
void train_work_free(TrainWork *w);

// Bytes, summed over `count` ranks from `first` on, of `ranks` in all.
typedef struct TrainNeed {
    int64_t gradients, moments, activations, received;  // received: parts of other ranks' sums
    int64_t calls;  // model calls of all these ranks
} TrainNeed;
Err train_need(const TrainWork *w, const Model *m, int64_t ranks, int64_t first, int64_t count, TrainNeed *out) ERR_MUST_CHECK;

// Bytes of a device, of the rank that needs most.
typedef struct DeviceNeed {
    int64_t weights, gradients, optimiser, activations, kv;  // kv: pages of decoding
} DeviceNeed;
Err train_need_of_device(const TrainWork *w, const Model *m, bool shard_grads, int64_t ranks, DeviceNeed *out) ERR_MUST_CHECK;

#endif
