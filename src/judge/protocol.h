// SPDX-License-Identifier: Apache-2.0
// Benchmark protocols: how a benchmark's rows become prompts, and how it decodes. A recipe names one in
// eval.sets[].protocol; without a name a row is put as it stands, like the training prompts.
//
//   gsm8k   spec 6.6 (the Qwen2.5-Math evaluation tree): system message "Please reason step by step, and put your final
//           answer within \boxed{}."; question stripped, with " (True or False)" or " (Yes or No)" behind it when the
//           gold answer is one of these; greedy, at most 2,048 new tokens. One call a prompt: an answer that ends in a
//           program is final (the original would run it and go on, up to four times; rare).
#ifndef IMF_JUDGE_PROTOCOL_H
#define IMF_JUDGE_PROTOCOL_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/hash.h"

typedef struct Protocol {
    const char *name;
    const char *system;      // system message, or NULL
    bool greedy;             // else the recipe's temperature and top_p
    int64_t max_new_tokens;  // 0: the recipe's
    bool fuseeval;           // math is judged by the published rules (math_judge_fuseeval), else strictly
} Protocol;

// "" is the plain one. ERR_RECIPE naming the choices when there is none of that name.
Err protocol_find(const char *name, const Protocol **out) ERR_MUST_CHECK;

// A benchmark row as the data of a prompt record (text/prompt.h), changed as the protocol wants. *id is that of the prompt as
// it stands in the file. *data: new reference; *unfit as prompt_import gives it. ERR_DATA for checks that cannot be graded.
Err protocol_import(const Protocol *p, const json_t *row, const char *kind, const char *dataset, const char *where,
                    json_t **data, Id *id, const char **unfit) ERR_MUST_CHECK;

#endif
