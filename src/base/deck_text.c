// SPDX-License-Identifier: Apache-2.0
// The recipe as text: the resolved YAML and the manual. Both walk the schema in its order.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/deck_parts.h"

// One code point of a NUL-terminated text; returns its bytes, 0 when they are not UTF-8.
static int next_code(const char *s, uint32_t *code)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char c = (unsigned char)*s;
    int n = c < 0x80 ? 1 : c < 0xc0 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf8 ? 4 : 0;
    *code = n == 1 ? c : n ? c & (0x7fu >> n) : 0;
    for (int i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        *code = *code << 6 | (s[i] & 0x3f);
    }
    return n && *code >= least[n] && *code <= 0x10ffff && (*code < 0xd800 || *code > 0xdfff) ? n : 0;
}

bool deck_utf8(const char *text)
{
    uint32_t code;
    for (int n; *text; text += n)
        if (!(n = next_code(text, &code))) return false;
    return true;
}

// Characters that YAML does not take as they stand, or reads as line breaks.
static bool needs_escape(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029 || code == 0xfeff ||
           (code & 0xfffe) == 0xfffe;
}

static bool plain_text(const char *s)
{
    bool null = !strcmp(s, "null") || !strcmp(s, "Null") || !strcmp(s, "NULL");  // deck_yaml.c reads these as "not given"
    return *s && !null && strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./+-") == strlen(s) &&
           *s != '-';
}

static Err print_value(Str *out, DeckType type, const char *text)
{
    if (type != DECK_STR || plain_text(text)) return str_puts(out, text);
    TRY(str_puts(out, "\""));
    uint32_t code;
    for (int n; *text; text += n) {
        n = next_code(text, &code);
        ASSERT(n > 0);
        if (code == '"' || code == '\\') TRY(str_printf(out, "\\%c", (char)code));
        else if (needs_escape(code)) TRY(str_printf(out, "\\U%08x", code));
        else TRY(str_add(out, text, n));
    }
    return str_puts(out, "\"");
}

// A place in the tree while printing: the same node as pattern and as concrete path.
typedef struct Place {
    char pattern[DECK_PATH], path[DECK_PATH];
    int indent;
} Place;

static bool below(const char *key, const Place *at)
{
    size_t n = strlen(at->pattern);
    return n == 0 || (!strncmp(key, at->pattern, n) && key[n] == '.');
}

static const char *rest_of(const char *key, const Place *at) { return key + (*at->pattern ? strlen(at->pattern) + 1 : 0); }

static bool first_of_its_name(int i, const Place *at)
{
    const char *rest = rest_of(deck_schema[i].path, at);
    int n = deck_component(rest);
    for (int j = 0; j < i; j++) {
        if (!below(deck_schema[j].path, at)) continue;
        const char *other = rest_of(deck_schema[j].path, at);
        if (deck_component(other) == n && !strncmp(other, rest, (size_t)n)) return false;
    }
    return true;
}

static Err child_of(const Place *at, const char *name, int n, int64_t index, Place *child)
{
    char number[32] = "";
    if (index >= 0) snprintf(number, sizeof number, "[%" PRId64 "]", index);
    const char *dot = *at->path ? "." : "";
    int a = snprintf(child->pattern, DECK_PATH, "%s%s%.*s%s", at->pattern, dot, n, name, index >= 0 ? "[]" : "");
    int b = snprintf(child->path, DECK_PATH, "%s%s%.*s%s", at->path, dot, n, name, number);
    ASSERT(a < DECK_PATH && b < DECK_PATH);
    child->indent = at->indent + (index >= 0 ? 4 : 2);
    return OK;
}

static Err print_section(const Deck *d, Str *out, const Place *at);

static Err print_list(const Deck *d, Str *out, const Place *at, const char *name, int n)
{
    Place child;
    TRY(child_of(at, name, n, -1, &child));
    int64_t count = deck_count(d, child.path);
    if (count == 0) return OK;
    TRY(str_printf(out, "%*s%.*s:\n", at->indent, "", n, name));
    for (int64_t i = 0; i < count; i++) {
        TRY(child_of(at, name, n, i, &child));
        TRY(str_printf(out, "%*s-\n", at->indent + 2, ""));
        TRY(print_section(d, out, &child));
    }
    return OK;
}

static Err print_key(const Deck *d, Str *out, const Place *at, const DeckKey *key)
{
    Place child;
    const char *rest = rest_of(key->path, at);
    int n = deck_component(rest);
    if (rest[n] == '[') return print_list(d, out, at, rest, n);
    TRY(child_of(at, rest, n, -1, &child));
    if (rest[n] == '.') {
        TRY(str_printf(out, "%*s%.*s:\n", at->indent, "", n, rest));
        return print_section(d, out, &child);
    }
    const char *text = deck_text(d, key, child.path);
    if (!text) return OK;
    TRY(str_printf(out, "%*s%s: ", at->indent, "", rest));
    TRY(print_value(out, key->type, text));
    return str_puts(out, "\n");
}

static Err print_section(const Deck *d, Str *out, const Place *at)
{
    for (int i = 0; i < deck_schema_size; i++)
        if (below(deck_schema[i].path, at) && first_of_its_name(i, at)) TRY(print_key(d, out, at, &deck_schema[i]));
    return OK;
}

Err deck_print(const Deck *d, Str *out)
{
    Place top = {.indent = 0};
    return print_section(d, out, &top);
}

// ---- differences -----------------------------------------------------------------------------------------------------

static bool same_value(const DeckKey *key, const char *a, const char *b)
{
    if (!a || !b) return a == b;
    return key->type == DECK_F64 ? strtod(a, NULL) == strtod(b, NULL) : !strcmp(a, b);  // 1e-6 is 0.000001
}

static Err compare_value(const Deck *a, const Deck *b, const DeckKey *key, const char *path, bool in_a, bool in_b, DeckDiffer f,
                         void *user)
{
    const char *x = in_a ? deck_text(a, key, path) : NULL, *y = in_b ? deck_text(b, key, path) : NULL;
    return same_value(key, x, y) ? OK : f(user, path, key->layout, x, y);
}

// A key of a list: in every entry of the longer one.
static Err compare_key(const Deck *a, const Deck *b, const DeckKey *key, DeckDiffer f, void *user)
{
    char list[DECK_PATH], path[2 * DECK_PATH];
    const char *bracket = strstr(key->path, "[]");
    if (!bracket) return compare_value(a, b, key, key->path, true, true, f, user);
    snprintf(list, sizeof list, "%.*s", (int)(bracket - key->path), key->path);
    const int64_t in_a = deck_count(a, list), in_b = deck_count(b, list);
    for (int64_t i = 0; i < in_a || i < in_b; i++) {
        snprintf(path, sizeof path, "%s[%" PRId64 "]%s", list, i, bracket + 2);
        TRY(compare_value(a, b, key, path, i < in_a, i < in_b, f, user));
    }
    return OK;
}

Err deck_compare(const Deck *a, const Deck *b, DeckDiffer f, void *user)
{
    for (int i = 0; i < deck_schema_size; i++) TRY(compare_key(a, b, &deck_schema[i], f, user));
    return OK;
}

// ---- manual ----------------------------------------------------------------------------------------------------------

static bool in_manual(const char *path, const char *prefix)
{
    size_t n = strlen(prefix);
    return n == 0 || (!strncmp(path, prefix, n) && strchr(".[", path[n]));
}

Err deck_values(Str *out, const DeckKey *k)
{
    static const char *const names[] = {"text", "whole number", "number", "true or false"};
    if (k->choices) return str_puts(out, k->choices);
    TRY(str_puts(out, names[k->type]));
    if (k->type != DECK_I64 && k->type != DECK_F64) return OK;
    bool upper = k->max < 1e15;
    if (*k->unit) TRY(str_printf(out, ", %s", k->unit));
    return upper ? str_printf(out, ", %g to %g", k->min, k->max) : str_printf(out, ", from %g", k->min);
}

const char *deck_preset(const DeckKey *k) { return !k->preset ? "required" : *k->preset ? k->preset : "empty"; }

Err deck_manual(Str *out, const char *prefix)
{
    for (int i = 0; i < deck_schema_size; i++) {
        const DeckKey *k = &deck_schema[i];
        if (!in_manual(k->path, prefix)) continue;
        TRY(str_printf(out, "  %-30s %s%s  (", k->path, k->preset && *k->preset ? "= " : "", deck_preset(k)));
        TRY(deck_values(out, k));
        TRY(str_printf(out, ")\n      %s\n", k->help));
    }
    return OK;
}
