// SPDX-License-Identifier: Apache-2.0
// Pair rules against a transcription in Python (tools/reference/pair.py), and the places where the recipe is easy to get
// wrong: inclusive window, first of equals, filter before the split, same source.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "stage/pair_rules.h"
#include "text/record.h"

enum { ANSWERS = 4096, PROMPTS = 64 };
static PairAnswer a[ANSWERS];
static PairPrompt p[PROMPTS];
static PairChoice pairs[ANSWERS];

static int number_of(const char *const *names, const char *name)
{
    int i = 0;
    while (strcmp(names[i], name)) i++;
    return i;
}

static double number(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }
static bool truth(const json_t *o, const char *key) { return json_is_true(json_object_get(o, key)); }

static PairRules rules_of(const json_t *o)
{
    return (PairRules){.sft_fraction = number(o, "sft_fraction"), .margin_min = number(o, "margin_min"),
                       .margin_max = number(o, "margin_max"), .math_dpo_fraction = number(o, "math_dpo_fraction"),
                       .code_dpo_fraction = number(o, "code_dpo_fraction"), .window_code = truth(o, "window_code"),
                       .code_overlap = truth(o, "code_overlap"), .one_per_prompt = truth(o, "one_per_prompt"),
                       .allow_weak = truth(o, "allow_weak"), .allow_cut = truth(o, "allow_cut")};
}

static PairAnswer answer_of(const json_t *o, int64_t prompt, int64_t sample)
{
    static const char *const verdicts[] = {"wrong", "right", "undecided", "unjudged"};
    return (PairAnswer){.id = {1, (uint64_t)sample}, .prompt = {0, (uint64_t)prompt}, .text = {2, (uint64_t)number(o, "text")},
                        .k = (int64_t)number(o, "k"), .source = (int32_t)number(o, "source"), .score = number(o, "score"),
                        .scored = truth(o, "scored"), .weak = truth(o, "weak"), .cut = truth(o, "cut"),
                        .verdict = (int8_t)number_of(verdicts, json_string_value(json_object_get(o, "verdict")))};
}

// Fills a and p; answers are put in backwards, so that the order of input is seen not to matter.
static int64_t load(const json_t *prompts, int64_t *n)
{
    static const char *const kinds[] = {"if", "math", "code"};
    *n = 0;
    size_t i, k;
    json_t *o, *answer;
    json_array_foreach(prompts, i, o) {
        p[i] = (PairPrompt){.id = {0, i}, .draw = (uint64_t)number(o, "draw"), .dataset = (int32_t)number(o, "dataset"),
                            .kind = (int8_t)number_of(kinds, json_string_value(json_object_get(o, "kind")))};
        json_array_foreach(json_object_get(o, "answers"), k, answer) {
            a[*n] = answer_of(answer, (int64_t)i, *n);
            ++*n;
        }
    }
    for (int64_t x = 0, y = *n - 1; x < y; x++, y--) {
        PairAnswer swap = a[x];
        a[x] = a[y], a[y] = swap;
    }
    return (int64_t)json_array_size(prompts);
}

static bool same_text(const char *mine, const json_t *theirs)
{
    return mine ? json_is_string(theirs) && !strcmp(mine, json_string_value(theirs)) : json_is_null(theirs);
}

static bool is_answer(int64_t i, const json_t *key, size_t at)
{
    return a[i].source == json_integer_value(json_array_get(key, at)) && a[i].k == json_integer_value(json_array_get(key, at + 1));
}

static bool same_prompt(const PairPrompt *q, const json_t *e)
{
    const json_t *sft = json_object_get(e, "sft"), *wanted = json_object_get(e, "pairs");
    bool same = same_text(q->dropped, json_object_get(e, "dropped")) && q->to_sft == json_is_array(sft);
    if (same && q->to_sft) same = is_answer(q->best, sft, 0);
    int64_t n = q->to_dpo ? q->pairs : 0;
    same = same && n == (int64_t)json_array_size(wanted);
    for (int64_t i = 0; same && i < n; i++) {
        const PairChoice *c = &pairs[q->first_pair + i];
        const json_t *w = json_array_get(wanted, (size_t)i);
        same = is_answer(c->chosen, w, 0) && is_answer(c->rejected, w, 2) && c->margin == a[c->chosen].score - a[c->rejected].score;
    }
    for (int64_t i = 0; same && i < q->n; i++)
        same = same_text(a[q->first + i].left_out ? a[q->first + i].left_out : a[q->first + i].not_chosen,
                         json_array_get(json_object_get(e, "left_out"), (size_t)i));
    return same;
}

static int64_t differences(const json_t *one)
{
    int64_t answers, n = load(json_object_get(one, "prompts"), &answers), bad = 0, n_pairs;
    PairRules r = rules_of(json_object_get(one, "rules"));
    assert_int_equal(pair_order(a, answers, p, n), OK);
    assert_int_equal(pair_choose(&r, a, p, n, pairs, &n_pairs), OK);
    for (int64_t i = 0; i < n; i++) bad += !same_prompt(&p[i], json_array_get(json_object_get(one, "expect"), (size_t)i));
    return bad;
}

static void test_item6_equals_the_transcription(void **state)
{
    (void)state;
    json_t *cases = json_load_file("tests/data/pair/cases.json", 0, NULL), *one;
    size_t i;
    assert_non_null(cases);
    assert_int_equal(json_array_size(cases), 10);
    json_array_foreach(cases, i, one) assert_int_equal(differences(one), 0);
    int64_t seen = 0;  // the comparison sees corrupted cases
    json_array_foreach(cases, i, one) {
        json_object_set_new(json_object_get(one, "rules"), "margin_max", json_real(4 / 256.0));
        seen += differences(one);
    }
    assert_true(seen > 10);
    json_decref(cases);
}

// n answers of one prompt, source and k counted from 0; scores given.
static void one_prompt(PairKind kind, int n, const double *score, const int *source, const int *verdict)
{
    p[0] = (PairPrompt){.kind = (int8_t)kind};
    for (int i = 0; i < n; i++)
        a[i] = (PairAnswer){.id = {1, (uint64_t)i}, .text = {2, (uint64_t)i}, .k = i, .score = score[i], .source = source[i],
                            .scored = true, .verdict = (int8_t)(verdict ? verdict[i] : PAIR_UNJUDGED)};
    assert_int_equal(pair_order(a, n, p, 1), OK);
}

static void test_window_is_inclusive(void **state)
{
    (void)state;
    PairRules r = {.margin_min = 0.25, .margin_max = 0.5};
    const int source[] = {0, 0};
    const double margin[] = {0.25, 0.5, 0.2499999, 0.5000001};
    for (int i = 0; i < 4; i++) {
        int64_t n;
        one_prompt(PAIR_IF, 2, (const double[]){margin[i], 0}, source, NULL);
        assert_int_equal(pair_choose(&r, a, p, 1, pairs, &n), OK);
        assert_int_equal(n, i < 2);
    }
}

static void test_owner_of_the_best_supplies_the_pair(void **state)
{
    (void)state;
    PairRules r = {.margin_min = 0.01, .margin_max = 0.1};
    int64_t n;  // source 1 owns the best answer and has no valid pair; source 0 has one that does not count
    one_prompt(PAIR_IF, 4, (const double[]){0.5, 0.45, 0.9, 0.1}, (const int[]){0, 0, 1, 1}, NULL);
    assert_int_equal(pair_choose(&r, a, p, 1, pairs, &n), OK);
    assert_int_equal(n, 0);
    assert_string_equal(p[0].dropped, "margin above margin_max");
}

static void test_first_of_equals(void **state)
{
    (void)state;
    PairRules r = {.margin_min = 0.01, .margin_max = 1};
    int64_t n;
    one_prompt(PAIR_IF, 4, (const double[]){0.1, 0.9, 0.9, 0.1}, (const int[]){0, 0, 0, 0}, NULL);
    assert_int_equal(pair_choose(&r, a, p, 1, pairs, &n), OK);
    assert_int_equal(pairs[0].chosen, 1);
    assert_int_equal(pairs[0].rejected, 0);
}

static void test_math_prefers_no_other_source(void **state)
{
    (void)state;
    PairRules r = {.margin_min = 0.01, .margin_max = 0.1, .math_dpo_fraction = 1, .one_per_prompt = true};
    int64_t n;  // right in source 0, wrong in source 1: no pair across sources, but an SFT row
    one_prompt(PAIR_MATH, 2, (const double[]){0.5, 0.45}, (const int[]){0, 1}, (const int[]){PAIR_RIGHT, PAIR_WRONG});
    assert_int_equal(pair_choose(&r, a, p, 1, pairs, &n), OK);
    assert_int_equal(n, 0);
    assert_true(p[0].to_sft && !p[0].to_dpo && p[0].best == 0);
}

static void test_undecided_never_enters(void **state)
{
    (void)state;
    PairRules r = {.margin_min = 0, .margin_max = 1, .code_dpo_fraction = 1};
    int64_t n;
    one_prompt(PAIR_CODE, 3, (const double[]){0.5, 0.4, 0.3}, (const int[]){0, 0, 0},
               (const int[]){PAIR_RIGHT, PAIR_UNDECIDED, PAIR_UNDECIDED});
    assert_int_equal(pair_choose(&r, a, p, 1, pairs, &n), OK);
    assert_int_equal(n, 0);
    assert_string_equal(a[1].left_out, "undecided");
}

static void test_shares(void **state)
{
    (void)state;
    assert_int_equal(pair_share(0.4, 51098), 20439);  // the published counts (spec 3.4)
    assert_int_equal(pair_share(0.4, 20374), 8149);
    assert_int_equal(pair_share(0.4, 9435), 3774);
    assert_int_equal(pair_share(0.29, 100), 29);
    assert_int_equal(pair_share(0, 7), 0);
    assert_int_equal(pair_share(1, 7), 7);
}

static void test_unknown_prompt(void **state)
{
    (void)state;
    p[0] = (PairPrompt){.id = {0, 1}};
    a[0] = (PairAnswer){.prompt = {0, 2}};
    assert_int_equal(pair_order(a, 1, p, 1), ERR_DATA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_item6_equals_the_transcription), cmocka_unit_test(test_window_is_inclusive),
        cmocka_unit_test(test_owner_of_the_best_supplies_the_pair), cmocka_unit_test(test_first_of_equals),
        cmocka_unit_test(test_math_prefers_no_other_source), cmocka_unit_test(test_undecided_never_enters),
        cmocka_unit_test(test_shares), cmocka_unit_test(test_unknown_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
