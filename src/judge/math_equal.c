// SPDX-License-Identifier: Apache-2.0
// Equality of parsed answers. "Yes" is only said for identical text or a proof (the difference is zero in normal form); "no"
// only for a proof or a numeric gap far beyond rounding; everything else is unsure. So an unknown notation can cost a verdict
// but never make a wrong answer right.
#include "judge/math_equal.h"

#include <ctype.h>
#include <math.h>
#include <string.h>
#include <strings.h>

// Relative gap that rounding of double arithmetic on our short expressions (under 4,096 operations, each 2^-53) cannot make,
// unless terms cancel: then the sizes of a and b shrink too and the verdict is "unsure" or exact.
#define GAP 1e-9

static Match unsure(const char **why, const char *text)
{
    if (!*why) *why = text;
    return MATCH_UNSURE;
}

// ---- scalars ----------------------------------------------------------------------------------------------------------

static Match numeric_gap(MathPool *p, const Value *a, const Value *b, const char **why)
{
    double complex x = math_value(p, a->r), y = math_value(p, b->r);
    double size = fmax(cabs(x), cabs(y)), gap = cabs(x - y);
    if (!isfinite(size) || !isfinite(gap)) return unsure(why, "no numeric value");
    return gap > GAP * size && gap > 1e-12 ? MATCH_NO : unsure(why, "numerically close but not proven equal");
}

// An answer rounded to its decimals (3.33 for 10/3) is neither right nor wrong here.
static bool rounded(MathPool *p, const Value *a, const Value *b)
{
    const Value *d = a->decimals > 0 ? a : b, *other = d == a ? b : a;
    if (d->decimals <= 0 || other->decimals >= 0) return false;
    return cabs(math_value(p, a->r) - math_value(p, b->r)) <= 0.5000001 * pow(10, -d->decimals);
}

// Is r = q * (symbols) with the constant q of other? Then "5 m" against 5 may be a unit written as a symbol.
static bool differs_by_symbols(MathPool *p, const Value *a, const Value *b)
{
    bool ca = math_is_constant(p, a->r), cb = math_is_constant(p, b->r);
    if (ca == cb) return false;
    const Ratio *with = ca ? b->r : a->r, *q = ca ? a->r : b->r;
    if (with->num->n != 1 || with->den->n != 1) return false;
    mpq_t x, y;
    mpq_init(x);
    mpq_init(y);
    mpq_div(x, with->num->t[0].coef, with->den->t[0].coef);
    bool same = math_is_rational(q, y) && mpq_equal(x, y);
    mpq_clear(x);
    mpq_clear(y);
    return same;
}

static Match match_values(MathPool *p, const Value *a, const Value *b, const char **why)
{
    const Ratio *d = math_sub(p, a->r, b->r);
    mpq_t x;
    if (!d) return unsure(why, p->why ? p->why : "too complex");
    if (math_is_zero(d)) return MATCH_YES;
    if (rounded(p, a, b)) return unsure(why, "a rounded decimal");
    if (a->degrees != b->degrees && (math_has_atom(p, a->r, ATOM_PI) || math_has_atom(p, b->r, ATOM_PI)))
        return unsure(why, "degrees against radians");
    mpq_init(x);
    bool rational = math_is_rational(a->r, x) && math_is_rational(b->r, x);
    mpq_clear(x);
    if (rational) return MATCH_NO;
    if (differs_by_symbols(p, a, b)) return unsure(why, "a symbol or a unit");
    bool opaque = math_has_atom(p, d, ATOM_OPAQUE), constant = math_is_constant(p, d);
    if (!opaque && !constant) return MATCH_NO;  // different polynomials or rational functions
    return numeric_gap(p, a, b, why);
}

// Percent: p% is p/100; written against a bare number, p itself is meant too, but only clearly so above 1.
static Match match_percent(MathPool *p, const Value *percent, const Value *plain, const char **why)
{
    Value hundredth = *percent;
    hundredth.r = math_div(p, percent->r, math_integer(p, 100));
    if (!hundredth.r) return unsure(why, "too complex");
    if (match_values(p, &hundredth, plain, why) == MATCH_YES) return MATCH_YES;
    Match m = match_values(p, percent, plain, why);
    if (m == MATCH_YES && cabs(math_value(p, percent->r)) <= 1) return unsure(why, "percent or fraction");
    return m;
}

static bool same_unit(const char *a, const char *b)
{
    for (;;) {
        while (*a && !isalnum((unsigned char)*a)) a++;
        while (*b && !isalnum((unsigned char)*b)) b++;
        if (*a == 's' && !isalpha((unsigned char)a[1]) && *b != 's') a++;
        else if (*b == 's' && !isalpha((unsigned char)b[1]) && *a != 's') b++;
        else if (!*a || !*b) return *a == *b;
        else if (tolower((unsigned char)*a++) != tolower((unsigned char)*b++)) return false;
    }
}

static Match match_scalar(MathPool *p, const Value *a, const Value *b, const char **why)
{
    if (a->unit[0] && b->unit[0] && !same_unit(a->unit, b->unit)) return unsure(why, "different units");
    if (a->percent && !b->percent) return match_percent(p, a, b, why);
    if (b->percent && !a->percent) return match_percent(p, b, a, why);
    return match_values(p, a, b, why);
}

// ---- words --------------------------------------------------------------------------------------------------------------

// Letters and digits, lower case, into buf; false when it does not fit.
static bool fold(const char *s, char *buf, size_t size)
{
    size_t n = 0;
    for (; *s; s++) {
        if (!isalnum((unsigned char)*s) && (unsigned char)*s < 0x80) continue;
        if (n + 1 >= size) return false;
        buf[n++] = (char)tolower((unsigned char)*s);
    }
    buf[n] = '\0';
    return n > 0;
}

static Match match_words(const Value *a, const Value *b, const char **why)
{
    char x[256], y[256];
    if (!fold(a->plain, x, sizeof x) || !fold(b->plain, y, sizeof y)) return unsure(why, "text");
    bool words = a->kind == VALUE_WORDS && b->kind == VALUE_WORDS, letters = strlen(x) == 1 && strlen(y) == 1;
    if ((words || letters) && !strcmp(x, y)) return MATCH_YES;
    if (letters && isalpha((unsigned char)x[0]) && isalpha((unsigned char)y[0])) return MATCH_NO;
    // one phrase inside the other ("east" / "due east") may be the same answer
    return words && !strstr(x, y) && !strstr(y, x) ? MATCH_NO : unsure(why, "words against a formula or another phrase");
}

// ---- several values --------------------------------------------------------------------------------------------------------

static Match match_in_order(MathPool *p, const Value *a, const Value *b, const char **why)
{
    Match all = MATCH_YES;
    for (int i = 0; i < a->n; i++) {
        Match m = math_match(p, a->item[i], b->item[i], why);
        if (m == MATCH_NO) return MATCH_NO;
        if (m == MATCH_UNSURE) all = MATCH_UNSURE;
    }
    return all;
}

// Each item of a pairs with an item of b of its own. A clear no for an item of a is a no for all.
static Match match_any_order(MathPool *p, const Value *a, const Value *b, const char **why)
{
    bool used[VALUE_ITEMS] = {false}, doubt = false;
    int paired = 0;
    for (int i = 0; i < a->n; i++) {
        bool found = false, maybe = false;
        for (int j = 0; j < b->n && !found; j++) {
            Match m = used[j] ? MATCH_NO : math_match(p, a->item[i], b->item[j], why);
            if (m == MATCH_YES) used[j] = found = true;
            maybe = maybe || m == MATCH_UNSURE;
        }
        paired += found;
        if (!found && !maybe) return MATCH_NO;
        doubt = doubt || !found;
    }
    return paired == a->n && !doubt ? MATCH_YES : unsure(why, "some items are not decided");
}

static Match match_lists(MathPool *p, const Value *a, const Value *b, const char **why)
{
    if (a->n != b->n) {
        // 1, 1, 2 may be meant as the set of 1 and 2
        return a->kind == VALUE_TUPLE ? MATCH_NO : unsure(why, "another number of items");
    }
    bool any = a->kind == VALUE_SET || a->kind == VALUE_UNION || a->any_order || b->any_order;
    if (any) return match_any_order(p, a, b, why);
    if (a->kind == VALUE_TUPLE && (a->open != b->open || a->close != b->close)) {
        Match m = match_in_order(p, a, b, why);
        return m == MATCH_YES ? unsure(why, "other brackets") : m;
    }
    Match m = match_in_order(p, a, b, why);
    if (m != MATCH_NO || a->kind != VALUE_LIST) return m;
    return match_any_order(p, a, b, why) == MATCH_YES ? unsure(why, "the same items in another order") : MATCH_NO;
}

// lhs = rhs describe the same curve when their differences are proportional; lines that are not are different.
static Match match_equations(MathPool *p, const Value *a, const Value *b, const char **why)
{
    for (int i = 0; i < 2; i++)
        if (a->item[i]->kind != VALUE_SCALAR || b->item[i]->kind != VALUE_SCALAR) return unsure(why, "an equation that is not understood");
    const Ratio *x = math_sub(p, a->item[0]->r, a->item[1]->r), *y = math_sub(p, b->item[0]->r, b->item[1]->r);
    if (!x || !y || math_is_constant(p, x) || math_is_constant(p, y)) return unsure(why, "an equation that is not understood");
    if (x->den->n != 1 || y->den->n != 1 || x->den->t[0].n || y->den->t[0].n) return unsure(why, "an equation with a quotient");
    // both normal forms begin with the same monomial, if they are proportional at all: cross-multiply by the leading coefficients
    mpq_t lead;
    mpq_init(lead);
    mpq_div(lead, y->num->t[0].coef, y->den->t[0].coef);
    const Ratio *left = math_mul(p, x, math_number(p, lead));
    mpq_div(lead, x->num->t[0].coef, x->den->t[0].coef);
    const Ratio *rest = math_sub(p, left, math_mul(p, y, math_number(p, lead)));
    mpq_clear(lead);
    bool same = rest && math_is_zero(rest);
    if (same) return MATCH_YES;
    return unsure(why, "equations that are not multiples of each other");
}

static bool is_words(const Value *v)
{
    return v->kind == VALUE_WORDS || (v->kind == VALUE_SCALAR && strlen(v->plain) <= 3 && isalpha((unsigned char)v->plain[v->plain[0] == '(']));
}

Match math_match(MathPool *p, const Value *a, const Value *b, const char **why)
{
    if (p->work > MATH_WORK) return unsure(why, "too complex");
    if (a->name[0] && b->name[0] && strcmp(a->name, b->name)) return unsure(why, "different names on the left side");
    if (a->plain[0] && !strcmp(a->plain, b->plain)) return MATCH_YES;
    if ((a->kind == VALUE_WORDS || b->kind == VALUE_WORDS) && is_words(a) && is_words(b)) return match_words(a, b, why);
    if (a->kind == VALUE_UNKNOWN) return unsure(why, a->why);
    if (b->kind == VALUE_UNKNOWN) return unsure(why, b->why);
    if (a->kind == b->kind) {
        switch (a->kind) {
        case VALUE_SCALAR: return match_scalar(p, a, b, why);
        case VALUE_WORDS: return match_words(a, b, why);
        case VALUE_EQUATION: return match_equations(p, a, b, why);
        case VALUE_MATRIX:
            if (a->rows != b->rows || a->cols != b->cols) return unsure(why, "another shape");
            return match_in_order(p, a, b, why);
        default: return match_lists(p, a, b, why);
        }
    }
    if ((a->kind == VALUE_LIST && b->kind == VALUE_SET) || (a->kind == VALUE_SET && b->kind == VALUE_LIST))
        return a->n == b->n ? match_any_order(p, a, b, why) : unsure(why, "another number of items");
    return unsure(why, "different kinds of answer");
}
