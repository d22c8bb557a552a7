// SPDX-License-Identifier: Apache-2.0
// Every key of the schema with every wrong value its type has: refused with file:line:column, the key and what to write
// instead; a name misspelt by one letter is answered with the right one. Then recipes that are hostile as files. PRS-6, PRS-10,
// HPC-18.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/deck.h"
#include "base/io.h"

static char dir[] = "/tmp/imf-t14-XXXXXX";
static char file[IO_PATH];
static int cases;

// ---- recipes ---------------------------------------------------------------------------------------------------------

typedef struct Text {
    char p[4096];
    int n, lines;
} Text;

static void add(Text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    t->n += vsnprintf(t->p + t->n, sizeof t->p - (size_t)t->n, fmt, ap);
    va_end(ap);
    assert_true(t->n < (int)sizeof t->p);
    t->lines = 0;
    for (int i = 0; i < t->n; i++) t->lines += t->p[i] == '\n';
}

// The recipe that gives one key, its name replaced when `name` is not NULL: "sft:\n  data: V\n". The key is on the last line;
// entries of a list get the path they need before it. path: the concrete one.
static void write_key(const DeckKey *k, const char *name, const char *value, Text *out, char path[256])
{
    int indent = 0, n = 0;
    bool entry = false;
    *out = (Text){0};
    for (const char *p = k->path; *p;) {
        int len = (int)strcspn(p, ".[");
        bool last = !p[len], list = p[len] == '[';
        if (entry && strncmp(p, "path", 4) != 0) add(out, "%*s- path: x\n", indent - 2, ""), entry = false;
        add(out, "%*s%s%.*s:", entry ? indent - 2 : indent, "", entry ? "- " : "", last && name ? (int)strlen(name) : len,
            last && name ? name : p);
        n += snprintf(path + n, 256 - (size_t)n, "%.*s%s%s", len, p, list ? "[0]" : "", last ? "" : ".");
        if (last) add(out, " %s\n", value);
        else add(out, "\n");
        indent += list ? 4 : 2;
        entry = list;
        p += last ? len : list ? len + 3 : len + 1;
    }
}

static Err load_bytes(const char *bytes, int64_t n)
{
    Deck *d = NULL;
    (void)remove(file);  // a new one each time: writing over one, as io_write, syncs to the disk
    FILE *f = fopen(file, "w");
    assert_true(f && fwrite(bytes, 1, (size_t)n, f) == (size_t)n && fclose(f) == 0);
    clock_t began = clock();
    Err err = deck_load(&d, file, NULL, 0);
    cases++;
    if ((clock() - began) / CLOCKS_PER_SEC >= 2) fail_msg("a recipe of %lld bytes took over 2 s", (long long)n);
    deck_free(d);
    return err;
}

static Err load(const Text *t) { return load_bytes(t->p, t->n); }

// "file:LINE:COLUMN: " at the start.
static bool has_place(int line)
{
    int got = 0, column = 0, end = 0;
    size_t n = strlen(file);
    if (strncmp(err_message(), file, n) != 0) return false;
    if (sscanf(err_message() + n, ":%d:%d: %n", &got, &column, &end) != 2 || !end) return false;
    return got == line && column > 0;
}

static void refused(const Text *t, int line, const char *says, const char *advice)
{
    Err err = load(t);
    if (err != ERR_RECIPE || !has_place(line) || !strstr(err_message(), says) || !strstr(err_message(), advice))
        fail_msg("%sgave %d: %s\nwanted: line %d, '%s', '%s'", t->p, (int)err, err_message(), line, says, advice);
}

// ---- every key -------------------------------------------------------------------------------------------------------

// says NULL: the key's path
static void wrong(const DeckKey *k, const char *value, const char *says, const char *advice)
{
    Text t;
    char path[256];
    write_key(k, NULL, value, &t, path);
    refused(&t, t.lines, says ? says : path, advice);
}

static void wrong_values(const DeckKey *k, const char *const *values, const char *advice)
{
    for (; *values; values++) wrong(k, *values, NULL, advice);
}

static void test_wrong_type(void **state)
{
    (void)state;
    static const char *const whole[] = {"many", "1.5",  "1e3", "0x10", "010",  "-010", "yes", "true",     "1_000", "1,000",
                                        "'1 '", "' 1'", "''",  "nan",  ".inf", "1k",   "++1", "\xd9\xa1", NULL};
    static const char *const real[] = {"fast", "0x1p3", "yes", "nan",  ".nan", "NaN",    "inf", ".inf",
                                       "-inf", "1e",    "1,5", "' 1'", "''",   "1e-999", "50%", NULL};
    static const char *const logic[] = {"yes", "no", "on", "1", "0", "True", "TRUE", "''", NULL};
    for (int i = 0; i < deck_schema_size; i++) {
        const DeckKey *k = &deck_schema[i];
        if (k->type == DECK_I64) wrong_values(k, whole, "whole number, digits alone");
        if (k->type == DECK_F64) wrong_values(k, real, "wants a number like");
        if (k->type == DECK_BOOL) wrong_values(k, logic, "must be true or false");
    }
}

static void test_out_of_range(void **state)
{
    (void)state;
    for (int i = 0; i < deck_schema_size; i++) {
        const DeckKey *k = &deck_schema[i];
        if (k->type != DECK_I64 && k->type != DECK_F64) continue;
        char below[64], above[64];
        snprintf(below, sizeof below, "%.17g", k->type == DECK_I64 || k->min == 0 ? k->min - 1 : k->min * 0.99);
        snprintf(above, sizeof above, k->type == DECK_I64 ? "%.0f" : "%.17g", k->type == DECK_I64 ? k->max + 1 : k->max * 1.01);
        const char *const values[] = {below, above, k->type == DECK_I64 ? "99999999999999999999" : "1e999",
                                      k->type == DECK_I64 ? "-99999999999999999999" : "-1e999", NULL};
        wrong_values(k, values, "it must be from");
    }
}

static void test_range_names_its_end(void **state)
{
    (void)state;
    Text t = {0};
    add(&t, "seed: 99999999999999999\n");
    refused(&t, 1, "seed is 99999999999999999", "from 0 to 9000000000000000");
}

static void test_not_a_choice(void **state)
{
    (void)state;
    for (int i = 0; i < deck_schema_size; i++) {
        const DeckKey *k = &deck_schema[i];
        if (!k->choices) continue;
        char cut[64], all[128];
        snprintf(cut, sizeof cut, "%.*s", (int)strcspn(k->choices, "|") - 1, k->choices);
        snprintf(all, sizeof all, "'%s%s'", k->choices, strchr(k->choices, '|') ? "" : "|");
        const char *const values[] = {cut, all, "''", "1", "nothing", NULL};
        wrong_values(k, values, k->choices);
    }
}

static void test_wrong_shape(void **state)
{
    (void)state;
    static const char *const shapes[] = {"[1]", "[]", "{a: 1}", "{}", "[[1]]", NULL};
    for (int i = 0; i < deck_schema_size; i++) wrong_values(&deck_schema[i], shapes, "wants one value behind its colon");
    static const char *const lists[] = {"prompts", "sources", NULL};
    for (int i = 0; lists[i]; i++) {
        Text t = {0};
        add(&t, "%s: x\n", lists[i]);
        refused(&t, 1, ":", "a list is wanted here, not one value");
        t = (Text){0};
        add(&t, "%s: {path: x}\n", lists[i]);
        refused(&t, 1, ":", "a list is wanted here (lines that begin with '- ')");
        t = (Text){0};
        add(&t, "%s: [x]\n", lists[i]);
        refused(&t, 1, ":", "write 'key: value'");
    }
}

static void test_twice_and_markup(void **state)
{
    (void)state;
    static const char *const marked[] = {"&a 1", "*a", "!!str 1", "!x 1", NULL};
    for (int i = 0; i < deck_schema_size; i++) {
        const DeckKey *k = &deck_schema[i];
        Text t;
        char path[256], value[80];
        snprintf(value, sizeof value, "%.*s", (int)(k->choices ? strcspn(k->choices, "|") : 60),
                 k->choices  ? k->choices
                 : k->preset ? k->preset
                             : "x");
        write_key(k, NULL, *value ? value : "x", &t, path);
        const char *last = strstr(t.p, "\n") + 1 == t.p + t.n ? t.p : t.p + t.n - 1;
        while (last > t.p && last[-1] != '\n') last--;
        char line[512];
        snprintf(line, sizeof line, "%.500s", last);
        char *dash = strstr(line, "- ");
        if (dash && strspn(line, " ") == (size_t)(dash - line)) dash[0] = ' ';
        add(&t, "%s", line);
        refused(&t, t.lines, "is given twice", "remove one");
        for (int m = 0; marked[m]; m++) wrong(k, marked[m], "not allowed in a recipe", "quotes");
    }
    Text merge = {0};
    add(&merge, "<<: {seed: 1}\n");
    refused(&merge, 1, "unknown key '<<'", "imf help recipe lists all");
}

// ---- misspelt --------------------------------------------------------------------------------------------------------

static const char *leaf_of(const DeckKey *k)
{
    const char *dot = strrchr(k->path, '.');
    return dot ? dot + 1 : k->path;
}

// Is `name` a key beside k? Then it is no misspelling.
static bool is_beside(const DeckKey *k, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%.*s%s", (int)(leaf_of(k) - k->path), k->path, name);
    for (int i = 0; i < deck_schema_size; i++) {
        size_t n = strlen(path);
        if (!strncmp(deck_schema[i].path, path, n) && strchr(".[", deck_schema[i].path[n]))
            return true;  // strchr finds the NUL too
    }
    return false;
}

// The offered name is the right one, or another that is as near.
static void misspelt(const DeckKey *k, const char *name)
{
    Text t;
    char path[256], offer[256] = "", *at;
    if (!*name || is_beside(k, name)) return;
    write_key(k, name, "1", &t, path);
    refused(&t, t.lines, name, "did you mean '");
    at = strstr(err_message(), "did you mean '");
    sscanf(at, "did you mean '%255[^']", offer);
    const char *dot = strrchr(offer, '.'), *leaf = dot ? dot + 1 : offer;
    if (strcmp(offer, k->path) != 0 && str_distance(leaf, name) > 1) fail_msg("%s for %s: %s", name, k->path, err_message());
}

static void test_misspelt(void **state)
{
    (void)state;
    for (int i = 0; i < deck_schema_size; i++) {
        const DeckKey *k = &deck_schema[i];
        const char *leaf = leaf_of(k);
        int n = (int)strlen(leaf);
        for (int at = 0; at < n; at++) {
            char name[128];
            snprintf(name, sizeof name, "%.*s%s", at, leaf, leaf + at + 1);  // one letter less
            misspelt(k, name);
            snprintf(name, sizeof name, "%.*s%c%s", at, leaf, leaf[at], leaf + at);  // doubled
            misspelt(k, name);
            snprintf(name, sizeof name, "%s", leaf);
            name[at] = 'q';
            misspelt(k, name);
        }
    }
    static const char *const sections[][2] = {{"stf: {data: x}", "'sft'"},
                                              {"dop: {beta: 1}", "'dpo'"},
                                              {"evall: {seed: 1}", "'eval'"},
                                              {"targte: {path: x}", "'target'"},
                                              {"promts: [{path: x}]", "'prompts'"}};
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
        Text t = {0};
        add(&t, "%s\n", sections[i][0]);
        refused(&t, 1, "unknown key", sections[i][1]);
    }
}

static void test_missing(void **state)
{
    (void)state;
    int required = 0;
    for (int i = 0; i < deck_schema_size; i++) {
        const DeckKey *k = &deck_schema[i];
        if (k->preset) continue;
        Text t;
        char path[256];
        write_key(k, NULL, "", &t, path);  // "path:" alone
        refused(&t, t.lines, path, "is missing: ");
        required++;
    }
    assert_true(required >= 5);
}

// ---- hostile files ---------------------------------------------------------------------------------------------------

typedef struct Hostile {
    const char *bytes;
    int64_t n;  // 0: strlen
    int line;   // 0: it is a recipe after all
    const char *says;
} Hostile;

static const Hostile hostile[] = {
    {"seed: 1\n\tthreads: 2\n", 0, 2, "indent with spaces"},
    {"\tseed: 1\n", 0, 1, "indent with spaces"},
    {"\xef\xbb\xbfseed: 1\n", 0, 0, ""},
    {"seed: 1\r\nthreads: 2\r\n", 0, 0, ""},
    {"\xff\xfes\0e\0e\0d\0:\0 \0001\0\n\0", 18, 0, ""},
    {"seed: 1\nrun_dir: caf\xe9\n", 0, 2, "plain UTF-8"},
    {"seed: 1\nrun_dir: \xed\xa0\x80\n", 0, 2, "plain UTF-8"},
    {"seed: 1\nrun_dir: a\0b\n", 21, 2, "plain UTF-8"},
    {"run_dir: \"a\\0b\"\n", 0, 1, "NUL"},
    {"\"se\\0ed\": 1\n", 0, 1, "one word"},
    {"\"\": 1\n", 0, 1, "one word"},
    {"\x7f"
     "ELF\2\1\1\0\0\0\0\0\0\0\0\0\3\0\x3e",
     19, 1, "plain UTF-8"},
    {"seed: 1\n\0\0\0\0", 12, 2, "plain UTF-8"},
    {"{\"seed\": 1}", 0, 0, ""},
    {"{\"seed\": 1\n", 0, 2, "check quotes, brackets"},
    {"seed: 'x\n\n\n", 0, 4, "check quotes, brackets"},
    {"seed 1\n", 0, 1, "lines of 'key: value'"},
    {"#!/bin/sh\necho hello\n", 0, 2, "lines of 'key: value'"},
    {"seed: ~\nthreads: null\nrun_dir: ~\n", 0, 0, ""},
    {"seed: -0\npair: {margin_min: -0.0}\n", 0, 0, ""},
    {"%YAML 9.9\n---\nseed: 1\n", 0, 1, "check quotes, brackets"},
};

static void test_hostile(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        const Hostile *h = &hostile[i];
        Err err = load_bytes(h->bytes, h->n ? h->n : (int64_t)strlen(h->bytes));
        if (!h->line && err == OK) continue;
        if (!h->line || err != ERR_RECIPE || !has_place(h->line) || !strstr(err_message(), h->says))
            fail_msg("case %zu, '%s', gave %d: %s", i, h->bytes, (int)err, err_message());
    }
}

// n times a piece of text: no depth or length takes long.
static void many(const char *before, const char *piece, int n, const char *after, Err wanted)
{
    Str s = {0};
    assert_int_equal(str_puts(&s, before), OK);
    for (int i = 0; i < n; i++) assert_int_equal(str_puts(&s, piece), OK);
    assert_int_equal(str_puts(&s, after), OK);
    Err err = load_bytes(str_text(&s), s.len);
    if (err != wanted) fail_msg("%s%s x %d gave %d: %.200s", before, piece, n, (int)err, err_message());
    if (err != OK && !strstr(err_message(), file)) fail_msg("no file in: %.200s", err_message());
    str_free(&s);
}

static void test_large(void **state)
{
    (void)state;
    many("seed: ", "[", 100000, "", ERR_RECIPE);
    many("sft: ", "{a: ", 100000, "", ERR_RECIPE);
    many("", "? ", 100000, "", ERR_RECIPE);
    many("", "- ", 100000, "", ERR_RECIPE);
    many("sources: ", "- ", 100000, "", ERR_RECIPE);
    many("", "[", 1000000, "", ERR_RECIPE);
    many("seed: ", "9", 1000000, "\n", ERR_RECIPE);
    many("run_dir: ", "x", 1000000, "\n", OK);
    many("", "x", 1000000, ": 1\n", ERR_RECIPE);
    many("# ", "x", 1000000, "\n", OK);
    many("", "\n", 1000000, "", OK);
    many("", "x: 1\n", 200000, "", ERR_RECIPE);
    many("run_dir: \"", "\\\"", 500000, "\"\n", OK);
    many("prompts:\n", " - path: x\n", 4000, "", OK);
    many("prompts:\n", " - path: x\n", 20000, "", ERR_RECIPE);
    many("", "x", 2000000, "", ERR_DATA);
}

// Whatever a value holds, the message stays short enough to end with its advice and sends no control character to a terminal.
static void test_long_values_keep_the_advice(void **state)
{
    (void)state;
    static const char *const ends[][2] = {{"seed: \"", "digits alone"},
                                          {"dtype: \"", "float32|bfloat16"},
                                          {"exact: \"", "true or false"},
                                          {"sft: {learning_rate: \"", "like 0.5"}};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        many(ends[i][0], "\\e[31mx", 5000, i == 3 ? "\"}\n" : "\"\n", ERR_RECIPE);
        if (!strstr(err_message(), ends[i][1]) || strchr(err_message(), 27)) fail_msg("%s", err_message());
    }
}

static int remove_dir(void **state)
{
    (void)state;
    if (cases < 5000) printf("only %d recipes were tried\n", cases);
    return cases < 5000 || io_remove_tree(dir) != OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_type),
        cmocka_unit_test(test_out_of_range),
        cmocka_unit_test(test_range_names_its_end),
        cmocka_unit_test(test_not_a_choice),
        cmocka_unit_test(test_wrong_shape),
        cmocka_unit_test(test_twice_and_markup),
        cmocka_unit_test(test_misspelt),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_long_values_keep_the_advice),
    };
    if (!mkdtemp(dir) || io_join(file, dir, "recipe.yaml") != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, remove_dir);
}
