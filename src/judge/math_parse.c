// SPDX-License-Identifier: Apache-2.0
// Values around scalars: lists, points and intervals, sets, unions, matrices, equations, words. The text is split at its top
// level (outside all brackets and environments) and the pieces are parsed by themselves.
#include "judge/math_parse.h"

#include <ctype.h>
#include <string.h>

typedef struct Text {
    const char *s;
    int64_t n;
} Text;

static Err parse_value(MathPool *p, Text t, int depth, bool in_brackets, Value **out);

static Text strip(Text t)
{
    while (t.n && t.s[0] == ' ') t.s++, t.n--;
    while (t.n && t.s[t.n - 1] == ' ') t.n--;
    return t;
}

static bool starts(Text t, int64_t i, const char *word)
{
    int64_t len = (int64_t)strlen(word);
    return i + len <= t.n && !memcmp(t.s + i, word, (size_t)len);
}

static int64_t after_quote(Text t, int64_t i)
{
    for (i++; i < t.n && t.s[i] != '"'; i++) continue;
    return i < t.n ? i + 1 : t.n;
}

// Change of bracket depth at i; '(' may be closed by ']' (half-open intervals).
static int bracket(Text t, int64_t i)
{
    if (strchr("([{\1", t.s[i]) && t.s[i]) return 1;
    if (strchr(")]}\2", t.s[i]) && t.s[i]) return -1;
    if (starts(t, i, "\\begin")) return 1;
    if (starts(t, i, "\\end")) return -1;
    return 0;
}

// Length of a number with thousands commas at i (1,234,567), 0 when there is none.
static int64_t thousands(Text t, int64_t i)
{
    if (i && (isdigit((unsigned char)t.s[i - 1]) || t.s[i - 1] == ',')) return 0;
    int64_t k = i, groups = 0;
    while (k < t.n && isdigit((unsigned char)t.s[k])) k++;
    if (k == i || k - i > 3) return 0;
    while (k + 3 < t.n && t.s[k] == ',' && isdigit((unsigned char)t.s[k + 1]) && isdigit((unsigned char)t.s[k + 2]) &&
           isdigit((unsigned char)t.s[k + 3]) && !(k + 4 < t.n && isdigit((unsigned char)t.s[k + 4])))
        k += 4, groups++;
    return groups ? k - i : 0;
}

// Length of a separator at i: "," ";" and "and"/"or" in words or quoted; 0: none.
static int64_t separator(Text t, int64_t i)
{
    static const char *const words[] = {"\"and\"", "\" and \"", "\"or\"", "\" or \"", "\"and \"", "\" and\"", "\"or \"", "\" or\"", " and ", " or "};
    if (t.s[i] == ',' || t.s[i] == ';') return 1;
    for (size_t k = 0; k < sizeof words / sizeof words[0]; k++)
        if (starts(t, i, words[k])) return (int64_t)strlen(words[k]);
    return 0;
}

static int64_t cup(Text t, int64_t i) { return starts(t, i, "\\cup") ? 4 : 0; }
static int64_t equals_sign(Text t, int64_t i) { return t.s[i] == '='; }
static int64_t ampersand(Text t, int64_t i) { return t.s[i] == '&'; }
static int64_t row_end(Text t, int64_t i) { return starts(t, i, "\\\\") ? 2 : 0; }

typedef int64_t (*Separator)(Text t, int64_t i);

// Splits at top-level separators; with numbers, thousands commas are no separators. Returns the number of pieces, or -1 when
// there are more than VALUE_ITEMS. Empty pieces (", and") are joined away.
static int split(Text t, Separator sep, bool numbers, Text piece[VALUE_ITEMS])
{
    int n = 0, depth = 0;
    int64_t from = 0;
    for (int64_t i = 0; i <= t.n;) {
        int64_t len = i == t.n ? 1 : depth == 0 ? sep(t, i) : 0, skip = 0;
        if (len) {
            Text one = strip((Text){t.s + from, i - from});
            if (one.n || sep != separator) {
                if (n == VALUE_ITEMS) return -1;
                piece[n++] = one;
            }
            i += len, from = i;
            continue;
        }
        if (t.s[i] == '"') {
            i = after_quote(t, i);
            continue;
        }
        if (numbers && depth == 0) skip = thousands(t, i);
        depth += bracket(t, i);
        i += skip ? skip : starts(t, i, "\\\\") ? 2 : 1;
    }
    return n;
}

static Value *value_new(MathPool *p, ValueKind kind)
{
    Value *v;
    p->err = arena_alloc(&p->arena, &v, 1, sizeof *v);
    if (p->err != OK) return NULL;
    *v = (Value){.kind = kind, .plain = "", .unit = "", .name = "", .decimals = -1};
    return v;
}

static Err set_plain(MathPool *p, Value *v, Text t)
{
    char *plain;
    TRY(arena_strndup(&p->arena, &plain, t.s, t.n));
    int64_t m = 0;
    for (int64_t i = 0; i < t.n; i++)
        if (plain[i] != '"' && (plain[i] != ' ' || (m && isdigit((unsigned char)plain[m - 1]) && i + 1 < t.n &&
                                                    isdigit((unsigned char)plain[i + 1]))))  // "2 5" is not 25
            plain[m++] = plain[i];
    plain[m] = '\0';
    v->plain = plain;
    return OK;
}

static Err items(MathPool *p, Value *v, const Text *piece, int n, int depth, bool in_brackets)
{
    TRY(ARENA_ARRAY(&p->arena, &v->item, n ? n : 1));
    v->n = n;
    for (int i = 0; i < n; i++) TRY(parse_value(p, piece[i], depth + 1, in_brackets, &v->item[i]));
    return OK;
}

// "x = ", "x \in ", "f(x) = ": drops the left side and remembers it.
static Text take_name(MathPool *p, Text t, Value *v)
{
    int64_t i = 0;
    if (t.n && isalpha((unsigned char)t.s[0])) i = 1;
    else if (starts(t, 0, "\\theta")) i = 6;
    else return t;
    if (i + 2 < t.n && t.s[i] == '(' && isalpha((unsigned char)t.s[i + 1]) && t.s[i + 2] == ')') i += 3;
    int64_t name = i;
    while (i < t.n && t.s[i] == ' ') i++;
    int64_t len = i < t.n && t.s[i] == '=' ? 1 : starts(t, i, "\\in ") ? 4 : 0;
    if (!len || memchr(t.s + i + len, '=', (size_t)(t.n - i - len))) return t;
    char *copy;
    if (arena_strndup(&p->arena, &copy, t.s, name) == OK) v->name = copy;
    return strip((Text){t.s + i + len, t.n - i - len});
}

static bool only_words(Text t)
{
    int64_t letters = 0, word = 0, longest = 0;
    bool quoted = t.n && t.s[0] == '"' && after_quote(t, 0) == t.n;
    for (int64_t i = 0; i < t.n; i++) {
        bool letter = isalpha((unsigned char)t.s[i]) || (unsigned char)t.s[i] >= 0x80;
        if (!letter && !strchr(" \"'()-.,", t.s[i])) return false;
        letters += letter;
        word = letter ? word + 1 : 0;
        if (word > longest) longest = word;
    }
    return letters && (quoted || longest > 3);
}

static Err parse_matrix(MathPool *p, Text t, int depth, Value *v)
{
    Text row[VALUE_ITEMS], cell[VALUE_ITEMS], all[VALUE_ITEMS];
    int64_t head = starts(t, 0, "\\begin{pmatrix}") ? 15 : starts(t, 0, "\\begin{matrix}") ? 14 : starts(t, 0, "\\begin{bmatrix}") ? 15 : 0;
    int64_t tail = 0;
    for (int64_t i = head; i < t.n; i++)
        if (starts(t, i, "\\end{")) tail = tail ? t.n : i;
    v->kind = VALUE_UNKNOWN, v->why = "a matrix of another form";
    if (!head || !tail || tail == t.n || !memchr(t.s + tail, '}', (size_t)(t.n - tail)) || t.s[t.n - 1] != '}') return OK;
    int rows = split((Text){t.s + head, tail - head}, row_end, false, row), n = 0;
    if (rows > 1 && row[rows - 1].n == 0) rows--;
    for (int r = 0; r < rows; r++) {
        int cols = split(row[r], ampersand, false, cell);
        if (cols < 1 || (r && cols != v->cols) || n + cols > VALUE_ITEMS) return OK;
        v->cols = cols;
        for (int c = 0; c < cols; c++) all[n++] = cell[c];
    }
    if (rows < 1) return OK;
    v->kind = VALUE_MATRIX, v->rows = rows;
    return items(p, v, all, n, depth, true);
}

// a \pm b: the two values.
static Err parse_plus_minus(MathPool *p, Text t, int64_t at, int depth, Value *v)
{
    Text piece[2];
    for (int k = 0; k < 2; k++) {
        char *copy;
        TRY(arena_strndup(&p->arena, &copy, t.s, t.n));
        memset(copy + at, ' ', 3);
        copy[at] = k ? '-' : '+';
        piece[k] = strip((Text){copy, t.n});
    }
    v->kind = VALUE_LIST, v->any_order = true;
    return items(p, v, piece, 2, depth, true);
}

// Index of the bracket that closes the one at 0, -1 when it does not close.
static int64_t closing(Text t)
{
    int depth = 0;
    for (int64_t i = 0; i < t.n; i++) {
        if (t.s[i] == '"') {
            i = after_quote(t, i) - 1;
            continue;
        }
        depth += bracket(t, i);
        if (depth == 0) return i;
    }
    return -1;
}

static Err parse_scalar(MathPool *p, Text t, int depth, bool in_brackets, Value *v)
{
    char *copy;
    TRY(arena_strndup(&p->arena, &copy, t.s, t.n));
    int64_t m = t.n;
    for (int64_t i = 0; i < m && !in_brackets; i++)
        for (int64_t len = thousands((Text){copy, m}, i), k = 0; k < len; k++)
            if (copy[i + k] == ',') memmove(copy + i + k, copy + i + k + 1, (size_t)(m - i - k)), m--, len--;
    const char *before = p->why;
    p->why = NULL;
    v->r = math_parse_scalar(p, copy, m, depth, v);
    v->kind = v->r ? VALUE_SCALAR : VALUE_UNKNOWN;
    v->why = p->why;
    p->why = before;
    return p->err;
}

static Err parse_bracketed(MathPool *p, Text t, int depth, Value *v, bool *done)
{
    Text piece[VALUE_ITEMS];
    *done = false;
    if (!t.n || !strchr("([{\1", t.s[0]) || closing(t) != t.n - 1) return OK;
    Text inside = strip((Text){t.s + 1, t.n - 2});
    bool set = t.s[0] == '\1' || t.s[0] == '{';
    int n = split(inside, separator, false, piece);
    if (n == 0 && !set) return OK;
    if (n == 1 && t.s[0] != '\1') return OK;  // plain brackets
    *done = true;
    v->kind = set ? VALUE_SET : VALUE_TUPLE, v->open = t.s[0], v->close = t.s[t.n - 1];
    if (n < 0) return v->kind = VALUE_UNKNOWN, v->why = "too many items", OK;
    return items(p, v, piece, n, depth, true);
}

static Err parse_value(MathPool *p, Text t, int depth, bool in_brackets, Value **out)
{
    Text piece[VALUE_ITEMS];
    bool done;
    t = strip(t);
    Value *v = *out = value_new(p, VALUE_UNKNOWN);
    if (!v) return p->err;
    TRY(set_plain(p, v, t));
    v->why = "nested too deeply";
    if (depth > MATH_DEPTH / 4) return OK;
    if (!t.n) return v->why = "empty", OK;
    if (starts(t, 0, "\\emptyset") && t.n == 9) return v->kind = VALUE_SET, OK;
    t = take_name(p, t, v);
    if (v->name[0]) TRY(set_plain(p, v, t));
    int n = split(t, separator, !in_brackets, piece);
    if (n > 1 || n < 0) {
        v->kind = VALUE_LIST;
        if (n < 0) return v->kind = VALUE_UNKNOWN, v->why = "too many items", OK;
        return items(p, v, piece, n, depth, false);
    }
    if (only_words(t)) return v->kind = VALUE_WORDS, OK;
    if ((n = split(t, cup, false, piece)) > 1) return v->kind = VALUE_UNION, items(p, v, piece, n, depth, false);
    if ((n = split(t, equals_sign, false, piece)) > 1) {
        if (n != 2) return v->why = "more than one equals sign", OK;
        return v->kind = VALUE_EQUATION, items(p, v, piece, n, depth, false);
    }
    if (starts(t, 0, "\\begin")) return parse_matrix(p, t, depth, v);
    TRY(parse_bracketed(p, t, depth, v, &done));
    if (done) return OK;
    for (int64_t i = 0; i < t.n; i++)
        if (starts(t, i, "\\pm")) return parse_plus_minus(p, t, i, depth, v);
    return parse_scalar(p, t, depth, in_brackets, v);
}

Err math_parse(MathPool *p, const char *normal, Value **out)
{
    return parse_value(p, (Text){normal, (int64_t)strlen(normal)}, 0, false, out);
}
