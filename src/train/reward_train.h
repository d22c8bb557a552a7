// SPDX-License-Identifier: Apache-2.0
// Training of a reward model of ArmoRM's shape (spec 1.7): imf reward.
//
//   1 backbone (reward_train.backbone: none | bt | regression | both), on the last token's hidden state:
//     bt: a linear head w.h, loss -log sigmoid(w.h(chosen) - w.h(rejected)); regression: a linear head per objective,
//     squared error; both: their sum. AdamW, cosine. The heads are thrown away afterwards.
//   2 one ridge regression per objective on frozen features, no intercept; alpha from 1e-4 .. 1e4 by 80/20 split.
//   3 optionally the verbosity penalty: the least c in 0, 0.05 .. 0.95 that brings |correlation with the verbosity
//     objective| under 0.03.
//   4 the gate (prompt's hidden state -> weight of each objective), Bradley-Terry loss, AdamW lr 1e-3, cosine.
//   5 all objectives scaled by one factor so that the middle 90 % of the scores span reward_train.span (0.15: ArmoRM's
//     0.05-0.20; without an intercept the scores' place cannot be chosen, and pairs see differences only).
//   Rows are held out by prompt; accuracy on held-out pairs is printed with its 95 % interval.
//
// Data: JSONL, one prompt a line, two forms that may be mixed:
//
//   {"prompt": "text" | [{"role","content"}...],            ("messages": [...] says the same)
//    "answers": [{"text": "...",
//                 "objectives": {"content": 0.75, "closing": 1.0, ...},   labels in [0, 1] or any fixed scale; an
//                                                                         objective that is absent is not labelled
//                 "score": 0.8},                            overall quality; absent: mean of the objectives
//                ...]}
//   {"prompt": ..., "chosen": "text" | [message], "rejected": "text" | [message]}
//
// Objectives of the model = all names that occur, in alphabetical order; without any, one called "preference" with 1 for
// chosen and 0 for rejected answers. Preference pairs = chosen/rejected rows, and every two answers of a row whose scores
// differ by more than reward_train.min_gap. Answers longer than max_length are dropped, counted and listed.
#ifndef IMF_TRAIN_REWARD_TRAIN_H
#define IMF_TRAIN_REWARD_TRAIN_H

#include "base/deck.h"
#include "model/model.h"

// Collective. Reads section reward_train of the recipe, leaves run_dir/reward/model (a directory that imf score loads).
Err reward_train(Ctx *ctx, const Deck *deck, const char *run_dir) ERR_MUST_CHECK;

#endif
