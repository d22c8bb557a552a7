// SPDX-License-Identifier: Apache-2.0
// The parts of imf eval: items (what is asked), answers (one model's samples, judged), scores (the reward model's column)
// and the summary. Not for other stages.
#ifndef IMF_STAGE_EVAL_PARTS_H
#define IMF_STAGE_EVAL_PARTS_H

#include <jansson.h>

#include "base/deck.h"
#include "decode/decode.h"
#include "judge/protocol.h"
#include "stage/stage.h"

// One held-out prompt.
typedef struct EvalItem {
    Id id;             // of (set, prompt, protocol, decoding, seed), not of the model: see eval.c
    Id prompt;
    double draw;       // in [0, 1), of prompt and seed: what a limit chooses by
    const char *set;   // borrowed from EvalItems
    const char *kind;  // borrowed from data
    json_t *data;      // owned
    SamplingParams params;
    bool fuseeval;     // math: the protocol's published rules
} EvalItem;

typedef struct EvalItems {
    EvalItem *item;    // [n] ascending in id
    int64_t n, cap;
    char (*set)[64];   // [sets]
    int64_t sets;
    Str dropped;       // a line of JSON for every row that is no item
} EvalItems;

enum { EVAL_NAME = 48, EVAL_MODELS = 16 };

// One model of eval.models.
typedef struct EvalModel {
    char name[EVAL_NAME];
    char dir[4096];
    char answers[EVAL_NAME + 16];  // record sets: "eval/NAME" and "eval/NAME.scores"
    char scores[EVAL_NAME + 24];
    Id tokenizer;                  // filled by eval_answer; lengths in tokens are compared within one tokenizer
} EvalModel;

// Reads eval.sets; rows without what their kind needs and duplicates are counted, logged and listed in `dropped`. Local, the
// same on all ranks.
Err eval_items_load(const Deck *d, EvalItems *out) ERR_MUST_CHECK;
void eval_items_free(EvalItems *s);

// Collective: model m[which] answers every item once and each answer is judged; journaled in run_dir/eval/NAME. Programs
// that an earlier model of the list wrote too are not run again.
Err eval_answer(const Job *job, EvalModel *m, int which, const EvalItems *items) ERR_MUST_CHECK;

// Collective: mean reward of those answers; journaled in run_dir/eval/NAME.scores. Nothing when the recipe has no reward.path.
Err eval_score(const Job *job, const EvalModel *m, const EvalItems *items) ERR_MUST_CHECK;

// Collective: means, intervals, rates and paired differences to run_dir/eval/summary.json and, on rank 0, to stdout. Warns where
// a later model of the list answers more than WARN_LONGER % longer than an earlier one.
Err eval_summary(const Job *job, const EvalModel *m, int models, const EvalItems *items) ERR_MUST_CHECK;

#endif
