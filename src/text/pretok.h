// SPDX-License-Identifier: Apache-2.0
// Pre-tokenizer: cuts text into the pieces that BPE works on, by the steps of tokenizer.json's pre_tokenizer.
//
// Each step cuts every piece of the step before; a pattern sees its piece alone (look-around ends at its borders). Patterns
// are run by PCRE2 (UTF, UCP, JIT where the system allows it). tokenizer.json means Oniguruma's syntax; what differs is
// translated (\s is White_Space) or refused (\h, ^, $, nested classes), so that no pattern silently means another thing.
// Drawback: letters and digits are those of the PCRE2 at hand (10.42: Unicode 14), those of `tokenizers` 0.23 of Unicode 16, so
// younger characters may be cut in other places than there (120 digits are); its NFC is Unicode 9's, ours utf8proc's (2.8: 15).
// Limits (PRS-4): 100,000 matching steps + 16 for every byte of the piece, 20 MiB of heap: beyond, ERR_DATA.
#ifndef IMF_TEXT_PRETOK_H
#define IMF_TEXT_PRETOK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum { PRETOK_STEPS = 16, PRETOK_PATTERN_BYTES = 65536 };

// What becomes of the matches (names of tokenizer.json).
typedef enum PretokBehavior { PRE_ISOLATED, PRE_REMOVED, PRE_MERGED_PREVIOUS, PRE_MERGED_NEXT, PRE_CONTIGUOUS } PretokBehavior;

typedef struct PretokStep {
    struct pcre2_real_code_8 *code;  // NULL: put a space in front of a piece that has none (add_prefix_space)
    PretokBehavior behavior;
    bool invert;                     // matches are the gaps between the pattern's matches
} PretokStep;

typedef struct Pretok {
    PretokStep step[PRETOK_STEPS];
    int n;
} Pretok;

typedef struct PretokRun PretokRun;  // working space of one caller

typedef Err (*PretokPiece)(void *user, const char *p, int64_t n);

// literal: the pattern is plain text. ERR_DATA with the place when it is no pattern.
Err pretok_add_split(Pretok *p, const char *pattern, int64_t n, bool literal, PretokBehavior behavior,
                     bool invert) ERR_MUST_CHECK;
Err pretok_add_prefix_space(Pretok *p) ERR_MUST_CHECK;
void pretok_free(Pretok *p);

Err pretok_open(PretokRun **out) ERR_MUST_CHECK;
void pretok_close(PretokRun *run);

// Calls f for each piece of n bytes of valid UTF-8, in order; no piece is empty.
Err pretok_run(const Pretok *p, PretokRun *run, const char *text, int64_t n, PretokPiece f, void *user) ERR_MUST_CHECK;

// The pattern as PCRE2 wants it (for tests).
Err pretok_translate(const char *pattern, int64_t n, Str *out) ERR_MUST_CHECK;

#endif
