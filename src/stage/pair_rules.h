// SPDX-License-Identifier: Apache-2.0
// Which answers become SFT rows and preference pairs (FuseChat-3.0, data construction). Pure functions on arrays.
//
// if     The owner of a prompt's best score supplies the pair: its best against its worst answer, if they differ by
//        margin_min .. margin_max (inclusive). Prompts without such a pair are dropped; of the others floor(sft_fraction N)
//        of each data set become SFT rows (the best answer of all), the rest pairs.
// math   SFT row: the right answer with the best score. Pair: within one source, the best right against the lowest wrong
//        answer, inside the window. Prompts with a pair can go to DPO (math_dpo_fraction of them), the others with a right
//        answer to SFT: no prompt is in both.
// code   As math; the window is optional, and a prompt may be in both (code_overlap).
// Ties: the first answer, in the order of (source, k). Answers that are unscored, undecided or weakly judged are left out;
// one that was cut by length is never chosen (R-THR2), but can be the rejected one.
#ifndef IMF_STAGE_PAIR_RULES_H
#define IMF_STAGE_PAIR_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"

typedef enum PairKind { PAIR_IF, PAIR_MATH, PAIR_CODE } PairKind;

typedef struct PairRules {
    double sft_fraction, margin_min, margin_max, math_dpo_fraction, code_dpo_fraction;
    bool window_code, code_overlap, one_per_prompt, allow_weak, allow_cut;
} PairRules;

typedef enum PairVerdict { PAIR_WRONG, PAIR_RIGHT, PAIR_UNDECIDED, PAIR_UNJUDGED } PairVerdict;

typedef struct PairAnswer {
    Id id, prompt, text;   // sample, prompt, hash of the text
    int64_t k;             // number of the sample of its source
    double score;
    int32_t source;        // in the recipe's order
    int8_t verdict;        // PairVerdict
    bool scored, weak, cut;  // cut: by length, when it was sampled
    // results, static text; NULL: nothing is in the way
    const char *left_out;    // why it can be neither chosen nor rejected
    const char *not_chosen;  // why it can only be rejected
} PairAnswer;

typedef struct PairPrompt {
    Id id;
    uint64_t draw;         // random number of the prompt: decides the split
    int64_t first, n;      // its answers, in the order of (source, k)
    int32_t dataset;
    int8_t kind;           // PairKind
    // results
    const char *dropped;   // why the prompt gives nothing; NULL: it gives something. Static text.
    int64_t best;          // answer for an SFT row; -1: none
    int64_t first_pair, pairs;  // pairs that it could give
    bool to_sft, to_dpo;
} PairPrompt;

typedef struct PairChoice {
    int64_t prompt, chosen, rejected;  // indices
    double margin;
} PairChoice;

// Sorts answers by (prompt, source, k, id) and sets first and n of the prompts, which are in ascending order of id.
// Answers of unknown prompts are ERR_DATA.
Err pair_order(PairAnswer *a, int64_t answers, PairPrompt *p, int64_t prompts) ERR_MUST_CHECK;

// Applies the rules to every prompt. pairs: room for as many as there are answers; pairs of prompts that do not go to DPO
// are among them.
Err pair_choose(const PairRules *r, PairAnswer *a, PairPrompt *p, int64_t prompts, PairChoice *pairs,
                int64_t *n_pairs) ERR_MUST_CHECK;

// The pair of one source, as the rules of the kind say, whoever owns the best answer; false: none. from .. to-1 are the
// source's answers. *why (may be NULL): the reason when there is none.
bool pair_of_source(const PairRules *r, PairKind kind, const PairAnswer *a, int64_t from, int64_t to, PairChoice *out,
                    const char **why);

// floor(fraction * n), safe from 0.29 * 100 = 28.999...
int64_t pair_share(double fraction, int64_t n);

#endif
