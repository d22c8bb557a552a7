// SPDX-License-Identifier: Apache-2.0
// Graded instruction checks, in the manner of IFEval (Zhou et al. 2023): a prompt carries an array of objects
//     {"kind": "...", <arguments>, "weight": 1.0}
// and the grade of an answer is the weight of the checks that it meets over the weight of all (weight: optional, default
// 1, > 0). Everything is decided by comparing text, so a check is never undecided. Checks label and evaluate; no stage
// from select to dpo uses them.
//
// The answer is trimmed of white space at both ends first. Comparison is byte by byte (case counts) unless the check
// carries "ignore_case": true (ASCII letters), which is understood by every kind that has `text`, `texts` or `items`.
//
//   KIND            ARGUMENTS                 MET WHEN
//   starts_with     text                      the answer begins with text
//   ends_with       text                      the answer ends with text
//   contains        text [min, max]           text occurs min (default 1) to max (default: any) times, not overlapping
//   not_contains    text | texts[]            none of them occurs
//   contains_any    texts[]                   at least one occurs
//   contains_all    texts[]                   each occurs
//   equals          text                      the answer is text
//   equals_content  text                      text occurs somewhere, not inside a longer word or number: the characters
//                                             around it are no ASCII letters or digits where text's own end is one
//   no_char         chars                     no character of chars occurs (characters are Unicode code points)
//   only_char       chars                     every character of the answer is in chars
//   word_count      min and/or max            number of words (separated by white space) is in min..max
//   word_count_max  n                         at most n words
//   word_count_min  n                         at least n words
//   line_count      min and/or max            number of lines that are not blank
//   char_count      min and/or max            number of characters (code points)
//   order           items[]                   all items occur, each after the end of the one before
//   case            value: upper | lower      no ASCII letter of the other case occurs
#ifndef IMF_JUDGE_CHECKS_H
#define IMF_JUDGE_CHECKS_H

#include <jansson.h>

#include "base/err.h"

enum { CHECKS_MAX = 256 };  // checks of one prompt

// Is `checks` an array of known checks with proper arguments? Local; ERR_DATA names `where`, the check's number and the
// nearest kind. Before answers are drawn that could not be graded.
Err checks_validate(const json_t *checks, const char *where) ERR_MUST_CHECK;

#endif
