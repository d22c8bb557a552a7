// SPDX-License-Identifier: Apache-2.0
// Inside of the pair stage: pair.c (the command), pair_load.c (records to arrays), pair_write.c (rows and exports).
#ifndef IMF_STAGE_PAIR_PARTS_H
#define IMF_STAGE_PAIR_PARTS_H

#include "stage/pair_rules.h"
#include "stage/stage.h"
#include "text/record.h"

// Names in the order of their numbers.
typedef struct PairNames {
    char **name;
    int64_t n, cap;
} PairNames;
Err pair_name_number(PairNames *t, const char *name, int64_t *number) ERR_MUST_CHECK;  // adds it when new
void pair_names_free(PairNames *t);

typedef struct PairData {
    RecordSet *prompts, *samples, *scores;
    RecordSet *verdicts;     // NULL: the verify stage did not end
    Id digest[4];            // of the above
    PairNames sources, datasets;
    PairAnswer *a;
    PairPrompt *p;
    PairChoice *c;
    int64_t answers, n_prompts, choices;
} PairData;

// Collective. Opens the record sets (whose stages must have ended) and reads their digests.
Err pair_open(PairData *d, const char *run_dir) ERR_MUST_CHECK;
// Collective. Fills sources, datasets, a and p, the same on every rank: each reads a share of the records.
Err pair_load(PairData *d, const Deck *deck) ERR_MUST_CHECK;
void pair_free(PairData *d);

// The sets that the stage writes, in the order in which they end: an interrupted run continues with the first unended one.
enum { PAIR_SETS = 3 };
extern const char *const pair_sets[PAIR_SETS];

// Collective. Writes the sets that are not done, ends them, and writes the exports.
Err pair_write(PairData *d, const Job *job, const json_t *header, const bool done[PAIR_SETS]) ERR_MUST_CHECK;

#endif
