// SPDX-License-Identifier: Apache-2.0
// Exact arithmetic on quotients of polynomials, see math_poly.h. Sums are kept sorted by monomial with like terms joined, so
// a polynomial is zero exactly when it has no terms. Quotients are not reduced: equality is a/b == c/d <=> ad - cb == 0.
// Drawback: no factoring, so opaque functions of differently written arguments are different atoms (then: undecided).
#include "judge/math_poly.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

void *math_give_up(MathPool *p, const char *why)
{
    if (!p->why) p->why = why;
    return NULL;
}

static void *out_of_memory(MathPool *p, Err err)
{
    p->err = err;
    return math_give_up(p, "out of memory");
}

void math_pool_free(MathPool *p)
{
    for (Poly *q = p->all; q; q = q->next)
        for (int i = 0; i < q->n; i++) mpq_clear(q->t[i].coef);
    for (int i = 0; i < p->n_atoms; i++) mpz_clear(p->atoms[i].prime);
    arena_free(&p->arena);
}

// ---- polynomials ----------------------------------------------------------------------------------------------------------

// A polynomial with n terms, all zero; join() must be called on it.
static Poly *poly_new(MathPool *p, int64_t n)
{
    Poly *q;
    if (n > MATH_TERMS * 8 || (p->work += n + 1) > MATH_WORK) return math_give_up(p, "too complex");
    Err err = arena_alloc(&p->arena, &q, 1, sizeof *q);
    if (err == OK) {
        *q = (Poly){0};
        err = arena_alloc(&p->arena, &q->t, n ? n : 1, sizeof *q->t);
    }
    if (err != OK) return out_of_memory(p, err);
    memset(q->t, 0, (size_t)(n ? n : 1) * sizeof *q->t);
    for (int i = 0; i < n; i++) mpq_init(q->t[i].coef);
    q->n = (int)n, q->next = p->all, p->all = q;
    return q;
}

static int compare_terms(const void *va, const void *vb)
{
    const Term *a = va, *b = vb;
    for (int i = 0; i < a->n && i < b->n; i++) {
        const Factor *x = &a->f[i], *y = &b->f[i];
        if (x->atom != y->atom) return x->atom < y->atom ? -1 : 1;
        int64_t d = (int64_t)x->num * y->den - (int64_t)y->num * x->den;
        if (d) return d < 0 ? -1 : 1;
    }
    return (a->n > b->n) - (a->n < b->n);
}

// Sorts, joins like terms, drops zeros. Dropped coefficients are cleared here.
static const Poly *join(MathPool *p, Poly *q)
{
    qsort(q->t, (size_t)q->n, sizeof *q->t, compare_terms);
    int m = 0;
    for (int i = 0; i < q->n; i++) {
        if (m && compare_terms(&q->t[m - 1], &q->t[i]) == 0) {
            mpq_add(q->t[m - 1].coef, q->t[m - 1].coef, q->t[i].coef);
            mpq_clear(q->t[i].coef);
        } else {
            if (m && mpq_sgn(q->t[m - 1].coef) == 0) mpq_clear(q->t[--m].coef);
            q->t[m++] = q->t[i];
        }
    }
    if (m && mpq_sgn(q->t[m - 1].coef) == 0) mpq_clear(q->t[--m].coef);
    q->n = m;
    return m > MATH_TERMS ? math_give_up(p, "too many terms") : q;
}

static size_t bits(const mpq_t q) { return mpz_sizeinbase(mpq_numref(q), 2) + mpz_sizeinbase(mpq_denref(q), 2); }

static int gcd_int(int a, int b) { return b ? gcd_int(b, a % b) : abs(a); }

// coef *= prime^whole. False: beyond the digits limit.
static bool scale(Term *t, const mpz_t prime, int whole)
{
    if (!whole) return true;
    if ((double)mpz_sizeinbase(prime, 2) * abs(whole) > MATH_BITS) return false;
    mpz_t power;
    mpz_init(power);
    mpz_pow_ui(power, prime, (unsigned long)abs(whole));
    mpq_t q;
    mpq_init(q);
    mpq_set_z(q, power);
    if (whole > 0) mpq_mul(t->coef, t->coef, q);
    else mpq_div(t->coef, t->coef, q);
    mpz_clear(power);
    mpq_clear(q);
    return true;
}

// Multiplies t by atom^(num/den), keeping the normal form: prime exponents in [0,1), i to the power 0 or 1.
static bool times_atom(MathPool *p, Term *t, int atom, int64_t num, int64_t den)
{
    int at = 0;
    while (at < t->n && t->f[at].atom < atom) at++;
    bool there = at < t->n && t->f[at].atom == atom;
    int64_t n = there ? (int64_t)t->f[at].num * den + num * t->f[at].den : num, d = there ? t->f[at].den * den : den;
    if (llabs(n) > 1000000 || d > 1000000) return math_give_up(p, "exponent too large");
    const Atom *a = &p->atoms[atom];
    if (a->kind == ATOM_PRIME) {
        int64_t whole = n >= 0 ? n / d : -((-n + d - 1) / d);
        if (!scale(t, a->prime, (int)whole)) return math_give_up(p, "number too large");
        n -= whole * d;
    } else if (a->kind == ATOM_I && d == 1) {
        n = ((n % 4) + 4) % 4;
        if (n >= 2) mpq_neg(t->coef, t->coef), n -= 2;
    }
    if (there) memmove(&t->f[at], &t->f[at + 1], (size_t)(--t->n - at) * sizeof t->f[0]);
    if (!n) return true;
    if (t->n >= MATH_FACTORS) return math_give_up(p, "too many factors");
    memmove(&t->f[at + 1], &t->f[at], (size_t)(t->n++ - at) * sizeof t->f[0]);
    int g = gcd_int((int)n, (int)d);
    t->f[at] = (Factor){atom, (int)n / g, (int)d / g};
    return true;
}

static void copy_term(Term *out, const Term *t)
{
    mpq_set(out->coef, t->coef);
    out->n = t->n;
    memcpy(out->f, t->f, sizeof out->f);
}

static const Poly *poly_add(MathPool *p, const Poly *a, const Poly *b, int sign)
{
    if (!a || !b) return NULL;
    Poly *q = poly_new(p, (int64_t)a->n + b->n);
    if (!q) return NULL;
    for (int i = 0; i < a->n; i++) copy_term(&q->t[i], &a->t[i]);
    for (int i = 0; i < b->n; i++) {
        copy_term(&q->t[a->n + i], &b->t[i]);
        if (sign < 0) mpq_neg(q->t[a->n + i].coef, q->t[a->n + i].coef);
    }
    return join(p, q);
}

static const Poly *poly_mul(MathPool *p, const Poly *a, const Poly *b)
{
    if (!a || !b) return NULL;
    if ((int64_t)a->n * b->n > MATH_TERMS * 8) return math_give_up(p, "too complex");
    Poly *q = poly_new(p, (int64_t)a->n * b->n);
    if (!q) return NULL;
    for (int i = 0; i < a->n; i++)
        for (int j = 0; j < b->n; j++) {
            Term *t = &q->t[i * b->n + j];
            copy_term(t, &a->t[i]);
            if (bits(t->coef) + bits(b->t[j].coef) > 2 * MATH_BITS) return math_give_up(p, "number too large");
            mpq_mul(t->coef, t->coef, b->t[j].coef);
            for (int k = 0; k < b->t[j].n; k++)
                if (!times_atom(p, t, b->t[j].f[k].atom, b->t[j].f[k].num, b->t[j].f[k].den)) return NULL;
        }
    return join(p, q);
}

static const Poly *poly_power(MathPool *p, const Poly *a, long n)
{
    mpq_t one;
    mpq_init(one);
    mpq_set_ui(one, 1, 1);
    const Ratio *unit = math_number(p, one);
    mpq_clear(one);
    const Poly *r = unit ? unit->num : NULL;
    for (; n && r && a; n >>= 1) {
        if (n & 1) r = poly_mul(p, r, a);
        if (n > 1) a = poly_mul(p, a, a);
    }
    return a ? r : NULL;
}

// ---- quotients ----------------------------------------------------------------------------------------------------------

static const Ratio *ratio(MathPool *p, const Poly *num, const Poly *den)
{
    Ratio *r;
    if (!num || !den) return NULL;
    Err err = arena_alloc(&p->arena, &r, 1, sizeof *r);
    if (err != OK) return out_of_memory(p, err);
    *r = (Ratio){num, den};
    return r;
}

static const Poly *poly_number(MathPool *p, const mpq_t v)
{
    Poly *q = poly_new(p, 1);
    if (!q) return NULL;
    mpq_set(q->t[0].coef, v);
    return join(p, q);
}

const Ratio *math_number(MathPool *p, const mpq_t v)
{
    mpq_t one;
    mpq_init(one);
    mpq_set_ui(one, 1, 1);
    const Ratio *r = ratio(p, poly_number(p, v), poly_number(p, one));
    mpq_clear(one);
    return r;
}

const Ratio *math_integer(MathPool *p, long v)
{
    mpq_t q;
    mpq_init(q);
    mpq_set_si(q, v, 1);
    const Ratio *r = math_number(p, q);
    mpq_clear(q);
    return r;
}

// Finds or makes an atom; -1 when there are too many.
static int intern(MathPool *p, AtomKind kind, const char *key)
{
    for (int i = 0; i < p->n_atoms; i++)
        if (p->atoms[i].kind == kind && !strcmp(p->atoms[i].key, key)) return i;
    if (p->n_atoms == MATH_ATOMS) return math_give_up(p, "too many symbols"), -1;
    char *copy;
    Err err = arena_strndup(&p->arena, &copy, key, (int64_t)strlen(key));
    if (err != OK) return out_of_memory(p, err), -1;
    Atom *a = &p->atoms[p->n_atoms];
    *a = (Atom){.kind = kind, .key = copy, .constant = kind != ATOM_VAR};
    mpz_init(a->prime);
    return p->n_atoms++;
}

static double arbitrary(const char *key)  // in (1, 2), a function of the name
{
    uint32_t h = 2166136261u;
    for (; *key; key++) h = (h ^ (unsigned char)*key) * 16777619u;
    return 1.0 + (double)(h >> 8) / 16777216.0;
}

static const Ratio *atom_power(MathPool *p, int atom, int64_t num, int64_t den)
{
    const Ratio *one = math_integer(p, 1);
    if (atom < 0 || !one) return NULL;
    Poly *q = poly_new(p, 1);
    if (!q) return NULL;
    mpq_set_ui(q->t[0].coef, 1, 1);
    if (!times_atom(p, &q->t[0], atom, num, den)) return NULL;
    return ratio(p, join(p, q), one->den);
}

const Ratio *math_symbol(MathPool *p, AtomKind kind, const char *name)
{
    int a = intern(p, kind, name);
    if (a < 0) return NULL;
    p->atoms[a].value = kind == ATOM_PI ? 3.14159265358979323846
                        : kind == ATOM_E ? 2.71828182845904523536
                        : kind == ATOM_I ? I
                                         : arbitrary(name);
    return atom_power(p, a, 1, 1);
}

const Ratio *math_add(MathPool *p, const Ratio *a, const Ratio *b)
{
    if (!a || !b) return NULL;
    return ratio(p, poly_add(p, poly_mul(p, a->num, b->den), poly_mul(p, b->num, a->den), 1), poly_mul(p, a->den, b->den));
}

const Ratio *math_sub(MathPool *p, const Ratio *a, const Ratio *b)
{
    if (!a || !b) return NULL;
    return ratio(p, poly_add(p, poly_mul(p, a->num, b->den), poly_mul(p, b->num, a->den), -1), poly_mul(p, a->den, b->den));
}

const Ratio *math_mul(MathPool *p, const Ratio *a, const Ratio *b)
{
    if (!a || !b) return NULL;
    return ratio(p, poly_mul(p, a->num, b->num), poly_mul(p, a->den, b->den));
}

// The inverse of a single term, which keeps constants in the numerator; otherwise numerator and denominator swap.
static const Ratio *inverse(MathPool *p, const Ratio *a)
{
    if (a->num->n == 0) return math_give_up(p, "division by zero");
    if (a->num->n != 1) return ratio(p, a->den, a->num);
    Poly *q = poly_new(p, 1);
    if (!q) return NULL;
    const Term *t = &a->num->t[0];
    mpq_inv(q->t[0].coef, t->coef);
    for (int k = 0; k < t->n; k++)
        if (!times_atom(p, &q->t[0], t->f[k].atom, -t->f[k].num, t->f[k].den)) return NULL;
    const Ratio *one = math_integer(p, 1);
    return one ? ratio(p, poly_mul(p, join(p, q), a->den), one->num) : NULL;
}

const Ratio *math_div(MathPool *p, const Ratio *a, const Ratio *b)
{
    return a && b ? math_mul(p, a, inverse(p, b)) : NULL;
}

bool math_is_zero(const Ratio *r) { return r->num->n == 0; }

bool math_is_rational(const Ratio *r, mpq_t out)
{
    if (r->num->n > 1 || r->den->n != 1 || r->den->t[0].n || (r->num->n && r->num->t[0].n)) return false;
    if (r->num->n == 0) mpq_set_ui(out, 0, 1);
    else mpq_div(out, r->num->t[0].coef, r->den->t[0].coef);
    return true;
}

static bool poly_constant(const MathPool *p, const Poly *q)
{
    for (int i = 0; i < q->n; i++)
        for (int k = 0; k < q->t[i].n; k++)
            if (!p->atoms[q->t[i].f[k].atom].constant) return false;
    return true;
}

bool math_is_constant(const MathPool *p, const Ratio *r) { return poly_constant(p, r->num) && poly_constant(p, r->den); }

static bool poly_has(const MathPool *p, const Poly *q, AtomKind kind)
{
    for (int i = 0; i < q->n; i++)
        for (int k = 0; k < q->t[i].n; k++)
            if (p->atoms[q->t[i].f[k].atom].kind == kind) return true;
    return false;
}

bool math_has_atom(const MathPool *p, const Ratio *r, AtomKind kind)
{
    return poly_has(p, r->num, kind) || poly_has(p, r->den, kind);
}

static double complex poly_value(const MathPool *p, const Poly *q)
{
    double complex sum = 0;
    for (int i = 0; i < q->n; i++) {
        double complex t = mpq_get_d(q->t[i].coef);
        for (int k = 0; k < q->t[i].n; k++)
            t *= cpow(p->atoms[q->t[i].f[k].atom].value, (double)q->t[i].f[k].num / q->t[i].f[k].den);
        sum += t;
    }
    return sum;
}

double complex math_value(const MathPool *p, const Ratio *r) { return poly_value(p, r->num) / poly_value(p, r->den); }

// ---- canonical text (the key of opaque atoms) -----------------------------------------------------------------------------

static Err print_poly(const MathPool *p, const Poly *q, Str *s)
{
    for (int i = 0; i < q->n; i++) {
        char small[64];
        if (bits(q->t[i].coef) < 150) gmp_snprintf(small, sizeof small, "+%Qd", q->t[i].coef);
        else snprintf(small, sizeof small, "+%p", (const void *)&q->t[i]);  // a long number: equal to itself only
        TRY(str_puts(s, small));
        for (int k = 0; k < q->t[i].n; k++) {
            const Factor *f = &q->t[i].f[k];
            TRY(str_printf(s, "*%s^%d/%d", p->atoms[f->atom].key, f->num, f->den));
        }
    }
    return OK;
}

// An opaque atom "name(arg)" or "name(arg;second)".
static const Ratio *opaque(MathPool *p, const char *name, const Ratio *a, const Ratio *b, double complex value)
{
    Str key = {0};
    const Ratio *r = NULL;
    Err err = OK;
    TRY_DONE(str_printf(&key, "%s(", name));
    TRY_DONE(print_poly(p, a->num, &key));
    TRY_DONE(str_puts(&key, "|"));
    TRY_DONE(print_poly(p, a->den, &key));
    if (b) {
        TRY_DONE(str_puts(&key, ";"));
        TRY_DONE(print_poly(p, b->num, &key));
        TRY_DONE(str_puts(&key, "|"));
        TRY_DONE(print_poly(p, b->den, &key));
    }
    if (key.len > MATH_BYTES * 4) math_give_up(p, "too complex");
    else {
        int atom = intern(p, ATOM_OPAQUE, str_text(&key));
        if (atom >= 0) {
            p->atoms[atom].value = value;
            p->atoms[atom].constant = math_is_constant(p, a) && (!b || math_is_constant(p, b));
            r = atom_power(p, atom, 1, 1);
        }
    }
done:
    str_free(&key);
    return err == OK ? r : out_of_memory(p, err);
}

const Ratio *math_function(MathPool *p, const char *name, const Ratio *arg)
{
    static const struct {
        const char *name;
        double complex (*f)(double complex);
    } known[] = {{"sin", csin}, {"cos", ccos}, {"tan", ctan}, {"ln", clog}, {"log", clog}, {"exp", cexp},
                 {"arcsin", casin}, {"arccos", cacos}, {"arctan", catan}};
    if (!arg) return NULL;
    if (!strcmp(name, "sec")) return math_div(p, math_integer(p, 1), math_function(p, "cos", arg));
    if (!strcmp(name, "csc")) return math_div(p, math_integer(p, 1), math_function(p, "sin", arg));
    if (!strcmp(name, "cot")) return math_div(p, math_function(p, "cos", arg), math_function(p, "sin", arg));
    double complex value = NAN;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(known[i].name, name)) value = known[i].f(math_value(p, arg));
    if (!strcmp(name, "log")) value = NAN;  // base 10 or e: convention, not decided by its value
    return opaque(p, name, arg, NULL, value);
}

// ---- powers and roots --------------------------------------------------------------------------------------------------------

// t *= n^(sign/root) for a positive integer n, by trial division; a large cofactor stays one atom.
static bool root_integer(MathPool *p, Term *t, const mpz_t n, int sign, long root)
{
    mpz_t rest;
    bool ok = true;
    mpz_init_set(rest, n);
    for (unsigned long d = 2; ok && d < 20000 && mpz_cmp_ui(rest, 1) > 0; d++) {
        int k = 0;
        while (mpz_divisible_ui_p(rest, d)) mpz_divexact_ui(rest, rest, d), k++;
        if (!k) continue;
        char key[32];
        snprintf(key, sizeof key, "%lu", d);
        int atom = intern(p, ATOM_PRIME, key);
        if (atom >= 0) mpz_set_ui(p->atoms[atom].prime, d), p->atoms[atom].value = (double)d;
        ok = atom >= 0 && times_atom(p, t, atom, sign * k, root);
    }
    if (ok && mpz_cmp_ui(rest, 1) > 0) {
        mpz_t whole;
        mpz_init(whole);
        mpq_t q;
        mpq_init(q);
        if (mpz_root(whole, rest, (unsigned long)root)) {
            mpq_set_z(q, whole);
            if (sign > 0) mpq_mul(t->coef, t->coef, q);
            else mpq_div(t->coef, t->coef, q);
        } else if (mpz_sizeinbase(rest, 10) > 60) {
            ok = math_give_up(p, "root of a large number");
        } else {
            char key[80];
            gmp_snprintf(key, sizeof key, "%Zd", rest);
            int atom = intern(p, ATOM_PRIME, key);
            if (atom >= 0) mpz_set(p->atoms[atom].prime, rest), p->atoms[atom].value = mpz_get_d(rest);
            ok = atom >= 0 && times_atom(p, t, atom, sign, root);
        }
        mpq_clear(q);
        mpz_clear(whole);
    }
    mpz_clear(rest);
    return ok;
}

// The root of one term when it has one in normal form: positive rational times powers of positive constants.
static const Ratio *root_term(MathPool *p, const Term *t, long n)
{
    const Ratio *one = math_integer(p, 1);
    Poly *q = one ? poly_new(p, 1) : NULL;
    if (!q) return NULL;
    mpq_set_ui(q->t[0].coef, 1, 1);
    mpz_t top;
    mpz_init(top);
    mpz_abs(top, mpq_numref(t->coef));
    bool ok = root_integer(p, &q->t[0], top, 1, n) && root_integer(p, &q->t[0], mpq_denref(t->coef), -1, n);
    mpz_clear(top);
    if (!ok) return NULL;
    for (int k = 0; k < t->n; k++)
        if (!times_atom(p, &q->t[0], t->f[k].atom, t->f[k].num, (int64_t)t->f[k].den * n)) return NULL;
    const Ratio *r = ratio(p, join(p, q), one->num);
    if (mpq_sgn(t->coef) > 0) return r;
    if (n % 2) return math_sub(p, math_integer(p, 0), r);
    if (n == 2) return math_mul(p, r, math_symbol(p, ATOM_I, "i"));
    return math_give_up(p, "even root of a negative number");
}

static bool positive_factors(const MathPool *p, const Term *t)
{
    for (int k = 0; k < t->n; k++) {
        AtomKind kind = p->atoms[t->f[k].atom].kind;
        if (kind != ATOM_PRIME && kind != ATOM_PI && kind != ATOM_E) return false;
    }
    return true;
}

const Ratio *math_root(MathPool *p, const Ratio *a, long n)
{
    if (!a) return NULL;
    if (n < 2 || n > 100) return math_give_up(p, "root index out of range");
    if (a->num->n == 0) return a;
    if (a->num->n == 1 && a->den->n == 1 && positive_factors(p, &a->num->t[0]) && positive_factors(p, &a->den->t[0])) {
        const Ratio *top = root_term(p, &a->num->t[0], n), *bottom = top ? root_term(p, &a->den->t[0], n) : NULL;
        return math_div(p, top, bottom);
    }
    char name[24];
    snprintf(name, sizeof name, "root%ld", n);
    double complex v = math_value(p, a);
    double complex value = cimag(v) == 0 && creal(v) < 0 && n % 2 ? -cpow(-v, 1.0 / (double)n) : cpow(v, 1.0 / (double)n);
    return opaque(p, name, a, NULL, value);
}

static const Ratio *power_integer(MathPool *p, const Ratio *a, long n)
{
    if (n < 0) {
        a = inverse(p, a);
        n = -n;
    }
    if (!a) return NULL;
    bool single = a->num->n <= 1 && a->den->n <= 1;
    if (!single && n > 64) return math_give_up(p, "power too large");
    for (int i = 0; single && i < a->num->n; i++)
        if ((double)bits(a->num->t[0].coef) * (double)n > MATH_BITS && bits(a->num->t[0].coef) > 2)
            return math_give_up(p, "number too large");
    return ratio(p, poly_power(p, a->num, n), poly_power(p, a->den, n));
}

const Ratio *math_pow(MathPool *p, const Ratio *a, const Ratio *b)
{
    mpq_t e, base;
    const Ratio *r = NULL;
    if (!a || !b) return NULL;
    mpq_init(e);
    mpq_init(base);
    if (!math_is_rational(b, e)) {
        r = opaque(p, "pow", a, b, cpow(math_value(p, a), math_value(p, b)));
    } else if (!mpz_fits_slong_p(mpq_numref(e)) || !mpz_fits_slong_p(mpq_denref(e)) || mpz_cmpabs_ui(mpq_numref(e), 1000000) > 0 ||
               mpz_cmp_ui(mpq_denref(e), 100) > 0) {
        r = math_give_up(p, "exponent too large");
    } else if (math_is_zero(a) && mpq_sgn(e) <= 0) {
        r = math_give_up(p, "zero to a power that is not positive");
    } else {
        long n = mpz_get_si(mpq_numref(e)), d = mpz_get_si(mpq_denref(e));
        if (d > 1 && math_is_rational(a, base) && mpq_sgn(base) < 0) r = math_give_up(p, "fractional power of a negative number");
        else r = d == 1 ? power_integer(p, a, n) : power_integer(p, math_root(p, a, d), n);
    }
    mpq_clear(base);
    mpq_clear(e);
    return r;
}

const Ratio *math_factorial(MathPool *p, const Ratio *a)
{
    mpq_t n;
    const Ratio *r = NULL;
    if (!a) return NULL;
    mpq_init(n);
    if (!math_is_rational(a, n) || mpz_cmp_ui(mpq_denref(n), 1) || mpq_sgn(n) < 0 || mpz_cmp_ui(mpq_numref(n), MATH_FACTORIAL) > 0) {
        r = math_give_up(p, "factorial out of range");
    } else {
        unsigned long k = mpz_get_ui(mpq_numref(n));
        mpz_fac_ui(mpq_numref(n), k);
        r = math_number(p, n);
    }
    mpq_clear(n);
    return r;
}
