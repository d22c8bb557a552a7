// SPDX-License-Identifier: Apache-2.0
// Cutting the list of samples into chunks, and how evenly virtual ranks end that take them.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "decode/deal.h"

enum { PROMPTS = 2000, N = 5, SAMPLES = PROMPTS * N, MAX_RANKS = 1000 };

static int32_t prompt[SAMPLES];
static int64_t border[SAMPLES + 1], chunks;

// Sample counts vary, as after a resume.
static int64_t list_samples(int64_t prompts)
{
    int64_t n = 0;
    for (int32_t p = 0; p < prompts; p++)
        for (int32_t k = 0; k < 1 + (p * 7) % N; k++) prompt[n++] = p;
    return n;
}

static void every_sample_is_dealt_once(void **state)
{
    (void)state;
    const int ranks[] = {1, 2, 3, 8, 100};
    for (int64_t prompts = 0; prompts < 60; prompts += prompts < 5 ? 1 : 11)
        for (int r = 0; r < 5; r++) {
            const int64_t n = list_samples(prompts);
            deal_cut(prompt, n, ranks[r], border, &chunks);
            assert_int_equal(border[0], 0);
            assert_int_equal(border[chunks], n);
            for (int64_t i = 0; i < chunks; i++) assert_true(border[i] < border[i + 1]);
        }
}

// How many prompts are dealt to more than one chunk, and the first of them.
static int64_t split_prompts(int64_t n, int32_t *first)
{
    int64_t count = 0;
    int32_t last = -1;
    *first = INT32_MAX;
    for (int64_t i = 1; i < chunks; i++) {
        const int32_t p = prompt[border[i]];
        if (border[i] == n || p != prompt[border[i] - 1] || p == last) continue;
        if (!count++) *first = p;
        last = p;
    }
    return count;
}

static void only_the_last_prompts_are_split_one_a_rank(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 16; ranks++) {
        int32_t first;
        const int64_t n = list_samples(200);
        deal_cut(prompt, n, ranks, border, &chunks);
        const int64_t count = split_prompts(n, &first);
        assert_true(count > 0 && count <= ranks);
        assert_true(first >= 200 - ranks);
    }
}

// Ranks that draw one sample at a time, as long as its number of tokens; the one that is free first takes the next chunk.
static double last_end(const int32_t *tokens, int ranks, double *mean)
{
    static double end[MAX_RANKS];
    double total = 0, last = 0;
    for (int r = 0; r < ranks; r++) end[r] = 0;
    for (int64_t c = 0; c < chunks; c++) {
        int r = 0;
        for (int i = 1; i < ranks; i++)
            if (end[i] < end[r]) r = i;
        for (int64_t i = border[c]; i < border[c + 1]; i++) end[r] += tokens[i], total += tokens[i];
    }
    for (int r = 0; r < ranks; r++) last = fmax(last, end[r]);
    *mean = total / ranks;
    return last;
}

// Greedy list scheduling ends at most one item behind the mean (Graham 1966); here the last items are single samples.
static void ranks_end_within_a_sample_of_each_other(void **state)
{
    (void)state;
    static int32_t tokens[SAMPLES];
    const int ranks[] = {2, 16, 100};
    int32_t longest = 0;
    for (int64_t i = 0; i < SAMPLES; i++) {
        prompt[i] = (int32_t)(i / N);
        tokens[i] = (int32_t)fmin(2048, fmax(8, exp(log(300) + 0.8 * rng_normal(rng_key(3, 0), (uint64_t)i))));
        longest = tokens[i] > longest ? tokens[i] : longest;
    }
    for (int r = 0; r < 3; r++) {
        double mean;
        deal_cut(prompt, SAMPLES, ranks[r], border, &chunks);
        const double last = last_end(tokens, ranks[r], &mean);
        if (last > mean + longest) fail_msg("%d ranks: the last ends at %.0f, the mean is %.0f", ranks[r], last, mean);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sample_is_dealt_once),
        cmocka_unit_test(only_the_last_prompts_are_split_one_a_rank),
        cmocka_unit_test(ranks_end_within_a_sample_of_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
