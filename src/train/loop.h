// SPDX-License-Identifier: Apache-2.0
// The step loop of SFT and DPO.
#ifndef IMF_TRAIN_LOOP_H
#define IMF_TRAIN_LOOP_H

#include "train/compute.h"
#include "train/dataset.h"
#include "train/spec.h"

// The number of tokens of a packed row: row_tokens, or (0) a value from data and recipe alone that gives every chain about
// one row a step.
int64_t train_row_tokens(const TrainSpec *spec, const Dataset *data);

// Steps of the whole run over n_train examples.
int64_t train_steps(const TrainSpec *spec, int64_t n_train, int64_t *per_epoch);

// Collective. Trains on->master in place (its weights must be node-shared when there are several ranks), resuming from the
// newest checkpoint under run_dir/<stage> when there is one of the same recipe, data and base model; leaves checkpoints and
// metrics there. reference: one per example of data (pairs) or NULL. ERR_REQUEUE when a rank was asked to stop (base/stop.h) or
// the batch system's time ends (train/pace.h): the step was finished and a checkpoint written. ERR_INTERNAL when a loss or
// gradient is not finite, naming step and examples, or when three starts ended in the same step (train/tries.h). ERR_RECIPE
// when there are more ranks than grad_chains. ERR_IO before the first step when there is no room for a checkpoint.
Err train_run(const TrainSpec *spec, Compute *on, Dataset *data, const PairLogp *reference) ERR_MUST_CHECK;

#endif
