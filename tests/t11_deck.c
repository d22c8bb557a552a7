// SPDX-License-Identifier: Apache-2.0
// The recipe: values and defaults, every refusal with its place, --set, print and load again, hash, manual.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/deck.h"
#include "base/io.h"

static char dir[] = "/tmp/imf-t11-XXXXXX";
static char file[IO_PATH];

static Err load(Deck **d, const char *yaml, const char *set)
{
    assert_int_equal(io_write(file, yaml, (int64_t)strlen(yaml)), OK);
    return deck_load(d, file, &set, set ? 1 : 0);
}

static void test_defaults_and_values(void **state)
{
    (void)state;
    Deck *d;
    assert_int_equal(deck_load(&d, NULL, NULL, 0), OK);
    assert_int_equal(deck_i64(d, "seed"), 42);
    assert_true(deck_f64(d, "pair.margin_max") == 0.1 && deck_bool(d, "exact"));
    assert_int_equal(deck_count(d, "sources"), 0);
    assert_false(deck_given(d, "seed"));
    deck_free(d);
    assert_int_equal(load(&d, "# a comment\nseed: 7\nsources:\n  - {path: a/b, temperature: 0.25}\n  - path: \"c: d\"\nsft:\n"
                              "  learning_rate: 2e-5\neval:\n", NULL), OK);
    assert_int_equal(deck_i64(d, "seed"), 7);
    assert_true(deck_given(d, "seed"));
    assert_int_equal(deck_count(d, "sources"), 2);
    assert_string_equal(deck_str(d, "sources[1].path"), "c: d");
    assert_true(deck_f64(d, "sources[0].temperature") == 0.25 && deck_f64(d, "sources[1].temperature") == 0.8);
    assert_true(deck_f64(d, "sft.learning_rate") == 2e-5);
    deck_free(d);
    assert_int_equal(load(&d, "", NULL), OK);
    deck_free(d);
    assert_int_equal(load(&d, "seed:\n", NULL), OK);  // an empty value is the default
    assert_int_equal(deck_i64(d, "seed"), 42);
    deck_free(d);
}

static void test_set(void **state)
{
    (void)state;
    Deck *d;
    const char *sets[] = {"seed=1", "sources[0].path=x", "sources[1].path=y", "sources[0].path=z", "run_dir="};
    assert_int_equal(deck_load(&d, NULL, sets, 5), OK);
    assert_int_equal(deck_count(d, "sources"), 2);
    assert_string_equal(deck_str(d, "sources[0].path"), "z");
    assert_string_equal(deck_str(d, "run_dir"), "");
    const char *value;
    assert_int_equal(deck_need(d, "sources[1].path", &value), OK);
    assert_int_equal(deck_need(d, "reward.path", &value), ERR_RECIPE);
    assert_non_null(strstr(err_message(), "reward.path"));
    deck_free(d);
}

typedef struct Bad {
    const char *yaml, *set, *said;  // said: in the message, after the file's name
} Bad;

static void test_refusals_name_the_place(void **state)
{
    (void)state;
    static const Bad bad[] = {
        {"seed: 1\nsft:\n  learning_ratee: 1\n", NULL,
         ":3:3: unknown key 'sft.learning_ratee'; did you mean 'sft.learning_rate'"},
        {"learning_rate: 1\n", NULL, ":1:1: unknown key 'learning_rate'; did you mean '"},
        {"sft: {beta: 1}\n", NULL, ":1:7: unknown key 'sft.beta'; did you mean 'dpo.beta'"},
        {"sorces:\n - path: x\n", NULL, ":1:1: unknown key 'sorces'; did you mean 'sources'"},
        {"seed: one\n", NULL, ":1:7: seed is 'one'; it wants a whole number"},
        {"seed: 1.5\n", NULL, "whole number"},
        {"seed: 99999999999999999999\n", NULL, "it must be from 0 to 9000000000000000"},
        {"sft:\n  learning_rate: fast\n", NULL, ":2:18: sft.learning_rate is 'fast'; it wants a number"},
        {"sft: {learning_rate: nan}\n", NULL, "wants a number"},
        {"sft: {learning_rate: -1}\n", NULL, "it must be from 0 to 1"},
        {"threads: 0\n", NULL, "it must be from 1"},
        {"exact: yes\n", NULL, "true or false"},
        {"dtype: float16\n", NULL, "one of float32|bfloat16"},
        {"dtype: float\n", NULL, "one of float32|bfloat16"},
        {"seed: 1\nseed: 2\n", NULL, ":2:7: key 'seed' is given twice"},
        {"sft: {max_steps: 1}\nsft: {max_steps: 2}\n", NULL, ":2:1: key 'sft' is given twice"},
        {"seed: &a 1\n", NULL, "anchors"},
        {"seed: *a\n", NULL, "anchors"},
        {"seed: !!int 1\n", NULL, "tags"},
        {"sft: 1\n", NULL, ":1:6:"},
        {"seed: [1]\n", NULL, ":1:1: 'seed' wants one value"},
        {"sources: {path: x}\n", NULL, "a list is wanted"},
        {"sft: [1]\n", NULL, "not a list"},
        {"sources:\n - temperature: 1\n", NULL, "sources[0].path is missing"},
        {"sources:\n - x\n", NULL, "not one value"},
        {"- 1\n", NULL, "key: value"},
        {"seed: 1\n---\nseed: 2\n", NULL, "second '---'"},
        {"run_dir: \"x\n", NULL, "not YAML"},
        {"a.b: 1\n", NULL, "must not contain"},
        {"? [a, b]\n: 1\n", NULL, "a key must be one word"},
        {"", "seed=x", "--set seed: seed is 'x'"},
        {"", "sources[1].path=x", "the next one is [0]"},
        {"", "sources[x].path=x", "an index looks like [0]"},
        {"", "sources[0].temperature=1", "sources[0].path is missing"},
        {"", "sft=1", "holds keys of its own"},
        {"", "nothing.like=1", "unknown key"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        Deck *d = NULL;
        Err err = load(&d, bad[i].yaml, bad[i].set);
        if (err != ERR_RECIPE || !strstr(err_message(), bad[i].said))
            fail_msg("%s%s gave %d: %s", bad[i].yaml, bad[i].set ? bad[i].set : "", (int)err, err_message());
        assert_null(d);
    }
}

static void test_hostile_files(void **state)
{
    (void)state;
    Deck *d;
    Str deep = {0};
    assert_int_equal(str_puts(&deep, "seed: "), OK);
    for (int i = 0; i < 100000; i++) assert_int_equal(str_puts(&deep, "["), OK);
    assert_int_equal(load(&d, str_text(&deep), NULL), ERR_RECIPE);
    str_clear(&deep);
    while (deep.len <= 1 << 20) assert_int_equal(str_puts(&deep, "# filling up the file\n"), OK);
    assert_int_equal(load(&d, str_text(&deep), NULL), ERR_DATA);
    str_clear(&deep);
    assert_int_equal(str_puts(&deep, "prompts:\n"), OK);
    for (int i = 0; i < 20000; i++) assert_int_equal(str_puts(&deep, " - path: x\n"), OK);
    assert_int_equal(load(&d, str_text(&deep), NULL), ERR_RECIPE);
    str_free(&deep);
    assert_int_equal(deck_load(&d, "/nowhere/recipe.yaml", NULL, 0), ERR_NOINPUT);
}

static void test_print_loads_back(void **state)
{
    (void)state;
    Deck *a, *b;
    Str one = {0}, two = {0};
    assert_int_equal(load(&a, "run_dir: \"a b\\n\\\"c\\\\\"\nseed: 3\nsources:\n - {path: '#x', name: 'é: -'}\n - path: y\n"
                              "eval: {sets: [{path: 'true'}]}\npair: {margin_min: 0.012345678901234567}\n", NULL), OK);
    assert_int_equal(deck_print(a, &one), OK);
    assert_int_equal(load(&b, str_text(&one), NULL), OK);
    assert_int_equal(deck_print(b, &two), OK);
    assert_string_equal(str_text(&one), str_text(&two));
    assert_string_equal(deck_str(b, "run_dir"), "a b\n\"c\\");
    assert_string_equal(deck_str(b, "sources[0].name"), "é: -");
    assert_true(deck_f64(b, "pair.margin_min") == 0.012345678901234567);
    assert_true(id_equal(deck_hash(a), deck_hash(b)));
    deck_free(a);
    deck_free(b);
    str_free(&one);
    str_free(&two);
}

static Id hash_with(const char *set, const char *sections)
{
    Deck *d;
    Id id;
    assert_int_equal(load(&d, "sources:\n - path: x\n", set), OK);
    assert_int_equal(deck_hash_of(d, sections, &id), OK);
    deck_free(d);
    return id;
}

static void test_hash_leaves_layout_out(void **state)
{
    (void)state;
    Id plain = hash_with(NULL, "");
    assert_true(id_equal(plain, hash_with("run_dir=elsewhere", "")));
    assert_true(id_equal(plain, hash_with("threads=4", "")));
    assert_true(id_equal(plain, hash_with("sft.micro_rows=4", "")));
    assert_true(id_equal(plain, hash_with("seed=42", "")));  // the default, said
    assert_true(id_equal(plain, hash_with("dpo.adam_epsilon=0.00000001", "")));
    assert_false(id_equal(plain, hash_with("seed=43", "")));
    assert_false(id_equal(plain, hash_with("sources[0].temperature=0.5", "")));
    assert_false(id_equal(plain, hash_with("sources[1].path=x", "")));
    Id part = hash_with(NULL, "sources seed");
    assert_true(id_equal(part, hash_with("dpo.beta=5", "sources seed")));
    assert_false(id_equal(part, hash_with("sources[0].n=5000", "sources seed")));
    assert_false(id_equal(part, hash_with("seed=5", "sources seed")));
}

// A value that every key accepts, and its path with [0] for [].
static void path_and_value(const DeckKey *k, char path[256], char set[600])
{
    int n = 0;
    for (const char *p = k->path; *p; p++) {
        path[n++] = *p;
        if (*p == '[') path[n++] = '0';
    }
    path[n] = '\0';
    const char *value = k->preset ? k->preset : "x";
    snprintf(set, 600, "%s=%s", path, value);
}

static void test_walk_the_table(void **state)
{
    (void)state;
    for (int i = 0; i < deck_schema_size; i++) {
        const DeckKey *k = &deck_schema[i];
        Deck *d;
        char path[256], set[600];
        path_and_value(k, path, set);
        assert_true(*k->help && !strchr(k->help, '\n'));
        for (int j = 0; j < i; j++) assert_string_not_equal(k->path, deck_schema[j].path);
        const char *sets[] = {set}, *list = strstr(k->path, "[]");
        Err err = deck_load(&d, NULL, sets, 1);
        if (list && err == ERR_RECIPE) continue;  // the entry's required key is another one
        if (err != OK) fail_msg("default of %s: %s", k->path, err_message());
        if (k->type == DECK_STR) deck_str(d, path);
        if (k->type == DECK_I64) deck_i64(d, path);
        if (k->type == DECK_F64) deck_f64(d, path);
        if (k->type == DECK_BOOL) deck_bool(d, path);
        deck_free(d);
    }
}

static void test_manual(void **state)
{
    (void)state;
    Str all = {0}, part = {0};
    assert_int_equal(deck_manual(&all, ""), OK);
    for (int i = 0; i < deck_schema_size; i++) assert_non_null(strstr(str_text(&all), deck_schema[i].path));
    assert_int_equal(deck_manual(&part, "sample"), OK);
    assert_non_null(strstr(str_text(&part), "sample.slots"));
    assert_null(strstr(str_text(&part), "samples.path"));
    str_free(&all);
    str_free(&part);
}

static int remove_dir(void **state)
{
    (void)state;
    return io_remove_tree(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_and_values), cmocka_unit_test(test_set),
        cmocka_unit_test(test_refusals_name_the_place), cmocka_unit_test(test_hostile_files),
        cmocka_unit_test(test_print_loads_back), cmocka_unit_test(test_hash_leaves_layout_out),
        cmocka_unit_test(test_walk_the_table), cmocka_unit_test(test_manual),
    };
    if (!mkdtemp(dir) || io_join(file, dir, "recipe.yaml") != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, remove_dir);
}
