// SPDX-License-Identifier: Apache-2.0
// SFT and DPO from recipe to exported model: what the two stages share.
#ifndef IMF_TRAIN_FINETUNE_H
#define IMF_TRAIN_FINETUNE_H

#include "base/deck.h"
#include "kernels/ops.h"

typedef struct FineTune {
    Ctx *ctx;
    const Deck *deck;
    const char *run_dir;
    const char *stage;     // "sft" or "dpo"
    bool pairs;
    const char *base;      // model directory to start from (and to take tokenizer files from)
    bool random;           // base gives config.json and tokenizer only: weights are drawn from the recipe's seed
    const char *set;       // record set of the rows when <stage>.data is empty
} FineTune;

// Collective. Leaves run_dir/<stage>/model and, last, run_dir/<stage>/done.json; returns at once when that file says that
// the same recipe, data and base model have been trained already; ERR_RECIPE when it says otherwise.
Err finetune(const FineTune *job) ERR_MUST_CHECK;

// The number format of the written model: <stage>.export_dtype, or the base model's.
DType finetune_export_dtype(const Deck *deck, const char *stage, DType storage);

#endif
