// SPDX-License-Identifier: Apache-2.0
// Verdicts on answers: math equality, code against tests, graded instruction checks. Three-valued: undecided never makes
// a rejected answer and never counts as wrong silently.
#ifndef IMF_JUDGE_JUDGE_H
#define IMF_JUDGE_JUDGE_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"

typedef enum Outcome { VERDICT_WRONG = 0, VERDICT_RIGHT = 1, VERDICT_UNDECIDED = 2 } Outcome;

typedef struct Verdict {
    Outcome outcome;
    double grade;       // 0..1: share of checks met (checks judge), else 0 or 1
    char reason[256];   // "equal", "different", "no answer found", "test 2: got 3, expected 4", "cpu", "wall" ...
    char extracted[512];// math: extracted answer; code: first 511 bytes of the program
    bool weak;          // code: some test ran in the candidate's process
    double cpu_s;       // code: CPU seconds of the run (goes into the record's `run`)
} Verdict;

// Math: finds the final answer in `answer` (spec 6.6) and compares it with gold (which may be a bare answer, a solution with
// \boxed{} or GSM8K's "... #### 42"). math_judge is strict and three-valued: "right" only with identical text or an exact
// proof. math_judge_fuseeval is the published evaluation protocol, two-valued, with its quirks (a hundredth or hundredfold of
// gold passes, relative tolerance 1e-4): for `imf eval` alone. *out of math_extract is empty when there is no answer.
Err math_extract(const char *answer, Str *out) ERR_MUST_CHECK;
Err math_judge(const char *gold, const char *answer, Verdict *out) ERR_MUST_CHECK;
Err math_judge_fuseeval(const char *gold, const char *answer, Verdict *out) ERR_MUST_CHECK;

// Instruction checks: spec is the prompt record's "checks" array, see judge/checks.c for the kinds.
Err checks_judge(const json_t *checks, const char *answer, const char *where, Verdict *out) ERR_MUST_CHECK;

// Code. The supervisor process must be started before MPI_Init (it forks); it starts candidates from a warm python3.
// tests: array of strings (assert lines or a block). ERR_UNAVAILABLE when this machine has no sandbox tier or no python3.
typedef struct SandboxLimits {
    double cpu_s;        // CPU-time limit of a candidate; default 2
    int64_t memory;      // bytes; default 1 GiB
    int64_t output;      // bytes kept per stream; default 64 KiB
} SandboxLimits;
Err sandbox_start(void) ERR_MUST_CHECK;              // before MPI_Init; cheap: probes and starts lazily
Err sandbox_stop(void) ERR_MUST_CHECK;
Err sandbox_describe(Str *out) ERR_MUST_CHECK;       // tier, Landlock ABI, seccomp, python version
Err code_extract(const char *answer, Str *out) ERR_MUST_CHECK;  // first python fence, else any fence, else the text
Err code_judge(const char *program, const json_t *tests, const SandboxLimits *limits, Verdict *out) ERR_MUST_CHECK;

#endif
