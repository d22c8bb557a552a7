// SPDX-License-Identifier: Apache-2.0
// Token sampling against torch's filters (tests/data/decode/sampling.json, made by tools/reference/sampling.py).
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/mem.h"
#include "base/rng.h"
#include "decode/sampler.h"

enum { POSITIONS = 20, V_MAX = 256, DRAWS = 100000 };

typedef struct Position {
    SamplingParams params;
    float logits[V_MAX];
    uint8_t seen[V_MAX];
    double prob[V_MAX];  // 0: not kept
    int64_t V;
} Position;

static Position position[POSITIONS];

static int load(void **state)
{
    (void)state;
    json_error_t error;
    json_t *all = json_load_file("tests/data/decode/sampling.json", 0, &error), *value;
    assert_non_null(all);
    assert_int_equal(json_array_size(all), POSITIONS);
    for (size_t i = 0, j; i < POSITIONS; i++) {
        const json_t *c = json_array_get(all, i), *kept = json_object_get(c, "kept"), *prob = json_object_get(c, "prob");
        Position *p = &position[i];
        p->params = (SamplingParams){.temperature = json_number_value(json_object_get(c, "temperature")),
                                     .top_p = json_number_value(json_object_get(c, "top_p")),
                                     .top_k = (int32_t)json_integer_value(json_object_get(c, "top_k")),
                                     .repetition_penalty = json_number_value(json_object_get(c, "repetition_penalty")),
                                     .max_new_tokens = 1};
        p->V = (int64_t)json_array_size(json_object_get(c, "logits"));
        assert_true(p->V <= V_MAX);
        json_array_foreach(json_object_get(c, "logits"), j, value) p->logits[j] = (float)json_number_value(value);
        json_array_foreach(json_object_get(c, "seen"), j, value) p->seen[json_integer_value(value)] = 1;
        json_array_foreach(kept, j, value) p->prob[json_integer_value(value)] =
            json_number_value(json_array_get(prob, j));
    }
    json_decref(all);
    return 0;
}

// Kept sets are equal, ties included; probabilities agree to 1e-6: 8 fp32 roundings of 6e-8 in exp and the division.
static void kept_sets_equal_torch(void **state)
{
    (void)state;
    for (int i = 0; i < POSITIONS; i++) {
        const Position *p = &position[i];
        Sampler *s;
        assert_int_equal(sampler_new(&s, p->V), OK);
        const float *w = sampler_weights(s, p->logits, p->seen, &p->params);
        assert_non_null(w);
        double total = 0;
        for (int64_t j = 0; j < p->V; j++) total += (double)w[j];
        for (int64_t j = 0; j < p->V; j++) {
            assert_int_equal(w[j] > 0, p->prob[j] > 0);
            assert_true(fabs((double)w[j] / total - p->prob[j]) < 1e-6);
        }
        sampler_free(s);
    }
}

// Pearson's statistic of DRAWS draws (u from Philox, one key a draw) against prob, bins under 5 expected draws merged;
// as a standard normal deviate (Wilson and Hilferty 1931).
static double chi_square_deviate(const Position *p, uint64_t stream)
{
    static int64_t count[V_MAX];
    memset(count, 0, sizeof count);
    Sampler *s;
    assert_int_equal(sampler_new(&s, p->V), OK);
    for (uint64_t d = 0; d < DRAWS; d++) {
        float logp;
        int32_t t = sampler_draw(s, p->logits, p->seen, &p->params, rng_uniform(rng_key(d, stream), 17), &logp);
        assert_in_range(t, 0, p->V - 1);
        count[t]++;
    }
    sampler_free(s);
    double x2 = 0, rest = 0, rest_count = 0;
    int bins = 0;
    for (int64_t j = 0; j < p->V; j++) {
        double want = p->prob[j] * DRAWS, got = (double)count[j];
        if (want == 0) assert_int_equal(count[j], 0);
        if (want >= 5) x2 += (got - want) * (got - want) / want, bins++;
        else rest += want, rest_count += got;
    }
    if (rest >= 5) x2 += (rest_count - rest) * (rest_count - rest) / rest, bins++;
    if (bins < 2) return 0;
    double df = bins - 1, v = 2 / (9 * df);
    return (cbrt(x2 / df) - (1 - v)) / sqrt(v);
}

// 20 independent tests: a deviate above 3.5 has probability 20 * 2.3e-4 = 0.5 % when all is well; the draws are fixed.
static void draws_pass_chi_square(void **state)
{
    (void)state;
    for (int i = 0; i < POSITIONS; i++) assert_true(chi_square_deviate(&position[i], (uint64_t)i) < 3.5);
}

// The test above can fail: the same draws against probabilities of which two are swapped.
static void chi_square_sees_a_wrong_distribution(void **state)
{
    (void)state;
    Position wrong = position[0];
    int64_t a = 0, b = 0;
    for (int64_t j = 0; j < wrong.V; j++) {
        if (wrong.prob[j] > wrong.prob[a]) a = j;
        if (fabs(wrong.prob[j] - 0.01) < fabs(wrong.prob[b] - 0.01)) b = j;
    }
    double swap = wrong.prob[a];
    wrong.prob[a] = wrong.prob[b];
    wrong.prob[b] = swap;
    assert_true(chi_square_deviate(&wrong, 0) > 10);
}

// Eight equal logits: sums of eighths are exact, so the cut is known. Equal logits go by the higher id.
static void ties_at_the_threshold(void **state)
{
    (void)state;
    const float flat[8] = {2, 2, 2, 2, 2, 2, 2, 2}, steps[8] = {1, 3, 2, 2, 2, 1, 1, 3};
    Sampler *s;
    assert_int_equal(sampler_new(&s, 8), OK);
    SamplingParams p = {.temperature = 1, .top_p = 0.5, .repetition_penalty = 1};
    const float *w = sampler_weights(s, flat, NULL, &p);
    for (int i = 0; i < 8; i++) assert_int_equal(w[i] > 0, i >= 4);
    p = (SamplingParams){.temperature = 1, .top_p = 1, .top_k = 3, .repetition_penalty = 1};
    w = sampler_weights(s, steps, NULL, &p);
    for (int i = 0; i < 8; i++) assert_int_equal(w[i] > 0, steps[i] >= 2);  // the third is a 2: all three 2s stay
    sampler_free(s);
}

// The shared header's exp is the sampler's own, bit for bit: what the device's choice rests on.
static void shared_exp_is_the_samplers(void **state)
{
    (void)state;
    enum { N = 4096 };
    static float logits[N];
    Sampler *s;
    assert_int_equal(sampler_new(&s, N), OK);
    for (int64_t i = 1; i < N; i++) logits[i] = (float)rng_uniform(rng_key(9, 0), (uint64_t)i) * -90;
    const SamplingParams p = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    const float *w = sampler_weights(s, logits, NULL, &p);
    for (int64_t i = 0; i < N; i++) {
        const float e = sample_exp(logits[i]);
        assert_memory_equal(&w[i], &e, sizeof e);
    }
    sampler_free(s);
}

static void greedy_takes_the_lowest_id(void **state)
{
    (void)state;
    const float logits[8] = {1, 3, 2, 3, 0, -1, 3, 2};
    const uint8_t seen[8] = {0, 1};
    Sampler *s;
    float logp;
    assert_int_equal(sampler_new(&s, 8), OK);
    SamplingParams p = {.temperature = 0, .top_p = 1, .repetition_penalty = 1};
    assert_int_equal(sampler_draw(s, logits, NULL, &p, 0.9, &logp), 1);
    double sum = 0;
    for (int i = 0; i < 8; i++) sum += exp((double)logits[i] - 3);
    assert_true(fabs((double)logp + log(sum)) < 1e-6);
    p.repetition_penalty = 1.5;
    assert_int_equal(sampler_draw(s, logits, seen, &p, 0.9, &logp), 3);  // 1 was penalised
    assert_true(fabs((double)logp + log(sum)) < 1e-6);                   // logp is of the unmodified logits
    sampler_free(s);
}

static void bad_logits_are_refused(void **state)
{
    (void)state;
    float logits[8] = {0, 1, NAN, 3};
    Sampler *s;
    float logp;
    SamplingParams p = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    assert_int_equal(sampler_new(&s, 8), OK);
    assert_int_equal(sampler_draw(s, logits, NULL, &p, 0.5, &logp), -1);
    for (int i = 0; i < 8; i++) logits[i] = -INFINITY;
    assert_int_equal(sampler_draw(s, logits, NULL, &p, 0.5, &logp), -1);
    logits[5] = 1;
    assert_int_equal(sampler_draw(s, logits, NULL, &p, 0.5, &logp), 5);
    sampler_free(s);
    assert_int_equal(sampler_check(&(SamplingParams){.temperature = 1, .top_p = 1.5, .repetition_penalty = 1,
                                                     .max_new_tokens = 1}), ERR_RECIPE);
}

// A large vocabulary, all logits equal (the worst case) and spread: the cut is where sorting would put it.
static void large_vocabulary(void **state)
{
    (void)state;
    const int64_t V = 152064;
    float *logits;
    Sampler *s;
    assert_int_equal(MEM_ARRAY(&logits, V), OK);
    assert_int_equal(sampler_new(&s, V), OK);
    SamplingParams p = {.temperature = 1, .top_p = 0.25, .repetition_penalty = 1};
    const float *w = sampler_weights(s, logits, NULL, &p);
    for (int64_t i = 0; i < V; i++) assert_int_equal(w[i] > 0, i >= V - V / 4);
    for (int64_t i = 0; i < V; i++) logits[i] = (float)rng_uniform(rng_key(3, 0), (uint64_t)i) * 40;
    p.top_p = 1;
    p.top_k = 1000;
    w = sampler_weights(s, logits, NULL, &p);
    int64_t kept = 0;
    float low = 1e9f, high = -1;
    for (int64_t i = 0; i < V; i++) {
        if (w[i] > 0) kept++, low = logits[i] < low ? logits[i] : low;
        else high = logits[i] > high ? logits[i] : high;
    }
    assert_true(kept >= 1000 && kept < 1010 && low > high);
    sampler_free(s);
    mem_free(logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_sets_equal_torch), cmocka_unit_test(draws_pass_chi_square),
        cmocka_unit_test(chi_square_sees_a_wrong_distribution), cmocka_unit_test(ties_at_the_threshold),
        cmocka_unit_test(shared_exp_is_the_samplers),
        cmocka_unit_test(greedy_takes_the_lowest_id), cmocka_unit_test(bad_logits_are_refused),
        cmocka_unit_test(large_vocabulary),
    };
    return cmocka_run_group_tests(tests, load, NULL);
}
