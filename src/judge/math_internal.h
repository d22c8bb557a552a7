// SPDX-License-Identifier: Apache-2.0
// Shared by the strict math judge (math.c) and the evaluation protocol (math_fuseeval.c).
#ifndef IMF_JUDGE_MATH_INTERNAL_H
#define IMF_JUDGE_MATH_INTERNAL_H

#include "judge/judge.h"

typedef enum MathFound { FOUND_BOX, FOUND_OPEN_BOX, FOUND_SENTENCE, FOUND_NUMBER } MathFound;

Err math_find(const char *answer, Str *out, MathFound *how) ERR_MUST_CHECK;   // spec 6.6's extraction, and by which rule
Err math_gold(const char *gold, Str *out) ERR_MUST_CHECK;                     // "#### 42", a boxed solution or the bare answer
Err math_compare(const char *gold, const char *answer, bool *equal) ERR_MUST_CHECK;  // strict, of two final answers
void math_keep(Verdict *v, const char *text);                                 // extracted, cut at a character

#endif
