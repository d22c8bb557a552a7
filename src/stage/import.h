// SPDX-License-Identifier: Apache-2.0
// A user's own answers instead of the select and sample stages: JSONL of {prompt, source, answer}, optionally with score,
// verdict, k, and what prompts may say (kind, dataset, gold, tests, checks). Layouts of the prompt: text/prompt.h.
#ifndef IMF_STAGE_IMPORT_H
#define IMF_STAGE_IMPORT_H

#include "base/deck.h"
#include "base/err.h"

// Collective. Where the recipe says samples.path, fills the record sets prompts and samples, and scores and verdicts when
// the rows have them; nothing when that was done before. ERR_DATA with file and line.
Err import_samples(const Deck *deck, const char *run_dir) ERR_MUST_CHECK;

#endif
