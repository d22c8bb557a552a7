// SPDX-License-Identifier: Apache-2.0
// libFuzzer: gold and answer, separated by a NUL. Extraction and both judges end in time with one of three verdicts; the strict
// one is never right one way round and wrong the other (PRS-4, PRS-6).
#include <time.h>

#include "fuzz.h"
#include "judge/judge.h"
#include "judge/math_internal.h"

enum { SECONDS = 20 };  // CPU time of one pair under sanitizers

static void judge(Err (*f)(const char *, const char *, Verdict *), const char *gold, const char *answer, Verdict *v)
{
    Err err = f(gold, answer, v);
    WANT_GOOD_ERROR(err, "gold answer is empty");
    if (err != OK) *v = (Verdict){.outcome = VERDICT_UNDECIDED};
    WANT(v->outcome == VERDICT_RIGHT || v->outcome == VERDICT_WRONG || v->outcome == VERDICT_UNDECIDED);
    WANT(err != OK || v->grade == (v->outcome == VERDICT_RIGHT));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size ? memchr(data, '\0', size) : NULL;
    size_t n = nul ? (size_t)(nul - data) : size;
    char *gold = fuzz_string(data, n), *answer = fuzz_string(data + (nul ? n + 1 : n), nul ? size - n - 1 : 0);
    Verdict v;
    Str text = {0};
    clock_t began = clock();
    WANT(math_extract(answer, &text) == OK);
    judge(math_judge, gold, answer, &v);
    judge(math_judge_fuseeval, gold, answer, &v);
    bool one = false, other = false;
    if (*gold && *answer && size < 2048) {
        WANT(math_compare(gold, answer, &one) == OK && math_compare(answer, gold, &other) == OK);
        WANT(one == other);
    }
    WANT((clock() - began) / CLOCKS_PER_SEC < SECONDS);
    str_free(&text);
    free(gold);
    free(answer);
    return 0;
}
