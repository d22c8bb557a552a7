// SPDX-License-Identifier: Apache-2.0
// Recursive descent over one scalar expression in normalised LaTeX or plain notation. It refuses whatever has two readings
// (1/2x, 3 1/2, two numbers side by side), because a wrong reading could make a false "equal".
#include <ctype.h>
#include <string.h>

#include "judge/math_parse.h"

typedef struct Parser {
    MathPool *p;
    const char *s;
    int64_t i, n;
    int depth;
    Value *v;
    bool plain_number;  // the last primary was digits only
} Parser;

static const Ratio *parse_sum(Parser *x);
static const Ratio *parse_factor(Parser *x);

static void skip_spaces(Parser *x)
{
    while (x->i < x->n && x->s[x->i] == ' ') x->i++;
}

static char peek(Parser *x)
{
    skip_spaces(x);
    return x->i < x->n ? x->s[x->i] : '\0';
}

static bool at_word(Parser *x, const char *word)
{
    int64_t len = (int64_t)strlen(word);
    skip_spaces(x);
    return x->i + len <= x->n && !memcmp(x->s + x->i, word, (size_t)len) &&
           !(x->i + len < x->n && isalpha((unsigned char)word[len - 1]) && isalpha((unsigned char)x->s[x->i + len]));
}

static bool take(Parser *x, const char *word)
{
    if (!at_word(x, word)) return false;
    x->i += (int64_t)strlen(word);
    return true;
}

static const Ratio *parse_number(Parser *x)
{
    int64_t start = x->i, digits = 0, decimals = -1;
    for (; x->i < x->n && (isdigit((unsigned char)x->s[x->i]) || (x->s[x->i] == '.' && decimals < 0)); x->i++) {
        if (x->s[x->i] == '.') decimals = 0;
        else digits++, decimals += decimals >= 0;
    }
    if (!digits) return math_give_up(x->p, "not a number");
    char text[MATH_BYTES + 2];
    int64_t m = 0;
    for (int64_t k = start; k < x->i && m < MATH_BYTES; k++)
        if (x->s[k] != '.') text[m++] = x->s[k];
    text[m] = '\0';
    mpq_t q;
    mpz_t scale;
    mpq_init(q);
    mpz_init(scale);
    mpz_set_str(mpq_numref(q), text, 10);
    mpz_ui_pow_ui(scale, 10, (unsigned long)(decimals > 0 ? decimals : 0));
    mpz_set(mpq_denref(q), scale);
    mpq_canonicalize(q);
    const Ratio *r = math_number(x->p, q);
    mpz_clear(scale);
    mpq_clear(q);
    x->plain_number = decimals < 0;
    x->v->decimals = (int)decimals;
    return r;
}

// The expression up to the matching closing bracket.
static const Ratio *parse_group(Parser *x, char close)
{
    x->i++;
    const Ratio *r = parse_sum(x);
    if (!r) return NULL;
    if (peek(x) != close) return math_give_up(x->p, "brackets do not match");
    x->i++;
    x->plain_number = false;
    return r;
}

// Argument of \frac, \sqrt, ^: a group, or one digit or letter or command.
static const Ratio *parse_argument(Parser *x, bool whole_number)
{
    char c = peek(x);
    if (c == '{') return parse_group(x, '}');
    if (c == '(' && whole_number) return parse_group(x, ')');
    if (isdigit((unsigned char)c)) {
        if (whole_number) return parse_number(x);
        x->i++;
        return math_integer(x->p, c - '0');
    }
    return parse_factor(x);
}

static const Ratio *parse_root(Parser *x)
{
    long index = 2;
    if (peek(x) == '[') {
        mpq_t q;
        const Ratio *k = parse_group(x, ']');
        if (!k) return NULL;
        mpq_init(q);
        bool ok = math_is_rational(k, q) && !mpz_cmp_ui(mpq_denref(q), 1) && mpz_fits_slong_p(mpq_numref(q));
        index = ok ? mpz_get_si(mpq_numref(q)) : 0;
        mpq_clear(q);
        if (!ok) return math_give_up(x->p, "root index");
    }
    char c = peek(x);
    return math_root(x->p, c == '(' ? parse_group(x, ')') : parse_argument(x, false), index);
}

static const char *const functions[] = {"sin", "cos", "tan", "sec", "csc", "cot", "ln", "log", "arcsin", "arccos", "arctan", "exp"};

static const Ratio *parse_function(Parser *x, const char *name)
{
    const Ratio *power = NULL;
    if (peek(x) == '_') return math_give_up(x->p, "logarithm with a base");
    if (peek(x) == '^') {
        x->i++;
        power = parse_argument(x, true);
        mpq_t q;
        mpq_init(q);
        bool ok = power && math_is_rational(power, q) && mpq_sgn(q) > 0;
        mpq_clear(q);
        if (!ok) return math_give_up(x->p, "power of a function");
    }
    char c = peek(x);
    const Ratio *arg = c == '(' ? parse_group(x, ')') : parse_factor(x);
    // sin 2x: a number followed by a symbol belongs to the argument
    if (arg && c != '(' && isdigit((unsigned char)c) && (isalpha((unsigned char)peek(x)) || peek(x) == '\\'))
        arg = math_mul(x->p, arg, parse_factor(x));
    const Ratio *r = math_function(x->p, name, arg);
    return power ? math_pow(x->p, r, power) : r;
}

static const Ratio *parse_command(Parser *x)
{
    static const char *const letters[] = {"theta", "alpha", "beta", "gamma", "delta", "phi", "omega", "lambda", "mu", "sigma", "rho",
                                          "epsilon", "varphi", "psi", "tau"};
    if (take(x, "\\frac")) {
        const Ratio *a = parse_argument(x, false), *b = a ? parse_argument(x, false) : NULL;
        return math_div(x->p, a, b);
    }
    if (take(x, "\\sqrt")) return parse_root(x);
    if (take(x, "\\pi")) return math_symbol(x->p, ATOM_PI, "pi");
    if (take(x, "\\infty")) return math_symbol(x->p, ATOM_INFINITY, "infinity");
    if (take(x, "\\mathbb{R}")) return math_symbol(x->p, ATOM_VAR, "\\R");
    for (size_t k = 0; k < sizeof functions / sizeof functions[0]; k++) {
        char name[16] = "\\";
        strcat(name, functions[k]);
        if (take(x, name)) return parse_function(x, functions[k]);
    }
    for (size_t k = 0; k < sizeof letters / sizeof letters[0]; k++) {
        char name[16] = "\\";
        strcat(name, letters[k]);
        if (take(x, name)) return math_symbol(x->p, ATOM_VAR, letters[k]);
    }
    return math_give_up(x->p, "a LaTeX command that is not known");
}

static const Ratio *parse_letter(Parser *x)
{
    int64_t len = 0;
    while (x->i + len < x->n && isalpha((unsigned char)x->s[x->i + len])) len++;
    if (take(x, "pi")) return math_symbol(x->p, ATOM_PI, "pi");
    if (take(x, "sqrt")) return parse_root(x);
    if (take(x, "infinity") || take(x, "inf")) return math_symbol(x->p, ATOM_INFINITY, "infinity");
    for (size_t k = 0; k < sizeof functions / sizeof functions[0]; k++)
        if (take(x, functions[k])) return parse_function(x, functions[k]);
    if (len > 3) return math_give_up(x->p, "words in a formula");
    char name[2] = {x->s[x->i++], '\0'};
    if (name[0] == 'i') return math_symbol(x->p, ATOM_I, "i");
    if (name[0] == 'e') return math_symbol(x->p, ATOM_E, "e");
    return math_symbol(x->p, ATOM_VAR, name);
}

static const Ratio *parse_primary(Parser *x)
{
    char c = peek(x);
    x->plain_number = false;
    if (isdigit((unsigned char)c) || c == '.') return parse_number(x);
    if (c == '(') return parse_group(x, ')');
    if (c == '[') return parse_group(x, ']');
    if (c == '{') return parse_group(x, '}');
    if (c == '\\') return parse_command(x);
    if (isalpha((unsigned char)c)) return parse_letter(x);
    return math_give_up(x->p, "not a formula");
}

// The rest of the text after a quoted unit: "cm"^2.
static const Ratio *parse_unit(Parser *x, const Ratio *r)
{
    char *unit;
    if (!r || arena_strndup(&x->p->arena, &unit, x->s + x->i + 1, x->n - x->i - 1) != OK) return math_give_up(x->p, "out of memory");
    x->v->unit = unit;
    x->i = x->n;
    return r;
}

static const Ratio *parse_power(Parser *x)
{
    const Ratio *r = parse_primary(x);
    for (;;) {
        char c = peek(x);
        if (!r) return NULL;
        if (c == '!') {
            x->i++;
            if (peek(x) == '!') return math_give_up(x->p, "double factorial");
            r = math_factorial(x->p, r);
        } else if (take(x, "^\\circ") || take(x, "^{\\circ}")) {
            x->v->degrees = true;
        } else if (c == '^' || (c == '*' && x->i + 1 < x->n && x->s[x->i + 1] == '*')) {
            x->i += c == '^' ? 1 : 2;
            const Ratio *e;
            if (peek(x) == '-') x->i++, e = math_sub(x->p, math_integer(x->p, 0), parse_argument(x, true));
            else e = parse_argument(x, true);
            r = math_pow(x->p, r, e);
            if (peek(x) == '^') return math_give_up(x->p, "a tower of powers");
        } else {
            break;
        }
        x->plain_number = false;
    }
    return r;
}

static const Ratio *parse_factor(Parser *x)
{
    if (++x->depth > MATH_DEPTH) return math_give_up(x->p, "nested too deeply");
    char c = peek(x);
    const Ratio *r;
    if (c == '-') x->i++, r = math_sub(x->p, math_integer(x->p, 0), parse_factor(x));
    else if (c == '+') x->i++, r = parse_factor(x);
    else r = parse_power(x);
    x->depth--;
    return r;
}

// 3\frac{1}{2}: a whole number directly before a proper fraction of numbers is added to it. 3(1/2) may be meant so, or as 3/2.
static const Ratio *mixed_number(Parser *x, const Ratio *whole)
{
    mpq_t q;
    bool brackets = peek(x) == '(';
    const Ratio *f = parse_factor(x);
    if (!f) return NULL;
    mpq_init(q);
    bool proper = math_is_rational(f, q) && mpq_sgn(q) > 0 && mpz_cmp(mpq_numref(q), mpq_denref(q)) < 0;
    bool number = math_is_rational(f, q);
    mpq_clear(q);
    if (brackets) return proper ? math_give_up(x->p, "3(1/2) has two readings") : math_mul(x->p, whole, f);
    if (number && !proper) return math_give_up(x->p, "a number beside a fraction");
    return proper ? math_add(x->p, whole, f) : math_mul(x->p, whole, f);
}

static bool starts_factor(Parser *x)
{
    char c = peek(x);
    if (c == '\\') return !at_word(x, "\\\\") && !at_word(x, "\\cup") && !at_word(x, "\\pm") && !at_word(x, "\\mp");
    return isalnum((unsigned char)c) || c == '(' || c == '{' || c == '[' || c == '.';
}

static const Ratio *parse_term(Parser *x)
{
    const Ratio *r = parse_factor(x);
    bool divided = false;
    while (r) {
        char c = peek(x);
        bool plain = x->plain_number;
        if (c == '*') {
            x->i++;
            r = math_mul(x->p, r, parse_factor(x));
            divided = false;
        } else if (c == '/') {
            x->i++;
            r = math_div(x->p, r, parse_factor(x));
            divided = true;
        } else if (starts_factor(x)) {
            if (divided) return math_give_up(x->p, "a/bc has two readings");
            if (plain && (isdigit((unsigned char)c) || c == '.')) return math_give_up(x->p, "two numbers side by side");
            r = plain && (c == '(' || at_word(x, "\\frac")) ? mixed_number(x, r) : math_mul(x->p, r, parse_factor(x));
            if (isdigit((unsigned char)c)) x->plain_number = true;
        } else {
            break;
        }
    }
    return r;
}

static const Ratio *parse_sum(Parser *x)
{
    if (++x->depth > MATH_DEPTH) return math_give_up(x->p, "nested too deeply");
    const Ratio *r = parse_term(x);
    while (r && (peek(x) == '+' || peek(x) == '-')) {
        char c = x->s[x->i++];
        const Ratio *b = parse_term(x);
        r = c == '+' ? math_add(x->p, r, b) : math_sub(x->p, r, b);
    }
    x->depth--;
    return r;
}

// Is the text nothing but one decimal number (sign, point)?
static bool is_decimal_literal(const char *s, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isdigit((unsigned char)s[i]) && !strchr(".+- %", s[i])) return false;
    return n > 0;
}

static bool scale_word(const char *unit)
{
    static const char *const words[] = {"hundred", "thousand", "million", "billion", "trillion", "dozen", "half", "pair", "quarter",
                                        "third", "score", "percent", "squared", "cubed", "over", "times", "plus", "minus"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strstr(unit, words[i])) return true;
    return false;
}

// "18 eggs per day": letters after a number and a space are a unit, not a product of variables.
static bool take_bare_unit(Parser *x)
{
    int64_t i = x->i, letters = 0, word = 0;
    if (i >= x->n || x->s[i] != ' ') return false;
    for (; i < x->n && (isalpha((unsigned char)x->s[i]) || strchr(" .-'", x->s[i])); i++) {
        word = isalpha((unsigned char)x->s[i]) ? word + 1 : 0;
        if (word > letters) letters = word;
    }
    return i == x->n && letters >= 2;
}

const Ratio *math_parse_scalar(MathPool *p, const char *s, int64_t n, int depth, Value *v)
{
    Parser x = {.p = p, .s = s, .n = n, .depth = depth, .v = v};
    const Ratio *r = NULL;
    // a leading number with a bare unit after it is tried first
    char c = peek(&x);
    if (isdigit((unsigned char)c)) {
        r = parse_number(&x);
        if (r && take_bare_unit(&x)) {
            r = parse_unit(&x, r);  // skips the blank as it would skip a quote
            if (r && scale_word(v->unit)) return math_give_up(p, "a number word after the number");
            return r;
        }
        x.i = 0;
    }
    r = parse_sum(&x);
    if (r && peek(&x) == '%') x.i++, v->percent = true;
    if (r && peek(&x) == '"') r = parse_unit(&x, r);
    if (r && v->unit && scale_word(v->unit)) return math_give_up(p, "a number word after the number");
    if (r && peek(&x)) return math_give_up(p, "not understood to the end");
    if (!is_decimal_literal(s, n)) v->decimals = -1;
    return r;
}
