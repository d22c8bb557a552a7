// SPDX-License-Identifier: Apache-2.0
// From the text of a final answer to a value: scalar, list, tuple or interval, set, union, matrix, equation or words.
#ifndef IMF_JUDGE_MATH_PARSE_H
#define IMF_JUDGE_MATH_PARSE_H

#include "base/str.h"
#include "judge/math_poly.h"

typedef enum ValueKind {
    VALUE_SCALAR,
    VALUE_WORDS,     // letters only: "Tuesday", "(C)", "even"
    VALUE_UNKNOWN,   // not understood: `why` says how far
    VALUE_LIST,      // 1, 2 and 3
    VALUE_TUPLE,     // (1, 2], [0, 3): point or interval; open and close are the brackets
    VALUE_SET,       // \{1, 2\}
    VALUE_UNION,     // pieces joined by \cup
    VALUE_MATRIX,    // rows x cols items
    VALUE_EQUATION   // item[0] = item[1]
} ValueKind;

enum { VALUE_ITEMS = 64 };

typedef struct Value {
    ValueKind kind;
    const char *plain;      // normalised text without spaces and quotes
    const char *why;        // VALUE_UNKNOWN
    const Ratio *r;         // VALUE_SCALAR
    const char *unit;       // text after the number; "" when there is none
    const char *name;       // left side of "x = ..."; "" when there is none
    int decimals;           // digits after the point of a plain decimal number, else -1
    bool percent, degrees;
    bool any_order;         // list made from \pm
    char open, close;
    int n, rows, cols;
    struct Value **item;
} Value;

// One spelling: spaces, \left, \dfrac, $, thousands marks and Unicode signs are normalised; \text{..} becomes "..".
// Set braces become the bytes 1 and 2. Local; fails only without memory.
Err math_normalize(const char *s, int64_t n, Str *out) ERR_MUST_CHECK;

// Parses normalised text. *out lives in the pool. What is not understood is a VALUE_UNKNOWN, not an error.
Err math_parse(MathPool *p, const char *normal, Value **out) ERR_MUST_CHECK;

// A scalar expression; NULL, with p->why, when it is not one. v receives percent, degrees, unit, decimals.
const Ratio *math_parse_scalar(MathPool *p, const char *s, int64_t n, int depth, Value *v);

#endif
