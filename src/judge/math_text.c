// SPDX-License-Identifier: Apache-2.0
// Normalises the text of an answer: one pass over the bytes, commands by a table. Unknown commands stay, so that the parser
// can say what it did not understand.
#include <ctype.h>
#include <string.h>

#include "judge/math_parse.h"

static const struct {
    const char *from, *to;
} commands[] = {
    {"left", ""},      {"right", ""},     {"big", ""},       {"Big", ""},        {"bigl", ""},     {"bigr", ""},
    {"Bigl", ""},      {"Bigr", ""},      {"displaystyle", " "}, {"limits", ""}, {"quad", " "},    {"qquad", " "},
    {"dfrac", "\\frac"}, {"tfrac", "\\frac"}, {"cfrac", "\\frac"}, {"cdot", "*"}, {"times", "*"},  {"div", "/"},
    {"boxed", ""},     {"lbrace", "\1"},  {"rbrace", "\2"},  {"varnothing", "\\emptyset"}, {"leq", "\\le"}, {"geq", "\\ge"},
    {"bmatrix", "pmatrix"}, {"degree", "^\\circ"}, {"degrees", "^\\circ"}, {"lbrack", "["}, {"rbrack", "]"},
    {"Re", "\\Re"},    {"nobreak", ""},   {"thinspace", " "}, {"mathstrut", ""},
}, signs[] = {
    {"!", ""}, {",", " "}, {";", " "}, {":", " "}, {" ", " "}, {"\n", " "}, {"(", ""}, {")", ""}, {"[", ""}, {"]", ""},
    {"{", "\1"}, {"}", "\2"}, {"$", ""}, {"%", "%"}, {"\\", "\\\\"}, {"&", "&"}, {"_", "_"}, {"#", "#"}, {"|", "\\|"},
}, unicode[] = {
    {"\xCF\x80", "\\pi "}, {"\xE2\x88\x92", "-"}, {"\xE2\x80\x93", "-"}, {"\xC3\x97", "*"}, {"\xC2\xB7", "*"}, {"\xC3\xB7", "/"},
    {"\xE2\x88\x9E", "\\infty "}, {"\xE2\x88\xAA", "\\cup "}, {"\xC2\xB0", "^\\circ "}, {"\xC2\xB2", "^2"}, {"\xC2\xB3", "^3"},
    {"\xE2\x88\x9A", "\\sqrt "}, {"\xC2\xA0", " "}, {"\xE2\x82\xAC", ""}, {"\xC2\xA3", ""}, {"\xC2\xBD", "\\frac{1}{2}"},
    {"\xC2\xBC", "\\frac{1}{4}"}, {"\xC2\xBE", "\\frac{3}{4}"}, {"\xE2\x89\xA4", "\\le "}, {"\xE2\x89\xA5", "\\ge "},
    {"\xE2\x80\xAF", " "}, {"\xE2\x80\x89", " "},
};
static const char *const text_commands[] = {"text", "mbox", "textbf", "textnormal", "mathrm", "textit", "textrm", "operatorname",
                                            "mathbf", "mathit", "hbox", "texttt"};

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

// Index after the group that starts with '{' at i; n when it is not closed.
static int64_t after_group(const char *s, int64_t n, int64_t i)
{
    int depth = 0;
    for (; i < n; i++) {
        if (s[i] == '{') depth++;
        if (s[i] == '}' && --depth == 0) return i + 1;
    }
    return n;
}

static bool is_text_command(const char *name, size_t len)
{
    for (size_t i = 0; i < COUNT(text_commands); i++)
        if (strlen(text_commands[i]) == len && !memcmp(text_commands[i], name, len)) return true;
    return false;
}

// \text{...} at `open`: quoted, or bare when it is one letter set in another face (\mathbf{j}) or a number.
static Err add_text(Str *out, const char *s, int64_t n, int64_t open, int64_t *next, bool math_face)
{
    int64_t end = after_group(s, n, open), len = end - open - 2;
    const char *in = s + open + 1;
    *next = end;
    if (len <= 0) return OK;
    bool number = true;
    for (int64_t i = 0; i < len; i++) number = number && (isdigit((unsigned char)in[i]) || strchr("., ", in[i]));
    if (number || (math_face && len == 1)) return str_add(out, in, len);
    TRY(str_puts(out, "\""));
    for (int64_t i = 0; i < len; i++)
        if (!strchr("\"{}$\\", in[i])) TRY(str_add(out, in + i, 1));
    return str_puts(out, "\"");
}

static Err add_command(Str *out, const char *s, int64_t n, int64_t *at)
{
    int64_t i = *at + 1, start = i;
    while (i < n && isalpha((unsigned char)s[i])) i++;
    size_t len = (size_t)(i - start);
    int64_t j = i;
    while (j < n && s[j] == ' ') j++;
    *at = i;
    if (is_text_command(s + start, len) && j < n && s[j] == '{') return add_text(out, s, n, j, at, !strncmp(s + start, "math", 4));
    if (len == 7 && !memcmp(s + start, "phantom", 7)) {
        *at = j < n && s[j] == '{' ? after_group(s, n, j) : j + 1;
        return OK;
    }
    for (size_t k = 0; k < COUNT(commands); k++)
        if (strlen(commands[k].from) == len && !memcmp(commands[k].from, s + start, len)) return str_puts(out, commands[k].to);
    TRY(str_add(out, s + start - 1, (int64_t)len + 1));
    return i < n && isalnum((unsigned char)s[i]) ? str_puts(out, " ") : OK;
}

static Err add_sign(Str *out, const char *s, int64_t n, int64_t *at)
{
    char c = *at + 1 < n ? s[*at + 1] : ' ';
    *at += 2;
    if (c == '!' && out->len && out->p[out->len - 1] == ',' && *at < n && isdigit((unsigned char)s[*at])) {
        out->p[--out->len] = '\0';  // 2,\!880
        return OK;
    }
    for (size_t k = 0; k < COUNT(signs); k++)
        if (signs[k].from[0] == c) return str_puts(out, signs[k].to);
    return str_add(out, &c, 1);
}

static Err add_plain(Str *out, const char *s, int64_t n, int64_t *at)
{
    int64_t i = *at;
    for (size_t k = 0; k < COUNT(unicode); k++) {
        int64_t len = (int64_t)strlen(unicode[k].from);
        if (i + len <= n && !memcmp(unicode[k].from, s + i, (size_t)len)) {
            *at += len;
            return str_puts(out, unicode[k].to);
        }
    }
    *at += 1;
    if (s[i] == '$' || s[i] == '`') return OK;
    if (i + 3 <= n && !memcmp(s + i, "{,}", 3)) return *at += 2, OK;
    if (s[i] == '\n' || s[i] == '\t' || s[i] == '\r' || s[i] == '~') return str_puts(out, " ");
    if (s[i] == '\1' || s[i] == '\2' || s[i] == '"' || s[i] == '\0') return OK;
    return str_add(out, s + i, 1);
}

static void trim(Str *s)
{
    static const char ends[] = " .,;:";
    while (s->len && strchr(ends, s->p[s->len - 1])) s->p[--s->len] = '\0';
    int64_t k = 0;
    while (k < s->len && strchr(" :", s->p[k])) k++;
    while (s->len - k >= 4 && !strncmp(s->p + k, "**", 2) && !strncmp(s->p + s->len - 2, "**", 2)) {
        s->len -= 2, k += 2;
        s->p[s->len] = '\0';
    }
    while (s->len > k && strchr(ends, s->p[s->len - 1])) s->p[--s->len] = '\0';
    if (k) memmove(s->p, s->p + k, (size_t)(s->len - k) + 1), s->len -= k;
}

Err math_normalize(const char *s, int64_t n, Str *out)
{
    str_clear(out);
    for (int64_t i = 0; i < n;) {
        if (s[i] != '\\') TRY(add_plain(out, s, n, &i));
        else if (i + 1 < n && isalpha((unsigned char)s[i + 1])) TRY(add_command(out, s, n, &i));
        else TRY(add_sign(out, s, n, &i));
    }
    if (out->len) trim(out);
    return OK;
}
