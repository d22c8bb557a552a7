// One step's forward and, when wanted, backward over its packed rows: what ranks share.
#ifndef IMF_TRAIN_STEP_H
#define IMF_TRAIN_STEP_H

#include "train/batch.h"
#include "train/chains.h"
#include "train/loss.h"

typedef struct StepJob {
    Ctx *ctx;
    const Model *model;
    const PackedStep *step;
    int32_t micro_rows;         // rows per model call: speed and memory only
    const DpoSpec *dpo;         // NULL: SFT
    const PairLogp *reference;  // [examples of the step]; DPO with gradients only
    ChainSum *sum;              // NULL: forward only
} StepJob;

// Collective. logp[examples of the step] is filled on every rank (SFT: side 0 only). With `sum`: the gradient of the
// step's loss as chain sums. active: number of chains in use.
Err step_run(const StepJob *job, PairLogp *logp, int32_t *active) ERR_MUST_CHECK;

#endif
