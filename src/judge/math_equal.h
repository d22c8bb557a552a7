// SPDX-License-Identifier: Apache-2.0
// Three-valued equality of parsed answers.
#ifndef IMF_JUDGE_MATH_EQUAL_H
#define IMF_JUDGE_MATH_EQUAL_H

#include "judge/math_parse.h"

typedef enum Match { MATCH_NO, MATCH_YES, MATCH_UNSURE } Match;

// *why (static or pool text) is set for MATCH_UNSURE.
Match math_match(MathPool *p, const Value *gold, const Value *answer, const char **why);

#endif
