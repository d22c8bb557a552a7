// SPDX-License-Identifier: Apache-2.0
// The evaluation protocol of spec 6.6: strip_string on both sides, then math_equal's rules in order, first success wins. Its
// quirks are kept (gold/100 and gold*100 pass, tolerance 1e-4, brackets hardly matter); rule 10, symbolic equality, is our
// exact comparison, which is stricter than a CAS. Word numbers are converted only when the whole text is one (the original
// also picks them out of longer text). For `imf eval` alone; verification uses math_judge.
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "judge/math_internal.h"

// Removed when they stand alone; "." matches any character (the original uses them as regular expressions).
static const char *const units[] = {
    "east", "degree", "mph", "kmph", "ft", "m sqaure", " m east", "sq m", "deg", "mile", "q .", "monkey", "prime", "ratio",
    "profit of rs", "rd", "o", "gm", "p . m", "lb", "tile", "per", "dm", "lt", "gain", "ab", "way", "west", "a .", "b .", "c .",
    "d .", "e .", "f .", "g .", "h .", "t", "a", "h", "no change", "men", "soldier", "pie", "bc", "excess", "st", "inches", "noon",
    "percent", "by", "gal", "kmh", "c", "acre", "rise", "a . m", "th", "\xCF\x80 r 2", "sq", "mark", "l", "toy", "coin", "sq . m",
    "gallon", "\xC2\xB0 f", "profit", "minw", "yr", "women", "feet", "am", "pm", "hr", "cu cm", "square",
    "v \xC3\xA2 \xE2\x82\xAC \xE2\x84\xA2", "are", "rupee", "rounds", "cubic", "cc", "mtr", "s", "ohm", "number", "kmph", "day",
    "hour", "minute", "min", "second", "man", "woman", "sec", "cube", "mt", "sq inch", "mp", "\xE2\x88\x8F cm \xC2\xB3", "hectare",
    "more", "sec", "unit", "cu . m", "cm 2", "rs .", "rs", "kg", "g", "month", "km", "m", "cm", "mm", "apple", "liter", "loss",
    "yard", "pure", "year", "increase", "decrease", "d", "less", "Surface", "litre", "pi sq m", "s .", "metre", "meter", "inch"};

static Err replace_all(Str *s, const char *from, const char *to)
{
    Str out = {0};
    Err err = OK;
    size_t n = strlen(from);
    const char *p = str_text(s), *hit;
    if (!strstr(p, from)) return OK;
    while ((hit = strstr(p, from))) {
        TRY_DONE(str_add(&out, p, hit - p));
        TRY_DONE(str_puts(&out, to));
        p = hit + n;
    }
    TRY_DONE(str_puts(&out, p));
    str_clear(s);
    TRY_DONE(str_puts(s, str_text(&out)));
done:
    str_free(&out);
    return err;
}

static void cut_ends(Str *s, const char *set)
{
    int64_t from = 0;
    while (s->len && strchr(set, s->p[s->len - 1])) s->p[--s->len] = '\0';
    while (from < s->len && strchr(set, s->p[from])) from++;
    if (from) memmove(s->p, s->p + from, (size_t)(s->len - from) + 1), s->len -= from;
}

static bool word_char(char c) { return isalnum((unsigned char)c) || c == '_' || (unsigned char)c >= 0x80; }

static bool unit_at(const char *s, const char *unit, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!s[i] || (unit[i] != '.' && unit[i] != s[i])) return false;
    return true;
}

// Removes `unit` wherever both neighbours are an end or no word character; not when nothing would remain.
static Err remove_unit(Str *s, const char *unit, size_t n)
{
    Str out = {0};
    Err err = OK;
    bool hit = false;
    for (int64_t i = 0; i < s->len;) {
        bool bounded = (i == 0 || !word_char(s->p[i - 1])) && i + (int64_t)n <= s->len && !word_char(s->p[i + (int64_t)n]);
        if (bounded && unit_at(s->p + i, unit, n)) hit = true, i += (int64_t)n;
        else TRY_DONE(str_add(&out, s->p + i++, 1));
    }
    if (hit && out.len) {
        str_clear(s);
        TRY_DONE(str_add(s, out.p, out.len));
    }
done:
    str_free(&out);
    return err;
}

static Err remove_units(Str *s)
{
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
            char plural[40];
            TRY(remove_unit(s, units[i], strlen(units[i])));
            snprintf(plural, sizeof plural, "%ss", units[i]);
            TRY(remove_unit(s, plural, strlen(plural)));
        }
    return OK;
}

// A number in English words; -1 when the text is not one.
static int64_t word_number(const char *s)
{
    static const char *const names[] = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
        "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty", "thirty",
        "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred", "thousand", "million"};
    int64_t total = 0, part = 0;
    bool any = false;
    while (*s) {
        char word[16] = "";
        size_t n = strcspn(s, " -");
        if (n && n < sizeof word) memcpy(word, s, n);
        s += n + (s[n] != '\0');
        if (!n || !strcmp(word, "and")) continue;
        int k = 0;
        while (k < 31 && strcasecmp(names[k], word)) k++;
        if (k == 31) return -1;
        any = true;
        if (k <= 20) part += k;
        else if (k < 28) part += 10 * (k - 18);
        else if (k == 28) part *= 100;
        else total += part * (k == 29 ? 1000 : 1000000), part = 0;
    }
    return any ? total + part : -1;
}

static const char *const simple[][2] = {
    {"\\!", ""}, {"\\begin{bmatrix}", "\\begin{pmatrix}"}, {"\\end{bmatrix}", "\\end{pmatrix}"}, {"bmatrix", "pmatrix"},
    {"tfrac", "frac"}, {"dfrac", "frac"}, {"\\neq", "\\ne"}, {"\\leq", "\\le"}, {"\\geq", "\\ge"}, {"\\left", ""}, {"\\right", ""},
    {"\\{", "{"}, {"\\}", "}"}};
static const char *const later[][2] = {
    {"^{\\circ}", ""}, {"^\\circ", ""}, {"\\$", ""}, {"$", ""}, {"\\(", ""}, {"\\)", ""}};
static const char *const last[][2] = {
    {"x=", ""}, {"y=", ""}, {"z=", ""}, {"x\\in", ""}, {"y\\in", ""}, {"z\\in", ""}, {"x\\to", ""}, {"y\\to", ""}, {"z\\to", ""},
    {"\\emptyset", "{}"}, {"(-\\infty,\\infty)", "\\mathbb{R}"}, {"\\%", ""}, {"%", ""}, {" .", " 0."}, {"{.", "{0."},
    {"infinity", "\\infty"}};

static Err replace_table(Str *s, const char *const (*table)[2], size_t n)
{
    for (size_t i = 0; i < n; i++) TRY(replace_all(s, table[i][0], table[i][1]));
    return OK;
}

// \text{..} at the end goes, if something remains; elsewhere its contents stay.
static Err unwrap_text(Str *s, bool drop_last)
{
    char *p = s->len ? strstr(s->p, "\\text{") : NULL;
    while (p) {
        char *close = strchr(p, '}');
        if (!close) return OK;
        bool at_end = close[1] == '\0';
        if (drop_last && !(at_end && p > s->p)) {
            p = strstr(close, "\\text{");
            continue;
        }
        Str out = {0};
        Err err = OK;
        TRY_DONE(str_add(&out, s->p, p - s->p));
        if (!drop_last) TRY_DONE(str_add(&out, p + 6, close - p - 6));
        TRY_DONE(str_puts(&out, close + 1));
        str_clear(s);
        TRY_DONE(str_add(s, str_text(&out), out.len));
    done:
        str_free(&out);
        TRY(err);
        p = s->len && !drop_last ? strstr(s->p, "\\text{") : NULL;
    }
    return OK;
}

// 27.000 -> 27
static void drop_zero_decimals(Str *s)
{
    for (int64_t i = 1; i + 1 < s->len; i++) {
        if (s->p[i] != '.' || !isdigit((unsigned char)s->p[i - 1]) || s->p[i + 1] != '0') continue;
        int64_t k = i + 1;
        while (k < s->len && s->p[k] == '0') k++;
        if (k < s->len && isdigit((unsigned char)s->p[k])) continue;
        memmove(s->p + i, s->p + k, (size_t)(s->len - k) + 1);
        s->len -= k - i;
    }
}

// a/b of integers -> \frac{a}{b}; a short left side of "=" goes; \frac and \sqrt shorthand is understood by the comparison.
static Err fractions(Str *s)
{
    char *eq = s->len ? strchr(s->p, '=') : NULL;
    if (eq && !strchr(eq + 1, '=') && eq - s->p <= 2) TRY(replace_all(s, s->p, eq + 1));
    TRY(replace_all(s, " ", ""));
    char *slash = s->len ? strchr(s->p, '/') : NULL;
    if (!slash || strchr(slash + 1, '/') || slash == s->p || !slash[1]) return OK;
    for (const char *p = s->p; *p; p++)
        if (!isdigit((unsigned char)*p) && *p != '/' && *p != '-') return OK;
    Str out = {0};
    Err err = OK;
    TRY_DONE(str_printf(&out, "\\frac{%.*s}{%s}", (int)(slash - s->p), s->p, slash + 1));
    str_clear(s);
    TRY_DONE(str_puts(s, str_text(&out)));
done:
    str_free(&out);
    return err;
}

static Err strip_string(Str *s)
{
    TRY(str_puts(s, ""));
    cut_ends(s, " \t\r\n");
    TRY(replace_all(s, "\n", ""));
    while (s->len && s->p[s->len - 1] == '.') s->p[--s->len] = '\0';
    TRY(replace_table(s, simple, sizeof simple / sizeof simple[0]));
    TRY(unwrap_text(s, true));
    TRY(remove_units(s));
    TRY(replace_table(s, later, sizeof later / sizeof later[0]));
    int64_t number = word_number(str_text(s));
    if (number >= 0) {
        str_clear(s);
        TRY(str_printf(s, "%lld", (long long)number));
    }
    TRY(unwrap_text(s, false));
    TRY(replace_table(s, last, sizeof last / sizeof last[0]));
    if (!strstr(str_text(s), "\\infty")) TRY(replace_all(s, "inf", "\\infty"));
    TRY(replace_all(s, "and", ""));
    TRY(replace_all(s, "\\mathbf", ""));
    if (strchr(str_text(s), 'j') && !strchr(str_text(s), 'i')) TRY(replace_all(s, "j", "i"));
    drop_zero_decimals(s);
    if (s->len && s->p[0] == '.') {
        Str out = {0};
        Err err = str_printf(&out, "0%s", s->p);
        str_clear(s);
        if (err == OK) err = str_puts(s, str_text(&out));
        str_free(&out);
        TRY(err);
    }
    return fractions(s);
}

// A Python float: digits, point, exponent, with commas removed; a percent sign divides by 100.
static bool numeric(const char *text, double *v)
{
    char buf[128];
    size_t n = 0;
    for (; *text && n + 1 < sizeof buf; text++)
        if (*text != ',') buf[n++] = *text;
    buf[n] = '\0';
    if (*text || !n) return false;
    double scale = 1;
    if (buf[n - 1] == '%') {
        buf[--n] = '\0', scale = 0.01;
        if (n && buf[n - 1] == '\\') buf[--n] = '\0';
    }
    for (size_t i = 0; i < n; i++)
        if (!strchr("0123456789.+-eE ", buf[i])) return false;
    char *end;
    *v = strtod(buf, &end) * scale;
    return n && end == buf + n && isfinite(*v);
}

static bool near(double a, double b) { return fabs(a - b) <= 1e-4 * fmax(fabs(a), fabs(b)); }

// gold is one of A-E: the last stand-alone letter of the answer counts.
static bool choice(const char *pred, const char *gold)
{
    char found = '\0';
    if (strlen(gold) != 1 || gold[0] < 'A' || gold[0] > 'E') return false;
    for (const char *p = pred; *p; p++) {
        char c = (char)toupper((unsigned char)*p);
        if (c >= 'A' && c <= 'E' && (p == pred || !word_char(p[-1])) && !word_char(p[1])) found = c;
    }
    return found == gold[0];
}

// Lower case without the characters in `drop`.
static void bare(const char *s, const char *drop, char *buf, size_t size)
{
    size_t n = 0;
    for (; *s && n + 1 < size; s++)
        if (!strchr(drop, *s)) buf[n++] = (char)tolower((unsigned char)*s);
    buf[n] = '\0';
}

static bool bracketed(const char *s, char open, char close) { return s[0] == open && s[0] && s[strlen(s) - 1] == close; }

static Err protocol_equal(const char *pred, const char *gold, int depth, bool *equal);

static Err items_equal(const char *pred, const char *gold, int depth, bool *equal)
{
    Str a = {0}, b = {0};
    Err err = OK;
    const char *p = pred + 1, *g = gold + 1, *pe = pred + strlen(pred) - 1, *ge = gold + strlen(gold) - 1;
    *equal = true;
    while (*equal && p <= pe && g <= ge) {
        const char *pc = memchr(p, ',', (size_t)(pe - p)), *gc = memchr(g, ',', (size_t)(ge - g));
        if (!pc != !gc) {
            *equal = false;
            break;
        }
        str_clear(&a), str_clear(&b);
        TRY_DONE(str_add(&a, p, (pc ? pc : pe) - p));
        TRY_DONE(str_add(&b, g, (gc ? gc : ge) - g));
        TRY_DONE(protocol_equal(str_text(&a), str_text(&b), depth + 1, equal));
        if (!pc) break;
        p = pc + 1, g = gc + 1;
    }
done:
    str_free(&a);
    str_free(&b);
    return err;
}

static Err protocol_equal(const char *pred, const char *gold, int depth, bool *equal)
{
    double a, b;
    char x[512], y[512];
    *equal = !strcasecmp(pred, gold) || choice(pred, gold);
    if (*equal || depth > 3) return OK;
    if (numeric(pred, &a) && numeric(gold, &b)) {
        *equal = near(a, b) || near(a, b / 100) || near(a, b * 100);
        return OK;
    }
    if (!*pred || strlen(pred) >= sizeof x || strlen(gold) >= sizeof y) return OK;
    bool square = bracketed(pred, '[', ']') && gold[0] != '(', round = bracketed(pred, '(', ')') && gold[0] != '[';
    bare(pred, square || round ? "{}()[]" : "{}()", x, sizeof x);
    bare(gold, square || round ? "{}()[]" : "{}()", y, sizeof y);
    *equal = !strcmp(x, y) && x[0];
    if (*equal) return OK;
    if (strchr("([", pred[0]) && strchr(")]", pred[strlen(pred) - 1]) && gold[0] && strchr("([", gold[0]) &&
        strchr(")]", gold[strlen(gold) - 1])) {
        TRY(items_equal(pred, gold, depth, equal));
        if (*equal) return OK;
    }
    return math_compare(gold, pred, equal);
}

Err math_judge_fuseeval(const char *gold, const char *answer, Verdict *out)
{
    Str g = {0}, a = {0};
    MathFound how;
    bool equal = false;
    Err err = OK;
    *out = (Verdict){.outcome = VERDICT_WRONG};
    TRY_DONE(math_gold(gold, &g));
    TRY_DONE(math_find(answer, &a, &how));
    math_keep(out, str_text(&a));
    bool none = !a.len, huge = a.len > 4096;
    if (!none && !huge) {
        TRY_DONE(strip_string(&g));
        TRY_DONE(strip_string(&a));
        TRY_DONE(strip_string(&a));
        TRY_DONE(protocol_equal(str_text(&a), str_text(&g), 0, &equal));
    }
    out->outcome = equal ? VERDICT_RIGHT : VERDICT_WRONG;
    out->grade = equal;
    snprintf(out->reason, sizeof out->reason, "%s", none ? "no answer found" : huge ? "longer than 4096 bytes" : equal ? "equal" : "different");
done:
    str_free(&g);
    str_free(&a);
    return err;
}
