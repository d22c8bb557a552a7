// SPDX-License-Identifier: Apache-2.0
// The heads of a reward model on frozen features: ridge regressions, verbosity penalty, gate, scale. Serial (rank 0).
#ifndef IMF_TRAIN_REWARD_HEADS_H
#define IMF_TRAIN_REWARD_HEADS_H

#include "train/reward_data.h"

typedef struct Features {
    float *last, *gating;  // [answers][H]
} Features;

typedef struct HeadSpec {
    uint64_t seed;
    int64_t gate_steps, gate_batch;
    double gate_lr, gate_dropout, span;
    int64_t verbosity;     // objective, or -1
} HeadSpec;

// Ridge regression per objective without intercept; alpha from 1e-4 .. 1e4 by the error on 20 % of the training rows, then
// all training rows. Fills h->regression; prints a line an objective.
Err heads_ridge(const RewardData *d, const Features *f, const HeadSpec *s, RewardHead *h) ERR_MUST_CHECK;

// Fills h->transform: the least penalty in 0, 0.05 .. 0.95 with |correlation(r_k - c r_v, r_v)| <= 0.03 on training rows.
Err heads_verbosity(const RewardData *d, const Features *f, const HeadSpec *s, RewardHead *h) ERR_MUST_CHECK;

// Trains gate and logit_scale on the training pairs (reward_gate.c).
Err heads_gate(Ctx *ctx, const RewardData *d, const Features *f, const HeadSpec *s, RewardHead *h) ERR_MUST_CHECK;

// Scales the regression so that the middle 90 % of all scores are s->span wide.
Err heads_scale(const RewardData *d, const Features *f, const HeadSpec *s, RewardHead *h) ERR_MUST_CHECK;

// Objectives after the transform (r T) of one answer, in double.
void heads_objectives(const RewardHead *h, const float *last, double *out);

// Share of the pairs (held out or not) whose better answer has the higher score.
Err heads_accuracy(const RewardData *d, const Features *f, const RewardHead *h, bool held, int64_t *right, int64_t *n)
    ERR_MUST_CHECK;

#endif
