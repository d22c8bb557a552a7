// SPDX-License-Identifier: Apache-2.0
// Training examples: rows (a user's file, or the pair stage's records) rendered to token ids, in ascending order of id, the
// same on every rank. Rendering is shared by the ranks. Order of input lines and number of ranks change nothing.
// Drawback: every rank holds all examples (5 bytes a token).
#ifndef IMF_TRAIN_DATASET_H
#define IMF_TRAIN_DATASET_H

#include "train/batch.h"
#include "text/chat.h"

typedef struct DataSpec {
    const char *stage;     // "sft", "dpo": where dropped.jsonl goes
    const char *run_dir;
    const char *path;      // a user's file; "": the run directory's record set
    const char *set;
    bool pairs, keep_start;
    bool look;             // nothing is written or logged (plans)
    int64_t max_length;    // of prompt and (longer) answer together
    const Tokenizer *tok;
    const ChatTemplate *chat;
} DataSpec;

typedef struct Dataset {
    Example *ex;           // [n], ascending id
    Id *group;             // [n] prompt
    int64_t n;
    int64_t read, duplicates, too_long, cut, identical;
    int64_t tokens, longest;  // sum and maximum of pack_tokens
    Id hash;               // of all examples: ids, tokens, masks
    Arena arena;           // owns the above
} Dataset;

// Collective. Drops and cuts what max_length says, counts it, lists every id in run_dir/<stage>/dropped.jsonl and prints
// one line. ERR_DATA when nothing is left or an example has no target.
Err dataset_load(const DataSpec *spec, Dataset *out) ERR_MUST_CHECK;
void dataset_free(Dataset *d);

// Example indices of training and held-out part: whole groups are held out, by a draw from (seed, group). val_size: a
// share below 1, or a number of examples (reached with whole groups). Arrays are arena-owned by d.
typedef struct Split {
    int32_t *train, *val;
    int64_t n_train, n_val;
} Split;
Err dataset_split(Dataset *d, double val_size, uint64_t seed, Split *out) ERR_MUST_CHECK;

// The order of an epoch: a permutation of 0 .. n-1 that depends on seed and epoch alone.
void dataset_order(uint64_t seed, int64_t epoch, int64_t n, int64_t *order);

#endif
