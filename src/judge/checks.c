// SPDX-License-Identifier: Apache-2.0
// Graded instruction checks: one small function a kind, found in a table. The list of kinds is in checks.h.
// Drawback: surface text only; whether an answer is true or useful is for other judges.
#include "judge/checks.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "judge/judge.h"

// A piece of text: pointer and length, not owned.
typedef struct Span {
    const char *p;
    int64_t n;
} Span;

typedef struct Check {
    const json_t *spec;
    const char *kind;
    char where[160];  // "file:3: check 2 (order)"
    bool ignore_case;
} Check;

static Span span_of(const char *s) { return (Span){s, (int64_t)strlen(s)}; }

static Span trimmed(const char *s)
{
    Span a = span_of(s);
    while (a.n && isspace((unsigned char)a.p[0])) a.p++, a.n--;
    while (a.n && isspace((unsigned char)a.p[a.n - 1])) a.n--;
    return a;
}

static bool same(const Check *c, const char *a, const char *b, int64_t n)
{
    return c->ignore_case ? strncasecmp(a, b, (size_t)n) == 0 : memcmp(a, b, (size_t)n) == 0;
}

// First place of `text` in answer at or after `from`; -1 when there is none.
static int64_t find(const Check *c, Span answer, Span text, int64_t from)
{
    for (int64_t i = from; i + text.n <= answer.n; i++)
        if (same(c, answer.p + i, text.p, text.n)) return i;
    return -1;
}

// ---- arguments ---------------------------------------------------------------------------------------------------------

static Err arg_text(const Check *c, const char *key, Span *out)
{
    const json_t *v = json_object_get(c->spec, key);
    CHECK(json_is_string(v) && json_string_length(v), ERR_DATA, "%s: wants \"%s\": a text that is not empty", c->where, key);
    *out = (Span){json_string_value(v), (int64_t)json_string_length(v)};
    return OK;
}

static Err arg_list(const Check *c, const char *key, const json_t **out)
{
    const json_t *v = json_object_get(c->spec, key);
    CHECK(json_array_size(v), ERR_DATA, "%s: wants \"%s\": a list of texts", c->where, key);
    for (size_t i = 0; i < json_array_size(v); i++)
        CHECK(json_string_length(json_array_get(v, i)), ERR_DATA, "%s: \"%s\" must hold texts that are not empty", c->where, key);
    *out = v;
    return OK;
}

static Span item(const json_t *list, size_t i)
{
    const json_t *v = json_array_get(list, i);
    return (Span){json_string_value(v), (int64_t)json_string_length(v)};
}

static Err arg_count(const Check *c, const char *key, bool needed, int64_t preset, int64_t *out)
{
    const json_t *v = json_object_get(c->spec, key);
    *out = preset;
    if (!v && !needed) return OK;
    CHECK(json_is_integer(v) && json_integer_value(v) >= 0, ERR_DATA, "%s: wants \"%s\": a number >= 0", c->where, key);
    *out = json_integer_value(v);
    return OK;
}

// min..max around a count; at least one of both must be given.
static Err in_range(const Check *c, int64_t count, bool *met)
{
    int64_t min, max;
    CHECK(json_object_get(c->spec, "min") || json_object_get(c->spec, "max"), ERR_DATA, "%s: wants \"min\" or \"max\"", c->where);
    TRY(arg_count(c, "min", false, 0, &min));
    TRY(arg_count(c, "max", false, INT64_MAX, &max));
    *met = count >= min && count <= max;
    return OK;
}

// ---- kinds --------------------------------------------------------------------------------------------------------------

static Err starts_with(const Check *c, Span a, bool *met)
{
    Span t;
    TRY(arg_text(c, "text", &t));
    *met = a.n >= t.n && same(c, a.p, t.p, t.n);
    return OK;
}

static Err ends_with(const Check *c, Span a, bool *met)
{
    Span t;
    TRY(arg_text(c, "text", &t));
    *met = a.n >= t.n && same(c, a.p + a.n - t.n, t.p, t.n);
    return OK;
}

static Err equals(const Check *c, Span a, bool *met)
{
    Span t;
    TRY(arg_text(c, "text", &t));
    *met = a.n == t.n && same(c, a.p, t.p, t.n);
    return OK;
}

static Err contains(const Check *c, Span a, bool *met)
{
    Span t;
    int64_t min, max, count = 0;
    TRY(arg_text(c, "text", &t));
    TRY(arg_count(c, "min", false, 1, &min));
    TRY(arg_count(c, "max", false, INT64_MAX, &max));
    for (int64_t i = find(c, a, t, 0); i >= 0; i = find(c, a, t, i + t.n)) count++;
    *met = count >= min && count <= max;
    return OK;
}

// How many of the texts occur.
static Err count_texts(const Check *c, Span a, size_t *found, size_t *all)
{
    const json_t *list;
    TRY(arg_list(c, "texts", &list));
    *found = 0, *all = json_array_size(list);
    for (size_t i = 0; i < *all; i++) *found += find(c, a, item(list, i), 0) >= 0;
    return OK;
}

static Err not_contains(const Check *c, Span a, bool *met)
{
    size_t found, all;
    Span t;
    if (json_object_get(c->spec, "texts")) {
        TRY(count_texts(c, a, &found, &all));
        *met = found == 0;
        return OK;
    }
    TRY(arg_text(c, "text", &t));
    *met = find(c, a, t, 0) < 0;
    return OK;
}

static Err contains_any(const Check *c, Span a, bool *met)
{
    size_t found, all;
    TRY(count_texts(c, a, &found, &all));
    *met = found > 0;
    return OK;
}

static Err contains_all(const Check *c, Span a, bool *met)
{
    size_t found, all;
    TRY(count_texts(c, a, &found, &all));
    *met = found == all;
    return OK;
}

static bool alnum_at(Span s, int64_t i) { return i >= 0 && i < s.n && isalnum((unsigned char)s.p[i]); }

static Err equals_content(const Check *c, Span a, bool *met)
{
    Span t;
    TRY(arg_text(c, "text", &t));
    *met = false;
    for (int64_t i = find(c, a, t, 0); i >= 0 && !*met; i = find(c, a, t, i + 1))
        *met = !(alnum_at(t, 0) && alnum_at(a, i - 1)) && !(alnum_at(t, t.n - 1) && alnum_at(a, i + t.n));
    return OK;
}

// Bytes of the UTF-8 character at p (1 for a stray byte).
static int64_t char_bytes(Span s, int64_t i)
{
    int64_t n = 1;
    while (i + n < s.n && ((unsigned char)s.p[i + n] & 0xC0) == 0x80) n++;
    return n;
}

static bool has_char(Span chars, const char *p, int64_t n)
{
    for (int64_t i = 0; i < chars.n; i += char_bytes(chars, i))
        if (char_bytes(chars, i) == n && !memcmp(chars.p + i, p, (size_t)n)) return true;
    return false;
}

// Characters of the answer that are in chars, and all characters.
static Err count_chars(const Check *c, Span a, int64_t *inside, int64_t *all)
{
    Span chars;
    TRY(arg_text(c, "chars", &chars));
    *inside = *all = 0;
    for (int64_t i = 0; i < a.n; i += char_bytes(a, i)) *inside += has_char(chars, a.p + i, char_bytes(a, i)), ++*all;
    return OK;
}

static Err no_char(const Check *c, Span a, bool *met)
{
    int64_t inside, all;
    TRY(count_chars(c, a, &inside, &all));
    *met = inside == 0;
    return OK;
}

static Err only_char(const Check *c, Span a, bool *met)
{
    int64_t inside, all;
    TRY(count_chars(c, a, &inside, &all));
    *met = inside == all;
    return OK;
}

static int64_t words(Span a)
{
    int64_t n = 0;
    for (int64_t i = 0; i < a.n; i++)
        n += !isspace((unsigned char)a.p[i]) && (i == 0 || isspace((unsigned char)a.p[i - 1]));
    return n;
}

static Err word_count(const Check *c, Span a, bool *met) { return in_range(c, words(a), met); }

static Err word_count_max(const Check *c, Span a, bool *met)
{
    int64_t n;
    TRY(arg_count(c, "n", true, 0, &n));
    *met = words(a) <= n;
    return OK;
}

static Err word_count_min(const Check *c, Span a, bool *met)
{
    int64_t n;
    TRY(arg_count(c, "n", true, 0, &n));
    *met = words(a) >= n;
    return OK;
}

static Err line_count(const Check *c, Span a, bool *met)
{
    int64_t n = 0;
    bool inside = false;
    for (int64_t i = 0; i < a.n; i++) {
        if (a.p[i] == '\n') inside = false;
        else if (!inside && !isspace((unsigned char)a.p[i])) inside = true, n++;
    }
    return in_range(c, n, met);
}

static Err char_count(const Check *c, Span a, bool *met)
{
    int64_t n = 0;
    for (int64_t i = 0; i < a.n; i += char_bytes(a, i)) n++;
    return in_range(c, n, met);
}

static Err order(const Check *c, Span a, bool *met)
{
    const json_t *list;
    TRY(arg_list(c, "items", &list));
    int64_t at = 0;
    for (size_t i = 0; i < json_array_size(list) && at >= 0; i++) {
        at = find(c, a, item(list, i), at);
        if (at >= 0) at += item(list, i).n;
    }
    *met = at >= 0;
    return OK;
}

static Err letter_case(const Check *c, Span a, bool *met)
{
    Span v;
    TRY(arg_text(c, "value", &v));
    bool upper = !strcmp(v.p, "upper");
    CHECK(upper || !strcmp(v.p, "lower"), ERR_DATA, "%s: \"value\" must be \"upper\" or \"lower\", not \"%s\"", c->where, v.p);
    *met = true;
    for (int64_t i = 0; i < a.n; i++)
        if (upper ? islower((unsigned char)a.p[i]) : isupper((unsigned char)a.p[i])) *met = false;
    return OK;
}

static const struct Kind {
    const char *name;
    Err (*check)(const Check *c, Span answer, bool *met);
} kinds[] = {
    {"starts_with", starts_with},   {"ends_with", ends_with},
    {"contains", contains},         {"not_contains", not_contains},
    {"contains_any", contains_any}, {"contains_all", contains_all},
    {"equals", equals},             {"equals_content", equals_content},
    {"no_char", no_char},           {"only_char", only_char},
    {"word_count", word_count},     {"word_count_max", word_count_max},
    {"word_count_min", word_count_min}, {"line_count", line_count},
    {"char_count", char_count},     {"order", order},
    {"case", letter_case},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

// ---- the judge ----------------------------------------------------------------------------------------------------------

static const struct Kind *find_kind(const char *name)
{
    for (int i = 0; i < KINDS; i++)
        if (!strcmp(kinds[i].name, name)) return &kinds[i];
    return NULL;
}

// The nearest name, or all of them when none is near.
static Err unknown_kind(const char *name, size_t number, const char *where)
{
    char all[512] = "";
    int best = 0;
    for (int i = 0; i < KINDS; i++) {
        if (str_distance(kinds[i].name, name) < str_distance(kinds[best].name, name)) best = i;
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? ", " : "", kinds[i].name);
    }
    bool near = 2 * str_distance(kinds[best].name, name) <= (int)strlen(name);
    CHECK(!near, ERR_DATA, "%s: check %zu: unknown kind \"%.40s\"; did you mean \"%s\"?", where, number, name,
          kinds[best].name);
    FAIL(ERR_DATA, "%s: check %zu: unknown kind \"%.40s\"; it must be one of %s", where, number, name, all);
}

static Err check_one(const json_t *spec, size_t number, const char *where, Span answer, double *weight, bool *met)
{
    Check c = {.spec = spec};
    CHECK(json_is_object(spec), ERR_DATA, "%s: check %zu is not an object", where, number);
    c.kind = json_string_value(json_object_get(spec, "kind"));
    CHECK(c.kind, ERR_DATA, "%s: check %zu has no \"kind\"", where, number);
    const struct Kind *kind = find_kind(c.kind);
    if (!kind) return unknown_kind(c.kind, number, where);
    snprintf(c.where, sizeof c.where, "%.100s: check %zu (%s)", where, number, kind->name);
    c.ignore_case = json_is_true(json_object_get(spec, "ignore_case"));
    const json_t *w = json_object_get(spec, "weight");
    *weight = w ? json_number_value(w) : 1;
    CHECK(*weight > 0 && *weight < 1e6, ERR_DATA, "%s: \"weight\" must be a number > 0", c.where);
    return kind->check(&c, answer, met);
}

static Err check_list(const json_t *checks, const char *where)
{
    CHECK(json_is_array(checks) && json_array_size(checks), ERR_DATA, "%s: \"checks\" must be a list of checks that is not empty", where);
    CHECK(json_array_size(checks) <= CHECKS_MAX, ERR_DATA, "%s: more than %d checks", where, CHECKS_MAX);
    return OK;
}

Err checks_validate(const json_t *checks, const char *where)
{
    double weight;
    bool met;
    TRY(check_list(checks, where));
    for (size_t i = 0; i < json_array_size(checks); i++)
        TRY(check_one(json_array_get(checks, i), i + 1, where, span_of(""), &weight, &met));
    return OK;
}

// Adds text to a fixed buffer, cut at its end.
static void append(char *buf, size_t size, const char *text)
{
    size_t n = strlen(buf);
    snprintf(buf + n, size - n, "%s", text);
}

Err checks_judge(const json_t *checks, const char *answer, const char *where, Verdict *out)
{
    double sum = 0, got = 0;
    size_t met_count = 0, all = json_array_size(checks);
    char unmet[160] = "";
    *out = (Verdict){0};
    TRY(check_list(checks, where));
    for (size_t i = 0; i < all; i++) {
        double weight;
        bool met;
        const json_t *spec = json_array_get(checks, i);
        TRY(check_one(spec, i + 1, where, trimmed(answer), &weight, &met));
        sum += weight;
        if (met) got += weight, met_count++;
        else append(unmet, sizeof unmet, unmet[0] ? ", " : "; not met: "),
             append(unmet, sizeof unmet, json_string_value(json_object_get(spec, "kind")));
    }
    out->grade = met_count == all ? 1 : got / sum;
    out->outcome = met_count == all ? VERDICT_RIGHT : VERDICT_WRONG;
    snprintf(out->reason, sizeof out->reason, "met %zu of %zu%s", met_count, all, unmet);
    return OK;
}
