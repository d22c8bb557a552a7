// SPDX-License-Identifier: Apache-2.0
// What a training stage takes from its section of the recipe.
#ifndef IMF_TRAIN_SPEC_H
#define IMF_TRAIN_SPEC_H

#include "base/deck.h"
#include "train/loss.h"
#include "train/optim.h"
#include "train/schedule.h"

typedef struct TrainSpec {
    const char *stage;      // "sft" or "dpo": section of the recipe and folder of the run directory
    const char *run_dir;
    bool pairs;
    DpoSpec dpo;            // pairs only
    OptimSpec optim;
    double learning_rate, epochs, warmup_ratio, val_size;
    const char *scheduler;
    int64_t max_steps, global_batch, max_length, row_tokens, micro_rows, grad_chains;
    int64_t logging_steps, save_steps, save_seconds, save_total_limit, save_keep_every, ranks_per_file, eval_steps;
    bool keep_start;
    bool inexact;           // exact: false; a chain a rank (grad_chains), so the weights depend on the number of ranks
    bool tensorboard;       // event files too (train/events.h); changes no result
    uint64_t seed;
} TrainSpec;

Err train_spec(TrainSpec *out, const Deck *deck, const char *stage, const char *run_dir, bool pairs) ERR_MUST_CHECK;

// Hash of everything that decides the result, and of nothing else: what a checkpoint may be resumed with.
Err train_spec_hash(const TrainSpec *s, Id *out) ERR_MUST_CHECK;

#endif
