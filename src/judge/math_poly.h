// SPDX-License-Identifier: Apache-2.0
// Exact expressions: quotients of sums of terms q * a1^e1 * a2^e2 ... with rational q (GMP) over atoms: prime numbers with
// a fractional exponent (sqrt(6) is 2^(1/2) 3^(1/2)), pi, e, i, infinity, variables, and opaque functions of other expressions.
// Monomials of prime powers with exponents in [0,1) are linearly independent over the rationals (Besicovitch 1940), so two
// such expressions are equal exactly when their normal forms are; for opaque atoms only "equal" can be proved that way.
//
// Everything lives in one pool per comparison; functions return NULL when the expression is beyond the limits, with the
// reason in pool->why (the judge then says "undecided"), or when memory is out (pool->err). NULL arguments give NULL.
#ifndef IMF_JUDGE_MATH_POLY_H
#define IMF_JUDGE_MATH_POLY_H

#include <complex.h>
#include <gmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"

enum {
    MATH_BYTES = 4096,      // longest answer looked at (PRS-4)
    MATH_DEPTH = 64,        // nesting
    MATH_BITS = 330000,     // a result has at most 1e5 digits: 9^9^9 is refused before it is computed
    MATH_TERMS = 512,       // terms of one sum
    MATH_FACTORS = 12,      // factors of one term
    MATH_ATOMS = 64,        // different atoms of one comparison
    MATH_WORK = 200000,     // term operations of one comparison
    MATH_FACTORIAL = 5000
};

typedef enum AtomKind { ATOM_PRIME, ATOM_PI, ATOM_E, ATOM_I, ATOM_INFINITY, ATOM_VAR, ATOM_OPAQUE } AtomKind;

typedef struct Atom {
    AtomKind kind;
    const char *key;       // unique name
    mpz_t prime;           // ATOM_PRIME
    double complex value;  // for the numeric check; variables have an arbitrary fixed value
    bool constant;         // no variable inside
} Atom;

typedef struct Factor {
    int atom;
    int num, den;  // exponent, lowest terms, den > 0
} Factor;

typedef struct Term {
    mpq_t coef;  // not zero
    int n;
    Factor f[MATH_FACTORS];  // ascending atom
} Term;

typedef struct Poly {
    int n;  // 0: zero
    Term *t;  // sorted
    struct Poly *next;  // of the pool
} Poly;

typedef struct Ratio {
    const Poly *num, *den;
} Ratio;

typedef struct MathPool {
    Arena arena;
    Poly *all;
    Atom atoms[MATH_ATOMS];
    int n_atoms;
    int64_t work;
    const char *why;  // static text: first reason why this cannot be decided
    Err err;
} MathPool;

void math_pool_free(MathPool *p);
// Remembers the first reason; returns NULL.
void *math_give_up(MathPool *p, const char *why);

const Ratio *math_number(MathPool *p, const mpq_t q);
const Ratio *math_integer(MathPool *p, long v);
const Ratio *math_symbol(MathPool *p, AtomKind kind, const char *name);
const Ratio *math_add(MathPool *p, const Ratio *a, const Ratio *b);
const Ratio *math_sub(MathPool *p, const Ratio *a, const Ratio *b);
const Ratio *math_mul(MathPool *p, const Ratio *a, const Ratio *b);
const Ratio *math_div(MathPool *p, const Ratio *a, const Ratio *b);
const Ratio *math_pow(MathPool *p, const Ratio *a, const Ratio *b);
const Ratio *math_root(MathPool *p, const Ratio *a, long n);
const Ratio *math_factorial(MathPool *p, const Ratio *a);
const Ratio *math_function(MathPool *p, const char *name, const Ratio *arg);  // opaque

bool math_is_rational(const Ratio *r, mpq_t out);      // a plain rational number? (out is set when so)
bool math_is_zero(const Ratio *r);
bool math_is_constant(const MathPool *p, const Ratio *r);   // without variables
bool math_has_atom(const MathPool *p, const Ratio *r, AtomKind kind);
double complex math_value(const MathPool *p, const Ratio *r);

#endif
