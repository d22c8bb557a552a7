// SPDX-License-Identifier: Apache-2.0
// The parts of imf compare: what is said and in which order (compare.c), record sets and lines of JSON (compare_sets.c), models
// and reference log-probs (compare_models.c). Not for other stages. All local: rank 0 works, nothing is written.
#ifndef IMF_STAGE_COMPARE_PARTS_H
#define IMF_STAGE_COMPARE_PARTS_H

#include <jansson.h>

#include "base/io.h"

typedef struct Compare {
    const char *a, *b;  // the two directories
    Str lines;          // one a part, in pipeline order
    Str first;          // the first part that differs, and how
    Str recipe;         // the first key that differs, and how many
    int64_t same, different;
} Compare;

// A part is the same, or it differs. fmt: how.
Err compare_same(Compare *c, const char *part, const char *fmt, ...) ERR_MUST_CHECK __attribute__((format(printf, 3, 4)));
Err compare_differs(Compare *c, const char *part, const char *fmt, ...) ERR_MUST_CHECK __attribute__((format(printf, 3, 4)));
// Both paths of DIR/name. True when both are there; one alone is a difference, none is nothing.
Err compare_paths(Compare *c, const char *name, char a[IO_PATH], char b[IO_PATH], bool *both) ERR_MUST_CHECK;

enum { COMPARE_VALUE = 80 };  // bytes of a value that are shown, and the NUL
// The first field in which two JSON values differ ("chosen.ids[3]"), and both values, shortened.
typedef struct Field {
    char path[256], a[COMPARE_VALUE], b[COMPARE_VALUE];
} Field;
// False: they are equal.
bool compare_json(const json_t *a, const json_t *b, Field *out);

// Record sets of the same name below run_a and run_b.
Err compare_set(Compare *c, const char *run_a, const char *run_b, const char *set_a, const char *set_b) ERR_MUST_CHECK;
// The lines of one stage in both metrics.jsonl.
Err compare_metrics(Compare *c, const char *stage) ERR_MUST_CHECK;
// Two model directories: configuration and tokenizer files, then the weights.
Err compare_models(Compare *c, const char *part, const char *a, const char *b) ERR_MUST_CHECK;
Err compare_refs(Compare *c) ERR_MUST_CHECK;

#endif
