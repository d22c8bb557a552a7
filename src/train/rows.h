// SPDX-License-Identifier: Apache-2.0
// Training rows from JSON: the shapes that users' files have, turned into messages and answers.
//
//   SFT    {"messages": [{"role","content"}...]}                    every assistant turn is a target
//          {"conversations": [{"from","value"}...]}                 the same (human/user, gpt/assistant, system)
//          {"instruction", "input", "output"} (+ "system")          input follows the instruction on a new line
//          {"prompt", "completion"} and {"prompt", "chosen", ...}   text or messages; the answer is completion, or chosen
//   pairs  {"prompt", "chosen", "rejected"}                         text or messages
//          {"chosen", "rejected"} with whole conversations           the prompt is what stands before the last message
//          {"conversations", "chosen", "rejected"}                  answers as text or {"from","value"}
//
// A text prompt is one user message: it is rendered with the chat template like any other.
#ifndef IMF_TRAIN_ROWS_H
#define IMF_TRAIN_ROWS_H

#include <jansson.h>

#include "base/arena.h"
#include "base/hash.h"
#include "text/chat.h"

typedef struct Row {
    Id id;                  // hash of messages and answers
    Id group;               // hash of the prompt: held-out splits keep groups together
    Message *m;             // [n] the prompt; or the whole conversation when answers = 0
    int64_t n;
    int answers;            // 0: every assistant message of m is a target; 1: SFT; 2: chosen, rejected
    const char *answer[2];
    Ids ids[2];             // the answers' tokens when known (n = 0: not); arena memory, never released by ids_free
    const char *where;      // "file:line" of a user's row; "" of a record
    bool unfinished[2];     // cut by length when it was sampled: no stop token follows
} Row;

// Messages: a string is one user message; a list of {role, content} or {from, value}. Arena-owned.
Err rows_messages(const json_t *v, const char *where, Arena *a, Message **m, int64_t *n) ERR_MUST_CHECK;

// One row; ERR_DATA names `where` (copied) and what is missing.
Err rows_parse(const json_t *o, const char *where, bool pairs, Arena *a, Row *out) ERR_MUST_CHECK;

// All rows of a JSONL file (or JSON array) in ascending order of id, arena-owned; duplicates (same id) are left out and
// counted, and are in the result's other list. Local.
typedef struct Rows {
    Row *row;
    int64_t n, cap;
    int64_t read, duplicates;
    Row *duplicate;  // [duplicates]
} Rows;
Err rows_import(const char *path, bool pairs, Arena *a, Rows *out) ERR_MUST_CHECK;
void rows_free(Rows *r);

// Fills id and group from the texts.
Err rows_identify(Row *r) ERR_MUST_CHECK;

#endif
