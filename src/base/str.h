// SPDX-License-Identifier: Apache-2.0
// Str: a growable byte string that is always NUL-terminated. Zero-initialise; release with str_free.
#ifndef IMF_BASE_STR_H
#define IMF_BASE_STR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

typedef struct Str {
    char *p;      // owned; NULL while nothing was added
    int64_t len;  // bytes without the NUL
    int64_t cap;
} Str;

Err str_add(Str *s, const char *bytes, int64_t n) ERR_MUST_CHECK;
Err str_puts(Str *s, const char *text) ERR_MUST_CHECK;
Err str_printf(Str *s, const char *fmt, ...) ERR_MUST_CHECK __attribute__((format(printf, 2, 3)));
void str_clear(Str *s);  // length 0, memory kept
void str_free(Str *s);
const char *str_text(const Str *s);  // never NULL

bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);

// Number of edits (insert, delete, replace) between two short strings; for "did you mean".
int str_distance(const char *a, const char *b);

#endif
