// SPDX-License-Identifier: Apache-2.0
// Bootstrap intervals against what is known in closed form, and benchmark protocols.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>

#include <cmocka.h>

#include "judge/bootstrap.h"
#include "judge/protocol.h"
#include "text/record.h"

enum { N = 400 };

static Interval of(const double *x, int64_t n, uint64_t seed)
{
    Interval v;
    assert_int_equal(boot_interval(&(Stratum){x, n}, 1, rng_key(seed, 1), &v), OK);
    return v;
}

static void right_or_wrong(double *x, double p, uint64_t seed)
{
    for (int i = 0; i < N; i++) x[i] = rng_uniform(rng_key(seed, 7), (uint64_t)i) < p;
}

static void constants_have_no_width(void **state)
{
    (void)state;
    double x[5] = {0.25, 0.25, 0.25, 0.25, 0.25};
    Interval v = of(x, 5, 1);
    assert_true(v.mean == 0.25 && v.lo == 0.25 && v.hi == 0.25);
}

// The bootstrap's standard error of a mean is sd / sqrt(n); its 2.5 % quantile from 2,000 resamples has a standard error of
// about 2.7 / sqrt(2000) = 6 % of that sd, so half widths agree with 1.96 sd within 12 % (two of these, of 1.96).
static void width_is_that_of_the_normal_law(void **state)
{
    (void)state;
    double x[N], sum = 0;
    right_or_wrong(x, 0.7, 3);
    for (int i = 0; i < N; i++) sum += x[i];
    double p = sum / N, half = 1.96 * sqrt(p * (1 - p) / N);
    Interval v = of(x, N, 2);
    assert_true(fabs(v.mean - p) < 1e-12);
    assert_true(fabs((v.hi - v.lo) / 2 - half) < 0.12 * half);
    assert_true(v.lo < p && p < v.hi);
}

static void same_key_same_interval(void **state)
{
    (void)state;
    double x[N];
    right_or_wrong(x, 0.4, 5);
    Interval a = of(x, N, 9), b = of(x, N, 9), c = of(x, N, 10);
    assert_memory_equal(&a, &b, sizeof a);
    assert_true(a.lo != c.lo || a.hi != c.hi);
}

// Paired differences of two models that agree on most prompts are far better known than two separate means.
static void pairing_cancels_what_both_find_hard(void **state)
{
    (void)state;
    double a[N], d[N];
    right_or_wrong(a, 0.5, 11);
    for (int i = 0; i < N; i++) d[i] = i % 20 == 0 ? 1 - a[i] : 0;  // b = a, but right wherever i % 20 == 0
    Interval alone = of(a, N, 1), paired = of(d, N, 1);
    assert_true(paired.hi - paired.lo < 0.5 * (alone.hi - alone.lo));
}

static void strata_weigh_the_same(void **state)
{
    (void)state;
    double few[2] = {1, 1}, many[N];
    for (int i = 0; i < N; i++) many[i] = 0;
    Stratum s[2] = {{few, 2}, {many, N}};
    Interval v;
    assert_int_equal(boot_interval(s, 2, rng_key(1, 1), &v), OK);
    assert_true(v.mean == 0.5 && v.lo == 0.5 && v.hi == 0.5);
}

// Must fail when the data is corrupted: one changed answer moves the mean by exactly 1/n.
static void a_changed_answer_shows(void **state)
{
    (void)state;
    double x[N];
    right_or_wrong(x, 0.6, 13);
    double before = of(x, N, 1).mean;
    x[17] = 1 - x[17];
    assert_true(fabs(fabs(of(x, N, 1).mean - before) - 1.0 / N) < 1e-12);
}

static json_t *gsm8k(const char *row, Id *id)
{
    const Protocol *p;
    const char *unfit;
    json_t *in, *data;
    assert_int_equal(json_parse(row, (int64_t)strlen(row), "test", &in), OK);
    assert_int_equal(protocol_find("gsm8k", &p), OK);
    assert_true(p->greedy && p->max_new_tokens == 2048);
    assert_int_equal(protocol_import(p, in, "math", "gsm8k", "test", &data, id, &unfit), OK);
    assert_null(unfit);
    json_decref(in);
    return data;
}

static const char *content(const json_t *data, size_t i)
{
    return json_string_value(json_object_get(json_array_get(json_object_get(data, "messages"), i), "content"));
}

static void gsm8k_puts_the_question_after_its_system_message(void **state)
{
    (void)state;
    Id id;
    json_t *d = gsm8k("{\"question\": \" How many? \\n\", \"answer\": \"1+1=2\\n#### 2\"}", &id);
    assert_string_equal(content(d, 0), "Please reason step by step, and put your final answer within \\boxed{}.");
    assert_string_equal(content(d, 1), "How many?");
    assert_string_equal(json_string_value(json_object_get(d, "gold")), "2");
    json_decref(d);
    d = gsm8k("{\"question\": \"Is it?\", \"answer\": \"so\\n#### Yes\"}", &id);
    assert_string_equal(content(d, 1), "Is it? (Yes or No)");
    json_decref(d);
}

static void an_unknown_protocol_is_a_recipe_error(void **state)
{
    (void)state;
    const Protocol *p;
    assert_int_equal(protocol_find("gsm9k", &p), ERR_RECIPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constants_have_no_width),
        cmocka_unit_test(width_is_that_of_the_normal_law),
        cmocka_unit_test(same_key_same_interval),
        cmocka_unit_test(pairing_cancels_what_both_find_hard),
        cmocka_unit_test(strata_weigh_the_same),
        cmocka_unit_test(a_changed_answer_shows),
        cmocka_unit_test(gsm8k_puts_the_question_after_its_system_message),
        cmocka_unit_test(an_unknown_protocol_is_a_recipe_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
