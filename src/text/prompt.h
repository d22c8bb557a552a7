// SPDX-License-Identifier: Apache-2.0
// Prompts as users have them, brought into one form: the data of a prompt record.
//
//   {"messages": [{"role", "content"}, ...], "kind": "math" | "code" | "if", "dataset": "...",
//    "gold": "42" (math) | "tests": ["assert f(1) == 2", ...] (code) | "checks": [...] (if, where graded)}
//
// The prompt's id is the hash of the canonical JSON of `messages` and of nothing else.
#ifndef IMF_TEXT_PROMPT_H
#define IMF_TEXT_PROMPT_H

#include <jansson.h>

#include "base/err.h"
#include "base/hash.h"
#include "text/chat.h"

// Layouts that are understood, told apart by their keys:
//   {"messages": [..]}             a trailing assistant turn is left out
//   {"prompt": "..." | [messages]}
//   {"question", "answer"}         GSM8K: gold is what follows ####
//   {"problem", "answer" | "expected_answer"}   MATH, OpenMathInstruct
//   {"text", "test_list"}          MBPP: the tests are shown in the prompt
//   {"instruction", "input"}       Alpaca: joined by a line feed
// Besides these, a row may say "kind", "dataset", "gold", "tests" and "checks" itself. kind "auto" (or NULL) and an empty
// dataset leave the decision to the row; without any hint the kind is "if".
//
// *data: new reference. *unfit: NULL, or why the row cannot serve ("no gold answer", "no tests"); *data and *id are set all
// the same. ERR_DATA (with `where`) when the row has none of the layouts or a field has the wrong type.
Err prompt_import(const json_t *row, const char *kind, const char *dataset, const char *where, json_t **data, Id *id,
                  const char **unfit) ERR_MUST_CHECK;

// The messages of a prompt record (or of any object with "messages"), texts borrowed from `data`. *out is the caller's
// (mem_free).
Err prompt_messages(const json_t *data, const char *where, Message **out, int64_t *n) ERR_MUST_CHECK;

#endif
