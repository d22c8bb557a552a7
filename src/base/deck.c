// SPDX-License-Identifier: Apache-2.0
// Values of the recipe: nodes by concrete path, checked against the schema when they are put.
// Look-up is linear: a recipe has some hundred values and is asked at the start of a stage, never in a loop.
#include "base/deck.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/deck_parts.h"
#include "base/mem.h"

int deck_component(const char *at) { return (int)strcspn(at, ".["); }

Err deck_pattern(const char *path, const char *where, char out[DECK_PATH])
{
    int n = 0;
    for (const char *p = path; *p; p++) {
        CHECK(n < DECK_PATH - 2, ERR_RECIPE, "%s: no key is that long (imf help recipe lists all)", where);
        out[n++] = *p;
        if (*p != '[') continue;
        size_t digits = strspn(p + 1, "0123456789");
        CHECK(digits > 0 && digits < 6 && p[1 + digits] == ']', ERR_RECIPE, "%s: '%s': an index looks like [0]", where, path);
        out[n++] = ']';
        p += digits + 1;
    }
    out[n] = '\0';
    return OK;
}

const DeckKey *deck_key(const char *pattern)
{
    for (int i = 0; i < deck_schema_size; i++)
        if (!strcmp(deck_schema[i].path, pattern)) return &deck_schema[i];
    return NULL;
}

bool deck_is_section(const char *pattern)
{
    size_t n = strlen(pattern);
    for (int i = 0; i < deck_schema_size; i++) {
        const char *p = deck_schema[i].path;
        if (!strncmp(p, pattern, n) && (p[n] == '.' || p[n] == '[')) return true;
    }
    return false;
}

DeckNode *deck_node(const Deck *d, const char *path)
{
    for (int64_t i = 0; i < d->n; i++)
        if (!strcmp(d->node[i].path, path)) return &d->node[i];
    return NULL;
}

// ---- unknown keys ----------------------------------------------------------------------------------------------------

// Length of the longest beginning of a pattern that is a section, with its dot; the next component is the wrong one.
static int known_part(const char *pattern)
{
    char part[DECK_PATH];
    int known = 0;
    for (int n = 0; pattern[n]; n++) {
        if (pattern[n] != '.') continue;
        snprintf(part, sizeof part, "%.*s", n, pattern);
        if (!deck_is_section(part)) break;
        known = n + 1;
    }
    return known;
}

// The nearest name beside the wrong component; when that is the last one, the same name in another section counts too. Empty
// when even that differs in more than half of its letters.
static void nearest(const char *pattern, char out[DECK_PATH])
{
    char name[DECK_PATH], other[DECK_PATH];
    int known = known_part(pattern), n = deck_component(pattern + known), best = 1000;
    bool last = !strchr(pattern + known, '.');
    snprintf(name, sizeof name, "%.*s", n, pattern + known);
    for (int i = 0; i < deck_schema_size; i++) {
        const char *path = deck_schema[i].path, *dot = strrchr(path, '.'), *leaf = dot ? dot + 1 : path;
        bool beside = !strncmp(path, pattern, (size_t)known);
        int m = beside ? deck_component(path + known) : 0;
        snprintf(other, sizeof other, "%.*s", m, path + (beside ? known : 0));
        int distance = beside ? 2 * str_distance(name, other) : 1000, far = last ? 2 * str_distance(name, leaf) + 1 : 1000;
        if (distance < best) {
            best = distance;
            snprintf(out, DECK_PATH, "%.*s", known + m, path);
        }
        if (far < best) {
            best = far;
            snprintf(out, DECK_PATH, "%s", path);
        }
    }
    if (best / 2 > (n + 1) / 2) *out = '\0';
}

static Err unknown(const char *path, const char *pattern, const char *where)
{
    char near[DECK_PATH] = "";
    nearest(pattern, near);
    CHECK(*near, ERR_RECIPE, "%s: unknown key '%s'; imf help recipe lists all", where, path);
    FAIL(ERR_RECIPE, "%s: unknown key '%s'; did you mean '%s'? (imf help recipe lists all)", where, path, near);
}

// ---- values ----------------------------------------------------------------------------------------------------------

static bool choice_known(const char *choices, const char *value)
{
    size_t n = strlen(value);
    for (const char *p = choices; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
        if (strcspn(p, "|") == n && !strncmp(p, value, n)) return n > 0;
    return false;
}

static Err check_range(const DeckKey *k, double v, const char *where, const char *path, const char *text)
{
    char upper[40] = "";
    if (k->max < 1e15 || v > k->max) snprintf(upper, sizeof upper, " to %.16g", k->max);
    CHECK(v >= k->min && v <= k->max, ERR_RECIPE, "%s: %s is %.60s; it must be from %g%s%s%s", where, path, text, k->min, upper,
          *k->unit ? " " : "", k->unit);
    return OK;
}

// The shortest text that reads back to the same number.
static void print_f64(double v, char out[40])
{
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(out, 40, "%.*g", digits, v);
        if (strtod(out, NULL) == v) return;
    }
}

static Err normal_f64(const DeckKey *k, const char *path, const char *text, const char *where, char out[40])
{
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    bool number = *text && !*end && !isspace((unsigned char)*text) && !strpbrk(text, "xXnN");
    CHECK(number && (errno == 0 || isinf(v)), ERR_RECIPE, "%s: %s is '%.60s'; it wants a number like 0.5 or 1e-6", where, path,
          text);
    TRY(check_range(k, v, where, path, text));
    print_f64(v + 0.0, out);  // -0 is 0
    return OK;
}

static Err normal_i64(const DeckKey *k, const char *path, const char *text, const char *where, char out[40])
{
    char *end;
    long long v = strtoll(text, &end, 10);  // far too large ones become the largest, which no range holds
    const char *digits = text + (*text == '-' || *text == '+');
    bool octal = digits[0] == '0' && digits[1];  // 010 is 8 to YAML 1.1 and 10 to most people
    CHECK(*text && !*end && !isspace((unsigned char)*text) && !octal, ERR_RECIPE,
          "%s: %s is '%.60s'; it wants a whole number, digits alone and no leading 0", where, path, text);
    TRY(check_range(k, (double)v, where, path, text));
    snprintf(out, 40, "%lld", v);
    return OK;
}

// Checks a value against its key and gives its one normal text (owned by the caller).
static Err normal_value(const DeckKey *k, const char *path, const char *text, const char *where, char **out)
{
    char number[40];
    switch (k->type) {
    case DECK_STR:
        CHECK(deck_utf8(text), ERR_RECIPE, "%s: the value of %s is not UTF-8; write it in UTF-8 (rename the file or directory)",
              where, path);
        CHECK(!k->choices || choice_known(k->choices, text), ERR_RECIPE, "%s: %s is '%.60s'; it must be one of %s", where, path,
              text, k->choices);
        return mem_strdup(out, text);
    case DECK_BOOL:
        CHECK(!strcmp(text, "true") || !strcmp(text, "false"), ERR_RECIPE, "%s: %s is '%.60s'; it must be true or false", where,
              path, text);
        return mem_strdup(out, text);
    case DECK_I64:
        TRY(normal_i64(k, path, text, where, number));
        return mem_strdup(out, number);
    case DECK_F64:
        TRY(normal_f64(k, path, text, where, number));
        return mem_strdup(out, number);
    }
    ASSERT(!"type of a key");
}

static Err add_node(Deck *d, const char *path, char *value, const char *where)
{
    Err err = OK;
    CHECK_DONE(d->n < DECK_NODES, ERR_RECIPE, "%s: a recipe has at most %d values; put long lists into data files", where,
               DECK_NODES);
    TRY_DONE(MEM_GROW(&d->node, d->n, &d->cap, d->n + 1));
    DeckNode *node = &d->node[d->n];
    *node = (DeckNode){.value = value};
    d->n++;
    TRY(mem_strdup(&node->path, path));
    return mem_strdup(&node->where, where);
done:
    mem_free(value);
    return err;
}

Err deck_put(Deck *d, const char *path, const char *value, const char *where, bool again)
{
    char pattern[DECK_PATH], *normal = NULL;
    TRY(deck_pattern(path, where, pattern));
    const DeckKey *key = deck_key(pattern);
    bool section = deck_is_section(pattern);
    if (!key && !section) return unknown(path, pattern, where);
    CHECK(key || !value, ERR_RECIPE,
          "%s: '%s' holds keys of its own, not one value; give one of them (imf help recipe lists all)", where, path);
    CHECK(section || value, ERR_RECIPE, "%s: '%s' wants one value behind its colon, not a list or a section", where, path);
    DeckNode *old = deck_node(d, path);
    if (old && !value && again) return OK;
    CHECK(!old || again, ERR_RECIPE, "%s: key '%s' is given twice (first at %s); remove one", where, path, old->where);
    if (value) TRY(normal_value(key, path, value, where, &normal));
    if (!old) return add_node(d, path, normal, where);
    mem_free(old->value);
    mem_free(old->where);
    old->value = normal;
    return mem_strdup(&old->where, where);
}

// ---- loading ---------------------------------------------------------------------------------------------------------

// "a.b[2].c": makes the sections above it, so that lists grow by one entry at a time.
static Err put_parents(Deck *d, const char *path, const char *where)
{
    char part[DECK_PATH];
    for (int n = 0; path[n]; n++) {
        if ((path[n] != '.' && path[n] != '[') || n >= DECK_PATH) continue;
        snprintf(part, sizeof part, "%.*s", n, path);
        if (!strchr(part, '[') || part[n - 1] == ']') TRY(deck_put(d, part, NULL, where, true));
        if (path[n] != '[') continue;
        int64_t have = deck_count(d, part), index = strtoll(path + n + 1, NULL, 10);
        CHECK(index <= have, ERR_RECIPE, "%s: %s has %" PRId64 " entries; the next one is [%" PRId64 "]", where, part, have, have);
    }
    return OK;
}

static Err apply_set(Deck *d, const char *set)
{
    char path[DECK_PATH], where[DECK_PATH + 16], pattern[DECK_PATH];
    const char *equals = strchr(set, '=');
    CHECK(equals && equals > set && equals - set < DECK_PATH, ERR_USAGE, "--set %.200s: it wants key=value", set);
    snprintf(path, sizeof path, "%.*s", (int)(equals - set), set);
    snprintf(where, sizeof where, "--set %s", path);
    TRY(deck_pattern(path, where, pattern));
    if (!deck_key(pattern) && !deck_is_section(pattern)) return unknown(path, pattern, where);
    TRY(put_parents(d, path, where));
    return deck_put(d, path, equals + 1, where, true);
}

// Every entry of a list has its required keys.
static Err check_required(const Deck *d)
{
    for (int64_t i = 0; i < d->n; i++) {
        const DeckNode *node = &d->node[i];
        if (node->value || !str_ends(node->path, "]")) continue;
        char pattern[DECK_PATH], path[2 * DECK_PATH];
        TRY(deck_pattern(node->path, node->where, pattern));
        size_t n = strlen(pattern);
        for (int k = 0; k < deck_schema_size; k++) {
            const DeckKey *key = &deck_schema[k];
            if (strncmp(key->path, pattern, n) || strchr(key->path + n + 1, '[') || key->preset) continue;
            snprintf(path, sizeof path, "%s%s", node->path, key->path + n);
            CHECK(deck_node(d, path), ERR_RECIPE, "%s: %s is missing: %s", node->where, path, key->help);
        }
    }
    return OK;
}

Err deck_load(Deck **out, const char *path, const char *const *sets, int n_sets)
{
    Deck *d;
    *out = NULL;
    TRY(MEM_ARRAY(&d, 1));
    Err err = OK;
    if (path) TRY_DONE(deck_read_yaml(d, path));
    for (int i = 0; i < n_sets; i++) TRY_DONE(apply_set(d, sets[i]));
    TRY_DONE(check_required(d));
    *out = d;
    d = NULL;
done:
    deck_free(d);
    return err;
}

void deck_free(Deck *d)
{
    if (!d) return;
    for (int64_t i = 0; i < d->n; i++) {
        mem_free(d->node[i].path);
        mem_free(d->node[i].value);
        mem_free(d->node[i].where);
    }
    mem_free(d->node);
    mem_free(d);
}

// ---- asking ----------------------------------------------------------------------------------------------------------

const char *deck_text(const Deck *d, const DeckKey *key, const char *path)
{
    const DeckNode *node = deck_node(d, path);
    return node && node->value ? node->value : key->preset;
}

// A path that the schema does not know cannot be answered: our bug, found by the first run of the code that asks.
static const char *ask(const Deck *d, const char *path, DeckType type)
{
    char pattern[DECK_PATH];
    const DeckKey *key = deck_pattern(path, "deck", pattern) == OK ? deck_key(pattern) : NULL;
    if (!key || key->type != type) {
        fprintf(stderr, "imf: bug: the recipe's schema has no key '%s' of the asked type\n", path);
        abort();
    }
    const char *text = deck_text(d, key, path);
    return text ? text : "";
}

const char *deck_str(const Deck *d, const char *path) { return ask(d, path, DECK_STR); }
int64_t deck_i64(const Deck *d, const char *path) { return strtoll(ask(d, path, DECK_I64), NULL, 10); }
double deck_f64(const Deck *d, const char *path) { return strtod(ask(d, path, DECK_F64), NULL); }
bool deck_bool(const Deck *d, const char *path) { return !strcmp(ask(d, path, DECK_BOOL), "true"); }

int64_t deck_count(const Deck *d, const char *list)
{
    int64_t count = 0;
    char path[DECK_PATH + 24];
    for (;; count++) {
        snprintf(path, sizeof path, "%s[%" PRId64 "]", list, count);
        if (!deck_node(d, path)) return count;
    }
}

bool deck_given(const Deck *d, const char *path) { return deck_node(d, path) != NULL; }

Err deck_need(const Deck *d, const char *path, const char **out)
{
    char pattern[DECK_PATH];
    *out = deck_str(d, path);
    TRY(deck_pattern(path, "deck", pattern));
    CHECK(**out, ERR_RECIPE, "the recipe does not say %s: %s", path, deck_key(pattern)->help);
    return OK;
}

// ---- hash ------------------------------------------------------------------------------------------------------------

static bool section_wanted(const char *path, const char *sections)
{
    int n = deck_component(path);
    for (const char *s = sections; *s; s += strcspn(s, " "), s += strspn(s, " "))
        if ((int)strcspn(s, " ") == n && !strncmp(s, path, (size_t)n)) return true;
    return *sections == '\0';
}

typedef struct Hashing {
    const Deck *d;
    Hash *h;
} Hashing;

// Values of one key: itself, or (a list's) those of every entry. At most one level of list is used by the schema.
static void hash_key(Hashing *x, const DeckKey *key)
{
    char list[DECK_PATH], path[2 * DECK_PATH];
    const char *bracket = strstr(key->path, "[]");
    snprintf(list, sizeof list, "%.*s", bracket ? (int)(bracket - key->path) : 0, key->path);
    int64_t count = bracket ? deck_count(x->d, list) : 1;
    for (int64_t i = 0; i < count; i++) {
        if (bracket) snprintf(path, sizeof path, "%s[%" PRId64 "]%s", list, i, bracket + 2);
        else snprintf(path, sizeof path, "%s", key->path);
        const char *text = deck_text(x->d, key, path);
        hash_add_text(x->h, path);
        if (key->type == DECK_F64) hash_add_f64(x->h, text ? strtod(text, NULL) : 0);  // 1e-6 is 0.000001
        else hash_add_text(x->h, text ? text : "");
    }
}

Err deck_hash_of(const Deck *d, const char *sections, Id *out)
{
    Hashing x = {.d = d};
    TRY(hash_new(&x.h));
    for (int i = 0; i < deck_schema_size; i++)
        if (!deck_schema[i].layout && section_wanted(deck_schema[i].path, sections ? sections : "")) hash_key(&x, &deck_schema[i]);
    *out = hash_end(x.h);
    return OK;
}

Id deck_hash(const Deck *d)
{
    Id id = {0};
    if (deck_hash_of(d, "", &id) != OK) return (Id){0};
    return id;
}
