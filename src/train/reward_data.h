// SPDX-License-Identifier: Apache-2.0
// Data of reward training (format: train/reward_train.h): conversations with labels, and preference pairs among them.
#ifndef IMF_TRAIN_REWARD_DATA_H
#define IMF_TRAIN_REWARD_DATA_H

#include "base/deck.h"
#include "model/reward_chat.h"

typedef struct RewardAnswer {
    const int32_t *id;    // [n] the whole conversation
    int64_t n, gating;    // tokens; index of the gating token
    int32_t row;          // of RewardData.held
    const double *label;  // [objectives]; NaN: not labelled
    double score;         // overall quality
} RewardAnswer;

typedef struct RewardPair {
    int32_t good, bad;    // answers of one row
} RewardPair;

typedef struct RewardData {
    RewardAnswer *answer;
    int64_t answers;
    RewardPair *pair;     // of all rows, in order of row and answer
    int64_t pairs;
    bool *held;           // [rows] held out (whole prompts)
    int64_t rows, read, duplicates, too_long;
    const char **name;    // [objectives], ascending
    int64_t objectives;
    int64_t longest;      // tokens
    Id hash;
    Arena arena;          // owns the above
} RewardData;

// Local and the same on every rank, whatever the order of lines. The pattern of h decides the gating positions. Conversations
// over max_length are dropped, counted and listed in run_dir/reward/dropped.jsonl (rank 0).
Err reward_data_load(const Deck *deck, const char *run_dir, const RewardHead *h, const ChatTemplate *c, const Tokenizer *t,
                     RewardData *out) ERR_MUST_CHECK;
void reward_data_free(RewardData *d);

#endif
