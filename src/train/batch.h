// SPDX-License-Identifier: Apache-2.0
// Examples to packed rows. A step is global_batch examples (or pairs), packed into as many rows as it needs; which
// examples share a row is a function of data, seed and epoch alone; rows never cross steps.
#ifndef IMF_TRAIN_BATCH_H
#define IMF_TRAIN_BATCH_H

#include "base/arena.h"
#include "base/hash.h"
#include "model/model.h"

// One training example: an SFT conversation or a preference pair.
//   SFT : answers = 1; ids = whole example; mask[i] = 1 where ids[i] is a target.
//   pair: answers = 2; prompt ids, then chosen ids, then rejected ids (each with its stop token).
typedef struct Example {
    Id id;
    const int32_t *id_tokens;   // [n] all tokens
    const uint8_t *mask;        // [n] 1 = target
    int32_t n;
    int32_t answers;            // 1 or 2
    int32_t prompt;             // pair: tokens of the shared prompt (0 for SFT)
    int32_t chosen;             // pair: tokens of the chosen answer
} Example;

// One packed row, as built by pack_step. Segments of a pair: prompt, chosen (prefix: prompt), rejected (prefix: prompt).
// target[t] is the token that position t predicts, or -1. A pair's prompt's last position predicts the first token of both
// answers; the rejected one's first target is therefore carried by a repeated copy of that prompt token: each
// answer segment starts with the prompt's last token (so prompt segment = prompt without its last token; none when the
// prompt is one token). Positions behind the last target are not computed: an answer segment of n tokens holds the
// prompt's last token and the answer's first n - 1.
typedef struct PackedRow {
    int32_t T, S;
    int32_t *token, *pos, *target;  // [T]
    int32_t *example;               // [T] index of the example in the step (0 .. global_batch-1) for targets, else -1
    int32_t *side;                  // [T] 0 chosen or SFT, 1 rejected
    Segment *seg;                   // [S], starts index the row
} PackedRow;

typedef struct PackedStep {
    PackedRow *row;
    int32_t rows;
    int32_t chains;   // in use
    int32_t *first;   // [chains + 1] rows of each chain, one behind the other
    int32_t examples;
    int64_t targets;  // target tokens of the whole step
} PackedStep;

// Deals the step's examples to at most `chains` chains of nearly equal size and packs each chain's into rows (largest first;
// ties: order of the step), arena-owned. ERR_RECIPE naming the needed row_tokens when an example does not fit.
Err pack_step(Arena *arena, const Example *const *ex, int32_t n, int64_t row_tokens, int64_t chains, PackedStep *out)
    ERR_MUST_CHECK;

// Tokens that an example takes in a row.
int64_t pack_tokens(const Example *e);

// Rows first .. first+rows-1 of a step (any selection given by index) as a Batch, arena-owned.
Err pack_batch(Arena *arena, const PackedStep *s, const int32_t *row_index, int32_t rows, Batch *out, int32_t **target)
    ERR_MUST_CHECK;

// What pack_batch asks of its arena, asked of a counting one.
Err pack_count(Arena *counting, const Batch *shape) ERR_MUST_CHECK;

#endif
