// SPDX-License-Identifier: Apache-2.0
// One step's forward and, when wanted, backward over its packed rows: what ranks share.
#ifndef IMF_TRAIN_STEP_H
#define IMF_TRAIN_STEP_H

#include "train/batch.h"
#include "train/chains.h"
#include "train/compute.h"
#include "train/loss.h"

typedef struct StepJob {
    Compute *on;
    const PackedStep *step;
    int32_t micro_rows;         // rows per model call: speed and memory only; on a device 1
    const DpoSpec *dpo;         // NULL: SFT
    const PairLogp *reference;  // [examples of the step]; DPO with gradients only
    ChainSum *sum;              // NULL: forward only. On a device the sum is on->sum, and this one stays empty
    Arena *acts;                // of model calls, from on->source; kept over the steps, so that the blocks of the first one serve all
} StepJob;

// Collective. logp[examples of the step] is filled on every rank (SFT: side 0 only). With `sum`: the gradient of the
// step's loss as chain sums. active: number of chains in use.
Err step_run(const StepJob *job, PairLogp *logp, int32_t *active) ERR_MUST_CHECK;

// On a device: on->sum begins, for the rows that every rank has of `active` chains (compute_sum_begin). Local.
Err step_sum_begin(Compute *on, const PackedStep *step, int32_t active) ERR_MUST_CHECK;

// Bytes that a model call of step_run takes of its arena; of the batch its sizes and row offsets, of the model its layout and dtype,
// of the job on->model, on->ctx, step (may be NULL) and dpo. The same for the largest call of a chain. Local.
Err step_count(const StepJob *job, const Batch *shape, bool grad, int64_t *bytes) ERR_MUST_CHECK;
Err step_chain_count(const StepJob *job, int32_t chain, bool grad, int64_t *bytes) ERR_MUST_CHECK;

#endif
