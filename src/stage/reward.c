// SPDX-License-Identifier: Apache-2.0
// imf reward: trains a reward model of ArmoRM's shape on graded answers or preference rows.
#include "stage/stage.h"
#include "train/reward_train.h"

Err stage_reward(const Job *job) { return reward_train(job->ctx, job->deck, job->run_dir); }
