// SPDX-License-Identifier: Apache-2.0
// The life of a prompt, a sample, an SFT row or a pair of a run, as text: what imf trace prints and the report's page shows.
#ifndef IMF_STAGE_LIFE_H
#define IMF_STAGE_LIFE_H

#include "base/err.h"
#include "base/hash.h"
#include "base/str.h"
#include "text/record.h"

typedef struct Life Life;

// The record sets of a run directory; LIFE_OWN_ROW is no set but a row of a user's file that training dropped or cut.
enum {
    LIFE_PROMPTS,
    LIFE_SAMPLES,
    LIFE_SCORES,
    LIFE_VERDICTS,
    LIFE_ROWS,
    LIFE_PAIRS,
    LIFE_DROPPED,
    LIFE_DROPPED_BEFORE,
    LIFE_UNSAMPLED,
    LIFE_SETS,
    LIFE_OWN_ROW = LIFE_SETS
};

// Collective. Opens every set; one that is not there is empty. run_dir is borrowed until life_free.
Err life_open(Life **out, const char *run_dir) ERR_MUST_CHECK;
void life_free(Life *l);                // NULL is fine
RecordSet *life_set(Life *l, int set);  // owned by l

// Local. The only thing whose id begins with `prefix` (hex digits, lower case): its id and what it is. ERR_NOINPUT: none is,
// ERR_USAGE: several are.
Err life_find(Life *l, const char *prefix, int *what, Id *id) ERR_MUST_CHECK;
// Local. All about it, appended. what: LIFE_PROMPTS, LIFE_SAMPLES, LIFE_ROWS, LIFE_PAIRS or LIFE_OWN_ROW.
Err life_tell(Life *l, int what, Id id, Str *out) ERR_MUST_CHECK;
// Local. A sample without its prompt, appended.
Err life_tell_answer(Life *l, Id sample, Str *out) ERR_MUST_CHECK;

#endif
